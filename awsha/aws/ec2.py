"""The one door to EC2: every request of awsha goes through `Ec2`, with a time-out, a typed error and a count.

A request makes one attempt. Only a read that EC2 throttles is tried again here (full-jitter exponential backoff, under
the deadline). A change is not: it was permitted by a second look a moment ago, and after a pause it needs a new one.
Every other failure is raised as Ec2Error, since a reply can be lost after the call took effect: the loop looks again.
"""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from awsha.aws import facts
from awsha.aws.call import CONNECT_TIMEOUT_S, CONNECTIONS, READ_TIMEOUT_S, Caller, Observer
from awsha.aws.errors import Ec2Error, Kind, out_of_time, reply_error
from awsha.aws.facts import Instance, NetworkInterface
from awsha.core.errors import AwshaError
from awsha.core.model import CloudFacts, InstanceFacts, InstanceState, Releasing, Unknown, VolumeFacts

P = ParamSpec("P")
T = TypeVar("T")

CALL_TIMEOUT_S = 10.0  # for one call with its tries against throttling
LOOK_TIMEOUT_S = 6.5  # longer than connect and read together, so that the reason of a failure is EC2's own
PAGES_MOST = 20
METADATA_S = 0.2  # it answers within a millisecond; a silent one must not hold up what EC2 said
_READERS = 12  # threads that look side by side; they are made when they are needed

# What the API answers when it does not know SkipOsShutdown (it came in 2025-07), or not for this instance.
_NO_SKIP = frozenset(
    {"UnknownParameter", "InvalidParameter", "InvalidParameterCombination", "InvalidParameterValue"}
    | {"UnsupportedOperation", "Unsupported"}
)


@dataclass(frozen=True, slots=True)
class Unassigned:
    """What an unassign did: `taken` left the interface, `absent` was not on it (any more)."""

    taken: frozenset[str]
    absent: frozenset[str]


class Ec2:
    """EC2 of one region. Thread-safe. The client is made at the first request (or by `warm`).

    `observer(action, seconds, "ok" or the error code)` is told of every request, from the thread that made it, and must
    be quick. `timeout_s` of a method bounds its tries; one request that was sent lasts at most both time-outs.
    `persist` of a change: an operator waits for it, no guard stands before it, so it is tried again like a read.
    """

    def __init__(
        self,
        region: str,
        *,
        observer: Observer | None = None,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
        connections: int = CONNECTIONS,
    ) -> None:
        self.region = region
        self._caller = Caller(
            region,
            observer=observer,
            connect_timeout_s=connect_timeout_s,
            read_timeout_s=read_timeout_s,
            connections=connections,
        )
        self._readers = ThreadPoolExecutor(_READERS, thread_name_prefix="ec2")

    @property
    def requests(self) -> Counter[str]:
        """How many requests were made, by action."""
        return self._caller.requests

    @property
    def throttled(self) -> int:
        """How many of them EC2 throttled."""
        return self._caller.throttled

    def warm(self, connections: int = 1, timeout_s: float = LOOK_TIMEOUT_S) -> AwshaError | None:
        """Load botocore, find credentials, and open `connections` connections, by a filter that matches nothing.

        Safe at any time, changes nothing. Returns what went wrong instead of raising it.
        """
        nothing = {"Filters": [{"Name": "volume-id", "Values": ["vol-00000000000000000"]}]}
        deadline = time.monotonic() + timeout_s
        jobs = [self._submit(self._caller.call, "DescribeVolumes", nothing, timeout_s) for _ in range(connections)]
        for job in jobs:
            answer = _answer(job, "DescribeVolumes", deadline)
            if isinstance(answer, AwshaError):
                return answer
        return None

    def close(self) -> None:
        """End backoffs, and close the connections. Requests that are under way end by their own time-outs."""
        self._caller.close()
        self._readers.shutdown(wait=False, cancel_futures=True)

    # --- looking ---------------------------------------------------------------------------------------------------

    def look(
        self,
        volume_ids: Collection[str],
        instance_ids: Collection[str],
        *,
        addresses: Callable[[], frozenset[str]] | None = None,
        timeout_s: float = LOOK_TIMEOUT_S,
    ) -> CloudFacts:
        """Read volumes, instances and, through `addresses`, instance metadata, side by side.

        A part that fails, or has no answer after `timeout_s`, is Unknown with the reason; so is metadata that has none
        METADATA_S after EC2 answered. An id that EC2 does not know is missing from its mapping. Never raises.
        """
        deadline = time.monotonic() + timeout_s
        volumes = self._submit(self.describe_volumes, volume_ids, timeout_s)
        instances = self._submit(self.describe_instances, instance_ids, timeout_s)
        metadata = self._submit(addresses) if addresses else None
        of_volumes = _part(volumes, "DescribeVolumes", deadline)
        of_instances = _part(instances, "DescribeInstances", deadline)
        if metadata is None:
            return CloudFacts(of_volumes, of_instances)
        of_metadata = _part(metadata, "instance metadata", min(deadline, time.monotonic() + METADATA_S))
        return CloudFacts(of_volumes, of_instances, of_metadata)

    def ask(self, action: str, params: Mapping[str, Any], timeout_s: float = CALL_TIMEOUT_S) -> dict[str, Any]:
        """One request in EC2's own words, for what has no method here. Raises Ec2Error."""
        return self._caller.call(action, dict(params), timeout_s)

    def describe_volumes(self, ids: Collection[str], timeout_s: float = CALL_TIMEOUT_S) -> dict[str, VolumeFacts]:
        """Volumes by id. An id that does not exist is left out. Raises Ec2Error."""
        return self._by_id("DescribeVolumes", "VolumeIds", "volume-id", ids, facts.volumes, timeout_s)

    def describe_instances(self, ids: Collection[str], timeout_s: float = CALL_TIMEOUT_S) -> dict[str, InstanceFacts]:
        """Instances by id. An id that does not exist is left out. Raises Ec2Error."""
        found = self._by_id("DescribeInstances", "InstanceIds", "instance-id", ids, facts.instances, timeout_s)
        return {instance_id: instance.facts for instance_id, instance in found.items()}

    def describe_interface(self, eni_id: str, timeout_s: float = CALL_TIMEOUT_S) -> NetworkInterface | None:
        """One ENI, None when it does not exist. Raises Ec2Error."""

        def read(reply: object) -> dict[str, NetworkInterface]:
            return {eni.id: eni for eni in facts.interfaces(reply)}

        action, name = "DescribeNetworkInterfaces", "network-interface-id"
        return self._by_id(action, "NetworkInterfaceIds", name, [eni_id], read, timeout_s).get(eni_id)

    def find_instances(
        self, addresses: Collection[str], timeout_s: float = CALL_TIMEOUT_S
    ) -> dict[str, tuple[Instance, ...]]:
        """Instances by primary private address; two VPCs of an account may use one address, so there may be several.

        Every address asked for is in the answer, with an empty tuple when no instance has it. Raises Ec2Error.
        """
        wanted = sorted(addresses)
        if not wanted:
            return {}
        params = {"Filters": [{"Name": "private-ip-address", "Values": wanted}]}
        found = facts.instances(self._pages("DescribeInstances", "Reservations", params, timeout_s)).values()
        return {address: tuple(item for item in found if address in item.facts.addresses) for address in wanted}

    def resolve_volume(self, tags: Mapping[str, str], timeout_s: float = CALL_TIMEOUT_S) -> str:
        """The id of the one volume that carries all of `tags`. Raises Ec2Error; AwshaError when there is not one."""
        params = {"Filters": tag_filters(tags)}
        found = facts.volumes(self._pages("DescribeVolumes", "Volumes", params, timeout_s))
        if len(found) == 1:
            return next(iter(found))
        asked = ", ".join(f"{key}={value}" for key, value in sorted(tags.items()))
        if not found:
            raise AwshaError(
                f"no volume in {self.region} has the tags {asked}",
                hint="compare with `aws ec2 describe-volumes`, or set id instead of tags in awsha.toml",
            )
        names = "; ".join(f"{item.id} ({item.state}, {item.zone})" for item in found.values())
        raise AwshaError(
            f"{len(found)} volumes have the tags {asked}: {names}",
            hint="set id in awsha.toml, or a tag that only one of them has",
        )

    # --- volumes ---------------------------------------------------------------------------------------------------

    def attach(self, volume_id: str, instance_id: str, device: str, timeout_s: float = CALL_TIMEOUT_S) -> VolumeFacts:
        """AttachVolume. Returns what the reply says (`attaching`); only id, state and this attachment are known of it.

        Raises Ec2Error: STATE when the volume is not free (it may be ours by a lost reply: look), NAME_TAKEN, ZONE,
        LIMIT and the rest.
        """
        params = {"VolumeId": volume_id, "InstanceId": instance_id, "Device": device}
        reply = self._caller.call("AttachVolume", params, timeout_s, once=True)
        return facts.attachment_reply(reply, "AttachVolume")

    def detach(
        self,
        volume_id: str,
        instance_id: str,
        *,
        force: bool = False,
        persist: bool = False,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> VolumeFacts | None:
        """DetachVolume from one instance. None when it was not attached there: that is done already (EC2.md).

        Otherwise what the reply says (`detaching`). `force` flushes nothing: a last resort. Raises Ec2Error.
        """
        params = {"VolumeId": volume_id, "InstanceId": instance_id} | ({"Force": True} if force else {})
        try:
            reply = self._caller.call("DetachVolume", params, timeout_s, once=not persist)
        except Ec2Error as error:
            if error.kind is Kind.NOT_HELD or error.code == "IncorrectState":
                return None
            raise
        return facts.attachment_reply(reply, "DetachVolume")

    def tag_releasing(
        self, volume_id: str, node: str, at_wall: float, why: str = "", timeout_s: float = CALL_TIMEOUT_S
    ) -> None:
        """Tell the peer that `node` began to release the volume, at `at_wall` by its own clock. Raises Ec2Error."""
        self._tell(volume_id, facts.releasing_value(node, at_wall, why), timeout_s)

    def tag_serving(self, volume_id: str, node: str, at_wall: float, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Tell the node that switched over, in the place of its releasing tag, that `node` serves. Raises Ec2Error."""
        self._tell(volume_id, facts.serving_value(node, at_wall), timeout_s)

    def _tell(self, volume_id: str, value: str, timeout_s: float) -> None:
        tag = {"Key": facts.RELEASING_TAG, "Value": value}
        self._caller.call("CreateTags", {"Resources": [volume_id], "Tags": [tag]}, timeout_s, once=True)

    def clear_releasing(self, volume_id: str, only: Releasing | None = None, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Remove the releasing tag. With `only`, EC2 removes it only while it has that value. Raises Ec2Error."""
        tag = {"Key": facts.RELEASING_TAG}
        if only is not None:
            tag["Value"] = facts.releasing_value(only.node, only.at_wall, only.why)
        self._caller.call("DeleteTags", {"Resources": [volume_id], "Tags": [tag]}, timeout_s, once=True)

    # --- addresses -------------------------------------------------------------------------------------------------

    def assign(self, eni_id: str, addresses: Iterable[str], timeout_s: float = CALL_TIMEOUT_S) -> frozenset[str]:
        """Take secondary addresses to `eni_id`, from whichever ENI of the subnet has them, in one call.

        Returns the addresses that the reply names. It is asynchronous: confirmed by DescribeInstances or instance
        metadata. Raises Ec2Error.
        """
        params = {"NetworkInterfaceId": eni_id, "PrivateIpAddresses": sorted(addresses), "AllowReassignment": True}
        return facts.assigned(self._caller.call("AssignPrivateIpAddresses", params, timeout_s, once=True))

    def unassign(self, eni_id: str, addresses: Iterable[str], timeout_s: float = CALL_TIMEOUT_S) -> Unassigned:
        """Take addresses off `eni_id`, in one call. Never takes one from another ENI.

        EC2 refuses the whole call when one of them is no longer there; then what the ENI still has is taken, and if
        that is refused too (a view of the ENI lags), one at a time, where the refusal is about that address alone.
        Raises Ec2Error.
        """
        wanted = frozenset(addresses)
        deadline = time.monotonic() + timeout_s
        if self._unassign(eni_id, wanted, timeout_s):
            return Unassigned(wanted, frozenset())
        if len(wanted) == 1:
            return Unassigned(frozenset(), wanted)
        interface = self.describe_interface(eni_id, deadline - time.monotonic())
        present = wanted & (interface.addresses if interface else frozenset())
        if present != wanted and (not present or self._unassign(eni_id, present, deadline - time.monotonic())):
            return Unassigned(present, wanted - present)
        taken = {item for item in wanted if self._unassign(eni_id, frozenset({item}), deadline - time.monotonic())}
        return Unassigned(frozenset(taken), wanted - taken)

    def _unassign(self, eni_id: str, addresses: frozenset[str], timeout_s: float) -> bool:
        """One call. False when EC2 says that an address is not on this ENI."""
        params = {"NetworkInterfaceId": eni_id, "PrivateIpAddresses": sorted(addresses)}
        try:
            self._caller.call("UnassignPrivateIpAddresses", params, timeout_s, once=True)
        except Ec2Error as error:
            if error.kind is Kind.NOT_HELD:
                return False
            raise
        return True

    # --- instances -------------------------------------------------------------------------------------------------

    def stop_instance(
        self, instance_id: str, *, persist: bool = False, timeout_s: float = CALL_TIMEOUT_S
    ) -> InstanceState:
        """StopInstances with Force and SkipOsShutdown; without the latter where the API refuses it.

        Returns the state that the reply names, usually `stopping`. Raises Ec2Error.
        """
        params = {"InstanceIds": [instance_id], "Force": True}
        deadline = time.monotonic() + timeout_s
        try:
            reply = self._caller.call("StopInstances", params | {"SkipOsShutdown": True}, timeout_s, once=not persist)
        except Ec2Error as error:
            if error.code not in _NO_SKIP:
                raise
            reply = self._caller.call("StopInstances", params, deadline - time.monotonic(), once=not persist)
        return facts.stopping_state(reply, instance_id)

    # --- how they ask ----------------------------------------------------------------------------------------------

    def _by_id(  # noqa: PLR0917 - a row of a table
        self,
        action: str,
        key: str,
        filter_name: str,
        ids: Collection[str],
        read: Callable[[object], dict[str, T]],
        timeout_s: float,
    ) -> dict[str, T]:
        """Describe by id. EC2 refuses the whole call for one id that it does not know.

        Then ask by filter, which leaves that one out: a second call, and only while something is missing. An answer to
        ids that leaves one out without a word is none: an instance that is not there is taken for a dead one.
        """
        wanted = sorted(ids)
        if not wanted:
            return {}
        deadline = time.monotonic() + timeout_s
        try:
            found = read(self._caller.call(action, {key: wanted}, timeout_s))
        except Ec2Error as error:
            if len(wanted) == 1 and error.kind is Kind.NOT_FOUND:
                return {}
            # INVALID: an id of the wrong form, which must not hide the others either.
            if len(wanted) == 1 or error.kind not in (Kind.NOT_FOUND, Kind.INVALID):
                raise
            by_filter = {"Filters": [{"Name": filter_name, "Values": wanted}]}
            return read(self._caller.call(action, by_filter, deadline - time.monotonic()))
        if missing := [each for each in wanted if each not in found]:
            raise reply_error(action, f"{', '.join(missing)} is neither described nor refused")
        return found

    def _pages(self, action: str, key: str, params: dict[str, Any], timeout_s: float) -> dict[str, Any]:
        """All pages of a filtered describe, as one reply."""
        deadline = time.monotonic() + timeout_s
        records: list[Any] = []
        token = ""
        for _ in range(PAGES_MOST):
            more = {"NextToken": token} if token else {}
            reply = self._caller.call(action, params | more, deadline - time.monotonic())
            found = reply.get(key)
            records += found if isinstance(found, list) else []
            token = facts.next_token(reply)
            if not token:
                break
        return {key: records}

    def _submit(self, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Start work in a reader thread, in this thread's context: the observer may want to know for whom it is.

        After `close` it is a job that was cancelled.
        """
        try:
            context = copy_context()
            return self._readers.submit(lambda: context.run(work, *args, **kwargs))
        except RuntimeError:
            refused: Future[T] = Future()
            refused.cancel()
            return refused


def _answer(job: Future[T], action: str, deadline: float) -> T | AwshaError:
    """The result of a job, or what went wrong, at `deadline` at the latest."""
    try:
        return job.result(max(0.0, deadline - time.monotonic()))
    except TimeoutError:
        job.cancel()
        return out_of_time(action, "no answer in time")
    except CancelledError:
        return out_of_time(action, "awsha is stopping")
    except AwshaError as error:
        return error


def _part(job: Future[T], action: str, deadline: float) -> T | Unknown:
    answer = _answer(job, action, deadline)
    return Unknown(answer.message) if isinstance(answer, AwshaError) else answer


def tag_filters(tags: Mapping[str, str]) -> list[dict[str, Any]]:
    """EC2's filters for what carries all of these tags."""
    return [{"Name": f"tag:{key}", "Values": [_literal(value)]} for key, value in sorted(tags.items())]


def _literal(value: str) -> str:
    """A filter value that matches itself only: `*` and `?` are wildcards in EC2's filters."""
    return re.sub(r"([*?\\])", r"\\\1", value)
