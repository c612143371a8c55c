"""The lab keeps its own promises: what it isolates, what it plays, what it leaves behind."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config

from awsha.host import mountinfo
from awsha.lab import sweep
from awsha.lab.control import ask
from tests.lab.conftest import AWSHA, LabUnderTest

pytestmark = [pytest.mark.root, pytest.mark.lab]

BARE = ("--no-agent", "--no-keepalived", "--no-wait")
VIP = "10.0.0.100"
DIRTY_THEN_SYNC = """
import os, sys
f = os.open("/srv/data/dirty", os.O_CREAT | os.O_WRONLY)
os.write(f, b"NEVER-ON-DISK" * 5000)
print("dirty")
sys.stdin.readline()
try:
    os.fsync(f)
    print("synced")
except OSError as error:
    print("errno", error.errno)
"""


def machine() -> dict[str, Any]:
    """What this run's labs could leave behind on this machine; other people's labs are not looked at."""

    def ours(name: str) -> bool:
        return name.startswith(f"t{os.getpid() % 100000}")

    processes = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            words = (folder / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if any(ours(word.decode(errors="replace")) for word in words):
            processes.append(int(folder.name))
    root = next(
        Path(line.split()[1]) for line in Path("/proc/mounts").read_text().splitlines() if line.split()[2] == "cgroup2"
    )
    return {
        "namespaces": [path.name for path in Path("/run/netns").glob("*") if ours(path.name)],
        "loops": [
            backing
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
            if ours((backing := path.read_text())[5:])
        ],
        "mounts": [entry.target for entry in mountinfo.read() if ours(entry.target.removeprefix("/run/"))],
        "cgroups": [path.name for path in root.iterdir() if ours(path.name)],
        "folders": [path.name for path in Path("/run").iterdir() if ours(path.name)],
        "processes": processes,
    }


NOTHING = {"namespaces": [], "loops": [], "mounts": [], "cgroups": [], "folders": [], "processes": []}


class Ec2:
    """The lab's EC2 as a tool on this machine sees it, and the lab it belongs to."""

    def __init__(self, lab: LabUnderTest) -> None:
        self.lab = lab
        exports = dict(
            line.removeprefix("export ").split("=", 1) for line in lab.awsha("lab", "endpoint").stdout.splitlines()
        )
        self.exports = {name: shlex.split(value)[0] for name, value in exports.items()}
        self.api = boto3.client(
            "ec2", endpoint_url=self.exports["AWS_ENDPOINT_URL"], region_name=self.exports["AWS_REGION"],
            aws_access_key_id="fake", aws_secret_access_key="fake",
            config=Config(retries={"total_max_attempts": 1}, read_timeout=5, connect_timeout=2),
        )  # fmt: skip
        facts = lab.status()
        self.instance = {name: node["instance_id"] for name, node in facts["nodes"].items()}
        self.listeners: list[tuple[str, str]] = []  # (node, pid there)
        self.volume = next(iter(facts["ec2"]["volumes"]))
        interfaces = self.api.describe_network_interfaces()["NetworkInterfaces"]
        self.eni = {
            name: next(i["NetworkInterfaceId"] for i in interfaces if i["PrivateIpAddress"] == node["address"])
            for name, node in facts["nodes"].items()
        }

    def attach(self, node: str, device: str = "/dev/sdf") -> str:
        """Attach the volume, wait for the device, return its path in the node."""
        self.api.attach_volume(VolumeId=self.volume, InstanceId=self.instance[node], Device=device)
        return self.lab.wait_until(lambda: self.device(node), 10, f"the device appears on {node}")

    def device(self, node: str) -> str:
        """Path of the volume's device in a node; empty when it has none."""
        devices = self.lab.status()["nodes"][node]["devices"]
        return next((f"/dev/{name}" for name, volume in devices.items() if volume == self.volume), "")

    def mount(self, node: str, folder: str = "/srv/data") -> None:
        """Attach and mount."""
        path = self.attach(node)
        self.lab.exec(node, "mkdir", "-p", folder)
        self.lab.exec(node, "mount", path, folder)

    def detach(self, *, force: bool = False) -> None:
        """Detach and wait until the volume is available."""
        self.api.detach_volume(VolumeId=self.volume, Force=force)
        self.lab.wait_until(lambda: self.state() == "available", 10, "the volume is available")

    def state(self) -> str:
        """The attachment's state; `available` when there is none."""
        attachments = self.api.describe_volumes(VolumeIds=[self.volume])["Volumes"][0]["Attachments"]
        return attachments[0]["State"] if attachments else "available"

    def give(self, address: str, node: str) -> None:
        """Assign an address to a node's interface."""
        self.api.assign_private_ip_addresses(
            NetworkInterfaceId=self.eni[node], PrivateIpAddresses=[address], AllowReassignment=True
        )
        self.lab.wait_until(
            lambda: self.lab.status()["ec2"]["delivered_to"].get(address) == node, 5, f"{node} gets {address}"
        )


@pytest.fixture(scope="module")
def bare(shared_lab: LabUnderTest) -> LabUnderTest:
    """One pair without keepalived and without awsha, for the whole module."""
    return shared_lab.up(*BARE)


@pytest.fixture
def ec2(bare: LabUnderTest) -> Iterator[Ec2]:
    """Its EC2, with the volume detached and the VIP unassigned again afterwards, and both nodes on."""
    cloud = Ec2(bare)
    yield cloud
    for node in cloud.instance:
        bare.heal(node)
        server(bare, node, "stop")
        pids = [pid for where, pid in cloud.listeners if where == node]
        bare.exec(node, "sh", "-c", "kill $* 2>/dev/null; umount -R /srv/data 2>/dev/null; true", "sh", *pids)
        bare.exec(node, "ip", "addr", "del", f"{VIP}/32", "dev", "eth0", check=False)
    if cloud.state() != "available":
        cloud.detach(force=True)
    for eni in cloud.eni.values():
        with contextlib.suppress(cloud.api.exceptions.ClientError):  # it has it not
            cloud.api.unassign_private_ip_addresses(NetworkInterfaceId=eni, PrivateIpAddresses=[VIP])


def connects(lab: LabUnderTest, address: str, port: int) -> bool:
    """Whether a client of the VPC reaches this address."""
    code = f"import socket; socket.create_connection(('{address}', {port}), 0.4).close()"
    argv = ["ip", "netns", "exec", lab.lab.netns("client"), "python3", "-c", code]
    return subprocess.run(argv, capture_output=True, check=False, timeout=10).returncode == 0


def listen(ec2: Ec2, node: str, port: int) -> None:
    """Something in a node that accepts connections, until the test ends."""
    code = (
        f"import socket,os; s=socket.create_server(('0.0.0.0',{port})); pid=os.fork()\n"
        "if pid: print(pid); os._exit(print(end='', flush=True) or 0)\n"
        "os.setsid(); [os.dup2(os.open('/dev/null', 2), n) for n in (0, 1, 2)]\nwhile True: s.accept()[0].close()"
    )
    ec2.listeners.append((node, ec2.lab.exec(node, "python3", "-c", code).stdout.strip()))


# What a node is


def test_a_node_sees_its_own_world_and_nothing_of_the_host(bare: LabUnderTest) -> None:
    assert bare.exec("a", "sh", "-c", "hostname; ls /sys/class/net /sys/block").stdout.split() == [
        "a", "/sys/block:", "/sys/class/net:", "eth0", "lo",
    ]  # fmt: skip
    assert "loop" not in bare.exec("a", "ls", "/dev").stdout
    assert "default" not in bare.exec("a", "ip", "route").stdout
    bare.exec("a", "sh", "-c", "mkdir /srv/x /run/x /tmp/x; touch /etc/awsha/x /var/lib/awsha/x /etc/keepalived/x")
    for path in ("/srv/x", "/run/x", "/tmp/x", "/etc/awsha/x", "/var/lib/awsha/x", "/etc/keepalived/x"):
        assert not Path(path).exists(), path
    assert not bare.exec("b", "ls", "/srv").stdout


def test_exec_passes_words_streams_and_exit_code(bare: LabUnderTest) -> None:
    done = bare.exec("b", "sh", "-c", 'cat; echo two words "$1" >&2; exit 7', "sh", "-x --y", check=False)
    assert (done.returncode, done.stderr) == (7, "two words -x --y\n")
    refused = bare.awsha("lab", "exec", "z", "--", "true", check=False)
    assert refused.returncode == 1
    assert "the nodes are: a, b" in refused.stderr


def test_processes_of_a_node_are_in_its_cgroup_and_orphans_are_reaped(bare: LabUnderTest) -> None:
    bare.exec("a", "sh", "-c", "for i in 1 2 3; do (setsid sleep 0.05 &) ; done")
    bare.wait_until(lambda: "sleep" not in bare.exec("a", "ps", "-eo", "comm").stdout, 5, "the orphans are gone")
    assert "defunct" not in bare.exec("a", "ps", "-ef").stdout


def test_each_boot_has_its_own_boot_id(bare: LabUnderTest) -> None:
    ids = {bare.exec(node, "cat", "/proc/sys/kernel/random/boot_id").stdout for node in ("a", "b")}
    bare.fail("a", "power-off")
    bare.heal("a")
    ids.add(bare.exec("a", "cat", "/proc/sys/kernel/random/boot_id").stdout)
    assert len(ids) == 3


def test_instance_metadata_answers_each_node_for_itself(bare: LabUnderTest) -> None:
    code = (
        "import urllib.request as u\nb='http://169.254.169.254/latest/'\n"
        "t=u.urlopen(u.Request(b+'api/token',method='PUT',headers={'X-aws-ec2-metadata-token-ttl-seconds':'60'}),timeout=2).read().decode()\n"
        "print(u.urlopen(u.Request(b+'meta-data/instance-id',headers={'X-aws-ec2-metadata-token':t}),timeout=2).read().decode())"
    )
    for node, facts in bare.status()["nodes"].items():
        assert bare.exec(node, "python3", "-c", code).stdout.strip() == facts["instance_id"]


def test_boto3_in_a_node_needs_no_arguments(bare: LabUnderTest) -> None:
    code = "import boto3; print(len(boto3.client('ec2').describe_instances()['Reservations']))"
    assert bare.exec("a", "python", "-c", code).stdout.strip() in ("1", "2")


# Disks


def test_an_attached_volume_is_a_device_of_one_node_with_ec2s_serial(ec2: Ec2) -> None:
    path = ec2.attach("a")
    name = Path(path).name
    read = ec2.lab.exec("a", "sh", "-c", f"cd /sys/block/{name}; cat device/serial device/model dev")
    serial, model, number = (line.strip() for line in read.stdout.splitlines())
    assert (serial, model) == (ec2.volume.replace("-", ""), "Amazon Elastic Block Store")
    assert ec2.lab.exec("a", "stat", "-c", "%Hr:%Lr", path).stdout.strip() == number
    assert ec2.lab.exec("b", "sh", "-c", "ls /sys/block /dev | grep nvme", check=False).stdout == ""
    ec2.detach()
    # EC2 may call it available a moment before the guest has lost it
    gone = lambda: ec2.lab.exec("a", "sh", "-c", "ls /sys/block /dev | grep nvme", check=False).stdout == ""  # noqa: E731
    ec2.lab.wait_until(gone, 5, "the device is gone")


def test_a_mounted_volume_is_busy_until_it_is_unmounted(ec2: Ec2) -> None:
    ec2.mount("a")
    ec2.api.detach_volume(VolumeId=ec2.volume)
    ec2.lab.wait_until(lambda: ec2.state() == "busy", 5, "busy")
    assert ec2.device("a")
    ec2.lab.exec("a", "umount", "/srv/data")
    ec2.lab.wait_until(lambda: ec2.state() == "available", 5, "available")
    assert ec2.lab.status()["violations"] == []


def test_a_lazily_unmounted_volume_in_use_is_still_busy(ec2: Ec2) -> None:
    ec2.mount("a")
    ec2.lab.exec("a", "sh", "-c", "setsid sleep 2 > /srv/data/open 2>&1 < /dev/null & sleep 0.1; umount -l /srv/data")
    ec2.api.detach_volume(VolumeId=ec2.volume)
    ec2.lab.wait_until(lambda: ec2.state() == "busy", 5, "busy")
    ec2.lab.wait_until(lambda: ec2.state() == "available", 10, "available once the last file is closed")


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_after_a_forced_detach_nothing_of_the_old_holder_reaches_the_volume(lab: LabUnderTest, fstype: str) -> None:
    ec2 = Ec2(lab.up(*BARE, "--fstype", fstype))
    ec2.mount("a")
    lab.exec("a", "sh", "-c", "printf kept > /srv/data/kept; sync /srv/data/kept")
    holder = subprocess.Popen(
        [AWSHA, "lab", "exec", "a", "--", "python3", "-u", "-c", DIRTY_THEN_SYNC],
        env=lab.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert holder.stdin is not None
    assert holder.stdout is not None
    assert holder.stdout.readline() == "dirty\n"
    ec2.detach(force=True)
    path = ec2.attach("b")
    image = lab.lab.run / "volumes" / f"{ec2.volume}.img"
    assert len(live_loops(image)) == 1
    lab.exec("b", "mkdir", "/srv/data")
    lab.exec("b", "mount", *(["-o", "nouuid"] if fstype == "xfs" else []), path, "/srv/data")
    lab.exec("b", "sh", "-c", "printf new > /srv/data/new; sync /srv/data/new")
    out, _ = holder.communicate("go\n", timeout=20)
    assert out.strip() == "errno 5"
    lab.exec("a", "sh", "-c", "echo more > /srv/data/more; sync", check=False)
    assert lab.exec("b", "sh", "-c", "cat /srv/data/kept /srv/data/new").stdout == "keptnew"
    lab.exec("b", "umount", "/srv/data")
    found = subprocess.run(["grep", "-c", "NEVER-ON-DISK", str(image)], capture_output=True, text=True, check=False)
    assert found.stdout == "0\n"
    check = ["e2fsck", "-fn", path] if fstype == "ext4" else ["xfs_repair", "-n", path]
    assert lab.exec("b", *check).returncode == 0
    assert [m["stale"] for m in lab.status()["nodes"]["a"]["mounts"]] == [True]
    assert lab.status()["violations"] == []


@pytest.mark.parametrize("fstype", ["ext4", "xfs"])
def test_a_disk_that_is_cut_under_its_writers_loses_nothing_acknowledged(tmp_path: Path, fstype: str) -> None:
    """The kernel moves a loop device before it shrinks it: done in one step, 1 cut in 15 lost a record."""
    argv = ["unshare", "--mount", "--propagation", "private", sys.executable, "-m", "tests.lab.cut_a_disk"]
    done = subprocess.run([*argv, str(tmp_path), fstype, "20"], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["lost"], result["left"]) == (0, []), result
    assert result["acknowledged"] > 20


def live_loops(image: Path) -> list[Path]:
    """Loop devices that can write to a volume: over its image, and not pointed at the tail."""
    backings = Path("/sys/block").glob("loop*/loop/backing_file")
    folders = [path.parent for path in backings if path.read_text().strip() == str(image)]
    return [folder for folder in folders if (folder / "offset").read_text().strip() == "0"]


def test_power_loss_loses_what_was_not_flushed_and_nothing_else(ec2: Ec2) -> None:
    ec2.mount("a")
    ec2.lab.exec("a", "sh", "-c", "cd /srv/data; printf yes > flushed; sync flushed; printf no > cached")
    ec2.lab.fail("a", "power-off")
    facts = ec2.lab.status()
    assert (facts["nodes"]["a"]["power"], facts["ec2"]["instances"]["a"]) == ("off", "running")
    ec2.api.detach_volume(VolumeId=ec2.volume)
    ec2.lab.wait_until(lambda: ec2.state() == "busy", 5, "nobody is there to let go")
    ec2.detach(force=True)
    ec2.mount("b")
    assert ec2.lab.exec("b", "cat", "/srv/data/flushed").stdout == "yes"
    assert ec2.lab.exec("b", "cat", "/srv/data/cached", check=False).stdout != "no"
    ec2.lab.exec("b", "umount", "/srv/data")


def test_an_instance_that_is_stopped_and_started_keeps_its_volume_and_var_lib(ec2: Ec2) -> None:
    path = ec2.attach("a")
    ec2.lab.exec("a", "sh", "-c", "touch /var/lib/awsha/kept /run/gone")
    ec2.api.stop_instances(InstanceIds=[ec2.instance["a"]])
    ec2.lab.wait_until(lambda: ec2.lab.status()["ec2"]["instances"]["a"] == "stopped", 10, "stopped")
    assert not ec2.lab.status()["nodes"]["a"]["devices"]
    refused = ec2.lab.awsha("lab", "exec", "a", "--", "true", check=False)
    assert "awsha lab heal a" in refused.stderr
    ec2.api.start_instances(InstanceIds=[ec2.instance["a"]])
    again = ec2.lab.wait_until(lambda: ec2.device("a"), 10, "the device is back")
    assert ec2.lab.exec("a", "sh", "-c", "ls /var/lib/awsha /run").stdout.count("kept") == 1
    assert "gone" not in ec2.lab.exec("a", "ls", "/run").stdout
    assert path and again


def test_the_watch_sees_a_volume_that_is_mounted_twice(lab: LabUnderTest) -> None:
    """The lab's own rules never allow it, so it is done behind their back."""
    ec2 = Ec2(lab.up(*BARE))
    ec2.mount("a")
    image = lab.lab.run / "volumes" / f"{ec2.volume}.img"
    argv = ["losetup", "--find", "--show", str(image)]
    loop = subprocess.run(argv, capture_output=True, text=True, check=True).stdout.strip()
    lab.exec("b", "mknod", "/dev/other", "b", "7", loop.removeprefix("/dev/loop"))
    lab.exec("b", "mkdir", "/srv/data")
    lab.exec("b", "mount", "/dev/other", "/srv/data")
    lab.wait_until(lambda: lab.status()["violations"], 5, "the violation is seen")
    assert "mounted read-write on a and b at once" in lab.status()["violations"][0]
    assert lab.awsha("lab", "status", check=False).returncode == 1


# The VPC


def test_an_address_is_delivered_to_the_interface_that_has_it_by_the_api(ec2: Ec2) -> None:
    for node in ("a", "b"):
        listen(ec2, node, 7777)
    assert connects(ec2.lab, "10.0.0.10", 7777)
    ec2.lab.exec("a", "ip", "addr", "add", f"{VIP}/32", "dev", "eth0")
    assert not connects(ec2.lab, VIP, 7777), "the kernel alone does not make it reachable"
    ec2.give(VIP, "a")
    assert connects(ec2.lab, VIP, 7777)
    ec2.give(VIP, "b")
    assert not connects(ec2.lab, VIP, 7777), "delivered to b, whose kernel does not have it"
    ec2.lab.exec("b", "ip", "addr", "add", f"{VIP}/32", "dev", "eth0")
    assert connects(ec2.lab, VIP, 7777)


def test_a_partition_cuts_vrrp_only_and_heals(ec2: Ec2) -> None:
    def hears(node: str, sender: str, source: str, to: str) -> bool:
        listen_code = (
            "import socket; s=socket.socket(socket.AF_INET,socket.SOCK_RAW,112); s.settimeout(1.5); print('ready')\n"
            f"while s.recvfrom(99)[1][0]!='{source}': pass\nprint('heard')"
        )
        ear = subprocess.Popen(
            [AWSHA, "lab", "exec", node, "--", "python3", "-u", "-c", listen_code],
            env=ec2.lab.environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )  # fmt: skip
        assert ear.stdout is not None
        assert ear.stdout.readline() == "ready\n"
        say = f"import socket; s=socket.socket(socket.AF_INET,socket.SOCK_RAW,112); s.sendto(b'x'*20,('{to}',0))"
        ec2.lab.exec(sender, "python3", "-c", say)
        return "heard" in ear.communicate(timeout=10)[0]

    listen(ec2, "b", 7778)
    probe = ("python3", "-c", "import socket; socket.create_connection(('10.0.0.11', 7778), 1)")
    assert hears("b", "a", "10.0.0.10", "10.0.0.11")
    ec2.lab.fail("a", "partition")
    assert not hears("b", "a", "10.0.0.10", "10.0.0.11")
    assert not hears("a", "b", "10.0.0.11", "10.0.0.10")
    assert ec2.lab.exec("a", *probe).returncode == 0
    assert ec2.lab.status()["nodes"]["a"]["cuts"] == ["partition"]
    ec2.lab.heal("a")
    assert hears("b", "a", "10.0.0.10", "10.0.0.11")


def test_a_node_can_be_cut_from_the_api_alone(ec2: Ec2) -> None:
    ask_api = "import socket; socket.create_connection(('10.0.0.2', 4566), 0.5)"
    ec2.lab.fail("a", "api-cut")
    assert ec2.lab.exec("a", "python3", "-c", ask_api, check=False).returncode == 1
    assert ec2.lab.exec("b", "python3", "-c", ask_api).returncode == 0
    ec2.lab.heal("a")
    assert ec2.lab.exec("a", "python3", "-c", ask_api).returncode == 0


# Application and client


def server(lab: LabUnderTest, node: str, word: str, *, check: bool = True) -> int:
    """The record server's own words, as awsha uses them."""
    argv = ["python", "-P", "-m", "awsha.lab.server", word, "--name", "data", "--folder", "/srv/data", "--port", "7000"]
    return lab.exec(node, *argv, check=check).returncode


@pytest.fixture
def served(ec2: Ec2) -> Ec2:
    """Node a holds everything, by hand, and the client writes."""
    ec2.mount("a")
    ec2.give(VIP, "a")
    ec2.lab.exec("a", "ip", "addr", "add", f"{VIP}/32", "dev", "eth0")
    assert server(ec2.lab, "a", "check", check=False) == 1
    server(ec2.lab, "a", "start")
    assert server(ec2.lab, "a", "check") == 0
    (ec2.lab.lab.ledger / "data.ledger").unlink(missing_ok=True)
    ec2.lab.exec("a", "rm", "-f", "/srv/data/records.log")
    server(ec2.lab, "a", "stop")
    server(ec2.lab, "a", "start")
    ec2.lab.client_start()
    return ec2


def test_the_report_finds_lost_and_repeated_records(served: Ec2) -> None:
    lab = served.lab
    assert lab.report()["lost"] == 0
    ask(lab.lab, {"do": "client_stop"})
    server(lab, "a", "stop")
    before = lab.report()
    assert (before["lost"], before["duplicated"]) == (None, None)
    assert "nobody serves" in before["reason"]
    lab.exec("a", "sh", "-c", "cd /srv/data; sed -i -e '2d' -e '3p' records.log")
    server(lab, "a", "start")
    after = lab.report()
    assert (after["lost"], after["duplicated"]) == (1, 1)
    assert after["groups"]["data"]["lost_numbers"] == [2]
    assert lab.awsha("lab", "client", "report", check=False).returncode == 1


def test_an_outage_is_measured_also_while_it_goes_on(served: Ec2) -> None:
    lab = served.lab
    server(lab, "a", "stop")
    lab.wait_until(lambda: lab.report()["longest_outage_s"] > 0.6, 10, "an open outage of 0.6 s")
    assert lab.report()["outages"][-1]["open"] is True
    server(lab, "a", "start")
    lab.wait_until(lambda: lab.report()["outages"][-1]["open"] is False, 10, "it has ended")
    report = lab.nothing_lost()
    assert len(report["outages"]) == 1
    assert 0.6 < report["longest_outage_s"] < 10
    ask(lab.lab, {"do": "client_stop"})


def test_a_server_whose_disk_was_taken_acknowledges_nothing_more(served: Ec2) -> None:
    lab = served.lab
    served.detach(force=True)
    lab.wait_until(lambda: lab.report()["outages"], 10, "the client is not served")
    acknowledged = lab.report()["acknowledged"]
    assert lab.report()["acknowledged"] == acknowledged
    assert server(lab, "a", "check", check=False) == 1
    server(lab, "a", "stop")
    lab.exec("a", "umount", "-l", "/srv/data")
    served.mount("b")
    served.give(VIP, "b")
    lab.exec("b", "ip", "addr", "add", f"{VIP}/32", "dev", "eth0")
    server(lab, "b", "start")
    lab.wait_until(lambda: lab.report()["acknowledged"] > acknowledged, 10, "served again")
    lab.nothing_lost()
    ask(lab.lab, {"do": "client_stop"})
    server(lab, "b", "stop")
    lab.exec("b", "umount", "/srv/data")


# EC2's faults


def test_faults_are_listed_strike_and_are_cleared(ec2: Ec2) -> None:
    lab = ec2.lab
    lab.awsha("lab", "fault", "AttachVolume", "--error", "InternalError", "--times", "2")
    lab.awsha("lab", "fault", "DetachVolume", "--stuck", "busy", "--node", "b")
    lab.awsha("lab", "fault", "DescribeVolumes", "--delay", "0.5", "--times", "0")
    left = json.loads(lab.awsha("lab", "faults", "--json").stdout)
    assert [(f["action"], f["kind"], f["left"]) for f in left] == [
        ("AttachVolume", "error", 2), ("DetachVolume", "stuck_busy", 1), ("DescribeVolumes", "delay", None),
    ]  # fmt: skip
    with pytest.raises(ec2.api.exceptions.ClientError, match="InternalError"):
        ec2.attach("a")
    lab.awsha("lab", "faults", "--clear")
    assert json.loads(lab.awsha("lab", "faults", "--json").stdout) == []
    assert ec2.attach("a")
    for words in (["AttachVolume"], ["AttachVolume", "--throttle", "--lost-reply"], ["AttachVolume", "--delay", "0"]):
        assert lab.awsha("lab", "fault", *words, check=False).returncode == 1


# keepalived


@pytest.fixture
def plain(lab: LabUnderTest) -> LabUnderTest:
    """A pair whose keepalived tells awsha nothing."""
    lab.up(*BARE, "--advert-int", "0.1")
    for node in ("a", "b"):
        lab.exec(node, "sed", "-i", "/^ *notify_/d", "/etc/keepalived/keepalived.conf")
    return lab


def start_keepalived(lab: LabUnderTest) -> None:
    """In both nodes, as the lab does it."""
    for node in ("a", "b"):
        ask(lab.lab, {"do": "start", "node": node, "program": "keepalived"})


def vip_on(lab: LabUnderTest) -> list[str]:
    """The nodes whose kernel has the VIP."""
    return [name for name, node in lab.status()["nodes"].items() if VIP in node["addresses"]]


def test_keepalived_in_the_nodes_stop_kill_freeze_and_heal(plain: LabUnderTest) -> None:
    lab = plain
    start_keepalived(lab)
    (first,) = lab.wait_until(lambda: vip_on(lab), 15, "one keepalived is master")
    second = "b" if first == "a" else "a"
    lab.fail(first, "stop")
    lab.wait_until(lambda: vip_on(lab) == [second], 10, f"{second} took over")
    lab.wait_until(lambda: lab.status()["nodes"][first]["keepalived"] == "stopped", 5)
    ask(lab.lab, {"do": "start", "node": first, "program": "keepalived"})
    lab.wait_until(lambda: lab.status()["nodes"][first]["keepalived"] == "running", 5)
    lab.fail(second, "kill")
    lab.wait_until(lambda: vip_on(lab) == ["a", "b"], 10, f"{first} took over; the killed one left the address behind")
    ask(lab.lab, {"do": "start", "node": second, "program": "keepalived"})
    lab.wait_until(lambda: vip_on(lab) == [first], 10, f"{second} came back as backup")
    lab.fail(first, "freeze")
    assert lab.status()["nodes"][first]["keepalived"] == "frozen"
    assert "frozen" in lab.awsha("lab", "exec", first, "--", "true", check=False).stderr
    lab.wait_until(lambda: second in vip_on(lab), 10, f"{second} took over")
    lab.heal(first)
    assert lab.status()["nodes"][first]["keepalived"] == "running"
    lab.fail(second, "power-off")
    assert lab.status()["nodes"][second]["keepalived"] == "off"


def test_vrrp_filtered_from_the_start_makes_both_master(lab: LabUnderTest) -> None:
    lab.up("--no-agent", "--no-wait", "--volumes", "0", "--advert-int", "0.1", "--vrrp-filtered")
    lab.wait_until(lambda: {n["vrrp_role"] for n in lab.status()["nodes"].values()} == {"master"}, 15, "two masters")


# Up and down


def test_five_times_up_and_down_leave_nothing(lab: LabUnderTest) -> None:
    for _ in range(5):
        ec2 = Ec2(lab.up(*BARE))
        ec2.mount("a")
        lab.down()
        assert machine() == NOTHING


def test_a_lab_whose_daemon_was_killed_is_taken_away_from_names_alone(lab: LabUnderTest) -> None:
    ec2 = Ec2(lab.up(*BARE))
    ec2.mount("a")
    (pid,) = sweep.daemon_pids(lab.lab)
    os.kill(pid, signal.SIGKILL)
    lab.wait_until_gone(pid)
    assert "no lab is up" in lab.awsha("lab", "status", check=False).stderr
    lab.awsha("lab", "down")
    assert sweep.leftovers(lab.lab) == []
    assert lab.awsha("lab", "down").stdout.startswith("no lab was up")


def test_sigterm_takes_everything_away(lab: LabUnderTest) -> None:
    lab.up(*BARE)
    (pid,) = sweep.daemon_pids(lab.lab)
    os.kill(pid, signal.SIGTERM)
    lab.wait_until_gone(pid)
    assert sweep.leftovers(lab.lab) == []


def test_up_again_after_a_crash_and_twice(lab: LabUnderTest) -> None:
    lab.up(*BARE)
    again = lab.awsha("lab", "up", check=False)
    assert (again.returncode, "up already" in again.stderr) == (1, True)
    (pid,) = sweep.daemon_pids(lab.lab)
    os.kill(pid, signal.SIGKILL)
    lab.wait_until_gone(pid)
    lab.up(*BARE)
    assert lab.exec("a", "hostname").stdout == "a\n"


def test_two_labs_side_by_side(bare: LabUnderTest, lab: LabUnderTest) -> None:
    lab.up(*BARE, "--nodes", "3")
    assert sorted(lab.status()["nodes"]) == ["a", "b", "c"]
    lab.down()
    assert bare.exec("a", "hostname").stdout == "a\n"
    assert sorted(bare.status()["nodes"]) == ["a", "b"]


def test_an_up_that_fails_says_why_and_leaves_nothing(lab: LabUnderTest) -> None:
    done = lab.awsha("lab", "up", "--latency", "none", "--deadline", "1", check=False)
    assert done.returncode == 1
    assert "after 1 s" in done.stderr
    assert "daemon.log" in done.stderr
    assert sweep.leftovers(lab.lab) == []
    bad = lab.awsha("lab", "up", "--nodes", "99", "--vips", "0", check=False)
    assert bad.returncode == 1
    assert "--nodes 99" in bad.stderr
    assert "--vips 0" in bad.stderr


def test_a_prefix_that_could_match_another_labs_names_is_refused() -> None:
    environment = {**os.environ, "AWSHA_LAB": "awshalab-2"}
    argv = [AWSHA, "lab", "status"]
    assert subprocess.run(argv, env=environment, capture_output=True, check=False, timeout=20).returncode == 78


# With awsha


def test_a_whole_pair_comes_up_and_hands_over(lab: LabUnderTest) -> None:
    lab.up()
    assert lab.holder() == "a"
    facts = lab.status()
    assert facts["nodes"]["a"]["vrrp_role"] == "master"
    assert facts["nodes"]["b"]["vrrp_role"] == "backup"
    assert facts["ec2"]["addresses"][VIP] == facts["nodes"]["a"]["instance_id"]
    lab.client_start()
    lab.fail("a", "stop")
    lab.wait_for_holder("b")
    lab.nothing_lost()
