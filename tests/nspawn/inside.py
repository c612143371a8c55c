"""What a container has besides its distribution: awsha as a package would install it, a network, disks, an application.

Files go into the upper layer before each boot of the container.
"""

from __future__ import annotations

import shutil
import sys
import sysconfig
from pathlib import Path

from awsha.lab import nodeconf
from awsha.lab.settings import ENDPOINT_ADDRESS, METADATA_ADDRESS, ROUTER, GroupSpec
from tests.nspawn.rootfs import PROJECT

PYTHON = f"python{sys.version_info.major}.{sys.version_info.minor}"
SITE = f"/opt/awsha/lib/{PYTHON}/site-packages"
APPLICATION = "records.service"
SCRIPT = """\
#!/opt/awsha/bin/python3
import sys
from awsha.__main__ import main
sys.exit(main())
"""
# Seconds. The unit's own watchdog period would make a test wait for a minute and a half.
WATCHDOG_S = 4

# As systemd-networkd does: up before network.target, and gone only when everything after that has stopped.
NETWORK = f"""\
[Unit]
DefaultDependencies=no
After=network-pre.target
Wants=network.target
Before=network.target shutdown.target
Conflicts=shutdown.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=ip link set lo up
ExecStart=ip link set eth0 up
ExecStart=ip addr replace {{address}}/24 dev eth0
ExecStart=ip route replace {METADATA_ADDRESS}/32 via {ROUTER} dev eth0
ExecStart=ip route replace {ENDPOINT_ADDRESS}/32 via {ROUTER} dev eth0
ExecStop=ip addr flush dev eth0
ExecStop=ip link set eth0 down
"""

# In place of udev: the folder in which the lab shows a node its disks.
DEVICES = """\
[Unit]
DefaultDependencies=no
Before=sysinit.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=mount -t tmpfs tmpfs /sys/block
"""

RECORDS = """\
[Unit]
Description=records
# What a user may write, and what must not make a shutdown hang: at a stop this one comes after keepalived.
Before=keepalived.service

[Service]
Type=forking
PIDFile=/run/awsha-lab-server-{name}.pid
ExecStart={argv} start --name {name} --folder {folder} --port {port}
"""

MASKED = ("console-getty.service", "getty.target", "e2scrub_reap.service",
          "systemd-networkd.service", "timers.target", "remote-fs.target")  # fmt: skip


def interpreter() -> list[Path]:
    """Folders of this machine that the interpreter needs, wherever it is; none when the distribution has it."""
    return [] if sys.base_prefix == "/usr" else [Path(sys.base_prefix)]


def packages() -> Path:
    """The folder with the packages that awsha depends on."""
    return Path(sysconfig.get_path("purelib"))


def fill(upper: Path, *, name: str, machine_id: str, address: str, group: GroupSpec, mount_points: list[str]) -> None:
    """Write everything. Raises OSError."""

    def write(path: str, text: str, mode: int = 0o644) -> None:
        target = upper / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
        target.chmod(mode)

    def link(path: str, target: str) -> None:
        (upper / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
        (upper / path.lstrip("/")).symlink_to(target)

    write("/etc/machine-id", f"{machine_id}\n")
    write("/etc/hostname", f"{name}\n")
    for folder in (group.volumes[0].mount, *mount_points):
        (upper / folder.lstrip("/")).mkdir(parents=True)

    # awsha below /opt, in an environment of its own
    write("/opt/awsha/pyvenv.cfg", f"home = {sys.base_prefix}/bin\ninclude-system-site-packages = false\n")
    link("/opt/awsha/bin/python3", f"{sys.base_prefix}/bin/{PYTHON}")
    write(
        "/opt/awsha/bin/awsha",
        SCRIPT,
        0o755,
    )
    link("/usr/bin/awsha", "/opt/awsha/bin/awsha")
    write(f"{SITE}/dependencies.pth", "/opt/awsha/dependencies\n")
    (upper / SITE.lstrip("/") / "awsha").mkdir()
    (upper / "opt/awsha/dependencies").mkdir()

    # the units, as they are in the project
    units = upper / "usr/lib/systemd/system"
    shutil.copytree(PROJECT / "systemd", units, dirs_exist_ok=True)
    for unit in ("awsha-agent.service", "keepalived.service"):
        link(f"/etc/systemd/system/multi-user.target.wants/{unit}", f"/usr/lib/systemd/system/{unit}")
    write("/etc/systemd/system/awsha-agent.service.d/test.conf", f"[Service]\nWatchdogSec={WATCHDOG_S}\n")

    # the lab around them
    settings = " ".join(f'"{key}={value}"' for key, value in nodeconf.environment().items())
    write("/etc/systemd/system.conf.d/lab.conf", f"[Manager]\nDefaultEnvironment={settings}\n")
    write("/etc/systemd/system/lab-network.service", NETWORK.format(address=address))
    write("/etc/systemd/system/lab-devices.service", DEVICES)
    argv = "/opt/awsha/bin/python3 -P -m awsha.lab.server"
    folder = group.volumes[0].mount
    write(
        f"/etc/systemd/system/{APPLICATION}", RECORDS.format(argv=argv, name=group.name, folder=folder, port=group.port)
    )
    for unit in ("lab-network.service", "lab-devices.service"):
        link(f"/etc/systemd/system/sysinit.target.wants/{unit}", f"/etc/systemd/system/{unit}")
    for unit in MASKED:
        link(f"/etc/systemd/system/{unit}", "/dev/null")
    link("/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")
