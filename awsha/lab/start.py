"""Starting and ending the daemon, from the command line's side."""

from __future__ import annotations

import contextlib
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from awsha.core.errors import AwshaError
from awsha.lab import sweep
from awsha.lab.control import NoLab, ask
from awsha.lab.settings import Lab, Shape, cgroup2_mount
from awsha.lab.waiting import wait_until

STOP_DEADLINE_S = 30.0
SPAWN_DEADLINE_S = 15.0
PROGRAMS = {
    "ip": "iproute2",
    "nsenter": "util-linux",
    "mount": "mount",
    "keepalived": "keepalived",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.xfs": "xfsprogs",
}
SBIN = "/usr/sbin:/sbin:/usr/local/sbin"
TAIL_LINES = 15


def start(
    lab: Lab, shape: Shape, deadline_s: float, *, converged: bool, daemon: Sequence[str] = ("awsha.lab.pair",)
) -> dict[str, Any]:
    """Start a lab and wait for it; its status. Whatever fails, nothing is left, and AwshaError says why.

    `daemon`: the module to run, and its arguments after prefix and shape.
    """
    check_machine(lab, shape)
    if sweep.daemon_pids(lab):
        raise AwshaError(f"a lab is up already (prefix {lab.prefix})", hint="awsha lab down, or another AWSHA_LAB")
    sweep.sweep(lab)  # what a crash left
    lab.run.mkdir(mode=0o700, parents=True)
    done = False
    try:
        status = _start(lab, shape, deadline_s, converged, daemon)
        done = True
    except AwshaError as error:
        raise AwshaError(error.message + logs(lab), hint=error.hint) from error
    finally:
        if not done:
            with contextlib.suppress(AwshaError):
                stop(lab)
    return status


def _start(lab: Lab, shape: Shape, deadline_s: float, converged: bool, module: Sequence[str]) -> dict[str, Any]:
    with lab.log.open("ab") as log:
        daemon = subprocess.Popen(
            [sys.executable, "-P", "-m", module[0], lab.prefix, json.dumps(shape.to_json()), *module[1:]],
            stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/", start_new_session=True,
        )  # fmt: skip
    wait_until(lambda: lab.socket.exists() or daemon.poll() is not None, SPAWN_DEADLINE_S)
    if not lab.socket.exists():
        raise AwshaError("the lab's daemon did not start")
    request = {"do": "wait_up", "deadline_s": deadline_s, "converged": converged}
    status = ask(lab, request, deadline_s + 10.0)
    assert isinstance(status, dict)  # noqa: S101
    return status


def stop(lab: Lab) -> bool:
    """End the lab, orderly if its daemon can; whether there was one. Raises AwshaError when something stays."""
    need_root()
    there = bool(sweep.leftovers(lab))
    if there:
        pids = sweep.daemon_pids(lab)
        answers = True
        try:
            ask(lab, {"do": "endpoint"}, 2.0)
        except NoLab:
            answers = False
        except AwshaError:
            pass  # it is coming up, or busy: it will see the signal
        if answers and pids:
            for pid in pids:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGTERM)
            wait_until(lambda: not sweep.daemon_pids(lab), STOP_DEADLINE_S)
    sweep.sweep(lab)
    return there


def need_root() -> None:
    """Raise AwshaError unless this is root."""
    if os.geteuid() != 0:
        raise AwshaError("the lab makes namespaces, mounts and loop devices: it needs root", hint="sudo awsha lab …")


def check_machine(lab: Lab, shape: Shape) -> None:
    """Raise one AwshaError with everything that this machine or this shape lacks."""
    need_root()
    problems = shape.problems()
    path = os.environ.get("PATH", "") + ":" + SBIN
    for program, package in PROGRAMS.items():
        if shutil.which(program, path=path) is None:
            problems.append(f"{program} is not installed (apt install {package})")
    try:
        if not (cgroup2_mount() / "cgroup.procs").exists() or not os.access(cgroup2_mount(), os.W_OK):
            problems.append(f"{cgroup2_mount()} can't be written to")
    except AwshaError as error:
        problems.append(error.message)
    if not Path("/dev/loop-control").exists():
        problems.append("/dev/loop-control is missing (modprobe loop)")
    if importlib.util.find_spec("moto") is None:
        problems.append("moto is not installed (pip install 'awsha[lab]')")
    if problems:
        text = "\n  ".join([f"lab {lab.prefix} can't come up:", *problems])
        raise AwshaError(text, hint="mend these, then: awsha lab up")


def logs(lab: Lab, lines: int = TAIL_LINES) -> str:
    """The last lines of every log of a lab, for a message."""
    return "".join(f"\n--- {path}\n" + "\n".join(tail) for path, tail in tails(lab, lines))


def tails(lab: Lab, lines: int) -> Iterator[tuple[Path, list[str]]]:
    """The last lines of every log of a lab that has any."""
    for path in [lab.log, *sorted(lab.run.glob("*/*.log"))]:
        with contextlib.suppress(OSError):
            text = path.read_text(errors="replace").splitlines()
            if text:
                yield path, text[-lines:]
