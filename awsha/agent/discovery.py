"""awsha.toml with its nodes: as written, or found in EC2 by `[discover]`, once, and kept.

What was found is kept in the state directory, and stands until it is asked for anew (`awsha discover --refresh`): a
restart of the agent while EC2's API does not answer, or after the peer was terminated, must still know the pair. With
written nodes nothing here asks EC2 or looks at what is kept.
"""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from awsha.agent.paths import private_dir, state_dir, write_atomically
from awsha.config import load
from awsha.config.load import Loaded
from awsha.config.machine import Addresses, kernel_addresses
from awsha.core import found
from awsha.core.policy import Discover, Node, Policy


def read(path: Path, *, refresh: bool = False, addresses: Addresses = kernel_addresses) -> Loaded:
    """The configuration with its nodes. Raises ConfigError, or AwshaError when the nodes cannot be told.

    `refresh`: ask EC2 even when they are known; what it says is kept. `addresses`: of this host.
    """
    loaded = load.read(path)
    wanted = loaded.policy.discover
    if wanted is None:
        return loaded
    kept = None if refresh else _kept(loaded.policy, addresses)
    complete = load.with_nodes(loaded, kept or _asked(loaded.policy, wanted))
    if kept is None:
        _keep(complete.policy)
    return complete


def kept_file() -> Path:
    """Where the nodes are kept that were found."""
    return state_dir() / "nodes.json"


def _asked(policy: Policy, wanted: Discover) -> tuple[Node, ...]:
    from awsha.aws import found as in_ec2
    from awsha.aws.ec2 import Ec2
    from awsha.aws.identity import region_of
    from awsha.aws.metadata import Metadata

    metadata = Metadata()
    try:
        ec2 = Ec2(region_of(policy, metadata))
    finally:
        metadata.close()
    try:
        return found.nodes(in_ec2.instances(ec2, wanted.tags), wanted.tags)
    finally:
        ec2.close()


def _key(policy: Policy) -> dict[str, Any]:
    """What the answer depends on."""
    tags = dict(policy.discover.tags) if policy.discover else {}
    return {"tags": tags, "region": policy.region, "endpoint": os.environ.get("AWS_ENDPOINT_URL", "")}


def _kept(policy: Policy, addresses: Addresses) -> tuple[Node, ...] | None:
    """What was found before, for the same question; None when there is nothing, or it is broken.

    An instance that was made from the image of a node has what that node kept: then this host is none of the nodes.
    """
    try:
        kept: Any = json.loads(kept_file().read_text(encoding="utf-8"))
        if kept["key"] != _key(policy):
            return None
        nodes = tuple(Node(str(item["name"]), str(item["address"])) for item in kept["nodes"])
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    here = {address for _, address in addresses()}
    return nodes if not here or any(node.address in here for node in nodes) else None


def _keep(policy: Policy) -> None:
    if os.geteuid() != 0:
        return  # the state directory is root's
    nodes = [{"name": node.name, "address": node.address} for node in policy.nodes]
    with contextlib.suppress(OSError):  # the next start asks again
        private_dir(state_dir())
        write_atomically(kept_file(), json.dumps({"key": _key(policy), "nodes": nodes}))
