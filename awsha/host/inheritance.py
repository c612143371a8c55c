"""What a program that is started has from the process that starts it: descriptors and umask."""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import threading
from collections.abc import Callable

OPERATORS_UMASK = 0o022  # systemd's default for a service: an application has the same, whoever starts it
PRIVATE_UMASK = 0o077
_CLONE_FS = 0x200  # linux/sched.h


@functools.cache
def keep_descriptors() -> None:
    """Hand down none of the descriptors that this process was started with; those that Python opens are not, anyway."""
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # the one of the listing itself
            if int(name) > 2:
                os.set_inheritable(int(name), False)


def with_umask(umask: int | None, spawn: Callable[[], int]) -> int:
    """The pid that `spawn` answers, of a child with this umask. It is one for all threads of a process, unless a thread
    makes it its own (unshare(2)); so that takes a short one. Where it can't, the child has ours."""
    if umask is None:
        return spawn()
    answers: list[int | BaseException] = []

    def work() -> None:
        try:
            if ctypes.CDLL(None).unshare(_CLONE_FS) == 0:
                os.umask(umask)
            answers.append(spawn())
        except BaseException as error:  # noqa: BLE001 - raised again by who asked
            answers.append(error)

    thread = threading.Thread(target=work, name="spawn")
    thread.start()
    thread.join()
    if isinstance(answers[0], BaseException):
        raise answers[0]
    return answers[0]
