"""Allowed but rare behaviour of a kernel (interpose.c): short reads and writes, interruptions, one event at a time, tiny buffers."""

import random
import tempfile
import time
from pathlib import Path

from kit.client import ask_all, crowd, exchange, frame
from kit.expect import check
from kit.interposer import interposed

GCC = ("gcc",)
SEED = random.SystemRandom().randrange(1 << 30)


def packets(total, largest):
    """Makes whole frames of random lengths and bytes, `total` bytes or a little more. SEED determines them."""
    source = random.Random(SEED)
    stream = bytearray()
    while len(stream) < total:
        stream += frame(source.randbytes(source.randint(0, largest)))
    return bytes(stream)


def echoed_in_spite(*counted, total=300_000, largest=2_000, **faults):
    """Checks that twenty clients get their streams back unchanged under these faults."""
    stream = packets(total, largest)
    with interposed(seed=SEED, **faults) as run:
        with crowd(run.trial.server, 20) as clients:
            exchange(clients, stream)
            run.trial.before.ask(b"before, during the fault")
        run.trial.during()
        return f"20 x {len(stream)} bytes echoed (seed {SEED}); {run.finish(*counted)}"


@check("short-writes", "the rest is written later: exact bytes arrive", needs=GCC)
def short_writes():
    return echoed_in_spite("short_write", short_write=70)


@check("short-reads", "the rest is read with the next event: exact bytes arrive", needs=GCC)
def short_reads():
    return echoed_in_spite("short_read", short_read=70)


@check("interrupted-everywhere", "EINTR in send, receive, accept and epoll_wait is invisible", needs=GCC)
def interrupted_everywhere():
    return echoed_in_spite("eintr", eintr=40)


@check("one-event-at-a-time", "no connection starves", needs=GCC)
def one_event_at_a_time():
    return echoed_in_spite("one_event", one_event=1)


@check("all-of-it-at-once", "short reads, short writes, EINTR, one event: exact bytes arrive", needs=GCC)
def all_at_once():
    counted = ("short_write", "short_read", "eintr", "one_event")
    return echoed_in_spite(*counted, short_write=50, short_read=50, eintr=20, one_event=1)


@check("tiny-buffers", "64 KB packets through socket buffers of a few KB: exact bytes arrive", needs=GCC)
def tiny_buffers():
    stream = packets(200_000, 65_535)
    with interposed(seed=SEED, buffer=4096) as run:
        with crowd(run.trial.server, 10, receive_buffer=4096, send_buffer=4096) as clients:
            exchange(clients, stream)
        run.trial.during()
        return f"10 x {len(stream)} bytes echoed (seed {SEED}); {run.finish('buffer')}"


@check(
    "late-after-poll",
    "held up 0.5 s between epoll_wait and the clock: no timeout (0.4 s) for what had arrived after 0.05 s",
    needs=GCC,
)
def late_after_poll():
    whole = frame(b"cut in two")
    with tempfile.TemporaryDirectory() as folder, interposed("--timeout", 400, late=f"{folder}/late") as run:
        with crowd(run.trial.server, 20) as clients:
            ask_all(clients, b"accepted")
            for client in clients:
                client.send(whole[:5])
            run.trial.before.ask(b"all of that has been read")
            Path(f"{folder}/late").touch()
            run.trial.before.send(frame(b"wake up"))
            time.sleep(0.05)
            for client in clients:
                client.send(whole[5:])
            Path(f"{folder}/late").unlink()
            for client in clients:
                client.expect_packet(whole[2:])
            run.trial.before.expect_packet(b"wake up")
        run.trial.during()
        return f"20 packets cut in two; {run.finish('late')}"
