"""What the user asks of an extract."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from cache.storage import LocationLike, StorageLocation, storage_location
from pipeline.conditions.cached import CACHED_PARTS, CachedPart
from pipeline.errors import InputError

if TYPE_CHECKING:
    from pipeline.data.forms import FormName
    from pipeline.data.templates import TemplateName
    from pipeline.data.tokens import LossOn
    from pipeline.teacher.source import TeacherKind


@dataclass(frozen=True, kw_only=True)
class ExtractSettings:
    """One extract, as asked for on the command line; each field is the option of that name.

    Attributes:
        teacher_kind: an encoder's states of a token know the whole text, so nothing is shared.
        codec: how each layer's states are stored, as on the command line: a name for all layers, or
            `LAYER:NAME`.
        fidelity, bits: what is asked of the codecs that lose something, in the same way.
        calibration_tokens: tokens of the sample that such codecs are fitted to; `calibration_seed`
            chooses it.
        condition: whether whole examples are read and cached, or of each only what stands before
            its last answer.
        sharing: compute and store leading tokens that examples share once.
        keep_head: keep the teacher's LM head beside the states: its rows of the tokens that occur.
        max_tokens: examples of more tokens are left out.
        group_by: column of the data set that names each row's group; a group is never split between
            training and validation.
        skip_non_finite: leave out, and count, examples whose states are not finite, instead of
            stopping.
        shard_tokens: target size of a shard, in tokens.
        batch_tokens: most tokens of a padded batch; None: as many as suit the device, fewer where
            its memory is too small.
        dtype: compute type of the teacher; `auto` lets the device decide.
        options: the command's, recorded as what repeats it.
    """

    teacher: str
    dataset: str
    cache: LocationLike
    teacher_kind: TeacherKind = "decoder"
    format: str = "zarr"
    codec: tuple[str, ...] = ("bf16",)
    fidelity: tuple[str, ...] = ()
    bits: tuple[str, ...] = ()
    calibration_tokens: int = 32768
    calibration_seed: int = 0
    condition: str = "sequence"
    sharing: bool = True
    keep_head: bool = False
    layers: tuple[int, ...] = (-1,)
    dataset_config: str | None = None
    split: str = "train"
    form: FormName | None = None
    template: TemplateName = "paper"
    loss_on: LossOn = "assistant"
    max_tokens: int = 4096
    limit: int | None = None
    group_by: str | None = None
    skip_bad_rows: bool = False
    skip_non_finite: bool = False
    shard_tokens: int = 65536
    batch_tokens: int | None = None
    device: str = "auto"
    dtype: Literal["auto", "fp32", "bf16"] = "auto"
    options: str = ""

    @property
    def location(self) -> StorageLocation:
        """Where the cache is to be."""
        return storage_location(self.cache)

    @property
    def cached_part(self) -> CachedPart:
        """What of each example the cache is to hold."""
        return CACHED_PARTS[self.condition]

    @property
    def shares(self) -> bool:
        """Whether states of leading tokens are shared: an encoder's depend on what comes after
        them."""
        return self.sharing and self.teacher_kind == "decoder"

    def require_sense(self) -> None:
        """Refuse options that contradict each other.

        Raises:
            InputError: says which one to leave out.
        """
        if self.keep_head and self.teacher_kind == "encoder":
            raise InputError("--keep-head: an encoder has no LM head; leave it out")
        if not self.cached_part.is_whole and self.keep_head:
            raise InputError(
                "--keep-head: with --condition prompt the student has an LM head of its own; leave"
                " it out"
            )
        if not self.cached_part.is_whole and self.loss_on == "all":
            raise InputError(
                "--loss-on all: with --condition prompt the student learns the answers alone; leave"
                " it out"
            )
