"""Finds the processes that keep file systems busy, in an interpreter of its own (openfiles starts it).

Standard library only. It prints a JSON object a line: a holder each, then {"complete": bool, "unseen": [pid]}.

No step may block on a dead server or disk, so no path of another process is ever looked up:
- fd: the link is read for its text (d_path, no file system is asked), and /proc/PID/fdinfo/N gives the mount id. Mount
  ids are unique in the kernel, so the ids of all mounts of our superblocks, in every mount namespace, decide.
- cwd, root, exe: the link's text is compared with our mount points first. Text alone would also name a process that
  sits in the directory *below* the mount, so a candidate is opened with O_PATH through the magic link, which asks no
  file system of ours, and its mount id is read from our own fdinfo.
- unix sockets: a bound socket pins its file system; the kernel gives the device of its inode (unix_diag).
- maps: the device column is the superblock's number. Reading it takes the process's memory lock, which a process
  stuck in a page fault may hold: hence last, and only for processes not yet found; what hangs there can be killed.
The command is taken from /proc/PID/stat: cmdline needs that same lock.
"""

# ruff: noqa: PTH115, PTH123, PTH208
# (names in /proc are texts to be compared, no paths to be followed; and this runs in a hurry)

from __future__ import annotations

import json
import os
import socket
import struct
import sys
import time

from awsha.host import mountinfo
from awsha.host.mountinfo import Entry

_KERNEL_THREAD = 0x00200000  # PF_KTHREAD in include/linux/sched.h
_CLONE_NEWNET = 0x40000000
_SOCK_DIAG_BY_FAMILY = 20
_UDIAG_SHOW = 0x1 | 0x2  # name, vfs


class Namespace:
    """A mount namespace: a process in it, its table as seen from its root, and its mounts of our superblocks."""

    def __init__(self, pid: int, root: str, numbers: set[str]) -> None:
        self.pid = pid
        entries = mountinfo.read(f"/proc/{pid}/mountinfo")
        prefix = "" if root == "/" else root
        self.table = tuple(entry._replace(target=prefix + entry.target) for entry in entries) if prefix else entries
        self.ours = [entry for entry in self.table if entry.number in numbers]

    def parents(self, entries: list[Entry]) -> set[str]:
        """Peer groups that the parents of these mounts are in, or receive from."""
        ids = {entry.parent for entry in entries}
        return {tag.split(":")[-1] for entry in self.table if entry.id in ids for tag in entry.tags if ":" in tag}

    def covers(self, path: str) -> bool:
        """Whether a path looks to be on one of ours."""
        return any(mountinfo.under(path, entry.target) for entry in self.ours)


class Process:
    """What /proc/PID/stat says: comm (which may hold blanks and parentheses), flags, start time."""

    def __init__(self, pid: int) -> None:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            text = stat.read()
        self.pid = pid
        self.command = text[text.index("(") + 1 : text.rindex(")")]
        rest = text[text.rindex(")") + 2 :].split()
        self.kernel = bool(int(rest[6]) & _KERNEL_THREAD)
        self.started = int(rest[19])


class Scan:
    """One scan. `complete` turns False for whatever could not be seen; `unseen`: processes among that."""

    def __init__(self, numbers: set[str], deadline: float) -> None:
        self.numbers = numbers
        self.deadline = deadline
        self.complete = True
        self.unseen: list[int] = []
        self.namespaces: dict[str, Namespace] = {}
        self.ids: set[int] = set()
        self.sockets: dict[str, dict[int, str]] = {}  # by network namespace: inode -> name

    def late(self) -> bool:
        """Whether time is up; then the scan is not complete."""
        if time.clock_gettime(time.CLOCK_BOOTTIME) < self.deadline:
            return False
        self.complete = False
        return True

    def run(self) -> None:
        """Look at every process, and print."""
        pids = sorted(int(name) for name in os.listdir("/proc") if name.isdigit() and int(name) != os.getpid())
        self._find_namespaces(pids)
        unfound = []
        for pid in pids:
            if self.late():
                return
            try:
                process = Process(pid)
                if process.kernel:
                    continue
                found = self._links(process) or self._descriptors(process)
            except (FileNotFoundError, ProcessLookupError):
                continue  # it ended
            except (OSError, ValueError):
                self.complete = False
                self.unseen.append(pid)
                continue
            if found:
                emit(process, *found)
            else:
                unfound.append(process)
        self._other_namespaces(unfound)
        for process in unfound:
            if self.late():
                return
            self._maps(process)

    def _find_namespaces(self, pids: list[int]) -> None:
        """Read one table a mount namespace, from a process that sees all of it where there is one."""
        members: dict[str, list[tuple[bool, int, str]]] = {}
        for pid in [os.getpid(), *pids]:
            try:
                name, root = os.readlink(f"/proc/{pid}/ns/mnt"), os.readlink(f"/proc/{pid}/root")
            except OSError:
                continue
            members.setdefault(name, []).append((root != "/", pid, root))
        for name, candidates in members.items():
            for _, pid, root in sorted(candidates)[:5]:
                try:
                    self.namespaces[name] = Namespace(pid, root, self.numbers)
                except (OSError, ValueError, mountinfo.Torn):
                    continue
                self.ids.update(entry.id for entry in self.namespaces[name].ours)
                break
            else:
                self.complete = False

    def _links(self, process: Process) -> tuple[str, str] | None:
        """cwd, root and exe."""
        namespace = self.namespaces.get(os.readlink(f"/proc/{process.pid}/ns/mnt"))
        if namespace is None or not namespace.ours:
            return None
        for how in ("cwd", "root", "exe"):
            try:
                path = os.readlink(f"/proc/{process.pid}/{how}")
                if namespace.covers(path) and self._is_ours(f"/proc/{process.pid}/{how}"):
                    return path, how
            except FileNotFoundError:
                continue  # a process that is ending has none
        return None

    def _is_ours(self, link: str) -> bool:
        """Whether a magic link leads to a mount of ours."""
        fd = os.open(link, os.O_PATH | os.O_CLOEXEC)
        try:
            return mount_id(f"/proc/self/fdinfo/{fd}") in self.ids
        finally:
            os.close(fd)

    def _descriptors(self, process: Process) -> tuple[str, str] | None:
        """Open files, and bound unix sockets."""
        base = f"/proc/{process.pid}"
        for name in os.listdir(f"{base}/fd"):
            try:
                path = os.readlink(f"{base}/fd/{name}")
                if path.startswith("socket:["):
                    bound = self._bound(process.pid).get(int(path[8:-1]))
                    if bound is not None:
                        return bound, "fd"
                elif path.startswith(("/", "(unreachable)")) and mount_id(f"{base}/fdinfo/{name}") in self.ids:
                    return path, "fd"
            except FileNotFoundError:
                continue  # closed meanwhile
        return None

    def _bound(self, pid: int) -> dict[int, str]:
        """Unix sockets of the process's network namespace that are bound on our superblocks."""
        name = os.readlink(f"/proc/{pid}/ns/net")
        if name not in self.sockets:
            self.sockets[name] = {}
            try:
                enter_network(pid, name)
                self.sockets[name] = bound_sockets(self.numbers)
            except OSError:
                self.complete = False
        return self.sockets[name]

    def _maps(self, process: Process) -> None:
        """Mapped files."""
        try:
            with open(f"/proc/{process.pid}/maps", "rb") as maps:
                for line in maps:
                    fields = line.rstrip(b"\n").split(None, 5)
                    if len(fields) == 6 and decimal(fields[3]) in self.numbers:
                        emit(process, os.fsdecode(fields[5]), "map")
                        return
        except (FileNotFoundError, ProcessLookupError):
            return
        except OSError:
            self.complete = False

    def _other_namespaces(self, unfound: list[Process]) -> None:
        """Mounts of ours in other mount namespaces that do not follow ours when it goes: one process each.

        An unmount propagates along the peer group of the parent mount; services with a private view (PrivateTmp=)
        only follow, and hold nothing.
        """
        own = self.namespaces.get(os.readlink("/proc/self/ns/mnt"))
        groups = own.parents(own.ours) if own else set()
        for namespace in self.namespaces.values():
            if namespace is own:
                continue
            for entry in namespace.ours:
                if groups and groups & namespace.parents([entry]):
                    continue
                for process in [process for process in unfound if process.pid == namespace.pid]:
                    emit(process, entry.target, "mount")
                    unfound.remove(process)


def emit(process: Process, path: str, how: str) -> None:
    """Tell of one holder."""
    record = {"pid": process.pid, "command": process.command, "path": path, "how": how, "started": process.started}
    print(json.dumps(record), flush=True)  # noqa: T201


def mount_id(path: str) -> int | None:
    """The mount id in a fdinfo file (proc_pid_fdinfo(5))."""
    with open(path, "rb") as info:
        for line in info:
            if line.startswith(b"mnt_id:"):
                return int(line[7:])
    return None


def decimal(device: bytes) -> str:
    """A device number as maps writes it (fd:00, hexadecimal), as mountinfo writes it (253:0)."""
    major, _, minor = device.partition(b":")
    return f"{int(major, 16)}:{int(minor, 16)}"


def enter_network(pid: int, name: str) -> None:
    """Move this interpreter to a process's network namespace, unless it is there."""
    if os.readlink("/proc/self/ns/net") == name:
        return
    import ctypes  # os.setns came with Python 3.12

    fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if ctypes.CDLL(None, use_errno=True).setns(fd, _CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    finally:
        os.close(fd)


def bound_sockets(numbers: set[str]) -> dict[int, str]:
    """Inode -> name of the unix sockets bound on superblocks with these numbers (linux/unix_diag.h, sock_diag(7))."""
    found: dict[int, str] = {}
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 4) as diag:  # NETLINK_SOCK_DIAG
        diag.settimeout(1.0)
        request = struct.pack("=BBHIIIII", socket.AF_UNIX, 0, 0, 0xFFFFFFFF, 0, _UDIAG_SHOW, 0xFFFFFFFF, 0xFFFFFFFF)
        diag.send(struct.pack("=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, 0x301, 1, 0) + request)
        while True:
            data = diag.recv(1 << 18)
            offset = 0
            while offset + 16 <= len(data):
                length, kind = struct.unpack_from("=IH", data, offset)
                if kind == 3 or length < 16:  # NLMSG_DONE
                    return found
                if kind == 2:  # NLMSG_ERROR: no unix_diag in this kernel
                    raise OSError(-struct.unpack_from("=i", data, offset + 16)[0], "unix_diag")
                inode, number, name = _socket(data[offset : offset + length])
                if number in numbers:
                    found[inode] = name
                offset += (length + 3) & ~3


def _socket(message: bytes) -> tuple[int, str | None, str]:
    """Inode, device number and name in one answer. The kernel's own dev_t here: 12 bits major, 20 bits minor."""
    inode = struct.unpack_from("=I", message, 20)[0]
    number, name, offset = None, f"socket:[{inode}]", 32
    while offset + 4 <= len(message):
        length, kind = struct.unpack_from("=HH", message, offset)
        if length < 4:
            break
        if kind == 0:
            name = os.fsdecode(message[offset + 4 : offset + length].rstrip(b"\0"))
        elif kind == 1:
            device = struct.unpack_from("=I", message, offset + 8)[0]
            number = f"{device >> 20}:{device & 0xFFFFF}"
        offset += (length + 3) & ~3
    return inode, number, name


def main(argv: list[str]) -> None:
    """argv: seconds to take at most, then device numbers."""
    scan = Scan(set(argv[1:]), time.clock_gettime(time.CLOCK_BOOTTIME) + float(argv[0]))
    scan.run()
    print(json.dumps({"complete": scan.complete, "unseen": scan.unseen[:5]}), flush=True)  # noqa: T201
    sys.stdout.flush()
    os._exit(0)
