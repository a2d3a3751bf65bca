"""What is asked for, when it is asked for again, and when reading is given up; the line is written by hand."""

from contextlib import closing
from itertools import chain
from time import monotonic

import pytest

from edge.releases.retained import Pace, Reading
from protocol.errors import NotAdmittedError, UnavailableError, UntrustedReleaseError

QUICK = Pace(window=4, silence=0.05, attempts=3)


class Line:
    """Answers what it is asked as `answers` says: topic -> how often it stays silent first."""

    def __init__(self, silent=None, *, trouble=None):
        self.silent, self.trouble = dict(silent or {}), trouble
        self.asked, self.released, self.revived = [], [], 0

    def ask(self, reading, topics):
        self.asked.append(list(topics))
        for topic in topics:
            if self.silent.get(topic, 0) > 0:
                self.silent[topic] -= 1
            else:
                reading.take(topic, topic.encode())

    def release(self, _reading, topics):
        self.released.extend(topics)

    def revive(self):
        self.revived += 1


def read(line, topics, *, pace=QUICK, limit=100):
    with closing(Reading(line, topics, pace=pace, limit=limit).messages()) as messages:
        return dict(messages)


def names(count):
    return [f"t{number:02}" for number in range(count)]


def test_each_topic_is_read_once_in_a_bounded_window():
    line = Line()
    assert read(line, names(20)) == {name: name.encode() for name in names(20)}
    assert max(map(len, line.asked)) <= 4
    assert sorted(chain.from_iterable(line.asked)) == names(20)
    assert sorted(line.released) == names(20)


def test_nothing_is_asked_for_nothing():
    line = Line()
    assert read(line, []) == {}
    assert line.asked == []


def test_what_was_overtaken_by_a_window_is_asked_again_at_once():
    line = Line({"t00": 1})
    began = monotonic()
    assert len(read(line, names(20), pace=Pace(window=4, silence=3600.0))) == 20
    assert monotonic() - began < 0.9  # nobody waited for the first second of silence to end
    assert sum(asked.count("t00") for asked in line.asked) == 2
    assert sum(map(len, line.asked)) == 21


def test_the_last_one_that_was_lost_is_asked_again_alone():
    line = Line({"t19": 1})
    assert len(read(line, names(20))) == 20
    assert line.asked[-1] == ["t19"]
    assert sum(map(len, line.asked)) == 21


def test_where_nothing_comes_all_is_asked_again_and_the_connection_made_new():
    line = Line(dict.fromkeys(names(3), 3))
    assert len(read(line, names(3), pace=Pace(window=4, silence=0.05, attempts=10))) == 3
    assert line.revived == 1


def test_a_line_that_never_answers_is_given_up():
    line = Line(dict.fromkeys(names(3), 99))
    with pytest.raises(UnavailableError, match=r"has not sent t00 and 2 more within 0\.15 s"):
        read(line, names(3))
    assert sorted(line.released) == names(3)


def test_the_trouble_of_the_line_is_told_instead():
    line = Line({"t00": 99}, trouble=UnavailableError("cannot be reached"))
    with pytest.raises(UnavailableError, match="cannot be reached"):
        read(line, names(1))


def test_a_line_that_is_refused_is_given_up_at_once():
    line = Line({"t00": 99}, trouble=NotAdmittedError("refused"))
    with pytest.raises(NotAdmittedError):
        read(line, names(1), pace=Pace(silence=1.0, attempts=10**6))


def test_a_message_that_is_too_long_is_refused():
    with pytest.raises(UntrustedReleaseError, match="t00 holds 3 bytes, longer than the 2 it may have"):
        read(Line(), names(1), limit=2)


def test_what_nobody_asked_for_or_comes_twice_is_not_kept():
    reading = Reading(Line({"t00": 99}), ["t00"], pace=QUICK, limit=10)
    reading._ask(["t00"])
    for topic in ("t00", "t00", "other"):
        reading.take(topic, b"1")
    assert reading._arrived.qsize() == 1


def test_leaving_early_gives_everything_back():
    line = Line()
    with closing(Reading(line, names(20), pace=QUICK, limit=10).messages()) as messages:
        next(messages)
    assert sorted(line.released) == sorted(set(chain.from_iterable(line.asked)))
