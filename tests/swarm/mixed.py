"""Point 6: tasks of other architectures, emulated, in one mesh with this machine's."""

import json
import subprocess
import time

from stack import BINARY, FIVE, STACK, command, fail, say, tasks, until, whole

TOPIC = "some_topic"
# An emulated process holds its translated code, too.
SETTINGS = {
    "SMIDGE__DIAL__NAMES": "bootstrap:4001,peer:4001",
    "SMIDGE__IDENTITY__DERIVE_SECRET__FILE": "/run/secrets/identity",
    "SMIDGE__IDENTITY__DERIVE_NAME": "{{.Service.Name}}.{{.Task.Slot}}",
    "SMIDGE__GOSSIP__TOPICS": TOPIC,
    "SMIDGE__LIMITS__MEMORY": "1GiB",
}


def start(platform):
    """A service of its own, whose tasks stand behind the name `peer` like the others."""
    environment = [word for key, value in SETTINGS.items() for word in ("--env", f"{key}={value}")]
    label = f"com.docker.stack.namespace={STACK}"
    command("docker", "service", "create", "--detach", "--no-resolve-image", "--name", f"{STACK}_{platform}",
            "--label", label, "--container-label", label, "--endpoint-mode", "dnsrr", "--read-only",
            "--network", f"name={STACK}_mesh,alias=peer", "--secret", f"source={STACK}_identity,target=identity",
            *environment, f"smidge:{STACK}-{platform}")


def is_emulated(task):
    with open(f"/proc/{task.pid}/cmdline", "rb") as words:
        return b"qemu-" in words.read().split(b"\0")[0]


def hear(speaker, everyone):
    """One message from `speaker`, heard by all others; how many seconds the last one took."""
    payload = f"{speaker.short} speaks at {time.time()}"
    hearers = [t for t in everyone if t is not speaker]
    listening = [subprocess.Popen(t.inside(BINARY, "sub", "-t", TOPIC, "--count", "1", "--timeout", "30", "--json"),
                                  stdout=subprocess.PIPE, text=True) for t in hearers]
    try:
        # A subscription says nothing when it stands, but the node counts the streams that it feeds.
        until("all listen", lambda: all(streams(t) > 0 for t in hearers), 30)
        began = time.monotonic()
        command(*speaker.inside(BINARY, "pub", "-t", TOPIC, "-m", payload, "--timeout", "30"))
        for task, process in zip(hearers, listening):
            out, _ = process.communicate(timeout=40)
            heard = json.loads(out)["data"] if out else "nothing"
            if heard != payload:
                fail(f"{task.short} heard {heard!r}, not {payload!r}")
        return time.monotonic() - began
    finally:
        for process in listening:
            process.kill()


def streams(task):
    lines = command(*task.inside("curl", "-s", "http://127.0.0.1:4080/metrics")).splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith("smidge_api_streams "))


def check(platforms):
    if not platforms:
        fail("no image of another architecture was given")
    for platform in platforms:
        start(platform)
    counts = FIVE | {platform: 1 for platform in platforms}
    until("the emulated tasks run", lambda: len(tasks(*platforms)) == len(platforms), 90)
    _, seconds = until("all architectures are one mesh", whole(counts), 120)
    for task in tasks(*platforms):
        if not is_emulated(task):
            fail(f"{task.short} is not emulated")
    everyone = tasks()
    out = hear(tasks("sender")[0], everyone)
    back = {task.short: hear(task, everyone) for task in tasks(*platforms)}
    said = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in back.items())
    say(f"(6) {', '.join(platforms)} emulated among {sum(FIVE.values())} native tasks: {len(everyone)} nodes connected "
        f"{seconds:.1f} s after the last one started; a message from the native sender at all of them in {out:.1f} s, "
        f"from each of the emulated at all others: {said}")
