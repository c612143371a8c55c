"""The simulation can fail: each of these deliberately wrong nodes is caught, by a rule that fits what is wrong."""

from __future__ import annotations

import pytest

from tests.sim.mutants import ALL, Mutant, caught
from tests.sim.schedule import run

SEED = 77


@pytest.mark.parametrize("mutant", ALL, ids=[mutant.name for mutant in ALL])
def test_a_wrong_node_is_caught(mutant: Mutant):
    assert caught(mutant, SEED) is not None, f"{mutant.name}: {mutant.wrong}: nothing noticed it"


@pytest.mark.parametrize("mutant", [m for m in ALL if m.favour], ids=lambda mutant: mutant.name)
def test_the_real_node_passes_what_such_a_mutant_fails_in(mutant: Mutant):
    results = [run(SEED, index, favour=mutant.favour) for index in range(300)]
    assert [(r.index, r.rule, r.text) for r in results if r.rule] == []


def test_there_are_enough_of_them():
    assert len({mutant.name for mutant in ALL}) == len(ALL) >= 15
