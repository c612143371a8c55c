"""awsha.toml from disk to a `Policy`, or every reason why not."""

from __future__ import annotations

import os
import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from awsha.config import rules
from awsha.config.lines import line_of, locate
from awsha.config.machine import path_refused
from awsha.config.problems import ConfigError, Key, Problem, key_text
from awsha.config.schema import Finding, Table, pruned, structure
from awsha.core.policy import Node, Policy, default_priority

MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Loaded:
    """A valid configuration with what it was read from: `raw` as tomllib gives it, `places` key to line."""

    policy: Policy
    raw: Table
    places: dict[Key, int]
    file: str = ""

    @property
    def complete(self) -> bool:
        """Whether the nodes are known: written, or found by their tags."""
        return bool(self.policy.nodes)


def load(path: Path) -> Policy:
    """The configuration in `path`, checked, defaults filled in (node priorities included).

    Raises ConfigError (exit 78) with all problems at once. Reads the one file and nothing else: with [discover] the
    nodes are not known yet (`awsha.agent.discovery` finds them).
    """
    return read(path).policy


def read(path: Path) -> Loaded:
    """As `load`, with the places of all values."""
    return parse(_text(path), str(path))


def refuse_unsafe(path: Path) -> None:
    """For whoever acts by a configuration: root follows only one that nobody else could have written.

    It names programs that are run as root, disks, and whom to fence. Raises ConfigError; the hint says what to mend.
    Says nothing of a file that is not there.
    """
    if os.geteuid() == 0 and path.exists() and (refused := path_refused(path)) is not None:
        raise ConfigError([Problem(str(path), "", f"is not followed: {refused[0]}", refused[1])])


def parse(text: str, file: str, *, written: bool = True) -> Loaded:
    """The configuration in a text. `file` names it in problems; `written=False`: it has no lines to point at yet."""
    try:
        raw = tomllib.loads(text)
    except (ValueError, RecursionError) as error:
        raise ConfigError([_syntax(error, file)]) from None
    places = locate(text) if written else {}
    return Loaded(examine(raw, file, places), raw, places, file)


def with_nodes(loaded: Loaded, nodes: Sequence[Node]) -> Loaded:
    """A configuration whose nodes were found, checked as if they were written: `raw` has them, too, and so has its
    fingerprint. Raises ConfigError."""
    raw = {**loaded.raw, "node": [{"name": node.name, "address": node.address} for node in nodes]}
    return replace(loaded, policy=examine(raw, loaded.file, loaded.places, found=True), raw=raw)


def examine(raw: Table, file: str, places: dict[Key, int], *, found: bool = False) -> Policy:
    """The records for a parsed table. Raises ConfigError with all problems, whatever the table holds.

    `found`: its nodes were found by [discover]. Before that a table with [discover] has none.
    """
    to_find = "discover" in raw and "node" not in raw
    policy, findings = structure({**raw, "node": []} if to_find else raw)
    bad = {finding.key for finding in findings}
    findings += rules.check(pruned(raw, findings), bad, to_find=to_find)
    if "discover" in raw and "node" in raw and not found:
        findings.append(
            Finding(("node",), "is there beside [discover]", "keep one: the nodes as tables, or their tags")
        )
    findings = _without_echoes(findings)
    if findings or policy is None:
        raise ConfigError(_problems(findings, raw, file, places))
    nodes = tuple(
        node if node.priority is not None else replace(node, priority=default_priority(index))
        for index, node in enumerate(policy.nodes)
    )
    return replace(policy, nodes=nodes)


def describe(key: Key, raw: Table) -> str:
    """A key as messages show it: `group[0].volume[1].mount (group "data")`."""
    if len(key) < 2 or key[0] not in ("group", "node"):
        return key_text(key)
    try:
        name = raw[str(key[0])][key[1]]["name"]
    except (KeyError, IndexError, TypeError):
        return key_text(key)
    if not isinstance(name, str) or not name.isprintable() or (len(key) == 3 and key[2] == "name"):
        return key_text(key)
    return f'{key_text(key)} ({key[0]} "{name[:40]}")'


def _without_echoes(findings: list[Finding]) -> list[Finding]:
    """A mistyped key is one mistake: what is missing because of it is not a second one."""
    meant = {(*f.key[:-1], f.hint.split("`")[1]) for f in findings if f.hint.startswith("did you mean `")}
    return [f for f in findings if not (f.key in meant and f.reason.startswith("is missing"))]


def _problems(findings: list[Finding], raw: Table, file: str, places: dict[Key, int]) -> list[Problem]:
    found = [Problem(file, describe(f.key, raw), f.reason, f.hint, line_of(places, f.key)) for f in findings]
    return sorted(found, key=lambda problem: problem.line or 0)


def _syntax(error: Exception, file: str) -> Problem:
    reason = "nested too deeply" if isinstance(error, RecursionError) else str(error)
    place = re.search(r"\(at line (\d+), column (\d+)\)", reason)
    line = int(place[1]) if place else None
    twice = "overwrite a value" in reason or "Cannot declare" in reason  # tomllib's words
    hint = "a key or table stands there twice" if twice else 'text stands in quotes: name = "a"; see https://toml.io'
    return Problem(file, "", f"is not TOML: {reason}", hint, line)


def _text(path: Path) -> str:
    """The file's text. Anything but a readable regular file of UTF-8 is one problem, and nothing is waited for."""
    file = str(path)
    try:
        # A FIFO or a device would block or never end.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except (OSError, ValueError) as error:
        raise ConfigError([_unreadable(error, file)]) from None
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        what = "a directory" if stat.S_ISDIR(mode) else "not a regular file"
        raise ConfigError([Problem(file, "", f"is {what}", "name a file: awsha --config /etc/awsha/awsha.toml …")])
    with os.fdopen(descriptor, "rb") as stream:
        data = stream.read(MAX_BYTES + 1)
    if len(data) > MAX_BYTES:
        raise ConfigError([Problem(file, "", f"is larger than {MAX_BYTES} bytes", "is this the right file?")])
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([Problem(file, "", "is not UTF-8", "save it as UTF-8 text", line)]) from None


def _unreadable(error: OSError | ValueError, file: str) -> Problem:
    if isinstance(error, FileNotFoundError):
        return Problem(
            file,
            "",
            "does not exist",
            "write one: awsha init --node a=10.0.0.10 --node b=10.0.0.11 --vip 10.0.0.100 "
            "--volume vol-…:/srv/data; or name another with --config or AWSHA_CONFIG",
        )
    if isinstance(error, PermissionError):
        return Problem(file, "", "may not be read by this user", f"run as root, or: sudo chmod o+r {file}")
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return Problem(file, "", f"cannot be read: {reason}", "check the path and the file system")
