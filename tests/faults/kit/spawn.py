"""Child processes that cannot outlive the run, not even when it is killed."""

import subprocess


def spawn(command, **options):
    """Starts `command`. The kernel kills it when the thread that started it ends."""
    return subprocess.Popen(["setpriv", "--pdeathsig", "KILL", *command], **options)


def run(*command):
    """Runs `command` to its end, and returns its output. Raises if it fails."""
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: {done.stderr.strip() or done.returncode}")
    return done.stdout
