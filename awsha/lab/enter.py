"""Becomes a command inside a node: its namespaces, its cgroup, its environment; exit code and terminal pass through."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, NoReturn

from awsha.core.errors import AwshaError
from awsha.lab import linux

PASSED = ("TERM", "COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR")  # what a terminal needs


def entering(where: dict[str, Any], command: list[str]) -> tuple[list[str], dict[str, str]]:
    """argv and environment that run a command in a node's namespaces; `where` is the daemon's answer to `enter`."""
    environment = {**where["environment"], **{name: os.environ[name] for name in PASSED if name in os.environ}}
    return ["nsenter", "--target", str(where["pid"]), "--mount", "--uts", "--net", "--pid", "--", *command], environment


def enter(where: dict[str, Any], command: list[str]) -> NoReturn:
    """Replace this process by a command in a node. Raises AwshaError when the node went away."""
    argv, environment = entering(where, command)
    try:
        linux.join_cgroup(Path(where["cgroup"]))  # so that it freezes and dies with the node
        os.execvpe(argv[0], argv, environment)  # noqa: S606 - that there is no shell is the point
    except OSError as error:
        raise AwshaError(f"can't enter the node: {error}", hint="awsha lab status shows whether it is on") from error
