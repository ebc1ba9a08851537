"""Policy text to plain documents: YAML (one or many) or JSON, with lists of resources opened.

Stricter than YAML: a key that appears twice is refused, because one of the two would silently not be
enforced; so is text that unfolds (through anchors) into more than MAX_NODES values. Pure: text in, trees of
dict, list, str, int, bool out; what they mean is `agent.policy.parse`.
"""

import json
from collections.abc import Iterator
from typing import Any

import yaml

from agent.policy.errors import InvalidPolicyError, PolicyProblem

MAX_TEXT_CHARS = 4 << 20
MAX_NODES = 200_000
"""Ten times the largest policies seen in the field; a bomb of anchors goes past it at once."""


class _DuplicateKeyError(yaml.YAMLError):
    """A mapping names a key twice."""


class _Loader(yaml.SafeLoader):
    """Safe YAML that refuses duplicate keys and reads dates and numbers in keys as what they are."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[object, object]:
    seen = set()
    for key_node, _ in node.value:
        if isinstance(key_node, yaml.ScalarNode) and key_node.tag != "tag:yaml.org,2002:merge":
            if key_node.value in seen:
                mark = key_node.start_mark
                raise _DuplicateKeyError(
                    f"line {mark.line + 1}: {key_node.value!r} is there twice: merge them"
                )
            seen.add(key_node.value)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(text: str) -> list[Any]:
    """Return the documents of `text`, lists of resources opened, empty documents left out.

    Raises InvalidPolicyError for text that is neither YAML nor JSON.
    """
    if len(text) > MAX_TEXT_CHARS:
        raise _refused(f"{len(text)} characters: at most {MAX_TEXT_CHARS}")
    try:
        found = _read(text)
    except yaml.YAMLError as error:
        raise _refused(f"cannot be read: {_one_line(error)}") from error
    except (RecursionError, ValueError) as error:
        raise _refused(f"cannot be read: {type(error).__name__}: {error}") from error
    _check_size(found)
    return [resource for document in found for resource in _open(document)]


def _read(text: str) -> list[Any]:
    if text.lstrip()[:1] in ("{", "["):
        try:
            return [json.loads(text, object_pairs_hook=_pairs)]
        except json.JSONDecodeError:
            pass  # YAML's flow style begins the same way
    documents = yaml.load_all(text, Loader=_Loader)
    return [document for document in documents if document is not None]


def _pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise _DuplicateKeyError(f"{key!r} is there twice: merge them")
        found[key] = value
    return found


def to_json(document: dict[str, Any]) -> str:
    """Write a document as it is kept and shown: without status, keys in their order."""
    return json.dumps(
        {key: value for key, value in document.items() if key != "status"}, default=str, ensure_ascii=False
    )


def _open(document: Any) -> Iterator[Any]:
    """Yield the items of a `kind: List` or a JSON array, else the document itself."""
    if isinstance(document, list):
        yield from document
    elif (
        isinstance(document, dict)
        and str(document.get("kind", "")).endswith("List")
        and isinstance(document.get("items"), list)
    ):
        yield from document["items"]
    else:
        yield document


def _check_size(documents: list[Any]) -> None:
    count = 0
    stack: list[Any] = [documents]
    while stack:
        value = stack.pop()
        count += 1
        if count > MAX_NODES:
            raise _refused(f"more than {MAX_NODES} values: split it")
        if isinstance(value, dict):
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)


def _one_line(error: yaml.YAMLError) -> str:
    if isinstance(error, yaml.MarkedYAMLError) and error.problem_mark is not None:
        return f"line {error.problem_mark.line + 1}: {error.problem or error.context}"
    return " ".join(str(error).split())


def _refused(message: str) -> InvalidPolicyError:
    return InvalidPolicyError([PolicyProblem("", message)])
