"""The options of a training run, section by section.

Defaults are those of arXiv 2502.08213, except the ones that `pipeline/runs/defaults.py` lists.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pipeline.choices import Part, Precision, Reporter
from pipeline.option import Device, Option
from pipeline.shapes import SIZES


@dataclass(frozen=True, kw_only=True)
class StudentOptions:
    """Which student is trained."""

    student: Annotated[
        str,
        Option(
            f"{', '.join(SIZES)} (a new GPT-Neo), or any pretrained causal LM: hub id, folder, GGUF"
            " file, or RUN/model of a run trained with --condition text or none."
        ),
    ] = "tiny"
    condition: Annotated[
        Literal["sequence", "prompt", "none", "text"],
        Option(
            "What the student reads. sequence: the teacher's states of every token. prompt: the"
            " teacher's states of the prompt only; the student writes in its own tokens. Without a"
            " teacher, as controls: the teacher's tokens (none), or prompt and answer in the"
            " student's own tokens (text)."
        ),
    ] = "sequence"
    new_weights: Annotated[
        bool, Option("Take the shape and tokenizer of --student, but new random weights.")
    ] = False
    freeze: Annotated[
        tuple[Part, ...],
        Option(
            "Do not train this part: the student's decoder (with its own LM head), the bridge, or"
            " the LM head; may be repeated."
        ),
    ] = ()
    lora: Annotated[
        int | None,
        Option(
            "Train low-rank adapters (LoRA) of this rank on all linear layers of a pretrained"
            " decoder, not its weights.",
            metavar="R",
            at_least=1,
        ),
    ] = None
    vocab: Annotated[
        Literal["whole", "dataset"],
        Option(
            "Tokens that the LM head and new embeddings span: all, or those that occur in the data"
            " set, often ten times fewer; the student can write no others."
        ),
    ] = "whole"
    head_init: Annotated[
        Literal["random", "teacher"],
        Option(
            "Initialise the LM head at random, or with the teacher's, reduced to the student's"
            " width (needs extract --keep-head)."
        ),
    ] = "random"
    cross_init: Annotated[
        Literal["random", "self"],
        Option(
            "With --condition prompt, initialise each cross-attention layer at random, or with the"
            " self-attention of the block that it precedes."
        ),
    ] = "random"
    student_tokenizer: Annotated[
        str | None,
        Option(
            "Tokenizer of the student: hub id or folder, with --condition prompt or text.",
            default="the student's; for a new student the teacher's",
        ),
    ] = None


@dataclass(frozen=True, kw_only=True)
class LearningOptions:
    """What the student learns from."""

    batch_size: Annotated[
        int,
        Option("Examples per batch.", at_least=1, default="1; with --condition prompt or text 32"),
    ] = 1
    batch_tokens: Annotated[
        int | None,
        Option(
            "Tokens per batch, padding included, instead of --batch-size; with --condition prompt"
            " those of the prompts count too. Examples of similar length share a batch; an example"
            " longer than this forms its own.",
            at_least=1,
        ),
    ] = None
    accumulate: Annotated[
        int | None,
        Option(
            "Batches per optimiser step, over all processes.", at_least=1, default="one per process"
        ),
    ] = None
    validation: Annotated[float, Option("Share of rows held out.", above=0, below=1)] = 0.1
    max_answer_tokens: Annotated[
        int | None,
        Option(
            "Leave out, and count, answers longer than this, in the student's own tokens.",
            at_least=2,
        ),
    ] = None
    distill: Annotated[
        float,
        Option(
            "Weight of the teacher's predictions in the loss; the remaining weight goes to the data"
            " set's tokens. Needs layer -1 and extract --keep-head, but no teacher.",
            at_least=0,
            at_most=1,
        ),
    ] = 0.0
    seed: Annotated[int, Option("Seed of new weights and of the order of rows.")] = 0


@dataclass(frozen=True, kw_only=True)
class OptimiserOptions:
    """How long and how fast the student learns."""

    epochs: Annotated[int, Option("Passes over the rows, at most.", at_least=1)] = 15
    max_steps: Annotated[int | None, Option("Optimiser steps, at most.", at_least=1)] = None
    bridge_lr: Annotated[
        float,
        Option(
            "Learning rate of bridge and LM head.",
            at_least=0,
            default="0.0001; with --condition prompt or text 0.001",
        ),
    ] = 1e-4
    student_lr: Annotated[
        float,
        Option(
            "Learning rate of the student's decoder, or of its adapters.",
            at_least=0,
            default="5e-05; with --condition prompt or text, new weights 0.001, adapters 0.0002",
        ),
    ] = 5e-5
    schedule: Annotated[
        Literal["constant", "linear", "cosine"],
        Option(
            "Learning rates over the run: constant, or falling to zero at its end.",
            default="constant; with --condition prompt or text linear",
        ),
    ] = "constant"
    warmup: Annotated[
        float,
        Option(
            "Share of the run's steps in which learning rates rise from zero.",
            at_least=0,
            below=1,
            default="0.0; with --condition prompt or text 0.05",
        ),
    ] = 0.0
    weight_decay: Annotated[
        float,
        Option(
            "Weight decay of AdamW.",
            at_least=0,
            default="0.01; with --condition prompt or text and new weights 0.3",
        ),
    ] = 0.01
    clip: Annotated[float, Option("Largest gradient norm.", at_least=0)] = 1.0
    eval_every: Annotated[
        int | None,
        Option("Steps between evaluations and checkpoints.", at_least=1, default="one epoch"),
    ] = None
    patience: Annotated[
        int,
        Option(
            "Stop after this many evaluations without improvement; 0: never.",
            at_least=0,
            default="5; 0 if learning rates fall",
        ),
    ] = 5
    min_delta: Annotated[
        float, Option("Smallest decrease of the loss that counts as improvement.", at_least=0)
    ] = 1e-4


@dataclass(frozen=True, kw_only=True)
class MachineOptions:
    """Where the run computes, and what it logs."""

    device: Device = "auto"
    precision: Annotated[
        Precision,
        Option(
            "Compute type. auto: bf16 AMP on a GPU, else fp32. On a CPU with AVX-512 BF16, bf16 is"
            " twice as fast."
        ),
    ] = "auto"
    gradient_checkpointing: Annotated[
        bool,
        Option("Save memory: activations of the decoder are recomputed in the backward pass."),
    ] = False
    loader_workers: Annotated[
        int | None,
        Option(
            "Processes that prefetch from the cache, per training process.",
            at_least=0,
            default="2 on a GPU, else 0",
        ),
    ] = None
    log_every: Annotated[int, Option("Log every N steps.", metavar="N", at_least=1)] = 10
    report_to: Annotated[
        tuple[Reporter, ...],
        Option(
            "Also report the run to this service; may be repeated. TensorBoard's files are always"
            " written."
        ),
    ] = ()
