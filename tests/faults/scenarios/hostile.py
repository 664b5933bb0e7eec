"""Peers that mean harm (bench/src/bin/hostile.rs): connections, invalid gossip, kad junk, streams, without end.

The victim is a; the others and the traffic of all of them must not notice. Throughout each of them /healthz and publishing at
a take less than 50 ms (the median), puts that another node confirms less than 100, memory stays below limits.memory and 8 MiB, and what
it took is given back within two minutes (musl).
"""

import http.client
import json
import resource
import socket
import subprocess
import threading
import time
from contextlib import contextmanager

from node import Node, Refused, is_dynamic, until
from record import scenario
from traffic import Traffic

RATE = 25
# limits.memory, and what may come on top of it.
MEMORY, BESIDE = 64, 8
# The median of what a answers by itself, and of what another node has to confirm, in seconds.
AT_ONCE, CONFIRMED = 0.05, 0.1
# MiB that may be there two minutes after an attack beyond what was there before, in a static binary. glibc keeps what is
# free between what is not.
KEPT = 4
# The shortest time, in seconds, over which the processor's share is taken.
WINDOW = 6
CONNECTIONS = 10_000
# limits.per_address, by default: half of limits.inbound, which is three quarters of limits.connections.
SHARE = 192


class Hostile:
    """The hostile process, and what it says of itself."""

    def __init__(self, run, world, *words):
        self.last, self.peer = {"tried": 0, "succeeded": 0, "answer": 0, "addresses": 0, "done": False}, None
        raised = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (resource.getrlimit(resource.RLIMIT_NOFILE)[1],) * 2)
        self.process = subprocess.Popen(world.hosts["x"].inside(run.hostile, *words), stdout=subprocess.PIPE, text=True,
                                        preexec_fn=raised)
        threading.Thread(target=self.read, daemon=True).start()

    def read(self):
        for line in self.process.stdout:
            told = json.loads(line)
            self.peer = told.get("peer", self.peer)
            self.last.update(told)

    def end(self):
        ended = self.process.poll()
        self.process.kill()
        self.process.wait()
        return ended


class Prober(threading.Thread):
    """Does something at a node again and again; notes how long that took, and the most memory the node had."""

    def __init__(self, node, what, pause=0.05):
        super().__init__(daemon=True)
        self.node, self.what, self.pause = node, what, pause
        self.going, self.took, self.failed, self.anonymous = True, [], [], 0.0
        self.start()

    def run(self):
        while self.going:
            began = time.monotonic()
            try:
                self.what()
                self.took.append(time.monotonic() - began)
                self.anonymous = max(self.anonymous, self.node.reading().anonymous)
            except (OSError, http.client.HTTPException, Refused) as error:
                self.failed.append(repr(error))
            time.sleep(self.pause)

    def end(self):
        self.going = False
        self.join()


def median(took):
    """The median and the slowest; endless if there was none."""
    took = sorted(took) or [float("inf")]
    return took[len(took) // 2], took[-1]


def returned(run, node, before):
    """How much anonymous memory a node has when what it took has been given back, in MiB, and seconds until then."""
    if is_dynamic(node.world.binary):
        time.sleep(2)
        return node.reading().anonymous, 2
    began, least = time.monotonic(), float("inf")
    while least > before + KEPT and time.monotonic() - began < 120:
        least = min(least, node.reading().anonymous)
        time.sleep(0.2)
    run.promise(least <= before + KEPT, f"of anonymous memory {node.name} had {before:.1f} MiB before, and {least:.1f} two minutes after")
    return least, time.monotonic() - began


@contextmanager
def attack(run, *words, prepare=None, settings=(), others=(), busy=None, padding=0):
    """A mesh with traffic in which `words` are let loose on a; checks afterwards that nobody noticed.

    `prepare(world)` comes before all nodes. a may use `busy` of a processor, if that is given. Messages are longer by `padding`.
    """
    with run.world("a b c d f", others=["x", *others]) as world:
        world.dns(records=[world.hosts[name].ip for name in "abcd"])
        if prepare:
            prepare(world)
        nodes = world.start(settings, names="a b c d".split())
        with Traffic(nodes, nodes, RATE, padding) as traffic:
            before = world.descriptors()
            time.sleep(1)
            quiet = nodes[0].reading().anonymous
            cpu, began = [node.reading().cpu for node in nodes], time.monotonic()
            a = nodes[0]
            prober = Prober(a, lambda: a.ask("GET", "/healthz"))
            puts = Prober(a, lambda: a.ask("PUT", "/v1/dht/probe?quorum=one", b"x"), 0.2)
            hostile = Hostile(run, world, *words)
            try:
                yield world, hostile
                time.sleep(max(0.0, began + WINDOW - time.monotonic()))
                if hostile.end() is not None:
                    raise RuntimeError(f"the hostile peer ended by itself: {hostile.last}")
                took = time.monotonic() - began
                used = [(node.reading().cpu - used) / took for node, used in zip(nodes, cpu)]
            finally:
                hostile.end()
                prober.end()
                puts.end()
            published = median(traffic.took(a, began))
            run.promise(busy is None or used[0] <= busy, f"a used {used[0]:.0%} of a processor")
            health, put = median(prober.took), median(puts.took)
            run.promise(not prober.failed, f"/healthz was not answered: {prober.failed[:3]}")
            run.promise(not puts.failed, f"puts failed: {puts.failed[:3]}")
            for name, (half, slowest), most in (("/healthz", health, AT_ONCE), ("a publish", published, AT_ONCE), ("a put", put, CONFIRMED)):
                run.promise(half < most and slowest < 5, f"{name} took {half:.3f} s in the median, {slowest:.3f} s at most")
            run.promise(world.is_whole(), "the mesh is not whole after the attack")
            traffic.quiet()
            account = traffic.settled()
            run.delivery(account)
            run.note(f"{hostile.last['succeeded']} of {hostile.last['tried']} tries got through in {took:.0f} s; a used "
                     f"{used[0]:.0%} of a processor, the others {max(used[1:]):.0%}; in ms, median and at most: /healthz "
                     f"{milliseconds(health)}, publish {milliseconds(published)}, put {milliseconds(put)}; slowest message "
                     f"{account.slowest():.2f} s")
            least, after = returned(run, nodes[0], quiet)
            run.note(f"of anonymous memory a had {quiet:.1f} MiB before, {prober.anonymous:.1f} at most, and {least:.1f} "
                     f"{after:.0f} s after")
            # As if nothing had been: somebody new is let in at once.
            world.dns(records=[world.hosts[name].ip for name in world.names])
            world.nodes["f"] = Node(world, world.hosts["f"]).start()
            run.heal(world.whole_after(60), 30)
            run.leaks(world, before)
        run.bounded(world, MEMORY + BESIDE)


def milliseconds(times):
    return " and ".join("never" if took == float("inf") else f"{took * 1000:.0f}" for took in times)


def lasts(seconds, hostile):
    """The attack goes on for so long."""
    until("the hostile peer gets through", lambda: hostile.last["succeeded"] > 0, 60)
    time.sleep(seconds)


@scenario("connections", f"{CONNECTIONS} connection attempts from one address, each as another peer, 64 at a time, none closed",
          "no message is lost, no connection between the nodes breaks; one address "
          f"has {SHARE} of a's 512 connections (limits.per_address), and the rest stays free; a new node is let in", lane="loud")
def connections(run):
    with attack(run, "connections", "10.77.0.1:4001", str(CONNECTIONS)) as (world, hostile):
        most = 0

        def done():
            nonlocal most
            most = max(most, len(world.nodes["a"].peers()))
            return hostile.last["done"]

        until("all attempts are made", done, 240)
        run.note(f"a had {most} peers at most, the nodes among them")
        run.promise(most <= SHARE + len(world.nodes), f"a had {most} peers")
        ours = {node.peer for node in world.nodes.values()}
        run.promise(set(world.nodes["a"].peers()) >= ours - {world.nodes["a"].peer}, "a lost one of ours")


@scenario("gossip-flood", "a peer sends 1000 messages a second without the signature that strict validation wants",
          "its score sinks below the graylist threshold: it is out of the mesh and nothing it says is looked at any more (its "
          "connection stands); "
          "nobody is told any of them, nobody else loses or waits for anything", lane="loud")
def gossip_flood(run):
    with attack(run, "gossip", "10.77.0.1:4001") as (world, hostile):
        a = world.nodes["a"]
        worst = 0.0

        def sunk():
            nonlocal worst
            peer = a.peers().get(hostile.peer)
            worst = min(worst, peer["score"]) if peer and peer["score"] is not None else worst
            return worst < -80 and hostile.peer not in a.mesh()

        _, seconds = until("its score sinks and it is out of the mesh", sunk, 30)
        lasts(8, hostile)
        run.promise(hostile.peer not in a.mesh(), "it is in the mesh again")
        run.note(f"below the graylist threshold (-80) and out of the mesh after {seconds:.1f} s")
        told = [name for name, node in world.nodes.items() if ", 200 bytes" in node.said()]
        run.promise(not told, f"its messages were told at {told}")


@scenario("kad-junk", "a peer sends garbage, oversized frames, made-up records and providers to the hash table without end",
          "no panic, bounded memory and records, other nodes' puts and gets work, the node's own are always taken, "
          "nobody else notices", lane="loud")
def kad_junk(run):
    with attack(run, "kad", "10.77.0.1:4001") as (world, hostile):
        lasts(8, hostile)
        a, b, c = (world.nodes[name] for name in "abc")
        until("the store is full", lambda: a.get("/v1/status")["store"]["refused"] > 0, 60)
        b.ask("PUT", "/v1/dht/colour", b"blue")
        run.promise(c.ask("GET", "/v1/dht/colour") == b"blue", "the record is not what was put")
        for n in range(100):
            a.ask("PUT", f"/v1/dht/own-{n}?quorum=one", b"mine")
        run.promise(all(a.ask("GET", f"/v1/dht/own-{n}") == b"mine" for n in range(100)), "a's own records are not kept")
        store = a.get("/v1/status")["store"]
        run.promise(store["records"] <= 1024, f"a keeps {store['records']} records")
        run.note(f"a keeps {store['records']} records (kad.max_records is 1024), 100 of them its own, all taken; "
                 f"{store['refused']} were refused, {store['displaced']} made room")


@scenario("streams", "a peer opens streams without end: silent ones, half negotiated ones, ones that then say nothing",
          "no panic, bounded memory; nobody else notices", lane="loud")
def streams(run):
    with attack(run, "streams", "10.77.0.1:4001") as (_, hostile):
        lasts(10, hostile)


@scenario("idle-callers", "170 callers of a node's API say nothing, 170 half a request, 170 ask and do not take their leave",
          "/healthz and /readyz are answered throughout, each within 5 s, half of them within 50 ms; what else is asked is "
          "answered, too, or told that there are too many callers")
def idle_callers(run):
    with run.world("a b") as world:
        world.dns(records=[world.hosts[name].ip for name in "ab"])
        a = world.start(names=["a", "b"])[0]
        took = []
        for said in (b"", b"GET /healthz HTTP/1.1\r\nHost: ", b"GET /v1/status HTTP/1.1\r\nHost: localhost\r\n\r\n"):
            callers = []
            for _ in range(170):
                caller = socket.socket(socket.AF_UNIX)
                caller.connect(a.socket)
                callers.append(caller)
                try:
                    caller.send(said)
                except OSError:
                    pass  # it was one too many
            for probe in ["/healthz", "/readyz"] * 10:
                began = time.monotonic()
                a.get(probe)
                took.append(time.monotonic() - began)
            until("a place that another one left", lambda: a.get("/v1/status"), 10)
            for caller in callers:
                caller.close()
        half, slowest = median(took)
        run.promise(half < 0.05 and slowest < 5, f"probes took {half:.3f} s in the median, {slowest:.3f} s at most")
        run.note(f"{len(took)} probes answered, half within {half * 1000:.1f} ms, the slowest after {slowest * 1000:.1f} ms")
