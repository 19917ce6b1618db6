"""Published layouts of dialogue pickles, and mappings of their parts given by the user.

Sources of the layouts: the data loaders of DialogueRNN, DialogueGCN and COSMIC (declare-lab/conv-emotion), of
MMGCN (hujingwen6666/MMGCN), and of SDT and M3ED.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from carat.data.corpora.dialogue_parts import Part, list_parts
from carat.data.corpora.labels import LABEL_SETS
from carat.utils.errors import ConfigError, DataError, did_you_mean, printable

MODALITIES = ("text", "visual", "audio")
"""Order of the modalities of a published layout."""
SPLITS = ("train", "valid", "test")
FEW_UTTERANCES = 30
"""Utterances below which the last label may be missing; otherwise, the labels are those of another set."""
ROLES = ("labels", "sentences", *SPLITS)
"""Roles of a part other than features."""


@dataclass(frozen=True)
class Roles:
    """The positions of parts by role."""

    features: Mapping[str, tuple[int, ...]]
    """Positions by modality; the vectors of several parts are averaged."""
    labels: int
    splits: Mapping[str, int]
    """Positions of the lists of dialogue IDs by split."""
    sentences: int | None = None

    def describe(self, parts: Sequence[Part]) -> str:
        """Describe which parts are the features."""
        lines = []
        for m, positions in self.features.items():
            which = "part " if len(positions) == 1 else "mean of parts "
            which += ", ".join(map(str, positions))
            lines.append(f"{m} {which} ({parts[positions[0]].width} wide)")
        return "; ".join(lines)


@dataclass(frozen=True)
class Layout:
    """A published layout: the role of each part, with what it must hold."""

    name: str
    corpus: str
    """A key of `LABEL_SETS`."""
    spec: str = field(repr=False)
    """Roles by position; features with their width. `spare` parts are vectors that are not used."""

    @property
    def slots(self) -> list[tuple[str, int]]:
        """Role and width (0: any) by position."""
        slots = [slot.partition(":") for slot in self.spec.split()]
        return [(role, int(width or 0)) for role, _, width in slots]

    @property
    def roles(self) -> Roles:
        """The positions by role."""
        positions: dict[str, tuple[int, ...]] = {}
        for position, (role, _) in enumerate(self.slots):
            positions[role] = (*positions.get(role, ()), position)
        return Roles(
            features={m: positions[m] for m in MODALITIES if m in positions},
            labels=positions["labels"][0],
            splits={split: positions[split][0] for split in SPLITS if split in positions},
            sentences=positions["sentences"][0],
        )

    def matches(self, parts: Sequence[Part]) -> bool:
        """Whether number, kinds, widths and ranges of the parts are those of the layout."""
        slots = self.slots
        return len(parts) == len(slots) and all(
            self._fits(part, role, width) for part, (role, width) in zip(parts, slots, strict=True)
        )

    def _fits(self, part: Part, role: str, width: int) -> bool:
        if role in SPLITS:
            return part.kind == "IDs"
        if role in (*MODALITIES, "spare"):
            return part.kind == "vectors" and width in (0, part.width)
        if role == "labels":
            last = len(LABEL_SETS[self.corpus]) - 1
            has_all = part.high == last or (part.high < last and part.count < FEW_UTTERANCES)
            return part.kind == "integers" and part.low >= 0 and has_all
        if role == "sentiment":
            return part.kind == "integers" and part.low >= 0 and part.high <= 2
        if role == "gender":
            return part.kind == "texts" and bool(part.words) and part.words <= {"F", "M"}
        if role == "turn":
            is_text = part.kind == "texts" and bool(part.words) and part.words <= {"0", "1"}
            return is_text or (part.kind == "integers" and part.low >= 0 and part.high <= 1)
        if role == "one-hot":
            return part.kind == "indicators" and part.width > 1
        if role in ("sentences", "speakers"):
            return part.kind == "texts"
        if role == "people":
            return part.kind == "texts" and not (part.words and part.words <= {"F", "M", "0", "1"})
        return part.kind not in ("IDs", "vectors", "indicators")  # names of utterances, or the rest


ROBERTA = "text:1024 text:1024 text:1024 text:1024"
"""The last four layers of RoBERTa, which COSMIC averages by default."""
LAYERS = "text:1024 spare:1024 spare:1024 spare:1024"
"""The same layers, of which SDT reads the last one, which is the first part."""
LAYOUTS = (
    Layout(
        "DialogueRNN",
        "iemocap",
        "names gender labels text:100 audio:100 visual:512 sentences train test",
    ),
    Layout("DialogueRNN", "meld", "names one-hot labels text:600 audio:300 sentences train test sentiment"),
    Layout("MMGCN", "iemocap", "names gender labels text:100 audio:1582 visual:342 sentences train test"),
    Layout(
        "MMGCN", "iemocap", "names gender labels text:100 audio:1582 visual:342 sentences train test rest"
    ),
    Layout("MMGCN", "meld", "names one-hot labels text:600 audio:300 visual:342 sentences train test rest"),
    Layout("COSMIC", "iemocap", f"gender labels {ROBERTA} sentences train test valid"),
    Layout("COSMIC", "meld", f"one-hot labels sentiment {ROBERTA} sentences train test valid"),
    Layout("COSMIC", "emorynlp", f"one-hot labels {ROBERTA} sentences train test valid"),
    Layout("COSMIC", "emorynlp", f"people labels {ROBERTA} sentences train test valid"),
    Layout("COSMIC", "dailydialog", f"turn labels {ROBERTA} sentences train test valid"),
    Layout(
        "SDT",
        "iemocap",
        f"names gender labels {LAYERS} audio:1582 visual:342 sentences train test",
    ),
    Layout(
        "SDT",
        "meld",
        f"names one-hot labels {LAYERS} audio:300 visual:342 sentences train test rest",
    ),
)
"""Layouts that the format `erc` recognizes. No two of them match the same file."""
M3ED = Layout("M3ED", "m3ed", "names speakers labels text audio visual sentences train valid test")


def recognize(file: Path, parts: Sequence[Part]) -> Layout:
    """Recognize a published layout.

    Raises:
        DataError: no layout matches, or the file has the name of another corpus.
    """
    layout = next((layout for layout in LAYOUTS if layout.matches(parts)), None)
    if layout is None:
        if M3ED.matches(parts):
            raise DataError(f"{file}: the parts are in the order of M3ED; import it as m3ed")
        raise DataError(f"{file}: unknown layout, {list_parts(parts)}; {_advise(parts)}")
    named = {corpus for corpus in {x.corpus for x in LAYOUTS} if corpus in file.stem.lower()}
    if named and layout.corpus not in named:
        raise DataError(
            f"{file}: has the parts of {layout.corpus} in the layout of {layout.name}, but the name of "
            f"{named.pop()}; rename the file, or {_advise(parts)}"
        )
    return layout


def check_last_label(file: Path, layout: Layout, parts: Sequence[Part]) -> None:
    """Check that the labels of a file, imported as a given layout, are not those of a smaller set.

    Raises:
        DataError: the last label never occurs.
    """
    part, last = parts[layout.roles.labels], len(LABEL_SETS[layout.corpus]) - 1
    if part.kind == "integers" and part.high < last and part.count >= FEW_UTTERANCES:
        raise DataError(f"{file}: part {part} is not the labels of {layout.name}, 0..{last}; others are erc")


def _advise(parts: Sequence[Part]) -> str:
    """Return the option that names the parts, as far as they are clear."""
    features = [part.position for part in parts if part.kind == "vectors"]
    labels = [part.position for part in parts if part.kind == "integers"]
    ids = [part.position for part in parts if part.kind == "IDs"]
    example = [f"text={features[0] if features else 'N'}", f"labels={labels[0] if labels else 'N'}"]
    example += [f"train={ids[0] if ids else 'N'}", f"test={ids[1] if len(ids) > 1 else 'N'}"]
    return f"say what they are: --parts {','.join(example)} --label-names A,B,…"


def parse_parts(value: str | Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Parse a mapping of parts.

    Args:
        value: positions by role, as text such as "text=2+3,audio=4,labels=1,train=7,test=8", or as a dict.
            Roles other than labels, sentences, train, valid and test are modalities.

    Returns:
        Positions by role.

    Raises:
        ConfigError: not of this form.
    """
    pairs: list[tuple[Any, Any]]
    if isinstance(value, str):
        pairs = [
            (role.strip(), position) for role, _, position in (x.partition("=") for x in value.split(","))
        ]
    elif isinstance(value, Mapping):
        pairs = list(value.items())
    else:
        raise ConfigError(f"parts: expected text or a dict, found {type(value).__name__}")
    parsed: dict[str, tuple[int, ...]] = {}
    for role, given in pairs:
        items = (
            given.split("+")
            if isinstance(given, str)
            else given
            if isinstance(given, (list, tuple))
            else [given]
        )
        try:
            positions = tuple(int(x) if isinstance(x, (int, str)) else int("") for x in items)
        except ValueError as error:
            raise ConfigError(
                f"parts: expected ROLE=POSITION, such as text=3 or text=2+3, found "
                f"'{printable(f'{role}={given}')[:60]}'"
            ) from error
        if not isinstance(role, str) or not role or role in parsed:
            raise ConfigError(f"parts: role '{printable(str(role))[:60]}' is empty or given twice")
        if not positions or (role in ROLES and len(positions) > 1):
            raise ConfigError(f"parts: {role} needs {'one position' if role in ROLES else 'a position'}")
        parsed[role] = positions
    return parsed


def map_parts(file: Path, parts: Sequence[Part], given: Mapping[str, tuple[int, ...]]) -> Roles:
    """Check a mapping of parts against a file.

    Labels may be omitted if one part has integers, and train and test if there are two lists of IDs.

    Args:
        file: for messages.
        parts: parts of the file.
        given: positions by role, see `parse_parts`.

    Raises:
        DataError: a role is missing, or a part does not exist or is not what its role needs.
    """
    for role, positions in given.items():
        for position in positions:
            if not 0 <= position < len(parts):
                raise DataError(f"{file}: no part {position} for {role}; it has parts 0 to {len(parts) - 1}")
    used = [position for positions in given.values() for position in positions]
    twice = next((position for position in used if used.count(position) > 1), None)
    if twice is not None:
        names = [role for role, positions in given.items() if twice in positions]
        raise DataError(f"{file}: part {twice} is given twice, as {' and '.join(names)}")
    found = dict(given)
    integers = [part.position for part in parts if part.kind == "integers"]
    ids = [part.position for part in parts if part.kind == "IDs"]
    if "labels" not in found and len(integers) == 1:
        found["labels"] = (integers[0],)
    if not set(SPLITS) & set(found) and len(ids) == 2:
        found |= {"train": (ids[0],), "test": (ids[1],)}
    missing = [role for role in ("labels", "train", "test") if role not in found]
    features = {role: positions for role, positions in found.items() if role not in ROLES}
    if missing or not features:
        missing = [*missing, *([] if features else ["modality"])]
        raise DataError(f"{file}: --parts names no {', '.join(missing)}; found {list_parts(parts)}")
    for m, positions in features.items():
        check_features(file, m, [parts[position] for position in positions])
    for role, kinds in {
        "labels": ("integers", "texts"),
        "sentences": ("texts",),
        **dict.fromkeys(SPLITS, ("IDs",)),
    }.items():
        if role in found and (part := parts[found[role][0]]).kind not in kinds:
            raise DataError(f"{file}: part {part} cannot be {role}, which needs {' or '.join(kinds)}")
    return Roles(
        features=features,
        labels=found["labels"][0],
        splits={split: found[split][0] for split in SPLITS if split in found},
        sentences=found["sentences"][0] if "sentences" in found else None,
    )


def check_features(file: Path, modality: str, parts: Sequence[Part]) -> None:
    """Check that parts hold the features of a modality.

    Raises:
        DataError: they hold something else, such as one-hot vectors of speakers, or differ in width.
    """
    for part in parts:
        if part.kind == "indicators":
            raise DataError(
                f"{file}: part {part} cannot be {modality}: vectors of only 0 and 1 are speakers or classes, "
                "not features"
            )
        if part.kind != "vectors":
            raise DataError(f"{file}: part {part} cannot be {modality}, which needs vectors")
    if len({part.width for part in parts}) > 1:
        raise DataError(f"{file}: {modality}: parts of different width cannot be averaged")


def parse_label_names(value: str | Sequence[str]) -> tuple[str, ...]:
    """Parse label names, in the order of the labels' numbers.

    Args:
        value: names, as a sequence or separated by commas, or a key of `LABEL_SETS`.

    Raises:
        ConfigError: not of this form.

    >>> parse_label_names("sad, happy")
    ('sad', 'happy')
    """
    if isinstance(value, str) and value.strip().lower() in LABEL_SETS:
        return LABEL_SETS[value.strip().lower()]
    if not isinstance(value, (str, list, tuple)):
        raise ConfigError(f"label names: expected names, found {type(value).__name__}")
    given = value.split(",") if isinstance(value, str) else value
    names = tuple(name.strip() if isinstance(name, str) else "" for name in given)
    if len(names) == 1:
        hint = did_you_mean(names[0], LABEL_SETS) or f"; known sets: {', '.join(LABEL_SETS)}"
        raise ConfigError(
            f"label names: expected several names separated by commas, found '{names[0]}'{hint}"
        )
    if not all(names) or len(set(names)) < len(names):
        raise ConfigError(f"label names: a name is empty or given twice in '{printable(str(value))[:80]}'")
    return names
