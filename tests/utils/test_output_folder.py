"""Output folders: states, locks, and protection of foreign files."""

from __future__ import annotations

import errno
import os
import resource
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from carat.config.experiment import Experiment
from carat.data.store import Store, open_store
from carat.data.store.writer import StoreWriter
from carat.data.synthetic import make_synthetic
from carat.inference.explain.explanation import explain
from carat.inference.export import export
from carat.inference.loading import load
from carat.inference.shards import predict_in_shards
from carat.inference.writers import write_predictions
from carat.runs.folder import RUN
from carat.runs.official_weights import convert
from carat.studies.jobs import claim_study, study_kind
from carat.training.train import TrainedRun, train
from carat.utils.errors import CaratError, DataError, RunError
from carat.utils.locking import LOCK, lock, refuse_locked
from carat.utils.output_folder import (
    FolderKind,
    check_file,
    check_folder,
    claim,
    first_difference,
    plan_difference,
    replacing,
)
from tests.runs.test_official_weights import released

KIND = FolderKind(
    name="result",
    markers=("first.json", "second.json"),
    patterns=("done.json", "table.csv", "parts/*.bin", "logs/*", "logs/*/*"),
    finished="done.json",
)


def fill(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


@contextmanager
def locked_by_another_process(folder: Path) -> Iterator[int]:
    """Lock a folder in another process; yields its process ID."""
    code = (
        "import sys, pathlib, carat.utils.locking as c\n"
        "with c.lock(pathlib.Path(sys.argv[1])):\n"
        "    print('ready', flush=True)\n"
        "    sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", code, folder], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid


BEGUN = ("first.json", "second.json", "parts/a.bin")


@pytest.mark.parametrize(
    ("names", "state"),
    [
        ((), "new"),
        ((LOCK,), "new"),
        ((LOCK, "first.json", ".second.json.unfinished"), "new"),
        ((".first.json.unfinished",), "new"),
        (("first.json", "second.json"), "begun"),
        (BEGUN, "begun"),
        ((*BEGUN, "thesis.tex"), "begun"),
        ((*BEGUN, "done.json"), "finished"),
        ((*BEGUN, ".done.json.unfinished"), "begun"),
        (("second.json",), "foreign"),  # whose owner begins with the other one
        (("first.json", "parts/a.bin"), "foreign"),
        (("thesis.tex",), "foreign"),
        (("first.json", "thesis.tex"), "foreign"),
    ],
)
def test_states(names: tuple[str, ...], state: str, tmp_path: Path) -> None:
    assert KIND.state(fill(tmp_path, *names)) == state


def test_states_of_missing_paths_and_files(tmp_path: Path) -> None:
    assert KIND.state(tmp_path / "absent") == "new"
    (tmp_path / "file").write_text("mine")
    assert KIND.state(tmp_path / "file") == "foreign"
    for overwrite in (False, True):
        with pytest.raises(RunError, match="file: exists and is not a carat result; choose another folder"):
            check_folder(KIND, tmp_path / "file", overwrite=overwrite)
    with pytest.raises(RunError, match="exists and is not"), claim(KIND, tmp_path / "file", overwrite=True):
        pass
    assert (tmp_path / "file").read_text() == "mine"


def test_foreign_files_in_subfolders(tmp_path: Path) -> None:
    fill(tmp_path, *BEGUN, "parts/.b.bin.unfinished", "parts/.lock", "logs/deep/events", "table.csv")
    assert KIND.foreign_files(tmp_path) == []
    fill(tmp_path, "parts/notes.txt", "other/x", ".table.csv", "parts/.c.txt.unfinished")
    (tmp_path / "link").symlink_to(tmp_path / "logs")
    fill(tmp_path, "other/.lock")
    foreign = [".table.csv", "link", "other/.lock", "other/x", "parts/.c.txt.unfinished", "parts/notes.txt"]
    assert KIND.foreign_files(tmp_path) == foreign


def test_check_folder_decides_or_refuses(tmp_path: Path) -> None:
    def same() -> str:
        return ""

    def other() -> str:
        return "seed"

    assert check_folder(KIND, tmp_path, difference=other) == "new"
    fill(tmp_path, *BEGUN)
    assert check_folder(KIND, tmp_path, difference=same) == "begun"
    assert check_folder(KIND, tmp_path, overwrite=True, difference=same) == "new"
    message = r"holds an unfinished result with another seed already; --overwrite replaces it"
    with pytest.raises(RunError, match=message):
        check_folder(KIND, tmp_path, difference=other)
    with pytest.raises(RunError, match=r"holds an unfinished result already; --overwrite replaces it"):
        check_folder(KIND, tmp_path)
    fill(tmp_path, "done.json")
    with pytest.raises(RunError, match=r"holds a result already; --overwrite replaces it"):
        check_folder(KIND, tmp_path, difference=same)
    assert check_folder(KIND, tmp_path, difference=same, accept_finished=True) == "finished"
    with pytest.raises(RunError, match=r"holds a result with another seed already"):
        check_folder(KIND, tmp_path, difference=other, accept_finished=True)
    assert check_folder(KIND, tmp_path, overwrite=True, difference=other, accept_finished=True) == "new"
    assert sorted(contents(tmp_path)) == sorted([*BEGUN, "done.json"])


@pytest.mark.parametrize("shares_folder", [False, True])
def test_foreign_files_and_resuming(shares_folder: bool, tmp_path: Path) -> None:
    kind = FolderKind(KIND.name, KIND.markers, KIND.patterns, KIND.finished, shares_folder=shares_folder)
    fill(tmp_path, *BEGUN, "parts/notes.txt")
    assert check_folder(kind, tmp_path, difference=lambda: "") == "begun"  # nothing will be deleted
    with pytest.raises(RunError, match=r"holds 'parts/notes\.txt', which is not part of a carat result"):
        check_folder(kind, tmp_path, overwrite=True)
    fill(tmp_path, "notes.txt")
    if shares_folder:
        assert check_folder(kind, tmp_path, difference=lambda: "") == "begun"
        return
    with pytest.raises(RunError, match=r"holds 'notes\.txt', which is not part of a carat result"):
        check_folder(kind, tmp_path, difference=lambda: "")


def test_work_without_a_finished_marker_can_be_extended(tmp_path: Path) -> None:
    kind = FolderKind("set", ("plan.json",), ("part-*",), has_results=lambda f: any(f.glob("part-*")))
    fill(tmp_path, "plan.json")
    assert check_folder(kind, tmp_path, difference=lambda: "store") == "new"  # nothing worth keeping
    fill(tmp_path, "part-1")
    assert check_folder(kind, tmp_path, difference=lambda: "") == "begun"
    with pytest.raises(RunError, match=r"holds a set with another store already"):
        check_folder(kind, tmp_path, difference=lambda: "store")


def test_claim_clears_replaced_and_keeps_resumed_content(tmp_path: Path) -> None:
    out = fill(tmp_path / "a" / "out", *BEGUN, "logs/deep/events")
    (out / "mine").mkdir()
    with claim(KIND, out, difference=lambda: "") as state:
        assert state == "begun"
        assert sorted(contents(out)) == sorted([*BEGUN, "logs/deep/events"])
    with claim(KIND, out, overwrite=True, clear=False) as state:
        assert state == "new"
        assert len(contents(out)) == 4
    with claim(KIND, out, overwrite=True) as state:
        assert state == "new"
        assert sorted(path.name for path in out.iterdir()) == [LOCK, "mine"]
    assert [path.name for path in out.iterdir()] == ["mine"]
    with claim(KIND, tmp_path / "b" / "new") as state:
        assert state == "new"


LINKS = (LOCK, "logs", "logs/deep", "done.json", ".done.json.unfinished", "parts/b.bin", "first.json")


@pytest.mark.parametrize("name", LINKS)
@pytest.mark.parametrize("dangling", [False, True])
def test_links_in_place_of_files_are_refused(name: str, dangling: bool, tmp_path: Path) -> None:
    out, elsewhere = fill(tmp_path / "out", *BEGUN), fill(tmp_path / "elsewhere", "x")
    (out / name).unlink(missing_ok=True)
    (out / name).parent.mkdir(exist_ok=True)
    (out / name).symlink_to(elsewhere / "new" if dangling else elsewhere)
    before = contents(out)
    for overwrite, difference in ((True, None), (False, lambda: "")):
        refused = pytest.raises(RunError, match=r"is a link|is not a (lock file|carat result)")
        with refused, claim(KIND, out, overwrite=overwrite, difference=difference):
            pass
    assert (out / name).is_symlink()
    assert contents(out) == before
    assert contents(elsewhere) == {"x": b"x"}


def test_other_links_in_a_shared_folder_are_kept(tmp_path: Path) -> None:
    kind = FolderKind(KIND.name, KIND.markers, KIND.patterns, KIND.finished, shares_folder=True)
    out = fill(tmp_path / "out", *BEGUN)
    (out / "data").symlink_to(tmp_path)
    with claim(kind, out, difference=lambda: "") as state:
        assert state == "begun"
    with pytest.raises(RunError, match="holds 'data', which is not part of a carat result"):
        check_folder(kind, out, overwrite=True)


def test_locks_that_are_none(tmp_path: Path) -> None:
    precious = fill(tmp_path / "mine", "thesis.tex") / "thesis.tex"
    makers = {
        "link": lambda file: file.symlink_to(precious),
        "hard link": lambda file: file.hardlink_to(precious),
        "pipe": os.mkfifo,
        "folder": Path.mkdir,
    }
    for name, make in makers.items():
        (tmp_path / name).mkdir()
        make(tmp_path / name / LOCK)
        for refuse in (refuse_locked, lambda folder: lock(folder).__enter__()):
            with pytest.raises(RunError, match=r"\.lock: is not a lock file of carat; remove it"):
                refuse(tmp_path / name)
    assert precious.read_text() == "thesis.tex"


def test_files_that_a_record_does_not_list_are_foreign(tmp_path: Path) -> None:
    kind = FolderKind(
        KIND.name, KIND.markers, KIND.patterns, KIND.finished, listed=lambda folder: {"parts/a.bin"}
    )
    out = fill(tmp_path, *BEGUN, "parts/.a.bin.unfinished")
    assert kind.foreign_files(out) == []
    fill(out, "parts/b.bin")
    with pytest.raises(RunError, match=r"holds 'parts/b\.bin', which is not part of a carat result"):
        check_folder(kind, out, overwrite=True)


def test_replacing_moves_a_complete_folder(tmp_path: Path) -> None:
    out = fill(tmp_path / "out", *BEGUN)
    with pytest.raises(OSError, match="No space"), replacing(KIND, out, overwrite=True) as new:
        full(fill(new, "first.json"))
    assert sorted(contents(out)) == sorted(BEGUN)
    with replacing(KIND, out, overwrite=True) as new:
        fill(new, "first.json", "second.json", "done.json", "logs/x")
        assert sorted(contents(out)) == sorted(BEGUN)
    assert sorted(contents(out)) == ["done.json", "first.json", "logs/x", "second.json"]
    with replacing(KIND, tmp_path / "a" / "new") as new:
        fill(new, "done.json")
    assert contents(tmp_path / "a") == {"new/done.json": b"done.json"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "out"]


def test_partially_deleted_folder_is_still_recognized(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (*BEGUN, "done.json", "table.csv", "logs/events")
    removing, unlink = shutil.rmtree, Path.unlink
    for deletions in range(6):
        out, left = fill(tmp_path / str(deletions), *names), deletions

        def counted(function: Callable[..., None], path: Path, *args: Any, **kwargs: Any) -> None:
            nonlocal left
            if path.name == LOCK:
                return function(path, *args, **kwargs)
            left -= 1
            if left < 0:
                raise KeyboardInterrupt
            return function(path, *args, **kwargs)

        with monkeypatch.context() as patched:
            patched.setattr(shutil, "rmtree", lambda *a, **k: counted(removing, *a, **k))
            patched.setattr(Path, "unlink", lambda *a, **k: counted(unlink, *a, **k))
            with pytest.raises(KeyboardInterrupt), claim(KIND, out, overwrite=True):
                pass
        assert len(contents(out)) < len(names) or deletions == 0
        with claim(KIND, out, overwrite=True) as state:
            assert state == "new"
            assert contents(out) == {}


def test_lock_message_names_the_holder(tmp_path: Path) -> None:
    with locked_by_another_process(tmp_path) as process:
        message = rf"in use by another carat process \(process {process} on .+\)"
        for refuse in (refuse_locked, lambda folder: check_folder(KIND, folder)):
            with pytest.raises(RunError, match=message):
                refuse(tmp_path)
        with pytest.raises(RunError, match=message), claim(KIND, tmp_path):
            pass
        with pytest.raises(RunError, match=message):
            refuse_locked(tmp_path)  # asking did not disturb the lock
    refuse_locked(tmp_path)
    with claim(KIND, tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []
    refuse_locked(tmp_path / "absent")


def test_releasing_a_lock_keeps_that_of_a_new_folder(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    with lock(tmp_path / "a"):
        (tmp_path / "a").rename(tmp_path / "b")
        fill(tmp_path / "a", LOCK)
    assert (tmp_path / "a" / LOCK).exists()


def test_files(tmp_path: Path) -> None:
    fill(tmp_path, "file", "folder/x")
    check_file(tmp_path / "absent" / "file", False)
    check_file(tmp_path / "file", True)
    with pytest.raises(DataError, match="file: exists already; --overwrite replaces it"):
        check_file(tmp_path / "file", False, DataError)
    with pytest.raises(RunError, match="folder: is a folder; name a file"):
        check_file(tmp_path / "folder", True)
    with lock(tmp_path), pytest.raises(RunError, match="in use by another carat process"):
        check_file(tmp_path / "file", True)


def test_plans_are_compared_as_json(tmp_path: Path) -> None:
    file = tmp_path / "plan.json"
    file.write_text('{"a": [1, 2], "b": {"c": 3}}')
    assert plan_difference(file, {"a": (1, 2), "b": {"c": 3}}) == ""
    assert plan_difference(file, {"a": (1, 2), "b": {"c": 4}}) == "b.c"
    for content in ("{", "[1]", "[" * 100_000, '{"a": 1, "a": 1}'):
        file.write_text(content)
        with pytest.raises(RunError, match=r"plan\.json: .*; --overwrite starts anew"):
            plan_difference(file, {})


def test_first_difference() -> None:
    assert first_difference({"a": {"b": 1}, "c": [1]}, {"a": {"b": 1}, "c": [1]}) == ""
    assert first_difference({"a": {"b": {"c": 1}}}, {"a": {"b": {"c": 2}}}) == "a.b.c"
    assert first_difference({"a": 1, "b": 1}, {"a": 1}) == "b"
    assert first_difference({"a": {}}, {"a": {"x": 1}}) == "a.x"
    assert first_difference([], {"a": 1}) == "value"


@pytest.mark.parametrize("name", ["/dev/full.csv", "/dev/full", "/proc/x.csv", "/sys/x.csv"])
def test_files_of_the_system_are_no_outputs(name: str, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="is in a folder of the system"):
        check_file(Path(name), True)
    (tmp_path / "link.csv").symlink_to(name)
    with pytest.raises(RunError, match="is in a folder of the system"):
        check_file(tmp_path / "link.csv", True)
    with pytest.raises(RunError, match="is in a folder of the system"), claim(RUN, Path(name) / "out"):
        pass
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"x\.csv: .*/file is not a folder; choose another one"):
        check_file(tmp_path / "file" / "deep" / "x.csv", True)
    os.mkfifo(tmp_path / "pipe.csv")
    with pytest.raises(RunError, match="is a named pipe, expected a file"):
        check_file(tmp_path / "pipe.csv", True)


STUDY = study_kind("study", "result.md")


@pytest.fixture
def replace(
    request: pytest.FixtureRequest, trained: TrainedRun, store: Store, tiny: Experiment, tmp_path: Path
) -> tuple[Path, Callable[[], object]]:
    """An output folder of a command, and the command with `--overwrite`."""
    out = tmp_path / "out"
    if request.param == "study":
        with claim_study(STUDY, out, {"store": "x"}, False):
            fill(out, "result.md", "scores/a/seed0.npz", "runs/a/seed0/experiment.yaml")

        def study() -> None:
            with claim_study(STUDY, out, {"store": "y"}, True):
                pass

        return out, study
    if request.param == "store":
        shutil.copytree(store.folder, out)
        return out, lambda: make_synthetic(out, samples=150, overwrite=True)
    if request.param == "predictions":
        predict_in_shards(trained.folder, store.folder, out, split="test", size=20)
        return out, lambda: predict_in_shards(trained.folder, store.folder, out, overwrite=True)
    if request.param == "explanation":
        fill(out, "latents.svg", "latents.csv")
        return out, lambda: explain(trained.folder, store.folder, out, overwrite=True)
    shutil.copytree(trained.folder, out)
    if request.param == "training":
        return out, lambda: train(tiny, store, out, overwrite=True)
    if request.param == "conversion":
        torch.save(released(), tmp_path / "official.bin")
        return out, lambda: convert(tmp_path / "official.bin", "mosei-aligned", out, overwrite=True)
    if request.param == "export":
        fill(out, "model.pt2")
        return out, lambda: export(trained.folder, out / "model.pt2", overwrite=True)
    assert request.param == "file of predictions"
    fill(out, "scores.csv")
    named = list(load(trained.folder).predict_store(store, "test"))
    return out, lambda: write_predictions(named, out / "scores.csv", overwrite=True)


PLANTED = {
    "training": (".weights.safetensors.unfinished", "checkpoints", "logs", "metrics.csv", LOCK),
    "conversion": (".weights.safetensors.unfinished", "metrics.csv"),
    "store": ("features/more.npy", ".manifest.json.unfinished"),
    "predictions": ("done.jsonl", "part-00099.csv"),
    "explanation": ("latents.svg",),
    "study": ("runs/b", "result.md", "scores/b"),
}


@pytest.mark.parametrize(
    ("replace", "name"),
    [(kind, name) for kind, names in PLANTED.items() for name in names],
    indirect=["replace"],
)
def test_overwrite_refuses_planted_links(
    replace: tuple[Path, Callable[[], object]], name: str, tmp_path: Path
) -> None:
    out, call = replace
    precious = fill(tmp_path / "precious", "thesis.tex")
    if (out / name).is_dir():
        shutil.rmtree(out / name)
    (out / name).unlink(missing_ok=True)
    (out / name).symlink_to(precious / "thesis.tex" if "." in name else precious)
    before = contents(out)
    with pytest.raises(CaratError, match=r"is a link|not a lock file|which is not part of a carat store"):
        call()
    assert contents(out) == before
    assert contents(precious) == {"thesis.tex": b"thesis.tex"}


@pytest.mark.parametrize("name", ["x.csv", ".x.csv.unfinished"])
def test_single_files_are_never_written_through_links(
    name: str, trained: TrainedRun, store: Store, tmp_path: Path
) -> None:
    precious = fill(tmp_path / "precious", "thesis.tex") / "thesis.tex"
    (tmp_path / name).symlink_to(precious)
    named = list(load(trained.folder).predict_store(store, "test"))
    if name == "x.csv":
        with pytest.raises(RunError, match="exists already"):
            write_predictions(named, tmp_path / "x.csv")
    write_predictions(named, tmp_path / "x.csv", overwrite=True)
    assert precious.read_text() == "thesis.tex"
    assert not (tmp_path / "x.csv").is_symlink()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["precious", "x.csv"]


FOREIGN = {
    "store": "features/mine.npy",
    "training": "logs/notes.txt",
    "predictions": "part-notes.txt",
    "study": "runs/a/seed0/logs/notes.txt",
}


@pytest.mark.parametrize(("replace", "name"), list(FOREIGN.items()), indirect=["replace"])
def test_only_listed_files_are_deleted(replace: tuple[Path, Callable[[], object]], name: str) -> None:
    out, call = replace
    fill(out, name)
    with pytest.raises(CaratError, match=rf"holds '{name}', which is not part of a carat \w+"):
        call()
    assert (out / name).read_text() == name


@pytest.mark.parametrize(
    "manifest",
    [
        '{"fingerprint": "x"}',
        '{"fingerprint": "x", "files": {"labels.npy": {}, "thesis.tex": {}}}',
        "[" * 100_000,
    ],
)
def test_fake_manifests_delete_nothing(manifest: str, tmp_path: Path) -> None:
    out = fill(tmp_path / "out", "labels.npy", "features/text.npy", "thesis.tex")
    (out / "manifest.json").write_text(manifest)
    before = contents(out)
    with pytest.raises(DataError, match="exists and is not a carat store"):
        make_synthetic(out, samples=150, overwrite=True)
    assert contents(out) == before


def full(*_: object, **__: object) -> None:
    raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize(
    ("replace", "function"),
    [
        ("conversion", "carat.runs.official_weights.write_card"),
        pytest.param(
            "explanation", "carat.inference.explain.explanation.draw_attention", marks=pytest.mark.slow
        ),
        ("store", "carat.data.store.writer.StoreWriter._write_manifest"),
        ("file of predictions", "carat.inference.writers.csv_cell"),
        pytest.param("export", "carat.inference.export.check_outputs", marks=pytest.mark.slow),
    ],
    indirect=["replace"],
)
def test_full_disk_keeps_what_was_to_be_replaced(
    replace: tuple[Path, Callable[[], object]], function: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, call = replace
    before, beside = contents(out), sorted(out.parent.iterdir())
    monkeypatch.setattr(function, full)
    with pytest.raises(OSError, match="No space left on device"):
        call()
    assert contents(out) == before
    assert sorted(out.parent.iterdir()) == beside


def test_full_disk_names_the_file(store: Store, trained: TrainedRun, tmp_path: Path) -> None:
    named = list(load(trained.folder).predict_store(store, "test"))
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limit[1]))
    try:
        for name in ("x.csv", "x.jsonl", "x.parquet"):
            with pytest.raises(OSError, match=rf"File too large.*: '.*/{name}'"):
                write_predictions(named, tmp_path / name)
        with pytest.raises(OSError, match=r": '.*/store'"):
            make_synthetic(tmp_path / "store", samples=150)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == []


FOLDERS = ["training", "conversion", "store", "predictions", "explanation", "study"]
FILES = ["export", "file of predictions"]


@pytest.mark.parametrize("replace", FOLDERS + FILES, indirect=True)
def test_overwrite_refuses_a_locked_folder_and_deletes_nothing(
    replace: tuple[Path, Callable[[], object]],
) -> None:
    out, call = replace
    before = contents(out)
    with locked_by_another_process(out):
        with pytest.raises(RunError, match="in use by another carat process"):
            call()
        assert contents(out) == before
        assert (out / LOCK).exists()


@pytest.mark.parametrize("replace", FOLDERS, indirect=True)
@pytest.mark.parametrize("name", ["thesis.tex", ".git/HEAD", "deep/er/thesis.tex"])
def test_overwrite_refuses_foreign_files_and_deletes_nothing(
    replace: tuple[Path, Callable[[], object]], name: str
) -> None:
    out, call = replace
    fill(out, name)
    before = contents(out)
    with pytest.raises(CaratError, match=rf"holds '{name}', which is not part of a carat \w+"):
        call()
    assert contents(out) == before


def test_conversion_replaces_a_run(trained: TrainedRun, tmp_path: Path) -> None:
    torch.save(released(), tmp_path / "official.bin")
    out = Path(shutil.copytree(trained.folder, tmp_path / "out"))
    with pytest.raises(RunError, match="holds a run already; --overwrite replaces it"):
        convert(tmp_path / "official.bin", "mosei-aligned", out)
    convert(tmp_path / "official.bin", "mosei-aligned", out, overwrite=True)
    assert not (out / "metrics.csv").exists()
    assert load(out, "cpu").card.store == ""
    assert RUN.foreign_files(out) == []


def test_store_behind_a_link_is_replaced(store: Store, tmp_path: Path) -> None:
    out = Path(shutil.copytree(store.folder, tmp_path / "out"))
    (tmp_path / "link").symlink_to(out)
    make_synthetic(tmp_path / "link", samples=150, overwrite=True)
    assert open_store(out).manifest.fingerprint != store.manifest.fingerprint
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "out"]


def test_store_locked_during_the_write_is_not_replaced(store: Store, tmp_path: Path) -> None:
    out = Path(shutil.copytree(store.folder, tmp_path / "out"))
    writer = StoreWriter(out, "new", ["a"], {"text": "x"}, ["train"], overwrite=True)
    at_work = pytest.raises(RunError, match="in use by another carat process")
    with locked_by_another_process(out), at_work, writer:
        writer.append("a", "train", [1], {"text": np.ones((2, 3))})
    assert open_store(out).manifest.fingerprint == store.manifest.fingerprint
    assert [path.name for path in tmp_path.iterdir()] == ["out"]
