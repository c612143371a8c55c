"""Shared by the adapter tests: a throwaway machine inside this one. Additive: everybody may add fixtures here."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import select
import signal
import stat
import struct
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_LIBC = ctypes.CDLL(None, use_errno=True)
_NEW = 0x00020000 | 0x40000000 | 0x20000000  # CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID


def require_root() -> None:
    """Skip without root; under CI=true that would hide tests, so it fails there."""
    if os.geteuid() == 0:
        return
    if os.environ.get("CI") == "true":
        pytest.fail("needs root")
    pytest.skip("needs root")


@pytest.fixture
def as_root() -> None:
    """For a test that needs root outside of a sandbox."""
    require_root()


def _call(name: str, *arguments: object) -> None:
    if getattr(_LIBC, name)(*arguments) != 0:
        raise OSError(ctypes.get_errno(), name)


class Sandbox:
    """Runs a function in mount, network and pid namespaces of its own; whatever it leaves ends with it."""

    def __call__(self, function: Callable[[], None], timeout_s: float = 60.0) -> None:
        reader, writer = os.pipe()
        sys.stdout.flush()
        outer = os.fork()
        if outer == 0:
            os.close(reader)
            self._outer(function, writer)
        os.close(writer)
        report = b""
        try:
            deadline = time.monotonic() + timeout_s
            while select.select([reader], [], [], max(0.0, deadline - time.monotonic()))[0]:
                chunk = os.read(reader, 65536)
                if not chunk:
                    break
                report += chunk
        finally:
            os.close(reader)
            with suppress(ProcessLookupError):
                os.kill(outer, signal.SIGKILL)
            os.waitpid(outer, 0)
        if report.startswith(b"skip:"):
            pytest.skip(report[5:].decode())
        if report != b"ok":
            pytest.fail(report.decode(errors="replace") or "the test did not end in time", pytrace=False)

    def _outer(self, function: Callable[[], None], writer: int) -> None:
        """The first child: makes the namespaces. The second is pid 1 in them, and all goes when it goes."""
        try:
            _call("prctl", 1, signal.SIGKILL, 0, 0, 0)
            _call("unshare", _NEW)
            inner = os.fork()
            if inner == 0:
                _call("prctl", 1, signal.SIGKILL, 0, 0, 0)
                self._inner(function, writer)
            os.close(writer)
            os.waitpid(inner, 0)
        finally:
            os._exit(0)

    def _inner(self, function: Callable[[], None], writer: int) -> None:
        report = b"ok"
        try:
            _call("mount", b"none", b"/", None, 0x4000 | 0x40000, None)  # MS_REC | MS_PRIVATE
            _call("mount", b"proc", b"/proc", b"proc", 0, None)
            subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
            function()
        except pytest.skip.Exception as skipped:
            report = b"skip:" + str(skipped).encode()
        except BaseException:  # noqa: BLE001  (it is told to the parent)
            report = traceback.format_exc().encode()
        with suppress(OSError):
            os.write(writer, report[-60000:])
        os._exit(0)

    @staticmethod
    @contextmanager
    def loop(image: Path) -> Iterator[tuple[str, str]]:
        """A loop device over an image: (path, "major:minor"). It clears itself when its last user is gone."""
        fd = _loop(image)
        try:
            status = os.fstat(fd)
            yield f"/dev/loop{os.minor(status.st_rdev)}", f"{os.major(status.st_rdev)}:{os.minor(status.st_rdev)}"
        finally:
            os.close(fd)

    @staticmethod
    def image(path: Path, fstype: str = "ext4", mib: int = 16) -> Path:
        """An image file with a file system in it (none for "")."""
        with path.open("wb") as file:
            file.truncate(mib << 20)
        if fstype:
            subprocess.run([f"mkfs.{fstype}", "-q", str(path)], check=True, capture_output=True)
        return path

    @staticmethod
    def own_devices() -> None:
        """An empty /sys/block and a /dev with no disks, as a lab node has them."""
        _call("mount", b"tmpfs", b"/sys/block", b"tmpfs", 0, None)
        kept = [(name, Path(f"/dev/{name}").stat().st_rdev) for name in ("null", "zero", "urandom", "fuse")]
        _call("mount", b"tmpfs", b"/dev", b"tmpfs", 0, b"mode=755")
        for name, number in kept:
            os.mknod(f"/dev/{name}", 0o666 | stat.S_IFCHR, number)

    @staticmethod
    def attach(name: str, serial: str, number: str, root: str | Path = "/") -> None:
        """Let a disk appear, in sysfs and in /dev (below root)."""
        base = Path(root)
        folder = base / "sys/block" / name / "device"
        folder.mkdir(parents=True)
        if serial:
            (folder / "serial").write_text(f"{serial}\n")
            (folder / "model").write_text("Amazon Elastic Block Store              \n")
        (folder.parent / "dev").write_text(f"{number}\n")
        (base / "dev").mkdir(exist_ok=True)
        os.mknod(base / "dev" / name, 0o600 | stat.S_IFBLK, os.makedev(*map(int, number.split(":"))))

    @staticmethod
    def detach(name: str, root: str | Path = "/") -> None:
        """Let it go again."""
        subprocess.run(["rm", "-rf", f"{root}/sys/block/{name}", f"{root}/dev/{name}"], check=True)

    @staticmethod
    @contextmanager
    def dead_server(target: Path) -> Iterator[None]:
        """A file system whose server takes requests and never answers: whoever asks it is stuck, even for SIGKILL."""
        target.mkdir()
        fd = os.open("/dev/fuse", os.O_RDWR)
        options = f"fd={fd},rootmode=40000,user_id=0,group_id=0".encode()
        _call("mount", b"dead", str(target).encode(), b"fuse", 0, options)

        def serve() -> None:
            with suppress(OSError):
                while True:
                    request = os.read(fd, 1 << 18)
                    _, opcode, unique = struct.unpack_from("=IIQ", request)
                    if opcode == 26:  # FUSE_INIT: version 7.31, no features
                        reply = (80, 0, unique, 7, 31, 0, 0, 12, 10, 65536, 1, 16, 0)
                        os.write(fd, struct.pack("=IiQIIIIHHIIHH32x", *reply))

        threading.Thread(target=serve, daemon=True).start()
        try:
            yield
        finally:
            subprocess.run(["umount", "-c", "-f", "-l", str(target)], check=False)


def _loop(image: Path) -> int:
    """LOOP_CONFIGURE with LO_FLAGS_AUTOCLEAR on a free loop device (linux/loop.h); the open descriptor keeps it."""
    with image.open("r+b") as file, open("/dev/loop-control", "rb") as control:  # noqa: PTH123
        for _ in range(50):
            number = fcntl.ioctl(control, 0x4C82)
            fd = os.open(f"/dev/loop{number}", os.O_RDWR | os.O_CLOEXEC)
            config = bytearray(304)
            struct.pack_into("=I", config, 0, file.fileno())
            struct.pack_into("=I", config, 8 + 52, 4)
            try:
                fcntl.ioctl(fd, 0x4C0A, bytes(config))
            except OSError as error:
                os.close(fd)
                if error.errno != errno.EBUSY:
                    raise
            else:
                return fd
    raise RuntimeError("no free loop device")


@pytest.fixture
def sandbox() -> Sandbox:
    """A throwaway machine: sandbox(function). Needs root."""
    require_root()
    return Sandbox()
