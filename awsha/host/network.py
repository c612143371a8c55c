"""Addresses on interfaces, by netlink (rtnetlink(7)): read and changed through pyroute2, watched on a plain socket.

pyroute2 0.9 costs about 0.2 s and 24 MiB whatever part of it is imported (its package imports everything), so it
comes late; an open and a read take about 2 ms. Its sockets belong to an event loop of their own; a watch only
needs to know that something moved, which is a socket and eight bytes of each message.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import struct
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from typing import Any, Protocol, TypeVar, cast

from awsha.core.errors import AwshaError
from awsha.core.model import Unknown

_GROUPS = 0x1 | 0x10 | 0x100  # RTMGRP_LINK, RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR (linux/rtnetlink.h)
_LINK = frozenset({16, 17})  # RTM_NEWLINK, RTM_DELLINK
_ADDRESS = frozenset({20, 21})  # RTM_NEWADDR, RTM_DELADDR
T = TypeVar("T")
_DRAIN = 1000  # messages at once


class NetworkError(AwshaError):
    """netlink refused."""


class _Netlink(Protocol):
    """The part of pyroute2's IPRoute that is used here."""

    def get_addr(self) -> Iterable[Any]:
        """Dump of addresses."""

    def get_links(self, index: int) -> Iterable[Any]:
        """One link."""

    def addr(self, command: str, *, index: int, address: str, prefixlen: int) -> object:
        """Add or delete an address."""


def _netlink() -> AbstractContextManager[_Netlink]:
    """A pyroute2 socket."""
    from pyroute2.iproute.linux import IPRoute

    return cast("AbstractContextManager[_Netlink]", IPRoute())  # type: ignore[no-untyped-call]


def _failures() -> tuple[type[BaseException], ...]:
    """What pyroute2 raises."""
    from pyroute2.netlink.exceptions import NetlinkDumpInterrupted, NetlinkError

    return NetlinkError, NetlinkDumpInterrupted, OSError


def _same(address: str) -> str:
    """One spelling for an address: 10.0.0.1 is never taken for 10.0.0.10, nor ::1 for 0::1."""
    try:
        return str(ipaddress.ip_address(address))
    except ValueError as error:
        raise NetworkError(f"{address} is no address") from error


def _rows(netlink: _Netlink, index: int | None = None) -> Iterator[tuple[int, str, int]]:
    """(interface index, address, prefix length) of all addresses, or of one interface's."""
    for message in netlink.get_addr():
        # on a point-to-point link IFA_LOCAL is the own address and IFA_ADDRESS the peer's; IPv6 has the latter only
        address = message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")
        if address and index in {None, message["index"]}:
            yield message["index"], _same(address), message["prefixlen"]


def _ask(question: Callable[[_Netlink], T]) -> T | Unknown:
    """Put a question to netlink; a failure is Unknown. A dump that was interrupted by a change is asked again."""
    reason = ""
    for _ in range(3):
        try:
            with _netlink() as netlink:
                return question(netlink)
        except _failures() as error:
            reason = f"netlink: {error}"
    return Unknown(reason)


def _index(interface: str) -> int | None:
    """Interface index in this network namespace."""
    try:
        return socket.if_nametoindex(interface)
    except OSError:
        return None


def interface_of(address: str) -> str | Unknown | None:
    """Name of the interface that holds exactly this address; None when none does."""
    wanted = _same(address)
    found = _ask(lambda netlink: [index for index, own, _ in _rows(netlink) if own == wanted])
    if isinstance(found, Unknown):
        return found
    try:
        return socket.if_indextoname(found[0]) if found else None
    except OSError as error:
        return Unknown(f"interface {found[0]}: {error.strerror}")


def addresses(interface: str) -> frozenset[str] | Unknown:
    """All addresses on an interface, without prefix lengths, each in its one canonical spelling."""
    index = _index(interface)
    if index is None:
        return Unknown(f"there is no interface {interface}")
    return _ask(lambda netlink: frozenset(own for _, own, _ in _rows(netlink, index)))


def mac(interface: str) -> str | Unknown | None:
    """Link-layer address of an interface, lower case: how instance metadata names an ENI. None when it has none.

    By netlink: /sys/class/net shows the network namespace that /sys was mounted in.
    """
    index = _index(interface)
    if index is None:
        return Unknown(f"there is no interface {interface}")
    found = _ask(lambda netlink: [message.get_attr("IFLA_ADDRESS") for message in netlink.get_links(index)])
    if isinstance(found, Unknown):
        return found
    return str(found[0]).lower() if found and found[0] else None


def add(address: str, interface: str, prefix: int = 32) -> bool:
    """Put an address on an interface. True when that changed something; there already (any prefix) is success.

    Raises NetworkError.
    """
    wanted, index = _same(address), _index(interface)
    if index is None:
        raise NetworkError(f"there is no interface {interface}")
    return _change(address, interface, lambda netlink: _add(netlink, wanted, index, prefix))


def _add(netlink: _Netlink, wanted: str, index: int, prefix: int) -> bool:
    """Add, unless it is there."""
    if any(own == wanted for _, own, _ in _rows(netlink, index)):
        return False
    netlink.addr("add", index=index, address=wanted, prefixlen=prefix)
    return True


def remove(address: str, interface: str) -> bool:
    """Take an address off an interface, whatever its prefix length. True when that changed something; gone is success.

    Raises NetworkError.
    """
    wanted, index = _same(address), _index(interface)
    if index is None:
        return False
    return _change(address, interface, lambda netlink: _remove(netlink, wanted, index))


def _remove(netlink: _Netlink, wanted: str, index: int) -> bool:
    """Remove each entry of the address."""
    prefixes = [prefix for _, own, prefix in _rows(netlink, index) if own == wanted]
    for prefix in prefixes:
        netlink.addr("del", index=index, address=wanted, prefixlen=prefix)
    return bool(prefixes)


def _change(address: str, interface: str, change: Callable[[_Netlink], bool]) -> bool:
    """Carry out a change; that somebody else was faster is success."""
    failures = _failures()
    try:
        with _netlink() as netlink:
            return change(netlink)
    except failures as error:
        code = getattr(error, "code", None) or getattr(error, "errno", None)
        if code in {errno.EEXIST, errno.EADDRNOTAVAIL}:
            return False
        hint = "run it as root" if code == errno.EPERM else f"ip address show dev {interface}"
        raise NetworkError(f"{address} on {interface}: {error}", hint=hint) from error


class Watch:
    """Tells when addresses or the link of an interface change: `fileno()` is readable, drain() says whether it matters.

    Lost messages (ENOBUFS) count as a change. Look once after making it: what came before is not told.
    """

    def __init__(self, interface: str) -> None:
        self.interface = interface
        self._index = _index(interface)
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)  # NETLINK_ROUTE
        self._socket.setblocking(False)
        self._socket.bind((0, _GROUPS))

    def fileno(self) -> int:
        """For a selector, EVENT_READ."""
        return self._socket.fileno()

    def drain(self) -> bool:
        """Read what is there, without waiting; True when any of it concerns the interface."""
        changed = False
        indexes = {self._index, _index(self.interface)}  # an ENI that was attached anew has another index
        for _ in range(_DRAIN):
            try:
                data = self._socket.recv(1 << 16)
            except BlockingIOError:
                break
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                changed = True
                continue
            changed = changed or any(index in indexes for index in _concerned(data))
        self._index = _index(self.interface)
        return changed

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


def _concerned(data: bytes) -> Iterator[int]:
    """Interface indexes in a datagram: at byte 4 of ifaddrmsg and of ifinfomsg alike (netlink(7), rtnetlink(7))."""
    offset = 0
    while offset + 24 <= len(data):
        length, kind = struct.unpack_from("=IH", data, offset)
        if length < 16:
            return
        if kind in _LINK | _ADDRESS:
            yield struct.unpack_from("=i", data, offset + 20)[0]
        offset += (length + 3) & ~3
