"""A CloudFormation template as the stack would have it: intrinsic functions resolved, conditions applied.

Only what conf/cloudformation uses; an intrinsic function that is not known here is an error.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

NONE = object()  # AWS::NoValue
STACK_ID = "arn:aws:cloudformation:eu-west-1:123456789012:stack/pair/0a1b2c3d-0000-11ee-8000-0123456789ab"
PSEUDO = {
    "AWS::AccountId": "123456789012",
    "AWS::NoValue": NONE,
    "AWS::Partition": "aws",
    "AWS::Region": "eu-west-1",
    "AWS::StackId": STACK_ID,
    "AWS::StackName": "pair",
    "AWS::URLSuffix": "amazonaws.com",
}
ZONES = ["eu-west-1a", "eu-west-1b", "eu-west-1c"]


class _Loader(yaml.SafeLoader):
    pass


def _intrinsic(loader: yaml.SafeLoader, suffix: str, node: yaml.Node) -> dict[str, Any]:
    name = suffix if suffix in ("Ref", "Condition") else f"Fn::{suffix}"
    if isinstance(node, yaml.ScalarNode):
        value: Any = loader.construct_scalar(node)
        return {name: value.split(".", 1) if suffix == "GetAtt" else value}
    if isinstance(node, yaml.SequenceNode):
        return {name: loader.construct_sequence(node, deep=True)}
    return {name: loader.construct_mapping(node, deep=True)}


_Loader.add_multi_constructor("!", _intrinsic)


def load(path: Path) -> dict[str, Any]:
    """The template with `!Ref` and the like in their long form."""
    template: dict[str, Any] = yaml.load(path.read_text(), _Loader)  # noqa: S506 - a SafeLoader
    return template


class Stack:
    """A template with parameters. `ids` and `attributes` are what EC2 would give."""

    def __init__(self, template: Mapping[str, Any], parameters: Mapping[str, Any]) -> None:
        self.template = template
        declared = template["Parameters"]
        assert set(parameters) <= set(declared)
        defaults = {name: item["Default"] for name, item in declared.items() if "Default" in item}
        self.parameters: dict[str, Any] = {**defaults, **parameters}
        assert set(self.parameters) == set(declared), "a parameter without a value"
        for name, value in self.parameters.items():
            accepts(name, declared[name], value)
        self.ids = {name: f"id-of-{name}" for name in template["Resources"]}
        self.attributes: dict[tuple[str, str], Any] = {}

    def condition(self, name: str) -> bool:
        """Whether a condition holds."""
        return bool(self.resolve(self.template["Conditions"][name]))

    @property
    def resources(self) -> dict[str, dict[str, Any]]:
        """The resources that are made, as they are written."""
        every = self.template["Resources"]
        return {n: r for n, r in every.items() if "Condition" not in r or self.condition(r["Condition"])}

    def of_type(self, kind: str) -> dict[str, dict[str, Any]]:
        """Properties, resolved, of the resources of a type, by name."""
        return {n: self.properties(n) for n, r in self.resources.items() if r["Type"] == f"AWS::{kind}"}

    def properties(self, name: str) -> dict[str, Any]:
        """Properties of a resource that is made, resolved."""
        found: dict[str, Any] = self.resolve(self.resources[name].get("Properties", {}))
        return found

    def broken_rules(self) -> list[str]:
        """What the template's Rules say about these parameters."""
        return [
            item["AssertDescription"]
            for rule in self.template["Rules"].values()
            if self.resolve(rule["RuleCondition"])
            for item in rule["Assertions"]
            if not self.resolve(item["Assert"])
        ]

    def resolve(self, value: Any) -> Any:
        """A value without intrinsic functions."""
        if isinstance(value, list):
            return [item for item in map(self.resolve, value) if item is not NONE]
        if not isinstance(value, dict):
            return value
        [name] = value if len(value) == 1 else [""]
        if name in ("Ref", "Condition") or name.startswith("Fn::"):
            return getattr(self, "_" + name.removeprefix("Fn::").lower())(value[name])
        resolved = {key: self.resolve(item) for key, item in value.items()}
        return {key: item for key, item in resolved.items() if item is not NONE}

    def _ref(self, name: str) -> Any:
        for known in (PSEUDO, self.parameters):
            if name in known:
                return known[name]
        assert name in self.resources, f"{name} is not made"
        return self.ids[name]

    def _getatt(self, where: list[str]) -> Any:
        resource, attribute = where
        assert resource in self.resources, f"{resource} is not made"
        known = self.attributes.get((resource, attribute))
        return f"{attribute}-of-{resource}" if known is None else known

    def _sub(self, value: Any) -> str:
        text, variables = value if isinstance(value, list) else (value, {})
        own = self.resolve(variables)

        def one(match: re.Match[str]) -> str:
            name = match[1]
            if name in own:
                return str(own[name])
            return str(self._getatt(name.split(".", 1)) if "." in name else self._ref(name))

        return re.sub(r"\$\{([^}!][^}]*)\}", one, text).replace("${!", "${")

    def _if(self, value: list[Any]) -> Any:
        name, yes, no = value
        return self.resolve(yes if self.condition(name) else no)

    def _equals(self, value: list[Any]) -> bool:
        left, right = self.resolve(value)
        return str(left) == str(right)

    def _not(self, value: list[Any]) -> bool:
        return not self.resolve(value[0])

    def _and(self, value: list[Any]) -> bool:
        return all(self.resolve(value))

    def _condition(self, name: str) -> bool:
        return self.condition(name)

    def _select(self, value: list[Any]) -> Any:
        index, items = value
        return self.resolve(items)[int(index)]

    def _split(self, value: list[Any]) -> list[str]:
        sign, text = self.resolve(value)
        return str(text).split(sign)

    def _getazs(self, _region: str) -> list[str]:
        return ZONES

    def _base64(self, value: Any) -> Any:
        return self.resolve(value)  # read, not sent


def accepts(name: str, declared: Mapping[str, Any], value: Any) -> None:
    """Refuse a value as CloudFormation does."""
    text = str(value)
    if "AllowedPattern" in declared and not re.fullmatch(declared["AllowedPattern"], text):
        raise ValueError(f"{name}: {declared['ConstraintDescription']}")
    if "AllowedValues" in declared and text not in map(str, declared["AllowedValues"]):
        raise ValueError(f"{name}: {text} is not allowed")
    if declared["Type"] == "Number" and not declared.get("MinValue", 0) <= float(text) <= declared["MaxValue"]:
        raise ValueError(f"{name}: {text} is out of range")
