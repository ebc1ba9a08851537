"""The installed version of Palomar, as servers and commands tell it."""

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str:
    """Return `0.1.0`; `unknown` from a source tree that is not installed."""
    try:
        return version("palomar")
    except PackageNotFoundError:
        return "unknown"
