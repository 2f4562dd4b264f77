"""What `forgetbench audit` prints of an audit, and its exit status."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forgetbench.auditing import run as auditing
from forgetbench.auditing.criteria import Audit, Fitness
from forgetbench.auditing.expectations import Finding
from forgetbench.cli import main


def audit_of(**changes):
    fit = Fitness(
        metric="gap.test", fit="fit", ranks=True, retrain=0.1, third=-1.25, none=-7.5, detectable=0.018, why=()
    )
    blind = Fitness(
        metric="mia.loss",
        fit="blind",
        ranks=False,
        retrain=0.0,
        third=None,
        none=1.93,
        detectable=None,
        why=("none: x",),
    )
    told = Finding(sentinel="third", metric=None, passed=True, detail="distance 1.25")
    return Audit(
        **{"metrics": (fit, blind), "findings": (told,), "excluded_metrics": (), "contestants": 2, "taus": {}} | changes
    )


def printed(monkeypatch, capsys, found):
    monkeypatch.setattr(auditing, "audit_task", lambda *_: SimpleNamespace(audit=found))
    with pytest.raises(SystemExit) as ended:
        main(["audit", "digits/cnn/mislabelled-20"])
    captured = capsys.readouterr()
    return ended.value.code, " ".join((captured.out + captured.err).split())


def test_the_third_set_stands_in_the_table_and_a_missing_tau_is_said(monkeypatch, capsys):
    code, said = printed(monkeypatch, capsys, audit_of())
    assert code == 0
    assert "third set" in said
    assert "gap.test fit ranks +0.10 -1.25 -7.50 0.0180" in said
    assert "mia.loss blind +0.00 – +1.93 – none: x" in said
    assert "Kendall's tau between metrics is left out: it needs 3 contestants, and 2 were run here" in said


def test_what_is_unfit_is_said_to_rank_no_longer(monkeypatch, capsys):
    taus = {"gap.test": {"mia.loss": 0.5}, "mia.loss": {"gap.test": 0.5}}
    code, said = printed(monkeypatch, capsys, audit_of(excluded_metrics=("gap.test",), contestants=3, taus=taus))
    assert code == 1
    assert "gap.test: shown, and ranking no longer on digits/cnn/mislabelled-20, here and in its pack." in said
    assert "left out" not in said
    assert "+0.50" in said
