"""A photo reaches the network as its owner sees it."""

from __future__ import annotations

import io
import struct
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageCms, ImageFilter

from deediff.photos.decode import PixelFormat, read_photo

COLOUR, GREY = PixelFormat(16, 3), PixelFormat(16, 1)
TURNED = {  # EXIF orientation → how its owner's picture is stored
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.transpose(1, 0, 2),
    6: lambda a: np.rot90(a, 1),
    7: lambda a: np.rot90(a, 2).transpose(1, 0, 2),
    8: lambda a: np.rot90(a, -1),
}


def stored(image: Image.Image, kind: str = "PNG", **options: object) -> io.BytesIO:
    file = io.BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def picture(height: int = 23, width: int = 37) -> NDArray[np.uint8]:
    """Of no symmetry, (height, width, 3)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (height, width, 3), np.uint8)


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("orientation", TURNED)
def test_every_orientation_is_undone(orientation: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    lossless = {"lossless": True} if kind == "WEBP" else {}
    turned = Image.fromarray(np.ascontiguousarray(TURNED[orientation](picture())))
    found = read_photo(stored(turned, kind, exif=exif, **lossless), COLOUR)
    np.testing.assert_array_equal(found, read_photo(stored(Image.fromarray(picture())), COLOUR))


def test_an_orientation_that_does_not_exist_turns_nothing() -> None:
    exif = Image.Exif()
    exif[0x0112] = 77
    found = read_photo(stored(Image.fromarray(picture()), exif=exif), COLOUR)
    np.testing.assert_array_equal(found, read_photo(stored(Image.fromarray(picture())), COLOUR))


def with_alpha(alpha: int, mode: str = "RGBA") -> Image.Image:
    colour = (200, 0, 0) if mode == "RGBA" else (200,)
    return Image.new(mode, (16, 16), (*colour, alpha))


@pytest.mark.parametrize(("background", "level"), [("white", 255), ("black", 0)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparent_parts_show_the_background(mode: str, background: str, level: int) -> None:
    wanted = PixelFormat(16, 3, background)  # type: ignore[arg-type]
    assert (read_photo(stored(with_alpha(0, mode)), wanted) == level).all()
    half = read_photo(stored(with_alpha(128, mode)), wanted)[0]
    assert np.abs(half.astype(int) - (200 * 128 + level * 127) / 255).max() <= 1
    assert (read_photo(stored(with_alpha(255, mode)), wanted)[0] == 200).all()


def test_a_colour_under_full_transparency_does_not_bleed_into_its_neighbours() -> None:
    pixels = np.zeros((64, 64, 4), np.uint8)
    pixels[:, :31] = 0, 255, 0, 0  # green that nobody sees
    pixels[:, 31:] = 255, 255, 255, 255
    assert (read_photo(stored(Image.fromarray(pixels)), COLOUR) == 255).all()


@pytest.mark.parametrize("mode", ["P", "L", "RGB"])
def test_a_transparent_palette_entry_or_colour_shows_the_background(mode: str) -> None:
    image = Image.new("RGB", (16, 16), (10, 10, 10)).convert(mode, dither=Image.Dither.NONE)
    key = image.getpixel((0, 0))
    assert (read_photo(stored(image, transparency=key), COLOUR) == 255).all()


def test_a_transparent_value_of_16_bit_greys_shows_the_background() -> None:
    greys = Image.fromarray(np.full((16, 16), 1000, np.uint16))
    file = stored(greys).getvalue()
    chunk = b"tRNS" + (1000).to_bytes(2)
    place = file.index(b"IDAT") - 4
    data = file[:place] + (2).to_bytes(4) + chunk + zlib.crc32(chunk).to_bytes(4) + file[place:]
    assert (read_photo(io.BytesIO(data), GREY) == 255).all()


def test_a_palette_with_alpha_shows_the_background() -> None:
    header = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 1, 32, 0, 0, 16, 16, 8, 0x28)  # TGA with one colour, BGRA
    file = io.BytesIO(header + bytes([255, 0, 255, 0]) + bytes(256))
    assert (read_photo(file, PixelFormat(16, 3, "black")) == 0).all()


def ramp(dtype: type, high: float) -> Image.Image:
    return Image.fromarray(np.linspace(0, high, 256).reshape(16, 16).astype(dtype))


@pytest.mark.parametrize(
    ("image", "kind"),
    [
        (ramp(np.uint16, 65535), "PNG"),
        (ramp(np.uint16, 65535), "TIFF"),
        (ramp(np.int32, 65535), "TIFF"),
        (ramp(np.int32, 255), "TIFF"),
        (ramp(np.int32, 1e6), "TIFF"),
        (ramp(np.float32, 1), "TIFF"),
        (ramp(np.float32, 255), "TIFF"),
        (ramp(np.float32, 1e4), "TIFF"),
    ],
)
def test_deep_greys_are_scaled_by_their_range(image: Image.Image, kind: str) -> None:
    found = read_photo(stored(image, kind), GREY)[0]
    np.testing.assert_allclose(found, np.arange(256).reshape(16, 16), atol=1)
    assert (read_photo(stored(image, kind), COLOUR) == found).all()


def test_a_dark_16_bit_grey_stays_dark_and_a_flat_float_keeps_its_value() -> None:
    dark = Image.fromarray(np.full((16, 16), 257 * 20, np.uint16))
    assert (read_photo(stored(dark), GREY) == 20).all()
    flat = Image.fromarray(np.full((16, 16), 0.2, np.float32))
    assert (read_photo(stored(flat, "TIFF"), GREY) == 51).all()


def test_values_that_are_not_finite_are_ends_of_the_range() -> None:
    values = np.full((16, 16), 0.5, np.float32)
    values[0, 0], values[0, 1] = np.nan, np.inf
    found = read_photo(stored(Image.fromarray(values), "TIFF"), GREY)[0]
    assert (found[0, 0], found[0, 1], found[5, 5]) == (0, 255, 128)


@pytest.mark.parametrize("kind", ["JPEG", "TIFF"])
def test_cmyk_is_converted(kind: str) -> None:
    image = Image.new("CMYK", (16, 16), (0, 255, 255, 0))
    found = read_photo(stored(image, kind), COLOUR).mean(axis=(1, 2))
    assert found[0] > 235
    assert found[1:].max() < 20


def test_an_embedded_profile_is_applied() -> None:
    """In Lab, L = 54, a = 81, b = 70 is the red of sRGB (a and b are stored + 128)."""
    lab = ImageCms.createProfile("LAB")
    image = Image.new("LAB", (16, 16), (138, 209, 198))
    profile = ImageCms.ImageCmsProfile(lab).tobytes()
    found = read_photo(stored(image, "TIFF", icc_profile=profile), COLOUR).mean(axis=(1, 2))
    np.testing.assert_allclose(found, [255, 0, 0], atol=6)


def swapped_srgb() -> bytes:
    """A profile whose red primary is sRGB's green and the reverse, made of the bytes of sRGB."""
    data = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = data.index(b"rXYZ"), data.index(b"gXYZ")
    data[red : red + 4], data[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(data)  # its name still begins with sRGB, as that of linear profiles does


def test_a_profile_decides_the_colours_and_a_damaged_one_is_ignored() -> None:
    red = Image.new("RGB", (16, 16), (255, 0, 0))
    found = read_photo(stored(red, icc_profile=swapped_srgb()), COLOUR).mean(axis=(1, 2))
    np.testing.assert_allclose(found, [0, 255, 0], atol=2)
    own = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for profile in (b"no profile", own):
        plain = read_photo(stored(red, icc_profile=profile), COLOUR).mean(axis=(1, 2))
        np.testing.assert_array_equal(plain, [255, 0, 0])


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "TIFF"])
def test_an_animation_is_its_first_frame(kind: str) -> None:
    first, second = Image.new("RGB", (16, 16), "white"), Image.new("RGB", (16, 16), "black")
    file = stored(first, kind, save_all=True, append_images=[second])
    assert (read_photo(file, COLOUR) == 255).all()


@pytest.mark.parametrize("size", [(37, 23), (23, 37), (16, 16), (5, 9), (700, 500)])
def test_the_square_equals_resizing_the_whole_picture_and_cropping_it(size: tuple[int, int]) -> None:
    image = Image.fromarray(picture(*size)).filter(ImageFilter.GaussianBlur(1))  # no overshoot is clipped
    scale = 16 / min(image.size)
    width, height = (max(16, round(side * scale)) for side in image.size)
    whole = np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
    top, left = (height - 16) // 2, (width - 16) // 2
    found = read_photo(stored(image), COLOUR).transpose(1, 2, 0).astype(int)
    assert np.abs(found - whole[top : top + 16, left : left + 16]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 60_000), (60_000, 1)])
def test_a_long_picture_costs_no_more_than_any_other(shape: tuple[int, int]) -> None:
    long, plain = (stored(Image.fromarray(picture(*s))) for s in (shape, (245, 245)))  # of equal pixels

    def seconds(file: io.BytesIO) -> float:
        started = time.perf_counter()
        for _ in range(5):
            file.seek(0)
            read_photo(file, PixelFormat(64, 3))
        return time.perf_counter() - started

    seconds(plain)
    assert seconds(long) < 20 * seconds(plain) + 0.2  # resized first, it was a thousand times


def test_a_large_jpeg_is_read_at_a_fraction_of_its_size(tmp_path: Path) -> None:
    """With less than a grey level of difference on average."""
    rows, columns = np.mgrid[:2000, :3000]
    pixels = np.stack([rows * 255 / 2000, columns * 255 / 3000, 127 + 120 * np.sin(rows / 40)], 2).astype(np.uint8)
    jpeg = stored(Image.fromarray(pixels), "JPEG", quality=95)
    exact = read_photo(stored(Image.fromarray(pixels)), PixelFormat(64, 3)).astype(float)
    assert np.abs(read_photo(jpeg, PixelFormat(64, 3)) - exact).mean() < 1
