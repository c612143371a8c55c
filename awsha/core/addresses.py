"""What the VIPs need next: on this node's ENI (EC2) and on its interface (kernel), or off both."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from awsha.core.fencing import heard_alive
from awsha.core.model import InstanceFacts, InstanceState, Role, Unknown
from awsha.core.situation import Code, Draft, Situation
from awsha.core.steps import AssignAddresses, KernelAddresses, Scope, UnassignAddresses

CONTEST_S = 30.0  # a VIP-only group that lost its address to a running peer asks for it again this late, not in turn
RESTORE_S = 1.0  # keepalived puts VIPs on the interface before it runs a notify; later than this it will not


def on_eni(s: Situation) -> tuple[str, ...] | Unknown:
    """The group's VIPs that EC2 says are on this node's ENI."""
    mine = s.instance(s.me.instance_id)
    if isinstance(mine, Unknown):
        return mine
    return () if mine is None else tuple([vip for vip in s.group.vips if vip in mine.addresses])


def missing_in(s: Situation, addresses: Collection[str]) -> tuple[str, ...]:
    """The group's VIPs that are not among these."""
    return tuple([vip for vip in s.group.vips if vip not in addresses])


def peer_with(s: Situation, addresses: tuple[str, ...]) -> str | None:
    """The name of a running peer whose ENI has one of these addresses, by EC2."""
    if isinstance(s.cloud.instances, Unknown):
        return None
    for instance in s.cloud.instances.values():
        runs = instance.id in s.me.peers and instance.state is InstanceState.RUNNING
        if runs and not instance.addresses.isdisjoint(addresses):
            return s.me.peers[instance.id]
    return None


@dataclass(frozen=True, slots=True)
class Addressed:
    """`kernel`: the interface has all VIPs. `delivered`: EC2 does not say that one of them is missing here."""

    kernel: bool
    delivered: bool


def acquire(draft: Draft, won: bool) -> Addressed:
    """Plan what brings the VIPs here. `won`: every volume is held.

    An EC2 that says nothing counts as delivered, since its silence moves nothing; so does an address that a running
    peer has as the other of two masters, since giving way would only have them take it in turn (ADR 0004).
    """
    s = draft.s
    here = on_eni(s)
    delivered = True
    if isinstance(here, Unknown):
        draft.unknown(Code.CLOUD_UNKNOWN, "addresses", "EC2 does not say where the VIPs are", here)
    elif missing := missing_in(s, here):
        delivered = won and not _assign(draft, missing)
    elif isinstance(s.cloud.metadata_addresses, frozenset) and missing_in(s, s.cloud.metadata_addresses):
        draft.wait(
            Code.VIP_NOT_IN_METADATA,
            "addresses",
            "EC2's API says that the VIPs are here; instance metadata does not show them yet",
            Scope.CLOUD,
        )
    return Addressed(_on_interface(draft), delivered)


def _assign(draft: Draft, missing: tuple[str, ...]) -> bool:
    """Ask EC2 for the addresses, all in one call; False when they are left to a peer.

    With no volume as the lock, two masters must not take turns.
    """
    s = draft.s
    peer = peer_with(s, missing)
    if not s.group.volumes and s.memory.had_vips and peer is not None:
        waited = draft.standing(Code.VIP_CONTESTED, "addresses")
        if waited < CONTEST_S or heard_alive(s, peer):
            draft.wait(
                Code.VIP_CONTESTED,
                "addresses",
                f"{peer} took {', '.join(sorted(missing))} while this node is master",
                Scope.CLOUD,
                hint="two masters: see whether VRRP passes between the nodes (awsha check)",
                for_s=CONTEST_S,
            )
            return False
    draft.step(AssignAddresses(tuple(sorted(missing))))
    return True


def _on_interface(draft: Draft) -> bool:
    """keepalived puts the VIPs there; what somebody else took away (amazon-ec2-net-utils does) is put back."""
    s = draft.s
    if isinstance(s.host.vips, Unknown):
        draft.unknown(
            Code.HOST_UNKNOWN, "addresses", "the kernel's addresses can't be read", s.host.vips, Scope.ADDRESSES
        )
        return False
    missing = missing_in(s, s.host.vips)
    if not missing:
        return True
    names = ", ".join(sorted(missing))
    waited = draft.wait(
        Code.VIP_NOT_ON_INTERFACE,
        "addresses",
        f"{names} is not on {s.me.interface}",
        Scope.ADDRESSES,
        hint="see who removes it: ip monitor address",
        for_s=RESTORE_S,
    )
    if waited >= RESTORE_S:
        draft.step(KernelAddresses(tuple(sorted(missing)), present=True))
    return False


def release(draft: Draft) -> bool:
    """Plan what takes the VIPs off this node. True when EC2 says that none is here, and none is left over."""
    s = draft.s
    here = on_eni(s)
    clean = True
    if isinstance(here, Unknown):
        draft.unknown(Code.CLOUD_UNKNOWN, "addresses", "EC2 does not say where the VIPs are", here, Scope.CLOUD)
        clean = False
    elif here:
        draft.step(UnassignAddresses(tuple(sorted(here))))
        clean = False
    return _off_interface(draft) and clean


def _off_interface(draft: Draft) -> bool:
    """A killed keepalived leaves its addresses behind. A living one removes them itself, and before it says that it is
    no master any more; but what awsha had put back meanwhile (that notify came late) it does not know."""
    s = draft.s
    if not isinstance(s.host.vips, frozenset) or not s.host.vips:
        return True
    left = tuple(sorted(s.host.vips))
    if s.host.keepalived_gone_since is not None:
        draft.step(KernelAddresses(left, present=False))
        return False
    if s.intent is None or s.intent.role is Role.MASTER:
        return True  # keepalived is master, and has them there
    text = f"{', '.join(left)} is still on {s.me.interface}, and this node is no master"
    if draft.wait(Code.VIP_LEFT_OVER, "addresses", text, Scope.ADDRESSES, for_s=RESTORE_S) >= RESTORE_S:
        draft.step(KernelAddresses(left, present=False))
    return False


def other_holder(s: Situation, address: str) -> InstanceFacts | None:
    """The node's instance that has an address on one of its ENIs, by EC2 (for status)."""
    if isinstance(s.cloud.instances, Unknown):
        return None
    return next((i for i in s.cloud.instances.values() if address in i.addresses), None)
