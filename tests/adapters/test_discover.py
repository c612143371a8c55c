"""`awsha discover` and [discover], against EC2 as the lab plays it."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from awsha.agent import discovery
from awsha.aws.ec2 import Ec2
from awsha.cli.main import cli
from awsha.config.load import load, parse
from awsha.core.errors import AwshaError
from awsha.core.policy import Node
from tests.adapters.aws_lab import OTHER_ZONE, SECOND, VIP, VOLUME, A, B, Lab, Servers, running_servers

PAIR = ("--tag", "awsha:pair=db")
GROUP = f"""
region = "eu-west-1"
[[group]]
name = "data"
virtual_router_id = 51
vips = ["{VIP}"]
"""
TEXT = '[discover]\ntags = { "awsha:pair" = "db" }\n'
NODES = [("a", "10.0.0.10"), ("b", "10.0.0.11")]


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with running_servers() as both:
        yield both


@pytest.fixture
def lab(servers: Servers, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Lab:
    lab = servers.fresh(monkeypatch)
    monkeypatch.setenv("AWS_REGION", "eu-west-1")
    monkeypatch.setenv("AWSHA_STATE_DIR", str(tmp_path / "state"))
    tag("awsha:pair", "db", A, B, VOLUME)
    return lab


def tag(key: str, value: str, *resources: str) -> None:
    ec2 = Ec2("eu-west-1")
    ec2.ask("CreateTags", {"Resources": list(resources), "Tags": [{"Key": key, "Value": value}]})
    ec2.close()


def run(config: Path, *words: str) -> Result:
    return CliRunner().invoke(cli, ["--config", str(config), "discover", *words], env={"COLUMNS": "200"})


def code(config: Path, *words: str) -> int:
    """The exit code, as main() makes one of what the command returns."""
    words = ("--config", str(config), "discover", *words)
    value = CliRunner().invoke(cli, words, standalone_mode=False).return_value
    return int(value or 0)


def config(folder: Path) -> Path:
    file = folder / "awsha.toml"
    file.write_text(GROUP.replace("[[group]]", TEXT + "[[group]]", 1))
    return file


@pytest.mark.usefixtures("lab")
def test_it_lists_what_the_tags_find(tmp_path: Path):
    found = json.loads(run(tmp_path / "none", *PAIR, "--json").stdout)
    assert found["region"] == "eu-west-1"
    assert [(i["id"], i["name"], i["address"], i["zone"], i["state"]) for i in found["instances"]] == [
        (A, "a", "10.0.0.10", "eu-west-1a", "running"),
        (B, "b", "10.0.0.11", "eu-west-1a", "running"),
    ]
    [volume] = found["volumes"]
    account = found["instances"][0]["arn"].split(":")[4]
    assert account.isdigit()
    assert volume["arn"] == f"arn:aws:ec2:eu-west-1:{account}:volume/{VOLUME}"
    assert (volume["state"], volume["size"], volume["attached"]) == ("available", 8, [])
    ec2 = Ec2("eu-west-1")
    ec2.attach(VOLUME, B, "/dev/sdf")
    ec2.close()
    table = run(tmp_path / "none", *PAIR).stdout
    for word in (f"instance/{A}", "10.0.0.11", f"volume/{VOLUME}", f"{B}:/dev/sdf", "in-use"):
        assert word in table


@pytest.mark.usefixtures("lab")
def test_without_tags_it_lists_everything_and_writes_nothing(tmp_path: Path):
    found = json.loads(run(tmp_path / "none", "--json").stdout)
    assert len(found["instances"]) == 3
    assert len(found["volumes"]) == 2
    result = run(tmp_path / "none", "-o", str(tmp_path / "new"), "--vip", VIP)
    assert isinstance(result.exception, AwshaError)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("lab")
def test_tags_that_nothing_has_find_nothing(tmp_path: Path):
    result = run(tmp_path / "none", "--tag", "awsha:pair=d*")
    assert "no instances" in result.stdout
    assert "no volumes" in result.stdout
    assert code(tmp_path / "none", "--tag", "awsha:pair=d*") == 1
    assert code(tmp_path / "none", "--tag", "awsha:pair=d*", "--json") == 1
    assert code(tmp_path / "none", *PAIR) == 0


@pytest.mark.usefixtures("lab")
def test_volumes_without_an_instance_have_no_arn_rather_than_a_wrong_one(tmp_path: Path):
    tag("only", "volumes", VOLUME)
    words = ("--tag", "only=volumes")
    found = json.loads(run(tmp_path / "none", *words, "--json").stdout)
    assert [(v["id"], v["arn"]) for v in found["volumes"]] == [(VOLUME, "")]
    table = run(tmp_path / "none", *words).stdout
    assert VOLUME in table
    assert ":*:" not in table


@pytest.mark.usefixtures("lab")
def test_json_says_by_which_tags_and_a_file_is_written_beside_it(tmp_path: Path):
    file = tmp_path / "awsha.toml"
    words = (*PAIR, "--volume-tag", "Name=logs", "--vip", VIP, "-o", str(file), "--json")
    result = run(tmp_path / "none", *words)
    found = json.loads(result.stdout)
    assert (found["tags"], found["volume_tags"]) == ({"awsha:pair": "db"}, {"Name": "logs"})
    assert load(file).groups[0].vips == (VIP,)
    assert "wrote" in result.stderr


@pytest.mark.usefixtures("lab")
def test_a_dash_is_standard_output(tmp_path: Path):
    result = run(tmp_path / "none", *PAIR, "--vip", VIP, "--mount", "/srv/data", "-o", "-")
    assert [(n.name, n.address) for n in parse(result.stdout, "-").policy.nodes] == NODES
    assert list(tmp_path.iterdir()) == []


@pytest.mark.usefixtures("lab")
def test_only_a_file_of_its_own_is_replaced(tmp_path: Path):
    """No directory is made for a slip of the pen, and a link is somebody's way to keep the file elsewhere."""
    (tmp_path / "there").write_text("mine")
    (tmp_path / "link").symlink_to("there")
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for name, said in (
        ("link", "symbolic link"),
        ("dangling", "symbolic link"),
        ("folder", "is a directory"),
        ("pipe", "is no ordinary file"),
        ("missing/awsha.toml", "there is no directory"),
    ):
        for force in ((), ("--force",)):
            error = run(tmp_path / "none", *PAIR, "--vip", VIP, "-o", str(tmp_path / name), *force).exception
            assert isinstance(error, AwshaError), name
            assert (said in error.message, bool(error.hint)) == (True, True)
    assert (tmp_path / "there").read_text() == "mine"
    assert not (tmp_path / "missing").exists()


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize("vip", ["10.1.0.100", "10.0.0.3"])
def test_an_address_that_ec2_would_not_assign_is_not_written(vip: str, tmp_path: Path):
    error = run(tmp_path / "none", *PAIR, "--vip", vip, "-o", str(tmp_path / "new")).exception
    assert isinstance(error, AwshaError)
    assert (error.exit_code, "subnet" in error.message) == (78, True)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("lab")
def test_it_writes_a_configuration(tmp_path: Path):
    file = tmp_path / "etc/awsha.toml"
    result = run(file, *PAIR, "--write", "--vip", VIP, "--mount", "/srv/data")
    assert result.exit_code == 0, result.output
    policy = load(file)
    assert [(n.name, n.address) for n in policy.nodes] == NODES
    assert [(v.id, v.mount) for g in policy.groups for v in g.volumes] == [(VOLUME, "/srv/data")]
    assert policy.region == "eu-west-1"
    again = run(file, *PAIR, "--write", "--vip", VIP)
    assert isinstance(again.exception, AwshaError), "it exists already"
    assert run(file, *PAIR, "--write", "--vip", VIP, "--force").exit_code == 0
    assert load(file).groups[0].volumes == ()


@pytest.mark.usefixtures("lab")
@pytest.mark.parametrize(
    ("more", "said"),
    [
        ((OTHER_ZONE,), "instances in different zones"),
        ((SECOND,), "2 volumes"),
    ],
)
def test_what_is_ambiguous_is_refused_with_the_candidates(more: tuple[str, ...], said: str, tmp_path: Path):
    tag("awsha:pair", "db", *more)
    result = run(tmp_path / "new", *PAIR, "--write", "--vip", VIP, "--mount", "/srv/data")
    error = result.exception
    assert isinstance(error, AwshaError)
    assert (error.exit_code, said in error.message, more[0] in error.message) == (78, True, True)
    assert not (tmp_path / "new").exists()


@pytest.mark.usefixtures("lab")
def test_a_volume_may_have_tags_of_its_own(tmp_path: Path):
    tag("awsha:pair", "db", SECOND)
    words = (*PAIR, "--volume-tag", "Name=logs", "--write", "--vip", VIP, "--mount", "/srv/logs")
    assert run(tmp_path / "new", *words).exit_code == 0
    assert load(tmp_path / "new").groups[0].volumes[0].id == SECOND


@pytest.mark.usefixtures("lab")
def test_the_address_that_moves_may_be_a_tag(tmp_path: Path):
    words = (*PAIR, "--write", "--mount", "/srv/data")
    error = run(tmp_path / "new", *words).exception
    assert isinstance(error, AwshaError)
    assert (error.exit_code, error.hint) == (78, "--vip ADDRESS")
    tag("awsha:vip", f"{VIP} 10.0.0.101", VOLUME)
    tag("awsha:vip", VIP, A)
    assert json.loads(run(tmp_path / "none", *PAIR, "--json").stdout)["vips"] == [VIP, "10.0.0.101"]
    assert run(tmp_path / "new", *words).exit_code == 0
    assert load(tmp_path / "new").groups[0].vips == (VIP, "10.0.0.101")


@pytest.mark.parametrize(
    "words",
    [
        ("--tag", "db"),
        ("--tag", "=db"),
        (*PAIR, *PAIR),
        (*PAIR, "--vip", VIP),
        (*PAIR, "--mount", "/srv/data"),
        (*PAIR, "--group", "data"),
        (*PAIR, "--force"),
        (*PAIR, "--vip", VIP, "--write", "-o", "x"),
        (*PAIR, "--vip", VIP, "-o", "-", "--json"),
        ("--refresh", *PAIR),
        ("--refresh", "--json"),
        ("--refresh", "--write"),
        ("--refresh", "--region", "eu-west-1"),
    ],
)
def test_words_that_mean_nothing_are_refused(words: tuple[str, ...], tmp_path: Path):
    assert run(tmp_path / "none", *words).exit_code == 2


# --- [discover] ------------------------------------------------------------------------------------------------


def nodes(file: Path, *, refresh: bool = False) -> list[tuple[str, str]]:
    """What is found, on a host that is node b."""
    loaded = discovery.read(file, refresh=refresh, addresses=lambda: [("lo", "127.0.0.1"), ("eth0", "10.0.0.11")])
    return [(n.name, n.address) for n in loaded.policy.nodes]


@pytest.mark.usefixtures("lab")
def test_nodes_are_found_by_their_tags(tmp_path: Path):
    assert nodes(config(tmp_path)) == NODES
    tag("awsha:node", "z", A)
    assert nodes(config(tmp_path), refresh=True) == [("b", "10.0.0.11"), ("z", "10.0.0.10")]


@pytest.mark.usefixtures("as_root")
@pytest.mark.usefixtures("lab")
def test_they_are_found_once_and_stand_until_asked_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    file = config(tmp_path)
    assert nodes(file) == NODES
    assert discovery.kept_file().stat().st_mode & 0o777 == 0o600
    tag("awsha:pair", "other", A)  # as good as terminated
    assert nodes(file) == NODES
    monkeypatch.setenv("AWS_REGION", "")
    assert nodes(file) == NODES, "without a word from EC2"
    with pytest.raises(AwshaError, match="1 instance, and a pair needs two"):
        nodes(file, refresh=True)
    assert nodes(file) == NODES, "a refusal forgets nothing"
    discovery.kept_file().write_text("{")
    with pytest.raises(AwshaError, match="1 instance"):
        nodes(file)


@pytest.mark.usefixtures("as_root")
@pytest.mark.usefixtures("lab")
def test_what_an_image_brought_along_does_not_count(tmp_path: Path):
    file = config(tmp_path)
    kept = discovery.kept_file()
    nodes(file)
    kept.write_text(kept.read_text().replace("10.0.0.1", "10.9.9.1"))
    assert nodes(file) == NODES
    assert "10.9.9.1" not in kept.read_text()


@pytest.mark.usefixtures("as_root")
@pytest.mark.usefixtures("lab")
def test_refresh_says_what_it_found(tmp_path: Path):
    file = config(tmp_path)
    assert "node b: 10.0.0.11" in run(file, "--refresh").stdout
    file.write_text(
        GROUP + '\n[[node]]\nname = "a"\naddress = "10.0.0.10"\n[[node]]\nname = "b"\naddress = "10.0.0.11"\n'
    )
    assert isinstance(run(file, "--refresh").exception, AwshaError)


@pytest.mark.usefixtures("lab")
def test_keepalived_and_config_show_know_the_nodes(tmp_path: Path):
    file = config(tmp_path)
    file.write_text('command = "/usr/bin/awsha"\n' + file.read_text())
    words = ["--config", str(file), "keepalived", "--all", "-o", str(tmp_path / "out")]
    assert CliRunner().invoke(cli, words).exit_code == 0
    assert "10.0.0.11" in (tmp_path / "out/a/keepalived.conf").read_text()
    shown = json.loads(CliRunner().invoke(cli, ["--config", str(file), "config", "show", "--json"]).stdout)
    sources = {item["key"]: item["source"] for item in shown["values"]}
    assert sources["node[0].address"] == "found"
    assert json.loads(run(file, "--json").stdout)["tags"] == {"awsha:pair": "db"}, "the tags of awsha.toml"


def test_written_nodes_are_read_without_ec2(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    file = tmp_path / "awsha.toml"
    file.write_text(
        GROUP + '\n[[node]]\nname = "a"\naddress = "10.0.0.10"\n[[node]]\nname = "b"\naddress = "10.0.0.11"\n'
    )
    assert discovery.read(file) == parse(file.read_text(), str(file))
    assert discovery.read(file).policy.nodes[0] == Node("a", "10.0.0.10", priority=150)
