"""A trained student as a model of lm-evaluation-harness, whose tasks it can so be given (`pip
install '.[eval]'`)."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from cache.errors import CacheError
from pipeline.data.conversations import Turn
from pipeline.errors import InputError, RunError, reason
from pipeline.evaluation.settings import require_harness
from pipeline.generation.answers import Sampling
from pipeline.generation.writer import StudentWriter


class HarnessTasks:
    """Tasks that are loaded before anything is measured, so that a wrong name costs nothing."""

    def __init__(
        self, names: Sequence[str], folder: Path | None, limit: int | None, batch_size: int = 1
    ) -> None:
        """Find the tasks and their data; no names: nothing is looked for.

        Args:
            names: of tasks, or of groups of them.
            folder: where further ones are.
            limit: most documents of each.
            batch_size: prompts answered at a time.

        Raises:
            InputError: the harness is not installed, there is no such task, or its data cannot be
                had.
        """
        self._limit, self._batch_size, self._loaded = limit, batch_size, list[Any]()
        if not names:
            return
        require_harness()
        from lm_eval.tasks import TaskManager

        logging.getLogger("lm_eval").setLevel(logging.ERROR)

        self._manager = TaskManager(include_path=None if folder is None else str(folder))
        for name in names:
            if not self._manager.match_tasks([name]):
                raise InputError(
                    f"--task {name}: there is no such task; `lm-eval ls tasks` lists them,"
                    " --task-path names a folder of your own"
                )
            try:
                self._loaded += self._manager.load([name])["tasks"].values()
            except (
                Exception
            ) as error:  # tasks are programs and data of others: they may raise anything
                raise InputError(
                    f"--task {name}: cannot be loaded ({type(error).__name__}: {reason(error)});"
                    " most tasks bring their data over the network, one of --task-path may have it"
                    " in files"
                ) from error

    def __bool__(self) -> bool:
        return bool(self._loaded)

    def answered_by(self, writer: StudentWriter) -> dict[str, dict[str, float]]:
        """The metrics of each task, by name.

        Raises:
            InputError: a prompt and its answer are longer than the student reads, or it sees the
                answer that it is to judge.
            RunError: a task itself fails.
        """
        from lm_eval import simple_evaluate

        try:
            found = simple_evaluate(
                adapter(writer, self._batch_size),
                tasks=self._loaded,
                limit=self._limit,
                task_manager=self._manager,
                bootstrap_iters=0,
                log_samples=False,
            )
        except (InputError, CacheError, OSError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # tasks are programs of others
            names = ", ".join(str(task.config.task) for task in self._loaded)
            raise RunError(
                f"--task: one of {names} failed ({type(error).__name__}: {reason(error)}); leave it"
                " out, or mend the task"
            ) from error
        assert found is not None  # on one process it is not
        return {
            task: {
                name.replace(",none", ""): float(value)
                for name, value in metrics.items()
                if isinstance(value, (int, float)) and "," in name and "stderr" not in name
            }
            for task, metrics in found["results"].items()
        }


def adapter(writer: StudentWriter, batch_size: int) -> Any:
    """The model that the harness asks. Its prompts are what a user says after the system prompt
    that the student knows.

    Args:
        writer: the student.
        batch_size: prompts answered at a time.
    """
    from lm_eval.api.model import LM

    def asked(prompt: str) -> list[Turn]:
        return [*writer.opening(), Turn("user", prompt)]

    class Student(LM):
        """A `StudentWriter` for the harness."""

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            """An answer to each prompt, ended before any of the texts that the task names."""
            answers = [""] * len(requests)
            alike: dict[Sampling, list[int]] = {}
            for place, request in enumerate(requests):
                alike.setdefault(_sampling(request.args[1]), []).append(place)
            for sampling, places in alike.items():
                places.sort(
                    key=lambda place: len(requests[place].args[0])
                )  # a batch has the room that its longest prompt leaves
                for start in range(0, len(places), batch_size):
                    batch = places[start : start + batch_size]
                    written = writer.write(
                        [asked(requests[place].args[0]) for place in batch], sampling
                    )
                    for place, each in zip(batch, written, strict=True):
                        answers[place] = each.text
            return answers

        def loglikelihood(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[tuple[float, bool]]:
            """Log-probability of each continuation as the student's answer, and whether it is the
            likeliest one."""
            return [
                writer.log_likelihood(asked(request.args[0]), request.args[1])
                for request in requests
            ]

        def loglikelihood_rolling(
            self, requests: Sequence[Any], disable_tqdm: bool = False
        ) -> list[float]:
            """Log-probability of each whole text, as the student's answer to nothing."""
            return [writer.log_likelihood(asked(""), request.args[0])[0] for request in requests]

    return Student()


def _sampling(options: Mapping[str, Any]) -> Sampling:
    """What a task asks of the writing of its answers."""
    stop = options.get("until") or ()
    return Sampling(
        max_new_tokens=int(options.get("max_gen_toks", 256)),
        temperature=float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0,
        stop=(stop,) if isinstance(stop, str) else tuple(stop),
    )
