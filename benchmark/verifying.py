"""A verifier's second run of a listed submission: the same recipe, from the board's originals."""

from __future__ import annotations

import ast
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from forgetbench.contestants import Contestant
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence import Manifest
from forgetbench.leaderboard.client import fetch_entry, post_verification, pull_pack
from forgetbench.methods import load_method_file, methods
from forgetbench.methods.base import Method
from forgetbench.suite import Options, Watcher, adopt_originals, run
from forgetbench.tasks import read_task


def rerun(
    submission: str,
    server: str,
    root: Path | None,
    watcher: Watcher,
    say: Callable[[str], None],
    *,
    allow_source: bool = False,
) -> dict[str, Any]:
    """Fetch a submission's recipe and the board's originals, unlearn again, and post the evidence.

    The models are made in a folder of their own, so that nothing of the verifier's store takes part.

    Args:
        submission: The entry's id.
        server: The leaderboard's address.
        root: Folder of the image sets on disk.
        watcher: Is told what goes on.
        say: Is given what a person should read.
        allow_source: Whether the submitted source may run; it is shown first where it may not.

    Raises:
        UsageError: The source may not run yet, or the token has not the scope ``verify``.
        ForgetBenchError: The recipe cannot be run here, or the server refuses.
    """
    manifest = Manifest.model_validate(fetch_entry(submission, server)["manifest"])
    if manifest.method.observed:
        raise UsageError(f"{manifest.row} was unlearned elsewhere: there is no program here that could be run again.")
    if manifest.method.source is not None and not allow_source:
        say(manifest.method.source)
        raise UsageError(
            f"{manifest.row} is a stranger's program; its source stands above. Read it; --allow-source then runs it."
        )
    with TemporaryDirectory(prefix="forgetbench-verify-") as place:
        options = Options(root=root, device="cpu", evidence_only=True, home=Path(place))
        task = read_task(manifest.task).with_counts(seeds=manifest.seeds, draws=manifest.draws)
        adopt_originals(task, pull_pack(manifest.task, server, Path(place) / "pulled"), options)
        contestant = _contestant(manifest, Path(place))
        [done] = run([task], lambda _: [contestant], options, watcher)
        return post_verification(submission, done.runs[0], server)


def _contestant(manifest: Manifest, place: Path) -> Contestant:
    method = manifest.method
    if method.source is None:
        kind, address = methods.get(method.name), None
        if kind.source_hash() != method.source_sha256:
            raise ForgetBenchError(
                f"{method.name} is another program here than the one that was submitted: install the version of "
                "forgetbench that the entry's page names."
            )
    else:
        path = place / "method.py"
        path.write_text(method.source, encoding="utf-8")
        kind, address = _class_of(path, method.name)
        if kind.source_hash() != method.source_sha256:
            raise ForgetBenchError(
                f"{manifest.row} was made of another source than the one that was submitted, or with another version "
                "of forgetbench's own methods; it cannot be run again as it was."
            )
    return Contestant(manifest.row, kind.from_dict(method.parameters), address)


def _class_of(path: Path, name: str) -> tuple[type[Method], str]:
    """The class of a submitted file that bears the method's name (a file may define several), and its address."""
    try:
        items = ast.parse(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise ForgetBenchError(f"The submitted source is no Python: {error}") from error
    for item in items:
        if isinstance(item, ast.ClassDef):
            try:
                kind = load_method_file(f"{path}:{item.name}")
            except UsageError:
                continue  # a helper, and no method
            if kind.card.name == name:
                return kind, f"{path}:{item.name}"
    raise ForgetBenchError(f"The submitted source defines no method {name!r}.")
