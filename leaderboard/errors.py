"""Errors as every route gives them: RFC 9457 problem documents, with a list of the fields that are wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any, NamedTuple

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import BaseModel, ConfigDict
from starlette.exceptions import HTTPException

MEDIA_TYPE = "application/problem+json"


class FieldError(BaseModel):
    """One thing that is wrong."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    field: str
    """Where: a field of the manifest, an evidence file, or a parameter."""
    message: str
    """What is wrong, and how to mend it."""


class ProblemDocument(BaseModel):
    """The one shape of errors."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = "about:blank"
    """Kind of the problem."""
    title: str
    """The kind in words."""
    status: int
    """HTTP status."""
    detail: str
    """What happened, and what to do."""
    errors: list[FieldError] = []
    """Everything that is wrong, at once."""


class Link(NamedTuple):
    """Where a reader may go from an error."""

    text: str
    """What is there."""
    address: str
    """Its address on this site."""


class Problem(Exception):  # noqa: N818 - the word of RFC 9457
    """Raised anywhere below a route; becomes the answer."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[FieldError] = (),
        headers: Mapping[str, str] | None = None,
        links: Sequence[Link] = (),
    ) -> None:
        super().__init__(detail)
        self.links = list(links)
        self.status, self.detail, self.errors, self.headers = status, detail, list(errors), dict(headers or {})


def document(status: int, detail: str, errors: Sequence[FieldError] = ()) -> dict[str, Any]:
    """The problem document of an error."""
    title = HTTPStatus(status).phrase
    return ProblemDocument(title=title, status=status, detail=detail, errors=list(errors)).model_dump()


def answer(
    status: int, detail: str, errors: Sequence[FieldError] = (), headers: Mapping[str, str] | None = None
) -> JSONResponse:
    """The answer that carries a problem document."""
    return JSONResponse(
        document(status, detail, errors),
        status,
        media_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-store", **(headers or {})},
    )


def install(app: FastAPI) -> None:
    """Let every error of the application have this shape; a browser that reads pages gets it as a page."""

    @app.exception_handler(Problem)
    def _problem(request: Request, problem: Problem) -> Response:
        return _answer(request, problem)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        return _answer(request, _explained(request, error))

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = [
            FieldError(field=".".join(str(part) for part in item["loc"]), message=item["msg"])
            for item in error.errors()
        ]
        return _answer(request, Problem(422, "The request is not valid.", errors))


def _explained(request: Request, error: HTTPException) -> Problem:
    """What the framework says in two words, with what was sought and where to look."""
    path, detail = request.url.path[:200], str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {path} on this server."
    elif error.status_code == 405:
        detail = f"{request.method} is not to be had at {path}."
    if path.startswith("/api/"):
        detail += " /api/v1/openapi.json lists every route of the API."
    links = [Link("boards", "/"), Link("methods", "/methods"), Link("metrics", "/metrics"), Link("API", "/api")]
    return Problem(error.status_code, detail, headers=error.headers, links=links)


def unforeseen(request: Request, identity: str) -> Response:
    """The answer where the server failed; ``identity`` finds the reason in its log."""
    return _answer(
        request, Problem(500, f"The server made a mistake; it was logged under {identity}. Nothing was lost.")
    )


def _answer(request: Request, problem: Problem) -> Response:
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return answer(problem.status, problem.detail, problem.errors, problem.headers)
    body = request.app.state.pages.render(
        "error.html", problem=document(problem.status, problem.detail, problem.errors), links=problem.links
    )
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(body, problem.status, media_type="text/html; charset=utf-8", headers=headers)
