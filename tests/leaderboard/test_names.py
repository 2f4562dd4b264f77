"""Names of methods and submitters: which are valid, and where they lead."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from forgetbench.evidence.run import MethodRecord
from forgetbench.leaderboard.admin import create_token
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


def test_method_page_describes_its_first_entry(site, world, tmp_path):
    for place, title in enumerate(("The real one", "Mine, which is better")):
        run = world.write_run(tmp_path / str(place), start=300 + 20 * place, method={"title": title})
        site.post(run, site.token(name=f"Submitter {place}"))
        site.work()
    page = site.client.get("/methods/scrub").text
    assert "The real one" in page
    assert "Mine, which is better" not in page
