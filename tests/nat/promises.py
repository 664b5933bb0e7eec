"""What holds between two sites, each shown once over each transport."""

import threading
import time
import traceback

from sites import PATIENCE, TOPIC, Late, World, until

PUNCH = "nat.punch=true"


class Talk:
    """`a` and `b` say something to each other again and again; every message has to arrive."""

    def __init__(self, a, b):
        self.nodes, self.said, self.going = [a, b], 0, True
        self.before = {node.peer: node.said().count(" message ") for node in self.nodes}
        self.thread = threading.Thread(target=self.talk)
        self.thread.start()

    def talk(self):
        while self.going:
            for node in self.nodes:
                node.ask("POST", f"/v1/topics/{TOPIC}", f"{node.name} {self.said}".encode())
            self.said += 1
            time.sleep(0.02)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        self.going = False
        self.thread.join()
        if kind:
            return
        for node in self.nodes:
            self.heard_all(node)

    def heard_all(self, node):
        def heard():
            return node.said().count(" message ") - self.before[node.peer]

        try:
            until(f"{node.name} heard all {self.said} messages", lambda: heard() == self.said, 30)
        except Late:
            print(f"        {node.name} missed {self.said - heard()} of {self.said} messages", flush=True)
            raise


def pair(world, over, *settings):
    """A relay that follows no topic, and a node at each site; they find each other in the relay's table."""
    relay = world.start("relay", 4001, over, "relay.server=true", "relay.requests=1000", topic=False)
    nodes = []
    for site in "ab":
        node = world.start(site, 4001, over, f"relay.through={relay.address}", *settings)
        node.line("reserved at", relay.peer)
        nodes.append(node)
    a, b = nodes
    a.line("reached by relay", b.peer)
    b.line("reached by relay", a.peer)
    for node, other in ((a, b), (b, a)):
        node.line("joined mesh", other.peer)
    return relay, a, b


def where_no_hole_can_be_punched_the_relayed_connection_stays_and_messages_go_through_it(binary, over):
    with World(binary, "symmetric", "symmetric") as world:
        _, a, b = pair(world, over, PUNCH)
        with Talk(a, b):
            until("the hole punch failed", lambda: (a.has_said("hole punch to") or b.has_said("hole punch to")), 60)
        assert a.ways(b.peer) == b.ways(a.peer) == ["relayed"], (a.ways(b.peer), b.ways(a.peer))
        assert not a.has_said("disconnected from", b.peer), "it was lost meanwhile"


def while_a_direct_connection_takes_the_relayed_ones_place_messages_go_on(binary, over):
    with World(binary, "cone", "cone") as world:
        _, a, b = pair(world, over, PUNCH)
        # What was under way through the relay at that very moment is announced again when the other stream begins.
        with Talk(a, b):
            for node, other in ((a, b), (b, a)):
                node.line("punched through to", other.peer)
            until("it is direct alone", lambda: set(a.ways(b.peer)) == set(b.ways(a.peer)) == {"direct"}, 30)
        with Talk(a, b):
            time.sleep(0.5)
        assert not a.has_said("disconnected from", b.peer) and not b.has_said("disconnected from", a.peer)


def a_relay_that_went_away_and_is_back_is_asked_again_and_the_sites_meet_again(binary, over):
    with World(binary, "cone", "cone") as world:
        relay, a, b = pair(world, over)
        assert a.ways(b.peer) == ["relayed"]
        relay.kill()
        for node, other in ((a, b), (b, a)):
            node.line("disconnected from", relay.peer)
            node.line("disconnected from", other.peer)
        again = world.start("relay", 4001, over, "relay.server=true", "relay.requests=1000", topic=False)
        for node in (a, b):
            node.line("reserved at", again.peer)
        until("the sites are connected again", lambda: a.ways(b.peer) == b.ways(a.peer) == ["relayed"], 60)
        # If both dialed, one of the two connections is about to be closed.
        with Talk(a, b):
            time.sleep(0.5)


def a_slot_is_asked_for_again_before_it_ends(binary, over):
    with World(binary, "cone", "cone") as world:
        short = ["relay.server=true", "relay.reservation_duration=10s", "log.level=info,smidge=debug"]
        relay = world.start("relay", 4001, over, *short, topic=False)
        a = world.start("a", 4001, over, f"relay.through={relay.address}")
        # Twice: the first slot would have ended by then.
        until("it is renewed twice", lambda: relay.said().count("renewed: true") >= 2, 40)
        assert not a.has_said("nothing is reserved"), a.has_said("nothing is reserved")
        b = world.start("b", 4001, over, f"relay.through={relay.address}")
        b.line("reached by relay", a.peer)


def a_relayed_connection_that_the_relay_cuts_is_made_again(binary, over):
    with World(binary, "cone", "cone") as world:
        short = ["relay.server=true", "relay.circuit_duration=2s", "relay.requests=1000"]
        relay = world.start("relay", 4001, over, *short, topic=False)
        a, b = (world.start(site, 4001, over, f"relay.through={relay.address}") for site in "ab")
        for _ in range(2):
            times = a.said().count("reached by relay")
            until("they are connected again", lambda t=times: a.said().count("reached by relay") > t, PATIENCE)
        assert b.has_said("disconnected from", a.peer)
        for node in (a, b):
            assert not node.has_said("disconnected from", relay.peer)


def an_address_is_announced_when_others_reach_it_and_not_before(binary, over):
    with World(binary, "full", "cone") as world:
        relay = world.start("relay", 4001, over, "relay.server=true", "nat.answer=true")
        ask = [f"relay.through={relay.address}", "nat.probe=true"]
        a, b = world.start("a", 4001, over, *ask), world.start("b", 4001, over, *ask)
        reached = f"/ip4/5.0.0.2/{a.end}"
        a.line("reachable at", reached)
        # Told to the others, and in their tables.
        b.line("reached by relay", a.peer)
        b.line("added to kademlia", a.peer, reached)
        assert a.has_said("reachable at").split()[0] < b.has_said("added to kademlia", a.peer, reached).split()[0]
        until("the probes are over", lambda: a.ways(relay.peer) == b.ways(relay.peer) == ["direct"], 30)
        until("b was asked for", lambda: relay.has_said("connected to", b.peer), 30)
        assert not b.has_said("reachable at"), b.has_said("reachable at")
        assert not relay.has_said("added to kademlia", b.peer, "/ip4/5.0.0.3")
        for node in (relay, a, b):
            assert not node.has_said("disconnected from"), node.has_said("disconnected from")


ALL = [
    where_no_hole_can_be_punched_the_relayed_connection_stays_and_messages_go_through_it,
    while_a_direct_connection_takes_the_relayed_ones_place_messages_go_on,
    a_relay_that_went_away_and_is_back_is_asked_again_and_the_sites_meet_again,
    a_slot_is_asked_for_again_before_it_ends,
    a_relayed_connection_that_the_relay_cuts_is_made_again,
    an_address_is_announced_when_others_reach_it_and_not_before,
]


def keep(binary, transports):
    """The failures, one line each."""
    failures = []
    for promise in ALL:
        for over in transports:
            name, began = promise.__name__.replace("_", " "), time.monotonic()
            try:
                promise(binary, over)
                state = "holds"
            except Exception as error:  # noqa: BLE001: whatever it is, the others are still to be tried
                traceback.print_exc()
                failures.append(f"{name} ({over}): {error}")
                state = "FAILED"
            print(f"{state:>6}  {over:<5} {name}, {time.monotonic() - began:.1f} s", flush=True)
    return failures
