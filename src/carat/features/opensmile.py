"""The low-level descriptors of eGeMAPSv02 by openSMILE (extra `opensmile`).

openSMILE may be used for private purposes, research and education; products need a licence of audEERING.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.windows import by_window
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
        if media.info.audio is None:
            return None
        step = SAMPLE_RATE // RATE
        parts = list(by_window(media.audio(SAMPLE_RATE), SAMPLE_RATE, step, self._features))
        values = np.concatenate(parts) if parts else np.zeros((0, len(self.names)), np.float32)
        times = (np.arange(len(values)) + 0.5) / self.rate
        return FeatureSequence(values, times, self.rate, len(values))

    def _features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        frame = self._smile.process_signal(samples, SAMPLE_RATE)
        return np.asarray(frame.to_numpy(), np.float32)
