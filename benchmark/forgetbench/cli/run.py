"""The commands run, score, audit and check-method: everything that needs no server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from cyclopts import App, Parameter

from forgetbench.cli.console import ProgressBar, print_json, print_table, remark
from forgetbench.cli.report import print_tables
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.scoring.scorecards import Scorecard

Flag = Annotated[bool, Parameter(negative="")]
Device = Annotated[str, Parameter(help="torch device; auto takes the GPU where there is one.")]
ExecutorName = Annotated[
    Literal["auto", "processes", "local"], Parameter(help="Side by side in processes, or in order here.")
]
Selector = Annotated[
    Literal["oracle-free", "oracle"], Parameter(help="By what a trial is judged: without any oracle, or by distance.")
]


def add_commands(app: App) -> None:
    """Add this file's commands."""
    app.command(run)
    app.command(score)
    app.command(audit)
    app.command(check_method, name="check-method")


def run(
    *task: str,
    method: Annotated[list[str] | None, Parameter(negative="")] = None,
    method_file: Annotated[list[str] | None, Parameter(negative="")] = None,
    seeds: int | None = None,
    draws: int | None = None,
    forget_indices: Path | None = None,
    root: Path | None = None,
    device: Device = "auto",
    executor: ExecutorName = "auto",
    workers: int | None = None,
    tuned: Flag = False,
    selector: Selector = "oracle-free",
    keep_models: Flag = False,
    measure_relearning: Flag = False,
    skip_oracles: Flag = False,
    json: Flag = False,
) -> None:
    """Run methods on tasks and score them. A killed run continues where it stopped.

    Example: forgetbench run digits/cnn/mislabelled-20 --method ssd:alpha=5 --method finetune --seeds 6

    Parameters
    ----------
    task
        Names of tasks (`forgetbench list tasks`), wildcard patterns, or paths of task files.
    method
        NAME[:parameter=value,...]; all (the default where no file is given either), sentinels. May stand several times.
    method_file
        FILE.py:CLASS[:parameter=value,...], a method of your own. May stand several times.
    seeds
        Originals, and oracles in each of the two sets; ranks need 6.
    draws
        Forget sets.
    forget_indices
        Forget the training rows that a file lists (.npy, .json or .txt), on a board of its own, instead of the task's.
    root
        Folder of the image sets on disk.
    workers
        Processes; one for each core if left out.
    tuned
        Take the best hyper-parameters that `forgetbench tune` found here; the row says how many trials there were.
    keep_models
        Keep the unlearned models' weights in the store.
    measure_relearning
        On erase boards, measure how fast the forgotten is learned again, beside the oracles. Keeps the models.
    skip_oracles
        Train nothing but the method; the originals come from `forgetbench pack pull`.
    json
        Print JSON.
    """
    from forgetbench.evidence.run import read_run
    from forgetbench.reporting.streams import tables_of
    from forgetbench.runner.config import RunConfig
    from forgetbench.runner.method_spec import MethodSpec, parse_methods
    from forgetbench.runner.run import run as run_tasks
    from forgetbench.scoring.scorer import rank_runs
    from forgetbench.tasks.task import Task, find_tasks
    from forgetbench.tuning.tune import load_best

    found = [one.with_counts(seeds=seeds, draws=draws) for one in find_tasks(task)]
    if forget_indices is not None:
        found = [one.forgetting(forget_indices) for one in found]
    names = method if method or method_file else ["all"]
    options = RunConfig(
        root=root,
        device=device,
        engine=executor,
        workers=workers,
        keep_models=keep_models,
        measure_relearning=measure_relearning,
        skip_oracles=skip_oracles,
    )

    def rows(one: Task) -> list[MethodSpec]:
        chosen = parse_methods(names or [], method_file or [], one.network.name)
        return load_best(one, chosen, options, selector) if tuned else chosen

    with ProgressBar() as watcher:
        done = run_tasks(found, rows, options, watcher)
    if not skip_oracles:
        boards = [
            (options.results.scorer(task_run.reference), [read_run(folder) for folder in task_run.runs])
            for task_run in done
            if task_run.reference
        ]
        tables = [table for judge, runs in boards for table in tables_of(rank_runs(judge, runs), judge.pack, runs)]
        print_tables(tables, "json" if json else "table")
    remark("\n".join(f"evidence: {folder}" for task_run in done for folder in task_run.runs))


def score(
    run_folder: Path | None = None,
    *,
    pack: Path | None = None,
    logits: Path | None = None,
    oracle: Path | None = None,
    labels: Path | None = None,
    originals: Path | None = None,
    track: Literal["match-oracle", "erase"] | None = None,
    json: Flag = False,
) -> None:
    """Score saved evidence, or the logits that another suite saved. Needs no torch.

    Beside forget, retain and test, what else there is gives further metrics: test-forgotten, withheld, validation;
    penultimate features as features:SUBSET beside the logits, groups as groups:test beside the labels.

    Example: forgetbench score --logits unlearned.npz --oracle oracle.npz --labels labels.npz

    Parameters
    ----------
    run_folder
        The folder of a run: manifest.json and its evidence.
    pack
        The pack to score against; left out, the one that was made here for the run's task.
    logits
        Logits of unlearned models: an .npz with arrays forget, retain and test, (S, n, K) or (n, K).
    oracle
        The same of models that never saw the forget set; with 2 S of them there are oracle bands.
    labels
        The labels: an .npz with arrays forget, retain and test, (n,) or (n, A).
    originals
        The same as logits, before unlearning.
    track
        What the logits are scored for: match-oracle if left out, or erase, which needs test-forgotten too.
    json
        Print the scorecard, whole, as JSON.
    """
    from forgetbench.evidence.run import read_run
    from forgetbench.importers.arrays import score_files
    from forgetbench.runner.results import Results

    if run_folder is not None:
        if logits or oracle or labels or originals or track:
            raise UsageError("give the folder of a run, or --logits, --oracle and --labels (--track); not both.")
        run_ = read_run(run_folder)
        card, title = Results().scorer_of(run_.manifest, pack).score(run_), run_.manifest.task
    elif logits and oracle and labels:
        card, title = score_files(logits, oracle, labels, originals, track=track or "match-oracle"), str(logits)
    else:
        raise UsageError("name the folder of a run, or --logits, --oracle and --labels.")
    if json:
        print_json(card.model_dump(mode="json"))
        return
    rows = []
    for name, value in card.metrics.items():
        if value.value is None:
            rows.append((name, "–", "", "", "", value.reason))
            continue
        interval = f"{value.low:.4f} … {value.high:.4f}" if value.low is not None else ""
        band = f"{value.band.low:.4f} … {value.band.high:.4f}" if value.band else ""
        z = f"{value.z:+.2f}" if value.z is not None else ""
        rows.append((name, f"{value.value:.4f}", interval, band, z, "ranks" if name in card.ranking else ""))
    print_table(
        f"{title}: {card.name}",
        ("metric", "value", "95 % interval", "oracle band", "z", ""),
        rows,
        right=(1, 4),
        caption="; ".join(_caption(card)),
    )


def _caption(card: Scorecard) -> Iterator[str]:
    """What the whole scorecard says, each thing once."""
    if card.distance is not None:
        inside = "inside" if card.distance.within_band else "outside"
        told = ": not told from retraining" if card.distance.within_band else ""
        yield f"distance {card.distance.value:.2f}, decided by {card.distance.metric}, {inside} the family band{told}"
    if card.exclusion_reason:
        yield card.exclusion_reason
    if card.unranked_reason and card.unranked_reason != card.exclusion_reason:
        yield card.unranked_reason
    yield from (flag for flag in card.flags if not card.exclusion_reason.startswith(flag))


def audit(
    task: str,
    *,
    seeds: int | None = None,
    root: Path | None = None,
    device: Device = "auto",
    workers: int | None = None,
    json: Flag = False,
) -> int:
    """Put the sentinels through every metric: which metrics are fit to rank on this task?

    Example: forgetbench audit digits/cnn/mislabelled-20

    Parameters
    ----------
    task
        Name of the task.
    seeds
        Originals, and oracles in each of the three sets.
    root
        Folder of the image sets on disk.
    workers
        Processes; one for each core if left out.
    json
        Print JSON.
    """
    from forgetbench.auditing.criteria import CONTESTANTS
    from forgetbench.auditing.run import audit_task
    from forgetbench.runner.config import RunConfig
    from forgetbench.tasks.task import read_task

    wanted = read_task(task).with_counts(seeds=seeds)
    with ProgressBar() as watcher:
        audited = audit_task(wanted, RunConfig(root=root, device=device, workers=workers), watcher)
    found = audited.audit
    if json:
        print_json(found.model_dump(mode="json"))
        return 1 if found.excluded_metrics else 0

    def signed(z: float | None) -> str:
        return "–" if z is None else f"{z:+.2f}"

    print_table(
        f"{wanted.name}: {wanted.title}",
        ("metric", "", "", "z of Retrain", "third set", "No unlearning", "found 9 times in 10", "why"),
        [
            (
                one.metric,
                one.fit,
                "ranks" if one.ranks else "",
                *(signed(z) for z in (one.retrain, one.third, one.none)),
                "–" if one.detectable is None else f"{one.detectable:.4f}",
                "; ".join(one.why),
            )
            for one in found.metrics
        ],
        right=range(3, 7),
    )
    whole = [finding for finding in found.findings if finding.metric is None]
    marks = {True: "ok", False: "OUT OF PLACE", None: "not demanded"}
    print_table("", ("sentinel", "", "what was found"), [(v.sentinel, marks[v.passed], v.detail) for v in whole])
    if found.taus:
        names = list(found.taus)
        table = [(name, *(f"{found.taus[name].get(other, float('nan')):+.2f}" for other in names)) for name in names]
        print_table("Kendall's tau between metrics over the contestants", ("", *names), table, right=range(1, 40))
    else:
        remark(
            f"Kendall's tau between metrics is left out: it needs {CONTESTANTS} contestants, and {found.contestants} "
            f"were run here (`forgetbench run {wanted.name}`)."
        )
    if found.excluded_metrics:
        remark(
            f"{', '.join(found.excluded_metrics)}: shown, and ranking no longer on {wanted.name}, here and in its pack."
        )
    return 1 if found.excluded_metrics else 0


def check_method(method_file: str, *, network: list[str] | None = None) -> int:
    """Check a method of your own against the contract that every method keeps.

    Example: forgetbench check-method my_method.py:MyMethod

    Parameters
    ----------
    method_file
        FILE.py:CLASS, or the name of a method of the package.
    network
        Networks to check on: mlp and cnn if left out.
    """
    from forgetbench.methods import load_method_file, methods
    from forgetbench.methods.contract import check_method as check

    kind = load_method_file(method_file) if ".py" in method_file else methods.get(method_file)
    results = [(name, result) for name in network or ["mlp", "cnn"] for result in check(kind, network=name)]
    rows = [(name, result.name, "ok" if result.ok else "FAILED", result.message) for name, result in results]
    print_table(kind.card.name, ("network", "check", "", "what was seen"), rows)
    return 0 if all(result.ok for _, result in results) else 1
