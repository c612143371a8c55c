"""`awsha check`: reads everything side by side, bounded, and lets the core judge. Changes nothing.

Each read either gives facts or becomes a finding itself: `permission` when EC2 refuses it, `no-answer` otherwise.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from awsha import __version__
from awsha.agent import about, discovery, hooks, notices
from awsha.agent import preflight_ec2 as cloud_reads
from awsha.agent import preflight_host as host
from awsha.agent.assembly import network_interfaces
from awsha.agent.preflight_reads import Progress, Reads, Task, denied
from awsha.aws.ec2 import Ec2
from awsha.aws.errors import Ec2Error, Kind
from awsha.aws.identity import region_of, this_node
from awsha.aws.metadata import Metadata, MetadataError, MetadataKind
from awsha.aws.permissions import partition_of
from awsha.config.fingerprint import fingerprint
from awsha.config.load import Loaded
from awsha.config.machine import script_refused
from awsha.config.problems import ConfigError, Problem
from awsha.core import judge_cloud, judge_host
from awsha.core.cloudfacts import Cloud
from awsha.core.errors import AwshaError
from awsha.core.findings import Code, Finding, ordered
from awsha.core.judge_host import Published
from awsha.core.model import Unknown
from awsha.core.notice import trial
from awsha.core.policy import Group, Node, Policy, Volume

CONFIGURATION = "configuration"
NO_DRY_RUN = "whether this node may publish to {topic}: SNS can't be asked without sending (awsha check --notify sends)"


@dataclass
class Report:
    """What was found. `checked`: reads that were made, by name. `not_asked`: what can't be asked without an effect."""

    findings: list[Finding]
    checked: list[str] = field(default_factory=list)
    node: str | None = None
    region: str | None = None
    took_s: float = 0.0
    not_asked: list[str] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Nothing at all was found."""
        return not self.findings


@dataclass(frozen=True)
class Here:
    """This node, as far as it can be told without EC2. `interfaces`: those that the groups use."""

    node: Node
    interfaces: tuple[str, ...]


def check(config: Path, progress: Progress = lambda _done, _total, _name: None, *, notify: bool = False) -> Report:
    """Everything about this pair, as seen from here. Raises nothing that a configuration or EC2 can cause.

    `notify`: send a test notice as well, by what [notify] has; it is the one thing here that anybody notices.
    """
    began = time.monotonic()
    try:
        report = _check(discovery.read(config), progress, notify)
    except ConfigError as error:
        report = Report([_mistake(problem) for problem in error.problems], [CONFIGURATION])
    except AwshaError as error:
        report = Report(_undiscovered(error), [CONFIGURATION])
    report.findings = ordered(report.findings)
    report.took_s = time.monotonic() - began
    return report


def _undiscovered(error: AwshaError) -> list[Finding]:
    """Why [discover] found no nodes: EC2 refused or did not answer, or what its tags find is no pair."""
    if isinstance(error, Ec2Error) and error.kind is Kind.DENIED:
        return denied(error, "[discover]")
    if isinstance(error, Ec2Error):
        return [Finding(Code.NO_ANSWER, f"[discover]: {error.message}", error.action, error.hint)]
    code = Code.REGION if isinstance(error.__cause__, MetadataError) else Code.CONFIG
    return [Finding(code, f"[discover] {error.message}", "discover", error.hint)]


def _mistake(problem: Problem) -> Finding:
    place = f"{problem.file}:{problem.line}" if problem.line else problem.file
    what = f"{place}: {problem.key}: {problem.reason}" if problem.key else f"{place}: {problem.reason}"
    return Finding(Code.CONFIG, what, problem.key, problem.hint)


def _check(loaded: Loaded, progress: Progress, notify: bool) -> Report:
    findings: list[Finding] = []
    policy, metadata, reads = loaded.policy, Metadata(), Reads(progress)
    here = _here(policy, findings)
    region = _region(policy, metadata, findings)
    ec2 = Ec2(region) if region else None

    got = reads.run(
        {"metadata": partial(_metadata, metadata)}
        | (cloud_reads.first(ec2, policy) if ec2 else {})
        | (_host_reads(policy, here, Path(loaded.file)) if here else {})
    )
    volumes = got.get(cloud_reads.VOLUMES)
    if isinstance(volumes, cloud_reads.Resolved):
        policy = volumes.policy
        findings += volumes.findings
    cloud = cloud_reads.put_together(got)
    got |= reads.run(
        (cloud_reads.second(ec2, cloud) if ec2 else {})
        | (_disk_reads(policy, cloud_reads.device_names(cloud, here.node)) if here else {})
    )
    cloud = cloud_reads.put_together(got)
    if ec2 is not None:
        if here is not None:
            findings += judge_cloud.permissions(cloud_reads.refusals(reads, ec2, policy, cloud, here.node))
        ec2.close()

    findings += judge_cloud.judge(policy, cloud)
    findings += judge_cloud.arns(_arns(loaded), _place(got["metadata"], region, cloud, here))
    findings += _of_metadata(got["metadata"], policy, cloud, here)
    if here is not None:
        published = Published(fingerprint(loaded.raw), __version__)
        findings += _of_host(policy, here, got)
        findings += judge_host.agent(published, got["agent"])
        findings += judge_host.peers(published, cloud_reads.published(cloud, here.node))
    tried = reads.run(notice_reads(policy, here.node.name if here else "?", send=notify))
    findings += judge_host.notices({way: why for way, why in tried.items() if isinstance(why, tuple)})
    findings += judge_host.clock(got.get(cloud_reads.CLOCK, cloud_reads.UNASKED))
    findings += reads.all_findings()
    return Report(
        findings,
        [CONFIGURATION, *reads.names],
        here.node.name if here else None,
        region,
        not_asked=[] if notify or not policy.notify.sns_topic else [NO_DRY_RUN.format(topic=policy.notify.sns_topic)],
    )


def notice_reads(policy: Policy, node: str, *, send: bool) -> dict[str, Task]:
    """For each way of [notify]: None when it works, else why not and a hint. Without `send`: as far as can be seen."""
    told, wanted = trial(policy.groups[0].name, node, time.time()), policy.notify
    tasks: dict[str, Task] = {}
    if wanted.command:
        work = partial(notices.tell_command, wanted.command, told) if send else partial(_runnable, wanted.command[0])
        tasks[f"notice by {notices.COMMAND}"] = partial(_why_not, work)
    if wanted.sns_topic and send:
        tasks[f"notice by {notices.TOPIC}"] = partial(_why_not, partial(notices.tell_topic, wanted.sns_topic, told))
    return tasks


def _why_not(work: Callable[[], None]) -> tuple[str, str] | None:
    try:
        work()
    except AwshaError as error:
        return error.message, error.hint
    return None


def _runnable(program: str) -> None:
    """Raises AwshaError when a program would not be run, or can't be."""
    notices.refuse(program)
    if not os.access(program, os.X_OK):
        raise AwshaError(f"{program} is not executable", hint=f"chmod +x {program}")


# --- who and where ---------------------------------------------------------------------------------------------


def _here(policy: Policy, findings: list[Finding]) -> Here | None:
    try:
        local = network_interfaces()
        node, face = this_node(policy, local)
    except AwshaError as error:
        findings.append(Finding(Code.NOT_A_NODE, error.message, "", error.hint))
        return None
    names = {face.name for face in local}
    used = tuple(dict.fromkeys(group.interface or face.name for group in policy.groups))
    for name in used:
        if name not in names:
            what = f"node {node.name} has no interface {name} (it has {', '.join(sorted(names))})"
            findings.append(Finding(Code.NOT_A_NODE, what, name, "correct interface in awsha.toml, or leave it out"))
    return Here(node, used)


def _region(policy: Policy, metadata: Metadata, findings: list[Finding]) -> str | None:
    try:
        return region_of(policy, metadata)
    except AwshaError as error:
        findings.append(Finding(Code.REGION, error.message, "region", error.hint))
        return None


def _metadata(metadata: Metadata) -> Mapping[str, str] | MetadataKind:
    """The identity document. No answer is an answer here: why there is none is judged, not only reported."""
    try:
        return metadata.document()
    except MetadataError as error:
        return error.kind
    finally:
        metadata.close()


def _of_metadata(found: object, policy: Policy, cloud: Cloud, here: Here | None) -> list[Finding]:
    """What the identity document says, or why there is none."""
    own = judge_cloud.chosen(cloud).get(here.node.name) if here else None
    if isinstance(found, MetadataKind):
        if found is MetadataKind.TIMEOUT and own is not None and own.hop_limit == 1:
            what = f"instance metadata does not answer in time, and the hop limit of {own.id} is 1"
            return [Finding(Code.METADATA_HOP_LIMIT, what, own.id, _hops(own.id))]
        what = f"instance metadata does not answer: {found}"
        return [Finding(Code.METADATA, what, own.id if own else "", MetadataError(found, "").hint)]
    if not isinstance(found, Mapping):
        return []  # a read that never ended: reported as such
    findings = []
    region, instance = found.get("region"), found.get("instanceId")
    if policy.region and region and policy.region != region:
        what = f"awsha.toml says {policy.region}, this instance is in {region}"
        findings.append(Finding(Code.REGION, what, "region"))
    if own is not None and instance and own.id != instance:
        what = f"this instance is {instance} by its metadata, and {own.id} by awsha.toml and EC2"
        findings.append(Finding(Code.INSTANCE_MISMATCH, what, here.node.name if here else ""))
    return findings


def _arns(loaded: Loaded) -> list[str]:
    """The volumes that awsha.toml names by ARN. What counts for a takeover is the id in it."""
    written = [volume.get("id") for group in loaded.raw["group"] for volume in group.get("volume", ())]
    return [name for name in written if isinstance(name, str) and name.startswith("arn:")]


def _place(found: object, region: str | None, cloud: Cloud, here: Here | None) -> judge_cloud.Place:
    """Where this instance is, by its identity document, else as far as EC2 has told."""
    document = found if isinstance(found, Mapping) else {}
    own = judge_cloud.chosen(cloud).get(here.node.name) if here else None
    account = document.get("accountId") or (own.account if own else "")
    at = document.get("region") or region or ""
    return judge_cloud.Place(partition_of(at) if at else "", at, account)


def _hops(instance_id: str) -> str:
    return (
        f"aws ec2 modify-instance-metadata-options --instance-id {instance_id} --http-put-response-hop-limit 2 "
        "(awsha in a container); otherwise look for a firewall rule"
    )


# --- this host -------------------------------------------------------------------------------------------------


def _host_reads(policy: Policy, here: Here, toml: Path) -> dict[str, Task]:
    vips = [vip for group in policy.groups for vip in group.vips]
    tasks: dict[str, Task] = {
        "agent": about.running,
        "fstab": host.fstab,
        "network configuration": partial(host.vips_written, vips),
        "keepalived": partial(host.keepalived, policy, here.node.name, here.interfaces[0], toml=toml),
        "command": partial(host.command, policy),
        "rights": partial(host.unsafe, toml),
        "hooks": partial(hooks.inspect, frozenset(group.name for group in policy.groups)),
    }
    tasks |= {f"net-utils {name}": partial(host.net_utils, name) for name in here.interfaces}
    units = [group.application.unit for group in policy.groups if group.application and group.application.unit]
    return tasks | {f"unit {unit}": partial(host.unit_file, unit) for unit in units}


def _disk_reads(policy: Policy, names: Mapping[str, str]) -> dict[str, Task]:
    volumes = [volume for group in policy.groups for volume in group.volumes if volume.id]
    systems = {_system(v): partial(host.file_system, v, names.get(v.id or "", "")) for v in volumes}
    return systems | {
        "mount points": partial(host.mount_points, volumes, names),
        "programs": lambda: host.missing(judge_host.tools_needed(host.fstypes(volumes, names)) if volumes else ()),
    }


def _system(volume: Volume) -> str:
    return f"file system of {volume.id}"


def _of_host(policy: Policy, here: Here, got: Mapping[str, Any]) -> list[Finding]:
    findings = [
        *judge_host.mount_points(got["mount points"], got["fstab"]),
        *judge_host.tools(got["programs"]),
        *judge_host.keepalived(here.node.name, got["keepalived"]),
        *judge_host.written(got["network configuration"]),
        *judge_host.unsafe(got["rights"]),
        *judge_host.hooks(got["hooks"]),
    ]
    if not isinstance(got["command"], Unknown):
        command, exists = got["command"]
        findings += judge_host.script_security(command, exists, script_refused(command))
    for volume in (volume for group in policy.groups for volume in group.volumes if volume.id):
        findings += judge_host.file_system(got[_system(volume)])
    for name in here.interfaces:
        findings += judge_host.net_utils(name, got[f"net-utils {name}"])
    for group in policy.groups:
        findings += _of_application(group, got)
    return findings


def _of_application(group: Group, got: Mapping[str, Any]) -> list[Finding]:
    if group.application is None:
        return []
    state = got.get(f"unit {group.application.unit}")
    return list(judge_host.application(group, state, host.programs_missing(group.application, group.volumes)))
