"""Reads what `awsha notify` recorded (the format is in awsha/notify.py)."""

from __future__ import annotations

from pathlib import Path

from awsha.agent.paths import run_dir
from awsha.core.model import Intent, Role
from awsha.host.clock import boot_id

NAME_PARTS = 2
LINE_WORDS = 5


def folder(group: str) -> Path:
    """Where the intents of a group are."""
    return run_dir() / "intent" / group


def parse(name: str, text: str) -> Intent | None:
    """One intent from its file's name and content; None when it is not one (a broken file must stop nobody)."""
    words, parts = text.split(), name.split("-")
    if len(words) != LINE_WORDS or len(parts) != NAME_PARTS:
        return None
    try:
        keepalived = (int(words[3]), int(words[4]))
        return Intent(
            Role(words[0]),
            (int(parts[0]), int(parts[1])),
            words[1],
            float(words[2]),
            keepalived if keepalived[0] else None,
        )
    except ValueError:
        return None


def newest(group: str) -> Intent | None:
    """The newest intent of this boot, by the order of the forks; None when keepalived has said nothing yet."""
    boot = boot_id()
    best: Intent | None = None
    try:
        names = [path.name for path in folder(group).iterdir() if not path.name.startswith(".")]
    except FileNotFoundError:
        return None
    for name in sorted(names, reverse=True):
        try:
            intent = parse(name, (folder(group) / name).read_text(encoding="utf-8", errors="replace"))
        except OSError:
            continue  # removed by a newer notify
        if intent is not None and intent.boot_id == boot and (best is None or intent.order > best.order):
            best = intent
    return best
