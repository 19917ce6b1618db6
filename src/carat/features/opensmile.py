"""The low-level descriptors of eGeMAPSv02 by openSMILE (extra `opensmile`).

openSMILE may be used for private purposes, research and education; products need a licence of audEERING.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.windows import features_of_sound
from carat.utils.errors import DataError

SAMPLE_RATE = 16_000
RATE = 100


class OpenSmileExtractor:
    """25 descriptors every 10 ms, such as `Loudness_sma3` and `F0semitoneFrom27.5Hz_sma3nz`.

    Raises:
        DataError: openSMILE is not installed.
    """

    rate = float(RATE)

    def __init__(self) -> None:
        try:
            import opensmile
        except ImportError as error:
            raise DataError("openSMILE needs the extra: pip install 'carat-emotion[opensmile]'") from error
        self._smile = opensmile.Smile(
            feature_set=opensmile.FeatureSet.eGeMAPSv02,
            feature_level=opensmile.FeatureLevel.LowLevelDescriptors,
        )
        self.names = tuple(self._smile.feature_names)

    def extract(self, media: Media) -> FeatureSequence | None:
        """Descriptors of the whole sound; None if there is none. Times are the middles of the steps."""
        return features_of_sound(media, SAMPLE_RATE, RATE, len(self.names), self._features)

    def _features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        frame = self._smile.process_signal(samples, SAMPLE_RATE)
        return np.asarray(frame.to_numpy(), np.float32)
