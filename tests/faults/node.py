"""A smidge process in a host of the world, asked through the Unix socket of its API."""

import http.client
import json
import os
import re
import resource
import signal
import socket
import subprocess
import time
from dataclasses import dataclass

TOPIC = "numbers"
# How long a node may take for an answer, or to end, on a busy machine.
PATIENCE = 30


def until(what, condition, patience):
    """Waits until `condition` gives something, and returns (it, seconds)."""
    began, last = time.monotonic(), "never tried"
    while True:
        try:
            found = condition()
            if found is not None and found is not False:
                return found, time.monotonic() - began
            last = "not so"
        except (OSError, http.client.HTTPException, LookupError, ValueError, Refused) as error:
            last = repr(error)
        if time.monotonic() - began > patience:
            raise Late(f"{what}: not after {patience} s ({last})")
        time.sleep(0.05)


class Late(Exception):
    """What was waited for did not come."""


class Refused(Exception):
    """The API answered with an error."""

    def __init__(self, status, body):
        super().__init__(f"{status} {body.decode(errors='replace').strip()}")
        self.status = status


def is_dynamic(binary):
    """Whether a loader starts it, as nothing can be preloaded into it otherwise."""
    with open(binary, "rb") as file:
        return b"/ld-" in file.read(4096)


class Unix(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path, timeout=PATIENCE):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self.path)

    def ask(self, method, path, body=None):
        self.request(method, path, body)
        answer = self.getresponse()
        content = answer.read()
        if answer.status >= 300:
            raise Refused(answer.status, content)
        return content


@dataclass
class Reading:
    """What the kernel says of a process. Sizes in MiB, seconds of CPU time."""

    resident: float
    # Of it, what no file lies behind: heap and stacks.
    anonymous: float
    peak: float
    descriptors: int
    cpu: float

    @classmethod
    def of(cls, pid):
        with open(f"/proc/{pid}/status") as status:
            fields = dict(line.split(":", 1) for line in status)
        with open(f"/proc/{pid}/stat") as stat:
            ticks = stat.read().rpartition(")")[2].split()[11:13]
        mib = lambda name: int(fields[name].split()[0]) / 1024
        return cls(mib("VmRSS"), mib("RssAnon"), mib("VmHWM"), len(os.listdir(f"/proc/{pid}/fd")),
                   sum(map(int, ticks)) / os.sysconf("SC_CLK_TCK"))


class Node:
    """A node of the mesh; its key lives in its directory and outlives a restart."""

    def __init__(self, world, host, settings=(), environment=None):
        self.world, self.host, self.name = world, host, host.name
        self.settings, self.environment = list(settings), environment or {}
        self.directory = os.path.join(world.directory, self.name)
        os.makedirs(self.directory, exist_ok=True)
        self.log = os.path.join(self.directory, "log")
        self.socket = os.path.join(self.directory, "api")
        self.process, self.peer, self.runs = None, None, 0

    def start(self):
        """Starts it and waits until it answers."""
        settings = [
            f"api.listen=unix:{self.socket}", f"identity.key_file={self.directory}/key", "dial.names=mesh:4001",
            f"dns.servers={self.world.name_server}", "dns.hosts=", "dns.resolv_conf=", f"gossip.topics={TOPIC}",
            *self.settings,
        ]
        words = [self.world.binary, "run", *(word for s in settings for word in ("--set", s))]
        with open(self.log, "ab") as log:
            self.process = subprocess.Popen(self.host.inside(*words), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                            env={**self.environment, "COLUMNS": "100"})
        self.runs += 1
        self.peer = until(f"{self.name} answers", self.identify, PATIENCE)[0]
        return self

    def identify(self):
        if self.process.poll() is not None:
            raise RuntimeError(f"{self.name} ended with {self.process.returncode}:\n{self.tail()}")
        return self.get("/v1/status")["peer"]

    def ask(self, method, path, body=None):
        with_socket = Unix(self.socket)
        try:
            return with_socket.ask(method, path, body)
        finally:
            with_socket.close()

    def get(self, path):
        return json.loads(self.ask("GET", path))

    def peers(self):
        return {peer["peer"]: peer for peer in self.get("/v1/peers")["peers"]}

    def mesh(self):
        return set(self.get("/v1/mesh")["topics"].get(TOPIC, []))

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def reading(self):
        return Reading.of(self.process.pid)

    def forget_peak(self):
        """Lets the peak of its memory begin anew (proc(5), clear_refs)."""
        with open(f"/proc/{self.process.pid}/clear_refs", "w") as refs:
            refs.write("5")

    def limit_descriptors(self, most):
        _, hard = resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE)
        resource.prlimit(self.process.pid, resource.RLIMIT_NOFILE, (most, hard))

    def signal(self, number):
        os.kill(self.process.pid, number)

    def stop(self):
        """Ends it in good order; its exit code."""
        self.signal(signal.SIGTERM)
        try:
            return self.process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            self.kill()
            return "no answer to SIGTERM"

    def kill(self):
        if self.alive():
            self.process.kill()
        if self.process is not None:
            self.process.wait()

    def said(self):
        with open(self.log, errors="replace") as log:
            return log.read()

    def tail(self, lines=12):
        """Its last lines, but for those about single messages."""
        news = [line for line in self.said().splitlines(keepends=True) if not re.search(" (message|published) 12D3", line)]
        return "".join(news[-lines:])

    def panics(self):
        return re.findall(r"^.*panicked.*$", self.said(), re.M)
