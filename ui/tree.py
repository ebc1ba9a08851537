"""Dash components as plain trees, which the page draws by itself (`assets/parts.js`).

Pure. Input: components of `dash.html` and texts; output: values for JSON. Left to Dash and React each element
of the panel would be a subscriber of Dash's store, asked again at every answer whether it changed
(docs/adr/0005).
"""

from typing import Any

Tree = Any
"""A text; `[tag, attributes]` or `[tag, attributes, children]`; or a list of children."""


def plain(component: Any) -> list[Tree]:
    """Return what a component's place holds: none, one or many trees."""
    if component is None:
        return []
    return [_one(child) for child in (component if isinstance(component, list | tuple) else [component])]


def _one(component: Any) -> Tree:
    if isinstance(component, str | int | float):
        return str(component)
    written = component.to_plotly_json()
    attributes = {name: value for name, value in written["props"].items() if value is not None}
    children = plain(attributes.pop("children", None))
    if "className" in attributes:
        attributes["class"] = attributes.pop("className")
    return [written["type"].lower(), attributes, *([children] if children else [])]
