#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""The other side of --net socket=PATH for payloads: netpeer.py PATH

Sends every frame back with its two addresses swapped. Takes any number of connections, one after the other or at once, and checks that
frames stay in step: a length that cannot be is reported and ends the program.
"""
import os
import selectors
import socket
import struct
import sys

path = sys.argv[1]
server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
server.bind(path)
server.listen(8)
sel = selectors.DefaultSelector()
sel.register(server, selectors.EVENT_READ, None)


def serve(conn, buf):
    data = conn.recv(65536)
    if not data:
        sel.unregister(conn)
        conn.close()
        return
    buf += data
    while len(buf) >= 4:
        (n,) = struct.unpack(">I", buf[:4])
        if not 1 <= n <= 65553:
            print("out of step: a length of %d" % n, flush=True)
            os._exit(1)
        if len(buf) < 4 + n:
            break
        frame = bytes(buf[4:4 + n])
        del buf[:4 + n]
        if n >= 14:
            frame = frame[6:12] + frame[0:6] + frame[12:]
        conn.sendall(struct.pack(">I", len(frame)) + frame)


while True:
    for key, _ in sel.select():
        if key.data is None:
            conn, _ = server.accept()
            sel.register(conn, selectors.EVENT_READ, bytearray())
        else:
            try:
                serve(key.fileobj, key.data)
            except (BrokenPipeError, ConnectionResetError):
                sel.unregister(key.fileobj)
                key.fileobj.close()
