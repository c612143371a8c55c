"""Which instances and volumes a configuration means that names none: by their tags. Pure: candidates in, nodes out."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from awsha.core.errors import EX_CONFIG, AwshaError
from awsha.core.policy import Node, Tags

NAME_TAGS = ("awsha:node", "Name")  # the first of them that an instance has is the node's name
VIP_TAG = "awsha:vip"  # of the volume or a node: the addresses that move, with a space between two
MEMBERS = frozenset({"pending", "running", "stopping", "stopped"})  # a stopped instance keeps its address


@dataclass(frozen=True, slots=True)
class FoundInstance:
    """An instance that could be a node. `name`, `arn`: "" when no tag names it, or its account is not known."""

    id: str
    arn: str
    name: str
    address: str
    zone: str
    subnet: str
    state: str
    vips: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For a message that lists candidates."""
        return f"{self.id} ({self.name or 'no name'}, {self.address or 'no address'}, {self.state}, {self.zone})"


@dataclass(frozen=True, slots=True)
class FoundVolume:
    """A volume. `attached`: INSTANCE:DEVICE of each attachment. `size` in GiB. `arn`: "", its account is not known."""

    id: str
    arn: str
    name: str
    zone: str
    state: str
    size: int
    attached: tuple[str, ...] = ()
    vips: tuple[str, ...] = ()

    def __str__(self) -> str:
        """For a message that lists candidates."""
        holders = f", at {', '.join(self.attached)}" if self.attached else ""
        return f"{self.id} ({self.name or 'no name'}, {self.size} GiB, {self.state}, {self.zone}{holders})"


def spoken(tags: Tags) -> str:
    """Tags as a person writes them."""
    return ", ".join(f"{key}={value}" for key, value in tags) or "no tags asked for"


def name_of(tags: dict[str, str]) -> str:
    """A node's name by an instance's tags, "" without one."""
    return next((tags[key] for key in NAME_TAGS if tags.get(key)), "")


def vips_of(tags: dict[str, str]) -> tuple[str, ...]:
    """The addresses that an instance's or volume's tag names, as written there; none without it."""
    return tuple(tags.get(VIP_TAG, "").split())


def vips(instances: Iterable[FoundInstance], volumes: Iterable[FoundVolume]) -> tuple[str, ...]:
    """All addresses that tags name, each once, those of the volumes first."""
    named = [*(item.vips for item in volumes), *(item.vips for item in instances)]
    return tuple(dict.fromkeys(vip for one in named for vip in one))


def members(found: Iterable[FoundInstance]) -> list[FoundInstance]:
    """Those that still exist, in the order that decides who is preferred: by name (`b2` before `b10`), then by id."""
    return sorted((item for item in found if item.state in MEMBERS), key=lambda item: (_natural(item.name), item.id))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (-1, part) for part in re.findall(r"[0-9]+|[^0-9]+", name)]


def nodes(found: Iterable[FoundInstance], tags: Tags) -> tuple[Node, ...]:
    """The nodes of a pair, the preferred master first. Raises AwshaError (78) that lists the candidates."""
    chosen = members(found)
    if len(chosen) < 2:
        raise _refused(f"{_count(chosen, 'instance')}, and a pair needs two", tags, chosen)
    if len({item.subnet for item in chosen}) > 1:
        zones = len({item.zone for item in chosen})
        raise _refused(f"instances in different {'zones' if zones > 1 else 'subnets'}", tags, chosen)
    if nameless := [item for item in chosen if not item.name]:
        raise _refused(f"{nameless[0].id}, which has no name: no tag {' or '.join(NAME_TAGS)}", tags, chosen)
    if len({item.name for item in chosen}) < len(chosen):
        raise _refused("instances that have the same name", tags, chosen)
    return tuple(Node(item.name, item.address) for item in chosen)


def volume(found: Sequence[FoundVolume], tags: Tags, zone: str) -> FoundVolume:
    """The one volume, in the nodes' zone. Raises AwshaError (78) that lists the candidates."""
    if len(found) != 1:
        raise _refused(f"{_count(found, 'volume')}, and one is needed", tags, found)
    if found[0].zone != zone:
        raise _refused(f"a volume in another zone than the nodes, which are in {zone}", tags, found)
    return found[0]


def _count(found: Sequence[object], what: str) -> str:
    return f"{len(found) or 'no'} {what}{'' if len(found) == 1 else 's'}"


def _refused(what: str, tags: Tags, found: Sequence[object]) -> AwshaError:
    listed = "".join(f"\n  {item}" for item in found)
    return AwshaError(
        f"{spoken(tags)}: there {'is' if what.startswith(('1 ', 'a ', 'i-')) else 'are'} {what}{listed}",
        hint="awsha discover shows what there is; use a tag that only the pair has, or write the ids",
        exit_code=EX_CONFIG,
    )
