"""Uploads: hostile, damaged and oversized bodies are refused with the reason, and nothing of them is stored."""

from __future__ import annotations

import io
import struct
import tracemalloc
import zipfile

import numpy as np
import pytest
from support.leaderboard import ZIP, edit_manifest, zip_of

from forgetbench.evidence.run import read_run
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.submissions.uploads import UploadedBody, check_headers, unpack


def zip_with(folder, *, files=(), compression=zipfile.ZIP_STORED):
    """Body of a submission with more files, or compressed."""
    body = io.BytesIO()
    contents = {path.name: path.read_bytes() for path in sorted(folder.iterdir())} | dict(files)
    with zipfile.ZipFile(body, "w", compression) as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return body.getvalue()


def edit(folder, **changes):
    """Body of a submission with changed fields of the manifest."""
    return zip_of(edit_manifest(folder, lambda manifest: manifest.update(changes)))


def damaged_array(path, values):
    """A file with other values or another type of an array than the manifest says."""
    with np.load(path / "d0-s0.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["test"] = values(arrays["test"])
    np.savez(path / "d0-s0.npz", **arrays)
    return zip_of(path)


def zip_bomb(path):
    """A file that unpacks to 200 MB."""
    body = io.BytesIO()
    with zipfile.ZipFile(body, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("forget", "retain", "validation", "test"):
            archive.writestr(f"{name}.npy", b"\0" * 50_000_000)
    (path / "d0-s0.npz").write_bytes(body.getvalue())
    return zip_of(path)


def wrong_header(path):
    """A file whose array header declares another shape."""
    with zipfile.ZipFile(path / "d0-s0.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members["test.npy"] = members["test.npy"].replace(b"(90, 3)", b"(90, 9)")
    with zipfile.ZipFile(path / "d0-s0.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return zip_of(path)


def crowded(count=300_000):
    """A zip that lists many empty files; it consists of its directory only."""
    name = b"d0-s0.npz"
    member = struct.pack("<4s6H3L5H2L", b"PK\1\2", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, 0) + name
    size = count * len(member)
    return member * count + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count % 2**16, count % 2**16, size, 0, 0)


def crowded_64():
    """The same, with its length in the 64-bit records only."""
    plain = crowded()
    size = len(plain) - 22
    large = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, 300_000, 300_000, size, 0)
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, size, 1)
    return plain[:size] + large + locator + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 1, 1, 60, 0, 0)


def with_file(run, content):
    """Body of a submission with other content of its first file."""
    (run / "d0-s0.npz").write_bytes(content)
    return zip_of(run)


def cut_after_first_file(run):
    """A body that ends where the first evidence file in it ends."""
    body = zip_of(run)
    return body[: body.index(b"PK\5\6") + 22]


def with_gap(body, gap=b"hidden" * 100):
    """A zip with bytes between its last member and its directory."""
    start = struct.unpack("<L", body[-6:-2])[0]
    return body[:start] + gap + body[start:-6] + struct.pack("<LH", start + len(gap), 0)


def with_gap_in_front(run):
    """A zip that begins with other bytes."""
    body = io.BytesIO(b"hidden" * 100)
    with zipfile.ZipFile(body, "a") as archive:
        for path in sorted(run.iterdir()):
            archive.writestr(path.name, path.read_bytes())
    return body.getvalue()


def overlapping(body):
    """A zip whose last file is another one's bytes too, which hides as many bytes elsewhere."""
    last = body.rindex(b"PK\1\2")
    return body[: last + 42] + struct.pack("<L", 0) + body[last + 46 :]


def with_comment(body):
    """A zip with a comment on its last file."""
    last, end = body.rindex(b"PK\1\2"), body.rindex(b"PK\5\6")
    size = struct.unpack("<L", body[end + 12 : end + 16])[0] + 6
    directory = body[last : last + 32] + struct.pack("<H", 6) + body[last + 34 : end] + b"hidden"
    return body[:last] + directory + body[end : end + 12] + struct.pack("<L", size) + body[end + 16 :]


def with_longer_array(run):
    """A file with bytes after the values of an array."""
    with zipfile.ZipFile(run / "d0-s0.npz") as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(run / "d0-s0.npz", "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content + b"hidden" * 10)
    return zip_of(run)


def compressed_arrays(run):
    """A file as numpy.savez_compressed writes it, which can hold more than its arrays."""
    with np.load(run / "d0-s0.npz") as file:
        arrays = {name: file[name] for name in file.files}
    np.savez_compressed(run / "d0-s0.npz", **arrays)
    return zip_of(run)


def with_method(run, **changes):
    """Body of a submission with changed fields of the method's record."""
    return zip_of(edit_manifest(run, lambda manifest: manifest["method"].update(changes)))


HOSTILE = {
    "a gap": (lambda run: with_gap(zip_of(run)), 400, "600 bytes outside its files"),
    "a gap in front": (with_gap_in_front, 400, "600 bytes outside its files"),
    "a gap in a file": (
        lambda run: with_file(run, with_gap((run / "d0-s0.npz").read_bytes())),
        422,
        "600 bytes outside its files",
    ),
    "files that overlap": (lambda run: overlapping(zip_of(run)), 400, "files that overlap"),
    "a comment on a file": (lambda run: with_comment(zip_of(run)), 400, "more than names and sizes"),
    "a longer array": (with_longer_array, 422, "60 bytes next to its header and values"),
    "compressed arrays": (compressed_arrays, 422, "is compressed"),
    "huge cost": (lambda run: edit(run, cost={"flops": 1e300}), 422, "less than or equal to 1000000000"),
    "negative time": (lambda run: edit(run, cost={"seconds": -1}), 422, "greater than or equal to 0"),
    "endless trials": (lambda run: edit(run, cost={"tuning_trials": 10**400}), 422, "tuning_trials"),
    "many parameters": (
        lambda run: with_method(run, parameters={"a": [{f"p{i}": 1 for i in range(200)}]}),
        422,
        "has 201 keys, at most 200",
    ),
    "a long parameter": (lambda run: with_method(run, parameters={"a": "x" * 30_000}), 422, "at most 20000"),
    "a large environment": (
        lambda run: edit(run, environment={f"key{i}": "x" for i in range(201)}),
        422,
        "at most 200 items",
    ),
    "a terminal escape": (lambda run: with_method(run, title="\x1b]0;mine\x07"), 422, "terminal escape"),
    "an escape of one byte": (lambda run: edit(run, environment={"a\x9b2J": "x"}), 422, "terminal escape"),
    "a crowded zip": (lambda _: crowded(), 400, "it lists more than"),
    "a crowded zip of 64 bits": (lambda _: crowded_64(), 400, "it lists more than"),
    "a crowded file": (lambda run: with_file(run, crowded()), 422, "d0-s0.npz"),
    "a comment": (lambda run: zip_of(run)[:-2] + b"\1\0x", 400, "without a comment"),
    "cut off behind a file": (cut_after_first_file, 400, "not a complete zip"),
    "another task": (lambda run: edit(run, task="other/cnn/random-10"), 422, "no board of that task"),
    "another definition": (lambda run: edit(run, task_key="0" * 64), 422, "another definition"),
    "an unknown key": (lambda run: edit(run, score=99.9), 422, "Extra inputs"),
    "a failed run": (lambda run: edit(run, status="failed", reason="boom"), 422, "did not complete"),
    "not json": (lambda run: zip_with(run, files={"manifest.json": b"{"}), 422, "JSON"),
    "infinity in it": (lambda run: edit(run, cost={"flops": float("inf")}), 422, "a finite number"),
    "a NUL in it": (lambda run: edit(run, command="a\0b"), 422, "NUL"),
    "no time": (lambda run: edit(run, created="yesterday"), 422, "ISO 8601"),
    "no zip": (lambda _: b"hello", 400, "not a complete zip"),
    "cut off": (lambda run: zip_of(run)[:-100], 400, "not a complete zip"),
    "empty": (lambda _: b"", 400, "not a complete zip"),
    "compressed": (lambda run: zip_with(run, compression=zipfile.ZIP_DEFLATED), 422, "without compression"),
    "a path": (lambda run: zip_with(run, files={"../../evil.npz": b"x"}), 422, "is not a file of a run"),
    "an additional file": (lambda run: zip_with(run, files={"d0-s9.npz": b"x"}), 422, "not named"),
    "NaN logits": (lambda run: damaged_array(run, lambda a: a * np.float16(np.nan)), 422, "SHA-256 differs"),
    "objects": (lambda run: damaged_array(run, lambda _: np.array([print], object)), 422, "size"),
    "float64": (lambda run: damaged_array(run, lambda a: a.astype(np.float64)), 422, "expected float16"),
    "fewer rows": (lambda run: damaged_array(run, lambda a: a[:5]), 422, "size"),
    "a bomb": (zip_bomb, 422, "is compressed"),
    "another shape": (wrong_header, 422, "expected float16"),
}


@pytest.mark.parametrize("make", [crowded, crowded_64])
def test_zip_with_many_files_uses_little_memory(make, world, tmp_path):
    content, body = make(), tmp_path / "body"
    body.write_bytes(content)
    run = read_run(world.write_run(tmp_path / "run"))
    (run.folder / "d0-s0.npz").write_bytes(content)
    tracemalloc.start()
    with pytest.raises(Problem, match="lists more than"):
        unpack(UploadedBody(body, "", len(content)), tmp_path / "unpacked", 4 * 2**20)
    [error] = check_headers(run)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (error.field, "lists more than 4 files" in error.message) == ("d0-s0.npz", True)
    assert peak < len(content) / 4  # ZipFile would take ten times the file


def test_upload_with_several_errors_lists_all(site, world, tmp_path):
    site.post(world.write_run(tmp_path / "first"), site.token())
    run = edit_manifest(
        world.write_run(tmp_path / "run"),
        lambda manifest: manifest.update(
            task_key="0" * 64,
            models=[{**model, "original": "1" * 64} if model["seed"] == 2 else model for model in manifest["models"]],
        ),
    )
    (run / "d0-s0.npz").write_bytes(b"no zip")
    with np.load(run / "d0-s1.npz") as file:
        arrays = {name: file[name] for name in file.files}
    arrays["test"] += np.float16(1)
    np.savez(run / "d0-s1.npz", **arrays)
    answer = site.post(zip_with(run, files={"notes.txt": b"mine"}), site.token())
    assert answer.status_code == 422
    errors = {(error["field"], error["message"]) for error in answer.json()["errors"]}
    for field, words in (
        ("'notes.txt'", "is not a file of a run"),
        ("d0-s0.npz", "does not end like a zip"),
        ("manifest", "another definition"),
        ("manifest", "seeds [2] were not unlearned from this board's originals"),
        ("d0-s1.npz", "SHA-256 differs"),
        ("d0-s3.npz", "submitted to this board before"),
    ):
        assert any(field == at and words in message for at, message in errors), (field, words, errors)


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_upload_is_refused_and_not_stored(name, site, world, tmp_path, assert_nothing_stored):
    make, status, words = HOSTILE[name]
    answer = site.post(make(world.write_run(tmp_path / "run")), site.token())
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    assert words in answer.text
    assert_nothing_stored()


class Pipe(io.BytesIO):
    """A target that cannot seek, so that zipfile writes sizes after each file."""

    def seekable(self):
        return False

    def seek(self, *_):
        raise io.UnsupportedOperation


def test_zip_that_was_streamed_is_accepted(site, world, tmp_path):
    run, body = world.write_run(tmp_path / "run"), Pipe()
    with zipfile.ZipFile(body, "w") as archive:
        for path in sorted(run.iterdir()):
            archive.writestr(path.name, path.read_bytes())
    answer = site.post(body.getvalue(), site.token())
    assert answer.status_code == 202, answer.text


def test_evidence_of_a_token_is_limited(site, world, tmp_path, monkeypatch):
    headers, run = site.token(), world.write_run(tmp_path / "run")
    size = sum(path.stat().st_size for path in run.glob("*.npz"))
    limits = site.settings.model_copy(update={"token_evidence_bytes": int(2.5 * size)})
    monkeypatch.setattr(site.client.app.state, "settings", limits)
    assert site.post(run, headers).status_code == 202
    second = world.write_run(tmp_path / "second", start=400)
    assert site.post(second, headers).status_code == 202
    third = world.write_run(tmp_path / "third", start=500)
    answer = site.post(third, headers)
    assert (answer.status_code, "FORGETBENCH_TOKEN_EVIDENCE_BYTES" in answer.text) == (403, True)
    assert site.post(third, site.token(name="Grace")).status_code == 202


def test_what_the_runner_recorded_counts_for_its_token(site, world, tmp_path, monkeypatch):
    headers, run = site.token(), world.write_run(tmp_path / "run")
    size = sum(path.stat().st_size for path in run.glob("*.npz"))
    limits = site.settings.model_copy(update={"token_evidence_bytes": int(2.5 * size)})
    monkeypatch.setattr(site.client.app.state, "settings", limits)
    entry = site.post(run, headers).json()["id"]
    recorded = limits.verified / entry / "sealed"
    recorded.mkdir(parents=True)
    (recorded / "model.npz").write_bytes(bytes(size))
    answer = site.post(world.write_run(tmp_path / "second", start=400), headers)
    assert (answer.status_code, "FORGETBENCH_TOKEN_EVIDENCE_BYTES" in answer.text) == (403, True)


def test_submitted_method_has_no_terminal_escape(site):
    document = {"task": site.world.task, "source": "class Mine:\n    '\x1b[2J'\n", "class_name": "Mine"}
    answer = site.client.post("/api/v1/submissions/method", json=document, headers=site.token())
    assert answer.status_code == 422
    assert "terminal escape" in answer.text


def test_upload_over_the_limit_is_refused(site, monkeypatch, assert_nothing_stored):
    headers, path = ZIP | site.token(), "/api/v1/submissions"
    announced = headers | {"Content-Length": str(10 * 2**30)}
    assert site.client.post(path, content=b"x", headers=announced).status_code == 413
    monkeypatch.setattr(site.client.app.state, "settings", site.settings.model_copy(update={"max_upload_bytes": 2**20}))
    streamed = (b"\0" * 2**19 for _ in range(4))
    assert site.client.post(path, content=streamed, headers=headers).status_code == 413
    assert_nothing_stored()


def test_upload_of_another_media_type_is_refused(site):
    headers = site.token() | {"Content-Type": "application/json"}
    assert site.client.post("/api/v1/submissions", content=b"{}", headers=headers).status_code == 415
