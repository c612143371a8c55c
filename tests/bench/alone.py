"""What mount, unmount and e2fsck of a fresh file system cost by themselves, without awsha."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from awsha.lab.disk import MKFS, LoopDevice, bind, remove_number, unbind
from tests.bench.bench_lab import SPAWNER, BenchError, Ran

SIZE = 1 << 30  # as the lab's volumes


@dataclass(frozen=True)
class Alone:
    """Seconds of each, by the programs that awsha runs too."""

    mount: float
    unmount: float
    check: float


@contextmanager
def _loop(image: Path) -> Iterator[LoopDevice]:
    with image.open("wb") as file:
        file.truncate(SIZE)
    subprocess.run([*MKFS["ext4"], str(image)], check=True, capture_output=True)
    device = bind(image, SIZE)
    try:
        yield device
    finally:
        unbind(device)
        remove_number(device)


def file_systems(count: int = 1, times: int = 5) -> Alone:
    """Mount and unmount `count` fresh ext4 file systems side by side: the medians of the whole of each."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="awsha-bench-")))
        devices = [stack.enter_context(_loop(folder / f"{i}.img")) for i in range(count)]
        places = [folder / f"m{i}" for i in range(count)]
        for place in places:
            place.mkdir()
        # In a mount namespace of its own: nothing of it shows on this machine, and its end unmounts.
        private = subprocess.Popen(
            ["unshare", "--mount", "--propagation", "private", sys.executable, "-I", "-S", SPAWNER],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        stack.callback(_end, private)
        mounts, unmounts, checks = [], [], []
        nodes = [f"/dev/loop{device.index}" for device in devices]
        for _ in range(times):
            checks.append(_span(private, [["e2fsck", "-p", node] for node in nodes]))
            pairs = list(zip(nodes, places, strict=True))
            mounts.append(_span(private, [["mount", "-t", "ext4", "-w", "-o", "noatime", n, str(p)] for n, p in pairs]))
            unmounts.append(_span(private, [["umount", "-c", str(place)] for place in places]))
        return Alone(statistics.median(mounts), statistics.median(unmounts), statistics.median(checks))


def _end(private: subprocess.Popen[str]) -> None:
    private.kill()
    private.wait()


def _span(private: subprocess.Popen[str], programs: Sequence[Sequence[str]]) -> float:
    """Seconds from the start of the first to the end of the last."""
    assert private.stdin is not None
    assert private.stdout is not None
    private.stdin.write(json.dumps({"programs": programs, "environment": {}}) + "\n")
    private.stdin.flush()
    answer = private.stdout.readline()
    if not answer:
        raise BenchError("unshare --mount does not work here")
    ran = [Ran(**one).good() for one in json.loads(answer)]
    return max(r.ended for r in ran) - min(r.began for r in ran)
