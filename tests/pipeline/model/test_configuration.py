"""Contradictory configurations of a student are refused."""

from __future__ import annotations

from typing import Any

import pytest

from pipeline.model.configuration import LLMModulesConfig


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"condition": "answer"}, "condition 'answer' is not one of sequence"),
        ({"cross_attention": "sideways"}, "cross_attention 'sideways' is not one of causal"),
        ({"gate": "open"}, "gate 'open' is not one of channel"),
        ({"condition": "prompt", "gate": "none"}, "needs a gate that can start closed"),
        ({"cross_layers": 2, "reads": [0]}, "2 cross-attention layers cannot read"),
        ({"cross_layers": 1, "reads": [3]}, "1 cross-attention layers cannot read"),
        ({"cross_heads": 7}, "7 heads do not divide the student's width"),
    ],
)
def test_contradictory_configurations_are_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        LLMModulesConfig(**changes)
