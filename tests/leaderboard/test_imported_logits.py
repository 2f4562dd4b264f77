"""Logits of other programs, imported as a run and submitted."""

from __future__ import annotations

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.evidence.run import read_run
from forgetbench.importers.logits import import_logits, is_logits_folder

SHEET = """
name = "scrub"
title = "Scrub, in JAX"
family = "teacher"
parameters = { lr = 0.01, steps = [1, 2] }
cost = { flops = 4e10, seconds = 1.5 }
"""


@pytest.fixture
def logits(world, tmp_path):
    """A folder from another program: float32 logits with an arbitrary shift."""
    folder = tmp_path / "logits"
    folder.mkdir()
    for seed in range(6):
        arrays = {name: array.astype(np.float32) + 3 for name, array in world.model(300 + seed).items()}
        np.savez(folder / f"d0-s{seed}.npz", **arrays)
    (folder / "method.toml").write_text(SHEET)
    return folder


def test_imported_logits_equal_a_run_with_the_same_logits(site, world, tiny_pack, logits, tmp_path):
    assert is_logits_folder(logits)
    made = import_logits(logits, tiny_pack, tmp_path / "made")
    assert not is_logits_folder(made)
    method = read_run(made).manifest.method
    assert (method.observed, method.parameters) == (True, {"lr": 0.01, "steps": [1, 2]})
    first = site.post(made, site.token())
    assert first.status_code == 202, first.text
    site.work()
    there = site.client.get(f"/api/v1/entries/{first.json()['id']}").json()
    again = site.post(world.write_run(tmp_path / "run"), site.token(name="Grace"))
    assert again.status_code == 422  # the same answers, to the last bit
    assert "was submitted to this board before" in again.text
    assert there["row"]["cost"] == pytest.approx(4e10 / 1e12)
    assert "unlearned outside ForgetBench" in site.client.get(f"/entries/{first.json()['id']}").text


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no sheet", r"method\.toml is missing"),
        ("odd sheet", "color: Extra inputs"),
        ("no file", r"lacks d0-s3\.npz"),
        ("no array", "test"),
        ("rows", "retain"),
        ("nan", "forget must be finite floats"),
        ("classes", "forget must be finite floats"),
    ],
)
def test_import_of_a_bad_folder_explains_the_error(logits, tiny_pack, tmp_path, damage, message):
    with np.load(logits / "d0-s3.npz") as file:
        arrays = {name: file[name] for name in file.files}
    if damage == "no sheet":
        (logits / "method.toml").unlink()
    elif damage == "odd sheet":
        (logits / "method.toml").write_text(SHEET + 'color = "red"\n')
    elif damage == "no file":
        (logits / "d0-s3.npz").unlink()
    elif damage == "no array":
        del arrays["test"]
    elif damage == "rows":
        arrays["retain"] = arrays["retain"][1:]
    elif damage == "nan":
        arrays["forget"][0, 0] = np.nan
    elif damage == "classes":
        arrays["forget"] = arrays["forget"].argmax(1)[:, None].repeat(3, 1)
    if damage != "no file":
        np.savez(logits / "d0-s3.npz", **arrays)
    with pytest.raises(UsageError, match=message):
        import_logits(logits, tiny_pack, tmp_path / "made")
    assert not (tmp_path / "made").exists()
