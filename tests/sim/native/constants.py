"""Tells a compiler, in a copy of a module, what never changes: module constants, and the members of enums.

mypyc reads a module's variable from a dict each time, and a member of an enum as an attribute of its class; what is
declared Final it reads from memory. `LIMIT = 3` becomes `LIMIT: Final = 3`, and `Scope.CLOUD` in a function becomes
`_Scope_CLOUD`, a Final of that module.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable

CONSTANT = re.compile(r"_?[A-Z][A-Z0-9_]+")


def enums(tree: ast.Module) -> set[str]:
    """Names of the StrEnums that a module defines."""
    return {
        node.name for node in tree.body if isinstance(node, ast.ClassDef) and "StrEnum" in map(ast.unparse, node.bases)
    }


def fix(tree: ast.Module, known: set[str]) -> None:
    """Declare a module's constants, and the members of the `known` enums that it uses."""
    body: list[ast.stmt] = []
    for node in tree.body:
        body += _finals(node)
    tree.body = body
    kinds = {node.target.id: node.value for node in body if _names_of_classes(node)}
    members = _Members(known, kinds)
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and getattr(node, "name", "") not in known:
            members.visit(node)
    places = {name: at for at, node in enumerate(tree.body) for name in _defines(node) if name in known}
    for name, member in sorted(members.used, reverse=True):
        line = ast.parse(f"_{name}_{member}: Final = {name}.{member}").body[0]
        tree.body.insert(places[name] + 1, line)
        places = {other: at + (at > places[name]) for other, at in places.items()}
    tree.body.insert(1 + _last_future(tree), ast.parse("from typing import Final").body[0])


def _last_future(tree: ast.Module) -> int:
    """The place of `from __future__ import`, or of the module's text."""
    return max(
        (i for i, node in enumerate(tree.body[:3]) if isinstance(node, ast.ImportFrom) and node.module == "__future__"),
        default=0,
    )


def _defines(node: ast.stmt) -> Iterable[str]:
    if isinstance(node, ast.ImportFrom):
        return [alias.asname or alias.name for alias in node.names]
    return [node.name] if isinstance(node, ast.ClassDef) else []


def _finals(node: ast.stmt) -> list[ast.stmt]:
    """A statement of a module, its constants declared."""
    if isinstance(node, ast.AnnAssign) and node.value is not None and _constant(node.target, node.value):
        node.annotation = ast.Subscript(ast.Name("Final"), node.annotation)
    if not isinstance(node, ast.Assign) or len(node.targets) != 1:
        return [node]
    target, value = node.targets[0], node.value
    pairs = [(target, value)]
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        pairs = list(zip(target.elts, value.elts, strict=True))
    if not all(_constant(*pair) for pair in pairs):
        return [node]
    return [ast.AnnAssign(name, ast.Name("Final"), made, simple=1) for name, made in pairs]


def _constant(target: ast.expr, value: ast.expr) -> bool:
    made = ast.unparse(value)
    # mypyc 2.4 takes a Final (0.0, 0.0) of declared type for one that is not set yet
    odd = made.startswith("TypeVar") or made == "(0.0, 0.0)"
    return isinstance(target, ast.Name) and bool(CONSTANT.fullmatch(target.id)) and not odd


def _names_of_classes(node: ast.stmt) -> bool:
    """TAKES: Final = (Attach, MountVolume): what isinstance is asked for."""
    return (
        isinstance(node, ast.AnnAssign)
        and isinstance(node.target, ast.Name)
        and isinstance(node.value, ast.Tuple)
        and all(isinstance(e, ast.Name) and not CONSTANT.fullmatch(e.id) for e in node.value.elts)
    )


def _alternatives(asked: ast.expr) -> list[ast.expr]:
    """A | B | None, one by one."""
    if isinstance(asked, ast.BinOp):
        return _alternatives(asked.left) + _alternatives(asked.right)
    nothing = isinstance(asked, ast.Constant) and asked.value is None
    return [ast.parse("type(None)", mode="eval").body if nothing else asked]


class _Members(ast.NodeTransformer):
    """Members of enums, inside functions; what stands in a class itself is run before they are known."""

    def __init__(self, known: set[str], kinds: dict[str, ast.Tuple]) -> None:
        self.known = known
        self.kinds = kinds
        self.used: set[tuple[str, str]] = set()

    def visit_ClassDef(self, node: ast.ClassDef) -> ast.AST:
        node.body = [
            self.visit(part) if isinstance(part, ast.FunctionDef | ast.AnnAssign) else part for part in node.body
        ]
        return node

    def visit_FunctionDef(self, node: ast.FunctionDef) -> ast.AST:
        node.body = [self.visit(statement) for statement in node.body]
        node.args = self.visit(node.args)
        node.returns = node.returns and self.visit(node.returns)
        return node

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.func, ast.Name) and node.func.id == "isinstance":
            asked = node.args[1]
            if isinstance(asked, ast.Name) and asked.id in self.kinds:
                node.args[1] = self.kinds[asked.id]
            elif isinstance(asked, ast.Name) and asked.id == "Mapping":
                asked.id = "dict"
            elif isinstance(asked, ast.BinOp):
                node.args[1] = ast.Tuple(_alternatives(asked), ast.Load())
        return node

    def visit_Subscript(self, node: ast.Subscript) -> ast.AST:
        """Mapping[K, V] is a dict whenever the simulation runs, and is looked into faster under that name."""
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id == "Mapping":
            node.value.id = "dict"
        return node

    def visit_MatchValue(self, node: ast.MatchValue) -> ast.AST:
        return node

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        self.generic_visit(node)
        if isinstance(node.value, ast.Name) and node.value.id in self.known and CONSTANT.fullmatch(node.attr):
            self.used.add((node.value.id, node.attr))
            return ast.Name(f"_{node.value.id}_{node.attr}", ast.Load())
        return node
