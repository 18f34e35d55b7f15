#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""What guests may send: a payload that sends what it is told to (netpuppet.c), on a TAP and on a socket, and what a helper that was taken
over could send, past insula-net, into the TAP itself. Frames that may pass must be heard, others must not.

policy.py [CASE...]     BUILD names the build directory; in a network namespace of its own. One line per case: ok, not ok, skip.
"""
import ctypes
import fcntl
import os
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import time

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
from snapshot import BIN, BUILD, PATIENCE, Guest, check, refused, run_cases, suite, wait_for  # noqa: E402

suite.suite = "policy"
MAC, OTHER_MAC, HOST_MAC = "02:00:5e:00:53:01", "02:00:5e:00:53:66", "02:00:5e:00:53:fe"
IP, OTHER_IP, FAR, FAR2 = "192.0.2.2", "192.0.2.9", "198.51.100.7", "203.0.113.9"
IP6, OTHER_IP6, FAR6 = "2001:db8::2", "2001:db8::9", "2001:db8:1::7"
LL6 = "fe80::5eff:fe00:5301"
NAMESERVER = "192.0.2.53"
TUNSETIFF, IFF_TAP, IFF_NO_PI, IFF_VNET_HDR, IFF_MULTI_QUEUE = 0x400454CA, 2, 0x1000, 0x4000, 0x100
RULES = dict(allow=["tcp:198.51.100.0/24:443", "udp:198.51.100.7:5000-5009", "icmp:198.51.100.7", "tcp:[2001:db8:1::/48]:443"],
             serve=["tcp:80"])
SOURCES = ["from=" + IP, "from=" + IP6]


# ---- frames


def mac(text):
    return bytes.fromhex(text.replace(":", ""))


def eth(payload, kind, src=MAC, dst=HOST_MAC):
    return mac(dst) + mac(src) + struct.pack(">H", kind) + payload


def checksum(data):
    data += b"\0" * (len(data) % 2)
    s = sum(struct.unpack(">%dH" % (len(data) // 2), data))
    s = (s >> 16) + (s & 0xFFFF)
    return 0xFFFF ^ (s + (s >> 16)) & 0xFFFF


def ip4(proto, payload, src=IP, dst=FAR, frag=0, first=0x45, **more):
    h = struct.pack(">BBHHHBBH4s4s", first, 0, 20 + len(payload), 7, frag, 64, proto, 0, socket.inet_aton(src), socket.inet_aton(dst))
    return eth(h[:10] + struct.pack(">H", checksum(h)) + h[12:] + payload, 0x0800, **more)


def ip6(proto, payload, src=IP6, dst=FAR6, hops=64, **more):
    h = struct.pack(">IHBB", 0x60000000, len(payload), proto, hops) + socket.inet_pton(10, src) + socket.inet_pton(10, dst)
    return eth(h + payload, 0x86DD, **more)


def tcp(dport, sport=40000, flags=0x02):
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 0, 0x50, flags, 1000, 0, 0)


def udp(dport, sport=40000, data=b"x"):
    return struct.pack(">HHHH", sport, dport, 8 + len(data), 0) + data


def arp(op=1, sha=MAC, spa=IP, tpa="192.0.2.1", **more):
    return eth(struct.pack(">HHBBH", 1, 0x0800, 6, 4, op) + mac(sha) + socket.inet_aton(spa) + bytes(6) + socket.inet_aton(tpa), 0x0806, **more)


def icmp6(kind, body, src=LL6, dst="ff02::1", hops=255, **more):
    body = bytes([kind, 0, 0, 0]) + body
    pseudo = socket.inet_pton(10, src) + socket.inet_pton(10, dst) + struct.pack(">II", len(body), 58)
    return ip6(58, body[:2] + struct.pack(">H", checksum(pseudo + body)) + body[4:], src=src, dst=dst, hops=hops, **more)


def neighbour(kind, target, option, src=LL6, dst="ff02::1", link=MAC, **more):
    body = bytes(4) + socket.inet_pton(10, target) + (bytes([option, 1]) + mac(link) if option else b"")
    return icmp6(kind, body, src=src, dst=dst, **more)


def report(src=LL6):
    body = struct.pack(">BBHHHBBH", 143, 0, 0, 0, 1, 4, 0, 0) + socket.inet_pton(10, "ff02::1:ff00:2")
    return ip6(0, bytes([58, 0, 5, 2, 0, 0, 1, 0]) + body, src=src, dst="ff02::16", hops=1)


def tagged(frame, kind=0x8100):
    return frame[:12] + struct.pack(">HH", kind, 5) + frame[12:]


GOOD = {
    "TCP to a prefix and port": ip4(6, tcp(443)),
    "TCP to another address of the prefix": ip4(6, tcp(443), dst="198.51.100.250"),
    "UDP to the first port of a range": ip4(17, udp(5000)),
    "UDP to the last one": ip4(17, udp(5009)),
    "ICMP": ip4(1, b"\x08\0\0\0\0\1\0\1"),
    "a later fragment where a rule has no port": ip4(1, b"12345678", frag=1),
    "an answer of a port that serves": ip4(6, tcp(50000, sport=80, flags=0x12), dst=FAR2),
    "TCP over IPv6": ip6(6, tcp(443)),
    "ARP": arp(),
    "an answer of ARP": arp(op=2),
    "an ARP probe": arp(spa="0.0.0.0", tpa=IP),
    "a DHCP request": ip4(17, udp(67, sport=68), src="0.0.0.0", dst="255.255.255.255"),
    "a neighbour's solicitation": neighbour(135, OTHER_IP6, 1, src=IP6, dst="ff02::1:ff00:9"),
    "a neighbour's advertisement": neighbour(136, IP6, 2),
    "one of the link-local address": neighbour(136, LL6, 2),
    "a question for a duplicate": neighbour(135, IP6, 0, src="::", dst="ff02::1:ff00:2"),
    "a router's solicitation": icmp6(133, bytes(4), dst="ff02::2"),
    "a report of groups": report(),
    "a DHCPv6 request": ip6(17, udp(547, sport=546), src=LL6, dst="ff02::1:2"),
}
BAD = {
    "another MAC address": ip4(6, tcp(443))[:6] + mac(OTHER_MAC) + ip4(6, tcp(443))[12:],
    "another IPv4 address": ip4(6, tcp(443), src=OTHER_IP),
    "another IPv6 address": ip6(6, tcp(443), src=OTHER_IP6),
    "no IPv4 address": ip4(6, tcp(443), src="0.0.0.0"),
    "no IPv6 address": ip6(6, tcp(443), src="::"),
    "ARP for another address": arp(op=2, spa=OTHER_IP),
    "ARP with another MAC address": arp(op=2, sha=OTHER_MAC),
    "ARP from another MAC address": arp()[:6] + mac(OTHER_MAC) + arp()[12:],
    "a DHCP server's answer": ip4(17, udp(68, sport=67), dst="255.255.255.255"),
    "one from where the guest may send": ip4(17, udp(5000, sport=67)),
    "a DHCPv6 server's answer": ip6(17, udp(546, sport=547), src=LL6, dst="fe80::1"),
    "a router's advertisement": icmp6(134, bytes(12)),
    "a router's redirection": icmp6(137, bytes(36)),
    "one of IPv4": ip4(1, b"\x05\x01\0\0" + socket.inet_aton(IP) + ip4(17, udp(5000))[14:42]),
    "a router's advertisement of IPv4": ip4(1, b"\x09\0\0\0\1\2\7\x08" + socket.inet_aton(IP) + bytes(4)),
    "an advertisement for another neighbour": neighbour(136, OTHER_IP6, 2),
    "one with another MAC address": neighbour(136, IP6, 2, link=OTHER_MAC),
    "a solicitation with another MAC address": neighbour(135, OTHER_IP6, 1, src=IP6, dst="ff02::1:ff00:9", link=OTHER_MAC),
    "a solicitation that leaves the link": neighbour(135, FAR6, 1, src=IP6, dst=FAR6),
    "TCP to another port": ip4(6, tcp(444)),
    "TCP to another address": ip4(6, tcp(443), dst=FAR2),
    "UDP where TCP may": ip4(17, udp(443)),
    "UDP behind a range": ip4(17, udp(5010)),
    "ICMP to another address": ip4(1, b"\x08\0\0\0\0\1\0\1", dst="198.51.100.8"),
    "a later fragment where rules have ports": ip4(6, tcp(443), dst="198.51.100.8", frag=1),
    "a connection from a port that serves": ip4(6, tcp(50000, sport=80), dst=FAR2),
    "TCP over IPv6 to another address": ip6(6, tcp(443), dst="2001:db8:2::7"),
    "an IPv6 fragment": ip6(44, bytes([6, 0, 0, 0, 0, 0, 0, 1]) + tcp(443)),
    "an IPv6 routing header": ip6(43, bytes([6, 0, 0, 0, 0, 0, 0, 0]) + tcp(443)),
    "options of IPv4": ip4(6, b"\1\1\1\0" + tcp(443), first=0x46),
    "a VLAN's tag": tagged(ip4(6, tcp(443))),
    "a service VLAN's tag": tagged(ip4(6, tcp(443)), 0x88A8),
    "two tags": tagged(tagged(ip4(6, tcp(443))), 0x88A8),
    "another EtherType": eth(b"x" * 46, 0x88B5),
    "IPv4 that says IPv6": eth(ip6(6, tcp(443))[14:], 0x0800),
    "a frame that is cut": ip4(6, tcp(443))[:36],
}


def marker(n):
    """One that may pass, and is unlike all others."""
    return ip4(17, udp(5001, data=b"marker %d" % n))


# ---- both ends


class Wire:
    """The other side of the card: what was heard of it, and words to the puppet."""

    def __init__(self):
        self.heard, self.lock, self.n = [], threading.Lock(), 0

    def hears(self, frame):
        with self.lock:
            self.heard.append(frame)

    def listen(self):
        threading.Thread(target=self.loop, daemon=True).start()

    def has(self, frame):
        """Short frames may have been padded."""
        with self.lock:
            return any(f[:len(frame)] == frame for f in self.heard)

    def puppet(self, frame):
        self.put(eth(struct.pack(">H", len(frame)) + frame, 0x88B6, src=HOST_MAC, dst=MAC).ljust(60, b"\0"))

    def puppet_sum(self, frame, at, off):
        """The host is to fill in a checksum of what begins there, at this offset of it."""
        self.put(eth(struct.pack(">HHH", len(frame), at, off) + frame, 0x88B7, src=HOST_MAC, dst=MAC).ljust(60, b"\0"))

    def passes(self, frame, send=None):
        """Is it heard before a frame that was sent after it? `send`: how; else by the puppet. What is lost on its way is sent again."""
        send, self.n = send or self.puppet, self.n + 1
        mark = marker(self.n)
        with self.lock:
            self.heard.clear()
        send(frame)

        def marked():
            send(mark)
            return wait_for(lambda: self.has(mark), 0.5)
        if not wait_for(marked, PATIENCE):
            raise AssertionError("an honest frame is not heard")
        return self.has(frame)

    def reaches(self, frame, send=None):
        """Is it heard in the end?"""
        def sent():
            (send or self.puppet)(frame)
            return wait_for(lambda: self.has(frame), 0.2)
        with self.lock:
            self.heard.clear()
        return wait_for(sent, PATIENCE)

    def judge(self, what, send=None):
        for name, frame in GOOD.items():
            check("%s: passes: %s" % (what, name), self.reaches(frame, send))
        for name, frame in BAD.items():
            check("%s: is dropped: %s" % (what, name), not self.passes(frame, send))


class Bridge(Wire):
    """A TAP in a bridge, and what a neighbour there hears."""

    def __init__(self, name):
        super().__init__()
        self.tap, self.far = name, name + "f"
        for line in ("link add {0}b type bridge mcast_snooping 0", "link add {0}p type veth peer name {0}f", "link set {0}p master {0}b",
                     "tuntap add {0} mode tap multi_queue", "link set {0} master {0}b", "link set {0}b up", "link set {0}p up",
                     "link set {0}f up promisc on", "link set {0} up"):
            subprocess.run(["ip", *line.format(name).split()], check=True)
        self.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        self.sock.bind((self.far, 0))
        self.sock.setsockopt(263, 8, 1)  # PACKET_AUXDATA: a VLAN's tag is told apart
        self.queue = None
        self.listen()

    def loop(self):
        sock = self.sock
        while True:
            try:
                frame, aux, _, where = sock.recvmsg(65536, 256)
            except OSError:
                return
            if where[2] == socket.PACKET_OUTGOING:
                continue
            for _, _, data in aux:
                status, _, _, _, _, tci, tpid = struct.unpack("IIIHHHH", data[:20])
                if status & 16:
                    frame = frame[:12] + struct.pack(">HH", tpid or 0x8100, tci) + frame[12:]
            self.hears(frame)

    def put(self, frame):
        self.sock.send(frame)

    def past_helper(self, frame):
        """As a process that holds a queue of the TAP."""
        if self.queue is None:
            self.queue = os.open("/dev/net/tun", os.O_RDWR)
            fcntl.ioctl(self.queue, TUNSETIFF, struct.pack("16sH14x", self.tap.encode(), IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE))
            fcntl.ioctl(self.queue, 0x400454D8, struct.pack("i", 12))  # TUNSETVNETHDRSZ
        os.write(self.queue, bytes(12) + frame)

    def let_go(self):
        """Else the kernel would give this queue what is for the guest."""
        if self.queue is not None:
            os.close(self.queue)
        self.queue = None


class Switch(Wire):
    """The other end of --net socket=."""

    def __init__(self, path):
        super().__init__()
        self.door, self.conn, self.path = socket.socket(socket.AF_UNIX), None, path
        self.door.bind(path)
        self.door.listen(8)
        self.listen()

    def loop(self):
        while True:
            self.conn, _ = self.door.accept()
            with self.conn.makefile("rb") as f:
                while len(head := f.read(4)) == 4:
                    self.hears(f.read(struct.unpack(">I", head)[0]))

    def put(self, frame):
        if wait_for(lambda: self.conn):
            self.conn.sendall(struct.pack(">I", len(frame)) + frame)


def items(rules):
    return ["%s=%s" % (k, v) for k, vs in rules.items() for v in vs]


def start(c, name, backing, *more):
    g = Guest(c, name, kernel=BUILD + "/guests/netpuppet.elf", mem="16M", rng="off", nets=[",".join([backing, "mac=" + MAC, *more])])
    g.until("ready")
    return g


def card(g):
    return [x["name"] for x in g.c.call("vm.info", id=g.name)["devices"] if x["name"].startswith("eth") or "net" in x["name"]][0]


def policy(g, **p):
    return g.c.call("vm.net.policy", id=g.name, device=card(g), **p)


def tables():
    return subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True).stdout


def has_nft():
    if shutil.which("nft", path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin"):
        return True
    print("skip policy: TAP - no nft")
    return False


# ---- cases


def changes(g, w, what, send=None):
    """A policy that changes while the VM runs: each change is waited for, with a deadline."""
    there, elsewhere = ip4(6, tcp(443)), ip4(6, tcp(8443), dst=FAR2)
    mark = ["udp:198.51.100.7:5001"]
    check("%s: before a change" % what, w.reaches(there, send) and not w.passes(elsewhere, send))
    policy(g, allow=["tcp:203.0.113.9:8443", *mark])
    check("%s: what a new policy allows" % what, w.reaches(elsewhere, send))
    check("%s: what it no longer allows" % what, not w.passes(there, send))
    check("%s: and who the guest may be stays" % what, not w.passes(ip4(6, tcp(8443), src=OTHER_IP, dst=FAR2), send))
    policy(g, allow=mark)
    check("%s: nothing but the mark" % what, not w.passes(there, send) and not w.passes(elsewhere, send))
    policy(g, off=True)
    check("%s: no policy" % what, w.reaches(BAD["another MAC address"], send))
    policy(g, **RULES)
    check("%s: one again" % what, w.reaches(there, send) and not w.passes(elsewhere, send))


def events(c, w, g):
    """They come, and not one a frame."""
    def told():
        c.call("daemon.info")
        return [e["params"]["data"] for e in c.events if e["params"]["event"] == "net-denied" and e["params"]["name"] == g.name]

    c.call("events.subscribe")
    for _ in range(100):
        w.passes(BAD["TCP to another address"])
    check("events say what was dropped", wait_for(told, PATIENCE) and told()[0]["device"] == card(g) and "frame" in told()[0]["text"], told())
    check("and not one a frame", len(told()) < 50, len(told()))


def without_sums(name):
    """From now on the kernel fills in what a driver has left to the card."""
    value = ctypes.create_string_buffer(struct.pack("II", 0x17, 0))  # ETHTOOL_STXCSUM
    with socket.socket() as s:
        fcntl.ioctl(s, 0x8946, struct.pack("16sQ16x", name.encode(), ctypes.addressof(value)))


def sums(w):
    """A checksum is written when all rules have been passed: into the port or the address of a frame that was allowed, it would let it go
    elsewhere."""
    without_sums(w.tap + "p")
    honest = {"TCP": (ip4(6, tcp(443)), 34, 16), "UDP": (ip4(17, udp(5000)), 34, 6), "TCP over IPv6": (ip6(6, tcp(443)), 54, 16),
              "what is in UDP": (ip4(17, udp(5000, data=bytes(40))), 62, 16)}
    lies = {"the port": (ip4(6, tcp(443)), 34, 2), "the address": (ip4(6, tcp(443)), 20, 12), "the other half of it": (ip4(6, tcp(443)), 20, 10),
            "UDP's port": (ip4(17, udp(5000)), 34, 2), "TCP's flags": (ip4(6, tcp(443)), 34, 12),
            "the port over IPv6": (ip6(6, tcp(443)), 54, 2), "the address over IPv6": (ip6(6, tcp(443)), 40, 12),
            "a neighbour's address": (neighbour(136, IP6, 2), 54, 8), "ARP": (arp(), 34, 2)}

    def heard(frame, at, off, n):
        """The source port, which nothing changes, tells it apart."""
        w.passes(frame, lambda f: w.puppet_sum(f, at, off) if f == frame else w.puppet(f))
        with w.lock:
            return [x for x in w.heard if x[12:14] == frame[12:14] and x[:n] == frame[:n] and b"marker" not in x]

    for name, (frame, at, off) in honest.items():
        found = []
        wait_for(lambda f=frame, a=at, o=off, to=found: to.extend(heard(f, a, o, a + o)) or to, PATIENCE)
        check("a TAP: a checksum is filled in: " + name, found and found[0][at + off:at + off + 2] != b"\0\0", found)
    for name, (frame, at, off) in lies.items():
        check("a TAP: a checksum does not go into " + name, not heard(frame, at, off, 14))


def case_socket(d, place):
    c = d.client()
    w = Switch(place + "/switch")
    g = start(c, "s", "socket=" + w.path, *SOURCES, *items(RULES))
    w.judge("a socket")
    changes(g, w, "a socket")
    events(d.client(), w, g)
    def denied():
        return [x["helper"]["denied"] for x in c.call("vm.metrics", id="s")["devices"] if x.get("helper", {}).get("denied") is not None]
    def counter(name):
        return [x["helper"][name] for x in c.call("vm.metrics", id="s")["devices"] if name in x.get("helper", {})]

    def held_back():
        for n in range(5):
            w.puppet(marker(n))
        return counter("throttled")[0] > 0
    c.call("vm.limits", id="s", device=card(g), pps=1)
    check("vm.limits: the card waits", wait_for(held_back, PATIENCE), counter("throttled"))
    c.call("vm.limits", id="s", device=card(g), pps=0)
    check("vm.limits: and no more", w.reaches(GOOD["ICMP"]))
    e = refused(c, "vm.limits", id="s", device="com1", pps=1)
    check("vm.limits of what is no card", e["code"] == -32602 and "com1" in e["message"], e)
    check("what was dropped is counted", wait_for(lambda: denied() and denied()[0] >= len(BAD)), denied())
    g.end()


def case_tap(d, _):
    if not has_nft():
        return
    c = d.client()
    w = Bridge("t0")
    g = start(c, "t", "tap=t0,queues=2", *SOURCES, *items(RULES))
    w.judge("a TAP")
    changes(g, w, "a TAP")
    sums(w)
    w.judge("past insula-net", w.past_helper)
    changes(g, w, "past insula-net", w.past_helper)
    w.let_go()
    check("its table is there", "insula_t0" in tables())
    g.end()
    check("and gone at the end", wait_for(lambda: "insula_t0" not in tables()), tables())


def nft(*words):
    return subprocess.run(["nft", *words], capture_output=True, text=True, check=False)


def killed(d, w, name):
    """A supervisor on the TAP that does not live to delete its table: what its keeper asks nft for."""
    g = start(d.client(), name, "tap=%s,queues=2" % w.tap, *SOURCES, *items(RULES))
    chains = [x.split()[1] for x in nft("list", "table", "netdev", "insula_" + w.tap).stdout.splitlines() if x.strip().startswith("chain of_")]
    check("%s: its table is there, and says whose it is" % name, len(chains) == 1, chains)
    os.kill(g.info["pid"], signal.SIGKILL)
    return "delete chain netdev insula_{0} {1}; delete table netdev insula_{0}".format(w.tap, chains[0])


def case_killed(d, _):
    if not has_nft():
        return
    w, table = Bridge("k0"), "insula_k0"
    killed(d, w, "k")
    check("a supervisor that was killed leaves no table", wait_for(lambda: table not in tables(), PATIENCE), tables())
    # Somebody has the TAP: the rules hold.
    w.past_helper(marker(0))
    undo = killed(d, w, "l")
    check("while the TAP is in use the table stays, and drops", not w.passes(BAD["TCP to another port"], w.past_helper) and table in tables())
    g = start(d.client(), "m", "tap=k0,queues=2", *SOURCES, *items(RULES))
    w.let_go()
    check("a keeper that comes late does not find its table", nft(undo).returncode != 0 and table in tables())
    check("and the next VM's holds", w.reaches(GOOD["ICMP"]) and not w.passes(BAD["TCP to another port"]))
    g.end()
    check("and is gone at the end", wait_for(lambda: table not in tables()), tables())


def dns_name(name):
    return b"".join(bytes([len(x)]) + x.encode() for x in name.split(".")) + b"\0"


def answer(name, address, src=NAMESERVER):
    """Of the name server, to the guest."""
    data = struct.pack(">HHHHHH", 7, 0x8180, 1, 1, 0, 0) + dns_name(name) + struct.pack(">HH", 1, 1)
    data += struct.pack(">HHHIH", 0xC00C, 1, 1, 5, 4) + socket.inet_aton(address)
    return mac(MAC) + mac(HOST_MAC) + ip4(17, udp(4000, sport=53, data=data), src=src, dst=IP)[12:]


def names(w, what, send=None):
    """One name is allowed: what it leads to is, when the name server has said so, and nothing else."""
    to, other = ip4(6, tcp(8443), dst=FAR2), ip4(6, tcp(8443), dst="203.0.113.10")
    check("%s: the name server may be asked" % what, w.reaches(ip4(17, udp(53), dst=NAMESERVER), send))
    check("%s: another one may not" % what, not w.passes(ip4(17, udp(53), dst="192.0.2.54"), send))
    check("%s: a name that was not asked for leads nowhere" % what, not w.passes(to, send))
    w.put(answer("www.example.com", FAR2))
    w.put(answer("www.example.org", FAR2, src="192.0.2.54"))
    check("%s: nor by another name, or another server" % what, not w.passes(to, send))

    def answered():
        w.put(answer("WWW.example.org", FAR2))
        return w.passes(to, send)
    check("%s: an answer lets the guest there" % what, wait_for(answered, PATIENCE))
    check("%s: to the port of the rule" % what, not w.passes(ip4(6, tcp(444), dst=FAR2), send))
    check("%s: and nowhere else" % what, not w.passes(other, send))


NAMED = dict(allow=["tcp:www.example.org:8443", "udp:198.51.100.7:5001"])


def case_names(d, place):
    c = d.client()
    w = Switch(place + "/switch")
    g = start(c, "n", "socket=" + w.path, "ip=%s/24" % IP, "dns=" + NAMESERVER, *items(NAMED))
    names(w, "a socket: names")
    policy(g, allow=["tcp:other.example:8443", *NAMED["allow"][1:]])
    check("a policy with another name has forgotten the addresses", not w.passes(ip4(6, tcp(8443), dst=FAR2)))
    g.end()
    if not has_nft():
        return
    w = Bridge("n0")
    g = start(c, "o", "tap=n0,queues=2", "ip=%s/24" % IP, "dns=" + NAMESERVER, *items(NAMED))
    names(w, "a TAP: names")
    there = subprocess.run(["nft", "list", "table", "netdev", "insula_n0"], capture_output=True, text=True, check=True).stdout
    check("the outer rules have the address", FAR2 in there, there)
    check("past insula-net: where the name leads", w.reaches(ip4(6, tcp(8443), dst=FAR2), w.past_helper))
    check("past insula-net: and nowhere else", not w.passes(ip4(6, tcp(8443), dst="203.0.113.10"), w.past_helper))
    w.let_go()
    policy(g, allow=["tcp:other.example:8443", *NAMED["allow"][1:]])
    check("past insula-net: forgotten as well", not w.passes(ip4(6, tcp(8443), dst=FAR2), w.past_helper))
    w.let_go()
    g.end()


def case_macvtap(d, _):
    """Its frames leave by the parent, and never come in anywhere: another hook."""
    if not has_nft():
        return
    w = Bridge("m0")
    probe = subprocess.run(["ip", "link", "add", "m0v", "link", "m0f", "type", "macvtap"], capture_output=True, check=False)
    if probe.returncode:
        print("skip policy: macvtap - this kernel has none")
        return
    subprocess.run(["ip", "link", "del", "m0v"], check=True)
    # Its parent is the neighbour's end: what the guest sends is heard in the bridge, at m0p.
    w.sock.close()
    w.sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
    w.sock.bind(("m0p", 0))
    w.sock.setsockopt(263, 8, 1)
    w.listen()
    g = start(d.client(), "v", "macvtap=m0f", *SOURCES, *items(RULES))
    w.judge("a macvtap")
    changes(g, w, "a macvtap")
    check("it has a table", "insula_" in tables(), tables())
    g.end()
    check("and none at the end", wait_for(lambda: "insula_" not in tables()), tables())


def case_refused(d, place):
    def run(*net):
        return subprocess.run([BIN + "insula-run", "-n", "--kernel", BUILD + "/guests/netpuppet.elf", "--net", ",".join(net)],
                              capture_output=True, text=True, check=False)

    for item, words in (("allow=192.0.2.0/33", ("allow", "192.0.2.0/33", "expected")), ("allow=192.0.2.1/24", ("192.0.2.1/24",)),
                        ("allow=tcp:192.0.2.1:0", ("tcp:192.0.2.1:0",)), ("allow=tcp:192.0.2.1:70000", ("70000",)),
                        ("allow=tcp:192.0.2.1:9-8", ("9-8",)), ("allow=icmp:192.0.2.1:7", ("icmp:DEST",)), ("allow=192.0.2.256", ("192.0.2.256",)),
                        ("allow=a..b", ("a..b",)), ("allow=[192.0.2.1]", ("[192.0.2.1]",)), ("serve=80", ("serve", "80")),
                        ("from=here", ("from", "here")), ("allow=tcp:example.org:443", ("dns=",))):
        r = run("socket=" + place, "from=192.0.2.2", item)
        check("refused: " + item, r.returncode == 2 and r.stderr.count("\n") == 1 and "expected" in r.stderr and all(x in r.stderr for x in words), r)
    r = run("socket=" + place, "deny")
    check("refused: nothing to send from", r.returncode == 2 and "from=ADDRESS" in r.stderr, r)
    c = d.client()
    w = Switch(place + "/switch")
    g = start(c, "r", "socket=" + w.path, *SOURCES)
    e = refused(c, "vm.net.policy", id="r", device=card(g), allow=["tcp:10.0.0.0/8:443", "tcp:10.0.0.0/40:443"])
    check("vm.net.policy names what is wrong", e["code"] == -32602 and "allow[1]" in e["message"] and "10.0.0.0/40" in e["message"], e)
    e = refused(c, "vm.net.policy", id="r", device="com1", allow=[])
    check("and what is no card", e["code"] == -32602 and "card" in e["message"], e)
    e = refused(c, "vm.net.policy", id="r", device=card(g), off=True, allow=["*"])
    check("and off beside rules", e["code"] == -32602 and "off" in e["message"], e)
    r = subprocess.run([BIN + "insulactl", "--socket", d.socket, "policy", "r", card(g), "allow=tcp:10.0.0.1:0"], capture_output=True, text=True, check=False)
    check("insulactl: one line, status 2", r.returncode == 2 and r.stderr.count("\n") == 1 and "tcp:10.0.0.1:0" in r.stderr, r)
    g.end()


if __name__ == "__main__":
    run_cases(sys.modules[__name__])
