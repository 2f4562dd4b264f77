"""The commands demo, serve, worker and pack: the leaderboard here."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import ProgressBar, out, remark
from forgetbench.cli.run import Device
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.leaderboard.settings import Settings

Flag = Annotated[bool, Parameter(negative="")]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(demo)
    app.command(serve)
    app.command(worker)
    app.command(pack := App(name="pack", help="What a board is scored against.", help_format="plaintext"))
    pack.command(build)
    pack.command(install_here, name="install")
    pack.command(check)
    pack.command(pull)


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
    from forgetbench.cli.report import print_tables
    from forgetbench.demo import run_demo
    from forgetbench.reporting.tables import board_table
    from forgetbench.runner.config import RunConfig

    options = RunConfig(device="cpu", engine=executor, workers=workers)
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
    from forgetbench.leaderboard.admin import has_boards
    from forgetbench.leaderboard.serve import serve as serve_site

    chosen = settings(database, data)
    if not has_boards(chosen):
        remark(
            "There is no board yet. `forgetbench pack build digits/cnn/class --install` trains what one needs and "
            "adds it, while this runs too; `forgetbench list tasks` names tasks, `forgetbench demo` makes two boards."
        )
    out().print(f"The leaderboard is at http://{host}:{port} (Ctrl-C stops it).", markup=False)
    serve_site(chosen, host, port, with_worker=not no_worker)


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
    from forgetbench.leaderboard.serve import run_worker

    run_worker(settings(database, data))


def build(
    task: str,
    *,
    seeds: int | None = None,
    draws: int | None = None,
    root: Path | None = None,
    install: Flag = False,
) -> None:
    """Train a task's originals and oracles, and gather what a board needs of them.

    Example: forgetbench pack build digits/cnn/class --install

    Parameters
    ----------
    task
        Name of the task.
    seeds
        Originals, and oracles in each of the two sets.
    draws
        Forget sets.
    root
        Folder of the image sets on disk.
    install
        Make a board of it on the leaderboard of this machine.
    """
    from forgetbench.runner.config import RunConfig
    from forgetbench.runner.run import run
    from forgetbench.tasks.task import read_task

    wanted = read_task(task).with_counts(seeds=seeds, draws=draws)
    with ProgressBar() as watcher:
        [done] = run([wanted], lambda _: [], RunConfig(root=root), watcher)
    if done.reference is None:
        return
    out().print(str(done.reference.folder), markup=False)
    if install:
        install_here(done.reference.folder)
    else:
        remark("On the server's machine, `forgetbench pack install FOLDER` makes a board of it.")


def install_here(folder: Path, *, database: str | None = None, data: Path | None = None) -> None:
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
    from forgetbench.leaderboard.admin import install_bundle

    board = install_bundle(settings(database, data), folder)
    out().print(f"The board of {board.task} is installed.", markup=False)


def check(folder: Path) -> None:
    """Check every file of a pack against its hash.

    Example: forgetbench pack check PACK_FOLDER

    Parameters
    ----------
    folder
        The pack's folder.
    """
    from forgetbench.evidence.reference import read_pack

    card = read_pack(folder).card
    out().print(f"{card.task}: {len(card.files)} files as they should be; {card.seeds} seeds, {card.draws} draws.")


def pull(
    task: str,
    *,
    server: str,
    pack: str = "",
    root: Path | None = None,
    to: Path | None = None,
    device: Device = "auto",
) -> None:
    """Fetch a board's originals, so that runs here start from them.

    Example: forgetbench pack pull digits/cnn/class --server https://board.example.org

    Parameters
    ----------
    task
        Name of the task.
    server
        Address of the leaderboard.
    pack
        The beginning of a pack's hash, of an earlier version of the board; the present one if left out.
    root
        Folder of the image sets on disk.
    to
        Keep the pack's files in this folder too: the originals' weights, and the rows that are asked about.
    """
    from tempfile import TemporaryDirectory

    from forgetbench.leaderboard.client.submit import pull_bundle
    from forgetbench.remote.pull import import_originals
    from forgetbench.runner.config import RunConfig
    from forgetbench.tasks.task import read_task

    wanted = read_task(task)
    with TemporaryDirectory(prefix="forgetbench-") as place:
        folder = pull_bundle(task, server, to or Path(place) / "pack", pack=pack)
        done = import_originals(wanted, folder, RunConfig(root=root, device=device))
    out().print(f"{done.count} originals of {task} are in the store.", markup=False)
    if done.replaced:
        remark(
            f"They replace other originals of seeds {', '.join(map(str, done.replaced))}, which runs here started from "
            "so far; runs that were made from those stay, and cannot be submitted to this board."
        )
    remark(f"forgetbench run {task} --seeds {done.count} --skip-oracles --method NAME starts from them.")


def settings(database: str | None, data: Path | None) -> Settings:
    """The server's settings: from the environment, and what the command line says above it.

    Raises:
        UsageError: A variable's value is none that the setting takes.
    """
    from pydantic import ValidationError

    from forgetbench.leaderboard.settings import Settings

    chosen = {"database_url": database, "server_folder": data}
    try:
        return Settings.model_validate({name: value for name, value in chosen.items() if value is not None})
    except ValidationError as error:
        names = [str(item["loc"][0]).upper().removeprefix("FORGETBENCH_") for item in error.errors()]
        said = "; ".join(f"FORGETBENCH_{name}: {item['msg']}" for name, item in zip(names, error.errors(), strict=True))
        raise UsageError(f"{said}. Set or unset the variable; docs/run-a-leaderboard.md lists them.") from None
