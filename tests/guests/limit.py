#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Limits of disks, under payloads that ask for as much as there is (blkrate.c) and count what they get by their own clock. A busy machine may
give them less than the limit, so that is not looked at; more than the limit they must never get.

limit.py [CASE...]     BUILD names the build directory. One line per case: ok, not ok, skip.
"""
import os
import shutil
import signal
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import plug  # noqa: E402
import suite  # noqa: E402
from snapshot import Guest, make_disk, run_cases  # noqa: E402
from suite import BUILD, SLOW, check, refused, wait_for  # noqa: E402

LIMIT, BLOCK = 50, 4096
MOST = 1.3  # of a limit, over one period: what was saved up, and what was in flight
PATIENCE = 60 * SLOW
suite.suite = "limit"


class Load(Guest):
    """A VM whose payload never rests."""

    def __init__(self, c, place, path=None, cpus=2, **disk):
        self.image = make_disk(place + "/disk", 4 << 20)
        super().__init__(c, "l", kernel=BUILD + "/guests/blkrate.elf", mem=64 << 20, cpus=cpus, disks=[dict(path=path or self.image, **disk)])

    def period(self):
        """(requests a second, those of the queue with the fewest), of a period that begins now"""
        self.sock.setblocking(False)
        try:
            while self.sock.recv(65536):
                pass
        except BlockingIOError:
            pass
        self.sock.settimeout(PATIENCE)
        self.got = ""
        self.until("[^\n]*rate [^\n]*")  # what had begun before
        m = self.until(r"rate (\d+) in (\d+) ms, least (\d+) of (\d+) queues")
        return int(m[1]) * 1000 / int(m[2]), int(m[3])

    def holds(self, what, limit=LIMIT):
        rate, least = self.period()
        check(what + ": no more than the limit", rate <= limit * MOST, "%.1f a second, limit %d" % (rate, limit))
        return rate, least

    def gets_more(self, limit=LIMIT):
        return wait_for(lambda: self.period()[0] > limit * MOST, PATIENCE)

    def helper(self, program="insula-blk"):
        found = [p["pid"] for p in self.c.call("vm.info", id="l")["processes"] if p["name"] == program + " vda"]
        return found[0] if found else None

    def told(self, what="iops"):
        return [x for x in self.c.call("vm.info", id="l")["devices"] if x["name"] == "vda"][0].get(what)

    def counted(self, what):
        return [x for x in self.c.call("vm.metrics", id="l")["devices"] if x["name"] == "vda"][0]["helper"][what]

    def change(self, **limits):
        return self.c.call("vm.limits", id="l", device="vda", **limits)

    def kill_helper(self, program="insula-blk"):
        pid = self.helper(program)
        os.kill(pid, signal.SIGKILL)
        return wait_for(lambda: self.helper(program) not in (None, pid), PATIENCE)


def processor_time(pid):
    with open("/proc/%d/stat" % pid) as f:
        fields = f.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def kinds(g, what):
    """Held back, by the number of requests and by their bytes, changed while it runs."""
    begin, used = time.monotonic(), processor_time(g.helper())
    g.holds(what + ": requests")
    used = (processor_time(g.helper()) - used) / (time.monotonic() - begin)
    check(what + ": what is held back sleeps", used < 0.2, "%.2f of a processor" % used)
    check(what + ": and is counted", wait_for(lambda: g.counted("throttled") > 0, PATIENCE), g.counted("throttled"))
    check(what + ": vm.info says so", g.told() == LIMIT and g.told("rate") is None, g.told())
    g.change(iops=0)
    check(what + ": lifted", g.told() is None and g.gets_more())
    g.change(rate=LIMIT * BLOCK)
    check(what + ": bytes: vm.info says so", g.told("rate") == LIMIT * BLOCK, g.told("rate"))
    g.holds(what + ": bytes")
    g.change(iops=LIMIT // 2)
    g.holds(what + ": both, and the other is lower", LIMIT // 2)
    check(what + ": what is not said stays", g.told("rate") == LIMIT * BLOCK and g.told() == LIMIT // 2)
    g.change(iops=0, rate=0)
    check(what + ": lifted again", g.gets_more())


def case_engines(d, place):
    for engine in ("auto", "threads"):
        g = Load(d.client(), place, iops=LIMIT, engine=engine)
        kinds(g, engine)
        g.end()


def case_queues(d, place):
    """Each has its turn."""
    g = Load(d.client(), place, iops=4 * LIMIT)
    _, least = g.holds("queues", 4 * LIMIT)
    check("queues: none of them starves", wait_for(lambda: g.period()[1] > 0, PATIENCE), least)
    g.end()


def case_killed(d, place):
    """A limit that was set while the VM runs outlives the processes."""
    g = Load(d.client(), place)
    g.change(iops=LIMIT)
    g.holds("killed: before")
    check("killed: there is another process", g.kill_helper())
    g.holds("killed: insula-blk")
    check("killed: vm.info says so", g.told() == LIMIT, g.told())
    d.restart()
    g.c = d.client()
    check("killed: insulad: vm.info says so", wait_for(lambda: g.c.call("vm.info", id="l").get("answers") and g.told() == LIMIT, PATIENCE))
    g.change(iops=LIMIT // 2)
    check("killed: insulad: it is changed", g.told() == LIMIT // 2)
    g.end()


def case_saved(d, place):
    """A snapshot waits for no bucket, and what goes on from it has the configuration's limits."""
    g = Load(d.client(), place, iops=LIMIT, cpus=1)
    g.holds("saved: before")
    g.change(iops=1)
    answer = g.save(place + "/snap")
    check("saved: while requests are held back", answer["state"] == "running", answer)
    g.end()
    r = Load.__new__(Load)
    Guest.__init__(r, d.client(), "l", restore=place + "/snap", mem=64 << 20, cpus=1)
    check("saved: what goes on from it has the configuration's", r.told() == LIMIT, r.told())
    r.holds("saved: after")
    r.end()


def case_taken(d, place):
    """Asked for back, and pulled out, while requests are held back."""
    g = plug.Slots(d.client(), place)
    for force in (False, True):
        slot = g.add(0, iops=8)["slot"] - 1
        g.until("came %d" % slot)
        g.until(r"done %d \d+" % slot)
        g.take(0, force=force)
        g.until(("gone %d" if force else "out %d") % slot)
        check("taken: %s" % ("pulled out" if force else "given back"), plug.listed(g.c, g.disk(0)) is None)
    g.finish("taken")


def case_module(d, place):
    """A disk that a storage module serves."""
    if not shutil.which("nbdkit"):
        print("skip limit: module - no nbdkit")
        return
    sock = place + "/nbd"
    server = plug.Server("-U", sock, make_disk(place + "/disk", 4 << 20))
    g = Load(d.client(), place, path="nbd:nbd+unix:///?socket=" + sock, iops=LIMIT)
    g.holds("module")
    check("module: there is another process", g.kill_helper("nbd"))
    g.holds("module: killed")
    g.change(iops=0)
    check("module: lifted", g.told() is None and g.gets_more())
    g.end()
    server.end()


def case_refused(d, place):
    g = Load(d.client(), place)
    for device, params, words in (("vda", dict(pps=5), ("pps", "iops", "vda")), ("com1", dict(iops=5), ("com1",)), ("vdb", dict(iops=5), ("vdb",)),
                                  ("vda", dict(iops=-1), ("iops",)), ("vda", dict(rate=1 << 41), ("rate",))):
        e = refused(g.c, "vm.limits", id="l", device=device, **params)
        check("refused: %s %s" % (device, params), all(w in str(e) for w in words), e)
    check("refused: nothing was changed", g.told() is None and g.told("rate") is None)
    g.end()


if __name__ == "__main__":
    run_cases(sys.modules[__name__])
