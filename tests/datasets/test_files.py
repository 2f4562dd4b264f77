import io
import os
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps
import pytest

from forgetbench.datasets._files import (
    ImageFile,
    TargetShape,
    cached_arrays,
    content_digest,
    decode_images,
    find_images,
    is_image,
    load_images,
    open_image,
    walk_folder,
)
from forgetbench.datasets.problems import ImageSetError, Problem
from forgetbench.errors import UsageError


def encoded(pixels: np.ndarray, kind: str, **options) -> bytes:
    stream = io.BytesIO()
    PIL.Image.fromarray(pixels).save(stream, kind, **options)
    return stream.getvalue()


@pytest.fixture
def colors():
    return np.random.default_rng(0).integers(0, 256, (700, 4, 4, 3), dtype=np.uint8)


def test_decode_lossless_images_keeps_order_and_pixels(colors):
    files = (ImageFile(str(place), encoded(image, "PNG")) for place, image in enumerate(colors))
    assert np.array_equal(decode_images(files, 700, TargetShape(3, 4)), colors.transpose(0, 3, 1, 2))


def test_decode_reduces_by_area_mean():
    pixels = np.random.default_rng(1).integers(0, 256, (12, 8), dtype=np.uint8)
    small = decode_images([ImageFile("a", encoded(pixels, "PNG"))], 1, TargetShape(1, 4))[0, 0]
    assert np.abs(small - pixels.reshape(4, 3, 4, 2).mean(axis=(1, 3))).max() < 1  # two passes, each rounded


def test_decode_crop_takes_middle_square():
    pixels = np.zeros((4, 10), dtype=np.uint8)
    pixels[:, 3:7] = np.arange(16).reshape(4, 4)
    cropped = decode_images([ImageFile("a", encoded(pixels, "PNG"))], 1, TargetShape(1, 4, "crop"))[0, 0]
    assert np.array_equal(cropped, np.arange(16).reshape(4, 4))


def test_decode_converts_between_gray_and_color():
    gray = np.arange(16, dtype=np.uint8).reshape(4, 4)
    assert np.array_equal(
        decode_images([ImageFile("a", encoded(gray, "PNG"))], 1, TargetShape(3, 4))[0], np.stack([gray] * 3)
    )
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 200
    assert decode_images([ImageFile("a", encoded(red, "PNG"))], 1, TargetShape(1, 4))[0, 0, 0, 0] == round(200 * 0.299)


def test_decode_applies_exif_orientation():
    pixels = np.zeros((4, 4), np.uint8)
    pixels[0] = 255
    image = PIL.Image.fromarray(pixels)
    exif = image.getexif()
    exif[0x0112] = 3  # taken upside down
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    assert decode_images([ImageFile("a", stream.getvalue())], 1, TargetShape(1, 4))[0, 0, :, 0].tolist() == [
        0,
        0,
        0,
        255,
    ]


def test_open_image_reads_plain_pgm_like_binary():
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
        (b"<html>not found</html>", "a web page or other text, not an image"),
        (b"neither this nor that", "its format is not supported"),
        (b"P2 4 4 255 1 2 3", "truncated"),
        (b"P2 4 four 255 1 2 3", "it contains b'four' where decimal digits are expected"),
        (b"P2 4", "width, height or highest level are missing"),
        (b"P5 4 4 255\nabc", "truncated"),
    ],
)
def test_decode_unreadable_file_error_names_it(tmp_path, content, message):
    good, bad = tmp_path / "good.pgm", tmp_path / "bad.pgm"
    good.write_bytes(b"P5 2 2 255\nabcd")
    bad.write_bytes(content)
    with pytest.raises(UsageError, match=rf"1 of 2 images cannot be read:\n.*bad\.pgm: .*{message}"):
        decode_images([ImageFile(str(path), path) for path in (good, bad)], 2, TargetShape(1, 2))


def test_decode_truncated_or_missing_file_error_names_it(tmp_path):
    whole = encoded(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8), "JPEG")
    files = [ImageFile("half.jpg", whole[: len(whole) // 2]), ImageFile("missing.jpg", tmp_path / "missing.jpg")]
    with pytest.raises(UsageError, match=r"(?s)half\.jpg: .*truncated.*missing\.jpg: .*No such file"):
        decode_images(files, 2, TargetShape(3, 32))


def test_decode_refuses_16_bit_images():
    deep = encoded(np.full((4, 4), 40000, np.uint16), "PNG")
    with pytest.raises(UsageError, match=r"deep\.png: pixels have more than 8 bits"):
        decode_images([ImageFile("deep.png", deep)], 1, TargetShape(1, 4))


def test_decode_refuses_wrong_number_of_files():
    file = ImageFile("a", encoded(np.zeros((2, 2), np.uint8), "PNG"))
    for count in (1, 3):
        with pytest.raises(UsageError, match=f"Expected {count} images, but there are 2"):
            decode_images([file, file], count, TargetShape(1, 2))


def test_find_images_sorts_and_ignores_hidden_files(tmp_path):
    for name in ("b/2.JPG", "a/1.png", "a/.DS_Store", ".cache/3.png", "a/notes.txt", "a/._1.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    assert [path.relative_to(tmp_path).as_posix() for path in find_images(tmp_path, [])] == ["a/1.png", "b/2.JPG"]


def test_content_digest_covers_names_and_contents(tmp_path):
    a, b = tmp_path / "a", tmp_path / "b"
    a.write_bytes(b"1")
    b.write_bytes(b"2")
    first = content_digest(tmp_path, [a, b])
    assert first == content_digest(tmp_path, [a, b])
    a.write_bytes(b"3")
    assert content_digest(tmp_path, [a, b]) != first
    with pytest.raises(UsageError, match="cannot be read"):
        content_digest(tmp_path, [tmp_path / "c"])


def test_decode_writes_tensor_to_file(tmp_path):
    colors = np.random.default_rng(0).integers(0, 255, (300, 4, 4, 3), dtype=np.uint8)
    files = [ImageFile(f"{row}", encoded(pixels, "PNG"), 299 - row) for row, pixels in enumerate(colors)]
    decode_images(files, 300, TargetShape(3, 4), tmp_path / "images.npy")
    assert np.array_equal(np.load(tmp_path / "images.npy"), colors[::-1].transpose(0, 3, 1, 2))


def test_cached_arrays_are_made_once_and_read_only():
    made = []

    def make(_):
        made.append(1)
        return {"images": np.arange(12, dtype=np.uint8).reshape(1, 3, 2, 2), "labels": np.array([3])}

    first, second = cached_arrays({"of": "this"}, make), cached_arrays({"of": "this"}, make)
    cached_arrays({"of": "that"}, make)
    assert len(made) == 2
    assert first["labels"].tolist() == second["labels"].tolist() == [3]
    assert np.array_equal(first["images"], second["images"])
    with pytest.raises(ValueError, match="read-only"):
        second["images"][0] = 0


def test_decode_shows_transparent_pixels_over_white():
    pixels = np.full((4, 4, 4), 255, np.uint8)
    pixels[..., :3] = 40
    pixels[0, :, 3], pixels[1, :, 3] = 0, 127
    shown = decode_images([ImageFile("a", encoded(pixels, "PNG"))], 1, TargetShape(3, 4))[0, 0, :, 0].tolist()
    assert shown == [255, round(40 * 127 / 255 + 255 * 128 / 255), 40, 40]
    palette = PIL.Image.fromarray(np.zeros((4, 4), np.uint8), "L").convert("P")
    stream = io.BytesIO()
    palette.save(stream, "PNG", transparency=0)
    assert decode_images([ImageFile("p", stream.getvalue())], 1, TargetShape(1, 4)).min() == 255


@pytest.mark.parametrize("kept_from", [1, 1000])
def test_load_images_skips_unreadable_files_and_reports_them(tmp_path, monkeypatch, kept_from):
    monkeypatch.setattr("forgetbench.datasets._files.CACHE_MIN_IMAGES", kept_from)
    paths = [tmp_path / f"{number}.png" for number in range(5)]
    for number, path in enumerate(paths):
        pixels = np.full((2, 2, 4), 10 * number, np.uint8)
        pixels[..., 3] = 0 if number == 4 else 255
        path.write_bytes(encoded(pixels, "PNG"))
    whole: list[Problem] = []
    assert load_images(tmp_path, paths, TargetShape(1, 2), whole).rows.tolist() == [0, 1, 2, 3, 4]
    whole.clear()
    load_images(tmp_path, paths, TargetShape(1, 2), whole)  # this time from the store
    assert [(problem.kind, problem.serious) for problem in whole] == [("transparent", False)]
    assert "shown over white: 4.png" in whole[0].message
    paths[1].write_bytes(b"")
    problems: list[Problem] = []
    images, rows = load_images(tmp_path, paths, TargetShape(1, 2), problems)
    assert rows.tolist() == [0, 2, 3, 4]
    assert images[:, 0, 0, 0].tolist() == [0, 20, 30, 255]
    assert [problem.kind for problem in problems] == ["unreadable image", "transparent"]
    with pytest.raises(ImageSetError, match=r"1\.png: the file is empty"):
        load_images(tmp_path, paths, TargetShape(1, 2))


def test_content_digest_accepts_files_outside_folder(tmp_path):
    (tmp_path / "set").mkdir()
    (tmp_path / "a").write_bytes(b"1")
    assert content_digest(tmp_path / "set", [tmp_path / "a"]) != content_digest(tmp_path, [tmp_path / "a"])


def test_decode_turns_by_orientation_alone():
    """EXIF with an entry of a wrong type (XResolution as UNDEFINED), which Pillow cannot write again."""
    pixels = np.arange(64, dtype=np.uint8).reshape(8, 8) * 3
    jpeg = encoded(pixels, "JPEG", quality=95)
    entries = [struct.pack("<HHI4s", 0x0112, 3, 1, b"\6\0\0\0"), struct.pack("<HHI4s", 0x011A, 7, 4, b"abcd")]
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + b"".join(entries) + b"\0\0\0\0"
    turned = jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:]
    plain, read = (decode_images([ImageFile("a", content)], 1, TargetShape(1, 8))[0, 0] for content in (jpeg, turned))
    assert np.array_equal(read, np.rot90(plain, -1))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_decode_orientations_are_those_of_pillow(orientation):
    image = PIL.Image.fromarray(np.random.default_rng(0).integers(0, 256, (6, 6, 3), dtype=np.uint8))
    exif = image.getexif()
    exif[0x0112] = orientation
    stream = io.BytesIO()
    image.save(stream, "PNG", exif=exif)
    expected = np.asarray(PIL.ImageOps.exif_transpose(PIL.Image.open(stream)))
    assert np.array_equal(np.asarray(open_image(ImageFile("a", stream.getvalue()))), expected)


def test_decode_damaged_metadata_is_named_once(tmp_path, capfd):
    """Pillow's warning becomes a problem with the name of the file, in memory and from the store."""
    pixels = np.zeros((4, 4), np.uint8)
    jpeg = encoded(pixels, "JPEG")
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<HHHII", 9, 0x010F, 2, 1000, 0xFFFF)
    (tmp_path / "a.jpg").write_bytes(jpeg[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + jpeg[2:])
    (tmp_path / "b.jpg").write_bytes(jpeg)
    paths = [tmp_path / "a.jpg", tmp_path / "b.jpg"]
    problems: list[Problem] = []
    load_images(tmp_path, paths, TargetShape(1, 4), problems)
    assert [(problem.kind, problem.serious) for problem in problems] == [("doubtful image", False)]
    assert problems[0].message == "a.jpg: its metadata are damaged, so that it may not be upright"
    assert capfd.readouterr() == ("", "")


def test_walk_folder_follows_links_and_names_broken_ones(tmp_path):
    base, other = tmp_path / "set", tmp_path / "other"
    for path in (base / "a" / "1.png", other / "2.png", other / "deep" / "3.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (base / "b").symlink_to(other, target_is_directory=True)
    (base / "a" / "4.png").symlink_to(other / "2.png")
    (base / "a" / "up").symlink_to(tmp_path, target_is_directory=True)
    (other / "deep" / "back").symlink_to(base, target_is_directory=True)
    (base / "c").symlink_to(tmp_path / "gone")
    (base / "self.png").symlink_to(base / "self.png")
    contents = walk_folder(base)
    names = ["a/1.png", "a/4.png", "b/2.png", "b/deep/3.png"]
    assert [path.relative_to(base).as_posix() for path in contents.files] == names
    assert [path.relative_to(base).as_posix() for path in contents.folders] == ["a", "b", "b/deep"]
    found = [(problem.kind, problem.message, problem.serious) for problem in contents.problems]
    assert found == [
        ("broken link", f"{base}/c is a link to {tmp_path}/gone, which does not exist", True),
        ("broken link", f"{base}/self.png is a link to {base}/self.png, which does not exist", True),
        ("link loop", f"{base}/a/up is a link to {tmp_path}, which contains it, and is not followed", False),
        ("link loop", f"{base}/b/deep/back is a link to {base}, which contains it, and is not followed", False),
    ]


def test_walk_folder_refuses_names_that_are_not_utf8(tmp_path):
    for name in (b"b\xe9b\xe9", b"tea"):
        (tmp_path / os.fsdecode(name)).mkdir()
    for name in (b"b\xe9b\xe9/1.png", b"tea/\xff.png", b"tea/\xff.txt", b"tea/2.png"):
        (tmp_path / os.fsdecode(name)).touch()
    contents = walk_folder(tmp_path)
    assert [path.name for path in contents.files if is_image(path)] == ["2.png"]
    assert [problem.message for problem in contents.problems] == [
        rf"the name of {tmp_path}/b\udce9b\udce9 is not in UTF-8",
        rf"the name of {tmp_path}/tea/\udcff.png is not in UTF-8",
    ]
    assert all(problem.serious and "Rename it" in problem.fix for problem in contents.problems)


def test_decode_broken_link_error_names_its_target(tmp_path):
    (tmp_path / "a.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UsageError, match=r"a\.png: it is a link to .*gone\.png, which does not exist"):
        open_image(ImageFile("a.png", tmp_path / "a.png"))


def test_decode_damaged_tiff_prints_nothing(tmp_path, capfd):
    """Messages of libtiff go to standard error without the name of the file."""
    pixels = np.random.default_rng(0).integers(0, 256, (12, 12, 3), dtype=np.uint8)
    content = bytearray(encoded(pixels, "TIFF", compression="tiff_lzw"))
    content[8:60] = b"\xff" * 52  # the first codes of LZW
    with pytest.raises(UsageError, match=r"a\.tif: it is damaged"):
        open_image(ImageFile("a.tif", bytes(content)))
    os.write(2, b"restored")
    assert capfd.readouterr() == ("", "restored")
