"""Label selectors as clients write them: what they select, and what they cannot mean."""

import pytest

from hubble import labelselector
from palomar.errors import InvalidInputError
from palomar.labels import LabelSet

WEB = LabelSet.parse(["k8s:app=web", "k8s:io.kubernetes.pod.namespace=shop", "container:tier=front"])
WORLD = LabelSet.parse(["reserved:world"])


@pytest.mark.parametrize(
    ("text", "web", "world"),
    [
        ("app=web", True, False),
        ("k8s:app=web", True, False),
        ("container:app=web", False, False),
        ("app==web,tier=front", True, False),
        ("app=web,tier=back", False, False),
        ("app!=web", False, True),
        ("app in (api, web)", True, False),
        ("app notin (api,web)", False, True),
        ("k8s:io.kubernetes.pod.namespace=shop", True, False),
        ("reserved:world", False, True),
        ("app", True, False),
        ("!app", False, True),
        ("! k8s:app", False, True),
        ("", True, True),
        ("  ", True, True),
    ],
)
def test_a_selector_selects(text: str, web: bool, world: bool) -> None:
    """By the terms it has, all of which must hold; one without any selects everything."""
    selector = labelselector.parse(text)
    assert (selector.matches(WEB), selector.matches(WORLD)) == (web, world)


@pytest.mark.parametrize("text", ["a b", "a=b,", ",", "a in", "a in (b", "a in (b c)", "=b", "!", "a=b c"])
def test_what_cannot_be_read_is_quoted(text: str) -> None:
    """With the forms that can be written."""
    with pytest.raises(InvalidInputError, match="label selector"):
        labelselector.parse(text)
