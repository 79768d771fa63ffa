"""The fault checks. Importing a module registers its checks, in the order of this list."""

from . import (  # noqa: F401
    system_calls,
    hostile_kernel,
    network,
    process,
    start_and_stop,
    contract,
    handlers,
    load,
    fairness,
    connectors,
    gateway,
)
