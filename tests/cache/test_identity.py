"""The phrases that name the differences of two identities."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from cache.identity import differences

LEAVES = st.one_of(st.integers(0, 3), st.sampled_from(["a", "b"]))
IDENTITIES = st.dictionaries(
    st.sampled_from(["x", "y", "z"]),
    st.one_of(LEAVES, st.dictionaries(st.sampled_from(["0", "fit"]), LEAVES)),
    max_size=3,
)


@given(IDENTITIES, IDENTITIES)
def test_differences_are_reported_exactly_if_identities_differ(was: dict, now: dict) -> None:
    assert bool(differences(was, now)) == (was != now)
    assert len(differences(was, now)) == len(differences(now, was))


def test_nested_fields_are_named_with_their_path_and_the_fit_only_alone() -> None:
    was = {
        "codec": {"-1": {"name": "klt", "fidelity": "kl=0.01", "fit": "ab"}, "0": "bf16"},
        "limit": 5,
    }
    other = {"codec": {"-1": {"name": "klt", "fidelity": "kl=0.05"}, "0": "bf16"}, "limit": 5}
    assert differences(was, other) == ["codec -1 fidelity was 'kl=0.01', now it is 'kl=0.05'"]
    refitted = {
        "codec": {"-1": {"name": "klt", "fidelity": "kl=0.01", "fit": "cd"}, "0": "bf16"},
        "limit": 5,
    }
    assert differences(was, refitted) == ["codec -1 fit was 'ab', now it is 'cd'"]
    assert differences(was, was | {"codec": {"-1": was["codec"]["-1"], "0": {"name": "int8"}}}) == [
        "codec 0 was 'bf16', now it is {'name': 'int8'}"
    ]


def test_different_layers_hide_the_codecs_that_follow_from_them() -> None:
    was = {
        "codec": {"-1": "bf16", "0": "bf16"},
        "codecs": ["bf16", "bf16"],
        "layers": [-1, 0],
        "limit": 5,
    }
    now = {"codec": {"-1": "bf16"}, "codecs": ["bf16"], "layers": [-1], "limit": 6}
    assert differences(was, now) == [
        "layers was [-1, 0], now it is [-1]",
        "limit was 5, now it is 6",
    ]
