"""A server on one core and its clients on another one, ahead of everything else on the machine.

Latencies of a few milliseconds mean nothing while other programs take the same cores. So these processes have
real-time priority, and the bystander has more of it than the crowd. The kernel still gives the cores to other programs
for about 50 ms in a second. It also counts how long a thread has waited for its core, so the bystander subtracts the
waits of the server and its own from what it measures (neighbours.py)."""

import json
import math
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from .expect import expect
from .spawn import spawn

NEEDS = ("chrt", "taskset")
NEIGHBOURS = Path(__file__).with_name("neighbours.py")
# In seconds: how long a client may take to carry out a command.
ANSWER = 20


def _on(core, priority):
    return ("taskset", "-c", str(core), "chrt", "--rr", str(priority))


SERVER = _on(0, 5)
_CROWD = _on(1, 5)
_BYSTANDER = _on(1, 6)


@dataclass(frozen=True)
class Latencies:
    """Latencies in milliseconds."""

    millis: list
    unanswered: bool

    def p99(self):
        """The 99th percentile, infinite if the last request has no answer."""
        return math.inf if self.unanswered else sorted(self.millis)[len(self.millis) * 99 // 100]

    def most(self):
        """The largest one, infinite if the last request has no answer."""
        return math.inf if self.unanswered else max(self.millis)

    def __str__(self):
        if self.unanswered:
            return f"no answer in {self.millis[-1] / 1000:.0f} s"
        middle = sorted(self.millis)[len(self.millis) // 2]
        return f"p50 {middle:.2f}, p99 {self.p99():.2f}, at most {self.most():.1f} ms"


class _Neighbour:
    """A process of neighbours.py. The end of the block kills it."""

    def __init__(self, prefix, kind, address, *numbers):
        command = [*prefix, sys.executable, str(NEIGHBOURS), kind, *map(str, (*address, *numbers))]
        self._process = spawn(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def _line(self):
        limit = threading.Timer(ANSWER, self._process.kill)
        limit.start()
        line = self._process.stdout.readline()
        limit.cancel()
        expect(line, f"a client ended before it told its result, or did not tell it in {ANSWER} s: {self._process.args}")
        return line

    def _command(self, line):
        self._process.stdin.write(f"{line}\n")
        self._process.stdin.flush()
        return self._line()


class Bystander(_Neighbour):
    """A well-behaved client, and newcomers like it. The `prefix` chooses its core and its priority."""

    def __init__(self, server, address=None, width=2, prefix=_BYSTANDER):
        super().__init__(prefix, "bystander", address or server.address, width, server.pid)

    def measure(self, command, value):
        """Carries out a command of neighbours.py. Returns the latencies."""
        return Latencies(**json.loads(self._command(f"{command} {value}")))


class Hogs(_Neighbour):
    """Connections that pipeline empty packets without end."""

    def __init__(self, address, count):
        super().__init__(_CROWD, "hogs", address, count)
        expect(self._line() == "connected\n", "the hogs did not connect")

    def wait_until_answered(self):
        """Waits until each of them has had an answer."""
        expect(self._line() == "answered\n", "the hogs were not answered")


class Reader(_Neighbour):
    """A client that pipelines requests with answers of 1 MB, and reads fast. `request` is `packet` or `value`."""

    def __init__(self, address, request):
        super().__init__(_CROWD, "reader", address, request)
        expect(self._line() == "answered\n", "the reader was not answered")

    def received(self):
        """The bytes that have come back."""
        return int(self._command("count"))
