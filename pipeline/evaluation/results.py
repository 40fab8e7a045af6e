"""`results.json`: the results of an evaluation."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pipeline.json_dataclasses import OPTIONAL, from_json, key, to_json

Interval = tuple[float, float]
KIND = "llm-modules evaluation"
RESULTS = "results.json"
"""Name of the file in the evaluation's folder."""


@dataclass(frozen=True)
class TransferScore:
    """The relative reduction of a comparison run's loss: `1 - student / other`, on the same rows.

    Nats are summed per row, so tokenizations may differ.

    Attributes:
        score: 0 if the student is no better, 1 if its loss is 0.
        interval: bootstrap confidence interval over rows; None for too few rows.
        rows: number of rows in both runs.
    """

    score: float
    interval: Interval | None
    rows: int


@dataclass(frozen=True)
class AnswerScore:
    """The mean score of a run's answers.

    Attributes:
        interval: 95 % confidence interval; None for too few rows.
        fields: share of correct fields, for scores of structured answers.
    """

    value: float
    interval: Interval | None
    fields: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True)
class Leak:
    """The loss of a student that sees the answer, as reported and under causal attention."""

    reported: float
    causal: float
    leaked: float


@dataclass(frozen=True)
class PeakMemory:
    """Peak memory of the training process."""

    host_bytes: int
    gpu_bytes: int | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class StudentResult:
    """The measurements of one run: the student, a comparison run, or the teacher.

    Attributes:
        kind: `student`, `control`, `layer` or `baseline`.
        about, reads: short descriptions of the run and of its inputs.
        leaks: whether predictions see the answer.
        layer_weights: of mixed layers, the learned weights by layer; their sum is 1.
        val_loss: nats per token on held-out rows.
        bits_per_byte: loss per byte of answer text; None if runs learn different text.
        ablations: held-out loss by ablation, nats per token.
        exact_match, exact_match_interval: the score, if answers are right or wrong.
        thought_solution_form, stopped: shares of answers with thought and solution sections, and
            ended by the student.
        repetition: mean share of repeated 4-grams.
        tasks: metrics of lm-evaluation-harness, by task.
        transfer: relative to this comparison run.
    """

    name: str
    kind: str
    about: str
    reads: str
    condition: str = ""
    layers: list[int] = field(default_factory=list)
    leaks: bool
    steps: int = 0
    tokens: int = 0
    parameters: int = 0
    seconds: float = 0.0
    peak_memory: PeakMemory | None = None
    val_loss: float
    perplexity: float
    val_tokens: int = 0
    val_loss_interval: Interval | None = None
    flops_per_token: float | None = field(default=None, metadata=OPTIONAL | key("flops_a_token"))
    training_flops: float = 0.0
    layer_weights: dict[str, float] | None = field(default=None, metadata=OPTIONAL)
    leak: Leak | None = field(default=None, metadata=OPTIONAL)
    ablations: dict[str, float] | None = field(default=None, metadata=OPTIONAL | key("features"))
    score: AnswerScore | None = field(default=None, metadata=OPTIONAL)
    exact_match: float | None = field(default=None, metadata=OPTIONAL)
    exact_match_interval: Interval | None = field(default=None, metadata=OPTIONAL)
    thought_solution_form: float | None = field(default=None, metadata=OPTIONAL)
    stopped: float | None = field(default=None, metadata=OPTIONAL)
    repetition: float | None = field(default=None, metadata=OPTIONAL)
    generated_tokens_per_second: float | None = field(default=None, metadata=OPTIONAL)
    tasks: dict[str, dict[str, float]] | None = field(default=None, metadata=OPTIONAL)
    bits_per_byte: float | None = field(default=None, metadata=OPTIONAL | key("bits_a_byte"))
    transfer: TransferScore | None = None


@dataclass(frozen=True)
class ScoreDescription:
    """The score that answers were compared by, and how many rows it could score.

    Attributes:
        why: why it was chosen.
        graded: whether answers are partly right, rather than right or wrong.
    """

    name: str
    why: str
    definition: str
    graded: bool
    scored: int
    not_scored: int


@dataclass(frozen=True)
class ExtractCost:
    """The cost of computing the hidden states; operations only if the teacher was loaded."""

    stored_tokens: int = 0
    flops_per_token: float | None = field(default=None, metadata=key("flops_a_token"))


@dataclass(frozen=True, kw_only=True)
class CodecMeasurement:
    """The rate and distortion of a codec on calibration tokens that it was not fitted to.

    Attributes:
        step: quantization step, of codecs that have one.
        bits_per_value, bound_bits: rate, and the Gaussian rate-distortion bound.
        kl, kl_error: KL divergence in nats per token, and its standard error.
        tokens, kl_tokens: number of tokens measured.
    """

    bits_per_value: float
    bound_bits: float
    relative_error: float
    kl: float | None = None
    step: float | None = field(default=None, metadata=OPTIONAL)
    tokens: float | None = field(default=None, metadata=OPTIONAL)
    kl_error: float | None = field(default=None, metadata=OPTIONAL)
    kl_tokens: float | None = field(default=None, metadata=OPTIONAL)


@dataclass(frozen=True, kw_only=True)
class CodecDistortion(CodecMeasurement):
    """The distortion of one layer's stored states.

    Attributes:
        requirement: rate or fidelity that the codec had to reach.
        tried: measurements of all steps that were tried when it was fitted.
    """

    layer: int
    codec: str
    requirement: str = field(default="", metadata=key("asked"))
    tried: list[CodecMeasurement] = field(default_factory=list)


@dataclass(frozen=True)
class Sample:
    """A prompt with the reference, the answers of all runs, and their scores."""

    row_id: str
    prompt: str
    reference: str
    answers: dict[str, str]
    scores: dict[str, float | None]


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The results of an evaluation.

    Attributes:
        verdict: whether knowledge was transferred, in a sentence.
        prompts: number of prompts answered.
        prompts_left_out: number of prompts not answered, by reason.
        not_measured: measurements that were not possible, with reasons.
        students: the student, its comparison runs and the teacher.
        trivial_ablations: which ablations are uninformative for this student.
        settings, identity: of the run.
        options: of the evaluation, where figures depend on them.
    """

    kind: str = KIND
    run: str
    verdict: str
    leaks: bool
    dataset: str
    validation_examples: int = 0
    prompts: int = 0
    prompts_left_out: dict[str, int] = field(default_factory=dict)
    not_measured: dict[str, str] = field(default_factory=dict)
    students: list[StudentResult]
    extract: ExtractCost = field(default_factory=ExtractCost)
    trivial_ablations: str = field(default="", metadata=key("trivial"))
    codecs: list[CodecDistortion] = field(default_factory=list)
    score: ScoreDescription | None = None
    samples: list[Sample] = field(default_factory=list)
    settings: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict, metadata=key("asked"))
    identity: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)

    @property
    def student(self) -> StudentResult:
        """The student's own results."""
        return self.students[0]

    def to_json(self) -> dict[str, Any]:
        """Return the content of `results.json`."""
        content: dict[str, Any] = to_json(self)
        return content

    @classmethod
    def from_json(cls, content: Any) -> EvaluationResults:
        """Return results from `results.json`, also of version 0.1.

        Raises:
            ValueError: the content is something else.
        """
        return from_json(cls, content)
