"""Reads /proc/PID/mountinfo. Standard library only: the holders scan imports it in a bare interpreter.

Format: proc_pid_mountinfo(5), Documentation/filesystems/proc.rst (3.5).
"""

from __future__ import annotations

import os
import re
import select
from typing import NamedTuple

TRIES = 20
NO_WRITES = {"ro", "emergency_ro", "shutdown"}  # ext4 since Linux 6.15 stays "rw" after an error, and says this
OWN = "/proc/self/mountinfo"
_last: tuple[bytes, tuple[Entry, ...]] = (b"", ())  # this process's own table, as it was last read
_ESCAPE = re.compile(rb"\\([0-7]{3})")


class Torn(Exception):
    """The table changed each time while it was read."""


class Entry(NamedTuple):
    """One line of mountinfo. `number` is the superblock's device number, "259:3"; `tags` are the optional fields."""

    id: int
    parent: int
    number: str
    root: str
    target: str
    options: frozenset[str]
    tags: frozenset[str]
    fstype: str
    source: str
    super_options: frozenset[str]

    @property
    def read_only(self) -> bool:
        """Takes no writes, be it the mount or the whole file system (errors=remount-ro)."""
        return "ro" in self.options or not self.super_options.isdisjoint(NO_WRITES)


def _text(field: bytes) -> str:
    """A field with the kernel's octal escapes (blank, tab, newline, backslash) taken back."""
    return os.fsdecode(_ESCAPE.sub(lambda match: bytes([int(match[1], 8) & 0xFF]), field))


def parse(data: bytes) -> tuple[Entry, ...]:
    """All lines, in the kernel's order. Raises ValueError for a line that is not mountinfo."""
    entries = []
    for line in data.split(b"\n"):  # not splitlines: a path may hold \r or \f unescaped
        if not line:
            continue
        fields = line.split(b" ")  # not split(): an empty source is an empty field
        try:
            dash = fields.index(b"-", 6)
            fstype, source, super_options = fields[dash + 1 : dash + 4]
            entries.append(
                Entry(
                    int(fields[0]),
                    int(fields[1]),
                    fields[2].decode("ascii"),
                    _text(fields[3]),
                    _text(fields[4]),
                    frozenset(_text(fields[5]).split(",")),
                    frozenset(os.fsdecode(tag) for tag in fields[6:dash]),
                    _text(fstype),
                    _text(source),
                    frozenset(_text(super_options).split(",")),
                )
            )
        except (ValueError, IndexError) as error:
            raise ValueError(f"not a line of mountinfo: {line!r}") from error
    return tuple(entries)


def read(path: str = OWN) -> tuple[Entry, ...]:
    """The table as it was at one moment. Raises OSError, ValueError, Torn.

    The kernel hands out about a page a read() and lets the table change in between. The open file remembers the
    table's event counter, and poll() tells whether it has moved since (mounts_poll in fs/proc_namespace.c): then the
    table is read again (resource-agents issue 1337: a mount was missed).
    """
    for _ in range(TRIES):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = whole(fd)
        finally:
            os.close(fd)
        if data is not None:
            return parse(data) if path != OWN else _parse_own(data)
    raise Torn(f"{path} changed {TRIES} times in a row while it was read")


def _parse_own(data: bytes) -> tuple[Entry, ...]:
    """parse(), unless the table is the one that was read last: it is looked at all the time, and seldom changes."""
    global _last  # noqa: PLW0603
    before, entries = _last
    if data != before:
        entries = parse(data)
        _last = (data, entries)
    return entries


def whole(fd: int) -> bytes | None:
    """The rest of an open table; None when it has changed since it was opened."""
    chunks = []
    while chunk := os.read(fd, 1 << 20):
        chunks.append(chunk)
    poll = select.poll()
    poll.register(fd, select.POLLPRI)
    changed = any(event & (select.POLLPRI | select.POLLERR) for _, event in poll.poll(0))
    return None if changed else b"".join(chunks)


def visible(table: tuple[Entry, ...], target: str) -> Entry | None:
    """The mount that is found at `target`, as a path walk would: the topmost, and not one that is hidden.

    Below each mount the shortest mount point on the way is met first; a mount beneath it there is hidden.
    """
    ids = {entry.id for entry in table}
    below: dict[int | None, list[Entry]] = {}
    for entry in table:
        parent = entry.parent if entry.parent in ids and entry.parent != entry.id else None
        below.setdefault(parent, []).append(entry)
    here: Entry | None = None
    for _ in range(len(table)):
        on_the_way = [entry for entry in below.get(here.id if here else None, ()) if under(target, entry.target)]
        if not on_the_way:
            break
        shortest = min(len(entry.target) for entry in on_the_way)
        here = [entry for entry in on_the_way if len(entry.target) == shortest][-1]
    return here if here is not None and here.target == target else None


def under(path: str, directory: str) -> bool:
    """Whether path is directory, or below it (names only)."""
    return directory in {"/", path} or path.startswith(directory + "/")
