"""`awsha init`, `awsha config show`, `awsha keepalived`: what they write, print and refuse."""

from __future__ import annotations

import json
import re
import stat
from pathlib import Path, PurePosixPath

import pytest
from click.testing import CliRunner, Result
from hypothesis import given, settings
from hypothesis import strategies as st

from awsha.cli.main import cli
from awsha.config.files import write_atomic
from awsha.config.init import Wish, compose
from awsha.config.keepalived import render
from awsha.config.load import parse, read
from awsha.config.machine import interfaces, kernel_addresses, running_command, script_refused
from awsha.config.problems import ConfigError
from awsha.config.provenance import values
from awsha.core.errors import AwshaError
from awsha.core.policy import Fence, Group, Timeouts

WISH = [
    "--node",
    "a=10.0.0.10",
    "--node",
    "b=10.0.0.11",
    "--vip",
    "10.0.0.100",
    "--volume",
    "vol-0123456789abcdef0:/srv/data",
]
ROOT = Path(__file__).parents[2]


def run(*words: str | Path, env: dict[str, str] | None = None) -> Result:
    clean = {
        "AWSHA_CONFIG": None,
        "AWSHA_RUN_DIR": None,
        "AWSHA_STATE_DIR": None,
        "AWS_REGION": None,
        "AWS_DEFAULT_REGION": None,
        "AWS_ENDPOINT_URL": None,
        "COLUMNS": "160",
    }
    return CliRunner().invoke(cli, [str(word) for word in words], env=clean | (env or {}))


# --- init ---


def test_init_writes_what_load_reads(tmp_path: Path) -> None:
    path = tmp_path / "etc" / "awsha.toml"
    result = run(
        "--config",
        path,
        "init",
        *WISH,
        "--node",
        "c=10.0.0.12",
        "--vip",
        "10.0.0.101",
        "--group",
        "db",
        "--router-id",
        "7",
        "--fence",
        "force-detach",
        "--unit",
        "x.service",
        "--interface",
        "ens5",
        "--region",
        "eu-west-1",
    )
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    policy = read(path).policy
    assert [(node.name, node.address, node.priority) for node in policy.nodes] == [
        ("a", "10.0.0.10", 150),
        ("b", "10.0.0.11", 100),
        ("c", "10.0.0.12", 90),
    ]
    (group,) = policy.groups
    assert (group.name, group.virtual_router_id, group.vips) == ("db", 7, ("10.0.0.100", "10.0.0.101"))
    assert (group.fence, group.interface, policy.region) == (Fence.FORCE_DETACH, "ens5", "eu-west-1")
    assert group.volumes[0].mount == "/srv/data"
    assert group.application is not None
    assert [item.name for item in path.parent.iterdir()] == ["awsha.toml"], "no temporary file is left"


def test_init_keeps_an_existing_file(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    path.write_text("# mine\n")
    result = run("init", *WISH, "-o", path)
    assert isinstance(result.exception, AwshaError)
    assert "--force" in result.exception.hint
    assert path.read_text() == "# mine\n"
    assert run("init", *WISH, "-o", path, "--force").exit_code == 0
    assert "[[group]]" in path.read_text()
    assert [item.name for item in tmp_path.iterdir()] == ["awsha.toml"]


def test_init_shows_all_problems_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    result = run(
        "init",
        "-o",
        path,
        "--node",
        "a=10.0.0.10",
        "--node",
        "b",
        "--vip",
        "10.0.0.10",
        "--volume",
        "vol-1:data",
        "--router-id",
        "300",
        "--unit",
        "x",
    )
    assert isinstance(result.exception, ConfigError)
    assert result.exception.exit_code == 78
    keys = [problem.key.split(" (")[0] or problem.file for problem in result.exception.problems]
    assert set(keys) == {
        "--node b",
        "node",
        "group[0].virtual_router_id",
        "group[0].vips[0]",
        "group[0].volume[0].id",
        "group[0].volume[0].mount",
        "group[0].application.unit",
    }
    assert not path.exists()


def test_init_without_arguments_is_a_usage_error() -> None:
    assert run("init").exit_code == 2


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=12), st.text(max_size=12))
def test_init_never_writes_what_cannot_be_read(name: str, mount: str) -> None:
    wish = Wish(
        nodes=[f"{name}=10.0.0.10", "b=10.0.0.11"],
        vips=["10.0.0.100"],
        group=name,
        unit=name + ".service",
        volumes=[f"vol-0123456789abcdef0:/srv/{mount}"],
    )
    try:
        text = compose(wish, "f")
    except ConfigError as error:
        assert not any("not TOML" in problem.reason for problem in error.problems), "quoting holds whatever is typed"
    else:
        assert parse(text, "f").policy.groups[0].volumes[0].mount == f"/srv/{mount}"


def test_written_in_one_piece(tmp_path: Path) -> None:
    path = tmp_path / "x"
    write_atomic(path, "old", 0o644)
    with pytest.raises(UnicodeEncodeError):
        write_atomic(path, "\udc00", 0o644)
    assert path.read_text() == "old"
    with pytest.raises(AwshaError, match="is not a directory"):
        write_atomic(path / "below", "x", 0o644)
    assert [item.name for item in tmp_path.iterdir()] == ["x"]


# --- config show ---


def test_show_has_every_value_with_its_source(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    path.write_text(
        compose(Wish(["a=10.0.0.10", "b=10.0.0.11"], ["10.0.0.100"], ["vol-0123456789abcdef0:/srv/data"]), "f").replace(
            "[[group.volume]]", "priorities = { b = 7 }\ntimeouts.handover_s = 61\n[[group.volume]]"
        )
    )
    result = run(
        "config",
        "show",
        "--json",
        env={"AWSHA_CONFIG": str(path), "AWSHA_RUN_DIR": "/run/x", "AWS_REGION": "eu-west-1"},
    )
    assert result.exit_code == 0, result.output
    shown = json.loads(result.stdout)
    assert (shown["file"], shown["file_from"]) == (str(path), "environment, AWSHA_CONFIG")
    found = {item["key"]: item for item in shown["values"]}
    rows = path.read_text().splitlines()
    for key, value, source in (
        ("region", "eu-west-1", "environment"),
        ("AWSHA_RUN_DIR", "/run/x", "environment"),
        ("AWSHA_STATE_DIR", "/var/lib/awsha", "default"),
        ("command", None, "default"),
        ("node[1].address", "10.0.0.11", "file"),
        ("node[1].priority", 100, "default"),
        ("group[0].priorities.a", 150, "default"),
        ("group[0].priorities.b", 7, "file"),
        ("group[0].vips", ["10.0.0.100"], "file"),
        ("group[0].open_files", "terminate", "default"),
        ("group[0].volume[0].mount", "/srv/data", "file"),
        ("group[0].volume[0].fsck", "auto", "default"),
        ("group[0].application", None, "default"),
        ("group[0].timeouts.handover_s", 61.0, "file"),
        ("group[0].timeouts.fsck_s", 600.0, "default"),
    ):
        assert (found[key]["value"], found[key]["source"]) == (value, source), key
        if source == "file":
            assert key.split(".")[-1].split("[")[0] in rows[found[key]["line"] - 1] or "priorities" in key
    fields = {f"group[0].timeouts.{name}" for name in Timeouts.__dataclass_fields__}
    assert fields <= set(found)


def test_show_is_a_readable_table(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    run("init", *WISH, "-o", path)
    result = run("--config", path, "config", "show")
    assert result.exit_code == 0
    assert re.search(r"timeouts\.handover_s +60 +default", result.stdout)
    assert re.search(r"mount +/srv/data +line \d+", result.stdout)
    assert re.search(r"fstype +\(read from the device\) +default", result.stdout)


def test_the_sample_says_the_defaults_and_the_reference_lists_them_all() -> None:
    """docs/reference.md has a row `| key | type | default |` for every key."""
    loaded = read(ROOT / "conf" / "awsha.toml")
    assert {item.source for item in values(loaded, {})} == {"file", "default"}
    reference = (ROOT / "docs" / "reference.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| [^|]*? \| ([^|]*?) \|", reference, re.MULTILINE))
    for name, value in ((name, getattr(Timeouts(), name)) for name in Timeouts.__dataclass_fields__):
        assert rows[name] == f"{value:g}", name
    group = Group("x", 1, ())
    for name in ("advert_int", "fence", "open_files"):
        assert rows[name].strip("`") == (f"{getattr(group, name):g}" if name == "advert_int" else getattr(group, name))
    documented = {*rows, "AWSHA_RUN_DIR", "AWSHA_STATE_DIR"}  # these two are explained in docs/configuration.md
    keys = {item.key.split(".")[-1].split("[")[0] for item in values(loaded, {}) if "priorities" not in item.key}
    assert keys <= documented


# --- keepalived ---


def test_the_rendered_pair_is_what_the_generator_writes(tmp_path: Path) -> None:
    result = run("--config", ROOT / "conf" / "awsha.toml", "keepalived", "--all", "-o", tmp_path)
    assert result.exit_code == 0, result.output
    for node in "ab":
        kept = ROOT / "conf" / "keepalived" / node / "keepalived.conf"
        assert (tmp_path / node / "keepalived.conf").read_bytes() == kept.read_bytes(), (
            "make it again: awsha keepalived --all"
        )
        assert run("--config", ROOT / "conf" / "awsha.toml", "keepalived", "--node", node).stdout == kept.read_text()


@pytest.mark.parametrize("words", [[], ["--all"], ["--node", "a", "--all", "-o", "x"], ["--node", "a", "-o", "x"]])
def test_keepalived_wants_one_node_or_all(words: list[str]) -> None:
    assert run("--config", ROOT / "conf" / "awsha.toml", "keepalived", *words).exit_code == 2


def test_keepalived_for_an_unknown_node() -> None:
    result = run("--config", ROOT / "conf" / "awsha.toml", "keepalived", "--node", "c")
    assert isinstance(result.exception, AwshaError)
    assert result.exception.exit_code == 78
    assert "the nodes are: a, b" in result.exception.hint


def test_an_assumed_interface_is_said_aloud(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    text = compose(
        Wish(["a=198.18.7.10", "b=198.18.7.11"], ["198.18.7.100"]), "f"
    )  # a benchmark network: on no machine
    path.write_text(text)
    result = run("--config", path, "keepalived", "--node", "a")
    assert result.exit_code == 0
    assert "assumed to be eth0" in result.stderr
    assert "# eth0 was assumed" in result.stdout
    path.write_text(text.replace('# interface = "ens5"', 'interface = "ens6"'))
    result = run("--config", path, "keepalived", "--node", "a")
    assert "assumed" not in result.output
    assert "interface ens6" in result.stdout


def test_the_notify_lines_name_an_awsha_toml_that_is_elsewhere(tmp_path: Path) -> None:
    """On a node: there it is where it is. Somebody who makes the files on another machine has a copy of it."""
    config = PurePosixPath("/srv/ha/awsha.toml")
    text = render(read(ROOT / "conf" / "awsha.toml").policy, "a", command="/usr/bin/awsha", config=config)
    assert 'notify_master "/usr/bin/awsha --config /srv/ha/awsha.toml notify master data"' in text
    policy = read(ROOT / "conf" / "awsha.toml").policy
    with pytest.raises(AwshaError, match=r"the path of awsha.toml"):
        render(policy, "a", command="/x", config=PurePosixPath("/my files/awsha.toml"))
    (tmp_path / "x").mkdir()
    path = tmp_path / "awsha.toml"
    here = next((address for name, address in kernel_addresses() if name != "lo"), "")
    for own, told in (("198.18.7.10", ""), (here, f" --config {path}")):
        if own:
            beside = [own.rpartition(".")[0] + f".{last}" for last in (250, 251)]
            path.write_text(compose(Wish([f"a={own}", f"b={beside[0]}"], [beside[1]]), "f"))
            result = run("--config", path.parent / "x" / ".." / "awsha.toml", "keepalived", "--node", "a")
            assert f"{told} notify master data" in result.stdout
            assert (" --config " in result.stdout) == bool(told)


@pytest.mark.parametrize("variable", ["AWSHA_RUN_DIR", "AWSHA_STATE_DIR", "AWSHA_HOOKS_DIR"])
def test_a_relative_directory_is_refused(variable: str) -> None:
    result = run("config", "show", env={variable: "run/awsha"})
    assert isinstance(result.exception, AwshaError)
    assert result.exception.exit_code == 78
    assert f"{variable} is run/awsha, which is relative" in result.exception.message


def test_init_makes_the_directories_of_its_file(tmp_path: Path) -> None:
    wish = ("--node", "a=10.0.0.10", "--node", "b=10.0.0.11", "--vip", "10.0.0.100")
    assert run("--config", tmp_path / "etc" / "awsha" / "awsha.toml", "init", *wish).exit_code == 0
    assert (tmp_path / "etc" / "awsha" / "awsha.toml").stat().st_mode & 0o777 == 0o600


def test_interfaces_seen_and_assumed() -> None:
    policy = read(ROOT / "conf" / "awsha.toml").policy
    places = interfaces(policy, lambda: [("lo", "127.0.0.1"), ("ens7", "10.0.0.11"), ("ens8", "10.0.0.1")])
    assert (places["b"].name, places["b"].assumed) == ("ens7", False)
    assert (places["a"].name, places["a"].assumed) == ("ens7", True)
    assert {place.name for place in interfaces(policy, lambda: []).values()} == {"eth0"}


def test_case_13_an_address_is_not_a_part_of_another() -> None:
    policy = read(ROOT / "conf" / "awsha.toml").policy
    assert all(place.assumed for place in interfaces(policy, lambda: [("x", "10.0.0.1"), ("y", "10.0.0.101")]).values())


def test_the_running_command_is_absolute() -> None:
    assert running_command().startswith("/")
    assert running_command().endswith("/awsha")


def test_case_10_a_path_that_others_can_write_is_told(tmp_path: Path) -> None:
    script = tmp_path / "awsha"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)
    assert script_refused(str(tmp_path / "missing")) is None
    assert script_refused("/usr/bin/env") is None
    if script.stat().st_uid != 0:  # nobody but root can have it otherwise
        assert "does not belong to root" in str(script_refused(str(script)))
        return
    assert script_refused(str(script)) is None
    tmp_path.chmod(0o777)
    assert str(tmp_path) in str(script_refused(str(script)))
