"""A dataclass goes to another process as JSON and comes back the same; what is wrong is named by its key."""

from dataclasses import dataclass

import pytest

from palomar import jsonconfig
from palomar.errors import InvalidInputError


@dataclass(frozen=True, slots=True)
class Told:
    """All that there may be."""

    name: str
    size: int = 7
    labels: tuple[str, ...] = ()


@pytest.mark.parametrize("config", [Told("one"), Told("", -1, ("a=b", "c"))])
def test_what_is_encoded_is_read_again(config: Told) -> None:
    assert jsonconfig.decode(Told, jsonconfig.encode(config)) == config


def test_a_key_with_a_default_may_be_missing() -> None:
    assert jsonconfig.decode(Told, '{"name": "one"}') == Told("one")


@pytest.mark.parametrize(
    ("text", "path", "reason"),
    [
        ("{", "config-json", "no JSON"),
        ("[]", "config-json", "not a JSON object"),
        ("{}", "name", "missing"),
        ('{"name": "n", "colour": 1}', "colour", "unknown key; known are name, size, labels"),
        ('{"name": 3}', "name", "3 is of the wrong type"),
        ('{"name": null}', "name", "None is of the wrong type"),
        ('{"name": "n", "size": "1"}', "size", "'1' is of the wrong type"),
        ('{"name": "n", "size": true}', "size", "True is of the wrong type"),
        ('{"name": "n", "size": 1.0}', "size", "1.0 is of the wrong type"),
        ('{"name": "n", "labels": "a=b"}', "labels", "not a list of texts"),
        ('{"name": "n", "labels": ["a", 1]}', "labels", "not a list of texts"),
    ],
)
def test_what_is_wrong_is_named(text: str, path: str, reason: str) -> None:
    with pytest.raises(InvalidInputError) as caught:
        jsonconfig.decode(Told, text)
    assert caught.value.path == path
    assert caught.value.reason.startswith(reason)
