"""How many samples of each corpus a training epoch has."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from carat.config.experiment import SamplingConfig
from carat.data.sampler import Quotas
from carat.data.store import Store
from carat.utils.errors import ConfigError, did_you_mean


def choose_quotas(store: Store, rows: NDArray[np.int64], sampling: SamplingConfig | None) -> Quotas | None:
    """Choose how many samples of each corpus an epoch has; None if every sample appears once.

    Args:
        store: store of several corpora.
        rows: (n,) training rows.
        sampling: how to choose; None: every sample once.

    Raises:
        ConfigError: the store has a single corpus, weights name another one, or no sample would be left.
    """
    if sampling is None:
        return None
    if store.corpora is None:
        raise ConfigError(
            f"data.sampling: {store.folder} has a single corpus; merge several by `carat data merge`"
        )
    names, codes = np.unique(store.corpora[rows], return_inverse=True)
    sizes = np.bincount(codes)
    if sampling.temperature is not None:
        shares = sizes**sampling.temperature
        counts = np.round(shares / shares.sum() * len(rows))
    else:
        weights = sampling.weights or {}
        for name in weights:
            if name not in store.corpora:
                hint = did_you_mean(name, names.tolist()) or f"; corpora are {', '.join(names)}"
                raise ConfigError(f"data.sampling.weights: the store has no corpus '{name}'{hint}")
        counts = np.round(sizes * [weights.get(name, 1.0) for name in names.tolist()])
    if not counts.sum():
        raise ConfigError("data.sampling: an epoch would have no sample")
    return Quotas(codes.astype(np.int64), [int(count) for count in counts])
