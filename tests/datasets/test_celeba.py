"""CelebA and MUCAC: miniatures in their formats, and the public tables."""

import csv

import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition, make_loader
from forgetbench.datasets._identity_splits import sample_validation_people
from forgetbench.datasets.base import make_rng
from forgetbench.datasets.celeba import FORGET_IDENTITIES, IDENTITY_RANGES, PUBLISHED, read_identities
from forgetbench.datasets.check import check_image_set
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError
from forgetbench.tasks.task import read_task

SMALL = {"size": 8}
NAMES = ["5_o_Clock_Shadow", "Male", "Smiling", "Wearing_Hat", "Young"]


def write_images(folder, names):
    folder.mkdir(parents=True)
    for name in names:
        rng = np.random.default_rng(int(name.split(".")[0]))
        PIL.Image.fromarray(rng.integers(0, 256, (12, 10, 3), dtype=np.uint8)).save(folder / name, "JPEG")


def attribute_lines(names, seed=0):
    values = np.random.default_rng(seed).integers(0, 2, (len(names), len(NAMES))) * 2 - 1
    rows = [f"{name}  {' '.join(map(str, row))}" for name, row in zip(names, values.tolist(), strict=True)]
    return [str(len(names)), " ".join(NAMES), *rows], values


@pytest.fixture
def mucac(tmp_path):
    """Two images each of identities on both sides of every published border."""
    identity = [0, 1, 2, 189, 190, 191, 1249, 1250, 1251, 4854, 4855, 4856, 6216]
    names = [f"{number}.jpg" for number in range(2 * len(identity))]
    folder = tmp_path / "CelebAMask-HQ"
    write_images(folder / "CelebA-HQ-img", names)
    rows = [f"{name} {identity[number // 2]}" for number, name in enumerate(names)]
    (folder / "CelebA-HQ-identity.txt").write_text("\n".join(rows) + "\n")
    lines, _ = attribute_lines(names)
    (folder / "CelebA-HQ-attribute.txt").write_text("\n".join(lines) + "\n")
    return tmp_path


def test_mucac_legacy_splits_by_identity_number(mucac):
    partition = load_partition("mucac", SMALL | {"split": "legacy"}, mucac)
    people = {part: sorted(set(images.identities.tolist())) for part, images in partition.parts()}
    assert sorted(people["train"] + people["validation"]) == [190, 191, 1249, 1250, 1251, 4854]
    assert len(people["validation"]) == 1
    assert people["validation"][0] in {1250, 1251, 4854}  # who would be retained
    assert people["test"] == [0, 1, 2, 189]
    assert people["unseen"] == [4855, 4856, 6216]
    forgotten = partition.train.identities[partition.forget_lists["published"]]
    assert sorted(set(forgotten.tolist())) == [190, 191, 1249]
    assert partition.train.classes == ("male", "smiling", "young")


def test_mucac_attributes_match_the_table(mucac):
    _, values = attribute_lines([f"{number}.jpg" for number in range(26)])
    partition = load_partition("mucac", SMALL | {"split": "legacy"}, mucac)
    assert np.array_equal(partition.test.labels, (values[:8][:, [1, 2, 4]] + 1) // 2)
    smiling = load_partition("mucac", SMALL | {"split": "legacy", "labels": "smiling"}, mucac)
    assert np.array_equal(smiling.train.labels, partition.train.labels[:, 1])
    assert smiling.train.classes == ("not smiling", "smiling")


def test_mucac_compare_with_published_reports_counts(mucac):
    table = mucac / "CelebAMask-HQ" / "CelebA-HQ-identity.txt"
    assert make_loader("mucac").compare_with_published(mucac) == [
        f"{table} names 26 images; the published table names 30,000",
        f"{table} names 13 people; the published table names 6,217",
    ]


def test_mucac_person_split_draws_whole_people(mucac):
    partition = load_partition("mucac", SMALL, mucac)
    people = [set(images.identities.tolist()) for _, images in partition.parts()]
    assert [len(numbers) for numbers in people] == [10, 1, 1, 1]
    assert len(set.union(*people)) == 13
    assert make_scenario("identity", {"count": 2}).draw(partition).track == "match-oracle"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "identity",
            "3.jpg 1\n",
            "3.jpg\n",
            r"row 4 of .*identity\.txt is '3\.jpg'; expected is '<i>\.jpg <identity>'",
        ),
        ("identity", "3.jpg 1\n", "3.jpg one\n", "row 4 of .*'3.jpg one'"),
        (
            "identity",
            "3.jpg 1\n",
            "99.jpg 1\n",
            "(?s)99.jpg has an identity .* but no attributes.*99.jpg does not exist",
        ),
        ("attribute", "26\n", "30\n", "the first line of .* says 30 rows, but there are 26"),
        ("attribute", "Smiling", "Grinning", "does not name Smiling"),
        ("attribute", "\n3.jpg  ", "\n3.jpg  0 ", r"row 6 of .*attribute\.txt is not a name and 5 values"),
    ],
)
def test_wrong_row_error_names_it(mucac, file, old, new, message):
    table = mucac / "CelebAMask-HQ" / f"CelebA-HQ-{file}.txt"
    text = table.read_text()
    assert old in text
    table.write_text(text.replace(old, new, 1))
    with pytest.raises(UsageError, match=message):
        load_partition("mucac", SMALL, mucac)


def test_celeba_original_files_leave_out_rare_people(tmp_path):
    names = [f"{number:06d}.jpg" for number in range(1, 51)]
    folder = tmp_path / "celeba"
    write_images(folder / "img_align_celeba", names)
    identity = [100 + min(number // 5, 8) for number in range(50)]  # nine people: eight with five images, one with ten
    (folder / "identity_CelebA.txt").write_text("".join(f"{n} {w}\n" for n, w in zip(names, identity, strict=True)))
    (folder / "list_attr_celeba.txt").write_text("\n".join(attribute_lines(names)[0]) + "\n")
    partition = load_partition("celeba", SMALL | {"pictures": 5}, tmp_path)
    assert sum(len(np.unique(images.identities)) for _, images in partition.parts()) == 9
    with pytest.raises(UsageError, match="no person has 11 images; the most is 10"):
        load_partition("celeba", SMALL | {"pictures": 11}, tmp_path)


@pytest.mark.parametrize("identities", ["identity_CelebA.txt", "identity_CelebA.csv"])
def test_celeba_from_kaggle_reads_like_the_original(tmp_path, identities):
    """Tables as CSV, and images in a folder in the folder of their name."""
    names = [f"{number:06d}.jpg" for number in range(1, 51)]
    people = [f"{number // 5}" for number in range(50)]
    lines, _ = attribute_lines(names)
    for folder, images in (("celeba", ""), ("kaggle", "img_align_celeba")):
        write_images(tmp_path / folder / "img_align_celeba" / images, names)
    original, kaggle = tmp_path / "celeba", tmp_path / "kaggle"
    (original / "identity_CelebA.txt").write_text("".join(f"{n} {p}\n" for n, p in zip(names, people, strict=True)))
    (original / "list_attr_celeba.txt").write_text("\n".join(lines) + "\n")
    rows = [",".join(line.split()) for line in lines[2:]]
    (kaggle / "list_attr_celeba.csv").write_text("\n".join([",".join(["image_id", *NAMES]), *rows]) + "\n")
    options = SMALL | {"pictures": 5}
    with pytest.raises(UsageError, match=r"no identity_CelebA\.txt, .*Kaggle's copy of CelebA lacks it\. Get identity"):
        load_partition("celeba", options, kaggle)
    head, mark = ("image_id,identity\n", ",") if identities.endswith("csv") else ("", " ")
    table = "".join(f"{name}{mark}{person}\n" for name, person in zip(names, people, strict=True))
    (kaggle / identities).write_text(head + table)
    assert load_partition("celeba", options, kaggle).sha256 == load_partition("celeba", options, original).sha256


def test_celeba_selection_leaves_out_images_without_one_face(tmp_path):
    names = [f"{number:06d}.jpg" for number in range(1, 41)]
    write_images(tmp_path / "celeba", names)
    head = "image,identity,Male,Smiling,Young,face_detected,n_faces"
    lines = [f"{name},{n // 4},{n % 2},1,0,{int(n != 5)},{1 + (n == 9)}" for n, name in enumerate(names)]
    (tmp_path / "celeba" / "labels.csv").write_text("\n".join([head, *lines]) + "\n")
    partition = load_partition("celeba", SMALL | {"pictures": 3}, tmp_path)
    assert sum(len(images) for _, images in partition.parts()) == 38
    assert set(partition.train.labels[:, 1]) == {1}
    (tmp_path / "celeba" / "labels.csv").write_text("\n".join([head, *lines[:-1], lines[-1].replace(",1,0,", ",2,0,")]))
    with pytest.raises(UsageError, match=r"row 41 of .*labels\.csv: identity must be a number, and Male, .*Young 0"):
        load_partition("celeba", SMALL | {"pictures": 3}, tmp_path)


def test_mucac_published_table_gives_published_counts(real_data):
    identity = np.array(list(read_identities(real_data / "mucac" / "CelebA-HQ-identity.txt", []).values()))
    counts = {name: int(((identity >= low) & (identity < high)).sum()) for name, (low, high) in IDENTITY_RANGES.items()}
    assert counts == {"train": 25933, "test": 2065, "unseen": 2002}
    assert int(((identity >= FORGET_IDENTITIES[0]) & (identity < FORGET_IDENTITIES[1])).sum()) == 10183
    fraction = read_task("mucac/resnet18/legacy").image_set.options["validation"]
    excluded = (identity < FORGET_IDENTITIES[1]) | (identity >= IDENTITY_RANGES["unseen"][0])
    drawn = sample_validation_people(identity, excluded, fraction, make_rng("mucac", "validation", 0))
    assert (len(drawn), len(np.unique(identity[drawn])), 15750 - len(drawn)) == (490, 108, 15260)
    assert (len(identity), len(np.unique(identity))) == PUBLISHED == (30000, 6217)


def test_celeba_published_selection_keeps_frequent_people(real_data, tmp_path):
    """The published table with random images."""
    table = (real_data / "celeba299" / "labels.csv").read_text()
    rows = list(csv.DictReader(table.splitlines()))[:1500]
    folder = tmp_path / "celeba299"
    write_images(folder, [row["image"] for row in rows])
    (folder / "labels.csv").write_text("\n".join(table.splitlines()[:1501]) + "\n")
    partition = load_partition("celeba", SMALL | {"pictures": 3}, tmp_path)
    single = [row["identity"] for row in rows if row["face_detected"] == "1" and row["n_faces"] == "1"]
    selected = [identity for identity in set(single) if single.count(identity) >= 3]
    assert sum(len(np.unique(images.identities)) for _, images in partition.parts()) == len(selected)


def test_check_image_set_lists_all_problems(mucac):
    folder = mucac / "CelebAMask-HQ"
    table = folder / "CelebA-HQ-identity.txt"
    text = table.read_text().replace("3.jpg 1\n", "3.jpg one\n", 1).replace("5.jpg 2\n", "99.jpg 2\n", 1)
    table.write_text(text + "8.jpg 77\n")
    (folder / "CelebA-HQ-img" / "7.jpg").write_bytes(b"")
    problems = check_image_set("mucac", SMALL | {"split": "legacy"}, mucac).problems
    serious = [problem for problem in problems if problem.serious]
    assert {"wrong row", "image of two people", "missing attributes", "missing file", "unreadable image"} <= {
        problem.kind for problem in serious
    }
    twice = next(problem.message for problem in serious if problem.kind == "image of two people")
    assert "gives 8.jpg identity 77; an earlier row gives it 190" in twice


def test_celeba_selection_with_repeated_image_is_refused(tmp_path):
    names = [f"{number:06d}.jpg" for number in range(1, 41)]
    write_images(tmp_path / "celeba", names)
    lines = [f"{name},{n // 4},{n % 2},1,0" for n, name in enumerate(names)]
    table = tmp_path / "celeba" / "labels.csv"
    table.write_text("\n".join(["image,identity,Male,Smiling,Young", *lines, f"{names[0]},9,0,1,0"]) + "\n")
    with pytest.raises(UsageError, match=r"row 42 of .* gives 000001\.jpg identity 9; an earlier row gives it 0"):
        load_partition("celeba", SMALL | {"pictures": 3}, tmp_path)


def test_celeba_own_tables_win_over_a_foreign_table(mucac):
    """A labels.csv in the data folder, of another image set."""
    (mucac / "celeba").mkdir()
    (mucac / "celeba" / "identity_CelebA.txt").write_text("1.jpg 1\n")
    (mucac / "labels.csv").write_text("path,label\na,b\n")
    with pytest.raises(UsageError, match=r"celeba has no list_attr_celeba\.txt or \.csv"):
        load_partition("celeba", SMALL, mucac)


@pytest.mark.parametrize("table", ["list_attr_celeba.csv", "identity_CelebA.txt"])
def test_celeba_unpacked_too_deep_is_found(tmp_path, table):
    (tmp_path / "downloads" / "archive").mkdir(parents=True)
    (tmp_path / "downloads" / "archive" / table).write_text("")
    with pytest.raises(UsageError, match=r"It is in .*downloads/archive: name that folder with --root"):
        load_partition("celeba", SMALL, tmp_path)
