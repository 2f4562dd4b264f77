"""A run says which weights of a checkpoint it could not use."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from support.training import make_spec

from forgetbench.api.progress import ProgressBar
from forgetbench.runner.config import NullProgress, RunConfig
from forgetbench.runner.run import run
from forgetbench.store import file_digest
from forgetbench.tasks.task import Task, read_task


class Notes(NullProgress):
    """Progress callback that keeps notes."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def note(self, text: str) -> None:
        self.texts.append(text)


@pytest.fixture
def task(write_task: Callable[..., Path], tmp_path: Path) -> Task:
    """A task whose network starts from a file with another head."""
    weights = tmp_path / "start.pt"
    torch.save(make_spec("mlp", 8, 1, 4, hidden=[16]).build(3).state_dict(), weights)
    path = write_task("random", "fraction = 0.1", epochs=1)
    options = f'hidden = [16], checkpoint = "{weights}", sha256 = "{file_digest(weights)}"'
    path.write_text(path.read_text().replace("hidden = [16]", options))
    return read_task(str(path))


def test_run_notes_tensors_that_were_not_loaded(task: Task, tmp_path: Path) -> None:
    notes = Notes()
    run([task], lambda _: [], RunConfig(home=tmp_path / "home", device="cpu", engine="local"), notes)
    assert notes.texts == [
        "test/mlp/random: start.pt: not loaded, newly initialized: head.weight (4, 16) instead of (10, 16), "
        "head.bias (4,) instead of (10,)."
    ]


def test_progress_bar_prints_notes(capsys: pytest.CaptureFixture[str]) -> None:
    with ProgressBar() as bar:
        bar.note("t: x.pt: not loaded [head]")
    assert capsys.readouterr().err == "t: x.pt: not loaded [head]\n"
