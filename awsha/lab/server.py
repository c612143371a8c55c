"""The lab's application: keeps numbered records in one file and acknowledges a record only when it is on the disk.

`python -m awsha.lab.server start|stop|check --name NAME --folder FOLDER --port PORT`; exit 0 is success (check: it
serves). One request a line: `W <n>` -> `OK <n>`; `PING` -> `OK`; `DUMP` -> `N <count>` and that many lines, a number
each, as they are in the file. Anything that fails -> `ERR <reason>`. Standard library only: it starts in milliseconds.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import select
import signal
import socket
import socketserver
import sys
import threading
import time
from pathlib import Path

START_DEADLINE_S = 10.0
STOP_DEADLINE_S = 5.0
CHECK_TIMEOUT_S = 2.0
RECORDS = "records.log"


class Records:
    """The file. Once a write or a flush failed nothing is acknowledged any more: what the kernel kept is not known."""

    def __init__(self, folder: Path) -> None:
        """Read what is there, cut off a line that a crash left half written, and flush. Raises OSError."""
        self._lock = threading.Lock()
        self._broken: OSError | None = None
        self._fd = os.open(folder / RECORDS, os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o644)
        data = self._read()
        whole = data.rfind(b"\n") + 1
        if whole != len(data):
            os.ftruncate(self._fd, whole)
        self._numbers = set(data[:whole].split())
        # A record may have been written by a process that died before it flushed: it counts only from here on.
        os.fsync(self._fd)
        folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder_fd)
        finally:
            os.close(folder_fd)

    def _read(self) -> bytes:
        parts = []
        offset = 0
        while part := os.pread(self._fd, 1 << 20, offset):
            parts.append(part)
            offset += len(part)
        return b"".join(parts)

    def write(self, number: bytes) -> None:
        """Make this record durable; a number that is there already is not written twice. Raises OSError."""
        with self._lock:
            self.ping()
            if number in self._numbers:
                return
            try:
                line = number + b"\n"
                if os.write(self._fd, line) != len(line):
                    raise OSError(28, "short write")  # noqa: TRY301 - handled with the other ways to fail
                os.fdatasync(self._fd)
            except OSError as error:
                self._broken = error
                raise
            self._numbers.add(number)

    def ping(self) -> None:
        """Raise the error that broke the file, if one did."""
        if self._broken is not None:
            raise self._broken

    def dump(self) -> list[bytes]:
        """Every number as it is in the file, repeated ones too. Raises OSError."""
        with self._lock:
            self.ping()
            return self._read().split()


class Handler(socketserver.StreamRequestHandler):
    """One connection."""

    disable_nagle_algorithm = True
    wbufsize = -1

    def handle(self) -> None:
        """Answer lines until the client goes away."""
        with contextlib.suppress(OSError):
            while line := self.rfile.readline(4096):
                self.wfile.write(self._answer(line.split()))
                self.wfile.flush()

    def _answer(self, words: list[bytes]) -> bytes:
        records = self.server.records  # type: ignore[attr-defined]
        assert isinstance(records, Records)  # noqa: S101
        try:
            match words:
                case [b"W", number] if number.isdigit():
                    records.write(number)
                    return b"OK " + number + b"\n"
                case [b"PING"]:
                    records.ping()
                    return b"OK\n"
                case [b"DUMP"]:
                    numbers = records.dump()
                    return b"N %d\n" % len(numbers) + b"".join(number + b"\n" for number in numbers)
        except OSError as error:
            return f"ERR {error}\n".encode()
        return b"ERR unknown request\n"


class Server(socketserver.ThreadingTCPServer):
    """One thread a connection; none is waited for at the end."""

    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, port: int, records: Records) -> None:
        self.records = records
        super().__init__(("0.0.0.0", port), Handler)  # noqa: S104 - inside a node, where the VIP comes and goes


def pid_file(name: str) -> Path:
    """Where a running server writes its pid."""
    return Path("/run") / f"awsha-lab-server-{name}.pid"


def start(name: str, folder: Path, port: int) -> int:
    """Start in the background; 0 once it listens, 1 with a reason on stderr when it can't."""
    if answers(port):
        return 0
    if not os.path.ismount(folder):
        print(f"{folder} is not mounted", file=sys.stderr)  # noqa: T201
        return 1
    read_end, write_end = os.pipe()
    if os.fork() == 0:
        os.close(read_end)
        serve(name, folder, port, write_end)
    os.close(write_end)
    readable, _, _ = select.select([read_end], [], [], START_DEADLINE_S)
    said = os.read(read_end, 4096).decode(errors="replace") if readable else "it took too long"
    if said == "ready":
        return 0
    print(said or "it died", file=sys.stderr)  # noqa: T201
    return 1


def serve(name: str, folder: Path, port: int, report: int) -> None:
    """The background process; never returns. Writes `ready` or the reason why not to `report`."""
    try:
        os.setsid()
        os.chdir("/")  # nothing but the open file holds the volume
        server = Server(port, Records(folder))
        pid_file(name).write_text(str(os.getpid()))
        null = os.open(os.devnull, os.O_RDWR)
        for number in (0, 1, 2):
            os.dup2(null, number)
    except OSError as error:
        os.write(report, str(error).encode())
        os._exit(1)
    os.write(report, b"ready")
    os.close(report)
    server.serve_forever()
    os._exit(0)


def stop(name: str) -> int:
    """End it; 0 when it is gone, 1 when even SIGKILL did not end it in time (a disk that hangs)."""
    pid = _running_pid(name)
    if pid is None:
        return 0
    end = time.monotonic() + STOP_DEADLINE_S
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return 0
    try:
        for number, share in ((signal.SIGTERM, 0.5), (signal.SIGKILL, 1.0)):
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(watch, number)
            wait_s = max(0.0, end - STOP_DEADLINE_S * (1 - share) - time.monotonic())
            if select.select([watch], [], [], wait_s)[0]:
                return 0
    finally:
        os.close(watch)
    return 1


def _running_pid(name: str) -> int | None:
    """The pid in the pid file if it is still this program's."""
    try:
        pid = int(pid_file(name).read_text())
        arguments = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except (OSError, ValueError):
        return None
    return pid if b"awsha.lab.server" in arguments and name.encode() in arguments else None


def answers(port: int) -> bool:
    """Whether a server on this node serves: it can still write."""
    try:
        with socket.create_connection(("127.0.0.1", port), CHECK_TIMEOUT_S) as connection:
            connection.settimeout(CHECK_TIMEOUT_S)
            connection.sendall(b"PING\n")
            return connection.recv(16) == b"OK\n"
    except OSError:
        return False


def main(argv: list[str]) -> int:
    """Parse and do one word."""
    parser = argparse.ArgumentParser(prog="awsha.lab.server")
    parser.add_argument("word", choices=("start", "stop", "check"))
    parser.add_argument("--name", required=True)
    parser.add_argument("--folder", required=True, type=Path)
    parser.add_argument("--port", required=True, type=int)
    arguments = parser.parse_args(argv)
    if arguments.word == "start":
        return start(arguments.name, arguments.folder, arguments.port)
    if arguments.word == "stop":
        return stop(arguments.name)
    return 0 if answers(arguments.port) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
