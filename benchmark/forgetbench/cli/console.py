"""What the command line prints: tables on the standard output, progress and complaints beside it."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)
from rich.table import Table


def out() -> Console:
    """The console of results. On something that is no terminal it never wraps a line."""
    return Console(soft_wrap=not sys.stdout.isatty(), highlight=False)


def complain(message: str) -> None:
    """Print a message where errors go."""
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]forgetbench:[/] {escape(message)}")


def remark(message: str) -> None:
    """Print a remark beside the results, where programs do not read it; what a terminal would obey is spelt out."""
    plain = "".join(
        sign if sign in "\n\t" or sign.isprintable() else sign.encode("unicode_escape").decode() for sign in message
    )
    Console(stderr=True, highlight=False, soft_wrap=True).print(escape(plain))


def print_json(value: Any) -> None:
    """Print a value as JSON on the standard output."""
    sys.stdout.write(json.dumps(value, indent=1, ensure_ascii=False, default=str) + "\n")


def print_table(
    title: str, columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Iterable[int] = (), caption: str = ""
) -> None:
    """Print a table; columns whose numbers are in ``right`` are set flush right."""
    table = Table(title=escape(title) or None, title_justify="left", caption=escape(caption) or None, box=None)
    table.caption_justify = "left"
    table.title_style, table.pad_edge = "bold", False
    aligned = set(right)
    for number, column in enumerate(columns):
        table.add_column(
            column, justify="right" if number in aligned else "left", no_wrap=number in aligned or number < 2
        )
    for row in rows:
        table.add_row(*(escape(cell) for cell in row))
    console = out()
    if not console.is_terminal:
        console.width = 240
    console.print(table)


class ProgressBar:
    """A watcher of runs: a bar per task with what was done last and the time left; a line per task elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", style="dim"),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._task: TaskID | None = None
        self._fresh = self._jobs = 0

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        self._progress.stop()

    def begin(self, task: str, jobs: int) -> None:
        """A task begins."""
        self._fresh = self._jobs = 0
        self._task = self._progress.add_task(task, total=jobs, what="loading")
        if self._progress.disable:
            remark(f"{task}: {jobs} jobs")

    def done(self, title: str, *, from_cache: bool) -> None:
        """A job ended."""
        self._jobs += 1
        self._fresh += not from_cache
        if self._task is not None:
            self._progress.update(self._task, advance=1, what=title)

    def end(self, task: str) -> None:
        """A task ended."""
        if self._task is not None:
            self._progress.update(self._task, total=self._jobs, completed=self._jobs, what="scoring")
        if self._progress.disable:
            remark(f"{task}: done, {self._fresh} models made, the others taken from the store")


class UploadBar:
    """Shows how far an upload is; quiet when not on a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("uploading"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._progress.add_task("upload", total=None)

    def __enter__(self) -> Self:
        """Begin to show."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop showing."""
        self._progress.stop()

    def __call__(self, sent: int, size: int) -> None:
        """So many bytes are sent, of so many."""
        self._progress.update(self._task, completed=sent, total=size)
