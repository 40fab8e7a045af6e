"""A trained student as a model of lm-evaluation-harness, whose tasks it can so be given (`pip install '.[eval]'`)."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import Any

from pipeline.data.conversations import Turn
from pipeline.errors import InputError, reason
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.generation.writer import Sampling, StudentWriter


def require_harness(settings: EvaluateSettings) -> None:
    """Refuse tasks where there is nothing that knows them.

    Raises:
        InputError: lm-evaluation-harness is not installed.
    """
    if settings.tasks and find_spec("lm_eval") is None:
        raise InputError("--task: needs lm-evaluation-harness; pip install 'llm-modules[eval]'")


def answer_tasks(writer: StudentWriter, settings: EvaluateSettings) -> dict[str, dict[str, float]]:
    """The metrics of each task that is asked for, by name.

    Raises:
        InputError: there is no such task, or its data cannot be had.
    """
    from lm_eval import simple_evaluate
    from lm_eval.tasks import TaskManager

    folder = None if settings.task_path is None else str(settings.task_path)
    try:
        found = simple_evaluate(
            _adapter(writer),
            tasks=list(settings.tasks),
            limit=settings.task_limit,
            task_manager=TaskManager(include_path=folder),
            bootstrap_iters=0,
            verbosity="ERROR",
        )
    except Exception as error:  # tasks are programs and data of others: they may raise anything
        raise InputError(f"--task {' --task '.join(settings.tasks)}: {reason(error)}") from error
    assert found is not None  # on one process it is not
    return {
        task: {name.partition(",")[0]: value for name, value in metrics.items() if isinstance(value, (int, float))}
        for task, metrics in found["results"].items()
    }


def _adapter(writer: StudentWriter) -> Any:
    """The model that the harness asks. Its prompts are text that a user says; answers are what the student writes."""
    from lm_eval.api.model import LM

    class Student(LM):
        """A `StudentWriter` for the harness."""

        def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
            """An answer to each prompt, ended before any of the texts that the task names."""
            answers = []
            for request in requests:
                prompt, options = request.args
                stop = options.get("until") or ()
                sampling = Sampling(
                    max_new_tokens=int(options.get("max_gen_toks", 256)),
                    temperature=float(options.get("temperature", 0.0)) if options.get("do_sample") else 0.0,
                    stop=(stop,) if isinstance(stop, str) else tuple(stop),
                )
                answers.append(writer.write([[Turn("user", prompt)]], sampling)[0].text)
            return answers

        def loglikelihood(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[tuple[float, bool]]:
            """Log-probability of each continuation as the student's answer, and whether it is the likeliest one."""
            return [writer.log_likelihood([Turn("user", request.args[0])], request.args[1]) for request in requests]

        def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
            """Log-probability of each whole text, as the student's answer to nothing."""
            return [writer.log_likelihood([Turn("user", "")], request.args[0])[0] for request in requests]

    return Student()
