import gc
import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from forgetbench import fingerprints
from forgetbench.errors import UsageError
from forgetbench.user_files import describe_content, parse_python, read_toml


@pytest.mark.parametrize("content", [b'\xef\xbb\xbfa = "b"\n', b'a = "b"\r\n', b'a = "b"'])
def test_read_toml_accepts_bom_and_line_ends(tmp_path, content):
    (tmp_path / "x.toml").write_bytes(content)
    assert read_toml(tmp_path / "x.toml") == {"a": "b"}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("a = 1\n".encode("utf-16"), "is in UTF-16. Save the file as UTF-8"),
        ('a = 1\nb = "é"\n'.encode("latin-1"), r"is not text in UTF-8 \(line 2\)"),
        (b"a = \n", r"is not valid TOML: Invalid value \(at line 1, column 5\)\. Correct it there"),
        (b"a = " + b"[" * 100_000, "is not valid TOML"),
        (b"a = " + b"1" * 5000, "is not valid TOML: it contains a value that cannot be read"),
        (b"<!DOCTYPE html><html>", r"It is a web page \(HTML\), not the file itself: download it again"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "It is a Git LFS pointer.*git lfs pull"),
    ],
)
def test_read_toml_error_names_file_and_fix(tmp_path, content, message):
    (tmp_path / "x.toml").write_bytes(content)
    with pytest.raises(UsageError, match=rf"x\.toml .*{message}"):
        read_toml(tmp_path / "x.toml")


def test_read_toml_missing_file_is_named(tmp_path):
    with pytest.raises(UsageError, match=r"x\.toml cannot be read: No such file"):
        read_toml(tmp_path / "x.toml")
    with pytest.raises(UsageError, match="cannot be read: Is a directory"):
        read_toml(tmp_path)


def test_describe_content_recognizes_common_files():
    kinds = {b"": "empty", b"\0" * 9: "zeros", b"<html>": "web page", b"PK\x03\x04": "zip", b"\x80\x02}": "pickle"}
    assert all(word in describe_content(content) for content, word in kinds.items())
    assert describe_content(json.dumps({"a": 1}).encode()) == ""


def test_threads_parse_python_next_to_garbage_collection():
    """`ast.parse` itself fails in some of these threads, where a finalizer lets another thread run in its middle."""

    class Cycle:
        def __init__(self):
            self.itself = self

        def __del__(self):
            for _ in range(200):
                pass

    def parse(_):
        for _ in range(200):
            Cycle()
        return len(parse_python(source).body)

    source = Path(fingerprints.__file__).read_text(encoding="utf-8")
    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            assert len(set(pool.map(parse, range(40)))) == 1
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
