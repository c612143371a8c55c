"""To whom a planned switchover goes, and when it is not begun: nobody there would serve."""

from __future__ import annotations

from dataclasses import replace

import pytest

from awsha.core.model import InstanceFacts, InstanceState, Said
from awsha.core.readiness import READY, SERVING
from awsha.core.successors import OUT, peers, refusals
from tests.core.situations import GROUP, ME, WALL, B

C = "i-0000000000000000c"


def why(words: dict[str, str | None], to: str | None = None) -> list[str]:
    """The reasons against it, when b and c said this three minutes ago; a word in capitals is a state by EC2."""
    found = {}
    for name, word in words.items():
        state = InstanceState(word.lower()) if word and word.isupper() else InstanceState.RUNNING
        said = Said(WALL - 180, (("data", word),)) if word and not word.isupper() else None
        found[{"b": B, "c": C}[name]] = InstanceFacts({"b": B, "c": C}[name], state, said=said)
    me = replace(ME, peers={{"b": B, "c": C}[name]: name for name in words})
    return refusals(peers(GROUP, me, found, WALL), to)


@pytest.mark.parametrize("word", [READY, SERVING, None, "fence-none", "holder-never-heard"])
def test_a_peer_that_would_serve_what_is_let_go_gets_it(word: str | None):
    assert why({"b": word}) == []
    assert why({"b": word}, "b") == []


@pytest.mark.parametrize("word", ["paused", "released", "fenced", "damped", "stop", "mount-point-busy", "host-unknown"])
def test_a_peer_that_said_that_it_is_not_ready_gets_nothing(word: str):
    assert why({"b": word}) == why({"b": word}, "b") == [f"b is not ready: 3 min ago it said {word}"]


def test_no_peer_that_runs():
    assert why({"b": "STOPPED"}) == ["b is stopped"]
    assert why({"b": "STOPPED", "c": "released"}) == ["b is stopped", "c is not ready: 3 min ago it said released"]
    assert refusals(peers(GROUP, ME, {}, WALL), None) == ["b is missing"]


def test_one_of_two_peers_is_enough_unless_vrrp_may_choose_the_other():
    assert why({"b": READY, "c": "released"}) == why({"b": READY, "c": "STOPPED"}) == []
    assert why({"b": READY, "c": "paused"}) == ["c is not ready: 3 min ago it said paused"]


@pytest.mark.parametrize("out", [*sorted(OUT), "STOPPED"])
def test_a_peer_gets_it_when_no_other_competes(out: str):
    assert why({"b": out, "c": READY}, "c") == []


@pytest.mark.parametrize("word", [READY, None, "paused"])
def test_a_peer_is_not_promised_what_vrrp_may_give_to_another(word: str | None):
    assert why({"b": word, "c": READY}, "c") == ["VRRP may choose b: there run awsha release first"]
