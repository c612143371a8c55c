"""The operator's programs at the points of a transition: which there are, and how they are run (docs/hooks.md)."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from awsha.agent.journal import Journal
from awsha.agent.paths import hooks_dir
from awsha.config.machine import hook_refused
from awsha.core.hooks import FAILING
from awsha.core.judge_host import HookFile
from awsha.core.model import Hook, Role, Self
from awsha.core.plain import printable
from awsha.core.policy import Group
from awsha.core.steps import Failure, Outcome
from awsha.host.clock import boottime
from awsha.host.run import DIRECTORIES, RunError, RunGivenUp, RunTimeout, run

SUFFIX = ".d"
POINTS = {hook + SUFFIX: hook for hook in Hook}
# No hidden file; what editors and package managers leave behind is none either.
NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+@:-]*")
LEFT_OVER = re.compile(r"~$|,v$|\.(dpkg-[a-z]+|ucf-[a-z]+|rpm(save|new|orig)|swp|bak|orig|rej|cfsaved)$")
LINES_MOST = 100  # of one program that go to the log: the last ones
LINE_MOST = 500  # characters
TEXT_MOST = 300  # characters of its last line in status
SETTLED_S = 2.0  # a folder changed so lately may change again without another time stamp
LOG_HINT = "its output is in the agent's log: journalctl -u awsha-agent"


def programs(folder: Path) -> list[str]:
    """The names in one point's folder that are run, in their order; one that is not executable is switched off."""
    try:
        names = os.listdir(folder)  # noqa: PTH208
    except (FileNotFoundError, NotADirectoryError):
        return []
    return sorted(name for name in names if counts(name) and runs(folder / name))


def counts(name: str) -> bool:
    """Whether a name is one of a hook."""
    return NAME.fullmatch(name) is not None and LEFT_OVER.search(name) is None


def runs(path: Path) -> bool:
    """Whether it is an executable file, or a link to one, or to nowhere (which is refused, not passed over)."""
    return (path.is_file() and os.access(path, os.X_OK)) or (path.is_symlink() and not path.exists())


def environment(group: Group, me: Self, hook: Hook, role: Role | None) -> dict[str, str]:
    """All that a hook is told, but for PATH, which is the standard one. Lists by spaces, mount points by lines."""
    return {
        "HOME": "/root",
        "LANG": "C.UTF-8",
        "PATH": ":".join(DIRECTORIES),
        "AWSHA_GROUP": group.name,
        "AWSHA_NODE": me.name,
        "AWSHA_INSTANCE": me.instance_id,
        "AWSHA_PEER": " ".join(me.peers.values()),
        "AWSHA_ROLE": role.value if role else "",
        "AWSHA_HOOK": hook.value,
        "AWSHA_INTERFACE": me.interface,
        "AWSHA_VIPS": " ".join(group.vips),
        "AWSHA_VOLUMES": " ".join(volume.id or "" for volume in group.volumes),
        "AWSHA_MOUNTS": "\n".join(volume.mount for volume in group.volumes),
    }


@dataclass
class Hooks:
    """The hooks of one group on this node."""

    group: Group
    root: Path = field(default_factory=hooks_dir)
    names: Callable[[Path], list[str]] = os.listdir
    wall: Callable[[], float] = time.time
    _key: tuple[int, ...] = ()
    _points: frozenset[Hook] = frozenset()

    @property
    def folder(self) -> Path:
        """Where they are: ROOT/GROUP."""
        return self.root / self.group.name

    def points(self) -> frozenset[Hook]:
        """The points that have a folder. One stat; the names are read when they have changed. Never raises."""
        try:
            info = os.stat(self.folder)  # noqa: PTH116  at every turn of the loop
            key = (info.st_dev, info.st_ino, info.st_mtime_ns, info.st_ctime_ns)
            if key != self._key:
                self._points = frozenset(POINTS[n] for n in self.names(self.folder) if n in POINTS)
                self._key = key if self.wall() - info.st_ctime > SETTLED_S else ()
        except (FileNotFoundError, NotADirectoryError):
            self._key, self._points = (), frozenset()
        except OSError:
            self._key = ()  # what was known last stays
        return self._points

    def run(self, hook: Hook, told: dict[str, str], unwanted: Callable[[], str | None]) -> Outcome:
        """Run the programs of a point. `told`: their environment. `unwanted`: why they must not run (any more).

        The first failure ends it where an acquisition fails with it; elsewhere the others run all the same. What stands
        in front of a release has `hook_s` seconds in all, everything else that long each.
        """
        limit_s, folder = self.group.timeouts.hook_s, self.folder / (hook + SUFFIX)
        deadline = boottime() + limit_s if hook is Hook.BEFORE_RELEASE else None
        if os.path.lexists(folder) and not folder.is_dir():
            text = f"{hook} hooks are not run: {folder} is no directory, or a link to nowhere"
            return Outcome(False, text, f"mend it, or take it away: ls -ld {folder}", Failure.OTHER)
        names, failed = programs(folder), []
        for name in names:
            if why := unwanted():
                return Outcome(False, why, failure=Failure.REFUSED)
            left_s = limit_s if deadline is None else deadline - boottime()
            outcome = self._run_one(hook, folder / name, told, left_s, unwanted)
            if outcome is None:
                continue
            failed.append(outcome)
            if hook in FAILING or outcome.failure is Failure.REFUSED:
                break
        if not failed:
            return Outcome(True, ", ".join(names) if names else "there are none")
        shown = failed[-1] if failed[-1].failure is Failure.REFUSED else failed[0]
        more = f" (and {len(failed) - 1} more)" if len(failed) > 1 else ""
        return Outcome(False, shown.text + more, shown.hint, shown.failure)

    def _run_one(
        self, hook: Hook, path: Path, told: dict[str, str], limit_s: float, unwanted: Callable[[], str | None]
    ) -> Outcome | None:
        """Run one program; None when it ended with 0."""
        what = f"{hook} hook {path.name}"
        if refused := hook_refused(path):
            return Outcome(False, f"{what} is not run: {refused[0]}", refused[1], Failure.OTHER)
        if limit_s <= 0:
            return Outcome(False, f"{what} was not run: those before it took all the time", "", Failure.TIMEOUT)
        if "=" in str(path):
            return Outcome(False, f"{what} is not run: env(1) can't take a path with '='", "", Failure.OTHER)
        # through env(1): it changes the directory, and an exec from a lost disk hangs there, where it can be given up
        argv = ["env", "-C", "/", "--", str(path)]
        try:
            done = run(argv, limit_s, check=False, env=told, clean=True, give_up=lambda: unwanted() is not None)
        except RunGivenUp as error:
            self._say(what, error.stdout, error.stderr)
            return Outcome(False, f"{what} was ended: {unwanted() or 'not wanted any more'}", "", Failure.REFUSED)
        except RunTimeout as error:
            last = self._say(what, error.stdout, error.stderr)
            return Outcome(False, f"{what} did not end within {limit_s:g} s{last}", LOG_HINT, Failure.TIMEOUT)
        except RunError as error:
            return Outcome(False, f"{what} can't be run: {error.message}", error.hint, Failure.OTHER)
        last = self._say(what, done.stdout, done.stderr)
        if done.returncode == 0:
            return None
        how = f"exit code {done.returncode}" if done.returncode > 0 else f"signal {-done.returncode}"
        return Outcome(False, f"{what} failed with {how}{last}", LOG_HINT, Failure.OTHER)

    def _say(self, what: str, *outputs: str) -> str:
        """Output to the log, line by line; answers the last line for people, of its errors if there are any."""
        journal, last = Journal(), ""
        for output in outputs:
            lines = [printable(line) for line in output.splitlines() if line.strip()]
            if len(lines) > LINES_MOST:
                journal.say(self.group.name, f"{what}: ({len(lines) - LINES_MOST} lines before these are left out)")
            for line in lines[-LINES_MOST:]:
                journal.say(self.group.name, f"{what}: {line[:LINE_MOST]}")
            last = f": {lines[-1][:TEXT_MOST]}" if lines else last
        return last


# --- awsha check -----------------------------------------------------------------------------------------------


def inspect(groups: frozenset[str], root: Path | None = None) -> tuple[HookFile, ...]:
    """What is below the hooks' folder and would not be run. Raises OSError."""
    root = root or hooks_dir()
    found: list[HookFile] = [*_no_directory(root)]
    for folder in _entries(root):
        if folder.name not in groups:
            found.append(HookFile(str(folder), ignored=f"awsha.toml has no group {folder.name}"))
            continue
        found += _no_directory(folder)
        for point in _entries(folder):
            if point.name in POINTS:
                found += _inspect_point(point)
            else:
                found.append(HookFile(str(point), ignored=f"no point (they are: {', '.join(POINTS)})"))
    return tuple(found)


def _no_directory(folder: Path) -> list[HookFile]:
    """What stands in the place of a folder and is none: nothing below it is ever run."""
    there = os.path.lexists(folder) and not folder.is_dir()
    return [HookFile(str(folder), ignored="it is no directory, or a link to nowhere")] if there else []


def _inspect_point(folder: Path) -> Iterator[HookFile]:
    """One point's folder; when that is not safe, nothing in it is."""
    if refused := hook_refused(folder):
        yield HookFile(str(folder), *refused)
        return
    if not folder.is_dir():
        yield HookFile(str(folder), "it is no directory", f"mend it, or take it away: ls -ld {folder}")
        return
    for path in _entries(folder):
        if not counts(path.name):
            yield HookFile(str(path), ignored="it has a character that a hook's name can't have")
        elif not runs(path):
            yield HookFile(str(path), ignored="it is not an executable file")
        elif refused := hook_refused(path):
            yield HookFile(str(path), *refused)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, in order, but for hidden files and left-overs of editors and package managers."""
    if not folder.is_dir():
        return []
    return sorted(p for p in folder.iterdir() if p.name[0] != "." and LEFT_OVER.search(p.name) is None)
