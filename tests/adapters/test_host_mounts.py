"""host.mounts: what is mounted, whose it is, and doing it."""

from __future__ import annotations

import os
import selectors
import subprocess
import threading
from pathlib import Path

import pytest

from awsha.core.model import Device, Unknown
from awsha.core.policy import Volume
from awsha.host import blockdev, fsck, mountinfo, mounts
from awsha.host.fsck import FsckError

ID = "vol-0123456789abcdef0"
SERIAL = "vol0123456789abcdef0"
DEVICE = Device("/dev/nvme1n1", "259:3", "ext4")
VOLUME = Volume("/srv/data", id=ID)
ROOT = "1 0 8:1 / / rw shared:1 - ext4 /dev/root rw"
OURS = "20 1 259:3 / /srv/data rw,relatime shared:9 - ext4 /dev/nvme1n1 rw"


def table(*lines: str) -> mounts.Table:
    return mountinfo.parse("".join(line + "\n" for line in lines).encode())


def disks(tmp_path: Path, names: dict[str, str] | None = None, serials: dict[str, str] | None = None) -> blockdev.Disks:
    if serials is None:
        serials = {SERIAL: "nvme1n1"}
    return blockdev.Disks(tmp_path, names or {"nvme1n1": "259:3"}, {s: (n,) for s, n in serials.items()})


def gone(tmp_path: Path) -> blockdev.Disks:
    return disks(tmp_path, {"nvme0n1": "259:0"}, {"vol0a": "nvme0n1"})


# --- mountinfo --------------------------------------------------------------------------------------------------


def test_a_line_with_everything():
    line = (
        rb"36 35 98:0 /mnt1 /mnt2/with\040blank\134and\011tab ro,noatime master:1 propagate_from:2 - ext3 "
        rb"/dev/root\040x rw,errors=continue"
    )
    entry = mountinfo.parse(line)[0]
    assert entry.target == "/mnt2/with blank\\and\ttab"
    assert (entry.id, entry.parent, entry.number, entry.root) == (36, 35, "98:0", "/mnt1")
    assert entry.tags == {"master:1", "propagate_from:2"}
    assert (entry.fstype, entry.source, entry.read_only) == ("ext3", "/dev/root x", True)


def test_no_optional_fields_odd_bytes_and_an_empty_source():
    entry = mountinfo.parse(b"36 35 0:5 / /a\r\xff\x0cb rw - tmpfs  rw\n")[0]
    assert os.fsencode(entry.target) == b"/a\r\xff\x0cb"
    assert (entry.tags, entry.source, entry.read_only) == (frozenset(), "", False)


@pytest.mark.parametrize("options", ["ro,errors=remount-ro", "rw,errors=remount-ro,emergency_ro", "rw,shutdown"])
def test_a_file_system_that_turned_read_only_is_read_only(options: str):
    assert table(f"20 1 259:3 / /srv/data rw - ext4 /dev/nvme1n1 {options}")[0].read_only


NONSENSE = ["nonsense", "36 35 98:0 / /a rw", "x 35 98:0 / /a rw - ext4 /dev/x rw", "1 2 3:4 / /a rw -"]


@pytest.mark.parametrize("line", NONSENSE)
def test_what_is_no_mountinfo_is_unknown(tmp_path, line):
    (tmp_path / "mountinfo").write_text(line + "\n")
    assert isinstance(mounts.read(str(tmp_path / "mountinfo")), Unknown)
    assert isinstance(mounts.read(str(tmp_path / "missing")), Unknown)


def test_the_topmost_mount_is_seen_and_hidden_ones_are_not():
    over = "21 20 0:44 / /srv/data rw - tmpfs tmpfs rw"
    assert mountinfo.visible(table(ROOT, OURS, over), "/srv/data").id == 21
    assert mountinfo.visible(table(over, OURS, ROOT), "/srv/data").id == 21  # whatever the order of the lines
    hidden_by_srv = table(ROOT, OURS, "22 1 0:45 / /srv rw - tmpfs tmpfs rw")
    assert mountinfo.visible(hidden_by_srv, "/srv/data") is None
    assert mountinfo.visible(table(ROOT, OURS), "/srv/data2") is None
    assert mountinfo.visible(table(ROOT, OURS), "/srv") is None
    assert mountinfo.visible(table(OURS), "/srv/data").id == 20  # a root that is no mount point


def test_case_33_a_table_that_changes_while_it_is_read_is_whole(sandbox, tmp_path):
    def inside() -> None:
        wanted = set()
        for number in range(150):  # some pages of table
            target = tmp_path / f"with-a-long-name-so-that-lines-are-long-{number:03}"
            target.mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "x", str(target)], check=True)
            wanted.add(str(target))
        churn = tmp_path / "churn"
        churn.mkdir()
        stop = threading.Event()

        def change() -> None:
            while not stop.is_set():
                subprocess.run(["mount", "-t", "tmpfs", "x", str(churn)], check=True)
                subprocess.run(["umount", str(churn)], check=True)

        thread = threading.Thread(target=change)
        thread.start()
        try:
            for _ in range(100):
                found = mounts.read()
                assert not isinstance(found, Unknown)
                assert wanted <= {entry.target for entry in found}
        finally:
            stop.set()
            thread.join()

    sandbox(inside)


def test_case_33_a_table_that_changed_since_it_was_opened_is_not_believed(sandbox, tmp_path):
    def inside() -> None:
        fds = [os.open("/proc/self/mountinfo", os.O_RDONLY) for _ in range(2)]
        assert mountinfo.whole(fds[0])
        subprocess.run(["mount", "-t", "tmpfs", "x", str(tmp_path)], check=True)
        assert mountinfo.whole(fds[1]) is None

    sandbox(inside)


# --- what it means ----------------------------------------------------------------------------------------------


def test_nothing_mounted(tmp_path):
    facts = mounts.disk_facts(VOLUME, DEVICE, table(ROOT), disks(tmp_path))
    assert (facts.device, facts.mount, facts.stale, facts.foreign, facts.others) == (DEVICE, None, False, False, ())


def test_ours(tmp_path):
    facts = mounts.disk_facts(VOLUME, DEVICE, table(ROOT, OURS), disks(tmp_path))
    assert facts.mount is not None
    assert (facts.mount.target, facts.mount.number, facts.mount.read_only) == ("/srv/data", "259:3", False)
    assert (facts.stale, facts.foreign, facts.others) == (False, False, ())


def test_foreign_when_its_disk_lives(tmp_path):
    lives = disks(tmp_path, {"nvme1n1": "259:3", "nvme2n1": "259:5"}, {SERIAL: "nvme1n1", "vol0b": "nvme2n1"})
    other = "20 1 259:5 / /srv/data rw - ext4 /dev/nvme2n1 rw"
    facts = mounts.disk_facts(VOLUME, DEVICE, table(ROOT, other), lives)
    assert (facts.stale, facts.foreign, facts.others) == (False, True, ())
    only_other = disks(tmp_path, {"nvme2n1": "259:5"}, {"vol0b": "nvme2n1"})
    no_device = mounts.disk_facts(VOLUME, None, table(ROOT, other), only_other)
    assert (no_device.stale, no_device.foreign) == (False, True)


@pytest.mark.parametrize(
    "line",
    [
        "20 1 0:44 / /srv/data rw - tmpfs tmpfs rw",
        "20 1 0:50 / /srv/data rw - nfs4 server:/export rw",
        "20 1 7:3 / /srv/data rw - ext4 /dev/loop3 rw",
        "20 1 253:0 / /srv/data rw - xfs /dev/mapper/vg-lv rw",
        "20 1 0:51 / /srv/data rw - overlay overlay rw",
        "20 1 254:1 /sub /srv/data rw - ext4 /dev/vda1 rw",
    ],
)
@pytest.mark.parametrize("device", [DEVICE, None])
def test_what_could_not_have_been_a_volume_is_foreign_for_ever(tmp_path, line, device):
    facts = mounts.disk_facts(VOLUME, device, table(ROOT, line), disks(tmp_path) if device else gone(tmp_path))
    assert (facts.stale, facts.foreign, facts.others) == (False, True, ())


def test_case_27_stale_when_no_disk_has_its_number_any_more(tmp_path):
    bind = "30 1 259:3 /sub /mnt/bind rw - ext4 /dev/nvme1n1 rw"
    below = "31 30 0:60 / /mnt/bind/tmp rw - tmpfs tmpfs rw"
    facts = mounts.disk_facts(VOLUME, None, table(ROOT, OURS, bind, below), gone(tmp_path))
    assert (facts.stale, facts.foreign) == (True, False)
    assert [mount.target for mount in facts.others] == ["/mnt/bind/tmp", "/mnt/bind"]


def test_case_39_stale_while_the_volume_is_back_under_another_number(tmp_path):
    back = Device("/dev/nvme1n2", "259:9", "ext4")
    again = "40 1 259:9 / /mnt/elsewhere rw - ext4 /dev/nvme1n2 rw"
    now = disks(tmp_path, {"nvme1n2": "259:9"}, {SERIAL: "nvme1n2"})
    facts = mounts.disk_facts(VOLUME, back, table(ROOT, OURS, again), now)
    assert (facts.stale, facts.foreign) == (True, False)
    assert [mount.target for mount in facts.others] == ["/mnt/elsewhere"]


@pytest.mark.usefixtures("sandbox")  # root: mknod
def test_a_disk_that_is_just_going_is_neither_stale_nor_foreign(tmp_path):
    (tmp_path / "dev").mkdir()
    os.mknod(tmp_path / "dev/nvme1n1", 0o60600, os.makedev(259, 3))
    facts = mounts.disk_facts(VOLUME, None, table(ROOT, OURS), gone(tmp_path))
    assert isinstance(facts.mount, Unknown)
    assert not facts.stale
    assert not facts.foreign


def test_a_lost_node_does_not_make_our_own_mount_foreign(tmp_path):
    facts = mounts.disk_facts(VOLUME, None, table(ROOT, OURS), disks(tmp_path))
    assert isinstance(facts.device, Unknown)
    assert facts.mount is not None
    assert not facts.stale
    assert not facts.foreign


def test_unknown_stays_unknown(tmp_path):
    facts = mounts.disk_facts(VOLUME, Unknown("x"), table(ROOT, OURS), disks(tmp_path))
    assert (facts.stale, facts.foreign) == (False, False)
    assert isinstance(mounts.disk_facts(VOLUME, DEVICE, Unknown("x"), disks(tmp_path)).mount, Unknown)
    assert mounts.disk_facts(VOLUME, Unknown("x"), table(ROOT, OURS), Unknown("x")).mount is not None


def test_case_31_bind_and_nested_mounts_come_first_and_innermost_first(tmp_path):
    facts = mounts.disk_facts(
        VOLUME,
        DEVICE,
        table(
            ROOT,
            OURS,
            "21 20 0:44 / /srv/data/tmp rw - tmpfs tmpfs rw",
            "22 21 0:45 / /srv/data/tmp/deep rw - tmpfs tmpfs rw",
            "23 1 259:3 /sub /mnt/bind rw - ext4 /dev/nvme1n1 rw",
            "24 1 0:46 / /srv/data2 rw - tmpfs tmpfs rw",
            "25 1 0:47 / /mnt/other rw - tmpfs tmpfs rw",
        ),
        disks(tmp_path),
    )
    targets = [mount.target for mount in facts.others]
    assert targets[0] == "/srv/data/tmp/deep"
    assert set(targets) == {"/srv/data/tmp/deep", "/srv/data/tmp", "/mnt/bind"}


def test_mounted_beneath_something_else_is_told(tmp_path):
    over = "21 20 0:44 / /srv/data rw - tmpfs t rw"
    facts = mounts.disk_facts(VOLUME, DEVICE, table(ROOT, OURS, over), disks(tmp_path))
    assert facts.foreign
    assert [mount.number for mount in facts.others] == ["0:44", "259:3"]


@pytest.mark.usefixtures("sandbox")  # root: mknod
def test_btrfs_goes_by_its_source(tmp_path):
    (tmp_path / "dev").mkdir()
    node = tmp_path / "dev/nvme1n1"
    os.mknod(node, 0o60600, os.makedev(259, 3))
    line = "20 1 0:39 / /srv/data rw - btrfs /dev/nvme1n1 rw"
    facts = mounts.disk_facts(VOLUME, DEVICE, table(ROOT, line), disks(tmp_path))
    assert (facts.stale, facts.foreign) == (False, False)
    node.unlink()
    facts = mounts.disk_facts(VOLUME, None, table(ROOT, line), gone(tmp_path))
    assert (facts.stale, facts.foreign) == (True, False)


def test_a_mount_point_behind_a_link(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    target = str(tmp_path / "real/data")
    there = table(ROOT, OURS.replace("/srv/data", target))
    facts = mounts.disk_facts(Volume(str(tmp_path / "link/data"), id=ID), DEVICE, there, disks(tmp_path))
    assert facts.mount is not None


# --- doing it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fstype", "mib"), [("ext4", 16), ("xfs", 320)])
def test_mount_and_unmount_for_real(sandbox, tmp_path, fstype, mib):
    def inside() -> None:
        with sandbox.loop(sandbox.image(tmp_path / "image", fstype, mib)) as (_, number):
            _mount_cycle(sandbox, tmp_path, fstype, number)

    sandbox(inside)


def _mount_cycle(sandbox, tmp_path: Path, fstype: str, number: str) -> None:
    sandbox.own_devices()
    sandbox.attach("nvme1n1", SERIAL, number)
    device = blockdev.find(ID)
    assert isinstance(device, Device)
    target = str(tmp_path / f"srv-{fstype}")
    volume = Volume(target, id=ID)

    def facts():
        return mounts.disk_facts(volume, blockdev.find(ID), mounts.read(), blockdev.scan())

    mounts.mount(device, ID, target, fstype=fstype, options="noatime", timeout_s=10)
    assert Path(target).stat().st_dev == os.makedev(*map(int, number.split(":")))
    assert facts().mount is not None
    assert not facts().mount.read_only
    assert "already" in mounts.mount(device, ID, target, fstype=fstype, options="", timeout_s=10)

    with open(f"{target}/file", "w"):  # noqa: PTH123
        with pytest.raises(mounts.MountError) as caught:
            mounts.unmount(target, 10)
        assert caught.value.busy
    with pytest.raises(mounts.MountRefused):
        mounts.unmount(target, 10, number="259:77")
    with pytest.raises(mounts.MountRefused, match="is mounted"):
        fsck.check(device, ID, fstype, 10)

    sandbox.detach("nvme1n1")
    assert (facts().device, facts().stale) == (None, True)
    with open(f"{target}/file", "w"):  # noqa: PTH123
        assert mounts.unmount(target, 10, lazy=True, number=number).did
    assert facts().mount is None
    assert not mounts.unmount(target, 10).did  # case 14: gone is success


def test_what_must_not_be_mounted_is_refused(sandbox, tmp_path):
    def inside() -> None:
        with sandbox.loop(sandbox.image(tmp_path / "a")) as (_, number), sandbox.loop(tmp_path / "a") as (_, other):
            sandbox.own_devices()
            sandbox.attach("nvme1n1", SERIAL, number)
            device = blockdev.find(ID)
            assert isinstance(device, Device)

            def mount(target: Path, **more: str) -> str:
                arguments = {"fstype": "ext4", "options": "", **more}
                return mounts.mount(device, ID, str(target), timeout_s=10, **arguments)

            with pytest.raises(mounts.MountRefused, match="does not exist"):
                mount(tmp_path / "no/such")
            (tmp_path / "file").write_text("")
            with pytest.raises(mounts.MountRefused, match="not a directory"):
                mount(tmp_path / "file")
            (tmp_path / "real").mkdir()
            (tmp_path / "link").symlink_to("real")
            with pytest.raises(mounts.MountRefused, match="symbolic link") as linked:
                mount(tmp_path / "link")
            assert str(tmp_path / "real") in linked.value.hint
            (tmp_path / "taken").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "x", str(tmp_path / "taken")], check=True)
            with pytest.raises(mounts.MountRefused) as caught:
                mount(tmp_path / "taken")
            assert caught.value.busy
            with pytest.raises(mounts.MountError) as failed:
                mount(tmp_path / "srv", fstype="xfs")
            assert not failed.value.busy
            assert (tmp_path / "srv").stat().st_mode & 0o777 == 0o755

            sandbox.detach("nvme1n1")
            sandbox.attach("nvme1n1", "vol0aaaaaaaaaaaaaaaa", number)
            with pytest.raises(mounts.MountRefused, match="no device carries"):
                mount(tmp_path / "srv")
            sandbox.detach("nvme1n1")
            sandbox.attach("nvme1n1", SERIAL, other)  # the volume is back, under the same name
            with pytest.raises(mounts.MountRefused, match="not vol-0123456789abcdef0 any more"):
                mount(tmp_path / "srv")
            found = mounts.read()
            assert not isinstance(found, Unknown)
            assert mountinfo.visible(found, str(tmp_path / "srv")) is None

    sandbox(inside)


def test_a_write_protected_device_is_not_mounted_read_only_in_silence(sandbox, tmp_path):
    def inside() -> None:
        with sandbox.loop(sandbox.image(tmp_path / "a")) as (path, number):
            subprocess.run(["blockdev", "--setro", path], check=True)
            sandbox.own_devices()
            sandbox.attach("nvme1n1", SERIAL, number)
            device = blockdev.find(ID)
            assert isinstance(device, Device)
            try:
                with pytest.raises(mounts.MountError):
                    mounts.mount(device, ID, str(tmp_path / "srv"), fstype="ext4", options="", timeout_s=10)
            finally:
                subprocess.run(["blockdev", "--setrw", "/dev/nvme1n1"], check=True)

    sandbox(inside)


@pytest.mark.parametrize("kind", [selectors.EpollSelector, selectors.PollSelector, selectors.SelectSelector])
def test_the_watch_wakes_any_selector_once_for_a_change(sandbox, tmp_path, kind):
    def inside() -> None:
        watch = mounts.watch()
        selector = kind()
        selector.register(watch, selectors.EVENT_READ)
        assert selector.select(0) == []
        for command in (["mount", "-t", "tmpfs", "x"], ["mount", "-o", "remount,ro"], ["umount"]):
            subprocess.run([*command, str(tmp_path)], check=True)
            assert selector.select(5)
            assert watch.drain()
            assert selector.select(0) == []
        selector.close()
        watch.close()

    sandbox(inside)


def test_unmounting_on_a_dead_server_returns(sandbox, tmp_path):
    def inside() -> None:
        with sandbox.dead_server(tmp_path / "dead"):
            assert mounts.unmount(str(tmp_path / "dead"), 3, lazy=True).did

    sandbox(inside)


# --- checks -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("fstype", "mib"), [("ext4", 16), ("xfs", 320), ("btrfs", 128)])
def test_checks(sandbox, tmp_path, fstype, mib):
    def inside() -> None:
        _check(sandbox, sandbox.image(tmp_path / fstype, fstype, mib), fstype)

    sandbox(inside)


def _check(sandbox, image: Path, fstype: str) -> None:
    with sandbox.loop(image) as (_, number):
        sandbox.own_devices()
        sandbox.attach("nvme1n1", SERIAL, number)
        device = blockdev.find(ID)
        assert isinstance(device, Device)
        assert "clean" in fsck.check(device, ID, fstype, 30).text
        assert "no check" in fsck.check(device, ID, "zfs", 30).text
        if fstype == "xfs":
            _leave_a_dirty_log(image.parent / "x", device)
            assert "replays" in fsck.check(device, ID, fstype, 30).text
            return
        with open(device.path, "r+b") as disk:  # noqa: PTH123
            for offset in (0, 65536) if fstype == "ext4" else (65536, 64 << 20):
                disk.seek(offset)
                disk.write(b"\xff" * 32768)
        with pytest.raises(FsckError):
            fsck.check(device, ID, fstype, 30)
        with pytest.raises(mounts.MountRefused):
            fsck.check(device, "vol-0fff", fstype, 30)


def _leave_a_dirty_log(target: Path, device: Device) -> None:
    target.mkdir()
    subprocess.run(["mount", "-t", "xfs", device.path, str(target)], check=True)
    (target / "file").write_text("x")
    os.sync()
    subprocess.run(["xfs_io", "-x", "-c", "shutdown -f", str(target)], check=True)
    subprocess.run(["umount", str(target)], check=True)
