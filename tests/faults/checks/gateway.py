"""The gateway: backends that are restarted, clients that shut down one half, and readers that are slow."""

import contextlib
import signal
import socket
import threading
import time

from kit.client import Client, crowd, frame
from kit.expect import Failure, check, expect, wait_until
from kit.server import Server

CLIENTS, DEPTH = 8, 8
RESTARTS = 6
LEFT = b"ERR the backend has left"
# What a fast sender has, and how fast the reader takes it: so many bytes, so many times a second.
STREAM = b"".join(b"%07d\n" % number for number in range(4_000_000))
SIP, SIPS, SLOW_SECONDS = 1_000, 10, 5
# In KiB: what a stream through a pair may take beside what the gateway needs at rest: the reactor's buffers, and what
# the marks allow.
MARKS = 2_048


class Gateway(Server):
    """A gateway, and a way to end it with its checks."""

    def __init__(self, *backends, options=()):
        self.places = [f"{host}:{port}" for host, port in (backend.address for backend in backends)]
        super().__init__("--backend", ",".join(self.places), *options, program="gateway")

    def wait_for_links(self, place, count):
        """Waits until the log has said so often that a link to this backend is up."""
        wait_until(lambda: self.ups(place) >= count, 10, lambda: f"no link to {place} is up: {self.errors()[-500:]!r}")

    def ups(self, place):
        """How often a link to this backend came up."""
        return self.errors().count(f"backend {place}: 1 up\n")

    def end(self):
        """Stops it. Checks its end, and returns what it needed."""
        resident = self.resident_peak_kib() / 1024
        self.signal(signal.SIGTERM)
        code = self.wait(20)
        expect(code == 0, f"exit code {code} after SIGTERM: {self.errors()}")
        self.expect_no_panic()
        return f"at most {resident:.1f} MiB"


class Asker(threading.Thread):
    """Sends requests with `DEPTH` under way, until `stop`. Each answer has to be the next request, or an error."""

    def __init__(self, server, name, stop):
        super().__init__(daemon=True)
        self._server, self._requests, self._stop_asking = server, name, stop
        self.answered = 0
        # When a request was sent that got an error, and when the error came.
        self.errors = []
        self._failure = None

    def run(self):
        """Runs until `stop`, and keeps a failure for `done`."""
        try:
            with Client(self._server) as client:
                self._ask(client)
        except Exception as failure:  # noqa: BLE001 the main thread raises it
            self._failure = failure

    def _ask(self, client):
        under_way, number = [], 0
        while under_way or not self._stop_asking.is_set():
            while len(under_way) < DEPTH and not self._stop_asking.is_set():
                under_way.append((b"%s %d" % (self._requests, number), time.monotonic()))
                client.send(frame(under_way[-1][0]))
                number += 1
            request, sent = under_way.pop(0)
            answer = client.packet()
            if answer == request:
                self.answered += 1
            elif answer == LEFT:
                self.errors.append((sent, time.monotonic()))
            else:
                raise Failure(f"the answer to {request!r} is {answer!r}")
        client.socket.shutdown(1)
        client.expect_end("after the last answer")

    def done(self):
        """Waits for its end, and raises its failure."""
        self.join(20)
        expect(not self.is_alive(), "a request was not answered in 20 s")
        if self._failure:
            raise self._failure


@check("gateway-restart", "two backends are restarted in turn under load: errors only for requests under way at the one that ends; each request has one answer", program="gateway", others=("echo",))
def gateway_restart():
    with contextlib.ExitStack() as stack:
        backends = [stack.enter_context(Server()) for _ in range(2)]
        gateway = stack.enter_context(Gateway(*backends, options=("--links", 2)))
        for place in gateway.places:
            gateway.wait_for_links(place, 1)
        descriptors = gateway.descriptors()
        stop, restarts = threading.Event(), []
        askers = [Asker(gateway, b"client %d" % nth, stop) for nth in range(CLIENTS)]
        for asker in askers:
            asker.start()
        for nth in range(RESTARTS):
            place, backend = gateway.places[nth % 2], backends[nth % 2]
            time.sleep(0.3)
            ups, began = gateway.ups(place), time.monotonic()
            # Every other one is killed.
            if nth % 4 < 2:
                backend.stop()
            else:
                backend.kill()
            restarts.append((began, time.monotonic()))
            time.sleep(0.3)
            backends[nth % 2] = stack.enter_context(Server(listen=place))
            gateway.wait_for_links(place, ups + 1)
        time.sleep(0.3)
        stop.set()
        for asker in askers:
            asker.done()
        errors = [error for asker in askers for error in asker.errors]
        for began, ended in restarts:
            mine = [sent for sent, came in errors if sent <= ended and came >= began]
            expect(len(mine) <= CLIENTS * DEPTH, f"{len(mine)} errors at one restart")
            errors = [(sent, came) for sent, came in errors if not (sent <= ended and came >= began)]
        expect(not errors, f"{len(errors)} requests were lost that were under way at no backend that ended")
        wait_until(lambda: gateway.descriptors() == descriptors, 10, lambda: f"{gateway.descriptors()} fds, not {descriptors}")
        answered = sum(asker.answered for asker in askers)
        lost = sum(len(asker.errors) for asker in askers)
        return f"{answered} answered, {lost} errors in {RESTARTS} restarts; {gateway.end()}"


class Backend(threading.Thread):
    """A server of one connection at a time, which it hands to `serve`."""

    def __init__(self, serve):
        super().__init__(daemon=True)
        self._serve = serve
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = self._listener.getsockname()
        self.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        # It ends the wait for a connection.
        self._listener.shutdown(socket.SHUT_RDWR)
        self.join(10)
        self._listener.close()

    def run(self):
        """Serves until the listener is closed."""
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                with connection, contextlib.suppress(ConnectionError):
                    self._serve(connection)


def answer_at_the_end(connection):
    """Answers everything once the end of input has come."""
    parts = []
    while part := connection.recv(65536):
        parts.append(part)
    connection.sendall(b"".join(parts))


@check("gateway-half-close", "20 requests and the end of the stream: 20 answers and the end of the stream, by links 20 times at once, by a pair from a backend that answers at the end of input", program="gateway", others=("echo",))
def gateway_half_close():
    requests = [b"request %d" % number for number in range(20)]
    stream = b"".join(map(frame, requests))

    def half_close(clients):
        for client in clients:
            client.send(stream)
            client.socket.shutdown(socket.SHUT_WR)
        for client in clients:
            for request in requests:
                client.expect_packet(request)
            client.expect_end("after 20 answers")

    with Server() as backend, Gateway(backend, options=("--links", 1)) as gateway:
        gateway.wait_for_links(gateway.places[0], 1)
        with crowd(gateway, 20) as clients:
            half_close(clients)
        by_links = gateway.end()
    with Backend(answer_at_the_end) as backend, Gateway(backend, options=("--pair",)) as gateway:
        for _ in range(20):
            with Client(gateway) as client:
                half_close([client])
        return f"20 of 20 answers, 20 times each; {by_links}; {gateway.end()}"


def slow_read(connection, memory):
    """Reads slowly at first, and notes the memory, then fast. Returns everything up to the end."""
    parts = []
    for _ in range(SIPS * SLOW_SECONDS):
        parts.append(connection.recv(SIP))
        time.sleep(1 / SIPS)
    memory()
    while part := connection.recv(1 << 20):
        parts.append(part)
    return b"".join(parts)


@check("gateway-slow-reader", "a fast sender and a reader of 10 kB/s through a pair, in both directions: the sender waits, memory is bounded, nothing is lost", program="gateway")
def gateway_slow_reader():
    seen, received = [], []

    def grown():
        seen.append(gateway.resident_kib() - at_rest)

    def send_all(connection):
        connection.sendall(STREAM)

    def read_all(connection):
        received.append(slow_read(connection, grown))

    with Backend(send_all) as backend, Gateway(backend, options=("--pair",)) as gateway:
        at_rest = gateway.resident_kib()
        with Client(gateway) as client:
            read_all(client.socket)
        to_client = gateway.end()
    with Backend(read_all) as backend, Gateway(backend, options=("--pair",)) as gateway:
        at_rest = gateway.resident_kib()
        with Client(gateway) as client:
            client.socket.settimeout(60)
            client.send(STREAM)
            client.socket.shutdown(socket.SHUT_WR)
            client.expect_end("after the backend has read everything")
        to_backend = gateway.end()
    expect(all(each == STREAM for each in received) and len(received) == 2, "the streams differ")
    expect(max(seen) <= MARKS, f"{seen} KiB more than at rest, {MARKS} allowed")
    return f"{max(seen)} KiB beside {len(STREAM) >> 20} MiB that wait; {to_client}; {to_backend}"
