"""What was transferred: the student beside its controls, on examples that none of them was trained on."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch.utils.data import DataLoader

from cache import Cache, open_cache
from cache.files import write_atomically
from pipeline.batches.collate import collate
from pipeline.batches.features import CachedFeatures
from pipeline.data.conversations import Conversation
from pipeline.data.split import split_rows
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.evaluation.answers import final_answer, has_form, same_answer
from pipeline.evaluation.prompts import held_out_prompts
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.live_teacher import load_same_teacher
from pipeline.generation.writer import Sampling, StudentWriter
from pipeline.training.run_folder import RunFolder, environment
from pipeline.training.validation import validation_loss

Step = Callable[[str, int, int], None]
"""Called with what is being done, and how much of how much is done."""
_SHOWN_SAMPLES = 8


def evaluate(settings: EvaluateSettings, step: Step = lambda what, done, total: None) -> dict[str, Any]:
    """Evaluate a run and its controls; returns what is written to `evaluation/results.json`.

    Raises:
        CacheError: the cache is not whole or damaged.
        InputError: the run is not finished, or cache, teacher or data set are not those it was trained from.
    """
    folder = RunFolder(settings.run)
    record = folder.require_finished()
    runs = {"student": folder, **folder.controls()}
    device = choose_device(settings.device)
    with open_cache(settings.cache or Path(record["settings"]["cache"])) as cache:
        _require_same_cache(cache, record)
        _, validation_rows = split_rows(
            cache.row_ids, validation=record["settings"]["validation"], seed=record["settings"]["seed"]
        )
        all_row_ids = cache.row_ids
        prompts = []
        if settings.samples:
            row_ids = [all_row_ids[i] for i in validation_rows]
            prompts = held_out_prompts(record, settings.dataset, row_ids, settings.samples)
        teacher = None
        if prompts:
            layers = sorted({run.read_record()["settings"]["layer"] for run in runs.values()})
            name = settings.teacher or record["provenance"]["teacher"]
            teacher = load_same_teacher(name, layers, record["identity"]["cache"], device)
        students, answers = [], {}
        for name, run in runs.items():
            writer = StudentWriter(run, teacher if _reads_states(run) else None, device)
            entry = _described(name, run)
            layer = entry["layer"]
            batches = DataLoader(CachedFeatures(cache, validation_rows, layer), settings.batch_size, collate_fn=collate)
            step(f"{name}: validation loss", 0, 0)
            loss = validation_loss(writer.model, batches, device)
            entry |= {"val_loss": loss.loss, "perplexity": loss.perplexity, "val_tokens": loss.tokens}
            if prompts:
                scores, answers[name] = _answer(name, writer, prompts, settings, step)
                entry |= scores
            students.append(entry)
    results = {
        "kind": "llm-modules evaluation",
        "run": str(settings.run),
        "verdict": verdict(students),
        "leaks": record["leaks"],
        "dataset": settings.dataset or record["provenance"]["dataset"],
        "validation_examples": len(validation_rows),
        "prompts": len(prompts),
        "no_generation": None if prompts else _why_no_generation(settings),
        "students": students,
        "samples": _samples(prompts, answers),
        "settings": record["settings"],
        "identity": record["identity"],
        "environment": environment(),
    }
    folder.evaluation.mkdir(exist_ok=True)
    write_atomically(folder.evaluation / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode() + b"\n")
    return results


def verdict(students: list[dict[str, Any]]) -> str:
    """One sentence that says whether knowledge was transferred, from the figures alone."""
    student, controls = students[0], students[1:]
    loss = f"validation loss {student['val_loss']:.3f}"
    if not controls:
        return f"{loss}; train with --controls to see what of it comes from the teacher."
    better = all(student["val_loss"] < control["val_loss"] for control in controls)
    beside = ", ".join(f"{control['val_loss']:.3f} ({control['name']})" for control in controls)
    text = f"{loss} against {beside}"
    if "exact_match" in student:
        better = better and all(student["exact_match"] > control["exact_match"] for control in controls)
        matches = ", ".join(f"{control['exact_match']:.0%} ({control['name']})" for control in controls)
        text += f"; exact match {student['exact_match']:.0%} against {matches}"
    return f"{'Transferred' if better else 'No transfer shown'}: {text}."


def _require_same_cache(cache: Cache, record: dict[str, Any]) -> None:
    was = record["identity"]["content_digest"]
    if cache.content_digest != was:
        raise InputError(f"{cache.root}: content_digest is {cache.content_digest!r}, the run was trained from {was!r}")


def _reads_states(run: RunFolder) -> bool:
    return bool(run.read_record()["settings"]["condition"] == "sequence")


def _described(name: str, run: RunFolder) -> dict[str, Any]:
    record = run.read_record()
    settings, result = record["settings"], record["result"]
    layer = settings["layer"] if settings["condition"] == "sequence" else None
    reads = "the tokens themselves, no teacher" if layer is None else f"teacher layer {layer}"
    if layer == 0:
        reads += " (embeddings only)"
    return {
        "name": name,
        "reads": reads,
        "layer": layer,
        "leaks": record["leaks"],
        **{field: result[field] for field in ("steps", "tokens", "parameters", "seconds")},
    }


def _answer(
    name: str, writer: StudentWriter, prompts: list[Conversation], settings: EvaluateSettings, step: Step
) -> tuple[dict[str, Any], list[str]]:
    """Answer the prompts greedily and score the answers."""
    written = []
    began = time.perf_counter()
    for start in range(0, len(prompts), settings.batch_size):
        step(f"{name}: answers", start, len(prompts))
        batch = [prompt.prompt_turns for prompt in prompts[start : start + settings.batch_size]]
        written += writer.write(batch, Sampling(settings.max_new_tokens))
    step(f"{name}: answers", len(prompts), len(prompts))
    seconds = time.perf_counter() - began
    right = [
        same_answer(final_answer(answer.text), final_answer(prompt.reference))
        for answer, prompt in zip(written, prompts, strict=True)
    ]
    scores = {
        "exact_match": sum(right) / len(prompts),
        "thought_solution_form": sum(has_form(answer.text) for answer in written) / len(prompts),
        "stopped": sum(answer.stopped for answer in written) / len(prompts),
        "generated_tokens_per_second": round(sum(answer.tokens for answer in written) / seconds, 1),
    }
    return scores, [answer.text for answer in written]


def _samples(prompts: list[Conversation], answers: dict[str, list[str]]) -> list[dict[str, Any]]:
    return [
        {
            "row_id": prompt.row_id,
            "prompt": prompt.prompt_turns[-1].text,
            "reference": prompt.reference,
            "answers": {name: texts[index] for name, texts in answers.items()},
        }
        for index, prompt in enumerate(prompts[:_SHOWN_SAMPLES])
    ]


def _why_no_generation(settings: EvaluateSettings) -> str:
    if not settings.samples:
        return "--samples 0"
    return "the data set is plain text: it asks nothing"
