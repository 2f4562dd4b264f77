"""The acceptance test of the metrics: the audit of an embedded task, with oracles that are in no band."""

from __future__ import annotations

from pathlib import Path

from forgetbench.auditing.run import audit_task
from forgetbench.evidence.reference import AuditFitness
from forgetbench.runner.config import RunConfig
from forgetbench.tasks.task import read_task


def test_audit_demo_task_every_ranking_metric_passes(own_home: Path) -> None:
    audited = audit_task(read_task("digits/cnn/mislabelled-20"), RunConfig(home=own_home, device="cpu", workers=2))
    assert audited.audit.excluded_metrics == ()
    ranking = [one.metric for one in audited.audit.metrics if one.ranks]
    assert ranking == ["gap.forget", "gap.retain", "gap.test", "lira.forget", "lira.retain"]
    found = {one.metric: one.fit for one in audited.audit.metrics}
    assert {found[name] for name in ranking} == {"fit"}
    assert found["mia.svc-confidence"] == "blind"
    assert found["mia.loss"] == "not judged"  # oracles do not differ on it at all
    assert {found[name] for name in ("nomus", "aus")} == {"UNFIT"}  # here doing nothing looks better by them
    [kept] = (own_home / "audits").rglob("*.json")
    assert AuditFitness.model_validate_json(kept.read_bytes()).unfit == {}
    whole = {finding.sentinel: finding.passed for finding in audited.audit.findings if finding.metric is None}
    assert {"retrain", "third", "none", "collapse", "line"} <= set(whole)
    assert all(whole[name] for name in ("none", "collapse", "line"))
    retrain, untouched = audited.ranked.scorecards[:2]
    assert retrain.distance is not None
    assert untouched.distance is not None
    assert retrain.distance.value < untouched.distance.value
