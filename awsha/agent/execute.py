"""Carries out one step: the second look, then the act. A step is exact; there is no choice left to make here."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from awsha.agent import intent as intents
from awsha.agent.hearing import Hearing
from awsha.agent.hooks import Hooks, environment
from awsha.agent.marks import Marks
from awsha.agent.observe import Observer
from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error
from awsha.core import guards
from awsha.core.errors import AwshaError
from awsha.core.fencing import alive
from awsha.core.hooks import FAILING, mark_of
from awsha.core.model import Device, DiskFacts, Intent, Self
from awsha.core.plan import PAUSED
from awsha.core.policy import Group
from awsha.core.steps import (
    AssignAddresses,
    Attach,
    Check,
    ClearReleasing,
    Detach,
    Failure,
    KernelAddresses,
    ListHolders,
    MountVolume,
    Outcome,
    RunHooks,
    SetMark,
    Signal,
    StartApplication,
    Step,
    StopApplication,
    StopInstance,
    TagReleasing,
    TagServing,
    UnassignAddresses,
    Unmount,
    VolumeStep,
)
from awsha.core.volumes import forced_mark
from awsha.host import application, fsck, mounts, network, openfiles
from awsha.host.application import ApplicationError
from awsha.host.clock import boottime
from awsha.host.run import RunTimeout

HOLDERS_S = 5.0  # looking through /proc, at most


@dataclass
class Executor:
    """The hands of one group. Thread-safe: steps on different resources run side by side."""

    group: Group
    me: Self
    ec2: Ec2
    observer: Observer
    marks: Marks
    hearing: Hearing
    hooks: Hooks

    def run(self, step: Step, planned: Intent | None) -> Outcome:
        """Look again, then act. `planned`: the intent that the step was planned for. Never raises."""
        try:
            refused = guards.refusal(step, self._fresh(step), planned, self.me.instance_id)
            if refused:
                return Outcome(False, refused, failure=Failure.REFUSED)
            return self._run_hooks(step, planned) if isinstance(step, RunHooks) else self._act(step)
        except AwshaError as error:
            return Outcome(False, error.message, error.hint, _failure(error))
        except Exception as error:  # noqa: BLE001  a defect in one step must not end the loop: it is shown, and retried
            return Outcome(False, f"{type(error).__name__}: {error}", failure=Failure.OTHER)

    def _run_hooks(self, step: RunHooks, planned: Intent | None) -> Outcome:
        """Run them while they are wanted: a role that ends meanwhile ends them, a pause only those to come."""

        def unwanted() -> str | None:
            fresh = guards.Fresh(intents.newest(self.group.name), self.marks.all() - {PAUSED}, None, False)
            return guards.refusal(step, fresh, planned, self.me.instance_id)

        told = environment(self.group, self.me, step.hook, planned.role if planned else None)
        outcome = self.hooks.run(step.hook, told, unwanted)
        if outcome.ok or (step.hook not in FAILING and outcome.failure is not Failure.REFUSED):
            self.marks.put(mark_of(step.hook))
        return outcome

    def _fresh(self, step: Step) -> guards.Fresh:
        """What the guard judges by, read now."""
        disk: DiskFacts | None = None
        if isinstance(step, VolumeStep) and step.needs_disk:
            disk = self.observer.disks()[step.volume_id]
        disks = self.observer.answering() if isinstance(step, StartApplication) else None
        holder = step.instance_id if isinstance(step, Detach | StopInstance) else ""
        heard = self.hearing.heard(self.group).get(self.me.peers.get(holder, ""))
        holder_heard = heard is not None and alive(heard, boottime(), self.group.advert_int)
        return guards.Fresh(intents.newest(self.group.name), self.marks.all(), disk, holder_heard, disks)

    def _act(self, step: Step) -> Outcome:
        """The acts on EC2; every other step is one on this host."""
        match step:
            case Attach():
                told = self.ec2.attach(step.volume_id, self.me.instance_id, step.device)
                self.observer.attached(step.volume_id, step.device)
                return Outcome(True, learned=told)
            case Detach():
                return self._detach(step)
            case StopInstance():
                # its system is not asked to flush: whatever it has mounted is checked before it is mounted here
                for volume in self.group.volumes:
                    self.marks.put(forced_mark(volume.id or ""))
                return Outcome(True, f"EC2 says {self.ec2.stop_instance(step.instance_id)}")
            case ClearReleasing():
                self.ec2.clear_releasing(step.volume_id)
                return Outcome(True)
            case TagReleasing():
                self.ec2.tag_releasing(step.volume_id, self.me.name, time.time(), step.why)
                return Outcome(True)
            case TagServing():
                self.ec2.tag_serving(step.volume_id, self.me.name, time.time())
                return Outcome(True)
            case AssignAddresses():
                self.ec2.assign(self.me.eni_id, step.addresses)
                return Outcome(True)
            case UnassignAddresses():
                absent = self.ec2.unassign(self.me.eni_id, step.addresses).absent
                return Outcome(True, f"not here any more: {', '.join(sorted(absent))}" if absent else "")
        return self._act_here(step)

    def _detach(self, step: Detach) -> Outcome:
        """Detach; before it is done by force from another node, note that the file system must be checked."""
        if step.force and step.instance_id != self.me.instance_id:
            self.marks.put(forced_mark(step.volume_id))
        told = self.ec2.detach(step.volume_id, step.instance_id, force=step.force)
        return Outcome(True, "" if told else "it was not attached there (any more)", learned=told)

    def _act_here(self, step: Step) -> Outcome:
        """The acts on this host."""
        limit = self.group.timeouts
        match step:
            case Check(volume_id=vid):
                device, name = Device(step.device, step.number, step.fstype), self.observer.name_of(vid)
                text = fsck.check(device, vid, step.fstype, limit.fsck_s, ec2_device_name=name).text
                self.marks.remove(forced_mark(vid))
                return Outcome(True, text)
            case MountVolume(volume_id=vid):
                device, name = Device(step.device, step.number, step.fstype), self.observer.name_of(vid)
                mounts.mount(
                    device,
                    vid,
                    step.target,
                    fstype=step.fstype,
                    options=step.options,
                    timeout_s=limit.mount_s,
                    ec2_device_name=name,
                )
                return Outcome(True)
            case Unmount():
                for mount in step.mounts:
                    mounts.unmount(mount.target, limit.unmount_s, step.lazy, mount.number)
                return Outcome(True)
            case ListHolders():
                found = openfiles.holders(step.mounts, HOLDERS_S)
                return Outcome(True, found.text, learned=found.holders)
            case Signal():
                # the list is some moments old: only who still holds the file system now is signalled
                now = {(h.pid, h.started) for h in openfiles.holders(step.mounts, HOLDERS_S).holders}
                still = [h for h in step.holders if (h.pid, h.started) in now]
                told = openfiles.signal(still, step.kill, self.spared())
                return Outcome(True, "; ".join(f"{s.holder.pid}: {s.why}" for s in told if s.why))
            case KernelAddresses():
                change = network.add if step.present else network.remove
                for address in step.addresses:
                    change(address, self.me.interface)
                return Outcome(True)
            case SetMark():
                (self.marks.put if step.present else self.marks.remove)(step.mark)
                return Outcome(True)
            case StartApplication() if self.group.application:
                return Outcome(True, application.start(self.group.application, limit.start_s))
            case StopApplication() if self.group.application:
                return Outcome(True, application.stop(self.group.application, limit.stop_s))
        raise AssertionError(f"no act for {step!r}")

    def spared(self) -> frozenset[int]:
        """Processes that are never signalled: this one, and keepalived."""
        intent = intents.newest(self.group.name)
        return frozenset({os.getpid(), intent.keepalived[0]} if intent and intent.keepalived else {os.getpid()})


def _failure(error: AwshaError) -> Failure:
    """The kind of failure that a decision depends on."""
    if isinstance(error, Ec2Error):
        return error.failure
    if isinstance(error, mounts.MountError) and error.busy:
        return Failure.BUSY
    if isinstance(error, RunTimeout) or (isinstance(error, ApplicationError) and error.timeout):
        return Failure.TIMEOUT
    return Failure.OTHER
