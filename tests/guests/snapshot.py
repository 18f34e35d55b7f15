#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Snapshots of payloads: saved by insulad and insulactl, restored by insulad and insula-run.

snapshot.py [CASE...]     BUILD names the build directory. One line per case: ok, not ok, skip.
"""
import contextlib
import json
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../daemon"))
import suite  # noqa: E402
from suite import BIN, BUILD, ONE, SLOW, Daemon, check, children, freeze, gone, refused, vm_processes, wait_for  # noqa: E402

ROUNDS = int(os.environ.get("SNAPSHOT_ROUNDS", 20))
KILLS = int(os.environ.get("SNAPSHOT_KILLS", 1 if ONE else 2))
FILES = ["devices", "machine.json", "memory", "seal", "vmm"]
MEM, CHAIN = 64 << 20, 8
PATIENCE = 30 * SLOW
suite.suite = "snapshot"


class Guest:
    """A VM of insulad, and its console."""

    def __init__(self, c, name, keep=False, sock=None, **config):
        """`sock`: one that runs already"""
        self.c, self.name, self.sock, self.got = c, name, sock, ""
        if not sock:
            self.sock, theirs = socket.socketpair()
            method = dict(method="vm.start", id=name) if keep else dict(method="vm.run", name=name, config=config)
            if keep:
                c.call("vm.create", name=name, config=config)
            self.info = c.call(fds=[theirs.fileno()], **method)
            theirs.close()
        self.sock.settimeout(PATIENCE)

    def until(self, pattern):
        """The first match of the pattern in a line of its own; what was before it is forgotten."""
        while not (m := re.search("(?:%s)\r?\n" % pattern, self.got)):
            more = self.sock.recv(65536)
            if not more:
                raise AssertionError("%s: the console ended before '%s', with '%s'" % (self.name, pattern, self.got[-200:]))
            self.got += more.decode(errors="replace")
        self.got = self.got[m.end():]
        return m

    def ask(self, keys, pattern):
        self.sock.sendall(keys.encode())
        return self.until(pattern)

    def state(self):
        """(nonce, count, is its memory right)"""
        m = self.ask("?", r"nonce ([0-9a-fx]+) count (\d+)")
        return m[1], int(m[2]), self.ask("v", r"((?:not )?ok memory)[^\n]*?")[1] == "ok memory"

    def count(self, n=1):
        self.sock.sendall(b"+" * n)
        return self.state()

    def save(self, path, **more):
        return self.c.call("vm.snapshot", id=self.name, path=path, **more)

    def end(self):
        with contextlib.suppress(RuntimeError):
            self.c.call("vm.kill", id=self.name)
        with contextlib.suppress(RuntimeError):
            self.c.call("vm.delete", id=self.name)
        self.sock.close()


def snap(**more):
    return dict(kernel=BUILD + "/guests/snap.elf", mem=MEM, rng="on", **more)


def restored(path, **more):
    return dict(restore=path, mem=MEM, cpus=1, **more)


def source(c, name="a", counted=0, keep=False, **more):
    """A payload that runs, and has counted: (its Guest, its state())"""
    g = Guest(c, name, keep, **snap(**more))
    g.until("nonce .*")
    return g, g.count(counted)


def make_disk(path, size=8 << 20):
    with open(path, "wb") as f:
        f.truncate(size)
    return path


# insulad gives root's VMs an environment without a home: the key that seals a snapshot is in /var/cache/insula.
ENV = {k: v for k, v in os.environ.items() if os.geteuid() or k not in ("HOME", "XDG_CACHE_HOME")}


def run(path, *args, keys="?v+?vq", env=None, **more):
    """insula-run --restore: a finished process."""
    return subprocess.run([BIN + "insula-run", "--restore", path, *args], input=keys, capture_output=True, text=True, errors="replace",
                          timeout=PATIENCE + 30, check=False, env=env or ENV, **more)


def run_state(r):
    """Of `?v+?vq`: (nonce, count before, count after), if all else is right."""
    found = re.findall(r"nonce ([0-9a-fx]+) count (\d+)", r.stdout)
    if r.returncode or len(found) != 2 or found[0][0] != found[1][0] or r.stdout.count("ok memory") != 2 or "not ok" in r.stdout:
        return None
    return found[0][0], int(found[0][1]), int(found[1][1])


def whole(path):
    """Is it one that a VM goes on from?"""
    r = run(path)
    return run_state(r) is not None or r


def nothing_left(place, *but):
    return sorted(os.listdir(place)) == sorted(but)


def one_line(r, *words):
    """Refused, as bad input is."""
    return r.returncode == 2 and r.stderr.count("\n") == 1 and r.stderr.startswith("insula-run: ") and all(w in r.stderr for w in words)


def on_disk(path):
    return os.stat(path).st_blocks * 512


def console(c, name):
    c.call("vm.console", id=name)
    return socket.socket(fileno=c.fds.pop())


def run_cases(module):
    """The cases of a module that are named, or all: each has a directory of its own, and leaves no VM for the next one. Does not return."""
    cases = [n[5:] for n in vars(module) if n.startswith("case_")]
    d = Daemon()
    for name in sys.argv[1:] or cases:
        place = os.path.realpath(tempfile.mkdtemp(prefix=suite.suite + ".", dir=os.environ.get("TMPDIR", "/tmp")))
        try:
            getattr(module, "case_" + name)(d, place)
        except Exception as e:  # noqa: BLE001  the other cases still count
            at = traceback.extract_tb(e.__traceback__)
            where = ", ".join("%d" % f.lineno for f in at if f.filename == module.__file__)
            check(name, False, "%r at lines %s: %s" % (e, where, d.said()))
            if d.proc.poll() is not None:
                d.start()
        suite.sweep(d)
        shutil.rmtree(place, ignore_errors=True)
    check("insulad ends with 0", d.stop() == 0)
    sys.exit(suite.failed)


# ---- cases


def case_life(d, place):
    """Save while it runs; both ways to restore; the source goes on."""
    c = d.client()
    one = place + "/one"
    a, (nonce, count, good) = source(c, counted=2)
    check("a source has counted", (count, good) == (2, True), count)
    answer = a.save(one)
    check("vm.snapshot of a running VM", answer["state"] == "running", answer)
    check("it has the files that it should", sorted(os.listdir(one)) == FILES and nothing_left(place, "one"), os.listdir(one))
    modes = [os.stat(one).st_mode & 0o777] + [os.stat(one + "/" + f).st_mode & 0o777 for f in FILES]
    check("nobody else can read it", modes == [0o700] + [0o600] * 5, modes)
    check("memory that was not touched takes no room", 16 << 20 <= on_disk(one + "/memory") <= 24 << 20, on_disk(one + "/memory"))
    check("the source goes on, unharmed", a.state() == (nonce, 2, True))
    check("and counts on", a.count() == (nonce, 3, True))
    r = run(one)
    check("insula-run --restore: nonce, count and memory are those of then", run_state(r) == (nonce, 2, 3), r)
    r = run(one, "--console", "stdio", keys="rq")
    check("a restored source of random numbers", r.returncode == 0 and re.search(r"random [0-9a-fx]+ [0-9a-fx]+", r.stdout), r)
    b, e = Guest(c, "b", **restored(one)), Guest(c, "e", **restored(one))
    check("insulad restores one", b.state() == (nonce, 2, True))
    check("and another from the same snapshot, beside it", e.state() == (nonce, 2, True) and b.count(2) == (nonce, 4, True))
    check("they share nothing", e.state() == (nonce, 2, True) and a.state() == (nonce, 3, True))
    twins = [g.ask("r", r"((?:not ok )?random .*?)")[1] for g in (a, b, e)]
    check("their random numbers differ", len(set(twins)) == 3 and not any("not ok" in t for t in twins), twins)
    b.save(place + "/two")
    check("a snapshot of a restored VM", run_state(run(place + "/two")) == (nonce, 4, 5))
    before = e.ask("t", r"ticks (\d+)")[1]
    e.save(place + "/three")
    r = run(place + "/three", keys="q")
    asked = os.stat(place + "/three/working-set").st_size if os.access("/dev/userfaultfd", os.R_OK) else 1
    check("what a short one asked for is known to the next", r.returncode == 0 and asked > 0, (asked, r))
    g = Guest(c, "g", **restored(place + "/three"))
    after = g.ask("t", r"ticks (\d+)")[1]
    check("time goes on, and not from the start", int(before) <= int(after), (before, after))
    for x in (a, b, e, g):
        x.end()


def case_paused(d, place):
    c = d.client()
    a, (nonce, _, _) = source(c, counted=1)
    c.call("vm.pause", id="a")
    check("a snapshot of a paused VM: it stays paused", a.save(place + "/p")["state"] == "paused")
    check("and is paused", c.call("vm.info", id="a")["state"] == "paused")
    check("a second one", a.save(place + "/q")["state"] == "paused")
    c.call("vm.resume", id="a")
    check("it is resumed", a.state() == (nonce, 1, True))
    check("both are restored", [run_state(run(place + "/" + x)) for x in "pq"] == [(nonce, 1, 2)] * 2)
    a.end()
    a, (nonce, _, _) = source(c, counted=1, keep=True)
    a.save(place + "/s", keep_running=False)
    r = c.call("vm.wait", id="a")
    check("keep_running false: it ends", (r["reason"], r["status"]) == ("snapshot", 0), r)
    check("and is restored", run_state(run(place + "/s")) == (nonce, 1, 2))
    a.end()


def case_diff(d, place):
    c = d.client()
    a, _ = source(c)
    e = refused(c, "vm.snapshot", id="a", path=place + "/none", kind="diff")
    check("a difference to nothing is refused", e["code"] == -32602 and "base" in e["message"], e)
    nonce, _, _ = a.count()
    a.save(place + "/0")
    for i in range(1, CHAIN):
        if i != 3:
            a.sock.sendall(b"+")
        a.state()
        a.save("%s/%d" % (place, i), kind="diff")
    sizes = [on_disk("%s/%d/memory" % (place, i)) for i in range(CHAIN)]
    check("a difference has what was changed", sizes[1] >= 16 << 20 and sizes[3] < 2 << 20, sizes)
    states = [run_state(run("%s/%d" % (place, i))) for i in range(CHAIN)]
    check("each of a chain of %d is restored" % CHAIN, states == [(nonce, n, n + 1) for n in (1, 2, 3, 3, 4, 5, 6, 7)], states)
    e = refused(c, "vm.snapshot", id="a", path=place + "/8", kind="diff")
    check("a longer chain is refused", "builds on" in e.get("message", "") and not os.path.exists(place + "/8"), e)
    a.save(place + "/8", kind="diff", base=place + "/0")
    check("a base that is named", run_state(run(place + "/8")) == (nonce, 7, 8))
    b = Guest(c, "b", **restored(place + "/1"))
    b.count()
    b.save(place + "/b", kind="diff")
    with open(place + "/b/machine.json", encoding="ascii") as f:
        base = json.load(f)["base"]["path"]
    check("a restored VM's builds on what it was restored from", base == place + "/1" and run_state(run(place + "/b")) == (nonce, 3, 4), base)
    os.rename(place + "/1", place + "/gone")
    r = run(place + "/2")
    check("what it builds on is gone: one line, status 2", one_line(r, place + "/1"), r)
    shutil.copytree(place + "/0", place + "/1")
    r = run(place + "/2")
    check("or is another one", one_line(r, "another one"), r)
    check("the first of the chain needs none of them", run_state(run(place + "/0")) == (nonce, 1, 2))
    for x in (a, b):
        x.end()


def case_live(d, place):
    """The guest writes to all of its memory all the while: what is in the snapshot is of one moment."""
    c = d.client()
    a = churning(c, "a")
    a.save(place + "/warm")
    for i in range(ROUNDS):
        path = "%s/%d" % (place, i)
        answer = a.save(path, **(dict(kind="diff", base=place + "/warm") if i % 2 else {}))
        check("live %d: the guest went on" % i, answer["live"] or not os.access("/dev/userfaultfd", os.R_OK), answer)
        r = run(path, keys="cvq")
        good = "ok churn" in r.stdout and "ok memory" in r.stdout and "not ok" not in r.stdout and not r.returncode
        check("live %d: all of it is of one moment" % i, good, r)
        shutil.rmtree(path)
    check("live: and so is the source's", still_churns(a) and a.state()[2])
    a.end()


def churning(c, name):
    """A guest that writes to all of its memory all the while."""
    g = Guest(c, name, **snap())
    g.until("nonce .*")
    g.ask("c", "churn")
    return g


def still_churns(a):
    """A guest that waits for ever for a page does not answer."""
    return a.ask("c", r"((?:not )?ok churn)[^\n]*?")[1] == "ok churn"


def save_and_pager(d, a, path, supervisor):
    """Whoever is slow to look finds that all is done: then once more."""
    for _ in range(5):
        save = Save(d, a.name, path)
        pager = child_soon(supervisor, "insula-pager", 10)
        if pager:
            return save, pager
        if not save.over() or not save.result:
            break
        shutil.rmtree(path)
    raise AssertionError("insula-pager was not seen: %r" % (save.error or save.result,))


def case_live_ends(d, place):
    """What ends a snapshot while the guest waits for it lets the guest go."""
    c, small, i = d.client(), place + "/small", 0
    os.mkdir(small)

    def copying(path):
        """It writes, so the guest goes on."""
        with contextlib.suppress(OSError):
            return os.stat("%s/.%s.part/memory" % os.path.split(path)).st_blocks > 0
        return False

    for victim in ["insula-pager", "insula-rng"] * max(2, ROUNDS // 4):
        i += 1
        a, path = churning(c, "k%d" % i), "%s/%d" % (place, i)
        of = pids(c.call("vm.info", id=a.name))
        save, pager = save_and_pager(d, a, path, of["supervisor"])
        while not copying(path) and not gone(pager):
            pass
        shoot(pager if victim == "insula-pager" else of[victim])
        check("live: %s is killed in the copy: an answer" % victim, save.over(), save.error)
        check("live: and the guest goes on", still_churns(a), save.error)
        good = run(path, keys="cq").returncode == 0 if save.result else nothing_left(place, "small")
        check("live: nothing is left, or all of it", good, (save.result, os.listdir(place)))
        shutil.rmtree(path, ignore_errors=True)
        a.end()
    a = churning(c, "stop")
    save = Save(d, "stop", place + "/s")
    wait_for(lambda: copying(place + "/s") or not save.is_alive())
    e = c.call("vm.stop", id="stop", deadline_ms=1000)
    check("live: a VM that is stopped in the copy ends", e["reason"] in ("stopped", "killed") and save.over(), e)
    a.end()
    shutil.rmtree(place + "/s", ignore_errors=True)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "insula-test", small], capture_output=True, check=False).returncode:
        print("skip snapshot: a full disk while the guest goes on - tmpfs cannot be mounted here")
        return
    try:
        a = churning(c, "full")
        e = refused(c, "vm.snapshot", id="full", path=small + "/s")
        check("live: a full disk: refused, with its reason", e["code"] == -32005 and "No space" in e["message"], e)
        check("live: a full disk: the guest goes on", still_churns(a))
        a.end()
    finally:
        subprocess.run(["umount", small], check=False)


def case_refused(d, place):
    """What cannot be: one line, and status 2 before anything runs."""
    c = d.client()
    disk = make_disk(place + "/disk.img")
    a, s = source(c, disks=[disk])[0], place + "/s"
    e = refused(c, "vm.snapshot", id="a", path="relative")
    check("a relative path", e["code"] == -32602 and e["data"].get("field") == "path", e)
    for what, path in (("that is there", place), ("below none", place + "/no/where"), ("that is none", "/"), ("with dots", place + "/..")):
        e = refused(c, "vm.snapshot", id="a", path=path)
        check("a path %s is refused" % what, e["code"] in (-32602, -32005) and "path" in e["message"], e)
    e = refused(c, "vm.snapshot", id="a", path=s, base=s, kind="full")
    check("a base without a difference", e["code"] == -32602 and e["data"].get("field") == "base", e)
    e = refused(c, "vm.snapshot", id="a", path=s, base=place + "/none")
    check("a base that is not there", e["code"] in (-32602, -32005) and place + "/none" in e["message"], e)
    check("nothing is left of these", nothing_left(place, "disk.img"), os.listdir(place))
    env = dict(os.environ, INSULA_SOCKET=d.socket)

    def ctl(*args, **more):
        return subprocess.run([BIN + "insulactl", *args], env=env, capture_output=True, text=True, timeout=PATIENCE + 30, check=False, **more)

    r = ctl("snapshot", "a", "s", cwd=place)
    check("insulactl snapshot with a relative path", r.returncode == 0 and sorted(os.listdir(s)) == FILES, r)
    r = ctl("snapshot", "a", s)
    check("insulactl snapshot: there is one of that name", r.returncode not in (0, 125) and "exists" in r.stderr and r.stderr.count("\n") == 1, r)
    check("it is as it was", sorted(os.listdir(s)) == FILES, os.listdir(s))
    os.symlink(s, place + "/link")
    r = ctl("snapshot", "a", place + "/link")
    check("nor a symbolic link's", r.returncode != 0 and "exists" in r.stderr, r)
    os.unlink(place + "/link")
    other = place + "/other.img"
    shutil.copy(disk, other)
    small = make_disk(place + "/small.img", 4 << 20)
    a.end()
    for args, words in [
            (["--cpus", "2"], ["--cpus", "1, as the snapshot"]), (["--mem", "128M"], ["--mem", "64M, as the snapshot"]),
            (["--kernel", BUILD + "/guests/snap.elf"], ["--kernel", "none with --restore"]), (["--initrd", "/dev/null"], ["--initrd"]),
            (["--sgx", "64M"], ["--sgx: expected none with --restore"]),
            (["--append", "x"], ["--append"]), (["--rng", "off"], ["device"]), (["--disk", disk, "--disk", other], ["device"]),
            (["--vsock", place + "/v"], ["device"]), (["--hostname", "x"], ["--hostname", "none", "no agent"]),
            (["--identity", "other"], ["--identity", "new or kept"]), (["--console", "virtio,stdio"], ["device"]), (["--disk", place + "/nope.img"], ["nope.img"]),
            (["--", "true"], ["command"])]:
        r = run(s, *args)
        check("--restore with %s: one line, status 2" % " ".join(args[:2]).replace(place, "").replace(BUILD, ""), one_line(r, *words), r)
    check("and the snapshot is whole", whole(s) is True, whole(s))
    r = run(s, "--disk", small)
    check("a disk of another size: one line, status 2", one_line(r, "4194304", "8388608"), r)
    check("--cpus and --mem as they are", run_state(run(s, "--cpus", "1", "--mem", "64M")) is not None)
    check("another disk, a copy", run_state(run(s, "--disk", other)) is not None)
    for what in ("/nonexistent", disk, place):
        r = run(what)
        check("--restore %s: one line, status 2" % what.replace(place, ""), one_line(r, what), r)
    e = refused(c, "vm.run", config=dict(restore=s, mem=128 << 20, cpus=1))
    check("insulad has counted another size", e.get("code") == -32005 and "--mem" in e["message"], e)
    e = refused(c, "vm.snapshot", id="a", path=place + "/x")
    check("a VM that has ended", e["code"] in (-32001, -32003), e)


def machine(path):
    with open(path + "/machine.json", encoding="ascii") as f:
        return json.load(f)


def case_bus(d, place):
    """A device is on the bus that it was on, whatever is said of it."""
    c = d.client()
    disk, s, t = make_disk(place + "/disk.img"), place + "/s", place + "/t"
    other = make_disk(place + "/other.img")
    a = source(c, disks=[dict(path=disk, bus="pci")])[0]
    a.save(s)
    a.end()
    check("and in machine.json", machine(s)["format"] == 2 and machine(s)["pci"] == ["vda"], machine(s))
    r = run(s, "--metrics", place + "/m")
    check("it goes on", run_state(r) is not None, r)
    with open(place + "/m", encoding="ascii") as f:
        m = json.load(f)["devices"]
    check("which bus: in the metrics", [x.get("bus") for x in m] == [None, "pci", None], m)
    for what, args in (("unsaid, for another disk", ["--disk", other]), ("said again", ["--disk", other + ",bus=pci"]),
                       ("MMIO for those that are there", ["--bus", "mmio"])):
        r = run(s, *args)
        check("bus: %s" % what, run_state(r) is not None, r)
    for args, words in ((["--disk", disk + ",bus=mmio"], "vda: bus=mmio; expected pci, as the snapshot has"),
                        (["--disk", disk, "--bus", "mmio"], "vda: bus=mmio; expected pci"), (["--bus", "pci"], "rng: bus=pci; expected mmio")):
        r = run(s, *args)
        check("bus: another one, %s: one line, status 2" % " ".join(args).replace(place, ""), one_line(r, words), r)
    b = Guest(c, "b", **restored(s, disks=[other]))
    b.save(t)
    b.end()
    check("a snapshot of what was restored", machine(t)["pci"] == ["vda"] and whole(t) is True, (machine(t), whole(t)))
    r = run(t, "--disk", other + ",bus=mmio")
    check("has it there, too", one_line(r, "vda: bus=mmio; expected pci"), r)
    with open(t + "/machine.json", "w", encoding="ascii") as f:
        json.dump(dict(machine(s), pci=["rng"]), f)
    r = run(t, "--disk", disk)
    check("another bus in machine.json: one line, status 2", one_line(r), r)
    a, u = source(c, disks=[disk])[0], place + "/u"
    a.save(u)
    a.end()
    check("without PCI it is what older releases read", machine(u)["format"] == 1 and "pci" not in machine(u), machine(u))
    for args, word in ((["--bus", "pci"], "vda: bus=pci; expected mmio"), (["--disk", disk + ",bus=pci"], "vda: bus=pci; expected mmio")):
        r = run(u, *args)
        check("bus: there was none, %s: one line, status 2" % args[0], one_line(r, word), r)


def damage(path, at, byte=None):
    with open(path, "r+b") as f:
        f.seek(at)
        old = f.read(1)
        f.seek(at)
        f.write(bytes([old[0] ^ 0x55 if byte is None else byte]))


def case_damaged(d, place):
    """Whoever changes a snapshot gets a refusal, or a VM that is his own."""
    c = d.client()
    disk = make_disk(place + "/disk.img")
    make_disk(place + "/secret")
    a, s = source(c, disks=[disk])[0], place + "/s"
    a.save(s)
    a.end()
    n = 0

    def copy():
        nonlocal n
        n += 1
        shutil.copytree(s, "%s/%d" % (place, n))
        return "%s/%d" % (place, n)

    for name, words in (("vmm", ["vmm", "damaged"]), ("devices", ["devices", "damaged"])):
        t = copy()
        damage(t + "/" + name, 100)
        r = run(t)
        check("a byte of %s: one line, status 2" % name, one_line(r, *words), r)
    t = copy()
    damage(t + "/memory", 0x2000000 + 5 * 65536 + 77)
    r = run(t)
    check("a byte of the memory: one line, and an end", r.returncode in (2, 125) and r.stderr.count("\n") == 1 and "damaged" in r.stderr, r)
    for name in FILES[:3] + ["vmm"]:
        t = copy()
        os.truncate(t + "/" + name, os.stat(t + "/" + name).st_size // 2)
        r = run(t)
        check("half of %s: one line, status 2" % name, one_line(r), r)
        os.unlink(t + "/" + name)
        r = run(t)
        check("no %s: one line, status 2" % name, one_line(r, name), r)
        os.symlink(s + "/" + name, t + "/" + name)
        r = run(t)
        check("a link for %s: one line, status 2" % name, one_line(r, name), r)
        os.unlink(t + "/" + name)
        os.mkfifo(t + "/" + name)
        r = run(t)
        check("a pipe for %s: one line, status 2" % name, one_line(r, name), r)
    t = copy()
    with open(t + "/machine.json", encoding="ascii") as f:
        text = f.read()
    assert disk.replace("/", "\\/") in text or disk in text
    with open(t + "/machine.json", "w", encoding="ascii") as f:
        f.write(text.replace("disk.img", "secret"))
    r = run(t)
    check("another disk in machine.json is not opened: no seal", one_line(r, "was not made by this user", "--disk"), r)
    check("with --disk it goes on", run_state(run(t, "--disk", disk)) is not None)
    for change, word in ((('"format":', '"format": 99, "was":'), "format"), (('"cpus":', '"cpus": 99, "was":'), "cpus"), (('"mem":', '"mem": 4097, "was":'), "mem")):
        t = copy()
        with open(t + "/machine.json", "w", encoding="ascii") as f:
            f.write(text.replace(*change, 1))
        r = run(t)
        check("another %s in machine.json: one line, status 2" % word, one_line(r, word), r)
    # Another user, or another host: there was another key.
    t = copy()
    with open(t + "/seal", "w", encoding="ascii") as f:
        f.write("0123456789abcdef" * 4)
    r = run(t)
    check("another key: the disk is not opened", one_line(r, "was not made by this user", "--disk"), r)
    check("with --disk it goes on all the same", run_state(run(t, "--disk", disk)) is not None)
    if os.geteuid() == 0:
        env = dict(os.environ, HOME=place + "/home", XDG_CACHE_HOME=place + "/home/.cache")
        os.makedirs(env["XDG_CACHE_HOME"], mode=0o700)
        check("a root with a home knows what root's insulad has made", run_state(run(s, env=env)) is not None)
    check("with the right key nothing has to be said", run_state(run(s)) is not None, run(s))


def case_stored(_, place):
    """What earlier releases have written, and this one goes on from: stored.tar.xz has a directory of each. Its guest is snap.c, which had
    counted to 3; the processor was an x86-64 one of Intel or AMD, and this machine may lack what that had."""
    here = os.path.dirname(os.path.abspath(__file__))
    subprocess.run(["tar", "-C", place, "-xJf", here + "/stored.tar.xz", "--no-same-owner"], check=True)
    for release in sorted(os.listdir(place)):
        r = run("%s/%s" % (place, release))
        if r.returncode and "processor" in r.stderr:
            print("skip snapshot: one of %s - %s" % (release, r.stderr.strip()))
            continue
        m = run_state(r)
        check("one of %s goes on" % release, m is not None and m[1:] == (3, 4), r)


def case_full(d, place):
    """No room: refused, nothing left, the VM goes on."""
    c, small = d.client(), place + "/small"
    os.mkdir(small)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4M", "insula-test", small], capture_output=True, check=False).returncode:
        print("skip snapshot: a full disk - tmpfs cannot be mounted here")
        return
    try:
        a, (nonce, _, _) = source(c, counted=1)
        e = refused(c, "vm.snapshot", id="a", path=small + "/s")
        check("a full disk: refused, with its reason", e["code"] == -32005 and "No space" in e["message"], e)
        check("a full disk: nothing is left", nothing_left(small), os.listdir(small))
        check("a full disk: the VM goes on", a.count() == (nonce, 2, True) and c.call("vm.info", id="a")["state"] == "running")
        a.save(place + "/s")
        check("elsewhere it works, then", run_state(run(place + "/s")) == (nonce, 2, 3))
        a.end()
    finally:
        subprocess.run(["umount", small], check=False)


# ---- disks


def case_clone(d, place):
    """Clones of one that runs: they have what it had, differ from then on, and leave nothing behind."""
    c = d.client()
    g, before = source(c, "source", 3)
    vms = c.call("vm.clone", id="source", name="copy", count=3, place=place)["vms"]
    check("clone: all run", [v["state"] for v in vms] == ["running"] * 3 and [v["name"] for v in vms] == ["copy-1", "copy-2", "copy-3"], vms)
    check("clone: nothing is left of the snapshot", nothing_left(place), os.listdir(place))
    check("clone: the source is as it was", g.state() == before and before[2], (g.state(), before))
    for i, v in enumerate(vms):
        copy = Guest(c, v["id"], sock=console(c, v["id"]))
        check("clone %d has what the source had" % i, copy.state() == before, before)
        after = copy.count(i + 1)
        check("clone %d goes its own way" % i, after == (before[0], 3 + i + 1, True), after)
        said = json.dumps(c.call("vm.logs", id=v["id"]))
        check("clone %d: its log says that nobody tells the guest" % i, "the guest has no agent: it keeps its host name" in said, said)
        copy.end()
    check("clone: the source hears nothing of it", g.count() == (before[0], 4, True))
    e = refused(c, "vm.clone", id="source", name="source", place=place)
    check("clone: a name that is taken", e["code"] == -32002 and nothing_left(place), (e, os.listdir(place)))
    e = refused(c, "vm.clone", id="source", place="/nowhere")
    check("clone: no such place", e["code"] == -32005 and "/nowhere" in e["message"], e)
    e = refused(c, "vm.clone", id="source", place="there")
    check("clone: a relative place", e["code"] == -32602 and e["data"]["field"] == "place", e)
    check("clone: the source goes on", g.count() == (before[0], 5, True))
    g.end()
    disk = make_disk(place + "/disk.img")
    c.call("vm.run", name="source", config=snap(disks=[disk]))
    e = refused(c, "vm.clone", id="source", count=2, place=place)
    check("clone: a disk that the source writes to is refused, in words", e["code"] == -32005 and disk in e["message"], e)
    check("clone: and none of them is there", wait_for(lambda: [v["name"] for v in c.call("vm.list")["vms"]] == ["source"]), c.call("vm.list"))
    c.call("vm.kill", id="source")
    c.call("vm.run", name="source", config=snap(disks=["path=%s,ro" % disk]))
    vms = c.call("vm.clone", id="source", count=2, place=place)["vms"]
    check("clone: a disk that all of them read is no matter", [v["state"] for v in vms] == ["running"] * 2, vms)
    check("clone: nothing else is left", nothing_left(place, "disk.img"), os.listdir(place))


def case_many(d, place):
    """As many disks as there can be: each of their processes gives insula-pager a descriptor."""
    c = d.client()
    for i in range(31):
        make_disk("%s/%d" % (place, i))
    g, before = source(c, "many", 2, disks=["%s/%d,ro" % (place, i) for i in range(31)])
    g.save(place + "/s")
    g.end()
    after = run_state(run(place + "/s"))
    check("31 disks: saved and restored", after == (before[0], 2, 3), after)


def case_pci(d, place):
    """A VM with PCI: where its BARs are, its MSI-X tables and interrupts that are held back go with it."""
    c = d.client()
    disk = place + "/disk.img"
    with open(disk, "wb") as f:
        f.write(b"".ljust(4096) + b"the second page".ljust(1 << 20))

    def as_it_was(g):
        said = g.ask("v", r"([\s\S]*?)armed")[1]
        return said.count("ok ") == 3 and "not ok" not in said or said

    g = Guest(c, "p", kernel=BUILD + "/guests/pcisnap.elf", mem=MEM, cpus=2, bus="pci", rng="on", disks=["path=%s,ro" % disk])
    g.until("armed")
    for i in range(2):
        path = "%s/%d" % (place, i)
        g.save(path)
        said = as_it_was(g)
        check("pci: the source of snapshot %d goes on as it was" % i, said is True, said)
        r = run(path, keys="vivq")
        good = r.returncode == 0 and r.stdout.count("ok state") == r.stdout.count("ok delivered") == 2 and "not ok" not in r.stdout
        check("pci: snapshot %d: all is as it was" % i, good and r.stdout.count("ok works") == 3, r)
    b = Guest(c, "b", restore=path, mem=MEM, cpus=2)
    b.save(place + "/again")
    b.sock.sendall(b"i")
    b.until("ok works")
    said = as_it_was(b)
    check("pci: insulad restores it", said is True, said)
    r = run(place + "/again", keys="vq")
    check("pci: a snapshot of a restored one", r.returncode == 0 and "ok state" in r.stdout and "not ok" not in r.stdout, r)
    vms = c.call("vm.clone", id="p", name="copy", count=2, place=place)["vms"]
    for i, v in enumerate(vms):
        copy = Guest(c, v["id"], sock=console(c, v["id"]))
        said = as_it_was(copy)
        check("pci: clone %d" % i, said is True, said)
        copy.end()
    said = as_it_was(g)
    check("pci: the source goes on", said is True, said)
    r = run(path, "--bus", "mmio", keys="q")
    check("pci: a restore on the other bus is refused", one_line(r, "bus"), r)
    for x in (g, b):
        x.end()


def case_stop(d, place):
    """A VM that is stopped while a snapshot waits for a helper: there is none, and the VM ends."""
    c = d.client()
    g, _ = source(c, "s")
    rng = pids(c.call("vm.info", id=g.name))["insula-rng"]
    freeze(rng)
    save = Save(d, g.name, place + "/s")
    check("stop: the snapshot waits for the helper", wait_for(lambda: os.listdir(place) == [".s.part"]), os.listdir(place))
    threading.Timer(1.0, lambda: os.kill(rng, signal.SIGCONT)).start()
    e = c.call("vm.stop", id=g.name, deadline_ms=1000)
    check("stop: the VM ends", e["reason"] == "stopped", e)
    check("stop: the snapshot is taken back", save.over() and isinstance(save.error, RuntimeError) and nothing_left(place),
          (save.error, os.listdir(place)))


def finish(g):
    """A payload that ends when somebody types: has it found anything wrong?"""
    g.sock.sendall(b"x")
    said = g.until(r"(rounds \d+ of[^\n]*?)")[1]
    r = g.c.call("vm.wait", id=g.name)
    return r["status"] == 0 and r["reason"] == "status", (said, r)


def case_disk(d, place):
    """A disk under load: no request is lost or answered twice, and each byte is right."""
    c = d.client()
    disk = make_disk(place + "/disk.img")
    load = dict(kernel=BUILD + "/guests/blkloop.elf", mem=16 << 20, cpus=2, disks=[disk], append="seconds=3600")
    a = Guest(c, "a", keep=True, **load)
    a.until("looping")
    for i in range(ROUNDS):
        time.sleep(random.random() * 0.1)
        a.save("%s/%d" % (place, i))
        shutil.rmtree("%s/%d" % (place, i))
    good, said = finish(a)
    check("a disk under load, saved %d times: all is right" % ROUNDS, good, said)
    a.end()
    a = Guest(c, "0", keep=True, **load)
    a.until("looping")
    for i in range(ROUNDS):
        time.sleep(random.random() * 0.2)
        a.save("%s/%d" % (place, i), keep_running=False)
        c.call("vm.wait", id=a.name)
        a.end()
        a = Guest(c, str(i + 1), keep=True, restore="%s/%d" % (place, i), mem=16 << 20, cpus=2)
        if wait_for(lambda: c.call("vm.info", id=a.name)["state"] == "running", 30):
            shutil.rmtree("%s/%d" % (place, i))
    good, said = finish(a)
    check("a disk under load, saved and restored %d times: all is right" % ROUNDS, good, said)
    a.end()
    a = Guest(c, "a", keep=True, **load)
    a.until("looping")
    c.call("vm.pause", id="a")
    a.save(place + "/p")
    shutil.copy(disk, place + "/copy.img")
    c.call("vm.resume", id="a")
    b = Guest(c, "b", keep=True, restore=place + "/p", mem=16 << 20, cpus=2, disks=[place + "/copy.img"])
    time.sleep(0.3)
    for g, what in ((b, "a restored one with a copy of the disk"), (a, "its source, beside it")):
        good, said = finish(g)
        check(what + ": all is right", good, said)
        g.end()


# ---- kills


def pids(info):
    """{what: pid} of a VM's processes"""
    found = {"supervisor": info["pid"]}
    for p in info["processes"]:
        found.setdefault(p["name"].split()[0], p["pid"])
    return found


def shoot(pid):
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)


def child(pid, program):
    """A child of this process with this program; None: there is none."""
    for p in children(pid):
        with contextlib.suppress(OSError), open("/proc/%d/cmdline" % p, "rb") as f:
            if f.read().startswith(program.encode() + b"\0"):
                return p
    return None


def child_soon(pid, program, seconds):
    """The same as soon as there is one; it may be gone again soon."""
    end = time.monotonic() + seconds * SLOW
    while not (found := child(pid, program)) and not gone(pid) and time.monotonic() < end:
        pass
    return found


class Save(threading.Thread):
    """vm.snapshot in a thread: result, or error."""

    def __init__(self, d, name, path):
        super().__init__()
        self.c, self.name_, self.path, self.result, self.error = d.client(), name, path, None, None
        self.c.sock.settimeout(PATIENCE * 2)
        self.start()

    def run(self):
        try:
            self.result = self.c.call("vm.snapshot", id=self.name_, path=self.path)
        except Exception as e:  # noqa: BLE001  whatever it is, it is told
            self.error = e

    def over(self):
        self.join(PATIENCE * 2)
        return not self.is_alive()


def killed_saving(d, place, victim, nth, tries=4):
    """One round; a reason, or '' """
    c = d.client()
    a, (nonce, _, _) = source(c, "k", 1, keep=True)
    path = place + "/k"
    info = c.call("vm.info", id="k")
    of, before = pids(info), time.monotonic()
    save = Save(d, "k", path)
    pager = child_soon(of["supervisor"], "insula-pager", 30)
    time.sleep(random.random() * 0.03 * nth)
    pid = {"insula-pager": pager, "insulad": d.proc.pid}.get(victim) or of.get(victim)
    if not pid and tries and save.over():
        # On a busy machine it had ended before we looked.
        a.end()
        shutil.rmtree(path)
        return killed_saving(d, place, victim, nth, tries - 1)
    if not pid:
        return "no process %s" % victim
    shoot(pid)
    if victim == "insulad":
        d.proc.wait()
        d.start()
        c = a.c = d.client()
    if not save.over():
        return "vm.snapshot has no answer after %.0f s" % (time.monotonic() - before)
    if victim in ("insula-vmm", "supervisor"):
        if not wait_for(lambda: c.call("vm.info", id="k")["state"] == "ended", 30):
            return "the VM has not ended"
        if not wait_for(lambda: all(map(gone, vm_processes(info) + ([pager] if pager else []))), 10):
            return "processes are left"
    else:
        if victim == "insulad" and not wait_for(lambda: pager is None or gone(pager), 30):
            return "insula-pager is left"
        if a.state() != (nonce, 1, True) or a.count() != (nonce, 2, True):
            return "the guest is not as it was"
        if c.call("vm.info", id="k")["state"] != "running":
            return "the VM is %s" % c.call("vm.info", id="k")["state"]
    if save.result and not os.path.exists(path):
        return "answered, and there is no snapshot"
    if os.path.exists(path) and whole(path) is not True:
        return "half a snapshot has the name of a whole one: %s" % whole(path)
    left = [x for x in os.listdir(place) if x != "k"]
    if left and victim != "supervisor":
        return "left: %s" % left
    shutil.rmtree(path, ignore_errors=True)
    if victim in ("insula-vmm", "supervisor"):
        a.end()
        a, _ = source(c, "k", keep=True)
    if not wait_for(lambda: saved_by_all(a, path), 30):
        return "a helper does not come back"
    if whole(path) is not True or not nothing_left(place, "k"):
        return "the next one: %s, %s" % (whole(path), os.listdir(place))
    shutil.rmtree(path)
    a.end()
    return ""


def case_answered_at_its_end(d, place):
    """A VM that ends with its snapshot: insulad finds the answer and the death of the process at once."""
    c = d.client()
    a, _ = source(c)
    pid = a.info["pid"]
    freeze(pid)
    c.ids += 1
    asked = c.ids
    request = dict(jsonrpc="2.0", id=asked, method="vm.snapshot", params=dict(id="a", path=place + "/s", keep_running=False))
    c.sock.sendall(json.dumps(request).encode() + b"\n")
    c.call("daemon.info")  # the supervisor has been asked by now
    freeze(d.proc.pid)
    os.kill(pid, signal.SIGCONT)
    ended = wait_for(lambda: gone(pid), 60)
    d.proc.send_signal(signal.SIGCONT)
    while (answer := c.line()).get("id") != asked:
        pass
    check("the answer comes before the end", ended and answer.get("result", {}).get("state") and whole(place + "/s") is True, (ended, answer))


def saved_by_all(a, path):
    """Not while one that was killed is not there again: the more often, the longer it takes."""
    try:
        a.save(path)
    except RuntimeError as e:
        if "has no helper at the moment" in str(e):
            return False
        raise
    return True


def case_kills_saving(d, place):
    for victim in ("insula-pager", "insula-console", "insula-rng", "insula-vmm", "supervisor", "insulad"):
        why = next((w for i in range(KILLS) if (w := killed_saving(d, place, victim, i))), "")
        check("kill -9 of %s during a snapshot, %d times" % (victim, KILLS), not why, why)


def killed_restoring(s, victim, nth):
    # pylint: disable=consider-using-with
    p = subprocess.Popen([BIN + "insula-run", "--restore", s, "--timeout", str(PATIENCE)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=ENV)
    seen, pid, end = set(), None, time.monotonic() + (0.05 if victim == "supervisor" else 1) * SLOW
    while not pid and time.monotonic() < end and p.poll() is None:
        pid = child(p.pid, victim)
        seen.update(children(p.pid))
    time.sleep(random.random() * 0.02 * nth)
    if victim == "supervisor":
        p.kill()
    elif pid:
        shoot(pid)
        wait_for(lambda: gone(pid), 30)  # a dying reader may take what is typed with it
    try:
        out, err = p.communicate("?v+?vq", timeout=PATIENCE * 2)
    except subprocess.TimeoutExpired:
        p.kill()
        return "it hangs: %s" % (p.communicate(),)
    if not wait_for(lambda: all(map(gone, seen)), 10):
        return "processes are left"
    r = subprocess.CompletedProcess("", p.returncode, out, err)
    if victim == "supervisor":
        return "" if p.returncode == -9 else str(r)
    if p.returncode == 0:
        return "" if run_state(r) else "it went on, not as it was: %s" % r
    return "" if p.returncode == 125 and err.startswith("insula-run: ") else str(r)


def case_kills_restoring(d, place):
    a, s = source(d.client())[0], place + "/s"
    a.save(s)
    a.end()
    for victim in ("insula-pager", "insula-console", "insula-rng", "insula-vmm", "supervisor"):
        why = next((w for i in range(KILLS) if (w := killed_restoring(s, victim, i))), "")
        check("kill -9 of %s during a restore, %d times" % (victim, KILLS), not why, why)
    check("the snapshot is as it was", whole(s) is True, whole(s))


if __name__ == "__main__":
    run_cases(sys.modules[__name__])
