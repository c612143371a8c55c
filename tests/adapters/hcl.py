"""A Terraform module as it would be planned: files read by python-hcl2, expressions resolved for given variables.

Only what conf/terraform uses; anything else is an error.
"""

from __future__ import annotations

import base64
import ipaddress
import json
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

import hcl2

TOKEN = re.compile(
    r'\s*(?:(?P<string>"(?:[^"\\$%]|\\.|\$(?!\{)|%(?!\{)|\$\{(?:[^{}"]|"[^"]*")*\})*")'
    r"|(?P<number>-?\d+(?:\.\d+)?)|(?P<word>[A-Za-z_][\w-]*)|(?P<sign>==|!=|>=|<=|&&|\|\||[][(){}.,?:!<>=]))",
)
BINARY: list[dict[str, Callable[[Any, Any], Any]]] = [
    {"||": lambda a, b: a or b},
    {"&&": lambda a, b: a and b},
    {"==": lambda a, b: a == b, "!=": lambda a, b: a != b},
    {">=": lambda a, b: a >= b, "<=": lambda a, b: a <= b},
]


@lru_cache
def blocks(folder: Path) -> dict[str, list[Any]]:
    """All top-level blocks of the .tf files of a folder, by kind; not to be changed."""
    found: dict[str, list[Any]] = {}
    for file in sorted(folder.glob("*.tf")):
        with file.open(encoding="utf-8") as text:
            for kind, items in _clean(hcl2.load(text)).items():
                found.setdefault(kind, []).extend(items)
    return found


def _clean(value: Any) -> Any:
    """Without python-hcl2's marks, and with plain names."""
    if isinstance(value, list):
        return [_clean(item) for item in value]
    if isinstance(value, dict):
        return {key.strip('"'): _clean(item) for key, item in value.items() if not key.startswith("__")}
    return value


class Module:
    """A module with variables. `known` are attributes that only the provider would know: (address, name) -> value."""

    def __init__(self, folder: Path, variables: Mapping[str, Any], known: Mapping[tuple[str, str], Any]) -> None:
        self.folder = folder
        self.blocks = blocks(folder)
        self.declared = {name: item for block in self.blocks["variable"] for name, item in block.items()}
        assert set(variables) <= set(self.declared), "a variable that the module does not have"
        defaults = {n: self.value(item["default"]) for n, item in self.declared.items() if "default" in item}
        self.variables: dict[str, Any] = {**defaults, **variables}
        assert set(self.variables) == set(self.declared), "a variable without a value"
        self.locals = {name: item for block in self.blocks["locals"] for name, item in block.items()}
        self.known = dict(known)
        self.written = {
            f"{prefix}{kind}.{name}": body
            for key, prefix in (("resource", ""), ("data", "data."))
            for block in self.blocks[key]
            for kind, named in block.items()
            for name, body in named.items()
        }

    def made(self, address: str) -> bool:
        """Whether a resource, or a source of data, is there: its `count` is not 0."""
        return bool(self.value(self.written[address].get("count", 1)))

    def resource(self, address: str) -> dict[str, Any]:
        """Arguments and blocks of a resource, resolved; null arguments are left out. `lifecycle` stays as written."""
        body = {k: v for k, v in self.written[address].items() if k not in ("count", "depends_on", "lifecycle")}
        found: dict[str, Any] = self.value(body)
        return found

    def outputs(self) -> dict[str, Any]:
        """What the module gives."""
        items = {name: item for block in self.blocks["output"] for name, item in block.items()}
        return {name: self.value(item["value"]) for name, item in items.items()}

    def refused(self) -> list[str]:
        """The messages of all validations that these variables break; of all preconditions, when they break none."""
        lives = [life for body in self.written.values() for life in body.get("lifecycle", [])]
        for kind, holders in (("validation", self.declared.values()), ("precondition", lives)):
            rules = [rule for holder in holders for rule in holder.get(kind, [])]
            broken = [self.value(rule["error_message"]) for rule in rules if not self.value(rule["condition"])]
            if broken:
                return broken
        return []

    def value(self, raw: Any) -> Any:
        """What python-hcl2 read, resolved."""
        if isinstance(raw, list):
            return [self.value(item) for item in raw]
        if isinstance(raw, dict):
            dynamic: dict[str, list[Any]] = {}
            for block in raw.get("dynamic", []):
                for kind, item in block.items():
                    made = [self.value(c) for c in item["content"] for _ in self.value(item["for_each"])]
                    dynamic[kind] = [*dynamic.get(kind, []), *made]
            resolved = {key: self.value(item) for key, item in raw.items() if key != "dynamic"}
            for kind, items in dynamic.items():
                resolved[kind] = [*resolved.get(kind, []), *items]
            return {key: item for key, item in resolved.items() if item is not None}
        if isinstance(raw, str):
            whole = raw[2:-1] if raw.startswith("${") and raw.endswith("}") else raw
            return _Expression(self, whole).whole()
        return raw

    def reference(self, path: list[Any]) -> Any:
        """What a name stands for."""
        head, *rest = path
        if head == "var":
            return self.variables[rest[0]]
        if head == "local":
            return self.value(self.locals[rest[0]])
        if head == "path":
            return str(self.folder)
        prefix = "data." if head == "data" else ""
        kind, name, *rest = rest if prefix else path
        address = f"{prefix}{kind}.{name}"
        assert address in self.written, f"{address} is not declared"
        assert self.made(address), f"{address} is not made"
        assert isinstance(rest[0], int) == ("count" in self.written[address]), f"{address}: an index, or none"
        attribute, *index = rest[1:] if isinstance(rest[0], int) else rest
        if (address, attribute) in self.known:
            value = self.known[address, attribute]
        else:
            written = self.written[address].get(attribute)
            value = f"{attribute}-of-{address}" if written is None else self.value(written)
        return value[index[0]] if index else value

    def call(self, name: str, arguments: list[Callable[[], Any]]) -> Any:
        """A function of Terraform."""
        if name == "can":
            try:
                arguments[0]()
            except ValueError:
                return False
            return True
        return getattr(self, f"_{name}")(*(argument() for argument in arguments))

    def _regex(self, pattern: str, text: str) -> str:
        found = re.search(re.sub(r"\$$", r"\\Z", pattern), str(text))  # RE2's $ is the end of the text
        if found is None:
            raise ValueError(pattern)
        return found[0]

    def _contains(self, items: list[Any], item: Any) -> bool:
        return item in items

    def _floor(self, number: float) -> int:
        return int(number // 1)

    def _split(self, sign: str, text: str) -> list[str]:
        return text.split(sign)

    def _substr(self, text: str, start: int, length: int) -> str:
        return text[start : start + length]

    def _cidrnetmask(self, network: str) -> str:
        return str(ipaddress.IPv4Network(network, strict=False).netmask)

    def _cidrhost(self, network: str, number: int) -> str:
        return str(ipaddress.IPv4Network(network, strict=False)[number])

    def _jsonencode(self, value: Any) -> str:
        return json.dumps(value)

    def _base64encode(self, text: str) -> str:
        return base64.b64encode(text.encode()).decode()

    def _templatefile(self, file: str, variables: dict[str, Any]) -> str:
        text = Path(file).read_text(encoding="utf-8")
        used = set(re.findall(r"(?<!\$)\$\{(\w+)\}", text))
        assert used == set(variables), "variables of the template"
        text = re.sub(r"(?<!\$)\$\{(\w+)\}", lambda match: _text(variables[match[1]]), text)
        return text.replace("$${", "${").replace("%%{", "%{")


class _Expression:
    """One expression, read from left to right."""

    def __init__(self, module: Module, text: str) -> None:
        self.module = module
        self.text = text
        self.tokens: list[tuple[str, str]] = []
        place = 0
        while place < len(text.rstrip()):
            match = TOKEN.match(text, place)
            if match is None or match.lastgroup is None:
                raise NotImplementedError(f"{text[place:]!r} in {text!r}")
            self.tokens.append((match.lastgroup, match[match.lastgroup]))
            place = match.end()

    def whole(self) -> Any:
        """The value of all of it."""
        found = self.choice()()
        assert not self.tokens, f"{self.tokens} left of {self.text!r}"
        return found

    def next(self, sign: str = "") -> bool:
        """Take the next token if it is this sign."""
        if self.tokens and self.tokens[0] == ("sign", sign):
            self.tokens.pop(0)
            return True
        return False

    def need(self, sign: str) -> None:
        """Take this sign."""
        assert self.next(sign), f"{sign} in {self.text!r} before {self.tokens[:3]}"

    def choice(self) -> Callable[[], Any]:
        """`condition ? yes : no`, or less. What is not chosen is not resolved."""
        condition = self.binary(0)
        if not self.next("?"):
            return condition
        yes = self.choice()
        self.need(":")
        no = self.choice()
        return lambda: yes() if condition() else no()

    def binary(self, level: int) -> Callable[[], Any]:
        """Operators, the loosest first."""
        if level == len(BINARY):
            return self.unary()
        left = self.binary(level + 1)
        for sign, operate in BINARY[level].items():
            if self.next(sign):
                right = self.binary(level)
                return lambda left=left, operate=operate: self.operated(operate, left, right)  # type: ignore[misc]
        return left

    @staticmethod
    def operated(operate: Callable[[Any, Any], Any], left: Callable[[], Any], right: Callable[[], Any]) -> Any:
        """Both sides, as Terraform does."""
        return operate(left(), right())

    def unary(self) -> Callable[[], Any]:
        """A value with its indexes."""
        if self.next("!"):
            inner = self.unary()
            return lambda: not inner()
        value = self.primary()
        while self.next("["):
            index = self.choice()
            self.need("]")
            value = lambda value=value, index=index: value()[index()]  # type: ignore[misc] # noqa: E731
        return value

    def primary(self) -> Callable[[], Any]:
        """One value."""
        if self.next("("):
            inner = self.choice()
            self.need(")")
            return inner
        if self.next("["):
            return self.items("]", self.choice)
        if self.next("{"):
            pairs = self.items("}", self.pair)
            return lambda: dict(pairs())
        kind, word = self.tokens.pop(0)
        if kind == "string":
            return lambda: self.template(word[1:-1])
        if kind == "number":
            return lambda: float(word) if "." in word else int(word)
        assert kind == "word", f"{word} in {self.text!r}"
        if word in ("true", "false", "null"):
            return lambda: {"true": True, "false": False, "null": None}[word]
        if self.next("("):
            arguments: list[Callable[[], Any]] = []
            while not self.next(")"):
                arguments.append(self.choice())
                self.next(",")
            return lambda: self.module.call(word, arguments)
        path: list[Any] = [word]
        while self.tokens and self.tokens[0] in (("sign", "."), ("sign", "[")):
            if self.tokens[0] == ("sign", "[") and self.tokens[1][0] != "number":
                break
            if self.next("."):
                path.append(self.tokens.pop(0)[1])
            elif self.next("["):
                path.append(int(self.tokens.pop(0)[1]))
                self.need("]")
        return lambda: self.module.reference(path) if len(path) > 1 else word

    def items(self, end: str, one: Callable[[], Callable[[], Any]]) -> Callable[[], list[Any]]:
        """A list of values, up to a sign."""
        found = []
        while not self.next(end):
            found.append(one())
            self.next(",")
        return lambda: [item() for item in found]

    def pair(self) -> Callable[[], Any]:
        """`key = value` of an object."""
        _, key = self.tokens.pop(0)
        if not self.next("="):
            self.need(":")
        value = self.choice()
        return lambda: (key.strip('"'), value())

    def template(self, text: str) -> str:
        """A string with its `${…}`."""
        parts = re.split(r'(\$\{(?:[^{}"]|"[^"]*")*\})', text)
        if [p for p in parts if p] == parts[1:2] and len(parts) == 3:
            return _Expression(self.module, parts[1][2:-1]).whole()  # type: ignore[no-any-return]
        return "".join(
            _text(_Expression(self.module, part[2:-1]).whole()) if place % 2 else json.loads(f'"{part}"')
            for place, part in enumerate(parts)
        )


def _text(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
