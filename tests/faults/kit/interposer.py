"""Builds interpose.c and starts servers under it."""

import contextlib
import functools
import re
import tempfile
from pathlib import Path

from .expect import expect
from .spawn import run
from .trial import Trial

SOURCE = Path(__file__).resolve().parents[1] / "interpose.c"


@functools.cache
def _folder():
    return tempfile.TemporaryDirectory()


@functools.cache
def _library():
    library = f"{_folder().name}/interpose.so"
    run("gcc", "-Wall", "-Wextra", "-O2", "-shared", "-fPIC", "-o", library, str(SOURCE), "-ldl")
    return library


class Interposed:
    """A trial under the interposer, and the interposer's report."""

    def __init__(self, trial, report):
        self.trial = trial
        self._report = report

    def finish(self, *faults):
        """Finishes the trial. Fails unless each of these faults has happened."""
        seen = self.trial.finish()
        report = self._report.read_text().strip()
        for fault in faults:
            count = int(re.search(rf"{fault}=(\d+)", report)[1])
            expect(count > 0, f"the interposer did no {fault}: {report}")
        return f"{report}; {seen}"


@contextlib.contextmanager
def interposed(*options, seed=1, **faults):
    """A trial whose server runs under the interposer; `faults` are its FAULT_ variables in small letters."""
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "report"
        settings = {f"FAULT_{name.upper()}": str(value) for name, value in faults.items()}
        environment = {"LD_PRELOAD": _library(), "FAULT_SEED": str(seed), "FAULT_REPORT": str(report), **settings}
        with Trial(*options, environment=environment) as trial:
            yield Interposed(trial, report)
