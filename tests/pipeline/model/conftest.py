"""Students of both inputs: the teacher's states, or its tokens alone."""

from __future__ import annotations

import pytest

from pipeline.model import LLMModulesForCausalLM
from tests.pipeline.model.students import make_student


@pytest.fixture(scope="session", params=["sequence", "none"])
def student(request: pytest.FixtureRequest) -> LLMModulesForCausalLM:
    return make_student(condition=request.param)


@pytest.fixture(scope="session")
def leaking_student() -> LLMModulesForCausalLM:
    return make_student(cross_attention="bidirectional")
