"""Turns bounded in time: connections that take all they can get do not keep others waiting.

Each check with hogs measures the server with its default turn budget, and then without a budget. It prints both
results. If hogs do not keep others waiting without a budget, they were no hogs, and the check fails."""

import contextlib
import math
import re
import signal
import socket
import statistics
import time

from kit.expect import Failure, check, expect
from kit.real_time import NEEDS, SERVER, Bystander, Hogs, Reader
from kit.rounds import Rounds, best, expect_within
from kit.server import Server
from kit.trial import Trial

HOGS = 98
MANY_HOGS = 15_000
# In microseconds: how long a hog's packet takes.
WORK = 10
# In milliseconds: the default turn budget, and the longest times allowed.
TURN_BUDGET = 2
NEWCOMER = 50
COMMAND = 50
TIMER = 120
BESIDE_A_READER = 2
# In megabytes a second: what a reader takes on a quiet machine, and what is too slow for a fast reader.
QUIET_RATE, READER_RATE = 2_000, 200
# The megabytes a second that this process copies through a socket pair on a quiet machine.
QUIET_COPIES = 3_500
# In seconds: how long it copies.
COPYING = 0.03
# In seconds: the drain timeouts, how much later a drain may be over, and how long to wait for one that is not bounded.
DRAIN, ECHO_DRAIN = 2.0, 5.0
GRACE, PATIENCE = 0.5, 6.0
MEGABYTE = 1_000_000
UNBOUNDED = ("--turn-budget", 0)


def expect_bounded(rounds, without, newcomers):
    """Checks requests beside hogs, with a budget and without, and newcomers. Returns them as text."""
    told = rounds.expect_allowed("hogs")
    expect_within(NEWCOMER, newcomers, "a newcomer's first answer")
    expect(without.p99() > 3 * TURN_BUDGET, f"these are no hogs: without a budget {without}")
    return f"{told}; without a budget {without}; newcomers at most {newcomers:.1f} ms"


def most(bystander, command, allowed):
    """The longest of 20 times, in milliseconds. They are measured again if it is longer than allowed."""
    return best(lambda: bystander.measure(command, 20).most(), allowed)


@contextlib.contextmanager
def answered_hogs(address, count=HOGS):
    """Hogs that have all had their first slice."""
    with Hogs(address, count) as hogs:
        hogs.wait_until_answered()
        yield hogs


@check(
    "hogs-98",
    "98 connections pipeline without end, 10 µs a packet: another's p99 at most 3 turn budgets more than alone, newcomers answered in 50 ms",
    needs=NEEDS,
)
def hogs_98():
    options = ("--work", WORK, "--max-connections", HOGS + 10)
    with Trial(*options, prefix=SERVER) as trial:
        with Bystander(trial.server) as bystander:
            rounds = Rounds(bystander, 3 * TURN_BUDGET)
            alone = rounds.alone()
            with answered_hogs(trial.server.address):
                rounds.beside(alone)
                newcomers = most(bystander, "newcomers", NEWCOMER)
                trial.during()
        seen = trial.finish()
    told = expect_bounded(rounds, without_budget(HOGS, *options), newcomers)
    return f"{told}; {seen}"


@check(
    "hogs-15000",
    "the same beside 15,000 such connections, once each has had its first slice; a drain of at most 5 s is over in 5.5 s",
    needs=NEEDS,
)
def hogs_15000():
    options = ("--work", WORK, "--max-connections", MANY_HOGS + 10)
    with Server(*options, prefix=SERVER) as server, Bystander(server) as bystander:
        rounds = Rounds(bystander, 3 * TURN_BUDGET)
        alone = rounds.alone()
        with answered_hogs(server.address, MANY_HOGS):
            rounds.beside(alone)
            newcomers = most(bystander, "newcomers", NEWCOMER)
            seconds = drain_seconds(server, MANY_HOGS)

    def once_more():
        with Server(*options, prefix=SERVER) as again, answered_hogs(again.address, MANY_HOGS):
            return drain_seconds(again, MANY_HOGS)

    allowed = ECHO_DRAIN + GRACE
    if seconds > allowed:
        seconds = best(once_more, allowed, 2)
    expect(seconds <= allowed, f"the last hog ended {seconds:.2f} s after the beginning of the drain")
    told = expect_bounded(rounds, without_budget(MANY_HOGS, *options), newcomers)
    return f"{told}; drain over after {seconds:.2f} s"


def without_budget(hogs, *options):
    """Measures requests beside hogs on a server without a turn budget."""
    with Server(*options, *UNBOUNDED, prefix=SERVER) as server, Bystander(server) as bystander:
        with Hogs(server.address, hogs):
            return bystander.measure("requests", 3)


def drain_seconds(server, hogs):
    """Stops `echo`. Checks that its drain has ended so many hogs. Returns the seconds until the last one ended."""
    server.stop()
    expect(f"forced={hogs} " in server.output(), f"the drain did not end {hogs} hogs: {server.output()!r}")
    return max(map(float, re.findall(r" after ([\d.]+)s: ", server.errors())))


@check(
    "hogs-other-listener",
    "98 hogs on another listener of the same reactor: p99 and newcomers as above, and a handle's command is carried out in 50 ms",
    needs=NEEDS,
    program="crowded",
)
def hogs_other_listener():
    with Trial(prefix=SERVER, program="crowded") as trial:
        with Bystander(trial.server, calm_listener(trial.server)) as bystander:
            rounds = Rounds(bystander, 3 * TURN_BUDGET)
            alone = rounds.alone()
            with answered_hogs(trial.server.address):
                rounds.beside(alone)
                newcomers = most(bystander, "newcomers", NEWCOMER)
                commands = most(bystander, "commands", COMMAND)
                trial.during()
        seen = trial.finish()
    with Server(*UNBOUNDED, prefix=SERVER, program="crowded") as server:
        with Bystander(server, calm_listener(server)) as bystander, Hogs(server.address, HOGS):
            without = bystander.measure("requests", 3)
    told = expect_bounded(rounds, without, newcomers)
    expect_within(COMMAND, commands, "a command")
    return f"{told}, commands {commands:.1f} ms; {seen}"


@check("hogs-timers", "a timer of 100 ms beside 98 hogs fires within 120 ms", needs=NEEDS, program="crowded")
def hogs_timers():
    with Trial(prefix=SERVER, program="crowded") as trial:
        with Bystander(trial.server, calm_listener(trial.server)) as bystander:
            with answered_hogs(trial.server.address):
                timers = most(bystander, "timers", TIMER)
                trial.during()
        seen = trial.finish()
    with Server(*UNBOUNDED, prefix=SERVER, program="crowded") as server:
        with Bystander(server, calm_listener(server)) as bystander, Hogs(server.address, HOGS):
            without = bystander.measure("timers", 20)
    expect_within(TIMER, timers, "a timer of 100 ms")
    expect(without.most() > TIMER, f"these are no hogs: without a budget {without}")
    return f"at most {timers:.1f} ms (without a budget {without}); {seen}"


@check("hogs-drain", "a drain of at most 2 s beside 98 hogs is over in 2.5 s", needs=NEEDS, program="crowded")
def hogs_drain():
    seconds = best(drain_beside_hogs, DRAIN + GRACE)
    expect(seconds <= DRAIN + GRACE, f"{over_after(seconds)}, {DRAIN + GRACE} s allowed")
    with Server(*UNBOUNDED, prefix=SERVER, program="crowded") as server, Hogs(server.address, HOGS):
        time.sleep(0.5)
        without = seconds_to_end(server)
        expect(without > DRAIN + GRACE, f"these are no hogs: without a budget {over_after(without)}")
    return f"{over_after(seconds)} (without a budget {over_after(without)})"


def drain_beside_hogs():
    """Returns how long a drain takes beside hogs, in seconds."""
    with Server(prefix=SERVER, program="crowded") as server, answered_hogs(server.address):
        seconds = seconds_to_end(server)
        if not math.isinf(seconds):
            server.expect_no_panic()
            server.expect_all_terminated()
        return seconds


def seconds_to_end(server):
    """Sends SIGTERM. Returns how long the server takes to end, infinite if it is still running after PATIENCE."""
    start = time.monotonic()
    server.signal(signal.SIGTERM)
    with contextlib.suppress(Failure):
        server.wait(PATIENCE)
        return time.monotonic() - start
    return math.inf


def over_after(seconds):
    """The text for a result of `seconds_to_end`."""
    return f"not over after {PATIENCE:.0f} s" if math.isinf(seconds) else f"over after {seconds:.2f} s"


def calm_listener(server):
    """The address of the second listener of crowded.rs."""
    found = re.search(r"^also listening on (.+):(\d+)$", server.output(), re.MULTILINE)
    expect(found, f"no second address: {server.output()!r}")
    return found[1], int(found[2])


@check("fast-reader", "one connection reads echoes of 1 MB, 16 under way, as fast as it can: it adds at most 2 ms to another's p99", needs=NEEDS)
def fast_reader():
    with Server("--len", 4, "--max-packet", 2 * MEGABYTE, prefix=SERVER) as server:
        return beside_a_reader(server, "packet")


@check("reader-of-values", "the same with requests of 9 bytes, each answered with 1 MB", needs=NEEDS, program="crowded")
def reader_of_values():
    with Server("--len", 4, "--work", 0, prefix=SERVER, program="crowded") as server:
        return beside_a_reader(server, "value")


def copies():
    """The megabytes a second that this process copies through a socket pair now."""
    piece, moved = bytes(MEGABYTE // 4), 0
    into = bytearray(len(piece))
    one, other = socket.socketpair()
    with one, other:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, MEGABYTE)
        start = time.perf_counter()
        while time.perf_counter() - start < COPYING:
            one.sendall(piece)
            left = len(piece)
            while left:
                left -= other.recv_into(into, left)
            moved += len(piece)
        return moved / (time.perf_counter() - start) / MEGABYTE


def beside_a_reader(server, request):
    """Measures a client alone and beside a fast reader, by turns, then stops the server.

    The client waits for copies of memory. If the host or a busy sibling core slows these down, the reader gets fewer
    bytes, and the client waits longer, by the same factor. So what the reader adds is divided by that factor.

    A slower server makes the reader slower, too. So the factor is at most twice the one by which this process copies
    slower than usual, just before the round."""
    rates = []

    @contextlib.contextmanager
    def reading():
        most = 2 * max(1, QUIET_COPIES / copies())
        with Reader(server.address, request) as reader:
            start, before = time.monotonic(), reader.received()

            def slowness():
                rates.append((reader.received() - before) / (time.monotonic() - start) / MEGABYTE)
                # A reader that gets almost nothing fails the check for that.
                return max(1, min(most, QUIET_RATE / max(rates[-1], READER_RATE)))

            yield slowness

    with Bystander(server, width=4) as bystander:
        rounds = Rounds(bystander, BESIDE_A_READER)
        rounds.alternate(reading)
    rate = statistics.median(rates)
    told = rounds.expect_allowed(f"{rate:.0f} MB/s")
    expect(rate > READER_RATE, f"only {rate:.0f} MB/s")
    return f"{told}, beside {rate:.0f} MB/s; {server.stop()}"
