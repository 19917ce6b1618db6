"""Python client of the server, with the methods of `Predictor`."""

from __future__ import annotations

import http.client
import io
import json
import os
import secrets
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO
from urllib.parse import quote, urlsplit

from carat.utils.errors import CaratError, ConfigError, DataError, RunError, printable, shorten

if TYPE_CHECKING:
    from numpy.typing import ArrayLike

    from carat.inference.clips.timeline import Timeline
    from carat.inference.prediction import Prediction

OnProgress = Callable[[str, int, int | None], None]
"""Receives the step, how much of it is done, and its total if that is known."""
BLOCK = 1 << 16


class ServerError(CaratError):
    """The server cannot be reached, or did not answer a request.

    Args:
        message: one line.
        status: HTTP status; 0 if there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


class Client:
    """A server that `carat serve` runs, used like a `Predictor`. Nothing but the standard library is needed.

    Args:
        url: address of the server, such as "http://127.0.0.1:8000".
        token: its token, if it has one.
        run: name of the run; defaults to the first one of the server.
        timeout: seconds without any answer after which a request fails.

    Raises:
        ConfigError: the address is none.

    Example:
        client = carat.Client("http://127.0.0.1:8000")
        client.url
    """

    def __init__(
        self, url: str, token: str | None = None, *, run: str | None = None, timeout: float = 120.0
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ConfigError(f"{url}: expected an address such as http://127.0.0.1:8000")
        self.url, self.run = url.rstrip("/"), run
        self._parts, self._timeout = parts, timeout
        self._headers = {} if token is None else {"Authorization": f"Bearer {token}"}

    def __repr__(self) -> str:
        return f"Client({self.url!r})" if self.run is None else f"Client({self.url!r}, run={self.run!r})"

    def runs(self) -> list[dict[str, Any]]:
        """Describe the runs of the server: names, labels, thresholds, modalities and validation metrics.

        Raises:
            ServerError: the server cannot be reached, or refuses.
        """
        runs: list[dict[str, Any]] = self._json("GET", "/v1/runs")["runs"]
        return runs

    @property
    def labels(self) -> list[str]:
        """Label names of the run, asked of the server."""
        runs = self.runs()
        for info in runs:
            if self.run in (None, info["name"]):
                labels: list[str] = info["labels"]
                return labels
        raise RunError(f"{self.url} has no run '{self.run}', but {', '.join(x['name'] for x in runs)}")

    def predict_text(
        self,
        texts: Sequence[str] | str,
        *,
        words: int = 0,
        conversations: Sequence[str] | None = None,
    ) -> list[Prediction]:
        """Score texts, see `Predictor.predict_text`.

        Args:
            texts: non-empty texts, or a single one.
            words: maximum number of words to which each label is attributed.
            conversations: conversation name of each text, from which contexts are extracted.

        Returns:
            One prediction per text, in order.

        Raises:
            ServerError: the server cannot be reached, or refuses; the message says why.
        """
        from carat.serve.timelines import to_prediction

        texts = [texts] if isinstance(texts, str) else list(texts)
        if not texts:
            return []
        request: dict[str, Any] = {"texts": texts, "words": words, "run": self.run}
        if conversations is not None:
            request["conversations"] = list(conversations)
        answer = self._json("POST", "/v1/predict/text", json.dumps(request).encode(), "application/json")
        return [to_prediction(values) for values in answer["predictions"]]

    def predict(self, features: Mapping[str, ArrayLike], *, raw: bool | None = None) -> Prediction:
        """Score one sample, see `Predictor.predict`.

        Args:
            features: (T, d) by modality.
            raw: whether the features are as extracted.

        Returns:
            Scores, labels and attribution.

        Raises:
            ServerError: the server cannot be reached, or refuses; the message says why.
        """
        return self.predict_batch([features], raw=raw)[0]

    def predict_batch(
        self, samples: Sequence[Mapping[str, ArrayLike]], *, raw: bool | None = None
    ) -> list[Prediction]:
        """Score several samples, see `Predictor.predict_batch`.

        Args:
            samples: samples, see `predict`.
            raw: see `predict`.

        Returns:
            One prediction per sample, in order.

        Raises:
            ServerError: the server cannot be reached, or refuses; the message says why.
        """
        import numpy as np

        from carat.serve.timelines import to_prediction

        if not samples:
            return []
        arrays = {f"{i}/{m}": np.asarray(x) for i, sample in enumerate(samples) for m, x in sample.items()}
        if any(array.dtype.hasobject for array in arrays.values()):
            raise DataError("features must be numbers")
        content = io.BytesIO()
        np.savez(content, **arrays)  # type: ignore[arg-type]  # numpy's stub is wrong
        content.seek(0)
        fields = [] if raw is None else [("raw", str(raw).lower())]
        answer = self._upload("/v1/predict/features", [_Part("file", "f.npz", content)], fields)
        by_id = {x["id"]: x for x in answer["predictions"]}
        return [to_prediction(by_id[str(i)]) for i in range(len(samples))]

    def predict_clip(
        self,
        file: str | os.PathLike[str],
        *,
        transcript: str | os.PathLike[str] | None = None,
        segments: str = "auto",
        words: int = 3,
        on_progress: OnProgress = lambda step, done, total: None,
    ) -> Timeline:
        """Score an audio or video file over time, see `Predictor.predict_clip`. It is uploaded.

        Args:
            file: audio or video file.
            transcript: file of its transcript; by default, speech is recognized.
            segments: what is scored.
            words: maximum number of words to which each label is attributed.
            on_progress: called with the step, how much of it is done, and its total if that is known.

        Returns:
            Scored segments with times; the clip has no features.

        Raises:
            ServerError: the server cannot be reached, refuses, or cannot score the clip.
            OSError: a file cannot be read.
        """
        from carat.serve.timelines import TimelineResult, to_timeline

        path = Path(file)
        fields = [("segments", segments), ("words", str(words))]
        with path.open("rb") as clip:
            parts = [_Part("file", path.name, clip)]
            if transcript is None:
                job = self._upload("/v1/predict/clip", parts, fields)
            else:
                with Path(transcript).open("rb") as opened:
                    parts.append(_Part("transcript", Path(transcript).name, opened))
                    job = self._upload("/v1/predict/clip", parts, fields)
        address = f"/v1/jobs/{quote(job['id'], safe='')}"
        try:
            self._follow(f"{address}/events", on_progress)
            result = TimelineResult.model_validate(self._json("GET", f"{address}/result/json"))
        finally:  # also on Ctrl-C: nothing of the clip stays on the server
            self._request("DELETE", address).close()
        return to_timeline(result, path)

    def _follow(self, path: str, on_progress: OnProgress) -> None:
        """Wait for the end of a job; its result can then be read."""
        job: dict[str, Any] = {"state": "failed", "error": "the connection ended"}
        with closing(self._request("GET", path)) as answer:
            for line in _lines(answer):
                if not line.startswith(b"data: "):
                    continue
                job = _parse(line.removeprefix(b"data: "))
                if progress := job.get("progress"):
                    on_progress(progress["step"], progress["done"], progress["total"])
        if job.get("state") != "finished":
            reason = job.get("error") or f"the clip was {job.get('state', 'deleted')}"
            raise ServerError(shorten(printable(str(reason))))

    def _json(self, method: str, path: str, body: bytes | None = None, kind: str = "") -> dict[str, Any]:
        headers = {"Content-Type": kind} if kind else {}
        with closing(self._request(method, path, body, headers)) as answer:
            return _parse(answer.read())

    def _upload(self, path: str, parts: Sequence[_Part], fields: Sequence[tuple[str, str]]) -> dict[str, Any]:
        """Send a form with files, which are never in memory as a whole."""
        fields = [*fields, *([] if self.run is None else [("run", self.run)])]
        boundary = secrets.token_hex(16)
        with tempfile.TemporaryFile() as body:
            _write_form(body, boundary, parts, fields)
            length = body.tell()
            body.seek(0)
            headers = {
                "Content-Type": f"multipart/form-data; boundary={boundary}",
                "Content-Length": str(length),
            }
            with closing(self._request("POST", path, body, headers)) as answer:
                return _parse(answer.read())

    def _request(
        self,
        method: str,
        path: str,
        body: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> http.client.HTTPResponse:
        """Send a request; the answer is to be closed, which closes the connection.

        Raises:
            ServerError: the server cannot be reached, or answers with an error.
        """
        https = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if https else http.client.HTTPConnection
        try:
            connection = kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)
            sent = {**self._headers, **(headers or {}), "Connection": "close"}
            connection.request(method, self._parts.path.rstrip("/") + path, body, sent)
            answer = connection.getresponse()
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise ServerError(f"{self.url}: cannot be reached ({error})") from error
        if answer.status >= 400:
            with closing(answer):
                raise ServerError(_reason(answer), answer.status)
        return answer


@dataclass(frozen=True)
class _Part:
    """A file of a form."""

    field: str
    name: str
    content: BinaryIO


def _write_form(
    body: IO[bytes], boundary: str, parts: Sequence[_Part], fields: Sequence[tuple[str, str]]
) -> None:
    for name, value in fields:
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        body.write(f"{head}{value}\r\n".encode())
    for part in parts:
        name = part.name.replace('"', "_").replace("\r", "_").replace("\n", "_")
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{part.field}"; filename="{name}"\r\n'
        body.write(f"{head}Content-Type: application/octet-stream\r\n\r\n".encode(errors="replace"))
        shutil.copyfileobj(part.content, body, BLOCK)
        body.write(b"\r\n")
    body.write(f"--{boundary}--\r\n".encode())


def _lines(answer: http.client.HTTPResponse) -> Iterator[bytes]:
    try:
        yield from answer
    except (OSError, http.client.HTTPException) as error:
        raise ServerError(f"the connection ended ({error})") from error


def _parse(content: bytes) -> dict[str, Any]:
    try:
        values = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise ServerError("the answer is not JSON; is it a server of carat?") from error
    if not isinstance(values, dict):
        raise ServerError("unexpected answer; is it a server of carat?")
    return values


def _reason(answer: http.client.HTTPResponse) -> str:
    """What the server says of an error."""
    try:
        message = json.loads(answer.read(1 << 16))["error"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError, http.client.HTTPException):
        message = answer.reason
    return f"{shorten(printable(str(message)))} (status {answer.status})"
