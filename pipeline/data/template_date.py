"""Chat templates that write today's date, which would make other tokens of the same rows each
day."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = datetime.datetime(2024, 7, 26)
"""What such a template writes in place of today's date: the default of Llama 3's own."""
_FUNCTION = "strftime_now"
_DIRECTIVES = [
    flag + letter for flag in ("-", "") for letter in "aAbBcdDeFgGHIjkLmMnpPrRsStTuUVwWxXyYzZ"
]


def fix_template_date(template: str) -> str:
    """A chat template whose `strftime_now` gives `TEMPLATE_DATE`.

    Transformers passes no functions to a template, so a macro of this name takes the place of its
    own."""
    if _FUNCTION not in template:
        return template
    filters = "".join(
        f"|replace({'%' + each!r}, {TEMPLATE_DATE.strftime('%' + each)!r})" for each in _DIRECTIVES
    )
    return (
        f"{{% macro {_FUNCTION}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}{{{{ ''"
        f" }}}}{template}"
    )


def template_date_of(template_name: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """The date that the chat template writes, to be recorded with a cache; None where it writes
    none."""
    writes = template_name == "chat" and _FUNCTION in str(tokenizer.chat_template)
    return TEMPLATE_DATE.date().isoformat() if writes else None
