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
GRPC_ALPN = "h2"
CLOSES = "it closes the connection during the TLS handshake"


def explain(address: str, server_name: str, tls: TlsFiles | None, now: datetime) -> str:
    """Say why `address` (`host:port` or `unix:...`) cannot be connected; empty where nothing was found."""
    if address.startswith(UNIX_TARGET) or tls is None or not server_name:
        return ""
    own = own_problem(tls, now)
    if own:
        return own
    try:
        with _dial(address) as plain:
            problem, is_strange = _shake(plain, server_name, tls, now)
        if is_strange and _is_trusted(address, server_name, tls):
            return ""  # an authority between its certificate and our CA, which it shows as well
    except (OSError, ValueError, PalomarError) as error:
        return f"{address}: {_words(error)}"
    return problem


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
    if not problem and not info.may_ask:
        problem = "is for servers only: its extended key usage lacks clientAuth"
    return f"our own certificate {tls.cert} ({describe(info)}): {problem}" if problem else ""


def judge(presented: bytes, ca: bytes, server_name: str, now: datetime) -> str:
    """Say what is wrong with a peer's certificate (PEM); empty where it serves. Pure."""
    try:
        info = certs.inspect(presented)
    except PalomarError as error:
        return f"its certificate: {error}"
    problem = info.problem(now)
    if not problem and is_stranger(presented, ca):
        problem = f"issued by {info.issuer}, not by our CA"
    if not problem and not certs.matches_name(info.names, server_name):
        problem = f"is for {', '.join(info.names) or 'no server'}, not for {server_name}"
    if not problem and not info.may_serve:
        problem = "is for clients only: its extended key usage lacks serverAuth"
    return f"its certificate ({describe(info)}): {problem}" if problem else ""


def is_stranger(presented: bytes, ca: bytes) -> bool:
    """Tell whether none of the authorities in `ca` signed the certificate `presented` itself."""
    return not certs.signed_by(presented, ca)


def describe(info: certs.CertInfo) -> str:
    """`OU=agent,CN=n1, valid 2026-01-01T00:00:00Z to 2026-02-01T00:00:00Z`."""
    return f"{info.subject}, valid {certs.iso(info.not_before)} to {certs.iso(info.not_after)}"


def _dial(address: str) -> socket.socket:
    host, _, port = address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), TIMEOUT_S)


def _context(tls: TlsFiles) -> ssl.SSLContext:
    """Show our certificate, trust whatever comes."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    context.set_alpn_protocols([GRPC_ALPN])
    context.load_cert_chain(tls.cert, tls.key)
    return context


def _shake(plain: socket.socket, server_name: str, tls: TlsFiles, now: datetime) -> tuple[str, bool]:
    """Say what is wrong, and whether it is (or may be) that the certificate's authority is not ours."""
    context = _context(tls)
    try:
        with context.wrap_socket(plain, server_hostname=server_name) as wrapped:
            presented = ssl.DER_cert_to_PEM_cert(wrapped.getpeercert(binary_form=True) or b"").encode()
            ca = tls.ca.read_bytes()
            problem = judge(presented, ca, server_name, now)
            if problem:
                return problem, is_stranger(presented, ca)
            if wrapped.selected_alpn_protocol() != GRPC_ALPN:
                return "it speaks TLS, but no HTTP/2: is that a gRPC server?", False
            # A gRPC server speaks first; one that refuses our certificate closes only now (TLS 1.3).
            if not wrapped.recv(1):
                return f"it refuses {_our_name(tls)}", False
    except ssl.SSLError as error:
        return _refusal(error, tls), False
    except ConnectionError:
        return CLOSES, False
    return "", False


def _is_trusted(address: str, server_name: str, tls: TlsFiles) -> bool:
    """Tell whether the certificates a peer shows lead to our CA, by a handshake that checks them."""
    context = _context(tls)
    context.verify_mode = ssl.CERT_REQUIRED
    context.load_verify_locations(tls.ca)
    try:
        with _dial(address) as plain, context.wrap_socket(plain, server_hostname=server_name):
            return True
    except ssl.SSLCertVerificationError:
        return False


def _refusal(error: ssl.SSLError, tls: TlsFiles) -> str:
    words = _words(error)
    if "ALERT" in words:
        return f"it refuses the handshake with {_our_name(tls)}: {words}"
    if isinstance(error, ssl.SSLEOFError) or "EOF" in words:
        return CLOSES
    if "WRONG_VERSION_NUMBER" in words or "HTTP" in words:
        return "it does not speak TLS: is that a flow server with a certificate?"
    return f"no TLS handshake with it: {words}"


def _our_name(tls: TlsFiles) -> str:
    return f"our certificate {tls.cert} ({describe(certs.inspect(tls.cert.read_bytes()))})"


def _words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    reason = getattr(error, "reason", None)
    return str(reason or getattr(error, "strerror", None) or error)
