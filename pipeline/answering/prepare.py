"""Plan a file of answers; refuse invalid input before the teacher is loaded."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from cache.identity import Identity
from pipeline.answering.prompts import Prompt, PromptReader, Prompts
from pipeline.answering.settings import AnswerSettings
from pipeline.data.sources import ConversationSet
from pipeline.data.templates import TemplateName, end_token_id
from pipeline.data.tokenizer import tokenizer_hash
from pipeline.device import DtypeName, choose_device, choose_dtype
from pipeline.errors import InputError
from pipeline.generation.causal_lm import own_template
from pipeline.scoring.choose import ChosenScore, choose_score
from pipeline.teacher.shape import context_length, decoder_config
from pipeline.teacher.source import TeacherSource, config_hash, find_teacher

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@dataclass(frozen=True, kw_only=True)
class AnswerPlan:
    """Everything that determines a file of answers.

    Attributes:
        settings: of the command.
        source: the teacher's.
        tokenizer: the teacher's.
        template: in which it answers.
        device: that computes.
        dtype: compute type.
        prompts: to answer, in the data set's order.
        left_out: number of rows without an answer in the file, by reason.
        first_left_out: the first row of a reason and its problem.
        unread: number of rows with content, by column or message field that is not read.
        unscorable: number of rows whose own answer the score cannot be compared with.
        chosen: the score; None with `--keep all`.
        identity: what the file depends on, by names for the user.
    """

    settings: AnswerSettings
    source: TeacherSource
    tokenizer: PreTrainedTokenizerBase
    template: TemplateName
    device: torch.device
    dtype: DtypeName
    prompts: list[Prompt]
    left_out: Mapping[str, int]
    first_left_out: Mapping[str, str]
    unread: Mapping[str, int]
    unscorable: int
    chosen: ChosenScore | None
    identity: Identity

    @property
    def answers(self) -> int:
        """Return the number of answers to write."""
        return len(self.prompts) * self.settings.samples

    def prompt_of(self, number: int) -> Prompt:
        """Return the prompt of an answer; answers are numbered prompt by prompt."""
        return self.prompts[number // self.settings.samples]

    @property
    def order(self) -> list[int]:
        """Return the numbers of the answers, longest prompts first, in which they are written."""
        return sorted(range(self.answers), key=lambda n: (-len(self.prompt_of(n).ids), n))

    def seed_of(self, number: int) -> int:
        """Return the seed of a batch that begins with an answer."""
        prompt, sample = self.prompt_of(number), number % self.settings.samples
        text = f"{self.settings.seed} {prompt.row_id} {sample}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:4])


def prepare(settings: AnswerSettings) -> AnswerPlan:
    """Return the plan, from the data set and the teacher's configuration.

    Raises:
        InputError: the teacher or the data set does not exist, options contradict each other, no
            prompt is left, or the score cannot be used.
    """
    settings.require_sense()
    source = find_teacher(settings.teacher).pinned()
    config = source.load_config()
    rows = settings.load(settings.dataset)
    if rows.form in ("tokens", "text"):
        raise InputError(
            f"{settings.dataset}: its rows are {rows.form}, and a prompt takes turns; choose"
            " another data set, or name the --form"
        )
    chosen = _chosen_score(settings, rows)
    tokenizer = source.load_tokenizer()
    template = settings.template or own_template(tokenizer)
    end_token_id(template, tokenizer)  # raises if answers could not end
    found = PromptReader(
        tokenizer,
        template,
        system=settings.system,
        longest=_longest_prompt(settings, context_length(config)),
        vocab_size=int(decoder_config(config).vocab_size),
        skip_bad_rows=settings.skip_bad_rows,
    ).read(rows.conversations)
    if rows.malformed:
        found.left_out["malformed"] += rows.malformed
        found.first["malformed"] = rows.first_malformed
    prompts = _scorable(found, chosen, settings.dataset)
    device = choose_device(settings.device)
    dtype = choose_dtype(settings.precision, device)
    return AnswerPlan(
        settings=settings,
        source=source,
        tokenizer=tokenizer,
        template=template,
        device=device,
        dtype=dtype,
        prompts=prompts,
        left_out=dict(found.left_out),
        first_left_out=found.first,
        unread=rows.unread,
        unscorable=len(found.prompts) - len(prompts),
        chosen=chosen,
        identity=_identity(settings, source, config_hash(config), tokenizer, rows)
        | {"compute_dtype": dtype, "--template": template},
    )


def _longest_prompt(settings: AnswerSettings, context: int | None) -> int | None:
    if context is None:
        return None
    if settings.max_new_tokens >= context:
        raise InputError(
            f"--max-new-tokens {settings.max_new_tokens}: this teacher reads {context} tokens;"
            " choose a smaller number"
        )
    return context - settings.max_new_tokens


def _chosen_score(settings: AnswerSettings, rows: ConversationSet) -> ChosenScore | None:
    """Return the score of `--keep right`; try a user's function on the references themselves.

    Raises:
        InputError: it is graded, or fails.
    """
    if settings.keep == "all":
        return None
    references = [row.reference for row in rows.conversations]
    chosen = choose_score(settings.score, references)
    if ":" in settings.score:
        for reference in filter(chosen.score.can_score, references):
            chosen.score.score(reference, reference)
    elif chosen.score.graded:
        raise InputError(
            f"--keep right: the score {chosen.score.name} ({chosen.reason}) is graded, so no answer"
            " is simply right or wrong; choose another --score, such as exact, or --keep all"
        )
    return chosen


def _scorable(found: Prompts, chosen: ChosenScore | None, dataset: str) -> list[Prompt]:
    """Return the prompts whose references can be scored; raise if there are none."""
    if not found.prompts:
        reasons = ", ".join(f"{count} {reason}" for reason, count in found.left_out.items())
        raise InputError(f"{dataset}: no prompt is left ({reasons}); choose another data set")
    if chosen is None:
        return found.prompts
    prompts = [prompt for prompt in found.prompts if chosen.score.can_score(prompt.reference)]
    if not prompts:
        raise InputError(
            f"--keep right: no row of {dataset} has an answer that the score {chosen.score.name}"
            " can be compared with; choose another --score, or --keep all"
        )
    return prompts


def _identity(
    settings: AnswerSettings,
    source: TeacherSource,
    teacher_config: str,
    tokenizer: PreTrainedTokenizerBase,
    rows: ConversationSet,
) -> dict[str, Any]:
    return {
        "teacher_weights": source.weights_hash(),
        "teacher_config": teacher_config,
        "tokenizer": tokenizer_hash(tokenizer),
        "dataset": rows.fingerprint,
        **settings.compared,
    }
