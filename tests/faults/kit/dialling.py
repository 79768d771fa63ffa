"""A server whose connector dials while a fault acts, and the backends that it dials."""

import contextlib
import selectors
import socket
import struct
import subprocess
import sys
import threading
import time

from .client import frame
from .expect import expect, wait_until
from .neighbours import Waits
from .rounds import best
from .spawn import spawn
from .trial import Trial

# In milliseconds: the longest time of 99 % of the requests beside a connector that dials.
BESIDE = 50
# Dials of one connection in a second. The checks wait at most 200 ms between two, 100 ms on average.
FASTEST = 40
BACKOFF = ("--backoff", 200, 200)
HELLO = frame(b"hello")


class Dialling(Trial):
    """A trial whose server has a connector as well. It dials from `dial` on."""

    def __init__(self, *to, options=(), **how):
        places = [word for place in to for word in ("--to", place)]
        super().__init__(*places, *options, program="dialling", **how)
        # The threads of look-ups come and go, so these are the threads before the first one.
        self._waits = Waits(self.server.pid, threads=[threading.get_native_id()])
        self._began = 0.0

    def command(self, word):
        """Sends a command to the server, and returns its answer."""
        self.before.send(frame(word.encode()))
        return self.before.packet().decode()

    def dial(self):
        """Starts the connector."""
        self._began = time.monotonic()
        expect(self.command("dial") == "it dials", "the connector did not start")

    def state(self):
        """The connector's state."""
        return self.command("state")

    def stats(self):
        """The connector's counters."""
        return {name: int(value) for name, value in (each.split("=") for each in self.command("stats").split())}

    def suffer(self, *texts, failures=3, links=1, seconds=10):
        """Waits until so many dials have failed and each text is in the log. Meanwhile others must be served at once.

        Returns what was seen, as text."""
        deadline = time.monotonic() + seconds
        millis = []
        while True:
            millis += self._latencies(10)
            seen = self.server.output()
            missing = [text for text in texts if text not in seen]
            if not missing and self.stats()["dial_failures"] >= failures:
                break
            expect(time.monotonic() < deadline, f"no {missing or failures} after {seconds} s: {self.stats()} {seen[-500:]!r}")
        # It dials on, so if these were too slow, as many others tell whether that was the server.
        p99 = percentile(millis)
        if p99 > BESIDE:
            p99 = best(lambda: percentile(self._latencies(len(millis))), BESIDE)
        expect(p99 <= BESIDE, f"99 % of requests beside a connector that dials took {p99:.1f} ms, {BESIDE} ms allowed")
        dials, took = self.stats()["dials"], time.monotonic() - self._began
        expect(dials <= links * (FASTEST * took + 10), f"{dials} dials in {took:.1f} s")
        return f"{dials} dials in {took:.1f} s, beside them p99 {p99:.1f} ms"

    def _latencies(self, count):
        """The times of so many requests, with pauses."""
        times = []
        for _ in range(count):
            times.append(self._latency())
            time.sleep(0.005)
        return times

    def _latency(self):
        """The time of one request in milliseconds, without what the server and this thread have waited for a core."""
        began, waited = time.monotonic(), self._waits.millis()
        self.before.ask(b"beside a connector that dials")
        took = (time.monotonic() - began) * 1000
        return max(0.0, took - (self._waits.millis() - waited))

    def wait_for(self, state, seconds=10):
        """Waits for a state of the connector. Returns how long that took."""
        began = time.monotonic()
        last = [""]

        def reached():
            last[0] = self.state()
            return last[0] == state

        wait_until(reached, seconds, lambda: f"not {state!r} after {seconds} s, but {last[0]!r}: {self.stats()}")
        return time.monotonic() - began

    def finish(self):
        """Stops the connector, then as every trial."""
        self.command("stop")
        self.wait_for("ended")
        stats = self.stats()
        expect(stats["open"] == 0 and stats["made"] == stats["terminated"], f"connections of the connector are left: {stats}")
        expect(stats["panics"] == 0, f"panics: {stats}")
        return super().finish()


def percentile(millis):
    """The 99th one."""
    return sorted(millis)[len(millis) * 99 // 100]


class Backend:
    """A server that takes connections and greetings, and says nothing. Its end resets all connections."""

    def __init__(self, namespace=None, address=("127.0.0.1", 0), resets=False):
        with namespace or contextlib.nullcontext():
            self.listener = socket.socket()
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(address)
        self.listener.listen(4096)
        self.listener.setblocking(False)
        self.address = self.listener.getsockname()
        self.connections = {}
        self.greeted = 0
        self._resets = resets
        self._ends = False
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.die()

    def place(self):
        """The address as text."""
        return "{}:{}".format(*self.address)

    def _serve(self):
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ)
            while not self._ends:
                for key, _ in selector.select(0.02):
                    self._step(selector, key.fileobj)

    def _step(self, selector, ready):
        if ready is self.listener:
            with contextlib.suppress(BlockingIOError):
                while True:
                    connection, _ = self.listener.accept()
                    if self._resets:
                        reset(connection)
                        continue
                    connection.setblocking(False)
                    self.connections[connection] = b""
                    selector.register(connection, selectors.EVENT_READ)
            return
        try:
            data = ready.recv(4096)
        except ConnectionError:
            data = b""
        if data:
            self.connections[ready] += data
            self.greeted += self.connections[ready] == HELLO
        else:
            selector.unregister(ready)
            del self.connections[ready]
            ready.close()

    def die(self):
        """Ends as a process that is killed: nothing listens, and connections are reset."""
        self._ends = True
        self._thread.join()
        self.listener.close()
        for connection in self.connections:
            reset(connection)
        self.connections.clear()


def reset(connection):
    """Closes with a reset."""
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


class Beating:
    """A backend in a process of its own, which can be stopped. It sends a packet on each connection all the time."""

    PROGRAM = """
import select, socket
listener = socket.socket()
listener.bind(("127.0.0.1", 0))
listener.listen(1)
print(listener.getsockname()[1], flush=True)
connections = []
while True:
    for ready in select.select([listener, *connections], [], [], 0.05)[0]:
        if ready is listener:
            connections.append(listener.accept()[0])
            continue
        try:
            alive = ready.recv(4096)
        except ConnectionError:
            alive = b""
        if not alive:
            connections.remove(ready)
            ready.close()
    for connection in connections:
        try:
            connection.send(bytes(2))
        except ConnectionError:
            pass
"""

    def __init__(self):
        self._process = spawn([sys.executable, "-c", self.PROGRAM], stdout=subprocess.PIPE, text=True)
        self.place = f"127.0.0.1:{int(self._process.stdout.readline())}"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._process.kill()
        self._process.communicate()

    def signal(self, number):
        """Sends a signal."""
        self._process.send_signal(number)


class Attempts:
    """The times of all SYNs to a port in a namespace, as the kernel sees them."""

    SO_TIMESTAMPNS = 35

    def __init__(self, namespace, port):
        with namespace:
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(0x0800))
        self._socket.setsockopt(socket.SOL_SOCKET, 33, 64 << 20)  # SO_RCVBUFFORCE
        self._socket.setsockopt(socket.SOL_SOCKET, self.SO_TIMESTAMPNS, 1)
        self._port = port

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._socket.close()

    def taken(self):
        """The times in seconds of those since the last call, by the clock of `time.time`."""
        times = []
        with contextlib.suppress(BlockingIOError):
            while True:
                packet, ancillary, _, _ = self._socket.recvmsg(128, 64, socket.MSG_DONTWAIT)
                ip = packet[14:]
                tcp = ip[(ip[0] & 15) * 4 :]
                if ip[9] != socket.IPPROTO_TCP or struct.unpack(">H", tcp[2:4])[0] != self._port:
                    continue
                if tcp[13] & 0x12 == 0x02:
                    seconds, nanos = struct.unpack("qq", ancillary[0][2][:16])
                    times.append(seconds + nanos / 1e9)
        return times
