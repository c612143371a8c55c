"""What `awsha check` reads of EC2, as frozen records: more than a failover needs, and nothing is derived yet."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from awsha.core.model import Unknown


@dataclass(frozen=True, slots=True)
class Interface:
    """One ENI. `secondaries` without the primary address; `owner` is the instance, "" when it is not attached."""

    id: str
    mac: str
    primary: str
    secondaries: frozenset[str] = frozenset()
    groups: frozenset[str] = frozenset()
    subnet: str = ""
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Instance:
    """One instance. `metadata_on` and `hop_limit` are None when EC2 does not say."""

    id: str
    state: str
    type: str = ""
    zone: str = ""
    subnet: str = ""
    address: str = ""
    interfaces: tuple[Interface, ...] = ()
    tags: Mapping[str, str] = field(default_factory=dict)
    metadata_on: bool | None = None
    hop_limit: int | None = None
    account: str = ""


@dataclass(frozen=True, slots=True)
class Holding:
    """One attachment of a volume."""

    instance_id: str
    device: str
    delete_on_termination: bool


@dataclass(frozen=True, slots=True)
class Ebs:
    """One volume. `key` is the ARN of its KMS key, "" when it is not encrypted."""

    id: str
    state: str
    zone: str = ""
    type: str = ""
    multi_attach: bool = False
    key: str = ""
    holdings: tuple[Holding, ...] = ()


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule of a security group. `protocol` is a number, "icmp" or "-1" (all); `low` is ICMP's type, -1 for all."""

    protocol: str
    low: int | None = None
    networks: tuple[str, ...] = ()
    groups: tuple[str, ...] = ()
    prefix_lists: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class SecurityGroup:
    """One security group."""

    id: str
    ingress: tuple[Rule, ...] = ()
    egress: tuple[Rule, ...] = ()


@dataclass(frozen=True, slots=True)
class Refusal:
    """A permission that is missing: the action, on what, and for what it is needed."""

    action: str
    resource: str
    purpose: str


@dataclass(frozen=True, slots=True)
class Cloud:
    """All of it. A part that could not be read is Unknown (and is reported by whoever read it).

    `nodes`: node name -> the instances that could be it. `volumes`: by id. `subnets`: id -> CIDR block.
    `quotas`: instance type -> IPv4 addresses an interface. `keys`: key -> its state by KMS, Unknown when not visible.
    """

    nodes: Mapping[str, tuple[Instance, ...]] | Unknown
    volumes: Mapping[str, Ebs] | Unknown
    holders: tuple[Interface, ...] | Unknown  # of the VIPs
    subnets: Mapping[str, str] | Unknown
    groups: Mapping[str, SecurityGroup] | Unknown
    quotas: Mapping[str, int] | Unknown
    keys: Mapping[str, str | Unknown] = field(default_factory=dict)
