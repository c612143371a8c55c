"""awsha's commands in a node of the lab, each a fork of a process there that has imported everything.

A cold start costs half a second of processor time, and a page of the documentation has dozens of commands. What is run
is the same `main` with the same words, environment, user, namespaces and cgroup. For tests that ask for it: `lab.warm`.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any

from awsha.lab import linux
from awsha.lab.enter import entering

SLOWEST_S = 10.0  # for the end of a process that is told to end


class Warm:
    """The process in one node, from the test's side."""

    def __init__(self, where: dict[str, Any]) -> None:
        """Start it. `where`: the daemon's answer to `enter`."""
        self._pid = where["pid"]
        argv, environment = entering(where, [sys.executable, "-P", str(Path(__file__).resolve())])
        self._process = subprocess.Popen(
            argv, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            preexec_fn=lambda: linux.join_cgroup(Path(where["cgroup"])),  # noqa: PLW1509  a write and nothing else
        )  # fmt: skip

    def fits(self, where: dict[str, Any]) -> bool:
        """Whether it still runs, and in the node as it is now."""
        return self._pid == where["pid"] and self._process.poll() is None

    def run(self, words: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        """Run `awsha WORDS`. Raises TimeoutExpired, and ends the process then."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(words) + "\n")
        self._process.stdin.flush()
        if not select.select([self._process.stdout], [], [], timeout_s)[0]:
            self._process.kill()
            self.end()
            raise subprocess.TimeoutExpired(words, timeout_s)
        line = self._process.stdout.readline()
        assert line, f"the node went away under awsha {' '.join(words)}"
        told = json.loads(line)
        return subprocess.CompletedProcess(["awsha", *words], told["code"], told["stdout"], told["stderr"])

    def end(self) -> None:
        """End it."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            self._process.wait(SLOWEST_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait(SLOWEST_S)


def serve() -> None:
    """In the node: a line of words in, a line with what became of them out."""
    import importlib

    import botocore.client
    import botocore.session  # noqa: F401
    import rich.live
    import rich.table  # noqa: F401

    from awsha.cli.main import COMMANDS

    for module in {entry[0] for entry in COMMANDS.values()} | {"awsha.agent.preflight", "awsha.agent.operate"}:
        importlib.import_module(module)
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    for line in sys.stdin:
        out, err = os.memfd_create("out"), os.memfd_create("err")
        child = os.fork()
        if child == 0:
            _become(json.loads(line), out, err)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        texts = {"stdout": _all(out), "stderr": _all(err)}
        answers.write(json.dumps({"code": code, **texts}) + "\n")
        answers.flush()


def _become(words: list[str], out: int, err: int) -> None:
    """In the child: be awsha, and end."""
    code = 1
    try:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(out, 1)
        os.dup2(err, 2)
        os.closerange(3, 256)
        sys.argv = ["awsha", *words]
        from awsha.__main__ import main

        code = main()
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else int(end.code is not None)
    except BaseException:  # noqa: BLE001
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code or 0)


def _all(fd: int) -> str:
    size = os.fstat(fd).st_size
    text = os.pread(fd, size, 0).decode("utf-8", "replace")
    os.close(fd)
    return text


if __name__ == "__main__":
    serve()
