"""How many honest rows the checks on claims flag: stored runs of this package's methods, taken as claims.

Each run was made from its board's originals, so that every row that is flagged is a false alarm, except rows whose
models equal their originals. Prints the share for each board and over all boards.

    python benchmarks/honest_rows.py HOME [HOME ...] [--seeds 6]
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import ReferenceBundle, read_pack
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.submissions.likeness import Likeness, board_models, find_mixture, resemblance
from forgetbench.scoring.scorer import Scorer


@dataclass(frozen=True, eq=False)
class FirstSeeds(ReferenceBundle):
    """A bundle of which the first seeds are used."""

    seeds: int = 0

    def population(self, role: str) -> list[Logits]:  # type: ignore[override]
        """Logits of the first models of a role."""
        return [_first(logits, self.seeds) for logits in super().population(role)]  # type: ignore[arg-type]


@dataclass(frozen=True)
class Row:
    """A stored run as the server would see it."""

    label: str
    method: str
    likeness: Likeness


def _first(logits: Logits, seeds: int) -> Logits:
    return {name: values[:seeds] for name, values in logits.items()}


def _bundles(home: Path) -> Iterator[ReferenceBundle]:
    for path in sorted(home.glob("packs/**/pack.json")):
        bundle = read_pack(path.parent, verify=False)
        if not bundle.card.task.endswith("/development"):
            yield bundle


def check_board(bundle: ReferenceBundle, home: Path, seeds: int, *, all_settings: bool) -> tuple[int, list[str]]:
    """Number of rows of a board, and what is flagged of them, one sentence each."""
    used = min(seeds, bundle.card.seeds)
    scorer = Scorer(FirstSeeds(bundle.folder, bundle.card, used))
    boards, rows = board_models(scorer), []
    for folder in sorted((home / "runs" / bundle.card.task).glob("*")):
        try:
            run = read_run(folder)
            method = run.manifest.method
            own = run.manifest.status != "ok" or method.changes_training or method.sentinel
            if own or run.manifest.seeds < used or not (all_settings or run.manifest.row == method.name):
                continue
            population = [_first(logits, used) for logits in run.population(bundle.card.draws, used)]
        except ForgetBenchError:
            continue  # a recording in progress
        rows.append(Row(run.manifest.row, method.name, resemblance(scorer, boards, population)))
    flags = []
    for row in rows:
        like = row.likeness
        if like.unchanged:
            print(f"  {row.label}: is No unlearning")
            continue
        others = {
            other.label: other.likeness.sketch
            for other in rows
            if other.method != row.method and not other.likeness.unchanged
        }
        mixture = find_mixture(boards, like.sketch, others)
        found = {
            f"no trace of the originals ({like.trace:.3f}, limit {like.trace_limit:.3f})": like.traceless,
            f"seeds permuted: {like.moved_seeds}": bool(like.moved_seeds),
            f"close to oracles: {like.near_oracles} of {like.models} models": like.copies_oracles,
            "spliced": like.spliced,
            f"made of {mixture}": mixture is not None,
        }
        if reasons := [reason for reason, holds in found.items() if holds]:
            flags.append(f"{row.label}: {'; '.join(reasons)}")
    return len(rows), flags


def main() -> None:
    """Print the shares."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("homes", nargs="+", type=Path, help="folders of FORGETBENCH_HOME with runs and bundles")
    parser.add_argument("--seeds", type=int, default=6, help="seeds that are used of each run")
    parser.add_argument("--all", action="store_true", help="also rows with hyper-parameters that are not the defaults")
    options = parser.parse_args()
    total, flagged = 0, 0
    for home in options.homes:
        for bundle in _bundles(home):
            count, flags = check_board(replace(bundle), home, options.seeds, all_settings=options.all)
            if count:
                print(
                    f"{bundle.card.task}, {min(options.seeds, bundle.card.seeds)} seeds: {len(flags)} of {count} rows"
                )
                print("".join(f"  {flag}\n" for flag in flags), end="")
                total, flagged = total + count, flagged + len(flags)
    print(f"all boards: {flagged} of {total} honest rows are flagged, {flagged / max(total, 1):.1%}")


if __name__ == "__main__":
    main()
