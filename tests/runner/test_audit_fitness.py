"""What an audit finds out of place is kept beside the results and in the pack, and ranks nothing from then on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from forgetbench.auditing import run as auditing
from forgetbench.errors import ForgetBenchError
from forgetbench.evidence.arrays import Logits
from forgetbench.evidence.reference import AUDIT, AuditFitness, ReferenceBundle, read_pack, with_fitness
from forgetbench.evidence.run import read_run
from forgetbench.reporting.tables import board_table
from forgetbench.runner.config import RunConfig
from forgetbench.runner.method_spec import parse_methods
from forgetbench.runner.run import TaskRun, run
from forgetbench.scoring.scorer import RankedRuns, Scorer, rank_runs
from forgetbench.tasks.task import Task


@pytest.fixture
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("mislabelled", "rate = 0.3, known = 0.5", seeds=6)


@pytest.fixture
def options(tmp_path: Path) -> RunConfig:
    return RunConfig(home=tmp_path / "home", device="cpu", engine="local")


def go(task: Task, options: RunConfig) -> tuple[TaskRun, ReferenceBundle]:
    [done] = run([task], lambda one: parse_methods(["finetune:epochs=1"], [], one.setting), options)
    assert done.reference is not None
    return done, done.reference


def standing_of(done: TaskRun, pack: ReferenceBundle) -> RankedRuns:
    return rank_runs(Scorer(pack), [read_run(folder) for folder in done.runs])


def found_out(pack: ReferenceBundle, *names: str) -> AuditFitness:
    return AuditFitness(
        task=pack.card.task,
        task_key=pack.card.task_key,
        pack=pack.without_audit.digest,
        code="0" * 64,
        unfit=dict.fromkeys(names, "third: z +9.00"),
    )


def test_audit_failed_metric_is_shown_and_not_ranked(
    task: Task, options: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    done, pack = go(task, options)
    before = standing_of(done, pack)
    efficacy = {"gap.forget", "lira.forget"} & set(before.bands.ranking)
    assert efficacy

    def memorizing(*_: object) -> list[Logits]:
        return [{**draw, "test": -draw["test"]} for draw in pack.population("originals")]

    monkeypatch.setattr(
        auditing, "train_audit_oracles", memorizing
    )  # oracles that know the forgotten, and nothing else
    audited = auditing.audit_task(task, options)
    assert efficacy | {"gap.test"} <= set(audited.audit.excluded_metrics)
    assert set(before.bands.ranking) == set(audited.ranked.bands.ranking)  # the audit judges what might rank

    after = standing_of(done, read_pack(pack.folder))
    assert not set(audited.audit.excluded_metrics) & set(after.bands.ranking)
    for card in after.scorecards:
        assert card.ranking == after.bands.ranking
        assert all(card.metrics[name].value is not None for name in efficacy)
    reason = "every metric that could distinguish No unlearning from the oracles failed the audit"
    assert after.board.unranked_reason == reason
    notes = board_table(after, pack.card).notes
    assert any(note.startswith("Not ranking: gap.forget failed the audit: third: z +") for note in notes)

    again, kept = go(task, options)  # a later run makes the pack again, and the fitness stays in it
    assert standing_of(again, kept).bands == after.bands
    assert auditing.audit_task(task, options).audit == audited.audit
    monkeypatch.undo()
    mended = auditing.audit_task(task, options)
    assert "gap.test" not in mended.audit.excluded_metrics
    assert set(Scorer(read_pack(pack.folder)).bands.ranking) == set(before.bands.ranking) - set(
        mended.audit.excluded_metrics
    )


def test_audit_passing_bundle_stays_equal_bit_by_bit(task: Task, options: RunConfig) -> None:
    _, pack = go(task, options)
    before = (pack.folder / "pack.json").read_bytes()
    assert with_fitness(pack, found_out(pack)).digest == pack.digest
    assert with_fitness(with_fitness(pack, found_out(pack, "gap.test")), None).digest == pack.digest
    assert (pack.folder / "pack.json").read_bytes() == before
    assert not (pack.folder / AUDIT).exists()


def test_fitness_of_another_bundle_is_ignored(task: Task, options: RunConfig) -> None:
    _, pack = go(task, options)
    fitness = found_out(pack, "gap.test")
    assert with_fitness(pack, fitness.model_copy(update={"pack": "0" * 64})).excluded_metrics == {}
    audited = with_fitness(pack, fitness)
    assert audited.excluded_metrics == {"gap.test": "third: z +9.00"}
    (pack.folder / AUDIT).write_text(fitness.model_copy(update={"pack": "0" * 64}).model_dump_json())
    with pytest.raises(ForgetBenchError, match="missing or damaged"):
        read_pack(pack.folder)
    with pytest.raises(ForgetBenchError, match=r"the audit of another bundle\. Run `forgetbench audit"):
        _ = ReferenceBundle(pack.folder, audited.card).excluded_metrics
    options.results.write_fitness(fitness, pack.card)
    options.results.fitness_file(task.name, task.key, task.draws, task.seeds).write_text("{}")
    with pytest.raises(ForgetBenchError, match=r"is damaged\. Remove it"):
        options.results.fitness(task.name, task.key, task.draws, task.seeds)
