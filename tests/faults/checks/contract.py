"""Peers that violate the protocol, and streams that must end in order."""

import random
import socket
import time

from kit.client import Client, frame
from kit.expect import check, expect
from kit.trial import Trial

STRANGERS = {
    "HTTP": b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303") + bytes(500),
    "PROXY v2": bytes.fromhex("0d0a0d0a000d0a515549540a2111000c") + bytes(12),
    "SSH": b"SSH-2.0-OpenSSH_9.2\r\n",
    "SMTP": b"EHLO example.org\r\n",
    "Redis": b"*1\r\n$4\r\nPING\r\n",
}


@check("garbage", "HTTP, TLS, PROXY and others are refused at the header; random bytes harm no other client")
def garbage():
    seed = random.SystemRandom().randrange(1 << 30)
    source = random.Random(seed)
    with Trial("--max-packet", 1024, "--timeout", 500) as trial:
        for name, opening in STRANGERS.items():
            with Client(trial.server) as client:
                client.send(opening)
                expect(client.read_to_end() == 0, f"{name} was answered")
        for _ in range(300):
            babble(trial.server, source)
        trial.before.ask(b"before, during the fault")
        trial.during()
        return f"{len(STRANGERS)} protocols refused, 300 random clients (seed {seed}); {trial.finish()}"


def babble(server, source):
    """Sends random bytes, then closes in one of several ways."""
    with Client(server) as client:
        client.send(source.randbytes(source.randint(1, 3000)))
        leave = source.choice(("close", "reset", "half-close"))
        if leave == "reset":
            client.reset()
        if leave == "half-close":
            client.socket.shutdown(socket.SHUT_WR)
            client.read_to_end()


@check("stop-with-unread-input", "send_and_stop with 2 MB of input after it: the answer arrives, then the end of the stream, not a reset")
def stop_with_unread_input():
    with Trial() as trial:
        with Client(trial.server) as client:
            client.send(frame(b"send_and_stop") + bytes(2_000_000))
            time.sleep(0.5)
            client.expect_packet(b"send_and_stop")
            client.expect_end("after send_and_stop")
            trial.during()
        return f"answer and end of stream; {trial.finish()}"


@check("half-close", "100 requests, then the peer's end of stream: 100 answers, then the server's end of stream")
def half_close():
    requests = [b"request %d" % number for number in range(100)]
    with Trial() as trial:
        with Client(trial.server) as client:
            client.send(b"".join(map(frame, requests)))
            client.socket.shutdown(socket.SHUT_WR)
            for request in requests:
                client.expect_packet(request)
            client.expect_end("after 100 answers")
            trial.during()
        return f"100 answers and the end of the stream; {trial.finish()}"
