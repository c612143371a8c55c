"""Asks the agent, over its socket."""

from __future__ import annotations

import json
import socket
from typing import Any

from awsha.agent.paths import run_dir

TIMEOUT_S = 2.0
MOST = 1 << 20


def ask(words: str) -> str | None:
    """One question, one answer; None when no agent answers in time."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC) as connection:
            connection.settimeout(TIMEOUT_S)
            connection.connect(str(run_dir() / "agent.sock"))
            connection.send(words.encode())
            return connection.recv(MOST).decode(errors="replace") or None
    except OSError:
        return None


def report() -> dict[str, dict[str, Any]] | None:
    """What the agent's loops know, by group; None when no agent answers."""
    answer = ask("report")
    try:
        groups = json.loads(answer)["groups"] if answer else None
    except (ValueError, KeyError, TypeError):
        return None
    return {str(group["name"]): group for group in groups} if groups is not None else None
