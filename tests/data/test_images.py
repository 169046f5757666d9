"""Tests of image decoding: orientation, modes, geometry, unusable files."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.bad_pictures import TEXT, damaged_avif, png_bomb, truncated_jpeg

from xmodal.data.images import MAX_PIXELS, image_size, load_image
from xmodal.data.preprocessing import Preprocessing
from xmodal.errors import DataError

RED, GREEN, BLUE, YELLOW = (230, 30, 30), (30, 200, 30), (30, 30, 230), (230, 220, 30)

# For each EXIF orientation, the transposition of the upright picture that the tag reverses.
TRANSPOSITIONS = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def four_colours(width: int = 48, height: int = 32) -> Image.Image:
    """Return a picture with four colours, which every transposition changes."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x, y = width // 2, height // 2
    pixels[:y, :x], pixels[:y, x:], pixels[y:, :x], pixels[y:, x:] = RED, GREEN, BLUE, YELLOW
    return Image.fromarray(pixels)


def smooth_picture(width: int, height: int) -> Image.Image:
    """Return smooth waves of colour, which JPEG compresses with a small error."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2)
    return Image.fromarray((127 + 100 * waves).astype(np.uint8))


def encode(image: Image.Image, format_: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format_, **options)
    return buffer.getvalue()


def rgb_values(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# ---- orientation -----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", TRANSPOSITIONS)
@pytest.mark.parametrize("format_", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_load_applies_the_exif_orientation(orientation: int, format_: str) -> None:
    method = TRANSPOSITIONS[orientation]
    stored = four_colours() if method is None else four_colours().transpose(method)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    found = load_image(encode(stored, format_, exif=exif, **options.get(format_, {})))
    assert found.size == (48, 32)
    difference = np.abs(rgb_values(found) - rgb_values(four_colours()))
    assert difference.max() == 0 if format_ != "JPEG" else difference.mean() < 2


def test_load_applies_the_orientation_at_a_reduced_scale() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = four_colours(640, 480)
    turned = encode(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    small = load_image(turned, 32)
    assert small.size == (160, 120)  # a quarter; the sides of an eighth are shorter than 2 * 32
    square = Preprocessing(32).pixels(turned).astype(int)
    assert np.abs(square - Preprocessing(32).pixels(upright)).mean() < 3


# ---- modes -----------------------------------------------------------------------------------


def test_load_flattens_transparency_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    assert rgb_values(load_image(encode(image, "PNG"))).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    half = load_image(encode(Image.new("LA", (1, 1), (0, 51)), "PNG"))
    assert rgb_values(half).tolist() == [[[204, 204, 204]]]  # 255 * (1 - 51 / 255)


@pytest.mark.parametrize("transparent", [1, b"\xff\x00"])
def test_load_flattens_a_transparent_palette_on_white(transparent: int | bytes) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    found = load_image(encode(image, "PNG", transparency=transparent))
    assert rgb_values(found).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_load_converts_cmyk_to_rgb() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert (
        np.abs(rgb_values(load_image(encode(cyan, "JPEG", quality=95))) - (0, 255, 255)).max() < 8
    )


def test_load_scales_16_bit_grey_to_8_bits() -> None:
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    found = rgb_values(load_image(encode(Image.fromarray(values), "PNG")))
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (found[..., 0] == found[..., 2]).all()


def test_load_converts_black_and_white() -> None:
    image = Image.new("1", (2, 1), 1)
    image.putpixel((0, 0), 0)
    assert rgb_values(load_image(encode(image, "PNG")))[0, :, 1].tolist() == [0, 255]


def test_load_returns_the_first_frame_of_an_animation() -> None:
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    animation = encode(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(rgb_values(load_image(animation)) - RED).max() < 8


def test_load_accepts_a_path_bytes_and_an_open_image(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encode(four_colours(), "PNG"))
    expected = rgb_values(four_colours())
    for source in (file, str(file), file.read_bytes(), Image.open(file)):
        assert (rgb_values(load_image(source)) == expected).all()
        assert image_size(source) == (48, 32)


def test_preprocessing_does_not_change_an_open_image() -> None:
    with Image.open(io.BytesIO(encode(smooth_picture(400, 300), "JPEG"))) as image:
        assert Preprocessing(16).pixels(image).shape == (16, 16, 3)
        assert image.size == (400, 300)


# ---- geometry --------------------------------------------------------------------------------


def test_crop_takes_the_centre_and_squash_the_whole_picture() -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, :10], stripes[:, 10:20], stripes[:, 20:] = RED, GREEN, BLUE
    wide = Image.fromarray(stripes)
    assert (Preprocessing(10, "crop").pixels(wide) == GREEN).all()
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert (Preprocessing(10, "crop").pixels(tall) == GREEN).all()
    squashed = Preprocessing(30, "squash", resample="bilinear").pixels(wide)
    assert squashed.shape == (30, 30, 3)
    assert [tuple(squashed[15, x]) for x in (4, 15, 25)] == [RED, GREEN, BLUE]


def test_crop_share_is_relative_to_the_shorter_side() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[5:15, 15:25] = 255  # the centred half of the shorter side
    assert (Preprocessing(10, "crop", share=0.5).pixels(Image.fromarray(image)) == 255).all()
    assert Preprocessing(10, "crop", share=1.0).pixels(Image.fromarray(image)).mean() < 80


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_preprocessing_of_extreme_shapes_keeps_the_colour(size: tuple[int, int], fit: str) -> None:
    found = Preprocessing(8, fit).pixels(Image.new("RGB", size, BLUE))  # type: ignore[arg-type]
    assert found.shape == (8, 8, 3) and (found == BLUE).all()


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_reduced_scale_decoding_is_close_to_full_decoding(fit: str) -> None:
    data = encode(smooth_picture(1000, 700), "JPEG", quality=90)
    preprocessing = Preprocessing(64, fit)  # type: ignore[arg-type]
    assert load_image(data, 64).size == (250, 175) and load_image(data).size == (1000, 700)
    reduced, full = preprocessing.pixels(data), preprocessing.pixels(load_image(data))
    assert np.abs(reduced.astype(int) - full).mean() < 1.5


# ---- unusable files --------------------------------------------------------------------------


@pytest.mark.parametrize("side", [50_000, 9_200, 12_000])
def test_load_refuses_a_decompression_bomb_by_its_header(tmp_path: Path, side: int) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png_bomb(side, side))
    assert file.stat().st_size < 100 and side * side > MAX_PIXELS
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="80 million"):
            load_image(file)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_load_of_an_unusable_file_names_file_and_reason(tmp_path: Path) -> None:
    png = encode(smooth_picture(200, 100), "PNG")
    files = {
        "truncated.png": (png[: len(png) // 2], "cannot be decoded"),
        "truncated.jpg": (truncated_jpeg(), "truncated"),
        "damaged.avif": (damaged_avif(), "cannot be decoded"),
        "text.jpg": (TEXT, "not a picture"),
        "empty.jpg": (b"", "not a picture"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*{reason}"):
            load_image(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.jpg"):
        load_image(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be decoded"):
        load_image(tmp_path)
    with pytest.raises(DataError, match=r"^picture: not a picture"):
        load_image(b"no picture")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata
@pytest.mark.parametrize("format_", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_damaged_bytes_give_an_image_or_a_data_error(format_: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {} if format_ in ("GIF", "BMP") else {"exif": exif}
    content = encode(smooth_picture(40, 30), format_, **options)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(content)
        for place in rng.integers(0, min(len(data), 400), size=4):
            data[place] = rng.integers(256)
        try:
            assert Preprocessing(16).pixels(bytes(data)).shape == (16, 16, 3)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0 or format_ == "BMP"


@pytest.mark.parametrize(
    "exception",
    [RuntimeError, MemoryError, ZeroDivisionError, AssertionError, KeyError, SystemError],
)
def test_any_exception_of_a_decoder_becomes_a_data_error(
    exception: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    content = encode(smooth_picture(40, 30), "PNG")

    def fail(image: ImageFile.ImageFile) -> None:
        raise exception

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match=exception.__name__):
        load_image(content)


def test_keyboard_interrupt_while_decoding_is_not_converted(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    content = encode(smooth_picture(40, 30), "PNG")

    def interrupt(image: ImageFile.ImageFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", interrupt)
    with pytest.raises(KeyboardInterrupt):
        load_image(content)
