"""What the checks of a Swarm share: the stack's tasks, waiting for what has to happen, saying it.

The nodes are asked from the host: BINARY runs in the network namespace of each task.
"""

import json
import subprocess
import sys
import time

STACK, BINARY = sys.argv[1], sys.argv[2]
SERVICES = ("bootstrap", "peer", "sender")
# The stack as it is deployed.
FIVE = {"bootstrap": 1, "peer": 3, "sender": 1}


def command(*words, timeout=60):
    return subprocess.run(words, capture_output=True, text=True, timeout=timeout, check=True).stdout


class Task:
    """A running task: its container, its process, its peer id."""

    def __init__(self, container):
        inspected = json.loads(command("docker", "inspect", container))[0]
        self.container = inspected["Id"]
        self.name = inspected["Name"].lstrip("/")
        self.short = self.name.rsplit(".", 1)[0].removeprefix(STACK + "_")
        self.service = inspected["Config"]["Labels"]["com.docker.swarm.service.name"].removeprefix(STACK + "_")
        self.pid = inspected["State"]["Pid"]
        self.peer = None
        networks = inspected["NetworkSettings"]["Networks"]
        self.ip = next(n["IPAddress"] for name, n in networks.items() if name.startswith(STACK + "_"))

    def inside(self, *words):
        return ["nsenter", "-t", str(self.pid), "-n", *words]

    def ask(self, *verb):
        return json.loads(command(*self.inside(BINARY, *verb, "--json"), timeout=20))

    def identify(self):
        if self.peer is None:
            self.peer = self.ask("status")["peer"]
        return self.peer

    def peers(self):
        return {peer["peer"]: peer for peer in self.ask("peers")["peers"]}

    def records(self, name):
        """The records of a name that it looks for, and why there are none."""
        named = next(n for n in self.ask("names")["names"] if n["name"] == name)
        return named["records"], named["last_error"]


known = {}


def tasks(*services):
    """Those that run now, of these services or of all. Raises while one comes or goes."""
    label = "com.docker.stack.namespace=" + STACK
    running = command("docker", "ps", "-q", "--no-trunc", "--filter", "label=" + label).split()
    for container in running:
        if container not in known:
            known[container] = Task(container)
    return [known[c] for c in running if not services or known[c].service in services]


def say(text):
    print(text, flush=True)


def fail(why):
    raise SystemExit(f"FAILED: {why}")


def until(what, condition, patience):
    """Waits until `condition` gives something, and returns (it, seconds)."""
    began, last = time.monotonic(), "never tried"
    while time.monotonic() - began < patience:
        try:
            found = condition()
            if found is not None and found is not False:
                return found, time.monotonic() - began
            last = getattr(condition, "why", "not so")
        except (subprocess.SubprocessError, StopIteration, KeyError, ValueError, OSError) as error:
            last = f"{error} {getattr(error, 'stderr', '') or ''}"
        time.sleep(0.1)
    fail(f"{what}: not after {patience} s ({last})")


def every(check, them):
    """A condition: `check` holds of each of these tasks."""

    def condition():
        for task in them:
            if not check(task):
                condition.why = f"{task.short}: {getattr(check, 'why', 'not so')}"
                return False
        return True

    return condition


def whole(counts):
    """A condition: that many tasks, each connected to all that can be found by name, to nobody departed."""

    def condition():
        everyone = tasks()
        there = {s: sum(t.service == s for t in everyone) for s in {*SERVICES, *counts}}
        condition.why = f"there are {there}"
        if there != counts:
            return False
        ids = {task.identify() for task in everyone}
        wanted = {task.peer for task in everyone if task.service != "sender"}
        for task in everyone:
            connected = set(task.peers())
            if not (wanted - {task.peer}) <= connected or not connected <= ids:
                missing = [t.short for t in everyone if t.peer in wanted - {task.peer} - connected]
                condition.why = f"{task.short} misses {missing}, and has {len(connected - ids)} departed"
                return False
        return True

    return condition
