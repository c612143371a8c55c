"""The metrics on a port of this machine. A module of its own: nobody pays for it who has configured no port."""

from __future__ import annotations

import http.server
from collections.abc import Callable

TIMEOUT_S = 10.0  # for somebody who connects and says nothing


def server(port: int, told: Callable[[], str]) -> http.server.HTTPServer:
    """A server on 127.0.0.1 that answers GET /metrics, one at a time; port 0 takes any. Raises OSError: it is taken."""

    class Answer(http.server.BaseHTTPRequestHandler):
        timeout = TIMEOUT_S

        def do_GET(self) -> None:
            """The one page there is."""
            if self.path.partition("?")[0] != "/metrics":
                self.send_error(404, "only /metrics is here")
                return
            content = told().encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:
            """A scrape is nothing to log."""

    return http.server.HTTPServer(("127.0.0.1", port), Answer)


def serve(port: int, told: Callable[[], str]) -> None:
    """Answer until the process ends. Raises OSError when the port is taken."""
    with server(port, told) as found:
        found.serve_forever(poll_interval=60.0)
