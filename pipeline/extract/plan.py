"""Everything before the teacher's weights are loaded: tokens, shard plan, identity. Bad input is
found here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cache import Manifest
from cache.codecs import Codec, packing_named
from cache.codecs.fit_file import codec_identity, write_fits
from cache.identity import Identity
from cache.journal import scan_journal
from cache.shard.record import ShardRecord
from cache.upkeep.space import reclaimable_bytes, room_needed, shard_size
from pipeline.codec_fit.requirements import CodecRequirement, codec_requirements
from pipeline.data.groups import GROUPS, find_groups, write_groups
from pipeline.data.sources import load_conversations
from pipeline.data.templates import end_token_id
from pipeline.data.tokenized_dataset import (
    TokenizedDataset,
    TokenizedExample,
    tokenize_conversations,
)
from pipeline.data.tokenizer import tokenizer_hash
from pipeline.data.vocabulary import VOCABULARY, special_tokens, write_vocabulary
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import InputError
from pipeline.extract.batching import plan_shards
from pipeline.extract.provenance import cache_provenance, most_batch_tokens, shard_provenance
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.sharing import SharingPlan, plan_sharing, share_nothing
from pipeline.teacher.lm_head import lm_head_rows
from pipeline.teacher.shape import context_length, decoder_config, resolve_layers, sharing_obstacle
from pipeline.teacher.source import TeacherSource, config_hash, find_teacher

UNKNOWN_CHARACTERS = "characters that the tokenizer does not know"


@dataclass(frozen=True)
class ExtractPlan:
    """An extract that is ready to run."""

    settings: ExtractSettings
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
    """Why nothing is shared, where that was wanted and this teacher cannot go on from what it has
    read."""

    def examples_of(self, shard: int) -> list[TokenizedExample]:
        """The examples that a shard is planned to hold."""
        return [self.dataset.examples[index] for index in self.shards[shard]]

    def stored_tokens(self, shards: Iterable[int]) -> int:
        """Tokens that are computed and stored for some shards: a shared prefix counts once."""
        return sum(map(sum, map(self._stored_lengths, shards)))

    @property
    def calibration_tokens(self) -> int:
        """Tokens that the codecs are to be fitted to; 0 where they need no fit."""
        return max((asked.calibration_tokens for asked in self.requirements.values()), default=0)

    def shard_sizes(
        self, shards: Iterable[int], bits: Mapping[int, float] | None = None
    ) -> list[int]:
        """How many bytes each of some shards will take: exactly, where the codecs are of fixed
        rate.

        Args:
            shards: their numbers.
            bits: of a value in each layer whose codec is of no fixed rate; None: as is expected
                from what was asked.
        """
        bits = (
            {layer: asked.expected_bits for layer, asked in self.requirements.items()}
            if bits is None
            else bits
        )
        return [self._shard_size(shard, bits) for shard in shards]

    def _shard_size(self, shard: int, bits: Mapping[int, float]) -> int:
        held = self.examples_of(shard)
        text_bytes = sum(len(example.text.encode()) for example in held)
        return shard_size(
            self.manifest,
            self._stored_lengths(shard),
            [each.row_id for each in held],
            text_bytes,
            bits,
        )

    def _stored_lengths(self, shard: int) -> list[int]:
        return self.sharing.stored_lengths(
            self.shards[shard], [len(example) for example in self.examples_of(shard)]
        )

    def require_packable(self) -> None:
        """Refuse shards that a codec could not pack once the teacher has read them.

        Raises:
            CacheError: says which option to change.
        """
        for packing in {
            asked.name: packing_named(asked.name) for asked in self.requirements.values()
        }.values():
            for shard in range(len(self.shards)) if packing.spec(1, 1) is None else ():
                packing.require_packable(self._stored_lengths(shard), self.manifest.hidden_size)

    def with_codecs(self, codecs: Mapping[int, Codec]) -> ExtractPlan:
        """The same extract, its codecs fitted."""
        identity = self.manifest.identity | {"codec": codec_identity(codecs)}
        return replace(self, manifest=replace(self.manifest, identity=identity))

    def unusable_prefixes(self, published: Mapping[int, ShardRecord]) -> set[int]:
        """Numbers of the prefixes that published shards were to store and do not, because their
        states are not finite."""
        return {
            number
            for shard, record in published.items()
            for number in set(self.sharing.stored_with(self.shards[shard]))
            - set(record.prefix_numbers.tolist())
        }

    def lm_head(self) -> torch.Tensor | None:
        """The LM head's rows of the tokens that occur, where they are to be kept; the teacher is
        loaded and let go of.

        Raises:
            InputError: there is no such LM head.
        """
        return lm_head_rows(self.source, self.vocabulary) if self.settings.keep_head else None

    def attach(
        self, folder: Path, codecs: Mapping[int, Codec], lm_head: torch.Tensor | None
    ) -> None:
        """Write the files that travel with the cache: tokenizer, tokens that occur, LM head, groups
        of rows, fitted codecs."""
        self.tokenizer.save_pretrained(folder / "tokenizer")
        write_vocabulary(folder / VOCABULARY, self.vocabulary, lm_head)
        write_groups(folder / GROUPS, self.groups)
        write_fits(folder, codecs)

    @cached_property
    def vocabulary(self) -> list[int]:
        """The tokens that occur, and those that mean no text, ascending."""
        occurring = np.unique(
            np.concatenate([example.input_ids for example in self.dataset.examples])
        )
        known = {*occurring.tolist(), *special_tokens(self.tokenizer), self.manifest.end_token_id}
        return sorted(
            token for token in known if token < self.manifest.vocab_size
        )  # a tokenizer may know more than the model

    def room_needed(self, missing: Sequence[int], bits: Mapping[int, float] | None = None) -> int:
        """Bytes that the cache needs more for these shards, once what dead writers left there is
        removed.

        Args:
            missing: numbers of the shards.
            bits: as for `shard_sizes`.
        """
        examples = sum(len(self.shards[shard]) for shard in missing)
        folder = self.settings.location.folder
        journal = scan_journal(folder) if folder.is_dir() else None
        published = (
            (name for record in journal.records.values() for name in record.files)
            if journal
            else ()
        )
        head = (
            2 * self.manifest.hidden_size * len(self.vocabulary) if self.settings.keep_head else 0
        )
        return (
            room_needed(self.shard_sizes(missing, bits), examples)
            + head
            - reclaimable_bytes(folder, published)
        )

    @property
    def batch_tokens(self) -> int:
        """Most tokens of a padded batch, where the device's memory does not turn out to be too
        small for it."""
        return most_batch_tokens(self.settings)

    def provenance_of_shards(self) -> dict[str, Any]:
        """On what the last bits of a shard's numbers depend, the tokens of its batches aside.

        Both are recorded with each shard, so that a lost one can be made again.
        """
        return shard_provenance(self.settings)


def prepare(settings: ExtractSettings) -> ExtractPlan:
    """Read the data set and the teacher's configuration, and plan the cache.

    Raises:
        CacheError: a shard would be too large for its codec.
        InputError: the teacher, the data set or a layer is not to be had, or no example is left.
    """
    settings.require_sense()
    source = find_teacher(settings.teacher, settings.teacher_kind).pinned()
    config = source.load_config()
    shape = decoder_config(config, settings.teacher_kind)
    asked = _codec_requirements(settings, shape)
    prompts_only = not settings.cached_part.is_whole
    conversations = load_conversations(
        settings.dataset,
        config=settings.dataset_config,
        split=settings.split,
        form=settings.form,
        limit=settings.limit,
        skip_bad_rows=settings.skip_bad_rows,
        group_by=settings.group_by,
    )
    if conversations.form == "tokens" and prompts_only:
        raise InputError(
            f"{settings.dataset}: its rows are tokens, and --condition prompt needs turns; leave"
            " it out"
        )
    longest = min(
        settings.max_tokens, context_length(config, settings.teacher_kind) or settings.max_tokens
    )
    tokenizer = source.load_tokenizer()
    dataset = tokenize_conversations(
        conversations.conversations,
        tokenizer,
        template=settings.template,
        loss_on=settings.loss_on,
        max_tokens=longest,
        prompts_only=prompts_only,
        last_answer_only=prompts_only and settings.teacher_kind == "encoder",
        vocab_size=int(shape.vocab_size),
        skip_bad_rows=settings.skip_bad_rows,
    )
    if conversations.malformed:
        dataset.leave_out("malformed", conversations.malformed)
        dataset.first["malformed"] = conversations.first_malformed
    if not dataset.examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items())
        mend = (
            "raise --max-tokens, or "
            if any(reason.startswith("over ") for reason in dataset.left_out)
            else ""
        )
        raise InputError(
            f"{settings.dataset}: no example is left ({reasons}); {mend}choose another data set"
        )
    lengths = [len(example) for example in dataset.examples]
    shards = plan_shards(lengths, settings.shard_tokens)
    unshared = sharing_obstacle(config, longest) if settings.shares else None
    shares = settings.shares and unshared is None
    sharing = plan_sharing(dataset.examples) if shares else share_nothing(len(lengths))
    identity: Identity = {
        "teacher_weights": source.weights_hash(),
        "teacher_config": config_hash(config),
        "teacher_kind": settings.teacher_kind,
        "tokenizer": tokenizer_hash(tokenizer),
        "dataset": conversations.fingerprint,
        "tokens": dataset.fingerprint,
        "template": settings.template,
        "loss_on": settings.loss_on,
        "limit": settings.limit,
        "max_tokens": longest,
        "condition": settings.condition,
        "compute_dtype": choose_dtype(settings.dtype, choose_device(settings.device)),
        "sharing": shares,
        "lm_head": settings.keep_head,
        "codec": {str(layer): each.identity for layer, each in asked.items()},
        **({"group_by": settings.group_by} if settings.group_by else {}),
    }
    manifest = Manifest(
        format=settings.format,
        layers=settings.layers,
        codecs=tuple(asked[layer].name for layer in settings.layers),
        hidden_size=int(shape.hidden_size),
        vocab_size=int(shape.vocab_size),
        end_token_id=end_token_id(settings.template, tokenizer),
        shards=len(shards),
        examples=len(lengths),
        tokens=sum(lengths),
        shard_tokens=settings.shard_tokens,
        identity=identity,
        provenance=cache_provenance(settings, source, conversations, dataset, tokenizer),
        attachments=(),
    )
    kept = {example.row_id for example in dataset.examples}
    groups = find_groups(row for row in conversations.conversations if row.row_id in kept)
    unread = conversations.unread | (
        {UNKNOWN_CHARACTERS: dataset.unknown} if dataset.unknown else {}
    )
    plan = ExtractPlan(
        settings,
        source,
        tokenizer,
        dataset,
        sharing,
        asked,
        shards,
        manifest,
        groups,
        unread,
        unshared,
    )
    plan.require_packable()
    return plan


def _codec_requirements(
    settings: ExtractSettings, shape: PreTrainedConfig
) -> dict[int, CodecRequirement]:
    indices = resolve_layers(settings.layers, shape)
    last = next(
        (layer for layer, index in indices.items() if index == int(shape.num_hidden_layers)), None
    )
    if settings.teacher_kind == "encoder":
        last = None  # no LM head reads it
    return codec_requirements(
        settings.layers,
        last,
        codec=settings.codec,
        fidelity=settings.fidelity,
        bits=settings.bits,
        calibration_tokens=settings.calibration_tokens,
        seed=settings.calibration_seed,
    )
