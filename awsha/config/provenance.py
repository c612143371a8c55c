"""Every effective value with where it came from: a line of the file, the environment, or a default."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from awsha.config.lines import line_of
from awsha.config.load import Loaded
from awsha.config.paths import run_dir, state_dir
from awsha.config.problems import Key, key_text
from awsha.config.schema import Table, toml_name
from awsha.core.policy import Application, Discover, Group, Metrics, Node, Notify, Policy, Timeouts, Volume, priority

Record = Policy | Node | Group | Volume | Application | Timeouts | Discover | Metrics | Notify
REGION_VARIABLES = ("AWS_REGION", "AWS_DEFAULT_REGION")
# What it means that a value is not set.
UNSET: Mapping[tuple[type, str], str] = {
    (Metrics, "textfile"): "none is written",
    (Notify, "sns_topic"): "no topic",
    (Policy, "region"): "asked from instance metadata",
    (Policy, "command"): "the awsha that generates keepalived.conf",
    (Node, "instance_id"): "found by the address",
    (Group, "interface"): "the interface that holds the node's address",
    (Volume, "fstype"): "read from the device",
}


@dataclass(frozen=True, slots=True)
class Value:
    """One effective value. `source`: `file`, `environment`, `default`, or `found` by [discover]; `line` only with
    `file`."""

    section: str  # `group "data"`, for a person
    key: str  # `group[0].timeouts.handover_s`
    name: str  # `timeouts.handover_s`
    value: Any  # as JSON has it; None: not set
    source: str
    line: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class _Place:
    """One table of the file, the record that it filled, and what a person calls the section around it."""

    loaded: Loaded
    key: Key
    table: Table
    section: str

    def value(self, record: Record, attribute: str) -> Value:
        """One attribute of the record as a Value."""
        kind, value = type(record), getattr(record, attribute)
        word = toml_name(kind, attribute)
        place: Key = (*self.key, word)
        name = key_text(place[2:] or place)  # without the table and its number, which the section tells
        note = UNSET.get((kind, attribute), "") if value is None else ""
        written = word in self.table
        line = line_of(self.loaded.places, place) if written else None
        return Value(self.section, key_text(place), name, _plain(value), "file" if written else "default", line, note)

    def values(self, record: Record, without: tuple[str, ...] = ()) -> Iterator[Value]:
        """Every attribute of the record, in its own order."""
        return (self.value(record, field.name) for field in dataclasses.fields(record) if field.name not in without)

    def below(self, *words: str | int) -> _Place:
        """A table inside this one; empty when the file has none."""
        table: Any = self.table
        for word in words:
            table = table[word] if isinstance(word, int) else table.get(word, {})
        return _Place(self.loaded, (*self.key, *words), table, self.section)


def values(loaded: Loaded, environ: Mapping[str, str]) -> list[Value]:
    """All of them, in the order of the file. `environ` is looked at, not changed."""
    policy = loaded.policy
    top = _Place(loaded, (), loaded.raw, "general")
    found = [top.value(policy, "region"), top.value(policy, "command"), *_environment(environ)]
    found[2:2] = [*top.below("metrics").values(policy.metrics), *top.below("notify").values(policy.notify)]
    region = next((word for word in REGION_VARIABLES if environ.get(word)), None)
    if policy.region is None and region:
        found[0] = Value("general", "region", "region", environ[region], "environment", note=region)
    if policy.discover is not None:
        found += top.below("discover").values(policy.discover)
    for index, node in enumerate(policy.nodes):
        place = dataclasses.replace(top.below("node", index), section=f'node "{node.name}"')
        for item in place.values(node):
            ordered = item.name == "priority" and item.source == "default"
            if ordered:
                item = dataclasses.replace(item, note="by order of the nodes")  # noqa: PLW2901
            elif policy.discover is not None and item.source == "file":
                item = dataclasses.replace(item, source="found", line=None, note="by [discover]")  # noqa: PLW2901
            found.append(item)
    for index, group in enumerate(policy.groups):
        place = dataclasses.replace(top.below("group", index), section=f'group "{group.name}"')
        found += _group(place, group)
    return found


def _environment(environ: Mapping[str, str]) -> Iterator[Value]:
    for word, default in (("AWSHA_RUN_DIR", run_dir({})), ("AWSHA_STATE_DIR", state_dir({}))):
        given = environ.get(word)
        yield Value("general", word, word, given or str(default), "environment" if given else "default")
    for word in ("AWS_ENDPOINT_URL", "AWS_EC2_METADATA_SERVICE_ENDPOINT"):
        if environ.get(word):
            yield Value("general", word, word, environ[word], "environment")


def _group(place: _Place, group: Group) -> Iterator[Value]:
    yield from place.values(group, ("volumes", "application", "timeouts", "priorities"))
    policy, places = place.loaded.policy, place.loaded.places
    for node in policy.nodes:
        key: Key = (*place.key, "priorities", node.name)
        own = node.name in dict(group.priorities)
        yield Value(
            place.section,
            key_text(key),
            f"priorities.{node.name}",
            priority(policy, group, node),
            "file" if own else "default",
            line_of(places, key) if own else None,
            "" if own else f'of node "{node.name}"',
        )
    for index, volume in enumerate(group.volumes):
        yield from place.below("volume", index).values(volume, ("tags",) if volume.id else ("id",))
    application = group.application
    if application is None:
        key = (*place.key, "application")
        yield Value(place.section, key_text(key), "application", None, "default", note="none")
    else:
        yield from place.below("application").values(
            application, ("start", "stop", "check") if application.unit else ("unit",)
        )
    yield from place.below("timeouts").values(group.timeouts)


def _plain(value: object) -> object:
    if isinstance(value, tuple) and value and isinstance(value[0], tuple):
        return dict(value)
    if isinstance(value, tuple):
        return list(value)
    return str(value) if isinstance(value, str) else value
