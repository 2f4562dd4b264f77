"""Submitting says what becomes public, asks once, and sends no path of the submitter's machine."""

from __future__ import annotations

import io
import sys

import pytest

from forgetbench.cli import main
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.client import http
from forgetbench.leaderboard.client.submit import submit
from forgetbench.leaderboard.db.models import BoardRun, Entry
from forgetbench.runner.method_spec import parse_methods
from forgetbench.tasks.task import read_task

SERVER = "http://127.0.0.1:8000"
SOURCE = "class Mine:\n    pass\n"
COMMAND = "forgetbench run tiny/cnn/random-10 --method-file /home/ada/secret/my_method.py:Mine:lr=0.1 --seeds 6"
METHOD = """
from dataclasses import dataclass
from forgetbench.methods import Method, param

@dataclass(frozen=True, kw_only=True)
class Mine(Method):
    "A method of a test."

    lr: float = param(0.1, gt=0)

    def unlearn(self, model, request):
        return model
"""


class Terminal(io.StringIO):
    """Standard input with a person at it."""

    def isatty(self):
        return True


@pytest.fixture
def call(site, transport, monkeypatch, capsys):
    """Calls `forgetbench submit` against the site; returns exit status and output."""
    monkeypatch.setenv("FORGETBENCH_TOKEN", site.token()["Authorization"].removeprefix("Bearer "))
    original = http.open_http
    monkeypatch.setattr(http, "open_http", lambda server, headers, _: original(server, headers, transport))

    def run(*words, stdin):
        monkeypatch.setattr(sys, "stdin", stdin)
        with pytest.raises(SystemExit) as left:
            main(["submit", *map(str, words), "--server", SERVER])
        said = capsys.readouterr()
        return int(left.value.code or 0), said.out + said.err

    return run


@pytest.fixture
def folder(world, tmp_path):
    """A run of a submitted file, recorded with an absolute path in its command."""
    method = {"source": SOURCE, "parameters": {"lr": 0.1}}
    environment = {"processor": "Made-up 9000"}
    return world.write_run(tmp_path / "run", "mine", method=method, command=COMMAND, environment=environment)


@pytest.fixture
def quick_score(site, monkeypatch):
    """Score while the client waits."""
    monkeypatch.setattr("forgetbench.leaderboard.client.submit.time.sleep", lambda _: site.work())


def stored(site):
    """The manifest of the only submission."""
    with site.database.read_session() as session:
        [entry] = session.query(Entry).filter(~Entry.baseline).all()
        return entry.manifest


def test_submit_shows_what_becomes_public_and_asks(site, call, folder, quick_score, assert_nothing_stored):
    status, said = call(folder, stdin=Terminal("n\n"))
    assert status == 1
    assert "Cancelled; nothing was sent" in said
    for words in ("submitter    Ada", "2 lines, in full", "lr=0.1", "processor=Made-up 9000", "CC-BY-4.0", "logits"):
        assert words in said, (words, said)
    assert_nothing_stored()
    status, said = call(folder, stdin=Terminal("y\n"))
    assert status == 0, said
    assert stored(site)["method"]["source"] == SOURCE


def test_submit_without_a_terminal_needs_yes(site, call, folder, quick_score, assert_nothing_stored):
    status, said = call(folder, stdin=io.StringIO("y\n"))
    assert status == 2
    assert "Add --yes to agree" in said
    assert_nothing_stored()
    assert call(folder, "--dry-run", stdin=io.StringIO())[0] == 0  # publishes nothing
    status, said = call(folder, "--yes", stdin=io.StringIO())
    assert (status, "makes public" in said) == (0, True)


def test_submitted_command_has_no_path_of_the_machine(site, world, folder, tmp_path, transport):
    token = site.token()["Authorization"].removeprefix("Bearer ")
    submit(folder, SERVER, token, wait_seconds=0, transport=transport)
    expected = COMMAND.replace("/home/ada/secret/", "")
    assert stored(site)["command"] == expected
    assert read_run(folder).manifest.command == COMMAND  # the submitter's own file stays


def test_submit_no_source_is_never_verified(site, call, folder, quick_score):
    status, said = call(folder, "--no-source", "--yes", stdin=io.StringIO())
    assert status == 0, said
    assert "never verified" in said
    assert stored(site)["method"]["source"] is None
    with site.database.read_session() as session:
        assert session.query(BoardRun).count() == 0


def test_submit_remote_needs_the_source(call, tmp_path, own_home):
    file = tmp_path / "my_method.py"
    file.write_text(METHOD)
    words = (f"{file}:Mine", "--task", "digits/cnn/class", "--remote")
    status, said = call(*words, "--no-source", stdin=io.StringIO())
    assert (status, "omit --no-source" in said) == (2, True)
    status, said = call(*words, stdin=Terminal("n\n"))
    assert status == 1
    for shown in ("my_method.py, 12 lines, in full", "lr=0.1", "none of this machine", "board        digits/cnn/class"):
        assert shown in said, said
    assert str(tmp_path) not in said


def test_recorded_command_has_relative_paths(tmp_path, monkeypatch):
    (tmp_path / "code").mkdir()
    file = tmp_path / "code" / "my_method.py"
    file.write_text(METHOD)
    [spec] = parse_methods([], [f"{file}:Mine:lr=0.5"], read_task("digits/cnn/class").setting)
    assert spec.arguments() == ["--method-file", "my_method.py:Mine:lr=0.5"]
    monkeypatch.chdir(tmp_path)
    assert spec.arguments() == ["--method-file", "code/my_method.py:Mine:lr=0.5"]
