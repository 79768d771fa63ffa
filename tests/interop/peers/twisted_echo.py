"""twisted_echo.py PORT WIDTH SIZE...: sends packets of these sizes and demands them back."""

import sys

from twisted.internet import endpoints, protocol, reactor
from twisted.protocols import basic

RECEIVERS = {1: basic.Int8StringReceiver, 2: basic.Int16StringReceiver, 4: basic.Int32StringReceiver}
port, width, *sizes = map(int, sys.argv[1:])
packets = [bytes(i % 251 for i in range(size)) for size in sizes] * 20
failure = "the server did not answer"


class Client(RECEIVERS[width]):
    MAX_LENGTH = 1 << 24

    def connectionMade(self):
        self.expected = iter(packets)
        self.received = 0
        for packet in packets:
            self.sendString(packet)

    def stringReceived(self, packet):
        self.received += 1
        if packet != next(self.expected, None):
            self.end(f"packet {self.received} came back as {len(packet)} other bytes")
        elif self.received == len(packets):
            self.end(None)

    def lengthLimitExceeded(self, length):
        self.end(f"a packet of {length} bytes came back")

    def connectionLost(self, reason=protocol.connectionDone):
        if reactor.running:
            self.end(f"closed after {self.received} packets")

    def end(self, text):
        global failure
        if reactor.running and failure is not None:
            failure = text
            reactor.stop()


endpoint = endpoints.TCP4ClientEndpoint(reactor, "127.0.0.1", port)
connected = endpoint.connect(protocol.Factory.forProtocol(Client))
connected.addErrback(lambda error: (print(error), reactor.stop()))
reactor.callLater(60, reactor.stop)
reactor.run()
if failure is not None:
    sys.exit(failure)
print(f"sizes {', '.join(map(str, sizes))}, each 20 times, pipelined")
