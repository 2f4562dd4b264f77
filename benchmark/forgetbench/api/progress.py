"""Progress bars in terminals and notebooks, and log lines elsewhere."""

from __future__ import annotations

import io
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
)

from forgetbench.errors import printable

if TYPE_CHECKING:
    from forgetbench.runner.config import ProgressCallback

_REFRESH_SECONDS = 0.2
"""Shortest time between two updates of a notebook's output."""
_HTML = '<pre style="white-space:pre;overflow-x:auto;line-height:normal">{code}</pre>'


@contextmanager
def open_progress(progress: bool | ProgressCallback) -> Iterator[ProgressCallback]:
    """The progress callback of a call: a bar for True, nothing for False, or the caller's own."""
    from forgetbench.runner.config import NullProgress

    if progress is True:
        with ProgressBar() as bar:
            yield bar
    else:
        yield NullProgress() if progress is False else progress


class ProgressBar:
    """Progress callback with one bar per task in a terminal or notebook, and two log lines per task elsewhere."""

    def __init__(self) -> None:
        self._console = Console(stderr=True, highlight=False)
        self._notebook = _NotebookOutput() if self._console.is_jupyter else None
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            TextColumn("{task.fields[what]}", style="dim"),
            console=self._console,
            disable=not self._console.is_terminal or self._notebook is not None,
        )
        self._task: TaskID | None = None
        self._trained = self._jobs = 0

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display."""
        self._progress.stop()
        self._show(force=True)

    def begin(self, task: str, jobs: int) -> None:
        """A task begins."""
        self._trained = self._jobs = 0
        self._task = self._progress.add_task(task, total=jobs, what="loading")
        self._log(f"{task}: {jobs} jobs")

    def done(self, title: str, *, from_cache: bool) -> None:
        """A job ended."""
        self._jobs += 1
        self._trained += not from_cache
        if self._task is not None:
            self._progress.update(self._task, advance=1, what=title)
        self._show()

    def end(self, task: str) -> None:
        """A task ended."""
        if self._task is not None:
            self._progress.update(self._task, total=self._jobs, completed=self._jobs, what="scoring")
        self._show(force=True)
        self._log(f"{task}: done, {self._trained} models computed, {self._jobs - self._trained} jobs from the store")

    def note(self, text: str) -> None:
        """Print a line above the bar."""
        self._console.print(printable(text), markup=False, soft_wrap=True)

    def _show(self, *, force: bool = False) -> None:
        if self._notebook is not None and self._task is not None:
            self._notebook.update(self._progress, force=force)

    def _log(self, line: str) -> None:
        if self._progress.disable and self._notebook is None:
            sys.stderr.write(f"{line}\n")


class UploadBar:
    """Shows how much of a file is uploaded; silent when not in a terminal."""

    def __init__(self) -> None:
        console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("uploading"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal or console.is_jupyter,
        )
        self._task = self._progress.add_task("upload", total=None)

    def __enter__(self) -> Self:
        """Start the display."""
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop the display."""
        self._progress.stop()

    def __call__(self, sent: int, size: int) -> None:
        """Update the bar: bytes sent, of all bytes."""
        self._progress.update(self._task, completed=sent, total=size)


class _NotebookOutput:
    """One output of a notebook cell that is replaced on each update; rich's own display would need ipywidgets."""

    def __init__(self) -> None:
        self._handle: Any = None
        self._updated = 0.0

    def update(self, progress: Progress, *, force: bool) -> None:
        from IPython.display import HTML, display

        now = time.monotonic()
        if not force and now - self._updated < _REFRESH_SECONDS:
            return
        self._updated = now
        console = Console(record=True, file=io.StringIO(), force_jupyter=False, force_terminal=True, width=110)
        console.print(progress.get_renderable())
        page = HTML(console.export_html(inline_styles=True, code_format=_HTML))
        if self._handle is None:
            self._handle = display(page, display_id=True)
        else:
            self._handle.update(page)
