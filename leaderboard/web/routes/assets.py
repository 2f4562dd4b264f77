"""Files that pages load: the icon and the program of the interactive charts."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from forgetbench.leaderboard.auth.dependencies import DatabaseDep, SettingsDep
from forgetbench.leaderboard.boards import display, queries
from forgetbench.leaderboard.boards.view import PackHash
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.render import vega
from forgetbench.leaderboard.render.templates import STATIC
from forgetbench.leaderboard.web.routes.boards import SVG

router = APIRouter()


@router.get("/vega.js")
def vega_program(settings: SettingsDep) -> Response:
    """The program of the interactive charts; its address contains its version, so that browsers may cache it."""
    path = vega.program_path(settings)
    if not path.is_file():
        raise Problem(404, "Interactive charts are not available yet: a worker writes their program when it starts.")
    return FileResponse(path, media_type="text/javascript", headers={"Cache-Control": "max-age=31536000, immutable"})


@router.get("/pictures/{pack}/{name}.png")
def picture(database: DatabaseDep, settings: SettingsDep, pack: PackHash, name: str) -> Response:
    """A picture of a board's public draws, where its image set may be shown: a contact sheet or a forgotten example."""
    with database.read_session() as session:
        sha = queries.pack_of(session, pack) if pack else None
    body = display.picture(settings.packs / sha / "pack", name) if sha is not None else None
    if body is None:
        raise Problem(404, "There is no such picture: the images may not be shown, or the pack was built without them.")
    return Response(body, media_type="image/png", headers={"Cache-Control": "max-age=86400"})


@router.get("/favicon.ico")
def icon() -> FileResponse:
    """The site's icon, for responses that do not name one, such as JSON."""
    return FileResponse(STATIC / "icon.svg", media_type=SVG, headers={"Cache-Control": "max-age=86400"})
