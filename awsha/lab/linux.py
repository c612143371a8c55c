"""The few system calls that Python 3.11 has no name for: namespaces, mounts, cgroups.

Nothing but the standard library: the first process of a node imports it and must be up in milliseconds.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

CLONE_NEWNS = 0x00020000
CLONE_NEWUTS = 0x04000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
MS_BIND, MS_REC, MS_SLAVE, MS_NOSUID, MS_SHARED = 0x1000, 0x4000, 1 << 19, 2, 1 << 20
MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


def _checked(result: int, what: str) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")


def unshare(flags: int) -> None:
    """unshare(2) for the calling process. Raises OSError."""
    _checked(_libc.unshare(flags), f"unshare {flags:#x}")


def setns_path(path: Path, kind: int) -> None:
    """Move the calling thread into the namespace that `path` stands for. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        _checked(_libc.setns(fd, kind), f"setns {path}")
    finally:
        os.close(fd)


def mount(source: str, target: str, fstype: str = "", flags: int = 0, data: str = "") -> None:
    """mount(2). Raises OSError that names the target."""
    result = _libc.mount(
        source.encode(), target.encode(), fstype.encode() or None, ctypes.c_ulong(flags), data.encode() or None
    )
    _checked(result, f"mount {source} on {target}")


def umount(target: str, flags: int = 0) -> None:
    """umount2(2). Raises OSError."""
    _checked(_libc.umount2(target.encode(), flags), f"umount {target}")


def die_with_parent(signal_number: int) -> None:
    """Ask for `signal_number` when the thread that forked this process ends (PR_SET_PDEATHSIG)."""
    _checked(_libc.prctl(1, signal_number, 0, 0, 0), "prctl PDEATHSIG")


def join_cgroup(folder: Path) -> None:
    """Move the calling process into a cgroup2 folder; children follow. Raises OSError."""
    (folder / "cgroup.procs").write_text("0")


def netns_path(name: str) -> Path:
    """Where `ip netns` keeps a namespace of this name."""
    return Path("/run/netns") / name


def in_netns(name: str, function: Callable[[], T], deadline_s: float = 5.0) -> T:
    """Run `function` in a thread that has entered a network namespace, and return what it returns.

    Only the thread moves; sockets that it opens stay in the namespace for good. Raises what the function raises,
    TimeoutError when it takes longer than `deadline_s`.
    """
    results: list[T] = []
    failures: list[BaseException] = []

    def run() -> None:
        try:
            setns_path(netns_path(name), CLONE_NEWNET)
            results.append(function())
        except BaseException as error:  # noqa: BLE001 - handed to the caller's thread below
            failures.append(error)

    thread = threading.Thread(target=run, name=f"netns {name}", daemon=True)
    thread.start()
    thread.join(deadline_s)
    if failures:
        raise failures[0]
    if not results:
        raise TimeoutError(f"nothing came back from namespace {name} in {deadline_s} s")
    return results[0]
