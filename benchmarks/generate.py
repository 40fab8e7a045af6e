"""Ways to write an answer, side by side: students with their teacher, the teacher alone, GPT-Neo
alone.

Run `python benchmarks/generate.py [--teacher T --dataset D] [--student S] [--new-tokens N]
[--rounds N] [--published-every N] [--json FILE]`.

- GPT-Neo alone: transformers' own, of the student's shape, after one token (the limit)
- prompt: the teacher reads the prompt once; GPT-Neo writes, looking at it
- prompt, cached: the prompt's states are in a cache, no teacher is loaded
- sequence: the teacher reads every token that is written
- its student alone: the same, the states given
- teacher alone: transformers' `generate`
- published: as the published code does it, teacher (with its LM head, all layers kept) and student
  recompute everything for each token. Only every N-th length is run, and the time is extrapolated.

All but the last through `generate` with key-value caches, greedily, exactly N tokens, one prompt;
students' weights are new, as that changes no speed. Loading is not counted, prefills are. The ways
alternate, all in the same number of rounds, and are compared by medians."""

from __future__ import annotations

import json
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import click
import torch
from rich.console import Console
from rich.table import Table
from rounds import alternate
from transformers import AutoModelForCausalLM, GgufConfig, GPTNeoConfig, GPTNeoForCausalLM

from cache import open_cache
from pipeline.device import DTYPES, choose_device, choose_dtype
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.live_teacher import LiveTeacher
from pipeline.generation.prompt_states import PromptStates
from pipeline.model import LLMModulesForCausalLM, build_student
from pipeline.shapes import SIZES
from pipeline.teacher.load import load_teacher
from pipeline.teacher.source import find_teacher

GPT_NEO_TOKENS = 50257
LAYER = -1


class GivenStates:
    """A reader whose states cost nothing."""

    def __init__(self, width: int, device: torch.device) -> None:
        self._width, self._device = width, device

    def read(
        self, input_ids_BK: torch.Tensor, attention_mask_BK: torch.Tensor | None, first: int
    ) -> torch.Tensor:
        return torch.zeros(
            len(input_ids_BK), input_ids_BK.shape[1] - first, self._width, device=self._device
        )


@torch.inference_mode()
def published_seconds(
    whole: Any, student: LLMModulesForCausalLM, ids_BT: torch.Tensor, new_tokens: int, every: int
) -> float:
    """Return the seconds for `new_tokens` tokens, extrapolated from every `every`-th length."""
    lengths = range(ids_BT.shape[1], ids_BT.shape[1] + new_tokens, every)
    spent = 0.0
    for length in lengths:
        read_BT = torch.zeros(1, length, dtype=torch.long, device=ids_BT.device)
        began = time.perf_counter()
        states = whole(input_ids=read_BT, output_hidden_states=True, use_cache=False).hidden_states[
            LAYER
        ]
        student(hidden_states=states, use_cache=False).logits[0, -1].argmax().item()
        spent += time.perf_counter() - began
    return spent * new_tokens / len(lengths)


def student_of(
    size: str, condition: str, vocab_size: int, width: int, device: torch.device
) -> LLMModulesForCausalLM:
    """A student with new weights."""
    model = build_student(
        size, vocab_size=vocab_size, longest=2048, teacher_hidden_size=width, condition=condition, bos_token_id=0, eos_token_id=0,
        pad_token_id=0,
    )  # fmt: skip
    return torch.nn.Module.to(model, device).eval()  # type: ignore[return-value]


@click.command(help=__doc__)
@click.option("--teacher", default=EMBEDDED_TEACHER, help="[default: the embedded one]")
@click.option(
    "--dataset", default=EMBEDDED_DATASET, help="Its first row is asked.  [default: embedded]"
)
@click.option("--student", type=click.Choice(list(SIZES)), default="tiny", show_default=True)
@click.option("--new-tokens", default=256, show_default=True)
@click.option(
    "--published-every",
    default=16,
    show_default=True,
    help="Run the published way for each so many tokens alone.",
)
@click.option("--rounds", default=3, show_default=True, type=click.IntRange(min=1))
@click.option("--device", "device_name", default="auto", show_default=True)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
def main(
    teacher: str,
    dataset: str,
    student: str,
    new_tokens: int,
    published_every: int,
    rounds: int,
    device_name: str,
    json_path: Path | None,
) -> None:
    """Measure and print."""
    torch.manual_seed(0)
    device, source = choose_device(device_name), find_teacher(teacher)
    exactly = {
        "max_new_tokens": new_tokens,
        "min_new_tokens": new_tokens,
        "do_sample": False,
        "pad_token_id": 0,
    }
    with tempfile.TemporaryDirectory() as folder:
        settings = ExtractSettings(
            teacher=teacher,
            dataset=dataset,
            cache=Path(folder) / "cache",
            condition="prompt",
            limit=1,
            device=device_name,
        )
        extract(prepare(settings))
        cache = open_cache(settings.cache)
        ids_BT = torch.from_numpy(cache[0].input_ids.astype("int64"))[None].to(device)
        live = load_teacher(source, [LAYER], device, choose_dtype("auto", device))
        kind: dict[str, Any] = (
            {"quantization_config": GgufConfig(dequantize=True)} if source.is_gguf else {}
        )
        whole = AutoModelForCausalLM.from_pretrained(
            source.location,
            dtype=DTYPES[choose_dtype("auto", device)],
            trust_remote_code=False,
            **kind,
            **source.options,
        )
        whole = whole.eval().to(device)
        shape = GPTNeoConfig(
            **SIZES[student], vocab_size=GPT_NEO_TOKENS, bos_token_id=0, eos_token_id=0
        )
        alone = GPTNeoForCausalLM(shape).eval().to(device)
        of_prompt = student_of(student, "prompt", GPT_NEO_TOKENS, live.width, device)
        of_sequence = student_of(student, "sequence", cache.manifest.vocab_size, live.width, device)
        first_BT = torch.zeros(1, 1, dtype=torch.long, device=device)

        def prompt(states: PromptStates) -> Any:
            hidden_BKD, mask_BK = states.read(ids_BT.tolist())
            return of_prompt.generate(
                first_BT,
                hidden_states=hidden_BKD.to(device),
                states_mask=mask_BK.to(device),
                **exactly,
            )

        ways: dict[str, Callable[[], Any]] = {
            "GPT-Neo alone": lambda: alone.generate(first_BT, **exactly),
            "prompt": lambda: prompt(PromptStates([LAYER], lambda: live)),
            "prompt, cached": lambda: prompt(PromptStates([LAYER], lambda: live, cache)),
            "sequence": lambda: of_sequence.generate(
                ids_BT, reader=LiveTeacher(live, [LAYER], device), **exactly
            ),
            "its student alone": lambda: of_sequence.generate(
                ids_BT, reader=GivenStates(live.width, device), **exactly
            ),
            "teacher alone": lambda: whole.generate(
                ids_BT, attention_mask=torch.ones_like(ids_BT), **exactly
            ),
        }
        timers: dict[str, Callable[[], float]] = {
            name: partial(_timed, way) for name, way in ways.items()
        }
        timers["published"] = lambda: published_seconds(
            whole, of_sequence, ids_BT, new_tokens, published_every
        )
        measured = alternate(timers, rounds)
        seconds = {name: statistics.median(times) for name, times in measured.items()}
        tokens = ids_BT.shape[1]
    limit = seconds["GPT-Neo alone"]
    figures = [
        {
            "way": name,
            "seconds": spent,
            "tokens_per_second": new_tokens / spent,
            "times_gpt_neo_alone": spent / limit,
            "round_seconds": measured[name],
        }
        for name, spent in seconds.items()
    ]
    title = (
        f"{new_tokens} tokens after a prompt of {tokens}, teacher {Path(teacher).name}, student"
        f" {student}"
    )
    table = Table(title=title)
    for heading in ("way", "seconds", "tokens/s", "times GPT-Neo alone"):
        table.add_column(heading, justify="left" if heading == "way" else "right")
    for figure in figures:
        table.add_row(
            str(figure["way"]),
            f"{figure['seconds']:.2f}",
            f"{figure['tokens_per_second']:.1f}",
            f"{figure['times_gpt_neo_alone']:.2f}",
        )
    ratios = {
        "published_over_sequence": seconds["published"] / seconds["sequence"],
        "sequence_over_both_alone": (
            seconds["sequence"] / (seconds["teacher alone"] + seconds["its student alone"])
        ),
    }
    console = Console(width=110)
    console.print(table)
    console.print(
        f"sequence: {ratios['published_over_sequence']:.1f} times as fast as the published way"
    )
    console.print(
        f"sequence: {ratios['sequence_over_both_alone']:.2f} times teacher and student alone,"
        " added up"
    )
    if json_path:
        result = {"prompt_tokens": tokens, "new_tokens": new_tokens, "ways": figures, **ratios}
        json_path.write_text(json.dumps(result, indent=1) + "\n")


def _timed(way: Callable[[], Any]) -> float:
    began = time.perf_counter()
    way()
    if torch.accelerator.is_available():
        torch.accelerator.synchronize()
    return time.perf_counter() - began


if __name__ == "__main__":
    main()
