"""What people read is plain English: no words of the code base's old dialect, and test names of readable length."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("benchmark/forgetbench", "benchmarks", "datasets", "docker", "docs", "examples", "leaderboard", "methods")
SUFFIXES = {".py", ".md", ".html", ".txt", ".css", ".toml", ".yaml", ".sh", ".mako", ".ipynb"}
BANNED = re.compile(
    r"(?:\b|_)(told|to be had|lies|stands|one's own|whoever|mend(?:s|ed|ing)?|made anew|no number|where there is none"
    r"|if left out|may stand|takes? no place|beside|asked|nobody|somebody)(?:\b|_)",
    re.IGNORECASE,
)
LONGEST = 60


@pytest.mark.parametrize("folder", [".", *FOLDERS])
def test_files_have_no_banned_words(folder: str) -> None:
    paths = (ROOT / folder).glob("*.md") if folder == "." else (ROOT / folder).rglob("*")
    found = []
    for path in sorted(path for path in paths if path.suffix in SUFFIXES):
        lines = path.read_text(encoding="utf-8").splitlines()
        found += [f"{path}:{number}: {line}" for number, line in enumerate(lines, 1) if BANNED.search(line)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize("path", sorted((ROOT / "tests").rglob("test_*.py")), ids=lambda path: path.stem)
def test_names_of_tests_are_short_and_plain(path: Path) -> None:
    functions = [node for node in ast.walk(ast.parse(path.read_text("utf-8"))) if isinstance(node, ast.FunctionDef)]
    names = [node.name for node in functions if node.name.startswith("test_")]
    assert not [name for name in names if len(name) > LONGEST or BANNED.search(name.replace("_", " "))]
