"""Requests and answers of the API; the OpenAPI document is made of them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

MAX_NAME = 200
"""Maximum length in characters of names of runs, speakers and conversations."""
Name = Annotated[str, Field(max_length=MAX_NAME)]
Score = Annotated[float, Field(ge=0, le=1)]
State = Literal["queued", "running", "finished", "failed", "cancelled"]
FORMATS = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "eaf": "application/xml",
    "TextGrid": "text/plain; charset=utf-8",
    "vtt": "text/vtt; charset=utf-8",
    "html": "text/html; charset=utf-8",
}
"""Formats of the result of a clip, with their media types."""
Decision = Literal["present", "absent", "unsure"]
Format = Literal["json", "csv", "eaf", "TextGrid", "vtt", "html"]


class TextRequest(BaseModel):
    """Texts to score."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={
            "examples": [
                {"texts": ["I am so relieved, but I miss him"], "words": 3},
                {
                    "texts": ["Where is he?", "Gone.", "I miss him"],
                    "conversations": ["call", "call", "call"],
                    "speakers": ["Ann", "Ben", "Ann"],
                },
            ]
        },
    )

    texts: list[str] = Field(min_length=1, description="Non-empty texts.")
    run: Name | None = Field(None, description="Name of the run; defaults to the first one of `/v1/runs`.")
    words: int = Field(
        0,
        ge=0,
        le=100,
        description="Largest number of words to which each label is attributed. Every word is left out in "
        "turn, which takes one forward pass per word.",
    )
    conversations: list[Name] | None = Field(
        None,
        description="Conversation of each text, from which its context is taken; the texts of a conversation "
        "are in order. An empty name means no context. Only for runs with `context`.",
    )
    speakers: list[Name] | None = Field(None, description="Who says each text; returned as it is.")

    @model_validator(mode="after")
    def _check_lengths(self) -> TextRequest:
        for name in ("conversations", "speakers"):
            values = getattr(self, name)
            if values is not None and len(values) != len(self.texts):
                raise ValueError(f"{len(self.texts)} texts, but {len(values)} {name}")
        return self


class WordEffect(BaseModel):
    """A word of a text and its effect on the scores."""

    start: int = Field(description="Position of its first character in the text.")
    end: int = Field(description="Position after its last character.")
    drops: dict[str, float] = Field(
        description="By label, by how much the score is lower without the word; negative if it is higher."
    )


class PredictionResult(BaseModel):
    """Prediction of one sample."""

    scores: dict[str, Score] = Field(description="By label.")
    labels: list[str] = Field(description="Labels whose score is above the threshold.")
    attribution: dict[str, str] = Field(
        {}, description="By label, the present modality with the strongest evidence for it."
    )
    words: dict[str, list[str]] = Field(
        {}, description="By label, the words with the largest attribution by occlusion, if requested."
    )
    decisions: dict[str, Decision] = Field({}, description="By label, if the server promises a risk.")
    notes: list[str] | None = Field(
        None,
        description="What is unusual about the sample; null if the run knows nothing of its training data.",
    )


class TextResult(PredictionResult):
    """Prediction of a text."""

    text: str
    speaker: str = ""
    effects: list[WordEffect] = Field([], description="Words that the model reads, if `words` is not 0.")
    context_drops: dict[str, float] = Field(
        {}, description="By label, by how much the score is lower without the context, if it has one."
    )


class TextResponse(BaseModel):
    """Predictions of texts, in order."""

    run: str
    thresholds: dict[str, float] = Field(description="By label, in the order of the labels.")
    predictions: list[TextResult]
    notes: list[str] = []


class NamedPrediction(PredictionResult):
    """Prediction of a sample of a feature file."""

    id: str


class FeaturesResponse(BaseModel):
    """Predictions of the samples of a feature file, in order."""

    run: str
    thresholds: dict[str, float]
    predictions: list[NamedPrediction]
    notes: list[str] = []


class ModalityInfo(BaseModel):
    """What a run reads of a modality."""

    width: int = Field(description="Features per time step.")
    max_length: int = Field(description="Largest number of time steps that the model reads.")
    source: str


class RunInfo(BaseModel):
    """A run that is served."""

    name: str
    method: str
    labels: list[str]
    thresholds: dict[str, float] = Field(description="By label, on the scale of the scores.")
    calibrated: bool = Field(description="Whether scores are calibrated.")
    modalities: dict[str, ModalityInfo]
    validation: dict[str, float | None] = Field(description="Metrics on validation; null where undefined.")
    trained_on: str = Field(description="Name of the store with the training data.")
    reads_text: bool
    reads_clips: bool
    context: int = Field(description="Largest number of tokens read before and after a text.")
    notes: list[str] = []


class RunsResponse(BaseModel):
    """The runs that are served; the first one is the default."""

    runs: list[RunInfo]


class Health(BaseModel):
    """State of the server."""

    status: Literal["ok", "stopping"]
    version: str


class Progress(BaseModel):
    """What is being done for a clip."""

    step: str
    done: int = 0
    total: int | None = None


class JobStatus(BaseModel):
    """State of the scoring of a clip."""

    model_config = ConfigDict(
        json_schema_extra={
            "examples": [
                {
                    "id": "u2Ds0x3uXf2p7q9sO1bW0w",
                    "state": "running",
                    "file": "interview.mp4",
                    "runs": ["my-run"],
                    "progress": {"step": "interview.mp4, voice, seconds", "done": 12, "total": 60},
                }
            ]
        }
    )

    id: str
    state: State
    file: str = Field(description="Name of the clip.")
    runs: list[str] = Field(description="Runs by which it is scored.")
    progress: Progress | None = None
    error: str = Field("", description="Why it failed.")
    unavailable: dict[str, str] = Field({}, description="By format, why the result has none of it.")
    expires: float | None = Field(None, description="When the result is deleted, in seconds since 1970.")


class ErrorResponse(BaseModel):
    """Why a request was not answered."""

    error: str = Field(description="One line.")
