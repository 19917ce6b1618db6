"""Voice by kaldi-native-fbank (extra `clip`): log-mel energies, loudness, pitch and voicing.

Kaldi's pitch tracker (Ghahremani et al., "A pitch extraction algorithm tuned for automatic speech
recognition", ICASSP 2014) has a pitch for every step, interpolated where nobody speaks; voicing says how far
to trust it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from carat.features.description import VoiceSettings
from carat.features.extractor import FeatureSequence
from carat.features.media import Media
from carat.features.windows import features_of_sound
from carat.utils.errors import DataError

SAMPLE_RATE = 16_000
SCALE = 32_768
"""Kaldi expects 16-bit samples."""
FINE = 100
"""Steps per second that are computed; lower rates are means of them."""


class VoiceExtractor:
    """Log-mel energies, log energy, voicing and log F0 per time step.

    Voicing is the normalized cross-correlation at the period of the pitch, up to 1.

    Args:
        settings: parameters.

    Raises:
        DataError: kaldi-native-fbank is not installed.
    """

    def __init__(self, settings: VoiceSettings) -> None:
        try:
            import kaldi_native_fbank
        except ImportError as error:
            raise DataError("voice needs the extra: pip install 'carat-emotion[clip]'") from error
        self._kaldi = kaldi_native_fbank
        self._settings = settings
        self.rate = float(settings.rate)
        self.names = (
            *(f"log_mel_{i}" for i in range(settings.mel_bins)),
            "log_energy",
            "voicing",
            "log_f0",
        )

    def extract(self, media: Media) -> FeatureSequence | None:
        """Features of the whole sound; None if there is none. Times are the middles of the steps."""
        return features_of_sound(media, SAMPLE_RATE, self._settings.rate, len(self.names), self._features)

    def _features(self, samples: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features (T, D) of samples (N,)."""
        scaled = samples * np.float32(SCALE)
        mel = _frames(self._kaldi.OnlineFbank(self._fbank_options()), scaled)
        pitch = _frames(self._kaldi.OnlinePitch(*self._pitch_options()), scaled)
        length = min(len(mel), len(pitch))
        voicing = 1.0001 - np.maximum(1 + pitch[:length, :1] / 2, 0) ** (1 / 0.15)  # undoes Kaldi's curve
        fine = np.concatenate(
            [mel[:length, 1:], mel[:length, :1], voicing, pitch[:length, 1:]], axis=1, dtype=np.float32
        )
        factor = FINE // self._settings.rate
        grouped = fine[: length // factor * factor].reshape(-1, factor, fine.shape[1])
        return np.asarray(grouped.mean(1), np.float32)

    def _fbank_options(self) -> Any:
        options = self._kaldi.FbankOptions()
        options.frame_opts.samp_freq = SAMPLE_RATE
        options.frame_opts.dither = 0.0  # otherwise features are random
        options.frame_opts.snip_edges = False
        options.mel_opts.num_bins = self._settings.mel_bins
        options.use_energy = True
        options.energy_floor = 1.0
        return options

    def _pitch_options(self) -> tuple[Any, Any]:
        options = self._kaldi.PitchExtractionOptions()
        options.samp_freq = SAMPLE_RATE
        options.snip_edges = False
        options.min_f0, options.max_f0 = self._settings.min_f0, self._settings.max_f0
        features = self._kaldi.ProcessPitchOptions()
        features.add_normalized_log_pitch = features.add_delta_pitch = False
        features.add_pov_feature = features.add_raw_log_pitch = True
        features.delta_pitch_noise_stddev = 0.0
        return options, features


def _frames(extractor: Any, samples: NDArray[np.float32]) -> NDArray[np.float32]:
    """All frames (T, D) that an extractor of Kaldi makes of samples (N,)."""
    extractor.accept_waveform(SAMPLE_RATE, samples)
    extractor.input_finished()
    frames = [extractor.get_frame(i) for i in range(extractor.num_frames_ready)]
    return np.array(frames, np.float32).reshape(len(frames), extractor.dim)
