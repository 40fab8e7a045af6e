"""A worker process that compares formulas with math-verify: JSON lines on stdin and stdout.

This file is run by its path and imports nothing of this project. The parent kills the process if it
takes too long, so math-verify's timeouts, which need signals and the main thread, are off.
"""

from __future__ import annotations

import json
import logging
import resource
import sys

MEMORY = 4 << 30


def main() -> None:
    """Answer each line `[one, other]` with `true` or `false`."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    logging.disable(logging.CRITICAL)
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse, verify

    looks = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none"
    )
    config = [LatexExtractionConfig(normalization_config=looks)]

    def read(text: str) -> list[object]:
        return list(parse(f"${text}$", config, fallback_mode="no_fallback", parsing_timeout=None))

    print("ready", flush=True)
    for line in sys.stdin:
        one, other = json.loads(line)
        try:
            answer, reference = read(one), read(other)
            same = bool(answer and reference) and verify(
                reference, answer, allow_set_relation_comp=True, timeout_seconds=None
            )
        except Exception:  # a parser may fail in any way on a model's output
            same = False
        print(json.dumps(bool(same)), flush=True)


if __name__ == "__main__":
    main()
