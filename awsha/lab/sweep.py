"""Cleaning up from names alone: what a lab left behind when its daemon could not. Touches only this lab's prefix."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import signal
from pathlib import Path

from awsha.core.errors import AwshaError
from awsha.host import mountinfo
from awsha.host.run import RunError, run
from awsha.lab import linux
from awsha.lab.disk import LOOP_CLR_FD
from awsha.lab.settings import Lab
from awsha.lab.waiting import wait_until

DEADLINE_S = 10.0
NETNS_DIR = Path("/run/netns")
DAEMONS = {b"awsha.lab.pair", b"tests.nspawn.daemon"}
NETNS_MARK = "made-run-netns"  # in the run folder: `ip netns` had not been used on this machine before


def leftovers(lab: Lab) -> list[str]:
    """What of this lab is there, in words; empty when nothing is."""
    found = [f"process {pid}" for pid in daemon_pids(lab)]
    found += [f"cgroup {folder}" for folder in [_cgroup(lab)] if folder is not None]
    found += [f"network namespace {name}" for name in namespaces(lab)]
    found += [f"loop device {path}" for path in loops(lab)]
    found += [f"mount {path}" for path in mounts(lab)]
    return found + ([f"folder {lab.run}"] if lab.run.exists() else [])


def sweep(lab: Lab) -> None:
    """Take away everything of this lab. Safe to repeat. Raises AwshaError that names what could not be taken away."""
    for pid in daemon_pids(lab):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    _kill_cgroup(lab)
    wait_until(lambda: not daemon_pids(lab), DEADLINE_S)
    for name in namespaces(lab):
        with contextlib.suppress(RunError):
            run(["ip", "netns", "del", name], timeout_s=DEADLINE_S)
    for path in mounts(lab):
        with contextlib.suppress(OSError):
            linux.umount(path, linux.MNT_DETACH)
    # A dead node's file system is unmounted by the kernel a moment later, and its device clears itself.
    if not wait_until(lambda: not loops(lab), 2.0):
        for device in loops(lab):
            _clear_loop(device)
        wait_until(lambda: not loops(lab), DEADLINE_S)
    remove_netns_dir(lab)
    remove_run(lab)
    left = leftovers(lab)
    if left:
        hint = "run awsha lab down again; dmesg tells of a stuck disk"
        raise AwshaError(f"the lab left behind: {', '.join(left)}", hint=hint)


def remove_run(lab: Lab) -> None:
    """Remove the run folder, but never through a mount."""
    if lab.run.exists() and not mounts(lab):
        shutil.rmtree(lab.run, ignore_errors=True)


def daemon_pids(lab: Lab) -> list[int]:
    """The daemon of this prefix, by its command line: also one that is in no cgroup yet."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            arguments = (folder / "cmdline").read_bytes().split(b"\0")
            if DAEMONS & {*arguments} and lab.prefix.encode() in arguments and int(folder.name) != os.getpid():
                found.append(int(folder.name))
    return found


def _cgroup(lab: Lab) -> Path | None:
    with contextlib.suppress(AwshaError):
        return lab.cgroup if lab.cgroup.is_dir() else None
    return None


def _kill_cgroup(lab: Lab) -> None:
    """End every process below the lab's cgroup and remove the folders."""
    folder = _cgroup(lab)
    if folder is None:
        return
    with contextlib.suppress(FileNotFoundError):
        (folder / "cgroup.kill").write_text("1")
    wait_until(lambda: "populated 1" not in (folder / "cgroup.events").read_text(), DEADLINE_S)
    remove_cgroups(lab)


def remove_cgroups(lab: Lab) -> None:
    """Remove the lab's cgroup folders, innermost first, once nobody is in them."""
    folder = _cgroup(lab)
    if folder is None:
        return
    for below, _, _ in os.walk(folder, topdown=False):
        path = Path(below)
        wait_until(lambda path=path: _removed(path), 2.0)  # type: ignore[misc]


def _removed(folder: Path) -> bool:
    try:
        folder.rmdir()
    except FileNotFoundError:
        return True
    except OSError:
        return False
    return True


def namespaces(lab: Lab) -> list[str]:
    """Names of the lab's network namespaces. A prefix has no dash, so another lab's never match."""
    return sorted(path.name for path in NETNS_DIR.glob(f"{lab.prefix}-*"))


def loops(lab: Lab) -> list[Path]:
    """Devices whose backing file is (or was) in the lab's run folder."""
    found = []
    for backing in Path("/sys/block").glob("loop*/loop/backing_file"):
        with contextlib.suppress(OSError):
            if backing.read_text().startswith(f"{lab.run}/"):
                found.append(Path("/dev") / backing.parent.parent.name)
    return found


def _clear_loop(device: Path) -> None:
    with contextlib.suppress(OSError):
        fd = os.open(device, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.ioctl(fd, LOOP_CLR_FD, 0)
        finally:
            os.close(fd)


def mounts(lab: Lab) -> list[str]:
    """Mount points in the run folder, innermost first."""
    return [entry.target for entry in reversed(mountinfo.read()) if mountinfo.under(entry.target, str(lab.run))]


def mark_netns_dir(lab: Lab) -> None:
    """Note that `ip netns` is about to be used here for the first time, to undo its mount at the end."""
    if not any(entry.target == str(NETNS_DIR) for entry in mountinfo.read()):
        (lab.run / NETNS_MARK).touch()


def remove_netns_dir(lab: Lab) -> None:
    """Undo the mount that iproute2 makes for its names, if this lab caused it and nobody else uses it by now."""
    if not (lab.run / NETNS_MARK).exists() or not NETNS_DIR.is_dir():
        return
    fd = os.open(NETNS_DIR, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)  # iproute2 holds it while it makes a name
        if not any(NETNS_DIR.iterdir()):
            while any(entry.target == str(NETNS_DIR) for entry in mountinfo.read()):
                linux.umount(str(NETNS_DIR), linux.MNT_DETACH)
            NETNS_DIR.rmdir()
    except OSError:
        pass  # somebody was quicker: then it is in use
    finally:
        os.close(fd)
