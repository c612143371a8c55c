"""The simulation itself: thousands of schedules without a violation, repeatable anywhere, over the lab's own rules."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from awsha.aws import facts
from awsha.core.freshness import Fact
from awsha.core.loop import Loop
from awsha.core.model import Hook
from awsha.core.steps import Scope, SetMark
from awsha.lab.rules import Ec2Error
from tests.sim.__main__ import main, run_many
from tests.sim.faults import HINDRANCES, MOVERS
from tests.sim.faults_ec2 import CODES
from tests.sim.schedule import run
from tests.sim.shape import INSTANCES, SHAPES, VIPS, VOLUMES, identity
from tests.sim.start import take_over
from tests.sim.wiring import REAL
from tests.sim.world import World

DEVICES = ("/dev/sdf", "/dev/sdg", "/dev/sdh")
ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(("nodes", "count"), [(2, 2000), (3, 400)])
def test_no_schedule_violates_anything(nodes: int, count: int):
    report = run_many(20, 0, count, nodes)
    told = [f"--seed 20 --index {index} --nodes {nodes}: {rule}" for index, rule in report.violations]
    assert told == []
    assert report.schedules == count
    assert report.steps > 10 * count, "the nodes do something"


def test_hooks_that_take_their_time_and_fail_now_and_then_violate_nothing():
    wiring = replace(REAL, hooks=frozenset(Hook))
    results = [run(78, index, wiring=wiring) for index in range(800)]
    assert [f"{r.index}: {r.rule}: {r.text}" for r in results if r.rule] == []


def test_a_seed_and_an_index_repeat_a_schedule_exactly():
    once, again = run(3, 42, trace=True), run(3, 42, trace=True)
    assert once == again
    plain = run(3, 42)
    assert (plain.steps, plain.events, plain.virtual_s) == (once.steps, once.events, once.virtual_s), (
        "tracing changes nothing"
    )


@pytest.mark.parametrize("hash_seed", ["0", "1"])
def test_a_schedule_is_the_same_in_every_process(hash_seed: str):
    here = [run(5, index, trace=True).trace for index in range(6)]
    code = "import json; from tests.sim.schedule import run\n"
    code += "print(json.dumps([run(5, index, trace=True).trace for index in range(6)]))"
    env = {**os.environ, "PYTHONHASHSEED": hash_seed}
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, env=env, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == here


def test_a_schedule_does_not_depend_on_those_before_it():
    alone = run(6, 30)
    run_many(6, 0, 30, 2)
    assert run(6, 30) == alone


def test_a_rested_loop_takes_over_all_that_the_template_knows():
    """Whatever a loop comes to know in its life has a place in start.py."""
    shape = SHAPES[2][0]
    known, fresh = Loop(shape.group, identity("a", shape.nodes)), Loop(shape.group, identity("a", shape.nodes))
    made = {"group", "me", "_decide", "_judge_health", "intent"}  # as it was made, or set by itself
    own = {"_running", "_begun", "_rested"}  # changed in place
    for part in vars(known).keys() - made - {"_freshness", *own}:
        setattr(known, part, object())
    known._running["x"] = SetMark("x")
    known._begun["x"] = known._rested["y"] = 2.0
    known._freshness.changed(Scope.CLOUD)
    known._freshness.ask(Scope.DISKS, 3.0)
    take_over(fresh, known)
    for part in vars(known).keys() - made - {"_freshness"}:
        assert getattr(fresh, part) == getattr(known, part), part
    assert all(getattr(fresh, part) is not getattr(known, part) for part in own)
    mine, other = fresh._freshness, known._freshness
    assert mine._order == other._order
    for scope in Scope:
        facts = [{part: getattr(f.of(scope), part) for part in Fact.__slots__} for f in (mine, other)]
        assert facts[0] == facts[1]
        assert mine.of(scope) is not other.of(scope)


def test_the_command_reports_in_json(capsys: pytest.CaptureFixture[str]):
    assert main(["--schedules", "20", "--seed", "4", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert {"schedules", "violations", "steps", "seconds", "per_second"} <= told.keys()
    assert (told["schedules"], told["violations"]) == (20, 0)


def test_looks_show_what_the_labs_replies_say():
    """The short way to facts about EC2 is held against the lab's replies and awsha's own parser."""
    random = Random(7)  # noqa: S311 - repeatable on purpose
    for shape in (SHAPES[2][0], SHAPES[3][-1], SHAPES[2][-3]):
        world = World(shape, random, REAL)
        region, node = world.cloud.region, world.nodes[0]
        for _ in range(300):
            _something(world, random)
            world.now += 60.0
            region.advance(world.now, world.guest_holds)
            look = world.cloud.look_plainly(node)
            ids = [v.id for v in shape.group.volumes]
            volumes = region.call("DescribeVolumes", {"VolumeIds": ids}, world.now) if ids else {"Volumes": []}
            instances = region.call("DescribeInstances", {"InstanceIds": list(look.instances)}, world.now)
            assert look.volumes == facts.volumes(volumes)
            assert look.instances == {i: found.facts for i, found in facts.instances(instances).items()}
            # the lab keeps items beside states: both ways read the same history
            told = region.metadata(
                node.instance_id, f"meta-data/network/interfaces/macs/{_mac(world)}/local-ipv4s", world.now
            )
            assert told is not None
            assert look.metadata_addresses == frozenset(told.split("\n"))


def _mac(world: World) -> str:
    return world.cloud.region.world.interfaces[world.nodes[0].eni_id].mac


def _something(world: World, random: Random) -> None:
    """One call of some node, and some time."""
    node = random.choice(world.nodes)
    volume = random.choice(VOLUMES)
    calls = (
        ("AttachVolume", {"VolumeId": volume, "InstanceId": node.instance_id, "Device": random.choice(DEVICES)}),
        ("DetachVolume", {"VolumeId": volume, "InstanceId": node.instance_id, "Force": random.random() < 0.5}),
        ("CreateTags", {"Resources": [volume], "Tags": [{"Key": "awsha:releasing", "Value": f"{world.now:.3f} a"}]}),
        ("DeleteTags", {"Resources": [volume], "Tags": [{"Key": "awsha:releasing"}]}),
        ("AssignPrivateIpAddresses", {"NetworkInterfaceId": node.eni_id, "PrivateIpAddresses": list(VIPS[:1]),
                                      "AllowReassignment": True}),
        ("StopInstances", {"InstanceIds": [INSTANCES["b"]], "Force": True}),
        ("StartInstances", {"InstanceIds": [INSTANCES["b"]]}),
    )  # fmt: skip
    action, params = random.choice(calls)
    world.now += random.random()
    world.cloud.region.advance(world.now, lambda _instance, _volume: False)
    try:
        world.cloud.region.call(action, dict(params), world.now)
    except Ec2Error:
        return


def test_every_code_of_the_ec2_page_is_injected():
    page = {
        "IncorrectState", "VolumeInUse", "InvalidAttachment.NotFound", "InvalidParameterValue",
        "InvalidVolume.ZoneMismatch", "InvalidVolume.NotFound", "InvalidInstanceID.NotFound",
        "InvalidNetworkInterfaceID.NotFound", "AttachmentLimitExceeded", "PrivateIpAddressLimitExceeded",
        "IncorrectInstanceState", "Resource.AlreadyAssigned", "InvalidIPAddress.InUse", "RequestLimitExceeded",
        "InternalError", "InternalFailure", "ServiceUnavailable", "Unavailable", "UnauthorizedOperation",
        "DryRunOperation", "RequestExpired", "AuthFailure",
    }  # fmt: skip
    assert page == set(CODES)


def test_every_mishap_happens():
    told = "\n".join(run(8, index, trace=True).trace for index in range(1000))
    words = {
        "kill_keepalived": "keepalived is killed", "stop_keepalived": "keepalived is stopped", "cut": "VRRP is cut",
        "split": "for long", "freeze": "is frozen", "crash": "power is off", "reboot": "is rebooted",
        "kill_agent": "agent is killed", "release": "awsha release", "fence": "an operator stops",
        "pull": "in the console",
        "flap": "VRRP flaps", "crash_application": "the application crashes", "read_only": "become read-only",
        "take_vip": "the VIPs are removed", "lossy": "adverts get lost", "pause": "awsha pause",
        "api_error": "error_after",
        "lose_reply": "lost", "throttle": "throttle", "black_hole": "black_hole", "late_call": "late",
        "stale": "views lag", "stuck": "stuck_", "cut_api": "out of reach",
        "kill_at_notify": "crash at the next notify",
        "late_notifies": "notifies are late", "lost_notify": "notify_stop will be lost",
        "unreadable": "reads of the host fail",
        "late_devices": "devices come late", "hold": "works in", "bind": "/mnt", "hang_unmount": "unmounts hang",
        "hang_stop": "will not stop", "skew": "wall clock",
    }  # fmt: skip
    names = {mishap.__name__ for mishap, _ in (*MOVERS, *HINDRANCES)}
    assert names == set(words)
    assert [name for name in sorted(names) if words[name] not in told] == []
