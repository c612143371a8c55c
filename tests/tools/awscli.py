"""Whether an `aws …` command names what exists, by botocore's model of the API: operation, parameters, members."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import botocore.session
from botocore import xform_name
from botocore.model import OperationModel, ServiceModel, Shape

ROOT = Path(__file__).parents[2]
COMMAND = re.compile(r"\baws (?:ec2|iam|ssm|kms|s3|cloudformation|deploy|sns|cloudwatch) [a-z][^`;|&)]*")
GLOBAL = {"--query", "--output", "--region"}
# What the AWS CLI fills in by itself: one instance. It flattens booleans too, but leaves them their names.
# What the AWS CLI has beside the API's own operations: its options, and how many words stand without one.
# https://docs.aws.amazon.com/cli/latest/reference/cloudformation/deploy/, …/s3/cp.html, …/s3/presign.html
CUSTOM = {
    ("cloudformation", "deploy"): (
        {"--template-file", "--stack-name", "--capabilities", "--parameter-overrides", "--s3-bucket", "--tags"}, 0,
        {"--template-file", "--stack-name"},
    ),
    ("deploy", "push"): ({"--application-name", "--source", "--s3-location"}, 0, {"--source", "--s3-location"}),
    ("s3", "cp"): ({"--recursive", "--expected-size", "--sse"}, 2, set()),
    ("s3", "presign"): ({"--expires-in"}, 1, set()),
}  # fmt: skip
# Flags that the CLI names otherwise than the API: .../reference/sns/subscribe.html, .../deploy/create-deployment.html
NAMED = {
    ("sns", "subscribe"): {"--notification-endpoint": "Endpoint"},
    ("deploy", "create-deployment"): {"--s3-location": "revision"},
}
FILLED_IN = {("ec2", "run-instances"): {"MinCount", "MaxCount"}}


def commands(line: str) -> list[str]:
    """The aws commands in one line of shell or prose."""
    return [re.split(r" \(|, or |\. ", found)[0].rstrip(" .,:") for found in COMMAND.findall(line)]


def mistakes(command: str, *, whole: bool = True) -> Iterator[str]:
    """What a command names and AWS does not have; with `whole`, also what it leaves out and AWS requires."""
    words = shlex.split(command)
    _, service, operation, *rest = words
    if service == "s3" or (service, operation) in CUSTOM:
        yield from _custom(service, operation, rest, whole)
        return
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


def _custom(service: str, operation: str, words: list[str], whole: bool) -> Iterator[str]:
    """A command that is the CLI's own; a template that it names must be there, and have the parameters."""
    if (service, operation) not in CUSTOM:
        yield f"{service} has no {operation}"
        return
    known, plain, required = CUSTOM[service, operation]
    given = [word for word in words if word.startswith("--")]
    values = words[: words.index(given[0])] if given else words
    yield from (f"{service} {operation} has no {word}" for word in given if word not in known | GLOBAL)
    if whole:
        yield from (f"{service} {operation} needs {word}" for word in sorted(required - set(given)))
        if len(values) != plain:
            yield f"{service} {operation} takes {plain} words, not {len(values)}"
    if "--template-file" in given:
        file = ROOT / words[words.index("--template-file") + 1]
        template = file.read_text(encoding="utf-8") if file.exists() else ""
        parameters = template.partition("\nParameters:\n")[2].partition("\nResources:")[0]
        names = {name for word in words if not word.startswith("--") for name in re.findall(r"^(\w+)=", word)}
        if not template:
            yield f"there is no {file}"
        yield from (f"{file.name} has no {name}" for name in sorted(names) if f"\n  {name}:" not in f"\n{parameters}")


def _parameters(model: OperationModel, service: str, operation: str, words: list[str], whole: bool) -> Iterator[str]:
    shapes = dict(model.input_shape.members) if model.input_shape else {}
    members = {f"--{xform_name(name, '-')}": name for name in shapes} | NAMED.get((service, operation), {})
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
    return _session().get_service_model({"deploy": "codedeploy"}.get(service, service))  # the CLI's name, the API's
