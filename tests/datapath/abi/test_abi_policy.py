"""Policy keys and entries as bytes, and the keys that no trie can hold."""

import pytest

from datapath.abi.policy import PolicyEntry, PolicyKey


def test_policy_bytes() -> None:
    """Prefix length counts from the identity; the value repeats the precedence in bits 3..7."""
    key = PolicyKey(0x1234, True, 6, 8080, 16)
    assert key.pack().hex(" ") == "40 00 00 00 34 12 00 00 01 06 1f 90"
    assert PolicyEntry(True, 99, 1, 2).pack(key).hex(" ") == "00 01 c1 00 02 00 00 00 63 00 00 00"
    assert PolicyKey(0, False).pack().hex(" ") == "28 00 00 00 00 00 00 00 00 00 00 00"


@pytest.mark.parametrize(
    "arguments",
    [
        {"protocol": 0, "dport": 80, "dport_prefix_bits": 16},
        {"protocol": 6, "dport": 80, "dport_prefix_bits": 17},
        {"protocol": 6, "dport": 81, "dport_prefix_bits": 10},
        {"protocol": 6, "dport": 80, "dport_prefix_bits": 0},
    ],
)
def test_impossible_policy_keys_are_refused(arguments: dict[str, int]) -> None:
    """A port without protocol, too many bits, or bits beyond the prefix."""
    with pytest.raises(ValueError, match="port"):
        PolicyKey(1, False, **arguments)
