#!/usr/bin/env python3
# SPDX-License-Identifier: BSD-2-Clause
"""insula-run when something beside it fails: nobody reads its standard error, a helper cannot be started.

recovery.py [CASE...]     BUILD names the build directory. One line per case: ok, not ok.
"""
import contextlib
import ctypes
import errno
import fcntl
import json
import os
import pty
import re
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

BUILD = os.environ["BUILD"]
PATIENCE = 30 * (4 if " lab=" in open("/proc/cmdline", encoding="ascii").read() else 1)
CASES = {}


def case(f):
    CASES[f.__name__] = f
    return f


def wait_for(what, test, seconds=PATIENCE):
    end = time.monotonic() + seconds
    while not (got := test()):
        if time.monotonic() > end:
            raise AssertionError(f"{what}: not within {seconds} s")
        time.sleep(0.02)
    return got


def read(path):
    try:
        with open(path, encoding="utf-8", errors="replace") as f:
            return f.read()
    except OSError:
        return ""


class Vm:
    """insula-run with a payload; its standard output is a file."""

    def __init__(self, place, payload, *args, stderr, bindir=BUILD + "/bin", seconds=60):
        self.out = os.path.join(place, "out")
        self.disk = os.path.join(place, "disk.img")
        with open(self.disk, "w", encoding="ascii") as f:
            f.truncate(8 << 20)
        with open(self.out, "w", encoding="ascii") as out:
            # pylint: disable=consider-using-with
            self.run = subprocess.Popen(
                [bindir + "/insula-run", "--kernel", f"{BUILD}/guests/{payload}.elf", "--disk", "path=" + self.disk]
                + ["--append", f"seconds={seconds}", *args],
                stdin=subprocess.DEVNULL, stdout=out, stderr=stderr)

    def said(self, text):
        return text in read(self.out)

    def pid_of(self, program):
        """The process of this helper, once it is sealed; 0: there is none."""
        for task in os.listdir(f"/proc/{self.run.pid}/task"):
            for pid in read(f"/proc/{self.run.pid}/task/{task}/children").split():
                name = read(f"/proc/{pid}/cmdline").split("\0")[0]
                if name == program and "\nSeccomp:\t2" in read(f"/proc/{pid}/status"):
                    return int(pid)
        return 0

    def sealed(self, program):
        return wait_for(f"a sealed {program}", lambda: self.pid_of(program))

    def replaced(self, program, old):
        return wait_for(f"a new {program}", lambda: (new := self.pid_of(program)) and new != old and new)

    def status(self):
        """At its end."""
        return self.run.wait(PATIENCE)

    def close(self):
        if self.run.poll() is None:
            self.run.kill()
        self.run.wait()


def equal(got, want, what):
    assert got == want, f"{what}: {got}, expected {want}"


# ---- nobody reads standard error


@contextlib.contextmanager
def full_pipe():
    """The ends of a pipe that takes nothing any more."""
    r, w = os.pipe()
    fcntl.fcntl(w, fcntl.F_SETFL, os.O_NONBLOCK)
    with contextlib.suppress(BlockingIOError):
        while True:
            os.write(w, b"x" * 512)
    fcntl.fcntl(w, fcntl.F_SETFL, 0)
    try:
        yield r, w
    finally:
        os.close(r)
        os.close(w)


@contextlib.contextmanager
def stopped_terminal():
    """The ends of a terminal whose user has typed Ctrl-S."""
    master, slave = pty.openpty()
    os.write(master, b"\x13")
    try:
        yield master, slave
    finally:
        os.close(master)
        os.close(slave)


def deaf(place, stderr):
    """A helper is replaced, SIGTERM ends the VM."""
    with contextlib.closing(Vm(place, "blkloop", "-vv", stderr=stderr)) as vm:
        wait_for("the guest", lambda: vm.said("looping"))
        for _ in range(3):
            old = vm.sealed("insula-blk")
            os.kill(old, signal.SIGKILL)
            vm.replaced("insula-blk", old)
        os.kill(vm.run.pid, signal.SIGTERM)
        equal(vm.status(), 143, "status")


@case
def stderr_is_a_full_pipe(place):
    with full_pipe() as (_, w):
        deaf(place, w)


@case
def stderr_is_a_stopped_terminal(place):
    with stopped_terminal() as (_, slave):
        deaf(place, slave)


@case
def timeout_with_a_full_pipe(place):
    with full_pipe() as (_, w), contextlib.closing(Vm(place, "blkloop", "-vv", "--timeout", "1", stderr=w)) as vm:
        equal(vm.status(), 124, "status")


@case
def lost_lines_are_told(place):
    """The reader comes back: it gets what was kept, and hears how much was not."""
    got = []
    with full_pipe() as (r, w), contextlib.closing(Vm(place, "blkloop", "-vv", stderr=w)) as vm:
        wait_for("the guest", lambda: vm.said("looping"))
        equal(fcntl.fcntl(w, fcntl.F_GETFL) & os.O_NONBLOCK, 0, "O_NONBLOCK for everybody")
        reader = threading.Thread(target=lambda: got.extend(iter(lambda: os.read(r, 65536), b"")), daemon=True)
        reader.start()
        old = vm.sealed("insula-blk")
        os.kill(old, signal.SIGKILL)
        wait_for("the line", lambda: b"insula-blk vda was killed by signal 9" in b"".join(got))
        assert b"running after" in b"".join(got), "what was said before is kept"
        os.kill(vm.run.pid, signal.SIGTERM)
        equal(vm.status(), 143, "status")


@case
def metrics_to_a_pipe(place):
    """Nobody opens it: the VM ends all the same, and says why there are none."""
    path, err = place + "/fifo", place + "/err"
    os.mkfifo(path)
    with open(err, "wb") as e, contextlib.closing(Vm(place, "blkloop", "--metrics", path, stderr=e, seconds=1)) as vm:
        equal(vm.status(), 0, "status")
        assert "--metrics: " + path in read(err), read(err)


# ---- helpers that cannot be started


def own_tree(place):
    """A copy of the programs whose libexec is ours: its bin."""
    shutil.copytree(BUILD + "/bin", place + "/tree/bin")
    shutil.copytree(BUILD + "/libexec", place + "/tree/libexec")
    return place + "/tree/bin"


class Helper:
    """The program of a helper, which can be made one that cannot be started."""

    def __init__(self, bindir, program):
        self.path = f"{bindir}/../libexec/insula/{program}"

    def break_it(self):
        os.chmod(self.path, 0o644)  # insula-run has it open: it is the same file

    def mend(self):
        os.chmod(self.path, 0o755)


def wakeups(pid):
    text = read(f"/proc/{pid}/status")
    return int(text.split("voluntary_ctxt_switches:")[1].split()[0])


@contextlib.contextmanager
def broken_disk(place, payload="blkloop", **more):
    """A VM whose disk helper is killed and cannot be started again."""
    bindir, err = own_tree(place), place + "/err"
    helper = Helper(bindir, "insula-blk")
    with open(err, "wb") as e, contextlib.closing(Vm(place, payload, stderr=e, bindir=bindir, **more)) as vm:
        wait_for("the guest", lambda: vm.said("looping"))
        old = vm.sealed("insula-blk")
        helper.break_it()
        os.kill(old, signal.SIGKILL)
        yield vm, helper, old, lambda: read(err)


@case
def helper_that_cannot_start_for_a_second(place):
    """The device comes back, and the guest has lost nothing."""
    with broken_disk(place, seconds=4) as (vm, helper, old, err):
        wait_for("tries that fail", lambda: err().count("insula-blk vda") > 4)
        time.sleep(1)
        helper.mend()
        vm.replaced("insula-blk", old)
        equal(vm.status(), 0, "status")
        assert vm.said("ok all_rounds") and not vm.said("not ok"), read(vm.out)


@case
def failed_device_is_told_and_comes_back(place):
    """After ten tries the guest is told. Then there is a try every 5 s, and nobody is woken in between."""
    with broken_disk(place, "failed") as (vm, helper, _, err):
        wait_for("the guest to be told", lambda: vm.said("told"))
        assert "the device has failed, the guest is told" in err(), err()
        before = wakeups(vm.run.pid)
        time.sleep(2)
        count = wakeups(vm.run.pid) - before
        assert count < 60, f"{count} wake-ups in 2 s"  # one try is some ten
        helper.mend()
        equal(vm.status(), 0, "status: " + read(vm.out))
        for line in "needs_reset", "configuration_interrupt", "comes_back", "needs_no_reset", "works":
            assert vm.said("ok " + line) and not vm.said("not ok"), read(vm.out)


# ---- helpers that somebody has taken over


def message_type(name):
    """Its number in insula/proto.h."""
    with open(os.path.dirname(os.path.abspath(__file__)) + "/../../include/insula/proto.h", encoding="utf-8") as f:
        text = re.sub(r"/\*.*?\*/", "", f.read(), flags=re.S)
    number = 0
    for item in re.search(r"enum msg_type \{(.*?)\}", text, re.S).group(1).split(","):
        word, _, value = item.partition("=")
        number = int(value) if value else number + 1
        if word.strip() == name:
            return number
    raise KeyError(name)


def send_for(pid, kind, body):
    """A message to the supervisor on the channel of a helper (insula/proto.h)."""
    libc = ctypes.CDLL(None, use_errno=True)
    pidfd = os.pidfd_open(pid)
    try:
        channel = libc.syscall(438, pidfd, 3, 0)  # pidfd_getfd, MSG_CHANNEL_FD
        if channel < 0:
            raise OSError(ctypes.get_errno(), "pidfd_getfd")
    finally:
        os.close(pidfd)
    with socket.socket(fileno=channel) as s:
        s.send(struct.pack("=4I", 1, message_type(kind), len(body), 0) + body)


@case
def stopped_before_it_was_asked(place):
    """A helper that claims to have stopped is replaced. Believed, it would be neither watched nor started again."""
    if os.geteuid():
        print("skip recovery: stopped_before_it_was_asked - not root")
        return
    err = place + "/err"
    with open(err, "wb") as e, contextlib.closing(Vm(place, "blkloop", stderr=e, seconds=20)) as vm:
        wait_for("the guest", lambda: vm.said("looping"))
        old = vm.sealed("insula-blk")
        send_for(old, "MSG_STOPPED", bytes(128))  # struct msg_stats
        vm.replaced("insula-blk", old)
        assert "insula-blk vda: broke the protocol" in read(err), read(err)


def not_jailed():
    """A program for the jail that says MSG_READY and has sealed nothing: an ELF image."""
    code = bytes.fromhex(
        "b801000000 bf03000000 488d3510000000 ba10000000 0f05"  # write(MSG_CHANNEL_FD, message, 16)
        "b822000000 0f05 ebf7")  # for ever: pause()
    code += struct.pack("=4I", 1, message_type("MSG_READY"), 0, 0)
    base, head = 0x400000, 64 + 56
    ident = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    elf = struct.pack("=HHIQQQIHHHHHH", 2, 62, 1, base + head, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    load = struct.pack("=IIQQQQQQ", 1, 5, 0, base, base, head + len(code), head + len(code), 4096)
    return ident + elf + load + code


def overwrite(path, data):
    """The file that insula-run has open, as soon as no process runs it."""
    def attempt():
        try:
            with open(path, "r+b") as f:
                f.truncate(0)
                f.write(data)
            return True
        except OSError as e:
            if e.errno != errno.ETXTBSY:
                raise
            return False
    wait_for("nobody to run " + path, attempt)


@case
def helper_that_is_not_in_its_jail(place):
    """It is killed, and the guest goes on: a later one, which is, serves the disk again."""
    with broken_disk(place, seconds=4) as (vm, helper, old, err):
        with open(helper.path, "rb") as f:
            good = f.read()
        overwrite(helper.path, not_jailed())
        helper.mend()
        wait_for("the refusal", lambda: "insula-blk vda: not in its jail" in err())
        helper.break_it()
        overwrite(helper.path, good)
        helper.mend()
        vm.replaced("insula-blk", old)
        equal(vm.status(), 0, "status: " + err())
        assert vm.said("ok all_rounds") and not vm.said("not ok"), read(vm.out)


class Supervisor:
    """`insula-run --control` with a payload, as insula-oci starts it."""

    def __init__(self, place, payload):
        self.path = os.path.join(place, "control")
        setup, result = os.path.join(place, "setup"), os.path.join(place, "result")
        config = {"kernel": f"{BUILD}/guests/{payload}.elf", "append": "seconds=600", "console": "none"}
        with open(setup, "w", encoding="ascii") as f:
            json.dump({"token": "0" * 64, "config": config, "alone": True}, f)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        listener.bind(self.path)
        listener.listen()
        with open(setup, "rb") as s, open(result, "w+b") as r, listener:
            fds = [fcntl.fcntl(f.fileno(), fcntl.F_DUPFD, 100) for f in (listener, s, r)]
        equal(fds, list(range(fds[0], fds[0] + 3)), "descriptors")
        # pylint: disable=consider-using-with
        self.run = subprocess.Popen([BUILD + "/bin/insula-run", "--control", str(fds[0])], pass_fds=fds, stdin=subprocess.DEVNULL)
        for fd in fds:
            os.close(fd)
        self.result = result

    def client(self):
        s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        s.settimeout(PATIENCE)
        s.connect(self.path)
        ask(s, "hello")
        return s


def ask(client, op):
    """The answer; events before it are passed over."""
    client.send(json.dumps({"id": 1, "op": op}).encode())
    while "id" not in (answer := json.loads(client.recv(1 << 16))):
        pass
    return answer


@case
def owner_gone(place):
    """A VM ends with the connection that owns it, and with no other one; it has one owner, and room for many clients."""
    vm = Supervisor(place, "spin")
    owner, others = vm.client(), [vm.client() for _ in range(60)]
    assert "result" in ask(owner, "own")
    equal(ask(others[0], "own")["error"]["reason"], "wrong-state", "a second owner")
    for s in others[1:]:
        s.close()
    wait_for("the guest to run", lambda: ask(others[0], "info")["result"]["state"] == "running")
    owner.close()
    vm.run.wait(timeout=PATIENCE)
    equal(json.loads(read(vm.result))["reason"], "disowned", "reason")


def main():
    failed = 0
    for name in sys.argv[1:] or CASES:
        with tempfile.TemporaryDirectory(prefix="recovery.") as place:
            try:
                CASES[name](place)
                print("ok recovery:", name)
            except (AssertionError, OSError, subprocess.TimeoutExpired) as e:
                print("not ok recovery:", name, "-", str(e).replace("\n", "|"))
                failed = 1
    return failed


sys.exit(main())
