"""`quality.json` of a trace: every metric with its interval, floor and protocol."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from deediff.errors import UserError
from deediff.json_files import FORMAT_VERSION, read_json, write_json
from deediff.storage import AnyPath


@dataclass(frozen=True)
class Quality:
    """One metric of one trace."""

    metric: str  # fid, fid-inf, kid, cmmd, precision, recall, fd-cifar, kid-cifar, …
    extractor: str  # of the features: inception-v3, clip-vit-l-14-336, fd-cifar, …
    value: float
    low: float | None  # 95 % interval of the value
    high: float | None
    interval: str  # method of the interval, and bias
    images: int  # N of the trace
    reference: str  # cifar10-train, or a folder's name
    reference_key: str  # digest of the reference's images, extractor and preprocessing
    reference_images: int
    floor: float | None  # the metric of held-out real images at the same N, mean of draws
    floor_spread: float | None  # standard deviation over the draws
    floor_source: str  # the real images and the number of draws
    device: str
    higher_is_better: bool = False
    without: tuple[float, ...] = ()  # values without each group of samples, for paired comparisons
    seed: int | None = None  # of the trace

    @property
    def protocol(self) -> tuple[str, str, str, int]:
        """Values are comparable only when this is equal: metric, extractor, reference and N."""
        return self.metric, self.extractor, self.reference_key, self.images


def read_quality(trace: AnyPath) -> list[Quality]:
    """The results of `deediff evaluate` in a trace's folder; empty if there are none.

    Raises UserError when the file is damaged.
    """
    file = trace / "quality.json"
    if not file.exists():
        return []
    content = read_json(file)
    try:
        if content["format_version"] != FORMAT_VERSION:
            raise ValueError(f"format_version is {content['format_version']}, expected {FORMAT_VERSION}")
        return [Quality(**{**entry, "without": tuple(entry["without"])}) for entry in content["metrics"]]
    except (KeyError, TypeError, ValueError) as error:
        raise UserError(f"{file} is not a quality file ({error}): delete it and evaluate again") from None


def write_quality(trace: AnyPath, results: list[Quality]) -> None:
    """Add results to the trace's file; they replace those of the same metric, extractor, reference and N."""
    kept = {result.protocol: result for result in [*read_quality(trace), *results]}
    entries: list[dict[str, Any]] = [asdict(result) for result in kept.values()]
    write_json(trace / "quality.json", {"format_version": FORMAT_VERSION, "metrics": entries})
