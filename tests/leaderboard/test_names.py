"""Names of methods and submitters: which are valid, and where they lead."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
from pydantic import ValidationError
from support.leaderboard import edit_manifest

from forgetbench import methods as methods_package
from forgetbench.evidence.run import MethodRecord
from forgetbench.fingerprints import file_fingerprint
from forgetbench.leaderboard.admin import create_token
from forgetbench.leaderboard.submissions.moderation import Acknowledgment
from forgetbench.leaderboard.submissions.names import REFERENCE_ROWS, check_names, shown_method
from forgetbench.leaderboard.submissions.reference import BASELINES
from forgetbench.leaderboard.submissions.uploads import deceptive_characters, text_errors
from forgetbench.methods import methods


def record(name, **changes):
    fields = {"title": "", "family": "own", "needs": (), "parameters": {}, "fingerprint": "0" * 64}
    return MethodRecord(name=name, **{**fields, **changes})


@pytest.mark.parametrize("name", ["a/b", "x.json", ".", "..", "", "-x", "a b", "<b>", "a\nb", "x" * 81, "a%2Fb"])
def test_invalid_method_name_is_refused(name):
    with pytest.raises(ValidationError):
        record(name)


@pytest.mark.parametrize("name", [*methods.names(), "my-method", "scrub-2.1", "Mine_3", "überschreiben"])
def test_valid_method_name_is_accepted(name):
    assert record(name).name == name


@pytest.mark.parametrize(
    ("name", "label"), [("retrain", ""), ("Retrain", ""), ("none", ""), ("x", "Retrain"), ("x", " no  UNLEARNING ")]
)
def test_names_of_reference_rows_are_reserved(site, world, tmp_path, name, label):
    run = world.write_run(tmp_path / "run", name, method={"label": label})
    answer = site.post(run, site.token())
    assert answer.status_code == 422
    assert [error["field"] for error in answer.json()["errors"]] == [f"method.{'label' if label else 'name'}"]
    assert "reference row" in answer.text


def test_name_that_ends_like_a_file_has_page_and_files(site, world, tmp_path):
    token = create_token(site.settings, "J. Doe.json", ["submit"])
    site.post(world.write_run(tmp_path / "run"), {"Authorization": f"Bearer {token}"})
    site.work()
    page = site.client.get("/submitters/J. Doe.json")
    assert (page.status_code, page.headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert "1 listed" in page.text
    assert site.client.get("/submitters/J. Doe.json.csv").headers["content-type"].startswith("text/csv")
    assert site.client.get("/submitters/J. Doe").status_code == 404


def test_no_submitter_owns_the_page_of_a_method(site, world, tmp_path):
    for place, (name, title) in enumerate([("scrub", "Mine"), ("new", "The real one"), ("new", "Better")]):
        run = world.write_run(tmp_path / str(place), name, start=300 + 20 * place, method={"title": title})
        site.post(run, site.token(name=f"Submitter {place}"))
    site.work()
    page = site.client.get("/methods/scrub").text
    assert ("A method of the forgetbench package" in page, "Mine" in page) == (True, False)
    page = site.client.get("/methods/new").text
    assert "2 submitters use this name" in page
    for place, title in ((1, "The real one"), (2, "Better")):
        assert f">Submitter {place}</a>: {title}" in page


def names_of(name, label=""):
    return check_names(SimpleNamespace(method=record(name, label=label)))


@pytest.mark.parametrize(
    ("name", "label", "word"),
    [
        ("R\u0435train", "", "looks like the reserved name"),  # a Cyrillic letter
        ("retra1n", "", "looks like the reserved name"),
        ("SSD", "", "'ssd'"),
        ("\uff53\uff53\uff44", "", "'ssd'"),
        ("s-s-d", "", "'ssd'"),
        ("gs_lora", "", "'gs-lora'"),
        ("mine", "N0 unlearning", "'No unlearning'"),
        ("mine", "ssd:alpha=3", "the method is called 'mine'"),
        ("mine", "two\nlines", "one line"),
    ],
)
def test_lookalikes_of_reserved_names_are_refused(name, label, word):
    assert word in names_of(name, label)[0].message


@pytest.mark.parametrize("name", [*methods.names(), "my-method", "scrub-2.1", "ssd-own", "überschreiben", "SSDplus"])
def test_honest_names_are_accepted(name):
    if name not in REFERENCE_ROWS:
        assert names_of(name, f"{name}:lr=0.1") == []


def test_reserved_rows_are_those_of_the_server():
    assert set(REFERENCE_ROWS) == {text for row in BASELINES.values() for text in (row.method, row.title)}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("a\x1b[31mb", "terminal escape"),
        ("a\u202eb", "U+202E, which changes the direction"),
        ("a\u200bb", "U+200B, which is invisible"),
        ("z\u0335\u0336\u0337\u0338", "combining marks"),
    ],
)
def test_deceptive_characters_are_refused(text, word):
    found = text_errors({"title": text, "parameters": {text: 1}, "environment": {"host": text}})
    assert [word in error.message for error in found] == [True] * 3
    assert deceptive_characters("Größe, 日本語, Việt\n\tzwei Zeilen") == ""
    with pytest.raises(ValidationError, match=word.partition(",")[0].replace("+", r"\+")):
        Acknowledgment(reason=text)


def test_deceptive_submission_is_refused(site, world, tmp_path):
    def edit(manifest):
        manifest["method"]["title"] = "a\u202eb"

    answer = site.post(edit_manifest(world.write_run(tmp_path / "run"), edit), site.token())
    assert (answer.status_code, "changes the direction of text: remove it" in answer.text) == (422, True)


def test_other_source_under_a_registered_name_is_marked(site, world, tmp_path):
    fake = world.write_run(tmp_path / "fake", "ssd", method={"fingerprint": "0" * 64, "source": "class Ssd: ..."})
    real = world.write_run(tmp_path / "real", "ssd", start=400, method={"label": "ssd:alpha=3"})
    ids = [site.post(run, site.token(name=who)).json()["id"] for run, who in ((fake, "Eve"), (real, "Ada"))]
    site.work()
    rows = [site.entry(entry_id)["row"] for entry_id in ids]
    assert [(row["method"], row["label"]) for row in rows] == [("ssd (Eve)", "ssd (Eve)"), ("ssd", "ssd:alpha=3")]
    page = site.client.get(f"/entries/{ids[1]}").text
    assert ("claimed to be ForgetBench's ssd" in page, "Reads, as claimed" in page) == (True, True)
    page = site.client.get(f"/entries/{ids[0]}").text
    assert ("ForgetBench's ssd" in page, f"forgetbench verify {ids[0]}" in page) == (False, True)
    assert site.client.get("/methods/ssd (Eve)").status_code == 200


def test_copied_file_of_a_registered_method_is_named(tmp_path):
    source = (Path(methods_package.__file__).parent / "ssd.py").read_text(encoding="utf-8")
    path = tmp_path / "mine.py"
    path.write_text(source.replace('@methods.register("ssd")', "").replace('"""Selective', '"""My'))
    method = record("mine", fingerprint=file_fingerprint(path), source=path.read_text())
    shown = shown_method(SimpleNamespace(method=method, row="mine:alpha=2"), "Eve")
    assert (shown.label, shown.registered) == ("mine:alpha=2 (is ForgetBench's ssd)", False)
