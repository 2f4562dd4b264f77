"""Logits of other programs, imported as a run and submitted."""

from __future__ import annotations

import re
import zipfile

import numpy as np
import pytest

from forgetbench.errors import UsageError
from forgetbench.evidence.arrays import encode, read_arrays, write_arrays
from forgetbench.evidence.run import describe, read_run, write_manifest
from forgetbench.importers.logits import import_logits, is_logits_folder

SHEET = """
name = "scrub-jax"
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
    again = site.post(world.write_run(tmp_path / "run", trained=True), site.token(name="Grace"))
    assert again.status_code == 422  # the same answers, to the last bit
    assert "was submitted to this board before" in again.text
    assert there["row"]["cost"] == pytest.approx(4e10 / 1e12)
    assert "unlearned outside ForgetBench" in site.client.get(f"/entries/{first.json()['id']}").text


def write(name, content):
    """Replaces a file."""
    return lambda folder: (folder / name).write_bytes(content.encode("latin-1"))


def change(subset, edit):
    """Changes one array of one file; None removes it."""

    def damage(folder):
        with np.load(folder / "d0-s3.npz") as file:
            arrays = {name: file[name] for name in file.files}
        arrays[subset] = edit(arrays[subset])
        np.savez(folder / "d0-s3.npz", **{name: array for name, array in arrays.items() if array is not None})

    return damage


def torch_archive(folder):
    with zipfile.ZipFile(folder / "d0-s3.npz", "w") as archive:
        archive.writestr("d0-s3/data.pkl", "")


DAMAGE = {
    "no sheet": lambda folder: (folder / "method.toml").unlink(),
    "odd sheet": write("method.toml", SHEET + 'color = "red"\n'),
    "no file": lambda folder: (folder / "d0-s3.npz").unlink(),
    "no array": change("test", lambda _: None),
    "rows": change("retain", lambda array: array[1:]),
    "nan": change("forget", lambda array: np.where(np.arange(3) == 0, np.nan, array)),
    "classes": change("forget", lambda array: array.argmax(1)[:, None].repeat(3, 1)),
    "softmax": change("forget", lambda array: np.exp(array) / np.exp(array).sum(1, keepdims=True)),
    "answers": change("forget", lambda array: np.eye(3, dtype=np.float32)[array.argmax(1)]),
    "built-in name": write("method.toml", SHEET.replace("scrub-jax", "finetune")),
    "latin source": write("method.py", "# é"),
    "torch": torch_archive,
    "lfs": write("d0-s3.npz", "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n"),
}


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("no sheet", r"method\.toml is missing"),
        ("odd sheet", "color: Extra inputs"),
        ("no file", r"lacks d0-s3\.npz"),
        ("no array", "test"),
        ("rows", "retain"),
        ("nan", "forget contains values that are not finite floats"),
        ("classes", "forget contains int64, not finite floats"),
        ("softmax", r"d0-s3.npz: forget contains probabilities .* Save the outputs before the softmax; .* np.log"),
        ("answers", "d0-s3.npz: forget contains hard answers"),
        ("torch", r"d0-s3.npz is not an .npz file of arrays. It is a torch archive \(torch.save\). Write one array"),
        ("lfs", "d0-s3.npz is not .* It is a Git LFS pointer, not the file itself: run `git lfs pull`"),
        ("built-in name", r"method.toml: 'finetune' is a method of this package.* such as 'finetune-own'"),
        ("latin source", "method.py is not in UTF-8"),
    ],
)
def test_import_of_a_bad_folder_explains_the_error(logits, tiny_pack, tmp_path, damage, message):
    DAMAGE[damage](logits)
    with pytest.raises(UsageError, match=message):
        import_logits(logits, tiny_pack, tmp_path / "made")
    assert not (tmp_path / "made").exists()


def test_import_of_log_softmax_equals_logits(logits, tiny_pack, tmp_path):
    """Log-probabilities differ from logits by one constant per row, which evidence does not contain."""
    first = read_run(import_logits(logits, tiny_pack, tmp_path / "first"))
    for path in logits.glob("*.npz"):
        with np.load(path) as file:
            arrays = {name: file[name].astype(np.float64) for name in file.files}
        np.savez(path, **{name: one - np.log(np.exp(one).sum(1, keepdims=True)) for name, one in arrays.items()})
    second = read_run(import_logits(logits, tiny_pack, tmp_path / "second"))
    for seed in range(6):
        for name, array in first.logits(0, seed).items():
            np.testing.assert_allclose(second.logits(0, seed)[name], array, atol=5e-3)


def test_logits_folder_is_known_by_its_description(logits, tmp_path):
    for path in logits.glob("*.npz"):
        path.rename(path.with_suffix(".npy"))
    assert is_logits_folder(logits)
    assert not is_logits_folder(tmp_path)


def test_import_reads_toml_of_other_editors(logits, tiny_pack, tmp_path):
    (logits / "method.toml").write_bytes(b"\xef\xbb\xbf" + SHEET.replace("\n", "\r\n").encode())
    assert read_run(import_logits(logits, tiny_pack, tmp_path / "made")).manifest.method.name == "scrub-jax"


def soften(folder, hard=False):
    """Replace the evidence of a run by probabilities or answers, as a model with a softmax at its end returns them."""
    manifest = read_run(folder).manifest
    models = []
    for model in manifest.models:
        arrays = {name: np.exp(one.astype(np.float64)) for name, one in read_arrays(folder / model.file).items()}
        shares = {name: one / one.sum(1, keepdims=True) for name, one in arrays.items()}
        if hard:
            shares = {name: np.eye(one.shape[1])[one.argmax(1)] for name, one in shares.items()}
        evidence = {name: encode(one, attributes=False) for name, one in shares.items()}
        write_arrays(folder / model.file, evidence)
        models.append(model.model_copy(update={"arrays": describe(evidence)}))
    write_manifest(folder, manifest.model_copy(update={"models": tuple(models)}))
    return folder


def test_board_refuses_probabilities_with_own_originals(site, world, tmp_path):
    """The originals that a method trained itself are logits, even if its models return probabilities."""
    answer = site.post(soften(world.write_run(tmp_path / "run", own=500)), site.token())
    assert answer.status_code == 422
    assert "the evidence contains probabilities" in answer.text


@pytest.mark.parametrize("hard", [False, True])
def test_board_refuses_evidence_of_probabilities(site, world, tmp_path, assert_nothing_stored, hard):
    answer = site.post(soften(world.write_run(tmp_path / "run"), hard), site.token())
    assert answer.status_code == 422
    what = "hard answers .* before argmax" if hard else "probabilities .* before the softmax"
    assert re.search(f"the evidence contains {what}.*make the run again", answer.text)
    assert_nothing_stored()
