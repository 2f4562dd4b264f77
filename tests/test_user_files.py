import json

import pytest

from forgetbench.errors import UsageError
from forgetbench.user_files import describe_content, read_toml


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
