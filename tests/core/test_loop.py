"""The loop, fed by hand: what it reads, what it starts, and when."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.core.loop import Ambient, Loop, Turn
from awsha.core.model import ApplicationState, CloudFacts, Heard, Role, Unknown
from awsha.core.pacing import look_delay
from awsha.core.situation import Code
from awsha.core.steps import (
    SCOPES,
    AssignAddresses,
    Attach,
    Detach,
    Failure,
    MountVolume,
    Outcome,
    Scope,
    SetMark,
    StartApplication,
    Step,
    StopApplication,
    Unmount,
)
from tests.core.situations import ABSENT, GROUP, ME, MOUNTED, NOW, PRESENT, STALE, VIP, VOL, A, B, cloud, intent, volume

AMBIENT = Ambient(heard={"b": Heard(NOW - 60, 100)})


class Bench:
    """A loop with a clock, and the answers that a test gives it."""

    def __init__(self, role: Role | None = Role.MASTER) -> None:
        self.loop = Loop(GROUP, ME)
        self.loop.set_intent(intent(role) if role else None)
        self.now = NOW
        self.ambient = AMBIENT
        self.last = self.turn()

    def turn(self, later: float = 0.0) -> Turn:
        self.now += later
        self.last = self.loop.turn(self.now, 1e9 + self.now, self.ambient)
        self.ambient = replace(self.ambient, faults=self.last.verdict.faults)
        return self.last

    def tell(self, **facts: object) -> Turn:
        """Answer reads: cloud=, disk=, vips=, app=."""
        values = {"cloud": Scope.CLOUD, "disk": Scope.DISKS, "vips": Scope.ADDRESSES, "app": Scope.APPLICATION}
        for name, value in facts.items():
            told = {VOL: value} if name == "disk" else value
            self.loop.read(values[name], told, self.now)
        return self.turn()

    def end(self, step: Step, later: float = 0.0, **how: object) -> Turn:
        self.now += later
        self.loop.finished(step, Outcome(**{"ok": True, **how}), self.now)  # type: ignore[arg-type]
        return self.turn()


def fresh(**facts: object) -> Bench:
    bench = Bench()
    defaults = {"cloud": cloud(), "disk": ABSENT, "vips": frozenset({VIP}), "app": ApplicationState.STOPPED}
    bench.tell(**{**defaults, **facts})
    return bench


def test_it_looks_before_it_does_anything():
    bench = Bench()
    assert bench.last.read == SCOPES
    assert bench.last.start == ()
    assert bench.turn().read == (), "one read of a kind at a time"


def test_a_new_intent_makes_all_facts_old():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    assert bench.last.plan.done
    bench.loop.set_intent(intent(Role.BACKUP, order=2))
    turn = bench.turn()
    assert turn.read == SCOPES
    assert turn.start == ()
    assert StopApplication() in bench.tell(app=ApplicationState.RUNNING).start, "stopping does not wait for EC2"


def test_attach_then_addresses_at_once_then_the_first_look_when_something_can_have_come_of_it():
    bench = fresh()
    (attach,) = bench.last.start
    assert isinstance(attach, Attach)
    learned = volume((A, "attaching"))
    turn = bench.end(attach, later=0.1, learned=learned)
    assert AssignAddresses((VIP,)) in turn.start, "the reply of AttachVolume is the win"
    assert Scope.CLOUD not in turn.read
    assert Scope.CLOUD not in bench.turn(0.7).read
    assert Scope.CLOUD in bench.turn(0.15).read
    assert Scope.DISKS in turn.read


def test_the_device_is_looked_for_every_20_ms():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"))
    assert any(r.code is Code.DEVICE for r in bench.last.plan.reasons)
    assert bench.last.wake_at - bench.now == pytest.approx(0.02)
    assert Scope.DISKS in bench.turn(0.021).read


def test_mount_and_application_follow_the_facts():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=PRESENT)
    (mount,) = bench.last.start
    assert isinstance(mount, MountVolume)
    assert bench.end(mount, later=0.05).start == (), "first look"
    assert bench.tell(disk=MOUNTED).start == (StartApplication(),)
    bench.end(StartApplication(), later=0.05)
    assert bench.tell(app=ApplicationState.RUNNING).plan.done


def test_after_a_second_look_that_refused_what_the_step_was_planned_on_is_read_again():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.FAILED)
    (start,) = bench.last.start
    turn = bench.end(start, later=0.05, ok=False, failure=Failure.REFUSED, text="the disk is not there")
    assert {Scope.DISKS, Scope.ADDRESSES, Scope.APPLICATION} <= set(turn.read)
    assert Scope.CLOUD not in turn.read, "EC2 was not looked at"
    turn = bench.tell(disk=STALE, vips=frozenset({VIP}), app=ApplicationState.FAILED)
    assert [type(step) for step in turn.start] == [SetMark]


def test_a_read_that_began_before_a_call_ended_says_nothing_after_it():
    bench = fresh()
    (attach,) = bench.last.start
    bench.loop.poke(Scope.CLOUD)
    assert Scope.CLOUD in bench.turn().read
    bench.end(attach, later=0.1, learned=volume((A, "attaching")))
    turn = bench.tell(cloud=cloud())
    assert not any(isinstance(step, Attach) for step in turn.start), "that view is older than the attach"


def test_after_a_failure_it_looks_at_once():
    bench = fresh()
    (attach,) = bench.last.start
    turn = bench.end(attach, later=0.1, ok=False, failure=Failure.OTHER, text="VolumeInUse")
    assert Scope.CLOUD in turn.read
    ours = bench.tell(cloud=cloud(volume((A, "attaching"))))
    assert AssignAddresses((VIP,)) in ours.start, "the reply was lost; the look shows that it is ours"


def test_the_newest_intent_wins_in_the_middle_of_a_run():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=PRESENT)
    (mount,) = bench.last.start
    bench.loop.set_intent(intent(Role.BACKUP, order=2))
    turn = bench.turn()
    assert not turn.start, "the volume has a step under way"
    bench.end(mount, later=0.1)
    turn = bench.tell(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.STOPPED)
    assert Scope.DISKS in turn.read, "the read under way began before the mount ended: look once more"
    turn = bench.tell(disk=MOUNTED)
    assert any(isinstance(step, Unmount) for step in turn.start)
    assert not any(isinstance(step, StartApplication) for step in turn.start)


def test_old_facts_about_ec2_permit_nothing():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    bench.turn(30)
    bench.tell(disk=PRESENT, vips=frozenset({VIP}), app=ApplicationState.RUNNING)
    assert bench.last.start == ()
    assert Scope.CLOUD in bench.last.read or Scope.CLOUD in bench.turn().read
    turn = bench.tell(cloud=cloud(volume((A, "attached")), "a"))
    assert [type(step) for step in turn.start] == [MountVolume]


def test_a_converged_pair_asks_ec2_once_a_minute():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    looks = 0
    for _ in range(600):
        turn = bench.turn(0.5)
        facts: dict[str, object] = {"disk": MOUNTED, "vips": frozenset({VIP}), "app": ApplicationState.RUNNING}
        if Scope.CLOUD in turn.read:
            looks += 1
            facts["cloud"] = cloud(volume((A, "attached")), "a")
        bench.tell(**facts)
    assert looks == 5


def test_an_outage_of_ec2_keeps_a_serving_master_healthy_and_asks_again():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    dark = Unknown("no route")
    bench.turn(61)
    bench.tell(disk=MOUNTED, vips=frozenset({VIP}), app=ApplicationState.RUNNING)
    turn = bench.tell(cloud=CloudFacts(dark, dark, dark))
    assert (turn.verdict.ok, turn.plan.ready, turn.start) == (True, True, ())
    assert Scope.CLOUD in bench.turn(5.1).read


def test_a_lost_disk_fences_and_fails_the_health_file_until_the_holder_is_gone():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    bench.turn(1.1)
    turn = bench.tell(disk=STALE, app=ApplicationState.RUNNING)
    assert turn.start == (SetMark("fenced"),)
    bench.ambient = replace(AMBIENT, marks=frozenset({"fenced"}))
    turn = bench.end(SetMark("fenced"))
    assert not turn.verdict.ok
    assert StopApplication() in turn.start
    bench.end(StopApplication())
    turn = bench.tell(disk=STALE, cloud=cloud(volume((B, "attached")), "b"), app=ApplicationState.STOPPED)
    assert any(isinstance(step, Unmount) for step in turn.start)


def test_out_of_time_fails_the_health_of_a_master_that_holds_nothing():
    bench = fresh(cloud=cloud(volume((A, "attaching"))))
    for _ in range(200):
        bench.turn(1.0)
        bench.tell(
            cloud=cloud(volume((A, "attaching"))), disk=ABSENT, vips=frozenset({VIP}), app=ApplicationState.STOPPED
        )
    assert not bench.last.verdict.ok


def test_blocked_keeps_the_verdict():
    bench = fresh(cloud=cloud(volume((B, "attached")), "b"))
    bench.ambient = Ambient()
    for _ in range(300):
        bench.turn(1.0)
        bench.tell(
            cloud=cloud(volume((B, "attached")), "b"), disk=ABSENT, vips=frozenset({VIP}), app=ApplicationState.STOPPED
        )
    assert [r.code for r in bench.last.plan.blocked] == [Code.HOLDER_NEVER_HEARD]
    assert bench.last.verdict.ok


def test_waiting_is_counted_without_a_break():
    bench = fresh(cloud=cloud(volume((B, "attached")), "b"))
    grace = GROUP.timeouts.release_grace_s
    assert any(r.code is Code.GRACE for r in bench.last.plan.reasons)
    bench.turn(grace - 0.1)
    bench.ambient = Ambient(heard={"b": Heard(bench.now, 100)})
    assert any(r.code is Code.HOLDER_IS_MASTER for r in bench.turn().plan.reasons)
    bench.ambient = AMBIENT
    assert any(r.code is Code.GRACE for r in bench.turn(0.2).plan.reasons), "the grace begins again"
    assert not bench.last.start


def test_the_polling_schedule():
    assert look_delay(0) == 0.8
    assert [look_delay(w) for w in (0.9, 4.9, 5.0, 14.9, 15.0, 100.0)] == [0.15, 0.15, 0.5, 0.5, 1.0, 1.0]


def test_a_step_is_not_repeated_while_the_look_after_it_is_under_way():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    bench.loop.set_intent(intent(Role.BACKUP, order=2))
    bench.turn()
    bench.tell(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    assert StopApplication() in bench.loop.running
    turn = bench.end(StopApplication(), later=0.08)
    assert Scope.APPLICATION in turn.read
    for _ in range(3):
        assert StopApplication() not in bench.turn(0.01).start
    assert StopApplication() not in bench.tell(app=ApplicationState.STOPPED).start


def test_no_step_of_a_kind_is_started_twice_at_once():
    bench = fresh()
    (attach,) = bench.last.start
    for _ in range(10):
        assert bench.turn(0.1).start == ()
    assert bench.loop.running == (attach,)


def test_releasing_learns_from_the_reply_of_detach():
    bench = Bench(Role.BACKUP)
    bench.tell(cloud=cloud(volume((A, "attached"))), disk=PRESENT, vips=frozenset(), app=ApplicationState.STOPPED)
    (detach,) = bench.last.start
    assert detach == Detach(VOL, A)
    turn = bench.end(detach, later=0.05, learned=volume((A, "detaching")))
    assert any(r.code is Code.DETACHING_HERE for r in turn.plan.reasons)


def test_nothing_is_unmounted_by_what_was_known_of_the_application_before_its_start_ended():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED)
    (start,) = bench.last.start
    bench.loop.set_intent(intent(Role.BACKUP, order=2))
    bench.tell(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.STOPPED)
    assert not any(isinstance(step, Unmount) for step in bench.loop.running)
    turn = bench.end(start, later=0.1)
    assert not any(isinstance(step, Unmount) for step in turn.start), "it was started since that look"
    turn = bench.tell(app=ApplicationState.RUNNING)
    assert [type(step) for step in turn.start] == [StopApplication]


def test_a_group_without_an_application_unmounts_without_asking_for_one():
    bench = Bench(Role.BACKUP)
    bench.loop = Loop(replace(GROUP, application=None), ME)
    bench.loop.set_intent(intent(Role.BACKUP))
    bench.turn()
    turn = bench.tell(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, vips=frozenset())
    assert any(isinstance(step, Unmount) for step in bench.loop.running), turn.plan


def test_a_device_that_comes_by_somebody_elses_doing_makes_the_loop_ask_ec2():
    """A standby to which the volume is attached by hand must not wait for the look of every minute."""
    bench = Bench(Role.BACKUP)
    bench.tell(cloud=cloud(volume()), disk=ABSENT, vips=frozenset(), app=ApplicationState.STOPPED)
    assert bench.last.plan.done
    assert Scope.CLOUD not in bench.turn(3.0).read
    assert Scope.CLOUD in bench.tell(disk=PRESENT).read
    turn = bench.tell(cloud=cloud(volume((A, "attached"))))
    assert [type(step) for step in turn.start] == [Detach], "what a standby has is given back"
