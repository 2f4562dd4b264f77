"""Attacks on unlearned models: run them, score their evidence, and check the contract of an attack."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from forgetbench.api._main_file import without_main_file
from forgetbench.api.methods import CHECK_NETWORKS, CheckJob, MethodCheck, MethodReport, report_of
from forgetbench.api.progress import open_progress
from forgetbench.api.tasks import load_task
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.attacks import (
    MANIFEST,
    REFERENCE_POPULATIONS,
    AttackedPopulation,
    check_attacked,
    read_attacked,
)
from forgetbench.evidence.run import read_run
from forgetbench.metrics.board_rules import Population
from forgetbench.runner.config import ProgressCallback, RunConfig
from forgetbench.scoring.attacks import (
    AttackBands,
    AttackedBoard,
    RowAttacks,
    UntouchedBoard,
    attack_bands,
    read_board,
    score_attacks,
    untouched_board,
)
from forgetbench.scoring.scorer import NO_UNLEARNING, RETRAIN, Scorer

if TYPE_CHECKING:
    import pandas as pd

    from forgetbench.api.methods import MethodLike
    from forgetbench.evidence.reference import ReferenceBundle
    from forgetbench.runner.results import Results
    from forgetbench.tasks.task import Task


def list_attacks(pattern: str = "*") -> list[str]:
    """Names of the available attacks.

    Args:
        pattern: A wildcard pattern.

    Returns:
        Sorted names.

    Example:
        >>> list_attacks("relearn-*")
        ['relearn-few-shot', 'relearn-retain']
    """
    from forgetbench.attacks import attacks

    return attacks.names(pattern)


def attack(
    attacks: str | Sequence[str],
    methods: MethodLike | Iterable[MethodLike],
    task: str | Path | Task,
    *,
    seeds: int | None = None,
    draws: int | None = None,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> AttackResult:
    """Attack the unlearned models of a task, and with the same budgets its originals and oracles.

    Trains and unlearns what is missing. Everything is stored: an interrupted call resumes, and a second call with more
    attacks or methods computes only those.

    Args:
        attacks: Names with options (``"quantize"``, ``"relearn-retain:steps=50"``) or classes in files
            (``"my_attack.py:MyAttack"``); ``"all"`` is every attack. Without a budget, each budget of the card is run.
        methods: See `evaluate`.
        task: Name of a task, path of a task file, or a task.
        seeds: Number of originals, and of oracles in each of the two sets; flags need 6.
        draws: Number of forget sets.
        config: Device, worker processes and folders; nothing in it changes a result.
        progress: Show a progress bar, or a progress callback.

    Returns:
        What each attack with each budget found in each row.

    Raises:
        UsageError: A task, attack, method or option is wrong; raised before anything is trained.
        ForgetBenchError: Jobs failed for another reason than the error of a method or an attack.

    Example:
        >>> found = attack(["recalibrate", "prune"], ["iau"], "digits/cnn/class")  # doctest: +SKIP
        >>> found["iau"].recoverable  # doctest: +SKIP
        True
    """
    from forgetbench.api.methods import as_list, resolve_methods
    from forgetbench.runner.attack_run import run_attacks
    from forgetbench.runner.attack_spec import parse_attacks
    from forgetbench.runner.failures import error_of

    chosen, loaded = config or RunConfig(), load_task(task, seeds=seeds, draws=draws)
    specs = parse_attacks([attacks] if isinstance(attacks, str) else attacks)
    listed = as_list(methods)
    with open_progress(progress) as callback, without_main_file():
        done = run_attacks(loaded, specs, lambda one: resolve_methods(listed, one, chosen.home), chosen, callback)
    if done.failed:
        raise error_of(done.failed, done.jobs)
    rows = {read_run(folder).manifest.row: folder for folder in done.runs}
    return AttackResult(chosen.results.scorer(done.reference), done.folders, rows, dict(done.refusals))


def audit_attacks(
    task: str | Path | Task,
    attacks: str | Sequence[str] = (),
    *,
    seeds: int | None = None,
    config: RunConfig | None = None,
    progress: bool | ProgressCallback = True,
) -> AttackBands:
    """Judge attacks by what they find in retrained models: control oracles against reference oracles.

    An attack that finds more there than the family limit allows is unfit on this task, and flags no row.

    Args:
        task: Name of a task, path of a task file, or a task.
        attacks: See `attack`; those that were run on this task before are judged as well.
        seeds: Number of originals, and of oracles in each of the two sets.
        config: Device, worker processes and folders.
        progress: Show a progress bar, or a progress callback.

    Returns:
        The bands of all attacks; `AttackBands.unfit` lists those that fail.

    Raises:
        UsageError: The task, an attack or an option is wrong.
        ForgetBenchError: A job failed.

    Example:
        >>> audit_attacks("digits/cnn/class", "all", seeds=6).unfit  # doctest: +SKIP
        ()
    """
    from forgetbench.runner.attack_run import run_attacks
    from forgetbench.runner.attack_spec import parse_attacks
    from forgetbench.runner.failures import error_of

    chosen, loaded = config or RunConfig(), load_task(task, seeds=seeds)
    specs = parse_attacks([attacks] if isinstance(attacks, str) else attacks)
    with open_progress(progress) as callback, without_main_file():
        done = run_attacks(loaded, specs, lambda _: [], chosen, callback)
    if done.failed:
        raise error_of(done.failed, done.jobs)
    folders = dict.fromkeys((*done.folders, *recorded_attacks(chosen.results, done.reference)))
    return AttackResult(chosen.results.scorer(done.reference), tuple(folders), {}, dict(done.refusals)).bands


def recorded_attacks(results: Results, reference: ReferenceBundle) -> list[Path]:
    """The folders of the attacks that were run on a board here, with the evidence of its originals and oracles."""
    recorded = sorted(results.attacks_folder(reference.card).glob("*"))
    return [one for one in recorded if all((one / side / MANIFEST).is_file() for side in REFERENCE_POPULATIONS)]


@dataclass(frozen=True, eq=False)
class AttackResult:
    """What attacks found, computed from evidence: it needs no torch and no model.

    Args:
        scorer: The scorer of the board before the attacks.
        folders: One folder for each attack with its budget, as `forgetbench attack` writes them.
        rows: Row -> the folder of its run before the attacks.
        refusals: Label of an attack -> why it does not apply to the task.
    """

    scorer: Scorer
    folders: Sequence[Path]
    rows: dict[str, Path]
    refusals: dict[str, str]

    @cached_property
    def boards(self) -> list[AttackedBoard]:
        """The reference populations after each attack.

        Raises:
            ForgetBenchError: Their evidence is missing, damaged, or of another board.
        """
        boards = []
        for folder in self.folders:
            populations = {name: self._read(folder / name) for name in REFERENCE_POPULATIONS}
            failed = next((one for one in populations.values() if one.manifest.status != "ok"), None)
            if failed is not None:
                continue
            boards.append(read_board(populations))
        return boards

    @cached_property
    def failures(self) -> dict[str, dict[str, str]]:
        """Label of an attack -> population or row -> why the attack failed there."""
        found: dict[str, dict[str, str]] = {}
        for folder in self.folders:
            for path in sorted(folder.rglob(MANIFEST)):
                manifest = read_attacked(path.parent).manifest
                if manifest.status != "ok":
                    found.setdefault(manifest.attack.label, {})[manifest.row or manifest.population] = manifest.reason
        return found

    @cached_property
    def bands(self) -> AttackBands:
        """Bands of all attacks, and the family limit over them."""
        return attack_bands(self.boards, self._untouched)

    @cached_property
    def scores(self) -> dict[str, RowAttacks]:
        """Row -> what the attacks found: Retrain and No unlearning, then the unlearned rows."""
        found = {
            RETRAIN: self._score(
                RETRAIN, self._untouched.controls, {board.label: board.controls for board in self.boards}
            ),
            NO_UNLEARNING: self._score(
                NO_UNLEARNING, self.scorer.originals, {board.label: board.originals for board in self.boards}
            ),
        }
        card = self.scorer.bundle.card
        for row, run_folder in self.rows.items():
            run, attacked = read_run(run_folder), dict[str, Population]()
            if run.manifest.status != "ok":
                continue
            for folder in self.folders:
                place = self._row_folder(folder, row)
                if place is not None and (one := self._read(place)).manifest.status == "ok":
                    attacked[one.manifest.attack.label] = one.answers()
            found[row] = self._score(row, run.population(card.draws, card.seeds), attacked)
        return found

    def to_frame(self) -> pd.DataFrame:
        """The curves over the budgets as a pandas DataFrame: one line for each row, attack and budget.

        Returns:
            Columns ``row``, ``attack``, ``budget``, ``flops``, for each subset its accuracy ``SUBSET`` after the attack
            and that of the oracles ``SUBSET.oracle``, ``statistic`` with its interval ``low`` and ``high``, ``z``,
            ``outside`` and ``recoverable``. Missing values are NaN or None.
        """
        import pandas as pd

        lines = []
        for name, row in self.scores.items():
            for score in row.scores:
                scale, statistic = self.bands.scale(score.label), score.statistic
                line = {"row": name, "attack": scale.name, "budget": scale.value, "flops": scale.flops}
                for subset, accuracy in score.accuracies.items():
                    line |= {subset: accuracy.after, f"{subset}.oracle": scale.accuracies[subset].oracle}
                line |= {"statistic": statistic.value, "low": statistic.low, "high": statistic.high}
                lines.append({**line, "z": score.z, "outside": score.outside, "recoverable": score.recoverable})
        return pd.DataFrame(lines)

    def __getitem__(self, row: str) -> RowAttacks:
        """What the attacks found in a row.

        Raises:
            UsageError: There is no such row; the message lists all.
        """
        if row not in self.scores:
            raise UsageError(f"There is no row {row!r}. Available: {', '.join(self.scores)}.")
        return self.scores[row]

    @cached_property
    def _untouched(self) -> UntouchedBoard:
        return untouched_board(self.scorer)

    def _score(self, name: str, population: Population, attacked: dict[str, Population]) -> RowAttacks:
        return score_attacks(name, population, attacked, self.boards, self._untouched, self.bands)

    def _read(self, folder: Path) -> AttackedPopulation:
        attacked = read_attacked(folder)
        if problems := check_attacked(attacked, self.scorer.bundle):
            raise ForgetBenchError(f"{folder}: {'; '.join(problems)}. Repeat the attack: {attacked.manifest.command}")
        return attacked

    @staticmethod
    def _row_folder(attack: Path, row: str) -> Path | None:
        """The folder of a row below that of an attack; None if the row was not attacked."""
        found = [path.parent for path in sorted((attack / "rows").glob(f"*/{MANIFEST}"))]
        return next((path for path in found if read_attacked(path).manifest.row == row), None)


def attacked_row(folder: Path, row: str | None = None) -> Path:
    """The folder of an attacked row.

    Args:
        folder: The folder of one attack with one budget.
        row: Name of the row; None if there is one only.

    Raises:
        UsageError: There is no such row, or more than one; the message lists all.
    """
    places = [path.parent for path in sorted((folder / "rows").glob(f"*/{MANIFEST}"))]
    found = {read_attacked(place).manifest.row: place for place in places}
    if row is None and len(found) == 1:
        return next(iter(found.values()))
    if row not in found:
        what = "Name the attacked row with --row" if row is None else f"There is no row {row!r} in {folder}"
        raise UsageError(f"{what}. Available: {', '.join(found) or 'none'}.")
    return found[row]


def check_attack(attack: str, *, networks: Sequence[str] = CHECK_NETWORKS, isolated: bool = False) -> MethodReport:
    """Check an attack against the contract that every attack fulfills, on tiny random images (seconds).

    Args:
        attack: A name, or ``"my_attack.py:MyAttack"``. Only the class is checked.
        networks: Names of the networks to check on.
        isolated: Run the checks in a process of their own, so that an attack that crashes does not end this one.

    Returns:
        All results; ``report.ok`` tells whether the attack passed.

    Raises:
        UsageError: The attack or a network is unknown.
        ForgetBenchError: The attack ended the process of its checks.

    Example:
        >>> check_attack("quantize", networks=["mlp"]).ok
        True
    """
    return report_of(run_attack_checks, CheckJob(attack, tuple(networks)), isolated=isolated)


def run_attack_checks(job: CheckJob) -> MethodReport:
    """Check an attack in this process."""
    from forgetbench.attacks import attacks, load_attack_file
    from forgetbench.attacks.contract import check_attack as run_checks
    from forgetbench.method_label import MethodLabel, is_method_file

    text = job.method
    kind = load_attack_file(text) if is_method_file(text) else attacks.get(MethodLabel.parse(text).name)
    checks = (MethodCheck(network, *result) for network in job.networks for result in run_checks(kind, network=network))
    return MethodReport(kind.card.name, tuple(checks))
