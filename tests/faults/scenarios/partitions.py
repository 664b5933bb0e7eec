"""Links that are cut: into two sides, and in one direction only."""

import time

from node import TOPIC, until
from record import scenario
from traffic import Traffic

RATE = 25
# quic.keep_alive + quic.idle_timeout: how long a silent connection can stand.
NOTICE = 9.0
# dial.retry_max + quic.handshake_timeout: the longest pause before a dial that can succeed, and the dial.
RETRY = 35.0
# What a machine with two processors and much to do may add to a promise of time.
SLACK = 5.0


def others(world, node, among):
    return {world.nodes[name].peer for name in among} - {node.peer}


@scenario("partition", "5 nodes are cut into 3 and 2 for 30 s",
          "each side notices within 9 s and loses nothing within itself; both are one again within 35 s, "
          "and from then on everything reaches everybody")
def partition(run):
    cut_and_heal(run, None)


@scenario("partition-kept", "the same, of a topic with keep",
          "each side notices within 9 s and loses nothing within itself; both are one again within 35 s, and 2 s later "
          "everything that was said meanwhile has come to the other side, each once, and what came late in order per author")
def partition_kept(run):
    cut_and_heal(run, f"topics={{ {TOPIC} = {{ keep = {{ messages = 10000, age = \"10m\" }} }} }}")


# How long neighbours have to give each other what they missed.
CAUGHT_UP = 2.0


def cut_and_heal(run, keep):
    sides = ("a b c".split(), "d e".split())
    side = {name: n for n, names in enumerate(sides) for name in names}
    with run.world() as world:
        nodes = world.start(settings=[keep] if keep else [])
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(3)
            world.link(do="set", sender=sides[0], receiver=sides[1], cut=True)
            world.link(do="set", sender=sides[1], receiver=sides[0], cut=True)
            began = time.monotonic()
            for names in sides:
                for name in names:
                    node = world.nodes[name]
                    until(f"{name} notices", lambda: set(node.peers()) == others(world, node, names), NOTICE + 3 * SLACK)
            noticed = time.monotonic() - began
            run.promise(noticed <= NOTICE + SLACK, f"the cut was noticed after {noticed:.1f} s")
            time.sleep(max(0.0, began + 30 - time.monotonic()))
            run.memory(world)
            world.link(do="set", cut=False)
            healing = time.monotonic()
            run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
            healed = time.monotonic()
            time.sleep(5)
            traffic.quiet()
            within = traffic.settled(due=lambda source, hearer: side[source] == side[hearer])
            across = traffic.settled(since=healed, due=lambda source, hearer: side[source] != side[hearer])
            run.delivery(within + across)
            late = traffic.account(since=began, before=healing, due=lambda source, hearer: side[source] != side[hearer])
            promised = "all" if keep else "none, without keep"
            run.note(f"noticed after {noticed:.1f} s; of {late.due} messages for the other side while it was cut off, "
                     f"{late.due - late.lost} came later (promised: {promised})")
            if keep:
                caught_up(run, traffic, late, healed)
            run.leaks(world, before)
        run.bounded(world, 64)


def caught_up(run, traffic, late, healed):
    """All of what was said while the link was cut is there, soon, once, and in order."""
    run.promise(late.lost == 0 and late.twice == 0, f"{late} of what was said meanwhile came")
    last = 0.0
    for hearer in traffic.hearers.values():
        numbers = {}
        for source, number in hearer.late:
            run.promise(numbers.get(source, 0) < number, f"{hearer.node.name} heard {source} {number} out of order")
            numbers[source] = number
            last = max(last, hearer.heard[source, number][0] - healed)
    run.promise(last <= CAUGHT_UP + SLACK, f"the last of it came {last:.1f} s after all were connected")
    run.note(f"the last of it came {max(last, 0.0):.2f} s after all were connected again")


@scenario("one-way", "a's packets do not reach b any more, b's still reach a, for 25 s",
          "both notice within 18 s; nothing is lost, the others hand it on; connected again within 35 s")
def one_way(run):
    with run.world() as world:
        nodes = world.start()
        a, b = world.nodes["a"], world.nodes["b"]
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(2)
            world.link(do="set", sender=["a"], receiver=["b"], cut=True)
            began = time.monotonic()
            _, b_after = until("b notices", lambda: a.peer not in b.peers(), 2 * NOTICE + 3 * SLACK)
            _, rest = until("a notices", lambda: b.peer not in a.peers(), 2 * NOTICE + 3 * SLACK)
            a_after = b_after + rest
            run.promise(a_after <= 2 * NOTICE + SLACK, f"noticed after {a_after:.1f} s")
            run.note(f"b noticed after {b_after:.1f} s, a after {a_after:.1f} s")
            time.sleep(max(0.0, began + 25 - time.monotonic()))
            world.link(do="set", cut=False)
            run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
            time.sleep(2)
            traffic.quiet()
            run.delivery(traffic.settled())
            run.leaks(world, before)
        run.bounded(world, 64)


@scenario("deaf", "nothing reaches a any more, what it says still arrives, for 20 s",
          "the others lose nothing among themselves; a is connected again within 35 s, and from then on nothing is lost")
def deaf(run):
    with run.world() as world:
        nodes = world.start()
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(2)
            world.link(do="set", receiver=["a"], cut=True)
            began = time.monotonic()
            _, noticed = until("a is alone", lambda: not world.nodes["a"].peers(), 2 * NOTICE + 3 * SLACK)
            run.note(f"a was alone after {noticed:.1f} s")
            time.sleep(max(0.0, began + 20 - time.monotonic()))
            world.link(do="set", cut=False)
            run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
            healed = time.monotonic()
            time.sleep(3)
            traffic.quiet()
            among = traffic.settled(due=lambda source, hearer: "a" not in (source, hearer))
            whole = traffic.settled(since=healed, due=lambda source, hearer: "a" in (source, hearer))
            run.delivery(among + whole)
            run.leaks(world, before)
        run.bounded(world, 64)
