"""A board of correction: three reference rows, both goals on the page, and a track of its own."""

from __future__ import annotations

import json

import numpy as np
import pytest
from support.leaderboard import COUNTS, Site, World

from forgetbench.evidence.arrays import encode, write_arrays
from forgetbench.evidence.reference import PACK, check_run, read_pack, write_pack
from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.scoring.scorer import Scorer, rank_runs
from forgetbench.scoring.vocabulary import ALL_REFERENCES, PARTIAL

TARGET = 0
TRIGGERED = "test-triggered"


class BackdooredWorld(World):
    """Memory is the strength of a backdoor: what it adds to the target of harmful rows and of images with a trigger."""

    def __init__(self):
        super().__init__("tiny/cnn/poisoned-found-10", counts={**COUNTS, "forget": 6, "withheld": 54, TRIGGERED: 60})
        for name in ("forget", "withheld"):
            self.labels[name][:] = TARGET
            self.ease[name][:] = -1.5
        self.labels[TRIGGERED] = 1 + np.arange(60) % 2

    def model(self, number, *, memory=0.0, **options):
        evidence = super().model(number, memory=2 * memory, **options)
        for name in ("withheld", TRIGGERED):
            logits = evidence[name].astype(np.float32)
            logits[:, TARGET] += 2 * memory
            evidence[name] = encode(logits, attributes=False)
        return evidence

    def write_pack(self, folder, **changes):
        super().write_pack(folder, track="corrective", scenario="poisoned", schema_version=3, **changes)
        card = json.loads((folder / PACK).read_bytes())
        np.savez(folder / "labels-d0.npz", **self.labels, **{f"targets:{TRIGGERED}": np.full(60, TARGET)})
        (folder / "partials").mkdir()
        for seed in range(self.seeds):
            write_arrays(folder / "partials" / f"d0-s{seed}.npz", self.model(900 + seed, memory=1.6))
        write_pack(folder, card)
        return folder


@pytest.fixture(scope="module")
def backdoored(tmp_path_factory):
    world = BackdooredWorld()
    return world, world.write_pack(tmp_path_factory.mktemp("corrective") / "pack")


def test_bundle_has_three_reference_rows_and_ranks_by_goal(backdoored, tmp_path):
    world, folder = backdoored
    pack = read_pack(folder)
    assert (pack.card.schema_version, pack.has_partials) == (3, True)
    runs = [
        read_run(world.write_run(tmp_path / name, name, memory=memory, start=start))
        for name, memory, start in (("near", 0.05, 300), ("far", 1.2, 400))
    ]
    ranked = rank_runs(Scorer(pack), runs)
    cards = {card.name: card for card in ranked.scorecards}
    assert [card.name for card in ranked.scorecards[: ranked.references]] == list(ALL_REFERENCES)
    assert [card.name for card in ranked.scorecards[ranked.references :]] == ["near", "far"]
    assert cards["Retrain"].distance.within_band
    assert not cards[PARTIAL].distance.within_band
    assert cards["near"].distance.value < cards["far"].distance.value < cards[PARTIAL].distance.value
    success = {name: card.metrics["attack-success"].value for name, card in cards.items()}
    assert success["Retrain"] < 0.2 < success["far"] < success[PARTIAL] < success["No unlearning"]


def test_run_without_triggered_answers_is_refused(backdoored, tmp_path):
    world, folder = backdoored
    plain = World(world.task, counts=COUNTS)
    run = read_run(plain.write_run(tmp_path / "plain", memory=0.1))
    assert any("arrays must be" in problem for problem in check_run(run, read_pack(folder)))


def test_board_shows_both_goals_on_a_track_of_its_own(backdoored, make_settings, tmp_path):
    world, folder = backdoored
    settings = make_settings()
    install_bundle(settings, folder)
    site = Site(settings, world)
    with site.client:
        entry = site.post(world.write_run(tmp_path / "run", "near", memory=0.05), site.token()).json()["id"]
        site.work()
        assert site.entry(entry)["row"]["state"] == "listed"
        page = site.client.get(f"/boards/{world.task}", headers={"Accept": "text/html"}).text
        assert "Two goals." in page
        assert page.index(">Retrain<") != page.index(PARTIAL)
        assert "what retraining gives" in page
        assert "trained again without the harmful data" in page
        assert world.task not in site.client.get("/", headers={"Accept": "text/html"}).text.partition("<tbody")[2]
        assert world.task in site.client.get("/?track=corrective", headers={"Accept": "text/html"}).text
        copied = world.write_run(tmp_path / "copy", "copy", memory=1.6, start=900, trained=True)
        refused = site.post(copied, site.token(name="Grace"))
        assert refused.status_code == 422
        assert "one of this board's oracles" in refused.text
    site.database.close()
