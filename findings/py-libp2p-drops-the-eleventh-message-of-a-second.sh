#!/usr/bin/env bash
# py-libp2p 0.8.1, gossipsub with its defaults: of thirty messages that a node publishes on one topic within a second,
# ten leave it. `publish` raises nothing for the others. The limit of 10 a second against spam
# (spam_protection_enabled) is held against the node's own publishes as well as against those of its peers.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work"
python3 -m pip install -q --root-user-action ignore --target py libp2p==0.8.1

cat >try.py <<'PY'
import logging, sys
from importlib.metadata import version
import multiaddr, trio
from libp2p import new_host
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

logging.disable(logging.CRITICAL)
MANY = 30

def node(**options):
    host = new_host()
    router = GossipSub(protocols=["/meshsub/1.1.0"], degree=3, degree_low=1, degree_high=4,
                       heartbeat_initial_delay=0.1, heartbeat_interval=1, **options)
    return host, router, Pubsub(host, router)

async def arrived(**options):
    (one, router_one, pubsub_one), (two, router_two, pubsub_two) = node(**options), node(**options)
    listen = [multiaddr.Multiaddr("/ip4/127.0.0.1/tcp/0")]
    async with one.run(listen_addrs=listen), two.run(listen_addrs=listen), \
            background_trio_service(pubsub_one), background_trio_service(router_one), \
            background_trio_service(pubsub_two), background_trio_service(router_two):
        await pubsub_one.wait_until_ready()
        await pubsub_two.wait_until_ready()
        subscription = await pubsub_two.subscribe("t")
        await pubsub_one.subscribe("t")
        await one.connect(info_from_p2p_addr(two.get_addrs()[0]))
        await trio.sleep(4)
        for n in range(MANY):
            await pubsub_one.publish("t", b"%d" % n)
        count = 0
        with trio.move_on_after(4):
            while True:
                await subscription.get()
                count += 1
        return count

async def main():
    defaults = await arrived()
    without = await arrived(spam_protection_enabled=False)
    print(f"py-libp2p {version('libp2p')}: of {MANY} messages published back to back")
    print(f"with the defaults:               {defaults} arrived")
    print(f"spam_protection_enabled=False:   {without} arrived")
    return (defaults, without) != (10, MANY)

sys.exit(trio.run(main))
PY
PYTHONPATH=py timeout 60 python3 try.py
echo "as found"
