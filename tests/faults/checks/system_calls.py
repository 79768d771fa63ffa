"""System calls that fail (strace -e inject), and the number of system calls per packet."""

import itertools
import re

from kit.client import Client, Load, ask_all, crowd, frame
from kit.expect import Failure, check, expect, wait_until
from kit.interposer import interposed
from kit.server import Server, StartFailed
from kit.trace import Trace
from kit.trial import Trial

STRACE = ("strace",)
ROOMY = ("--max-connections", 1000)


def for_each(errors, prefix, expected):
    """Registers one check per error: `prefix-ERROR`."""

    def register(body):
        for error in errors:
            check(f"{prefix}-{error}", expected, needs=STRACE)(lambda error=error: body(error))
        return body

    return register


@for_each(
    ("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "EACCES", "EPERM"),
    "accept",
    "listener pauses (at most 20 tries a second), others are served meanwhile, the queued are served later without a new SYN",
)
def accept_runs_out(error):
    with Trial(*ROOMY) as trial:
        with Trace(trial.server, "accept4", inject=f"accept4:error={error}:when=1..6") as trace, crowd(trial.server, 10) as queued:
            trial.before.ask(b"served while accepting pauses")
            ask_all(queued, b"served after the pause")
            trial.during()
        trace.expect_injected(6)
        failures = [call.time for call in trace.injected()]
        rate = (len(failures) - 1) / (failures[-1] - failures[0])
        expect(rate <= 20, f"{rate:.0f} failed accepts a second")
        return f"6 accepts failed, {rate:.0f} a second; {trial.finish()}"


@for_each(("ECONNABORTED", "EPROTO", "EINTR"), "accept", "the next accept follows at once, without a sleep between")
def accept_loses_one(error):
    with Trial(*ROOMY) as trial:
        with Trace(trial.server, "accept4", "epoll_wait", inject=f"accept4:error={error}:when=1+2") as trace:
            with crowd(trial.server, 20) as clients:
                ask_all(clients, b"accepted all the same")
            trial.during()
        count = trace.expect_injected(5)
        expect_no_sleep_after_failure(trace.calls)
        return f"{count} accepts failed; {trial.finish()}"


def expect_no_sleep_after_failure(calls):
    """Checks that between a failed accept and the next one the loop polls without waiting."""
    for call, following in itertools.pairwise(call for call in calls if not is_mere_look(call)):
        if call.injected:
            expect(following.name == "accept4", f"slept after a failed accept: epoll_wait({following.arguments})")


def is_mere_look(call):
    """Whether this is an epoll_wait with a timeout of 0."""
    return call.name == "epoll_wait" and call.arguments.endswith(", 0")


@check("accept-fails-for-ever", "EACCES for every accept: pauses, and SIGTERM ends the server in time", needs=STRACE)
def accept_fails_for_ever():
    with Server() as server, Client(server) as client:
        client.ask(b"before")
        with Trace(server, "accept4", inject="accept4:error=EACCES:when=1+") as trace:
            poke(server)
            cpu = server.cpu_seconds()
            for _ in range(10):
                client.ask(b"served while accepting pauses")
            cpu = server.cpu_seconds() - cpu
            report = server.stop()
        count = trace.expect_injected(2)
        expect(count <= 40, f"{count} calls of accept4")
        client.read_to_end()
        return f"{count} failed accepts, {cpu:.2f} s CPU; {report}"


@for_each(("EBADF", "EINVAL", "ENOTSOCK"), "accept", "the listener is drained and closed, a line names it, SIGTERM ends the server")
def accept_is_broken(error):
    with Server() as server, Client(server) as client:
        client.ask(b"before")
        with Trace(server, "accept4", inject=f"accept4:error={error}:when=1+") as trace:
            poke(server)
            client.read_to_end()
            wait_until(lambda: "broke" in server.errors(), 5, "no line says that the listener broke")
        expect(f"os error {ERROR_NUMBERS[error]}" in server.errors(), f"stderr does not name {error}: {server.errors()!r}")
        expect(server.errors().count("broke") == 1, f"said more than once: {server.errors()!r}")
        count = trace.expect_injected(1)
        expect(count == 1, f"{count} calls of accept4")
        client.close()
        return f"{server.stop()}; {server.errors().strip()}"


@for_each(("EBADF", "EINVAL"), "poll", "the server ends with a clear error, and does not spin")
def poll_is_broken(error):
    expect_fatal("epoll_wait", error)


ERROR_NUMBERS = {"EBADF": 9, "EINVAL": 22, "ENOTSOCK": 88}


def expect_fatal(call, error):
    """Lets the call fail for good. The process has to end by itself, name the error, and close its connections."""
    with Server() as server, Client(server) as client:
        client.ask(b"before")
        with Trace(server, call, inject=f"{call}:error={error}:when=1+") as trace:
            poke(server)
            code = server.wait(10)
        expect(code not in (0, 101) and code > 0, f"exit code {code}, stderr {server.errors()!r}")
        server.expect_no_panic()
        expect(f"os error {ERROR_NUMBERS[error]}" in server.errors(), f"stderr does not name {error}: {server.errors()!r}")
        count = trace.expect_injected(1)
        expect(count <= 3, f"{count} calls of {call} before the server gave up")
        server.expect_all_terminated()
        client.read_to_end()
        return f"exit code {code}: {server.errors().strip()}"


def poke(server):
    """Connects once, to wake a sleeping server."""
    try:
        Client(server).close()
    except OSError:
        pass


@check("poll-EINTR", "no events: every request is answered", needs=STRACE)
def poll_interrupted():
    return invisible_faults("epoll_wait:error=EINTR:when=1+2")


@check("recv-EINTR", "read again: every request is answered", needs=STRACE)
def receive_interrupted():
    return invisible_faults("recvfrom:error=EINTR:when=2+3")


@check("send-EINTR", "written again: every request is answered", needs=STRACE)
def send_interrupted():
    return invisible_faults("sendto:error=EINTR:when=2+3")


def invisible_faults(inject):
    """Runs a load under a fault that no client may notice."""
    with Trial() as trial:
        with Trace(trial.server, inject.partition(":")[0], inject=inject) as trace, Load(trial.server, 8) as load:
            load.rounds(30)
            trial.before.ask(b"before, during the fault")
            trial.during()
        count = trace.expect_injected(50)
        expect(load.outcome.ended == 0, f"{load.outcome} although {inject} must not end a connection")
        return f"{count} calls failed, {load.outcome}; {trial.finish()}"


@for_each(("ECONNRESET", "ETIMEDOUT"), "recv", "ends exactly the connections it hits")
def receive_fails(error):
    return faults_that_kill(f"recvfrom:error={error}:when=9+11")


@for_each(("EPIPE", "ECONNRESET"), "send", "ends exactly the connections it hits, without a SIGPIPE")
def send_fails(error):
    return faults_that_kill(f"sendto:error={error}:when=9+11")


def faults_that_kill(inject):
    """Runs a load under a fault that ends one connection each time, and no other."""
    with Trial() as trial:
        with Load(trial.server, 8) as load:
            with Trace(trial.server, inject.partition(":")[0], inject=inject) as trace:
                load.rounds(40)
            load.rounds(1)
            trial.during()
        count = trace.expect_injected(10)
        expect(load.outcome.ended == count, f"{load.outcome}, but {count} calls failed")
        return f"{count} calls failed, {load.outcome}; {trial.finish()}"


@for_each(("ENOBUFS", "ENOMEM"), "send", "sent later or the connection ends; never a spin")
def send_lacks_memory(error):
    with Trial() as trial:
        with Load(trial.server, 8) as load:
            with Trace(trial.server, "sendto", inject=f"sendto:error={error}:when=9+11") as trace:
                load.rounds(40)
            load.rounds(1)
            trial.during()
        count = trace.expect_injected(10)
        expect(load.outcome.ended <= count, f"{load.outcome}, but only {count} calls failed")
        allowed = load.outcome.answered + 20 * count
        expect(trace.count("sendto") <= allowed, f"{trace.count('sendto')} sends for {load.outcome}: a spin")
        return f"{count} calls failed, {load.outcome}, {trace.count('sendto')} sends; {trial.finish()}"


@check("send-EAGAIN", "the answer leaves when the kernel announces space, which takes one epoll_ctl per connection", needs=STRACE)
def send_is_refused():
    count = 40
    with Trial() as trial:
        with Load(trial.server, count) as load:
            # Only a connection's first refusal may be false: after that the kernel announces only changes.
            with Trace(trial.server, "sendto", "epoll_ctl", inject="sendto:error=EAGAIN:when=1+2") as trace:
                load.rounds(1)
            load.rounds(2)
            trial.during()
        refused, watched = trace.expect_injected(count), trace.count("epoll_ctl")
        expect(load.outcome.ended == 0, f"{load.outcome} although a refusal must not end a connection")
        expect(refused == watched == count, f"{watched} epoll_ctl for {refused} refusals on {count} connections")
        return f"{refused} calls refused, {watched} epoll_ctl, {load.outcome}; {trial.finish()}"


@check("room-ENOMEM", "a connection that cannot be registered for writability ends, all others are served", needs=STRACE)
def room_cannot_be_watched():
    count = 40
    with Trial() as trial:
        with Load(trial.server, count) as load:
            inject = "sendto:error=EAGAIN:when=1+8 epoll_ctl:error=ENOMEM:when=1"
            with Trace(trial.server, "sendto", "epoll_ctl", inject=inject) as trace:
                load.rounds(1)
            load.rounds(2)
            trial.during()
        failed = [call.arguments for call in trace.injected() if call.name == "epoll_ctl"]
        expect(len(failed) == 1 and "EPOLL_CTL_MOD" in failed[0], f"another epoll_ctl has failed: {failed}")
        expect(load.outcome.ended == 1, f"{load.outcome}, but one could not be watched")
        return f"1 was not watched, {load.outcome}; {trial.finish()}"


@for_each(("ENOSPC", "ENOMEM"), "register", "that socket is closed before it has a handler, all others are served")
def registration_fails(error):
    with Trial(*ROOMY) as trial:
        with Trace(trial.server, "epoll_ctl", inject=f"epoll_ctl:error={error}:when=2+3") as trace:
            load = Load(trial.server, 20)
            wait_until(lambda: trial.server.descriptors() >= trial.descriptors + 10, 10, "20 clients were not accepted")
            trial.before.ask(b"served all the same")
        with load:
            load.rounds(2)
            trial.during()
        injected = trace.expect_injected(5)
        count = sum("EPOLL_CTL_ADD" in call.arguments for call in trace.injected())
        expect(count >= 3, f"of {injected} calls that failed, {count} were registrations")
        expect(load.outcome.ended == count, f"{load.outcome}, but {count} registrations failed")
        seen = trial.finish()
        expect("made=24 " in seen, f"24 connections were registered, but {seen}")
        counted = re.search(r"\bregister_errors=(\d+)", trial.server.output())
        expect(counted and int(counted[1]) == count, f"{count} registrations failed, {counted and counted[0]} were counted")
        return f"{count} registrations failed, {load.outcome}; {seen}"


@check("setsockopt-EINVAL", "on a connection: tolerated; at the start: a clean error or none", needs=STRACE)
def setsockopt_fails():
    with Trial(*ROOMY) as trial:
        with Trace(trial.server, "setsockopt", inject="setsockopt:error=EINVAL:when=1+") as trace:
            with crowd(trial.server, 20) as clients:
                ask_all(clients, b"served with any options")
            trial.during()
        per_connection = len(trace.injected())
        seen = trial.finish()
    starts = [start_with_failing_option(number) for number in range(1, 7)]
    return f"{per_connection} failed for 21 connections; 1st to 6th at the start: {', '.join(starts)}; {seen}"


def start_with_failing_option(number):
    """Returns whether the server starts although its n-th setsockopt fails."""
    inject = f"inject=setsockopt:error=EINVAL:when={number}"
    prefix = ("strace", "-D", "-f", "-o", "/dev/null", "-e", "trace=setsockopt", "-e", inject)
    try:
        with Server(prefix=prefix) as server, Client(server) as client:
            client.ask(b"started")
            client.close()
            server.stop()
            return "started"
    except StartFailed as failed:
        expect(failed.code > 0 and "panicked" not in failed.errors, f"setsockopt {number}: {failed}")
        expect("os error 22" in failed.errors, f"setsockopt {number}: the message does not name EINVAL: {failed}")
        return "refused"


@check("calls-per-request", "depth 1: 1 recv, 1 send, at most 1 epoll_wait, 0 epoll_ctl; 20 connects: 20 registrations", needs=STRACE)
def calls_at_depth_one():
    requests = 1000
    with Trial() as trial:
        with Trace(trial.server) as trace:
            for number in range(requests):
                trial.before.ask(b"request %d" % number)
        expect_calls(trace, requests, {"recvfrom": 1, "sendto": 1, "epoll_wait": 1})
        with Trace(trial.server, "epoll_ctl") as entries:
            for _ in range(19):
                with Client(trial.server) as client:
                    client.ask(b"one registration")
            trial.during()
        added = sum("EPOLL_CTL_ADD" in call.arguments for call in entries.calls)
        asked = entries.count("epoll_ctl") - added
        expect(added == 20 and asked <= 20, f"{added} registrations and {asked} other epoll_ctl for 20 connections")
        return f"{summary(trace)} for {requests} requests; {summary(entries)} for 20 connections; {trial.finish()}"


@check("accepts-per-connection", "20 connects, one after the other: at most 4 accepts that find no client", needs=("gcc",))
def accepts_per_connection():
    """Counts in the process, because a tracer makes each turn long, and a long turn allows one more accept."""
    with interposed() as run:
        for _ in range(20):
            with Client(run.trial.server) as client:
                client.ask(b"one accept")
        run.trial.during()
        seen = run.finish()
        accepts, made = (int(re.search(rf"\b{name}=(\d+)", seen)[1]) for name in ("accepts", "made"))
        # The last accept, of the drain, has to find no client.
        wasted = accepts - made - 1
        expect(wasted <= 4, f"{accepts} accepts for {made} connections, so {wasted} found no client")
        return f"{accepts} accepts for {made} connections; {seen}"


@check("calls-at-depth-64", "64 packets in one segment: 1 recv, 1 send, at most 1 epoll_wait", needs=STRACE)
def calls_at_depth_64():
    batches = 300
    batch = frame(b"x" * 64) * 64
    with Trial() as trial:
        with Trace(trial.server) as trace:
            for _ in range(batches):
                trial.before.send(batch)
                expect(trial.before.receive(len(batch)) == batch, "a batch came back changed")
        expect_calls(trace, batches, {"recvfrom": 1, "sendto": 1, "epoll_wait": 1})
        trial.during()
        return f"{summary(trace)} for {batches} x 64 packets; {trial.finish()}"


def expect_calls(trace, requests, each):
    """Checks that there are at most `each` calls per request, and nearly no other calls."""
    spare = 10 + requests // 50
    for name in sorted({call.name for call in trace.calls}):
        allowed = each.get(name, 0) * requests + (spare if name in each else 3)
        expect(trace.count(name) <= allowed, f"{trace.count(name)} {name} for {requests} requests; all: {summary(trace)}")
    if trace.count("recvfrom") < requests:
        raise Failure(f"the trace is incomplete: {summary(trace)}")


def summary(trace):
    """Counts the calls by name."""
    return ", ".join(f"{trace.count(name)} {name}" for name in sorted({call.name for call in trace.calls}))
