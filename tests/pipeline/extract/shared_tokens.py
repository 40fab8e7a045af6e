"""Examples that share leading tokens, for tests of sharing plans."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st

from pipeline.data.tokenized_dataset import TokenizedExample

Tokens = list[tuple[int, bool]]
"""Token ids with their loss mask."""
BLOCKS: list[Tokens] = [
    [(1, False)] * 8,
    [(1, False)] * 40,
    [(2, True)] * 30,
    [(1, False)] * 39 + [(3, False)],
    [(1, False)] * 39 + [(1, True)],  # the second block, with its last token learned
    [(token % 3, False) for token in range(64)],
    [(2, False)],
]


def make_examples(texts: Sequence[Tokens]) -> list[TokenizedExample]:
    """Return an example of each text."""
    return [
        TokenizedExample(
            f"row-{number}",
            np.array([token for token, _ in text], np.int32),
            np.array([learned for _, learned in text], np.bool_),
        )
        for number, text in enumerate(texts)
    ]


def tokens_of(example: TokenizedExample, start: int = 0, stop: int | None = None) -> Tokens:
    """Return tokens `start` to `stop` of an example."""
    ids, mask = example.input_ids[start:stop], example.loss_mask[start:stop]
    return list(zip(ids.tolist(), mask.tolist(), strict=True))


_TEXTS_OF_BLOCKS = st.lists(st.sampled_from(BLOCKS), min_size=1, max_size=4).map(
    lambda blocks: [token for block in blocks for token in block]
)
_SHORT_TEXTS = st.lists(
    st.tuples(st.sampled_from([0, 1, 575]), st.booleans()), min_size=1, max_size=6
)
ANY_EXAMPLES = st.lists(_TEXTS_OF_BLOCKS | _SHORT_TEXTS, min_size=1, max_size=14).map(make_examples)
