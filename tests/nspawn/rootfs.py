"""The containers' root file system: this distribution's own packages, made once and kept below build/.

systemd-nspawn is run out of it too, so that nothing of systemd is installed or upgraded on the machine itself.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
import re
import shutil
import signal
import subprocess
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent.parent
FOLDER = PROJECT / "build/nspawn"
PACKAGES = (
    "systemd", "systemd-sysv", "systemd-container", "keepalived", "python3", "iproute2", "mount", "e2fsprogs",
    "xfsprogs", "procps",
)  # fmt: skip
# An instance that nobody has touched: what a playbook installs is not there, but apt has it, without a network.
FRESH = (*(name for name in PACKAGES if name != "keepalived"), "python3-apt")
DOWNLOADED = ("keepalived", "python3-venv", "python3-packaging")
DEADLINE_S = 600.0
UNUSED = ("man", "locale", "doc")


def codename() -> str:
    """This distribution's release, as apt names it; empty when it does not say."""
    return platform.freedesktop_os_release().get("VERSION_CODENAME", "")


def sources() -> list[Path]:
    """This machine's own package sources for its release; none: mmdebstrap takes the distribution's."""
    files = [Path("/etc/apt/sources.list"), *sorted(Path("/etc/apt/sources.list.d").glob("*.[ls]*"))]
    wanted = re.compile(rf"^(deb .*|Suites:.*)\s{re.escape(codename())}(\s|$)", re.MULTILINE)
    return [file for file in files if file.is_file() and wanted.search(file.read_text(errors="replace"))]


def why_not_here() -> str:
    """Why containers can't be run on this machine; empty when they can."""
    if os.geteuid() != 0:
        return "systemd containers need root"
    if "\toverlay\n" not in Path("/proc/filesystems").read_text():
        return "systemd containers need overlayfs (modprobe overlay)"
    if not _made() and shutil.which("mmdebstrap") is None:
        return "systemd containers need mmdebstrap"
    return ""


def _place(fresh: bool = False) -> Path:
    return FOLDER / (f"{codename()}-fresh-{len(FRESH)}" if fresh else f"{codename()}-{len(PACKAGES)}")


def _made(fresh: bool = False) -> bool:
    return (_place(fresh) / "usr/bin/systemd-nspawn").exists()


def rootfs(*, fresh: bool = False) -> Path:
    """The root file system, made now if it is not there yet (half a minute; with several callers, once).

    `fresh`: without keepalived, which apt can install there. Raises CalledProcessError with what mmdebstrap said,
    TimeoutExpired.
    """
    FOLDER.mkdir(parents=True, exist_ok=True)
    with (FOLDER / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not _made(fresh):
            _make(fresh)
    return _place(fresh)


def _make(fresh: bool) -> None:
    half = FOLDER / "half-made"
    shutil.rmtree(half, ignore_errors=True)
    argv = [
        # What it mounts below (proc, sys, dev) is gone with it, also when it is killed: the next run deletes that tree.
        "unshare", "--mount", "nice", "-n", "10", "mmdebstrap", "--quiet", "--variant=minbase",
        f"--include={','.join(FRESH if fresh else PACKAGES)}", *(_downloading() if fresh else ()),
        *(f"--dpkgopt=path-exclude=/usr/share/{name}/*" for name in UNUSED),
        codename(), str(half), *map(str, sources()),
    ]  # fmt: skip
    with (FOLDER / "mmdebstrap.log").open("w+") as log:
        # A session of its own: a time-out ends all of it, not only `nice`.
        made = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)
        try:
            code = made.wait(DEADLINE_S)
        except BaseException:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(made.pid, signal.SIGKILL)
            made.wait()
            raise
        if code != 0:
            log.seek(0)
            raise subprocess.CalledProcessError(code, argv, stderr=log.read()[-4000:])
    half.rename(_place(fresh))


def _downloading() -> list[str]:
    """For mmdebstrap: keep apt's lists, and in its cache the packages that are installed later."""
    install = f"apt-get install --yes --quiet --no-install-recommends --download-only {' '.join(DOWNLOADED)}"
    return ["--skip=cleanup/apt", f'--customize-hook=chroot "$1" {install}']
