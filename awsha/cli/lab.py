"""`awsha lab …`: a whole pair on this machine, without an AWS account."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from typing import Any

import click

from awsha.core.errors import AwshaError
from awsha.core.policy import Timeouts
from awsha.lab.control import ask
from awsha.lab.settings import CLIENT, Shape, lab_from_environment

FAIL_KINDS = ("stop", "kill", "freeze", "partition", "power-off", "agent-kill", "api-cut")
FENCES = ("stop-instance", "force-detach", "none")
JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON for programs.")
HEAL_TIMEOUT_S = 150.0
REPORT_TIMEOUT_S = 60.0


@click.group()
@click.option("--prefix", metavar="NAME", help="Name of the lab; stands before AWSHA_LAB.")
def lab(prefix: str | None) -> None:
    """A whole pair on this machine, without an AWS account.

    Real keepalived, real file systems, each node in namespaces of its own, and an EC2 that follows EC2's rules.
    Needs root. AWSHA_LAB names the lab (default awshalab), so that two fit on one machine. To begin: awsha lab demo
    """
    if prefix is not None:
        os.environ["AWSHA_LAB"] = prefix


@lab.command()
@click.option("--nodes", default=2, show_default=True, help="Instances: a, b, c …")
@click.option("--volumes", default=1, show_default=True, help="EBS volumes in each group.")
@click.option("--vips", default=1, show_default=True, help="Addresses in each group.")
@click.option("--groups", default=1, show_default=True, help="Groups that move apart from each other.")
@click.option("--fence", default="stop-instance", show_default=True, type=click.Choice(FENCES))
@click.option("--latency", default="aws", show_default=True, type=click.Choice(["aws", "none"]), help="EC2's delays.")
@click.option("--fstype", default="ext4", show_default=True, type=click.Choice(["ext4", "xfs"]))
@click.option("--advert-int", default=0.2, show_default=True, metavar="SECONDS", help="Between VRRP adverts.")
@click.option("--open-files", default="", type=click.Choice(["", "wait", "terminate", "kill"]), help="As awsha.toml.")
@click.option("--timeout", "timeouts", multiple=True, metavar="NAME=SECONDS", help="One of [group.timeouts].")
@click.option("--application/--no-application", default=True, help="A record server on the volume, for the client.")
@click.option("--agent/--no-agent", default=True, help="Run `awsha agent` in each node.")
@click.option("--keepalived/--no-keepalived", default=True, help="Start keepalived in each node.")
@click.option("--vrrp-filtered", is_flag=True, help="No VRRP passes, as without a rule for protocol 112.")
@click.option("--wait/--no-wait", default=True, help="Wait until each group has a master that holds everything.")
@click.option("--deadline", "deadline_s", default=90.0, show_default=True, metavar="SECONDS", help="To come up.")
@JSON
def up(timeouts: tuple[str, ...], wait: bool, deadline_s: float, as_json: bool, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Start a pair, and wait until one node is master."""
    from awsha.lab.start import start

    here = lab_from_environment()
    if options["volumes"] == 0:
        options["application"] = False
    shape = Shape(**options, timeouts=_timeouts(timeouts))
    status = start(here, shape, deadline_s, converged=wait and not shape.vrrp_filtered)
    if as_json:
        click.echo(json.dumps(status, indent=2))
        return
    from awsha.lab.view import show_status, show_welcome

    show_status(status)
    show_welcome(here, status)


def _timeouts(words: tuple[str, ...]) -> dict[str, float]:
    found = {}
    known = [field.name for field in fields(Timeouts)]
    for word in words:
        name, _, seconds = word.partition("=")
        if name not in known:
            raise AwshaError(f"--timeout {word}: there is no such time-out", hint=f"known: {', '.join(known)}")
        try:
            found[name] = float(seconds)
        except ValueError:
            raise AwshaError(f"--timeout {word}: not NAME=SECONDS", hint="--timeout release_grace_s=1") from None
    return found


@lab.command()
def down() -> None:
    """Take the lab away, also after a crash. Leaves nothing behind."""
    from awsha.lab.start import stop

    here = lab_from_environment()
    click.echo("down" if stop(here) else f"no lab was up (prefix {here.prefix})")


@lab.command("exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("node")
@click.argument("command", nargs=-1, required=True, type=click.UNPROCESSED)
def exec_(node: str, command: tuple[str, ...]) -> None:
    """Run a command inside a node: awsha lab exec a -- awsha status"""
    from awsha.lab.enter import enter

    words = list(command[1:] if command[0] == "--" else command)
    if not words:
        raise AwshaError("no command given", hint=f"awsha lab exec {node} -- awsha status")
    enter(ask(lab_from_environment(), {"do": "enter", "node": node}), words)


@lab.command()
@click.argument("node")
@click.argument("kind", type=click.Choice(FAIL_KINDS))
def fail(node: str, kind: str) -> None:
    """Break a node: stop or kill keepalived, freeze all, cut VRRP or the EC2 API, take its power, kill its agent."""
    click.echo(ask(lab_from_environment(), {"do": "fail", "node": node, "kind": kind}))


@lab.command()
@click.argument("node")
def heal(node: str) -> None:
    """Undo whatever is wrong with a node; boots it when it is off."""
    click.echo(ask(lab_from_environment(), {"do": "heal", "node": node}, HEAL_TIMEOUT_S))


@lab.command()
@click.argument("action")
@click.option("--delay", type=float, metavar="SECONDS", help="EC2 gets the request this much later.")
@click.option("--error", metavar="CODE", help="Refuse with this code.")
@click.option("--after", is_flag=True, help="With --error: the call takes effect all the same.")
@click.option("--throttle", is_flag=True, help="RequestLimitExceeded.")
@click.option("--lost-reply", is_flag=True, help="The call takes effect, nobody answers.")
@click.option("--black-hole", is_flag=True, help="Nothing happens, nobody answers.")
@click.option("--stuck", type=click.Choice(["attaching", "busy"]), help="An attachment that gets no further.")
@click.option("--stale", type=float, metavar="SECONDS", help="Describe what was true this long ago.")
@click.option("--times", default=1, show_default=True, help="How often; 0: until cleared.")
@click.option("--node", metavar="NODE", help="Only calls of this node.")
@click.option("--match", help="Only calls that name this (a volume, a device).")
def fault(action: str, **options: Any) -> None:  # noqa: ANN401 - click's values
    """Make an EC2 action fail: awsha lab fault AttachVolume --lost-reply

    ACTION may also be '*' (every action of the API) or `metadata` (instance metadata).
    """
    ask(lab_from_environment(), {"do": "fault", "action": action, **fault_request(options)})
    times = "" if options["times"] == 1 else f" ({options['times'] or 'any number of'} times)"
    click.echo(f"{action} will fail{times}")


def fault_request(options: dict[str, Any]) -> dict[str, Any]:
    """The flags of `lab fault` as the daemon takes them. Raises AwshaError unless exactly one kind was named."""
    kinds: list[dict[str, Any]] = []
    if options["delay"] is not None:
        kinds.append({"kind": "delay", "seconds": options["delay"]})
    if options["error"]:
        kinds.append({"kind": "error", "code": options["error"], "after": options["after"]})
    if options["stale"] is not None:
        kinds.append({"kind": "stale", "seconds": options["stale"]})
    if options["stuck"]:
        kinds.append({"kind": f"stuck_{options['stuck']}"})
    kinds += [{"kind": kind} for kind in ("throttle", "lost_reply", "black_hole") if options[kind]]
    if len(kinds) != 1:
        hint = "for instance: awsha lab fault AttachVolume --error InternalError"
        raise AwshaError("exactly one kind of fault is needed", hint=hint)
    return {**kinds[0], "times": options["times"], "node": options["node"], "match": options["match"]}


@lab.command()
@click.option("--clear", is_flag=True, help="Forget them all.")
@JSON
def faults(clear: bool, as_json: bool) -> None:
    """List the faults that are still to strike, or clear them."""
    here = lab_from_environment()
    if clear:
        click.echo(ask(here, {"do": "clear_faults"}))
        return
    left = ask(here, {"do": "faults"})
    if as_json:
        click.echo(json.dumps(left, indent=2))
        return
    from awsha.lab.view import show_faults

    show_faults(left)


@lab.group()
def client() -> None:
    """A client that writes numbered records through the VIP."""


@client.command("start")
@click.option("--pause", "pause_s", default=0.01, show_default=True, metavar="SECONDS", help="Between two records.")
def client_start(pause_s: float) -> None:
    """Start writing; goes on until `stop`."""
    click.echo(ask(lab_from_environment(), {"do": "client_start", "pause_s": pause_s}))


@client.command("stop")
def client_stop() -> None:
    """Stop writing."""
    click.echo(ask(lab_from_environment(), {"do": "client_stop"}))


@client.command("report")
@JSON
def client_report(as_json: bool) -> int:
    """What was acknowledged, and what of it is lost. Exit code 1 when anything is lost or written twice."""
    report = ask(lab_from_environment(), {"do": "client_report"}, REPORT_TIMEOUT_S)
    if as_json:
        click.echo(json.dumps(report, indent=2))
    else:
        from awsha.lab.view import show_report

        show_report(report)
    return 1 if report["lost"] or report["duplicated"] else 0


@lab.command()
@JSON
def status(as_json: bool) -> int:
    """Every node, EC2's truth, who mounts what. Exit code 1 when there is a violation."""
    facts = ask(lab_from_environment(), {"do": "status"})
    if as_json:
        click.echo(json.dumps(facts, indent=2))
    else:
        from awsha.lab.view import show_status

        show_status(facts)
    return 1 if facts["violations"] else 0


@lab.command()
def endpoint() -> None:
    """Print what points any AWS client at the lab: eval "$(awsha lab endpoint)" """
    from awsha.lab import nodeconf

    here = lab_from_environment()
    port = ask(here, {"do": "endpoint"})["port"]
    values = {**nodeconf.environment(f"http://127.0.0.1:{port}"), "AWS_EC2_METADATA_DISABLED": "true"}
    names = list(ask(here, {"do": "status"})["nodes"])
    values["AWSHA_LAB"] = here.prefix
    values["AWSHA_LAB_NETNS"] = " ".join(here.netns(name) for name in (*names, CLIENT))
    for name, value in values.items():
        click.echo(f"export {name}={json.dumps(value)}")


@lab.command()
def demo() -> int:
    """Watch a pair hand over, crash, and lose its power, while a client writes. About a minute."""
    from awsha.lab.demo import demo as run

    return run(lab_from_environment())
