"""Secondary private addresses of interfaces: three truths, each at its own time (EC2.md, "Addresses")."""

from __future__ import annotations

import ipaddress

from awsha.lab.records import (
    AddressMoved,
    Ec2Error,
    Interface,
    Params,
    Reply,
    address_problem,
)
from awsha.lab.world import World, required


def assign(world: World, params: Params, now: float) -> Reply:
    """AssignPrivateIpAddresses: all of the addresses or none; own ones stay; AllowReassignment takes secondaries."""
    required(params, "NetworkInterfaceId")
    interface = world.interface(params["NetworkInterfaceId"])
    wanted: list[str] = list(dict.fromkeys(params.get("PrivateIpAddresses") or ()))
    count = int(params.get("SecondaryPrivateIpAddressCount") or 0)
    if wanted and count:
        raise Ec2Error(
            "InvalidParameterCombination", "The parameters PrivateIpAddresses and SecondaryPrivateIpAddressCount clash"
        )
    if count:
        wanted = _free(world, interface, count)
    elif not wanted:
        raise Ec2Error("MissingParameter", "Either addresses or a count of addresses must be given")
    fresh = [a for a in wanted if _must_move(world, interface, a, bool(params.get("AllowReassignment")))]
    if 1 + len(interface.secondaries) + len(fresh) > world.addresses_per_interface:
        raise Ec2Error(
            "PrivateIpAddressLimitExceeded",
            f"Number of private addresses will exceed limit ({world.addresses_per_interface}) of {interface.id}.",
        )
    _move(world, fresh, interface, now)
    return {
        "NetworkInterfaceId": interface.id,
        "AssignedPrivateIpAddresses": [{"PrivateIpAddress": address} for address in wanted],
        "AssignedIpv4Prefixes": [],
    }


def _must_move(world: World, interface: Interface, address: str, allow: bool) -> bool:
    """Whether the address has to change hands; refuses what may not."""
    problem = address_problem(address, interface.subnet.cidr)
    if problem:
        raise Ec2Error("InvalidParameterValue", problem)
    owner_id = world.owners.get(address)
    if owner_id is None:
        return True
    owner = world.interfaces[owner_id]
    if address == owner.primary and (allow or owner is interface):
        raise Ec2Error("InvalidParameterValue", f"{address} is the primary address of {owner_id}")
    if owner is interface:
        return False
    if not allow:
        raise Ec2Error("Resource.AlreadyAssigned", f"[{address}] is already assigned to {owner_id}")
    return True


def unassign(world: World, params: Params, now: float) -> Reply:
    """UnassignPrivateIpAddresses: all of the addresses or none; never the primary one."""
    required(params, "NetworkInterfaceId", "PrivateIpAddresses")
    interface = world.interface(params["NetworkInterfaceId"])
    addresses: list[str] = list(dict.fromkeys(params["PrivateIpAddresses"]))
    if interface.primary in addresses:
        raise Ec2Error("InvalidParameterValue", f"{interface.primary} is the primary address of {interface.id}")
    if any(address not in interface.secondaries for address in addresses):
        raise Ec2Error(
            "InvalidParameterValue", f"Some of the specified addresses are not assigned to interface {interface.id}"
        )
    _move(world, addresses, None, now)
    return {}


def _free(world: World, interface: Interface, count: int) -> list[str]:
    network = ipaddress.IPv4Network(interface.subnet.cidr)
    free: list[str] = []
    for parsed in network.hosts():
        address = str(parsed)
        if address not in world.owners and not address_problem(address, interface.subnet.cidr):
            free.append(address)
            if len(free) == count:
                return free
    raise Ec2Error("InsufficientFreeAddressesInSubnet", f"The subnet '{interface.subnet.id}' is full")


def _move(world: World, addresses: list[str], to: Interface | None, now: float) -> None:
    """Change the truth at once, and put on the agenda when the views and the data plane follow."""
    if not addresses:
        return
    touched: list[Interface] = []
    for address in addresses:
        owner = world.interfaces.get(world.owners.get(address, ""))
        if owner is not None:
            owner.secondaries = tuple(a for a in owner.secondaries if a != address)
            if owner not in touched:
                touched.append(owner)
        if to is None:
            world.owners.pop(address, None)
        else:
            to.secondaries = (*to.secondaries, address)
            world.owners[address] = to.id
        _route(world, address, to.id if to else None, now)
    if to is not None:
        touched.append(to)
    latency = world.latency
    for interface in touched:
        delay = world.draw(latency.assign_visible_api)
        world.show_interface(interface, now, delay)
        world.show_instance(world.instances[interface.instance_id], now, delay)
        visible_at = now + world.draw(latency.assign_visible_metadata)
        interface.metadata_view.add(interface.secondaries, visible_at, flicker=False)


def _route(world: World, address: str, eni_id: str | None, now: float) -> None:
    """The VPC follows later, and in the order of the calls: the last one wins."""
    due = max(now + world.draw(world.latency.assign_dataplane), world.dataplane_due.get(address, now))
    world.dataplane_due[address] = due
    world.at(due, _on_moved, world, address, eni_id)


def _on_moved(_due: float, world: World, address: str, eni_id: str | None) -> None:
    world.dataplane[address] = eni_id
    world.effects.append(AddressMoved(address, eni_id))


def interface_gone(world: World, interface: Interface, now: float) -> None:
    """The instance was terminated: its interface goes, and its addresses are free."""
    for address in (interface.primary, *interface.secondaries):
        world.owners.pop(address, None)
        _route(world, address, None, now)
    interface.secondaries = ()
    del world.interfaces[interface.id]
