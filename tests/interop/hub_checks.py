"""Three `hub`s that share their topics through a real `redis-server`, which is stopped and started."""

import contextlib
import re
import selectors
import signal
import socket
import threading
import time

from lib import HOST, check, demand, free_port, tool, wait_for
from resp_checks import cli

TOPICS = ["news", "sport"]


class Redis:
    """A server on one port, which may be stopped and started."""

    def __init__(self, scope, *options):
        self.scope, self.port, self.options = scope, free_port(), options

    def start(self):
        command = [tool("redis-server", "redis-server"), "--port", self.port, "--bind", HOST]
        command += ["--save", "", "--appendonly", "no", "--dir", self.scope.directory]
        self.process = self.scope.start(*command, *self.options)
        self.process.wait_until(lambda: "Ready to accept" in self.process.output(), "starts")

    def stop(self):
        self.process.stop()

    def kill(self):
        self.process.popen.kill()
        self.process.popen.wait()

    def subscribers(self, topic):
        return int(cli(self.port, "pubsub", "numsub", topic).split()[1])


class Hub:
    """A hub, one subscriber and one publisher of each topic."""

    def __init__(self, scope, number, redis, *arguments):
        self.number = number
        redis = f"{HOST}:{redis.port}"
        self.process, self.port = scope.example("hub", "--redis", redis, *arguments)
        self.received = {topic: [] for topic in TOPICS}
        self.published = 0
        self.subscriber = self.connect(scope)
        self.publisher = self.connect(scope)
        self.subscriber.sendall("".join(f"SUB {topic}\n" for topic in TOPICS).encode())
        self.rest = b""

    def connect(self, scope):
        connection = socket.create_connection((HOST, self.port), 20)
        return scope.enter_context(contextlib.closing(connection))

    def publish(self, count):
        """Publishes `count` numbers to each topic."""
        numbers = range(self.published, self.published + count)
        lines = [f"PUB {t} {self.number} {n}\n" for n in numbers for t in TOPICS]
        self.publisher.sendall("".join(lines).encode())
        self.published += count

    def read(self):
        lines = (self.rest + self.subscriber.recv(65_536)).split(b"\n")
        self.rest = lines.pop()
        for line in lines:
            _, topic, hub, number = line.decode().split()
            self.received[topic].append((int(hub), int(number)))

    def figures(self):
        """What the last line of the log with figures says."""
        line = [line for line in self.process.output().splitlines() if "to Redis" in line][-1]
        names = ["to Redis", "from Redis", "only here", "in doubt", "dropped"]
        return {name: int(re.search(f"{name} ([0-9]+)", line).group(1)) for name in names}

    def is_away(self):
        """Whether its log says last that Redis is away."""
        return self.process.output().rfind("redis: away") > self.process.output().rfind("redis: up")

    def stop(self):
        self.publisher.close()
        self.subscriber.close()
        demand(self.process.stop() == 0, self.process.output())


class Reader(threading.Thread):
    """Reads what all subscribers get."""

    def __init__(self, hubs):
        super().__init__(daemon=True)
        self.hubs, self.ends = hubs, False

    def run(self):
        with selectors.DefaultSelector() as selector:
            for hub in self.hubs:
                selector.register(hub.subscriber, selectors.EVENT_READ, hub)
            while not self.ends:
                for key, _ in selector.select(0.05):
                    key.data.read()


class World:
    """Three hubs, and what has to be true of them."""

    def __init__(self, scope, arguments=(), options=()):
        self.redis = Redis(scope, *options)
        self.redis.start()
        self.hubs = [Hub(scope, number, self.redis, *arguments) for number in range(3)]
        self.reader = Reader(self.hubs)
        self.reader.start()
        scope.callback(self.end)

    def end(self):
        self.reader.ends = True
        self.reader.join()

    def whole(self):
        """Waits until Redis has the subscriptions of all hubs."""
        for topic in TOPICS:
            wait_for(lambda: self.redis.subscribers(topic) == 3, 10, f"three hubs subscribe {topic}")

    def away(self):
        """Waits until all hubs have noticed that Redis is away."""
        for hub in self.hubs:
            wait_for(hub.is_away, 10, "the hub says that Redis is away")

    def expect(self, count, at_others):
        """Publishes at all hubs. Each subscriber gets each of its own hub's messages exactly once, and
        those of the others, too, or none of them."""
        first = [hub.published for hub in self.hubs]
        for hub in self.hubs:
            hub.publish(count)
        for hub in self.hubs:
            for publisher, start in enumerate(first):
                numbers = range(start, start + count)
                expected = list(numbers) if at_others or publisher == hub.number else []
                for topic in TOPICS:
                    got = lambda: [n for p, n in hub.received[topic] if p == publisher and n in numbers]
                    wait_for(lambda: len(got()) >= len(expected), 20, f"{topic} of {publisher}")
                    demand(got() == expected, f"of {publisher} at {hub.number}: {len(got())} of {topic}")

    def in_order_and_once(self):
        for hub in self.hubs:
            for publisher in range(3):
                for topic in TOPICS:
                    got = [n for p, n in hub.received[topic] if p == publisher]
                    demand(len(set(got)) == len(got), f"some came twice at {hub.number}")
                    demand(got == sorted(got), f"out of order: of {publisher} at {hub.number}")

    def missing(self):
        """How many of its own messages each hub has not delivered."""
        count = []
        for hub in self.hubs:
            own = [[n for p, n in hub.received[t] if p == hub.number] for t in TOPICS]
            count.append(len(TOPICS) * hub.published - sum(len(numbers) for numbers in own))
        return count


class Load:
    """Publishes at all hubs for as long as it is open."""

    def __init__(self, hubs):
        self.hubs, self.ends = hubs, threading.Event()
        self.threads = [threading.Thread(target=self.publish, args=[hub]) for hub in hubs]

    def publish(self, hub):
        while not self.ends.wait(0.002):
            hub.publish(20)

    def __enter__(self):
        for thread in self.threads:
            thread.start()

    def __exit__(self, *_):
        self.ends.set()
        for thread in self.threads:
            thread.join()


def stopped_and_started(scope, *arguments):
    world = World(scope, arguments)
    world.whole()
    world.expect(2_000, at_others=True)
    for stop in [world.redis.stop, world.redis.kill]:
        stop()
        world.away()
        world.expect(2_000, at_others=False)
        world.redis.start()
        world.whole()
        world.expect(2_000, at_others=True)
    with Load(world.hubs):
        for stop in [world.redis.stop, world.redis.kill, world.redis.kill]:
            time.sleep(0.5)
            stop()
            time.sleep(0.3)
            world.redis.start()
            world.whole()
    world.expect(2_000, at_others=True)
    world.in_order_and_once()
    missing = world.missing()
    world.end()
    for hub in world.hubs:
        hub.stop()
    figures = [hub.figures() for hub in world.hubs]
    for hub, lost, figure in zip(world.hubs, missing, figures):
        counted = figure["to Redis"] + figure["only here"] + figure["in doubt"]
        demand(counted == 2 * hub.published, f"{figure} of {2 * hub.published}")
        demand(figure["dropped"] == 0, f"{figure}")
        demand(lost <= figure["in doubt"], f"{lost} are missing at a hub that says {figure}")
        demand(figure["only here"] >= 2 * 4_000 and figure["to Redis"] >= 2 * 6_000, f"{figure}")
    published = sum(hub.published for hub in world.hubs) * len(TOPICS)
    return f"{published:,} published, {sum(missing)} in doubt and lost with a Redis that was stopped"


@check("hub: a redis-server that is stopped and started under load")
def one_shard(scope):
    return stopped_and_started(scope)


@check("hub: the same with two shards, and subscribers that may miss messages")
def two_shards(scope):
    return stopped_and_started(scope, "--shards", 2, "--slow", "skip")


@check("hub: a redis-server that stands still")
def standing_still(scope):
    world = World(scope)
    world.whole()
    pid = world.redis.process.popen
    for _ in range(2):
        for hub in world.hubs:
            hub.publish(100)
        pid.send_signal(signal.SIGSTOP)
        world.away()
        world.expect(500, at_others=False)
        pid.send_signal(signal.SIGCONT)
        world.whole()
        world.expect(500, at_others=True)
    for hub in world.hubs:
        for got in hub.received.values():
            demand(len(set(got)) == len(got), "some came twice")
    return "served without it after 3 s, whole again, nothing came twice"


@check("hub: a redis-server that lets no hub in, or does not know how to")
def refusing(scope):
    world = World(scope, options=["--requirepass", "secret"])
    for hub in world.hubs:
        text = "redis: it refuses: NOAUTH"
        hub.process.wait_until(lambda: text in hub.process.output(), "says why")
    world.expect(500, at_others=False)
    for hub in world.hubs:
        for topic in TOPICS:
            demand(all(p == hub.number for p, _ in hub.received[topic]), "topics are shared")
    cli(world.redis.port, "-a", "secret", "--no-auth-warning", "config", "set", "requirepass", "")
    world.whole()
    world.expect(500, at_others=True)
    # Hubs may not publish any more. What Redis refuses is delivered at the hub.
    cli(world.redis.port, "acl", "setuser", "default", "-publish")
    world.expect(500, at_others=False)
    world.in_order_and_once()
    demand(world.missing() == [0, 0, 0], f"{world.missing()} are missing")
    return "NOAUTH and NOPERM: each hub serves its own clients"


@check("hub: other clients of Redis publish and subscribe, too")
def other_clients(scope):
    redis = Redis(scope)
    redis.start()
    hub = Hub(scope, 0, redis, "--slow", "latest")
    wait_for(lambda: redis.subscribers("news") == 1, 10, "subscribes")
    cli(redis.port, "publish", "news", "7 7")
    cli(redis.port, "publish", "news", "two\nlines")
    cli(redis.port, "publish", "news", "x" * 100_000)
    cli(redis.port, "publish", "news", "8 8")
    while (8, 8) not in hub.received["news"]:
        hub.read()
    demand((7, 7) in hub.received["news"], "the first message")
    listener = scope.start(tool("redis-cli", "redis-tools"), "-p", redis.port, "subscribe", "sport")
    listener.wait_until(lambda: "subscribe" in listener.output(), "subscribes")
    hub.publish(1)
    listener.wait_until(lambda: "0 0" in listener.output(), "gets what a client of the hub publishes")
    # A topic is unsubscribed with its last subscriber.
    hub.subscriber.close()
    wait_for(lambda: redis.subscribers("news") == 0, 10, "unsubscribes")
    hub.stop()
    demand(hub.figures()["dropped"] == 2, f"{hub.figures()}")
    return "raw texts both ways; what is no line is dropped"
