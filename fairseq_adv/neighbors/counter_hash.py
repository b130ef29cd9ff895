"""Random numbers that are a hash of their counter: equal on every machine, in any order, with no state.

The mixing function is the finaliser of SplitMix64 (Steele, Lea and Flood 2014). Numpy's own generators may
change their streams between versions; a cache set chosen by them could not be found again.
"""

from __future__ import annotations

import numpy as np

_WORD = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB


def _mix(z: np.ndarray) -> np.ndarray:
    z = (z ^ (z >> np.uint64(30))) * np.uint64(_MIX_1)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(_MIX_2)
    return z ^ (z >> np.uint64(31))


def hash_counters(counters: np.ndarray, *key: int) -> np.ndarray:
    """64 random bits (uint64) for each of *counters* (integers >= 0), for the stream named by the integers *key*.

    Within one stream different counters get different values: the map is a permutation of the 64-bit words.
    """
    state = np.zeros(1, dtype=np.uint64)
    for word in key:
        state = _mix(state + np.uint64((word + 1) * _GOLDEN & _WORD))
    return _mix(np.asarray(counters).astype(np.uint64) * np.uint64(_GOLDEN) + state)
