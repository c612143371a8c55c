"""A pair whose awsha.toml names no node: found by tags, agreed upon, and known without EC2 from then on."""

from __future__ import annotations

import json

import boto3
import pytest

from awsha.lab.control import ask
from tests.lab.conftest import LabUnderTest

pytestmark = [pytest.mark.root, pytest.mark.lab]
DISCOVER = '[discover]\ntags = { "awsha:pair" = "db" }\n\n'


def tag_the_pair(lab: LabUnderTest) -> None:
    port = ask(lab.lab, {"do": "endpoint"})["port"]
    where = {"endpoint_url": f"http://127.0.0.1:{port}", "region_name": "eu-west-1"}
    ec2 = boto3.client("ec2", **where, aws_access_key_id="lab", aws_secret_access_key="lab")
    nodes = [facts["instance_id"] for facts in lab.status()["nodes"].values()]
    ec2.create_tags(Resources=nodes, Tags=[{"Key": "awsha:pair", "Value": "db"}])


def name_no_node(lab: LabUnderTest) -> None:
    for name in lab.status()["nodes"]:
        file = lab.lab.node_dir(name) / "etc-awsha/awsha.toml"
        text = file.read_text()
        file.write_text(text[: text.index("[[node]]")] + DISCOVER + text[text.index("[[group]]") :])


def restart_agent(lab: LabUnderTest, name: str) -> None:
    lab.fail(name, "agent-kill")
    lab.wait_until(lambda: lab.status()["nodes"][name]["agent"] != "running", 10)
    lab.heal(name)


def test_a_pair_by_tags_agrees_and_fails_over_and_needs_ec2_for_it_once(lab: LabUnderTest):
    lab.up()
    holder = str(lab.holder())
    [standby] = [name for name in lab.status()["nodes"] if name != holder]
    tag_the_pair(lab)
    name_no_node(lab)
    for name in (holder, standby):
        restart_agent(lab, name)

    def found(name: str) -> list[dict[str, str]]:
        done = lab.exec(name, "awsha", "check", "--json", check=False)
        findings: list[dict[str, str]] = json.loads(done.stdout)["findings"]
        return findings

    for name in (holder, standby):  # a fingerprint is published shortly after the agent's start
        lab.wait_until(lambda name=name: not found(name), 30, f"{name} agrees with its peer and its keepalived.conf")

    lab.fault("DescribeInstances", "error", code="InternalError", times=1000)
    restart_agent(lab, standby)
    shown = json.loads(lab.exec(standby, "awsha", "config", "show", "--json").stdout)["values"]
    nodes = {item["value"]: item["source"] for item in shown if item["key"] in ("node[0].name", "node[1].name")}
    assert nodes == {"a": "found", "b": "found"}
    ask(lab.lab, {"do": "clear_faults"})
    lab.fail(holder, "kill")
    lab.wait_for_holder(standby)
    assert lab.status()["violations"] == []
