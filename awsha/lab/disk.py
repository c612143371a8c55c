"""EBS volumes: a backing file each, and for every attachment a fresh loop device that only one node can see.

The image is a little longer than the volume: a device that is taken away is pointed at that tail, 512 bytes long, so
whatever the old holder still writes fails with an I/O error or lands where nobody reads. A device is always cut before
another one is made over the same image; no two of them ever write it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from awsha.core.errors import AwshaError
from awsha.host.run import run
from awsha.lab.settings import Lab
from awsha.lab.waiting import wait_until

# linux/loop.h
LOOP_CLR_FD, LOOP_SET_STATUS64, LOOP_CONFIGURE = 0x4C01, 0x4C04, 0x4C0A
LOOP_CTL_REMOVE, LOOP_CTL_GET_FREE = 0x4C81, 0x4C82
LO_FLAGS_AUTOCLEAR = 4
LOOP_INFO64 = struct.Struct("=5Q4I64s64s32s2Q")
LOOP_MAJOR = 7

TAIL_BYTES = 1 << 20  # beyond the volume's end, for what a cut device still writes
MKFS_TIMEOUT_S = 30.0
RELEASE_DEADLINE_S = 10.0
QUIET_S, QUIET_DEADLINE_S = 0.02, 2.0
MKFS = {
    # Few inodes and a small journal: a quarter of the time, and nothing left to initialise in the background.
    "ext4": ["mkfs.ext4", "-q", "-F", "-N", "4096", "-J", "size=8", "-E", "lazy_itable_init=0,nodiscard"],
    "xfs": ["mkfs.xfs", "-q", "-f", "-K"],
}


@dataclass(frozen=True, slots=True)
class Attachment:
    """One live loop device and the node that sees it as /dev/<kernel_name>."""

    volume_id: str
    node: str
    kernel_name: str
    loop: LoopDevice

    @property
    def number(self) -> str:
        """major:minor as in mountinfo."""
        return f"{LOOP_MAJOR}:{self.loop.index}"


@dataclass(frozen=True, slots=True)
class LoopDevice:
    """A bound loop device. It clears itself when `fd` is closed and nothing has it open or mounted any more."""

    index: int
    fd: int
    image: Path
    sectors: int
    created: bool  # the device node did not exist before: take it away afterwards


def _status(offset: int, limit: int, name: bytes) -> bytes:
    return LOOP_INFO64.pack(0, 0, 0, offset, limit, 0, 0, 0, LO_FLAGS_AUTOCLEAR, name[:63], b"", b"", 0, 0)


def bind(image: Path, size: int) -> LoopDevice:
    """Make a loop device of `size` bytes over an image. Raises OSError; AwshaError when no device could be had."""
    image_fd = os.open(image, os.O_RDWR | os.O_CLOEXEC)
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        for _ in range(32):  # between asking for a free number and binding it, another program can be quicker
            existing = {int(p.name[4:]) for p in Path("/sys/block").glob("loop*")}
            index = fcntl.ioctl(control, LOOP_CTL_GET_FREE)
            node = Path(f"/dev/loop{index}")
            if not node.exists():  # a /dev without devtmpfs, as in some containers
                os.mknod(node, 0o660 | 0o060000, os.makedev(LOOP_MAJOR, index))
            fd = os.open(node, os.O_RDWR | os.O_CLOEXEC)
            # struct loop_config: fd, block size, status, 8 reserved words
            config = struct.pack("=II", image_fd, 512) + _status(0, size, os.fsencode(image)) + bytes(64)
            try:
                fcntl.ioctl(fd, LOOP_CONFIGURE, config)
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
                continue
            return LoopDevice(index, fd, image, size // 512, index not in existing)
    finally:
        os.close(image_fd)
        os.close(control)
    raise AwshaError("no free loop device", hint="losetup -a shows who has them")


def cut(loop: LoopDevice, volume_size: int) -> None:
    """Take the disk away under whoever has it: after this returns, nothing that is written to it reaches the volume.

    Two steps, because the kernel changes the place first and the size a moment later (drivers/block/loop.c,
    loop_set_status): moved at once, a write in between would succeed in the wrong place and be acknowledged.
    So first the size shrinks to one sector in its place, what had passed the old size arrives where it belongs, and
    only then that sector moves to the tail. Raises OSError when the device could not be cut.
    """
    _set_status(loop, _status(0, 512, os.fsencode(loop.image)))
    wait_quiet(loop)
    _set_status(loop, _status(volume_size, 512, os.fsencode(loop.image)))


def _set_status(loop: LoopDevice, status: bytes) -> None:
    deadline = time.monotonic() + RELEASE_DEADLINE_S
    while True:
        try:
            fcntl.ioctl(loop.fd, LOOP_SET_STATUS64, status)
        except OSError as error:
            # Older kernels answer EAGAIN while cached metadata keeps being dirtied.
            if error.errno != errno.EAGAIN or time.monotonic() > deadline:
                raise
        else:
            return


def wait_quiet(loop: LoopDevice) -> None:
    """Wait until no request has been under way on a device, nor completed, for QUIET_S; at most QUIET_DEADLINE_S."""
    stat = Path(f"/sys/block/loop{loop.index}/stat")
    last, since = "", time.monotonic()

    def quiet() -> bool:
        nonlocal last, since
        now, fields = time.monotonic(), stat.read_text().split()
        # Block layer statistics: reads 0, writes 4, in flight 8 (Documentation/block/stat.rst).
        seen = f"{fields[0]} {fields[4]}"
        if seen != last or fields[8] != "0":
            last, since = seen, now
        return now - since >= QUIET_S

    wait_until(quiet, QUIET_DEADLINE_S, 0.001)


def unbind(loop: LoopDevice) -> None:
    """Let go of a device; the kernel clears it when its last user (a stale mount) is gone."""
    os.close(loop.fd)


def is_bound(loop: LoopDevice) -> bool:
    """Whether a device still has its image, and its number is not somebody else's by now."""
    try:
        return Path(f"/sys/block/loop{loop.index}/loop/backing_file").read_text().rstrip("\n") == str(loop.image)
    except OSError:
        return False


def remove_number(loop: LoopDevice) -> None:
    """Take the device number away again if the lab made it; quietly leave it where somebody uses it by now."""
    if not loop.created:
        return
    control = os.open("/dev/loop-control", os.O_RDWR | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            fcntl.ioctl(control, LOOP_CTL_REMOVE, loop.index)
    finally:
        os.close(control)


def has_live_file_system(loop: LoopDevice) -> bool:
    """Whether a file system is active on the device, visible in some mount table or not (a lazy unmount hides it)."""
    return any(Path(f"/sys/fs/{fstype}/loop{loop.index}").exists() for fstype in MKFS)


class Disks:
    """All volumes of a lab. Safe for several threads; `show` and `hide` make a device (in)visible in a node."""

    def __init__(
        self,
        lab: Lab,
        show: Callable[[Attachment], None],
        hide: Callable[[Attachment], None],
        folder: Path | None = None,
    ) -> None:
        """Nothing is made yet. The images are in `folder`, by default in the lab's run folder."""
        self._folder = folder or lab.run / "volumes"
        self._show = show
        self._hide = hide
        self._lock = threading.RLock()
        self._sizes: dict[str, int] = {}
        self._live: dict[str, Attachment] = {}
        self._gone: list[LoopDevice] = []  # cut and let go, perhaps still under a stale mount

    def create(self, volume_id: str, size_gib: int, fstype: str) -> None:
        """Make the image with a file system on it. Raises AwshaError when mkfs fails."""
        self._folder.mkdir(parents=True, exist_ok=True)
        size = size_gib << 30
        with self.image(volume_id).open("wb") as image:
            image.truncate(size)
        run([*MKFS[fstype], str(self.image(volume_id))], timeout_s=MKFS_TIMEOUT_S)
        os.truncate(self.image(volume_id), size + TAIL_BYTES)
        self._sizes[volume_id] = size

    def image(self, volume_id: str) -> Path:
        """The backing file of a volume."""
        return self._folder / f"{volume_id}.img"

    def attach(self, volume_id: str, node: str, kernel_name: str) -> Attachment:
        """Give a node a new device for this volume; any older one is cut first. Raises OSError, AwshaError."""
        with self._lock:
            self.detach(volume_id)
            loop = bind(self.image(volume_id), self._sizes[volume_id])
            attachment = Attachment(volume_id, node, kernel_name, loop)
            try:
                self._show(attachment)
            except BaseException:
                self._let_go(attachment)
                raise
            self._live[volume_id] = attachment
            return attachment

    def detach(self, volume_id: str) -> Attachment | None:
        """Take a volume's device away from whichever node has it, used or not; None when there was none."""
        with self._lock:
            attachment = self._live.pop(volume_id, None)
            if attachment is not None:
                self._let_go(attachment)
            return attachment

    def _let_go(self, attachment: Attachment) -> None:
        cut(attachment.loop, self._sizes[attachment.volume_id])
        self._hide(attachment)
        unbind(attachment.loop)
        self._gone.append(replace(attachment.loop, fd=-1))

    def live(self, volume_id: str) -> Attachment | None:
        """The device that a volume has now."""
        with self._lock:
            return self._live.get(volume_id)

    def of_node(self, node: str) -> list[Attachment]:
        """The live devices of one node."""
        with self._lock:
            return [attachment for attachment in self._live.values() if attachment.node == node]

    def uncut(self, volume_id: str) -> set[str]:
        """Numbers (major:minor) of the devices that can write this volume now, by the kernel's word, not by our own."""
        found = set()
        for folder in Path("/sys/block").glob("loop*/loop"):
            with contextlib.suppress(OSError):
                if (folder / "backing_file").read_text().rstrip("\n") != str(self.image(volume_id)):
                    continue
                if (folder / "offset").read_text().strip() == "0":
                    found.add((folder.parent / "dev").read_text().strip())
        return found

    def stale_numbers(self) -> set[str]:
        """Numbers of devices that were cut and are still there, under a mount that nobody has cleaned up."""
        with self._lock:
            live = {attachment.number for attachment in self._live.values()}
            return {f"{LOOP_MAJOR}:{loop.index}" for loop in self._gone if is_bound(loop)} - live

    def close(self, deadline_s: float = RELEASE_DEADLINE_S) -> list[int]:
        """Take everything away, once the nodes are dead; the numbers of devices that something still holds."""
        with self._lock:
            for volume_id in list(self._live):
                self.detach(volume_id)
            wait_until(lambda: not any(is_bound(loop) for loop in self._gone), deadline_s)
            for loop in self._gone:
                remove_number(loop)
            return [loop.index for loop in self._gone if is_bound(loop)]
