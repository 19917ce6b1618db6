"""Label sets of the corpora, in their published order: the order of the L axis."""

from __future__ import annotations

from collections.abc import Mapping

MOSEI = ("happy", "sad", "anger", "surprise", "disgust", "fear")
"""CMU-MOSEI, in the order of the SDK's label sequence; also those of the built-in benchmark."""
MOSEI_BY_NAME = ("anger", "disgust", "fear", "happy", "sad", "surprise")
"""CMU-MOSEI in alphabetical order, as in the arrays named `ey` and what was made from them."""
M3ED = ("happy", "neutral", "sad", "disgust", "anger", "fear", "surprise")
IEMOCAP = ("happy", "sad", "neutral", "angry", "excited", "frustrated")
IEMOCAP_4 = ("neutral", "happy", "sad", "angry")
"""IEMOCAP with four emotions, in the order of MulT."""
MELD = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
EMORYNLP = ("joyful", "mad", "peaceful", "neutral", "sad", "powerful", "scared")
"""EmoryNLP, in the order of COSMIC."""
DAILYDIALOG = ("happy", "neutral", "anger", "sad", "fear", "surprise", "disgust")
"""DailyDialog, in the order of COSMIC."""
LABEL_SETS: Mapping[str, tuple[str, ...]] = {
    "mosei": MOSEI,
    "mosei-by-name": MOSEI_BY_NAME,
    "m3ed": M3ED,
    "iemocap": IEMOCAP,
    "iemocap-4": IEMOCAP_4,
    "meld": MELD,
    "emorynlp": EMORYNLP,
    "dailydialog": DAILYDIALOG,
}
"""Label sets by the name that `--label-names` accepts."""
