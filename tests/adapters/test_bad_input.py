"""What comes from outside and is late, silent or garbage: instance metadata without an answer, and whatever speaks
to the agent's socket. Replies of EC2 and of metadata themselves: test_aws_facts.py, test_aws_errors.py,
test_aws_transport.py, test_aws_metadata.py; notify: test_notify.py; awsha.toml: tests/core/test_config_anything.py."""

from __future__ import annotations

import json
import os
import random
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from awsha.aws.ec2 import Ec2
from awsha.aws.metadata import Metadata, MetadataError, MetadataKind
from awsha.core.model import Unknown
from tests.adapters.aws_fakes import HANG, INSTANCES, VOLUMES, Scripted, scripted_server
from tests.adapters.conftest import Sandbox
from tests.adapters.one_node import GROUP, PATIENCE_S, OneNode, one_node, until

MAC = "0a:00:00:00:00:01"


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Scripted]:
    """EC2, or instance metadata, as a test writes it down."""
    with scripted_server() as fake:
        monkeypatch.setenv("AWS_ENDPOINT_URL", fake.url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "y")
        monkeypatch.setenv("AWS_CONFIG_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
        monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
        yield fake


def test_case_16_metadata_that_does_not_answer_holds_up_nothing_that_ec2_said(server: Scripted):
    """A look that lasts as long as metadata's silence gives facts that are too old to act on: no failover, ever."""
    server.by_path = {}
    answers = {"DescribeVolumes": VOLUMES, "DescribeInstances": INSTANCES}
    server.answer_to = lambda request: (200, answers[request.params["Action"]])  # type: ignore[method-assign]
    door, silence, ended = Ec2("eu-west-1"), threading.Event(), threading.Event()

    def addresses() -> frozenset[str]:
        silence.wait(PATIENCE_S)
        ended.set()
        return frozenset()

    facts = door.look(["vol-1"], ["i-1"], addresses=addresses, timeout_s=2 * PATIENCE_S)
    assert not ended.is_set(), "the look was back while metadata was still silent"
    assert not isinstance(facts.volumes, Unknown)
    assert not isinstance(facts.instances, Unknown)
    assert isinstance(facts.metadata_addresses, Unknown)
    assert "instance metadata" in facts.metadata_addresses.reason
    silence.set()
    door.close()


def test_case_16_questions_behind_a_silent_one_do_not_pile_up(server: Scripted):
    server.otherwise = (HANG, "")
    metadata = Metadata({"AWS_EC2_METADATA_SERVICE_ENDPOINT": server.url}, read_timeout_s=PATIENCE_S)
    first_ended = threading.Event()

    def first() -> None:
        with pytest.raises(MetadataError):
            metadata.local_ipv4s(MAC)
        first_ended.set()

    thread = threading.Thread(target=first, daemon=True)
    thread.start()
    until(lambda: server.requests or server.connections, "the first question is asked")
    with pytest.raises(MetadataError) as caught:
        metadata.local_ipv4s(MAC)
    assert caught.value.kind is MetadataKind.TIMEOUT
    assert not first_ended.is_set()
    server.ended.set()
    thread.join(PATIENCE_S)


# --- the agent's socket ---


def connected(node: OneNode) -> socket.socket:
    """A connection to the agent."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    connection.connect(str(node.run / "agent.sock"))  # blocking: the kernel's queue of callers may be full
    connection.settimeout(PATIENCE_S)
    return connection


def test_whatever_speaks_to_the_agent_it_goes_on(sandbox: Sandbox, tmp_path: Path):
    def scene() -> None:
        with one_node(tmp_path) as node:
            agent = node.agent()
            chance = random.Random(1)  # noqa: S311
            noise = [b"wake", b"wake data data", b"wake nobody", b"\0" * 100, b"report " * 3, b"\xff\xfe", b"{}", b" "]
            noise += [bytes(chance.randrange(256) for _ in range(chance.choice((1, 50, 4096)))) for _ in range(50)]
            noise.append(b"wake data" + b" " * 100_000)
            for words in noise:
                with connected(node) as connection:
                    connection.send(words)
                    assert connection.recv(100) in (b"what?", b"ok"), words
            for _ in range(5):
                with connected(node) as connection:
                    connection.send(b"report")  # and gone, without hearing the answer
            with connected(node) as connection, pytest.raises(OSError, match="Message too long"):
                connection.send(b"x" * (8 << 20))
            silent = [connected(node) for _ in range(200)]
            assert node.ask(b"wake data") == b"ok", "silent connections keep nobody out"
            descriptors = len(list(Path(f"/proc/{agent.pid}/fd").iterdir()))
            assert descriptors < 150, "and they are not kept for ever"
            assert silent[0].recv(1) == b"", "the oldest was closed"
            for connection in silent:
                connection.close()
            report = json.loads(node.ask(b"report"))
            assert [group["name"] for group in report["groups"]] == [GROUP]
            assert agent.poll() is None

    sandbox(scene)


def test_the_socket_is_for_root_alone(sandbox: Sandbox, tmp_path: Path):
    def scene() -> None:
        with one_node(tmp_path) as node:
            node.agent()
            assert (node.run / "agent.sock").stat().st_mode & 0o777 == 0o600
            (node.run / "agent.sock").chmod(0o666)  # as if somebody had let others in: the peer's uid counts too
            for folder in (node.run, *list(node.run.parents)[:-1]):
                folder.chmod(0o755)
            child = os.fork()
            if child == 0:
                os.setgid(65534)
                os.setuid(65534)
                try:
                    connection = connected(node)
                    connection.send(b"wake data")
                    answer = connection.recv(100)
                except OSError:
                    answer = b""
                os._exit(0 if answer == b"" else 1)
            assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "no answer for nobody"
            assert node.ask(b"wake data") == b"ok"

    sandbox(scene)
