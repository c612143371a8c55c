"""The daemon's control socket: one JSON object a line in, one out. Root only: the folder's and the socket's modes."""

from __future__ import annotations

import json
import logging
import os
import socket
import socketserver
from collections.abc import Callable
from typing import Any

from awsha.core.errors import AwshaError
from awsha.lab.settings import Lab

Request = dict[str, Any]
log = logging.getLogger(__name__)


class _Handler(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Answer requests until the other side is done."""
        for line in self.rfile:
            try:
                request = json.loads(line)
                reply = {"result": self.server.answer(request)}  # type: ignore[attr-defined]
            except AwshaError as error:
                reply = {"error": error.message, "hint": error.hint}
            except Exception as error:
                log.exception("request failed: %s", line[:200])
                what = f"{type(error).__name__}: {error}"
                reply = {"error": what, "hint": "a fault of the lab itself: see daemon.log"}
            try:
                self.wfile.write(json.dumps(reply).encode() + b"\n")
            except OSError:
                return


class ControlServer(socketserver.ThreadingUnixStreamServer):
    """Serves `answer(request)` in a thread a connection."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, lab: Lab, answer: Callable[[Request], Any]) -> None:
        self.answer = answer
        # Under its name only once it listens: whoever finds it can connect.
        early = lab.socket.with_name("control.early")
        before = os.umask(0o177)
        try:
            super().__init__(str(early), _Handler)
        finally:
            os.umask(before)
        early.rename(lab.socket)


def ask(lab: Lab, request: Request, timeout_s: float = 30.0) -> Any:  # noqa: ANN401 - JSON
    """Have the daemon do something; returns its result. Raises AwshaError: what it says, or that no lab is up."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(str(lab.socket))
            connection.sendall(json.dumps(request).encode() + b"\n")
            with connection.makefile("rb") as answers:
                line = answers.readline()
    except (FileNotFoundError, ConnectionRefusedError) as error:
        raise NoLab(lab) from error
    except TimeoutError as error:
        raise AwshaError(f"the lab did not answer within {timeout_s:g} s", hint=f"look at {lab.log}") from error
    except PermissionError as error:
        raise AwshaError("the lab is for root", hint="sudo awsha lab …") from error
    except OSError as error:
        raise AwshaError(f"the lab broke off: {error}", hint="awsha lab down cleans up") from error
    if not line:
        raise AwshaError("the lab's daemon ended before it answered", hint="awsha lab down cleans up")
    reply = json.loads(line)
    if "error" in reply:
        raise AwshaError(str(reply["error"]), hint=str(reply.get("hint", "")))
    return reply["result"]


class NoLab(AwshaError):
    """No daemon answers for this prefix."""

    def __init__(self, lab: Lab) -> None:
        super().__init__(f"no lab is up (prefix {lab.prefix})", hint="awsha lab up")
