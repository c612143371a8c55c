"""What values must be to each other: names that are there twice, addresses that cannot share a subnet, and so on.

Works on the pruned table (each value left has passed its own check), so that these problems appear beside the others.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Iterator
from typing import Any

from awsha.config.fields import volume_in
from awsha.config.problems import Key, did_you_mean
from awsha.config.schema import Finding, Table
from awsha.core.policy import Timeouts, default_priority

MAX_NODES = 16  # the priorities by order run out after that
SMALLEST_PREFIX, LARGEST_PREFIX = 16, 28  # what EC2 allows as a subnet (VPC user guide, "Subnet CIDR blocks")
Placed = list[tuple[Key, Any]]


def check(clean: Table, bad: set[Key], *, to_find: bool = False) -> list[Finding]:
    """Every problem between values. `bad` are the keys already reported, which are not missing but wrong.

    `to_find`: the nodes are not known yet, so nothing is said about them.
    """
    nodes = _tables(clean.get("node"), ("node",))
    groups = _tables(clean.get("group"), ("group",))
    findings = [*(() if to_find else _nodes(nodes, bad, clean)), *_networks(nodes, groups)]
    if not groups and ("group",) not in bad and not _any_below(bad, "group"):
        findings.append(Finding(("group",), "is empty", "write a table [[group]]: one address and what moves with it"))
    findings += _twice([(key, group) for key, group in groups], "name", "a group's name")
    findings += _twice(
        groups,
        "virtual_router_id",
        "a router id",
        "give each group a number of its own: keepalived tells groups apart by it",
    )
    for key, group in groups:
        findings += [] if to_find else _priorities(key, group, nodes)
        findings += _application(key, group, bad)
        findings += _timeouts(key, group)
    volumes = [item for key, group in groups for item in _tables(group.get("volume"), (*key, "volume"))]
    findings += _volumes(volumes, bad)
    findings += _regions(volumes, clean.get("region"))
    findings += _nested(volumes)
    return findings


def _tables(value: object, key: Key) -> list[tuple[Key, Table]]:
    items = value if isinstance(value, list) else []
    return [((*key, index), item) for index, item in enumerate(items) if isinstance(item, dict)]


def _written(table: Table, key: Key, word: str, bad: set[Key]) -> bool:
    """Whether a key is in the file, be its value good (still in the table) or bad (reported, and pruned)."""
    return word in table or any(wrong[: len(key) + 1] == (*key, word) for wrong in bad)


def _any_below(bad: set[Key], first: str) -> bool:
    return any(key[:1] == (first,) and len(key) > 1 for key in bad)


def _duplicates(values: Placed, what: str, hint: str) -> Iterator[Finding]:
    first: dict[Any, Key] = {}
    for key, value in values:
        if value in first:
            yield Finding(key, f"is {what} that is taken already: {value}", hint)
        first.setdefault(value, key)


def _twice(tables: list[tuple[Key, Table]], name: str, what: str, hint: str = "") -> list[Finding]:
    values = [((*key, name), table[name]) for key, table in tables if name in table]
    return list(_duplicates(values, what, hint or f"each needs {what} of its own"))


def _nodes(nodes: list[tuple[Key, Table]], bad: set[Key], clean: Table) -> list[Finding]:
    findings: list[Finding] = []
    count = len(clean["node"]) if isinstance(clean.get("node"), list) else 0
    if count < 2 and ("node",) not in bad:
        findings.append(
            Finding(
                ("node",),
                f"has {count} node{'' if count == 1 else 's'}, but a pair needs two",
                'write another table [[node]] with name = "b" and address = "10.0.0.11"',
            )
        )
    if count > MAX_NODES:
        findings.append(Finding(("node",), f"has {count} nodes, more than {MAX_NODES}", f"use at most {MAX_NODES}"))
    findings += _twice(nodes, "name", "a node's name")
    findings += _twice(nodes, "address", "an address", "write each node's own primary private address")
    findings += _twice(nodes, "instance_id", "an instance id", "write each node's own instance id, or leave it out")
    values = [((*key, "priority"), node.get("priority", default_priority(int(key[-1])))) for key, node in nodes]
    findings += _duplicates(
        [(key, value) for key, value in values if key not in bad],
        "a priority",
        "give every node a different priority (1 to 254; without one: 150, 100, 90, … by order)",
    )
    return findings


def _networks(nodes: list[tuple[Key, Table]], groups: list[tuple[Key, Table]]) -> list[Finding]:
    """Addresses that cannot be in one EC2 subnet; VIPs twice or on a node. The real subnet is asked from EC2 later."""
    own = {node["address"]: node.get("name", "?") for _, node in nodes if "address" in node}
    vips = [
        ((*key, "vips", index), vip)
        for key, group in groups
        for index, vip in enumerate(group.get("vips") or [])
        if vip is not None
    ]
    findings = list(_duplicates(vips, "an address", "each VIP belongs to one group, once"))
    for key, vip in vips:
        if vip in own:
            findings.append(
                Finding(
                    key,
                    f"is the primary address of node {own[vip]}, which EC2 never moves: {vip}",
                    "choose an unused address of the subnet",
                )
            )
    placed = [((*key, "address"), node["address"]) for key, node in nodes if "address" in node]
    if not placed:
        return findings
    home = ipaddress.ip_network(f"{placed[0][1]}/{SMALLEST_PREFIX}", strict=False)
    for key, written in [*placed, *vips]:
        if ipaddress.ip_address(written) not in home:
            findings.append(
                Finding(
                    key,
                    f"cannot be in one subnet with {placed[0][1]}: {written} is outside {home}",
                    "nodes and VIPs share one EC2 subnet, and none is larger than a /16",
                )
            )
        elif written not in own or key[0] == "node":
            findings += _reserved(key, written, [address for _, address in placed])
    return findings


def _reserved(key: Key, written: str, nodes: list[str]) -> list[Finding]:
    """EC2 keeps the first four addresses and the last one of each subnet (VPC user guide). The subnet's size is not
    known here: this refuses only what is reserved in every subnet that could hold the address and all the nodes."""
    parsed = ipaddress.IPv4Address(written)
    for prefix in range(SMALLEST_PREFIX, LARGEST_PREFIX + 1):
        network = ipaddress.IPv4Network(f"{written}/{prefix}", strict=False)
        if all(ipaddress.IPv4Address(node) in network for node in nodes):
            place = int(parsed) - int(network.network_address)
            if 4 <= place < network.num_addresses - 1:
                return []
        elif prefix == SMALLEST_PREFIX:
            return []  # the nodes are not in one network: reported by itself
    return [
        Finding(
            key,
            f"is reserved by EC2 in any subnet that holds the nodes: {written}",
            "the first four addresses of a subnet and its last one are EC2's own: choose another",
        )
    ]


def _priorities(key: Key, group: Table, nodes: list[tuple[Key, Table]]) -> list[Finding]:
    own = group.get("priorities")
    if not isinstance(own, dict):
        return []
    names = [node["name"] for _, node in nodes if "name" in node]
    findings = [
        Finding(
            (*key, "priorities", name),
            "is not the name of a node",
            did_you_mean(name, names, f"the nodes are: {', '.join(names)}"),
        )
        for name in own
        if name not in names
    ]
    taken: dict[int, str] = {}
    for node_key, node in nodes:
        name = str(node.get("name", ""))
        priority = int(own.get(name) or node.get("priority") or default_priority(int(node_key[-1])))
        if priority in taken and (name in own or taken[priority] in own):
            place: Key = (*key, "priorities", name) if name in own else (*key, "priorities", taken[priority])
            findings.append(
                Finding(
                    place,
                    f"makes node {name} and node {taken[priority]} equal: {priority}",
                    "give every node of the group a different priority, 1 to 254",
                )
            )
        taken.setdefault(priority, name)
    return findings


def _application(key: Key, group: Table, bad: set[Key]) -> list[Finding]:
    application = group.get("application")
    key = (*key, "application")
    if not isinstance(application, dict):
        return []
    has = {word: _written(application, key, word, bad) for word in ("unit", "start", "stop", "check")}
    commands = [word for word in ("start", "stop", "check") if has[word]]
    if has["unit"] and commands:
        return [
            Finding((*key, word), "is there beside `unit`", "use either the unit, or start, stop and check")
            for word in commands
        ]
    if not has["unit"] and not commands:
        return [Finding(key, "names nothing to run", 'write unit = "postgresql.service", or start, stop and check')]
    missing = [] if has["unit"] else [word for word in ("start", "stop", "check") if not has[word]]
    why = {
        "start": "nothing would start it",
        "stop": "a release could not stop it",
        "check": "awsha could not tell whether it runs (exit 0: running)",
    }
    return [
        Finding((*key, word), f"is missing: {why[word]}", f'write {word} = ["/usr/local/bin/app", "{word}"]')
        for word in missing
    ]


def _timeouts(key: Key, group: Table) -> list[Finding]:
    given = group.get("timeouts")
    given = given if isinstance(given, dict) else {}
    handover = given.get("handover_s", Timeouts().handover_s)
    acquire = given.get("acquire_s", Timeouts().acquire_s)
    if acquire > handover:
        return []
    word = "acquire_s" if "acquire_s" in given else "handover_s"
    return [
        Finding(
            (*key, "timeouts", word),
            f"lets a new master give up ({acquire:g} s) before the old one's release may end ({handover:g} s)",
            "make acquire_s larger than handover_s",
        )
    ]


def _volumes(volumes: list[tuple[Key, Table]], bad: set[Key]) -> list[Finding]:
    ids = [((*key, "id"), volume_in(volume["id"])) for key, volume in volumes if "id" in volume]
    findings = list(_duplicates(ids, "a volume", "a volume belongs to one group, once"))
    findings += _twice(volumes, "mount", "a mount point", "give each volume a directory of its own")
    tags = [
        ((*key, "tags"), tuple(sorted(volume["tags"].items())))
        for key, volume in volumes
        if isinstance(volume.get("tags"), dict)
    ]
    seen: set[Any] = set()
    for place, value in tags:
        if value in seen:
            findings.append(
                Finding(place, "finds the same volume as the tags of another", "each volume needs tags of its own")
            )
        seen.add(value)
    for key, volume in volumes:
        has = {word: _written(volume, key, word, bad) for word in ("id", "tags")}
        if has["id"] and has["tags"]:
            findings.append(Finding((*key, "tags"), "is there beside `id`", "keep one of the two: the id is exact"))
        elif not has["id"] and not has["tags"]:
            findings.append(
                Finding(
                    (*key, "id"), "is missing", 'write id = "vol-0123456789abcdef0", or tags = { Name = "db-data" }'
                )
            )
    return findings


def _regions(volumes: list[tuple[Key, Table]], region: object) -> list[Finding]:
    """A volume by its ARN is in the region that the ARN names."""
    return [
        Finding((*key, "id"), f"is in {volume['id'].split(':')[3]}, and region is {region}", "correct one of the two")
        for key, volume in volumes
        if region and str(volume.get("id", "")).startswith("arn:") and volume["id"].split(":")[3] != region
    ]


def _nested(volumes: list[tuple[Key, Table]]) -> list[Finding]:
    """A mount inside another group's mount would keep that group from unmounting. Inside one group it is in order."""
    mounts = [(key, volume["mount"]) for key, volume in volumes if "mount" in volume]
    return [
        Finding(
            (*key, "mount"),
            f"lies inside {outer}, which moves with another group: {inner}",
            "put both volumes into one group, or mount this one elsewhere",
        )
        for key, inner in mounts
        for other, outer in mounts
        if inner.startswith(outer + "/") and key[1] != other[1]
    ]
