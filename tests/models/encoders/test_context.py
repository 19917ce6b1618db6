"""Texts that are encoded with the texts before and after them as context."""

from __future__ import annotations

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import carat
from carat.config.encoders import EncoderChoice
from carat.data.recipes.build import build_store
from carat.data.store import Store, open_store
from carat.data.tokenizer import NO_CONTEXT
from carat.inference.explain.attention import draw_attention
from carat.inference.export import export
from carat.inference.export.card import describe
from carat.inference.text import CONTEXT_NAME, MIN_DROP
from carat.models.encoders.pretrained import PretrainedEncoder
from carat.training.train import TrainedRun, train
from carat.utils.errors import ConfigError, DataError, RunError
from tests.models.encoders.conftest import TRAINING, text_encoder, text_run
from tests.models.encoders.folders import FILLERS, KEYWORDS, make_text_encoder

__all__ = ["text_encoder", "text_run"]  # fixtures
TURNS = 4
"""Texts per conversation."""


def write_conversations(folder: Path, encoder: Path, context: str = "context: 8, order: turn") -> Path:
    """Conversations whose labels follow from the preceding text. Rows are shuffled; `turn` is their order."""
    rng, rows = random.Random(0), []
    for call in range(90):
        previous = ""
        for turn in range(TURNS):
            keyword = rng.choice(["glad", "tears"])
            labels = {label: int(previous in words) for label, words in KEYWORDS.items()}
            split = ("train", "train", "valid", "test")[call % 4]
            row = {"id": f"{call}-{turn}", "call": call, "turn": turn, "split": split}
            rows.append(row | {"utterance": f"{rng.choice(FILLERS)} {keyword}"} | labels)
            previous = keyword
    rng.shuffle(rows)
    folder.mkdir(exist_ok=True, parents=True)
    with (folder / "table.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows(rows)
    (folder / "recipe.yaml").write_text(
        f"""
name: calls
table: table.csv
id: id
split: split
group: call
transcript: utterance
labels: {{columns: [happy, sad]}}
modalities:
  text: {{source: tokens, folder: {encoder}, column: utterance, max_tokens: 24, {context}}}
"""
    )
    return folder / "recipe.yaml"


@pytest.fixture(scope="module")
def calls(text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    folder = tmp_path_factory.mktemp("calls")
    return build_store(write_conversations(folder, text_encoder), folder / "store")


@pytest.fixture(scope="module")
def calls_run(calls: Store, text_encoder: Path, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    encoders = {"text": {"folder": str(text_encoder), "learning_rate": 3e-3, "context_dropout": 0.1}}
    experiment = TRAINING | {"method": "linear", "encoders": encoders}
    return train(experiment, calls, tmp_path_factory.mktemp("runs") / "calls")


def texts_by_conversation(store: Store, split: str) -> dict[str, list[list[str]]]:
    """Ids and texts of every conversation in a split, in order."""
    conversations: dict[str, list[list[str]]] = {}
    for row in store.indices(split):
        ids, texts = conversations.setdefault(str(store.groups[row]), [[""] * TURNS, [""] * TURNS])
        turn = int(str(store.ids[row]).split("-")[1])
        ids[turn], texts[turn] = str(store.ids[row]), store.transcript(row)
    return conversations


def test_tokens_include_the_context_before_and_after(calls: Store, text_encoder: Path) -> None:
    vocabulary = dict(enumerate(json.loads((text_encoder / "tokenizer.json").read_text())["model"]["vocab"]))
    call, (ids, texts) = next(iter(texts_by_conversation(calls, "test").items()))
    row = int(np.flatnonzero(calls.ids == ids[1])[0])
    steps = calls.features("text", row)
    decoded = " ".join(vocabulary[int(x)] for x in steps[:, 0])
    before, after = texts[0].lower(), " ".join(texts[2:]).lower()
    assert decoded == f"[CLS] {texts[1].lower()} [SEP] {before} [SEP] {after} [SEP]", call
    assert steps[:, 1].tolist() == [0] * 4 + [1] * (len(steps) - 4)
    info = calls.manifest.modalities["text"]
    assert info.tokens is not None
    assert (info.tokens.context, info.width) == (8, 2)
    assert "0 texts have nothing said before or after them" in info.cleaning
    assert open_store(calls.folder).manifest.fingerprint == calls.manifest.fingerprint


def test_context_does_not_cross_splits(text_encoder: Path, tmp_path: Path) -> None:
    recipe = write_conversations(tmp_path, text_encoder)
    table = (tmp_path / "table.csv").read_text().splitlines()
    first_in_train = [line.replace(",test,", ",train,") if ",0,test," in line else line for line in table]
    (tmp_path / "table.csv").write_text("\n".join(first_in_train))
    store = build_store(recipe, tmp_path / "store")
    (row,) = (i for i in range(len(store)) if store.ids[i] == "3-0")
    assert store.features("text", row)[:, 1].sum() == 0
    cleaning = store.manifest.modalities["text"].cleaning
    assert (
        cleaning[-1]
        == f"{sum(',0,test,' in line for line in table)} texts have nothing said before or after them"
    )


def test_rows_without_group_have_no_context(text_encoder: Path, tmp_path: Path) -> None:
    recipe = write_conversations(tmp_path, text_encoder)
    with (tmp_path / "table.csv").open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    with (tmp_path / "table.csv").open("w", newline="") as opened:
        writer = csv.DictWriter(opened, rows[0])
        writer.writeheader()
        writer.writerows({**row, "call": ""} if row["call"] in ("3", "7") else row for row in rows)
    store = build_store(recipe, tmp_path / "store")
    for i in range(len(store)):
        ungrouped = str(store.ids[i]).split("-")[0] in ("3", "7")
        assert ungrouped == (not store.features("text", i)[:, 1].any())


def test_chunk_size_of_the_table_does_not_matter(
    calls: Store, text_encoder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("carat.data.recipes.build.CHUNK", 7)
    store = build_store(write_conversations(tmp_path, text_encoder), tmp_path / "store")
    assert store.manifest.fingerprint == calls.manifest.fingerprint


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("group: call\n", "", r"recipe\.yaml: modalities\.text: context needs `group`"),
        ("context: 8, ", "", r"modalities\.text: order has no effect without context; set context too"),
        ("context: 8, ", "context: true, ", r"modalities\.text\.context: .*integer, found True"),
    ],
)
def test_invalid_recipes_are_rejected(
    old: str, new: str, message: str, text_encoder: Path, tmp_path: Path
) -> None:
    recipe = write_conversations(tmp_path, text_encoder)
    recipe.write_text(recipe.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=message):
        build_store(recipe, tmp_path / "store")


def test_predictions_depend_on_the_preceding_text(calls_run: TrainedRun, calls: Store) -> None:
    predictor = carat.load(calls_run.folder)
    assert predictor.evaluate(calls, "test").metrics.micro_f1 > 0.9
    stored = dict(predictor.predict_store(calls, "test"))
    for ids, texts in texts_by_conversation(calls, "test").values():
        predictions = predictor.predict_text(texts, contexts=predictor.reader.contexts(texts))
        for id, prediction in zip(ids, predictions, strict=True):
            assert prediction.scores == pytest.approx(stored[id].scores, abs=1e-6)
    glad, sad = ("we glad", "so we"), ("we tears", "so we")
    second = [
        predictor.predict_text(texts, contexts=predictor.reader.contexts(texts))[1].scores
        for texts in (glad, sad)
    ]
    assert second[0]["happy"] - second[1]["happy"] > 0.5
    assert second[1]["sad"] - second[0]["sad"] > 0.5
    raw = carat.load(calls_run.folder, calibrated=False)
    alone = raw.predict_text(["so we"])[0].scores
    assert alone != pytest.approx(
        raw.predict_text(glad, contexts=raw.reader.contexts(glad))[1].scores, abs=1e-2
    )


def test_attribution_to_words_and_context(calls_run: TrainedRun) -> None:
    predictor = carat.load(calls_run.folder)
    texts = ["we glad", "so we"]
    plain = predictor.predict_text(texts, contexts=predictor.reader.contexts(texts))
    explained = predictor.predict_text(texts, contexts=predictor.reader.contexts(texts), words=3)
    assert [x.scores for x in explained] == [pytest.approx(x.scores, abs=1e-6) for x in plain]
    assert {word for words in explained[0].words.values() for word in words} <= {
        "we",
        "glad",
        "so",
        CONTEXT_NAME,
    }
    assert {word for words in explained[1].words.values() for word in words} <= {"we", "so", CONTEXT_NAME}
    alone = predictor.predict_text("so we", words=3)[0]
    assert CONTEXT_NAME not in {word for words in alone.words.values() for word in words}
    other = predictor.predict_text(["we tears", "so we"], conversations=["a", "a"], words=3)
    predictions = [explained[1], other[1]]
    by_context = [(x, name) for x in predictions for name in x.words if CONTEXT_NAME in x.words[name]]
    assert by_context
    for x in predictions:
        for name, score in x.scores.items():
            assert ((x, name) in by_context) == (score - alone.scores[name] >= MIN_DROP)


def test_invalid_contexts_are_rejected(calls_run: TrainedRun, text_run: TrainedRun) -> None:
    predictor = carat.load(calls_run.folder)
    contexts = predictor.reader.contexts(["so", "we"])
    assert predictor.reader.contexts("so we") == [NO_CONTEXT]
    with pytest.raises(DataError, match="1 texts, but 2 contexts"):
        predictor.predict_text(["so"], contexts=contexts)
    with pytest.raises(DataError, match="2 texts, but 1 conversation names"):
        predictor.reader.contexts(["so", "we"], ["a"])
    with pytest.raises(DataError, match=r"2 texts, but an order of shape \(3,\)"):
        predictor.reader.contexts(["so", "we"], order=[1, 2, 3])
    with pytest.raises(DataError, match="contexts: expected the result of reader"):
        predictor.predict_text(["so", "we"], contexts=["a", "a"])  # type: ignore[list-item]
    with pytest.raises(DataError, match="give one of them"):
        predictor.predict_text(["so", "we"], contexts=contexts, conversations=["a", "a"])
    with pytest.raises(RunError, match="reads each text without context"):
        carat.load(text_run.folder).predict_text(["so", "we"], contexts=contexts)


def test_long_texts_are_truncated_like_those_of_a_store(
    calls_run: TrainedRun, calls: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor = carat.load(calls_run.folder)
    monkeypatch.setattr(predictor.model, "max_length", {"text": 9})
    data = predictor.experiment.data.model_copy(update={"truncation": True})
    monkeypatch.setattr(predictor, "experiment", predictor.experiment.model_copy(update={"data": data}))
    stored = dict(predictor.predict_store(calls, "test"))
    ids, texts = next(iter(texts_by_conversation(calls, "test").values()))
    predictions = predictor.predict_text(texts, contexts=predictor.reader.contexts(texts))
    for id, prediction in zip(ids, predictions, strict=True):
        assert prediction.scores == pytest.approx(stored[id].scores, abs=1e-6)


def test_conversations_are_independent(calls_run: TrainedRun) -> None:
    predictor = carat.load(calls_run.folder)
    texts = ["we glad", "we tears", "so we", "so we"]
    mixed = predictor.predict_text(texts, contexts=predictor.reader.contexts(texts, ["a", "b", "a", "b"]))
    for start in (0, 1):
        conversation = texts[start::2]
        separate = predictor.predict_text(conversation, contexts=predictor.reader.contexts(conversation))
        assert [x.scores for x in separate] == [pytest.approx(x.scores, abs=1e-6) for x in mixed[start::2]]
    named = predictor.predict_text(texts, conversations=["a", "b", "a", "b"])
    assert [x.scores for x in named] == [x.scores for x in mixed]
    in_reverse = predictor.reader.contexts(texts[::-1], ["b", "a", "b", "a"], [4, 3, 2, 1])
    assert in_reverse == predictor.reader.contexts(texts, ["a", "b", "a", "b"])[::-1]


def test_command_line(
    run: Callable[..., Any],
    calls_run: TrainedRun,
    text_run: TrainedRun,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("carat.cli.predict_text.CHUNK", 3)
    table = "utterance,call,turn\nwe glad,a,2\nwe tears,b,0\n,a,1\nso we,a,3\nso we,b,9\nso we,,0\nso we,,0\n"
    (tmp_path / "calls.csv").write_text(table)
    out = tmp_path / "out.csv"
    options = ("--file", tmp_path / "calls.csv", "--column", "utterance", "--out", out)
    code, _, err = run("predict", calls_run.folder, *options, "--conversation", "call")
    assert code == 0, err
    assert "note: skipped 1 empty texts of 7" in err
    assert "read without context" not in err
    rows = list(csv.DictReader(out.read_text().splitlines()))
    labels = [row["labels"] for row in rows]
    assert labels[2:4] == ["happy", "sad"]
    alone = carat.load(calls_run.folder).predict_text("so we")[0].scores["happy"]
    assert [float(row["score_happy"]) for row in rows[4:]] == pytest.approx([alone, alone], abs=1e-5)
    backwards = "".join(f"{line}\n" for line in [table.splitlines()[0], *table.splitlines()[:0:-1]])
    (tmp_path / "backwards.csv").write_text(backwards)
    options = ("--file", tmp_path / "backwards.csv", *options[2:], "--overwrite", "--conversation", "call")
    assert run("predict", calls_run.folder, *options, "--order", "turn")[0] == 0
    reordered = list(csv.DictReader(out.read_text().splitlines()))[::-1]
    assert [row["score_sad"] for row in reordered[:4]] == [row["score_sad"] for row in rows[:4]]
    code, _, err = run("predict", calls_run.folder, *options[:-2])
    assert code == 0
    assert (
        "note: each text is read without context; to use the context of this run, add --conversation COLUMN"
        in err
    )
    (tmp_path / "texts.txt").write_text("we tears\n\nso we\n")
    file = ("--file", tmp_path / "texts.txt", "--together", "--out", tmp_path / "lines.csv")
    assert run("predict", calls_run.folder, *file)[0] == 0
    lines = list(csv.DictReader((tmp_path / "lines.csv").read_text().splitlines()))
    assert lines[1]["labels"] == "sad"
    code, shown, _ = run("predict", calls_run.folder, "--text", "we glad", "so we", "--together")
    assert code == 0
    assert shown.count("happy") >= 1
    assert CONTEXT_NAME in shown
    wrong = [
        (("--text", "so", "--conversation", "call"), "--conversation and --order are for --file"),
        ((*options, "--together"), "--conversation and --together exclude each other"),
        ((*options[:-2], "--order", "turn"), "add --conversation COLUMN or --together"),
        (("--data", tmp_path, "--together", "--out", "x.csv"), "are for --text and --file"),
        ((*options[:-1], "cal"), "no column 'cal'; did you mean 'call'"),
        (
            ("--file", tmp_path / "texts.txt", "--conversation", "call", "--out", "x.csv"),
            "a .txt file has no column 'call'",
        ),
    ]
    for arguments, message in wrong:
        code, _, err = run("predict", calls_run.folder, *arguments)
        assert code == 2
        assert message in err
    code, _, err = run("predict", text_run.folder, "--text", "so", "we", "--together")
    assert code == 2
    assert "the run reads each text without context, so it takes no conversations; train on a store" in err
    assert "whose recipe sets `context`" in err


def test_stores_with_another_context_are_rejected(
    calls_run: TrainedRun, text_encoder: Path, tmp_path: Path
) -> None:
    store = build_store(
        write_conversations(tmp_path, text_encoder, "context: 4, order: turn"), tmp_path / "store"
    )
    with pytest.raises(DataError, match=r"text has 4 tokens of context .* with 8 tokens .* sets context: 8"):
        carat.load(calls_run.folder).evaluate(store)
    without = build_store(write_conversations(tmp_path, text_encoder, "context: 0"), tmp_path / "without")
    with pytest.raises(DataError, match=r"text has no context, but the run .* with 8 tokens"):
        carat.load(calls_run.folder).evaluate(without)


def test_arrays_of_tokens_and_types_are_validated(calls_run: TrainedRun) -> None:
    predictor = carat.load(calls_run.folder)
    steps = np.array([[2, 0], [7, 0], [3, 0], [17, 1], [3, 1]])
    assert 0 < predictor.predict({"text": steps}).scores["happy"] < 1
    for wrong in (steps[:, :1], steps * [1, 2], steps + 0.5, steps[3:], steps[::-1]):
        with pytest.raises(DataError, match="expected"):
            predictor.predict({"text": wrong})


def test_token_types_match_transformers(tmp_path: Path) -> None:
    from transformers import BertModel

    folder = make_text_encoder(tmp_path / "model")
    bert = EncoderChoice(folder=str(folder))
    transformers_model = EncoderChoice(folder=str(folder), gradient_checkpointing=True)
    steps = torch.tensor([[[2, 0], [5, 0], [3, 0], [8, 1], [3, 1]], [[2, 0], [3, 0], [9, 1], [3, 1], [0, 0]]])
    mask = torch.tensor([[True] * 5, [True] * 4 + [False]])
    model = BertModel.from_pretrained(folder).eval()
    with torch.no_grad():
        expected = model(
            input_ids=steps[..., 0], attention_mask=mask.long(), token_type_ids=steps[..., 1]
        ).last_hidden_state
        for choice in (bert, transformers_model):
            states, valid = PretrainedEncoder(folder, choice, text=True).eval()(steps, mask)
            assert valid.tolist() == [[True] * 3 + [False] * 2, [True] * 2 + [False] * 3]
            torch.testing.assert_close(states[valid], expected[valid], rtol=1e-5, atol=1e-6)
            assert not states[~valid].any()


def test_context_dropout(text_encoder: Path) -> None:
    choice = EncoderChoice(folder=str(text_encoder), context_dropout=0.5)
    encoder = PretrainedEncoder(text_encoder, choice, text=True)
    for module in encoder.modules():
        for name in ("dropout", "attention_dropout"):
            if isinstance(getattr(module, name, None), float):
                setattr(module, name, 0.0)
    steps = torch.tensor([[[2, 0], [5, 0], [3, 0], [8, 1], [3, 1]]] * 400)
    with torch.no_grad():
        without = encoder(steps[:1, :3], torch.ones(1, 3, dtype=torch.bool))[0][0]
        with_context = encoder.eval()(steps[:1], torch.ones(1, 5, dtype=torch.bool))[0][0, :3]
        states, valid = encoder.train()(steps, torch.ones(400, 5, dtype=torch.bool))
    assert valid.sum(1).tolist() == [3] * 400
    dropped, kept = ((states[:, :3] - x).abs().amax((1, 2)) < 1e-2 for x in (without, with_context))
    assert (dropped ^ kept).all()
    assert 150 < int(dropped.sum()) < 250


@pytest.mark.slow
@pytest.mark.parametrize("ending", ["pt2", "onnx"])
def test_exported_file_takes_token_ids_and_types(
    calls_run: TrainedRun, calls: Store, ending: str, tmp_path: Path
) -> None:
    exported = export(calls_run.folder, tmp_path / f"calls.{ending}", store=calls.folder)
    assert exported.inputs["text"].endswith(", 2) int64")
    assert exported.largest_difference < 1e-4
    card = describe(carat.load(calls_run.folder), False, None)
    assert "1 for its context: at most 8 tokens before the text" in str(card["notes"])


def test_attention_plot_leaves_out_the_context(calls: Store, text_encoder: Path, tmp_path: Path) -> None:
    method = {"name": "carat", "hidden": 8, "latent": 4, "encoder": {"layers": {"text": 0}, "heads": 2}}
    changes = {"training": {"epochs": 1}, "encoders": {"text": {"folder": str(text_encoder)}}}
    trained = train(TRAINING | {"method": method} | changes, calls, tmp_path / "run")
    row = int(calls.indices("test")[0])
    _, table = draw_attention(carat.load(trained.folder), calls, row, tmp_path)
    lines = list(csv.DictReader(table.read_text().splitlines()))
    assert [x["word"] for x in lines] == ["[CLS]", *calls.transcript(row).split(), "[SEP]"]
    assert sum(float(x["happy"]) for x in lines) == pytest.approx(1, abs=1e-4)
