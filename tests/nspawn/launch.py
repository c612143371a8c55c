"""Becomes systemd-nspawn with one container: `python -m tests.nspawn.launch SPEC` (SPEC as JSON).

All mounts are in a mount namespace of this process, below a tmpfs over /run: nothing of them is seen outside, and all
of it is gone with the last process of the container, however that ended.
"""

from __future__ import annotations

import json
import os
import platform
import sys
from pathlib import Path
from typing import Any, NoReturn

from awsha.lab import linux, settings
from tests.nspawn import inside


def main(argv: list[str]) -> NoReturn:
    """Enter the cgroup, make the mounts, exec. Raises OSError."""
    spec: dict[str, Any] = json.loads(argv[0])
    linux.join_cgroup(Path(spec["cgroup"]))
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    root = make_mounts(spec)
    libraries = Path(spec["rootfs"]) / "usr/lib"
    machine = f"{platform.machine()}-linux-gnu"
    path = ":".join(str(libraries / name) for name in (machine, f"{machine}/systemd", "systemd"))
    loader = next(p for p in (*libraries.glob("*/ld-linux-*.so.*"), *(libraries.parent / "lib64").glob("ld-linux-*")))
    network = "--network-namespace-path=/run/node-netns" if spec["netns"] else "--private-network"
    arguments = [
        str(loader), "--library-path", path, f"{spec['rootfs']}/usr/bin/systemd-nspawn",
        f"--directory={root}", "--boot", f"--machine={spec['name']}", f"--uuid={spec['machine_id']}",
        "--register=no", "--keep-unit", "--link-journal=no", "--resolv-conf=off", "--timezone=off", "--console=pipe",
        network, "--capability=all", "--kill-signal=SIGRTMIN+3",
        *(f"--bind={source}:{target}" for target, source in spec["binds"].items()),
    ]  # fmt: skip
    os.execv(arguments[0], arguments)  # noqa: S606 - that there is no shell is the point


def make_mounts(spec: dict[str, Any]) -> Path:
    """A clean /run and cgroup tree for nspawn, and the container's root: an overlay over the shared ones.

    Without a network namespace (`netns`) it is no node of a lab, and has nothing of one.
    """
    kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in spec["binds"].values()}
    netns = os.open(linux.netns_path(spec["netns"]), os.O_PATH | os.O_CLOEXEC) if spec["netns"] else None
    # nspawn leaves folders there; and what was unmounted in another namespace must not be kept alive by a copy here
    linux.mount("tmpfs", "/run", "tmpfs", data="mode=755")
    for path, fd in kept.items():
        Path(path).mkdir(parents=True)
        linux.mount(f"/proc/self/fd/{fd}", path, flags=linux.MS_BIND)
        os.close(fd)
    if netns is not None:
        Path("/run/node-netns").touch()
        linux.mount(f"/proc/self/fd/{netns}", "/run/node-netns", flags=linux.MS_BIND)
        os.close(netns)
    linux.mount("cgroup2", "/sys/fs/cgroup", "cgroup2")
    upper, work, root = (Path("/run/container") / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir(parents=True)
    if netns is None:
        inside.fill_bare(upper, name=spec["name"], machine_id=spec["machine_id"])
    else:
        (group,) = settings.group_specs(settings.Lab(spec["prefix"]), settings.Shape())
        inside.fill(
            upper, name=spec["name"], machine_id=spec["machine_id"], address=spec["address"], group=group,
            mount_points=list(spec["binds"]),
        )  # fmt: skip
    lower = ":".join([*spec["layers"], spec["rootfs"]])
    linux.mount("overlay", str(root), "overlay", data=f"lowerdir={lower},upperdir={upper},workdir={work}")
    return root


if __name__ == "__main__":
    main(sys.argv[1:])
