"""`dnstap_collector` receives the Frame Streams of a real resolver."""

import re
import time

from dns_checks import dnsperf, query_file
from lib import ZONE, accepts, check, demand, free_port, tool

QUERIES = 10_000


def counts(text):
    """Returns the last line of counts: all frames, and the frames of each type."""
    lines = re.findall(r"^(?:total )?(\d+) frames(?:: (.*))?$", text, re.M)
    demand(lines, f"no counts in\n{text}")
    total, kinds = lines[-1]
    return int(total), {k: int(n) for k, n in re.findall(r"(\w+) (\d+)", kinds)}


@check("dnstap: 10,000 queries to Unbound are 20,000 frames at the collector")
def unbound(scope):
    daemon = tool("unbound", "unbound")
    authority, upstream = scope.example("dns_tcp", "--zone", ZONE)
    collector, sink = scope.example("dnstap_collector")
    port = free_port()
    conf = scope.configure(
        "unbound.conf", PORT=port, UPSTREAM=upstream, COLLECTOR=sink, DIR=scope.directory
    )
    resolver = scope.start(daemon, "-d", "-c", conf)
    resolver.wait_until(lambda: accepts(port), "listens")
    resolver.wait_until(lambda: "dnstap" in collector.output(), "reaches the collector", 10)
    queries = query_file(scope, QUERIES)
    figures = dnsperf(port, queries, 10, "-n", "1", "-Q", "2500", "-q", "50")
    demand(int(figures["Queries sent"]) == QUERIES, f"{figures['Queries sent']} queries sent")
    demand(int(figures["Queries lost"]) == 0, f"{figures['Queries lost']} queries lost")
    collector.wait_until(
        lambda: counts(collector.output())[0] >= 2 * QUERIES, "counts the frames", 15
    )
    time.sleep(1.5)  # so that surplus frames are counted, too
    resolver.stop()
    collector.wait_until(lambda: "finished" in collector.output(), "sees the stream finish", 10)
    demand(collector.stop() == 0, f"the collector failed\n{collector.output()}")
    total, kinds = counts(collector.output())
    want = {"CLIENT_QUERY": QUERIES, "CLIENT_RESPONSE": QUERIES}
    demand(total == 2 * QUERIES and kinds == want, f"{total} frames: {kinds}")
    demand(re.search(r"^total ", collector.output(), re.M), "no total after SIGTERM")
    return f"{total} frames: {kinds}"
