"""Methods that train their own originals: the originals are uploaded too, and the row is not ranked."""

from __future__ import annotations

import io
import re
import zipfile

import numpy as np
import pytest
from support.leaderboard import edit_manifest

from forgetbench.evidence.arrays import read_arrays
from forgetbench.evidence.run import describe
from forgetbench.leaderboard.client.submit import validate_run, write_body


def expected_accuracy(world, folder):
    """Test accuracy of the run's own originals, computed from the files."""
    files = sorted((folder / "originals").iterdir())
    return np.mean([(read_arrays(file)["test"].argmax(1) == world.labels["test"]).mean() for file in files])


def test_own_originals_are_stored_shown_and_not_ranked(site, world, tmp_path):
    run = world.write_run(tmp_path / "own", "iau", own=900, start=300)
    plain = world.write_run(tmp_path / "plain", "finetune", start=400, memory=0.2)
    body = write_body(validate_run(run), tmp_path / "body.zip").read_bytes()
    identity = site.post(body, site.token()).json()["id"]
    site.post(plain, site.token())
    site.work()
    rows = site.client.get(f"/api/v1/boards/{world.task}?sort=method").json()["rows"]
    assert [row["label"] for row in rows] == ["finetune", "iau"]
    assert rows[0]["rank"]["high"] == 1
    assert (rows[1]["rank"], rows[1]["status"]) == (None, "own originals")
    accuracy = expected_accuracy(world, run)
    assert f"{accuracy:.1%} test accuracy" in rows[1]["reasons"][0]
    page = site.client.get(f"/boards/{world.task}").text
    assert page.index("finetune</a>") < page.index("Own originals: these methods change") < page.index("iau</a>")
    entry = site.client.get(f"/api/v1/entries/{identity}").json()
    assert entry["scorecard"]["own_originals"] == pytest.approx(accuracy)
    names = [file["name"] for file in entry["files"]]
    assert names == [f"d0-s{seed}.npz" for seed in range(6)] + [f"originals/d0-s{seed}.npz" for seed in range(6)]
    assert f"{100 * accuracy:.1f} % right" in site.client.get(f"/entries/{identity}").text
    handed = zipfile.ZipFile(io.BytesIO(site.client.get(f"/api/v1/entries/{identity}/evidence").content))
    assert handed.read("originals/d0-s3.npz") == (run / "originals/d0-s3.npz").read_bytes()


def test_own_originals_may_be_used_by_several_runs(site, world, tmp_path):
    first = world.write_run(tmp_path / "a", "iau", own=900, start=300)
    second = world.write_run(tmp_path / "b", "iau", own=900, start=500, method={"parameters": {"lr": 0.5}})
    assert site.post(first, site.token()).status_code == 202
    assert site.post(second, site.token()).status_code == 202


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("missing", "originals/d0-s2.npz"),
        ("not sent", "is needed for each of 1 draws x 6 seeds"),
        ("other", "was not unlearned from the original of seed 1"),
        ("oracle", "holds the answers of one of this board"),
    ],
)
def test_submit_with_bad_own_originals_is_refused(site, world, tmp_path, tiny_pack, damage, message):
    run = world.write_run(tmp_path / "run", "iau", own=900)
    if damage == "missing":
        (run / "originals/d0-s2.npz").unlink()
    if damage == "not sent":
        edit_manifest(run, lambda manifest: manifest.update(originals=[]))
        for path in (run / "originals").iterdir():
            path.unlink()
    if damage == "other":
        edit_manifest(run, lambda manifest: manifest["originals"][1].update(weights="0" * 64))
    if damage == "oracle":
        arrays = read_arrays(tiny_pack.folder / "references/d0-s0.npz")
        np.savez(run / "originals/d0-s0.npz", **arrays)
        records = {name: item.model_dump(mode="json") for name, item in describe(arrays).items()}
        edit_manifest(run, lambda manifest: manifest["originals"][0].update(arrays=records))
    answer = site.post(run, site.token())
    assert answer.status_code == 422
    assert message in re.sub(r"\s+", " ", answer.text)
    assert not list(site.settings.evidence.iterdir())
