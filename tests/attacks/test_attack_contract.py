"""The contract of attacks: every registered attack fulfills it, and those that do not are refused by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from forgetbench.api.attacks import check_attack as check
from forgetbench.attacks import attacks, load_attack_file
from forgetbench.attacks.contract import check_attack
from forgetbench.errors import UsageError

SMALL = {"steps": 2, "copies": 2}
HEAD = """
import copy
from dataclasses import dataclass
from typing import ClassVar
import torch
from torch import nn
from forgetbench.attacks import Attack, AttackCard, param

@dataclass(frozen=True, kw_only=True)
class Mine(Attack):
    "Does what the test says."

    card: ClassVar[AttackCard] = AttackCard(name="mine", title="Does what the test says", holds=("model", "retain"))

    def attack(self, model, knowledge, seed):
        network = copy.deepcopy(model)
"""


def write_attack(folder: Path, line: str, head: str = HEAD) -> str:
    """The address of an attack with this line."""
    path = folder / "mine.py"
    path.write_text(f"{head}        {line}\n        return network\n")
    return f"{path}:Mine"


@pytest.mark.parametrize("name", attacks.names())
def test_attack_passes_the_contract(name: str) -> None:
    kind = attacks.get(name)
    values: dict[str, Any] = {one.name: SMALL[one.name] for one in kind.parameters() if one.name in SMALL}
    results = check_attack(kind, network="cnn", options={"width": 4}, values=values)
    assert [f"{one.name}: {one.message}" for one in results if not one.ok] == []
    assert any(not one.message.startswith("does not apply") for one in results[2:4])


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            "network.head = nn.Linear(network.head.in_features, 7)",
            "attack returned a network with 7 outputs instead of 4",
        ),
        ("network.head.weight.data.fill_(float('nan'))", "mine: the attacked network has weights that are NaN"),
        ("model.head.weight.data.mul_(2)", "the attack mine changed the weights of the model that it was given"),
        ("model.train()", "the attack mine changed modes or requires_grad of the model"),
        ("knowledge.forget", "the attack mine read knowledge.forget, which its card does not name"),
        ("knowledge.original", "it holds model, retain. Add 'original' to `holds` of the card, or do without it"),
        ("return None", "attack returned None. End it with the attacked network"),
        ("return {'forget': torch.zeros(6, 4)}", "attack answered the queries forget instead of forget, test"),
        (
            "return knowledge.answer(lambda x, y: torch.zeros(len(x), 3))",
            "forget with (6, 3) instead of a tensor (6, 4)",
        ),
        ("return knowledge.answer(lambda x, y: torch.full((len(x), 4), torch.nan))", "answers to forget are NaN"),
        ("torch.set_default_dtype(torch.float64)", "global state was changed"),
    ],
)
def test_broken_attack_is_refused_by_name(tmp_path: Path, line: str, message: str) -> None:
    results = check_attack(load_attack_file(write_attack(tmp_path, line)), network="mlp", options={"hidden": [8]})
    assert message in " ".join(one.message for one in results if not one.ok)


def test_attack_that_holds_labels_sees_only_labels(tmp_path: Path) -> None:
    head = HEAD.replace('holds=("model", "retain")', 'holds=("labels",), attributes=False, random=False').replace(
        "copy.deepcopy(model)", "model"
    )
    good = "return knowledge.answer(lambda x, y: nn.functional.one_hot(model(x), 4).float())"
    cheats = {
        good: "",
        "list(model.parameters())[0]": "IndexError",
        "network = model": "mine cannot return a network",
        "model(next(iter(knowledge.retain.batches(4)))[0])": "read knowledge.retain",
    }
    for line, message in cheats.items():
        (tmp_path / "mine.py").unlink(missing_ok=True)
        kind = load_attack_file(write_attack(tmp_path, line, head))
        failed = [one.message for one in check_attack(kind, network="mlp", options={"hidden": [8]}) if not one.ok]
        assert message in " ".join(failed)
        assert bool(failed) == bool(message)


def test_file_of_an_attack_is_refused_with_the_fix(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"mine.py has the name of an attack of this package, 'prune'.*'prune-own'"):
        load_attack_file(write_attack(tmp_path, "pass", HEAD.replace('name="mine"', 'name="prune"')))
    (tmp_path / "other.py").write_text("class Other:\n    pass\n")
    with pytest.raises(
        UsageError, match=r"Other in .*other.py is not an attack. Derive it from forgetbench.attacks.Attack"
    ):
        load_attack_file(f"{tmp_path / 'other.py'}:Other")
    with pytest.raises(UsageError, match=r"Unknown attack .pruned.\. Did you mean .prune."):
        attacks.get("pruned")
    bad = HEAD.replace('holds=("model", "retain")', 'holds=("retain",)').replace("class Mine", "class Third")
    (tmp_path / "third.py").write_text(bad + "        return network\n")
    with pytest.raises(UsageError, match="must name either"):
        load_attack_file(f"{tmp_path / 'third.py'}:Third")


def test_check_attack_reports_by_network() -> None:
    report = check("quantize", networks=["mlp"])
    assert report.ok
    assert str(report).startswith("quantize: all checks passed")
