"""The application of a group: a systemd unit, or the configuration's own start, stop and check programs.

systemctl(1); ActiveState and LoadState: org.freedesktop.systemd1(5).
"""

from __future__ import annotations

from awsha.core.errors import AwshaError
from awsha.core.model import ApplicationState, Unknown
from awsha.core.policy import Application
from awsha.host.run import ProgramMissing, RunError, RunTimeout, run

CHECK_S = 5.0
_ACTIVE = {
    "active": ApplicationState.RUNNING,
    "reloading": ApplicationState.RUNNING,
    "refreshing": ApplicationState.RUNNING,
    "activating": ApplicationState.STARTING,  # also between two automatic restarts
    "deactivating": ApplicationState.STOPPING,
    "inactive": ApplicationState.STOPPED,
    "failed": ApplicationState.FAILED,
}


class ApplicationError(AwshaError):
    """Starting or stopping failed. `timeout`: it took too long, and may still come to be."""

    def __init__(self, message: str, *, hint: str = "", timeout: bool = False) -> None:
        super().__init__(message, hint=hint)
        self.timeout = timeout


def state(application: Application | None, timeout_s: float = CHECK_S) -> ApplicationState | Unknown | None:
    """What the unit, or the check program, says; None when the group has no application.

    A check that exits 0 means running, anything else stopped; one that hangs, is killed or cannot be run says nothing.
    """
    if application is None:
        return None
    if application.unit:
        return _unit_state(application.unit, timeout_s)
    if not application.check:
        return Unknown("no check is configured")
    try:
        done = run(application.check, timeout_s, check=False, operators=True)
    except RunError as error:
        return Unknown(f"check: {error.message}")
    if done.returncode in {126, 127}:  # env(1)
        return Unknown(f"check: {application.check[0]} cannot be run")
    if done.returncode < 0:
        return Unknown(f"check: {application.check[0]} was ended by signal {-done.returncode}")
    return ApplicationState.RUNNING if done.returncode == 0 else ApplicationState.STOPPED


def _show(unit: str, timeout_s: float) -> dict[str, str] | Unknown:
    """Properties of a unit."""
    try:
        done = run(["systemctl", "show", "-p", "ActiveState,SubState,Result,LoadState", "--", unit], timeout_s)
    except RunError as error:
        return Unknown(f"unit {unit}: {error.message}")
    return dict(line.split("=", 1) for line in done.stdout.splitlines() if "=" in line)


def _unit_state(unit: str, timeout_s: float) -> ApplicationState | Unknown:
    """State of a unit. One that was removed while it runs still has an ActiveState, which counts."""
    shown = _show(unit, timeout_s)
    if isinstance(shown, Unknown):
        return shown
    active, load = shown.get("ActiveState", ""), shown.get("LoadState", "")
    if active == "inactive" and load in {"not-found", "masked", "bad-setting", "error"}:
        return Unknown(f"unit {unit} cannot be used: {load}")
    return _ACTIVE.get(active, Unknown(f"unit {unit}: ActiveState {active or 'missing'}"))


def start(application: Application, timeout_s: float) -> str:
    """Start it and wait until it says that it is up; answers what was done, for people.

    A failed unit is reset first: after too many starts in a row systemd refuses another (StartLimitBurst=).
    The output of a start program goes to our stderr, since it may leave a daemon behind that keeps writing there.
    Raises ApplicationError.
    """
    if not application.unit:
        return _program(application.start, "start", timeout_s, inherit_output=True)
    unit = application.unit
    shown = _show(unit, min(timeout_s, CHECK_S))
    if not isinstance(shown, Unknown) and shown.get("ActiveState") == "failed":
        _systemctl("reset-failed", unit, min(timeout_s, CHECK_S))
    _systemctl("start", unit, timeout_s)
    return f"{unit} was started"


def stop(application: Application, timeout_s: float) -> str:
    """Stop it and wait until it has stopped; a unit that is not loaded has. Raises ApplicationError."""
    if not application.unit:
        return _program(application.stop, "stop", timeout_s, inherit_output=False)
    queued = _behind_keepalived(application.unit, min(timeout_s, CHECK_S))
    options = ("--job-mode=ignore-dependencies",) if queued else ()
    try:
        _systemctl("stop", application.unit, timeout_s, *options)
    except ApplicationError as error:
        if not isinstance(error.__cause__, RunError) or error.__cause__.returncode != 5:  # LSB: not installed
            raise
        return f"{application.unit} is not loaded"
    return f"{application.unit} was stopped"


def _behind_keepalived(unit: str, timeout_s: float) -> bool:
    """Whether a stop of this unit may be queued behind keepalived's, which waits for awsha, which waits for this one.

    So it is for a unit that is ordered before keepalived, and at a shutdown, when a stop of every unit is queued, for
    one that is so by others in between. False when systemd does not say.
    """
    try:
        shown = run(["systemctl", "show", "-p", "Before", "--", unit], timeout_s).stdout
        state = run(["systemctl", "is-system-running"], timeout_s, check=False).stdout
    except RunError:
        return False
    before = [line.removeprefix("Before=").split() for line in shown.splitlines() if line.startswith("Before=")]
    return state.strip() == "stopping" or any("keepalived.service" in names for names in before)


def _systemctl(verb: str, unit: str, timeout_s: float, *options: str) -> None:
    """One systemctl call that changes a unit."""
    hint = f"journalctl -u {unit} -n 50"
    try:
        run(["systemctl", verb, "--no-ask-password", *options, "--", unit], timeout_s)
    except RunTimeout as error:
        late = f"{verb} of {unit} did not end within {timeout_s:g} s"
        raise ApplicationError(late, hint=hint, timeout=True) from error
    except ProgramMissing as error:
        raise ApplicationError(error.message, hint=error.hint) from error
    except RunError as error:
        raise ApplicationError(f"{verb} of {unit}: {error.message}", hint=hint) from error


def _program(argv: tuple[str, ...], verb: str, timeout_s: float, inherit_output: bool) -> str:
    """Run a program of the configuration."""
    if not argv:
        raise ApplicationError(f"no {verb} program is configured", hint=f'[group.application] {verb} = ["…"]')
    log = "its output is in the agent's log: journalctl -u awsha-agent"
    hint = log if inherit_output else f"by hand: {' '.join(argv)}"
    try:
        done = run(argv, timeout_s, check=False, operators=True, inherit_output=inherit_output)
    except RunTimeout as error:
        raise ApplicationError(f"{verb}: {error.message}", hint=error.hint or hint, timeout=True) from error
    except RunError as error:
        raise ApplicationError(f"{verb}: {error.message}", hint=error.hint or hint) from error
    if done.returncode in {126, 127}:
        raise ApplicationError(f"{verb}: {argv[0]} cannot be run", hint=done.stderr.strip() or hint)
    if done.returncode != 0:
        how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        tail = done.stderr.strip().splitlines()[-1:] or done.stdout.strip().splitlines()[-1:]
        raise ApplicationError(f"{verb}: {argv[0]} ended with {how}{''.join(': ' + line for line in tail)}", hint=hint)
    return f"{argv[0]} has {'started' if verb == 'start' else 'stopped'} the application"
