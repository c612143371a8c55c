"""Never a traceback: whatever a file holds, the answer is a policy or problems that a person can act on."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from awsha.config.load import examine, parse
from awsha.config.problems import ConfigError
from awsha.core.policy import Policy
from tests.core.test_config_load import GOOD, SECOND

WORDS = [
    "node",
    "group",
    "volume",
    "application",
    "timeouts",
    "name",
    "address",
    "vips",
    "id",
    "tags",
    "mount",
    "unit",
    "start",
    "stop",
    "check",
    "priority",
    "priorities",
    "virtual_router_id",
    "advert_int",
    "fence",
    "handover_s",
    "region",
    "x.y",
    "",
]
LEAVES = st.one_of(
    st.text(max_size=8),
    st.integers(),
    st.floats(),
    st.booleans(),
    st.dates(),
    st.times(),
    st.datetimes(),
    st.sampled_from(["10.0.0.10", "10.0.0.100", "a", "/srv/data", "vol-0123456789abcdef0", "x.service", 10**400]),
)
ANYTHING = st.recursive(
    LEAVES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), inner, max_size=5)
    ),
    max_leaves=20,
)


def examined(raw: dict[str, Any]) -> None:
    try:
        assert isinstance(examine(raw, "f", {}), Policy)
    except ConfigError as error:
        assert error.problems
        for problem in error.problems:
            assert problem.key
            assert problem.hint
            assert "cannot be read (" not in problem.reason, "no check may fail by accident"
            assert "\n" not in problem.reason


@settings(max_examples=300, deadline=None)
@given(st.dictionaries(st.sampled_from(WORDS) | st.text(max_size=4), ANYTHING, max_size=6))
def test_anything_is_a_policy_or_problems(raw: dict[str, Any]) -> None:
    examined(raw)


@settings(max_examples=400, deadline=None)
@given(st.data())
def test_a_good_file_with_one_thing_changed(data: st.DataObject) -> None:
    raw = tomllib.loads(GOOD + SECOND)
    here: Any = raw
    while True:
        keys = list(here) if isinstance(here, dict) else list(range(len(here)))
        key = data.draw(st.sampled_from(keys))
        if not isinstance(here[key], dict | list) or not here[key] or data.draw(st.booleans()):
            break
        here = here[key]
    change = data.draw(st.sampled_from(["replace", "delete", "add"]))
    if change == "replace":
        here[key] = data.draw(ANYTHING)
    elif change == "delete":
        del here[key]
    elif isinstance(here, dict):
        here[data.draw(st.sampled_from(WORDS))] = data.draw(ANYTHING)
    else:
        here.append(data.draw(ANYTHING))
    examined(raw)


@settings(max_examples=200, deadline=None)
@given(st.text(max_size=60))
def test_any_text(text: str) -> None:
    with pytest.raises(ConfigError):
        parse(text, "f")
