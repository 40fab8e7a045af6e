"""Cache addresses on the command line, with the options for those in object stores."""

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
    click.option(
        "--endpoint",
        metavar="URL",
        help="An S3-compatible server.  [default: AWS_ENDPOINT_URL, or AWS]",
    ),
    click.option(
        "--copies",
        type=click.Path(file_okay=False, path_type=Path),
        help="Folder for local copies.  [default: ~/.cache/llm-modules/copies]",
    ),
    click.option(
        "--copies-gb",
        type=click.FloatRange(min=0),
        help="Limit on the size of all local copies, in GB.  [default: 20]",
    ),
)


def location_options(
    *parameters: str, otherwise: Callable[[dict[str, Any]], StorageLocation | None] | None = None
) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Turn parameters that are cache addresses into locations, and add the options for them.

    Args:
        parameters: names of the parameters.
        otherwise: returns the location if no address was given, from all parameters of the
            command; the first parameter is set to it.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def wrapped(
            *args: Any,
            endpoint: str | None,
            copies: Path | None,
            copies_gb: float | None,
            **kwargs: Any,
        ) -> Any:
            limit = None if copies_gb is None else int(copies_gb * 1e9)
            addresses = {name: kwargs[name] for name in parameters if kwargs[name] is not None}
            locations = {
                name: storage_location(address, endpoint, copies, limit)
                for name, address in addresses.items()
            }
            default = otherwise(kwargs) if otherwise is not None and not addresses else None
            if default is not None:
                addresses = {parameters[0]: default.address}
                locations[parameters[0]] = storage_location(
                    default.recorded_address, endpoint or default.endpoint, copies, limit
                )
            if not any(location.is_remote for location in locations.values()):
                options = {"--endpoint": endpoint, "--copies": copies, "--copies-gb": copies_gb}
                _refuse(options, next(iter(addresses.values()), None))
            return function(*args, **{**kwargs, **locations})

        return _OPTIONS(wrapped)

    return decorate


def _refuse(options: dict[str, Any], address: Any) -> None:
    """Refuse options of object stores that were given for a folder or for no cache."""
    cache = "none is named" if address is None else f"{address} is a folder"
    for option, value in options.items():
        if value is not None:
            raise InputError(f"{option} is for caches at s3://…, and {cache}")
