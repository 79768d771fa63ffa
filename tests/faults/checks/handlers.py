"""Handlers that panic."""

import collections
import contextlib
import random
import re
import time

from kit.client import Client, frame
from kit.expect import check, expect
from kit.trial import Trial

HERD = 100
SECONDS = 10.0
# The average number of panics in a round of a hundred connections.
DOOMED = 5
# Packets at which panicky.rs panics.
PACKETS = {
    "handle_packet": b"panic in handle_packet",
    "handle_info": b"panic in handle_info",
    "timer": b"panic in a timer",
    "terminate": b"panic in terminate",
    "drop": b"panic in drop",
}
ADDRESSES = {"factory": "127.0.0.2", "init": "127.0.0.3"}
# After these packets, later packets are still answered, because a message or a timer panics.
LATER = ("handle_info", "timer")


@check(
    "stampede",
    "handlers panic at random for 10 s under 100 connections: those end, after their earlier answers, and no others; one log line a second",
    program="panicky",
)
def stampede():
    seed = random.SystemRandom().randrange(1 << 30)
    with Trial(program="panicky") as trial:
        herd = Herd(trial.server, random.Random(seed))
        with herd:
            start = time.monotonic()
            while time.monotonic() < start + SECONDS:
                herd.round()
                trial.before.ask(b"before, all the while")
            trial.during()
            seconds = time.monotonic() - start
        seen = trial.finish()
        panics = herd.panics
        expect_report(trial.server, panics)
        lines = expect_log(trial.server, seconds)
        places = ", ".join(f"{panics[place]} in {place}" for place in (*ADDRESSES, *PACKETS))
        return f"{panics.total()} panics ({places}), {herd.answers} answers, {lines} log lines (seed {seed}); {seen}"


class Herd:
    """Connections that send requests. Some of them make their handlers panic, and are replaced."""

    def __init__(self, server, source):
        self.panics = collections.Counter()
        self.answers = 0
        self._server = server
        self._source = source
        self._clients = []

    def __enter__(self):
        self._clients = [Client(self._server) for _ in range(HERD)]
        return self

    def __exit__(self, *_):
        for client in self._clients:
            client.close()

    def round(self):
        """Sends on all connections before it reads an answer, so that a turn has packets of both kinds."""
        fates = [self._fate() for _ in self._clients]
        batches = [self._send(client, fate) for client, fate in zip(self._clients, fates)]
        for place, address in ADDRESSES.items():
            self._strand(place, address)
        for number, (fate, (before, behind)) in enumerate(zip(fates, batches)):
            client = self._clients[number]
            self._expect_packets(client, before)
            if fate in LATER or fate is None:
                self._expect_packets(client, behind)
            if fate is None:
                continue
            client.expect_end(f"after the answers, and a panic in {fate}")
            client.close()
            self.panics[fate] += 1
            self._clients[number] = Client(self._server)

    def _fate(self):
        """Chooses where this connection's handler panics in this round, or None."""
        return self._source.choice(list(PACKETS)) if self._source.randrange(HERD) < DOOMED else None

    def _send(self, client, fate):
        """Sends up to eight requests in one segment. One of them may panic."""
        requests = [self._source.randbytes(self._source.randint(0, 40)) for _ in range(self._source.randint(1, 8))]
        place = self._source.randint(0, len(requests))
        before, behind = requests[:place], requests[place:]
        middle = [] if fate is None else [PACKETS[fate]]
        client.send(b"".join(map(frame, before + middle + behind)))
        return before, behind

    def _expect_packets(self, client, packets):
        for packet in packets:
            client.expect_packet(packet)
            self.answers += 1

    def _strand(self, place, address):
        """Connects where the factory or `init` panics."""
        with contextlib.closing(Client(self._server, source=address)) as client:
            client.expect_end(f"after a panic in {place}")
        self.panics[place] += 1


def expect_report(server, panics):
    """Checks that the server and the panic hook counted exactly the requested panics."""
    found = re.search(r"\bpanics=(\d+) seen by the hook=(\d+)", server.output())
    expect(found, f"no count of panics in the exit report: {server.output()[-200:]!r}")
    wanted = (panics.total(), panics.total())
    counted = (int(found[1]), int(found[2]))
    expect(counted == wanted, f"{found[0]}, but {panics.total()} were asked for: {dict(panics)}")


def expect_log(server, seconds):
    """Checks the log: about one line a second for callbacks, one for the factory, no other errors. Returns the count."""
    errors = [line for line in server.output().splitlines() if line.startswith("ERROR")]
    kinds = {"a callback panicked: ": 0, "the factory panicked: ": 0}
    for line in errors:
        kind = next((kind for kind in kinds if kind in line), None)
        expect(kind, f"an unexpected error: {line}")
        expect("panicked: on purpose; " in line, f"not the panic's own text: {line}")
        kinds[kind] += 1
    for kind, count in kinds.items():
        expect(seconds - 2 <= count <= seconds + 1, f"{count} lines of `{kind}` in {seconds:.1f} s")
    return len(errors)
