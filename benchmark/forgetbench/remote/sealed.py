"""Repeat the sealed scores of a leaderboard's retired round, whose salt its operator has published."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal, cast
from urllib.parse import quote, urlencode

from pydantic import RootModel

from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.environment import environment
from forgetbench.evidence.run import Manifest, read_run
from forgetbench.leaderboard.client.http import ANONYMOUS, LeaderboardClient
from forgetbench.leaderboard.client.submit import fetch_entry
from forgetbench.leaderboard.render.schemas import BoardBrief, BoardDocument, RowDocument
from forgetbench.method_label import MethodLabel
from forgetbench.remote.verify import read_entry, spec_of
from forgetbench.reproduction.reference_board import Difference, compare, row_of
from forgetbench.reproduction.reference_file import ReferenceBoard, ReferenceRow
from forgetbench.reproduction.reproduce import Reproduction, is_same_platform, platform_of
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.runner.method_spec import MethodSpec
from forgetbench.runner.run import run
from forgetbench.scoring.scorecards import Scorecard
from forgetbench.scoring.scorer import rank_runs
from forgetbench.store import digest
from forgetbench.tasks.task import read_task

RANKED_TIERS = ("verified", "reference")
"""Tiers whose rows were scored on sealed draws."""
_PAGE = 1000
"""Rows per request."""


@dataclass(frozen=True)
class _SealedRow:
    """A row that was scored on sealed draws."""

    id: str
    manifest: Manifest
    scorecard: Scorecard


def reproduce_sealed(
    name: str,
    server: str,
    salt: str,
    config: RunConfig,
    *,
    rows: Sequence[str] | None = None,
    allow_source: bool = False,
    progress: ProgressCallback | None = None,
) -> Reproduction:
    """Train the originals and oracles of a retired round's sealed draws, run its methods, and compare every score.

    Args:
        name: Task of the board.
        server: Address of the leaderboard.
        salt: The round's salt, as the board's page shows it.
        config: Where and how; models are kept in a folder of their own, so that an interrupted call resumes.
        rows: Labels or names of methods; None is all verified and reference rows.
        allow_source: Whether submitted source may run.
        progress: Progress callback.

    Raises:
        UsageError: No retired round has this salt, there is no such row, or source may not run.
        ForgetBenchError: A recipe cannot be run here, or the server cannot be reached.
    """
    with LeaderboardClient(server, ANONYMOUS) as client:
        board = _find_round(client, name, salt)
        listed = _read_rows(client, board)
    task = read_task(name).with_counts(seeds=board.seeds, draws=board.draws)
    if task.key != board.task_key:
        raise UsageError(
            f"The board's {name} differs from the local definition (task keys {board.task_key[:12]} and "
            f"{task.key[:12]}). Install the version of forgetbench that the board uses."
        )
    chosen = [_read_row(row, server) for row in _select(listed, rows, server)]
    code = [row.manifest.row for row in chosen if row.manifest.method.source is not None]
    if code and not allow_source:
        raise UsageError(
            f"{', '.join(code)}: submitted source code. Read it on the pages of {server}, then add --allow-source, or "
            "choose other rows with --method."
        )
    separate = replace(config, home=config.home / "reproduced", skip_oracles=False)
    with TemporaryDirectory(prefix="forgetbench-salt-") as place:
        specs = _distinct_specs(chosen, Path(place))
        once = list(dict.fromkeys(specs))
        [done] = run([task.with_sealed_draws(salt)], lambda _: once, separate, progress)
    if done.reference is None:
        raise ForgetBenchError(f"The oracles of {name} are missing. Run the same command again.")
    ranked = rank_runs(separate.results.scorer(done.reference), [read_run(path) for path in done.runs])
    made = dict(zip(once, ranked.scorecards[ranked.references :], strict=True))
    recorded = [row_of(f"{row.manifest.row} ({row.id})", row.scorecard, row.manifest) for row in chosen]
    comparisons = sum(len(row.pseudo) for row in recorded)
    differences: list[Difference] = []
    for row, spec in zip(recorded, specs, strict=True):
        differences += compare(row, made[spec], comparisons=comparisons, changed=False)
    command = f"forgetbench reproduce {name} --salt {salt} --server {server}"
    here = platform_of(environment(config.env().device))
    same = all(is_same_platform(here, platform_of(row.manifest.environment)) for row in chosen)
    record = _record(board, recorded, command, platform_of(chosen[0].manifest.environment))
    return Reproduction(record, tuple(differences), {}, (), (), same)


def _find_round(client: LeaderboardClient, name: str, salt: str) -> BoardDocument:
    """The board of a retired round.

    Raises:
        UsageError: No retired round of the task has this salt.
    """
    briefs = client.get("/api/v1/boards?superseded=true", RootModel[list[BoardBrief]]).root
    for brief in briefs:
        if brief.task == name and brief.retired:
            board = client.get(_board_path(name, brief.pack), BoardDocument)
            if board.salt == salt:
                return board
    tasks = sorted({brief.task for brief in briefs if brief.retired})
    raise UsageError(
        f"{client.server} has no retired round of {name} with this salt. Copy the salt from the page of the board. "
        f"Tasks with retired rounds: {', '.join(tasks) or 'none'}."
    )


def _board_path(name: str, pack: str, cursor: str | None = None) -> str:
    query = {"pack": pack, "limit": _PAGE} | ({"cursor": cursor} if cursor else {})
    return f"/api/v1/boards/{quote(name, safe='/')}?{urlencode(query)}"


def _read_rows(client: LeaderboardClient, board: BoardDocument) -> list[RowDocument]:
    """All rows of a board that were scored on its sealed draws."""
    rows, cursor = [], None
    while True:
        page = client.get(_board_path(board.task, board.pack, cursor), BoardDocument)
        rows += [row for row in page.rows if row.tier in RANKED_TIERS and not row.baseline]
        cursor = page.next
        if cursor is None:
            return rows


def _select(listed: Sequence[RowDocument], rows: Sequence[str] | None, server: str) -> list[RowDocument]:
    """The rows that labels, names of methods or ids name."""
    if not listed:
        raise UsageError(f"{server} has no verified row on this board, so there is nothing to repeat.")
    if rows is None:
        return list(listed)
    names = [{row.label, row.id, row.method, MethodLabel.parse(row.label).name} for row in listed]
    unknown = sorted(set(rows) - set().union(*names))
    if unknown:
        known = ", ".join(sorted({row.label for row in listed}))
        raise UsageError(f"{server} has no verified row {', '.join(unknown)} on this board. Available: {known}.")
    return [row for row, known in zip(listed, names, strict=True) if known & set(rows)]


def _read_row(row: RowDocument, server: str) -> _SealedRow:
    entry = fetch_entry(row.id, server)
    manifest, scorecard = read_entry(entry, server, entry.scorecard)
    if scorecard is None:
        raise UsageError(f"{row.label} ({row.id}) has no scorecard. Try again when it is scored.")
    return _SealedRow(row.id, manifest, scorecard)


def _distinct_specs(rows: Sequence[_SealedRow], place: Path) -> list[MethodSpec]:
    """The specification of each row; equal recipes are one, and other recipes have other labels."""
    specs: dict[str, MethodSpec] = {}
    found = []
    for row in rows:
        folder = place / row.id
        folder.mkdir()
        spec = spec_of(row.manifest, folder)
        recipe = digest(spec.identity())
        if recipe not in specs:
            taken = spec.label in {known.label for known in specs.values()}
            specs[recipe] = replace(spec, label=f"{spec.label}-{row.id[:8]}") if taken else spec
        found.append(specs[recipe])
    return found


def _record(
    board: BoardDocument, rows: Sequence[ReferenceRow], command: str, platform: Mapping[str, str]
) -> ReferenceBoard:
    """The board as the record of a comparison."""
    return ReferenceBoard(
        task=board.task,
        title=board.title,
        task_key=board.task_key,
        track=cast("Literal['match-oracle', 'erase', 'corrective']", board.track),
        seeds=board.seeds,
        draws=board.draws,
        ranking=tuple(board.ranking),
        family_limit=board.family_limit,
        unranked_reason=board.informational,
        bands={},
        originals="",
        index="",
        command=command,
        environment=dict(platform),
        rows=tuple(rows),
    )
