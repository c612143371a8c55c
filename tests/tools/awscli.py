"""Whether an `aws …` command names what exists, by botocore's model of the API: operation, parameters, members."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache

import botocore.session
from botocore import xform_name
from botocore.model import OperationModel, ServiceModel, Shape

COMMAND = re.compile(r"\baws (?:ec2|iam|ssm|kms) [a-z][^`;|)]*")
GLOBAL = {"--query", "--output", "--region"}
# What the AWS CLI fills in by itself: one instance. It flattens booleans too, but leaves them their names.
FILLED_IN = {("ec2", "run-instances"): {"MinCount", "MaxCount"}}


def commands(line: str) -> list[str]:
    """The aws commands in one line of shell or prose."""
    return [re.split(r" \(|, or |\. ", found)[0].rstrip(" .,:") for found in COMMAND.findall(line)]


def mistakes(command: str, *, whole: bool = True) -> Iterator[str]:
    """What a command names and AWS does not have; with `whole`, also what it leaves out and AWS requires."""
    words = shlex.split(command)
    _, service, operation, *rest = words
    if operation == "wait":
        waiter, *rest = rest
        config = _session().get_waiter_model(service)
        waiters = {xform_name(name, "-"): config.get_waiter(name).operation for name in config.waiter_names}
        if waiter not in waiters:
            yield f"{service} has no waiter {waiter}"
            return
        name = waiters[waiter]
    else:
        names = {xform_name(name, "-"): name for name in _model(service).operation_names}
        if operation not in names:
            yield f"{service} has no {operation}"
            return
        name = names[operation]
    yield from _parameters(_model(service).operation_model(name), service, operation, rest, whole)


def _parameters(model: OperationModel, service: str, operation: str, words: list[str], whole: bool) -> Iterator[str]:
    shapes = dict(model.input_shape.members) if model.input_shape else {}
    members = {f"--{xform_name(name, '-')}": name for name in shapes}
    given: set[str] = set()
    current: Shape | None = None
    for word in words:
        if word.startswith("--"):
            flag = word if word in members else word.replace("--no-", "--", 1)
            current = None
            if flag in members:
                given.add(members[flag])
                current = shapes[members[flag]]
            elif word not in GLOBAL:
                yield f"{service} {operation} has no {word}"
        elif current is not None and current.type_name in ("structure", "list"):
            known = set(_inside(current))
            for name in re.findall(r"(\w+)=", word):
                if known and name not in known:
                    yield f"{service} {operation}: {current.name} has no {name}"
    required = set(model.input_shape.required_members) if model.input_shape else set()
    for name in sorted(required - given - FILLED_IN.get((service, operation), set())) if whole else ():
        yield f"{service} {operation} needs --{xform_name(name, '-')}"


def _inside(shape: Shape, depth: int = 6) -> Iterator[str]:
    """The names of all members at any depth."""
    if depth and shape.type_name == "list":
        yield from _inside(shape.member, depth - 1)
    elif depth and shape.type_name == "structure":
        for name, member in shape.members.items():
            yield name
            yield from _inside(member, depth - 1)


@lru_cache(maxsize=1)
def _session() -> botocore.session.Session:
    return botocore.session.Session()


@lru_cache
def _model(service: str) -> ServiceModel:
    return _session().get_service_model(service)
