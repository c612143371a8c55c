"""A first awsha.toml out of a few words: commented, and checked like one that a person wrote."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from awsha.config.load import parse
from awsha.config.problems import ConfigError, Problem


@dataclass(frozen=True, slots=True)
class _Form:
    """An option whose value is two words with a sign between them."""

    option: str
    sign: str
    name: str
    example: str


NODE = _Form("--node", "=", "NAME=ADDRESS", "a=10.0.0.10")
VOLUME = _Form("--volume", ":", "VOLUME-ID:MOUNT-POINT", "vol-0123456789abcdef0:/srv/data")


@dataclass(frozen=True, slots=True)
class Wish:
    """What `awsha init` was asked for, as typed. `nodes` are NAME=ADDRESS, `volumes` are VOLUME-ID:MOUNT-POINT."""

    nodes: Sequence[str]
    vips: Sequence[str]
    volumes: Sequence[str] = ()
    group: str = "data"
    router_id: int = 51
    fence: str = "stop-instance"
    unit: str | None = None
    interface: str | None = None
    region: str | None = None


def compose(wish: Wish, file: str) -> str:
    """The text of an awsha.toml. Raises ConfigError with every problem of the wish, as loading `file` would."""
    problems: list[Problem] = []
    nodes = _pairs(wish.nodes, NODE, problems)
    volumes = _pairs(wish.volumes, VOLUME, problems)
    text = _compose(wish, nodes, volumes)
    try:
        text.encode()
        parse(text, file, written=False)
    except UnicodeEncodeError:
        problems.append(Problem(file, "", "would not be UTF-8", "type the values with ordinary characters"))
    except ConfigError as error:
        problems += error.problems
    if problems:
        raise ConfigError(problems, hint="nothing was written; see `awsha init --help`")
    return text


def _pairs(words: Sequence[str], form: _Form, problems: list[Problem]) -> list[tuple[str, str]]:
    pairs = []
    for word in words:
        sign = ":/" if word.startswith("arn:") else form.sign  # an ARN has colons of its own
        left, found, right = word.partition(sign)
        right = sign[1:] + right
        if found:
            pairs.append((left, right))
        else:
            hint = f"type {form.option} {form.example}"
            problems.append(Problem(f"{form.option} {word}", "", f"is not {form.name}", hint))
    return pairs


def _quoted(value: str) -> str:
    """A TOML basic string. JSON's escapes are TOML's too; TOML wants DEL escaped as well."""
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def _compose(wish: Wish, nodes: Sequence[tuple[str, str]], volumes: Sequence[tuple[str, str]]) -> str:
    region = f"region = {_quoted(wish.region)}" if wish.region else '# region = "eu-west-1"    # asked from metadata'
    interface = (
        f"interface = {_quoted(wish.interface)}"
        if wish.interface
        else '# interface = "ens5"    # the one that holds the node\'s address'
    )
    parts = [
        "# awsha.toml: the same file on every node. All keys and their defaults: `awsha config show`.\n",
        f"{region}\n",
        "# The nodes, the preferred master first. `address` is the primary private address.",
        *(f"[[node]]\nname = {_quoted(name)}\naddress = {_quoted(address)}\n" for name, address in nodes),
        "# One VRRP instance and everything that moves with it.",
        "\n".join(
            [
                "[[group]]",
                f"name = {_quoted(wish.group)}",
                f"virtual_router_id = {wish.router_id}    # 1 to 255, used by no other VRRP router of these nodes",
                f"vips = [{', '.join(_quoted(vip) for vip in wish.vips)}]",
                interface,
                f"fence = {_quoted(wish.fence)}    # about a silent holder: stop-instance, force-detach or none",
                "",
            ]
        ),
        *(f"[[group.volume]]\nid = {_quoted(volume)}\nmount = {_quoted(mount)}\n" for volume, mount in volumes),
    ]
    if wish.unit:
        parts.append(f"[group.application]\nunit = {_quoted(wish.unit)}\n")
    else:
        parts.append('# [group.application]\n# unit = "postgresql.service"    # started last, stopped first\n')
    return "\n".join(parts)
