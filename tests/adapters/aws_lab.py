"""EC2 as the lab plays it, on loopback, with a clock that a test sets: two nodes, two volumes."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import pytest

from awsha.lab.endpoint import Endpoint
from awsha.lab.latency import Latency
from awsha.lab.metadata_service import MetadataService
from awsha.lab.rules import Region

A, B, OTHER_ZONE = "i-0aaaaaaaaaaaaaaaa", "i-0bbbbbbbbbbbbbbbb", "i-0cccccccccccccccc"
ENI_A, ENI_B = "eni-0aaaaaaaaaaaaaaaa", "eni-0bbbbbbbbbbbbbbbb"
MAC_A, MAC_B = "0a:00:00:00:00:01", "0a:00:00:00:00:02"
VOLUME, SECOND = "vol-01111111111111111", "vol-02222222222222222"
VIP, VIP2 = "10.0.0.100", "10.0.0.101"


@dataclass
class Lab:
    """The world behind the endpoint."""

    region: Region
    url: str = ""
    metadata_url: str = ""
    now: float = 100.0
    mounted: set[tuple[str, str]] = field(default_factory=set)  # (instance, volume) whose guest does not let go
    caller: str = A  # whose metadata is asked for

    def truth(self, volume: str = VOLUME) -> tuple[str, str | None, str | None]:
        """A volume's state, holder and attachment state, whatever the views say."""
        found = self.region.snapshot()["volumes"][volume]
        return found["state"], found["attached_to"], found["attachment"]

    def owner(self, address: str) -> str | None:
        """The instance that has an address, whatever the views say."""
        owner: str | None = self.region.snapshot()["addresses"].get(address)
        return owner


class Servers:
    """The endpoint and the metadata service, each on a free loopback port, with a fresh world for every test."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._lab = _fresh_lab()
        self._endpoint = Endpoint(
            self._lab.region,
            lambda: self._lab.now,
            self._lock,
            lambda _effects: None,
            holds=lambda instance, volume: (instance, volume) in self._lab.mounted,
            identify=lambda _peer: None,
        )
        self.endpoint = self._endpoint
        self._metadata: MetadataService | None = None
        self._url = _serve(self._endpoint)

    def fresh(self, monkeypatch: pytest.MonkeyPatch) -> Lab:
        """A new world, and the environment that any AWS client of it has."""
        self._end_metadata()
        with self._lock:
            self._lab = _fresh_lab()
            self._endpoint.region = self._lab.region
        lab = self._lab
        self._metadata = MetadataService(lab.region, lambda: lab.now, self._lock, identify=lambda _peer: lab.caller)
        lab.url, lab.metadata_url = self._url, _serve(self._metadata)
        for key, value in {
            "AWS_ENDPOINT_URL": lab.url,
            "AWS_ACCESS_KEY_ID": "lab",
            "AWS_SECRET_ACCESS_KEY": "lab",
            "AWS_EC2_METADATA_DISABLED": "true",
            "AWS_CONFIG_FILE": "/nonexistent",
            "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
        }.items():
            monkeypatch.setenv(key, value)
        return lab

    def stop(self) -> None:
        """End all threads."""
        self._end_metadata()
        assert self._endpoint.stop()

    def _end_metadata(self) -> None:
        if self._metadata is not None:
            assert self._metadata.stop()


@contextmanager
def running_servers() -> Iterator[Servers]:
    """The servers, gone at the end."""
    servers = Servers()
    try:
        yield servers
    finally:
        servers.stop()


def _fresh_lab() -> Lab:
    region = Region(Latency.none())
    region.add_instance("a", A, ENI_A, MAC_A, "10.0.0.10")
    region.add_instance("b", B, ENI_B, MAC_B, "10.0.0.11")
    region.add_instance("far", OTHER_ZONE, "eni-0cccccccccccccccc", "0a:00:00:00:00:03", "10.0.9.10", zone="eu-west-1b")
    region.add_volume(VOLUME, 8, tags={"Name": "db", "env": "prod"})
    region.add_volume(SECOND, 8, tags={"Name": "logs", "env": "prod"})
    return Lab(region)


def _serve(service: Endpoint | MetadataService) -> str:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    service.serve(listening)
    return f"http://127.0.0.1:{port}"
