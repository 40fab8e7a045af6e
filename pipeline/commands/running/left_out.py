"""Rows that were left out, and fields that were not read, in words."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.commands.counted import counted


def lines_left_out(
    left_out: Mapping[str, int], first: Mapping[str, str], unread: Mapping[str, int]
) -> str:
    """Return lines, each with its end, about what a command does not use of a data set.

    Args:
        left_out: number of rows, by reason.
        first: the first row of a reason and its problem.
        unread: number of rows, by column or message field that is not read.
    """
    reasons = ", ".join(f"{count} {reason}" for reason, count in left_out.items()) or "none"
    lines = [f"left out: {reasons}", *(f"  the first: {fault}" for fault in first.values())]
    if unread:
        named = ", ".join(f"{field} ({counted(rows, 'row')})" for field, rows in unread.items())
        lines.append(f"not read: {named}")
    return "".join(f"{line}\n" for line in lines)
