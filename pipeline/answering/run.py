"""Answer the prompts of a data set with a teacher, as a new data set."""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass, replace

from pipeline.answering.generate import generate_missing
from pipeline.answering.journal import AnswerJournal
from pipeline.answering.out_file import OutFile
from pipeline.answering.prepare import AnswerPlan, prepare
from pipeline.answering.select import Selection, select
from pipeline.answering.settings import AnswerSettings
from pipeline.errors import RunError
from pipeline.json_dataclasses import from_json
from pipeline.progress import NO_PROGRESS, Progress


@dataclass(frozen=True, kw_only=True)
class AnswerResult:
    """A finished file of answers.

    Attributes:
        out: the file.
        prompts: number of prompts answered.
        answers: number of answers written to them.
        kept: those in the file.
        wrong: those that the score finds wrong.
        not_ended: those that `--max-new-tokens` cut.
        unusable: those that cannot be read as a row again, by reason.
        unscorable: rows whose own answer the score cannot be compared with; not answered.
        left_out: other rows that were not answered, by reason.
        first_left_out: the first of them and its problem, by reason.
        unread: number of rows with content, by column or message field that was not read.
        score: name of the score; None with `--keep all`.
        score_reason: why it was chosen.
        tokens: of all answers.
        seconds: of generation, over all interruptions.
        tokens_per_second: generated; None if it took no time.
        resumed_answers: those that an interrupted run had left.
        finished_earlier: whether the file was complete before.
    """

    out: str
    prompts: int
    answers: int
    kept: int
    wrong: int
    not_ended: int
    unusable: dict[str, int]
    unscorable: int
    left_out: dict[str, int]
    first_left_out: dict[str, str]
    unread: dict[str, int]
    score: str | None
    score_reason: str | None
    tokens: int
    seconds: float
    tokens_per_second: float | None
    resumed_answers: int = 0
    finished_earlier: bool = False


def answer(settings: AnswerSettings, progress: Progress = NO_PROGRESS) -> AnswerResult:
    """Write the teacher's answers; continue an unfinished file.

    Raises:
        CacheError: another process is writing the file.
        InputError: as `prepare`; or the file has another identity.
        RunError: memory is too small, or no answer is kept.
    """
    plan = prepare(settings)
    out = OutFile(settings.out)
    with out.locked():
        if (earlier := out.finished_result(plan.identity)) is not None:
            out.discard_journal()
            result = from_json(AnswerResult, earlier)
            return replace(result, out=str(out.path), finished_earlier=True)
        with AnswerJournal(out.journal, plan.identity, settings.batch_size) as journal:
            generate_missing(plan, journal, progress)
        by_number = dict(zip(plan.order, journal.answers, strict=True))
        selection = select(plan, [by_number[n] for n in range(plan.answers)], progress)
        result = _result(plan, journal, selection)
        if not selection.lines:
            raise RunError(
                f"{out.path}: no answer is kept ({result.wrong} wrong, {result.not_ended} not"
                f" ended, {sum(selection.unusable.values())} unusable); raise --max-new-tokens,"
                " choose another --score, or --keep all, with another --out"
            )
        rows = b"".join(selection.lines)
        digest = hashlib.sha256(rows).hexdigest()
        out.publish(rows, digest, plan.identity, asdict(replace(result, resumed_answers=0)))
    return result


def _result(plan: AnswerPlan, journal: AnswerJournal, selection: Selection) -> AnswerResult:
    tokens = sum(answer.tokens for answer in journal.answers)
    return AnswerResult(
        out=str(plan.settings.out),
        prompts=len(plan.prompts),
        answers=plan.answers,
        kept=len(selection.lines),
        wrong=selection.wrong,
        not_ended=selection.not_ended,
        unusable=dict(selection.unusable),
        unscorable=plan.unscorable,
        left_out=dict(plan.left_out),
        first_left_out=dict(plan.first_left_out),
        unread=dict(plan.unread),
        score=plan.chosen.score.name if plan.chosen else None,
        score_reason=plan.chosen.reason if plan.chosen else None,
        tokens=tokens,
        seconds=round(journal.seconds, 3),
        tokens_per_second=round(tokens / journal.seconds, 1) if journal.seconds else None,
        resumed_answers=journal.resumed,
    )
