"""The history files: STATE/history/GROUP.jsonl, a line for each moment of a transition that was worth writing down.

One writer a group (it has the group's lock), any number of readers. A line is one write() to the end of the file; a
crash or a full disk leaves at most one broken line, which readers count and skip, and the next line begins on its own.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from awsha.agent.paths import keep_private, private_dir, state_dir
from awsha.core.transition import Transition, as_dict, from_dict

SUFFIX = ".jsonl"
BYTES_MOST = 1 << 20  # then the file is written anew, with what is kept
KEPT_BYTES = BYTES_MOST * 3 // 4
KEPT = 200  # transitions
SPARE = 50  # so many more may be there before the file is written anew
READ_MOST = 4 * BYTES_MOST  # a reader takes the end of a larger file: nobody but a stranger makes one

Key = tuple[str, str]  # (transition id, run): an id alone may be given twice, by two processes within a second


@dataclass(frozen=True, slots=True)
class Found:
    """What a file has: the last line of each transition, oldest first, and how many lines could not be read."""

    transitions: tuple[Transition, ...]
    unreadable: int = 0


def folder() -> Path:
    """Where the files are."""
    return state_dir() / "history"


def line(transition: Transition) -> bytes:
    """One line of a file."""
    return json.dumps(as_dict(transition), separators=(",", ":")).encode() + b"\n"


def parse(content: bytes) -> Found:
    """What any bytes have of transitions. Never raises."""
    kept: dict[Key, Transition] = {}
    unreadable = 0
    for raw in content.split(b"\n"):
        if not raw.strip():
            continue
        try:
            transition = from_dict(json.loads(raw))
        except (ValueError, RecursionError):
            unreadable += 1
            continue
        kept[transition.id, transition.run] = transition
    return Found(tuple(kept.values()), unreadable)


def _last_lines(content: bytes) -> dict[Key, bytes]:
    """The last line of each transition, oldest first: what parse() would keep, without keeping it as objects."""
    kept: dict[Key, bytes] = {}
    for raw in content.split(b"\n"):
        with contextlib.suppress(ValueError, RecursionError):
            transition = from_dict(json.loads(raw))
            kept[transition.id, transition.run] = raw + b"\n"
    return kept


def read(group: str, where: Path | None = None) -> Found:
    """A group's file; nothing when there is none. Raises OSError when it can't be read, or is no plain file."""
    try:
        with _opened(where or folder()) as directory, _file(directory, group + SUFFIX, os.O_RDONLY) as descriptor:
            content = _content(descriptor)
    except FileNotFoundError:
        return Found(())
    return parse(content)


def newest(group: str, where: Path | None = None) -> Transition | None:
    """What the last readable line of a group's file has; None when there is none. Raises OSError, as `read` does."""
    try:
        with _opened(where or folder()) as directory, _file(directory, group + SUFFIX, os.O_RDONLY) as descriptor:
            lines = _content(descriptor).split(b"\n")
    except FileNotFoundError:
        return None
    for raw in reversed(lines):
        with contextlib.suppress(ValueError, RecursionError):
            return from_dict(json.loads(raw))
    return None


def groups(where: Path | None = None) -> list[str]:
    """The groups that have a file. Raises OSError."""
    try:
        names = sorted(entry.name for entry in (where or folder()).iterdir())
    except FileNotFoundError:
        return []
    return [name.removesuffix(SUFFIX) for name in names if name.endswith(SUFFIX) and not name.startswith(".")]


class Ledger:
    """The file of one group, to be written by one thread."""

    def __init__(self, group: str, where: Path | None = None) -> None:
        """Nothing is opened or made before the first line."""
        self._name = group + SUFFIX
        self._group = group
        self._where = where or folder()
        self._seen: set[Key] | None = None

    def append(self, transitions: list[Transition]) -> None:
        """Write lines and have the disk keep them; when the file has grown too long, write it anew. Raises OSError."""
        private_dir(self._where)
        flags = os.O_RDWR | os.O_APPEND | os.O_CREAT
        with _opened(self._where) as directory:
            keep_private(directory, "the history directory")
            with _file(directory, self._name, flags) as descriptor:
                size = os.fstat(descriptor).st_size
                if self._seen is None:
                    self._seen = set(_last_lines(_content(descriptor)))
                if size and os.pread(descriptor, 1, size - 1) != b"\n":
                    _write(descriptor, b"\n")  # what a crash or a full disk has left there is a line of its own
                for transition in transitions:
                    _write(descriptor, line(transition))
                    self._seen.add((transition.id, transition.run))
                os.fsync(descriptor)
                size = os.fstat(descriptor).st_size
                content = _content(descriptor) if size > BYTES_MOST or len(self._seen) > KEPT + SPARE else None
            if content is not None:
                self._renew(directory, content)

    def _renew(self, directory: int, content: bytes) -> None:
        """The newest transitions, one line each, in a new file that takes the old one's place."""
        kept: dict[Key, bytes] = {}
        size = 0
        for key, text in reversed(_last_lines(content).items()):
            size += len(text)
            if len(kept) >= KEPT or (kept and size > KEPT_BYTES):
                break
            kept[key] = text
        temporary = f".{self._name}.new"
        with _file(directory, temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC) as descriptor:
            for text in reversed(kept.values()):
                _write(descriptor, text)
            os.fsync(descriptor)
        os.rename(temporary, self._name, src_dir_fd=directory, dst_dir_fd=directory)
        os.fsync(directory)
        self._seen = set(kept)


@contextmanager
def _opened(where: Path) -> Iterator[int]:
    """The directory itself, never what a link in its place points to."""
    descriptor = os.open(where, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextmanager
def _file(directory: int, name: str, flags: int) -> Iterator[int]:
    """A plain file of that directory, which nobody has linked to from elsewhere. Raises OSError."""
    flags |= os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC  # not to block: a pipe in its place
    descriptor = os.open(name, flags, 0o600, dir_fd=directory)
    try:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode) or status.st_nlink > 1:
            raise OSError(f"{name} is not a plain file of its own")
        yield descriptor
    finally:
        os.close(descriptor)


def _content(descriptor: int) -> bytes:
    """All of it; of a file that is far too large the end."""
    size = os.fstat(descriptor).st_size
    at = max(0, size - READ_MOST)
    parts = []
    while at < size and (part := os.pread(descriptor, size - at, at)):
        parts.append(part)
        at += len(part)
    return b"".join(parts)


def _write(descriptor: int, text: bytes) -> None:
    """One write(). Raises OSError when the disk took only a part: the rest would be a line of its own."""
    if os.write(descriptor, text) != len(text):
        raise OSError(28, os.strerror(28))
