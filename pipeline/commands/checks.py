"""Paths and values that a command looks at before it imports what takes seconds to load."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from cache.manifest import read_manifest
from cache.names import JOURNAL_NAME
from cache.storage import StorageLocation
from pipeline.errors import InputError
from pipeline.shapes import SIZES

if TYPE_CHECKING:
    from cache.manifest import Manifest

TextT = TypeVar("TextT", str, str | None)


def require_cache(location: StorageLocation | None) -> Manifest | None:
    """The manifest of a cache that is to be read; None of one in an object store, which is not
    reached for this.

    Raises:
        CacheError: there is no cache in the folder.
    """
    return None if location is None or location.is_remote else read_manifest(location.folder)


def require_repairable(location: StorageLocation) -> None:
    """Look for a cache that may be damaged: its manifest, or the journal, which has a copy of it.

    Raises:
        CacheError: there is neither in the folder.
    """
    if not (location.is_remote or (location.folder / JOURNAL_NAME).is_file()):
        read_manifest(location.folder)


def require_teacher(name: str | None, layers: Sequence[int] = ()) -> None:
    """Look for a teacher that is no hub id, and where its configuration says so plainly, for its
    layers.

    Raises:
        InputError: it is not there, or has no such layer.
    """
    from pipeline.teacher.layers import (
        layer_indices,
    )  # here, for a training run is to import nothing of teachers
    from pipeline.teacher.source import find_teacher

    if name is None:
        return
    source = find_teacher(name)
    source.require_exists()
    if layers and (last := source.declared_layers()) is not None:
        layer_indices(layers, last)


def require_data_set(source: str | None) -> None:
    """Look for a data set that is in a file.

    Raises:
        InputError: it is not there.
    """
    from pipeline.data.sources import require_exists

    if source is not None:
        require_exists(source)


def require_student(name: str) -> None:
    """Refuse what can be neither a size, nor a folder, nor a hub id.

    Raises:
        InputError: it can be none of them.
    """
    if name in SIZES or Path(name).is_dir():
        return
    if name.startswith((".", "/")) or name.count("/") != 1:
        raise InputError(
            f"student {name}: neither a size ({', '.join(SIZES)}), nor a folder with a GPT-Neo, nor"
            " a hub id"
        )


def utf8_text(text: TextT, option: str) -> TextT:
    """Text for a tokenizer: bytes of the command line that this locale does not read are read as
    UTF-8.

    Raises:
        InputError: they are not.
    """
    try:
        return text if text is None else text.encode("utf-8", "surrogateescape").decode("utf-8")
    except UnicodeError as error:
        raise InputError(
            f"{option}: holds bytes that are not UTF-8 ({error}); write it in UTF-8"
        ) from error
