"""Strangers who claim too much, begin too much and are too many: what they make a do, and who gets in all the same.

As in hostile.py, the victim is a, and the hostile peer is at x.
"""

import socket
import threading
import time

from node import Late, Node, Refused, Unix, until
from record import scenario
from .hostile import RATE, SHARE, attack, lasts

VICTIM = "10.77.0.1:4001"
# Of a processor, under attack.
BUSY = 0.3
# How long a newcomer is waited for, who should be there at once.
PATIENCE = 10
# What kad allows, and what is kept of a peer that says where it is (src/node/claims.rs).
ANSWER, OWN = 16 << 10, 16
# Dials to what peers claim: in a burst and a second, in all and to one host (src/node/dial_budget.rs).
ALL, HOST = (128, 16), (32, 4)
# A host's own network, which nobody else is in, and others that nobody here is in.
OTHER_NETWORK = "172.30.0."
FORBIDDEN = ("127.", "169.254.", OTHER_NETWORK)
# Where the made-up peers are that x could reach himself: 10.77.128.0 and beyond.
SHARED = tuple(f"10.77.{n}." for n in range(128, 256))


def most(budget, seconds):
    """Destinations that may be dialed in that time."""
    burst, rate = budget
    return burst + rate * (seconds + 1)


def sniffed(world, prefixes):
    """Packets and ports at addresses that begin so."""
    told = [counts for ip, counts in world.sniffer().items() if ip.startswith(prefixes)]
    return sum(packets for packets, _ in told), sum(ports for _, ports in told)


def watch(world):
    world.sniffer = world.helper("sniffer.py", host=world.hosts["a"])


def news(node):
    """Lines of its log, but for those about single messages."""
    return sum(" message 12D3" not in line and " published " not in line for line in node.said().splitlines())


def look_up(node, key):
    """Asks for what nobody has, and does not wait long for those who do not exist."""
    caller = Unix(node.socket, timeout=1)
    try:
        caller.ask("GET", f"/v1/dht/{key}")
    except TimeoutError:
        pass
    except Refused as refused:
        # A question that the node does not understand would look up nothing.
        if 400 <= refused.status < 500 and refused.status != 404:
            raise
    finally:
        caller.close()


def joins(world, name, settings=(), ready=lambda: None):
    """Seconds until a new node and a are connected, by both accounts; it is gone again afterwards."""
    a, node = world.nodes["a"], Node(world, world.hosts[name], settings)
    world.nodes[name] = node
    try:
        node.start()
        ready()
        both = lambda: a.peer in node.peers() and node.peer in a.peers()
        return until(f"{name} and a are connected", both, PATIENCE)[1]
    except Late:
        return float("inf")
    finally:
        if node.alive():
            node.stop()
        del world.nodes[name]


def record_passes(run, world):
    """What one of ours stores, another one finds."""
    world.nodes["b"].ask("PUT", "/v1/dht/colour", b"blue")
    run.promise(world.nodes["c"].ask("GET", "/v1/dht/colour") == b"blue", "the record is not what was put")
    run.promise(world.nodes["a"].ask("GET", "/v1/dht/colour") == b"blue", "a does not find the record")


@scenario("pushes", "a peer pushes identify 100 times a second, each time with 300 new addresses of its own host (4 KiB), and "
          "comes back when it is thrown out; a is asked for keys that nobody has",
          f"of its addresses at most {OWN} are kept and passed on; answers of the hash table fit ({ANSWER >> 10} KiB), records are "
          "found; at most 32 dials to its host, and 4 more a second; few lines in the log; /healthz is answered within 50 ms (half "
          f"of them); at most {BUSY:.0%} of a processor; nobody else notices", lane="loud")
def pushes(run):
    with attack(run, "pushes", VICTIM, prepare=watch, busy=BUSY) as (world, hostile):
        a, x = world.nodes["a"], world.hosts["x"].ip
        lines, began = news(a), time.monotonic()
        lasts(5, hostile)
        for n in range(5):
            look_up(a, f"nothing-{n}")
            time.sleep(1)
        record_passes(run, world)
        told, lines, took = dict(hostile.last), news(a) - lines, time.monotonic() - began
        _, ports = sniffed(world, (x,))
        run.promise(told["answer"] > 0, "a said nothing of it")
        run.promise(told["answer"] <= ANSWER, f"an answer of the hash table had {told['answer']} bytes")
        run.promise(told["addresses"] <= OWN, f"a passes on {told['addresses']} of its addresses")
        # It has two connections of its own.
        run.promise(ports <= most(HOST, took) + 2, f"a dialed {ports} ports of its host")
        run.promise(lines <= 10 * took, f"{lines} lines in the log")
        run.note(f"{told['succeeded'] / took:.0f} pushes a second; the longest answer {told['answer']} bytes, with "
                 f"{told['addresses']} addresses of it; {ports} ports of its host were sent to; {lines} lines in the log")


@scenario("lies", "a peer answers a's questions to the hash table with 20 peers that do not exist, at a's loopback, on its link, "
          "in another network of a's, and all over the one that both are in",
          "nothing is sent to where the peer could not send itself; of the rest, at most 128 destinations are dialed, and 16 more "
          f"a second; records are found; at most {BUSY:.0%} of a processor; nobody else notices", lane="loud")
def lies(run):
    def prepare(world):
        host = world.hosts["a"]
        host.run("ip", "address", "add", f"{OTHER_NETWORK}1/24", "dev", "eth0")
        # Whatever is sent, wherever, is to be seen.
        host.run("ip", "route", "add", "default", "dev", "eth0")
        watch(world)

    with attack(run, "lies", VICTIM, prepare=prepare, busy=BUSY) as (world, hostile):
        a, going, began = world.nodes["a"], True, time.monotonic()

        def ask():
            number = 0
            while going:
                number += 1
                look_up(a, f"nothing-{number}")
                time.sleep(0.2)

        asking = [threading.Thread(target=ask, daemon=True) for _ in range(2)]
        for thread in asking:
            thread.start()
        lasts(10, hostile)
        record_passes(run, world)
        going = False
        for thread in asking:
            thread.join(60)
        took = time.monotonic() - began
        packets, forbidden = sniffed(world, FORBIDDEN)
        _, others = sniffed(world, SHARED)
        run.promise(hostile.last["succeeded"] >= 10, f"a asked the hostile peer {hostile.last['succeeded']} times only")
        run.promise(not packets, f"{packets} packets to {forbidden} destinations that the peer could not reach")
        run.promise(others <= most(ALL, took), f"{others} destinations were dialed in {took:.0f} s")
        run.note(f"{hostile.last['succeeded']} answers with 20 peers each; in {took:.0f} s a dialed {others} made-up destinations "
                 f"that the peer could reach itself, and {forbidden} that it could not")


@scenario("initials", "500 handshakes a second over QUIC are begun and left, half of them from 32 addresses where nobody is",
          "a newcomer is connected to a within 1 s of being there; no connection between the nodes breaks, nothing is lost; at most "
          f"{BUSY:.0%} of a processor", lane="loud")
def initials(run):
    def prepare(world):
        # x may send from all of these.
        world.hosts["x"].run("ip", "route", "add", "local", "10.77.9.0/24", "dev", "lo")

    with attack(run, "initials", VICTIM, prepare=prepare, others="ghi", busy=BUSY) as (world, hostile):
        lasts(3, hostile)
        sent, began, took = hostile.last["succeeded"], time.monotonic(), []
        for name in "fghi":
            took.append(joins(world, name))
            time.sleep(1)
        rate = (hostile.last["succeeded"] - sent) / (time.monotonic() - began)
        run.promise(max(took) <= 1, f"newcomers were connected after {seconds(took)}")
        run.promise(rate >= 300, f"the hostile peer sent {rate:.0f} a second only")
        run.note(f"{rate:.0f} first packets a second; four newcomers were connected after {seconds(took)}")


@scenario("strangers", "512 connections of as many peers from one address, all kept open: as many as limits.connections",
          f"they get {SHARE} (limits.per_address); a replica behind the name that dials a is connected within 2 s of being there, one "
          "that does not dial within 2 s of its record; no connection between the nodes breaks", lane="loud")
def strangers(run):
    def prepare(world):
        world.dns(records=[world.hosts[name].ip for name in "abcdf"])

    # The name is looked up often enough for a to know of the other one in time.
    settings = ["dial.refresh=500ms"]
    with attack(run, "connections", VICTIM, "512", prepare=prepare, settings=settings, others="g", busy=BUSY) as (world, hostile):
        a = world.nodes["a"]
        until("all connections are tried", lambda: hostile.last["done"], 120)
        most_peers = len(a.peers())
        dialing = joins(world, "f")
        record = lambda: world.dns(records=[world.hosts[name].ip for name in "abcdfg"])
        dialed = joins(world, "g", ["dial.names="], record)
        run.promise(most_peers <= SHARE + len(world.nodes), f"a had {most_peers} peers")
        run.promise(max(dialing, dialed) <= 2, f"replicas were connected after {seconds([dialing, dialed])}")
        run.note(f"a had {most_peers} peers; replicas were connected after {seconds([dialing, dialed])} (dialing, dialed)")


@scenario("flood", "a stranger publishes 50 messages of 60 kB a second on a topic that a follows, signed as they should be (3 MB/s)",
          "memory stays below limits.memory and 8 MiB, and is given back within two minutes (musl); the mesh's own topic loses nothing",
          lane="loud")
def flood(run):
    with attack(run, "flood", VICTIM) as (world, hostile):
        a = world.nodes["a"]
        with socket.socket(socket.AF_UNIX) as reader:
            # The others do not follow it: nothing of it is on the links between a and them.
            reader.connect(a.socket)
            reader.sendall(b"GET /v1/topics/flood HTTP/1.1\r\nHost: localhost\r\n\r\n")
            threading.Thread(target=take_all, args=(reader,), daemon=True).start()
            began, before = time.monotonic(), a.get("/v1/status")["traffic"]["received"]
            lasts(8, hostile)
            rate = (a.get("/v1/status")["traffic"]["received"] - before) / (time.monotonic() - began)
        run.promise(rate > 1.5 * RATE, f"a took {rate:.0f} messages a second only")
        run.note(f"a took {rate:.0f} messages a second, its own mesh's among them")


def take_all(reader):
    try:
        while reader.recv(1 << 20):
            pass
    except OSError:
        pass  # it was closed


@scenario("never-read", "40 peers join the mesh of the topic at a, where 25 messages of 16 KiB a second are, and never read",
          "what waits for them is bounded, they lose their places in the mesh; who publishes waits 3 s for them once, and half of all "
          "messages for nothing", lane="loud")
def never_read(run):
    with attack(run, "deaf", VICTIM, "40", busy=BUSY, padding=16 << 10) as (world, hostile):
        a = world.nodes["a"]
        ours = {node.peer for node in world.nodes.values()}
        until("all are connected", lambda: hostile.last["done"], 60)
        until("one is in the mesh", lambda: a.mesh() - ours, 30)
        _, gone = until("none of them is in the mesh", lambda: not a.mesh() - ours, 60)
        run.note(f"{hostile.last['succeeded']} joined; none was in the mesh any more after {gone:.1f} s")


@scenario("names", "a peer follows 1024 topics with names of 15,000 bytes, and comes back when it is thrown out",
          "no name of more than 256 bytes is kept", lane="loud")
def names(run):
    with attack(run, "names", VICTIM, busy=BUSY) as (_, hostile):
        lasts(8, hostile)


@scenario("topics", "callers of a's API follow 8000 different topics, one after the other, and leave them",
          "nothing is kept of a topic that is left: memory after the last 6000 is what it was after the first 2000, but for 1 MiB")
def topics(run):
    with run.world("a b") as world:
        a = world.start()[0]

        def follow(numbers):
            for number in numbers:
                with socket.socket(socket.AF_UNIX) as caller:
                    caller.connect(a.socket)
                    caller.sendall(f"GET /v1/topics/topic-{number} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
                    caller.settimeout(PATIENCE)
                    caller.recv(1 << 12)

        def followed():
            return [name for name in a.get("/v1/status")["topics"] if name.startswith("topic-")]

        def all_of(numbers):
            callers = [threading.Thread(target=follow, args=(numbers[n::4],)) for n in range(4)]
            for caller in callers:
                caller.start()
            for caller in callers:
                caller.join()
            until("all are left", lambda: not followed(), 60)
            time.sleep(1)
            return a.reading().anonymous

        first, last = all_of(range(2000)), all_of(range(2000, 8000))
        run.promise(last <= first + 1, f"{first:.1f} MiB after 2000 topics, {last:.1f} after 8000")
        run.note(f"{first:.1f} MiB of anonymous memory after 2000 topics, {last:.1f} after 8000")
        run.memory(world)


def seconds(times):
    return ", ".join("never" if took == float("inf") else f"{took:.2f} s" for took in times)
