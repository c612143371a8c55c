"""awsha's process on a node: the real loop, driven as agent/converge.py drives it, by the scheduler."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from awsha.core.fencing import heard_next
from awsha.core.loop import Ambient, Loop, Turn
from awsha.core.model import CloudFacts, Heard, Intent, Role
from awsha.core.situation import Code
from awsha.core.steps import Outcome, Scope, Step
from tests.sim.hands import Hands

if TYPE_CHECKING:
    from tests.sim.node import Node

LOCAL = (Scope.DISKS, Scope.ADDRESSES, Scope.APPLICATION)
BEFORE = Heard(0.0, 0)  # awsha/agent/hearing.py: heard since boot, but before this process listened
ADVERT_LOOK_S = 1.0  # awsha/agent/service.py
LOCK_LOOK_S = 0.1
DOZE_MOST_S = 3.0
HEARD_MARK = "heard-"
QUIET = frozenset(
    {
        Code.FENCED,
        Code.RELEASED,
        Code.PAUSED,
        Code.NO_INTENT,
        Code.MULTI_ATTACH,
        Code.TWO_ATTACHMENTS,
        Code.FENCE_NONE,
        Code.HOLDER_NEVER_HEARD,
        Code.DETACH_REQUESTED,
    }
)  # fmt: skip  reasons with which a node may rest


class Agent:
    """The service, or (`once`) the `awsha converge` that a notify starts when no service answers."""

    __deletable__ = ("hands",)  # a word to mypyc: end() takes it away
    __slots__ = (
        "_asked", "_cloud_exact", "_cloud_seen", "_deadline", "_gone", "_held", "_looked", "_patient",
        "_reading", "_seen", "_turn_due", "_wake", "dead", "dozes_s", "events", "facts_at", "hands", "health",
        "heard", "last", "loop", "node", "once", "quiet",
    )  # fmt: skip

    def __init__(self, node: Node, loop: Loop, once: bool = False) -> None:
        self.node = node
        self.loop = loop
        self.once = once
        self.hands = Hands(self)
        self.dead = False
        self.events: list[tuple[str, Any, Any]] = []
        self.heard = {m[len(HEARD_MARK) :]: BEFORE for m in sorted(node.marks) if m.startswith(HEARD_MARK)}
        self.last: Turn | None = None
        self.health: bool | None = None
        self.quiet = False  # nothing under way, nothing to do
        self._asked: dict[Scope, float] = {}
        self.facts_at: dict[Scope, float] = {}  # when the newest answer was asked for
        self._patient = False  # no step waits for a read
        self.dozes_s = 0.0  # polls that can show nothing new are left out; this was the time between them
        self._held: list[list[tuple[Scope, ...]]] = []  # long reads
        self._cloud_exact = False
        self._deadline = float("inf")  # of a one-shot
        self._gone: dict[tuple[int, int], float] = {}
        self._looked = 0.0
        self._turn_due = False
        self._wake = 0
        self._reading = 0
        self._cloud_seen = -1
        self._seen = dict.fromkeys(LOCAL, -1)  # what the last look at each kind of local facts showed

    def begin(self) -> None:
        """Take the group's lock, then turn; a service waits for it, a one-shot leaves it to whoever has it."""
        if self.dead:
            return
        node = self.node
        if node.lock is not None and not node.lock.dead and node.world.wiring.lock:
            if self.once:
                self.dead = True
            else:
                node.after(LOCK_LOOK_S, self.begin)
            return
        node.lock = self
        limit = self.loop.group.timeouts
        budget = max(limit.acquire_s, limit.stop_s + limit.unmount_s + limit.handover_s)  # awsha/agent/once.py
        self._deadline = node.time() + budget if self.once else float("inf")
        self.soon()

    # --- events ---

    def poke(self, *scopes: Scope) -> None:
        """Something happened."""
        self.events.append(("poke", scopes, None))
        self.soon()

    def soon(self) -> None:
        """Turn after whatever else comes within the next moment."""
        if not self._turn_due and not self.dead:
            self._turn_due = True
            self.quiet = False
            chance = self.node.world.chance()
            self.node.after(0.002 * chance if chance < 0.5 else 0.05 * (chance - 0.4), self._turn)

    def hear(self, name: str, priority: int) -> None:
        """An advert of a peer (awsha/agent/service.py: Agent._heard)."""
        now = self.node.time()
        if name not in self.heard:
            self.node.put_mark(HEARD_MARK + name)
        advert_int = self.loop.group.advert_int
        self.heard = {**self.heard, name: heard_next(self.heard.get(name), now, priority, advert_int)}
        if priority > 0:
            self.node.world.watch.heard(self.node, name)
        intent = self.loop.intent
        if priority > 0 and intent is not None and intent.role is Role.MASTER and now - self._looked > ADVERT_LOOK_S:
            self._looked = now
            self.poke(Scope.CLOUD, Scope.DISKS)

    def finished(self, step: Step, outcome: Outcome) -> None:
        """A step ended."""
        self.events.append(("finished", step, outcome))
        self.soon()

    # --- turns ---

    def _turn(self) -> None:
        if self.dead:
            return
        self._turn_due = False
        node, loop = self.node, self.loop
        if node.lock is not self and node.world.wiring.lock:
            return
        now = node.time()
        self._take(now)
        intent = node.newest()
        if intent is not loop.intent and intent != loop.intent:
            node.world.tell(node.name, f"intent: {loop.intent.role if loop.intent else None} -> "
                            f"{intent.role if intent else None}")  # fmt: skip
            self._end_holds()
        loop.set_intent(intent)
        turn = loop.turn(now, node.wall(), self.ambient(now))
        self.last = turn
        node.faults = turn.verdict.faults
        world = node.world
        world.steps += 1
        if world.trace is not None:
            world.trace.plan(world.now, node.name, turn.plan)
        if turn.verdict.ok is not self.health:
            self.health = turn.verdict.ok
            node.write_health(turn.verdict)
        self._read(turn)
        for step in turn.start:
            self.hands.start(step, intent)
        if self._held and len(turn.start) < len(turn.plan.steps):
            self._end_holds()  # a step waits for fresh facts
        self._rest(turn, now)

    def _take(self, now: float) -> None:
        events, self.events = self.events, []
        loop = self.loop
        for kind, what, value in events:
            if kind == "read":
                self._feed(what, value, now)
                continue
            if kind == "finished":
                loop.finished(what, value, now)
            else:
                loop.poke(*what)
            self._end_holds()

    def ambient(self, now: float) -> Ambient:
        """What is at hand without a read."""
        node = self.node
        gone = self._gone_since(self.loop.intent, now)
        return Ambient(self.heard, gone, node.marks, node.faults, node.world.wiring.hooks)

    def _gone_since(self, intent: Intent | None, now: float) -> float | None:
        """awsha/agent/keepalived.py: when the keepalived that ran the notify was first seen to be gone."""
        process = intent.keepalived if intent else None
        if process is None or (self.node.keepalived.alive and self.node.keepalived.id == process):
            return None
        return self._gone.setdefault(process, now)

    def _rest(self, turn: Turn, now: float) -> None:
        """Wait for the time that the turn named. A rested node skips looks that can show nothing new."""
        node, plan = self.node, turn.plan
        self._patient = len(turn.start) == len(plan.steps)
        damped = turn.verdict.until is not None
        converged = self.once and plan.done and not self.loop.running and not damped and self._heard_enough(now)
        if converged or (now > self._deadline and not damped):
            self._leave()
            return
        self._wake += 1
        self.dozes_s = 0.0
        wait = turn.wake_at - now
        if self._come_to_rest():
            until = [r.until - now for r in plan.reasons if r.until is not None and r.until > now]
            wait = max(wait, min(until, default=30.0 if plan.done else 5.0))
        elif self._nothing_new():
            until = [r.until for r in plan.reasons if r.until is not None and r.until > now]
            self.dozes_s = max(wait, 0.001)
            wait = max(wait, min(*until, now + DOZE_MOST_S) - now if until else DOZE_MOST_S)
        node.after(max(wait, 0.001), self._waken, self._wake)

    def _come_to_rest(self) -> bool:
        """Whether nothing is under way and nothing is to be done."""
        plan = self.last.plan if self.last else None
        self.quiet = (
            plan is not None
            and not (self.events or plan.steps or self._reading > len(self._held) or self.loop.running)
            and (plan.done or all(reason.code in QUIET for reason in plan.reasons))
        )
        if self.quiet:
            self.node.world.maybe_settled()
        return self.quiet

    def _nothing_new(self) -> bool:
        """Whether the last looks showed the truth, which has not changed: a poll would only cost time."""
        node = self.node
        return (
            self._reading == len(self._held)
            and self._cloud_exact
            and self._cloud_seen == node.world.cloud.version
            and self._seen == node.versions
        )  # fmt: skip

    def _waken(self, wake: int) -> None:
        if wake == self._wake and not self.dead and not self._turn_due:
            self._turn()

    def _heard_enough(self, now: float) -> bool:
        """awsha/agent/once.py: a backup listens until it has heard a master once, or long enough."""
        intent = self.loop.intent
        if self.last is None or self.last.plan.goal != "release" or self.heard or intent is None:
            return True
        return now - intent.recorded_at > 4 * self.loop.group.advert_int

    def _leave(self) -> None:
        """A one-shot ends; what came meanwhile is taken up by another."""
        self.kill()
        self.node.one_shot_ended(self)

    # --- reads ---

    def _read(self, turn: Turn) -> None:
        """Set the reads going: they answer at their own times, and may show what was true a moment before.

        A read that could only repeat what is known is a long one: it ends soon after something changes.
        """
        wanted = turn.read
        if not wanted:
            return
        now = self.node.time()
        for scope in wanted:
            self._asked[scope] = now
        node, world = self.node, self.node.world
        chance = world.chance()
        if Scope.CLOUD in wanted:
            self._reading += 1
            if self._cloud_exact and self._cloud_seen == world.cloud.version:
                self._long((Scope.CLOUD,), self._hold_s(turn, chance))
            elif chance < 0.1:
                node.after(0.02 + chance, self._deliver_cloud, world.cloud.look(node))
            else:
                node.after(0.01 + 0.05 * chance, self._deliver_cloud, None)
            if len(wanted) == 1:
                return
        local = tuple(scope for scope in LOCAL if scope in wanted)
        self._reading += 1
        if all(self._seen[scope] == node.versions[scope] for scope in local):
            self._long(local, self._hold_s(turn, chance))
        elif chance < 0.05:
            node.after(chance, self._deliver_local, local, tuple(node.look(s) for s in local))
        elif chance < 0.2 and len(local) > 1:
            self._reading += 1
            node.after(0.001, self._deliver_local, local[:1], None)
            node.after(0.05 * chance, self._deliver_local, local[1:], None)
        else:
            node.after(0.001 + 0.01 * chance, self._deliver_local, local, None)

    def _hold_s(self, turn: Turn, chance: float) -> float:
        return 60.0 if turn.plan.done else DOZE_MOST_S * (0.3 + chance)

    def _long(self, scopes: tuple[Scope, ...], most_s: float) -> None:
        """A read that ends when something changes, or after `most_s`."""
        held = [scopes]
        self._held.append(held)
        self.node.after(most_s, self._end_long, held)

    def _end_long(self, held: list[tuple[Scope, ...]]) -> None:
        if held and not self.dead:
            scopes = held.pop()
            self._held.remove(held)
            if scopes[0] is Scope.CLOUD:
                self._deliver_cloud(None)
            else:
                self._deliver_local(scopes, None)

    @property
    def waits(self) -> bool:
        """Whether something of it waits for a change."""
        return bool(self.dozes_s or self._held)

    def stir(self) -> None:
        """Something changed while polls were left out or long: the next look shows it."""
        self._end_holds()
        if self.dozes_s:
            self._wake += 1
            wait, self.dozes_s = self.dozes_s * self.node.world.chance(), 0.0
            self.node.after(wait, self._waken, self._wake)

    def _end_holds(self) -> None:
        chance = self.node.world.chance()
        for held in self._held:
            self.node.after((0.2 if held[0][0] is Scope.CLOUD else 0.03) * chance, self._end_long, held)

    def _deliver_cloud(self, value: CloudFacts | None) -> None:
        if self.dead:
            return
        self._reading -= 1
        world = self.node.world
        if value is None:
            value = world.cloud.look(self.node)
            self._cloud_seen, self._cloud_exact = world.cloud.version, world.cloud.exact
        self._answer(((Scope.CLOUD, value),))

    def _deliver_local(self, scopes: tuple[Scope, ...], values: tuple[object, ...] | None) -> None:
        if self.dead:
            return
        self._reading -= 1
        node = self.node
        if values is None:
            values = tuple([node.look(scope) for scope in scopes])
            for scope in scopes:
                self._seen[scope] = node.versions[scope]
        self._answer(tuple([(scope, values[place]) for place, scope in enumerate(scopes)]))

    def _answer(self, answers: tuple[tuple[Scope, object], ...]) -> None:
        """Reads have ended. When they show what is known already and no step waits for them, the next turn is early
        enough: it could only decide the same again."""
        if self._patient and not self.events and all(self._known(scope, value) for scope, value in answers):
            for scope, value in answers:
                self._feed(scope, value, self.node.time())
            if not self._turn_due:
                self._come_to_rest()
            return
        self.events += [("read", scope, value) for scope, value in answers]
        self.soon()

    def _feed(self, scope: Scope, value: object, now: float) -> None:
        self.facts_at[scope] = self._asked.get(scope, now)
        self.loop.read(scope, value, now)
        if scope is Scope.DISKS:
            for volume_id, disk in self.loop.disks.items():
                if disk.stale:
                    self.node.world.watch.saw_lost_disk(self.node, volume_id)

    def _known(self, scope: Scope, value: object) -> bool:
        loop = self.loop
        if scope is Scope.CLOUD:
            return value == loop.cloud
        if scope is Scope.DISKS:
            return value == loop.disks
        return value == (loop.vips if scope is Scope.ADDRESSES else loop.application)

    # --- its end ---

    def end(self) -> None:
        """Take it apart (World.end)."""
        del self.hands

    def kill(self) -> None:
        """SIGKILL: the loop is lost; programs under way are over in a moment, one way or the other."""
        self.dead = True
        if self.node.lock is self:
            self.node.lock = None
        self.hands.orphan()
