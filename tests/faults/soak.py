#!/usr/bin/env python3
"""The soak: nodes that come and go under steady traffic; memory and descriptors are flat at the end.

    soak.py [--minutes 5] [--nodes 10] [--rate 100] [--binary PATH] [--seed TEXT] [--write docs/FAULTS.md]

Every few seconds a node is killed, or stopped in good order, and started again. Two nodes always stay: what they
use is what is looked at, and between them nothing may be lost.
"""

import argparse
import json
import os
import random
import signal
import statistics
import sys
import time
from pathlib import Path

import record
import run
from node import until
from traffic import Account, Traffic
from world import World

# Every so often a node comes or goes, and is away for so long.
CHURN, AWAY = 4.0, 2.0
# Memory is flat if the median of the last third is at most this much above that of the middle third, or this
# many MiB: pages that were not touched before are, one by one, for a while.
GROWTH, SLACK = 0.05, 1.0
# What scores remember of each message lives for 120 s (libp2p-gossipsub, TIME_CACHE_DURATION): memory is looked at
# from when as much goes as comes.
SETTLED = 130.0


class Samples:
    """What the nodes that stay use, second by second."""

    def __init__(self, nodes):
        self.nodes, self.taken = nodes, {node.name: [] for node in nodes}

    def take(self):
        for node in self.nodes:
            self.taken[node.name].append(node.reading())

    def flat(self, name, what):
        """Medians of the middle and the last third."""
        values = [getattr(reading, what) for reading in self.taken[name]]
        third = len(values) // 3
        return statistics.median(values[third:2 * third]), statistics.median(values[2 * third:])


def soak(args):
    failures, notes = [], []
    names = [f"n{n}" for n in range(args.nodes)]
    chance = random.Random(f"{args.seed}/churn")
    with World(args.binary, args.seed, " ".join(names)) as world:
        world.failures = failures
        # A line for each message would fill the disk in an hour.
        nodes = world.start(["log.level=warn"])
        stay, churned = nodes[:2], nodes[2:]
        away, killed, stopped = {}, 0, 0
        samples = Samples(stay)
        with Traffic(stay, nodes, args.rate) as traffic:
            before = world.descriptors()
            settled = time.monotonic() + SETTLED
            end = time.monotonic() + 60 * args.minutes
            churn = time.monotonic() + CHURN
            while (now := time.monotonic()) < end:
                if now >= settled:
                    samples.take()
                if now >= churn and len(away) < len(churned):
                    churn += CHURN
                    node = chance.choice([n for n in churned if n not in away])
                    if chance.random() < 0.5:
                        node.kill()
                        killed += 1
                    else:
                        code = node.stop()
                        stopped += 1
                        if code != 0:
                            failures.append(f"{node.name} ended with {code} after SIGTERM")
                    away[node] = time.monotonic() + AWAY
                for node in [n for n, back in away.items() if back <= now]:
                    node.start()
                    del away[node]
                time.sleep(max(0.0, 1 - (time.monotonic() - now)))
            for node in away:
                node.start()
            healed = world.whole_after(60)
            traffic.quiet()
            here = {node.name for node in stay}
            account = traffic.settled(hearers=here)
            if account.lost or account.twice or not account.due:
                failures.append(f"between the nodes that stay: {account}; missing {account.missing[:5]}")
            # At those that come and go: what was said while they were followed, but for the first and last moments.
            others = whole_spans(traffic, [n.name for n in churned])
            if os.environ.get("SMIDGE_FAULTS_KEEP"):
                for key, name, after in others.missing:
                    run.say(f"missing {key} at {name}, {after:.2f} s after its return")
                for name, hearer in traffic.hearers.items():
                    run.say(f"{name}: {hearer.lost} dropped for slow readers, heard during {[(round(b, 1), e and round(e, 1)) for b, e in hearer.spans]}")
            late = max((after for _, _, after in others.missing), default=0.0)
            if others.rate < 0.999:
                failures.append(f"at those that come and go, while they were there: {others}")
            for event_loss in [h for h in traffic.hearers.values() if h.node in stay and h.lost]:
                failures.append(f"{event_loss.node.name} dropped {event_loss.lost} events for a slow reader")
            refused = len(traffic.refused)
            if refused:
                failures.append(f"{refused} publishes were refused: {traffic.refused[:3]}")
            until("descriptors are as before", lambda: all(
                n.reading().descriptors <= before[n.name] for n in stay), 30)
        notes.append(f"`{os.path.relpath(args.binary, run.ROOT)}`, {args.minutes:g} minutes, {args.nodes} nodes, {len(traffic.sent) / (60 * args.minutes):.0f} messages a second, "
                     f"{killed} nodes killed and {stopped} stopped, all started again.")
        notes.append(f"Between the two nodes that stay: {account}, slowest {account.slowest():.2f} s. At those that come and "
                     f"go, while they were there: {others.rate:.3%} ({others}; the last one missing {late:.1f} s after a return). Whole {healed:.1f} s after the last return.")
        for node in stay:
            (middle, last), (few, many) = samples.flat(node.name, "resident"), samples.flat(node.name, "descriptors")
            peak = samples.taken[node.name][-1].peak
            used = samples.taken[node.name][-1].cpu - samples.taken[node.name][0].cpu
            notes.append(f"{node.name}: {middle:.1f} MiB in the middle third (median), {last:.1f} in the last, {peak:.1f} at the "
                         f"peak; {few:.0f} descriptors, then {many:.0f}; {used / (60 * args.minutes - SETTLED):.1%} of a processor.")
            if last > middle * (1 + GROWTH) + SLACK:
                failures.append(f"{node.name}: memory grows, from {middle:.1f} to {last:.1f} MiB")
            if many > few + 1:
                failures.append(f"{node.name}: descriptors grow, from {few} to {many}")
    return failures, notes


def whole_spans(traffic, names, margin=5.0):
    """What was due at nodes that come and go: messages from `margin` after they could hear to `margin` before they
    could not (a node that drains has left its topics up to 5 s before it ends)."""
    account = Account()
    sent = list(traffic.sent.items())
    for name in names:
        hearer = traffic.hearers[name]
        for began, ended in hearer.spans:
            for key, at in sent:
                if began + margin <= at <= (ended or float("inf")) - margin:
                    account.due += 1
                    if key not in hearer.heard:
                        account.lost += 1
                        account.missing.append((key, name, at - began))
    return account


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=5)
    parser.add_argument("--nodes", type=int, default=10)
    parser.add_argument("--rate", type=float, default=100)
    parser.add_argument("--binary", default=str(run.ROOT / "target/release/smidge"))
    parser.add_argument("--seed", default="smidge")
    parser.add_argument("--write", metavar="FILE", help="write what was found under the table in FILE")
    args = parser.parse_args()
    if 60 * args.minutes < SETTLED + 30:
        parser.error(f"--minutes {args.minutes:g} ends before memory is looked at: {(SETTLED + 30) / 60:.1f} at least")
    if not os.environ.get(run.INSIDE):
        run.require_root(parser, args.binary)
        process = run.isolated(Path(__file__).name, *sys.argv[1:], stdout=None, stderr=None)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: (process.kill(), os._exit(130)))
        return process.wait()
    run.enter()
    failures, notes = soak(args)
    for note in notes:
        run.say(note)
    for failure in failures:
        run.say("FAILED: " + failure)
    if args.write:
        record.write(args.write, None, "", "\n" + "".join(f"- {note}\n" for note in notes + ["FAILED: " + f for f in failures]))
    print(json.dumps({"failures": failures}), flush=True)
    os._exit(1 if failures else 0)


if __name__ == "__main__":
    sys.exit(main())
