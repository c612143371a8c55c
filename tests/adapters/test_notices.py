"""Notices: a program that is run for real, a topic as the lab plays it, and what neither may hold up."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from awsha.agent import notices
from awsha.agent.notices import Notifier, tell_command, tell_topic
from awsha.agent.preflight import notice_reads
from awsha.aws.client import create_client
from awsha.aws.permissions import document
from awsha.config.load import parse
from awsha.config.problems import ConfigError
from awsha.core import judge_host
from awsha.core.errors import AwshaError
from awsha.core.findings import Code
from awsha.core.notice import Notice, notice, trial
from awsha.core.policy import Group, Node, Notify, Policy
from awsha.core.transition import End
from awsha.lab.iam import Roles
from awsha.lab.records import ACCOUNT
from tests.adapters import aws_lab
from tests.adapters.aws_lab import A
from tests.adapters.conftest import require_root
from tests.adapters.one_node import until
from tests.core.test_iam_policy import SCOPE
from tests.core.test_notice import TAKEN

ROOT = Path(__file__).parents[2]
TOPIC = f"arn:aws:sns:eu-west-1:{ACCOUNT}:notices"
PATIENCE_S = 30.0
TEST = trial("data", "a", 1e9)


def taken() -> Notice:
    told = notice(TAKEN)
    assert told is not None
    return told


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """A program that notes what it is told."""
    require_root()
    file = tmp_path / "page"
    file.write_text(f'#!/bin/sh\ncat > {tmp_path}/stdin\nenv > {tmp_path}/env\necho "$1" > {tmp_path}/word\n')
    file.chmod(0o755)
    return file


def test_a_program_has_the_notice_on_its_input_and_in_its_environment(program: Path, tmp_path: Path):
    tell_command((str(program), "on call; $(date)"), taken())
    assert json.loads((tmp_path / "stdin").read_text()) == taken().as_dict()
    assert (tmp_path / "word").read_text() == "on call; $(date)\n"
    environment = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
    given = {key: value for key, value in environment.items() if key.startswith("AWSHA_")}
    assert given == {
        "AWSHA_EVENT": "taken", "AWSHA_GROUP": "data", "AWSHA_NODE": "b", "AWSHA_TEXT": taken().text,
        "AWSHA_TRANSITION": "data-1", "AWSHA_TOOK_S": "8.43",
    }  # fmt: skip
    assert environment["PWD"] == "/"


def test_a_program_that_others_can_write_or_that_fails_is_an_error_with_a_hint(program: Path):
    program.write_text("#!/bin/sh\necho no such pager >&2\nexit 3\n")
    with pytest.raises(AwshaError, match="exit code 3: no such pager"):
        tell_command((str(program),), TEST)
    program.chmod(0o775)
    with pytest.raises(AwshaError, match="can be written to by others") as refused:
        tell_command((str(program),), TEST)
    assert refused.value.hint == f"chmod go-w {program}"
    with pytest.raises(AwshaError, match="can't be looked at"):
        tell_command((f"{program}-gone",), TEST)


class Log:
    """What was logged and counted."""

    def __init__(self) -> None:
        self.lines: list[tuple[str, str]] = []
        self.counts: list[tuple[str, str]] = []
        self.counted = threading.Semaphore(0)

    def say(self, group: str, text: str) -> None:
        self.lines.append((group, text))

    def count(self, by: str, code: str) -> None:
        self.counts.append((by, code))
        self.counted.release()


def test_each_notice_is_sent_once_and_a_failure_is_logged_and_counted(program: Path, tmp_path: Path):
    log = Log()
    notifier = Notifier(Notify(command=(str(program),)), log.say, log.count)
    for line in (replace(TAKEN, end=End.UNDER_WAY), TAKEN, TAKEN):
        notifier.transition(line)
    assert log.counted.acquire(timeout=PATIENCE_S)
    program.chmod(0o777)
    notifier.transition(replace(TAKEN, id="data-2"))
    notifier.close(PATIENCE_S)
    assert log.counts == [("command", "ok"), ("command", "failed")]
    [(group, text)] = log.lines
    assert group == "data"
    assert "nobody was told of `taken` by command" in text
    assert "chmod go-w" in text
    assert (tmp_path / "stdin").exists()


def test_a_program_that_hangs_holds_nothing_up_and_ends_with_the_agent(tmp_path: Path):
    require_root()
    hangs = tmp_path / "hangs"
    hangs.write_text(
        f"#!/bin/sh\necho $$ > {tmp_path}/pid.new; mv {tmp_path}/pid.new {tmp_path}/pid\nexec sleep 1000\n"
    )
    hangs.chmod(0o755)
    log = Log()
    notifier = Notifier(Notify(command=(str(hangs),)), log.say, log.count)
    notifier.transition(TAKEN)
    pid = int(until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text(), "it runs"))
    for number in range(notices.QUEUE_MOST + 1):
        notifier.transition(replace(TAKEN, id=f"data-{number}b"))
    assert log.lines[-1][1].endswith("too many wait to be sent already")
    notifier.close(0.0)
    until(lambda: not Path(f"/proc/{pid}").exists(), "it was ended")
    until(lambda: len(log.counts) == 2, "it was counted")
    assert log.counts == [("command", "failed")] * 2


def test_without_notify_there_is_no_thread_and_nothing_is_kept():
    log = Log()
    notifier = Notifier(Notify(), log.say, log.count)
    before = threading.active_count()
    notifier.transition(TAKEN)
    notifier.close(PATIENCE_S)
    assert threading.active_count() == before
    assert (log.lines, log.counts) == ([], [])


# --- the topic --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def servers() -> Iterator[aws_lab.Servers]:
    with aws_lab.running_servers() as found:
        yield found


@pytest.fixture
def endpoint(servers: aws_lab.Servers, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The lab's endpoint, to which every caller is node a."""
    servers.fresh(monkeypatch)
    found = servers.endpoint
    found.authorize = lambda _caller, _action, _params: None
    return found


def sent() -> list[tuple[str, str]]:
    """Subject and message of all that moto's topic was given."""
    from moto.sns.models import sns_backends

    topic = sns_backends[ACCOUNT]["eu-west-1"].topics[TOPIC]
    return [(subject, text) for _, text, subject, _, _ in topic.sent_notifications]


def test_a_topic_is_published_to_with_what_the_policy_grants_and_no_more(endpoint: Any):
    admin = create_client("eu-west-1", 5.0, 60.0, 1, service="sns")  # the first answer of moto takes seconds
    assert admin.create_topic(Name="notices")["TopicArn"] == TOPIC
    admin.create_topic(Name="others")
    granted = {"policy": document(replace(SCOPE, topics=(TOPIC,)))}
    roles = Roles("eu-west-1", lambda: granted["policy"])
    endpoint.authorize = lambda _caller, action, params: roles.authorize(A, action, params)
    tell_topic(TOPIC, taken())
    [(subject, text)] = sent()
    assert subject == "awsha: data taken on b"
    first, _, rest = text.partition("\n\n")
    assert (first, json.loads(rest)) == (taken().text, taken().as_dict())
    with pytest.raises(AwshaError, match="sns:Publish: AuthorizationError") as refused:
        tell_topic(TOPIC.replace("notices", "others"), taken())
    assert "awsha iam-policy" in refused.value.hint
    granted["policy"] = document(SCOPE)
    with pytest.raises(AwshaError, match="AuthorizationError"):
        tell_topic(TOPIC, taken())
    assert len(sent()) == 1
    endpoint.authorize = lambda _caller, _action, _params: None
    with pytest.raises(AwshaError, match="NotFound") as absent:
        tell_topic(TOPIC + "-none", taken())
    assert "sns_topic" in absent.value.hint
    admin.close()


@pytest.mark.usefixtures("endpoint")
def test_a_topic_that_does_not_answer_is_tried_again_and_then_logged(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    log = Log()
    notifier = Notifier(Notify(sns_topic=TOPIC), log.say, log.count, pauses_s=(0.0, 0.01))
    notifier.transition(TAKEN)
    notifier.close(PATIENCE_S)
    assert log.counts == [("sns", "failed")]
    assert "SNS endpoint" in log.lines[0][1]


# --- the configuration ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("lines", "problem"),
    [
        ('command = ["page"]', "notify.command[0]"),
        ('command = "/usr/bin/page"', "notify.command"),
        ("command = []", "notify.command"),
        ('sns_topic = "alarms"', "notify.sns_topic"),
        ('sns_topic = "arn:aws:sqs:eu-west-1:123456789012:alarms"', "notify.sns_topic"),
        ('topic = "arn:aws:sns:eu-west-1:123456789012:alarms"', "notify.topic"),
        ('command = ["/usr/bin/page", "x"]\nsns_topic = "arn:aws:sns:eu-west-1:123456789012:alarms.fifo"', ""),
    ],
)
def test_the_configuration_of_it(lines: str, problem: str):
    sample = (ROOT / "conf/awsha.toml").read_text()
    text = f"[notify]\n{lines}\n" + sample.replace("command =", "# command =")
    if problem:
        with pytest.raises(ConfigError) as wrong:
            parse(text, "awsha.toml")
        assert [p.key for p in wrong.value.problems] == [problem]
    else:
        wanted = parse(text, "awsha.toml").policy.notify
        assert wanted == Notify(("/usr/bin/page", "x"), "arn:aws:sns:eu-west-1:123456789012:alarms.fifo")
    assert parse(sample, "awsha.toml").policy.notify == Notify()


# --- awsha check ------------------------------------------------------------------------------------------------------


def test_check_looks_at_the_program_and_sends_only_when_asked(program: Path, tmp_path: Path):
    nodes, group = (Node("a", "10.0.0.10"),), Group("data", 51, ("10.0.0.100",))
    policy = Policy(nodes, (group,), notify=Notify((str(program),), TOPIC))
    looks = notice_reads(policy, "a", send=False)
    assert list(looks) == ["notice by command"], "SNS can't be asked without sending"
    assert looks["notice by command"]() is None
    program.chmod(0o775)
    [found] = judge_host.notices({way: look() for way, look in looks.items()})
    assert (found.code, found.subject, found.hint) == (Code.NOTIFY, "notice by command", f"chmod go-w {program}")
    program.chmod(0o644)
    assert "not executable" in looks["notice by command"]()[0]
    assert not (tmp_path / "stdin").exists()
    program.chmod(0o755)
    sends = notice_reads(policy, "a", send=True)
    assert list(sends) == ["notice by command", "notice by sns"]
    assert sends["notice by command"]() is None
    assert json.loads((tmp_path / "stdin").read_text())["event"] == "test"
    assert notice_reads(replace(policy, notify=Notify()), "a", send=True) == {}
