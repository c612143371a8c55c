"""What others were bitten by, as far as deciding alone can show it; and that docs/corner-cases.md names every test.

The numbers are those of docs/corner-cases.md. Each case says what the planner, the loop or the guard does about it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from pathlib import Path

import pytest

from awsha.agent.report import group_report, severity
from awsha.core.guards import Fresh, refusal
from awsha.core.health import Verdict, verdict
from awsha.core.model import (
    ApplicationState,
    Attachment,
    AttachmentState,
    CloudFacts,
    Device,
    DiskFacts,
    Heard,
    Holder,
    InstanceState,
    Mount,
    Releasing,
    Role,
    Unknown,
    VolumeState,
)
from awsha.core.plan import plan
from awsha.core.policy import Application, Fence, OpenFiles, Volume
from awsha.core.situation import Code, HolderList, Situation
from awsha.core.steps import (
    AssignAddresses,
    Attach,
    Check,
    Detach,
    Failure,
    KernelAddresses,
    ListHolders,
    MountVolume,
    SetMark,
    Signal,
    StartApplication,
    Step,
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
from tests.core.test_loop import Bench, fresh
from tests.core.test_plan import codes, held, kinds, only, policy

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "corner-cases.md"
SAFETY = ROOT / "docs" / "safety.md"
CASES = 40
RELEASING = [Role.BACKUP, Role.FAULT, Role.STOP]
DARK = Unknown("no answer")
MASTER_FACTS = {
    "cloud": cloud(volume((A, "attached")), "a"),
    "disk": MOUNTED,
    "vips": frozenset({VIP}),
    "app": ApplicationState.RUNNING,
}


# --- the page ---


def named_tests() -> Iterator[tuple[str, str]]:
    """(path, name) of every test whose name begins with test_case_ and a number, without importing anything."""
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match(r"test_case_\d\d_", node.name):
                yield str(path.relative_to(ROOT)), node.name


def rows() -> dict[int, str]:
    """The page's table: number -> the rest of its row."""
    found = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(found) == len(dict(found)), "a number stands twice"
    return {int(number): rest for number, rest in found}


def test_every_case_is_on_the_page_with_a_test_or_an_argument():
    assert list(rows()) == list(range(1, CASES + 1))
    for number, rest in rows().items():
        what, proof = rest.split("|")[:2]
        assert what.strip()
        assert "tests/" in proof or "cannot happen:" in proof, f"case {number} has neither a test nor an argument"


def test_every_test_on_the_page_exists():
    there: dict[str, set[str]] = {}
    for number, rest in rows().items():
        for path, name in re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", rest):
            if path not in there:
                tree = ast.parse((ROOT / path).read_text(encoding="utf-8"))
                there[path] = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
            assert name in there[path], f"{path} has no {name}"
            assert name.startswith(f"test_case_{number:02d}_") or not name.startswith("test_case_"), (
                f"{name} at {number}"
            )


def test_every_named_test_is_on_the_page_at_its_number():
    page = rows()
    for path, name in named_tests():
        number = int(name[10:12])
        assert f"`{path}::{name}`" in page.get(number, ""), f"{path}::{name} is missing at {number}"


def test_safety_names_tests_and_rules_that_exist():
    promises = re.findall(r"^\| (?!promise|---)(.+?) \| (.+?) \|$", SAFETY.read_text(encoding="utf-8"), re.MULTILINE)
    assert len(promises) > 10
    tests = {
        node.name
        for path in (ROOT / "tests").rglob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.FunctionDef)
    }
    rules = (ROOT / "tests/sim/invariants.py").read_text(encoding="utf-8")
    for promise, shown in promises:
        for name in re.findall(r"`(test_\w+)`", shown):
            assert name in tests, f"{promise}: there is no {name}"
        for rule in re.findall(r"`([a-z]+(?:-[a-z]+)*)`", shown):
            assert f'"{rule}"' in rules, f"{promise}: the simulation has no rule {rule}"


# --- keepalived ---


def test_case_02_a_run_is_overtaken_by_a_newer_role():
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=PRESENT)
    (mount,) = bench.last.start
    assert isinstance(mount, MountVolume)
    bench.loop.set_intent(intent(Role.BACKUP, order=2))
    assert bench.turn().start == (), "nothing of the old role is begun any more"
    newer = Fresh(intent(Role.BACKUP, order=2), frozenset(), PRESENT, False)
    taking = (mount, Attach(VOL, "/dev/sdf"), AssignAddresses((VIP,)), StopInstance(B, "b"), Detach(VOL, B, True))
    more = (KernelAddresses((VIP,), True), StartApplication(), Check(VOL, DEVICE.path, DEVICE.number, "ext4"))
    for step in (*taking, *more):
        assert refusal(step, newer, intent(), A), f"{step}: what was decided for MASTER is refused at the last moment"
    back = Fresh(intent(Role.MASTER, order=3), frozenset(), MOUNTED, False)
    for step in (Unmount(VOL, (MOUNT,)), Signal(VOL, (), (MOUNT,), False)):
        assert refusal(step, back, intent(Role.BACKUP, order=2), A), "and what was decided for BACKUP"


def test_case_03_a_stop_that_never_came_is_seen_by_the_end_of_keepalived():
    s = serving(host=host(MOUNTED, app=ApplicationState.RUNNING, keepalived_gone_since=NOW - 2))
    assert plan(s).goal == "release"
    assert kinds(s) == ["KernelAddresses", "StopApplication", "TagReleasing", "UnassignAddresses"]
    s = serving(host=host(MOUNTED, app=ApplicationState.RUNNING, keepalived_gone_since=NOW - 0.1))
    assert kinds(s) == [], "a restart of keepalived is no reason"


@pytest.mark.parametrize("fence", list(Fence))
def test_case_04_a_peer_that_resigned_is_given_the_time_to_release(fence: Fence):
    """The priority-0 advert and the VIP's removal come before the peer's own notify: the volume is mounted there."""
    resigned = replace(policy(held(), fence=fence), host=host(heard={"b": Heard(NOW - 0.05, 0)}))
    assert (kinds(resigned), Code.GRACE in codes(resigned)) == ([], True)
    tagged = replace(resigned, cloud=cloud(volume((B, "attached"), releasing=Releasing("b", WALL)), "b"))
    tagged = since(tagged, 30, (Code.GRACE, VOL))
    assert (kinds(tagged), Code.HOLDER_RELEASING in codes(tagged)) == ([], True), "however long the grace is over"
    leaving = replace(resigned, cloud=cloud(volume((B, "detaching")), "b"))
    assert (kinds(leaving), Code.HOLDER_DETACHING in codes(leaving)) == ([], True)


@pytest.mark.parametrize("fence", list(Fence))
def test_case_06_without_vrrp_between_them_the_healthy_half_is_not_fenced(fence: Fence):
    s = since(replace(policy(held(), fence=fence), host=host(heard={})), 3600, (Code.GRACE, VOL), (Code.FENCING, VOL))
    decided = plan(s)
    assert decided.steps == ()
    assert decided.blocked[0].code is Code.HOLDER_NEVER_HEARD
    assert "112" in decided.blocked[0].hint
    assert verdict(s, decided, Verdict(True)).ok, "and keepalived is told no lie about this node"


def test_case_07_after_a_pause_nothing_is_done_with_what_was_known_before_it():
    """The VM was not scheduled for a minute. The peer has fenced it meanwhile: what it knew is worth nothing."""
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED)
    assert bench.last.start == (StartApplication(),)
    bench.end(StartApplication())
    bench.tell(**MASTER_FACTS)
    turn = bench.turn(60)
    assert turn.start == ()
    turn = bench.tell(disk=PRESENT, vips=frozenset(), app=ApplicationState.STOPPED)
    assert not any(isinstance(s, MountVolume | AssignAddresses | Attach) for s in turn.start), (
        "EC2 is to be asked first"
    )
    turn = bench.tell(cloud=cloud(volume((B, "attached")), "b"))
    assert not any(isinstance(s, MountVolume | AssignAddresses | Attach) for s in turn.start)


def test_case_07_a_pause_shorter_than_vrrp_notices_changes_nothing():
    bench = fresh(**MASTER_FACTS)
    assert bench.last.plan.done
    bench.turn(0.9)
    bench.tell(**MASTER_FACTS)
    assert (bench.last.start, bench.last.verdict.ok) == ((), True)


def test_case_08_master_again_looks_at_everything_at_once_and_forgets_nothing():
    """MASTER_RX_LOWER_PRI is recorded as master once more: no new role, but a reason to look."""
    bench = fresh(cloud=cloud(volume((B, "attached")), "b"))
    bench.turn(1.0)
    waited = dict(bench.loop.memory.since)
    assert (Code.GRACE, VOL) in waited
    bench.loop.set_intent(intent(Role.MASTER, order=7))
    turn = bench.turn()
    assert turn.read, "everything is looked at now"
    assert bench.loop.memory.since[(Code.GRACE, VOL)] == waited[(Code.GRACE, VOL)]


def test_case_08_a_winner_that_is_told_nothing_finds_out_by_its_own_look():
    """After a silent partition the peer has released everything, and no event ever says so."""
    bench = fresh(cloud=cloud(volume((A, "attached")), "a"), disk=MOUNTED, app=ApplicationState.RUNNING)
    assert bench.last.plan.done
    for _ in range(61):
        turn = bench.turn(1.0)
        facts = {name: value for name, value in MASTER_FACTS.items() if name != "cloud"}
        bench.tell(**facts)
        if turn.read and "cloud" in {scope.value for scope in turn.read}:
            bench.tell(cloud=cloud(volume((A, "attached")), "b"))
    assert AssignAddresses((VIP,)) in (*bench.last.start, *bench.loop.running), "the address went: it is taken back"


@pytest.mark.parametrize("role", list(Role))
def test_case_09_a_role_that_is_said_again_changes_nothing(role: Role):
    """keepalived replays its state at a reload."""
    facts = dict(MASTER_FACTS)
    if role is not Role.MASTER:
        facts = {"cloud": cloud(), "disk": ABSENT, "vips": frozenset(), "app": ApplicationState.STOPPED}
    bench = Bench(role)
    assert bench.tell(**facts).plan.done
    for order in range(2, 5):
        bench.loop.set_intent(intent(role, order=order))
        bench.turn()
        assert (bench.tell(**facts).start, bench.last.plan.done) == ((), True)


# --- addresses ---


def test_case_11_api_metadata_and_kernel_are_three_truths_and_are_told_apart():
    here, gone = frozenset({VIP}), frozenset[str]()
    seen = {}
    for api in (True, False):
        for metadata in (here, gone, DARK):
            for kernel in (True, False):
                facts = cloud(volume((A, "attached")), "a" if api else "b")
                s = serving(
                    cloud=replace(facts, metadata_addresses=metadata),
                    host=host(MOUNTED, vip=kernel, app=ApplicationState.RUNNING),
                )
                told = group_report(s, plan(s), Verdict(True))["vips"][0]
                seen[api, metadata if isinstance(metadata, frozenset) else None, kernel] = s
                assert told["kernel"] is kernel
                assert told["ec2_node"] == ("a" if api else "b")
                assert told["metadata"] == (None if isinstance(metadata, Unknown) else metadata == here)
    late = seen[True, gone, True]
    assert codes(late) == {Code.VIP_NOT_IN_METADATA}, "said, until metadata shows it"
    assert plan(late).ready, "the service does not wait for it"
    assert kinds(seen[True, gone, True]) == [], "and nothing is assigned twice"
    assert kinds(seen[False, here, True]) == ["AssignAddresses"], "metadata and kernel do not outvote the API"


def test_case_12_an_address_that_something_else_removes_every_minute_is_put_back_every_time():
    s = serving(host=host(MOUNTED, vip=False, app=ApplicationState.RUNNING))
    assert Code.VIP_NOT_ON_INTERFACE in codes(s), "it is said, with a hint"
    for minute in range(3):
        late = since(replace(s, now=NOW + 60 * minute), 1.1, (Code.VIP_NOT_ON_INTERFACE, "addresses"))
        put_back = after(late, KernelAddresses((VIP,), True), ago=60)
        assert only(put_back, KernelAddresses) == KernelAddresses((VIP,), present=True)
    assert "StopApplication" not in kinds(s)


def test_case_15_giving_back_is_for_what_is_on_this_interface_alone():
    both = policy(situation(Role.BACKUP, host=host(vip=False)), vips=(VIP, "10.0.0.101"))
    mine, theirs = frozenset({VIP}), frozenset({"10.0.0.101"})
    s = replace(both, cloud=CloudFacts({VOL: volume((B, "attached"))}, instances(mine, theirs)))
    assert only(s, UnassignAddresses) == UnassignAddresses((VIP,))
    assert "UnassignAddresses" not in kinds(replace(s, cloud=CloudFacts({VOL: volume()}, DARK))), (
        "unknown gives nothing"
    )


def test_case_16_an_outage_of_metadata_moves_nothing():
    s = serving()
    s = replace(s, cloud=replace(s.cloud, metadata_addresses=DARK))
    decided = plan(s)
    assert (decided.steps, decided.ready, decided.done) == ((), True, True)


@pytest.mark.parametrize("disk", [ABSENT, PRESENT, MOUNTED, STALE])
def test_case_17_after_a_boot_nothing_is_touched_before_keepalived_has_spoken(disk: DiskFacts):
    s = situation(None, cloud=cloud(volume((A, "attached")), "a"), host=host(disk, app=ApplicationState.STOPPED))
    assert kinds(s) == []


def test_case_17_the_first_master_after_both_have_booted_takes_what_lies_on_the_dead_one():
    """The address and the volume stayed on an instance that is stopped: no transition on that side will ever come."""
    s = replace(held(b_state="stopped"), host=host(heard={}))
    assert plan(s).steps == (Detach(VOL, B),)
    free = replace(s, cloud=cloud(volume((A, "attached")), "b", "stopped"), host=host(MOUNTED, heard={}))
    assert AssignAddresses((VIP,)) in plan(free).steps


# --- volumes ---


def test_case_18_a_device_name_is_not_used_twice_in_turn():
    names = []
    s = situation()
    for turn in range(4):
        names.append(only(s, Attach).device)
        s = after(replace(s, now=s.now + 100), only(s, Attach), runs=turn + 1, ok=False, ago=100)
    assert len(set(names)) == 4
    taken = instances()
    taken[A] = replace(taken[A], device_names=frozenset(f"/dev/sd{letter}" for letter in "fghijklmno"))
    assert only(situation(cloud=CloudFacts({VOL: volume()}, taken)), Attach).device == "/dev/sdp", (
        "the one that is free"
    )


def test_case_19_attaching_for_ever_is_taken_back_after_its_bound():
    s = situation(cloud=cloud(volume((A, "attaching")), "a"))
    assert "Detach" not in kinds(since(s, 89, (Code.ATTACHING, VOL)))
    assert plan(since(s, 91, (Code.ATTACHING, VOL))).steps == (Detach(VOL, A),)


def test_case_20_busy_here_is_said_and_never_forced_while_mounted():
    for disk in (
        MOUNTED,
        replace(MOUNTED, others=(MOUNT,)),
        replace(PRESENT, others=(MOUNT,)),
        DiskFacts(DEVICE, DARK),
        DiskFacts(DARK, None),  # without the device's number nobody knows where else it is mounted
    ):
        for role, state in product((Role.MASTER, Role.BACKUP), ("attached", "busy")):
            s = situation(role, cloud=cloud(volume((A, state)), "a"), host=host(disk))
            s = since(s, 3600, (Code.DETACHING_HERE, VOL), (Code.DETACH_REQUESTED, VOL))
            assert not any(isinstance(step, Detach) for step in plan(s).steps), (role, state, disk)
    asked = serving(cloud=cloud(volume((A, "busy")), "a"))
    assert (codes(asked), plan(asked).ready) == ({Code.DETACH_REQUESTED}, True), "the service goes on"
    assert "switchover" in plan(asked).reasons[0].hint
    for disk in (MOUNTED, replace(PRESENT, others=(MOUNT,)), DiskFacts(DEVICE, DARK), DiskFacts(DARK, None), None):
        fresh_look = Fresh(intent(Role.BACKUP), frozenset(), disk, False)
        assert refusal(Detach(VOL, A, force=True), fresh_look, intent(Role.BACKUP), A), "and the guard looks again"


@pytest.mark.parametrize("code", ["VolumeInUse", "IncorrectState"])
def test_case_21_a_refused_attach_is_looked_at_again_and_waits_for_the_peer(code: str):
    bench = fresh()
    (attach,) = bench.last.start
    turn = bench.end(attach, ok=False, failure=Failure.OTHER, text=code)
    assert "cloud" in {scope.value for scope in turn.read}, "at once"
    bench.tell(cloud=cloud(volume((B, "detaching"))))
    assert any(r.code is Code.HOLDER_DETACHING for r in bench.last.plan.reasons)
    bench.turn(1.0)
    turn = bench.tell(cloud=cloud())
    assert any(isinstance(step, Attach) for step in turn.start)


def test_case_22_attached_without_a_device_is_waited_for_said_and_never_mounted():
    s = situation(cloud=cloud(volume((A, "attached")), "a"))
    for device in (None, DARK):
        missing = replace(s, host=host(DiskFacts(device, None)))
        assert (kinds(missing), Code.DEVICE in codes(missing)) == ([], True)
        late = since(missing, 46, (Code.DEVICE, VOL))
        assert [r.code for r in plan(late).blocked] == [Code.DEVICE_MISSING]
        assert "lsblk" in plan(late).blocked[0].hint


def test_case_23_a_device_that_changed_between_the_look_and_the_mount_is_refused():
    step = MountVolume(VOL, DEVICE.path, DEVICE.number, "/srv/data", "ext4", "")
    ok = Fresh(intent(), frozenset(), PRESENT, False)
    assert refusal(step, ok, intent(), A) is None
    others = [Device(DEVICE.path, "259:7", "ext4"), Device("/dev/nvme7n1", DEVICE.number, "ext4"), None, DARK]
    for other in others:
        changed = replace(ok, disk=DiskFacts(other, None))
        assert refusal(step, changed, intent(), A), other
    assert refusal(step, replace(ok, disk=MOUNTED), intent(), A)


def test_case_27_an_application_whose_disk_was_taken_is_not_started_again_on_what_is_left_of_it():
    ok = Fresh(intent(), frozenset(), None, False, {VOL: MOUNTED})
    assert refusal(StartApplication(), ok, intent(), A) is None
    silent = replace(MOUNTED, device=Unknown("dd: input/output error"))
    read_only = replace(MOUNTED, mount=replace(MOUNT, read_only=True))
    foreign = replace(MOUNTED, foreign=True)
    for disk in (STALE, ABSENT, PRESENT, DiskFacts(DEVICE, DARK), silent, read_only, foreign):
        both = {"vol-0000000000000000b": MOUNTED, VOL: disk}
        assert refusal(StartApplication(), replace(ok, disks=both), intent(), A), disk
    assert refusal(StartApplication(), replace(ok, disks={}), intent(), A) is None, "a group without volumes"


def test_case_24_views_that_disagree_or_go_backwards_for_a_moment_move_nothing():
    backwards = [
        cloud(volume((B, "attached")), "b"),
        cloud(volume(), "a"),
        cloud(volume((A, "attaching")), "a"),
        cloud(volume((B, "detaching")), "a"),
        CloudFacts({}, instances(frozenset({VIP}))),
        CloudFacts({VOL: volume((A, "attached"))}, {}),
    ]
    for old in backwards:
        s = serving(cloud=old)
        decided = plan(s)
        assert verdict(s, decided, Verdict(True)).ok, old
        harmful = (Detach, Unmount, StopApplication, StopInstance, SetMark, Attach, UnassignAddresses)
        assert not any(isinstance(step, harmful) for step in decided.steps), old
    for old in backwards[:2]:
        lasting = since(serving(cloud=old), 9.9, (Code.DISAGREES, VOL))
        assert SetMark("fenced") not in plan(lasting).steps
    really = since(serving(cloud=backwards[0]), 10.1, (Code.DISAGREES, VOL))
    assert SetMark("fenced") in plan(really).steps, "but one that stays is believed"


def test_case_24_a_stopped_instance_that_holds_nothing_by_the_other_view_is_left_alone():
    s = situation(cloud=cloud(volume(), "b", "stopped"))
    assert kinds(s) == ["Attach"]
    unknown_instance = situation(cloud=CloudFacts({VOL: volume((B, "attached"))}, DARK))
    assert kinds(unknown_instance) == [], "a holder whose state is not known is not taken from"


def test_case_25_gone_already_is_the_goal():
    for role in RELEASING:
        s = situation(role, cloud=cloud(volume((B, "attached")), "b"), host=host(vip=False))
        assert plan(s).done


@pytest.mark.parametrize("disk", [ABSENT, PRESENT, MOUNTED])
def test_case_26_two_attachments_of_one_volume_are_an_error_to_report(disk: DiskFacts):
    facts = volume((A, "attached"), (B, "attached"))
    s = situation(cloud=cloud(facts, "a"), host=host(disk, app=ApplicationState.RUNNING))
    decided = plan(s)
    assert Code.TWO_ATTACHMENTS in {r.code for r in decided.blocked}
    assert not any(isinstance(step, MountVolume | Check | Attach | Detach) for step in decided.steps)
    assert A in decided.blocked[0].text
    assert B in decided.blocked[0].text


def test_case_26_an_instance_that_is_leaving_and_one_that_comes_are_two_attachments_too():
    facts = replace(volume(), state=VolumeState.IN_USE, attachments=(
        Attachment(B, AttachmentState.DETACHING), Attachment(A, AttachmentState.ATTACHING),
    ))  # fmt: skip
    assert Code.TWO_ATTACHMENTS in codes(situation(cloud=cloud(facts)))


def test_case_27_a_stale_mount_means_fenced_stopped_and_cleaned_up_in_every_role():
    for role in Role:
        s = situation(role, cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, app=ApplicationState.RUNNING))
        assert SetMark("fenced") in plan(s).steps
    marked = replace(s, host=replace(s.host, marks=frozenset({"fenced"})))
    assert not verdict(marked, plan(marked), Verdict(True)).ok, "keepalived hears of it"
    assert "StopApplication" in kinds(marked)
    assert "TagReleasing" not in kinds(marked), "there is nothing that a peer could wait for"


def programs(s: Situation) -> Situation:
    """The same with start, stop and check programs instead of a unit."""
    return policy(s, application=Application(start=("start",), stop=("stop",), check=("check",)))


def test_case_27_an_application_whose_disk_was_taken_is_stopped_though_its_check_says_that_it_is_down():
    """Its check fails because it can't write any more; it lives, with its files and its port. A lazy unmount would
    leave it there for ever, and no start on this node would ever succeed again (found by the soak)."""
    fenced = {"marks": frozenset({"fenced"}), "app": ApplicationState.STOPPED}
    s = programs(situation(cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, **fenced)))
    assert kinds(s) == ["StopApplication"]
    assert "Unmount" in kinds(after(s, StopApplication(), ago=0.1))
    assert "Unmount" in kinds(after(s, StopApplication(), ago=0.1, ok=False, text="hangs")), "but not for ever"
    again = after(after(s, StopApplication(), ago=60), StartApplication(), ago=30)
    assert kinds(again) == ["StopApplication"], "it was started since"
    unit = situation(cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, **fenced))
    assert kinds(unit) == ["Unmount"], "systemd knows whether anything of it is left"
    bare = programs(situation(Role.BACKUP, host=host(ABSENT, vip=False)))
    assert plan(bare).done, "a backup at rest does not call its stop program"


def test_case_28_detached_and_never_attached_are_told_apart():
    """The outcome says which it was (tests/adapters); the plan goes by what is seen, not by what was answered."""
    s = situation(Role.BACKUP, cloud=cloud(volume((A, "attached"))), host=host(PRESENT, vip=False))
    claimed = after(s, Detach(VOL, A), ago=0.5, ok=True, text="it was not attached there (any more)")
    assert not plan(claimed).done
    assert Code.SETTLING in codes(claimed)
    assert plan(replace(claimed, now=NOW + 6)).steps == (Detach(VOL, A),), "EC2 still shows it: once more"


def test_case_29_throttling_of_one_call_bounds_its_pause_and_holds_up_nothing_else():
    s = replace(serving(), intent=intent(Role.BACKUP), host=host(PRESENT))
    for runs in (1, 5, 50):
        slow = after(s, Detach(VOL, A), ago=5.1, ok=False, failure=Failure.THROTTLED, runs=runs, text="slow down")
        assert kinds(slow) == ["Detach", "UnassignAddresses"], "never longer than five seconds"
    just = after(s, Detach(VOL, A), ago=0.1, ok=False, failure=Failure.THROTTLED, text="slow down")
    assert kinds(just) == ["UnassignAddresses"]


def test_case_31_holders_that_come_back_are_found_and_signalled_again():
    s = situation(Role.BACKUP, cloud=cloud(volume((A, "attached"), releasing=Releasing("a", WALL))), host=host(MOUNTED))
    s = after(policy(s, open_files=OpenFiles.KILL), Unmount(VOL, (MOUNT,)), ok=False, failure=Failure.BUSY, ago=20)
    for generation in range(1, 6):
        holder = Holder(100 + generation, "respawn", "/srv/data/x", "fd", generation)
        listed = replace(s, memory=replace(s.memory, holders={VOL: HolderList(s.now - 0.1, (holder,))}))
        step = only(listed, Signal)
        assert step.holders == (holder,), "those that hold it now, not those of before"
        s = after(listed, step, ago=0.0)
        assert kinds(s) == ["ListHolders"]
        s = replace(s, now=s.now + 5.1)


def test_case_31_bind_and_nested_mounts_go_before_the_mount_itself():
    inner = (Mount("/srv/data/a/b", "0:44", "tmpfs", "tmpfs"), Mount("/mnt/bind", "259:1", "/dev/nvme1n1", "ext4"))
    s = situation(Role.BACKUP, cloud=cloud(volume((A, "attached"))), host=host(replace(MOUNTED, others=inner)))
    assert only(s, Unmount).mounts == (*inner, MOUNT)


def many(number: int) -> tuple[Situation, list[str]]:
    """A backup that still has so many volumes mounted."""
    ids = [f"vol-{n:017x}" for n in range(number)]
    volumes = tuple(Volume(mount=f"/srv/{n}", id=vid) for n, vid in enumerate(ids))
    disks = {}
    for n, vid in enumerate(ids):
        path, number = f"/dev/nvme{n}n1", f"259:{n}"
        disks[vid] = DiskFacts(Device(path, number, "ext4"), Mount(f"/srv/{n}", number, path, "ext4"))
    facts = CloudFacts({vid: volume((A, "attached"), vid=vid) for vid in ids}, instances(frozenset({VIP})))
    s = policy(situation(Role.BACKUP, cloud=facts), volumes=volumes)
    return replace(s, host=replace(host(), disks=disks)), ids


def test_case_34_ten_file_systems_are_unmounted_side_by_side():
    s, ids = many(10)
    unmounts = [step for step in plan(s).steps if isinstance(step, Unmount)]
    assert [step.volume_id for step in unmounts] == ids
    assert len({step.resource for step in plan(s).steps}) == len(plan(s).steps), "nothing waits for anything else"


# --- policy ---


def test_case_36_what_ran_out_of_time_is_decided_and_said():
    acquiring = situation(cloud=cloud(volume((A, "attaching")), "a"))
    late = since(acquiring, 181, (Code.NOT_READY, GROUP.name))
    told = verdict(late, plan(late), Verdict(True))
    assert (told.ok, "181 s" in told.text) == (False, True), "a master that holds nothing gives way"

    stopping = replace(serving(), intent=intent(Role.BACKUP))
    stopping = after(stopping, StopApplication(), ok=False, failure=Failure.TIMEOUT, text="still running after 60 s")
    assert "Unmount" in kinds(stopping)
    assert any("did not stop" in r.text and "60 s" in r.text for r in plan(stopping).reasons)

    unmounting = situation(Role.STOP, cloud=cloud(volume((A, "attached"))), host=host(MOUNTED))
    unmounting = after(unmounting, Unmount(VOL, (MOUNT,)), ok=False, failure=Failure.TIMEOUT, text="no end after 30 s")
    assert kinds(unmounting) == ["ListHolders", "TagReleasing"], "who keeps it is looked into"
    assert not plan(unmounting).done

    waiting = since(held("detaching"), 61, (Code.HOLDER_DETACHING, VOL))
    assert Code.GRACE in codes(waiting), "a handover that does not end is one no more"


def test_case_38_status_observes_and_does_not_remember():
    """keepalived said MASTER once; whatever that file says, what is shown is what is so."""
    lost = serving(
        cloud=cloud(volume((B, "attached")), "b"),
        host=host(ABSENT, vip=False, app=ApplicationState.STOPPED, keepalived_gone_since=NOW - 100),
    )
    said = replace(intent(), keepalived=(4711, 5))
    told = group_report(replace(lost, intent=said), plan(lost), Verdict(True))
    assert (told["vrrp_role"], told["keepalived"], told["goal"]) == ("master", "gone", "release"), "what it said last"
    assert told["serving"] is False
    assert (told["volumes"][0]["attached_to"], told["volumes"][0]["mounted"]) == (B, False)
    assert (told["vips"][0]["kernel"], told["vips"][0]["ec2_node"]) == (False, "b")
    unseen = replace(lost, cloud=CloudFacts(DARK, DARK))
    told = group_report(unseen, plan(unseen), Verdict(True))
    assert told["volumes"][0]["attached_to"] == "unknown"
    assert severity(told) == 3


def fenced_with_a_mount() -> Situation:
    return situation(
        Role.BACKUP, cloud=cloud(volume((B, "attached")), "b"), host=host(STALE, marks=frozenset({"fenced"}))
    )


def test_case_40_a_lost_disk_is_let_go_with_one_honest_try():
    s = fenced_with_a_mount()
    first = only(s, Unmount)
    assert not first.lazy
    tried = after(s, first, ago=10, ok=False, failure=Failure.OTHER)
    assert only(tried, Unmount).lazy
    for failure in (Failure.TIMEOUT, Failure.BUSY):
        tried = after(s, first, ago=10, ok=False, failure=failure)
        unlistable = after(tried, ListHolders(VOL, (MOUNT,)), ago=5, ok=False, failure=Failure.TIMEOUT)
        nobody = replace(tried, memory=replace(tried.memory, holders={VOL: HolderList(NOW - 5, ())}))
        left_alone = policy(tried, open_files=OpenFiles.WAIT)
        for case in (unlistable, nobody, left_alone):
            assert only(case, Unmount).lazy
            assert not any(isinstance(step, Check | MountVolume | TagReleasing) for step in plan(case).steps)


def test_case_40_those_who_hold_a_lost_disk_are_ended_before_it_is_unmounted_lazily():
    busy = after(fenced_with_a_mount(), Unmount(VOL, (MOUNT,)), ago=10, ok=False, failure=Failure.BUSY)
    assert kinds(busy) == ["ListHolders"]
    holder = Holder(4711, "batch", "/srv/data/x", "fd", 5)
    listed = replace(busy, memory=replace(busy.memory, holders={VOL: HolderList(NOW - 5, (holder,))}))
    killed = only(listed, Signal)
    assert killed.kill
    assert only(after(listed, killed, ago=1), Unmount).lazy, "whether they have gone or not: nobody waits for them"
    lazy = after(listed, Unmount(VOL, (MOUNT,), lazy=True), ago=9, ok=False, failure=Failure.TIMEOUT)
    assert only(lazy, Unmount).lazy


# --- found by the soak and the fault tests ---


def test_a_release_of_the_peer_is_not_taken_for_the_end_of_an_earlier_detach_of_ones_own():
    """This node detached its own stuck attachment a while ago. The peer's release, now, is the peer's."""
    s = after(held("detaching"), Detach(VOL, A), ago=30)
    s = since(s, 10, (Code.GRACE, VOL))
    assert (kinds(s), Code.HOLDER_DETACHING in codes(s)) == ([], True)


def test_every_step_is_known_to_the_guard():
    """A step that is not listed here has not been thought about: does it take something that only a master may?"""
    takes = {"Attach", "AssignAddresses", "StopInstance", "MountVolume", "Check", "StartApplication", "TagServing"}
    sometimes = {"Detach", "KernelAddresses", "RunHooks"}
    never = {"TagReleasing", "ClearReleasing", "Unmount", "ListHolders", "Signal", "UnassignAddresses"}
    never |= {"StopApplication", "SetMark", "LiftMark", "NoteHooks"}

    def below(kind: type[Step]) -> Iterator[type[Step]]:
        for one in kind.__subclasses__():
            yield one
            yield from below(one)

    abstract = {"VolumeStep", "TagStep", "AddressStep", "ApplicationStep"}
    assert {kind.__name__ for kind in below(Step)} - abstract == takes | sometimes | never


def test_instances_that_are_not_running_are_all_known():
    """A state that EC2 may add is no reason to call an instance dead."""
    gone = {InstanceState.STOPPED, InstanceState.TERMINATED}
    for state in InstanceState:
        taken = any(isinstance(step, Detach) for step in plan(held(b_state=state.value)).steps)
        assert taken == (state in gone)
