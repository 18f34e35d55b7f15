#!/bin/bash
# SPDX-License-Identifier: BSD-2-Clause
# insulad with bare-metal guests: tests/bench/daemon.sh BUILD. VMS: how many run at once (100; 20 on one processor); RUNS: how many vm.run (400; 60).
set -eu
cd "$(dirname "$0")/../.."
. tests/bench/lib.sh
BUILD=$(realpath "$1")
export BUILD
echo "insulad: a payload of two devices, 16 MiB, on $(nproc) CPUs"
printf '%-44s %12s %12s %7s  %s\n' "" ours "" "" target
# A call that is never answered ends the bench as well.
timeout -k 5 900 python3 - <<'PY' | while IFS='|' read -r name value target unit; do alone "$name" "$value" "$target" "$unit"; done
import json, os, statistics, subprocess, sys, tempfile, threading, time
sys.path.insert(0, "docs/examples")
from insulad_client import Insulad

BUILD = os.environ["BUILD"]
ONE = len(os.sched_getaffinity(0)) == 1
VMS = int(os.environ.get("VMS", 20 if ONE else 100))
RUNS = int(os.environ.get("RUNS", 60 if ONE else 400))
CLIENTS = 4


def row(name, value, target="", unit=""):
    print("%s|%s|%s|%s" % (name, value, target, unit), flush=True)


def guest(name):
    return dict(kernel="%s/guests/%s.elf" % (BUILD, name), mem="16M")


def field(path, key):
    with open(path) as f:
        return sum(int(line.split()[1]) for line in f if line.startswith(key))


def switches():
    return field(status, "voluntary_ctxt_switches") + field(status, "nonvoluntary_ctxt_switches")


def cpu_ms():
    """Of insulad and of all that has ended below it: a load beside does not count."""
    with open("/proc/%d/stat" % proc.pid) as f:
        return sum(map(int, f.read().rsplit(")", 1)[1].split()[11:15])) * 1000 / os.sysconf("SC_CLK_TCK")


def run_one(c, latencies):
    start = time.monotonic()
    r = c.call("vm.run", config=guest("hello"), wait=True)
    latencies.append(time.monotonic() - start)
    assert r["status"] == 42, r


def together(n):
    """As fast as they go; n in all."""
    latencies = []

    def work():
        c = Insulad(d + "/s")
        for _ in range(n // CLIENTS):
            run_one(c, latencies)

    threads = [threading.Thread(target=work) for _ in range(CLIENTS)]
    start = time.monotonic()
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return len(latencies) / (time.monotonic() - start), latencies


def paced(n, rate):
    """One every 1/rate seconds, whether the ones before have ended or not."""
    latencies, threads = [], []
    start = time.monotonic()
    for i in range(n):
        time.sleep(max(0, start + i / rate - time.monotonic()))
        threads.append(threading.Thread(target=lambda: run_one(Insulad(d + "/s"), latencies)))
        threads[-1].start()
    for t in threads:
        t.join()
    return len(latencies) / (time.monotonic() - start), latencies


def p99(v):
    return sorted(v)[min(len(v) - 1, len(v) * 99 // 100)] * 1000


with tempfile.TemporaryDirectory() as d:
    with open(d + "/conf", "w") as f:
        json.dump(dict(socket=d + "/s", state_dir=d + "/state", cgroup="off", overcommit_percent=1000, max_vms=2000,
                       max_clients=200, max_clients_per_uid=200), f)
    proc = subprocess.Popen([BUILD + "/bin/insulad", "--config", d + "/conf"], stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    status = "/proc/%d/status" % proc.pid
    c = None
    for _ in range(200):
        try:
            c = Insulad(d + "/s")
            break
        except OSError:
            time.sleep(0.05)
    try:
        c.call("daemon.info")
        empty = field(status, "VmRSS")
        row("RSS of insulad, empty", empty / 1024, "< 6", " MiB")
        before = field(status, "VmRSS")
        vms = [c.call("vm.run", config=guest("idle")) for _ in range(VMS)]
        row("RSS of insulad, for each of %d running" % VMS, (field(status, "VmRSS") - before) / VMS, "< 16", " KiB")
        pss = statistics.mean(field("/proc/%d/smaps_rollup" % v["pid"], "Pss:") for v in vms)
        row("PSS of a supervisor, %d of them" % VMS, pss / 1024, "< 1.5", " MiB")
        row("RSS of a supervisor (PSS of a single one)", field("/proc/%d/status" % vms[0]["pid"], "VmRSS") / 1024, "< 1.5", " MiB")
        time.sleep(1)
        x = switches()
        time.sleep(10)
        row("wake-ups of insulad with %d running" % VMS, (switches() - x) / 10, "0", "/s")
        for v in vms:
            c.call("vm.kill", id=v["id"])
        together(CLIENTS)
        x = cpu_ms()
        rate, v = together(RUNS)
        row("vm.run to its end, %d at a time" % CLIENTS, rate, ">= 40", "/s")
        row("  p99", p99(v), "", " ms")
        row("  processor time of one", (cpu_ms() - x) / len(v), "<= 50", " ms")
        rate, v = paced(RUNS, 40)
        row("vm.run, 40 a second asked for", rate, "40", "/s")
        row("  p99", p99(v), "< 150", " ms")
        before = field(status, "VmRSS")
        for i in range(1000):
            c.call("vm.create", name="r%d" % i, config=guest("idle"))
        times = []
        for _ in range(20):
            start = time.monotonic()
            n = len(c.call("vm.list")["vms"])
            times.append(time.monotonic() - start)
        assert n == 1000, n
        row("vm.list of 1,000, the client's JSON included", statistics.median(times) * 1000, "", " ms")
        times.clear()
        for _ in range(20):
            start = time.monotonic()
            c.sock.sendall(b'{"jsonrpc":"2.0","id":0,"method":"vm.list"}\n')
            got = b""
            while not got.endswith(b"\n"):
                got += c.sock.recv(1 << 20)
            times.append(time.monotonic() - start)
        row("vm.list of 1,000, to the last byte", statistics.median(times) * 1000, "< 5", " ms")
        row("RSS of insulad, for each of 1,000 created", (field(status, "VmRSS") - before) / 1000, "< 16", " KiB")
    finally:
        for v in [] if c is None else c.call("vm.list")["vms"]:
            if v["state"] not in ("created", "ended"):
                c.call("vm.kill", id=v["id"])
        proc.terminate()
        proc.wait(20)
PY
