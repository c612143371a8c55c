"""Instance metadata, version 2 only, on the standard library: one kept connection, one cached token.

AWS: "Use the Instance Metadata Service to access instance metadata". It is link-local, so a refused or missing answer
means that it is off, or that this is not EC2. Never asked when AWS_EC2_METADATA_DISABLED is true.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import socket
import threading
import time
from collections.abc import Mapping
from enum import StrEnum
from urllib.parse import urlsplit

from awsha.aws.discreet import harmless
from awsha.core.errors import AwshaError

DEFAULT_ENDPOINT = "http://169.254.169.254"
DEFAULT_ENDPOINT_IPV6 = "http://[fd00:ec2::254]"
CONNECT_TIMEOUT_S = 1.0
READ_TIMEOUT_S = 2.0
TURN_S = 0.5  # one question at a time: the next one waits so long for its turn, so that silence piles up no threads
TOKEN_TTL_S = 21600  # the longest that AWS allows
_TOKEN_MARGIN_S = 60.0
_BODY_LIMIT = 256 * 1024

_MAC = re.compile(r"([0-9a-f]{2}:){5}[0-9a-f]{2}")
_ENI = re.compile(r"eni-[0-9a-f]+")


class MetadataKind(StrEnum):
    """Why instance metadata gave no answer."""

    DISABLED = "disabled"  # by AWS_EC2_METADATA_DISABLED
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    REFUSED = "refused"  # 403: the service is off for this instance
    NOT_FOUND = "not-found"
    SERVER = "server"  # 5xx, 429
    REPLY = "reply"  # an answer that cannot be understood


_HINTS = {
    MetadataKind.DISABLED: "AWS_EC2_METADATA_DISABLED is set; give region and every instance_id in awsha.toml",
    MetadataKind.UNREACHABLE: "on EC2: enable instance metadata (`aws ec2 modify-instance-metadata-options "
    "--http-endpoint enabled`) and keep its link-local route; elsewhere: set region and instance_id in awsha.toml",
    MetadataKind.TIMEOUT: "inside a container the answer may die at the hop limit: `aws ec2 "
    "modify-instance-metadata-options --http-put-response-hop-limit 2`; otherwise look for a firewall rule",
    MetadataKind.REFUSED: "it is off: `aws ec2 modify-instance-metadata-options --http-endpoint enabled`",
    MetadataKind.NOT_FOUND: "this instance has no such item: compare the interface's MAC address with EC2's",
    MetadataKind.SERVER: "the metadata service is overloaded; it is asked again at the next look",
    MetadataKind.REPLY: "check what answers there (AWS_EC2_METADATA_SERVICE_ENDPOINT?)",
}


class MetadataError(AwshaError):
    """A question to instance metadata that had no answer. `kind` says why."""

    def __init__(self, kind: MetadataKind, message: str) -> None:
        super().__init__(f"instance metadata: {harmless(message)}", hint=_HINTS[kind])
        self.kind = kind


class Metadata:
    """The metadata of this instance. Thread-safe. What never changes while an instance runs is asked once.

    A question lasts at most about 7 s (connect 1 s, then 2 s of silence for a token and for the item, and once again
    when the kept connection turns out to be dead). Every method raises MetadataError.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        env = os.environ if environ is None else environ
        self._disabled = env.get("AWS_EC2_METADATA_DISABLED", "").strip().lower() == "true"
        ipv6 = env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE", "").strip().lower() == "ipv6"
        default = DEFAULT_ENDPOINT_IPV6 if ipv6 else DEFAULT_ENDPOINT
        self.endpoint = (env.get("AWS_EC2_METADATA_SERVICE_ENDPOINT", "").strip() or default).rstrip("/")
        self._connect_timeout_s = connect_timeout_s
        self._read_timeout_s = read_timeout_s
        self._lock = threading.Lock()
        self._connection: http.client.HTTPConnection | None = None
        self._token = ""
        self._token_until = 0.0
        self._document: Mapping[str, str] | None = None
        self._enis: dict[str, str] = {}

    def document(self) -> Mapping[str, str]:
        """The instance identity document: its entries that are texts (instanceId, region, availabilityZone, …)."""
        if self._document is None:
            text = self.get("dynamic/instance-identity/document")
            try:
                parsed = json.loads(text)
            except (ValueError, RecursionError):
                parsed = None
            if not isinstance(parsed, dict):
                raise MetadataError(MetadataKind.REPLY, "the identity document is not a JSON object")
            self._document = {key: value for key, value in parsed.items() if isinstance(value, str)}
        return self._document

    def instance_id(self) -> str:
        """This instance's id."""
        return self._entry("instanceId")

    def region(self) -> str:
        """The region, such as eu-west-1."""
        return self._entry("region")

    def zone(self) -> str:
        """The availability zone, such as eu-west-1a."""
        return self._entry("availabilityZone")

    def macs(self) -> tuple[str, ...]:
        """The MAC addresses of this instance's ENIs, in lower case."""
        lines = (line.rstrip("/").lower() for line in self.get("meta-data/network/interfaces/macs/").split())
        return tuple(line for line in lines if _MAC.fullmatch(line))

    def eni_id(self, mac: str) -> str:
        """The id of the ENI with this MAC address."""
        key = _mac(mac)
        if key not in self._enis:
            text = self.get(f"meta-data/network/interfaces/macs/{key}/interface-id").strip()
            if not _ENI.fullmatch(text):
                raise MetadataError(MetadataKind.REPLY, f"{text[:40]!r} is not the id of a network interface")
            self._enis[key] = text
        return self._enis[key]

    def local_ipv4s(self, mac: str) -> frozenset[str]:
        """The private IPv4 addresses of the ENI, as metadata has them: AWS's own confirmation of an assign."""
        lines = self.get(f"meta-data/network/interfaces/macs/{_mac(mac)}/local-ipv4s").split()
        wrong = [line for line in lines if not _is_ipv4(line)]
        if wrong:
            raise MetadataError(MetadataKind.REPLY, f"{wrong[0][:40]!r} is not an IPv4 address")
        return frozenset(lines)

    def get(self, path: str) -> str:
        """The text at `path` below /latest/. A token that is refused (401) is fetched anew, once."""
        if self._disabled:
            raise MetadataError(MetadataKind.DISABLED, "disabled by the environment")
        if not self._lock.acquire(timeout=TURN_S):
            raise MetadataError(MetadataKind.TIMEOUT, f"{path}: {self.endpoint} still owes an earlier answer")
        try:
            for _ in range(2):
                token = self._fresh_token()
                status, text = self._ask("GET", path, {"X-aws-ec2-metadata-token": token})
                if status != 401:
                    return self._checked(status, text, path)
                self._token = ""
            raise MetadataError(MetadataKind.REFUSED, f"{path}: a fresh token is refused (401)")
        finally:
            self._lock.release()

    def close(self) -> None:
        """Close the kept connection; the next question opens another one."""
        with self._lock:
            self._drop()

    def _entry(self, key: str) -> str:
        value = self.document().get(key, "")
        if not value:
            raise MetadataError(MetadataKind.REPLY, f"the identity document has no {key}")
        return value

    def _fresh_token(self) -> str:
        if not self._token or time.monotonic() >= self._token_until:
            asked = time.monotonic()
            seconds = {"X-aws-ec2-metadata-token-ttl-seconds": str(TOKEN_TTL_S)}
            status, text = self._ask("PUT", "api/token", seconds)
            self._token = self._checked(status, text, "api/token").strip()
            if not self._token.isascii() or not self._token.isprintable() or not self._token:
                self._token = ""
                raise MetadataError(MetadataKind.REPLY, "the token is not a token")
            self._token_until = asked + TOKEN_TTL_S - _TOKEN_MARGIN_S
        return self._token

    def _checked(self, status: int, text: str, path: str) -> str:
        if status == 200:
            return text
        kinds = {401: MetadataKind.REFUSED, 403: MetadataKind.REFUSED, 404: MetadataKind.NOT_FOUND}
        busy = status >= 500 or status == 429
        kind = kinds.get(status, MetadataKind.SERVER if busy else MetadataKind.REPLY)
        raise MetadataError(kind, f"{path}: HTTP {status}")

    def _ask(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        """One exchange; a kept connection that turns out to be closed is opened again, once."""
        kept = self._connection is not None
        try:
            return self._exchange(method, path, headers)
        except (ConnectionError, http.client.HTTPException) as error:
            self._drop()
            if not kept:
                raise self._failure(error, path) from error
        except OSError as error:
            self._drop()
            raise self._failure(error, path) from error
        try:
            return self._exchange(method, path, headers)
        except (OSError, http.client.HTTPException) as error:
            self._drop()
            raise self._failure(error, path) from error

    def _exchange(self, method: str, path: str, headers: dict[str, str]) -> tuple[int, str]:
        base, connection = self._connected()
        connection.request(method, f"{base}/latest/{path}", headers=headers)
        response = connection.getresponse()
        body = response.read(_BODY_LIMIT + 1)
        if len(body) > _BODY_LIMIT:
            self._drop()
            raise MetadataError(MetadataKind.REPLY, f"{path}: the answer is too long")
        return response.status, body.decode("utf-8", "replace")

    def _connected(self) -> tuple[str, http.client.HTTPConnection]:
        """The path prefix of the endpoint, and an open connection to it."""
        parts = urlsplit(self.endpoint)
        try:
            port = parts.port or 80
        except ValueError:
            port = 0
        if parts.scheme != "http" or not parts.hostname or not port:
            raise MetadataError(MetadataKind.UNREACHABLE, f"{self.endpoint!r} is not an http:// address")
        if self._connection is None:
            # No proxy, whatever the environment says: the address is link-local.
            connection = http.client.HTTPConnection(parts.hostname, port, timeout=self._connect_timeout_s)
            connection.connect()
            connection.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sock.settimeout(self._read_timeout_s)
            connection.auto_open = 0
            self._connection = connection
        return parts.path, self._connection

    def _failure(self, error: Exception, path: str) -> MetadataError:
        if isinstance(error, TimeoutError):
            return MetadataError(MetadataKind.TIMEOUT, f"{path}: no answer from {self.endpoint} in time")
        text = str(error) or type(error).__name__
        return MetadataError(MetadataKind.UNREACHABLE, f"{path}: {self.endpoint}: {text}")

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _mac(mac: str) -> str:
    text = mac.lower()
    if not _MAC.fullmatch(text):
        raise MetadataError(MetadataKind.NOT_FOUND, f"{mac[:40]!r} is not a MAC address")
    return text


def _is_ipv4(text: str) -> bool:
    try:
        socket.inet_pton(socket.AF_INET, text)
    except OSError:
        return False
    return True
