"""conf/codedeploy: the AppSpec, and its scripts on both nodes of a pair in CodeDeploy's order.

The pair is a file: stand-ins for `awsha`, `systemctl` and `python3 -m venv` read and change it, so what a script sees
is what the scripts before it did.
"""

from __future__ import annotations

import dataclasses
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from awsha.agent.report import group_report
from awsha.cli.history import history
from awsha.core.findings import Code, Finding
from awsha.core.health import Verdict
from awsha.core.model import Role
from awsha.core.plan import plan
from awsha.core.transition import Transition
from tests.core.situations import situation

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "conf/codedeploy"
# In this order; Install and DownloadBundle are CodeDeploy's own.
EVENTS = ["ApplicationStop", "BeforeInstall", "AfterInstall", "ApplicationStart", "ValidateService"]
AWSHA = """#!/bin/sh
cd "$PAIR" || exit 70
case $NODE in a) other=b ;; b) other=a ;; esac
agent=$(cat "agent.$NODE")
is_in() { [ -e "$2" ] && grep -qx "$1" "$2"; }
case $1 in
    --version) echo "awsha $version" ;;
    config) ! is_in "$version" bad-configs || exit 78 ;;
    keepalived) echo "conf of $(cat "conf.$version" 2>/dev/null || echo all) for $3" ;;
    status)
        if [ "$(cat master)" = "$NODE" ]; then serving=true; else serving=false; fi
        printf '{"node": "%s", "groups": [{"name": "data", "serving": %s}]}' "$NODE" "$serving"
        ! is_in "$agent" bad-agents || exit 2
        ;;
    check)
        {
            cat "findings.$NODE" 2>/dev/null
            [ "$agent" = "$version" ] || echo agent-outdated
            [ "$(cat "agent.$other")" = "$version" ] || echo peer-version
            ! is_in "$agent" bad-agents || echo agent-down
        } >"found.$NODE"
        echo '{"findings": ['
        sed 's/.*/{"code": "&"}/; $!s/$/,/' "found.$NODE"
        echo ']}'
        [ ! -s "found.$NODE" ]
        ;;
    history)
        printf '{"transitions": [{"goal": "master", "serving_at": 1.0, "began": %s}, ' "$(cat took-over)"
        printf '{"goal": "release", "serving_at": null, "began": %s}]}' "$(date +%s)"
        ;;
    switchover)
        [ "$(cat master) $2" = "$NODE data" ] || exit 70
        echo "$NODE: switchover" >>log
        [ ! -e refuses ] || exit 75
        echo "$other" >master
        date +%s >took-over
        ;;
    *) exit 70 ;;
esac
"""
SYSTEMCTL = """#!/bin/sh
case "$*" in
    "restart awsha-agent")
        version=$(cat "$(dirname "$(dirname "$(readlink -f "$AWSHA_LINK")")")/version")
        echo "$NODE: agent $version" >>"$PAIR/log"
        echo "$version" >"$PAIR/agent.$NODE"
        ;;
    "reload keepalived") echo "$NODE: keepalived" >>"$PAIR/log" ;;
    daemon-reload) ;;
    *) exit 70 ;;
esac
[ ! -e "$PAIR/no-$1" ]
"""
PYTHON = """#!/bin/sh
if [ "$1 $2" = "-m venv" ]; then
    mkdir -p "$3/bin" && ln -s "$(dirname "$0")/pip" "$3/bin/pip"
else
    exec "$REAL_PYTHON" -I -S "$@"
fi
"""
PIP = """#!/bin/sh
for wheel in "$@"; do :; done
version=$(basename "$wheel" | cut -d- -f2)
[ ! -e "$PAIR/bad-wheels" ] || { echo "pip: no matching distribution"; exit 1; }
exec "$(dirname "$(readlink -f "$0")")/put" "$(dirname "$(dirname "$0")")" "$version"
"""
# put VENV VERSION: what pip leaves there
PUT = """#!/bin/sh
set -eu
mkdir -p "$1/bin" "$1/share/awsha/systemd/keepalived.service.d"
echo "$2" >"$1/version"
sed "1a version=$2" "$(dirname "$0")/awsha" >"$1/bin/awsha"
chmod 755 "$1/bin/awsha"
for unit in awsha-agent.service keepalived.service.d/awsha.conf; do
    echo "$2" >"$1/share/awsha/systemd/$unit"
done
"""


class Pair:
    """Two nodes that run awsha 1, with a the master, and a revision with awsha 2."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.state = folder / "pair"
        self.state.mkdir()
        self.spec = yaml.safe_load((SOURCE / "appspec.yml").read_text())
        self.revision = folder / "revision"
        shutil.copytree(SOURCE, self.revision)
        (self.revision / "awsha-2-py3-none-any.whl").touch()
        self.stand_ins = folder / "bin"
        self.stand_ins.mkdir()
        programs = {"awsha": AWSHA, "systemctl": SYSTEMCTL, "python3": PYTHON, "pip": PIP, "put": PUT}
        for name, text in programs.items():
            (self.stand_ins / name).write_text(text)
            (self.stand_ins / name).chmod(0o755)
        for node in "ab":
            home = folder / node
            (home / "units").mkdir(parents=True)
            (home / "releases").mkdir()
            subprocess.run([str(self.stand_ins / "put"), str(home / "old"), "1"], check=True)
            (home / "awsha").symlink_to(home / "old/bin/awsha")
            (home / "keepalived.conf").write_text(f"conf of all for {node}\n")
            self.write(f"agent.{node}", "1")
        self.write("master", "a")
        self.write("took-over", "0")

    def write(self, name: str, text: str = "") -> None:
        """A fact of the pair; those that are only there or not have no text."""
        (self.state / name).write_text(f"{text}\n")

    def read(self, name: str) -> list[str]:
        file = self.state / name
        return file.read_text().splitlines() if file.exists() else []

    def deploy(self, *nodes: str) -> dict[str, str]:
        """As CodeDeploy does, one node at a time, until an event fails. Node -> the event that failed, or nothing."""
        ended: dict[str, str] = {}
        for node in nodes:
            ended[node] = next((event for event in EVENTS if not self.event(node, event)), "")
            if ended[node]:
                break
        return ended

    def event(self, node: str, event: str) -> bool:
        home = self.folder / node
        environment = {
            "PATH": f"{self.stand_ins}:{os.environ['PATH']}",
            "PAIR": str(self.state),
            "NODE": node,
            "REAL_PYTHON": sys.executable,
            "DEPLOYMENT_ID": "d-2",
            "LIFECYCLE_EVENT": event,
            "AWSHA_RELEASES": str(home / "releases"),
            "AWSHA_LINK": str(home / "awsha"),
            "AWSHA_UNITS": str(home / "units"),
            "AWSHA_KEEPALIVED": str(home / "keepalived.conf"),
            "AWSHA_WAIT_S": "0",
            "AWSHA_LOOK_S": "0.1",
        }
        for hook in self.spec["hooks"].get(event, []):
            done = subprocess.run(
                [str(self.revision / hook["location"])],
                cwd="/", env=environment, capture_output=True, text=True, check=False, timeout=60,
            )  # fmt: skip
            self.said = done.stdout + done.stderr
            if done.returncode != 0:
                return False
        return True

    def runs(self, node: str) -> tuple[str, str]:
        """Version of the agent, and of what `awsha` is."""
        installed = (self.folder / node / "awsha").resolve().parents[1] / "version"
        return self.read(f"agent.{node}")[0], installed.read_text().strip()


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return Pair(tmp_path)


# --- the AppSpec ------------------------------------------------------------------------------------------------------


def test_the_appspec_is_what_codedeploy_takes():
    spec = yaml.safe_load((SOURCE / "appspec.yml").read_text())
    assert spec.keys() == {"version", "os", "hooks"}
    assert (spec["version"], spec["os"]) == (0.0, "linux")
    assert list(spec["hooks"]) == [event for event in EVENTS if event in spec["hooks"]], (
        "in the order in which they run"
    )
    assert "ApplicationStop" not in spec["hooks"], "it would be a script of the revision before"
    for event, hooks in spec["hooks"].items():
        for hook in hooks:
            assert hook.keys() == {"location", "timeout", "runas"}, event
            assert os.access(SOURCE / hook["location"], os.X_OK)
            assert hook["runas"] == "root"
            assert 0 < sum(item["timeout"] for item in hooks) <= 3600, "CodeDeploy's limit for an event"
    named = {SOURCE / hook["location"] for hooks in spec["hooks"].values() for hook in hooks}
    assert named | {SOURCE / "scripts/lib.sh"} == set((SOURCE / "scripts").iterdir())


def test_the_scripts_stop_at_what_they_do_not_expect_and_shellcheck_finds_nothing():
    scripts = sorted((SOURCE / "scripts").iterdir())
    for script in scripts:
        if script.suffix != ".sh":
            assert script.read_text().startswith("#!/bin/sh\n# ")
            assert "\nset -eu\n" in script.read_text()
    if shutil.which("shellcheck") is None and os.environ.get("CI") != "true":
        pytest.skip("shellcheck is not installed")
    argv = ["shellcheck", "-x", *map(str, scripts)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


def test_what_can_hang_has_a_deadline():
    called = re.compile(r'"\$LINK" [a-z]|bin/pip"|bin/awsha" [a-z]|systemctl |-m venv')
    lines = [
        line.split("#")[0] for script in (SOURCE / "scripts").iterdir() for line in script.read_text().splitlines()
    ]
    calls = [line for line in lines if called.search(line)]
    assert len(calls) > 8
    bounded = re.compile(r'timeout \d+ ("\$RELEASE/|python3 )?$')
    assert [line for line in calls if not all(bounded.search(line[: m.start()]) for m in called.finditer(line))] == []


def test_what_the_scripts_read_is_what_awsha_writes():
    """The stand-in must not be the only one that has these keys."""
    assert {"goal", "serving_at", "began"} <= {field.name for field in dataclasses.fields(Transition)}
    assert "code" in Finding(Code.CLOCK, "").as_dict()
    master = situation(Role.MASTER)
    assert "serving" in group_report(master, plan(master), Verdict(True))
    flags = {name for option in history.params for name in option.opts}
    assert {"--json", "--group"} <= flags


# --- both nodes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_a_pair_is_upgraded_with_one_switchover_whatever_the_order(pair: Pair, order: str):
    if order == "ba":
        pair.write("conf.2", "2")  # the new version generates another keepalived.conf
    for node in "ab":
        (pair.folder / node / "releases/d-0").mkdir()  # of a deployment before the last one
    assert pair.deploy(*order) == {"a": "", "b": ""}, pair.said
    log = pair.read("log")
    assert [line for line in log if "switchover" in line] == ["a: switchover"]
    assert pair.read("master") == ["b"]
    assert log.index("a: switchover") < log.index("a: agent 2"), "first it hands over"
    again = [line for line in log if "keepalived" in line]
    assert again == (["b: keepalived", "a: keepalived"] if order == "ba" else [])
    for node in "ab":
        home = pair.folder / node
        assert pair.runs(node) == ("2", "2")
        assert (home / "keepalived.conf").read_text() == f"conf of {'2' if order == 'ba' else 'all'} for {node}\n"
        assert {file.name for file in (home / "units").rglob("*") if file.is_file()} == {
            "awsha-agent.service",
            "awsha.conf",
        }
        assert [item.name for item in (home / "releases").iterdir()] == ["d-2"]
        assert (home / "old/bin/awsha").exists(), "the way back"


def untouched(pair: Pair, node: str) -> bool:
    home = pair.folder / node
    return pair.runs(node) == ("1", "1") and not list((home / "releases").iterdir())


def test_a_pair_that_is_not_well_is_left_as_it_is(pair: Pair):
    node = "a"
    pair.write("findings.a", "vrrp-blocked")
    assert pair.deploy(node) == {node: "BeforeInstall"}
    assert "vrrp-blocked" in pair.said
    assert pair.read("log") == []
    assert untouched(pair, node)


@pytest.mark.parametrize("kind", ["a package's link", "a file"])
def test_an_installation_of_another_kind_is_left_as_it_is(pair: Pair, kind: str):
    """There would be no way back: what a package brings has no units beside it, and a file is overwritten."""
    link = pair.folder / "b/awsha"
    if kind == "a file":
        shutil.copy(link.resolve(), pair.folder / "copy")
        link.unlink()
        (pair.folder / "copy").rename(link)
    else:
        shutil.rmtree(pair.folder / "b/old/share")
    before = link.read_bytes()
    assert pair.deploy("b", "a") == {"b": "BeforeInstall"}
    assert "was not installed by pip" in pair.said
    assert link.read_bytes() == before
    assert pair.read("log") == []
    assert not list((pair.folder / "b/releases").iterdir())


def test_a_master_that_nobody_takes_over_from_is_left_as_it_is(pair: Pair):
    pair.write("refuses")
    assert pair.deploy("a", "b") == {"a": "BeforeInstall"}
    assert untouched(pair, "a")
    assert pair.read("master") == ["a"]


@pytest.mark.parametrize("defect", ["bad-wheels", "bad-configs"])
def test_a_version_that_cannot_be_used_is_never_started(pair: Pair, defect: str):
    pair.write(defect, "2")
    assert pair.deploy("b", "a") == {"b": "AfterInstall"}
    assert pair.read("log") == []
    assert untouched(pair, "b")


def test_without_a_wheel_in_the_revision_nothing_is_installed(pair: Pair):
    next(pair.revision.glob("*.whl")).unlink()
    assert pair.deploy("b") == {"b": "AfterInstall"}
    assert "one wheel" in pair.said
    assert untouched(pair, "b")


def test_a_version_that_is_not_well_goes_and_the_other_node_is_not_touched(pair: Pair):
    pair.write("bad-agents", "2")
    pair.write("conf.2", "2")
    assert pair.deploy("b", "a") == {"b": "ValidateService"}
    assert pair.runs("b") == pair.runs("a") == ("1", "1")
    assert pair.read("log") == ["b: agent 2", "b: keepalived", "b: agent 1", "b: keepalived"]
    assert (pair.folder / "b/keepalived.conf").read_text() == "conf of all for b\n"
    assert (pair.folder / "b/units/awsha-agent.service").read_text() == "1\n"
    assert pair.read("master") == ["a"]
    (pair.state / "bad-agents").unlink()  # mended, under the same number
    assert pair.deploy("b", "a") == {"b": "", "a": ""}, pair.said


def test_what_cannot_be_started_goes(pair: Pair):
    pair.write("no-reload")
    pair.write("conf.2", "2")
    assert pair.deploy("b", "a") == {"b": "ApplicationStart"}
    assert pair.runs("b") == ("1", "1")
