"""Where the agent keeps its files, and which environment variable moves them (DESIGN, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

RUN_DIR = PurePosixPath("/run/awsha")
STATE_DIR = PurePosixPath("/var/lib/awsha")
HOOKS_DIR = PurePosixPath("/etc/awsha/hooks")


def run_dir(environ: Mapping[str, str]) -> PurePosixPath:
    """Runtime files: intent, socket, health files. Moved by AWSHA_RUN_DIR."""
    return PurePosixPath(environ.get("AWSHA_RUN_DIR") or RUN_DIR)


def state_dir(environ: Mapping[str, str]) -> PurePosixPath:
    """History. Moved by AWSHA_STATE_DIR."""
    return PurePosixPath(environ.get("AWSHA_STATE_DIR") or STATE_DIR)


def hooks_dir(environ: Mapping[str, str]) -> PurePosixPath:
    """The programs that run at a takeover and a release. Moved by AWSHA_HOOKS_DIR."""
    return PurePosixPath(environ.get("AWSHA_HOOKS_DIR") or HOOKS_DIR)


def health_file(run: PurePosixPath, group: str) -> PurePosixPath:
    """The file that keepalived tracks for a group: 0 healthy, anything else faults the group on this node."""
    return run / "health" / group
