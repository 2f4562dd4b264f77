"""A bundle in which a metric failed the audit: neither the server nor local scoring ranks by it."""

from __future__ import annotations

from forgetbench.evidence.reference import AuditFitness, read_pack, with_fitness
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.scoring.scorer import Scorer, rank_runs


def test_metric_that_failed_the_audit_does_not_rank(site, world, tmp_path):
    pack = read_pack(world.write_pack(tmp_path / "pack"))
    bands = Scorer(pack).bands
    assert "gap.test" in bands.ranking
    fitness = AuditFitness(
        task=pack.card.task,
        task_key=pack.card.task_key,
        pack=pack.digest,
        code="0" * 64,
        unfit={"gap.test": "third: z +9.00"},
    )
    audited = with_fitness(pack, fitness)
    install_bundle(site.settings, audited.folder)
    runs = [world.write_run(tmp_path / name, name, start=start) for name, start in (("a", 300), ("b", 320))]
    headers = site.token()
    entries = [site.post(folder, headers).json()["id"] for folder in runs]
    site.work()

    local = rank_runs(Scorer(audited), [read_run(folder) for folder in runs])
    expected = tuple(name for name in bands.ranking if name != "gap.test")
    assert local.bands.ranking == expected
    for entry, card in zip(entries, local.scorecards[2:], strict=True):
        on_server = site.client.get(f"/api/v1/entries/{entry}").json()["scorecard"]
        assert on_server == card.model_dump(mode="json")
        assert on_server["ranking"] == list(expected)
        assert on_server["metrics"]["gap.test"]["value"] is not None
    rows = site.client.get(f"/api/v1/boards/{world.task}").json()["rows"]
    assert [(row["label"], row["rank"]["position"]) for row in rows] == [
        (row.name, row.rank) for row in local.board.rows
    ]
    for page in (f"/entries/{entries[0]}", "/metrics/gap.test"):
        assert "failed the audit: third: z +9.00" in site.client.get(page).text
