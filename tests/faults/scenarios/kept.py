"""Topics that remember: nodes that are frozen, cut off, killed, or have other clocks, and miss nothing."""

import os
import signal
import time
from datetime import datetime

from node import TOPIC, Node, until
from record import scenario
from scenarios.partitions import RETRY, SLACK, caught_up
from scenarios.process import faketime
from traffic import Traffic

RATE = 100


def keep(more):
    return f"topics={{ {TOPIC} = {{ keep = {{ messages = 20000, {more} }} }} }}"


def nothing_missed(run, world, traffic, began, ended, names):
    """All that was said between two moments is at these nodes, each once, the late of it in order."""
    run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
    healed = time.monotonic()
    time.sleep(3)
    traffic.quiet()
    run.delivery(traffic.settled())
    missed = traffic.account(since=began, before=ended, hearers=names)
    run.note(f"of {missed.due} messages for {', '.join(sorted(names))} meanwhile, {missed.lost} are missing")
    caught_up(run, traffic, missed, healed)


@scenario("frozen-kept", "a node is stopped (SIGSTOP) for 15 s at 100 messages a second, of a topic with keep",
          "connected again within 35 s of going on, and 2 s later nothing is missing anywhere: each message once, and what came "
          "late in order per author")
def frozen_kept(run):
    with run.world("a b c") as world:
        nodes = world.start(settings=[keep('age = "10m"')])
        c, others = world.nodes["c"], [n for n in nodes if n.name != "c"]
        with Traffic(others, nodes, RATE) as traffic:
            time.sleep(2)
            c.signal(signal.SIGSTOP)
            began = time.monotonic()
            time.sleep(15)
            c.signal(signal.SIGCONT)
            nothing_missed(run, world, traffic, began, time.monotonic(), {"c"})
        run.bounded(world, 64)


@scenario("cut-kept", "a node is cut off for 10 s at 100 messages a second, of a topic with keep",
          "connected again within 35 s, and 2 s later nothing is missing on either side: each message once, and what came late in "
          "order per author")
def cut_kept(run):
    with run.world("a b c") as world:
        nodes = world.start(settings=[keep('age = "10m"')])
        with Traffic(nodes, nodes, RATE) as traffic:
            time.sleep(2)
            began = time.monotonic()
            for one, other in ((["c"], ["a", "b"]), (["a", "b"], ["c"])):
                world.link(do="set", sender=one, receiver=other, cut=True)
            time.sleep(10)
            world.link(do="set", cut=False)
            nothing_missed(run, world, traffic, began, time.monotonic(), {"a", "b", "c"})
        run.bounded(world, 64)


@scenario("killed-durable", "three of five nodes are killed (SIGKILL) at the same time, at 100 messages a second, and started again "
          "10 s later; what the topic remembers is durable",
          "whole again within 35 s, and 2 s later those who resume where they were have every message, and what came late in order per "
          "author; nothing comes twice but what was not on the disk yet")
def killed_durable(run):
    with run.world() as world:
        for name in world.names:
            store = os.path.join(world.directory, f"{name}.records")
            settings = [keep("durable = true"), f"kad.store={store}"]
            world.nodes[name] = Node(world, world.hosts[name], settings).start()
        nodes = list(world.nodes.values())
        until("the mesh is whole at first", world.is_whole, 60)
        stay, killed = nodes[:2], nodes[2:]
        with Traffic(stay, nodes, RATE, resume=True) as traffic:
            time.sleep(3)
            began = time.monotonic()
            for node in killed:
                node.signal(signal.SIGKILL)
            for node in killed:
                node.kill()
            time.sleep(10)
            for node in killed:
                node.start()
            run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
            healed = time.monotonic()
            time.sleep(3)
            traffic.quiet()
            account = traffic.settled()
            missed = traffic.account(since=began, before=healed, hearers={node.name for node in killed})
            run.promise(account.lost == 0, f"{account} came")
            # A commit begins 50 ms after the one before, and takes what the disk takes.
            run.promise(account.twice <= RATE * len(killed), f"{account.twice} came twice")
            run.note(f"of {missed.due} messages for those that were killed, {missed.lost} are missing; {account.twice} came twice")
            for node in killed:
                file = node.get("/v1/status")["remembered"]["file"]
                run.promise("last_error" not in file, f"{node.name}: {file}")
        run.bounded(world, 64)


@scenario("clocks-kept", "of three nodes one's clock is an hour behind, one's an hour ahead (libfaketime), of a topic that is kept for "
          "10 minutes; another joins later",
          "nothing is lost, nothing comes twice; who joins has all of it", preloads=True)
def clocks_kept(run):
    with run.world("a b c d") as world:
        settings = [keep('age = "10m"')]
        for name, hours in (("a", 0), ("b", -1), ("c", 1)):
            told = faketime(run, FAKETIME=f"{hours:+}h") if hours else None
            node = world.nodes[name] = Node(world, world.hosts[name], settings, environment=told).start()
            said = datetime.fromisoformat(node.said().split()[0].replace("Z", "+00:00")).timestamp()
            run.promise(abs(said - time.time() - hours * 3600) < 600, f"{name} is not {hours} hours off: it says {node.said()[:30]}")
        nodes = list(world.nodes.values())
        until("the mesh is whole at first", world.is_whole, 60)
        # They have heard each other's clocks.
        time.sleep(6)
        with Traffic(nodes, nodes, RATE) as traffic:
            time.sleep(8)
            traffic.quiet()
            account = traffic.settled()
            run.delivery(account)
            run.promise(account.lost == 0 and account.twice == 0, f"{account} came")
            said = len(traffic.sent)
            d = world.nodes["d"] = Node(world, world.hosts["d"], settings).start()
            _, after = until("d has all", lambda: d.get("/v1/status")["remembered"]["messages"] >= said, 30)
            run.note(f"d had all {said} messages {after:.1f} s after it answered")
        run.bounded(world, 64)
