"""Where the agent keeps its files, and which environment variable moves them (DESIGN, section 5)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath

from awsha.core.errors import EX_CONFIG, AwshaError

RUN_DIR = PurePosixPath("/run/awsha")
STATE_DIR = PurePosixPath("/var/lib/awsha")
HOOKS_DIR = PurePosixPath("/etc/awsha/hooks")
CONFIG = PurePosixPath("/etc/awsha/awsha.toml")


def run_dir(environ: Mapping[str, str]) -> PurePosixPath:
    """Runtime files: intent, socket, health files. Moved by AWSHA_RUN_DIR. Raises AwshaError (78)."""
    return _absolute(environ, "AWSHA_RUN_DIR", RUN_DIR)


def state_dir(environ: Mapping[str, str]) -> PurePosixPath:
    """History. Moved by AWSHA_STATE_DIR. Raises AwshaError (78)."""
    return _absolute(environ, "AWSHA_STATE_DIR", STATE_DIR)


def hooks_dir(environ: Mapping[str, str]) -> PurePosixPath:
    """The programs that run at a takeover and a release. Moved by AWSHA_HOOKS_DIR. Raises AwshaError (78)."""
    return _absolute(environ, "AWSHA_HOOKS_DIR", HOOKS_DIR)


def _absolute(environ: Mapping[str, str], variable: str, default: PurePosixPath) -> PurePosixPath:
    """A directory by its variable. A relative one would be another for each process: agent, notify, keepalived."""
    path = PurePosixPath(environ.get(variable) or default)
    if not path.is_absolute():
        raise AwshaError(
            f"{variable} is {path}, which is relative: it would be another directory for each program",
            hint=f"set an absolute path, or leave it out: {default}",
            exit_code=EX_CONFIG,
        )
    return path


def health_file(run: PurePosixPath, group: str) -> PurePosixPath:
    """The file that keepalived tracks for a group: 0 healthy, anything else faults the group on this node."""
    return run / "health" / group
