"""Starts that cannot work, a restart at once, and stops."""

import contextlib
import signal
import time

from kit.client import Client, ask_all, crowd, frame
from kit.expect import check, expect, wait_until
from kit.server import Server, StartFailed
from kit.trial import Trial


@check("port-in-use", "an error that names the address, not a panic; the first server continues")
def port_in_use():
    with Trial() as trial:
        taken = "%s:%d" % trial.server.address
        message = expect_refused(taken)
        expect(taken in message, f"the message does not name {taken}: {message}")
        trial.during()
        return f"{message}; {trial.finish()}"


@check("address-not-ours", "an error that names the address, not a panic")
def address_not_ours():
    message = expect_refused("192.0.2.1:5555")
    expect("192.0.2.1:5555" in message, f"the message does not name 192.0.2.1:5555: {message}")
    return message


def expect_refused(listen, *options):
    """Checks that the server does not start. Returns its message."""
    try:
        with Server(*options, listen=listen) as server:
            expect(False, f"started on {server.address}")
    except StartFailed as failed:
        expect(failed.code > 0 and failed.code != 101, str(failed))
        expect("panicked" not in failed.errors, str(failed))
        return failed.errors.strip()


@check("nonsense-options", "a clear error and a non-zero exit, never a panic")
def nonsense_options():
    nonsense = (("--len", 3), ("--timeout", "soon"), ("--max-packet", 70_000), ("--frobnicate",), ("surplus",))
    for options in nonsense:
        expect(expect_refused("127.0.0.1:0", *options), f"{options}: refused without a word")
    return f"{len(nonsense)} refused"


@check("restart-at-once", "binds at once although connections of the old server are in TIME_WAIT")
def restart_at_once():
    with Server() as first:
        for _ in range(20):
            with Client(first) as client:
                client.ask(b"send_and_stop")
                client.expect_end("after send_and_stop")
        first.stop()
        address = "%s:%d" % first.address
    with Trial(listen=address) as trial:
        trial.during()
        return f"{address} again; {trial.finish()}"


@check("stop-while-untouched", "SIGTERM to a server that has not had a single event yet: it is woken, and ends")
def stop_while_untouched():
    with Server() as server:
        wait_until(server.threads_in_poll, 5, "no thread of the server waits for events")
        others = set(server.threads()) - set(server.threads_in_poll())
        expect(others, "every thread waits for events, and a signal to any would wake it anyway")
        server.signal_thread(min(others), signal.SIGTERM)
        expect(server.wait(5) == 0, f"exit code {server.process.returncode}: {server.errors()}")
        return server.expect_all_terminated()


@check("drain", "SIGTERM: every request that the kernel has acknowledged is answered, also in the accept queue; then the end of the stream")
def drain():
    requests = [b"request %d" % number for number in range(100)]
    with Server() as server, contextlib.ExitStack() as stack:
        accepted = stack.enter_context(crowd(server, 20))
        ask_all(accepted, b"accepted")
        with server.stopped():
            queued = stack.enter_context(crowd(server, 20))
            for client in accepted + queued:
                client.send(b"".join(map(frame, requests)))
            server.signal(signal.SIGTERM)
        for client in accepted + queued:
            for request in requests:
                client.expect_packet(request)
            client.expect_end("after the drain")
            client.close()
        expect(server.wait(20) == 0, f"exit code {server.process.returncode}: {server.errors()}")
        server.expect_no_panic()
        return f"40 x 100 answers; {server.expect_all_terminated()}"


@check("stop-under-load", "SIGTERM in the middle of a flood: every connection ends, within the drain timeout")
def stop_under_load():
    with Server() as server, contextlib.ExitStack() as stack:
        clients = stack.enter_context(crowd(server, 20))
        for client in clients:
            client.send(frame(b"x" * 30_000) * 2)
        start = time.monotonic()
        seen = server.stop()
        seconds = time.monotonic() - start
        for client in clients:
            client.read_to_end()
        expect(seconds <= 12, f"{seconds:.1f} s from SIGTERM to the exit")
        return f"gone {seconds:.1f} s after SIGTERM; {seen}"
