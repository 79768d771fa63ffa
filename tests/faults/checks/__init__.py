"""The fault checks."""
from . import system_calls
