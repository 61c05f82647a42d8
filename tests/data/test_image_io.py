"""Picture files read as grey levels, and letters found in them."""

import io
import os

import hypothesis.extra.numpy as arrays
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from cnn_jax.data import xo
from cnn_jax.data.image_io import read_color, read_image, read_square
from cnn_jax.data.letters import segment_letter

# Dark on white: a wide black bar, and a grey corner that tells how the picture is turned.
GREY = np.full((20, 30), 255, np.uint8)
GREY[5:15, 10:20] = 0
GREY[:4, :4] = 128
LEVELS = GREY / 127.5 - 1


def picture(mode="L"):
    return Image.fromarray(GREY).convert(mode)


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
def test_kinds_of_files(tmp_path, name, mode, tolerance):
    kind = None if "." in name else "PNG"
    picture(mode).save(tmp_path / name, kind)
    levels = read_image(tmp_path / name)
    assert levels.dtype == np.float32
    assert np.abs(levels).max() <= 1
    np.testing.assert_allclose(levels, LEVELS, atol=tolerance)


def test_one_bit(tmp_path):
    black = GREY < 100
    Image.fromarray(~black).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), np.where(black, -1, 1))


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.pgm"])
def test_sixteen_bits(tmp_path, name):
    """Of their whole range, whatever part of it a picture has."""
    deep = 10_000 + 100 * GREY.astype(np.uint16)
    levels = deep / 32767.5 - 1
    Image.fromarray(deep).save(tmp_path / name)
    np.testing.assert_allclose(read_image(tmp_path / name), levels, atol=1e-4)
    np.testing.assert_allclose(read_color(tmp_path / name)[..., 1], levels, atol=1e-4)
    squares = read_square(tmp_path / name, size=20)
    np.testing.assert_allclose(squares[..., 2], (levels[:, 5:25] + 1) * 127.5, atol=0.51)


def test_grey_levels_in_digits(tmp_path):
    (tmp_path / "a.pgm").write_text("P2 2 1 1000 250 500")
    np.testing.assert_allclose(read_image(tmp_path / "a.pgm"), [[-0.5, 0]], atol=1e-4)


def test_animations_give_their_first_picture(tmp_path):
    picture().save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("L", (30, 20), 7)])
    np.testing.assert_allclose(read_image(tmp_path / "a.gif"), LEVELS, atol=1e-6)


@pytest.mark.parametrize("mode", ["LA", "RGBA"])
@pytest.mark.parametrize("ink", [0, 255])
def test_behind_strokes_on_nothing_is_the_opposite(tmp_path, mode, ink):
    stroke = GREY == 0
    drawn = np.stack([np.where(stroke, ink, 77), 255 * stroke], axis=-1).astype(np.uint8)
    Image.fromarray(drawn, "LA").convert(mode).save(tmp_path / "a.png")
    expected = np.where(stroke, 1, -1) * (1 if ink else -1)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), expected, atol=1e-6)


@pytest.mark.parametrize("ink", [0, 255])
def test_transparent_palette_colours(tmp_path, ink):
    stroke = GREY == 0
    image = Image.fromarray(stroke.astype(np.uint8), "P")
    image.putpalette([90, 90, 90, ink, ink, ink])
    image.save(tmp_path / "a.gif", transparency=0)
    expected = np.where(stroke, 1, -1) * (1 if ink else -1)
    np.testing.assert_allclose(read_image(tmp_path / "a.gif"), expected, atol=1e-6)


def test_half_transparent_ink_is_grey(tmp_path):
    Image.fromarray(np.full((4, 4, 2), [0, 51], np.uint8), "LA").save(tmp_path / "a.png")
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), 0.6, atol=1e-6)


def test_nothing_but_transparency_is_blank(tmp_path):
    Image.new("RGBA", (5, 4)).save(tmp_path / "a.png")
    levels = read_image(tmp_path / "a.png")
    assert levels.shape == (4, 5)
    assert len(np.unique(levels)) == 1


@pytest.mark.parametrize(
    ("orientation", "turned"),
    [(2, LEVELS[:, ::-1]), (3, LEVELS[::-1, ::-1]), (6, np.rot90(LEVELS, -1)), (8, np.rot90(LEVELS))],
)
def test_exif_turns_the_picture(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x112] = orientation
    picture().save(tmp_path / "a.png", exif=exif)
    np.testing.assert_allclose(read_image(tmp_path / "a.png"), turned, atol=1e-6)


def test_what_is_no_picture_is_refused_by_name(tmp_path):
    path = tmp_path / "letter.png"
    for content in (b"", b"not a picture", b"\x89PNG\r\n\x1a\n", b"GIF89a"):
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"letter\.png: not a picture"):
            read_image(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP"])
@pytest.mark.parametrize("share", [0.1, 0.6])
def test_truncated_pictures_are_refused_by_name(tmp_path, kind, share):
    path = tmp_path / "letter"
    noise = np.random.default_rng(0).integers(0, 256, (60, 60), np.uint8)
    Image.fromarray(noise).convert("RGB").save(path, kind)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    with pytest.raises(ValueError, match="letter: not a picture"):
        read_image(path)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "TIFF", "WEBP"])
def test_damaged_pictures_are_read_or_refused_by_name(tmp_path, kind):
    path, rng = tmp_path / "letter", np.random.default_rng(0)
    picture("RGB").save(path, kind)
    whole = path.read_bytes()
    for _ in range(60):
        content = bytearray(whole)
        for place in rng.integers(0, len(content), 3):
            content[place] = rng.integers(256)
        path.write_bytes(content)
        try:
            assert np.abs(read_image(path)).max() <= 1
        except ValueError as error:
            assert str(path) in str(error)  # noqa: PT017


def lab(path):
    picture("RGB").convert("LAB").save(path, "TIFF")


def palette_too_large(path):
    picture("L").save(path, "BMP")
    content = bytearray(path.read_bytes())
    content[46:50] = (1000).to_bytes(4, "little")
    path.write_bytes(content)


def no_number(path):
    path.write_bytes(b"P6\n3x 2\n255\n" + bytes(18))


@pytest.mark.parametrize("write", [lab, palette_too_large, no_number])
def test_pillows_value_errors_name_the_file(tmp_path, write):
    write(tmp_path / "letter")
    with pytest.raises(ValueError, match="letter"):
        read_image(tmp_path / "letter")


@pytest.mark.parametrize("fault", [np.nan, np.inf])
def test_floating_pictures_with_faults_stay_in_range(tmp_path, fault):
    levels = GREY.astype(np.float32)
    levels[0, 0] = fault
    Image.fromarray(levels).save(tmp_path / "a.tif")
    assert np.abs(read_image(tmp_path / "a.tif")).max() <= 1


@pytest.mark.parametrize("side", [8000, 10_000, 14_000])
def test_too_many_pixels_are_refused_by_name(tmp_path, side):
    path = tmp_path / "huge.png"
    Image.new("1", (side, side)).save(path)
    with pytest.raises(ValueError, match=r"huge\.png"):
        read_image(path)


def test_a_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"letter\.png"):
        read_image(tmp_path / "letter.png")


def test_what_is_no_regular_file_is_refused_unopened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    both = os.open(tmp_path / "pipe", os.O_RDWR)  # or else opening it would wait
    os.write(both, b"no picture" * 10)
    for path in (tmp_path, tmp_path / "pipe", os.devnull):
        with pytest.raises(OSError, match=f"expected a file, not a folder, a pipe or a device: '{path}'"):
            read_image(path)
    os.close(both)


def test_open_files(tmp_path):
    picture().save(tmp_path / "a.png")
    with open(tmp_path / "a.png", "rb") as file:
        np.testing.assert_allclose(read_image(file), LEVELS, atol=1e-6)
    np.testing.assert_allclose(read_image(io.BytesIO((tmp_path / "a.png").read_bytes())), LEVELS, atol=1e-6)


@pytest.mark.parametrize("path", [None, 3, b"a.png"])
def test_what_is_no_path(path):
    with pytest.raises(TypeError, match=f"path: expected a path or a file, got {type(path).__name__}"):
        read_square(path, size=8)


def test_a_name_that_no_file_can_have():
    with pytest.raises(ValueError, match="a\0b: not a picture"):
        read_image("a\0b")


def test_a_file_taken_for_a_folder(tmp_path):
    (tmp_path / "file").write_text("text")
    with pytest.raises(OSError, match=r"letter\.png"):
        read_image(tmp_path / "file" / "letter.png")


@pytest.fixture(scope="module")
def letters():
    """Letters of 56x56, on a wide ground, with nothing but their form distorted."""
    strengths = dict.fromkeys(("contrast", "noise", "shift"), 0.0) | {"deform": 0.5, "shrink": 0.5}
    draw = jax.vmap(lambda key: xo.draw(key, size=56, **strengths))
    draw = jax.jit(draw, compiler_options={"xla_backend_optimization_level": 0})  # compiling takes longer than drawing
    images, labels = draw(jax.random.split(jax.random.key(3), 16))
    assert 0 < jnp.sum(labels) < 16
    return np.pad(np.asarray(images), ((0, 0), (4, 4), (4, 4)), constant_values=-1)


def likeness(one, other):
    return np.corrcoef(one.ravel(), other.ravel())[0, 1]


def framed(letters, change=lambda image: image):
    return np.stack([segment_letter(change(image)) for image in letters])


def test_frames_hold_the_letter_white_on_black_in_the_middle(letters):
    for image in framed(letters):
        assert (image.shape, image.dtype) == ((28, 28), np.float32)
        assert image.min() == -1
        assert image.max() == 1
        rows, columns = np.nonzero(image > 0)
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(20, abs=1)
        assert rows.min() + rows.max() == pytest.approx(27, abs=2)
        assert columns.min() + columns.max() == pytest.approx(27, abs=2)
        assert image[:3].max() == image[:, :3].max() == image[-3:].max() == image[:, -3:].max() == -1


@pytest.mark.parametrize("size", [9, 28, 64])
def test_frame_size(letters, size):
    image = segment_letter(letters[0], size=size)
    assert image.shape == (size, size)
    rows, columns = np.nonzero(image > 0)
    assert max(np.ptp(rows), np.ptp(columns)) + 1 == pytest.approx(size * 20 / 28, abs=1)


@pytest.mark.parametrize(
    ("change", "tolerance"),
    [
        (lambda x: -x, 1e-5),
        (lambda x: 3 * x + 100, 1e-3),
        (lambda x: -0.01 * x - 5, 1e-3),
        (lambda x: ((x + 1) * 127.5).astype(np.uint8), 0.02),
        (lambda x: x.astype(np.float16), 0.02),
        (lambda x: x * 1e20, 1e-3),
        (lambda x: np.pad(x, ((30, 0), (0, 11)), constant_values=-1), 0.01),
        (lambda x: np.pad(x, ((3, 60), (50, 1)), constant_values=-1), 0.01),
        (lambda x: np.kron(x, np.ones((2, 2))), 0.04),
        (lambda x: np.kron(x, np.ones((7, 7))), 0.12),
    ],
    ids=["negative", "brighter", "negative darker", "uint8", "float16", "huge", "moved", "moved far", "2x", "7x"],
)
def test_frame_does_not_depend_on(letters, change, tolerance):
    assert np.abs(framed(letters, change) - framed(letters)).mean((1, 2)).max() < tolerance


@pytest.mark.parametrize("turn", [lambda x: x, np.transpose])
@pytest.mark.parametrize("sign", [1, -1])
def test_uneven_light(letters, turn, sign):
    """A slope of light as high as ink stands above the ground."""
    light = turn(np.tile(np.linspace(-1, 1, 64), (64, 1)))
    pairs = zip(framed(letters, lambda x: sign * x + light), framed(letters), strict=True)
    alike = [likeness(one, other) for one, other in pairs]
    assert np.median(alike) > 0.95
    assert np.mean(np.array(alike) > 0.7) >= 0.8


def test_specks_are_dropped(letters):
    def specked(image):
        image = np.pad(image, 8, constant_values=-1)
        image[[1, 2, 40, 77], [3, 75, 1, 70]] = 1
        return image

    assert np.abs(framed(letters, specked) - framed(letters)).mean((1, 2)).max() < 0.02


def test_a_little_noise_and_a_lost_pixel(letters):
    rng = np.random.default_rng(0)

    def spoilt(image):
        image = image + rng.normal(0, 0.1, image.shape)
        image[2, 3] = np.nan
        return image

    assert np.abs(framed(letters, spoilt) - framed(letters)).mean((1, 2)).max() < 0.06


@pytest.mark.parametrize("value", [0, -1, 255, np.nan])
@pytest.mark.parametrize("shape", [(1, 1), (1, 40), (40, 1), (3, 3), (50, 60)])
def test_a_blank_picture_gives_a_black_frame(value, shape):
    np.testing.assert_array_equal(segment_letter(np.full(shape, value)), np.full((28, 28), -1))


@pytest.mark.parametrize("shape", [(1, 2), (1, 30), (30, 1), (2, 2), (3, 3), (5, 2000), (3000, 4)])
def test_tiny_and_long_pictures(shape):
    image = np.random.default_rng(0).random(shape)
    out = segment_letter(image)
    assert out.shape == (28, 28)
    assert np.abs(out).max() <= 1


@pytest.mark.parametrize("dtype", ["uint8", "int64", "bool", "float64"])
def test_a_tiny_x_of_any_dtype(dtype):
    image = np.pad(np.eye(5) + np.eye(5)[::-1] > 0, 3).astype(dtype)
    assert likeness(segment_letter(image), np.kron(np.pad((np.eye(5) + np.eye(5)[::-1]) > 0, 1), np.ones((4, 4)))) > 0.7


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (5, 0), (5, 5, 1), (2, 5, 5, 1)])
def test_frame_refuses_what_is_no_image(shape):
    with pytest.raises(ValueError, match=rf"image: .*{'.*'.join(map(str, shape))}"):
        segment_letter(np.zeros(shape))


PIXELS = st.one_of(st.integers(0, 255).map(float), st.sampled_from([0.0, 255.0, np.nan]))
SIDES = st.tuples(st.integers(1, 12), st.integers(1, 12))


@given(arrays.arrays(np.float32, SIDES, elements=PIXELS, fill=PIXELS), st.sampled_from([1.0, -1 / 255, 100.0]))
def test_any_picture_gives_a_frame(image, scale):
    out = segment_letter(image * np.float32(scale))
    assert (out.shape, out.dtype) == ((28, 28), np.float32)
    assert np.abs(out).max() <= 1


@pytest.mark.parametrize(
    "image",
    [np.full((9, 9), 1e6), 1 + 1e-6 * np.eye(9), np.where(np.eye(9) > 0, np.inf, 0), 1e300 * np.eye(9)],
    ids=["blank", "faint", "infinite", "enormous"],
)
def test_extreme_grey_levels(image):
    out = segment_letter(image)
    assert np.abs(out).max() <= 1


@pytest.mark.parametrize("level", [-1.0, 1.0])
@pytest.mark.parametrize("width", [1, 3])
def test_a_line_around_the_picture_is_no_letter(level, width):
    x = np.kron(np.maximum(np.eye(9), np.eye(9)[::-1]) * 2 - 1, np.ones((4, 4)))
    plain = np.pad(x, 12, constant_values=-1) * level
    outlined = np.pad(plain, width, constant_values=level)
    np.testing.assert_allclose(segment_letter(outlined), segment_letter(plain), atol=1e-6)


def test_colours_of_one_brightness_are_told_apart(tmp_path):
    letter = np.where(GREY[..., None] > GREY.mean(), (255, 0, 0), (0, 130, 0)).astype(np.uint8)
    Image.fromarray(letter).save(tmp_path / "a.png")
    assert np.ptp(read_image(tmp_path / "a.png")) > 0.9


def test_deep_pictures_use_their_whole_range(tmp_path):
    Image.fromarray(GREY.astype(np.int32) - 100_000).save(tmp_path / "a.tif")
    assert np.ptp(read_image(tmp_path / "a.tif")) == pytest.approx(2)
