"""What this host's side of a pair lacks, and whether the nodes agree. Pure: facts in, findings out.

An Unknown part gives no finding here: whoever read it has reported that (`no-answer`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from awsha.core.findings import Code, Finding
from awsha.core.model import Unknown
from awsha.core.policy import Group, Volume

CLOCK_S = 5.0  # a peer's releasing tag is judged by its age; a handover takes seconds
DATE_S = 1.0  # an HTTP date has whole seconds
OLDEST_KEEPALIVED = (2, 2)
# systemctl(1), is-enabled. "disabled", "static", "indirect" (another unit is named in its Also=) and "linked" do not
# start a unit at boot; "generated" does when the generator has also made a link that wants it.
NO_UNIT: Mapping[str, str] = {
    "not-found": "install {unit} on this node",
    "masked": "systemctl unmask {unit}",
    "masked-runtime": "systemctl unmask --runtime {unit}",
    "bad": "systemd-analyze verify {unit}",
    "transient": "write a unit file: systemctl edit --full --force {unit}",
}
UNIT_STATES = frozenset(
    {*NO_UNIT, "enabled", "enabled-runtime", "linked", "linked-runtime", "alias", "static", "indirect", "disabled"}
    | {"generated"}
)
# systemd.mount(5): with these a mount point is mounted at boot, or as soon as somebody looks at it, noauto or not.
FSTAB_ASKS = frozenset(
    {"x-systemd.automount", "comment=systemd.automount", "x-systemd.wanted-by", "x-systemd.required-by"}
)
BASE_TOOLS = ("mount", "umount", "blkid")
FS_TOOLS = {
    "ext2": ("e2fsck",), "ext3": ("e2fsck",), "ext4": ("e2fsck",),
    "xfs": ("xfs_repair", "xfs_logprint"), "btrfs": ("btrfs",),
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class MountPoint:
    """A configured mount point as it is. `entries`: how many names it holds, counted to 3; None while mounted."""

    path: str
    exists: bool
    directory: bool
    parent: bool
    mounted: bool
    foreign: str = ""  # what else is mounted there
    entries: tuple[str, ...] | None = None
    real: str = ""  # where it leads, when a symbolic link is in it


@dataclass(frozen=True, slots=True)
class FstabLine:
    """One line of /etc/fstab. `options`: in their order."""

    target: str
    options: tuple[str, ...] = ()

    def mounted_by(self) -> str:
        """The option with which systemd mounts it unasked; "auto", the default, where none is written. "" for none."""
        if asked := [option for option in self.options if FSTAB_ASKS & {option, option.partition("=")[0]}]:
            return asked[0]
        said = [option for option in self.options if option in ("auto", "noauto")]
        return "" if said[-1:] == ["noauto"] else "auto"  # the last one counts, as with mount(8)


@dataclass(frozen=True, slots=True)
class Keepalived:
    """keepalived on this host. `config` and `wanted` are texts; None when there is no file."""

    version: tuple[int, ...] | None
    config: str | None
    wanted: str | None
    refused: str = ""  # what its own test says
    running: bool = True
    unread: str = ""  # why a file that is there could not be read
    awsha: str = "awsha"  # what to type before the command's name


@dataclass(frozen=True, slots=True)
class UnitFile:
    """The application's unit. `state` by is-enabled, of the unit itself: where awsha.toml has an alias, of `real`.

    `links`: what wants it below /run, where generators and people put such links. `started_by`: the socket, the timer
    and the path unit of the same name, those that are enabled at boot.
    """

    state: str
    real: str = ""
    links: tuple[str, ...] = ()
    started_by: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class FileSystem:
    """A volume's file system. `device`: its path, "" when it is not attached here; then nothing is `found` on it.

    `known`: whether this kernel has the type. `refused`: mount options that it does not take, with the reason.
    """

    volume: Volume
    device: str = ""
    found: str | None = None
    known: bool = True
    refused: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class HookFile:
    """Something below the hooks' folder that is not run: because it is not safe to (with a hint), or by what it is."""

    path: str
    refused: str = ""
    hint: str = ""
    ignored: str = ""


@dataclass(frozen=True, slots=True)
class Published:
    """What an agent says that it runs with."""

    fingerprint: str
    version: str

    def __str__(self) -> str:
        """As the value of the tag `awsha:config`."""
        return f"{self.fingerprint} {self.version}"

    @staticmethod
    def parse(value: str | None) -> Published | None:
        """Read the tag's value back; None when there is none, or something else wrote it."""
        fingerprint, _, version = (value or "").partition(" ")
        good = len(fingerprint) == 16 and all(c in "0123456789abcdef" for c in fingerprint) and version
        return Published(fingerprint, version) if good else None


@dataclass(frozen=True, slots=True)
class ClockReading:
    """Seconds that this host is ahead of EC2, and how long the question took."""

    ahead_s: float
    took_s: float


def mount_points(points: tuple[MountPoint, ...] | Unknown, fstab: tuple[FstabLine, ...] | Unknown) -> Iterator[Finding]:
    """Mount points, and what boot does with them."""
    if not isinstance(points, Unknown):
        for point in points:
            yield from _mount_point(point)
    if isinstance(points, Unknown) or isinstance(fstab, Unknown):
        return
    for line in fstab:
        by = line.mounted_by() if line.target in {point.path for point in points} else ""
        if by == "auto":
            yield Finding(Code.FSTAB, f"/etc/fstab mounts {line.target} at boot", line.target)
        elif by:
            what = f"/etc/fstab mounts {line.target} by its option {by}, noauto or not"
            hint = f"take the line out of /etc/fstab, or {by} out of its options and noauto in; systemctl daemon-reload"
            yield Finding(Code.FSTAB, what, line.target, hint)


def _mount_point(point: MountPoint) -> Iterator[Finding]:
    if point.foreign:
        yield Finding(Code.MOUNT_POINT_TAKEN, f"{point.foreign} is mounted at {point.path}", point.path)
    elif point.mounted:
        return
    elif point.real:
        what = f"{point.path} is a symbolic link, or below one (to {point.real}): nothing is mounted through a link"
        hint = f'write mount = "{point.real}" into awsha.toml'
        yield Finding(Code.MOUNT_POINT, what, point.path, hint)
    elif point.exists and not point.directory:
        yield Finding(Code.MOUNT_POINT, f"{point.path} is no directory", point.path, f"move {point.path} away")
    elif not point.exists and not point.parent:
        yield Finding(Code.MOUNT_POINT, f"{point.path} has no parent directory", point.path, f"mkdir -p {point.path}")
    elif point.entries:
        names = ", ".join(point.entries[:3])
        what = f"nothing is mounted at {point.path}, and it holds files ({names})"
        yield Finding(Code.MOUNT_POINT_NOT_EMPTY, what, point.path, f"ls -la {point.path}; move them away")


def tools_needed(fstypes: frozenset[str]) -> tuple[str, ...]:
    """The programs that a takeover runs, for these types of file systems."""
    return (*BASE_TOOLS, *sorted({tool for fstype in fstypes for tool in FS_TOOLS.get(fstype, ())}))


def tools(missing: Mapping[str, str] | Unknown) -> Iterator[Finding]:
    """Missing programs: name -> package."""
    if isinstance(missing, Unknown):
        return
    for tool, package in missing.items():
        yield Finding(Code.TOOL_MISSING, f"there is no program {tool}", tool, f"install {package or tool}")


def file_system(facts: FileSystem | Unknown) -> Iterator[Finding]:
    """What is on a volume against what awsha.toml says, and the options that the mount would be refused with."""
    if isinstance(facts, Unknown):
        return
    volume, name = facts.volume, facts.volume.id or facts.volume.mount
    fstype = volume.fstype or facts.found
    if facts.device and facts.found is None:
        hint = f"if it is meant to be empty: mkfs.{fstype or 'ext4'} {facts.device}"
        yield Finding(Code.FILE_SYSTEM, f"{facts.device} ({name}) carries no file system", name, hint)
    elif facts.device and volume.fstype and facts.found != volume.fstype:
        what = f"{facts.device} ({name}) carries {facts.found}, awsha.toml says {volume.fstype}"
        yield Finding(Code.FILE_SYSTEM, what, name, f'write fstype = "{facts.found}" into awsha.toml, or leave it out')
    if not facts.known:
        what = f"this kernel has no file system {fstype}, which {name} is to be mounted as"
        hint = f"modprobe {fstype}; install the kernel's modules, or correct fstype in awsha.toml"
        yield Finding(Code.FILE_SYSTEM, what, name, hint)
    for option, reason in facts.refused.items():
        what = f"{fstype} of {volume.mount} does not take the mount option {option}: {reason}"
        yield Finding(Code.MOUNT_OPTIONS, what, volume.mount)


def unsafe(places: tuple[HookFile, ...] | Unknown) -> Iterator[Finding]:
    """Files and folders that decide what root does, and that others could have written."""
    if not isinstance(places, Unknown):
        for place in places:
            yield Finding(Code.CONFIG_UNSAFE, f"{place.path}: {place.refused}", place.path, place.hint)


def hooks(files: tuple[HookFile, ...] | Unknown) -> Iterator[Finding]:
    """Hooks that would be refused, and files that are none."""
    if isinstance(files, Unknown):
        return
    for file in files:
        if file.refused:
            yield Finding(Code.HOOK_UNSAFE, f"{file.path} would not be run: {file.refused}", file.path, file.hint)
        else:
            yield Finding(Code.HOOK_IGNORED, f"{file.path} is never run: {file.ignored}", file.path)


def notices(failed: Mapping[str, tuple[str, str]]) -> Iterator[Finding]:
    """Ways to tell somebody that do not work: way -> (why, hint)."""
    for way, (why, hint) in failed.items():
        yield Finding(Code.NOTIFY, f"{way}: {why}", way, hint)


def application(group: Group, unit: UnitFile | Unknown | None, missing: tuple[str, ...]) -> Iterator[Finding]:
    """The unit, or the programs that cannot be run."""
    if group.application and group.application.unit and isinstance(unit, UnitFile):
        yield from _unit(group.name, group.application.unit, unit)
    for program in missing:
        what = f"{program} of group {group.name} is not there, or can't be run"
        yield Finding(Code.PROGRAM_MISSING, what, program)


def _unit(group: str, named: str, unit: UnitFile) -> Iterator[Finding]:
    """What matters is that awsha alone starts it, now and after a boot."""
    name = unit.real or named
    what = f"{name} of group {group}" + (f" (by its alias {named})" if unit.real else "") + f" is {unit.state}"
    links = f" ({', '.join(unit.links)})" if unit.links else ""
    if unit.state in NO_UNIT:
        yield Finding(Code.UNIT_MISSING, what, named, NO_UNIT[unit.state].format(unit=name))
    elif unit.state == "enabled":
        hint = f"systemctl disable {name} (awsha starts and stops it)"
        # the alias may be a link of the same [Install] section, and go with it
        more = f'; write unit = "{name}" into awsha.toml, the alias may go with it' if unit.real else ""
        yield Finding(Code.UNIT_ENABLED, f"{what} at boot", named, hint + more)
    elif unit.state == "generated" and unit.links:
        hint = "switch it off in the file that its generator reads (systemctl cat shows it), like /etc/fstab by noauto"
        yield Finding(Code.UNIT_ENABLED, f"{what} at boot, and wanted{links}", named, hint)
    elif unit.state in ("enabled-runtime", "linked-runtime"):
        generated = any("/generator" in link for link in unit.links)
        hint = "switch it off where its generator reads that" if generated else f"systemctl disable --runtime {name}"
        if unit.state == "linked-runtime":
            hint = (
                f"systemctl disable --runtime {name}; systemctl link, or a file in /etc/systemd/system, outlives a boot"
            )
        yield Finding(Code.UNIT_RUNTIME, what + links, named, hint)
    for other in unit.started_by:
        what = f"{other}, which starts {name} of group {group}, is enabled at boot"
        yield Finding(Code.UNIT_ENABLED, what, other, f"systemctl disable --now {other}")


def net_utils(interface: str, manages: bool | Unknown) -> Iterator[Finding]:
    """Who else manages the interface."""
    if manages is True:
        yield Finding(
            Code.NET_UTILS,
            f"amazon-ec2-net-utils manages {interface}",
            interface,
            f"systemctl mask --now refresh-policy-routes@{interface}.timer policy-routes@{interface}.service",
        )


def written(files: Mapping[str, str] | Unknown) -> Iterator[Finding]:
    """VIPs in the network configuration: VIP -> file."""
    if not isinstance(files, Unknown):
        for vip, file in files.items():
            yield Finding(Code.VIP_IN_NETWORK_CONFIG, f"{file} gives {vip} to this host at boot", vip)


def keepalived(node: str, found: Keepalived | Unknown) -> Iterator[Finding]:
    """keepalived's version, its file, and whether it runs."""
    if isinstance(found, Unknown):
        return
    if found.version is None:
        yield Finding(Code.KEEPALIVED_MISSING, "there is no program keepalived", "keepalived")
        return
    if found.version < OLDEST_KEEPALIVED:
        text = ".".join(str(part) for part in found.version)
        yield Finding(Code.KEEPALIVED_VERSION, f"keepalived is {text}", "keepalived")
    path = "/etc/keepalived/keepalived.conf"
    generate = f"{found.awsha} keepalived --node {node} > {path}; systemctl reload keepalived"
    if found.config is None and found.unread:
        what, hint = f"{path} cannot be read: {found.unread}", f"ls -ld {path}; move it away, then {generate}"
        yield Finding(Code.KEEPALIVED_CONFIG, what, path, hint)
    elif found.config is None:
        yield Finding(Code.KEEPALIVED_CONFIG, f"there is no {path}", path, generate)
    elif found.wanted is not None and found.config != found.wanted:
        yield Finding(Code.KEEPALIVED_CONFIG, _difference(path, found.config, found.wanted), path, generate)
    if found.refused:
        yield Finding(Code.KEEPALIVED_REFUSES, f"keepalived --config-test: {found.refused}", path)
    if not found.running:
        yield Finding(Code.KEEPALIVED_DOWN, "no keepalived runs on this node", "keepalived")


def _difference(path: str, is_now: str, wanted: str) -> str:
    """The first line that differs, for people."""
    here, there = is_now.splitlines(), wanted.splitlines()
    for number, (own, generated) in enumerate(zip(here, there, strict=False), 1):
        if own != generated:
            return f"{path}:{number} says {own.strip()!r}, awsha would write {generated.strip()!r}"
    return f"{path} has {len(here)} lines, awsha would write {len(there)}"


def script_security(command: str, exists: bool, refused: str | None) -> Iterator[Finding]:
    """Whether keepalived would run awsha. `refused` is the reason why not."""
    if not exists:
        hint = "install awsha there, or correct command in awsha.toml"
        yield Finding(Code.SCRIPT_SECURITY, f"{command} is not there: keepalived would run nothing", command, hint)
    elif refused:
        yield Finding(Code.SCRIPT_SECURITY, f"keepalived would not run {command}: {refused}", command)


def clock(reading: ClockReading | Unknown) -> Iterator[Finding]:
    """This host's clock against EC2's."""
    if isinstance(reading, Unknown):
        return
    if abs(reading.ahead_s) > CLOCK_S + DATE_S + reading.took_s:
        way = "ahead of" if reading.ahead_s > 0 else "behind"
        yield Finding(Code.CLOCK, f"this host's clock is {abs(reading.ahead_s):.0f} s {way} EC2's", "clock")


def agent(here: Published, running: Published | Unknown | None) -> Iterator[Finding]:
    """The agent of this node against what is installed. `running`: None when none answers."""
    if running is None:
        yield Finding(Code.AGENT_DOWN, "no agent answers on this node", "agent")
    elif not isinstance(running, Unknown) and running != here:
        parts = []
        if running.fingerprint != here.fingerprint:
            parts.append(f"awsha.toml is {here.fingerprint} now, the agent has read {running.fingerprint}")
        if running.version != here.version:
            parts.append(f"awsha is {here.version} now, the agent is {running.version}")
        yield Finding(Code.AGENT_OUTDATED, "; ".join(parts), "agent")


def peers(here: Published, published: Mapping[str, Published | None]) -> Iterator[Finding]:
    """Whether the peers run with the same file. `published`: by node; None when it has told nothing."""
    for name, theirs in published.items():
        if theirs is None:
            yield Finding(Code.PEER_UNPUBLISHED, f"node {name} has not published its configuration", name)
            continue
        if theirs.fingerprint != here.fingerprint:
            what = f"node {name} runs with awsha.toml {theirs.fingerprint}, here it is {here.fingerprint}"
            yield Finding(Code.PEER_CONFIG, what, name)
        if theirs.version != here.version:
            what = f"node {name} runs awsha {theirs.version}, here it is {here.version}"
            yield Finding(Code.PEER_VERSION, what, name)
