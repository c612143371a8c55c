"""Cuts a disk under its writers again and again, in a mount namespace of its own: `… cut_a_disk FOLDER FSTYPE ROUNDS`.

A record counts as acknowledged when fdatasync said so; each must be there when the next holder mounts the volume.
Prints JSON: acknowledged, lost.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import subprocess
import sys
from multiprocessing.connection import Connection
from pathlib import Path

from awsha.lab.disk import Disks
from awsha.lab.settings import Lab
from awsha.lab.waiting import wait_until

VOLUME = "vol-0123456789abcdef0"
# Two that sync one file can be told wrongly by the kernel itself: the log write of one fails and shuts the file system
# down, and the other's fdatasync, just then, finds nothing to wait for. The data is in its place on the disk, the new
# size of the file is not. On XFS (Linux 6.18) in 1 or 2 of 100 cuts; with one writer in none of 300.
WRITERS = 1


def write(path: Path, number: int, done: Connection) -> None:
    """Append numbers until the disk is gone; report those that were acknowledged."""
    acknowledged = []
    fd = os.open(path, os.O_CREAT | os.O_RDWR | os.O_APPEND)
    try:
        while True:
            os.write(fd, b"%d\n" % number)
            os.fdatasync(fd)
            acknowledged.append(number)
            number += 1
    except OSError:
        done.send(acknowledged)


def one_round(disks: Disks, folder: Path, fstype: str, base: int) -> tuple[int, int]:
    """Mount, write, cut in the middle, mount elsewhere; how many were acknowledged, and how many of those are lost."""
    old, new = folder / "old", folder / "new"
    options = ["-o", "nouuid"] if fstype == "xfs" else []
    device = disks.attach(VOLUME, "a", "nvme1n1")
    subprocess.run(["mount", *options, f"/dev/loop{device.loop.index}", old], check=True)
    writers = []
    for writer in range(WRITERS):
        mine, theirs = multiprocessing.Pipe()
        process = multiprocessing.Process(target=write, args=(old / "log", base + writer * 10**8, theirs))
        process.start()
        writers.append((process, mine))
    wait_until((old / "log").exists, 5)
    wait_until(lambda: False, random.uniform(0.01, 0.05))  # noqa: S311 - any moment will do
    disks.detach(VOLUME)
    acknowledged = {number for _, pipe in writers for number in pipe.recv()}
    for process, _ in writers:
        process.join()
    device = disks.attach(VOLUME, "b", "nvme2n1")
    subprocess.run(["mount", *options, f"/dev/loop{device.loop.index}", new], check=True)
    stored = {int(word) for word in (new / "log").read_text().split()}
    subprocess.run(["umount", new], check=True)
    subprocess.run(["umount", old], check=True)
    return len(acknowledged), len(acknowledged - stored)


def main(folder: Path, fstype: str, rounds: int) -> None:
    """All rounds on one volume."""
    disks = Disks(Lab(folder.name), lambda _: None, lambda _: None, folder / "volumes")
    disks.create(VOLUME, 1, fstype)
    for name in ("old", "new"):
        (folder / name).mkdir()
    results = [one_round(disks, folder, fstype, number * 100_000) for number in range(1, rounds + 1)]
    left = disks.close()
    print(  # noqa: T201
        json.dumps({"acknowledged": sum(r[0] for r in results), "lost": sum(r[1] for r in results), "left": left})
    )


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
