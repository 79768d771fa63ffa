"""Clients: one connection, many at once, and a steady load that notices every lost connection."""

import contextlib
import select
import socket
import struct
import time
from dataclasses import dataclass

from .expect import Failure, expect

TIMEOUT = 10.0


def frame(packet):
    """A packet after its length."""
    return struct.pack(">H", len(packet)) + packet


class Ended(Exception):
    """The server's side of the connection is gone: end of stream, or a reset."""


class Client:
    """A blocking connection to a server."""

    def __init__(self, server, source=None, receive_buffer=None, send_buffer=None):
        with server.namespace or contextlib.nullcontext():
            self.socket = socket.socket()
        try:
            self.socket.settimeout(TIMEOUT)
            self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if receive_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            if send_buffer:
                self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
            if source:
                self.socket.bind((source, 0))
            self.socket.connect(server.address)
        except TimeoutError:
            self.socket.close()
            raise Failure(f"waited {TIMEOUT:.0f} s to connect") from None
        except BaseException:
            self.socket.close()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """Closes without a reset."""
        self.socket.close()

    def reset(self):
        """Closes with a reset."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def port(self):
        """The client's own port."""
        return self.socket.getsockname()[1]

    def send(self, data):
        """Sends raw bytes."""
        try:
            self.socket.sendall(data)
        except (ConnectionError, TimeoutError) as error:
            raise _told(error, "a send") from None

    def receive(self, count):
        """Receives exactly `count` raw bytes."""
        parts = []
        while count:
            part = self._receive_some(count)
            if not part:
                raise Ended("end of stream")
            parts.append(part)
            count -= len(part)
        return b"".join(parts)

    def _receive_some(self, most):
        try:
            return self.socket.recv(most)
        except (ConnectionError, TimeoutError) as error:
            raise _told(error, "an answer") from None

    def packet(self):
        """Receives the next packet."""
        return self.receive(struct.unpack(">H", self.receive(2))[0])

    def ask(self, packet):
        """Sends one request and receives its echo."""
        self.send(frame(packet))
        self.expect_packet(packet)

    def expect_packet(self, packet):
        """Fails unless the next packet is this one."""
        answer = self.packet()
        expect(answer == packet, f"sent {packet[:40]!r}, got {answer[:40]!r}")

    def expect_end(self, what):
        """Fails unless the stream ends here, without a reset and without another byte."""
        try:
            rest = self._receive_some(65536)
        except Ended as ended:
            raise Failure(f"{what}: {ended} instead of the end of the stream") from None
        expect(rest == b"", f"{what}: {len(rest)} more bytes instead of the end of the stream")

    def read_to_end(self):
        """Returns how many bytes arrive before the server ends the connection, with or without a reset."""
        count = 0
        with contextlib.suppress(Ended):
            while part := self._receive_some(65536):
                count += len(part)
        return count


def _told(error, what):
    if isinstance(error, TimeoutError):
        return Failure(f"waited {TIMEOUT:.0f} s for {what}")
    return Ended(type(error).__name__)


@contextlib.contextmanager
def crowd(server, count, **options):
    """`count` connections, closed at the end of the block."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(Client(server, **options)) for _ in range(count)]


def ask_all(clients, packet):
    """Sends the same request from each client, before it reads the first answer."""
    for client in clients:
        client.send(frame(packet))
    for client in clients:
        client.expect_packet(packet)


def exchange(clients, stream, seconds=60):
    """Sends `stream` (whole frames) from every client while it reads. Each must get it back unchanged."""
    transfers = {client.socket.fileno(): _Transfer(client.socket, stream) for client in clients}
    poll = select.poll()
    for descriptor in transfers:
        poll.register(descriptor, select.POLLIN | select.POLLOUT)
    deadline = time.monotonic() + seconds
    left = set(transfers)
    while left:
        expect(time.monotonic() < deadline, f"{len(left)} of {len(transfers)} echoes unfinished after {seconds} s")
        for descriptor, events in poll.poll(1000):
            interest = transfers[descriptor].step(events)
            if interest:
                poll.modify(descriptor, interest)
            else:
                poll.unregister(descriptor)
                left.discard(descriptor)
    for client in clients:
        client.socket.settimeout(TIMEOUT)


class _Transfer:
    """One client in `exchange`."""

    def __init__(self, connection, stream):
        connection.setblocking(False)
        self.connection = connection
        self.stream = memoryview(stream)
        self.sent = 0
        self.received = 0

    def step(self, events):
        """Sends and receives what it can. Returns the events to poll for, 0 when all bytes are back."""
        try:
            if events & select.POLLOUT and self.sent < len(self.stream):
                self.sent += self.connection.send(self.stream[self.sent : self.sent + 65536])
            if events & (select.POLLIN | select.POLLHUP | select.POLLERR):
                self._take(self.connection.recv(65536))
        except BlockingIOError:
            pass
        except ConnectionError as error:
            raise Failure(f"{type(error).__name__} after {self.received} bytes of echo") from None
        if self.received == len(self.stream):
            return 0
        return select.POLLIN | (select.POLLOUT if self.sent < len(self.stream) else 0)

    def _take(self, data):
        expect(data, f"end of stream after {self.received} of {len(self.stream)} bytes of echo")
        wanted = self.stream[self.received : self.received + len(data)]
        expect(wanted == data, f"the echo differs within the {len(data)} bytes after byte {self.received}")
        self.received += len(data)


@dataclass
class Outcome:
    """The result of a load."""

    answered: int = 0
    ended: int = 0

    def __str__(self):
        return f"{self.answered} answered, {self.ended} connections ended"


class Load:
    """Connections that send one request at a time. If the server ends one, it is replaced."""

    def __init__(self, server, connections):
        self.server = server
        self.outcome = Outcome()
        self.clients = [Client(server) for _ in range(connections)]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for client in self.clients:
            client.close()

    def rounds(self, count):
        """Sends `count` requests on every connection."""
        for number in range(count):
            for place in range(len(self.clients)):
                self._ask(place, b"%d of %d" % (number, place))

    def _ask(self, place, packet):
        try:
            self.clients[place].ask(packet)
            self.outcome.answered += 1
        except Ended:
            self.outcome.ended += 1
            self.clients[place].close()
            self.clients[place] = Client(self.server)
