"""The commands attack and check-attack."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cyclopts import App

from forgetbench.cli.console import figure, print_json, print_note, print_table
from forgetbench.cli.options import METHODS, RUN, Json, MethodOptions, RunOptions

if TYPE_CHECKING:
    from forgetbench.api.attacks import AttackResult
    from forgetbench.scoring.attacks import AttackScale, AttackScore


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(attack)
    app.command(check_attack, name="check-attack")


def attack(
    task: str,
    *,
    attack: list[str] | None = None,
    methods: MethodOptions = METHODS,
    seeds: int | None = None,
    draws: int | None = None,
    options: RunOptions = RUN,
    json: Json = False,
) -> int:
    """Attack unlearned models: does what was forgotten come back? Exit status 1 if an attack failed.

    Each attack runs with equal budgets on the unlearned models, the originals and both sets of oracles; what is missing
    is trained and unlearned first. Only what an attack finds beyond the oracles was left behind by unlearning.

    Example: forgetbench attack digits/cnn/class --attack recalibrate --attack prune:ratio=0.5 --method iau --seeds 6

    Args:
        task: Name of a task (`forgetbench list tasks`), or path of a task file.
        attack: NAME[:option=value,...], FILE.py:CLASS, or all (default). Without a value for its budget, an attack runs
            with each budget of its card (`forgetbench show attack NAME`). Can be repeated.
        seeds: Number of originals, and of oracles in each of the two sets; flags need 6.
        draws: Number of forget sets.
    """
    from forgetbench.api.attacks import attack as run_attack

    found = run_attack(attack or ["all"], methods.names, task, seeds=seeds, draws=draws, config=options.config())
    failures = _failures(found)
    if json:
        print_json(_document(found) | {"failures": failures})
    else:
        _print_attacks(found)
    for failure in failures:
        print_note(failure)
    return 1 if failures else 0


def _failures(found: AttackResult) -> list[str]:
    """One sentence for each population on which an attack failed."""
    return [
        f"{label} failed on {population}: {reason}"
        for label, reasons in found.failures.items()
        for population, reason in reasons.items()
    ]


def _document(found: AttackResult) -> dict[str, object]:
    """Bands and scores, ready for JSON."""
    return {
        "bands": found.bands.model_dump(mode="json"),
        "rows": {row: score.model_dump(mode="json") for row, score in found.scores.items()},
        "not_applicable": found.refusals,
    }


def _print_attacks(found: AttackResult) -> None:
    bands = found.bands
    for scale in bands.scales:
        rows = [_row(name, next(s for s in row.scores if s.label == scale.label)) for name, row in found.scores.items()]
        subsets = list(scale.accuracies)
        head = [
            f"{subset} before → after (oracles {100 * scale.accuracies[subset].oracle:.1f} %)" for subset in subsets
        ]
        print_table(
            scale.label,
            ("row", *head, _NAMES[scale.statistic], "95 % interval", "z", ""),
            [[name, *(shown.get(subset, "") for subset in subsets), *rest] for name, shown, *rest in rows],
            right=range(1, len(subsets) + 4),
            caption=_caption(scale),
        )
    verdicts = [(name, row.worst, _verdict(row.recoverable)) for name, row in found.scores.items()]
    limit = f"family limit z {figure(bands.family_limit, '.2f')} over all attacks and budgets of this call"
    flagged = "" if bands.false_flags is None else f"; {100 * bands.false_flags:.1f} % of oracle halvings are above it"
    print_table("worst attack", ("row", "attack", "recoverable"), verdicts, caption=limit + flagged)
    if found.folders:
        print_note(f"Evidence: {found.folders[0].parent}")
    for label, reason in found.refusals.items():
        print_note(f"{label} does not apply: {reason}")


_NAMES = {"recovered": "recovered", "membership": "AUC minus oracles'"}


def _row(name: str, score: AttackScore) -> tuple[str, dict[str, str], str, str, str, str]:
    accuracies = {
        subset: f"{100 * each.before:.1f} → {100 * each.after:.1f} %" for subset, each in score.accuracies.items()
    }
    statistic = score.statistic
    interval = f"{statistic.low:+.3f} … {statistic.high:+.3f}" if statistic.low is not None else ""
    remark = "recoverable" if score.recoverable else "above the family limit" if score.outside else score.reason
    return name, accuracies, figure(statistic.value, "+.3f"), interval, figure(score.z, "+.2f"), remark


def _caption(scale: AttackScale) -> str:
    parts = [f"{scale.flops:.3g} FLOPs per model" if scale.flops is not None else "FLOPs were not counted"]
    if scale.band is not None:
        parts.append(f"oracle band {scale.band.low:+.3f} … {scale.band.high:+.3f}")
    if scale.fit is False:
        parts.append("UNFIT: it finds as much in control oracles against reference oracles")
    return "; ".join([*parts, *filter(None, [scale.reason])])


def _verdict(recoverable: bool | None) -> str:
    return {True: "yes", False: "no", None: "not tested"}[recoverable]


def check_attack(attack: str, *, network: list[str] | None = None) -> int:
    """Check an attack against the contract that every attack fulfills. Exit status 1 if a check fails.

    Example: forgetbench check-attack my_attack.py:MyAttack

    Args:
        attack: FILE.py:CLASS, or the name of an attack.
        network: Networks to check on (default: mlp and cnn). Can be repeated.
    """
    from forgetbench.api.attacks import check_attack as check
    from forgetbench.api.methods import CHECK_NETWORKS

    report = check(attack, networks=network or CHECK_NETWORKS, isolated=True)
    rows = [(each.network, each.name, "ok" if each.ok else "FAIL", each.message) for each in report.checks]
    print_table(report.method, ("network", "check", "", "details"), rows)
    return 0 if report.ok else 1
