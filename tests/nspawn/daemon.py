"""The lab's daemon with systemd containers for nodes: `python -m tests.nspawn.daemon PREFIX SHAPE ROOTFS LAYER`."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

from awsha.config.keepalived import render
from awsha.lab import nodeconf
from awsha.lab.node import Node
from awsha.lab.pair import Pair, serve
from awsha.lab.settings import Lab, NodeSpec, Shape
from tests.nspawn.container import Container
from tests.nspawn.inside import APPLICATION

AWSHA = "/usr/bin/awsha"


class ContainerPair(Pair):
    """A lab whose nodes start their own services, as systemd is told to by awsha's units."""

    def __init__(self, lab: Lab, shape: Shape, rootfs: Path, layer: Path) -> None:
        """Nothing happens to the machine before `up`."""
        super().__init__(lab, shape)
        self._rootfs, self._layer = rootfs, layer

    def make_node(self, spec: NodeSpec) -> Node:
        """A container instead of the lab's own node."""
        container = Container(self.lab, spec, nodeconf.node_environment(), self._rootfs, [self._layer])
        container.on_reboot = self._rebooted
        return container

    def _rebooted(self, node: Container) -> None:
        """EC2 keeps the volumes of an instance that reboots: its devices are there again."""
        self.note(f"{node.spec.name} has rebooted", "reboot", node.spec.name)
        for attachment in self.disks.of_node(node.spec.name):
            node.show(attachment)

    def write_configuration(self) -> None:
        """As the lab's, but for where awsha is, and a systemd unit as application."""
        text = nodeconf.config_toml(replace(self.shape, application=False), self.specs, self.groups)
        text = text.replace(nodeconf.awsha_command(), AWSHA) + f'\n[group.application]\nunit = "{APPLICATION}"\n'
        policy = nodeconf.policy_of(text)
        for node in self.nodes.values():
            (node.folder / "etc-awsha/awsha.toml").write_text(text)
            conf = render(policy, node.spec.name, command=AWSHA, interface="eth0")
            (node.folder / "etc-keepalived/keepalived.conf").write_text(conf)


if __name__ == "__main__":
    sys.exit(serve(sys.argv[1:3], partial(ContainerPair, rootfs=Path(sys.argv[3]), layer=Path(sys.argv[4]))))
