"""The student model; importing this registers it with transformers' Auto classes."""

from transformers import AutoConfig, AutoModelForCausalLM

from pipeline.model.build import build_student
from pipeline.model.configuration import LLMModulesConfig
from pipeline.model.decoder import body_shape, student_body
from pipeline.model.loss import SoftTargets, token_losses
from pipeline.model.self_init import init_from_self_attention
from pipeline.model.student import LLMModulesForCausalLM

AutoConfig.register("llm_modules", LLMModulesConfig, exist_ok=True)
AutoModelForCausalLM.register(LLMModulesConfig, LLMModulesForCausalLM, exist_ok=True)

__all__ = [
    "LLMModulesConfig",
    "LLMModulesForCausalLM",
    "SoftTargets",
    "body_shape",
    "build_student",
    "init_from_self_attention",
    "student_body",
    "token_losses",
]
