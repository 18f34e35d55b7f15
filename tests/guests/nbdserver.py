#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An NBD server that can be bad: nbdserver.py SOCKET FILE [MODE] [multi]

It speaks fixed newstyle with NBD_OPT_GO, simple replies, flush and FUA; one process, a thread for each connection.

  good       writes go to FILE
  volatile   writes stay in memory until a flush or with FUA: a kill loses them
  greeting   says nothing that NBD knows; `silent`: says nothing at all
  length     answers a read with too few bytes, then closes; `handle`: with a handle that nobody gave;
  magic      with a wrong magic; `nothing`: answers without a question; `endless`: answers for ever, to no question
  stall      takes requests and does not answer; `error`: answers each with EIO
  tlsstall   says yes to TLS, and nothing then; `tlsjunk`: what is no TLS; `tlsend`: closes
  refuse     knows no export; `huge`: an export of 2^63 bytes; `odd`: of 1000 bytes more
Bad modes are bad from the first request on, so that a disk of that server comes about.
"""
import os
import socket
import struct
import sys
import threading

from serverdisk import Disk, take

path, image = sys.argv[1:3]
mode = sys.argv[3] if len(sys.argv) > 3 else "good"
multi = "multi" in sys.argv
FLAGS = 1 | 4 | 8 | (256 if multi else 0)  # flush, FUA, multi-conn
disk = Disk(image, mode == "volatile")


def size():
    return {"huge": 1 << 63, "odd": disk.size() + 1000}.get(mode, disk.size())


def greet(s):
    """True: transmission begins."""
    if mode == "silent":
        take(s, 1 << 20)
    if mode == "greeting":
        s.sendall(b"SSH-2.0-this is not what you asked for\r\n" * 10)
        return False
    s.sendall(b"NBDMAGICIHAVEOPT" + struct.pack(">H", 3))
    take(s, 4)
    while True:
        _, opt, length = struct.unpack(">QII", take(s, 16))
        take(s, length)
        reply = lambda kind, data=b"": s.sendall(struct.pack(">QIII", 0x3e889045565a9, opt, kind, len(data)) + data)
        if opt == 5 and mode.startswith("tls"):  # STARTTLS
            reply(1)
            if mode == "tlsjunk":
                s.sendall(os.urandom(4096))
            elif mode == "tlsend":
                return False
            take(s, 1 << 20)
        if opt in (6, 7):  # INFO, GO
            if mode == "refuse":
                reply(0x80000006)
                continue
            reply(3, struct.pack(">HQH", 0, size(), FLAGS))
            reply(1)
            if opt == 7:
                return True
        elif opt == 2:
            reply(1)
            return False
        else:
            reply(0x80000001)


def answer(s, handle, data=b"", error=0):
    s.sendall(struct.pack(">IIQ", 0x67446698, error, handle) + data)


def misbehave(s, handle, kind, n):
    if mode == "length":
        answer(s, handle, b"x" * (n // 2) if kind == 0 else b"")
        raise EOFError
    if mode == "handle":
        answer(s, handle ^ 0x5555, b"x" * n if kind == 0 else b"")
    elif mode == "magic":
        s.sendall(b"\xff" * 4096)
    elif mode == "nothing":
        answer(s, 0x1234567890)
        answer(s, handle, b"x" * n if kind == 0 else b"")
    elif mode == "endless":
        while True:
            answer(s, 0, b"\0" * 65536)
    elif mode == "error":
        answer(s, handle, error=5)


def serve(s):
    if not greet(s):
        return
    while True:
        magic, flags, kind, handle, off, n = struct.unpack(">IHHQQI", take(s, 28))
        if magic != 0x25609513 or kind == 2:
            return
        data = take(s, n) if kind == 1 else b""
        if mode not in ("good", "volatile"):
            misbehave(s, handle, kind, n)
        elif kind == 0:
            answer(s, handle, disk.read(off, n))
        else:
            if kind == 1:
                disk.write(off, data, flags & 1)
            elif kind == 3:
                disk.flush()
            answer(s, handle)


def connection(s):
    try:
        serve(s)
    except (EOFError, OSError):
        pass
    s.close()


def main():
    if os.path.exists(path):
        os.unlink(path)
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(path)
    listener.listen(16)
    while True:
        s, _ = listener.accept()
        threading.Thread(target=connection, args=(s,), daemon=True).start()


main()
