"""A bad link between all nodes: loss, delay, reordering, duplication, a small MTU, little room."""

import time

from record import scenario
from traffic import Traffic

RATE = 25
SECONDS = 12
ALL = "every message reaches every node once; the mesh is whole"


def weather(run, **how):
    """Messages from all to all under `how`, which holds from the first handshake on. Returns the link's counts."""
    with run.world() as world:
        world.impair(**how)
        nodes = world.start()
        with Traffic(nodes, nodes, RATE) as traffic:
            before = world.descriptors()
            time.sleep(SECONDS)
            traffic.quiet()
            account = traffic.settled()
            run.delivery(account)
            run.promise(not traffic.refused, f"publishes were refused: {traffic.refused[:3]}")
            lost = sum(hearer.lost for hearer in traffic.hearers.values())
            run.promise(not lost, f"{lost} events were dropped for slow readers")
            run.promise(world.is_whole(), "the mesh is not whole")
            run.note(f"half within {account.median() * 1000:.0f} ms, all within {account.slowest():.2f} s")
            run.leaks(world, before)
        run.bounded(world, 64)
        return world.link(do="count")


@scenario("loss-1", "1 % of all packets lost", ALL)
def loss_1(run):
    count = weather(run, loss=0.01)
    run.promise(count["lost"], "the link lost nothing")
    run.note(f"{count['lost']} packets lost of {count['carried'] + count['lost']}")


@scenario("loss-10", "10 % of all packets lost", ALL)
def loss_10(run):
    count = weather(run, loss=0.10)
    run.promise(count["lost"], "the link lost nothing")
    run.note(f"{count['lost']} packets lost of {count['carried'] + count['lost']}")


@scenario("delay", "200 ms of delay each way, ±50 ms of jitter", ALL)
def delay(run):
    weather(run, delay=0.2, jitter=0.05)


@scenario("reorder", "20 % of the packets arrive 10 to 30 ms late, behind those sent after them", ALL)
def reorder(run):
    count = weather(run, reorder=0.20)
    run.note(f"{count['reordered']} packets of {count['carried']}")
    run.promise(count["reordered"], "nothing was reordered")


@scenario("duplicate", "30 % of the packets arrive twice", ALL)
def duplicate(run):
    count = weather(run, duplicate=0.30)
    run.note(f"{count['duplicated']} packets of {count['carried']}")
    run.promise(count["duplicated"], "nothing was duplicated")


@scenario("mtu-1280", "packets above 1280 bytes vanish without a word", ALL + ", with messages of 8 KiB")
def mtu_1280(run):
    with run.world("a b c") as world:
        world.impair(mtu=1280)
        nodes = world.start()
        with Traffic(nodes, nodes, RATE, padding=8 << 10) as traffic:
            before = world.descriptors()
            time.sleep(SECONDS)
            traffic.quiet()
            run.delivery(traffic.settled())
            run.promise(world.is_whole(), "the mesh is not whole")
            run.leaks(world, before)
        count = world.link(do="count")
        run.note(f"{count['too_large']} packets were too large (probes for a larger MTU), {count['carried']} were not")
        run.promise(count["too_large"] * 20 < count["carried"], f"too many packets were too large: {count}")
        run.bounded(world, 64)


@scenario("rate", "32 KiB a second in each direction between two nodes", ALL)
def rate(run):
    weather(run, rate=32 << 10)


@scenario("everything", "3 % loss, 80 ± 40 ms, 5 % reordered, 5 % twice, MTU 1280", ALL)
def everything(run):
    weather(run, loss=0.03, delay=0.08, jitter=0.04, reorder=0.05, duplicate=0.05, mtu=1280)
