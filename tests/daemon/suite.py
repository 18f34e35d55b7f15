#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""insulad with real VMs. One line per case: ok, not ok, skip. Names as arguments choose cases."""
import array
import errno
import fcntl
import grp
import json
import os
import pwd
import random
import re
import resource
import shutil
import signal
import socket
import stat
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "../../docs/examples"))
from insulad_client import Insulad  # noqa: E402  the client of the documentation is the client of the test
import schema  # noqa: E402

BUILD = os.environ["BUILD"]
BIN = BUILD + "/bin/"
ONE = len(os.sched_getaffinity(0)) == 1
VMS = int(os.environ.get("DAEMON_VMS", 40 if ONE else 200))
CHURN = int(os.environ.get("DAEMON_CHURN", 60 if ONE else 200))
KILLS = int(os.environ.get("DAEMON_KILLS", 5))
SLOW = 5 if ONE else 1  # the lab emulates its processor
with open(BIN + "insulad", "rb") as _f:
    SAN = b"__asan_init" in _f.read()  # memory is not what it is otherwise
suite = "daemon"  # the name in its lines: another one may use what is here
failed = 0


def check(name, truth, detail=""):
    global failed
    if truth:
        print("ok %s: %s" % (suite, name))
    else:
        failed = 1
        print("not ok %s: %s - %s" % (suite, name, str(detail)[:600].replace("\n", " | ")))


def wait_for(what, seconds=20):
    end = time.monotonic() + seconds * SLOW
    while time.monotonic() < end:
        if what():
            return True
        time.sleep(0.01)
    return False


def gone(pid):
    """With all of its threads: after a SIGKILL the first one may have ended while another still takes what it waits for."""
    try:
        with open("/proc/%d/stat" % pid) as f:
            return f.read().rsplit(")", 1)[1].split()[0] in "ZX" and len(os.listdir("/proc/%d/task" % pid)) < 2
    except OSError:
        return True


def freeze(pid):
    """Each of its threads has stopped: a signal that was sent is not there yet."""
    def stands(task):
        with open("/proc/%d/task/%s/stat" % (pid, task)) as f:
            return f.read().rsplit(")", 1)[1].split()[0] == "T"
    os.kill(pid, signal.SIGSTOP)
    assert wait_for(lambda: all(stands(t) for t in os.listdir("/proc/%d/task" % pid)))


def children(pid):
    found = []
    try:
        for task in os.listdir("/proc/%d/task" % pid):
            with open("/proc/%d/task/%s/children" % (pid, task)) as f:
                found += [int(p) for p in f.read().split()]
    except OSError:
        pass
    return found


class Daemon:
    """One insulad with its own state directory and socket."""

    def __init__(self, nofile=0, uid=0, out=None, **more):
        self.nofile, self.uid, self.out = nofile, uid, out
        self.dir = tempfile.mkdtemp(prefix="daemon.", dir=os.environ.get("TMPDIR", "/tmp"))
        os.chmod(self.dir, 0o755)
        if uid:
            os.chown(self.dir, uid, uid)
        self.socket = self.dir + "/s"
        self.state = self.dir + "/state"
        self.state = more.get("state_dir", self.state)
        self.conf = dict(dict(socket=self.socket, state_dir=self.state, socket_mode="0666", cgroup="off",
                              overcommit_percent=1000, limits=dict(vms=2000, vcpus=2000, memory="64G")), **more)
        self.proc = None
        self.write()
        self.start()

    def write(self):
        with open(self.dir + "/conf", "w") as f:
            json.dump(self.conf, f)

    def start(self):
        self.log = self.out or open(self.dir + "/log", "a")
        self.proc = subprocess.Popen([BIN + "insulad", "--config", self.dir + "/conf"], stdin=subprocess.DEVNULL,
                                     stdout=self.log, stderr=self.log, preexec_fn=self.prepare)
        assert wait_for(self.answers, 20), self.said()

    def prepare(self):
        if self.nofile:
            resource.setrlimit(resource.RLIMIT_NOFILE, (self.nofile, self.nofile))
        if self.uid:
            os.setgroups([os.stat("/dev/kvm").st_gid])
            os.setgid(self.uid)
            os.setuid(self.uid)

    def answers(self):
        try:
            c = Insulad(self.socket)
            c.sock.settimeout(2 * SLOW)  # one that was killed may still have its socket for a moment
            return c.call("daemon.info")["pid"] == self.proc.pid
        except (OSError, ConnectionError):
            return False

    def said(self):
        with open(self.dir + "/log") as f:
            return f.read()[-400:]

    def client(self):
        return Insulad(self.socket)

    def kill(self):
        self.proc.kill()
        self.proc.wait()

    def restart(self):
        self.kill()
        self.start()

    def stop(self):
        c = self.client()
        for v in c.call("vm.list")["vms"]:
            try:
                if v["state"] not in ("created", "ended"):
                    c.call("vm.kill", id=v["id"])
            except RuntimeError:
                pass
        self.proc.terminate()
        status = self.proc.wait(20)
        self.log.close()
        shutil.rmtree(self.dir, ignore_errors=True)
        return status


def guest(name, **more):
    return dict(kernel="%s/guests/%s.elf" % (BUILD, name), mem="16M", **more)


def refused(c, method, **params):
    try:
        c.call(method, **params)
    except RuntimeError as e:
        return e.args[0]
    return {"code": 0, "data": {}}


def vm_processes(info):
    return [info["pid"]] + [p["pid"] for p in info["processes"]]


# What the methods need beside the VM.
EXEC_PARAMS = {"vm.exec": {"command": ["true"]}, "vm.exec.signal": {"exec": 1, "signal": 15}, "vm.exec.resize": {"exec": 1, "rows": 1, "cols": 1},
               "vm.exec.wait": {"exec": 1}, "vm.device.restart": {"device": "com1"}, "vm.net.policy": {"device": "com1"},
               "vm.limits": {"device": "com1"}, "vm.balloon": {"target": 16 << 20}, "vm.resize": {"mem": 16 << 20},
               "vm.device.add": {"config": {"disk": "/nowhere/image"}}, "vm.device.remove": {"device": "disk1"},
               "vm.metadata.set": {"metadata": {}}, "vm.metadata.patch": {"metadata": {}},
               "vm.snapshot": {"path": "/nowhere/snapshot"}, "vm.clone": {"count": 1}}


# ---- cases


def case_life(d):
    c = d.client()
    r = c.call("vm.run", config=guest("hello"), wait=True)
    check("vm.run with wait answers with the guest's status", (r["reason"], r["status"]) == ("status", 42), r)
    check("and is gone afterwards", c.call("vm.list")["vms"] == [] and os.listdir(d.state + "/vm") == [], c.call("vm.list"))
    a = c.call("vm.create", name="one", config=guest("spin"))
    b = c.call("vm.create", name="one", config=guest("spin"))
    check("vm.create is idempotent by name", a["id"] == b["id"] and b["existed"], b)
    e = refused(c, "vm.create", name="one", config=guest("hello"))
    check("another configuration of that name is refused", e["code"] == -32002 and e["data"]["reason"] == "exists", e)
    check("vm.start", c.call("vm.start", id="one")["state"] == "running")
    e = refused(c, "vm.start", id="one")
    check("a second start is refused", e["data"] == {"reason": "wrong-state", "field": "state", "value": "running", "expected": "created or ended"}, e)
    e = refused(c, "vm.delete", id="one")
    check("a running VM is not deleted", e["code"] == -32003, e)

    def cpu():
        return c.call("vm.metrics", id="one")["cpu_ns"]

    # How long this machine, which may be busy, takes to give it 300 ms: so long it is watched while it is paused.
    x, start = cpu(), time.monotonic()
    while (ran := cpu() - x) < 300e6 and time.monotonic() - start < 30:
        time.sleep(0.2)
    seconds = time.monotonic() - start
    check("a running guest uses the processor", ran >= 300e6, ran)
    check("vm.pause", c.call("vm.pause", id="one")["state"] == "paused")
    x = cpu()
    time.sleep(seconds)
    used = cpu() - x
    check("a paused guest uses no processor", used < 100e6, "%.0f ms in %.1f s, %.0f ms when it ran" % (used / 1e6, seconds, ran / 1e6))
    e = refused(c, "vm.resume", id="one", set_clock=True)
    check("nobody in a payload sets its clock, and it stays paused", e["data"]["reason"] == "no-agent" and c.call("vm.info", id="one")["state"] == "paused", e)
    check("vm.resume", c.call("vm.resume", id="one")["state"] == "running")
    x = cpu()
    check("a resumed guest does", wait_for(lambda: cpu() - x > 50e6), cpu() - x)
    info = c.call("vm.info", id="one")
    names = sorted(p["name"].split()[0] for p in info["processes"])
    check("vm.info names its processes", "insula-vmm" in names and "insula-console" in names, names)
    r = c.call("vm.stop", id="one")
    check("vm.stop answers with the end", r["reason"] == "stopped", r)
    check("all processes are gone", wait_for(lambda: all(map(gone, vm_processes(info))), 1))
    check("vm.wait of an ended VM answers at once", c.call("vm.wait", id="one")["reason"] == "stopped")
    check("vm.info keeps the result", c.call("vm.info", id="one")["result"]["reason"] == "stopped")
    c.call("vm.start", id="one")
    c.call("vm.pause", id="one")
    r = c.call("vm.kill", id="one")
    check("vm.kill, and of a paused VM", r["reason"] == "killed" and r["status"] == 137, r)
    check("vm.delete", c.call("vm.delete", id="one") == {} and c.call("vm.list")["vms"] == [])
    e = refused(c, "vm.info", id="one")
    check("then it is not found", e["code"] == -32001 and e["data"]["field"] == "id", e)


def case_ends(d):
    c = d.client()
    for name, reason, status in [("hello", "status", 42), ("poweroff", "poweroff", 0), ("reboot", "reboot", 0), ("pvpanic", "guest-panic", 120),
                                 ("tfault", "triple-fault", 121)]:
        r = c.call("vm.run", config=guest(name), wait=True)
        check("reason of %s" % name, (r["reason"], r["status"]) == (reason, status), r)
    r = c.call("vm.run", config=guest("spin", timeout=1), wait=True)
    check("reason of a time limit", (r["reason"], r["status"]) == ("timeout", 124), r)
    r = c.call("vm.run", config=dict(kernel="/nonexistent"), wait=True)
    check("reason of a kernel that is not there", r["reason"] == "bad-input" and "/nonexistent" in r["message"], r)
    e = refused(c, "vm.run", config=dict(kernel="/nonexistent"))
    check("the same without wait: refused", e["data"]["reason"] == "start-failed" and "/nonexistent" in e["message"], e)
    check("none left", c.call("vm.list")["vms"] == [], c.call("vm.list"))


def case_hotplug(d):
    """Devices that come and go. This guest has no driver: it keeps what it is asked for, until that is taken by force."""
    c = d.client()
    c.call("events.subscribe")
    images = []
    for i in range(3):
        images.append("%s/hot%d.img" % (d.dir, i))
        with open(images[i], "wb") as f:
            f.truncate(1 << 20)
    sock = d.dir + "/card"
    c.call("vm.run", name="none", config=guest("spin"))
    e = refused(c, "vm.device.add", id="none", config=dict(disk=images[0]))
    check("hotplug: without slots", e["code"] == -32008 and e["data"]["reason"] == "no-hotplug" and "--hotplug" in e["message"], e)
    r = c.call("vm.device.list", id="none")
    check("hotplug: devices of such a VM", [(x["device"], x["kind"], x["place"], x["removable"]) for x in r["devices"]] ==
          [("com1", "console", "ports", False), ("rng", "rng", "mmio", False)] and (r["slots"], r["free"]) == (0, 0), r)
    c.call("vm.kill", id="none")
    # A guest that has switched its slots on, and keeps what it has when it is asked for it.
    r = c.call("vm.run", name="h", config=guest("plugloop", hotplug=2, append="slots=2 deaf=1"))
    check("hotplug: a VM with slots", r["state"] == "running" and
          wait_for(lambda: "ready" in [x["text"].strip() for x in c.call("vm.logs", id="h")["lines"]], 30), r)
    sup = c.call("vm.info", id="h")["pid"]
    fds = len(os.listdir("/proc/%d/fd" % sup))

    def names():
        return [p["name"] for p in c.call("vm.info", id="h")["processes"]]

    def listed():
        return {x["device"]: x for x in c.call("vm.device.list", id="h")["devices"]}

    def free():
        return c.call("vm.device.list", id="h")["free"]

    def events():
        c.call("daemon.info")
        return [(e["params"]["event"], e["params"].get("data", {}).get("device")) for e in c.events if e["params"]["name"] == "h"]

    before = names()
    r = c.call("vm.device.add", id="h", config=dict(disk=dict(path=images[0])))
    check("hotplug: vm.device.add", r == dict(device="disk1", kind="disk", place="01:00.0", removable=True, slot=1, state="ok", restarts=0), r)
    check("hotplug: it has a process", "insula-blk disk1" in names(), names())
    check("hotplug: it is listed", "disk1" in listed() and free() == 1, listed())
    check("hotplug: and told", ("device-added", "disk1") in events(), events())
    for what, reason, words, params in [
            ("the same image", "wrong-state", "this VM has it as disk1", dict(config=dict(disk=images[0]))),
            ("a name that is taken", "bad-params", "device: 'disk1'", dict(config=dict(disk=images[1]), device="disk1")),
            ("a name that is a device's from the start", "bad-params", "device: 'com1'", dict(config=dict(disk=images[1]), device="com1")),
            ("a bad name", "bad-params", "device: 'a/b'", dict(config=dict(disk=images[1]), device="a/b")),
            ("no such image", "bad-params", "No such file", dict(config=dict(disk="/nowhere/image"))),
            ("a directory", "bad-params", "disk /tmp", dict(config=dict(disk="/tmp"))),
            ("no such TAP", "bad-params", "nosuchtap0", dict(config=dict(net="tap=nosuchtap0"))),
            ("no such directory", "bad-params", "/nowhere/dir", dict(config=dict(share="/nowhere/dir:/x"))),
            ("a switch that is not there", "bad-params", sock, dict(config=dict(net="socket=" + sock))),
            ("a back end that is not there", "bad-params", sock, dict(config=dict(device="vhost-user,type=blk,socket=" + sock)))]:
        e = refused(c, "vm.device.add", id="h", **params)
        check("hotplug: refused: " + what, e.get("data", {}).get("reason") == reason and words in e["message"] and "\n" not in e["message"], e)
    for what, field, value, params in [
            ("a relative path", "config.disk.path", "image", dict(config=dict(disk="image"))),
            ("a relative overlay", "config.disk.overlay", "o", dict(config=dict(disk="/i,overlay=o"))),
            ("a relative socket", "config.net.socket", "s", dict(config=dict(net="socket=s"))),
            ("a relative directory", "config.share", "d", dict(config=dict(share="d:/x"))),
            ("a descriptor", "config.net.fd", None, dict(config=dict(net="fd=3"))),
            ("another bus", "config.disk.bus", "mmio", dict(config=dict(disk="/i,bus=mmio"))),
            ("an address of a card", "config.net.ip", "10.0.0.2/24", dict(config=dict(net="tap=t,ip=10.0.0.2/24"))),
            ("two devices", "config", None, dict(config=dict(disk="/a", net="user"))),
            ("another kind", "config", "rng", dict(config=dict(rng="on"))),
            ("a relative socket of a vsock device", "config.vsock.path", "v", dict(config=dict(vsock="v"))),
            ("a relative file of a console", "config.console", "f", dict(config=dict(console="file=f"))),
            ("the console's own end", "config.console", None, dict(config=dict(console="stdio"))),
            ("a group that is open", "config.vfio.fd", None, dict(config=dict(vfio="01:00.0,fd=3"))),
            ("an unknown member", "config.disk.pth", None, dict(config=dict(disk=dict(pth="/a")))),
            ("a name that is too long", "device", None, dict(config=dict(disk="/a"), device="x" * 16)),
            ("nothing", "config", None, {})]:
        e = refused(c, "vm.device.add", id="h", **params)
        data = e.get("data", {})
        check("hotplug: refused: " + what, e["code"] == -32602 and data.get("field") == field and (value is None or data.get("value") == value), e)
    check("hotplug: nothing has come of that", free() == 1 and sorted(names()) == sorted(before + ["insula-blk disk1"]), names())
    c.call("vm.create", name="other", config=guest("spin", disks=[images[0]]))
    e = refused(c, "vm.start", id="other")
    check("hotplug: the image is locked", e["data"]["reason"] == "start-failed" and "locked" in e["message"], e)
    pid = [p["pid"] for p in c.call("vm.info", id="h")["processes"] if p["name"] == "insula-blk disk1"][0]
    os.kill(pid, signal.SIGKILL)
    check("hotplug: kill -9 of its process: another one", wait_for(lambda: (listed()["disk1"]["state"], listed()["disk1"]["restarts"]) == ("ok", 1)), listed())
    r = c.call("vm.device.add", id="h", config=dict(disk=images[1] + ",ro"), device="second")
    check("hotplug: a second one, with a name", (r["device"], r["slot"], r["place"]) == ("second", 2, "02:00.0"), r)
    e = refused(c, "vm.device.add", id="h", config=dict(disk=images[2]))
    check("hotplug: all slots in use", e["code"] == -32004 and e["data"]["reason"] == "limit" and "disk1, second" in e["message"], e)
    e = refused(c, "vm.snapshot", id="h", path=d.dir + "/snap")
    check("hotplug: no snapshot while something is in a slot", "disk1" in e["message"] and not os.path.exists(d.dir + "/snap"), e)
    d.restart()
    c = d.client()
    c.call("events.subscribe")
    check("hotplug: insulad is killed: the devices are there", wait_for(lambda: c.call("vm.info", id="h").get("answers")) and
          {"disk1", "second"} < set(listed()), listed())
    for what, reason, params in [("none", "not-found", dict(device="disk9")), ("a slot", "not-found", dict(device="slot1")),
                                 ("one from the start", "bad-params", dict(device="rng"))]:
        e = refused(c, "vm.device.remove", id="h", **params)
        check("hotplug: vm.device.remove of " + what, e.get("data", {}).get("reason") == reason and params["device"] in e["message"], e)
    e = refused(c, "vm.device.remove", id="h", device="disk1", timeout_ms=200)
    check("hotplug: the guest keeps it", e["data"]["reason"] == "timeout" and "keeps it" in e["message"] and listed()["disk1"]["state"] == "ok", e)
    c.call("vm.pause", id="h")
    for method, params in (("vm.device.add", dict(config=dict(disk=images[2]))), ("vm.device.remove", dict(device="disk1", force=True))):
        e = refused(c, method, id="h", **params)
        check("hotplug: %s of a VM that is paused" % method, e["data"]["reason"] == "wrong-state" and "paused" in e["message"], e)
    c.call("vm.resume", id="h")
    c.call("vm.device.remove", id="h", device="disk1", force=True)
    c.call("vm.device.remove", id="h", device="second", force=True)
    check("hotplug: by force", free() == 2 and sorted(names()) == sorted(before), names())
    check("hotplug: and told, too", [e for e in events() if e[0] == "device-removed"] == [("device-removed", "disk1"), ("device-removed", "second")], events())
    r = c.call("vm.start", id="other")
    check("hotplug: the image is free", r["state"] == "running", r)
    c.call("vm.kill", id="other")
    for i in range(10):
        c.call("vm.device.add", id="h", config=dict(disk=images[i % 3]))
        c.call("vm.device.add", id="h", config=dict(disk=images[(i + 1) % 3]))
        c.call("vm.device.remove", id="h", device="disk1", force=True)
        c.call("vm.device.remove", id="h", device="disk2", force=True)
    check("hotplug: nothing is left of them", wait_for(lambda: len(os.listdir("/proc/%d/fd" % sup)) <= fds) and sorted(names()) == sorted(before),
          (fds, os.listdir("/proc/%d/fd" % sup)))
    # The VM ends in the middle.
    c.call("vm.device.add", id="h", config=dict(disk=images[0]))
    said = []
    a = d.client()
    t = threading.Thread(target=lambda: said.append(refused(a, "vm.device.remove", id="h", device="disk1")))
    t.start()
    wait_for(lambda: listed().get("disk1", {}).get("state") == "removing")
    c.call("vm.kill", id="h")
    t.join(10)
    check("hotplug: the VM ends while one goes", said and said[0]["data"]["reason"] in ("ended", "wrong-state", "not-found"), said)
    e = refused(c, "vm.device.list", id="h")
    check("hotplug: there is nothing to list", e["code"] in (-32001, -32003), e)


def case_kills(d):
    """Death of each process, as the kernel sees it."""
    c = d.client()
    c.call("events.subscribe")
    for victim, reason in [("supervisor", "supervisor-killed"), ("insula-vmm", "vmm-died")]:
        c.call("vm.create", name="v", config=guest("spin"))
        c.call("vm.start", id="v")
        info = c.call("vm.info", id="v")
        pid = info["pid"] if victim == "supervisor" else [p["pid"] for p in info["processes"] if p["name"] == victim][0]
        start = time.monotonic()
        os.kill(pid, signal.SIGKILL)
        r = c.call("vm.wait", id="v")
        check("kill -9 of %s: %s" % (victim, reason), r["reason"] == reason and "signal 9" in r["message"], r)
        ok = wait_for(lambda: all(map(gone, vm_processes(info))), 1)
        check("kill -9 of %s: all gone within a second" % victim, ok and time.monotonic() - start < SLOW + 0.2, time.monotonic() - start)
        ended = [e["params"] for e in c.events if e["params"]["event"] == "ended"][-1]
        check("kill -9 of %s: the event says so" % victim, ended["data"]["reason"] == reason, ended)
        c.call("vm.delete", id="v")
    c.call("vm.create", name="v", config=guest("spin"))
    c.call("vm.start", id="v")
    pid = [p["pid"] for p in c.call("vm.info", id="v")["processes"] if p["name"].startswith("insula-console")][0]
    os.kill(pid, signal.SIGKILL)

    def told():
        c.call("daemon.info")
        mine = [e["params"] for e in c.events if e["params"]["name"] == "v"]
        return ("helper-died", "com1") in [(e["event"], e.get("data", {}).get("device")) for e in mine] and "helper-restarted" in [e["event"] for e in mine]

    check("kill -9 of a helper: events, and the VM goes on", wait_for(told) and c.call("vm.info", id="v")["state"] == "running", c.events[-3:])
    check("kill -9 of a helper: it is counted", c.call("vm.info", id="v")["restarts"] == 1)
    c.call("vm.device.restart", id="v", device="com1")

    def com1():
        return [x for x in c.call("vm.info", id="v")["devices"] if x["name"] == "com1"][0]

    check("vm.device.restart: there is another process", wait_for(lambda: com1() == {"name": "com1", "state": "ok", "restarts": 2}), com1())
    e = refused(c, "vm.device.restart", id="v", device="vdz")
    check("vm.device.restart of none", e.get("data", {}).get("reason") == "not-found" and "vdz" in e["message"], e)
    e = refused(c, "vm.balloon", id="v")
    check("vm.balloon of a VM that has none", e["code"] == -32008 and e["data"]["reason"] == "no-balloon", e)
    for method in ("vm.metadata.get", "vm.metadata.set"):
        e = refused(c, method, id="v", **EXEC_PARAMS.get(method, {}))
        check("%s of a VM without the service" % method, e["code"] == -32008 and e["data"]["reason"] == "no-metadata", e)
    e = refused(c, "vm.metadata.set", id="v", metadata={"a": "x" * 51200})
    check("vm.metadata.set: too much", e["code"] == -32602 and e["data"]["field"] == "metadata", e)
    e = refused(c, "vm.resize", id="v", mem=32 << 20)
    check("vm.resize of a VM without max", e["code"] == -32008 and e["data"]["reason"] == "no-resize", e)
    e = refused(c, "vm.resize", id="v")
    check("vm.resize of nothing", e["code"] == -32602 and e["data"]["field"] == "mem", e)
    sup = c.call("vm.info", id="v")["pid"]
    freeze(sup)
    r = c.call("vm.kill", id="v")
    check("a supervisor that does not answer is shot", r["reason"] == "supervisor-killed", r)
    c.call("vm.delete", id="v")
    c.call("vm.run", name="v", config=dict(guest("spin", balloon={"target": "20M"}), mem="32M"))
    check("vm.balloon: a guest without a driver", c.call("vm.balloon", id="v") == {"target": 20 << 20, "actual": 32 << 20, "age_ms": 0, "stats": {}}, c.call("vm.balloon", id="v"))
    check("vm.balloon: another target", c.call("vm.balloon", id="v", target=24 << 20)["target"] == 24 << 20)
    check("vm.info has it, too", c.call("vm.info", id="v")["balloon"]["target"] == 24 << 20)
    e = refused(c, "vm.balloon", id="v", target=33 << 20)
    check("vm.balloon: more than there is", e["data"]["reason"] == "bad-params" and "expected 16M to 32M" in e["message"], e)
    e = refused(c, "vm.balloon", id="v", target=1)
    check("vm.balloon: less than anything runs in", e["code"] == -32602, e)
    sup = [p["pid"] for p in c.call("vm.info", id="v")["processes"] if p["name"].startswith("insula-balloon")][0]
    freeze(sup)
    began = time.monotonic()
    r = c.call("vm.balloon", id="v", target=28 << 20)
    check("vm.balloon: a helper that does not answer is not waited for", r["target"] == 28 << 20 and r["age_ms"] > 0 and time.monotonic() - began > 0.5, r)
    # More messages than its channel could hold: the supervisor does not wait for it.
    many = socket.socket(socket.AF_UNIX)
    many.connect(d.socket)
    for i in range(500):
        many.sendall(json.dumps({"jsonrpc": "2.0", "id": i, "method": "vm.balloon", "params": {"id": "v", "target": (20 + i % 2) << 20}}).encode() + b"\n")
    answers = many.makefile()
    said = [json.loads(answers.readline()) for _ in range(500)]
    check("vm.balloon: nor is it told more than it takes", all("result" in a for a in said) and c.call("vm.info", id="v")["answers"], said[-1])
    many.close()
    os.kill(sup, signal.SIGCONT)
    check("vm.balloon: and then it answers", wait_for(lambda: c.call("vm.balloon", id="v")["age_ms"] == 0))
    c.call("vm.kill", id="v")
    c.call("vm.run", name="v", config=guest("spin", balloon={"stats": 1, "idle": 1, "reports": "off"}))
    time.sleep(1.5)
    check("vm.balloon: with stats it is asked for without anybody", "age_ms" in c.call("vm.info", id="v")["balloon"], c.call("vm.info", id="v")["balloon"])
    c.call("vm.kill", id="v")
    seqs = [e["params"]["seq"] for e in c.events if e.get("method") == "event"]
    check("events are numbered without gaps", seqs == list(range(1, len(seqs) + 1)), seqs[:20])


def case_resize_cpus(d):
    """Processors that come and go; the payload looks at it from inside and ends with what it has found."""
    c = d.client()
    c.call("events.subscribe")
    c.call("vm.create", name="z", config=dict(guest("cpus", cpus="3,max=5", append="wait"), mem="64M"))
    check("before the start they are what it boots with", c.call("vm.info", id="z")["cpus"] == 3)
    c.call("vm.start", id="z")

    def says(word):
        return wait_for(lambda: word in [x["text"].strip() for x in c.call("vm.logs", id="z")["lines"]], 30)

    def cpus(vm="z"):
        i = c.call("vm.info", id=vm)
        return i["cpus"], i["processors"]["actual"], i["processors"]["max"]

    check("a guest gives two back, of its own will", says("gone") and wait_for(lambda: cpus() == (1, 1, 5)), c.call("vm.info", id="z"))
    heard = [e["params"]["data"]["cpus"] for e in c.events if e["params"]["event"] == "resized"]
    check("events say so", heard == [2, 1], c.events)
    for bad, expected in ((0, "from 1"), (6, "a number from 1 to 5"), (33, "from 1"), (-1, "from 1"), ("2", "")):
        e = refused(c, "vm.resize", id="z", cpus=bad)
        check("vm.resize to %r" % bad, e["code"] == -32602 and e["data"]["field"] == "cpus" and expected in e["data"]["expected"], e)
    r = c.call("vm.resize", id="z", cpus=2)
    check("one comes", r["cpus"] == 2 and r["processors"] == {"requested": 2, "actual": 2, "max": 5}, r)
    check("it begins as new, when it is started", says("here"))
    d.kill()
    d.start()
    c = d.client()
    check("another insulad knows how many there are", wait_for(lambda: c.call("vm.info", id="z").get("processors") and cpus() == (2, 2, 5)), c.call("vm.info", id="z"))
    r = c.call("vm.resize", id="z", cpus=1)
    check("one goes", r["cpus"] == 1 and r["processors"] == {"requested": 1, "actual": 1, "max": 5}, r)
    r = c.call("vm.wait", id="z")
    check("the guest has found nothing amiss", (r["reason"], r["status"]) == ("status", 0), (r, c.call("vm.logs", id="z")["lines"][-5:]))

    c.call("vm.create", name="s", config=guest("spin", cpus="1,max=4"))
    c.call("vm.start", id="s")
    check("three", c.call("vm.resize", id="s", cpus=3)["processors"]["actual"] == 3)
    r = c.call("vm.resize", id="s", cpus=1, timeout_ms=300)
    check("a guest that gives none back", r["cpus"] == 3 and r["processors"]["actual"] == 3 and "has 3 processors, and has not given back all but 1" in r["processors"]["text"], r)
    c.call("vm.resize", id="s", cpus=4)
    check("four", cpus("s") == (4, 4, 4), c.call("vm.info", id="s"))
    other = d.client()
    other.sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"vm.resize","params":{"id":"s","cpus":2,"timeout_ms":600000}}\n')
    check("one that waits", wait_for(lambda: c.call("vm.info", id="s")["processors"]["requested"] == 2), c.call("vm.info", id="s"))
    e = refused(c, "vm.resize", id="s", cpus=1)
    check("one at a time", e["code"] == -32007, e)
    check("which changes nothing", cpus("s") == (4, 4, 4), c.call("vm.info", id="s"))
    c.call("vm.kill", id="s")
    c.call("vm.start", id="s")
    check("started again it has what it boots with", wait_for(lambda: cpus("s") == (1, 1, 4)), c.call("vm.info", id="s"))
    c.call("vm.pause", id="s")
    r = c.call("vm.resize", id="s", cpus=2, timeout_ms=300)
    check("while it is paused none comes", r["processors"]["actual"] == 1 and "has 1 processor, and did not take 2" in r["processors"]["text"], r)
    c.call("vm.resume", id="s")
    check("but afterwards", wait_for(lambda: cpus("s") == (2, 2, 4)), c.call("vm.info", id="s"))
    c.call("vm.run", name="f", config=guest("spin", cpus="2,max=2"))
    e = refused(c, "vm.resize", id="f", cpus=1)
    check("max that is cpus is none", e["code"] == -32008 and e["data"]["reason"] == "no-resize", e)
    check("nothing of it is in vm.info", "processors" not in c.call("vm.info", id="f"))


def case_restart(d):
    c = d.client()
    vms = [c.call("vm.run", config=guest("spin")) for _ in range(5)]
    paused, killed, stopped = vms[0]["id"], vms[1], vms[2]["id"]
    c.call("vm.pause", id=paused)
    c.call("vm.create", name="kept", config=guest("hello"))
    d.kill()
    check("the VMs run on without insulad", not any(gone(v["pid"]) for v in vms))
    os.kill(killed["pid"], signal.SIGKILL)
    wait_for(lambda: gone(killed["pid"]))
    d.start()
    c = d.client()
    found = {v["id"]: v for v in c.call("vm.list")["vms"]}
    check("a new insulad finds them, with the same ids", set(v["id"] for v in vms) <= set(found), found)
    check("one killed meanwhile has its reason", found[killed["id"]]["reason"] == "supervisor-killed", found[killed["id"]])
    check("a created VM is there", [v["name"] for v in found.values() if v["state"] == "created"] == ["kept"])
    check("states are right", wait_for(lambda: c.call("vm.info", id=paused)["state"] == "paused" and c.call("vm.info", id=stopped)["state"] == "running"),
          c.call("vm.list"))
    check("they obey", c.call("vm.resume", id=paused)["state"] == "running" and c.call("vm.stop", id=stopped)["reason"] == "stopped")
    check("it says that it has adopted them", c.call("vm.info", id=paused)["adopted"])
    d.proc.terminate()
    check("an orderly end leaves them alone", d.proc.wait(10) == 0 and not gone(vms[0]["pid"]))
    # A record of another boot, where the process id means nothing.
    path = "%s/vm/%s/record.json" % (d.state, vms[0]["id"])
    with open(path) as f:
        record = json.load(f)
    record["boot_id"] = "00000000-0000-0000-0000-000000000000"
    with open(path, "w") as f:
        json.dump(record, f)
    # A record that points to a process that insulad did not start: the number of an innocent one.
    path = "%s/vm/%s/record.json" % (d.state, vms[3]["id"])
    with open(path) as f:
        record = json.load(f)
    innocent = subprocess.Popen(["sleep", "1000"])
    real, record["pid"] = record["pid"], innocent.pid
    with open(path, "w") as f:
        json.dump(record, f)
    os.mkdir(d.state + "/vm/0123456789abcdef")
    with open("%s/vm/%s/record.json" % (d.state, vms[4]["id"]), "w") as f:
        f.write('{"version": 1, "id"')
    d.start()
    c = d.client()
    found = {v["id"]: v for v in c.call("vm.list")["vms"]}
    check("nothing is adopted that insulad did not start", found[vms[3]["id"]]["state"] == "ended" and innocent.poll() is None, found[vms[3]["id"]])
    check("one of another boot has ended with that", (found[vms[0]["id"]]["reason"], gone(vms[0]["pid"])) == ("host-reboot", False), found[vms[0]["id"]])
    broken = found[vms[4]["id"]]
    check("a broken record is listed with its reason", broken["state"] == "broken" and "record" in broken["error"] and os.path.exists(d.state + "/vm/" + vms[4]["id"]), broken)
    e = refused(c, "vm.start", id=broken["id"])
    check("one whose record is broken is not started", e["code"] == -32003 and e["data"]["value"] == "broken", e)
    e = refused(c, "vm.wait", id=broken["id"])
    check("nor waited for", e["code"] == -32003 and e["data"]["value"] == "broken", e)
    e = refused(c, "vm.delete", id=broken["id"])
    check("nor deleted, as long as its supervisor runs", e["code"] == -32003 and "supervisor runs" in e["message"], e)
    check("a directory without a record is removed", not os.path.exists(d.state + "/vm/0123456789abcdef"))
    second = subprocess.run([BIN + "insulad", "--config", d.dir + "/conf"], capture_output=True, text=True, timeout=20)
    check("a second insulad in the same state is refused", second.returncode == 1 and "another insulad uses it" in second.stderr, second)
    with open(d.dir + "/conf2", "w") as f:
        json.dump(dict(socket=d.socket, state_dir=d.dir + "/state2", cgroup="off"), f)
    second = subprocess.run([BIN + "insulad", "--config", d.dir + "/conf2"], capture_output=True, text=True)
    check("nor may it take the socket of one that serves", second.returncode == 1 and "another program serves there" in second.stderr and c.call("daemon.info"), second)
    shutil.rmtree(d.dir + "/state2")
    innocent.kill()
    innocent.wait()
    for pid in (real, vms[0]["pid"], vms[4]["pid"]):
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: gone(vms[4]["pid"]))
    check("then it is", c.call("vm.delete", id=broken["name"]) == {} and not os.path.exists(d.state + "/vm/" + vms[4]["id"]), broken)
    for v in c.call("vm.list")["vms"]:
        if v["state"] == "running":
            c.call("vm.kill", id=v["id"])
    c.call("vm.delete", id="kept")


def change_record(d, vm, **members):
    path = "%s/vm/%s/record.json" % (d.state, vm)
    with open(path) as f:
        record = json.load(f)
    with open(path, "w") as f:
        json.dump(dict(record, **members), f)
    return record


def case_not_begun(d):
    """insulad was killed between the record of a start and the byte that its supervisor waits for."""
    c = d.client()
    vms = [c.call("vm.create", name="nb%d" % i, config=guest("hello"))["id"] for i in range(3)]
    boot = change_record(d, vms[0])["boot_id"]
    d.kill()
    dead = subprocess.Popen(["true"])
    dead.wait()
    for vm, said, transient in zip(vms, ("not begun\n", "not begun\n", "begun    \n"), (False, True, False)):
        change_record(d, vm, state="starting", pid=dead.pid, start_time=1, boot_id=boot, started_ms=1, transient=transient)
        with open("%s/vm/%s/result" % (d.state, vm), "w") as f:
            f.write(said)
    d.start()
    c = d.client()
    found = {v["name"]: v for v in c.call("vm.list")["vms"]}
    check("a supervisor that has not begun leaves its VM as it was", found["nb0"]["state"] == "created", found)
    check("and vm.run as if nobody had asked", "nb1" not in found and not os.path.exists(d.state + "/vm/" + vms[1]), found)
    check("one that had begun was killed", (found["nb2"]["state"], found["nb2"]["reason"]) == ("ended", "supervisor-killed"), found)
    r = c.call("vm.start", id="nb0", wait=True)
    check("it can be started", (r["reason"], r["status"]) == ("status", 42), r)
    # By a newer insulad: not for this one.
    change_record(d, vms[0], version=2)
    with open("%s/vm/%s/record.json" % (d.state, vms[0])) as f:
        before = f.read()
    d.restart()
    c = d.client()
    v = {v["id"]: v for v in c.call("vm.list")["vms"]}[vms[0]]
    check("a record of a newer insulad is listed, in words", v["state"] == "broken" and "version 2, of a newer insulad" in v["error"], v)
    e = refused(c, "vm.delete", id=vms[0])
    with open("%s/vm/%s/record.json" % (d.state, vms[0])) as f:
        check("and kept as it is", e["data"]["reason"] == "newer" and f.read() == before, e)
    change_record(d, vms[0], version=1)
    # A result as deep as it may be, beside its own record: that can be read again.
    deep = {"reason": "status", "status": 7, "token": change_record(d, vms[2])["token"], "d": json.loads("[" * 13 + "]" * 13)}
    change_record(d, vms[2], state="starting", pid=dead.pid, start_time=1, result={})
    with open("%s/vm/%s/result" % (d.state, vms[2]), "w") as f:
        f.write(json.dumps(deep) + "\n")
    for _ in range(2):
        d.restart()
    v = {v["id"]: v for v in d.client().call("vm.list")["vms"]}[vms[2]]
    # vm.run's goes by itself, also when it was found twice.
    change_record(d, vms[2], state="starting", pid=dead.pid, start_time=1, transient=True)
    for _ in range(2):
        d.restart()
    v = {v["id"]: v for v in d.client().call("vm.list")["vms"]}[vms[2]]
    check("a VM that goes by itself still does, two restarts later", v["state"] == "ended" and v["transient"], v)
    check("a deep result makes no record unreadable", (v["state"], v.get("status")) == ("ended", 7), v)


def case_leases(d):
    """A supervisor that was taken over holds leases on its files: the next start does not wait."""
    c = d.client()
    c.call("vm.create", name="l", config=guest("hello"))
    first = c.call("vm.start", id="l", wait=True)
    with open("%s/vm/%s/log" % (d.state, first["id"]), "a") as f:
        f.write("a line of before\n")
    held = []
    for name in ("log", "log2", "result"):
        held.append(os.open("%s/vm/%s/%s" % (d.state, first["id"], name), os.O_RDONLY))
        fcntl.fcntl(held[-1], fcntl.F_SETLEASE, fcntl.F_RDLCK)
    signal.signal(signal.SIGIO, signal.SIG_IGN)
    c.sock.settimeout(20 * SLOW)
    try:
        r = c.call("vm.start", id="l", wait=True)
        check("leases on its files delay no start", (r["reason"], r["status"]) == ("status", 42), r)
    except TimeoutError:
        check("leases on its files delay no start", False, "20 s")
    for fd in held:
        os.close(fd)
    c = d.client()
    c.call("vm.wait", id="l")
    check("the log goes on", "a line of before" in [x["text"] for x in c.call("vm.logs", id="l")["lines"]], c.call("vm.logs", id="l"))


def case_full_log(_):
    """Nobody reads insulad's standard error: it serves all the same, and says later what is missing."""
    r, w = os.pipe()
    fcntl.fcntl(w, fcntl.F_SETPIPE_SZ, 4096)
    d = Daemon(out=os.fdopen(w, "w"), log="json")
    c = d.client()
    c.sock.settimeout(60 * SLOW)
    done, text = 0, []
    try:
        while done < 1500:  # each makes a line
            d.proc.send_signal(signal.SIGHUP)
            c.call("daemon.info")
            done += 1
    except TimeoutError:
        pass
    check("a full pipe for a log keeps nobody waiting", done == 1500, done)
    reader = threading.Thread(target=lambda: text.extend(os.fdopen(r)))
    reader.start()
    check("insulad ends with 0", d.stop() == 0)
    reader.join(60 * SLOW)
    lines = [json.loads(line)["message"] for line in text]
    check("what is missing is told, in the log's own form", any("log lines lost" in x for x in lines), lines[-3:])


def case_requests(d):
    """A connection with too many requests under way waits; nobody else does."""
    c, other = d.client(), d.client()
    c.call("vm.create", name="w", config=guest("spin"))
    wait = b'{"jsonrpc":"2.0","id":1,"method":"vm.wait","params":{"id":"w"}}\n'
    c.sock.sendall(wait * 64 + b'{"jsonrpc":"2.0","id":"next","method":"vm.list"}\n')
    c.sock.settimeout(0.5)
    try:
        check("with 64 under way the 65th is not read", False, c.line())
    except TimeoutError:
        check("with 64 under way the 65th is not read", True)
    check("another connection is served", len(other.call("vm.list")["vms"]) == 1)
    other.call("vm.delete", id="w")
    c = d.client()
    c.sock.sendall(wait * 65 + b'{"jsonrpc":"2.0","id":"next","method":"vm.list"}\n')
    check("when they are answered it goes on", [c.line()["id"] for _ in range(66)] == [1] * 65 + ["next"])


def case_logs(_):
    d = Daemon(log="json", socket_mode="0660", socket_group="nogroup")
    r = d.client().call("vm.run", name='q', config=guest("hello"), wait=True)
    lines = []

    def ended():
        with open(d.dir + "/log") as f:
            lines[:] = [json.loads(line) for line in f if line.endswith("\n")]
        return any(x["message"].startswith("ended") and (x["vm"], x["name"], x["level"]) == (r["id"], "q", "info") for x in lines)

    check("the log as JSON lines", wait_for(ended, 20), lines)
    check("without control groups it warns", any("no control groups" in x["message"] and x["level"] == "warning" for x in lines), lines)
    s = os.stat(d.socket)
    own = tempfile.mkdtemp(prefix="daemon.")
    other = Daemon(state_dir=own)
    modes = [stat.S_IMODE(os.stat(path).st_mode) for path in (own, d.state)]
    check("a state directory that was there keeps its mode", modes == [0o700, 0o700 if os.getuid() else 0o711], modes)
    other.stop()
    shutil.rmtree(own)
    check("mode and group of the socket", (s.st_mode & 0o777, s.st_gid) == (0o660, grp.getgrnam("nogroup").gr_gid) or os.getuid(), s)
    if os.getuid() == 0:
        check("who may not write to it cannot connect", as_user(d, 4001, lambda _: connects(d.socket)) == {"exception": "PermissionError(13, 'Permission denied')"})
    v = d.client().call("vm.run", config=guest("spin"))
    with open("/proc/%d/limits" % v["pid"]) as f:
        limits = {line[:26].strip(): line[26:].split()[:2] for line in f}
    check("resource limits of a supervisor", (SAN or limits["Max data size"] == [str(1 << 30)] * 2) and limits["Max core file size"] == ["0"] * 2, limits)
    check("insulad ends with 0, with VMs", d.stop() == 0)


def case_configuration(_):
    """insulad -n and bad configurations; nothing is made."""
    tmp = tempfile.mkdtemp(prefix="daemon.")

    def tried(text, *args):
        with open(tmp + "/conf", "w") as f:
            f.write(text)
        return subprocess.run([BIN + "insulad", *args, "--config", tmp + "/conf"], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)

    good = '{"socket": "%s/s", "state_dir": "%s/state"%s}'
    r = tried(good % (tmp, tmp, ""), "-n")
    check("insulad -n: good", r.returncode == 0 and os.listdir(tmp) == ["conf"], r)
    for more, word in ((', "max_vms": -1', "max_vms"), (', "max_vmz": 1', "max_vmz"), (', "socket_mode": "9"', "octal"), (', "limits": {"memory": "much"}', "limits.memory"),
                       (', "cpu_percent": 101', "from 1 to 100"), (',  "socket_group": "no-such"', "socket_group: 'no-such'"),
                       (', "supervisor": "/nope"', "supervisor: /nope: No such file"), (', "io_max": "8:0 rbps=1\\nx"', "io_max"), (",", "")):
        for args in (("-n",), ()):
            r = tried(good % (tmp, tmp, more), *args)
            check("insulad %s with %s: status 2 and one line" % (" ".join(args), more), r.returncode == 2 and r.stderr.count("\n") == 1 and word in r.stderr, r)
    check("nothing was made", os.listdir(tmp) == ["conf"], os.listdir(tmp))
    r = tried(good % (tmp, tmp, ', "max_vmz": 1'), "-n")
    check("an unknown setting: the nearest one is named", "did you mean 'max_vms'?" in r.stderr, r)
    for flags, word in ((["--max-vms", "0"], "--max-vms: 0; expected a number from 1"), (["--max-vmz", "1"], "did you mean --max-vms?"), (["--state-dir", "x"], "--state-dir"),
                        (["--log", "xml"], "--log"), (["--limits", "{"], "--limits")):
        r = tried(good % (tmp, tmp, ""), "-n", *flags)
        check("insulad -n %s: status 2 and one line" % " ".join(flags), r.returncode == 2 and r.stderr.count("\n") == 1 and word in r.stderr, r)
    with open(tmp + "/conf", "w") as f:
        json.dump(dict(socket="/proc/nope/s", state_dir="/proc/nope/d", cgroup="off", max_vms=3), f)
    p = subprocess.Popen([BIN + "insulad", "--config", tmp + "/conf", "--socket", tmp + "/s", "--state-dir", tmp + "/state", "--max-vms=1", "--overcommit-percent", "77"],
                         stdin=subprocess.DEVNULL)

    def listens():  # the socket is there a moment before somebody listens
        try:
            Insulad(tmp + "/s")
            return True
        except OSError:
            return False

    check("insulad with flags serves where they say", wait_for(listens, 20) and os.path.isdir(tmp + "/state"))
    c = Insulad(tmp + "/s")
    check("and has what they say", c.call("daemon.info")["overcommit_percent"] == 77)
    c.call("vm.create", name="one", config=guest("spin"))
    e = refused(c, "vm.create", name="two", config=guest("spin"))
    check("flags win over the file", e["data"]["field"] == "max_vms" and e["data"]["value"] == "1", e)
    p.send_signal(signal.SIGHUP)
    e = refused(c, "vm.create", name="two", config=guest("spin"))
    check("and when it is read again", e["data"]["field"] == "max_vms" and e["data"]["value"] == "1" and p.poll() is None, e)
    p.send_signal(signal.SIGTERM)
    check("it ends", p.wait(60) == 0)
    shutil.rmtree(tmp + "/state")
    for flags, word in ((["--confg"], "--confg"), (["-n", "--config"], "--config"), (["-x"], "-x")):
        r = subprocess.run([BIN + "insulad", *flags], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
        check("insulad %s: status 2 and its own line" % " ".join(flags), r.returncode == 2 and r.stderr.startswith("insulad: '%s'" % word) and r.stderr.count("\n") == 1, r)
    for name in ("socket", "state_dir", "metrics_socket"):
        r = tried(json.dumps(dict(dict(socket=tmp + "/s", state_dir=tmp + "/state", cgroup="off"), **{name: "/proc/nope/s"})))
        check("a path that cannot be made: %s" % name, r.returncode == 1 and "insulad: %s: /proc/nope" % name in r.stderr, r)
    shutil.rmtree(tmp)


def case_console(d):
    c = d.client()
    mine, theirs = socket.socketpair()
    r = c.call("vm.run", fds=[theirs.fileno()], name="e", config=guest("echo"))
    theirs.close()
    mine.settimeout(10 * SLOW)

    def until(s, text):
        got = b""
        while text not in got:
            more = s.recv(4096)
            if not more:
                break
            got += more
        return got

    check("attached from the first byte on", b"echo ready" in until(mine, b"echo ready"))
    mine.sendall(b"first")
    check("input and output", b"first" in until(mine, b"first"))
    mine.close()
    c.call("vm.console", id="e", scrollback=65536)
    s = socket.socket(fileno=c.fds.pop())
    s.settimeout(10 * SLOW)
    got = until(s, b"first")
    check("detached and attached again: the scroll-back is there", b"echo ready" in got and b"first" in got, got)
    c.call("vm.console", id="e")
    quiet = socket.socket(fileno=c.fds.pop())
    for _ in range(2):
        c.call("vm.console", id="e")
    e = refused(c, "vm.console", id="e")
    check("a fifth client is refused", e["code"] == -32007, e)
    d.restart()
    s.sendall(b"second")
    check("the console outlives insulad", b"second" in until(s, b"second"))
    s.sendall(b"q")
    got = until(s, b"never")
    check("the last words arrive, then the end", b"echo done" in got, got)
    got = until(quiet, b"never")
    check("without scroll-back only what is new", b"ready" not in got and b"echo done" in got, got)
    c = d.client()
    check("its end was seen", wait_for(lambda: all(v["state"] == "ended" for v in c.call("vm.list")["vms"])), r)
    c.call("vm.create", name="none", config=guest("spin", console="none"))
    c.call("vm.start", id="none")
    e = refused(c, "vm.console", id="none")
    check("a VM without a console says so", e["data"]["reason"] == "no-console", e)
    c.call("vm.kill", id="none")
    c.call("vm.delete", id="none")


def case_deaf_console(d):
    """A guest that reads nothing: insulactl console ends by a signal all the same."""
    d.client().call("vm.run", name="deaf", config=guest("spin"))
    with tempfile.TemporaryFile() as f:
        f.write(b"x" * (4 << 20))
        f.seek(0)
        p = subprocess.Popen([BIN + "insulactl", "--socket", d.socket, "console", "deaf"], stdin=f, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        def stuck():
            with open("/proc/%d/fdinfo/0" % p.pid) as info:
                at = info.readline()
            time.sleep(0.3)
            with open("/proc/%d/fdinfo/0" % p.pid) as info:
                return at.split() != ["pos:", "0"] and at == info.readline()

        check("a guest that reads nothing: the input waits", wait_for(stuck, 20) and p.poll() is None)
        p.terminate()
        try:
            check("a guest that reads nothing: insulactl console ends by a signal", p.wait(20 * SLOW) is not None)
        except subprocess.TimeoutExpired:
            p.kill()
            check("a guest that reads nothing: insulactl console ends by a signal", False)
    d.client().call("vm.kill", id="deaf")


def case_exec(d):
    """What is refused; tests/lab/70-daemon.sh has the guests that run commands."""
    c = d.client()
    null = os.open("/dev/null", os.O_RDWR)
    before = settled(d)["fds"]

    def tried(fds, **params):
        try:
            c.call("vm.exec", fds=[null] * fds, **dict(dict(id="x", command=["true"]), **params))
        except RuntimeError as e:
            return e.args[0]
        return {"code": 0, "data": {}}

    e = tried(2)
    check("vm.exec in an unknown VM", e["code"] == -32001, e)
    c.call("vm.create", name="x", config=guest("spin"))
    for method, params in EXEC_PARAMS.items():
        e = refused(c, method, id="x", **params)
        check("%s in a VM that does not run" % method, e["code"] == -32003 and e["data"]["value"] == "created", e)
    c.call("vm.start", id="x")
    supervisor = "/proc/%d/fd" % c.call("vm.info", id="x")["pid"]
    files = len(os.listdir(supervisor))
    for n, value in ((0, "0"), (1, "1"), (4, "more than 3"), (200, "more than 3")):
        e = tried(n)
        check("vm.exec with %d descriptors" % n, e["code"] == -32602 and e["data"]["field"] == "descriptors" and e["data"]["value"] == value, e)
    for n in (2, 3):
        e = tried(n)
        check("vm.exec in a VM without insula-init", e["code"] == -32008 and e["data"]["reason"] == "no-agent", e)
    e = tried(2, command=["x" * 70000])
    check("vm.exec: too long", e["code"] == -32602 and "64 KiB" in e["message"], e)
    for method in ("vm.exec.signal", "vm.exec.resize", "vm.exec.wait"):
        e = refused(c, method, id="x", **EXEC_PARAMS[method])
        check("%s of an unknown command" % method, e["code"] == -32001, e)
    check("the VM runs on", c.call("vm.info", id="x")["answers"])
    check("no descriptor is left in the supervisor", len(os.listdir(supervisor)) == files)
    check("nor in insulad", wait_for(lambda: len(os.listdir("/proc/%d/fd" % d.proc.pid)) == before + 2), os.listdir("/proc/%d/fd" % d.proc.pid))
    r = c.call("vm.stop", id="x", deadline_ms=60000)
    check("vm.stop of a guest that cannot be asked does not wait", (r["reason"], r["stop"]) == ("stopped", "forced"), r)
    c.call("vm.delete", id="x")
    os.close(null)


def case_many(d):
    """All at once: created, listed, paused, killed at random; none left."""
    c = d.client()
    for i in range(VMS):
        c.call("vm.create", name="m%d" % i, config=guest("idle"))
    check("%d VMs created" % VMS, len(c.call("vm.list")["vms"]) == VMS)
    text = "".join(json.dumps({"jsonrpc": "2.0", "id": "s%d" % i, "method": "vm.start", "params": {"id": "m%d" % i}}) + "\n" for i in range(VMS))
    threading.Thread(target=c.sock.sendall, args=(text.encode(),)).start()
    answers = [c.line() for _ in range(VMS)]
    bad = [a for a in answers if a.get("result", {}).get("state") != "running"]
    check("%d VMs started at once" % VMS, not bad, bad[:2])
    vms = c.call("vm.list")["vms"]
    check("all run", sum(v["state"] == "running" for v in vms) == VMS, [v for v in vms if v["state"] != "running"][:2])
    some = random.sample(vms, VMS // 4)
    check("a quarter is paused", all(c.call("vm.pause", id=v["id"])["state"] == "paused" for v in some))
    shot = random.sample(vms, VMS // 2)
    for v in shot[::2]:
        os.kill(v["pid"], signal.SIGKILL)
    for v in shot[1::2]:
        c.call("vm.kill", id=v["id"])
    reasons = [c.call("vm.wait", id=v["id"])["reason"] for v in shot]
    want = ["killed" if i % 2 else "supervisor-killed" for i in range(len(shot))]
    check("half of them killed at random, with the right reasons", reasons == want, [r for r, w in zip(reasons, want) if r != w][:5])
    for v in vms:
        if v not in shot:
            c.call("vm.stop", id=v["id"])
        c.call("vm.delete", id=v["id"])
    check("none left", c.call("vm.list")["vms"] == [] and os.listdir(d.state + "/vm") == [])
    check("no process left", wait_for(lambda: all(gone(v["pid"]) for v in vms)) and children(d.proc.pid) == [], children(d.proc.pid))


def footprint(d):
    pid = d.proc.pid
    with open("/proc/%d/status" % pid) as f:
        rss = [int(line.split()[1]) for line in f if line.startswith("VmRSS")][0]
    mounts = len(open("/proc/self/mounts").readlines())
    return dict(rss_kib=rss, fds=len(os.listdir("/proc/%d/fd" % pid)), threads=len(os.listdir("/proc/%d/task" % pid)), mounts=mounts,
                files=sum(len(f) for _, _, f in os.walk(d.dir)), children=len(children(pid)))


def churn(d, n, stop):
    """Runs n VMs to their end on a connection; the ids, and results that are not right."""
    ids, wrong = [], []
    c = None
    while n and not stop.is_set():
        try:
            c = c or d.client()
            r = c.call("vm.run", config=guest("hello"), wait=True)
            ids.append(r["id"])
            if (r["reason"], r["status"]) != ("status", 42):
                wrong.append(r)
            n -= 1
        except (OSError, ConnectionError, json.JSONDecodeError):
            c = None
            time.sleep(0.02)
    return ids, wrong


def settled(d):
    """The footprint, once two in a row are the same: connections of clients that have gone are closed."""
    last = None
    for _ in range(100):
        now = footprint(d)
        if now == last:
            break
        last = now
        time.sleep(0.1)
    return now


def case_churn(d):
    stop = threading.Event()
    churn(d, 10, stop)
    before = settled(d)
    results = []
    threads = [threading.Thread(target=lambda: results.append(churn(d, CHURN // 2, stop))) for _ in range(2)]
    start = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    seconds = time.monotonic() - start
    ids = [i for r in results for i in r[0]]
    check("%d VMs in a row, each with its status (%.1f a second)" % (CHURN, CHURN / seconds), len(ids) >= CHURN // 2 * 2 and not any(r[1] for r in results),
          [r[1][:1] for r in results])
    check("no id twice", len(set(ids)) == len(ids))
    after = settled(d)
    grown = after.pop("rss_kib") - before.pop("rss_kib")
    check("descriptors, threads, mounts, files, children are what they were", after == before, (before, after))
    check("so is the memory of insulad", SAN or grown < 256, "%d KiB more" % grown)


def case_storm(d):
    """kill -9 of insulad in the middle of a churn."""
    stop = threading.Event()
    seen = []
    t = threading.Thread(target=lambda: seen.append(churn(d, 1 << 30, stop)))
    t.start()
    lost = []
    try:
        steady = d.client().call("vm.run", name="steady", config=guest("spin"))
        for _ in range(KILLS):
            time.sleep(random.uniform(0.2, 0.8) * (2 if ONE else 1))
            d.kill()
            # Every record is a VM that lives or has ended in a way that it tells; every supervisor has a record.
            d.start()
            for v in d.client().call("vm.list")["vms"]:
                if v["state"] == "ended" and (v["reason"], v["status"]) != ("status", 42):
                    lost.append([d.client().call("vm.info", id=v["id"])["result"], os.listdir("%s/vm/%s" % (d.state, v["id"])), v])
    finally:
        stop.set()
        t.join()
    c = d.client()
    ids = [i for r in seen for i in r[0]]
    check("insulad killed %d times: every end has the right reason" % KILLS, not lost and not any(r[1] for r in seen), lost[:2] or [r[1][:1] for r in seen])
    check("no id is used again", len(set(ids)) == len(ids) and steady["id"] not in ids, len(ids))
    wait_for(lambda: c.call("vm.info", id="steady")["state"] == "running")  # its supervisor is still being asked
    s = c.call("vm.info", id="steady")
    check("a VM has lived through it all", s["id"] == steady["id"] and s["pid"] == steady["pid"] and s["state"] == "running", s)
    check("nobody else is left", wait_for(lambda: [v["name"] for v in c.call("vm.list")["vms"] if v["state"] != "ended"] == ["steady"], 10), c.call("vm.list"))
    check("no supervisor without a record", wait_for(lambda: supervisors_of(d) == [steady["pid"]], 10), supervisors_of(d))
    c.call("vm.kill", id="steady")


def supervisors_of(d):
    """All insula-run of this daemon: their standard error is a log in its state directory."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            if os.path.basename(os.readlink("/proc/%s/exe" % pid)) == "insula-run" and os.readlink("/proc/%s/fd/2" % pid).startswith(d.state):
                found.append(int(pid))
        except OSError:
            pass  # it has gone, or is not ours
    return found


def as_user(d, uid, call, more=()):
    """call(client) in a process of that user, in more groups than /dev/kvm's; what it returns."""
    r, w = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            kvm = os.stat("/dev/kvm").st_gid
            os.setgroups([kvm, *more])
            os.setgid(uid)
            os.setuid(uid)
            out = call(d.client())
        except Exception as e:  # noqa: BLE001  whatever it is, the parent tells
            out = {"exception": repr(e)}
        os.write(w, json.dumps(out).encode())
        os._exit(0)
    os.close(w)
    with os.fdopen(r) as f:
        text = f.read()
    os.waitpid(pid, 0)
    return json.loads(text)


def connects(path):
    s = socket.socket(socket.AF_UNIX)
    try:
        s.connect(path)
        return "connected"
    except OSError as e:
        return errno.errorcode[e.errno]


def case_users(d):
    if os.getuid():
        print("skip daemon: two users - not root")
        return
    a = as_user(d, 4001, lambda c: c.call("vm.create", name="mine", config=guest("spin")), more=[4242])
    check("a user makes a VM", a.get("uid") == 4001, a)
    r = as_user(d, 4001, lambda c: c.call("vm.start", id="mine"))
    check("and starts it", r.get("state") == "running", r)
    if r.get("state") == "running":
        check("its supervisor runs as that user", os.stat("/proc/%d" % r["pid"]).st_uid == 4001)
    check("what it writes is that user's", [os.stat("%s/vm/%s/%s" % (d.state, r["id"], n)).st_uid for n in ("result", "log")] == [4001] * 2)
    with open("/proc/%d/status" % r["pid"]) as f:
        groups = next(line.split()[1:] for line in f if line.startswith("Groups:"))
    check("with the groups that he has now", groups == [str(os.stat("/dev/kvm").st_gid)], groups)
    check("the metrics of all are root's", stat.S_IMODE(os.stat(d.dir + "/m").st_mode) == 0o600 and as_user(d, 4001, lambda _: connects(d.dir + "/m")) == "EACCES")
    b = as_user(d, 4002, lambda c: c.call("vm.list"))
    check("another user does not see it", b == {"vms": []}, b)
    for method in ("vm.info", "vm.console", "vm.stop", "vm.kill", "vm.pause", "vm.logs", "vm.metrics", "vm.wait", "vm.delete", "vm.exec", "vm.exec.signal", "vm.exec.resize", "vm.exec.wait", "vm.device.restart", "vm.device.add", "vm.device.remove", "vm.device.list", "vm.balloon", "vm.resize", "vm.metadata.get", "vm.metadata.set", "vm.metadata.patch", "vm.snapshot", "vm.clone", "events.subscribe"):
        more = EXEC_PARAMS.get(method, {})
        e = as_user(d, 4002, lambda c, m=method: refused(c, m, id=a["id"], **more))
        check("nor may he use %s" % method, e.get("code") == -32001, e)
    e = as_user(d, 4002, lambda c: refused(c, "vm.create", name="x", config=dict(kernel=d.state + "/lock")))
    e = as_user(d, 4002, lambda c: refused(c, "vm.start", id="x"))
    check("files are opened with the user's rights", e.get("data", {}).get("reason") == "start-failed" and "ermission" in e["message"], e)
    e = as_user(d, 4002, lambda c: refused(c, "vm.create", name="y", config=guest("spin", nets=["fd=3"])))
    check("nor may a configuration name descriptors, which would be insulad's", e.get("data", {}).get("field") == "config.nets[0]", e)
    e = as_user(d, 4002, lambda c: refused(c, "vm.create", name="y", config=guest("spin", vfios=["0000:01:00.0", "0000:02:00.0,fd=3"])))
    check("nor one of a group", e.get("data", {}).get("field") == "config.vfios[1]", e)
    home = d.dir + "/home"
    os.mkdir(home, 0o755)
    os.chown(home, 4001, 4001)
    r = as_user(d, 4001, lambda c: c.call("vm.run", name="v", config=guest("spin", vsock=dict(path=home + "/v"))))
    check("a VM with vsock", r.get("state") == "running", r)
    check("its owner may connect", as_user(d, 4001, lambda _: connects(home + "/v")) == "connected")
    check("another user may not", as_user(d, 4002, lambda _: connects(home + "/v")) == "EACCES")
    as_user(d, 4001, lambda c: c.call("vm.kill", id="v"))
    shutil.rmtree(home)
    root = d.client()
    check("root sees both", len(root.call("vm.list")["vms"]) == 2)
    check("root may end it", root.call("vm.kill", id=a["id"])["reason"] == "killed")
    root.call("vm.delete", id=a["id"])
    as_user(d, 4002, lambda c: c.call("vm.delete", id="x"))


def case_groups(d):
    """Root starts another user's VM: with that user's groups of today."""
    if os.getuid():
        print("skip daemon: groups - not root")
        return
    user = pwd.getpwnam("daemon")
    v = as_user(d, user.pw_uid, lambda c: c.call("vm.create", name="g", config=guest("hello")), more=[4242])
    check("a user makes a VM, in a group that is taken from him", 4242 in change_record(d, v["id"])["groups"], v)
    r = d.client()
    try:
        r.call("vm.start", id=v["id"], wait=True)
    except RuntimeError:
        pass  # who is in no group may not open /dev/kvm
    groups = change_record(d, v["id"])["groups"]
    check("root starts it without that group", sorted(groups) == sorted(os.getgrouplist(user.pw_name, user.pw_gid)), groups)
    v = as_user(d, 4001, lambda c: c.call("vm.create", name="h", config=guest("hello")), more=[4242])
    try:
        r.call("vm.start", id=v["id"], wait=True)
    except RuntimeError:
        pass
    check("one whom the system does not know has none", change_record(d, v["id"])["groups"] == [], v)


def case_limits(d):
    if os.getuid():
        print("skip daemon: limits - not root")
        return
    d.conf["users"] = {"4003": {"vms": 2, "vcpus": 3, "memory": "40M"}}
    d.write()
    d.proc.send_signal(signal.SIGHUP)
    check("SIGHUP reads the limits", wait_for(lambda: as_user(d, 4003, lambda c: c.call("daemon.info"))["limits"]["vms"] == 2))

    def three(c):
        out = [c.call("vm.create", name="a", config=guest("spin", cpus=2)), c.call("vm.create", name="b", config=guest("spin", cpus=2))]
        out.append(refused(c, "vm.create", name="c", config=guest("spin")))
        out.append(c.call("vm.start", id="a"))
        out.append(refused(c, "vm.start", id="b"))
        c.call("vm.delete", id="b")
        c.call("vm.create", name="b", config=dict(guest("spin"), mem="32M"))
        out.append(refused(c, "vm.start", id="b"))
        c.call("vm.kill", id="a")
        c.call("vm.delete", id="a")
        c.call("vm.delete", id="b")
        c.call("vm.create", name="a", config=guest("spin", cpus="1,max=8"))
        c.call("vm.create", name="b", config=guest("spin"))
        c.call("vm.start", id="a")
        out.append(refused(c, "vm.resize", id="a", cpus=4))
        out.append(c.call("vm.resize", id="a", cpus=3))
        out.append(refused(c, "vm.start", id="b"))
        c.call("vm.kill", id="a")
        c.call("vm.delete", id="a")
        c.call("vm.delete", id="b")
        return out

    r = as_user(d, 4003, three)
    check("too many VMs", isinstance(r, list) and r[2]["code"] == -32004 and r[2]["data"]["field"] == "vms", r)
    check("too many processors", isinstance(r, list) and r[4]["code"] == -32004 and r[4]["data"]["field"] == "vcpus", r)
    check("too much memory", isinstance(r, list) and r[5]["code"] == -32004 and r[5]["data"]["field"] == "memory" and "at most 41943040" in r[5]["data"]["expected"], r)
    check("too many that come", isinstance(r, list) and r[6]["code"] == -32004 and r[6]["data"]["field"] == "vcpus" and r[7]["cpus"] == 3, r)
    check("and none is left for another VM", isinstance(r, list) and r[8]["code"] == -32004 and r[8]["data"]["field"] == "vcpus", r)
    d.conf["overcommit_percent"] = 1
    d.conf.pop("users")
    d.write()
    d.proc.send_signal(signal.SIGHUP)
    c = d.client()
    wait_for(lambda: c.call("daemon.info")["overcommit_percent"] == 1)
    c.call("vm.create", name="big", config=dict(guest("spin"), mem="1G"))
    e = refused(c, "vm.start", id="big")
    check("more memory than may be promised", e["code"] == -32004 and e["data"]["field"] == "overcommit_percent", e)
    c.call("vm.delete", id="big")
    with open(d.dir + "/conf", "w") as f:
        f.write('{"max_vms": "many"}')
    d.proc.send_signal(signal.SIGHUP)
    check("a bad configuration is told and not used", wait_for(lambda: "max_vms" in d.said()) and c.call("daemon.info")["overcommit_percent"] == 1, d.said())
    d.conf["overcommit_percent"] = 1000
    d.write()
    d.proc.send_signal(signal.SIGHUP)
    wait_for(lambda: c.call("daemon.info")["overcommit_percent"] == 1000)


def malformed(rng):
    good = {"jsonrpc": "2.0", "id": rng.randrange(1000), "method": rng.choice(["daemon.info", "vm.info", "vm.list", "vm.create", "x"]), "params": {}}
    kind = rng.randrange(9)
    if kind == 0:
        return bytes(rng.randrange(256) for _ in range(rng.randrange(200))).replace(b"\n", b" ")
    if kind == 1:
        text = json.dumps(good)
        return text[:rng.randrange(1, len(text))].encode()
    if kind == 2:
        good[rng.choice(list(good))] = rng.choice([None, [], {}, 1.5, -1, "", "\0", [[[]]], {"a": {"b": {}}}])
    if kind == 3:
        good["params"] = {rng.choice(["id", "name", "config", "x"]): rng.choice([1, None, [], "a" * 100, "../../etc", "\0", {}])}
    if kind == 4:
        return b"[" * rng.randrange(1, 300)
    if kind == 5:
        return json.dumps([good] * rng.choice([0, 65, 100])).encode()
    if kind == 6:
        good["method"] = "vm.create"
        good["params"] = {"config": {rng.choice(["cpus", "mem", "disks", "kernel", "console", "y"]): rng.choice([-1, "x", [], {}, 1e300, "relative"])}}
    if kind == 7:
        return json.dumps(good).replace(":", rng.choice(["", "::", ": NaN,", ":'"]), 1).encode()
    if kind == 8:
        good.pop(rng.choice(["jsonrpc", "method"]))
    return json.dumps(good).encode()


def case_resize(d):
    """Memory that a user may have is the sum over what its VMs have now."""
    if os.getuid():
        print("skip daemon: resize - not root")
        return
    d.conf["users"] = {"4003": {"vms": 4, "vcpus": 8, "memory": "200M"}}
    d.write()
    d.proc.send_signal(signal.SIGHUP)
    wait_for(lambda: as_user(d, 4003, lambda c: c.call("daemon.info"))["limits"]["memory"] == 200 << 20)

    def grow(c):
        for name in "ab":
            c.call("vm.run", name=name, config=dict(guest("vmem"), mem="64M,max=192M"))
        out = [refused(c, "vm.resize", id="a", mem=138 << 20)]
        out += [c.call("vm.resize", id="a", mem=136 << 20, timeout_ms=100)["mem"]]
        out += [refused(c, "vm.resize", id="b", mem=66 << 20)]
        out += [c.call("vm.resize", id=v, mem=m << 20, timeout_ms=100)["mem"] for v, m in (("a", 64), ("b", 66))]
        for name in "ab":
            c.call("vm.kill", id=name)
        return out

    r = as_user(d, 4003, grow)
    check("vm.resize: more than the user may have", isinstance(r, list) and r[0]["code"] == -32004 and r[0]["data"]["field"] == "memory" and "at most 209715200" in r[0]["data"]["expected"], r)
    check("vm.resize: as much as there is room for", isinstance(r, list) and r[1] == 136 << 20, r)
    check("vm.resize: then there is none for another VM", isinstance(r, list) and r[2]["code"] == -32004, r)
    check("vm.resize: until it is given back", isinstance(r, list) and r[3:] == [64 << 20, 66 << 20], r)
    d.conf.pop("users")
    d.write()
    d.proc.send_signal(signal.SIGHUP)


def case_malformed(d):
    rng = random.Random(7)
    before = footprint(d)
    total = answered = 0
    for _ in range(10):
        c = d.client()
        lines = [malformed(rng) for _ in range(1000)]
        mark = json.dumps({"jsonrpc": "2.0", "id": "mark", "method": "daemon.info"}).encode()
        threading.Thread(target=c.sock.sendall, args=(b"\n".join(lines) + b"\n" + mark + b"\n",)).start()
        while True:
            a = c.line()
            if isinstance(a, dict) and a.get("id") == "mark":
                break
            answered += 1
        total += len(lines)
        c.sock.close()
    check("10,000 malformed requests: the daemon answers on", total == 10000 and answered > 5000, answered)
    c = d.client()
    for v in c.call("vm.list")["vms"]:  # {} is a good configuration
        c.call("vm.delete", id=v["id"])
    c.sock.close()
    c = d.client()
    try:
        c.sock.sendall(b"x" * ((1 << 20) + 70000))
    except (BrokenPipeError, ConnectionResetError):
        pass  # it need not read what comes after it has refused
    check("a line that is too long is refused", c.line()["error"]["data"]["reason"] == "too-long")
    for text, what in ((b'{"jsonrpc":"2.0","id":7,"method":"vm.list"}', "result"), (b'{"jsonrpc":"2.0","id":7,', "error")):
        c = d.client()
        c.sock.sendall(text)
        c.sock.shutdown(socket.SHUT_WR)
        check("a last line without its end is answered: " + what, what in c.line())
        c.sock.close()
    slow = [d.client() for _ in range(20)]
    for s in slow:
        s.sock.sendall(b'{"jsonrpc"')
    start = time.monotonic()
    d.client().call("vm.list")
    check("clients with half a request harm nobody", time.monotonic() - start < SLOW * 0.5)
    late = d.client()
    threading.Thread(target=late.sock.sendall, args=(b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n' * 200,)).start()
    time.sleep(0.5)
    check("one that reads late gets every answer", all("result" in late.line() for _ in range(200)))
    late.sock.close()
    greedy = d.client()
    greedy.sock.settimeout(0.2)
    try:
        for _ in range(5000):
            greedy.sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"rpc.discover"}\n' * 20)
    except (OSError, TimeoutError):
        pass
    check("one that does not read is not served without end", d.answers() and (SAN or footprint(d)["rss_kib"] < before["rss_kib"] + 8192), footprint(d))
    c = d.client()  # the last one was closed over its line
    c.call("vm.create", name="big", config=guest("spin", command=["x"], env=["A%d=%s" % (i, "x" * 1000) for i in range(240)]))
    c.call("vm.start", id="big")
    batch = [{"jsonrpc": "2.0", "id": i, "method": "vm.info", "params": {"id": "big"}} for i in range(64)]
    for n, what in ((2, "answers"), (64, "the end")):
        late = d.client()
        late.sock.sendall(json.dumps(batch[:n]).encode() + b"\n")
        try:
            got = "answers" if len(late.line()) == n else "too few"
        except (OSError, ConnectionError):
            got = "the end"
        check("a batch of %d questions to a VM, whose answers come late: %s" % (n, what), got == what, got)
        late.sock.close()
    c.call("vm.kill", id="big")
    c.call("vm.delete", id="big")
    for s in slow + [greedy, c]:
        s.sock.close()
    wait_for(lambda: footprint(d)["fds"] <= before["fds"])
    check("no descriptor is left", footprint(d)["fds"] <= before["fds"], (before, footprint(d)))
    def connect_often(c):
        many = [c]
        try:
            for _ in range(100):
                many.append(d.client())
                many[-1].call("daemon.info")
        except (OSError, ConnectionError):
            pass
        for m in many:
            m.sock.close()
        return len(many)

    n = connect_often(d.client()) if os.getuid() else as_user(d, 4003, connect_often)
    check("connections of one user are limited", 60 <= n <= 66, n)

    def one_more(c):
        held = [c] + [d.client() for _ in range(63)]
        held[-1].call("daemon.info")
        said = d.client().line()
        r = [subprocess.run([BIN + "insulactl", "--socket", d.socket, *verb], capture_output=True, text=True, timeout=60 * SLOW, stdin=subprocess.DEVNULL)
             for verb in (["ps"], ["run", "--kernel", BUILD + "/guests/hello.elf"])]
        return said, [x.returncode for x in r], [x.stderr for x in r]

    said, status, words = one_more(d.client()) if os.getuid() else as_user(d, 4003, one_more)
    check("one too many is told so", (said["id"], said["error"]["data"]["field"]) == (None, "max_clients_per_uid"), said)
    check("insulactl says it too", status[0] == 1 and status[1] and all("max_clients_per_uid" in w and w.count("\n") == 1 for w in words), (status, words))
    if os.getuid() == 0:
        n = connect_often(d.client())
        check("and root's by the number of all alone", n == 101, n)
    wait_for(lambda: footprint(d)["fds"] <= before["fds"])  # else the next client is one too many


def case_slow_subscriber(d):
    c, other = d.client(), d.client()
    c.call("events.subscribe")
    c.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)

    def dropped():
        for i in range(50):
            other.call("vm.create", name="s%d" % i, config={})
            other.call("vm.delete", id="s%d" % i)
        return other.call("daemon.metrics")["dropped_subscribers"] >= 1

    check("a subscriber that does not read is dropped", any(dropped() for _ in range(200)))
    events = []
    while True:
        e = c.line()
        events.append(e)
        if e["method"] == "events.dropped":
            break
    check("it is told, after what it was sent", events[-1]["params"]["next_seq"] == len(events), events[-1])
    c.ids += 1
    check("it is still a client, and may subscribe again", c.call("events.subscribe")["next_seq"] == len(events))


def case_schema(d):
    """Every method's requests and answers against rpc.discover."""
    c = d.client()
    doc = c.call("rpc.discover")
    methods = {m["name"]: m for m in doc["methods"]}
    called = set()

    def call(method, **params):
        called.add(method)
        m = methods[method]
        names = {p["name"]: p for p in m["params"]}
        for p in params:
            schema.validate(names[p]["schema"], params[p], method + "." + p)
        for p in m["params"]:
            assert p["name"] in params or not p["required"], (method, p)
        r = c.call(method, **params)
        schema.validate(m["result"]["schema"], r, method)
        for p in m["params"]:
            if p["required"]:
                less = {k: v for k, v in params.items() if k != p["name"]}
                e = refused(c, method, **less)
                check("%s without %s is refused" % (method, p["name"]), e["code"] == -32602 and e["data"]["reason"] == "missing" and
                      e["data"]["field"] == p["name"], e)
        e = refused(c, method, **dict(params, nonsense=1))
        check("%s refuses what it does not know" % method, e["code"] == -32602 and e["data"]["field"] == "nonsense", e)
        return r

    def call_quietly(method, **params):
        r = c.call(method, **params)
        schema.validate(methods[method]["result"]["schema"], r, method)
        return r

    try:
        for method in ("daemon.info", "daemon.metrics", "rpc.discover", "vm.list"):
            call(method)
        call("vm.create", name="sc", config=dict(guest("spin", balloon="on"), mem="16M,max=32M"))
        call("vm.start", id="sc")
        call("vm.resize", id="sc", mem=18 << 20, timeout_ms=50)
        for method in ("vm.pause", "vm.resume", "vm.info", "vm.metrics", "vm.stats", "vm.logs", "vm.console"):
            call(method, id="sc")
        call("vm.balloon", id="sc", target=16 << 20)
        call("vm.device.restart", id="sc", device="com1")
        check("the device is back", wait_for(lambda: all(v["state"] == "ok" and v["restarts"] == (v["name"] == "com1")
                                                       for v in c.call("vm.info", id="sc")["devices"])))
        call("vm.snapshot", id="sc", path=d.dir + "/sc")
        call("pool.create", name="sp", count=2, config=dict(restore=d.dir + "/sc", cpus=1, mem="16M,max=32M"))
        for method, more in [("pool.list", {}), ("pool.info", dict(name="sp"))]:
            call(method, **more)
        check("the pool fills up", wait_for(lambda: call_quietly("pool.info", name="sp")["standing"] == 2, 20))
        call("vm.list")
        c.call("vm.kill", id=call("vm.run", pool="sp")["id"])
        call("pool.remove", name="sp")
        shutil.rmtree(d.dir + "/sc")
        for v in call("vm.clone", id="sc", count=2, place=d.dir)["vms"]:
            call("vm.kill", id=v["id"])
        call("events.subscribe", id="sc")
        call("events.unsubscribe")
        call("vm.stop", id="sc", deadline_ms=1000)
        call("vm.wait", id="sc")
        call("vm.start", id="sc")
        call("vm.kill", id="sc")
        call("vm.info", id="sc")
        call("vm.metrics", id="sc")
        call("vm.list")
        call("vm.delete", id="sc")
        with open(d.dir + "/plugged", "wb") as f:
            f.truncate(1 << 20)
        switch = socket.socket(socket.AF_UNIX)
        switch.bind(d.dir + "/switch")
        call_quietly("vm.run", name="hp", config=guest("spin", hotplug=1, nets=["socket=%s/switch,metadata" % d.dir]))
        switch.close()
        call("vm.metadata.set", id="hp", metadata={"a": {"b": "c\n\u00e4\u0001"}, "d": None})
        call("vm.metadata.patch", id="hp", metadata={"d": None, "a": {"e": [1]}})
        said = call("vm.metadata.get", id="hp")
        check("vm.metadata.get: what was set", said == {"metadata": {"a": {"b": "c\n\u00e4\u0001", "e": [1]}}}, said)
        call("vm.net.policy", id="hp", device="eth0", allow=["tcp:192.0.2.1:80"], **{"from": ["192.0.2.2"]})
        call("vm.limits", id="hp", device="eth0", rate=1 << 20)
        e = refused(c, "vm.metadata.set", id="hp", metadata={"a/b": 1})
        check("vm.metadata.set: a name that cannot be asked for", e["code"] == -32602 and "'a/b'" in e["message"], e)
        call("vm.device.add", id="hp", config=dict(disk=dict(path=d.dir + "/plugged")))
        call("vm.device.list", id="hp")
        call("vm.device.remove", id="hp", device="disk1", force=True)
        c.call("vm.kill", id="hp")
        call("vm.run", config=guest("hello"), wait=True)
        check("every answer is as rpc.discover says", True)
    except (AssertionError, RuntimeError) as e:
        check("every answer is as rpc.discover says", False, e)
    left = set(methods) - called
    check("every method was called", all(m.startswith("vm.exec") for m in left), left)


def case_clients(d):
    """The documented ways to speak to it."""
    env = dict(os.environ, INSULA_SOCKET=d.socket)

    def ctl(*args, **kw):
        return subprocess.run([BIN + "insulactl", *args], env=env, capture_output=True, text=True, timeout=60 * SLOW, stdin=subprocess.DEVNULL, **kw)

    script = os.path.join(HERE, "../../docs/examples/insulad_client.py")
    r = subprocess.run([sys.executable, script, d.socket, "daemon.info"], capture_output=True, text=True, timeout=60)
    check("the Python client of the documentation", json.loads(r.stdout or "{}").get("pid") == d.proc.pid, r.stderr)
    if shutil.which("socat") and shutil.which("jq"):
        r = subprocess.run("jq -nc '{jsonrpc:\"2.0\",id:1,method:\"vm.list\"}' | socat -t 5 - UNIX-CONNECT:%s | jq -c .result.vms" % d.socket, shell=True,
                           capture_output=True, text=True, timeout=60)
        check("socat and jq", r.stdout == "[]\n", r)
    else:
        print("skip daemon: socat and jq - not installed")
    r = ctl("run", "--kernel", BUILD + "/guests/hello.elf", "--mem", "16M")
    check("insulactl run: output and status", "Hello from a payload" in r.stdout and r.returncode == 42, r)
    r = ctl("create", "--name", "c1", "--kernel", os.path.relpath(BUILD + "/guests/spin.elf"), "--mem", "16M")
    check("insulactl create, with a relative path: the id alone", r.returncode == 0 and re.fullmatch("[0-9a-f]{16}\n", r.stdout) and r.stderr == "", r)
    r = ctl("--json", "create", "--name", "c1", "--kernel", os.path.relpath(BUILD + "/guests/spin.elf"), "--mem", "16M")
    check("insulactl --json create", r.returncode == 0 and json.loads(r.stdout)["name"] == "c1" and json.loads(r.stdout)["existed"], r)
    for verb, want in [("start", "running"), ("pause", "paused"), ("resume", "running")]:
        r = ctl(verb, "c1")
        check("insulactl %s" % verb, r.returncode == 0 and json.loads(r.stdout)["state"] == want, r)
    for args in (["ps"], ["ps", "--json"], ["--json", "ps"], ["ls"], ["list"]):
        r = ctl(*args)
        check("insulactl " + " ".join(args), [v["name"] for v in json.loads(r.stdout)["vms"]] == ["c1"], r)
    r = subprocess.run(["script", "-qec", BIN + "insulactl ps", "/dev/null"], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    check("insulactl ps on a terminal: a table", "NAME" in r.stdout and "c1" in r.stdout and "{" not in r.stdout, r)
    r = subprocess.run(["script", "-qec", BIN + "insulactl info c1", "/dev/null"], env=env, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    check("insulactl info on a terminal: readable lines", re.search(r"^config\.mem +16M\r?$", r.stdout, re.M) and re.search(r"^processes\[0\]\.name +insula-vmm", r.stdout, re.M) and
          "{" not in r.stdout, r)
    check("and JSON in a pipe", json.loads(ctl("info", "c1").stdout)["config"]["mem"] == "16M")
    r = ctl("metrics", "c1")
    check("insulactl metrics", json.loads(r.stdout)["run_ns"] > 0, r)
    r = ctl("metrics")
    check("insulactl metrics of the daemon", json.loads(r.stdout)["vms"]["running"] == 1, r)
    watch = subprocess.Popen([BIN + "insulactl", "events", "c1"], env=env, stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL)
    wait_for(lambda: d.client().call("daemon.metrics")["subscribers_now"] == 1)
    ctl("pause", "c1")
    ctl("resume", "c1")
    check("insulactl events", [json.loads(watch.stdout.readline())["event"] for _ in range(2)] == ["paused", "resumed"])
    watch.kill()
    watch.wait()
    r = ctl("logs", "c1")
    check("insulactl logs", r.returncode == 0 and r.stdout == "spinning\n", r)
    r = subprocess.run(["bash", "-c", """. "$1"; PATH=$2:$PATH; try() { COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); COMPREPLY=(); _insulactl; echo "${COMPREPLY[*]}"; }
        try insulactl st; try insulactl stop ''; try insulactl run --vs; try insulactl --socket x lo; try insulactl rm --fo""",
                        "-", BUILD + "/completion/bash/insulactl", BIN], env=env, capture_output=True, text=True, timeout=60)
    check("the completion for bash", r.stdout.split("\n")[:5] == ["start stats stop", "c1", "--vsock", "logs", "--force"], r)
    r = ctl("stop", "-t", "1", "c1")
    check("insulactl stop", json.loads(r.stdout)["reason"] == "stopped", r)
    r = ctl("wait", "c1")
    check("insulactl wait has the VM's status", r.returncode == 143, r)
    check("insulactl rm", ctl("rm", "c1").returncode == 0 and ctl("info", "c1").returncode == 1)
    r = ctl("run", "-d", "--name", "c2", "--kernel", BUILD + "/guests/spin.elf", "--mem", "16M")
    check("insulactl run -d: the id alone", r.returncode == 0 and r.stdout == d.client().call("vm.info", id="c2")["id"] + "\n" and r.stderr == "", r)
    ctl("create", "--name", "c3", "--kernel", BUILD + "/guests/spin.elf", "--mem", "16M")
    ctl("start", "c3")
    check("insulactl rm of one that runs", ctl("rm", "c3").returncode == 1)
    r = ctl("kill", "nobody", "no-one")
    check("of several VMs each that failed is named", r.returncode == 1 and r.stderr.count("\n") == 2 and
          all(n in line for n, line in zip(("nobody", "no-one"), r.stderr.splitlines())), r)
    ctl("create", "--name", "c4", "--kernel", BUILD + "/guests/spin.elf", "--mem", "16M")
    r = ctl("kill", "c4", "c4")
    check("also if the message does not name it", r.returncode == 1 and r.stderr.count("insulactl: c4: Wrong state") == 2, r)
    ctl("rm", "c4")
    r = ctl("create", "--name", "a/b", "--kernel", BUILD + "/guests/spin.elf")
    check("insulactl create with a bad name: status 2", r.returncode == 2 and "a/b" in r.stderr and r.stderr.count("\n") == 1, r)
    r = ctl("rm", "-f", "c2", "c3")
    check("insulactl rm -f", r.returncode == 0 and r.stdout == "" and ctl("ps").stdout == '{"vms":[]}\n', r)
    e = subprocess.Popen([BIN + "insulactl", "run", "-d", "--name", "e", "--kernel", BUILD + "/guests/echo.elf", "--mem", "16M"], env=env, stdout=subprocess.DEVNULL)
    e.wait()
    r = subprocess.run([BIN + "insulactl", "console", "e"], env=env, input="some words", capture_output=True, text=True, timeout=60 * SLOW)
    check("insulactl console detaches at the end of its input", r.returncode == 0 and "detached" in r.stderr and ctl("info", "e").returncode == 0, r)
    check("and all of that has been delivered", wait_for(lambda: "some words" in json.dumps(d.client().call("vm.logs", id="e")), 10), r)
    check("rm -f of one that is deleted at its end", ctl("rm", "-f", "e").returncode == 0)
    for flag, word in (("--rootfs", "nope"), ("--kernel", "nope"), ("--initrd", "nope"), ("--disk", "path=nope"), ("--share", "nope:/s:ro")):
        r = ctl("create", "--name", "nope", *(["--kernel", BUILD + "/guests/spin.elf"] if flag != "--kernel" else []), flag, word, cwd=d.dir)
        check("insulactl create: %s that is not there" % flag, r.returncode == 2 and "%s: %s/nope: No such file" % (flag, d.dir) in r.stderr, r)
    for args, words in ((["stopp", "x"], "did you mean stop?"), (["rm", "--forse", "x"], "did you mean --force?"), (["create", "--kernl", "x"], "did you mean --kernel?"),
                        (["start", "-f", "x"], "start has no '-f'"), (["stop", "-t"], "'-t' needs a value"), (["logs", "--since", "soon", "x"], "such as 10m"),
                        (["logs", "--tail", "-1", "x"], "a number of lines")):
        r = ctl(*args)
        check("insulactl %s: %s" % (" ".join(args), words), r.returncode == 2 and words in r.stderr and r.stderr.count("\n") == 1, r)
    r = ctl("rpc", "vm.info")
    check("insulactl rpc: what is missing", r.returncode == 1 and r.stderr == "insulactl: id is missing\n", r)
    r = ctl("rpc", "vm.inf", "{}")
    check("insulactl rpc: another method was meant", r.returncode == 1 and "did you mean vm.info?" in r.stderr, r)
    verbs = ctl("--complete").stdout.split()
    check("help of each verb, without a daemon", len(verbs) >= 17 and all(
        subprocess.run([BIN + "insulactl", "--socket", "/nonexistent", v, h], capture_output=True, text=True).stdout.startswith("usage: insulactl %s" % v)
        for v in verbs for h in ("-h", "--help")))
    with open(os.path.join(HERE, "../../docs/man/insulactl.1")) as f:
        page = f.read()
    check("the manual page has each verb", all(re.search(r"^\.It Cm (.* )?%s\b" % v, page, re.M) for v in verbs), [v for v in verbs if not re.search(r"^\.It Cm (.* )?%s\b" % v, page, re.M)])
    r = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=60)
    check("the Python client without arguments", r.returncode == 2 and r.stderr.startswith("usage: "), r)
    if os.getuid() == 0:
        private = Daemon(socket_mode="0600")
        r = subprocess.run(["setpriv", "--reuid", "4001", "--clear-groups", BIN + "insulactl", "--socket", private.socket, "ps"], capture_output=True, text=True, timeout=60)
        check("insulactl: a socket of others names socket_group", r.returncode == 125 and "socket_group" in r.stderr, r)
        private.stop()
    open(d.dir + "/a", "w").close()
    os.mkdir(d.dir + "/d")
    r = subprocess.run([BIN + "insulactl", "create", "--name", "all", "--mem", "1G", "--share", "d:/s:ro", "--net", "user,fwd=tcp:8080:80", "--vsock", "cid=7,path=v",
                        "--rng", "rate=64K", "--disk", "ro,path=a", "--disk", "path=/dev/null", "--disk", "a,overlay=o", "--disk", "a,overlay=discard", "--console", "file=c", "-it", "-e", "A=1", "-e", "UNSET_HERE", "-e", "FROM",
                        "-w", "/tmp", "-u", "1:2", "--", "sh", "-c", "x"],
                       env=dict(env, FROM="here"), cwd=d.dir, capture_output=True, text=True, timeout=60)
    want = dict(mem="1G", shares=[d.dir + "/d:/s:ro"], nets=["user,fwd=tcp:8080:80"], vsock="cid=7,path=%s/v" % d.dir, rng="rate=64K",
                disks=["ro,path=%s/a" % d.dir, "path=/dev/null", "{0}/a,overlay={0}/o".format(d.dir), d.dir + "/a,overlay=discard"], console="file=%s/c" % d.dir, interactive=True, tty=True, env=["A=1", "FROM=here"], cwd="/tmp", user="1:2",
                command=["sh", "-c", "x"])
    got = d.client().call("vm.info", id="all")["config"] if r.returncode == 0 else r
    check("insulactl create takes the flags of insula-run", got == want, got)
    ctl("rm", "all")
    flags = subprocess.run([BIN + "insula-run", "--help"], capture_output=True, text=True).stdout
    longs = set(re.findall(r"^  (--[a-z]+) ", flags, re.M)) - {"--json", "--help", "--version"}
    known = ctl("--complete", "run").stdout.split()
    check("the completion knows them all", len(longs) >= 14 and all(f in known for f in longs), [f for f in longs if f not in known])
    for name, bad in (("shares", ["d:/s"]), ("vsock", "path=v"), ("nets", ["socket=s"]), ("disks", ["path=d"]), ("disks", ["/d,overlay=o"]), ("kernel", "k"), ("console", "file=c")):
        e = refused(d.client(), "vm.create", config={name: bad})
        check("a relative path in %s is refused" % name, e["code"] == -32602 and e["data"]["field"] == "config." + name + "[0]" * isinstance(bad, list) and e["data"]["expected"] == "an absolute path", e)
    r = ctl("rpc", "vm.info", '{"id": "no"}')
    e = refused(d.client(), "vm.create", config=dict(disks=["/a", dict(path="/b", serial="")]))
    check("a refused configuration is told as data", e["data"] == dict(reason="config", field="config.disks[1].serial", value="", expected="1 to 20 characters") and
          e["message"] == "Invalid params: disks: serial ''; expected 1 to 20 characters", e)
    e = refused(d.client(), "vm.create", config=dict(cpu=1))
    check("and an unknown member with the nearest", e["data"] == dict(reason="config", field="config.cpu", expected="cpus") and "did you mean 'cpus'?" in e["message"], e)
    bad = ctl("create", "--mem", "1X")
    check("insulactl create with a bad setting: status 2", bad.returncode == 2, bad)
    said = bad.stderr
    check("insulactl create: what is wrong is said once", said.count("1X") == 1 and said.count("mem") == 1 and said.count("\n") == 1, said)
    check("insulactl rpc: a refusal", r.returncode == 1 and "Not found" in r.stderr, r)
    for args in (["frobnicate"], [], ["ps", "x"], ["stop", "-t", "x", "y"], ["--bad"], ["run", "--unknown"], ["run", "--config", "/nonexistent"]):
        r = ctl(*args)
        check("insulactl %s: status 2 and one line" % " ".join(args), r.returncode == 2 and r.stderr.count("\n") == 1, r)
    r = ctl("run", "--mem", "16M", "--bogus")
    check("insulactl names the flag that it does not know", "'--bogus'" in r.stderr, r)


def case_verbs(d):
    """insulactl's verbs about VMs, as people know them from elsewhere. What needs a Linux guest is in tests/lab/71-verbs.sh."""
    env = dict(os.environ, INSULA_SOCKET=d.socket)
    hello, spin, echo = (["--kernel", BUILD + "/guests/%s.elf" % k] for k in ("hello", "spin", "echo"))
    c = d.client()

    def ctl(*args, **kw):
        return subprocess.run([BIN + "insulactl", *args], **dict(dict(env=env, capture_output=True, text=True, timeout=60 * SLOW, stdin=subprocess.DEVNULL), **kw))

    def on_terminal(words, typed=""):
        return subprocess.run(["script", "-qec", BIN + "insulactl " + words, "/dev/null"], env=env, input=typed, capture_output=True, text=True, timeout=60 * SLOW)

    def names(*args):
        return [v["name"] for v in json.loads(ctl("ps", *args).stdout)["vms"]]

    # run: its record stays, unless --rm
    r = ctl("run", "--name", "kept", "-m", "16M", *hello)
    check("insulactl run: the command's status, and a record", (r.returncode, names("-a"), names()) == (42, ["kept"], []), (r, names("-a")))
    check("its log is there", "Hello from a payload" in ctl("logs", "kept").stdout)
    r = ctl("run", "--name", "kept", "-m", "16M", *hello)
    check("its name is taken", r.returncode == 1 and "kept" in r.stderr and r.stderr.count("\n") == 1, r)
    check("it can be started again", ctl("start", "kept").returncode == 0 and ctl("wait", "kept").returncode == 42)
    r = ctl("run", "--rm", "--name", "gone", "--memory", "16M", *hello)
    check("insulactl run --rm", r.returncode == 42 and ctl("info", "gone").returncode == 1, r)
    r = ctl("run", "--rm", "-d", "--name", "r", "-m", "16M", *spin)
    ctl("kill", "r")
    check("insulactl run --rm -d: the record goes with the VM", re.fullmatch("[0-9a-f]{16}\n", r.stdout) and "r" not in names("-a"), r)
    for sig, status in ((signal.SIGINT, 130), (signal.SIGTERM, 143)):
        p = subprocess.Popen([BIN + "insulactl", "run", "-m", "16M", *spin], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        p.stdout.read(5)
        p.send_signal(sig)
        check("insulactl run: signal %d ends the VM, as insula-run's" % sig, p.wait(30 * SLOW) == status and names() == [], (p.returncode, names()))
        p.communicate()
    for rm in (True, False):
        p = subprocess.Popen([BIN + "insulactl", "run", *["--rm"] * rm, "--name", "orphan", "-m", "16M", *spin], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        p.stdout.read(5)
        p.kill()
        p.communicate()
        runs = names() == ["orphan"]
        ctl("kill", "orphan")
        check("kill -9 of insulactl run%s: the VM goes on, its record %s" % (" --rm" * rm, "goes with it" if rm else "stays"),
              runs and ("orphan" in names("-a")) == (not rm), (runs, names("-a")))
    p = subprocess.Popen([BIN + "insulactl", "run", "--name", "hup", "-m", "16M", *spin], env=env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p.stdout.read(5)
    p.send_signal(signal.SIGHUP)
    check("the end of its terminal is not the VM's", p.wait(30 * SLOW) == 129 and names() == ["hup"], p.returncode)
    p.communicate()

    # the flags that others have
    with open(d.dir + "/env", "w") as f:
        f.write("# a comment\nA=1\n\nFROM\nUNSET_HERE\nB=two words\r\n")
    r = ctl("create", "--name", "flags", "-itm", "1G", "-c", "2", "-p", "8080:80", "--publish", "127.0.0.1:53:53/udp", "-p", "1,2:3", cwd=d.dir)
    os.mkdir(d.dir + "/vol")
    bad = r
    r = ctl("create", "--name", "flags", "-itm", "1G", "-c", "2", "-p", "8080:80", "--publish", "127.0.0.1:53:53/udp", "-v", "vol:/s:ro", "--volume", "/tmp:/t:ro",
            "--env-file", "env", "-e", "C=3", "--env", "D=4", "--workdir", "/tmp", "--user", "1:2", "--", "sh", cwd=d.dir, env=dict(env, FROM="here"))
    want = dict(mem="1G", cpus="2", nets=["user,fwd=8080:80,fwd=udp:127.0.0.1:53:53"], shares=[d.dir + "/vol:/s:ro", "/tmp:/t:ro"], interactive=True, tty=True,
                env=["A=1", "FROM=here", "B=two words", "C=3", "D=4"], cwd="/tmp", user="1:2", command=["sh"])
    got = c.call("vm.info", id="flags")["config"] if r.returncode == 0 else r
    check("insulactl create: the flags of others", got == want, got)
    check("insulactl -p: a port that is none, with its comma", bad.returncode == 2 and "1,2:3" in bad.stderr and bad.stderr.count("\n") == 1, bad)
    ctl("rm", "flags")
    for args, want in ((["alpine:3", "sh", "-c", "x"], dict(image="alpine:3", command=["sh", "-c", "x"])), (["-e", "A=--", "oci:vol:tag"], dict(image="oci:%s/vol:tag" % d.dir, env=["A=--"])),
                       (["-e", "--", "one", "--", "-x"], dict(image="one", command=["--", "-x"])), (["--", "alpine:3"], dict(command=["alpine:3"])), ([], {})):
        r = ctl("create", "--name", "img", *args, cwd=d.dir)
        got = c.call("vm.info", id="img")["config"] if r.returncode == 0 else r
        check("insulactl create %s" % " ".join(args), got == want, got)
        ctl("rm", "img")
    ctl("create", "--name", "flags", *spin)
    for nets, flags, want in (('["user,mtu=1400"]', ["-p", "1:2"], ["user,mtu=1400,fwd=1:2"]),
                              ('[{"user": true, "fwd": "3:4"}]', ["-p", "1:2/tcp"], [dict(user=True, fwd=["3:4", "tcp:1:2"])]),
                              ('[{"tap": "t0"}, "user"]', ["-p", "1:2", "-p", "5:6"], [dict(tap="t0"), "user,fwd=1:2,fwd=5:6"])):
        with open(d.dir + "/nets", "w") as f:
            f.write('{"nets": %s}' % nets)
        r = ctl("create", "--name", "n", "--config", d.dir + "/nets", *flags)
        got = c.call("vm.info", id="n")["config"]["nets"] if r.returncode == 0 else r
        check("insulactl -p beside %s" % nets, got == want, got)
        ctl("rm", "n")
    for args, words in ((["create", "--rm"], "--rm"), (["run", "--env-file", "/nonexistent"], "--env-file: /nonexistent: No such file"), (["run", "-m", "1X", *spin], "1X"),
                        (["run", "-c", "0", *spin], "cpus"), (["run", "-p"], "'-p' needs a value"), (["run", "--publsh", "x"], "did you mean --publish?"),
                        (["ps", "--filter", "x=y"], "expected name="), (["cp", "a", "b"], "VM:PATH"), (["cp", "a:b", "c:d"], "VM:PATH"), (["cp", "a:", "b"], "empty path"),
                        (["top"], "top"), (["inspect"], "inspect")):
        r = ctl(*args)
        check("insulactl %s: status 2 and one line" % " ".join(args[:2]), r.returncode == 2 and words in r.stderr and r.stderr.count("\n") == 1, r)

    # ps
    check("insulactl ps: those that run", names() == ["hup"] and {"hup", "kept", "flags", "orphan"} <= set(names("-a")), names("-a"))
    check("insulactl ps --filter", names("--filter", "state=created") == ["flags"] and sorted(names("-a", "--filter", "name=p")) == ["hup", "kept", "orphan"] and
          names("--filter", "name=p", "--filter", "status=ended", "--filter", "name=k") == ["kept"], names("--filter", "name=p"))
    ids = {v["name"]: v["id"] for v in c.call("vm.list")["vms"]}
    check("insulactl ps -q", ctl("ps", "-q").stdout == ids["hup"] + "\n" and sorted(ctl("ps", "-aq").stdout.split()) == sorted(ids.values()))
    check("insulactl ps --filter id=", names("-a", "--filter", "id=" + ids["kept"][:12]) == ["kept"])

    # inspect, stats
    r = ctl("inspect", "hup", "kept", "nobody")
    check("insulactl inspect: what there is, and what is not", r.returncode == 1 and [v["name"] for v in json.loads(r.stdout)] == ["hup", "kept"] and r.stderr.count("\n") == 1 and
          r.stderr.startswith("insulactl: nobody: "), r)
    check("with configuration and processes", json.loads(ctl("inspect", "hup").stdout)[0]["config"]["mem"] == "16M" and json.loads(ctl("inspect", "hup").stdout)[0]["processes"])
    a = c.call("vm.stats", id="hup")
    time.sleep(0.5)
    b = c.call("vm.stats", id="hup")
    check("vm.stats: a processor that works", b["time_ns"] > a["time_ns"] and b["cpu_ns"] > a["cpu_ns"] and 0 < b["mem_bytes"] and b["mem_max"] == 16 << 20, (a, b))
    e = refused(c, "vm.stats", id="kept")
    check("vm.stats of one that has ended", e["code"] == -32003 and e["data"]["value"] == "ended", e)
    r = ctl("stats", "--no-stream")
    v = json.loads(r.stdout)["vms"]
    check("insulactl stats: of all that run", [x["name"] for x in v] == ["hup"] and v[0]["cpu_percent"] > 0, r)
    r = on_terminal("stats --no-stream hup")
    check("insulactl stats on a terminal: a table", re.search(r"^[0-9a-f]{16}  hup +[0-9.]+%  +[0-9.]+M / 16.0M", r.stdout, re.M) and "{" not in r.stdout, r)
    r = ctl("stats", "--no-stream", "kept")
    check("insulactl stats of one that has ended", r.returncode == 1 and r.stderr.count("\n") == 1, r)
    p = subprocess.Popen([BIN + "insulactl", "stats", "hup"], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    rounds = [json.loads(p.stdout.readline())["vms"][0] for _ in range(2)]
    ctl("kill", "hup")
    rest = p.communicate(timeout=30 * SLOW)
    check("insulactl stats goes on until the VM ends", rounds[1]["time_ns"] > rounds[0]["time_ns"] and p.returncode == 1 and rest[1].startswith("insulactl: Wrong state"), rest)
    # A disk that the guest does not use has counters all the same: its process was asked.
    with open(d.dir + "/disk", "w") as f:
        f.truncate(1 << 20)
    ctl("run", "-d", "--name", "disk", "-m", "16M", "--disk", d.dir + "/disk", *spin)
    check("vm.stats has its disk", wait_for(lambda: c.call("vm.stats", id="disk").get("disk_read_bytes") == 0), c.call("vm.stats", id="disk"))
    m = c.call("vm.metrics", id="disk")
    check("vm.metrics has the counters of each device", [x["name"] for x in m["devices"]] == ["com1", "vda", "rng"] and "reads" in m["devices"][1]["helper"], m)
    helper = [x["pid"] for x in c.call("vm.info", id="disk")["processes"] if x["name"].startswith("insula-blk")][0]
    freeze(helper)
    for _ in range(50):
        c.call("vm.stats", id="disk")
    check("a helper that does not answer is asked once", c.call("vm.info", id="disk")["state"] == "running")
    os.kill(helper, signal.SIGCONT)
    check("and goes on", wait_for(lambda: c.call("vm.info", id="disk")["devices"][1]["state"] == "ok" and c.call("vm.stats", id="disk")), c.call("vm.info", id="disk")["devices"])

    # what no payload has
    for args in (["top", "disk"], ["cp", "disk:/x", d.dir], ["cp", d.dir + "/env", "disk:/"], ["cp", "disk:/x", "-"]):
        r = ctl(*args)
        check("insulactl %s: a guest without commands" % args[0], r.returncode == 1 and "does not boot Insula's own initrd" in r.stderr and r.stderr.count("\n") == 1, r)
    r = ctl("cp", d.dir + "/nope", "disk:/")
    check("insulactl cp of what is not there", r.returncode == 125 and d.dir + "/nope: No such file" in r.stderr, r)
    r = ctl("cp", "disk:/x", "/nonexistent/y")
    check("insulactl cp to where nothing is", r.returncode == 125 and "/nonexistent: No such file" in r.stderr, r)
    r = ctl("cp", "disk:/x", "/dev/null")
    check("insulactl cp onto a device of the host", r.returncode == 2 and "/dev/null" in r.stderr and stat.S_ISCHR(os.stat("/dev/null").st_mode), r)

    # the end of several
    r = ctl("rm", "disk", "kept", "nobody")
    check("insulactl rm says which it could not", r.returncode == 1 and [x.split(":")[1] for x in r.stderr.splitlines()] == [" disk", " nobody"] and "kept" not in names("-a"), r)
    start = time.monotonic()
    r = ctl("rm", "-f", "disk", "nobody", "flags")
    check("insulactl rm -f: kills, at once, and deletes", r.returncode == 1 and r.stderr.startswith("insulactl: nobody: ") and r.stderr.count("\n") == 1 and
          not {"disk", "flags"} & set(names("-a")) and time.monotonic() - start < 5 * SLOW, r)
    ctl("run", "-d", "--name", "a", "-m", "16M", *spin)
    for verb in ("start", "kill", "stop", "pause", "resume"):
        r = ctl(verb, "a", "b")
        check("insulactl %s of several: each is named, also by a letter" % verb, r.returncode == 1 and [x[:13] for x in r.stderr.splitlines()] in
              (["insulactl: b:"], ["insulactl: a:", "insulactl: b:"]), r)
    ended = set(names("-a"))
    r = on_terminal("prune", "n\n")
    check("insulactl prune asks on a terminal", "[y/N]" in r.stdout and set(names("-a")) == ended, r)
    c.call("vm.create", name="made", config=guest("spin"))
    ctl("run", "-d", "--name", "runs", "-m", "16M", *spin)
    r = ctl("prune")
    check("insulactl prune: all that has ended", r.returncode == 0 and len(json.loads(r.stdout)["removed"]) == len(ended), r)
    check("insulactl prune leaves what was created and what runs", sorted(names("-a")) == ["made", "runs"], names("-a"))
    ctl("kill", "runs")
    r = on_terminal("prune -f")
    check("insulactl prune -f does not ask, and says what it removed", "[y/N]" not in r.stdout and re.search("^[0-9a-f]{16}  runs", r.stdout, re.M) and names("-a") == ["made"], r)
    ctl("rm", "made")
    r = c.call("vm.run", config=guest("hello"), wait=True, keep=True)
    check("vm.run with keep", r["status"] == 42 and c.call("vm.info", id=r["id"])["state"] == "ended", r)
    ctl("prune")


def case_vmlog(d):
    """The log of a VM, as RPC has it; tests/unit/test_vmlog.c has its bounds, tests/lab/70-daemon.sh the streams of commands."""
    c = d.client()
    c.call("vm.create", name="h", config=guest("hello"))
    check("before the start there is nothing", c.call("vm.logs", id="h")["lines"] == [])
    c.call("vm.start", id="h", wait=True)
    r = c.call("vm.logs", id="h")
    got = [(x["stream"], x["text"]) for x in r["lines"]]
    check("the console, after the end", got == [("console", "Hello from a payload (PVH)")] and (r["end"], r["more"]) == (True, False), r)
    check("with its time", abs(r["lines"][0]["time_ms"] / 1000 - time.time()) < 60 * SLOW, r)
    check("and then no more", c.call("vm.logs", id="h", after=r["next"])["lines"] == [], r)
    for params in (dict(after="x"), dict(after="1.2.3"), dict(tail=-1), dict(limit=0), dict(limit=1 << 30), dict(bytes=1)):
        e = refused(c, "vm.logs", id="h", **params)
        check("vm.logs with %s" % params, e["code"] == -32602, e)
    v = c.call("vm.start", id="h", wait=True)
    check("and that of the run before", len(c.call("vm.logs", id="h")["lines"]) == 2, v)
    d.restart()
    c = d.client()
    check("another insulad has it", [x["text"] for x in c.call("vm.logs", id="h")["lines"]] == ["Hello from a payload (PVH)"] * 2)
    # Followed, to the end of a VM that is deleted then.
    mine, theirs = socket.socketpair()
    c.call("vm.run", fds=[theirs.fileno()], name="e", config=guest("echo"))
    theirs.close()
    f = d.client()
    f.sock.sendall(b'{"jsonrpc":"2.0","id":"f","method":"vm.logs","params":{"id":"e","follow":true}}\n')
    f.sock.settimeout(30 * SLOW)

    def page(until):
        text = ""
        while until not in text:
            line = f.line()
            if "id" in line:
                return line, text + "".join(x["text"] + "\n" for x in line["result"]["lines"])
            assert (line["method"], line["params"]["request"]) == ("log", "f"), line
            text += "".join(x["text"] + "\n" for x in line["params"]["lines"])
        return None, text

    check("followed: what was there", "echo ready" in page("ready")[1])
    d.client().call("vm.info", id="e")
    mine.sendall(b"first words")
    answer, text = page("first words")
    check("a line without an end comes too", answer is None, text)
    mine.sendall(b"q")
    answer, text = page("never")
    check("the last words of one that is deleted, then the answer", "echo done" in text and answer["result"]["end"], (answer, text))
    check("it is gone", refused(c, "vm.logs", id="e")["code"] == -32001)
    mine.close()
    # Whoever asks much, or does not read, harms nobody.
    c.call("vm.create", name="s", config=guest("spin"))
    c.call("vm.start", id="s")
    fds = "/proc/%d/fd" % d.proc.pid
    before = len(os.listdir(fds))
    many = d.client()
    many.sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"vm.logs","params":{"id":"s","follow":true}}\n' * 64)
    check("64 follow at once" if os.getuid() == 0 else "32 follow at once", wait_for(lambda: len(os.listdir(fds)) >= before + 64, 10))
    many.sock.close()
    check("and when their client goes they do", wait_for(lambda: len(os.listdir(fds)) <= before + 8, 10), os.listdir(fds))
    wait_for(lambda: c.call("vm.logs", id="s")["lines"], 10)
    os.kill(c.call("vm.info", id="s")["pid"], signal.SIGKILL)
    check("of a supervisor that was killed there is what it had written", wait_for(lambda: c.call("vm.logs", id="s")["end"], 10)
          and c.call("vm.logs", id="s")["lines"][0]["text"] == "spinning", c.call("vm.logs", id="s"))
    v = c.call("vm.info", id="s")
    with open("%s/vm/%s/log" % (d.state, v["id"]), "ab") as log:
        log.write(b"panic: raw\x1b\n" + b"\xff" * 100)
    lines = c.call("vm.logs", id="s")["lines"]
    check("what is no record is the supervisor's, and clean", [(x["stream"], x["text"]) for x in lines[-2:]] == [("insula", "panic: raw?"), ("insula", "?" * 100)], lines)
    for name in ("h", "s"):
        c.call("vm.delete", id=name)


def case_escapes(_):
    """What a supervisor that was taken over words does not reach the terminal as an escape sequence."""
    evil = "a\x1b]0;x\x07b\x9b2Jc"
    path = os.path.join(tempfile.mkdtemp(), "s")
    answers = {"metrics": {evil: evil}, "wait": {"message": evil, "status": 3}}
    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen()
        for verb, flags in (("metrics", ""), ("metrics", "--json "), ("wait", "")):
            p = subprocess.Popen(["script", "-qec", "%sinsulactl %s--socket %s %s x" % (BIN, flags, path, verb), "/dev/null"],
                                 stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
            s.settimeout(10 * SLOW)
            c, _ = s.accept()
            with c:
                n = json.loads(c.makefile().readline())["id"]
                c.sendall(json.dumps({"jsonrpc": "2.0", "id": n, "result": answers[verb]}, ensure_ascii=False).encode() + b"\n")
                out = p.communicate(timeout=10 * SLOW)[0].decode()
            check("insulactl %s%s: no escape sequence reaches the terminal" % (flags, verb), "2Jc" in out and not re.search("[\x1b\x07\x9b]", out), repr(out))
    shutil.rmtree(os.path.dirname(path))


def case_foreign_exec(_):
    """insulactl exec as root in another user's VM gives pipes away. What is in them at the end is copied, and a reader that does not read
    can be left."""
    if os.getuid():
        print("skip daemon: exec in another user's VM - not root")
        return
    path = os.path.join(tempfile.mkdtemp(), "s")
    answers = {"vm.info": {"id": "ab", "uid": 4001}, "vm.exec": {"exec": 1}, "vm.exec.wait": {"status": 5, "reason": "status"}}

    def run(end):
        r, w = os.pipe()
        p = subprocess.Popen([BIN + "insulactl", "--socket", path, "exec", "x", "--", "c"], stdout=w, stdin=subprocess.DEVNULL)
        os.close(w)
        c, _ = s.accept()
        fds, text, written = [], b"", 0
        for _ in answers:
            while b"\n" not in text:
                data, anc, _, _ = c.recvmsg(65536, socket.CMSG_SPACE(12))
                text += data
                for _, _, more in anc:
                    fds += [int.from_bytes(more[k:k + 4], "little") for k in range(0, len(more), 4)]
            line, text = text.split(b"\n", 1)
            q = json.loads(line)
            until = time.monotonic() + 0.5
            while q["method"] == "vm.exec.wait" and time.monotonic() < until:
                os.set_blocking(fds[0], False)
                try:
                    written += os.write(fds[0], b"x" * 4096)
                except BlockingIOError:
                    time.sleep(0.01)
            c.sendall(json.dumps({"jsonrpc": "2.0", "id": q["id"], "result": answers[q["method"]]}).encode() + b"\n")
        kinds = {stat.S_ISFIFO(os.fstat(fd).st_mode) for fd in fds}
        out = end(p, r)
        for fd in fds + [r]:
            os.close(fd)
        c.close()
        return len(fds), kinds, written, out

    def read_all(p, r):
        n = 0
        while b := os.read(r, 65536):
            n += len(b)
        return n, p.wait()

    def leave(p, _):
        time.sleep(0.3)
        p.send_signal(signal.SIGTERM)
        return p.wait(10 * SLOW)

    with socket.socket(socket.AF_UNIX) as s:
        s.bind(path)
        s.listen()
        n, kinds, written, out = run(read_all)
        check("exec in another user's VM: pipes", (n, kinds) == (2, {True}), (n, kinds))
        check("exec in another user's VM: all of the output", out == (written, 5) and written > 65536, (written, out))
        out = run(leave)[3]
        check("exec in another user's VM: a signal ends the wait for a reader", out == 143, out)
    shutil.rmtree(os.path.dirname(path))


def case_metrics(d):
    s = socket.socket(socket.AF_UNIX)
    s.connect(d.dir + "/m")
    s.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
    text = b""
    while more := s.recv(65536):
        text += more
    head, _, body = text.partition(b"\r\n\r\n")
    lines = [line.split() for line in body.decode().splitlines() if not line.startswith("#")]
    s.close()
    check("no counter has a label, and each says that it is one", all(x[0].endswith("_total") or x[0].startswith("insulad_vms{state=") for x in lines) and
          ["insulad_vm_restarts_total"] == [x[0] for x in lines if "restarts" in x[0]], lines)
    check("metrics for Prometheus", head.startswith(b"HTTP/1.0 200") and lines and all(len(x) == 2 and x[1].isdigit() for x in lines), text[:200])


def scraper(d, *parts):
    s = socket.socket(socket.AF_UNIX)
    s.settimeout(10 * SLOW)
    s.connect(d.dir + "/m")
    for part in parts:
        s.sendall(part)
        time.sleep(0.1)
    return s


def case_slow_scraper(d):
    before = footprint(d)["fds"]
    s = scraper(d, b"GET / HTTP/1.0\r\n", b"Host: x\r\n", b"\r\n")
    check("a scraper may send its header in pieces", s.recv(12) == b"HTTP/1.0 200")
    s.close()
    half = scraper(d, b"GET / HTTP/1.0\r\n", b"Host: x\r\n")
    x = idle_wakeups(d)
    time.sleep(0.5)
    check("half a header costs nothing", idle_wakeups(d) - x <= 1, idle_wakeups(d) - x)
    half.close()
    long = scraper(d, b"GET / HTTP/1.0\r\n", b"X: " + b"y" * 8000)
    try:
        left = long.recv(1)
    except ConnectionResetError:
        left = b""
    check("a header without an end is cut off", left == b"")
    long.close()
    wait_for(lambda: footprint(d)["fds"] <= before)
    check("scrapers that went are gone", footprint(d)["fds"] <= before, (before, footprint(d)))


def idle_wakeups(d):
    with open("/proc/%d/status" % d.proc.pid) as f:
        return sum(int(line.split()[1]) for line in f if "ctxt_switches" in line)


def case_idle(d):
    c = d.client()
    n = 3 if ONE else 20
    for i in range(n):
        c.call("vm.run", name="i%d" % i, config=guest("idle"))
    time.sleep(1)
    x = idle_wakeups(d)
    time.sleep(3)
    check("an idle daemon with %d VMs does not wake up" % n, idle_wakeups(d) - x <= 1, idle_wakeups(d) - x)
    for i in range(n):
        c.call("vm.kill", id="i%d" % i)

# ---- descriptors that others have made


def lingering(n):
    """n sockets whose close() would wait ten minutes, each for a peer that does not read; the other ends."""
    out, ends = [], []
    with socket.socket() as door:
        door.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        door.bind(("127.0.0.1", 0))
        door.listen(n)
        for _ in range(n):
            s = socket.socket()
            s.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
            s.connect(door.getsockname())
            ends.append(door.accept()[0])
            s.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 600))
            s.setblocking(False)
            out.append(s)
    full = 0
    while full < 5:  # times that nobody has taken anything
        sent = 0
        for s in out:
            try:
                sent += s.send(b"x" * 65536)
            except BlockingIOError:
                pass
        full = 0 if sent else full + 1
        time.sleep(0.02)
    return out, ends


def send_fds(sock, line, fds):
    sock.sendmsg([line], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])


def served(d):
    """Somebody else is served: long before the sockets above are closed."""
    c = d.client()
    c.sock.settimeout(60 * SLOW)
    try:
        return c.call("daemon.info")["pid"] == d.proc.pid
    except TimeoutError:
        return False


def case_foreign(d):
    """What a client sends cannot be closed at once: nobody else waits."""
    c = d.client()
    c.call("vm.create", name="w", config=guest("spin"))
    at_first = settled(d)
    before = at_first["fds"]
    line = b'{"jsonrpc":"2.0","id":1,"method":"daemon.info"}\n'
    wait = b'{"jsonrpc":"2.0","id":1,"method":"vm.wait","params":{"id":"w"}}\n'

    def given(what, n, send):
        """insulad holds the last descriptor of each."""
        socks, ends = lingering(n)
        mine = d.client()
        freeze(d.proc.pid)
        send(mine.sock, socks)
        for s in socks:
            s.close()
        d.proc.send_signal(signal.SIGCONT)
        check("sockets that linger, %s: others are served" % what, served(d))
        mine.sock.close()
        check("sockets that linger, %s: others are served when that client has gone" % what, served(d))
        check("sockets that linger, %s: they are closed" % what, wait_for(lambda: settled(d)["fds"] <= before, 30), (before, settled(d)))
        for e in ends:
            e.close()

    def one_by_one(sock, socks):
        for s in socks:
            send_fds(sock, line, [s.fileno()])

    def unread(sock, socks):
        sock.sendall(wait * 64)
        for s in socks:
            send_fds(sock, line, [s.fileno()])

    given("one in each request", 10, one_by_one)
    given("a hundred in one", 100, lambda sock, socks: send_fds(sock, line, [s.fileno() for s in socks]))
    given("in requests that are not read", 10, unread)
    c.call("vm.delete", id="w")
    if os.getuid() or not os.path.exists("/dev/fuse"):
        print("skip daemon: files of a FUSE server that does not answer - not root, or no /dev/fuse")
        return
    silent_files(d, at_first["threads"])


def silent_files(d, threads):
    """Files of a FUSE server that answers no FLUSH: nothing ends their close() but that server."""
    place = d.dir + "/fuse"
    os.mkdir(place)
    server = subprocess.Popen([sys.executable, os.path.join(HERE, "fuse.py"), place], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    if server.stdout.readline() != b"mounted\n":
        server.wait()
        print("skip daemon: files of a FUSE server that does not answer - it cannot be mounted")
        return
    wait_for(lambda: settled(d)["threads"] <= threads, 30)  # those of the sockets before
    before, child, old = settled(d), os.fork(), d.proc
    if child == 0:
        os.setgid(4001)
        os.setuid(4001)
        c = Insulad(d.socket)
        fd = os.open(place + "/file", os.O_RDONLY)
        c.sock.settimeout(5)
        try:
            for _ in range(100):
                send_fds(c.sock, b'{"jsonrpc":"2.0","id":1,"method":"daemon.info"}\n', [fd])
        finally:
            os._exit(0)  # this waits for the server too
    try:
        check("files whose close() never ends: others are served", wait_for(lambda: settled(d)["threads"] > before["threads"]) and served(d))
        check("files whose close() never ends: they have few threads", settled(d)["threads"] <= before["threads"] + 8, settled(d))
        c = d.client()
        c.sock.settimeout(60 * SLOW)
        r = c.call("vm.run", config=guest("hello"), wait=True)
        check("files whose close() never ends: VMs start and end", (r["reason"], r["status"]) == ("status", 42), r)
        old.kill()  # its process cannot end, but its first thread does
        wait_for(lambda: open("/proc/%d/stat" % old.pid).read().rsplit(")", 1)[1].split()[0] == "Z", 30)
        d.start()
        check("files whose close() never ends: a killed insulad has a successor all the same", served(d))
    except TimeoutError:
        check("files whose close() never ends: VMs start and end", False)
    finally:
        server.stdin.write(b"x")  # it answers from now on
        server.stdin.close()
        server.wait(60)
        os.waitpid(child, 0)
        os.rmdir(place)
        if old != d.proc:
            old.wait(60)
    check("files whose close() ends at last: nothing is left", wait_for(lambda: settled(d)["threads"] <= before["threads"], 30), (before, settled(d)))


def said_to(c):
    """What a fresh connection is answered, also one that is closed over it."""
    c.sock.settimeout(10 * SLOW)
    try:
        c.sock.sendall(b'{"jsonrpc":"2.0","id":1,"method":"daemon.info"}\n')
    except BrokenPipeError:
        pass
    try:
        return c.line()
    except ConnectionResetError:
        return c.line()


def case_silence(_):
    """A connection that sends nothing and waits for nothing is closed."""
    d = Daemon(idle_timeout=2)
    c = d.client()
    c.call("vm.create", name="s", config=guest("spin"))
    subscriber, waiter, busy, silent = d.client(), d.client(), d.client(), d.client()
    subscriber.call("events.subscribe")
    waiter.sock.sendall(b'{"jsonrpc":"2.0","id":"w","method":"vm.wait","params":{"id":"s"}}\n')
    silent.sock.settimeout(60 * SLOW)
    end = time.monotonic() + 5
    alive = True
    while time.monotonic() < end:
        time.sleep(0.2)
        try:
            busy.call("daemon.info")
        except ConnectionError:
            alive = False
    check("a silent connection is closed", silent.sock.recv(1) == b"")
    check("one that asks now and then is not", alive)
    d.client().call("vm.delete", id="s")
    check("nor one that waits for an answer", waiter.line()["id"] == "w")
    check("nor a subscriber", subscriber.line()["params"]["event"] == "deleted")
    check("insulad ends with 0", d.stop() == 0)


def case_full_disk(d):
    """The disk of the state directory gets full under a VM: its end is told all the same."""
    if os.getuid():
        print("skip daemon: a full disk - not root")
        return
    place = d.dir + "/small"
    os.mkdir(place, 0o700)
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1M,mode=0700", "small", place], capture_output=True).returncode:
        print("skip daemon: a full disk - it cannot be mounted")
        return
    other = None
    try:
        other = Daemon(state_dir=place)
        c = other.client()
        v = c.call("vm.create", name="full", config=guest("spin"))
        c.call("vm.create", name="late", config=guest("spin"))
        c.call("vm.start", id="full")
        with open(place + "/much", "wb", buffering=0) as f:
            try:
                while f.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        e = refused(c, "vm.start", id="late")
        check("without room for its result no VM starts, in words", e["code"] == -32005 and "No space left" in e["message"], e)
        r = c.call("vm.stop", id="full")
        check("the end of a VM is told on a full disk", (r["reason"], r["status"]) == ("stopped", 143), r)
        other.restart()
        r = {x["id"]: x for x in other.client().call("vm.list")["vms"]}[v["id"]]
        check("and by the next insulad", (r["state"], r["reason"]) == ("ended", "stopped"), r)
        os.unlink(place + "/much")
        check("insulad ends with 0", other.stop() == 0)
        other = None
    finally:
        if other:
            other.kill()
        subprocess.run(["umount", "-l", place])
        os.rmdir(place)


def case_descriptors(_):
    """One user takes as many connections as there are descriptors; then there are none at all."""
    if os.getuid():
        print("skip daemon: descriptors - not root")
        return
    d = Daemon(nofile=2048, max_clients=5000, max_clients_per_uid=5000)

    resource.setrlimit(resource.RLIMIT_NOFILE, (4096, max(4096, resource.getrlimit(resource.RLIMIT_NOFILE)[1])))
    r, w = os.pipe()
    gate = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(gate[1])
        os.setgid(4001)
        os.setuid(4001)
        c = Insulad(d.socket)
        many, last = [c], "all are let in"
        try:
            while len(many) < 1500:
                many.append(Insulad(d.socket))
                answer = said_to(many[-1])
                if "error" in answer:
                    last = answer["error"]["data"].get("field")
                    break
        except (OSError, ConnectionError) as e:
            last = repr(e)
        os.write(w, json.dumps([len(many), last]).encode())
        os.read(gate[0], 1)
        os._exit(0)
    n, said = json.loads(os.read(r, 4096))
    check("one user cannot take all descriptors, and is told so", 100 < n < 1500 and said == "descriptors", (n, said))
    check("with all that others may have in use, root is let in", all(served(d) for _ in range(3)))
    os.close(gate[1])
    os.waitpid(pid, 0)
    for fd in (r, w, gate[0]):
        os.close(fd)
    wait_for(lambda: settled(d)["fds"] < 200)
    # The system itself has none.
    used = [int(n) for n in os.listdir("/proc/%d/fd" % d.proc.pid)]
    resource.prlimit(d.proc.pid, resource.RLIMIT_NOFILE, (max(used) + 1, 2048))
    held, told = [], None
    try:
        while len(held) < 200 and not told:
            held.append(Insulad(d.socket))
            told = said_to(held[-1]).get("error")
    except (OSError, ConnectionError) as e:
        told = repr(e)
    check("where the system has none left, a client is told so", isinstance(told, dict) and told["data"]["field"] == "descriptors", told)
    waiting = d.client()
    x, start = idle_wakeups(d), time.monotonic()
    time.sleep(1)
    check("and the loop does not spin", idle_wakeups(d) - x <= 40 * (time.monotonic() - start), idle_wakeups(d) - x)
    resource.prlimit(d.proc.pid, resource.RLIMIT_NOFILE, (2048, 2048))
    waiting.sock.settimeout(30 * SLOW)
    try:
        c = waiting.call("daemon.info")
    except (RuntimeError, ConnectionError):
        c = d.client().call("daemon.info")
    check("when there are some again, clients are let in", c["pid"] == d.proc.pid)
    check("insulad ends with 0", d.stop() == 0)


def case_own_user(_):
    """An insulad that is not root cannot become anybody else."""
    if os.getuid():
        print("skip daemon: an insulad of another user - not root")
        return
    d = Daemon(uid=4001)
    r = as_user(d, 4001, lambda c: c.call("vm.run", config=guest("hello"), wait=True))
    check("an insulad that is not root serves its own user", (r.get("reason"), r.get("status")) == ("status", 42), r)
    check("and root", d.client().call("daemon.info")["pid"] == d.proc.pid)

    r = as_user(d, 4002, lambda c: (c.sock.settimeout(10 * SLOW), c.line())[1])
    check("and refuses everybody else, in words", r.get("error", {}).get("code") == -32009 and "its own user" in r["error"]["message"], r)
    check("insulad ends with 0", d.stop() == 0)


def notify_socket(d):
    s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    s.bind(d + "/notify")
    s.settimeout(10)
    return s


def case_systemd(_):
    """Socket activation, readiness and watchdog, as systemd would do them."""
    tmp = tempfile.mkdtemp(prefix="daemon.")
    with open(tmp + "/conf", "w") as f:
        json.dump(dict(socket=tmp + "/unused", state_dir=tmp + "/state", cgroup="off", socket_group="nogroup"), f)
    s = socket.socket(socket.AF_UNIX)
    s.bind(tmp + "/given")
    s.listen(5)
    note = notify_socket(tmp)

    def pre():
        os.environ.update(LISTEN_FDS="1", LISTEN_PID=str(os.getpid()), NOTIFY_SOCKET=tmp + "/notify", WATCHDOG_USEC="400000")
        os.dup2(os.open(tmp + "/log", os.O_WRONLY | os.O_CREAT), 2)
        if s.fileno() != 3:
            os.dup2(s.fileno(), 3)
        os.set_inheritable(3, True)
        os.execv(BIN + "insulad", ["insulad", "--config", tmp + "/conf"])

    pid = os.fork()
    if pid == 0:
        pre()
    said = [note.recv(100) for _ in range(3)]
    check("READY and WATCHDOG", said.count(b"READY=1") == 1 and said.count(b"WATCHDOG=1") == 2, said)
    check("the given socket is used", Insulad(tmp + "/given").call("daemon.info")["pid"] == pid and not os.path.exists(tmp + "/unused"))
    os.kill(pid, signal.SIGTERM)
    check("it ends with 0", os.waitpid(pid, 0)[1] == 0)
    with open(tmp + "/log") as f:
        check("it says that the given socket has its own mode and group", "SocketGroup in insulad.socket" in f.read())
    shutil.rmtree(tmp)


def sweep(d):
    """What a case has left: the next one begins with none."""
    c = d.client()
    for p in c.call("pool.list")["pools"]:
        c.call("pool.remove", name=p["id"])
    for v in c.call("vm.list")["vms"]:
        try:
            if v["state"] not in ("created", "ended"):
                c.call("vm.kill", id=v["id"])
            c.call("vm.delete", id=v["id"])
        except RuntimeError:
            pass  # a transient one has gone by itself


def main():
    cases = [n[5:] for n in globals() if n.startswith("case_")]
    chosen = sys.argv[1:] or cases
    d = Daemon()
    d.conf["metrics_socket"] = d.dir + "/m"
    d.write()
    d.restart()
    for name in chosen:
        try:
            globals()["case_" + name](d)
            sweep(d)
        except Exception as e:  # noqa: BLE001  the other cases still count
            at = traceback.extract_tb(e.__traceback__)
            where = ", ".join("%d" % f.lineno for f in at if f.filename == __file__)
            check(name, False, "%r at lines %s: %s" % (e, where, d.said()))
            if d.proc.poll() is not None:
                d.start()
    check("insulad ends with 0", d.stop() == 0)
    sys.exit(failed)


if __name__ == "__main__":
    main()
