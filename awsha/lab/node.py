"""One instance: namespaces, a cgroup, a first process, and what runs inside. The daemon looks in through /proc."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import awsha
from awsha.core.errors import AwshaError
from awsha.host import mountinfo
from awsha.lab.disk import Attachment
from awsha.lab.init import MESSAGE_BYTES, NOTIFY_SOCKET
from awsha.lab.settings import Lab, NodeSpec
from awsha.lab.waiting import wait_until

BOOT_DEADLINE_S = 10.0
REPLY_DEADLINE_S = 5.0
KILL_DEADLINE_S = 10.0
KEEPALIVED_PID = "/run/keepalived.pid"
VRRP_PID = "/run/keepalived_vrrp.pid"
LOOP_NUMBER = b" 7:"  # as in the third field of a line: " 7:3 "
EBS_MODEL = "Amazon Elastic Block Store"
# What a node keeps over a reboot: path in the node -> folder below its own in the run folder.
KEPT = {"/etc/keepalived": "etc-keepalived", "/etc/awsha": "etc-awsha", "/var/lib/awsha": "var-lib-awsha"}


class Node:
    """A node that can be booted, frozen, and lose its power. Safe to call from several threads."""

    def __init__(self, lab: Lab, spec: NodeSpec, environment: dict[str, str]) -> None:
        """Prepare the folders that survive a reboot; nothing runs yet."""
        self.spec = spec
        self.environment = environment
        self.pid = 0  # of process 1, as the host sees it; 0: off
        self.on_exit: Callable[[str, int], None] = lambda _name, _code: None
        self.starting = threading.Lock()  # held while its services are started
        self.ready = threading.Event()  # the agent said READY=1 since it was started
        self._lab = lab
        self.folder = lab.node_dir(spec.name)
        self._cgroup = lab.cgroup / spec.name
        self._lock = threading.RLock()
        self._outer: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        self._replies: dict[int, dict[str, Any]] = {}
        self._arrived = threading.Condition()
        self._events: list[dict[str, Any]] = []
        self._running: dict[str, int] = {}  # programs started by `spawn` that have not ended: pid in the node
        self._count = 0
        for kept in KEPT.values():
            (self.folder / kept).mkdir(parents=True, exist_ok=True)

    # Life

    def boot(self) -> None:
        """Start process 1 in fresh namespaces. Raises AwshaError when it does not come up in time."""
        with self._lock:
            self._cgroup.mkdir(exist_ok=True)
            mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            spec = {
                "name": self.spec.name, "cgroup": str(self._cgroup), "netns": self._lab.netns(self.spec.name),
                "control": theirs.fileno(), "keep": kept_paths(),
                "binds": {target: str(self.folder / name) for target, name in KEPT.items()},
            }  # fmt: skip
            with theirs, (self.folder / "init.log").open("ab") as log:
                self._outer = subprocess.Popen(
                    [sys.executable, "-P", "-m", "awsha.lab.init", json.dumps(spec)],
                    pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd="/",
                )  # fmt: skip
            with self._arrived:
                self._control, self._events, self._running = mine, [], {}
            self.ready.clear()
            threading.Thread(target=self._read, args=(mine,), name=f"node {self.spec.name}", daemon=True).start()
            up = wait_until(lambda: self._event("up", "failed", "gone"), BOOT_DEADLINE_S)
            pid = self._event("pid")
            if not up or up["event"] != "up" or pid is None:
                self.kill()
                raise AwshaError(f"node {self.spec.name} did not boot: {(up or {}).get('error', 'no answer')}")
            self.pid = int(pid["pid"])

    def _event(self, *names: str) -> dict[str, Any] | None:
        with self._arrived:
            return next((event for event in self._events if event["event"] in names), None)

    def kill(self) -> None:
        """Every process of the node ends now, frozen or not. Raises AwshaError when the kernel can't end one."""
        with self._lock:
            if self._cgroup.exists():
                (self._cgroup / "cgroup.kill").write_text("1")
                if not wait_until(lambda: not self.populated(), KILL_DEADLINE_S):
                    raise AwshaError(f"node {self.spec.name} did not die in {KILL_DEADLINE_S} s")
                with contextlib.suppress(OSError):
                    (self._cgroup / "cgroup.freeze").write_text("0")
            self.pid = 0
            if self._control is not None:
                self._control.close()
                self._control = None
            if self._outer is not None:
                self._outer.wait(KILL_DEADLINE_S)
                self._outer = None

    def populated(self) -> bool:
        """Whether any process is left in the node's cgroup."""
        try:
            return "populated 1" in (self._cgroup / "cgroup.events").read_text()
        except FileNotFoundError:
            return False

    @property
    def on(self) -> bool:
        """Whether the node has power."""
        return self.pid != 0

    def freeze(self, *, frozen: bool = True) -> None:
        """Stop every process where it is, as a hypervisor that gives no time; or let them go on."""
        (self._cgroup / "cgroup.freeze").write_text("1" if frozen else "0")
        state = f"frozen {int(frozen)}"
        if not wait_until(lambda: state in (self._cgroup / "cgroup.events").read_text(), KILL_DEADLINE_S):
            raise AwshaError(f"node {self.spec.name} did not become {state}")

    @property
    def frozen(self) -> bool:
        """Whether the node was frozen."""
        try:
            return (self._cgroup / "cgroup.freeze").read_text().strip() == "1"
        except FileNotFoundError:
            return False

    def remove(self) -> None:
        """Take away the cgroup of a dead node."""
        with contextlib.suppress(OSError):
            self._cgroup.rmdir()

    # Programs

    def spawn(self, name: str, argv: list[str], extra: dict[str, str] | None = None) -> int:
        """Start a program as a child of process 1, output to <name>.log; its pid in the node. Raises AwshaError."""
        environment = {**self.environment, **(extra or {})}
        with (self.folder / f"{name}.log").open("ab") as log:
            return int(self._ask({"do": "spawn", "name": name, "argv": argv, "env": environment}, [log.fileno()]))

    def signal(self, name: str, number: signal.Signals) -> list[int]:
        """Signal a program started by `spawn`; returns the pids signalled."""
        return list(self._ask({"do": "signal", "name": name, "signal": int(number)}))

    def kill_command(self, comm: str) -> list[int]:
        """SIGKILL to every process of the node with this command name; returns their pids in the node."""
        return list(self._ask({"do": "kill_command", "comm": comm}))

    def running(self, name: str) -> bool:
        """Whether a program started by `spawn` has not ended yet."""
        with self._arrived:
            return self.on and name in self._running

    def start_agent(self, argv: list[str]) -> None:
        """Start the agent with a socket for its readiness; `ready` tells."""
        self.ready.clear()
        self.spawn("agent", argv, {"NOTIFY_SOCKET": NOTIFY_SOCKET})

    def start_keepalived(self) -> None:
        """Start keepalived as LAB.md found it to work: foreground, VRRP only, log to stderr."""
        # Killed processes leave their pid files, and keepalived takes a live pid in there for itself.
        for name in (KEEPALIVED_PID, VRRP_PID):
            self.path(name).unlink(missing_ok=True)
        conf = "/etc/keepalived/keepalived.conf"
        argv = ["keepalived", "-n", "-P", "-l", "-D", "-f", conf, "-p", KEEPALIVED_PID, "-r", VRRP_PID]
        self.spawn("keepalived", argv)

    def _ask(self, request: dict[str, Any], fds: list[int] | None = None) -> Any:  # noqa: ANN401 - JSON
        with self._arrived:
            if self._control is None:
                raise AwshaError(f"node {self.spec.name} is off", hint=f"awsha lab heal {self.spec.name}")
            self._count += 1
            number, control = self._count, self._control
            socket.send_fds(control, [json.dumps({**request, "id": number}).encode()], fds or [])
            if not self._arrived.wait_for(lambda: number in self._replies, REPLY_DEADLINE_S):
                raise AwshaError(f"node {self.spec.name} does not answer", hint=f"awsha lab heal {self.spec.name}")
            reply = self._replies.pop(number)
        if "error" in reply:
            raise AwshaError(f"node {self.spec.name}: {reply['error']}")
        return reply["result"]

    def _read(self, control: socket.socket) -> None:
        """Thread: take in what process 1 says until it is gone."""
        while True:
            try:
                data = control.recv(MESSAGE_BYTES)
            except OSError:
                data = b""
            message: dict[str, Any] = json.loads(data) if data else {"event": "gone"}
            with self._arrived:
                if self._control is not control:
                    return  # another boot has taken over
                self._take_in(message)
                self._arrived.notify_all()
            if message.get("event") == "exit":
                self.on_exit(message["name"], message["code"])
            if not data:
                return

    def _take_in(self, message: dict[str, Any]) -> None:
        """Remember one message of process 1."""
        if "reply" in message:
            self._replies[message["reply"]] = message
            if "spawned" in message and "result" in message:
                self._running[message["spawned"]] = message["result"]
        elif message["event"] == "notify":
            if "READY=1" in message["text"].split("\n"):
                self.ready.set()
        elif message["event"] != "exit":
            self._events.append(message)
        elif self._running.get(message["name"]) == message["pid"]:
            del self._running[message["name"]]

    # Looking in

    def path(self, inside: str) -> Path:
        """A path of the node as the host can open it (no absolute links on the way). Raises AwshaError when off."""
        if not self.on:
            raise AwshaError(f"node {self.spec.name} is off", hint=f"awsha lab heal {self.spec.name}")
        return Path(f"/proc/{self.pid}/root") / inside.lstrip("/")

    def pids(self) -> list[int]:
        """All processes of the node, as the host numbers them."""
        try:
            return [int(pid) for pid in (self._cgroup / "cgroup.procs").read_text().split()]
        except FileNotFoundError:
            return []

    def commands(self) -> dict[int, str]:
        """Command name of every process of the node."""
        found = {}
        for pid in self.pids():
            with contextlib.suppress(OSError):
                found[pid] = Path(f"/proc/{pid}/comm").read_text().strip()
        return found

    def mounts(self) -> list[mountinfo.Entry]:
        """Every mount of a loop device in any mount namespace of the node's processes; empty when it is off."""
        seen: set[str] = set()
        entries: list[mountinfo.Entry] = []
        for pid in [self.pid, *self.pids()] if self.on else []:
            with contextlib.suppress(OSError, ValueError, mountinfo.Torn):
                namespace = str(Path(f"/proc/{pid}/ns/mnt").readlink())
                if namespace not in seen:
                    entries += loop_mounts(f"/proc/{pid}/mountinfo")
                    seen.add(namespace)
        return entries

    # Devices

    def free_kernel_name(self, preferred: list[int]) -> str:
        """The first of these NVMe controllers that the node does not have, as nvme<k>n1."""
        taken = {path.name for path in self.path("/sys/block").iterdir()}
        return next(f"nvme{k}n1" for k in preferred if f"nvme{k}n1" not in taken)

    def show(self, attachment: Attachment) -> None:
        """Make a device appear: its node in /dev, then its folder in /sys/block, whole at once."""
        device = self.path(f"/dev/{attachment.kernel_name}")
        major, minor = (int(part) for part in attachment.number.split(":"))
        os.mknod(device, stat.S_IFBLK | 0o660, os.makedev(major, minor))
        half = self.path(f"/sys/block/.{attachment.kernel_name}")
        (half / "device").mkdir(parents=True)
        (half / "size").write_text(f"{attachment.loop.sectors}\n")
        (half / "ro").write_text("0\n")
        (half / "device/model").write_text(f"{EBS_MODEL:<40}\n")
        (half / "dev").write_text(f"{attachment.number}\n")
        (half / "device/serial").write_text(attachment.volume_id.replace("-", "") + "\n")
        half.rename(half.with_name(attachment.kernel_name))

    def hide(self, attachment: Attachment) -> None:
        """Make a device vanish, as a surprise removal does: sysfs first, then the node."""
        if not self.on:
            return
        with contextlib.suppress(FileNotFoundError):
            folder = self.path(f"/sys/block/{attachment.kernel_name}")
            half = folder.with_name(f".{attachment.kernel_name}-gone")
            folder.rename(half)
            shutil.rmtree(half)
        self.path(f"/dev/{attachment.kernel_name}").unlink(missing_ok=True)


def kept_paths() -> list[str]:
    """Host folders that a node must see to run this program, wherever they are: interpreter, packages, awsha itself."""
    project = Path(awsha.__file__).resolve().parent.parent
    return sorted({str(Path(path)) for path in (sys.prefix, sys.base_prefix, str(project))})


def loop_mounts(path: str) -> tuple[mountinfo.Entry, ...]:
    """The lines of a mountinfo that concern loop devices, as they were at one moment. Raises OSError, ValueError, Torn.

    As `mountinfo.read`, but only these lines are parsed: the lab looks twenty times a second.
    """
    for _ in range(mountinfo.TRIES):
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            data = b"".join(iter(lambda: os.read(fd, 1 << 20), b""))  # noqa: B023 - used up here
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            torn = any(event & (select.POLLPRI | select.POLLERR) for _, event in poll.poll(0))
        finally:
            os.close(fd)
        if not torn:
            return mountinfo.parse(b"\n".join(line for line in data.split(b"\n") if LOOP_NUMBER in line))
    raise mountinfo.Torn(f"{path} changed {mountinfo.TRIES} times in a row while it was read")
