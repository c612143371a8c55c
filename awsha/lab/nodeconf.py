"""What is written into each node: awsha.toml, keepalived.conf, and the environment of everything that runs there."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from awsha.config.keepalived import render
from awsha.config.load import parse
from awsha.core.policy import Policy
from awsha.lab.settings import (
    ACCESS_KEY_ID,
    ENDPOINT_ADDRESS,
    ENDPOINT_PORT,
    REGION,
    SECRET_KEY,
    GroupSpec,
    NodeSpec,
    Shape,
)

# With several groups each has a node that should win at the start; the gap outlasts the difference of two starts.
PREFERRED_PRIORITY, OTHER_PRIORITY = 250, 20


def environment(endpoint_url: str = f"http://{ENDPOINT_ADDRESS}:{ENDPOINT_PORT}") -> dict[str, str]:
    """What every AWS tool needs to find the lab's EC2; keys that open nothing."""
    return {
        "AWS_ENDPOINT_URL": endpoint_url,
        "AWS_REGION": REGION,
        "AWS_DEFAULT_REGION": REGION,
        "AWS_ACCESS_KEY_ID": ACCESS_KEY_ID,
        "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def node_environment() -> dict[str, str]:
    """The whole environment inside a node; the interpreter that runs the lab comes first in PATH."""
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": "/root",
        "LANG": "C.UTF-8",
        **environment(),
    }


def awsha_command() -> str:
    """The absolute path of the console script beside the interpreter that runs the lab."""
    return str(Path(sys.executable).parent / "awsha")


def server_argv(word: str, group: GroupSpec) -> list[str]:
    """The argv that starts, stops or checks a group's record server."""
    folder = group.volumes[0].mount if group.volumes else "/tmp"  # noqa: S108 - the node's own
    return [
        sys.executable, "-P", "-m", "awsha.lab.server", word,
        "--name", group.name, "--folder", folder, "--port", str(group.port),
    ]  # fmt: skip


def config_toml(shape: Shape, nodes: tuple[NodeSpec, ...], groups: tuple[GroupSpec, ...]) -> str:
    """awsha.toml of this lab, the same on every node. JSON's strings and numbers are TOML's too."""
    lines = [f"region = {json.dumps(REGION)}", f"command = {json.dumps(awsha_command())}", ""]
    for node in nodes:
        lines += ["[[node]]", f"name = {json.dumps(node.name)}", f"address = {json.dumps(node.address)}", ""]
    for group in groups:
        lines += _group_toml(shape, nodes, group)
    return "\n".join(lines)


def _group_toml(shape: Shape, nodes: tuple[NodeSpec, ...], group: GroupSpec) -> list[str]:
    lines = [
        "[[group]]",
        f"name = {json.dumps(group.name)}",
        f"virtual_router_id = {group.router_id}",
        f"vips = {json.dumps(list(group.vips))}",
        'interface = "eth0"',
        f"advert_int = {shape.advert_int}",
        f"fence = {json.dumps(shape.fence)}",
    ]
    if shape.open_files:
        lines.append(f"open_files = {json.dumps(shape.open_files)}")
    if shape.groups > 1:
        wanted = {n.name: PREFERRED_PRIORITY if n.name == group.preferred else OTHER_PRIORITY for n in nodes}
        if len(nodes) > 2:  # equal priorities would leave it to the addresses
            wanted = {name: value - index if value == OTHER_PRIORITY else value
                      for index, (name, value) in enumerate(wanted.items())}  # fmt: skip
        lines.append("priorities = { " + ", ".join(f"{name} = {value}" for name, value in wanted.items()) + " }")
    lines.append("")
    for volume in group.volumes:
        options = "noatime,nouuid" if shape.fstype == "xfs" else "noatime"
        lines += ["[[group.volume]]", f"id = {json.dumps(volume.id)}", f"mount = {json.dumps(volume.mount)}"]
        lines += [f"fstype = {json.dumps(shape.fstype)}", f"options = {json.dumps(options)}", ""]
    if shape.application:
        lines.append("[group.application]")
        lines += [f"{word} = {json.dumps(server_argv(word, group))}" for word in ("start", "stop", "check")]
        lines.append("")
    if shape.timeouts:
        lines.append("[group.timeouts]")
        lines += [f"{name} = {value}" for name, value in shape.timeouts.items()]
        lines.append("")
    return lines


def policy_of(text: str) -> Policy:
    """The configuration as awsha reads it. Raises AwshaError with every problem: the shape was impossible."""
    return parse(text, "awsha.toml").policy


def keepalived_conf(policy: Policy, node: NodeSpec) -> str:
    """What `awsha keepalived --node NAME` prints for this node."""
    return render(policy, node.name, command=awsha_command(), interface="eth0")
