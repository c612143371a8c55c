"""The policy for tools that declare infrastructure: a CloudFormation template, a Terraform file."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from awsha.aws.permissions import Scope, document

DESCRIPTION = "What awsha needs, and nothing else; made by awsha iam-policy"


def as_json(scope: Scope) -> str:
    """The policy document itself."""
    return json.dumps(document(scope), indent=2)


def as_cloudformation(scope: Scope) -> str:
    """A template with one AWS::IAM::ManagedPolicy. Partition and account are the stack's."""
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


def _yaml(value: Any, depth: int) -> Iterator[str]:  # noqa: ANN401 - mappings, lists and texts
    """Block YAML. Texts are double-quoted, which JSON's are too; with a variable in them they are for Fn::Sub."""
    pad = "  " * depth
    items = value.items() if isinstance(value, dict) else [("-", item) for item in value]
    for key, item in items:
        plain = key.isalnum() and key != "Null"  # IAM's operator, which is YAML's null
        name = key if key == "-" else f"{key}:" if plain else f"{json.dumps(key)}:"
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
    if alone := re.fullmatch(r"\$\{(\w+)\}", text):
        return f"!Ref {alone[1]}"
    return f"!Sub {json.dumps(text)}" if "${" in text else json.dumps(text)


def as_terraform(scope: Scope) -> str:
    """A policy document and a policy. Partition and account are the provider's."""
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
            yield "    condition {"
            yield f'      test     = "{test}"'
            yield f"      variable = {json.dumps(variable)}"
            yield f"      values   = {json.dumps(values if isinstance(values, list) else [values])}"
            yield "    }"
    yield "  }"


FORMATS = {"json": as_json, "cloudformation": as_cloudformation, "terraform": as_terraform}
