"""Two sites behind NATs of their own, and a relay on the network between them: namespaces and netfilter.

    a 192.168.1.2 ── NAT 5.0.0.2 ──┐
                                   ├── relay 5.0.0.1, and another host 5.0.0.4
    b 192.168.2.2 ── NAT 5.0.0.3 ──┘

The addresses between the NATs are ones of the Internet, so that nodes believe them; nothing leaves the
namespaces, which run.py has made.
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, os.path.join(HERE, "..", "faults"))

from node import Late, Unix, until  # noqa: E402
from world import Host  # noqa: E402

TOPIC = "sites"
RELAY, NATS, OTHER = "5.0.0.1", {"a": "5.0.0.2", "b": "5.0.0.3"}, "5.0.0.4"
INSIDE = {"a": "192.168.1.2", "b": "192.168.2.2"}
PATIENCE = 60

# What a NAT does with a port of a host behind it:
#   full       keeps it, whoever it talks to, and lets everybody in there ("full cone");
#   cone       keeps it, and lets in only from where something was sent to (endpoint-independent mapping,
#              address- and port-dependent filtering), as most routers at home do;
#   symmetric  gives it another one for each address that it talks to (address- and port-dependent mapping).
KINDS = ("full", "cone", "symmetric")


def sh(*words):
    subprocess.run(words, check=True)


class World:
    """`with World(binary, "cone", "symmetric") as world:` gives site a the one NAT and site b the other."""

    def __init__(self, binary, a, b):
        self.binary, self.kinds = binary, {"a": a, "b": b}
        self.hosts, self.nodes = {}, []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="smidge-nat-")
        try:
            sh("ip", "link", "add", "wire", "type", "bridge")
            sh("ip", "link", "set", "wire", "up")
            self.public("relay", RELAY)
            self.public("other", OTHER)
            for site, kind in self.kinds.items():
                self.site(site, kind)
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def public(self, name, ip):
        host = self.hosts[name] = Host(name, ip)
        sh("ip", "link", "add", f"w-{name}", "type", "veth", "peer", "name", "eth0", "netns", str(host.holder.pid))
        sh("ip", "link", "set", f"w-{name}", "master", "wire", "up")
        host.run("ip", "address", "add", f"{ip}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            host.run("ip", "link", "set", link, "up")
        return host

    def site(self, name, kind):
        """A host behind a NAT. What comes in unasked is dropped without a word, before the NAT remembers it."""
        nat = self.public(f"nat-{name}", NATS[name])
        host = self.hosts[name] = Host(name, INSIDE[name])
        gateway = host.ip.rpartition(".")[0] + ".1"
        host.run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "lan", "netns", str(nat.holder.pid))
        nat.run("ip", "address", "add", f"{gateway}/24", "dev", "lan")
        nat.run("ip", "link", "set", "lan", "up")
        host.run("ip", "address", "add", f"{host.ip}/24", "dev", "eth0")
        for link in ("lo", "eth0"):
            host.run("ip", "link", "set", link, "up")
        host.run("ip", "route", "add", "default", "via", gateway)
        nat.run("sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        random = ["--random-fully"] if kind == "symmetric" else []
        nat.run("iptables", "-t", "nat", "-A", "POSTROUTING", "-o", "eth0", "-j", "MASQUERADE", *random)
        nat.run("iptables", "-A", "INPUT", "-i", "eth0", "-j", "DROP")
        known = ["-m", "conntrack", "--ctstate", "ESTABLISHED,RELATED", "-j", "ACCEPT"]
        nat.run("iptables", "-A", "FORWARD", "-i", "eth0", *known)
        if kind == "full":
            nat.run("iptables", "-t", "nat", "-A", "PREROUTING", "-i", "eth0", "-j", "DNAT", "--to-destination", host.ip)
        else:
            nat.run("iptables", "-A", "FORWARD", "-i", "eth0", "-j", "DROP")

    def start(self, host, port, over, *settings, topic=True):
        node = Node(self, self.hosts[host], port, over, settings, topic)
        self.nodes.append(node)
        return node.start()

    def __exit__(self, kind, error, _):
        try:
            for node in self.nodes:
                node.kill()
                if kind:
                    print(f"--- {node.name}:\n{node.said()}", file=sys.stderr, flush=True)
        finally:
            for host in self.hosts.values():
                subprocess.run(["ip", "link", "delete", f"w-{host.name}"], check=False, stderr=subprocess.DEVNULL)
                host.close()
            subprocess.run(["ip", "link", "delete", "wire"], check=False)
            shutil.rmtree(self.directory, ignore_errors=True)


class Node:
    """A smidge process on a host, listening on `port` over "quic" or "tcp"."""

    def __init__(self, world, host, port, over, settings, topic):
        self.host, self.port = host, port
        self.name = f"{host.name}-{port}-{len(world.nodes)}"
        self.log = os.path.join(world.directory, self.name + ".log")
        self.socket = os.path.join(world.directory, self.name + ".api")
        self.end = f"udp/{port}/quic-v1" if over == "quic" else f"tcp/{port}"
        self.address = f"/ip4/{host.ip}/{self.end}"
        self.words = [world.binary, "run"]
        for setting in (
            f"listen.addresses=/ip4/0.0.0.0/{self.end}", f"api.listen=unix:{self.socket}",
            f"identity.key_file={os.path.join(world.directory, f'{host.name}-{port}.key')}", "dns.resolv_conf=",
            "log.level=info,smidge::message=info",
            *([f"gossip.topics={TOPIC}"] if topic else []), *settings,
        ):
            self.words += ["--set", setting]
        self.process = None

    def start(self):
        with open(self.log, "ab") as log:
            environment = {"RUST_LOG": os.environ["SMIDGE_NAT_LOG"]} if "SMIDGE_NAT_LOG" in os.environ else {}
            self.process = subprocess.Popen(
                self.host.inside(*self.words), stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment
            )
        self.peer = until(f"{self.name} answers", lambda: self.get("/v1/status")["peer"], PATIENCE)[0]
        return self

    def ask(self, method, path, body=None):
        connection = Unix(self.socket)
        try:
            return connection.ask(method, path, body)
        finally:
            connection.close()

    def get(self, path):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.said()}")
        return json.loads(self.ask("GET", path))

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def has_said(self, *words):
        """The first line that holds all of `words`, or None."""
        return next((line for line in self.said().splitlines() if all(word in line for word in words)), None)

    def line(self, *words, patience=PATIENCE):
        return until(f"{self.name} says {words}", lambda: self.has_said(*words), patience)[0]

    def ways(self, peer):
        """How it is connected with `peer`: a list of "direct" and "relayed"."""
        peers = [p for p in self.get("/v1/peers")["peers"] if p["peer"] == peer]
        return ["relayed" if c["relayed"] else "direct" for p in peers for c in p["connections"]]

    def kill(self):
        if self.process and self.process.poll() is None:
            self.process.kill()
        if self.process:
            self.process.wait()


__all__ = ["KINDS", "TOPIC", "Late", "World", "until"]
