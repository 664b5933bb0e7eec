"""Three nodes of each system in one network of loopback addresses: how they are started, published to and read from.

A publisher is a file descriptor that takes what `encode` makes of messages; a subscriber one that gives them, with what the
system puts around them. Neither knows times or rates: `run.py` measures.
"""

import os
import re
import shutil
import socket
import struct
import subprocess
import time

SIZE = 100
TOPIC = "numbers"
PATIENCE = 60


class NotHere(Exception):
    """A system that this machine has not."""


def until(what, condition):
    end = time.monotonic() + PATIENCE
    while not (found := condition()):
        if time.monotonic() > end:
            raise RuntimeError(f"{what}: not after {PATIENCE} s")
        time.sleep(0.05)
    return found


def connect(port):
    def attempt():
        try:
            return socket.create_connection(("127.0.0.1", port))
        except ConnectionRefusedError:
            return None

    sock = until(f"port {port} answers", attempt)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


class System:
    """Three processes; number 0 is published to, 1 and 2 are read from."""

    def __init__(self, directory):
        self.directory, self.nodes, self.clients = directory, [], []

    def spawn(self, name, *words, **kwargs):
        with open(os.path.join(self.directory, name + ".log"), "ab") as log:
            process = subprocess.Popen(words, stderr=log, **{"stdout": log, "stdin": subprocess.DEVNULL, **kwargs})
        return process

    def write(self, name, text):
        path = os.path.join(self.directory, name)
        with open(path, "w") as file:
            file.write(text)
        return path

    def stop(self):
        for process in self.clients + self.nodes:
            process.kill()
        for process in self.clients + self.nodes:
            process.wait()


class Smidge(System):
    """Signed by its author, and the signature checked at each node; by the verbs `pub --lines` and `sub`."""

    settings = ()
    binary = None

    def start(self):
        addresses = [f"/ip4/127.0.0.{n + 1}/udp/4001/quic-v1" for n in range(3)]
        for n in range(3):
            api = f"{self.directory}/api{n}"
            words = ["run", "--listen", addresses[n], "--topic", TOPIC]
            for setting in (f"dial.addresses={','.join(addresses[:n])}", f"api.listen=unix:{api}", "identity.ephemeral=true", *self.settings):
                words += ["--set", setting]
            self.nodes.append(self.spawn(f"node{n}", self.binary, *words))
            until("the API answers", lambda: os.path.exists(api) and self.verb(n, "peers").returncode == 0)
        until("a mesh of three", lambda: all(self.others(n) == 2 for n in range(3)))

    def verb(self, n, *words):
        return subprocess.run([self.binary, *words, "--api", f"unix:{self.directory}/api{n}"], capture_output=True, text=True)

    def others(self, n):
        return len(set(re.findall("12D3Koo[A-Za-z0-9]{45}", self.verb(n, "mesh", "--json").stdout)))

    def subscriber(self, n):
        process = self.spawn(f"sub{n}", self.binary, "sub", "-t", TOPIC, "--api", f"unix:{self.directory}/api{n}",
                             stdout=subprocess.PIPE)
        self.clients.append(process)
        return os.dup(process.stdout.fileno())

    def publisher(self):
        pub = self.spawn("pub", self.binary, "pub", "-t", TOPIC, "--lines", "--timeout", "60",
                         "--api", f"unix:{self.directory}/api0", stdin=subprocess.PIPE)
        self.clients.append(pub)
        return os.dup(pub.stdin.fileno())

    # Text at both ends, a line each.
    @staticmethod
    def encode(payload):
        return payload + b"\n"


class SmidgeBundles(Smidge):
    """The same in a topic of bundles. As for mosquitto, what a reader is too slow for waits, however much it is: by default
    it would be 2 MiB, and these readers are slower than the nodes."""

    settings = (f'topics={{"{TOPIC}"={{bundle=true}}}}', "limits.backlog=64MiB", "limits.backlogs=64MiB", "limits.events=65536")


class Mosquitto(System):
    """A star: the second and third bridge to the first, each with a client id of its own."""

    qos = 0

    def start(self):
        if not shutil.which("mosquitto"):
            raise NotHere("mosquitto (Debian's package mosquitto)")
        for n in range(3):
            text = (f"listener {1883 + n} 127.0.0.1\nallow_anonymous true\nmax_queued_messages 0\n"
                    f"max_inflight_messages 0\nset_tcp_nodelay true\nuser root\n")
            if n:
                text += (f"connection b{n}\naddress 127.0.0.1:1883\nremote_clientid bridge{n}\nlocal_clientid local{n}\n"
                         f"topic {TOPIC} in {self.qos}\nnotifications false\n")
            self.nodes.append(self.spawn(f"node{n}", "mosquitto", "-c", self.write(f"{n}.conf", text)))
            self.client(n).close()
        time.sleep(2)  # Nothing tells when a bridge has subscribed.

    def client(self, n):
        sock = connect(1883 + n)
        name = f"client{n}{time.monotonic_ns()}".encode()
        body = b"\0\4MQTT\4\2\0\0" + struct.pack(">H", len(name)) + name
        sock.sendall(bytes([0x10, len(body)]) + body)
        if sock.recv(4, socket.MSG_WAITALL) != b"\x20\2\0\0":
            raise RuntimeError("mosquitto refused a client")
        return sock

    def subscriber(self, n):
        sock = self.client(n)
        # Read at QoS 0: nothing has to be acknowledged by the reader; what goes between brokers is what is compared.
        body = b"\0\1" + struct.pack(">H", len(TOPIC)) + TOPIC.encode() + b"\0"
        sock.sendall(bytes([0x82, len(body)]) + body)
        sock.recv(5, socket.MSG_WAITALL)
        return sock.detach()

    def publisher(self):
        return self.client(0).detach()

    def encode(self, payload):
        self.packet = getattr(self, "packet", 0) % 65535 + 1
        head = struct.pack(">H", len(TOPIC)) + TOPIC.encode() + (struct.pack(">H", self.packet) if self.qos else b"")
        length = len(head) + len(payload)
        size = bytes([length]) if length < 128 else bytes([length % 128 | 128, length // 128])
        return bytes([0x30 | self.qos << 1]) + size + head + payload


class MosquittoQos1(Mosquitto):
    """With QoS 1 from the publisher and over the bridges."""

    qos = 1


class Nats(System):
    """A cluster of three."""

    def start(self):
        if not shutil.which("nats-server"):
            raise NotHere("nats-server (Debian's package nats-server)")
        for n in range(3):
            text = (f'server_name: n{n}\nlisten: "127.0.0.1:{4222 + n}"\nmonitor_port: {8222 + n}\n'
                    f'cluster {{ name: c, listen: "127.0.0.1:{6222 + n}", routes: ["nats://127.0.0.1:6222"] }}\n')
            self.nodes.append(self.spawn(f"node{n}", "nats-server", "-c", self.write(f"{n}.conf", text)))
            connect(4222 + n).close()
        time.sleep(2)  # Routes gossip.

    def client(self, n):
        sock = connect(4222 + n)
        until("INFO", lambda: sock.recv(4096).endswith(b"\r\n"))
        sock.sendall(b'CONNECT {"verbose":false,"pedantic":false}\r\nPING\r\n')
        until("PONG", lambda: b"PONG" in sock.recv(4096))
        return sock

    def subscriber(self, n):
        sock = self.client(n)
        sock.sendall(f"SUB {TOPIC} 1\r\nPING\r\n".encode())
        until("PONG", lambda: b"PONG" in sock.recv(4096))
        return sock.detach()

    def publisher(self):
        return self.client(0).detach()

    @staticmethod
    def encode(payload):
        return b"PUB %s %d\r\n%s\r\n" % (TOPIC.encode(), len(payload), payload)


SYSTEMS = {"smidge": Smidge, "smidge-bundles": SmidgeBundles, "mosquitto-0": Mosquitto, "mosquitto-1": MosquittoQos1,
           "nats": Nats}
