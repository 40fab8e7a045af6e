"""Sources of pretrained models: a hub id, a local folder, or a GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import InputError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig


@dataclass(frozen=True)
class ModelSource:
    """The source of a pretrained model.

    Attributes:
        role: what the model is used as, for messages.
        name: as on the command line.
        location: first argument of transformers' `from_pretrained`: a hub id or a folder.
        options: further arguments; `gguf_file` for a GGUF file, `revision` for a hub id.
    """

    role: str
    name: str
    location: str
    options: dict[str, str]

    def require_exists(self) -> None:
        """Refuse a folder without a model early.

        Raises:
            InputError: it has no configuration.
        """
        folder = Path(self.location)
        if folder.is_dir() and not self.is_gguf and not (folder / "config.json").is_file():
            raise InputError(
                f"{self.label}: no config.json in this folder; name one that was written by"
                " `save_pretrained`"
            )

    def load_config(self) -> PreTrainedConfig:
        """Return the model's configuration.

        Raises:
            InputError: it cannot be loaded.
        """
        self.require_exists()
        from pipeline.pretrained.files import require_gguf  # takes seconds: not for a wrong path
        from pipeline.pretrained.load import load_config

        try:
            if self.is_gguf:
                require_gguf(Path(self.name))
            config = load_config(self.location, **self.options)
        except Exception as error:
            raise self.unusable("configuration", error) from error
        return config

    @property
    def label(self) -> str:
        """Role and name, which begin each message."""
        return f"{self.role} {self.name}"

    @property
    def is_gguf(self) -> bool:
        """Whether it is a GGUF file."""
        return "gguf_file" in self.options

    def unusable(self, part: str, error: Exception) -> InputError:
        """Return the error for a part that cannot be loaded."""
        from pipeline.pretrained.files import DAMAGED, is_gguf_reader_error
        from pipeline.pretrained.load import load_error_reason

        folder = Path(self.location)
        if self.is_gguf and is_gguf_reader_error(error):
            return InputError(f"{self.label}: it is {DAMAGED}")
        kind = "GGUF file" if self.is_gguf else "local folder" if folder.is_dir() else "hub id"
        return InputError(
            f"{self.label}: the {part} cannot be loaded from this {kind}"
            f" ({load_error_reason(error)})"
        )


def find_model(role: str, name: str, sizes: Sequence[str] = ()) -> ModelSource:
    """Return the source of a name, without loading it.

    Args:
        role: what the model is used as, for messages.
        name: hub id (`owner/name`, or `owner/name@revision`), folder, or path of a GGUF file.
        sizes: other names that the caller knows, for messages.

    Raises:
        InputError: it is neither a hub id nor the path of a model.
    """
    path = Path(name)
    if path.suffix == ".gguf":
        if not path.is_file():
            raise InputError(f"{role} {name}: no such file")
        return ModelSource(role, name, str(path.parent), {"gguf_file": path.name})
    if path.is_dir():
        return ModelSource(role, name, name, {})
    if path.exists() or path.is_absolute() or name.startswith(".") or name.count("/") != 1:
        size = f"a size ({', '.join(sizes)}), nor " if sizes else ""
        raise InputError(
            f"{role} {name}: neither {size}a folder with a model, nor a .gguf file, nor a hub id"
            " (owner/name)"
        )
    location, _, revision = name.partition("@")
    return ModelSource(role, name, location, {"revision": revision} if revision else {})
