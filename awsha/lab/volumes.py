"""EBS attachments: who may attach what where, and how a volume comes and goes (EC2 user guide, EBS; EBS CSI driver)."""

from __future__ import annotations

import re
from functools import lru_cache

from awsha.lab.faults import Fault, FaultKind
from awsha.lab.latency import NO_TIME
from awsha.lab.records import ROOT_DEVICE, VOLUMES_PER_INSTANCE, Attachment, Ec2Error, Instance, Params, Reply, Volume
from awsha.lab.world import World, dry_run, required

_DEVICE_NAME = re.compile(r"(/dev/)?(sd|xvd)[a-z]{1,2}[0-9]{0,2}")
_DEVICE_SHARE = 0.6  # of the time until `available`, after which the device has left the guest


def attach(world: World, params: Params, now: float, faults: list[Fault]) -> Reply:
    """AttachVolume: answers `attaching`; the device and `attached` follow, each at its own time."""
    required(params, "VolumeId", "InstanceId", "Device")
    volume, instance = world.volume(params["VolumeId"]), world.instance(params["InstanceId"])
    device = params["Device"]
    dry_run(params)
    _check_attach(volume, instance, device)
    attachment = Attachment(volume.id, instance.id, device, now)
    attachment.stuck = any(fault.kind is FaultKind.STUCK_ATTACHING for fault in faults)
    volume.attachments.append(attachment)
    instance.attachments.append(attachment)
    world.show_attachment(attachment, now)
    if not attachment.stuck:
        latency = world.latency
        world.at(now + world.draw(latency.attach_device), _on_device, world, attachment)
        world.at(now + world.draw(latency.attach), _on_attached, world, attachment)
    return _reply(world, attachment)


def _check_attach(volume: Volume, instance: Instance, device: str) -> None:
    if instance.state not in ("running", "stopped"):
        code = "IncorrectInstanceState" if instance.state in ("terminated", "shutting-down") else "IncorrectState"
        raise Ec2Error(code, f"Instance '{instance.id}' is not 'running' or 'stopped'.")
    if volume.zone != instance.zone:
        raise Ec2Error(
            "InvalidVolume.ZoneMismatch",
            f"The volume '{volume.id}' is not in the same availability zone as instance '{instance.id}'",
        )
    if volume.attachments and (not volume.multi_attach or volume.on(instance.id)):
        raise Ec2Error("VolumeInUse", f"{volume.id} is already attached to an instance")
    if not _may_be_device(device):
        raise Ec2Error("InvalidParameterValue", f"Value ({device}) for parameter device is invalid.")
    if device in (ROOT_DEVICE, "/dev/sda1") or any(device == a.device for a in instance.attachments):
        raise Ec2Error(
            "InvalidParameterValue",
            f"Invalid value '{device}' for unixDevice. Attachment point {device} is already in use",
        )
    if len(instance.attachments) >= VOLUMES_PER_INSTANCE:
        raise Ec2Error("AttachmentLimitExceeded", f"Volume count exceeds the limit of instance '{instance.id}'.")


@lru_cache(maxsize=256)
def _may_be_device(name: str) -> bool:
    return _DEVICE_NAME.fullmatch(name) is not None


def detach(world: World, params: Params, now: float, faults: list[Fault]) -> Reply:
    """DetachVolume: answers `detaching`; `busy` while the guest holds it; Force takes it without asking."""
    required(params, "VolumeId")
    volume = world.volume(params["VolumeId"])
    instance_id = params.get("InstanceId")
    if instance_id:
        world.instance(instance_id)
    dry_run(params)
    attachment = _attachment(volume, instance_id, params.get("Device"))
    force = bool(params.get("Force"))
    repeated = attachment.state in ("detaching", "busy")
    if not repeated:
        attachment.stuck = any(fault.kind is FaultKind.STUCK_BUSY for fault in faults)
        attachment.state = "detaching"
        world.show_attachment(attachment, now)
    if force or not repeated:
        attachment.plan += 1
        _schedule(world, attachment, now, force)
    return _reply(world, attachment)


def _attachment(volume: Volume, instance_id: str | None, device: str | None) -> Attachment:
    if not volume.attachments:
        raise Ec2Error("IncorrectState", f"Volume '{volume.id}' is in the 'available' state.")
    if instance_id is None:
        if len(volume.attachments) > 1:
            raise Ec2Error("MissingParameter", "The request must contain the parameter instanceId")
        found: Attachment | None = volume.attachments[0]
    else:
        found = volume.on(instance_id)
    if found is None or (device and device != found.device):
        where = device or instance_id
        raise Ec2Error("InvalidAttachment.NotFound", f"Volume '{volume.id}' is not attached as '{where}'.")
    return found


def _schedule(world: World, attachment: Attachment, now: float, force: bool) -> None:
    latency = world.latency
    between = latency.detach_force if force else latency.detach
    if world.instances[attachment.instance_id].state == "stopped":
        between = NO_TIME  # nobody to ask
    delay = world.draw(between)
    due = now + delay * _DEVICE_SHARE
    world.at(due, _on_release, world, attachment, attachment.plan, force, delay * (1 - _DEVICE_SHARE))


def _reply(world: World, attachment: Attachment) -> Reply:
    return {
        "VolumeId": attachment.volume_id,
        "InstanceId": attachment.instance_id,
        "Device": attachment.device,
        "State": attachment.state,
        "AttachTime": world.stamp(attachment.since),
        "DeleteOnTermination": False,
    }


# What happens later


def _on_device(_due: float, world: World, attachment: Attachment) -> None:
    if attachment.state in ("attaching", "attached"):
        world.give_device(attachment)


def _on_attached(due: float, world: World, attachment: Attachment) -> None:
    if attachment.state == "attaching":
        attachment.state = "attached"
        world.show_attachment(attachment, due)


def _on_release(due: float, world: World, attachment: Attachment, plan: int, force: bool, rest: float) -> None:  # noqa: PLR0917 - an event's arguments
    """The guest is asked to let go (or is not asked at all); the rest of the delay is EC2's own."""
    if attachment.plan != plan or attachment.state not in ("detaching", "busy"):
        return
    if not force and _held(world, attachment):
        if attachment.state != "busy":
            attachment.state = "busy"
            world.show_attachment(attachment, due)
        world.at(max(due, world.now) + world.latency.busy_poll_s, _on_release, world, attachment, plan, force, rest)
        return
    attachment.plan += 1
    world.take_device(attachment, forced=force)
    world.at(due + rest, _on_gone, world, attachment, attachment.plan)


def _held(world: World, attachment: Attachment) -> bool:
    """The guest has the device and does not let go: it is mounted, or nobody is there to answer."""
    if attachment.stuck:
        return True
    instance = world.instances[attachment.instance_id]
    if not attachment.present or instance.state == "stopped":
        return False
    return instance.dead or world.holds(attachment.instance_id, attachment.volume_id)


def _on_gone(due: float, world: World, attachment: Attachment, plan: int) -> None:
    if attachment.plan == plan:
        world.drop_attachment(due, attachment)


def guest_gone(world: World, instance: Instance) -> None:
    """The guest stopped: it has no devices any more, and nothing can be busy there."""
    for attachment in list(instance.attachments):
        world.take_device(attachment, forced=False)


def instance_off(world: World, instance: Instance, at: float, *, terminated: bool) -> None:
    """`stopped` keeps its attachments, but completes a detach that is under way; `terminated` loses them all."""
    for attachment in list(instance.attachments):
        if terminated or attachment.state in ("detaching", "busy"):
            attachment.plan += 1
            attachment.stuck = False
            world.drop_attachment(at, attachment)


def guest_boots(world: World, instance: Instance) -> None:
    """A fresh guest finds the devices of all volumes that are attached."""
    for attachment in instance.attachments:
        attachment.present = False
        if attachment.state in ("attaching", "attached") and not attachment.stuck:
            world.give_device(attachment)
