"""What was transferred: the student against its comparison runs, on rows that none of them was trained
on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import torch

from cache.files import write_atomically
from pipeline.device import choose_device
from pipeline.errors import InputError, RunError
from pipeline.evaluation.answer_scores import AnswerScores
from pipeline.evaluation.codecs import described_codecs
from pipeline.evaluation.harness import HarnessTasks
from pipeline.evaluation.losses import RowLosses, transfer_score
from pipeline.evaluation.prompts import HeldOutPrompts, held_out_prompts
from pipeline.evaluation.scores import (
    Answered,
    Step,
    all_answers,
    answer_prompts,
    shown_samples,
    verdict,
)
from pipeline.evaluation.settings import TEACHER, EvaluateSettings
from pipeline.evaluation.student import HeldOutStudent
from pipeline.evaluation.subjects import STUDENT, Subject, opened_subjects, rows_in, rows_of
from pipeline.evaluation.teacher_alone import TeacherAlone
from pipeline.evaluation.teachers import KeptTeacher, name_of_teacher
from pipeline.generation.writer import StudentWriter
from pipeline.runs.comparisons import BASELINES, describe
from pipeline.runs.folder import RunFolder, environment
from pipeline.runs.record import trained_from
from pipeline.training.run import train, unfit_comparisons
from pipeline.training.validation import perplexity

ASKED = (
    "dataset",
    "dataset_config",
    "split",
    "samples",
    "score",
    "max_new_tokens",
    "batch_size",
    "task_limit",
)
"""Settings of an evaluation on which its figures depend."""


def evaluate(
    settings: EvaluateSettings, step: Step = lambda what, done, total: None
) -> dict[str, Any]:
    """Evaluate a run and its comparison runs; returns what is written to `evaluation/results.json`.

    What cannot be measured of the teacher alone, or of a task, is said under `not_measured`, and
    costs nothing else.

    Raises:
        CacheError: the cache is not whole or damaged.
        InputError: the run is not finished, or cache, teacher or data set are not those it was
            trained from.
    """
    folder = RunFolder(settings.run)
    folder.require_finished()
    folder.comparisons()  # none of them is missing, before anything is done
    tasks = HarnessTasks(
        settings.tasks, settings.task_path, settings.task_limit, settings.batch_size
    )
    baselines, not_measured = _trained_baselines(settings, folder)
    device = choose_device(settings.device)
    with opened_subjects(folder, settings.cache, settings.random_teacher) as subjects:
        student = subjects[0]
        training_rows, held_out = rows_of(student)
        prompts = held_out_prompts(settings, subjects, training_rows, held_out)
        references = [prompt.reference for prompt in prompts.conversations]
        scores = AnswerScores(settings.score, references, prompts.references)
        teachers = KeptTeacher(settings, subjects, device)
        entries, losses, answers = [], {}, {}
        for subject in subjects:
            entry, losses[subject.name], answers[subject.name] = _evaluated(
                subject,
                settings,
                rows_in(subject, student, held_out),
                prompts,
                scores,
                teachers,
                device,
                step,
            )
            entries.append(entry)
        if tasks:
            not_measured |= _answer_tasks(tasks, student, entries[0], teachers, device, step)
        teachers.let_go()
        extract: dict[str, Any] = {
            "stored_tokens": sum(record.stored_tokens for record in student.cache.records)
        }
        extract["flops_a_token"] = None
        if TEACHER in baselines:
            try:
                alone = TeacherAlone(name_of_teacher(settings, student), student.cache, device)
                entry, losses[TEACHER], answers[TEACHER] = _teacher_alone(
                    alone, settings, held_out, prompts, scores, step
                )
                extract["flops_a_token"] = alone.flops_a_token(int(student.cache.lengths.mean()))
                entries.append(entry)
            except InputError as error:
                not_measured[TEACHER] = str(error)
        _compare(subjects, entries, losses)
        if prompts.conversations and not any(entry.get("stopped") for entry in entries):
            not_measured["answers"] = (
                f"none has ended within {settings.max_new_tokens} tokens; raise --max-new-tokens"
            )
        if settings.samples and not prompts.conversations:
            not_measured["answers"] = "no prompt is left to answer; name other rows with --dataset"
        if prompts.conversations and not scores.described()["scored"]:
            not_measured["score"] = (
                f"no reference can be scored by {scores.name}; choose another with --score"
            )
        results = {
            "kind": "llm-modules evaluation",
            "run": str(settings.run),
            "verdict": verdict(entries, scores.described()),
            "leaks": student.record["leaks"],
            "dataset": settings.dataset or student.record["provenance"]["dataset"],
            "validation_examples": len(held_out),
            "prompts": len(prompts.conversations),
            "prompts_left_out": prompts.left_out,
            "not_measured": not_measured,
            "students": entries,
            "extract": extract,
            "trivial": student.settings.conditioning.trivial_note,
            "codecs": described_codecs(student.cache),
            "score": scores.described() if prompts.conversations else None,
            "samples": shown_samples(prompts.conversations, answers),
            "settings": student.record["settings"],
            "asked": {name: getattr(settings, name) for name in ASKED},
            "identity": student.record["identity"],
            "environment": environment(),
        }
        lines = [
            json.dumps(answer, ensure_ascii=False) + "\n"
            for answer in all_answers(prompts.conversations, answers)
        ]
    folder.evaluation.mkdir(exist_ok=True)
    write_atomically(folder.evaluation / "answers.jsonl", "".join(lines).encode())
    written = json.dumps(results, indent=1, ensure_ascii=False)
    write_atomically(folder.evaluation / "results.json", written.encode() + b"\n")
    return dict(json.loads(written))


def _require_prompts(settings: EvaluateSettings, run: RunFolder) -> None:
    """Look for the prompts of the students that are there.

    Raises:
        InputError: as `held_out_prompts`.
    """
    with opened_subjects(run, settings.cache, settings.random_teacher) as subjects:
        held_out_prompts(settings, subjects, *rows_of(subjects[0]))


def _trained_baselines(
    settings: EvaluateSettings, run: RunFolder
) -> tuple[list[str], dict[str, str]]:
    """The baselines asked for, trained where they were not; with `all`, also which make no sense
    here, and why.

    Raises:
        InputError: one that is named makes no sense beside the run, or is none.
    """
    settings.require_sense()
    if not settings.baselines:
        return [], {}
    place = trained_from(run) if settings.cache is None else settings.cache
    student = replace(
        run.settings(), run=settings.run, cache=place, device=settings.device, report_to=()
    )
    asked, left_out = list(dict.fromkeys(settings.baselines)), dict[str, str]()
    if "all" in asked:
        left_out = unfit_comparisons(student, BASELINES)
        asked = [*(name for name in BASELINES if name not in left_out), TEACHER]
    if TEACHER in asked and run.read_record()["identity"]["cache"]["teacher_kind"] == "encoder":
        left_out[TEACHER] = "is an encoder, and does not write"
        asked.remove(TEACHER)
    if trained := [name for name in asked if name != TEACHER]:
        _require_prompts(settings, run)  # before hours are spent on them
        train(student, comparisons=trained, resume=True)
    return asked, left_out


def _evaluated(
    subject: Subject,
    settings: EvaluateSettings,
    rows: Sequence[int],
    prompts: HeldOutPrompts,
    scores: AnswerScores,
    teachers: KeptTeacher,
    device: torch.device,
    step: Step,
) -> tuple[dict[str, Any], RowLosses, Answered]:
    """What is found of one student: its entry in the results, the loss of each row, its answers."""
    writer = _writer_of(subject, teachers if prompts.conversations else None, device)
    step(f"{subject.name}: validation loss", 0, 0)
    held_out = HeldOutStudent(subject, writer.model, writer.tokenizer, rows)
    losses = held_out.losses()
    flops = held_out.flops_a_token()
    entry = subject.described() | _loss_figures(losses)
    entry |= {"flops_a_token": flops, "training_flops": flops * entry["tokens"]}
    if subject.settings.leaks:
        entry["leak"] = held_out.leak(losses.loss)
    if subject.settings.reads_states:
        step(f"{subject.name}: features", 0, 0)
        entry["features"] = held_out.features(losses.loss)
    answered = answer_prompts(
        subject.name, writer.write, prompts.conversations, scores, settings, step
    )
    return entry | answered.figures, losses, answered


def _writer_of(
    subject: Subject, teachers: KeptTeacher | None, device: torch.device
) -> StudentWriter:
    load = (
        partial(teachers.of, subject)
        if teachers is not None and subject.settings.reads_states
        else None
    )
    return StudentWriter(subject.folder, load, device, subject.cache)


def _answer_tasks(
    tasks: HarnessTasks,
    student: Subject,
    entry: dict[str, Any],
    teachers: KeptTeacher,
    device: torch.device,
    step: Step,
) -> dict[str, str]:
    """Add what the student makes of the tasks to its entry; where that does not come to an end,
    why."""
    step(f"{STUDENT}: tasks", 0, 0)
    try:
        entry["tasks"] = tasks.answered_by(_writer_of(student, teachers, device))
    except (InputError, RunError) as error:
        return {"tasks": str(error)}
    return {}


def _teacher_alone(
    alone: TeacherAlone,
    settings: EvaluateSettings,
    rows: Sequence[int],
    prompts: HeldOutPrompts,
    scores: AnswerScores,
    step: Step,
) -> tuple[dict[str, Any], RowLosses, Answered]:
    """What is found of the teacher by itself."""
    losses = alone.row_losses(rows, lambda done, total: step(f"{TEACHER}: loss", done, total))
    entry = {
        "name": TEACHER,
        "kind": "baseline",
        "about": describe(TEACHER),
        "reads": "prompt and answer, as it was",
        "condition": TEACHER,
        "layers": [],
        "leaks": False,
        "steps": 0,
        "tokens": 0,
        "parameters": alone.parameters,
        "seconds": 0.0,
        "peak_memory": None,
        "training_flops": 0.0,
    } | _loss_figures(losses)
    answered = answer_prompts(TEACHER, alone.write, prompts.conversations, scores, settings, step)
    return entry | answered.figures, losses, answered


def _loss_figures(losses: RowLosses) -> dict[str, Any]:
    figures = {
        "val_loss": losses.loss,
        "perplexity": perplexity(losses.loss),
        "val_tokens": int(losses.tokens.sum()),
    }
    return figures | {"val_loss_interval": losses.interval()}


def _compare(
    subjects: Sequence[Subject], entries: list[dict[str, Any]], losses: dict[str, RowLosses]
) -> None:
    """Add what needs more than one run to tell, where both learn the same text: transfer scores,
    and losses a byte of it."""
    student = subjects[0]
    answers_alone = student.cache.identity["loss_on"] == "assistant"
    own_tokens = {each.name: each.settings.own_tokens for each in subjects}
    for entry in entries:
        name = entry["name"]
        if answers_alone:
            entry["bits_a_byte"] = losses[name].bits_a_byte
        entry["transfer"] = None
        if name not in (STUDENT, TEACHER):
            same_text = answers_alone or own_tokens[name] == student.settings.own_tokens
            score = transfer_score(losses[STUDENT], losses[name]) if same_text else None
            entry["transfer"] = None if score is None else asdict(score)
