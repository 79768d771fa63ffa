"""The check after every fault: clients from before, during and after it are served, and all resources are given back."""

from .client import Client
from .expect import expect, wait_until
from .server import Server

MEMORY_KIB = 40 * 1024


class Trial:
    """A server and its three clients around a fault.

    It connects `before` at once. Call `during` while the fault acts, and `finish` when it is over."""

    def __init__(self, *options, **how):
        self.server = Server(*options, **how)
        self._clients = []
        try:
            self.descriptors = self._descriptors_without_clients()
            self.before = self._client()
            self.before.ask(b"before the fault")
        except BaseException:
            self.__exit__()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *error):
        for client in self._clients:
            client.close()
        self.server.__exit__(*error)

    def _client(self):
        client = Client(self.server)
        self._clients.append(client)
        return client

    def _descriptors_without_clients(self):
        with Client(self.server) as client:
            client.ask(b"warm up")
            baseline = self.server.descriptors() - 1
        self.wait_for_descriptors(baseline)
        return baseline

    def wait_for_descriptors(self, count, seconds=12):
        """Waits until the server has that many file descriptors open."""
        wait_until(
            lambda: self.server.descriptors() == count,
            seconds,
            lambda: f"{self.server.descriptors()} fds are open after {seconds} s, not {count}",
        )

    def during(self):
        """Connects a client during the fault, and sends one request."""
        self._client().ask(b"during the fault")

    def finish(self):
        """Sends requests on all clients, closes them, and compares fds, memory and handlers. Returns the result."""
        expect(len(self._clients) > 1, "the check connected no client during the fault")
        self.before.ask(b"before, after all")
        for client in self._clients[1:]:
            client.ask(b"during, after all")
        self._client().ask(b"after the fault")
        for client in self._clients:
            client.close()
        self.wait_for_descriptors(self.descriptors)
        resident = self.server.resident_kib()
        expect(resident <= MEMORY_KIB, f"{resident} KiB resident after the fault, {MEMORY_KIB} allowed")
        handlers = self.server.stop()
        return f"fds {self.descriptors}, {resident / 1024:.1f} MiB, {handlers}"
