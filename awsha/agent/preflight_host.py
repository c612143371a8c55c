"""Reads this host for `awsha check`: each function answers one question, changes nothing, and has a bound.

What cannot be read raises (OSError, AwshaError) or is Unknown; the caller turns both into a finding.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import stat
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from awsha.agent import paths
from awsha.config.keepalived import Interface, render
from awsha.config.machine import configuration, path_refused, running_command
from awsha.config.paths import CONFIG, run_dir
from awsha.core.errors import AwshaError
from awsha.core.judge_host import UNIT_STATES, FileSystem, FstabLine, HookFile, Keepalived, MountPoint, UnitFile
from awsha.core.model import Device, Unknown
from awsha.core.policy import Application, Policy, Volume
from awsha.host import blockdev, mountoptions, mounts
from awsha.host.run import DIRECTORIES, PACKAGES, RunError, last_lines, run

PROGRAM_S = 5.0
KEEPALIVED_CONF = Path("/etc/keepalived/keepalived.conf")
# Where a distribution writes which addresses this host has. What is below /run is made anew from these.
NETWORK_FILES = (
    "etc/netplan/*.yaml", "etc/network/interfaces", "etc/network/interfaces.d/*", "etc/systemd/network/*.network",
    "etc/systemd/network/*.network.d/*.conf", "etc/sysconfig/network-scripts/ifcfg-*",
    "etc/NetworkManager/system-connections/*", "etc/sysconfig/network/ifcfg-*",
)  # fmt: skip
UNIT_DIRECTORIES = (
    "etc/systemd/system", "run/systemd/system", "usr/local/lib/systemd/system", "usr/lib/systemd/system",
    "lib/systemd/system",
)  # fmt: skip
# What is made anew at each boot: by generators, and by `systemctl enable --runtime`.
RUN_UNITS = tuple(f"run/systemd/{name}" for name in ("generator.early", "system", "generator", "generator.late"))
WANTS = ("wants", "requires", "upholds")
NET_UTILS_UNIT = "refresh-policy-routes@"
LARGEST_FILE = 1 << 20


def unsafe(config: Path) -> tuple[HookFile, ...]:
    """What decides what root does here, and could have been written by others. What is not there is no finding."""
    places = dict.fromkeys((config.absolute(), KEEPALIVED_CONF, paths.run_dir(), paths.state_dir()))
    refused = {place: path_refused(place) for place in places if place.exists()}
    return tuple(HookFile(str(place), *why) for place, why in refused.items() if why is not None)


def which(program: str) -> str | None:
    """The file that would be run: in PATH, or where file system tools live."""
    return shutil.which(program, path=":".join([os.environ.get("PATH", ""), *DIRECTORIES]))


def read_regular(path: Path) -> str:
    """The text of a file. Raises OSError (with its name), also for what is no regular file: nothing is waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.EINVAL, "it is no regular file", str(path))
    with os.fdopen(descriptor, "rb") as stream:
        return stream.read(LARGEST_FILE).decode("utf-8", "replace")


def fstab(path: Path = Path("/etc/fstab")) -> tuple[FstabLine, ...]:
    """The lines of /etc/fstab (fstab(5)); without the file there are none."""
    try:
        text = read_regular(path)
    except FileNotFoundError:
        return ()
    lines = []
    for line in text.splitlines():
        fields = line.split("#", 1)[0].split()
        if len(fields) >= 2:
            target = re.sub(r"\\([0-7]{3})", lambda match: chr(int(match[1], 8)), fields[1])
            options = tuple(fields[3].split(",")) if len(fields) > 3 else ()
            lines.append(FstabLine(os.path.normpath(target), options))
    return tuple(lines)


def mount_points(volumes: Sequence[Volume], ec2_names: Mapping[str, str]) -> tuple[MountPoint, ...] | Unknown:
    """The mount points of volumes with ids. `ec2_names`: volume id -> EC2's device name, where it is attached here."""
    table, disks = mounts.read(), blockdev.scan()
    if isinstance(table, Unknown):
        return table
    if isinstance(disks, Unknown):
        return disks
    found = []
    for volume in volumes:
        device = disks.device(volume.id or "", ec2_names.get(volume.id or "", ""))
        facts = mounts.disk_facts(volume, device, table, disks)
        if isinstance(facts.mount, Unknown):
            return facts.mount
        path, foreign = Path(volume.mount), ""
        if facts.mount is not None:
            # a mount that is there is not looked into: its disk may have been lost, and then that never ends
            foreign = facts.mount.source if facts.foreign else ""
            found.append(MountPoint(volume.mount, True, True, True, True, foreign))
            continue
        directory = path.is_dir()
        entries = tuple(islice((entry.name for entry in path.iterdir()), 3)) if directory else ()
        exists = directory or path.exists() or path.is_symlink()
        real = os.path.realpath(path)
        link = real if real != volume.mount else ""
        found.append(MountPoint(volume.mount, exists, directory, path.parent.is_dir(), False, foreign, entries, link))
    return tuple(found)


def fstypes(volumes: Sequence[Volume], ec2_names: Mapping[str, str]) -> frozenset[str]:
    """The types of file systems: as configured, else read from those devices that are here."""
    types = {volume.fstype for volume in volumes if volume.fstype}
    disks = blockdev.scan()
    for volume in volumes:
        if volume.fstype or isinstance(disks, Unknown):
            continue
        device = disks.device(volume.id or "", ec2_names.get(volume.id or "", ""))
        if isinstance(device, Device):
            fstype = blockdev.filesystem(device.path, PROGRAM_S)
            types |= {fstype} if isinstance(fstype, str) else set()
    return frozenset(fstype for fstype in types if fstype)


def file_system(volume: Volume, ec2_name: str) -> FileSystem | Unknown:
    """What is on a volume, where it is attached here, and what this kernel says of the options of its mount."""
    disks = blockdev.scan()
    device = disks if isinstance(disks, Unknown) else disks.device(volume.id or "", ec2_name)
    if isinstance(device, Unknown):
        return device
    found = None if device is None else blockdev.filesystem(device.path, PROGRAM_S)
    if isinstance(found, Unknown):
        return found
    fstype = volume.fstype or found
    refused = mountoptions.refused(fstype, volume.options) if fstype else {}
    facts = FileSystem(volume, device.path if device else "", found, refused is not None)
    return facts if refused is None or isinstance(refused, Unknown) else replace(facts, refused=refused)


def missing(programs: Iterable[str]) -> dict[str, str]:
    """Which of these programs are not here, with the package that has each."""
    return {name: PACKAGES.get(name, "") for name in programs if which(name) is None}


def unit_file(unit: str, root: Path = Path("/")) -> UnitFile | Unknown:
    """What systemd knows of a unit; for an alias, of what it stands for. No daemon is asked: files decide at boot."""
    state, real = _is_enabled(unit), ""
    if state == "alias":
        real = _alias_of(unit, root)
        if not real:
            return Unknown(f"systemctl is-enabled {unit}: an alias, and of what can't be told")
        state = _is_enabled(real)
    if isinstance(state, Unknown):
        return state
    name = real or unit
    wanting = (path for folder in RUN_UNITS for kind in WANTS for path in sorted((root / folder).glob(f"*.{kind}")))
    links = tuple(str(path / name) for path in wanting if os.path.lexists(path / name))
    stem, _, kind = name.rpartition(".")
    others = [f"{stem}.{other}" for other in ("socket", "timer", "path")] if kind == "service" else []
    return UnitFile(state, real, links, tuple(other for other in others if _is_enabled(other) == "enabled"))


def _is_enabled(unit: str) -> str | Unknown:
    try:
        done = run(["systemctl", "is-enabled", "--", unit], PROGRAM_S, check=False)
    except RunError as error:
        return Unknown(error.message)
    word = (done.stdout.strip().splitlines() or [""])[0]
    for sign, state in (("No such file", "not-found"), ("Bad message", "bad")):
        if not word and sign in done.stderr:
            return state
    if word in UNIT_STATES:
        return word
    said = last_lines(done.stderr) or (f"it says {word!r}" if word else f"exit code {done.returncode}")
    return Unknown(f"systemctl is-enabled {unit}: {said}")


def _alias_of(unit: str, root: Path) -> str:
    """The unit file that a link of this name leads to; "" when there is none."""
    for folder in UNIT_DIRECTORIES:
        path = root / folder / unit
        if path.is_symlink() and (name := Path(os.path.realpath(path)).name) != unit:
            return name
    return ""


def programs_missing(application: Application, volumes: Sequence[Volume]) -> tuple[str, ...]:
    """Programs of the application that cannot be run here; one that is on a volume is not looked for."""
    named = dict.fromkeys(argv[0] for argv in (application.start, application.stop, application.check) if argv)
    return tuple(
        program
        for program in named
        if which(program) is None and not any(program.startswith(volume.mount + "/") for volume in volumes)
    )


def net_utils(interface: str, root: Path = Path("/")) -> bool:
    """Whether amazon-ec2-net-utils (version 2: a timer; version 1: a dhclient hook) manages this interface."""
    if any((root / directory / f"{NET_UTILS_UNIT}.timer").exists() for directory in UNIT_DIRECTORIES):
        mask = root / "etc/systemd/system" / f"{NET_UTILS_UNIT}{interface}.timer"
        return not (mask.is_symlink() and str(mask.readlink()) == os.devnull)
    scripts = root / "etc/sysconfig/network-scripts"
    if not (scripts / "ec2net-functions").exists():
        return False
    with suppress(FileNotFoundError):
        return "EC2SYNC=no" not in (scripts / f"ifcfg-{interface}").read_text(encoding="utf-8", errors="replace")
    return True


def vips_written(vips: Iterable[str], root: Path = Path("/")) -> dict[str, str]:
    """VIP -> the file of the network configuration that gives it to this host; whole addresses, no comments."""
    wanted = {vip: re.compile(rf"(?<![\d.]){re.escape(vip)}(?![\d.])") for vip in vips}
    found: dict[str, str] = {}
    for pattern in NETWORK_FILES:
        for file in sorted(root.glob(pattern)):
            if not file.is_file() or file.stat().st_size > LARGEST_FILE:
                continue
            lines = file.read_text(encoding="utf-8", errors="replace").splitlines()
            text = "\n".join(line for line in lines if not line.lstrip().startswith(("#", ";")))
            found |= {vip: str(file) for vip, shape in wanted.items() if vip not in found and shape.search(text)}
    return found


def command(policy: Policy) -> tuple[str, bool]:
    """The awsha that keepalived runs, and whether it is here. Raises AwshaError when it can't be told."""
    path = policy.command or running_command()
    return path, Path(path).is_file()


def keepalived(
    policy: Policy, node: str, interface: str, conf: Path = KEEPALIVED_CONF, toml: Path = Path(CONFIG)
) -> Keepalived:
    """keepalived's version, its file against what awsha would generate, its own test, and whether it runs."""
    if which("keepalived") is None:
        return Keepalived(None, None, None)
    # Where there is a file at the default path, somebody may look at another one that is to take its place.
    places = dict.fromkeys((*([CONFIG] if Path(CONFIG).exists() else []), configuration(toml)))
    generate = "awsha" if CONFIG in places else f"awsha --config {configuration(toml)}"
    said = run(["keepalived", "--version"], PROGRAM_S, check=False)
    version = re.search(r"v(\d+)\.(\d+)\.(\d+)", said.stderr + said.stdout)
    if version is None:
        raise AwshaError(f"keepalived --version says {last_lines(said.stderr + said.stdout) or 'nothing'}")
    numbers = tuple(int(part) for part in version.groups())
    wanted = [
        render(
            policy,
            node,
            command=command(policy)[0],
            interface=Interface(interface),
            run_dir=run_dir(os.environ),
            config=place,
        )
        for place in places
    ]
    try:
        config = read_regular(conf)
    except FileNotFoundError:
        why = f"it is a link to {os.path.realpath(conf)}, which is not there" if conf.is_symlink() else ""
        return Keepalived(numbers, None, wanted[0], running=_runs("keepalived"), unread=why, awsha=generate)
    except PermissionError:
        raise
    except OSError as error:
        return Keepalived(
            numbers, None, wanted[0], running=_runs("keepalived"), unread=unread(conf, error), awsha=generate
        )
    test = run(["keepalived", "--config-test", "--log-console", "-f", str(conf)], PROGRAM_S, check=False)
    # It ends with 0 for scripts that are missing or unsafe too, but then it says so.
    refused = last_lines(test.stdout + test.stderr) or (f"exit code {test.returncode}" if test.returncode else "")
    meant = config if config in wanted else wanted[0]
    return Keepalived(numbers, config, meant, refused, _runs("keepalived"), awsha=generate)


def unread(path: Path, error: OSError) -> str:
    """Why a file cannot be read, in words."""
    if path.is_dir():
        return "it is a directory"
    return "its links lead in a circle" if error.errno == errno.ELOOP else error.strerror or str(error)


def _runs(name: str) -> bool:
    """Whether a process of this name runs (in this pid namespace)."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "comm").read_text(encoding="utf-8", errors="replace").strip() == name:
                return True
    return False
