"""The console script. keepalived waits for `notify`, so that word is served before anything else is imported."""

from __future__ import annotations

import os
import sys


def main() -> int:
    """Run the command in sys.argv and return its exit code (DESIGN: commands)."""
    words = sys.argv[1:]
    if words[:1] == ["--config"] and words[2:3] == ["notify"]:
        os.environ["AWSHA_CONFIG"] = words[1]
        words = words[2:]
    if words[:1] == ["notify"]:
        from awsha.notify import main as notify

        return notify(words[1:])
    from awsha.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
