#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Memory that payloads get and give back while they run: insula-mem, vm.resize, what insulad counts.

resize.py [CASE...]     BUILD names the build directory. One line per case: ok, not ok, skip.
"""
import json
import os
import re
import signal
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from snapshot import BIN, BUILD, Guest, check, on_disk, one_line, refused, run, run_cases, shoot, suite, wait_for  # noqa: E402

KILLS = int(os.environ.get("RESIZE_KILLS", 6))
suite.suite = "resize"
MIB = 1 << 20
BASE, MAX, BLOCK = 64 * MIB, 192 * MIB, 2 * MIB


def config(**more):
    return dict(dict(kernel=BUILD + "/guests/vmem.elf", mem="64M,max=192M"), **more)


def start(c, name="m", keep=False, **more):
    g = Guest(c, name, keep=keep, **config(**more))
    g.until("here")
    return g


def size(g):
    return g.c.call("vm.info", id=g.name)["memory"]


def resize(g, mem, timeout=100):
    """The payload does nothing by itself: ask, then let it do it."""
    return g.c.call("vm.resize", id=g.name, mem=mem, timeout_ms=timeout)["memory"]


def move(g, keys):
    return int(g.ask(keys, r"plugged (\d+)")[1])


def good(g):
    return g.ask("v", r"((?:not )?ok memory)[^\n]*?")[1] == "ok memory"


def helper(g):
    found = [p["pid"] for p in g.c.call("vm.info", id=g.name)["processes"] if p["name"].startswith("insula-mem") and p["state"] == "ready"]
    return found[0] if found else 0


def held(g):
    """Bytes that guest memory takes on the host."""
    pid = g.c.call("vm.info", id=g.name)["pid"]
    for fd in os.listdir("/proc/%d/fd" % pid):
        if os.readlink("/proc/%d/fd/%s" % (pid, fd)).startswith("/memfd:insula-guest"):
            return os.stat("/proc/%d/fd/%s" % (pid, fd)).st_blocks * 512
    return 0


def case_requests(d, _):
    g = start(d.client())
    check("at first it has what it was made with", size(g) == {"requested": BASE, "actual": BASE, "max": MAX}, size(g))
    resize(g, BASE + 32 * BLOCK)
    g.sock.sendall(b"c")
    while (m := g.until(r"(ok|not ok|checked)(?: (\w+))?([^\n]*?)"))[1] != "checked":
        check(m[2], m[1] == "ok", m[3])
    check("what it has is known", wait_for(lambda: size(g)["actual"] == BASE), size(g))
    g.end()


def case_sizes(d, _):
    c = d.client()
    g = start(c)
    before = held(g)
    r = resize(g, MAX)
    check("a guest that does not take it: the answer says so", r == {"requested": MAX, "actual": BASE, "max": MAX}, r)
    check("its share is raised", c.call("vm.info", id="m")["mem"] == MAX)
    check("it plugs all of it", move(g, "p") == 64 and good(g))
    check("and that is heard of later", wait_for(lambda: size(g)["actual"] == MAX), size(g))
    full = held(g)
    check("it is on the host", full >= before + 128 * MIB // 512, (before, full))
    g.c.call("events.subscribe")
    r = resize(g, BASE + BLOCK)
    check("less: the answer says what is there yet", r == {"requested": BASE + BLOCK, "actual": MAX, "max": MAX}, r)
    check("the share stays as long", c.call("vm.info", id="m")["mem"] == MAX)
    check("it gives back all but a block", move(g, "u") == 1 and good(g))
    check("the share follows", wait_for(lambda: c.call("vm.info", id="m")["mem"] == BASE + BLOCK), c.call("vm.info", id="m"))
    last = [e["params"]["data"]["memory"] for e in c.events if e["params"]["event"] == "resized"][-1:]
    check("there is an event", last == [{"requested": BASE + BLOCK, "actual": BASE + BLOCK, "max": MAX}], c.events[-3:])
    check("and the host has its memory back", held(g) <= full - 63 * BLOCK // 512, (full, held(g)))
    g.sock.sendall(b"w")
    g.until("wrote 63")
    check("what is written where nothing is plugged is the VM's", held(g) >= full - 63 * BLOCK, (full, held(g)))
    check("and gives nobody more blocks", size(g)["actual"] == BASE + BLOCK and good(g), size(g))
    check("vm.stats has the share", c.call("vm.stats", id="m")["mem_max"] >= BASE + BLOCK)
    g.end()
    g = start(c, keep=True)
    resize(g, MAX)
    c.call("vm.kill", id="m")
    check("a VM that has ended counts as before", c.call("vm.info", id="m")["mem"] == BASE)
    c.call("vm.start", id="m")
    check("and starts with that", size(g) == {"requested": BASE, "actual": BASE, "max": MAX}, size(g))
    g.end()


def case_refusals(d, place):
    c = d.client()
    g = start(c)
    for mem, words in ((MAX + BLOCK, "mem: 194M; expected 64M to 192M, in steps of 2M"), (BASE - BLOCK, "mem: 62M; expected 64M to 192M"),
                       (BASE + BLOCK // 2, "mem: 65M; expected 64M to 192M, in steps of 2M")):
        e = refused(c, "vm.resize", id="m", mem=mem)
        check("vm.resize to %d MiB" % (mem // MIB), e["code"] == -32602 and words in e["message"], e)
    check("nothing has changed", size(g)["requested"] == BASE and c.call("vm.info", id="m")["mem"] == BASE)
    c.call("vm.run", name="x", config=dict(kernel=BUILD + "/guests/spin.elf", mem="16M"))
    env = dict(os.environ, INSULA_SOCKET=d.socket)

    def ctl(*args):
        return subprocess.run([BIN + "insulactl", "resize", *args], env=env, capture_output=True, text=True, check=False)

    for args, status, words in ((("m", "--mem", "194M"), 2, "mem: 194M; expected 64M to 192M"), (("m", "--mem", "lots"), 2, "--mem: 'lots'; expected a size such as 2G"),
                                (("m",), 2, "neither --mem nor --cpus"), (("x", "--mem", "32M"), 1, "cannot be resized: it was made without --mem's max"),
                                (("m", "--mem", "1"), 2, "mem: 1; expected a number from 16777216")):
        r = ctl(*args)
        check("insulactl resize %s" % " ".join(args), r.returncode == status and words in r.stderr and r.stderr.count("\n") == 1, (r.returncode, r.stderr))
    c.call("vm.resize", id="m", mem=BASE, timeout_ms=100)
    r = ctl("m", "--mem", "64M")
    check("insulactl resize", r.returncode == 0 and json.loads(r.stdout)["memory"]["actual"] == BASE, r)
    c.call("vm.pause", id="m")
    check("a paused guest answers at the deadline", resize(g, MAX)["actual"] == BASE)
    c.call("vm.resume", id="m")
    g.end()
    for mem, words in (("64M,max=64M", "a max of more than 64M, the size, to 1024G"), ("64M,max=65M", "a max that is 64M and a multiple of 2M"),
                       ("64M,max", "SIZE[,max=SIZE][,hugepages]"), ("64M,max=2048G", "to 1024G")):
        r = subprocess.run([BIN + "insula-run", "--kernel", BUILD + "/guests/vmem.elf", "--mem", mem], capture_output=True, text=True, check=False)
        check("insula-run --mem %s" % mem, one_line(r, "--mem: '%s'" % mem, words), r)
        e = refused(c, "vm.run", config=config(mem=mem))
        check("vm.run with mem %s" % mem, e["data"].get("field") == "config.mem" and words in e["data"]["expected"], e)
    r = subprocess.run([BIN + "insula-run", "--kernel", BUILD + "/guests/vmem.elf", "--mem", "64M,max=1000G"], capture_output=True, text=True, check=False)
    check("insula-run with more than the host has", one_line(r, "--mem: max 1024000M; expected at most"), r)


def case_kills(d, _):
    c = d.client()
    g = start(c, keep=True)
    resize(g, BASE + 40 * BLOCK)
    g.sock.sendall(b"l")
    g.until("looping")
    kills = 0
    for i in range(KILLS):
        time.sleep(0.3)
        pid = helper(g)
        if pid:
            shoot(pid)
            kills += 1
        wait_for(lambda p=pid: helper(g) not in (0, p))
        if i == KILLS // 2:
            resize(g, BASE + 50 * BLOCK)
    rounds = int(g.ask("x", r"ok loop (\d+)")[1])
    check("insula-mem killed %d times: the guest does not notice" % kills, kills == KILLS and rounds >= KILLS and good(g), (kills, rounds))
    check("what was asked for meanwhile is told", g.ask("?", r"requested (\d+) plugged \d+")[1] == "50")
    check("what it has is known", wait_for(lambda: size(g)["actual"] == BASE + move(g, "p") * BLOCK), size(g))
    pid = helper(g)
    os.kill(pid, signal.SIGSTOP)
    r = resize(g, BASE, 500)
    check("a helper that does not answer is not waited for", r["requested"] == BASE and c.call("vm.info", id="m")["answers"], r)
    os.kill(pid, signal.SIGCONT)
    check("and then it does", move(g, "u") == 0 or wait_for(lambda: move(g, "u") == 0), size(g))
    check("the guest ends well", g.sock.sendall(b"q") is None and c.call("vm.wait", id="m", timeout_ms=20000)["status"] == 0)
    g.end()


def case_snapshots(d, place):
    c = d.client()
    g = start(c, "a")
    resize(g, BASE + 30 * BLOCK)
    move(g, "p")
    resize(g, BASE + 20 * BLOCK)
    g.save(place + "/s")
    check("only what there is is in it", on_disk(place + "/s/memory") < 30 * BLOCK + BASE, on_disk(place + "/s/memory"))
    with open(place + "/s/machine.json") as f:
        check("its sizes are", json.load(f)["memory"] == {"requested": BASE + 20 * BLOCK, "actual": BASE + 30 * BLOCK, "max": MAX})
    move(g, "u")
    g.save(place + "/t", base=place + "/s", kind="diff")
    check("the source goes on", good(g) and move(g, "p") == 20)
    g.end()
    for name, blocks, plugged in (("s", 20, 30), ("t", 20, 20)):
        b = Guest(c, name, restore=place + "/" + name, mem="64M,max=192M")
        check("restored from %s: it has its blocks" % name, good(b) and b.ask("?", r"requested (\d+ plugged \d+)")[1] == "%d plugged %d" % (blocks, plugged))
        check("restored from %s: they are known" % name, wait_for(lambda n=plugged: size(b)["actual"] == BASE + n * BLOCK), size(b))
        check("restored from %s: it counts with them" % name, wait_for(lambda n=plugged: c.call("vm.info", id=b.name)["mem"] == BASE + n * BLOCK), c.call("vm.info", id=b.name)["mem"])
        resize(b, MAX)
        check("restored from %s: it gets more, all zeros" % name, move(b, "p") == 64 and good(b))
        resize(b, BASE)
        check("restored from %s: it gives all back" % name, move(b, "u") == 0 and good(b))
        b.end()
    r = run(place + "/s", "--mem", "64M", keys="v?q")
    check("another max is refused", one_line(r, "--mem: expected 64M,max=192M, as the snapshot has"), r)
    with open(place + "/s/machine.json") as f:
        text = f.read()
    for a, b in (('"requested":%d' % (BASE + 20 * BLOCK), '"requested":%d' % (MAX + BLOCK)), ('"actual":%d' % (BASE + 30 * BLOCK), '"actual":%d' % (BASE + 1)),
                 ('"max":%d' % MAX, '"max":%d' % (MAX + 64 * BLOCK)), ('"max":%d' % MAX, '"max":-1')):
        with open(place + "/s/machine.json", "w") as f:
            f.write(text.replace(a, b))
        r = run(place + "/s", keys="v?q")
        check("a snapshot that says %s is refused" % b, a in text and one_line(r), r)
    with open(place + "/s/machine.json", "w") as f:
        f.write(text)
    r = run(place + "/t", keys="v?q")
    check("insula-run --restore", r.returncode == 0 and "ok memory" in r.stdout and "requested 20 plugged 20" in r.stdout, r)
    e = refused(c, "vm.run", config=dict(restore=place + "/s", mem="64M"))
    check("insulad wants to know it, too", "as the snapshot has" in e["message"], e)


def case_clones(d, _):
    c = d.client()
    g = start(c, "a")
    resize(g, BASE + 25 * BLOCK)
    move(g, "p")
    vms = c.call("vm.clone", id="a", count=2)["vms"]
    check("clones have its memory", wait_for(lambda: [c.call("vm.info", id=v["id"])["memory"]["actual"] for v in vms] == [BASE + 25 * BLOCK] * 2), vms)
    check("and count with it", [c.call("vm.info", id=v["id"])["mem"] for v in vms] == [BASE + 25 * BLOCK] * 2)
    r = c.call("vm.resize", id=vms[0]["id"], mem=BASE + 30 * BLOCK, timeout_ms=100)["memory"]
    check("each is resized for itself", r["requested"] == BASE + 30 * BLOCK and size(g)["requested"] == BASE + 25 * BLOCK)
    check("the source goes on", good(g))
    for v in vms:
        c.call("vm.kill", id=v["id"])
    g.end()


def case_restart(d, _):
    """insulad is killed, also while a resize waits: while it is away the guest gives back."""
    g = start(d.client(), keep=True)
    resize(g, MAX)
    move(g, "p")
    resize(g, BASE + 3 * BLOCK)
    d.kill()
    move(g, "u")
    d.start()
    g.c = d.client()
    check("the next insulad knows the VM's share", wait_for(lambda: g.c.call("vm.info", id="m")["mem"] == BASE + 3 * BLOCK), g.c.call("vm.info", id="m"))
    r = resize(g, BASE + 5 * BLOCK)
    check("and resizes it", r["requested"] == BASE + 5 * BLOCK and move(g, "p") == 5 and good(g), r)
    c = d.client()
    c.sock.sendall(json.dumps({"jsonrpc": "2.0", "id": 1, "method": "vm.resize", "params": {"id": "m", "mem": MAX, "timeout_ms": 3600000}}).encode() + b"\n")
    wait_for(lambda: size(g)["requested"] == MAX)
    d.kill()
    d.start()
    g.c = d.client()
    check("a resize that waited has its share in the next insulad", wait_for(lambda: g.c.call("vm.info", id="m")["mem"] == MAX), g.c.call("vm.info", id="m"))
    wait_for(lambda: "memory" in g.c.call("vm.info", id="m"))
    check("and another one need not wait for it", resize(g, BASE + 5 * BLOCK)["requested"] == BASE + 5 * BLOCK)
    g.end()


if __name__ == "__main__":
    run_cases(sys.modules[__name__])
