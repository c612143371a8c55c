"""What goes wrong with nodes and with EC2, on request, and how it is made good again."""

from __future__ import annotations

import signal
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import TYPE_CHECKING, Any

from awsha.core.errors import AwshaError
from awsha.lab import nodeconf
from awsha.lab.rules import Fault, Latency
from awsha.lab.waiting import wait_until

if TYPE_CHECKING:
    from awsha.lab.node import Node
    from awsha.lab.pair import Pair

KINDS = ("stop", "kill", "freeze", "partition", "power-off", "agent-kill", "api-cut")
DEADLINE_S = 10.0
BOOT_DEADLINE_S = 60.0


class Mishaps:
    """`lab fail`, `lab heal`, `lab fault`."""

    def __init__(self, pair: Pair) -> None:
        """Nothing is wrong yet."""
        self._pair = pair

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """The requests that this serves."""
        return {
            "fail": self.fail,
            "heal": self.heal,
            "start": self.start,
            "fault": self.add_fault,
            "faults": lambda _: self.faults(),
            "clear_faults": lambda _: self.clear_faults(),
            "latency": self.set_latency,
        }

    def fail(self, request: dict[str, Any]) -> str:
        """Do something to a node; returns what was done. Raises AwshaError."""
        pair, kind = self._pair, str(request.get("kind"))
        node = pair.node(request.get("node"))
        name = node.spec.name
        acts: dict[str, Callable[[Node], str]] = {
            "stop": self._stop, "kill": self._kill, "freeze": self._freeze, "agent-kill": self._agent_kill,
            "partition": self._partition, "api-cut": self._api_cut, "power-off": self._power_off,
        }  # fmt: skip
        if kind not in acts:
            raise AwshaError(f"a node can't fail by {kind}", hint=f"one of: {', '.join(KINDS)}")
        if not node.on and kind not in ("partition", "api-cut"):
            raise AwshaError(f"node {name} is off already", hint=f"awsha lab heal {name}")
        if node.frozen and kind in ("stop", "agent-kill"):
            raise AwshaError(f"node {name} is frozen and can't be told to", hint=f"awsha lab heal {name}")
        pair.note(f"{name}: {kind}", "failing", name)
        with pair.acting:
            done = acts[kind](node)
        pair.note(f"{name}: {done}", "fail", name)
        return f"{name}: {done}"

    def _stop(self, node: Node) -> str:
        if not node.signal("keepalived", signal.SIGTERM):
            raise _not_running("keepalived", node)
        if not wait_until(lambda: not node.running("keepalived"), DEADLINE_S):
            return f"keepalived is told to stop, and has not after {DEADLINE_S:g} s"
        return "keepalived is stopped"

    def _kill(self, node: Node) -> str:
        if not node.kill_command("keepalived"):
            raise _not_running("keepalived", node)
        return "keepalived is killed"

    def _agent_kill(self, node: Node) -> str:
        if not node.signal("agent", signal.SIGKILL):
            raise _not_running("the agent", node)
        wait_until(lambda: not node.running("agent"), DEADLINE_S)  # or a heal at once would find it running
        return "the agent is killed"

    def _freeze(self, node: Node) -> str:
        node.freeze()
        return "frozen"

    def _partition(self, node: Node) -> str:
        others = [other for other in self._pair.nodes if other != node.spec.name]
        self._pair.vpc.partition(node.spec.name, others)
        return "VRRP is cut"

    def _api_cut(self, node: Node) -> str:
        self._pair.vpc.cut_api(node.spec.name)
        return "the EC2 API is out of reach"

    def _power_off(self, node: Node) -> str:
        pair = self._pair
        with pair.region_lock:
            pair.region.power_off(node.spec.instance_id, pair.now())
        pair.guests.power_down(node, clean=False)
        return "the power is off"

    def heal(self, request: dict[str, Any]) -> str:
        """Undo whatever is wrong with a node; returns what was undone. Raises AwshaError."""
        pair = self._pair
        node = pair.node(request.get("node"))
        name = node.spec.name
        done = []
        with pair.acting:
            if cuts := [cut for cut in pair.vpc.cuts(name) if cut != "vrrp-filtered"]:
                pair.vpc.heal(name)
                done.append(f"no {' or '.join(cuts)} any more")
            if node.on and node.frozen:
                node.freeze(frozen=False)
                done.append("thawed")
        if not node.on:
            self._start_instance(node)
            done.append("booted")
        done += [f"{program} started" for program in pair.guests.start_services(node)]
        text = f"{name}: {', '.join(done) or 'nothing was wrong'}"
        pair.note(text)
        return text

    def start(self, request: dict[str, Any]) -> str:
        """Start the agent or keepalived of a node, also in a lab that was made without. Raises AwshaError."""
        node, program = self._pair.node(request.get("node")), request.get("program")
        if program not in ("agent", "keepalived"):
            raise AwshaError(f"the lab can't start {program}", hint="agent or keepalived")
        if node.running(program):
            return f"{program} runs already"
        if program == "agent":
            node.start_agent([nodeconf.awsha_command(), "agent"])
        else:
            node.start_keepalived()
        return f"{program} started"

    def _start_instance(self, node: Node) -> None:
        """Give power again, through EC2's rules; waits for the boot."""
        pair, instance_id = self._pair, node.spec.instance_id

        def settled() -> bool:
            with pair.region_lock:
                return pair.region.snapshot()["instances"][instance_id]["state"] in ("running", "stopped", "terminated")

        if not wait_until(settled, BOOT_DEADLINE_S, 0.02):
            raise AwshaError(f"node {node.spec.name} is still stopping", hint="try again when awsha lab status says so")
        with pair.region_lock:
            if pair.region.snapshot()["instances"][instance_id]["state"] == "terminated":
                raise AwshaError(f"node {node.spec.name} was terminated", hint="awsha lab down, awsha lab up")
            pair.region.power_on(instance_id, pair.now())
        pair.wake()
        if not wait_until(lambda: node.on, BOOT_DEADLINE_S, 0.02):
            raise AwshaError(f"node {node.spec.name} did not boot in {BOOT_DEADLINE_S:g} s", hint=f"see {pair.lab.log}")

    # EC2

    def add_fault(self, request: dict[str, Any]) -> str:
        """One fault of an EC2 action, in the words of `lab fault`. Raises AwshaError."""
        values = {key: value for key, value in request.items() if key != "do" and value is not None}
        if "node" in values:
            values["caller"] = self._pair.node(values.pop("node")).spec.instance_id
        if values.get("times") == 0:
            values["times"] = None
        try:
            fault = Fault(**values)
            with self._pair.region_lock:
                self._pair.region.add_fault(fault)
        except (TypeError, ValueError) as error:
            raise AwshaError(f"no such fault: {error}", hint="awsha lab fault --help") from error
        self._pair.note(f"fault: {fault.action} {fault.kind}")
        return f"{fault.action}: {fault.kind}"

    def faults(self) -> list[dict[str, Any]]:
        """Each fault that is left, with `left`: how often it will still strike (None: until cleared)."""
        with self._pair.region_lock:
            return [{**asdict(fault), "left": left} for fault, left in self._pair.region.faults()]

    def clear_faults(self) -> str:
        """Forget them all."""
        with self._pair.region_lock:
            self._pair.region.clear_faults()
        self._pair.wake()
        return "no faults any more"

    def set_latency(self, request: dict[str, Any]) -> str:
        """Other delays from now on: `aws` or `none`, single ones overridden (seconds, by Latency's field names)."""
        name = str(request.get("name"))
        if name not in ("aws", "none"):
            raise AwshaError(f"there is no latency {name}", hint="aws or none")
        with self._pair.region_lock:
            base = Latency.aws() if name == "aws" else Latency.none()
            single = {field: (float(s), float(s)) for field, s in dict(request.get("single", {})).items()}
            # `backward` is a number, all others are ranges.
            self._pair.region.latency = replace(base, **single)  # type: ignore[arg-type]
        return f"latency {name}"


def _not_running(what: str, node: Node) -> AwshaError:
    return AwshaError(f"{what} of node {node.spec.name} does not run", hint=f"awsha lab heal {node.spec.name}")
