"""Hooks on both nodes: which run, in which order, what they find, and what a failing one does."""

from __future__ import annotations

import pytest

from tests.lab.conftest import LabUnderTest
from tests.lab.test_failover import QUICK, status_of

pytestmark = [pytest.mark.root, pytest.mark.lab]
POINTS = ("before-acquire", "after-mount", "after-acquire", "before-release", "after-release", "on-fenced")
ACQUIRED = [
    "before-acquire master bare down",
    "after-mount master mounted down",
    "after-acquire master mounted up",
]
LOG = "/var/lib/awsha/hooks.log"
# What a hook finds: whether the file system is mounted, and whether the application's process lives.
TELL = f"""#!/bin/sh
[ "$AWSHA_GROUP $AWSHA_MOUNTS $(pwd)" = "data /srv/data /" ] || exit 9
[ "$AWSHA_NODE$AWSHA_PEER" = ab ] || [ "$AWSHA_NODE$AWSHA_PEER" = ba ] || exit 9
disk=bare; mountpoint -q "$AWSHA_MOUNTS" && disk=mounted
app=down; kill -0 "$(cat /run/awsha-lab-server-data.pid)" 2>/dev/null && app=up
echo "$AWSHA_HOOK $AWSHA_ROLE $disk $app" >> {LOG}
"""


def put(lab: LabUnderTest, node: str, point: str, name: str, script: str) -> None:
    """A hook on a node."""
    folder = lab.lab.node_dir(node) / "etc-awsha" / "hooks" / "data" / f"{point}.d"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(script)
    (folder / name).chmod(0o755)


def told(lab: LabUnderTest, node: str) -> list[str]:
    """What the hooks of a node have written since this was asked last."""
    log = lab.lab.node_dir(node) / "var-lib-awsha" / "hooks.log"
    lines = log.read_text().splitlines() if log.exists() else []
    log.unlink(missing_ok=True)
    return lines


def settled(lab: LabUnderTest, node: str, code: int = 0) -> None:
    lab.wait_until(lambda: status_of(lab, node)[0] == code, 40, f"the status of {node} is {code}")


def test_hooks_run_at_their_points_and_a_failing_one_moves_the_group_on(lab: LabUnderTest):
    lab.up("--fence", "force-detach", *QUICK)
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    lab.client_start()
    for node in (first, second):
        for point in POINTS:
            put(lab, node, point, "10-tell", TELL)
    lab.fail(first, "stop")
    lab.wait_for_holder(second)
    settled(lab, second)
    lab.wait_until(lambda: status_of(lab, first)[1]["converged"], 20, "the first has let go")
    assert told(lab, first) == ["before-release stop mounted up", "after-release stop bare down"]
    assert told(lab, second) == ACQUIRED

    lab.heal(first)
    settled(lab, first)
    lab.fail(second, "agent-kill")
    lab.wait_until(lambda: lab.status()["nodes"][second]["agent"] != "running", 10, "the agent is gone")
    lab.heal(second)
    settled(lab, second)
    assert (told(lab, first), told(lab, second)) == ([], []), "an agent that comes back runs nothing"

    put(lab, first, "after-mount", "20-no", "#!/bin/sh\necho the schema is too new >&2\nexit 4\n")
    lab.exec(second, "awsha", "switchover", "data", "--timeout", "15", check=False)
    text = "after-mount hook 20-no failed with exit code 4: the schema is too new"
    lab.wait_until(lambda: text in status_of(lab, first)[1]["health"]["text"], 20, "it says why it gave way")
    lab.wait_for_holder(second)
    settled(lab, second)
    refused = [*ACQUIRED[:2], "before-release fault mounted down", "after-release fault bare down"]
    found = told(lab, first)
    assert found == refused * (len(found) // len(refused)) != [], "each time the same, however often it competed"
    released = ["before-release master mounted up", "after-release master bare down"]
    assert told(lab, second) == [*released, *ACQUIRED]
    lab.nothing_lost()


def test_a_node_that_finds_itself_fenced_says_so_to_its_hooks_once(lab: LabUnderTest):
    lab.up("--fence", "force-detach", *QUICK)
    first = str(lab.holder())
    second = "b" if first == "a" else "a"
    for point in POINTS:
        put(lab, first, point, "10-tell", TELL)
        put(lab, second, point, "10-tell", TELL)
    put(lab, second, "after-acquire", "20-warns", "#!/bin/sh\nexit 1\n")
    lab.fail(first, "partition")
    lab.wait_for_holder(second)
    lab.wait_until(lambda: status_of(lab, first)[1]["fenced"], 15, "the first knows that it was fenced")
    lab.wait_until(lambda: not lab.status()["nodes"][first]["mounts"], 15, "it has unmounted")
    settled(lab, second, 1)
    warned = [r for r in status_of(lab, second)[1]["waiting"] if r["code"] == "hook-warned"]
    assert [r["text"] for r in warned] == ["after-acquire hook 20-warns failed with exit code 1"]
    assert told(lab, second) == ACQUIRED
    lab.wait_until(lambda: len(lab.exec(first, "cat", LOG).stdout.splitlines()) == 2, 20, "both have run")
    lines = told(lab, first)
    assert [line.split()[0] for line in lines] == ["on-fenced", "after-release"]
    assert lines[1].endswith("bare down")
    assert lab.status()["violations"] == []
