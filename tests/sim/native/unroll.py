"""Writes the methods that @dataclass makes at run time into a copy of a module, where a compiler can see them.

mypyc compiles data classes, but calls the interpreter for each of them that is made or compared. What is written out
here does the same as dataclasses.py (`__init__`, `__eq__`, `__hash__`, `__repr__`, `__match_args__`), and `replace(x,
a=1)` becomes `x.replaced(a=1)`. Whatever of dataclasses this does not know it refuses.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass

PLAIN = frozenset({"int", "float", "bool", "str"})  # compared by == alone
OPTIONS = frozenset({"frozen", "slots", "eq"})  # of @dataclass


class CannotUnroll(Exception):
    """A data class that uses something which is not written out here."""


@dataclass(frozen=True)
class Field:
    """One field: its annotation and default as source text. `factory`: what makes its default."""

    name: str
    annotation: str
    default: str = ""
    factory: str = ""
    init: bool = True


Changes = frozenset[frozenset[str]]  # the fields that the calls of dataclasses.replace name, call by call


def changes(source: str) -> Changes:
    """What a module's calls of `replace` change."""
    calls = (node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call))
    return frozenset(frozenset(str(k.arg) for k in call.keywords) for call in calls if _is_replace(call))


def unroll(source: str, changed: Changes | None = None) -> str:
    """A module's source with its data classes written out. Raises CannotUnroll.

    Only what one of `changed` can be meant for gets a method `replaced`, which is long; None: every class.
    """
    tree = ast.parse(source)
    known: dict[str, list[Field]] = {}  # data classes of this module so far: a base must be one of them
    classes = [node for node in tree.body if isinstance(node, ast.ClassDef)]
    bases = {ast.unparse(base) for node in classes for base in node.bases}
    for node in classes:
        _unroll_class(node, known, bases, changed)
    place = 1 + max((i for i, node in enumerate(tree.body[:3]) if _begins(node)), default=-1)
    tree.body.insert(place, ast.parse("from typing import cast").body[0])
    tree.body.insert(place, ast.parse("from mypy_extensions import mypyc_attr").body[0])
    return ast.unparse(ast.fix_missing_locations(_Replace().visit(tree))) + "\n"


def _begins(node: ast.stmt) -> bool:
    """What has to stay at the top of a module."""
    return isinstance(node, ast.ImportFrom) and node.module == "__future__"


class _Replace(ast.NodeTransformer):
    """dataclasses.replace(x, **changes), as a method of x."""

    def visit_Call(self, node: ast.Call) -> ast.AST:
        self.generic_visit(node)
        if _is_replace(node):
            return ast.Call(ast.Attribute(node.args[0], "replaced", ast.Load()), [], node.keywords)
        return node


def _is_replace(call: ast.Call) -> bool:
    return isinstance(call.func, ast.Name) and call.func.id == "replace"


def _unroll_class(node: ast.ClassDef, known: dict[str, list[Field]], bases: set[str], changed: Changes | None) -> None:
    options = _options(node)
    if options is None:
        return
    fields = [field for base in node.bases for field in known.get(ast.unparse(base), [])]
    own = [statement for statement in node.body if isinstance(statement, ast.AnnAssign)]
    fields += [_field(node.name, statement) for statement in own]
    known[node.name] = fields
    methods = [_init(fields, node), *_same(node.name, fields, options), _repr(node.name, fields)]
    if not node.bases and node.name not in bases:  # where the types of a base and a derived class need not agree
        methods.append(_match_args(fields))
        if changed is None or any(names <= {field.name for field in fields} for names in changed):
            methods += _replaced(node.name, fields)
    for statement in own:
        statement.value = None
    acyclic = ast.parse("mypyc_attr(acyclic=True, free_list_len=1)", mode="eval").body
    node.decorator_list = [acyclic] if options["frozen"] else []  # what never changes can't come to refer to itself
    node.body += [statement for method in methods for statement in ast.parse(method).body]


def _options(node: ast.ClassDef) -> dict[str, bool] | None:
    """What @dataclass is asked for; None: no data class."""
    found = [d for d in node.decorator_list if "dataclass" in ast.unparse(d)]
    if not found:
        return None
    given = found[0].keywords if isinstance(found[0], ast.Call) else []
    options = {str(k.arg): bool(ast.literal_eval(k.value)) for k in given}
    if len(node.decorator_list) > 1 or options.keys() - OPTIONS:
        raise CannotUnroll(f"{node.name}: {ast.unparse(found[0])}")
    return {"eq": True, "frozen": False, **options}


def _field(owner: str, node: ast.AnnAssign) -> Field:
    name, annotation = ast.unparse(node.target), ast.unparse(node.annotation)
    if "ClassVar" in annotation or "InitVar" in annotation:
        raise CannotUnroll(f"{owner}.{name}: {annotation}")
    if not (isinstance(node.value, ast.Call) and ast.unparse(node.value.func) == "field"):
        return Field(name, annotation, ast.unparse(node.value) if node.value else "")
    match [(k.arg, ast.unparse(k.value)) for k in node.value.keywords]:
        case [("default_factory", factory)] if "None" not in annotation:
            return Field(name, annotation, factory=factory)
        case [("init", "False")]:
            return Field(name, annotation, init=False)
    raise CannotUnroll(f"{owner}.{name}: {ast.unparse(node.value)}")


def _init(fields: list[Field], node: ast.ClassDef) -> str:
    arguments, lines = ["self"], []
    for field in (f for f in fields if f.init):
        if field.factory:
            arguments.append(f"{field.name}: {field.annotation} | None = None")
            lines.append(f"self.{field.name} = {field.factory}() if {field.name} is None else {field.name}")
        else:
            arguments.append(f"{field.name}: {field.annotation}" + (f" = {field.default}" if field.default else ""))
            lines.append(f"self.{field.name} = {field.name}")
    if any(isinstance(s, ast.FunctionDef) and s.name == "__post_init__" for s in node.body):
        lines.append("self.__post_init__()")
    return _method("__init__", arguments, "None", lines or ["pass"])


def _same(name: str, fields: list[Field], options: dict[str, bool]) -> list[str]:
    """__eq__ and __hash__, as the tuples of the fields would have them."""
    if not options["eq"]:
        return []
    tests = [f"self.{f.name} == other.{f.name}" if f.annotation in PLAIN
             else f"(self.{f.name} is other.{f.name} or self.{f.name} == other.{f.name})" for f in fields]  # fmt: skip
    lines = [
        "if self is other:",
        "    return True",
        f"if not isinstance(other, {name}) or type(other) is not type(self):",
        "    return False",
        f"return {' and '.join(tests) or 'True'}",
    ]
    methods = [_method("__eq__", ["self", "other: object"], "bool", lines)]
    if options["frozen"]:
        values = "".join(f"self.{field.name}, " for field in fields)
        methods.append(_method("__hash__", ["self"], "int", [f"return hash(({values}))"]))
    return methods


def _repr(name: str, fields: list[Field]) -> str:
    inner = ", ".join(f"{f.name}={{self.{f.name}!r}}" for f in fields)
    return _method("__repr__", ["self"], "str", [f'return f"{name}({inner})"'])


def _match_args(fields: list[Field]) -> str:
    names = "".join(f"'{field.name}', " for field in fields if field.init)
    return f"__match_args__ = ({names})\n"


def _replaced(name: str, fields: list[Field]) -> list[str]:
    """A copy with other values in some of the fields."""
    if not fields or not all(field.init for field in fields):
        return []
    arguments = ["self", "*", *(f"{f.name}: object = ..." for f in fields)]
    values = ", ".join(f"self.{f.name} if {f.name} is ... else cast({f.annotation}, {f.name})" for f in fields)
    return [_method("replaced", arguments, f"'{name}'", [f"return {name}({values})"])]


def _method(name: str, arguments: list[str], returns: str, lines: list[str]) -> str:
    return f"def {name}({', '.join(arguments)}) -> {returns}:\n" + "".join(f"    {line}\n" for line in lines)
