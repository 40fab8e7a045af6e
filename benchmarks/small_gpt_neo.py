"""Create a small GPT-Neo with random weights and its own tokenizer, in place of a pretrained one.

Run `python benchmarks/small_gpt_neo.py TEXTS OUT [--tokens N --width N --blocks N --heads N]`.
TEXTS is any data set that `extract` reads; the byte-pair tokenizer is trained on all of its turns.
OUT is a folder for `train --student`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import click
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import GPTNeoConfig, GPTNeoForCausalLM, PreTrainedTokenizerFast

from pipeline.data.sources import load_conversations

END = "<|endoftext|>"
POSITIONS = 2048


def turns(dataset: str) -> Iterator[str]:
    """Yield the text of every turn of a data set."""
    for conversation in load_conversations(dataset).conversations:
        yield from (turn.text for turn in conversation.turns)


def learn_tokenizer(texts: Iterator[str], tokens: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer as of GPT-2 and GPT-Neo, which can encode any text."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tokenizer.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=tokens, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END, eos_token=END, model_max_length=POSITIONS
    )


@click.command(help=__doc__)
@click.argument("texts")
@click.argument("out", type=click.Path(path_type=Path))
@click.option("--tokens", default=4096, show_default=True, type=click.IntRange(min=257))
@click.option("--width", default=256, show_default=True, type=click.IntRange(min=1))
@click.option("--blocks", default=4, show_default=True, type=click.IntRange(min=2))
@click.option("--heads", default=4, show_default=True, type=click.IntRange(min=1))
@click.option("--seed", default=0, show_default=True)
def main(
    texts: str, out: Path, tokens: int, width: int, blocks: int, heads: int, seed: int
) -> None:
    """Train the tokenizer, create the model, save both."""
    if blocks % 2 or width % heads:
        raise click.BadParameter("--blocks must be even, and --width a multiple of --heads")
    tokenizer = learn_tokenizer(turns(texts), tokens)
    torch.manual_seed(seed)
    config = GPTNeoConfig(
        vocab_size=len(tokenizer),
        hidden_size=width,
        num_layers=blocks,
        num_heads=heads,
        max_position_embeddings=POSITIONS,
        attention_types=[[["global", "local"], blocks // 2]],
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    model = GPTNeoForCausalLM(config)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    click.echo(f"{out}: {model.num_parameters():,} weights, {len(tokenizer):,} tokens")


if __name__ == "__main__":
    main()
