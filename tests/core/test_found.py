"""Nodes and volumes by tags: which are chosen, in which order, and what is refused."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.config.fingerprint import fingerprint
from awsha.config.init import Wish, compose
from awsha.config.load import Loaded, parse, with_nodes
from awsha.config.problems import ConfigError
from awsha.config.provenance import values
from awsha.core.errors import AwshaError
from awsha.core.found import FoundInstance, FoundVolume, name_of, nodes, volume
from awsha.core.policy import Discover, Node
from tests.core.test_config_load import GOOD

TAGS = (("awsha:pair", "db"),)
A = FoundInstance("i-0a", "arn:a", "a", "10.0.0.10", "eu-west-1a", "subnet-1", "running")
B = replace(A, id="i-0b", name="b", address="10.0.0.11", state="stopped")
VOLUME = FoundVolume("vol-1", "arn:v", "data", "eu-west-1a", "in-use", 8, ("i-0a:/dev/sdf",))
TEXT = '[discover]\ntags = { "awsha:pair" = "db" }\n' + GOOD[GOOD.index("[[group]]") :]


def loaded(text: str = TEXT) -> Loaded:
    return parse(text, "awsha.toml")


def problems(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        loaded(text)
    return caught.value.message


def test_nodes_come_in_the_order_of_their_names_whatever_ec2_says_first():
    many = [replace(A, id=f"i-{n}", name=f"db{n}", address=f"10.0.0.{n}") for n in (10, 9, 11)]
    assert [node.name for node in nodes(many, TAGS)] == ["db9", "db10", "db11"]
    assert nodes([B, A], TAGS) == nodes([A, B], TAGS) == (Node("a", "10.0.0.10"), Node("b", "10.0.0.11"))


def test_a_terminated_instance_is_no_node():
    gone = [replace(A, id=f"i-{state}", state=state) for state in ("terminated", "shutting-down")]
    assert len(nodes([A, *gone, B], TAGS)) == 2


@pytest.mark.parametrize(
    ("found", "said"),
    [
        ([], "no instances, and a pair needs two"),
        ([A], "1 instance, and a pair needs two"),
        ([A, replace(B, zone="eu-west-1b", subnet="subnet-2")], "instances in different zones"),
        ([A, replace(B, subnet="subnet-2")], "instances in different subnets"),
        ([A, replace(B, name="a")], "instances that have the same name"),
        ([A, replace(B, name="")], "i-0b, which has no name"),
    ],
)
def test_what_is_no_pair_is_refused_with_the_candidates(found: list[FoundInstance], said: str):
    with pytest.raises(AwshaError) as caught:
        nodes(found, TAGS)
    assert caught.value.exit_code == 78
    assert said in caught.value.message
    assert "awsha:pair=db" in caught.value.message
    assert caught.value.hint
    assert all(f"\n  {item.id} (" in caught.value.message for item in found)


def test_a_volume_is_one_and_near():
    assert volume([VOLUME], TAGS, "eu-west-1a") is VOLUME
    for found, said in (
        ([], "there are no volumes"),
        ([VOLUME, replace(VOLUME, id="vol-2")], "there are 2 volumes"),
        ([replace(VOLUME, zone="eu-west-1b")], "in another zone"),
    ):
        with pytest.raises(AwshaError, match=said) as caught:
            volume(found, TAGS, "eu-west-1a")
        assert all(item.id in caught.value.message for item in found)


def test_the_tag_of_awsha_names_a_node_before_its_name():
    assert name_of({"Name": "pair-a", "awsha:node": "a"}) == "a"
    assert name_of({"Name": "pair-a"}) == "pair-a"
    assert name_of({"other": "x"}) == ""


# --- [discover] ------------------------------------------------------------------------------------------------


def test_with_discover_the_nodes_are_not_known_until_they_are_found():
    first = loaded()
    assert (first.policy.nodes, first.policy.discover, first.complete) == ((), Discover(TAGS), False)
    second = with_nodes(first, nodes([B, A], TAGS))
    assert second.complete
    assert [(n.name, n.priority) for n in second.policy.nodes] == [("a", 150), ("b", 100)]


def test_what_was_found_is_checked_as_if_it_were_written():
    with pytest.raises(ConfigError, match="primary address of node b"):
        with_nodes(loaded(), [Node("a", "10.0.0.10"), Node("b", "10.0.0.100")])
    text = TEXT.replace("vips =", "priorities = { c = 7 }\nvips =")
    assert loaded(text)
    with pytest.raises(ConfigError, match="is not the name of a node"):
        with_nodes(loaded(text), nodes([A, B], TAGS))


def test_nodes_that_found_the_same_have_one_fingerprint_and_others_another():
    same = [fingerprint(with_nodes(loaded(), nodes(found, TAGS)).raw) for found in ([A, B], [B, A])]
    other = fingerprint(with_nodes(loaded(), nodes([A, replace(B, address="10.0.0.12")], TAGS)).raw)
    assert same[0] == same[1] != other


def test_config_show_says_what_was_found():
    shown = {v.key: (v.value, v.source, v.line) for v in values(with_nodes(loaded(), nodes([A, B], TAGS)), {})}
    assert shown["discover.tags"] == ({"awsha:pair": "db"}, "file", 2)
    assert shown["node[1].address"] == ("10.0.0.11", "found", None)
    assert shown["node[1].priority"] == (100, "default", None)


def test_mistakes_in_discover():
    assert "[discover]" in problems(TEXT + '\n[[node]]\nname = "a"\naddress = "10.0.0.10"\n')
    assert "discover.tags: is missing" in problems(TEXT.replace("tags = {", "tag = {").replace("tag =", "names =", 1))
    assert "has 0 nodes" not in problems(TEXT.replace('{ "awsha:pair" = "db" }', '"db"'))
    assert "node: is missing" in problems(GOOD[GOOD.index("[[group]]") :])


# --- ARNs ------------------------------------------------------------------------------------------------------

ARN = "arn:aws:ec2:eu-west-1:123456789012:volume/vol-0123456789abcdef0"


def test_a_volume_may_be_written_as_its_arn():
    text = GOOD.replace("vol-0123456789abcdef0", ARN)
    assert loaded(text).policy.groups[0].volumes[0].id == "vol-0123456789abcdef0"
    again = (
        f'\n[[group.volume]]\nid = "vol-0123456789abcdef0"\nmount = "/srv/two"\n\n{GOOD[GOOD.index("[group.app") :]}'
    )
    assert "taken already" in problems(text[: text.index("[group.app")] + again)
    assert "is in eu-west-1, and region is us-east-1" in problems('region = "us-east-1"\n' + text)
    assert loaded('region = "eu-west-1"\n' + text)
    assert "is not a volume id" in problems(text.replace("volume/vol", "instance/i"))


def test_init_takes_an_arn_for_a_volume():
    text = compose(Wish(["a=10.0.0.10", "b=10.0.0.11"], ["10.0.0.100"], [f"{ARN}:/srv/data"]), "f")
    [volume_read] = parse(text, "f").policy.groups[0].volumes
    assert (volume_read.id, volume_read.mount) == ("vol-0123456789abcdef0", "/srv/data")
