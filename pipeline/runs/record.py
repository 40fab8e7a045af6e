"""run.json: the record that a run keeps of itself."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING, Any

from cache.identity import differences
from cache.storage import StorageLocation, storage_location
from pipeline.errors import InputError
from pipeline.json_dataclasses import UnknownContentError, from_json, key, to_json
from pipeline.option import with_current_names
from pipeline.runs.comparisons import FOLDER, OLD_FOLDER, current_name
from pipeline.runs.settings import TrainSettings

if TYPE_CHECKING:
    from cache import Cache

VERSION = 2
"""Version of the format; records of version 1 (release 0.1) do not state it."""
_HEADER = {"kind", "version", "finished"}


class NewerRecordError(ValueError):
    """A record of a newer version of this program."""


@dataclass(frozen=True)
class RunIdentity:
    """Everything besides the settings that a run's numbers depend on.

    Attributes:
        cache: identity of the cache.
        content_digest: content digest of the cache.
        student_tokenizer: hash of the student's tokenizer.
    """

    cache: dict[str, Any]
    content_digest: str
    student_tokenizer: str


@dataclass(frozen=True)
class RunResult:
    """The outcome of a finished run.

    Attributes:
        tokens: tokens trained on, over all epochs.
        best_val_loss: nats per token, at `best_step`, whose weights are the run's model.
        layer_weights: of mixed layers, the learned weights by layer; their sum is 1.
        peak_memory: bytes, of the host and of the GPU.
        weights_in_memory: bytes of parameters and buffers, by owner.
        loaded: modules of this program and model families imported at the end of training.
    """

    steps: int
    epochs: float
    tokens: int
    best_step: int
    best_val_loss: float
    seconds: float
    parameters: int
    layer_weights: dict[str, float] = field(default_factory=dict)
    peak_memory: dict[str, int] = field(default_factory=dict)
    weights_in_memory: dict[str, int] = field(default_factory=dict)
    loaded: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class RunRecord:
    """A run as run.json records it.

    Attributes:
        settings: as recorded: cache and run folder are named by absolute addresses.
        endpoint: URL of the object store's server, if the cache is in an object store.
        provenance: of the cache: names of teacher and data set, system prompt.
        leaks: whether predictions see the answer, so that losses are not comparable.
        comparisons: names of the comparison runs that belong to this one, sorted.
        kept_together: a sentence about groups that the split keeps together; empty without any.
        environment: versions and machine, never compared.
        left_out: number of examples left out, by reason.
        outcome: None before the run is finished.
    """

    settings: TrainSettings
    endpoint: str | None
    identity: RunIdentity
    provenance: dict[str, Any]
    leaks: bool
    comparisons: tuple[str, ...] = ()
    kept_together: str = ""
    environment: dict[str, Any] = field(default_factory=dict)
    left_out: dict[str, int] = field(default_factory=dict)
    outcome: RunResult | None = field(default=None, metadata=key("result"))

    @property
    def finished(self) -> bool:
        """Whether the run has a model."""
        return self.outcome is not None

    @property
    def result(self) -> RunResult:
        """The outcome of a finished run.

        Raises:
            ValueError: the run is not finished.
        """
        if self.outcome is None:
            raise ValueError("the run is not finished")
        return self.outcome

    @property
    def cache_location(self) -> StorageLocation:
        """Where the cache was during training."""
        return storage_location(self.settings.cache, self.endpoint)

    def with_comparisons(self, names: Iterable[str]) -> RunRecord:
        """Return the record with more comparison runs."""
        return replace(self, comparisons=tuple(sorted({*self.comparisons, *names})))

    def require_same_cache(self, cache: Cache) -> None:
        """Refuse a cache other than the one that the run was trained from.

        Raises:
            InputError: lists the fields that differ, with both values.
        """
        recorded = self.identity.cache | {"content_digest": self.identity.content_digest}
        actual = {**cache.identity, "content_digest": cache.content_digest}
        if differing := differences(recorded, actual):
            raise InputError(
                f"{cache.address}: not the cache that the run was trained from:"
                f" {'; '.join(differing)}"
            )

    def to_json(self) -> dict[str, Any]:
        """Return the content of run.json."""
        result = {} if self.outcome is None else {"result": asdict(self.outcome)}
        return {
            "kind": "llm-modules run",
            "version": VERSION,
            "finished": self.finished,
            "leaks": self.leaks,
            FOLDER: list(self.comparisons),
            "settings": to_json(self.settings) | {"endpoint": self.endpoint},
            "identity": asdict(self.identity),
            "kept_together": self.kept_together,
            "provenance": self.provenance,
            "environment": self.environment,
            "left_out": self.left_out,
            **result,
        }

    @classmethod
    def from_json(cls, content: Any) -> RunRecord:
        """Read the content of run.json, of this version or an earlier one.

        Settings that the earlier version did not have get their defaults.

        Raises:
            NewerRecordError: the version or a field is unknown; says which.
            ValueError: the content is not a run's record.
        """
        if not isinstance(content, dict) or not isinstance(content.get("settings"), dict):
            raise ValueError("not a run's record")
        if content.get("version", 1) > VERSION:
            raise NewerRecordError(
                f"has version {content['version']}, and this program reads up to {VERSION}"
            )
        values = {name: item for name, item in content.items() if name not in _HEADER}
        if OLD_FOLDER in values:
            values[FOLDER] = values.pop(OLD_FOLDER)
        if isinstance(names := values.get(FOLDER), list):
            values[FOLDER] = [current_name(name) for name in names]
        settings = with_current_names(values["settings"])
        values |= {"endpoint": settings.pop("endpoint", None), "settings": settings}
        if not content.get("finished", False):
            values.pop("result", None)
        elif values.get("result") is None:
            raise ValueError("without result")
        try:
            return from_json(cls, values, ignore_unknown=False)
        except UnknownContentError as error:
            raise NewerRecordError(str(error)) from error
