"""Writes the nodes' configuration, and changes it while they run."""

from __future__ import annotations

import signal
from dataclasses import replace
from typing import TYPE_CHECKING

from awsha.core.errors import AwshaError
from awsha.core.policy import Fence
from awsha.lab import nodeconf
from awsha.lab.waiting import wait_until

if TYPE_CHECKING:
    from awsha.lab.pair import Pair

AGENT_STOP_DEADLINE_S = 15.0


def write_configuration(pair: Pair) -> None:
    """awsha.toml and keepalived.conf of every node, as `awsha keepalived` would print it. Raises AwshaError."""
    text = nodeconf.config_toml(pair.shape, pair.specs, pair.groups)
    policy = nodeconf.policy_of(text)
    for node in pair.nodes.values():
        (node.folder / "etc-awsha/awsha.toml").write_text(text)
        (node.folder / "etc-keepalived/keepalived.conf").write_text(nodeconf.keepalived_conf(policy, node.spec))


def reconfigure(pair: Pair, fence: str) -> str:
    """Another fence policy from now on, in every node; agents that run are started again. Raises AwshaError."""
    if fence not in list(Fence):
        raise AwshaError(f"there is no fence policy {fence}", hint=", ".join(Fence))
    pair.shape = replace(pair.shape, fence=fence)
    write_configuration(pair)
    for node in pair.nodes.values():
        if node.running("agent") and not node.frozen:
            node.signal("agent", signal.SIGTERM)
            if not wait_until(lambda node=node: not node.running("agent"), AGENT_STOP_DEADLINE_S):  # type: ignore[misc]
                raise AwshaError(f"the agent of {node.spec.name} does not stop", hint=f"see {node.folder}/agent.log")
            pair.guests.start_services(node)
    pair.note(f"fence = {fence}")
    return f"fence = {fence}"
