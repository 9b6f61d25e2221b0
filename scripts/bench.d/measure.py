"""Processes and what they cost; the file that is sent, and the machine between two runs."""
import contextlib
import hashlib
import os
import select
import shutil
import signal
import socket
import subprocess
import threading
import time
from pathlib import Path

MIB = 1 << 20
IP = "127.0.0.1"
LIMIT_S = 300  # the most that one run may take
QUIET_S = 60  # the longest wait for a quiet machine before a run
SAMPLE_S = 0.02  # between two looks at a process's memory
DISK_EVERY = 10  # looks at memory for one at the disk, which costs more
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A run that did not end as it should; the text says why."""


def environment(home):
    """The caller's, but for what would change a program's settings."""
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("MEGATORRENT_", "RQBIT_", "RUST_"))}
    return {**kept, "HOME": str(home)}


class Proc:
    """A child of a run's role, "seed" or "read": lines on its stdin and stdout, its stderr in a log."""

    def __init__(self, role, argv, log, home, lines=True):
        self.role, self.log = role, log
        self.usage = None  # of the kernel, once it has ended
        self.cpu_before = self.cpu_s = 0.0
        self.peak_rss = 0
        with open(log, "ab") as err:
            self.child = subprocess.Popen([str(a) for a in argv], stdin=subprocess.PIPE, stderr=err,
                                          stdout=subprocess.PIPE if lines else err, cwd=home, env=environment(home))
        self.pid, self.buffer = self.child.pid, b""
        self.fd = os.pidfd_open(self.pid)

    def send(self, line):
        self.child.stdin.write(line.encode() + b"\n")
        self.child.stdin.flush()

    def expect(self, start):
        """The rest of the first line that begins with `start`."""
        end = time.monotonic() + LIMIT_S
        out = self.child.stdout.fileno()
        while True:
            while b"\n" in self.buffer:
                line, self.buffer = self.buffer.split(b"\n", 1)
                line = line.decode(errors="replace").strip()
                if line.startswith(start):
                    return line[len(start):].strip()
            left = end - time.monotonic()
            if left <= 0 or not select.select([out], [], [], left)[0]:
                raise Failed(f"the {self.role} process printed no line {start!r} within {LIMIT_S} s: {self.last_words()}")
            data = os.read(out, 65536)
            if not data:
                raise Failed(f"the {self.role} process ended before its line {start!r}: {self.last_words()}")
            self.buffer += data

    def alive(self):
        return self.fd is not None and self.usage is None and not select.select([self.fd], [], [], 0)[0]

    def wait(self, timeout=LIMIT_S):
        if self.usage is None:
            if not select.select([self.fd], [], [], timeout)[0]:
                raise Failed(f"the {self.role} process still runs after {timeout} s: {self.last_words()}")
            _, status, self.usage = os.wait4(self.pid, 0)
            self.child.returncode = os.waitstatus_to_exitcode(status)
        return self.child.returncode

    def succeed(self):
        if code := self.wait():
            raise Failed(f"the {self.role} process ended with {code}: {self.last_words()}")

    def cpu(self):
        if self.usage is not None:
            return self.usage.ru_utime + self.usage.ru_stime
        fields = Path(f"/proc/{self.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return sum(int(x) for x in fields[11:15]) / TICK

    def sample(self):
        # Not the kernel's ru_maxrss, which begins with the memory of the process that forked this one.
        with contextlib.suppress(OSError):
            for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_rss = max(self.peak_rss, int(line.split()[1]) << 10)

    def begin(self):
        """From here on its time and its peak of memory count."""
        self.cpu_before = self.cpu()
        with contextlib.suppress(OSError):
            Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    def stop(self):
        if self.fd is None:
            return
        for kind in (signal.SIGTERM, signal.SIGKILL):
            if self.alive():
                os.kill(self.pid, kind)
                select.select([self.fd], [], [], 8)
        with contextlib.suppress(Failed):
            self.wait(5)
        for pipe in (self.child.stdin, self.child.stdout):
            with contextlib.suppress(OSError):
                if pipe:
                    pipe.close()
        os.close(self.fd)
        self.fd = None

    def last_words(self):
        with contextlib.suppress(OSError):
            return Path(self.log).read_text(errors="replace")[-400:].strip()
        return ""


class Run:
    """One transfer: its processes, a fresh folder for each side, and what both cost while it is timed."""

    def __init__(self, folder, source):
        self.source = source
        self.folder = folder
        shutil.rmtree(folder, ignore_errors=True)
        self.sides = {"seed": folder / "seed", "read": folder / "read"}
        for side in self.sides.values():
            side.mkdir(parents=True)
        self.seed, self.read = self.sides.values()
        self.procs = []
        self.seconds = self.others_cpu = 0.0
        self.disk = dict.fromkeys(self.sides, 0)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def spawn(self, role, argv, lines=True):
        proc = Proc(role, argv, self.folder / f"{role}.log", self.sides[role], lines)
        self.procs.append(proc)
        return proc

    def call(self, role, argv):
        """Runs a program to its end, and returns what it printed."""
        home = self.sides[role]
        try:
            done = subprocess.run([str(a) for a in argv], cwd=home, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                  timeout=LIMIT_S, env=environment(home))
        except subprocess.TimeoutExpired as late:
            raise Failed(f"{argv[1]}: still running after {LIMIT_S} s") from late
        if done.returncode:
            raise Failed(f"{argv[1]}: exit code {done.returncode}: {done.stderr[-400:].strip()}")
        return done.stdout

    @contextlib.contextmanager
    def timed(self):
        # What was written before belongs to no run's time.
        os.sync()
        for proc in self.procs:
            proc.begin()
        stop = threading.Event()
        watcher = threading.Thread(target=self._watch, args=(stop,))
        cpu, start = machine_cpu(), time.monotonic()
        watcher.start()
        try:
            yield
            self.seconds = time.monotonic() - start
            for proc in self.procs:
                proc.sample()
                proc.cpu_s = proc.cpu() - proc.cpu_before
            self.others_cpu = machine_cpu() - cpu - sum(proc.cpu_s for proc in self.procs)
        finally:
            stop.set()
            watcher.join()
        self._weigh()

    def _watch(self, stop):
        looks = 0
        while not stop.wait(SAMPLE_S):
            for proc in list(self.procs):
                proc.sample()
            looks += 1
            if looks % DISK_EVERY == 0:
                self._weigh()

    def _weigh(self):
        for side, folder in self.sides.items():
            self.disk[side] = max(self.disk[side], on_disk(folder))

    def check(self, file):
        """Compares what was read with what was sent, by other means than the program's own."""
        self.stop()
        if sha256(file) != self.source.sha256:
            raise Failed(f"{file.name} is not what was sent")

    def stop(self):
        for proc in reversed(self.procs):
            proc.stop()

    def result(self):
        def of(role, what):
            return [getattr(proc, what) for proc in self.procs if proc.role == role]
        size = self.source.size
        return {
            "seconds": self.seconds,
            "cpu": {role: sum(of(role, "cpu_s")) for role in self.sides},
            "rss": {role: max(of(role, "peak_rss")) for role in self.sides},
            # The sender's content is the source, which stands outside its folder.
            "disk": {"seed": self.disk["seed"], "read": self.disk["read"] - size},
            "disturbed": self.others_cpu / self.seconds,
        }


class Source:
    """A file of random bytes."""

    def __init__(self, file, size):
        self.file, self.size = file, size
        digest = hashlib.sha256()
        with open(file, "wb") as out:
            left = size
            while left:
                chunk = os.urandom(min(left, MIB))
                digest.update(chunk)
                out.write(chunk)
                left -= len(chunk)
        self.sha256 = digest.hexdigest()


def machine_cpu():
    """Seconds that the machine's processors have worked, but for interrupts, which belong to no process."""
    fields = [int(x) for x in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:]]
    return sum(fields[:3]) / TICK


def on_disk(folder):
    """Bytes of disk that a folder takes; a file that is renamed meanwhile counts once."""
    blocks, folders = {}, [folder]
    while folders:
        with contextlib.suppress(OSError):
            for entry in os.scandir(folders.pop()):
                with contextlib.suppress(OSError):
                    stat = entry.stat(follow_symlinks=False)
                    blocks[stat.st_ino] = stat.st_blocks
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
    return sum(blocks.values()) * 512


def sha256(file):
    digest = hashlib.sha256()
    with open(file, "rb") as data:
        while chunk := data.read(MIB):
            digest.update(chunk)
    return digest.hexdigest()


def level(source, folder):
    """Gives each run the same start: nothing waits to be written, the source is in the page cache, the memory of as many
    pages as a run fills is there (a virtual machine's first touch of a page costs as much as copying it), and no other
    program works, unless that takes too long."""
    spare = folder / "spare"
    chunk = os.urandom(MIB)
    with open(spare, "wb", buffering=0) as out:
        for _ in range(2 * source.size // MIB + 1):
            out.write(chunk)
    spare.unlink()
    os.sync()
    sha256(source.file)
    end = time.monotonic() + QUIET_S
    while time.monotonic() < end:
        before = machine_cpu()
        time.sleep(0.5)
        if machine_cpu() - before < 0.05:
            return


def free_port():
    with socket.socket() as s:
        s.bind((IP, 0))
        return s.getsockname()[1]


def poll(check, every, proc):
    end = time.monotonic() + LIMIT_S
    while time.monotonic() < end:
        with contextlib.suppress(OSError, ValueError, LookupError):
            if value := check():
                return value
        if not proc.alive():
            raise Failed(f"the {proc.role} process ended: {proc.last_words()}")
        time.sleep(every)
    raise Failed(f"the {proc.role} process is not done after {LIMIT_S} s: {proc.last_words()}")
