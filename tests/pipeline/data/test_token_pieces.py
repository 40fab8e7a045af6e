"""Token ids of pieces equal those of the whole text, for all kinds of tokenizers."""

from itertools import accumulate

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import (
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)
from transformers import PreTrainedTokenizerBase, PreTrainedTokenizerFast

from pipeline.data.token_pieces import token_pieces

CORPUS = [
    "the answer is 12 apples\nUser:\nHow many? Assistant:\n\nthe answer",
    "an apple  a day 345 days",
    "naïve café — ok",
] * 5
WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=12
) | st.sampled_from(
    [
        "the answer",
        " the",
        "12",
        "345",
        "\n",
        "\n\n",
        " ",
        "  ",
        "é",
        "\u0301",
        "apples",
        "<end>",
        "A: ",
        " foo",
    ]
)


def made(kind: str) -> PreTrainedTokenizerBase:
    special = ["<unk>", "<end>"]
    if kind == "unigram":
        tokenizer = Tokenizer(models.Unigram())
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
        trainer = trainers.UnigramTrainer(vocab_size=120, special_tokens=special, unk_token="<unk>")
    elif kind == "wordpiece":
        tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=True)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        trainer = trainers.WordPieceTrainer(vocab_size=160, special_tokens=special)
    else:  # like Llama's: SentencePiece blanks with BPE
        tokenizer = Tokenizer(models.BPE(unk_token="<unk>", fuse_unk=True, byte_fallback=True))
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        trainer = trainers.BpeTrainer(vocab_size=160, special_tokens=special)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<end>", unk_token="<unk>")


@pytest.fixture(scope="module", params=["unigram", "wordpiece", "llama", "qwen", "trimmed", "slow"])
def any_tokenizer(
    request: pytest.FixtureRequest, tokenizer: PreTrainedTokenizerBase
) -> PreTrainedTokenizerBase:
    if request.param == "slow":
        from transformers import ByT5Tokenizer

        return ByT5Tokenizer()
    if request.param == "trimmed":  # like RoBERTa's: a lone blank has an empty span
        backend = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
        backend.post_processor = processors.ByteLevel(trim_offsets=True)
        return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="<|im_end|>")
    return tokenizer if request.param == "qwen" else made(request.param)


def ids_of(text: str, tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(WORDS, max_size=5))
def test_tokens_before_a_border_do_not_depend_on_later_text(
    texts: list[str], any_tokenizer: PreTrainedTokenizerBase
) -> None:
    pieces = token_pieces(texts, any_tokenizer)
    assert len(pieces) == len(texts) + 1
    for count in range(len(texts) + 1):
        assert token_pieces(texts[:count], any_tokenizer) == pieces[: count + 1]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(texts=st.lists(WORDS, max_size=5))
def test_tokens_are_those_of_the_whole_text_if_none_crosses_a_border(
    texts: list[str], any_tokenizer: PreTrainedTokenizerBase
) -> None:
    whole = ids_of("".join(texts), any_tokenizer)
    tokens = [token for piece in token_pieces(texts, any_tokenizer) for token in piece]
    starts = [ids_of("".join(texts[:count]), any_tokenizer) for count in range(1, len(texts))]
    if all(whole[: len(start)] == start for start in starts):
        assert tokens == whole


def test_a_sentencepiece_tokenizer_adds_one_blank() -> None:
    tokenizer = made("llama")
    texts = ["User:\nHow many?\nAssistant:\n", "12 apples<end>", "\nUser:\n", "the answer"]
    pieces = token_pieces(texts, tokenizer)
    whole = tokenizer("".join(texts), add_special_tokens=False, return_offsets_mapping=True)
    assert [token for piece in pieces for token in piece] == whole["input_ids"]
    assert tokenizer.convert_ids_to_tokens(pieces[2])[0] == "12"
    borders = list(accumulate(map(len, texts)))
    starts = [begin for begin, _ in whole["offset_mapping"]]
    assert [sum(map(len, pieces[: count + 2])) for count in range(4)] == [
        sum(start < border for start in starts) for border in borders
    ]
