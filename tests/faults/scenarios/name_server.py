"""The name server dies, lies, is slow, or knows two hundred records."""

import random
import time

from node import Node, until
from record import scenario
from traffic import Traffic

RATE = 25
# dns.timeout times dns.attempts (a question may be under way when the server comes back), dial.lookup_max or
# dial.refresh and a fifth, quic.handshake_timeout.
FOUND = 4.0 + 6.0 + 5.0


@scenario("dns-dies", "the name server falls silent, then is gone (port closed); a node is killed meanwhile, another is new",
          "nothing is lost; a node that comes back at its address is connected again without any name server; "
          "the new one is found within 15 s of the server's return")
def dns_dies(run):
    with run.world("a b c d f") as world:
        world.dns(records=[world.hosts[name].ip for name in "abcd"])
        nodes = world.start(names="a b c d".split())
        with Traffic(nodes[:3], nodes[:3], RATE) as traffic:
            before = world.descriptors()
            world.dns(mode="silent")
            time.sleep(5)
            world.nodes["d"].kill()
            world.nodes["d"].start()
            _, back = until("d is connected again without a name server", world.is_whole, 60)
            server = world.helpers.pop()
            server.kill()
            server.wait()
            world.nodes["f"] = Node(world, world.hosts["f"]).start()
            time.sleep(5)
            run.promise(not world.nodes["f"].peers(), "f knows somebody: the fault did not work")
            run.promise(world.is_whole(nodes), "the others lost each other")
            world.dns = world.helper("names.py", world.name_server, host=world.hosts["names"])
            world.dns(records=[world.hosts[name].ip for name in "abcdf"])
            run.heal(world.whole_after(60), FOUND)
            run.note(f"the killed node was connected again after {back:.1f} s")
            traffic.quiet()
            run.delivery(traffic.settled())
            run.leaks(world, before)
        run.bounded(world, 64)


LIES = {
    "under another id": {"mode": "wrong-id"},
    "garbage": {"mode": "garbage"},
    "SERVFAIL": {"mode": "servfail"},
    "no such name": {"mode": "nxdomain"},
    "no record": {"mode": "empty"},
    "addresses of nobody": {"mode": "answer", "records": ["10.77.200.1", "10.77.200.2"]},
    "addresses that are none": {"mode": "answer", "records": [
        "0.0.0.0", "255.255.255.255", "224.0.0.1", "127.0.0.1", "240.0.0.1", "10.77.255.255", "10.77.0.250"]},
}


@scenario("dns-lies", "the name server answers under another id, with garbage, SERVFAIL, no such name, no record, "
          "addresses of nobody, addresses that are none; 7 s each",
          "who is connected stays connected and nothing is lost; 20 s after the truth is back, the name has its "
          "true records and no other")
def dns_lies(run):
    with run.world("a b c") as world:
        nodes = world.start()
        with Traffic(nodes, nodes, RATE) as traffic:
            before, truth = world.descriptors(), sorted(host.ip for host in map(world.hosts.get, world.names))
            ages = {}
            for lie, order in LIES.items():
                asked = sum(world.dns().values())
                world.dns(**order)
                # As long as the longest pause between two questions of a connected name, and a little.
                time.sleep(7)
                run.promise(sum(world.dns().values()) > asked, f"nobody asked while the answer was {lie}")
                run.promise(world.is_whole(), f"connections broke when the answer was {lie}")
            for node in nodes:
                ages[node.name] = min(link["age_s"] for peer in node.peers().values() for link in peer["connections"])
            run.promise(min(ages.values()) >= 7 * len(LIES) - 2, f"connections broke: the youngest are {ages} s old")
            world.dns(mode="answer", records=truth)

            def told_the_truth():
                for node in nodes:
                    (name,) = node.get("/v1/names")["names"]
                    if sorted(record["address"].split("/")[2] for record in name["records"]) != truth:
                        return False
                    if any(record["state"] not in ("connected", "own") for record in name["records"]):
                        return False
                return True

            run.heal(until("the name has its true records", told_the_truth, 60)[1], 20)
            traffic.quiet()
            run.delivery(traffic.settled())
            run.leaks(world, before)
        run.bounded(world, 64)


@scenario("dns-slow", "the name server answers after 1.5 s, then after 5 s (dns.timeout is 2 s)",
          "the mesh comes about with the slow answers; what stands is not touched by those that come too late")
def dns_slow(run):
    with run.world("a b c") as world:
        world.dns(mode="slow", delay=1.5)
        began = time.monotonic()
        nodes = world.start()
        run.note(f"whole {time.monotonic() - began:.1f} s after the first start, with answers after 1.5 s")
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            world.dns(mode="slow", delay=5.0)
            time.sleep(15)
            run.promise(world.is_whole(), "the mesh broke")
            world.dns(mode="answer")
            traffic.quiet()
            run.delivery(traffic.settled())
            run.leaks(world, before)
        run.bounded(world, 64)


# What a first pass over dead records takes: dial.parallel at a time, quic.handshake_timeout each; and one refresh.
RECORDS = 200
PASS = RECORDS / 64 * 5.0 + 6.0


@scenario("dns-200", "the name has 200 records (over TCP: they do not fit into a datagram), at 195 of them is nobody",
          "all five nodes find each other within one pass over the records, 64 at a time (22 s); memory stays bounded",
          long=True)
def dns_200(run):
    with run.world() as world:
        real = [world.hosts[name].ip for name in world.names]
        dead = [f"10.77.{n // 200 + 1}.{n % 200 + 1}" for n in range(RECORDS - len(real))]
        records = real + dead
        random.Random(f"{run.seed}/records").shuffle(records)
        world.dns(records=records)
        began = time.monotonic()
        for name in world.names:
            world.nodes[name] = Node(world, world.hosts[name]).start()
        world.whole_after(PASS + 30)
        run.heal(time.monotonic() - began, PASS)
        nodes = list(world.nodes.values())
        asked = world.dns()
        run.note(f"{asked['udp']} questions over UDP, {asked['tcp']} over TCP")
        run.promise(asked["tcp"], "nobody asked over TCP")
        for node in nodes:
            (name,) = node.get("/v1/names")["names"]
            run.promise(len(name["records"]) == RECORDS, f"{node.name} follows {len(name['records'])} records")
        before = world.descriptors()
        with Traffic(nodes, nodes, RATE) as traffic:
            time.sleep(3)
            traffic.quiet()
            run.delivery(traffic.settled())
        # Dials of the dead go on, from sockets that are there already.
        run.leaks(world, {name: n + 2 for name, n in before.items()})
        run.bounded(world, 64)
