"""Faults of the network, in private namespaces: a tiny MTU, loss, killed sockets, peers that vanish."""

import contextlib
import random
import time

from kit.client import Client, ask_all, crowd, exchange, frame
from kit.expect import Unsupported, check, expect, wait_until
from kit.network import private_network, wire
from kit.trial import Trial


@check("mtu-68", "exact bytes arrive through the smallest MTU there is", needs=("ip",))
def smallest_mtu():
    packet = random.randbytes(500)
    with wire(68) as (near, address, far), Trial(listen=f"{address}:0", namespace=near) as trial:
        trial.server.namespace = far
        with crowd(trial.server, 8) as clients:
            for _ in range(40):
                ask_all(clients, packet)
        trial.during()
        return f"8 x 40 packets of {len(packet)} bytes echoed; {trial.finish()}"


@check("random-loss", "exact bytes arrive although 3 % of all packets are lost", needs=("ip", "iptables"), patient=True, optional=True)
def random_loss():
    stream = frame(random.randbytes(10_000)) * 8
    with private_network() as network, Trial(namespace=network) as trial:
        network.run("ip", "link", "set", "lo", "mtu", "1500", "gso_max_segs", "1")
        with dropping_at_random(network, 0.03), crowd(trial.server, 8) as clients:
            exchange(clients, stream)
            trial.during()
            dropped = network.dropped()
        expect(dropped > 0, "the filter dropped nothing")
        return f"{dropped} packets dropped, 8 x {len(stream)} bytes echoed; {trial.finish()}"


@contextlib.contextmanager
def dropping_at_random(network, probability):
    """Drops packets at random, if the kernel has a filter that can do this."""
    with contextlib.ExitStack() as stack:
        match = ("-m", "statistic", "--mode", "random", "--probability", str(probability))
        try:
            stack.enter_context(network.dropping(*match))
        except RuntimeError as error:
            raise Unsupported(f"this kernel cannot drop packets at random: {error}") from None
        yield


@check("sockets-killed", "connections killed under load (ss -K) end; all others live", needs=("ip", "ss"))
def sockets_killed():
    with private_network() as network, Trial(namespace=network) as trial:
        killed = sum(kill_under_load(network, trial) for _ in range(5))
        trial.during()
        return f"{killed} connections killed; {trial.finish()}"


def kill_under_load(network, trial):
    """Kills twenty connections with work in flight on the server's side. Returns how many were killed."""
    port = trial.server.address[1]
    burst = frame(b"x" * 1_000) * 60
    with crowd(trial.server, 20) as clients:
        for client in clients:
            client.send(burst)
        output = network.run("ss", "-K", "-t", "-n", f"sport = :{port} and dport != :{trial.before.port()}")
        killed = output.count("ESTAB")
        expect(killed == 20, f"ss -K killed {killed} of 20 connections: it needs a kernel with INET_DIAG_DESTROY")
        for client in clients:
            expect(client.read_to_end() <= len(burst), "more came back than was sent")
    trial.before.ask(b"spared")
    return killed


@check("peers-vanish", "--idle frees the slots of peers whose packets no longer arrive", needs=("ip", "iptables"), patient=True)
def peers_vanish():
    with private_network() as network, Trial("--idle", 1500, "--max-connections", 11, namespace=network) as trial:
        vanishing = [Client(trial.server, source="127.0.0.2") for _ in range(10)]
        for client in vanishing:
            client.ask(b"here I am")
        with network.dropping("-s", "127.0.0.2"), network.dropping("-d", "127.0.0.2"):
            for client in vanishing:
                client.close()
            start = time.monotonic()
            wait_until(lambda: only_before_is_open(trial), 15, "the slots of vanished peers are still held after 15 s")
            freed = time.monotonic() - start
        trial.during()
        return f"10 slots freed {freed:.1f} s after the peers vanished; {trial.finish()}"


def only_before_is_open(trial):
    """Sends a request on the client from before. Returns whether it is the only connection left."""
    trial.before.ask(b"still here")
    time.sleep(0.1)
    return trial.server.descriptors() == trial.descriptors + 1


@check(
    "peers-vanish-silently",
    "--keepalive frees the slots of peers whose packets no longer arrive; silent ones that still exist keep theirs",
    needs=("ip", "iptables"),
    patient=True,
)
def peers_vanish_silently():
    with private_network() as network:
        network.set("tcp_keepalive_intvl", 1)
        network.set("tcp_keepalive_probes", 2)
        with Trial("--keepalive", 1, namespace=network) as trial:
            with crowd(trial.server, 10) as silent, crowd(trial.server, 10, source="127.0.0.2") as vanishing:
                ask_all(silent + vanishing, b"and now silence")
                with network.dropping("-s", "127.0.0.2"), network.dropping("-d", "127.0.0.2"):
                    start = time.monotonic()
                    trial.wait_for_descriptors(trial.descriptors + 11, 15)
                    freed = time.monotonic() - start
                time.sleep(2)
                ask_all(silent, b"still here")
            trial.during()
            return f"10 slots freed {freed:.1f} s after the peers vanished, 10 kept; {trial.finish()}"


@check(
    "peers-vanish-owing",
    "the write-stall timeout (60 s) frees the slots of peers that vanish with answers still unread",
    needs=("ip", "iptables"),
    patient=True,
)
def peers_vanish_owing():
    burst = frame(random.randbytes(32_000)) * 300
    with private_network() as network, Trial(namespace=network) as trial:
        vanishing = [Client(trial.server, source="127.0.0.2", receive_buffer=4096) for _ in range(5)]
        for client in vanishing:
            client.socket.setblocking(False)
            client.socket.send(burst)
        time.sleep(0.5)
        with network.dropping("-s", "127.0.0.2"), network.dropping("-d", "127.0.0.2"):
            start = time.monotonic()
            wait_until(lambda: only_before_is_open(trial), 80, "the slots of vanished peers are still held after 80 s")
            freed = time.monotonic() - start
        for client in vanishing:
            client.close()
        trial.during()
        return f"5 slots freed {freed:.1f} s after the peers vanished; {trial.finish()}"
