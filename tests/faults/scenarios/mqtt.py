"""MQTT at several nodes: what clients hear at QoS 1 when a node is killed, cut off or frozen."""

import os
import signal
import time

from mqtt import Hearer, Publisher
from node import Node, until
from record import scenario
from scenarios.partitions import RETRY, SLACK

RATE = 500
# What was missed comes in one burst, and waits for the client here; the default has room for 1,000 messages.
QUEUE = ["mqtt.queue_messages=20000", "mqtt.queue=16MiB"]
KEEP = "topics={ mqtt = { keep = { messages = 100000 } } }"


class Clients:
    """A publisher at the first node and a hearer at each of the others, all of MQTT."""

    def __init__(self, world, settings=()):
        self.paths = {}
        for name in world.names:
            self.paths[name] = os.path.join(world.directory, f"{name}.mqtt")
            words = [f"mqtt.listen=unix:{self.paths[name]}", *QUEUE, *settings]
            world.nodes[name] = Node(world, world.hosts[name], words).start()
        until("the mesh is whole at first", world.is_whole, 60)
        first, *rest = world.names
        self.hearers = {name: Hearer(self.paths[name], f"hearer-{name}") for name in rest}
        for hearer in self.hearers.values():
            hearer.start()
            if not hearer.ready.wait(30):
                raise RuntimeError(f"{hearer.client} cannot subscribe")
        # What was subscribed to is known to the others.
        time.sleep(2)
        self.publisher = Publisher(self.paths[first], RATE)
        self.publisher.start()

    def account(self, run, names, patience):
        """Nothing that was acknowledged is missing at these."""
        self.publisher.quiet()
        said = self.publisher.said
        acknowledged, refused = self.publisher.acknowledged, self.publisher.refused
        run.promise(acknowledged == said, f"{acknowledged} of {said} are acknowledged, {refused} refused")
        deadline = time.monotonic() + patience
        missing = {}
        while time.monotonic() < deadline:
            missing = {name: said - len(self.hearers[name].heard) for name in names}
            if not any(missing.values()):
                break
            time.sleep(0.1)
        run.delivered = f"{said * len(names) - sum(missing.values())} of {said * len(names)}"
        twice = {name: sum(times > 1 for times in self.hearers[name].heard.values()) for name in names}
        lost = {name: sorted(set(range(1, said + 1)) - self.hearers[name].heard.keys()) for name in names}
        run.promise(not any(missing.values()), f"of {said}, missing at {missing}: {[(numbers[0], numbers[-1]) for numbers in lost.values() if numbers]}")
        run.note(f"twice: {', '.join(f'{count} at {name}' for name, count in twice.items())} (QoS 1: at least once)")
        for hearer in self.hearers.values():
            hearer.going = False


@scenario("mqtt-killed", "of three nodes with MQTT one is killed (SIGKILL) while a client publishes 500 messages a second at QoS 1 at another",
          "all are acknowledged, and the client of the third node hears each of them")
def mqtt_killed(run):
    with run.world("a b c") as world:
        clients = Clients(world)
        time.sleep(4)
        world.nodes["c"].signal(signal.SIGKILL)
        world.nodes["c"].kill()
        time.sleep(8)
        clients.account(run, ["b"], 20)
        run.bounded(world, 64)


@scenario("mqtt-cut", "of three nodes with MQTT one is cut off for 10 s, at 500 messages a second at QoS 1; what goes over the mesh is kept",
          "connected again within 35 s; its client hears all that was said meanwhile, as do the others")
def mqtt_cut(run):
    with run.world("a b c") as world:
        clients = Clients(world, [KEEP])
        time.sleep(2)
        for one, other in ((["c"], ["a", "b"]), (["a", "b"], ["c"])):
            world.link(do="set", sender=one, receiver=other, cut=True)
        time.sleep(10)
        world.link(do="set", cut=False)
        run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
        time.sleep(2)
        clients.account(run, ["b", "c"], 20)
        run.bounded(world, 64)


@scenario("mqtt-frozen", "of three nodes with MQTT one is stopped (SIGSTOP) for 15 s, at 500 messages a second at QoS 1; what goes over the mesh "
          "is kept",
          "connected again within 35 s of going on; its client hears all that was said meanwhile, as do the others")
def mqtt_frozen(run):
    with run.world("a b c") as world:
        clients = Clients(world, [KEEP])
        time.sleep(2)
        world.nodes["c"].signal(signal.SIGSTOP)
        time.sleep(15)
        world.nodes["c"].signal(signal.SIGCONT)
        run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
        time.sleep(2)
        clients.account(run, ["b", "c"], 20)
        run.bounded(world, 64)
