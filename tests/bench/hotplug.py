#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""For lab-hotplug.sh: hotplug.py BUILD DIR KERNEL ROUNDS. Lines "insula|acpi|pcie WHAT MILLISECONDS"; the guest says "there" and "gone" on its console."""
import json
import os
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/examples"))
from insulad_client import Insulad  # noqa: E402

BUILD, DIR, KERNEL, ROUNDS = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
APPEND = "quiet loglevel=1 panic=-1 tsc=reliable cryptomgr.notests"
LIMIT = 120


class Console:
    """Lines of a descriptor."""

    def __init__(self, fd):
        self.fd, self.data = fd, b""

    def until(self, word):
        end = time.monotonic() + LIMIT
        while time.monotonic() < end:
            while b"\n" in self.data:
                line, self.data = self.data.split(b"\n", 1)
                if line.strip() == word:
                    return time.monotonic()
            more = os.read(self.fd, 4096)
            assert more, "the guest has ended: %r" % self.data
            self.data += more
        raise TimeoutError(word)


def said(who, what, start, end):
    print(who, what, "%.2f" % ((end - start) * 1000), flush=True)


def insula():
    c = Insulad(os.environ["INSULA_SOCKET"])
    c.call("vm.run", name="b", config=dict(kernel=KERNEL, initrd=DIR + "/initrd", mem="256M", cpus=1, hotplug=1, append=APPEND, rng="off"))
    c.call("vm.console", id="b", scrollback=65536)
    console = Console(c.fds[0])
    console.until(b"up")
    for i in range(ROUNDS + 1):
        pull = i == ROUNDS
        start = time.monotonic()
        c.call("vm.device.add", id="b", config=dict(disk=DIR + "/disk"))
        answer = time.monotonic()
        there = console.until(b"there")
        said("insula", "add", start, there)
        said("insula", "answer", start, answer)
        time.sleep(0.5)
        start = time.monotonic()
        c.call("vm.device.remove", id="b", device="disk1", force=pull)
        end = time.monotonic()
        gone = console.until(b"gone")
        said("insula", "pull" if pull else "rm", start, gone if pull else max(gone, end))
        time.sleep(1.5)
    c.call("vm.kill", id="b")


class Qmp:
    def __init__(self, path):
        self.sock = socket.socket(socket.AF_UNIX)
        for _ in range(200):
            try:
                self.sock.connect(path)
                break
            except OSError:
                time.sleep(0.05)
        self.file = self.sock.makefile("r")
        self.file.readline()
        self.call("qmp_capabilities")

    def call(self, name, **arguments):
        self.sock.sendall((json.dumps({"execute": name, "arguments": arguments}) + "\n").encode())
        while True:
            o = json.loads(self.file.readline())
            if "return" in o:
                return
            assert "error" not in o, o

    def event(self, name):
        while json.loads(self.file.readline()).get("event") != name:
            pass
        return time.monotonic()


def qemu(who, *more):
    p = subprocess.Popen(["qemu-system-x86_64", "-accel", "kvm", "-cpu", "host", "-M", "q35", "-m", "256", "-smp", "1", "-nodefaults", "-no-user-config",
                          "-display", "none", "-serial", "stdio", "-no-reboot", "-device", "pcie-root-port,id=rp,slot=1", "-object", "iothread,id=t",
                          "-blockdev", "driver=raw,node-name=d,cache.direct=off,file.driver=file,file.filename=%s/disk" % DIR,
                          "-qmp", "unix:%s/qmp,server=on,wait=off" % DIR, "-kernel", KERNEL, "-initrd", DIR + "/initrd",
                          "-append", APPEND + " console=ttyS0 pci=noearly", *more], stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    try:
        q, console = Qmp(DIR + "/qmp"), Console(p.stdout.fileno())
        console.until(b"up")
        time.sleep(2)
        for _ in range(ROUNDS):
            start = time.monotonic()
            q.call("device_add", driver="virtio-blk-pci", id="disk1", bus="rp", drive="d", iothread="t")
            said(who, "add", start, console.until(b"there"))
            time.sleep(0.5)
            start = time.monotonic()
            q.call("device_del", id="disk1")
            end = q.event("DEVICE_DELETED")
            said(who, "rm", start, max(end, console.until(b"gone")))
            time.sleep(1.5)
    finally:
        p.kill()
        p.wait()


insula()
qemu("acpi")
qemu("pcie", "-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off")
