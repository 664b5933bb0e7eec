"""What befalls one process: it is frozen, its clock jumps, its disk is full, its descriptors are used up."""

import os
import signal
import socket
import subprocess
import time

from node import Node, Unix, is_dynamic, until
from record import scenario
from scenarios.partitions import NOTICE, RETRY, SLACK
from traffic import Traffic

RATE = 25
MIB = 1 << 20
# A log that goes on while there are messages.
EACH_MESSAGE = "log.level=info,smidge::message=info"


def faketime(run, **settings):
    """The environment in which a node has another wall clock."""
    paths = [f"/usr/lib/{machine}-linux-gnu/faketime/libfaketime.so.1" for machine in ("x86_64", "aarch64")]
    library = next((path for path in paths if os.path.exists(path)), None)
    if library is None:
        raise RuntimeError("libfaketime is not there: apt-get install faketime")
    if not is_dynamic(run.binary):
        raise RuntimeError(f"libfaketime does not reach {run.binary}, which is static: give --dynamic another")
    return {"LD_PRELOAD": library, "DONT_FAKE_MONOTONIC": "1", "FAKETIME_DONT_FAKE_MONOTONIC": "1",
            "FAKETIME_DISABLE_SHM": "1", **settings}


@scenario("frozen", "a node is stopped (SIGSTOP) for 20 s",
          "the others notice within 9 s and lose nothing; it is connected again within 35 s of going on, "
          "and from then on nothing is lost at it")
def frozen(run):
    with run.world() as world:
        nodes = world.start()
        c, others = world.nodes["c"], [n for n in nodes if n.name != "c"]
        with Traffic(others, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(2)
            c.signal(signal.SIGSTOP)
            stopped = time.monotonic()
            until("the others notice", lambda: all(c.peer not in n.peers() for n in others), NOTICE + 3 * SLACK)
            noticed = time.monotonic() - stopped
            run.promise(noticed <= NOTICE + SLACK, f"noticed after {noticed:.1f} s")
            time.sleep(max(0.0, stopped + 20 - time.monotonic()))
            c.signal(signal.SIGCONT)
            run.heal(world.whole_after(RETRY + 3 * SLACK), RETRY)
            whole = time.monotonic()
            time.sleep(3)
            traffic.quiet()
            run.delivery(traffic.settled(hearers={n.name for n in others}) + traffic.settled(since=whole, hearers={"c"}))
            run.note(f"noticed after {noticed:.1f} s")
            run.leaks(world, before)
        run.bounded(world, 64)


@scenario("restart", "two nodes are killed (SIGKILL), then two stopped in good order (SIGTERM); each is started again at once, "
          "with its key",
          "whole again within 35 s each time; the others lose nothing; from then on nothing is lost at them nor of theirs")
def restart(run):
    with run.world() as world:
        nodes = world.start()
        stay = nodes[:3]
        with Traffic(stay, nodes, RATE) as traffic:
            before, slowest = world.descriptors(), 0.0
            for name, end in (("d", "kill"), ("e", "kill"), ("d", "stop"), ("e", "stop")):
                node = world.nodes[name]
                code = getattr(node, end)()
                run.promise(code in (0, None), f"{name} ended with {code}")
                node.start()
                slowest = max(slowest, world.whole_after(RETRY + 30))
                time.sleep(1)
            run.heal(slowest, RETRY)
            whole = time.monotonic()
            time.sleep(3)
            traffic.quiet()
            account = traffic.settled(hearers={n.name for n in stay}) + traffic.settled(since=whole, hearers={"d", "e"})
        # And of theirs: to where everybody has been listening all the time.
        with Traffic(nodes[3:], nodes, RATE) as traffic:
            time.sleep(2)
            traffic.quiet()
            run.delivery(account + traffic.settled())
        run.leaks(world, before)
        run.bounded(world, 64)


@scenario("clock", "a node's wall clock jumps 10 years ahead, 30 back, and to 1980, while it runs (libfaketime); "
          "each time another node is started anew",
          "nothing is lost, no connection breaks, and new ones come about: only certificates look at the wall clock, "
          "and ours are valid from 1970 on", preloads=True)
def clock(run):
    with run.world("a b c d") as world:
        file = os.path.join(world.directory, "clock")
        told = faketime(run, FAKETIME_TIMESTAMP_FILE=file, FAKETIME_NO_CACHE="1")
        with open(file, "w") as text:
            text.write("+0d")
        b = world.nodes["b"] = Node(world, world.hosts["b"], [EACH_MESSAGE], environment=told).start()
        nodes = [*world.start(names="a c d".split())]
        stay = [n for n in nodes if n.name != "d"]
        with Traffic(stay, stay, RATE) as traffic:
            before = world.descriptors()
            now = int(time.strftime("%Y"))
            for jump, year in (("+3650d", now + 10), ("-10950d", now - 30), ("@1980-01-02 00:00:00", 1980), ("+0d", now)):
                with open(file + ".new", "w") as text:
                    text.write(jump)
                os.rename(file + ".new", file)
                world.nodes["d"].kill()
                world.nodes["d"].start()
                seconds = world.whole_after(60)

                def shows():
                    stamp = b.said().splitlines()[-1][:4]
                    return stamp.isdigit() and abs(int(stamp) - year) <= 1

                # Its log says what it takes the time to be; a static binary cannot be told another.
                until(f"b takes it for {year}", shows, 20)
                run.note(f"{year}: d, started anew, connected to all after {seconds:.1f} s")
                time.sleep(1)
            ages = [link["age_s"] for p, peer in b.peers().items() if p != world.nodes["d"].peer for link in peer["connections"]]
            run.promise(ages and min(ages) >= 4, f"connections broke: they are {ages} s old")
            traffic.quiet()
            run.delivery(traffic.settled())
            run.leaks(world, before)
        run.bounded(world, 64)


def full(world, name, size):
    """A disk of `size` bytes with nothing free, and what to remove to change that."""
    path = os.path.join(world.directory, name)
    os.makedirs(path)
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "faults", path], check=True)
    ballast = os.path.join(path, "ballast")
    with open(ballast, "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            pass  # full
    return path, ballast


def store_setting(world, path):
    """How to keep records at `path`; None for a binary that cannot."""
    config = os.path.join(world.directory, "store.toml")
    with open(config, "w") as text:
        text.write(f'[kad]\nstore = "{path}"\n')
    checked = subprocess.run([world.binary, "config", "check", config], capture_output=True, text=True)
    return f"kad.store={path}" if checked.returncode == 0 else None


@scenario("disk-full", "no room for the key, for the log, for the records",
          "no key: ends with an error that names the file, leaves nothing half written, and starts once there is room; "
          "no log: the node goes on; no records: a put says so, all else goes on")
def disk_full(run):
    with run.world("a b c") as world:
        # The key.
        disk, ballast = full(world, "disk", 64 << 10)
        words = [world.binary, "run", "--set", f"identity.key_file={disk}/node/key", "--set", "api.listen=off",
                 "--listen", "/ip4/127.0.0.1/udp/0/quic-v1"]
        ended = subprocess.run(world.hosts["a"].inside(*words), capture_output=True, text=True, timeout=60)
        said = ended.stderr.strip()
        run.promise(ended.returncode != 0, "a node without a key ran")
        run.promise(f"{disk}/node/key" in said and "No space left" in said, f"the error says: {said}")
        left = [os.path.join(d, f) for d, _, files in os.walk(disk) for f in files if f != "ballast"]
        run.promise(not left, f"left behind: {left}")
        run.promise("panicked" not in said, said)
        run.note(f"without room for the key: exit code {ended.returncode}")
        os.remove(ballast)
        # The node's key lies there from now on, and the disk is filled again once it has one.
        a = Node(world, world.hosts["a"], [f"identity.key_file={disk}/node/key"])
        # The log.
        logs, room = full(world, "logs", 64 << 10)
        a.log = os.path.join(logs, "log")
        a.settings.append(EACH_MESSAGE)
        store = store_setting(world, f"{disk}/records")
        if store:
            a.settings.append(store)
        world.nodes["a"] = a.start()
        with open(ballast, "wb", buffering=0) as file:
            try:
                while file.write(b"x" * 4096):
                    pass
            except OSError:
                pass
        nodes = [a, *(n for n in world.start(names=["b", "c"]) if n is not a)]
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(4)
            run.promise(os.path.getsize(a.log) == 0, "the log had room: the fault did not work")
            if store:
                refused = 0
                for n in range(200):
                    try:
                        a.ask("PUT", f"/v1/dht/key-{n}", os.urandom(32 << 10))
                    except Exception as error:
                        refused += 1
                        run.promise("full" in str(error) or "space" in str(error), f"a put without room says: {error}")
                        break
                run.promise(refused, "6 MiB of records were taken without room for them")
            else:
                run.note("records are not kept on disk by this binary")
            os.remove(room)
            until("the log goes on once there is room", lambda: os.path.getsize(a.log) > 0, 30)
            traffic.quiet()
            run.delivery(traffic.settled())
            run.promise(world.is_whole(), "the mesh is not whole")
            run.leaks(world, before)
        run.bounded(world, 64)


@scenario("descriptors", "a node may open no descriptor more (prlimit), while 60 callers want its API, for 12 s",
          "the mesh does not notice: nothing is lost, the node does not spin; when it may again, the API answers and "
          "a new node is found")
def descriptors(run):
    with run.world("a b c f") as world:
        world.dns(records=[world.hosts[name].ip for name in "abc"])
        nodes = world.start(names="a b c".split())
        a = world.nodes["a"]
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(1)
            a.limit_descriptors(before["a"])
            callers = []
            for _ in range(60):
                caller = socket.socket(socket.AF_UNIX)
                caller.settimeout(0.2)
                try:
                    caller.connect(a.socket)
                    callers.append(caller)
                except OSError:
                    break  # the kernel's queue is full
            cpu, began = a.reading().cpu, time.monotonic()
            time.sleep(12)
            busy = (a.reading().cpu - cpu) / (time.monotonic() - began)
            run.promise(a.reading().descriptors <= before["a"], "it has more: the fault did not work")
            run.promise(busy < 0.5, f"it spins: {busy:.0%} of a processor")
            run.promise(all({n.peer for n in nodes} - {b.peer} <= set(b.peers()) for b in nodes[1:]), "b and c lost a")
            for caller in callers:
                caller.close()
            a.limit_descriptors(1024)
            lifted = time.monotonic()
            until("the API answers again", lambda: Unix(a.socket, 5).ask("GET", "/healthz"), 30)
            world.dns(records=[world.hosts[name].ip for name in "abcf"])
            world.nodes["f"] = Node(world, world.hosts["f"]).start()
            world.whole_after(60)
            run.heal(time.monotonic() - lifted, 30)
            traffic.quiet()
            run.delivery(traffic.settled())
            run.note(f"{busy:.1%} of a processor meanwhile, {len(callers)} callers waiting")
            run.leaks(world, before)
        run.bounded(world, 64)
