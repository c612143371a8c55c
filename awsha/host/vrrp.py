"""Hears the peers' VRRP adverts on a raw socket beside keepalived's own.

Only a master sends adverts, so an advert says that its sender is alive and master, or (priority 0) that it resigns.
Formats: RFC 3768 (version 2), RFC 5798 (version 3). A wrong checksum does not discard an advert: versions of
keepalived disagree on the one for unicast, and not hearing a living master could get it fenced. For the same reason the
time to live is not judged, and an advert counts from when it is read, not from when it came.
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from awsha.core.errors import AwshaError
from awsha.core.fencing import heard_next
from awsha.core.model import Heard

PROTOCOL = 112
DRAIN = 1000  # adverts at once
_AUTHENTICATION = 8  # bytes after the addresses in version 2


@dataclass(frozen=True, slots=True)
class Advert:
    """One advert. `at`: boottime seconds when it was read; `addresses`: the VIPs it names."""

    source: str
    version: int
    router_id: int
    priority: int
    addresses: tuple[str, ...]
    at: float


def parse(packet: bytes, at: float) -> Advert | None:
    """An IPv4 packet with its header, as a raw socket gives it; None when it is no well-formed advert."""
    if len(packet) < 20 or packet[0] >> 4 != 4 or packet[9] != PROTOCOL:
        return None
    header = (packet[0] & 0xF) * 4
    total = int.from_bytes(packet[2:4], "big")
    body = packet[header:total]
    if header < 20 or total > len(packet) or len(body) < 8:
        return None
    version, kind, router_id, priority, count = body[0] >> 4, body[0] & 0xF, body[1], body[2], body[3]
    rest = len(body) - 8 - 4 * count
    fits = {2: rest in {0, _AUTHENTICATION}, 3: rest == 0}.get(version, False)
    if kind != 1 or router_id == 0 or not fits:
        return None
    addresses = tuple(socket.inet_ntoa(body[8 + 4 * i : 12 + 4 * i]) for i in range(count))
    return Advert(socket.inet_ntoa(packet[12:16]), version, router_id, priority, addresses, at)


class Listener:
    """A raw socket for protocol 112. own: this node's addresses, whose adverts are left out.

    Raises AwshaError when the socket is not permitted (CAP_NET_RAW).
    """

    def __init__(self, own: Collection[str] = ()) -> None:
        self._own = frozenset(own)
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, PROTOCOL)
        except PermissionError as error:
            raise AwshaError(
                "a raw socket is not permitted: adverts of the peers cannot be heard",
                hint="run the agent as root, or give it CAP_NET_RAW",
            ) from error
        self._socket.setblocking(False)

    def fileno(self) -> int:
        """For a selector, EVENT_READ."""
        return self._socket.fileno()

    def drain(self, now: float) -> list[Advert]:
        """The adverts that have come, oldest first, at most DRAIN of them. now: boottime seconds."""
        adverts = []
        for _ in range(DRAIN):
            try:
                packet = self._socket.recv(4096)
            except BlockingIOError:
                break
            except OSError:
                continue  # an ICMP error of a peer is reported once, as this
            advert = parse(packet, now)
            if advert is not None and advert.source not in self._own:
                adverts.append(advert)
        return adverts

    def close(self) -> None:
        """Give the socket back."""
        self._socket.close()


class Table:
    """Who was heard, by router id and peer address. Bounded: only known peers are kept.

    peers: node name -> address. heard: what an earlier agent of this boot had heard, so that "ever heard since
    boot" outlives a restart; the caller keeps it with the boot id. advert_int: by router id, in seconds.
    """

    def __init__(
        self,
        peers: Mapping[str, str],
        heard: Mapping[tuple[int, str], Heard] | None = None,
        advert_int: Mapping[int, float] | None = None,
    ) -> None:
        self._advert_int = advert_int or {}
        self._names = {address: name for name, address in peers.items()}
        self._heard = {key: value for key, value in (heard or {}).items() if key[1] in self._names}

    def note(self, adverts: Iterable[Advert]) -> frozenset[int]:
        """Take adverts in; answers the router ids for which a peer is new, or has a new priority."""
        news = set()
        for advert in adverts:
            if advert.source not in self._names:
                continue
            key = (advert.router_id, advert.source)
            before = self._heard.get(key)
            if before is None or before.priority != advert.priority:
                news.add(advert.router_id)
            interval = self._advert_int.get(advert.router_id, 1.0)
            self._heard[key] = heard_next(before, advert.at, advert.priority, interval)
        return frozenset(news)

    def heard(self, router_id: int) -> dict[str, Heard]:
        """Node name -> its last advert for this router id; only peers that were ever heard."""
        return {self._names[address]: value for (router, address), value in self._heard.items() if router == router_id}
