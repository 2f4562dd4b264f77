import pytest

from forgetbench.datasets._tables import read_table, resolve_files
from forgetbench.datasets.problems import ImageSetError
from forgetbench.errors import UsageError


def test_read_table_returns_rows_with_line_numbers(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text('\ufeffpath,label,note\na.jpg, cat ,"two\nlines"\n\nb.jpg,dog,\n', encoding="utf-8")
    rows = read_table(table, ["path", "label"], ["identity"])
    assert [(row.number, dict(row.values)) for row in rows] == [
        (3, {"path": "a.jpg", "label": "cat"}),
        (5, {"path": "b.jpg", "label": "dog"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na,b\n", r"t\.csv has no column label; its header is path, class"),
        ("", "its header is empty"),
        ("path,label\n", "has no rows"),
        ("path,label\na,b\nc\n", r"row 3 of .*t\.csv has 1 fields; its header has 2"),
        ("path,label\na,b,c\n", r"row 2 of .*t\.csv has 3 fields"),
        ("path,label\n\xff", "cannot be read as a table"),
    ],
)
def test_read_table_wrong_table_error_says_where(tmp_path, text, message):
    table = tmp_path / "t.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        read_table(table, ["path", "label"])
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_table(tmp_path / "none.csv", ["path"])


def test_resolve_files_lists_rows_without_file(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    table = tmp_path / "t.csv"
    table.write_text("path\na.jpg\n" + "".join(f"gone{n}.jpg\n" for n in range(12)), encoding="utf-8")
    rows = read_table(table, ["path"])
    with pytest.raises(UsageError, match=r"(?s)row 3 of .*t\.csv names a missing file: .*gone0\.jpg\n.*and 2 more"):
        resolve_files(table, rows, tmp_path / "images", "path")
    assert resolve_files(table, rows[:1], tmp_path / "images", "path")[0].content == tmp_path / "images" / "a.jpg"


def test_resolve_files_names_an_unclosed_quote_in_short(tmp_path):
    """The rest of the table becomes one name, longer than a file system allows."""
    table = tmp_path / "t.csv"
    table.write_text('path\n"a.jpg\n' + "b.jpg\n" * 1000, encoding="utf-8")
    with pytest.raises(UsageError, match=r"(?s)row \d+ of .*t\.csv names a missing file") as raised:
        resolve_files(table, read_table(table, ["path"]), tmp_path, "path")
    assert len(str(raised.value)) < 700


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("path;label\na;b\n", "commas between the fields; here they are separated by ';'"),
        ("path,class\na,b\n", "name the columns path, label"),
        ("path,label\na,b,c\n", "a field that contains a comma into double quotes"),
        ("path,label\na,b\xe4r\n", "in UTF-8"),
        ("path,label\n", "Add a row for every image"),
    ],
)
def test_read_table_error_has_fitting_fix(tmp_path, text, fix):
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(ImageSetError) as raised:
        read_table(tmp_path / "t.csv", ["path", "label"])
    assert fix in raised.value.problems[0].fix
    assert fix in str(raised.value)
