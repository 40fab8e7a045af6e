"""Generated word problems with worked steps, for the embedded teacher and the demo.

The problems have the schema of Bespoke-Stratos-17k (`system`; `conversations` of `from`/`value`;
thought and solution markers; the answer in a box). They need arithmetic on two-digit numbers over
two to four steps, which a small model learns from a hundred thousand problems, not from a thousand.

A hash of the question decides whether a problem is `held_out`: the data set consists of held-out
problems, and the teacher trains on the others.

With `--unfinished` the same problems become prompts for a student that needs the teacher once: the
solution ends before the result of its first calculation, which the teacher's states contain.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

SYSTEM_PROMPT = (
    "Solve the problem step by step. Write a Thought section with one calculation in each step, "
    "then a Solution section with the answer in a box."
)
EMBEDDED_SEED = 2502_08213
EMBEDDED_ROWS = 1200
FOLLOW_UP = "How many tens?"

_NAMES = (
    "Ann",
    "Ben",
    "Cara",
    "Dan",
    "Eva",
    "Finn",
    "Gina",
    "Hugo",
    "Ida",
    "Jon",
    "Kim",
    "Leo",
    "Mia",
    "Noah",
    "Olga",
    "Paul",
)
_THINGS = (
    "apples",
    "books",
    "cards",
    "coins",
    "eggs",
    "marbles",
    "pens",
    "shells",
    "stamps",
    "stickers",
)
_GAINS = ("buys", "finds", "gets", "wins")
_LOSSES = ("gives away", "loses", "sells", "uses")
_TIMES = {2: "twice", 3: "3 times", 4: "4 times", 5: "5 times"}


@dataclass(frozen=True)
class Problem:
    """A word problem: question, worked steps in order, and the answer, an integer."""

    question: str
    steps: tuple[str, ...]
    answer: int

    @property
    def held_out(self) -> bool:
        """Return whether the problem is in the tenth that the teacher never trains on."""
        return hashlib.sha256(self.question.encode()).digest()[0] < 26

    def stratos_row(self) -> dict[str, object]:
        """Return the problem as a row in the schema of Bespoke-Stratos-17k."""
        thought = "\n\n".join(self.steps)
        solution = f"{self.steps[-1]}\n\nThe answer is \\boxed{{{self.answer}}}."
        answer = (
            f"<|begin_of_thought|>\n\n{thought}\n\n<|end_of_thought|>\n\n"
            f"<|begin_of_solution|>\n\n{solution}\n\n<|end_of_solution|>"
        )
        return {
            "system": SYSTEM_PROMPT,
            "conversations": [
                {"from": "user", "value": self.question},
                {"from": "assistant", "value": answer},
            ],
        }

    def unfinished_row(self) -> dict[str, object]:
        """Return a prompt whose solution lacks its first result, and the tens of that result."""
        calculation, _, result = self.steps[0].partition("= ")
        return {
            "prompt": [
                {"role": "system", "content": SYSTEM_PROMPT},
                {"role": "user", "content": self.question},
                {"role": "assistant", "content": f"<|begin_of_thought|>\n\n{calculation}= "},
                {"role": "user", "content": FOLLOW_UP},
            ],
            "completion": [{"role": "assistant", "content": str(int(result.split()[0]) // 10)}],
        }


def _gains_and_losses(rng: random.Random) -> Problem:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    amount = rng.randint(12, 60)
    question, steps = [f"{name} has {amount} {things}."], []
    for _ in range(rng.randint(2, 3)):
        change = rng.randint(5, 48)
        gain = amount + change < 150 and (amount - change < 3 or rng.random() < 0.5)
        sign = "+" if gain else "-"
        now = amount + change if gain else amount - change
        question.append(f"{name} {rng.choice(_GAINS if gain else _LOSSES)} {change} {things}.")
        steps.append(f"{name} has {amount} {sign} {change} = {now} {things}.")
        amount = now
    question.append(f"How many {things} does {name} have now?")
    return Problem(" ".join(question), tuple(steps), amount)


def _times_as_many(rng: random.Random) -> Problem:
    (first, second), things = rng.sample(_NAMES, 2), rng.choice(_THINGS)
    amount, factor = rng.randint(6, 29), rng.choice(tuple(_TIMES))
    other = amount * factor
    steps = [
        f"{second} has {amount} * {factor} = {other} {things}.",
        f"Together they have {amount} + {other} = {amount + other} {things}.",
    ]
    question = f"{first} has {amount} {things}. {second} has {_TIMES[factor]} as many. "
    if rng.random() < 0.5:
        gone = rng.randint(5, 40 if amount + other > 45 else 12)
        left = amount + other - gone
        steps.append(f"Then they have {amount + other} - {gone} = {left} {things}.")
        return Problem(
            f"{question}Together they use {gone}. How many {things} are left?", tuple(steps), left
        )
    return Problem(
        f"{question}How many {things} do they have together?", tuple(steps), amount + other
    )


def _change_from_a_note(rng: random.Random) -> Problem:
    name, things = rng.choice(_NAMES), rng.choice(_THINGS)
    price, count, fee = rng.randint(3, 15), rng.randint(3, 9), rng.randint(4, 39)
    cost = price * count
    total = cost + fee
    note = rng.choice([n for n in (100, 150, 200) if n > total])
    question = (
        f"{name} buys {count} {things} for {price} dollars each and a bag for {fee} dollars, "
        f"and pays with {note} dollars. How many dollars does {name} get back?"
    )
    steps = (
        f"The {things} cost {count} * {price} = {cost} dollars.",
        f"The total is {cost} + {fee} = {total} dollars.",
        f"{name} gets back {note} - {total} = {note - total} dollars.",
    )
    return Problem(question, steps, note - total)


def _boxes(rng: random.Random) -> Problem:
    (first, second), things = rng.sample(_NAMES, 2), rng.choice(_THINGS)
    boxes, size, loose, given = (
        rng.randint(2, 9),
        rng.randint(4, 12),
        rng.randint(5, 45),
        rng.randint(3, 12),
    )
    packed = boxes * size
    question = (
        f"{first} has {boxes} boxes with {size} {things} each and {loose} more {things}. "
        f"{first} gives {given} {things} to {second}. How many {things} does {first} have left?"
    )
    steps = (
        f"The boxes hold {boxes} * {size} = {packed} {things}.",
        f"{first} has {packed} + {loose} = {packed + loose} {things}.",
        f"{first} has {packed + loose} - {given} = {packed + loose - given} {things} left.",
    )
    return Problem(question, steps, packed + loose - given)


_KINDS = (_gains_and_losses, _gains_and_losses, _times_as_many, _change_from_a_note, _boxes)


def generate_problems(seed: int, *, held_out: bool) -> Iterator[Problem]:
    """Yield problems without end, determined by the seed: only held-out ones, or only others."""
    rng = random.Random(seed)
    while True:
        problem = rng.choice(_KINDS)(rng)
        if problem.held_out == held_out:
            yield problem


def embedded_problems() -> list[Problem]:
    """Return `EMBEDDED_ROWS` different held-out problems."""
    problems = generate_problems(EMBEDDED_SEED, held_out=True)
    chosen: dict[str, Problem] = {}
    while len(chosen) < EMBEDDED_ROWS:
        problem = next(problems)
        chosen.setdefault(problem.question, problem)
    return list(chosen.values())


def question_rows(count: int) -> list[dict[str, object]]:
    """Return questions without answers, not held out: they teach a model words, not arithmetic."""
    problems = generate_problems(EMBEDDED_SEED, held_out=False)
    return [{"text": next(problems).question} for _ in range(count)]


@click.command()
@click.option(
    "--questions",
    type=click.IntRange(min=1),
    help="Write this many questions without answers instead of the embedded problems.",
)
@click.option(
    "--unfinished",
    is_flag=True,
    help="Write the embedded problems with unfinished solutions, as prompts.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    default=Path(__file__).parent / "problems.jsonl",
    help="[default: in place]",
)
def main(questions: int | None, unfinished: bool, out: Path) -> None:
    """Write the embedded data set, or others made from such problems, as JSON lines."""
    if unfinished and (questions is not None or out.name == "problems.jsonl"):
        raise click.UsageError("--unfinished: name another --out, and omit --questions")
    if questions is not None:
        rows = question_rows(questions)
    elif unfinished:
        rows = [problem.unfinished_row() for problem in embedded_problems()]
    else:
        rows = [problem.stratos_row() for problem in embedded_problems()]
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")


if __name__ == "__main__":
    main()
