"""Fault test of real extracts: kill -9 at random moments, then damaged files, then repair.

Run `python benchmarks/soak.py [--minutes N] [--seed N] [--json FILE]`. Each round extracts the
embedded data set into a new cache (container formats alternate) and kills the command repeatedly
until it is done; the content digest must be that of an uninterrupted extract. Then files of every
kind are damaged, one at a time: `verify` must report each, and reading must return the right
numbers or an error. Finally several are damaged at once, and `cache repair` must restore the
digest. If anything fails, the exit status is 1 and the folder of that round is kept.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import click
from output import json_option, write_json
from rich.console import Console
from rich.table import Table

from cache import Cache, CacheError, open_cache
from cache.containers import CONTAINER_NAMES
from cache.journal import scan_journal
from cache.upkeep.verify import verify_cache
from tests.cache.examples import same_example
from tests.cache.faults import files_of, flip_byte, remove, shard_paths, swap

ROOT = Path(__file__).parent.parent
LIMIT, SHARD_TOKENS = 160, 700
FAULTS_PER_ROUND = 40


class SoakError(Exception):
    """Lost data, or damage that was not detected."""


def command(name: str, *options: object) -> list[str]:
    return [sys.executable, str(ROOT / "cli.py"), *name.split(), *map(str, options)]


def extract_command(root: Path, name: str) -> list[str]:
    options = f"--layers -1,0 --limit {LIMIT} --shard-tokens {SHARD_TOKENS} --dtype fp32"
    return command(
        "extract", "--cache", root, "--format", name, "--device", "cpu", *options.split()
    )


def extract_through_kills(root: Path, name: str, rng: random.Random, counts: Counter[str]) -> None:
    """Extract, killed at random moments; published shards must remain and be intact."""
    while True:
        before = published(root)
        process = subprocess.Popen(
            extract_command(root, name),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        target = before + rng.randrange(4)
        while process.poll() is None and published(root) < target:
            time.sleep(0.002)
        time.sleep(rng.random() * (0.05 if (root / "manifest.json").exists() else 5))
        finished = process.poll() is not None
        process.send_signal(signal.SIGKILL)
        error = process.communicate()[1]
        if finished and process.returncode:
            raise SoakError(f"extract ended with {process.returncode}: {error}")
        if finished:
            return
        counts["kills"] += 1
        if (root / "manifest.json").exists() and (damage := verify_cache(root).damage):
            raise SoakError(f"after a kill: {damage[0]}")
        if published(root) < before:
            raise SoakError(f"{before} shards were published, {published(root)} are left")


def published(root: Path) -> int:
    return len(scan_journal(root).records) if root.is_dir() else 0


def damage_one(root: Path, rng: random.Random, counts: Counter[str]) -> list[tuple[Path, bytes]]:
    """Damage one file or shard; return the original contents."""
    kind = rng.choice(["flip"] * 6 + ["cut", "remove", "swap", "grow"])
    files = files_of(root)
    victim = rng.choice(files[rng.choice(sorted(files))])
    originals = [(victim, victim.read_bytes())]
    if kind == "swap":
        left, right = rng.sample(shard_paths(root), 2)
        originals = [
            (path, path.read_bytes())
            for shard in (left, right)
            for path in shard.rglob("*")
            if path.is_file()
        ]
        originals += [(path, path.read_bytes()) for path in (left, right) if path.is_file()]
        swap(left, right)
    elif kind == "remove":
        remove(victim)
    elif kind == "cut":
        os.truncate(victim, rng.randrange(victim.stat().st_size))
    elif kind == "grow":
        victim.write_bytes(victim.read_bytes() + b"\n{}")
    else:
        flip_byte(victim, rng)
    counts[kind] += 1
    return originals


def require_detection(root: Path, original: Cache, torn_tail: bool) -> None:
    """Require that verify reports damage, and that reading returns right examples or errors."""
    if verify_cache(root).whole and not torn_tail:
        raise SoakError("verify found nothing")
    errors = 0
    try:
        store = open_cache(root)
    except CacheError:
        return
    for index in range(len(original)):
        try:
            if not same_example(store[index], original[index]):
                raise SoakError(f"example {index} was read with other numbers")
        except CacheError:
            errors += 1
    if not errors and not torn_tail:
        raise SoakError("all examples were read without an error")


def soak_round(
    folder: Path, original: Cache, name: str, rng: random.Random, counts: Counter[str]
) -> None:
    root = folder / "cache"
    extract_through_kills(root, name, rng, counts)
    if open_cache(root).content_digest != original.content_digest:
        raise SoakError("the content digest differs after the kills")
    for _ in range(FAULTS_PER_ROUND):
        originals = damage_one(root, rng, counts)
        # A dead writer leaves text after the journal's last complete line; that is not damage.
        journal = root / "journal.jsonl"
        content = journal.read_bytes() if journal.is_file() else b""
        victim, original_content = originals[0]
        torn_tail = victim == journal and content.startswith(original_content)
        require_detection(root, original, torn_tail)
        for path, content in originals:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
    if not verify_cache(root).whole:
        raise SoakError("not whole after all faults were undone")
    for path in rng.sample(files_of(root)["values"], 3):
        flip_byte(path, rng)
    remove(rng.choice(shard_paths(root)))
    flip_byte(root / rng.choice(["manifest.json", "journal.jsonl"]), rng)
    done = subprocess.run(
        command("cache repair", root, "--device", "cpu"),
        capture_output=True,
        text=True,
        check=False,
    )
    counts["repairs"] += 1
    if (
        done.returncode
        or open_cache(root).content_digest != original.content_digest
        or not verify_cache(root).whole
    ):
        raise SoakError(f"not repaired: {done.stderr}")


@click.command(help=__doc__)
@click.option("--minutes", default=20.0, show_default=True)
@click.option("--seed", default=0, show_default=True)
@json_option
def main(minutes: float, seed: int, json_path: Path | None) -> None:
    """Run rounds until the time is over."""
    counts: Counter[str] = Counter()
    rng = random.Random(seed)
    folder = Path(tempfile.mkdtemp(prefix="soak-"))
    until = time.monotonic() + 60 * minutes
    subprocess.run(extract_command(folder / "whole", "zarr"), check=True, stdout=subprocess.DEVNULL)
    original = open_cache(folder / "whole")
    while time.monotonic() < until:
        name = CONTAINER_NAMES[counts["rounds"] % len(CONTAINER_NAMES)]
        this_round = folder / f"round-{counts['rounds']}"
        try:
            soak_round(this_round, original, name, rng, counts)
        except (SoakError, CacheError) as error:
            click.echo(
                f"round {counts['rounds']} ({name}, seed {seed}) failed: {error}; see {this_round}",
                err=True,
            )
            sys.exit(1)
        shutil.rmtree(this_round)
        counts["rounds"] += 1
        click.echo(", ".join(f"{count} {kind}" for kind, count in sorted(counts.items())), err=True)
    shutil.rmtree(folder)
    table = Table(
        title=f"Soak, {minutes:g} minutes, seed {seed}: no data lost, all damage detected"
    )
    for kind in sorted(counts):
        table.add_column(kind, justify="right")
    table.add_row(*(str(counts[kind]) for kind in sorted(counts)))
    Console().print(table)
    write_json(json_path, dict(counts))


if __name__ == "__main__":
    main()
