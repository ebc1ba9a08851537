"""Why a peer cannot be connected: whose certificate, what is wrong with it, until when it was good.

gRPC only says that a handshake failed. This shakes hands once more with plain sockets, takes the
certificate that the peer presents without trusting it, and looks at both sides' certificates. Blocking:
run it in a thread.
"""

import socket
import ssl
from datetime import datetime

from palomar import certs
from palomar.errors import PalomarError
from palomar.tls import TlsFiles

TIMEOUT_S = 2.0
UNIX_TARGET = "unix:"


def explain(address: str, server_name: str, tls: TlsFiles | None, now: datetime) -> str:
    """Say why `address` (`host:port` or `unix:...`) cannot be connected; empty where nothing was found."""
    if address.startswith(UNIX_TARGET) or tls is None or not server_name:
        return ""
    own = own_problem(tls, now)
    if own:
        return own
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S) as plain:
            return _shake(plain, server_name, tls, now)
    except (OSError, ValueError) as error:
        return f"{address}: {_words(error)}"


def own_problem(tls: TlsFiles, now: datetime) -> str:
    """Say what is wrong with our own certificate; empty while it serves."""
    try:
        _, cert, ca = tls.read()
        info = certs.inspect(cert)
    except PalomarError as error:
        return f"our own certificate: {error}"
    problem = info.problem(now)
    if not problem and not certs.signed_by(cert, ca):
        problem = f"not signed by the CA in {tls.ca}"
    return f"our own certificate {tls.cert} ({describe(info)}): {problem}" if problem else ""


def judge(presented: bytes, ca: bytes, server_name: str, now: datetime) -> str:
    """Say what is wrong with a peer's certificate (PEM); empty where it serves. Pure."""
    try:
        info = certs.inspect(presented)
    except PalomarError as error:
        return f"its certificate: {error}"
    problem = info.problem(now)
    if not problem and not certs.signed_by(presented, ca):
        problem = f"issued by {info.issuer}, not by our CA"
    if not problem and not certs.matches_name(info.names, server_name):
        problem = f"is for {', '.join(info.names) or 'no server'}, not for {server_name}"
    return f"its certificate ({describe(info)}): {problem}" if problem else ""


def describe(info: certs.CertInfo) -> str:
    """`OU=agent,CN=n1, valid 2026-01-01T00:00:00Z to 2026-02-01T00:00:00Z`."""
    return f"{info.subject}, valid {certs.iso(info.not_before)} to {certs.iso(info.not_after)}"


def _shake(plain: socket.socket, server_name: str, tls: TlsFiles, now: datetime) -> str:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(tls.cert, tls.key)
    try:
        with context.wrap_socket(plain, server_hostname=server_name) as wrapped:
            presented = ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True) or b"")
            problem = judge(presented.encode(), tls.ca.read_bytes(), server_name, now)
            if problem:
                return problem
            # A gRPC server speaks first; one that refuses our certificate closes only now (TLS 1.3).
            if not wrapped.recv(1):
                return f"it refuses {_our_name(tls)}"
    except ssl.SSLError as error:
        return f"it refuses the handshake with {_our_name(tls)}: {_words(error)}"
    return ""


def _our_name(tls: TlsFiles) -> str:
    return f"our certificate {tls.cert} ({describe(certs.inspect(tls.cert.read_bytes()))})"


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = getattr(error, "reason", None)
    return str(reason or getattr(error, "strerror", None) or error)
