"""A client in a process of its own: `traffic.py flood|connect HOST PORT SECONDS`; prints one number."""

import select
import socket
import struct
import sys
import time


def flood(connection, seconds):
    """Sends small requests as fast as possible and reads all answers. Returns the bytes received."""
    requests = (struct.pack(">H", 30) + bytes(30)) * 8192
    connection.setblocking(False)
    poll = select.poll()
    poll.register(connection, select.POLLIN | select.POLLOUT)
    sent = received = 0
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for _, events in poll.poll(100):
            if events & select.POLLIN:
                received += len(connection.recv(1 << 18))
            if events & select.POLLOUT:
                sent += connection.send(requests[sent % len(requests) :])
    return received


def connect(connection, seconds):
    """Connects and resets as fast as possible. Returns the connects per second."""
    count = 0
    address, start = connection.getpeername(), time.monotonic()
    while time.monotonic() < start + seconds:
        with socket.socket() as passer_by:
            passer_by.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            passer_by.connect(address)
        count += 1
    return count / seconds


def main():
    """Runs the chosen function, and prints its number."""
    kind, host, port, seconds = sys.argv[1:]
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    print({"flood": flood, "connect": connect}[kind](connection, float(seconds)))


if __name__ == "__main__":
    main()
