"""What happens on the wire: time-outs, lost replies, throttling, kept connections. The server obeys the test."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error, Kind
from awsha.core.model import Unknown
from tests.adapters.aws_fakes import (
    DROP,
    HANG,
    INSTANCES,
    VOLUMES,
    XMLNS,
    Scripted,
    closed_port,
    refusal,
    scripted_server,
)

THROTTLED = (503, refusal("RequestLimitExceeded"))


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    with scripted_server() as fake:
        for key, value in {
            "AWS_ENDPOINT_URL": fake.url,
            "AWS_ACCESS_KEY_ID": "x",
            "AWS_SECRET_ACCESS_KEY": "y",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }.items():
            monkeypatch.setenv(key, value)
        yield fake


@pytest.fixture
def ec2(server: Scripted) -> Iterator[Ec2]:
    assert server.url
    door = Ec2("eu-west-1", connect_timeout_s=0.5, read_timeout_s=0.3)
    yield door
    door.close()


def test_the_kernel_gives_a_request_up_when_awsha_does(server: Scripted, ec2: Ec2):
    """Sent again by the kernel when the network heals, a detach would take effect long after it had failed here."""
    ec2.describe_volumes(["vol-1"])
    port = urlsplit(server.url).port
    bounds = []
    for entry in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
            with socket.socket(fileno=os.dup(int(entry.name))) as mine:
                if mine.getpeername()[1] == port:
                    bounds.append(mine.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT))
    assert bounds == [300]


def test_the_request_names_awsha_and_is_signed_for_the_region(server: Scripted, ec2: Ec2):
    ec2.describe_volumes(["vol-2", "vol-1"])
    request = server.requests[0]
    assert request.params["Action"] == "DescribeVolumes"
    assert [request.params["VolumeId.1"], request.params["VolumeId.2"]] == ["vol-1", "vol-2"]
    assert "awsha/" in request.headers["User-Agent"]
    assert "/eu-west-1/ec2/aws4_request" in request.headers["Authorization"]


def test_no_ids_need_no_request(server: Scripted, ec2: Ec2):
    assert ec2.describe_volumes([]) == {}
    assert ec2.describe_instances([]) == {}
    assert ec2.find_instances([]) == {}
    assert server.requests == []


def test_requests_share_one_kept_connection(server: Scripted, ec2: Ec2):
    for _ in range(5):
        ec2.describe_volumes(["vol-1"])
    assert (len(server.requests), server.connections) == (5, 1)


def test_warm_opens_as_many_connections_as_it_is_told(server: Scripted, ec2: Ec2):
    together = threading.Barrier(3, timeout=5)
    answer_to = server.answer_to
    server.answer_to = lambda request: (together.wait(), answer_to(request))[1]  # type: ignore[method-assign]
    assert ec2.warm(3) is None
    assert server.connections == 3
    assert {request.params["Action"] for request in server.requests} == {"DescribeVolumes"}


def test_warm_tells_what_is_wrong_and_does_not_raise(server: Scripted, ec2: Ec2):
    server.otherwise = (403, refusal("UnauthorizedOperation"))
    error = ec2.warm()
    assert isinstance(error, Ec2Error)
    assert error.kind is Kind.DENIED


def test_a_silent_endpoint_ends_at_the_read_time_out_and_is_asked_once(server: Scripted, ec2: Ec2):
    server.otherwise = (HANG, "")
    started = time.monotonic()
    with pytest.raises(Ec2Error) as caught:
        ec2.attach("vol-1", "i-1", "/dev/sdf")
    assert caught.value.kind is Kind.TRANSPORT
    assert caught.value.code == "ReadTimeoutError"
    assert len(server.requests) == 1
    assert time.monotonic() - started < 3


def test_an_endpoint_where_nobody_listens(ec2: Ec2, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{closed_port()}")
    with pytest.raises(Ec2Error) as caught:
        ec2.describe_volumes(["vol-1"])
    assert caught.value.kind is Kind.TRANSPORT
    assert "AWS_ENDPOINT_URL" in caught.value.hint


def test_a_lost_reply_of_a_change_is_never_repeated(server: Scripted, ec2: Ec2):
    server.script.append((DROP, ""))
    with pytest.raises(Ec2Error) as caught:
        ec2.attach("vol-1", "i-1", "/dev/sdf")
    assert caught.value.kind is Kind.TRANSPORT
    assert len(server.requests) == 1


def test_a_read_on_a_connection_that_was_closed_is_asked_again_once(server: Scripted, ec2: Ec2):
    server.script.extend([(DROP, ""), (200, VOLUMES)])
    assert ec2.describe_volumes(["vol-1"])["vol-1"].state == "available"
    server.script.extend([(DROP, ""), (DROP, "")])
    with pytest.raises(Ec2Error):
        ec2.describe_volumes(["vol-1"])
    assert len(server.requests) == 4


def test_case_29_throttling_is_tried_again_under_the_deadline(server: Scripted, ec2: Ec2):
    server.script.extend([THROTTLED] * 3)
    assert ec2.describe_volumes(["vol-1"])["vol-1"].state == "available"
    assert (ec2.throttled, ec2.requests["DescribeVolumes"]) == (3, 4)


@pytest.mark.parametrize(
    "change",
    [
        lambda ec2: ec2.attach("vol-1", "i-1", "/dev/sdf"),
        lambda ec2: ec2.detach("vol-1", "i-1", force=True),
        lambda ec2: ec2.stop_instance("i-1"),
        lambda ec2: ec2.assign("eni-1", ["10.0.0.100"]),
        lambda ec2: ec2.unassign("eni-1", ["10.0.0.100"]),
        lambda ec2: ec2.tag_releasing("vol-1", "a", 1.0),
        lambda ec2: ec2.clear_releasing("vol-1"),
    ],
    ids=["attach", "detach", "stop", "assign", "unassign", "tag", "untag"],
)
def test_case_29_a_change_that_is_throttled_needs_a_new_second_look_before_it_is_tried_again(
    server: Scripted, ec2: Ec2, change: Callable[[Ec2], object]
):
    """Behind a guard it would take effect when the node is no longer master (found by the simulation)."""
    server.otherwise = THROTTLED
    with pytest.raises(Ec2Error) as caught:
        change(ec2)
    assert (caught.value.kind, len(server.requests)) == (Kind.THROTTLED, 1)


def test_what_an_operator_waits_for_is_tried_again(server: Scripted, ec2: Ec2):
    server.script.extend([THROTTLED] * 2)
    server.otherwise = (400, refusal("IncorrectState"))
    assert ec2.detach("vol-1", "i-1", force=True, persist=True) is None
    assert len(server.requests) == 3


def test_throttling_ends_at_the_deadline(server: Scripted, ec2: Ec2):
    server.otherwise = THROTTLED
    started = time.monotonic()
    with pytest.raises(Ec2Error) as caught:
        ec2.describe_volumes(["vol-1"], timeout_s=0.5)
    assert caught.value.kind is Kind.THROTTLED
    assert time.monotonic() - started < 1.5
    assert len(server.requests) < 40


def test_close_ends_a_backoff(server: Scripted, ec2: Ec2):
    server.otherwise = THROTTLED
    ended: list[float] = []

    def ask() -> None:
        with pytest.raises(Ec2Error):
            ec2.describe_volumes(["vol-1"], timeout_s=60)
        ended.append(time.monotonic())

    asking = threading.Thread(target=ask)
    asking.start()
    while len(server.requests) < 3:
        assert asking.is_alive()
    closed = time.monotonic()
    ec2.close()
    asking.join(5)
    assert ended
    assert ended[0] - closed < 1


def test_a_server_error_is_not_repeated_here(server: Scripted, ec2: Ec2):
    server.otherwise = (500, refusal("InternalError"))
    with pytest.raises(Ec2Error) as caught:
        ec2.detach("vol-1", "i-1")
    assert (caught.value.kind, caught.value.request_id, len(server.requests)) == (Kind.SERVER, "req-1", 1)


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (503, "<html>busy</html>", Kind.SERVER),
        (502, "", Kind.SERVER),
        (200, "<html><p>login", Kind.REPLY),
        (200, "", Kind.REPLY),
        (403, "{}", None),
        (200, VOLUMES.replace("<volumeId>vol-1</volumeId>", ""), Kind.REPLY),
    ],
)
def test_an_answer_of_something_else_is_a_typed_error(
    server: Scripted, ec2: Ec2, status: int, body: str, kind: Kind | None
):
    server.otherwise = (status, body)
    with pytest.raises(Ec2Error) as caught:
        ec2.describe_volumes(["vol-1"])
    assert kind is None or caught.value.kind is kind


def test_no_time_left_means_no_request(server: Scripted, ec2: Ec2):
    with pytest.raises(Ec2Error) as caught:
        ec2.attach("vol-1", "i-1", "/dev/sdf", timeout_s=0)
    assert (caught.value.code, server.requests) == ("OutOfTime", [])


def test_every_request_is_told_to_the_observer_and_its_failure_does_no_harm(server: Scripted):
    told: list[tuple[str, str]] = []

    def observer(action: str, seconds: float, result: str) -> None:
        assert 0 <= seconds < 5
        told.append((action, result))
        raise OSError("the disk of the journal is full")

    door = Ec2("eu-west-1", observer=observer)
    server.script.extend([THROTTLED, (200, VOLUMES)])
    assert door.describe_volumes(["vol-1"])["vol-1"].state == "available"
    door.close()
    assert told == [("DescribeVolumes", "RequestLimitExceeded"), ("DescribeVolumes", "ok")]


def test_credentials_that_come_late_are_found(ec2: Ec2, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    with pytest.raises(Ec2Error) as caught:
        ec2.describe_volumes(["vol-1"])
    assert caught.value.kind is Kind.CREDENTIALS
    assert "AWS_PROFILE" in caught.value.hint
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    assert ec2.describe_volumes(["vol-1"])["vol-1"].state == "available"


def test_a_look_reads_its_parts_side_by_side(server: Scripted, ec2: Ec2):
    together = threading.Barrier(3, timeout=5)

    def answer_to(request: object) -> tuple[int, str]:
        together.wait()
        return 200, VOLUMES if "DescribeVolumes" in str(request) else INSTANCES

    def addresses() -> frozenset[str]:
        together.wait()
        return frozenset({"10.0.0.10"})

    server.answer_to = answer_to  # type: ignore[method-assign]
    facts = ec2.look(["vol-1"], ["i-1"], addresses=addresses, timeout_s=5)
    assert (set(facts.volumes), set(facts.instances)) == ({"vol-1", "vol-2"}, {"i-1"})  # type: ignore[arg-type]
    assert facts.metadata_addresses == frozenset({"10.0.0.10"})


def test_a_look_has_each_part_that_it_can_have(server: Scripted, ec2: Ec2):
    def answer_to(request: object) -> tuple[int, str]:
        return (HANG, "") if "DescribeVolumes" in str(request) else (200, INSTANCES)

    server.answer_to = answer_to  # type: ignore[method-assign]
    facts = ec2.look(["vol-1"], ["i-1"])
    assert isinstance(facts.volumes, Unknown)
    assert "DescribeVolumes" in facts.volumes.reason
    assert set(facts.instances) == {"i-1"}  # type: ignore[arg-type]


EMPTY = {
    "DescribeVolumes": VOLUMES.replace("vol-1", "vol-9"),
    "DescribeInstances": f'<DescribeInstancesResponse xmlns="{XMLNS}"/>',
}


@pytest.mark.parametrize("ids", [["i-1"], ["i-1", "i-2"]])
def test_an_answer_that_leaves_out_what_was_asked_for_says_nothing(server: Scripted, ec2: Ec2, ids: list[str]):
    """EC2 refuses an id that it does not know. A peer that is only left out must not be taken for a dead one."""
    server.answer_to = lambda request: (200, EMPTY[request.params["Action"]])  # type: ignore[method-assign]
    facts = ec2.look(["vol-1"], ids)
    assert isinstance(facts.volumes, Unknown)
    assert "vol-1 is neither described nor refused" in facts.volumes.reason
    assert isinstance(facts.instances, Unknown)


def test_a_look_ends_at_its_deadline(server: Scripted):
    door = Ec2("eu-west-1", read_timeout_s=2)
    server.otherwise = (HANG, "")
    started = time.monotonic()
    facts = door.look(["vol-1"], ["i-1"], timeout_s=0.3)
    assert time.monotonic() - started < 1.5
    assert isinstance(facts.volumes, Unknown)
    assert isinstance(facts.instances, Unknown)
    server.ended.set()
    door.close()


def test_after_close_everything_is_unknown(server: Scripted, ec2: Ec2):
    ec2.close()
    ec2.close()
    assert isinstance(ec2.look(["vol-1"], ["i-1"]).volumes, Unknown)
    assert ec2.warm() is not None
    with pytest.raises(Ec2Error):
        ec2.describe_volumes(["vol-1"])
    assert server.requests == []


def test_skip_os_shutdown_is_left_out_where_the_api_refuses_it(server: Scripted, ec2: Ec2):
    stopping = (
        "<StopInstancesResponse><instancesSet><item><instanceId>i-1</instanceId><currentState><code>64</code>"
        "<name>stopping</name></currentState></item></instancesSet></StopInstancesResponse>"
    )
    server.script.extend([(400, refusal("UnknownParameter")), (200, stopping)])
    assert ec2.stop_instance("i-1") == "stopping"
    assert [request.params.get("SkipOsShutdown") for request in server.requests] == ["true", None]
    assert [request.params["Force"] for request in server.requests] == ["true", "true"]


def test_a_stop_that_is_denied_is_not_tried_another_way(server: Scripted, ec2: Ec2):
    server.otherwise = (403, refusal("UnauthorizedOperation"))
    with pytest.raises(Ec2Error) as caught:
        ec2.stop_instance("i-1")
    assert (caught.value.kind, len(server.requests)) == (Kind.DENIED, 1)


def test_pages_are_followed_to_the_end(server: Scripted, ec2: Ec2):
    def page(volume: str, token: str) -> str:
        item = f"<item><volumeId>{volume}</volumeId><status>available</status></item>"
        return f"<R><volumeSet>{item}</volumeSet><nextToken>{token}</nextToken></R>"

    server.script.extend([(200, page("vol-1", "more")), (200, page("vol-2", ""))])
    with pytest.raises(Exception, match="2 volumes have the tags"):
        ec2.resolve_volume({"Name": "db*"})
    assert server.requests[0].params["Filter.1.Value.1"] == r"db\*"
    assert server.requests[1].params["NextToken"] == "more"
