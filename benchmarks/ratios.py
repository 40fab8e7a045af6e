"""The ratios to peers and limits that `all.py` tabulates, one function per benchmark."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Ratio:
    """A figure relative to a peer or limit; `better` is `more` or `less`."""

    figure: str
    relative_to: str
    value: float
    better: str

    def to_json(self) -> dict[str, Any]:
        """Return its entry in `all.json`."""
        return {
            "what": self.figure,
            "beside": self.relative_to,
            "ratio": self.value,
            "better": self.better,
        }


def row(figures: list[dict[str, Any]], key: str, value: str) -> dict[str, Any]:
    """Return the figures whose `key` is `value`."""
    return next(figure for figure in figures if figure[key] == value)


def of_reading(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Return reading speeds relative to a memory map."""
    limit = figures[0]["reader"]
    return [
        Ratio(
            f"read shuffled examples: {figure['reader']}", limit, figure["ratio_to_limit"], "more"
        )
        for figure in figures[1:]
    ]


def of_opening(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Return opening time relative to parsing the journal."""
    cache, alone = (row(figures, "what", what)["seconds"] for what in ("open_cache", "json alone"))
    return [
        Ratio(
            "open a cache of many examples: seconds",
            "parsing its journal with json",
            cache / alone,
            "less",
        )
    ]


def of_codecs(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Return bit rates relative to bf16, and decoding speeds relative to a copy."""
    named = [figure for figure in figures[1:] if figure["codec"].startswith(("int8", "klt"))]
    bits = [
        Ratio(f"{figure['codec']}: bits per value", "bf16", figure["bits a value"] / 16, "less")
        for figure in named
    ]
    speeds = [
        Ratio(
            f"{figure['codec']}: decode",
            "a copy in memory",
            figure["decode, share of limit"],
            "more",
        )
        for figure in named
    ]
    return bits + speeds


def of_extraction(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Return extraction speeds relative to the published way and the packed pass."""
    own = row(figures, "way", "extract")
    return [
        Ratio("extract: tokens/s", "the published way", own["of_published"], "more"),
        Ratio("extract: tokens/s", "the packed forward pass alone", own["of_packed"], "more"),
    ]


def of_overlap(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Return extraction times with overlap relative to those without."""
    return [
        Ratio(
            f"extract, {figure['format']}: seconds",
            "writing after computing",
            figure["of one after the other"],
            "less",
        )
        for figure in figures
        if figure["writes"] == "overlap"
    ]


def of_stores(figures: dict[str, Any]) -> list[Ratio]:
    """Return speeds relative to s3fs."""
    return [
        Ratio(f"object store, {figure['what']}: speed", "s3fs", figure["s3fs over obstore"], "more")
        for figure in figures["clients"]
    ]


def of_training(figures: dict[str, Any]) -> list[Ratio]:
    """Return training speeds relative to memory, and jobs relative to the published way."""
    jobs, ram = list[Ratio](), list[Ratio]()
    for figure in figures["ways"]:
        if figure["job_times_faster"] and figure["way"] != "published":
            jobs.append(
                Ratio(
                    f"15 epochs, extract included: {figure['way']}",
                    "the published way",
                    figure["job_times_faster"],
                    "more",
                )
            )
        if figure["of_ram"] and figure["way"] not in ("published", "RAM"):
            ram.append(
                Ratio(f"train: {figure['way']}", "states in memory", figure["of_ram"], "more")
            )
    return jobs + ram


def of_generation(figures: dict[str, Any]) -> list[Ratio]:
    """Return generation times relative to the published way and to the models alone."""
    prompt = row(figures["ways"], "way", "prompt")
    return [
        Ratio(
            "generate, --condition sequence: speed",
            "the published way",
            figures["published_over_sequence"],
            "more",
        ),
        Ratio(
            "generate, --condition sequence: seconds",
            "teacher + student alone",
            figures["sequence_over_both_alone"],
            "less",
        ),
        Ratio(
            "generate, --condition prompt: seconds",
            "GPT-Neo alone",
            prompt["times_decoder_alone"],
            "less",
        ),
    ]


def of_start_up(figures: list[dict[str, Any]]) -> list[Ratio]:
    """Return the slowest start of each kind relative to its limit."""
    slowest = {
        kind: max(figure["seconds"] for figure in figures if figure["what"] == kind)
        for kind in ("help", "wrong input")
    }
    limits = {figure["what"]: figure["limit"] for figure in figures}
    return [
        Ratio(
            f"the slowest {kind}: seconds",
            f"the limit of {limits[kind]:g}",
            seconds / limits[kind],
            "less",
        )
        for kind, seconds in slowest.items()
    ]
