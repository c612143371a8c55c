"""Whether awsha may be taken off this node: asked by the package before it is removed. Looks only, and not at EC2."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from awsha.agent import ask, intent, kept
from awsha.agent.operate import kernel_free
from awsha.agent.paths import listed, run_dir
from awsha.config.load import load
from awsha.config.problems import ConfigError
from awsha.core.model import Intent, Role, Unknown
from awsha.core.policy import Group
from awsha.host import mountinfo, mounts
from awsha.host.keepalived import Watch


def refusals(config: Path) -> list[tuple[str, str]]:
    """(why not, what to do) for each group that this node has, or may come to have; none: awsha may go.

    A node whose keepalived goes on without awsha would become master and hold nothing. One that still holds a disk
    would leave it to nobody. A configuration that cannot be read counts for nothing where no agent has run.
    """
    return [*_taking_part(), *_held(config)]


def _taking_part() -> Iterator[tuple[str, str]]:
    """Groups for which a keepalived that runs now has told awsha a role."""
    for name in sorted(listed(run_dir() / "intent")):
        if _alive(intent.newest(name)):
            yield (
                f"keepalived runs, and this node takes part in VRRP for {name}: without awsha it would become master "
                "and hold nothing",
                "systemctl disable --now keepalived (that hands over what is here), or give it a configuration without "
                "awsha and restart it",
            )


def _alive(newest: Intent | None) -> bool:
    if newest is None or newest.keepalived is None:
        return False
    watch = Watch(*newest.keepalived)
    try:
        return watch.alive()
    finally:
        watch.close()


def _held(config: Path) -> Iterator[tuple[str, str]]:
    """Groups of which this node still has something: by the agent, which knows best, or by the mounts."""
    told = ask.report()
    if told is not None:
        for name, report in sorted(told.items()):
            # of a group for which keepalived never told a role in this boot, nothing that is here is awsha's
            if report["vrrp_role"] is not None and not kernel_free(report):
                yield f"{name} is not let go here yet", f"awsha status {name}; awsha release {name}"
        return
    for group in _groups(config):
        newest = intent.newest(group.name)
        for target in still_mounted(group, mounts.read()) if newest is not None and newest.role is Role.MASTER else ():
            yield (
                f"{target} of {group.name} is still mounted, and this node was its master",
                "systemctl start awsha-agent, then: awsha release " + group.name,
            )


def _groups(config: Path) -> tuple[Group, ...]:
    with contextlib.suppress(ConfigError):
        return load(kept.to_let_go(config)).groups
    return ()


def still_mounted(group: Group, table: mounts.Table | Unknown) -> list[str]:
    """The mount points of a group at which something is mounted, by this table; all of them when it is not known."""
    targets = [volume.mount for volume in group.volumes]
    if isinstance(table, Unknown):
        return targets
    return [target for target in targets if mountinfo.visible(table, mounts.place(target)) is not None]
