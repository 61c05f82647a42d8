"""Image files read as gray levels, as color and as squares, and the files that are refused."""

import io
import os
import zlib

import numpy as np
import pytest
from PIL import Image

from cnn_jax.data.image_io import check_size, count_frames, read_color, read_frames, read_image, read_square

# Dark on white: a wide black bar, and a gray corner that shows how the image is turned.
GRAY = np.full((20, 30), 255, np.uint8)
GRAY[5:15, 10:20] = 0
GRAY[:4, :4] = 128
LEVELS = GRAY / 127.5 - 1


def example(mode="L"):
    return Image.fromarray(GRAY).convert(mode)


@pytest.mark.parametrize(
    ("name", "mode", "tolerance"),
    [
        ("a.png", "L", 1e-6),
        ("a.png", "RGB", 1e-6),
        ("a.png", "P", 1e-6),
        ("a.png", "LA", 1e-6),
        ("a.png", "RGBA", 1e-6),
        ("a.gif", "P", 1e-6),
        ("a.bmp", "RGB", 1e-6),
        ("a.bmp", "L", 1e-6),
        ("a.tif", "L", 1e-6),
        ("a.tif", "CMYK", 1e-6),
        ("a.ppm", "RGB", 1e-6),
        ("a.webp", "RGB", 0.3),
        ("a.jpg", "L", 0.3),
        ("a.jpg", "RGB", 0.3),
        ("a.jpg", "CMYK", 0.3),
        ("no_suffix", "L", 1e-6),
    ],
)
def test_formats_and_modes(tmp_path, name, mode, tolerance):
    kind = None if "." in name else "PNG"
    example(mode).save(tmp_path / name, kind)
    levels = read_image(tmp_path / name)
    assert levels.dtype == np.float32
    assert np.abs(levels).max() <= 1
    np.testing.assert_allclose(levels, LEVELS, atol=tolerance)


def test_one_bit(tmp_path):
    black = GRAY < 100
    Image.fromarray(~black).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), np.where(black, -1, 1))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits(tmp_path, name):
    """Gray levels are relative to the whole range, whatever part of it an image has."""
    deep = 10_000 + 100 * GRAY.astype(np.uint16)
    levels = deep / 32767.5 - 1
    Image.fromarray(deep).save(tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name), levels, atol=1e-4)
    np.testing.assert_allclose(read_color(tmp_path / name)[..., 1], levels, atol=1e-4)
    squares = read_square(tmp_path / name, size=20)
    np.testing.assert_allclose(squares[..., 2], (levels[:, 5:25] + 1) * 127.5, atol=0.51)


def test_gray_levels_in_digits(tmp_path):
    (tmp_path / "a.pgm").write_text("P2 2 1 1000 250 500")
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm"), [[-0.5, 0]], atol=1e-4)


def test_animations_give_their_first_frame(tmp_path):
    example().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (30, 20), 7)])
    np.testing.assert_allclose(read_image(tmp_path / "a.gif"), LEVELS, atol=1e-6)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_pixels_are_the_opposite_of_the_strokes(tmp_path, mode, ink):
    stroke = GRAY == 0
    drawn = np.stack([np.where(stroke, ink, 77), 255 * stroke], axis=-1).astype(np.uint8)
    Image.fromarray(drawn, "LA").convert(mode).save(tmp_path / "a.png")
    expected = np.where(stroke, 1, -1) * (1 if ink else -1)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=1e-6)


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_palette_colors(tmp_path, ink):
    stroke = GRAY == 0
    image = Image.fromarray(stroke.astype(np.uint8), "P")
    image.putpalette([90, 90, 90, ink, ink, ink])
    image.save(tmp_path / "a.gif", transparency=0)
    expected = np.where(stroke, 1, -1) * (1 if ink else -1)
    np.testing.assert_allclose(read_image(tmp_path / "a.gif"), expected, atol=1e-6)


def test_half_transparent_ink_is_gray(tmp_path):
    Image.fromarray(np.full((4, 4, 2), [0, 51], np.uint8), "LA").save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), 0.6, atol=1e-6)


def test_fully_transparent_images_are_blank(tmp_path):
    Image.new("RGBA", (5, 4)).save(tmp_path / "a.png")
    levels = read_image(tmp_path / "a.png")
    assert levels.shape == (4, 5)
    assert len(np.unique(levels)) == 1


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(2, LEVELS[:, ::-1]), (3, LEVELS[::-1, ::-1]), (6, np.rot90(LEVELS, -1)), (8, np.rot90(LEVELS))],
)
def test_exif_turns_the_image(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x112] = orientation
    example().save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), turned, atol=1e-6)


def test_files_that_are_not_images_are_refused_by_name(tmp_path):
    path = tmp_path / "letter.png"
    for content in (b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"letter\.png: not a picture"):
            read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_truncated_images_are_refused_by_name(tmp_path, kind, share):
    path = tmp_path / "letter"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    Image.fromarray(noise).convert("RGB").save(path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="letter: not a picture"):
        read_image(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_damaged_images_are_read_or_refused_by_name(tmp_path, kind):
    path = tmp_path / "letter"
    rng = np.random.default_rng(0)
    example("RGB").save(path, kind)
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for position in rng.integers(0, len(content), 3):
            content[position] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert np.abs(read_image(path)).max() <= 1
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017


def write_lab(path):
    example("RGB").convert("LAB").save(path, "TIFF")


def write_palette_too_large(path):
    example("L").save(path, "BMP")
    content = bytearray(path.read_bytes())
    content[46:50] = (1000).to_bytes(4, "little")
    path.write_bytes(content)


def write_invalid_number(path):
    path.write_bytes(b"P6\n3x 2\n255\n" + bytes(18))


@pytest.mark.parametrize("write", [write_lab, write_palette_too_large, write_invalid_number])
def test_pillows_value_errors_name_the_file(tmp_path, write):
    write(tmp_path / "letter")
    with pytest.raises(ValueError, match="letter"):
        read_image(tmp_path / "letter")


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_floating_point_images_with_faults_stay_in_range(tmp_path, fault):
    levels = GRAY.astype(np.float32)
    levels[0, 0] = fault
    Image.fromarray(levels).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif")).max() <= 1


# More pixels than this package accepts, than Pillow warns of, and than Pillow accepts.
@pytest.mark.parametrize("side", [8000, 10_000, 14_000])
def test_too_many_pixels_are_refused_by_name(tmp_path, side):
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ValueError, match=r"huge\.png"):
        read_image(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"letter\.png"):
        read_image(tmp_path / "letter.png")


def test_folders_pipes_and_devices_are_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    pipe = os.open(tmp_path / "pipe", os.O_RDWR)  # otherwise opening it would wait
    os.write(pipe, b"not an image" * 10)
    for path in (tmp_path, tmp_path / "pipe", os.devnull):
        with pytest.raises(OSError, match=f"expected a file, not a folder, a pipe or a device: '{path}'"):
            read_image(path)
    os.close(pipe)


def test_open_files(tmp_path):
    example().save(tmp_path / "a.png")
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_allclose(read_image(file), LEVELS, atol=1e-6)
    np.testing.assert_allclose(read_image(io.BytesIO((tmp_path / "a.png").read_bytes())), LEVELS, atol=1e-6)


@pytest.mark.parametrize("path", [None, 3, b"a.png"])
def test_arguments_that_are_not_paths(path):
    with pytest.raises(TypeError, match=f"path: expected a path or a file, got {type(path).__name__}"):
        read_square(path, size=8)


def test_a_name_that_no_file_can_have():
    with pytest.raises(ValueError, match="a\0b: not a picture"):
        read_image("a\0b")


def test_a_file_taken_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match=r"letter\.png"):
        read_image(tmp_path / "file" / "letter.png")


def test_colors_of_one_brightness_are_told_apart(tmp_path):
    letter = np.where(GRAY[..., None] > GRAY.mean(), (255, 0, 0), (0, 130, 0)).astype(np.uint8)
    Image.fromarray(letter).save(tmp_path / "a.png")
    assert np.ptp(read_image(tmp_path / "a.png")) > 0.9


def test_32_bit_images_use_their_whole_range(tmp_path):
    Image.fromarray(GRAY.astype(np.int32) - 100_000).save(tmp_path / "a.tif")
    assert np.ptp(read_image(tmp_path / "a.tif")) == pytest.approx(2)


def test_squares_keep_the_middle_of_the_longer_side(tmp_path):
    wide = np.zeros((4, 12, 3), np.uint8)
    wide[:, 4:8] = 255
    Image.fromarray(wide).save(tmp_path / "wide.png")
    assert read_square(tmp_path / "wide.png", size=4).min() == 255


def test_squares_are_white_where_the_image_is_transparent(tmp_path):
    Image.fromarray(np.zeros((4, 4, 4), np.uint8)).save(tmp_path / "clear.png")
    assert read_square(tmp_path / "clear.png", size=2).min() == 255


def test_squares_keep_the_range_of_16_bits(tmp_path):
    Image.fromarray(np.full((4, 4), 65535, np.uint16)).save(tmp_path / "deep.png")
    assert read_square(tmp_path / "deep.png", size=2).min() == 255


@pytest.mark.parametrize(
    ("size", "message"),
    [(0, "at least 1, got 0"), (4097, "at most 4096, got 4097"), (10**8, "at most 4096, got 100000000")],
)
def test_invalid_sizes_are_refused_before_the_file_is_read(tmp_path, size, message):
    with pytest.raises(ValueError, match=f"size: expected {message}"):
        read_square(tmp_path / "none", size=size)


def test_the_largest_size():
    assert check_size(4096) == 4096


def test_nothing_is_executed_to_read_an_image(tmp_path, monkeypatch):
    """PostScript is not handed to an interpreter, whatever the file's name."""
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {tmp_path}/executed\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    (tmp_path / "a.png").write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 20 20\n%%EndComments\nshowpage\n")
    with pytest.raises(ValueError, match=r"a.png: not a picture"):
        read_square(tmp_path / "a.png", size=8)
    assert not (tmp_path / "executed").exists()


def save_pages(path, *pages, **options):
    first, *others = pages
    first.save(path, save_all=True, append_images=others, **options)


def read_arrays(path):
    """All frames of a file that has no unreadable frame."""
    frames = list(read_frames(path))
    arrays = [frame for frame in frames if isinstance(frame, np.ndarray)]
    assert len(arrays) == len(frames)
    return arrays


@pytest.mark.parametrize(
    ("name", "options"), [("a.tif", {}), ("a.gif", {}), ("a.png", {}), ("a.webp", {"lossless": True})]
)
def test_every_frame_is_read(tmp_path, name, options):
    levels = (0, 100, 255)
    save_pages(tmp_path / name, *(Image.new("RGB", (5, 4), (level, 7, 7)) for level in levels), **options)
    assert count_frames(tmp_path / name) == 3
    frames = read_arrays(tmp_path / name)
    assert [frame.dtype for frame in frames] == [np.uint8] * 3
    for frame, level in zip(frames, levels, strict=True):
        np.testing.assert_array_equal(frame, np.broadcast_to([level, 7, 7], (4, 5, 3)))


def test_frames_may_differ_in_size_colors_and_depth(tmp_path):
    deep = Image.fromarray(np.full((3, 2), 65535, np.uint16))
    color = example("RGB")
    transparent = Image.new("LA", (4, 4), (0, 0))
    save_pages(tmp_path / "a.tif", example(), color, deep, transparent, example("1"))
    gray_frame, color_frame, deep_frame, transparent_frame, bit_frame = read_arrays(tmp_path / "a.tif")
    np.testing.assert_array_equal(gray_frame, GRAY)
    np.testing.assert_array_equal(color_frame, np.stack([GRAY] * 3, -1))
    np.testing.assert_array_equal(deep_frame, np.ones((3, 2), np.float32))
    np.testing.assert_array_equal(transparent_frame, np.full((4, 4), 255, np.uint8))
    assert set(np.unique(bit_frame)) == {0, 255}


def test_a_file_of_one_picture_has_one_frame(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    example().save(tmp_path / "a.jpg", exif=exif, quality=100)
    assert count_frames(tmp_path / "a.jpg") == 1
    (frame,) = read_arrays(tmp_path / "a.jpg")
    assert np.abs(frame.astype(int) - np.rot90(GRAY, -1)).max() < 9


@pytest.mark.parametrize("opacity", [255, 51])
def test_frames_are_on_white(tmp_path, opacity):
    Image.new("RGBA", (3, 2), (0, 10, 0, opacity)).save(tmp_path / "a.png")
    (frame,) = read_arrays(tmp_path / "a.png")
    share = opacity / 255
    expected = np.array([0, 10, 0]) * share + 255 * (1 - share)
    np.testing.assert_allclose(frame, np.broadcast_to(expected, (2, 3, 3)), atol=0.51)


def test_a_damaged_frame_does_not_stop_the_others(tmp_path):
    path = tmp_path / "a.tif"
    noise = np.random.default_rng(0).integers(0, 256, (3, 40, 40), np.uint8)
    save_pages(path, *map(Image.fromarray, noise), compression="tiff_deflate")
    content = bytearray(path.read_bytes())
    start = content.index(zlib.compress(noise[1].tobytes())[:20])
    content[start : start + 20] = bytes(20)
    path.write_bytes(content)
    first, second, third = read_frames(path)
    np.testing.assert_array_equal(first, noise[0])
    assert isinstance(second, ValueError)
    assert "a.tif, frame 2: not a picture that can be read" in str(second)
    np.testing.assert_array_equal(third, noise[2])


def test_frames_of_too_many_pixels_are_refused_singly(tmp_path):
    save_pages(tmp_path / "a.tif", Image.new("L", (5, 4)), Image.new("L", (5, 3)))
    large, small = read_frames(tmp_path / "a.tif", max_pixels=15)
    assert isinstance(small, np.ndarray)
    assert "a.tif: not a picture that can be read (5 x 4 pixels are more than" in str(large)
    assert small.shape == (3, 5)


def test_files_without_frames_are_refused_by_name(tmp_path):
    (tmp_path / "a.tif").write_bytes(b"no picture")
    for read in (count_frames, lambda path: next(read_frames(path))):
        with pytest.raises(ValueError, match=r"a\.tif: not a picture"):
            read(tmp_path / "a.tif")
        with pytest.raises(FileNotFoundError, match=r"b\.tif"):
            read(tmp_path / "b.tif")
