"""Other pages: overview, comparison, methods, metrics, tasks, submitters, how to submit, and the API's reference."""

from __future__ import annotations

import ast
import inspect
import re
import sys
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from itertools import pairwise
from types import ModuleType
from typing import Annotated, Literal, NamedTuple
from urllib.parse import quote, unquote

from fastapi import APIRouter, Query, Request, Response
from fastapi.responses import HTMLResponse
from pydantic import BaseModel
from sqlalchemy.orm import Session

from forgetbench.evidence.run import Manifest
from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import compare as comparison
from forgetbench.leaderboard.boards import directory, display, entries, queries, shipped
from forgetbench.leaderboard.boards.matrix import MatrixView
from forgetbench.leaderboard.boards.view import PackHash
from forgetbench.leaderboard.db import queue
from forgetbench.leaderboard.db.models import Entry
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.leaderboard.render import exports
from forgetbench.leaderboard.render.compare_page import across_context
from forgetbench.leaderboard.render.front_page import front_page
from forgetbench.leaderboard.render.method_page import server_profiles, shipped_profiles, summaries
from forgetbench.leaderboard.render.shipped_page import shipped_context
from forgetbench.leaderboard.render.significance_page import across
from forgetbench.leaderboard.submissions import reference
from forgetbench.leaderboard.web import openapi
from forgetbench.leaderboard.web.caching import conditional, etag_of
from forgetbench.leaderboard.web.context import base_url, pages_of
from forgetbench.leaderboard.web.routes.boards import HTML, attachment
from forgetbench.methods import methods as unlearning_methods
from forgetbench.reporting.table_writer import Table
from forgetbench.user_files import parse_python

router = APIRouter()
TASK_METRICS = ("accuracy.forget", "accuracy.retain", "accuracy.test", "accuracy.test-forgotten", "lira.forget")
"""Metrics with which a task's page shows what doing nothing and retraining score."""
PageNumber = Annotated[int, Query(ge=1, le=100_000)]
Ids = Annotated[list[str], Query(max_length=6)]


class Content(NamedTuple):
    """What a page shows."""

    context: Mapping[str, object]
    """Variables of its template."""
    tables: Callable[[], list[Table]]
    """Makes its tables for a file."""


def respond(
    request: Request, session: Session, template: str, ending: str, make: Callable[[], Content], version: str = ""
) -> Response:
    """A page, or with an ending its tables as a file.

    Args:
        request: The request.
        session: Where to read the versions of the boards.
        template: Template of the page.
        ending: Ending of a file; "" for the page.
        make: Makes the content, where it is not cached.
        version: What the page depends on in addition to the boards.
    """
    base = base_url(request)
    etag = etag_of(request, str(request.url), queries.board_versions(session), base, version)
    if not ending:
        files = file_links(request.url.path, request.url.query)

        def render() -> bytes:
            return pages_of(request).render(template, base=base, files=files, **make().context)

        return conditional(request, etag, render, media_type=HTML)
    if ending not in exports.VIEW_WRITERS:
        known = " and ".join(f".{name}" for name in exports.VIEW_WRITERS)
        raise Problem(404, f"This page is available as {known} file, not as .{ending[:20]}.")
    path = request.url.path.removesuffix(f".{ending}")
    url = f"{base}{path}" + (f"?{request.url.query}" if request.url.query else "")
    name = re.sub(r"[^\w-]+", "-", path.strip("/"))
    return conditional(
        request,
        etag,
        lambda: exports.VIEW_WRITERS[ending](exports.View(name, url, make().tables())).encode(),
        media_type=exports.MEDIA_TYPES[ending],
        headers=attachment(name, ending),
    )


def file_links(path: str, query: str) -> list[tuple[str, str]]:
    """The files of a page: name and address."""
    suffix = f"?{query}" if query else ""
    start = quote(unquote(path), safe="/") if path != "/" else "/boards"
    return [(name, f"{start}.{ending}{suffix}") for ending, name in (("csv", "CSV"), ("json", "JSON"))]


def split_ending(name: str, exists: Callable[[str], bool]) -> tuple[str, str]:
    """A name, and the ending of a file after it; an existing name is not split, whatever it ends with."""
    start, _, ending = name.rpartition(".")
    return (start, ending) if start and ending in exports.VIEW_WRITERS and not exists(name) else (name, "")


@router.get("/")
@router.get("/boards.{ending}")
def overview(
    request: Request, database: DatabaseDep, view: Annotated[MatrixView, Query()], ending: str = ""
) -> Response:
    """Methods by tasks: this server's boards, and the results that ship with the package."""
    with database.read_session() as session:

        def make() -> Content:
            boards = queries.current_boards(session)
            context = front_page(session, view, shipped.shipped_boards())
            context["tasks"] = () if boards else directory.embedded_tasks()
            counts = queries.entry_counts(session)
            return Content(context, lambda: exports.overview(boards, counts, context["matrix"], context["shipped"]))

        return respond(request, session, "overview.html", ending, make)


class SignificanceQuery(MatrixView):
    """Filters of the front page, and which results are compared."""

    source: Literal["", "server", "shipped"] = ""
    """This server's boards or the results that ship with the package; those of the server if it has boards."""


@router.get("/significance")
@router.get("/significance.{ending}")
def significance(
    request: Request, database: DatabaseDep, view: Annotated[SignificanceQuery, Query()], ending: str = ""
) -> Response:
    """Which methods differ across tasks."""
    with database.read_session() as session:

        def make() -> Content:
            boards = shipped.shipped_boards()
            page = front_page(session, MatrixView(**view.model_dump(exclude={"source"})), boards)
            source = view.source or ("server" if page["matrix"] else "shipped")
            matrix = page["matrix"] if source == "server" else page["shipped"]
            if matrix is None:
                raise Problem(404, "There are no such results on this server.", links=[Link("front page", "/")])
            found = across(matrix)
            return Content({"across": found, "source": source}, lambda: exports.win_rates(found.rates))

        return respond(request, session, "significance.html", ending, make)


@router.get("/compare")
@router.get("/compare.{ending}")
def compare(request: Request, database: DatabaseDep, ids: Ids, ending: str = "") -> Response:
    """Two to six entries next to each other."""
    chosen = list(dict.fromkeys(part for text in ids for part in text.split(",") if part))
    if len(chosen) > comparison.MAX_ENTRIES:
        raise Problem(422, f"Choose at most {comparison.MAX_ENTRIES} entries to compare.")
    with database.read_session() as session:

        def make() -> Content:
            details = [entries.get_entry(session, entry_id) for entry_id in chosen]
            if len({detail.board.id for detail in details}) > 1:
                return Content(across_context(details), lambda: [exports.compare_boards(details)])
            compared = comparison.compare(details)
            context = {"comparison": compared, "board": compared.board, "columns": None}
            return Content(context, lambda: exports.compare(compared))

        return respond(request, session, "compare.html", ending, make)


@router.get("/methods")
@router.get("/methods.{ending}")
def methods(request: Request, database: DatabaseDep, ending: str = "") -> Response:
    """All methods with listed entries."""
    with database.read_session() as session:

        def make() -> Content:
            lines = directory.methods(session)
            return Content({"methods": lines}, lambda: exports.methods(lines))

        return respond(request, session, "methods.html", ending, make)


@router.get("/methods/{name:path}")
def method(request: Request, database: DatabaseDep, settings: SettingsDep, name: str, page: PageNumber = 1) -> Response:
    """One method on all boards."""
    with database.read_session() as session:
        name, ending = split_ending(name, partial(directory.has_method, session))

        def make() -> Content:
            kept = shipped_profiles(shipped.shipped_boards(), name)
            listed = not kept or directory.is_method(session, name)
            descriptions = directory.describe_method(session, name) if listed else []
            size = None if ending else settings.page_rows
            places = directory.placed(session, Entry.method == name, size, page)
            context = {
                "name": name,
                "places": places,
                "descriptions": descriptions,
                "registered": name in unlearning_methods,
                "summary": summaries().get(name, ""),
                "profiles": server_profiles(session, name),
                "shipped": kept,
            }
            return Content(context, lambda: [exports.placed(places.entries)])

        return respond(request, session, "method.html", ending, make)


@router.get("/metrics")
@router.get("/metrics.{ending}")
def metrics(request: Request, database: DatabaseDep, ending: str = "") -> Response:
    """All metrics of the boards."""
    with database.read_session() as session:

        def make() -> Content:
            specs = directory.metric_specs(session)
            return Content({"specs": specs}, lambda: exports.metrics(specs))

        return respond(request, session, "metrics.html", ending, make)


@router.get("/metrics/{name}")
def metric(request: Request, database: DatabaseDep, name: str) -> Response:
    """One metric: what it means, what it misses, and the oracle band on each board."""
    with database.read_session() as session:
        name, ending = split_ending(name, lambda whole: bool(directory.boards_of_metric(session, whole)))

        def make() -> Content:
            boards = directory.boards_of_metric(session, name)
            if not boards and name in (specs := directory.metric_specs(session)):
                spec = specs[name]
                return Content({"name": name, "spec": spec, "columns": []}, lambda: exports.metric(spec, []))
            if not boards:
                detail = f"No board shows a metric {name[:100]!r}."
                raise Problem(404, detail, links=[Link("all metrics", "/metrics")])
            columns = [
                (board, column) for board, _ in boards for column in queries.columns_of(board) if column.name == name
            ]
            spec = boards[0][1]
            return Content({"name": name, "spec": spec, "columns": columns}, lambda: exports.metric(spec, columns))

        return respond(request, session, "metric.html", ending, make)


@router.get("/tasks/{task:path}")
def task(request: Request, database: DatabaseDep, settings: SettingsDep, task: str, pack: PackHash = "") -> Response:
    """One task: images, license, recipe, and the hashes of its evaluation subsets, in any pack."""
    with database.read_session() as session:
        task, ending = split_ending(task, partial(queries.board_exists, session))
        if not ending and not queries.board_exists(session, task) and (planned := directory.catalog_task(task)):
            return HTMLResponse(pages_of(request).render("planned.html", **directory.catalog_task_context(planned)))

        def make() -> Content:
            board = queries.get_board(session, task, pack or None)
            others = [other for other in queries.boards_of_task(session, task) if other.id != board.id]
            bundle = reference.load_bundle(settings, board)
            card = bundle.card
            columns = [column for column in queries.columns_of(board) if column.name in TASK_METRICS]
            context = {
                "board": board,
                "card": card,
                "display": display.display_of(bundle.folder, card.classes),
                "versions": others,
                "columns": columns,
                "references": queries.reference_rows(session, board, columns),
            }
            return Content(context, lambda: exports.task(board, card))

        return respond(request, session, "task.html", ending, make)


@router.get("/shipped")
@router.get("/shipped.{ending}")
def shipped_results(request: Request, database: DatabaseDep, ending: str = "") -> Response:
    """The tasks whose results ship with the package."""
    with database.read_session() as session:

        def make() -> Content:
            tasks = [(board.task, board.title) for board in shipped.shipped_boards()]
            context = {"board": None, "tasks": tasks, "version": shipped.package_version()}
            return Content(context, lambda: exports.shipped_tasks(tasks))

        return respond(request, session, "shipped.html", ending, make)


@router.get("/shipped/{task:path}")
def shipped_board(request: Request, database: DatabaseDep, task: str) -> Response:
    """The shipped results of a task: a read-only board, apart from this server's board of that task."""
    with database.read_session() as session:
        task, ending = split_ending(task, lambda whole: whole in shipped.shipped_tasks())

        def make() -> Content:
            board = shipped.shipped_board(task)
            exists = queries.board_exists(session, task)
            context = {**shipped_context(board), "task_exists": exists, "version": shipped.package_version()}
            return Content(context, lambda: exports.shipped(board))

        return respond(request, session, "shipped.html", ending, make)


@router.get("/submitters/{name:path}")
def submitter(
    request: Request, database: DatabaseDep, settings: SettingsDep, name: str, page: PageNumber = 1
) -> Response:
    """One submitter: attempts by board, and listed entries."""
    with database.read_session() as session:
        name, ending = split_ending(name, partial(directory.is_submitter, session))

        def make() -> Content:
            attempts = directory.attempts(session, name) if "\0" not in name else []
            if not attempts:
                raise Problem(404, f"There is no submitter {name[:100]!r}.")
            size = None if ending else settings.page_rows
            places = directory.placed(session, Entry.submitter == name, size, page)
            context = {"name": name, "places": places, "attempts": attempts}
            return Content(context, lambda: [exports.attempts(attempts), exports.placed(places.entries)])

        return respond(request, session, "submitter.html", ending, make)


@router.get("/submit")
@router.get("/submit.{ending}")
def submit(request: Request, database: DatabaseDep, settings: SettingsDep, ending: str = "") -> Response:
    """How to submit, with the fields of the manifest and this server's limits."""
    with database.read_session() as session:
        warning = queue.worker_warning(session, settings.lease_seconds)

        def make() -> Content:
            boards = queries.current_boards(session)
            tasks, sealed = [board.task for board in boards], [board for board in boards if board.sealed]
            tables = schema_tables(Manifest)
            context = {"tasks": tasks, "sealed": sealed, "settings": settings, "tables": tables, "warning": warning}
            return Content(context, lambda: exports.submit(tables))

        return respond(request, session, "submit.html", ending, make, warning)


@router.get("/api")
def api_reference(request: Request) -> Response:
    """All routes of the API with their parameters and responses."""
    base = base_url(request)

    def make() -> bytes:
        document = request.app.openapi()
        return pages_of(request).render(
            "api.html",
            about=document["info"]["description"],
            operations=openapi.operations(document),
            documents=openapi.documents(document),
            base=base,
        )

    return conditional(request, etag_of(request, "/api", base), make, media_type=HTML)


def schema_tables(model: type[BaseModel]) -> list[tuple[str, list[tuple[str, str, bool, str]]]]:
    """Each record that a model consists of, with its fields: name, type, whether required, meaning."""
    schema = model.model_json_schema()
    records = {schema["title"]: schema, **schema.get("$defs", {})}
    meanings = field_docs(sys.modules[model.__module__])
    tables = []
    for title, record in records.items():
        required = record.get("required", [])
        rows = [
            (name, openapi.type_of(field), name in required, meanings.get((title, name), ""))
            for name, field in record.get("properties", {}).items()
        ]
        tables.append((title, rows))
    return tables


@lru_cache(maxsize=4)
def field_docs(module: ModuleType) -> dict[tuple[str, str], str]:
    """(class, field) -> the docstring below the field in the source."""
    docs = {}
    for node in parse_python(inspect.getsource(module)).body:
        if isinstance(node, ast.ClassDef):
            for field, text in pairwise(node.body):
                if not (isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)):
                    continue
                if isinstance(text, ast.Expr) and isinstance(text.value, ast.Constant):
                    docs[(node.name, field.target.id)] = " ".join(str(text.value.value).split())
    return docs
