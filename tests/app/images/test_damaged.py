"""Damaged images are a sentence that says so, on every page that shows images."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.app.helpers import FULL, open_app, sentences


def cut(file: Path) -> None:
    """As a full disk leaves it."""
    file.write_bytes(file.read_bytes()[:200])


def overwrite(file: Path) -> None:
    """Damaged before its footer, which can be read."""
    content = bytearray(file.read_bytes())
    content[40 : len(content) // 3] = b"\x55" * (len(content) // 3 - 40)
    file.write_bytes(bytes(content))


def spoil(file: Path) -> None:
    """A readable file whose images are none."""
    table = pq.read_table(file)
    place = table.schema.get_field_index("png")
    pq.write_table(table.set_column(place, "png", pa.array([b"no image"] * len(table), pa.binary())), file)


@pytest.mark.parametrize(
    ("damage", "pages"),
    [
        (cut, ("images", "sample", "compare")),
        (overwrite, ("images", "sample", "compare", "method")),
        (spoil, ("sample", "method")),  # a browser shows an empty frame for the image itself
    ],
)
def test_damaged_images_are_said_and_reach_no_log(
    runs: Path, caplog: pytest.LogCaptureFixture, damage: Callable[[Path], None], pages: tuple[str, ...]
) -> None:
    for file in (runs / "toy" / "traces" / FULL).glob("samples-*.parquet"):
        damage(file)
    for page in pages:
        app = open_app(page, trace=FULL)
        said = sentences(app) + " ".join(caption.value for caption in app.caption)
        assert "damaged" in said, page
        assert "no trace" not in said, page
        assert "server's log" not in said, page
    assert "Traceback" not in caplog.text


def test_many_damaged_files_are_two_sentences(runs: Path) -> None:
    files = sorted((runs / "toy" / "traces" / FULL).glob("samples-*.parquet"))
    assert len(files) > 1
    for file in files:
        cut(file)
    (warning,) = (box.value for box in open_app("trends", trace=FULL).warning)
    assert f"{FULL}: {files[0].name} is truncated" in warning
    assert f"{FULL}: {len(files) - 1} more of its files cannot be read either" in warning
    assert files[1].name not in warning
