"""The configuration file of the commands that ask a flow server: `server: ...`, `tls: true`, ...

Keys are flag names without the dashes. A file that is named must exist; else the first of these is read:
`palomar/config.yaml` below $XDG_CONFIG_HOME and ~/.config, the same for `hubble`, ~/.hubble/config.yaml.
Not read is `config.yaml` of the working directory, as the `hubble` tool does: whoever may write to the
directory one happens to stand in would choose the server, its CA and which client key it is shown, and
a `config.yaml` there is most often another program's. Not the agent's configuration (`agent.config`).
Output: flag name to text, as the environment would have it; `cli.serverflags` gives it its rank.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from cli.errors import UsageError

NAMING_VARIABLES = ("PALOMAR_CLI_CONFIG", "HUBBLE_CONFIG")
BOOLEANS = frozenset({"tls", "tls-allow-insecure"})
FILES = frozenset({"tls-ca-cert-files", "tls-client-cert-file", "tls-client-key-file"})
KEYS = frozenset({"server", "timeout", "request-timeout", "tls-server-name"}) | BOOLEANS | FILES
HUBBLE_ONLY = frozenset({"debug", "kubeconfig", "kube-context", "kube-namespace", "port-forward-port"})
"""Keys of the `hubble` tool that change nothing about which server is asked: passed over."""

_TRUTH = {"true": "true", "t": "true", "1": "true", "false": "false", "f": "false", "0": "false"}


@dataclass(frozen=True, slots=True)
class ConfigFile:
    """What a file says; empty where there is none."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Text by flag name; absent and empty are the same."""
    named: bool = False
    """A flag or variable named the file: it was not merely found."""


def load(flag: str | None, environment: Mapping[str, str]) -> ConfigFile:
    """Read the file of `--config`, else of the environment, else the first found in the usual places.

    Raises UsageError for a file that cannot be read and for a key or value in it that cannot be meant.
    """
    name = flag or next((environment[key] for key in NAMING_VARIABLES if environment.get(key)), "")
    if name:
        text = _text(Path(name))
        if text is None:
            raise UsageError(f"--config {name}: no such file")
        return ConfigFile(parse(text, Path(name)), named=True)
    for path in places(environment):
        text = _text(path)
        if text is not None:
            return ConfigFile(parse(text, path))
    return ConfigFile()


def places(environment: Mapping[str, str]) -> list[Path]:
    """Return where a file may lie that nobody named, first come first served; all are absolute."""
    home = environment.get("HOME", "")
    folders = [environment.get("XDG_CONFIG_HOME", ""), f"{home}/.config" if home else ""]
    found = [
        Path(folder, tool, "config.yaml") for tool in ("palomar", "hubble") for folder in folders if folder
    ]
    if home:
        found.append(Path(home, ".hubble", "config.yaml"))
    return [path for path in dict.fromkeys(found) if path.is_absolute()]


def parse(text: str, path: Path) -> dict[str, str]:
    """Read the YAML `text` of `path`; relative file names are relative to its folder."""
    import yaml  # takes 20 ms to load, and most people have no file

    try:
        tree = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{path}: no YAML: {' '.join(str(error).split())}") from error
    if tree is None:
        return {}
    if not isinstance(tree, dict):
        raise UsageError(f"{path}: write keys and values, such as `server: relay.example:4245`")
    values: dict[str, str] = {}
    for key, value in tree.items():
        if key in HUBBLE_ONLY:
            continue
        if key not in KEYS:
            raise UsageError(f"{path}: {key}: no such key{_nearest(str(key))}")
        if value is not None:
            values[key] = _value(key, value, path)
    return {key: value for key, value in values.items() if value}


def _text(path: Path) -> str | None:
    try:
        return path.read_text(encoding="utf-8")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as error:
        raise UsageError(f"{path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UsageError(f"{path}: no text in UTF-8") from error


def _value(key: str, value: object, path: Path) -> str:
    if key in BOOLEANS:
        truth = _TRUTH.get(str(value).lower())
        if truth is None:
            raise UsageError(f"{path}: {key}: {value!r}: write true or false")
        return truth
    if key == "tls-ca-cert-files" and isinstance(value, list):
        parts = value
    else:
        parts = value.split(",") if key in FILES and isinstance(value, str) else [value]
    for part in parts:
        if not isinstance(part, str):
            example = "5s" if key.endswith("timeout") else "text"
            raise UsageError(f"{path}: {key}: {part!r}: write {example}")
    if key in FILES:
        parts = [str(path.absolute().parent / Path(part).expanduser()) for part in parts if part]
    return ",".join(parts)


def _nearest(key: str) -> str:
    near = difflib.get_close_matches(key, sorted(KEYS), n=1)
    return f"; did you mean {near[0]}?" if near else f" (accepted: {', '.join(sorted(KEYS))})"
