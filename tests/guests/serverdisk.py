# SPDX-License-Identifier: BSD-2-Clause
"""What nbdserver.py and iscsiserver.py have in common: an image, and bytes from a socket."""
import os
import threading
import time

BLOCK = 512


def take(s, n):
    data = b""
    while len(data) < n:
        more = s.recv(n - len(data))
        if not more:
            raise EOFError
        data += more
    return data


class Disk:
    """`volatile`: writes stay in memory until a flush or with FUA, so that a kill loses them."""

    def __init__(self, image, volatile):
        self.fd, self.volatile, self.cache, self.lock = os.open(image, os.O_RDWR), volatile, {}, threading.Lock()

    def size(self):
        return os.fstat(self.fd).st_size

    def read(self, off, n):
        with self.lock:
            data = bytearray(os.pread(self.fd, n, off))
            for at in range(off - off % BLOCK, off + n, BLOCK):
                if at in self.cache:
                    data[at - off:at - off + BLOCK] = self.cache[at]
        return bytes(data)

    def write(self, off, data, fua=False):
        with self.lock:
            if self.volatile and not fua:
                for i in range(0, len(data), BLOCK):
                    self.cache[off + i] = data[i:i + BLOCK]
                return
            os.pwrite(self.fd, data, off)
            for i in range(0, len(data), BLOCK):
                self.cache.pop(off + i, None)

    def flush(self):
        if self.volatile:
            time.sleep(0.03)  # so that a kill finds something that is not flushed
        with self.lock:
            for at, data in self.cache.items():
                os.pwrite(self.fd, data, at)
            self.cache.clear()
