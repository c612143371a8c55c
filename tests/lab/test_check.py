"""`awsha check` in the lab: nothing about a healthy pair, and for each defect its own finding and no other.

Three nodes are up, so that one of them can be a stranger to a configuration that leaves it out.
"""

from __future__ import annotations

import json
import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from awsha.aws.permissions import USES, Use, actions
from awsha.lab.control import ask
from awsha.lab.records import SECURITY_GROUP
from tests.lab.conftest import LabUnderTest

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.xdist_group("check")]  # one lab for nearly all of it
# What follows by itself when a node is shown another file than the one that runs everywhere.
OF_ANOTHER_FILE = {"agent-outdated", "peer-config", "keepalived-config"}


class Checked:
    """A lab in which one standby is looked at."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        self.holder = str(lab.holder())
        self.node, self.other = [name for name in lab.status()["nodes"] if name != self.holder]
        self.facts = lab.status()["nodes"]
        port = ask(lab.lab, {"do": "endpoint"})["port"]
        self.api = boto3.client(
            "ec2",
            endpoint_url=f"http://127.0.0.1:{port}",
            region_name="eu-west-1",
            aws_access_key_id="lab",
            aws_secret_access_key="lab",
            config=Config(retries={"total_max_attempts": 1}),
        )
        self.volume = next(iter(lab.status()["ec2"]["volumes"]))

    def instance(self, node: str) -> str:
        return str(self.facts[node]["instance_id"])

    def eni(self, node: str) -> str:
        found = self.api.describe_instances(InstanceIds=[self.instance(node)])
        return str(found["Reservations"][0]["Instances"][0]["NetworkInterfaces"][0]["NetworkInterfaceId"])

    def findings(self, config: str = "/etc/awsha/awsha.toml", node: str = "") -> list[dict[str, str]]:
        """The findings at a node; its exit code must tell whether there are any."""
        done = self.lab.exec(node or self.node, "awsha", "--config", config, "check", "--json", check=False)
        report = json.loads(done.stdout)
        assert done.returncode == (1 if report["findings"] else 0), done.stderr
        assert report["ok"] == (not report["findings"])
        assert all(
            finding[key] for finding in report["findings"] for key in ("code", "what", "why", "hint", "severity")
        )
        found: list[dict[str, str]] = report["findings"]
        return found

    def codes(self, config: str = "/etc/awsha/awsha.toml", node: str = "") -> set[str]:
        return {finding["code"] for finding in self.findings(config, node)}

    def folder(self, name: str) -> Path:
        """A node's /etc/awsha or /etc/keepalived, from outside."""
        return self.lab.lab.node_dir(self.node) / f"etc-{name}"

    def toml(self, change: Callable[[str], str]) -> str:
        """Another file beside awsha.toml; its path in the node."""
        text = (self.folder("awsha") / "awsha.toml").read_text()
        changed = change(text)
        assert changed != text
        (self.folder("awsha") / "other.toml").write_text(changed)
        return "/etc/awsha/other.toml"

    def run(self, script: str, node: str = "") -> None:
        self.lab.exec(node or self.node, "sh", "-euc", script)

    @contextmanager
    def script(self, plant: str, heal: str) -> Iterator[None]:
        """A defect by a script in the node."""
        try:
            self.run(plant)
            yield
        finally:
            self.run(heal)

    @contextmanager
    def control(self, plant: dict[str, Any], heal: dict[str, Any]) -> Iterator[None]:
        """A defect by the lab's daemon."""
        ask(self.lab.lab, plant)
        try:
            yield
        finally:
            ask(self.lab.lab, heal)

    def overlay(self, name: str, **values: Any) -> AbstractContextManager[None]:
        """Another property of a resource, as Describe shows it."""
        return self.control({"do": "overlay", "id": name, "values": values}, {"do": "overlay", "id": name})

    def covered(self, program: str, by: str) -> AbstractContextManager[None]:
        """Another program, or none (/dev/null cannot be run), in the place of one."""
        found = shutil.which(program, path=os.environ["PATH"] + ":/usr/sbin:/sbin")  # nodes have this machine's /usr
        assert found is not None
        real = Path(found).resolve()
        return self.script(f"mount --bind {by} {real}", f"umount {real}")


@pytest.fixture(scope="module")
def checked(shared_lab: LabUnderTest) -> Checked:
    shared_lab.warm = True
    shared_lab.up("--nodes", "3")
    found = Checked(shared_lab)
    shared_lab.wait_until(lambda: found.codes() == set(), 60, "a healthy lab has no finding")
    return found


def test_a_healthy_lab_has_no_finding_at_any_node(checked: Checked):
    for node in checked.facts:
        assert checked.findings(node=node) == []
    done = checked.lab.exec(checked.node, "awsha", "check")
    assert "nothing found" in done.stdout
    assert done.stderr == "", "without a terminal there is no progress line"


def test_a_lab_with_two_groups_several_volumes_and_xfs_has_no_finding(lab: LabUnderTest):
    lab.up("--groups", "2", "--volumes", "2", "--vips", "2", "--fstype", "xfs", "--fence", "force-detach")
    lab.wait_until(lambda: "nothing found" in lab.exec("b", "awsha", "check", check=False).stdout, 60)
    assert "nothing found" in lab.exec("a", "awsha", "check").stdout


# --- defects that are planted where they would be ----------------------------------------------------------------

Defect = Callable[[Checked], AbstractContextManager[None]]


@contextmanager
def full_interface(c: Checked) -> Iterator[None]:
    """Five other addresses: a t3.medium has room for six."""
    addresses = [f"10.0.0.{number}" for number in range(150, 155)]
    c.api.assign_private_ip_addresses(NetworkInterfaceId=c.eni(c.node), PrivateIpAddresses=addresses)
    try:
        yield
    finally:
        c.api.unassign_private_ip_addresses(NetworkInterfaceId=c.eni(c.node), PrivateIpAddresses=addresses)


def closed(protocol: str) -> Defect:
    """The security group without its rule for a protocol."""

    @contextmanager
    def plant(c: Checked) -> Iterator[None]:
        group = c.api.describe_security_groups(GroupIds=[SECURITY_GROUP])["SecurityGroups"][0]
        rule = next(rule for rule in group["IpPermissions"] if rule["IpProtocol"] == protocol)
        rule = {key: value for key, value in rule.items() if value}
        c.api.revoke_security_group_ingress(GroupId=SECURITY_GROUP, IpPermissions=[rule])
        try:
            yield
        finally:
            c.api.authorize_security_group_ingress(GroupId=SECURITY_GROUP, IpPermissions=[rule])

    return plant


@contextmanager
def edited(path: Path, change: Callable[[str], str]) -> Iterator[None]:
    text = path.read_text()
    path.write_text(change(text))
    try:
        yield
    finally:
        path.write_text(text)


@contextmanager
def stopped(c: Checked, kind: str) -> Iterator[None]:
    """A program of the node killed."""
    program = "agent" if kind == "agent-kill" else "keepalived"
    c.lab.fail(c.node, kind)
    c.lab.wait_until(lambda: c.lab.status()["nodes"][c.node][program] != "running", 10)
    try:
        yield
    finally:
        c.lab.heal(c.node)
        c.lab.wait_until(lambda: c.codes() == set(), 20, "it is healthy again")


@contextmanager
def tag(c: Checked, value: str | None) -> Iterator[None]:
    """The other standby's published configuration taken away, or replaced."""
    instance = c.instance(c.other)
    tags = c.api.describe_tags(Filters=[{"Name": "resource-id", "Values": [instance]}])["Tags"]
    real = next(tag["Value"] for tag in tags if tag["Key"] == "awsha:config")
    if value is None:
        c.api.delete_tags(Resources=[instance], Tags=[{"Key": "awsha:config"}])
    else:
        changed = value.replace("SAME", real.split()[0])
        c.api.create_tags(Resources=[instance], Tags=[{"Key": "awsha:config", "Value": changed}])
    try:
        yield
    finally:
        c.api.create_tags(Resources=[instance], Tags=[{"Key": "awsha:config", "Value": real}])


def fault(action: str, **values: Any) -> Defect:
    return lambda c: c.control({"do": "fault", "action": action, "times": 0, **values}, {"do": "clear_faults"})


def systemd(files: str) -> Callable[[Checked], AbstractContextManager[None]]:
    """An /etc/systemd of the node's own with some files."""
    return lambda c: c.script(
        f"mount -t tmpfs none /etc/systemd; mkdir -p /etc/systemd/system /etc/systemd/network; {files}",
        "umount /etc/systemd",
    )


HOOKS = "/etc/awsha/hooks/data"
OLD = "/etc/awsha/old-keepalived"
OLD_SCRIPT = "#!/bin/sh\\ncase $1 in --version) echo Keepalived v2.0.20 >&2;; esac\\n"
DEFECTS: dict[str, tuple[Defect, str]] = {
    "a read fails": (fault("DescribeSubnets", kind="error", code="InternalError"), "no-answer"),
    "metadata is refused": (fault("metadata", kind="error", code="403"), "metadata"),
    "metadata is silent": (fault("metadata", kind="black_hole"), "metadata-hop-limit"),
    "a peer's metadata is off": (
        lambda c: c.overlay(c.instance(c.other), MetadataOptions={"HttpEndpoint": "disabled"}),
        "metadata-off",
    ),
    "the clock is behind": (lambda c: c.control({"do": "clock", "ahead_s": 60}, {"do": "clock"}), "clock"),
    "a peer is stopped": (
        lambda c: c.overlay(c.instance(c.other), State={"Name": "stopped", "Code": 80}),
        "instance-state",
    ),
    "the volume is elsewhere": (lambda c: c.overlay(c.volume, AvailabilityZone="eu-west-1b"), "zone"),
    "the volume is slow": (lambda c: c.overlay(c.volume, VolumeType="sc1"), "volume-type"),
    "the volume is shared": (lambda c: c.overlay(c.volume, MultiAttachEnabled=True), "multi-attach"),
    "the volume dies with the instance": (
        lambda c: c.overlay(c.volume, DeleteOnTermination=True),
        "delete-on-termination",
    ),
    "no room for the VIP": (full_interface, "address-quota"),
    "VRRP is closed": (closed("112"), "vrrp-blocked"),
    "ICMP is closed": (closed("icmp"), "icmp-blocked"),
    "the mount point is taken": (
        lambda c: c.script("mkdir -p /srv/data; mount -t tmpfs none /srv/data", "umount /srv/data"),
        "mount-point-taken",
    ),
    "the mount point holds a file": (
        lambda c: c.script("mkdir -p /srv/data; touch /srv/data/stray", "rm /srv/data/stray"),
        "mount-point-not-empty",
    ),
    "fstab mounts it": (
        lambda c: c.script(
            "echo '/dev/xvdf /srv/data ext4 defaults 0 2' > /run/fstab; mount --bind /run/fstab /etc/fstab",
            "umount /etc/fstab",
        ),
        "fstab",
    ),
    "no fsck": (lambda c: c.covered("e2fsck", "/dev/null"), "tool-missing"),
    "a hook that others can write": (
        lambda c: c.script(
            f"mkdir -p {HOOKS}/after-mount.d; printf '#!/bin/sh' > {HOOKS}/after-mount.d/1; "
            f"chmod 757 {HOOKS}/after-mount.d/1",
            "rm -r /etc/awsha/hooks",
        ),
        "hook-unsafe",
    ),
    "a hook for no point": (
        lambda c: c.script(f"mkdir -p {HOOKS}/after-mounts.d", "rm -r /etc/awsha/hooks"),
        "hook-ignored",
    ),
    "net-utils": (systemd("touch /etc/systemd/system/refresh-policy-routes@.timer"), "net-utils"),
    "networkd gives the VIP": (
        systemd("printf '[Network]\\nAddress=10.0.0.100/24\\n' > /etc/systemd/network/10-eth0.network"),
        "vip-in-network-config",
    ),
    "no keepalived": (lambda c: c.covered("keepalived", "/dev/null"), "keepalived-missing"),
    "an old keepalived": (
        lambda c: _both(
            c.script(f"printf '{OLD_SCRIPT}' > {OLD}; chmod 755 {OLD}", f"rm {OLD}"), c.covered("keepalived", OLD)
        ),
        "keepalived-version",
    ),
    "keepalived.conf was edited": (
        lambda c: edited(c.folder("keepalived") / "keepalived.conf", lambda text: text + "\n# mine\n"),
        "keepalived-config",
    ),
    "keepalived.conf is a directory": (
        lambda c: c.script(
            "cd /etc/keepalived; mv keepalived.conf kept; mkdir keepalived.conf",
            "cd /etc/keepalived; rmdir keepalived.conf; mv kept keepalived.conf",
        ),
        "keepalived-config",
    ),
    "keepalived is dead": (lambda c: stopped(c, "kill"), "keepalived-down"),
    "the agent is dead": (lambda c: stopped(c, "agent-kill"), "agent-down"),
    "a peer has told nothing": (lambda c: tag(c, None), "peer-unpublished"),
    "a peer is older": (lambda c: tag(c, "SAME 0.0.1"), "peer-version"),
    "a peer has another file": (lambda c: tag(c, "0123456789abcdef VERSION"), "peer-config"),
}


@contextmanager
def _both(first: AbstractContextManager[None], second: AbstractContextManager[None]) -> Iterator[None]:
    with first, second:
        yield


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_gives_its_own_finding(name: str, checked: Checked):
    plant, code = DEFECTS[name]
    with plant(checked):
        found = checked.findings()
        codes = {finding["code"] for finding in found}
        if name == "a peer has another file":
            codes -= {"peer-version"}  # the tag's version is none
        assert codes == {code}, found


def test_a_file_that_keepalived_refuses(checked: Checked):
    conf = checked.folder("keepalived") / "keepalived.conf"
    with edited(conf, lambda text: text.replace("virtual_router_id 51", "virtual_router_id 510")):
        assert checked.codes() == {"keepalived-config", "keepalived-refuses"}


# --- defects of the file, shown to a node beside the one that runs -------------------------------------------------


def without_node(name: str) -> Callable[[str], str]:
    return lambda text: re.sub(rf'\[\[node\]\]\nname = "{name}"\naddress = "[^"]+"\n', "", text)


def replaced(old: str, new: str) -> Callable[[str], str]:
    return lambda text: re.sub(old, new, text)


UNIT = r"(?s)\[group\.application\].*?(\n\n|\Z)"
WITH_UNIT = '[group.application]\nunit = "awsha-lab-db.service"\n\n'
UNIT_FILE = "/etc/systemd/system/awsha-lab-db.service"
WRITE_UNIT = (
    f"printf '[Service]\\nExecStart=/bin/true\\n[Install]\\nWantedBy=multi-user.target\\n' > {UNIT_FILE}; "
    "mkdir -p /etc/systemd/system/multi-user.target.wants; "
)
FILES: dict[str, tuple[Callable[[Checked], Callable[[str], str]], str]] = {
    "not TOML": (lambda _: replaced(r"\[\[group\]\]", "[[group"), "config"),
    "an unknown key": (lambda _: replaced("vips =", "vip ="), "config"),
    "not a node": (lambda c: replaced(c.facts[c.node]["address"], "10.0.0.99"), "not-a-node"),
    "no such interface": (lambda _: replaced('interface = "eth0"', 'interface = "eth9"'), "not-a-node"),
    "another region": (lambda _: replaced("eu-west-1", "us-east-1"), "region"),
    "a peer that is not there": (lambda c: replaced(c.facts[c.other]["address"], "10.0.0.99"), "instance-unknown"),
    "a peer with another's id": (
        lambda c: replaced(
            rf'(address = "{c.facts[c.other]["address"]}")', rf'\1\ninstance_id = "{c.instance(c.holder)}"'
        ),
        "instance-mismatch",
    ),
    "a VIP of another subnet": (lambda _: replaced('"10.0.0.100"', '"10.0.7.100"'), "vip-subnet"),
    "a VIP that is a primary address": (
        lambda c: lambda text: without_node(c.other)(text).replace("10.0.0.100", c.facts[c.other]["address"]),
        "vip-primary",
    ),
    "a volume that is not there": (lambda c: replaced(c.volume, "vol-00000000000000001"), "volume-unknown"),
    "a volume of another account": (
        lambda c: replaced(c.volume, f"arn:aws:ec2:eu-west-1:999999999999:volume/{c.volume}"),
        "volume-arn",
    ),
    "a mount option of another file system": (lambda _: replaced('"noatime"', '"noatime,nouuid"'), "mount-options"),
    "a file system that no kernel has": (lambda _: replaced('fstype = ".*"', 'fstype = "nosuchfs"'), "file-system"),
    "tags of no volume": (lambda c: replaced(f'id = "{c.volume}"', 'tags = { Name = "none" }'), "volume-unknown"),
    "a volume at a stranger": (lambda c: without_node(c.holder), "volume-stranger"),
    "a mount point without a parent": (lambda _: replaced("/srv/data", "/srv/no/such/place"), "mount-point"),
    "a program that is not there": (lambda _: replaced("start = .*", 'start = ["/no/such"]'), "program-missing"),
    "a unit that is not there": (lambda _: replaced(UNIT, WITH_UNIT), "unit-missing"),
    "an awsha that is not there": (lambda _: replaced("command = .*", 'command = "/no/such"'), "script-security"),
    "an awsha that others can write": (
        lambda _: replaced("command = .*", 'command = "/etc/awsha/awsha.toml"'),
        "script-security",
    ),
}


@pytest.mark.parametrize("name", FILES)
def test_a_defect_of_the_file_gives_its_own_finding(name: str, checked: Checked):
    change, code = FILES[name]
    (checked.folder("awsha") / "awsha.toml").chmod(0o666)
    try:
        found = checked.findings(checked.toml(change(checked)))
    finally:
        (checked.folder("awsha") / "awsha.toml").chmod(0o600)
    expected = {code}
    if name == "not a node":
        expected |= {"instance-unknown"}
    if name == "another region":
        expected |= {"no-answer", "permission"}  # EC2 is asked there, where nothing of this pair is
    if name == "a volume at a stranger":
        expected |= {"vip-stranger"}  # it has the VIP too
    got = {finding["code"] for finding in found}
    assert code in got
    assert got - OF_ANOTHER_FILE <= expected, found


def test_a_vip_that_a_stranger_holds(checked: Checked):
    eni = checked.eni(checked.other)
    checked.api.assign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.0.160"])
    try:
        change = replaced('"10.0.0.100"', '"10.0.0.160"')
        config = checked.toml(lambda text: change(without_node(checked.other)(text)))
        found = checked.findings(config)
        assert {finding["code"] for finding in found} - OF_ANOTHER_FILE == {"vip-stranger"}, found
    finally:
        checked.api.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=["10.0.0.160"])


@pytest.mark.parametrize(
    ("files", "code"),
    [
        (WRITE_UNIT, None),
        (WRITE_UNIT + f"ln -s {UNIT_FILE} /etc/systemd/system/multi-user.target.wants/", "unit-enabled"),
        (f"ln -s /dev/null {UNIT_FILE}", "unit-missing"),
    ],
)
def test_the_applications_unit_is_there_and_not_enabled_at_boot(files: str, code: str | None, checked: Checked):
    config = checked.toml(replaced(UNIT, WITH_UNIT))
    with systemd(files)(checked):
        found = checked.codes(config) - OF_ANOTHER_FILE
    assert found == ({code} if code else set())


def test_what_is_on_the_volume_is_compared_where_it_is_attached(checked: Checked):
    """At the holder; a standby does not see the disk, and says nothing."""
    change = replaced('fstype = "ext4"', 'fstype = "xfs"')
    here, elsewhere = checked.toml(change), "/etc/awsha/other.toml"
    assert "file-system" not in checked.codes(here)
    text = (checked.folder("awsha") / "other.toml").read_text()
    (checked.lab.lab.node_dir(checked.holder) / "etc-awsha" / "other.toml").write_text(text)
    [found] = [f for f in checked.findings(elsewhere, checked.holder) if f["code"] == "file-system"]
    assert "carries ext4, awsha.toml says xfs" in found["what"]


def test_a_file_that_was_changed_counts_only_once_the_agent_has_read_it(checked: Checked):
    path = checked.folder("awsha") / "awsha.toml"
    with edited(path, replaced('"noatime"', '"noatime,nodiratime"')):
        assert checked.codes() == {"agent-outdated", "peer-config"}
        assert checked.codes(node=checked.other) == set(), "the agents still agree"
        restart_agent(checked)
        checked.lab.wait_until(lambda: checked.codes(node=checked.other) == {"peer-config"}, 10)
    restart_agent(checked)
    checked.lab.wait_until(lambda: checked.codes(node=checked.other) == set(), 10)


def restart_agent(checked: Checked) -> None:
    checked.lab.fail(checked.node, "agent-kill")
    checked.lab.wait_until(lambda: checked.lab.status()["nodes"][checked.node]["agent"] != "running", 10)
    checked.lab.heal(checked.node)


def test_after_all_defects_the_lab_is_healthy_again(checked: Checked):
    for node in checked.facts:
        assert checked.findings(node=node) == []


# --- permissions ---------------------------------------------------------------------------------------------------


def test_iam_policy_in_a_node_is_the_policy_that_the_lab_enforces(checked: Checked):
    printed = json.loads(checked.lab.exec(checked.node, "awsha", "iam-policy").stdout)
    assert printed == ask(checked.lab.lab, {"do": "iam", "node": checked.node})
    assert actions(printed) == frozenset(USES)


@pytest.mark.parametrize("action", sorted(USES))
def test_check_names_the_permission_that_is_missing(action: str, checked: Checked):
    request = {"do": "iam", "node": checked.node}
    with checked.control({**request, "without": [action]}, request):
        found = checked.findings()
    assert [(finding["code"], finding["subject"]) for finding in found] == [("permission", f"ec2:{action}")], found
    assert f"ec2:{action}" in found[0]["hint"]


def test_a_node_may_do_nothing_else(checked: Checked):
    code = f"import boto3; boto3.client('ec2').terminate_instances(InstanceIds=['{checked.instance(checked.other)}'])"
    done = checked.lab.exec(checked.node, "python", "-c", code, check=False)
    assert "UnauthorizedOperation" in done.stderr
    assert checked.lab.status()["ec2"]["instances"][checked.other] == "running"


def test_failovers_use_just_what_is_granted(lab: LabUnderTest):
    lab.warm = True
    lab.up("--timeout", "release_grace_s=1")
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    lab.fail(first, "stop")
    lab.wait_for_holder(second)
    lab.wait_until(lambda: lab.status()["nodes"][first]["keepalived"] == "stopped", 10)
    lab.heal(first)
    lab.wait_until(lambda: lab.status()["nodes"][first]["vrrp_role"] == "backup", 15)
    lab.fail(second, "power-off")
    lab.wait_for_holder(first, 60)

    needed = {action for action, uses in USES.items() if uses & {Use.FAILOVER, Use.FENCE, Use.START}}
    # its own releasing tag goes a moment after the mount
    lab.wait_until(lambda: in_use(lab) >= needed, 15, "each is used")
    assert in_use(lab) == needed
    lab.heal(second)
    granted = actions(ask(lab.lab, {"do": "iam", "node": first}))

    def checked_all() -> bool:
        lab.exec(first, "awsha", "check", check=False)
        return granted <= in_use(lab)

    # on a busy machine the breadth behind the endpoint may still be loading when it is asked first
    lab.wait_until(checked_all, 60, "check has asked everything")
    assert in_use(lab) == granted


def in_use(lab: LabUnderTest) -> set[str]:
    """The actions that nodes have called; nothing may have been refused for want of a permission."""
    requests = [entry for entry in ask(lab.lab, {"do": "requests"}) if entry[1] is not None]
    assert not [entry for entry in requests if entry[2] == "UnauthorizedOperation"]
    return {action for action, _, _ in requests}
