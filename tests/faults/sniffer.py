"""What a host sends, by destination: beginnings of TCP connections and UDP, seen by a packet socket on all interfaces.

    sniffer.py CONTROL

An order, whatever it says, is answered by {IP: [packets, ports]}; ports of TCP and of UDP are different ones.
"""

import select
import socket
import sys

import control

ETH_P_ALL, ETH_P_IP, PACKET_OUTGOING = 3, 0x0800, 4
TCP, UDP = 6, 17
SYN, SYN_ACK = 0x02, 0x12
# Room for what comes while an order is answered.
BUFFER = 4 << 20


class Sniffer:
    def __init__(self):
        self.packets, self.ports = {}, {}

    def take(self, packet):
        """An IPv4 packet without its link header."""
        header = (packet[0] & 15) * 4
        protocol, destination, rest = packet[9], packet[16:20], packet[header:]
        if protocol == UDP or protocol == TCP and len(rest) > 13 and rest[13] & SYN_ACK == SYN:
            self.packets[destination] = self.packets.get(destination, 0) + 1
            self.ports.setdefault(destination, set()).add((protocol, rest[2:4]))

    def told(self, _):
        return {socket.inet_ntoa(ip): [packets, len(self.ports[ip])] for ip, packets in self.packets.items()}


def main():
    sniffer = Sniffer()
    packets = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    packets.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, BUFFER)
    server = control.Server(sys.argv[1], sniffer.told)
    while True:
        for ready in select.select([packets, *server.files()], [], [])[0]:
            if ready is not packets:
                server.serve(ready)
                continue
            packet, (_, protocol, kind, *_) = packets.recvfrom(64)
            if protocol == ETH_P_IP and kind == PACKET_OUTGOING:
                sniffer.take(packet)


if __name__ == "__main__":
    main()
