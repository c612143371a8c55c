"""What the units run (`agent --failed`, `release --stopping`, `resume --starting`), without EC2, with a broken file."""

from __future__ import annotations

from pathlib import Path

import pytest

from awsha import notify
from awsha.agent import kept, operate
from awsha.agent.gone import fault_all
from awsha.agent.marks import Marks
from awsha.agent.once import converge
from awsha.agent.watch import Watch
from awsha.config.problems import ConfigError
from awsha.core.errors import AwshaError
from awsha.core.plan import GONE
from tests.adapters.one_node import CONFIG, GROUP


@pytest.fixture(autouse=True)
def run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An own run directory in which an agent has been."""
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    (tmp_path / "groups" / GROUP).mkdir(parents=True)
    (tmp_path / "health").mkdir()
    return tmp_path


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """A good configuration that an agent has begun to work with."""
    path = tmp_path / "etc.toml"
    path.write_text(CONFIG)
    return path


def test_an_agent_that_is_gone_for_good_fails_every_health_file_without_a_configuration(run: Path, config: Path):
    (run / "health" / "other").write_text("0\n")
    assert fault_all(config) == 0
    assert [(run / "health" / name).read_text() for name in (GROUP, "other")] == ["1\n", "1\n"]
    assert GONE in Marks(GROUP).all(), "a converge that lets go after it does not lift the fault"


def test_what_is_paused_is_not_moved_by_an_agent_that_is_gone(run: Path, config: Path):
    operate.pause(GROUP)
    assert fault_all(config) == 0
    assert not (run / "health" / GROUP).exists()


def test_a_health_file_that_cannot_be_written_is_told(run: Path, config: Path):
    (run / "health" / GROUP).mkdir()
    assert fault_all(config) == 1


def test_the_start_of_keepalived_ends_its_stop_and_nothing_that_an_operator_asked_for():
    for mark in ("released", "paused", "stopping"):
        Marks(GROUP).put(mark)
    assert operate.starting(GROUP)
    assert Marks(GROUP).all() == {"released", "paused"}
    assert not operate.starting(GROUP)
    assert operate.resume(GROUP)
    assert Marks(GROUP).all() == frozenset()


def test_a_stop_of_keepalived_lets_nothing_go_that_is_paused(config: Path):
    operate.pause(GROUP)
    said: list[str] = []
    assert operate.stopping(config, [GROUP], 1.0, Watch(said.append)) == 0
    assert (Marks(GROUP).all(), said) == ({"paused"}, [f"{GROUP} is paused: nothing is let go"])


def test_a_release_of_what_is_paused_is_refused():
    operate.pause(GROUP)
    with pytest.raises(AwshaError, match="paused"):
        operate.release([GROUP], 1.0, Watch(print))


def test_a_broken_configuration_keeps_nobody_from_letting_go(config: Path):
    kept.keep(config)
    config.write_text("[[group]]\nnam = 1\n")
    kept.keep(config)  # a broken one is not kept
    assert kept.to_let_go(config).read_text() == CONFIG
    assert kept.group_names(config) == [GROUP]
    with pytest.raises(ConfigError):
        converge(config, GROUP, None, 1.0)  # nothing was said: nothing to let go
    notify.record("master", GROUP)
    with pytest.raises(ConfigError):
        converge(config, GROUP, None, 1.0)  # and nothing is taken by an old configuration
    Marks(GROUP).put("stopping")
    with pytest.raises(AwshaError) as refused:
        converge(config, GROUP, None, 1.0)
    assert not isinstance(refused.value, ConfigError), "it got as far as asking who this node is"


def test_without_any_good_configuration_the_problems_are_told(run: Path, config: Path):
    config.write_text("[[group]]\nnam = 1\n")
    (run / "groups" / GROUP).rmdir()
    with pytest.raises(ConfigError):
        kept.to_let_go(config)
    with pytest.raises(ConfigError):
        kept.group_names(config)


FREE = {
    "goal": "release",
    "running": [],
    "application": "stopped",
    "vips": [{"kernel": False}],
    "volumes": [{"device": None, "mounted": False}],
}


def test_a_backup_that_has_nothing_waits_for_no_ec2_when_keepalived_stops():
    assert operate.nothing_here(FREE)
    assert operate.nothing_here({**FREE, "application": None, "volumes": []})
    for held in (
        {"goal": "master"},
        {"running": ["attach (vol-1)"]},
        {"application": "running"},
        {"application": "unknown"},
        {"vips": [{"kernel": None}]},
        {"volumes": [{"device": "unknown", "mounted": False}]},
        {"volumes": [{"device": "/dev/nvme1n1", "mounted": False}]},
        {"volumes": [{"device": None, "mounted": None}]},
    ):
        assert not operate.nothing_here({**FREE, **held}), held
