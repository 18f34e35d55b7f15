#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""An iSCSI target that can be bad: iscsiserver.py PORT FILE [MODE]

One LUN, 0, on 127.0.0.1, without authentication; a thread for each connection, R2T for what is longer than 64 KiB.

  good        writes go to FILE
  volatile    writes stay in memory until a flush or with FUA: a kill loses them
  stable      no cache at all, as MODE SENSE says; nocan: no UNMAP, no WRITE SAME, no page of limits
  grow        on SIGUSR1 FILE is measured again, and each session hears a unit attention
Bad from the login on:
  greeting    says nothing that iSCSI knows; `silent`: says nothing at all; loop: asks for one more login text, for ever
  gone        knows no such target; redirect: sends to another address; segment: takes data in pieces of nothing; digest: wants a digest
  odd         blocks of 520 bytes; huge: 2^64 of them; short: answers with no bytes; tape: is one
Bad from the first request on, so that a disk comes about:
  length      answers a read with too few bytes, and says so; itt: answers a command that nobody gave; opcode: with an unknown one
  nothing     answers without a question, then closes; endless: pings for ever; flood: data for ever; over: data behind the end
  r2t         asks for 4 GiB at once; asks: for the same data for ever
  stall       takes commands and does not answer; error: answers each with a medium error; status: with a status that is none
  sense       with an error and no sense data; attention: with a unit attention, each time; logout: asks for the end of the session
"""
import os
import signal
import socket
import struct
import sys
import threading

from serverdisk import BLOCK, Disk, take

port, image = int(sys.argv[1]), sys.argv[2]
mode = sys.argv[3] if len(sys.argv) > 3 else "good"
disk = Disk(image, mode == "volatile")
size = disk.size()
SEGMENT = 65536
grown = 0  # how often


def pad(data):
    return data + b"\0" * (-len(data) % 4)


# ---- a session


class Session:
    def __init__(self, s):
        self.s, self.statsn, self.exp, self.seen, self.asked = s, 1, 1, grown, False

    def put(self, op, flags, b2_4, itt, rest, data=b"", lun=bytes(8), stat=True):
        h = struct.pack(">BBHI8sI", op, flags, b2_4, len(data), lun, itt) + rest[0:4]
        h += struct.pack(">III", self.statsn, self.exp, (self.exp + 64) & 0xffffffff) + rest[4:16]
        self.s.sendall(h + pad(data))
        if stat:
            self.statsn += 1

    def response(self, itt, status=0, sense=b"", residual=0):
        data = struct.pack(">H", len(sense)) + sense if sense else b""
        self.put(0x21, 0x80 | (2 if residual else 0), status, itt, struct.pack(">IIII", 0, 0, 0, residual), data)

    def check(self, itt, key, ascq):
        self.response(itt, 2, struct.pack(">BBBIBIH4x", 0x70, 0, key, 0, 10, 0, ascq))

    def data_in(self, itt, data, offset=0, last=True, residual=0):
        self.put(0x25, (0x81 if last else 0) | (2 if residual else 0), 0, itt, struct.pack(">IIII", 0xffffffff, 0, offset, residual),
                 data, stat=last)

    def give(self, itt, data, want):
        """A short answer of probing, cut to what was asked for."""
        self.data_in(itt, b"" if mode == "short" else data[:want], residual=max(0, want - len(data)))

    # -- login

    def login(self):
        while True:
            h = take(self.s, 48)
            n = int.from_bytes(h[5:8], "big")
            take(self.s, n + -n % 4)
            itt, cmdsn = struct.unpack(">I4xI", h[16:28])
            self.exp = cmdsn
            text, status, flags = b"", 0, h[1]
            if mode == "loop":
                flags &= 0x0c
            if mode == "gone":
                status = 0x0203
            if mode == "redirect":
                status, text = 0x0101, b"TargetAddress=203.0.113.1:3260\0"
            if (flags >> 2) & 3 == 1 and not status:
                text = b"MaxRecvDataSegmentLength=%d\0HeaderDigest=%s\0DataDigest=None\0InitialR2T=Yes\0ImmediateData=Yes\0" % (
                    0 if mode == "segment" else SEGMENT, b"CRC32C" if mode == "digest" else b"None")
                text += b"FirstBurstLength=65536\0MaxBurstLength=262144\0"
            elif not status:
                text = b"AuthMethod=None\0TargetPortalGroupTag=1\0"
            bhs = struct.pack(">BBBBI6sHIIIIIBB10x", 0x23, flags, 0, 0, len(text), h[8:14], 1, itt, 0, self.statsn, self.exp,
                              self.exp + 64, status >> 8, status & 255)
            self.statsn += 1
            self.s.sendall(bhs + pad(text))
            if status:
                return False
            if flags & 0x83 == 0x83:
                return True

    # -- commands

    def command(self, h, immediate):
        itt, length = struct.unpack(">II", h[16:24])
        cdb, op = h[32:48], h[32]
        self.exp = (int.from_bytes(h[24:28], "big") + 1) & 0xffffffff
        if self.seen != grown:
            self.seen = grown
            return self.check(itt, 6, 0x2a09)
        if op in (0x28, 0x2a, 0x88, 0x8a):
            long = op >= 0x88
            lba = int.from_bytes(cdb[2:10] if long else cdb[2:6], "big")
            blocks = int.from_bytes(cdb[10:14] if long else cdb[7:9], "big")
            return self.move(itt, op in (0x2a, 0x8a), lba * BLOCK, blocks * BLOCK, immediate, cdb[1] & 8)
        do = {0x00: self.ready, 0x12: self.inquiry, 0x9e: self.capacity, 0x1a: self.sense, 0x35: self.sync, 0x93: self.same,
              0x42: self.unmap}.get(op)
        if not do or (mode == "nocan" and op in (0x93, 0x42)):
            return self.check(itt, 5, 0x2000)
        return do(itt, cdb, immediate)

    def ready(self, itt, cdb, data):
        self.response(itt)

    def inquiry(self, itt, cdb, data):
        want = int.from_bytes(cdb[3:5], "big")
        if not cdb[1] & 1:
            self.give(itt, bytes([1 if mode == "tape" else 0, 0, 5, 2, 31, 0, 0, 2]) + b"INSULA  TEST            1   ", want)
        elif mode == "nocan":
            self.check(itt, 5, 0x2400)
        elif cdb[2] == 0xb0:
            self.give(itt, struct.pack(">BBHBBHIIIIII4xQ", 0, 0xb0, 60, 0, 0, 0, 512, 0, 0, 1024, 1, 1, 2048) + bytes(20), want)
        elif cdb[2] == 0xb2:
            self.give(itt, bytes([0, 0xb2, 0, 4, 0, 0xc0, 2, 0]), want)
        else:
            self.check(itt, 5, 0x2400)

    def capacity(self, itt, cdb, data):
        block = 520 if mode == "odd" else BLOCK
        last = (1 << 64) - 1 if mode == "huge" else size // BLOCK - 1
        self.give(itt, struct.pack(">QIBBH16x", last, block, 0, 3, 0 if mode == "nocan" else 0xc000), int.from_bytes(cdb[10:14], "big"))

    def sense(self, itt, cdb, data):
        page = bytes([0x08, 18, 0 if mode == "stable" else 4]) + bytes(17)
        self.give(itt, bytes([3 + len(page), 0, 0x10, 0]) + page, cdb[4])

    def sync(self, itt, cdb, data):
        disk.flush()
        self.response(itt)

    def same(self, itt, cdb, data):
        lba, blocks = struct.unpack(">QI", cdb[2:14])
        if blocks > 2048 or (lba + blocks) * BLOCK > size:
            return self.check(itt, 5, 0x2400)
        disk.write(lba * BLOCK, data * blocks)
        self.response(itt)

    def unmap(self, itt, cdb, data):
        lba, blocks = struct.unpack(">QI", data[8:20])
        if blocks > 1024 or (lba + blocks) * BLOCK > size:
            return self.check(itt, 5, 0x2400)
        disk.write(lba * BLOCK, bytes(blocks * BLOCK))
        self.response(itt)

    def more(self, itt, have, length):
        """What does not come with the command, by R2T."""
        while len(have) < length:
            want = min(262144, length - len(have))
            self.put(0x31, 0x80, 0, itt, struct.pack(">IIII", 7, 0, len(have), want), stat=False)
            got = 0
            while got < want:
                h = take(self.s, 48)
                n = int.from_bytes(h[5:8], "big")
                data = take(self.s, n + -n % 4)[:n]
                if h[0] & 0x3f != 5 or struct.unpack(">I", h[16:20])[0] != itt:
                    self.later.append((h, data))
                    continue
                have += data
                got += n
        return have

    def move(self, itt, out, off, n, data, fua):
        if mode not in ("good", "volatile", "stable", "nocan", "grow"):
            return self.misbehave(itt, out, n)
        if off + n > size:
            return self.check(itt, 5, 0x2100)
        if out:
            disk.write(off, self.more(itt, data, n), fua)
            return self.response(itt)
        data = disk.read(off, n)
        for at in range(0, n, SEGMENT):
            self.data_in(itt, data[at:at + SEGMENT], at, at + SEGMENT >= n)

    def misbehave(self, itt, out, n):
        if mode == "length":
            self.data_in(itt, b"x" * (n // 2), residual=n - n // 2) if not out else self.response(itt, residual=n)
        elif mode == "itt":
            self.response(itt ^ 0x5555)
        elif mode == "opcode":
            self.s.sendall(b"\x3e" + os.urandom(3) + bytes(4) + os.urandom(8) + struct.pack(">I", itt) + os.urandom(28))
        elif mode == "nothing":
            self.response(0x12345678)
            raise EOFError
        elif mode == "endless":
            while True:
                self.put(0x20, 0x80, 0, 0xffffffff, struct.pack(">IIII", 0xffffffff, 0, 0, 0), stat=False)
        elif mode == "flood":
            while True:
                self.put(0x25, 0, 0, itt ^ 0x5555, bytes(16), b"x" * SEGMENT, stat=False)
        elif mode == "over":
            self.data_in(itt, b"x" * SEGMENT, 0x7ffffe00)
        elif mode in ("r2t", "asks"):
            while True:
                self.put(0x31, 0x80, 0, itt, struct.pack(">IIII", 7, 0, 0, 0xffffffff if mode == "r2t" else 4096), stat=False)
                if not out or mode == "r2t":
                    break
        elif mode == "error":
            self.check(itt, 3, 0x1100)
        elif mode == "status":
            self.response(itt, 0x77)
        elif mode == "sense":
            self.response(itt, 2)
        elif mode == "attention":
            self.check(itt, 6, 0x3f0e)
        elif mode == "logout":
            self.put(0x32, 0x80, 0, 0xffffffff, bytes(4) + bytes([1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0]))

    def serve(self):
        if mode == "greeting":
            self.s.sendall(b"SSH-2.0-this is not what you asked for\r\n" * 10)
            return
        if mode == "silent":
            take(self.s, 1 << 20)
        if not self.login():
            return
        self.later = []
        while True:
            if self.later:
                h, data = self.later.pop(0)
            else:
                h = take(self.s, 48)
                n = int.from_bytes(h[5:8], "big")
                data = take(self.s, n + -n % 4)[:n]
            op = h[0] & 0x3f
            if op == 1:
                self.command(h, data)
            elif op == 6:
                self.put(0x26, 0x80, 0, struct.unpack(">I", h[16:20])[0], bytes(16))
                return


def connection(s):
    try:
        Session(s).serve()
    except (EOFError, OSError):
        pass
    s.close()


def grow(*_):
    global size, grown
    size = disk.size()
    grown += 1


def main():
    signal.signal(signal.SIGUSR1, grow)
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(16)
    while True:
        s, _ = listener.accept()
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=connection, args=(s,), daemon=True).start()


main()
