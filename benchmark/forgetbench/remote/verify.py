"""Verify an entry of a leaderboard: run its recipe again from the board's originals."""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory

from pydantic import ValidationError

from forgetbench.errors import ForgetBenchError, UsageError, validation_message
from forgetbench.evidence.run import Manifest, Run, read_run
from forgetbench.fingerprints import method_fingerprint
from forgetbench.leaderboard.client.http import LeaderboardClient
from forgetbench.leaderboard.client.submit import fetch_entry, fetch_evidence, post_verification
from forgetbench.leaderboard.render.schemas import EntryDocument, VerificationDocument
from forgetbench.methods import load_method_file, methods
from forgetbench.methods.base import Method
from forgetbench.remote.pull import pull_board
from forgetbench.reproduction.reference_board import Difference, compare, evidence_digest, row_of
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.runner.run import run
from forgetbench.scoring.scorecards import Scorecard
from forgetbench.store import JsonObject
from forgetbench.tasks.task import Task
from forgetbench.user_files import parse_python

ShowSource = Callable[[str], None]
"""Shows submitted source to a person."""


def post_rerun(
    entry: str,
    server: str,
    root: Path | None,
    progress: ProgressCallback,
    show: ShowSource,
    *,
    allow_source: bool = False,
) -> VerificationDocument:
    """Run an entry again from the board's originals, with other seeds, and post the evidence as its verification.

    Args:
        entry: The entry's id.
        server: The leaderboard's address.
        root: Folder of the image sets on disk.
        progress: Progress callback.
        show: Shows the submitted source if it may not run.
        allow_source: Whether the submitted source may run.

    Returns:
        The server's answer.

    Raises:
        UsageError: The source may not run, or the token lacks the scope ``verify``.
        ForgetBenchError: The recipe cannot be run here, or the server refuses.
    """
    with _open_rerun(entry, server, root, progress, show, allow_source=allow_source) as rerun:
        seeds = f"verify-{entry}-{_verifier(server)}"
        again = replace(rerun, task=rerun.task.with_method_seeds(seeds))  # the same bits would prove nothing
        return post_verification(entry, again.run(), server)


def _verifier(server: str) -> str:
    """Name of the token's owner, after checking that the evidence can be posted, before anything is computed."""
    with LeaderboardClient(server) as client:
        token = client.whoami()
        if "verify" not in token.scopes:
            raise UsageError(f"This token lacks the scope 'verify' on {server}. Ask its operator for one that has it.")
        return token.name


def compare_rerun(
    entry: str,
    server: str,
    root: Path | None,
    progress: ProgressCallback,
    show: ShowSource,
    *,
    allow_source: bool = False,
) -> tuple[bool, list[Difference]]:
    """Run an entry again and compare it with its scorecard on the board; nothing is posted.

    If the evidence is equal bit by bit, so is every score. Otherwise oracles are trained here, since a board's oracles
    stay on its server; both records are scored against these, and each metric is compared by its scatter.

    Returns:
        Whether the bits are equal, and every metric.

    Raises:
        UsageError: The source may not run, or the entry has no scorecard.
        ForgetBenchError: The recipe cannot be run here, or the server cannot be reached.
    """
    with _open_rerun(entry, server, root, progress, show, allow_source=allow_source) as rerun:
        if rerun.scorecard is None:
            raise UsageError(f"{entry} has no scorecard yet. Try again when it is listed.")
        row = row_of(rerun.manifest.row, rerun.scorecard, rerun.manifest)
        same = evidence_digest(read_run(rerun.run()).manifest) == row.evidence
        card = rerun.scorecard
        if not same:
            with TemporaryDirectory(prefix="forgetbench-verify-") as place:
                listed, card = rerun.score_with(fetch_evidence(entry, server, Path(place) / "listed"))
            row = row_of(rerun.manifest.row, listed, rerun.manifest)
    return same, compare(row, card, comparisons=len(row.pseudo), changed=False)


@dataclass(frozen=True)
class _Rerun:
    """An entry that is run again, in the home of its board: no local originals are used."""

    scorecard: Scorecard | None
    manifest: Manifest
    task: Task
    spec: MethodSpec
    config: RunConfig
    progress: ProgressCallback

    def run(self) -> Path:
        """The folder of its evidence."""
        [done] = run([self.task], lambda _: [self.spec], self.config, self.progress)
        return done.runs[0]

    def score_with(self, listed: Run) -> tuple[Scorecard, Scorecard]:
        """The scorecards of the listed evidence and of this run, against oracles that are trained here."""
        config = replace(self.config, skip_oracles=False)
        [done] = run([self.task], lambda _: [self.spec], config, self.progress)
        evidence = read_run(done.runs[0])
        scorer = config.results.scorer_of(evidence.manifest)
        return scorer.score(listed), scorer.score(evidence)


@contextmanager
def _open_rerun(
    identity: str, server: str, root: Path | None, progress: ProgressCallback, show: ShowSource, *, allow_source: bool
) -> Iterator[_Rerun]:
    entry = fetch_entry(identity, server)
    # on this machine, an entry can run on public draws only
    manifest, scorecard = read_entry(entry, server, entry.public_scorecard or entry.scorecard)
    if manifest.method.observed:
        raise UsageError(f"{manifest.row} was unlearned by other code and cannot be run again here.")
    if manifest.method.source is not None and not allow_source:
        show(manifest.method.source)
        raise UsageError(
            f"{manifest.row} is submitted source code, shown above. Read it, then run it with --allow-source."
        )
    with TemporaryDirectory(prefix="forgetbench-verify-") as place:
        config = RunConfig(root=root, device="cpu", skip_oracles=True)
        task, config = pull_board(manifest.task, server, config, pack=entry.pack)
        yield _Rerun(scorecard, manifest, task, spec_of(manifest, Path(place)), config, progress)


def read_entry(entry: EntryDocument, server: str, document: JsonObject | None) -> tuple[Manifest, Scorecard | None]:
    """The manifest of an entry, and one of its scorecards.

    Raises:
        ForgetBenchError: They are of another version.
    """
    try:
        scorecard = Scorecard.model_validate(document) if document else None
        return Manifest.model_validate(entry.manifest), scorecard
    except ValidationError as error:
        raise ForgetBenchError(
            f"Entry {entry.row.id} of {server} has records of another version ({validation_message(error)}). Install "
            "the version of forgetbench that the entry's page names."
        ) from error


def spec_of(manifest: Manifest, place: Path) -> MethodSpec:
    """The method of a manifest, with its hyper-parameters.

    Args:
        manifest: The manifest.
        place: Folder for the file of submitted source.

    Raises:
        ForgetBenchError: The method, or its source, is not the one that made the evidence.
    """
    method = manifest.method
    if method.source is None:
        kind, address = methods.get(method.name), None
        if method_fingerprint(kind) != method.fingerprint:
            raise ForgetBenchError(
                f"{method.name} behaves differently in this version than in the one that was submitted. Install the "
                "version of forgetbench that the entry's page names."
            )
    else:
        path = place / "method.py"
        path.write_text(method.source, encoding="utf-8")
        kind, address = _class_of(path, method.name)
        if method_fingerprint(kind) != method.fingerprint:
            raise ForgetBenchError(
                f"{manifest.row} was not made from the submitted source, or with another version of forgetbench's own "
                "methods. It cannot be run again as it was."
            )
    return MethodSpec.of(kind.from_dict(method.parameters), manifest.row, address)


def _class_of(path: Path, name: str) -> tuple[type[Method], str]:
    """The class with the method's name in a submitted file, which may define several, and its address."""
    try:
        items = parse_python(path.read_text(encoding="utf-8")).body
    except (SyntaxError, ValueError) as error:
        raise ForgetBenchError(f"The submitted source is not valid Python: {error}") from error
    reason = ""
    for item in items:
        if isinstance(item, ast.ClassDef):
            try:
                kind = load_method_file(f"{path}:{item.name}")
            except UsageError as error:
                reason = reason or str(error)  # a helper class, or a file that does not import
                continue
            if kind.card.name == name:
                return kind, f"{path}:{item.name}"
    raise ForgetBenchError(f"The submitted source defines no method {name!r}. {reason}".strip())
