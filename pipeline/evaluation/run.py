"""What was transferred: the student beside its controls, on examples that none of them was trained on."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from functools import cache as cache_result
from typing import Any

import torch
from torch import nn

from cache import Cache, CacheError, open_cache
from cache.files import write_atomically
from cache.places import place_of
from pipeline.batches.decoder import StatesDecoder
from pipeline.batches.features import CachedExamples
from pipeline.batches.loader import CachedBatches
from pipeline.batches.order import order_of
from pipeline.batches.sampler import ValidationBatches
from pipeline.data.conversations import Conversation
from pipeline.data.sources import load_conversations
from pipeline.data.split import split_rows
from pipeline.data.templates import TemplateName
from pipeline.data.tokenizer import load_same_tokenizer
from pipeline.data.tokens import tokenize_prompt
from pipeline.device import choose_device
from pipeline.errors import InputError
from pipeline.evaluation.codecs import described_codecs
from pipeline.evaluation.feature_controls import NoStates, OtherPrompts
from pipeline.evaluation.prompts import HeldOutPrompts, cached_rows, unseen_prompts
from pipeline.evaluation.scores import Step, answer_prompts, shown_samples, verdict
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.writer import StudentWriter, tokens_before
from pipeline.model import LLMModulesConfig
from pipeline.processes import Share
from pipeline.teacher.model import Teacher
from pipeline.teacher.same import load_same_teacher
from pipeline.training.examples import examples_of, teachers_tokenizer
from pipeline.training.record import require_same_cache, trained_from
from pipeline.training.run_folder import RunFolder, environment
from pipeline.training.settings import TrainSettings
from pipeline.training.validation import ValidationLoss, validation_loss


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
    with _opened(settings, folder) as cache:
        require_same_cache(cache, record)
        training_rows, validation_rows = split_rows(
            cache.row_ids, validation=record["settings"]["validation"], seed=record["settings"]["seed"]
        )
        prompts = _prompts(settings, runs, cache, training_rows, validation_rows)
        load = _teacher_loader(settings, record, runs, device)
        codecs = described_codecs(cache)
        students, answers = [], {}
        for name, run in runs.items():
            trained = run.settings()
            writer = StudentWriter(run, load if prompts.conversations and trained.reads_states else None, device, cache)
            step(f"{name}: validation loss", 0, 0)
            entry = _described(name, run) | _held_out_loss(trained, cache, validation_rows, writer)
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


def _opened(settings: EvaluateSettings, run: RunFolder) -> Cache:
    """The cache that is named, or else the run's own."""
    place = place_of(settings.cache or trained_from(run))
    try:
        return open_cache(place)
    except CacheError as error:
        if place.entries():
            raise
        raise InputError(f"{place.address}: there is no cache; name with --cache where the run's own is now") from error


def _held_out_loss(trained: TrainSettings, cache: Cache, rows: Sequence[int], writer: StudentWriter) -> dict[str, Any]:
    """The loss on examples held out; where a student looks at prompts, with other prompts' states and with none, too."""
    examples = examples_of(trained, cache, rows, writer.tokenizer)
    decoder = StatesDecoder([cache.codecs[layer] for layer in trained.layers_read]).to(writer.device)
    order = order_of(cache, examples.indices, examples.sizes, trained.size_of_batches, 0)

    def loss_of(given: CachedExamples, decode: nn.Module) -> ValidationLoss:
        return validation_loss(writer.model, CachedBatches(given, ValidationBatches(order, Share())), decode, writer.device)

    loss = loss_of(examples, decoder)
    found: dict[str, Any] = {"val_loss": loss.loss, "perplexity": loss.perplexity, "val_tokens": loss.tokens}
    if trained.condition == "prompt":
        features = {"matched": loss.loss, "zeroed": loss_of(examples, NoStates(decoder)).loss}
        if len(set(examples.indices)) > 1:
            features["mismatched"] = loss_of(OtherPrompts(examples), decoder).loss
        found["features"] = features
    return found


def _prompts(
    settings: EvaluateSettings,
    runs: dict[str, RunFolder],
    cache: Cache,
    training_rows: Sequence[int],
    validation_rows: Sequence[int],
) -> HeldOutPrompts:
    """What the students are to answer: rows of another data set, or the run's own validation rows."""
    if not settings.samples:
        return HeldOutPrompts([], {})
    if settings.dataset is None:
        rows = list(cached_rows(cache, validation_rows))
    else:
        rows = load_conversations(settings.dataset, config=settings.dataset_config, split=settings.split).conversations
    readers = [_Reader(run, cache) for run in runs.values()]
    most = min(reader.positions for reader in readers)
    if settings.max_new_tokens >= most:
        raise InputError(f"--max-new-tokens {settings.max_new_tokens}: these students read {most} tokens; ask for fewer")

    def too_long(row: Conversation) -> str | None:
        most_read = cache.identity["max_tokens"]  # as in the extract
        if any(reader.asks_teacher and reader.tokens_of_teacher(row) > most_read for reader in readers):
            return f"prompts over {most_read} tokens of the teacher"
        for reader in readers:
            if reader.tokens_before(row) + settings.max_new_tokens > reader.positions:
                return f"prompts over {reader.positions - settings.max_new_tokens} tokens"
        return None

    return unseen_prompts(rows, cached_rows(cache, training_rows), too_long=too_long, count=settings.samples)


class _Reader:
    """How much a run's student can read."""

    def __init__(self, run: RunFolder, cache: Cache) -> None:
        self._config = LLMModulesConfig.from_pretrained(run.model)
        self.positions = int(self._config.body.max_position_embeddings)
        identity = run.read_record()["identity"]
        self._tokenizer = load_same_tokenizer(run.model, identity["student_tokenizer"])
        self._teachers_tokenizer = teachers_tokenizer(cache)
        self._template: TemplateName = cache.identity["template"]

    @property
    def asks_teacher(self) -> bool:
        """Whether the teacher reads prompts for it that it does not read itself."""
        return self._config.condition == "prompt"

    def tokens_of_teacher(self, row: Conversation) -> int:
        """Tokens that the teacher reads."""
        return len(tokenize_prompt(row.prompt_turns, self._template, self._teachers_tokenizer))

    def tokens_before(self, row: Conversation) -> int:
        """Tokens that it reads before it writes."""
        return len(tokens_before(row.prompt_turns, self._config, self._template, self._tokenizer))


def _teacher_loader(
    settings: EvaluateSettings, record: dict[str, Any], runs: dict[str, RunFolder], device: torch.device
) -> Callable[[], Teacher]:
    """Loads the teacher, once, with the layers that the students read."""
    layers = {layer for run in runs.values() for layer in run.settings().layers_read}
    name = settings.teacher or record["provenance"]["teacher"]
    return cache_result(lambda: load_same_teacher(name, sorted(layers), record["identity"]["cache"], device))


def _described(name: str, run: RunFolder) -> dict[str, Any]:
    record = run.read_record()
    result, layers = record["result"], run.settings().layers_read
    condition = run.settings().condition
    reads = f"teacher layer {', '.join(map(str, layers))}" if layers else "the tokens themselves, no teacher"
    reads = {"prompt": f"{reads}, of the prompt", "text": "prompt and answer in its own tokens, no teacher"}.get(condition, reads)
    if layers == [0]:
        reads += " (embeddings only)"
    return {
        "name": name,
        "reads": reads,
        "condition": condition,
        "layers": layers,
        "leaks": record["leaks"],
        **{field: result[field] for field in ("steps", "tokens", "parameters", "seconds")},
    }
