"""Faults of the other end, of the network and of the system while a connector dials."""

import contextlib
import os
import resource
import signal
import socket
import tempfile
import time
from pathlib import Path

from kit.dialling import BACKOFF, Attempts, Backend, Beating, Dialling
from kit.expect import Failure, check, expect, wait_until
from kit.network import private_network
from kit.rounds import best

LINKS = 1_000
# In milliseconds: the longest back-off in the storm, and the default `connect_timeout`.
STORM_BACKOFF, CONNECT_TIMEOUT = 5_000, 3_000
# In seconds: from which time on the attempts are spread, and the slice in which their number is limited.
SETTLED, SLICE = 1.0, 0.01


@check("dial-refused", "typed, dialled again by the rule, no descriptor left; up once a server listens", program="dialling")
def dial_refused():
    with Backend() as nothing:
        address, place = nothing.address, nothing.place()
    with Dialling(place, options=BACKOFF) as trial:
        trial.dial()
        seen = trial.suffer(f"cannot connect to {place}: Connection refused", failures=10)
        trial.during()
        with Backend(address=address):
            trial.wait_for("1 up")
        return f"{seen}; {trial.finish()}"


@check("dial-unreachable", "no route, and a route that refuses: typed, dialled again; up once the address exists", needs=("ip",), program="dialling")
def dial_unreachable():
    with private_network() as network:
        network.run("ip", "route", "add", "unreachable", "10.99.0.0/16")
        with Dialling("10.98.0.1:7000", "10.99.0.1:7000", options=BACKOFF, namespace=network) as trial:
            trial.dial()
            seen = trial.suffer("cannot connect to 10.99.0.1:7000: No route to host", failures=5)
            trial.during()
            network.run("ip", "address", "add", "10.98.0.1/32", "dev", "lo")
            with Backend(network, ("10.98.0.1", 7000)):
                trial.wait_for("1 up")
            return f"{seen}; {trial.finish()}"


@check("dial-black-hole", "every dial is over by its timeout, with no more streams than one; up once packets arrive", needs=("ip", "iptables"), program="dialling")
def dial_black_hole():
    with private_network() as network, Backend(network, ("127.0.0.2", 0)) as backend:
        place = backend.place()
        options = (*BACKOFF, "--connect-timeout", 300)
        with Dialling(place, options=options, namespace=network) as trial:
            with network.dropping("-d", "127.0.0.2"):
                trial.dial()
                seen = trial.suffer("no connection within 300ms", failures=5)
                # The client from before, and the attempt that is under way.
                streams = trial.server.descriptors() - trial.descriptors
                expect(streams <= 2, f"{streams} streams are open")
                trial.during()
            trial.wait_for("1 up")
            return f"{seen}; {trial.finish()}"


@check("dial-first-black-hole", "two addresses, the first a black hole: up by the second after the attempt delay", needs=("ip", "iptables"), program="dialling")
def dial_first_black_hole():
    with private_network() as network, Backend(network, ("127.0.0.2", 0)) as silent, Backend(network) as other:
        with Dialling(silent.place(), other.place(), options=BACKOFF, namespace=network) as trial:
            with network.dropping("-d", "127.0.0.2"):
                trial.dial()
                took = trial.wait_for("1 up", 2)
                trial.during()
                stats = trial.stats()
            expect(took > 0.24, f"the second address was tried after {took:.2f} s, before the delay of 0.25 s")
            expect((stats["dials"], stats["attempts"], stats["dial_failures"]) == (1, 2, 0), f"{stats}")
            time.sleep(0.2)
            expect(silent.greeted == 0, "the address that lost was greeted")
            return f"up after {took:.2f} s; {trial.finish()}"


@check("dial-stopped", "a backend that is stopped: silence ends the link, then its full backlog ends dials by their timeout; up once it goes on", program="dialling")
def dial_stopped():
    with Beating() as backend:
        options = (*BACKOFF, "--silence", 400, "--connect-timeout", 300)
        with Dialling(backend.place, options=options) as trial:
            trial.dial()
            trial.wait_for("1 up")
            backend.signal(signal.SIGSTOP)
            seen = trial.suffer("no connection within 300ms", failures=3, seconds=20)
            ended = trial.stats()["terminated"]
            expect(ended >= 2, f"{ended} links ended by silence")
            trial.during()
            backend.signal(signal.SIGCONT)
            trial.wait_for("1 up")
            return f"{seen}, {ended} links ended by silence; {trial.finish()}"


@check("dial-reset", "a backend that resets each connection: each handler is terminated, and dials become rarer", program="dialling")
def dial_reset():
    with Backend(resets=True) as resetting:
        options = ("--backoff", 10, 400)
        with Dialling(resetting.place(), options=options) as trial:
            trial.dial()
            wait_until(lambda: trial.stats()["terminated"] >= 5, 10, "no connections that were reset")
            began, before = time.monotonic(), trial.stats()["dials"]
            seen = trial.suffer(failures=0)
            time.sleep(2)
            dials, took = trial.stats()["dials"] - before, time.monotonic() - began
            expect(dials <= FREQUENT * took, f"{dials} dials in {took:.1f} s, although no connection was stable")
            trial.during()
            resetting.die()
            with Backend(address=resetting.address):
                trial.wait_for("1 up")
            return f"{dials} more dials in {took:.1f} s; {seen}; {trial.finish()}"


# Dials in a second: waits of up to 400 ms make 5 on average.
FREQUENT = 15


@check("dial-EMFILE", "no descriptors left while it dials: typed, dialled again; up once there are some", program="dialling")
def dial_emfile():
    with Backend() as backend, Dialling(backend.place(), options=BACKOFF) as trial:
        with few_descriptors(trial.server.pid):
            trial.dial()
            seen = trial.suffer("Too many open files (os error 24)", failures=5)
        trial.during()
        trial.wait_for("1 up")
        return f"{seen}; {trial.finish()}"


@contextlib.contextmanager
def few_descriptors(pid):
    """The process cannot open another descriptor within the block."""
    taken = {int(name) for name in os.listdir(f"/proc/{pid}/fd")}
    free = min(set(range(len(taken) + 1)) - taken)
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (free, before[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, before)


@check("dial-EADDRNOTAVAIL", "two ports for four links: two are up, the others fail typed; up once there are ports", needs=("ip",), program="dialling")
def dial_no_ports():
    with private_network() as network, Backend(network, ("127.0.0.1", 20_000)) as backend:
        options = (*BACKOFF, "--connections", 4)
        with Dialling(backend.place(), options=options, namespace=network) as trial:
            network.set("ip_local_port_range", "40000 40001")
            trial.dial()
            seen = trial.suffer("Cannot assign requested address (os error 99)", failures=10, links=4)
            expect(trial.state() == "2 up", f"{trial.state()} with two ports")
            network.set("ip_local_port_range", "32768 60999")
            trial.during()
            trial.wait_for("4 up")
            return f"{seen}; {trial.finish()}"


@check("dial-itself", "the system connects the socket to itself: a failure like any other; up once a server is there", needs=("ip",), program="dialling")
def dial_itself():
    place = "127.0.0.1:40000"
    with private_network() as network, Dialling(place, options=BACKOFF, namespace=network) as trial:
        network.set("ip_local_port_range", "40000 40000")
        trial.dial()
        seen = trial.suffer("the connection is one to itself", failures=5)
        expect(trial.stats()["made"] == 0, "a connection to itself has a handler")
        network.set("ip_local_port_range", "32768 60999")
        trial.during()
        try:
            server = Backend(network, ("127.0.0.1", 40_000))
        except OSError as error:
            raise Failure(f"a connection to itself keeps the port from its server: {error}") from None
        with server:
            trial.wait_for("1 up")
        return f"{seen}, the port is free at once; {trial.finish()}"


@check("dial-unix-full", "a Unix socket whose backlog is full: a failure, although a poller calls it connected; up once there is room", program="dialling")
def dial_unix_full():
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as stack:
        path = f"{folder}/full"
        listener = stack.enter_context(socket.socket(socket.AF_UNIX))
        listener.bind(path)
        listener.listen(1)
        for _ in range(2):
            stack.enter_context(socket.socket(socket.AF_UNIX)).connect(path)
        with Dialling(f"unix:{path}", options=BACKOFF) as trial:
            trial.dial()
            seen = trial.suffer("Resource temporarily unavailable (os error 11)", failures=5)
            expect(trial.stats()["made"] == 0, "a connection that is none has a handler")
            trial.during()
            accepted = [listener.accept()[0] for _ in range(2)]
            trial.wait_for("1 up")
            for connection in [*accepted, listener.accept()[0], listener]:
                connection.close()
            return f"{seen}; {trial.finish()}"


def instead(**files):
    """A prefix for a program that finds other files in /etc. The values are the files' texts."""
    folder = tempfile.TemporaryDirectory()
    steps = []
    for name, text in files.items():
        file = Path(folder.name, name)
        file.write_text(text)
        steps.append(f"mount --bind {file} /etc/{name.replace('_', '.')} && ")
    prefix = ("unshare", "--mount", "sh", "-c", "".join(steps) + 'exec "$@"', "sh")
    return folder, prefix


@check("dial-unknown-name", "a name that does not exist: typed, dialled again, no descriptor left", needs=("unshare", "mount"), program="dialling")
def dial_unknown_name():
    folder, prefix = instead(nsswitch_conf="hosts: files\n")
    with folder, Dialling("nowhere.invalid:80", options=BACKOFF, prefix=prefix) as trial:
        trial.dial()
        seen = trial.suffer("cannot look up nowhere.invalid:80: ", "Name or service not known", failures=5)
        trial.during()
        return f"{seen}; {trial.finish()}"


# The timeout of the hanging resolver is in seconds, and longer than that of a dial.
RESOLV_CONF = "nameserver 127.0.0.53\noptions timeout:3 attempts:1\n"


@check(
    "dial-resolver-hangs",
    "the name server is a black hole: dials end by their timeout, at most 4 look-ups hang, no descriptor is left after them",
    needs=("ip", "iptables", "unshare", "mount"),
    program="dialling",
)
def dial_resolver_hangs():
    folder, prefix = instead(resolv_conf=RESOLV_CONF, nsswitch_conf="hosts: dns\n")
    options = (*BACKOFF, "--connect-timeout", 100)
    with folder, private_network() as network, network.dropping("-p", "udp", "--dport", "53"):
        with Dialling("somewhere.test:80", options=options, namespace=network, prefix=prefix) as trial:
            threads = len(trial.server.threads())
            trial.dial()
            seen = trial.suffer("no connection within 100ms", "4 earlier look-ups are stuck", failures=8)
            hanging = len(trial.server.threads()) - threads
            expect(0 < hanging <= 4, f"{hanging} look-ups hang")
            expect(network.dropped() > 0, "no question was dropped")
            trial.during()
            return f"{seen}, {hanging} look-ups hang; {trial.finish()}"


@check("dial-resolver-for-ever", "a closure that looks names up for ever: the same, and SIGTERM ends the process at once", program="dialling")
def dial_resolver_for_ever():
    options = (*BACKOFF, "--connect-timeout", 100, "--hang")
    with Dialling("somewhere.test:80", options=options) as trial:
        trial.dial()
        seen = trial.suffer("no connection within 100ms", "4 earlier look-ups are stuck", failures=8)
        trial.during()
        began = time.monotonic()
        told = trial.finish()
        took = time.monotonic() - began
        expect(took < 5, f"the stop of a connector and of the process took {took:.1f} s")
        return f"{seen}; stopped in {took:.1f} s; {told}"


@check(
    "reconnect-storm",
    "1,000 links on 2 shards after the backend died: at most 5 % dial in any 10 ms, all are up by back-off + connect timeout, fds as before",
    needs=("ip",),
    program="dialling",
)
def reconnect_storm():
    storms = []

    def most_in_a_slice():
        most, text = storm()
        storms.append(text)
        return most

    # A server that is kept from running for a while dials afterwards what was due meanwhile.
    most = best(most_in_a_slice, LINKS // 20, 3)
    expect(most <= LINKS // 20, f"{most} of {LINKS} links dialled within 10 ms")
    return storms[-1]


def storm():
    """Lets the backend die and come back. Returns the most dials in a slice, and what was seen as text."""
    options = ("--connections", LINKS // 2, "--shards", 2, "--backoff", 100, STORM_BACKOFF)
    with private_network() as network:
        backend = Backend(network)
        with Dialling(backend.place(), options=options, namespace=network) as trial:
            with Attempts(network, backend.address[1]) as attempts:
                trial.dial()
                trial.wait_for(f"{LINKS} up", 20)
                wait_until(lambda: backend.greeted == LINKS, 10, lambda: f"{backend.greeted} greetings")
                before = trial.server.descriptors()
                attempts.taken()
                died = time.time()
                backend.die()
                seen = trial.suffer("Connection refused", failures=8 * LINKS, links=LINKS, seconds=60)
                trial.during()
                with Backend(network, backend.address) as again:
                    took = trial.wait_for(f"{LINKS} up", (STORM_BACKOFF + CONNECT_TIMEOUT) / 1000)
                    wait_until(lambda: again.greeted == LINKS, 10, lambda: f"{again.greeted} greetings")
                    after = trial.server.descriptors() - 1
                    times = attempts.taken()
            expect(after <= before, f"{before} fds before, {after} after")
            most = most_at_once([at for at in times if at > died + SETTLED])
            return most, f"{len(times)} attempts, at most {most} in 10 ms, all up after {took:.1f} s, {after} fds; {seen}; {trial.finish()}"


def most_at_once(times):
    """The most attempts in any slice."""
    times.sort()
    most = first = 0
    for last, at in enumerate(times):
        while at - times[first] > SLICE:
            first += 1
        most = max(most, last - first + 1)
    return most
