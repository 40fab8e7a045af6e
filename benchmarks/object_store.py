"""Object stores: the client that this project uses beside the other common one, and a cache there
beside one in a folder.

Run `python benchmarks/object_store.py [--json FILE]`. An S3 server (moto's, in a process of its
own) listens on this machine's loopback, so the figures are of clients and of what a cache adds to
them, not of a network. The server is one Python process that shares the machine's cores: ratios say
more than megabytes."""

from __future__ import annotations

import json
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
    """The endpoint of a server with one bucket."""
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
    """Return the median seconds of all rounds."""
    return statistics.median(timed(work) for _ in range(ROUNDS))


def clients(endpoint: str, folder: Path) -> list[dict[str, Any]]:
    """Whole files put and got by this project's layer over obstore, and by s3fs (fsspec)."""
    import s3fs

    large, many = folder / "large", [folder / "small" / f"{number:04d}" for number in range(MANY)]
    (folder / "small").mkdir()
    large.write_bytes(os.urandom(LARGE))
    for path in many:
        path.write_bytes(os.urandom(SMALL))
    names = [f"small/{path.name}" for path in many]
    bucket = Bucket("s3://bucket/ours", endpoint)
    other = s3fs.S3FileSystem(endpoint_url=endpoint)
    back = folder / "back"

    def get_large() -> None:
        with back.open("wb") as stream:
            stream.truncate(LARGE)
        bucket.download({"large": LARGE}, {"large": back})

    def other_small(verb: str) -> None:
        remote = [f"bucket/theirs/{name}" for name in names]
        other.put([str(path) for path in many], remote) if verb == "put" else other.cat(remote)

    works: dict[str, tuple[Callable[[], object], Callable[[], object]]] = {
        "put 64 MB": (
            lambda: bucket.upload(folder, ["large"]),
            lambda: other.put_file(str(large), "bucket/theirs/large"),
        ),
        "get 64 MB": (
            get_large,
            lambda: other.get_file("bucket/theirs/large", str(back)),
        ),
        f"put {MANY} of 4 KB": (
            lambda: bucket.upload(folder, names),
            lambda: other_small("put"),
        ),
        f"get {MANY} of 4 KB": (
            lambda: bucket.get_all(names),
            lambda: other_small("get"),
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


def extracted(where: LocationLike, container: str) -> float:
    """Seconds from the first batch to the last published shard of the embedded default, six layers
    wide."""
    settings = ExtractSettings(
        teacher=EMBEDDED_TEACHER,
        dataset=EMBEDDED_DATASET,
        cache=where,
        format=container,
        layers=(-1, 0, 1, 2, 3, 4),
        shard_tokens=16384,
    )
    return extract(prepare(settings)).seconds


def caches(endpoint: str, folder: Path) -> list[dict[str, Any]]:
    """Extracting to and reading from a store, beside a folder."""
    found = []
    for container in ("zarr", "hdf5"):
        there = ObjectStoreLocation(f"s3://bucket/{container}", endpoint, folder / "made")
        here = folder / container
        write = {"folder": extracted(here, container), "store": extracted(there, container)}

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
        size = open_cache(here).bytes / 1e6
        found.append(
            {
                "what": f"extract, {container}",
                "megabytes": size,
                **{f"{k}, s": v for k, v in write.items()},
            }
        )
        found.append(
            {
                "what": f"read all examples, {container}",
                "megabytes": size,
                **{f"{k}, s": v for k, v in times.items()},
            }
        )
    return found


def shown(title: str, rows: list[dict[str, Any]]) -> Table:
    """Rows as a table."""
    table = Table(title=title)
    names = list(dict.fromkeys(name for row in rows for name in row if name != "rounds"))
    for name in names:
        table.add_column(name, justify="left" if name == "what" else "right")
    for row in rows:
        cells = [row.get(name, "") for name in names]
        table.add_row(*(cell if isinstance(cell, str) else f"{cell:.3f}" for cell in cells))
    return table


@click.command(help=__doc__)
@click.option(
    "--json", "json_path", type=click.Path(path_type=Path), help="Write the figures here, too."
)
def main(json_path: Path | None) -> None:
    """Measure and print."""
    with running_server() as endpoint, tempfile.TemporaryDirectory() as folder:
        figures = {
            "clients": clients(endpoint, Path(folder)),
            "caches": caches(endpoint, Path(folder)),
        }
    console = Console(width=130)
    console.print(
        shown(f"Clients, seconds (median of {ROUNDS} alternating rounds)", figures["clients"])
    )
    console.print(shown("Caches, seconds", figures["caches"]))
    if json_path:
        json_path.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()
