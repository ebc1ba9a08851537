"""Tables of numbers against a dictionary, small keys and large ones."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.metrics.numbertable import DIRECT_BITS, DenseNumbers, NumberTable

KEYS = st.lists(
    st.one_of(st.integers(0, 40), st.integers(1000, 5000), st.integers(0, (1 << 32) - 1)), min_size=1
)


@settings(deadline=None)
@given(batches=st.lists(KEYS, min_size=1, max_size=6))
def test_a_table_answers_like_a_dictionary(batches: list[list[int]]) -> None:
    """Also when a large key turns the table into a hash after others were put there."""
    table, model = NumberTable(), dict[int, int]()
    for number, batch in enumerate(batches, 1):
        keys = np.array(batch, dtype=np.uint32)
        assert table.lookup(keys).tolist() == [model.get(key, 0) for key in batch]
        new = np.unique(keys)[::2]
        table.set(new, np.full(len(new), number))
        model |= dict.fromkeys(new.tolist(), number)
        assert table.lookup(keys).tolist() == [model.get(key, 0) for key in batch]


@settings(deadline=None)
@given(batches=st.lists(KEYS, min_size=1, max_size=6))
def test_dense_numbers_are_one_a_key_and_stay(batches: list[list[int]]) -> None:
    dense, model = DenseNumbers(), dict[int, int]()
    for batch in batches:
        for key, number in zip(batch, dense.of(np.array(batch, dtype=np.uint32)).tolist(), strict=True):
            assert model.setdefault(key, number) == number
            assert dense.keys[number] == key
    assert sorted(model.values()) == list(range(1, len(model) + 1))
    assert dense.bits == len(model).bit_length()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16, np.uint32])
def test_keys_of_any_width_are_taken(kind: type[np.unsignedinteger]) -> None:
    keys = np.array([3, 3, 200, 0], dtype=kind)
    assert DenseNumbers().of(keys).tolist() == [2, 2, 3, 1]


def test_a_table_of_all_keys_is_bounded() -> None:
    table = NumberTable()
    table.lookup(np.array([(1 << DIRECT_BITS) - 1], dtype=np.uint32))
    table.set(np.array([7]), np.array([8]))
    assert table.lookup(np.array([7, 1 << DIRECT_BITS], dtype=np.uint32)).tolist() == [8, 0]
