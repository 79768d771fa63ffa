"""Compares `resp` with a real `redis-server`: CPU a request, and a second client's latency."""

import pathlib
import socket
import statistics
import subprocess
import sys
import tempfile
import time

from lib import HOST, Scope, demand, run, tool
from resp_checks import cli, redis

SERVER_CORE, LOAD_CORE = 0, 1

# Command, length of the value, pipeline, requests of one measurement: about half a second each.
CELLS = [
    ("GET", 3, 1, 50_000),
    ("SET", 3, 1, 50_000),
    ("GET", 1_000, 1, 50_000),
    ("GET", 20_000, 1, 40_000),
    ("GET", 250_000, 1, 6_000),
    ("GET", 3, 16, 600_000),
    ("SET", 3, 16, 600_000),
    ("GET", 1_000, 16, 600_000),
    ("GET", 20_000, 16, 80_000),
    ("GET", 250_000, 16, 6_000),
]


def benchmark(port, command, length, pipeline, requests):
    load = ["taskset", "-c", LOAD_CORE, tool("redis-benchmark", "redis-tools"), "-p", port, "-q"]
    load += ["-c", 50, "-t", command.lower(), "-d", length, "-P", pipeline, "-n", requests]
    run(load, 120)


def cpu_a_request(server, port, cell):
    """User and system time of the server, in nanoseconds a request."""
    before = server.cpu_seconds()
    benchmark(port, *cell)
    return (server.cpu_seconds() - before) / cell[-1] * 1e9


def ping_p99(port, seconds):
    """The 99th percentile of a client's PING, in microseconds, while others get values of 1 MB."""
    load = ["taskset", "-c", str(LOAD_CORE), tool("redis-benchmark", "redis-tools"), "-p", str(port)]
    load += ["-q", "-c", "4", "-t", "get", "-d", "1000000", "-n", "100000000"]
    with subprocess.Popen(load, stdout=subprocess.DEVNULL) as others:
        try:
            time.sleep(0.3)
            return percentile(port, seconds)
        finally:
            others.kill()


def percentile(port, seconds):
    times = []
    with socket.create_connection((HOST, port), 10) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        end = time.monotonic() + seconds
        while (start := time.monotonic()) < end:
            connection.sendall(b"PING\r\n")
            demand(connection.recv(64) == b"+PONG\r\n", "a PING without its answer")
            times.append(time.monotonic() - start)
    return statistics.quantiles(times, n=100)[98] * 1e6


def measure(rounds, seconds, cells):
    """Returns for each cell the pairs of figures of all rounds: resp and redis in turn."""
    results = {cell: [] for cell in cells}
    latencies = []
    with tempfile.TemporaryDirectory(prefix="condor-figures-") as directory:
        with Scope(pathlib.Path(directory)) as scope:
            servers = [scope.example("resp", pin=SERVER_CORE), redis(scope, SERVER_CORE)]
            for cell in cells:
                for _, port in servers:
                    benchmark(port, "set", cell[1], 1, 1_000)
                for round_ in range(rounds):
                    turn = servers if round_ % 2 == 0 else servers[::-1]
                    found = {port: cpu_a_request(server, port, cell) for server, port in turn}
                    results[cell].append(tuple(found[port] for _, port in servers))
                report(cell, results[cell])
            for _, port in servers:
                benchmark(port, "set", 1_000_000, 1, 100)
            for round_ in range(rounds):
                turn = servers if round_ % 2 == 0 else servers[::-1]
                found = {port: ping_p99(port, seconds) for _, port in turn}
                latencies.append(tuple(found[port] for _, port in servers))
            report("PING p99", latencies)
            version = cli(servers[1][1], "info", "server").split("redis_version:")[1].split()[0]
    return results, latencies, version


def report(what, pairs):
    print(f"{what}: {figures(pairs)}", file=sys.stderr, flush=True)


def figures(pairs):
    """The medians of both, and the median and the range of their ratios."""
    ours, theirs = (statistics.median(pair[nth] for pair in pairs) for nth in (0, 1))
    ratios = [own / other for own, other in pairs]
    of = f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"
    return ours, theirs, of


def table(rounds, seconds, cells, heading):
    results, latencies, version = measure(rounds, seconds, cells)
    lines = [
        f"{heading} redis-server {version} (one thread, no persistence). One core for the server, one "
        f"for redis-benchmark with 50 connections, over loopback; medians of {rounds} rounds, the "
        "servers in turn. CPU is user and system time.",
        "",
        "| command, value | pipeline | `resp`, a request | redis-server | ratio (range) |",
        "|---|---:|---:|---:|---:|",
    ]
    for (command, length, pipeline, _), pairs in results.items():
        ours, theirs, ratio = figures(pairs)
        lines.append(
            f"| {command}, {length:,} B | {pipeline} | {ours / 1e3:.2f} µs | {theirs / 1e3:.2f} µs "
            f"| {ratio} |"
        )
    ours, theirs, ratio = figures(latencies)
    lines.append(
        f"| PING, p99 beside 4 clients that get 1 MB | 1 | {ours:,.0f} µs | {theirs:,.0f} µs | {ratio} |"
    )
    lines += [
        "",
        "Redis does more for each request than `resp` does: types, eviction, statistics a command, a slow "
        "log, access lists, clients' limits, replication. Most of both figures is the kernel's.",
    ]
    return "\n".join(lines)
