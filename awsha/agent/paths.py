"""Where the agent's files are."""

from __future__ import annotations

import os
import stat
import threading
from pathlib import Path

from awsha.config import paths
from awsha.config.machine import path_refused
from awsha.core.errors import EX_CONFIG, AwshaError


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
    """Make a directory that only root reads, with its parents; returns it.

    One that is there already is closed to others. Raises OSError when it is another user's, a link, or none.
    """
    for part in reversed([part for part in path.parents if not part.exists()]):
        part.mkdir(mode=0o700, exist_ok=True)
    path.mkdir(mode=0o700, exist_ok=True)
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        keep_private(descriptor, str(path))
    finally:
        os.close(descriptor)
    return path


def keep_private(directory: int, name: str) -> None:
    """Have nobody else read an open directory, let alone write to it. Raises OSError when it is somebody else's."""
    status = os.fstat(directory)
    if status.st_uid != os.geteuid():
        raise OSError(f"{name} belongs to user {status.st_uid}")
    if stat.S_IMODE(status.st_mode) & 0o077:
        os.fchmod(directory, 0o700)


def refuse_unsafe() -> None:
    """Root believes only what root has written: what stands in these directories decides who takes a volume.

    Raises AwshaError when one is there in which another user could have put something. Other users than root are the
    masters of their own directories (dry runs, tests).
    """
    if os.geteuid() != 0:
        return
    for place, variable in ((run_dir(), "AWSHA_RUN_DIR"), (state_dir(), "AWSHA_STATE_DIR")):
        refused = path_refused(place) if place.exists() else None
        if refused is not None:
            hint = f"{refused[1]}, look at what is in it, or choose another {variable}"
            raise AwshaError(f"{place} is not used: {refused[0]}", hint=hint, exit_code=EX_CONFIG)


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
    """Replace a file in one step; never follows a link that somebody put in its place. Raises OSError.

    The new file is always this one's own: what a crash has left under its name goes first.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{threading.get_native_id()}")
    temporary.unlink(missing_ok=True)
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(text.encode())
        temporary.rename(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
