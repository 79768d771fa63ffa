"""`resp` against the tools of Redis, redis-py and hiredis, and beside a real `redis-server`."""

import csv
import io
import pathlib
import socket

from lib import HERE, HOST, Failed, Missing, check, demand, run, tool

# Both servers must print the same.
SESSION = """\
PING
ping there
ECHO "a b\\x41"
GET none
SET a 1
GET a
INCR a
INCR counter
INCRBY counter -5
INCRBY counter x
SET text "not a number"
INCR text
MSET b two c three
MGET a b none c
DEL a b none
MGET a b c
SET c x NX
SET d x XX
SET d first NX
SET d second XX
GET d
SET e x EX 100
GET e
SET e x EX 0
SET e x EX many
SET e x EX
SET e x PX 100000
SET e x EX 9223372036854775807
GET
GET a b
MSET a
MSET a b c
nothing at all
nothing
SUBSCRIBE
CONFIG GET appendonly
CONFIG GET nosuchsetting
CONFIG GET
SELECT 0
SELECT nothing
UNSUBSCRIBE
CLIENT SETNAME checks
DEL c d e text counter
"""

# What no client library sends. Each goes over a connection of its own, which a PING begins. Where
# Redis closes the connection, so must `resp`.
MALFORMED = [
    b"*0\r\n*-1\r\n\r\nPING\r\n",
    b"*x\r\n",
    b"*1\r\n$-1\r\n",
    b"*1\r\n$x\r\n",
    b"*1\r\nPING\r\n",
    b"*2\r\n$3\r\nGET\r\n$2147483648\r\n",
    b"*1\r\n$4\r\nPINGxx*1\r\n$4\r\nPING\r\n",
    b"*3\r\n$3\r\nSET\r\n$1\r\na\r\n$1\r\nb??GET a\r\nDEL a\r\n",
    b"*1\r\n$0\r\n\r\n",
    b"ping 'x\r\n",
    b"ping \"x\"y\r\n",
    b"*2\r\n$4\r\nECHO\r\n$4\r\n\r\n\r\n\r\n",
]


def redis(scope, pin=None):
    """A real server without persistence, on one thread."""
    command = [tool("redis-server", "redis-server"), "--port", "@PORT@", "--bind", HOST]
    command += ["--save", "", "--appendonly", "no", "--io-threads", "1", "--dir", scope.directory]
    return scope.listening(command, "redis-server", pin)


def cli(port, *words, **options):
    return run([tool("redis-cli", "redis-tools"), "-p", port, *words], 30, **options)


def session(scope, port):
    """Returns what redis-cli prints for each line of the session."""
    path = scope.directory / "session"
    printed = {}
    for nth, line in enumerate(SESSION.splitlines()):
        path.write_text(line + "\n")
        with open(path, "rb") as lines:
            printed[nth, line] = cli(port, stdin=lines)
    return printed


def raw(port, data):
    """Sends a PING and bytes, and returns everything that the server sends until it closes."""
    with socket.create_connection((HOST, port), 10) as connection:
        connection.sendall(b"PING\r\n" + data)
        connection.shutdown(socket.SHUT_WR)
        received = b""
        while piece := connection.recv(65_536):
            received += piece
    return received


@check("resp: redis-cli prints the same as with a redis-server")
def same_as_redis(scope):
    _, ours = scope.example("resp")
    _, theirs = redis(scope)
    own, real = session(scope, ours), session(scope, theirs)
    for line, expected in real.items():
        demand(own[line] == expected, f"{line}: resp {own[line]!r}, redis {expected!r}")
    for data in MALFORMED:
        answers = raw(ours, data), raw(theirs, data)
        demand(answers[0].startswith(b"+PONG\r\n"), f"{data}: {answers[0]}")
        demand(answers[0] == answers[1], f"{data}: resp {answers[0]}, redis {answers[1]}")
    return f"{len(real)} commands, {len(MALFORMED)} malformed requests"


@check("resp: redis-cli publishes, reads values and quits")
def commands(scope):
    server, port = scope.example("resp")
    listener = scope.start(tool("redis-cli", "redis-tools"), "-p", port, "subscribe", "a", "b")
    listener.wait_until(lambda: listener.output().count("subscribe") == 2, "subscribes")
    demand(cli(port, "publish", "b", "it rains").strip() == "1", "one subscriber is counted")
    listener.wait_until(lambda: "it rains" in listener.output(), "gets the message")
    value = scope.directory / "value"
    value.write_bytes(bytes(range(256)) * 4_000)
    with open(value, "rb") as stdin:
        demand(cli(port, "-x", "set", "long", stdin=stdin).strip() == "OK", "a long value is set")
    printed = cli(port, "--no-raw", "get", "long")
    demand(printed.count("\\xff") == 4_000, f"{len(printed)} characters of the value")
    demand("connected_clients:2" in cli(port, "info"), "INFO counts the clients")
    demand(cli(port, "quit").strip() == "OK", "QUIT is answered")
    demand(server.stop() == 0, f"resp failed\n{server.output()}")
    return "subscribe, publish, a value of 1 MB, INFO, QUIT"


@check("resp: redis-benchmark")
def benchmark(scope):
    server, port = scope.example("resp")
    command = [tool("redis-benchmark", "redis-tools"), "-p", port, "--csv", "-r", "1000"]
    command += ["-t", "ping,set,get,incr,mset"]
    rows = 0
    for length, requests in [(3, 100_000), (20_000, 10_000)]:
        for pipeline in [1, 16]:
            printed = run([*command, "-d", length, "-P", pipeline, "-n", requests], 60)
            tests = list(csv.reader(io.StringIO(printed)))[1:]
            demand(len(tests) == 6, f"redis-benchmark ended early\n{printed}")
            demand(all(float(test[1]) > 0 for test in tests), printed)
            rows += len(tests)
    demand(server.stop() == 0, f"resp failed\n{server.output()}")
    return f"{rows} runs, values of 3 and of 20,000 bytes, pipelines of 1 and of 16"


def redis_py():
    try:
        import redis as library
    except ImportError:
        raise Missing(
            "redis-py is not installed: tests/interop/install (package python3-redis)"
        ) from None
    return library


@check("resp: redis-py, a pipeline and publish and subscribe")
def python_client(scope):
    library = redis_py()
    server, port = scope.example("resp")
    client = library.Redis(HOST, port, socket_timeout=20)
    demand(client.ping() and client.set("k", "v", ex=100) and client.get("k") == b"v", "basics")
    demand(client.mset({"a": 1, "b": b"\0\r\n"}) and client.mget("a", "b") == [b"1", b"\0\r\n"], "mset")
    demand(client.delete("a", "k", "none") == 2 and client.info()["connected_clients"] == 1, "del")
    pipeline = client.pipeline(transaction=False)
    for nth in range(10_000):
        pipeline.set(f"key{nth}", "x" * (nth % 2_000)).get(f"key{nth}")
    answers = pipeline.execute()
    values = [b"x" * (nth % 2_000) for nth in range(10_000)]
    demand(answers[1::2] == values and all(answers[::2]), "the pipeline's answers")
    try:
        client.incr("key1")
        raise Failed("INCR of a text has no error")
    except library.ResponseError as error:
        demand("not an integer" in str(error), str(error))
    # A `with` for each: what is subscribed leaves with its connection.
    with client.pubsub(ignore_subscribe_messages=False) as news:
        news.subscribe("one", "two")
        demand([news.get_message(timeout=10)["data"] for _ in range(2)] == [1, 2], "counts")
        sent = [str(nth).encode() for nth in range(2_000)]
        demand({client.publish("one", text) for text in sent} == {1}, "subscribers")
        demand([news.get_message(timeout=10)["data"] for _ in sent] == sent, "messages in order")
        news.ping()
        demand(news.get_message(timeout=10)["type"] == "pong", "PING of a subscriber")
        news.unsubscribe()
        demand([news.get_message(timeout=10)["data"] for _ in range(2)] == [1, 0], "counts again")
    demand(client.publish("one", "x") == 0, "no one is left")
    client.close()
    demand(server.stop() == 0, f"resp failed\n{server.output()}")
    return f"redis-py {library.__version__}: 20,000 pipelined, {len(sent):,} messages"


@check("resp: hiredis")
def c_client(scope):
    _, port = scope.example("resp")
    source = HERE / "peers" / "hiredis_session.c"
    demand_header()
    binary = scope.directory / "hiredis_session"
    run([tool("cc", "gcc"), "-O1", "-Wall", "-Werror", "-o", binary, source, "-lhiredis"])
    return run([binary, port], 30).strip()


def demand_header():
    if not any(pathlib.Path(place, "hiredis/hiredis.h").exists() for place in INCLUDES):
        raise Missing("hiredis is not installed: tests/interop/install (package libhiredis-dev)")


INCLUDES = ["/usr/include", "/usr/local/include"]
