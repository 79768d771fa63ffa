"""Processes, ports and tools for the interop checks.

A check starts its processes through its `Scope`. They end with the scope.
"""

import contextlib
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import time

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parent.parent
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target"))
EXAMPLES = TARGET / "release" / "examples"
ZONE = ROOT / "examples" / "sample.zone"
HOST = "127.0.0.1"

CHECKS = []


def check(name):
    """Registers a function of one argument, its `Scope`, as a check."""

    def register(function):
        CHECKS.append((name, function))
        return function

    return register


class Failed(Exception):
    """The check has failed."""


class Missing(Failed):
    """The check needs something that is not installed."""


def demand(condition, message):
    if not condition:
        raise Failed(message)


def tool(name, package):
    """Returns the path of a tool. If it is missing, the check fails and names its package."""
    path = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if path is None:
        raise Missing(f"{name} is not installed: tests/interop/install (package {package})")
    return path


def free_port():
    with socket.socket() as s:
        s.bind((HOST, 0))
        return s.getsockname()[1]


def wait_for(condition, seconds, what):
    deadline = time.monotonic() + seconds
    while not condition():
        demand(time.monotonic() < deadline, f"{what}: not within {seconds} s")
        time.sleep(0.02)


def accepts(port):
    try:
        socket.create_connection((HOST, port), 1).close()
        return True
    except OSError:
        return False


def run(command, seconds=120, **options):
    """Runs a tool to its end, and returns its output. If the tool fails, the check fails."""
    done = subprocess.run(
        [str(part) for part in command],
        stdin=options.pop("stdin", subprocess.DEVNULL),
        capture_output=True,
        text=True,
        errors="replace",
        timeout=seconds,
        **options,
    )
    demand(
        done.returncode == 0,
        f"{command[0]} ended with {done.returncode}\n{done.stdout[-2000:]}{done.stderr[-2000:]}",
    )
    return done.stdout


class Process:
    """A server that ends with its scope. Its output goes into a file."""

    def __init__(self, command, log, **options):
        self.name = pathlib.Path(str(command[0])).name
        self.log = log
        with open(log, "wb") as out:
            self.popen = subprocess.Popen(
                [str(part) for part in command],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **options,
            )
        self.pid = self.popen.pid

    def output(self):
        return self.log.read_text(errors="replace")

    def wait_until(self, condition, what, seconds=20):
        def met():
            if self.popen.poll() is not None:
                raise Failed(f"{self.name} ended with {self.popen.returncode}\n{self.output()}")
            return condition()

        wait_for(met, seconds, f"{self.name}: {what}")

    def fds(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def cpu_seconds(self):
        """CPU time of all threads of the process and of its children that are alive."""
        nanoseconds = 0
        for process in pathlib.Path("/proc").glob("[0-9]*"):
            # A process may end while its files are read.
            with contextlib.suppress(OSError):
                session = (process / "stat").read_text().rsplit(")", 1)[1].split()[3]
                if int(session) == self.pid:  # the process and its children have their own session
                    for thread in process.glob("task/*/schedstat"):
                        nanoseconds += int(thread.read_text().split()[0])
        return nanoseconds / 1e9

    def stop(self, seconds=15):
        """Sends SIGTERM and returns the exit code. Fails if the process takes too long."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise Failed(f"{self.name} did not end within {seconds} s of SIGTERM") from None


class Scope(contextlib.ExitStack):
    """The processes of one check, and its directory."""

    def __init__(self, directory):
        super().__init__()
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.started = 0

    def start(self, *command, **options):
        self.started += 1
        name = pathlib.Path(str(command[0])).name
        process = Process(command, self.directory / f"{self.started}-{name}.log", **options)
        self.callback(self._end, process)
        return process

    @staticmethod
    def _end(process):
        # SIGTERM first, so that a server can end its children.
        with contextlib.suppress(Failed):
            process.stop(5)

    def configure(self, template, **values):
        """Fills in one of `peers/*.conf`, and returns the path of the result."""
        text = (HERE / "peers" / template).read_text()
        for key, value in values.items():
            text = text.replace(f"@{key}@", str(value))
        path = self.directory / template
        path.write_text(text)
        return path

    def example(self, name, *arguments, pin=None):
        """Starts one of the crate's examples on a free port. Returns `(process, port)`."""
        binary = EXAMPLES / name
        demand(binary.exists(), f"{binary} is not built: cargo build --release --examples")
        port = free_port()
        pinned = ["taskset", "-c", str(pin)] if pin is not None else []
        process = self.start(*pinned, binary, "--listen", f"{HOST}:{port}", *arguments)
        process.name = name
        process.wait_until(lambda: "listening on" in process.output(), "listens")
        return process, port

    def listening(self, command, name, pin=None):
        """Starts a server that gets its port in its arguments. Returns `(process, port)`."""
        port = free_port()
        pinned = ["taskset", "-c", str(pin)] if pin is not None else []
        command = [str(part).replace("@PORT@", str(port)) for part in command]
        process = self.start(*pinned, *command)
        process.name = name
        process.wait_until(lambda: accepts(port), "listens")
        return process, port

    def knot(self, zone=ZONE, pin=None):
        port = free_port()
        storage = self.directory / "knot"
        storage.mkdir(exist_ok=True)
        conf = self.configure("knot.conf", PORT=port, DIR=storage, ZONE=zone)
        pinned = ["taskset", "-c", str(pin)] if pin is not None else []
        process = self.start(*pinned, tool("knotd", "knot"), "-c", conf)
        process.name = "knotd"
        process.wait_until(lambda: "server started" in process.output(), "starts", 30)
        process.wait_until(lambda: accepts(port), "listens")
        return process, port

    def nsd(self, zone=ZONE, pin=None):
        port = free_port()
        storage = self.directory / "nsd"
        storage.mkdir(exist_ok=True)
        conf = self.configure("nsd.conf", PORT=port, DIR=storage, ZONE=zone)
        pinned = ["taskset", "-c", str(pin)] if pin is not None else []
        process = self.start(*pinned, tool("nsd", "nsd"), "-d", "-c", conf)
        process.name = "nsd"
        process.wait_until(lambda: accepts(port), "listens")
        return process, port


def say(text):
    print(text, flush=True)
    sys.stdout.flush()
