"""The mesh's name server: answers A questions for one name over UDP and TCP, and misbehaves when told to.

    names.py CONTROL ADDRESS

Orders: {"records": [IP…]} and {"mode": …}, one of MODES, with "delay" in seconds for "slow".
"""

import random
import selectors
import socket
import struct
import sys
import threading
import time

import control

MODES = ("answer", "silent", "slow", "servfail", "nxdomain", "empty", "wrong-id", "garbage")
# What fits into a datagram unless the question says otherwise (RFC 1035, 4.2.1).
DATAGRAM = 512
NOERROR, SERVFAIL, NXDOMAIN = 0, 2, 3
A, OPT = 1, 41


class Zone:
    def __init__(self):
        self.records, self.mode, self.delay = [], "answer", 0.0
        self.questions = {"udp": 0, "tcp": 0}
        self.random = random.Random("names")

    def obey(self, order):
        if "records" in order:
            self.records = [socket.inet_aton(ip) for ip in order["records"]]
        if "mode" in order:
            if order["mode"] not in MODES:
                raise ValueError(f"no mode {order['mode']!r}")
            self.mode, self.delay = order["mode"], order.get("delay", 0.0)
        return dict(self.questions)

    def answer(self, packet, via):
        """The answer and how much later it goes out; None for none."""
        self.questions[via] += 1
        mode = self.mode
        ident, _, questions, _, _, additional = struct.unpack(">6H", packet[:12])
        end = 12
        while packet[end]:
            end += packet[end] + 1
        end += 5
        kind = struct.unpack(">H", packet[end - 4:end - 2])[0]
        if mode == "silent" or questions != 1:
            return None
        if mode == "garbage":
            return packet[:2] + self.random.randbytes(60), 0.0
        if mode == "wrong-id":
            ident ^= 0x5555
        code = {"servfail": SERVFAIL, "nxdomain": NXDOMAIN}.get(mode, NOERROR)
        records = self.records if kind == A and code == NOERROR and mode != "empty" else []
        room = 65535
        if via == "udp":
            # The first additional record is the OPT of EDNS, if there is one; its class is the size.
            edns = additional and packet[end:end + 3] == struct.pack(">BH", 0, OPT)
            room = max(DATAGRAM, struct.unpack(">H", packet[end + 3:end + 5])[0]) if edns else DATAGRAM
        body = b"".join(struct.pack(">HHHIH", 0xC00C, A, 1, 1, 4) + ip for ip in records)
        flags, count = 0x8580 | code, len(records)
        if end + len(body) > room:
            flags, count, body = flags | 0x0200, 0, b""
        reply = struct.pack(">6H", ident, flags, 1, count, 0, 0) + packet[12:end] + body
        return reply, self.delay if mode == "slow" else 0.0


def serve_tcp(zone, client):
    """Answers one client until it leaves or falls silent."""
    with client:
        client.settimeout(10)
        try:
            while length := client.recv(2, socket.MSG_WAITALL):
                packet = client.recv(struct.unpack(">H", length)[0], socket.MSG_WAITALL)
                answer = zone.answer(packet, "tcp")
                if answer is None:
                    time.sleep(10)
                    return
                time.sleep(answer[1])
                client.sendall(struct.pack(">H", len(answer[0])) + answer[0])
        except (OSError, struct.error, IndexError):
            pass  # it left, or what it said was no question


def main():
    path, address = sys.argv[1:]
    zone = Zone()
    udp, tcp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM), socket.socket()
    tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    udp.bind((address, 53))
    tcp.bind((address, 53))
    tcp.listen(128)
    server = control.Server(path, zone.obey)
    waiting = selectors.DefaultSelector()
    for file in (udp, tcp, *server.files()):
        waiting.register(file, selectors.EVENT_READ)
    while True:
        for key, _ in waiting.select():
            file = key.fileobj
            if file is udp:
                packet, client = udp.recvfrom(4096)
                try:
                    answer = zone.answer(packet, "udp")
                except (struct.error, IndexError):
                    continue  # no question
                if answer is None:
                    continue
                if answer[1]:
                    late = threading.Timer(answer[1], udp.sendto, (answer[0], client))
                    late.daemon = True
                    late.start()
                else:
                    udp.sendto(answer[0], client)
            elif file is tcp:
                threading.Thread(target=serve_tcp, args=(zone, tcp.accept()[0]), daemon=True).start()
            else:
                fresh, gone = server.serve(file)
                if fresh:
                    waiting.register(fresh, selectors.EVENT_READ)
                if gone:
                    waiting.unregister(gone)
                    gone.close()


if __name__ == "__main__":
    main()
