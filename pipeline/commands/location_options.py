"""Parameters that say where a cache is: a folder, or an object store with copies on this
machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import cloup

from cache.storage import StorageLocation, storage_location
from pipeline.errors import InputError

_OPTIONS = cloup.option_group(
    "Caches at s3://…",
    click.option("--endpoint", metavar="URL", help="An S3-compatible server.  [default: AWS_ENDPOINT_URL, or AWS]"),
    click.option(
        "--copies", type=click.Path(file_okay=False, path_type=Path),
        help="Folder for copies of what is in use.  [default: ~/.cache/llm-modules/copies]",
    ),
    click.option("--copies-gb", type=click.FloatRange(min=0), help="Most that these copies take.  [default: 20]"),
)  # fmt: skip


def location_options(
    *parameters: str, otherwise: Callable[[dict[str, Any]], StorageLocation | None] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """The named parameters are addresses of caches: give the function their locations, and the command
    options for them.

    `otherwise` tells the location where the first parameter is left out, from all that the command is
    given; None: there is none."""

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(
            *args: Any,
            endpoint: str | None,
            copies: Path | None,
            copies_gb: float | None,
            **kwargs: Any,
        ) -> Any:
            given = {"--endpoint": endpoint, "--copies": copies, "--copies-gb": copies_gb}
            limit = None if copies_gb is None else int(copies_gb * 1e9)
            addresses = {name: kwargs[name] for name in parameters if kwargs[name] is not None}
            locations = {
                name: storage_location(address, endpoint, copies, limit)
                for name, address in addresses.items()
            }
            if otherwise is not None and not addresses:
                known = otherwise(kwargs)
                addresses = {} if known is None else {parameters[0]: known.address}
                if known is not None:
                    locations = {
                        parameters[0]: storage_location(
                            known.recorded_address, endpoint or known.endpoint, copies, limit
                        )
                    }
            if not any(location.is_remote for location in locations.values()):
                found = (
                    f"{next(iter(addresses.values()))} is a folder"
                    if addresses
                    else "none is named"
                )
                for option, value in given.items():
                    if value is not None:
                        raise InputError(f"{option} is for caches at s3://…, and {found}")
            return function(*args, **{**kwargs, **locations})

        return _OPTIONS(wrapped)

    return decorate
