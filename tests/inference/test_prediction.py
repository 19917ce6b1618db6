"""Predictions as frames and in notebooks."""

from __future__ import annotations

import csv
from pathlib import Path

import pytest

import carat
from carat.data.store import Store
from carat.inference.prediction import Prediction
from carat.inference.writers import to_frame, write_predictions
from carat.training.train import TrainedRun

SCORES = {"happy": 0.9, "sad": 0.2, "<b>odd</b>": 0.7}
PREDICTION = Prediction(
    SCORES,
    ["happy", "<b>odd</b>"],
    {"happy": "text", "sad": "audio", "<b>odd</b>": "text"},
    text="so <i>glad</i>",
    words={"happy": ["glad", "so"], "sad": [], "<b>odd</b>": ["<i>"]},
)


def test_a_prediction_as_a_frame() -> None:
    pytest.importorskip("pandas")
    frame = PREDICTION.to_frame()
    assert list(frame) == ["label", "score", "present", "attribution", "words"]
    assert frame["label"].tolist() == list(SCORES)
    assert frame["score"].tolist() == list(SCORES.values())
    assert frame["present"].tolist() == [True, False, True]
    assert frame["attribution"].tolist() == ["text", "audio", "text"]
    assert frame["words"].tolist() == [["glad", "so"], [], ["<i>"]]
    plain = Prediction(SCORES, [], {}).to_frame()
    assert list(plain) == ["label", "score", "present"]
    assert not plain["present"].any()


def test_a_prediction_in_a_notebook_is_escaped() -> None:
    page = PREDICTION._repr_html_()
    assert "<caption>so &lt;i&gt;glad&lt;/i&gt;</caption>" in page
    assert '<tr><th scope="row">happy</th><td>0.900</td><td>✓</td><td>text</td><td>glad, so</td></tr>' in page
    assert '<th scope="row">sad</th><td>0.200</td><td></td>' in page
    assert '<th scope="row">&lt;b&gt;odd&lt;/b&gt;</th>' in page
    assert "<b>" not in page
    assert "<i>" not in page


def test_many_predictions_as_a_frame(trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    pandas = pytest.importorskip("pandas")
    predictor = carat.load(trained)
    named = list(predictor.predict_store(store, "test"))
    frame = carat.to_frame(named)
    assert carat.to_frame is to_frame
    assert frame["id"].tolist() == [id for id, _ in named]
    assert frame["labels"].tolist() == [prediction.labels for _, prediction in named]
    assert frame["score_happy"].tolist() == [prediction.scores["happy"] for _, prediction in named]
    assert frame["attribution_sad"].tolist() == [prediction.attribution["sad"] for _, prediction in named]
    write_predictions(named, tmp_path / "p.parquet")
    pandas.testing.assert_frame_equal(
        frame.drop(columns="labels"),
        pandas.read_parquet(tmp_path / "p.parquet").drop(columns="labels"),
        check_dtype=False,
    )
    unnamed = carat.to_frame(prediction for _, prediction in named)
    assert list(unnamed) == [column for column in frame if column != "id"]
    assert len(carat.to_frame([])) == 0


def test_predictions_of_texts_and_others_share_a_frame() -> None:
    pytest.importorskip("pandas")
    frame = to_frame([PREDICTION, Prediction({"happy": 0.1}, [], {})])
    assert frame["text"].tolist()[0] == PREDICTION.text
    assert frame["score_happy"].tolist() == [0.9, 0.1]
    assert frame["words_happy"].tolist()[0] == ["glad", "so"]
    assert frame["score_sad"].isna().tolist() == [False, True]


def test_earlier_name_of_attribution_warns() -> None:
    prediction = Prediction({"sad": 0.5}, ["sad"], {"sad": "text"})
    with pytest.warns(FutureWarning, match=r"Prediction\.carried_by is now Prediction\.attribution"):
        assert prediction.carried_by == {"sad": "text"}


def test_formulas_in_csv_are_marked(tmp_path: Path) -> None:
    prediction = Prediction({"=a": 0.5}, ["=a", "b"], {"=a": "text"}, text="@cmd")
    write_predictions([("-1+1", prediction), ("-7", prediction)], tmp_path / "x.csv")
    rows = list(csv.reader((tmp_path / "x.csv").read_text().splitlines()))
    assert rows[0] == ["id", "text", "labels", "score_=a", "attribution_=a"]
    assert rows[1] == ["'-1+1", "'@cmd", "'=a;b", "0.5", "text"]
    assert rows[2][0] == "-7"
