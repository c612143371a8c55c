"""File system checks before a mount, as each file system wants it after its disk was taken by force.

- ext2/3/4, `e2fsck -p`: replays the journal, and checks in full when the superblock asks for it. That is what a boot
  after power loss does (e2fsck(8)).
- xfs, `xfs_repair -n` if the log is clean: only a mount replays the log, and a check before that reports errors which
  are none (xfs_repair(8)); with a dirty log the mount is the check. fsck.xfs(8) does nothing for this reason.
- btrfs, `btrfs check --readonly`: its tree is consistent after a crash, and repair is not for machines
  (btrfs-check(8)).

Anything that was not repaired by itself is an error: a person must look before the data is served.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from awsha.core.errors import AwshaError
from awsha.core.model import Device, Unknown
from awsha.host import blockdev, mounts
from awsha.host.clock import boottime
from awsha.host.run import Done, failure, last_lines, run


class FsckError(AwshaError):
    """The file system has damage that was not repaired, or could not be checked."""


@dataclass(frozen=True, slots=True)
class Checked:
    """A file system that may be mounted. `repaired`: something was changed; `text` for people."""

    text: str
    repaired: bool = False


def check(
    device: Device, volume_id: str, fstype: str, timeout_s: float, *, ec2_device_name: str = "", root: str = "/"
) -> Checked:
    """Check the volume's unmounted file system, repairing only what its own tool repairs unasked.

    Raises mounts.MountRefused (another device by now, or mounted), FsckError, RunError, ProgramMissing (the hint
    names the package), RunTimeout. A type without a rule is not checked, and says so.
    """
    disks = mounts.same_device(device, volume_id, ec2_device_name, root)
    table = mounts.read()
    if isinstance(table, Unknown):
        raise mounts.MountRefused("the mount table cannot be read", hint=table.reason)
    for entry in table:
        if mounts.belongs(entry, device, disks):
            raise mounts.MountRefused(f"{device.path} is mounted at {entry.target}: it cannot be checked", busy=True)
    rule = _RULES.get("ext" if fstype in blockdev.EXT else fstype)
    if rule is None:
        return Checked(f"{device.path}: there is no check for {fstype}")
    return rule(device.path, timeout_s)


def _ext(path: str, timeout_s: float) -> Checked:
    """e2fsck(8): the exit code is a sum; 1 corrected, 2 corrected and wants a reboot (it was not mounted: no need)."""
    argv = ["e2fsck", "-p", path]
    done = run(argv, timeout_s, check=False)
    if done.returncode < 0 or done.returncode & ~3:
        hint = f"by hand, then try again: e2fsck -f {path}"
        raise FsckError(failure(argv, done).message, hint=hint)
    repaired = done.returncode != 0
    return Checked(f"{path}: {'repaired' if repaired else 'clean'} ({last_lines(done.stdout, 1)})", repaired)


def _xfs(path: str, timeout_s: float) -> Checked:
    """xfs_repair(8): -n exits 1 for corruption; xfs_logprint(8) -t tells whether the log is clean."""
    deadline = boottime() + timeout_s
    log = run(["xfs_logprint", "-t", path], timeout_s, check=False)
    if "<CLEAN>" not in log.stdout:
        return Checked(f"{path}: the log is not clean; mounting it replays it")
    argv = ["xfs_repair", "-n", path]
    done = run(argv, max(1.0, deadline - boottime()), check=False)
    return _read_only(argv, path, done, f"by hand, then try again: xfs_repair {path}")


def _btrfs(path: str, timeout_s: float) -> Checked:
    """btrfs-check(8): not 0 for any error found."""
    argv = ["btrfs", "check", "--readonly", path]
    done = run(argv, timeout_s, check=False)
    return _read_only(argv, path, done, "see btrfs-check(8): repair is a last resort; restore a snapshot, or scrub")


def _read_only(argv: list[str], path: str, done: Done, hint: str) -> Checked:
    """The verdict of a check that changes nothing."""
    if done.returncode != 0:
        raise FsckError(failure(argv, done).message, hint=hint)
    return Checked(f"{path}: clean")


_RULES: dict[str, Callable[[str, float], Checked]] = {"ext": _ext, "xfs": _xfs, "btrfs": _btrfs}
