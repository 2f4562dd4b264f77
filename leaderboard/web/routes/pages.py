"""Further pages: comparing entries, and what there is to know about methods, metrics, tasks, submitters, submitting."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Any
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import compare as comparing
from forgetbench.leaderboard.boards import directory, entries
from forgetbench.leaderboard.boards import directory as planned
from forgetbench.leaderboard.boards import queries as boards
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Entry
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.leaderboard.render import table_export as tabling
from forgetbench.leaderboard.render.board_export import FORMATS
from forgetbench.leaderboard.render.table_export import WRITERS, Sheet, Table
from forgetbench.leaderboard.render.templates import Pages
from forgetbench.leaderboard.submissions import reference
from forgetbench.leaderboard.web import openapi as apidocs
from forgetbench.leaderboard.web.caching import conditional, etag_of
from forgetbench.leaderboard.web.routes.api import PackHash, base_url

router = APIRouter()
PageNumber = Annotated[int, Query(ge=1, le=100_000)]
Ids = Annotated[list[str], Query(max_length=6)]


def _view(
    request: Request,
    session: Session,
    template: str,
    ending: str,
    make: Callable[[], dict[str, Any]],
    tables: Callable[[dict[str, Any]], list[Table]],
    also: str = "",
) -> Response:
    """A page that changes only where a board or ``also`` does, or with an ending its tables as a file."""
    base = base_url(request)
    etag = etag_of(request, str(request.url), boards.versions(session), base, also)
    if ending:
        if ending not in WRITERS:
            raise Problem(404, f"A view is had as .{', .'.join(WRITERS)}; not as .{ending[:20]}.")
        path = request.url.path.removesuffix(f".{ending}")
        url = f"{base}{path}" + (f"?{request.url.query}" if request.url.query else "")
        name = re.sub(r"[^\w-]+", "-", path.strip("/"))
        return conditional(
            request,
            etag,
            lambda: WRITERS[ending](Sheet(name, url, tables(make()))),
            media_type=FORMATS[ending][0],
            headers={"Content-Disposition": f'attachment; filename="{name}.{ending}"'},
        )
    pages: Pages = request.app.state.pages
    exported = partial(links, request.url.path, request.url.query)
    return conditional(
        request,
        etag,
        lambda: pages.render(template, base=base, exported=exported(), **make()),
        media_type="text/html; charset=utf-8",
    )


def links(path: str, query: str) -> list[tuple[str, str]]:
    """The files of a view: name and address."""
    behind = f"?{query}" if query else ""
    start = quote(unquote(path), safe="/") if path != "/" else "/boards"
    names = {"csv": "CSV", "json": "JSON", "md": "Markdown", "tex": "LaTeX"}
    return [(name, f"{start}.{ending}{behind}") for ending, name in names.items()]


def _split(name: str, known: Callable[[str], bool]) -> tuple[str, str]:
    """A name, and the ending of a file behind it; a name that is known whole has none, however it ends."""
    start, _, ending = name.rpartition(".")
    return (start, ending) if start and ending in WRITERS and not known(name) else (name, "")


@router.get("/")
@router.get("/boards.{ending}")
def overview(request: Request, database: DatabaseDep, ending: str = "") -> Response:
    """Every board with its leading entries."""
    with database.read_session() as session:

        def make() -> dict[str, Any]:
            found = boards.summaries(session)
            return {"summaries": found, "planned": () if found else planned.embedded()}

        return _view(request, session, "overview.html", ending, make, lambda it: tabling.overview(it["summaries"]))


@router.get("/compare")
@router.get("/compare.{ending}")
def compare(request: Request, database: DatabaseDep, ids: Ids, ending: str = "") -> Response:
    """Two to six entries side by side."""
    chosen = list(dict.fromkeys(part for text in ids for part in text.split(",") if part))
    if len(chosen) > comparing.MOST:
        raise Problem(422, f"Choose at most {comparing.MOST} entries to compare.")
    with database.read_session() as session:

        def make() -> dict[str, Any]:
            found = comparing.compare([entries.find(session, identity) for identity in chosen])
            return {"comparison": found, "board": found.board}

        return _view(request, session, "compare.html", ending, make, lambda it: tabling.compare(it["comparison"]))


@router.get("/methods")
@router.get("/methods.{ending}")
def methods(request: Request, database: DatabaseDep, ending: str = "") -> Response:
    """Every method that is listed."""
    with database.read_session() as session:

        def make() -> dict[str, Any]:
            return {"methods": directory.methods(session)}

        return _view(request, session, "methods.html", ending, make, lambda it: tabling.methods(it["methods"]))


@router.get("/methods/{name:path}")
def method(request: Request, database: DatabaseDep, settings: SettingsDep, name: str, page: PageNumber = 1) -> Response:
    """One method on all boards."""
    with database.read_session() as session:
        name, ending = _split(name, partial(directory.is_method, session))

        def make() -> dict[str, Any]:
            first = directory.first_of_method(session, name)
            size = None if ending else settings.page_rows
            places = directory.placed(session, Entry.method == name, size, page)
            return {"name": name, "places": places, "method": Manifest.model_validate(first.manifest).method}

        return _view(request, session, "method.html", ending, make, lambda it: [tabling.placed(it["places"].found)])


@router.get("/metrics")
@router.get("/metrics.{ending}")
def metrics(request: Request, database: DatabaseDep, ending: str = "") -> Response:
    """Every metric."""
    with database.read_session() as session:

        def make() -> dict[str, Any]:
            return {"specs": directory.metric_specs(session)}

        return _view(request, session, "metrics.html", ending, make, lambda it: tabling.metrics(it["specs"]))


@router.get("/metrics/{name}")
def metric(request: Request, database: DatabaseDep, name: str) -> Response:
    """One metric: what it means, what it misses, and the oracle band on each board."""
    with database.read_session() as session:
        name, ending = _split(name, lambda whole: bool(directory.boards_of_metric(session, whole)))

        def make() -> dict[str, Any]:
            found = directory.boards_of_metric(session, name)
            if not found:
                detail = f"No board shows a metric {name[:100]!r}."
                raise Problem(404, detail, links=[Link("all metrics", "/metrics")])
            shown = [
                (board, column) for board, _ in found for column in boards.columns_of(board) if column.name == name
            ]
            return {"name": name, "spec": found[0][1], "shown": shown}

        return _view(request, session, "metric.html", ending, make, lambda it: tabling.metric(it["spec"], it["shown"]))


@router.get("/tasks/{task:path}")
def task(request: Request, database: DatabaseDep, settings: SettingsDep, task: str, pack: PackHash = "") -> Response:
    """One task: images, license, recipe, and the hashes of the lists that were forgotten; of any pack."""
    with database.read_session() as session:
        task, ending = _split(task, partial(boards.exists, session))
        if not ending and not boards.exists(session, task) and (known := planned.find(task)) is not None:
            pages: Pages = request.app.state.pages
            return HTMLResponse(pages.render("planned.html", task=known, **planned.facts(known)))

        def make() -> dict[str, Any]:
            board = boards.find(session, task, pack or None)
            others = [other for other in boards.of_task(session, task) if other.id != board.id]
            return {"board": board, "card": reference.load_bundle(settings, board).card, "versions": others}

        return _view(request, session, "task.html", ending, make, lambda it: tabling.task(it["board"], it["card"]))


@router.get("/submitters/{name:path}")
def submitter(
    request: Request, database: DatabaseDep, settings: SettingsDep, name: str, page: PageNumber = 1
) -> Response:
    """One submitter: what is listed, and how many attempts there were."""
    with database.read_session() as session:
        name, ending = _split(name, partial(directory.is_submitter, session))

        def make() -> dict[str, Any]:
            attempts = directory.attempts(session, name) if "\0" not in name else []
            if not attempts:
                raise Problem(404, f"Nobody of the name {name[:100]!r} has submitted anything here.")
            size = None if ending else settings.page_rows
            places = directory.placed(session, Entry.submitter == name, size, page)
            return {"name": name, "places": places, "attempts": attempts}

        def tables(made: dict[str, Any]) -> list[Table]:
            return [tabling.attempts(made["attempts"]), tabling.placed(made["places"].found)]

        return _view(request, session, "submitter.html", ending, make, tables)


@router.get("/submit")
@router.get("/submit.{ending}")
def submit(request: Request, database: DatabaseDep, settings: SettingsDep, ending: str = "") -> Response:
    """How to submit: made from the manifest's own schema and this server's limits."""
    with database.read_session() as session:
        warning = queue.worker_warning(session, settings.lease_seconds)

        def make() -> dict[str, Any]:
            tasks = [board.task for board in boards.current(session)]
            return {"tasks": tasks, "settings": settings, "tables": schema_tables(Manifest), "warning": warning}

        return _view(request, session, "submit.html", ending, make, lambda it: tabling.submit(it["tables"]), warning)


@router.get("/api")
def about_the_api(request: Request) -> Response:
    """Every route of the API, with its parameters and answers."""

    def make() -> bytes:
        document = request.app.openapi()
        pages: Pages = request.app.state.pages
        return pages.render(
            "api.html",
            about=document["info"]["description"],
            operations=apidocs.operations(document),
            documents=apidocs.documents(document),
            base=base_url(request),
        )

    etag = etag_of(request, "/api", base_url(request))
    return conditional(request, etag, make, media_type="text/html; charset=utf-8")


def schema_tables(model: type[BaseModel]) -> list[tuple[str, list[tuple[str, str, bool, str]]]]:
    """Each record that a model is made of, with its fields: name, type, whether required, meaning."""
    schema = model.model_json_schema()
    records = {schema["title"]: schema, **schema.get("$defs", {})}
    meanings = field_docs(sys.modules[model.__module__])
    tables = []
    for title, record in records.items():
        required = record.get("required", [])
        rows = [
            (name, apidocs.kind_of(field), name in required, meanings.get((title, name), ""))
            for name, field in record.get("properties", {}).items()
        ]
        tables.append((title, rows))
    return tables


@lru_cache(maxsize=4)
def field_docs(module: ModuleType) -> dict[tuple[str, str], str]:
    """(class, field) -> the line that stands under the field in the source."""
    found = {}
    for kind in ast.parse(inspect.getsource(module)).body:
        if isinstance(kind, ast.ClassDef):
            for field, text in pairwise(kind.body):
                if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                    continue
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    found[(kind.name, field.target.id)] = " ".join(str(text.value.value).split())
    return found
