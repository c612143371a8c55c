"""The first process of a node: makes its namespaces and private folders, starts programs when told, and reaps orphans.

`python -m awsha.lab.init SPEC` with SPEC as JSON: name, cgroup, netns, control (number of an inherited SEQPACKET
socket), binds (path in the node -> path on the host), keep (host paths that must stay visible below the private
folders).
Standard library only: it must be up in milliseconds, and it is process 1, so nothing may end it.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import socket
import sys
import uuid
from pathlib import Path
from typing import Any

from awsha.lab import linux

# Private and empty in every node. The host's own contents of these are hidden, its devices among them.
PRIVATE = {"/dev": "mode=755", "/run": "mode=755", "/tmp": "mode=1777", "/mnt": "mode=755", "/srv": "mode=755"}  # noqa: S108
DEVICES = {"null": (1, 3), "zero": (1, 5), "full": (1, 7), "random": (1, 8), "urandom": (1, 9), "tty": (5, 0)}
NOTIFY_SOCKET = "/run/lab/notify"
MESSAGE_BYTES = 1 << 17


def main(argv: list[str]) -> int:
    """Enter the namespaces, fork process 1, and wait for it: this outer process is its parent on the host."""
    spec = json.loads(argv[0])
    signal.pthread_sigmask(signal.SIG_SETMASK, [])
    control = socket.socket(fileno=spec["control"])
    linux.join_cgroup(Path(spec["cgroup"]))
    linux.setns_path(linux.netns_path(spec["netns"]), linux.CLONE_NEWNET)
    linux.unshare(linux.CLONE_NEWNS | linux.CLONE_NEWUTS | linux.CLONE_NEWPID)
    pid = os.fork()
    if pid == 0:
        try:
            make_private(spec)
            Init(control).run()
        except BaseException as error:  # noqa: BLE001 - the daemon shows it; there is nobody else to tell
            with contextlib.suppress(OSError):
                control.send(json.dumps({"event": "failed", "error": f"{type(error).__name__}: {error}"}).encode())
        os._exit(1)
    control.send(json.dumps({"event": "pid", "pid": pid}).encode())
    control.close()
    _, status = os.waitpid(pid, 0)
    return os.waitstatus_to_exitcode(status) & 0xFF


def make_private(spec: dict[str, Any]) -> None:
    """Mounts of the node. Raises OSError that says which one failed."""
    os.chdir("/")
    os.umask(0o022)
    socket.sethostname(spec["name"])
    # Slave, not private: what the host unmounts goes here too, so a node pins nothing; nothing goes the other way.
    linux.mount("none", "/", flags=linux.MS_REC | linux.MS_SLAVE)
    with contextlib.suppress(OSError):
        linux.umount("/run/netns", linux.MNT_DETACH)  # a copy of these mounts would keep other namespaces alive
    sources = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in spec["binds"].values()}
    kept = {path: os.open(path, os.O_PATH | os.O_CLOEXEC) for path in spec["keep"] if hidden(path)}
    linux.mount("proc", "/proc", "proc")
    linux.mount("sysfs", "/sys", "sysfs")  # a fresh one shows this network namespace
    linux.mount("tmpfs", "/sys/block", "tmpfs", data="mode=755")
    for folder, options in PRIVATE.items():
        ensure(folder)
        linux.mount("tmpfs", folder, "tmpfs", data=options)
    fill_dev()
    for path, fd in kept.items():
        Path(path).mkdir(parents=True, exist_ok=True)
        linux.mount(f"/proc/self/fd/{fd}", path, flags=linux.MS_BIND | linux.MS_REC)
        os.close(fd)
    for target in spec["binds"]:
        ensure(target)  # all before the first bind: an overlay would cover it
    for target, source in spec["binds"].items():
        linux.mount(f"/proc/self/fd/{sources[source]}", target, flags=linux.MS_BIND)
    for fd in sources.values():
        os.close(fd)
    Path("/run/lock").mkdir()
    Path(NOTIFY_SOCKET).parent.mkdir()
    # Each boot of a node is a boot to what runs in it, although the kernel underneath goes on.
    boot_id = Path("/run/lab/boot_id")
    boot_id.write_text(f"{uuid.uuid4()}\n")
    linux.mount(str(boot_id), "/proc/sys/kernel/random/boot_id", flags=linux.MS_BIND)


def hidden(path: str) -> bool:
    """Whether a private folder would cover this path."""
    return any(Path(path).is_relative_to(folder) for folder in PRIVATE)


def ensure(folder: str) -> None:
    """Make sure that a mount point exists, but not on the host: where it is missing, its parent gets an overlay."""
    path = Path(folder)
    if path.is_dir():
        return
    parent = next(p for p in path.parents if p.is_dir())
    if str(parent) == "/":
        raise FileNotFoundError(2, f"the lab needs a folder {folder} to mount on; mkdir {folder}")
    scratch = Path("/run/lab-overlay") / str(parent).strip("/").replace("/", "-")
    if not scratch.exists():
        (scratch / "upper").mkdir(parents=True)
        (scratch / "work").mkdir()
        data = f"lowerdir={parent},upperdir={scratch}/upper,workdir={scratch}/work"
        linux.mount("overlay", str(parent), "overlay", data=data)
    path.mkdir(parents=True)


def fill_dev() -> None:
    """The devices that every program expects. No disks: those come and go with EC2's attachments."""
    dev = Path("/dev")
    for name, (major, minor) in DEVICES.items():
        os.mknod(dev / name, 0o020666, os.makedev(major, minor))
        (dev / name).chmod(0o666)
    for name in ("pts", "shm"):
        (dev / name).mkdir()
    linux.mount("devpts", "/dev/pts", "devpts", data="newinstance,ptmxmode=0666,mode=620")
    linux.mount("tmpfs", "/dev/shm", "tmpfs", data="mode=1777")  # noqa: S108
    links = {"ptmx": "pts/ptmx", "fd": "/proc/self/fd", "stdin": "fd/0", "stdout": "fd/1", "stderr": "fd/2"}
    for name, target in links.items():
        (dev / name).symlink_to(target)


class Init:
    """Serves the daemon's requests: spawn, signal, kill by name. Reports exits and sd_notify messages."""

    def __init__(self, control: socket.socket) -> None:
        self._control = control
        self._children: dict[int, str] = {}  # pid -> name
        self._wake, wake_write = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for number in (signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, lambda *_: None)
        self._notify = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._notify.bind(NOTIFY_SOCKET)

    def run(self) -> None:
        """Serve for ever; a daemon that is gone does not end the node (`lab down` does)."""
        self._send({"event": "up"})
        poll = select.poll()
        for source in (self._wake, self._control.fileno(), self._notify.fileno()):
            poll.register(source, select.POLLIN)
        while True:
            for fd, events in poll.poll():
                if fd == self._wake:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake, 4096)
                    self._reap()
                elif fd == self._notify.fileno():
                    self._send({"event": "notify", "text": self._notify.recv(4096).decode(errors="replace")})
                elif not self._serve() or events & select.POLLHUP:
                    poll.unregister(fd)

    def _serve(self) -> bool:
        """Answer one request; False when the daemon is gone."""
        data, fds, _, _ = socket.recv_fds(self._control, MESSAGE_BYTES, 4)
        if not data:
            return False
        request = json.loads(data)
        try:
            reply = {"result": getattr(self, f"do_{request['do']}")(request, fds)}
        except Exception as error:  # noqa: BLE001 - whatever it is, process 1 lives on and the daemon hears of it
            reply = {"error": f"{type(error).__name__}: {error}"}
        finally:
            for fd in fds:
                os.close(fd)
        spawned = {"spawned": request["name"]} if request["do"] == "spawn" else {}
        self._send({"reply": request["id"], **spawned, **reply})
        return True

    def do_spawn(self, request: dict[str, Any], fds: list[int]) -> int:
        """Start a program in its own session, output to the given descriptor; returns its pid in the node."""
        actions = [
            (os.POSIX_SPAWN_OPEN, 0, "/dev/null", os.O_RDONLY, 0),
            (os.POSIX_SPAWN_DUP2, fds[0], 1),
            (os.POSIX_SPAWN_DUP2, fds[0], 2),
        ]
        defaults = [signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGPIPE]
        argv: list[str] = request["argv"]
        pid = os.posix_spawnp(
            argv[0], argv, request["env"], file_actions=actions, setsid=True, setsigmask=[], setsigdef=defaults
        )
        self._children[pid] = request["name"]
        return pid

    def do_signal(self, request: dict[str, Any], _fds: list[int]) -> list[int]:
        """Signal the child of this name (spawned here); returns its pid, or nothing."""
        pids = [pid for pid, name in self._children.items() if name == request["name"]]
        for pid in pids:
            os.kill(pid, request["signal"])
        return pids

    def do_kill_command(self, request: dict[str, Any], _fds: list[int]) -> list[int]:
        """SIGKILL to every process of the node with this command name; returns their pids.

        All are stopped first: the end of one can make another end in an orderly way (keepalived's child, by PDEATHSIG).
        """
        found = []
        for folder in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (folder / "comm").read_text().strip() == request["comm"]:
                    found.append(int(folder.name))
        for number in (signal.SIGSTOP, signal.SIGKILL):
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
        return found

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            name = self._children.pop(pid, None)
            if name is not None:
                self._send({"event": "exit", "name": name, "pid": pid, "code": os.waitstatus_to_exitcode(status)})

    def _send(self, message: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):
            self._control.send(json.dumps(message).encode(), socket.MSG_DONTWAIT)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
