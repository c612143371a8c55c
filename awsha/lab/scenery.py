"""What a test may change in the lab's EC2 beyond faults: roles, what Describe shows, the clock; and what was asked."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from awsha.core.errors import AwshaError
from awsha.lab.iam import Roles, without
from awsha.lab.records import Reply

if TYPE_CHECKING:
    from awsha.lab.endpoint import Endpoint
    from awsha.lab.pair import Pair


class Scenery:
    """Requests `iam`, `overlay`, `clock` and `requests` of the control socket."""

    def __init__(self, pair: Pair, roles: Roles) -> None:
        """Everything is as it should be."""
        self._pair = pair
        self.roles = roles
        self.ahead_s = 0.0  # of EC2's Date
        self._overlays: dict[str, dict[str, Any]] = {}  # resource id -> members of its items
        self._endpoint: Endpoint | None = None

    def install(self, endpoint: Endpoint) -> None:
        """Have an endpoint follow this."""
        self._endpoint = endpoint
        endpoint.authorize = self.roles.authorize
        endpoint.alter = self.alter
        endpoint.ahead_s = lambda: self.ahead_s

    def handlers(self) -> dict[str, Callable[[dict[str, Any]], Any]]:
        """The requests that this serves."""
        return {"iam": self.iam, "overlay": self.overlay, "clock": self.clock, "requests": self.requests}

    def iam(self, request: dict[str, Any]) -> Any:  # noqa: ANN401 - a policy document
        """The policy of `node`: `document`, or the lab's `without` some actions; neither: the lab's. Returns it."""
        instance_id = self._pair.node(request.get("node")).spec.instance_id
        policy = request.get("document")
        if policy is None and request.get("without"):
            self.roles.set(instance_id, None)
            policy = without(self.roles.of(instance_id), request["without"])
        self.roles.set(instance_id, policy)
        return self.roles.of(instance_id)

    def overlay(self, request: dict[str, Any]) -> str:
        """What Describe shows of resource `id` from now on: `values` over its items; none: the truth again."""
        name, values = str(request.get("id")), request.get("values")
        if values:
            self._overlays[name] = dict(values)
        else:
            self._overlays.pop(name, None)
        return f"{name}: {values or 'as it is'}"

    def clock(self, request: dict[str, Any]) -> str:
        """EC2's Date, `ahead_s` seconds ahead of this machine's clock."""
        self.ahead_s = float(request.get("ahead_s", 0.0))
        return f"EC2's clock is {self.ahead_s:g} s ahead"

    def requests(self, request: dict[str, Any]) -> list[tuple[str, str | None, str]]:
        """(action, calling instance, error code or "") of the requests since region time `since`, at most 10,000."""
        if self._endpoint is None:
            raise AwshaError("no endpoint serves")
        since = float(request.get("since", 0.0))
        return [(r.action, r.caller, r.code) for r in list(self._endpoint.requests) if r.time >= since]

    def alter(self, reply: Reply) -> Reply:
        """A Describe reply with the overlays laid over it. Items are shared by replies: what changes is a copy."""
        if not self._overlays:
            return reply
        altered = copy.deepcopy(reply)
        self._lay_over(altered)
        return altered

    def _lay_over(self, value: Any) -> None:  # noqa: ANN401 - any part of a reply
        if isinstance(value, list):
            for item in value:
                self._lay_over(item)
        elif isinstance(value, dict):
            for key in ("VolumeId", "InstanceId", "NetworkInterfaceId"):
                if values := self._overlays.get(str(value.get(key))):
                    _merge(value, values)
            for item in value.values():
                self._lay_over(item)


def _merge(item: dict[str, Any], values: dict[str, Any]) -> None:
    """Only members that the item has: an attachment that names a volume is not that volume."""
    for key, value in values.items():
        if key not in item:
            continue
        if isinstance(value, dict) and isinstance(item[key], dict):
            item[key] = {**item[key], **value}
        else:
            item[key] = copy.deepcopy(value)
