"""Code blocks of the documentation: marked blocks run on tiny tasks, in order; all others must parse.

A block below ``<!-- run -->`` runs in a folder and an empty store that its page shares. A block below
``<!-- file: NAME -->`` is written to that file. Other calls of forgetbench are bound to their commands, so that a
wrong option fails; other Python must compile.
"""

from __future__ import annotations

import ast
import contextlib
import io
import re
import shlex
import shutil
import tomllib
from collections.abc import Iterator
from itertools import takewhile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from forgetbench.cli import main, make_app
from forgetbench.runner import config
from forgetbench.runner.engines import LocalEngine
from forgetbench.tasks import task as tasks

ROOT = Path(__file__).parents[2]
DOCS = sorted((ROOT / "docs").rglob("*.md"))
PAGES = [*DOCS, ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
PROGRAMS = {
    *("apt", "cd", "docker", "export", "git", "kubectl", "ls", "make", "openssl", "pip", "ray", "sbatch", "seq", "set"),
    "source",
    ".venv/bin/pre-commit",
}
"""Programs that a block may call besides forgetbench."""
BLOCK = re.compile(r"(?:<!-- (?P<mark>[^\n]*?) -->\n+)?```(?P<language>\w+)\n(?P<text>.*?)^```", re.S | re.M)


class Block(NamedTuple):
    """A block of code on a page."""

    language: str
    text: str
    mark: str


def blocks(page: Path) -> list[Block]:
    matches = BLOCK.finditer(page.read_text(encoding="utf-8"))
    return [Block(match["language"], match["text"], match["mark"] or "") for match in matches]


def commands(text: str) -> list[list[str]]:
    """The commands of a shell block, as words."""
    lines = text.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def page_id(page: Path) -> str:
    return str(page.relative_to(ROOT).with_suffix(""))


def test_marks_are_known() -> None:
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for mark in re.findall(r"<!-- (.*?) -->", text):
            assert re.fullmatch(r"run|file: [\w.-]+", mark), (page.name, mark)
        assert len(re.findall(r"<!-- ", text)) == sum(1 for block in blocks(page) if block.mark), page.name


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_code_blocks_parse(page: Path) -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    for block in blocks(page):
        match block.language:
            case "python":
                ast.parse(block.text)
            case "toml":
                tomllib.loads(block.text)
            case "sh":
                for words in commands(block.text):
                    if words[0] == "forgetbench":
                        assert_command_parses(list(takewhile(lambda word: word not in {">", "|"}, words[1:])))
                    elif words[0] == "make":
                        assert set(words[1:]) <= targets, words
                    else:
                        assert words[0] in PROGRAMS, words
            case "yaml":
                assert_yaml_parses(block.text)
            case other:
                assert other in {"text", "bibtex", "caddy", "html", "nginx"}, other


@pytest.mark.parametrize("page", PAGES, ids=page_id)
def test_inline_commands_exist(page: Path) -> None:
    plain = BLOCK.sub("", page.read_text(encoding="utf-8"))
    for quoted in re.findall(r"`(forgetbench [^`]*)`", plain):
        words = shlex.split(quoted)[1:]
        if words[0] == "COMMAND":
            continue
        if len(words) == 1 or words[-1].isupper():  # the name of a command, perhaps with a placeholder
            assert words[0] in {*make_app(), "--version"}, quoted
        else:
            assert_command_parses(words)


@pytest.mark.parametrize("page", [page for page in PAGES if page not in DOCS], ids=page_id)
def test_links_of_repository_files_resolve(page: Path) -> None:
    """Mkdocs checks the links within docs/; these pages are read in the repository."""
    for target in re.findall(r"\]\((?!https?://)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / target).exists(), target


def assert_yaml_parses(text: str) -> None:
    """Check a file of Kubernetes or of Ray's launcher: its kind, its containers, and the commands in it."""
    document = yaml.safe_load(text)
    if "apiVersion" in document:
        assert {"kind", "metadata", "spec"} <= document.keys()
        pods = list(find(document, "containers"))
        assert pods
        for container in [container for pod in pods for container in pod]:
            assert {"name", "image", "resources"} <= container.keys(), container
    else:
        assert document["head_node_type"] in document["available_node_types"]
    names = {volume["name"] for volumes in find(document, "volumes") for volume in volumes}
    assert {mount["name"] for mounts in find(document, "volumeMounts") for mount in mounts} <= names
    for script in [script for scripts in find(document, "args") for script in scripts]:
        for words in commands(script):
            if words[0] == "forgetbench":
                assert_command_parses(words[1:])
            else:
                assert words[0] in PROGRAMS, words


def find(value: object, name: str) -> Iterator[Any]:
    """All values under a name, at any depth."""
    if isinstance(value, dict):
        yield from ([value[name]] if name in value else [])
    for inner in value.values() if isinstance(value, dict) else value if isinstance(value, list) else []:
        yield from find(inner, name)


def assert_command_parses(words: list[str]) -> None:
    """Bind a command line to its function without running it."""
    if "--help" in words:
        assert words[0] in set(make_app())
        return
    command, bound, _ = make_app().parse_args(words, exit_on_error=False, print_error=False)
    assert command is not None
    assert bound is not None


@pytest.fixture
def tiny_catalog(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The catalog with two epochs and few images; jobs run in this process."""
    catalog = tmp_path / "catalog"
    shutil.copytree(tasks.CATALOG, catalog)
    for path in catalog.rglob("*.toml"):
        text = re.sub(r"^epochs = \d+", "epochs = 2", path.read_text(encoding="utf-8"), flags=re.M)
        text = re.sub(r"^warmup_epochs = .*\n", "", text, flags=re.M)
        path.write_text(re.sub(r"train = \d+", "train = 120", text), encoding="utf-8")
    monkeypatch.setattr(tasks, "CATALOG", catalog)

    @contextlib.contextmanager
    def local(*_: object) -> Iterator[LocalEngine]:
        yield LocalEngine()

    monkeypatch.setattr(config, "make_engine", local)


@pytest.mark.parametrize("page", [page for page in PAGES if any(block.mark for block in blocks(page))], ids=page_id)
def test_marked_blocks_run(page: Path, tiny_catalog: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    monkeypatch.chdir(folder)
    names: dict[str, object] = {"__name__": "page"}
    for block in blocks(page):
        if block.mark.startswith("file: "):
            Path(block.mark.removeprefix("file: ")).write_text(block.text, encoding="utf-8")
        elif block.mark == "run" and block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()):
                exec(compile(block.text, page.name, "exec"), names)  # noqa: S102 - our own pages
        elif block.mark == "run":
            for words in commands(block.text):
                run_command(words)


def run_command(words: list[str]) -> None:
    """Run one line of a shell block: forgetbench, or `seq FIRST LAST > FILE`."""
    if words[0] == "seq":
        first, last, arrow, target = words[1:]
        assert arrow == ">"
        Path(target).write_text("\n".join(map(str, range(int(first), int(last) + 1))))
        return
    assert words[0] == "forgetbench", words
    if "--seeds" in words:
        words[words.index("--seeds") + 1] = "2"  # bands of six seeds take a thousand halvings
    with pytest.raises(SystemExit) as left:
        main(words[1:])
    assert not left.value.code, (words, left.value.code)
