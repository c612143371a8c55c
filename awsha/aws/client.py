"""A botocore client for EC2 that is small and quick to make: awsha's table of the API instead of botocore's 3.7 MB."""

from __future__ import annotations

import socket
from typing import Any

import botocore
import botocore.session
from botocore.client import BaseClient
from botocore.config import Config
from botocore.loaders import Loader

import awsha
from awsha.aws.model import API_VERSION, service_model


class _SmallLoader(Loader):  # type: ignore[misc,unused-ignore]
    """botocore's loader of models, with EC2 from awsha's table; any other service (STS for profiles) as usual."""

    def load_service_model(self, service_name: str, type_name: str, api_version: str | None = None) -> object:
        if service_name != "ec2":
            return super().load_service_model(service_name, type_name, api_version)
        if type_name == "service-2":
            return service_model()
        # Without a search through 400 service folders for the newest version.
        return self.load_data(f"ec2/{API_VERSION}/{type_name}")

    def load_data_with_path(self, name: str) -> tuple[dict[str, Any], str]:
        if name != "endpoints":
            return super().load_data_with_path(name)
        table, path = super().load_data_with_path("partitions")
        return endpoints(table), path


def create_client(
    region: str, connect_timeout_s: float, read_timeout_s: float, connections: int, *, service: str = "ec2"
) -> BaseClient:
    """A thread-safe client of EC2 (or of another service) in `region`.

    Credentials, profile, endpoint, proxy and CA settings are the environment's.

    It makes one attempt a request: what a failure means, and whether to ask again, is the caller's decision.
    Raises botocore's exceptions (unknown profile, bad endpoint URL).
    """
    session = botocore.session.Session()
    session.register_component("data_loader", _SmallLoader())
    config = Config(
        connect_timeout=connect_timeout_s,
        read_timeout=read_timeout_s,
        retries={"total_max_attempts": 1, "mode": "standard"},
        tcp_keepalive=True,
        max_pool_connections=connections,
        # Botocore's own is put together anew twice a request, from 20 parts: a tenth of a request's CPU.
        user_agent=f"awsha/{awsha.__version__} Botocore/{botocore.__version__}",
    )
    client: Any = session.create_client(service, region_name=region, config=config)
    # What was given up here must not be sent again by the kernel once the network heals: a detach would arrive after
    # this node has taken the volume back. botocore has no setting for it; its session hands this list to urllib3.
    gives_up = (socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(read_timeout_s * 1000))
    client._endpoint.http_session._socket_options.append(gives_up)
    made: BaseClient = client
    return made


def endpoints(table: dict[str, Any]) -> dict[str, Any]:
    """botocore's old endpoint table (endpoints.json), made from its small partition table (partitions.json).

    The real one is 1.2 MB, and 8 MiB as objects: exceptions of 300 services. By now endpoints come from the services'
    rule sets; this one only says which region is in which partition, and the pattern of a host name.
    """
    return {"version": 3, "partitions": [_partition(entry) for entry in table["partitions"]]}


def _partition(entry: dict[str, Any]) -> dict[str, Any]:
    outputs = entry["outputs"]
    suffix, dual = outputs["dnsSuffix"], outputs["dualStackDnsSuffix"]
    plain, fips = "{service}.{region}.{dnsSuffix}", "{service}-fips.{region}.{dnsSuffix}"
    variants = [
        {"dnsSuffix": suffix, "hostname": fips, "tags": ["fips"]},
        {"dnsSuffix": dual, "hostname": fips, "tags": ["dualstack", "fips"]},
        {"dnsSuffix": dual, "hostname": plain, "tags": ["dualstack"]},
    ]
    defaults = {"hostname": plain, "protocols": ["https"], "signatureVersions": ["v4"], "variants": variants}
    return {
        "partition": entry["id"],
        "dnsSuffix": suffix,
        "regionRegex": entry["regionRegex"],
        "regions": entry["regions"],
        "defaults": defaults,
        "services": {"ec2": {"endpoints": {}}},
    }
