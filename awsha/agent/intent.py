"""Reads what `awsha notify` recorded (the format is in awsha/notify.py)."""

from __future__ import annotations

from pathlib import Path

from awsha import notify
from awsha.agent.paths import listed, read_small, run_dir
from awsha.core.model import Intent, Role
from awsha.host.clock import boot_id

TRIES = 100


def folder(group: str) -> Path:
    """Where the intents of a group are."""
    return run_dir() / "intent" / group


def parse(name: str, text: str) -> Intent | None:
    """One intent from its file's name and content; None when it is not one (a broken file must stop nobody)."""
    found = notify.parse(name, text)
    if found is None:
        return None
    role, order, boot, recorded_at, keepalived = found
    return Intent(Role(role), order, boot, recorded_at, keepalived if keepalived[0] else None)


def newest(group: str) -> Intent | None:
    """The newest intent of this boot, by the order of the forks; None when keepalived has said nothing yet."""
    boot = boot_id()
    for _ in range(TRIES):
        found, vanished = _look(group, boot)
        if found is not None or not vanished:
            return found
    return None


def _look(group: str, boot: str) -> tuple[Intent | None, bool]:
    """The newest intent among those that were there, and whether one was gone before it could be read: then a newer
    one has come, which this look may have missed."""
    best: Intent | None = None
    vanished = False
    where = folder(group)
    for name in sorted(listed(where), reverse=True):
        try:
            intent = parse(name, read_small(f"{where}/{name}"))
        except FileNotFoundError:
            vanished = True
            continue
        except OSError:
            continue  # a directory, or unreadable: no notify made it
        if intent is not None and intent.boot_id == boot and (best is None or intent.order > best.order):
            best = intent
    return best, vanished
