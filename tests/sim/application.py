"""The application of a group, as systemd runs it: it goes on when the agent dies. It acknowledges only after fsync."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from awsha.core.model import ApplicationState
from awsha.core.steps import Failure, Outcome
from tests.sim.kernel import Process, Superblock

if TYPE_CHECKING:
    from tests.sim.node import Node

Done = Callable[[Outcome], None]


class App:
    """One unit on one node, in one boot."""

    __slots__ = ("_run", "failures", "hangs", "node", "process", "state", "superblock")

    def __init__(self, node: Node) -> None:
        self.node = node
        self.state = ApplicationState.STOPPED
        self.process: Process | None = None
        self.superblock: Superblock | None = None
        self.failures = 0  # so many starts fail
        self.hangs = False  # it does not stop when it is asked to
        self._run = 0  # which start or stop is the newest

    def _is(self, state: ApplicationState) -> None:
        self.state = state
        self.node.local_change()

    def start(self, done: Done) -> None:
        """systemctl start; answers when it is up, or not."""
        if self.state in {ApplicationState.RUNNING, ApplicationState.STARTING}:
            done(Outcome(True))
            return
        self._run += 1
        self._is(ApplicationState.STARTING)
        self.node.after(0.02 + 0.3 * self.node.world.chance(), self._started, self._run, done)

    def _started(self, run: int, done: Done) -> None:
        if run != self._run:
            done(Outcome(False, "cancelled", failure=Failure.OTHER))
            return
        if self.failures:
            self.failures -= 1
            self._is(ApplicationState.FAILED)
            done(Outcome(False, "exit code 1", failure=Failure.OTHER))
            return
        node = self.node
        group = node.world.shape.group
        superblock = node.kernel.at(group.volumes[0].mount) if group.volumes else None
        doubtful = node.kernel.recover(superblock) if superblock is not None else []
        if doubtful is None:
            self._is(ApplicationState.FAILED)
            done(Outcome(False, "its recovery met an I/O error", failure=Failure.OTHER))
            return
        self.superblock = superblock
        self.process = node.kernel.spawn("db", self.superblock, stubborn=self.hangs)
        self._is(ApplicationState.RUNNING)
        node.world.watch.application_started(node)
        for record in doubtful:  # the client has asked again
            node.world.acknowledge(node, record)
        done(Outcome(True))

    def stop(self, done: Done, limit_s: float) -> None:
        """systemctl stop; answers when it is down, or after `limit_s`."""
        if self.process is None and self.state is not ApplicationState.STARTING:
            self._is(ApplicationState.STOPPED)
            done(Outcome(True))
            return
        self._run += 1
        if self.hangs:
            self.node.after(limit_s, done, Outcome(False, "stop did not end", failure=Failure.TIMEOUT))
            return
        self._is(ApplicationState.STOPPING)
        self.node.after(0.02 + 0.2 * self.node.world.chance(), self._stopped, self._run, done)

    def _stopped(self, run: int, done: Done) -> None:
        if run == self._run:
            self._end(ApplicationState.STOPPED)
        done(Outcome(True))

    def crash(self) -> None:
        """It ends by itself, or is killed."""
        if self.process is not None:
            self._run += 1
            self._end(ApplicationState.FAILED)

    def _end(self, state: ApplicationState) -> None:
        process, self.process, self.superblock = self.process, None, None
        self.state = state
        if process is not None:
            self.node.kernel.end(process)
        self.node.local_change()

    def request(self, record: int) -> None:
        """A client asks for a record to be kept."""
        if self.state is not ApplicationState.RUNNING or self.process is None:
            return
        if self.superblock is not None:
            self.superblock.dirty.append(record)
        chance = self.node.world.chance()
        self.node.after(0.001 + (0.02 if chance < 0.9 else 0.8) * chance, self._sync, record, self.process)

    def _sync(self, record: int, process: Process) -> None:
        """fsync; only then the acknowledgement. Without a file system below it, it writes to the root disk."""
        if process is not self.process:
            return
        if self.superblock is not None and not self.node.kernel.fsync(self.superblock):
            if self.node.world.chance() < 0.5:
                self.crash()  # EIO: many a database ends itself
            return
        self.node.world.acknowledge(self.node, record)
