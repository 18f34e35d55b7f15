#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""A person at a terminal.

onpty.py EXPECT TYPE [EXPECT TYPE]... -- COMMAND...   run COMMAND on a new terminal; its exit status, its output
onpty.py EXPECT TYPE ... @ PATH                       the same dialogue with a terminal that exists

Waits for each EXPECT in turn and types TYPE (both with backslash escapes). After a command, the last line of output says
whether the terminal is as it was: `terminal restored` or `terminal changed`. Status 99: the dialogue did not take place.
"""
import os
import select
import sys
import termios
import time

PATIENCE = float(os.environ.get("INSULA_PATIENCE", "20"))


def text(arg):
    return arg.encode().decode("unicode_escape").encode("latin-1")


def read_some(fd, deadline):
    """Bytes, or b'' at the end of the terminal or of patience."""
    if not select.select([fd], [], [], max(0, deadline - time.monotonic()))[0]:
        return b""
    try:
        return os.read(fd, 4096)
    except OSError:
        return b""


def talk(fd, pairs):
    deadline = time.monotonic() + PATIENCE
    for want, typed in pairs:
        seen = b""
        while want not in seen:
            chunk = read_some(fd, deadline)
            sys.stdout.buffer.write(chunk)
            if not chunk:
                return False
            seen += chunk
        os.write(fd, typed)
    return True


def on_new_terminal(pairs, command):
    before = []
    ready, go = os.pipe()
    pid, fd = os.forkpty()
    if pid == 0:
        os.read(ready, 1)
        os.execvp(command[0], command)
    before = termios.tcgetattr(fd)
    os.write(go, b"g")
    done = talk(fd, pairs)
    deadline = time.monotonic() + PATIENCE
    while done:
        chunk = read_some(fd, deadline)
        if not chunk:
            break
        sys.stdout.buffer.write(chunk)
    if not done:
        os.kill(pid, 9)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    same = termios.tcgetattr(fd) == before
    sys.stdout.buffer.write(b"\nterminal %s\n" % (b"restored" if same else b"changed"))
    return status if done else 99


def main():
    args = sys.argv[1:]
    split = next(i for i, a in enumerate(args) if a in ("--", "@"))
    words = [text(a) for a in args[:split]]
    pairs = list(zip(words[::2], words[1::2]))
    if args[split] == "--":
        return on_new_terminal(pairs, args[split + 1 :])
    fd = os.open(args[split + 1], os.O_RDWR | os.O_NOCTTY)
    return 0 if talk(fd, pairs) else 99


sys.exit(main())
