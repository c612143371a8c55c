"""Parsed TOML to the frozen records of `awsha.core.policy`, strictly, and every misfit as a problem.

cattrs does the walking: unknown keys, missing keys and each field's own check are collected, not raised one by one.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache
from typing import Any, get_args, get_origin

from cattrs import (
    AttributeValidationNote,
    ClassValidationError,
    Converter,
    ForbiddenExtraKeysError,
    IterableValidationError,
    IterableValidationNote,
)
from cattrs.gen import make_dict_structure_fn, override

from awsha.config import fields
from awsha.config.problems import InvalidValueError, Key, did_you_mean, shown
from awsha.core.policy import (
    Application,
    Discover,
    Fence,
    Fsck,
    Group,
    Metrics,
    Node,
    Notify,
    OpenFiles,
    Policy,
    Timeouts,
    Volume,
)

Table = dict[str, Any]
# a record after those inside it
RECORDS: tuple[type, ...] = (Node, Volume, Application, Timeouts, Group, Discover, Metrics, Notify, Policy)
RENAMED: Mapping[tuple[type, str], str] = {
    (Policy, "nodes"): "node",
    (Policy, "groups"): "group",
    (Group, "volumes"): "volume",
}
ARRAYS = {Node: "[[node]]", Group: "[[group]]", Volume: "[[group.volume]]"}
TABLES = {
    Application: "[group.application]",
    Timeouts: "[group.timeouts]",
    Discover: "[discover]",
    Metrics: "[metrics]",
    Notify: "[notify]",
}

CHECKS: Mapping[type, Mapping[str, fields.Hook]] = {
    Node: {
        "name": fields.node_name,
        "address": fields.address,
        "instance_id": fields.instance_id,
        "priority": fields.integer(1, 254),
    },
    Volume: {
        "mount": fields.mount_point,
        "id": fields.volume_id,
        "tags": fields.tags,
        "fstype": fields.fstype,
        "options": fields.mount_options,
    },
    Application: {
        "unit": fields.unit,
        "start": fields.argv,
        "stop": fields.argv,
        "check": fields.argv,
        "retries": fields.integer(0, 100),
    },
    Timeouts: {f.name: fields.seconds(zero=f.name == "release_grace_s") for f in dataclasses.fields(Timeouts)},
    Group: {
        "name": fields.group_name,
        "virtual_router_id": fields.integer(1, 255),
        "vips": fields.vips,
        "interface": fields.interface_name,
        "advert_int": fields.advert_int,
        "priorities": fields.priorities,
    },
    Discover: {"tags": fields.tags},
    Metrics: {"textfile": fields.textfile, "port": fields.integer(0, 65535)},
    Notify: {"command": fields.argv, "sns_topic": fields.sns_topic},
    Policy: {"region": fields.region, "command": fields.command},
}
MISSING: Mapping[tuple[type, str], str] = {
    (Node, "name"): 'write name = "a"',
    (Node, "address"): 'write the primary private address: address = "10.0.0.10"',
    (Volume, "mount"): 'write where it goes: mount = "/srv/data"',
    (Group, "name"): 'write name = "data"',
    (Group, "virtual_router_id"): "write a number that no other VRRP router in the subnet uses: virtual_router_id = 51",
    (Group, "vips"): 'write the address that moves: vips = ["10.0.0.100"]',
    (Discover, "tags"): 'write the tags that the nodes have: tags = { "awsha:pair" = "db" }',
    (Policy, "nodes"): 'write two tables: [[node]] with name = "a" and address = "10.0.0.10", and one more',
    (Policy, "groups"): 'write a table [[group]] with name = "data", virtual_router_id = 51, vips = ["10.0.0.100"]',
}


@dataclass(frozen=True, slots=True)
class Finding:
    """A problem by its place in the parsed file, before it is given a file name and a line."""

    key: Key
    reason: str
    hint: str


def toml_name(record: type, attribute: str) -> str:
    """How an attribute of a record is written in awsha.toml."""
    return RENAMED.get((record, attribute), attribute)


def structure(raw: Table) -> tuple[Policy | None, list[Finding]]:
    """The records (None when anything is wrong) and what is wrong with single values. Priorities stay as written."""
    try:
        return _converter().structure(raw, Policy), []
    except Exception as error:  # noqa: BLE001 - whatever a value does to a check, a person gets a problem, not a traceback
        return None, list(_findings(error, (), Policy))


def pruned(raw: Table, findings: list[Finding]) -> Table:
    """A copy without what was found wrong: each value left has passed its own check. Items keep their index."""
    clean = copy.deepcopy(raw)
    for finding in findings:
        here: Any = clean
        for part in finding.key[:-1]:
            try:
                here = here[part]
            except (KeyError, IndexError, TypeError):
                here = None
                break
        if finding.key and isinstance(here, dict):
            here.pop(finding.key[-1], None)
        elif finding.key and isinstance(here, list) and isinstance(finding.key[-1], int):
            here[finding.key[-1]] = None
    return clean


@lru_cache(maxsize=1)
def _converter() -> Converter:
    converter = Converter(detailed_validation=True, forbid_extra_keys=True)
    converter.register_structure_hook(str, fields.text)
    for choice in (Fence, OpenFiles, Fsck):  # one by one: to cattrs a StrEnum is a str, and that hook would take it
        converter.register_structure_hook(choice, _one_of(choice))
    converter.register_structure_hook_factory(_is_array, lambda wanted: _array(converter, get_args(wanted)[0]))
    for record in RECORDS:
        converter.register_structure_hook(record, _table(converter, record))
    return converter


def _table(converter: Converter, record: type) -> fields.Hook:
    overrides = {
        f.name: override(rename=toml_name(record, f.name), struct_hook=CHECKS[record].get(f.name))
        for f in dataclasses.fields(record)
    }
    make: Callable[..., Any] = make_dict_structure_fn  # its overrides are keyword arguments named like the fields
    fill = make(record, converter, _cattrs_forbid_extra_keys=True, _cattrs_detailed_validation=True, **overrides)

    def hook(value: object, wanted: object) -> object:
        if not isinstance(value, dict):
            raise InvalidValueError(
                f"is {fields.kind(value)}, not a table",
                f"write it as a table: {ARRAYS.get(record) or TABLES.get(record, '')}",
            )
        return fill(value, wanted)

    return hook


def _is_array(wanted: object) -> bool:
    origin: object = get_origin(wanted)
    return origin is tuple


def _array(converter: Converter, item_type: type) -> fields.Hook:
    def hook(value: object, _: object) -> object:
        if not isinstance(value, list):
            raise InvalidValueError(
                f"is {fields.kind(value)}, not an array of tables",
                f"write {ARRAYS.get(item_type, '')}, with two brackets on each side",
            )
        result: list[object] = []
        errors: list[Exception] = []
        for index, item in enumerate(value):
            try:
                result.append(converter.structure(item, item_type))
            except Exception as error:  # noqa: BLE001 - collected; reported all together
                error.add_note(IterableValidationNote(f"item {index}", index, item_type))
                errors.append(error)
        if errors:
            raise IterableValidationError("array", errors, list)
        return tuple(result)

    return hook


def _one_of(wanted: type[StrEnum]) -> fields.Hook:
    known = [str(member) for member in wanted]

    def hook(value: object, _: object) -> StrEnum:
        written = fields.text(value)
        if written not in known:
            choices = ", ".join(f'"{word}"' for word in known)
            raise InvalidValueError(
                f"is {shown(written)}, which is not one of {choices}",
                did_you_mean(written, known, f"write one of {choices}"),
            )
        return wanted(written)

    return hook


def _findings(error: BaseException, key: Key, record: type) -> Iterator[Finding]:
    if isinstance(error, ClassValidationError):
        for inner in error.exceptions:
            yield from _findings_in_table(inner, key, error.cl)
    elif isinstance(error, IterableValidationError):
        for inner in error.exceptions:
            yield from _findings(inner, (*key, *_note(inner, IterableValidationNote, "index")), record)
    elif isinstance(error, ExceptionGroup):
        for inner in error.exceptions:
            yield from _findings(inner, key, record)
    elif isinstance(error, InvalidValueError):
        yield Finding((*key, *error.below), error.reason, error.hint)
    else:
        yield Finding(key, f"cannot be read ({type(error).__name__}: {error})", "see docs/reference.md")


def _findings_in_table(error: BaseException, key: Key, record: type) -> Iterator[Finding]:
    if isinstance(error, ForbiddenExtraKeysError):
        known = [toml_name(record, f.name) for f in dataclasses.fields(record)]
        for extra in sorted(error.extra_fields):
            yield Finding(
                (*key, extra),
                "is not a key that awsha knows here",
                did_you_mean(extra, known, f"known here: {', '.join(known)}"),
            )
        return
    attribute = next(iter(_note(error, AttributeValidationNote, "name")), "")
    below: Key = (*key, toml_name(record, attribute))
    if isinstance(error, KeyError):
        yield Finding(below, "is missing", MISSING.get((record, attribute), "write it"))
    else:
        yield from _findings(error, below, record)


def _note(error: BaseException, kind: type, attribute: str) -> list[Any]:
    """What cattrs noted about where an error came from; the last note is the outermost place."""
    notes = [note for note in getattr(error, "__notes__", []) if isinstance(note, kind)]
    return [getattr(notes[-1], attribute)] if notes else []
