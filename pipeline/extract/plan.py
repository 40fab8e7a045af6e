"""The plan of an extract, before and after its codecs are fitted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from transformers import PreTrainedTokenizerBase

from cache import Manifest
from cache.codecs import Codec
from cache.codecs.fit_file import codec_identity
from cache.shard.record import ShardRecord
from cache.storage import StorageLocation
from pipeline.codec_fit.requirements import CodecRequirement
from pipeline.data.tokenized_dataset import TokenizedDataset, TokenizedExample
from pipeline.data.vocabulary import special_tokens
from pipeline.extract.batching import most_batch_tokens
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.sharing import SharingPlan
from pipeline.extract.work import TeacherWork
from pipeline.teacher.source import TeacherSource


@dataclass(frozen=True)
class ExtractPlan:
    """Everything known before the teacher is loaded: examples, shards, requirements, manifest.

    Attributes:
        location: of the cache.
        requirements: of each layer's codec.
        shards: indices of each shard's examples.
        manifest: its identity lacks the codec fits.
        groups: the group of each row that has one.
        unread: rows per column or message field whose content is not read.
        unshared: why the teacher cannot share prefixes, where sharing was requested.
    """

    settings: ExtractSettings
    location: StorageLocation
    source: TeacherSource
    tokenizer: PreTrainedTokenizerBase
    dataset: TokenizedDataset
    sharing: SharingPlan
    requirements: dict[int, CodecRequirement]
    shards: list[range]
    manifest: Manifest
    groups: dict[str, int]
    unread: dict[str, int]
    unshared: str | None = None

    def examples_of(self, shard: int) -> list[TokenizedExample]:
        """Return the examples of a shard."""
        return [self.dataset.examples[index] for index in self.shards[shard]]

    def segment_lengths(self, shard: int) -> list[int]:
        """Return the tokens of each segment of a shard, shared prefixes first."""
        lengths = [len(example) for example in self.examples_of(shard)]
        return self.sharing.stored_lengths(self.shards[shard], lengths)

    def stored_tokens(self, shards: Iterable[int]) -> int:
        """Return the tokens computed and stored for some shards; a shared prefix counts once."""
        return sum(sum(self.segment_lengths(shard)) for shard in shards)

    @cached_property
    def vocabulary(self) -> list[int]:
        """The tokens that occur in the examples, and the special tokens, ascending."""
        occurring = np.unique(np.concatenate([row.input_ids for row in self.dataset.examples]))
        special = {*special_tokens(self.tokenizer), self.manifest.end_token_id}
        tokens = special.union(occurring.tolist())
        # A tokenizer may have more tokens than the model.
        return sorted(token for token in tokens if token < self.manifest.vocab_size)

    def unusable_prefixes(self, published: Mapping[int, ShardRecord]) -> set[int]:
        """Return the prefixes that published shards lack because their states are not finite."""
        return {
            number
            for shard, record in published.items()
            for number in set(self.sharing.stored_with(self.shards[shard]))
            - set(record.prefix_numbers.tolist())
        }

    @property
    def batch_tokens(self) -> int:
        """Most tokens of a padded batch, unless the device's memory turns out to be too small."""
        return most_batch_tokens(self.settings.batch_tokens, self.settings.device)

    def work(self) -> TeacherWork:
        """Return the part of the plan that workers need."""
        settings = self.settings
        return TeacherWork(
            source=self.source,
            layers=settings.layers,
            device=settings.device,
            dtype=settings.dtype,
            location=self.location,
            dataset=settings.dataset,
            examples=self.dataset.examples,
            sharing=self.sharing,
            shards=self.shards,
            requirements=self.requirements,
            batch_tokens=settings.batch_tokens,
            skip_non_finite=settings.skip_non_finite,
        )

    def fitted(self, codecs: dict[int, Codec]) -> FittedPlan:
        """Return the plan with the codecs fitted to its requirements."""
        identity = self.manifest.identity | {"codec": codec_identity(codecs)}
        return FittedPlan(self, codecs, replace(self.manifest, identity=identity))


@dataclass(frozen=True)
class FittedPlan:
    """A plan with its codecs, and the manifest whose identity includes their fits."""

    plan: ExtractPlan
    codecs: dict[int, Codec]
    manifest: Manifest
