"""Network namespaces without names: the kernel removes them with the last process or socket in them."""

import contextlib
import ctypes
import os
import re
from pathlib import Path

from .expect import Failure
from .spawn import run

CLONE_NEWNET = 0x40000000
LIBC = ctypes.CDLL(None, use_errno=True)
HOME = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)


def _enter(descriptor):
    if LIBC.setns(descriptor, CLONE_NEWNET) != 0:
        raise OSError(ctypes.get_errno(), "setns")


class Namespace:
    """A private network. In a `with namespace:` block this thread and its children are in it. Sockets made there stay in it."""

    def __init__(self):
        if LIBC.unshare(CLONE_NEWNET) != 0:
            raise Failure(f"no private network: {os.strerror(ctypes.get_errno())} (the checks need root)")
        try:
            self._descriptor = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            run("ip", "link", "set", "lo", "up")
        finally:
            _enter(HOME)

    def __enter__(self):
        _enter(self._descriptor)
        return self

    def __exit__(self, *_):
        _enter(HOME)

    def path(self):
        """A path by which other tools find this namespace."""
        return f"/proc/{os.getpid()}/fd/{self._descriptor}"

    def close(self):
        """Releases the namespace."""
        os.close(self._descriptor)

    def run(self, *command):
        """Runs a command in the namespace, and returns its output."""
        with self:
            return run(*command)

    def set(self, name, value):
        """Sets a parameter of this namespace alone, such as `tcp_keepalive_intvl`."""
        with self:
            Path(f"/proc/sys/net/ipv4/{name}").write_text(str(value))

    def counter(self, name):
        """A TCP counter of this namespace, such as `TCPSynRetrans`."""
        with self:
            lines = Path("/proc/thread-self/net/netstat").read_text().splitlines()
        names, values = (line.split()[1:] for line in lines if line.startswith("TcpExt:"))
        return int(dict(zip(names, values))[name])

    @contextlib.contextmanager
    def dropping(self, *match):
        """Drops arriving packets that match `match`, which is in the syntax of iptables."""
        rule = ["INPUT", *match, "-j", "DROP"]
        self.run("iptables", "-w", "-A", *rule)
        try:
            yield
        finally:
            self.run("iptables", "-w", "-D", *rule)

    def dropped(self):
        """How many packets the filter has dropped so far."""
        rules = self.run("iptables", "-w", "-L", "INPUT", "-v", "-x", "-n")
        return sum(int(count) for count in re.findall(r"^ *(\d+) +\d+ +DROP", rules, re.MULTILINE))


@contextlib.contextmanager
def private_network():
    """A namespace for the length of the block."""
    namespace = Namespace()
    try:
        yield namespace
    finally:
        namespace.close()


@contextlib.contextmanager
def wire(mtu):
    """Two namespaces joined by a cable of that MTU: (server's, its address, client's)."""
    with private_network() as near, private_network() as far:
        near.run("ip", "link", "add", "near", "type", "veth", "peer", "name", "far", "netns", far.path())
        for namespace, name, address in ((near, "near", "10.77.0.1"), (far, "far", "10.77.0.2")):
            namespace.run("ip", "address", "add", f"{address}/24", "dev", name)
            namespace.run("ip", "link", "set", name, "mtu", str(mtu), "up")
        yield near, "10.77.0.1", far
