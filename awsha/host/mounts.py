"""Mounts: what the kernel has mounted, whether it is the right thing, and mounting and unmounting it.

What is at a volume's mount point is decided by device numbers, never by names. With `device` the block device that
carries the volume's serial now (blockdev), and `number` that of the mount found at the mount point:

| device        | number                                          | so                                             |
| ------------- | ----------------------------------------------- | ---------------------------------------------- |
| found         | the device's                                    | ours                                           |
| found         | another, of a living disk (or no EBS-like source)| foreign                                       |
| found or None | no disk's any more, source was EBS-like         | stale (the volume was pulled, may be back)     |
| None          | of a living disk with our serial                | ours, and the device is Unknown: no /dev node  |
| None          | of a living disk otherwise                      | foreign                                        |
| Unknown       | any                                             | the mount is shown, no verdict                 |

A number lives when sysfs has a disk or partition with it. A mount keeps its own disk's number from being given out
again (the gendisk lives until the last user is gone), so an old mount never matches a new device by chance.
A number is dead when neither sysfs nor the node in /dev that the mount names has it. When only the node has it, the
disk is just going (or /dev is static), and the mount is Unknown: that must neither fence this node nor be mounted over.
/sys/dev/block is not asked: where /sys/block is a view of its own, it shows other disks.
EBS-like is what could have been a volume: /dev/nvme*, /dev/xvd*, /dev/sd*, /dev/disk/by-*. A tmpfs, NFS or loop mount
at the mount point is foreign for ever, and nothing here ever unmounts it.
btrfs numbers its superblocks anonymously (0:45): there the source node stands for the number. That cannot tell a
pulled disk from a new one under the same name; ext4 and xfs can.
"""

from __future__ import annotations

import os
import re
import select
from dataclasses import dataclass
from pathlib import Path

from awsha.core.errors import AwshaError
from awsha.core.model import Device, DiskFacts, Mount, Unknown
from awsha.core.policy import Volume
from awsha.host import blockdev, mountinfo
from awsha.host.blockdev import Disks
from awsha.host.mountinfo import Entry
from awsha.host.run import last_lines, run

_EBS_LIKE = re.compile(r"/dev/(nvme\d|xvd[a-z]|sd[a-z]|disk/by-)")
_BUSY = re.compile(r"\bbusy\b|already mounted", re.IGNORECASE)
Table = tuple[Entry, ...]


class MountError(AwshaError):
    """Mounting or unmounting failed. `busy`: something holds the file system, or the place."""

    def __init__(self, message: str, *, hint: str = "", busy: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.busy = busy


class MountRefused(MountError):
    """What is there now is not what was asked for: nothing was touched."""


@dataclass(frozen=True, slots=True)
class Unmounted:
    """`did`: False when there was nothing to unmount, which is success too. `text` for people."""

    did: bool
    text: str


def read(path: str = "/proc/self/mountinfo") -> Table | Unknown:
    """This process's mount table, whole."""
    try:
        return mountinfo.read(path)
    except (OSError, ValueError, mountinfo.Torn) as error:
        return Unknown(str(error))


def place(target: str) -> str:
    """The mount point as mountinfo names it: symbolic links of its parent resolved, itself never touched."""
    parent, name = os.path.split(os.path.normpath(target))
    return str(Path(os.path.realpath(parent)) / name)


def disk_facts(
    volume: Volume, device: Device | Unknown | None, table: Table | Unknown, disks: Disks | Unknown
) -> DiskFacts:
    """Put together what one look shows of one configured volume; the rules stand at the head of this module.

    volume: with its id. device: from Disks.device, with `fstype` as the caller knows it. Reads no more than /dev.
    """
    if isinstance(table, Unknown):
        return DiskFacts(device, Unknown(table.reason))
    found = mountinfo.visible(table, place(volume.mount))
    mount = None if found is None else as_mount(found)
    if isinstance(device, Unknown) or isinstance(disks, Unknown):
        return DiskFacts(device, mount)
    stale = foreign = False
    ours = {entry.id for entry in table if device is not None and belongs(entry, device, disks)}
    if found is not None and found.id not in ours:
        if device is None and volume.id and disks.serial_at(found.number) == blockdev.serial_of(volume.id):
            return DiskFacts(Unknown(f"the disk of {found.source} is there, its node in /dev is not"), mount)
        alive = _alive(found, disks)
        if isinstance(alive, Unknown):
            return DiskFacts(device, alive, others=_others(table, ours, None))
        stale, foreign = not alive, alive
        if stale:
            ours |= {entry.id for entry in table if entry.number == found.number}
    return DiskFacts(device, mount, stale, foreign, _others(table, ours, None if foreign else found))


def as_mount(entry: Entry) -> Mount:
    """The core's record of a mount."""
    return Mount(entry.target, entry.number, entry.source, entry.fstype, entry.read_only)


def belongs(entry: Entry, device: Device, disks: Disks) -> bool:
    """Whether a mount is of this device."""
    if entry.fstype == "btrfs":
        return _source_number(entry, disks) == device.number
    return entry.number == device.number


def _source_number(entry: Entry, disks: Disks) -> str | None:
    """Number of the block device node that the mount names as its source."""
    if not entry.source.startswith("/dev/"):
        return None
    return blockdev.node_number(disks.root / entry.source.lstrip("/"))


def _alive(entry: Entry, disks: Disks) -> bool | Unknown:
    """Whether the mount's own device exists."""
    if not _EBS_LIKE.match(entry.source):
        return True
    node = _source_number(entry, disks)
    number = node if entry.fstype == "btrfs" else entry.number
    if number is not None and disks.alive(number):
        return True
    if node is not None and node == number:
        return Unknown(f"{entry.source} is in /dev but not in /sys/block: it is just going away, or /dev is static")
    return False


def _others(table: Table, ours: set[int], at_mount_point: Entry | None) -> tuple[Mount, ...]:
    """Further mounts of the same device and everything mounted below any of them, innermost first."""
    parents = {entry.id: entry.parent for entry in table}
    depth: dict[int, int] = {}
    below: set[int] = set(ours)
    for entry in table:
        chain, seen = [entry.id], {entry.id}
        while (parent := parents.get(chain[-1])) is not None and parent not in seen:
            chain.append(parent)
            seen.add(parent)
        depth[entry.id] = len(chain)
        if not seen.isdisjoint(ours):
            below.add(entry.id)
    inner = sorted((e for e in table if e.id in below and e != at_mount_point), key=lambda e: (-depth[e.id], -e.id))
    return tuple(as_mount(entry) for entry in inner)


def _prepare(target: str) -> None:
    """Make the mount point when only it is missing: a missing parent is more likely a mistake than a wish."""
    path = Path(target)
    if path.is_dir():
        return
    if path.exists() or path.is_symlink():
        raise MountRefused(f"the mount point {target} is not a directory")
    if not path.parent.is_dir():
        raise MountRefused(f"{path.parent} does not exist", hint=f"mkdir -p {target}")
    path.mkdir(mode=0o755)
    path.chmod(0o755)  # keepalived runs its scripts with umask 0177


def same_device(device: Device, volume_id: str, ec2_device_name: str, root: str) -> Disks:
    """Refuse unless the device still is the volume's: the last look before it is touched."""
    disks = blockdev.scan(root)
    now = disks if isinstance(disks, Unknown) else disks.device(volume_id, ec2_device_name)
    if isinstance(disks, Unknown) or isinstance(now, Unknown):
        why = now.reason if isinstance(now, Unknown) else ""
        raise MountRefused(f"{device.path}: its serial cannot be read: {why}")
    if now is None or (now.path, now.number) != (device.path, device.number):
        has = "no device" if now is None else f"{now.path} ({now.number})"
        raise MountRefused(f"{device.path} ({device.number}) is not {volume_id} any more: {has} carries its serial")
    return disks


def mount(
    device: Device,
    volume_id: str,
    target: str,
    *,
    fstype: str,
    options: str,
    timeout_s: float,
    ec2_device_name: str = "",
    root: str = "/",
) -> str:
    """Mount the volume's device read-write at target, and look that it is there; answers what was done, for people.

    The serial is read again just before, and the mount table just after. Raises MountRefused (wrong device, or a
    place that is taken or missing), MountError, RunTimeout (it may still come to be: look again).
    """
    target = place(target)
    disks = same_device(device, volume_id, ec2_device_name, root)
    there = _at(target)
    if there is not None:
        if belongs(there, device, disks) and not there.read_only:
            return f"{target} was mounted already"
        what = f"{there.source} ({there.number}{', read-only' if there.read_only else ''})"
        raise MountRefused(f"{what} is mounted at {target}", hint=f"umount {target}", busy=True)
    real = os.path.realpath(target)
    if real != target:
        # the kernel's table has the real place: nothing would be found at this one
        raise MountRefused(f"{target} is a symbolic link, or below one: it is {real}", hint=f'write mount = "{real}"')
    _prepare(target)
    wanted = options.split(",") if options else []
    # -w: without it mount(8) falls back to read-only on a write-protected device, with no more than a warning
    argv = ["mount", "-t", fstype, *([] if "ro" in wanted else ["-w"]), *(["-o", options] if options else [])]
    done = run([*argv, "--", device.path, target], timeout_s, check=False)
    if done.returncode != 0:
        text = last_lines(done.stderr)
        hint = f"the kernel says why: dmesg; by hand: {' '.join(argv)} {device.path} {target}"
        message = f"{device.path} could not be mounted at {target}: {text}"
        raise MountError(message, hint=hint, busy=bool(_BUSY.search(text)))
    there = _at(target)
    if there is None or not belongs(there, device, disks):
        # the node was exchanged between the look and the mount
        run(["umount", "-c", "--", target], timeout_s, check=False)
        raise MountRefused(f"what got mounted at {target} was not {device.path} ({device.number}); unmounted again")
    return f"{device.path} is mounted at {target}"


def _at(target: str) -> Entry | None:
    """What is mounted at target now; raises MountRefused when that cannot be told."""
    table = read()
    if isinstance(table, Unknown):
        raise MountRefused("the mount table cannot be read", hint=table.reason)
    return mountinfo.visible(table, target)


def unmount(target: str, timeout_s: float, lazy: bool = False, number: str | None = None) -> Unmounted:
    """Unmount what is at target, as mountinfo names it (Mount.target). Nothing there is success.

    lazy: detach it (and what is below it) from the tree at once, for a device that is lost.
    number: the device number that is meant; something else at that place is left alone (MountRefused).
    umount(8) -c keeps it from looking at the path, which could hang. Raises MountError (`busy`), RunTimeout.
    """
    there = _at(target)
    if there is None:
        return Unmounted(False, f"{target} was not mounted")
    if number is not None and there.number != number:
        raise MountRefused(f"{there.source} ({there.number}) is mounted at {target} now, not {number}", busy=True)
    done = run(["umount", "-c", *(["-l"] if lazy else []), "--", target], timeout_s, check=False)
    if done.returncode == 0:
        return Unmounted(True, f"{target} is {'detached' if lazy else 'unmounted'}")
    now = _at(target)
    if now is None or now.id != there.id:
        return Unmounted(False, f"{target} was unmounted by somebody else")
    text = last_lines(done.stderr)
    busy = bool(_BUSY.search(text))
    hint = f"fuser -vm {target} shows who holds it" if busy else "the kernel says why: dmesg"
    raise MountError(f"{target} could not be unmounted: {text}", busy=busy, hint=hint)


class Watch:
    """Tells when the mount table has changed. `fileno()` becomes readable, for any selector.

    The kernel answers POLLPRI once for each change, to whoever polls first, and calls the file readable at all times;
    so it sits in an epoll instance of its own. Being woken is the message: by then the event is used up, and drain()
    has nothing to ask. Look once after registering: a change before that is not told. A file system that turns
    read-only by itself is no change of the table.
    """

    def __init__(self, path: str = "/proc/self/mountinfo") -> None:
        self._table = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._epoll = select.epoll()
        self._epoll.register(self._table, select.EPOLLPRI)

    def fileno(self) -> int:
        """For a selector, EVENT_READ."""
        return self._epoll.fileno()

    def drain(self) -> bool:
        """Use up what may still be pending. True: look at the table."""
        self._epoll.poll(0)
        return True

    def close(self) -> None:
        """Give the descriptors back."""
        self._epoll.close()
        if self._table >= 0:
            os.close(self._table)
            self._table = -1


def watch() -> Watch:
    """A Watch of this process's mount table."""
    return Watch()
