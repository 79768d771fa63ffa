"""An example as a process, usually `echo`: it is started, observed through /proc, and stopped."""

import contextlib
import ctypes
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .expect import Failure, expect, wait_until
from .spawn import spawn

ROOT = Path(__file__).resolve().parents[3]
LIBC = ctypes.CDLL(None, use_errno=True)
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


def build(program):
    """Builds an example. If the variable with its name in capitals is set, uses that binary instead."""
    variable = program.upper()
    if variable not in os.environ:
        if not shutil.which("cargo"):
            sys.exit(f"missing tool: cargo (or name a built server in {variable})")
        subprocess.run(["cargo", "build", "--quiet", "--release", "--example", program], cwd=ROOT, check=True)
        target = ROOT / os.environ.get("CARGO_TARGET_DIR", "target")
        os.environ[variable] = str(target / "release/examples" / program)


class StartFailed(Exception):
    """The server ended before it listened."""

    def __init__(self, code, errors):
        super().__init__(f"did not start: exit code {code}, stderr: {errors.strip() or 'empty'}")
        self.code = code
        self.errors = errors


class Server:
    """A running server. As a context manager it kills the server at the end, unless it was stopped."""

    def __init__(self, *options, listen="127.0.0.1:0", namespace=None, environment=None, prefix=(), program="echo"):
        self._output = tempfile.TemporaryFile()
        self._errors = tempfile.TemporaryFile()
        with namespace or contextlib.nullcontext():
            self.process = spawn(
                [*prefix, os.environ[program.upper()], "--listen", listen, *map(str, options)],
                stdin=subprocess.DEVNULL,
                stdout=self._output,
                stderr=self._errors,
                env={**os.environ, **(environment or {})},
            )
        self.namespace = namespace
        self.pid = self.process.pid
        try:
            self.address = self._wait_for_address()
        except BaseException:
            self.kill()
            raise

    def __enter__(self):
        return self

    def __exit__(self, _kind=None, error=None, _trace=None):
        if error and self.process.poll() is not None:
            error.add_note(f"[the server is gone: exit code {self.process.returncode}, stderr {self.errors()!r}]")
        self.kill()
        self._output.close()
        self._errors.close()

    def _wait_for_address(self):
        wait_until(
            lambda: b"\n" in self._read(self._output) or self.process.poll() is not None,
            15,
            "the server printed nothing for 15 s",
        )
        found = re.match(r"listening on (.+):(\d+)\n", self.output())
        if found:
            return found[1], int(found[2])
        if self.process.poll() is not None:
            raise StartFailed(self.process.returncode, self.errors())
        raise Failure(f"the first line is {self.output().splitlines()[0]!r}, not `listening on ADDR:PORT`")

    @staticmethod
    def _read(file):
        return os.pread(file.fileno(), 1 << 20, 0)

    def output(self):
        """Everything on stdout so far."""
        return self._read(self._output).decode(errors="replace")

    def errors(self):
        """Everything on stderr so far."""
        return self._read(self._errors).decode(errors="replace")

    def kill(self):
        """Ends the process at once."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()

    def signal(self, number):
        """Sends a signal."""
        self.process.send_signal(number)

    def signal_thread(self, thread, number):
        """Sends a signal to one thread, so that it interrupts no other."""
        if LIBC.tgkill(self.pid, int(thread), number) != 0:
            raise OSError(ctypes.get_errno(), "tgkill")

    @contextlib.contextmanager
    def stopped(self):
        """Stops the process with SIGSTOP for the length of the block."""
        self.signal(signal.SIGSTOP)
        wait_until(lambda: self._status("State").startswith("T"), 5, "SIGSTOP did not stop the server")
        try:
            yield
        finally:
            self.signal(signal.SIGCONT)

    def wait(self, seconds):
        """Waits for the process to end by itself. Returns its exit code."""
        try:
            return self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Failure(f"still running after {seconds} s") from None

    def stop(self):
        """Sends SIGTERM. Checks the exit code and the printed counters, and returns them as text."""
        expect(self.process.poll() is None, f"the server is gone: exit code {self.process.returncode}, {self.errors()}")
        self.signal(signal.SIGTERM)
        code = self.wait(20)
        expect(code == 0, f"exit code {code} after SIGTERM: {self.errors()}")
        self.expect_no_panic()
        return self.expect_all_terminated()

    def expect_no_panic(self):
        """Fails if the server has panicked anywhere."""
        expect("panicked" not in self.errors(), f"a panic: {self.errors()}")

    def expect_all_terminated(self):
        """Fails unless the exit report says that every handler made was terminated."""
        found = re.search(r"\bmade=(\d+)\s+terminated=(\d+)", self.output())
        expect(found, f"no `made=N terminated=N` in the exit report: {self.output()!r}")
        expect(found[1] == found[2], f"{found[0]}: not every handler was terminated")
        return found[0]

    def _status(self, field):
        status = Path(f"/proc/{self.pid}/status").read_text()
        return re.search(rf"^{field}:\s+(.*)$", status, re.MULTILINE)[1]

    def descriptors(self):
        """Open file descriptors."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def resident_kib(self):
        """Resident memory now, in KiB."""
        return int(self._status("VmRSS").split()[0])

    def resident_peak_kib(self):
        """The most memory that was ever resident, in KiB."""
        return int(self._status("VmHWM").split()[0])

    def cpu_seconds(self):
        """Processor time used so far."""
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / CLOCK_TICKS

    def threads(self):
        """The ids of all threads."""
        return os.listdir(f"/proc/{self.pid}/task")

    def _of_thread(self, thread, name):
        return Path(f"/proc/{self.pid}/task/{thread}/{name}").read_text()

    def times_scheduled(self):
        """How often threads of the process were scheduled. Each wake-up counts."""
        return sum(int(self._of_thread(thread, "schedstat").split()[2]) for thread in self.threads())

    def threads_in_poll(self):
        """The threads that wait for events."""
        return [thread for thread in self.threads() if self._of_thread(thread, "wchan") in ("ep_poll", "do_epoll_wait")]

    def is_traced(self):
        """Whether a tracer is attached to every thread. False if a thread ends meanwhile."""
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            return all("TracerPid:\t0\n" not in self._of_thread(thread, "status") for thread in self.threads())
        return False
