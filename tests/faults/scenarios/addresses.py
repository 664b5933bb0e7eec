"""A node whose address changes while it runs."""

import json
import time

from node import until
from record import scenario
from traffic import Traffic

RATE = 25
# Noticed (keep_alive + idle_timeout), asked again (dial.refresh and a fifth), dialed (handshake_timeout).
AT_MOST = 9.0 + 6.0 + 5.0


@scenario("address-change", "a node's address becomes another while it runs, and the name follows",
          "connected at the new address within 20 s (what the node opened itself moves with it), and the old one is in no name and at no peer; "
          "nothing is lost among the others, nor at the node from then on")
def address_change(run):
    with run.world() as world:
        nodes = world.start()
        c, others = world.nodes["c"], [n for n in nodes if n.name != "c"]
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(2)
            old, new = c.host.ip, "10.77.0.77"
            c.host.run("ip", "address", "add", f"{new}/16", "dev", "eth0")
            c.host.run("ip", "address", "delete", f"{old}/16", "dev", "eth0")
            # An address may go with the first: what is left of the host's is put back.
            c.host.run("ip", "address", "replace", f"{new}/16", "dev", "eth0")
            world.link(do="address", ip=new, host="c")
            world.link(do="address", ip=old, host=None)
            world.dns(records=[new if host is c.host else host.ip for host in map(world.hosts.get, world.names)])

            def moved():
                """Everybody has it as connected there, nobody elsewhere, and it answers a ping."""
                for node in others:
                    (name,) = node.get("/v1/names")["names"]
                    states = {record["address"].split("/")[2]: record["state"] for record in name["records"]}
                    if states.get(new) != "connected" or old in states:
                        return False
                    links = [link for peer in node.get("/v1/peers")["peers"] if peer["peer"] == c.peer for link in peer["connections"]]
                    if any(old in link["address"] for link in links):
                        return False
                    node.ask("GET", f"/v1/peers/{c.peer}/ping")
                return world.is_whole()

            _, seconds = until(f"all know c at {new}", moved, AT_MOST + 15)
            run.heal(seconds, AT_MOST)
            moved_at = time.monotonic()
            listening = json.dumps(c.get("/v1/status")["listening"])
            run.promise(new in listening and old not in listening, f"c says that it listens on {listening}")
            time.sleep(3)
            traffic.quiet()
            among = traffic.settled(due=lambda source, hearer: "c" not in (source, hearer))
            at_c = traffic.settled(since=moved_at, due=lambda source, hearer: "c" in (source, hearer))
            run.delivery(among + at_c)
            run.leaks(world, before)
        run.bounded(world, 64)
