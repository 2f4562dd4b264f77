"""Output and exit status of `forgetbench audit`."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from forgetbench.api import attacks as attacks_api
from forgetbench.auditing import run as auditing
from forgetbench.auditing.criteria import Audit, Fitness
from forgetbench.auditing.expectations import Finding
from forgetbench.cli import main
from forgetbench.scoring.attacks import AttackBands, AttackScale


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
    finding = Finding(sentinel="third", metric=None, passed=True, detail="distance 1.25")
    return Audit(
        **{"metrics": (fit, blind), "findings": (finding,), "excluded_metrics": (), "contestants": 2, "taus": {}}
        | changes
    )


def attack_bands_of(*fits):
    scales = tuple(
        AttackScale(
            label=f"prune:ratio={place}", name="prune", budget="ratio", value=place, flops=2e6, statistic="recovered",
            fit=fit, control_z=None if fit is None else 1.5 + place, reason="" if fit is not None else "as in oracles",
        )
        for place, fit in enumerate(fits)
    )  # fmt: skip
    return AttackBands(scales=scales, family_limit=2.4, false_flags=0.04, split_halves=924)


def run_audit(monkeypatch, capsys, audit, attacks=()):
    monkeypatch.setattr(auditing, "audit_task", lambda *_: SimpleNamespace(audit=audit))
    monkeypatch.setattr(attacks_api, "audit_attacks", lambda *_, **__: attack_bands_of(*attacks))
    with pytest.raises(SystemExit) as exited:
        main(["audit", "digits/cnn/mislabelled-20"])
    captured = capsys.readouterr()
    return exited.value.code, " ".join((captured.out + captured.err).split())


def test_audit_command_prints_third_set_and_missing_tau(monkeypatch, capsys):
    status, output = run_audit(monkeypatch, capsys, audit_of())
    assert status == 0
    assert "third set" in output
    assert "gap.test fit ranks +0.10 -1.25 -7.50 0.0180" in output
    assert "mia.loss blind +0.00 – +1.93 – none: x" in output
    assert "Kendall's tau between metrics is not shown: it needs 3 contestants, and 2 were run" in output


def test_audit_command_unfit_metric_exits_with_1(monkeypatch, capsys):
    taus = {"gap.test": {"mia.loss": 0.5}, "mia.loss": {"gap.test": 0.5}}
    status, output = run_audit(monkeypatch, capsys, audit_of(excluded_metrics=("gap.test",), contestants=3, taus=taus))
    assert status == 1
    assert "gap.test: shown, and no longer ranking on digits/cnn/mislabelled-20, here and in its pack." in output
    assert "not shown" not in output
    assert "+0.50" in output


def test_audit_command_reports_unfit_attacks(monkeypatch, capsys):
    """An attack that finds recovery in control oracles against reference oracles."""
    status, output = run_audit(monkeypatch, capsys, audit_of(), attacks=(True, False, None))
    assert status == 1
    assert "prune:ratio=0 fit +1.50 2e+06" in output
    assert "prune:ratio=1 UNFIT +2.50" in output
    assert "prune:ratio=2 not judged" in output
    assert "family limit z 2.40 over 3 attacks and budgets" in output
