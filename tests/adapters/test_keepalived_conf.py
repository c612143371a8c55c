"""The generated keepalived.conf in front of keepalived itself, in network namespaces of the test's own.

`--config-test` returns 0 for a missing file and for missing scripts: a file counts as accepted only when keepalived
also says nothing about it. The tests of refusal prove that this check can fail.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import pytest

from awsha.config.keepalived import render
from tests.core.test_config_keepalived import COMMAND, SHAPES, policy

pytestmark = pytest.mark.root
CUT = """\
add table ip cut
add chain ip cut in { type filter hook input priority 0; }
add rule ip cut in ip protocol 112 drop
"""


@dataclass(frozen=True)
class Namespace:
    """A network namespace with eth0 and a second node's end of the same cable."""

    name: str

    def argv(self, *words: str) -> list[str]:
        return ["nsenter", f"--net=/run/netns/{self.name}", *words]

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(self.argv(*words), capture_output=True, text=True, timeout=20, check=False)

    def config_test(self, path: Path) -> tuple[int, str]:
        """keepalived's exit code, and everything it said."""
        done = self.run("keepalived", "--config-test", "--log-console", "-f", str(path))
        return done.returncode, (done.stdout + done.stderr).strip()


def ip(*words: str) -> None:
    done = subprocess.run(["ip", *words], capture_output=True, text=True, timeout=20, check=False)
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def namespaces() -> Iterator[tuple[Namespace, Namespace]]:
    """Two namespaces, eth0 to eth0, with 10.0.0.10 and 10.0.0.11; gone afterwards."""
    if os.geteuid() != 0 or not all(shutil.which(program) for program in ("keepalived", "ip", "nsenter", "nft")):
        if os.environ.get("CI") == "true":
            pytest.fail("needs root, keepalived, iproute2 and nftables")
        pytest.skip("needs root, keepalived, iproute2 and nftables")
    pair = (Namespace(f"awshacfg{os.getpid()}a"), Namespace(f"awshacfg{os.getpid()}b"))
    try:
        for space in pair:
            ip("netns", "add", space.name)
        ip("link", "add", "eth0", "netns", pair[0].name, "type", "veth", "peer", "name", "eth0", "netns", pair[1].name)
        for space, address in zip(pair, ("10.0.0.10/24", "10.0.0.11/24"), strict=True):
            ip("-n", space.name, "link", "set", "lo", "up")
            ip("-n", space.name, "link", "set", "eth0", "up")
            ip("-n", space.name, "address", "add", address, "dev", "eth0")
        yield pair
    finally:
        for space in pair:
            subprocess.run(["ip", "netns", "delete", space.name], capture_output=True, timeout=20, check=False)


@pytest.mark.parametrize("shape", SHAPES)
def test_accepted_by_keepalived(shape: str, namespaces: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    built = SHAPES[shape]()
    for node in built.nodes:
        path = tmp_path / node.name
        text = render(built, node.name, command=COMMAND, interface="eth0")
        path.write_text(text)
        assert namespaces[0].config_test(path) == (0, "")
        assert text == render(SHAPES[shape](), node.name, command=COMMAND, interface="eth0"), "same input, same bytes"


def test_an_awsha_toml_that_is_elsewhere_is_accepted(namespaces: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    path = tmp_path / "elsewhere.conf"
    path.write_text(render(policy(), "a", command=COMMAND, interface="eth0", config=PurePosixPath("/srv/a+b/x.toml")))
    assert namespaces[0].config_test(path) == (0, "")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("nopreempt", "nopreemt"),
        ("priority 150", "priority 300"),
        ("interface eth0", "interface eth9"),
        ("version 3", "version 4"),
        ("track_file {", "track_file_x {"),
        ("advert_int 1", "advert_int 0"),
        ("    enable_script_security\n", ""),
        ("10.0.0.100/32", "10.0.0.300/32"),
        ("        awsha-data\n", "        awsha-dat\n"),
    ],
)
def test_a_broken_file_is_refused(old: str, new: str, namespaces: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    text = render(policy(), "a", command=COMMAND, interface="eth0")
    assert old in text
    path = tmp_path / "broken.conf"
    path.write_text(text.replace(old, new))
    assert namespaces[0].config_test(path) != (0, ""), "the check must be able to fail"


def test_version_2_could_not_keep_the_interval(namespaces: tuple[Namespace, Namespace], tmp_path: Path) -> None:
    path = tmp_path / "v2.conf"
    path.write_text(render(SHAPES["fast"](), "a", command=COMMAND).replace("version 3", "version 2"))
    assert namespaces[0].config_test(path) != (0, "")


@dataclass
class Pair:
    """Two keepalived processes on generated files, with a script that notes how it was called."""

    spaces: tuple[Namespace, Namespace]
    folder: Path

    def vip(self, index: int) -> bool:
        return " 10.0.0.100/32 " in self.spaces[index].run("ip", "-4", "address", "show", "eth0").stdout

    def calls(self, node: str) -> list[str]:
        path = self.folder / f"{node}.calls"
        return path.read_text().splitlines() if path.exists() else []

    def health(self, node: str) -> Path:
        return self.folder / node / "run" / "health" / "data"


@pytest.fixture
def pair(namespaces: tuple[Namespace, Namespace], tmp_path: Path) -> Iterator[Pair]:
    built = SHAPES["fast"]()
    running: list[subprocess.Popen[bytes]] = []
    both = Pair(namespaces, tmp_path)
    try:
        for space, node in zip(namespaces, "ab", strict=True):
            script = tmp_path / f"awsha-{node}"
            script.write_text(f'#!/bin/sh\necho "$*" >> {tmp_path}/{node}.calls\n')
            script.chmod(0o755)
            run_dir = PurePosixPath(tmp_path / node / "run")
            text = render(built, node, command=str(script), run_dir=run_dir, startup_delay_s=0.3)
            (tmp_path / f"{node}.conf").write_text(text)
            files = [f"--use-file={tmp_path}/{node}.conf", f"--pid={tmp_path}/{node}.pid"]
            files.append(f"--vrrp_pid={tmp_path}/{node}.vrrp")
            with (tmp_path / f"{node}.log").open("wb") as log:
                argv = space.argv("keepalived", "--dont-fork", "--vrrp", "--log-console", "--log-detail", *files)
                running.append(subprocess.Popen(argv, stdout=log, stderr=log))
            # One after the other: priorities 150 and 100 are 0.02 s apart here, less than two processes' starts may be.
            until(lambda node=node: "notify backup data" in both.calls(node), f"{node} listens")  # type: ignore[misc]
            until(lambda: both.vip(0), "a is alone, then first")
        yield both
    finally:
        for process in running:  # nsenter without --fork becomes keepalived: one process, one pid
            process.terminate()
        for process in running:
            process.wait(timeout=10)
        for space in namespaces:
            space.run("nft", "delete", "table", "ip", "cut")


def until(what: Callable[[], bool], why: str, deadline_s: float = 10) -> None:
    end = time.monotonic() + deadline_s
    while not what():
        assert time.monotonic() < end, why
        time.sleep(0.02)


def test_a_pair_elects_faults_and_stays(pair: Pair) -> None:
    assert pair.health("a").read_text() == "0\n", "the directory was made, and the file"
    until(lambda: "notify master data" in pair.calls("a"), "the notify line runs, word by word")

    # corner case 12: something on the machine takes the address away; keepalived must not give up being master
    pair.spaces[0].run("ip", "address", "delete", "10.0.0.100/32", "dev", "eth0")
    pair.health("b").write_text("1\n")
    until(lambda: "notify fault data" in pair.calls("b"), "b notices its own verdict")
    assert pair.calls("a").count("notify backup data") == 1, "only the one at the start"
    pair.health("b").write_text("0\n")
    until(lambda: pair.calls("b").count("notify backup data") == 2, "b is well again")

    new = pair.health("a").with_name(".new")
    new.write_text("1\n")
    new.rename(pair.health("a"))
    until(lambda: pair.vip(1), "a verdict that is moved into place counts as well: b takes over")
    pair.health("a").write_text("0\n")
    until(lambda: pair.calls("a").count("notify backup data") == 2, "a comes back as backup")
    assert pair.calls("a").count("notify master data") == 1, "and does not take back what b holds"


def test_case_08_the_winner_of_a_split_brain_is_told(pair: Pair) -> None:
    until(lambda: "notify master data" in pair.calls("a"), "a is master")
    for turn in range(1, 4):
        for space in pair.spaces:
            assert space.run("nft", CUT).returncode == 0
        until(lambda: pair.vip(1) and pair.vip(0), "both are master")
        for space in pair.spaces:
            space.run("nft", "delete", "table", "ip", "cut")
        until(lambda turn=turn: pair.calls("b").count("notify backup data") == turn + 1, "b gives way")  # type: ignore[misc]
        until(lambda turn=turn: pair.calls("a").count("notify master_rx_lower_pri data") >= turn, "a is told")  # type: ignore[misc]
