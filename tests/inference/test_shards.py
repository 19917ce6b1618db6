from __future__ import annotations

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from carat.data.store import Store
from carat.data.synthetic import make_synthetic
from carat.inference import shards
from carat.inference.loading import load
from carat.inference.shards import predict_in_shards
from carat.runs.card import read_run, write_card
from carat.training.train import TrainedRun
from carat.utils.errors import DataError, RunError
from carat.utils.locking import lock


def parts(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in sorted(out.glob("part-*"))}


def test_shards_contain_all_samples_in_order(
    in_this_process: list[Any], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    count = predict_in_shards(trained.folder, store.folder, tmp_path / "o", size=50)
    expected = list(load(trained.folder).predict_store(store))
    assert count == len(expected)
    rows = [row for name in parts(tmp_path / "o") for row in pq.read_table(tmp_path / "o" / name).to_pylist()]
    assert [row["id"] for row in rows] == [id for id, _ in expected]
    for row, (_, prediction) in zip(rows, expected, strict=True):
        assert row["labels"] == prediction.labels
        assert {n: row[f"score_{n}"] for n in prediction.scores} == pytest.approx(prediction.scores, abs=1e-6)
    test_count = predict_in_shards(
        trained.folder, store.folder, tmp_path / "t", size=7, split="test", ending=".csv"
    )
    assert test_count == len(load(trained.folder).rows(store, "test"))
    assert len(parts(tmp_path / "t")) == -(-test_count // 7)


def test_finished_shards_are_not_scored_again(
    in_this_process: list[Any],
    logged: list[str],
    trained: TrainedRun,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    out = tmp_path / "o"
    count = predict_in_shards(trained.folder, store.folder, out, size=50)
    whole = parts(out)
    in_this_process.clear()
    logged.clear()
    assert predict_in_shards(trained.folder, store.folder, out, size=50) == count
    assert in_this_process == []
    assert f"{len(whole)} of {len(whole)} shards already finished" in logged
    (out / "part-00001.parquet").write_bytes(whole["part-00001.parquet"][:-9])
    (out / "part-00002.parquet").unlink()
    (out / ".part-00003.parquet.unfinished").touch()
    with (out / "done.jsonl").open("a") as file:
        file.write('{"shard": 0, "samp')
    assert predict_in_shards(trained.folder, store.folder, out, size=50) == count
    assert [shard.number for shard in in_this_process] == [1, 2]
    assert parts(out) == whole
    assert sorted(file.name for file in out.iterdir()) == sorted([*whole, "done.jsonl", "shards.json"])
    with pytest.raises(
        RunError, match="holds a prediction set with another size already; --overwrite replaces it"
    ):
        predict_in_shards(trained.folder, store.folder, out, size=60)
    in_this_process.clear()
    assert predict_in_shards(trained.folder, store.folder, out, size=60, overwrite=True) == count
    assert len(in_this_process) == len(parts(out))


def test_invalid_arguments_and_folders_are_rejected(
    in_this_process: list[Any], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    (tmp_path / "o").mkdir()
    (tmp_path / "o" / "thesis.tex").write_text("mine")
    with pytest.raises(RunError, match=r"o: exists and is not a carat prediction set"):
        predict_in_shards(trained.folder, store.folder, tmp_path / "o", overwrite=True)
    predict_in_shards(trained.folder, store.folder, tmp_path / "done", split="test", size=20)
    before = parts(tmp_path / "done")
    (tmp_path / "done" / "part-00000 mine.parquet").write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match=r"holds 'part-00000 mine\.parquet', which is not part of a carat"):
            predict_in_shards(
                trained.folder, store.folder, tmp_path / "done", split="test", size=30, overwrite=overwrite
            )
    (tmp_path / "done" / "part-00000 mine.parquet").unlink()
    with lock(tmp_path / "done"), pytest.raises(RunError, match="in use by another carat process"):
        predict_in_shards(
            trained.folder, store.folder, tmp_path / "done", split="test", size=30, overwrite=True
        )
    assert parts(tmp_path / "done") == before
    with pytest.raises(RunError, match="unknown format"):
        predict_in_shards(trained.folder, store.folder, tmp_path / "p", ending=".xls")
    with pytest.raises(DataError, match="no split 'tset'"):
        predict_in_shards(trained.folder, store.folder, tmp_path / "p", split="tset")
    damaged = Path(shutil.copytree(store.folder, tmp_path / "damaged"))
    with (damaged / "features" / "text.npy").open("rb+") as file:
        file.seek(-1, 2)
        file.write(b"\x01")
    with pytest.raises(DataError, match="altered"):
        predict_in_shards(trained.folder, damaged, tmp_path / "p")
    assert not (tmp_path / "p").exists()


def test_command_line(run: Any, trained: TrainedRun, store: Store, tmp_path: Path) -> None:
    arguments = ("predict", trained.folder, "--data", store.folder, "--split", "test")
    code, _, err = run(*arguments, "--out", tmp_path / "o", "--workers", 1, "--format", "jsonl")
    assert code == 0, err
    assert f"predictions → {tmp_path / 'o'}" in err
    assert (tmp_path / "o" / "part-00000.jsonl").is_file()
    code, _, err = run(*arguments, "--out", tmp_path / "o.csv", "--engine", "ray")
    assert code == 2
    assert "writes a folder" in err


def killing(job: shards.PredictionJob) -> Any:
    """Prepare a worker that is killed once per shard, while writing it."""
    work, write = PREPARE(job), shards.write_file

    def task(shard: shards.Shard, report: Any) -> Any:
        mark = job.out.parent / f"killed-{shard.number}"

        def writing(predictions: Any, file: Path) -> int:
            def broken() -> Any:
                for place, named in enumerate(predictions):
                    if place == 5 and not mark.exists():
                        mark.touch()
                        os.kill(os.getpid(), signal.SIGKILL)
                    yield named

            return write(broken(), file)

        shards.write_file = writing
        return work(shard, report)

    return task


PREPARE = shards.prepare_worker


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["local", "ray"])
def test_files_do_not_depend_on_engine_and_killed_workers(
    engine: Any, trained: TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if engine == "ray":
        pytest.importorskip("ray")
    store = make_synthetic(tmp_path / "store", samples=2000, seed=4, missing=0.1)
    predict_in_shards(trained.folder, store.folder, tmp_path / "whole", size=500)
    monkeypatch.setattr(shards, "prepare_worker", killing)
    predict_in_shards(trained.folder, store.folder, tmp_path / "o", size=500, workers=2, engine=engine)
    assert len(list(tmp_path.glob("killed-*"))) == len(parts(tmp_path / "whole"))
    assert parts(tmp_path / "o") == parts(tmp_path / "whole")


@pytest.mark.parametrize("replaced", ["store", "run"])
def test_replaced_inputs_are_refused(
    replaced: str,
    in_this_process: list[Any],
    trained: TrainedRun,
    store: Store,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    data = Path(shutil.copytree(store.folder, tmp_path / "store"))
    run = Path(shutil.copytree(trained.folder, tmp_path / "run"))

    def replacing(job: shards.PredictionJob) -> Any:
        if replaced == "store":
            make_synthetic(data, samples=211, seed=4, overwrite=True)
        else:
            card, _ = read_run(run)
            write_card(run, card.model_copy(update={"thresholds": dict.fromkeys(card.labels, 0.9)}))
        return PREPARE(job)

    monkeypatch.setattr(shards, "prepare_worker", lambda job: lambda *task: replacing(job)(*task))
    with pytest.raises(RunError, match=f"{replaced}: replaced while in use"):
        predict_in_shards(run, data, tmp_path / "o")
    assert parts(tmp_path / "o") == {}


@pytest.mark.parametrize(
    "line",
    [
        "[" * 100_000,
        "[]",
        '{"shard": 0}',
        '{"shard": "../x", "samples": 1, "sha256": ""}',
        '{"shard": 99, "samples": 1, "sha256": ""}',
        '{"shard": 1e400, "samples": 1, "sha256": ""}',
        '{"shard": 0, "samples": [1], "sha256": ""}',
        "\x00\ud800".encode("utf-8", "surrogatepass").decode("latin-1"),
    ],
)
def test_hostile_logs_are_not_believed(
    line: str, in_this_process: list[Any], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    count = predict_in_shards(trained.folder, store.folder, out, size=150)
    whole = parts(out)
    (out / "done.jsonl").write_text(line + "\n" + (out / "done.jsonl").read_text())
    assert predict_in_shards(trained.folder, store.folder, out, size=150) == count
    assert len(in_this_process) == len(whole)  # and none was scored again
    (out / "done.jsonl").unlink()
    os.mkfifo(out / "done.jsonl")
    assert predict_in_shards(trained.folder, store.folder, out, size=150) == count
    assert parts(out) == whole


@pytest.mark.parametrize("name", ["part-notes.txt", "part-00000.csv.txt", "part-1.parquet"])
def test_files_of_similar_names_are_kept(
    name: str, in_this_process: list[Any], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    predict_in_shards(trained.folder, store.folder, out, size=150)
    (out / name).write_text("mine")
    for overwrite in (False, True):
        with pytest.raises(RunError, match=f"holds '{name}', which is not part of a carat prediction set"):
            predict_in_shards(trained.folder, store.folder, out, size=150, overwrite=overwrite)
    assert (out / name).read_text() == "mine"


def test_part_of_another_format_is_kept(
    in_this_process: list[Any], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    predict_in_shards(trained.folder, store.folder, tmp_path / "o", size=150)
    (tmp_path / "o" / "part-00000.csv").write_text("mine")
    predict_in_shards(trained.folder, store.folder, tmp_path / "o", size=150)
    assert (tmp_path / "o" / "part-00000.csv").read_text() == "mine"


def test_wrong_counts_in_logs_are_not_believed(
    in_this_process: list[Any], trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    out = tmp_path / "o"
    count = predict_in_shards(trained.folder, store.folder, out, size=150)
    log = (out / "done.jsonl").read_text()
    for wrong in (-5, 10**6, None):
        entries = [json.dumps(json.loads(line) | {"samples": wrong}) for line in log.splitlines()]
        (out / "done.jsonl").write_text("\n".join(entries) + "\n")
        assert predict_in_shards(trained.folder, store.folder, out, size=150) == count
        assert (out / "done.jsonl").read_text() == log
