"""The parts of the fault checks: a server, clients, a tracer, an interposer, a private network."""
