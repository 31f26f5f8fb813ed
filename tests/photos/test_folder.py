"""Folders of photos: what is found, checked, counted and numbered."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from deediff.datasets import load_images, load_labels
from deediff.errors import UserError
from deediff.photos import check
from deediff.photos.files import find_photos, natural_order
from deediff.photos.folder import FolderImages
from deediff.photos.options import PhotoOptions

SKIP = PhotoOptions(skip_bad=True)


def save(path: Path, level: int = 100) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16), (level,) * 3).save(path)
    return path


def found(folder: Path) -> list[str]:
    return [str(path.relative_to(folder)) for path in find_photos(folder).paths]


def test_linked_folders_are_followed_and_cycles_end(tmp_path: Path) -> None:
    root, elsewhere = tmp_path / "root", tmp_path / "elsewhere"
    save(root / "a" / "1.png"), save(elsewhere / "2.png")
    (root / "b").symlink_to(elsewhere)
    (root / "a" / "up").symlink_to(root)
    (elsewhere / "self").symlink_to(elsewhere)
    (root / "file.png").symlink_to(elsewhere / "2.png")
    assert found(root) == ["a/1.png", "b/2.png", "file.png"]
    assert find_photos(root).passed_over == {"links to a folder above": 2}


@pytest.mark.parametrize(
    "junk",
    [
        *(".hidden.png", "._photo.png", ".cache/1.png", "__MACOSX/1.png", ".ipynb_checkpoints/1.png", "Thumbs.db"),
        *("a/.DS_Store", "@eaDir/1.png", "desktop.ini", "readme.txt", "movie.mp4", "paper.pdf"),
    ],
)
def test_junk_is_passed_over_and_counted(tmp_path: Path, junk: str) -> None:
    save(tmp_path / "1.png")
    path = tmp_path / junk
    if path.suffix == ".png":
        save(path)
    else:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"junk")
    assert found(tmp_path) == ["1.png"]
    assert find_photos(tmp_path).passed_over.total() == 1


def test_a_hidden_root_is_read(tmp_path: Path) -> None:
    save(tmp_path / ".cache" / "1.png")
    assert found(tmp_path / ".cache") == ["1.png"]


def test_a_folder_named_like_a_picture_is_a_folder(tmp_path: Path) -> None:
    save(tmp_path / "album.jpg" / "1.png")
    assert found(tmp_path) == ["album.jpg/1.png"]


@pytest.mark.parametrize("suffix", [".gif", ".avif", ".JPG", ".webp", ".ppm", ".tga", ".jp2", ".ico", ".jfif"])
def test_every_format_that_pillow_opens_is_opened(tmp_path: Path, suffix: str) -> None:
    save(tmp_path / f"1{suffix}", 255)
    assert load_images(str(tmp_path), 16, 3)[torch.tensor([0])].float().mean() > 250


def test_a_picture_without_a_suffix_is_known_by_its_content(tmp_path: Path) -> None:
    save(tmp_path / "1.png").rename(tmp_path / "n01440764")
    (tmp_path / "LICENSE").write_text("text")
    assert found(tmp_path) == ["n01440764"]


def test_a_missing_plugin_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("deediff.photos.files.picture_suffixes", lambda: frozenset({".png"}))
    (tmp_path / "1.heic").write_bytes(b"x")
    with pytest.raises(UserError, match=r"no images below .* 1 \.heic, which needs pillow-heif"):
        load_images(str(tmp_path), 16, 3)


def test_classes_are_in_natural_order(tmp_path: Path) -> None:
    for level, name in enumerate(["10", "1", "2", "cat", "Dog"]):
        save(tmp_path / name / "1.png", level)
    images = FolderImages(tmp_path, 16, 3)
    assert images.class_names == ["1", "2", "10", "cat", "Dog"]
    levels = images[torch.arange(5)][:, 0, 0, 0]
    numbers = dict(zip(levels.tolist(), images.labels().tolist(), strict=True))
    assert numbers == {1: 0, 2: 1, 0: 2, 3: 3, 4: 4}
    assert torch.equal(load_labels(str(tmp_path)), images.labels())
    assert natural_order("img9") < natural_order("img10")


def break_file(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:50])


def test_all_unreadable_files_are_listed_and_can_be_skipped(tmp_path: Path) -> None:
    for name in ("good.png", "cut.png", "empty.png", "text.jpg", "sub/gone.png"):
        save(tmp_path / name)
    break_file(tmp_path / "cut.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    (tmp_path / "sub" / "gone.png").unlink()
    (tmp_path / "sub" / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "notes.txt").write_text("")
    with pytest.raises(UserError) as error:
        load_images(str(tmp_path), 16, 3)
    message = str(error.value)
    assert message.startswith("4 of 5 pictures below")
    assert "--skip-bad" in message
    for line in (r"cut.png: ", "empty.png: it is empty", "text.jpg: it is no picture", "sub/gone.png: No such file"):
        assert line in message
    images = FolderImages(tmp_path, 16, 3, SKIP)
    assert images.counts() == {"found": 6, "used": 1, "passed_over": {"unreadable": 4, ".txt": 1}}
    assert "6 files found, 1 pictures used; passed over: 4 unreadable, 1 .txt" in images.summary()


@pytest.mark.parametrize("kind", [SyntaxError, ZeroDivisionError, MemoryError, RecursionError, OSError])
def test_whatever_a_decoder_raises_is_a_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Exception]
) -> None:
    save(tmp_path / "1.png")

    def decoder(*_: object) -> None:
        raise kind("broken chunk")

    monkeypatch.setattr(check, "read_photo", decoder)
    with pytest.raises(UserError, match=r"1\.png: broken chunk"):
        FolderImages(tmp_path, 16, 3)


def counted(monkeypatch: pytest.MonkeyPatch) -> list[object]:
    decoded: list[object] = []
    original: Callable[..., object] = check.read_photo

    def decoder(*arguments: object) -> object:
        decoded.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(check, "read_photo", decoder)
    return decoded


def test_a_check_is_remembered_by_size_and_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = save(tmp_path / "1.png"), save(tmp_path / "2.png")
    decoded = counted(monkeypatch)
    FolderImages(tmp_path, 16, 3)
    FolderImages(tmp_path, 16, 3)
    assert len(decoded) == 2
    os.utime(first, (1, 1))
    FolderImages(tmp_path, 16, 3)
    assert len(decoded) == 3
    break_file(second)
    for _ in range(2):  # an unreadable file is tried again: its disk may have been missing
        with pytest.raises(UserError, match=r"1 of 2 pictures .*\n  2\.png"):
            FolderImages(tmp_path, 16, 3)
    assert len(decoded) == 5


def test_a_lost_file_is_replaced_by_one_of_its_class_and_reported(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for level, name in enumerate(["a/1", "a/2", "b/1", "b/2"]):
        save(tmp_path / f"{name}.png", level)
    strict = FolderImages(tmp_path, 16, 3)
    lenient = FolderImages(tmp_path, 16, 3, PhotoOptions(replace_lost=True))
    break_file(tmp_path / "a" / "2.png")
    (tmp_path / "b" / "1.png").unlink()
    for _ in range(2):
        assert lenient[torch.arange(4)][:, 0, 0, 0].tolist() == [0, 0, 3, 3]
    assert capsys.readouterr().err.count("takes its place") == 2
    with pytest.raises(UserError, match=r"2\.png cannot be read as an image any more .* remove or replace it"):
        strict[torch.arange(4)]


def test_the_loss_of_a_whole_class_ends_nothing_while_others_can_be_read(tmp_path: Path) -> None:
    for level, name in enumerate(["a/1", "a/2", "b/1", "c/1"]):
        save(tmp_path / f"{name}.png", level)
    images = FolderImages(tmp_path, 16, 3, PhotoOptions(replace_lost=True))
    assert images[torch.tensor([0, 3])][:, 0, 0, 0].tolist() == [0, 3]
    for name in ("a/1", "a/2", "b/1"):
        (tmp_path / f"{name}.png").unlink()
    assert images[torch.arange(4)][:, 0, 0, 0].tolist() == [0, 0, 3, 3]  # of a the last one read, of b another
    (tmp_path / "c" / "1.png").unlink()
    with pytest.raises(UserError, match=r"no picture below .* can be read any more"):
        images[torch.arange(4)]


def test_a_folder_is_its_content(tmp_path: Path) -> None:
    for place in ("a", "b"):
        save(tmp_path / place / "1.png", 1), save(tmp_path / place / "2.png", 2)
    (tmp_path / "a" / "2.png").rename(tmp_path / "a" / "other.png")
    one, other = (FolderImages(tmp_path / place, 16, 3).digest() for place in ("a", "b"))
    assert one == other
    assert FolderImages(tmp_path / "a", 16, 3, PhotoOptions("black")).digest() != one
    save(tmp_path / "b" / "2.png", 3)
    os.utime(tmp_path / "b" / "2.png", (5, 5))
    assert FolderImages(tmp_path / "b", 16, 3).digest() != one


def test_channels_that_no_picture_has_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "1.png")
    with pytest.raises(UserError, match="1 or 3 channels, but the model takes 5"):
        load_images(str(tmp_path), 16, 5)


def test_folders_that_all_link_to_each_other_are_read_once_per_class(tmp_path: Path) -> None:
    """Along every path there would be millions of pictures."""
    for i in range(9):
        save(tmp_path / f"{i}" / "1.png", i)
        for k in set(range(9)) - {i}:
            (tmp_path / f"{i}" / f"to-{k}").symlink_to(tmp_path / f"{k}")
    images = FolderImages(tmp_path, 16, 3)
    assert torch.bincount(images.labels()).tolist() == [9] * 9
    assert images.passed_over["further links to a folder"]


@pytest.mark.skipif(sys.platform != "linux", reason="file names of any bytes")
def test_names_of_any_bytes_are_listed_on_one_line_each(tmp_path: Path) -> None:
    folder = tmp_path / os.fsdecode(b"\xff")
    save(folder / "good.png")
    for name in ("two\nlines.png", os.fsdecode(b"\xfe.png")):
        (folder / name).write_bytes(b"x")
    with pytest.raises(UserError, match=r"\n  two\\nlines\.png: .*\n  \\udcfe\.png: ") as error:
        FolderImages(folder, 16, 3)
    assert str(error.value).count("\n") == 2
    assert len(FolderImages(folder, 16, 3, PhotoOptions(skip_bad=True))) == 1
