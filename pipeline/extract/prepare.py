"""Everything before the teacher's weights are loaded: tokens, shard plan, identity. Bad input is found here."""

from __future__ import annotations

import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from cache import Manifest
from cache.identity import Identity
from cache.journal import scan_journal
from cache.space import reclaimable_bytes, room_needed, shard_size
from pipeline.data.sources import ConversationSet, load_conversations
from pipeline.data.templates import end_token_id
from pipeline.data.tokenizer import tokenizer_hash
from pipeline.data.tokens import TokenizedDataset, TokenizedExample, tokenize_conversations
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import InputError
from pipeline.extract.plan import plan_shards
from pipeline.extract.settings import ExtractSettings
from pipeline.teacher.model import decoder_config, resolve_layers
from pipeline.teacher.source import TeacherSource, config_hash, find_teacher

_RECORDED_VERSIONS = ("h5py", "numpy", "torch", "transformers", "zarr")


@dataclass(frozen=True)
class PreparedExtract:
    """An extract that is ready to run."""

    settings: ExtractSettings
    source: TeacherSource
    tokenizer: PreTrainedTokenizerBase
    dataset: TokenizedDataset
    shards: list[range]
    manifest: Manifest

    def examples_of(self, shard: int) -> list[TokenizedExample]:
        """The examples that a shard is planned to hold."""
        return [self.dataset.examples[index] for index in self.shards[shard]]

    def shard_sizes(self, shards: Iterable[int]) -> list[int]:
        """Exactly how many bytes each of some shards will take."""
        planned = map(self.examples_of, shards)
        return [shard_size(self.manifest, [len(e) for e in examples], [e.row_id for e in examples]) for examples in planned]

    def room_needed(self, missing: Sequence[int]) -> int:
        """Bytes that the cache needs more for these shards, once what dead writers left there is removed."""
        examples = sum(len(self.shards[shard]) for shard in missing)
        journal = scan_journal(self.settings.cache) if self.settings.cache.is_dir() else None
        published = (name for record in journal.records.values() for name in record.files) if journal else ()
        return room_needed(self.shard_sizes(missing), examples) - reclaimable_bytes(self.settings.cache, published)

    def provenance_of_shards(self) -> dict[str, Any]:
        """On what the last bits of a shard's numbers depend; recorded with each, so that a lost one can be made again."""
        return _shard_provenance(self.settings)


def prepare(settings: ExtractSettings) -> PreparedExtract:
    """Read the data set and the teacher's configuration, and plan the cache.

    Raises:
        InputError: the teacher, the data set or a layer is not to be had, or no example is left.
    """
    source = find_teacher(settings.teacher).pinned()
    config = source.load_config()
    shape = decoder_config(config)
    resolve_layers(settings.layers, shape)
    conversations = load_conversations(
        settings.dataset,
        config=settings.dataset_config,
        split=settings.split,
        form=settings.form,
        limit=settings.limit,
        skip_bad_rows=settings.skip_bad_rows,
    )
    tokenizer = source.load_tokenizer()
    dataset = tokenize_conversations(
        conversations.conversations,
        tokenizer,
        template=settings.template,
        loss_on=settings.loss_on,
        max_tokens=_longest(settings, getattr(shape, "max_position_embeddings", None)),
    )
    if conversations.malformed:
        dataset.leave_out("malformed row", conversations.malformed)
    if not dataset.examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items())
        raise InputError(f"{settings.dataset}: no example is left ({reasons}); raise --max-tokens, or choose another data set")
    lengths = [len(example) for example in dataset.examples]
    shards = plan_shards(lengths, settings.shard_tokens)
    identity: Identity = {
        "teacher_weights": source.weights_hash(),
        "teacher_config": config_hash(config),
        "tokenizer": tokenizer_hash(tokenizer),
        "dataset": conversations.fingerprint,
        "tokens": dataset.fingerprint,
        "template": settings.template,
        "loss_on": settings.loss_on,
        "limit": settings.limit,
        "max_tokens": settings.max_tokens,
        "condition": "sequence",
        "compute_dtype": choose_dtype(settings.dtype, choose_device(settings.device)),
        "codec": settings.codec,
    }
    manifest = Manifest(
        format=settings.format,
        codec=settings.codec,
        layers=settings.layers,
        hidden_size=int(shape.hidden_size),
        vocab_size=int(shape.vocab_size),
        end_token_id=end_token_id(settings.template, tokenizer),
        shards=len(shards),
        examples=len(lengths),
        tokens=sum(lengths),
        shard_tokens=settings.shard_tokens,
        identity=identity,
        provenance=_provenance(settings, source, conversations, dataset),
        attachments=(),
    )
    return PreparedExtract(settings, source, tokenizer, dataset, shards, manifest)


def _longest(settings: ExtractSettings, context: int | None) -> int:
    if context is not None and settings.max_tokens > context:
        return int(context)
    return settings.max_tokens


def _shard_provenance(settings: ExtractSettings) -> dict[str, Any]:
    device = choose_device(settings.device)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        "batch_tokens": settings.batch_tokens,
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "versions": recorded_versions(),
    }


def _provenance(
    settings: ExtractSettings, source: TeacherSource, conversations: ConversationSet, dataset: TokenizedDataset
) -> dict[str, object]:
    return {
        "teacher": _located(source.name),
        "dataset": _located(settings.dataset),
        "dataset_config": settings.dataset_config,
        "split": settings.split,
        "form": conversations.form,
        "system_prompt": _usual_system_prompt(conversations),
        "limit": settings.limit,
        "skip_bad_rows": settings.skip_bad_rows,
        "left_out": dataset.left_out,
        "shards": _shard_provenance(settings),
        "versions": recorded_versions(),
    }


def recorded_versions() -> dict[str, str]:
    """Library versions, recorded and never compared."""
    return {name: version(name) for name in _RECORDED_VERSIONS} | {"python": platform.python_version()}


def _usual_system_prompt(conversations: ConversationSet) -> str | None:
    """The system prompt that most conversations begin with, for prompts that are typed later."""
    prompts = [row.turns[0].text for row in conversations.conversations if row.turns[0].role == "system"]
    return Counter(prompts).most_common(1)[0][0] if prompts else None


def _located(name: str) -> str:
    """A path as it is found from any folder; a hub id as it is."""
    return str(Path(name).resolve()) if Path(name).exists() else name
