"""Numbered messages from some nodes to all, and an account of what became of them."""

import http.client
import json
import socket
import threading
import time
from dataclasses import dataclass, field

from node import TOPIC, Refused, Unix


class Publisher(threading.Thread):
    """Publishes at a node, `rate` times a second."""

    def __init__(self, traffic, node, rate, padding, confirm):
        super().__init__(daemon=True)
        self.traffic, self.node, self.rate, self.padding = traffic, node, rate, " " * padding
        self.path = f"/v1/topics/{TOPIC}?wait_peers=1&timeout=5s" + (f"&confirm={confirm}" if confirm else "")
        self.going, self.number = True, 0
        # When each was asked for, and how long the answer took.
        self.took = []

    def run(self):
        connection, began, turn = None, time.monotonic(), 0
        while self.going:
            turn += 1
            self.number += 1
            # Wall clocks are not looked at: everything happens on one machine.
            key, now = (self.node.name, self.number), time.monotonic()
            try:
                connection = connection or Unix(self.node.socket)
                connection.ask("POST", self.path, json.dumps(key) + self.padding)
                self.traffic.sent[key] = now
                self.took.append((now, time.monotonic() - now))
            except (OSError, http.client.HTTPException) as error:
                # It may have been published or not: nothing was promised.
                self.traffic.refused.append((key, repr(error)))
                connection = None
                time.sleep(0.1)
            except Refused as error:
                self.traffic.refused.append((key, str(error)))
            pause = began + turn / self.rate - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            elif pause < -1:
                began, turn = time.monotonic(), 0


class Hearer(threading.Thread):
    """Follows the topic at a node, also after its restarts."""

    def __init__(self, node, resume=False):
        super().__init__(daemon=True)
        self.node, self.going = node, True
        # Whether it goes on where it was, and where that is.
        self.resume, self.position = resume, None
        self.heard = {}
        # Those that came from a memory, in the order in which they came.
        self.late = []
        self.lost, self.spans = 0, []
        self.ready = threading.Event()

    def run(self):
        while self.going:
            try:
                self.follow()
            except OSError:
                pass  # the node is gone, or not there yet
            if self.spans and self.spans[-1][1] is None:
                self.spans[-1][1] = time.monotonic()
            time.sleep(0.1)

    def follow(self):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(self.node.socket)
            resumes = f"Last-Event-ID: {self.position}\r\n" if self.resume and self.position else ""
            stream.sendall(f"GET /v1/topics/{TOPIC}?local=false HTTP/1.1\r\nHost: localhost\r\n{resumes}\r\n".encode())
            for line in stream.makefile("rb"):
                if not self.going:
                    return
                if line.startswith(b": messages"):
                    # From when on it hears; until when, once that is known.
                    self.spans.append([time.monotonic(), None])
                    self.ready.set()
                elif line.startswith(b"id: "):
                    self.position = line[4:].strip().decode()
                elif line.startswith(b"data: "):
                    told = json.loads(line[6:])
                    if "lost" in told:
                        self.lost += told["lost"]
                    elif "data" in told:
                        key = tuple(json.loads(told["data"]))
                        self.heard.setdefault(key, []).append(time.monotonic())
                        if told.get("late"):
                            self.late.append(key)


@dataclass
class Account:
    """Of messages that were due: how many, how many came, how many twice, and how late."""

    due: int = 0
    lost: int = 0
    twice: int = 0
    delays: list = field(default_factory=list)
    missing: list = field(default_factory=list)

    def __add__(self, other):
        return Account(self.due + other.due, self.lost + other.lost, self.twice + other.twice,
                       self.delays + other.delays, self.missing + other.missing)

    @property
    def rate(self):
        return (self.due - self.lost) / self.due if self.due else 0.0

    def slowest(self):
        return max(self.delays, default=0.0)

    def median(self):
        return sorted(self.delays)[len(self.delays) // 2] if self.delays else 0.0

    def __str__(self):
        return f"{self.due - self.lost} of {self.due}" + (f", {self.twice} twice" if self.twice else "")


class Traffic:
    """`rate` messages a second in all from `publishers`, with `padding` bytes each, followed at `hearers`, which go on where they
    were if they `resume`. A publish counts once `confirm` other nodes keep it."""

    def __init__(self, publishers, hearers, rate, padding=0, resume=False, confirm=0):
        self.sent, self.refused = {}, []
        self.hearers = {node.name: Hearer(node, resume) for node in hearers}
        self.publishers = [Publisher(self, node, rate / len(publishers), padding, confirm) for node in publishers]

    def __enter__(self):
        for hearer in self.hearers.values():
            hearer.start()
        for hearer in self.hearers.values():
            if not hearer.ready.wait(30):
                raise RuntimeError(f"{hearer.node.name} cannot be followed")
        for publisher in self.publishers:
            publisher.start()
        return self

    def quiet(self):
        """Ends publishing and returns when."""
        for publisher in self.publishers:
            publisher.going = False
        for publisher in self.publishers:
            publisher.join(15)
        return time.monotonic()

    def took(self, node, since):
        """How long each publish at a node took, from a moment on."""
        publishers = [publisher for publisher in self.publishers if publisher.node is node]
        return [took for publisher in publishers for at, took in list(publisher.took) if at >= since]

    def account(self, since=0.0, before=float("inf"), sources=None, hearers=None, due=None):
        """Of what was acknowledged between two moments. `due` decides on (source, hearer) pairs."""
        account = Account()
        for key, at in list(self.sent.items()):
            if not since <= at < before or sources and key[0] not in sources:
                continue
            for name, hearer in self.hearers.items():
                # What is published at a node is left out there.
                if name == key[0] or hearers and name not in hearers or due and not due(key[0], name):
                    continue
                heard = hearer.heard.get(key, [])
                account.due += 1
                account.lost += not heard
                account.twice += len(heard) > 1
                if heard:
                    account.delays.append(heard[0] - at)
                else:
                    account.missing.append((key, name, at))
        return account

    def settled(self, patience=20, **which):
        """The account once nothing is missing any more, or when patience is at its end."""
        deadline = time.monotonic() + patience
        while True:
            account = self.account(**which)
            if not account.lost or time.monotonic() > deadline:
                return account
            time.sleep(0.1)

    def __exit__(self, *_):
        self.quiet()
        for hearer in self.hearers.values():
            hearer.going = False
