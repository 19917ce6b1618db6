"""Feature files through the API: the predictor's answers, and one line for hostile files."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import carat
from carat.data.store import Store
from carat.training.train import TrainedRun


def npz(**arrays: Any) -> bytes:
    content = io.BytesIO()
    np.savez_compressed(content, **arrays)
    return content.getvalue()


def samples_of(store: Store, count: int) -> dict[str, dict[str, np.ndarray]]:
    return {f"s{i}": {m: np.asarray(x) for m, x in store[i].features.items()} for i in range(count)}


def upload(client: Any, content: bytes, name: str = "x.npz", **fields: str) -> Any:
    return client.post("/v1/predict/features", files={"file": (name, content)}, data=fields)


def test_answers_are_those_of_the_predictor(
    serve: Callable[..., Any], trained: TrainedRun, store: Store
) -> None:
    samples = samples_of(store, 7)
    arrays = {f"{id}/{m}": x for id, sample in samples.items() for m, x in sample.items()}
    answer = upload(serve(trained), npz(**arrays), raw="false")
    assert answer.status_code == 200, answer.text
    body = answer.json()
    expected = carat.load(trained, device="cpu").predict_batch(list(samples.values()), raw=False)
    assert [x["id"] for x in body["predictions"]] == list(samples)
    for found, prediction in zip(body["predictions"], expected, strict=True):
        assert found["scores"] == pytest.approx(prediction.scores, abs=1e-6)
        assert found["labels"] == prediction.labels
        assert found["attribution"] == prediction.attribution


def test_a_single_sample_and_absent_modalities(
    serve: Callable[..., Any], trained: TrainedRun, store: Store
) -> None:
    features = samples_of(store, 1)["s0"]
    (m, first), *_ = features.items()
    other = next(name for name in trained.card.modalities if name != m)
    empty = np.zeros((0, trained.card.modalities[other].width), np.float32)
    body = upload(serve(trained), npz(**{m: first, other: empty})).json()
    assert [x["id"] for x in body["predictions"]] == ["sample"]
    expected = carat.load(trained, device="cpu").predict({m: first})
    assert body["predictions"][0]["scores"] == pytest.approx(expected.scores, abs=1e-6)
    assert body["notes"] == [f"{other} is absent from 1 samples: empty, or all zeros, inf or NaN"]


HOSTILE = {
    "empty": (b"", 422, "empty"),
    "text": (b"hello", 422, "no .npz"),
    "half": (npz(text=np.ones((9, 9)))[:-30], 422, "no .npz"),
    "unknown": (npz(speech=np.ones((3, 2))), 422, "unknown modality 'speech'"),
    "width": (npz(text=np.ones((3, 2))), 422, "expected numbers"),
    "nan": (npz(text=np.full((3, 2), np.nan)), 422, ""),
    "strings": (npz(text=np.array([["a"]])), 422, "expected numbers"),
    "objects": (npz(text=np.array([{"a": 1}, print], object)), 422, ""),
    "axes": (npz(text=np.ones((2, 3, 4))), 422, "expected numbers"),
    "mixed": (npz(text=np.ones((2, 3)), **{"a/text": np.ones((2, 3))}), 422, "array names must be"),
    "path": (npz(**{"../../../../etc/passwd/text": np.ones((3, 2))}), 422, ""),
    "bomb": (npz(text=np.zeros((9_000_000, 1))), 413, "the limit is 64 MB"),
    "many": (npz(**{f"{i}/text": np.ones((1, 1)) for i in range(1001)}), 413, "1001 samples"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_files_are_one_line(
    serve: Callable[..., Any], trained: TrainedRun, name: str, tmp_path: Path
) -> None:
    content, status, message = HOSTILE[name]
    answer = upload(serve(trained), content, name="../../../x\n.npz")
    assert (answer.status_code, set(answer.json())) == (status, {"error"}), answer.text
    assert message in answer.json()["error"]
    assert str(tmp_path) not in answer.text
    assert "workspace" not in answer.text
    assert list((tmp_path / "workspace").iterdir()) == []


def test_declared_sizes_are_not_trusted(serve: Callable[..., Any], trained: TrainedRun) -> None:
    content = bytearray(npz(text=np.zeros((100_000, 8))))
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        size = archive.infolist()[0].file_size.to_bytes(4, "little")
    lied = bytes(content).replace(size, (500).to_bytes(4, "little"))
    answer = upload(serve(trained), lied)
    assert answer.status_code == 422


def test_requests_without_a_file_or_of_another_kind(serve: Callable[..., Any], trained: TrainedRun) -> None:
    client = serve(trained)
    assert client.post("/v1/predict/features", data={"run": "tiny"}).status_code in (415, 422)
    assert client.post("/v1/predict/features", json={}).status_code == 422
    assert client.post("/v1/predict/features", content=b"x").status_code == 415
    broken = {"Content-Type": "multipart/form-data"}
    assert client.post("/v1/predict/features", content=b"--x", headers=broken).status_code == 400
    many = [("file", (f"{i}.npz", b"x")) for i in range(5)]
    assert client.post("/v1/predict/features", files=many).status_code == 400
    assert upload(client, npz(text=np.ones((1, 1))), raw="perhaps").status_code == 422
    assert upload(client, npz(text=np.ones((1, 1))), run="x" * 300).status_code == 422


def test_a_file_above_the_limit_is_refused(serve: Callable[..., Any], trained: TrainedRun) -> None:
    answer = upload(serve(trained, max_features_mb=1), b"x" * (3 << 20))
    assert (answer.status_code, answer.json()["error"]) == (413, "the body is larger than the limit")


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_mutated_files_never_fail_the_server(
    serve: Callable[..., Any], trained: TrainedRun, tmp_path: Path, data: st.DataObject
) -> None:
    client = MUTATED.get(tmp_path) or MUTATED.setdefault(tmp_path, serve(trained))
    width = trained.card.modalities["text"].width
    content = bytearray(npz(text=np.ones((5, width), np.float32)))
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(content) - 1))
        content[place] = data.draw(st.integers(0, 255))
    cut = data.draw(st.one_of(st.just(len(content)), st.integers(0, len(content))))
    answer = upload(client, bytes(content[:cut]))
    assert answer.status_code in (200, 413, 422), answer.text
    assert list((tmp_path / "workspace").iterdir()) == []


MUTATED: dict[Path, Any] = {}
