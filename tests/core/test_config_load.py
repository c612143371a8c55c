"""awsha.toml: what is accepted, and every refusal with file, line, key, reason and hint, all of them at once."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from awsha.config.load import load, parse
from awsha.config.problems import ConfigError, Problem
from awsha.core.policy import Fence, Fsck, Node, OpenFiles, Timeouts, Volume, default_priority, priority

GOOD = """\
[[node]]
name = "a"
address = "10.0.0.10"

[[node]]
name = "b"
address = "10.0.0.11"

[[group]]
name = "data"
virtual_router_id = 51
vips = ["10.0.0.100"]

[[group.volume]]
id = "vol-0123456789abcdef0"
mount = "/srv/data"

[group.application]
unit = "postgresql.service"

[group.timeouts]
handover_s = 60
"""
SECOND = """
[[group]]
name = "web"
virtual_router_id = 52
vips = ["10.0.0.101"]
"""


def problems(text: str) -> tuple[Problem, ...]:
    with pytest.raises(ConfigError) as caught:
        parse(text, "awsha.toml")
    assert caught.value.exit_code == 78
    assert all(problem.hint and problem.reason and problem.file == "awsha.toml" for problem in caught.value.problems)
    return caught.value.problems


def test_defaults_are_filled_in() -> None:
    policy = parse(GOOD, "awsha.toml").policy
    assert policy.nodes == (Node("a", "10.0.0.10", priority=150), Node("b", "10.0.0.11", priority=100))
    (group,) = policy.groups
    assert group.volumes == (Volume("/srv/data", id="vol-0123456789abcdef0", fsck=Fsck.AUTO),)
    assert (group.fence, group.open_files, group.advert_int) == (Fence.STOP_INSTANCE, OpenFiles.TERMINATE, 1.0)
    assert group.timeouts == Timeouts(handover_s=60.0)
    assert isinstance(group.timeouts.handover_s, float)
    assert group.application is not None
    assert group.application.unit == "postgresql.service"


def test_everything_can_be_said() -> None:
    text = GOOD.replace('name = "a"', 'name = "a"\ninstance_id = "i-0123456789abcdef0"\npriority = 7', 1)
    text = 'region = "us-gov-west-1"\ncommand = "/opt/awsha/bin/awsha"\n' + text.replace(
        'unit = "postgresql.service"',
        'start = ["/bin/s", "x y"]\nstop = ["/bin/t"]\ncheck = ["/bin/c"]\nretries = 0',
    ).replace(
        'id = "vol-0123456789abcdef0"',
        'tags = { Name = "db", "aws:x" = "" }\nfstype = "xfs"\noptions = "noatime,nodev"\nfsck = "never"',
    )
    text += "release_grace_s = 0\n" + SECOND + 'priorities = { a = 10, b = 20 }\nadvert_int = 0.1\ninterface = "ens5"\n'
    policy = parse(text, "awsha.toml").policy
    data, web = policy.groups
    assert data.volumes[0].tags == (("Name", "db"), ("aws:x", ""))
    assert data.application is not None
    assert data.application.start == ("/bin/s", "x y")
    assert data.timeouts.release_grace_s == 0
    assert data.volumes[0].fsck is Fsck.NEVER
    assert [priority(policy, data, node) for node in policy.nodes] == [7, 100]
    assert [priority(policy, web, node) for node in policy.nodes] == [10, 20]


def test_priorities_by_order() -> None:
    assert [default_priority(index) for index in range(4)] == [150, 100, 90, 80]
    assert len({default_priority(index) for index in range(16)}) == 16


# What to replace in GOOD, with what, the key that must be named, and words of the reason.
REFUSED: list[tuple[str, str, str, str]] = [
    ('name = "a"', 'nmae = "a"', "node[0].nmae", "not a key"),
    ('name = "a"', "", "node[0].name", "missing"),
    ('name = "a"', 'name = ""', "node[0].name", "empty"),
    ('name = "a"', 'name = "a/b"', "node[0].name", "not a node's name"),
    ('name = "b"', 'name = "a"', "node[1].name", "taken already"),
    ('address = "10.0.0.11"', 'address = "10.0.0.10"', "node[1].address", "taken already"),
    ('address = "10.0.0.11"', 'address = "10.0.0.11/24"', "node[1].address", "not an IPv4 address"),
    ('address = "10.0.0.11"', 'address = "10.0.0.011"', "node[1].address", "not an IPv4 address"),
    ('address = "10.0.0.11"', 'address = "fd00::1"', "node[1].address", "not an IPv4 address"),
    ('address = "10.0.0.11"', "address = 10", "node[1].address", "not a string"),
    ('address = "10.0.0.11"', 'address = "127.0.0.1"', "node[1].address", "EC2 gives"),
    ('address = "10.0.0.11"', 'address = "169.254.169.254"', "node[1].address", "EC2 gives"),
    ('address = "10.0.0.11"', 'address = "10.1.0.11"', "node[1].address", "outside 10.0.0.0/16"),
    ('address = "10.0.0.11"', 'address = "10.0.0.2"', "node[1].address", "reserved by EC2"),
    ('name = "b"', 'name = "b"\npriority = 255', "node[1].priority", "out of range"),
    ('name = "b"', 'name = "b"\npriority = 150', "node[1].priority", "taken already"),
    ('name = "b"', 'name = "b"\npriority = "3"', "node[1].priority", "not an integer"),
    ('name = "b"', 'name = "b"\npriority = true', "node[1].priority", "not an integer"),
    ('name = "b"', 'name = "b"\npriority = 3.0', "node[1].priority", "not an integer"),
    ('name = "b"', 'name = "b"\ninstance_id = "i-1"', "node[1].instance_id", "not an instance id"),
    ('name = "data"', 'name = "da ta"', "group[0].name", "not a group's name"),
    ('name = "data"', f'name = "{"x" * 33}"', "group[0].name", "not a group's name"),
    ('name = "data"', 'name = "-x"', "group[0].name", "not a group's name"),
    ("virtual_router_id = 51", "virtual_router_id = 0", "group[0].virtual_router_id", "out of range"),
    ("virtual_router_id = 51", "virtual_router_id = 256", "group[0].virtual_router_id", "out of range"),
    ("virtual_router_id = 51", "", "group[0].virtual_router_id", "missing"),
    ('vips = ["10.0.0.100"]', "vips = []", "group[0].vips", "empty"),
    ('vips = ["10.0.0.100"]', "", "group[0].vips", "missing"),
    ('vips = ["10.0.0.100"]', 'vips = "10.0.0.100"', "group[0].vips", "not an array"),
    ('vips = ["10.0.0.100"]', 'vips = ["10.0.0.100", "10.0.0.100"]', "group[0].vips[1]", "taken already"),
    ('vips = ["10.0.0.100"]', 'vips = ["10.0.0.11"]', "group[0].vips[0]", "primary address of node b"),
    ('vips = ["10.0.0.100"]', 'vips = ["192.168.0.100"]', "group[0].vips[0]", "outside 10.0.0.0/16"),
    ('vips = ["10.0.0.100"]', 'vips = ["10.0.0.1"]', "group[0].vips[0]", "reserved by EC2"),
    ('vips = ["10.0.0.100"]', 'vips = ["10.0.255.255"]', "group[0].vips[0]", "reserved by EC2"),
    ("virtual_router_id = 51", "virtual_router_id = 51\nadvert_int = 0.001", "group[0].advert_int", "out of range"),
    ("virtual_router_id = 51", "virtual_router_id = 51\nadvert_int = 41", "group[0].advert_int", "out of range"),
    ("virtual_router_id = 51", "virtual_router_id = 51\nadvert_int = 0.125", "group[0].advert_int", "hundredths"),
    ("virtual_router_id = 51", "virtual_router_id = 51\nadvert_int = nan", "group[0].advert_int", "not a finite"),
    ("virtual_router_id = 51", 'virtual_router_id = 51\nfence = "stop"', "group[0].fence", "not one of"),
    ("virtual_router_id = 51", "virtual_router_id = 51\nopen_files = 3", "group[0].open_files", "not a string"),
    ('mount = "/srv/data"', 'mount = "/srv/data"\nfsck = "sometimes"', "group[0].volume[0].fsck", "not one of"),
    ("virtual_router_id = 51", 'virtual_router_id = 51\ninterface = "a b"', "group[0].interface", "interface's name"),
    (
        "virtual_router_id = 51",
        "virtual_router_id = 51\npriorities = { c = 3 }",
        "group[0].priorities.c",
        "name of a node",
    ),
    (
        "virtual_router_id = 51",
        "virtual_router_id = 51\npriorities = { b = 150 }",
        "group[0].priorities.b",
        "equal: 150",
    ),
    (
        "virtual_router_id = 51",
        "virtual_router_id = 51\npriorities = { b = 0 }",
        "group[0].priorities.b",
        "out of range",
    ),
    ("virtual_router_id = 51", "virtual_router_id = 51\npriorities = 3", "group[0].priorities", "not a table"),
    ('mount = "/srv/data"', 'mount = "srv/data"', "group[0].volume[0].mount", "relative"),
    ('mount = "/srv/data"', 'mount = "/"', "group[0].volume[0].mount", "host itself needs"),
    ('mount = "/srv/data"', 'mount = "//etc//"', "group[0].volume[0].mount", "host itself needs"),
    ('mount = "/srv/data"', 'mount = "/srv/../usr/lib/x"', "group[0].volume[0].mount", "host itself needs"),
    ('mount = "/srv/data"', 'mount = "/var/lib"', "group[0].volume[0].mount", "host itself needs"),
    ('mount = "/srv/data"', 'mount = "/run/awsha"', "group[0].volume[0].mount", "host itself needs"),
    ('mount = "/srv/data"', 'mount = "/srv/data/"', "group[0].volume[0].mount", "not written plainly"),
    ('mount = "/srv/data"', 'mount = "/srv/a\\nb"', "group[0].volume[0].mount", "cannot be printed"),
    ('mount = "/srv/data"', "", "group[0].volume[0].mount", "missing"),
    ('id = "vol-0123456789abcdef0"', 'id = "vol-0123"', "group[0].volume[0].id", "not a volume id"),
    ('id = "vol-0123456789abcdef0"', "", "group[0].volume[0].id", "missing"),
    ('id = "vol-0123456789abcdef0"', "tags = {}", "group[0].volume[0].tags", "empty"),
    ('mount = "/srv/data"', 'mount = "/srv/data"\ntags = { Name = "x" }', "group[0].volume[0].tags", "beside `id`"),
    ('mount = "/srv/data"', 'mount = "/srv/data"\noptions = "noatime,ro"', "group[0].volume[0].options", "`ro`"),
    (
        'mount = "/srv/data"',
        'mount = "/srv/data"\noptions = "ro=recursive"',
        "group[0].volume[0].options",
        "`ro=recursive`",
    ),
    ('mount = "/srv/data"', 'mount = "/srv/data"\nfstype = "EXT 4"', "group[0].volume[0].fstype", "file system type"),
    ('unit = "postgresql.service"', 'unit = "postgresql"', "group[0].application.unit", "no suffix"),
    ('unit = "postgresql.service"', 'unit = "pg@.service"', "group[0].application.unit", "template"),
    ('unit = "postgresql.service"', "", "group[0].application", "names nothing"),
    (
        'unit = "postgresql.service"',
        'unit = "x.service"\nstop = ["/bin/x"]',
        "group[0].application.stop",
        "beside `unit`",
    ),
    ('unit = "postgresql.service"', 'start = ["/bin/x"]\ncheck = ["/bin/x"]', "group[0].application.stop", "missing"),
    ('unit = "postgresql.service"', 'start = ["/bin/x"]\nstop = ["/bin/x"]', "group[0].application.check", "missing"),
    (
        'unit = "postgresql.service"',
        'start = ["x"]\nstop = ["/x"]\ncheck = ["/x"]',
        "group[0].application.start[0]",
        "absolute",
    ),
    (
        'unit = "postgresql.service"',
        'start = "x"\nstop = ["/x"]\ncheck = ["/x"]',
        "group[0].application.start",
        "not an array",
    ),
    ('unit = "postgresql.service"', 'unit = "x.service"\nretries = -1', "group[0].application.retries", "out of range"),
    ("handover_s = 60", "handover_s = 0", "group[0].timeouts.handover_s", "more than 0"),
    ("handover_s = 60", "handover_s = inf", "group[0].timeouts.handover_s", "not a finite"),
    ("handover_s = 60", "handover_s = 100000", "group[0].timeouts.handover_s", "more than a day"),
    ("handover_s = 60", "handover_s = 500", "group[0].timeouts.handover_s", "give up"),
    ("handover_s = 60", "release_grace_s = -1", "group[0].timeouts.release_grace_s", "0 or more"),
    ("handover_s = 60", "handover = 60", "group[0].timeouts.handover", "not a key"),
    ("[[group]]", "[group]", "group", "not an array of tables"),
    ("[group.timeouts]", "[[group.timeouts]]", "group[0].timeouts", "not a table"),
    ('name = "a"', 'name = "a"\nname2 = 1979-05-27', "node[0].name2", "not a key"),
]


@pytest.mark.parametrize(
    ("old", "new", "key", "reason"), REFUSED, ids=[f"{new or 'no ' + old}"[:40] for old, new, _, _ in REFUSED]
)
def test_refused(old: str, new: str, key: str, reason: str) -> None:
    text = GOOD.replace(old, new, 1)
    assert text != GOOD
    if new == "[group]":
        text = text[: text.index("[[group.volume]]")]
    found = problems(text)
    assert len(found) == 1, "one mistake, one problem"
    assert found[0].key.split(" (")[0] == key
    assert reason in found[0].reason
    place = found[0].line
    assert place is not None
    if (
        new and new != "[[group.timeouts]]"
    ):  # the line named is the one with the mistake (or the table's, when something is missing)
        assert (
            "missing" in reason
            or "nothing" in reason
            or place in {i for i, row in enumerate(text.splitlines(), 1) if row in new.splitlines()}
        )


@pytest.mark.parametrize(
    ("extra", "key", "reason"),
    [
        (SECOND.replace("52", "51"), "group[1].virtual_router_id", "taken already"),
        (SECOND.replace('"web"', '"data"'), "group[1].name", "taken already"),
        (SECOND.replace("10.0.0.101", "10.0.0.100"), "group[1].vips[0]", "taken already"),
        (
            SECOND + '[[group.volume]]\nid = "vol-0123456789abcdef0"\nmount = "/srv/x"\n',
            "group[1].volume[0].id",
            "taken already",
        ),
        (
            SECOND + '[[group.volume]]\nid = "vol-0123456789abcdef1"\nmount = "/srv/data"\n',
            "group[1].volume[0].mount",
            "taken",
        ),
        (
            SECOND + '[[group.volume]]\nid = "vol-0123456789abcdef1"\nmount = "/srv/data/x"\n',
            "group[1].volume[0].mount",
            "moves with another group",
        ),
        ('[[node]]\nname = "c"\naddress = "10.0.0.12"\npriority = 100\n', "node[2].priority", "taken already"),
    ],
)
def test_refused_between_groups(extra: str, key: str, reason: str) -> None:
    (found,) = problems(GOOD + extra)
    assert found.key.split(" (")[0] == key
    assert reason in found.reason


def test_nested_mounts_of_one_group_are_in_order() -> None:
    extra = '[[group.volume]]\nid = "vol-0123456789abcdef1"\nmount = "/srv/data/log"\n'
    assert len(parse(GOOD + extra, "f").policy.groups[0].volumes) == 2


def test_addresses_that_are_reserved_only_in_some_subnets_pass() -> None:
    for vip in ("10.0.0.255", "10.0.1.0", "10.0.0.4", "10.0.200.7"):
        assert parse(GOOD.replace("10.0.0.100", vip), "f").policy.groups[0].vips == (vip,)


def test_all_problems_at_once_in_the_order_of_the_file() -> None:
    text = GOOD
    for old, new in (
        ('name = "b"', 'name = "a"'),
        ("[[group]]", "[[group]]\ncolour = 3"),
        ("= 51", "= true"),
        ('"10.0.0.100"', '"10.0.0.10", "x"'),
        ("vol-0123456789abcdef0", "vol-X"),
        ("/srv/data", "data"),
        ("postgresql.service", "postgresql"),
        ("handover_s = 60", "handover_s = -1\nfsck = 3"),
    ):
        text = text.replace(old, new, 1)
    found = problems(text)
    assert [problem.key.split(" (")[0] for problem in found] == [
        "node[1].name",
        "group[0].colour",
        "group[0].virtual_router_id",
        "group[0].vips[1]",
        "group[0].vips[0]",
        "group[0].volume[0].id",
        "group[0].volume[0].mount",
        "group[0].application.unit",
        "group[0].timeouts.handover_s",
        "group[0].timeouts.fsck",
    ]
    assert [problem.line for problem in found] == sorted(problem.line or 0 for problem in found)
    assert '(group "data")' in found[3].key
    assert "fsck_s" in found[-1].hint


def test_an_empty_file_and_one_node() -> None:
    assert {problem.key for problem in problems("")} == {"node", "group"}
    one = '[[node]]\nname = "a"\naddress = "10.0.0.10"\n' + SECOND
    (found,) = problems(one)
    assert "a pair needs two" in found.reason


def test_syntax_errors_have_a_line() -> None:
    (found,) = problems(GOOD + "\nthis is = = not\n")
    assert found.line == GOOD.count("\n") + 2
    for text in ("x = " + "[" * 100_000, "x = " + "9" * 5000, "x = 2020-99-99", "\x00"):
        (found,) = problems(text)
        assert "not TOML" in found.reason
    for text in ('region = "a"\nregion = "b"', "[metrics]\n[metrics]"):
        (found,) = problems(text)
        assert "twice" in found.hint


def test_unreadable_files(tmp_path: Path) -> None:
    fifo, big, latin, folder = tmp_path / "fifo", tmp_path / "big", tmp_path / "latin", tmp_path / "folder"
    os.mkfifo(fifo)
    big.write_bytes(b"#" * ((1 << 20) + 1))
    latin.write_bytes(b"# fine\n# caf\xe9\n")
    folder.mkdir()
    loop = tmp_path / "loop"
    loop.symlink_to(loop)
    for path, words in (
        (tmp_path / "none", "does not exist"),
        (fifo, "not a regular file"),
        (big, "larger"),
        (latin, "UTF-8"),
        (folder, "directory"),
        (loop, "cannot be read"),
        (Path("/dev/zero"), "not a regular file"),
        (latin / "below", "cannot be read"),
    ):
        with pytest.raises(ConfigError) as caught:
            load(path)
        (found,) = caught.value.problems
        assert words in found.reason
        assert found.file == str(path)
        assert found.hint


def test_bom_and_crlf_are_tolerated(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    path.write_bytes(b"\xef\xbb\xbf" + GOOD.replace("\n", "\r\n").encode())
    assert load(path).groups[0].name == "data"


def test_command_line_shows_all_and_exits_78(tmp_path: Path) -> None:
    path = tmp_path / "awsha.toml"
    path.write_text(GOOD.replace("/srv/data", "/etc").replace("= 51", "= 0"))
    argv = [sys.executable, "-m", "awsha", "--config", str(path), "config", "show"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 78
    assert "2 problems" in done.stderr
    assert f"{path}:11: group[0].virtual_router_id" in done.stderr
    assert done.stderr.count("hint: ") == 2
    assert "Traceback" not in done.stderr
