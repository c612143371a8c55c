"""What the generated keepalived.conf says. What keepalived says about it: tests/adapters/test_keepalived_conf.py."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path, PurePosixPath

import pytest

from awsha.config.init import Wish, compose
from awsha.config.keepalived import NOTIFIES, render, startup_delay
from awsha.config.load import parse, read
from awsha.core.errors import AwshaError
from awsha.core.policy import Policy

COMMAND = "/usr/bin/env"  # exists everywhere and belongs to root: keepalived looks at it
ROOT = Path(__file__).parents[2]


def policy(nodes: int = 2, groups: str = "", extra: str = "") -> Policy:
    text = compose(Wish([f"{chr(97 + i)}=10.0.0.{10 + i}" for i in range(nodes)], ["10.0.0.100"]), "f")
    return parse(text.replace("[[group]]\n", "[[group]]\n" + extra) + groups, "f").policy


def block(text: str, name: str) -> list[str]:
    """The words inside `name { … }`."""
    found = re.search(rf"^ *{re.escape(name)} \{{\n(.*?)^ *\}}", text, re.MULTILINE | re.DOTALL)
    assert found, name
    return [line.strip() for line in found[1].splitlines() if line.strip()]


CROSSING = """
[[group]]
name = "web"
virtual_router_id = 52
vips = ["10.0.0.101", "10.0.0.102"]
advert_int = 0.1
priorities = { a = 100, b = 150 }
"""
SHAPES: dict[str, Callable[[], Policy]] = {
    "pair": policy,
    "three nodes": lambda: policy(3),
    "two groups crossing": lambda: policy(groups=CROSSING),
    "four nodes, two groups": lambda: policy(4, CROSSING),
    "fast": lambda: policy(extra="advert_int = 0.1\n"),
    "fastest": lambda: policy(extra="advert_int = 0.01\n"),
    "slowest": lambda: policy(extra="advert_int = 40.95\n"),
    "sample": lambda: replace(sample(), groups=tuple(replace(group, interface="eth0") for group in sample().groups)),
}


def sample() -> Policy:
    return read(ROOT / "conf" / "awsha.toml").policy


def test_a_node_is_never_its_own_peer() -> None:
    built = policy(4, CROSSING)
    for node in built.nodes:
        text = render(built, node.name, command=COMMAND)
        others = [other.address for other in built.nodes if other is not node]
        assert text.count(f"    unicast_src_ip {node.address}\n") == 2
        assert block(text, "unicast_peer") == others
        assert f"router_id {node.name}\n" in text


def test_groups_that_cross() -> None:
    built = policy(groups=CROSSING)
    found = {
        node.name: re.findall(r"^    priority (\d+)$", render(built, node.name, command=COMMAND), re.MULTILINE)
        for node in built.nodes
    }
    assert found == {"a": ["150", "100"], "b": ["100", "150"]}
    text = render(built, "a", command=COMMAND)
    assert re.findall(r"^    advert_int (.*)$", text, re.MULTILINE) == ["1", "0.1"]
    assert re.findall(r"^    virtual_router_id (.*)$", text, re.MULTILINE) == ["51", "52"]
    assert "        10.0.0.102/32 dev eth0 no_track\n" in text


def test_notify_lines() -> None:
    text = render(policy(), "a", command="/opt/x/awsha")
    for role in NOTIFIES:
        assert f'    notify_{role} "/opt/x/awsha notify {role} data"\n' in text


def test_the_run_directory_moves() -> None:
    text = render(policy(), "a", command=COMMAND, run_dir=PurePosixPath("/run/other"))
    assert '    file "/run/other/health/data"\n' in text
    assert '"/bin/mkdir -p -m 0700 /run/other /run/other/health"' in text
    assert "/run/awsha" not in text


@pytest.mark.parametrize("command", ["awsha", "/opt/my awsha", '/opt/a"b', "/opt/a#b", "/opt/a!b", "/opt/$x", "", "/é"])
def test_commands_that_the_syntax_cannot_carry(command: str) -> None:
    with pytest.raises(AwshaError) as caught:
        render(policy(), "a", command=command)
    assert caught.value.exit_code == 78


def test_case_05_a_booting_node_listens_first() -> None:
    assert startup_delay(policy()) == 5
    assert startup_delay(policy(groups=CROSSING)) == 5
    assert startup_delay(SHAPES["fast"]()) == 1
    assert startup_delay(SHAPES["slowest"]()) == 30
    assert "    vrrp_startup_delay 5\n" in render(policy(), "a", command=COMMAND)
    assert "    vrrp_startup_delay 0.25\n" in render(policy(), "a", command=COMMAND, startup_delay_s=0.25)


def test_case_35_nobody_preempts() -> None:
    text = render(policy(3, CROSSING), "b", command=COMMAND)
    assert text.count("    state BACKUP\n    nopreempt\n") == 2
    assert "state MASTER" not in text
