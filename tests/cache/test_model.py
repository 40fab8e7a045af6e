"""A model of a cache against the real one, through crashes, damage, repair and conversion."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache import CacheError, DamagedCacheError, open_cache
from cache.journal import scan_journal
from cache.names import CONTAINER_NAMES, MANIFEST_NAME
from cache.upkeep.convert import convert_cache
from cache.upkeep.repair import repair_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import make_cache, make_content, make_shards, same_example
from tests.cache.faults import Crash, failing_at, flip_byte, shard_paths

SHARDS = make_shards([[5, 3], [4], [7, 1]])
ALL = set(range(len(SHARDS)))
EXAMPLES = [(shard, example) for shard, examples in enumerate(SHARDS) for example in examples]
with tempfile.TemporaryDirectory() as _folder:
    DIGEST = open_cache(make_cache(Path(_folder) / "c", SHARDS)).content_digest


class CacheModel(RuleBasedStateMachine):
    """Which shards are published, which of them are damaged, and whether the manifest is."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root, self.conversions = self.folder / "c", 0
        self.published: set[int] = set()
        self.damaged: set[int] = set()
        self.manifest_damaged = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(container=st.sampled_from(CONTAINER_NAMES))
    def begin(self, container: str) -> None:
        self.container = container
        make_cache(self.root, SHARDS, container, publish=[0])
        self.published = {0}

    @property
    def is_intact(self) -> bool:
        return not self.damaged and not self.manifest_damaged

    @precondition(lambda self: self.is_intact and self.published != ALL)
    @rule()
    def publish(self) -> None:
        shard = min(ALL - self.published)
        make_cache(self.root, SHARDS, self.container, publish=[shard])
        self.published.add(shard)

    @precondition(lambda self: self.is_intact and self.published != ALL)
    @rule(step=st.integers(1, 30))
    def die_while_publishing(self, step: int) -> None:
        shard = min(ALL - self.published)
        with contextlib.suppress(Crash), failing_at(step, Crash):
            make_cache(self.root, SHARDS, self.container, publish=[shard])
        journaled = set(scan_journal(self.root).records)
        assert self.published <= journaled <= self.published | {shard}
        self.published = journaled

    @precondition(lambda self: not self.manifest_damaged)
    @rule(seed=st.integers(0, 1 << 30), kind=st.sampled_from(["flip", "truncate", "delete"]))
    def damage_a_shard(self, seed: int, kind: str) -> None:
        rng = random.Random(seed)
        intact = {f"{shard:06d}": shard for shard in self.published - self.damaged}
        paths = [path for path in shard_paths(self.root) if path.stem in intact]
        if not paths:
            return
        shard = rng.choice(paths)
        files = [path for path in [shard, *shard.rglob("*")] if path.is_file()]
        victim = rng.choice(sorted(path for path in files if path.stat().st_size))
        if kind == "flip":
            flip_byte(victim, rng)
        elif kind == "truncate":
            victim.write_bytes(victim.read_bytes()[:-1])
        else:
            victim.unlink()
        self.damaged.add(intact[shard.stem])

    @rule(seed=st.integers(0, 1 << 30))
    @precondition(lambda self: not self.manifest_damaged)
    def damage_the_manifest(self, seed: int) -> None:
        flip_byte(self.root / MANIFEST_NAME, random.Random(seed))
        self.manifest_damaged = True

    @rule()
    def repair(self) -> None:
        with repair_cache(self.root) as repairer:
            # A shard that was stored but not journaled before a crash is restored from itself.
            assert set(repairer.shards) >= self.damaged
            lost = self.damaged | (ALL - self.published)
            assert set(repairer.shards) | set(repairer.restored) == lost
            for shard in repairer.shards:
                content = make_content(SHARDS[shard])
                assert repairer.replace(shard, content, non_finite={}, provenance={}) is not False
            repairer.require_consistent()
        self.published, self.damaged, self.manifest_damaged = set(ALL), set(), False

    @precondition(lambda self: self.is_intact and self.published == ALL)
    @rule()
    def convert(self) -> None:
        self.conversions += 1
        target = self.folder / f"converted-{self.conversions}"
        self.container = next(name for name in CONTAINER_NAMES if name != self.container)
        assert convert_cache(self.root, target, container=self.container).same_content
        self.root = target

    @invariant()
    def verify_reports_exactly_the_damage(self) -> None:
        if not self.published:
            return
        result = verify_cache(self.root)
        assert {damage.shard for damage in result.damage if damage.shard is not None} == (
            self.damaged
        )
        index_damage = [damage.file for damage in result.damage if damage.shard is None]
        assert index_damage == ([MANIFEST_NAME] if self.manifest_damaged else [])
        assert set(result.missing_shards) == ALL - self.published
        assert result.whole == (self.is_intact and self.published == ALL)

    @invariant()
    def examples_are_read_as_written_or_not_at_all(self) -> None:
        if not self.published:
            return
        if self.manifest_damaged or self.published != ALL:
            with pytest.raises(CacheError):
                open_cache(self.root)
            return
        with open_cache(self.root) as cache:
            assert cache.content_digest == DIGEST
            for index, (shard, example) in enumerate(EXAMPLES):
                if shard in self.damaged:
                    with pytest.raises(DamagedCacheError):
                        cache[index]
                else:
                    assert same_example(cache[index], example)


TestCacheModel = CacheModel.TestCase
TestCacheModel.settings = settings(max_examples=10, stateful_step_count=12, deadline=None)
