"""keepalived's entry: record the role for a group, wake the agent, exit. Standard library only, little of it.

keepalived runs notify scripts side by side, in no order, with umask 0177, and ends notify_stop after a second
(keepalived.conf(5); measured with 2.2.7). So nothing is done here but to write down what was said, ordered by the
fork of this process, which is in the order of keepalived's events.

An intent is a file of its own, RUN/intent/GROUP/TICKS-PID: no lock, and a late older script cannot override a newer
one, whatever the order of the writes. Its content is one line:

    ROLE BOOT_ID RECORDED_AT KEEPALIVED_PID KEEPALIVED_START_TICKS      (0 0: not started by keepalived)
"""

from __future__ import annotations

import os
import sys
import time

# What keepalived says -> what awsha records. MASTER_RX_LOWER_PRI comes at the end of a split brain: still master, look.
ROLES = {
    "master": "master",
    "backup": "backup",
    "fault": "fault",
    "stop": "stop",
    "deleted": "stop",
    "master_rx_lower_pri": "master",
}
WAKE_TIMEOUT_S = 0.3  # keepalived gives notify_stop one second in all


def run_dir() -> str:
    """The directory of runtime files (DESIGN section 5)."""
    return os.environ.get("AWSHA_RUN_DIR") or "/run/awsha"


def start_ticks(pid: int | str) -> int:
    """Start time of a process in clock ticks since boot: field 22 of /proc/PID/stat (proc(5))."""
    with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123  pathlib costs a millisecond here
        return int(file.read().rpartition(b")")[2].split()[19])


def _keepalived() -> tuple[int, int]:
    """(pid, start ticks) of the keepalived process that started this one; (0, 0) when somebody else did."""
    parent = os.getppid()
    try:
        with open(f"/proc/{parent}/comm", "rb") as file:  # noqa: PTH123
            if file.read().startswith(b"keepalived"):
                return parent, start_ticks(parent)
    except OSError:
        pass
    return 0, 0


def record(role: str, group: str) -> None:
    """Write the intent of this process for one group, atomically; remove the ones that it makes obsolete."""
    with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:  # noqa: PTH123
        boot_id = file.read().strip()
    pid, ticks = os.getpid(), start_ticks("self")
    keepalived, keepalived_ticks = _keepalived()
    now = time.clock_gettime(time.CLOCK_BOOTTIME)
    folder = f"{run_dir()}/intent/{group}"
    os.makedirs(folder, mode=0o700, exist_ok=True)  # noqa: PTH103
    name = f"{ticks:016d}-{pid:08d}"
    temporary = f"{folder}/.{name}"
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600)
    try:
        os.write(descriptor, f"{role} {boot_id} {now:.6f} {keepalived} {keepalived_ticks}\n".encode())
    finally:
        os.close(descriptor)
    os.rename(temporary, f"{folder}/{name}")  # noqa: PTH104
    _tidy(folder, name, boot_id)


def parse(name: str, text: str) -> tuple[str, tuple[int, int], str, float, tuple[int, int]] | None:
    """(role, order, boot id, recorded at, keepalived) from an intent's name and content; None when it is not one."""
    ticks, dash, pid = name[:16], name[16:17], name[17:]
    words = text.split()
    if dash != "-" or len(pid) != 8 or not (ticks + pid).isdigit() or not name.isascii() or len(words) != 5:
        return None
    try:
        at, keepalived = float(words[2]), (int(words[3]), int(words[4]))
    except ValueError:
        return None
    if words[0] not in ROLES.values() or not 0 <= at < 1e12 or not 0 <= keepalived[0] < 1 << 31:
        return None
    return words[0], (int(ticks), int(pid)), words[1], at, keepalived


def _tidy(folder: str, mine: str, boot_id: str) -> None:
    """Remove all intents but the newest of this boot. Start times begin anew with a boot: what is left of another one
    (or is no intent at all) must neither outlive nor outrank a real one, wherever AWSHA_RUN_DIR is."""
    newest, entries = mine, [entry for entry in os.listdir(folder) if entry[0] != "."]  # noqa: PTH208
    for entry in entries:
        try:
            with open(f"{folder}/{entry}", "rb") as file:  # noqa: PTH123
                found = parse(entry, file.read(4096).decode("ascii", "replace"))
        except OSError:
            continue  # another notify was quicker
        if found is not None and found[2] == boot_id:
            newest = max(newest, entry)
    for entry in entries:
        if entry != newest:
            try:  # noqa: SIM105  contextlib costs a millisecond here
                os.unlink(f"{folder}/{entry}")  # noqa: PTH108
            except OSError:
                pass  # another notify was quicker; or it is a directory, which harms nobody


def wake(group: str, timeout_s: float = WAKE_TIMEOUT_S) -> bool:
    """Tell the agent to look at a group now. False when no agent answered in time."""
    import _socket  # what `socket` wraps: that costs 9 ms (selectors, enum), as much as all the rest of this program

    connection = _socket.socket(_socket.AF_UNIX, _socket.SOCK_SEQPACKET)
    try:
        connection.settimeout(timeout_s)
        connection.connect(f"{run_dir()}/agent.sock")
        connection.send(f"wake {group}".encode())
        return connection.recv(64) == b"ok"
    except OSError:
        return False
    finally:
        connection.close()


def _known_group(group: str) -> bool:
    """Whether the configuration has this group: by the agent's list, else by reading awsha.toml.

    A file that is there and can't be read (somebody is just editing it) must not cost a role: then it is believed.
    """
    if not group.replace("-", "").replace("_", "").isalnum() or not group.isascii():
        return False
    if os.path.isdir(f"{run_dir()}/groups/{group}"):  # noqa: PTH112
        return True
    import tomllib

    path = os.environ.get("AWSHA_CONFIG") or "/etc/awsha/awsha.toml"
    try:
        with open(path, "rb") as file:  # noqa: PTH123
            groups = tomllib.load(file).get("group")
    except FileNotFoundError as error:
        _complain(f"can't read {path}: {error}")
        return False
    except (OSError, ValueError, RecursionError) as error:
        _complain(f"can't read {path}: {error}. {group} is taken to be one of its groups")
        return True
    return isinstance(groups, list) and any(isinstance(entry, dict) and entry.get("name") == group for entry in groups)


def _complain(text: str) -> None:
    """To the system log, and to a terminal if there is one (keepalived gives /dev/null)."""
    import syslog

    syslog.openlog("awsha-notify", syslog.LOG_PID, syslog.LOG_DAEMON)
    syslog.syslog(syslog.LOG_ERR, text)
    _write(2, f"awsha notify: {text}\n")


def _write(descriptor: int, text: str) -> bool:
    """False when it cannot be written: closed, or no space. That must not keep a role from being recorded."""
    try:
        os.write(descriptor, text.encode())
    except OSError:
        return False
    return True


def start_converge(group: str) -> None:
    """Start `awsha converge GROUP` in a session of its own, so that it outlives keepalived's process group."""
    log = f"{run_dir()}/converge-{group}.log"
    arguments = [sys.executable, "-I", "-m", "awsha", "converge", group]
    actions = [
        (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
        (os.POSIX_SPAWN_OPEN, 1, log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW, 0o600),
        (os.POSIX_SPAWN_DUP2, 1, 2),
    ]
    os.posix_spawn(sys.executable, arguments, os.environ, file_actions=actions, setsid=True)


def main(argv: list[str]) -> int:
    """`awsha notify ROLE GROUP [words that keepalived appends]`. Returns 0, or 1 when nothing was recorded."""
    os.umask(0o077)
    if argv[:1] in (["-h"], ["--help"]):
        if _write(1, f"Usage: awsha notify ROLE GROUP\n\n  ROLE: {', '.join(ROLES)}\n"):
            return 0
        _complain("its output could not be written")
        return 74  # sysexits.h, EX_IOERR
    role = ROLES.get(argv[0].lower()) if argv else None
    if role is None or len(argv) < 2:
        _complain(f"expected ROLE GROUP, got {argv!r}; ROLE is one of {', '.join(ROLES)}. Nothing was recorded")
        return 1
    if not run_dir().startswith("/"):
        _complain(
            f"AWSHA_RUN_DIR is {run_dir()}, which is relative: the agent would not look there. Nothing was recorded"
        )
        return 1
    group = argv[1]
    if not _known_group(group):
        _complain(f"the configuration has no group {group!r}. Nothing was recorded; see: awsha config show")
        return 1
    try:
        record(role, group)
    except OSError as error:
        _complain(f"can't record {role} for {group}: {error}")
        return 1
    if not wake(group):
        try:
            start_converge(group)
        except OSError as error:
            _complain(f"{role} is recorded for {group}, but no agent answers and no converge could be started: {error}")
    return 0
