"""Counts by key are those of a Counter, up to a limit of keys."""

from collections import Counter

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.keycounter import KeyCounter, distinct

BLOCKS = st.lists(st.lists(st.integers(0, 30), max_size=40), max_size=10)


@settings(deadline=None)
@given(BLOCKS)
def test_blocks_add_up(blocks):
    counter, model = KeyCounter(1000), Counter()
    for block in blocks:
        counter.add(*distinct(np.array(block, dtype=np.uint32)))
        model.update(block)
    assert counter.items() == sorted(model.items())
    assert counter.overflow == 0


@settings(deadline=None)
@given(BLOCKS, st.integers(0, 12))
def test_beyond_the_limit_nothing_is_lost_from_the_sum(blocks, limit):
    counter = KeyCounter(limit)
    for block in blocks:
        counter.add(*distinct(np.array(block, dtype=np.uint64)))
    kept = dict(counter.items())
    everything = Counter(key for block in blocks for key in block)
    assert len(kept) <= limit
    assert sum(kept.values()) + counter.overflow == everything.total()
    assert all(count <= everything[key] for key, count in kept.items())
