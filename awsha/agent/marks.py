"""Marks of this node that outlive the agent, but not a reboot: a file each, below RUN/marks/GROUP."""

from __future__ import annotations

from pathlib import Path

from awsha.agent.paths import private_dir, run_dir, write_atomically
from awsha.host.clock import boot_id


class Marks:
    """The marks of one group. A mark from before the last boot does not count: nothing is mounted after a boot."""

    def __init__(self, group: str) -> None:
        self._folder = run_dir() / "marks" / group

    def all(self) -> frozenset[str]:
        """The marks that stand."""
        boot = boot_id()
        try:
            files = list(self._folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            return frozenset()
        return frozenset(f.name for f in files if not f.name.startswith(".") and _says(f, boot))

    def put(self, mark: str) -> None:
        """Set a mark."""
        write_atomically(private_dir(self._folder) / mark, boot_id() + "\n")

    def remove(self, mark: str) -> None:
        """Take a mark away; none is fine too."""
        (self._folder / mark).unlink(missing_ok=True)


def _says(file: Path, boot: str) -> bool:
    try:
        return file.read_text(encoding="utf-8", errors="replace").strip() == boot
    except OSError:
        return False
