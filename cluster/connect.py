"""Makes the backend that the configuration names: the one place that knows both stores."""

from collections.abc import Sequence
from pathlib import Path

from cluster.driver import Driver
from cluster.etcd import EtcdDriver
from cluster.filestore import FileDriver
from cluster.shared import SharedState, SharedStateConfig
from palomar.errors import InvalidInputError


def open_backend(
    kvstore: str,
    config: SharedStateConfig,
    *,
    directory: Path | None = None,
    etcd_endpoints: Sequence[str] = (),
) -> SharedState:
    """Return the backend for `kvstore` (`file` with `directory`, or `etcd` with endpoints), unstarted.

    Raises InvalidInputError for anything else.
    """
    driver: Driver
    if kvstore == "file":
        if directory is None:
            raise InvalidInputError("name a directory for the file store", "kvstore-dir")
        driver = FileDriver(directory)
    elif kvstore == "etcd":
        driver = EtcdDriver(etcd_endpoints)
    else:
        raise InvalidInputError(f"{kvstore!r} is neither file nor etcd", "kvstore")
    return SharedState(driver, config)
