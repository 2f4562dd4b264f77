"""About 5,000 damaged image files, tables, index files and task files, made with fixed seeds.

None of them may raise an exception outside the project's own family, and every message names the file and a fix.
"""

from __future__ import annotations

import io
import json
import shutil
import string
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from support.image_sets import make_fine_partition
from support.mutations import assert_explains, mutate

from forgetbench.datasets import make_loader
from forgetbench.datasets._files import IMAGE_SUFFIXES
from forgetbench.datasets.base import LoadReport
from forgetbench.datasets.check import check_image_set
from forgetbench.datasets.scenarios import make_scenario
from forgetbench.errors import ForgetBenchError
from forgetbench.networks import networks
from forgetbench.tasks.task import CATALOG, read_task

pytestmark = pytest.mark.slow

SUFFIXES = sorted(IMAGE_SUFFIXES)
OPTIONS = {"size": 8}


def pixels(seed: int, side: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)


def encoded(image: PIL.Image.Image, kind: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def intact_images() -> dict[str, bytes]:
    """One small image of every kind that people have."""
    color = PIL.Image.fromarray(pixels(1))
    gray, palette = color.convert("L"), color.convert("P")
    exif = color.getexif()
    exif.update({0x0112: 6, 0x010F: "maker", 0x011A: 72.0, 0x0132: "2024:01:01 00:00:00"})
    digits = "\n".join(" ".join(map(str, row)) for row in np.asarray(gray).tolist())
    return {
        "jpeg": encoded(color, "JPEG"),
        "exif": encoded(color, "JPEG", exif=exif),
        "progressive": encoded(color, "JPEG", progressive=True),
        "cmyk": encoded(color.convert("CMYK"), "JPEG"),
        "png": encoded(color, "PNG", exif=exif),
        "palette": encoded(palette, "PNG", transparency=0),
        "alpha": encoded(color.convert("RGBA"), "PNG"),
        "deep": encoded(PIL.Image.fromarray(np.asarray(gray).astype(np.uint16) * 200), "PNG"),
        "gif": encoded(palette, "GIF"),
        "bmp": encoded(color, "BMP"),
        "tiff": encoded(color, "TIFF", compression="tiff_lzw"),
        "rawtiff": encoded(color, "TIFF"),
        "webp": encoded(color, "WEBP"),
        "pgm": encoded(gray, "PPM"),
        "plain": f"P2\n12 12\n255\n{digits}\n".encode(),
    }


def check_problems(report: LoadReport, names: Iterable[str]) -> None:
    known = tuple(names)
    assert report.partition is not None or report.problems
    for problem in report.problems:
        assert_explains(f"{problem.message}. {problem.fix}", *known)


@pytest.mark.parametrize("kind", intact_images())
def test_damaged_images_are_read_or_named(kind: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """In folders of two classes; every file is in the image set or named by a problem."""
    rng = np.random.default_rng(list(kind.encode()))
    content = intact_images()[kind]
    for batch in range(4):
        folder = tmp_path / str(batch)
        for number in range(20):
            path = folder / "ab"[number % 2] / f"sound{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(encoded(PIL.Image.fromarray(pixels(number)), "PNG"))
        damaged = {}
        for number in range(40):
            how, changed = mutate(content, rng)
            path = folder / "ab"[number % 2] / f"damaged{number}{rng.choice(SUFFIXES)}"
            path.write_bytes(changed)
            damaged[path] = how
        report = check_image_set("folder", OPTIONS, folder)
        check_problems(report, ["damaged", "class", "sound"])
        assert report.partition is not None
        read = {name for _, images in report.partition.parts() for name in images.sources}
        text = "\n".join(problem.message for problem in report.problems)
        for path, how in damaged.items():
            assert path.relative_to(folder).as_posix() in read or str(path) in text, (how, path)
        shutil.rmtree(folder)
    assert capfd.readouterr() == ("", "")  # neither Pillow nor a library of C writes past the report


LABELS = "path,label,identity,split\n" + "".join(
    f"images/{n}.png,{'sad' if n % 2 else 'happy'},p{n // 4},{'train' if n < 28 else 'test'}\n" for n in range(40)
)
NUMBERS = "path,label\n" + "".join(f"images/{n}.png,{n % 3}.0\n" for n in range(40))
SELECTION = "image,identity,Male,Smiling,Young,face_detected,n_faces\n" + "".join(
    f"{n:06d}.jpg,{n // 4},{n % 2},{n % 3 % 2},1,1,1\n" for n in range(40)
)
IDENTITIES = "".join(f"{n:06d}.jpg {n // 4}\n" for n in range(40))
ATTRIBUTES = "40\n5_o_Clock_Shadow Male Smiling Young\n" + "".join(
    f"{n:06d}.jpg {' '.join(str(1 - 2 * (n >> bit & 1)) for bit in range(4))}\n" for n in range(40)
)
PEOPLE = [(f"F{n // 8:04d}", f"{'DMS'[n % 3]}{n % 8}", "abcdefgh"[n % 8]) for n in range(40)]
MUFAC = "family_id,person_id,age_class,image_path\n" + "".join(
    f"{family},{person},{age},{family}_AGE_{person}_30_{age}1.jpg\n" for family, person, age in PEOPLE
)
TABLES = {
    "labels": ("folder", "labels.csv", LABELS),
    "numbers": ("folder", "labels.csv", NUMBERS),
    "selection": ("celeba", "celeba/labels.csv", SELECTION),
    "identities": ("celeba", "celeba/identity_CelebA.txt", IDENTITIES),
    "attributes": ("celeba", "celeba/list_attr_celeba.txt", ATTRIBUTES),
    "mufac": ("mufac", "mufac/custom_train_dataset.csv", MUFAC),
}


@pytest.fixture(scope="module")
def image_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Images of all tables, and the tables that are not damaged."""
    root = tmp_path_factory.mktemp("tables")
    rows = [line.rpartition(",")[2] for line in MUFAC.splitlines()[1:]]
    files = [
        *(root / "images" / f"{n}.png" for n in range(40)),
        *(root / "celeba" / f"{n:06d}.jpg" for n in range(40)),
        *(root / "celeba" / "img_align_celeba" / f"{n:06d}.jpg" for n in range(40)),
        *(root / "mufac" / f"{part}_images" / name for part in ("train", "val", "test") for name in rows),
    ]
    for seed, path in enumerate(files):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(PIL.Image.fromarray(pixels(seed)), "PNG"))
    for part in ("train", "val", "test"):
        (root / "mufac" / f"custom_{part}_dataset.csv").write_text(MUFAC)
    return root


@pytest.mark.parametrize("kind", TABLES)
def test_damaged_tables_are_read_or_named(kind: str, image_folder: Path) -> None:
    name, place, text = TABLES[kind]
    rng = np.random.default_rng(list(kind.encode()))
    path = image_folder / place
    others = {"celeba/identity_CelebA.txt": IDENTITIES, "celeba/list_attr_celeba.txt": ATTRIBUTES}
    for other, content in others.items():
        if kind in ("identities", "attributes"):
            (image_folder / other).write_text(content)
        else:
            (image_folder / other).unlink(missing_ok=True)
    options = OPTIONS | ({"pictures": 1} if name == "celeba" else {"split": "legacy"} if name == "mufac" else {})
    for _ in range(200):
        how, changed = mutate(text.encode(), rng)
        path.write_bytes(changed)
        report = check_image_set(name, options, image_folder)
        try:
            names = (path.name, str(path.parent), "image set", "class", "images", "people", "Validation", "person")
            check_problems(report, names)
        except AssertionError as error:
            raise AssertionError(f"{how}: {changed[:2000]!r}") from error
    path.unlink()


def index_files() -> Mapping[str, bytes]:
    """The intact index files of all kinds."""
    rows = np.array([4, 8, 15, 16, 23, 42])
    array, archive, tensor = io.BytesIO(), io.BytesIO(), io.BytesIO()
    np.save(array, rows)
    np.savez(archive, forget=rows, retain=np.arange(3))
    torch.save({"forget": torch.from_numpy(rows)}, tensor)
    return {
        "rows.npy": array.getvalue(),
        "split.npz": archive.getvalue(),
        "rows.pt": tensor.getvalue(),
        "rows.txt": b"4\n8\n15\n16\n23\n42\n",
        "rows.csv": b",index\n0,4\n1,8\n2,15\n3,16\n",
        "rows.json": json.dumps({"forget": rows.tolist(), "retain": [1, 2]}).encode(),
    }


@pytest.mark.parametrize("name", index_files())
def test_damaged_index_files_are_read_or_named(name: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(list(name.encode()))
    content, partition = index_files()[name], make_fine_partition()
    scenario = make_scenario("indices", {"path": str(tmp_path / name)})
    scores = make_scenario("memorised", {"count": 3, "scores": str(tmp_path / name)})
    for _ in range(100):
        how, changed = mutate(content, rng)
        (tmp_path / name).write_bytes(changed)
        for one in (scenario, scores):
            try:
                one.draw(partition)
            except ForgetBenchError as error:
                assert_explains(f"{how}: {error}", name, "none of the 60 training images would be forgotten")


def task_files() -> dict[str, bytes]:
    """Task files of the catalog with different sections, and one with everything."""
    names = ("digits/cnn/class", "faces/cnn/identity", "cifar10/resnet18/random-10", "mufac/resnet18/person")
    found = {name: CATALOG / f"{name}.toml" for name in names}
    texts = {name: path.read_text() for name, path in found.items() if path.is_file()}
    return {name: f'name = "fuzz/{name}"\n{text}'.encode() for name, text in texts.items()}


@pytest.mark.parametrize("name", task_files())
def test_damaged_task_files_are_read_or_named(name: str, tmp_path: Path) -> None:
    """Half of them are damaged by bytes, half by replacing a word or a number, which stays TOML more often."""
    rng = np.random.default_rng(list(name.encode()))
    content, path = task_files()[name], tmp_path / "my task.toml"
    for number in range(200):
        path.write_bytes(mutate(content, rng)[1] if number % 2 else replace_word(content, rng))
        try:
            task = read_task(str(path))
        except ForgetBenchError as error:
            assert_explains(str(error), path.name)
            continue
        assert task.key == task.development().with_counts(seeds=5).model_copy(update={"name": task.name}).key
        try:
            loader = make_loader(task.image_set.name, task.image_set.options)
            scenario = make_scenario(task.scenario.name, task.scenario.options)
            networks.get(task.network.name)
            if task.image_set.name == "digits":
                scenario.draw(loader.load(None), 0, task.stream("split"))
        except ForgetBenchError as error:
            assert_explains(str(error), "image set", "scenario", "network")


VALUES = (
    "-1",
    "1e400",
    "nan",
    "[]",
    "{}",
    '""',
    "true",
    "99999999999999999999",
    '"\\u202e"',
    "1979-05-27",
    "'x'",
    "0.5",
)


def replace_word(content: bytes, rng: np.random.Generator) -> bytes:
    """Replace a random word, number or text of a TOML file by another value."""
    text = content.decode()
    signs = string.ascii_letters + string.digits + "_.-\"'"
    starts = [at for at in range(1, len(text)) if text[at] in signs and text[at - 1] not in signs]
    start = int(rng.choice(starts))
    end = next((at for at in range(start, len(text)) if text[at] not in signs), len(text))
    return (text[:start] + str(rng.choice(VALUES)) + text[end:]).encode()
