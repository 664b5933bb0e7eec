"""The link between the hosts: carries IP packets between TUN devices and impairs them from a seed.

    link.py CONTROL SEED HOST=PID…

Makes a TUN device for each host and moves it into the network namespace of PID under the name eth0; what a host
sends there comes out here. Every direction between two hosts has a random generator of its own, seeded from SEED
and both names, and each packet draws the same numbers from it in the same order: what happens to the nth packet
of a direction does not depend on any clock or on any other direction. (The test machines' kernels have no netem.)
"""

import fcntl
import heapq
import os
import random
import select
import socket
import struct
import subprocess
import sys
import time
from dataclasses import dataclass, field

import control

TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 1, 0x1000
# Packets that may be on their way in one direction; more are lost, as in any queue.
QUEUE = 4096
# Packets read from one host before the others get their turn.
READS = 64
# What an impairment is until it is set. Seconds, bytes, bytes a second, probabilities.
CLEAR = {"loss": 0.0, "delay": 0.0, "jitter": 0.0, "reorder": 0.0, "hold": 0.02, "duplicate": 0.0, "mtu": 65535,
         "rate": 0, "cut": False}


@dataclass
class Direction:
    """From one host to another."""

    draw: object
    device: int
    how: dict = field(default_factory=lambda: dict(CLEAR))
    # No packet leaves before the one in front of it, but for those that are reordered.
    last: float = 0.0
    # When the link is free again, if it has a rate.
    free: float = 0.0
    under_way: int = 0
    count: dict = field(default_factory=lambda: dict.fromkeys(
        ("carried", "lost", "cut", "too_large", "overflow", "duplicated", "reordered", "refused"), 0))


class Link:
    def __init__(self, seed, hosts):
        self.seed, self.hosts = seed, hosts
        self.owners = {}
        self.names = {device: name for name, device in hosts.items()}
        self.directions = {(a, b): Direction(random.Random(f"{seed}/{a}>{b}").random, hosts[b])
                           for a in hosts for b in hosts if a != b}
        self.nobody = 0
        self.due, self.order = [], 0

    def obey(self, order):
        do = order.pop("do")
        if do == "address":
            owner = order["host"]
            self.owners[socket.inet_aton(order["ip"])] = owner and self.hosts[owner] and owner
        elif do == "set":
            everybody = list(self.hosts)
            senders, receivers = order.pop("sender", everybody), order.pop("receiver", everybody)
            unknown = set(order) - set(CLEAR)
            if unknown:
                raise ValueError(f"no impairment {unknown}")
            for sender in senders:
                for receiver in receivers:
                    if sender != receiver:
                        self.directions[sender, receiver].how.update(order)
        elif do == "count":
            total = {"nobody": self.nobody}
            for direction in self.directions.values():
                for what, n in direction.count.items():
                    total[what] = total.get(what, 0) + n
            return total
        else:
            raise ValueError(f"no order {do!r}")

    def take(self, sender, packet, now):
        """A packet came out of a host."""
        owner = self.owners.get(packet[16:20]) if packet[0] >> 4 == 4 else None
        if owner is None or owner == sender:
            self.nobody += 1
            return
        way = self.directions[sender, owner]
        how, count, draw = way.how, way.count, way.draw
        lost, twice, late, shake, held = draw(), draw(), draw(), draw(), draw()
        if how["cut"]:
            count["cut"] += 1
        elif len(packet) > how["mtu"]:
            count["too_large"] += 1
        elif lost < how["loss"]:
            count["lost"] += 1
        elif way.under_way >= QUEUE:
            count["overflow"] += 1
        else:
            leaves = now
            if how["rate"]:
                way.free = max(way.free, now) + len(packet) / how["rate"]
                leaves = way.free
            at = leaves + how["delay"] + how["jitter"] * (2 * shake - 1)
            if late < how["reorder"]:
                count["reordered"] += 1
                at += how["hold"] * (0.5 + held)
            else:
                at = way.last = max(at, way.last)
            self.send(way, at, packet, now)
            if twice < how["duplicate"]:
                count["duplicated"] += 1
                self.send(way, at, packet, now)

    def send(self, way, at, packet, now):
        if at <= now:
            self.deliver(way, packet)
        else:
            way.under_way += 1
            self.order += 1
            heapq.heappush(self.due, (at, self.order, way, packet))

    def deliver(self, way, packet):
        try:
            os.write(way.device, packet)
            way.count["carried"] += 1
        except OSError:  # the host takes nothing: its device is down, or its queue full
            way.count["refused"] += 1

    def deliver_due(self, now):
        while self.due and self.due[0][0] <= now:
            _, _, way, packet = heapq.heappop(self.due)
            way.under_way -= 1
            # A host that was cut off meanwhile gets nothing.
            if way.how["cut"]:
                way.count["cut"] += 1
            else:
                self.deliver(way, packet)

    def patience(self, now):
        return max(0.0, self.due[0][0] - now) if self.due else None


def device(name, pid):
    """A TUN device that the processes in the network namespace of `pid` see as eth0."""
    tun = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
    fcntl.ioctl(tun, TUNSETIFF, struct.pack("16sH22x", name.encode(), IFF_TUN | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", name, "netns", pid, "name", "eth0"], check=True)
    return tun


def main():
    path, seed, *hosts = sys.argv[1:]
    pairs = [host.split("=") for host in hosts]
    link = Link(seed, {name: device(f"tun{n}", pid) for n, (name, pid) in enumerate(pairs)})
    server = control.Server(path, link.obey)
    waiting = select.epoll()
    for tun in link.names:
        waiting.register(tun, select.EPOLLIN)
    files = {}

    def wait_for(file):
        files[file.fileno()] = file
        waiting.register(file, select.EPOLLIN)

    for file in server.files():
        wait_for(file)
    while True:
        for ready, _ in waiting.poll(link.patience(time.monotonic())):
            if ready in link.names:
                sender = link.names[ready]
                for _ in range(READS):
                    try:
                        packet = os.read(ready, 65535)
                    except BlockingIOError:
                        break
                    link.take(sender, packet, time.monotonic())
                continue
            fresh, gone = server.serve(files[ready])
            if fresh:
                wait_for(fresh)
            if gone:
                waiting.unregister(gone)
                del files[ready]
                gone.close()
        link.deliver_due(time.monotonic())


if __name__ == "__main__":
    main()
