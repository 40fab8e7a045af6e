"""The commands `generate` and `chat`, with prompts of any length."""

from __future__ import annotations

import json
import re
from pathlib import Path

from tests.conftest import RunCli


def test_generate_prints_the_same_text_as_json_and_as_a_stream(
    trained_run: Path, run_cli: RunCli
) -> None:
    generate = ("generate", "--run", trained_run, "--max-new-tokens", 12)
    done = run_cli(*generate, "--prompt", "Ann has 3 pens.", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["tokens"] <= 12
    streamed = run_cli(*generate, "--prompt", "Ann has 3 pens.")
    assert result["text"].strip() in streamed.stdout


def test_new_starts_another_chat(trained_run: Path, run_cli: RunCli) -> None:
    def answers(text_input: str) -> dict[str, str]:
        done = run_cli(
            *("chat", "--run", trained_run, "--max-new-tokens", 5, "--json"),
            text_input=text_input,
        )
        assert done.returncode == 0, done.stderr
        return {one["message"]: one["answer"] for one in json.loads(done.stdout)["answers"]}

    both = answers("Hello\n/new\nAnn has 3 pens.\n\n")
    assert list(both) == ["Hello", "Ann has 3 pens."]
    assert both["Ann has 3 pens."] == answers("Ann has 3 pens.\n\n")["Ann has 3 pens."]


def test_a_message_that_is_too_long_does_not_end_the_chat(
    trained_run: Path, run_cli: RunCli
) -> None:
    chat = ("chat", "--run", trained_run, "--max-new-tokens", 5, "--json")
    done = run_cli(*chat, text_input="word " * 3000 + "\nAnn has 3 pens.\n\n")
    assert done.returncode == 0, done.stderr
    assert re.search(
        r"not answered: the prompt has \d+ tokens, its teacher reads 1024", done.stderr
    )
    result = json.loads(done.stdout)
    assert [answer["message"] for answer in result["answers"]] == ["Ann has 3 pens."]
    assert result["unanswered"] == 1
    alone = run_cli(*chat, text_input="word " * 3000 + "\n\n")
    assert (alone.returncode, alone.stdout) == (2, "")


def test_a_chat_that_is_too_long_drops_earlier_messages(trained_run: Path, run_cli: RunCli) -> None:
    short, long = "Ann has 3 pens. " * 20, "Ann has 3 pens. Ann buys 5 pens. " * 40
    done = run_cli(
        *("chat", "--run", trained_run, "--max-new-tokens", 5, "--json"),
        text_input=f"{short}\n{long}\n{long}\n\n",
    )
    assert done.returncode == 0, done.stderr
    assert "messages before this one are dropped" in done.stderr
    assert len(json.loads(done.stdout)["answers"]) == 3
