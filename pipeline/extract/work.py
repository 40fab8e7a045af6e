"""The part of an extract's plan that workers need; it is sent to Ray actors."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from cache.storage import StorageLocation
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.data.tokenized_dataset import TokenizedExample
from pipeline.extract.batching import most_batch_tokens
from pipeline.extract.provenance import shard_provenance
from pipeline.extract.sharing import SharingPlan
from pipeline.teacher.source import TeacherSource


@dataclass(frozen=True)
class TeacherWork:
    """Input of a worker: the teacher, the examples of each shard, and how to batch them.

    Attributes:
        layers: whose hidden states are stored.
        device, dtype: as in `ExtractSettings`; each worker resolves `auto` itself.
        location: the cache.
        dataset: its name, for error messages.
        examples: of the whole data set, as shards share prefixes.
        shards: indices of each shard's examples.
        requirements: of each layer's codec.
        batch_tokens: as in `ExtractSettings`.
    """

    source: TeacherSource
    layers: tuple[int, ...]
    device: str
    dtype: Literal["auto", "fp32", "bf16"]
    location: StorageLocation
    dataset: str
    examples: list[TokenizedExample]
    sharing: SharingPlan
    shards: list[range]
    requirements: dict[int, CodecRequirement]
    batch_tokens: int | None
    skip_non_finite: bool

    @property
    def most_batch_tokens(self) -> int:
        """Most tokens of a padded batch on this worker's device."""
        return most_batch_tokens(self.batch_tokens, self.device)

    @property
    def calibration_tokens(self) -> int:
        """Tokens of the calibration sample; 0 if no codec needs fitting."""
        return max(
            (requirement.calibration_tokens for requirement in self.requirements.values()),
            default=0,
        )

    def provenance(self) -> dict[str, Any]:
        """Return what the last bits of a shard's values depend on, except the batch size."""
        return shard_provenance(self.device)
