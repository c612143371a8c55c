"""EC2 as a node of the simulation reaches it: the lab's rules, awsha's own door, a wire that fails on request.

Calls run awsha.aws.ec2.Ec2 itself, on a caller that asks the lab's Region instead of a socket. Looks read the region's
histories directly (`facts_of_volume`, `facts_of_instance`), because parsing replies would be most of the simulation's
time; test_sim.py holds the two against each other. Each view is read with a lag of its own, drawn at each read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from awsha.aws import facts
from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error, Kind
from awsha.core.model import (
    Attachment,
    AttachmentState,
    CloudFacts,
    InstanceFacts,
    InstanceState,
    Unknown,
    VolumeFacts,
    VolumeState,
)
from awsha.core.steps import Outcome
from awsha.lab.rules import Ec2Error as Refusal
from awsha.lab.rules import Region

if TYPE_CHECKING:
    from tests.sim.agent import Agent
    from tests.sim.node import Node
    from tests.sim.world import World

ROOT_DEVICE = "/dev/xvda"
READ_TIMEOUT_S = 5.0
VISIBLE_S = 60.0  # what has happened is visible everywhere after so long
BLACK_HOLE_S = 6.0  # connect and read time-outs
WIRE = frozenset({"lost", "black_hole", "late"})
IN_EC2 = frozenset({"error", "error_after", "throttle"})
NO_REPLY = "no answer: it may or may not have taken effect"


@dataclass(slots=True)
class Call:
    """One request of a step. `check` is called each time it is sent; `act` is run by EC2 on awsha's own door."""

    agent: Agent
    action: str
    act: Callable[[Ec2], Outcome]
    done: Callable[[Outcome], None]
    check: Callable[[], None]
    deadline: float
    pause_s: float = 0.1


@dataclass(slots=True)
class CallFault:
    """What happens to the next `times` calls of one action ("*": any; "look": Describe; "change": the others).

    kinds: error (without effect), error_after (with effect), throttle, lost (reply), black_hole, late (request).
    """

    action: str
    kind: str
    code: str = ""
    times: int = 1
    node: str = ""
    seconds: float = 0.0

    def strikes(self, action: str, node: str) -> bool:
        """Whether it concerns this call; uses it up by one."""
        if self.times <= 0 or (self.node and self.node != node):
            return False
        if self.action not in {"*", action} and self.action != ("look" if action.startswith("Desc") else "change"):
            return False
        self.times -= 1
        return True


class Cloud:
    """The region, its clock, and what is wrong with the way to it."""

    def __init__(self, world: World) -> None:
        self.world = world
        shape = world.shape
        self.region = Region(shape.latency, world.random, throttling=False)  # one chance for the whole schedule
        self.faults: list[CallFault] = []
        self.lag_s = 0.0  # views lag up to this much; 0: no lag but by chance
        self.version = 0  # rises with each call and each effect
        self.exact = True  # the last look showed the truth, in all its parts
        self._due: float | None = None

    # --- time ---

    def catch_up(self) -> None:
        """Let the region do what is due by now."""
        region = self.region
        due = region.next_due()
        if due is None or due > self.world.now:
            return
        self.version += 1
        self.world.stir()
        self.world.watch.note_holders()
        for effect in region.advance(self.world.now, self.world.guest_holds):
            self.world.effect(effect)

    def plan_ahead(self) -> None:
        """Put the region's next event on the world's queue."""
        due = self.region.next_due()
        if due is not None and due != self._due:
            self._due = due
            self.world.at(due, self._wake)

    def _wake(self) -> None:
        self._due = None
        self.catch_up()
        self.plan_ahead()

    def do(self, action: str, params: dict[str, Any], caller: str) -> dict[str, Any]:
        """One call, now. Raises the lab's Ec2Error."""
        self.catch_up()
        self.version += 1
        self.world.stir()
        self.world.watch.note_holders()
        try:
            return self.region.call(action, params, self.world.now, caller)
        finally:
            self.plan_ahead()

    # --- looking ---

    def look(self, node: Node) -> CloudFacts:
        """What Ec2.look shows this node now; a part that fails is Unknown."""
        self.catch_up()
        group = self.world.shape.group
        now = self.world.now
        self.exact = True
        volumes: dict[str, VolumeFacts] | Unknown
        instances: dict[str, InstanceFacts] | Unknown
        failed = self._look_fails("DescribeVolumes", node, len(group.volumes))
        if failed is None:
            at = now - self._lag()
            volumes = {v.id or "": self.facts_of_volume(v.id or "", at) for v in group.volumes}
        else:
            volumes = failed if isinstance(failed, Unknown) else {}
            self.exact = False
        failed = self._look_fails("DescribeInstances", node, len(self.world.nodes))
        if isinstance(failed, Unknown):
            instances = failed
            self.exact = False
        else:
            at = now - self._lag()
            instances = {n.instance_id: self.facts_of_instance(n.instance_id, at) for n in self.world.nodes}
        return CloudFacts(volumes, instances, self._metadata(node, now))

    def _metadata(self, node: Node, now: float) -> frozenset[str] | Unknown:
        interface = self.region.world.interfaces[node.eni_id]
        return frozenset((interface.primary, *interface.metadata_view.read(now - self._lag()).state))

    def look_plainly(self, node: Node) -> CloudFacts:
        """A look at the truth: no fault, and what the views do not show yet too."""
        before, self.lag_s = self.lag_s, -1.0
        facts_now = self.look(node)
        self.lag_s = before
        return facts_now

    def _lag(self) -> float:
        if self.lag_s < 0:
            return -VISIBLE_S
        chance = self.world.chance()
        if not self.lag_s and chance < 0.8:
            return 0.0
        self.exact = False
        return self.lag_s * chance if self.lag_s else (chance - 0.8) * 2.5

    def _look_fails(self, action: str, node: Node, ids: int) -> Unknown | str | None:
        """None: it works. "": EC2 says that what was asked for does not exist. Unknown: no answer."""
        if node.api_cut:
            return Unknown(f"{action}: ConnectTimeoutError")
        if not ids:
            return None
        for fault in self.faults:
            if fault.kind in IN_EC2 and fault.strikes(action, node.name):
                error = Ec2Error(action, fault.code or "RequestLimitExceeded", "asked for by the simulation")
                if error.kind in (Kind.NOT_FOUND, Kind.INVALID):
                    return "" if ids == 1 and error.kind is Kind.NOT_FOUND else None  # asked again by filter
                if error.kind is not Kind.THROTTLED:  # retried, and a look is no longer awaited than this
                    return Unknown(error.message)
            elif fault.kind in {"lost", "black_hole"} and fault.strikes(action, node.name):
                return Unknown(f"{action}: no answer in time")
        return None

    def facts_of_volume(self, volume_id: str, at: float) -> VolumeFacts:
        """What DescribeVolumes says of a volume, as of a time."""
        volume = self.region.world.volumes[volume_id]
        entry = volume.view.read(at)
        if entry.seen is None:
            attachments, tags = entry.state
            entry.seen = _volume(volume_id, tuple(a[:3] for a in attachments), tags.get(facts.RELEASING_TAG),
                                 volume.multi_attach, volume.zone)  # fmt: skip
        told: VolumeFacts = entry.seen
        return told

    def facts_of_instance(self, instance_id: str, at: float) -> InstanceFacts:
        """What DescribeInstances says of an instance, as of a time."""
        instance = self.region.world.instances[instance_id]
        entry = instance.view.read(at)
        if entry.seen is None:
            state, _, devices, secondaries, _ = entry.state
            primary = instance.interface.primary if instance.interface else ""
            names = tuple(device[1] for device in devices)
            entry.seen = _instance(instance_id, state, primary, secondaries, names, instance.zone, instance.subnet.id)
        told: InstanceFacts = entry.seen
        return told

    # --- changing ---

    def send(self, call: Call) -> None:
        """One call of a step: the request travels, EC2 acts, the reply travels. `done` runs in the program, or never.

        A request that is on its way is not called back when the program that sent it, or its machine, dies.
        """
        world, node = self.world, call.agent.node
        if call.agent.dead:
            return
        call.check()
        if node.api_cut:
            node.after(1.0, call.done, _no_answer(call.action, "ConnectTimeoutError"))
            return
        there = 0.004 + 0.02 * world.chance()
        lost = False
        for fault in self.faults:
            if fault.kind in WIRE and fault.strikes(call.action, node.name):
                world.tell(node.name, f"fault: {call.action} {fault.kind}")
                if fault.kind == "black_hole":
                    node.after(BLACK_HOLE_S, call.done, _no_answer(call.action, "ReadTimeoutError"))
                    return
                lost = fault.kind == "lost"
                there += fault.seconds if fault.kind == "late" else 0.0
                break
        world.at(world.now + there, self._arrive, call, lost)

    def _arrive(self, call: Call, lost: bool) -> None:
        world, node = self.world, call.agent.node
        self.catch_up()
        try:
            outcome = call.act(node.ec2)
        except Ec2Error as error:
            if error.kind is Kind.THROTTLED and world.now + call.pause_s < call.deadline:
                # only where a test says so: awsha itself does not ask again behind its guard
                node.after(call.pause_s * (0.5 + 0.5 * world.chance()), self.send, call)
                call.pause_s = min(2 * call.pause_s, 2.0)
                return
            outcome = Outcome(False, error.message, error.hint, error.failure)
        back = 0.004 + 0.02 * world.chance()
        if lost or node.api_cut:
            closed = world.chance() < 0.5
            outcome = _no_answer(call.action, "ConnectionClosedError" if closed else "ReadTimeoutError")
            back = 0.01 if closed else READ_TIMEOUT_S
        node.after(back, call.done, outcome)


def _no_answer(action: str, code: str) -> Outcome:
    error = Ec2Error(action, code, NO_REPLY, kind=Kind.TRANSPORT)
    return Outcome(False, error.message, error.hint, error.failure)


class DirectCaller:
    """Stands where awsha.aws.call.Caller does: the same answers and typed errors, from the region, without a socket."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def call(self, action: str, params: dict[str, Any], timeout_s: float, *, once: bool = False) -> dict[str, Any]:
        """One request that has arrived. Raises awsha.aws.errors.Ec2Error."""
        node = self._node
        cloud = node.world.cloud
        after = ""
        if cloud.faults:
            for fault in cloud.faults:
                if fault.kind in IN_EC2 and fault.strikes(action, node.name):
                    node.world.tell(node.name, f"fault: {action} {fault.kind} {fault.code}")
                    code = fault.code or "RequestLimitExceeded"
                    if fault.kind != "error_after":
                        raise Ec2Error(action, code, "asked for by the simulation")
                    after = code
        del timeout_s, once
        try:
            reply = cloud.do(action, params, node.instance_id)
        except Refusal as refusal:
            raise Ec2Error(action, refusal.code, refusal.message) from None
        if after:
            raise Ec2Error(action, after, "asked for by the simulation, after it took effect")
        return reply


class DirectEc2(Ec2):
    """awsha's own door to EC2, without its threads."""

    def __init__(self, node: Node) -> None:
        caller: Any = DirectCaller(node)
        self._caller = caller


@lru_cache(maxsize=8192)
def _volume(volume_id: str, attachments: tuple[tuple[str, str, str], ...], tag: str | None, multi: bool,
            zone: str) -> VolumeFacts:  # fmt: skip
    return VolumeFacts(
        volume_id,
        VolumeState.IN_USE if attachments else VolumeState.AVAILABLE,
        tuple(Attachment(instance, AttachmentState(state), device) for instance, device, state in attachments),
        None if tag is None else facts.releasing_of(tag),
        multi,
        zone,
    )


@lru_cache(maxsize=8192)
def _instance(  # noqa: PLR0917 - the key of a cache
    instance_id: str, state: str, primary: str, secondaries: tuple[str, ...] | None,
              names: tuple[str, ...], zone: str, subnet: str) -> InstanceFacts:  # fmt: skip
    addresses = frozenset({primary, *(secondaries or ())} - {""})
    return InstanceFacts(instance_id, InstanceState(state), addresses, frozenset({*names, ROOT_DEVICE}), zone, subnet)
