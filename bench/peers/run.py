#!/usr/bin/env python3
"""What users would run instead, beside smidge: three nodes of each, published to at one, read at the two others.

    bench/peers/run.py [--smidge BINARY] [--before BINARY] [--burst N] [--rounds N] [--json FILE] [SYSTEM…]

Builds nothing. SYSTEM: smidge, smidge-bundles, mosquitto-0, mosquitto-1, nats; all that are there unless named. --before:
another build of smidge for the row `before`. Takes the systems in turn in each round, so that what else the machine does
meets all; prints medians. Runs in a network namespace of its own, on loopback; ends only what it started.

A message is 100 bytes: a number, the time and padding. `burst`: N as fast as they are taken, delivered a second at the
slower of the two readers, and how many never came within 30 s of silence. `latency`: 500/s for ten seconds, from the
publisher's write to the reader's. `memory`: anonymous memory of the node that is read, at rest and after the burst.
`killed`: 500/s, one reader's node is killed in the middle; what the other reader missed.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import select
import statistics
import sys
import tempfile
import threading
import time

from systems import SIZE, SYSTEMS, NotHere

ROOT = pathlib.Path(__file__).resolve().parents[2]
SILENCE = 30


def payload(number):
    return b"<%010d %020d" % (number, time.monotonic_ns()) + b"x" * (SIZE - 33) + b">"


def read(descriptor, expected, silence, results):
    """Counts the messages on a descriptor until `expected` came or nothing does, and sends what was seen."""
    rest, seen, stamps, last, quiet = b"", set(), [], None, time.monotonic()
    while len(seen) < expected:
        if not select.select([descriptor], [], [], 0.5)[0]:
            if time.monotonic() - quiet > silence:
                break
            continue
        block = os.read(descriptor, 1 << 18)
        now = time.monotonic_ns()
        if not block:
            break
        quiet, rest = time.monotonic(), rest + block
        at = rest.find(b"<")
        while at >= 0 and len(rest) - at >= SIZE:
            if rest[at + SIZE - 1 : at + SIZE] != b">":
                raise RuntimeError(f"no message: {rest[at:at + SIZE]!r}")
            seen.add(int(rest[at + 1 : at + 11]))
            stamps.append(now - int(rest[at + 12 : at + 32]))
            last, at = now, rest.find(b"<", at + SIZE)
        rest = rest[at:] if at >= 0 else b""
    results.send((seen, stamps, last))


def write(descriptor, encode, count, rate):
    """Publishes `count` messages, `rate` a second, or as fast as they are taken."""
    # What the other side says (acknowledgements) has to be taken, or it stops taking.
    drain = threading.Thread(target=swallow, args=(descriptor,), daemon=True)
    drain.start()
    began, sent = time.monotonic(), 0
    while sent < count:
        many = min(count - sent, 64 if not rate else 1)
        block = b"".join(encode(payload(sent + k)) for k in range(many))
        view = memoryview(block)
        while view:
            view = view[os.write(descriptor, view) :]
        sent += many
        if rate:
            time.sleep(max(0.0, began + sent / rate - time.monotonic()))


def swallow(descriptor):
    try:
        while os.read(descriptor, 1 << 16):
            pass
    except OSError:
        pass  # A pipe's writing end cannot be read.


def anonymous(pid):
    """MiB."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) / 1024 for line in status if line.startswith("RssAnon"))


def traffic(system, count, rate, silence=SILENCE, meanwhile=None):
    """One publisher, two readers; what each reader saw, and the seconds since the first write."""
    readers = []
    for n in (1, 2):
        ours, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=read, args=(system.subscriber(n), count, silence, theirs), daemon=True)
        process.start()
        readers.append((process, ours))
    time.sleep(1)  # Subscriptions travel.
    descriptor = system.publisher()
    began = time.monotonic_ns()
    writer = multiprocessing.Process(target=write, args=(descriptor, system.encode, count, rate), daemon=True)
    writer.start()
    if meanwhile:
        meanwhile()
    results = [pipe.recv() for _, pipe in readers]
    for process, _ in readers:
        process.join()
    writer.terminate()
    writer.join()
    os.close(descriptor)
    for client in system.clients:
        client.kill()
        client.wait()
    system.clients.clear()
    return results, began


def measure(system, burst):
    row = {"rest": anonymous(system.nodes[1].pid)}
    results, _ = traffic(system, 5000, 500)
    stamps = sorted(stamp / 1e6 for _, each, _ in results for stamp in each)
    row |= {"p50": stamps[len(stamps) // 2], "p99": stamps[len(stamps) * 99 // 100]}
    results, began = traffic(system, burst, None)
    last = max((last or time.monotonic_ns()) for _, _, last in results)
    row["rate"] = min(len(seen) for seen, _, _ in results) / ((last - began) / 1e9)
    row["lost"] = burst * 2 - sum(len(seen) for seen, _, _ in results)
    row["after"] = anonymous(system.nodes[1].pid)

    def kill():
        time.sleep(2)
        system.nodes[2].kill()

    results, _ = traffic(system, 2500, 500, 5, kill)
    row["killed"] = 2500 - len(results[0][0])
    return row


COLUMNS = [("rate", "delivered/s", ".0f"), ("lost", "lost", ".0f"), ("p50", "p50 ms", ".2f"), ("p99", "p99 ms", ".2f"),
           ("rest", "MiB at rest", ".1f"), ("after", "after", ".1f"), ("killed", "lost at a kill", ".0f")]


def main():
    parser = argparse.ArgumentParser(usage=__doc__)
    parser.add_argument("--smidge", default=str(ROOT / "target/release/smidge"))
    parser.add_argument("--before")
    parser.add_argument("--burst", type=int, default=20_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json")
    parser.add_argument("systems", nargs="*", metavar="SYSTEM")
    args = parser.parse_args()
    if not os.environ.get("SMIDGE_PEERS_NAMESPACE"):
        os.environ["SMIDGE_PEERS_NAMESPACE"] = "1"
        os.execvp("unshare", ["unshare", "-n", "sh", "-c", 'ip link set lo up && exec "$@"', "sh", sys.executable, *sys.argv])
    rows = {name: [] for name in args.systems or [*SYSTEMS, *(["before"] if args.before else [])]}
    for _ in range(args.rounds):
        for name in list(rows):
            with tempfile.TemporaryDirectory() as directory:
                system = SYSTEMS["smidge" if name == "before" else name](directory)
                system.binary = args.before if name == "before" else args.smidge
                try:
                    system.start()
                    rows[name].append(measure(system, args.burst))
                    print(f"{name}: {rows[name][-1]}", file=sys.stderr)
                except NotHere as missing:
                    print(f"left out, not here: {missing}", file=sys.stderr)
                    del rows[name]
                finally:
                    system.stop()
    print("".join(["| " + "system".ljust(15), *(" | " + title.rjust(14) for _, title, _ in COLUMNS), " |"]))
    print("|" + "---|" * (len(COLUMNS) + 1))
    for name, taken in rows.items():
        figures = [format(statistics.median(row[key] for row in taken), style).rjust(14) for key, _, style in COLUMNS]
        print("| " + " | ".join([name.ljust(15), *figures]) + " |")
    if args.json:
        pathlib.Path(args.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
