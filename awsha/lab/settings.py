"""What a lab is: its prefix, where its parts live, and the shape (nodes, groups, volumes) that was asked for."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from awsha.core.errors import AwshaError

REGION = "eu-west-1"
ZONE = "eu-west-1a"
SUBNET = "10.0.0.0/24"
ROUTER = "10.0.0.1"  # what a VPC reserves for its router: the first address of the subnet
ENDPOINT_ADDRESS = "10.0.0.2"
ENDPOINT_PORT = 4566
METADATA_ADDRESS = "169.254.169.254"  # bound inside the lab's router namespace, nowhere else
CLIENT_ADDRESS = "10.0.0.200"
CLIENT = "client"
ACCESS_KEY_ID = "AKIALABLABLABLABLABL"
SECRET_KEY = "not-a-secret-this-is-the-lab"  # noqa: S105 - the endpoint takes any key
MAX_NODES = 8
MAX_GROUPS = 8

LatencyName = Literal["aws", "none"]


@dataclass(frozen=True, slots=True)
class Lab:
    """Where one lab lives. Everything that it makes outside its nodes carries its prefix: two fit on a machine."""

    prefix: str

    @property
    def run(self) -> Path:
        """Folder of images, logs, pid file and control socket."""
        return Path("/run") / self.prefix

    @property
    def socket(self) -> Path:
        """Control socket of the daemon: JSON lines, root only."""
        return self.run / "control.sock"

    @property
    def pid_file(self) -> Path:
        """Pid of the daemon."""
        return self.run / "daemon.pid"

    @property
    def log(self) -> Path:
        """The daemon's log."""
        return self.run / "daemon.log"

    @property
    def ledger(self) -> Path:
        """Folder of the clients' ledgers."""
        return self.run / CLIENT

    def netns(self, name: str) -> str:
        """Name of a network namespace: a node's, `client` or `vpc`."""
        return f"{self.prefix}-{name}"

    def node_dir(self, node: str) -> Path:
        """Folder of one node: its logs and what survives its reboot."""
        return self.run / node

    @property
    def cgroup(self) -> Path:
        """The lab's cgroup2 folder. Raises AwshaError where no cgroup2 is mounted."""
        return cgroup2_mount() / self.prefix


def lab_from_environment() -> Lab:
    """The lab that AWSHA_LAB names (default `awshalab`). Raises AwshaError on a name that could match another lab's."""
    prefix = os.environ.get("AWSHA_LAB") or "awshalab"
    if not re.fullmatch(r"[a-z][a-z0-9_]{0,19}", prefix):
        raise AwshaError(
            f"AWSHA_LAB={prefix!r} can't be a lab's prefix",
            hint="lower case letters, digits and _, at most 20, beginning with a letter",
            exit_code=78,
        )
    return Lab(prefix)


def cgroup2_mount() -> Path:
    """Mount point of cgroup2: /sys/fs/cgroup, or a folder below it on hybrid systems. Raises AwshaError without one."""
    for line in Path("/proc/mounts").read_text().splitlines():
        fields = line.split()
        if fields[2] == "cgroup2":
            return Path(fields[1])
    raise AwshaError("no cgroup2 is mounted here", hint="mount -t cgroup2 none /sys/fs/cgroup (kernel 5.14 or newer)")


@dataclass(frozen=True, slots=True)
class Shape:
    """What `lab up` was asked for. Counts of volumes and VIPs are per group; seconds for advert_int."""

    nodes: int = 2
    volumes: int = 1
    vips: int = 1
    groups: int = 1
    fence: str = "stop-instance"
    latency: LatencyName = "aws"
    fstype: str = "ext4"
    advert_int: float = 0.2
    application: bool = True
    agent: bool = True
    keepalived: bool = True
    throttling: bool = True  # EC2's token buckets
    open_files: str = ""  # empty: awsha's default
    timeouts: dict[str, float] = field(default_factory=dict)
    vrrp_filtered: bool = False  # no VRRP passes from the start, as without a rule for protocol 112

    def problems(self) -> list[str]:
        """Everything that is wrong with these numbers; empty when they make a lab."""
        found = []
        if not 1 <= self.nodes <= MAX_NODES:
            found.append(f"--nodes {self.nodes}: between 1 and {MAX_NODES}")
        if not 1 <= self.groups <= MAX_GROUPS:
            found.append(f"--groups {self.groups}: between 1 and {MAX_GROUPS}")
        if not 0 <= self.volumes <= 8:
            found.append(f"--volumes {self.volumes}: between 0 and 8")
        if not 1 <= self.vips <= 10:
            found.append(f"--vips {self.vips}: between 1 and 10")
        if not 0.05 <= self.advert_int <= 10:
            found.append(f"--advert-int {self.advert_int}: between 0.05 and 10 seconds")
        return found

    def to_json(self) -> dict[str, Any]:
        """Plain values for the daemon's command line."""
        return asdict(self)

    @staticmethod
    def from_json(values: dict[str, Any]) -> Shape:
        """The inverse of to_json."""
        return Shape(**values)


@dataclass(frozen=True, slots=True)
class NodeSpec:
    """One instance: a, b, c …"""

    name: str
    address: str
    mac: str
    instance_id: str
    eni_id: str


@dataclass(frozen=True, slots=True)
class VolumeSpec:
    """One EBS volume and where its group mounts it."""

    id: str
    mount: str


@dataclass(frozen=True, slots=True)
class GroupSpec:
    """One VRRP instance with its addresses, volumes, the port of its record server, and who should win at the start."""

    name: str
    router_id: int
    vips: tuple[str, ...]
    volumes: tuple[VolumeSpec, ...]
    port: int
    preferred: str


def node_specs(lab: Lab, shape: Shape) -> tuple[NodeSpec, ...]:
    """The nodes of a shape; ids depend on prefix and name only, so logs of two runs compare."""
    specs = []
    for index in range(shape.nodes):
        name = "abcdefgh"[index]
        digest = _hex17(lab, name)
        mac = "02:" + ":".join(digest[i : i + 2] for i in range(0, 10, 2))
        specs.append(NodeSpec(name, f"10.0.0.{10 + index}", mac, f"i-{digest}", f"eni-{_hex17(lab, name + '-eni')}"))
    return tuple(specs)


def group_specs(lab: Lab, shape: Shape) -> tuple[GroupSpec, ...]:
    """The groups of a shape: `data`, `data2` …, preferred by node a, b … in turn (crossing)."""
    specs = []
    for index in range(shape.groups):
        name = "data" if index == 0 else f"data{index + 1}"
        vips = tuple(f"10.0.0.{100 + index * shape.vips + i}" for i in range(shape.vips))
        folder = "/srv/data" if index == 0 else f"/srv/group{index + 1}"
        volumes = tuple(
            VolumeSpec(f"vol-{_hex17(lab, f'{name}-vol{i}')}", folder if i == 0 else f"{folder}{i + 1}")
            for i in range(shape.volumes)
        )
        preferred = "abcdefgh"[index % shape.nodes]
        specs.append(GroupSpec(name, 51 + index, vips, volumes, 7000 + index, preferred))
    return tuple(specs)


def _hex17(lab: Lab, what: str) -> str:
    """17 hex digits as in AWS's long ids, which begin with 0."""
    return "0" + hashlib.sha256(f"{lab.prefix}/{what}".encode()).hexdigest()[:16]
