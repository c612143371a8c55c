"""What Prometheus is told, read by its own parser; the dashboard and the alerts name only what there is."""

from __future__ import annotations

import http.client
import json
import os
import re
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from awsha.agent.metrics import METRICS, Exporter, Tally, group_samples, text
from awsha.agent.metrics import replace as replace_file
from awsha.agent.metrics_port import server
from awsha.agent.notices import Notifier
from awsha.config.load import parse
from awsha.config.problems import ConfigError
from awsha.core.loop import Ambient
from awsha.core.model import Role
from awsha.core.policy import Metrics, Notify
from awsha.core.transition import Cause, End, Transition
from tests.core.situations import volume
from tests.core.test_loop import Bench
from tests.core.test_transition import HELD, NOTHING, cloud

ROOT = Path(__file__).parents[2]
PATIENCE_S = 20.0
TAKEN = Transition(
    "data-1", "data", "b", "r", 1e9, Cause("role", "MASTER"), "master", "master", End.CONVERGED, took=8.43
)


def parsed(told: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by its name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(told)
        for sample in family.samples
    }


def bench(role: Role, **facts: Any) -> Bench:
    found = Bench(role)
    found.tell(**facts)
    return found


def exporter(*benches: Bench, tally: Tally | None = None, wanted: Metrics | None = None, said: Any = None) -> Exporter:
    turns = [b.last for b in benches]
    return Exporter(
        wanted or Metrics(), "a", tally or Tally(), lambda: turns, (said if said is not None else []).append
    )


def test_a_master_that_serves():
    told = parsed(exporter(bench(Role.MASTER, **HELD)).told())
    group = (("group", "data"),)
    assert told["awsha_group_role", (("group", "data"), ("role", "master"))] == 1
    assert told["awsha_group_role", (("group", "data"), ("role", "backup"))] == 0
    assert told["awsha_group_goal", (("goal", "master"), ("group", "data"))] == 1
    for name, value in {
        "converged": 1,
        "serving": 1,
        "healthy": 1,
        "ready": 1,
        "fenced": 0,
        "volumes": 1,
        "volumes_held": 1,
    }.items():
        assert told[f"awsha_group_{name}", group] == value, name


def test_a_node_that_is_paused_and_one_that_is_blocked():
    paused = bench(Role.BACKUP, **NOTHING)
    paused.ambient = Ambient(marks=frozenset({"paused"}))
    paused.turn(1.0)
    told = parsed(text(group_samples(paused.last)))
    assert told["awsha_group_paused", (("group", "data"),)] == 1
    assert told["awsha_group_ready", (("group", "data"),)] == 0
    blocked = bench(Role.MASTER, **{**NOTHING, "cloud": cloud(volume(("i-stranger", "attached")))})
    blocked.turn(40.0)
    told = parsed(text(group_samples(blocked.last)))
    waits = {key[1]: value for key, value in told.items() if key[0] == "awsha_group_waiting_seconds"}
    assert waits[(("blocked", "true"), ("code", "held-by-stranger"), ("group", "data"))] == pytest.approx(40.0)


def test_before_the_first_role_it_is_none():
    found = Bench(None)
    assert parsed(text(group_samples(found.last)))["awsha_group_role", (("group", "data"), ("role", "none"))] == 1


def test_what_adds_up():
    tally = Tally()
    tally.request("AttachVolume", 0.25, "ok")
    tally.request("AttachVolume", 0.5, 'we"ird\\code')
    tally.transition(replace(TAKEN, end=End.UNDER_WAY, took=1.0))
    tally.transition(TAKEN)
    tally.transition(replace(TAKEN, took=1000.0))
    told = parsed(exporter(tally=tally).told())
    assert told["awsha_ec2_requests_total", (("action", "AttachVolume"), ("code", 'we"ird\\code'))] == 1
    assert told["awsha_ec2_request_seconds_total", (("action", "AttachVolume"),)] == pytest.approx(0.75)
    labels = (("end", "converged"), ("goal", "master"), ("group", "data"))
    name = "awsha_transition_duration_seconds"
    assert told[f"{name}_count", labels] == 2
    assert told[f"{name}_sum", labels] == pytest.approx(1008.43)
    buckets = {k[1]: v for k, v in told.items() if k[0] == f"{name}_bucket"}
    by_bound = {dict(key)["le"]: value for key, value in buckets.items()}
    assert (by_bound["7.5"], by_bound["10"], by_bound["300"], by_bound["+Inf"]) == (0, 1, 1, 2)
    assert told["awsha_group_last_transition_duration_seconds", (("end", "converged"), ("group", "data"))] == 1000.0


def test_the_first_notice_that_fails_is_an_increase():
    notifier, tally = Notifier(Notify(("/bin/true",)), lambda *_: None), Tally()
    tally.ways(notifier.ways)
    name, failed = "awsha_notifications_total", (("by", "command"), ("code", "failed"))
    assert parsed(exporter(tally=tally).told())[name, failed] == 0
    tally.notified("command", "failed")
    tally.ways(notifier.ways)
    assert parsed(exporter(tally=tally).told())[name, failed] == 1


def test_the_last_transition_is_known_after_a_restart_and_a_newer_one_counts_more():
    name, tally = "awsha_group_last_transition_duration_seconds", Tally()
    tally.remember(None)
    tally.remember(replace(TAKEN, end=End.UNDER_WAY))
    assert not any(key[0] == name for key in parsed(exporter(tally=tally).told()))
    tally.remember(TAKEN)
    assert parsed(exporter(tally=tally).told())[name, (("end", "converged"), ("group", "data"))] == 8.43
    tally.transition(replace(TAKEN, id="data-2", took=2.0))
    tally.remember(TAKEN)
    told = parsed(exporter(tally=tally).told())
    assert told[name, (("end", "converged"), ("group", "data"))] == 2.0
    labels = (("end", "converged"), ("goal", "master"), ("group", "data"))
    assert told["awsha_transition_duration_seconds_count", labels] == 1, "what was before is not counted again"


def test_the_file_is_replaced_whole_readable_and_by_no_link(tmp_path: Path):
    precious = tmp_path / "precious"
    precious.write_text("kept")
    file = tmp_path / "awsha.prom"
    file.symlink_to(precious)
    (tmp_path / f".awsha.prom.{os.getpid()}").symlink_to(precious)
    replace_file(file, "awsha_info 1\n")
    assert (file.read_text(), precious.read_text()) == ("awsha_info 1\n", "kept")
    assert file.stat().st_mode & 0o777 == 0o644
    assert sorted(p.name for p in tmp_path.iterdir()) == ["awsha.prom", "precious"]


def test_a_directory_that_is_not_there_is_said_once(tmp_path: Path):
    said: list[str] = []
    told = exporter(said=said)
    told.write(tmp_path / "nowhere/awsha.prom")
    told.write(tmp_path / "nowhere/awsha.prom")
    assert len(said) == 1
    assert "can't be written" in said[0]


def test_a_transition_has_the_file_written_soon(tmp_path: Path):
    file, stop, tally = tmp_path / "awsha.prom", threading.Event(), Tally()
    exporter(tally=tally, wanted=Metrics(str(file))).start(stop)
    look = threading.Event()
    tally.transition(TAKEN)
    for _ in range(400):
        if file.exists() and "awsha_transition_duration_seconds_count" in file.read_text():
            break
        look.wait(0.05)
    stop.set()
    tally.changed.set()
    assert "awsha_transition_duration_seconds_count" in file.read_text()


def test_the_port_answers_on_this_machine_only():
    with server(0, exporter(bench(Role.MASTER, **HELD)).told) as found:
        host, port = found.server_address[:2]
        assert host == "127.0.0.1"
        threading.Thread(target=found.serve_forever, daemon=True).start()
        for path, status in (("/metrics", 200), ("/secret", 404)):
            with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as asking:
                asking.request("GET", path)
                reply = asking.getresponse()
                content = reply.read().decode()
            assert reply.status == status
            if status == 200:
                assert reply.headers["Content-Type"].startswith("text/plain; version=0.0.4")
                assert parsed(content)["awsha_group_serving", (("group", "data"),)] == 1
        found.shutdown()


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('textfile = "awsha.prom"', "metrics.textfile"),
        ('textfile = "/var/lib/awsha.txt"', "metrics.textfile"),
        ("port = 70000", "metrics.port"),
        ("prot = 9417", "metrics.prot"),
        ('textfile = "/var/lib/node_exporter/awsha.prom"\nport = 9417', ""),
    ],
)
def test_the_configuration_of_it(lines: str, problem: str):
    sample = (ROOT / "conf/awsha.toml").read_text()
    written = f"[metrics]\n{lines}\n" + sample.replace("command =", "# command =")
    if problem:
        with pytest.raises(ConfigError, match=re.escape(problem)):
            parse(written, "awsha.toml")
    else:
        metrics = parse(written, "awsha.toml").policy.metrics
        assert metrics == Metrics("/var/lib/node_exporter/awsha.prom", 9417)
        assert metrics.wanted
    assert not parse(sample, "awsha.toml").policy.metrics.wanted


# --- what is in conf/ -------------------------------------------------------------------------------------------------

EXISTING = set(METRICS) | {f"awsha_transition_duration_seconds{end}" for end in ("_bucket", "_sum", "_count")}
LABELS = {"group", "role", "goal", "code", "blocked", "end", "action", "node", "version", "le", "instance", "by"}


def named(expression: str) -> set[str]:
    """The metrics that an expression names."""
    return set(re.findall(r"\bawsha_\w+", expression))


def matched(expression: str) -> set[str]:
    """The labels that an expression matches or groups by."""
    inside = ",".join(re.findall(r"{([^}]*)}", expression))
    by = ",".join(re.findall(r"\b(?:by|on) \(([^)]*)\)", expression))
    return set(re.findall(r"(\w+)\s*(?:=~|!=|!~|=)", inside)) | set(re.findall(r"\w+", by))


def test_the_dashboard_shows_only_what_there_is_and_all_of_it():
    board = json.loads((ROOT / "conf/grafana/awsha.json").read_text())
    expressions = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    expressions += [entry["expr"] for entry in board["annotations"]["list"]]
    shown = set().union(*map(named, expressions))
    assert shown <= EXISTING
    assert set().union(*map(matched, expressions)) <= LABELS
    families = {re.sub("_(bucket|sum|count)$", "", name) for name in shown}
    assert set(METRICS) - families == {"awsha_written_timestamp_seconds", "awsha_group_goal", "awsha_group_converged"}
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken = [(x, y) for p in board["panels"] for g in [p["gridPos"]]
             for x in range(g["x"], g["x"] + g["w"]) for y in range(g["y"], g["y"] + g["h"])]  # fmt: skip
    assert len(taken) == len(set(taken)), "no panel lies on another"
    assert max(x for x, _ in taken) < 24


def test_the_alerts_ask_only_for_what_there_is():
    rules = yaml.safe_load((ROOT / "conf/prometheus/awsha-rules.yml").read_text())
    alerts = [rule for group in rules["groups"] for rule in group["rules"]]
    assert len({rule["alert"] for rule in alerts}) == len(alerts) > 8
    for rule in alerts:
        assert rule.keys() <= {"alert", "expr", "for", "labels", "annotations"}
        assert named(rule["expr"]), rule["alert"]
        assert named(rule["expr"]) <= EXISTING, rule["alert"]
        assert matched(rule["expr"]) <= LABELS, rule["alert"]
        assert rule["expr"].count("(") == rule["expr"].count(")")
        assert rule["labels"]["severity"] in ("warning", "critical")
        used = set(re.findall(r"\$labels\.(\w+)", json.dumps(rule["annotations"])))
        assert used <= LABELS
        kept = re.search(r"\bby \(([^)]*)\)", rule["expr"])
        assert kept is None or used <= set(re.findall(r"\w+", kept[1])), "a label that the expression does not keep"


def test_an_agent_that_is_gone_is_missed_also_where_it_leaves_no_file():
    rules = yaml.safe_load((ROOT / "conf/prometheus/awsha-rules.yml").read_text())["groups"][0]["rules"]
    silent = next(rule["expr"] for rule in rules if rule["alert"] == "AwshaAgentSilent")
    assert silent == "time() - max_over_time(awsha_written_timestamp_seconds[6h]) > 120"


def test_the_page_lists_every_metric():
    page = (ROOT / "docs/metrics.md").read_text()
    assert set(re.findall(r"`(awsha_\w+)`", page)) == set(METRICS)
