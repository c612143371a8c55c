"""Marks of this node that outlive the agent, but not a reboot: a file each, below RUN/marks/GROUP."""

from __future__ import annotations

from awsha.agent.paths import listed, private_dir, read_small, run_dir, write_atomically
from awsha.host.clock import boot_id


class Marks:
    """The marks of one group. A mark from before the last boot does not count: nothing is mounted after a boot."""

    def __init__(self, group: str) -> None:
        self._folder = run_dir() / "marks" / group

    def all(self) -> frozenset[str]:
        """The marks that stand."""
        boot = boot_id()
        return frozenset(name for name in listed(self._folder) if _says(f"{self._folder}/{name}", boot))

    def put(self, mark: str) -> None:
        """Set a mark."""
        write_atomically(private_dir(self._folder) / mark, boot_id() + "\n")

    def remove(self, mark: str) -> None:
        """Take a mark away; none is fine too."""
        (self._folder / mark).unlink(missing_ok=True)


def _says(file: str, boot: str) -> bool:
    try:
        return read_small(file).strip() == boot
    except OSError:
        return False
