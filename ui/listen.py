"""Where the page is served: loopback only, until it has logins.

Pure. Input: what a person wrote after `--listen`, and the Host header of requests.
"""

from dataclasses import dataclass
from ipaddress import ip_address

from ui.errors import ListenAddressError

DEFAULT_LISTEN = "127.0.0.1:8080"
REMEDY = (
    "the page has no login yet: listen on 127.0.0.1 "
    "and reach it from elsewhere by `ssh -L 8080:127.0.0.1:8080 HOST`"
)


@dataclass(frozen=True, slots=True)
class ListenAddress:
    """A loopback address and port."""

    host: str
    port: int
    """0: any free one."""

    @property
    def url(self) -> str:
        """`http://127.0.0.1:8080/`."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"http://{host}:{self.port}/"


def parse_listen(text: str) -> ListenAddress:
    """Read `127.0.0.1:8080`, `localhost:8080`, `[::1]:8080`; raise ListenAddressError naming the remedy."""
    host, colon, port = text.rpartition(":")
    if not colon or not port.isascii() or not port.isdigit() or int(port) > 65535:
        raise ListenAddressError(f"--listen {text!r}: write ADDRESS:PORT, e.g. {DEFAULT_LISTEN}")
    bare = host.removeprefix("[").removesuffix("]")
    if not _is_loopback(bare):
        raise ListenAddressError(f"--listen {text!r} is no loopback address: {REMEDY}")
    return ListenAddress("127.0.0.1" if bare == "localhost" else bare, int(port))


def is_loopback_name(host_header: str) -> bool:
    """Tell whether a Host header names this machine's loopback; anything else may be a rebound name."""
    host = host_header
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    return _is_loopback(host)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
