#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A vhost-user back end of a disk, for tests: vhostback.py SOCKET IMAGE

It connects to SOCKET, where insula-run listens (--device vhost-user,...,server), and serves one queue until the connection ends.
Requests that it finds together are done in the opposite order, and it keeps account of them in memory (INFLIGHT_SHMFD), so that it
may be killed at any time. It prints `new` or `again`: whether it was given an account of an earlier one; then `resumed N`.
"""
import array
import mmap
import os
import select
import socket
import struct
import sys
import time

VERSION_1, PROTOCOL, FLUSH = 1 << 32, 1 << 30, 1 << 9
MQ, REPLY_ACK, CONFIG, INFLIGHT = 1 << 0, 1 << 3, 1 << 9, 1 << 12
IN, OUT, DO_FLUSH = 0, 1, 4
NEXT, WRITE = 1, 2
ACCOUNT = 4096  # u16 used_idx, u16 pending, then a byte for each head from 16 on


class Back:
    def __init__(self, path, image):
        self.disk = os.open(image, os.O_RDWR)
        self.capacity = os.fstat(self.disk).st_size // 512
        self.sock = socket.socket(socket.AF_UNIX)
        while self.sock.connect_ex(path):
            time.sleep(0.02)
        self.regions, self.account = [], None
        self.kick = self.call = -1
        self.num = self.last = 0
        self.desc = self.used = self.avail = 0

    # ---- guest memory

    def place(self, at):
        for start, size, memory in self.regions:
            if start <= at < start + size:
                return memory, at - start
        sys.exit("an address that is not memory")

    def get(self, form, at):
        memory, off = self.place(at)
        return struct.unpack_from("<" + form, memory, off)

    def put(self, form, at, *values):
        memory, off = self.place(at)
        struct.pack_into("<" + form, memory, off, *values)

    # ---- requests of the guest

    def chain(self, head):
        parts = []
        while True:
            at, size, flags, nxt = self.get("QIHH", self.desc + 16 * head)
            parts.append((at, size, flags & WRITE))
            if not flags & NEXT:
                return parts
            head = nxt

    def do(self, head):
        (at, _, _), *data, (status, _, _) = self.chain(head)
        kind, _, sector = self.get("IIQ", at)
        off, wrote = sector * 512, 1
        for at, size, _ in data:
            memory, place = self.place(at)
            if kind == OUT:
                os.pwrite(self.disk, memory[place:place + size], off)
            elif kind == IN:
                memory[place:place + size] = os.pread(self.disk, size, off).ljust(size, b"\0")
                wrote += size
            off += size
        self.put("B", status, 0 if kind in (IN, OUT, DO_FLUSH) else 2)
        self.answer(head, wrote)

    def answer(self, head, wrote):
        idx, = self.get("H", self.used + 2)
        struct.pack_into("<H", self.account, 2, head)
        self.put("II", self.used + 4 + 8 * (idx % self.num), head, wrote)
        self.put("H", self.used + 2, (idx + 1) & 0xffff)
        self.account[16 + head] = 0
        struct.pack_into("<H", self.account, 0, (idx + 1) & 0xffff)
        os.write(self.call, struct.pack("<Q", 1))

    def resume(self):
        idx, = self.get("H", self.used + 2)
        known, pending = struct.unpack_from("<HH", self.account, 0)
        if idx != known:
            self.account[16 + pending] = 0
            struct.pack_into("<H", self.account, 0, idx)
        busy = [h for h in range(self.num) if self.account[16 + h]]
        print("resumed", len(busy), flush=True)
        self.last = (idx + len(busy)) & 0xffff
        for head in busy:
            self.do(head)

    def serve(self):
        """What is there now; what comes meanwhile has to wait, or a busy guest would keep it from hearing the front end."""
        found = []
        while self.last != self.get("H", self.avail + 2)[0]:
            head, = self.get("H", self.avail + 4 + 2 * (self.last % self.num))
            self.account[16 + head] = 1
            self.last = (self.last + 1) & 0xffff
            found.append(head)
        for head in reversed(found):
            time.sleep(0.001)  # so that a kill finds some that are undone
            self.do(head)
        if self.last != self.get("H", self.avail + 2)[0]:
            os.write(self.kick, struct.pack("<Q", 1))

    # ---- messages of the front end

    def read(self, n):
        data, fds = b"", array.array("i")
        while len(data) < n:
            part, more, _, _ = self.sock.recvmsg(n - len(data), socket.CMSG_SPACE(32 * 4))
            for _, _, body in more:
                fds.frombytes(body)
            if not part:
                sys.exit(0)
            data += part
        return data, list(fds)

    def reply(self, request, body, fds=()):
        more = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        self.sock.sendmsg([struct.pack("<III", request, 5, len(body)) + body], more)

    def message(self):
        head, fds = self.read(12)
        request, flags, size = struct.unpack("<III", head)
        body, _ = self.read(size) if size else (b"", [])
        numbers = struct.unpack_from("<%dI" % (size // 4), body)
        answer = getattr(self, "on_%d" % request, lambda *_: None)(body, numbers, fds)
        if answer is not None:
            self.reply(request, *answer)
        elif flags & 8:
            self.reply(request, struct.pack("<Q", 0))

    def on_1(self, *_):
        return (struct.pack("<Q", VERSION_1 | PROTOCOL | FLUSH),)

    def on_5(self, body, numbers, fds):
        for i in range(numbers[0]):
            gpa, size, user, off = struct.unpack_from("<QQQQ", body, 8 + 32 * i)
            if user != gpa:
                sys.exit("addresses are not the guest's")
            self.regions.append((user, size, mmap.mmap(fds[i], size, offset=off)))

    def on_8(self, _, numbers, fds):
        self.num = numbers[1]

    def on_9(self, body, *_):
        _, _, self.desc, self.used, self.avail, _ = struct.unpack("<IIQQQQ", body)

    def on_11(self, body, numbers, fds):
        self.kick = -1
        return (struct.pack("<II", numbers[0], self.last),)

    def on_12(self, _, numbers, fds):
        self.kick = fds[0]
        self.resume()

    def on_13(self, _, numbers, fds):
        self.call = fds[0]

    def on_15(self, *_):
        return (struct.pack("<Q", MQ | REPLY_ACK | CONFIG | INFLIGHT),)

    def on_17(self, *_):
        return (struct.pack("<Q", 1),)

    def on_24(self, body, numbers, fds):
        return (body[:12] + struct.pack("<Q", self.capacity).ljust(numbers[1], b"\0"),)

    def on_31(self, body, *_):
        fd = os.memfd_create("account")
        os.ftruncate(fd, ACCOUNT)
        print("new", flush=True)
        return struct.pack("<QQ", ACCOUNT, 0) + body[16:], [fd]

    def on_32(self, body, numbers, fds):
        size, off = struct.unpack_from("<QQ", body)
        self.account = mmap.mmap(fds[0], size, offset=off)
        if any(self.account):
            print("again", flush=True)

    def run(self):
        while True:
            ready = select.select([self.sock] + ([self.kick] if self.kick >= 0 else []), [], [])[0]
            if self.sock in ready:
                self.message()
            elif self.kick in ready:
                os.read(self.kick, 8)
                self.serve()


Back(*sys.argv[1:3]).run()
