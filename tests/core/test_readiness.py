"""Who takes over if the master dies now: the verdict in every case that it tells apart, and what is never claimed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from awsha.agent.report import by_node, group_report
from awsha.aws.facts import TAG_MOST, said_of, said_value
from awsha.core import readiness
from awsha.core.health import Verdict
from awsha.core.model import (
    ApplicationState,
    CloudFacts,
    Device,
    DiskFacts,
    Faults,
    Heard,
    Mount,
    Role,
    Said,
    Unknown,
    VolumeState,
)
from awsha.core.plan import GONE, PAUSED, RELEASED, STOPPING, plan
from awsha.core.policy import Fence
from awsha.core.situation import Situation
from awsha.core.volumes import FENCED
from tests.core.situations import (
    ABSENT,
    GROUP,
    MOUNTED,
    NOW,
    STALE,
    VOL,
    WALL,
    A,
    B,
    cloud,
    host,
    instances,
    serving,
    situation,
    volume,
)

HEARD = {"b": Heard(NOW - 0.4, 100)}
HELD_BY_B = volume((B, "attached"))
OK = Verdict(True)


def standby(
    role: Role | None = Role.BACKUP, facts: Any = HELD_BY_B, b_state: str = "running", **of_host: Any
) -> Situation:
    """Node a stands by; b serves and is heard."""
    disk = of_host.pop("disk", ABSENT)
    return situation(
        role, cloud=cloud(facts, "b", b_state), host=host(disk, **{"vip": False, "heard": HEARD, **of_host})
    )


def judged(s: Situation, verdict: Verdict = OK, **more: Any) -> readiness.Readiness:
    [found] = readiness.takeover(s, plan(s), verdict, **more)
    return found


def test_a_standby_that_is_ready_says_what_it_would_begin_with():
    found = judged(standby())
    assert (found.node, found.ready, found.because, found.but) == ("a", True, (), ())
    assert found.does == (f"stop-instance ({B})",)
    assert judged(standby(b_state="stopped")).does[0].startswith("detach")
    assert judged(standby(facts=volume())).does[0].startswith("attach")
    assert readiness.word(standby(), plan(standby()), OK) == "ready"


def test_without_an_agent_it_is_slower_and_a_release_under_way_is_told():
    assert "no agent" in judged(standby(), agent=False).but[0]
    letting_go = standby(facts=volume((A, "attached")), disk=MOUNTED)
    assert (judged(letting_go).ready, judged(letting_go).but) == (True, ("it is still letting go",))


NOT_READY: dict[str, tuple[Situation, Verdict]] = {
    "no-intent": (standby(None), OK),
    "keepalived-gone": (standby(keepalived_gone_since=NOW - 5), OK),
    "fault": (standby(Role.FAULT), OK),
    "stop": (standby(Role.STOP), OK),
    "unhealthy": (standby(), Verdict(False, "held out of mastership for now")),
    "fenced": (standby(marks=frozenset({FENCED})), Verdict(False, "fenced")),
    "paused": (standby(marks=frozenset({PAUSED})), OK),
    "released": (standby(marks=frozenset({RELEASED})), Verdict(False, "released by an operator")),
    "damped": (standby(faults=Faults(2, NOW - 1, "no disk")), Verdict(False, "failed 2 times")),
    "holder-never-heard": (standby(heard={}), OK),
    "fence-none": (replace(standby(), group=replace(GROUP, fence=Fence.NONE)), OK),
    "held-by-stranger": (standby(facts=volume(("i-stranger", "attached"))), OK),
    "two-attachments": (standby(facts=volume((A, "attached"), (B, "attached"))), OK),
    "multi-attach": (standby(facts=volume(multi_attach=True)), OK),
    "volume-unusable": (standby(facts=volume(state=VolumeState.ERROR)), OK),
    "volume-missing": (replace(standby(), cloud=CloudFacts({}, instances())), OK),
    "ec2-unknown": (replace(standby(), cloud=CloudFacts(Unknown("no route"), Unknown("no route"))), OK),
    "host-unknown": (standby(disk=DiskFacts(None, Unknown("EIO"))), OK),
    "mount-point-busy": (
        standby(disk=DiskFacts(None, Mount("/srv/data", "7:7", "/dev/loop7", "ext4"), foreign=True)),
        OK,
    ),
    "mounted-elsewhere": (
        standby(
            facts=volume((A, "attached")),
            disk=DiskFacts(
                Device("/dev/nvme1n1", "259:1", "ext4"), None, others=(Mount("/mnt", "259:1", "/dev/nvme1n1", "ext4"),)
            ),
        ),
        OK,
    ),
    "zone": (
        replace(
            standby(),
            cloud=CloudFacts(
                {VOL: replace(HELD_BY_B, zone="eu-west-1b")},
                {i: replace(f, zone="eu-west-1a") for i, f in instances().items()},
            ),
        ),
        OK,
    ),
}


@pytest.mark.parametrize("code", NOT_READY)
def test_a_standby_that_is_not_ready_says_why_and_its_first_word_is_the_code(code: str):
    s, verdict = NOT_READY[code]
    found = judged(s, verdict)
    assert found.ready is False
    assert found.because[0].code == code
    assert found.because[0].text
    assert found.does == ()
    assert readiness.word(s, plan(s), verdict) == code


def test_a_node_that_faulted_itself_says_why_and_not_that_keepalived_did_as_it_was_told():
    faulted = standby(Role.FAULT, marks=frozenset({RELEASED}))
    assert [r.code for r in judged(faulted, Verdict(False, "released by an operator")).because] == ["released"]


def test_a_paused_master_tells_of_its_peer_and_its_own_word_is_paused():
    s = serving(host=host(MOUNTED, app=ApplicationState.RUNNING, marks=frozenset({PAUSED})))
    assert judged(s).node == "b"
    assert readiness.word(s, plan(s), OK) == "paused"


@pytest.mark.parametrize("mark", [STOPPING, GONE])
def test_what_is_out_of_vrrp_is_not_ready(mark: str):
    assert judged(standby(marks=frozenset({mark}))).because[0].code == "released"


def test_a_mount_that_lost_its_disk_is_a_fence_that_is_not_marked_yet():
    assert judged(standby(disk=STALE)).because[0].code == "fenced"


def test_before_the_first_look_nothing_is_claimed():
    from awsha.core.model import UNREAD

    s = replace(standby(), cloud=CloudFacts(UNREAD, UNREAD))
    assert judged(s).ready is None
    assert readiness.word(s, plan(s), OK) == "looking"


def test_a_volume_that_is_free_needs_nobody_to_have_been_heard():
    assert judged(standby(facts=volume(), heard={})).ready is True


def test_the_rehearsal_is_of_the_plan_itself_and_changes_nothing_of_the_situation():
    s = standby()
    rehearsed = plan(readiness.rehearsal(s))
    assert rehearsed.goal == "master"
    assert [type(step).__name__ for step in rehearsed.steps] == ["StopInstance"]
    assert plan(s).steps == ()


# --- a master: its peer -----------------------------------------------------------------------------------------------


def peer(said: Said | None = None, state: str = "running") -> readiness.Readiness:
    s = serving()
    nodes = instances(frozenset({"10.0.0.100"}), b_state=state)
    nodes[B] = replace(nodes[B], said=said)
    s = replace(s, cloud=CloudFacts({VOL: volume((A, "attached"))}, nodes))
    assert plan(s).goal == "master"
    return judged(s)


def said(word: str, ago_s: float = 720.0, group: str = "data") -> Said:
    return Said(WALL - ago_s, ((group, word),))


@pytest.mark.parametrize("state", ["stopped", "stopping", "terminated", "shutting-down", "pending"])
def test_a_peer_that_does_not_run_is_not_ready_whatever_it_said(state: str):
    found = peer(said("ready"), state)
    assert (found.ready, found.because[0].code) == (False, state)


def test_a_peer_that_said_so_is_never_called_ready_here():
    found = peer(said("ready"))
    assert (found.node, found.ready, found.because[0].code) == ("b", None, "ready")
    assert "12 min ago" in found.because[0].text
    assert "awsha status data" in found.because[0].hint


@pytest.mark.parametrize("word", ["paused", "fenced", "released", "damped"])
def test_a_peer_that_said_that_it_is_not_ready_may_be_ready_by_now(word: str):
    found = peer(said(word))
    assert (found.ready, found.because[0].code) == (None, word)
    assert word in found.because[0].text


def test_a_peer_that_said_nothing_or_of_another_group_or_that_it_was_master():
    assert (peer().ready, peer().because[0].code) == (None, "unsaid")
    assert peer(said("ready", group="web")).because[0].code == "unsaid"
    assert (peer(said("serving")).ready, peer(said("serving")).because[0].code) == (None, "serving")


def test_a_peer_that_ec2_does_not_know_or_does_not_tell_of():
    unknown = replace(serving(), cloud=CloudFacts({VOL: volume((A, "attached"))}, Unknown("no route")))
    assert (judged(unknown).ready, judged(unknown).because[0].code) == (None, "ec2-unknown")
    gone = replace(serving(), cloud=CloudFacts({VOL: volume((A, "attached"))}, {A: instances()[A]}))
    assert (judged(gone).ready, judged(gone).because[0].code) == (False, "missing")


def test_a_master_says_serving_or_taking_over():
    assert readiness.word(serving(), plan(serving()), OK) == "serving"
    assert readiness.word(situation(), plan(situation()), OK) == "taking-over"


# --- the tag, and the report ------------------------------------------------------------------------------------------


def test_the_tag_is_read_as_it_was_written():
    written = said_value(Said(WALL, (("data", "ready"), ("web", "paused"))))
    assert written == "1800000000 data:ready web:paused"
    assert said_of(written) == Said(WALL, (("data", "ready"), ("web", "paused")))


def test_the_tag_keeps_to_what_ec2_takes():
    long = Said(WALL, tuple((f"{n:032}", "holder-never-heard") for n in range(9)))
    assert len(said_value(long)) <= TAG_MOST
    read = said_of(said_value(long))
    assert read is not None
    assert read.words == long.words[: len(read.words)]
    assert len(read.words) == 4


@pytest.mark.parametrize("value", ["", "ready", "nan data:ready", "-1 data:ready", "1 data", "1 :ready", "1 data:"])
def test_a_tag_that_is_somebody_elses_is_no_word(value: str):
    assert said_of(value) is None


def test_who_is_master():
    assert readiness.master(serving()) == "a"
    assert readiness.master(standby()) == "b"
    assert readiness.master(standby(heard={})) is None
    assert readiness.master(standby(heard={"b": Heard(NOW - 60, 100)})) is None
    assert (
        readiness.master(serving(host=host(MOUNTED, app=ApplicationState.RUNNING, keepalived_gone_since=1.0))) is None
    )


def test_the_report_has_it_and_says_of_each_node_what_ec2_says():
    s = standby()
    nodes = instances(b=frozenset({"10.0.0.100"}))
    nodes[B] = replace(nodes[B], said=said("serving"))
    s = replace(s, cloud=CloudFacts({VOL: HELD_BY_B}, nodes))
    told = group_report(s, plan(s), OK)
    assert told["master"] == "b"
    assert told["takeover"][0] == {
        "node": "a", "here": True, "ready": True, "because": [], "but": [], "does": [f"stop-instance ({B})"],
    }  # fmt: skip
    assert told["peers"][0]["said"]["word"] == "serving"
    assert told["peers"][0]["said"]["s_ago"] == 720.0
    a, b = by_node(told)
    assert (a["here"], a["vips"], a["volumes"], a["said"]) == (True, [], [], None)
    assert (b["here"], b["vips"], b["volumes"]) == (False, ["10.0.0.100"], [VOL])
    assert b["said"]["word"] == "serving"


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(-3.0, "0 s ago"), (12.0, "12 s ago"), (120.0, "2 min ago"), (7200.0, "2 h ago"), (300000.0, "3 days ago")],
)
def test_a_time_that_has_passed(seconds: float, words: str):
    assert readiness.ago(seconds) == words
