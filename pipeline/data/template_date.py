"""A fixed date for chat templates that write today's, so that tokens are the same every day."""

from __future__ import annotations

import datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

TEMPLATE_DATE = datetime.datetime(2024, 7, 26)
"""Replaces today's date: the default of Llama 3's template."""
_FUNCTION = "strftime_now"
_DIRECTIVES = [
    flag + letter for flag in ("-", "") for letter in "aAbBcdDeFgGHIjkLmMnpPrRsStTuUVwWxXyYzZ"
]


def fix_template_date(template: str) -> str:
    """Return a chat template whose `strftime_now` formats `TEMPLATE_DATE`.

    Transformers accepts no functions for a template, so a macro shadows its own.
    """
    if _FUNCTION not in template:
        return template
    filters = "".join(
        f"|replace({'%' + directive!r}, {TEMPLATE_DATE.strftime('%' + directive)!r})"
        for directive in _DIRECTIVES
    )
    macro = f"{{% macro {_FUNCTION}(format) %}}{{{{ format{filters} }}}}{{% endmacro %}}"
    keep_newline = "{{ '' }}"  # Jinja drops a newline after a block
    return macro + keep_newline + template


def template_date_of(template_name: str, tokenizer: PreTrainedTokenizerBase) -> str | None:
    """Return the date that the chat template writes, or None if it writes none."""
    writes = template_name == "chat" and _FUNCTION in str(tokenizer.chat_template)
    return TEMPLATE_DATE.date().isoformat() if writes else None
