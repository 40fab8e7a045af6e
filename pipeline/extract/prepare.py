"""Plan an extract from its settings; refuse invalid input before the teacher is loaded."""

from __future__ import annotations

from dataclasses import replace

from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from cache import Manifest
from cache.identity import Identity
from pipeline.codec_fit.requirements import CodecRequirement, codec_requirements
from pipeline.data.groups import find_groups
from pipeline.data.sources import ConversationSet
from pipeline.data.templates import end_token_id
from pipeline.data.tokenized_dataset import TokenizedDataset, tokenize_conversations
from pipeline.data.tokenizer import tokenizer_hash
from pipeline.device import choose_device, choose_dtype
from pipeline.errors import InputError
from pipeline.extract.batching import plan_shards
from pipeline.extract.plan import ExtractPlan
from pipeline.extract.provenance import cache_provenance
from pipeline.extract.settings import ExtractSettings
from pipeline.extract.sharing import plan_sharing, share_nothing
from pipeline.extract.space import require_packable
from pipeline.teacher.layers import spread_layers
from pipeline.teacher.shape import context_length, decoder_config, resolve_layers, sharing_obstacle
from pipeline.teacher.source import config_hash, find_teacher

UNKNOWN_CHARACTERS = "characters that the tokenizer does not know"


def prepare(settings: ExtractSettings) -> ExtractPlan:
    """Return the plan of the cache, from the data set and the teacher's configuration.

    Raises:
        CacheError: a shard would be too large for its codec.
        InputError: the teacher, the data set or a layer does not exist, options contradict each
            other, or no example is left.
    """
    settings.require_sense()
    source = find_teacher(settings.teacher, settings.teacher_kind).pinned()
    config = source.load_config()
    shape = decoder_config(config, settings.teacher_kind)
    if not settings.layers:
        settings = replace(settings, layers=spread_layers(int(shape.num_hidden_layers)))
    requirements = _codec_requirements(settings, shape)
    conversations = _load_conversations(settings)
    context = context_length(config, settings.teacher_kind)
    max_tokens = min(settings.max_tokens, context or settings.max_tokens)
    tokenizer = source.load_tokenizer()
    dataset = _tokenize(settings, conversations, tokenizer, max_tokens, int(shape.vocab_size))
    lengths = [len(example) for example in dataset.examples]
    shards = plan_shards(lengths, settings.shard_tokens)
    unshared = sharing_obstacle(config, max_tokens) if settings.shares else None
    shares = settings.shares and unshared is None
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
        "max_tokens": max_tokens,
        "condition": settings.condition,
        "compute_dtype": choose_dtype(settings.dtype, choose_device(settings.device)),
        "sharing": shares,
        "lm_head": settings.keep_head,
        "codec": {str(layer): required.identity for layer, required in requirements.items()},
        **({"group_by": settings.group_by} if settings.group_by else {}),
    }
    manifest = Manifest(
        format=settings.format,
        layers=settings.layers,
        codecs=tuple(requirements[layer].name for layer in settings.layers),
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
    row_ids = {example.row_id for example in dataset.examples}
    unknown = {UNKNOWN_CHARACTERS: dataset.unknown} if dataset.unknown else {}
    plan = ExtractPlan(
        settings=settings,
        location=settings.location,
        source=source,
        tokenizer=tokenizer,
        dataset=dataset,
        sharing=plan_sharing(dataset.examples) if shares else share_nothing(len(lengths)),
        requirements=requirements,
        shards=shards,
        manifest=manifest,
        groups=find_groups(row for row in conversations.conversations if row.row_id in row_ids),
        unread=conversations.unread | unknown,
        unshared=unshared,
    )
    require_packable(plan)
    return plan


def _codec_requirements(
    settings: ExtractSettings, shape: PreTrainedConfig
) -> dict[int, CodecRequirement]:
    """Return the codec requirement of each layer; an encoder has no LM head for the last one."""
    blocks = int(shape.num_hidden_layers)
    last_layers = [
        layer for layer, index in resolve_layers(settings.layers, shape).items() if index == blocks
    ]
    has_lm_head = settings.teacher_kind != "encoder"
    last_layer = last_layers[0] if last_layers and has_lm_head else None
    return codec_requirements(settings.layers, last_layer, settings)


def _load_conversations(settings: ExtractSettings) -> ConversationSet:
    """Return the conversations of the data set; raise if they cannot be cut at their answers."""
    conversations = settings.load(settings.dataset)
    if conversations.form == "tokens" and not settings.cached_part.is_whole:
        raise InputError(
            f"{settings.dataset}: its rows are tokens, and --condition prompt needs turns; leave"
            " it out"
        )
    return conversations


def _tokenize(
    settings: ExtractSettings,
    conversations: ConversationSet,
    tokenizer: PreTrainedTokenizerBase,
    max_tokens: int,
    vocab_size: int,
) -> TokenizedDataset:
    """Return the examples; raise if none is left."""
    prompts_only = not settings.cached_part.is_whole
    dataset = tokenize_conversations(
        conversations.conversations,
        tokenizer,
        template=settings.template,
        loss_on=settings.loss_on,
        max_tokens=max_tokens,
        prompts_only=prompts_only,
        last_answer_only=prompts_only and settings.teacher_kind == "encoder",
        vocab_size=vocab_size,
        skip_bad_rows=settings.skip_bad_rows,
    )
    if conversations.malformed:
        dataset.leave_out("malformed", conversations.malformed)
        dataset.first["malformed"] = conversations.first_malformed
    if not dataset.examples:
        reasons = ", ".join(f"{count} {reason}" for reason, count in dataset.left_out.items())
        too_long = any(reason.startswith("over ") for reason in dataset.left_out)
        raise InputError(
            f"{settings.dataset}: no example is left ({reasons});"
            f" {'raise --max-tokens, or ' if too_long else ''}choose another data set"
        )
    return dataset
