"""What every CLI test has: a home of its own, so that nobody's configuration file is read."""

import pytest


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    """An empty home directory, and no variable that names a configuration file."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("HOME", str(folder))
    for name in ("XDG_CONFIG_HOME", "PALOMAR_CLI_CONFIG", "HUBBLE_CONFIG"):
        monkeypatch.delenv(name, raising=False)
    return folder
