"""What the fault checks are made of: a server, clients, a tracer, an interposer, a private network."""
