"""What each node's role may do: the part of IAM's language that awsha's own policy speaks, and EC2's refusal.

A node begins with what `awsha iam-policy` grants for the lab's configuration. Whoever is no node (a tool on this
machine) may do everything, and so may a node of a region without policies.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from awsha.aws.permissions import Document, Scope, actions, document
from awsha.core.errors import AwshaError
from awsha.core.policy import Fence
from awsha.lab.metadata_tree import ROLE
from awsha.lab.records import ACCOUNT, Ec2Error, Params
from awsha.lab.settings import REGION

if TYPE_CHECKING:
    from awsha.lab.pair import Pair

_KINDS = {"vol-": "volume", "i-": "instance", "eni-": "network-interface"}
_SINGLE, _MANY = ("VolumeId", "InstanceId", "NetworkInterfaceId"), ("Resources", "InstanceIds")
Context = Mapping[str, tuple[str, ...]]


def lab_document(pair: Pair) -> Document:
    """What `awsha iam-policy` prints in this lab, as it is configured now."""
    return document(
        Scope(
            volumes=tuple(volume.id for group in pair.groups for volume in group.volumes),
            instances=tuple(node.instance_id for node in pair.specs),
            interfaces=tuple(node.eni_id for node in pair.specs),
            fence=pair.shape.fence != Fence.FORCE_DETACH,
            region=REGION,
            account=ACCOUNT,
        )
    )


class Roles:
    """The policy of each instance. Thread-safe."""

    def __init__(self, region: str, given: Callable[[], Document]) -> None:
        """`given` gives every instance's policy until another is set."""
        self._region = region
        self._given = given
        self._own: dict[str, Document] = {}
        self._lock = threading.Lock()

    def of(self, instance_id: str) -> Document:
        """The policy in force for an instance."""
        with self._lock:
            return self._own.get(instance_id) or self._given()

    def set(self, instance_id: str, policy: Document | None) -> None:
        """Another policy from now on; None: the one that all begin with. Raises AwshaError for what is not played."""
        for statement in (policy or {}).get("Statement", ()):
            if statement.get("Effect") != "Allow" or set(statement) - {*_PARTS}:
                raise AwshaError("the lab plays Allow statements with Action, Resource and Condition only")
            for test in statement.get("Condition", {}):
                if test not in _TESTS:
                    raise AwshaError(
                        f"the lab does not play the condition {test}", hint=f"it plays: {', '.join(_TESTS)}"
                    )
        with self._lock:
            self._own.pop(instance_id, None)
            if policy is not None:
                self._own[instance_id] = policy

    def authorize(self, caller: str | None, action: str, params: Params) -> None:
        """Nothing when the caller may; raises Ec2Error (UnauthorizedOperation) when its policy does not allow it.

        `action`: of EC2, or `sns:Publish` and the like with its TopicArn.
        """
        if caller is None:
            return
        full = action if ":" in action else f"ec2:{action}"
        policy = self.of(caller)
        keys = tuple(tag.get("Key", "") for tag in params.get("Tags") or () if isinstance(tag, dict))
        context = {"aws:RequestedRegion": (self._region,), "aws:TagKeys": keys}
        for resource in self._resources(action, params):
            if not any(_allows(statement, action, resource, context) for statement in policy["Statement"]):
                raise Ec2Error(
                    "UnauthorizedOperation" if full.startswith("ec2:") else "AuthorizationError",
                    f"You are not authorized to perform this operation. User: arn:aws:sts::{ACCOUNT}:assumed-role/"
                    f"{ROLE}/{caller} is not authorized to perform: {full} on resource: {resource} because no "
                    f"identity-based policy allows the {full} action",
                )

    def _resources(self, action: str, params: Params) -> list[str]:
        """The ARNs that an action touches; Describe actions, and those that name none of ours, touch `*`."""
        if action.startswith("Describe"):
            return ["*"]
        if ":" in action:
            return [str(params.get("TopicArn", "*"))]
        ids = [params[key] for key in _SINGLE if params.get(key)]
        ids += [name for key in _MANY for name in params.get(key) or ()]
        known = ((kind, name) for name in ids for prefix, kind in _KINDS.items() if name.startswith(prefix))
        return [f"arn:aws:ec2:{self._region}:{ACCOUNT}:{kind}/{name}" for kind, name in known] or ["*"]


def without(policy: Document, refused: Iterable[str]) -> Document:
    """A policy without some EC2 actions. Raises AwshaError for one that it does not grant."""
    gone = {f"ec2:{action}" for action in refused}
    if strange := gone - {f"ec2:{action}" for action in actions(policy)}:
        raise AwshaError(f"the policy does not grant {', '.join(sorted(strange))}")
    left = [{**s, "Action": [a for a in s["Action"] if a not in gone]} for s in policy["Statement"]]
    return {**policy, "Statement": [statement for statement in left if statement["Action"]]}


def _allows(statement: Document, action: str, resource: str, context: Context) -> bool:
    full = action if ":" in action else f"ec2:{action}"
    return (
        any(fnmatchcase(full, wanted) for wanted in _listed(statement["Action"]))
        and any(wanted == "*" or fnmatchcase(resource, wanted) for wanted in _listed(statement["Resource"]))
        and all(
            _TESTS[test](context.get(key, ()), _listed(values))
            for test, operands in statement.get("Condition", {}).items()
            for key, values in operands.items()
        )
    )


def _listed(value: Any) -> list[str]:  # noqa: ANN401 - IAM takes one text or a list
    return [value] if isinstance(value, str) else list(value)


def meant(value: str) -> str | None:
    """What a condition's value means: `${*}`, `${?}` and `${$}` are those signs; None where another variable is in it,
    which has no value here (IAM user guide, "Variables and tags")."""
    spelled = re.split(r"\$\{([^}]*)\}", value)
    if any(name not in ("*", "?", "$") for name in spelled[1::2]):
        return None
    return "".join(spelled)


_PARTS = ("Sid", "Effect", "Action", "Resource", "Condition")
_TESTS: dict[str, Callable[[tuple[str, ...], list[str]], bool]] = {
    "StringEquals": lambda found, wanted: any(value in [meant(word) for word in wanted] for value in found),
    "ForAllValues:StringEquals": lambda found, wanted: all(value in wanted for value in found),
    "Null": lambda found, wanted: (not found) == (wanted == ["true"]),
}
