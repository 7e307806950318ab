import cv2
import numpy as np
import pytest

from irstd.errors import InputError
from irstd.runtime.sources import open_source

COUNT = 12


def moving_frames():
    """Dark noisy 64x48 frames with a bright block that moves by four pixels a frame."""
    rng = np.random.default_rng(0)
    for index in range(COUNT):
        frame = rng.integers(20, 60, (48, 64), np.uint8)
        frame[20:24, 4 * index : 4 * index + 4] = 200
        yield frame


def write_video(path, codec, pictures):
    pictures = list(pictures)
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(
        str(path), cv2.VideoWriter.fourcc(*codec), 30, (width, height), pictures[0].ndim == 3
    )
    if not writer.isOpened():
        pytest.skip(f"this OpenCV cannot write {codec}")
    for picture in pictures:
        writer.write(picture)
    writer.release()
    return path


def write_images(folder, suffixes=(".png",)):
    folder.mkdir(parents=True)
    for index, frame in enumerate(moving_frames()):
        cv2.imwrite(str(folder / f"f{index:03d}{suffixes[index % len(suffixes)]}"), frame)
    return folder


def cut(path, share):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * share)])
    return path


def test_a_folder_is_its_images_in_name_order(tmp_path):
    source = open_source(write_images(tmp_path / "clip", (".png", ".bmp", ".tif", ".pgm")))
    assert source.frame_count == COUNT
    for index, (got, wanted) in enumerate(zip(source.frames(), moving_frames(), strict=True)):
        np.testing.assert_array_equal(got, wanted)
        assert source.name_of(index).startswith(f"f{index:03d}.")
        assert source.stem_of(index) == f"f{index:03d}"


def test_a_data_folder_is_its_images(tmp_path):
    write_images(tmp_path / "data" / "images")
    assert open_source(tmp_path / "data").frame_count == COUNT


def test_images_that_share_a_stem_get_names_that_differ(tmp_path):
    for name in ("a.png", "a.tif", "b.png"):
        cv2.imwrite(str(tmp_path / name), np.zeros((4, 4), np.uint8))
    source = open_source(tmp_path)
    assert len({source.stem_of(index) for index in range(3)}) == 3


def test_one_image_is_a_source(tmp_path):
    image = np.arange(12, dtype=np.uint16).reshape(3, 4) * 4000
    cv2.imwrite(str(tmp_path / "one.png"), image)
    (frame,) = open_source(tmp_path / "one.png").frames()
    np.testing.assert_array_equal(frame, image)


def test_frames_are_read_when_they_are_asked_for(tmp_path):
    folder = write_images(tmp_path / "clip")
    frames = open_source(folder).frames()
    next(frames)
    (folder / "f001.png").write_bytes(b"no longer an image")
    with pytest.raises(InputError, match=r"f001\.png"):
        next(frames)


@pytest.mark.parametrize("suffix", [".avi", ".mkv"])
def test_a_lossless_video_is_its_frames(tmp_path, suffix):
    source = open_source(write_video(tmp_path / f"clip{suffix}", "FFV1", moving_frames()))
    assert source.frame_count == COUNT
    for got, wanted in zip(source.frames(), moving_frames(), strict=True):
        np.testing.assert_array_equal(got, wanted)
    assert len(list(source.frames())) == COUNT, "a source can be read again"


@pytest.mark.parametrize(("suffix", "codec"), [(".avi", "MJPG"), (".mp4", "mp4v")])
def test_a_lossy_grey_video_is_grey(tmp_path, suffix, codec):
    source = open_source(write_video(tmp_path / f"clip{suffix}", codec, moving_frames()))
    frames = list(source.frames())
    assert len(frames) == COUNT
    for frame, wanted in zip(frames, moving_frames(), strict=True):
        assert frame.dtype == np.uint8
        assert frame.shape == wanted.shape
        assert np.abs(frame.astype(int) - wanted).mean() < 12


def coloured(apart):
    for frame in moving_frames():
        picture = cv2.cvtColor(frame, cv2.COLOR_GRAY2BGR)
        picture[5, 5, 2] += apart
        yield picture


def test_rounding_between_channels_is_grey_and_colour_is_not(tmp_path):
    def lossless(name, apart):
        return open_source(write_video(tmp_path / name, "FFV1", coloured(apart))).frames()

    assert len(list(lossless("near.avi", 8))) == COUNT
    with pytest.raises(InputError, match="frame 0 is coloured") as caught:
        list(lossless("far.avi", 60))
    assert "far.avi" in str(caught.value)


def read_until_error(frames):
    got = []
    try:
        for frame in frames:
            got.append(frame.copy())  # noqa: PERF401, kept when the video ends
    except InputError as error:
        return got, error
    return got, None


@pytest.mark.parametrize("codec", ["FFV1", "MJPG"])
@pytest.mark.parametrize("share", [0.4, 0.7])
def test_a_video_cut_inside_a_frame_gives_whole_frames_and_then_says_so(tmp_path, codec, share):
    whole = open_source(write_video(tmp_path / "whole.avi", codec, moving_frames())).frames()
    wanted = [frame.copy() for frame in whole]
    path = cut(write_video(tmp_path / "cut.avi", codec, moving_frames()), share)
    got, error = read_until_error(open_source(path).frames())
    assert 0 < len(got) < COUNT
    assert f"of {COUNT} frames decode" in str(error)
    assert f"the first {len(got)} were used" in str(error)
    for frame, original in zip(got, wanted, strict=False):
        np.testing.assert_array_equal(frame, original)


def test_a_video_without_its_index_is_refused(tmp_path):
    path = cut(write_video(tmp_path / "clip.mp4", "mp4v", moving_frames()), 0.5)
    with pytest.raises(InputError, match="not a readable video"):
        open_source(path)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.avi", b"", "not a readable video"),
        ("noise.mp4", bytes(range(256)) * 40, "not a readable video"),
        ("notes.txt", b"hello", "wanted a folder or one of png"),
        ("frames.raw", b"\x00" * 100, "not a known kind of file"),
    ],
)
def test_other_files_are_refused_by_name(tmp_path, name, content, words):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        open_source(tmp_path / name)
    assert name in str(caught.value)


def test_missing_and_empty_places_are_refused(tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        open_source(tmp_path / "nowhere")
    with pytest.raises(InputError, match="no images in it"):
        open_source(tmp_path)
