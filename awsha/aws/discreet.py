"""What comes from the wire, or from a library that quotes it, made fit for a log, a status and a history."""

from __future__ import annotations

import os

from awsha.core.plain import printable, redacted

VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN", "AWS_CONTAINER_AUTHORIZATION_TOKEN")


def hide(text: str) -> str:
    """Without secrets: those of the environment, and what looks like one (a role's are known to botocore only)."""
    return redacted(text, (os.environ.get(name, "") for name in VARIABLES))


def harmless(text: str) -> str:
    """The same, as one line without control characters."""
    return printable(hide(text))
