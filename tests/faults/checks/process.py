"""Faults of the process: stopped and continued, signals, tracers, no descriptors left."""

import contextlib
import itertools
import select
import signal
import time

from kit.client import Client, Load, ask_all, crowd, frame
from kit.expect import check, expect, wait_until
from kit.network import private_network
from kit.server import Server, StartFailed
from kit.trace import Trace
from kit.trial import Trial

PACKET_TIMEOUT = 2.5
SYN_RETRY = 1.5


@check(
    "stopped-and-continued",
    "what arrived is read before a timeout is judged; a timer that elapsed fires once",
    patient=True,
)
def stopped_and_continued():
    whole = frame(b"cut in two by a long sleep")
    with Trial("--timeout", int(PACKET_TIMEOUT * 1000), "--max-connections", 4000) as trial:
        with crowd(trial.server, 3000) as completing, crowd(trial.server, 200) as silent:
            for client in completing + silent:
                client.ask(b"accepted")
            for client in silent + completing:
                client.send(whole[:7])
            trial.before.ask(b"all of that has been read")
            with trial.server.stopped():
                for client in completing:
                    client.send(whole[7:])
                time.sleep(2 * PACKET_TIMEOUT)
            for client in completing:
                client.expect_packet(whole[2:])
            for client in silent:
                client.expect_packet(whole[:7])
            time.sleep(2 * PACKET_TIMEOUT)
            expect_silence(completing + silent)
            trial.during()
        return f"3000 packets completed, 200 timed out once; {trial.finish()}"


def expect_silence(clients):
    """Checks that no client has received more bytes."""
    poll = select.poll()
    for client in clients:
        poll.register(client.socket, select.POLLIN)
    readable = poll.poll(0)
    expect(not readable, f"{len(readable)} connections got a second timeout, or ended")


@check("stopped-while-idle", "a peer that sent while the server was stopped is not idle", patient=True)
def stopped_while_idle():
    with Trial("--idle", int(PACKET_TIMEOUT * 1000)) as trial, crowd(trial.server, 50) as clients:
        ask_all(clients, b"accepted")
        with trial.server.stopped():
            for client in [*clients, trial.before]:
                client.send(frame(b"spoken in time"))
            time.sleep(2 * PACKET_TIMEOUT)
        for client in [*clients, trial.before]:
            client.expect_packet(b"spoken in time")
            client.ask(b"and again")
        for client in clients:
            client.close()
        trial.during()
        return f"51 peers kept; {trial.finish()}"


@check("connects-while-stopped", "600 connects to a stopped server: no SYN is sent twice, all are served", needs=("ip",))
def connects_while_stopped():
    with private_network() as network, Trial("--max-connections", 1000, namespace=network) as trial:
        with contextlib.ExitStack() as stack:
            with trial.server.stopped():
                clients = stack.enter_context(crowd(trial.server, 600))
                time.sleep(SYN_RETRY)
                repeated = network.counter("TCPSynRetrans")
            expect(repeated == 0, f"{repeated} SYNs were sent twice")
            ask_all(clients, b"served after the pause")
            trial.during()
        return f"600 connected while stopped, {repeated} SYNs sent twice; {trial.finish()}"


@check("signal-storm", "SIGCHLD, SIGWINCH, thousands of SIGSTOP and SIGCONT under a tracer: invisible", needs=("strace",))
def signal_storm():
    numbers = itertools.cycle((signal.SIGCHLD, signal.SIGWINCH, signal.SIGSTOP, signal.SIGCONT))
    with Trial() as trial:
        with Trace(trial.server, "epoll_wait"), Load(trial.server, 8) as load:
            for number in itertools.islice(numbers, 4000):
                trial.server.signal(number)
                if number == signal.SIGCONT:
                    load.rounds(1)
            trial.before.ask(b"before, during the fault")
            trial.during()
        expect(load.outcome.ended == 0, f"{load.outcome} by signals that mean nothing")
        return f"4000 signals, {load.outcome}; {trial.finish()}"


@check("tracer-comes-and-goes", "a tracer attaching and detaching under load: invisible", needs=("strace",))
def tracer_comes_and_goes():
    with Trial() as trial, contextlib.ExitStack() as stack:
        load = stack.enter_context(Load(trial.server, 8))
        for _ in range(10):
            with Trace(trial.server, "epoll_wait"):
                load.rounds(5)
            load.rounds(5)
        trial.before.ask(b"before, during the fault")
        trial.during()
        stack.close()
        expect(load.outcome.ended == 0, f"{load.outcome} by being looked at")
        return f"10 tracers, {load.outcome}; {trial.finish()}"


@check(
    "few-descriptors",
    "24 fds, 40 clients: at most 20 failed accepts a second also under churn, no busy loop, the queued are served in turn",
    needs=("prlimit", "strace"),
)
def few_descriptors():
    with Trial(prefix=("prlimit", "--nofile=24:24")) as trial:
        clients = [Client(trial.server) for _ in range(40)]
        for client in clients:
            client.send(frame(b"let me in"))
        wait_until(lambda: trial.server.descriptors() == 24, 5, "the server did not use its 24 descriptors")
        cpu = idle_cpu(trial.server, 2.0)
        expect(cpu <= 0.1, f"{cpu:.2f} s of CPU in 2 s of waiting for descriptors")
        with Trace(trial.server, "accept4") as trace:
            start = time.monotonic()
            trial.before.ask(b"served without free descriptors")
            serve_in_turn(clients)
            churn(trial.server, 3.0)
            seconds = time.monotonic() - start
        failed = sum(call.error == "EMFILE" for call in trace.calls)
        expect(0 < failed <= 20 * seconds + 2, f"{failed} failed accepts in {seconds:.1f} s")
        trial.during()
        return f"{cpu:.2f} s CPU while full, 40 served in turn, {failed} failed accepts in {seconds:.1f} s; {trial.finish()}"


def idle_cpu(server, seconds):
    """Returns the processor time of the server while no client sends."""
    before = server.cpu_seconds()
    time.sleep(seconds)
    return server.cpu_seconds() - before


def serve_in_turn(clients):
    """Checks that waiting clients are served in the order of connecting, as earlier ones close."""
    for client in clients:
        client.expect_packet(b"let me in")
        client.close()


def churn(server, seconds):
    """Keeps more clients than descriptors: one closes, and another connects."""
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(Client(server)) for _ in range(25)]
        for client in waiting:
            client.send(frame(b"churn"))
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            first = waiting.pop(0)
            first.expect_packet(b"churn")
            first.close()
            waiting.append(stack.enter_context(Client(server)))
            waiting[-1].send(frame(b"churn"))
            time.sleep(0.01)
        for client in waiting:
            client.expect_packet(b"churn")
            client.close()


@check("no-descriptors", "with 4 to 12 descriptors: a clean error or a working server, never a panic", needs=("prlimit",))
def no_descriptors():
    outcomes = {limit: start_with(limit) for limit in range(4, 13)}
    expect(outcomes[4] == "refused", f"started with 4 descriptors: {outcomes}")
    return ", ".join(f"{limit}: {outcome}" for limit, outcome in outcomes.items())


def start_with(limit):
    """Starts the server with this many descriptors, and checks what it does."""
    try:
        with Server(prefix=("prlimit", f"--nofile={limit}:{limit}")) as server:
            server.stop()
            return "started"
    except StartFailed as failed:
        expect(failed.code > 0 and failed.code != 101, f"{limit} descriptors: {failed}")
        expect("panicked" not in failed.errors, f"{limit} descriptors: {failed}")
        expect("os error 24" in failed.errors, f"{limit} descriptors: the message does not name EMFILE: {failed}")
        return "refused"
