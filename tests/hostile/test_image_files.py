"""Image, list and mask files that nobody should have written: one line each, naming the file."""

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.frames import list_images, list_labelled, read_frame, read_list, read_mask

GREY = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)


def encoded(suffix: str, image: NDArray[np.generic] = GREY) -> bytes:
    return bytes(cv2.imencode(suffix, image)[1].tobytes())


def chunk(kind: bytes, data: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + checksum


def png_of_size(width: int, height: int) -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )


def flipped(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


PNG = encoded(".png")
COLOUR = np.dstack([GREY, GREY, 255 - GREY])

HOSTILE = {
    "zero bytes.png": (b"", "not a readable image"),
    "text.png": (b"these are not the pixels you are looking for\n" * 20, "not a readable image"),
    "signature only.png": (PNG[:8], "cut off"),
    "half a header.png": (PNG[:20], "cut off"),
    "half.png": (PNG[: len(PNG) // 2], "cut off"),
    "last byte missing.png": (PNG[:-1], "cut off"),
    "end chunk missing.png": (PNG[:-12], "cut off"),
    "bit flipped in header.png": (flipped(PNG, 18), "checksum"),
    "bit flipped in pixels.png": (flipped(PNG, len(PNG) // 2), "checksum"),
    "chunk of 4 GB.png": (PNG[:33] + b"\xff\xff\xff\xff" + PNG[37:], "cut off"),
    "huge.png": (png_of_size(100_000, 100_000), "100000x100000"),
    "largest.png": (png_of_size(2**31 - 1, 2**31 - 1), "not a readable image"),
    "no width.png": (png_of_size(0, 64), "0x64"),
    "coloured.png": (encoded(".png", COLOUR), "a coloured image"),
    "float.tif": (encoded(".tif", GREY.astype(np.float32) / 255), "float32"),
    "double.tif": (encoded(".tif", GREY.astype(np.float64) / 255), "float64"),
    "half.bmp": (encoded(".bmp")[:2000], "not a readable image"),
    "half.pgm": (encoded(".pgm")[:30], "not a readable image"),
    "a png inside.bmp": (PNG[: len(PNG) // 2], "cut off"),
    "script.png": (b"#!/bin/sh\nexit 1\n", "not a readable image"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_bad_image_is_one_line_that_names_the_file(tmp_path: Path, name: str) -> None:
    data, wanted = HOSTILE[name]
    path = tmp_path / name
    path.write_bytes(data)
    for read in (read_frame, read_mask):
        with pytest.raises(InputError, match=wanted) as caught:
            read(path)
        assert str(caught.value).startswith(str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in HOSTILE if name.endswith(".png")])
def test_nothing_is_printed_beside_the_error(
    tmp_path: Path, name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / name).write_bytes(HOSTILE[name][0])
    with pytest.raises(InputError):
        read_frame(tmp_path / name)
    assert capfd.readouterr() == ("", "")


def test_every_truncation_of_a_png_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    small = encoded(".png", GREY[:5, :7])
    for length in range(len(small)):
        path.write_bytes(small[:length])
        with pytest.raises(InputError, match="not a readable image"):
            read_frame(path)


def test_every_flipped_bit_of_a_png_is_refused_or_harmless(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    small = encoded(".png", GREY[:5, :7])
    for at in range(len(small)):
        path.write_bytes(flipped(small, at))
        with pytest.raises(InputError):
            read_frame(path)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="No such file"):
        read_frame(tmp_path / "absent.png")


def test_a_folder_named_like_an_image(tmp_path: Path) -> None:
    (tmp_path / "x.png").mkdir()
    assert list_images(tmp_path) == [tmp_path / "x.png"]
    with pytest.raises(InputError, match=r"x\.png: cannot be read \(Is a directory\)"):
        read_frame(tmp_path / "x.png")


def test_a_broken_link_is_listed_and_named_when_read(tmp_path: Path) -> None:
    (tmp_path / "x.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(InputError, match=r"x\.png"):
        read_frame(list_images(tmp_path)[0])


@pytest.fixture
def data(tmp_path: Path) -> Path:
    for kind in ("images", "masks"):
        (tmp_path / "data" / kind).mkdir(parents=True)
        for stem in ("a", "b"):
            (tmp_path / "data" / kind / f"{stem}.png").write_bytes(PNG)
    return tmp_path / "data"


def test_folders_without_images(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not a readable folder"):
        list_images(tmp_path / "absent")
    with pytest.raises(InputError, match="no images"):
        list_images(tmp_path)
    (tmp_path / "file.png").write_bytes(PNG)
    with pytest.raises(InputError, match="not a readable folder"):
        list_images(tmp_path / "file.png")


def test_an_empty_images_folder_is_not_replaced_by_its_parent(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "stray.png").write_bytes(PNG)
    with pytest.raises(InputError, match="images: no images"):
        list_labelled(tmp_path)


def test_masks_that_are_missing(data: Path) -> None:
    (data / "masks" / "b.png").unlink()
    with pytest.raises(InputError, match="first 'b'"):
        list_labelled(data)
    (data / "masks" / "a.png").unlink()
    with pytest.raises(InputError, match="masks: no images"):
        list_labelled(data)
    (data / "masks").rmdir()
    assert [file.mask for file in list_labelled(data)] == [None, None]
    with pytest.raises(InputError, match="no masks/ folder"):
        list_labelled(data, masks_required=True)


@pytest.mark.parametrize("kind", ["images", "masks"])
def test_two_files_of_one_stem_are_not_chosen_between(data: Path, kind: str) -> None:
    (data / kind / "a.bmp").write_bytes(encoded(".bmp"))
    with pytest.raises(InputError, match=r"a\.png: a\.bmp has the same stem"):
        list_labelled(data)


@pytest.mark.parametrize(
    ("content", "wanted"),
    [
        (b"", "an empty list"),
        (b"\n \n\t\n", "an empty list"),
        (bytes(range(256)), "not text"),
        (PNG, "not text"),
        (b"a\nzebra\nyak\n", "2 stems are not in .*first 'zebra'"),
        (b"../images/a\n", r"1 stems are not in .*first '\.\./images/a'"),
        (b"\x00\x00\x00\x00", r"1 stems are not in .*first '\\x00"),
        (b"x" * 1_000_000, "1 stems are not in .*first 'x{60}'$"),
    ],
)
def test_a_bad_list_is_one_line_that_names_it(data: Path, content: bytes, wanted: str) -> None:
    path = data / "list.txt"
    path.write_bytes(content)
    with pytest.raises(InputError, match=wanted) as caught:
        list_labelled(data, path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_a_list_that_is_not_there_or_a_folder(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.txt", tmp_path):
        with pytest.raises(InputError, match="cannot be read"):
            read_list(path)
