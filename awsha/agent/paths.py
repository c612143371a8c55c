"""Where the agent's files are."""

from __future__ import annotations

import os
from pathlib import Path


def run_dir() -> Path:
    """Runtime files, gone at a reboot (AWSHA_RUN_DIR moves them)."""
    return Path(os.environ.get("AWSHA_RUN_DIR") or "/run/awsha")


def state_dir() -> Path:
    """History (AWSHA_STATE_DIR moves it)."""
    return Path(os.environ.get("AWSHA_STATE_DIR") or "/var/lib/awsha")


def private_dir(path: Path) -> Path:
    """Make a directory that only root reads, with its parents; returns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step; never follows a link that somebody put in its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    temporary.rename(path)
