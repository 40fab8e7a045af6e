"""How the students' answers are scored, and what the figures say in one sentence."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.conditions.registry import condition_named
from pipeline.data.conversations import Conversation, Turn
from pipeline.data.split import MIN_HELD_OUT
from pipeline.evaluation.answer_scores import AnswerScores
from pipeline.evaluation.answers import has_form, repetition
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.answers import Sampling, Written

Step = Callable[[str, int, int], None]
"""Called with what is being done, and how much of how much is done."""
_SHOWN_SAMPLES = 8
_OTHER_FEATURES = {"mismatched": "with those of another", "zeroed": "with none"}


def verdict(students: list[dict[str, Any]], score: dict[str, Any] | None = None) -> str:
    """One sentence that says whether knowledge was transferred, from the figures alone; `score`
    describes that of the answers.

    It was where, beside each control, the whole confidence interval of the transfer score is above
    zero, and where a student of
    prompts is better with the states of each prompt than with others. Other layers of the teacher
    know something, too: they do not decide."""
    student, controls = students[0], [each for each in students[1:] if each["kind"] == "control"]
    loss = f"validation loss {student['val_loss']:.3f}"
    if student["leaks"]:
        return (
            f"Leaking attention, nothing can be said of transfer: {loss} is partly read off the"
            " answers themselves."
        )
    features = student.get("features", {})
    trivial = condition_named(student["condition"]).trivial_ablations
    features = {
        name: features[name] for name in _OTHER_FEATURES if name in features and name not in trivial
    }
    if features:
        others = ", ".join(
            f"{features[name]:.3f} {how}"
            for name, how in _OTHER_FEATURES.items()
            if name in features
        )
        loss += f" with the states of each prompt, {others}"
    if not controls:
        return f"{loss}; train with --controls to see what of it comes from the teacher."
    scores = [
        (control["transfer"] or {"score": None, "interval": None}) | {"beside": control["name"]}
        for control in controls
    ]
    if any(score["interval"] is None for score in scores):
        return (
            f"No verdict: {loss}, and too few rows are held out to say what of it comes from the"
            f" teacher; {MIN_HELD_OUT} are needed: train with more rows, or a larger"
            " --validation."
        )
    least = min(scores, key=lambda score: score["interval"][0])
    better = least["interval"][0] > 0
    looks = all(student["val_loss"] < other for other in features.values())
    finding = "Transferred" if better and looks else "No transfer shown"
    beside = ", ".join(f"{control['val_loss']:.3f} ({control['name']})" for control in controls)
    text = f"{loss}, against {beside}" if features else f"{loss} against {beside}"
    if score is not None and "score" in student:
        value = student["score"]["value"]
        if finding == "Transferred" and any(
            value <= control["score"]["value"] for control in controls
        ):
            finding = "Transferred in loss alone"
        others = ", ".join(
            f"{control['score']['value']:.0%} ({control['name']})" for control in controls
        )
        what = (
            f"mean score ({score['name']})"
            if score["graded"]
            else f"right answers ({score['name']})"
        )
        text += f"; {what} {value:.0%} against {others}"
    low, high = least["interval"]
    return (
        f"{finding}: {text}; transfer score {least['score']:.3f} ({low:.3f} to {high:.3f}) beside"
        f" {least['beside']}."
    )


@dataclass(frozen=True)
class Answered:
    """The answers of one student to all prompts, in their order.

    Attributes:
        written: the answers.
        values: the score of each; None where its reference cannot be scored.
        figures: of all of them, for the results.
    """

    written: list[Written]
    values: list[float | None]
    figures: dict[str, Any]


def answer_prompts(
    name: str,
    write: Callable[[Sequence[Sequence[Turn]], Sampling], list[Written]],
    prompts: list[Conversation],
    scores: AnswerScores,
    settings: EvaluateSettings,
    step: Step,
) -> Answered:
    """Answer the prompts greedily, and score the answers; nothing where there are no prompts.

    Their form is scored where the data set's own answers have it.

    Raises:
        InputError: a score of the user's own fails.
    """
    if not prompts:
        return Answered([], [], {})
    written = []
    write([prompts[0].prompt_turns], Sampling(1))  # what is loaded at the first prompt is not timed
    began = time.perf_counter()
    for start in range(0, len(prompts), settings.batch_size):
        step(f"{name}: answers", start, len(prompts))
        batch = [prompt.prompt_turns for prompt in prompts[start : start + settings.batch_size]]
        written += write(batch, Sampling(settings.max_new_tokens))
    step(f"{name}: answers", len(prompts), len(prompts))
    seconds = time.perf_counter() - began
    texts = [answer.text for answer in written]
    values = scores.of_rows(texts)
    form = sum(has_form(text) for text in texts) / len(prompts)
    figures = {
        **scores.figures(texts, values),
        **(
            {"thought_solution_form": form}
            if any(has_form(prompt.reference) for prompt in prompts)
            else {}
        ),
        "stopped": sum(answer.stopped for answer in written) / len(prompts),
        "repetition": sum(repetition(text) for text in texts) / len(prompts),
        "generated_tokens_per_second": round(sum(answer.tokens for answer in written) / seconds, 1),
    }
    return Answered(written, values, figures)


def all_answers(prompts: list[Conversation], answers: dict[str, Answered]) -> list[dict[str, Any]]:
    """Every answer, for `answers.jsonl`."""
    return [
        {
            "row_id": prompt.row_id,
            "student": name,
            "prompt": _shown_prompt(prompt),
            "reference": prompt.reference,
            "answer": answered.written[index].text,
            "score": answered.values[index],
            "stopped": answered.written[index].stopped,
        }
        for index, prompt in enumerate(prompts)
        for name, answered in answers.items()
        if answered.written
    ]


def shown_samples(
    prompts: list[Conversation], answers: dict[str, Answered]
) -> list[dict[str, Any]]:
    """The first prompts with the data set's answer and each student's, and how these are scored."""
    return [
        {
            "row_id": prompt.row_id,
            "prompt": _shown_prompt(prompt),
            "reference": prompt.reference,
            "answers": {
                name: answered.written[index].text
                for name, answered in answers.items()
                if answered.written
            },
            "scores": {
                name: answered.values[index]
                for name, answered in answers.items()
                if answered.written
            },
        }
        for index, prompt in enumerate(prompts[:_SHOWN_SAMPLES])
    ]


def _shown_prompt(prompt: Conversation) -> str:
    """What is asked; with who said what where that is more than one turn."""
    turns = [turn for turn in prompt.prompt_turns if turn.role != "system"]
    return (
        turns[0].text
        if len(turns) == 1
        else "\n\n".join(f"{turn.role}: {turn.plain_text}" for turn in turns)
    )
