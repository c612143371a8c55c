"""The little that the generator asks of this machine: which interface holds an address, and where awsha is.

The agent's own view of the network is in `awsha.host`; `config` may not import it.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Callable, Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath

from awsha.config.keepalived import Interface
from awsha.core.errors import EX_CONFIG, AwshaError
from awsha.core.policy import Node, Policy

Addresses = Callable[[], Iterable[tuple[str, str]]]  # (interface, IPv4 address) of each address on this machine
FALLBACK = "eth0"


def kernel_addresses() -> list[tuple[str, str]]:
    """(interface, IPv4 address) pairs from netlink; empty when the kernel does not answer."""
    import socket

    from pyroute2 import IPRoute  # type: ignore[attr-defined]

    try:
        with IPRoute() as route:  # type: ignore[no-untyped-call]
            names = {link["index"]: str(link.get_attr("IFLA_IFNAME")) for link in route.get_links()}
            found = route.get_addr(family=socket.AF_INET)
            return [(names.get(item["index"], ""), str(item.get_attr("IFA_LOCAL"))) for item in found]
    except OSError:
        return []


def interfaces(policy: Policy, addresses: Addresses = kernel_addresses) -> dict[str, Interface]:
    """For each node the interface of its primary address: seen on the node itself, assumed for the others.

    The others are taken to have the name that this machine has; a machine that is none of the nodes assumes eth0.
    """
    here = {address: name for name, address in addresses() if name}
    local = next((here[node.address] for node in policy.nodes if node.address in here), None)

    def place(node: Node) -> Interface:
        return Interface(here[node.address]) if node.address in here else Interface(local or FALLBACK, assumed=True)

    return {node.name: place(node) for node in policy.nodes}


def running_command(environ: Mapping[str, str] = os.environ) -> str:
    """The absolute path of the awsha that runs: the script beside the interpreter, else the one in PATH.

    Not resolved through links: a virtual environment's script must stay in its environment.
    """
    beside = Path(sys.executable).parent / "awsha"
    if beside.is_file() and os.access(beside, os.X_OK):
        return str(beside)
    found = shutil.which("awsha", path=environ.get("PATH"))
    if found and found.startswith("/"):
        return found
    raise AwshaError(
        "cannot tell where awsha is installed, and keepalived needs its absolute path",
        hint='write command = "/usr/bin/awsha" at the top of awsha.toml',
        exit_code=EX_CONFIG,
    )


def configuration(path: Path) -> PurePosixPath:
    """The path of awsha.toml as a program in another directory must be told it."""
    return PurePosixPath(os.path.abspath(path))  # noqa: PTH100 - without `..`, and links as they are


def script_refused(command: str) -> str | None:
    """Why keepalived would refuse this path for root under enable_script_security, or None.

    The rule is keepalived's own (lib/notify.c, check_security): every part belongs to root, and nobody else may write
    to it; a directory with the sticky bit may be. Parts that do not exist on this machine are not judged.
    """
    try:
        real = Path(command).resolve(strict=True)
    except (OSError, RuntimeError):
        return None
    for part in [*reversed(real.parents), real]:
        info = part.lstat()
        writable = bool(info.st_mode & stat.S_IWOTH) or (bool(info.st_mode & stat.S_IWGRP) and info.st_gid != 0)
        if info.st_uid != 0:
            return f"{part} does not belong to root"
        if writable and not (stat.S_ISDIR(info.st_mode) and info.st_mode & stat.S_ISVTX):
            return f"{part} can be written to by others than root"
    return None


def hook_refused(path: Path) -> tuple[str, str] | None:
    """Why a hook at this path must not be run as root, and what to do about it; None when it may.

    The sticky bit is not enough for the folders that are searched for hooks: whatever is put there would be run.
    """
    try:
        here = path.parent.resolve()
    except (OSError, RuntimeError) as error:
        return f"{path} can't be looked at: {error}", f"ls -lL {path}"
    return path_refused(path, {path.parent, path.parent.parent, here, here.parent})


def path_refused(path: Path, searched: Collection[Path] = ()) -> tuple[str, str] | None:
    """Why root must not believe what is at this path, and what to do about it; None when it may.

    Stricter than script_refused: every part of the path, as it is written and as links lead it on, belongs to root, and
    neither a group nor others may write to it. A folder with the sticky bit will do, unless it is `searched`: in it
    nobody can take the place of what is root's.
    """
    path = path.absolute()
    try:
        real = path.resolve(strict=True)
        for part in dict.fromkeys([*reversed(path.parents), path, *reversed(real.parents), real]):
            info = part.lstat()
            if info.st_uid != 0:
                return f"{part} does not belong to root", f"chown root {part}"
            directory = stat.S_ISDIR(info.st_mode) and part not in (path, real)
            sticky = directory and bool(info.st_mode & stat.S_ISVTX) and part not in searched
            if info.st_mode & (stat.S_IWGRP | stat.S_IWOTH) and not stat.S_ISLNK(info.st_mode) and not sticky:
                return f"{part} can be written to by others than root", f"chmod go-w {part}"
    except (OSError, RuntimeError) as error:
        return f"{path} can't be looked at: {error}", f"ls -lL {path}"
    return None
