"""How this node's groups are, said to the peers: the tag `awsha:status` on its own instance (ADR 0008).

Written when a word has changed and stays so, never in a takeover's way: it waits until things have settled, and nothing
waits for it. What a standby says stands until it says something else, so whoever reads it tells when it was said.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

from awsha.agent.assembly import Node
from awsha.aws.errors import Ec2Error, Kind
from awsha.aws.facts import STATUS_TAG, said_value
from awsha.core.loop import Turn
from awsha.core.model import Said
from awsha.core.readiness import word
from awsha.core.situation import Code
from awsha.host.clock import boottime

LOOK_S = 10.0  # at what the loops know: no request, no read
SETTLED_S = 15.0  # a word that is new may be of a transition: it is said when it stays
BETWEEN_S = 60.0  # from one try to write to the next
DENIED_S = 600.0  # when the role lacks the permission
PASSING = frozenset({Code.LOOKING.value, Code.CLOUD_UNKNOWN.value})  # not worth a tag, or none could be written


class Saying:
    """Says it. One thread calls `look`."""

    def __init__(self, node: Node, turns: Callable[[], Iterable[Turn]], say: Callable[[str], None]) -> None:
        """`turns`: the last turn of each group's loop. `say`: what is to be logged."""
        self._node = node
        self._turns = turns
        self._say = say
        self._known: dict[str, tuple[tuple[object, ...], str]] = {}  # by group: what a word is of, and the word
        self._seen: tuple[tuple[str, str], ...] = ()
        self._since = 0.0
        self._said: tuple[tuple[str, str], ...] | None = None
        self._not_before = 0.0
        self._failing = False

    def start(self, stop: threading.Event) -> None:
        """Look until `stop`; ends with the process."""

        def keep_looking() -> None:
            while not stop.wait(LOOK_S):
                try:
                    self.look(boottime(), time.time())
                except Exception as error:  # noqa: BLE001  no word is worth an agent
                    self._fails(f"{type(error).__name__}: {error}")

        threading.Thread(target=keep_looking, name="say", daemon=True).start()

    def look(self, now: float, wall: float) -> None:
        """Write the tag if it is time to. `now`: boottime seconds; `wall`: Unix seconds."""
        words = tuple((turn.situation.group.name, self._word(turn)) for turn in self._turns())
        if words != self._seen:
            self._seen, self._since = words, now
        paused = any(word == Code.PAUSED for _, word in words)  # an operator's, and no passing one
        settled = (paused or now - self._since >= SETTLED_S) and now >= self._not_before
        if not words or words == self._said or not settled or any(word in PASSING for _, word in words):
            return
        self._not_before = now + BETWEEN_S
        own = next(iter(self._node.places.values())).me.instance_id
        tag = {"Key": STATUS_TAG, "Value": said_value(Said(wall, words))}
        try:
            self._node.ec2.ask("CreateTags", {"Resources": [own], "Tags": [tag]})
        except Ec2Error as error:
            self._fails(f"{error.message} (hint: {error.hint})")
            self._not_before = now + (DENIED_S if error.kind is Kind.DENIED else BETWEEN_S)
            return
        self._said, self._failing = words, False

    def _word(self, turn: Turn) -> str:
        """The word for one group; a plan is rehearsed for it only when something has changed that it depends on."""
        s, host = turn.situation, turn.situation.host
        plain = (turn.plan.goal, turn.plan.ready, turn.verdict.ok, s.intent, s.me, s.cloud, host.disks, host.vips)
        now = (*plain, host.marks, host.faults, host.keepalived_gone_since, frozenset(host.heard))
        known = self._known.get(s.group.name)
        if known is None or known[0] != now:
            known = self._known[s.group.name] = (now, word(s, turn.plan, turn.verdict))
        return known[1]

    def _fails(self, why: str) -> None:
        if not self._failing:
            self._say(f"the peers are not told how this node is: {why}")
        self._failing = True
