"""What a volume needs next: to be held and mounted here, or to be let go."""

from __future__ import annotations

from dataclasses import dataclass

from awsha.core import fencing, handover, unmounting
from awsha.core.model import (
    Attachment,
    AttachmentState,
    Device,
    DiskFacts,
    Mount,
    Unknown,
    VolumeFacts,
    VolumeState,
)
from awsha.core.policy import Fsck, Volume
from awsha.core.situation import Code, Draft, Situation
from awsha.core.steps import (
    Attach,
    Check,
    ClearReleasing,
    Detach,
    MountVolume,
    Scope,
    SetMark,
    TagReleasing,
)

FENCED = "fenced"
DEVICE_LETTERS = "fghijklmnop"  # the names that AWS recommends for EBS data volumes (EC2 user guide, device naming)
DISAGREE_S = 10.0  # mounted on a living device, and EC2 says elsewhere: this long, over many looks, is no stale view


@dataclass(frozen=True, slots=True)
class Held:
    """How far an acquisition is. `won`: EC2 gave this node the sole attachment. `ready`: mounted read-write here."""

    won: bool
    ready: bool


def forced_mark(volume_id: str) -> str:
    """The mark that says: this volume was taken by force and must be checked before it is mounted."""
    return f"forced:{volume_id}"


def device_of(disk: DiskFacts) -> Device | None:
    """The volume's device, when it is known to be there."""
    return disk.device if isinstance(disk.device, Device) else None


def mount_of(disk: DiskFacts) -> Mount | None:
    """The volume's own mount at its place, dead or alive; None when there is none, or it is not this volume's."""
    return disk.mount if isinstance(disk.mount, Mount) and not disk.foreign else None


def mounted_live(disk: DiskFacts) -> bool:
    """Whether the volume is mounted at its place on a device that is there."""
    return mount_of(disk) is not None and not disk.stale


# --- acquire ---------------------------------------------------------------------------------------------------


def acquire(draft: Draft, volume: Volume) -> Held:
    """Plan what brings a volume here, mounted."""
    s = draft.s
    vid = volume.id or ""
    disk, facts = s.disk(vid), s.volume(vid)
    if disk.stale:
        # Mounted here and the device is gone: another node has taken it (or somebody pulled it): this node is fenced.
        draft.step(SetMark(FENCED))
        return Held(False, False)
    if isinstance(facts, VolumeFacts) and len(facts.attachments) > 1:
        draft.block(
            Code.TWO_ATTACHMENTS,
            vid,
            f"EC2 shows {vid} attached to {', '.join(a.instance_id for a in facts.attachments)}",
            "one volume has one holder: detach it from all but the one that uses it",
            Scope.CLOUD,
        )
        return Held(False, mounted_live(disk))
    if mounted_live(disk):
        held = _held_and_mounted(draft, vid, disk, facts)
        if vid not in s.memory.running or not held.ready:
            return held
        # an unmount, perhaps, that was planned before this node became master again: nothing is built on this mount
        draft.wait(Code.RUNNING, vid, f"waits for the step under way on {vid}")
        return Held(held.won, False)
    if isinstance(facts, Unknown):
        draft.unknown(Code.CLOUD_UNKNOWN, "volumes", f"EC2 does not say where {vid} is", facts, Scope.CLOUD)
        return Held(False, False)
    if facts is None:
        draft.block(
            Code.VOLUME_MISSING,
            vid,
            f"EC2 knows no {vid}",
            "correct the id in awsha.toml, or restore the volume",
            Scope.CLOUD,
        )
        return Held(False, False)
    if not _usable(draft, facts):
        return Held(False, False)
    if not facts.attachments:
        if facts.state is VolumeState.AVAILABLE:
            draft.step(Attach(vid, _device_name(s, vid)))
        else:
            draft.wait(Code.SETTLING, vid, f"EC2 says that {vid} is {facts.state} but shows no attachment", Scope.CLOUD)
        return Held(False, False)
    mine = s.mine(facts)
    if mine is None:
        fencing.take(draft, facts, facts.attachments[0])
        return Held(False, False)
    return _attached_here(draft, volume, mine, disk)


def _held_and_mounted(draft: Draft, vid: str, disk: DiskFacts, facts: VolumeFacts | Unknown | None) -> Held:
    """Mounted on a living device: see that nothing is wrong with it, and that EC2 agrees."""
    s, mount = draft.s, mount_of(disk)
    assert mount is not None  # noqa: S101  mounted_live() said so
    if mount.read_only:
        draft.block(
            Code.READ_ONLY,
            vid,
            f"{mount.target} has become read-only: the file system met an error",
            f"look at the kernel log; check {mount.source} before it is used again",
            Scope.DISKS,
        )
        return Held(False, False)
    if isinstance(facts, Unknown):
        draft.unknown(Code.CLOUD_UNKNOWN, "volumes", f"{vid} is mounted here, but EC2 does not confirm it", facts)
        return Held(False, True)
    if facts is None:
        draft.wait(Code.VOLUME_MISSING, vid, f"{vid} is mounted here, but EC2 knows no such volume")
        return Held(False, True)
    mine = s.mine(facts)
    if mine is None:
        holder = facts.attachments[0].instance_id if facts.attachments else "nobody"
        if draft.standing(Code.DISAGREES, vid) >= DISAGREE_S and facts.attachments:
            draft.step(SetMark(FENCED))
            return Held(False, False)
        draft.wait(
            Code.DISAGREES,
            vid,
            f"{vid} is mounted here, but EC2 says that {holder} holds it",
            Scope.CLOUD,
            for_s=DISAGREE_S,
        )
        return Held(False, True)
    if mine.state in fencing.LEAVING:
        draft.wait(
            Code.DETACH_REQUESTED,
            vid,
            f"somebody asked EC2 to detach {vid}, which is mounted here: it is {mine.state}",
            hint=f"nothing can cancel it; it ends when {mount.target} is unmounted: awsha switchover {s.group.name}",
        )
        return Held(True, True)  # it holds the volume for as long as it has it mounted
    if mine.state is AttachmentState.ATTACHING:
        draft.wait(Code.ATTACHING, vid, f"{vid} is mounted; EC2 still says attaching", Scope.CLOUD)
    if facts.releasing is not None and facts.releasing.node == s.me.name:
        draft.step(ClearReleasing(vid))
    return Held(True, True)


def _usable(draft: Draft, facts: VolumeFacts) -> bool:
    """Whether this volume can be attached at all."""
    if facts.multi_attach:
        draft.block(
            Code.MULTI_ATTACH,
            facts.id,
            f"{facts.id} has Multi-Attach enabled: its attachment is no lock",
            "disable Multi-Attach on the volume",
            Scope.CLOUD,
        )
        return False
    if facts.state is VolumeState.CREATING:
        draft.wait(Code.SETTLING, facts.id, f"{facts.id} is being created", Scope.CLOUD)
        return False
    if facts.state in (VolumeState.DELETING, VolumeState.DELETED, VolumeState.ERROR):
        draft.block(
            Code.VOLUME_UNUSABLE,
            facts.id,
            f"{facts.id} is {facts.state}",
            "restore a snapshot and put the new volume's id into awsha.toml",
            Scope.CLOUD,
        )
        return False
    return True


def _device_name(s: Situation, vid: str) -> str:
    """A device name that is free, and not the one that was tried last: a name that was just used can stay stuck
    (kubernetes #31891). Deterministic: it turns with the intent, with each try and with the volume's place."""
    instance = s.instance(s.me.instance_id)
    taken = instance.device_names if instance is not None and not isinstance(instance, Unknown) else frozenset()
    letters_taken = {name[-1] for name in taken if name}
    place = next(i for i, v in enumerate(s.group.volumes) if v.id == vid)
    past = s.past(Attach, vid)
    turn = (s.intent.order[0] if s.intent else 0) + place + (past.runs if past else 0)
    letters = DEVICE_LETTERS[turn % len(DEVICE_LETTERS) :] + DEVICE_LETTERS[: turn % len(DEVICE_LETTERS)]
    free = [letter for letter in letters if letter not in letters_taken] or list(letters)
    return f"/dev/sd{free[0]}"


def _attached_here(draft: Draft, volume: Volume, mine: Attachment, disk: DiskFacts) -> Held:
    """EC2 says that this node is the only holder: wait for the device, check, mount."""
    s, vid, limit = draft.s, volume.id or "", draft.s.group.timeouts
    if mine.state in fencing.LEAVING:
        waited = draft.wait(
            Code.DETACHING_HERE,
            vid,
            f"{vid} is still being detached from this node",
            Scope.CLOUD,
            for_s=limit.handover_s,
        )
        if waited >= limit.handover_s and _nothing_mounted(disk):
            draft.step(Detach(vid, s.me.instance_id, force=True))
        return Held(False, False)
    if mine.state is not AttachmentState.ATTACHED:
        waited = draft.wait(
            Code.ATTACHING,
            vid,
            f"{vid} is attaching as {mine.device}",
            Scope.CLOUD,
            Scope.DISKS,
            for_s=limit.attach_stuck_s,
        )
        if device_of(disk) is not None:
            draft.standing(Code.DEVICE_HERE, vid)
        if waited >= limit.attach_stuck_s and _nothing_mounted(disk):
            draft.step(Detach(vid, s.me.instance_id))
        return Held(True, False)
    device = disk.device
    if device is None or isinstance(device, Unknown):
        _wait_for_device(draft, vid, mine, device)
    elif disk.foreign and isinstance(disk.mount, Mount):
        draft.block(
            Code.MOUNT_POINT_BUSY,
            vid,
            f"{volume.mount} is taken by {disk.mount.source}",
            f"umount {volume.mount}",
            Scope.DISKS,
        )
    elif isinstance(disk.mount, Unknown):
        draft.unknown(Code.HOST_UNKNOWN, vid, "the mount table can't be read", disk.mount, Scope.DISKS)
    elif disk.others:
        where = ", ".join(m.target for m in disk.others)
        draft.block(
            Code.MOUNTED_ELSEWHERE,
            vid,
            f"{vid} is mounted at {where}, not at {volume.mount}",
            f"umount {where}",
            Scope.DISKS,
        )
    else:
        _check_or_mount(draft, volume, device)
    return Held(True, False)


def _wait_for_device(draft: Draft, vid: str, mine: Attachment, device: Unknown | None) -> None:
    """`attached` in the API does not mean that the device is there (aws-ebs-csi-driver #2062)."""
    limit = draft.s.group.timeouts.device_s
    why = f" ({device.reason})" if isinstance(device, Unknown) else ""
    if draft.standing(Code.DEVICE, vid) < limit:
        draft.wait(
            Code.DEVICE,
            vid,
            f"EC2 says attached as {mine.device}; no device carries {vid}'s serial yet{why}",
            Scope.DISKS,
            for_s=limit,
        )
    else:
        draft.block(
            Code.DEVICE_MISSING,
            vid,
            f"EC2 says attached for {limit:g} s, and no device carries {vid}'s serial{why}",
            f"nothing to type: a device that comes is used at once, else this node lets {vid} go, and whoever is then "
            "master attaches it; for the cause: lsblk -o NAME,SERIAL; dmesg | tail -50",
            Scope.DISKS,
            Scope.CLOUD,
        )


def _check_or_mount(draft: Draft, volume: Volume, device: Device) -> None:
    """The device is there and nothing of it is mounted."""
    vid = volume.id or ""
    if isinstance(device.fstype, Unknown):
        draft.unknown(
            Code.HOST_UNKNOWN, vid, f"the file system on {device.path} can't be read", device.fstype, Scope.DISKS
        )
    elif device.fstype is None:
        draft.block(
            Code.NO_FILESYSTEM,
            vid,
            f"{device.path} ({vid}) carries no file system",
            f"if it is meant to be empty: mkfs.{volume.fstype or 'ext4'} {device.path}",
            Scope.DISKS,
        )
    elif volume.fstype and device.fstype != volume.fstype:
        draft.block(
            Code.WRONG_FILESYSTEM,
            vid,
            f"{device.path} carries {device.fstype}, awsha.toml says {volume.fstype}",
            "correct fstype in awsha.toml, or leave it out",
            Scope.DISKS,
        )
    elif _needs_check(draft.s, volume, device):
        draft.step(Check(vid, device.path, device.number, device.fstype))
    else:
        draft.step(MountVolume(vid, device.path, device.number, volume.mount, device.fstype, volume.options))


def _needs_check(s: Situation, volume: Volume, device: Device) -> bool:
    """fsck policy: `auto` after a take by force, and whenever the file system itself says that it was cut off (by a
    taker that crashed before its mount, by another node, by somebody in the console); `always` before each mount."""
    if volume.fsck is Fsck.NEVER:
        return False
    if forced_mark(volume.id or "") in s.host.marks:
        return True  # a check takes it away
    return (volume.fsck is Fsck.ALWAYS or device.unclean) and not _checked(s, volume.id or "")


def _checked(s: Situation, vid: str) -> bool:
    """Whether it was checked since it came here, and not mounted since. One role can take a volume twice."""
    checked, came, mounted = (s.past(kind, vid) for kind in (Check, Attach, MountVolume))
    if checked is None or not checked.ok or (came is not None and came.at > checked.at):
        return False
    return mounted is None or not mounted.ok or mounted.at < checked.at


# --- release ---------------------------------------------------------------------------------------------------


def release(draft: Draft, volume: Volume, application_stopped: bool) -> bool:
    """Plan what lets a volume go. True when nothing of it is here any more."""
    s, vid = draft.s, volume.id or ""
    disk, facts = s.disk(vid), s.volume(vid)
    mine = s.mine(facts) if isinstance(facts, VolumeFacts) else None
    mounts = _own_mounts(disk)
    if disk.stale and FENCED not in s.host.marks:
        draft.step(SetMark(FENCED))  # before anything else: once it is unmounted nothing shows that it was lost
        return False
    if mounts and not disk.stale and mine is not None and isinstance(facts, VolumeFacts):
        # a node that has lost its disk releases nothing that the peer could wait for
        _tell_peer(draft, facts)
    if isinstance(disk.mount, Unknown):
        draft.unknown(Code.HOST_UNKNOWN, vid, "the mount table can't be read", disk.mount, Scope.DISKS)
    elif mounts and not application_stopped:
        pass  # the application's own reason says what is waited for
    elif mounts:
        unmounting.unmount(draft, vid, mounts, lost=disk.stale)
    elif isinstance(facts, Unknown):
        draft.unknown(
            Code.CLOUD_UNKNOWN, "volumes", f"EC2 does not say whether {vid} is attached here", facts, Scope.CLOUD
        )
    elif mine is None:
        return True
    elif mine.state in fencing.LEAVING:
        if disk.device is None:
            draft.standing(Code.DEVICE_LEFT, vid)
        draft.wait(
            Code.DETACHING_HERE,
            vid,
            f"{vid} is {mine.state} from this node",
            Scope.CLOUD,
            Scope.DISKS,
            hint=""
            if mine.state is AttachmentState.DETACHING
            else f"see who still uses {mine.device}: another mount namespace?",
        )
    elif isinstance(disk.device, Unknown):
        # without its device number nobody knows where else it is mounted
        draft.unknown(Code.HOST_UNKNOWN, vid, f"it can't be told what of {vid} is mounted", disk.device, Scope.DISKS)
    else:
        draft.step(Detach(vid, s.me.instance_id))
    return False


def _nothing_mounted(disk: DiskFacts) -> bool:
    """Whether it is known that nothing of the volume is mounted, at its place or elsewhere."""
    return not (_own_mounts(disk) or isinstance(disk.mount, Unknown) or isinstance(disk.device, Unknown))


def _own_mounts(disk: DiskFacts) -> tuple[Mount, ...]:
    """All mounts of the volume, innermost first, its own place last."""
    mount = mount_of(disk)
    return disk.others if mount is None else (*disk.others, mount)


def _tell_peer(draft: Draft, facts: VolumeFacts) -> None:
    """The first act of a release, beside the rest."""
    past = draft.s.past(TagReleasing, facts.id)
    told = fencing.releasing(draft.s, facts, draft.s.me.name) or (past is not None and past.ok)
    if not told:
        draft.step(TagReleasing(facts.id, handover.why_released(draft.s)))
