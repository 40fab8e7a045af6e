"""A cache compared with a model of it, through crashes, damage, repair and conversion."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from cache import CacheError, DamagedCacheError, open_cache
from cache.errors import OtherContentError
from cache.journal import scan_journal
from cache.names import CONTAINER_NAMES, JOURNAL_NAME, MANIFEST_NAME
from cache.upkeep.convert import convert_cache
from cache.upkeep.repair import repair_cache
from cache.upkeep.verify import verify_cache
from tests.cache.examples import make_cache, make_content, make_shards, same_example
from tests.cache.faults import Crash, failing_at, flip_byte, shard_paths

LENGTHS = [[5, 3], [4], [7, 1]]
SHARDS, OTHERS = make_shards(LENGTHS), make_shards(LENGTHS, layers=(0, -1))
ALL = set(range(len(SHARDS)))
EXAMPLES = [(shard, example) for shard, examples in enumerate(SHARDS) for example in examples]
STEPS = st.none() | st.integers(1, 30)
"""The call at which a process dies, if any."""
SEEDS = st.integers(0, 1 << 30)
with tempfile.TemporaryDirectory() as _folder:
    DIGEST = open_cache(make_cache(Path(_folder) / "c", SHARDS)).content_digest


@contextlib.contextmanager
def dying_at(step: int | None) -> Iterator[None]:
    with contextlib.suppress(Crash), failing_at(-1 if step is None else step, Crash):
        yield


class CacheModel(RuleBasedStateMachine):
    """Which shards are published or damaged, and whether manifest and journal are damaged.

    An unlisted shard is stored, but not in the journal; a suspect one is also damaged.
    """

    def __init__(self) -> None:
        super().__init__()
        self.folder = Path(tempfile.mkdtemp())
        self.root, self.conversions = self.folder / "c", 0
        self.published: set[int] = set()
        self.damaged: set[int] = set()
        self.suspect: set[int] = set()
        self.manifest_damaged = self.journal_damaged = False

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @initialize(
        container=st.sampled_from(CONTAINER_NAMES),
        attempts=st.lists(st.tuples(STEPS, st.booleans()), max_size=4),
    )
    def begin(self, container: str, attempts: list[tuple[int | None, bool]]) -> None:
        """Publish the first shard, then try to publish others."""
        self.container = container
        make_cache(self.root, SHARDS, container, publish=[0])
        self.published = {0}
        for step, torn in attempts:
            if self.published != ALL:
                self._publish(step, torn=torn)

    @property
    def is_intact(self) -> bool:
        return not (self.damaged or self.manifest_damaged or self.journal_damaged)

    @property
    def unlisted(self) -> set[int]:
        return {
            int(path.stem)
            for path in shard_paths(self.root)
            if path.stem.isdecimal() and int(path.stem) not in self.published
        }

    @precondition(lambda self: self.is_intact and self.published != ALL)
    @rule(step=STEPS, torn=st.booleans())
    def publish(self, step: int | None, torn: bool) -> None:
        self._publish(step, torn=torn)

    def _publish(self, step: int | None, *, torn: bool) -> None:
        """Publish the next shard, after a process that died within a journal line if `torn`."""
        if torn:
            with (self.root / JOURNAL_NAME).open("ab") as stream:
                stream.write(b'{"shard":')
        shard, died = min(ALL - self.published), True
        with dying_at(step):
            make_cache(self.root, SHARDS, self.container, publish=[shard])
            died = False
        journaled = set(scan_journal(self.root).records)
        assert self.published <= journaled <= self.published | {shard}
        assert died or shard in journaled
        self.published = journaled
        self.suspect -= journaled

    @precondition(lambda self: not self.manifest_damaged)
    @rule(seed=SEEDS, kind=st.sampled_from(["flip", "truncate", "delete"]))
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

    @rule(seed=SEEDS)
    @precondition(lambda self: not self.manifest_damaged)
    def damage_the_manifest(self, seed: int) -> None:
        flip_byte(self.root / MANIFEST_NAME, random.Random(seed))
        self.manifest_damaged = True

    @rule(seed=SEEDS)
    @precondition(lambda self: self.published and not self.journal_damaged)
    def damage_a_journal_line(self, seed: int) -> None:
        """Change a byte of a record, but not to a newline, which would change other lines."""
        path, rng = self.root / JOURNAL_NAME, random.Random(seed)
        records = scan_journal(self.root).records
        shard = rng.choice(sorted(records))
        line = records[shard].line()
        place = rng.randrange(len(line) - 1)
        changed = bytes([line[place] ^ 0x80])
        content = path.read_bytes()
        path.write_bytes(content.replace(line, line[:place] + changed + line[place + 1 :]))
        self.journal_damaged = True
        self.suspect |= {shard} & self.damaged
        self.published.remove(shard)
        self.damaged.discard(shard)

    @rule(step=STEPS)
    def repair(self, step: int | None) -> None:
        died = True
        with dying_at(step):
            self._repair()
            died = False
        if not died:
            self.published, self.damaged, self.suspect = set(ALL), set(), set()
            self.manifest_damaged = self.journal_damaged = False
            return
        journal = scan_journal(self.root)
        assert self.published <= set(journal.records)
        self.published = set(journal.records)
        self.journal_damaged = bool(journal.damage) and self.journal_damaged
        result = verify_cache(self.root)
        damaged = {damage.shard for damage in result.damage if damage.shard is not None}
        assert damaged <= self.damaged
        self.damaged = {shard for shard in ALL if shard in damaged}
        self.suspect &= self.unlisted
        repaired = MANIFEST_NAME not in {damage.file for damage in result.damage}
        self.manifest_damaged = self.manifest_damaged and not repaired

    def _repair(self) -> None:
        unlisted, listed = self.unlisted, set(self.published)
        with repair_cache(self.root) as repairer:
            assert unlisted - self.suspect <= set(repairer.restored) <= unlisted
            lost = self.damaged | (ALL - self.published)
            assert set(repairer.shards) == lost - set(repairer.restored)
            for shard in repairer.shards:
                if shard in listed:
                    with pytest.raises(OtherContentError):
                        repairer.replace(
                            shard, make_content(OTHERS[shard]), non_finite={}, provenance={}
                        )
                same = repairer.replace(
                    shard, make_content(SHARDS[shard]), non_finite={}, provenance={}
                )
                assert same is (True if shard in listed else None)
            repairer.require_consistent()

    @precondition(lambda self: self.is_intact and self.published == ALL)
    @rule(step=STEPS)
    def convert(self, step: int | None) -> None:
        """Convert to the other container; a conversion that died is run again."""
        self.conversions += 1
        target = self.folder / f"converted-{self.conversions}"
        self.container = next(name for name in CONTAINER_NAMES if name != self.container)
        if step is not None:
            with dying_at(step):
                convert_cache(self.root, target, container=self.container)
        assert convert_cache(self.root, target, container=self.container).same_content
        self.root = target

    @invariant()
    def verify_reports_exactly_the_damage(self) -> None:
        if not self.root.exists():
            return
        result = verify_cache(self.root)
        assert {damage.shard for damage in result.damage if damage.shard is not None} == (
            self.damaged
        )
        assert {damage.file for damage in result.damage if damage.shard is None} == {
            *([MANIFEST_NAME] if self.manifest_damaged else []),
            *([JOURNAL_NAME] if self.journal_damaged else []),
        }
        assert set(result.missing_shards) == ALL - self.published
        assert result.whole == (self.is_intact and self.published == ALL)

    @invariant()
    def examples_are_read_as_written_or_not_at_all(self) -> None:
        if not self.root.exists():
            return
        if self.manifest_damaged or self.journal_damaged or self.published != ALL:
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
TestCacheModel.settings = settings(max_examples=20, stateful_step_count=10, deadline=None)
