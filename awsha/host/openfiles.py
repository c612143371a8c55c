"""Open files: who keeps a file system busy, and signalling exactly those.

The scan runs as a program of its own (scan.py, which says why nothing in it blocks), so that a deadline really ends
it: fuser and lsof hang on dead servers (resource-agents issue 423), and `fuser -m` on a path that was no mount point
any more killed every user of the root file system (issues 1304, 1944). Here device numbers decide, never paths.

Not seen: what the kernel itself holds (swap, loop devices, NFS exports), processes outside this pid namespace, and
files open on a mount that was already detached lazily (it is in no mount table).
"""

from __future__ import annotations

import json
import os
import signal as signals
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path

import awsha
from awsha.core.model import Holder, Mount
from awsha.core.plain import printable
from awsha.host.keepalived import start_time
from awsha.host.run import RunError, RunTimeout, run

SCAN_S = 5.0
_BOOT = "import sys; sys.path.insert(0, sys.argv[1]); from awsha.host.scan import main; main(sys.argv[2:])"


@dataclass(frozen=True, slots=True)
class Found:
    """The holders, by pid; `complete` is False when the scan ran out of time or could not see everything."""

    holders: tuple[Holder, ...]
    complete: bool
    text: str = ""  # why it is not complete


def holders(mounts: Sequence[Mount], timeout_s: float = SCAN_S) -> Found:
    """Processes that keep the file systems of these mounts busy, one record a process.

    how: cwd, root, exe, fd (bound unix sockets too), map; `mount` for another mount namespace that keeps it mounted
    (one process stands for the namespace).
    """
    numbers = sorted({mount.number for mount in mounts})
    if not numbers:
        return Found((), True)
    package = str(Path(awsha.__file__).resolve().parent.parent)
    argv = [sys.executable, "-I", "-S", "-c", _BOOT, package, f"{timeout_s * 0.8:.3f}", *numbers]
    try:
        return _parse(run(argv, timeout_s).stdout)
    except RunTimeout as error:
        found = _parse(error.stdout)
        return Found(found.holders, False, f"not all processes were looked at within {timeout_s:g} s")
    except RunError as error:
        return Found(_parse(error.stdout).holders, False, error.message)


def _parse(output: str) -> Found:
    """The scan's lines; a last line that was cut off is left out."""
    found: list[Holder] = []
    complete, unseen = False, ""
    for line in output.splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if "pid" in record:
            command, path = printable(record["command"]), printable(record["path"])  # anybody's own choice
            found.append(Holder(record["pid"], command, path, record["how"], record["started"]))
        else:
            complete = bool(record["complete"])
            unseen = f" (pid {', '.join(map(str, record['unseen']))})" if record["unseen"] else ""
    text = "" if complete else f"not every process could be looked at{unseen}"
    return Found(tuple(sorted(found, key=lambda holder: holder.pid)), complete, text)


@dataclass(frozen=True, slots=True)
class Signalled:
    """What became of one holder. `sent`: a signal was delivered; else `why` not. `gone`: it has ended by itself."""

    holder: Holder
    sent: bool
    gone: bool = False
    why: str = ""


def signal(found: Sequence[Holder], kill: bool, spare: Collection[int] = ()) -> tuple[Signalled, ...]:
    """Send SIGTERM, or SIGKILL (`kill`), to exactly these processes.

    Through a pidfd, with the start time compared once it is open: a pid that was given to another process is never
    signalled. Never pid 1, never this process, never keepalived, never a pid in `spare`, and never a process that is
    listed for its mount namespace only (`mount`): ending one member need not free it.
    """
    return tuple(_signal(holder, signals.SIGKILL if kill else signals.SIGTERM, spare) for holder in found)


def _signal(holder: Holder, number: signals.Signals, spare: Collection[int]) -> Signalled:
    """Signal one holder."""
    why = _spared(holder, spare)
    if why:
        return Signalled(holder, False, why=why)
    try:
        pidfd = os.pidfd_open(holder.pid)
    except ProcessLookupError:
        return Signalled(holder, False, gone=True)
    except OSError as error:
        return Signalled(holder, False, why=str(error))
    try:
        if start_time(holder.pid) != holder.started:
            return Signalled(holder, False, gone=True)
        signals.pidfd_send_signal(pidfd, number)
    except ProcessLookupError:
        return Signalled(holder, False, gone=True)
    except OSError as error:
        return Signalled(holder, False, why=str(error))
    finally:
        os.close(pidfd)
    return Signalled(holder, True)


def _spared(holder: Holder, spare: Collection[int]) -> str:
    """Why a holder is not to be signalled; empty when it may be."""
    if holder.pid <= 1:
        return "it is the init process"
    if holder.pid == os.getpid():
        return "it is awsha itself"
    if holder.command == "keepalived" or holder.pid in spare:
        return f"{holder.command} must go on running"
    if holder.how == "mount":
        return f"its mount namespace has it mounted: nsenter -t {holder.pid} -m umount {holder.path}"
    return ""
