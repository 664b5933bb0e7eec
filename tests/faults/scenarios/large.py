"""Many nodes at the same time: more than the impairing link carries, and more than a change waits for (`.ci/run nightly`)."""

import os
import signal
import time

from node import Node, until
from record import scenario
from scenarios.kept import keep
from scenarios.partitions import RETRY, SLACK
from traffic import Traffic

RATE = 100
# How long the whole of it has to be back at those that were killed, once they are in the mesh again.
BACK = 5.0


@scenario("killed-50", "30 of 50 nodes are killed (SIGKILL) at the same time, at 100 messages a second from all of them, each confirmed by "
          "another node, and started again 10 s later; what the topic remembers is durable",
          "whatever was confirmed is everywhere: whole again within 35 s, and 5 s later those who resume where they were have every message",
          lane="large")
def killed_50(run):
    with run.flat(50) as world:
        for name in world.names:
            # Whole is whoever has a connection with each of the others.
            full = "dial.full=64"
            settings = [keep("durable = true"), full, f"kad.store={os.path.join(world.directory, name)}.records"]
            world.nodes[name] = Node(world, world.hosts[name], [*world.settings(name), *settings]).start()
        nodes = list(world.nodes.values())
        until("the mesh is whole at first", world.is_whole, 180)
        killed = nodes[20:]
        with Traffic(nodes, nodes, RATE, resume=True, confirm=1) as traffic:
            time.sleep(5)
            began = time.monotonic()
            for node in killed:
                node.signal(signal.SIGKILL)
            for node in killed:
                node.kill()
            time.sleep(10)
            for node in killed:
                node.start()
            started = time.monotonic()
            run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
            whole = time.monotonic()
            time.sleep(BACK)
            traffic.quiet()
            account = traffic.settled(patience=60)
            names = {node.name for node in killed}
            away = traffic.account(since=began, before=started, hearers=names)
            last = max((hearer.heard[key][0] for name, hearer in traffic.hearers.items() if name in names
                        for key, at in traffic.sent.items() if began <= at < started and key in hearer.heard), default=whole)
            run.delivery(account)
            run.note(f"{len(traffic.sent)} confirmed, {len(traffic.refused)} not; of {away.due} for those that were away, {away.lost} are "
                     f"missing; the last of these came {max(last - whole, 0.0):.2f} s after the mesh was whole")
            run.promise(last - whole <= BACK + SLACK, f"the last of it came {last - whole:.1f} s after the mesh was whole")
            for node in killed:
                file = node.get("/v1/status")["remembered"]["file"]
                run.promise("last_error" not in file, f"{node.name}: {file}")
