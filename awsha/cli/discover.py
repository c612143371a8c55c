"""`awsha discover`: what there is in EC2, found by tags, and an awsha.toml out of it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from awsha.core.errors import EX_CONFIG, AwshaError
from awsha.core.found import VIP_TAG, FoundInstance, FoundVolume, vips
from awsha.core.policy import Tags

if TYPE_CHECKING:
    from awsha.aws.ec2 import Ec2

STDOUT = Path("-")
TO_WRITE = frozenset({"vips", "mount", "group", "force"})


@dataclass(frozen=True)
class Seen:
    """What was asked for, where, and what there is."""

    region: str
    tags: Tags
    volume_tags: Tags
    instances: list[FoundInstance]
    volumes: list[FoundVolume]
    blocks: dict[str, str]  # of the instances' subnets, where something is to be written


def _tags(_ctx: click.Context, _option: click.Parameter, words: tuple[str, ...]) -> Tags:
    pairs: dict[str, str] = {}
    for word in words:
        key, sign, value = word.partition("=")
        if not key or not sign or key in pairs:
            raise click.BadParameter(f"{word}: write each tag once, as KEY=VALUE")
        pairs[key] = value
    return tuple(pairs.items())


@click.command()
@click.option("--tag", "tags", multiple=True, metavar="KEY=VALUE", callback=_tags, help="A tag that all of them have.")
@click.option(
    "--volume-tag",
    "volume_tags",
    multiple=True,
    metavar="KEY=VALUE",
    callback=_tags,
    help="A tag of the volumes; without one: the same as --tag.",
)
@click.option("--region", metavar="REGION", help="By default as in awsha.toml, AWS_REGION, or instance metadata.")
@click.option("--json", "as_json", is_flag=True, help="For programs.")
@click.option("--refresh", is_flag=True, help="Find the nodes of awsha.toml's [discover] anew, and keep them here.")
@click.option("--write", is_flag=True, help="Write the awsha.toml that --config names.")
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write this awsha.toml; its directory must exist; - is standard output.",
)
@click.option(
    "--vip",
    "vips",
    multiple=True,
    metavar="ADDRESS",
    help="To write: an address that moves; by default those that the tag awsha:vip of the volume or a node names.",
)
@click.option("--mount", metavar="PATH", help="To write: where the volume is mounted; without it: no volume.")
@click.option("--group", default="data", show_default=True, metavar="NAME", help="To write: what moves together.")
@click.option("--force", is_flag=True, help="Replace the file when it exists; never a directory or a symbolic link.")
@click.pass_context
def discover(ctx: click.Context, /, tags: Tags, region: str | None, **options: Any) -> int:  # noqa: ANN401 - options
    """List the instances and volumes that tags find, or write an awsha.toml out of them.

    Without --tag it takes the tags of [discover] in awsha.toml, and where there are none lists everything. To write,
    the tags must find two or more nodes of one subnet and, with --mount, one volume of their zone. --json with -o FILE
    writes the file and prints what was found.

    Exit code: 0 something was found (and written), 1 nothing was found or it can't be written, 2 options that do not go
    together, 78 what was found is no pair, or the awsha.toml would have a mistake.
    """
    config: Path = ctx.obj
    _refuse(ctx, options)
    if options["refresh"]:
        _refresh(config)
        return 0
    output: Path | None = options["output"] or (config if options["write"] else None)
    tags, region = _by_config(config, tags, region)
    seen = _look(tags, options["volume_tags"] or tags, region, writes=output is not None)
    if output is not None:
        _write(output, seen, options)
    if options["as_json"]:
        click.echo(json.dumps(_as_dict(seen), indent=2))
    elif output is None:
        _show(seen)
    return 0 if seen.instances or seen.volumes else 1


def _refuse(ctx: click.Context, options: dict[str, Any]) -> None:
    """Options that would be passed over in silence are a mistake of the one who typed them."""
    unset = (ParameterSource.DEFAULT, ParameterSource.DEFAULT_MAP)
    typed = {name for name in ctx.params if ctx.get_parameter_source(name) not in unset} - {"config"}
    flags = {option.name: option.opts[-1] for option in ctx.command.params}
    others = sorted(str(flags[name]) for name in typed - {"refresh"} if name in flags)
    if options["refresh"] and others:
        raise click.UsageError(f"--refresh goes alone: it takes the tags of awsha.toml. Leave out {', '.join(others)}")
    if {"output", "write"} <= typed:
        raise click.UsageError("give either -o FILE or --write")
    writes = {"output", "write"} & typed
    if not writes and (idle := typed & TO_WRITE):
        names = ", ".join(sorted(str(flags[name]) for name in idle))
        raise click.UsageError(f"{names}: what is it for? To write an awsha.toml add -o FILE or --write")
    if options["as_json"] and options["output"] == STDOUT:
        raise click.UsageError("--json and -o - would both write to standard output")


def _as_dict(seen: Seen) -> dict[str, Any]:
    return {
        "region": seen.region,
        "tags": dict(seen.tags),
        "volume_tags": dict(seen.volume_tags),
        "instances": [asdict(item) for item in seen.instances],
        "volumes": [asdict(item) for item in seen.volumes],
        "vips": vips(seen.instances, seen.volumes),
    }


def _by_config(config: Path, tags: Tags, region: str | None) -> tuple[Tags, str | None]:
    """Tags and region, from awsha.toml where they are not typed and there is a valid one."""
    from awsha.config.load import load

    if not config.exists():
        return tags, region
    try:
        policy = load(config)
    except AwshaError:
        if tags:
            return tags, region  # a broken file is no reason not to look
        raise
    return tags or (policy.discover.tags if policy.discover else ()), region or policy.region


def _look(tags: Tags, volume_tags: Tags, region: str | None, *, writes: bool) -> Seen:
    from awsha.aws import found
    from awsha.aws.ec2 import Ec2
    from awsha.aws.identity import region_of
    from awsha.aws.metadata import Metadata
    from awsha.core.policy import Policy

    ec2 = Ec2(region_of(Policy((), (), region=region), Metadata()))
    try:
        instances = found.instances(ec2, tags)
        account = found.account_of(instances[0].arn) if instances else ""  # nothing else says whose volumes they are
        volumes = found.volumes(ec2, volume_tags, account)
        blocks = _blocks(ec2, instances) if writes else {}
        return Seen(ec2.region, tags, volume_tags, instances, volumes, blocks)
    finally:
        ec2.close()


def _blocks(ec2: Ec2, instances: list[FoundInstance]) -> dict[str, str]:
    """The subnets' addresses, by subnet. Where EC2 does not tell, the VIP is not checked, and that is said."""
    from awsha.aws import inspect
    from awsha.aws.errors import Ec2Error

    try:
        return inspect.subnets(ec2, {item.subnet for item in instances if item.subnet})
    except Ec2Error as error:
        click.echo(f"awsha: warning: not checked that the VIP is in the subnet: {error.message}", err=True)
        return {}


def _refresh(config: Path) -> None:
    from awsha.agent.discovery import kept_file, read

    if os.geteuid() != 0:
        raise AwshaError(f"{kept_file()} is root's", hint="run as root")
    loaded = read(config, refresh=True)
    if loaded.policy.discover is None:
        raise AwshaError(f"{config} has no [discover]: its nodes are written", hint="awsha config show")
    for node in loaded.policy.nodes:
        click.echo(f"node {node.name}: {node.address}")
    click.echo(f"kept in {kept_file()}; next, on every node: awsha keepalived --node NODE, and restart the agent")


def _write(output: Path, seen: Seen, options: dict[str, Any]) -> None:
    from awsha.config.files import write_atomic
    from awsha.config.init import Wish, compose
    from awsha.core import found

    if not seen.tags:
        message = "no tags were given, and not all that is there is one pair"
        raise AwshaError(message, hint="awsha discover --tag KEY=VALUE …", exit_code=EX_CONFIG)
    nodes = found.nodes(seen.instances, seen.tags)
    addresses = options["vips"] or found.vips(seen.instances, seen.volumes)
    if not addresses:
        message = f"no volume and no node has a tag {VIP_TAG}, so the address that moves is not known"
        raise AwshaError(message, hint="--vip ADDRESS", exit_code=EX_CONFIG)
    mounts = []
    if options["mount"]:
        chosen = found.volume(seen.volumes, seen.volume_tags, seen.instances[0].zone)
        mounts = [f"{chosen.id}:{options['mount']}"]
    words = [f"{node.name}={node.address}" for node in nodes]
    wish = Wish(words, addresses, mounts, options["group"], region=seen.region)
    text = compose(wish, str(output))
    _in_subnet(tuple(addresses), seen.blocks.get(seen.instances[0].subnet, ""))
    if output == STDOUT:
        click.echo(text, nl=False)
        return
    write_atomic(output, text, 0o600, replace=options["force"], folders=options["write"])
    click.echo(f"wrote {output}: {', '.join([*words, *mounts])}", err=options["as_json"])


def _in_subnet(vips: tuple[str, ...], block: str) -> None:
    """That EC2 would assign these addresses in the nodes' subnet, `block` ("": not known)."""
    from awsha.core.judge_cloud import outside

    if wrong := [f"{vip} {why}" for vip in vips if block and (why := outside(vip, block))]:
        hint = "choose a free address of the subnet; its first four and its last are EC2's own"
        raise AwshaError("; ".join(wrong), hint=hint, exit_code=EX_CONFIG)


def _show(seen: Seen) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from awsha.core.found import spoken

    wide = max(Console().width, 240)  # an ARN is for copying: a terminal wraps the line, not the word
    console = Console(highlight=False, width=wide)
    console.print(Text(f"{seen.region}: {spoken(seen.tags)}", "dim"), soft_wrap=True)
    rows = {
        "instances": (
            ("name", "address", "state", "zone", "subnet", "ARN"),
            [(i.name, i.address, i.state, i.zone, i.subnet, i.arn or i.id) for i in seen.instances],
        ),
        "volumes": (
            ("name", "GiB", "state", "zone", "attached", "ARN"),
            [(v.name, str(v.size), v.state, v.zone, " ".join(v.attached), v.arn or v.id) for v in seen.volumes],
        ),
    }
    for title, (head, lines) in rows.items():
        table = Table(title=Text(title, "bold"), title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
        for word in head:
            table.add_column(word, overflow="fold")
        for line in lines:
            table.add_row(*map(Text, line))
        console.print()
        console.print(table if lines else Text(f"no {title}"))
