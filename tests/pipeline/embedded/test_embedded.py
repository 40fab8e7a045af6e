"""The embedded default is reproduced by its scripts, and strong enough for the demo."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from safetensors import safe_open
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase

from pipeline.data.sources import load_conversations
from pipeline.data.templates import render
from pipeline.data.tokens import tokenize_parts, tokenize_prompt
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.embedded.problems import (
    EMBEDDED_ROWS,
    Problem,
    embedded_problems,
    generate_problems,
    main,
)
from pipeline.embedded.train_teacher import teacher_config, train_tokenizer
from pipeline.scoring.mathematics.final_answer import final_answer
from pipeline.scoring.mathematics.same_answer import same_answer


def test_the_data_set_is_reproduced_byte_for_byte(tmp_path: Path) -> None:
    CliRunner().invoke(main, ["--out", str(tmp_path / "problems.jsonl")], catch_exceptions=False)
    assert (tmp_path / "problems.jsonl").read_bytes() == Path(EMBEDDED_DATASET).read_bytes()


def test_the_teacher_never_trains_on_an_embedded_problem() -> None:
    rows = load_conversations(EMBEDDED_DATASET).conversations
    assert len(rows) == EMBEDDED_ROWS
    questions = {row.turns[1].text for row in rows}
    assert len(questions) == EMBEDDED_ROWS
    assert all(Problem(question, (), 0).held_out for question in questions)
    assert not any(
        problem.held_out for problem in islice(generate_problems(1, held_out=False), 500)
    )


def test_the_answers_follow_from_the_worked_steps() -> None:
    for problem in islice(generate_problems(5, held_out=False), 500):
        for step in problem.steps:
            sum_, _, result = step.partition("=")
            left, sign, right = sum_.split()[-3:]
            worked = {
                "+": int(left) + int(right),
                "-": int(left) - int(right),
                "*": int(left) * int(right),
            }[sign]
            assert worked == int(result.split()[0]) >= 0
        assert problem.answer == int(problem.steps[-1].partition("=")[2].split()[0])


def test_unfinished_solutions_end_where_the_teacher_predicts_the_result(tmp_path: Path) -> None:
    """The answer must not be in the prompt, and the teacher must know it at the last blank."""
    out = tmp_path / "unfinished.jsonl"
    CliRunner().invoke(main, ["--unfinished", "--out", str(out)], catch_exceptions=False)
    rows = load_conversations(str(out)).conversations
    assert len(rows) == EMBEDDED_ROWS
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TEACHER)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_TEACHER, dtype=torch.float32).eval()
    right = 0
    for row, problem in zip(rows[:24], embedded_problems(), strict=False):
        first = problem.steps[0]
        _, question, solution, _ = row.prompt_turns
        assert question.text == problem.question
        assert solution.text.endswith("= ")
        result = first.removeprefix(solution.text.rpartition("\n")[2]).split()[0]
        assert int(row.reference) == int(result) // 10
        prompt = tokenize_prompt(row.prompt_turns, "paper", tokenizer)
        blank = len(prompt) - 1 - prompt[::-1].index(tokenizer.eos_token_id) - 1
        logits_TV = model(torch.tensor([prompt])).logits[0]
        right += tokenizer.decode(logits_TV[blank].argmax()) == result[0]
    assert right >= 20


@pytest.mark.parametrize("options", [[], ["--questions", "3", "--out", "rows.jsonl"]])
def test_unfinished_solutions_never_replace_the_embedded_problems(options: list[str]) -> None:
    result = CliRunner().invoke(main, ["--unfinished", *options])
    assert result.exit_code == 2
    assert "--unfinished: name another --out" in result.output


def test_the_tokenizer_is_the_one_that_the_script_fits(tokenizer: PreTrainedTokenizerBase) -> None:
    fitted = train_tokenizer(0, problems=5000)
    for row in load_conversations(EMBEDDED_DATASET, limit=50).conversations:
        for part in render(row.turns, "paper", tokenizer):
            ids = tokenizer(part.text, add_special_tokens=False)["input_ids"]
            assert ids == fitted(part.text, add_special_tokens=False)["input_ids"]


def test_the_teacher_is_small_and_has_the_shape_in_the_script(
    tokenizer: PreTrainedTokenizerBase,
) -> None:
    files = [path for path in Path(EMBEDDED_TEACHER).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 10e6
    assert {path.suffix for path in files} <= {".json", ".safetensors", ".jinja"}
    with safe_open(Path(EMBEDDED_TEACHER) / "model.safetensors", "pt") as weights:
        shape = weights.get_slice("model.embed_tokens.weight").get_shape()
    config = teacher_config(tokenizer)
    assert shape == [config.vocab_size, config.hidden_size]


def test_the_teacher_solves_held_out_problems() -> None:
    tokenizer = AutoTokenizer.from_pretrained(EMBEDDED_TEACHER)
    model = AutoModelForCausalLM.from_pretrained(EMBEDDED_TEACHER, dtype=torch.float32).eval()
    rows = load_conversations(EMBEDDED_DATASET, limit=24).conversations
    right = 0
    for row in rows:
        prompt = torch.tensor([tokenize_prompt(row.prompt_turns, "paper", tokenizer)])
        answer = model.generate(prompt, max_new_tokens=160, do_sample=False)[0, prompt.shape[1] :]
        right += same_answer(
            final_answer(str(tokenizer.decode(answer))), final_answer(row.reference)
        )
    assert right >= 20
    ids, _ = tokenize_parts(render(rows[0].turns, "chat", tokenizer), tokenizer)
    assert model(torch.tensor([ids]), labels=torch.tensor([ids])).loss.isfinite()
