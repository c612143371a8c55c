"""When the operator's programs run: at which point of a transition, in front of what, and once."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from awsha.core.guards import Fresh, refusal
from awsha.core.health import Verdict, damped, verdict
from awsha.core.hooks import ACQUIRING, RELEASING, mark_of
from awsha.core.loop import Ambient, Loop
from awsha.core.model import (
    ApplicationState,
    CloudFacts,
    Faults,
    Hook,
    HostFacts,
    Role,
    Unknown,
)
from awsha.core.pacing import describe
from awsha.core.plan import PAUSED, RELEASED, plan
from awsha.core.situation import Code, Memory, Situation
from awsha.core.steps import Failure, NoteHooks, Outcome, RunHooks, Scope, SetMark, Step
from awsha.core.volumes import FENCED
from tests.core.situations import (
    ABSENT,
    GROUP,
    ME,
    MOUNTED,
    NOW,
    PRESENT,
    STALE,
    VIP,
    VOL,
    A,
    B,
    after,
    cloud,
    host,
    intent,
    serving,
    situation,
    volume,
)

ALL = frozenset(Hook)
BEFORE_ACQUIRE, AFTER_MOUNT, AFTER_ACQUIRE = Hook.BEFORE_ACQUIRE, Hook.AFTER_MOUNT, Hook.AFTER_ACQUIRE
BEFORE_RELEASE, AFTER_RELEASE, ON_FENCED = Hook.BEFORE_RELEASE, Hook.AFTER_RELEASE, Hook.ON_FENCED
BARE = replace(GROUP, volumes=(), application=None)


def hooked(s: Situation, *ran: Hook, hooks: frozenset[Hook] = ALL, marks: frozenset[str] = frozenset()) -> Situation:
    """The same on a node that has hooks, of which some have run."""
    stands = s.host.marks | marks | {mark_of(hook) for hook in ran}
    return replace(s, host=replace(s.host, hooks=hooks, marks=stands))


def steps(s: Situation) -> list[str]:
    """What is started: the hooks by their point, other steps by their kind."""
    return [describe(x) if isinstance(x, RunHooks | NoteHooks) else type(x).__name__ for x in plan(s).steps]


def run(hook: Hook) -> list[str]:
    return [describe(RunHooks(hook))]


def forgotten(*hooks: Hook) -> set[str]:
    return {describe(NoteHooks(mark_of(hook), present=False)) for hook in hooks}


def failed(s: Situation, hook: Hook, **how: Any) -> Situation:
    told = {"failure": Failure.OTHER, "text": f"{hook} hook 10-x failed with exit code 3: no", "hint": "see"} | how
    return after(s, RunHooks(hook), ok=False, **told)


def mounted(app: ApplicationState = ApplicationState.STOPPED) -> Situation:
    """The volume is here and mounted, by an acquisition that began with its hooks."""
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(MOUNTED, app=app))
    return hooked(s, BEFORE_ACQUIRE)


def letting_go(role: Role = Role.BACKUP, **changes: Any) -> Situation:
    """A node that served, and has just lost its role."""
    return replace(hooked(serving(), *ACQUIRING), intent=intent(role), **changes)


def nothing(*ran: Hook) -> Situation:
    """A backup that holds nothing."""
    return hooked(situation(Role.BACKUP, host=host(ABSENT, vip=False)), *ran)


# --- acquire ---------------------------------------------------------------------------------------------------


def test_nothing_is_taken_before_the_hooks_in_front_of_it_have_run():
    fresh = situation()
    assert steps(fresh) == ["Attach"], "without hooks"
    assert steps(hooked(fresh)) == run(BEFORE_ACQUIRE)
    peer_down = situation(cloud=cloud(volume((B, "attached")), b_state="stopped"))
    assert steps(hooked(peer_down)) == run(BEFORE_ACQUIRE), "no detach of the peer either"
    assert steps(hooked(fresh, BEFORE_ACQUIRE)) == ["Attach"]
    assert steps(hooked(peer_down, BEFORE_ACQUIRE)) == ["Detach"]


@pytest.mark.parametrize("one", sorted(ACQUIRING))
def test_the_first_point_is_passed_with_any_hook_of_an_acquisition(one: Hook):
    """Its mark tells an acquisition that began with hooks from one to which they were added later."""
    assert steps(hooked(situation(), hooks=frozenset({one}))) == run(BEFORE_ACQUIRE)


def test_hooks_of_other_points_do_not_touch_an_acquisition():
    assert steps(hooked(situation(), hooks=RELEASING | {ON_FENCED})) == ["Attach"]
    assert plan(hooked(serving(), hooks=RELEASING | {ON_FENCED})).done


def test_a_volume_that_a_reboot_left_attached_is_no_acquisition_yet():
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(PRESENT))
    assert steps(hooked(s)) == run(BEFORE_ACQUIRE)


def test_while_the_mounts_are_not_known_nothing_is_taken():
    unread = hooked(situation(host=HostFacts({}, frozenset({VIP}), ApplicationState.STOPPED)))
    assert steps(unread) == []
    broken = hooked(situation(host=host(replace(ABSENT, mount=Unknown("no /proc")))))
    assert steps(broken) == []
    assert [r.code for r in plan(broken).reasons] == [Code.HOST_UNKNOWN]


def test_while_ec2_says_nothing_of_the_addresses_the_application_waits_for_its_hooks():
    """An address that may be here is not one that is: it must not let an acquisition pass its first hook."""
    group = replace(BARE, application=GROUP.application)
    dark = CloudFacts(Unknown("no answer"), Unknown("no answer"), Unknown("no answer"))
    late = replace(intent(), recorded_at=NOW - 60)
    s = replace(hooked(situation(host=host(ABSENT)), hooks=frozenset({BEFORE_ACQUIRE})), group=group, intent=late)
    s = replace(s, cloud=dark)
    assert (steps(s), Code.CLOUD_UNKNOWN in {r.code for r in plan(s).reasons}) == ([], True)
    up = replace(s, host=replace(s.host, application=ApplicationState.RUNNING))
    assert (steps(up), plan(up).ready) == ([], True), "one that serves goes on serving"


def test_a_restart_of_the_agent_on_a_serving_master_runs_nothing():
    assert plan(hooked(serving(), *ACQUIRING)).done


def test_hooks_that_are_added_on_a_serving_master_wait_for_the_next_acquisition():
    s = hooked(serving())
    assert plan(s).done
    down = replace(s, host=replace(s.host, application=ApplicationState.FAILED))
    assert steps(down) == ["StartApplication"], "no reason to begin with them either"


def test_the_application_starts_after_the_hooks_on_the_mounts():
    assert steps(mounted()) == run(AFTER_MOUNT)
    assert Code.APPLICATION_WAITS in {r.code for r in plan(mounted()).reasons}
    assert steps(hooked(mounted(), AFTER_MOUNT)) == ["StartApplication"]
    assert steps(hooked(mounted(), hooks=frozenset({BEFORE_ACQUIRE}))) == ["StartApplication"]


def test_addresses_are_assigned_beside_the_hooks_on_the_mounts():
    s = hooked(situation(cloud=cloud(volume((A, "attached"))), host=host(MOUNTED)), BEFORE_ACQUIRE)
    assert steps(s) == ["AssignAddresses", *run(AFTER_MOUNT)]


def test_a_group_without_an_application_serves_after_the_hooks_on_its_mounts():
    s = replace(mounted(), group=replace(GROUP, application=None))
    s = replace(s, host=replace(s.host, application=None))
    assert (plan(s).ready, steps(s)) == (False, run(AFTER_MOUNT))
    assert plan(hooked(s, AFTER_MOUNT)).ready


def test_the_last_hooks_run_once_it_serves_and_it_serves_meanwhile():
    up = hooked(mounted(ApplicationState.RUNNING), AFTER_MOUNT)
    assert (steps(up), plan(up).ready, plan(up).done) == (run(AFTER_ACQUIRE), True, False)
    assert plan(hooked(up, AFTER_ACQUIRE)).done
    starting = replace(up, host=replace(up.host, application=ApplicationState.STARTING))
    assert steps(starting) == []


def test_an_agent_that_died_in_the_middle_goes_on_where_it_was():
    """What had ended is not repeated, what had begun is: memory is empty, marks tell."""
    for s, expected in (
        (hooked(situation()), run(BEFORE_ACQUIRE)),
        (mounted(), run(AFTER_MOUNT)),
        (hooked(mounted(ApplicationState.RUNNING), AFTER_MOUNT), run(AFTER_ACQUIRE)),
    ):
        assert (s.memory, steps(s)) == (Memory(), expected)


def test_a_remount_in_the_same_role_is_no_new_acquisition():
    s = hooked(situation(cloud=cloud(volume((A, "attached")), "a"), host=host(PRESENT)), *ACQUIRING)
    assert steps(s) == ["MountVolume"]


def bare(**changes: Any) -> Situation:
    s = situation(group=BARE, cloud=CloudFacts({}, cloud(vip_on="").instances), host=HostFacts({}, frozenset(), None))
    return hooked(replace(s, **changes))


def test_a_group_of_addresses_only():
    there = CloudFacts({}, cloud(vip_on="a").instances)
    new = replace(intent(), recorded_at=NOW - 0.1)
    assert steps(bare()) == run(BEFORE_ACQUIRE)
    assert steps(bare(cloud=there, intent=new)) == run(BEFORE_ACQUIRE), "a reboot left them here"
    assert run(BEFORE_ACQUIRE)[0] not in steps(bare(cloud=there)), "it has them, and has had its role for long"
    unknown = CloudFacts(Unknown("503"), Unknown("503"))
    assert run(BEFORE_ACQUIRE)[0] not in steps(bare(cloud=unknown))
    assert steps(bare(cloud=unknown, intent=new)) == run(BEFORE_ACQUIRE)
    on = hooked(bare(cloud=there, host=HostFacts({}, frozenset({VIP}), None)), BEFORE_ACQUIRE)
    assert steps(on) == run(AFTER_ACQUIRE), "it has no mounts, so nothing runs after them"


# --- failures --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("s", "hook"), [(hooked(situation()), BEFORE_ACQUIRE), (mounted(), AFTER_MOUNT)])
def test_a_failure_that_ends_an_acquisition(s: Situation, hook: Hook):
    s = failed(s, hook)
    decided = plan(s)
    assert decided.steps == ()
    reason = next(r for r in decided.blocked if r.code is Code.HOOK_FAILED)
    assert (reason.subject, reason.text, reason.hint) == (hook, f"{hook} hook 10-x failed with exit code 3: no", "see")
    judged = verdict(s, decided, Verdict(True))
    assert (judged.ok, judged.text, judged.counts) == (False, reason.text, True)
    told = damped(judged, Verdict(True), Faults(1, NOW - 60, "before"), GROUP, NOW)
    assert told.faults == Faults(2, NOW, reason.text)
    assert told.until == NOW + 20


@pytest.mark.parametrize("failure", [Failure.OTHER, Failure.TIMEOUT])
def test_it_is_not_tried_again_in_the_same_role(failure: Failure):
    assert steps(after(failed(hooked(situation()), BEFORE_ACQUIRE, failure=failure), SetMark("x"), ago=300)) == []


def test_what_the_guard_refused_has_not_failed():
    s = after(hooked(situation()), RunHooks(BEFORE_ACQUIRE), ok=False, failure=Failure.REFUSED, text="no longer master")
    assert steps(s) == run(BEFORE_ACQUIRE)
    assert verdict(s, plan(s), Verdict(True)).ok


@pytest.mark.parametrize(
    ("s", "hook"),
    [
        (hooked(serving(), *ACQUIRING), AFTER_ACQUIRE),
        (nothing(BEFORE_RELEASE, AFTER_RELEASE), BEFORE_RELEASE),
        (nothing(BEFORE_RELEASE, AFTER_RELEASE), AFTER_RELEASE),
    ],
)
def test_other_failures_only_warn_and_the_goal_is_reached(s: Situation, hook: Hook):
    decided = plan(failed(s, hook))
    assert [(r.code, r.subject, r.blocked) for r in decided.reasons] == [(Code.HOOK_WARNED, hook, False)]
    assert (decided.steps, decided.done) == ((), True)
    assert verdict(s, decided, Verdict(True)).ok


@pytest.mark.parametrize(
    ("s", "hook", "goes_on"),
    [
        (hooked(serving(), BEFORE_ACQUIRE, AFTER_MOUNT), AFTER_ACQUIRE, []),
        (hooked(letting_go()), BEFORE_RELEASE, ["TagReleasing", "UnassignAddresses", "StopApplication"]),
        (nothing(BEFORE_RELEASE), AFTER_RELEASE, []),
    ],
)
def test_a_warning_whose_mark_could_not_be_written_does_not_run_again_for_ever(s: Situation, hook: Hook, goes_on: Any):
    started = [x for x in steps(failed(s, hook)) if not x.startswith("note")]
    assert sorted(started) == sorted(goes_on)


# --- release ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("role", [Role.BACKUP, Role.FAULT, Role.STOP])
def test_a_release_waits_for_its_hooks_and_the_peer_is_told_meanwhile(role: Role):
    begun = letting_go(role)
    assert set(steps(begun)) == {*run(BEFORE_RELEASE), "TagReleasing"} | forgotten(*ACQUIRING)
    without = replace(begun, host=replace(begun.host, hooks=frozenset(), marks=frozenset()))
    assert set(steps(without)) == {"UnassignAddresses", "StopApplication", "TagReleasing"}
    done = hooked(replace(begun, host=replace(begun.host, marks=frozenset())), BEFORE_RELEASE)
    assert set(steps(done)) == set(steps(without))


def test_a_planned_release_runs_them_too():
    s = hooked(serving(), marks=frozenset({RELEASED}))
    assert run(BEFORE_RELEASE)[0] in steps(s)
    assert "StopApplication" not in steps(s)


@pytest.mark.parametrize(
    "s",
    [
        situation(Role.BACKUP, host=host(MOUNTED)),
        situation(Role.BACKUP, cloud=cloud(volume((A, "attached"))), host=host(PRESENT)),
        situation(Role.BACKUP, cloud=cloud(vip_on="a"), host=host(ABSENT)),
        situation(Role.BACKUP, host=host(ABSENT, app=ApplicationState.RUNNING)),
    ],
)
def test_they_run_when_anything_is_here(s: Situation):
    assert run(BEFORE_RELEASE)[0] in steps(hooked(s))


def test_a_backup_that_holds_nothing_runs_nothing():
    assert plan(nothing()).done
    assert plan(replace(nothing(), intent=intent(Role.FAULT))).done


def test_the_last_hooks_of_a_release_run_when_nothing_is_left():
    assert steps(nothing(BEFORE_RELEASE)) == run(AFTER_RELEASE)
    assert plan(nothing(BEFORE_RELEASE, AFTER_RELEASE)).done
    leaving = replace(nothing(BEFORE_RELEASE), cloud=cloud(volume((A, "detaching"))))
    assert steps(leaving) == []
    unknown = replace(nothing(BEFORE_RELEASE), cloud=CloudFacts(Unknown("503"), Unknown("503")))
    assert steps(unknown) == []


def test_a_stale_view_of_ec2_after_the_release_begins_no_other():
    s = replace(nothing(BEFORE_RELEASE, AFTER_RELEASE), cloud=cloud(volume((A, "attached")), "a"))
    assert not [x for x in steps(s) if "hooks" in x]


def test_another_role_of_the_same_release_begins_no_other():
    s = hooked(letting_go(Role.FAULT), BEFORE_RELEASE)
    assert run(BEFORE_RELEASE)[0] not in steps(s)


def test_the_marks_of_a_release_fall_with_the_next_acquisition():
    s = hooked(situation(), BEFORE_RELEASE, AFTER_RELEASE, ON_FENCED)
    assert set(steps(s)) == {*run(BEFORE_ACQUIRE)} | forgotten(BEFORE_RELEASE, AFTER_RELEASE, ON_FENCED)


def test_one_point_at_a_time():
    s = letting_go()
    s = replace(s, memory=replace(s.memory, running=frozenset({RunHooks(AFTER_ACQUIRE).resource})))
    assert run(BEFORE_RELEASE)[0] not in steps(s)
    assert "StopApplication" not in steps(s)


# --- fenced ----------------------------------------------------------------------------------------------------


def fenced(**changes: Any) -> Situation:
    s = situation(cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, marks=frozenset({FENCED})))
    return hooked(replace(s, **changes))


def test_a_fence_is_told_beside_the_clean_up_which_waits_for_no_hook():
    found = hooked(situation(cloud=cloud(volume((B, "attached")), "b"), host=host(STALE)), *ACQUIRING)
    assert steps(found) == ["SetMark"]
    assert {*run(ON_FENCED), "Unmount"} <= set(steps(fenced()))
    assert run(BEFORE_RELEASE)[0] not in steps(fenced())
    assert describe(NoteHooks(mark_of(BEFORE_RELEASE))) in steps(fenced()), "after-release follows"
    lost = replace(fenced(), host=replace(fenced().host, marks=frozenset()), intent=intent(Role.BACKUP))
    assert run(BEFORE_RELEASE)[0] not in steps(lost)


def test_a_fence_is_told_once_whatever_the_role_and_the_agent():
    told = hooked(fenced(), ON_FENCED)
    assert run(ON_FENCED)[0] not in steps(told)
    assert run(ON_FENCED)[0] not in steps(replace(told, intent=intent(Role.FAULT)))


def test_a_fence_is_not_over_before_it_was_told():
    gone = cloud(volume((B, "attached")), "b", b_state="terminated")
    s = fenced(cloud=gone, host=host(ABSENT, vip=False, marks=frozenset({FENCED})))
    assert not any(isinstance(x, SetMark) and x.mark == FENCED for x in plan(s).steps)
    assert SetMark(FENCED, present=False) in plan(hooked(s, ON_FENCED)).steps
    assert SetMark(FENCED, present=False) in plan(failed(s, ON_FENCED)).steps


def test_the_next_fence_is_told_again():
    over = hooked(situation(Role.BACKUP, host=host(ABSENT, vip=False)), ON_FENCED)
    assert set(steps(over)) == forgotten(ON_FENCED)


def test_a_paused_group_runs_nothing_and_forgets_nothing():
    s = hooked(situation(), *RELEASING, ON_FENCED, marks=frozenset({PAUSED}))
    assert steps(s) == []


# --- the guard -------------------------------------------------------------------------------------------------

MASTER, NEWER, BACKUP = intent(), intent(order=3), intent(Role.BACKUP, 2)


@pytest.mark.parametrize(
    ("hook", "planned", "newest", "marks", "refused"),
    [
        (BEFORE_ACQUIRE, MASTER, MASTER, set(), False),
        (AFTER_MOUNT, MASTER, BACKUP, set(), True),
        (AFTER_ACQUIRE, MASTER, None, set(), True),
        (AFTER_ACQUIRE, MASTER, MASTER, {FENCED}, True),
        (BEFORE_ACQUIRE, MASTER, MASTER, {RELEASED}, True),
        (BEFORE_RELEASE, BACKUP, BACKUP, set(), False),
        (BEFORE_RELEASE, MASTER, MASTER, {RELEASED}, False),
        (BEFORE_RELEASE, BACKUP, NEWER, set(), True),
        (AFTER_RELEASE, BACKUP, NEWER, set(), True),
        (ON_FENCED, MASTER, MASTER, {FENCED}, False),
        (ON_FENCED, MASTER, BACKUP, {FENCED}, False),
        (ON_FENCED, MASTER, MASTER, set(), True),
        (ON_FENCED, MASTER, MASTER, {FENCED, PAUSED}, True),
    ],
)
def test_the_second_look(hook: Hook, planned: Any, newest: Any, marks: set[str], refused: bool):
    fresh = Fresh(newest, frozenset(marks), None, holder_heard=False)
    assert (refusal(RunHooks(hook), fresh, planned, A) is not None) == refused


# --- in the loop -----------------------------------------------------------------------------------------------


def looked(loop: Loop, now: float, hooks: frozenset[Hook], marks: set[str], facts: CloudFacts) -> list[Step]:
    """Every read that is asked for is answered with the same free volume; what is started then."""
    started: list[Step] = []
    disks, answers = {VOL: ABSENT}, {Scope.CLOUD: facts, Scope.ADDRESSES: frozenset({VIP})}
    for _ in range(4):
        turn = loop.turn(now, 0.0, Ambient(hooks=hooks, marks=frozenset(marks)))
        started += turn.start
        for scope in turn.read:
            default = disks if scope is Scope.DISKS else ApplicationState.STOPPED
            loop.read(scope, answers.get(scope, default), now)
    return started


def test_each_point_is_remembered_by_itself_and_the_acquisition_goes_on_at_once():
    loop = Loop(GROUP, ME)
    loop.set_intent(intent())
    assert looked(loop, NOW, ALL, set(), cloud()) == [RunHooks(BEFORE_ACQUIRE)]
    assert looked(loop, NOW + 3, ALL, set(), cloud()) == [], "it runs"
    loop.finished(RunHooks(BEFORE_ACQUIRE), Outcome(True), NOW + 6)
    assert [type(x).__name__ for x in looked(loop, NOW + 6, ALL, {mark_of(BEFORE_ACQUIRE)}, cloud())] == ["Attach"]
    loop.finished(RunHooks(AFTER_MOUNT), Outcome(False, "no", failure=Failure.OTHER), NOW + 7)
    past = loop.memory.past
    assert (past[RunHooks(BEFORE_ACQUIRE).key].ok, past[RunHooks(AFTER_MOUNT).key].ok) == (True, False)


def test_every_point_belongs_to_one_transition():
    assert ACQUIRING | RELEASING | {ON_FENCED} == ALL
    assert len(ACQUIRING) + len(RELEASING) + 1 == len(ALL)
