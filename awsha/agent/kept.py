"""The configuration that the agent last began to work with, kept for this boot: a broken awsha.toml, found out at a
restart or at a shutdown, must not keep a node from letting go."""

from __future__ import annotations

import contextlib
from pathlib import Path

from awsha.agent.paths import kept_configuration, listed, private_dir, run_dir, write_atomically
from awsha.config.load import load, parse, refuse_unsafe
from awsha.config.problems import ConfigError


def keep(config: Path) -> None:
    """Keep a copy, if it is (still) a good one; without one, letting go needs awsha.toml."""
    with contextlib.suppress(OSError, UnicodeDecodeError, ConfigError):
        text = config.read_text(encoding="utf-8")
        parse(text, str(config))
        private_dir(run_dir())
        write_atomically(kept_configuration(), text)


def to_let_go(config: Path) -> Path:
    """The file to let go by: `config`, or the kept copy when that one is broken. Raises ConfigError without a copy."""
    try:
        refuse_unsafe(config)
        load(config)
    except ConfigError:
        if not kept_configuration().exists():
            raise
        return kept_configuration()
    return config


def group_names(config: Path) -> list[str]:
    """All groups of this node: by awsha.toml, or, when that one is broken, those that the agent began to work with.

    Raises ConfigError when nothing tells.
    """
    try:
        return [group.name for group in load(config).groups]
    except ConfigError:
        if names := sorted(listed(run_dir() / "groups")):
            return names
        raise
