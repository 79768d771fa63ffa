"""Many connections, much data, and idle connections."""

import concurrent.futures
import contextlib
import itertools
import random
import select
import statistics
import subprocess
import sys
import time
from pathlib import Path

from kit.client import Client, Ended, ask_all, crowd, frame
from kit.expect import Failure, check, expect, wait_until
from kit.neighbours import Waits
from kit.real_time import Bystander
from kit.rounds import Rounds, best, expect_within
from kit.server import Server
from kit.spawn import spawn
from kit.trial import MEMORY_KIB, Trial

TRAFFIC = Path(__file__).resolve().parents[1] / "kit/traffic.py"
MEGABYTE = 1_000_000
# Usually nearly all memory goes back. Sometimes one small block keeps glibc's heap from shrinking.
KEPT_KIB = 26 * 1024


def traffic(kind, server, seconds):
    """Starts a client in its own process (kit/traffic.py)."""
    command = [sys.executable, str(TRAFFIC), kind, *map(str, server.address), str(seconds)]
    return spawn(command, stdout=subprocess.PIPE, text=True)


def result(process):
    """Returns the number that a traffic process printed."""
    output, _ = process.communicate(timeout=60)
    expect(process.returncode == 0, f"a traffic process failed: {output}")
    return float(output)


# In milliseconds: what a load may add to 99 % of another's requests.
ADDED = 10


def bystander(server):
    """A client without a core or a priority of its own. What it measures is without its waits and the server's."""
    return Bystander(server, prefix=())


def beside_traffic(kind, server):
    """Measures a client alone and beside a traffic process, by turns. Returns the rounds, and the process's numbers."""
    results = []

    @contextlib.contextmanager
    def load():
        process = traffic(kind, server, TRAFFIC_SECONDS)
        time.sleep(STARTING)
        yield
        results.append(result(process))

    with bystander(server) as client:
        rounds = Rounds(client, ADDED)
        rounds.alternate(load)
    return rounds, results


# In seconds: when a traffic process has usually started, and how long it acts, which is longer than a round.
STARTING, TRAFFIC_SECONDS = 0.3, 1.2


@check("one-floods", "a connection that floods does not keep another waiting")
def one_floods():
    with Trial() as trial:
        rounds, received = beside_traffic("flood", trial.server)
        trial.during()
        megabytes = min(received) / MEGABYTE
        expect(megabytes > 3, f"only {megabytes:.1f} MB of flood in {TRAFFIC_SECONDS} s")
        told = rounds.expect_allowed("floods")
        return f"{told}, at least {megabytes:.0f} MB of flood in each; {trial.finish()}"


@check("accept-flood", "thousands of connects a second do not keep an established connection waiting")
def accept_flood():
    with Trial("--max-connections", 1_000) as trial:
        rounds, rates = beside_traffic("connect", trial.server)
        trial.during()
        expect(statistics.median(rates) > 2_000, f"only {rates} connects a second")
        told = rounds.expect_allowed("connects")
        return f"{told}, {statistics.median(rates):.0f} connects a second; {trial.finish()}"


DRIPPERS = 5_000
DRIP_INTERVAL = 0.3
TIMEOUT = 1.0


@check("slowloris", "5,000 dripping clients each get their timeouts, never early, every byte given back; they add at most 10 ms to another's p99")
def slowloris():
    delays = []

    def drips(clients, lateness):
        drippers = {client.socket.fileno(): Dripper(client) for client in clients}
        drip(drippers, 4.0, lateness)
        delays.extend(delay for dripper in drippers.values() for delay in dripper.delays)

    with Trial("--timeout", int(TIMEOUT * 1000), "--max-connections", DRIPPERS + 100) as trial:
        told = beside_drips(trial, drips)
        expect(max(delays) <= TIMEOUT + 1.0, f"a timeout of {TIMEOUT} s came after {max(delays):.2f} s")
        return f"{len(delays)} timeouts, the last after {max(delays):.3f} s; {told}; {trial.finish()}"


@check(
    "slowloris-stopped",
    "5,000 dripping clients whose handlers stop at the timeout: all are gone by then, none earlier; another's latency as above",
    program="panicky",
)
def slowloris_stopped():
    ends = []
    with Trial("--timeout", int(TIMEOUT * 1000), "--max-connections", DRIPPERS + 100, program="panicky") as trial:
        told = beside_drips(trial, lambda *drips: ends.extend(drip_to_the_end(*drips)))
        expect(max(ends) <= TIMEOUT + 1.0, f"a timeout of {TIMEOUT} s came after {max(ends):.2f} s")
        return f"{len(ends)} ended, the last after {max(ends):.3f} s; {told}; {trial.finish()}"


def beside_drips(trial, drips):
    """Measures a client alone, then beside `drips(clients, lateness)`. Checks what that adds, and returns it as text."""
    with bystander(trial.server) as client, concurrent.futures.ThreadPoolExecutor(1) as pool:
        alone = Rounds(client, ADDED).alone()

        def added():
            with crowd(trial.server, DRIPPERS) as clients:
                measuring = pool.submit(client.measure, "requests", 3)
                drips(clients, Lateness(trial.server))
                trial.during()
                return measuring.result().p99() - alone

        millis = best(added, ADDED)
    expect_within(ADDED, millis, "what drips add to 99 % of requests")
    return f"they add {millis:.2f} ms to 99 % of another's requests ({alone:.2f} ms alone)"


def drip_to_the_end(clients, lateness):
    """Sends single bytes on all connections, spread over time. Returns how long each stream lived at least."""
    poll = select.epoll()
    begun, ends = {}, {}
    start = time.monotonic()
    waiting = {client.socket.fileno(): client for client in clients}
    for turn in itertools.count():
        expect(time.monotonic() < start + TIMEOUT + 10, f"{len(waiting) - len(ends)} connections have not ended")
        for descriptor in list(waiting)[turn % 10 :: 10]:
            if descriptor not in begun:
                poll.register(descriptor, select.EPOLLIN)
                begun[descriptor] = lateness.now()
            if descriptor not in ends:
                drip_one(waiting[descriptor])
        for descriptor in lateness.look(poll, 0.1, len(waiting)):
            lived = time.monotonic() - begun[descriptor][0]
            expect(lived >= TIMEOUT, f"a timeout of {TIMEOUT} s came after {lived:.4f} s")
            ends[descriptor] = lateness.since(begun[descriptor])
            expect(waiting[descriptor].read_to_end() == 0, "something was answered")
            poll.unregister(descriptor)
        if len(ends) == len(waiting):
            poll.close()
            return list(ends.values())


def drip_one(client):
    """Sends one byte, unless the connection has ended."""
    with contextlib.suppress(Ended):
        client.send(b"\xff")


class Lateness:
    """How long answers of the server take at least, also on a busy machine.

    The machine may keep this process from looking, so a delay ends with the last look that did not find the answer. What
    the server waits for a core meanwhile does not count."""

    def __init__(self, server):
        self._waits = Waits(server.pid)
        self._looks = self._looked = self.now()

    def now(self):
        """The time, and the server's waits until then, in seconds."""
        return time.monotonic(), self._waits.millis() / 1000

    def look(self, poll, seconds, most):
        """Polls once. Returns the descriptors with answers."""
        self._looked, self._looks = self._looks, self.now()
        return [descriptor for descriptor, _ in poll.poll(max(0.0, seconds), most)]

    def since(self, then):
        """How long an answer that the last look found took, after the time `then` of `now`."""
        return self._looked[0] - then[0] - (self._waits.millis() / 1000 - then[1])


class Dripper:
    """Sends a byte at a time, and expects these bytes back at each timeout."""

    def __init__(self, client):
        self.client = client
        self.delays = []
        self._sent_at = []

    def drip(self, now):
        """Sends one more byte. The bytes announce a packet of 65,535 bytes."""
        self._sent_at.append(now)
        self.client.send(b"\xff")

    def take(self, lateness):
        """Receives the answer to a timeout."""
        buffer = self.client.packet()
        delay = time.monotonic() - self._sent_at[0][0]
        expect(delay >= TIMEOUT, f"a timeout of {TIMEOUT} s came after {delay:.4f} s")
        expect(buffer.strip(b"\xff") == b"", f"not what was dripped: {buffer!r}")
        self.delays.append(lateness.since(self._sent_at[0]))
        del self._sent_at[: len(buffer)]

    def is_done(self):
        """Whether every byte has come back."""
        return not self._sent_at


def drip(drippers, seconds, lateness):
    """Sends single bytes on all connections for some seconds, then waits until every byte has come back."""
    poll = select.epoll()
    for descriptor in drippers:
        poll.register(descriptor, select.EPOLLIN)
    everyone = list(drippers.values())
    slices = 30
    start = time.monotonic()
    for turn in range(int(seconds / DRIP_INTERVAL * slices)):
        now = lateness.now()
        for dripper in everyone[turn % slices :: slices]:
            dripper.drip(now)
        take_answers(poll, drippers, start + (turn + 1) * DRIP_INTERVAL / slices, lateness)
    deadline = time.monotonic() + TIMEOUT + 5
    while not all(dripper.is_done() for dripper in everyone):
        expect(time.monotonic() < deadline, "not every dripped byte came back")
        take_answers(poll, drippers, time.monotonic() + 0.1, lateness)
    poll.close()


def take_answers(poll, drippers, until, lateness):
    """Receives answers until the deadline."""
    while True:
        for descriptor in lateness.look(poll, until - time.monotonic(), len(drippers)):
            drippers[descriptor].take(lateness)
        if time.monotonic() >= until:
            return


HEADER = b"PROXY TCP4 203.0.113.9 198.51.100.1 4711 443\r\n"
SILENT = 600
OPENING_TIMEOUT = 5.0


@check(
    "silent-openings",
    "600 connections that send nothing to a port for proxies keep no client out, also of a listener with 16 places; they are gone at the opening timeout",
)
def silent_openings():
    told = [beside_silence(places) for places in (16, 10_000)]
    return "; ".join(told)


def beside_silence(places):
    """Opens clients of a listener with so many places beside silent connections. Returns what became of those."""
    with Server("--proxy", "127.0.0.0/8", "--max-connections", places) as server:
        descriptors = server.descriptors()
        with crowd(server, SILENT) as silent:
            for number in range(10):
                behind_proxy(server, f"client {number}".encode())
            opening = server.descriptors() - descriptors
            expect(opening <= min(places, 512), f"{opening} descriptors beside {SILENT} silent connections")
            ends = [client.read_to_end() for client in silent]
            expect(not any(ends), f"silent connections have got {max(ends)!r}")
        wait_until(lambda: server.descriptors() == descriptors, OPENING_TIMEOUT, lambda: "descriptors stay open")
        server.stop()
        return f"{opening} of {SILENT} waited beside {places} places"


def behind_proxy(server, packet):
    """A client that comes through a proxy: its header, and one request, in two parts each."""
    with Client(server) as client:
        sent = HEADER + frame(packet)
        for cut in (sent[:20], sent[20:-3], sent[-3:]):
            client.send(cut)
        client.expect_packet(packet)


@check("never-reads", "1 GB of requests from a peer that never reads: bounded memory, ended by the write-stall timeout", patient=True)
def never_reads():
    with Trial() as trial, Client(trial.server) as client:
        start = time.monotonic()
        sent = push(client, frame(random.randbytes(32_000)) * 30, 1_000 * MEGABYTE, 80)
        seconds = time.monotonic() - start
        peak = trial.server.resident_peak_kib()
        expect(peak < MEMORY_KIB, f"{peak} KiB resident")
        trial.during()
        return f"{sent / MEGABYTE:.1f} MB taken, ended after {seconds:.0f} s, at most {peak / 1024:.1f} MiB; {trial.finish()}"


def push(client, batch, total, seconds):
    """Sends up to `total` bytes without reading, until the server ends the connection. Returns the bytes sent."""
    client.socket.setblocking(False)
    poll = select.poll()
    poll.register(client.socket, select.POLLOUT)
    deadline = time.monotonic() + seconds
    batch = memoryview(batch)
    sent = 0
    while sent < total and time.monotonic() < deadline:
        poll.poll(500)
        try:
            sent += client.socket.send(batch[sent % len(batch) :])
        except BlockingIOError:
            continue
        except ConnectionError:
            return sent
    raise Failure(f"after {sent} bytes and {seconds} s the connection is still there")


@check("ten-thousand", "10,000 connections at once, all served")
def ten_thousand():
    with Trial("--max-connections", 10_010) as trial:
        empty = trial.server.resident_kib()
        with crowd(trial.server, 10_000) as clients:
            ask_all(clients, b"one of many")
            ask_all(clients, b"once more")
            trial.before.ask(b"before, among many")
            trial.during()
            open_now = trial.server.descriptors() - trial.descriptors
            expect(open_now == 10_002, f"{open_now} connections are open")
            each = (trial.server.resident_kib() - empty) * 1024 / 10_000
        return f"10,000 x 2 answers, {each:.0f} bytes resident each; {trial.finish()}"


@check("burst", "a burst of half packets, 30 MB at once: all answered, and the memory goes back to the system", patient=True)
def burst():
    payload = bytes(60_000)
    half = len(payload) // 2
    with Trial("--max-connections", 1_010, "--timeout", 60_000) as trial:
        with crowd(trial.server, 1_000) as clients:
            ask_all(clients, b"before the burst")
            calm, highest = trial.server.resident_kib(), 0
            for _ in range(10):
                for client in clients:
                    client.send(frame(payload)[:half])
                trial.before.ask(b"before, in the burst")
                highest = max(highest, trial.server.resident_kib())
                for client in clients:
                    client.send(frame(payload)[half:])
                    client.expect_packet(payload)
            trial.during()
            expect(highest - calm > 20 * 1024, f"only {highest - calm} KiB were held: no burst")
            time.sleep(25)
            later = trial.server.resident_kib()
        expect(later - calm <= KEPT_KIB, f"{later - calm} KiB more than before the burst, {KEPT_KIB} allowed")
        return f"{calm / 1024:.1f} MiB before, {highest / 1024:.1f} at its height, {later / 1024:.1f} later; {trial.finish()}"


@check("reset-cycles", "17,000 times connect, echo, reset: fds and memory are where they were")
def reset_cycles():
    with Trial() as trial:
        cycle(trial.server, 1_000)
        before = trial.server.resident_kib()
        cycle(trial.server, 16_000)
        trial.during()
        wait_until(lambda: trial.server.descriptors() == trial.descriptors + 2, 10, "descriptors are left over")
        growth = trial.server.resident_kib() - before
        expect(growth <= 512, f"memory grew by {growth} KiB in 16,000 cycles")
        return f"17,000 cycles, memory grew by {growth} KiB; {trial.finish()}"


def cycle(server, count):
    """Connects, sends one request, and resets, many times."""
    for _ in range(count):
        client = Client(server)
        client.ask(b"short life")
        client.reset()


@check("idle", "50 silent connections: 0 wake-ups and 0 CPU in 5 s", patient=True)
def idle():
    with Trial() as trial:
        with crowd(trial.server, 50) as clients:
            ask_all(clients, b"and now silence")
            time.sleep(0.5)
            cpu, wake_ups = trial.server.cpu_seconds(), trial.server.times_scheduled()
            time.sleep(5)
            cpu, wake_ups = trial.server.cpu_seconds() - cpu, trial.server.times_scheduled() - wake_ups
            expect(wake_ups == 0 and cpu == 0, f"{wake_ups} wake-ups and {cpu:.2f} s of CPU")
            trial.during()
        return f"{wake_ups} wake-ups; {trial.finish()}"
