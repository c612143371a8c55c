"""Instance metadata over HTTP, version 2 only: a token by PUT, then reads with it (EC2 user guide, "Use IMDSv2")."""

from __future__ import annotations

import re
import secrets
import socket
import threading
from collections.abc import Callable

from awsha.lab.faults import METADATA
from awsha.lab.records import Ec2Error
from awsha.lab.rules import Region
from awsha.lab.wire import Request, Response, Server

TOKEN_PATH = "/latest/api/token"  # noqa: S105 - a path
LONGEST_TOKEN_S = 21_600
KEPT_TOKENS = 4096
_VERSION = re.compile(r"/(?:latest|\d{4}-\d{2}-\d{2})(?:/(.*))?")


class MetadataService:
    """Serves each instance its own metadata; who asks is told by the source address of the connection.

    `now` and `lock` are the region's clock and lock. `identify(address)` gives an instance id or None.
    """

    def __init__(
        self,
        region: Region,
        now: Callable[[], float],
        lock: threading.Lock | threading.RLock,
        *,
        identify: Callable[[str], str | None] | None = None,
    ) -> None:
        self._region = region
        self._now = now
        self._lock = lock
        self._identify = identify or region.instance_at
        self._tokens: dict[str, tuple[str, float]] = {}  # token -> (instance, expires)
        self._server = Server("metadata", self._handle)

    def serve(self, listening: socket.socket) -> None:
        """Answer on this listening socket from now on, and own it; returns at once."""
        self._server.serve(listening)

    def stop(self, deadline_s: float = 2.0) -> bool:
        """End all connections and threads; True when they have ended within `deadline_s` seconds."""
        return self._server.stop(deadline_s)

    def expire_tokens(self) -> None:
        """Every token ends now: the next read gets a 401, as after an instance's metadata service restarts."""
        with self._lock:
            self._tokens.clear()

    def _handle(self, request: Request) -> Response | None:
        with self._lock:
            now = self._now()
            caller = self._identify(request.peer)
            transport = self._region.transport(METADATA, now, caller, {"Path": request.path})
        if transport.black_hole:
            request.hang()
            return None
        if transport.delay_s and self._server.stopping.wait(transport.delay_s):
            return None
        try:
            with self._lock:
                response = self._answer(request, caller, self._now())
        except Ec2Error as error:  # a fault; its code may be an HTTP status
            response = _text(int(error.code) if error.code.isdigit() else error.http_status)
        return None if transport.drop_reply else response

    def _answer(self, request: Request, caller: str | None, now: float) -> Response:
        path = request.path.partition("?")[0]
        if caller is None:
            return _text(404)
        if request.method == "PUT":
            return self._token(request, caller, now) if path == TOKEN_PATH else _text(404)
        if request.method not in ("GET", "HEAD"):
            return _text(405)
        holder, expires = self._tokens.get(request.headers.get("x-aws-ec2-metadata-token", ""), ("", 0.0))
        if holder != caller or expires <= now:
            return _text(401)
        if path in ("", "/"):
            return _text(200, "latest")
        found = _VERSION.fullmatch(path)
        text = self._region.metadata(caller, found[1] or "", now) if found else None
        return _text(404) if text is None else _text(200, text)

    def _token(self, request: Request, caller: str, now: float) -> Response:
        if "x-forwarded-for" in request.headers:
            return _text(403)  # the real service refuses what came through a proxy
        seconds = request.headers.get("x-aws-ec2-metadata-token-ttl-seconds", "")
        if not seconds.isdigit() or not 1 <= int(seconds) <= LONGEST_TOKEN_S:
            return _text(400)
        if len(self._tokens) >= KEPT_TOKENS:
            self._tokens = {t: kept for t, kept in self._tokens.items() if kept[1] > now}
        while len(self._tokens) >= KEPT_TOKENS:
            del self._tokens[next(iter(self._tokens))]
        token = secrets.token_urlsafe(40)
        self._tokens[token] = (caller, now + int(seconds))
        response = _text(200, token)
        response.headers["X-Aws-Ec2-Metadata-Token-Ttl-Seconds"] = seconds
        return response


def _text(status: int, text: str = "") -> Response:
    return Response(status, text.encode(), {"Content-Type": "text/plain"})
