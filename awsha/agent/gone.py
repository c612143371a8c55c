"""The agent has failed for good, says systemd: keepalived is told to take this node out, for nobody looks after it."""

from __future__ import annotations

from awsha.agent.journal import Journal
from awsha.agent.marks import Marks
from awsha.agent.paths import listed, run_dir, write_health
from awsha.core.plan import PAUSED

GONE = "agent-gone"  # mark: only an agent lifts the fault, not a converge that has let go after it


def fault_all() -> int:
    """Fail the health file of every group, but of paused ones; returns 0, or 1 when one could not be written.

    Neither the configuration nor EC2 is asked: either may be why the agent is gone. An agent that comes back writes its
    own verdict as soon as it has one.
    """
    journal = Journal()
    code = 0
    # keepalived makes the files, the agent its list of groups: before keepalived's start only the list is there.
    for name in sorted({*listed(run_dir() / "groups"), *listed(run_dir() / "health")}):
        if PAUSED in Marks(name).all():
            journal.say(name, "the agent has failed for good; nothing is moved, because the group is paused")
            continue
        Marks(name).put(GONE)
        if error := write_health(name, ok=False):
            journal.say(name, f"the agent has failed for good, and keepalived can't be told: {error}")
            code = 1
        else:
            journal.say(name, "the agent has failed for good: this node does not compete until it runs again")
    return code
