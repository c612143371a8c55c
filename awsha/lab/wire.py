"""HTTP/1.1 over sockets that somebody else made: keep-alive, one write a reply, no delay of small packets.

`http.server` costs more than the calls it would carry, and cannot swallow a request or a reply on purpose.
"""

from __future__ import annotations

import contextlib
import errno
import io
import logging
import select
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Any

log = logging.getLogger(__name__)

MAX_HEADERS = 64 * 1024
MAX_BODY = 16 * 1024 * 1024
MAX_CONNECTIONS = 1024
BLACK_HOLE_S = 600.0  # how long a request may hang when nobody gives up on it
_PASSING = frozenset({errno.ECONNABORTED, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM})
_SIGNALS = {signal.SIGTERM, signal.SIGINT}


def start_thread(name: str, target: Callable[..., None], *args: Any) -> threading.Thread:  # noqa: ANN401 - passed on
    """Start a daemon thread that never gets SIGTERM or SIGINT, so that the main thread always does."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)
    try:
        thread = threading.Thread(target=target, args=args, name=name, daemon=True)
        thread.start()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    return thread


@dataclass(slots=True)
class Request:
    """One request. `headers` have lower-case names; `peer` is the source address of the connection."""

    method: str
    path: str  # with the query string
    headers: dict[str, str]
    body: bytes
    peer: str
    connection: socket.socket

    def hang(self) -> None:
        """Wait until the client gives up, or the server stops, or BLACK_HOLE_S have passed."""
        poll = select.poll()
        poll.register(self.connection, select.POLLRDHUP | select.POLLHUP | select.POLLERR)
        poll.poll(BLACK_HOLE_S * 1000)


@dataclass(slots=True)
class Response:
    """What goes back."""

    status: int
    body: bytes
    headers: dict[str, str] = field(default_factory=dict)


Handler = Callable[[Request], Response | None]  # None: end the connection without a reply


class Malformed(Exception):
    """The bytes are no HTTP request that this server takes; `status` goes back."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class Server:
    """Answers on any number of listening sockets, a thread for each and one for each connection."""

    def __init__(self, name: str, handler: Handler) -> None:
        self._name = name
        self._handler = handler
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()
        self._threads: set[threading.Thread] = set()
        self.stopping = threading.Event()

    def serve(self, listening: socket.socket) -> None:
        """Answer on this socket from now on, and own it; returns at once."""
        self._start(f"{self._name}-accept", self._accept, listening)

    def stop(self, deadline_s: float = 2.0) -> bool:
        """Close everything; True when every thread has ended within `deadline_s` seconds."""
        self.stopping.set()
        with self._lock:
            sockets, threads = list(self._sockets), list(self._threads)
        for sock in sockets:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # close() alone does not wake a thread that waits in it
        end = time.monotonic() + deadline_s
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def _start(self, name: str, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        with self._lock:
            if self.stopping.is_set() or len(self._sockets) >= MAX_CONNECTIONS:
                sock.close()
                return
            self._sockets.add(sock)
            self._threads.add(start_thread(name, self._run, target, sock))

    def _run(self, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        try:
            target(sock)
        except OSError as error:
            log.debug("connection ended: %s", error)  # the client went away
        except Exception:  # a bug in a handler costs one connection, not the server
            log.exception("%s failed", self._name)
        finally:
            sock.close()
            with self._lock:
                self._sockets.discard(sock)
                self._threads.discard(threading.current_thread())

    def _accept(self, listening: socket.socket) -> None:
        while not self.stopping.is_set():
            try:
                connection, _ = listening.accept()
            except OSError as error:
                if error.errno not in _PASSING or self.stopping.wait(0.05):
                    raise
                continue
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            self._start(self._name, self._converse, connection)

    def _converse(self, connection: socket.socket) -> None:
        peer = str(connection.getpeername()[0])
        with connection.makefile("rb") as reader:
            while not self.stopping.is_set() and self._exchange(connection, reader, peer):
                pass

    def _exchange(self, connection: socket.socket, reader: io.BufferedReader, peer: str) -> bool:
        """One request and its reply; False when the connection ends."""
        try:
            request = read_request(reader, connection, peer)
        except Malformed as error:
            connection.sendall(_render(Response(error.status, b""), close=True))
            return False
        response = self._handler(request) if request else None
        if request is None or response is None:
            return False
        close = request.headers.get("connection", "").lower() == "close"
        connection.sendall(_render(response, close=close, head=request.method == "HEAD"))
        return not close


def read_request(reader: io.BufferedReader, connection: socket.socket, peer: str) -> Request | None:
    """The next request of a connection; None at its end; raises Malformed."""
    line = reader.readline(MAX_HEADERS)
    if not line:
        return None
    words = line.decode("latin-1").split()
    if len(words) != 3 or not words[2].startswith("HTTP/1."):
        raise Malformed(400)
    headers: dict[str, str] = {}
    size = 0
    while True:
        line = reader.readline(MAX_HEADERS)
        size += len(line)
        if line in (b"\r\n", b"\n"):
            break
        name, colon, value = line.decode("latin-1").partition(":")
        if not colon or size > MAX_HEADERS:
            raise Malformed(431 if size > MAX_HEADERS else 400)
        headers[name.strip().lower()] = value.strip()
    length = headers.get("content-length", "0")
    if "transfer-encoding" in headers or not length.isdigit():
        raise Malformed(411)
    if int(length) > MAX_BODY:
        raise Malformed(413)
    if headers.get("expect", "").lower() == "100-continue":
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
    body = reader.read(int(length)) if int(length) else b""
    if len(body) < int(length):
        return None
    return Request(words[0], words[1], headers, body, peer, connection)


def _render(response: Response, *, close: bool, head: bool = False) -> bytes:
    try:
        phrase = HTTPStatus(response.status).phrase
    except ValueError:
        phrase = "Unknown"
    lines = [f"HTTP/1.1 {response.status} {phrase}", f"Content-Length: {len(response.body)}"]
    lines += [f"{name}: {value}" for name, value in response.headers.items()]
    if close:
        lines.append("Connection: close")
    return "\r\n".join((*lines, "", "")).encode("latin-1", "replace") + (b"" if head else response.body)
