"""The agent has failed for good, says systemd: this node lets go and leaves VRRP, for nobody looks after it."""

from __future__ import annotations

from pathlib import Path

from awsha.agent.journal import Journal
from awsha.agent.marks import Marks
from awsha.agent.once import converge
from awsha.agent.paths import listed, run_dir, write_health
from awsha.core.errors import AwshaError
from awsha.core.plan import GONE, PAUSED
from awsha.host.clock import boottime

LET_GO_S = 60.0


def fault_all(config: Path) -> int:
    """Let every group go, but paused ones, and then fail its health file, whatever came of it.

    Returns 0, or 1 when a file could not be written. An agent that comes back writes its own verdict.
    """
    journal = Journal()
    deadline, code = boottime() + LET_GO_S, 0
    # keepalived makes the files, the agent its list of groups: before keepalived's start only the list is there.
    for name in sorted({*listed(run_dir() / "groups"), *listed(run_dir() / "health")}):
        if PAUSED in Marks(name).all():
            journal.say(name, "the agent has failed for good; nothing is moved, because the group is paused")
            continue
        Marks(name).put(GONE)
        journal.say(name, "the agent has failed for good: this node does not compete until it runs again")
        try:
            # Before VRRP gives way: the peer's grace is short, and a fence would follow.
            converge(config, name, None, max(1.0, deadline - boottime()))
        except AwshaError as error:
            journal.say(name, f"nothing is let go: {error.message}")
        if error_text := write_health(name, ok=False):
            journal.say(name, f"keepalived can't be told: {error_text}")
            code = 1
    return code
