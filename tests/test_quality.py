"""Distances between sets of images: closed forms, other people's code, and what an interval must do."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from deediff.checkpoints import write_json
from deediff.cli import main
from deediff.errors import UserError
from deediff.models import UViTConfig
from deediff.quality import evaluate, extractors, references
from deediff.quality.collect import Stopped, Watch, features_of
from deediff.quality.evaluate import Evaluator, evaluate_trace
from deediff.quality.extractors import Extractor, MissingWeights, find_weights, load_extractor
from deediff.quality.frechet import Gaussian, Moments, frechet, frechet_infinity
from deediff.quality.image_sets import RealImages, TraceImages, real_images
from deediff.quality.jackknife import GROUPS, Estimate, group_of
from deediff.quality.kernels import cmmd, cmmd_within, gaussian, kid, kid_within
from deediff.quality.manifold import precision_recall, radii
from deediff.quality.paired import difference
from deediff.quality.references import reference_of
from deediff.quality.results import Quality, read_quality, write_quality
from deediff.traces.reader import read_trace
from deediff.traces.writer import sample_to_trace
from tests.conftest import make_model, make_run


def draw(count: int, size: int = 6, seed: int = 0, shift: float = 0.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(size, size))
    return (rng.normal(size=(count, size)) @ mix + shift).astype(np.float32)


def gaussian_of(features: np.ndarray) -> Gaussian:
    origin = features.mean(axis=0, dtype=np.float64)
    return Moments.of(features, origin).gaussian(origin)


# --- distances -------------------------------------------------------------------------------------------


def test_distance_of_two_gaussians_is_the_closed_form():
    rotation = np.linalg.qr(np.random.default_rng(0).normal(size=(5, 5)))[0]
    a, b = np.array([1.0, 4.0, 9.0, 0.25, 1.0]), np.array([4.0, 1.0, 1.0, 0.25, 16.0])
    shift = np.arange(5.0)
    first = Gaussian(np.zeros(5), rotation @ np.diag(a) @ rotation.T)
    second = Gaussian(shift, rotation @ np.diag(b) @ rotation.T)
    expected = (shift**2).sum() + ((np.sqrt(a) - np.sqrt(b)) ** 2).sum()  # commuting covariances
    assert first.distance(second) == pytest.approx(expected, rel=1e-9)
    assert second.distance(first) == pytest.approx(expected, rel=1e-9)
    assert first.distance(first) == pytest.approx(0, abs=1e-9)


def test_frechet_distance_is_torch_fidelitys():
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    x, y = draw(400), draw(500, seed=1, shift=0.3)
    theirs = [fid_features_to_statistics(torch.from_numpy(z.astype(np.float64))) for z in (x, y)]
    expected = fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    assert frechet(x, None, gaussian_of(y)).value == pytest.approx(expected, rel=1e-6)


def test_moments_add_up_like_the_features_they_come_from():
    x = draw(300, shift=50)
    origin = np.full(6, 49.0)
    a, b, whole = (Moments.of(part, origin) for part in (x[:100], x[100:], x))
    for one, other in ((a + b, whole), (whole - b, a)):
        assert one.count == other.count
        np.testing.assert_allclose(one.outer, other.outer, rtol=1e-9, atol=1e-6)
    np.testing.assert_allclose(whole.gaussian(origin).covariance, np.cov(x.astype(np.float64), rowvar=False), rtol=1e-6)


def test_kid_is_torch_fidelitys_on_one_subset_of_everything():
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity.metric_kid import kid_features_to_metric

    x, y = draw(200), draw(200, seed=1, shift=0.5)
    theirs = kid_features_to_metric(
        torch.from_numpy(x), torch.from_numpy(y), kid_subsets=1, kid_subset_size=200, verbose=False
    )
    ours = kid(x, None, y, kid_within(y))
    assert ours.value == pytest.approx(theirs["kernel_inception_distance_mean"], rel=1e-5)


def test_kid_of_two_halves_of_one_set_is_near_zero():
    x, y, other = draw(2000), draw(2000, seed=1), draw(2000, seed=2, shift=0.5)
    within = kid_within(y)
    same = kid(x, group_of(np.arange(2000)), y, within)
    assert same.interval[0] < 0 < same.interval[1]
    assert kid(other, None, y, within).value > 20 * abs(same.value)
    assert abs(kid(y, None, y, within).value) < 0.05 * within  # identical sets: only the diagonal's share


def test_cmmd_of_identical_sets_is_zero_and_follows_its_kernel():
    x, y = draw(50), draw(60, seed=1, shift=1)
    assert cmmd(y, None, y, cmmd_within(y)).value == pytest.approx(0, abs=1e-9)
    a, b = torch.from_numpy(x.astype(np.float64)), torch.from_numpy(y.astype(np.float64))
    brute = [torch.exp(-(torch.cdist(p, q) ** 2) / 200).mean() for p, q in ((a, a), (b, b), (a, b))]
    expected = 1000 * float(brute[0] + brute[1] - 2 * brute[2])
    assert cmmd(x, None, y, cmmd_within(y)).value == pytest.approx(expected, rel=1e-6)
    assert float(gaussian(a[:1], a[:1])) == pytest.approx(1)


def test_precision_and_recall_are_torch_fidelitys():
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity.metric_prc import calculate_precision_recall_full

    fake, real = draw(150, shift=0.8), draw(220, seed=1)
    precision, recall = precision_recall(fake, None, real, radii(real))
    expected = calculate_precision_recall_full(torch.from_numpy(fake), torch.from_numpy(real))
    assert (precision.value, recall.value) == pytest.approx(expected, abs=1e-6)
    assert 0.1 < recall.value < 0.99
    assert 0.1 < precision.value < 0.99


# --- intervals -------------------------------------------------------------------------------------------


def test_every_leave_out_is_what_the_rest_alone_gives():
    x, y = draw(160, shift=0.4), draw(200, seed=1)
    groups = group_of(np.random.default_rng(0).permutation(160))
    reference, real = gaussian_of(y), radii(y)

    def measured(x: np.ndarray, groups: np.ndarray | None) -> dict[str, Estimate]:
        precision, recall = precision_recall(x, groups, y, real)
        return {
            "frechet": frechet(x, groups, reference),
            "kid": kid(x, groups, y, kid_within(y)),
            "cmmd": cmmd(x, groups, y, cmmd_within(y)),
            "precision": precision,
            "recall": recall,
        }

    whole = measured(x, groups)
    for g in (0, 7, GROUPS - 1):
        for name, alone in measured(x[groups != g], None).items():
            assert whole[name].without[g] == pytest.approx(alone.value, rel=1e-6, abs=1e-9), name


def test_the_interval_covers_the_mean_over_new_draws_of_as_many_images():
    reference = gaussian_of(draw(20_000, size=3, seed=1))
    found = [frechet(draw(200, 3, seed, shift=0.3), group_of(np.arange(200)), reference) for seed in range(1000, 1150)]
    mean = np.mean([estimate.value for estimate in found])
    covered = np.mean([low <= mean <= high for low, high in (estimate.interval for estimate in found)])
    assert 0.88 <= covered <= 0.99


def test_infinity_takes_away_the_bias_of_few_images():
    wide, narrow = draw(6000, 16, shift=0.1), gaussian_of(draw(200_000, 16, seed=1))
    mix = np.random.default_rng(99).normal(size=(16, 16))
    truth = Gaussian(np.full(16, 0.1), mix.T @ mix).distance(Gaussian(np.zeros(16), mix.T @ mix))
    raw = frechet(wide[:1000], None, narrow).value
    value, error = frechet_infinity(wide, narrow)
    assert abs(value - truth) < 0.25 * abs(raw - truth)
    assert error > 0


def quality(features: np.ndarray, reference: Gaussian, seed: int | None = 0, **fields: Any) -> Quality:
    estimate = frechet(features, group_of(np.arange(len(features))), reference)
    entry = Quality(
        "fd-cifar", "fd-cifar", estimate.value, *estimate.interval, "", len(features), "cifar10-train", "key", 50_000,
        None, None, "", "cpu", without=tuple(estimate.without), seed=seed,
    )  # fmt: skip
    return replace(entry, **fields)


def test_pairing_by_seed_sees_differences_that_independent_seeds_hide():
    reference = gaussian_of(draw(20_000, seed=1))
    x = draw(1000, shift=0.3)
    nearly = (x + 0.02).astype(np.float32)
    one, other = quality(nearly, reference), quality(x, reference)
    paired, blind = difference(one, other), difference(one, replace(other, seed=5))
    assert paired.paired
    assert not blind.paired
    assert paired.value == blind.value == one.value - other.value
    assert not paired.inside_noise
    assert blind.inside_noise
    assert paired.detectable < 0.2 * blind.detectable
    assert difference(one, one).inside_noise


def test_values_of_different_protocols_are_never_compared():
    reference = gaussian_of(draw(2000, seed=1))
    one = quality(draw(100), reference)
    for change in (
        {"metric": "fid"}, {"extractor": "inception-v3"}, {"reference_key": "other"}, {"images": 99},
    ):  # fmt: skip
        with pytest.raises(UserError, match="not comparable"):
            difference(one, replace(one, **change))


def test_a_new_result_replaces_the_old_one_of_its_protocol_only(tmp_path: Path):
    reference = gaussian_of(draw(2000, seed=1))
    one = quality(draw(100), reference)
    write_quality(tmp_path, [one, replace(one, metric="kid-cifar")])
    write_quality(tmp_path, [replace(one, value=3.0)])
    assert [(q.metric, q.value) for q in read_quality(tmp_path)] == [("fd-cifar", 3.0), ("kid-cifar", one.value)]
    assert read_quality(tmp_path)[0].without == one.without


# --- extractors, references ------------------------------------------------------------------------------


class Noise(RealImages):
    """Random grey images."""

    def __init__(self, count: int, seed: int = 0):
        rng = torch.Generator().manual_seed(seed)
        super().__init__(f"noise{seed}", torch.randint(0, 256, (count, 1, 32, 32), dtype=torch.uint8, generator=rng))


def means(key: str = "means") -> Extractor:
    """Twelve features that need no network."""
    return Extractor(
        "means", key, lambda x: x.float().unfold(2, 8, 8).unfold(3, 8, 8).mean((1, 4, 5)).flatten(1)[:, :12],
        torch.device("cpu"),
    )  # fmt: skip


def test_features_come_in_order_and_leave_nothing_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    images = Noise(600)
    told: list[int] = []
    with features_of(images, means(), Watch(lambda what, done, total: told.append(done))) as (numbers, features):
        np.testing.assert_array_equal(numbers, np.arange(600))
        np.testing.assert_array_equal(features, means()(images.images[torch.arange(600)]).numpy())
        assert list(tmp_path.iterdir())
    assert not list(tmp_path.iterdir())
    assert told == [256, 512, 600]


class Stream:
    """Images made as they are asked for."""

    name = "stream"

    def __init__(self, count: int):
        self.count = count

    def __len__(self) -> int:
        return self.count

    def batches(self) -> Iterator[tuple[np.ndarray, torch.Tensor]]:
        for index in torch.arange(self.count).split(256):
            pixels = index[:, None, None, None].expand(-1, 1, 32, 32)
            yield index.numpy(), (pixels * 7919 % 251).to(torch.uint8)


def test_memory_does_not_grow_with_the_number_of_images():
    """Anonymous memory: the features' file is the system's to drop."""
    repeated = Extractor("wide", "wide", lambda x: x.float().flatten(1)[:, :512], torch.device("cpu"))
    reference = gaussian_of(np.random.default_rng(0).normal(size=(600, 512)).astype(np.float32))

    def anonymous() -> float:
        (line,) = [li for li in Path("/proc/self/status").read_text().splitlines() if li.startswith("RssAnon")]
        return int(line.split()[1]) / 1024  # MiB

    def peak(count: int) -> float:
        highest: list[float] = []
        watch = Watch(lambda what, done, total: highest.append(anonymous()))
        with features_of(Stream(count), repeated, watch) as (numbers, features):
            frechet(features, group_of(numbers), reference)
            highest.append(anonymous())
        return max(highest)

    peak(2000)  # whatever is allocated once
    small, large = peak(2000), peak(40_000)  # 78 MiB of features
    assert large - small < 30


def test_cancelling_stops_between_batches():
    with pytest.raises(Stopped), features_of(Noise(600), means(), Watch(cancelled=lambda: True)):
        pytest.fail("it went on")


def test_a_reference_is_computed_once_and_again_only_when_something_that_matters_differs(tmp_path: Path):
    calls: list[str] = []

    def counted(key: str) -> Extractor:
        inner = means(key)
        return replace(inner, extract=lambda x: (calls.append(key), inner.extract(x))[1])

    first = reference_of(Noise(300), counted("a"), Watch(), tmp_path)
    assert calls
    again, calls[:] = reference_of(Noise(300), counted("a"), Watch(), tmp_path), []
    assert not calls
    np.testing.assert_array_equal(first.gaussian.covariance, again.gaussian.covariance)
    np.testing.assert_array_equal(np.sort(first.features[:, 0]), np.sort(again.features[:, 0]))
    assert first.key == again.key
    for images, key in ((Noise(300), "b"), (Noise(300, seed=1), "a"), (Noise(301), "a")):
        calls.clear()
        assert reference_of(images, counted(key), Watch(), tmp_path).key != first.key
        assert calls
    for file in tmp_path.iterdir():
        file.write_bytes(file.read_bytes()[:100])
    calls.clear()
    assert reference_of(Noise(300), counted("a"), Watch(), tmp_path).count == 300
    assert calls


def test_a_folders_key_follows_its_files(tmp_path: Path, image_folder: Path):
    before = real_images(str(image_folder), 3, 16).digest()
    assert real_images(str(image_folder), 3, 16).digest() == before
    assert real_images(str(image_folder), 3, 8).digest() != before
    Image.new("RGB", (20, 20), "red").save(image_folder / "new.png")
    assert real_images(str(image_folder), 3, 16).digest() != before


@pytest.mark.parametrize("name", extractors.SMALL)
def test_the_shipped_classifier_is_as_accurate_as_it_says(name: str, shared: Path):
    from deediff.datasets import load_labels

    info = json.loads((extractors.SHIPPED / f"{name}.json").read_text())
    dataset = info["config"]["dataset"]
    images = real_images(f"{dataset}-test", info["in_chans"], 32, shared / "data").images
    labels = load_labels(dataset, shared / "data", train=False)
    extractor = load_extractor(name, torch.device("cpu"))
    index = torch.arange(1500)
    features = extractor(images[index])
    assert features.shape == (1500, 64)
    # Nearest class mean in feature space: a classifier needs features that separate the classes.
    centres = torch.stack([features[labels[index] == c].mean(0) for c in range(10)])
    nearest = torch.cdist(features, centres).argmin(1)
    assert float((nearest == labels[index]).float().mean()) > info["accuracy"] - 0.05
    assert info["accuracy"] >= 0.85
    assert info["command"].startswith("python -m trainer.run features")
    assert (extractors.SHIPPED / f"{name}.safetensors").stat().st_size <= 1_000_000


def test_weights_that_are_not_the_published_ones_are_never_loaded(tmp_path: Path):
    known = extractors.PRETRAINED["inception-v3"]
    (tmp_path / known.file).write_bytes(b"a pickle that would run anything")
    with pytest.raises(UserError, match="SHA-256"):
        find_weights(known, tmp_path)


@pytest.mark.parametrize(("name", "length"), [("clip-vit-l-14-336", 1.0), ("vgg16", 5.0)])
def test_pretrained_networks_get_colour_and_clip_alone_is_normalised(
    name: str, length: float, monkeypatch: pytest.MonkeyPatch
):
    """Everything but the network and its weights is real: which layer, three channels, length 1 for CMMD's kernel."""
    from deediff import _torchvision  # noqa: F401, I001
    from torch_fidelity import utils

    class Network(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> tuple[torch.Tensor]:
            assert images.shape == (2, 3, 32, 32)
            assert images.dtype == torch.uint8
            return (torch.tensor([[3.0, 4.0]]).expand(2, 2),)

    def create(registered: str, layers: list[str], **options: Any) -> Network:
        cls = utils.FEATURE_EXTRACTORS_REGISTRY[registered]
        assert set(layers) <= set(cls.get_provided_features_list())
        assert options["feature_extractor_weights_path"] == "weights"
        return Network()

    monkeypatch.setattr(utils, "create_feature_extractor", create)
    monkeypatch.setattr(extractors, "find_weights", lambda known, weights: "weights")
    features = load_extractor(name, torch.device("cpu"))(torch.zeros(2, 1, 32, 32, dtype=torch.uint8))
    assert features.norm(dim=1).tolist() == pytest.approx([length, length])


@pytest.fixture
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    def no_network(*_: object, **__: object) -> None:
        raise OSError("Network is unreachable")

    monkeypatch.setattr(torch.hub, "download_url_to_file", no_network)
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


def test_absent_weights_are_one_sentence_with_file_and_place(offline: Path):
    known = extractors.PRETRAINED["clip-vit-l-14-336"]
    with pytest.raises(MissingWeights) as caught:
        find_weights(known)
    for part in (known.file, known.url, str(offline)):
        assert part in str(caught.value)


# --- whole traces ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trace of 48 grey images of 32×32, in a run that was trained on MNIST."""
    folder = tmp_path_factory.mktemp("digits") / "run"
    config = UViTConfig(img_size=32, patch_size=8, in_chans=1, embed_dim=32, depth=2, num_heads=2)
    make_run(folder, make_model(config=config))
    write_json(folder / "run.json", {"format_version": 1, "status": "done", "dataset": "mnist"})
    return sample_to_trace(folder, folder / "traces" / "a", 48, "never", "ddim", 2, seed=3, batch_size=20)


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
    assert 0 < fd.floor < fd.value  # noise against noise is nearer than this network's images
    assert (fd.images, fd.reference, fd.reference_images, fd.seed) == (48, "real", 60, 3)
    assert not fd.higher_is_better
    assert results[2].higher_is_better
    (cached,) = [f for f in cache.iterdir() if f.name.startswith("real-")]
    assert "fd-mnist" in cached.name


def test_what_cannot_be_measured_is_said_and_the_rest_is(
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
        difference(beyond, beyond)


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
    digits: Path, cache: Path, grey_folders: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str],
    arguments: list[str], says: str,
):  # fmt: skip
    (tmp_path / "empty").mkdir()
    filled = [a.format(real=grey_folders[0], empty=tmp_path / "empty") for a in arguments]
    assert main(["evaluate", str(digits), *filled]) == 2
    printed = capsys.readouterr()
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ")
    assert says in error
    assert "Traceback" not in printed.err


def test_too_few_images_are_refused(digits: Path, tmp_path: Path):
    few = sample_to_trace(digits.parent.parent, tmp_path / "few", 8, "never", "ddim", 1, batch_size=8)
    with pytest.raises(UserError, match="expected at least 40"):
        evaluate_trace(few)


@pytest.mark.slow  # 70 000 digits through the classifier
def test_the_training_images_are_the_default_reference(digits: Path, cache: Path, shared: Path):
    results = evaluate_trace(digits, data_root=shared / "data")
    assert {q.reference for q in results} == {"mnist-train"}
    assert results[0].reference_images == 60_000
    assert "48 images of mnist-test" in results[0].floor_source
    assert results[0].floor is not None
    assert results[0].value > 5 * results[0].floor


@pytest.mark.slow
def test_fid_is_torch_fidelitys_own_on_the_same_folders_even_offline(
    digits: Path, cache: Path, grey_folders: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """An Inception of random weights, found, checked, loaded and run as the real one would be."""
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
        input1=str(folder), input2=grey_folders[0], fid=True, kid=True, kid_subsets=1, kid_subset_size=48,
        feature_extractor_weights_path=str(tmp_path / known.file), cuda=False, verbose=False, cache=False,
        save_cpu_ram=True,
    )  # fmt: skip
    assert results[0].value == pytest.approx(expected["frechet_inception_distance"], rel=1e-3)
    assert results[1].value == pytest.approx(expected["kernel_inception_distance_mean"], rel=0.2)
