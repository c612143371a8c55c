"""A planned switchover: what is asked and answered through the volume's tag, how it ends, and what a watcher sees."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.core import guards, handover
from awsha.core.handover import Stage, lift, seen
from awsha.core.health import Verdict, verdict
from awsha.core.model import ApplicationState, CloudFacts, Faults, Heard, Releasing, Role, Serving, Unknown
from awsha.core.plan import PAUSED, RELEASED, plan
from awsha.core.situation import Situation
from awsha.core.steps import TagReleasing, TagServing
from tests.core.situations import (
    GROUP,
    ME,
    MOUNTED,
    NOW,
    VIP,
    VOL,
    WALL,
    A,
    B,
    after,
    cloud,
    host,
    instances,
    intent,
    serving,
    volume,
)

ASKED = Releasing("b", WALL - 5, handover.ASKS)
RUNNING = ApplicationState.RUNNING
UNTIL = handover.mark(NOW + 100)
HEARD = {"b": Heard(NOW - 0.2, 100)}


def held(**more: object) -> Situation:
    """Node a serves, and the tag of its volume says `more`."""
    return serving(cloud=cloud(volume((A, "attached"), **more), "a"))


# --- the answer ------------------------------------------------------------------------------------------------


def test_a_node_that_serves_answers_the_one_that_asked_once():
    assert plan(held(releasing=ASKED)).steps == (TagServing(VOL),)
    assert plan(held(serving=Serving("a", WALL))).done


@pytest.mark.parametrize(
    "quiet",
    [
        held(),
        held(releasing=Releasing("b", WALL - 5)),
        held(releasing=replace(ASKED, node="a")),
        serving(
            cloud=cloud(volume((A, "attached"), releasing=ASKED), "a"),
            host=host(MOUNTED, app=ApplicationState.STOPPED),
        ),
        serving(cloud=cloud(volume((A, "attached"), releasing=ASKED))),
    ],
    ids=["nobody asked", "no switchover", "own tag", "application not up", "no address by EC2"],
)
def test_an_answer_costs_nothing_where_none_was_asked_for_and_never_comes_early(quiet: Situation):
    assert not any(isinstance(step, TagServing) for step in plan(quiet).steps)


def test_an_answer_that_ec2_refuses_leaves_the_service_in_order():
    tried = after(held(releasing=ASKED), TagServing(VOL), ago=60, ok=False, runs=handover.TRIES)
    assert (plan(tried).done, plan(tried).steps) == (True, ())


def test_a_node_that_is_no_master_any_more_does_not_say_that_it_serves():
    fresh = guards.Fresh(intent(Role.FAULT), frozenset(), None, False)
    assert "no longer master" in (guards.refusal(TagServing(VOL), fresh, intent(), A) or "")


# --- the question, and the end -----------------------------------------------------------------------------------


def switching(role: Role = Role.MASTER, *more: str, **hosts: object) -> Situation:
    """Node a is switched over, and has everything yet."""
    marks = frozenset({UNTIL, *more})
    return serving(intent=intent(role), host=host(MOUNTED, app=RUNNING, marks=marks, **hosts))


def test_the_tag_of_a_release_says_that_it_is_a_switchover_or_why_the_master_failed():
    assert TagReleasing(VOL, "switchover") in plan(switching()).steps
    assert TagReleasing(VOL) in plan(serving(intent=intent(Role.BACKUP))).steps
    failed = host(MOUNTED, app=RUNNING, faults=Faults(1, NOW - 5, "db.service failed"))
    assert (
        TagReleasing(VOL, "failed as master: db.service failed")
        in plan(serving(intent=intent(Role.FAULT), host=failed)).steps
    )


def bare(s: Situation) -> Situation:
    """The same with nothing here any more, by EC2 and the kernel."""
    nothing = replace(s.host, disks=host().disks, vips=frozenset(), application=ApplicationState.STOPPED)
    return replace(s, cloud=cloud(), host=nothing)


def test_a_switched_over_node_comes_back_when_a_peer_is_master_and_not_before():
    gone = bare(switching(Role.FAULT))
    assert (plan(gone).steps, plan(gone).done) == ((), True)
    assert not verdict(gone, plan(gone), Verdict(True)).ok
    end = lift(UNTIL)
    assert plan(bare(switching(Role.FAULT, heard=HEARD))).steps == (end,)
    assert end not in plan(switching(Role.MASTER, heard=HEARD)).steps, "VRRP has not given way yet"
    assert not end.needs, "EC2 need not answer for it"


def test_a_switched_over_node_comes_back_too_when_the_peer_took_over_and_failed_at_once():
    for since in (Heard(NOW - 5, 100), Heard(NOW - 5, 0)):  # out since NOW - 10; only a master resigns
        assert plan(bare(switching(Role.FAULT, heard={"b": since}))).steps == (lift(UNTIL),)
    for before in (Heard(NOW - 11, 100), Heard(NOW - 11, 0)):
        assert plan(bare(switching(Role.FAULT, heard={"b": before}))).steps == ()


def test_the_end_of_a_switchover_leaves_a_release_that_came_meanwhile():
    both = bare(switching(Role.FAULT, RELEASED, heard=HEARD))
    assert plan(both).steps == (lift(UNTIL),)
    after_it = replace(both, host=replace(both.host, marks=both.host.marks - {UNTIL}))
    assert (plan(after_it).goal, plan(after_it).done, verdict(after_it, plan(after_it), Verdict(True)).ok) == (
        "release", True, False,
    )  # fmt: skip


@pytest.mark.parametrize("role", [Role.MASTER, Role.FAULT])
def test_a_switched_over_node_comes_back_when_its_time_is_over(role: Role):
    late = replace(switching(role), now=NOW + 101)
    assert lift(UNTIL) in plan(late).steps


def test_a_mark_that_is_no_moment_is_taken_away_and_a_release_stays():
    broken = bare(serving(intent=intent(Role.FAULT), host=host(marks=frozenset({"switchover:x"}))))
    assert plan(broken).steps == (lift("switchover:x"),)
    released = bare(serving(intent=intent(Role.FAULT), host=host(marks=frozenset({RELEASED}), heard=HEARD)))
    assert plan(released).steps == ()
    assert plan(replace(switching(Role.FAULT, PAUSED), now=NOW + 101)).steps == ()


# --- what is seen from here --------------------------------------------------------------------------------------


def look(facts: CloudFacts, had: str = "", before: handover.Words | None = None) -> tuple[Stage, str]:
    """Stage and peer of one look by node a."""
    found = seen(GROUP, ME, facts, before or {}, had)
    assert found.text
    return found.stage, found.peer


SERVED = Serving("b", WALL)
AGAIN = Releasing("b", WALL, "failed as master: db.service failed")


@pytest.mark.parametrize(
    ("facts", "had", "expected"),
    [
        (cloud(volume((A, "detaching")), "a"), "", (Stage.HERE, "")),
        (cloud(), "", (Stage.FREE, "")),
        (cloud(volume((B, "attaching"))), "", (Stage.TAKING, "b")),
        (cloud(volume((B, "attached"))), "", (Stage.TAKING, "b")),
        (cloud(vip_on="b"), "", (Stage.TAKING, "b")),
        (cloud(volume((B, "attached")), "a"), "", (Stage.TAKING, "b")),
        (cloud(volume((B, "attached"), releasing=replace(ASKED, node="a")), "b"), "", (Stage.HOLDS, "b")),
        (cloud(volume((B, "attached"), serving=Serving("c", WALL)), "b"), "", (Stage.HOLDS, "b")),
        (cloud(volume((B, "attached"), serving=SERVED), "b"), "", (Stage.SERVES, "b")),
        (cloud(volume((B, "attached"), serving=SERVED)), "", (Stage.TAKING, "b")),
        (cloud(volume((B, "attached"), releasing=AGAIN), "b"), "b", (Stage.BACK, "b")),
        (cloud(volume(releasing=AGAIN)), "", (Stage.BACK, "b")),
        (cloud(), "b", (Stage.BACK, "b")),
        (cloud(volume((A, "attached")), "a"), "b", (Stage.BACK, "b")),
        (cloud(volume(("i-0000000000000000f", "attached"))), "", (Stage.TAKING, "i-0000000000000000f")),
        (CloudFacts(Unknown("throttled"), {}), "", (Stage.UNKNOWN, "")),
        (CloudFacts({}, Unknown("throttled")), "", (Stage.UNKNOWN, "")),
        (CloudFacts({}, instances()), "", (Stage.UNKNOWN, "")),
    ],
)
def test_what_ec2_shows_of_a_peer(facts: CloudFacts, had: str, expected: tuple[Stage, str]):
    assert look(facts, had) == expected


def test_what_the_tag_said_before_says_nothing_about_this_switchover():
    """A reply from an earlier one, or a release of the peer, where the tag of this one could not be written."""
    old = cloud(volume((B, "attached"), serving=SERVED), "b")
    assert look(old, before=handover.words(old)) == (Stage.HOLDS, "b")
    let_go = cloud(volume((B, "attached"), releasing=AGAIN), "b")
    assert look(let_go, before=handover.words(let_go)) == (Stage.HOLDS, "b")


def test_the_reason_of_the_peer_is_told():
    found = seen(GROUP, ME, cloud(volume((B, "detaching"), releasing=AGAIN), "b"), {}, "b")
    assert "db.service failed" in found.text


def test_a_peer_that_does_not_run_any_more_has_not_let_go_for_a_reason_of_its_own():
    assert seen(GROUP, ME, cloud(b_state="stopped"), {}, "b").text == "b did not finish: its instance is stopped"
    assert "does not say why" in seen(GROUP, ME, cloud(), {}, "b").text


def test_a_group_without_volumes_has_nothing_on_which_a_peer_could_answer():
    group = replace(GROUP, volumes=())
    facts = CloudFacts({}, instances(b=frozenset({VIP})))
    assert seen(group, ME, facts, {}).stage is Stage.HOLDS
