"""`deediff evaluate`: whole traces, from images to values with an interval and a floor."""

from __future__ import annotations

import io
import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from deediff.cli import main
from deediff.errors import UserError
from deediff.json_files import write_json
from deediff.models import UViTConfig
from deediff.quality import evaluate, extractors, references
from deediff.quality.evaluate import Evaluator
from deediff.quality.extractors import load_extractor
from deediff.quality.image_sets import TraceImages, real_images
from deediff.quality.jackknife import T_975, standard_error
from deediff.quality.paired import quality_difference
from deediff.quality.results import read_quality
from deediff.traces.reader import read_trace
from tests.conftest import make_model, make_run, sample_trace
from tests.quality.test_distances import gaussian_of


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of 48 grey images of 32×32, in a run that was trained on MNIST."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    config = UViTConfig(img_size=32, patch_size=8, in_chans=1, embed_dim=32, depth=2, num_heads=2)
    make_run(folder, make_model(config=config))
    write_json(folder / "run.json", {"format_version": 1, "status": "done", "dataset": "mnist"})
    return sample_trace(folder, folder / "traces" / "a", 48, "never", "ddim", 2, seed=3, batch_size=20)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(references, "DEFAULT_CACHE", tmp_path / "cache")
    return tmp_path / "cache"


@pytest.fixture
def grey_folders(tmp_path: Path) -> tuple[str, str]:
    rng = np.random.default_rng(0)
    for name in ("real", "held-out"):
        (tmp_path / name).mkdir()
        for i in range(60):
            pixels = rng.integers(0, 256, (32, 32), np.uint8)
            Image.fromarray(pixels).save(tmp_path / name / f"{i}.png")
    return str(tmp_path / "real"), str(tmp_path / "held-out")


def test_a_traces_images_are_all_read_with_their_numbers(digits: Path):
    trace = read_trace(digits)
    images = TraceImages(trace)
    assert len(images) == 48
    assert images.shape == (1, 32)
    numbers = np.concatenate([n for n, _ in images.batches()])
    np.testing.assert_array_equal(numbers, np.arange(48))
    pixels = torch.cat([x for _, x in images.batches()])
    third = np.array(Image.open(io.BytesIO(trace.images(range(3, 4))[0])))
    np.testing.assert_array_equal(pixels[3, 0].numpy(), third)


def test_evaluation_writes_value_interval_and_floor(digits: Path, cache: Path, grey_folders: tuple[str, str]):
    real, held_out = grey_folders
    evaluator = Evaluator(["fd-mnist", "prc-mnist"], real, held_out)
    results = evaluator.evaluate(digits)
    assert [q.metric for q in results] == ["fd-mnist", "kid-mnist", "precision-mnist", "recall-mnist"]
    assert read_quality(digits) == results
    extractor = load_extractor("fd-mnist", torch.device("cpu"))
    drawn = torch.cat([x for _, x in TraceImages(read_trace(digits)).batches()])
    theirs = real_images(real, 1, 32).images[torch.arange(60)]
    expected = gaussian_of(extractor(theirs).numpy()).distance(gaussian_of(extractor(drawn).numpy()))
    fd = results[0]
    assert fd.value == pytest.approx(expected, rel=1e-6)
    assert fd.low is not None
    assert fd.high is not None
    assert fd.floor is not None
    assert fd.low < fd.value < fd.high
    assert fd.high - fd.low > 2 * T_975 * standard_error(np.array(fd.without))  # of the trace's images alone
    assert "include the noise of the reference" in fd.interval
    assert 0 < fd.floor < fd.value  # noise is nearer to noise than this network's images
    assert (fd.images, fd.reference, fd.reference_images, fd.seed) == (48, "real", 60, 3)
    assert not fd.higher_is_better
    assert results[2].higher_is_better
    (cached,) = [f for f in cache.iterdir() if f.name.startswith("real-")]
    assert "fd-mnist" in cached.name


def test_missing_weights_are_reported_and_other_metrics_measured(
    digits: Path, cache: Path, grey_folders: tuple[str, str], offline: Path, capsys: pytest.CaptureFixture[str]
):
    arguments = ["evaluate", str(digits), "--reference", grey_folders[0], "--json"]
    assert main([*arguments, "--metrics", "fid,kid,fd-mnist"]) == 0
    printed = capsys.readouterr()
    rows = json.loads(printed.out)["quality"]
    assert [row["metric"] for row in rows] == ["fd-mnist", "kid-mnist"]
    assert rows[0]["floor"] is None
    assert "fid, kid not measured" in printed.err
    assert str(offline) in printed.err
    assert main([*arguments, "--metrics", "fid"]) == 2
    assert "not measured" in capsys.readouterr().err


def test_traces_of_equal_names_in_different_runs_are_listed_by_path(
    digits: Path, cache: Path, grey_folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    other = tmp_path / "other" / "traces" / digits.name
    shutil.copytree(digits, other)
    options = ["--reference", grey_folders[0], "--metrics", "fd-mnist", "--json"]
    assert main(["evaluate", str(digits), str(other), *options]) == 0
    rows = json.loads(capsys.readouterr().out)["quality"]
    assert {row["trace"] for row in rows} == {str(digits), str(other)}


def test_enough_images_are_extrapolated_to_infinitely_many(
    digits: Path, cache: Path, grey_folders: tuple[str, str], monkeypatch: pytest.MonkeyPatch
):
    assert [q.metric for q in Evaluator(["fd-mnist"], grey_folders[0]).evaluate(digits)] == ["fd-mnist", "kid-mnist"]
    monkeypatch.setattr(evaluate, "LEAST_FOR_INFINITY", 48)
    finite, beyond, _ = Evaluator(["fd-mnist"], *grey_folders).evaluate(digits)
    assert beyond.metric == "fd-mnist-inf"
    assert beyond.low is not None
    assert beyond.low < beyond.value != finite.value
    assert beyond.floor is None
    assert beyond.protocol != finite.protocol
    with pytest.raises(UserError, match="no interval of its own"):
        quality_difference(beyond, beyond)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--metrics", "fidelity"], "unknown metric fidelity"),
        (["--metrics", "fd-cifar", "--reference", "{real}"], "compares RGB images of 32×32"),
        (["--reference", "cifar100"], "neither cifar10-train"),
        (["--reference", "{empty}"], "no images below"),
    ],
)
def test_bad_input_is_one_sentence(
    digits: Path,
    cache: Path,
    grey_folders: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    says: str,
):
    (tmp_path / "empty").mkdir()
    filled = [a.format(real=grey_folders[0], empty=tmp_path / "empty") for a in arguments]
    assert main(["evaluate", str(digits), *filled]) == 2
    printed = capsys.readouterr()
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert says in error
    assert "Traceback" not in printed.err


def test_too_few_images_are_refused(digits: Path, tmp_path: Path):
    few = sample_trace(digits.parent.parent, tmp_path / "few", 8, "never", "ddim", 1, batch_size=8)
    with pytest.raises(UserError, match="expected at least 40"):
        Evaluator().evaluate(few)


@pytest.mark.slow  # 70 000 digits through the classifier
def test_the_training_images_are_the_default_reference(digits: Path, cache: Path, shared: Path):
    results = Evaluator(data_root=shared / "data").evaluate(digits)
    assert {q.reference for q in results} == {"mnist-train"}
    assert results[0].reference_images == 60_000
    assert "48 images of mnist-test" in results[0].floor_source
    assert results[0].floor is not None
    assert results[0].value > 5 * results[0].floor


@pytest.mark.slow
def test_fid_is_torch_fidelitys_own_on_the_same_folders_even_offline(
    digits: Path, cache: Path, grey_folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An Inception with random weights, on the path of the real one."""
    from deediff import _torchvision  # noqa: F401, I001
    import torch_fidelity
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    known = extractors.PRETRAINED["inception-v3"]
    with monkeypatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        torch.manual_seed(0)
        network = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.save(network.state_dict(), tmp_path / known.file)
    monkeypatch.setitem(
        extractors.PRETRAINED,
        "inception-v3",
        replace(known, sha256=extractors.file_sha256(tmp_path / known.file)),
    )
    results = Evaluator(["fid", "kid"], grey_folders[0], None, weights=tmp_path).evaluate(digits)
    folder = tmp_path / "drawn"
    folder.mkdir()
    for number, png in enumerate(read_trace(digits).images(range(48))):
        (folder / f"{number:03d}.png").write_bytes(png)
    expected = torch_fidelity.calculate_metrics(
        input1=str(folder),
        input2=grey_folders[0],
        fid=True,
        kid=True,
        kid_subsets=1,
        kid_subset_size=48,
        feature_extractor_weights_path=str(tmp_path / known.file),
        cuda=False,
        verbose=False,
        cache=False,
        save_cpu_ram=True,
    )
    assert results[0].value == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert results[1].value == pytest.approx(expected["kernel_inception_distance_mean"], rel=0.2)
