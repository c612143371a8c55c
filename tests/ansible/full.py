"""docs/ansible.md as a person would follow it: two fresh systemd containers become a pair, are changed and upgraded.

`make ansible` runs it; it takes minutes. `make test` does not: tests/adapters/test_ansible.py has what is quick.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from awsha.host.keepalived import start_time
from awsha.lab import sweep
from awsha.lab.control import ask
from awsha.lab.settings import REGION, Shape
from awsha.lab.start import start, stop
from tests.ansible import wheels
from tests.lab.conftest import AWSHA, skip
from tests.nspawn import rootfs
from tests.nspawn.conftest import Containers, sweep_dead_runs, why_not_here
from tests.tools.pages import ROOT, Block, blocks

pytestmark = [pytest.mark.root, pytest.mark.lab, pytest.mark.timeout(1200)]

PAGE = ROOT / "docs/ansible.md"
VARS = "group_vars/awsha.yml"
# What the nodes of the lab need beyond the page: a way in, and an index without a network.
OURS = """
ansible_connection: node
ansible_user: root
ansible_python_interpreter: /usr/bin/python3
awsha_pip_args: --no-index --find-links /srv/wheels
"""
PLAY_DEADLINE_S = 900
SETTLE_S = 60.0
RECAP = re.compile(r"^(\w+) +: ok=\d+ +changed=(\d+) +unreachable=(\d+) +failed=(\d+)", re.MULTILINE)
Done = subprocess.CompletedProcess[str]


# What the containers of tests/nspawn bring along, and an instance that nobody has touched has not. The application is
# the lab's server of records, out of what the playbook installs.
FORGET = """
systemctl disable --now awsha-agent.service keepalived.service
rm -rf /usr/bin/awsha /opt/awsha/bin /run/awsha /etc/systemd/system/*.wants/awsha-agent.service
rm -rf /etc/systemd/system/*.wants/keepalived.service /usr/lib/systemd/system/awsha-* /etc/awsha/* /etc/keepalived/*
rm -rf /usr/lib/systemd/system/keepalived.service.d /var/lib/awsha/*
sed -i 's,/opt/awsha/bin/,/opt/awsha/0.1.0/bin/,' /etc/systemd/system/records.service
systemctl daemon-reload
systemctl reset-failed
test ! -e /usr/sbin/keepalived
"""


class Fresh(Containers):
    """A pair of containers with nothing on them."""

    def boot(self) -> Fresh:
        """Start the daemon and both containers, and take away what is not to be there yet."""
        shape = Shape(latency="none", agent=False, keepalived=False)
        daemon = ["tests.nspawn.daemon", str(rootfs.rootfs(fresh=True))]
        start(self.lab, shape, SETTLE_S, converged=False, daemon=daemon)
        for node in self.status()["nodes"]:
            self.run(node, "systemctl", "is-system-running", "--wait", check=False)
            self.run(node, "sh", "-c", FORGET)
        return self

    def version(self, node: str) -> str:
        """What runs there."""
        return self.run(node, "awsha", "--version").split()[-1]

    def keepalived(self, node: str) -> str:
        """The process of keepalived there: another one means that it was restarted."""
        return self.show(node, "keepalived", "MainPID")


class Controller:
    """The machine on which ansible-playbook runs, with the reader's own credentials."""

    def __init__(self, pair: Fresh, folder: Path) -> None:
        """Copy conf/ansible, and write the page's variables."""
        self.folder = folder / "ansible"
        shutil.copytree(ROOT / "conf/ansible", self.folder)
        (self.folder / "dist").mkdir()
        [variables] = [block.text for block in blocks(PAGE) if block.text.startswith(f"# {VARS}")]
        (self.folder / VARS).parent.mkdir()
        (self.folder / VARS).write_text(variables.replace("postgresql.service", "records.service") + OURS)
        nodes = {facts["address"]: self._way_in(pair, name) for name, facts in pair.status()["nodes"].items()}
        (folder / "nodes.json").write_text(json.dumps(nodes))
        self.environment = {
            **os.environ,
            "PATH": f"{wheels.PYTHON.parent}:{Path(AWSHA).parent}:{os.environ['PATH']}",
            "LC_ALL": "C.UTF-8",
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{ask(pair.lab, {'do': 'endpoint'})['port']}",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_REGION": REGION,
            "AWS_ACCESS_KEY_ID": "lab",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "ANSIBLE_HOME": str(folder / "home"),
            "ANSIBLE_CONNECTION_PLUGINS": str(ROOT / "tests/ansible/connection"),
            "ANSIBLE_PIPELINING": "1",
            "AWSHA_TEST_NODES": str(folder / "nodes.json"),
        }

    @staticmethod
    def _way_in(pair: Fresh, name: str) -> dict[str, object]:
        where = ask(pair.lab, {"do": "enter", "node": name})
        return {
            "pid": where["pid"],
            "environment": {**where["environment"], "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        }

    def run(self, text: str, *, code: int = 0) -> str:
        """What shell lines print; they end with `code`."""
        done = subprocess.run(
            ["bash", "-euc", text], cwd=self.folder, env=self.environment, stdin=subprocess.DEVNULL,
            capture_output=True, text=True, timeout=PLAY_DEADLINE_S, check=False,
        )  # fmt: skip
        said = f"{text}\n{done.stdout}{done.stderr}"
        print(said)  # noqa: T201 - pytest shows it when the test fails, and `-s` always
        assert done.returncode == code, said
        return said

    def section(self, heading: str) -> list[str]:
        """Run the blocks of one section of the page that are marked `ansible`; what each printed."""
        lines = PAGE.read_text().splitlines()
        first = lines.index(f"## {heading}")
        last = next((i for i, line in enumerate(lines) if i > first and line.startswith("## ")), len(lines))
        return [self.run(block.text) for block in blocks(PAGE) if first < block.line <= last and self._mine(block)]

    @staticmethod
    def _mine(block: Block) -> bool:
        return block.who == "ansible"

    def choose(self, version: str) -> None:
        """Write a version into the variables."""
        file = self.folder / VARS
        file.write_text(re.sub(r"^awsha_version: .*$", f'awsha_version: "{version}"', file.read_text(), flags=re.M))


def changed(said: str) -> dict[str, int]:
    """Node -> how many tasks changed something there. Asserts that none failed."""
    found = {}
    for node, count, *failed in RECAP.findall(said):
        assert failed == ["0", "0"], said
        found[node] = int(count)
    return found


@pytest.fixture(scope="module")
def pair() -> Iterator[Fresh]:
    skip(why_not_here())
    sweep_dead_runs()
    fresh = Fresh(f"u{os.getpid()}_{start_time(os.getpid())}")
    try:
        yield fresh.boot()
    finally:
        stop(fresh.lab)
        assert sweep.leftovers(fresh.lab) == []


@pytest.fixture(scope="module")
def controller(pair: Fresh, tmp_path_factory: pytest.TempPathFactory) -> Controller:
    """Nodes and volume have their tags; the nodes' index has what awsha depends on; dist/ has its wheels."""
    folder = tmp_path_factory.mktemp("controller")
    controller = Controller(pair, folder)
    status = pair.status()
    ec2 = boto3.client(
        "ec2", endpoint_url=controller.environment["AWS_ENDPOINT_URL"], region_name=REGION,
        aws_access_key_id="lab", aws_secret_access_key="lab",
    )  # fmt: skip
    [volume] = status["ec2"]["volumes"]
    nodes = [facts["instance_id"] for facts in status["nodes"].values()]
    ec2.create_tags(Resources=[*nodes, volume], Tags=[{"Key": "awsha:pair", "Value": "db"}])
    ec2.create_tags(Resources=[volume], Tags=[{"Key": "awsha:vip", "Value": "10.0.0.100"}])
    index = ROOT / "build/wheels"
    index.mkdir(parents=True, exist_ok=True)
    wheels.dependencies(index)
    for name in status["nodes"]:
        shutil.copytree(index, pair.inside(name, "/srv/wheels"))
        pair.inside(name, "/var/lib/apt/lists").touch()  # as if they had been fetched today: there is no network
    wheels.build(controller.folder / "dist", folder, "0.1.0")
    wheels.build(controller.folder / "dist", folder, "0.1.9", agent="raise SystemExit(3)")
    wheels.build(controller.folder / "dist", folder, "0.2.0")
    return controller


def test_two_fresh_instances_become_a_pair(pair: Fresh, controller: Controller):
    controller.section("Before")
    said = controller.section("A pair")
    assert min(changed(said[-1]).values()) > 5
    pair.settled()
    pair.client_start()
    texts = {pair.run(node, "cat", "/etc/awsha/awsha.toml") for node in "ab"}
    assert len(texts) == 1
    pair.nobody_was_fenced()


def test_a_second_run_changes_nothing(pair: Fresh, controller: Controller):
    master, other = pair.settled()
    before = {node: pair.keepalived(node) for node in "ab"}, pair.served_by(master)
    [said] = controller.section("Again")
    assert changed(said) == {"a": 0, "b": 0}
    assert ({node: pair.keepalived(node) for node in "ab"}, pair.served_by(master)) == before
    assert pair.settled() == (master, other)


def test_what_differs_is_mended_and_moves_nothing(pair: Fresh, controller: Controller):
    master, other = pair.settled()
    before = {node: pair.keepalived(node) for node in "ab"}, pair.served_by(master)
    agents = {node: pair.show(node, "awsha-agent", "MainPID") for node in "ab"}
    with pair.inside(other, "/etc/keepalived/keepalived.conf").open("a") as file:
        file.write("# by hand\n")
    [said] = controller.section("A change")
    assert set(changed(said)) == {"a", "b"}
    assert "by hand" not in pair.run(other, "cat", "/etc/keepalived/keepalived.conf")
    for node in "ab":
        assert "handover_s = 90" in pair.run(node, "cat", "/etc/awsha/awsha.toml")
        assert pair.show(node, "awsha-agent", "MainPID") != agents[node]
    assert ({node: pair.keepalived(node) for node in "ab"}, pair.served_by(master)) == before
    assert pair.settled() == (master, other)
    assert changed(controller.run("ansible-playbook site.yml --check")) == {"a": 0, "b": 0}


def test_a_version_that_does_not_work_stays_out_and_nothing_is_switched(pair: Fresh, controller: Controller):
    master, other = pair.settled()
    before, count = pair.served_by(master), len(pair.events())
    controller.choose("0.1.9")
    refused = controller.run("ansible-playbook site.yml", code=2)
    assert "ansible-playbook upgrade.yml" in refused
    said = controller.run("ansible-playbook upgrade.yml", code=2)
    assert f"awsha 0.1.9 does not work on {other}, which has 0.1.0 again" in said
    assert pair.settled() == (master, other)
    assert [pair.version(node) for node in "ab"] == ["0.1.0", "0.1.0"]
    assert pair.served_by(master) == before
    assert not [text for text in pair.events()[count:] if "leaves" in text or "has mounted" in text]
    pair.nobody_was_fenced()


def test_a_pair_that_is_not_well_is_not_touched(pair: Fresh, controller: Controller):
    master, other = pair.settled()
    before = pair.served_by(master)
    pair.run(other, "awsha", "release", "data")
    controller.choose("0.2.0")
    said = controller.run("ansible-playbook upgrade.yml -e awsha_settle_retries=1", code=2)
    assert f"{other} is not well" in said
    assert "awsha resume" in said, "what to type next is shown"
    assert "0.2.0" not in pair.run(other, "ls", "/opt/awsha").split(), "nothing was begun"
    pair.run(other, "awsha", "resume", "data")
    assert pair.settled() == (master, other)
    assert pair.served_by(master) == before


def test_an_upgrade_moves_the_service_once_and_loses_nothing(pair: Fresh, controller: Controller):
    master, other = pair.settled()
    keepalived, count = {node: pair.keepalived(node) for node in "ab"}, len(pair.events())
    controller.choose("0.1.0")
    said = controller.section("Another version")
    changed(said[0])
    assert pair.settled() == (other, master)
    assert [pair.version(node) for node in "ab"] == ["0.2.0", "0.2.0"]
    assert {node: pair.keepalived(node) for node in "ab"} == keepalived
    assert len([text for text in pair.events()[count:] if "has mounted" in text]) == 1
    pair.nobody_was_fenced()
    pair.nothing_lost()
    assert changed(controller.run("ansible-playbook upgrade.yml")) == {"a": 0, "b": 0}
    assert changed(controller.run("ansible-playbook site.yml")) == {"a": 0, "b": 0}
