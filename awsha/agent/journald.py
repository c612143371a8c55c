"""systemd's journal, by its own protocol (systemd.io/JOURNAL_NATIVE_PROTOCOL): a line with fields to search by.

journalctl -u awsha-agent TRANSITION_ID=data-20261122T231501
journalctl -u awsha-agent GROUP=data CODE=open-files
"""

from __future__ import annotations

import logging
import os
import socket
import struct
from collections.abc import Mapping
from typing import TextIO

SOCKET = "/run/systemd/journal/socket"
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}
NAME = "awsha"


def is_stderr(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Whether systemd has connected this stream to its journal: JOURNAL_STREAM names its device and inode
    (systemd.exec(5)); a child whose standard error leads elsewhere inherits the variable all the same."""
    told = environ.get("JOURNAL_STREAM", "")
    try:
        status = os.fstat(stream.fileno())
    except (OSError, ValueError):
        return False
    return told == f"{status.st_dev}:{status.st_ino}"


def packed(fields: Mapping[str, str]) -> bytes:
    """One datagram. A value of several lines goes with its length (little-endian, 64 bits)."""
    parts = []
    for key, value in fields.items():
        raw = value.encode("utf-8", "replace")
        if b"\n" in raw:
            parts.append(key.encode() + b"\n" + struct.pack("<Q", len(raw)) + raw + b"\n")
        else:
            parts.append(key.encode() + b"=" + raw + b"\n")
    return b"".join(parts)


class Handler(logging.Handler):
    """Sends each line with the record's `fields`. What the journal does not take now goes to `otherwise`."""

    def __init__(self, otherwise: logging.Handler, address: str = SOCKET) -> None:
        """The socket is there at once; it has no connection, so that journald may be restarted."""
        super().__init__()
        self._otherwise = otherwise
        self._address = address
        self._lost = 0
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)

    def emit(self, record: logging.LogRecord) -> None:
        """Send one line; never waits. A journal that is full for the moment loses it, and is told how many it lost."""
        fields = {
            "MESSAGE": self.format(record),
            "PRIORITY": str(PRIORITIES.get(record.levelno, 6)),
            "SYSLOG_IDENTIFIER": NAME,
            **{key: value for key, value in getattr(record, "fields", {}).items() if value},
        }
        if self._lost:
            fields["LOST"] = str(self._lost)
        try:
            self._socket.sendto(packed(fields), self._address)
        except BlockingIOError:
            self._lost += 1
        except OSError:
            self._otherwise.handle(record)
        else:
            self._lost = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()
        super().close()
