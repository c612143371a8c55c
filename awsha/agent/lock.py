"""One converge loop a group on a node: a lock file that the kernel frees when its holder dies."""

from __future__ import annotations

import fcntl
import os
from types import TracebackType

from awsha.agent.paths import private_dir, run_dir


class GroupLock:
    """An exclusive lock on a group. `acquire` never waits."""

    def __init__(self, group: str) -> None:
        private_dir(run_dir())
        self._path = private_dir(run_dir() / "lock") / group
        self._descriptor: int | None = None

    def acquire(self) -> bool:
        """Take the lock; False when somebody has it."""
        if self._descriptor is None:
            descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                os.close(descriptor)
                return False
            self._descriptor = descriptor
        return True

    def release(self) -> None:
        """Give it back."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> GroupLock:
        """Nothing: `acquire` decides."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Give it back."""
        self.release()
