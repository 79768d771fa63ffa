"""Times judged so that a stall of the machine does not pass for a fault of the server.

Other programs take a core, or a host takes it from its virtual machine. This only adds time, and it comes and goes. A
fault of the server is there each time. So no check judges a time near its limit by one measurement:

- `Rounds` judge requests beside a load by the median of some short rounds. A round counts what the load adds: how long
  99 % of the requests take beside it, less how long they take alone, just before or just after it, whichever is longer.
  If they take longer alone than the load may add, the round tells nothing. It is void, and measured again. If the load
  can tell how many times slower than usual the machine is in a round, what it adds is divided by that.
- `best` judges what happens once, such as a drain, or the longest of few times. It tries again if a try was too slow."""

import math
import statistics

from .expect import Failure, expect

# In seconds: how long a round measures a client alone, and beside the load.
ALONE, BESIDE = 0.3, 0.6
# If the median of a few rounds is above the limit, that of many rounds decides.
FEW, MANY = 5, 15
# The most void rounds, and the most tries.
VOID, TRIES = 30, 5


def expect_within(allowed, millis, what):
    """Fails if a time in milliseconds is longer than allowed."""
    expect(millis <= allowed, f"{what}: {millis:.2f} ms, {allowed:.2f} ms allowed")


def best(measure, allowed, tries=TRIES):
    """Calls `measure` until it returns at most `allowed`, at most `tries` times. Returns the smallest result.

    An infinite result is the last one: what never came was not held up by the machine."""
    results = []
    while not results or (allowed < min(results) < math.inf and len(results) < tries):
        results.append(measure())
    return min(results)


class Rounds:
    """Rounds of requests beside a load, which may add at most `allowed` milliseconds to them."""

    def __init__(self, bystander, allowed):
        self._bystander = bystander
        self._allowed = allowed
        self._void = 0
        # In milliseconds, of the rounds that count: 99 % of the requests alone, beside the load, and the difference.
        self._alone, self._beside, self._added = [], [], []

    def alternate(self, load):
        """Measures by turns alone and beside a new load. `load` returns it, a context manager.

        It yields `None`, or a function that tells how many times slower than usual the machine was in the round."""
        before = self._measure_alone()
        for enough in (FEW, MANY):
            while self._is_needed(enough):
                with load() as slowness:
                    beside = self._measure_beside()
                    slower = slowness() if slowness else 1
                after = self._measure_alone()
                self._count(max(before, after), beside, slower)
                before = after

    def alone(self):
        """Measures alone, before `beside`. Returns a number for it."""
        times = [self._measure_alone() for _ in range(FEW)]
        while statistics.median(times[-FEW:]) > self._allowed:
            self._voided(times[-1])
            times.append(self._measure_alone())
        return statistics.median(times[-FEW:])

    def beside(self, alone):
        """Measures beside a load that cannot begin and end in each round: it acts all the time."""
        for enough in (FEW, MANY):
            while self._is_needed(enough):
                self._count(alone, self._measure_beside())

    def _is_needed(self, enough):
        """Whether one more round is needed for the next verdict."""
        return len(self._added) < enough and not (len(self._added) == FEW and self.added() <= self._allowed)

    def _measure_alone(self):
        return self._bystander.measure("requests", ALONE).p99()

    def _measure_beside(self):
        beside = self._bystander.measure("requests", BESIDE)
        if beside.unanswered:
            raise Failure(f"a request beside the load: {beside}")
        return beside.p99()

    def _count(self, alone, beside, slower=1):
        if alone > self._allowed:
            return self._voided(alone)
        self._alone.append(alone)
        self._beside.append(beside)
        self._added.append((beside - alone) / slower)

    def _voided(self, alone):
        self._void += 1
        expect(
            self._void <= VOID,
            f"this machine is too busy to tell: {VOID} rounds are void, because alone 99 % of the requests took more than"
            f" {self._allowed:.2f} ms, {alone:.2f} ms in the last one. Run the check again while less is running",
        )

    def added(self):
        """What the load adds, in milliseconds: the median."""
        return statistics.median(self._added)

    def expect_allowed(self, load):
        """Fails if the load adds more than allowed. Returns the rounds as text."""
        expect_within(self._allowed, self.added(), f"what {load} add to 99 % of requests, {self}; in the median")
        return f"{self}"

    def __str__(self):
        alone, beside = (
            f"{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f}) ms" for each in (self._alone, self._beside)
        )
        return f"{self.added():.2f} ms more in {len(self._added)} rounds: p99 {beside}, alone {alone}, {self._void} void"
