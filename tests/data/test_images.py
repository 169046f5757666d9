"""Pictures come out small, upright and in RGB, or are refused with a reason and without memory."""

from __future__ import annotations

import io
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageFile
from support.bad_pictures import TEXT, damaged_avif, png_that_claims, truncated_jpeg

from xmodal.data.images import MAX_PIXELS, Preprocessing, load
from xmodal.errors import DataError

RED, GREEN, BLUE, YELLOW = (230, 30, 30), (30, 200, 30), (30, 30, 230), (230, 220, 30)

# What a camera must have done to the upright picture so that each orientation tag undoes it.
TURNED = {
    1: None,
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


def quarters(width: int = 48, height: int = 32) -> Image.Image:
    """A picture with a colour in each corner: no turn or flip leaves it as it was."""
    pixels = np.zeros((height, width, 3), np.uint8)
    x, y = width // 2, height // 2
    pixels[:y, :x], pixels[:y, x:], pixels[y:, :x], pixels[y:, x:] = RED, GREEN, BLUE, YELLOW
    return Image.fromarray(pixels)


def photo(width: int, height: int) -> Image.Image:
    """Smooth waves of colour, as JPEG likes them."""
    x, y = np.meshgrid(np.linspace(0, 6, width), np.linspace(0, 4, height))
    waves = np.stack([np.sin(x), np.cos(y), np.sin(x + y)], axis=2)
    return Image.fromarray((127 + 100 * waves).astype(np.uint8))


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def pixels(image: Image.Image) -> np.ndarray:
    assert image.mode == "RGB"
    return np.asarray(image).astype(int)


# ---- orientation -----------------------------------------------------------------------------


@pytest.mark.parametrize("orientation", TURNED)
@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF"])
def test_a_turned_copy_with_its_exif_tag_is_the_same_picture(orientation: int, kind: str) -> None:
    turn = TURNED[orientation]
    stored = quarters() if turn is None else quarters().transpose(turn)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"JPEG": {"quality": 95, "subsampling": 0}, "WEBP": {"lossless": True}}
    found = load(encoded(stored, kind, exif=exif, **options.get(kind, {})))
    assert found.size == (48, 32)
    differs = np.abs(pixels(found) - pixels(quarters()))
    assert differs.max() == 0 if kind != "JPEG" else differs.mean() < 2


def test_orientation_holds_for_a_jpeg_decoded_at_a_reduced_scale() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    upright = quarters(640, 480)
    turned = encoded(upright.transpose(Image.Transpose.ROTATE_90), "JPEG", exif=exif)
    small = load(turned, 32)
    assert small.size == (160, 120)  # a quarter: an eighth would be less than twice 32
    square = Preprocessing(32).pixels(turned).astype(int)
    assert np.abs(square - Preprocessing(32).pixels(upright)).mean() < 3


# ---- modes -----------------------------------------------------------------------------------


def test_transparency_is_flattened_on_white() -> None:
    image = Image.new("RGBA", (2, 1), (200, 0, 0, 255))
    image.putpixel((1, 0), (200, 0, 0, 0))
    assert pixels(load(encoded(image, "PNG"))).tolist() == [[[200, 0, 0], [255, 255, 255]]]
    half = load(encoded(Image.new("LA", (1, 1), (0, 51)), "PNG"))
    assert pixels(half).tolist() == [[[204, 204, 204]]]  # 255 * (1 - 51 / 255)


@pytest.mark.parametrize("transparent", [1, b"\xff\x00"])
def test_a_palette_with_transparency_is_flattened_on_white(transparent: int | bytes) -> None:
    image = Image.new("P", (2, 1), 0)
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    found = load(encoded(image, "PNG", transparency=transparent))
    assert pixels(found).tolist() == [[[10, 20, 30], [255, 255, 255]]]


def test_cmyk_becomes_rgb() -> None:
    cyan = Image.new("CMYK", (16, 16), (255, 0, 0, 0))
    assert np.abs(pixels(load(encoded(cyan, "JPEG", quality=95))) - (0, 255, 255)).max() < 8


def test_grey_of_16_bits_is_scaled_not_cut_off() -> None:
    values = np.array([[0, 256, 32768, 65535]], np.uint16)
    found = pixels(load(encoded(Image.fromarray(values), "PNG")))
    assert found[0, :, 0].tolist() == [0, 1, 128, 255]
    assert (found[..., 0] == found[..., 2]).all()


def test_black_and_white_and_the_first_frame_of_an_animation() -> None:
    image = Image.new("1", (2, 1), 1)
    image.putpixel((0, 0), 0)
    assert pixels(load(encoded(image, "PNG")))[0, :, 1].tolist() == [0, 255]
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, BLUE)]
    moving = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(pixels(load(moving)) - RED).max() < 8


def test_a_path_bytes_and_an_open_picture_are_one_picture(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    file.write_bytes(encoded(quarters(), "PNG"))
    expected = pixels(quarters())
    for source in (file, str(file), file.read_bytes(), Image.open(file)):
        assert (pixels(load(source)) == expected).all()


def test_an_open_picture_is_left_as_it_was() -> None:
    with Image.open(io.BytesIO(encoded(photo(400, 300), "JPEG"))) as image:
        assert Preprocessing(16).pixels(image).shape == (16, 16, 3)
        assert image.size == (400, 300)


# ---- geometry --------------------------------------------------------------------------------


def test_crop_takes_the_centre_and_squash_takes_everything() -> None:
    stripes = np.zeros((10, 30, 3), np.uint8)
    stripes[:, :10], stripes[:, 10:20], stripes[:, 20:] = RED, GREEN, BLUE
    wide = Image.fromarray(stripes)
    assert (Preprocessing(10, "crop").pixels(wide) == GREEN).all()
    tall = wide.transpose(Image.Transpose.ROTATE_90)
    assert (Preprocessing(10, "crop").pixels(tall) == GREEN).all()
    squashed = Preprocessing(30, "squash", resample="bilinear").pixels(wide)
    assert squashed.shape == (30, 30, 3)
    assert [tuple(squashed[15, x]) for x in (4, 15, 25)] == [RED, GREEN, BLUE]


def test_share_takes_that_part_of_the_shorter_side() -> None:
    image = np.zeros((20, 40, 3), np.uint8)
    image[5:15, 15:25] = 255  # the centred half of the shorter side
    assert (Preprocessing(10, "crop", share=0.5).pixels(Image.fromarray(image)) == 255).all()
    assert Preprocessing(10, "crop", share=1.0).pixels(Image.fromarray(image)).mean() < 80


@pytest.mark.parametrize("size", [(1, 1), (1, 3000), (3000, 2)])
@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_extreme_shapes_become_squares_of_their_colour(size: tuple[int, int], fit: str) -> None:
    found = Preprocessing(8, fit).pixels(Image.new("RGB", size, BLUE))  # type: ignore[arg-type]
    assert found.shape == (8, 8, 3) and (found == BLUE).all()


@pytest.mark.parametrize("fit", ["crop", "squash"])
def test_a_jpeg_decoded_at_a_reduced_scale_is_close_to_full_decoding(fit: str) -> None:
    data = encoded(photo(1000, 700), "JPEG", quality=90)
    preprocessing = Preprocessing(64, fit)  # type: ignore[arg-type]
    assert load(data, 64).size == (250, 175) and load(data).size == (1000, 700)
    reduced, full = preprocessing.pixels(data), preprocessing.pixels(load(data))
    assert np.abs(reduced.astype(int) - full).mean() < 1.5


# ---- refused ---------------------------------------------------------------------------------


@pytest.mark.parametrize("side", [50_000, 9_200, 12_000])
def test_a_decompression_bomb_is_refused_from_its_header(tmp_path: Path, side: int) -> None:
    file = tmp_path / "bomb.png"
    file.write_bytes(png_that_claims(side, side))
    assert file.stat().st_size < 100 and side * side > MAX_PIXELS
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="pixels, expected at most 80 million"):
            load(file)
        assert tracemalloc.get_traced_memory()[1] < 2_000_000
    finally:
        tracemalloc.stop()


def test_bad_files_are_refused_with_their_name_and_a_reason(tmp_path: Path) -> None:
    whole = encoded(photo(200, 100), "PNG")
    files = {
        "truncated.png": (whole[: len(whole) // 2], "cannot be decoded"),
        "truncated.jpg": (truncated_jpeg(), "truncated"),
        "damaged.avif": (damaged_avif(), "cannot be decoded"),
        "text.jpg": (TEXT, "not a picture"),
        "empty.jpg": (b"", "not a picture"),
    }
    for name, (content, reason) in files.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=f"{name}: .*{reason}"):
            load(tmp_path / name)
    with pytest.raises(DataError, match=r"gone\.jpg: there is no such picture"):
        load(tmp_path / "gone.jpg")
    with pytest.raises(DataError, match="cannot be decoded"):
        load(tmp_path)
    with pytest.raises(DataError, match=r"^picture: not a picture"):
        load(b"neither")


@pytest.mark.filterwarnings("ignore")  # Pillow warns of damaged metadata in many words
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF"])
def test_damaged_bytes_give_a_picture_or_a_data_error(kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    options = {} if kind in ("GIF", "BMP") else {"exif": exif}
    whole = encoded(photo(40, 30), kind, **options)
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        data = bytearray(whole)
        for place in rng.integers(0, min(len(data), 400), size=4):
            data[place] = rng.integers(256)
        try:
            assert Preprocessing(16).pixels(bytes(data)).shape == (16, 16, 3)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0 or kind == "BMP"


@pytest.mark.parametrize(
    "kind", [RuntimeError, MemoryError, ZeroDivisionError, AssertionError, KeyError, SystemError]
)
def test_any_exception_of_a_decoder_is_a_damaged_picture(
    kind: type[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = encoded(photo(40, 30), "PNG")

    def fail(image: ImageFile.ImageFile) -> None:
        raise kind

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    with pytest.raises(DataError, match=kind.__name__):
        load(whole)


def test_a_stop_while_decoding_is_not_a_damaged_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = encoded(photo(40, 30), "PNG")

    def stop(image: ImageFile.ImageFile) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ImageFile.ImageFile, "load", stop)
    with pytest.raises(KeyboardInterrupt):
        load(whole)
