"""The page of one entry, and its tables as files."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import display, entries, queries
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import exports
from forgetbench.leaderboard.submissions import reference
from forgetbench.leaderboard.web.caching import conditional, etag_of
from forgetbench.leaderboard.web.context import base_url, pages_of
from forgetbench.leaderboard.web.routes.boards import HTML, attachment

router = APIRouter()


@router.get("/entries/{entry_id}")
def entry(request: Request, database: DatabaseDep, settings: SettingsDep, entry_id: str) -> Response:
    """An entry; with ``.csv`` or ``.json`` after its id, its tables as a file."""
    entry_id, _, ending = entry_id.partition(".")
    base = base_url(request)
    with database.read_session() as session:
        detail = entries.get_entry(session, entry_id)
        if ending:
            if ending not in exports.VIEW_WRITERS:
                raise Problem(404, f"Entries are available as .{' and .'.join(exports.VIEW_WRITERS)} files.")
            tables = exports.entry(detail, queries.columns_of(detail.board))
            view = exports.View(detail.entry.label, f"{base}/entries/{entry_id}", tables)
            body, headers = exports.VIEW_WRITERS[ending](view), attachment(entry_id, ending)
            return Response(body, media_type=exports.MEDIA_TYPES[ending], headers=headers)

        def make() -> bytes:
            bundle = reference.load_bundle(settings, detail.board)
            shown = display.display_of(bundle.folder, bundle.card.classes)
            return pages_of(request).render("entry.html", **entries.template_context(detail, base, shown))

        etag = etag_of(request, "entry", *entries.entry_version(detail), base)
        return conditional(request, etag, make, media_type=HTML)
