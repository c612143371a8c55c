"""A small HTTP server whose next answers a test writes down: for what happens on the wire, not for EC2's rules."""

from __future__ import annotations

import socket
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

XMLNS = "http://ec2.amazonaws.com/doc/2016-11-15/"
VOLUMES = (
    f'<DescribeVolumesResponse xmlns="{XMLNS}"><volumeSet>'
    "<item><volumeId>vol-1</volumeId><status>available</status></item>"
    "<item><volumeId>vol-2</volumeId><status>available</status></item></volumeSet></DescribeVolumesResponse>"
)
INSTANCES = (
    f'<DescribeInstancesResponse xmlns="{XMLNS}"><reservationSet><item><instancesSet>'
    "<item><instanceId>i-1</instanceId><instanceState><code>16</code><name>running</name></instanceState></item>"
    "</instancesSet></item></reservationSet></DescribeInstancesResponse>"
)
DROP = 0  # a status that is none: the connection is closed without an answer
HANG = -1  # nobody answers, until the server ends


def refusal(code: str, message: str = "no") -> str:
    """EC2's body for an error."""
    return (
        f"<Response><Errors><Error><Code>{code}</Code><Message>{message}</Message></Error></Errors>"
        "<RequestID>req-1</RequestID></Response>"
    )


@dataclass(frozen=True)
class Request:
    """What arrived."""

    method: str
    path: str
    headers: dict[str, str]
    params: dict[str, str]


@dataclass
class Scripted:
    """Answers `script` in order, then `otherwise`, and notes what came."""

    url: str = ""
    script: deque[tuple[int, str]] = field(default_factory=deque)
    otherwise: tuple[int, str] = (200, VOLUMES)
    by_path: dict[str, tuple[int, str]] = field(default_factory=dict)
    requests: list[Request] = field(default_factory=list)
    connections: int = 0
    ended: threading.Event = field(default_factory=threading.Event)
    close_after_answer: bool = False

    def answer_to(self, request: Request) -> tuple[int, str]:
        """The next answer."""
        self.requests.append(request)
        if self.script:
            return self.script.popleft()
        return self.by_path.get(request.path, self.otherwise)


@contextmanager
def scripted_server() -> Iterator[Scripted]:
    """A server on a free loopback port; it is gone at the end, with everything that hung on it."""
    fake = Scripted()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1
        disable_nagle_algorithm = True

        def setup(self) -> None:
            super().setup()
            fake.connections += 1

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers.get("Content-Length") or 0)).decode()
            params = {key: values[0] for key, values in parse_qs(body).items()}
            status, text = fake.answer_to(Request(self.command, self.path, dict(self.headers), params))
            if status == HANG:
                fake.ended.wait(30)
            if status in (DROP, HANG):
                self.close_connection = True
                return
            data = text.encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)
            self.wfile.flush()
            if fake.close_after_answer:
                self.close_connection = True

        do_GET = do_POST
        do_PUT = do_POST

        def log_message(self, format: str, *args: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_address[1]}"
    try:
        yield fake
    finally:
        fake.ended.set()
        server.shutdown()
        server.server_close()
        thread.join(5)


def closed_port() -> int:
    """A loopback port where nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
