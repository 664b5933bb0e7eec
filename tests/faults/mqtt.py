"""Clients of MQTT 5 at a node's Unix socket: one publishes, one hears."""

import socket
import struct
import threading
import time

# The first byte of each packet (MQTT 5, section 2.1.2).
CONNECT, CONNACK, PUBLISH, PUBACK, SUBSCRIBE, SUBACK = 0x10, 0x20, 0x30, 0x40, 0x82, 0x90
# Messages without an acknowledgement, at most.
WINDOW = 200


def text(value):
    value = value.encode()
    return struct.pack(">H", len(value)) + value


def packet(kind, body):
    length, rest = b"", len(body)
    while True:
        length += bytes([rest % 128 | (128 if rest >= 128 else 0)])
        rest //= 128
        if not rest:
            return bytes([kind]) + length + body


class Connection:
    """One connection of one client, whose session lasts for an hour."""

    def __init__(self, path, client):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(30)
        self.socket.connect(path)
        self.stream = self.socket.makefile("rb")
        expiry = b"\x05\x11" + struct.pack(">I", 3600)
        self.send(CONNECT, text("MQTT") + bytes([5, 0]) + struct.pack(">H", 0) + expiry + text(client))
        kind, body = self.read()
        if kind != CONNACK or body[1] != 0:
            raise OSError(f"{client} is not let in: {body!r}")

    def send(self, kind, body):
        self.socket.sendall(packet(kind, body))

    def read(self):
        kind, shift, length = self.stream.read(1), 0, 0
        while kind:
            byte = self.stream.read(1)
            if not byte:
                break
            length |= (byte[0] & 127) << shift
            shift += 7
            if byte[0] < 128:
                return kind[0], self.stream.read(length)
        raise OSError("the connection ended")

    def close(self):
        self.socket.close()


class Publisher(threading.Thread):
    """Publishes numbers at QoS 1, `rate` a second, and counts those that are acknowledged, and refused."""

    def __init__(self, path, rate):
        super().__init__(daemon=True)
        self.connection, self.rate, self.going = Connection(path, "publisher"), rate, True
        self.said, self.acknowledged, self.refused = 0, 0, 0
        self.room = threading.Semaphore(WINDOW)
        threading.Thread(target=self.acknowledgements, daemon=True).start()

    def run(self):
        began = time.monotonic()
        while self.going:
            self.room.acquire()
            number = self.said = self.said + 1
            # A packet's number begins anew behind 65,535, of which few are under way.
            self.connection.send(PUBLISH | 2, text("count") + struct.pack(">H", (number - 1) % 65535 + 1) + b"\0" + str(number).encode())
            pause = began + number / self.rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)

    def acknowledgements(self):
        while True:
            try:
                kind, body = self.connection.read()
            except OSError:
                return
            if kind == PUBACK:
                # A reason from 0x80 on is a refusal; none is success (section 3.4.2.1).
                is_refused = len(body) > 2 and body[2] >= 0x80
                self.refused += is_refused
                self.acknowledged += not is_refused
                self.room.release()

    def quiet(self):
        self.going = False
        self.join(60)
        deadline = time.monotonic() + 30
        while self.acknowledged + self.refused < self.said and time.monotonic() < deadline:
            time.sleep(0.05)


class Hearer(threading.Thread):
    """Hears all numbers, and connects again where its connection ends."""

    def __init__(self, path, client):
        super().__init__(daemon=True)
        self.path, self.client, self.going = path, client, True
        # How often each was heard.
        self.heard, self.ready = {}, threading.Event()

    def run(self):
        while self.going:
            try:
                self.follow()
            except OSError:
                time.sleep(0.2)

    def follow(self):
        connection = Connection(self.path, self.client)
        connection.send(SUBSCRIBE, struct.pack(">H", 1) + b"\0" + text("count") + b"\1")
        try:
            while self.going:
                kind, body = connection.read()
                if kind == SUBACK:
                    self.ready.set()
                elif kind & 0xF0 == PUBLISH:
                    at = 2 + struct.unpack(">H", body[:2])[0]
                    connection.send(PUBACK, body[at:at + 2])
                    number = int(body[at + 3 + body[at + 2]:])
                    self.heard[number] = self.heard.get(number, 0) + 1
        finally:
            connection.close()
