"""Components as plain trees: what the page draws by itself."""

import json

from dash import html

from ui.pieces import click
from ui.tree import plain


def test_a_component_becomes_its_tag_attributes_and_children() -> None:
    """Texts stay texts, markup in them too; what is not given is left out."""
    line = html.Div([html.B("<b>3</b>"), " of ", 5], className="quiet", title=None)
    assert plain(line) == [["div", {"class": "quiet"}, [["b", {}, ["<b>3</b>"]], " of ", "5"]]]


def test_none_one_or_many() -> None:
    """The place of a part may be empty, a text, or hold a list."""
    assert plain(None) == []
    assert plain("words") == ["words"]
    assert plain([html.P("a"), html.P("b")]) == [["p", {}, ["a"]], ["p", {}, ["b"]]]


def test_a_button_keeps_what_its_click_means() -> None:
    """The page reports `data-click` and `data-id`."""
    (tree,) = plain(click("edge", "a>b", "a \N{RIGHTWARDS ARROW} b", "edge-line"))
    assert json.loads(json.dumps(tree)) == tree
    assert tree[1] == {"data-click": "edge", "data-id": "a>b", "class": "edge-line", "type": "button"}
