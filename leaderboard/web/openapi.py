"""The OpenAPI document: errors stand in it as they are sent, as problem documents."""

from __future__ import annotations

from typing import Any, NamedTuple

from fastapi import FastAPI

from forgetbench.leaderboard.errors import MEDIA_TYPE

_SCHEMA = {"$ref": "#/components/schemas/ProblemDocument"}
_EVERYWHERE = {"401": "A token that is wrong", "422": "Not valid", "429": "Too many requests", "500": "A mistake here"}


def install(app: FastAPI) -> None:
    """Let the application describe its errors as they are."""
    plain = app.openapi

    def described() -> dict[str, Any]:
        if app.openapi_schema is None:
            schema = plain()
            for path in schema["paths"].values():
                for operation in path.values():
                    _describe_errors(operation["responses"])
            for unused in ("HTTPValidationError", "ValidationError"):
                schema["components"]["schemas"].pop(unused, None)
            app.openapi_schema = schema
        return app.openapi_schema or {}

    app.openapi = described  # type: ignore[method-assign]


def _describe_errors(responses: dict[str, Any]) -> None:
    for status, text in _EVERYWHERE.items():
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
    """What stands for it where it is left out."""
    choices: tuple[str, ...] = ()
    """All that it may be, where that is a list."""


class Answer(NamedTuple):
    """What an operation may answer."""

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


def operations(document: dict[str, Any]) -> list[Operation]:
    """Every route of an OpenAPI document, in its order."""
    found = []
    for path, methods in document["paths"].items():
        for method, told in methods.items():
            parameters = [_parameter(item) for item in told.get("parameters", [])]
            content = told.get("requestBody", {}).get("content", {})
            answers = [
                Answer(status, item["description"], _kind_of_answer(item)) for status, item in told["responses"].items()
            ]
            found.append(
                Operation(
                    method=method.upper(),
                    path=path,
                    anchor=told["operationId"],
                    text=told.get("description", "").replace("``", ""),
                    parameters=parameters,
                    body=", ".join(f"{kind} ({kind_of(item['schema'])})" for kind, item in content.items()),
                    token=bool(told.get("security")),
                    answers=sorted(answers),
                )
            )
    return found


def documents(document: dict[str, Any]) -> list[tuple[str, str, list[Field]]]:
    """Every document that is sent or answered: name, meaning and fields."""
    return [
        (
            name,
            schema.get("description", ""),
            [
                Field(field, kind_of(told), field in schema.get("required", []), _text(told))
                for field, told in schema.get("properties", {}).items()
            ],
        )
        for name, schema in sorted(document["components"]["schemas"].items())
    ]


def kind_of(schema: dict[str, Any]) -> str:
    """The type of a value in words."""
    if "$ref" in schema:
        return str(schema["$ref"]).rpartition("/")[2]
    if "anyOf" in schema:
        return " or ".join(kind_of(item) for item in schema["anyOf"])
    if "const" in schema or "enum" in schema:
        return " | ".join(str(value) or '""' for value in schema.get("enum", [schema.get("const")]))
    if schema.get("type") == "array":
        return f"list of {kind_of(schema['items'])}" if "items" in schema else "list"
    if schema.get("type") == "object" and isinstance(schema.get("additionalProperties"), dict):
        return f"table of {kind_of(schema['additionalProperties'])}"
    return str(schema.get("format") or schema.get("type", "any value"))


def _parameter(told: dict[str, Any]) -> Field:
    schema = told["schema"]
    default, choices = schema.get("default", ""), schema.get("enum", ())
    if schema.get("type") == "boolean":
        default, choices = str(default).lower(), ("false", "true")
    return Field(
        *(told["name"], kind_of(schema), told.get("required", False), _text(told), told["in"]),
        *(str(default), tuple(map(str, choices))),
    )


def _text(told: dict[str, Any]) -> str:
    return " ".join(str(told.get("description", "")).replace("``", "").split())


def _kind_of_answer(told: dict[str, Any]) -> str:
    kinds = [kind_of(item["schema"]) if item.get("schema") else kind for kind, item in told.get("content", {}).items()]
    return ", ".join(dict.fromkeys(kinds))
