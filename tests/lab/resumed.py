#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What a restore will say and do to a guest, said and done from outside:

    resumed.py tell SOCKET VM HOST MACHINE-ID [CARD...]   GP_RESUMED without a clock, over the VM's vsock path; prints how it was answered
    resumed.py genid SUPERVISOR VMM                       another generation identifier in guest memory, and each event that insula-vmm alone
                                                          holds: the interrupt is among them
"""
import ctypes
import os
import re
import socket
import struct
import sys

GP_PORT, GP_MAGIC, GP_HELLO, GP_RESUMED, GP_EXIT = 1, 0x31504749, 1, 13, 69
GENID = 0xdf010  # BOARD_GENID


def frame(kind, body):
    return struct.pack("<IHH", len(body), kind, 0) + body


def read(f, n):
    data = f.read(n)
    if len(data) != n:
        sys.exit("the stream ended")
    return data


def tell(path, *strings):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(60)
    s.connect(path)
    s.sendall(b"CONNECT %d\n" % GP_PORT)
    f = s.makefile("rb")
    if not f.readline().startswith(b"OK"):
        sys.exit("not connected")
    s.sendall(frame(GP_HELLO, struct.pack("<IIIIQ", GP_MAGIC, 1, 0x7fff0000 + os.getpid() % 0x10000, 0, 0)))
    body = struct.pack("<IIQ", 0, len(strings) - 3, 0) + os.urandom(64) + b"".join(x.encode() + b"\0" for x in strings)
    s.sendall(frame(GP_RESUMED, body))
    while True:
        n, kind, _ = struct.unpack("<IHH", read(f, 8))
        body = read(f, n)
        if kind == GP_EXIT:
            how, value = struct.unpack_from("<II", body)
            print("answer", how, value, body[16:].split(b"\0")[0].decode())
            return


def events(pid):
    found = {}
    for fd in os.listdir(f"/proc/{pid}/fd"):
        if "[eventfd]" in os.readlink(f"/proc/{pid}/fd/{fd}"):
            with open(f"/proc/{pid}/fdinfo/{fd}") as f:
                found[re.search(r"eventfd-id:\s*(\d+)", f.read())[1]] = int(fd)
    return found


def genid(supervisor, vmm):
    libc = ctypes.CDLL(None, use_errno=True)
    for fd in os.listdir(f"/proc/{supervisor}/fd"):
        if "insula-guest" in os.readlink(f"/proc/{supervisor}/fd/{fd}"):
            memory = os.open(f"/proc/{supervisor}/fd/{fd}", os.O_RDWR)
            if os.pread(memory, 16, GENID) == bytes(16):
                sys.exit("no identifier in guest memory")
            os.pwrite(memory, os.urandom(16), GENID)
            break
    else:
        sys.exit("no guest memory")
    theirs, pidfd = events(supervisor), libc.syscall(434, int(vmm), 0)  # pidfd_open
    own = [fd for number, fd in events(vmm).items() if number not in theirs]
    for fd in own:
        os.write(libc.syscall(438, pidfd, fd, 0), struct.pack("<Q", 1))  # pidfd_getfd
    print("signalled", len(own) > 0)


{"tell": tell, "genid": genid}[sys.argv[1]](*sys.argv[2:])
