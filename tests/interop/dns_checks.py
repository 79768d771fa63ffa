"""`dns_tcp` against clients and servers of other projects."""

import concurrent.futures
import re
import socket
import struct
import time

from lib import HOST, ZONE, Missing, check, demand, run, tool, wait_for

TYPES = ["A", "AAAA", "CNAME", "TXT", "MX", "NS", "SOA", "SRV", "ANY", "DS"]

# Each name of the sample zone, and other names: names that do not exist, names of a wildcard, names
# below a delegation, names outside the zone, and names in upper case.
NAMES = """
@ ns1 ns2 mail mail.backup backup www mixedcase MIXEDcase _xmpp._tcp _tcp im text long nullmx
odd\\.label a.b.c.d b.c.d c.d d x.a.b.c.d x.d
alias ALIAS chain1 chain2 chain3 away dangling circle1 self towild tosub
wild any.wild any.Thing.wild *.wild host.wild x.host.wild x.aliases x.y.aliases aliases *.aliases
sub host.sub ns.sub deep.host.sub far x.far
nothing no.thing www.www x.www
""".split()
FOREIGN = [".", "org.", "example.", "www.example.com.", "xexample.org.", "example.org.example."]


def questions():
    """Every name with every type: `[(name, type)]`."""
    names = ["example.org." if n == "@" else f"{n}.example.org." for n in NAMES] + FOREIGN
    return [(name, rtype) for name in names for rtype in TYPES]


def parse_answer(text):
    """Parses a message that dig, kdig or drill printed: code, flags, sections of record sets."""
    status = re.search(r"->>HEADER<<-.*?(?:status|rcode): (\w+)", text)
    flags = re.search(r"^;; [Ff]lags: ([a-z ]*?) ?;", text, re.M)
    demand(status and flags, f"no answer in\n{text}")
    answer = {"rcode": status[1], "aa": "aa" in flags[1].split(), "edns": None}
    edns = re.search(r"EDNS[\s\w:;]*? [Vv]ersion: (\d+)[;,] flags:([ a-z]*);", text)
    if edns:
        answer["edns"] = (edns[1], edns[2].strip())
    for section in ["ANSWER", "AUTHORITY", "ADDITIONAL"]:
        body = re.search(rf"^;; {section} SECTION:\n((?:[^;\n].*\n)*)", text, re.M)
        lines = body[1].splitlines() if body else []
        records = sorted(" ".join(line.split()) for line in lines)
        answer[section.lower()] = [normal(record) for record in records]
    return answer


def normal(record):
    """Puts the owner into lower case, because servers may repeat the spelling of the question."""
    owner, rest = record.split(" ", 1)
    return f"{owner.lower()} {rest}"


DIG = ("dig", "bind9-dnsutils", ["+tcp", "+norecurse", "+tries=1", "+time=5", "+noidnin"])
KDIG = ("kdig", "knot-dnsutils", ["+tcp", "+norec", "+edns=0", "+dnssec", "+retry=0", "+noidn"])
DRILL = ("drill", "ldnsutils", ["-t", "-o", "rd"])


def command(client, port, name, rtype):
    program, package, options = client
    path = tool(program, package)
    if program == "drill":
        return [path, *options, "-p", port, name, f"@{HOST}", rtype]
    return [path, f"@{HOST}", "-p", port, *options, "-t", rtype, "-q", name]


def differential(scope, client, theirs, asked, keys):
    """Sends every question to both servers with one client, and demands equal answers."""
    demand(len(asked) >= 200, f"only {len(asked)} questions")
    _, ours = scope.example("dns_tcp", "--zone", ZONE)

    def ask(question):
        texts = [run(command(client, port, *question), 20) for port in (ours, theirs)]
        mine, other = map(parse_answer, texts)
        different = [key for key in keys if mine[key] != other[key]]
        return (
            [f"{question}: {k}: {mine[k]} and not {other[k]}" for k in different],
            sum(len(other[key]) for key in ("answer", "authority", "additional")),
        )

    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        told = list(pool.map(ask, asked))
    wrong = [line for lines, _ in told for line in lines]
    records = sum(count for _, count in told)
    demand(not wrong, f"{len(wrong)} differences:\n" + "\n".join(wrong[:20]))
    demand(records > len(asked), f"{records} records in all: the output was not parsed")
    return f"{len(asked)} questions, {records} records, no difference"


ALL_KEYS = ["rcode", "aa", "edns", "answer", "authority", "additional"]


ALL_KEYS = ["rcode", "aa", "edns", "answer", "authority", "additional"]


@check("dns: dig sees no difference from Knot")
def dig_knot(scope):
    return differential(scope, DIG, scope.knot()[1], questions(), ALL_KEYS)


@check("dns: kdig sees no difference from Knot")
def kdig_knot(scope):
    return differential(scope, KDIG, scope.knot()[1], questions(), ALL_KEYS)


@check("dns: drill sees no difference from Knot")
def drill_knot(scope):
    return differential(scope, DRILL, scope.knot()[1], questions(), ALL_KEYS)


@check("dns: dig sees the answers of NSD")
def dig_nsd(scope):
    # The two references differ in three ways, which are all allowed. NSD adds no addresses to answers
    # about MX and SRV, chooses another set for ANY, and gives up on a cycle of aliases one step earlier.
    asked = [(n, t) for n, t in questions() if t != "ANY" and not n.startswith("circle")]
    return differential(scope, DIG, scope.nsd()[1], asked, ALL_KEYS[:-1])


def exchange(port, wire, wait=2):
    """Sends one message on a new connection. Returns the answer, or None if there is none."""
    with socket.create_connection((HOST, port), wait) as s:
        s.settimeout(wait)
        s.sendall(struct.pack("!H", len(wire)) + wire)
        try:
            return receive(s)
        except TimeoutError:
            return None


def receive(s):
    head = s.recv(2, socket.MSG_WAITALL)
    if len(head) < 2:
        return None
    return s.recv(struct.unpack("!H", head)[0], socket.MSG_WAITALL)


@check("dns: what is malformed gets FORMERR, what is not a query NOTIMP")
def malformed(scope):
    _, port = scope.example("dns_tcp", "--zone", ZONE)
    question = b"\3www\7example\3org\0\0\1\0\1"

    def header(flags=0, qd=1, an=0, ns=0, ar=0):
        return struct.pack("!6H", 0x1234, flags, qd, an, ns, ar)

    def opt(version=0, data=b"", owner=b"\0"):
        return owner + struct.pack("!HHBBHH", 41, 1232, 0, version, 0, len(data)) + data

    noerror, formerr, notimp, refused = 0, 1, 4, 5
    cases = {
        "two bytes": (b"\x12\x34", formerr),
        "eleven bytes": (header()[:11], formerr),
        "no question": (header(qd=0), formerr),
        "two questions": (header(qd=2) + question * 2, formerr),
        "question missing": (header(), formerr),
        "name cut short": (header() + question[:5], formerr),
        "type cut short": (header() + question[:-3], formerr),
        "label of 64": (header() + b"\x40" + b"a" * 64 + b"\0\0\1\0\1", formerr),
        "pointer to itself": (header() + b"\xc0\x0c\0\1\0\1", formerr),
        "name of 256": (header() + (b"\x3f" + b"a" * 63) * 4 + b"\0\0\1\0\1", formerr),
        "name of 255": (
            header() + (b"\x3f" + b"a" * 63) * 3 + b"\x3d" + b"a" * 61 + b"\0\0\1\0\1",
            refused,
        ),
        "bytes left over": (header() + question + b"xx", formerr),
        "OPT announced, not there": (header(ar=1) + question, formerr),
        "OPT twice": (header(ar=2) + question + opt() * 2, formerr),
        "OPT as an answer": (header(an=1) + question + opt(), formerr),
        "OPT of a name": (header(ar=1) + question + opt(owner=b"\1a\0"), formerr),
        "OPT with half an option": (header(ar=1) + question + opt(data=b"\0\x0a\0\x08ab"), formerr),
        "OPT version 1": (header(ar=1) + question + opt(1), noerror),  # BADVERS (16) is in OPT
        "class CH": (header() + question[:-1] + b"\3", refused),
        "IQUERY": (header(1 << 11) + question, notimp),
        "NOTIFY": (header(4 << 11) + question, notimp),
        "UPDATE": (header(5 << 11) + question, notimp),
        "opcode 15 and junk": (header(15 << 11) + b"\xff\xff", notimp),
        "all flags": (header(0x07F0) + question, noerror),
    }
    for name, (wire, want) in cases.items():
        answer = exchange(port, wire)
        demand(answer is not None, f"{name}: no answer")
        demand(answer[:2] == b"\x12\x34", f"{name}: the id is {answer[:2].hex()}")
        demand(answer[2] & 0x80, f"{name}: not marked as an answer")
        demand(answer[3] & 15 == want, f"{name}: code {answer[3] & 15} and not {want}")
        if name == "OPT version 1":
            demand(answer[-11:-5] == b"\0\0\x29\x04\xd0\x01", f"{name}: {answer.hex()}")
    demand(exchange(port, header(0x8000) + question, 0.5) is None, "an answer was answered")
    demand(exchange(port, b"\x12", 0.5) is None, "one byte was answered")
    return f"{len(cases) + 2} cases"


def query_file(scope, count=None):
    """Writes the queries of a benchmark: half of the names exist."""
    lines = [f"{n} {t}" for n in ["www", "mail", "ns1", "text", "alias"] for t in ["A", "AAAA"]]
    lines += [f"no{i} A" for i in range(10)]
    lines = [line.replace(" ", ".example.org ", 1) for line in lines]
    if count is not None:
        lines = (lines * (count // len(lines) + 1))[:count]
    path = scope.directory / "queries"
    path.write_text("\n".join(lines) + "\n")
    return path


def dnsperf(port, queries, clients, *options):
    """Runs dnsperf. Returns its statistics by name."""
    path = tool("dnsperf", "dnsperf")
    address = ["-s", HOST, "-p", port, "-m", "tcp", "-d", queries, "-c", clients]
    text = run([path, *address, *options], 180)
    figures = dict(re.findall(r"^ +([A-Z][\w ()]+):\s+([\d.]+)", text, re.M))
    demand("Queries lost" in figures, f"dnsperf printed\n{text}")
    figures["text"] = text
    return figures


def dnsperf_check(clients):
    @check(f"dns: dnsperf over {clients} connections loses nothing")
    def perf(scope):
        server, port = scope.example("dns_tcp", "--zone", ZONE)
        outstanding = max(100, clients)
        figures = dnsperf(port, query_file(scope), clients, "-l", "5", "-q", outstanding)
        lost, sent = int(figures["Queries lost"]), int(figures["Queries sent"])
        demand(lost == 0, f"{lost} of {sent} lost")
        demand(sent > 1000, f"only {sent} queries in 5 s")
        codes = set(re.findall(r"([A-Z]{5,}) \d+ \(", figures["text"]))
        demand(codes == {"NOERROR", "NXDOMAIN"}, f"codes {codes}")
        rate, latency = float(figures["Queries per second"]), figures["Average Latency (s)"]
        return f"{sent} queries, {rate:.0f} a second, {latency} s on average"


for connections in (1, 100, 1000):
    dnsperf_check(connections)


@check("dns: dnstcpbench makes 20,000 connections and the descriptors come back")
def dnstcpbench(scope):
    path = tool("dnstcpbench", "pdns-tools")
    server, port = scope.example("dns_tcp", "--zone", ZONE)
    demand(exchange(port, b"\x12\x34") is not None, "no answer")  # before the count of descriptors
    wait_for(lambda: server.fds() < 100, 5, "descriptors")
    before = server.fds()
    queries = query_file(scope, 20_000)
    # Its default timeout of 10 ms is too short: a busy machine may take longer to run a process.
    options = ["--workers", "1", "--timeout-msec", "2000"]
    text = run([path, "-f", queries, *options, HOST, port], 300)
    wait_for(lambda: server.fds() <= before, 15, f"descriptors: {before} before")
    for what, count in [("OK", 20_000), ("network errors", 0), ("other errors", 0), ("Timeouts", 0)]:
        demand(re.search(rf"\b{what}: {count}\b", text), f"{what} is not {count}:\n{text}")
    return f"{before} descriptors before, {server.fds()} after"


@check("dns: dnspython pipelines 100 queries, then closes its half")
def half_close(scope):
    message = dnspython()
    _, port = scope.example("dns_tcp", "--zone", ZONE)
    queries = [message.make_query(f"{n}.example.org", "A") for n in ["www", "no"] * 50]
    for id_, query in enumerate(queries):
        query.id = id_
    wires = [query.to_wire() for query in queries]
    with socket.create_connection((HOST, port), 10) as s:
        s.sendall(b"".join(struct.pack("!H", len(wire)) + wire for wire in wires))
        s.shutdown(socket.SHUT_WR)
        for query in queries:
            wire = receive(s)
            demand(wire is not None, f"the connection ended before answer {query.id}")
            answer = message.from_wire(wire)
            demand(query.is_response(answer), f"answer {answer.id} is none to {query.id}")
        demand(s.recv(1) == b"", "bytes after the last answer")
    return "100 answers in order, then the end"


@check("dns: dnspython sends a query byte by byte")
def byte_by_byte(scope):
    message = dnspython()
    _, port = scope.example("dns_tcp", "--zone", ZONE)
    with socket.create_connection((HOST, port), 10) as s:
        s.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for name in ["www.example.org", "nothing.example.org", "x.y.wild.example.org"]:
            query = message.make_query(name, "A", use_edns=0)
            wire = query.to_wire()
            for byte in struct.pack("!H", len(wire)) + wire:
                s.sendall(bytes([byte]))
            answer = message.from_wire(receive(s))
            demand(query.is_response(answer), f"{name}: another answer\n{answer}")
    return "3 queries"


@check("dns: an idle connection is closed, a busy one is not")
def idle(scope):
    _, port = scope.example("dns_tcp", "--zone", ZONE, "--idle", "1000")
    query = b"\x12\x34\0\0\0\1\0\0\0\0\0\0\3www\7example\3org\0\0\1\0\1"
    wire = struct.pack("!H", len(query)) + query
    with socket.create_connection((HOST, port), 5) as busy:
        silent = socket.create_connection((HOST, port), 5)
        for _ in range(7):
            time.sleep(0.3)
            # The silence begins later than this, so a delay here cannot make it look short.
            started = time.monotonic()
            busy.sendall(wire)
            demand(receive(busy) is not None, "a busy connection was closed")
        demand(silent.recv(1) == b"", "bytes out of nothing")
        silent.close()
        demand(busy.recv(1) == b"", "bytes out of nothing")
        took = time.monotonic() - started
        demand(1 <= took < 2, f"closed after {took:.2f} s of silence and not 1 s")
    return f"closed after {took:.2f} s of silence"


def dnspython():
    try:
        import dns.message
    except ImportError:
        raise Missing("dnspython is not installed: tests/interop/install") from None
    return dns.message

