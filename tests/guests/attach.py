#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""Ports of Open vSwitch, and macvtaps: payloads (netpair.c) talk to each other by them.

attach.py [CASE...]     BUILD names the build directory. In namespaces of its own: attach.sh. One line per case: ok, not ok, skip.
"""
import os
import re
import signal
import shutil
import subprocess
import sys
import threading

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import snapshot  # noqa: E402
import suite  # noqa: E402
from snapshot import Guest  # noqa: E402
from suite import BIN, BUILD, check, children, refused, wait_for  # noqa: E402

suite.suite = "attach"
RUN = [BIN + "insula-run", "--kernel", BUILD + "/guests/netpair.elf", "--mem", "16M", "--rng", "off"]
LONG = 30
OVS = "/run/openvswitch"
SCHEMA = "/usr/share/openvswitch/vswitch.ovsschema"


def sh(*words, ok=True):
    r = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False)
    assert not ok or r.returncode == 0, (words, r.stderr)
    return r.stdout


def links(prefix):
    return {m[1] for m in re.finditer(r"^\d+: (%s\w+)[@:]" % prefix, sh("ip", "-o", "link"), re.M)}


class Vm:
    """insula-run with one card"""
    all = []

    def __init__(self, place, me, net, *more, before=(), kernel="netpair", append=None):
        self.me, self.out, self.err = me, "%s/vm%d.out" % (place, me), "%s/vm%d.err" % (place, me)
        with open(self.out, "wb") as out, open(self.err, "wb") as err:
            self.proc = subprocess.Popen([*before, *RUN, "--kernel", "%s/guests/%s.elf" % (BUILD, kernel), "--net", net,
                                          "--append", append or "me=%d" % me, *more], stdin=subprocess.DEVNULL, stdout=out, stderr=err)
        self.pid = self.proc.pid
        Vm.all.append(self)

    def text(self):
        with open(self.out, errors="replace") as f:
            return f.read().replace("\r", "")

    def said(self, line, times=1):
        """It has said this so often, or does so in a while"""
        return wait_for(lambda: self.text().splitlines().count(line) >= times or self.proc.poll() is not None, LONG) and \
            self.text().splitlines().count(line) >= times

    def talks(self, other, times=1):
        return self.said("talks to %d" % other.me, times)

    def never(self, other):
        return "talks to %d" % other.me not in self.text()

    def why(self):
        with open(self.err, errors="replace") as f:
            return self.text() + f.read()

    def keeper(self):
        """The child that is no program of its own"""
        return [p for p in children(self.pid) if os.readlink("/proc/%d/exe" % p) == os.path.realpath(RUN[0])]

    def end(self, sig=signal.SIGTERM):
        if self.proc.poll() is None:
            self.proc.send_signal(sig)
        return self.proc.wait(LONG)


def end_all():
    for vm in Vm.all:
        vm.end(signal.SIGKILL)
    Vm.all.clear()


def wrong(name, net, *words, before=()):
    """One line with all these words, status 2"""
    r = subprocess.run([*before, *RUN, "--net", net], capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL, check=False)
    lines = r.stderr.splitlines()
    check("refused: " + name, r.returncode == 2 and len(lines) == 1 and all(w in lines[0] for w in words), (r.returncode, r.stderr))


# ---- macvtap


class Wire:
    """A veth, both ends up"""

    def __enter__(self):
        sh("ip", "link", "add", "wire0", "type", "veth", "peer", "name", "wire1")
        for end in ("wire0", "wire1"):
            sh("ip", "link", "set", end, "up")
        return self

    def __exit__(self, *why):
        end_all()
        sh("ip", "link", "del", "wire0", ok=False)


def macvtaps():
    return links("insm")


def case_macvtap_refused(d, place):
    with Wire():
        wrong("a parent that is not there", "macvtap=none0", "macvtap none0", "no such interface", "expected")
        sh("ip", "link", "set", "wire0", "down")
        wrong("a parent that is down", "macvtap=wire0", "macvtap wire0", "down", "ip link set wire0 up")
        sh("ip", "link", "set", "wire0", "up")
        wrong("the loopback", "macvtap=lo", "macvtap lo", "expected an interface of Ethernet")
        wrong("a mode that there is not", "macvtap=wire0,mode=source", "mode 'source'", "bridge, private, vepa or passthru")
        wrong("mode without macvtap", "tap=t,mode=bridge", "mode", "macvtap=PARENT")
        wrong("more than the parent can carry", "macvtap=wire0,mtu=9000", "macvtap wire0", "mtu")
        sh("ip", "link", "add", "bridge0", "type", "bridge")
        sh("ip", "link", "set", "wire0", "master", "bridge0")
        wrong("a port of a bridge", "macvtap=wire0", "macvtap wire0", "in use by a bridge")
        sh("ip", "link", "del", "bridge0")
        check("nothing is left of what was refused", not macvtaps(), macvtaps())
        r = subprocess.run([*RUN, "-n", "--net", "macvtap=wire0"], capture_output=True, text=True, timeout=60, check=False)
        check("-n makes nothing", r.returncode == 0 and not macvtaps(), r.stderr)


def case_macvtap(d, place):
    """Two in bridge mode talk; what dies first does not matter."""
    with Wire():
        a = Vm(place, 1, "macvtap=wire0,mac=02:00:5e:00:53:01", "-v")
        b = Vm(place, 2, "macvtap=wire0,mode=bridge,queues=2", "--cpus", "2")
        check("two in bridge mode talk", a.talks(b) and b.talks(a), a.why() + b.why())
        names = macvtaps()
        shown = sh("ip", "-d", "link", "show", "type", "macvtap")
        check("each has an interface", len(names) == 2 and shown.count("mode bridge") == 2, shown)
        check("with the card's address", "02:00:5e:00:53:01" in shown, shown)
        check("and the host says nothing there", "inet" not in "".join(sh("ip", "addr", "show", n) for n in names))
        check("offloads are those of a TAP", "offloads 0x7f" in a.why(), a.why())
        net = [p for p in children(a.pid) if os.readlink("/proc/%d/exe" % p).endswith("insula-net")]
        os.kill(net[0], signal.SIGKILL)
        check("a new insula-net goes on", wait_for(lambda: "restarted, carries on" in a.why(), LONG), a.why())
        b.end(signal.SIGKILL)
        check("insula-run killed: its interface goes", wait_for(lambda: len(macvtaps()) == 1, LONG), macvtaps())
        check("the other notices", a.said("lost 2"), a.why())
        b = Vm(place, 2, "macvtap=wire0")
        check("it is there again, and the restarted one talks", a.talks(b, 2) and b.talks(a), a.why() + b.why())
        left = macvtaps()
        for p in b.keeper():
            os.kill(p, signal.SIGKILL)
        vmm = [p for p in children(a.pid) if os.readlink("/proc/%d/exe" % p).endswith("insula-vmm")]
        os.kill(vmm[0], signal.SIGKILL)
        a.proc.wait(LONG)
        check("insula-vmm killed: its interface goes", len(macvtaps()) == 1, macvtaps())
        b.end(signal.SIGKILL)
        left = macvtaps()
        check("keeper and insula-run killed: it stays", len(left) == 1, left)
        a = Vm(place, 1, "macvtap=wire0")
        check("until the next start", a.said("up") and len(macvtaps()) == 1 and not left & macvtaps(), macvtaps())
        mine = macvtaps()
        b = Vm(place, 2, "macvtap=wire0")
        check("which leaves those of others", b.said("up") and mine < macvtaps() and a.talks(b), macvtaps())
        for p in a.keeper():
            os.kill(p, signal.SIGKILL)
        a.end()
        check("without its keeper insula-run does it", len(macvtaps()) == 1, macvtaps())
        b.end()
        check("nothing is left", not macvtaps(), macvtaps())


def case_macvtap_private(d, place):
    """Two in private mode talk to the other end of the wire, and not to each other."""
    with Wire():
        a, b = Vm(place, 1, "macvtap=wire0,mode=private"), Vm(place, 2, "macvtap=wire0,mode=private")
        c = Vm(place, 3, "macvtap=wire1")
        check("both reach the outside", a.talks(c) and b.talks(c) and c.talks(a) and c.talks(b), a.why() + b.why() + c.why())
        check("and not each other", a.never(b) and b.never(a), a.why() + b.why())
        check("no frame comes that is another's", not any("unasked" in v.text() for v in (a, b, c)))
        sh("ip", "link", "del", "wire0")
        check("a parent that goes away takes nobody with it", c.said("lost 1") is not None and a.proc.poll() is None, a.why())
        check("its interfaces are gone", not macvtaps(), macvtaps())
        status = a.end()
        check("and the VM ends as ever", status in (0, 130, 143, 137) and "not removed" not in a.why(), (status, a.why()))


def case_macvtap_passthru(d, place):
    """One that has the whole parent, and its address."""
    def address():
        return re.search("link/ether ([0-9a-f:]+)", sh("ip", "-o", "link", "show", "wire0"))[1]

    with Wire():
        own = address()
        a, c = Vm(place, 1, "macvtap=wire0,mode=passthru"), Vm(place, 3, "macvtap=wire1")
        check("a whole interface", a.talks(c) and c.talks(a), a.why() + c.why())
        shown = sh("ip", "-d", "link", "show", "type", "macvtap")
        check("with the parent's address", "mode passthru" in shown and own in shown and address() == own, shown)
        wrong("a second one on it", "macvtap=wire0", "macvtap wire0", "expected an interface")
        wrong("a second whole one", "macvtap=wire0,mode=passthru", "macvtap wire0", "with nothing else on it")
        a.end()
        check("its end is noticed", c.said("lost 1"), c.why())
        a = Vm(place, 1, "macvtap=wire0,mode=passthru,mac=02:00:5e:00:53:01")
        check("with an address of its own", a.talks(c) and c.talks(a, 2) and address() == "02:00:5e:00:53:01", (address(), a.why()))
        a.end(signal.SIGKILL)
        check("the parent has its own back", wait_for(lambda: address() == own, LONG), address())
        c.end()
        check("and nothing is left", not macvtaps(), macvtaps())


def case_macvtap_no_dev(d, place):
    """Where /dev is not the kernel's own, as in a container"""
    dev = ["unshare", "-m", "sh", "-ec", """mkdir "$0/dev"; mount -t tmpfs none "$0/dev"
        for n in kvm null zero full random urandom; do cp -a /dev/$n "$0/dev"; done; cp -a /dev/net "$0/dev"
        mount --move "$0/dev" /dev; exec "$@" """, place]
    with Wire():
        a, b = Vm(place, 1, "macvtap=wire0", before=dev), Vm(place, 2, "macvtap=wire0")
        check("without /dev/tapN", a.talks(b) and b.talks(a), a.why() + b.why())
        a.end()
        check("nothing is left of it", len(macvtaps()) == 1 and not os.listdir("/sys/class/net") == [], macvtaps())


def case_macvtap_insulad(d, place):
    """By insulad: a card that comes and goes, insulad killed, a snapshot."""
    c = d.client()
    config = dict(kernel=BUILD + "/guests/netpair.elf", mem=64 << 20, rng="off")
    with Wire():
        g = Guest(c, "a", **config, hotplug=1, append="me=1", nets=[dict(macvtap="wire0", mode="bridge")])
        h = Guest(c, "b", **config, append="me=2", nets=["macvtap=wire0"])
        g.until("talks to 2")
        h.until("talks to 1")
        check("by insulad", len(macvtaps()) == 2)
        e = refused(c, "vm.device.add", id="a", config=dict(net=dict(macvtap="none0")), device="third")
        check("one without a parent does not", "none0" in str(e), e)
        c.call("vm.device.add", id="a", config=dict(net=dict(macvtap="wire0", mode="private")), device="second")
        check("a card comes", len(macvtaps()) == 3 and "mode private" in sh("ip", "-d", "link", "show", "type", "macvtap"))
        c.call("vm.device.remove", id="a", device="second", force=True)
        check("and goes", wait_for(lambda: len(macvtaps()) == 2), macvtaps())
        h.save(place + "/snap")
        h.end()
        check("one VM ends", wait_for(lambda: len(macvtaps()) == 1), macvtaps())
        d.restart()
        c = d.client()
        check("insulad killed: the other has its card", wait_for(lambda: c.call("vm.info", id="a")["state"] == "running") and len(macvtaps()) == 1)
        g.until("lost 2")
        h = Guest(c, "b", restore=place + "/snap", mem=64 << 20, nets=["macvtap=wire0"])
        g.until("talks to 2")
        check("a restored one has the address that its guest knows", True)
        for v in ("a", "b"):
            c.call("vm.kill", id=v)
        check("nothing is left", wait_for(lambda: not macvtaps()), macvtaps())


# ---- Open vSwitch


class Switch:
    """A database, ovs-vswitchd with its own datapath, a bridge br0"""

    def __enter__(self):
        self.procs = {}
        shutil.rmtree(OVS)
        os.mkdir(OVS)
        sh("ovsdb-tool", "create", OVS + "/conf.db", SCHEMA)
        self.start("db", "ovsdb-server", OVS + "/conf.db", "--remote=punix:%s/db.sock" % OVS, "--unixctl=%s/db.ctl" % OVS)
        assert wait_for(lambda: os.path.exists(OVS + "/db.sock"), LONG)
        sh("ovs-vsctl", "--no-wait", "--timeout=20", "init")
        sh("ovs-vsctl", "--no-wait", "--timeout=20", "add-br", "br0", "--", "set", "bridge", "br0", "datapath_type=netdev")
        self.switchd()
        return self

    def start(self, name, *words):
        with open("%s/%s.log" % (OVS, name), "ab") as log:
            self.procs[name] = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def stop(self, name):
        self.procs[name].kill()
        self.procs.pop(name).wait()

    def switchd(self):
        self.start("switchd", "ovs-vswitchd", "unix:%s/db.sock" % OVS, "--unixctl=%s/sw.ctl" % OVS, "--disable-system")
        sh("ovs-vsctl", "--timeout=30", "set", "bridge", "br0", "other-config:n=%d" % self.procs["switchd"].pid)  # waits for it

    def __exit__(self, *why):
        end_all()
        for name in list(self.procs):
            self.stop(name)


def ports():
    return set(sh("ovs-vsctl", "--timeout=20", "list-ports", "br0").split())


def column(name, column):
    return sh("ovs-vsctl", "--timeout=20", "get", "Interface", name, column).strip()


def flows(*words):
    sh("ovs-ofctl", *words)


def have_ovs(name):
    if shutil.which("ovs-vswitchd") and os.path.exists(SCHEMA):
        return True
    print("skip attach: %s - no openvswitch-switch" % name)
    return False


def case_ovs_refused(d, place):
    if not have_ovs("refusals of Open vSwitch"):
        return
    hide = ["unshare", "-m", "sh", "-ec", 'mount --bind /dev/null "$(command -v ovs-vsctl)"; exec "$@"', "-"]
    wrong("no ovs-vsctl", "ovs=br0", "ovs br0", "apt-get install openvswitch-switch", before=hide)
    wrong("no database", "ovs=br0", "ovs br0", "ovs-vsctl", "database connection failed")
    wrong("a name that is none", "ovs=-x", "ovs '-x'", "expected letters")
    wrong("a name that is too long", "ovs=" + "b" * 16, "1 to 15")
    wrong("a port's name that is none", "ovs=br0,iface-id=a b", "iface-id 'a b'", "expected")
    wrong("a VLAN that is none", "ovs=br0,tag=4095", "tag '4095'", "1 to 4094")
    wrong("tag without ovs", "tap=t,tag=4", "tag", "ovs=BRIDGE")
    safe = os.path.join(place, "bin")
    os.mkdir(safe)
    os.chmod(safe, 0o777)
    with open(safe + "/ovs-vsctl", "w") as f:
        f.write("#!/bin/sh\necho taken >%s/taken\n" % place)
    os.chmod(safe + "/ovs-vsctl", 0o755)
    wrong("a program where anybody may put one is passed over", "ovs=br0", "database connection failed",
          before=["env", "PATH=" + safe + ":" + os.environ["PATH"]])
    check("it did not run", not os.path.exists(place + "/taken"))
    with Switch() as s:
        wrong("no such bridge", "ovs=br7", "ovs br7", "no such bridge", "ovs-vsctl add-br br7")
        wrong("another network namespace", "ovs=br0", "ovs br0", "No such device", "same network namespace", before=["unshare", "-n"])
        check("nothing is left of it", not ports(), ports())
        s.stop("switchd")
        r = subprocess.run([*RUN, "-n", "--net", "ovs=br0"], capture_output=True, text=True, timeout=60, check=False)
        check("-n makes nothing", r.returncode == 0 and not ports(), r.stderr)
        wrong("no ovs-vswitchd", "ovs=br0", "ovs br0", "no answer in 5 s", "expected ovs-vswitchd")
        check("nothing is left in the database", not ports() and not links("ins"), ports())


def case_ovs(d, place):
    if not have_ovs("Open vSwitch"):
        return
    with Switch() as s:
        a = Vm(place, 1, "ovs=br0,mac=02:00:5e:00:53:01,iface-id=ns/pod:1", "-v")
        b = Vm(place, 2, "ovs=br0,queues=2", "--cpus", "2")
        check("two ports of one bridge talk", a.talks(b) and b.talks(a), a.why() + b.why())
        names = ports()
        mine = [n for n in names if "02:00:5e:00:53:01" in column(n, "external_ids")]
        check("each has a port with its address", len(names) == 2 and len(mine) == 1, names)
        ids = column(mine[0], "external_ids")
        check("which has the name that was given", 'iface-id="ns/pod:1"' in ids, ids)
        check("of type system", column(mine[0], "type") == "system", column(mine[0], "type"))
        check("ovs-vswitchd gets whole frames: no offloads", "eth0: 02:00:5e:00:53:01, offloads 0\n" in a.why(), a.why())
        check("the host says nothing there", "inet" not in "".join(sh("ip", "addr", "show", n) for n in names) and
              "NOARP" in sh("ip", "link", "show", mine[0]))
        number = column(mine[0], "ofport")
        flows("add-flow", "br0", "priority=9,in_port=%s,actions=drop" % number)
        check("a flow that drops is obeyed", b.said("lost 1") and a.said("lost 2"), a.why() + b.why())
        flows("del-flows", "br0", "in_port=%s" % number)
        check("and taken back", a.talks(b, 2) and b.talks(a, 2), a.why() + b.why())
        s.stop("switchd")
        check("ovs-vswitchd killed: nobody dies", a.said("lost 2", 2) and a.proc.poll() is None, a.why())
        s.switchd()
        check("it is there again: they talk", a.talks(b, 3) and b.talks(a, 3), a.why() + b.why())
        a.end(signal.SIGKILL)
        check("insula-run killed: its port goes", wait_for(lambda: len(ports()) == 1, LONG), ports())
        vmm = [p for p in children(b.pid) if os.readlink("/proc/%d/exe" % p).endswith("insula-vmm")]
        os.kill(vmm[0], signal.SIGKILL)
        b.proc.wait(LONG)
        check("insula-vmm killed: its port goes", not ports(), ports())
        check("and their TAPs", not links("ins"), links("ins"))
        a = Vm(place, 1, "ovs=br0")
        check("a third", a.said("up"), a.why())
        left = ports()
        for p in a.keeper():
            os.kill(p, signal.SIGKILL)
        a.end(signal.SIGKILL)
        check("keeper and insula-run killed: its port stays", ports() == left, ports())
        a = Vm(place, 1, "ovs=br0")
        check("until the next start", a.said("up") and len(ports()) == 1 and not ports() & left, ports())
        for p in a.keeper():
            os.kill(p, signal.SIGKILL)
        a.end()
        check("without its keeper insula-run does it", not ports(), ports())
        a = Vm(place, 1, "ovs=br0")
        check("a fourth", a.said("up"), a.why())
        s.stop("switchd")
        a.end()
        check("without ovs-vswitchd, too", not ports(), ports())


def case_ovs_vlans(d, place):
    if not have_ovs("VLANs"):
        return
    with Switch():
        a, b = Vm(place, 1, "ovs=br0,tag=10"), Vm(place, 2, "ovs=br0,tag=20")
        c, e = Vm(place, 3, "ovs=br0,tag=10"), Vm(place, 4, "ovs=br0,tag=20")
        check("those of a VLAN talk", a.talks(c) and c.talks(a) and b.talks(e) and e.talks(b), a.why() + b.why())
        check("and to no other", all(x.never(y) and y.never(x) for x in (a, c) for y in (b, e)), a.why() + b.why())
        for n in ports():
            if sh("ovs-vsctl", "get", "Port", n, "tag").strip() == "20":
                sh("ovs-vsctl", "set", "Port", n, "tag=10")
        check("until they are in one", a.talks(b) and b.talks(a), a.why() + b.why())


def slow_switch(d, s):
    """While Open vSwitch says nothing, the supervisor does."""
    c, other, answers = d.client(), d.client(), []
    asks = lambda: other.call("vm.device.list", id="first")["free"]  # noqa: E731
    adds = threading.Thread(target=lambda: answers.append(c.call("vm.device.add", id="first", config=dict(net=dict(ovs="br0")), device="more")))
    os.kill(s.procs["switchd"].pid, signal.SIGSTOP)
    adds.start()
    check("a switch that is slow: a card is on its way", wait_for(lambda: asks() == 0, LONG))
    check("and the supervisor answers before that one has come", not answers and adds.is_alive())
    os.kill(s.procs["switchd"].pid, signal.SIGCONT)
    adds.join(LONG)
    check("then it comes", len(answers) == 1 and len(ports()) == 3, answers)
    # The database: a port does not go without it.
    os.kill(s.procs["db"].pid, signal.SIGSTOP)
    goes = threading.Thread(target=lambda: answers.append(c.call("vm.device.remove", id="first", device="more", force=True)))
    goes.start()
    state = lambda: [x["state"] for x in other.call("vm.device.list", id="first")["devices"] if x["device"] == "more"]  # noqa: E731
    check("a database that is slow: one is on its way out", wait_for(lambda: state() == ["removing"], LONG), state())
    check("and the supervisor answers before that one has gone", len(answers) == 1 and goes.is_alive())
    os.kill(s.procs["db"].pid, signal.SIGCONT)
    goes.join(LONG)
    check("then it goes", len(answers) == 2 and wait_for(lambda: len(ports()) == 2), ports())


def case_ovs_insulad(d, place):
    if not have_ovs("Open vSwitch by insulad"):
        return
    c = d.client()
    config = dict(kernel=BUILD + "/guests/netpair.elf", mem=64 << 20, rng="off")
    with Switch() as s:
        g = Guest(c, "first", **config, hotplug=1, append="me=1", nets=[dict(ovs="br0", tag=7)])
        h = Guest(c, "second", **config, append="me=2", nets=["ovs=br0,tag=7,iface-id=p2"])
        g.until("talks to 2")
        h.until("talks to 1")
        ids = [column(n, "external_ids") for n in ports()]
        check("a port says which VM it is of", sum("vm-id=first" in i for i in ids) == 1 and sum("vm-id=second" in i for i in ids) == 1, ids)
        c.call("vm.device.add", id="first", config=dict(net=dict(ovs="br0")), device="more")
        check("a card comes", len(ports()) == 3, ports())
        c.call("vm.device.remove", id="first", device="more", force=True)
        check("and goes", wait_for(lambda: len(ports()) == 2), ports())
        e = refused(c, "vm.device.add", id="first", config=dict(net=dict(ovs="br7")), device="more")
        check("to a bridge that is not there none comes", "no such bridge" in e["message"] and len(ports()) == 2, e)
        slow_switch(d, s)
        mac = [re.search(r'attached-mac="([^"]*)"', i)[1] for i in ids if "vm-id=second" in i][0]
        h.save(place + "/snap")
        h.end()
        check("one VM ends", wait_for(lambda: len(ports()) == 1), ports())
        d.restart()
        c = d.client()
        check("insulad killed: the other has its port", wait_for(lambda: c.call("vm.info", id="first")["state"] == "running") and len(ports()) == 1)
        g.until("lost 2")
        h = Guest(c, "second", restore=place + "/snap", mem=64 << 20, nets=["ovs=br0,tag=7"])
        g.until("talks to 2")
        check("a restored one says the address that its guest knows", any(mac in column(n, "external_ids") for n in ports()), mac)
        for v in ("first", "second"):
            c.call("vm.kill", id=v)
        check("nothing is left", wait_for(lambda: not ports()), ports())


class Ovn(Switch):
    """Its databases, northd, and a controller for br0 of this host"""

    def __enter__(self):
        super().__enter__()
        run, schemas = "/run/ovn", "/usr/share/ovn/"
        shutil.rmtree(run, ignore_errors=True)
        os.mkdir(run)
        for name in ("nb", "sb"):
            sh("ovsdb-tool", "create", "%s/%s.db" % (run, name), "%sovn-%s.ovsschema" % (schemas, name))
            self.start(name, "ovsdb-server", "%s/%s.db" % (run, name), "--remote=punix:%s/ovn%s_db.sock" % (run, name),
                       "--unixctl=%s/%s.ctl" % (run, name))
            assert wait_for(lambda: os.path.exists("%s/ovn%s_db.sock" % (run, name)), LONG)
        ids = dict(zip(("system-id", "ovn-remote", "ovn-encap-type", "ovn-encap-ip", "ovn-bridge"),
                       ("host1", '"unix:%s/ovnsb_db.sock"' % run, "geneve", "127.0.0.1", "br0")))
        sh("ovs-vsctl", "--timeout=20", "set", "Open_vSwitch", ".", *("external-ids:%s=%s" % i for i in ids.items()))
        self.start("northd", "ovn-northd", "--ovnnb-db=unix:%s/ovnnb_db.sock" % run, "--ovnsb-db=unix:%s/ovnsb_db.sock" % run,
                   "--unixctl=%s/northd.ctl" % run)
        nb("--wait=sb", "sync")  # a controller (23.03) that comes before northd has made its rows binds nothing, ever
        self.start("controller", "ovn-controller", "unix:%s/db.sock" % OVS)
        return self


def said_by(name):
    with open("%s/%s.log" % (OVS, name)) as f:
        return f.read()[-500:]


def nb(*words):
    return sh("ovn-nbctl", "--timeout=30", *words).strip()


def bound():
    return set(re.findall(r"Port_Binding (\w+)", sh("ovn-sbctl", "--timeout=30", "show")))


def case_ovn(d, place):
    """Two logical switches and a router: addresses by DHCP, a ping each way, a rule that drops."""
    if not have_ovs("OVN"):
        return
    if not shutil.which("ovn-controller") or not shutil.which("ovn-northd"):
        print("skip attach: OVN - no ovn-central, or no ovn-host")
        return
    with Ovn():
        nb("lr-add", "r")
        for i in (1, 2):
            mac, ip, gw = "02:00:5e:00:53:0%d" % i, "10.0.%d.10" % i, "10.0.%d.1" % i
            nb("ls-add", "s%d" % i)
            nb("lrp-add", "r", "r%d" % i, "02:00:00:00:00:0%d" % i, gw + "/24")
            nb("lsp-add", "s%d" % i, "s%d-r" % i, "--", "lsp-set-type", "s%d-r" % i, "router", "--", "lsp-set-addresses", "s%d-r" % i, "router",
               "--", "lsp-set-options", "s%d-r" % i, "router-port=r%d" % i)
            options = nb("create", "DHCP_Options", "cidr=10.0.%d.0/24" % i, 'options={"server_id"="%s","server_mac"="02:00:00:00:00:0%d",'
                         '"lease_time"="3600","router"="%s"}' % (gw, i, gw))
            nb("lsp-add", "s%d" % i, "vm%d" % i, "--", "lsp-set-addresses", "vm%d" % i, mac + " " + ip, "--",
               "lsp-set-port-security", "vm%d" % i, mac + " " + ip, "--", "lsp-set-dhcpv4-options", "vm%d" % i, options)
        vms = [Vm(place, i, "ovs=br0,iface-id=vm%d,mac=02:00:5e:00:53:0%d" % (i, i), kernel="netip",
                  append="to=%d" % ((10 << 24) + (3 - i << 8) + 10)) for i in (1, 2)]
        a, b = vms
        check("OVN binds both by iface-id", wait_for(lambda: bound() == {"vm1", "vm2"}, LONG), "%s, %s" % (bound(), said_by("controller")))
        check("OVN gives each its address", a.said("has 10.0.1.10") and b.said("has 10.0.2.10"), a.why() + b.why())
        check("a router of OVN leads from one to the other", a.said("reaches it") and b.said("reaches it"), a.why() + b.why())
        nb("acl-add", "s1", "from-lport", "1000", 'inport=="vm1" && icmp4', "drop")
        check("a rule that drops is obeyed", a.said("lost it") and b.said("lost it"), a.why() + b.why())
        seen = [v.text().count("reaches it") for v in vms]
        nb("acl-del", "s1")
        check("and taken back", a.said("reaches it", seen[0] + 1) and b.said("reaches it", seen[1] + 1), a.why() + b.why())
        a.end(signal.SIGKILL)
        check("insula-run killed: it is bound no more", wait_for(lambda: bound() == {"vm2"}, LONG), bound())
        b.end()
        check("nothing is left in OVN", wait_for(lambda: not bound(), LONG), bound())


if __name__ == "__main__":
    snapshot.run_cases(sys.modules[__name__])
