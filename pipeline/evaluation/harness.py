"""Run lm-evaluation-harness tasks on a trained student (`pip install '.[eval]'`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cache.errors import CacheError
from pipeline.data.conversations import Turn
from pipeline.errors import InputError, RunError, reason
from pipeline.evaluation.settings import EvaluateSettings, require_harness
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter


class HarnessTasks:
    """Tasks, loaded before any measurement, so that wrong names fail early."""

    def __init__(
        self, names: Sequence[str], folder: Path | None, limit: int | None, batch_size: int = 1
    ) -> None:
        """Load tasks and their data.

        Args:
            names: of tasks or groups.
            folder: with additional tasks.
            limit: maximum number of documents per task.
            batch_size: prompts answered at a time.

        Raises:
            InputError: the harness is not installed, or a task is unknown or cannot be loaded.
        """
        self._limit, self._batch_size, self._loaded = limit, batch_size, list[Any]()
        if not names:
            return
        require_harness()
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)

        self._manager = TaskManager(include_path=None if folder is None else str(folder))
        for name in names:
            self._loaded += self._load(name)

    @classmethod
    def of(cls, settings: EvaluateSettings) -> HarnessTasks:
        """Load the tasks of an evaluation.

        Raises:
            InputError: as for the class.
        """
        return cls(settings.tasks, settings.task_path, settings.task_limit, settings.batch_size)

    def __bool__(self) -> bool:
        return bool(self._loaded)

    def _load(self, name: str) -> list[Any]:
        if not self._manager.match_tasks([name]):
            raise InputError(
                f"--task {name}: there is no such task; `lm-eval ls tasks` lists them,"
                " --task-path names a folder with more"
            )
        try:
            return list(self._manager.load([name])["tasks"].values())
        except Exception as error:  # third-party programs and data may raise anything
            raise InputError(
                f"--task {name}: cannot be loaded ({type(error).__name__}: {reason(error)});"
                " most tasks download their data, --task-path can name one with local files"
            ) from error

    def run(self, writer: StudentWriter) -> dict[str, dict[str, float]]:
        """Return the metrics of each task, by name.

        Raises:
            InputError: a prompt with its answer is too long for the student, or the student sees
                the answer.
            RunError: a task itself fails.
        """
        from lm_eval import simple_evaluate

        try:
            outcome = simple_evaluate(
                adapter(writer, self._batch_size),
                tasks=self._loaded,
                limit=self._limit,
                task_manager=self._manager,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (InputError, CacheError, OSError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # third-party programs may raise anything
            names = ", ".join(str(task.config.task) for task in self._loaded)
            raise RunError(
                f"--task: one of {names} failed ({type(error).__name__}: {reason(error)}); omit it,"
                " or fix the task"
            ) from error
        assert outcome is not None  # None only on other ranks
        return {
            task: {
                name.replace(",none", ""): float(value)
                for name, value in metrics.items()
                if isinstance(value, (int, float)) and "," in name and "stderr" not in name
            }
            for task, metrics in outcome["results"].items()
        }


def adapter(writer: StudentWriter, batch_size: int) -> Any:
    """Return a student as a model of the harness; prompts follow the student's system prompt.

    Args:
        writer: the student.
        batch_size: prompts answered at a time.
    """
    from lm_eval.api.model import LM

    def turns(prompt: str) -> list[Turn]:
        return [*writer.opening(), Turn("user", prompt)]

    class Student(LM):
        """A `StudentWriter` for the harness."""

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            """Return an answer to each prompt, cut before the task's stop texts."""
            answers = [""] * len(requests)
            by_sampling: dict[Sampling, list[int]] = {}
            for place, request in enumerate(requests):
                by_sampling.setdefault(_sampling(request.args[1]), []).append(place)
            for sampling, places in by_sampling.items():
                # Prompts of similar length share a batch.
                places.sort(key=lambda place: len(requests[place].args[0]))
                for start in range(0, len(places), batch_size):
                    batch = places[start : start + batch_size]
                    prompts = [turns(requests[place].args[0]) for place in batch]
                    for place, answer in zip(batch, writer.write(prompts, sampling), strict=True):
                        answers[place] = answer.text
            return answers

        def loglikelihood(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[tuple[float, bool]]:
            """Return the log-likelihood of each continuation, and whether it is the greedy one."""
            return [
                writer.log_likelihood(turns(request.args[0]), request.args[1])
                for request in requests
            ]

        def loglikelihood_rolling(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[float]:
            """Return the log-likelihood of each text, as the answer to an empty prompt."""
            return [writer.log_likelihood(turns(""), request.args[0])[0] for request in requests]

    return Student()


def _sampling(options: Mapping[str, Any]) -> Sampling:
    stop = options.get("until") or ()
    return Sampling(
        max_new_tokens=int(options.get("max_gen_toks", 256)),
        temperature=float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )
