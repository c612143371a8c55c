"""conf/ansible as far as it can be seen without Ansible: `make ansible` lints it and runs it against containers."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from awsha.config.load import parse
from tests.adapters.aws_lab import VIP, VOLUME, A, B, running_servers
from tests.adapters.test_discover import tag
from tests.core.test_docs import wrong_flag
from tests.tools.pages import ROOT

FOLDER = ROOT / "conf/ansible"
ROLE = FOLDER / "roles/awsha"
WORDS = {"name", "when", "register", "changed_when", "failed_when", "check_mode", "until", "retries", "delay", "vars",
         "loop", "notify", "listen", "delegate_to"}  # fmt: skip
DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
FOUND = {
    "region": "eu-west-1",
    "instances": [{"name": "a", "address": "10.0.0.10"}, {"name": "b", "address": "10.0.0.11"}],
    "volumes": [{"id": VOLUME}],
    "vips": [VIP],
}


def tasks(items: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """All tasks, those in blocks and plays included."""
    for item in items:
        inner = [task for part in ("block", "rescue", "tasks") for task in item.get(part, [])]
        if inner:
            yield from tasks(inner)
        elif "hosts" not in item:
            yield item


def all_tasks() -> list[dict[str, Any]]:
    files = [*FOLDER.glob("*.yml"), *ROLE.glob("tasks/*.yml"), *ROLE.glob("handlers/*.yml")]
    return [task for file in sorted(files) for task in tasks(yaml.safe_load(file.read_text()))]


def test_it_needs_no_collection():
    modules = {word for task in all_tasks() for word in set(task) - WORDS}
    assert all(re.fullmatch(r"ansible\.builtin\.\w+", word) for word in modules), modules


def test_its_commands_of_awsha_exist():
    lines = [str(task.get("ansible.builtin.command", "")) for task in all_tasks()]
    found = [re.sub(r"{{.*?}}", "X", line) for line in lines if "/awsha " in line]
    assert len(found) >= 8
    for line in found:
        assert wrong_flag("awsha " + line.partition("/awsha ")[2]) == "", line


def test_keepalived_is_never_restarted():
    """A restart of it is a handover."""
    for task in all_tasks():
        service = task.get("ansible.builtin.systemd_service", {})
        if "keepalived" in str(service) + str(task.get("loop", "")):
            assert service.get("state", "") != "restarted"


def test_every_variable_has_a_default_and_the_described_ones_are_these():
    described = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert set(described) <= set(DEFAULTS)
    used = set(re.findall(r"\bawsha_\w+", "".join(file.read_text() for file in ROLE.glob("t*/*"))))
    made = {task["register"] for task in all_tasks() if "register" in task}
    made |= {
        name for task in all_tasks() for name in (*task.get("vars", {}), *task.get("ansible.builtin.set_fact", {}))
    }
    assert used <= set(DEFAULTS) | made
    assert set(DEFAULTS) <= used | {"awsha_home"}


def rendered(**values: Any) -> str:
    environment = jinja2.Environment(trim_blocks=True, undefined=jinja2.StrictUndefined, autoescape=False)  # noqa: S701
    environment.filters["to_json"] = json.dumps
    text = (ROLE / "templates/awsha.toml.j2").read_text()
    return environment.from_string(text).render({**DEFAULTS, "awsha_found": FOUND, **values}) + "\n"


def test_the_template_with_its_defaults_is_a_configuration():
    policy = parse(rendered(), "awsha.toml").policy
    [group] = policy.groups
    assert [(node.name, node.address) for node in policy.nodes] == [("a", "10.0.0.10"), ("b", "10.0.0.11")]
    assert [(volume.id, volume.mount) for volume in group.volumes] == [(VOLUME, "/srv/data")]
    assert group.vips == (VIP,)


def test_the_template_with_everything_is_one_too():
    values = {
        "awsha_unit": "x.service",
        "awsha_timeouts": {"handover_s": 90, "release_grace_s": 4},
        "awsha_fence": "none",
    }
    text = rendered(**values, awsha_vips=["10.0.0.101"], awsha_advert_int=0.5)
    [group] = parse(text, "awsha.toml").policy.groups
    assert (group.vips, group.timeouts.handover_s) == (("10.0.0.101",), 90)
    assert parse(rendered(awsha_mount=""), "awsha.toml").policy.groups[0].volumes == ()


def test_the_wheel_brings_every_unit():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    shared = wheel["shared-data"]
    units = {str(file.relative_to(ROOT)) for file in (ROOT / "systemd").rglob("*") if file.is_file()}
    assert {source: f"share/awsha/{source}" for source in units} == shared
    copied = next(task["loop"] for task in all_tasks() if task.get("name") == "Copy the units")
    assert {f"systemd/{name}" for name in copied} == units


def inventory(**environment: str) -> subprocess.CompletedProcess[str]:
    program = Path(sys.executable).parent / "awsha"
    return subprocess.run(
        [sys.executable, str(FOLDER / "inventory/pair.py"), "--list"],
        env={**os.environ, "AWSHA": str(program), "AWS_REGION": "eu-west-1", **environment},
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


def test_the_inventory_finds_the_nodes_by_their_tags(monkeypatch: pytest.MonkeyPatch):
    with running_servers() as servers:
        servers.fresh(monkeypatch)
        monkeypatch.setenv("AWS_REGION", "eu-west-1")
        tag("awsha:pair", "db", A, B)
        found = json.loads(inventory().stdout)
        assert found["awsha"] == {"hosts": ["a", "b"], "vars": {"awsha_tags": {"awsha:pair": "db"}}}
        assert found["_meta"]["hostvars"] == {"a": {"ansible_host": "10.0.0.10"}, "b": {"ansible_host": "10.0.0.11"}}
        nothing = inventory(AWSHA_TAGS="awsha:pair=other")
    assert (nothing.returncode, "finds no pair" in nothing.stderr) == (1, True)


def test_the_inventory_says_what_awsha_said():
    done = inventory(AWSHA="/nonexistent/awsha")
    assert (done.returncode, "awsha discover" in done.stderr) == (1, True)
