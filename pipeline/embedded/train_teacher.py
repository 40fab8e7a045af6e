"""Train the embedded teacher: a small Qwen2 with its own tokenizer, on generated word problems.

Run `python -m pipeline.embedded.train_teacher --out FOLDER`. Everything is seeded: the same CPU
model, number of threads and pinned packages give the same weights. See README.md in this folder.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import torch
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from torch.utils.data import IterableDataset
from transformers import (
    AutoTokenizer,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Trainer,
    TrainingArguments,
)

from pipeline.data.conversations import Turn
from pipeline.data.templates import TEMPLATE_NAMES, render
from pipeline.data.tokens import tokenize_parts
from pipeline.embedded.problems import SYSTEM_PROMPT, Problem, generate_problems
from pipeline.labels import IGNORE

VOCABULARY_SIZE = 576
# Qwen2's rule for splitting text before byte-pair merges, the only one of Qwen2Tokenizer.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
_MARKERS = [
    "<|begin_of_thought|>",
    "<|end_of_thought|>",
    "<|begin_of_solution|>",
    "<|end_of_solution|>",
]
_CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content']"
    " }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _turns(problem: Problem) -> list[Turn]:
    row: Any = problem.stratos_row()
    question, answer = (message["value"] for message in row["conversations"])
    return [Turn("system", SYSTEM_PROMPT), Turn("user", question), Turn("assistant", answer)]


def train_tokenizer(seed: int, problems: int) -> PreTrainedTokenizerFast:
    """Return a byte-level BPE tokenizer like Qwen2's, fitted to generated problems."""
    source = generate_problems(seed, held_out=False)
    texts = [
        "User:\n\nAssistant:\n",
        *("\n".join(turn.text for turn in _turns(next(source))) for _ in range(problems)),
    ]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=VOCABULARY_SIZE - len(_MARKERS),
            special_tokens=special,
            initial_alphabet=alphabet,
        ),
    )
    tokenizer.add_tokens(_MARKERS)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        chat_template=_CHAT_TEMPLATE,
    )


def teacher_config(tokenizer: PreTrainedTokenizerBase) -> Qwen2Config:
    """Return the embedded teacher's configuration, of about 1.1 million weights."""
    return Qwen2Config(
        vocab_size=VOCABULARY_SIZE,
        hidden_size=128,
        intermediate_size=384,
        num_hidden_layers=5,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )


class EndlessProblems(IterableDataset[dict[str, list[int]]]):
    """Tokenised problems without end, three of four in the paper's template, one as a chat."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, seed: int) -> None:
        self.tokenizer, self.seed = tokenizer, seed

    def __iter__(self) -> Iterator[dict[str, list[int]]]:
        for index, problem in enumerate(generate_problems(self.seed, held_out=False)):
            template = TEMPLATE_NAMES[index % 4 == 3]
            ids, mask = tokenize_parts(
                render(_turns(problem), template, self.tokenizer), self.tokenizer
            )
            yield {
                "input_ids": ids,
                "labels": [i if learn else IGNORE for i, learn in zip(ids, mask, strict=True)],
            }


class PadRight:
    """A collator of right-padded batches `[B, T]`, which causal attention reads without a mask."""

    def __init__(self, pad_token_id: int) -> None:
        self.fill = {"input_ids": pad_token_id, "labels": IGNORE}

    def __call__(self, rows: list[dict[str, list[int]]]) -> dict[str, torch.Tensor]:
        longest = max(len(row["input_ids"]) for row in rows)
        return {
            key: torch.tensor([row[key] + [fill] * (longest - len(row[key])) for row in rows])
            for key, fill in self.fill.items()
        }


@click.command(help=__doc__)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="Folder for the weights and the tokenizer.",
)
@click.option("--steps", default=1600, show_default=True, help="Optimiser steps of 64 problems.")
@click.option("--seed", default=0, show_default=True)
def main(out: Path, steps: int, seed: int) -> None:
    torch.manual_seed(seed)
    train_tokenizer(seed, problems=5000).save_pretrained(out)
    Qwen2Config().save_pretrained(out)  # AutoTokenizer reads the family from it
    tokenizer = AutoTokenizer.from_pretrained(out, trust_remote_code=False)
    tokenizer.save_pretrained(out)
    model = Qwen2ForCausalLM(teacher_config(tokenizer))
    arguments = TrainingArguments(
        output_dir=str(out / "training"),
        max_steps=steps,
        per_device_train_batch_size=64,
        learning_rate=2e-3,
        lr_scheduler_type="cosine",
        warmup_steps=100,
        weight_decay=0.01,
        max_grad_norm=1.0,
        logging_steps=50,
        save_strategy="no",
        report_to=[],
        seed=seed,
        use_cpu=True,
    )
    assert isinstance(tokenizer.pad_token_id, int)
    collate = PadRight(tokenizer.pad_token_id)
    trainer = Trainer(
        model, arguments, data_collator=collate, train_dataset=EndlessProblems(tokenizer, seed + 1)
    )
    trainer.train()
    model.bfloat16().save_pretrained(out)


if __name__ == "__main__":
    main()
