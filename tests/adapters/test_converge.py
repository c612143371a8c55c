"""When the agent decides anew: on news, and not for a look that shows what is known."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from awsha import notify
from awsha.agent.converge import Converger, _Read
from awsha.agent.journal import Journal
from awsha.core.loop import Loop
from awsha.core.model import ApplicationState, Intent
from awsha.core.steps import Outcome, Scope, Step
from tests.adapters.hands import Hands
from tests.adapters.one_node import PATIENCE_S
from tests.core.situations import ABSENT, GROUP, ME, PRESENT, VOL, B, cloud, volume

HELD_BY_B = cloud(volume((B, "attached")), "b")


@dataclass
class Resting(Hands):
    """Hands of a standby at rest."""

    facts: dict[Scope, object] = field(
        default_factory=lambda: {
            Scope.CLOUD: HELD_BY_B,
            Scope.DISKS: {VOL: ABSENT},
            Scope.ADDRESSES: frozenset[str](),
            Scope.APPLICATION: ApplicationState.STOPPED,
        }
    )

    def run(self, step: Step, _planned: Intent | None) -> Outcome:
        raise AssertionError(f"nothing is to be done: {step}")


@pytest.fixture
def resting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Converger:
    monkeypatch.setenv("AWSHA_RUN_DIR", str(tmp_path))
    notify.record("backup", "data")
    found = Converger(Loop(GROUP, ME), Resting(), Journal(), lambda _: None)  # type: ignore[arg-type]
    next(turn for turn in found.turns() if turn.plan.done and not turn.read)
    return found


def test_at_rest_a_look_that_shows_what_is_known_is_no_news(resting: Converger):
    loop = resting.loop
    for scope, known, other in (
        (Scope.ADDRESSES, frozenset(), frozenset({"10.0.0.100"})),
        (Scope.APPLICATION, ApplicationState.STOPPED, ApplicationState.RUNNING),
        (Scope.CLOUD, HELD_BY_B, cloud(volume((B, "attached")), "a")),
        (Scope.DISKS, {VOL: ABSENT}, {VOL: PRESENT}),  # the last: a device that comes has EC2 asked
    ):
        assert not resting._take(_Read(scope, known)), scope
        assert resting._take(_Read(scope, other)), scope
        loop.read(scope, known, 0.0)
    resting.close(PATIENCE_S)


def test_what_happens_while_a_look_is_under_way_is_looked_at_when_it_ends(resting: Converger):
    resting.loop.poke(Scope.DISKS)
    assert Scope.DISKS in resting.turn().read
    resting.loop.poke(Scope.DISKS)
    while not isinstance(event := resting._events.get(timeout=PATIENCE_S), _Read) or event.scope is not Scope.DISKS:
        resting._take(event)
    assert resting._take(event), "it is asked for again at once"
    assert Scope.DISKS in resting.turn().read
    resting.close(PATIENCE_S)
