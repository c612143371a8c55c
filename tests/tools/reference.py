"""docs/reference.md out of the code: `python -m tests.tools.reference` writes it, a test compares.

Commands, flags and exit codes come from the click tree, keys and defaults from the records of `awsha.core.policy`,
types and bounds from `awsha.config.schema`; what a key means is the comment at its field.
"""

from __future__ import annotations

import dataclasses
import inspect
import io
import sys
import textwrap
import tokenize
import typing
from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path

import click

from awsha import notify
from awsha.cli.main import COMMANDS, cli
from awsha.config import schema
from awsha.config.provenance import UNSET
from awsha.core import policy
from awsha.core.errors import EX_CONFIG, EX_IOERR, EX_TEMPFAIL

PAGE = Path(__file__).parents[2] / "docs" / "reference.md"
EITHER = {(policy.Volume, "id"), (policy.Volume, "tags"), (policy.Application, "unit")}
EXAMPLE_NODES = 4
HEAD = """\
# Reference

Written by `python -m tests.tools.reference` out of the code: change the code, not this page.
[configuration.md](configuration.md) explains how awsha.toml is read, [runbook.md](runbook.md) what to do when.
"""
EXITS = {
    "1": "it failed, or was refused: the message says why, and what to type next",
    "2": "a flag or a word is wrong",
    f"{EX_IOERR}": "its output could not be written (a full disk): what is there is incomplete",
    f"{EX_TEMPFAIL}": "not finished in its time; safe to run again",
    f"{EX_CONFIG}": "awsha.toml has a mistake (all of them are shown); nothing was touched",
    "130": "interrupted by Ctrl-C",
    "141": "nobody reads its output any more",
}
EXITS_HEAD = "Where a command's own text names no exit codes, it ends with 0, or with one of these:"
EXITS_OF_STATUS = f"""\
`awsha status` has the codes of monitoring plugins instead: 3 too when there is no such group, or when this host is none
of the nodes. It still ends with 2 for a wrong flag, with {EX_IOERR} when its output could not be
written, and with {EX_CONFIG} for a mistake in awsha.toml.
"""
NOTIFY = f"""\
keepalived's entry: records a role ({", ".join(notify.ROLES)}) for a group and wakes the agent, or starts
`awsha converge GROUP` when no agent answers. Further words are accepted: keepalived appends some.

Exit code: 0 recorded, 1 not recorded.
"""
KEYS_HEAD = """\
A default of `-`: the key is required. In brackets: there is no default, but this is what awsha does without the key.
"""


def page() -> str:
    """The whole page."""
    parts = [HEAD, "## Commands\n", *_exits(), *commands(), "## awsha.toml\n", *keys()]
    return "\n".join(parts).rstrip() + "\n"


# --- commands --------------------------------------------------------------------------------------------------


def _exits() -> Iterator[str]:
    yield EXITS_HEAD + "\n"
    yield "| code | means |\n| --- | --- |"
    yield "\n".join(f"| {code} | {text} |" for code, text in EXITS.items()) + "\n"
    yield EXITS_OF_STATUS


def commands() -> Iterator[str]:
    """A section for each command: usage, what it does, flags."""
    yield "Before the command: `--config FILE` (it may stand behind the command too), `--version`, `-h`.\n"
    for context in leaves():
        yield f"### `{usage(context)}`\n"
        yield _wrapped(inspect.cleandoc(context.command.help or ""))
        rows = flags(context)
        if rows:
            yield "| flag | |\n| --- | --- |"
            yield "\n".join(_row(*row) for row in rows) + "\n"
    yield "### `awsha notify ROLE GROUP`\n"
    yield _wrapped(NOTIFY)


def leaves() -> Iterator[click.Context]:
    """Each command that can be typed, the inner ones of a group instead of the group."""
    root = click.Context(cli, info_name="awsha")
    for name in COMMANDS:
        command = cli.get_command(root, name)
        assert command is not None
        yield from _leaves(click.Context(command, info_name=name, parent=root))


def _leaves(context: click.Context) -> Iterator[click.Context]:
    if isinstance(context.command, click.Group):
        for name, inner in context.command.commands.items():
            yield from _leaves(click.Context(inner, info_name=name, parent=context))
    else:
        yield context


def usage(context: click.Context) -> str:
    """The command with its words, without flags."""
    words = [str(p.make_metavar(context)) for p in context.command.params if isinstance(p, click.Argument)]
    return " ".join([context.command_path, *words])


def flags(context: click.Context) -> list[tuple[list[str], str, str]]:
    """(names, what follows them, what it does) for each flag of a command."""
    shown = [p for p in context.command.params if isinstance(p, click.Option) and not p.hidden]
    return [_flag(option, context) for option in shown]


def _flag(option: click.Option, context: click.Context) -> tuple[list[str], str, str]:
    word = "" if option.is_flag else str(option.make_metavar(context))
    notes = []
    if option.required:
        notes.append("required")
    if option.multiple:
        notes.append("may be given several times")
    if option.secondary_opts:
        notes.append(f"default {(option.opts if option.default else option.secondary_opts)[0]}")
    elif option.show_default and option.default not in (None, "", False):
        shown = f"{option.default:g}" if isinstance(option.default, float) else option.default
        notes.append(f"default {shown}")
    text = (option.help or "") + (f" ({', '.join(notes)})" if notes else "")
    return [*option.opts, *option.secondary_opts], word, text.strip()


def _row(names: list[str], word: str, text: str) -> str:
    shown = ", ".join(f"`{name}`" for name in names) + (f" {_cell(word)}" if word else "")
    return f"| {shown} | {_cell(text)} |"


def _wrapped(text: str) -> str:
    paragraphs = [" ".join(part.split()) for part in text.split("\n\n")]
    return "\n\n".join(textwrap.fill(p, 120, break_on_hyphens=False, break_long_words=False) for p in paragraphs) + "\n"


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")


# --- keys ------------------------------------------------------------------------------------------------------


def keys() -> Iterator[str]:
    """A table for each table of awsha.toml."""
    yield _wrapped(KEYS_HEAD)
    for title, rows in tables():
        yield f"### {title}\n"
        yield "| key | type | default | |\n| --- | --- | --- | --- |"
        for name, *cells in rows:
            yield f"| {' | '.join(_cell(cell) for cell in (f'`{name}`', *cells))} |"
        yield ""


def tables() -> Iterator[tuple[str, list[tuple[str, str, str, str]]]]:
    """(heading, rows of key, type, default, meaning) for each table of awsha.toml."""
    meanings = comments(Path(policy.__file__).read_text(encoding="utf-8"))
    for record, title in sections():
        fields = [field for field in dataclasses.fields(record) if _inner(_types(record)[field.name]) is None]
        yield title, [_key(record, field, meanings) for field in fields]


def sections() -> list[tuple[type, str]]:
    """The records in the order in which a file has them, each with its heading."""
    counts = {policy.Node: ", two to sixteen", policy.Group: ", one or more: one VRRP instance and what moves with it"}
    counts |= {
        policy.Discover: ", optional, in the place of `[[node]]`",
        policy.Metrics: ", optional: for Prometheus ([metrics.md](metrics.md))",
        policy.Notify: ", optional: who is told ([notify.md](notify.md))",
        policy.Volume: ", none or more",
        policy.Application: ", optional",
        policy.Timeouts: ", optional: seconds",
    }
    found: list[tuple[type, str]] = [(policy.Policy, "At the top")]

    def walk(record: type) -> None:
        for wanted in _types(record).values():
            inner = _inner(wanted)
            if inner is not None:
                found.append((inner, f"`{schema.ARRAYS.get(inner) or schema.TABLES[inner]}`{counts[inner]}"))
                walk(inner)

    walk(policy.Policy)
    return found


def _key(
    record: type, field: dataclasses.Field[object], meanings: dict[tuple[str, str], str]
) -> tuple[str, str, str, str]:
    meaning = meanings.get((record.__name__, field.name), "")
    if not meaning:
        raise SystemExit(f"say in a comment in {policy.__file__} what {record.__name__}.{field.name} means")
    return schema.toml_name(record, field.name), _type(record, field.name), _default(record, field), meaning


def _types(record: type) -> dict[str, object]:
    return typing.get_type_hints(record)


def _plain(wanted: object) -> object:
    """The type without `| None`."""
    parts = [part for part in typing.get_args(wanted) if part is not type(None)]
    return parts[0] if type(None) in typing.get_args(wanted) else wanted


def _inner(wanted: object) -> type | None:
    """The record that fills a table or an array of tables; None for a plain value."""
    plain = _plain(wanted)
    item = typing.get_args(plain)[0] if typing.get_origin(plain) is tuple else plain
    return item if isinstance(item, type) and dataclasses.is_dataclass(item) else None


def _type(record: type, name: str) -> str:
    wanted = _plain(_types(record)[name])
    if typing.get_origin(wanted) is tuple:
        item = typing.get_args(wanted)[0]
        if typing.get_origin(item) is tuple:
            return f"table of {'integers' if typing.get_args(item)[1] is int else 'strings'}"
        return "array of strings"
    if isinstance(wanted, type) and issubclass(wanted, StrEnum):
        return ", ".join(f"`{word}`" for word in wanted)
    bounds = inspect.getclosurevars(schema.CHECKS[record][name]).nonlocals
    if wanted is int:
        return f"integer, {bounds['low']} to {bounds['high']}"
    if wanted is float:
        return "number" if "zero" not in bounds else "number, 0 or more" if bounds["zero"] else "number, more than 0"
    return "string"


def _default(record: type, field: dataclasses.Field[object]) -> str:
    if (record, field.name) in EITHER:
        return "-"
    if (record, field.name) == (policy.Node, "priority"):
        return f"(by order: {', '.join(str(policy.default_priority(i)) for i in range(EXAMPLE_NODES))}, …)"
    if (record, field.name) in UNSET:
        return f"({UNSET[record, field.name]})"
    if field.default is dataclasses.MISSING:
        return "-"
    value = field.default
    if value in (None, (), ""):
        return "(the nodes' own)" if field.name == "priorities" else "(none)"
    if isinstance(value, StrEnum):
        return f"`{value}`"
    return f"{value:g}" if isinstance(value, float) else str(value)


def comments(source: str) -> dict[tuple[str, str], str]:
    """(class, field) -> its comment: the lines above it and what stands behind it, without what is for the code."""
    found: dict[tuple[str, str], str] = {}
    owner, above, name = "", [], ""
    for line in source.splitlines():
        code, comment = _split(line)
        if code.startswith("class "):
            owner = code.removeprefix("class ").split("(")[0].rstrip(":")
        if not code.strip():
            above = [*above, comment] if comment else []
            continue
        name = code.strip().split(":")[0]
        if ":" in code and name.isidentifier() and code.startswith("    "):
            text = " ".join([*above, comment]).split("None:")[0].strip().rstrip(".")
            if text:
                found[owner, name] = text
        above = []
    return found


def _split(line: str) -> tuple[str, str]:
    """Code and comment of one line. A line of a longer string has no comment that matters here."""
    try:
        for token in tokenize.generate_tokens(io.StringIO(line.strip() + "\n").readline):
            if token.type == tokenize.COMMENT:
                indent = len(line) - len(line.lstrip())
                return line[: indent + token.start[1]], token.string.removeprefix("#").strip()
    except (tokenize.TokenError, IndentationError):
        pass
    return line, ""


def main() -> int:
    """Write the page."""
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
