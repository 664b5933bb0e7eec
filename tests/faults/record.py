"""Scenarios by name, and what each of them promises, does and finds."""

import time
from dataclasses import dataclass, field
from pathlib import Path

from world import Flat, World

SCENARIOS = {}


@dataclass
class Scenario:
    name: str
    fault: str
    promise: str
    # "quiet" ones run beside others; "loud" ones want a processor to themselves; "large" ones want the machine, and run when named.
    lane: str
    # libfaketime is preloaded into its nodes, which a static binary does not do.
    preloads: bool
    # It takes more than a minute: it begins before the others.
    long: bool
    body: object


def scenario(name, fault, promise, lane="quiet", preloads=False, long=False):
    """Registers a function of a `Run` under `name`."""
    def register(body):
        if name in SCENARIOS:
            raise ValueError(f"two scenarios {name}")
        SCENARIOS[name] = Scenario(name, fault, promise, lane, preloads, long, body)
        return body
    return register


@dataclass
class Run:
    """One run of one scenario: figures, and the promises that did not hold."""

    binary: str
    seed: str
    hostile: str
    name: str
    delivered: str = "–"
    healed: str = "–"
    peak: float = 0.0
    descriptors: str = "–"
    notes: list = field(default_factory=list)
    failures: list = field(default_factory=list)
    seconds: float = 0.0

    def world(self, names="a b c d e", others=()):
        world = World(self.binary, f"{self.seed}/{self.name}", names, others)
        # One list: what the world notes as it ends is this run's failure.
        world.failures = self.failures
        return world

    def flat(self, count):
        """So many hosts without a link between them that impairs."""
        world = Flat(self.binary, f"{self.seed}/{self.name}", count)
        world.failures = self.failures
        return world

    def promise(self, holds, what):
        """A promise of the scenario; its breach is noted and the scenario goes on."""
        if not holds:
            self.failures.append(what)
        return bool(holds)

    def note(self, text):
        self.notes.append(text)

    def delivery(self, account, least=1.0, what="what was promised"):
        """All of it, once each."""
        self.delivered = f"{account.rate:.2%} ({account})".replace("100.00%", "100 %").replace("%", " %").replace("  ", " ")
        self.promise(account.due > 0, f"{what}: nothing was published")
        self.promise(account.rate >= least, f"{what}: {account} came; missing {account.missing[:5]}")
        self.promise(not account.twice, f"{what}: {account.twice} messages came twice")

    def heal(self, seconds, at_most):
        self.healed = f"{seconds:.1f} s (at most {at_most:g})"
        self.promise(seconds <= at_most, f"healed after {seconds:.1f} s, not within {at_most} s")

    def memory(self, world):
        self.peak = max(self.peak, world.peak())

    def bounded(self, world, most):
        """Memory at the peak, which no fault may drive above `most` MiB."""
        self.memory(world)
        self.promise(self.peak <= most, f"{self.peak:.1f} MiB at the peak is more than {most} MiB")

    def leaks(self, world, before, patience=30):
        """No descriptor is open that was not before, once all has settled."""
        deadline = time.monotonic() + patience
        while True:
            after = world.descriptors()
            more = {n: (before[n], after[n]) for n in after if n in before and after[n] > before[n]}
            if not more or time.monotonic() > deadline:
                break
            time.sleep(0.2)
        self.descriptors = f"{max(before.values())} → {max(after.values())}"
        self.promise(not more, f"descriptors leaked: {more}")

    def as_json(self):
        return {k: getattr(self, k) for k in
                ("name", "delivered", "healed", "peak", "descriptors", "notes", "failures", "seconds")}


def markdown(results, told):
    """docs/FAULTS.md, from what the runs said."""
    lines = [
        "# Faults", "",
        "Written by `tests/faults/run.py --write docs/FAULTS.md`; do not edit. " + told, "",
        "Real processes in network namespaces, joined by a link of the tests' own that impairs packets from a seed "
        "(`tests/faults/link.py`). Delivered counts every message at every node where it was due. Times are upper "
        "bounds only where the promise is one. Memory is the resident peak of the node that had the most.", "",
        "| what happens | what is promised | delivered | healed after | memory | descriptors | also |",
        "|---|---|---|---|---|---|---|",
    ]
    for result in results:
        case = SCENARIOS[result["name"]]
        kept = "" if not result["failures"] else " **BROKEN: " + "; ".join(result["failures"])[:300] + "**"
        peak = f"{result['peak']:.1f} MiB" if result["peak"] else "–"
        cells = [case.fault, case.promise + kept, result["delivered"], result["healed"], peak, result["descriptors"],
                 "; ".join(result["notes"]) or "–"]
        lines.append("| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def write(path, results, told, soak=None):
    """Writes the table; a soak's lines are kept if there is no new one."""
    mark = "\n## The soak\n"
    path = Path(path)
    kept = path.read_text().partition(mark)[2] if path.exists() else ""
    text = markdown(results, told) if results is not None else path.read_text().partition(mark)[0]
    tail = soak if soak is not None else kept
    path.parent.mkdir(exist_ok=True)
    path.write_text(text.rstrip("\n") + "\n" + (mark + tail if tail else ""))
