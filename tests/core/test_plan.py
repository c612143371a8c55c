"""plan(), case by case: what is started, what waits, what is blocked."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.core.guards import Fresh, refusal
from awsha.core.health import Verdict, verdict
from awsha.core.model import (
    ApplicationState,
    CloudFacts,
    DiskFacts,
    Heard,
    Holder,
    InstanceFacts,
    InstanceState,
    Mount,
    Releasing,
    Role,
    Unknown,
    VolumeState,
)
from awsha.core.plan import plan
from awsha.core.policy import Fence, Fsck, OpenFiles, Volume
from awsha.core.situation import Code, HolderList, Situation
from awsha.core.steps import (
    AssignAddresses,
    Attach,
    Check,
    ClearReleasing,
    Detach,
    Failure,
    KernelAddresses,
    ListHolders,
    MountVolume,
    Scope,
    SetMark,
    Signal,
    StartApplication,
    StopApplication,
    StopInstance,
    TagReleasing,
    UnassignAddresses,
    Unmount,
)
from tests.core.situations import (
    ABSENT,
    DEVICE,
    GROUP,
    MOUNT,
    MOUNTED,
    NOW,
    PRESENT,
    STALE,
    VIP,
    VOL,
    VOL2,
    WALL,
    A,
    B,
    after,
    cloud,
    host,
    instances,
    intent,
    serving,
    since,
    situation,
    volume,
)

UNKNOWN = Unknown("no answer")
RELEASE_ROLES = [Role.BACKUP, Role.FAULT, Role.STOP]


def kinds(s: Situation) -> list[str]:
    """The names of the steps that a situation leads to."""
    return sorted(type(step).__name__ for step in plan(s).steps)


def codes(s: Situation) -> set[Code]:
    """The codes of what waits and what is blocked."""
    return {r.code for r in plan(s).reasons}


def only(s: Situation, kind: type) -> object:
    """The one step of a kind."""
    found = [step for step in plan(s).steps if isinstance(step, kind)]
    assert len(found) == 1, plan(s)
    return found[0]


def policy(s: Situation, **changes: object) -> Situation:
    """The same with another policy for the group."""
    return replace(s, group=replace(s.group, **changes))  # type: ignore[arg-type]


# --- master: the way up ---


def test_a_free_volume_is_attached_and_nothing_else_is_started_before_it_is_won():
    assert kinds(situation()) == ["Attach"]


def test_vips_are_assigned_as_soon_as_the_volume_is_won_beside_everything_else():
    s = situation(cloud=cloud(volume((A, "attaching"))))
    assert kinds(s) == ["AssignAddresses"]
    assert Code.ATTACHING in codes(s)


def test_device_then_mount():
    waiting = situation(cloud=cloud(volume((A, "attached")), "a"))
    assert kinds(waiting) == []
    assert Code.DEVICE in codes(waiting)
    there = replace(waiting, host=host(PRESENT))
    assert only(there, MountVolume) == MountVolume(VOL, "/dev/nvme1n1", "259:1", "/srv/data", "ext4", "")


def test_a_device_is_not_mounted_before_ec2_says_attached():
    assert "MountVolume" not in kinds(situation(cloud=cloud(volume((A, "attaching")), "a"), host=host(PRESENT)))


def test_the_application_starts_when_file_systems_and_kernel_vips_are_there():
    base = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(MOUNTED))
    assert kinds(base) == ["StartApplication"]
    assert kinds(replace(base, host=host(PRESENT))) == ["MountVolume"]
    assert "StartApplication" not in kinds(replace(base, host=host(MOUNTED, vip=False)))


def test_the_application_does_not_start_while_a_step_on_its_volume_is_under_way():
    # an unmount that was planned before a resume, or before this node became master again
    s = serving(host=host(MOUNTED))
    assert kinds(s) == ["StartApplication"]
    unmounting = replace(s, memory=replace(s.memory, running=frozenset({VOL})))
    assert (kinds(unmounting), plan(unmounting).ready) == ([], False)
    assert Code.RUNNING in codes(unmounting)


def test_the_application_does_not_wait_for_ec2s_view_of_the_vip():
    assert kinds(situation(cloud=cloud(volume((A, "attached"))), host=host(MOUNTED))) == [
        "AssignAddresses",
        "StartApplication",
    ]


def test_a_master_whose_address_ec2_never_delivers_does_not_serve_and_gives_way_in_the_end():
    """Everything runs, and no client reaches it: AssignPrivateIpAddresses is refused (a quota of this instance)."""
    s = serving(cloud=cloud(volume((A, "attached"))))
    s = after(s, AssignAddresses((VIP,)), ok=False, ago=1, text="PrivateIpAddressLimitExceeded")
    assert not plan(s).ready
    early, late = (since(s, waited, (Code.NOT_READY, s.group.name)) for waited in (179, 181))
    assert verdict(early, plan(early), Verdict(True)).ok
    assert not verdict(late, plan(late), Verdict(True)).ok
    contested = policy(replace(s, memory=replace(s.memory, had_vips=True)), volumes=())
    contested = replace(contested, cloud=cloud(None, "b"))
    assert plan(contested).ready, "two masters without a volume: to give way would make them take turns"


def test_a_goal_that_is_reached_plans_nothing():
    decided = plan(serving())
    assert (decided.steps, decided.reasons, decided.done, decided.ready) == ((), (), True, True)


def test_a_vip_only_group_assigns_at_once():
    s = policy(situation(host=host(app=None)), volumes=(), application=None)
    assert kinds(s) == ["AssignAddresses"]


def test_a_vip_only_group_does_not_take_turns_with_a_running_peer():
    s = policy(situation(cloud=cloud(None, "b"), host=host(app=None)), volumes=(), application=None)
    assert kinds(s) == ["AssignAddresses"]
    lost = replace(s, memory=replace(s.memory, had_vips=True))
    assert kinds(lost) == []
    assert Code.VIP_CONTESTED in codes(lost)
    assert kinds(since(lost, 31, (Code.VIP_CONTESTED, "addresses"))) == ["AssignAddresses"]


@pytest.mark.parametrize("part", ["volumes", "instances"])
def test_unknown_from_ec2_permits_nothing(part: str):
    facts = cloud(volume((B, "attached")), "b", "stopped")
    s = situation(cloud=replace(facts, **{part: UNKNOWN}))
    assert kinds(s) == []
    assert Code.CLOUD_UNKNOWN in codes(s)


def test_unknown_from_the_host_permits_nothing():
    disk = DiskFacts(device=UNKNOWN, mount=UNKNOWN)
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(disk))
    assert kinds(s) == []


def test_an_unknown_file_system_is_never_mounted_and_none_is_never_made():
    attached = cloud(volume((A, "attached")), "a")
    unread = situation(cloud=attached, host=host(DiskFacts(replace(DEVICE, fstype=UNKNOWN), None)))
    assert (kinds(unread), codes(unread) - {Code.APPLICATION_WAITS}) == ([], {Code.HOST_UNKNOWN})
    empty = situation(cloud=attached, host=host(DiskFacts(replace(DEVICE, fstype=None), None)))
    assert (kinds(empty), [r.code for r in plan(empty).blocked]) == ([], [Code.NO_FILESYSTEM])


def test_another_file_system_than_configured_is_refused():
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(PRESENT))
    s = policy(s, volumes=(replace(GROUP.volumes[0], fstype="xfs"),))
    assert (kinds(s), [r.code for r in plan(s).blocked]) == ([], [Code.WRONG_FILESYSTEM])


def test_a_mount_point_taken_by_another_device_is_left_alone():
    disk = DiskFacts(DEVICE, Mount("/srv/data", "8:1", "/dev/sda1", "ext4"), foreign=True)
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(disk))
    assert (kinds(s), [r.code for r in plan(s).blocked]) == ([], [Code.MOUNT_POINT_BUSY])


@pytest.mark.parametrize(
    ("facts", "code"),
    [
        (volume((A, "attached"), (B, "attached")), Code.TWO_ATTACHMENTS),
        (volume(multi_attach=True), Code.MULTI_ATTACH),
        (volume(state=VolumeState.ERROR), Code.VOLUME_UNUSABLE),
        (volume(("i-0000000000000000f", "attached")), Code.HELD_BY_STRANGER),
    ],
)
def test_what_only_an_operator_can_mend_is_blocked_with_a_hint(facts, code):
    decided = plan(situation(cloud=cloud(facts)))
    assert decided.steps == ()
    assert [(r.code, bool(r.hint)) for r in decided.blocked] == [(code, True)]


def test_a_volume_that_ec2_does_not_know_is_blocked():
    assert [r.code for r in plan(situation(cloud=CloudFacts({}, instances()))).blocked] == [Code.VOLUME_MISSING]


def test_stuck_attaching_is_detached_and_attached_again_under_another_name():
    s = situation(cloud=cloud(volume((A, "attaching")), "a"))
    stuck = since(s, 91, (Code.ATTACHING, VOL))
    assert only(stuck, Detach) == Detach(VOL, A)
    first = only(situation(), Attach)
    again = after(situation(), first, ago=95, ok=True)
    assert only(again, Attach).device != first.device


def test_stuck_attaching_is_not_detached_while_the_mount_table_is_unreadable():
    s = situation(cloud=cloud(volume((A, "attaching")), "a"), host=host(DiskFacts(DEVICE, UNKNOWN)))
    assert kinds(since(s, 91, (Code.ATTACHING, VOL))) == []


def test_a_device_name_in_use_is_not_chosen():
    free = only(situation(), Attach).device
    taken = instances()
    taken[A] = replace(taken[A], device_names=frozenset({free}))
    assert only(situation(cloud=CloudFacts({VOL: volume()}, taken)), Attach).device != free


def test_no_device_for_long_is_blocked_with_a_hint():
    s = since(situation(cloud=cloud(volume((A, "attached")), "a")), 46, (Code.DEVICE, VOL))
    assert [r.code for r in plan(s).blocked] == [Code.DEVICE_MISSING]


def test_fsck_after_a_take_by_force_then_mount():
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(PRESENT, marks=frozenset({f"forced:{VOL}"})))
    check = only(s, Check)
    assert kinds(s) == ["Check"]
    done = replace(after(s, check), host=host(PRESENT))  # the check takes the mark away
    assert kinds(done) == ["MountVolume"]
    assert kinds(policy(s, volumes=(replace(GROUP.volumes[0], fsck=Fsck.NEVER),))) == ["MountVolume"]


def test_fsck_of_what_was_cut_off_in_use_whoever_did_it():
    """The taker crashed before its mount, or it was another node: no mark of this one says so."""
    cut = DiskFacts(replace(DEVICE, unclean=True), None)
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(cut))
    assert kinds(s) == ["Check"]
    assert kinds(after(s, Check(VOL, DEVICE.path, DEVICE.number, "ext4"))) == ["MountVolume"]
    assert kinds(policy(s, volumes=(replace(GROUP.volumes[0], fsck=Fsck.NEVER),))) == ["MountVolume"]


def test_a_check_of_an_earlier_take_says_nothing_about_this_one():
    """Master all the time, by a frozen keepalived: checked, mounted, lost it to a peer, took it back by force."""
    forced, cut = frozenset({f"forced:{VOL}"}), DiskFacts(replace(DEVICE, unclean=True), None)
    for facts in (host(PRESENT, marks=forced), host(cut)):
        s = situation(cloud=cloud(volume((A, "attached")), "a"), host=facts)
        s = after(s, Check(VOL, DEVICE.path, DEVICE.number, "ext4"), ago=20)
        s = after(s, Attach(VOL, "/dev/sdf"), ago=5)
        assert kinds(s) == ["Check"]
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(PRESENT))
    s = policy(s, volumes=(replace(GROUP.volumes[0], fsck=Fsck.ALWAYS),))
    s = after(s, Check(VOL, DEVICE.path, DEVICE.number, "ext4"), ago=20)
    s = after(s, MountVolume(VOL, DEVICE.path, DEVICE.number, "/srv/data", "ext4", ""), ago=19)
    assert kinds(s) == ["Check"], "somebody has unmounted it: before each mount"


def test_fsck_always():
    s = situation(cloud=cloud(volume((A, "attached")), "a"), host=host(PRESENT))
    assert kinds(policy(s, volumes=(replace(GROUP.volumes[0], fsck=Fsck.ALWAYS),))) == ["Check"]


def test_a_vip_that_the_kernel_lacks_is_put_back_after_a_second():
    s = serving(host=host(MOUNTED, vip=False, app=ApplicationState.RUNNING))
    assert kinds(s) == []
    late = since(s, 1.1, (Code.VIP_NOT_ON_INTERFACE, "addresses"))
    assert only(late, KernelAddresses) == KernelAddresses((VIP,), present=True)


def test_the_application_is_started_again_and_then_given_up():
    s = serving(host=host(MOUNTED, app=ApplicationState.FAILED))
    assert kinds(s) == ["StartApplication"]
    tired = after(s, StartApplication(), ago=10, ok=False, runs=4)
    assert [r.code for r in plan(tired).blocked] == [Code.APPLICATION_FAILED]


def test_own_releasing_tag_is_cleared_once_mounted():
    facts = volume((A, "attached"), releasing=Releasing("a", WALL - 100))
    assert kinds(serving(cloud=cloud(facts, "a"))) == ["ClearReleasing"]
    assert only(serving(cloud=cloud(facts, "a")), ClearReleasing).volume_id == VOL


def test_a_read_only_file_system_is_said():
    s = serving(host=host(DiskFacts(DEVICE, replace(MOUNT, read_only=True)), app=ApplicationState.RUNNING))
    assert [r.code for r in plan(s).blocked] == [Code.READ_ONLY]


def test_an_ec2_outage_moves_nothing_on_a_serving_master():
    s = serving(cloud=CloudFacts(UNKNOWN, UNKNOWN, UNKNOWN))
    decided = plan(s)
    assert (decided.steps, decided.ready, decided.done) == ((), True, False)


# --- taking from a peer: the ladder ---


def held(state: str = "attached", *, b_state: str = "running", **more: object) -> Situation:
    """Node a is master, b holds the volume and was last heard long ago."""
    return situation(cloud=cloud(volume((B, state), **more), "b", b_state))


@pytest.mark.parametrize("b_state", ["stopped", "terminated"])
@pytest.mark.parametrize("fence", list(Fence))
def test_a_holder_that_is_not_running_is_detached_at_once(b_state: str, fence: Fence):
    assert plan(policy(held(b_state=b_state), fence=fence)).steps == (Detach(VOL, B),)


def test_a_detach_that_hangs_on_a_dead_holder_is_forced():
    s = held("busy", b_state="stopped")
    assert kinds(s) == []
    assert plan(since(s, 6, (Code.HOLDER_DETACHING, VOL))).steps == (Detach(VOL, B, force=True),)


def test_a_terminated_holder_that_ec2_has_forgotten_is_detached():
    s = situation(cloud=CloudFacts({VOL: volume((B, "attached"))}, {A: instances()[A]}))
    assert plan(s).steps == (Detach(VOL, B),)


def test_a_release_under_way_is_waited_for_but_not_for_ever():
    s = held("detaching")
    assert (kinds(s), Code.HOLDER_DETACHING in codes(s)) == ([], True)
    late = since(s, 61, (Code.HOLDER_DETACHING, VOL))
    assert Code.GRACE in codes(late)


def test_a_fresh_releasing_tag_is_waited_for():
    s = held(releasing=Releasing("b", WALL - 2))
    assert (kinds(s), Code.HOLDER_RELEASING in codes(s)) == ([], True)
    assert Code.GRACE in codes(since(s, 61, (Code.HOLDER_RELEASING, VOL)))


@pytest.mark.parametrize("tag", [Releasing("b", WALL - 3600), Releasing("a", WALL - 2), Releasing("b", WALL + 3600)])
def test_an_old_or_foreign_tag_is_no_release(tag: Releasing):
    assert Code.GRACE in codes(held(releasing=tag))


@pytest.mark.parametrize("fence", [Fence.STOP_INSTANCE, Fence.FORCE_DETACH])
def test_a_holder_that_releases_one_volume_is_not_fenced_for_the_other(fence: Fence):
    # the tags of a release are written side by side: one can be seen before the other
    other = volume((B, "attached"), vid=VOL2)
    told = volume((B, "attached"), releasing=Releasing("b", WALL - 2))
    both = (Volume(mount="/srv/data", id=VOL), Volume(mount="/srv/more", id=VOL2))
    gone = volume((A, "attached"), releasing=Releasing("b", WALL - 2))
    for first in (told, gone, volume((B, "detaching"))):
        s = situation(cloud=replace(cloud(first, "b"), volumes={VOL: first, VOL2: other}))
        s = since(policy(s, volumes=both, fence=fence), 4, (Code.GRACE, VOL2))
        assert not {"StopInstance", "Detach"} & set(kinds(s))
    s = situation(cloud=replace(cloud(other, "b"), volumes={VOL: volume((A, "attached")), VOL2: other}))
    s = since(policy(s, volumes=both, fence=fence), 4, (Code.GRACE, VOL2))
    assert {"StopInstance", "Detach"} & set(kinds(s)), "a volume that is here says nothing of the holder of the other"


def test_a_holder_that_is_heard_is_alive_and_not_fenced():
    s = replace(held(), host=host(heard={"b": Heard(NOW - 1, 100)}))
    s = since(s, 100, (Code.GRACE, VOL))
    assert (kinds(s), Code.HOLDER_IS_MASTER in codes(s)) == ([], True)


def test_a_holder_that_resigned_is_not_taken_for_alive():
    s = replace(held(), host=host(heard={"b": Heard(NOW - 0.1, 0)}))
    assert Code.GRACE in codes(s)


@pytest.mark.parametrize("fence", list(Fence))
def test_a_holder_that_was_never_heard_is_never_fenced(fence: Fence):
    s = since(replace(policy(held(), fence=fence), host=host(heard={})), 1000, (Code.GRACE, VOL))
    decided = plan(s)
    assert decided.steps == ()
    assert [r.code for r in decided.blocked] == [Code.HOLDER_NEVER_HEARD]
    assert "awsha fence b --yes" in decided.blocked[0].hint
    assert "awsha check" in decided.blocked[0].hint


def test_a_silent_holder_gets_its_grace():
    s = held()
    assert (kinds(s), Code.GRACE in codes(s)) == ([], True)
    assert kinds(since(s, 2.9, (Code.GRACE, VOL))) == []


def fenced(fence: Fence, state: str = "attached") -> Situation:
    return since(policy(held(state), fence=fence), 3.1, (Code.GRACE, VOL))


def test_fence_none_is_blocked_with_the_exact_command():
    decided = plan(fenced(Fence.NONE))
    assert decided.steps == ()
    assert decided.blocked[0].code is Code.FENCE_NONE
    assert "awsha fence b --yes" in decided.blocked[0].hint


def test_fence_stop_instance():
    assert plan(fenced(Fence.STOP_INSTANCE)).steps == (StopInstance(B, "b"),)
    assert Code.HOLDER_STOPPING in codes(held(b_state="stopping"))


def test_fence_stop_instance_asks_again_when_stopping_hangs():
    s = since(held(b_state="stopping"), 61, (Code.HOLDER_STOPPING, B))
    assert plan(s).steps == (StopInstance(B, "b"),)


def test_fence_force_detach_asks_before_it_forces():
    s = fenced(Fence.FORCE_DETACH)
    gentle = only(s, Detach)
    assert gentle == Detach(VOL, B)
    busy = after(fenced(Fence.FORCE_DETACH, "busy"), gentle)
    assert kinds(busy) == []
    assert plan(since(busy, 5.1, (Code.FENCING, VOL))).steps == (Detach(VOL, B, force=True),)


# --- release ---


@pytest.mark.parametrize("role", RELEASE_ROLES)
def test_release_goes_application_unmount_detach_with_tag_and_address_beside(role: Role):
    s = replace(serving(), intent=situation(role).intent)
    assert kinds(s) == ["StopApplication", "TagReleasing", "UnassignAddresses"]
    stopped = replace(s, host=host(MOUNTED))
    assert kinds(stopped) == ["TagReleasing", "UnassignAddresses", "Unmount"]
    unmounted = replace(s, host=host(PRESENT))
    assert kinds(unmounted) == ["Detach", "UnassignAddresses"]
    assert only(unmounted, Detach) == Detach(VOL, A)
    gone = replace(s, cloud=cloud(), host=host(vip=False))
    decided = plan(gone)
    assert (decided.steps, decided.reasons, decided.done) == ((), (), True)


def test_the_tag_is_written_once():
    s = replace(serving(), intent=situation(Role.BACKUP).intent, host=host(MOUNTED))
    assert "TagReleasing" not in kinds(after(s, TagReleasing(VOL)))
    tagged = replace(s, cloud=cloud(volume((A, "attached"), releasing=Releasing("a", WALL - 1)), "a"))
    assert "TagReleasing" not in kinds(tagged)


def test_without_ec2_a_release_still_stops_and_unmounts_but_never_detaches():
    dark = CloudFacts(UNKNOWN, UNKNOWN, UNKNOWN)
    s = replace(serving(cloud=dark), intent=situation(Role.BACKUP).intent)
    assert kinds(s) == ["StopApplication"]
    assert kinds(replace(s, host=host(MOUNTED))) == ["Unmount"]
    unmounted = replace(s, host=host(PRESENT))
    assert (kinds(unmounted), Code.CLOUD_UNKNOWN in codes(unmounted)) == ([], True)


def test_with_the_mount_table_unreadable_nothing_is_detached():
    s = replace(serving(), intent=situation(Role.BACKUP).intent, host=host(DiskFacts(DEVICE, UNKNOWN)))
    assert "Detach" not in kinds(s)


def test_giving_back_never_touches_what_the_peer_has_by_now():
    s = situation(Role.BACKUP, cloud=cloud(volume((B, "attached")), "b"), host=host(vip=False))
    assert plan(s).done


def test_bind_and_nested_mounts_go_first():
    inner = Mount("/srv/data/inner", "259:1", "/dev/nvme1n1", "ext4")
    s = situation(Role.BACKUP, cloud=cloud(volume((A, "attached"))), host=host(replace(MOUNTED, others=(inner,))))
    assert only(s, Unmount).mounts == (inner, MOUNT)


def test_a_mount_that_is_not_ours_is_left_alone():
    disk = DiskFacts(None, Mount("/srv/data", "8:1", "/dev/sda1", "ext4"), foreign=True)
    assert plan(situation(Role.BACKUP, host=host(disk, vip=False))).done


BUSY = {"ok": False, "failure": Failure.BUSY, "text": "target is busy"}
HOLDER = Holder(4711, "postgres", "/srv/data/x", "fd", 5)


def busy(open_files: OpenFiles, *holders: Holder, listed_ago: float = 0.1) -> Situation:
    """A backup whose unmount was refused a second ago, with holders listed since (or not)."""
    s = situation(Role.BACKUP, cloud=cloud(volume((A, "attached"), releasing=Releasing("a", WALL))), host=host(MOUNTED))
    s = after(policy(s, open_files=open_files), Unmount(VOL, (MOUNT,)), **BUSY)
    if listed_ago is None:
        return s
    return replace(s, memory=replace(s.memory, holders={VOL: HolderList(NOW - listed_ago, holders)}))


def test_a_busy_file_system_is_looked_into():
    assert kinds(busy(OpenFiles.WAIT, listed_ago=None)) == ["ListHolders"]
    assert kinds(busy(OpenFiles.WAIT)) == ["Unmount"], "nobody holds it any more"


def test_open_files_wait_names_pid_command_and_path():
    decided = plan(busy(OpenFiles.WAIT, HOLDER))
    assert decided.steps == ()
    (reason,) = decided.blocked
    assert all(word in reason.text for word in ("4711", "postgres", "/srv/data/x"))
    assert isinstance(plan(busy(OpenFiles.WAIT, HOLDER, listed_ago=0.99)).steps, tuple)
    assert "ListHolders" in kinds(replace(busy(OpenFiles.WAIT, HOLDER), now=NOW + 2))


def test_open_files_terminate_then_kill():
    s = busy(OpenFiles.TERMINATE, HOLDER)
    term = only(s, Signal)
    assert not term.kill
    asked = after(s, term, ago=0.2)
    asked = replace(asked, memory=replace(asked.memory, term_sent={VOL: NOW - 0.2}))
    assert "Signal" not in kinds(asked)
    late = replace(asked, memory=replace(asked.memory, term_sent={VOL: NOW - 6}))
    assert only(late, Signal).kill


def test_open_files_kill_at_once():
    assert only(busy(OpenFiles.KILL, HOLDER), Signal).kill


def test_after_a_signal_the_holders_are_listed_again_before_anything_else():
    s = after(busy(OpenFiles.KILL, HOLDER, listed_ago=0.5), Signal(VOL, (HOLDER,), (MOUNT,), True), ago=0.1)
    assert kinds(s) == ["ListHolders"]


def test_an_application_that_does_not_stop_is_left_to_the_open_files_policy():
    s = replace(serving(), intent=situation(Role.BACKUP).intent)
    s = after(s, StopApplication(), ok=False, text="still running after 60 s")
    assert "Unmount" in kinds(s)


def test_an_application_that_did_not_stop_is_asked_again():
    s = replace(serving(), intent=situation(Role.BACKUP).intent)
    assert "StopApplication" not in kinds(after(s, StopApplication(), ago=0.1, ok=False, failure=Failure.TIMEOUT))
    assert "StopApplication" in kinds(after(s, StopApplication(), ago=10, ok=False, failure=Failure.TIMEOUT))


def test_nothing_is_unmounted_while_a_start_of_the_application_is_under_way():
    # its state still reads as stopped, and it would come up on the bare mount point
    s = replace(serving(host=host(MOUNTED)), intent=situation(Role.BACKUP).intent)
    assert "Unmount" in kinds(s)
    starting = replace(s, memory=replace(s.memory, running=frozenset({"application"})))
    assert "Unmount" not in kinds(starting)


@pytest.mark.parametrize("state", ["detaching", "busy"])
def test_a_master_keeps_its_vips_while_somebody_asks_to_detach_what_it_has_mounted(state: str):
    # a release that was called off (awsha resume), after somebody asked for a detach in the console
    s = serving(cloud=cloud(volume((A, state))))
    assert (kinds(s), Code.DETACH_REQUESTED in codes(s)) == (["AssignAddresses"], True)


@pytest.mark.parametrize("role", RELEASE_ROLES)
def test_a_vip_that_was_put_back_before_a_late_notify_is_removed(role: Role):
    # keepalived removes its VIPs before it runs the notify: what is there a second later was put back by awsha
    s = situation(role, cloud=cloud(volume((B, "attached")), "b"))
    assert (kinds(s), codes(s)) == ([], {Code.VIP_LEFT_OVER})
    late = since(s, 1.1, (Code.VIP_LEFT_OVER, "addresses"))
    assert only(late, KernelAddresses) == KernelAddresses((VIP,), present=False)


# --- fenced, dead keepalived, no intent ---


def test_a_fresh_boot_touches_nothing():
    decided = plan(situation(None, cloud=cloud(volume((A, "attached")), "a"), host=host(MOUNTED)))
    assert (decided.steps, [r.code for r in decided.reasons]) == ((), [Code.NO_INTENT])


def test_a_lost_disk_means_fenced():
    s = serving(host=host(STALE, app=ApplicationState.RUNNING))
    assert only(s, SetMark) == SetMark("fenced")


def test_mounted_here_and_attached_elsewhere_for_long_means_fenced():
    s = serving(cloud=cloud(volume((B, "attached")), "b"))
    assert kinds(s) == ["AssignAddresses"] or kinds(s) == []
    assert SetMark("fenced") in plan(since(s, 11, (Code.DISAGREES, VOL))).steps


FENCED = frozenset({"fenced"})


def test_a_fenced_node_stops_and_unmounts_lazily_if_it_must():
    s = situation(cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, marks=FENCED))
    assert only(s, Unmount) == Unmount(VOL, (MOUNT,), lazy=False)
    tried = after(s, Unmount(VOL, (MOUNT,)), ago=10, ok=False, failure=Failure.OTHER)
    assert only(tried, Unmount).lazy


def test_a_lost_disk_is_noted_before_it_is_unmounted():
    s = situation(Role.BACKUP, cloud=cloud(volume((B, "attached")), "b"), host=host(STALE))
    assert "Unmount" not in kinds(s)
    step, fresh = Unmount(VOL, (MOUNT,)), Fresh(intent(Role.BACKUP), frozenset(), STALE, holder_heard=False)
    assert "is gone" in str(refusal(step, fresh, fresh.intent, A)), "it was lost after the unmount was planned"
    assert refusal(step, replace(fresh, marks=FENCED), fresh.intent, A) is None


def test_a_fenced_node_that_is_paused_only_looks_and_says_both():
    s = situation(cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, marks=FENCED | {"paused"}))
    assert (plan(s).steps, plan(s).goal) == ((), "look")
    assert {Code.FENCED, Code.PAUSED} <= set(codes(s))
    assert not verdict(s, plan(s), Verdict(True)).ok, "and stays out of VRRP"


def test_a_fenced_node_stays_out_while_the_holder_runs():
    s = situation(cloud=cloud(volume((B, "attached")), "b"), host=host(marks=FENCED, vip=False))
    assert (kinds(s), Code.FENCED in codes(s)) == ([], True)


@pytest.mark.parametrize("role", RELEASE_ROLES)
def test_a_lost_disk_means_fenced_in_every_role(role: Role):
    s = situation(role, cloud=cloud(volume((B, "attached")), "b"), host=host(STALE))
    assert SetMark("fenced") in plan(s).steps


def test_a_fenced_node_comes_back_after_it_has_heard_the_holder_for_long():
    s = situation(Role.FAULT, cloud=cloud(volume((B, "attached")), "b"), host=host(marks=FENCED, vip=False))
    heard = replace(s, host=replace(s.host, heard={"b": Heard(NOW - 0.5, 100)}))
    assert "SetMark" not in kinds(since(s, 61, (Code.HOLDER_HEARD, B))), "silence counts for nothing"
    assert "SetMark" not in kinds(since(heard, 59, (Code.HOLDER_HEARD, B)))
    assert only(since(heard, 61, (Code.HOLDER_HEARD, B)), SetMark) == SetMark("fenced", present=False)
    broken = replace(heard, host=replace(heard.host, heard={"b": replace(heard.host.heard["b"], since=NOW - 59)}))
    assert "SetMark" not in kinds(since(broken, 61, (Code.HOLDER_HEARD, B))), "it was silent between two looks"


@pytest.mark.parametrize("facts", [cloud(), cloud(volume((B, "attached")), "b", "stopped")])
def test_a_fenced_node_comes_back_when_the_holder_released_or_is_not_running(facts: CloudFacts):
    s = situation(Role.FAULT, cloud=facts, host=host(marks=FENCED, vip=False))
    assert only(since(s, 11, (Code.VOLUME_FREE, VOL)), SetMark) == SetMark("fenced", present=False)


def test_a_fenced_node_does_not_take_the_moment_between_force_and_attach_for_a_release():
    s = situation(Role.FAULT, cloud=cloud(), host=host(marks=FENCED, vip=False))
    assert "SetMark" not in kinds(s)
    assert "SetMark" not in kinds(since(s, 9, (Code.VOLUME_FREE, VOL)))


def test_a_fenced_node_looks_often_while_the_volume_is_free_and_decides_on_fresh_facts():
    # between two looks that are seconds apart the taker can have come
    s = situation(Role.FAULT, cloud=cloud(), host=host(marks=FENCED, vip=False))
    (free,) = [r for r in plan(s).reasons if r.code is Code.VOLUME_FREE]
    assert Scope.CLOUD in free.watch
    assert Scope.CLOUD in SetMark("fenced", present=False).needs
    assert Scope.CLOUD not in SetMark("fenced").needs


def test_a_fenced_node_does_not_come_back_before_it_has_cleaned_up_or_on_an_unknown():
    stale = situation(Role.FAULT, cloud=cloud(), host=host(STALE, marks=FENCED))
    assert "SetMark" not in kinds(stale)
    dark = situation(Role.FAULT, cloud=CloudFacts(UNKNOWN, UNKNOWN), host=host(ABSENT, marks=FENCED))
    assert "SetMark" not in kinds(dark)


def test_a_dead_keepalived_releases_after_its_grace():
    short = serving(host=host(MOUNTED, app=ApplicationState.RUNNING, keepalived_gone_since=NOW - 0.4))
    assert (kinds(short), plan(short).goal) == ([], "look")
    long = serving(host=host(MOUNTED, app=ApplicationState.RUNNING, keepalived_gone_since=NOW - 1.1))
    assert plan(long).goal == "release"
    assert "StopApplication" in kinds(long)


def test_the_addresses_that_a_killed_keepalived_left_are_removed():
    s = situation(Role.MASTER, cloud=cloud(volume((B, "attached")), "b"), host=host(keepalived_gone_since=NOW - 5))
    assert only(s, KernelAddresses) == KernelAddresses((VIP,), present=False)


# --- pacing ---


def test_an_accepted_call_is_not_repeated_before_ec2s_views_can_show_it():
    s = after(situation(), only(situation(), Attach), ago=1)
    repeated = replace(s, memory=replace(s.memory, past=dict(s.memory.past)))
    assert "Attach" in kinds(repeated) or Code.SETTLING in codes(repeated)
    vip = situation(cloud=cloud(volume((A, "attached"))), host=host(MOUNTED))
    settled = after(vip, AssignAddresses((VIP,)), ago=1)
    assert (kinds(settled), Code.SETTLING in codes(settled)) == (["StartApplication"], True)
    assert "AssignAddresses" in kinds(after(vip, AssignAddresses((VIP,)), ago=6))


def test_a_failed_step_is_tried_again_later_and_says_why():
    s = after(situation(), only(situation(), Attach), ago=0.1, ok=False, failure=Failure.OTHER, text="boom")
    assert kinds(s) == []
    assert any("boom" in r.text for r in plan(s).reasons)
    assert kinds(replace(s, now=NOW + 1)) == ["Attach"]


def test_a_missing_permission_is_blocked_not_hammered():
    s = after(situation(), only(situation(), Attach), ago=1, ok=False, failure=Failure.DENIED, text="not authorized")
    assert [r.code for r in plan(s).blocked] == [Code.DENIED]


def test_one_step_a_resource_at_a_time():
    s = situation()
    busy_now = replace(s, memory=replace(s.memory, running=frozenset({VOL})))
    assert (kinds(busy_now), Code.RUNNING in codes(busy_now)) == ([], True)


def test_unassign_is_planned_only_for_addresses_on_this_eni():
    s = situation(Role.BACKUP, cloud=cloud(None, "a"), host=host(vip=False))
    assert plan(s).steps == (UnassignAddresses((VIP,)),)


def test_list_holders_is_a_look():
    assert ListHolders(VOL, (MOUNT,)).touches == frozenset()


@pytest.mark.parametrize("mark", ["released", "stopping", "agent-gone"])
def test_a_node_that_is_out_lets_go_and_then_fails_its_health_whatever_vrrp_says(mark: str):
    s = serving(host=host(MOUNTED, app=ApplicationState.RUNNING, marks=frozenset({mark})))
    assert plan(s).goal == "release"
    assert verdict(s, plan(s), Verdict(True)).ok, "VRRP gives way when all is let go, not before"
    free = situation(cloud=cloud(), host=host(ABSENT, marks=frozenset({mark}), vip=False))
    assert plan(free).done
    assert not verdict(free, plan(free), Verdict(True)).ok
    attach = plan(situation(cloud=cloud(), host=host(ABSENT, vip=False))).steps[0]
    fresh = Fresh(s.intent, frozenset({mark}), None, holder_heard=False)
    assert refusal(attach, fresh, s.intent, s.me.instance_id) == f"this node is {mark}"


def test_what_an_operator_or_the_holder_has_said_since_the_look_counts():
    me, attach, force = situation().me.instance_id, Attach(VOL, "/dev/sdf"), Detach(VOL, B, force=True)
    stop, unmount = StopInstance(B, "b"), Unmount(VOL, (MOUNT,))
    fresh = Fresh(intent(), frozenset(), PRESENT, holder_heard=False)
    assert [refusal(step, fresh, intent(), me) for step in (attach, force, stop, unmount)] == [None] * 4
    paused = replace(fresh, marks=frozenset({"paused"}))
    assert all(refusal(step, paused, intent(), me) for step in (attach, force, stop, unmount))
    fenced = replace(fresh, marks=frozenset({"fenced"}))
    assert all(refusal(step, fenced, intent(), me) for step in (attach, force, stop))
    assert refusal(unmount, fenced, intent(), me) is None, "it cleans up"
    heard = replace(fresh, holder_heard=True)
    assert all(refusal(step, heard, intent(), me) for step in (force, stop))


@pytest.mark.parametrize(
    ("state", "holder", "gone"),
    [
        (InstanceState.RUNNING, None, set()),
        (InstanceState.STOPPED, None, set()),
        (InstanceState.SHUTTING_DOWN, None, set()),
        (InstanceState.TERMINATED, None, {"b"}),
        (InstanceState.TERMINATED, B, set()),
        (None, A, {"b"}),
        (None, B, set()),
    ],
)
def test_another_instance_is_asked_for_once_the_peers_has_ended_and_holds_nothing(
    state: InstanceState | None, holder: str | None, gone: set[str]
):
    known = {} if state is None else {B: InstanceFacts(B, state)}
    held = volume((holder, "attached")) if holder else volume()
    s = situation(cloud=CloudFacts({VOL: held}, known))
    assert s.gone() == gone
    assert replace(s, cloud=CloudFacts(Unknown("cut off"), known)).gone() == set()
    assert replace(s, cloud=CloudFacts({VOL: held}, Unknown("cut off"))).gone() == set()
