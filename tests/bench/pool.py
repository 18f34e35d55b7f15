#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""From vm.run to the first byte of a console: pool.py SOCKET SNAPSHOT ROUNDS. A line for each round: milliseconds of a VM that is started,
one that is restored, and one that stood in a pool. The snapshot is one of guests/snap.elf."""
import json
import os
import socket
import sys
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.abspath(__file__)), "../../docs/examples"))
from insulad_client import Insulad  # noqa: E402

path, snap, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
with open(snap + "/machine.json", encoding="ascii") as f:
    cold = json.load(f)["config"]
restored = dict(restore=snap, mem=64 << 20, cpus=1)
c = Insulad(path)
c.call("pool.create", name="bench", count=2, config=restored)


def run(keys, **params):
    """Milliseconds until the guest says something; for one that goes on it has been asked before."""
    ours, theirs = socket.socketpair()
    ours.sendall(keys)
    while c.call("pool.info", name="bench")["standing"] < 2:
        time.sleep(0.02)
    time.sleep(0.1)
    begin = time.monotonic()
    vm = c.call("vm.run", fds=[theirs.fileno()], **params)["id"]
    assert ours.recv(1)
    ms = (time.monotonic() - begin) * 1000
    c.call("vm.kill", id=vm)
    ours.close()
    theirs.close()
    return ms


for _ in range(rounds):
    print(*["%.3f" % ms for ms in (run(b"", config=cold), run(b"?", config=restored), run(b"?", pool="bench"))], flush=True)
c.call("pool.remove", name="bench")
