"""How a check fails, waits, and is registered under its name."""

import time
from dataclasses import dataclass
from typing import Callable


class Failure(Exception):
    """The server did not do what the check expects."""


class Unsupported(Exception):
    """This kernel cannot produce the fault; only a check marked `optional` may raise it."""


@dataclass(frozen=True)
class Check:
    """One named check. Its `body` returns its result, or raises."""

    name: str
    expected: str
    needs: tuple
    patient: bool
    optional: bool
    program: str
    others: tuple
    body: Callable


CHECKS = {}


def check(name, expected, needs=(), patient=False, optional=False, program="echo", others=()):
    """Registers a check. A `patient` one mostly sleeps and may run beside others; it starts the example `program`, and `others`."""

    def register(body):
        if name in CHECKS:
            raise ValueError(f"two checks are called {name}")
        CHECKS[name] = Check(name, expected, tuple(needs), patient, optional, program, tuple(others), body)
        return body

    return register


def expect(condition, message):
    """Fails with `message` unless `condition` holds."""
    if not condition:
        raise Failure(message)


def wait_until(condition, seconds, message):
    """Polls until `condition()` is true. After the time limit it fails with `message`, a text or a function."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failure(message() if callable(message) else message)
        time.sleep(0.01)
