import io

import numpy as np
import PIL.Image
import pytest

from forgetbench.datasets._files import (
    ImageFile,
    Shape,
    content_digest,
    decode,
    image_paths,
    kept,
    open_image,
    resident,
)
from forgetbench.datasets._tables import files_of_rows, read_table
from forgetbench.datasets.problems import FileProblems, Problem
from forgetbench.errors import UsageError


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def colors():
    return np.random.default_rng(0).integers(0, 256, (700, 4, 4, 3), dtype=np.uint8)


def test_lossless_pictures_come_back_in_order(colors):
    files = (ImageFile(str(place), encoded(image, "PNG")) for place, image in enumerate(colors))
    assert np.array_equal(decode(files, 700, Shape(3, 4)), colors.transpose(0, 3, 1, 2))


def test_reducing_is_the_mean_of_the_area():
    pixels = np.random.default_rng(1).integers(0, 256, (12, 8), dtype=np.uint8)
    small = decode([ImageFile("a", encoded(pixels, "PNG"))], 1, Shape(1, 4))[0, 0]
    assert np.abs(small - pixels.reshape(4, 3, 4, 2).mean(axis=(1, 3))).max() < 1  # two passes, each rounded


def test_crop_takes_the_middle_square():
    pixels = np.zeros((4, 10), dtype=np.uint8)
    pixels[:, 3:7] = np.arange(16).reshape(4, 4)
    cropped = decode([ImageFile("a", encoded(pixels, "PNG"))], 1, Shape(1, 4, "crop"))[0, 0]
    assert np.array_equal(cropped, np.arange(16).reshape(4, 4))


def test_grey_becomes_colors_and_colors_grey():
    grey = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert np.array_equal(decode([ImageFile("a", encoded(grey, "PNG"))], 1, Shape(3, 4))[0], np.stack([grey] * 3))
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert decode([ImageFile("a", encoded(red, "PNG"))], 1, Shape(1, 4))[0, 0, 0, 0] == round(200 * 0.299)


def test_a_photograph_is_turned_upright():
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 255
    image = PIL.Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 3  # taken upside down
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    assert decode([ImageFile("a", stream.getvalue())], 1, Shape(1, 4))[0, 0, :, 0].tolist() == [0, 0, 0, 255]


def test_plain_pgm_is_read_like_the_binary_one():
    pixels = np.random.default_rng(2).integers(0, 256, (3, 5), dtype=np.uint8)
    digits = "\n".join(" ".join(map(str, row)) for row in pixels.tolist())
    plain = f"P2 # a comment\n# CREATOR: a program\n5 3\n255\n{digits}\n".encode()
    binary = b"P5 5 3 255\n" + pixels.tobytes()
    assert np.array_equal(np.asarray(open_image(ImageFile("a", plain))), pixels)
    assert np.array_equal(np.asarray(open_image(ImageFile("b", binary))), pixels)
    halved = plain.replace(b"\n255\n", b"\n510\n")
    with pytest.raises(UsageError, match="levels go up to 510"):
        open_image(ImageFile("a", halved))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "the file is empty"),
        (b"<html>not found</html>", "a web page or other text, not a picture"),
        (b"neither this nor that", "of no format that is read, not a picture"),
        (b"P2 4 4 255 1 2 3", "truncated"),
        (b"P2 4 four 255 1 2 3", "it holds b'four' where decimal digits are expected"),
        (b"P2 4", "width, height or highest level are missing"),
        (b"P5 4 4 255\nabc", "truncated"),
    ],
)
def test_a_file_that_cannot_be_opened_is_named(tmp_path, content, message):
    good, bad = tmp_path / "good.pgm", tmp_path / "bad.pgm"
    good.write_bytes(b"P5 2 2 255\nabcd")
    bad.write_bytes(content)
    with pytest.raises(UsageError, match=rf"1 of 2 images cannot be read:\n.*bad\.pgm: .*{message}"):
        decode([ImageFile(str(path), path) for path in (good, bad)], 2, Shape(1, 2))


def test_half_a_jpeg_and_a_missing_file_are_named(tmp_path):
    whole = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")
    files = [ImageFile("half.jpg", whole[: len(whole) // 2]), ImageFile("gone.jpg", tmp_path / "gone.jpg")]
    with pytest.raises(UsageError, match=r"(?s)half\.jpg: .*truncated.*gone\.jpg: .*No such file"):
        decode(files, 2, Shape(3, 32))


def test_sixteen_bits_are_refused():
    deep = encoded(np.full((4, 4), 40000, np.uint16), "PNG")
    with pytest.raises(UsageError, match=r"deep\.png: pixels have more than 8 bits"):
        decode([ImageFile("deep.png", deep)], 1, Shape(1, 4))


def test_more_or_fewer_files_than_promised():
    file = ImageFile("a", encoded(np.zeros((2, 2), np.uint8), "PNG"))
    for count in (1, 3):
        with pytest.raises(UsageError, match=f"{count} images were expected, and 2 are there"):
            decode([file, file], count, Shape(1, 2))


def test_a_table_gives_its_rows_with_their_lines(tmp_path):
    table = tmp_path / "t.csv"
    table.write_text('\ufeffpath,label,note\na.jpg, cat ,"two\nlines"\n\nb.jpg,dog,\n', encoding="utf-8")
    rows = read_table(table, ["path", "label"], ["identity"])
    assert [(row.number, dict(row.values)) for row in rows] == [
        (3, {"path": "a.jpg", "label": "cat"}),
        (5, {"path": "b.jpg", "label": "dog"}),
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("path,class\na,b\n", r"t\.csv has no column label; its head is path, class"),
        ("", "its head is empty"),
        ("path,label\n", "has no rows"),
        ("path,label\na,b\nc\n", r"row 3 of .*t\.csv has 1 fields; its head has 2"),
        ("path,label\na,b,c\n", r"row 2 of .*t\.csv has 3 fields"),
        ("path,label\n\xff", "cannot be read as a table"),
    ],
)
def test_a_wrong_table_says_where(tmp_path, text, message):
    table = tmp_path / "t.csv"
    table.write_bytes(text.encode("latin-1"))
    with pytest.raises(UsageError, match=message):
        read_table(table, ["path", "label"])
    with pytest.raises(UsageError, match="cannot be read as a table"):
        read_table(tmp_path / "none.csv", ["path"])


def test_rows_that_name_no_file_are_listed(tmp_path):
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.jpg").write_bytes(b"")
    table = tmp_path / "t.csv"
    table.write_text("path\na.jpg\n" + "".join(f"gone{n}.jpg\n" for n in range(12)), encoding="utf-8")
    rows = read_table(table, ["path"])
    with pytest.raises(UsageError, match=r"(?s)row 3 of .*t\.csv names no file: .*gone0\.jpg\n.*and 2 more"):
        files_of_rows(table, rows, tmp_path / "images", "path")
    assert files_of_rows(table, rows[:1], tmp_path / "images", "path")[0].content == tmp_path / "images" / "a.jpg"


def test_image_paths_are_sorted_and_pass_over_what_is_hidden(tmp_path):
    for name in ("b/2.JPG", "a/1.png", "a/.DS_Store", ".cache/3.png", "a/notes.txt", "a/._1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in image_paths(tmp_path)] == ["a/1.png", "b/2.JPG"]


def test_the_digest_sees_names_and_contents(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    first = content_digest(tmp_path, [a, b])
    assert first == content_digest(tmp_path, [a, b])
    a.write_bytes(b"3")
    assert content_digest(tmp_path, [a, b]) != first
    with pytest.raises(UsageError, match="cannot be read"):
        content_digest(tmp_path, [tmp_path / "c"])


def test_a_tensor_may_lie_in_a_file(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (300, 4, 4, 3), dtype=np.uint8)
    files = [ImageFile(f"{row}", encoded(pixels, "PNG"), 299 - row) for row, pixels in enumerate(colors)]
    decode(files, 300, Shape(3, 4), tmp_path / "images.npy")
    assert np.array_equal(np.load(tmp_path / "images.npy"), colors[::-1].transpose(0, 3, 1, 2))


def test_what_was_decoded_once_is_kept():
    made = []

    def make(_):
        made.append(1)
        return {"images": np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2), "labels": np.array([3])}

    first, second = kept({"of": "this"}, make), kept({"of": "this"}, make)
    kept({"of": "that"}, make)
    assert len(made) == 2
    assert first["labels"].tolist() == second["labels"].tolist() == [3]
    assert np.array_equal(first["images"], second["images"])
    with pytest.raises(ValueError, match="read-only"):
        second["images"][0] = 0


def test_what_is_transparent_is_shown_over_white():
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[..., :3] = 40
    pixels[0, :, 3], pixels[1, :, 3] = 0, 127
    shown = decode([ImageFile("a", encoded(pixels, "PNG"))], 1, Shape(3, 4))[0, 0, :, 0].tolist()
    assert shown == [255, round(40 * 127 / 255 + 255 * 128 / 255), 40, 40]
    palette = PIL.Image.fromarray(np.zeros((4, 4), np.uint8), "L").convert("P")
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=0)
    assert decode([ImageFile("p", stream.getvalue())], 1, Shape(1, 4)).min() == 255


@pytest.mark.parametrize("kept_from", [1, 1000])
def test_pictures_that_cannot_be_read_are_left_out_where_problems_are_collected(tmp_path, monkeypatch, kept_from):
    monkeypatch.setattr("forgetbench.datasets._files.KEEP_FROM", kept_from)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        pixels = np.full((2, 2, 4), 10 * number, np.uint8)
        pixels[..., 3] = 0 if number == 4 else 255
        path.write_bytes(encoded(pixels, "PNG"))
    whole: list[Problem] = []
    assert resident(tmp_path, paths, Shape(1, 2), whole).rows.tolist() == [0, 1, 2, 3, 4]
    whole.clear()
    resident(tmp_path, paths, Shape(1, 2), whole)  # also where the pictures come out of the store
    assert [(one.name, one.serious) for one in whole] == [("transparent", False)]
    assert "shown over white: 4.png" in whole[0].where
    paths[1].write_bytes(b"")
    problems: list[Problem] = []
    images, rows = resident(tmp_path, paths, Shape(1, 2), problems)
    assert rows.tolist() == [0, 2, 3, 4]
    assert images[:, 0, 0, 0].tolist() == [0, 20, 30, 255]
    assert [one.name for one in problems] == ["unreadable image", "transparent"]
    with pytest.raises(FileProblems, match=r"1\.png: the file is empty"):
        resident(tmp_path, paths, Shape(1, 2))


@pytest.mark.parametrize(
    ("text", "fix"),
    [
        ("path;label\na;b\n", "commas between the fields; here they are separated by ';'"),
        ("path,class\na,b\n", "name the columns path, label"),
        ("path,label\na,b,c\n", "a field with a comma in it into double quotes"),
        ("path,label\na,b\xe4r\n", "in UTF-8"),
        ("path,label\n", "Add a row for every image"),
    ],
)
def test_what_to_do_about_a_wrong_table_fits_it(tmp_path, text, fix):
    (tmp_path / "t.csv").write_bytes(text.encode("latin-1"))
    with pytest.raises(FileProblems) as raised:
        read_table(tmp_path / "t.csv", ["path", "label"])
    assert fix in raised.value.problems[0].fix
    assert fix in str(raised.value)


def test_files_elsewhere_have_a_digest_too(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    assert content_digest(tmp_path / "set", [tmp_path / "a"]) != content_digest(tmp_path, [tmp_path / "a"])
