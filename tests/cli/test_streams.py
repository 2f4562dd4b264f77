"""What the command line prints where the terminal, the disk, the home folder or the method is not as hoped."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from forgetbench.api.methods import check_method
from forgetbench.cli import main
from forgetbench.cli.console import write_text
from forgetbench.cli.options import RunOptions, parse_duration
from forgetbench.errors import UsageError, describe_error, os_error_message, printable
from forgetbench.store import home

METHOD = """
import copy, os, subprocess, sys
from dataclasses import dataclass
from forgetbench.methods import Method

print("at import")

@dataclass(frozen=True, kw_only=True)
class Loud(Method):
    "Prints."

    def unlearn(self, model, request):
        print("from Python")
        os.system("echo from a child")
        {line}
        return copy.deepcopy(model)
"""
TASK = """
name = "test/mlp/random"
title = "Seconds"
seeds = 2
image_set = { name = "digits", options = { train = 60, validation = 50 } }
network = { name = "mlp", options = { hidden = [8] } }
recipe = { epochs = 2 }
scenario = { name = "random", options = { fraction = 0.2 } }
"""


def forgetbench(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "forgetbench", *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        encoding="utf-8",
        errors="surrogateescape",
        check=False,
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain: Ä 方法 🙂 a b", "plain: Ä 方法 🙂 a b"),
        ("two\nlines\tof text", "two\nlines\tof text"),
        ("\x1b[31mred\x07\r", r"\x1b[31mred\x07\r"),
        ("\udce9 \u202e", r"\udce9 \u202e"),
        ("\x9b31m", r"\x9b31m"),
    ],
)
def test_printable_spells_out_controls(text: str, expected: str) -> None:
    assert printable(text) == expected
    assert printable(text).encode()


def test_describe_error_shortens_and_spells_out() -> None:
    assert describe_error(ValueError("\x1b[0m")) == r"ValueError: \x1b[0m"
    assert describe_error(KeyError()) == "KeyError"
    assert len(describe_error(ValueError("x" * 10**6))) < 2100


def test_run_output_of_methods_goes_to_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "task.toml").write_text(TASK)
    (tmp_path / "loud.py").write_text(METHOD.replace("{line}", "raise ValueError('\\x1b[31mred')"))
    words = ["run", str(tmp_path / "task.toml"), "--method-file", f"{tmp_path / 'loud.py'}:Loud", "--json"]
    with pytest.raises(SystemExit) as exited:
        main([*words, "--engine", "local", "--device", "cpu"])
    assert exited.value.code == 1  # the only method failed
    output = capfd.readouterr()
    assert "loud failed: ValueError" in output.err
    [board] = json.loads(output.out)
    assert r"\x1b[31mred" in board["notes"][-1]
    for words in ("at import", "from Python", "from a child"):
        assert words in output.err
    assert "\x1b" not in output.out + output.err


def test_check_method_reports_a_crash(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "loud.py"
    file.write_text(METHOD.replace("{line}", "os.abort()"))
    with pytest.raises(SystemExit) as exited:
        main(["check-method", f"{file}:Loud", "--network", "mlp"])
    assert exited.value.code == 1
    output = capfd.readouterr()
    assert output.out == ""
    assert f"died in the job 'check of {file}:Loud': it crashed (SIGABRT)" in output.err


def test_check_method_reports_sys_exit(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "loud.py"
    file.write_text(METHOD.replace("{line}", "sys.exit(0)"))
    failed = [check.message for check in check_method(f"{file}:Loud", networks=["mlp"]).checks if not check.ok]
    assert failed
    assert all("SystemExit: the code called sys.exit(0)" in message for message in failed)
    assert capfd.readouterr().out == ""


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8"])
def test_output_in_any_encoding_is_written(encoding: str) -> None:
    done = forgetbench("list", "tasks", "--json", PYTHONIOENCODING=encoding)
    assert (done.returncode, done.stderr) == (0, "")
    plain = json.loads(forgetbench("list", "tasks", "--json", PYTHONIOENCODING="utf-8").stdout)
    if encoding != "cp1252":  # which decodes to other characters here
        assert json.loads(done.stdout) == plain


def test_output_spells_missing_characters_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    code = (
        "from forgetbench.cli import _accept_all_characters\n"
        "from forgetbench.cli.console import print_json, print_text\n"
        "_accept_all_characters()\nprint_json('–🙂\\udce9')\nprint_text('–🙂\\udce9')\n"
    )
    words = [sys.executable, "-c", code]
    done = subprocess.run(words, env={**os.environ, "PYTHONIOENCODING": "ascii"}, capture_output=True, check=True)
    first, second = done.stdout.decode("ascii").splitlines()
    assert first == '"\\u2013\\ud83d\\ude42\\udce9"'
    assert json.loads(first) == "–🙂\udce9"
    assert second == "\\u2013\\ud83d\\ude42\\udce9"


def test_full_disk_is_one_sentence() -> None:
    if not Path("/dev/full").exists():
        pytest.skip("there is no /dev/full")
    words = [sys.executable, "-m", "forgetbench", "list", "methods"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 1
    assert "No space left on device. Free some space" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("number", "advice"),
    [
        (errno.ENOSPC, "Free some space"),
        (errno.EACCES, "Change its permissions"),
        (errno.EROFS, "give another path"),
        (errno.EEXIST, "A file is where a folder is needed"),
        (errno.EISDIR, "Give the path of a file"),
        (errno.EIO, "Give another path"),
    ],
)
def test_os_error_message_has_place_and_advice(number: int, advice: str) -> None:
    message = os_error_message(OSError(number, os.strerror(number), "/some\x1b/file"))
    assert message.startswith(f"/some\\x1b/file: {os.strerror(number)}. ")
    assert advice in message


def test_os_error_message_without_place() -> None:
    assert os_error_message(TimeoutError("timed out")).startswith("TimeoutError: timed out. ")


def refused(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    with pytest.raises(SystemExit) as exited:
        main([str(word) for word in words])
    assert exited.value.code == 1
    output = capsys.readouterr()
    assert output.out == ""
    return " ".join(output.err.split())


def test_run_home_that_is_a_file_is_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "home").touch()
    (tmp_path / "task.toml").write_text(TASK)
    monkeypatch.setenv("FORGETBENCH_HOME", str(tmp_path / "home"))
    words = ["run", tmp_path / "task.toml", "--method", "none", "--engine", "local", "--device", "cpu"]
    message = refused(capsys, *words)
    assert f"{tmp_path / 'home'}" in message
    assert "A file is where a folder is needed" in message


@pytest.mark.parametrize(("output", "advice"), [("folder", "it is a folder"), ("file/tables.csv", "file is a file")])
def test_write_text_to_a_wrong_place_is_one_sentence(
    output: str, advice: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    monkeypatch.setattr("forgetbench.cli.make_app", lambda: lambda *_, **__: write_text("page", tmp_path / output))
    message = refused(capsys, "report")
    assert f"{tmp_path / output} cannot be written: " in message
    assert advice in message
    assert "Give another path with --output" in message


def test_home_without_home_folder_is_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOME", raising=False)
    monkeypatch.delenv("XDG_DATA_HOME", raising=False)
    monkeypatch.setattr("os.getuid", lambda: 4_000_000)
    for chosen in (None, "~/results"):
        monkeypatch.delenv("FORGETBENCH_HOME") if chosen is None else monkeypatch.setenv("FORGETBENCH_HOME", chosen)
        with pytest.raises(UsageError, match=r"This user has no home folder\. Set FORGETBENCH_HOME"):
            home()


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("45", 45), ("30m", 1800), ("2h", 7200), ("1H30m", 5400), ("1d0.5s", 86400.5)]
)
def test_parse_duration_reads_units(text: str, seconds: float) -> None:
    assert parse_duration(text) == seconds
    assert RunOptions(time_limit=text).config().time_limit == seconds


@pytest.mark.parametrize("text", ["", "soon", "30 minutes", "-5m", "1m1h", "nan", "m"])
def test_parse_duration_other_text_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=r"is not a duration\. Write it as 90s, 30m"):
        parse_duration(text)


def test_main_interrupted_says_so_and_exits_130(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import signal

    from forgetbench import cli

    def interrupt() -> None:
        raise KeyboardInterrupt

    handler = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(cli, "make_app", interrupt)
    try:
        with pytest.raises(SystemExit) as exited:
            main([])
    finally:
        signal.signal(signal.SIGINT, handler)
    assert exited.value.code == 130
    assert "Interrupted. Finished work is kept; the same command resumes." in capsys.readouterr().err
