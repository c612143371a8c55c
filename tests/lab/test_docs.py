"""The guides as a person would follow them: their marked blocks, run in order, in the lab instead of AWS.

`<!-- run: WHO, WISH -->` above a block. WHO: `here` (this machine, in a temporary directory), nodes (`a b`), `crash b`
(the block is not run: the node is frozen instead), `boot b` (the node is switched on first); for the others see
tests/tools/pages.py.
WISH: `exit N`, `until exit 0`, `until TEXT` (run again and again until its output has the text).
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from awsha.lab.control import ask
from awsha.lab.settings import REGION
from tests.lab.conftest import AWSHA, LabUnderTest
from tests.tools.pages import ROOT, Block, blocks, runbook, shell_lines

pytestmark = [pytest.mark.root, pytest.mark.lab]
ID_OF_THE_PAGE = "vol-0123456789abcdef0"
DEVICE_OF_THE_PAGE = "/dev/nvme1n1"
UNTIL_S = 90.0
Done = subprocess.CompletedProcess[str]


class Reader:
    """Follows a page in a lab whose nodes have no service running."""

    def __init__(self, lab: LabUnderTest, folder: Path) -> None:
        self.lab = lab
        self.folder = folder
        self.volume = next(iter(lab.status()["ec2"]["volumes"]))
        self.device = DEVICE_OF_THE_PAGE
        self.port = ask(lab.lab, {"do": "endpoint"})["port"]
        self.shown: dict[str, str] = {}  # node -> what its last block printed
        self.after: dict[str, Callable[[], None]] = {}  # first line of a block -> what the test does after it

    def follow(self, page: str) -> None:
        """Run every marked block of a page."""
        for block in blocks(ROOT / "docs" / page):
            if block.who == "here":
                if page == "getting-started.md":  # elsewhere tests/adapters/test_docs.py
                    self.here(block)
            elif block.who.startswith("crash "):
                self.lab.fail(block.who.split()[1], "freeze")
            elif block.who not in ("", "aws") and not block.reason:
                if block.who.startswith("boot "):
                    self.boot(block.who.split()[1])
                for node in block.who.removeprefix("boot ").split():
                    self.at(node, block)
            first = shell_lines(block.text)[:1]
            if first and first[0] in self.after:
                self.after.pop(first[0])()
        assert self.after == {}, "a block that the test waits for is gone from the page"

    def text(self, block: Block) -> str:
        """The block, with the lab's volume and device for those of the page."""
        return block.text.replace(ID_OF_THE_PAGE, self.volume).replace(DEVICE_OF_THE_PAGE, self.device)

    def here(self, block: Block) -> None:
        """On this machine, as the page's reader does with his own credentials."""
        environment = {
            **os.environ,
            "PATH": f"{Path(AWSHA).parent}:{os.environ['PATH']}",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "lab",
            "AWS_SECRET_ACCESS_KEY": "lab",
        }
        done = subprocess.run(
            ["sh", "-euc", self.text(block)],
            cwd=self.folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{block}\n{done.stdout}{done.stderr}"

    def at(self, node: str, block: Block) -> None:
        """In a node, as the block wishes."""
        if block.wish.startswith("until "):
            wanted = block.wish.removeprefix("until ")
            last: list[Done] = []

            def so() -> bool:
                last[:] = [self.run(node, self.text(block))]
                self.shown[node] = last[0].stdout
                return last[0].returncode == 0 if wanted == "exit 0" else wanted in last[0].stdout + self.codes(node)

            try:
                self.lab.wait_until(so, UNTIL_S, f"{block} at {node}: {wanted}")
            except AssertionError as error:
                raise AssertionError(f"{error}\n{last[0].stdout}{last[0].stderr}") from error
            return
        expected = int(block.wish.removeprefix("exit ") or 0)
        done = self.run(node, self.text(block))
        self.shown[node] = done.stdout
        assert done.returncode == expected or block.who.startswith("boot "), f"{block}\n{done.stdout}{done.stderr}"

    def codes(self, node: str) -> str:
        """The codes that status shows at a node; their place in the page is a word of the reader's screen."""
        told = json.loads(self.lab.exec(node, "awsha", "status", "--json", check=False).stdout or "{}")
        found = [reason for g in told.get("groups", []) for reason in (*g["waiting"], *g["blocked"])]
        for volume in (volume for g in told.get("groups", []) for volume in g["volumes"]):
            self.device = volume["device"] or self.device
        return " ".join(reason["code"] for reason in found)

    def run(self, node: str, text: str) -> Done:
        """Line by line; what systemd would do is asked of the lab."""
        printed = ""
        for line in shell_lines(text):
            assert "sysrq" not in line, "this machine's kernel is the nodes' kernel"
            if line.startswith("systemctl "):
                self.systemctl(node, line.split()[1:])
                continue
            plain = line.startswith("awsha ") and not set(line) & set("><|&;$`'\"*")
            done = self.lab.exec(node, *(line.split() if plain else ["sh", "-euc", line]), check=False, timeout_s=90)
            printed += done.stdout
            if done.returncode != 0:
                break
        else:
            done = subprocess.CompletedProcess([], 0, "", "")
        return subprocess.CompletedProcess([], done.returncode, printed, done.stderr)

    def systemctl(self, node: str, words: list[str]) -> None:
        """`start` and `enable --now` of the two units; `stop` of a keepalived that is not there."""
        units = [word for word in words if word in ("awsha-agent", "keepalived")]
        assert units, words
        if words[0] == "stop":
            assert self.lab.status()["nodes"][node]["keepalived"] == "stopped"
            return
        assert words[0] == "start" or words[:2] == ["enable", "--now"], words
        for program in ("agent", "keepalived"):
            if {"agent": "awsha-agent"}.get(program, program) in units:
                ask(self.lab.lab, {"do": "start", "node": node, "program": program})
            if program == "agent":
                self.lab.wait_until(lambda: self.answers(node), 20, f"the agent of {node} answers")

    def answers(self, node: str) -> bool:
        """Whether status finds an agent there."""
        told = self.lab.exec(node, "awsha", "status", "--json", check=False).stdout
        return bool(told) and json.loads(told)["agent"]

    def boot(self, node: str) -> None:
        """What `aws ec2 start-instances` does, and what systemd starts then."""
        self.lab.wait_until(lambda: self.lab.status()["ec2"]["instances"][node] == "stopped", 60, f"{node} was stopped")
        self.lab.heal(node)
        self.systemctl(node, ["enable", "--now", "awsha-agent", "keepalived"])

    def folder_of(self, node: str, name: str) -> Path:
        """A node's /etc/awsha or /etc/keepalived, from outside."""
        return self.lab.lab.node_dir(node) / f"etc-{name}"


@pytest.fixture(autouse=True)
def _warm(lab: LabUnderTest) -> None:
    """These pages have some ninety commands."""
    lab.warm = True


@pytest.fixture
def reader(lab: LabUnderTest, tmp_path: Path) -> Reader:
    lab.up("--no-keepalived", "--no-agent", "--no-application", wait=False)
    return Reader(lab, tmp_path)


def findings(lab: LabUnderTest, node: str) -> set[str]:
    told = json.loads(lab.exec(node, "awsha", "check", "--json", check=False).stdout)
    return {finding["code"] for finding in told["findings"]}


@pytest.mark.timeout(300)
def test_getting_started(reader: Reader):
    """From an empty node and an empty volume to two failovers."""
    lab = reader.lab
    for node in "ab":
        (reader.folder_of(node, "awsha") / "awsha.toml").unlink()
        (reader.folder_of(node, "keepalived") / "keepalived.conf").unlink()
    image = next((lab.lab.run / "volumes").glob(f"*{reader.volume.removeprefix('vol-')}*"))
    with image.open("r+b") as disk:
        disk.write(bytes(1 << 20))  # a new volume: no file system

    def copy() -> None:
        policy = json.loads((reader.folder / "policy.json").read_text())
        assert reader.volume in json.dumps(policy)
        for node, facts in lab.status()["nodes"].items():
            assert facts["instance_id"] in json.dumps(policy)
            ask(lab.lab, {"do": "iam", "node": node, "document": policy})  # what put-role-policy does
            # The same file, but for a quicker VRRP: nobody here has to see the second of a real one go by.
            text = (reader.folder / "awsha.toml").read_text().replace("[[group]]\n", "[[group]]\nadvert_int = 0.2\n")
            assert "advert_int = 0.2" in text
            (reader.folder_of(node, "awsha") / "awsha.toml").write_text(text)

    def three_findings() -> None:
        said = {"keepalived-down", "agent-down", "peer-unpublished"}
        assert {node: findings(lab, node) for node in "ab"} == {"a": said, "b": said}

    reader.after = {
        f"awsha init -o awsha.toml --region eu-west-1 --node a=10.0.0.10 --node b=10.0.0.11 --vip 10.0.0.100 "
        f"--volume {ID_OF_THE_PAGE}:/srv/data": copy,
        "awsha check": three_findings,
        "cat /srv/data/hello": lambda: lab.wait_for_holder("b"),
        "echo c > /proc/sysrq-trigger": lambda: None,
        "cat /srv/data/hello && awsha status": lambda: lab.wait_for_holder("a"),
    }
    reader.follow("getting-started.md")
    lab.wait_until(lambda: lab.exec("b", "awsha", "status", check=False).returncode == 0, 60, "b is standby again")
    assert lab.holder() == "a"
    reader.follow("check.md")
    assert lab.status()["violations"] == []


def by_hand(reader: Reader, node: str) -> None:
    """What a notify script did: attach, mount, assign, and a service that has a file open on the volume."""
    lab = reader.lab
    api = boto3.client(
        "ec2", endpoint_url=f"http://127.0.0.1:{reader.port}", region_name=REGION,
        aws_access_key_id="lab", aws_secret_access_key="lab", config=Config(retries={"total_max_attempts": 1}),
    )  # fmt: skip
    instance = lab.status()["nodes"][node]["instance_id"]
    found = api.describe_instances(InstanceIds=[instance])["Reservations"][0]["Instances"][0]
    api.attach_volume(VolumeId=reader.volume, InstanceId=instance, Device="/dev/sdf")
    api.assign_private_ip_addresses(
        NetworkInterfaceId=found["NetworkInterfaces"][0]["NetworkInterfaceId"],
        PrivateIpAddresses=["10.0.0.100"],
        AllowReassignment=True,
    )
    serial = reader.volume.replace("-", "")
    script = (
        f"d=$(grep -l {serial} /sys/block/*/device/serial | cut -d/ -f4); mkdir -p /srv/data; mount /dev/$d /srv/data; "
        "setsid sleep 600 < /dev/null > /srv/data/service 2>&1 & echo $! > /run/service.pid"
    )
    lab.wait_until(lambda: lab.exec(node, "sh", "-euc", script, check=False).returncode == 0, 20, "mounted by hand")
    lab.exec(node, "ip", "address", "add", "10.0.0.100/32", "dev", "eth0")


@pytest.mark.timeout(300)
def test_procedures_of_the_runbook(lab: LabUnderTest):
    """Those that can be had without AWS; none of them loses anything, and a restart or a reload moves nothing."""
    lab.up("--open-files", "wait")
    lab.wait_until(lab.holder, 30, "somebody serves")
    master = str(lab.holder())
    other = "b" if master == "a" else "a"
    lab.client_start()
    for node in (master, other):
        assert lab.exec(node, *runbook("awsha status"), check=False).returncode in (0, 1)
        assert lab.exec(node, *runbook("awsha check"), check=False).returncode in (0, 1)

    # a planned switchover
    lab.exec(master, *runbook("awsha switchover data --dry-run"))
    lab.exec(master, *runbook("awsha switchover data"), timeout_s=90)
    lab.wait_for_holder(other)
    lab.exec(master, *runbook("awsha status data"), check=False)
    master, other = other, master

    # the other one taken out for maintenance
    lab.exec(other, *runbook("awsha release"))
    assert "released" in lab.exec(other, *runbook("awsha status data"), check=False).stdout
    lab.exec(other, *runbook("awsha resume"))

    # a switchover that is not done in its time
    hold = "exec sleep 600 < /dev/null > /srv/data/held 2>&1 & echo $! > /run/held.pid"
    lab.exec(master, "sh", "-c", hold)
    late = lab.exec(master, "awsha", "switchover", "data", "--timeout", "2", check=False)
    assert late.returncode == 75
    assert f"{master} competes again" in late.stdout
    assert "it goes on" not in late.stdout
    lab.exec(master, "sh", "-c", "kill $(cat /run/held.pid)")
    lab.wait_for_holder(master)

    # upgrade: the agent is started again, keepalived reads its file again
    for node in (other, master):
        assert runbook("systemctl restart awsha-agent")  # there is no systemd in the lab
        lab.fail(node, "agent-kill")
        lab.exec(node, *runbook("rm -f /run/awsha/identity.json"))
        ask(lab.lab, {"do": "start", "node": node, "program": "agent"})
        lab.wait_until(lambda node=node: findings(lab, node) == set(), 30, f"nothing is found at {node}")
        lab.exec(node, "sh", "-c", "kill -HUP $(cat /run/keepalived.pid)")
        lab.wait_until(lambda node=node: findings(lab, node) == set(), 30, f"nothing is found at {node}")
    assert lab.holder() == master

    # a file system check by hand, with everything held still
    for node in (other, master):
        lab.exec(node, *runbook("awsha pause data"))
    told = json.loads(lab.exec(master, "awsha", "status", "--json", check=False).stdout)
    assert told["groups"][0]["severity"] == 1
    device, server = told["groups"][0]["volumes"][0]["device"], lab.exec(master, "cat", "/etc/awsha/awsha.toml").stdout
    assert runbook("systemctl stop UNIT")  # its application has a program for that
    stop = next(json.loads(line.partition("=")[2]) for line in server.splitlines() if line.startswith("stop ="))
    lab.exec(master, *stop)
    lab.exec(master, *runbook("umount /srv/data"))
    assert runbook("e2fsck -f DEVICE")
    lab.exec(master, "e2fsck", "-f", "-y", device)
    for node in (master, other):
        lab.exec(node, *runbook("awsha resume data"))
    lab.wait_for_holder(master)

    # by hand against the peer: only said, not done
    words = runbook("awsha fence b")[:-1]
    asked = lab.exec(master, *words, other, check=False)
    assert asked.returncode == 1
    assert "would stop instance" in asked.stderr
    assert runbook("awsha fence b --yes")
    lab.nothing_lost()


@pytest.mark.timeout(300)
def test_migration(reader: Reader):
    """A pair that a script had set up is taken over while its service runs on; then it fails over."""
    lab = reader.lab
    for node in "ab":
        (reader.folder_of(node, "keepalived") / "keepalived.conf").write_text("# of the script\n")
        lab.exec(node, "mkdir", "-p", "/srv/data")
    by_hand(reader, "a")
    mounted = lab.exec("a", "grep", " /srv/data ", "/proc/self/mountinfo").stdout

    def old_keepalived_ends() -> None:
        """keepalived takes its VIP along."""
        lab.exec("a", "ip", "address", "del", "10.0.0.100/32", "dev", "eth0", check=False)

    def only_what_is_to_come() -> None:
        expected = {"keepalived-config", "keepalived-down", "agent-down", "peer-unpublished", "keepalived-refuses"}
        for node in "ab":
            assert findings(lab, node) <= expected

    reader.after = {
        "awsha check": only_what_is_to_come,
        "systemctl stop keepalived": old_keepalived_ends,  # on b, just before a's
        "awsha plan data --role master": lambda: None,
    }
    reader.follow("migration.md")
    assert "the goal is reached" in reader.lab.exec("a", "awsha", "plan", "data", "--role", "master").stdout
    lab.exec("a", "sh", "-c", "kill -0 $(cat /run/service.pid)")
    assert lab.exec("a", "grep", " /srv/data ", "/proc/self/mountinfo").stdout == mounted, "it was never unmounted"
    lab.exec("a", "awsha", "switchover", "data", timeout_s=90)
    lab.wait_for_holder("b")
    assert lab.status()["violations"] == []
