"""The converge loop without its hands: facts, outcomes and time go in; what to read and what to start comes out.

The agent drives it with threads and real clocks, the simulation with a scheduler and a virtual one. It is level
triggered and only goes forward: after any outcome it looks again, and it never undoes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from awsha.core import addresses, fencing
from awsha.core.freshness import Freshness
from awsha.core.health import Verdict, damped, verdict
from awsha.core.model import (
    UNREAD,
    ApplicationState,
    CloudFacts,
    Device,
    DiskFacts,
    Faults,
    Heard,
    Hook,
    HostFacts,
    Intent,
    Role,
    Self,
    Unknown,
    VolumeFacts,
)
from awsha.core.pacing import FIRST_LOOK_S, cloud_delay, device_moved, local_delay
from awsha.core.plan import plan
from awsha.core.policy import Group
from awsha.core.situation import HolderList, Memory, Past, Plan, Situation
from awsha.core.steps import (
    SCOPES,
    ClearReleasing,
    Detach,
    Failure,
    ListHolders,
    Outcome,
    Scope,
    Signal,
    Step,
    TagServing,
)

FRESH_S = 5.0  # older facts about EC2 do not permit a step: look first
RUN_GAP_S = 60.0  # runs of one kind of step are one series until their resource has had so long a rest
LOCAL_FRESH_S = 1.5
NEVER = float("inf")
CHECK_FRESH_S = 6.5  # a check program may take 5 s, and is the truth of the moment at which it was asked for
FRESH = {Scope.CLOUD: FRESH_S, Scope.APPLICATION: CHECK_FRESH_S}


@dataclass(frozen=True, slots=True)
class Ambient:
    """What is always at hand, read from memory or a small local file at every turn."""

    heard: Mapping[str, Heard] = field(default_factory=dict)
    keepalived_gone_since: float | None = None
    marks: frozenset[str] = frozenset()
    faults: Faults | None = None  # Turn.verdict.faults of the turn before, kept by the driver
    hooks: frozenset[Hook] = frozenset()


@dataclass(frozen=True, slots=True)
class Turn:
    """What the driver shall do now; the next turn is due at `wake_at` (boottime seconds) if nothing comes first."""

    read: tuple[Scope, ...]
    start: tuple[Step, ...]
    wake_at: float
    plan: Plan
    situation: Situation
    verdict: Verdict


class Loop:
    """One group on one node. Not thread-safe: one driver calls it."""

    def __init__(
        self,
        group: Group,
        me: Self,
        *,
        decide: Callable[[Situation], Plan] = plan,
        judge: Callable[[Situation, Plan, Verdict], Verdict] = verdict,
    ) -> None:
        """`decide` and `judge` stand to be exchanged by tests that prove that a wrong decision is noticed."""
        self.group = group
        self.me = me
        self._decide = decide
        self._judge_health = judge
        self.intent: Intent | None = None
        self.cloud = CloudFacts(UNREAD, UNREAD, UNREAD)
        self.disks: Mapping[str, DiskFacts] = {}
        self.vips: frozenset[str] | Unknown = UNREAD
        self.application: ApplicationState | Unknown | None = UNREAD if group.application else None
        self.memory = Memory()
        self.verdict = Verdict(True)
        self._judged = Verdict(True)  # before damping
        self._freshness = Freshness()
        self._running: dict[str, Step] = {}
        self._begun: dict[str, float] = {}  # when the steps under way began, by resource
        self._rested: dict[str, float] = {}  # when a resource's last rest ended
        self._first_look: float | None = None  # EC2 is not asked before: something was just set going

    # --- what goes in ---

    def set_intent(self, intent: Intent | None) -> None:
        """The newest recorded intent. A new role forgets what was waited for and looks at everything again."""
        if intent is self.intent or intent == self.intent:
            return
        if intent is None or self.intent is None or intent.role is not self.intent.role:
            self.memory = Memory(running=self.memory.running)
            self._first_look = None
        self.intent = intent
        self._freshness.changed(*SCOPES)

    def poke(self, *scopes: Scope) -> None:
        """Something happened (a kernel event, a wake-up): these facts may be old."""
        self._freshness.changed(*scopes)

    def read(self, scope: Scope, value: object, now: float) -> None:
        """The answer to a read that a turn asked for. A read asked for before a step ended says nothing after it."""
        if not self._freshness.answer(scope, now):
            if self._first_look is None:
                self._freshness.changed(scope)
            return
        if scope is Scope.CLOUD and isinstance(value, CloudFacts):
            self.cloud = value
            if not self.memory.had_vips and self.intent is not None and self.intent.role is Role.MASTER:
                here = addresses.on_eni(self.situation(now, 0.0, Ambient()))
                if not isinstance(here, Unknown) and here:
                    self.memory = replace(self.memory, had_vips=True)
        elif scope is Scope.DISKS and isinstance(value, dict):
            known = {} if value is self.disks else self.disks
            if known and self._first_look is None and _present(known) != _present(value):
                self._freshness.changed(Scope.CLOUD)  # a device has come or gone, perhaps by somebody else's doing
            self.disks = value
        elif scope is Scope.ADDRESSES and isinstance(value, frozenset | Unknown):
            self.vips = value
        elif scope is Scope.APPLICATION:
            self.application = value if isinstance(value, ApplicationState | Unknown) else None

    def finished(self, step: Step, outcome: Outcome, now: float) -> None:
        """A step ended. Whatever it says, the facts that it touches are looked at again."""
        memory, key, resource = self.memory, step.key, step.resource
        self._running.pop(resource, None)
        begun = self._begun.pop(resource, now)
        idle_since = max([p.at for (_, on), p in memory.past.items() if on == resource], default=begun)
        if begun - idle_since >= RUN_GAP_S:
            self._rested[resource] = begun
        before = memory.past.get(key)
        runs = before.runs + 1 if before is not None and before.at >= self._rested.get(resource, 0.0) else 1
        past = Past(step, now, outcome.ok, runs, outcome.failure, outcome.text, outcome.hint)
        memory = replace(memory, past={**memory.past, key: past}, running=frozenset(self._running))
        if isinstance(step, ListHolders) and isinstance(outcome.learned, tuple):
            memory = replace(memory, holders={**memory.holders, step.volume_id: HolderList(now, outcome.learned)})
        if isinstance(step, Signal) and not step.kill and step.volume_id not in memory.term_sent:
            memory = replace(memory, term_sent={**memory.term_sent, step.volume_id: now})
        self.memory = memory
        self._look_after(step, outcome, now)

    def _look_after(self, step: Step, outcome: Outcome, now: float) -> None:
        """What to read after a step: what it touched, at once; but EC2 only when something can have come of it."""
        fresh = self._freshness
        if Scope.CLOUD in step.touches:
            fresh.superseded(Scope.CLOUD)
        if outcome.ok and isinstance(outcome.learned, VolumeFacts):
            self._learn(outcome.learned)
            if isinstance(step, Detach) and fencing.is_gone(self.cloud, step.instance_id):
                # nobody has to let go there: it may be done already
                self._first_look = None
                fresh.changed(*step.touches)
                return
            self._first_look = now + FIRST_LOOK_S
            fresh.changed(*(step.touches - {Scope.CLOUD}))
        elif outcome.ok and isinstance(step, ClearReleasing | TagServing):
            self._learn_no_tag(step.volume_id)
        elif outcome.ok and step.touches == {Scope.CLOUD}:
            self._first_look = min(self._first_look or now + FIRST_LOOK_S, now + FIRST_LOOK_S)
        else:
            self._first_look = None if Scope.CLOUD in step.touches else self._first_look
            fresh.changed(*step.touches)
            if outcome.failure is Failure.REFUSED:
                fresh.changed(*(step.needs - {Scope.CLOUD}))  # the second look saw more than this loop knows

    def _learn(self, told: VolumeFacts) -> None:
        """EC2's own reply to AttachVolume or DetachVolume is a fact about that attachment, and about nothing else."""
        if isinstance(self.cloud.volumes, Unknown):
            return
        before = self.cloud.volumes.get(told.id, told)
        named = {a.instance_id for a in told.attachments}
        attachments = (*(a for a in before.attachments if a.instance_id not in named), *told.attachments)
        merged = replace(before, state=told.state, attachments=attachments)
        self.cloud = replace(self.cloud, volumes={**self.cloud.volumes, told.id: merged})

    def _learn_no_tag(self, volume_id: str) -> None:
        """Nothing waits for EC2 to show that a tag is gone: the next look will tell."""
        if isinstance(self.cloud.volumes, Unknown) or volume_id not in self.cloud.volumes:
            return
        without = replace(self.cloud.volumes[volume_id], releasing=None)
        self.cloud = replace(self.cloud, volumes={**self.cloud.volumes, volume_id: without})

    # --- what comes out ---

    def looks_at_once(self) -> bool:
        """Whether the next turn will ask for facts because they may have changed, not because it is time."""
        read = (scope for scope in SCOPES if scope is not Scope.APPLICATION or self.group.application)
        return any(fact.stale and not fact.asked for fact in map(self._freshness.of, read))

    def turn(self, now: float, wall: float, ambient: Ambient) -> Turn:
        """Decide at this moment. The reads and steps in the answer count as under way from here on."""
        situation = self.situation(now, wall, ambient)
        decided = self._decide(situation)
        start = tuple([step for step in decided.steps if self._fresh_for(step, now)])
        for step in start:
            self._running[step.resource] = step
            self._begun[step.resource] = now
        self._remember(decided, bool(start))
        self._judge(situation, decided, now)
        wake_at = NEVER
        for reason in decided.reasons:
            if reason.until is not None and now < reason.until < wake_at:
                wake_at = reason.until
        read: list[Scope] = []
        for scope in SCOPES:
            at = self._next_read(scope, decided, now)
            if at is None:
                continue
            if at <= now:
                read.append(scope)
            elif at < wake_at:
                wake_at = at
        for scope in read:
            self._freshness.ask(scope, now)
        wake_at = now + 1.0 if wake_at == NEVER else wake_at
        return Turn(tuple(read), start, wake_at, decided, situation, self.verdict)

    @property
    def running(self) -> tuple[Step, ...]:
        """Steps under way."""
        return tuple(self._running.values())

    def situation(self, now: float, wall: float, ambient: Ambient) -> Situation:
        """Everything that is known at this moment."""
        host = HostFacts(
            self.disks,
            self.vips,
            self.application,
            ambient.heard,
            ambient.keepalived_gone_since,
            ambient.marks,
            ambient.faults,
            ambient.hooks,
        )
        return Situation(self.group, self.me, self.intent, self.cloud, host, now, wall, self.memory)

    def _fresh_for(self, step: Step, now: float) -> bool:
        """Whether everything that the step relies on was read since it last changed, and lately."""
        permitted = True
        for scope in step.needs:
            if scope is Scope.APPLICATION and self.group.application is None:
                continue  # never read
            if not self._freshness.permits(scope, now, FRESH.get(scope, LOCAL_FRESH_S)):
                permitted = False
                fact = self._freshness.of(scope)
                if not fact.asked and not fact.stale:
                    self._freshness.changed(scope)
        return permitted

    def _remember(self, decided: Plan, started: bool) -> None:
        """Since when each condition stands, and what is under way; mostly that is what it was."""
        before = self.memory
        if started or decided.standing != before.since:
            self.memory = replace(before, since=decided.standing, running=frozenset(self._running))

    def _judge(self, situation: Situation, decided: Plan, now: float) -> None:
        """The verdict, which stands longer each time that this node has failed as master."""
        self._judged = self._judge_health(situation, decided, self._judged)
        self.verdict = damped(self._judged, self.verdict, situation.host.faults, self.group, now)

    def _next_read(self, scope: Scope, decided: Plan, now: float) -> float | None:
        """When a kind of fact is to be read next; None: a read is under way, or there is nothing to read."""
        fact = self._freshness.of(scope)
        if fact.asked or (scope is Scope.APPLICATION and self.group.application is None):
            return None
        if fact.stale:
            return now
        if scope is not Scope.CLOUD:
            return fact.read_at + local_delay(scope, decided.reasons)
        at = fact.read_at + cloud_delay(decided.reasons, decided.done, self.memory, now)
        if self._first_look is not None and not device_moved(decided.reasons, self.memory):
            at = max(at, self._first_look)
        if at <= now:
            self._first_look = None
        return at


def _present(disks: Mapping[str, DiskFacts]) -> frozenset[str]:
    """The volumes that have a device here."""
    return frozenset(volume_id for volume_id, disk in disks.items() if isinstance(disk.device, Device))
