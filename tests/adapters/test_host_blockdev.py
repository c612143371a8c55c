"""host.blockdev: which device is this volume, and what is on it."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import time
from dataclasses import replace

import pytest

from awsha.agent.observe import Observer
from awsha.aws.ec2 import Ec2
from awsha.aws.metadata import Metadata
from awsha.core.model import Device, Unknown
from awsha.core.policy import Group, Volume
from awsha.host import blockdev
from awsha.lab import disk
from tests.core.situations import ME

VOLUME = "vol-0123456789abcdef0"
SERIAL = "vol0123456789abcdef0"


@pytest.fixture
def attach(sandbox, tmp_path):
    (tmp_path / "sys/block").mkdir(parents=True)

    def attach(name: str, serial: str, number: str) -> None:
        sandbox.attach(name, serial, number, tmp_path)

    return attach


def test_case_39_a_device_counts_by_serial_whatever_its_name(attach, tmp_path):
    attach("nvme0n1", "vol0aaaaaaaaaaaaaaaa", "259:0")
    attach("nvme1n2", SERIAL, "259:7")
    found = blockdev.find(VOLUME, root=tmp_path)
    assert isinstance(found, Device)
    assert (found.path, found.number) == ("/dev/nvme1n2", "259:7")
    assert isinstance(found.fstype, Unknown)


ALIKE = ["vol0123456789abcdef01", "vol0123456789abcdef", "VOL0123456789ABCDEF0", "AWS1234", ""]


@pytest.mark.parametrize("serial", ALIKE)
def test_a_serial_is_compared_exactly(attach, tmp_path, serial):
    attach("nvme1n1", serial, "259:1")
    assert blockdev.find(VOLUME, root=tmp_path) is None


def test_a_padded_serial_counts(attach, tmp_path):
    attach("nvme1n1", SERIAL + "   \0", "259:1")
    assert isinstance(blockdev.find(VOLUME, root=tmp_path), Device)


def test_case_22_a_device_without_its_node_is_not_there_yet(attach, tmp_path):
    attach("nvme1n1", SERIAL, "259:1")
    node = tmp_path / "dev/nvme1n1"
    node.unlink()
    assert blockdev.find(VOLUME, root=tmp_path) is None
    node.write_text("a file, no device")
    assert blockdev.find(VOLUME, root=tmp_path) is None
    node.unlink()
    os.mknod(node, 0o60600, os.makedev(259, 9))  # an old node, with a number that is another disk's
    assert blockdev.find(VOLUME, root=tmp_path) is None


def test_case_23_links_by_id_are_not_asked(attach, tmp_path):
    attach("nvme1n1", "vol0aaaaaaaaaaaaaaaa", "259:1")
    (tmp_path / "dev/disk/by-id").mkdir(parents=True)
    (tmp_path / f"dev/disk/by-id/nvme-Amazon_Elastic_Block_Store_{SERIAL}").symlink_to("../../nvme1n1")
    assert blockdev.find(VOLUME, root=tmp_path) is None


def test_two_devices_with_one_serial_are_unknown(attach, tmp_path):
    attach("nvme1n1", SERIAL, "259:1")
    attach("nvme2n1", SERIAL, "259:2")
    found = blockdev.find(VOLUME, root=tmp_path)
    assert isinstance(found, Unknown)
    assert "nvme1n1 and nvme2n1" in found.reason


def test_what_cannot_be_read_is_unknown_unless_the_volume_was_found(attach, tmp_path):
    attach("nvme1n1", SERIAL, "259:1")
    attach("nvme2n1", "", "259:2")
    (tmp_path / "sys/block/nvme2n1/device/serial").mkdir()  # reading it fails with EISDIR
    assert isinstance(blockdev.find(VOLUME, root=tmp_path), Device)
    assert isinstance(blockdev.find("vol-0fff", root=tmp_path), Unknown)
    assert isinstance(blockdev.find(VOLUME, root=tmp_path / "nowhere"), Unknown)


def test_a_path_of_a_multipath_disk_is_left_out(attach, tmp_path):
    attach("nvme1n1", SERIAL, "259:1")
    attach("nvme1c1n1", SERIAL, "259:2")
    assert isinstance(blockdev.find(VOLUME, root=tmp_path), Device)


XEN = [("/dev/sdf", "xvdf"), ("sdf", "xvdf"), ("/dev/xvdba", "xvdba"), ("/dev/sdf1", "xvdf1")]


@pytest.mark.parametrize(("asked", "name"), XEN)
def test_xen_names_count_where_there_is_no_nvme_volume(attach, tmp_path, asked, name):
    attach(name, "", "202:80")
    attach("nvme0n1", "AWS0123", "259:0")  # an instance store is no EBS volume
    found = blockdev.find(VOLUME, asked, tmp_path)
    assert isinstance(found, Device)
    assert found.path == f"/dev/{name}"
    assert blockdev.find(VOLUME, "", tmp_path) is None
    assert blockdev.find(VOLUME, "/dev/sdg", tmp_path) is None
    assert blockdev.find(VOLUME, "/dev/nvme1n1", tmp_path) is None
    attach("nvme1n1", "vol0aaaaaaaaaaaaaaaa", "259:1")
    assert blockdev.find(VOLUME, asked, tmp_path) is None


def test_partitions_are_alive_too(attach, tmp_path):
    attach("nvme0n1", "vol0aaaaaaaaaaaaaaaa", "259:0")
    (tmp_path / "sys/block/nvme0n1/nvme0n1p1").mkdir()
    (tmp_path / "sys/block/nvme0n1/nvme0n1p1/dev").write_text("259:5\n")
    disks = blockdev.scan(tmp_path)
    assert not isinstance(disks, Unknown)
    assert disks.alive("259:0")
    assert disks.alive("259:5")
    assert not disks.alive("259:6")


def test_a_look_is_cheap(attach, tmp_path):
    for number in range(27):  # as many volumes as a Nitro instance takes
        attach(f"nvme{number}n1", f"vol{number:017x}", f"259:{number}")
    started = time.monotonic()
    for _ in range(20):
        assert isinstance(blockdev.find(f"vol-{26:017x}", root=tmp_path), Device)
    assert (time.monotonic() - started) / 20 < 0.02


def cut(path: str) -> None:
    """What is left of the device is its first sector."""
    fd = os.open(path, os.O_RDONLY)
    fcntl.ioctl(fd, disk.LOOP_SET_STATUS64, disk._status(0, 512, b""))
    os.close(fd)


@pytest.mark.parametrize(("fstype", "mib"), [("ext4", 16), ("xfs", 320)])
def test_a_disk_that_was_taken_does_not_answer_while_the_page_cache_passes_for_clean(
    sandbox, tmp_path, fstype: str, mib: int
):
    """Linux tells of a failed write once: a database that is started again flushes its log without an error."""
    (tmp_path / "there").mkdir()

    def inside() -> None:
        with sandbox.loop(sandbox.image(tmp_path / fstype, fstype, mib)) as (path, number):
            subprocess.run(["mount", "-o", "noatime,lazytime", path, tmp_path / "there"], check=True)
            log = tmp_path / "there" / "log"
            log.write_bytes(bytes(8192))
            device = Device(path, number, fstype)
            with log.open("r+b", buffering=0) as file:
                os.fsync(file)
                assert blockdev.answering(device, 5) == device
                cut(path)
                file.write(b"record")
                with pytest.raises(OSError, match="Input/output error"):
                    os.fdatasync(file)
            with log.open("r+b", buffering=0) as file:
                assert file.read(6) == b"record"
                os.fdatasync(file)
            assert isinstance(blockdev.answering(device, 5), Unknown)
            subprocess.run(["umount", tmp_path / "there"], check=True)
        assert isinstance(blockdev.answering(replace(device, path="/dev/nvme99n1"), 5), Unknown)

    sandbox(inside)


def test_filesystem_types(sandbox, tmp_path):
    def inside() -> None:
        for fstype, mib in (("ext4", 16), ("xfs", 320)):
            with sandbox.loop(sandbox.image(tmp_path / fstype, fstype, mib)) as (path, _):
                assert blockdev.filesystem(path, 5) == fstype
        with sandbox.loop(sandbox.image(tmp_path / "empty", "", 1)) as (path, _):
            assert blockdev.filesystem(path, 5) is None
        both = sandbox.image(tmp_path / "both", "ext4")
        with both.open("r+b") as file:
            file.write(b"XFSB")
        with sandbox.loop(both) as (path, _):
            assert blockdev.filesystem(path, 5) == "ext4" or isinstance(blockdev.filesystem(path, 5), Unknown)

    sandbox(inside)


def test_a_device_that_cannot_be_read_is_not_taken_for_an_empty_one(sandbox, tmp_path):
    missing = blockdev.filesystem("/dev/no-such-disk", 5)
    assert isinstance(missing, Unknown)  # blkid ends with 2 and says nothing

    def inside() -> None:
        partitioned = sandbox.image(tmp_path / "mbr", "", 1)
        with partitioned.open("r+b") as file:
            file.seek(446)
            file.write(bytes([0, 0, 2, 0, 0x83, 0, 9, 0, 1, 0, 0, 0, 100, 0, 0, 0]))
            file.seek(510)
            file.write(b"\x55\xaa")
        with sandbox.loop(partitioned) as (path, _):
            found = blockdev.filesystem(path, 5)
            assert isinstance(found, Unknown)
            assert "dos" in found.reason

    sandbox(inside)


def test_a_file_system_tells_that_it_was_cut_off_in_use(sandbox, tmp_path):
    def inside() -> None:
        image, copy, place = sandbox.image(tmp_path / "image"), tmp_path / "copy", tmp_path / "place"
        place.mkdir()
        with sandbox.loop(image) as (path, _):
            assert not blockdev.unclean(path, "ext4", 5), "fresh"
            subprocess.run(["mount", path, place], check=True)
            (place / "file").write_text("something")
            os.sync()
            shutil.copy(image, copy)  # what a forced detach leaves
            subprocess.run(["umount", place], check=True)
            assert not blockdev.unclean(path, "ext4", 5), "after an unmount"
        with sandbox.loop(copy) as (path, _):
            assert blockdev.unclean(path, "ext4", 5)
            subprocess.run(["e2fsck", "-p", path], check=False, capture_output=True)
            assert not blockdev.unclean(path, "ext4", 5), "after its check"
            assert not blockdev.unclean(path, "xfs", 5), "its mount replays the log"
        with copy.open("r+b") as file:
            file.write(bytes(8192))
        with sandbox.loop(copy) as (path, _):
            assert blockdev.unclean(path, "ext4", 5), "what can't be told is checked"

    sandbox(inside)


def test_what_was_read_of_a_device_is_read_again_when_a_volume_is_attached(sandbox, tmp_path):
    """The same name and number come back, and the peer has left the file system in another state."""

    def inside() -> None:
        image = sandbox.image(tmp_path / "image")
        with sandbox.loop(image) as (_, number):
            sandbox.own_devices()
            sandbox.attach("nvme1n1", "vol0000000000000000a", number)
            volume = Volume(mount="/srv/data", id="vol-0000000000000000a")
            observer = Observer(Group("data", 51, (), volumes=(volume,)), ME, Ec2("eu-west-1"), Metadata({}))
            device = observer.disks()[volume.id or ""].device
            assert isinstance(device, Device)
            assert (device.fstype, device.unclean) == ("ext4", False)
            subprocess.run(["debugfs", "-w", "-R", "ssv state 2", "/dev/nvme1n1"], check=True, capture_output=True)
            observer.attached(volume.id or "", "/dev/sdf")
            device = observer.disks()[volume.id or ""].device
            assert isinstance(device, Device)
            assert device.unclean

    sandbox(inside)
