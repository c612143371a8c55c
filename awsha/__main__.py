"""The console script. keepalived waits for `notify`, so that word is served before anything else is imported."""

from __future__ import annotations

import sys


def main() -> int:
    """Run the command in sys.argv and return its exit code (DESIGN: commands)."""
    if len(sys.argv) > 1 and sys.argv[1] == "notify":
        from awsha.notify import main as notify

        return notify(sys.argv[2:])
    from awsha.cli.main import main as command_line

    return command_line()


if __name__ == "__main__":
    sys.exit(main())
