"""strace, attached to the running server: counts calls, and makes some of them fail."""

import re
import signal
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from .expect import Failure, expect, wait_until
from .spawn import spawn

LINE = re.compile(r"(?P<time>\d+\.\d+) (?P<name>\w+)\((?P<arguments>.*)\) += (?P<result>-?\w+)(?: (?P<error>E\w+))?.*")


@dataclass(frozen=True)
class Call:
    """One system call that returned."""

    time: float
    name: str
    arguments: str
    error: str
    injected: bool


class Trace:
    """Traces `calls` within the block. `inject` has the values of strace's `inject=`, separated by spaces.

    It attaches after the start, so that `when=` does not count the calls of the start."""

    def __init__(self, server, *calls, inject=None):
        self.server = server
        self.calls = []
        self._names = calls
        self._inject = inject
        self._folder = tempfile.TemporaryDirectory()

    def __enter__(self):
        command = ["strace", "-ff", "-ttt", "-s", "0", "-o", f"{self._folder.name}/thread", "-p", str(self.server.pid)]
        if self._names:
            command += ["-e", "trace=" + ",".join(self._names)]
        for inject in (self._inject or "").split():
            command += ["-e", "inject=" + inject]
        self._strace = spawn(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_until(self._attached_or_ended, 10, "strace did not attach within 10 s")
        if self._strace.poll() is not None and not self._server_ended():
            raise Failure(f"strace: {self._strace.stderr.read().decode(errors='replace').strip()}")
        return self

    def _attached_or_ended(self):
        return self._strace.poll() is not None or self._server_ended() or self.server.is_traced()

    def _server_ended(self):
        return self.server.process.poll() is not None

    def __exit__(self, *_):
        if self._strace.poll() is None and not self._server_ended():
            self._detach()
        self._strace.communicate(timeout=20)
        for file in Path(self._folder.name).iterdir():
            self.calls += filter(None, map(_call, file.read_text(errors="replace").splitlines()))
        self.calls.sort(key=lambda call: call.time)
        self._folder.cleanup()

    def _detach(self):
        """Detaches while the server is stopped. Otherwise a call that is made to fail could return ENOSYS."""
        self.server.signal(signal.SIGSTOP)
        try:
            wait_until(self._all_stopped, 10, "the traced server did not stop for SIGSTOP")
            self._strace.send_signal(signal.SIGINT)
            self._strace.wait(20)
        finally:
            self.server.signal(signal.SIGCONT)

    def _all_stopped(self):
        threads = (Path(f"{self._folder.name}/thread.{thread}") for thread in self.server.threads())
        return all(file.exists() and file.read_text().endswith("--- stopped by SIGSTOP ---\n") for file in threads)

    def count(self, name):
        """How many calls of this name returned."""
        return sum(call.name == name for call in self.calls)

    def injected(self):
        """The calls that were made to fail. If there are none, the check has checked nothing."""
        return [call for call in self.calls if call.injected]

    def expect_injected(self, least):
        """Fails if fewer than `least` calls were made to fail."""
        count = len(self.injected())
        expect(count >= least, f"only {count} calls were made to fail ({self._inject}), {least} were expected")
        return count


def _call(line):
    found = LINE.fullmatch(line)
    if not found:
        return None
    return Call(float(found["time"]), found["name"], found["arguments"], found["error"] or "", "(INJECTED)" in line)
