"""What was transferred: the student beside its controls and baselines, on rows that none of them was trained on."""

from __future__ import annotations

import gc
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import lru_cache
from typing import Any

import torch

from cache import Cache
from cache.files import write_atomically
from cache.identity import Identity
from pipeline.data.said import said_of
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.evaluation.codecs import described_codecs
from pipeline.evaluation.cost import reading_flops
from pipeline.evaluation.feature_controls import TRIVIAL
from pipeline.evaluation.harness import HarnessTasks
from pipeline.evaluation.losses import RowLosses, transfer_score
from pipeline.evaluation.prompts import HeldOutPrompts, held_out_prompts
from pipeline.evaluation.scores import Step, answer_prompts, shown_samples, verdict
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.evaluation.student import HeldOutStudent
from pipeline.evaluation.subjects import STUDENT, Subject, opened_subjects, rows_in, rows_of
from pipeline.evaluation.teacher_alone import TeacherAlone
from pipeline.generation.writer import StudentWriter
from pipeline.teacher.model import Teacher
from pipeline.teacher.same import load_same_teacher
from pipeline.training.beside import BASELINES, about, possible_baselines
from pipeline.training.run import train
from pipeline.training.run_folder import RunFolder, environment

TEACHER = "teacher"
"""The baseline that is not trained."""


def evaluate(settings: EvaluateSettings, step: Step = lambda what, done, total: None) -> dict[str, Any]:
    """Evaluate a run and those beside it; returns what is written to `evaluation/results.json`.

    Raises:
        CacheError: the cache is not whole or damaged.
        InputError: the run is not finished, or cache, teacher or data set are not those it was trained from.
    """
    folder = RunFolder(settings.run)
    folder.require_finished()
    tasks = HarnessTasks(settings.tasks, settings.task_path, settings.task_limit)
    baselines = _chosen_baselines(settings, folder)
    trained = [name for name in baselines if name != TEACHER]
    if trained:
        given = replace(folder.settings(), run=settings.run)
        train(replace(given, cache=settings.cache) if settings.cache else given, controls=trained, resume=True)
    device = choose_device(settings.device)
    with opened_subjects(folder, settings.cache) as subjects:
        student = subjects[0]
        training_rows, held_out = rows_of(student)
        prompts = held_out_prompts(settings, subjects, training_rows, held_out)
        load = _teacher_loader(settings, subjects, device)
        entries, losses, answers = [], {}, {}
        for subject in subjects:
            entry, losses[subject.name], answers[subject.name] = _evaluated(
                subject, settings, rows_in(subject, student, held_out), prompts, tasks, load, device, step
            )
            entries.append(entry)
        if TEACHER in baselines:
            entry, losses[TEACHER], answers[TEACHER] = _teacher_alone(settings, student, held_out, prompts, device, step)
            entries.append(entry)
        _compare(student.cache, held_out, entries, losses)
        results = {
            "kind": "llm-modules evaluation",
            "run": str(settings.run),
            "verdict": verdict(entries),
            "leaks": student.record["leaks"],
            "dataset": settings.dataset or student.record["provenance"]["dataset"],
            "validation_examples": len(held_out),
            "prompts": len(prompts.conversations),
            "prompts_left_out": prompts.left_out,
            "students": entries,
            "extract": _extract_cost(student.cache, entries),
            "trivial": TRIVIAL.get(student.settings.condition, ""),
            "codecs": described_codecs(student.cache),
            "samples": shown_samples(prompts.conversations, {name: texts for name, texts in answers.items() if texts}),
            "settings": student.record["settings"],
            "identity": student.record["identity"],
            "environment": environment(),
        }
    folder.evaluation.mkdir(exist_ok=True)
    written = json.dumps(results, indent=1, ensure_ascii=False)
    write_atomically(folder.evaluation / "results.json", written.encode() + b"\n")
    return dict(json.loads(written))


def _chosen_baselines(settings: EvaluateSettings, run: RunFolder) -> list[str]:
    """The baselines asked for by name, or all that make sense beside the run."""
    if settings.baselines != ("all",):
        if unknown := set(settings.baselines) - {*BASELINES, TEACHER}:
            raise InputError(f"--baselines {min(unknown)}: there are {', '.join((TEACHER, *BASELINES))}, or all")
        return list(dict.fromkeys(settings.baselines))
    return [*possible_baselines(run.settings()), TEACHER]


def _evaluated(
    subject: Subject,
    settings: EvaluateSettings,
    rows: Sequence[int],
    prompts: HeldOutPrompts,
    tasks: HarnessTasks,
    load: Callable[[Subject], Teacher],
    device: torch.device,
    step: Step,
) -> tuple[dict[str, Any], RowLosses, list[str]]:
    """What is found of one student: its entry in the results, the loss of each row, its answers."""
    writes = bool(prompts.conversations or tasks) and subject.settings.reads_states
    writer = StudentWriter(subject.folder, (lambda: load(subject)) if writes else None, device, subject.cache)
    step(f"{subject.name}: validation loss", 0, 0)
    held_out = HeldOutStudent(subject, writer.model, writer.tokenizer, rows)
    losses = held_out.losses()
    entry = subject.described() | _loss_figures(losses)
    flops = held_out.flops_a_token()
    entry |= {"flops_a_token": flops, "training_flops": flops * entry["tokens"]}
    if subject.settings.leaks:
        entry["leak"] = held_out.leak(losses.loss)
    if subject.settings.reads_states:
        step(f"{subject.name}: features", 0, 0)
        entry["features"] = held_out.features(losses.loss)
        if subject.name == STUDENT:
            entry["inside"] = held_out.inside()
    texts: list[str] = []
    if prompts.conversations:
        scores, texts = answer_prompts(subject.name, writer.write, prompts.conversations, settings, step)
        entry |= scores
    if tasks and subject.name == STUDENT:
        entry["tasks"] = tasks.answered_by(writer)
    return entry, losses, texts


def _teacher_alone(
    settings: EvaluateSettings,
    student: Subject,
    rows: Sequence[int],
    prompts: HeldOutPrompts,
    device: torch.device,
    step: Step,
) -> tuple[dict[str, Any], RowLosses, list[str]]:
    """What is found of the teacher by itself."""
    gc.collect()
    alone = TeacherAlone(_teachers_name(settings, student), student.cache, device)
    losses = alone.row_losses(rows, lambda done, total: step(f"{TEACHER}: loss", done, total))
    length = int(student.cache.lengths.mean())
    entry = {
        "name": TEACHER,
        "kind": "baseline",
        "about": about(TEACHER),
        "reads": "prompt and answer, as it was",
        "condition": TEACHER,
        "layers": [],
        "leaks": False,
        "steps": 0,
        "tokens": 0,
        "parameters": alone.model.num_parameters(),
        "seconds": 0.0,
        "peak_memory": None,
        "training_flops": 0.0,
        "flops_a_token": reading_flops(alone.model.base_model, length, device),
    } | _loss_figures(losses)
    texts: list[str] = []
    if prompts.conversations:
        scores, texts = answer_prompts(TEACHER, alone.write, prompts.conversations, settings, step)
        entry |= scores
    return entry, losses, texts


def _loss_figures(losses: RowLosses) -> dict[str, Any]:
    figures = {"val_loss": losses.loss, "perplexity": losses.perplexity, "val_tokens": int(losses.tokens.sum())}
    return figures | {"val_loss_interval": losses.interval()}


def _compare(cache: Cache, rows: Sequence[int], entries: list[dict[str, Any]], losses: dict[str, RowLosses]) -> None:
    """Add what needs more than one run to tell: transfer scores, and losses a byte, which do not depend on the tokens."""
    said = {cache.row_ids[row]: said_of(cache, row) for row in rows} if cache.identity["loss_on"] == "assistant" else {}
    written = {row_id: sum(len(each.words_of(answer).encode()) for answer in each.answers) for row_id, each in said.items()}
    for entry in entries:
        own = losses[entry["name"]]
        if size := sum(written.get(row_id, 0) for row_id in own.row_ids):
            entry["bits_a_byte"] = float(own.nats.sum()) / size / math.log(2)
        if entry["name"] not in (STUDENT, TEACHER):
            entry["transfer"] = asdict(transfer_score(losses[STUDENT], own))


def _extract_cost(cache: Cache, entries: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What computing the states took, once: where the teacher was measured, its operations too."""
    stored = sum(record.stored_tokens for record in cache.records)
    a_token = next((entry["flops_a_token"] for entry in entries if entry["name"] == TEACHER), None)
    return {"stored_tokens": stored, "flops_a_token": a_token, "flops": None if a_token is None else stored * a_token}


def _teachers_name(settings: EvaluateSettings, subject: Subject) -> str:
    return settings.teacher or str(subject.record["provenance"]["teacher"])


def _teacher_loader(
    settings: EvaluateSettings, subjects: Sequence[Subject], device: torch.device
) -> Callable[[Subject], Teacher]:
    """Loads a subject's teacher with the layers that all its students read, and keeps the last one."""
    layers: dict[str, set[int]] = {}
    for subject in subjects:
        layers.setdefault(_weights_of(subject.cache.identity), set()).update(subject.settings.layers_read)

    @lru_cache(maxsize=1)
    def load(weights: str, name: str, cache: Cache) -> Teacher:
        return load_same_teacher(name, sorted(layers[weights]), cache.identity, device)

    def of(subject: Subject) -> Teacher:
        own = subject.cache is subjects[0].cache
        name = _teachers_name(settings, subject) if own else str(subject.record["provenance"]["teacher"])
        return load(_weights_of(subject.cache.identity), name, subject.cache)

    return of


def _weights_of(identity: Identity) -> str:
    return str(identity["teacher_weights"])
