"""`awsha agent`: one converge loop a group, and one place where events come in and questions are answered."""

from __future__ import annotations

import contextlib
import gc
import json
import os
import selectors
import signal
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from awsha.agent import about, ask, kept, sd
from awsha.agent.assembly import Node, assemble, group_named
from awsha.agent.converge import Converger
from awsha.agent.history import Recorder, Writer, last, request, this_run
from awsha.agent.journal import Journal
from awsha.agent.keepalived import KeepalivedWatch
from awsha.agent.lock import GroupLock
from awsha.agent.marks import Marks
from awsha.agent.metrics import Exporter, Tally
from awsha.agent.notices import Notifier
from awsha.agent.paths import health_file, private_dir, run_dir, write_health
from awsha.agent.report import group_report
from awsha.agent.saying import Saying
from awsha.core.chronicle import Chronicle
from awsha.core.errors import AwshaError
from awsha.core.loop import Turn
from awsha.core.model import Role
from awsha.core.plan import GONE
from awsha.core.situation import Code
from awsha.core.steps import Scope
from awsha.core.transition import Transition
from awsha.host import mounts, network
from awsha.host.clock import boottime

TICK_S = 1.0
STEPS_END_S = 5.0  # a clean stop waits this long for steps under way; what they set going is looked at after a restart
HISTORY_END_S = 2.0  # for a slow disk
NOTICE_END_S = 2.0  # for what is being sent just now
STALLED_S = 30.0  # a loop that has not turned for so long is stuck: systemd's watchdog restarts the agent
LOCK_LOOK_S = 0.1
SILENT_MOST = 64  # connections that have not asked anything yet; the oldest is closed for a newer one
IDENTIFY_S = 20.0  # who the peers are is asked again at most this often
ADVERT_LOOK_S = 1.0  # a master that hears another one looks at EC2 at most this often because of it


class HasFileno(Protocol):
    """Anything that a selector takes."""

    def fileno(self) -> int:
        """Its descriptor."""


class Agent:
    """The service. `run` returns when it was told to stop."""

    def __init__(self, config: Path) -> None:
        self._config = config
        self.journal = Journal()
        self.about = about.installed(config)
        self._began = boottime()
        self.history = Writer(lambda text: self.journal.say("history", text))
        self.tally = Tally()
        self.node: Node = assemble(config, listen=True, observer=self._asked)
        self.notifier = Notifier(self.node.policy.notify, self.journal.warn, self.tally.notified)
        self.tally.ways(self.notifier.ways)
        self.keepalived = KeepalivedWatch()
        self.convergers: dict[str, Converger] = {}
        self._turned: dict[str, float] = {}
        self._identified_at = boottime()
        self._looked_at: dict[str, float] = {}
        self._stop = threading.Event()
        self._selector = selectors.DefaultSelector()
        self._handlers: dict[int, Callable[[], None]] = {}
        self._silent: list[socket.socket] = []
        self._failed: list[str] = []

    def run(self) -> None:
        """Serve until SIGTERM or SIGINT. What is held stays held: a stop or a restart of the agent moves nothing.

        Raises AwshaError when a group's loop has broken down: a new process starts from what is true.
        """
        with contextlib.ExitStack() as stack:
            stack.callback(self._selector.close)
            self._watch_signals(stack)
            self._watch_kernel(stack)
            self._listen(stack)
            self._prepare_files()
            threads = [self._start_group(name) for name in (g.name for g in self.node.policy.groups)]
            if error := self.node.ec2.warm(2 + max(len(g.volumes) for g in self.node.policy.groups)):
                self.journal.say("ec2", f"{error.message} (hint: {error.hint})")
            about.publish(self.node, self.about, self.journal, self._stop)
            kept.keep(self._config)
            Saying(self.node, self._turns, lambda text: self.journal.say("status", text)).start(self._stop)
            self._tell_metrics()
            gc.collect()
            gc.freeze()
            sd.notify("READY=1")
            self._serve()
            sd.notify("STOPPING=1")
            self._stop.set()
            for converger in self.convergers.values():
                converger.poke()
            deadline = boottime() + STEPS_END_S + 1
            for thread in threads:
                thread.join(max(0.0, deadline - boottime()))
            self.history.close(HISTORY_END_S)
            self.notifier.close(NOTICE_END_S)
        if self._failed:
            names = ", ".join(self._failed)
            raise AwshaError(f"the loop of {names} has broken down", hint="a defect of awsha: see the log above")

    def _asked(self, action: str, seconds: float, code: str) -> None:
        """A request to EC2 has ended."""
        self.tally.request(action, seconds, code)
        request(action, seconds, code)

    def _recorded(self, transition: Transition) -> None:
        """A transition has a new line."""
        self.tally.transition(transition)
        self.notifier.transition(transition)

    def _tell_metrics(self) -> None:
        wanted = self.node.policy.metrics
        if wanted.wanted:
            for group in self.node.policy.groups:
                with contextlib.suppress(OSError):  # the writer of the history says what is wrong with it
                    self.tally.remember(last(group.name))
            Exporter(
                wanted,
                self.node.name,
                self.tally,
                self._turns,
                lambda text: self.journal.say("metrics", text),
            ).start(self._stop)

    def _turns(self) -> list[Turn]:
        """The last turn of each group's loop."""
        return [c.last for c in self.convergers.values() if c.last is not None]

    def stop(self) -> None:
        """End `run` soon."""
        self._stop.set()

    # --- events ---

    def _on(self, source: HasFileno, handler: Callable[[], None]) -> None:
        self._selector.register(source, selectors.EVENT_READ, handler)

    def _watch_signals(self, stack: contextlib.ExitStack) -> None:
        reader, writer = socket.socketpair()
        reader.setblocking(False)
        writer.setblocking(False)
        stack.callback(reader.close)
        stack.callback(writer.close)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: self.stop())
        signal.set_wakeup_fd(writer.fileno())
        self._on(reader, lambda: _swallow(reader))

    def _watch_kernel(self, stack: contextlib.ExitStack) -> None:
        """Mount table, addresses, adverts, and keepalived's end."""
        table = mounts.Watch()
        stack.callback(table.close)
        self._on(table, lambda: self._poke(Scope.DISKS) if table.drain() else None)
        for interface in {place.me.interface for place in self.node.places.values()}:
            self._watch_interface(stack, interface)
        if self.node.hearing.listener is not None:
            self._on(self.node.hearing.listener, self._heard)
        self.keepalived.attach(self._selector, self._poke)

    def _watch_interface(self, stack: contextlib.ExitStack, interface: str) -> None:
        addresses = network.Watch(interface)
        stack.callback(addresses.close)
        self._on(addresses, lambda: self._poke(Scope.ADDRESSES) if addresses.drain() else None)

    def _heard(self) -> None:
        """An advert. Hearing a master while master here is a split brain that is just ending: look at once."""
        for advert in self.node.hearing.drain():
            for converger in self.convergers.values():
                loop = converger.loop
                if loop.group.virtual_router_id != advert.router_id:
                    continue
                master = loop.intent is not None and loop.intent.role is Role.MASTER
                if (
                    master
                    and advert.priority > 0
                    and advert.at - self._looked_at.get(loop.group.name, 0.0) > ADVERT_LOOK_S
                ):
                    self._looked_at[loop.group.name] = advert.at
                    converger.poke(Scope.CLOUD, Scope.DISKS)

    def _poke(self, *scopes: Scope) -> None:
        for converger in self.convergers.values():
            converger.poke(*scopes)

    # --- the socket ---

    def _listen(self, stack: contextlib.ExitStack) -> None:
        if ask.ask("report") is not None:
            raise AwshaError("an agent runs on this node already", hint="awsha status; systemctl status awsha-agent")
        path = private_dir(run_dir()) / "agent.sock"
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        server.bind(str(path))
        path.chmod(0o600)
        server.listen(64)
        server.setblocking(False)
        stack.callback(lambda: path.unlink(missing_ok=True))
        stack.callback(server.close)
        self._on(server, lambda: self._accept(server))

    def _accept(self, server: socket.socket) -> None:
        with contextlib.suppress(OSError):
            connection, _ = server.accept()
            if _peer(connection) not in (0, os.geteuid()):
                connection.close()  # nothing it says is read, and it takes nobody's place
                return
            connection.setblocking(False)
            self._on(connection, lambda: self._answer(connection))
            self._silent.append(connection)
            if len(self._silent) > SILENT_MOST:
                oldest = self._silent.pop(0)
                self._selector.unregister(oldest)
                oldest.close()

    def _answer(self, connection: socket.socket) -> None:
        """One question, one answer."""
        self._selector.unregister(connection)
        self._silent.remove(connection)
        with connection, contextlib.suppress(OSError):
            connection.settimeout(1.0)
            words = connection.recv(4096).decode(errors="replace").split()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
            connection.send(self._reply(words).encode())

    def _reply(self, words: list[str]) -> str:
        match words:
            case ["wake", name] if name in self.convergers:
                self.convergers[name].poke()
                return "ok"
            case ["about"]:
                return about.told(self.about)
            case ["report"]:
                return json.dumps({"groups": [_report(c) for c in self.convergers.values() if c.last is not None]})
        return "what?"

    # --- groups ---

    def _prepare_files(self) -> None:
        """The list of groups for notify, and the health files for keepalived."""
        groups = private_dir(run_dir() / "groups")
        names = {g.name for g in self.node.policy.groups}
        for old in groups.iterdir():
            if old.name not in names:
                with contextlib.suppress(OSError):  # somebody's file: it is no group, and harms nobody
                    old.rmdir()
        for name in names:
            with contextlib.suppress(FileExistsError):  # a file in its place: notify reads awsha.toml then
                private_dir(groups / name)
            private_dir(health_file(name).parent)
            Marks(name).remove(GONE)

    def _start_group(self, name: str) -> threading.Thread:
        group = group_named(self.node.policy, name)
        chronicle = Chronicle(name, self.node.name, this_run(), self._began)
        converger = Converger(
            self.node.loop(group),
            self.node.executor(group),
            self.journal,
            self.keepalived.gone_since,
            Recorder(chronicle, self.history, self.journal, name, self._recorded),
        )
        self.convergers[name] = converger
        self._turned[name] = boottime()
        thread = threading.Thread(target=self._converge, args=(name, converger), name=f"converge-{name}", daemon=True)
        thread.start()
        return thread

    def _converge(self, name: str, converger: Converger) -> None:
        """The thread of one group. Should its loop ever break down, so does the agent, and systemd starts another."""
        try:
            self._keep_converging(name, converger)
        except Exception:  # noqa: BLE001  (it is told there)
            self.journal.broken(name)
            self._failed.append(name)
            self._stop.set()

    def _keep_converging(self, name: str, converger: Converger) -> None:
        lock = GroupLock(name)
        waiting = False
        while not lock.acquire():
            if not waiting:
                self.journal.say(name, "another awsha process converges this group: waiting for it")
                waiting = True
            self._turned[name] = boottime()
            if self._stop.wait(LOCK_LOOK_S):
                return
        with lock:
            told: tuple[bool, str] | None = None  # the verdict, and why it could not be written
            for turn in converger.turns():
                self._turned[name] = boottime()
                if told != (turn.verdict.ok, ""):
                    before, told = told, (turn.verdict.ok, write_health(name, ok=turn.verdict.ok))
                    if told[1] and told != before:
                        self.journal.say(name, f"keepalived can't be told the verdict: {told[1]}")
                if self._stop.is_set():
                    break
            converger.close(STEPS_END_S)

    def _serve(self) -> None:
        period = sd.watchdog_period_s()
        next_sign = boottime()
        while not self._stop.is_set():
            for key, _ in self._selector.select(TICK_S if period is None else min(TICK_S, period)):
                key.data()
            self._identify_again()
            now = boottime()
            if period is not None and now >= next_sign and all(now - at < STALLED_S for at in self._turned.values()):
                sd.notify("WATCHDOG=1")
                next_sign = now + period

    def _identify_again(self) -> None:
        """A peer whose instance is not known, or gone, or a holder that is none of the peers: one may be new."""
        turns = self._turns()
        strange = any(r.code is Code.HELD_BY_STRANGER for turn in turns for r in turn.plan.reasons)
        unresolved = any(place.unresolved for place in self.node.places.values())
        gone = any(turn.situation.gone() for turn in turns)
        if not (strange or unresolved or gone) or boottime() - self._identified_at < IDENTIFY_S:
            return
        self._identified_at = boottime()
        try:
            self.node.identify_again()
        except AwshaError as error:
            self.journal.say("ec2", f"the peers' instances can't be asked for: {error.message}")
            return
        for name, converger in self.convergers.items():
            converger.identified(self.node.places[name].me)
            converger.poke(Scope.CLOUD)


def _report(converger: Converger) -> dict[str, Any]:
    turn = converger.last
    assert turn is not None  # noqa: S101
    return group_report(turn.situation, turn.plan, turn.verdict, converger.loop.running)


def _peer(connection: socket.socket) -> int:
    """The user who connected, by the kernel's word: SO_PEERCRED (unix(7)) has pid, uid, gid."""
    uid: int = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[1]
    return uid


def _swallow(reader: socket.socket) -> None:
    with contextlib.suppress(BlockingIOError):
        reader.recv(4096)
