"""OpenAPI document with problem documents as errors, and its content for the page about the API."""

from __future__ import annotations

from typing import NamedTuple

from fastapi import FastAPI

from forgetbench.leaderboard.errors import MEDIA_TYPE
from forgetbench.store import JsonObject

_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
_COMMON_ERRORS = {"401": "Invalid token", "422": "Invalid", "429": "Too many requests", "500": "Internal server error"}


def describe_errors(app: FastAPI) -> None:
    """Describe the errors of an application as problem documents."""
    generate = app.openapi

    def openapi() -> JsonObject:
        if app.openapi_schema is None:
            schema = generate()
            for path in schema["paths"].values():
                for operation in path.values():
                    _describe_errors(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return app.openapi_schema or {}

    app.openapi = openapi  # type: ignore[method-assign]


def _describe_errors(responses: JsonObject) -> None:
    for status, text in _COMMON_ERRORS.items():
        responses.setdefault(status, {"description": text})
    for status, response in responses.items():
        if status.startswith(("4", "5")):
            response["content"] = {MEDIA_TYPE: {"schema": _SCHEMA}}


class Field(NamedTuple):
    """A parameter, or a field of a document."""

    name: str
    kind: str
    required: bool
    text: str
    place: str = ""
    """Of a parameter: ``path``, ``query`` or ``header``."""
    default: str = ""
    """Default value."""
    choices: tuple[str, ...] = ()
    """All possible values, where they are listed."""


class Answer(NamedTuple):
    """A possible response of an operation."""

    status: str
    text: str
    kind: str


class Operation(NamedTuple):
    """One route."""

    method: str
    path: str
    anchor: str
    text: str
    parameters: list[Field]
    body: str
    token: bool
    answers: list[Answer]


def operations(document: JsonObject) -> list[Operation]:
    """All routes of an OpenAPI document, in its order."""
    routes = []
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            parameters = [_parameter(item) for item in operation.get("parameters", [])]
            content = operation.get("requestBody", {}).get("content", {})
            answers = [
                Answer(status, item["description"], _response_type(item))
                for status, item in operation["responses"].items()
            ]
            routes.append(
                Operation(
                    method=method.upper(),
                    path=path,
                    anchor=operation["operationId"],
                    text=operation.get("description", "").replace("``", ""),
                    parameters=parameters,
                    body=", ".join(f"{kind} ({type_of(item['schema'])})" for kind, item in content.items()),
                    token=bool(operation.get("security")),
                    answers=sorted(answers),
                )
            )
    return routes


def documents(document: JsonObject) -> list[tuple[str, str, list[Field]]]:
    """All documents of requests and responses: name, meaning and fields."""
    return [
        (
            name,
            schema.get("description", ""),
            [
                Field(field_name, type_of(field), field_name in schema.get("required", []), _text(field))
                for field_name, field in schema.get("properties", {}).items()
            ],
        )
        for name, schema in sorted(document["components"]["schemas"].items())
    ]


def type_of(schema: JsonObject) -> str:
    """The type of a value, in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(type_of(item) for item in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " | ".join(str(value) or '""' for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {type_of(schema['items'])}" if "items" in schema else "list"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"table of {type_of(schema['additionalProperties'])}"
    return str(schema.get("format") or schema.get("type", "any value"))


def _parameter(item: JsonObject) -> Field:
    schema = item["schema"]
    default, choices = schema.get("default", ""), schema.get("enum", ())
    if schema.get("type") == "boolean":
        default, choices = str(default).lower(), ("false", "true")
    return Field(
        *(item["name"], type_of(schema), item.get("required", False), _text(item), item["in"]),
        *(str(default), tuple(map(str, choices))),
    )


def _text(item: JsonObject) -> str:
    return " ".join(str(item.get("description", "")).replace("``", "").split())


def _response_type(item: JsonObject) -> str:
    kinds = [
        type_of(media["schema"]) if media.get("schema") else kind for kind, media in item.get("content", {}).items()
    ]
    return ", ".join(dict.fromkeys(kinds))
