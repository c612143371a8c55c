"""Instance metadata version 2 against a server on loopback. The real address is never asked."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from awsha.aws.metadata import Metadata, MetadataError, MetadataKind
from tests.adapters.aws_fakes import DROP, HANG, Scripted, closed_port, scripted_server

MAC = "0a:00:00:00:00:01"
DOCUMENT = {"instanceId": "i-1", "region": "eu-west-1", "availabilityZone": "eu-west-1a", "billingProducts": None}
TREE = {
    "/latest/api/token": (200, "token-1"),
    "/latest/dynamic/instance-identity/document": (200, json.dumps(DOCUMENT)),
    "/latest/meta-data/network/interfaces/macs/": (200, f"{MAC}/\n0a:00:00:00:00:02/"),
    f"/latest/meta-data/network/interfaces/macs/{MAC}/interface-id": (200, "eni-0123456789abcdef0"),
    f"/latest/meta-data/network/interfaces/macs/{MAC}/local-ipv4s": (200, "10.0.0.10\n10.0.0.100\n"),
}


@pytest.fixture
def server() -> Iterator[Scripted]:
    with scripted_server() as fake:
        fake.by_path = dict(TREE)
        fake.otherwise = (404, "")
        yield fake


@pytest.fixture
def metadata(server: Scripted) -> Iterator[Metadata]:
    asked = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url + "/"}, read_timeout_s=0.3)
    yield asked
    asked.close()


def test_what_an_instance_knows_of_itself(metadata: Metadata):
    assert (metadata.instance_id(), metadata.region(), metadata.zone()) == ("i-1", "eu-west-1", "eu-west-1a")
    assert metadata.macs() == (MAC, "0a:00:00:00:00:02")
    assert metadata.eni_id(MAC.upper()) == "eni-0123456789abcdef0"
    assert metadata.local_ipv4s(MAC) == {"10.0.0.10", "10.0.0.100"}


def test_one_connection_one_token_and_what_never_changes_is_asked_once(server: Scripted, metadata: Metadata):
    for _ in range(3):
        metadata.instance_id()
        metadata.region()
        metadata.eni_id(MAC)
        metadata.local_ipv4s(MAC)
    paths = [request.path.rsplit("/", 1)[1] for request in server.requests]
    assert sorted(paths) == ["document", "interface-id", *["local-ipv4s"] * 3, "token"]
    assert server.connections == 1
    put = server.requests[0]
    assert (put.method, put.headers["X-aws-ec2-metadata-token-ttl-seconds"]) == ("PUT", "21600")
    assert {r.headers.get("X-aws-ec2-metadata-token") for r in server.requests[1:]} == {"token-1"}


def test_case_16_a_refused_token_is_fetched_anew_once(server: Scripted, metadata: Metadata):
    metadata.instance_id()
    server.script.append((401, ""))
    assert metadata.local_ipv4s(MAC)
    server.otherwise = (401, "")
    with pytest.raises(MetadataError) as caught:
        metadata.get("meta-data/nothing")
    assert caught.value.kind is MetadataKind.REFUSED


def test_a_kept_connection_that_died_is_opened_again(server: Scripted, metadata: Metadata):
    metadata.instance_id()
    server.script.append((DROP, ""))
    assert metadata.local_ipv4s(MAC)
    server.close_after_answer = True
    assert metadata.local_ipv4s(MAC)
    assert metadata.local_ipv4s(MAC)


def test_a_new_connection_that_is_dropped_is_an_error(server: Scripted, metadata: Metadata):
    server.script.append((DROP, ""))
    with pytest.raises(MetadataError) as caught:
        metadata.instance_id()
    assert caught.value.kind is MetadataKind.UNREACHABLE


@pytest.mark.parametrize(
    ("status", "kind"),
    [(403, MetadataKind.REFUSED), (404, MetadataKind.NOT_FOUND), (503, MetadataKind.SERVER), (302, MetadataKind.REPLY)],
)
def test_each_refusal_has_a_kind_and_a_hint(server: Scripted, metadata: Metadata, status: int, kind: MetadataKind):
    server.by_path[f"/latest/meta-data/network/interfaces/macs/{MAC}/local-ipv4s"] = (status, "")
    with pytest.raises(MetadataError) as caught:
        metadata.local_ipv4s(MAC)
    assert caught.value.kind is kind
    assert caught.value.hint


@pytest.mark.parametrize("text", ["10.0.0.1000", "<html>", "10.0.0.10\nx"])
def test_addresses_that_are_none_are_an_error(server: Scripted, metadata: Metadata, text: str):
    server.by_path[f"/latest/meta-data/network/interfaces/macs/{MAC}/local-ipv4s"] = (200, text)
    with pytest.raises(MetadataError) as caught:
        metadata.local_ipv4s(MAC)
    assert caught.value.kind is MetadataKind.REPLY


@pytest.mark.parametrize("text", ["", "[]", "{", '{"region": 7}', "[" * 100_000], ids=lambda text: text[:20])
def test_a_document_that_is_none_is_an_error(server: Scripted, metadata: Metadata, text: str):
    server.by_path["/latest/dynamic/instance-identity/document"] = (200, text)
    with pytest.raises(MetadataError) as caught:
        metadata.region()
    assert caught.value.kind is MetadataKind.REPLY


def test_a_mac_that_is_none_is_not_sent(server: Scripted, metadata: Metadata):
    with pytest.raises(MetadataError):
        metadata.eni_id("../../iam/security-credentials/")
    assert server.requests == []


def test_silence_ends_at_the_read_time_out_and_hints_at_the_hop_limit(server: Scripted, metadata: Metadata):
    server.script.append((HANG, ""))
    started = time.monotonic()
    with pytest.raises(MetadataError) as caught:
        metadata.instance_id()
    assert caught.value.kind is MetadataKind.TIMEOUT
    assert "hop-limit" in caught.value.hint
    assert time.monotonic() - started < 2


def test_nobody_there():
    with pytest.raises(MetadataError) as caught:
        Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": f"http://127.0.0.1:{closed_port()}"}).region()
    assert caught.value.kind is MetadataKind.UNREACHABLE


@pytest.mark.parametrize("endpoint", ["https://127.0.0.1", "127.0.0.1", "http://127.0.0.1:x", "ftp://x"])
def test_an_endpoint_that_is_none_is_an_error(endpoint: str):
    with pytest.raises(MetadataError) as caught:
        Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": endpoint}).region()
    assert caught.value.kind is MetadataKind.UNREACHABLE


def test_disabled_means_no_traffic(server: Scripted):
    env = {"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url, "AWS_EC2_METADATA_DISABLED": "True"}
    with pytest.raises(MetadataError) as caught:
        Metadata(env).region()
    assert caught.value.kind is MetadataKind.DISABLED
    assert server.requests == []


def test_the_default_is_the_link_local_address():
    assert Metadata({}).endpoint == "http://169.254.169.254"
    assert Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE": "IPv6"}).endpoint == "http://[fd00:ec2::254]"


@contextmanager
def saying(answers: list[bytes]) -> Iterator[str]:
    """A server that answers each request with the next of `answers` (the last one for ever), whatever was asked."""
    left = list(answers)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = server.accept()
                    with connection, contextlib.suppress(OSError):
                        connection.settimeout(1.0)
                        while connection.recv(65536):
                            connection.sendall(left.pop(0) if len(left) > 1 else left[0])
                            connection.shutdown(socket.SHUT_WR)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        server.shutdown(socket.SHUT_RDWR)
        thread.join(5)


NUMBERS = st.integers(-1, 2**70) | st.sampled_from(["", "x", "0x10", "9" * 5000])
HEADERS = st.sampled_from(["Content-Length", "Transfer-Encoding", "Connection", "X", "\x00", ""])
VALUES = st.sampled_from(["chunked", "close", "keep-alive", "gzip", ""]) | NUMBERS.map(str) | st.text(max_size=20)
BODIES = st.sampled_from(
    ["token", "{}", "[]", "null", '{"instanceId": 7, "region": null}', "9" * 300_000, "10.0.0.10\n1"]
)


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """HTTP, or nearly."""
    status = draw(st.sampled_from(["200", "204", "100", "301", "401", "404", "500", "99999", "-1", ""]))
    version = draw(st.sampled_from(["HTTP/1.1", "HTTP/1.0", "HTTP/9", "ICY", ""]))
    headers = draw(st.lists(st.tuples(HEADERS, VALUES), max_size=4))
    body = draw(BODIES | st.text(max_size=200))
    text = f"{version} {status} \r\n" + "".join(f"{name}: {value}\r\n" for name, value in headers) + f"\r\n{body}"
    return draw(st.just(text.encode("utf-8", "replace")) | st.binary(min_size=1, max_size=200))


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(said=st.lists(answers(), min_size=1, max_size=3), good_token=st.booleans())
def test_whatever_answers_there_is_a_fact_or_a_typed_error(said: list[bytes], good_token: bool):
    token = b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\nConnection: close\r\n\r\ntoken-1"
    with saying([token, *said] if good_token else said) as url:
        asked = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": url}, read_timeout_s=0.2)
        questions: list[Callable[[], object]] = [asked.instance_id, asked.macs]
        questions += [lambda: asked.local_ipv4s(MAC), lambda: asked.eni_id(MAC)]
        for question in questions:
            with contextlib.suppress(MetadataError):
                assert question() is not None
        asked.close()
