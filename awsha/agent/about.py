"""What an agent runs with, told to whoever asks here, and to the peers as a tag on this node's own instance."""

from __future__ import annotations

import json
import threading
from pathlib import Path

from awsha import __version__
from awsha.agent import ask, discovery
from awsha.agent.assembly import Node
from awsha.agent.journal import Journal
from awsha.aws.errors import Ec2Error, Kind
from awsha.aws.permissions import CONFIG_TAG
from awsha.config.fingerprint import fingerprint
from awsha.core.judge_host import Published
from awsha.core.model import Unknown

PAUSES_S = (0.0, 5.0, 30.0, 120.0, 600.0)  # before each try; a tag that never comes is a finding of `awsha check`


def installed(config: Path) -> Published:
    """This file and this version. Raises AwshaError."""
    return Published(fingerprint(discovery.read(config).raw), __version__)


def told(published: Published) -> str:
    """The answer to the question `about` on the agent's socket."""
    return json.dumps({"config": published.fingerprint, "version": published.version})


def running() -> Published | Unknown | None:
    """What the agent of this node runs with; None when none answers."""
    answer = ask.ask("about")
    if answer is None:
        return None
    try:
        found = json.loads(answer)
        return Published(str(found["config"]), str(found["version"]))
    except (ValueError, KeyError, TypeError):
        return Unknown(f"the agent does not know the question: it is of an older version ({answer[:40]!r})")


def publish(node: Node, published: Published, journal: Journal, stop: threading.Event) -> threading.Thread:
    """Write the tag, in a thread of its own, which tries a few times: nothing of a failover waits for it."""
    own = next(iter(node.places.values())).me.instance_id
    tag = {"Resources": [own], "Tags": [{"Key": CONFIG_TAG, "Value": str(published)}]}

    def tell() -> None:
        for pause_s in PAUSES_S:
            if stop.wait(pause_s):
                return
            try:
                node.ec2.ask("CreateTags", tag)
            except Ec2Error as error:
                journal.say("config", f"not published to the peers: {error.message} (hint: {error.hint})")
                if error.kind is Kind.DENIED:
                    return
            else:
                return

    thread = threading.Thread(target=tell, name="publish", daemon=True)
    thread.start()
    return thread
