"""Translation of obstore's errors to those of this project."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Iterator

from obstore.exceptions import BaseError, PermissionDeniedError, UnauthenticatedError

from cache.errors import CacheError

_METADATA_SERVICE = "169.254.169.254"
"""Address that obstore queries for credentials if the environment has none."""
_CREDENTIALS = (
    "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (for a public bucket AWS_SKIP_SIGNATURE=true)"
)


@contextlib.contextmanager
def translated_errors(address: str) -> Iterator[None]:
    """Translate errors of obstore in the block to errors that name the address.

    Raises:
        CacheError: access is denied, there are no credentials, or there is no such bucket.
        FileNotFoundError: an object is missing.
        OSError: the server does not answer.
    """
    try:
        yield
    except (PermissionDeniedError, UnauthenticatedError) as error:
        raise CacheError(f"{address}: access is denied; {_CREDENTIALS}") from error
    except (BaseError, FileNotFoundError) as error:
        if is_missing_bucket(error):
            raise CacheError(
                f"{address}: there is no such bucket; create it, or choose another"
            ) from error
        if isinstance(error, FileNotFoundError):
            raise
        if _METADATA_SERVICE in str(error):
            raise CacheError(f"{address}: no credentials were found; {_CREDENTIALS}") from error
        raise OSError(
            errno.EIO, f"the object store does not answer ({first_paragraph(error)})", address
        ) from error


def is_missing_bucket(error: BaseException) -> bool:
    """Return whether the server reports that there is no such bucket."""
    return "NoSuchBucket" in str(error)


def first_paragraph(error: BaseException) -> str:
    """Return the first paragraph of an error message; obstore's are a page long."""
    return " ".join(str(error).split("\n\n")[0].split())[:300]
