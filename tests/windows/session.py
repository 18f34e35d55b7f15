# SPDX-License-Identifier: BSD-2-Clause
"""insulad.exe under wine, its clients and its VMs: for tests/windows/daemon and snapshot, whose first argument is BUILD."""
import json, os, queue, shutil, signal, subprocess, sys, tempfile, threading, time

build = os.path.realpath(sys.argv[1])
here = os.path.dirname(os.path.realpath(__file__))
WINE = [here + '/../whp-double/wine', build]
BIN = build + '/windows/test-bin'
PIPE = '\\\\.\\pipe\\insula-test'
suite, failed = '', False


def windows(path):
    return 'Z:' + path.replace('/', '\\')


def check(name, good, why=''):
    global failed
    failed |= not good
    print(f'ok {suite}: {name}' if good else f'not ok {suite}: {name} - {why}', flush=True)


def wines_own(said):
    """Now and then, on a busy machine, a process that wine makes ends before its loader has begun: see lib.sh. Then it is done once more."""
    if 'start: error 1359' not in said:
        return False
    print('wine could not make a process, once more: ' + said, flush=True)
    return True


class Client:
    def __init__(self):
        self.p = subprocess.Popen([*WINE, BIN + '/pipecat.exe', PIPE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.lines, self.events, self.id = queue.Queue(), [], 0
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.p.stdout:
            self.lines.put(json.loads(line))
        self.lines.put(None)

    def next(self, seconds=30):
        """The next message, None: the end; TimeoutError."""
        try:
            return self.lines.get(timeout=seconds)
        except queue.Empty:
            raise TimeoutError('no answer') from None

    def send(self, text):
        self.p.stdin.write(text if isinstance(text, bytes) else text.encode())
        self.p.stdin.flush()

    def begin(self, method, **params):
        self.id += 1
        self.send(json.dumps({'jsonrpc': '2.0', 'id': self.id, 'method': method, 'params': params}) + '\n')
        return self.id

    def end(self, wanted, seconds=60):
        limit = time.monotonic() + seconds
        while True:
            m = self.next(max(0.1, limit - time.monotonic()))
            if m is None:
                raise EOFError
            if m.get('method') == 'event':
                self.events.append(m['params'])
            elif m.get('id') == wanted:
                return m

    def ask(self, method, **params):
        for _ in range(3):
            m = self.end(self.begin(method, **params))
            if not wines_own(json.dumps(m.get('error'))):
                break
        return m

    def result(self, method, **params):
        m = self.ask(method, **params)
        if 'error' in m:
            raise RuntimeError(f'{method}: {m["error"]}')
        return m['result']

    def reason(self, method, **params):
        return self.ask(method, **params).get('error', {}).get('data', {}).get('reason')

    def event(self, name, vm=None, seconds=30):
        limit = time.monotonic() + seconds
        while True:
            for e in self.events:
                if e['event'] == name and vm in (None, e['name']):
                    self.events.remove(e)
                    return e
            m = self.next(max(0.1, limit - time.monotonic()))
            if m is None:
                raise EOFError
            if m.get('method') == 'event':
                self.events.append(m['params'])

    def close(self):
        self.p.stdin.close()
        self.p.wait()


class Daemon:
    def __init__(self, t):
        self.t, self.conf = t, t + '/insulad.json'
        with open(self.conf, 'w') as f:
            json.dump({'socket': PIPE, 'state_dir': windows(t + '/state'), 'max_line': 8192}, f)
        self.start()

    def start(self):
        self.log = open(self.t + '/log', 'ab')
        self.p = subprocess.Popen([*WINE, BIN + '/insulad.exe', '--config', windows(self.conf)], stdin=subprocess.DEVNULL, stdout=self.log,
                                  stderr=self.log)
        limit = time.monotonic() + 30
        while True:
            self.c = Client()
            try:
                return self.c.result('daemon.info')
            except (EOFError, BrokenPipeError):
                if time.monotonic() > limit or self.p.poll() is not None:
                    raise RuntimeError('insulad does not come up: ' + open(self.t + '/log').read()) from None
                time.sleep(0.1)

    def kill(self):
        for p in pids('insulad.exe'):
            os.kill(p, signal.SIGKILL)
        self.p.wait()


def pids(program):
    """Processes of this build."""
    found = []
    for p in os.listdir('/proc'):
        try:
            first = open(f'/proc/{p}/cmdline', 'rb').read().split(b'\0')[0].decode().strip('"').replace('\\', '/') if p.isdigit() else ''
        except OSError:
            continue
        if first.removeprefix('Z:') == f'{BIN}/{program}':
            found.append(int(p))
    return found


def spin(**more):
    return {'kernel': windows(build + '/guests/spin.elf'), 'mem': '64M', 'rng': 'off', **more}


def attach(pipe):
    return subprocess.Popen([*WINE, BIN + '/pipecat.exe', pipe], stdin=subprocess.PIPE, stdout=subprocess.PIPE)


def read_until(p, what, seconds=20):
    """Does the process say that, within so long?"""
    said, limit = b'', time.monotonic() + seconds
    os.set_blocking(p.stdout.fileno(), False)
    while what not in said and time.monotonic() < limit:
        said += p.stdout.read() or b''
        time.sleep(0.02)
    return what in said


def ctl(*args, pipe=PIPE, cwd=None, **more):
    """insulactl.exe: its status, what it said, its complaint."""
    p = subprocess.run([*WINE, BIN + '/insulactl.exe', '--socket', pipe, *args], stdin=subprocess.DEVNULL, capture_output=True, timeout=60, cwd=cwd, **more)
    return p.returncode, p.stdout.decode(), p.stderr.decode()


def session(name, parts):
    """All of them, with one insulad; ends the program."""
    global suite
    suite = name
    t = tempfile.mkdtemp()
    os.environ['WINE_SESSION'] = t + '/wine'
    try:
        d = Daemon(t)
        for part in parts:
            try:
                part(d)
            except (RuntimeError, TimeoutError, EOFError, KeyError, TypeError, ValueError, BrokenPipeError) as e:
                check(part.__name__, False, f'{type(e).__name__}: {e}')
    except RuntimeError as e:
        check('start', False, str(e).replace('\n', ' | '))
    finally:
        for p in pids('insula-run.exe') + pids('insulad.exe'):
            os.kill(p, signal.SIGKILL)
        if failed:
            sys.stderr.write(open(t + '/log', errors='replace').read()[:6000])
        subprocess.run([*WINE, '--end'])
        shutil.rmtree(t, ignore_errors=True)
    sys.exit(failed)
