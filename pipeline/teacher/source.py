"""Sources of teachers: a hub id, a local folder, or a GGUF file."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from cache.files import sha256_of
from cache.sealed_json import canonical_json
from pipeline.errors import InputError
from pipeline.pretrained.source import ModelSource, find_model

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedTokenizerBase

_UNSTABLE_CONFIG = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "architectures",
}

TeacherKind = Literal["decoder", "encoder"]
"""A decoder's states depend on earlier tokens only, an encoder's on the whole text."""
TEACHER_KINDS: tuple[TeacherKind, ...] = ("decoder", "encoder")


@dataclass(frozen=True)
class TeacherSource(ModelSource):
    """The source of a teacher.

    Attributes:
        kind: as on the command line.
        random_seed: if set, only shape and tokenizer are used, with random weights of this seed.
    """

    kind: TeacherKind = "decoder"
    random_seed: int | None = None

    def declared_layers(self) -> int | None:
        """Return the number of layers in a folder's config.json, None if it takes transformers."""
        try:
            config = json.loads((Path(self.location) / "config.json").read_text(encoding="utf-8"))
            nested = [
                name
                for name, value in config.items()
                if isinstance(value, dict) and name.endswith("config")
            ]
            layers = (
                None
                if nested or config.get("is_encoder_decoder")
                else config.get("num_hidden_layers")
            )
        except (OSError, ValueError, AttributeError):
            return None
        return layers if type(layers) is int and not self.is_gguf else None

    def load_tokenizer(self) -> PreTrainedTokenizerBase:
        """Return the teacher's tokenizer, as a cache or run will store it.

        Raises:
            InputError: it cannot be loaded.
        """
        from pipeline.data.tokenizer import load_saved_tokenizer

        try:
            return load_saved_tokenizer(self.location, **self.options)
        except Exception as error:
            raise self.unusable("tokenizer", error) from error

    def weights_hash(self) -> str:
        """Return what identifies the weights: their SHA-256, or the hub commit.

        Raises:
            InputError: the weights are missing or incomplete.
        """
        if self.random_seed is not None:
            return f"random:{self.random_seed}"
        if self.is_gguf:
            return f"sha256:{sha256_of(Path(self.name))}"
        if Path(self.location).is_dir():
            try:
                from pipeline.pretrained.files import require_weights

                require_weights(Path(self.location))
            except (ValueError, OSError) as error:
                raise InputError(f"teacher {self.name}: {error}") from error
            files = sorted(Path(self.location).glob("*.safetensors"))
            return (
                "sha256:"
                + hashlib.sha256(" ".join(sha256_of(file) for file in files).encode()).hexdigest()
            )
        return f"commit:{self.pinned().options['revision']}"

    def pinned(self) -> TeacherSource:
        """Return a hub id with its current commit; a local source is returned as it is.

        Raises:
            InputError: the hub does not know it.
        """
        if self.is_gguf or Path(self.location).is_dir():
            return self
        from transformers.utils.hub import cached_file, extract_commit_hash

        try:
            commit = extract_commit_hash(
                cached_file(self.location, "config.json", **self.options), None
            )
        except OSError as error:
            raise self.unusable("configuration", error) from error
        return replace(
            self, name=f"{self._prefix}{self.location}@{commit}", options={"revision": str(commit)}
        )

    @property
    def _prefix(self) -> str:
        return "" if self.random_seed is None else f"random:{self.random_seed}:"


def find_teacher(name: str, kind: TeacherKind = "decoder") -> TeacherSource:
    """Return the source of a name, without loading it.

    `random:SEED:NAME` is the teacher NAME with random weights.

    Raises:
        InputError: it is neither a hub id nor the path of a model.
    """
    if parts := re.fullmatch(r"random:(\d+):(.+)", name):
        return replace(find_teacher(parts[2], kind), name=name, random_seed=int(parts[1]))
    if name.startswith("random:"):
        raise InputError(
            f"teacher {name}: not a teacher with random weights; write random:SEED:TEACHER, such as"
            " random:0:Qwen/Qwen2-1.5B"
        )
    found = find_model("teacher", name)
    return TeacherSource(found.role, found.name, found.location, found.options, kind)


def config_hash(config: PreTrainedConfig) -> str:
    """Return the SHA-256 of the configuration's fields that affect hidden states."""
    fields = {key: value for key, value in config.to_dict().items() if key not in _UNSTABLE_CONFIG}
    return hashlib.sha256(canonical_json(_plain(fields))).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value if isinstance(value, (str, int, float, bool, type(None))) else str(value)
