"""`results.json` keeps its keys, and results of version 0.1 can be read."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.evaluation.results import EvaluationResults

STUDENT: dict[str, Any] = {
    "name": "student",
    "kind": "student",
    "about": "the student",
    "reads": "teacher layer -1",
    "condition": "sequence",
    "layers": [-1],
    "leaks": True,
    "steps": 27,
    "tokens": 15210,
    "parameters": 757588,
    "seconds": 2.1,
    "peak_memory": {"host_bytes": 653172736, "gpu_bytes": 5},
    "val_loss": 0.5,
    "perplexity": 1.6,
    "val_tokens": 266,
    "val_loss_interval": [0.4, 0.6],
    "flops_a_token": 4556248.6,
    "training_flops": 69300541440.0,
    "leak": {"reported": 0.5, "causal": 0.7, "leaked": 0.2},
    "features": {"matched": 0.5, "gates shut": 0.75},
    "score": {"value": 0.07, "interval": [0.01, 0.2], "fields": 0.5},
    "exact_match": 0.07,
    "exact_match_interval": [0.01, 0.2],
    "thought_solution_form": 0.1,
    "stopped": 1.0,
    "repetition": 0.0,
    "generated_tokens_per_second": 1389.1,
    "tasks": {"gsm8k": {"exact_match": 0.1}},
    "bits_a_byte": 0.7,
    "transfer": {"score": 0.2, "interval": None, "rows": 4},
}
RESULTS: dict[str, Any] = {
    "kind": "llm-modules evaluation",
    "run": "my-run",
    "verdict": "No transfer shown: …",
    "leaks": False,
    "dataset": "rows.jsonl",
    "validation_examples": 14,
    "prompts": 14,
    "prompts_left_out": {"was trained on": 3},
    "not_measured": {"teacher": "gone"},
    "students": [STUDENT],
    "extract": {"stored_tokens": 5616, "flops_a_token": None},
    "trivial": "Shuffled is trivial here",
    "codecs": [
        {
            "bits_per_value": 3.0,
            "bound_bits": 2.7,
            "relative_error": 0.05,
            "kl": None,
            "step": 0.5,
            "tokens": 100.0,
            "layer": -1,
            "codec": "klt",
            "asked": "rel=0.05",
            "tried": [
                {"bits_per_value": 3.0, "bound_bits": 2.7, "relative_error": 0.05, "kl": 0.1}
            ],
        }
    ],
    "score": {
        "name": "math",
        "why": "…",
        "definition": "…",
        "graded": False,
        "scored": 14,
        "not_scored": 0,
    },
    "samples": [
        {
            "row_id": "10",
            "prompt": "1 + 1?",
            "reference": "2",
            "answers": {"student": "2"},
            "scores": {"student": None},
        }
    ],
    "settings": {"seed": 0, "layers": [-1]},
    "asked": {"samples": 20, "score": "auto"},
    "identity": {"content_digest": "0"},
    "environment": {"cpus": 2},
}


def test_keys_and_values_are_the_same_after_reading_and_writing() -> None:
    assert EvaluationResults.from_json(RESULTS).to_json() == RESULTS


def test_figures_that_were_not_measured_are_left_out() -> None:
    required = ("name", "kind", "about", "reads", "leaks", "val_loss", "perplexity")
    student = {name: STUDENT[name] for name in required}
    (written,) = EvaluationResults.from_json(RESULTS | {"students": [student]}).to_json()[
        "students"
    ]
    absent = {"leak", "features", "score", "exact_match", "stopped", "tasks", "bits_a_byte"}
    assert not absent & written.keys()
    assert written["transfer"] is None and written["val_loss_interval"] is None


def test_unknown_keys_of_version_0_1_are_ignored() -> None:
    old = RESULTS | {"students": [STUDENT | {"inside": {"gates": [[0.3]]}}]}
    assert EvaluationResults.from_json(old) == EvaluationResults.from_json(RESULTS)


@pytest.mark.parametrize(
    "content",
    [[], {}, RESULTS | {"students": [{}]}, RESULTS | {"students": [STUDENT | {"val_loss": "low"}]}],
)
def test_other_content_is_refused(content: Any) -> None:
    with pytest.raises(ValueError):
        EvaluationResults.from_json(content)
