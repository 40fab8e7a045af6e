"""Generated answers and their ends."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from transformers import PreTrainedTokenizerBase, TextStreamer


@dataclass(frozen=True)
class Written:
    """One answer: its text, whether the student ended it itself, and its length in tokens."""

    text: str
    stopped: bool
    tokens: int


def cut_answer(
    ids: list[int],
    ends: Sequence[int],
    tokenizer: PreTrainedTokenizerBase,
    stop: Sequence[str] = (),
) -> Written:
    """Return an answer up to its end.

    Args:
        ids: its tokens.
        ends: tokens that end it, or pad a batch after its end.
        tokenizer: decodes them.
        stop: texts; the answer ends before the first of them.
    """
    length = next((place for place, token in enumerate(ids) if token in ends), len(ids))
    text = str(tokenizer.decode(ids[:length]))
    end = _first_stop(text, stop)
    stopped = end is not None or length < len(ids)
    return Written(text=text[:end], stopped=stopped, tokens=length)


class AnswerStream(TextStreamer):
    """Passes finished text on, but withholds the beginning of a possible stop text."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        receive: Callable[[str], None],
        stop: Sequence[str],
    ) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._receive, self._stop, self._pending = receive, stop, ""
        self._longest, self._is_over = max(map(len, stop), default=1) - 1, False

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Receive finished words from `generate`."""
        self._pending += text
        end = _first_stop(self._pending, self._stop)
        ready = len(self._pending) if stream_end else max(0, len(self._pending) - self._longest)
        ready = ready if end is None else end
        if not self._is_over:
            self._receive(self._pending[:ready])
        self._pending, self._is_over = self._pending[ready:], self._is_over or end is not None


def _first_stop(text: str, stop: Sequence[str]) -> int | None:
    """Return the position of the first stop text, None if there is none."""
    return min((place for stop_text in stop if (place := text.find(stop_text)) >= 0), default=None)
