"""The commands run, plan, score, audit and check-method."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import App

from forgetbench.cli.console import figure, print_json, print_note, print_table, print_text
from forgetbench.cli.options import BOARD, METHODS, RUN, BoardOptions, Json, MethodOptions, RunOptions
from forgetbench.cli.report import print_tables
from forgetbench.errors import UsageError

if TYPE_CHECKING:
    from forgetbench.api.board import BoardResult
    from forgetbench.api.planning import PlannedMethod
    from forgetbench.auditing.criteria import Audit
    from forgetbench.runner.config import RunConfig
    from forgetbench.runner.plan import TaskPlan
    from forgetbench.runner.run import TaskRun
    from forgetbench.scoring.attacks import AttackBands
    from forgetbench.scoring.scorecards import Scorecard


def add_commands(app: App) -> None:
    """Add this module's commands."""
    app.command(run)
    app.command(plan)
    app.command(score)
    app.command(audit)
    app.command(check_method, name="check-method")


def run(
    *task: str,
    methods: MethodOptions = METHODS,
    board: BoardOptions = BOARD,
    options: RunOptions = RUN,
    json: Json = False,
) -> int:
    """Run methods on tasks and score them. An interrupted run resumes. Exit status 1 if a method or a job failed.

    A job that fails for another reason than its method, such as a full disk, does not end the run: everything that
    does not need it is done, and the same command repeats only the rest.

    Example: forgetbench run digits/cnn/mislabelled-20 --method ssd:alpha=5 --method finetune --seeds 6

    Args:
        task: Names of tasks (`forgetbench list tasks`), wildcard patterns, or paths of task files.
    """
    from forgetbench.runner.run import check_finished

    done = _evaluate(task, methods, board, options)
    failures = _print_boards(done, json=json)
    check_finished([task_run for _, task_run in done])
    return 1 if failures else 0


def _evaluate(
    task: tuple[str, ...], methods: MethodOptions, board: BoardOptions, options: RunOptions
) -> list[tuple[BoardResult, TaskRun]]:
    """Boards and runs of all tasks."""
    from forgetbench.api.evaluation import evaluate_finished

    config = options.config(
        keep_models=board.keep_models,
        skip_oracles=board.skip_oracles,
        repeats=board.repeats,
    )
    return evaluate_finished(
        methods.names,
        board.tasks(task),
        preset=board.preset,
        tuned=board.tuned,
        selector=board.selector,
        config=config,
    )


def _print_boards(done: Sequence[tuple[BoardResult, TaskRun]], *, json: bool) -> int:
    """Print boards, the folders of their runs and why rows have failed; returns the number of those rows."""
    scored = [board for board, task_run in done if task_run.reference is not None]
    if scored:
        print_tables([table for board in scored for table in board.tables], "json" if json else "table")
    print_note("\n".join(f"evidence: {folder}" for board, _ in done for folder in board.runs))
    failures = [f"{board.task}: {row} failed: {reason}" for board, _ in done for row, reason in board.failures.items()]
    for failure in failures:
        print_note(failure)
    return len(failures)


def plan(
    *task: str,
    methods: MethodOptions = METHODS,
    seeds: int | None = None,
    draws: int | None = None,
    preset: str | None = None,
    options: RunOptions = RUN,
    json: Json = False,
) -> None:
    """Print what a run would do: values of methods with their sources, jobs, operations, hours, disk and memory.

    Trains nothing. Hours are those of devices on which this machine has trained models before.

    Example: forgetbench plan cifar20/resnet18/subclass --method ssd --preset paper

    Args:
        task: Names of tasks, wildcard patterns, or paths of task files.
        seeds: Number of originals, and of oracles in each of the two sets.
        draws: Number of forget sets.
        preset: The preset of every method that is named without one, such as `paper`.
    """
    from forgetbench import plan as plan_methods
    from forgetbench import plan_jobs
    from forgetbench.api.tasks import find_tasks

    config = options.config()
    plans = []
    for one in find_tasks(task, seeds=seeds, draws=draws):
        rows = plan_methods(methods.names, one, preset=preset, config=config)
        plans.append((rows, plan_jobs(methods.names, one, preset=preset, config=config)))
    _print_plans(plans, config, json=json)


def _print_plans(plans: Sequence[tuple[Sequence[PlannedMethod], TaskPlan]], config: RunConfig, *, json: bool) -> None:
    """Print the rows and the jobs of each task, and what all of them need."""
    from forgetbench.runner.plan import free_bytes, workers_here

    workers, free = workers_here(config), free_bytes(config.home)
    if json:
        tasks = [{"rows": [row._asdict() for row in rows], **_plan_record(planned)} for rows, planned in plans]
        print_json({"workers": workers, "disk_free_bytes": free, "tasks": tasks})
        return
    for rows, planned in plans:
        for row in rows:
            print_text(row.label)
            print_text("  " + ", ".join(f"{name}={value}" for name, value in row.parameters.items()))
            print_text(f"  {row.source}" + (f" Differs: {row.differs}" if row.differs else ""))
        _print_plan(planned)
    print_note("\n".join(_plan_totals([planned for _, planned in plans], workers, free)))


def _plan_record(planned: TaskPlan) -> dict[str, object]:
    """A plan as JSON."""
    return {
        "task": planned.task.name,
        "jobs": planned.jobs,
        "stored": planned.stored,
        "flops": planned.flops,
        "hours": planned.hours(),
        "speeds": {name: asdict(speed) for name, speed in planned.speeds.items()},
        "disk_bytes": planned.disk_bytes,
        "memory_bytes": planned.memory_bytes,
        "groups": [asdict(group) for group in planned.groups],
        "refused": planned.refused,
        "unknown": planned.unknown,
    }


def _print_plan(planned: TaskPlan) -> None:
    rows = [
        (
            group.name,
            str(group.jobs),
            "–" if group.stored is None else str(group.stored),
            "–" if group.flops is None else f"{group.flops:.3g}",
            group.source,
        )
        for group in planned.groups
    ]
    notes = [*planned.refused, *([f"The rest is not known: {planned.unknown}"] if planned.unknown else [])]
    header = ("jobs", "number", "in the store", "FLOPs of each", "source")
    print_table(planned.task.name, header, rows, right=range(1, 4), caption="; ".join(notes))


def _plan_totals(plans: Sequence[TaskPlan], workers: int | None, free: int) -> Iterator[str]:
    """The sums over tasks, as far as they are known."""
    stored = [planned.stored for planned in plans]
    known = None if None in stored else sum(number or 0 for number in stored)
    jobs = sum(planned.jobs for planned in plans)
    yield f"{jobs} jobs" + ("" if known is None else f", {known} of them in the store: {jobs - known} to run.")
    flops = [planned.flops for planned in plans]
    if None in flops:
        yield "The number of operations is not known for all jobs (see the tables)."
    else:
        yield f"{sum(value or 0 for value in flops):.3g} FLOPs."
    yield from _plan_hours(plans, workers)
    sizes = [planned.disk_bytes for planned in plans if planned.disk_bytes is not None]
    if sizes:
        yield f"Disk: up to {_size(sum(sizes))}, {_size(free)} are free."
    memory = [planned.memory_bytes for planned in plans if planned.memory_bytes is not None]
    if memory:
        times = f" for each of {workers} workers" if workers and workers > 1 else ""
        yield f"Memory: about {_size(max(memory))}{times}, besides Python and torch."


def _plan_hours(plans: Sequence[TaskPlan], workers: int | None) -> Iterator[str]:
    """Hours on each device on which models of every task's scope were trained."""
    hours = [planned.hours() for planned in plans]
    devices = [name for name in hours[0] if all(name in one for one in hours)] if hours else []
    for name in devices:
        total = sum(one[name] for one in hours)
        shared = f", {total / workers:.3g} h by {workers} workers" if workers and workers > 1 else ""
        models = sum(planned.speeds[name].models for planned in plans)
        scopes = sorted({planned.speeds[name].scope for planned in plans})
        yield f"{name}: {total:.3g} h one after another{shared} (by {models} models of {', '.join(scopes)})."
    if not devices and all(planned.flops is not None for planned in plans):
        yield "Hours are not known: no model was trained on this machine yet. `forgetbench demo` trains some."


def _size(number: int) -> str:
    """Bytes in words."""
    return f"{number / 2**30:.1f} GiB" if number >= 2**30 else f"{number / 2**20:.0f} MiB"


def score(
    run_folder: Path | None = None,
    *,
    pack: Path | None = None,
    unlearned: Path | None = None,
    oracle: Path | None = None,
    labels: Path | None = None,
    original: Path | None = None,
    track: Literal["match-oracle", "erase", "corrective"] | None = None,
    all_rows: bool = False,
    json: Json = False,
) -> None:
    """Score recorded evidence, or logits from any source. Needs no torch.

    Besides forget, retain and test, further arrays give further metrics: test-forgotten, withheld, validation;
    penultimate features as features:SUBSET next to the logits, groups as groups:test next to the labels.

    Example: forgetbench score --unlearned unlearned.npz --oracle oracle.npz --labels labels.npz

    Args:
        run_folder: Folder of a run: manifest.json and its evidence.
        pack: Reference bundle to score against (default: the one of this machine for the run's task).
        unlearned: Logits of unlearned models: an .npz with arrays forget, retain and test, (S, n, K) or (n, K).
        oracle: The same of models that never saw the forget set; 2 S of them also give oracle bands.
        labels: The labels: an .npz with arrays forget, retain and test, (n,) or (n, A).
        original: The same as unlearned, before unlearning.
        track: What the logits are scored for: match-oracle (default), corrective, or erase (also needs test-forgotten).
        all_rows: Compute metrics that never rank (SVC attack, forgetting quality) from all rows, as published. It is
            slow; otherwise they read a fixed number.
    """
    from forgetbench.api.scoring import score as score_logits
    from forgetbench.api.scoring import score_run

    if run_folder is not None:
        if unlearned or oracle or labels or original or track:
            raise UsageError("Give the folder of a run, or --unlearned, --oracle and --labels; not both.")
        card, title = score_run(run_folder, reference=pack, all_rows=all_rows), str(run_folder)
    elif unlearned and oracle and labels:
        logits, title = (unlearned, oracle, labels), str(unlearned)
        card = score_logits(*logits, original=original, track=track or "match-oracle", all_rows=all_rows)
    else:
        raise UsageError("Give the folder of a run, or --unlearned, --oracle and --labels.")
    print_json(card.model_dump(mode="json")) if json else _print_scorecard(card, title)


def _print_scorecard(card: Scorecard, title: str) -> None:
    rows = []
    for name, value in card.metrics.items():
        if value.value is None:
            rows.append((name, "–", "", "", "", value.reason))
            continue
        interval = f"{value.low:.4f} … {value.high:.4f}" if value.low is not None else ""
        band = f"{value.band.low:.4f} … {value.band.high:.4f}" if value.band else ""
        z = f"{value.z:+.2f}" if value.z is not None else ""
        rows.append((name, f"{value.value:.4f}", interval, band, z, "ranks" if name in card.ranking else ""))
    header = ("metric", "value", "95 % interval", "oracle band", "z", "")
    print_table(f"{title}: {card.name}", header, rows, right=(1, 4), caption="; ".join(_notes(card)))


def _notes(card: Scorecard) -> Iterator[str]:
    """Statements about the whole scorecard."""
    if card.distance is not None:
        place = (
            "inside the family band: not distinguishable from retraining"
            if card.distance.within_band
            else "outside the family band"
        )
        yield f"distance {card.distance.value:.2f}, decided by {card.distance.metric}, {place}"
    if card.exclusion_reason:
        yield card.exclusion_reason
    if card.unranked_reason and card.unranked_reason != card.exclusion_reason:
        yield card.unranked_reason
    yield from (flag for flag in card.flags if not card.exclusion_reason.startswith(flag))


def audit(
    task: str,
    *,
    attack: list[str] | None = None,
    seeds: int | None = None,
    options: RunOptions = RUN,
    json: Json = False,
) -> int:
    """Test the metrics and attacks of a task with contestants whose place is known: which are fit to rank?

    Exit status 1 if a ranking metric fails, or an attack finds more in retrained models than the family limit allows.

    Example: forgetbench audit digits/cnn/mislabelled-20

    Args:
        task: Name of the task.
        attack: Attacks to test as well, or all; those that were run on this task are always tested. Can be repeated.
        seeds: Number of originals, and of oracles in each of the three sets.
    """
    from forgetbench import audit as audit_task
    from forgetbench import load_task
    from forgetbench.api.attacks import audit_attacks

    loaded, config = load_task(task, seeds=seeds), options.config()
    found = audit_task(loaded, config=config).audit
    attacks = audit_attacks(loaded, attack or (), config=config)
    if json:
        print_json(found.model_dump(mode="json") | {"attacks": attacks.model_dump(mode="json")})
    else:
        _print_audit(found, loaded.name, loaded.title)
        _print_audited_attacks(attacks)
    return 1 if found.excluded_metrics or attacks.unfit else 0


def _print_audited_attacks(bands: AttackBands) -> None:
    """What attacks find in control oracles against reference oracles."""
    words = {True: "fit", False: "UNFIT", None: "not judged"}
    rows = [
        (one.label, words[one.fit], figure(one.control_z, "+.2f"), figure(one.flops, ".3g"), one.reason)
        for one in bands.scales
    ]
    if rows:
        limit = f"family limit z {figure(bands.family_limit, '.2f')} over {len(rows)} attacks and budgets"
        print_table(
            "Attacks on retrained models", ("attack", "", "z", "FLOPs", "reason"), rows, right=(2, 3), caption=limit
        )


def _print_audit(audit: Audit, task: str, title: str) -> None:
    from forgetbench.auditing.criteria import CONTESTANTS

    rows = [
        (
            one.metric,
            one.fit,
            "ranks" if one.ranks else "",
            *(figure(z, "+.2f") for z in (one.retrain, one.third, one.none)),
            figure(one.detectable, ".4f"),
            "; ".join(one.why),
        )
        for one in audit.metrics
    ]
    header = ("metric", "", "", "z of Retrain", "third set", "No unlearning", "detected 9 times in 10", "reason")
    print_table(f"{task}: {title}", header, rows, right=range(3, 7))
    marks = {True: "ok", False: "FAIL", None: "n/a"}
    whole = [finding for finding in audit.findings if finding.metric is None]
    print_table("", ("sentinel", "", "finding"), [(each.sentinel, marks[each.passed], each.detail) for each in whole])
    if audit.taus:
        names = list(audit.taus)
        taus = [(name, *(f"{audit.taus[name].get(other, float('nan')):+.2f}" for other in names)) for name in names]
        print_table("Kendall's tau between metrics over the contestants", ("", *names), taus, right=range(1, 40))
    else:
        print_note(
            f"Kendall's tau between metrics is not shown: it needs {CONTESTANTS} contestants, and {audit.contestants} "
            f"were run (`forgetbench run {task}`)."
        )
    if audit.excluded_metrics:
        print_note(
            f"{', '.join(audit.excluded_metrics)}: shown, and no longer ranking on {task}, here and in its pack."
        )


def check_method(method: str, *, network: list[str] | None = None) -> int:
    """Check a method against the contract that every method fulfills. Exit status 1 if a check fails.

    Example: forgetbench check-method my_method.py:MyMethod

    Args:
        method: FILE.py:CLASS, or the name of a method.
        network: Networks to check on (default: mlp and cnn). Can be repeated.
    """
    from forgetbench.api.methods import CHECK_NETWORKS
    from forgetbench.api.methods import check_method as check

    report = check(method, networks=network or CHECK_NETWORKS, isolated=True)
    rows = [(each.network, each.name, "ok" if each.ok else "FAIL", each.message) for each in report.checks]
    print_table(report.method, ("network", "check", "", "details"), rows)
    return 0 if report.ok else 1
