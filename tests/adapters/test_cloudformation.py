"""conf/cloudformation/awsha-pair.yaml: resolved, and held against what `awsha check` demands; then made by moto."""

from __future__ import annotations

import copy
import json
import os
import shutil
import subprocess
import sys
import threading
import tomllib
from collections.abc import Callable
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from awsha.aws.ec2 import Ec2
from awsha.aws.permissions import Scope, document, may_fence
from awsha.config.load import load
from awsha.core.cloudfacts import Cloud, Ebs, Instance, Interface, Rule, SecurityGroup
from awsha.core.findings import Code
from awsha.core.judge_cloud import judge
from awsha.core.policy import Policy
from tests.adapters import cfn
from tests.adapters.aws_lab import VOLUME, A, B, running_servers

ROOT = Path(__file__).parents[2]
FILE = ROOT / "conf/cloudformation/awsha-pair.yaml"
TEMPLATE = cfn.load(FILE)
WHEEL = "https://example.com/awsha-0.1.0-py3-none-any.whl?X-Signature=0%2F1&b=(c)"
KEY = "arn:aws:kms:eu-west-1:123456789012:key/0a1b2c3d-1111-2222-3333-0123456789ab"
GIVEN = {
    "VpcId": "vpc-0123456789abcdef0",
    "SubnetId": "subnet-0123456789abcdef0",
    "Vip": "172.31.5.100",
    "AddressA": "172.31.5.10",
    "AddressB": "",
}
DIFFERENT = {
    **GIVEN,
    "Fence": "force-detach",
    "KmsKeyArn": KEY,
    "RouterId": 7,
    "MountPoint": "/srv/db-1",
    "FileSystem": "xfs",
    "ClientCidr": "10.0.0.0/8",
    "AdminCidr": "192.0.2.0/24",
    "KeyName": "ops",
    "SnapshotId": "snap-0123456789abcdef0",
    "MetadataHopLimit": 2,
}
STACKS = {"defaults": {}, "given": GIVEN, "different": DIFFERENT}


def stack(template: dict[str, Any] = TEMPLATE, **parameters: Any) -> cfn.Stack:
    """The template with parameters, and what EC2 would tell of it."""
    made = cfn.Stack(template, {"AwshaPackage": WHEEL, **parameters})
    for name, chosen in (("InterfaceA", "172.31.5.20"), ("InterfaceB", "172.31.5.21")):
        address = made.properties(name).get("PrivateIpAddress", chosen)
        made.attributes[name, "PrimaryPrivateIpAddress"] = address
    for name in ("NodeA", "NodeB"):
        made.attributes[name, "AvailabilityZone"] = zone(made, subnet_of(made, name))
    return made


@pytest.fixture(params=STACKS)
def made(request: pytest.FixtureRequest) -> cfn.Stack:
    return stack(**STACKS[request.param])


def subnet_of(made: cfn.Stack, node: str) -> str:
    [face] = made.template["Resources"][node]["Properties"]["NetworkInterfaces"]
    subnet: str = made.properties(face["NetworkInterfaceId"]["Ref"])["SubnetId"]
    return subnet


def zone(made: cfn.Stack, subnet: str) -> str:
    return next((p["AvailabilityZone"] for n, p in made.of_type("EC2::Subnet").items() if made.ids[n] == subnet), "z")


def tags(properties: dict[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in properties["Tags"]}


def script(made: cfn.Stack) -> str:
    text: str = made.properties("FirstBoot")["LaunchTemplateData"]["UserData"]
    return text


def bash(made: cfn.Stack, folder: Path, commands: str) -> subprocess.CompletedProcess[str]:
    """Commands behind the functions of the first boot's script."""
    file = folder / "first-boot"
    file.write_text(script(made))
    argv = ["bash", "-c", f'source "{file}"; trap - ERR; {commands}']
    own = {**os.environ, "TMPDIR": str(folder)}
    return subprocess.run(argv, cwd=folder, env=own, capture_output=True, text=True, check=False, timeout=60)


def written(made: cfn.Stack, folder: Path) -> Policy:
    """The awsha.toml that the first boot writes, loaded."""
    done = bash(made, folder, "write_config etc")
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    file = folder / "etc/awsha.toml"
    assert file.stat().st_mode & 0o777 == 0o600
    return load(file)


# --- what `awsha check` would say ------------------------------------------------------------------------------


def policy_of(made: cfn.Stack, folder: Path) -> Policy:
    """awsha.toml with the volume found by its tags, as awsha does."""
    policy = written(made, folder)
    [group] = policy.groups
    [volume] = group.volumes
    assert dict(volume.tags).items() <= tags(made.properties("DataVolume")).items()
    return replace(policy, groups=(replace(group, volumes=(replace(volume, id=made.ids["DataVolume"]),)),))


def cloud_of(made: cfn.Stack) -> Cloud:
    """What EC2 would tell of the stack."""
    subnets = {made.ids[n]: p["CidrBlock"] for n, p in made.of_type("EC2::Subnet").items()} or {
        made.parameters["SubnetId"]: "172.31.0.0/20"
    }
    volume = made.properties("DataVolume")
    return Cloud(
        nodes={name[-1].lower(): (instance(made, name),) for name in ("NodeA", "NodeB")},
        volumes={
            made.ids["DataVolume"]: Ebs(
                made.ids["DataVolume"],
                "available",
                volume["AvailabilityZone"],
                volume["VolumeType"],
                volume["MultiAttachEnabled"],
            )
        },
        holders=(),
        subnets=subnets,
        groups={made.ids[n]: security_group(made, n) for n in made.of_type("EC2::SecurityGroup")},
        quotas={made.parameters["InstanceType"]: 4},
    )


def instance(made: cfn.Stack, name: str) -> Instance:
    face = f"Interface{name[-1]}"
    properties, address = made.properties(face), made.attributes[face, "PrimaryPrivateIpAddress"]
    options = made.properties("FirstBoot")["LaunchTemplateData"]["MetadataOptions"]
    [own] = made.properties(name)["NetworkInterfaces"]
    assert own == {"DeviceIndex": "0", "NetworkInterfaceId": made.ids[face]}
    return Instance(
        made.ids[name],
        "running",
        made.properties(name)["InstanceType"],
        made.attributes[name, "AvailabilityZone"],
        properties["SubnetId"],
        address,
        (
            Interface(
                made.ids[face], "", address, frozenset(), frozenset(properties["GroupSet"]), properties["SubnetId"]
            ),
        ),
        tags(made.properties(name)),
        options["HttpEndpoint"] == "enabled",
        options["HttpPutResponseHopLimit"],
    )


def security_group(made: cfn.Stack, name: str) -> SecurityGroup:
    """The group with its own rules and those that stand by themselves."""

    def rules(way: str) -> tuple[Rule, ...]:
        found = list(made.properties(name).get(f"SecurityGroup{way}", []))
        apart = made.of_type(f"EC2::SecurityGroup{way}").values()
        found += [rule for rule in apart if rule["GroupId"] == made.ids[name]]
        return tuple(rule_of(rule) for rule in found)

    return SecurityGroup(made.ids[name], rules("Ingress"), rules("Egress"))


def rule_of(rule: dict[str, Any]) -> Rule:
    groups = (rule.get("SourceSecurityGroupId"), rule.get("DestinationSecurityGroupId"))
    networks = tuple(rule[key] for key in ("CidrIp",) if key in rule)
    return Rule(rule["IpProtocol"], rule.get("FromPort"), networks, tuple(g for g in groups if g))


def test_awsha_check_finds_nothing_in_the_stack(made: cfn.Stack, tmp_path: Path):
    assert judge(policy_of(made, tmp_path), cloud_of(made)) == []


def change(name: str, key: str, value: Any) -> Callable[[dict[str, Any]], None]:
    return lambda template: template["Resources"][name]["Properties"].update({key: value})


def without(name: str) -> Callable[[dict[str, Any]], None]:
    return lambda template: template["Resources"].pop(name)


def metadata_off(template: dict[str, Any]) -> None:
    data = template["Resources"]["FirstBoot"]["Properties"]["LaunchTemplateData"]
    data["MetadataOptions"]["HttpEndpoint"] = "disabled"


DEFECTS: dict[str, tuple[Callable[[dict[str, Any]], None], Code]] = {
    "no VRRP in": (without("VrrpIn"), Code.VRRP_BLOCKED),
    "no VRRP out": (without("VrrpOut"), Code.VRRP_BLOCKED),
    "another protocol in": (change("VrrpIn", "IpProtocol", "tcp"), Code.VRRP_BLOCKED),
    "another protocol out": (change("VrrpOut", "IpProtocol", "51"), Code.VRRP_BLOCKED),
    "no ICMP in": (without("IcmpIn"), Code.ICMP_BLOCKED),
    "no ICMP out": (without("IcmpOut"), Code.ICMP_BLOCKED),
    "ICMP of another type": (change("IcmpOut", "FromPort", 3), Code.ICMP_BLOCKED),
    "Multi-Attach": (change("DataVolume", "MultiAttachEnabled", True), Code.MULTI_ATTACH),
    "a slow volume": (change("DataVolume", "VolumeType", "sc1"), Code.VOLUME_TYPE),
    "a volume elsewhere": (change("DataVolume", "AvailabilityZone", "eu-west-1b"), Code.ZONE),
    "a node elsewhere": (change("InterfaceB", "SubnetId", "subnet-2"), Code.SUBNET),
    "no metadata": (metadata_off, Code.METADATA_OFF),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_in_the_template_would_be_seen(name: str, tmp_path: Path):
    edit, code = DEFECTS[name]
    template = copy.deepcopy(TEMPLATE)
    edit(template)
    broken = stack(template)
    assert code in {finding.code for finding in judge(policy_of(broken, tmp_path), cloud_of(broken))}


# --- the template ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("fence", TEMPLATE["Parameters"]["Fence"]["AllowedValues"])
@pytest.mark.parametrize("key", ["", KEY])
def test_the_policy_is_what_awsha_iam_policy_prints_for_this_pair(fence: str, key: str, tmp_path: Path):
    made = stack(Fence=fence, KmsKeyArn=key)
    scope = Scope(
        volumes=(made.ids["DataVolume"],),
        instances=(made.ids["NodeA"], made.ids["NodeB"]),
        interfaces=(made.ids["InterfaceA"], made.ids["InterfaceB"]),
        fence=may_fence(written(made, tmp_path)),
        region="eu-west-1",
        account=cfn.PSEUDO["AWS::AccountId"],
        keys=(key,) if key else (),
    )
    assert made.properties("NodePolicy")["PolicyDocument"] == document(scope)
    role = made.properties("NodeRole")
    assert "Policies" not in role
    assert "ManagedPolicyArns" not in role, "nothing besides it"
    assert made.properties("NodePolicy")["Roles"] == made.properties("NodeProfile")["Roles"] == [made.ids["NodeRole"]]


def test_instance_metadata_is_version_2_with_few_hops(made: cfn.Stack):
    data = made.properties("FirstBoot")["LaunchTemplateData"]
    assert data["MetadataOptions"]["HttpTokens"] == "required"
    assert data["MetadataOptions"]["HttpPutResponseHopLimit"] == made.parameters["MetadataHopLimit"] <= 2
    for name in ("NodeA", "NodeB"):
        properties = made.properties(name)
        assert properties["LaunchTemplate"]["LaunchTemplateId"] == made.ids["FirstBoot"]
        assert properties["IamInstanceProfile"] == made.ids["NodeProfile"]


def test_the_data_outlives_everything(made: cfn.Stack):
    """Neither the stack nor an instance deletes it: awsha attaches it, so its DeleteOnTermination is false."""
    volume = made.resources["DataVolume"]
    assert volume["DeletionPolicy"] == volume["UpdateReplacePolicy"] == "Retain"
    assert made.properties("DataVolume")["Encrypted"] is True
    assert made.properties("DataVolume")["VolumeType"] == "gp3"
    assert not made.of_type("EC2::VolumeAttachment")
    for name in ("NodeA", "NodeB"):
        assert not made.properties(name).keys() & {"Volumes", "BlockDeviceMappings"}
    assert "BlockDeviceMappings" not in made.properties("FirstBoot")["LaunchTemplateData"]


def test_the_nodes_are_on_different_racks_of_one_zone(made: cfn.Stack):
    assert made.properties("Apart") == {"Strategy": "spread"}
    assert {made.properties(n)["PlacementGroupName"] for n in ("NodeA", "NodeB")} == {made.ids["Apart"]}
    assert subnet_of(made, "NodeA") == subnet_of(made, "NodeB")


def test_nodes_and_volume_carry_the_tags_they_are_found_by(made: cfn.Stack):
    pair = "pair-0a1b2c3d"  # another stack of this name, after this one, finds its own volume
    for name, letter in (("NodeA", "a"), ("NodeB", "b")):
        assert tags(made.properties(name)) == {"Name": f"pair-{letter}", "awsha:node": letter, "awsha:pair": pair}
    vip = made.parameters["Vip"]
    assert tags(made.properties("DataVolume")) == {"Name": "pair-data", "awsha:pair": pair, "awsha:vip": vip}


def test_with_a_network_given_none_is_made():
    made = stack(**GIVEN)
    kinds = {resource["Type"] for resource in made.resources.values()}
    assert not kinds & {f"AWS::EC2::{kind}" for kind in ("VPC", "Subnet", "Route", "InternetGateway", "EIP")}
    assert made.properties("NodeSecurityGroup")["VpcId"] == GIVEN["VpcId"]
    assert made.resolve(TEMPLATE["Outputs"]["AddressA"]["Value"]) == GIVEN["AddressA"]


def test_nothing_is_open_that_was_not_asked_for(made: cfn.Stack):
    rules = made.of_type("EC2::SecurityGroupIngress")
    outside = {name: rule["CidrIp"] for name, rule in rules.items() if "CidrIp" in rule}
    asked = {"ClientsIn": made.parameters["ClientCidr"], "AdminsIn": made.parameters["AdminCidr"]}
    assert outside == {name: network for name, network in asked.items() if network}


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"VpcId": GIVEN["VpcId"], **{k: GIVEN[k] for k in ("Vip", "AddressA", "AddressB")}}, "SubnetId is needed"),
        ({"SubnetId": GIVEN["SubnetId"]}, "VpcId is needed"),
        ({**GIVEN, "Vip": "10.51.0.100"}, "choose Vip"),
        ({**GIVEN, "AddressB": "10.51.0.11"}, "choose Vip"),
    ],
)
def test_half_a_network_is_refused(parameters: dict[str, Any], said: str):
    assert any(said in text for text in cfn.Stack(TEMPLATE, {"AwshaPackage": WHEEL, **parameters}).broken_rules())
    assert not stack(**GIVEN).broken_rules()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("AwshaPackage", "http://example.com/awsha.whl"),
        ("AwshaPackage", "https://example.com/awsha.whl'; reboot; '"),
        ("AwshaPackage", ""),
        ("Vip", "10.51.0.100/24"),
        ("MountPoint", "srv/data"),
        ("MountPoint", '/srv/"data'),
        ("RouterId", 256),
        ("MetadataHopLimit", 64),
        ("Fence", "reboot"),
    ],
)
def test_a_parameter_that_cannot_be_is_refused(name: str, value: Any):
    with pytest.raises(ValueError, match=name):
        stack(**{name: value})


def test_what_to_install_has_no_default_while_there_is_no_release():
    assert "Default" not in TEMPLATE["Parameters"]["AwshaPackage"]


def test_no_id_is_written_in_the_template():
    defaults = {n: str(p.get("Default", "")) for n, p in TEMPLATE["Parameters"].items()}
    assert not [n for n, text in defaults.items() if text.startswith(("ami-", "vpc-", "subnet-", "sg-", "i-", "vol-"))]
    assert cfn.PSEUDO["AWS::AccountId"] not in FILE.read_text()


# --- the first boot --------------------------------------------------------------------------------------------


def test_the_config_says_what_the_parameters_say(made: cfn.Stack, tmp_path: Path):
    policy = written(made, tmp_path)
    [group] = policy.groups
    assert policy.region == "eu-west-1"
    assert [n.name for n in policy.nodes] == ["a", "b"]
    assert [n.address for n in policy.nodes] == [
        made.attributes[f"Interface{x}", "PrimaryPrivateIpAddress"] for x in "AB"
    ]
    assert group.vips == (made.parameters["Vip"],)
    assert group.virtual_router_id == made.parameters["RouterId"]
    assert group.fence == made.parameters["Fence"]
    assert [v.mount for v in group.volumes] == [made.parameters["MountPoint"]]


def test_the_template_can_be_deployed_without_a_bucket():
    """As docs/cloudformation.md does it: CloudFormation takes no more than this in the request itself."""
    assert FILE.stat().st_size <= 51200


def test_a_shell_accepts_the_script(made: cfn.Stack, tmp_path: Path):
    file = tmp_path / "first-boot"
    file.write_text(script(made))
    assert len(script(made)) < 16384, "EC2's limit for user data"
    assert script(made).startswith("#!/bin/bash\n")
    subprocess.run(["bash", "-n", str(file)], check=True)
    if shutil.which("shellcheck") is None and os.environ.get("CI") != "true":
        pytest.skip("shellcheck is not installed")
    done = subprocess.run(["shellcheck", str(file)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_a_node_knows_itself_by_its_address(made: cfn.Stack, tmp_path: Path):
    own = made.attributes["InterfaceB", "PrimaryPrivateIpAddress"]
    assert bash(made, tmp_path, f'node_of "{own} 172.17.0.1"').stdout == "b\n"
    assert bash(made, tmp_path, 'node_of "192.0.2.1"').returncode != 0


def test_what_is_waited_for_too_long_ends_it(tmp_path: Path):
    done = bash(stack(), tmp_path, "wait_for 0 false && echo there")
    assert done.stdout == ""
    assert "waited too long for: false" in done.stderr


GIB = 1 << 30
PROGRAMS = 'PATH="$PATH:/usr/sbin:/sbin"; '
NEVER = "sleep() { echo slept; }; "  # whoever waits is noticed


def a_gibibyte(folder: Path, *written: tuple[int, bytes]) -> Path:
    """A sparse file with some bytes in it."""
    disk = folder / "disk"
    with disk.open("wb") as file:
        file.truncate(GIB)
        for place, data in written:
            file.seek(place)
            file.write(data)
    return disk


def with_disk(disk: Path, answer: str = "vol-1") -> str:
    """A file in the place of the volume's device; `answer`: of EC2."""
    return (
        f'{PROGRAMS}ec2() {{ echo "{answer}"; }}; device_of() {{ echo "{disk}"; }}; device_is_there() {{ true; }}; '
        'blockdev() { stat --format=%s "$2"; }; lsblk() { echo disk; }; '
        "mkfs.ext4() { echo FORMATTED; }; "
    )


def test_a_file_system_is_made_on_nothing(tmp_path: Path):
    disk = a_gibibyte(tmp_path)
    done = bash(stack(VolumeSize=1), tmp_path, with_disk(disk) + "make_file_system")
    assert (done.returncode, done.stdout) == (0, "FORMATTED\n"), done.stderr


END = GIB - 1
KEPT: dict[str, tuple[tuple[tuple[int, bytes], ...], str, dict[str, Any], str]] = {
    "a byte at the start": (((0, b"x"),), "", {}, "holds data"),
    "a byte behind the first spare superblock": (((128 << 20, b"x"),), "", {}, "holds data"),
    "a byte at the end": (((END, b"x"),), "", {}, "holds data"),
    "a snapshot of the stack": ((), "", {"SnapshotId": DIFFERENT["SnapshotId"]}, "comes from snapshot"),
    "a snapshot by EC2": ((), "ec2() { echo vol-1 snap-1; }; ", {}, "comes from snapshot snap-1"),
    "another size": ((), "", {"VolumeSize": 2}, "VolumeSize is 2 GiB"),
    "partitions": ((), "lsblk() { echo disk; echo disk1; }; ", {}, "has partitions"),
    "mounted": ((), "lsblk() { echo disk /mnt; }; ", {}, "is mounted"),
    "ambivalent": ((), "blkid() { return 8; }; ", {}, "exit code 8"),
    "a blkid that fails": ((), "blkid() { return 4; }; ", {}, "exit code 4"),
    "a device that can't be read": ((), 'cmp() { command cmp "$1" /nothing "$3"; }; ', {}, "can't be read"),
    "gone meanwhile": ((), "is_empty() { ec2() { echo; }; }; ", {}, "gone elsewhere"),
}


@pytest.mark.parametrize("name", KEPT)
def test_what_is_not_proven_to_be_empty_is_left_alone_and_the_stack_is_told(name: str, tmp_path: Path):
    """blkid says 2 of what it can't read, too: it alone proves nothing."""
    written, fake, parameters, said = KEPT[name]
    disk = a_gibibyte(tmp_path, *written)
    fakes = f"{NEVER}{with_disk(disk)}{fake}"
    done = bash(stack(**{"VolumeSize": 1, **parameters}), tmp_path, f"{fakes}make_file_system || exit $?")
    assert done.returncode != 0, "also where set -e does not hold"
    assert "FORMATTED" not in done.stdout
    assert "slept" not in done.stdout
    assert said in done.stderr


def test_a_device_that_is_missing_is_not_formatted(tmp_path: Path):
    done = bash(stack(VolumeSize=1), tmp_path, with_disk(tmp_path / "missing") + "make_file_system")
    assert done.returncode != 0
    assert "FORMATTED" not in done.stdout


@pytest.mark.root
@pytest.mark.usefixtures("as_root")
@pytest.mark.parametrize("kind", ["ext4", "xfs"])
def test_a_file_system_is_made_once_on_a_real_device(kind: str, tmp_path: Path):
    if not Path("/dev/loop-control").exists():
        pytest.skip("there are no loop devices here")
    if shutil.which(f"mkfs.{kind}", path=os.environ["PATH"] + ":/usr/sbin:/sbin") is None:
        pytest.skip(f"mkfs.{kind} is not installed")
    attach = ["losetup", "--find", "--show", str(a_gibibyte(tmp_path))]
    device = subprocess.run(attach, capture_output=True, text=True, check=True).stdout.strip()
    try:
        here = f'{PROGRAMS}ec2() {{ echo vol-1; }}; device_of() {{ echo "{device}"; }}; make_file_system; '
        seen = f"blkid --probe -o value -s TYPE -s UUID {device}"
        first = bash(stack(FileSystem=kind, VolumeSize=1), tmp_path, here + seen)
        assert kind in first.stdout.split(), first.stderr
        other = "ext4" if kind == "xfs" else "xfs"
        again = bash(stack(FileSystem=other, VolumeSize=1), tmp_path, here + seen)
        assert again.stdout.split()[-2:] == first.stdout.split()[-2:]
        assert "is not empty" in again.stdout
    finally:
        subprocess.run(["losetup", "--detach", device], check=True)


# --- what no waiting heals ---


AWSHA = """
awsha() {
    echo "$*" >>asked
    [ "$(wc -l <asked)" -gt "$FINE_AFTER" ] && return 0
    echo "awsha: the configuration has a problem" >&2
    return "$CODE"
}
"""


@pytest.mark.parametrize("code", [78, 126, 127])
def test_what_no_waiting_heals_ends_the_first_boot_at_once(code: int, tmp_path: Path):
    fakes = f"{NEVER}{AWSHA}CODE={code}; FINE_AFTER=9; "
    done = bash(stack(), tmp_path, f"{fakes}wait_for 1200 permitted")
    assert (tmp_path / "asked").read_text() == "iam-policy\n"
    assert "slept" not in done.stdout
    assert "the configuration has a problem" in done.stderr
    assert f"no waiting heals this (exit code {code})" in done.stderr
    assert done.returncode == code


def test_what_waiting_heals_is_waited_for_and_forgotten(tmp_path: Path):
    fakes = f"{NEVER}{AWSHA}CODE=1; FINE_AFTER=2; "
    done = bash(stack(), tmp_path, f'{fakes}wait_for 1200 permitted; echo "$?"; cat "$WHY"')
    assert done.stdout.splitlines() == ["slept", "slept", "0"]


def test_a_mistake_in_the_configuration_is_found_before_ec2_is_asked(tmp_path: Path):
    fakes = f"{STEPS}valid() {{ return 78; }}; OWN=10.51.0.10; "
    done = bash(stack(), tmp_path, fakes + "main")
    assert done.returncode != 0
    assert done.stdout.splitlines() == ["install", "config /etc/awsha", "tell FAILURE"]


@pytest.mark.parametrize(
    ("network", "vip", "said"),
    [
        ("10.51.0.10/24", "10.51.0.100", ""),
        ("10.51.0.10/16", "10.51.200.1", ""),
        ("10.51.0.10/24", "10.52.0.100", "is not in 10.51.0.0/24"),
        ("10.51.0.10/28", "10.51.0.100", "is not in 10.51.0.0/28"),
        ("10.51.0.10/24", "10.51.0.255", "keeps for itself"),
        ("10.51.0.10/24", "10.51.0.3", "keeps for itself"),
        ("10.51.0.10/24", "10.51.0.11", "primary address of a node"),
        ("10.51.0.10/24", "10.51.0.999", "999"),
    ],
)
def test_a_vip_that_ec2_would_not_assign_ends_the_first_boot_at_once(network: str, vip: str, said: str, tmp_path: Path):
    done = bash(stack(Vip=vip), tmp_path, f"vip_fits {network}")
    assert (done.returncode, said in done.stderr) == (78 if said else 0, True), done.stderr


def test_a_node_sees_its_network_by_its_own_address(tmp_path: Path):
    shown = "1: lo    inet 127.0.0.1/8 scope host lo\\n2: ens5    inet 10.51.0.11/20 metric 100 brd 10.51.15.255 scope"
    done = bash(stack(), tmp_path, f"ip() {{ printf '{shown}\\n'; }}; own_network")
    assert done.stdout == "10.51.0.11/20\n"


def test_no_file_system_is_made_on_a_volume_that_the_peer_holds(tmp_path: Path):
    done = bash(stack(), tmp_path, "ec2() { :; }; device_of() { echo never >&2; }; make_file_system")
    assert (done.returncode, done.stderr) == (0, "")


def test_node_a_takes_the_volume_and_tells_the_peer_when_it_has_begun(monkeypatch: pytest.MonkeyPatch):
    """The Python part, against EC2 as the lab plays it."""
    text = script(stack())
    program = text.split("\"$ADDRESS_A\" <<'END'\n")[1].split("\nEND\n")[0]

    def run(task: str) -> subprocess.CompletedProcess[str]:
        argv = [sys.executable, "-", task, "eu-west-1", "pair-1", "10.0.0.10"]
        return subprocess.run(argv, input=program, capture_output=True, text=True, check=False, timeout=60)

    with running_servers() as servers:
        lab = servers.fresh(monkeypatch)
        assert "node a is not there yet" in run("volume").stderr
        ec2 = Ec2("eu-west-1")
        ec2.ask("CreateTags", {"Resources": [A, VOLUME], "Tags": [{"Key": "awsha:pair", "Value": "pair-1"}]})
        first = run("volume").stdout
        assert (first, run("volume").stdout) == (f"{VOLUME} \n", f"{VOLUME} \n"), "once more is the same"
        assert lab.truth()[1] == A
        assert run("begun").returncode == 1
        ec2.ask("CreateTags", {"Resources": [A], "Tags": [{"Key": "awsha:config", "Value": "x"}]})
        assert run("begun").returncode == 0
        ec2.detach(VOLUME, A)
        ec2.attach(VOLUME, B, "/dev/sdf")
        done = run("volume")
        assert (done.returncode, done.stdout) == (0, "")
        ec2.close()


STEPS = """
hostname() { echo "$OWN"; }
own_network() { echo "$OWN/24"; }
valid() { echo valid; }
install_programs() { echo install; }
write_config() { echo "config $1"; }
permitted() { echo permitted; }
make_file_system() { echo format; }
peer_has_begun() { echo begun; }
awsha() { echo "awsha 1"; }
tell() { echo "tell $1"; }
start() { echo "start $1"; }
"""


@pytest.mark.parametrize(("own", "between"), [("10.51.0.10", "format"), ("10.51.0.11", "begun")])
def test_the_first_boot_goes_step_by_step(own: str, between: str, tmp_path: Path):
    done = bash(stack(), tmp_path, f"{STEPS} OWN={own}; main")
    letter = "a" if between == "format" else "b"
    steps = ["install", "config /etc/awsha", "valid", "permitted", between, f"start {letter}", "tell SUCCESS"]
    assert done.stdout.splitlines() == steps


@pytest.mark.parametrize("step", ["install_programs", "make_file_system", "start"])
def test_a_step_that_fails_ends_it_and_is_told(step: str, tmp_path: Path):
    done = bash(stack(), tmp_path, f"{STEPS} OWN=10.51.0.10; {step}() {{ false; }}; main")
    assert done.returncode != 0
    assert done.stdout.splitlines()[-1] == "tell FAILURE"
    assert "tell SUCCESS" not in done.stdout


def test_the_stack_is_told_why_in_the_way_that_s3_wants_it(tmp_path: Path):
    """Run as cloud-init runs it, on a host that is none of the nodes."""
    told: list[tuple[str | None, dict[str, str]]] = []

    class Handle(BaseHTTPRequestHandler):
        def do_PUT(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            told.append((self.headers["Content-Type"], json.loads(body)))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    made = stack(AddressA="192.0.2.10", AddressB="192.0.2.11", Vip="192.0.2.100")
    with ThreadingHTTPServer(("127.0.0.1", 0), Handle) as server:
        made.ids["ReadyHandle"] = f"http://127.0.0.1:{server.server_port}/handle?Signature=a%2Fb&x=1"
        file = tmp_path / "part-001"
        file.write_text(script(made))
        file.chmod(0o700)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        own = {**os.environ, "TMPDIR": str(tmp_path)}
        done = subprocess.run(
            [str(file)], cwd=tmp_path, env=own, capture_output=True, text=True, check=False, timeout=60
        )
        server.shutdown()
    assert done.returncode != 0
    assert "no node has one of the addresses" in done.stderr
    assert told
    for content_type, message in told:
        assert not content_type
        assert message.keys() == {"Status", "Reason", "UniqueId", "Data"}
        assert message["Status"] == "FAILURE"
        assert "cloud-init-output.log" in message["Reason"]


def test_the_units_are_those_of_this_tree():
    """They come with the wheel; the script takes them from where pip puts them."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    data = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    text = script(stack())
    for source, target in data.items():
        assert (ROOT / source).is_file()
        assert f"/opt/awsha/{target}" in text
    assert {Path(source).suffix for source in data} == {".service", ".conf"}
    assert "/usr/bin/awsha agent" in (ROOT / "systemd/awsha-agent.service").read_text()
    assert "ln -sf /opt/awsha/bin/awsha /usr/bin/awsha" in text


# --- moto ------------------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:Tried to parse")
def test_moto_makes_the_stack(monkeypatch: pytest.MonkeyPatch):
    """What moto can play. It has no egress rules and placement groups in stacks, and drops an instance's interfaces."""
    for name in ("AWS_ENDPOINT_URL", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    boto3, moto = pytest.importorskip("boto3"), pytest.importorskip("moto")
    with moto.mock_aws():
        ec2, ssm = boto3.client("ec2", "eu-west-1"), boto3.client("ssm", "eu-west-1")
        image = ec2.describe_images(Owners=["amazon"])["Images"][0]["ImageId"]
        ssm.put_parameter(Name="/images/node", Type="String", Value=image)
        formation = boto3.client("cloudformation", "eu-west-1")
        given = {"AwshaPackage": WHEEL, "ClientCidr": "10.0.0.0/8", "KmsKeyArn": KEY}  # moto keeps a NoValue in a list
        formation.create_stack(
            StackName="pair",
            TemplateBody=_for_moto(FILE.read_text()),
            Parameters=[{"ParameterKey": k, "ParameterValue": v} for k, v in given.items()],
            Capabilities=["CAPABILITY_IAM"],
        )
        [made] = formation.describe_stacks(StackName="pair")["Stacks"]
        assert made["StackStatus"] == "CREATE_COMPLETE"
        outputs = {item["OutputKey"]: item["OutputValue"] for item in made["Outputs"]}
        _look_at(ec2, boto3.client("iam", "eu-west-1"), outputs)


def _for_moto(text: str) -> str:
    """With an image that moto has, and with the ports that it wants of every protocol (EC2 ignores them for 112)."""
    text = text.replace(TEMPLATE["Parameters"]["ImageA"]["Default"], "/images/node")
    vrrp = '      IpProtocol: "112"\n'
    assert text.count(vrrp) == 2
    return text.replace(vrrp, vrrp + "      FromPort: -1\n      ToPort: -1\n")


def _look_at(ec2: Any, iam: Any, outputs: dict[str, str]) -> None:
    [group] = ec2.describe_security_groups(GroupIds=[outputs["SecurityGroup"]])["SecurityGroups"]
    own = outputs["SecurityGroup"]
    passed = {r["IpProtocol"] for r in group["IpPermissions"] if own in [g["GroupId"] for g in r["UserIdGroupPairs"]]}
    assert passed == {"112", "icmp"}
    assert (outputs["AddressA"], outputs["AddressB"], outputs["Vip"]) == ("10.51.0.10", "10.51.0.11", "10.51.0.100")
    nodes = ec2.describe_instances(InstanceIds=[outputs["NodeA"], outputs["NodeB"]])["Reservations"]
    pairs = {tag["Value"] for r in nodes for tag in r["Instances"][0]["Tags"] if tag["Key"] == "awsha:pair"}
    assert pairs == {outputs["Pair"]}
    [volume] = ec2.describe_volumes(VolumeIds=[outputs["Volume"]])["Volumes"]
    assert volume["AvailabilityZone"] == nodes[0]["Instances"][0]["Placement"]["AvailabilityZone"]
    [attached] = iam.list_attached_role_policies(RoleName=outputs["Role"])["AttachedPolicies"]
    arn = attached["PolicyArn"]
    version = iam.get_policy(PolicyArn=arn)["Policy"]["DefaultVersionId"]
    text = str(iam.get_policy_version(PolicyArn=arn, VersionId=version)["PolicyVersion"]["Document"])
    for name in ("NodeA", "NodeB", "Volume"):
        assert outputs[name] in text
