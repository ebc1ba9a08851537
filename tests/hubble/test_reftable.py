"""A table of references answers like a dict, for whole arrays."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hubble.reftable import RefTable

KEYS = st.one_of(st.integers(0, 40), st.integers(0, (1 << 32) - 1))


@given(st.lists(st.tuples(KEYS, st.integers(0, 5)), max_size=400), st.lists(KEYS, max_size=60))
@settings(max_examples=100, deadline=None)
def test_any_changes_and_lookups_are_those_of_a_dict(changes, asked):
    table, model = RefTable(), {}
    for key, value in changes:
        if value:
            table.set(key, value)
            model[key] = value
        else:
            table.delete(key)
            model.pop(key, None)
    keys = asked + [key for key, _ in changes]
    found = table.lookup(np.array(keys, dtype=np.uint32))
    assert found.tolist() == [model.get(key, 0) for key in keys]
    assert [table.get(key) for key in keys] == found.tolist()
    assert sorted(table.known()) == sorted(model)


def test_many_keys_in_a_row_grow_the_table():
    table = RefTable()
    for key in range(20_000):
        table.set(key * 256 + 10, key + 1)
    keys = np.arange(20_001, dtype=np.uint32) * 256 + 10
    assert table.lookup(keys).tolist() == [*range(1, 20_001), 0]
    assert len(table) == 20_000
