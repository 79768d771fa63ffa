"""Clients in processes of their own, which real-time priority keeps apart from the rest of the machine.

`neighbours.py hogs HOST PORT COUNT`: pipelines empty packets on COUNT connections until it is killed. It prints a
line when all are connected, and another one when each of them has had an answer.

`neighbours.py reader HOST PORT packet|value`: keeps 16 requests under way until it is killed, and prints a line after
the first answer. Each answer is 1 MB, and so is each request, unless it asks for a value (crowded.rs). After a line on
stdin it prints how many bytes have come back.

`neighbours.py bystander HOST PORT WIDTH PID`: connects, and then answers each line on stdin with a line of JSON:
latencies in milliseconds, in the order of measuring, and whether the server has left the last request without an answer.
WIDTH is the number of bytes of the length prefix. PID is the server's. The time in which the server or this process
was ready to run, and other programs had the core, is subtracted from each latency.

- `requests SECONDS`: one request at a time, on the one connection.
- `newcomers COUNT`: from the connect to the first answer, each on a connection of its own.
- `timers COUNT`: how long timers of 100 ms took, as the server measured it (crowded.rs).
- `commands COUNT`: from a request that makes the server command an end to the end of the stream (crowded.rs).
"""

import contextlib
import json
import os
import select
import socket
import sys
import time

# In seconds. After it a request counts as not answered.
PATIENCE = 3.0
# How far a hog is ahead of its answers: 8,192 packets, more than the server delivers in a turn.
AHEAD = 16 * 1024
DEPTH = 16
# The bytes of the reader's packets, and of the values of crowded.rs.
LARGE = 1_000_000


def connected(address):
    """A connection without Nagle's delay."""
    connection = socket.create_connection(address, timeout=PATIENCE)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection


class Hog:
    """A connection that sends empty packets faster than they are answered, and reads the answers."""

    def __init__(self, address):
        self.connection = connected(address)
        self.connection.setblocking(False)
        self._sent = 0
        self._answered = 0

    def is_answered(self):
        """Whether an answer has come."""
        return self._answered > 0

    def step(self):
        """Reads answers and sends packets, as far as the socket lets it."""
        try:
            self._answered += len(self.connection.recv(1 << 16))
        except BlockingIOError:
            pass
        try:
            missing = AHEAD - (self._sent - self._answered)
            if missing >= AHEAD // 4:
                self._sent += self.connection.send(bytes(missing))
        except BlockingIOError:
            pass


def hogs(address, count):
    """Runs `count` hogs."""
    herd = {hog.connection.fileno(): hog for hog in (Hog(address) for _ in range(count))}
    print("connected", flush=True)
    poll = select.epoll()
    for descriptor, hog in herd.items():
        hog.step()
        poll.register(descriptor, select.EPOLLIN)
    silent = set(herd)
    while True:
        for descriptor, events in poll.poll():
            try:
                herd[descriptor].step()
            except ConnectionError:
                poll.unregister(descriptor)
                continue
            if events & select.EPOLLHUP:
                poll.unregister(descriptor)
            if silent and herd[descriptor].is_answered():
                silent.discard(descriptor)
                if not silent:
                    print("answered", flush=True)
        # Hogs are many steps ahead, so they need not disturb the others on this core at each answer.
        time.sleep(0.02)


def reader(address, request):
    """Runs the reader of large answers."""
    connection = connected(address)
    connection.setblocking(False)
    packet = {"packet": bytes(LARGE), "value": b"value"}[request]
    stream = memoryview((len(packet).to_bytes(4, "big") + packet) * 2)
    each = len(stream) // 2
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    poll.register(sys.stdin, select.POLLIN)
    buffer = bytearray(DEPTH * LARGE)
    sent = received = 0
    while True:
        for descriptor, events in poll.poll():
            if descriptor == sys.stdin.fileno():
                sys.stdin.readline()
                print(received, flush=True)
                continue
            if events & select.POLLIN:
                before, received = received, received + connection.recv_into(buffer)
                if before < 4 + LARGE <= received:
                    print("answered", flush=True)
            allowed = (received // (4 + LARGE) + DEPTH) * each - sent
            if events & select.POLLOUT and allowed > 0:
                count = connection.send(stream[sent % each :][:allowed])
                sent, allowed = sent + count, allowed - count
            poll.modify(connection, select.POLLIN | (select.POLLOUT if allowed > 0 else 0))


class Waits:
    """How long the threads of some processes, and some threads of this one, have waited for a core."""

    def __init__(self, *pids, threads=()):
        tasks = [f"/proc/{pid}/task" for pid in pids]
        files = [f"{folder}/{thread}/schedstat" for folder in tasks for thread in os.listdir(folder)]
        files += [f"/proc/self/task/{thread}/schedstat" for thread in threads]
        self._files = [os.open(file, os.O_RDONLY) for file in files]

    def millis(self):
        """Their sum, in milliseconds."""
        return sum(int(os.pread(file, 100, 0).split()[1]) for file in self._files) / 1e6


class Bystander:
    """One well-behaved client."""

    def __init__(self, address, width, server):
        self._address = address
        self._width = width
        self._waits = Waits(server, os.getpid())
        self._connection = connected(address)
        self._millis = []

    def obey(self, command, value):
        """Carries out one command."""
        self._millis = []
        try:
            getattr(self, command)(value)
        except TimeoutError:
            return {"millis": [*self._millis, PATIENCE * 1000], "unanswered": True}
        return {"millis": self._millis, "unanswered": False}

    @contextlib.contextmanager
    def _measured(self):
        """Measures the block."""
        start, waits = time.monotonic(), self._waits.millis()
        yield
        self._tell((time.monotonic() - start) * 1000, waits)

    def _tell(self, millis, waits):
        """Adds a latency, without the waits since `waits` was read."""
        self._millis.append(max(0.0, millis - (self._waits.millis() - waits)))

    def requests(self, seconds):
        """See the documentation of the module."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            with self._measured():
                self._ask(self._connection, b"how long")
            time.sleep(0.001)

    def newcomers(self, count):
        """See the documentation of the module."""
        for _ in range(int(count)):
            with self._measured(), connected(self._address) as connection:
                self._ask(connection, b"first")

    def timers(self, count):
        """See the documentation of the module."""
        for _ in range(int(count)):
            waits = self._waits.millis()
            self._send(self._connection, b"timer")
            self._tell(int(self._receive(self._connection)) / 1000, waits)

    def commands(self, count):
        """See the documentation of the module."""
        for _ in range(int(count)):
            with connected(self._address) as connection:
                self._ask(connection, b"first")
                with self._measured():
                    self._send(connection, b"close")
                    if connection.recv(1):
                        sys.exit("an answer to `close`")

    def _ask(self, connection, packet):
        self._send(connection, packet)
        if self._receive(connection) != packet:
            sys.exit("a wrong answer")

    def _send(self, connection, packet):
        connection.sendall(len(packet).to_bytes(self._width, "big") + packet)

    def _receive(self, connection):
        return self._exactly(connection, int.from_bytes(self._exactly(connection, self._width), "big"))

    @staticmethod
    def _exactly(connection, count):
        parts = b""
        while len(parts) < count:
            part = connection.recv(count - len(parts))
            if not part:
                sys.exit("the stream has ended")
            parts += part
        return parts


def bystander(address, width, server):
    """Carries out the commands on stdin."""
    client = Bystander(address, width, server)
    for line in sys.stdin:
        command, value = line.split()
        print(json.dumps(client.obey(command, float(value))), flush=True)


def main():
    """Runs the chosen kind of client."""
    kind, host, port, *more = sys.argv[1:]
    more = [int(word) if word.isdigit() else word for word in more]
    {"hogs": hogs, "reader": reader, "bystander": bystander}[kind]((host, int(port)), *more)


if __name__ == "__main__":
    main()
