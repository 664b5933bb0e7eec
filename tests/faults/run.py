#!/usr/bin/env python3
"""Faults: what smidge promises when something goes wrong, tried on real processes.

    run.py [SCENARIO…] [--binary PATH] [--dynamic PATH] [--hostile PATH] [--seed TEXT] [--write docs/FAULTS.md] [--list [--large]]

Needs root, /dev/net/tun, unshare and nsenter (util-linux), ip (iproute2), mount. Each scenario is a process in
network, mount and process namespaces of its own: whatever it made is gone when it ends, however it ends. Logs of
failed scenarios are printed; SMIDGE_FAULTS_KEEP=1 keeps them all.
"""

import argparse
import ctypes
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(HERE))

import record  # noqa: E402
import scenarios  # noqa: E402, F401
from node import Late, is_dynamic  # noqa: E402

# Set in the process that is alone in its namespaces.
INSIDE = "SMIDGE_FAULTS_INSIDE"
# How many quiet scenarios run beside each other, and beside the loud ones, of which each processor has one.
QUIET = 4
LOUD = os.cpu_count() or 1
# No scenario takes longer, on any machine.
LIMIT = 300
PR_SET_PDEATHSIG = 1
# A directory that is everywhere, and that nothing here is read from.
SCRATCH = "/mnt"


def die_with_parent():
    """Whoever kills the harness, with whatever signal, ends everything that it started."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)


def isolated(script, *words, **pipes):
    """A script of ours as process 1 of namespaces of its own: whatever it starts ends with it."""
    unshare = ["unshare", "--net", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"]
    # A session of its own: the kernel makes stopped processes go on, with a SIGHUP to all, whenever their group becomes an
    # orphan, as one does that is in the background of a shell which ends.
    return subprocess.Popen([*unshare, sys.executable, str(HERE / script), *words], text=True, start_new_session=True,
                            env={**os.environ, INSIDE: "1"}, preexec_fn=die_with_parent, **pipes)


def enter():
    """Once inside: ends when told to, and keeps its files where they vanish with it."""
    # Process 1 ignores what it has no handler for.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    if not os.environ.get("SMIDGE_FAULTS_KEEP"):
        subprocess.run(["mount", "-t", "tmpfs", "faults", SCRATCH], check=True)
        tempfile.tempdir = SCRATCH


def require_root(parser, *paths):
    """Fails in words where this cannot run."""
    for path in (*paths, "/dev/net/tun"):
        if not os.path.exists(path):
            parser.error(f"{path} is not there")
    for tool in ("unshare", "nsenter", "ip", "mount"):
        if shutil.which(tool) is None:
            parser.error(f"there is no {tool}: apt-get install util-linux iproute2 mount")
    if os.geteuid() != 0:
        parser.error("this must run as root: it makes network namespaces")


def say(text):
    print(text, flush=True)


def inside(args):
    """Runs one scenario here, and prints what came of it as JSON."""
    enter()
    case = record.SCENARIOS[args.names[0]]
    run = record.Run(args.binary, args.seed, args.hostile, case.name)
    began = time.monotonic()
    try:
        case.body(run)
    except Late as late:
        run.failures.append(str(late))
    except Exception:
        run.failures.append("the scenario failed: " + traceback.format_exc(limit=-3))
    run.seconds = time.monotonic() - began
    print(json.dumps(run.as_json()), flush=True)
    os._exit(0)


class Lanes:
    """Runs scenarios, several at once, and collects their results."""

    def __init__(self, args):
        self.args, self.results, self.running = args, [], set()
        self.lock = threading.Lock()

    def one(self, case):
        binary = self.args.dynamic if case.preloads and not is_dynamic(self.args.binary) else self.args.binary
        words = ["--binary", binary, "--hostile", self.args.hostile, "--seed", self.args.seed, case.name]
        process = isolated("run.py", *words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        with self.lock:
            self.running.add(process)
        try:
            out, err = process.communicate(timeout=LIMIT)
            result = json.loads(out.splitlines()[-1])
        except (subprocess.TimeoutExpired, IndexError, ValueError) as error:
            process.kill()
            out, err = process.communicate()
            result = record.Run("", "", "", case.name, failures=[f"no result: {error!r}"]).as_json()
        with self.lock:
            self.running.discard(process)
            self.results.append(result)
            state = "FAILED" if result["failures"] else "holds"
            say(f"{state:>6}  {case.name:<16} {result['seconds']:6.1f} s  delivered {result['delivered']}, healed "
                f"{result['healed']}, peak {result['peak']:.1f} MiB, descriptors {result['descriptors']}"
                + "".join(f"\n          {note}" for note in result["notes"])
                + "".join(f"\n        ! {failure}" for failure in result["failures"]))
            if err.strip() and result["failures"]:
                say("\n".join("        | " + line for line in err.strip().splitlines()[-150:]))

    def work(self, cases):
        while True:
            try:
                case = cases.get_nowait()
            except queue.Empty:
                return
            self.one(case)

    def run(self, cases):
        lanes = {"quiet": queue.Queue(), "loud": queue.Queue()}
        for case in sorted(cases, key=lambda case: not case.long):
            lanes["quiet" if case.lane == "quiet" else "loud"].put(case)
        workers = [threading.Thread(target=self.work, args=(lanes[lane],))
                   for lane, beside in (("quiet", QUIET), ("loud", LOUD)) for _ in range(beside)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        order = list(record.SCENARIOS)
        return sorted(self.results, key=lambda result: order.index(result["name"]))

    def stop(self, number, _):
        for process in list(self.running):
            process.kill()
        os._exit(128 + number)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="SCENARIO")
    parser.add_argument("--binary", default=str(ROOT / "target/release/smidge"))
    parser.add_argument("--dynamic", default=str(ROOT / "target/debug/smidge"),
                        help="the binary of scenarios that preload a library, where the other is static")
    parser.add_argument("--hostile", default=str(ROOT / "target/debug/hostile"),
                        help="the hostile peer: CARGO_TARGET_DIR=target cargo build --manifest-path bench/Cargo.toml --bin hostile")
    parser.add_argument("--seed", default="smidge")
    parser.add_argument("--write", metavar="FILE", help="write the table")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--large", action="store_true", help="list those that run only when named, since they want the machine")
    args = parser.parse_args()
    if args.list:
        return [say(f"{case.name:<16} {case.fault}") for case in record.SCENARIOS.values() if (case.lane == "large") == args.large] and 0
    unknown = set(args.names) - set(record.SCENARIOS)
    if unknown:
        parser.error(f"no scenario {', '.join(unknown)}; --list shows them")
    if os.environ.get(INSIDE):
        return inside(args)
    usual = [case for case in record.SCENARIOS.values() if case.lane != "large"]
    cases = [case for case in record.SCENARIOS.values() if case.name in args.names] if args.names else usual
    require_root(parser, args.binary, args.hostile, *([args.dynamic] if any(case.preloads for case in cases) else []))
    if args.write and len(cases) < len(usual):
        parser.error("--write wants all scenarios")
    say(f"{len(cases)} scenarios, seed {args.seed!r}, {args.binary}")
    lanes = Lanes(args)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lanes.stop)
    began = time.monotonic()
    results = lanes.run(cases)
    failed = [result["name"] for result in results if result["failures"]]
    say(f"{len(results) - len(failed)} of {len(results)} hold, {time.monotonic() - began:.0f} s"
        + (f"; FAILED: {', '.join(failed)}" if failed else ""))
    if args.write:
        dynamic = "" if is_dynamic(args.binary) else f" (with other clocks: `{os.path.relpath(args.dynamic, ROOT)}`)"
        record.write(args.write, results, f"Last run: `{os.path.relpath(args.binary, ROOT)}`{dynamic}, seed `{args.seed}`, "
                     f"{os.cpu_count()} processors, {time.monotonic() - began:.0f} s.")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
