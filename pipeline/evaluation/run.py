"""Evaluate a run: measure the student and its comparison runs on held-out rows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from cache.files import write_atomically
from pipeline.device import choose_device
from pipeline.errors import InputError, RunError
from pipeline.evaluation.answer_scores import AnswerScores
from pipeline.evaluation.answering import AnswerLine, answer_lines, shown_samples
from pipeline.evaluation.codec_distortion import codec_distortion
from pipeline.evaluation.harness import HarnessTasks
from pipeline.evaluation.measure import Evaluator, Measured, compare_losses
from pipeline.evaluation.open_runs import OpenRun, open_runs
from pipeline.evaluation.prompts import held_out_prompts
from pipeline.evaluation.results import RESULTS, EvaluationResults, ExtractCost, StudentResult
from pipeline.evaluation.settings import TEACHER, EvaluateSettings
from pipeline.evaluation.teacher_alone import TeacherAlone
from pipeline.evaluation.teachers import KeptTeacher, teacher_location
from pipeline.evaluation.verdict import verdict
from pipeline.json_dataclasses import to_json
from pipeline.progress import NO_PROGRESS, Progress
from pipeline.runs.environment import environment
from pipeline.runs.folder import RunFolder
from pipeline.runs.rows import rows_of

OPTIONS = (
    "dataset",
    "dataset_config",
    "split",
    "samples",
    "score",
    "max_new_tokens",
    "batch_size",
    "task_limit",
)
"""Settings that an evaluation's figures depend on."""


def evaluate(
    settings: EvaluateSettings,
    progress: Progress = NO_PROGRESS,
    *,
    tasks: HarnessTasks | None = None,
    impossible: Mapping[str, str] | None = None,
) -> EvaluationResults:
    """Evaluate a run with its comparison runs; write `results.json` and `answers.jsonl`.

    If the teacher or a task fails, `not_measured` has the reason, and the rest is measured.

    Args:
        settings: of the evaluation; baselines must be trained already.
        progress: shows the stages.
        tasks: loaded by `HarnessTasks.of`; None to load them.
        impossible: baselines that this student cannot have, with reasons.

    Raises:
        CacheError: the cache is incomplete or damaged.
        InputError: the run is not finished, a baseline is not trained, or cache, teacher or data
            set differ from the run's.
    """
    settings.require_sense()
    folder = RunFolder(settings.run)
    folder.require_finished()
    _require_baselines(settings, folder)
    tasks = HarnessTasks.of(settings) if tasks is None else tasks
    with open_runs(folder, settings.cache, settings.random_teacher) as runs:
        student = runs[0]
        training_rows, held_out = rows_of(student.cache, student.settings)
        evaluator = _evaluator(settings, runs, training_rows, held_out, progress)
        measured = [evaluator.measure_run(run, run.same_rows(student, held_out)) for run in runs]
        outcome = _Outcome(measured=measured, not_measured=dict(impossible or {}))
        if tasks:
            _run_tasks(outcome, evaluator, tasks, student)
        evaluator.teachers.release()
        if settings.includes_teacher:
            _measure_teacher(outcome, evaluator, student, held_out)
        results = _results(outcome, evaluator, runs, len(held_out))
    answers = {run.result.name: run.answers for run in outcome.measured}
    _write(folder.evaluation, results, answer_lines(evaluator.prompts.conversations, answers))
    return results


@dataclass
class _Outcome:
    """The measurements so far, and what could not be measured, with reasons."""

    measured: list[Measured]
    not_measured: dict[str, str]
    tasks: dict[str, dict[str, float]] | None = None
    teacher_flops_per_token: float | None = None


def _require_baselines(settings: EvaluateSettings, folder: RunFolder) -> None:
    """Raise InputError unless all comparison runs and named baselines are finished."""
    finished = folder.comparisons()
    if missing := [name for name in settings.named_baselines if name not in finished]:
        raise InputError(f"{settings.run}: baseline {missing[0]} is not trained; train it first")


def _evaluator(
    settings: EvaluateSettings,
    runs: Sequence[OpenRun],
    training_rows: Sequence[int],
    held_out: Sequence[int],
    progress: Progress,
) -> Evaluator:
    """Find the prompts and choose the score."""
    device = choose_device(settings.device)
    prompts = held_out_prompts(settings, runs, training_rows, held_out)
    references = [prompt.reference for prompt in prompts.conversations]
    return Evaluator(
        settings=settings,
        prompts=prompts,
        scores=AnswerScores(settings.score, references, prompts.all_references),
        teachers=KeptTeacher(settings, runs, device),
        device=device,
        progress=progress,
    )


def _run_tasks(
    outcome: _Outcome, evaluator: Evaluator, tasks: HarnessTasks, student: OpenRun
) -> None:
    try:
        outcome.tasks = evaluator.run_tasks(tasks, student)
    except (InputError, RunError) as error:
        outcome.not_measured["tasks"] = str(error)


def _measure_teacher(
    outcome: _Outcome, evaluator: Evaluator, student: OpenRun, held_out: Sequence[int]
) -> None:
    if student.cache.identity["teacher_kind"] == "encoder":
        outcome.not_measured[TEACHER] = "an encoder, which does not generate text"
        return
    try:
        location = teacher_location(evaluator.settings, student)
        teacher = TeacherAlone(location, student.cache, evaluator.device)
        measured = evaluator.measure_teacher(teacher, held_out)
        mean_length = int(student.cache.lengths.mean())
        outcome.teacher_flops_per_token = teacher.flops_per_token(mean_length)
        outcome.measured.append(measured)
    except InputError as error:
        outcome.not_measured[TEACHER] = str(error)


def _results(
    outcome: _Outcome, evaluator: Evaluator, runs: Sequence[OpenRun], held_out: int
) -> EvaluationResults:
    student, settings, prompts = runs[0], evaluator.settings, evaluator.prompts
    students = compare_losses(runs, outcome.measured)
    students[0] = replace(students[0], tasks=outcome.tasks)
    score = evaluator.scores.description
    answers = {run.result.name: run.answers for run in outcome.measured}
    return EvaluationResults(
        run=str(settings.run),
        verdict=verdict(students, score),
        leaks=student.record.leaks,
        dataset=settings.dataset or student.record.provenance["dataset"],
        validation_examples=held_out,
        prompts=len(prompts.conversations),
        prompts_left_out=prompts.left_out,
        not_measured=outcome.not_measured | _unmeasured_answers(evaluator, students),
        students=students,
        extract=ExtractCost(
            stored_tokens=sum(record.stored_tokens for record in student.cache.records),
            flops_per_token=outcome.teacher_flops_per_token,
        ),
        trivial_ablations=student.settings.conditioning.trivial_note(student.settings),
        codecs=codec_distortion(student.cache),
        score=score if prompts.conversations else None,
        samples=shown_samples(prompts.conversations, answers),
        settings=student.record.to_json()["settings"],
        options={name: getattr(settings, name) for name in OPTIONS},
        identity=asdict(student.record.identity),
        environment=environment(),
    )


def _unmeasured_answers(evaluator: Evaluator, students: Sequence[StudentResult]) -> dict[str, str]:
    """Return why answers or scores are missing or uninformative, if they are."""
    settings, scores = evaluator.settings, evaluator.scores
    if not evaluator.prompts.conversations:
        if not settings.samples:
            return {}
        return {"answers": "no prompt is left; choose other rows with --dataset"}
    reasons = {}
    if not any(student.stopped for student in students):
        reasons["answers"] = (
            f"none ended within {settings.max_new_tokens} tokens; raise --max-new-tokens"
        )
    if not scores.description.scored:
        reasons["score"] = (
            f"no reference can be scored by {scores.name}; choose another with --score"
        )
    return reasons


def _write(folder: Path, results: EvaluationResults, answers: Sequence[AnswerLine]) -> None:
    folder.mkdir(exist_ok=True)
    lines = [json.dumps(to_json(line), ensure_ascii=False) + "\n" for line in answers]
    write_atomically(folder / "answers.jsonl", "".join(lines).encode())
    text = json.dumps(results.to_json(), indent=1, ensure_ascii=False)
    write_atomically(folder / RESULTS, text.encode() + b"\n")
