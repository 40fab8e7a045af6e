"""Models are loaded from exactly their own tensors, and no code is run."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import transformers as hf
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForCausalLM, PreTrainedModel

from pipeline.pretrained.load import load_config, load_error_reason, load_weights

Tensors = dict[str, torch.Tensor]
SIZE = {
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
}


def qwen2(*, tied: bool = False) -> PreTrainedModel:
    return hf.Qwen2ForCausalLM(
        hf.Qwen2Config(**SIZE, num_key_value_heads=1, tie_word_embeddings=tied)
    )


def gpt_neo() -> PreTrainedModel:
    return hf.GPTNeoForCausalLM(
        hf.GPTNeoConfig(
            vocab_size=40,
            hidden_size=16,
            num_layers=2,
            num_heads=2,
            attention_types=[[["global", "local"], 1]],
        )
    )


def gpt2() -> PreTrainedModel:
    return hf.GPT2LMHeadModel(hf.GPT2Config(vocab_size=40, n_embd=16, n_layer=2, n_head=2))


def gpt_neox() -> PreTrainedModel:
    return hf.GPTNeoXForCausalLM(hf.GPTNeoXConfig(**SIZE))


def bert() -> PreTrainedModel:
    return hf.BertForPreTraining(hf.BertConfig(**SIZE))


def distilbert() -> PreTrainedModel:
    return hf.DistilBertForMaskedLM(
        hf.DistilBertConfig(vocab_size=40, dim=16, n_layers=2, n_heads=2, hidden_dim=24)
    )


def modernbert() -> PreTrainedModel:
    tokens = {
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "cls_token_id": 1,
        "sep_token_id": 2,
    }
    return hf.ModernBertForMaskedLM(hf.ModernBertConfig(**SIZE, **tokens))


def rewritten(model: PreTrainedModel, folder: Path, change: Callable[[Tensors], Tensors]) -> Path:
    model.save_pretrained(folder)
    tensors = load_file(folder / "model.safetensors")
    save_file(change(tensors), folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def prefixed(prefix: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {prefix + name: value for name, value in tensors.items()}


def one_block_wrapped(tensors: Tensors) -> Tensors:
    return {
        name.replace("layers.1.", "layers.1._checkpoint_wrapped_module."): value
        for name, value in tensors.items()
    }


def without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {other: value for other, value in tensors.items() if other != name}


def with_extra(name: str, *shape: int) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: torch.ones(*shape)}


def of_fewer_tokens(tensors: Tensors) -> Tensors:
    return tensors | {
        "model.embed_tokens.weight": tensors["model.embed_tokens.weight"][:-1].clone()
    }


@pytest.mark.parametrize("kind", [AutoModel, AutoModelForCausalLM])
@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (
            prefixed("_orig_mod."),
            (
                r"^tensors missing: .*embed_tokens\.weight.* more; unexpected: _orig_mod\..*wrapper"
                r" '_orig_mod'$"
            ),
        ),
        (prefixed("module."), "wrapper 'module'$"),
        (one_block_wrapped, "wrapper '_checkpoint_wrapped_module'$"),
        (prefixed("teacher."), r"unexpected: teacher\.lm_head\.weight, [^;]* more$"),
        (
            without("model.layers.1.mlp.up_proj.weight"),
            r"^tensors missing: (model\.)?layers\.1\.mlp\.up_proj\.weight$",
        ),
        (without("model.norm.weight"), r"^tensors missing: (model\.)?norm\.weight$"),
        (
            with_extra("model.layers.2.mlp.up_proj.weight", 24, 16),
            r"^tensors unexpected: .*layers\.2\.mlp\.up_proj\.weight$",
        ),
        (
            with_extra("model.layers.1.self_attn.o_proj.bias", 16),
            r"^tensors unexpected: .*layers\.1\.self_attn\.o_proj\.bias$",
        ),
        (
            with_extra("model.layers.0.mlp.up_proj.weight_scale", 1),
            r"^tensors unexpected: .*up_proj\.weight_scale$",
        ),
        (with_extra("something.weight", 3), r"^tensors unexpected: something\.weight$"),
        (
            of_fewer_tokens,
            (
                r"^tensors of another shape: .*embed_tokens\.weight is \[39, 16\], its"
                r" configuration says \[40, 16\]$"
            ),
        ),
    ],
)
def test_missing_unexpected_and_misshapen_tensors_are_named(
    kind: type, change: Callable[[Tensors], Tensors], problem: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=problem):
        load_weights(kind, rewritten(qwen2(), tmp_path, change))


@pytest.mark.parametrize(
    ("model", "change"),
    [
        (qwen2, dict),
        (qwen2, without("lm_head.weight")),
        (qwen2, with_extra("model.layers.0.self_attn.rotary_emb.inv_freq", 4)),
        (qwen2, with_extra("score.weight", 2, 16)),
        (qwen2, with_extra("v_head.summary.weight", 1, 16)),
        (gpt_neo, with_extra("transformer.h.0.attn.attention.masked_bias", 1)),
        (gpt_neo, with_extra("transformer.h.0.attn.attention.bias", 1, 1, 8, 8)),
        (gpt2, with_extra("h.0.attn.bias", 1, 1, 8, 8)),
        (gpt_neox, with_extra("gpt_neox.layers.0.attention.masked_bias", 1)),
        (bert, dict),
        (bert, with_extra("bert.embeddings.position_ids", 1, 512)),
        (
            bert,
            lambda tensors: {
                name: value for name, value in tensors.items() if "pooler" not in name
            },
        ),
        (distilbert, dict),
        (modernbert, dict),
    ],
)
def test_unused_heads_and_computed_tensors_are_accepted(
    model: Callable[[], PreTrainedModel], change: Callable[[Tensors], Tensors], tmp_path: Path
) -> None:
    torch.manual_seed(0)
    whole = model().eval()
    body = load_weights(AutoModel, rewritten(whole, tmp_path, change))
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(
            body(ids).last_hidden_state, whole.base_model(ids).last_hidden_state
        )


def test_tied_weights_are_stored_once(tmp_path: Path) -> None:
    whole = qwen2(tied=True).eval()
    whole.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / "model.safetensors")
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        torch.testing.assert_close(
            load_weights(AutoModelForCausalLM, tmp_path)(ids).logits, whole(ids).logits
        )
    rewritten(whole, tmp_path, without("model.embed_tokens.weight"))
    with pytest.raises(ValueError, match=r"tensors missing: .*embed_tokens\.weight"):
        load_weights(AutoModelForCausalLM, tmp_path)


def test_a_missing_untied_head_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^tensors missing: lm_head\.weight$"):
        load_weights(AutoModelForCausalLM, rewritten(qwen2(), tmp_path, without("lm_head.weight")))


def test_code_of_a_model_is_not_run_and_there_is_no_prompt(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    qwen2().save_pretrained(tmp_path)
    ran = tmp_path / "ran"
    (tmp_path / "own_code.py").write_text(
        f"open({str(ran)!r}, 'w')\nfrom transformers import Qwen2Config as OwnConfig\n"
    )
    path = tmp_path / "config.json"
    own = {
        "model_type": "made-up",
        "auto_map": {"AutoConfig": "own_code.OwnConfig", "AutoModel": "own_code.OwnModel"},
    }
    path.write_text(json.dumps(json.loads(path.read_text()) | own))
    for load in (load_config, lambda location: load_weights(AutoModel, location)):
        with pytest.raises(ValueError) as refused:
            load(str(tmp_path))
        assert load_error_reason(refused.value).startswith(
            "it needs its own code, which is never run; "
        )
    assert not ran.exists()
    assert capsys.readouterr().out == ""
