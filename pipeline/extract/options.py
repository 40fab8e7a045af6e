"""The options of an extract, section by section."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cache.names import CONTAINER_NAMES
from cache.storage import LocationLike
from pipeline.choices import EngineName, LossOn, Precision
from pipeline.conditions.cached import CACHED_PARTS
from pipeline.data.files import FILE_KINDS
from pipeline.data.templates import TemplateName
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.option import CACHE_LOCATION, Device, Option, SkipNonFinite
from pipeline.teacher.source import TeacherKind


@dataclass(frozen=True, kw_only=True)
class JobOptions:
    """Which teacher reads which data set, and where its hidden states go."""

    teacher: Annotated[
        str,
        Option(
            "Hub id, local folder, or .gguf file. random:SEED:T is a control: shape and tokenizer"
            " of teacher T, with random weights; random:SEED uses the embedded teacher's.",
            default="the embedded teacher",
        ),
    ] = EMBEDDED_TEACHER
    dataset: Annotated[
        str,
        Option(
            f"Hub id, file, folder of files, or quoted pattern of file names ({FILE_KINDS}).",
            default="the embedded data set",
        ),
    ] = EMBEDDED_DATASET
    cache: Annotated[
        LocationLike,
        Option(
            "Folder to write, or s3://bucket/prefix; an unfinished cache is continued.",
            metavar=CACHE_LOCATION,
        ),
    ]
    layers: Annotated[
        tuple[int, ...],
        Option(
            "Teacher layers to cache: 0 the embeddings, -1 the last; auto: these and three between"
            " them, for cache probe and train --layers auto.",
            takes_auto=True,
            default="-1; with --condition prompt auto",
        ),
    ] = (-1,)
    condition: Annotated[
        str,
        Option(
            "What to cache. sequence: whole examples. prompt: only what precedes the last answer,"
            " for a student that needs the teacher once per prompt.",
            choices=tuple(CACHED_PARTS),
        ),
    ] = "sequence"


@dataclass(frozen=True, kw_only=True)
class TokenOptions:
    """How rows become tokens."""

    template: Annotated[
        TemplateName, Option("Prompt template: the paper's, or the tokenizer's chat template.")
    ] = "paper"
    loss_on: Annotated[
        LossOn,
        Option(
            "Tokens with a loss. assistant: the answers and their end tokens; all: every token, as"
            " in the paper."
        ),
    ] = "assistant"
    max_tokens: Annotated[
        int,
        Option(
            "Leave out, and count, examples longer than this or than the teacher allows.",
            at_least=2,
        ),
    ] = 4096


@dataclass(frozen=True, kw_only=True)
class StoreOptions:
    """What is stored, and how."""

    format: Annotated[str, Option("Container of the shards.", choices=CONTAINER_NAMES)] = "zarr"
    sharing: Annotated[
        bool, Option("Compute and store shared leading tokens, and duplicates, only once.")
    ] = True
    keep_head: Annotated[
        bool,
        Option(
            "Also keep the LM head's rows of the tokens that occur: for train --head-init teacher,"
            " train --distill, and the baseline distilled."
        ),
    ] = False
    shard_tokens: Annotated[int, Option("Tokens per shard.", at_least=1)] = 65536


@dataclass(frozen=True, kw_only=True)
class PassOptions:
    """How the teacher computes."""

    teacher_kind: Annotated[
        TeacherKind,
        Option(
            "decoder: a causal model. encoder: a model such as BERT, whose states of each token"
            " depend on the whole text; its students are marked as leaking."
        ),
    ] = "decoder"
    device: Device = "auto"
    dtype: Annotated[Precision, Option("Compute type.")] = "auto"
    batch_tokens: Annotated[
        int | None,
        Option(
            "Largest batch, in tokens.",
            at_least=1,
            default="4096 on a CPU, else 32768; halved when memory runs out",
        ),
    ] = None
    skip_non_finite: SkipNonFinite = False


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which processes run the teacher."""

    engine: Annotated[
        EngineName,
        Option(
            "What runs the teacher: this process, Ray actors on one or many machines, or the"
            " ranks that torchrun started; all must see the cache's folder. auto: torchrun if it"
            " started this process, else local."
        ),
    ] = "auto"
    address: Annotated[
        str | None,
        Option(
            "With --engine ray: address of the cluster, such as auto or ray://host:10001.",
            default="start one here",
        ),
    ] = None
    workers: Annotated[
        int | None,
        Option("With --engine ray: actors.", at_least=1, default="one per GPU, or one in all"),
    ] = None
