import os
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets import load_partition, make_loader
from forgetbench.datasets.check import check_image_set
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import UsageError

SMALL = {"size": 8}


def write_image(path, seed):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (10, 12, 3), dtype=np.uint8)
    PIL.Image.fromarray(pixels).save(path)


@pytest.fixture
def class_folders(tmp_path):
    for seed in range(60):
        write_image(
            tmp_path / "pets" / ("cat", "dog", "bird")[seed % 3] / f"{seed}.{'png' if seed % 2 else 'JPG'}", seed
        )
    return tmp_path


@pytest.fixture
def table_folder(tmp_path):
    """Forty images of ten people; the label changes from image to image."""
    for number in range(40):
        write_image(tmp_path / "images" / f"{number}.png", number)
    return tmp_path


def write_table(folder, lines, head="path,label,identity", name="labels.csv"):
    (folder / name).write_text("\n".join([head, *lines]) + "\n", encoding="utf-8")


def table_lines():
    return [f"images/{number}.png,{('sad', 'happy')[number % 2]},p{number // 4}" for number in range(40)]


def test_class_folders_are_split_by_class(class_folders):
    partition = load_partition("folder", SMALL | {"path": "pets"}, class_folders)
    assert partition.train.classes == ("bird", "cat", "dog")
    assert [len(images) for _, images in partition.parts()] == [42, 6, 12]
    assert np.bincount(partition.train.labels).tolist() == [14, 14, 14]
    assert partition.train.images.shape[1:] == (3, 8, 8)
    assert partition.train.identities is None
    assert load_partition("folder", SMALL, class_folders / "pets").sha256 == partition.sha256
    absolute = SMALL | {"path": str(class_folders / "pets")}
    assert load_partition("folder", absolute, None).sha256 == partition.sha256


def test_folders_named_after_parts_are_the_parts(tmp_path):
    for seed in range(40):
        part = "train" if seed < 30 else "test"
        write_image(tmp_path / part / "ab"[seed % 2] / f"{seed}.png", seed)
    partition = load_partition("folder", SMALL | {"gray": True}, tmp_path)
    assert [len(images) for _, images in partition.parts()] == [27, 3, 10]
    assert partition.train.images.shape[1] == 1


def test_table_with_identities_is_split_by_person(table_folder):
    write_table(table_folder, table_lines())
    partition = load_partition("folder", SMALL, table_folder)
    people = [set(images.identities.tolist()) for _, images in partition.parts()]
    assert [len(numbers) for numbers in people] == [5, 1, 2, 2]
    assert len(set.union(*people)) == 10
    assert partition.train.classes == ("happy", "sad")


def test_table_labels_are_people_splits_within_person(table_folder):
    write_table(table_folder, [f"images/{n}.png,p{n // 4},p{n // 4}" for n in range(40)])
    partition = load_partition("folder", SMALL, table_folder)
    assert partition.unseen is None
    assert set(partition.train.labels) == set(range(10))


def test_table_with_split_column_uses_it(table_folder):
    parts = ["train"] * 20 + ["validation"] * 4 + ["test"] * 8 + ["unseen"] * 8
    lines = [f"{line},{part}" for line, part in zip(table_lines(), parts, strict=True)]
    write_table(table_folder, lines, "path,label,identity,split", "split.csv")
    partition = load_partition("folder", SMALL | {"table": "split.csv"}, table_folder)
    assert [len(images) for _, images in partition.parts()] == [20, 4, 8, 8]


def test_numeric_labels_are_sorted_as_numbers(table_folder):
    write_table(table_folder, [f"images/{n}.png,{(9, 10, 100)[n % 3]}" for n in range(40)], "path,label")
    assert load_partition("folder", SMALL, table_folder).train.classes == ("9", "10", "100")


@pytest.mark.parametrize(
    ("head", "line", "message"),
    [
        (
            "path,label",
            "images/99.png,sad",
            r"row 42 of .*labels\.csv names a missing file: .*images/99\.png",
        ),
        ("path,label", "images/1.png,", r"row 42 of .*labels\.csv has no label"),
        ("path,label,split", "images/1.png,sad,tset", "row 42 of .*has split 'tset'; it must be one of train, valid"),
        ("path,label,identity", "images/1.png,sad,", "row 42 of .*has no identity"),
        ("path,label", "images/1.png,sad,x", "row 42 of .*has 3 fields"),
        ("path,class", "images/1.png,sad", "has no column label"),
    ],
)
def test_wrong_row_error_names_it(table_folder, head, line, message):
    extra = {"path,label,split": ",train", "path,label,identity": ",p1"}.get(head, "")
    write_table(table_folder, [f"images/{n}.png,{('sad', 'happy')[n % 2]}{extra}" for n in range(40)] + [line], head)
    with pytest.raises(UsageError, match=message):
        load_partition("folder", SMALL, table_folder)


def test_unsplittable_table_error_explains_why(table_folder):
    write_table(table_folder, [f"images/{n}.png,sad" for n in range(40)], "path,label")
    with pytest.raises(UsageError, match="only one class, 'sad'"):
        load_partition("folder", SMALL, table_folder)
    write_table(table_folder, [f"images/{n}.png,{n % 2},train" for n in range(40)], "path,label,split")
    with pytest.raises(UsageError, match="none of its images is in part 'test'"):
        load_partition("folder", SMALL, table_folder)
    parts = [f"images/{n}.png,{n % 2},{'train' if n % 2 else 'test'}" for n in range(40)]
    write_table(table_folder, parts, "path,label,split")
    with pytest.raises(UsageError, match="class '0' has 0 training images"):
        load_partition("folder", SMALL, table_folder)


def test_image_outside_class_folders_error_names_it(class_folders):
    write_image(class_folders / "pets" / "stray.png", 0)
    with pytest.raises(UsageError, match=r"stray\.png is not in a class folder"):
        load_partition("folder", SMALL | {"path": "pets"}, class_folders)


def test_class_folder_as_root_names_its_parent(tmp_path, monkeypatch):
    for seed in range(30):
        write_image(tmp_path / "pictures" / "dark" / f"{seed}.png", seed)
    dark = tmp_path / "pictures" / "dark"
    monkeypatch.chdir(dark)
    for root, parent in ((dark, dark.parent), (Path(), dark.parent), (dark / "..", None)):
        problem, *others = check_image_set("folder", SMALL, root).problems
        assert others == []
        if parent:
            assert problem.message == f"{root} has 30 images but no class folders"
            assert problem.fix.startswith(f"If it is a class, name its parent: --root {parent} or option path.")
    with pytest.raises(UsageError, match=r"dark has 30 images but no class folders\. If it is a class"):
        load_partition("folder", SMALL, dark)


def test_part_without_class_folders_is_one_problem(class_folders):
    (class_folders / "pets").rename(class_folders / "train")
    for seed in range(9):
        write_image(class_folders / "test" / f"{seed}.png", seed)
    report = check_image_set("folder", SMALL, class_folders)
    assert [(problem.kind, problem.message) for problem in report.problems] == [
        ("no class folder", f"{class_folders / 'test'} has 9 images but no class folders"),
    ]
    assert report.problems[0].fix == f"Move them into class folders, {class_folders / 'test' / '<class>'}."


def test_folder_without_images_error_explains_it(tmp_path):
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(UsageError, match="contains no image in a class folder"):
        load_partition("folder", {}, tmp_path)


def test_many_images_are_decoded_only_once(tmp_path, monkeypatch):
    monkeypatch.setattr("forgetbench.datasets._files.CACHE_MIN_IMAGES", 10)
    for seed in range(20):
        write_image(tmp_path / "ab"[seed % 2] / f"{seed}.png", seed)
    first = load_partition("folder", SMALL, tmp_path)
    write_image(tmp_path / "a" / "0.png", 99)
    changed = load_partition("folder", SMALL, tmp_path).sha256
    assert changed != first.sha256
    monkeypatch.setattr("forgetbench.datasets._files._decode_all", None)
    assert load_partition("folder", SMALL, tmp_path).sha256 == changed


def test_identity_scenario_takes_names_from_the_table(table_folder):
    for people in (["3", "2", "7", "5", "11"], ["carla", "anna", "ben", "dora", "emil"]):
        lines = [f"images/{n}.png,{('sad', 'happy')[n % 2]},{people[n // 8]},train" for n in range(40)]
        tests = [f"images/{n}.png,{('sad', 'happy')[n % 2]},{people[n // 8]},test" for n in range(40)]
        write_table(table_folder, lines + tests, "path,label,identity,split")
        partition = load_partition("folder", SMALL | {"validation": 0.2}, table_folder)
        train = partition.train
        name = train.people[train.identities[0]]
        split = make_scenario("identity", {"people": [int(name) if name.isdecimal() else name]}).draw(partition)
        forgotten = {train.people[number] for number in train.identities[split.forget]}
        assert forgotten == {name}


def test_validation_has_whole_people_if_identities_are_known(table_folder):
    write_table(
        table_folder,
        [f"{line},{'train' if n < 28 else 'test'}" for n, line in enumerate(table_lines())],
        "path,label,identity,split",
    )
    partition = load_partition("folder", SMALL, table_folder)
    assert [len(images) for _, images in partition.parts()] == [24, 4, 12]
    assert check_image_set("folder", SMALL, table_folder).problems == []


def copies(folder, pairs):
    for copy, original in pairs:
        (folder / copy).write_bytes((folder / original).read_bytes())


@pytest.mark.parametrize("parts", [True, False])
def test_copies_of_an_image_stay_in_one_part(tmp_path, parts):
    for seed in range(80):
        part = ("train", "test")[seed >= 60] if parts else "."
        write_image(tmp_path / part / "ab"[seed % 2] / f"{seed}.png", seed)
    top = tmp_path / "train" if parts else tmp_path
    copies(top, [(f"{'ab'[n % 2]}/{n}.png", f"{'ab'[n % 2]}/{n - 30}.png") for n in range(30, 60)])
    for seed in range(6):
        names = [problem.kind for problem in check_image_set("folder", SMALL | {"seed": seed}, tmp_path).problems]
        assert names == ["repeated in training"]


def test_class_with_few_images_is_in_train(tmp_path):
    for seed in range(40):
        write_image(tmp_path / ("rare" if seed < 2 else "ab"[seed % 2]) / f"{seed}.png", seed)
    for seed in range(20):
        train = load_partition("folder", SMALL | {"seed": seed, "validation": 0.4, "test": 0.4}, tmp_path).train
        assert set(train.labels) == {0, 1, 2}


@pytest.mark.parametrize(
    "names", [("Train", "VAL", "Test"), ("train", "valid", "TEST"), ("TRAIN", "Validation", "test")]
)
def test_part_folders_accept_common_names(tmp_path, names):
    for seed in range(40):
        write_image(tmp_path / names[min(seed // 15, 2)] / "ab"[seed % 2] / f"{seed}.png", seed)
    partition = load_partition("folder", SMALL, tmp_path)
    assert [len(images) for _, images in partition.parts()] == [15, 15, 10]
    assert partition.train.classes == ("a", "b")
    assert partition.validation.sources[0].split("/")[0] == names[1]


def test_table_parts_accept_common_names(table_folder):
    lines = [f"images/{n}.png,{n % 2},{('Train', 'val', 'TEST')[min(n // 15, 2)]}" for n in range(40)]
    write_table(table_folder, lines, "path,label,split")
    assert [len(images) for _, images in load_partition("folder", SMALL, table_folder).parts()] == [15, 15, 10]


def test_ignored_files_are_reported(tmp_path):
    for seed in range(40):
        write_image(tmp_path / ("train", "test")[seed >= 30] / "ab"[seed % 2] / f"{seed}.png", seed)
    write_image(tmp_path / "holdout" / "a" / "1.png", 99)
    (tmp_path / "train" / "c").mkdir()
    (tmp_path / "train" / "a" / "photo.HEIC").write_bytes(b"")
    (tmp_path / "test" / "a" / "photo.heic").write_bytes(b"")
    problems = check_image_set("folder", SMALL, tmp_path).problems
    assert not any(problem.serious for problem in problems)
    text = "\n".join(problem.message for problem in problems)
    assert "holdout is ignored" in text
    assert "c contains no image" in text
    assert "their format is not supported: 1 .HEIC" in text
    assert "their format is not supported: 1 .heic" in text
    assert load_partition("folder", SMALL, tmp_path).train.classes == ("a", "b")
    (tmp_path / "train").rename(tmp_path / "learning")
    names = [problem.kind for problem in check_image_set("folder", SMALL, tmp_path).problems]
    assert "class named like a part" in names


def test_table_can_name_files_outside_its_folder(table_folder, tmp_path_factory, monkeypatch):
    monkeypatch.setattr("forgetbench.datasets._files.CACHE_MIN_IMAGES", 10)
    table = tmp_path_factory.mktemp("table")
    write_table(table, [f"{table_folder / 'images' / str(n)}.png,{n % 2}" for n in range(40)], "path,label")
    train = load_partition("folder", SMALL, table).train
    assert len(train) == 28
    assert train.source(0) == (table_folder / "images" / "0.png").as_posix()


def test_hash_does_not_depend_on_file_names(class_folders):
    before = load_partition("folder", SMALL | {"path": "pets"}, class_folders)
    (class_folders / "pets" / "cat" / "0.JPG").rename(class_folders / "pets" / "cat" / "0.Jpg")
    after = load_partition("folder", SMALL | {"path": "pets"}, class_folders)
    assert after.sha256 == before.sha256
    assert "cat/0.Jpg" in {name for _, images in after.parts() for name in images.sources}


def test_single_training_person_error_suggests_fix(table_folder):
    lines = [f"images/{n}.png,{n % 2},{'anna' if n < 20 else 'ben'},{'train' if n < 20 else 'test'}" for n in range(40)]
    write_table(table_folder, lines, "path,label,identity,split")
    with pytest.raises(UsageError, match=r"leave none of the 1 people for training\. Assign images to validation"):
        load_partition("folder", SMALL, table_folder)


def test_linked_class_folders_are_classes(class_folders, tmp_path_factory):
    """A folder of links alone reads like the folders that they lead to."""
    links = tmp_path_factory.mktemp("links")
    for folder in (class_folders / "pets").iterdir():
        (links / folder.name).symlink_to(folder, target_is_directory=True)
    partition = load_partition("folder", SMALL, links)
    assert partition.sha256 == load_partition("folder", SMALL, class_folders / "pets").sha256
    (links / "fish").symlink_to(links / "gone")
    with pytest.raises(UsageError, match=r"fish is a link to .*gone, which does not exist\. Restore what it leads to"):
        load_partition("folder", SMALL, links)


@pytest.mark.parametrize("name", [b"b\xe9b\xe9/1.png", b"cat/\xff.png"])
def test_names_that_are_not_utf8_are_refused_before_training(class_folders, name):
    path = class_folders / "pets" / os.fsdecode(name)
    write_image(path, 1)
    with pytest.raises(UsageError, match=r"the name of .*\\udc.* is not in UTF-8\. Rename it") as raised:
        load_partition("folder", SMALL | {"path": "pets"}, class_folders)
    str(raised.value).encode()


def test_whole_float_labels_are_whole_numbers(table_folder):
    """Pandas writes 2.0 for 2 where a column has a gap; -0.0, 0 and 0.0 are one class."""
    spellings = ("0", "0.0", "-0.0", "2.0", "2", "10.00", "1.0e+01", "2.5")
    write_table(table_folder, [f"images/{n}.png,{spellings[n % 8]},p{n // 4}.0" for n in range(40)])
    partition = load_partition("folder", SMALL, table_folder)
    assert partition.train.classes == ("0", "10", "2", "2.5")
    for named in ([2], ["2"], ["2.0"], [2.0]):
        split = make_scenario("class", {"classes": named}).draw(partition)
        assert {partition.train.classes[label] for label in partition.train.labels[split.forget]} == {"2"}


@pytest.mark.parametrize("text", ["nan", "NaN", "-nan", "<NA>", " "])
@pytest.mark.parametrize("column", ["label", "identity"])
def test_missing_values_are_refused_with_the_row(table_folder, text, column):
    lines = table_lines()
    lines[3] = f"images/3.png,{text},p0" if column == "label" else f"images/3.png,sad,{text}"
    write_table(table_folder, lines)
    with pytest.raises(UsageError, match=rf"row 5 of .*labels\.csv has no {column}"):
        load_partition("folder", SMALL, table_folder)


@pytest.mark.parametrize(("label", "serious"), [("sad", True), ("happy", False)])
def test_repeated_rows_are_named(table_folder, label, serious):
    write_table(table_folder, [*table_lines(), f"images/1.png,{label},p0"])
    [problem] = [
        one for one in make_loader("folder", SMALL).examine(table_folder).problems if one.kind == "repeated row"
    ]
    assert problem.serious == serious
    assert "row 42 of" in problem.message
    assert ("with label 'sad' instead of 'happy'" in problem.message) == serious


def test_single_training_image_of_given_parts_is_named(table_folder):
    parts = ["train"] + ["test"] * 39
    lines = [f"images/{n}.png,{n % 2},{part}" for n, part in enumerate(parts)]
    write_table(table_folder, lines, "path,label,split")
    with pytest.raises(UsageError, match="has one training image, and no image in part 'validation'"):
        load_partition("folder", SMALL, table_folder)


def test_person_named_nan_is_a_person(table_folder):
    write_table(table_folder, [line.replace(",p3", ",Nan") for line in table_lines()])
    assert len(load_partition("folder", SMALL, table_folder).train.people) == 10


@pytest.mark.parametrize(
    ("first", "second", "serious"),
    [
        ("DARK", "dark", False),
        ("a  b", "a b", False),
        ("01", "1", False),
        ("bébé", "be\u0301be\u0301", True),
        ("a\u200bb", "ab", False),
        ("a\u00a0b", "a b", False),
    ],
)
def test_class_names_that_look_alike_are_named(tmp_path, first, second, serious):
    for seed in range(60):
        write_image(tmp_path / (first, second, "other")[seed % 3] / f"{seed}.png", seed)
    report = make_loader("folder", SMALL).examine(tmp_path)
    [problem] = report.problems
    assert (problem.kind, problem.serious) == ("similar names", serious)
    assert ascii(first) in problem.message
    assert ascii(second) in problem.message
    if serious:
        with pytest.raises(UsageError, match="look the same, but consist of other Unicode characters"):
            load_partition("folder", SMALL, tmp_path)
    else:
        assert load_partition("folder", SMALL, tmp_path).notes[0].endswith("otherwise rename one.")


def test_decomposed_class_is_found_by_composed_name(tmp_path):
    for seed in range(60):
        write_image(tmp_path / ("be\u0301be\u0301", "b", "c")[seed % 3] / f"{seed}.png", seed)
    partition = load_partition("folder", SMALL, tmp_path)
    split = make_scenario("class", {"classes": ["b\u00e9b\u00e9"]}).draw(partition)
    names = {partition.train.classes[label] for label in partition.train.labels[split.forget]}
    assert names == {"be\u0301be\u0301"}


def test_order_of_numbers_with_leading_zeros_is_fixed(table_folder):
    write_table(table_folder, [f"images/{n}.png,{('1', '01', '001', '2')[n % 4]}" for n in range(40)], "path,label")
    assert load_partition("folder", SMALL, table_folder).train.classes == ("001", "01", "1", "2")


def test_archive_unpacked_too_deep_error_says_so(tmp_path):
    for seed in range(40):
        write_image(tmp_path / "pets" / ("cat", "dog")[seed % 2] / f"{seed}.png", seed)
    with pytest.raises(UsageError, match=r"one level too deep\. If these are the classes, name .*/pets with --root"):
        load_partition("folder", SMALL, tmp_path)
    assert load_partition("folder", SMALL, tmp_path / "pets").train.classes == ("cat", "dog")


def test_parts_without_train_are_not_classes(tmp_path):
    for seed in range(40):
        write_image(tmp_path / ("val", "test")[seed % 2] / "ab"[seed // 20] / f"{seed}.png", seed)
    with pytest.raises(
        UsageError, match=r"only folders that look like parts \(test, val\), but no folder 'train'\. Add"
    ):
        load_partition("folder", SMALL, tmp_path)


@pytest.mark.parametrize(
    ("parts", "also"),
    [
        (("train", "val", "test"), ""),
        (("Train", "valid"), ", and add images of every class in a folder 'test'"),
        (("train",), ", and add images of every class in a folder 'test'"),
        (("validation", "test"), ", and add images of every class in a folder 'train'"),
        (("val",), ", and add images of every class in a folder 'train' and a folder 'test'"),
    ],
)
def test_parts_one_level_too_deep_error_names_them(tmp_path, parts, also):
    for seed in range(40):
        write_image(tmp_path / "pets" / parts[seed % len(parts)] / "ab"[seed // 20] / f"{seed}.png", seed)
    contents = ", ".join(sorted(parts))
    problem, *others = check_image_set("folder", SMALL, tmp_path).problems
    assert others == []
    assert problem.fix == (
        f"That folder contains {contents}, which look like parts: the images are one level too deep. "
        f"Name {tmp_path / 'pets'} with --root or option path{also}."
    )


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        ("id,breed\n1,x\n", r"has no column path, label; its header is id, breed\."),
        ("path,label\nold/1.png,x\n", r"row 2 of .* names a missing file"),
    ],
)
def test_foreign_table_error_says_class_folders_are_there(class_folders, table, reason):
    (class_folders / "pets" / "labels.csv").write_text(table)
    message = rf"labels\.csv is read because of its name, and .*{reason}.*Rename it to read the class folders"
    with pytest.raises(UsageError, match=f"(?s){message}"):
        load_partition("folder", SMALL | {"path": "pets"}, class_folders)


def test_partition_notes_say_what_was_passed_over(class_folders):
    (class_folders / "pets" / "cat" / "new.avif").write_bytes(b"")
    (class_folders / "pets" / "dog" / "old.JFIF").write_bytes(b"")
    [note] = load_partition("folder", SMALL | {"path": "pets"}, class_folders).notes
    assert "are ignored, because their format is not supported: 1 .JFIF, 1 .avif" in note
    assert "Files with .jfif are JPEG: rename them to .jpg" in note
