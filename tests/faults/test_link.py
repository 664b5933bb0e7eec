"""The link keeps its word: python3 -m unittest discover -s tests/faults"""

import os
import socket
import unittest

import link


def packet(source, destination, size=100):
    return b"\x45" + bytes(11) + socket.inet_aton(source) + socket.inet_aton(destination) + bytes(size - 20)


class TheLink(unittest.TestCase):
    def fates(self, seed, **how):
        """What a thousand packets from a to b, one a millisecond, meet with; and what b gets, in order."""
        inside, outside = os.pipe()
        os.set_blocking(inside, False)
        between = link.Link(seed, {"a": -1, "b": outside})
        between.obey({"do": "address", "ip": "10.0.0.1", "host": "a"})
        between.obey({"do": "address", "ip": "10.0.0.2", "host": "b"})
        between.obey({"do": "set", **how})
        got = []

        def drain():
            try:
                while data := os.read(inside, 65536):
                    got.append(data)
            except BlockingIOError:
                pass

        for n in range(1000):
            between.take("a", packet("10.0.0.1", "10.0.0.2", 100 + n), n / 1000)
            between.deliver_due(n / 1000)
            drain()
        while between.due:
            between.deliver_due(between.due[0][0])
            drain()
        os.close(inside)
        os.close(outside)
        return between.obey({"do": "count"}), got

    def test_the_same_seed_does_the_same_and_another_does_not(self):
        how = dict(loss=0.1, delay=0.05, jitter=0.02, reorder=0.1, duplicate=0.1)
        one, again, other = self.fates("x", **how), self.fates("x", **how), self.fates("y", **how)
        self.assertEqual(one, again)
        self.assertNotEqual(one, other)
        self.assertTrue(60 <= one[0]["lost"] <= 140, one[0])
        self.assertTrue(60 <= one[0]["duplicated"] <= 140, one[0])

    def test_jitter_alone_never_reorders(self):
        _, got = self.fates("x", delay=0.05, jitter=0.05)
        self.assertEqual(b"".join(got), b"".join(packet("10.0.0.1", "10.0.0.2", 100 + n) for n in range(1000)))

    def test_reordered_packets_come_behind_later_ones_and_none_is_lost(self):
        _, got = self.fates("x", reorder=0.2, hold=0.02)
        in_order = [packet("10.0.0.1", "10.0.0.2", 100 + n) for n in range(1000)]
        self.assertNotEqual(b"".join(got), b"".join(in_order))
        self.assertEqual(sum(map(len, got)), sum(map(len, in_order)))

    def test_what_is_too_large_or_cut_off_or_meant_for_nobody_is_counted(self):
        self.assertEqual(self.fates("x", mtu=599)[0]["too_large"], 500)
        self.assertEqual(self.fates("x", cut=True)[0]["cut"], 1000)
        between = link.Link("x", {"a": -1, "b": -1})
        between.take("a", packet("10.0.0.1", "10.0.0.9"), 0.0)
        self.assertEqual(between.obey({"do": "count"})["nobody"], 1)
        with self.assertRaises(ValueError):
            between.obey({"do": "set", "los": 0.1})


if __name__ == "__main__":
    unittest.main()
