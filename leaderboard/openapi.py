"""The OpenAPI document: errors stand in it as they are sent, as problem documents."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI

from forgetbench.leaderboard.problems import MEDIA_TYPE

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
