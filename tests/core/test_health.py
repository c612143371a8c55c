"""The verdict for keepalived, line by line of the design; how a node that failed waits; what precedes a restart."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.agent.report import group_report, severity
from awsha.core import flaps
from awsha.core.health import Verdict, damped, verdict
from awsha.core.loop import Ambient, Loop
from awsha.core.model import ApplicationState, CloudFacts, DiskFacts, Faults, Mount, Role, Unknown
from awsha.core.plan import plan
from awsha.core.policy import Application, Timeouts
from awsha.core.situation import Code, Situation
from awsha.core.steps import Failure, MountVolume, Scope, SetMark, StartApplication, StopApplication
from tests.core.situations import (
    ABSENT,
    DEVICE,
    GROUP,
    ME,
    MOUNT,
    MOUNTED,
    NOW,
    PRESENT,
    STALE,
    VOL,
    A,
    B,
    after,
    cloud,
    host,
    intent,
    serving,
    since,
    situation,
    volume,
)
from tests.core.test_loop import AMBIENT, Bench, fresh
from tests.core.test_plan import codes, kinds

DARK = Unknown("no route")
RUNS, DOWN = ApplicationState.RUNNING, ApplicationState.STOPPED
READ_ONLY = DiskFacts(DEVICE, replace(MOUNT, read_only=True))
FOREIGN = DiskFacts(DEVICE, Mount("/srv/data", "7:7", "/dev/loop7", "ext4"), foreign=True)
BOUND = DiskFacts(DEVICE, None, others=(replace(MOUNT, target="/mnt"),))
HERE = cloud(volume((A, "attached")), "a")


def judge(s: Situation, before: Verdict = Verdict(True)) -> Verdict:  # noqa: B008  frozen
    """The verdict on a situation."""
    return verdict(s, plan(s), before)


def out_of_time(s: Situation) -> Situation:
    """The same, after longer than a master may take."""
    return since(s, 181, (Code.NOT_READY, GROUP.name))


# --- what a master can't hold ---


def test_a_master_that_holds_everything_is_healthy():
    assert judge(serving()).ok


def test_a_file_system_that_turned_read_only_faults():
    told = judge(serving(host=host(READ_ONLY, app=RUNS)))
    assert (told.ok, told.counts, "read-only" in told.text) == (False, True, True)


def test_an_application_that_failed_past_its_retries_faults():
    tired = after(serving(host=host(MOUNTED, app=DOWN)), StartApplication(), ok=False, runs=4, text="exit code 3")
    told = judge(tired)
    assert (told.ok, told.counts, "exit code 3" in told.text) == (False, True, True)
    assert judge(after(tired, StartApplication(), ok=False, runs=3)).ok, "it has a try left"


def test_a_mount_that_is_gone_is_made_again_and_faults_when_that_takes_too_long():
    s = situation(cloud=HERE, host=host(PRESENT, app=RUNS))
    assert kinds(s) == ["MountVolume"]
    assert judge(s).ok
    failing = after(
        s, MountVolume(VOL, "/dev/nvme1n1", "259:1", "/srv/data", "ext4", ""), ok=False, failure=Failure.OTHER
    )
    told = judge(out_of_time(failing))
    assert (told.ok, told.counts) == (False, True)


@pytest.mark.parametrize("disk", [FOREIGN, BOUND], ids=["mount-point-busy", "mounted-elsewhere"])
def test_what_blocks_this_node_alone_is_no_excuse_for_ever(disk: DiskFacts):
    s = situation(cloud=HERE, host=host(disk, app=DOWN))
    assert plan(s).blocked
    assert (Code.NOT_READY, GROUP.name) in plan(s).standing
    assert judge(s).ok, "an operator has the time of an acquisition"
    assert not judge(out_of_time(s)).ok, "then the peer may do better"


def test_a_device_that_is_gone_under_its_mount_means_fenced_and_fenced_faults():
    gone = serving(host=host(STALE, app=RUNS))
    assert SetMark("fenced") in plan(gone).steps
    told = judge(replace(gone, host=replace(gone.host, marks=frozenset({"fenced"}))))
    assert (told.ok, told.counts, told.text) == (False, False, "fenced")


def test_a_device_that_never_comes_faults():
    s = situation(cloud=HERE, host=host(ABSENT))
    assert judge(s).ok
    late = since(s, 46, (Code.DEVICE, VOL))
    told = judge(late)
    assert (told.ok, told.counts, "no device carries" in told.text) == (False, True, True)


def test_an_acquisition_that_is_out_of_time_faults():
    s = situation(cloud=cloud(volume((A, "attaching"))))
    assert judge(s).ok
    told = judge(out_of_time(s))
    assert (told.ok, told.counts, "181 s" in told.text) == (False, True, True)


def test_a_release_gives_way_only_once_everything_is_let_go():
    marks = frozenset({"released"})
    assert judge(serving(host=host(MOUNTED, app=RUNS, marks=marks))).ok
    gone = situation(cloud=cloud(volume((B, "attached")), "b"), host=host(ABSENT, vip=False, marks=marks))
    told = judge(gone)
    assert (told.ok, told.counts) == (False, False)
    held = Verdict(False, "fenced", counts=False)
    assert judge(serving(host=host(MOUNTED, app=RUNS, marks=marks)), held) == held


@pytest.mark.parametrize("role", [Role.BACKUP, Role.FAULT, Role.STOP])
def test_a_node_that_is_not_master_is_healthy_whatever_it_has(role: Role):
    for disk in (ABSENT, MOUNTED, READ_ONLY, FOREIGN):
        assert judge(out_of_time(situation(role, cloud=HERE, host=host(disk)))).ok


# --- an outage of the API, an operator: no fault of this node ---


@pytest.mark.parametrize("facts", [CloudFacts(DARK, DARK, DARK), CloudFacts(HERE.volumes, DARK), HERE])
def test_a_serving_master_stays_healthy_whatever_ec2_says(facts: CloudFacts):
    assert judge(out_of_time(serving(cloud=facts))).ok


def test_a_new_master_that_ec2_does_not_answer_keeps_its_verdict():
    dark = situation(cloud=CloudFacts(DARK, DARK, DARK))
    assert judge(out_of_time(dark)).ok
    assert (Code.NOT_READY, GROUP.name) not in plan(dark).standing


def looked(bench: Bench, seconds: int, facts: CloudFacts) -> Bench:
    """So many seconds of a master that has nothing yet, while EC2 says this."""
    for _ in range(seconds):
        bench.turn(1.0)
        bench.tell(cloud=facts, disk=ABSENT, vips=frozenset(GROUP.vips), app=DOWN)
    return bench


@pytest.mark.parametrize("excuse", ["outage", "blocked"])
def test_after_an_outage_or_an_operators_act_a_new_master_has_its_whole_time(excuse: str):
    """It counts the time in which it could have taken everything, not that in which nobody could."""
    foreign = cloud(volume((B, "attached")), "b")
    bench = fresh(cloud=foreign)
    if excuse == "blocked":
        bench.ambient = Ambient()  # the holder was never heard
        looked(bench, 300, foreign)
        assert Code.HOLDER_NEVER_HEARD in codes(bench.last.situation)
    else:
        looked(bench, 300, CloudFacts(DARK, DARK, DARK))
    attaching = cloud(volume((A, "attaching")))
    looked(bench, 20, attaching)
    assert bench.last.verdict.ok
    looked(bench, 190, attaching)
    assert not bench.last.verdict.ok


# --- flap damping ---


def test_each_failure_in_a_row_waits_twice_as_long_up_to_the_bound():
    waits = [flaps.wait_s(Faults(n, NOW, ""), GROUP) for n in (1, 2, 3, 4, 5, 6, 7, 10_000)]
    assert waits == [10, 20, 40, 80, 160, 300, 300, 300]
    short = replace(GROUP, timeouts=Timeouts(damping_s=25))
    assert [flaps.wait_s(Faults(n, NOW, ""), short) for n in (1, 2, 3, 4)] == [10, 20, 25, 25]
    least = replace(GROUP, timeouts=Timeouts(damping_s=1))
    assert flaps.wait_s(Faults(5, NOW, ""), least) == 10, "keepalived must see it"


def test_a_quiet_time_after_the_wait_ends_the_series():
    last = Faults(6, NOW, "x")
    assert flaps.counted(last, GROUP, "y", NOW + 899) == Faults(7, NOW + 899, "y")
    assert flaps.standing(last, GROUP, NOW + 899) == last
    assert flaps.standing(last, GROUP, NOW + 900) is None
    assert flaps.counted(last, GROUP, "y", NOW + 900) == Faults(1, NOW + 900, "y")


def test_a_failure_is_counted_once_however_long_it_stands():
    broken = Verdict(False, "read-only")
    told = damped(broken, Verdict(True), None, GROUP, NOW)
    assert (told.ok, told.faults) == (False, Faults(1, NOW, "read-only"))
    for later in (1, 9, 60):
        told = damped(broken, told, told.faults, GROUP, NOW + later)
        assert told.faults == Faults(1, NOW, "read-only")
    again = damped(broken, Verdict(True), told.faults, GROUP, NOW + 60)
    assert (again.faults, again.until) == (Faults(2, NOW + 60, "read-only"), NOW + 80)


@pytest.mark.parametrize("why", ["fenced", "released by an operator"])
def test_what_is_no_failure_to_hold_anything_is_not_counted(why: str):
    told = damped(Verdict(False, why, counts=False), Verdict(True), None, GROUP, NOW)
    assert (told.ok, told.faults, told.until) == (False, None, None)
    before = Faults(3, NOW - 1, "read-only")
    told = damped(Verdict(False, why, counts=False), Verdict(True), before, GROUP, NOW)
    assert (told.ok, told.text, told.faults) == (False, why, before)


def faulted(bench: Bench, role_order: int) -> float:
    """keepalived takes the verdict and says fault; how long the node stays out from then on."""
    bench.loop.set_intent(intent(Role.FAULT, order=role_order))
    began = bench.now
    while not bench.turn(0.5).verdict.ok:
        assert Code.DAMPED in {r.code for r in bench.last.plan.waiting}
        bench.tell(cloud=cloud(), disk=ABSENT, vips=frozenset(), app=DOWN)
        assert bench.now - began < 400, "out for good"
    return bench.now - began


def fails(bench: Bench, role_order: int) -> None:
    """It is master again, and its file system is read-only again."""
    bench.loop.set_intent(intent(Role.MASTER, order=role_order))
    bench.turn(0.1)
    bench.tell(cloud=HERE, disk=READ_ONLY, vips=frozenset(GROUP.vips), app=RUNS)
    assert not bench.last.verdict.ok


def test_a_node_that_fails_again_and_again_stays_out_longer_each_time_over_all_its_roles():
    bench = fresh(cloud=HERE, disk=READ_ONLY, app=RUNS)
    assert not bench.last.verdict.ok
    out = [faulted(bench, 2)]
    for n in range(1, 7):
        fails(bench, 2 * n + 1)
        assert f"(failure {n + 1} in a row)" in bench.last.verdict.text
        out.append(faulted(bench, 2 * n + 2))
    assert out == pytest.approx([10, 20, 40, 80, 160, 300, 300], abs=1)


def test_a_new_agent_knows_what_the_old_one_has_seen():
    loop = Loop(GROUP, ME)
    loop.set_intent(intent(Role.FAULT))
    ambient = replace(AMBIENT, faults=Faults(3, NOW - 5, "the application does not stay up"))
    told = loop.turn(NOW, 1e9, ambient).verdict
    assert (told.ok, told.until) == (False, NOW + 35)
    assert "failed 3 times in a row as master" in told.text
    assert "does not stay up; competes again in 35 s" in told.text
    assert loop.turn(NOW + 36, 1e9, ambient).verdict.ok


def test_resume_ends_the_wait_at_once():
    bench = fresh(cloud=HERE, disk=READ_ONLY, app=RUNS)
    bench.loop.set_intent(intent(Role.FAULT, order=2))
    assert not bench.turn(1.0).verdict.ok
    bench.ambient = replace(bench.ambient, faults=None)  # the record is gone
    assert bench.turn().verdict.ok


def test_a_node_that_waits_is_done_when_it_has_let_go_and_status_says_how_long():
    waits = situation(Role.FAULT, host=host(vip=False, faults=Faults(2, NOW - 4, "exit code 3")))
    decided = plan(waits)
    assert decided.done
    told = group_report(waits, decided, damped(judge(waits), Verdict(False), waits.host.faults, GROUP, NOW))
    (reason,) = told["waiting"]
    assert (reason["code"], reason["until_s"]) == ("damped", 16.0)
    assert "failed 2 times in a row as master, the last time: exit code 3" in reason["text"]
    assert reason["hint"] == "once it is mended: awsha resume data"
    assert told["health"]["ok"] is False
    assert told["health"]["text"].endswith("exit code 3; competes again in 16 s")
    assert (told["health"]["failures"], told["health"]["until_s"]) == (2, 16.0)
    assert severity(told) == 2
    over = replace(waits, now=NOW + 17)
    assert (plan(over).done, plan(over).reasons) == (True, ())


# --- keepalived is gone ---


def test_that_keepalived_is_gone_is_said_in_words_that_stay_true():
    gone = serving(host=host(MOUNTED, app=RUNS, keepalived_gone_since=NOW - 0.4))
    told = group_report(since(gone, 0.3, (Code.KEEPALIVED_GONE, "data")), plan(gone), Verdict(True))["waiting"][0]
    assert (told["code"], told["until_s"]) == ("keepalived-gone", 0.1), "the grace, whenever it was first noticed"
    over = serving(host=host(MOUNTED, app=RUNS, keepalived_gone_since=NOW - 500))
    (reason,) = (r for r in plan(over).waiting if r.code is Code.KEEPALIVED_GONE)
    assert (reason.until, reason.hint) == (None, "systemctl start keepalived")
    assert "lets go" in reason.text
    clean = situation(host=host(vip=False, keepalived_gone_since=NOW - 500))
    assert plan(clean).done, "and that is all there is to do"


def test_a_time_that_is_over_is_not_told_as_one_to_go():
    stuck = since(situation(cloud=cloud(volume((A, "attaching")), "a")), 500, (Code.ATTACHING, VOL))
    (reason,) = (r for r in group_report(stuck, plan(stuck), Verdict(True))["waiting"] if r["code"] == "attaching")
    assert (reason["for_s"], reason["until_s"]) == (500.0, None)


# --- before a start is tried again ---


def programs(s: Situation) -> Situation:
    """The same with an application of three programs."""
    application = Application(start=("start",), stop=("stop",), check=("check",))
    return replace(s, group=replace(s.group, application=application))


DOWN_HERE = serving(host=host(MOUNTED, app=DOWN))
RAN = (Code.APPLICATION_RAN, "application")


def test_a_first_start_needs_no_stop():
    assert kinds(programs(DOWN_HERE)) == ["StartApplication"]


def test_what_a_failed_start_left_is_stopped_once_before_the_next():
    s = after(programs(DOWN_HERE), StartApplication(), ago=10, ok=False, text="exit code 1")
    assert kinds(s) == ["StopApplication"]
    assert kinds(after(s, StopApplication(), ago=1)) == ["StartApplication"]
    assert kinds(after(s, StopApplication(), ago=1, ok=False, text="exit code 1")) == ["StartApplication"], "once"
    again = after(after(s, StopApplication(), ago=9), StartApplication(), ago=6, ok=False)
    assert kinds(again) == ["StopApplication"], "each start that is tried again has its own"


def test_what_ran_and_is_down_by_its_check_is_stopped_once_before_the_next_start():
    ran = programs(serving())
    assert RAN in plan(ran).standing
    down = since(programs(DOWN_HERE), 60, RAN)
    assert kinds(down) == ["StopApplication"]
    assert RAN in plan(down).standing, "not forgotten while something else has to be mended first"
    stopped = after(down, StopApplication(), ago=1)
    assert kinds(stopped) == ["StartApplication"]
    assert RAN not in plan(stopped).standing


def test_systemd_stops_its_units_itself():
    assert kinds(since(DOWN_HERE, 60, RAN)) == ["StartApplication"]
    assert kinds(after(DOWN_HERE, StartApplication(), ago=10, ok=False)) == ["StartApplication"]


def test_a_program_that_was_started_may_need_a_moment_to_say_so():
    s = after(programs(DOWN_HERE), StartApplication(), ago=1)
    assert (kinds(s), codes(s)) == ([], {Code.APPLICATION_STARTING})
    assert kinds(after(s, StartApplication(), ago=6)) == ["StopApplication"]
    assert kinds(since(s, 0.5, RAN)) == ["StopApplication"], "it did say so, and then it was gone"


def test_past_its_retries_nothing_is_started_or_stopped_any_more():
    tired = after(programs(DOWN_HERE), StartApplication(), ago=6, ok=False, runs=4)
    assert (kinds(tired), codes(tired)) == ([], {Code.APPLICATION_FAILED})


def runs_of_start(bench: Bench) -> int:
    return bench.loop.memory.past["StartApplication", "application"].runs


def test_starts_that_fail_slowly_are_one_series_and_a_rest_ends_it():
    bench = Bench()
    bench.loop = Loop(programs(situation()).group, ME)
    bench.loop.set_intent(intent())
    bench.turn()
    facts: dict[str, object] = {"cloud": HERE, "disk": MOUNTED, "vips": frozenset(GROUP.vips), "app": DOWN}
    bench.tell(**facts)
    bench.tell(**facts)
    for n in (1, 2, 3):
        while StartApplication() not in bench.loop.running:
            if StopApplication() in bench.loop.running:
                bench.end(StopApplication(), later=61.0)
            bench.turn(0.5)
            bench.tell(**facts)
        bench.end(StartApplication(), later=90.0, ok=False, failure=Failure.TIMEOUT, text="no end after 90 s")
        assert runs_of_start(bench) == n
    for _ in range(70):  # it came up after all, and serves for a while
        bench.turn(1.0)
        if StopApplication() in bench.loop.running:
            bench.end(StopApplication())
        if StartApplication() in bench.loop.running:
            bench.end(StartApplication())
        bench.tell(**{**facts, "app": RUNS})
    before = runs_of_start(bench)
    while StartApplication() not in bench.loop.running:
        if StopApplication() in bench.loop.running:
            bench.end(StopApplication())
        bench.turn(0.5)
        bench.tell(**facts)
    bench.end(StartApplication())
    assert (before > 1, runs_of_start(bench)) == (True, 1)


def test_a_check_that_takes_its_time_permits_a_restart_all_the_same():
    bench = Bench()
    bench.loop = Loop(programs(situation()).group, ME)
    bench.loop.set_intent(intent())
    bench.turn()
    facts: dict[str, object] = {"cloud": HERE, "disk": MOUNTED, "vips": frozenset(GROUP.vips)}
    bench.tell(**facts, app=RUNS)
    bench.tell(**facts, app=RUNS)
    bench.loop.poke(Scope.APPLICATION)
    assert Scope.APPLICATION in bench.turn().read
    bench.turn(4.9)
    assert bench.tell(app=DOWN).start == (StopApplication(),)
