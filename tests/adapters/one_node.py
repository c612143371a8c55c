"""What surrounds `awsha notify` and `awsha agent` on one machine: a run directory, an agent that only answers, and a
whole node (an interface, EC2 and instance metadata on loopback) for real agent processes inside a sandbox."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.adapters import aws_lab
from tests.adapters.aws_lab import MAC_A, VIP, A

GROUP = "data"
CONFIG = f"""
region = "eu-west-1"

[[node]]
name = "a"
address = "10.0.0.10"

[[node]]
name = "b"
address = "10.0.0.11"

[[group]]
name = "{GROUP}"
virtual_router_id = 51
vips = ["{VIP}"]
"""
PATIENCE_S = 30.0


def until(look: Callable[[], Any], why: str, deadline_s: float = PATIENCE_S) -> Any:
    """Look until it counts as true."""
    end = time.monotonic() + deadline_s
    while not (found := look()):
        assert time.monotonic() < end, f"not within {deadline_s:g} s: {why}"
        time.sleep(0.01)
    return found


@dataclass
class Answering:
    """An agent's socket that answers everything with one word. `before_answer` runs when a question has come."""

    path: Path
    word: bytes = b"ok"
    asked: list[str] = field(default_factory=list)
    before_answer: Callable[[], None] = lambda: None

    def serve(self, listening: socket.socket) -> None:
        """Until the socket is closed."""
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection, contextlib.suppress(OSError):
                self.asked.append(connection.recv(4096).decode())
                self.before_answer()
                connection.send(self.word)


@contextmanager
def answering(run: Path) -> Iterator[Answering]:
    """An agent at RUN/agent.sock that answers `ok` and does nothing."""
    run.mkdir(parents=True, exist_ok=True)
    agent = Answering(run / "agent.sock")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listening:
        listening.bind(str(agent.path))
        listening.listen(64)
        thread = threading.Thread(target=agent.serve, args=(listening,), daemon=True)
        thread.start()
        try:
            yield agent
        finally:
            listening.shutdown(socket.SHUT_RDWR)
            thread.join(5)
            agent.path.unlink(missing_ok=True)


def intents(run: Path, group: str = GROUP) -> dict[str, str]:
    """The recorded intents: file name -> role."""
    folder = run / "intent" / group
    if not folder.is_dir():
        return {}
    return {p.name: p.read_text().split()[0] for p in folder.iterdir() if p.is_file() and p.name[0] != "."}


@dataclass
class OneNode:
    """Node a, without keepalived, in front of EC2 as the lab plays it. Made inside a sandbox."""

    folder: Path
    ec2: aws_lab.Lab
    environment: dict[str, str]
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def run(self) -> Path:
        """AWSHA_RUN_DIR."""
        return self.folder / "run"

    @property
    def log(self) -> str:
        """What the processes said."""
        path = self.folder / "log"
        return path.read_text() if path.exists() else ""

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        """Start `awsha WORDS`."""
        with (self.folder / "log").open("ab") as log:
            argv = [sys.executable, "-m", "awsha", *words]
            process = subprocess.Popen(argv, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.processes.append(process)
        return process

    def awsha(self, *words: str) -> int:
        """Run `awsha WORDS` to its end; its exit code."""
        return self.start(*words).wait(PATIENCE_S)

    def agent(self) -> subprocess.Popen[bytes]:
        """Start an agent and wait until it has looked once."""
        process = self.start("agent")
        until(lambda: process.poll() is not None or self.report() is not None, f"the agent reports\n{self.log}")
        assert process.poll() is None, self.log
        return process

    def ask(self, words: bytes) -> bytes:
        """One question to the agent."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
            connection.connect(str(self.run / "agent.sock"))  # blocking: the kernel's queue of callers may be full
            connection.settimeout(PATIENCE_S)
            connection.send(words)
            return connection.recv(1 << 20)

    def report(self) -> dict[str, Any] | None:
        """What the agent says of the group."""
        try:
            groups = json.loads(self.ask(b"report"))["groups"]
        except (OSError, ValueError):
            return None
        return groups[0] if groups else None

    def holds_vip(self) -> bool:
        """Whether EC2 has the VIP on this node."""
        return self.ec2.owner(VIP) == A


@contextmanager
def one_node(folder: Path, config: str = CONFIG) -> Iterator[OneNode]:
    """The node; its processes are gone at the end. Inside a sandbox only: it makes an interface."""
    subprocess.run(["ip", "link", "add", "eth0", "type", "veth", "peer", "name", "cable"], check=True)
    subprocess.run(["ip", "link", "set", "eth0", "address", MAC_A, "up"], check=True)
    subprocess.run(["ip", "link", "set", "cable", "up"], check=True)
    subprocess.run(["ip", "address", "add", "10.0.0.10/24", "dev", "eth0"], check=True)
    (folder / "awsha.toml").write_text(config)
    values: dict[str, str] = {}

    class Environment:
        """As much of pytest's monkeypatch as aws_lab needs: the values are for child processes."""

        @staticmethod
        def setenv(name: str, value: str) -> None:
            values[name] = value

    with aws_lab.running_servers() as servers:
        ec2 = servers.fresh(Environment())  # type: ignore[arg-type]
        values |= {
            "PATH": os.environ["PATH"],
            "AWSHA_CONFIG": str(folder / "awsha.toml"),
            "AWSHA_RUN_DIR": str(folder / "run"),
            "AWSHA_STATE_DIR": str(folder / "state"),
            "AWS_EC2_METADATA_DISABLED": "false",
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": ec2.metadata_url,
        }
        node = OneNode(folder, ec2, values)
        try:
            yield node
        finally:
            for process in node.processes:
                process.kill()
                process.wait(PATIENCE_S)
