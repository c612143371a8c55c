"""What a container has besides its distribution and the package: a network, disks, an application, the lab around them.

Files go into the upper layer before each boot of the container.
"""

from __future__ import annotations

from pathlib import Path

from awsha.lab import nodeconf
from awsha.lab.settings import ENDPOINT_ADDRESS, METADATA_ADDRESS, ROUTER, GroupSpec

APPLICATION = "records.service"
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


def fill_bare(upper: Path, *, name: str, machine_id: str) -> None:
    """Write what any container needs that boots by itself. Raises OSError."""
    write(upper, "/etc/machine-id", f"{machine_id}\n")
    write(upper, "/etc/hostname", f"{name}\n")
    for unit in MASKED:
        link(upper, f"/etc/systemd/system/{unit}", "/dev/null")
    link(upper, "/etc/systemd/system/default.target", "/usr/lib/systemd/system/multi-user.target")


def write(upper: Path, path: str, text: str) -> None:
    """One file of the container. Raises OSError."""
    target = upper / path.lstrip("/")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    target.chmod(0o644)


def link(upper: Path, path: str, target: str) -> None:
    """One symbolic link of the container. Raises OSError."""
    (upper / path.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
    (upper / path.lstrip("/")).symlink_to(target)


def fill(upper: Path, *, name: str, machine_id: str, address: str, group: GroupSpec, mount_points: list[str]) -> None:
    """Write everything of a lab's node, on which awsha is enabled as an operator would. Raises OSError."""
    fill_bare(upper, name=name, machine_id=machine_id)
    for folder in (group.volumes[0].mount, *mount_points):
        (upper / folder.lstrip("/")).mkdir(parents=True)
    for place in ("multi-user.target.wants", "keepalived.service.wants"):
        link(upper, f"/etc/systemd/system/{place}/awsha-agent.service", "/usr/lib/systemd/system/awsha-agent.service")
    write(upper, "/etc/systemd/system/awsha-agent.service.d/test.conf", f"[Service]\nWatchdogSec={WATCHDOG_S}\n")

    # the lab around it
    settings = " ".join(f'"{key}={value}"' for key, value in nodeconf.environment().items())
    write(upper, "/etc/systemd/system.conf.d/lab.conf", f"[Manager]\nDefaultEnvironment={settings}\n")
    write(upper, "/etc/systemd/system/lab-network.service", NETWORK.format(address=address))
    write(upper, "/etc/systemd/system/lab-devices.service", DEVICES)
    argv = "/opt/awsha/bin/python3 -P -m awsha.lab.server"
    folder = group.volumes[0].mount
    records = RECORDS.format(argv=argv, name=group.name, folder=folder, port=group.port)
    write(upper, f"/etc/systemd/system/{APPLICATION}", records)
    for unit in ("lab-network.service", "lab-devices.service"):
        link(upper, f"/etc/systemd/system/sysinit.target.wants/{unit}", f"/etc/systemd/system/{unit}")
