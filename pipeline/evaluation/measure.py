"""Measure each run of an evaluation, and the teacher."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

import torch

from pipeline.evaluation.answer_scores import AnswerScores
from pipeline.evaluation.answering import Answers, answer_prompts
from pipeline.evaluation.harness import HarnessTasks
from pipeline.evaluation.losses import RowLosses, transfer_score
from pipeline.evaluation.open_runs import STUDENT, OpenRun
from pipeline.evaluation.prompts import HeldOutPrompts
from pipeline.evaluation.results import PeakMemory, StudentResult
from pipeline.evaluation.settings import TEACHER, EvaluateSettings
from pipeline.evaluation.student import HeldOutStudent
from pipeline.evaluation.teacher_alone import TeacherAlone
from pipeline.evaluation.teachers import KeptTeacher
from pipeline.generation.writer import StudentWriter
from pipeline.progress import Progress
from pipeline.runs.comparisons import describe


@dataclass(frozen=True)
class Measured:
    """The measurements of one run, before it is compared with others."""

    result: StudentResult
    losses: RowLosses
    answers: Answers


@dataclass(frozen=True, kw_only=True)
class Evaluator:
    """Measures the runs of an evaluation with the same prompts, score and device."""

    settings: EvaluateSettings
    prompts: HeldOutPrompts
    scores: AnswerScores
    teachers: KeptTeacher
    device: torch.device
    progress: Progress

    def measure_run(self, run: OpenRun, rows: Sequence[int]) -> Measured:
        """Measure a student on `rows` of its cache, and on the prompts."""
        writer = self._writer(run, writes=bool(self.prompts.conversations))
        self.progress.stage(f"{run.name}: validation loss")
        student = HeldOutStudent(run, writer.model, writer.tokenizer, rows)
        losses = student.losses()
        flops_per_token = student.flops_per_token()
        leak = student.leak(losses.loss) if run.settings.leaks else None
        ablations = None
        if run.settings.reads_states:
            self.progress.stage(f"{run.name}: ablations")
            ablations = student.ablations(losses.loss)
        answers = self._answer(run.name, writer)
        trained = run.record.result
        result = StudentResult(
            name=run.name,
            kind=run.kind,
            about=describe(run.name, run.settings.condition),
            reads=run.reads,
            condition=run.settings.condition,
            layers=run.settings.layers_read,
            leaks=run.record.leaks,
            steps=trained.steps,
            tokens=trained.tokens,
            parameters=trained.parameters,
            seconds=trained.seconds,
            peak_memory=PeakMemory(**trained.peak_memory),
            val_loss=losses.loss,
            perplexity=losses.perplexity,
            val_tokens=int(losses.tokens.sum()),
            val_loss_interval=losses.interval(),
            flops_per_token=flops_per_token,
            training_flops=flops_per_token * trained.tokens,
            layer_weights=trained.layer_weights or None,
            leak=leak,
            ablations=ablations,
            **vars(answers.figures),
        )
        return Measured(result, losses, answers)

    def measure_teacher(self, teacher: TeacherAlone, rows: Sequence[int]) -> Measured:
        """Measure the teacher on `rows` of the student's cache, and on the prompts."""
        losses = teacher.row_losses(rows, self.progress)
        answers = self._answer(TEACHER, teacher)
        result = StudentResult(
            name=TEACHER,
            kind="baseline",
            about=describe(TEACHER),
            reads="prompt and answer",
            condition=TEACHER,
            leaks=False,
            parameters=teacher.parameters,
            val_loss=losses.loss,
            perplexity=losses.perplexity,
            val_tokens=int(losses.tokens.sum()),
            val_loss_interval=losses.interval(),
            **vars(answers.figures),
        )
        return Measured(result, losses, answers)

    def run_tasks(self, tasks: HarnessTasks, student: OpenRun) -> dict[str, dict[str, float]]:
        """Return the student's metrics of each task.

        Raises:
            InputError, RunError: a task fails.
        """
        self.progress.stage(f"{STUDENT}: tasks")
        return tasks.run(self._writer(student, writes=True))

    def _answer(self, name: str, writer: StudentWriter | TeacherAlone) -> Answers:
        return answer_prompts(
            name,
            writer.write,
            self.prompts.conversations,
            self.scores,
            self.settings,
            self.progress,
        )

    def _writer(self, run: OpenRun, *, writes: bool) -> StudentWriter:
        needs_teacher = writes and run.settings.reads_states
        load = partial(self.teachers.load, run) if needs_teacher else None
        return StudentWriter(run.folder, load, self.device, run.cache)


def compare_losses(runs: Sequence[OpenRun], measured: Sequence[Measured]) -> list[StudentResult]:
    """Return the results with transfer scores and losses per byte, if runs learn the same text.

    Args:
        runs: the student, then its comparison runs.
        measured: of these runs, and of the teacher if it was measured.
    """
    student = runs[0]
    answers_only = student.cache.identity["loss_on"] == "assistant"
    same_text = {
        run.name
        for run in runs[1:]
        if answers_only or run.settings.own_tokens == student.settings.own_tokens
    }
    return [
        replace(
            run_measured.result,
            bits_per_byte=run_measured.losses.bits_per_byte if answers_only else None,
            transfer=(
                transfer_score(measured[0].losses, run_measured.losses)
                if run_measured.result.name in same_text
                else None
            ),
        )
        for run_measured in measured
    ]
