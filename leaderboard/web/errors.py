"""Error responses: problem documents for API clients, pages for browsers."""

from __future__ import annotations

import logging

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from sqlalchemy.exc import SQLAlchemyError
from starlette.exceptions import HTTPException

from forgetbench.errors import field_message
from forgetbench.leaderboard.db import failures
from forgetbench.leaderboard.errors import MEDIA_TYPE, FieldError, Link, Problem

log = logging.getLogger("forgetbench.server")


def add_error_handlers(app: FastAPI) -> None:
    """Give every error of the application the same shape."""

    @app.exception_handler(Problem)
    def _problem(request: Request, problem: Problem) -> Response:
        return error_response(request, problem)

    @app.exception_handler(HTTPException)
    def _http(request: Request, error: HTTPException) -> Response:
        return error_response(request, _describe_http_error(request, error))

    @app.exception_handler(RequestValidationError)
    def _validation(request: Request, error: RequestValidationError) -> Response:
        errors = [
            FieldError(field=".".join(str(part) for part in item["loc"]), message=field_message(item))
            for item in error.errors()
        ]
        return error_response(request, Problem(422, "The request is not valid.", errors))

    @app.exception_handler(OSError)
    @app.exception_handler(SQLAlchemyError)
    def _storage(request: Request, error: Exception) -> Response:
        problem = failures.problem_of(error)
        if problem is None:
            raise error
        log.error("%s %s: %s", request.method, problem.status, error)
        return error_response(request, problem)


def _describe_http_error(request: Request, error: HTTPException) -> Problem:
    """The framework's two-word error with the requested path and links to existing pages."""
    path, detail = request.url.path[:200], str(error.detail)
    if error.status_code == 404:
        detail = f"There is nothing at {path} on this server."
    elif error.status_code == 405:
        allowed = (error.headers or {}).get("Allow", "")
        detail = f"{request.method} is not supported at {path}{f'; use {allowed}' if allowed else ''}."
    if path.startswith("/api/"):
        detail += " /api/v1/openapi.json lists every route of the API."
    links = [Link("boards", "/"), Link("methods", "/methods"), Link("metrics", "/metrics"), Link("API", "/api")]
    return Problem(error.status_code, detail, headers=error.headers, links=links)


def internal_error_response(request: Request, request_id: str) -> Response:
    """Response to an unexpected exception; the log has the traceback under ``request_id``."""
    detail = f"Internal server error; it was logged as {request_id}. No data was lost."
    return error_response(request, Problem(500, detail))


def problem_response(problem: Problem) -> JSONResponse:
    """A problem as JSON."""
    headers = {"Cache-Control": "no-store", **problem.headers}
    return JSONResponse(problem.document().model_dump(), problem.status, media_type=MEDIA_TYPE, headers=headers)


def error_response(request: Request, problem: Problem) -> Response:
    """A problem as an HTML page for browsers that read pages, as JSON otherwise."""
    if request.url.path.startswith("/api/") or "text/html" not in request.headers.get("accept", ""):
        return problem_response(problem)
    document = problem.document()
    route = getattr(request.scope.get("route"), "path", "")
    heading = "You are not signed in" if route.startswith("/signin/") else document.title
    body = request.app.state.pages.render("error.html", heading=heading, problem=document, links=problem.links)
    headers = {"Cache-Control": "no-store", **problem.headers}
    return Response(body, problem.status, media_type="text/html; charset=utf-8", headers=headers)
