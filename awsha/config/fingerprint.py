"""A short name for the content of an awsha.toml: the same for files that differ in comments and layout only."""

from __future__ import annotations

import hashlib
import json

from awsha.config.schema import Table


def fingerprint(raw: Table) -> str:
    """16 hex digits of a hash over the parsed file. The order of nodes and groups counts: priorities follow it.

    With [discover] over what was found, too (`load.with_nodes`): nodes that found others are told from each other.
    """
    text = json.dumps(raw, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
