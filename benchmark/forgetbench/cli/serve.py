"""The commands demo, serve, worker, runner and pack: the leaderboard of this machine."""

from __future__ import annotations

from pathlib import Path

from cyclopts import App

from forgetbench.cli.console import print_note, print_text
from forgetbench.cli.options import RUN, SERVER, Flag, RunOptions, ServerOptions
from forgetbench.errors import UsageError


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(demo)
    app.command(serve)
    app.command(worker)
    app.command(runner)
    app.command(pack := App(name="pack", help="Reference bundles: what boards score against.", help_format="plaintext"))
    pack.command(build)
    pack.command(install)
    pack.command(check)
    pack.command(pull)
    pack.command(reveal)


def demo(*, options: RunOptions = RUN) -> None:
    """Train, unlearn, score, post to a local leaderboard, and show the boards; needs no downloads.

    Example: forgetbench demo
    """
    from forgetbench.api.progress import ProgressBar
    from forgetbench.cli.report import print_tables
    from forgetbench.demo import run_demo

    with ProgressBar() as progress:
        boards = run_demo(options.config(), progress, print_note)
    print_tables([table for board in boards for table in board.tables], "table")
    print_text("The boards are posted. Open them in a browser with\n\n    forgetbench serve\n")
    print_note("at http://127.0.0.1:8000; in a checkout, `make serve` does the same.")


def serve(
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    server: ServerOptions = SERVER,
    no_worker: Flag = False,
    no_runner: Flag = False,
) -> None:
    """Serve the leaderboard, with a scoring worker and, where torch and a sandbox are there, a runner.

    Example: forgetbench serve --port 8000

    Args:
        host: Address to listen on.
        port: Port to listen on.
        no_worker: Start no scoring worker; run `forgetbench worker` for that.
        no_runner: Start no runner, which verifies submissions; run `forgetbench runner` for that.
    """
    from forgetbench.leaderboard.admin import has_boards
    from forgetbench.leaderboard.serve import serve as serve_site

    settings = server.settings()
    if not has_boards(settings):
        print_note(
            "There are no boards yet. `forgetbench pack build digits/cnn/class --install` trains the models of one and "
            "adds it, also while the server runs; `forgetbench demo` makes two boards."
        )
    print_text(f"The leaderboard is at http://{host}:{port} (Ctrl-C stops it).")
    serve_site(settings, host, port, with_worker=not no_worker, with_runner=not no_runner)


def worker(*, server: ServerOptions = SERVER) -> None:
    """Score submissions. Several workers can share one PostgreSQL database.

    Example: forgetbench worker
    """
    from forgetbench.leaderboard.serve import run_worker

    run_worker(server.settings())


def runner(
    *,
    trust_code: Flag = False,
    container: str = "",
    time_limit: str = "30m",
    memory: float = 8.0,
    root: Path | None = None,
    device: str = "auto",
    server: ServerOptions = SERVER,
) -> None:
    """Verify submissions: run their methods in a sandbox on the boards' public and sealed draws.

    Several runners can share one PostgreSQL database and the server's folder. Submitted code runs in bubblewrap, or in
    a container; without either, this command refuses.

    Example: forgetbench runner --memory 4

    Args:
        trust_code: Use no sandbox. Only where you trust every submitter with this machine.
        container: Image of a container to use as the sandbox; it needs docker or podman.
        time_limit: Longest time for one call of a method, such as 90s, 30m or 2h.
        memory: Memory of one call of a method, in GiB.
        root: Folder of the image sets on disk.
        device: torch device: cpu, cuda, or auto.
    """
    from forgetbench.cli.options import parse_duration
    from forgetbench.runner.config import RunConfig
    from forgetbench.verification.limits import GIB, Limits
    from forgetbench.verification.runner import run_runner

    seconds = parse_duration(time_limit)
    if not seconds > 0 or not memory > 0:
        raise UsageError("--time-limit and --memory must be above 0.")
    limits = Limits(wall_seconds=seconds, cpu_seconds=2 * seconds, memory=int(memory * GIB))
    config = RunConfig(root=root, device=device)
    run_runner(server.settings(), trust_code=trust_code, container=container, limits=limits, config=config)


def build(
    task: str,
    *,
    seeds: int | None = None,
    draws: int | None = None,
    install: Flag = False,
    audit: Flag = False,
    options: RunOptions = RUN,
    server: ServerOptions = SERVER,
) -> None:
    """Train the originals and oracles of a task, and collect the reference bundle of a board.

    With --install, on the server's machine, it makes a sealed board: the seeds of its oracles, and everything of its
    sealed draws, derive from the server's salt, so that no one else can train them. That trains three times as many
    models: for public draws, for sealed draws, and for the development bundle. Without --install, anyone can train the
    same oracles.

    Example: forgetbench pack build digits/cnn/class --install

    Args:
        task: Name of the task.
        seeds: Number of originals, and of oracles in each of the two sets.
        draws: Number of forget sets.
        install: Make a sealed board of it on the leaderboard of this machine.
        audit: With --install, also test the metrics; those that fail do not rank on the board.
    """
    if install:
        _build_sealed(task, seeds, draws, options, server, audit=audit)
        return
    if audit:
        raise UsageError(
            "--audit is part of making a board. Add --install, or run `forgetbench audit TASK` afterwards."
        )
    print_text(_build_local(task, seeds, draws, options))
    print_note(
        "On the server's machine, `forgetbench pack install FOLDER` makes a board of it that is not sealed; with "
        "--install, this command makes a sealed one."
    )


def _build_local(task: str, seeds: int | None, draws: int | None, options: RunOptions) -> str:
    """Build a bundle, with what pages show of it; returns its folder."""
    from forgetbench import evaluate
    from forgetbench.api.tasks import load_task
    from forgetbench.runner.display import write_display

    folder = evaluate([], task, seeds=seeds, draws=draws, config=options.config()).reference_folder
    write_display(folder, load_task(task, seeds=seeds, draws=draws), options.config())
    return str(folder)


def _build_sealed(
    task: str, seeds: int | None, draws: int | None, options: RunOptions, server: ServerOptions, *, audit: bool
) -> None:
    from forgetbench.api.progress import ProgressBar
    from forgetbench.api.tasks import load_task
    from forgetbench.remote.build import build_sealed_board

    loaded = load_task(task, seeds=seeds, draws=draws)
    with ProgressBar() as progress:
        board = build_sealed_board(loaded, server.settings(), options.config(), progress, audit=audit)
    print_text(f"The sealed board of {board.task}, round {board.round}, is installed.")


def install(folder: Path, *, server: ServerOptions = SERVER) -> None:
    """Make a board of a local reference bundle, on the server's machine. It is not sealed: see `pack build --install`.

    Example: forgetbench pack install ~/.local/share/forgetbench/packs/digits/cnn/class/0123456789ab-g1-s6

    Args:
        folder: Folder of the reference bundle.
    """
    from forgetbench.leaderboard.admin import install_bundle

    print_text(f"The board of {install_bundle(server.settings(), folder).task} is installed.")


def check(folder: Path) -> None:
    """Check every file of a reference bundle against its hash.

    Example: forgetbench pack check PACK_FOLDER

    Args:
        folder: Folder of the reference bundle.
    """
    from forgetbench.evidence.reference import read_pack

    card = read_pack(folder).card
    print_text(f"{card.task}: {len(card.files)} files are intact; {card.seeds} seeds, {card.draws} draws.")


def reveal(task: str, *, server: ServerOptions = SERVER) -> None:
    """Publish the salt of a sealed board's round, which ends the round. Its scores can then be repeated by anybody.

    The board accepts no more submissions until `forgetbench pack build TASK --install` makes the next round's.

    Example: forgetbench pack reveal digits/cnn/class

    Args:
        task: Name of the task.
    """
    from forgetbench.leaderboard.admin import reveal_salt

    done = reveal_salt(server.settings(), task)
    print_text(done.salt)
    print_note(
        f"Round {done.number} of {task} is over; its page shows the salt. Repeat its scores: forgetbench run {task} "
        f"--salt {done.salt} --method NAME"
    )


def pull(
    task: str,
    *,
    server: str,
    pack: str = "",
    to: Path | None = None,
    development: Flag = False,
    options: RunOptions = RUN,
) -> None:
    """Download a board's originals, so that runs on this machine start from them.

    With --development it is the development bundle of a sealed board: other seeds, with labels and the logits of
    oracles, to score with bands without training oracles. Its scores are not the board's.

    Example: forgetbench pack pull digits/cnn/class --server https://board.example.org

    Args:
        task: Name of the task.
        server: Address of the leaderboard.
        pack: First characters of the hash of an earlier reference bundle (default: the current one).
        to: Also keep the bundle's files in this folder: weights of the originals, and row indices of each subset.
        development: Download the development bundle instead.
    """
    from forgetbench.api.leaderboard import pull_originals

    if development:
        if to is not None:
            raise UsageError("Give either --development or --to: the development bundle has a folder of its own.")
        _pull_development(task, server, pack, options)
        return
    done = pull_originals(task, server, pack=pack, folder=to, config=options.config())
    print_text(f"{done.count} originals of {task} are in the store.")
    if done.replaced:
        seeds = ", ".join(map(str, done.replaced))
        print_note(f"They replace the originals of seeds {seeds}. Earlier runs cannot be submitted to this board.")
    print_note(f"Start from them: forgetbench run {task} --seeds {done.count} --skip-oracles --method NAME")


def _pull_development(task: str, server: str, pack: str, options: RunOptions) -> None:
    from forgetbench.api.leaderboard import pull_development

    bundle = pull_development(task, server, pack=pack, config=options.config())
    print_text(f"The development bundle of {task} is in {bundle.folder}.")
    draws = f" --draws {bundle.draws}" if bundle.draws > 1 else ""
    print_note(f"Score with it: forgetbench run {bundle.task} --seeds {bundle.seeds}{draws} --method NAME")
