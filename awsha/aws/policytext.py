"""The policy for tools that declare infrastructure: a CloudFormation template, a Terraform file.

Each tool reads a language of its own in texts. What is ours in it (partition and account) stays as it is; a tag may be
called anything, and must come out as it is called. `document` leaves no `${` in a tag's value but for IAM's `${$}`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from awsha.aws.permissions import Scope, document
from awsha.core.errors import AwshaError

DESCRIPTION = "What awsha needs, and nothing else; made by awsha iam-policy"
_DYNAMIC = "{{resolve:"  # CloudFormation replaces a dynamic reference in every text, and knows no way to write it
_STACKS = re.compile(r"\$\{(AWS::\w+|AwshaPolicy)\}")
_PROVIDERS = re.compile(r"(\$\{data\.aws_[a-z_.]+\})")
_VARIABLE = "&{"  # which the provider's aws_iam_policy_document turns into IAM's `${`, and knows no way to write either


def as_json(scope: Scope) -> str:
    """The policy document itself."""
    return json.dumps(document(scope), indent=2)


def as_cloudformation(scope: Scope) -> str:
    """A template with one AWS::IAM::ManagedPolicy. Partition and account are the stack's.

    Raises AwshaError for a tag that CloudFormation cannot carry.
    """
    _refuse(scope, _DYNAMIC, "CloudFormation")
    symbolic = replace(scope, partition="${AWS::Partition}", account="${AWS::AccountId}")
    template = {
        "AWSTemplateFormatVersion": "2010-09-09",
        "Description": DESCRIPTION,
        "Resources": {
            "AwshaPolicy": {
                "Type": "AWS::IAM::ManagedPolicy",
                "Properties": {"Description": DESCRIPTION, "PolicyDocument": document(symbolic)},
            }
        },
        "Outputs": {"AwshaPolicyArn": {"Description": "Attach it to the role of the nodes", "Value": "${AwshaPolicy}"}},
    }
    return "\n".join(_yaml(template, 0))


def _refuse(scope: Scope, sign: str, tool: str) -> None:
    if any(sign in word for tags in scope.tagged for pair in tags for word in pair):
        raise AwshaError(
            f"a tag of a volume has `{sign}` in it, which {tool} would replace",
            hint="awsha iam-policy prints it as JSON; or name the volume by its id",
        )


def _yaml(value: Any, depth: int) -> Iterator[str]:  # noqa: ANN401 - mappings, lists and texts
    """Block YAML. Texts are double-quoted; with a variable of the stack in them they are for Fn::Sub."""
    pad = "  " * depth
    items = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    for key, item in items:
        plain = key.isascii() and key.isalnum() and key != "Null"  # IAM's operator, which is YAML's null
        name = key if key == "-" else f"{key}:" if plain else f"{_quoted(key)}:"
        if isinstance(item, dict) and key == "-":
            first, *rest = _yaml(item, depth + 1)
            yield f"{pad}- {first.lstrip()}"
            yield from rest
        elif isinstance(item, dict | list):
            yield f"{pad}{name}"
            yield from _yaml(item, depth + 1)
        else:
            yield f"{pad}{name} {_scalar(item)}"


def _scalar(text: str) -> str:
    if alone := _STACKS.fullmatch(text):
        return f"!Ref {alone[1]}"
    return f"!Sub {_quoted(text)}" if _STACKS.search(text) else _quoted(text)


def _quoted(text: str) -> str:
    """A double-quoted text, as YAML and HCL both read it."""
    return f'"{"".join(_character(c) for c in text)}"'


def _character(c: str) -> str:
    if " " <= c <= "~":
        return f"\\{c}" if c in '"\\' else c
    return f"\\u{ord(c):04x}" if ord(c) <= 0xFFFF else f"\\U{ord(c):08x}"


def as_terraform(scope: Scope) -> str:
    """A policy document and a policy. Partition and account are the provider's; ids may be expressions, as they are.

    Raises AwshaError for a tag that the provider cannot carry.
    """
    _refuse(scope, _VARIABLE, "Terraform's aws_iam_policy_document")
    symbolic = replace(
        scope,
        partition="${data.aws_partition.current.partition}",
        account="${data.aws_caller_identity.current.account_id}",
    )
    lines = [
        f"# {DESCRIPTION}",
        'data "aws_partition" "current" {}',
        'data "aws_caller_identity" "current" {}',
        "",
        'data "aws_iam_policy_document" "awsha" {',
    ]
    for statement in document(symbolic)["Statement"]:
        lines += _terraform_statement(statement)
    lines += [
        "}",
        "",
        'resource "aws_iam_policy" "awsha" {',
        '  name_prefix = "awsha-"',
        f'  description = "{DESCRIPTION}"',
        "  policy      = data.aws_iam_policy_document.awsha.json",
        "}",
    ]
    return "\n".join(lines)


def _terraform_statement(statement: dict[str, Any]) -> Iterator[str]:
    yield "  statement {"
    yield f'    sid = "{statement["Sid"]}"'
    for name, values in (("actions", statement["Action"]), ("resources", statement["Resource"])):
        yield f"    {name} = ["
        yield from (f"      {json.dumps(value)}," for value in values)
        yield "    ]"
    for test, operands in statement.get("Condition", {}).items():
        for variable, values in operands.items():
            listed = ", ".join(_hcl(value) for value in (values if isinstance(values, list) else [values]))
            yield "    condition {"
            yield f'      test     = "{test}"'
            yield f'      variable = "{_plain(variable)}"'
            yield f"      values   = [{listed}]"
            yield "    }"
    yield "  }"


def _hcl(value: str) -> str:
    """A condition's value: what is the provider's stays, the rest is a text."""
    parts = _PROVIDERS.split(value)  # every second one is the provider's
    return f'"{"".join(part if place % 2 else _plain(part) for place, part in enumerate(parts))}"'


def _plain(text: str) -> str:
    """The inside of a quoted text in which nothing is a template: `$${`, `%%{`; in a run of signs the last one counts
    for that, and those in front are written as numbers."""
    return re.sub(
        r"([$%]+)(?=\{)",
        lambda run: "".join(f"\\u{ord(c):04x}" for c in run[1][:-1]) + run[1][-1] * 2,
        _quoted(text)[1:-1],
    )


FORMATS = {"json": as_json, "cloudformation": as_cloudformation, "terraform": as_terraform}
