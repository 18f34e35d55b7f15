#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Disks that come and go while a payload (plugloop.c) drives them: files, and what storage modules serve.

plug.py [CASE...]     BUILD names the build directory. One line per case: ok, not ok, skip.
"""
import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import snapshot  # noqa: E402
import suite  # noqa: E402
from snapshot import Guest, make_disk  # noqa: E402
from suite import BUILD, check, freeze, refused, wait_for  # noqa: E402

ROUNDS = int(os.environ.get("PLUG_ROUNDS", 120))
KILLS = int(os.environ.get("PLUG_KILLS", 6))
ASKED = int(os.environ.get("PLUG_ASKED", 10))
suite.suite = "plug"


class Slots(Guest):
    """A VM with slots, and what its payload says."""

    def __init__(self, c, place, slots=2, **more):
        self.images = [make_disk("%s/d%d" % (place, i), 4 << 20) for i in range(slots)]
        super().__init__(c, "p", kernel=BUILD + "/guests/plugloop.elf", mem=64 << 20, hotplug=slots, append="slots=%d" % slots, **more)
        self.until("slots %d" % slots)
        self.until("ready")

    @staticmethod
    def disk(i):
        return "disk%d" % (i + 1)

    def add(self, i, c=None, **more):
        """Disk i comes into the first slot that is free."""
        return (c or self.c).call("vm.device.add", id="p", config=dict(disk=dict(dict(path=self.images[i]), **more)), device=self.disk(i))

    def take(self, i, c=None, **more):
        return (c or self.c).call("vm.device.remove", id="p", device=self.disk(i), **more)

    def helper(self, i, program="insula-blk"):
        """The pid of its process; None: there is none now"""
        found = [p["pid"] for p in self.c.call("vm.info", id="p")["processes"] if p["name"] == program + " " + self.disk(i)]
        return found[0] if found else None

    def done(self, i, slots=2):
        """What is done in slot i so far"""
        self.sock.sendall(b"?")
        got = [int(self.until(r"done %d (\d+)" % k)[1]) for k in range(slots)]
        return got[i]

    def goes_on(self, i, slots=2):
        before = self.done(i, slots)
        return wait_for(lambda: self.done(i, slots) > before + 20, 30)

    def finish(self, what):
        """Nothing was wrong in the guest"""
        bad = "not ok" in self.got
        self.sock.sendall(b"q")
        rest = self.got
        try:
            while more := self.sock.recv(65536):
                rest += more.decode(errors="replace")
        except TimeoutError:
            pass
        check(what + ": nothing was wrong in the guest", not bad and "not ok" not in rest, rest[-400:])
        self.end()

    def until(self, pattern):
        try:
            m = super().until(pattern)
        except TimeoutError:
            raise AssertionError("no '%s', but '%s'" % (pattern, self.got[-200:])) from None
        if "not ok" in m.string[:m.start()]:
            raise AssertionError("the guest says: " + m.string[:m.start()])
        return m


def listed(c, name):
    return {x["device"]: x for x in c.call("vm.device.list", id="p")["devices"]}.get(name)


def case_asked(d, place):
    """Add, work, ask for it back: nothing is in flight when it goes."""
    g = Slots(d.client(), place)
    r = g.add(0)
    check("a disk in slot 1", (r["slot"], r["place"], r["state"]) == (1, "01:00.0", "ok"), r)
    g.until("came 0")
    for n in range(ASKED):  # one is always there: by turns, the other slot is free
        r = g.add(1 - n % 2)
        g.until("came %d" % (r["slot"] - 1))
        g.until(r"done %d \d+" % (r["slot"] - 1))
        g.take(n % 2)
        for what in ("asked", "off", "out"):
            g.until("%s %d" % (what, 2 - r["slot"]))
    check("%d disks came, worked, and were given back" % ASKED, g.c.call("vm.device.list", id="p")["free"] == 1)
    check("the last one works", g.goes_on(ASKED % 2))
    g.finish("asked")


def case_pulled(d, place):
    """Pulled out under load, again and again, by turns and both at once."""
    g = Slots(d.client(), place, cpus=1)
    rng = random.Random(7)
    g.add(0)
    g.until("came 0")
    for n in range(ROUNDS):
        k = g.add(1 - n % 2)["slot"] - 1
        g.until("came %d" % k)
        if n % 4 < 2:
            g.until(r"done %d \d+" % k)
        else:
            time.sleep(rng.random() * 0.01)
        g.take(n % 2, force=True)
        g.until("gone %d" % (1 - k))
    g.take(ROUNDS % 2, force=True)
    check("%d disks were pulled out under load" % ROUNDS, True)
    # Each slot by a client of its own.
    wrong = []

    def turns(i):
        c = d.client()
        try:
            for _ in range(max(2, ROUNDS // 6)):
                g.add(i, c)
                time.sleep(rng.random() * 0.05)
                g.take(i, c, force=True)
        except RuntimeError as e:
            wrong.append(str(e))

    both = [threading.Thread(target=turns, args=(i,)) for i in range(2)]
    for t in both:
        t.start()
    for t in both:
        t.join()
    check("both slots at once", not wrong, wrong)
    # What came and went before the payload looked is a half of a device to it: it is not asked.
    g.end()
    g = Slots(d.client(), place)
    g.add(0)
    g.until("came 0")
    check("and the next one works", g.goes_on(0))
    g.finish("pulled")


def case_kills(d, place):
    """Its process dies while it is there: it is another one's disk, and goes on."""
    g = Slots(d.client(), place)
    g.add(0)
    g.until("came 0")
    for n in range(KILLS):
        g.until(r"done 0 \d+") if n == 0 else check("kill %d: it goes on" % n, g.goes_on(0))
        pid = g.helper(0)
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: g.helper(0) not in (None, pid), 30)
    check("after %d kills" % KILLS, g.goes_on(0) and listed(g.c, "disk1")["restarts"] == KILLS, listed(g.c, "disk1"))
    g.take(0)
    g.until("out 0")
    g.add(0)
    g.until("came 0")
    check("given back and added again", g.goes_on(0))
    os.kill(g.helper(0), signal.SIGKILL)
    g.take(0, force=True)  # while there is none, or the next one comes
    g.until("gone 0")
    g.add(0)
    g.until("came 0")
    check("pulled out with its process dead, and added again", g.goes_on(0))
    g.finish("kills")


def case_deaf(d, place):
    """A guest that does not answer keeps it; it can be pulled out all the same."""
    g = Slots(d.client(), place)
    g.add(1)
    g.until("came 0")
    g.sock.sendall(b"d")
    g.until("deaf 1")
    e = refused(g.c, "vm.device.remove", id="p", device="disk2", timeout_ms=500)
    check("the guest keeps it", e["data"]["reason"] == "timeout", e)
    check("and uses it", g.goes_on(0))
    g.sock.sendall(b"d")
    g.until("deaf 0")
    g.take(1)
    g.until("out 0")
    check("asked again it is given back", listed(g.c, "disk2") is None, listed(g.c, "disk2"))
    g.finish("deaf")


def case_called(d, place):
    """Pulled out while a processor waits for an answer that does not come: nobody hangs."""
    g = Slots(d.client(), place)
    g.sock.sendall(b"c")
    g.until("calls 1")
    for _ in range(3):
        g.add(0)
        g.until("came 0")
        g.until(r"done 0 \d+")
        freeze(g.helper(0))
        time.sleep(0.2)
        g.take(0, force=True)
        g.until("gone 0")
    g.add(0)
    g.until("came 0")
    check("pulled out of a call", g.goes_on(0))
    g.finish("called")


def case_many(d, place):
    """Eight slots, all full."""
    g = Slots(d.client(), place, slots=8)
    for i in range(8):
        g.add(i)
        g.until("came %d" % i)
    check("eight disks", g.c.call("vm.device.list", id="p")["free"] == 0)
    check("all of them work", all(g.goes_on(i, 8) for i in range(8)))
    for i in range(8):
        g.take(i, force=i % 2 == 1)
        g.until(("gone %d" if i % 2 else "out %d") % i)
    check("and are gone", g.c.call("vm.device.list", id="p")["free"] == 8)
    g.finish("many")


def case_daemon(d, place):
    """insulad is killed while a disk comes, and while the guest does not give one up: whoever asked hears nothing, and the VM goes on."""
    g = Slots(d.client(), place)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(place + "/silent")
    silent.listen(1)

    def alone(what, **more):
        """Asked by somebody who will not be there for the answer"""
        def asks():
            with contextlib.suppress(Exception):
                c = d.client()
                (g.add if what == "adding" else g.take)(0, c=c, **more)
        t = threading.Thread(target=asks)
        t.start()
        check(what + " is under way", wait_for(lambda: (listed(g.c, g.disk(0)) or {}).get("state") == what, 30))
        d.restart()
        t.join()
        g.c = d.client()
        check("while %s: insulad is killed, and finds the VM" % what, wait_for(lambda: g.c.call("vm.info", id="p").get("answers")))

    alone("adding", path="nbd:nbd+unix:///?socket=" + place + "/silent")
    check("a disk that does not come leaves its slot", wait_for(lambda: g.c.call("vm.device.list", id="p")["free"] == 2, 60))
    g.add(0)
    g.until("came 0")
    g.sock.sendall(b"d")
    g.until("deaf 1")
    alone("removing", timeout_ms=600000)
    check("one that is asked for still works", g.goes_on(0))
    e = refused(g.c, "vm.device.remove", id="p", device=g.disk(0))
    check("and is on its way out", "just going" in str(e), e)
    g.take(0, force=True)
    g.until("gone 0")
    check("force takes it", g.c.call("vm.device.list", id="p")["free"] == 2)
    g.sock.sendall(b"d")
    g.until("deaf 0")
    g.add(1)
    g.until("came 0")
    check("and the next one comes", g.goes_on(0))
    g.finish("daemon")


class Server:
    """nbdkit, here or on a port of 127.0.0.1."""

    def __init__(self, *args):
        self.args = args
        self.start()

    def start(self):
        pidfile = self.args[-1] + ".pid"
        for old in (pidfile, self.args[1]):  # the socket, or no file
            if os.path.exists(old):
                os.unlink(old)
        self.proc = subprocess.Popen(["nbdkit", "-f", "--exit-with-parent", "--pidfile", pidfile, *self.args[:-1], "file", self.args[-1]], stderr=subprocess.DEVNULL)
        assert wait_for(lambda: os.path.exists(pidfile) and os.path.getsize(pidfile) > 0, 30), "nbdkit does not start"

    def end(self):
        self.proc.kill()
        self.proc.wait()


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def case_module(d, place):
    """A disk that a storage module serves: over both kinds of sockets, killed, its server killed, and what is refused."""
    g = Slots(d.client(), place)
    sock, port = place + "/nbd", free_port()
    there, tcp = "nbd:nbd+unix:///?socket=" + sock, "nbd:nbd://127.0.0.1:%d/" % port
    wrong = ((there, "No such file"), (tcp, "refused"), ("nbd:nbd://a.name.of.nobody/", "expected an address"), ("nbd:nbd+unix:///", "absolute path"),
             ("nobody:x", "nobody"))
    for path, says in wrong:
        e = refused(g.c, "vm.device.add", id="p", config=dict(disk=dict(path=path)))
        check("refused: " + path.replace(place, "").replace(str(port), "PORT"), says in str(e), e)
    os.mkfifo(place + "/fifo")
    e = refused(g.c, "vm.device.add", id="p", config=dict(console="file=" + place + "/fifo"))
    check("refused: a console that nobody reads", "nobody reads it" in str(e), e)
    with open(place + "/fifo", "r+b", buffering=0):  # somebody who may write, and does not
        e = refused(g.c, "vm.device.add", id="p", config=dict(disk=dict(path="nbd:nbds://127.0.0.1:%d/" % port, options="ca=" + place + "/fifo")))
        check("refused: a key that would have to be waited for", "regular file" in str(e), e)
    silent = socket.socket(socket.AF_UNIX)
    silent.bind(place + "/silent")
    silent.listen(1)  # who connects hears nothing: the module ends with its own deadline, or the supervisor with it
    t = threading.Thread(target=lambda: said.append(refused(d.client(), "vm.device.add", id="p", config=dict(disk=dict(path="nbd:nbd+unix:///?socket=" + place + "/silent")))))
    said = []
    t.start()
    wait_for(lambda: any(x["state"] == "adding" for x in g.c.call("vm.device.list", id="p")["devices"]), 30)
    servers = [Server("-U", sock, g.images[0]), Server("-i", "127.0.0.1", "-p", str(port), g.images[1])]
    r = g.add(1, path=tcp)
    g.until("came %d" % (r["slot"] - 1))
    check("one comes while another one waits for its server", g.goes_on(r["slot"] - 1), r)
    g.take(1)
    t.join(60)
    check("refused: a server that says nothing", said and "disk" in str(said[0]), said)
    silent.close()
    for i, path in enumerate((there, tcp)):
        what = "unix" if i == 0 else "tcp"
        slot = g.add(i, path=path)["slot"] - 1
        g.until("came %d" % slot)
        check(what + ": it works", g.goes_on(slot))
        pid = g.helper(i, "nbd")
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: g.helper(i, "nbd") not in (None, pid), 30)
        check(what + ": killed, it goes on", g.goes_on(slot))
        g.take(i)
        g.until("out %d" % slot)
        g.add(i, path=path)
        g.until("came %d" % slot)
        check(what + ": given back and added again", g.goes_on(slot))
        servers[i].end()  # requests wait now
        g.take(i, force=True)
        g.until("gone %d" % slot)
        check(what + ": pulled out while its server is dead", listed(g.c, g.disk(i)) is None)
        servers[i].start()
        g.add(i, path=path)
        g.until("came %d" % slot)
        check(what + ": and added again", g.goes_on(slot))
        g.take(i, force=True)
        g.until("gone %d" % slot)
    for s in servers:
        s.end()
    g.finish("module")


def case_served(d, place):
    """A disk that a program of the host serves, in a format of QEMU: it comes, is killed, goes, and nothing of the image is lost."""
    g = Slots(d.client(), place)
    image = place + "/image.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image, "4M"], check=True)
    e = refused(g.c, "vm.device.add", id="p", config=dict(disk=dict(path="qsd:" + g.images[0], options="format=qcow2")))
    check("refused: not of that format", "qcow2" in str(e), e)
    there = dict(path="qsd:" + image, options="format=qcow2")
    g.add(0, **there)
    g.until("came 0")
    check("it works", g.goes_on(0))
    e = refused(g.c, "vm.device.add", id="p", config=dict(disk=there))
    check("refused: it is in use", "locked" in str(e), e)
    for n in range(3):
        g.take(0, force=n == 1)
        g.until("gone 0" if n == 1 else "out 0")
        out = subprocess.run(["qemu-img", "check", image], capture_output=True, text=True)
        check("round %d: the image is whole, and free" % n, out.returncode == 0, out.stdout + out.stderr)
        g.add(0, **there)
        g.until("came 0")
        check("round %d: it works" % n, g.goes_on(0))
    served = [p["pid"] for p in g.c.call("vm.info", id="p")["processes"] if p["name"].startswith("qsd")]
    check("its program is one of the VM's processes", len(served) == 1, g.c.call("vm.info", id="p")["processes"])
    freeze(served[0])  # it does not end when it is told to
    g.take(0, force=True)
    g.until("gone 0")
    check("one that is frozen is killed", wait_for(lambda: not os.path.exists("/proc/%d" % served[0]), 30))
    g.add(0, **there)
    g.until("came 0")
    check("and the next one works", g.goes_on(0))
    g.finish("served")


if __name__ == "__main__":
    snapshot.run_cases(sys.modules[__name__])
