"""One boot of one node's kernel: block devices, mounts, page cache, processes, addresses. It holds no opinion.

A superblock lives as long as a mount, a process or a flush keeps it; its page cache reaches the disk only by fsync or
an unmount, and only while its device is there. A device that was pulled leaves the mount behind, stale.
"""

from __future__ import annotations

from collections.abc import Callable

from awsha.core.model import UNREAD, Device, DiskFacts, Holder, Mount, Unknown
from awsha.core.policy import Group

UNREADABLE = Unknown("the mount table changed while it was read")
UNSCANNED = Unknown("sysfs could not be read")
DEAD = Unknown("a read of the device failed")


class Refused(Exception):
    """The kernel, or a program that asks it, says no. `busy`: something holds the file system or the place."""

    def __init__(self, text: str, busy: bool = False) -> None:
        super().__init__(text)
        self.busy = busy


class Disk:
    """What is on a volume: the records that reached it, and whether it was cut off in use. It outlives every kernel."""

    __slots__ = ("records", "unclean", "volume_id")

    def __init__(self, volume_id: str) -> None:
        self.volume_id = volume_id
        self.records: set[int] = set()
        self.unclean = False


class BlockDevice:
    """A device as sysfs shows it. `path` and `number` are given out again once nothing uses them."""

    __slots__ = ("index", "number", "path", "present", "unclean", "visible", "volume_id")

    def __init__(self, volume_id: str, index: int, unclean: bool) -> None:
        self.volume_id = volume_id
        self.unclean = unclean  # as its superblock says when it comes: read once (agent/observe.py)
        self.index = index
        self.path = f"/dev/nvme{index}n1"
        self.number = f"259:{index}"
        self.present = True
        self.visible = True  # sysfs and /dev have it; late, it does not


class Process:
    """A process that may hold a file system. `stubborn` ignores SIGTERM."""

    __slots__ = ("command", "pid", "respawns", "started", "stubborn", "superblock")

    def __init__(self, pid: int, command: str, superblock: Superblock | None, stubborn: bool = False) -> None:
        self.pid = pid
        self.command = command
        self.started = pid * 7
        self.superblock = superblock
        self.stubborn = stubborn
        self.respawns = 0


class Superblock:
    """One mounted file system. `dirty`: records in the page cache only. `flushing`: unmounted, not yet on the disk.

    `unsaved`: records whose write failed. They are in the page cache and pass for clean: whoever opens the file afresh
    reads them, and its fsync says that all is well (errseq_t in Linux, Documentation/core-api/errseq.rst).
    """

    __slots__ = ("device", "dirty", "flushing", "mounted_at", "processes", "read_only", "targets", "unsaved",
                 "volume_id")  # fmt: skip

    def __init__(self, device: BlockDevice, now: float) -> None:
        self.device = device
        self.volume_id = device.volume_id
        self.targets: list[str] = []
        self.processes: list[Process] = []
        self.dirty: list[int] = []
        self.unsaved: list[int] = []
        self.flushing = False
        self.read_only = False
        self.mounted_at = now

    @property
    def alive(self) -> bool:
        """Whether it can still write."""
        return bool(self.targets or self.processes or self.flushing)


class Kernel:
    """State and operations; times come from the caller. `changed` is called after each change of disks or mounts."""

    __slots__ = ("_facts", "changed", "devices", "disks", "fading", "group", "pids", "processes", "superblocks",
                 "unreadable", "unscannable", "version", "vips")  # fmt: skip

    def __init__(self, group: Group, disks: dict[str, Disk], changed: Callable[[], None]) -> None:
        self.group = group
        self.disks = disks
        self.changed = changed
        self.devices: dict[str, BlockDevice] = {}  # present ones, by volume
        self.fading: dict[str, BlockDevice] = {}  # dead ones that sysfs still shows
        self.superblocks: list[Superblock] = []
        self.processes: dict[int, Process] = {}
        self.vips: frozenset[str] = frozenset()
        self.pids = 1000
        self.version = 0
        self.unreadable = False  # the mount table gives no answer
        self.unscannable = False  # sysfs gives no answer
        self._facts: dict[str, DiskFacts] | None = None

    def touch(self) -> None:
        """Something changed."""
        self.version += 1
        self._facts = None
        self.superblocks = [s for s in self.superblocks if s.alive]
        self.changed()

    # --- devices ---

    def plug(self, volume_id: str, visible: bool = True) -> BlockDevice:
        """A device appears under the lowest free name; a stale mount keeps its own from being given out again."""
        used = {d.index for d in (*self.devices.values(), *self.fading.values())}
        used |= {s.device.index for s in self.superblocks if s.alive}
        index = next(i for i in range(1, 99) if i not in used)
        device = BlockDevice(volume_id, index, self.disks[volume_id].unclean)
        device.visible = visible
        self.devices[volume_id] = device
        self.touch()
        return device

    def show(self, device: BlockDevice) -> None:
        """A late device gets visible."""
        device.visible = True
        self.touch()

    def pull(self, volume_id: str) -> BlockDevice | None:
        """The device goes away, asked or not. Its I/O fails at once; sysfs shows it until `faded`."""
        device = self.devices.pop(volume_id, None)
        if device is not None:
            device.present = False
            self.fading[volume_id] = device
            self.touch()
        return device

    def faded(self, device: BlockDevice) -> None:
        """The kernel has taken a dead device away."""
        device.visible = False
        if self.fading.get(device.volume_id) is device:
            del self.fading[device.volume_id]
        self.touch()

    # --- mounts ---

    def at(self, target: str) -> Superblock | None:
        """The topmost file system at a place."""
        for superblock in reversed(self.superblocks):
            if target in superblock.targets:
                return superblock
        return None

    def holds(self, volume_id: str) -> bool:
        """Whether anything keeps this volume's living device in use: what EC2 asks the guest at a detach."""
        return any(s.volume_id == volume_id and s.device.present and s.alive for s in self.superblocks)

    def mounted(self, volume_id: str) -> Superblock | None:
        """A file system of this volume that the mount table shows."""
        return next((s for s in self.superblocks if s.volume_id == volume_id and s.targets), None)

    def mount(self, path: str, target: str, now: float) -> Superblock:
        """mount(8) of whatever device has this path now. Raises Refused."""
        device = next((d for d in self.devices.values() if d.path == path and d.visible), None)
        if device is None:
            raise Refused(f"{path} does not exist")
        superblock = next((s for s in self.superblocks if s.device is device), None)
        if superblock is not None and superblock.flushing:
            raise Refused(f"{path} is busy: it is still being unmounted", busy=True)
        if superblock is None:
            superblock = Superblock(device, now)
            self.superblocks.append(superblock)
            self.disks[device.volume_id].unclean = True
        superblock.targets.append(target)
        self.touch()
        return superblock

    def unmount(self, target: str, number: str, lazy: bool) -> Superblock | None:
        """umount(8) of what is at a place; None: nothing is there. Raises Refused when it is in use, or another one.

        The mount leaves the table at once; what was its last one is `flushing` until `flushed` is called.
        """
        superblock = self.at(target)
        if superblock is None:
            return None
        if superblock.device.number != number:
            raise Refused(f"{superblock.device.number} is mounted at {target} now", busy=True)
        if superblock.processes and not lazy and len(superblock.targets) == 1:
            raise Refused(f"{target}: target is busy", busy=True)
        superblock.targets.remove(target)
        if not superblock.targets and not superblock.processes:
            superblock.flushing = True
        self.touch()
        return superblock

    def flushed(self, superblock: Superblock) -> None:
        """The end of an unmount: the page cache has reached the disk, if there is one."""
        if superblock.device.present:
            self.disks[superblock.volume_id].records.update(superblock.dirty)
            self.disks[superblock.volume_id].unclean = False
        superblock.dirty = []
        superblock.flushing = False
        self.touch()

    def fsync(self, superblock: Superblock) -> bool:
        """False: EIO, nothing is on the disk."""
        dirty, superblock.dirty = superblock.dirty, []
        if not superblock.device.present or superblock.read_only:
            superblock.unsaved += dirty
            return False
        self.disks[superblock.volume_id].records.update(dirty)
        return True

    def recover(self, superblock: Superblock) -> list[int] | None:
        """A program opens its file afresh, reads it and flushes: what it takes for kept of all that was ever in doubt.

        None: EIO. A flush that has nothing to write is no news of the disk.
        """
        doubtful = superblock.dirty + superblock.unsaved
        if superblock.dirty and not self.fsync(superblock):
            return None
        return doubtful

    # --- processes ---

    def spawn(self, command: str, superblock: Superblock | None, stubborn: bool = False) -> Process:
        """A process that has a file of this file system open."""
        self.pids += 1
        process = Process(self.pids, command, superblock, stubborn)
        self.processes[process.pid] = process
        if superblock is not None:
            superblock.processes.append(process)
        return process

    def end(self, process: Process) -> None:
        """A process ends: its files are closed."""
        if self.processes.pop(process.pid, None) is not None:
            self.leave(process)

    def leave(self, process: Process) -> None:
        """A process closes its files and lives on."""
        superblock, process.superblock = process.superblock, None
        if superblock is not None:
            superblock.processes.remove(process)
            if not superblock.targets and not superblock.processes:
                self.flushed(superblock)  # a lazy unmount comes to its end
            else:
                self.touch()

    def holders(self, numbers: frozenset[str]) -> tuple[Holder, ...]:
        """Processes that hold file systems of these device numbers."""
        found = [p for p in self.processes.values() if p.superblock and p.superblock.device.number in numbers]
        return tuple(Holder(p.pid, p.command, "/srv", "fd", p.started) for p in found)

    # --- what a look at it shows ---

    def facts(self) -> dict[str, DiskFacts]:
        """What the observer reads of each configured volume (host/mounts.py has the rules)."""
        if self._facts is None:
            self._facts = {v.id or "": self._disk(v.id or "", v.mount) for v in self.group.volumes}
        return self._facts

    def answering(self) -> dict[str, DiskFacts]:
        """The same, when a block of each device is read as well: what is dead does not answer."""
        return {
            volume_id: disk
            if volume_id in self.devices
            else DiskFacts(DEAD, disk.mount, disk.stale, disk.foreign, disk.others)
            for volume_id, disk in self.facts().items()
        }

    def _disk(self, volume_id: str, target: str) -> DiskFacts:
        found = self.devices.get(volume_id) or self.fading.get(volume_id)
        device: Device | Unknown | None = None
        if self.unscannable:
            device = UNSCANNED
        elif found is not None and found.visible:
            device = Device(found.path, found.number, "ext4", found.unclean)
        if self.unreadable:
            return DiskFacts(device, UNREADABLE)
        top = self.at(target)
        mount = None if top is None else _mount(top, target)
        if isinstance(device, Unknown):
            return DiskFacts(device, mount)
        ours = [s for s in self.superblocks if s.device is found and s.targets] if device is not None else []
        stale = foreign = False
        if top is not None and top not in ours:
            if top.device is found:  # its device is hidden: it is there, its node is not
                return DiskFacts(Unknown("the disk is there, its node in /dev is not"), mount)
            stale, foreign = not top.device.present, top.device.present
            if stale:
                ours.append(top)
        others = tuple(_mount(s, t) for s in ours for t in reversed(s.targets) if foreign or (s, t) != (top, target))
        return DiskFacts(device, mount, stale, foreign, others)


def _mount(superblock: Superblock, target: str) -> Mount:
    return Mount(target, superblock.device.number, superblock.device.path, "ext4", superblock.read_only)


UNREAD_DISK = DiskFacts(UNREAD, UNREAD)
