"""What attacks found in the rows of a board, as tables."""

from __future__ import annotations

from collections.abc import Mapping

from forgetbench.reporting.table_writer import Table, shown
from forgetbench.scoring.attacks import AttackBands, AttackScale, AttackScore, RowAttacks

OUTSIDE = {True: "outside", False: "inside", None: "not comparable"}
RECOVERABLE = {True: "yes", False: "no", None: "not tested"}


def worst_table(task: str, rows: Mapping[str, RowAttacks], bands: AttackBands) -> Table:
    """The worst known attack on each row, with its budget, and whether it is outside the family band.

    Args:
        task: Name of the task.
        rows: What the attacks found, by row.
        bands: The bands of all attacks on the board.
    """
    records = []
    for name, row in rows.items():
        worst = next((score for score in row.scores if score.label == row.worst), None)
        records.append(
            {
                "method": name,
                "worst_attack": row.worst,
                "flops": bands.scale(worst.label).flops if worst else None,
                "statistic": worst.statistic.value if worst else None,
                "z": worst.z if worst else None,
                "band": _place(worst, bands.family_limit),
                "recoverable": RECOVERABLE[row.recoverable],
            }
        )
    header = ("Method", "Worst attack", "FLOPs", "Found", "z", "Band", "Recoverable")
    cells = [
        (
            record["method"],
            record["worst_attack"],
            _figure(record["flops"], ".2g"),
            _figure(record["statistic"], "+.3f"),
            _figure(record["z"], "+.2f"),
            record["band"],
            record["recoverable"],
        )
        for record in records
    ]
    return Table(
        f"{task}: worst known attack",
        header,
        tuple(tuple(map(shown, row)) for row in cells),
        (family_note(bands),),
        tuple(records),
    )


def recovery_table(task: str, rows: Mapping[str, RowAttacks], bands: AttackBands) -> Table:
    """What each attack with each budget found in each row, with the band of oracle halvings.

    A cell is *recovered*, or for a membership attack the AUC minus the oracles', in points; ``*`` is outside the
    family band, ``!`` recoverable. Where the statistic cannot be computed it is the accuracy after the attack on the
    forgotten rows, in per cent and parentheses.
    """
    header = ("Attack", "FLOPs", "Band", *rows)
    cells, records = [], []
    for scale in bands.scales:
        found = {name: next(score for score in row.scores if score.label == scale.label) for name, row in rows.items()}
        band = f"{100 * scale.band.low:+.0f} … {100 * scale.band.high:+.0f}" if scale.band else "none"
        unfit = " (unfit)" if scale.fit is False else ""
        values = [_cell(score) for score in found.values()]
        cells.append((scale.label + unfit, _figure(scale.flops, ".2g"), band, *values))
        records.append(_record(scale) | {name: score.statistic.value for name, score in found.items()})
    notes = (
        "Recovered, or for membership attacks the AUC minus the oracles', in points. * outside the family band, ! "
        "recoverable; in parentheses the accuracy after the attack where oracles learn as much.",
        family_note(bands),
    )
    return Table(f"{task}: what each attack finds", header, tuple(cells), notes, tuple(records))


def family_note(bands: AttackBands) -> str:
    """The family limit, and the share of oracle halvings that it would flag."""
    if bands.family_limit is None:
        return "No attack has a band on this board, so no row is flagged."
    judged = sum(scale.band is not None for scale in bands.scales)
    return (
        f"Family limit z {bands.family_limit:.2f} over {judged} attacks and budgets; "
        f"{100 * (bands.false_flags or 0.0):.1f} % of {bands.split_halves:,} oracle halvings are above it."
    )


def _record(scale: AttackScale) -> dict[str, object]:
    low, high = (scale.band.low, scale.band.high) if scale.band else (None, None)
    return {"attack": scale.label, "flops": scale.flops, "band_low": low, "band_high": high, "fit": scale.fit}


def _place(score: AttackScore | None, limit: float | None) -> str:
    """Whether an attack is outside the family band; a z above the limit may be within the noise of its row."""
    if score is None or score.outside is not False:
        return OUTSIDE[score.outside if score else None]
    return "within its noise" if limit is not None and score.z is not None and score.z > limit else OUTSIDE[False]


def _cell(score: AttackScore) -> str:
    if score.statistic.value is not None:
        mark = "!" if score.recoverable else "*" if score.outside else ""
        return f"{100 * score.statistic.value:+.0f}{mark}"
    accuracies = score.accuracies.get("test-forgotten") or score.accuracies.get("forget")
    return f"({100 * accuracies.after:.0f} %)" if accuracies is not None else ""


def _figure(value: object, how: str) -> str:
    return format(value, how) if isinstance(value, int | float) else ""
