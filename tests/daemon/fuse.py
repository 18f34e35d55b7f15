# SPDX-License-Identifier: BSD-2-Clause
"""fuse.py DIR: a FUSE file system with one file, "file", mounted at DIR. No FLUSH is answered until a byte comes on standard input; then all
are, and the end of what is open ends it. linux/fuse.h has the structures."""
import ctypes
import os
import select
import struct
import sys

LOOKUP, FORGET, GETATTR, OPEN, RELEASE, FLUSH, INIT, INTERRUPT, BATCH_FORGET = 1, 2, 3, 14, 18, 25, 26, 36, 42
libc = ctypes.CDLL(None, use_errno=True)
place = sys.argv[1].encode()
fuse = os.open("/dev/fuse", os.O_RDWR)
if libc.mount(b"test", place, b"fuse", 0, b"fd=%d,rootmode=40000,user_id=0,group_id=0,allow_other" % fuse):
    sys.exit(1)
print("mounted", flush=True)


def attr(node):
    mode, size = (0o40755, 0) if node == 1 else (0o100644, 1)
    return struct.pack("<QQQQQQIIIIIIIIII", node, size, 0, 0, 0, 0, 0, 0, 0, mode, 1, 0, 0, 0, 512, 0)


def answer(unique, body=b"", error=0):
    os.write(fuse, struct.pack("<IiQ", 16 + len(body), error, unique) + body)


held, quiet = [], True
while quiet or held:
    ready, _, _ = select.select([fuse] + [0] * quiet, [], [])
    if 0 in ready:
        quiet = False
        for unique in held:
            answer(unique)
        break
    message = os.read(fuse, 1 << 18)
    _, op, unique, node = struct.unpack_from("<IIQQ", message)
    if op == INIT:
        answer(unique, struct.pack("<IIIIHHIIHHIIHHIIII", 7, 31, 0, 0, 0, 0, 4096, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0))
    elif op == LOOKUP:
        if message[40:-1] == b"file":
            answer(unique, struct.pack("<QQQQII", 2, 0, 60, 60, 0, 0) + attr(2))
        else:
            answer(unique, error=-2)
    elif op == GETATTR:
        answer(unique, struct.pack("<QII", 60, 0, 0) + attr(node))
    elif op == OPEN:
        answer(unique, struct.pack("<QII", 1, 0, 0))
    elif op == FLUSH:
        held.append(unique)
    elif op not in (FORGET, INTERRUPT, BATCH_FORGET):
        answer(unique, error=0 if op == RELEASE else -38)
libc.umount2(place, 2)  # and with /dev/fuse's end every close() that still waits goes on
