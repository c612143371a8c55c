"""Where the agent's files are."""

from __future__ import annotations

import os
from pathlib import Path

from awsha.config import paths


def run_dir() -> Path:
    """Runtime files, gone at a reboot."""
    return Path(paths.run_dir(os.environ))


def state_dir() -> Path:
    """History."""
    return Path(paths.state_dir(os.environ))


def hooks_dir() -> Path:
    """The operator's programs."""
    return Path(paths.hooks_dir(os.environ))


def health_file(group: str) -> Path:
    """The file that keepalived tracks for a group."""
    return Path(paths.health_file(paths.run_dir(os.environ), group))


def kept_configuration() -> Path:
    """A copy of the configuration that the agent last began to work with, for letting go when awsha.toml is broken."""
    return run_dir() / "awsha.toml"


def write_health(group: str, *, ok: bool) -> str:
    """Tell keepalived, in place: it watches the file itself (track_file, keepalived.conf(5)). Returns why it can't."""
    try:
        descriptor = os.open(health_file(group), os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, b"0\n" if ok else b"1\n")
            if os.fstat(descriptor).st_size > len(b"0\n"):
                os.ftruncate(descriptor, len(b"0\n"))  # what somebody else had written was longer
        finally:
            os.close(descriptor)
    except OSError as error:
        return str(error)
    return ""


def private_dir(path: Path) -> Path:
    """Make a directory that only root reads, with its parents; returns it."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path


def listed(folder: Path) -> list[str]:
    """The names in a directory, but for hidden ones; none when it is not there."""
    try:
        return [name for name in os.listdir(folder) if name[0] != "."]  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []


def read_small(path: str) -> str:
    """A file of a few lines. Raises OSError. Plain descriptors: the loops read intents and marks all day long."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return os.read(descriptor, 4096).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


def write_atomically(path: Path, text: str, mode: int = 0o600) -> None:
    """Replace a file in one step; never follows a link that somebody put in its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, mode)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)
    temporary.rename(path)
