"""The one door to other programs: argv lists, a deadline, and never a wait that has no end.

A program runs in a session of its own, so that a time-out ends all of its tree: SIGTERM, a short bound, SIGKILL, a
shorter bound; what is still there then sits in an uninterruptible call (a lost disk) and is abandoned, to be reaped
whenever it ends. Signal mask and dispositions are reset: an agent that blocks SIGTERM must not hand that down; nor
descriptors that it was started with (keepalived's), nor its umask and systemd's socket to an operator's program.
"""

from __future__ import annotations

import contextlib
import functools
import os
import select
import shutil
import signal
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from awsha.core.errors import AwshaError
from awsha.host.clock import boottime
from awsha.host.inheritance import (
    OPERATORS_UMASK,
    PRIVATE_UMASK,
    keep_descriptors,
    with_umask,
)

TERM_S = 2.0  # between SIGTERM and SIGKILL
GIVE_UP_LOOK_S = 0.25
KILL_S = 1.0  # after SIGKILL, before the program is abandoned
KEEP = 1 << 20  # bytes of each output stream that are kept: the last ones
# keepalived starts its scripts with a stripped environment; file system tools live in sbin.
DIRECTORIES = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
# What no other program is told: the agent's credentials, if it has any in its environment, and its wire to systemd.
CREDENTIALS = frozenset({
    "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN",
    "AWS_CONTAINER_AUTHORIZATION_TOKEN",
})  # fmt: skip
OWN = CREDENTIALS | {
    "NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_PID",
}  # fmt: skip
PACKAGES = {
    "blkid": "util-linux",
    "mount": "util-linux (Debian: mount)",
    "umount": "util-linux (Debian: mount)",
    "dd": "coreutils",
    "env": "coreutils",
    "e2fsck": "e2fsprogs",
    "xfs_repair": "xfsprogs",
    "xfs_logprint": "xfsprogs",
    "btrfs": "btrfs-progs",
    "systemctl": "systemd",
}


@dataclass(frozen=True, slots=True)
class Done:
    """A program that ended by itself. `returncode` is minus the signal number when a signal ended it."""

    returncode: int
    stdout: str
    stderr: str
    elapsed_s: float


class RunError(AwshaError):
    """A program failed. `returncode` is None when it never ran or its status is not known."""

    def __init__(
        self,
        message: str,
        argv: Sequence[str],
        *,
        returncode: int | None = None,
        stdout: str = "",
        stderr: str = "",
        hint: str = "",
    ) -> None:
        super().__init__(message, hint=hint)
        self.argv = tuple(argv)
        self.returncode = returncode
        self.stdout = stdout
        self.stderr = stderr


class ProgramMissing(RunError):
    """There is no such program."""


class RunGivenUp(RunError):
    """The caller did not want it to go on: it was ended, like one whose deadline passed."""


class RunTimeout(RunError):
    """The deadline passed. `abandoned`: it could not even be killed; `stdout` is what it had written by then."""

    abandoned: bool = False


@dataclass(slots=True)
class _Child:
    """A running program: its pid and pidfd, and our ends of its pipes."""

    pid: int
    pidfd: int
    stdin: int = -1
    unsent: bytes = b""
    outputs: dict[int, bytearray] = field(default_factory=dict)
    given_up: bool = False

    def pump(self, deadline: float, give_up: Callable[[], bool] | None) -> bool:
        """Feed and read the pipes until the program has ended (True), or the deadline passed or it is given up (False).

        The end of the program counts, not the end of its output: a daemon that it left may hold the pipe for ever.
        """
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        for fd in self.outputs:
            poll.register(fd, select.POLLIN)
        if self.stdin >= 0:
            poll.register(self.stdin, select.POLLOUT)
        while True:
            most_s = deadline - boottime() if give_up is None else min(deadline - boottime(), GIVE_UP_LOOK_S)
            ready = {fd for fd, _ in poll.poll(max(0.0, most_s) * 1000)}
            if self.pidfd in ready:
                self._drain()
                return True
            for fd in ready & self.outputs.keys():
                if not self._read(fd):
                    poll.unregister(fd)
            if self.stdin in ready and not self._write():
                poll.unregister(self.stdin)
                os.close(self.stdin)
                self.stdin = -1
            if boottime() >= deadline:
                return False
            if give_up is not None and give_up():
                self.given_up = True
                return False

    def _read(self, fd: int) -> bool:
        """Take what one stream has; False at its end, or when there is nothing."""
        try:
            data = os.read(fd, 65536)
        except BlockingIOError:
            return False
        kept = self.outputs[fd]
        kept += data
        if len(kept) > 2 * KEEP:
            del kept[:-KEEP]
        return bool(data)

    def _drain(self) -> None:
        """What the ended program left in its pipes; bounded, since a daemon may go on writing."""
        for fd in self.outputs:
            for _ in range(64):
                if not self._read(fd):
                    break

    def _write(self) -> bool:
        """Send input; False when all is sent or nobody reads it."""
        try:
            self.unsent = self.unsent[os.write(self.stdin, self.unsent[:65536]) :]
        except BlockingIOError:
            return True
        except BrokenPipeError:
            return False
        return bool(self.unsent)

    def ended(self, within_s: float) -> bool:
        """Whether it ends within so many seconds. Does not reap, so that its pid stays ours to signal."""
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return bool(poll.poll(within_s * 1000))

    def end(self) -> bool:
        """End the whole process group; False when it cannot be ended."""
        for number, within_s in ((signal.SIGTERM, TERM_S), (signal.SIGKILL, KILL_S)):
            with contextlib.suppress(ProcessLookupError, PermissionError):  # only zombies are left in it
                os.killpg(self.pid, number)
            ended = self.ended(within_s)
        return ended

    def reap(self) -> int | None:
        """Exit code of the ended program; None when somebody else has waited for it."""
        try:
            result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        except ChildProcessError:
            return None
        assert result is not None  # noqa: S101  (only with WNOHANG)
        return result.si_status if result.si_code == os.CLD_EXITED else -result.si_status

    def close_pipes(self) -> None:
        """Close our ends."""
        for fd in (*self.outputs, *((self.stdin,) if self.stdin >= 0 else ())):
            os.close(fd)
        self.stdin = -1


_abandoned: list[_Child] = []
_abandoned_lock = threading.Lock()


def _reap_abandoned() -> int:
    """Reap those that have ended after all; how many are still stuck."""
    with _abandoned_lock:
        for child in list(_abandoned):
            if child.ended(0):
                child.reap()
                os.close(child.pidfd)
                _abandoned.remove(child)
        return len(_abandoned)


def abandoned() -> int:
    """How many programs were given up and are still stuck in the kernel (for status)."""
    return _reap_abandoned()


def _path(environment: Mapping[str, str]) -> str:
    """PATH, with the standard directories that it lacks at its end."""
    given = [entry for entry in environment.get("PATH", "").split(":") if entry]
    return ":".join([*given, *(entry for entry in DIRECTORIES if entry not in given)])


def _resolve(argv: Sequence[str], path: str) -> str:
    """The file to run."""
    program = argv[0]
    found = program if "/" in program else shutil.which(program, path=path)
    if not found:
        package = PACKAGES.get(program)
        hint = f"install {package}" if package else f"it was looked for in {path}"
        raise ProgramMissing(f"there is no program {program}", argv, hint=hint)
    return found


def _spawn(
    program: str, argv: Sequence[str], env: dict[str, str], data: bytes | None, *, inherit: bool, umask: int | None
) -> _Child:
    """Start it, with pipes for its output (or our stderr for both, `inherit`), and for its input when there is any."""
    keep_descriptors()
    ours: list[int] = []
    theirs: list[int] = []
    actions: list[tuple[int, int, int] | tuple[int, int, str, int, int]] = []
    try:
        if data is None:
            actions.append((os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0))
        else:
            reader, writer = os.pipe()
            ours.append(writer)
            theirs.append(reader)
            actions.append((os.POSIX_SPAWN_DUP2, reader, 0))
        for number in (1, 2):
            if inherit:
                actions.append((os.POSIX_SPAWN_DUP2, 2, number))
                continue
            reader, writer = os.pipe()
            ours.append(reader)
            theirs.append(writer)
            actions.append((os.POSIX_SPAWN_DUP2, writer, number))
        for fd in ours:
            os.set_blocking(fd, False)
        start = functools.partial(
            os.posix_spawn,
            program,
            list(argv),
            env,
            file_actions=actions,
            setsid=True,
            setsigmask=(),
            setsigdef=signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP},
        )
        pid = with_umask(umask, start)
    except BaseException:
        for fd in ours:
            os.close(fd)
        raise
    finally:
        for fd in theirs:
            os.close(fd)
    outputs = ours[1:] if data is not None else ours
    return _Child(
        pid, os.pidfd_open(pid), ours[0] if data is not None else -1, data or b"", {fd: bytearray() for fd in outputs}
    )


def _start(
    argv: Sequence[str],
    data: bytes | None,
    env: Mapping[str, str] | None,
    *,
    operators: bool = False,
    inherit: bool = False,
    clean: bool = False,
) -> _Child:
    """Start argv; errors of the start as RunError."""
    inherited = {} if clean else {name: value for name, value in os.environ.items() if name not in OWN}
    environment = {**inherited, **({} if clean or operators else {"LC_ALL": "C"}), **(env or {})}
    environment["PATH"] = _path(environment)
    umask = PRIVATE_UMASK if clean else None
    if operators:
        umask = OPERATORS_UMASK
        if "=" in argv[0]:
            raise RunError(f"a program whose path contains '=' cannot be run: {argv[0]}", argv)
        argv = ["env", "--", *argv]
    program = _resolve(argv, environment["PATH"])
    try:
        return _spawn(program, argv, environment, data, inherit=inherit, umask=umask)
    except FileNotFoundError as error:
        raise ProgramMissing(f"there is no program {argv[0]}", argv) from error
    except (OSError, ValueError) as error:
        raise RunError(f"{argv[0]} could not be started: {error}", argv) from error


def run(
    argv: Sequence[str],
    timeout_s: float,
    check: bool = True,
    input: bytes | None = None,
    env: Mapping[str, str] | None = None,
    *,
    operators: bool = False,
    inherit_output: bool = False,
    clean: bool = False,
    give_up: Callable[[], bool] | None = None,
) -> Done:
    """Run a program to its end; return within timeout_s + TERM_S + KILL_S whatever it does.

    operators: argv comes from the configuration. It keeps the locale, has umask 022, and is started through env(1):
      exec of a file on a lost disk hangs, and has to hang in a process that can be given up, not in this one. Exit
      codes 126 and 127 then say that it could not be run, was not found.
    inherit_output: its output goes to our stderr instead of `Done`, for programs that leave a daemon behind (which
      would die of SIGPIPE, or fill a file that nobody sees).
    env: in addition to our own environment, of which it gets all but the credentials (OWN).
    clean: `env` and PATH are its whole environment; its umask is 077.
    give_up: asked every GIVE_UP_LOOK_S seconds; once it says True, the program is ended as after a time-out.
    check: raise RunError when the exit code is not 0.
    Raises RunError, ProgramMissing, RunTimeout, RunGivenUp.
    """
    _reap_abandoned()
    started = boottime()
    child = _start(argv, input, env, operators=operators, inherit=inherit_output, clean=clean)
    stuck = False
    try:
        in_time = child.pump(started + timeout_s, give_up)
        if not in_time:
            stuck = not child.end()
            child._drain()
        out, err = (bytes(kept).decode("utf-8", "replace") for kept in (*child.outputs.values(), b"", b"")[:2])
        returncode = None if stuck else child.reap()
    except BaseException:
        stuck = not child.end() or child.reap() is None
        raise
    finally:
        child.close_pipes()
        if stuck:
            with _abandoned_lock:
                _abandoned.append(child)
        else:
            os.close(child.pidfd)
    if child.given_up:
        raise RunGivenUp(f"{argv[0]} was ended: it was not wanted any more", argv, stdout=out, stderr=err)
    if not in_time:
        timeout = RunTimeout(
            f"{argv[0]} did not end within {timeout_s:g} s" + (" and cannot be killed" if stuck else ""),
            argv,
            stdout=out,
            stderr=err,
            hint="a disk or a server that it needs does not answer" if stuck else "",
        )
        timeout.abandoned = stuck
        raise timeout
    if returncode is None:
        raise RunError(f"the exit status of {argv[0]} was lost", argv, stdout=out, stderr=err)
    if check and returncode != 0:
        raise failure(argv, Done(returncode, out, err, boottime() - started))
    return Done(returncode, out, err, boottime() - started)


def failure(argv: Sequence[str], done: Done) -> RunError:
    """The error for a program that ended badly, with the last lines it wrote."""
    code = done.returncode
    how = f"was ended by signal {-code}" if code < 0 else f"failed with exit code {code}"
    tail = last_lines(done.stderr) or last_lines(done.stdout)
    return RunError(
        f"{argv[0]} {how}" + (f": {tail}" if tail else ""),
        argv,
        returncode=done.returncode,
        stdout=done.stdout,
        stderr=done.stderr,
    )


def last_lines(text: str, count: int = 5) -> str:
    """The last lines that are not empty, joined for a one-line message."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return "; ".join(lines[-count:])[-1000:]
