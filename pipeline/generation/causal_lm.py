"""A whole causal LM that answers prompts by itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase, set_seed

from pipeline.data.conversations import Turn
from pipeline.data.templates import TemplateName, end_token_id
from pipeline.data.tokens import tokenize_prompt
from pipeline.generation.answers import Written, cut_answer
from pipeline.generation.prompt_prefix import PromptPrefix
from pipeline.generation.prompts import left_padded
from pipeline.generation.settings import Sampling


def own_template(
    tokenizer: PreTrainedTokenizerBase, otherwise: TemplateName = "paper"
) -> TemplateName:
    """Return the template in which a causal LM answers: its chat template, if it has one."""
    return "chat" if tokenizer.chat_template else otherwise


class CausalLMWriter:
    """Answers prompts with a causal LM."""

    def __init__(
        self,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        template: TemplateName,
        prompts: Sequence[list[int]] = (),
        max_new_tokens: int = 0,
    ) -> None:
        """Find the tokens that end an answer, and read those that all prompts begin with.

        Args:
            model: a causal LM.
            tokenizer: its tokenizer.
            template: of the prompts.
            prompts: all that `write_after` will answer, as tokens; none: nothing is read before.
            max_new_tokens: length of the longest of these answers.

        Raises:
            InputError: the template ends answers without a special token.
        """
        self._model: Any = model
        self._tokenizer, self._template = tokenizer, template
        configured = self._model.generation_config.eos_token_id
        if not isinstance(configured, list):
            configured = [] if configured is None else [configured]
        self._prefix = PromptPrefix(model, prompts, max_new_tokens)
        self._ends = list(dict.fromkeys([end_token_id(template, tokenizer), *map(int, configured)]))

    def write(self, prompts: Sequence[Sequence[Turn]], sampling: Sampling) -> list[Written]:
        """Answer prompts as one batch.

        Raises:
            RowError: the chat template rejects a prompt.
        """
        ids = [tokenize_prompt(turns, self._template, self._tokenizer) for turns in prompts]
        return self.write_after(ids, sampling)

    @torch.inference_mode()
    def write_after(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Written]:
        """Answer prompts, given as tokens, as one batch; sampling starts from its seed."""
        ids_BT, mask_BT = left_padded(
            prompts, self._ends[0], self._model.device, first=len(self._prefix)
        )
        set_seed(sampling.seed)
        written_BT = self._model.generate(
            ids_BT,
            attention_mask=mask_BT,
            past_key_values=self._prefix.kv(len(prompts)),
            max_new_tokens=sampling.max_new_tokens,
            eos_token_id=self._ends,
            pad_token_id=self._ends[0],
            use_cache=True,
            **sampling.generate_arguments(self._tokenizer),
        )[:, ids_BT.shape[1] :]
        return [
            cut_answer(answer, self._ends, self._tokenizer, sampling.stop)
            for answer in written_BT.tolist()
        ]
