"""Compare this project's object store client with s3fs, and a cache in a store with a folder.

Run `python benchmarks/object_store.py [--limit N] [--json FILE]`. An S3 server (moto's, in a
process of its own) listens on this machine's loopback, so the figures show the overhead of clients
and caches, not a network. The server is one Python process that shares the machine's cores: ratios
mean more than speeds.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import click
from output import json_option, write_json
from rich.console import Console
from rich.table import Table
from rounds import alternate

from cache import open_cache
from cache.storage import LocationLike
from cache.storage.bucket import Bucket
from cache.storage.object_store import ObjectStoreLocation
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings

SERVER = """
import logging, time
import boto3
from moto.server import ThreadedMotoServer
logging.getLogger("werkzeug").setLevel(logging.ERROR)
server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
server.start()
endpoint = "http://%s:%d" % server.get_host_and_port()
boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket="bucket")
print(endpoint, flush=True)
time.sleep(3600)
"""
LARGE, SMALL, MANY = 64 << 20, 4096, 200
ROUNDS = 3


@contextmanager
def running_server() -> Iterator[str]:
    """Start a server with one bucket; yield its endpoint."""
    os.environ |= {
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    process = subprocess.Popen([sys.executable, "-c", SERVER], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()


def timed(work: Callable[[], object]) -> float:
    """Return the seconds that `work` takes."""
    began = time.perf_counter()
    work()
    return time.perf_counter() - began


def seconds(work: Callable[[], object]) -> float:
    """Return the median of the seconds that `work` takes."""
    return statistics.median(timed(work) for _ in range(ROUNDS))


def clients(endpoint: str, folder: Path) -> list[dict[str, Any]]:
    """Compare uploads and downloads of whole files by obstore (this project) and s3fs (fsspec)."""
    import s3fs

    large, many = folder / "large", [folder / "small" / f"{number:04d}" for number in range(MANY)]
    (folder / "small").mkdir()
    large.write_bytes(os.urandom(LARGE))
    for path in many:
        path.write_bytes(os.urandom(SMALL))
    names = [f"small/{path.name}" for path in many]
    bucket = Bucket("s3://bucket/ours", endpoint)
    s3 = s3fs.S3FileSystem(endpoint_url=endpoint)
    copy = folder / "copy"

    def get_large() -> None:
        with copy.open("wb") as stream:
            stream.truncate(LARGE)
        bucket.download({"large": LARGE}, {"large": copy})

    def s3fs_small(verb: str) -> None:
        remote = [f"bucket/theirs/{name}" for name in names]
        s3.put([str(path) for path in many], remote) if verb == "put" else s3.cat(remote)

    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "put 64 MB": (
            lambda: bucket.upload(folder, ["large"]),
            lambda: s3.put_file(str(large), "bucket/theirs/large"),
        ),
        "get 64 MB": (
            get_large,
            lambda: s3.get_file("bucket/theirs/large", str(copy)),
        ),
        f"put {MANY} of 4 KB": (
            lambda: bucket.upload(folder, names),
            lambda: s3fs_small("put"),
        ),
        f"get {MANY} of 4 KB": (
            lambda: bucket.get_all(names),
            lambda: s3fs_small("get"),
        ),
    }
    figures = []
    for what, (ours, theirs) in works.items():
        ways = {"obstore": partial(timed, ours), "s3fs": partial(timed, theirs)}
        measured = alternate(ways, ROUNDS)
        own, peer = (statistics.median(measured[name]) for name in ways)
        figures.append(
            {
                "what": what,
                "obstore": own,
                "s3fs": peer,
                "s3fs over obstore": peer / own,
                "rounds": measured,
            }
        )
    return figures


def extract_seconds(where: LocationLike, container: str, limit: int | None) -> float:
    """Return the seconds from the first batch to the last published shard, with six layers."""
    settings = ExtractSettings(
        teacher=EMBEDDED_TEACHER,
        dataset=EMBEDDED_DATASET,
        cache=where,
        format=container,
        layers=(-1, 0, 1, 2, 3, 4),
        shard_tokens=16384,
        limit=limit,
    )
    return extract(prepare(settings)).seconds


def caches(endpoint: str, folder: Path, limit: int | None) -> list[dict[str, Any]]:
    """Compare extracting to and reading from a store with a folder."""
    figures = []
    for container in ("zarr", "hdf5"):
        there = ObjectStoreLocation(f"s3://bucket/{container}", endpoint, folder / "made")
        here = folder / container
        write = {
            "folder": extract_seconds(here, container, limit),
            "store": extract_seconds(there, container, limit),
        }

        def read(where: LocationLike) -> None:
            with open_cache(where) as cache:
                for example in cache:
                    example.hidden_states[-1].sum()

        fresh = [
            ObjectStoreLocation(there.address, endpoint, folder / f"fresh-{container}-{number}")
            for number in range(ROUNDS)
        ]
        times = {
            "folder": seconds(lambda here=here: read(here)),
            "store, first": seconds(lambda fresh=fresh: read(fresh.pop())),
            "store, again": seconds(lambda there=there: read(there)),
        }
        with open_cache(here) as cache:
            size = cache.bytes / 1e6
        figures.append(
            {
                "what": f"extract, {container}",
                "megabytes": size,
                **{f"{name}, s": value for name, value in write.items()},
            }
        )
        figures.append(
            {
                "what": f"read all examples, {container}",
                "megabytes": size,
                **{f"{name}, s": value for name, value in times.items()},
            }
        )
    return figures


def table_of(title: str, rows: list[dict[str, Any]]) -> Table:
    """Return the rows as a table."""
    table = Table(title=title)
    names = list(dict.fromkeys(name for row in rows for name in row if name != "rounds"))
    for name in names:
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        cells = [row.get(name, "") for name in names]
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:.3f}" for cell in cells))
    return table


@click.command(help=__doc__)
@click.option("--limit", type=click.IntRange(min=1), help="Rows of the caches.  [default: all]")
@json_option
def main(limit: int | None, json_path: Path | None) -> None:
    """Measure and print."""
    with running_server() as endpoint, tempfile.TemporaryDirectory() as folder:
        figures = {
            "clients": clients(endpoint, Path(folder)),
            "caches": caches(endpoint, Path(folder), limit),
        }
    console = Console(width=130)
    console.print(
        table_of(f"Clients, seconds (median of {ROUNDS} alternating rounds)", figures["clients"])
    )
    console.print(table_of("Caches, seconds", figures["caches"]))
    write_json(json_path, figures)


if __name__ == "__main__":
    main()
