"""What a client sees of a planned switchover and of crashes, with real keepalived; and takeovers from dead nodes."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass, field

from awsha.lab.nodeconf import server_argv
from tests.bench.alone import Alone, file_systems
from tests.bench.bench_lab import AWSHA, HERE, BenchLab
from tests.bench.row import Row, compared
from tests.bench.takeover import ADDRESS, CALL_S, lab_now, show_waterfall


@dataclass(frozen=True)
class Delays:
    """EC2's delays of one round, in seconds: a stop without the guest, a forced and an ordinary detach, an attach."""

    stop: float
    force: float
    detach: float
    attach: float
    device: float

    @property
    def attached(self) -> float:
        """The calls and the delay of an attach."""
        return CALL_S + max(self.attach, self.device) + CALL_S

    def freed(self, policy: str) -> float:
        """The calls and delays until the volume of a dead node is free; each state must be seen before the next act."""
        if policy == "stop-instance":
            # the volume of a stopped instance is detached at once
            return CALL_S + self.stop + CALL_S + CALL_S + CALL_S
        # an ordinary detach is busy on a dead guest: detach_s is what the policy waits before it uses Force
        return CALL_S + DETACH_LIMIT_S + CALL_S + self.force + CALL_S

    def set(self, lab: BenchLab) -> None:
        """Play them from now on."""
        lab.latency(
            call=CALL_S, attach=self.attach, attach_device=self.device, detach=self.detach,
            detach_force=self.force, stop_skip_os=self.stop, **ADDRESS,
        )  # fmt: skip


# Another set each round, so that no schedule of looks fits by luck, or by bad luck.
ROUNDS = (Delays(4.0, 2.4, 2.6, 2.3, 2.0), Delays(4.2, 2.15, 2.35, 2.7, 2.45), Delays(3.65, 2.55, 2.9, 1.95, 1.7))
DETACH_LIMIT_S = 1.0  # timeouts.detach_s: an ordinary detach may be busy for so long before Force
# No grace: it is a wait that the configuration orders, and would only hide what awsha takes.
TIMEOUTS = {"release_grace_s": 0.0, "detach_s": DETACH_LIMIT_S, "unfence_s": 2.0}
SETTLE_S = 2.5  # a backup must have heard its master
BOOTED_S = 8.0  # keepalived only listens for its first 5 s (vrrp_startup_delay): a crash within is noticed late


@dataclass
class Crash:
    """One crash. Seconds: what the client saw, and VRRP's part of it; what the new master took until it called itself
    converged; the critical path until the client can be served, and until the application's check can say so."""

    outage: float
    detection: float
    took: float
    path: float
    checked_path: float
    waterfall: list[tuple[float, str]] = field(default_factory=list)


@dataclass(frozen=True)
class Parts:
    """What mounts and the application's own programs take by themselves."""

    files: Alone
    start: float
    check: float


def parts(lab: BenchLab, node: str) -> Parts:
    """Measure the application's programs where it runs, a second one of it on a port of its own; and mounts."""
    took: dict[str, list[float]] = {"start": [], "check": [], "stop": []}
    for _ in range(5):
        for word, kept in took.items():
            argv = server_argv(word, lab.groups[0])
            argv[argv.index("--port") + 1] = "7999"
            argv[argv.index("--name") + 1] = "bench-alone"
            kept.append(lab.run(node, *argv).good().took)
    return Parts(file_systems(), statistics.median(took["start"]), statistics.median(took["check"]))


def outages(quick: bool) -> list[Row]:
    """switchover_outage, failover_outage and takeover_fenced."""
    count = 1 if quick else 3
    rows: list[Row] = []
    fenced: dict[str, list[Crash]] = {}
    for advert_int, policy in ((1.0, "stop-instance"), (0.1, "force-detach")):
        with BenchLab(converged=True, advert_int=advert_int, fence=policy, timeouts=TIMEOUTS) as lab:
            master, peer = _roles(lab)
            alone = parts(lab, master)
            lab.ask("client_start")
            if advert_int < 1:
                rows.append(_switchovers(lab, alone, 1 if quick else 2))
                master, peer = _roles(lab)
            crashes = []
            for index in range(count):
                crashes.append(_crash(lab, master, peer, ROUNDS[index % len(ROUNDS)], alone))
                master, peer = peer, master
            fenced[policy] = crashes
            show_waterfall(f"crash, {policy}", crashes[0].waterfall)
            found = statistics.median(c.detection for c in crashes)
            rows.append(
                compared(
                    f"failover_outage advert_int {advert_int:g}", [c.outage for c in crashes],
                    [c.detection + c.path for c in crashes], 1.05,
                    note=f"{policy}; VRRP's detection {found:.2f} s of it",
                )
            )  # fmt: skip
    for policy, crashes in fenced.items():
        took, path = [c.took for c in crashes], [c.checked_path for c in crashes]
        rows.append(compared(f"takeover_fenced {policy}", took, path, 1.05, note="÷ critical path"))
    return sorted(rows, key=lambda row: row.name)


def _roles(lab: BenchLab) -> tuple[str, str]:
    holder: str = lab.wait_for(lambda: lab.ask("status")["groups"]["data"]["holder"], "somebody holds the group")
    return holder, "b" if holder == "a" else "a"


def _wait_for_backup(lab: BenchLab, master: str, peer: str) -> None:
    """The peer is a backup that has heard its master, and all is quiet."""

    def ready() -> bool:
        facts = lab.ask("status")
        roles = {name: facts["nodes"][name]["vrrp_role"] for name in (master, peer)}
        return roles == {master: "master", peer: "backup"} and facts["groups"]["data"]["holder"] == master

    lab.wait_for(ready, f"{peer} is {master}'s backup")
    time.sleep(max(SETTLE_S, lab.healed_at + BOOTED_S - lab_now()))
    lab.wait_for(ready, f"{peer} stays {master}'s backup")


def _crash(lab: BenchLab, master: str, peer: str, delays: Delays, alone: Parts) -> Crash:
    """The master's power goes; until the client is served by its peer, which then is the master."""
    _wait_for_backup(lab, master, peer)
    delays.set(lab)
    began = lab_now()
    lab.ask("fail", node=master, kind="power-off")
    there = lab.wait_said(peer, HERE, began)
    silence = lab.wait_for(lambda: lab.outage(began), "the client is served")
    told, forked = lab.intent_at(peer, "master"), lab.forked_at(peer)
    path = delays.freed(lab.shape.fence) + delays.attached
    path += alone.files.check + alone.files.mount + alone.start
    lines = [(when - told, text) for when, text in lab.log(peer, told)]
    lines += [(r["at"] - told, f"→ {r['action']} {r['code']}") for r in lab.requests(told, peer)]
    lab.latency()
    lab.ask("heal", node=master)
    lab.healed_at = lab_now()
    return Crash(silence[1] - silence[0], forked - silence[0], there - told, path, path + alone.check, sorted(lines))


def _switchovers(lab: BenchLab, alone: Parts, count: int) -> Row:
    """`awsha switchover` on the master, back and forth."""
    seen, least, vrrp = [], [], 0.0
    for index in range(count):
        master, peer = _roles(lab)
        _wait_for_backup(lab, master, peer)
        delays = ROUNDS[index]
        delays.set(lab)
        began = lab_now()
        lab.run(master, AWSHA, "switchover", "data").good()
        lab.wait_said(peer, HERE, began)
        silence = lab.wait_for(lambda began=began: lab.outage(began), "the client is served")
        # VRRP's own part: from the track file that says "unhealthy" to the fork of the peer's notify
        gave_way = lab.wait_said(master, "unhealthy", began)
        vrrp = max(0.0, lab.forked_at(peer) - gave_way)
        # the stop itself is not in it: the client is served until nearly its end
        release = alone.check + alone.files.unmount + CALL_S + delays.detach + CALL_S
        seen.append(silence[1] - silence[0])
        least.append(release + vrrp + delays.attached + alone.files.mount + alone.start)
        if index == 0:
            lines = [(w - silence[0], f"{n}: {t}") for n in ("a", "b") for w, t in lab.log(n, began)]
            lines += [(r["at"] - silence[0], f"{r['node']}: → {r['action']}") for r in lab.requests(began)]
            show_waterfall("switchover (after the last acknowledgement)", sorted(lines))
        lab.latency()
    return compared("switchover_outage", seen, least, 1.1, note=f"{count} times; VRRP's part {vrrp:.2f} s of it")
