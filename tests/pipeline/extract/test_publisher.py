"""Background writes are bounded and in order, and their errors are raised."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from cache import CacheWriter, Example, open_cache, write_cache
from cache.shard.content import Segment
from cache.shard.record import ShardRecord
from pipeline.extract import publisher as publisher_module
from pipeline.extract.publisher import BackgroundPublisher
from pipeline.extract.shard_states import ShardStates
from tests.cache.examples import make_attachments, make_codecs, make_manifest, make_shards

SHARDS = make_shards([[5, 3], [4], [7, 1], [2]])
CODECS = make_codecs(SHARDS)
NOTHING = ShardStates([], [], [], [], {}, 1)


def states_of(examples: list[Example]) -> ShardStates:
    segments = [
        Segment(example.input_ids, example.loss_mask, example.hidden_states) for example in examples
    ]
    row_ids = [example.row_id for example in examples]
    return ShardStates(row_ids, [""] * len(examples), list(map(len, examples)), segments, {}, 1)


def test_published_shards_are_reported_on_the_callers_thread(tmp_path: Path) -> None:
    reported: list[tuple[int, threading.Thread]] = []

    def published(record: ShardRecord) -> None:
        reported.append((record.shard, threading.current_thread()))

    root = tmp_path / "c"
    with write_cache(root, make_manifest(SHARDS), make_attachments(root)) as writer:
        with BackgroundPublisher(writer, CODECS, {"device": "x"}, published) as publisher:
            for shard, examples in enumerate(SHARDS):
                publisher.publish(shard, states_of(examples))
        assert reported == [(shard, threading.current_thread()) for shard in range(4)]
    assert [record.provenance for record in open_cache(root).records] == [
        {"device": "x", "batch_tokens": 1}
    ] * 4


class SlowWriter:
    """Counts writes, and the most writes at one time."""

    def __init__(self) -> None:
        self.begun, self.done, self.most = 0, 0, 0

    def publish(self, shard: int, examples: object, **_: Any) -> ShardRecord:
        self.begun += 1
        self.most = max(self.most, self.begun - self.done)
        time.sleep(0.05)
        self.done += 1
        return None  # type: ignore[return-value]


def test_one_shard_is_written_at_a_time() -> None:
    writer = SlowWriter()
    with BackgroundPublisher(writer, {}, {}) as publisher:  # type: ignore[arg-type]
        for shard in range(5):
            publisher.publish(shard, NOTHING)
            assert writer.done >= shard  # the previous one is durable
    assert (writer.done, writer.most) == (5, 1)


def test_repeated_interrupts_do_not_end_the_wait_for_the_current_write(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The lock is released when the context ends: nothing may be written after that."""
    writer = SlowWriter()
    plain, interrupts = publisher_module.wait, [KeyboardInterrupt, KeyboardInterrupt]

    def wait(futures: Any) -> Any:
        if interrupts:
            raise interrupts.pop()
        return plain(futures)

    monkeypatch.setattr(publisher_module, "wait", wait)
    with pytest.raises(KeyboardInterrupt), BackgroundPublisher(writer, {}, {}) as publisher:  # type: ignore[arg-type]
        publisher.publish(0, NOTHING)
        raise KeyboardInterrupt
    assert (writer.begun, writer.done) == (1, 1)


class FullDisk(CacheWriter):
    def __init__(self) -> None:
        pass

    def publish(self, *_: Any, **__: Any) -> ShardRecord:
        raise OSError(28, "No space left on device")


def test_a_failed_write_is_raised_at_the_next_batch() -> None:
    with (
        pytest.raises(OSError, match="No space"),
        BackgroundPublisher(FullDisk(), {}, {}) as publisher,
    ):
        publisher.publish(0, NOTHING)
        for _ in range(200):
            time.sleep(0.01)
            publisher.check()
        pytest.fail("the error was not raised")


def test_a_failed_last_write_is_raised_at_the_end() -> None:
    with (
        pytest.raises(OSError, match="No space"),
        BackgroundPublisher(FullDisk(), {}, {}) as publisher,
    ):
        publisher.publish(0, NOTHING)


def test_the_current_shard_is_published_when_the_run_fails(tmp_path: Path) -> None:
    root = tmp_path / "c"
    with (
        pytest.raises(KeyboardInterrupt),
        write_cache(root, make_manifest(SHARDS), make_attachments(root)) as writer,
        BackgroundPublisher(writer, CODECS, {}) as publisher,
    ):
        publisher.publish(0, states_of(SHARDS[0]))
        raise KeyboardInterrupt
    with write_cache(root, make_manifest(SHARDS), make_attachments(root)) as writer:
        assert writer.missing_shards() == [1, 2, 3]
