"""Checks of paths and values that come before slow imports."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, TypeVar

from cache.manifest import read_manifest
from cache.names import JOURNAL_NAME
from cache.storage import StorageLocation
from pipeline.errors import InputError
from pipeline.pretrained.source import find_model
from pipeline.shapes import SIZES

if TYPE_CHECKING:
    from cache.manifest import Manifest

TextT = TypeVar("TextT", str, str | None)


def require_cache(location: StorageLocation | None) -> Manifest | None:
    """Return the manifest of a cache in a folder; None for one in an object store.

    Raises:
        CacheError: there is no cache in the folder.
    """
    return None if location is None or location.is_remote else read_manifest(location.folder)


def require_repairable(location: StorageLocation) -> None:
    """Raise CacheError if a folder has neither manifest nor journal, which has a copy of it."""
    if not (location.is_remote or (location.folder / JOURNAL_NAME).is_file()):
        read_manifest(location.folder)


def require_teacher(name: str | None, layers: Sequence[int] = ()) -> None:
    """Raise InputError if a local teacher does not exist, or lacks one of the layers."""
    # Imported here, as training must not import the teacher.
    from pipeline.teacher.layers import layer_indices
    from pipeline.teacher.source import find_teacher

    if name is None:
        return
    source = find_teacher(name)
    source.require_exists()
    if layers and (last := source.declared_layers()) is not None:
        layer_indices(layers, last)


def require_data_set(source: str | None) -> None:
    """Raise InputError if a data set in a file does not exist."""
    from pipeline.data.sources import require_exists

    if source is not None:
        require_exists(source)


def require_student(name: str) -> None:
    """Raise InputError for a name that is no size, and a local student that does not exist."""
    if name not in SIZES:
        find_model("student", name, tuple(SIZES)).require_exists()


def utf8_text(text: TextT, option: str) -> TextT:
    """Return a text of the command line, with bytes that the locale cannot decode as UTF-8.

    Raises:
        InputError: they are not UTF-8.
    """
    try:
        return text if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise InputError(
            f"{option}: has bytes that are not UTF-8 ({error}); write it in UTF-8"
        ) from error
