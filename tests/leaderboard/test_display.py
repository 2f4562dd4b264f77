"""What pages show of public draws: contact sheets, examples that leak most, people; comparisons across boards."""

from __future__ import annotations

import io
import shutil

import numpy as np
import pytest
from PIL import Image
from support.leaderboard import World

from forgetbench.datasets.types import DatasetCard
from forgetbench.evidence.arrays import write_arrays
from forgetbench.evidence.display import DISPLAY, png, read_display
from forgetbench.evidence.reference import read_pack, write_pack
from forgetbench.leaderboard.admin import install_bundle
from forgetbench.runner.config import RunConfig
from forgetbench.runner.display import write_display
from forgetbench.tasks.task import read_task


@pytest.fixture
def shown(site, world):
    """A site whose bundle has pictures and people."""
    folder = next(site.settings.packs.iterdir()) / "pack"
    pictures = np.arange(60 * 8 * 8 * 3, dtype=np.uint64).astype(np.uint8).reshape(60, 8, 8, 3)
    arrays = {
        "forget-d0": pictures,
        "people-d0": np.arange(60) % 4,
        "people-counts": np.array([4, 9]),
        "sheet-forget": pictures[0],
        "sheet-forget-classes": np.array([0, 0, 2]),
    }
    write_arrays(folder / DISPLAY, arrays)
    read_display.cache_clear()
    yield site
    read_display.cache_clear()


def test_entry_page_shows_the_examples_that_leak_most(shown, world, tmp_path):
    headers = shown.token("submit", "run", name="Lab")
    entry = shown.post(world.write_run(tmp_path / "run", "keeper", memory=1.9), headers).json()["id"]
    shown.work()
    page = shown.client.get(f"/entries/{entry}").text
    assert page.count('class="picture"') == 10
    assert "still remembered" in page
    assert 'alt="Training image' in page
    assert "By person" in page
    first = page.partition('class="picture" src="')[2].partition('"')[0]
    answer = shown.client.get(first)
    assert (answer.status_code, answer.headers["content-type"]) == (200, "image/png")
    assert Image.open(io.BytesIO(answer.content)).size == (56, 56)
    with shown.database.read_session() as session:
        from forgetbench.leaderboard.db.models import Score

        leaks = session.get_one(Score, entry).leaks
    assert len(leaks["rows"]) == 10
    assert [abs(row["z"]) for row in leaks["rows"]] == sorted((abs(row["z"]) for row in leaks["rows"]), reverse=True)
    assert sum(person["images"] for person in leaks["people"]) == world.counts["forget"]
    assert all(0 <= person["accuracy"] <= 1 for person in leaks["people"])


def test_task_page_has_a_contact_sheet_with_its_text(shown, world):
    page = shown.client.get(f"/tasks/{world.task}").text
    assert 'alt="Examples of training images to forget: 2 of class circle, 1 of class triangle"' in page
    assert "people to forget, and to keep" in page
    sha = next(shown.settings.packs.iterdir()).name
    assert shown.client.get(f"/pictures/{sha[:12]}/forget.png").status_code == 200


@pytest.mark.parametrize("name", ["retain", "d0-60", "d1-0", "d0--1", "forget-d0", "..%2Fpack"])
def test_pictures_that_do_not_exist_are_not_found(shown, name):
    sha = next(shown.settings.packs.iterdir()).name
    assert shown.client.get(f"/pictures/{sha[:12]}/{name}.png").status_code == 404
    assert shown.client.get(f"/pictures/{'0' * 12}/{name}.png").status_code == 404


def test_page_without_pictures_has_row_numbers_only(site, world, tmp_path):
    entry = site.post(world.write_run(tmp_path / "run", memory=1.0), site.token()).json()["id"]
    site.work()
    page = site.client.get(f"/entries/{entry}").text
    assert "examples that leak most" in page
    assert 'class="picture"' not in page
    assert "By person" not in page
    assert "In pictures" not in site.client.get(f"/tasks/{world.task}").text


@pytest.mark.parametrize("channels", [1, 3])
def test_png_is_read_by_other_programs(channels):
    image = np.random.default_rng(1).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    read = np.asarray(Image.open(io.BytesIO(png(image))))
    assert np.array_equal(read.reshape(image.shape), image)


def test_pictures_do_not_change_the_digest_of_a_bundle(tiny_pack, tmp_path):
    folder = tmp_path / "pack"
    shutil.copytree(tiny_pack.folder, folder)
    write_arrays(folder / DISPLAY, {"people-d0": np.arange(3)})
    card = write_pack(folder, read_pack(folder).card.model_dump(mode="json", exclude={"files"}))
    assert card.digest == tiny_pack.digest


def test_installing_a_bundle_brings_its_pictures(make_settings, world, tmp_path):
    settings, folder = make_settings(), world.write_pack(tmp_path / "pack")
    write_arrays(folder / DISPLAY, {"people-d0": np.arange(3)})
    board = install_bundle(settings, folder)
    assert (settings.packs / board.pack_sha256 / "pack" / DISPLAY).is_file()


def test_pack_build_writes_sheets_of_images_that_may_be_shown(tmp_path, monkeypatch):
    task = read_task("digits/cnn/class")
    write_display(tmp_path, task, RunConfig())
    read_display.cache_clear()
    arrays = read_display(tmp_path)
    assert {"sheet-forget", "sheet-retain", "sheet-test-forgotten", "forget-d0"} <= set(arrays)
    assert arrays["sheet-forget"].shape[0] >= 48
    monkeypatch.setattr("forgetbench.runner.display.may_show", lambda _card: False)
    write_display(tmp_path, task, RunConfig())
    read_display.cache_clear()
    assert not [name for name in read_display(tmp_path) if name.startswith(("sheet", "forget"))]


@pytest.mark.parametrize(
    ("facts", "allowed"),
    [
        ({"embedded": True}, True),
        ({"downloads": True}, True),
        ({"embedded": True, "restricted": True}, False),
        ({}, False),  # a folder of the user
    ],
)
def test_only_open_images_may_be_shown(facts, allowed):
    from forgetbench.runner.display import may_show

    card = DatasetCard(name="x", title="X", description="x", license="x", **facts)
    assert may_show(card) is allowed


def test_entries_of_different_boards_can_be_compared(site, world, tmp_path):
    other = World("tiny/vit/random-10")
    install_bundle(site.settings, other.write_pack(tmp_path / "other"))
    headers = site.token("submit", "run", name="Lab")
    ids = [
        site.post(place.write_run(tmp_path / f"run-{number}", "both", memory=0.3), headers).json()["id"]
        for number, place in enumerate((world, other))
    ]
    site.work()
    page = site.client.get("/compare", params={"ids": ids})
    assert page.status_code == 200
    assert "entries of different boards compared" in page.text
    assert page.text.count("limit of retraining") == 2
    [table] = site.client.get("/compare.json", params={"ids": ids}).json()["tables"].values()
    assert [row["task"] for row in table] == [world.task, other.task]
    assert "Choose both on" in site.client.get("/methods/both").text
