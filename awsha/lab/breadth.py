"""Everything that has no rules of its own: moto, in this process, imported when first needed (it costs a second)."""

from __future__ import annotations

import importlib
import ipaddress
import logging
import re
import threading
from collections.abc import Mapping
from typing import Any

from awsha.lab.records import ACCOUNT, SECURITY_GROUP, SECURITY_GROUP_NAME, VPC, Ec2Error, Subnet
from awsha.lab.wire import Request, Response

log = logging.getLogger(__name__)

# "AWS4-HMAC-SHA256 Credential=KEY/DATE/REGION/SERVICE/aws4_request, …" (Signature Version 4)
_SCOPE = re.compile(r"Credential=[^/,\s]+/\d{8}/([a-z0-9-]+)/([a-z0-9.-]+)/aws4_request")
_HOP = frozenset({"connection", "content-length", "transfer-encoding", "keep-alive", "date", "server"})


def scope(headers: Mapping[str, str], form: Mapping[str, str]) -> tuple[str, str]:
    """(region, service) that a request was signed for; EC2 or STS by its version when it is not signed."""
    found = _SCOPE.search(headers.get("authorization", ""))
    if found:
        return found[1], found[2]
    return "", "sts" if form.get("Version") == "2011-06-15" else "ec2"


class Moto:
    """Moto's backends, knowing the lab's VPC, subnets and security group by the ids that the rules use."""

    def __init__(self, region: str, subnets: Mapping[str, Subnet]) -> None:
        self._region = region
        self._subnets = subnets
        self._lock = threading.Lock()  # moto's backends are not made for threads
        self._stubber: Any = None

    @property
    def loaded(self) -> bool:
        """Whether anything was asked of moto yet."""
        return self._stubber is not None

    def handle(self, service: str, region: str, request: Request, body: bytes) -> Response:
        """Moto's answer to the request, with this body; raises Ec2Error when moto has none."""
        from botocore.awsrequest import AWSPreparedRequest
        from botocore.compat import HTTPHeaders

        url = f"https://{service}.{region or self._region}.amazonaws.com{request.path}"
        passed = HTTPHeaders()
        for name, value in request.headers.items():
            if name not in ("host", *_HOP):
                passed[name] = value
        with self._lock:
            if self._stubber is None:
                self._load()
            prepared = AWSPreparedRequest(request.method, url, passed, body, False)
            try:
                answer = self._stubber.process_request(prepared)
            except Exception as error:  # whatever moto trips over is an answer too
                log.debug("moto: %s %s", service, request.path, exc_info=True)
                if type(error).__name__ == "OperationNotFoundError":
                    raise Ec2Error("InvalidAction", f"{error} is not valid for this web service.") from error
                raise Ec2Error("InternalFailure", f"moto: {type(error).__name__}: {error}") from error
        if answer is None:
            raise Ec2Error("InvalidAction", f"Nobody plays the service {service} here.")
        status, answer_headers, content = answer
        kept = {str(name): str(value) for name, value in dict(answer_headers).items() if name.lower() not in _HOP}
        return Response(int(status), content.encode() if isinstance(content, str) else bytes(content), kept)

    def _load(self) -> None:
        from moto.core.botocore_stubber import BotocoreStubber
        from moto.ec2.models import ec2_backends

        seed_vpc(ec2_backends[ACCOUNT][self._region], self._subnets)
        self._stubber = BotocoreStubber()


def seed_vpc(backend: Any, subnets: Mapping[str, Subnet]) -> None:  # noqa: ANN401 - moto's EC2Backend
    """Give moto the network that the rules speak of; moto's own create calls would invent other ids."""
    models: Any = importlib.import_module("moto.ec2.models")  # untyped: moto calls its own classes abstract
    if VPC in backend.vpcs:
        backend.reset()  # of another region in this process, which is over: moto's backends are its globals
    first = ipaddress.IPv4Network(next(iter(subnets.values())).cidr)
    cidr = str(first.supernet(new_prefix=16) if first.prefixlen > 16 else first)
    vpc = models.vpcs.VPC(backend, VPC, cidr, is_default=False)
    vpc.add_tag("Name", SECURITY_GROUP_NAME)
    backend.vpcs[VPC] = vpc
    backend.create_route_table(VPC, main=True)
    backend.create_network_acl(VPC, default=True)
    zones = {
        zone.name: zone
        for region in models.availability_zones_and_regions.RegionsAndZonesBackend.zones.values()
        for zone in region
    }
    for subnet in subnets.values():
        if subnet.zone not in zones:
            continue
        made = models.subnets.Subnet(
            backend, subnet.id, VPC, subnet.cidr, None, zones[subnet.zone], default_for_az=False,
            map_public_ip_on_launch=False,
        )  # fmt: skip
        backend.subnets[subnet.zone][subnet.id] = made
        backend.associate_default_network_acl_with_subnet(subnet.id, VPC)
    group = models.security_groups.SecurityGroup(
        backend, SECURITY_GROUP, SECURITY_GROUP_NAME, "the lab's nodes among themselves", vpc_id=VPC
    )
    backend.groups[VPC][SECURITY_GROUP] = group
    # Protocol 112 is VRRP; the pair needs it, as its users' groups do.
    for protocol in ("112", "tcp", "icmp"):
        low, high = ("0", "65535") if protocol == "tcp" else ("-1", "-1")
        backend.authorize_security_group_ingress(SECURITY_GROUP, protocol, low, high, [{"CidrIp": cidr}], vpc_id=VPC)
