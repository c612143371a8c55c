"""EC2's query protocol, by botocore's own model of the service: forms to parameters, replies to XML."""

from __future__ import annotations

import base64
from collections.abc import Iterable
from datetime import datetime
from functools import lru_cache
from typing import Any
from xml.sax.saxutils import escape

from botocore.loaders import Loader
from botocore.model import ListShape, OperationModel, OperationNotFoundError, ServiceModel, Shape, StructureShape
from botocore.utils import parse_timestamp

from awsha.lab.records import Ec2Error, Params, Reply

Tree = dict[str, Any]
_HEAD = '<?xml version="1.0" encoding="UTF-8"?>\n'


@lru_cache(maxsize=1)
def _model() -> ServiceModel:
    # Some 0.3 s of JSON: once a process is enough.
    return ServiceModel(Loader().load_service_model("ec2", "service-2"))


class Query:
    """Decodes and encodes any action that botocore's model of EC2 knows."""

    def __init__(self) -> None:
        self._model = _model()
        self._namespace = self._model.metadata["xmlNamespace"]

    def knows(self, action: str) -> bool:
        """Whether EC2 has such an action."""
        return action in self._model.operation_names

    def _operation(self, action: str) -> OperationModel:
        try:
            return self._model.operation_model(action)
        except OperationNotFoundError:
            raise Ec2Error("InvalidAction", f"The action {action} is not valid for this web service.") from None

    def decode(self, action: str, form: dict[str, str]) -> Params:
        """`{"VolumeId.1": "vol-…"}` to `{"VolumeIds": ["vol-…"]}`; unknown names are ignored. Raises Ec2Error."""
        shape = self._operation(action).input_shape
        if shape is None:
            return {}
        tree: Tree = {}
        for key, value in form.items():
            branch = tree
            *path, last = key.split(".")
            for step in path:
                inner = branch.setdefault(step, {})
                if not isinstance(inner, dict):
                    raise Ec2Error("InvalidParameterValue", f"The parameter {key} is given in two ways")
                branch = inner
            branch[last] = value
        try:
            params: Params = _read(shape, tree)
        except (ValueError, AttributeError, TypeError) as error:
            raise Ec2Error("InvalidParameterValue", f"A parameter is invalid: {error}") from None
        return params

    def output_shape(self, action: str) -> Shape | None:
        """The shape of an action's reply."""
        return self._operation(action).output_shape

    def encode(self, action: str, reply: Reply, request_id: str) -> bytes:
        """The reply's XML document."""
        shape = self._operation(action).output_shape
        parts = [_HEAD, f'<{action}Response xmlns="{self._namespace}"><requestId>{request_id}</requestId>']
        if not isinstance(shape, StructureShape):
            parts.append("<return>true</return>")
        else:
            _write_members(parts, shape, reply)
        parts.append(f"</{action}Response>")
        return "".join(parts).encode()


def error_document(error: Ec2Error, request_id: str) -> bytes:
    """The XML document with which EC2 refuses."""
    return (
        f"{_HEAD}<Response><Errors><Error><Code>{escape(error.code)}</Code><Message>{escape(error.message)}</Message>"
        f"</Error></Errors><RequestID>{request_id}</RequestID></Response>"
    ).encode()


def query_error_document(error: Ec2Error, request_id: str) -> bytes:
    """The same of a service that speaks the plain query protocol, such as SNS."""
    return (
        f"{_HEAD}<ErrorResponse><Error><Type>Sender</Type><Code>{escape(error.code)}</Code>"
        f"<Message>{escape(error.message)}</Message></Error><RequestId>{request_id}</RequestId></ErrorResponse>"
    ).encode()


# Reading. EC2 differs from the plain query protocol: names are capitalised, and every list is flat.


@lru_cache(maxsize=1024)
def _query_names(shape: StructureShape) -> tuple[tuple[str, str, Shape], ...]:
    return tuple((name, _query_name(name, member), member) for name, member in shape.members.items())


def _query_name(name: str, member: Shape) -> str:
    serialization = member.serialization
    if "queryName" in serialization:
        return str(serialization["queryName"])
    name = str(serialization.get("name", name))
    return name[0].upper() + name[1:]


def _read(shape: Shape, value: Any) -> Any:  # noqa: ANN401 - as many shapes as there are types
    kind = shape.type_name
    if isinstance(shape, StructureShape):
        names = _query_names(shape)
        return {name: _read(member, value[key]) for name, key, member in names if value.get(key, "") != ""}
    if isinstance(shape, ListShape):
        return [_read(shape.member, value[index]) for index in sorted(value, key=int)]
    if kind == "boolean":
        return value.lower() == "true"
    if kind in ("integer", "long"):
        return int(value)
    if kind in ("float", "double"):
        return float(value)
    if kind == "timestamp":
        return parse_timestamp(value)
    if kind == "blob":
        return base64.b64decode(value)
    if not isinstance(value, str):
        raise TypeError(f"{shape.name} has parts")
    return value


# Writing


@lru_cache(maxsize=1024)
def _xml_names(shape: StructureShape) -> dict[str, tuple[str, Shape]]:
    return {name: (str(m.serialization.get("name", name)), m) for name, m in shape.members.items()}


def _write_members(parts: list[str], shape: StructureShape, value: dict[str, Any]) -> None:
    names = _xml_names(shape)
    for name, inner in value.items():
        if inner is not None and name in names:
            tag, member = names[name]
            _write(parts, tag, member, inner)


def _write(parts: list[str], tag: str, shape: Shape, value: Any) -> None:  # noqa: ANN401 - any shape
    if isinstance(shape, ListShape):
        _write_list(parts, tag, shape, value)
    elif isinstance(shape, StructureShape):
        parts.append(f"<{tag}>")
        _write_members(parts, shape, value)
        parts.append(f"</{tag}>")
    else:
        parts.append(f"<{tag}>{_text(value)}</{tag}>")


def _write_list(parts: list[str], tag: str, shape: ListShape, values: Iterable[Any]) -> None:
    flat = shape.serialization.get("flattened")
    item = tag if flat else str(shape.member.serialization.get("name", "item"))
    if not flat:
        parts.append(f"<{tag}>")
    for value in values:
        _write(parts, item, shape.member, value)
    if not flat:
        parts.append(f"</{tag}>")


def _text(value: object) -> str:
    if isinstance(value, str):
        return escape(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, datetime):
        return value.strftime("%Y-%m-%dT%H:%M:%S.000Z")
    if isinstance(value, bytes):
        return base64.b64encode(value).decode()
    return escape(str(value))
