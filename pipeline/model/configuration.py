"""The student's configuration."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from transformers import AutoConfig, GPTNeoConfig, PreTrainedConfig

from pipeline.choices import CROSS_ATTENTIONS, GATES, JOINS
from pipeline.conditions.interface import Condition
from pipeline.conditions.registry import condition_named

_DECODER_OF_0_1 = "gpt_neo"
"""Name of `decoder` in configurations that release 0.1 saved."""


def positions_of(decoder: PreTrainedConfig) -> int | None:
    """Return the number of tokens that a decoder can read; None if it sets no limit."""
    positions = getattr(decoder, "max_position_embeddings", None)
    return int(positions) if isinstance(positions, int) and positions > 0 else None


class LLMModulesConfig(PreTrainedConfig):
    """Configuration of `LLMModulesForCausalLM` (arXiv 2502.08213, section 3).

    Args:
        decoder: configuration of the body, any decoder of transformers; None: a GPT-Neo. Its own
            `vocab_size` is unused with `condition="sequence"`.
        vocab_size: size of the teacher's vocabulary; with `prompt` and `text`, of the decoder's.
        head_size: number of tokens that the LM head spans, listed by the model's `head_tokens`;
            None: the whole vocabulary.
        embedded_size: number of tokens with an embedding of their own, listed by the model's
            `embedded_tokens`; all others share one. None: the whole vocabulary.
        condition: what the student reads. `sequence`: the teacher's hidden states of every token,
            causally. `prompt`: its own tokens of the answer, and the teacher's hidden states of
            everything before it. The two controls have no teacher: `none` reads the teacher's
            tokens through trained embeddings, `text` prompt and answer in the decoder's own tokens.
        teacher_hidden_size: width `d_teacher` of the hidden states.
        teacher_layers: their teacher layers, as in transformers' `hidden_states`; the states are
            concatenated.
        reads: for each cross-attention layer, the index in `teacher_layers` of the layer that it
            reads; the bridge's direct path reads that of the last one. None: all read the first.
        mix_layers: with `prompt`, whether the layers are read as one mean with learned weights.
        standardise: with `prompt`, whether states are standardised by channel.
        states_dropout: with `prompt`, the share of states that are not seen in training.
        prompt_text: with `prompt`, whether the student reads the prompt's tokens, too.
        join: with `prompt`, how the states reach the student: `cross`, `add`.
        cross_attention: `causal`, or `bidirectional` for the published code's variant, in which a
            token sees teacher states of later tokens: the answer leaks into its own prediction.
        cross_layers: Enhanced Cross-Attention layers; with `prompt` it follows from `cross_every`.
        cross_every: with `prompt`, one precedes the last of every `cross_every` blocks.
        cross_heads: heads of each layer.
        gate: mixes old and new states in each layer: one gate per `channel` (the paper's), one
            `scalar` per token, a `static` one per channel for all tokens, or `none`: new states are
            added to old ones. With `prompt` a gate is required, and starts closed.
        adapter_size: inner width of the layers' adapters.
        intermediate_size: inner width of the FFN that computes the student's initial states.
    """

    model_type = "llm_modules"
    sub_configs = {"decoder": AutoConfig}
    keys_to_ignore_at_inference = ["past_key_values"]

    decoder: dict[str, Any] | PreTrainedConfig | None = None
    vocab_size: int = 151936
    head_size: int | None = None
    embedded_size: int | None = None
    condition: str = "sequence"
    teacher_hidden_size: int = 1536
    teacher_layers: Sequence[int] = (-1,)
    reads: Sequence[int] | None = None
    mix_layers: bool = False
    standardise: bool = False
    states_dropout: float = 0.0
    prompt_text: bool = False
    join: Sequence[str] = ("cross",)
    cross_attention: str = "causal"
    cross_layers: int = 2
    cross_every: int = 2
    cross_heads: int = 8
    gate: str = "channel"
    adapter_size: int = 256
    intermediate_size: int = 1152
    initializer_range: float = 0.02
    use_cache: bool = True
    bos_token_id: int | None = None
    eos_token_id: int | None = None
    pad_token_id: int | None = None
    tie_word_embeddings: bool = False

    def __post_init__(self, **kwargs: Any) -> None:
        if (earlier := kwargs.pop(_DECODER_OF_0_1, None)) is not None and self.decoder is None:
            self.decoder = earlier
        if self.decoder is None:
            self.decoder = GPTNeoConfig()
        elif isinstance(self.decoder, dict):
            self.decoder = AutoConfig.for_model(**{"model_type": "gpt_neo"} | self.decoder)
        condition_named(self.condition)
        if self.cross_attention not in CROSS_ATTENTIONS:
            raise ValueError(
                f"cross_attention {self.cross_attention!r} is not one of"
                f" {', '.join(CROSS_ATTENTIONS)}"
            )
        if self.gate not in GATES:
            raise ValueError(f"gate {self.gate!r} is not one of {', '.join(GATES)}")
        if self.cross_blocks is not None:
            self.cross_layers = len(self.cross_blocks)
            if self.cross_layers and self.gate == "none":
                raise ValueError(
                    f"condition {self.condition!r} needs a gate that can start closed, gate is"
                    " 'none'"
                )
        self.teacher_layers = list(self.teacher_layers)
        self.join = list(self.join)
        if unknown := {*self.join} - {*JOINS}:
            raise ValueError(f"join {unknown.pop()!r} is not one of {', '.join(JOINS)}")
        readings = 1 if self.mix_layers else len(self.teacher_layers)
        self.reads = [0] * self.cross_layers if self.reads is None else list(self.reads)
        if len(self.reads) != self.cross_layers or not all(
            0 <= read < readings for read in self.reads
        ):
            raise ValueError(
                f"{self.cross_layers} cross-attention layers cannot read {self.reads} of"
                f" {self.teacher_layers}"
            )
        if self.cross_layers and self.hidden_size % self.cross_heads:
            raise ValueError(
                f"{self.cross_heads} heads do not divide the student's width {self.hidden_size}"
            )
        super().__post_init__(**kwargs)

    def get_text_config(
        self, decoder: bool | None = None, encoder: bool | None = None
    ) -> PreTrainedConfig:
        """Return this configuration: generation sizes caches by it, not by its `decoder`."""
        return self

    @property
    def body(self) -> PreTrainedConfig:
        """The decoder's configuration."""
        assert isinstance(self.decoder, PreTrainedConfig)
        return self.decoder

    @property
    def hidden_size(self) -> int:
        """Width of the student, `d_student`."""
        return int(self.body.hidden_size)

    @property
    def blocks(self) -> int:
        """Number of the decoder's blocks."""
        return int(self.body.num_hidden_layers)

    @property
    def positions(self) -> int | None:
        """Number of tokens that the decoder can read; None: no limit."""
        return positions_of(self.body)

    @property
    def states_width(self) -> int:
        """Width of the hidden states of all layers, concatenated."""
        return self.teacher_hidden_size * len(self.teacher_layers)

    @property
    def conditioning(self) -> Condition:
        """The condition's description."""
        return condition_named(self.condition)

    @property
    def reads_states(self) -> bool:
        """Whether the student reads a teacher's hidden states."""
        return self.conditioning.reads_states

    @property
    def own_tokens(self) -> bool:
        """Whether the student's tokens are the decoder's own, not the teacher's."""
        return self.conditioning.own_tokens

    @property
    def keeps_head(self) -> bool:
        """Whether the LM head is the decoder's own, with all its tokens."""
        return self.own_tokens and self.head_size is None

    @property
    def reads_prompt_tokens(self) -> bool:
        """Whether the student reads the prompt in its own tokens, not only its states."""
        return self.prompt_text or self.conditioning.reads_prompt_tokens

    @property
    def aligns_states(self) -> bool:
        """Whether each token of a prompt reads one of its states."""
        return self.conditioning.aligns_states(self)

    @property
    def cross_blocks(self) -> list[int] | None:
        """Blocks with a cross-attention layer before them; None: the layers precede all."""
        return self.conditioning.cross_blocks(self, self.blocks)

    @property
    def layer_of_path(self) -> int:
        """Index in `teacher_layers` of the layer that the bridge's direct path reads."""
        return int(self.reads[-1]) if self.reads else 0

    @property
    def num_hidden_layers(self) -> int:
        """Layers of the key-value cache: the decoder's, then the bridge's.

        transformers sizes the cache by this name.
        """
        return self.blocks + (self.cross_layers if self.reads_states else 0)

    @property
    def leaks(self) -> bool:
        """Whether predictions see later tokens, so that the loss says little about generation."""
        return self.conditioning.may_leak and self.cross_attention == "bidirectional"
