#!/usr/bin/env python3
"""Nodes behind NATs: what holds between two sites, and how often a hole is punched.

    tests/nat/run.py                          everything, with a few tries of each pair of NATs
    tests/nat/run.py --tries 50 cone-cone     50 tries of one pair, over each transport
    tests/nat/run.py promises                 no tries

Needs root (or unprivileged user namespaces), unshare, nsenter, ip and iptables. Fails if anything does not hold.
"""

import argparse
import itertools
import os
import queue
import statistics
import sys
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.join(HERE, "..", "..")
INSIDE = "SMIDGE_NAT_INSIDE"
sys.path.insert(0, HERE)

import promises  # noqa: E402
from sites import KINDS, Late, World, until  # noqa: E402

PAIRS = [f"{a}-{b}" for a, b in itertools.combinations_with_replacement(KINDS, 2)]
# Where one side gives each remote another port, and the other lets in only from where it sent to, neither can
# know where the other will be: the relayed connection stays.
HOPELESS = {"cone-symmetric", "symmetric-symmetric"}
# Tries under way at once; each has ports of its own, so that no hole serves twice.
AT_ONCE = 5
# Longer than libp2p's three attempts, of a handshake's timeout each.
OUTCOME = 45


def one(world, relay, over, port):
    """One try: (whether a direct connection came of it, seconds from the relayed one to that, what was said)."""
    alone = [f"relay.through={relay.address}", "nat.punch=true", f"kad.protocol=/try/{port}", f"gossip.topics=t{port}"]
    a = world.start("a", port, over, *alone, topic=False)
    a.line("reserved at", relay.peer)
    circuit = f"{relay.address}/p2p/{relay.peer}/p2p-circuit/p2p/{a.peer}"
    b = world.start("b", port, over, *alone, f"dial.addresses={circuit}", topic=False)
    try:
        b.line("reached by relay", a.peer)
        began = time.monotonic()

        def outcome():
            if line := a.has_said("hole punch to", b.peer, "failed"):
                return line
            return "punched" if a.has_said("punched through", b.peer) and b.has_said("punched through", a.peer) else None

        said, _ = until("a hole is punched, or not", outcome, OUTCOME)
        took = time.monotonic() - began
        way = "direct" if said == "punched" else "relayed"
        try:
            # Of direct ones there may be two, where each side's dial got through.
            until(f"both are connected, {way} alone", lambda: set(a.ways(b.peer)) == set(b.ways(a.peer)) == {way}, OUTCOME)
        except Late as late:
            raise Late(f"{late}: {a.ways(b.peer)} and {b.ways(a.peer)}\n{a.said()}\n{b.said()}") from late
        return way == "direct", took, said
    finally:
        a.kill()
        b.kill()
        world.nodes.remove(a)
        world.nodes.remove(b)


def tries(binary, pair, over, count):
    """`count` tries of a pair of NATs: how many came to a direct connection, and their seconds."""
    punched, failures = [], []
    ports = queue.Queue()
    for n in range(count):
        ports.put(20000 + n)
    with World(binary, *pair.split("-")) as world:
        # Everybody comes from two addresses.
        plenty = ["relay.requests=60000", "relay.circuits=1024", "relay.circuits_per_peer=1024"]
        relay = world.start("relay", 4001, over, "relay.server=true", *plenty, topic=False)

        def work():
            while True:
                try:
                    port = ports.get_nowait()
                except queue.Empty:
                    return
                try:
                    direct, took, said = one(world, relay, over, port)
                    if direct:
                        punched.append(took)
                    elif pair not in HOPELESS:
                        print(f"{pair} over {over}, port {port}: {said}", file=sys.stderr, flush=True)
                except (Late, OSError, RuntimeError) as error:
                    failures.append(f"{pair} over {over}, port {port}: {error}")

        workers = [threading.Thread(target=work) for _ in range(AT_ONCE)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        relay_ended = relay.process.poll()
        if relay_ended is not None:
            failures.append(f"the relay ended with {relay_ended}:\n{relay.said()}")
    took = f", after {statistics.median(punched):.2f} s in the middle, {max(punched):.2f} s at most" if punched else ""
    print(f"{pair:<20} {over:<5} {len(punched):>3} of {count} punched{took}", flush=True)
    want = 0 if pair in HOPELESS else count
    if not failures and len(punched) != want:
        failures.append(f"{pair} over {over}: {len(punched)} of {count} punched, {want} expected")
    return failures


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", metavar="PAIR|promises", help=f"of {', '.join(PAIRS)}; default: everything")
    parser.add_argument("--tries", type=int, default=2)
    parser.add_argument("--over", choices=["quic", "tcp"], action="append")
    parser.add_argument("--binary", default=os.path.join(ROOT, "target/debug/smidge"))
    args = parser.parse_args()
    unknown = set(args.what) - {*PAIRS, "promises"}
    if unknown:
        parser.error(f"what is {', '.join(sorted(unknown))}?")
    if not os.access(args.binary, os.X_OK):
        parser.error(f"{args.binary} is not there: cargo build, or --binary")
    if not os.environ.get(INSIDE):
        os.environ[INSIDE] = "1"
        own = [] if os.geteuid() == 0 else ["--user", "--map-root-user"]
        os.execvp("unshare", ["unshare", *own, "--mount", "--net", "--", sys.executable, *sys.argv])
    failures = []
    if not args.what or "promises" in args.what:
        failures += promises.keep(args.binary, args.over or ["quic", "tcp"])
    for pair in [pair for pair in PAIRS if not args.what or pair in args.what]:
        for over in args.over or ["quic", "tcp"]:
            failures += tries(args.binary, pair, over, args.tries)
    for failure in failures:
        print(f"FAILED: {failure}", file=sys.stderr, flush=True)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
