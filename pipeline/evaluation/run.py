"""What was transferred: the student beside its controls, on examples that none of them was trained on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import torch

from cache import Cache, open_cache
from cache.files import write_atomically
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.features import CachedFeatures
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import order_of
from pipeline.batches.sampler import ValidationBatches
from pipeline.data.sources import load_conversations
from pipeline.data.split import split_rows
from pipeline.data.tokenizer import load_same_tokenizer
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.evaluation.codecs import described_codecs
from pipeline.evaluation.prompts import HeldOutPrompts, own_rows, unseen_prompts
from pipeline.evaluation.scores import Step, answer_prompts, shown_samples, verdict
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.writer import StudentWriter
from pipeline.model import LLMModulesConfig
from pipeline.processes import Share
from pipeline.teacher.model import Teacher
from pipeline.teacher.same import load_same_teacher
from pipeline.training.record import require_same_cache, trained_from
from pipeline.training.run_folder import RunFolder, environment
from pipeline.training.validation import validation_loss


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
    with open_cache(settings.cache or trained_from(folder)) as cache:
        require_same_cache(cache, record)
        training_rows, validation_rows = split_rows(
            cache.row_ids, validation=record["settings"]["validation"], seed=record["settings"]["seed"]
        )
        prompts = _prompts(settings, record, runs, cache, training_rows, validation_rows)
        teacher = _teacher(settings, record, runs, device) if prompts.conversations else None
        codecs = described_codecs(cache)
        students, answers = [], {}
        for name, run in runs.items():
            writer = StudentWriter(run, teacher, device)
            entry, trained = _described(name, run), run.settings()
            order = order_of(cache, validation_rows, trained.size_of_batches, 0)
            features = CachedFeatures(cache, validation_rows, trained.layers_read)
            step(f"{name}: validation loss", 0, 0)
            batches = CachedBatches(features, ValidationBatches(order, Share()))
            decoder = StatesDecoder([cache.codecs[layer] for layer in trained.layers_read]).to(device)
            loss = validation_loss(writer.model, batches, decoder, device)
            entry |= {"val_loss": loss.loss, "perplexity": loss.perplexity, "val_tokens": loss.tokens}
            if prompts.conversations:
                scores, answers[name] = answer_prompts(name, writer, prompts.conversations, settings, step)
                entry |= scores
            students.append(entry)
    results = {
        "kind": "llm-modules evaluation",
        "run": str(settings.run),
        "verdict": verdict(students),
        "leaks": record["leaks"],
        "dataset": settings.dataset or record["provenance"]["dataset"],
        "validation_examples": len(validation_rows),
        "prompts": len(prompts.conversations),
        "prompts_left_out": prompts.left_out,
        "students": students,
        "codecs": codecs,
        "samples": shown_samples(prompts.conversations, answers),
        "settings": record["settings"],
        "identity": record["identity"],
        "environment": environment(),
    }
    folder.evaluation.mkdir(exist_ok=True)
    write_atomically(folder.evaluation / "results.json", json.dumps(results, indent=1, ensure_ascii=False).encode() + b"\n")
    return results


def _prompts(
    settings: EvaluateSettings,
    record: dict[str, Any],
    runs: dict[str, RunFolder],
    cache: Cache,
    training_rows: Sequence[int],
    validation_rows: Sequence[int],
) -> HeldOutPrompts:
    """What the students are to answer: rows of another data set, or the run's own validation rows."""
    if not settings.samples:
        return HeldOutPrompts([], {})
    positions = min(LLMModulesConfig.from_pretrained(run.model).body.max_position_embeddings for run in runs.values())
    longest = positions - settings.max_new_tokens
    if longest < 1:
        raise InputError(f"--max-new-tokens {settings.max_new_tokens}: these students read {positions} tokens; ask for fewer")
    if settings.dataset is None:
        row_ids = cache.row_ids
        rows = own_rows(record, [row_ids[i] for i in validation_rows])
    else:
        rows = load_conversations(settings.dataset, config=settings.dataset_config, split=settings.split).conversations
    tokenizer = load_same_tokenizer(runs["student"].model, cache.identity["tokenizer"])
    return unseen_prompts(rows, record, cache, training_rows, tokenizer, longest=longest, count=settings.samples)


def _teacher(
    settings: EvaluateSettings, record: dict[str, Any], runs: dict[str, RunFolder], device: torch.device
) -> Teacher | None:
    """The live teacher with the layers that the students read; None where none of them reads any."""
    layers = {layer for run in runs.values() for layer in run.settings().layers_read}
    name = settings.teacher or record["provenance"]["teacher"]
    return load_same_teacher(name, sorted(layers), record["identity"]["cache"], device) if layers else None


def _described(name: str, run: RunFolder) -> dict[str, Any]:
    record = run.read_record()
    result, layers = record["result"], run.settings().layers_read
    reads = f"teacher layer {', '.join(map(str, layers))}" if layers else "the tokens themselves, no teacher"
    if layers == [0]:
        reads += " (embeddings only)"
    return {
        "name": name,
        "reads": reads,
        "layers": layers,
        "leaks": record["leaks"],
        **{field: result[field] for field in ("steps", "tokens", "parameters", "seconds")},
    }
