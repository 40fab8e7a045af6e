"""The option that names a score."""

from __future__ import annotations

from typing import Annotated

from pipeline.option import Option
from pipeline.scoring.choose import SCORE_NAMES

ScoreName = Annotated[
    str,
    Option(
        f"How answers are compared with references: {', '.join(SCORE_NAMES)} (auto chooses one"
        " of these), or your own module:function, which returns 0 to 1 for an answer and its"
        " reference.",
        metavar="NAME",
    ),
]
