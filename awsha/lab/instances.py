"""The life of instances: stop, start, reboot, terminate, and the host failure that the API does not notice."""

from __future__ import annotations

from collections.abc import Callable

from awsha.lab import addresses, volumes
from awsha.lab.latency import Range
from awsha.lab.records import (
    STATE_CODES,
    Ec2Error,
    Instance,
    InstanceStarted,
    InstanceStopped,
    InstanceTerminated,
    Params,
    Reply,
)
from awsha.lab.world import World, dry_run, required

_GUEST_SHARE = 0.6  # of the time until `stopped`, after which the guest is gone


def stop(world: World, params: Params, now: float) -> Reply:
    """StopInstances: the guest shuts down, or is not asked (SkipOsShutdown); a dead one goes sooner with Force."""
    return _each(world, params, now, "StoppingInstances", _stop)


def start(world: World, params: Params, now: float) -> Reply:
    """StartInstances: a fresh guest, with the volumes that stayed attached."""
    return _each(world, params, now, "StartingInstances", _start)


def terminate(world: World, params: Params, now: float) -> Reply:
    """TerminateInstances: detaches the volumes; the interface goes with the instance."""
    return _each(world, params, now, "TerminatingInstances", _terminate)


def reboot(world: World, params: Params, now: float) -> Reply:
    """RebootInstances: the guest goes down and comes up, the API says `running` all along."""
    _each(world, params, now, "", _reboot)
    return {}


def _each(
    world: World, params: Params, now: float, key: str, act: Callable[[World, Instance, Params, float], None]
) -> Reply:
    """Check all, then act on all: EC2 refuses the whole call for one instance in the wrong state."""
    required(params, "InstanceIds")
    instances = [world.instance(name) for name in dict.fromkeys(params["InstanceIds"])]
    dry_run(params)
    for instance in instances:
        _check(instance, act)
    changes = []
    for instance in instances:
        before = instance.state
        act(world, instance, params, now)
        changes.append(
            {"InstanceId": instance.id, "CurrentState": state(instance.state), "PreviousState": state(before)}
        )
    return {key: changes}


def _check(instance: Instance, act: Callable[[World, Instance, Params, float], None]) -> None:
    gone = instance.state in ("shutting-down", "terminated")
    wrong = (
        (act is _stop and (gone or instance.state == "pending"))
        or (act is _start and (gone or instance.state == "stopping"))
        or (act is _reboot and instance.state != "running")
    )
    if wrong:
        raise Ec2Error(
            "IncorrectInstanceState",
            f"The instance '{instance.id}' is not in a state from which it can do this (it is {instance.state}).",
        )


def state(name: str) -> dict[str, object]:
    """A state as replies show it."""
    return {"Code": STATE_CODES[name], "Name": name}


def _time_down(world: World, instance: Instance, params: Params) -> tuple[Range, bool]:
    """How long the guest takes to go, and whether it was asked."""
    if params.get("SkipOsShutdown"):
        return world.latency.stop_skip_os, False
    if not instance.dead:
        return world.latency.stop, True
    # Force is graceful first, then forced: a dead guest costs the graceful attempt and then the forced one.
    if params.get("Force"):
        graceful, forced = world.latency.stop, world.latency.stop_skip_os
        return (graceful[0] + forced[0], graceful[1] + forced[1]), False
    return world.latency.stop_dead, False


def _stop(world: World, instance: Instance, params: Params, now: float) -> None:
    if instance.state == "stopped":
        return
    again = instance.state == "stopping"
    if again and (instance.off or not (params.get("Force") or params.get("SkipOsShutdown"))):
        return
    between, graceful = _time_down(world, instance, params)
    delay = world.draw(between)
    if again and now + delay >= instance.off_due:
        return  # asking again never makes it later
    instance.plan += 1
    instance.off_due = now + delay
    instance.state = "stopping"
    if not again:
        world.show_instance(instance, now)
    world.at(now + delay * _GUEST_SHARE, _on_guest_gone, world, instance, instance.plan, graceful)
    world.at(now + delay, _on_off, world, instance, instance.plan, "stopped")


def _terminate(world: World, instance: Instance, params: Params, now: float) -> None:
    if instance.state in ("shutting-down", "terminated"):
        return
    stopped = instance.state == "stopped"
    instance.state = "shutting-down"
    instance.plan += 1
    between, graceful = _time_down(world, instance, params)
    delay = 0.0 if stopped else world.draw(between)
    world.show_instance(instance, now)
    if not stopped:
        world.at(now + delay * _GUEST_SHARE, _on_guest_gone, world, instance, instance.plan, graceful)
    world.at(now + delay, _on_off, world, instance, instance.plan, "terminated")


def _start(world: World, instance: Instance, _params: Params, now: float) -> None:
    if instance.state != "stopped":
        return
    instance.state = "pending"
    instance.plan += 1
    instance.launched = now
    world.show_instance(instance, now)
    world.at(now + world.draw(world.latency.start), _on_boot, world, instance, instance.plan)


def _reboot(world: World, instance: Instance, _params: Params, now: float) -> None:
    instance.plan += 1
    between, graceful = _time_down(world, instance, {})
    down = now + world.draw(between)
    world.at(down, _on_guest_gone, world, instance, instance.plan, graceful)
    world.at(down + world.draw(world.latency.start), _on_boot, world, instance, instance.plan)


# What happens later


def _on_guest_gone(_due: float, world: World, instance: Instance, plan: int, graceful: bool) -> None:
    if instance.plan == plan and not instance.off:
        instance.off = True
        world.effects.append(InstanceStopped(instance.id, graceful and not instance.dead))
        volumes.guest_gone(world, instance)


def _on_off(due: float, world: World, instance: Instance, plan: int, off: str) -> None:
    if instance.plan != plan:
        return
    terminated = off == "terminated"
    instance.state = off
    instance.off = True
    instance.dead = False
    instance.impaired_at = None
    volumes.instance_off(world, instance, due, terminated=terminated)
    if terminated:
        if instance.interface is not None:
            addresses.interface_gone(world, instance.interface, due)
            instance.interface = None
        world.effects.append(InstanceTerminated(instance.id))
    world.show_instance(instance, due)


def _on_boot(due: float, world: World, instance: Instance, plan: int) -> None:
    if instance.plan != plan:
        return
    instance.state = "running"
    instance.dead = instance.off = False
    instance.impaired_at = None
    world.effects.append(InstanceStarted(instance.id))
    volumes.guest_boots(world, instance)
    world.show_instance(instance, due)


def power_off(world: World, instance: Instance, now: float) -> None:
    """The host fails: no guest any more, and the API goes on saying what it said."""
    if not instance.guest_runs:
        return
    instance.dead = True
    instance.impaired_at = now + world.draw(world.latency.status_check)
    if instance.state == "running":
        instance.plan += 1  # a reboot under way is over; a stop goes on


def power_on(world: World, instance: Instance, now: float) -> None:
    """The host is back: a fresh guest boots; on a stopped instance this is StartInstances."""
    if instance.state == "stopped":
        _start(world, instance, {}, now)
    elif instance.state == "running" and instance.dead:
        instance.plan += 1
        world.at(now, _on_boot, world, instance, instance.plan)
