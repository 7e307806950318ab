from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from irstd.errors import InputError
from irstd.frames import list_images, list_labelled, read_frame, read_list, read_mask, to_grey


def write(path: Path, image: NDArray[np.generic]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(cv2.imencode(path.suffix, image)[1].tobytes())
    return path


@pytest.fixture
def grey(rng: np.random.Generator) -> NDArray[np.uint8]:
    return rng.integers(0, 256, (12, 17), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".tiff", ".bmp", ".pgm", ".PNG"])
def test_lossless_formats_return_the_very_levels(
    tmp_path: Path, grey: NDArray[np.uint8], suffix: str
) -> None:
    got = read_frame(write(tmp_path / f"a{suffix}", grey))
    assert got.dtype == np.uint8
    assert np.array_equal(got, grey)


@pytest.mark.parametrize("suffix", [".png", ".tif", ".pgm"])
def test_sixteen_bits_are_kept(tmp_path: Path, rng: np.random.Generator, suffix: str) -> None:
    deep = rng.integers(0, 1 << 16, (9, 8), np.uint16)
    got = read_frame(write(tmp_path / f"a{suffix}", deep))
    assert got.dtype == np.uint16
    assert np.array_equal(got, deep)


def test_jpeg_is_close(tmp_path: Path) -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 3, (64, 1))
    got = read_frame(write(tmp_path / "a.jpg", ramp))
    assert np.abs(got.astype(int) - ramp).max() <= 3


@pytest.mark.parametrize("channels", [3, 4])
def test_equal_channels_are_grey(tmp_path: Path, grey: NDArray[np.uint8], channels: int) -> None:
    image = np.dstack([grey] * 3 + [np.full_like(grey, 255)] * (channels - 3))
    got = read_frame(write(tmp_path / "a.png", image))
    assert got.shape == grey.shape
    assert np.array_equal(got, grey)


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_differing_channel_is_a_coloured_image(grey: NDArray[np.uint8], channel: int) -> None:
    image = np.dstack([grey] * 3)
    image[3, 4, channel] ^= 1
    with pytest.raises(InputError, match=r"here\.png: a coloured image"):
        to_grey(image, "here.png")


def test_a_mask_is_what_lies_above_half_of_the_types_maximum(tmp_path: Path) -> None:
    eight = np.array([[0, 127, 128, 255]], np.uint8)
    deep = np.array([[255, 32767, 32768, 65535]], np.uint16)
    for name, image in (("a.png", eight), ("b.png", deep)):
        assert read_mask(write(tmp_path / name, image)).tolist() == [[False, False, True, True]]


def test_images_come_in_name_order_without_other_and_hidden_files(
    tmp_path: Path, grey: NDArray[np.uint8]
) -> None:
    for name in ("b.png", "a.PNG", "c.tif", "._a.png"):
        write(tmp_path / name, grey)
    (tmp_path / "notes.txt").write_text("x")
    assert [path.name for path in list_images(tmp_path)] == ["a.PNG", "b.png", "c.tif"]


def test_a_list_ignores_suffixes_empty_lines_and_repetitions(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("b.png\r\n\n  a \nb\nv1.5\n")
    assert read_list(path) == ["b", "a", "v1.5"]


@pytest.fixture
def folder(tmp_path: Path, grey: NDArray[np.uint8]) -> Path:
    for stem in ("a", "b", "c"):
        write(tmp_path / "data" / "images" / f"{stem}.png", grey)
        write(tmp_path / "data" / "masks" / f"{stem}.png", grey)
    return tmp_path / "data"


def test_a_data_folder_pairs_images_and_masks(folder: Path) -> None:
    files = list_labelled(folder, masks_required=True)
    assert [file.stem for file in files] == ["a", "b", "c"]
    assert all(f.mask == folder / "masks" / f.image.name for f in files)


def test_a_list_restricts_and_orders(folder: Path) -> None:
    chosen = folder / "val.txt"
    chosen.write_text("c\na.png\n")
    assert [file.stem for file in list_labelled(folder, chosen)] == ["c", "a"]


def test_a_mask_may_have_another_suffix(folder: Path, grey: NDArray[np.uint8]) -> None:
    (folder / "masks" / "a.png").unlink()
    write(folder / "masks" / "a.bmp", grey)
    assert list_labelled(folder)[0].mask == folder / "masks" / "a.bmp"


def test_a_plain_folder_of_images_is_unlabelled_data(folder: Path) -> None:
    files = list_labelled(folder / "images")
    assert [(file.stem, file.mask) for file in files] == [("a", None), ("b", None), ("c", None)]


def test_masks_are_asked_for_only_of_listed_images(folder: Path) -> None:
    (folder / "masks" / "b.png").unlink()
    chosen = folder / "val.txt"
    chosen.write_text("a\nc\n")
    assert len(list_labelled(folder, chosen, masks_required=True)) == 2
    with pytest.raises(InputError, match="1 images have no mask, first 'b'"):
        list_labelled(folder)
