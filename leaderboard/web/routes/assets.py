"""Files that pages load: the icon and the program of the interactive charts."""

from __future__ import annotations

from fastapi import APIRouter, Response
from fastapi.responses import FileResponse

from forgetbench.leaderboard.auth.dependencies import SettingsDep
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


@router.get("/favicon.ico")
def icon() -> FileResponse:
    """The site's icon, for responses that do not name one, such as JSON."""
    return FileResponse(STATIC / "icon.svg", media_type=SVG, headers={"Cache-Control": "max-age=86400"})
