"""Point 5: the engine's DNS answers not at all, wrong or late, and networks are cut. The nodes live on with
whom they have, and all is whole again afterwards; no task is restarted for it.

A task's name server is the engine's, on 127.0.0.11 in the task's network namespace: that is where it is
silenced, or questions to it are led to nameserver.py.
"""

import contextlib
import os
import subprocess
import sys
import time

from stack import FIVE, STACK, command, every, fail, say, tasks, until, whole

ENGINE, OURS = "127.0.0.11", "127.0.0.12"
NAMESERVER = os.path.join(os.path.dirname(os.path.abspath(__file__)), "nameserver.py")


def iptables(task, *rule):
    command(*task.inside("iptables", "-w", *rule))


@contextlib.contextmanager
def silent(them):
    """No answer of the engine's name server reaches these tasks."""
    rule = ("INPUT", "-s", ENGINE, "-j", "DROP")
    for task in them:
        iptables(task, "-I", *rule)
    yield
    for task in them:
        iptables(task, "-D", *rule)


@contextlib.contextmanager
def led_astray(them, *how):
    """These tasks' questions go to a name server of ours: `late SECONDS` or `wrong ADDRESS`."""
    rule = ("-p", "udp", "-d", ENGINE, "!", "-s", OURS, "--dport", "53", "-j", "DNAT", "--to-destination", f"{OURS}:53")
    servers = []
    try:
        for task in them:
            server = subprocess.Popen(task.inside(sys.executable, NAMESERVER, OURS, ENGINE, *how), stdout=subprocess.PIPE, text=True)
            servers.append(server)
            if server.stdout.readline().strip() != "ready":
                fail(f"the name server in {task.short} does not start")
            iptables(task, "-t", "nat", "-I", "OUTPUT", *rule)
        yield
        for task in them:
            iptables(task, "-t", "nat", "-D", "OUTPUT", *rule)
    finally:
        for server in servers:
            server.kill()
            server.wait()


def restart_bootstrap():
    """Kills it, and waits for its successor, which has another connection, and perhaps another address."""
    old = tasks("bootstrap")[0]
    command("docker", "kill", old.container)
    new, _ = until("bootstrap has a new task", lambda: next(t for t in tasks("bootstrap") if t is not old), 60)
    until("the new bootstrap answers", new.identify, 60)
    return new


def is_told(task):
    """That bootstrap's name could not be resolved."""
    return task.records("bootstrap:4001")[1] is not None


def is_resolved(task):
    return not is_told(task)


def check():
    them = tasks("peer", "sender")
    peers = tasks("peer")
    containers = {task.container for task in them}

    def keeps_peers(task):
        return {peer.identify() for peer in peers if peer is not task} <= set(task.peers())

    with silent(them):
        until("every node notices that its name server is silent", every(is_told, them), 60)
        restart_bootstrap()
        until("the peers keep each other", every(keeps_peers, them), 30)
    _, seconds = until("all is whole once DNS answers again", whole(FIVE), 60)
    say(f"(5) DNS silent while bootstrap is killed and replaced: the peers keep each other; whole again {seconds:.1f} s "
        "after it answers")

    # An address of the same network that no task has.
    nobody = peers[0].ip.rsplit(".", 1)[0] + ".250"
    with led_astray(them, "wrong", nobody):
        def misled(task):
            records, _ = task.records("bootstrap:4001")
            return any(nobody in r["address"] and r["failures"] > 0 for r in records)

        until("every node dials where nobody is", every(misled, them), 60)
        until("nobody lets go of whom it has", whole(FIVE), 5)

    def is_freed(task):
        return not any(nobody in record["address"] for record in task.records("bootstrap:4001")[0])

    _, seconds = until("the wrong record is dropped", every(is_freed, them), 60)
    _, more = until("all is whole once DNS tells the truth", whole(FIVE), 60)
    say(f"    DNS wrong, leading to nobody: every node dials there in vain, and keeps all it has; "
        f"the wrong record is gone {seconds + more:.1f} s after it tells the truth")

    with led_astray(them, "late", "1.5"):
        began = time.monotonic()
        restart_bootstrap()
        started = time.monotonic()
        until("all is whole while DNS is late", whole(FIVE), 90)
        ended = time.monotonic()
    say(f"    DNS late, every answer by 1.5 s, while bootstrap is killed and replaced: new task after {started - began:.1f} s, "
        f"whole again {ended - started:.1f} s later")

    with led_astray(them, "late", "4"):
        until("every node gives up on an answer", every(is_told, them), 60)
        until("nobody lets go of whom it has", whole(FIVE), 5)
    _, seconds = until("every node has its records again", every(is_resolved, them), 60)
    say(f"    DNS later than the 2 s that are waited for: nobody is lost; resolved again {seconds:.1f} s after it is in time")

    cut_off(them)
    if containers != {task.container for task in tasks("peer", "sender")}:
        fail("a task was restarted")


def cut_off(them):
    network, one = f"{STACK}_mesh", tasks("peer")[0]
    others = [task for task in them if task is not one] + tasks("bootstrap")

    def alone(task, rest):
        return lambda: not task.peers() and not any(task.identify() in other.peers() for other in rest)

    command("docker", "network", "disconnect", network, one.container)
    _, lost = until("the disconnected peer is alone", alone(one, others), 60)
    command("docker", "network", "connect", network, one.container)
    _, seconds = until("the disconnected peer is back", whole(FIVE), 90)
    say(f"    docker network disconnect {one.short}: noticed by all after {lost:.1f} s; whole again {seconds:.1f} s after "
        "docker network connect")

    boot = tasks("bootstrap")[0]
    command(*boot.inside("ip", "link", "set", "eth0", "down"))
    _, lost = until("bootstrap, its link down, is alone", alone(boot, them), 60)
    command(*boot.inside("ip", "link", "set", "eth0", "up"))
    _, seconds = until("bootstrap is back", whole(FIVE), 90)
    say(f"    bootstrap's link down: noticed by all after {lost:.1f} s; whole again {seconds:.1f} s after it is up")
