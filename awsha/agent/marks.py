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

    def put(self, mark: str, by: str = "") -> None:
        """Set a mark. `by`: who asked for it; one that stands already stays as it was set."""
        if not by or self.placed(mark) is None:
            write_atomically(private_dir(self._folder) / mark, f"{boot_id()}\n{by}\n")

    def placed(self, mark: str) -> tuple[str, float] | None:
        """Who set a mark that stands, and when (Unix seconds); None when it does not, or nobody's name is known."""
        file = self._folder / mark
        try:
            boot, _, by = read_small(str(file)).partition("\n")
            return (by.strip(), file.stat().st_mtime) if boot == boot_id() and by.strip() else None
        except OSError:
            return None

    def remove(self, mark: str) -> None:
        """Take a mark away; none is fine too."""
        (self._folder / mark).unlink(missing_ok=True)


def _says(file: str, boot: str) -> bool:
    try:
        return read_small(file).partition("\n")[0] == boot
    except OSError:
        return False
