"""The VPC: a router namespace with one port for each node, which delivers an address only to the port of its owner.

What the API says is a /32 route and a permanent neighbour on the owner's port; ARP claims of a node change nothing.
A node that has an address only in its kernel is unreachable by it, and its packets from there are dropped (rp_filter).
"""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from awsha.host.run import run
from awsha.lab.linux import in_netns
from awsha.lab.settings import (
    CLIENT,
    CLIENT_ADDRESS,
    ENDPOINT_ADDRESS,
    METADATA_ADDRESS,
    ROUTER,
    SUBNET,
    Lab,
    NodeSpec,
)

VPC = "vpc"
CLIENT_MAC = "02:00:00:00:02:00"
IP_TIMEOUT_S = 10.0
# On every port: answer ARP for what the routes say lies behind another port, at once, and believe nobody's claims.
PORT_SYSCTLS = {
    "proxy_arp": "1",
    "rp_filter": "1",
    "arp_ignore": "1",
    "arp_accept": "0",
    "send_redirects": "0",
    "accept_redirects": "0",
}


def write_sysctl(name: str, value: str) -> None:
    """Write one sysctl of the calling thread's network namespace. Raises OSError."""
    (Path("/proc/sys/net") / name).write_text(value)


class Vpc:
    """The router and its ports. Every method is safe to call from several threads."""

    def __init__(self, lab: Lab) -> None:
        """Only remembers; `create` makes it."""
        self._lab = lab
        self._lock = threading.RLock()
        self._macs: dict[str, str] = {}  # port -> MAC behind it
        self._addresses: dict[str, str] = {}  # port -> its primary address
        self._owner: dict[str, str] = {}  # address -> port
        self._down: set[str] = set()
        self._partitioned: dict[str, list[str]] = {}  # node -> the rules that cut it
        self._api_cut: dict[str, str] = {}
        self._filtered = False

    def create(self) -> None:
        """Make the router namespace with its addresses, sysctls and rules. Raises AwshaError when a program fails."""
        name = self._lab.netns(VPC)
        run(["ip", "netns", "add", name], timeout_s=IP_TIMEOUT_S)

        def sysctls() -> None:
            write_sysctl("ipv4/ip_forward", "1")
            write_sysctl("ipv6/conf/all/disable_ipv6", "1")
            write_sysctl("ipv6/conf/default/disable_ipv6", "1")
            for sysctl, value in PORT_SYSCTLS.items():
                for where in ("all", "default"):
                    # proxy_arp on `all` would also answer on lo; the others count as the stricter of all and port.
                    if not (sysctl == "proxy_arp" and where == "all"):
                        write_sysctl(f"ipv4/conf/{where}/{sysctl}", value)

        in_netns(name, sysctls)
        self._ip(
            "link set lo up",
            f"addr add {METADATA_ADDRESS}/32 dev lo",
            f"addr add {ENDPOINT_ADDRESS}/32 dev lo",
            # An address without an owner: the router answers its ARP, as for any other, and its packets vanish in
            # a cable that ends nowhere. A client that tried too early is not left with a failed neighbour for a second.
            "link add void type veth peer name nowhere",
            "link set void arp off up",
            "link set nowhere up",
            f"route add {SUBNET} dev void",
            # The table of local addresses comes first by default; rules that cut a node from the API must precede it.
            "rule add pref 1000 lookup local",
            "rule del pref 0",
        )

    def add_port(self, name: str, address: str, mac: str) -> None:
        """Make namespace <prefix>-<name> with an eth0 at the router's port, and deliver its primary address there."""
        netns = self._lab.netns(name)
        run(["ip", "netns", "add", netns], timeout_s=IP_TIMEOUT_S)

        def sysctls() -> None:
            write_sysctl("ipv6/conf/all/disable_ipv6", "1")
            write_sysctl("ipv6/conf/default/disable_ipv6", "1")

        in_netns(netns, sysctls)
        with self._lock:
            self._macs[name] = mac
            self._addresses[name] = address
            self._ip(f"link add v-{name} type veth peer name eth0 address {mac} netns {netns}")
            in_netns(self._lab.netns(VPC), lambda: write_sysctl(f"ipv4/neigh/v-{name}/proxy_delay", "0"))
            self._ip(f"addr add {ROUTER}/32 dev v-{name}", f"link set v-{name} up")
            self.reset_port(name)
            self.own(address, name)

    def add_nodes(self, nodes: tuple[NodeSpec, ...]) -> None:
        """Ports for all nodes and for the client."""
        for node in nodes:
            self.add_port(node.name, node.address, node.mac)
        self.add_port(CLIENT, CLIENT_ADDRESS, CLIENT_MAC)

    def reset_port(self, name: str) -> None:
        """Give the interface of a node what it has after a boot: its primary address and nothing else."""
        self._ip(
            "link set lo up",
            "addr flush dev eth0",
            "link set eth0 up",
            f"addr add {self._addresses[name]}/24 dev eth0",
            f"route replace {METADATA_ADDRESS}/32 via {ROUTER} dev eth0",
            f"route replace {ENDPOINT_ADDRESS}/32 via {ROUTER} dev eth0",
            netns=name,
        )

    def own(self, address: str, port: str | None) -> None:
        """Deliver `address` to this port only, or to nobody (None)."""
        with self._lock:
            before = self._owner.pop(address, None)
            if before is not None and before != port and before not in self._down:
                self._ip(f"neigh del {address} dev v-{before}", force=True)
            if port is None:
                self._ip(f"route del {address}/32", force=True)
                return
            self._owner[address] = port
            if port in self._down:
                self._ip(f"route del {address}/32", force=True)
                return
            self._deliver(address)

    def owner(self, address: str) -> str | None:
        """The port that gets this address, None for nobody."""
        with self._lock:
            return self._owner.get(address)

    def _deliver(self, address: str) -> None:
        port = self._owner[address]
        self._ip(
            f"neigh replace {address} lladdr {self._macs[port]} dev v-{port} nud permanent",
            f"route replace {address}/32 dev v-{port}",
        )

    def set_port(self, name: str, *, up: bool) -> None:
        """Plug a node's cable in or out. The kernel drops a port's routes when it goes down: they come back with it."""
        with self._lock:
            if up == (name not in self._down):
                return
            if not up:
                self._down.add(name)
                self._ip(f"link set v-{name} down")
                return
            self._down.discard(name)
            self._ip(f"link set v-{name} up")
            for address, port in self._owner.items():
                if port == name:
                    self._deliver(address)

    def partition(self, name: str, others: list[str]) -> None:
        """Drop VRRP between a node and all others, both ways; everything else passes."""
        with self._lock:
            if name in self._partitioned:
                return
            mine = self._addresses[name]
            rules = [f"iif v-{name} ipproto 112 blackhole"]
            rules += [f"iif v-{other} to {mine} ipproto 112 blackhole" for other in others]
            self._ip(*(f"rule add pref 200 {rule}" for rule in rules))
            self._partitioned[name] = rules

    def cut_api(self, name: str) -> None:
        """Drop everything that a node sends to the EC2 endpoint; its calls time out."""
        with self._lock:
            if name not in self._api_cut:
                self._api_cut[name] = f"iif v-{name} to {ENDPOINT_ADDRESS} blackhole"
                self._ip(f"rule add pref 100 {self._api_cut[name]}")

    def filter_vrrp(self, *, on: bool) -> None:
        """Drop all VRRP of all nodes, as a security group without protocol 112 does."""
        with self._lock:
            if on != self._filtered:
                self._ip(f"rule {'add' if on else 'del'} pref 300 ipproto 112 blackhole")
                self._filtered = on

    def heal(self, name: str) -> None:
        """Undo `partition` and `cut_api` of a node."""
        with self._lock:
            for rule in self._partitioned.pop(name, []):
                self._ip(f"rule del pref 200 {rule}")
            if name in self._api_cut:
                self._ip(f"rule del pref 100 {self._api_cut.pop(name)}")

    def cuts(self, name: str) -> list[str]:
        """What is cut for a node: `partition`, `api-cut`, `vrrp-filtered`."""
        with self._lock:
            found = ["partition"] if name in self._partitioned else []
            found += ["api-cut"] if name in self._api_cut else []
            return [*found, "vrrp-filtered"] if self._filtered else found

    def listen(self, where: str, address: str, port: int) -> socket.socket:
        """A listening TCP socket inside a namespace of the lab (`vpc`, a node or `client`). Raises OSError."""

        def make() -> socket.socket:
            return socket.create_server((address, port), backlog=64)

        return in_netns(self._lab.netns(where), make)

    def connect(self, address: str, port: int, timeout_s: float) -> socket.socket:
        """A TCP connection made from the client's namespace. Raises OSError."""
        return in_netns(
            self._lab.netns(CLIENT), lambda: socket.create_connection((address, port), timeout_s), timeout_s + 1
        )

    def _ip(self, *commands: str, netns: str = VPC, force: bool = False) -> None:
        """Run `ip` commands in one namespace in one process; `force`: what is gone already is not an error."""
        argv = ["ip", *(["-force"] if force else []), "-n", self._lab.netns(netns), "-batch", "-"]
        run(argv, timeout_s=IP_TIMEOUT_S, input=("\n".join(commands) + "\n").encode(), check=not force)
