"""Attacks through the pipeline: equal budgets on all populations, evidence, and scores from evidence alone."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from forgetbench.api.attacks import AttackResult, attack
from forgetbench.api.board import load_results
from forgetbench.cli import main
from forgetbench.errors import ForgetBenchError, UsageError
from forgetbench.evidence.arrays import encode, read_arrays
from forgetbench.evidence.attacks import read_attacked
from forgetbench.reporting.attacks import recovery_table, worst_table
from forgetbench.reporting.figures.export import draw_svg
from forgetbench.reporting.figures.recovery import recovery
from forgetbench.runner.attack_spec import parse_attacks
from forgetbench.runner.config import RunConfig
from forgetbench.runner.context import TaskContext
from forgetbench.scoring.attacks import AttackScore, RowAttacks
from forgetbench.tasks.task import Task
from forgetbench.training import predict

FILE = """
import copy
from dataclasses import dataclass
from typing import ClassVar
import torch
from forgetbench.attacks import Attack, AttackCard, param

@dataclass(frozen=True, kw_only=True)
class Mine(Attack):
    "Fails on models whose first bias is that of unlearning."

    card: ClassVar[AttackCard] = AttackCard(
        name="mine", title="Scales the head", holds=("model", "forget"), budget="shots", budgets=(1, 3)
    )

    shots: int = param(1, ge=1)

    def attack(self, model, knowledge, seed):
        assert len(knowledge.forget) == self.shots
        network = copy.deepcopy(model)
        with torch.no_grad():
            network.head.bias.add_(knowledge.forget.images.float().mean() / 255)
        return network
"""


@pytest.fixture(scope="module")
def task(make_task: Callable[..., Task]) -> Task:
    return make_task("class", "classes = [3]", train=100, epochs=4)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> RunConfig:
    return RunConfig(home=tmp_path_factory.mktemp("home"), device="cpu", engine="local")


@pytest.fixture(scope="module")
def found(task: Task, config: RunConfig) -> AttackResult:
    folder = config.home / "code"
    folder.mkdir()
    (folder / "mine.py").write_text(FILE)
    names = ["quantize", "recalibrate", f"{folder / 'mine.py'}:Mine"]
    return attack(names, ["finetune:epochs=1"], task, config=config, progress=False)


def test_attack_runs_all_budgets_on_all_populations(found: AttackResult) -> None:
    assert [board.label for board in found.boards] == [
        "quantize:bits=8",
        "quantize:bits=4",
        "mine:shots=1",
        "mine:shots=3",
    ]
    assert found.refusals.keys() == {f"recalibrate:batches={count}" for count in (1, 4, 16)}
    assert "no batch-norm" in found.refusals["recalibrate:batches=1"]
    for folder in found.folders:
        places = [*(folder / name for name in ("originals", "references", "controls")), *(folder / "rows").iterdir()]
        manifests = [read_attacked(place).manifest for place in places]
        assert [len(one.models) for one in manifests] == [2, 2, 2, 2]
        assert len({str(one.attack.parameters) for one in manifests}) == 1  # equal budgets
        assert len({str(one.shots) for one in manifests}) == 1
    assert set(found.scores) == {"Retrain", "No unlearning", "finetune:epochs=1"}


def test_evidence_is_the_answers_of_the_attacked_model(task: Task, config: RunConfig, found: AttackResult) -> None:
    context = TaskContext(task, config.env())
    folder = config.store.path(config.store.key(context.keys.model("control", 0, 1)))
    spec = parse_attacks(["quantize:bits=4"])[0]
    network = context.load_model(folder)
    attacked = spec.build().attack(copy.deepcopy(network), None, 0)  # type: ignore[arg-type]
    rows = context.data.rows(0)
    expected = {
        name: encode(
            predict(attacked, context.data.examples(rows[name].part, 0).take(rows[name].index)), attributes=False
        )
        for name in ("forget", "test", "test-forgotten")
    }
    stored = read_arrays(found.folders[1] / "controls" / "d0-s1.npz")
    assert stored.keys() == expected.keys()
    for name, array in expected.items():
        np.testing.assert_array_equal(stored[name], array)


def test_shots_are_nested_and_left_out_of_scores(found: AttackResult) -> None:
    few, more = (found.boards[number].shots[0] for number in (2, 3))  # type: ignore[index]
    assert len(few) == 1
    assert len(more) == 3
    assert set(few) < set(more)
    scale = found.bands.scale("mine:shots=3")
    truth = found.scorer.bundle.labels[0]["forget"]
    kept = np.setdiff1d(np.arange(len(truth)), more)
    answers = found.boards[3].originals[0]["forget"][:, kept]
    assert scale.accuracies["forget"].original == pytest.approx((answers.argmax(2) == truth[kept]).mean())


def test_frame_has_the_curves_over_the_budgets(found: AttackResult) -> None:
    frame = found.to_frame()
    assert len(frame) == len(found.scores) * len(found.boards)
    curve = frame[(frame["row"] == "No unlearning") & (frame["attack"] == "quantize")]
    assert [*curve["budget"]] == [8, 4]
    for board, value in zip(found.boards, curve["test"], strict=False):
        answers, truth = board.originals[0]["test"], found.scorer.bundle.labels[0]["test"]
        assert value == pytest.approx((answers.argmax(2) == truth).mean())


def test_report_shows_the_worst_attack_of_each_row(config: RunConfig, found: AttackResult) -> None:
    [board] = load_results("test/mlp/class", home=config.home)
    [table] = board.attack_tables
    by_row = {record["method"]: record for record in table.records}
    assert set(by_row) == {"Retrain", "No unlearning", "finetune:epochs=1"}
    known = {one.label for one in found.boards}
    for name, record in by_row.items():
        assert record["worst_attack"] in known | {""}
        assert record["recoverable"] in ("no", "not tested")  # two seeds
        assert record["band"] in ("inside", "outside", "within its noise", "not comparable")
        assert (record["worst_attack"] == "") == (record["z"] is None), name
    assert "oracle halvings are above it" in table.notes[0] or "no row is flagged" in table.notes[0]


@pytest.mark.parametrize(
    ("z", "outside", "place"),
    [(0.4, False, "inside"), (9.0, True, "outside"), (9.0, False, "within its noise"), (None, None, "not comparable")],
)
def test_worst_table_distinguishes_the_noise_of_a_row(found: AttackResult, z, outside, place) -> None:
    score = AttackScore(label=found.bands.scales[0].label, z=z, outside=outside)
    rows = {"mine": RowAttacks(name="mine", scores=(score,), worst=score.label)}
    table = worst_table("test/mlp/class", rows, found.bands.model_copy(update={"family_limit": 0.5}))
    assert table.records[0]["band"] == table.rows[0][5] == place


def test_tables_and_curves_of_attacks(found: AttackResult) -> None:
    table = recovery_table("test/mlp/class", found.scores, found.bands)
    assert [row[0].removesuffix(" (unfit)") for row in table.rows] == [board.label for board in found.boards]
    assert table.header[3:] == tuple(found.scores)
    chart = recovery(found.scores, found.bands)
    assert chart is not None
    assert [panel["title"]["text"] for panel in chart["concat"]] == ["quantize", "mine"]
    bars, lines, _ = chart["concat"][0]["layer"]
    assert [one["budget"] for one in bars["data"]["values"]] == ["8", "4"]
    after = found["finetune:epochs=1"].scores[1].accuracies["test-forgotten"].after
    drawn = [one for one in lines["data"]["values"] if one["row"] == "finetune:epochs=1"]
    assert [one["budget"] for one in drawn] == ["none", "8", "4"]
    assert drawn[-1]["accuracy"] == pytest.approx(100 * after, abs=1e-3)
    assert draw_svg(chart).startswith("<svg")


def test_flops_count_the_attack_and_not_the_prediction(found: AttackResult) -> None:
    assert [board.flops for board in found.boards] == [0, 0, 0, 0]  # no matrix product in any of them


def test_second_call_computes_nothing_and_adds(task: Task, config: RunConfig, found: AttackResult) -> None:
    before = {path: path.read_bytes() for path in found.folders[0].rglob("*.npz")}
    again = attack("quantize:bits=8", ["finetune:epochs=1"], task, config=config, progress=False)
    assert {path: path.read_bytes() for path in again.folders[0].rglob("*.npz")} == before
    assert again.bands.scale("quantize:bits=8").accuracies == found.bands.scale("quantize:bits=8").accuracies


def test_changed_evidence_is_refused_with_the_command(
    task: Task, config: RunConfig, found: AttackResult, tmp_path: Path
) -> None:
    del found
    again = attack("quantize:bits=8", ["finetune:epochs=1"], task, config=config, progress=False)
    path = again.folders[0] / "references" / "d0-s0.npz"
    path.write_bytes((path.parent / "d0-s1.npz").read_bytes())
    with pytest.raises(ForgetBenchError, match=r"SHA-256 differs\). Repeat the attack: forgetbench attack test/mlp"):
        _ = again.boards


def test_failing_attack_is_a_failure_of_its_population(task: Task, config: RunConfig, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(FILE.replace("assert len(knowledge.forget) == self.shots", "knowledge.retain"))
    result = attack(f"{tmp_path / 'mine.py'}:Mine:shots=1", ["finetune:epochs=1"], task, config=config, progress=False)
    reasons = result.failures["mine:shots=1"]
    assert set(reasons) == {"originals", "references", "controls", "finetune:epochs=1"}
    assert "the attack mine read knowledge.retain, which its card does not name" in reasons["finetune:epochs=1"]


REFUSED = {
    "Head": (
        "network.head = torch.nn.Linear(network.head.in_features, 7)",
        "a network with 7 outputs instead of 10. Keep an output for every class",
    ),
    "Wide": ("return knowledge.answer(lambda x, y: torch.zeros(len(x), 3))", ", 3) instead of a tensor ("),
    "Nan": ("network.head.bias.data.fill_(float('nan'))", "weights that are NaN or infinite. Take smaller steps"),
    "Changes": (
        "model.head.bias.data.add_(1)",
        "changed the weights of the model that it was given. Work on a copy: copy.deepcopy(...).",
    ),
    "Reads": (
        "knowledge.original",
        "read knowledge.original, which its card does not name: it holds model, retain. Add 'original' to `holds`",
    ),
}
HEAD = """
import copy
from dataclasses import dataclass
from typing import ClassVar
import torch
from forgetbench.attacks import Attack, AttackCard
"""
CLASS = """
@dataclass(frozen=True, kw_only=True)
class {name}(Attack):
    "Does what it must not do."

    card: ClassVar[AttackCard] = AttackCard(name="{lower}", title="Breaks the contract", holds=("model", "retain"))

    def attack(self, model, knowledge, seed):
        network = copy.deepcopy(model)
        {line}
        return network
"""


def test_broken_attacks_of_a_file_are_refused_by_name(
    write_task: Callable[..., Path], config: RunConfig, found: AttackResult, tmp_path: Path, monkeypatch, capsys
) -> None:
    """The command names the attack, what is wrong and the fix, exits with 1, and leaves no answers behind."""
    del found  # its models are in the store
    monkeypatch.setenv("FORGETBENCH_HOME", str(config.home))
    file = tmp_path / "broken.py"
    parts = [CLASS.format(name=name, lower=name.lower(), line=line) for name, (line, _) in REFUSED.items()]
    file.write_text(HEAD + "".join(parts))
    task = write_task("class", "classes = [3]", train=100, epochs=4)
    words = ["attack", str(task), "--method", "finetune:epochs=1", "--engine", "local", "--device", "cpu"]
    with pytest.raises(SystemExit) as exited:
        main([*words, *(word for name in REFUSED for word in ("--attack", f"{file}:{name}"))])
    captured = capsys.readouterr()
    printed = " ".join((captured.out + captured.err).split())
    assert exited.value.code == 1
    for name, (_, message) in REFUSED.items():
        folders = [path.parent for path in config.home.rglob("attack.json")]
        folders = [place for place in folders if read_attacked(place).manifest.attack.name == name.lower()]
        assert len(folders) == 4
        for place in folders:
            assert read_attacked(place).manifest.status != "ok"
            assert [path.name for path in place.iterdir()] == ["attack.json"]
        assert f"{name.lower()} failed on finetune:epochs=1" in printed
        assert message in printed
    assert not list(config.home.rglob(".making-*"))


def test_wrong_calls_are_refused_before_training(task: Task, config: RunConfig) -> None:
    for attacks, message in {
        "prune:ratio=2": "ratio",
        "prune:share=0.5": "share",
        "no-such": "Unknown attack 'no-such'",
        "quantized": r"Unknown attack 'quantized'\. Did you mean 'quantize'",
    }.items():
        with pytest.raises(UsageError, match=message):
            attack(attacks, ["finetune"], task, config=config, progress=False)
    with pytest.raises(UsageError, match=r"Duplicate attack: prune:ratio=0\.5"):
        attack(["prune", "prune:ratio=0.5"], ["finetune"], task, config=config, progress=False)
    with pytest.raises(UsageError, match="--skip-oracles"):
        attack("prune", ["finetune"], task, config=RunConfig(home=config.home, skip_oracles=True), progress=False)
