"""The commands demo, serve, worker, submit and admin: the leaderboard, on the server's machine and from afar."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.output import ProgressBar, UploadBar, out, print_json, remark

if TYPE_CHECKING:
    from forgetbench.leaderboard.settings import Settings

Flag = Annotated[bool, Parameter(negative="")]
Scope = Literal["submit", "verify", "moderate"]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(demo)
    app.command(serve)
    app.command(worker)
    app.command(submit)
    app.command(pack := App(name="pack", help="What a board is scored against.", help_format="plaintext"))
    pack.command(install)
    app.command(admin := App(name="admin", help="Operate a leaderboard, on its machine.", help_format="plaintext"))
    admin.command(token := App(name="token", help="Tokens of submitters.", help_format="plaintext"))
    token.command(create)


def demo(*, workers: int | None = None, executor: Literal["auto", "processes", "local"] = "auto") -> None:
    """Run the main job on embedded data: train, unlearn, score, post to a local leaderboard, and show the boards.

    Example: forgetbench demo

    Parameters
    ----------
    workers
        Processes; one for each core if left out.
    executor
        Side by side in processes, or in order here.
    """
    from forgetbench.cli.running import print_tables
    from forgetbench.demo import run_demo
    from forgetbench.reports import board_table
    from forgetbench.suite import Options

    options = Options(device="cpu", executor=executor, workers=workers)
    with ProgressBar() as watcher:
        standings = run_demo(options, watcher, remark)
    print_tables([board_table(standing, card) for standing, card in standings], "table")
    out().print("The boards are posted. Open them in a browser with\n\n    forgetbench serve\n", markup=False)
    remark("at http://127.0.0.1:8000; in a checkout, `make serve` does the same.")


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    database: str | None = None,
    data: Path | None = None,
    no_worker: Flag = False,
) -> None:
    """Serve the leaderboard, with a scoring process beside it.

    Example: forgetbench serve --port 8000

    Parameters
    ----------
    host
        Address to listen on.
    port
        Port to listen on.
    database
        SQLAlchemy URL; a SQLite file in the server's folder if left out.
    data
        The server's folder.
    no_worker
        Start no scoring process; run `forgetbench worker` for that.
    """
    from forgetbench.leaderboard.server import serve as serve_site

    out().print(f"The leaderboard is at http://{host}:{port} (Ctrl-C stops it).", markup=False)
    serve_site(_settings(database, data), host, port, with_worker=not no_worker)


def worker(*, database: str | None = None, data: Path | None = None) -> None:
    """Score submissions; several may run beside one PostgreSQL database.

    Example: forgetbench worker

    Parameters
    ----------
    database
        SQLAlchemy URL; a SQLite file in the server's folder if left out.
    data
        The server's folder.
    """
    from forgetbench.leaderboard.server import run_worker

    run_worker(_settings(database, data))


def submit(run_folder: Path, *, server: str, dry_run: Flag = False, json: Flag = False) -> int:
    """Check a run, upload it, and wait for the server's verdict. The token comes from FORGETBENCH_TOKEN or a file.

    Example: forgetbench submit RUN_FOLDER --server https://board.example.org --dry-run

    Parameters
    ----------
    run_folder
        The folder of a run, as `forgetbench run` prints it.
    server
        Address of the leaderboard.
    dry_run
        Only find out what the server would say.
    json
        Print the server's answer as JSON.
    """
    from forgetbench.leaderboard.client import submit as submit_run

    with UploadBar() as bar:
        verdict = submit_run(run_folder, server, dry_run=dry_run, progress=bar)
    if json:
        print_json(verdict.document)
    else:
        out().print(f"{verdict.task}: {verdict.detail}", markup=False)
        if verdict.url:
            out().print(verdict.url, markup=False)
    return 1 if verdict.state == "rejected" else 0


def install(folder: Path, *, database: str | None = None, data: Path | None = None) -> None:
    """Make a board of a pack, on the server's machine.

    Example: forgetbench pack install ~/.local/share/forgetbench/packs/digits/cnn/class/0123456789ab-g1-s6

    Parameters
    ----------
    folder
        The pack's folder.
    database
        SQLAlchemy URL; a SQLite file in the server's folder if left out.
    data
        The server's folder.
    """
    from forgetbench.leaderboard.server import install_pack

    board = install_pack(_settings(database, data), folder)
    out().print(f"The board of {board.task} is installed.", markup=False)


def create(
    name: str,
    *,
    scope: Annotated[list[Scope] | None, Parameter(negative="")] = None,
    days: int | None = None,
    database: str | None = None,
    data: Path | None = None,
) -> None:
    """Make a token. It is printed once, and only its hash is kept.

    Example: forgetbench admin token create "Ada Lovelace" --scope submit

    Parameters
    ----------
    name
        Who gets it; boards show this name.
    scope
        What it may do; submit if left out. May stand several times.
    days
        Days until it expires; never if left out.
    database
        SQLAlchemy URL; a SQLite file in the server's folder if left out.
    data
        The server's folder.
    """
    from forgetbench.leaderboard.server import create_token

    token = create_token(_settings(database, data), name, scope or ["submit"], days=days)
    out().print(token, markup=False)
    remark("Shown this once. Give it in FORGETBENCH_TOKEN, or in the private file `token` of ForgetBench's folder.")


def _settings(database: str | None, data: Path | None) -> Settings:
    from forgetbench.leaderboard.settings import Settings

    chosen: dict[str, object] = {}
    if database is not None:
        chosen["database_url"] = database
    if data is not None:
        chosen["server_folder"] = data
    return Settings.model_validate({**Settings().model_dump(), **chosen})
