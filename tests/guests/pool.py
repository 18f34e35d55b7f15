#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Pools: payloads that are restored and stand, until vm.run takes one.

pool.py [CASE...]     BUILD names the build directory. One line per case: ok, not ok, skip.
"""
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import snapshot  # noqa: E402
from snapshot import BIN, PATIENCE, Guest, console, pids, restored, shoot, snap, source  # noqa: E402
from suite import Daemon, check, freeze, gone, refused, vm_processes, wait_for  # noqa: E402

CLONES = int(os.environ.get("POOL_CLONES", 24))
snapshot.suite.suite = "pool"
FULL = 60


def template(d, place, count=0):
    """A snapshot of a payload that has counted: its path, and its nonce."""
    a, (nonce, _, _) = source(d.client(), "source", count)
    a.save(place + "/t")
    a.end()
    return place + "/t", nonce


def pool_of(c, name, path, count):
    return c.call("pool.create", name=name, count=count, config=restored(path))


def info(c, name="p"):
    return c.call("pool.info", name=name)


def full(c, name="p"):
    """Do all of them stand?"""
    return wait_for(lambda: (i := info(c, name))["standing"] == i["count"], FULL)


def standing(c):
    return [v for v in c.call("vm.list")["vms"] if v.get("pool")]


class Taken(Guest):
    """A VM of a pool, and its console."""

    def __init__(self, c, name, pool="p", **params):
        ours, theirs = socket.socketpair()
        super().__init__(c, name, sock=ours)
        self.info = c.call("vm.run", fds=[theirs.fileno()], name=name, pool=pool, **params)
        theirs.close()


def nothing_runs(d, c):
    """No VM, no pool, and nothing of either in the state directory."""
    return not c.call("vm.list")["vms"] and not c.call("pool.list")["pools"] and not os.listdir(d.state + "/vm") and not os.listdir(d.state + "/pool")


# ---- cases


def case_paused(d, place):
    """vm.run of a configuration with "paused": it stands, and its first resume is its beginning."""
    c = d.client()
    s, nonce = template(d, place, 2)
    v = c.call("vm.run", name="w", config=restored(s, paused=True))
    check("paused: vm.run answers when it stands", v["state"] == "paused", v)
    i = c.call("vm.info", id="w")
    check("paused: with all of its processes", i["state"] == "paused" and {"insula-vmm", "insula-console", "insula-rng"} <= set(pids(i)), i)
    g = Guest(c, "w", sock=console(c, "w"))
    g.sock.sendall(b"?")
    g.sock.settimeout(0.5)
    try:
        said = g.sock.recv(100)
    except TimeoutError:
        said = b""
    g.sock.settimeout(PATIENCE)
    check("paused: the guest does not run", not said, said)
    rng = pids(i)["insula-rng"]
    shoot(rng)
    check("paused: a helper that dies is restarted", wait_for(lambda: pids(c.call("vm.info", id="w")).get("insula-rng", rng) != rng and
                                                                 c.call("vm.info", id="w")["devices"][-1]["state"] == "ok", 20))
    check("paused: and it stands on", c.call("vm.info", id="w")["state"] == "paused")
    d.restart()
    c = g.c = d.client()
    check("paused: insulad was killed, and it stands", wait_for(lambda: c.call("vm.info", id="w")["state"] == "paused", 20))
    check("paused: vm.resume", c.call("vm.resume", id="w")["state"] == "running")
    g.until("nonce .*")
    check("paused: what was saved goes on", g.count() == (nonce, 3, True))
    check("paused: and can be paused again", [c.call("vm." + x, id="w")["state"] for x in ("pause", "resume")] == ["paused", "running"])
    g.end()
    v = c.call("vm.run", name="w", config=restored(s, paused=True, timeout=3))
    time.sleep(3.5)
    check("paused: its timeout does not run", c.call("vm.info", id="w")["state"] == "paused")
    c.call("vm.resume", id="w")
    r = c.call("vm.wait", id="w")
    check("paused: but from its resume on", (r["reason"], r["status"]) == ("timeout", 124), r)
    c.call("vm.run", name="w", config=restored(s, paused=True))
    r = c.call("vm.stop", id="w")
    check("paused: vm.stop ends it", (r["reason"], r["stop"]) == ("stopped", "forced"), r)
    c.call("vm.run", name="w", config=restored(s, paused=True))
    c.call("vm.snapshot", id="w", path=place + "/again")
    check("paused: a snapshot of one that stands", c.call("vm.info", id="w")["state"] == "paused" and
          snapshot.run_state(snapshot.run(place + "/again")) == (nonce, 2, 3))
    c.call("vm.kill", id="w")
    e = refused(c, "vm.run", config=snap(paused=True))
    check("paused without restore: one line", e["code"] == -32602 and e["data"].get("field") == "config.paused", e)
    r = subprocess.run([BIN + "insula-run", "--restore", s, "--paused"], capture_output=True, text=True, timeout=PATIENCE, check=False)
    check("insula-run --paused: one line, status 2", snapshot.one_line(r, "--paused", "insulad"), r)


def case_take(d, place):
    """One, all, more than there are; and the pool fills up again."""
    c = d.client()
    s, nonce = template(d, place, 2)
    p = pool_of(c, "p", s, 3)
    check("pool.create answers", (p["name"], p["count"]) == ("p", 3), p)
    check("all stand", full(c), info(c))
    check("they are VMs of the list, paused, and the pool's", [(v["state"], v["pool"]) for v in standing(c)] == [("paused", "p")] * 3, standing(c))
    before = {v["id"] for v in standing(c)}
    a = Taken(c, "a")
    check("vm.run takes one", a.info["id"] in before and (a.info["name"], a.info["state"], a.info.get("pool")) == ("a", "running", None), a.info)
    check("what was saved goes on, on the console that came along", a.state() == (nonce, 2, True) and a.count() == (nonce, 3, True))
    check("it is the client's now", c.call("vm.info", id="a")["transient"] and "pool" not in c.call("vm.info", id="a"))
    check("the pool is full again", full(c) and {v["id"] for v in standing(c)} >= before - {a.info["id"]}, info(c))
    gs = [Taken(c, "g%d" % i) for i in range(5)]
    check("all, and more than there are: each runs", all(g.state() == (nonce, 2, True) for g in gs))
    i = info(c)
    check("it says how many it had", i["taken"] + i["missed"] == 6 and i["taken"] >= 4, i)
    check("and is full again", full(c) and "why" not in info(c), info(c))
    twins = [g.ask("r", r"((?:not ok )?random .*?)")[1] for g in [a] + gs]
    check("their random numbers differ", len(set(twins)) == 6 and not any("not ok" in t for t in twins), twins)
    gs[0].sock.sendall(b"q")
    check("one ends as others do, and is gone", wait_for(lambda: not any(v["name"] == "g0" for v in c.call("vm.list")["vms"])))
    for g in [a] + gs[1:]:
        g.end()
    g = Taken(c, "k", keep=True, config=dict(timeout=2))
    r = c.call("vm.wait", id="k")
    check("keep, and a timeout of its own", (r["reason"], r["status"]) == ("timeout", 124) and c.call("vm.info", id="k")["state"] == "ended", r)
    c.call("vm.start", id="k")
    v = c.call("vm.info", id="k")
    check("started again it goes on at once, by the pool's configuration", v["state"] == "running" and v["config"] == dict(restored(s), identity="new", timeout=2), v)
    g.end()
    sock, theirs = socket.socketpair()
    sock.sendall(b"q")
    r = c.call("vm.run", pool="p", wait=True, fds=[theirs.fileno()])
    check("with wait the answer is the result", (r["reason"], r["status"]) == ("status", 0), r)
    for x in (sock, theirs):
        x.close()
    v = c.call("vm.run", pool="p")
    check("without a name, without a console", v["state"] == "running" and c.call("vm.kill", id=v["name"])["reason"] == "killed", v)
    check("full", full(c), info(c))
    procs = [p for v in standing(c) for p in vm_processes(c.call("vm.info", id=v["id"]))]
    c.call("pool.remove", name="p")
    check("pool.remove leaves nothing behind", nothing_runs(d, c) and wait_for(lambda: all(map(gone, procs)), 10), c.call("vm.list"))


def case_kills(d, place):
    """Each process of one that stands; insulad."""
    c = d.client()
    s, nonce = template(d, place, 1)
    pool_of(c, "p", s, 2)
    check("kills: full", full(c), info(c))
    for victim in ("insula-console", "insula-rng", "insula-pager", "insula-vmm", "supervisor"):
        v = standing(c)[0]
        of = pids(c.call("vm.info", id=v["id"]))
        if victim == "insula-pager":
            of[victim] = snapshot.child(v["pid"], victim)
        if not of.get(victim):
            print("skip pool: kill -9 of %s - memory is read at once here" % victim)
            continue
        shoot(of[victim])
        wait_for(lambda pid=of[victim]: gone(pid), 10)
        gs = [Taken(c, "%s%d" % (victim, i)) for i in range(2)]
        check("kill -9 of %s of one that stands: whoever takes one has one that runs" % victim, all(g.state() == (nonce, 1, True) for g in gs))
        check("kill -9 of %s: and the pool is full again" % victim, full(c), info(c))
        for g in gs:
            g.end()
    v = standing(c)[0]
    shoot(v["pid"])
    check("kill -9 of a supervisor: another one stands in its place", wait_for(lambda: v["id"] not in [x["id"] for x in standing(c)], 20) and full(c), info(c))
    i = info(c)
    check("and the failures are counted", i["failures"] >= 2, i)
    before = sorted(v["id"] for v in standing(c))
    d.restart()
    c = d.client()
    check("insulad was killed: the pool is there, with the same VMs", full(c) and sorted(v["id"] for v in standing(c)) == before, (before, standing(c)))
    g = Taken(c, "after")
    check("and one is taken", g.info["id"] in before and g.state() == (nonce, 1, True), g.info)
    d.restart()
    c = g.c = d.client()
    check("insulad was killed: what was taken runs on, and is not the pool's", wait_for(lambda: c.call("vm.info", id="after")["state"] == "running") and
          "pool" not in c.call("vm.info", id="after") and g.count() == (nonce, 2, True))
    check("and the pool is full", full(c), info(c))
    g.end()
    v = standing(c)[0]
    d.kill()
    shoot(v["pid"])
    d.start()
    c = d.client()
    check("one that died while there was no insulad is replaced", full(c) and v["id"] not in [x["id"] for x in c.call("vm.list")["vms"]], standing(c))
    d.kill()
    shutil.rmtree(d.state + "/pool")
    d.start()
    c = d.client()
    check("VMs whose pool is no more are ended", wait_for(lambda: nothing_runs(d, c), 10), c.call("vm.list"))


def case_interrupted(d, place):
    """insulad is killed over giving one away: it is the client's, or there is none; never paused for ever, never under another name."""
    c = d.client()
    s, _ = template(d, place)
    pool_of(c, "p", s, 2)
    check("interrupted: full", full(c), info(c))
    for i in range(4):
        c = d.client()
        c.sock.sendall(json.dumps(dict(jsonrpc="2.0", id=1, method="vm.run", params=dict(pool="p", name="x"))).encode() + b"\n")
        time.sleep(i * 0.002)
        d.restart()
        c = d.client()
        good = full(c) and wait_for(lambda: all(v.get("pool") or (v["name"], v["state"]) == ("x", "running") for v in c.call("vm.list")["vms"]), 20)
        check("insulad was killed %d ms after vm.run: the pool is full, the VM is there or not" % (2 * i), good, c.call("vm.list"))
        for v in c.call("vm.list")["vms"]:
            if v["name"] == "x":
                c.call("vm.kill", id="x")
        check("and it is gone when it was killed", wait_for(lambda: "x" not in [v["name"] for v in c.call("vm.list")["vms"]], 20), c.call("vm.list"))
    # It is promised, and insulad is killed, and it dies before the next insulad hears of it: nobody has it.
    c.call("pool.create", name="q", count=1, config=restored(s))
    full(c, "q")
    v = next(x for x in standing(c) if x["pool"] == "q")
    freeze(v["pid"])
    c.sock.sendall(json.dumps(dict(jsonrpc="2.0", id=1, method="vm.run", params=dict(pool="q", name="y", keep=True))).encode() + b"\n")

    def promised():
        with open("%s/vm/%s/record.json" % (d.state, v["id"]), encoding="utf-8") as f:
            return '"y"' in f.read()

    check("it is promised", wait_for(promised, 20))
    d.kill()
    shoot(v["pid"])
    d.start()
    c = d.client()
    check("a VM that was promised and is dead: the pool is full again", full(c, "q"), info(c, "q"))
    check("and nobody has its name", "y" not in [x["name"] for x in c.call("vm.list")["vms"]], c.call("vm.list"))


def case_trouble(d, place):
    """A pool that cannot be filled says why, and rests; whoever wants a VM is told the same as without a pool."""
    c = d.client()
    s, nonce = template(d, place, 1)
    p = pool_of(c, "p", place + "/nothing", 2)
    check("a snapshot that is not there: the pool is made", p["standing"] == 0, p)
    check("and says why it is empty", wait_for(lambda: "nothing" in info(c).get("why", "")), info(c))
    n = info(c)["failures"]
    time.sleep(1)
    check("it rests longer and longer", info(c)["failures"] - n <= 8 and wait_for(lambda: info(c).get("next_try_ms", 0) > 1000, 20), info(c))
    e = refused(c, "vm.run", pool="p")
    check("vm.run then has the reason of a start that failed", e["code"] == -32005 and "nothing" in e["message"], e)
    wait_for(lambda: all(v.get("pool") for v in c.call("vm.list")["vms"]))  # else it is told of a minute longer
    d.restart()
    c = d.client()
    check("and so after a restart of insulad", wait_for(lambda: "nothing" in info(c).get("why", "")), info(c))
    os.rename(s, place + "/nothing")
    check("it fills up when it can", full(c) and "why" not in info(c), info(c))
    g = Taken(c, "a")
    check("and gives one", g.state() == (nonce, 1, True))
    # The only one of its pool, so that it is the one that is tried.
    c.call("pool.create", name="q", count=1, config=restored(place + "/nothing"))
    full(c, "q")
    v = next(x for x in standing(c) if x["pool"] == "q")
    freeze(v["pid"])
    c.sock.settimeout(PATIENCE)
    gs = [Taken(c, "b%d" % i, pool="q") for i in range(3)]
    c.sock.settimeout(None)
    os.kill(v["pid"], signal.SIGCONT)
    check("a supervisor that does not answer: whoever takes has another one", all(x.state() == (nonce, 1, True) for x in gs))
    check("and it is replaced", full(c, "q") and v["id"] not in [x["id"] for x in standing(c)], (v, standing(c)))
    for x in gs + [g]:
        x.end()
    for name in "pq":
        c.call("pool.remove", name=name)
    check("trouble: nothing is left", nothing_runs(d, c), c.call("vm.list"))


# What another user does there, with the Insulad of the documentation; its answers as JSON.
STRANGER = """
import json, os, sys, time
sys.path.insert(0, sys.argv[1])
from insulad_client import Insulad
os.setgroups([])
os.setgid(4001)
os.setuid(4001)
c = Insulad(sys.argv[2])

def call(method, **params):
    try:
        return c.call(method, **params)
    except RuntimeError as e:
        return e.args[0]

r = [call("pool.create", name="q", count=5, config=dict(restore=sys.argv[3], mem=64 << 20, cpus=1))]
time.sleep(1)
r += [call(m, **p) for m, p in [("pool.info", dict(name="q")), ("pool.list", {}), ("vm.run", dict(pool="p")),
                                ("pool.remove", dict(name="p")), ("pool.remove", dict(name="q"))]]
print(json.dumps(r))
"""


def case_limits(_, place):
    """The VMs of a pool are in the limits, and the pool says that it meets them. Pools are their owner's."""
    d = Daemon(max_vms=3, limits=dict(vms=10, vcpus=10, memory="32M"))
    try:
        c = d.client()
        s, _ = template(d, place)
        pool_of(c, "p", s, 5)
        check("limits: a pool that is larger than max_vms is filled as far as it goes, and says why",
              wait_for(lambda: (i := info(c))["standing"] == 3 and "max_vms" in i.get("why", ""), FULL), info(c))
        e = refused(c, "vm.run", config=snap())
        check("limits: they count", e["code"] == -32004 and e["data"]["field"] == "max_vms", e)
        check("limits: one that stands can be taken", c.call("vm.run", pool="p", name="t")["state"] == "running")
        if os.geteuid():
            print("skip pool: another user's pool - not root")
            return
        r = subprocess.run([sys.executable, "-c", STRANGER, snapshot.suite.HERE + "/../../docs/examples", d.socket, s], capture_output=True, text=True,
                           timeout=PATIENCE * 2, check=False)
        got = json.loads(r.stdout) if r.returncode == 0 else [dict(error=r.stderr)] * 6
        check("another user makes a pool, which says why it is empty", got[0].get("name") == "q" and "why" in got[1] and got[1]["standing"] == 0, got[:2])
        check("another user sees its own pools alone", [x["name"] for x in got[2].get("pools", [])] == ["q"], got[2])
        check("and can neither take of others nor remove them", [got[i].get("code") for i in (3, 4)] == [-32001] * 2, got[3:5])
        check("pool.remove of its own", got[5] == {} and [p["name"] for p in c.call("pool.list")["pools"]] == ["p"], got[5])
    finally:
        d.stop()


def case_refused(d, place):
    """Bad input: one line, which names the field."""
    c = d.client()
    s, _ = template(d, place)
    good = restored(s)
    for params, field, words in [
            (dict(name="", config=good), "name", ""), (dict(name="a b", config=good), "name", "letters"), (dict(name="p"), "config", ""),
            (dict(name="p", config=good, count=0), "count", ""), (dict(name="p", config=good, count=257), "count", ""),
            (dict(name="p", config=good, count="2"), "count", "number"), (dict(name="p", config=snap()), "config.restore", "snapshot"),
            (dict(name="p", config=dict(good, paused=True)), "config.paused", "none"), (dict(name="p", config=dict(good, memm=1)), "config.memm", "mem"),
            (dict(name="p", config=dict(good, restore="rel")), "config.restore", "absolute"), (dict(name="p", config=good, size=3), "size", "")]:
        e = refused(c, "pool.create", **params)
        check("pool.create with %s" % field, e["code"] == -32602 and e["data"].get("field") == field and words in json.dumps(e["data"]) and "\n" not in json.dumps(e), e)
    check("none of them made one", nothing_runs(d, c))
    pool_of(c, "p", s, 1)
    e = refused(c, "pool.create", name="p", config=good)
    check("pool.create of a name that is there", e["code"] == -32002 and e["data"]["field"] == "name", e)
    for method in ("pool.info", "pool.remove"):
        e = refused(c, method, name="none")
        check(method + " of one that is not there", e["code"] == -32001 and e["data"]["field"] == "name", e)
    check("refused: full", full(c), info(c))
    for params, code, field in [
            (dict(pool="none"), -32001, "pool"), (dict(), -32602, "config"), (dict(pool="p", name="a b"), -32602, "name"),
            (dict(pool="p", config=dict(mem="1G")), -32602, "config.mem"), (dict(pool="p", config=dict(restore=s)), -32602, "config.restore"),
            (dict(pool="p", config=dict(disks=["/x"])), -32602, "config.disks"), (dict(pool="p", config=dict(command=["true"])), -32602, "config.command"),
            (dict(pool="p", config=dict(timeout=0)), -32602, "config.timeout"), (dict(pool="p", name=standing(c)[0]["name"]), -32002, "name")]:
        e = refused(c, "vm.run", **params)
        check("vm.run with %s: %s is named" % (json.dumps(params).replace(place, ""), field),
              e["code"] == code and e["data"].get("field") == field and "\n" not in e["message"], e)
    v = standing(c)[0]["id"]
    for method, more in [("vm.resume", {}), ("vm.pause", {}), ("vm.snapshot", dict(path=place + "/x")), ("vm.console", {}), ("vm.clone", {}),
                         ("vm.start", {}), ("vm.delete", {}), ("vm.device.restart", dict(device="com1"))]:
        e = refused(c, method, id=v, **more)
        check("%s of one that stands in a pool" % method, e["code"] == -32003, e)
    check("it still stands", [(x["id"], x["state"]) for x in standing(c)] == [(v, "paused")], standing(c))
    check("vm.kill of it: another one stands", c.call("vm.kill", id=v)["reason"] == "killed" and full(c) and standing(c)[0]["id"] != v)
    c.call("pool.remove", name=info(c)["id"])
    check("pool.remove by id", nothing_runs(d, c))


def case_ctl(d, place):
    c = d.client()
    s, nonce = template(d, place, 1)
    env = dict(os.environ, INSULA_SOCKET=d.socket)

    def ctl(*args, **more):
        return subprocess.run([BIN + "insulactl", *args], env=env, capture_output=True, text=True, timeout=PATIENCE + 30, check=False, cwd=place, **more)

    r = ctl("pool", "create", "web", "-n", "2", "--restore", "t")
    check("insulactl pool create with a relative path", r.returncode == 0 and info(c, "web")["config"]["restore"] == s, r)
    check("ctl: full", full(c, "web"), info(c, "web"))
    r = ctl("pool", "ls")
    pools = json.loads(r.stdout)["pools"] if r.returncode == 0 else r
    check("insulactl pool ls", [(p["name"], p["standing"], p["count"]) for p in pools] == [("web", 2, 2)], r)
    r = ctl("run", "--pool", "web", "--name", "one", input="?+?q")
    check("insulactl run --pool: its console, and its status", r.returncode == 0 and "nonce %s count 2" % nonce in r.stdout, r)
    r = ctl("run", "-d", "--rm", "--pool", "web", "--timeout", "60")
    check("insulactl run -d --pool prints its id", r.returncode == 0 and c.call("vm.info", id=r.stdout.strip())["state"] == "running", r)
    c.call("vm.kill", id=r.stdout.strip())
    for args, words in [
            (["run", "--pool", "web", "--mem", "1G"], ["mem"]), (["run", "--pool", "web", "--", "true"], ["command"]), (["run", "--pool", "none"], ["pool"]),
            (["create", "--pool", "web", "--"], ["--pool"]), (["run", "-n", "2", "--restore", "t", "--"], ["-n"]), (["pool"], ["pool"]),
            (["pool", "make", "x"], ["make"]), (["pool", "create"], ["NAME"]), (["pool", "create", "x"], ["restore"]),
            (["pool", "create", "x", "--restore", "none"], ["none"]), (["pool", "create", "x", "-n", "0", "--restore", "t"], ["-n"]),
            (["pool", "rm"], ["NAME"]), (["pool", "rm", "none"], ["none"])]:
        r = ctl(*args)
        check("insulactl %s: one line" % " ".join(args), r.returncode in (1, 2) and r.stderr.count("\n") == 1 and all(w in r.stderr for w in words), r)
    r = ctl("pool", "info", "web")
    check("insulactl pool info", r.returncode == 0 and json.loads(r.stdout)["count"] == 2, r)
    r = ctl("pool", "rm", "web")
    check("insulactl pool rm", r.returncode == 0 and not c.call("pool.list")["pools"] and not standing(c), r)


def case_many(d, place):
    """Many through one pool, one after the other and as fast as they are asked for."""
    c = d.client()
    s, nonce = template(d, place, 1)
    pool_of(c, "p", s, 4)
    wrong = []
    for i in range(CLONES):
        g = Taken(c, "c%d" % i)
        g.sock.sendall(b"+")
        if g.state() != (nonce, 2, True):
            wrong.append(i)
        g.sock.sendall(b"q")
        g.sock.close()
    i = info(c)
    check("%d VMs through a pool of 4: all are right" % CLONES, not wrong and i["taken"] + i["missed"] == CLONES, (wrong, i))
    check("and it is full", full(c) and wait_for(lambda: len(c.call("vm.list")["vms"]) == 4, 20), c.call("vm.list"))
    c.call("pool.remove", name="p")
    check("many: nothing is left", nothing_runs(d, c), c.call("vm.list"))


if __name__ == "__main__":
    snapshot.run_cases(sys.modules[__name__])
