"""The judgements of `awsha check` as tables: a pair without a defect, then one defect at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from awsha.aws.permissions import PURPOSES, USES
from awsha.config.fingerprint import fingerprint
from awsha.core import judge_cloud, judge_host
from awsha.core.catalogue import CATALOGUE, Code, reference
from awsha.core.cloudfacts import Cloud, Ebs, Holding, Instance, Interface, Refusal, Rule, SecurityGroup
from awsha.core.findings import Finding, ordered
from awsha.core.judge_host import (
    UNIT_STATES,
    ClockReading,
    FileSystem,
    FstabLine,
    HookFile,
    Keepalived,
    MountPoint,
    Published,
    UnitFile,
)
from awsha.core.model import Unknown
from awsha.core.policy import Application, Group, Node, Policy, Volume

ROOT = Path(__file__).parents[2]
VIP, VOL, SG = "10.0.0.100", "vol-0000000000000000a", "sg-1"
POLICY = Policy(
    nodes=(Node("a", "10.0.0.10"), Node("b", "10.0.0.11")),
    groups=(Group("data", 51, (VIP,), volumes=(Volume("/srv/data", VOL),)),),
)


def node(letter: str, address: str) -> Instance:
    eni = Interface(f"eni-{letter}", "", address, frozenset(), frozenset({SG}), "subnet-1", f"i-{letter}")
    return Instance(f"i-{letter}", "running", "t3.medium", "eu-west-1a", "subnet-1", address, (eni,))


A, B = node("a", "10.0.0.10"), node("b", "10.0.0.11")
STRANGER = Interface("eni-x", "", "10.0.0.77", frozenset({VIP}), frozenset(), "subnet-1", "i-x")
EBS = Ebs(VOL, "in-use", "eu-west-1a", "gp3", False, "", (Holding("i-a", "/dev/sdf", False),))
ALL = Rule("-1", None, ("0.0.0.0/0",))
OPEN = SecurityGroup(SG, (Rule("112", None, (), (SG,)), Rule("icmp", -1, ("10.0.0.0/24",))), (ALL,))
CLOUD = Cloud(
    nodes={"a": (A,), "b": (B,)},
    volumes={VOL: EBS},
    holders=(replace(A.interfaces[0], secondaries=frozenset({VIP})),),
    subnets={"subnet-1": "10.0.0.0/24"},
    groups={SG: OPEN},
    quotas={"t3.medium": 6},
)


def codes(found: list[Finding] | Iterator[Finding]) -> list[Code]:
    return [finding.code for finding in found]


def with_b(**changes: object) -> Cloud:
    return replace(CLOUD, nodes={"a": (A,), "b": (replace(B, **changes),)})


def with_volume(**changes: object) -> Cloud:
    return replace(CLOUD, volumes={VOL: replace(EBS, **changes)})


def with_rules(*ingress: Rule, egress: tuple[Rule, ...] = (ALL,)) -> Cloud:
    return replace(CLOUD, groups={SG: SecurityGroup(SG, ingress, egress)})


def with_vip(vip: str) -> Policy:
    return replace(POLICY, groups=(replace(POLICY.groups[0], vips=(vip,)),))


def test_a_pair_without_a_defect_gives_no_finding():
    assert judge_cloud.judge(POLICY, CLOUD) == []


def b_with(*secondaries: str) -> Cloud:
    return with_b(interfaces=(replace(B.interfaces[0], secondaries=frozenset(secondaries)),))


FULL = tuple(f"10.0.0.{number}" for number in range(150, 155))
PREFIX_LIST = Rule("112", None, (), (), ("pl-1",))
VRRP, ICMP = OPEN.ingress
DEFECTS: dict[str, tuple[Cloud, Code]] = {
    "no instance": (replace(CLOUD, nodes={"a": (A,), "b": ()}), Code.INSTANCE_UNKNOWN),
    "two instances": (replace(CLOUD, nodes={"a": (A,), "b": (B, B)}), Code.INSTANCE_UNKNOWN),
    "address": (with_b(interfaces=(replace(B.interfaces[0], primary="10.0.0.12"),)), Code.INSTANCE_MISMATCH),
    "stopped": (with_b(state="stopped"), Code.INSTANCE_STATE),
    "metadata off": (with_b(metadata_on=False), Code.METADATA_OFF),
    "zone of a node": (with_b(zone="eu-west-1b"), Code.ZONE),
    "zone of a volume": (with_volume(zone="eu-west-1b"), Code.ZONE),
    "subnet": (with_b(subnet="subnet-2"), Code.SUBNET),
    "VIP is primary": (replace(CLOUD, holders=(replace(STRANGER, primary=VIP),)), Code.VIP_PRIMARY),
    "VIP at a stranger": (replace(CLOUD, holders=(STRANGER,)), Code.VIP_STRANGER),
    "no room": (b_with(*FULL), Code.ADDRESS_QUOTA),
    "volume missing": (replace(CLOUD, volumes={}), Code.VOLUME_UNKNOWN),
    "volume state": (with_volume(state="error", holdings=()), Code.VOLUME_STATE),
    "volume type": (with_volume(type="sc1"), Code.VOLUME_TYPE),
    "Multi-Attach": (with_volume(multi_attach=True), Code.MULTI_ATTACH),
    "key": (replace(with_volume(key="k"), keys={"k": "PendingDeletion"}), Code.VOLUME_KEY),
    "held by a stranger": (with_volume(holdings=(Holding("i-x", "/dev/sdf", False),)), Code.VOLUME_STRANGER),
    "deleted": (with_volume(holdings=(Holding("i-a", "/dev/sdf", True),)), Code.DELETE_ON_TERMINATION),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_in_ec2_gives_its_own_finding(name: str):
    cloud, code = DEFECTS[name]
    if name in ("no instance", "two instances", "address"):
        cloud = replace(cloud, volumes={VOL: replace(EBS, holdings=())}, holders=())
    assert codes(judge_cloud.judge(POLICY, cloud)) == [code]


@pytest.mark.parametrize(
    ("vip", "trouble"),
    [("10.0.1.5", "not in the subnet"), ("10.0.0.3", "reserved"), ("10.0.0.255", "reserved"), ("10.0.0.4", "")],
)
def test_a_vip_must_be_assignable_in_the_subnet(vip: str, trouble: str):
    found = judge_cloud.judge(with_vip(vip), replace(CLOUD, holders=()))
    assert codes(found) == ([Code.VIP_SUBNET] if trouble else [])
    assert all(trouble in finding.what for finding in found)


def test_the_vips_own_places_count_for_the_quota_once():
    assert judge_cloud.judge(POLICY, b_with(VIP, *FULL[:4])) == []


def test_a_vip_in_another_vpc_is_another_address():
    elsewhere = replace(STRANGER, subnet="subnet-9")
    assert judge_cloud.judge(POLICY, replace(CLOUD, holders=(elsewhere,))) == []


def test_a_stranger_is_told_only_when_all_nodes_are_known():
    cloud = replace(CLOUD, nodes=Unknown("cut off"), holders=(STRANGER,))
    assert judge_cloud.judge(POLICY, cloud) == []


def test_a_node_whose_instance_is_not_known_makes_no_stranger_of_itself():
    cloud = replace(with_volume(holdings=(Holding("i-b", "/dev/sdf", False),)), nodes={"a": (A,), "b": ()})
    assert codes(judge_cloud.judge(POLICY, cloud)) == [Code.INSTANCE_UNKNOWN]


TRAFFIC: dict[str, tuple[Cloud, list[Code]]] = {
    "all": (with_rules(ALL), []),
    "by number": (with_rules(VRRP, Rule("1", -1, ("10.0.0.0/24",))), []),
    "no VRRP": (with_rules(ICMP), [Code.VRRP_BLOCKED] * 2),
    "no ICMP": (with_rules(VRRP), [Code.ICMP_BLOCKED] * 2),
    "echo is enough": (with_rules(VRRP, Rule("icmp", 8, ("10.0.0.0/24",))), []),
    "another ICMP type": (with_rules(VRRP, Rule("icmp", 3, ("10.0.0.0/24",))), [Code.ICMP_BLOCKED] * 2),
    "one way only": (with_rules(ICMP, Rule("112", None, ("10.0.0.10/32",))), [Code.VRRP_BLOCKED]),
    "another group": (with_rules(ICMP, Rule("112", None, (), ("sg-9",))), [Code.VRRP_BLOCKED] * 2),
    "no way out": (with_rules(VRRP, ICMP, egress=(ICMP,)), [Code.VRRP_BLOCKED] * 2),
    "a prefix list": (with_rules(ICMP, PREFIX_LIST), [Code.VRRP_BLOCKED] * 2),
    "IPv6 and TCP": (with_rules(VRRP, ICMP, Rule("tcp", 22, ("::/0",))), []),
    "not read": (replace(CLOUD, groups=Unknown("cut off")), []),
}


@pytest.mark.parametrize("name", TRAFFIC)
def test_vrrp_and_icmp_pass_both_ways(name: str):
    cloud, expected = TRAFFIC[name]
    assert codes(judge_cloud.judge(POLICY, cloud)) == expected


def test_what_is_unknown_gives_no_finding_of_another_kind():
    nothing = Unknown("cut off")
    assert judge_cloud.judge(POLICY, Cloud(nothing, nothing, nothing, nothing, nothing, nothing)) == []


def test_refusals_are_one_finding_an_action():
    refused = [Refusal("ec2:B", "vol-1", "take"), Refusal("ec2:A", "i-1", "stop"), Refusal("ec2:B", "vol-2", "take")]
    found = judge_cloud.permissions(refused)
    assert [finding.subject for finding in found] == ["ec2:A", "ec2:B"]
    assert "vol-1, vol-2" in found[1].what


# --- this host -------------------------------------------------------------------------------------------------

POINT = MountPoint("/srv/data", True, True, True, False, "", ())
GOOD = Keepalived((2, 2, 7), "x", "x")
EXT4 = Volume("/srv/data", VOL, fstype="ext4")
GROUP = replace(POLICY.groups[0], application=Application(unit="db.service"))
HERE = Published("0123456789abcdef", "1.0")
HOST: dict[str, tuple[Callable[[], Iterator[Finding]], list[Code]]] = {
    "mount point": (lambda: judge_host.mount_points((POINT,), ()), []),
    "made later": (lambda: judge_host.mount_points((replace(POINT, exists=False, directory=False),), ()), []),
    "no parent": (
        lambda: judge_host.mount_points((replace(POINT, exists=False, directory=False, parent=False),), ()),
        [Code.MOUNT_POINT],
    ),
    "a link": (lambda: judge_host.mount_points((replace(POINT, real="/data"),), ()), [Code.MOUNT_POINT]),
    "a file": (lambda: judge_host.mount_points((replace(POINT, directory=False),), ()), [Code.MOUNT_POINT]),
    "taken": (
        lambda: judge_host.mount_points((replace(POINT, mounted=True, foreign="tmpfs"),), ()),
        [Code.MOUNT_POINT_TAKEN],
    ),
    "mounted": (lambda: judge_host.mount_points((replace(POINT, mounted=True, entries=("x",)),), ()), []),
    "not empty": (lambda: judge_host.mount_points((replace(POINT, entries=("x",)),), ()), [Code.MOUNT_POINT_NOT_EMPTY]),
    "fstab": (
        lambda: judge_host.mount_points((POINT,), (FstabLine("/srv/data", ("defaults",)),)),
        [Code.FSTAB],
    ),
    "fstab noauto": (
        lambda: judge_host.mount_points((POINT,), (FstabLine("/srv/data", ("noauto",)),)),
        [],
    ),
    "fstab noauto, automount": (
        lambda: judge_host.mount_points((POINT,), (FstabLine("/srv/data", ("noauto", "x-systemd.automount")),)),
        [Code.FSTAB],
    ),
    "fstab noauto, the old word": (
        lambda: judge_host.mount_points((POINT,), (FstabLine("/srv/data", ("noauto", "comment=systemd.automount")),)),
        [Code.FSTAB],
    ),
    "fstab noauto, wanted": (
        lambda: judge_host.mount_points(
            (POINT,), (FstabLine("/srv/data", ("noauto", "x-systemd.wanted-by=a.target")),)
        ),
        [Code.FSTAB],
    ),
    "fstab noauto, then auto": (
        lambda: judge_host.mount_points((POINT,), (FstabLine("/srv/data", ("noauto", "auto")),)),
        [Code.FSTAB],
    ),
    "fstab auto, then noauto": (
        lambda: judge_host.mount_points((POINT,), (FstabLine("/srv/data", ("auto", "x-y=1", "noauto")),)),
        [],
    ),
    "fstab of another": (lambda: judge_host.mount_points((POINT,), (FstabLine("/srv"),)), []),
    "tools": (lambda: judge_host.tools({}), []),
    "no tool": (lambda: judge_host.tools({"e2fsck": "e2fsprogs"}), [Code.TOOL_MISSING]),
    "no program": (lambda: judge_host.application(GROUP, None, ("/x",)), [Code.PROGRAM_MISSING]),
    "file system": (lambda: judge_host.file_system(FileSystem(EXT4, "/dev/nvme1n1", "ext4")), []),
    "not attached here": (lambda: judge_host.file_system(FileSystem(EXT4)), []),
    "another type": (lambda: judge_host.file_system(FileSystem(EXT4, "/dev/nvme1n1", "xfs")), [Code.FILE_SYSTEM]),
    "any type": (lambda: judge_host.file_system(FileSystem(Volume("/srv/data", VOL), "/dev/nvme1n1", "xfs")), []),
    "nothing on it": (lambda: judge_host.file_system(FileSystem(EXT4, "/dev/nvme1n1")), [Code.FILE_SYSTEM]),
    "not in this kernel": (lambda: judge_host.file_system(FileSystem(EXT4, known=False)), [Code.FILE_SYSTEM]),
    "options": (
        lambda: judge_host.file_system(FileSystem(EXT4, refused={"uid=5": "no", "acl=1": "no"})),
        [Code.MOUNT_OPTIONS] * 2,
    ),
    "hooks": (lambda: judge_host.hooks(()), []),
    "unsafe hook": (lambda: judge_host.hooks((HookFile("/x", "it is", "chmod go-w /x"),)), [Code.HOOK_UNSAFE]),
    "no hook": (lambda: judge_host.hooks((HookFile("/x", ignored="a typo"),)), [Code.HOOK_IGNORED]),
    "net-utils": (lambda: judge_host.net_utils("eth0", True), [Code.NET_UTILS]),
    "no net-utils": (lambda: judge_host.net_utils("eth0", False), []),
    "written": (lambda: judge_host.written({VIP: "/etc/netplan/x.yaml"}), [Code.VIP_IN_NETWORK_CONFIG]),
    "keepalived": (lambda: judge_host.keepalived("a", GOOD), []),
    "no keepalived": (lambda: judge_host.keepalived("a", Keepalived(None, None, None)), [Code.KEEPALIVED_MISSING]),
    "old": (lambda: judge_host.keepalived("a", replace(GOOD, version=(2, 1, 5))), [Code.KEEPALIVED_VERSION]),
    "other file": (lambda: judge_host.keepalived("a", replace(GOOD, config="y")), [Code.KEEPALIVED_CONFIG]),
    "no file": (lambda: judge_host.keepalived("a", replace(GOOD, config=None)), [Code.KEEPALIVED_CONFIG]),
    "a directory": (
        lambda: judge_host.keepalived("a", replace(GOOD, config=None, unread="it is a directory")),
        [Code.KEEPALIVED_CONFIG],
    ),
    "refused": (lambda: judge_host.keepalived("a", replace(GOOD, refused="no")), [Code.KEEPALIVED_REFUSES]),
    "down": (lambda: judge_host.keepalived("a", replace(GOOD, running=False)), [Code.KEEPALIVED_DOWN]),
    "awsha": (lambda: judge_host.script_security("/usr/bin/awsha", True, None), []),
    "no awsha": (lambda: judge_host.script_security("/usr/bin/awsha", False, None), [Code.SCRIPT_SECURITY]),
    "unsafe": (lambda: judge_host.script_security("/usr/bin/awsha", True, "it is"), [Code.SCRIPT_SECURITY]),
    "clock": (lambda: judge_host.clock(ClockReading(-5.9, 0.0)), []),
    "clock ahead": (lambda: judge_host.clock(ClockReading(6.1, 0.0)), [Code.CLOCK]),
    "clock behind": (lambda: judge_host.clock(ClockReading(-9.0, 1.0)), [Code.CLOCK]),
    "clock, slow answer": (lambda: judge_host.clock(ClockReading(-9.0, 4.0)), []),
    "agent": (lambda: judge_host.agent(HERE, HERE), []),
    "no agent": (lambda: judge_host.agent(HERE, None), [Code.AGENT_DOWN]),
    "older agent": (lambda: judge_host.agent(HERE, replace(HERE, version="0.9")), [Code.AGENT_OUTDATED]),
    "other file read": (lambda: judge_host.agent(HERE, replace(HERE, fingerprint="f")), [Code.AGENT_OUTDATED]),
    "peer": (lambda: judge_host.peers(HERE, {"b": HERE}), []),
    "silent peer": (lambda: judge_host.peers(HERE, {"b": None}), [Code.PEER_UNPUBLISHED]),
    "peer's file": (lambda: judge_host.peers(HERE, {"b": replace(HERE, fingerprint="f")}), [Code.PEER_CONFIG]),
    "peer's version": (lambda: judge_host.peers(HERE, {"b": replace(HERE, version="2")}), [Code.PEER_VERSION]),
}


@pytest.mark.parametrize("name", HOST)
def test_a_defect_of_this_host_gives_its_own_finding(name: str):
    judged, expected = HOST[name]
    assert codes(judged()) == expected


WANTED = "/run/systemd/system/multi-user.target.wants/db.service"
GENERATED = "/run/systemd/generator.late/multi-user.target.wants/db.service"
# What counts is that awsha alone starts it: not systemd, now or after a boot.
UNITS: dict[str, tuple[UnitFile, list[Code], str]] = {
    "disabled": (UnitFile("disabled"), [], ""),
    "static": (UnitFile("static"), [], ""),
    "indirect": (UnitFile("indirect"), [], ""),
    "linked": (UnitFile("linked"), [], ""),
    "generated, and nothing wants it": (UnitFile("generated"), [], ""),
    "generated": (UnitFile("generated", links=(GENERATED,)), [Code.UNIT_ENABLED], "systemctl cat"),
    "enabled": (UnitFile("enabled"), [Code.UNIT_ENABLED], "systemctl disable db.service"),
    "alias": (UnitFile("enabled", real="real.service"), [Code.UNIT_ENABLED], "systemctl disable real.service"),
    "alias of a disabled one": (UnitFile("disabled", real="real.service"), [], ""),
    "enabled-runtime": (UnitFile("enabled-runtime", links=(WANTED,)), [Code.UNIT_RUNTIME], "disable --runtime db"),
    "enabled by a generator": (UnitFile("enabled-runtime", links=(GENERATED,)), [Code.UNIT_RUNTIME], "its generator"),
    "linked-runtime": (UnitFile("linked-runtime"), [Code.UNIT_RUNTIME], "systemctl link"),
    "masked": (UnitFile("masked"), [Code.UNIT_MISSING], "systemctl unmask db.service"),
    "masked-runtime": (UnitFile("masked-runtime"), [Code.UNIT_MISSING], "systemctl unmask --runtime db.service"),
    "transient": (UnitFile("transient"), [Code.UNIT_MISSING], "systemctl edit --full"),
    "bad": (UnitFile("bad"), [Code.UNIT_MISSING], "systemd-analyze verify db.service"),
    "not-found": (UnitFile("not-found"), [Code.UNIT_MISSING], "install db.service"),
    "by its socket": (
        UnitFile("static", started_by=("db.socket",)), [Code.UNIT_ENABLED], "systemctl disable --now db.socket",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", UNITS)
def test_awsha_alone_starts_the_applications_unit(name: str):
    unit, expected, hint = UNITS[name]
    found = list(judge_host.application(GROUP, unit, ()))
    assert codes(found) == expected
    assert all(hint in finding.hint for finding in found)


def test_every_state_of_a_unit_is_judged():
    assert {unit.state for unit, _, _ in UNITS.values()} == UNIT_STATES - {"alias"}


HERE_IS = judge_cloud.Place("aws", "eu-west-1", "123456789012")


@pytest.mark.parametrize(
    ("arn", "what"),
    [
        ("arn:aws:ec2:eu-west-1:123456789012:volume/vol-1", None),
        ("arn:aws:ec2:eu-west-1:*:volume/vol-1", None),
        (
            "arn:aws:ec2:eu-west-1:210987654321:volume/vol-1",
            "in account 210987654321, this",
        ),
        ("arn:aws:ec2:eu-west-2:123456789012:volume/vol-1", "in region eu-west-2"),
        ("arn:aws-cn:ec2:cn-north-1:123456789012:volume/vol-1", "in partition aws-cn"),
    ],
)
def test_an_arn_is_of_the_place_where_this_instance_is(arn: str, what: str | None):
    found = list(judge_cloud.arns([arn], HERE_IS))
    assert codes(found) == ([Code.VOLUME_ARN] if what else [])
    assert all(what in finding.what for finding in found)
    assert list(judge_cloud.arns([arn], judge_cloud.Place())) == [], "where this instance is, is not known"


@pytest.mark.parametrize("judge", [judge_host.tools, judge_host.written, judge_host.clock, judge_host.hooks])
def test_an_unknown_part_of_this_host_is_not_judged(judge: Callable[[Unknown], Iterator[Finding]]):
    assert list(judge(Unknown("cut off"))) == []


def test_keepalived_config_names_the_first_line_that_differs():
    found = list(judge_host.keepalived("a", replace(GOOD, config="x\n  y\n", wanted="x\n  z\n")))
    assert "keepalived.conf:2 says 'y', awsha would write 'z'" in found[0].what
    assert "awsha keepalived --node a" in found[0].hint


def test_published_tags_are_read_back_and_nothing_else_is():
    assert Published.parse(str(HERE)) == HERE
    assert [Published.parse(text) for text in (None, "", "hello world", "0123456789abcdef", "0123456789ABCDEF 1")] == [
        None
    ] * 5


def test_a_fingerprint_ignores_layout_but_not_order():
    one = {"node": [{"name": "a"}, {"name": "b"}], "region": "x"}
    assert fingerprint(one) == fingerprint({"region": "x", "node": [{"name": "a"}, {"name": "b"}]})
    assert fingerprint(one) != fingerprint({"region": "x", "node": [{"name": "b"}, {"name": "a"}]})


# --- the catalogue ---------------------------------------------------------------------------------------------


def test_every_code_is_in_the_catalogue_in_order():
    assert list(CATALOGUE) == list(Code)
    for entry in CATALOGUE.values():
        assert entry.title
        assert entry.why
        assert entry.hint


def test_findings_are_ordered_and_told_once():
    first, second = Finding(Code.REGION, "x"), Finding(Code.AGENT_DOWN, "y")
    assert ordered([second, first, second]) == [first, second]


def test_the_documentation_is_the_catalogue():
    text = (ROOT / "docs" / "check.md").read_text(encoding="utf-8")
    assert text.endswith(reference()), "docs/check.md: replace what follows `## Findings` by catalogue.reference()"
    for action, uses in USES.items():
        row = f"| `{action}` | {', '.join(sorted(uses))} | {PURPOSES[action]} |"
        assert row in text, row
