"""host.openfiles: who keeps a file system busy, and signalling exactly those."""

from __future__ import annotations

import mmap
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from awsha.core.model import Holder, Mount
from awsha.host import openfiles
from awsha.host.keepalived import start_time

HOLD = "import os, sys, time; {}; print('up', flush=True); time.sleep(60)"


def spawn(code: str, *argv: str, **more) -> subprocess.Popen:
    """A python that runs the code, and says when it has."""
    process = subprocess.Popen(
        [*argv, sys.executable, "-S", "-c", HOLD.format(code)], stdout=subprocess.PIPE, text=True, **more
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "up\n"
    return process


@pytest.fixture
def volume(sandbox, tmp_path):
    """Runs a test function with a mounted volume: function(where it is mounted, its mount)."""

    def run(function: Callable[[Path, Mount], None], fstype: str = "ext4", mib: int = 16, options: str = "rw") -> None:
        def inside() -> None:
            image = sandbox.image(tmp_path / "image", fstype, mib)
            with sandbox.loop(image) as (path, _):
                target = tmp_path / "data"
                target.mkdir()
                subprocess.run(["mount", "-o", options, path, str(target)], check=True)
                with open("/proc/self/mountinfo") as table:  # noqa: PTH123
                    number = next(line.split()[2] for line in table if line.split()[4] == str(target))
                function(target, Mount(str(target), number, path, fstype))

        sandbox(inside)

    return run


def how(found: openfiles.Found) -> dict[int, str]:
    return {holder.pid: holder.how for holder in found.holders}


def test_each_way_to_hold_a_file_system(volume):
    def inside(target: Path, mount: Mount) -> None:
        (target / "sub").mkdir()
        (target / "file").write_bytes(b"x" * 8192)
        shutil.copy("/bin/sleep", target / "sleep")
        code = {
            "fd": f"f = open({str(target / 'file')!r})",
            "fd ": f"f = open({str(target / 'gone')!r}, 'w'); os.unlink({str(target / 'gone')!r})",
            "fd  ": f"f = os.open({str(target)!r}, os.O_PATH)",
            "cwd": f"os.chdir({str(target / 'sub')!r})",
            "cwd ": f"d = {str(target / 'was')!r}; os.mkdir(d); os.chdir(d); os.rmdir(d)",
            "map": f"import mmap; f = open({str(target / 'file')!r}); m = mmap.mmap(f.fileno(), 0, prot=1); f.close()",
            "fd   ": f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(target / 'sock')!r})",
            "root": f"os.chdir('/'); os.chroot({str(target)!r})",
        }
        expected = {spawn(line).pid: key.strip() for key, line in code.items()}
        # mmap.mmap keeps a duplicate of the descriptor
        mapped = next(pid for pid, key in expected.items() if key == "map")
        runs = subprocess.Popen([str(target / "sleep"), "60"])
        expected[runs.pid] = "exe"
        found = openfiles.holders([mount])
        assert found.complete, found.text
        seen = how(found)
        assert seen.pop(mapped) in {"map", "fd"}
        del expected[mapped]
        assert seen == expected
        sleep = next(holder for holder in found.holders if holder.pid == runs.pid)
        assert (sleep.command, sleep.path, sleep.started) == ("sleep", str(target / "sleep"), start_time(runs.pid))
        assert subprocess.run(["umount", str(target)], check=False, capture_output=True).returncode != 0
        assert all(result.sent for result in openfiles.signal(found.holders, kill=True))
        for _ in range(500):
            if subprocess.run(["umount", str(target)], check=False, capture_output=True).returncode == 0:
                return
            time.sleep(0.01)
        raise AssertionError("with all of them ended it can be unmounted")

    volume(inside)


def test_a_mapping_alone_is_found(volume):
    def inside(target: Path, mount: Mount) -> None:
        shutil.copy("/bin/sleep", target / "lib")
        (target / "file").write_bytes(b"x" * 8192)
        with (target / "file").open("rb") as file:
            kept = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        for name in os.listdir("/proc/self/fd"):  # noqa: PTH208  the duplicate that mmap keeps
            try:
                if os.readlink(f"/proc/self/fd/{name}") == str(target / "file"):  # noqa: PTH115
                    os.close(int(name))
            except OSError:
                continue
        found = openfiles.holders([mount])
        assert how(found) == {os.getpid(): "map"}
        assert found.holders[0].path == str(target / "file")
        del kept

    volume(inside)


@pytest.mark.parametrize(("fstype", "mib"), [("xfs", 320), ("btrfs", 128)])
def test_other_file_systems(volume, fstype, mib):
    def inside(target: Path, mount: Mount) -> None:
        (target / "file").write_bytes(b"x" * 8192)
        shutil.copy("/bin/sleep", target / "sleep")
        held = spawn(f"f = open({str(target / 'file')!r})")
        runs = subprocess.Popen([str(target / "sleep"), "60"])
        assert how(openfiles.holders([mount])) == {held.pid: "fd", runs.pid: "exe"}

    volume(inside, fstype, mib)


def test_case_30_the_innocent_are_not_named(volume, tmp_path):
    def inside(target: Path, mount: Mount) -> None:
        subprocess.run(["umount", str(target)], check=True)
        beneath = spawn(f"os.chdir({str(target)!r})")  # in the directory, before the volume is mounted over it
        socket_beneath = spawn(f"import socket; s = socket.socket(socket.AF_UNIX); s.bind({str(target / 'sock')!r})")
        subprocess.run(["mount", mount.source, str(target)], check=True)
        beside = spawn(f"f = open({str(tmp_path / 'other')!r}, 'w')")
        prefix = tmp_path / "data-2"
        prefix.mkdir()
        named_alike = spawn(f"os.chdir({str(prefix)!r})")
        assert beneath.poll() is socket_beneath.poll() is beside.poll() is named_alike.poll() is None
        assert openfiles.holders([mount]) == openfiles.Found((), True)
        assert openfiles.holders([]) == openfiles.Found((), True)

    volume(inside)


def test_bind_mounts_and_chroots_and_other_namespaces(volume, tmp_path):
    def inside(target: Path, mount: Mount) -> None:
        for name in ("bind", "jail", "jail/data"):
            (tmp_path / name).mkdir()
        subprocess.run(["mount", "--bind", str(target), str(tmp_path / "bind")], check=True)
        subprocess.run(["mount", "--bind", str(target), str(tmp_path / "jail/data")], check=True)
        (target / "file").write_text("x")
        by_bind = spawn(f"f = open({str(tmp_path / 'bind/file')!r})")
        by_cwd = spawn(f"os.chdir({str(tmp_path / 'bind')!r})")
        jailed = spawn(f"os.chroot({str(tmp_path / 'jail')!r}); os.chdir('/data')")
        elsewhere = spawn(f"os.chdir({str(target)!r})", "unshare", "--mount", "--propagation", "private")
        assert how(openfiles.holders([mount])) == {
            by_bind.pid: "fd",
            by_cwd.pid: "cwd",
            jailed.pid: "cwd",
            elsewhere.pid: "cwd",
        }

    volume(inside)


def test_a_namespace_that_keeps_it_mounted_is_named_and_one_that_follows_is_not(volume):
    def inside(target: Path, mount: Mount) -> None:
        subprocess.run(["mount", "--make-rshared", "/"], check=True)
        keeps = spawn("pass", "unshare", "--mount", "--propagation", "private")
        follows = spawn("pass", "unshare", "--mount", "--propagation", "slave")
        shares = spawn("pass", "unshare", "--mount", "--propagation", "shared")
        found = openfiles.holders([mount])
        assert how(found) == {keeps.pid: "mount"}
        assert follows.poll() is shares.poll() is None
        subprocess.run(["umount", str(target)], check=True)
        found = openfiles.holders([mount])
        assert how(found) == {keeps.pid: "mount"}
        result = openfiles.signal(found.holders, kill=True)
        assert not result[0].sent
        assert f"nsenter -t {keeps.pid} -m umount {target}" in result[0].why

    volume(inside)


def test_a_socket_in_another_network_namespace(volume):
    def inside(target: Path, mount: Mount) -> None:
        code = f"import socket; s = socket.socket(1); os.chdir({str(target)!r}); s.bind('rel'); os.chdir('/')"
        held = spawn(code, "unshare", "--net")
        found = openfiles.holders([mount])
        assert how(found) == {held.pid: "fd"}
        assert found.holders[0].path == "rel"

    volume(inside)


def test_case_32_a_dead_server_does_not_hang_the_scan(volume, sandbox, tmp_path):
    def inside(target: Path, mount: Mount) -> None:
        with sandbox.dead_server(tmp_path / "dead"):
            dead = spawn(f"f = os.open({str(tmp_path / 'dead')!r}, os.O_PATH); g = open({str(target / 'file')!r}, 'w')")
            stuck = subprocess.Popen(["stat", str(tmp_path / "dead/x")])
            probe = subprocess.Popen(["stat", "-L", f"/proc/{dead.pid}/fd/3"], stdout=subprocess.DEVNULL)
            time.sleep(0.3)
            assert stuck.poll() is probe.poll() is None  # following the descriptor does hang
            started = time.monotonic()
            found = openfiles.holders([mount])
            assert time.monotonic() - started < 2
            assert found.complete
            assert how(found) == {dead.pid: "fd"}

    volume(inside)


def test_the_deadline_holds_and_what_was_found_is_kept(volume):
    def inside(target: Path, mount: Mount) -> None:
        spawn(f"os.chdir({str(target)!r})")
        found = openfiles.holders([mount], timeout_s=0.001)
        assert not found.complete
        assert found.text

    volume(inside)
    cut = openfiles._parse('{"pid": 7, "command": "a", "path": "/x", "how": "fd", "started": 1}\n{"pid": 8, "comm')
    assert (len(cut.holders), cut.complete) == (1, False)


def test_signals_reach_exactly_the_process_that_was_found(sandbox):
    def inside() -> None:
        child = subprocess.Popen(["sleep", "60"])
        started = start_time(child.pid)
        assert started is not None

        def holder(pid: int, command: str = "sleep", ticks: int = started) -> Holder:
            return Holder(pid, command, "/x", "fd", ticks)

        another = openfiles.signal([holder(child.pid, ticks=started - 1)], kill=True)[0]
        assert (another.sent, another.gone) == (False, True)  # the pid was given to another process
        for spared, spare in (
            (holder(child.pid), [child.pid]),
            (holder(child.pid, "keepalived"), []),
            (holder(1), []),
            (holder(os.getpid()), []),
        ):
            result = openfiles.signal([spared], kill=True, spare=spare)[0]
            assert not result.sent
            assert result.why
        assert child.poll() is None
        assert openfiles.signal([holder(child.pid)], kill=False)[0].sent
        assert child.wait(5) == -signal.SIGTERM
        assert openfiles.signal([holder(child.pid)], kill=False)[0].gone

    sandbox(inside)


def test_never_this_process():
    own = Holder(os.getpid(), "python", "/x", "cwd", start_time(os.getpid()) or 0)
    assert openfiles.signal([own], kill=True)[0].why == "it is awsha itself"


def test_sockets_of_this_kernel_have_a_device(tmp_path):
    from awsha.host.scan import bound_sockets

    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "s"))
        number = (tmp_path / "s").stat().st_dev
        found = bound_sockets({f"{os.major(number)}:{os.minor(number)}"})
        assert found[os.fstat(bound.fileno()).st_ino] == str(tmp_path / "s")
