"""Block devices: which device is this volume, and what is on it.

A device counts when sysfs shows this volume's serial (the volume id without its dash), whatever its name: after a
surprise removal a volume was seen to return as nvme1n2 on controller nvme2 (CORNER-CASES 39), and links below
/dev/disk/by-id have pointed at the wrong disk (aws-ebs-csi-driver issue 1224). Sources: EC2 user guide, "Map EBS
volumes to NVMe device names"; "Device names on Linux instances" for Xen.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from awsha.core.model import Device, Unknown
from awsha.host.run import Done, RunError, last_lines, run

EXT = frozenset({"ext2", "ext3", "ext4"})
EBS_MODEL = "Amazon Elastic Block Store"
_NVME = re.compile(r"nvme\d+n\d+")
_XEN_NAME = re.compile(r"(?:/dev/)?(?:sd|xvd)([a-z]{1,2}\d{0,2})")
_NOT_READ = Unknown("not read")
_GONE = frozenset({errno.ENOENT, errno.ENODEV, errno.ENXIO, errno.ENOTDIR})


def serial_of(volume_id: str) -> str:
    """The serial that EC2 gives the NVMe device of a volume: vol-0abc becomes vol0abc."""
    return volume_id.replace("-", "", 1)


@dataclass(frozen=True, slots=True)
class Disks:
    """One look at /sys/block. names: name -> device number; serials: serial -> names; unread: a reason for each
    NVMe disk whose serial could not be read; models: name -> model (advisory)."""

    root: Path
    names: Mapping[str, str]
    serials: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    unread: tuple[str, ...] = ()
    models: Mapping[str, str] = field(default_factory=dict)

    def device(self, volume_id: str, ec2_device_name: str = "") -> Device | Unknown | None:
        """The volume's device; None when there is none (yet); Unknown when it cannot be told.

        ec2_device_name: the name in the volume's own attachment (/dev/sdf), for Xen types only: it counts when no
        NVMe device of EBS is there at all. `fstype` is left Unknown: see filesystem().
        """
        names = self.serials.get(serial_of(volume_id), ())
        if len(names) > 1:
            return Unknown(f"{' and '.join(names)} both show the serial of {volume_id}")
        if not names and self.unread:
            return Unknown(self.unread[0])
        if names:
            return self._node(names[0])
        return self._xen(ec2_device_name)

    def _xen(self, ec2_device_name: str) -> Device | None:
        """The device under its mapped name: /dev/sdf is xvdf."""
        match = _XEN_NAME.fullmatch(ec2_device_name)
        if match is None or any(serial.startswith("vol") for serial in self.serials):
            return None
        return self._node(f"xvd{match[1]}") if f"xvd{match[1]}" in self.names else None

    def _node(self, name: str) -> Device | None:
        """The device, once its node in /dev is a block device with the number that sysfs gives."""
        path = f"/dev/{name}"
        if node_number(self.root / "dev" / name) != self.names[name]:
            return None
        return Device(path, self.names[name], _NOT_READ)

    def serial_at(self, number: str) -> str | None:
        """The serial of the NVMe disk with this device number."""
        for serial, names in self.serials.items():
            if any(self.names[name] == number for name in names):
                return serial
        return None

    def alive(self, number: str) -> bool:
        """Whether a disk or a partition has this device number."""
        if number in self.names.values():
            return True
        return any(number in self._partitions(name) for name in self.names)

    def _partitions(self, name: str) -> list[str]:
        """Device numbers of a disk's partitions."""
        try:
            entries = [entry for entry in (self.root / "sys/block" / name).iterdir() if entry.name.startswith(name)]
        except OSError:
            return []
        numbers = (_read(f"{entry}/dev") for entry in entries)
        return [number for number in numbers if isinstance(number, str)]


def node_number(path: Path) -> str | None:
    """Device number of the block device node at path; None when it is not one."""
    try:
        status = path.stat()
    except OSError:
        return None
    if not stat.S_ISBLK(status.st_mode):
        return None
    return f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"


def _read(path: str) -> str | Unknown | None:
    """A sysfs attribute without the padding; None when the device has gone, or never had it.

    Plain descriptors and names: pathlib and text files cost three times as much, all day long.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return os.read(descriptor, 4096).decode("utf-8", "replace").strip(" \n\0")
        finally:
            os.close(descriptor)
    except OSError as error:
        return None if error.errno in _GONE else Unknown(f"{path}: {error.strerror}")


def scan(root: str | Path = "/") -> Disks | Unknown:
    """Look at every block device once: a few file reads each, no other program, no I/O on any disk."""
    base = Path(root)
    folder = str(base / "sys/block")
    try:
        present = sorted(os.listdir(folder))  # noqa: PTH208
    except OSError as error:
        return Unknown(f"{folder}: {error.strerror}")
    names: dict[str, str] = {}
    serials: dict[str, tuple[str, ...]] = {}
    models: dict[str, str] = {}
    unread: list[str] = []
    for name in present:
        number = _read(f"{folder}/{name}/dev")
        if not isinstance(number, str):
            continue  # gone meanwhile; or a path of a multipath disk (nvme0c0n1), which is not to be used
        names[name] = number
        if not _NVME.fullmatch(name):
            continue
        serial = _read(f"{folder}/{name}/device/serial")
        if isinstance(serial, Unknown):
            unread.append(serial.reason)
        elif serial:
            serials[serial] = (*serials.get(serial, ()), name)
            model = _read(f"{folder}/{name}/device/model")
            models[name] = model if isinstance(model, str) else ""
    return Disks(base, names, serials, tuple(unread), models)


def find(volume_id: str, ec2_device_name: str = "", root: str | Path = "/") -> Device | Unknown | None:
    """The device of one volume: see Disks.device. Cheap enough to be asked every 20 ms."""
    disks = scan(root)
    return disks if isinstance(disks, Unknown) else disks.device(volume_id, ec2_device_name)


def filesystem(device_path: str, timeout_s: float) -> str | Unknown | None:
    """The type of the file system on a device, by blkid's low-level probe (no cache); None when there is no signature.

    blkid(8): exit 2 means that nothing was found, but also that the device could not be opened or read, in silence;
    so "nothing" is believed only when the places of the superblocks (the first 68 KiB) can be read. Exit 8: ambivalent.
    """
    try:
        done = run(["blkid", "-p", "-o", "export", "--", device_path], timeout_s, check=False)
        if done.returncode == 2 and not done.stderr:
            run(["dd", f"if={device_path}", "of=/dev/null", "bs=4096", "count=17", "status=none"], timeout_s)
            return None
    except RunError as error:
        return Unknown(error.message)
    return _type_of(device_path, done)


def unclean(device_path: str, fstype: str, timeout_s: float) -> bool:
    """Whether an unmounted file system was cut off in use, by its superblock; also when that can't be told.

    Only ext2/3/4 say so without a replay of their log: `needs_recovery` stands there from mount to unmount, the state
    is `clean` after an unmount (dumpe2fs(8), ext4(5)). xfs and btrfs mend that in the mount itself.
    """
    if fstype not in EXT:
        return False
    try:
        told = run(["dumpe2fs", "-h", device_path], timeout_s).stdout
    except RunError:
        return True
    lines = dict(line.split(":", 1) for line in told.splitlines() if ":" in line)
    clean = lines.get("Filesystem state", "").strip() == "clean"
    return not clean or "needs_recovery" in lines.get("Filesystem features", "")


def answering(device: Device, timeout_s: float) -> Device | Unknown:
    """The device, once a block of it was read past the page cache; Unknown when that failed.

    A device that is taken away by surprise fails its I/O some moments before sysfs and /dev are without it.
    """
    try:
        read = ["dd", f"if={device.path}", "of=/dev/null", "bs=4096", "skip=1", "count=1", "iflag=direct"]
        done = run(read, timeout_s)
    except RunError as error:
        return Unknown(error.message)
    if not done.stderr.startswith("1+0 "):  # dd(1): whole blocks, `+`, partial ones; none where the device has ended
        return Unknown(f"{device.path} has no second block")
    return device


def _type_of(device_path: str, done: Done) -> str | Unknown:
    """What blkid said."""
    if done.returncode == 8:
        return Unknown(f"{device_path} has signatures of more than one file system (see: wipefs {device_path})")
    if done.returncode != 0:
        return Unknown(f"blkid {device_path}: {last_lines(done.stderr) or f'exit code {done.returncode}'}")
    values = dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)
    if "TYPE" not in values:
        return Unknown(f"{device_path} has no file system but {values.get('PTTYPE', 'something')} (a partition table?)")
    if values.get("USAGE", "filesystem") != "filesystem":
        return Unknown(f"{device_path} holds {values['TYPE']}, which is no file system that can be mounted")
    return values["TYPE"]
