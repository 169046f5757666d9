"""Tests of image decoding: orientation, modes, geometry, unusable files."""

from __future__ import annotations

import io
import os
import struct
import sys
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile, TiffImagePlugin, TiffTags
from support.bad_pictures import TEXT, damaged_avif, png, png_bomb, truncated_jpeg

from xmodal.data import bit_depth, images
from xmodal.data.bit_depth import to_8_bits
from xmodal.data.images import MAX_PIXELS, image_size, load_image
from xmodal.data.picture_formats import SUFFIXES
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
    with pytest.raises(DataError, match="not an ordinary file"):
        load_image(tmp_path)
    with pytest.raises(DataError, match=r"^picture: not a picture"):
        load_image(b"no picture")


@pytest.mark.parametrize(
    ("content", "found"),
    [
        (b"", "empty"),
        (bytes(200), "zero bytes"),
        (b"\n<!DOCTYPE HTML><title>404</title>", "HTML"),
        (b"<html>", "HTML"),
        (b'\xef\xbb\xbf{"error": "no access"}', "JSON"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS"),
        (b"\0\0\0\x14ftypisom\0\0\2\0mp41", "a film"),
        (b"%PDF-1.7", "PDF"),
    ],
)
def test_a_file_with_a_wrong_ending_is_named_by_its_content(content: bytes, found: str) -> None:
    with pytest.raises(DataError, match=f"{found}.*, not a picture"):
        load_image(content)


def test_a_picture_with_the_ending_of_another_format_is_decoded(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encode(four_colours(), "JPEG"))
    assert load_image(file).size == (48, 32)


def test_a_named_pipe_is_refused_without_waiting(tmp_path: Path) -> None:
    pipe = tmp_path / "a.jpg"
    os.mkfifo(pipe)
    for read in (load_image, image_size, Preprocessing(8).pixels):
        with pytest.raises(DataError, match="not an ordinary file"):
            read(pipe)


def test_a_file_of_too_many_bytes_is_refused_unread(tmp_path: Path) -> None:
    file = tmp_path / "a.tif"
    with file.open("wb") as sparse:
        sparse.truncate(2**40)
    with pytest.raises(DataError, match="expected at most"):
        load_image(file)


# ---- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("suffix", "format_", "options"),
    [
        (".jfif", "JPEG", {"quality": 95}),
        (".jp2", "JPEG2000", {}),
        (".j2k", "JPEG2000", {"no_jp2": True}),
        (".ppm", "PPM", {}),
        (".ico", "ICO", {"sizes": [(48, 48)]}),
        (".apng", "PNG", {"save_all": True, "append_images": [Image.new("RGB", (48, 48))]}),
    ],
)
def test_pictures_of_less_usual_formats_are_decoded(
    tmp_path: Path, suffix: str, format_: str, options: dict[str, object]
) -> None:
    expected = four_colours(48, 48)
    file = tmp_path / f"a{suffix}"
    file.write_bytes(encode(expected, format_, **options))
    assert suffix in SUFFIXES
    found = load_image(file)
    assert found.size == (48, 48)
    assert np.abs(rgb_values(found) - rgb_values(expected)).mean() < 5


@pytest.mark.parametrize("brand", [None, b"mif1"])
def test_heic_is_decoded_upright_with_pillow_heif(brand: bytes | None) -> None:
    pillow_heif = pytest.importorskip("pillow_heif")
    exif = Image.Exif()
    exif[0x0112] = 6
    stored = pillow_heif.from_pillow(four_colours().transpose(Image.Transpose.ROTATE_90))
    buffer = io.BytesIO()
    stored.save(buffer, quality=95, exif=exif.tobytes())
    data = buffer.getvalue()
    data = data if brand is None else data[:8] + brand + data[12:]
    found = load_image(data)
    assert found.size == image_size(data) == (48, 32)
    assert np.abs(rgb_values(found) - rgb_values(four_colours())).mean() < 8


def test_heic_without_pillow_heif_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DataError, match=r"\[heic\]"):
        load_image(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64))


@pytest.mark.parametrize(("bits", "name"), [(8, "PNG"), (10, "PNG"), (12, "PNG"), (12, "TIFF")])
def test_grey_values_of_few_bits_in_16_are_visible(bits: int, name: str) -> None:
    top = (1 << bits) - 1
    values = np.array([[0, top // 2, top]], np.uint16)
    found = rgb_values(load_image(encode(Image.fromarray(values), name)))
    assert found[0, :, 0].tolist() == [0, 127, 255]


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([0.0, 0.5, 1.0], [0, 128, 255]),
        ([0.0, 128.0, 255.0], [0, 128, 255]),
        ([0.0, 32768.0, 65535.0], [0, 128, 255]),
        ([-1.0, 0.0, 1.0], [0, 128, 255]),
        ([np.nan, 0.5, np.inf], [0, 128, 0]),
        ([0.25, 0.25, 0.25], [64, 64, 64]),
    ],
)
def test_floats_are_scaled_by_their_largest_value(values: list[float], expected: list[int]) -> None:
    image = Image.fromarray(np.array([values], np.float32))
    assert rgb_values(load_image(encode(image, "TIFF")))[0, :, 0].tolist() == expected


def test_floats_that_are_not_finite_are_refused() -> None:
    image = Image.fromarray(np.full((2, 2), np.nan, np.float32))
    with pytest.raises(DataError, match="finite"):
        load_image(encode(image, "TIFF"))


def test_colours_of_12_bits_in_16_are_visible() -> None:
    values = np.array([[[4095, 2048, 0]]], np.uint16)
    found = rgb_values(load_image(png_of_16_bits(values)))
    assert np.abs(found[0, 0] - (255, 128, 0)).max() < 16


def png_of_16_bits(values: np.ndarray) -> bytes:
    """Return a PNG of RGB values (height, width, 3) uint16, which Pillow cannot write."""
    height, width, _ = values.shape
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    return png(struct.pack(">IIBBBBB", width, height, 16, 2, 0, 0, 0), zlib.compress(rows))


# ---- large pictures and bombs ----------------------------------------------------------------


def test_a_large_jpeg_is_decoded_at_a_reduced_scale() -> None:
    side = 9_200
    data = encode(Image.new("RGB", (side, side), BLUE), "JPEG")
    assert side**2 > MAX_PIXELS and image_size(data) == (side, side)
    assert load_image(data).size == (side // 2, side // 2)
    found = load_image(data, 64)
    assert found.size == (side // 8, side // 8)
    assert np.abs(rgb_values(found)[::100, ::100] - BLUE).max() < 5


def test_jpegs_that_cannot_be_reduced_enough_are_refused() -> None:
    data = bytearray(encode(Image.new("L", (8, 8)), "JPEG"))
    frame = data.index(b"\xff\xc0")
    data[frame + 5 : frame + 9] = struct.pack(">HH", 60_000, 60_000)
    with pytest.raises(DataError, match="500 million"):
        load_image(bytes(data), 64)
    data[frame + 1] = 0xC2  # progressive: its coefficients are held in full size
    data[frame + 5 : frame + 9] = struct.pack(">HH", 10_000, 10_000)
    with pytest.raises(DataError, match="80 million"):
        load_image(bytes(data), 64)


def test_a_progressive_jpeg_of_many_scans_is_refused() -> None:
    data = encode(Image.new("RGB", (4_000, 4_000)), "JPEG", progressive=True)
    assert load_image(data, 64).size == (500, 500)
    end = data.rindex(b"\xff\xda")
    with pytest.raises(DataError, match="passes"):
        load_image(data[:-2] + data[end:-2] * 130 + data[-2:], 64)


def many_parts(kind: str) -> bytes:
    """Return a picture with very many or very large small parts before its pixels."""
    image = Image.new("RGB", (8, 8), BLUE)
    if kind == "GIF comments":
        data = encode(image, "GIF")
        start = 13 + 3 * 2 ** ((data[10] & 7) + 1)  # after the table of colours
        return data[:start] + b"\x21\xfe\x01c\0" * 50_000 + data[start:]
    if kind == "JPEG 2000 boxes":
        data = encode(image, "JPEG2000")
        return data[:12] + b"\0\0\0\x08skip" * 50_000 + data[12:]
    if kind == "PPM comment":
        return b"P6 #" + b"c" * 1_000_000 + b"\n2 2 255 " + bytes(12)
    data = encode(image, "JPEG")
    parts = {
        "JPEG segments": b"\xff\xfe\0\x02" * 20_000,
        "JPEG padding": b"\xff" * 1_000_000,
        "JPEG EXIF": (b"\xff\xe1\xff\xffExif\0\0" + bytes(65_527)) * 300,
    }
    return data[:2] + parts[kind] + data[2:]


@pytest.mark.parametrize(
    "kind",
    [
        *("GIF comments", "JPEG 2000 boxes", "PPM comment"),
        *("JPEG segments", "JPEG padding", "JPEG EXIF"),
    ],
)
def test_pictures_of_too_many_parts_are_refused(kind: str) -> None:
    with pytest.raises(DataError, match=r"more parts than are read|too many or too large"):
        load_image(many_parts(kind))


def test_a_jpeg_with_large_metadata_is_decoded() -> None:
    data = encode(four_colours(), "JPEG", quality=95)
    profile = b"\xff\xe2\xff\xff" + bytes(65_533)
    assert load_image(data[:2] + profile * 100 + b"\xff" * 5 + data[2:]).size == (48, 32)


def test_the_pixels_of_a_picture_in_an_icon_are_limited() -> None:
    bomb = png_bomb(12_000, 12_000)
    entry = struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(bomb), 22)
    with pytest.raises(DataError, match="80 million"):
        load_image(struct.pack("<HHH", 0, 1, 1) + entry + bomb)


def overlapping_tags(entries: int, size: int) -> bytes:
    """Return TIFF data of many tags that share the same ``size`` bytes."""
    start = 8 + 2 + 12 * entries + 4
    tags = (struct.pack("<HHII", 1000 + n, 7, size, start) for n in range(entries))
    head = struct.pack("<2sHIH", b"II", 42, 8, entries)
    return head + b"".join(tags) + bytes(4 + size)


def test_overlapping_tags_of_a_tiff_are_refused_unread() -> None:
    data = overlapping_tags(20_000, 100_000)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="tags"):
            load_image(data)
        assert tracemalloc.get_traced_memory()[1] < 3_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("format_", ["PNG", "WEBP"])
def test_overlapping_tags_of_exif_are_ignored(format_: str) -> None:
    exif = b"Exif\0\0" + overlapping_tags(20_000, 100_000)
    options = {"lossless": True} if format_ == "WEBP" else {}
    data = encode(four_colours(), format_, exif=exif, **options)
    tracemalloc.start()
    try:
        assert (rgb_values(load_image(data)) == rgb_values(four_colours())).all()
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_tiff_of_many_different_tags_is_decoded() -> None:
    image = four_colours()
    info = TiffImagePlugin.ImageFileDirectory_v2()
    for tag in range(40_000, 40_900):
        info.tagtype[tag] = TiffTags.ASCII
        info[tag] = "a text that is longer than four bytes"
    assert load_image(encode(image, "TIFF", tiffinfo=info)).size == image.size


def test_damaged_exif_leaves_the_picture_upright() -> None:
    data = encode(four_colours(), "PNG", exif=b"Exif\0\0II*\0" + b"\xff" * 40)
    assert (rgb_values(load_image(data)) == rgb_values(four_colours())).all()


def test_slow_variants_of_ppm_are_limited() -> None:
    assert load_image(b"P3 2 1 255 255 0 0 0 0 255 ").size == (2, 1)
    with pytest.raises(DataError, match="convert it to PNG"):
        load_image(b"P3 2000 2000 255 " + b"0 " * 100)


def test_transparency_of_a_large_picture_is_flattened_like_that_of_a_small_one() -> None:
    rng = np.random.default_rng(0)
    values = rng.integers(0, 256, (5, 1000, 4), np.uint8)
    tall = Image.fromarray(np.tile(values, (1000, 1, 1)))
    found = rgb_values(load_image(tall))
    assert (found[:5] == rgb_values(load_image(Image.fromarray(values)))).all()
    assert (found[-5:] == found[:5]).all()


@pytest.mark.parametrize(
    "mode, format_, wide",
    [("RGBA", "PNG", True), ("F", "TIFF", True), ("RGB", "WEBP", True), ("RGB", "PNG", False)],
)
def test_small_files_that_need_much_memory_are_refused_by_their_header(
    monkeypatch: pytest.MonkeyPatch, mode: str, format_: str, wide: bool
) -> None:
    monkeypatch.setattr(images, "MEMORY", 5 * 400**2)
    rng = np.random.default_rng(0)
    noise = Image.fromarray(rng.integers(0, 256, (400, 400, 3), np.uint8)).convert(mode)
    load_image(encode(noise, format_, **({"lossless": True} if format_ == "WEBP" else {})))
    options = {"compression": "tiff_deflate"} if format_ == "TIFF" else {}
    plain = encode(Image.new(mode, (400, 400)), format_, **options)
    assert len(plain) < 1600
    if wide:
        with pytest.raises(DataError, match="400 x 400 pixels"):
            image_size(plain)
    else:
        assert load_image(plain).size == (400, 400)


@pytest.mark.parametrize("mode", ["F", "I", "I;16"])
def test_bands_of_values_have_one_range(monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    values = np.arange(60).reshape(12, 5) * 70 - (900 if mode == "I" else 0)
    kind = {"F": np.float32, "I": np.int32, "I;16": np.uint16}[mode]
    image = Image.fromarray(values.astype(kind))
    assert image.mode == mode
    whole = np.asarray(to_8_bits(image))
    monkeypatch.setattr(bit_depth, "BAND_PIXELS", 10)
    assert (np.asarray(to_8_bits(image)) == whole).all()
    assert whole[0, 0] == 0 and (np.diff(whole.ravel().astype(int)) >= 0).all()


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
