"""Files of answers: rows that read back, samples, resuming, and refusals of other settings."""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pipeline.answering.journal import AnswerJournal
from pipeline.answering.run import answer
from pipeline.data.sources import load_conversations
from pipeline.embedded import EMBEDDED_DATASET
from pipeline.errors import InputError, RunError
from pipeline.generation.answers import Written
from pipeline.generation.causal_lm import CausalLMWriter
from pipeline.generation.settings import Sampling
from tests.pipeline.answering.conftest import MakeSettings


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_answers_follow_their_prompts_in_the_order_of_the_data_set(
    settings_of: MakeSettings,
) -> None:
    options = settings_of(temperature=0, keep="right")
    result = answer(options)
    source = load_conversations(EMBEDDED_DATASET, limit=6).conversations
    written = load_conversations(str(options.out))
    assert written.form == "chat"
    assert [row.prompt_turns for row in written.conversations] == [
        row.prompt_turns for row in source
    ]
    assert [row["id"] for row in rows_of(options.out)] == [row.row_id for row in source]
    assert (result.prompts, result.answers, result.kept, result.wrong) == (6, 6, 6, 0)
    assert result.score == "math"
    assert result.tokens > 6 * 20


def test_a_finished_file_is_not_written_again(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings_of(limit=2)
    first = answer(options)
    monkeypatch.setattr("pipeline.answering.generate.load_causal_lm", pytest.fail)
    again = answer(options)
    assert again.finished_earlier and not first.finished_earlier
    assert (again.kept, again.tokens) == (first.kept, first.tokens)
    assert {path.name for path in options.out.parent.iterdir()} == {
        "answers.jsonl", "answers.jsonl.record", ".answers.jsonl.lock"
    }  # fmt: skip


def test_samples_differ_and_follow_from_the_seed(
    settings_of: MakeSettings, sampled_rows: bytes
) -> None:
    options = settings_of(samples=2)
    answer(options)
    assert options.out.read_bytes() == sampled_rows
    rows = rows_of(options.out)
    assert [row["id"] for row in rows] == [f"{n}-{sample}" for n in range(6) for sample in (0, 1)]
    assert [row["group"] for row in rows] == [str(n) for n in range(6) for _ in range(2)]
    texts = [row["messages"][-1]["content"] for row in rows]
    assert any(one != two for one, two in zip(texts[::2], texts[1::2], strict=True))
    other = settings_of(samples=2, seed=1, out=options.out.with_name("other.jsonl"))
    answer(other)
    assert other.out.read_bytes() != sampled_rows


class DrawnWriter:
    """Writes numbers that follow from prompts and seed, in batches of at most `most`."""

    most = 99

    def __init__(self, *_: object) -> None:
        pass

    def write_after(self, prompts: Sequence[list[int]], sampling: Sampling) -> list[Written]:
        if len(prompts) > self.most:
            raise torch.OutOfMemoryError("no memory")
        draw = random.Random(sampling.seed)
        return [Written(f"{sum(ids)} {draw.random()}", True, 2) for ids in prompts]


@settings(
    max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    batch_size=st.integers(1, 7),
    most=st.integers(1, 7),
    finished=st.integers(0, 2),
    torn=st.floats(0, 1, exclude_max=True),
)
def test_an_interrupted_file_gets_the_same_bytes(
    settings_of: MakeSettings,
    tmp_path_factory: pytest.TempPathFactory,
    batch_size: int,
    most: int,
    finished: int,
    torn: float,
) -> None:
    """Stop in some batch, leave a part of its line, and continue."""
    whole, stopped = (
        settings_of(
            samples=2,
            limit=4,
            batch_size=batch_size,
            out=tmp_path_factory.mktemp("drawn") / "answers.jsonl",
        )
        for _ in range(2)
    )
    journal = stopped.out.with_name("answers.jsonl.unfinished")
    append, appended = AnswerJournal.append, []

    def stops(self: AnswerJournal, *batch: Any) -> None:
        before = journal.read_bytes()
        append(self, *batch)
        appended.append(len(self.answers))
        if len(appended) > finished:
            line = journal.read_bytes()[len(before) :]
            journal.write_bytes(before + line[: int(len(line) * torn)])
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.answering.generate.load_causal_lm", lambda *_: None)
        patch.setattr("pipeline.answering.generate.CausalLMWriter", DrawnWriter)
        patch.setattr(DrawnWriter, "most", most)
        answer(whole)
        with pytest.MonkeyPatch.context() as stopping:
            stopping.setattr(AnswerJournal, "append", stops)
            with contextlib.suppress(KeyboardInterrupt):
                answer(stopped)
        if len(appended) > finished:
            assert not stopped.out.exists()
            assert answer(stopped).resumed_answers == ([0, *appended])[finished]
    assert stopped.out.read_bytes() == whole.out.read_bytes()


def test_a_file_killed_between_its_record_and_its_rename_is_finished(
    settings_of: MakeSettings, sampled_rows: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings_of(samples=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):

        def stops(_path: Path, _rows: bytes) -> None:
            raise KeyboardInterrupt

        answer_file = "pipeline.answering.out_file.write_atomically"
        patch.setattr(answer_file, stops)
        answer(options)
    assert answer(options).resumed_answers == 12
    assert options.out.read_bytes() == sampled_rows


class SmallMemory:
    """Lets a writer fail for batches over a size."""

    def __init__(self, patch: pytest.MonkeyPatch, most: int) -> None:
        self.sizes: list[int] = []
        write = CausalLMWriter.write_after

        def limited(writer: CausalLMWriter, ids: Sequence[list[int]], *rest: Any) -> list[Written]:
            if len(ids) > most:
                raise torch.OutOfMemoryError("no memory")
            self.sizes.append(len(ids))
            return write(writer, ids, *rest)

        patch.setattr(CausalLMWriter, "write_after", limited)


def test_batches_are_halved_for_good_when_memory_runs_out_also_after_an_interruption(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = settings_of(batch_size=5)
    memory = SmallMemory(monkeypatch, 2)
    assert answer(whole).answers == 6
    assert memory.sizes == [2, 2, 2]
    stopped = settings_of(batch_size=5, out=whole.out.with_name("stopped.jsonl"))
    append = AnswerJournal.append

    def stops(self: AnswerJournal, *batch: Any) -> None:
        append(self, *batch)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AnswerJournal, "append", stops)
        answer(stopped)
    monkeypatch.undo()
    answer(stopped)
    assert stopped.out.read_bytes() == whole.out.read_bytes()


def test_memory_too_small_for_one_answer_is_one_error(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    SmallMemory(monkeypatch, 0)
    with pytest.raises(RunError, match=r"too small for a prompt of \d+ tokens.*--max-new-tokens"):
        answer(settings_of())


def test_other_settings_are_refused_by_name_for_unfinished_and_finished_files(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings_of(limit=2)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(AnswerJournal, "append", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        answer(options)
    changed = settings_of(limit=2, top_p=0.5, seed=3)
    for verb in ("begun", "written"):
        with pytest.raises(InputError) as error:
            answer(changed)
        assert f"was {verb} with other settings" in str(error.value)
        assert "--seed was 0, now it is 3; --top-p was 1.0, now it is 0.5" in str(error.value)
        answer(options)
    with pytest.raises(InputError, match=r"--limit was 2, now it is 3; dataset was '"):
        answer(settings_of(limit=3))
    with pytest.raises(InputError, match=r"teacher_weights was 'sha256:.*now it is 'random:3'"):
        answer(settings_of(limit=2, teacher=f"random:3:{options.teacher}"))


def test_files_of_other_origin_and_changed_ones_are_kept(settings_of: MakeSettings) -> None:
    options = settings_of(limit=2)
    options.out.write_text("mine\n")
    with pytest.raises(InputError, match="has no record of `answer`"):
        answer(options)
    options.out.unlink()
    answer(options)
    with options.out.open("a") as stream:
        stream.write("mine\n")
    with pytest.raises(InputError, match="was changed after it was written"):
        answer(options)
    assert options.out.read_text().endswith("mine\n")


def test_a_damaged_journal_is_refused(
    settings_of: MakeSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = settings_of(limit=2, batch_size=1)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("pipeline.answering.run.select", _interrupt)
        answer(options)
    journal = options.out.with_name("answers.jsonl.unfinished")
    content = journal.read_bytes()
    journal.write_bytes(content.replace(b'"stopped":true', b'"stopped":null', 1))
    with pytest.raises(InputError, match=r"is damaged .*delete it"):
        answer(options)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
