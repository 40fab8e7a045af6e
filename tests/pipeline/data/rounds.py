"""Random conversations for tests of tokenisation."""

from collections.abc import Sequence

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from pipeline.data.conversations import Turn

WORDS = st.text(
    st.characters(codec="utf-8", exclude_categories=["Cs"]), min_size=1, max_size=40
).filter(str.strip)
ROUNDS = st.lists(st.tuples(WORDS, WORDS), min_size=1, max_size=3)
RELAXED = settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def turns_of(rounds: Sequence[tuple[str, str]], system: str | None) -> list[Turn]:
    turns = [Turn("system", system)] if system else []
    for question, answer in rounds:
        turns += [Turn("user", question), Turn("assistant", answer)]
    return turns
