"""Lines with fields, as systemd's journal takes them; a socket of ours plays journald."""

from __future__ import annotations

import io
import logging
import os
import socket
import struct
from collections.abc import Iterator
from pathlib import Path

import pytest

from awsha.agent import journald
from awsha.agent.journal import Journal
from awsha.core.steps import Attach, Failure, Outcome

LOG = logging.getLogger("awsha")


def unpacked(datagram: bytes) -> dict[str, str]:
    """The fields of a datagram, by the protocol's own words."""
    found = {}
    while datagram:
        head, _, rest = datagram.partition(b"\n")
        if b"=" in head:
            key, _, value = head.partition(b"=")
            datagram = rest
        else:
            key, size = head, struct.unpack("<Q", rest[:8])[0]
            value, datagram = rest[8 : 8 + size], rest[8 + size + 1 :]
        found[key.decode()] = value.decode()
    return found


@pytest.fixture
def journal_socket(tmp_path: Path) -> Iterator[socket.socket]:
    """Where lines arrive, and a log that leads there; `stderr` on it has what the journal did not take."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(str(tmp_path / "socket"))
        server.settimeout(10.0)
        yield server


@pytest.fixture
def stderr(journal_socket: socket.socket) -> Iterator[io.StringIO]:
    """What the journal did not take."""
    stream = io.StringIO()
    handler = journald.Handler(logging.StreamHandler(stream), journal_socket.getsockname())
    level = LOG.level
    LOG.addHandler(handler)
    LOG.setLevel(logging.INFO)
    yield stream
    LOG.removeHandler(handler)
    LOG.setLevel(level)
    handler.close()


def test_a_step_is_one_line_with_fields(journal_socket: socket.socket, stderr: io.StringIO):
    journal = Journal()
    journal.transition("data", "data-20261122T231501")
    journal.finished("data", Attach("vol-1", "/dev/sdf"), Outcome(True), 0.25)
    assert unpacked(journal_socket.recv(65536)) == {
        "MESSAGE": "data: attach (vol-1): done in 0.25 s",
        "PRIORITY": "6",
        "SYSLOG_IDENTIFIER": "awsha",
        "GROUP": "data",
        "TRANSITION_ID": "data-20261122T231501",
        "STEP": "Attach",
    }
    journal.finished("data", Attach("vol-1", "/dev/sdf"), Outcome(False, "no", "ask", Failure.DENIED), 0.25)
    told = unpacked(journal_socket.recv(65536))
    assert told["MESSAGE"] == "data: attach (vol-1) failed after 0.25 s: no (hint: ask)"
    assert (told["PRIORITY"], told["CODE"], told["STEP"]) == ("4", "denied", "Attach")
    assert stderr.getvalue() == ""


def test_several_lines_and_what_ends_none_arrive_whole(journal_socket: socket.socket, stderr: io.StringIO):  # noqa: ARG001
    journal = Journal()
    try:
        int("no number")
    except ValueError:
        journal.broken("data")
    told = unpacked(journal_socket.recv(65536))
    assert told["MESSAGE"].splitlines()[0] == "data: the loop has broken down"
    assert "ValueError" in told["MESSAGE"].splitlines()[-1]
    assert (told["GROUP"], told["PRIORITY"]) == ("data", "3")
    assert unpacked(journald.packed({"MESSAGE": "half a \ud800"})) == {"MESSAGE": "half a ?"}


def test_a_journal_that_is_full_delays_nothing_and_hears_how_much_it_lost(
    journal_socket: socket.socket, stderr: io.StringIO
):
    journal = Journal()
    for _ in range(2000):  # many more than a datagram socket holds (net.unix.max_dgram_qlen)
        journal.say("data", "x" * 500)
    held = 0
    journal_socket.setblocking(False)
    while True:
        try:
            journal_socket.recv(65536)
        except BlockingIOError:
            break
        held += 1
    assert 0 < held < 2000
    journal.say("data", "again")
    assert unpacked(journal_socket.recv(65536))["LOST"] == str(2000 - held)
    assert stderr.getvalue() == ""


def test_without_journald_and_beyond_its_size_it_goes_to_stderr(journal_socket: socket.socket, stderr: io.StringIO):
    journal = Journal()
    journal.say("data", "y" * (4 << 20))
    assert len(stderr.getvalue()) > 4 << 20
    Path(journal_socket.getsockname()).unlink()
    journal.say("data", "journald is gone")
    assert stderr.getvalue().endswith("data: journald is gone\n")


def test_only_a_standard_error_that_is_the_journal_is_taken_for_it(tmp_path: Path):
    with (tmp_path / "x").open("w") as stream:
        status = os.fstat(stream.fileno())
        assert journald.is_stderr(stream, {"JOURNAL_STREAM": f"{status.st_dev}:{status.st_ino}"})
        assert not journald.is_stderr(stream, {"JOURNAL_STREAM": "1:2"})
        assert not journald.is_stderr(stream, {})
    assert not journald.is_stderr(io.StringIO(), {"JOURNAL_STREAM": "1:2"})
