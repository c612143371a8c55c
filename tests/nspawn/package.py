"""The Debian package of this tree, and a root file system with it: `python -m tests.nspawn.package ROOTFS DEB TARGET`.

That command installs by dpkg, as one does in a chroot where nothing runs, and keeps what the installation wrote.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from awsha.lab import linux
from tests.nspawn.rootfs import PROJECT

DEADLINE_S = 180.0
WORK = Path("/run/awsha-install")
# The root file system leaves pages out.
DPKG = ("dpkg", "--force-unsafe-io", "--path-include=/usr/share/man/*", "--path-include=/usr/share/doc/*")


def build(folder: Path, version: str) -> Path:
    """The package, with this version. Raises CalledProcessError."""
    argv = [sys.executable, "-m", "conf.debian.build", "--output", str(folder), "--version", version]
    done = subprocess.run(argv, cwd=PROJECT, check=True, capture_output=True, text=True, timeout=DEADLINE_S)
    return Path(done.stdout.strip())


def layer(rootfs: Path, package: Path, target: Path) -> Path:
    """What an installation adds to a root file system: a lower layer for overlayfs. Raises CalledProcessError."""
    argv = [sys.executable, "-P", "-m", "tests.nspawn.package", str(rootfs), str(package), str(target)]
    subprocess.run(argv, cwd="/", check=True, capture_output=True, text=True, timeout=DEADLINE_S)
    return target


def main(argv: list[str]) -> None:
    """All mounts are this process's own, and gone with it. Raises OSError, CalledProcessError."""
    rootfs, package, target = map(Path, argv)
    linux.unshare(linux.CLONE_NEWNS)
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    linux.mount("tmpfs", "/run", "tmpfs", data="mode=755")
    upper, work, root = (WORK / name for name in ("upper", "work", "root"))
    for folder in (upper, work, root):
        folder.mkdir(parents=True)
    linux.mount("overlay", str(root), "overlay", data=f"lowerdir={rootfs},upperdir={upper},workdir={work}")
    linux.mount(str(package.parent), str(root / "mnt"), flags=linux.MS_BIND)
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C"}
    argv = ["chroot", str(root), *DPKG, "--install", f"/mnt/{package.name}"]
    subprocess.run(argv, env=environment, check=True)
    linux.umount(str(root / "mnt"))
    linux.umount(str(root))
    shutil.copytree(upper, target, symlinks=True)
    for path in upper.rglob("*"):  # copytree does not keep owners
        info = path.lstat()
        os.chown(target / path.relative_to(upper), info.st_uid, info.st_gid, follow_symlinks=False)


if __name__ == "__main__":
    main(sys.argv[1:])
