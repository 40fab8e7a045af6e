"""The options that choose the rows of a data set."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from pipeline.data.forms import FormName
from pipeline.data.sources import ConversationSet, load_conversations
from pipeline.option import Option


@dataclass(frozen=True, kw_only=True)
class RowOptions:
    """Which rows of a data set are read, and how."""

    dataset_config: Annotated[
        str | None, Option("Configuration of a hub data set that has several, such as main.")
    ] = None
    split: Annotated[str, Option("Split of a hub data set.")] = "train"
    form: Annotated[
        FormName | None, Option("Form of the rows.", default="detected from the columns")
    ] = None
    limit: Annotated[int | None, Option("Read only the first N rows.", metavar="N", at_least=1)] = (
        None
    )
    skip_bad_rows: Annotated[
        bool, Option("Leave out, and count, rows that cannot be used, instead of stopping.")
    ] = False
    group_by: Annotated[
        str | None,
        Option(
            "Column with the group of each row. `train` never splits a group; copies of a row"
            " always stay together.",
            metavar="COLUMN",
        ),
    ] = None

    def load(self, dataset: str) -> ConversationSet:
        """Return the conversations of a data set.

        Raises:
            InputError: as `load_conversations`.
        """
        return load_conversations(
            dataset,
            config=self.dataset_config,
            split=self.split,
            form=self.form,
            limit=self.limit,
            skip_bad_rows=self.skip_bad_rows,
            group_by=self.group_by,
        )
