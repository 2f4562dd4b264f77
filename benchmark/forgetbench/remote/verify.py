"""A verifier's second run of a listed submission: the same recipe, from the board's originals."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.run import Manifest, read_run
from forgetbench.leaderboard.client.http import LeaderboardClient
from forgetbench.leaderboard.client.submit import fetch_entry, post_verification
from forgetbench.leaderboard.render.schemas import EntryDocument, VerificationDocument
from forgetbench.methods import load_method_file, methods
from forgetbench.methods.base import Method
from forgetbench.remote.pull import bring
from forgetbench.reproduction.reference_board import Difference, compare, evidence_digest, row_of
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.runner.run import run
from forgetbench.scoring.scorecards import Scorecard
from forgetbench.tasks.task import Task


def rerun(
    submission: str,
    server: str,
    root: Path | None,
    watcher: ProgressCallback,
    say: Callable[[str], None],
    *,
    allow_source: bool = False,
) -> VerificationDocument:
    """Fetch a submission's recipe and the board's originals, unlearn again, and post the evidence.

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
    with _made_again(submission, server, root, watcher, say, allow_source=allow_source) as again:
        _check_scope(server)
        return post_verification(submission, again.run(), server)


def _check_scope(server: str) -> None:
    """Find out before anything is trained whether the record could be posted."""
    with LeaderboardClient(server) as client:
        if "verify" not in client.whoami().scopes:
            raise UsageError(f"This token has not the scope 'verify' on {server}; ask its operator for one that has.")


def compare_rerun(
    submission: str,
    server: str,
    root: Path | None,
    watcher: ProgressCallback,
    say: Callable[[str], None],
    *,
    allow_source: bool = False,
) -> tuple[bool, list[Difference]]:
    """Make a submission again and compare it with its scorecard on the board; nothing is posted.

    Where the evidence is the same bit by bit, so is every score. Otherwise oracles are trained here, since those of a
    board are kept by its server, and each metric is compared by its scatter.

    Returns:
        Whether the bits are the same, and every metric.

    Raises:
        UsageError: The source may not run yet, or the entry is not scored.
        ForgetBenchError: The recipe cannot be run here, or the server cannot be reached.
    """
    with _made_again(submission, server, root, watcher, say, allow_source=allow_source) as again:
        if not again.entry.scorecard:
            raise UsageError(f"{submission} has no scorecard yet; ask again when it is listed.")
        recorded = Scorecard.model_validate(again.entry.scorecard)
        row = row_of(again.manifest.row, recorded, again.manifest)
        same = evidence_digest(read_run(again.run()).manifest) == row.evidence
        card = recorded if same else again.score()
    return same, compare(row, card, comparisons=len(row.pseudo), changed=False)


@dataclass(frozen=True)
class _Again:
    """A submission that is made again, in the home of its board: none of the verifier's own originals takes part."""

    entry: EntryDocument
    manifest: Manifest
    task: Task
    contestant: MethodSpec
    options: RunConfig
    watcher: ProgressCallback

    def run(self) -> Path:
        """The folder of its evidence."""
        [done] = run([self.task], lambda _: [self.contestant], self.options, self.watcher)
        return done.runs[0]

    def score(self) -> Scorecard:
        """Its scorecard, against oracles that are trained here."""
        whole = replace(self.options, skip_oracles=False)
        [done] = run([self.task], lambda _: [self.contestant], whole, self.watcher)
        run_ = read_run(done.runs[0])
        return whole.results.judge_of(run_.manifest).score(run_)


@contextmanager
def _made_again(
    submission: str,
    server: str,
    root: Path | None,
    watcher: ProgressCallback,
    say: Callable[[str], None],
    *,
    allow_source: bool,
) -> Iterator[_Again]:
    entry = fetch_entry(submission, server)
    manifest = Manifest.model_validate(entry.manifest)
    if manifest.method.observed:
        raise UsageError(f"{manifest.row} was unlearned elsewhere: there is no program here that could be run again.")
    if manifest.method.source is not None and not allow_source:
        say(manifest.method.source)
        raise UsageError(
            f"{manifest.row} is a stranger's program; its source stands above. Read it; --allow-source then runs it."
        )
    with TemporaryDirectory(prefix="forgetbench-verify-") as place:
        options = RunConfig(root=root, device="cpu", skip_oracles=True)
        task, options = bring(manifest.task, server, options, pack=entry.pack)
        yield _Again(entry, manifest, task, _contestant(manifest, Path(place)), options, watcher)


def _contestant(manifest: Manifest, place: Path) -> MethodSpec:
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
    return MethodSpec(manifest.row, kind.from_dict(method.parameters), address)


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
