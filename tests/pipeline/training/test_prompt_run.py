"""`--condition prompt` from end to end: prompts cached, a student with tokens of its own, the
teacher needed once or never."""

from __future__ import annotations

import gc
import json
import re
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoTokenizer,
    BertConfig,
    BertModel,
    GPTNeoConfig,
    GPTNeoForCausalLM,
    PreTrainedTokenizerFast,
)

from cache import open_cache
from pipeline.batches.answers import CachedAnswers
from pipeline.batches.collate import collate
from pipeline.batches.decoder import StatesDecoder
from pipeline.data.conversations import Turn
from pipeline.data.sources import load_conversations
from pipeline.data.split import split_rows
from pipeline.data.tokens import tokenize_prompt
from pipeline.data.transcript import Transcript
from pipeline.device import choose_device
from pipeline.embedded import EMBEDDED_DATASET, EMBEDDED_TEACHER
from pipeline.errors import InputError
from pipeline.evaluation.run import evaluate
from pipeline.evaluation.settings import EvaluateSettings
from pipeline.extract.prepare import prepare
from pipeline.extract.run import extract
from pipeline.extract.settings import ExtractSettings
from pipeline.generation.settings import Sampling
from pipeline.generation.writer import StudentWriter
from pipeline.runs.comparisons import CONTROLS
from pipeline.runs.folder import RunFolder
from pipeline.runs.settings import TrainSettings
from pipeline.teacher.load import load_teacher
from pipeline.teacher.model import Teacher
from pipeline.teacher.source import find_teacher
from pipeline.training.run import train
from tests.cache.storage.server import new_address
from tests.cli_process import CliProcess, run_process
from tests.conftest import RunCli, write_rows

TURNS = [
    {"role": "system", "content": "Be brief."},
    {
        "role": "user",
        "content": "Ann has 2 pens. Ann buys 3 pens. How many pens does Ann have now?",
    },
    {"role": "assistant", "content": "She has 5 pens now."},
    {"role": "user", "content": "And if Ann sells 1?"},
    {"role": "assistant", "content": "Then 4."},
]


@pytest.fixture(scope="module")
def prompts(embedded_settings: Callable[..., ExtractSettings]) -> Path:
    """A finished cache of the prompts of 40 embedded problems."""
    settings = embedded_settings(condition="prompt")
    extract(prepare(settings))
    return Path(str(settings.cache))


@pytest.fixture(scope="module")
def gpt_neo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_gpt_neo(tmp_path_factory.mktemp("gpt-neo"), positions=1024)


def make_gpt_neo(folder: Path, positions: int) -> Path:
    """A pretrained GPT-Neo with a tokenizer of its own: a token a byte, and one for beginning and
    end."""
    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    rules = Tokenizer(
        models.BPE(vocab={letter: number for number, letter in enumerate(letters)}, merges=[])
    )
    rules.pre_tokenizer, rules.decoder = (
        pre_tokenizers.ByteLevel(add_prefix_space=False),
        decoders.ByteLevel(),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=rules, bos_token="<|endoftext|>", eos_token="<|endoftext|>"
    )
    tokenizer.save_pretrained(folder)
    torch.manual_seed(0)
    config = GPTNeoConfig(
        vocab_size=300, hidden_size=64, num_layers=2, num_heads=4, attention_types=[[["global", "local"], 1]],
        max_position_embeddings=positions, window_size=64, bos_token_id=256, eos_token_id=256,
    )  # fmt: skip
    GPTNeoForCausalLM(config).save_pretrained(folder)
    return folder


def quick(cache: Path, run: Path, **changes: Any) -> TrainSettings:
    settings = TrainSettings(
        cache=cache,
        run=run,
        condition="prompt",
        cross_every=1,
        epochs=2,
        batch_size=8,
        bridge_lr=2e-3,
        gpt_neo_lr=2e-3,
        log_every=2,
        device="cpu",
    )
    return replace(settings, **changes)


def test_of_each_example_only_what_is_asked_is_cached_and_its_states_are_the_whole_texts(
    prompts: Path, small_cache: Path
) -> None:
    asked, whole = open_cache(prompts), open_cache(small_cache)
    assert asked.identity["condition"] == "prompt"
    assert asked.row_ids == whole.row_ids
    assert asked.bytes < whole.bytes
    for index in range(len(asked)):
        said = Transcript.from_json(asked.text(index), "test")
        assert said == Transcript.from_json(whole.text(index), "test")
        example, other = asked[index], whole[index]
        length = len(example)
        assert length == said.answers[-1].start == int(other.loss_mask.argmax())
        assert not example.loss_mask.any()
        assert example.input_ids.tolist() == other.input_ids[:length].tolist()
        for layer in (-1, 0):
            states, others = (
                torch.from_numpy(e.hidden_states[layer].astype("float32")) for e in (example, other)
            )
            torch.testing.assert_close(states, others[:length], atol=2e-2, rtol=2e-2)


@pytest.mark.parametrize("condition", ["prompt", "sequence"])
def test_each_answer_of_a_conversation_has_the_states_of_all_before_it_and_of_nothing_after(
    condition: Any, embedded_settings: Callable[..., ExtractSettings], gpt_neo: Path, tmp_path: Path
) -> None:
    later = [
        *TURNS[:3],
        {"role": "user", "content": "And then?"},
        {"role": "assistant", "content": "Nothing."},
    ]
    rows = write_rows(tmp_path / "rows.jsonl", [{"messages": TURNS}, {"messages": later}])
    settings = embedded_settings(
        dataset=str(rows), condition=condition, layers=(-1,), limit=None, sharing=False
    )
    extract(prepare(settings))
    tokenizer = AutoTokenizer.from_pretrained(gpt_neo)
    with open_cache(settings.cache) as cache:
        answers = CachedAnswers(cache, [0, 1], [-1], tokenizer)
        assert answers.indices == [0, 0, 1, 1]
        teachers = AutoTokenizer.from_pretrained(cache.attachment("tokenizer"))
        for place, (row, upto) in enumerate([(TURNS, 2), (TURNS, 4), (later, 2), (later, 4)]):
            features = answers[place]
            written = tokenizer.decode(features["input_ids"][features["loss_mask"]])
            assert written == row[upto]["content"] + "<|endoftext|>"
            assert features["input_ids"][~features["loss_mask"]].tolist() == [
                tokenizer.bos_token_id
            ]
            turns = [Turn(each["role"], each["content"]) for each in row[:upto]]  # type: ignore[arg-type]
            before = tokenize_prompt(turns, "paper", teachers)
            assert len(features["hidden_states.0"]) == len(features["states_mask"]) == len(before)
            assert cache[answers.indices[place]].input_ids[: len(before)].tolist() == before
        torch.testing.assert_close(answers[0]["hidden_states.0"], answers[2]["hidden_states.0"])
        reading = CachedAnswers(cache, [0], [], tokenizer, with_prompts=True)
        assert tokenizer.decode(reading[1]["input_ids"]).endswith(
            "Assistant:\nThen 4.<|endoftext|>"
        )
        assert "She has 5 pens now.<|endoftext|>" in tokenizer.decode(
            reading[1]["input_ids"][~reading[1]["loss_mask"]]
        )
        short = CachedAnswers(cache, [0, 1], [-1], tokenizer, longest=11)
        assert (short.indices, short.left_out) == ([0, 1], 2)


def test_coded_states_are_cut_like_exact_ones(
    embedded_settings: Callable[..., ExtractSettings], gpt_neo: Path, tmp_path: Path
) -> None:
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"messages": TURNS}] + [{"messages": TURNS[:3]}] * 3
    )
    tokenizer = AutoTokenizer.from_pretrained(gpt_neo)
    for codec in ("int8", "klt"):
        lossy: dict[str, Any] = {"fidelity": ("rel=0.05",)} if codec == "klt" else {}
        settings = embedded_settings(
            dataset=str(rows),
            condition="prompt",
            codec=(codec,),
            layers=(-1, 0),
            limit=None,
            **lossy,
        )
        extract(prepare(settings))
        with open_cache(settings.cache) as cache:
            answers = CachedAnswers(cache, range(len(cache)), [-1, 0], tokenizer)
            batch = StatesDecoder([cache.codecs[-1], cache.codecs[0]])(
                collate(answers.__getitems__(range(len(answers))))
            )
            for place, index in enumerate(answers.indices):
                length = int(batch["states_mask"][place].sum())
                expected = [
                    torch.from_numpy(cache[index].hidden_states[each][:length].astype("float32"))
                    for each in (-1, 0)
                ]
                found = batch["hidden_states"][place, :length].float()
                torch.testing.assert_close(found, torch.cat(expected, dim=-1), atol=1e-2, rtol=1e-2)
                assert not batch["hidden_states"][place, length:].any()


def test_one_cache_trains_students_of_different_tokens_each_with_its_identity(
    prompts: Path, gpt_neo: Path, tmp_path: Path
) -> None:
    own = train(quick(prompts, tmp_path / "own", student=str(gpt_neo)))
    taken = train(quick(prompts, tmp_path / "taken", student="tiny", vocab="dataset"))
    tokenizers = {record.identity.student_tokenizer for record in (own, taken)}
    assert (
        len(tokenizers) == 2 and own.identity.cache["tokenizer"] == taken.identity.student_tokenizer
    )
    for name in ("own", "taken"):
        config = json.loads((tmp_path / name / "model" / "config.json").read_text())
        assert config["condition"] == "prompt"
        assert (tmp_path / name / "model" / "teacher_tokenizer" / "tokenizer.json").is_file()
    with pytest.raises(InputError, match="student_tokenizer was"):
        again = quick(
            prompts, tmp_path / "own", student=str(gpt_neo), student_tokenizer=str(EMBEDDED_TEACHER)
        )
        train(replace(again), resume=True)


def test_what_was_left_out_is_counted_and_nothing_left_is_said_so(
    prompts: Path, gpt_neo: Path, tmp_path: Path
) -> None:
    lengths = CachedAnswers(
        open_cache(prompts), range(40), [], AutoTokenizer.from_pretrained(gpt_neo)
    ).lengths
    most = sorted(lengths)[20] - 1  # without the begin token
    record = train(
        quick(prompts, tmp_path / "run", student=str(gpt_neo), max_answer_tokens=most, epochs=1)
    )
    assert record.left_out == {
        f"answers over {most} tokens": sum(length > most + 1 for length in lengths)
    }
    with pytest.raises(
        InputError, match=r"no answer is left, \d+ are over 2 tokens; raise --max-answer-tokens"
    ):
        train(quick(prompts, tmp_path / "none", student=str(gpt_neo), max_answer_tokens=2))


def test_a_control_that_does_not_fit_is_found_before_anything_is_trained(
    prompts: Path, tmp_path: Path
) -> None:
    narrow = make_gpt_neo(tmp_path / "gpt-neo", positions=450)
    with pytest.raises(
        InputError,
        match=r"has 450 positions, the longest example \d+ tokens; leave longer answers out",
    ):
        train(quick(prompts, tmp_path / "run", student=str(narrow)), comparisons=CONTROLS)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "changes, said",
    [
        (
            {"condition": "sequence"},
            "holds the states of prompts only; train with --condition prompt",
        ),
        ({"condition": "none"}, "holds the states of prompts only"),
        ({"head_init": "teacher"}, "--head-init teacher: .*GPT-Neo's own"),
        ({"student_tokenizer": "/nowhere"}, "/nowhere: no usable tokenizer"),
        ({"cross_every": 9}, "--cross-every 9"),
        ({"layers": (-1, 0, 5)}, "not layer 5"),
    ],
)
def test_what_does_not_go_together_is_said_so(
    changes: dict[str, Any], said: str, prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        train(quick(prompts, tmp_path / "run", **changes))
    assert not (tmp_path / "run").exists()


def test_extract_refuses_what_makes_no_sense_with_prompts(
    embedded_settings: Callable[..., ExtractSettings], tmp_path: Path
) -> None:
    for changes, said in (
        ({"keep_head": True}, "--keep-head: .*of its own"),
        ({"loss_on": "all"}, "--loss-on all: .*answers alone"),
    ):
        with pytest.raises(InputError, match=said):
            prepare(embedded_settings(condition="prompt", **changes))
    rows = write_rows(tmp_path / "rows.jsonl", [{"text": "Nobody asks."}] * 2)
    with pytest.raises(
        InputError, match=r"no example is left \(2 without a prompt.*\); choose another"
    ):
        prepare(embedded_settings(condition="prompt", dataset=str(rows), limit=None))


@pytest.fixture(scope="module")
def run_with_controls(
    prompts: Path, gpt_neo: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    run = tmp_path_factory.mktemp("prompt") / "run"
    train(quick(prompts, run, student=str(gpt_neo), epochs=3), comparisons=CONTROLS)
    return run


def no_teacher() -> Teacher:
    raise AssertionError("the teacher was loaded")


def test_evaluation_answers_cached_prompts_without_the_teacher_and_shows_whether_features_matter(
    run_with_controls: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "pipeline.evaluation.teachers.load_verified_teacher", lambda *_, **__: no_teacher()
    )
    results = evaluate(
        EvaluateSettings(run=run_with_controls, samples=4, max_new_tokens=20, device="cpu")
    )
    student, layer_0, text = results.students
    assert [run.condition for run in results.students] == ["prompt", "prompt", "text"]
    ablations = student.ablations
    assert ablations is not None
    assert ablations.keys() == {"matched", "mismatched", "shuffled", "zeroed", "gates shut"}
    assert ablations["matched"] == student.val_loss
    assert ablations["shuffled"] == pytest.approx(
        student.val_loss, abs=1e-5
    )  # attention to a prompt knows no order
    others = {name: loss for name, loss in ablations.items() if name != "shuffled"}
    assert len(set(others.values())) == 4
    assert "Shuffled is trivial" in results.trivial_ablations
    assert layer_0.ablations is not None and text.ablations is None
    assert "with those of another" in results.verdict
    assert student.exact_match is not None and len(results.samples[0].answers) == 3


def test_cached_or_live_batched_or_alone_the_answers_are_the_same(
    run_with_controls: Path, prompts: Path
) -> None:
    cache, cpu = open_cache(prompts), choose_device("cpu")
    asked = [Transcript.from_json(cache.text(index), "test").turns[:-1] for index in (0, 7)]
    teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], cpu, "fp32")
    cached = StudentWriter(RunFolder(run_with_controls), no_teacher, cpu, cache).write(
        asked, Sampling(max_new_tokens=15)
    )
    live = StudentWriter(RunFolder(run_with_controls), lambda: teacher, cpu)
    assert live.write(asked, Sampling(max_new_tokens=15)) == cached
    assert [live.write([turns], Sampling(max_new_tokens=15))[0] for turns in asked] == cached


def test_the_teacher_is_freed_after_the_prefill(run_with_controls: Path) -> None:
    loaded: list[weakref.ref[Teacher]] = []

    def load() -> Teacher:
        teacher = load_teacher(find_teacher(EMBEDDED_TEACHER), [-1], choose_device("cpu"), "fp32")
        loaded.append(weakref.ref(teacher))
        return teacher

    for keep, alive in ((False, [False, False]), (True, [True])):
        loaded.clear()
        writer = StudentWriter(
            RunFolder(run_with_controls), load, choose_device("cpu"), keep_teacher=keep
        )
        for _ in range(2):
            writer.write([[Turn("user", "Ann has 20 pens.")]], Sampling(max_new_tokens=5))
        gc.collect()
        assert [teacher() is not None for teacher in loaded] == alive


def test_generate_and_chat_write(run_with_controls: Path, run_cli: RunCli) -> None:
    row = load_conversations(EMBEDDED_DATASET, limit=1).conversations[0]
    system = next((turn.text for turn in row.turns if turn.role == "system"), "")
    question = row.prompt_turns[-1].text
    common = ("--run", run_with_controls, "--max-new-tokens", 8, "--device", "cpu", "--json")
    cached = run_cli(
        "generate", *common, "--system", system, "--prompt", question, "--teacher", "/gone"
    )
    assert cached.returncode == 0, cached.stderr
    unknown = run_cli("generate", *common, "--prompt", "Something else?", "--teacher", "/gone")
    assert (unknown.returncode, "/gone" in unknown.stderr) == (2, True)
    chat = run_cli("chat", *common, text_input="Something else?\nAnd now?\n")
    assert len(json.loads(chat.stdout)["answers"]) == 2
    away = run_cli("generate", *common, "--prompt", question, "--cache", "/nowhere")
    assert (away.returncode, "/nowhere" in away.stderr) == (2, True)


def test_killed_and_resumed_it_ends_with_the_same_weights(
    prompts: Path, gpt_neo: Path, tmp_path: Path
) -> None:
    options: list[Any] = [
        "train", "--cache", prompts, "--condition", "prompt", "--cross-every", 1,
        "--student", gpt_neo, "--batch-tokens", 900, "--epochs", 3, "--eval-every", 2, "--log-every", 1, "--device", "cpu",
    ]  # fmt: skip
    assert run_process(*options, "--run", tmp_path / "whole").returncode == 0
    process = CliProcess(*options, "--run", tmp_path / "cut")
    while process.poll() is None and len(RunFolder(tmp_path / "cut").read_metrics()) < 5:
        time.sleep(0.002)
    process.kill()
    process.wait()
    assert RunFolder(tmp_path / "cut").last_checkpoint() is not None
    assert run_process(*options, "--run", tmp_path / "cut", "--resume").returncode == 0
    ends = [load_file(tmp_path / name / "model" / "model.safetensors") for name in ("whole", "cut")]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_the_options_of_the_other_kind_are_refused(
    run_cli: RunCli, prompts: Path, tmp_path: Path
) -> None:
    common = ("train", "--cache", prompts, "--run", tmp_path / "run")
    for options, said in (
        (
            ("--condition", "prompt", "--cross-layers", 2),
            "--cross-layers: with --condition prompt it is --cross-every",
        ),
        (("--cross-every", 2), "--cross-every: with --condition sequence it is --cross-layers"),
        (("--condition", "sequence", "--max-answer-tokens", 9), "prompts only"),
    ):
        found = run_cli(*common, *options)
        assert (found.returncode, said in found.stderr) == (2, True), found.stderr


def test_rows_that_train_are_not_asked(
    prompts: Path, run_with_controls: Path, tmp_path: Path
) -> None:
    settings = RunFolder(run_with_controls).settings()
    with open_cache(prompts) as cache:
        training, held_out = split_rows(
            cache.row_ids, validation=settings.validation, seed=settings.seed
        )
        said = [
            Transcript.from_json(cache.text(index), "test").turns
            for index in (training[0], held_out[0])
        ]
    rows = write_rows(
        tmp_path / "rows.jsonl",
        [{"messages": [{"role": t.role, "content": t.text} for t in turns]} for turns in said],
    )
    results = evaluate(
        EvaluateSettings(
            run=run_with_controls, dataset=str(rows), samples=5, max_new_tokens=4, device="cpu"
        )
    )
    assert (results.prompts, results.prompts_left_out) == (1, {"was trained on": 1})


def test_a_cache_in_an_object_store_gives_the_same_weights(
    prompts: Path, s3_endpoint: str, run_cli: RunCli, tmp_path: Path
) -> None:
    address = new_address()
    store = ("--endpoint", s3_endpoint, "--copies", tmp_path / "copies")
    extracted = run_cli(
        "extract", "--condition", "prompt", "--layers", "-1,0", "--limit", 40, "--shard-tokens", 1500, "--dtype", "fp32",
        "--device", "cpu", "--cache", address, *store, "--json",
    )  # fmt: skip
    assert json.loads(extracted.stdout)["content_digest"] == open_cache(prompts).content_digest
    options = (
        "--condition",
        "prompt",
        "--cross-every",
        1,
        "--batch-size",
        8,
        "--max-steps",
        4,
        "--device",
        "cpu",
    )
    for name, cache, more in (("here", prompts, ()), ("there", address, store)):
        trained = run_cli("train", "--cache", cache, "--run", tmp_path / name, *options, *more)
        assert trained.returncode == 0, trained.stderr
    ends = [
        load_file(tmp_path / name / "model" / "model.safetensors") for name in ("here", "there")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[0])


def test_a_sweep_compares_how_often_it_looks(
    prompts: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    swept = run_cli(
        "sweep", "--cache", prompts, "--runs", tmp_path / "runs", "--condition", "prompt", "--vary", "cross-every=1 2",
        "--max-steps", 2, "--device", "cpu", "--json",
    )  # fmt: skip
    assert swept.returncode == 0, swept.stderr
    one, two = json.loads(swept.stdout)["runs"]
    assert one["parameters"] > two["parameters"]


def test_an_encoders_prompts_are_no_leak_and_have_one_answer(
    embedded_settings: Callable[..., ExtractSettings], gpt_neo: Path, tmp_path: Path
) -> None:
    encoder = BertModel(
        BertConfig(
            vocab_size=600,
            hidden_size=32,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=64,
            initializer_range=0.5,
        )
    )
    encoder.save_pretrained(tmp_path / "encoder")
    find_teacher(EMBEDDED_TEACHER).load_tokenizer().save_pretrained(tmp_path / "encoder")
    del encoder
    systems = [
        {"role": "system", "content": f"Be brief, {name}."} for name in ("Ann", "Bob", "Cleo")
    ]
    rows = write_rows(
        tmp_path / "rows.jsonl", [{"messages": [system, *TURNS[1:]]} for system in systems]
    )
    settings = embedded_settings(
        teacher=str(tmp_path / "encoder"),
        teacher_kind="encoder",
        condition="prompt",
        layers=(-1,),
        dataset=str(rows),
        limit=None,
    )
    extract(prepare(settings))
    record = train(
        quick(Path(str(settings.cache)), tmp_path / "run", student=str(gpt_neo), max_steps=2)
    )
    assert record.leaks is False
    with open_cache(settings.cache) as cache:
        assert [
            len(Transcript.from_json(cache.text(index), "test").answers) for index in range(3)
        ] == [
            1,
            1,
            1,
        ]


@pytest.mark.parametrize(
    "changes, said",
    [
        ({"condition": "text"}, r"reads no teacher to compare with; train it without --controls"),
        ({"layers": (0,)}, "layer-0: would be the student"),
    ],
)
def test_controls_that_would_be_the_student_itself_are_refused(
    changes: dict[str, Any], said: str, prompts: Path, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match=said):
        train(quick(prompts, tmp_path / "run", **changes), comparisons=CONTROLS)


def test_what_is_gone_or_does_not_apply_is_said_so(
    run_with_controls: Path, small_cache: Path, run_cli: RunCli, tmp_path: Path
) -> None:
    sequence = tmp_path / "sequence"
    train(TrainSettings(cache=small_cache, run=sequence, max_steps=1, device="cpu"))
    for arguments, said in (
        (
            ("generate", "--run", sequence, "--prompt", "a", "--cache", small_cache),
            "--cache: .*--condition sequence; omit it",
        ),
        (
            ("generate", "--run", run_with_controls, "--prompt", "a", "--teacher-device", "no:1"),
            "--teacher-device no:1: not usable",
        ),
        (
            ("evaluate", "--run", run_with_controls, "--cache", tmp_path / "gone"),
            "gone: no cache here; pass its present location as --cache",
        ),
    ):
        found = run_cli(*arguments)
        assert found.returncode == 2
        assert re.search(said, found.stderr), found.stderr


def test_a_head_that_is_the_embeddings_is_frozen_with_them(prompts: Path, tmp_path: Path) -> None:
    for changes, said in (
        ({"freeze": ("head",)}, "--freeze head: .*GPT-Neo's embeddings"),
        ({"freeze": ("gpt-neo", "bridge")}, r"nothing is left to train \(--condition prompt\)"),
    ):
        with pytest.raises(InputError, match=said):
            train(quick(prompts, tmp_path / "run", **changes))
    train(
        quick(prompts, tmp_path / "run", freeze=("gpt-neo",), max_steps=1),
        comparisons=("no-teacher",),
    )
    control = RunFolder(tmp_path / "run").comparisons()["no-teacher"].settings()
    assert control.freeze == ()  # what has no teacher to learn from learns with all of its weights


def test_the_control_that_reads_its_prompts_learns_from_the_same_answers(
    prompts: Path, gpt_neo: Path, tmp_path: Path
) -> None:
    tokenizer = AutoTokenizer.from_pretrained(gpt_neo)
    with open_cache(prompts) as cache:
        most = (
            sorted(CachedAnswers(cache, range(40), [], tokenizer).lengths)[20] - 1
        )  # without the begin token
        alone, reading = (
            CachedAnswers(cache, range(40), [], tokenizer, with_prompts=whole, longest=most)
            for whole in (False, True)
        )
        assert alone.left_out == reading.left_out > 0
        assert (alone.indices, alone.occurring) == (reading.indices, reading.occurring)
        looking = CachedAnswers(cache, range(40), [-1], tokenizer)
        states = [len(looking[place]["states_mask"]) for place in range(40)]
        assert looking.sizes == [
            own + seen for own, seen in zip(looking.lengths, states, strict=True)
        ]
    layers = quick(prompts, tmp_path / "run", layers=(0, -1), cross_every=1, max_steps=1)
    train(layers, comparisons=("no-teacher",))
    assert RunFolder(tmp_path / "run" / "comparisons" / "no-teacher").read_record().finished
