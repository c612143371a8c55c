"""A short name for the content of an awsha.toml: the same for files that differ in comments and layout only."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from awsha.config.load import read
from awsha.config.schema import Table


def fingerprint(raw: Table) -> str:
    """16 hex digits of a hash over the parsed file. The order of nodes and groups counts: priorities follow it."""
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def of_file(path: Path) -> str:
    """The fingerprint of a file. Raises ConfigError."""
    return fingerprint(read(path).raw)
