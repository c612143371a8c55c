"""host.network: addresses by netlink, in a network namespace of the test's own."""

from __future__ import annotations

import select
import subprocess

import pytest

from awsha.core.model import Unknown
from awsha.host import network
from awsha.host.network import NetworkError


def ip(*words: str) -> None:
    subprocess.run(["ip", *words], check=True)


@pytest.fixture
def veth(sandbox):
    """Runs a function where v0 and v1 are two ends of one link."""

    def run(function) -> None:
        def inside() -> None:
            ip("link", "add", "v0", "address", "02:00:00:00:00:0a", "type", "veth", "peer", "name", "v1")
            ip("link", "set", "v0", "up")
            ip("link", "set", "v1", "up")
            ip("address", "add", "10.0.0.10/24", "dev", "v0")
            function()

        sandbox(inside)

    return run


def readable(watch: network.Watch, timeout_s: float = 5.0) -> bool:
    return bool(select.select([watch], [], [], timeout_s)[0])


def test_case_13_addresses_are_compared_whole(veth):
    def inside() -> None:
        assert network.interface_of("10.0.0.10") == "v0"
        assert network.interface_of("10.0.0.1") is None
        assert "10.0.0.1" not in network.addresses("v0")
        assert "10.0.0.10" in network.addresses("v0")
        assert network.mac("v0") == "02:00:00:00:00:0a"

    veth(inside)


def test_an_address_on_a_named_label_or_a_point_to_point_link(veth):
    def inside() -> None:
        ip("address", "add", "10.0.0.20/32", "dev", "v0", "label", "v0:vip")
        ip("address", "add", "10.9.9.1", "peer", "10.9.9.2", "dev", "v0")
        assert network.interface_of("10.0.0.20") == "v0"
        assert network.interface_of("10.9.9.1") == "v0"
        assert network.interface_of("10.9.9.2") is None

    veth(inside)


def test_adding_and_removing_are_done_once_and_succeed_twice(veth):
    def inside() -> None:
        assert network.add("10.0.0.100", "v0")
        assert not network.add("10.0.0.100", "v0")
        assert not network.add("10.0.0.100", "v0", 24)
        assert "10.0.0.100" in network.addresses("v0")
        ip("address", "add", "10.0.0.100/24", "dev", "v0")
        assert network.remove("10.0.0.100", "v0")
        assert not network.remove("10.0.0.100", "v0")
        assert network.addresses("v0") & {"10.0.0.100", "10.0.0.10"} == {"10.0.0.10"}
        assert network.add("fd00:0::1", "v0", 128)
        assert "fd00::1" in network.addresses("v0")
        assert network.remove("fd00::1", "v0")

    veth(inside)


def test_no_interface(veth):
    def inside() -> None:
        assert isinstance(network.addresses("nope"), Unknown)
        assert isinstance(network.mac("nope"), Unknown)
        assert not network.remove("10.0.0.100", "nope")  # gone is success
        with pytest.raises(NetworkError, match="no interface"):
            network.add("10.0.0.100", "nope")
        with pytest.raises(NetworkError, match="no address"):
            network.add("10.0.0", "v0")

    veth(inside)


def test_the_watch_tells_of_this_interface_only(veth):
    def inside() -> None:
        watch = network.Watch("v0")
        assert not watch.drain()
        ip("address", "add", "10.0.0.100/32", "dev", "v0")
        assert readable(watch)
        assert watch.drain()
        assert not watch.drain()
        ip("address", "del", "10.0.0.100/32", "dev", "v0")
        assert readable(watch)
        assert watch.drain()
        ip("address", "add", "10.0.7.1/32", "dev", "v1")
        assert readable(watch)
        assert not watch.drain()
        ip("link", "set", "v0", "down")
        assert readable(watch)
        assert watch.drain()
        watch.close()

    veth(inside)


def test_the_watch_follows_an_interface_that_comes_back(veth):
    def inside() -> None:
        watch = network.Watch("v0")
        ip("link", "del", "v0")
        assert watch.drain()
        ip("link", "add", "v0", "type", "veth", "peer", "name", "v1")
        assert watch.drain()
        ip("address", "add", "10.0.0.100/32", "dev", "v0")
        assert watch.drain()

    veth(inside)


def test_lost_messages_count_as_a_change(veth):
    def inside() -> None:
        watch = network.Watch("v0")
        batch = "".join(f"address add 10.1.{n // 250}.{n % 250}/32 dev v1\n" for n in range(4000))
        subprocess.run(["ip", "-batch", "-"], input=batch, text=True, check=True)  # more than the socket holds
        assert readable(watch)
        assert watch.drain()
        while watch.drain():
            pass
        ip("address", "add", "10.0.0.100/32", "dev", "v0")
        assert watch.drain()

    veth(inside)
