"""argparse with the two habits of the field's commands: exact flag names and `--flag=false`.

Flags are never abbreviated; a boolean flag takes `=true` or `=false` and nothing else, a flag without a value
may be given the one it stands for (`--ipv4=v4`).
"""

import argparse
from collections.abc import Sequence
from typing import Any

from cli.errors import UsageError

_TRUTH = {"true": True, "t": True, "1": True, "false": False, "f": False, "0": False}


class BoolFlag(argparse.Action):
    """`--follow`, `--follow=true`, `--follow=false`; a filter flag's bare form is not one of these."""

    def __init__(self, option_strings: Sequence[str], dest: str, **options: Any) -> None:
        options.pop("nargs", None)
        super().__init__(option_strings, dest, nargs=0, **options)

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Store True; `CommandParser` has already taken the `=false` form out of the arguments."""
        setattr(namespace, self.dest, True)


class BareFlag(argparse.Action):
    """A flag that stands for a value: `--ipv4`, `--ipv4=v4`."""

    def __init__(self, option_strings: Sequence[str], dest: str, bare: str, **options: Any) -> None:
        """`bare` is what may stand behind `=`."""
        options.pop("nargs", None)
        super().__init__(option_strings, dest, nargs=0, **options)
        self.bare = bare


class CommandParser(argparse.ArgumentParser):
    """A parser whose errors are UsageError and whose booleans may be negated with `=false`."""

    def __init__(self, *args: Any, **options: Any) -> None:
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _Formatter)
        super().__init__(*args, **options)

    # argparse's own signature is overloaded over namespace types; Any keeps it one function.
    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Take `--flag=true|false` out for boolean flags, then parse as argparse does."""
        rest: list[str] = []
        decided: dict[str, bool] = {}
        for index, word in enumerate(args or []):
            if word == "--":
                rest.extend(args[index:])
                break
            name, equals, value = word.partition("=")
            action = self._option_string_actions.get(name) if equals else None
            if isinstance(action, BoolFlag):
                if value.lower() not in _TRUTH:
                    raise UsageError(f"{name}={value}: write {name}=true or {name}=false")
                decided[action.dest] = _TRUTH[value.lower()]
            elif isinstance(action, BareFlag):
                if value != action.bare:
                    raise UsageError(f"{name}={value}: write {name}")
                rest.append(name)
            else:
                rest.append(word)
        known, extra = super().parse_known_args(rest, namespace)
        for dest, value_is in decided.items():
            setattr(known, dest, value_is)
        return known, extra

    def error(self, message: str) -> Any:
        """Raise UsageError in place of printing the whole usage."""
        raise UsageError(f"{message} (see `{self.prog} --help`)")


class _Formatter(argparse.HelpFormatter):
    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=32, width=100)
