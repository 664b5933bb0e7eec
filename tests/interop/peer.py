"""A py-libp2p peer for run.py, the twin of peer.mjs: it follows a topic, says twice a second what number it is at, and
prints a line for each message of others. A line "dial ADDRESS" on standard input dials. It ends with its standard input."""

import logging
import sys
import warnings

warnings.filterwarnings("ignore")

import multiaddr
import trio
from libp2p import new_host
from libp2p.peer.peerinfo import info_from_p2p_addr
from libp2p.pubsub.gossipsub import GossipSub
from libp2p.pubsub.pubsub import Pubsub
from libp2p.tools.anyio_service import background_trio_service

logging.disable(logging.CRITICAL)


def say(*words):
    print(*words, flush=True)


async def hear(subscription):
    while True:
        message = await subscription.get()
        say("heard", message.data.decode(errors="replace"))


async def speak(pubsub, topic):
    number = 0
    while True:
        await pubsub.publish(topic, b"py %d" % number)
        number += 1
        await trio.sleep(0.5)


async def listen(host, nursery):
    async for line in trio.wrap_file(sys.stdin):
        try:
            await host.connect(info_from_p2p_addr(multiaddr.Multiaddr(line.split()[1])))
        except Exception as why:
            say("failed", repr(why))
    nursery.cancel_scope.cancel()


async def main(address, topic):
    address = multiaddr.Multiaddr(address)
    host = new_host(enable_quic="quic" in str(address))
    router = GossipSub(protocols=["/meshsub/1.2.0", "/meshsub/1.1.0", "/meshsub/1.0.0"], degree=3, degree_low=1,
                       degree_high=4, heartbeat_initial_delay=0.1, heartbeat_interval=1)
    pubsub = Pubsub(host, router)
    async with host.run(listen_addrs=[address]), background_trio_service(pubsub), background_trio_service(router):
        await pubsub.wait_until_ready()
        subscription = await pubsub.subscribe(topic)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(hear, subscription)
            nursery.start_soon(speak, pubsub, topic)
            say("listening", " ".join(map(str, host.get_addrs())))
            await listen(host, nursery)


trio.run(main, *sys.argv[1:])
