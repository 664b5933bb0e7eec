"""A world of hosts: network namespaces joined by the impairing link, a name server, nodes.

Lives in namespaces of its own (run.py sees to that), so nothing of it is to be seen outside, and nothing of it
outlives the harness.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time

import control
from node import TOPIC, Late, Node, until

HERE = os.path.dirname(os.path.abspath(__file__))
NAME_SERVER = "10.77.0.250"
# How long a mesh of a few nodes may take to become whole on a busy machine.
WHOLE = 60


class Host:
    """A network namespace with one interface, for as long as a process holds it."""

    def __init__(self, name, ip):
        self.name, self.ip = name, ip
        self.holder = subprocess.Popen(["unshare", "--net", "sleep", "infinity"])
        own = os.readlink("/proc/self/ns/net")
        until(f"namespace of {name}", lambda: os.readlink(f"/proc/{self.holder.pid}/ns/net") != own, 20)

    def inside(self, *words):
        """The words that run a command here; its process id is the command's own."""
        return ["nsenter", "-t", str(self.holder.pid), "-n", *words]

    def run(self, *words):
        subprocess.run(self.inside(*words), check=True)

    def close(self):
        self.holder.kill()
        self.holder.wait()


class World:
    """`with World(binary, seed, "a b c") as world:` gives hosts a, b and c; `start` puts nodes there."""

    def __init__(self, binary, seed, names, others=()):
        self.binary, self.seed = binary, seed
        self.names, self.others = names.split(), list(others)
        self.hosts, self.nodes, self.helpers = {}, {}, []
        self.name_server = NAME_SERVER
        self.failures = []

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="smidge-faults-")
        try:
            hosts = [*self.names, *self.others]
            for n, name in enumerate(hosts):
                self.hosts[name] = Host(name, f"10.77.0.{n + 1}")
            self.hosts["names"] = Host("names", NAME_SERVER)
            self.link = self.helper("link.py", self.seed, *(f"{n}={h.holder.pid}" for n, h in self.hosts.items()))
            for host in self.hosts.values():
                host.run("ip", "link", "set", "lo", "up")
                # The whole of 10.77/16 lies behind the link: a host can be given any address of it.
                host.run("ip", "address", "add", f"{host.ip}/16", "dev", "eth0")
                host.run("ip", "link", "set", "eth0", "up", "txqueuelen", "4096")
                self.link(do="address", ip=host.ip, host=host.name)
            self.dns = self.helper("names.py", NAME_SERVER, host=self.hosts["names"])
            self.dns(records=[self.hosts[name].ip for name in self.names])
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def helper(self, script, *words, host=None):
        path = os.path.join(self.directory, script + ".control")
        command = [sys.executable, os.path.join(HERE, script), path, *map(str, words)]
        process = subprocess.Popen(host.inside(*command) if host else command, stdin=subprocess.DEVNULL)
        self.helpers.append(process)
        return control.Client(path, process)

    def start(self, settings=(), names=None):
        """A node on each host, and the mesh whole."""
        for name in names or self.names:
            self.nodes[name] = Node(self, self.hosts[name], settings).start()
        until("the mesh is whole at first", self.is_whole, WHOLE)
        return list(self.nodes.values())

    def impair(self, sender=None, receiver=None, **how):
        """From now on, between all hosts of `sender` and all of `receiver`; the name server is spared unless named."""
        self.link(do="set", sender=sender or self.names, receiver=receiver or self.names, **how)

    def is_whole(self, among=None):
        """Whether every node is connected with every other, and all are in meshes of the topic."""
        nodes = [n for n in (among or self.nodes.values()) if n.alive()]
        everybody = {node.peer for node in nodes}
        low = min(4, len(nodes) - 1)
        return all(set(node.peers()) >= everybody - {node.peer} and len(node.mesh() & everybody) >= low for node in nodes)

    def whole_after(self, patience, among=None):
        """Seconds until it is whole."""
        return until("the mesh is whole again", lambda: self.is_whole(among), patience)[1]

    def descriptors(self):
        return {name: node.reading().descriptors for name, node in self.nodes.items() if node.alive()}

    def peak(self):
        return max(node.reading().peak for node in self.nodes.values() if node.alive())

    def __exit__(self, kind, error, _):
        """Ends everything, and notes what must not have happened."""
        try:
            for process in self.helpers:
                if process.poll() is not None:
                    self.failures.append(f"the harness' own {process.args} ended with {process.returncode}")
            for node in self.nodes.values():
                if node.process is None:
                    continue
                if node.alive() and kind is None:
                    began = time.monotonic()
                    code = node.stop()
                    if code != 0:
                        self.failures.append(f"{node.name} ended with {code} {time.monotonic() - began:.1f} s after SIGTERM")
                node.kill()
                self.failures += [f"{node.name} panicked: {line}" for line in node.panics()]
            if kind or self.failures:
                for node in self.nodes.values():
                    print(f"--- {node.name}, its last lines:\n{node.tail()}", file=sys.stderr, flush=True)
        finally:
            for process in self.helpers:
                process.kill()
                process.wait()
            for host in self.hosts.values():
                host.close()
            if not os.environ.get("SMIDGE_FAULTS_KEEP"):
                shutil.rmtree(self.directory, ignore_errors=True)


class Address:
    """A host that is an address of the namespace where all is."""

    def __init__(self, name, ip):
        self.name, self.ip = name, ip

    def inside(self, *words):
        return list(words)

    def close(self):
        """Ends with the namespace."""


class Flat(World):
    """Hosts that are addresses of one namespace: many of them, and nothing between them that impairs."""

    def __init__(self, binary, seed, count):
        super().__init__(binary, seed, " ".join(f"n{n}" for n in range(count)))

    def __enter__(self):
        self.directory = tempfile.mkdtemp(prefix="smidge-faults-")
        try:
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            for n, name in enumerate(self.names):
                self.hosts[name] = Address(name, f"10.77.0.{n + 1}")
            for ip in (*(host.ip for host in self.hosts.values()), NAME_SERVER):
                subprocess.run(["ip", "address", "add", f"{ip}/32", "dev", "lo"], check=True)
            self.dns = self.helper("names.py", NAME_SERVER)
            self.dns(records=[self.hosts[name].ip for name in self.names])
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def settings(self, name):
        """What a node there needs beside the rest: an address of its own."""
        return [f"listen.addresses=/ip4/{self.hosts[name].ip}/udp/4001/quic-v1"]


__all__ = ["TOPIC", "Flat", "Host", "Late", "Node", "World", "until"]
