"""The server that is asked: a channel to it, or in plain words why there is none.

Not where it is (`cli.target`). A server that cannot be reached is looked at without gRPC, whose own words say
little: `ServerUnreachableError` names the cause and the remedy. grpc is loaded only when called.
"""

import contextlib
import errno
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from cli.errors import CallError, ServerUnreachableError, UsageError
from cli.target import Target, TlsOptions

if TYPE_CHECKING:  # grpc takes 80 ms to load; --help must not
    import grpc
    from cryptography import x509

SILENCE_S = 310.0
"""Many a gRPC server counts pings more often than every five minutes as an attack."""
PING_TIMEOUT_S = 20.0


def quiet_grpc() -> None:
    """Keep grpc's own log off standard error: what it would say of handshakes and cuts we say in words.

    Has an effect only before grpc is first imported. A person's GRPC_VERBOSITY stays.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")


@contextlib.contextmanager
def connect(target: Target, timeout_s: float, silence_s: float = SILENCE_S) -> "Iterator[grpc.Channel]":
    """Open a channel that is known to work; raise ServerUnreachableError within `timeout_s`.

    Calls in it fail once the server has been silent for `silence_s` and answers no ping either.
    """
    _probe(target, timeout_s)
    quiet_grpc()
    import grpc

    ping_timeout_ms = int(min(silence_s, PING_TIMEOUT_S) * 1000)
    options: list[tuple[str, object]] = [
        ("grpc.max_receive_message_length", -1),
        ("grpc.enable_http_proxy", 0),
        ("grpc.use_local_subchannel_pool", 1),  # a dial must not wait for another channel's backoff
        ("grpc.keepalive_time_ms", int(silence_s * 1000)),
        ("grpc.keepalive_timeout_ms", ping_timeout_ms),
        ("grpc.http2.ping_timeout_ms", ping_timeout_ms),
        ("grpc.http2.max_pings_without_data", 0),
    ]
    if target.tls is None:
        channel = grpc.insecure_channel(target.address, options=options)
    else:
        from palomar.tls import verify_name_option

        credentials, name = _credentials(target, target.tls, timeout_s)
        if name:
            options.append(verify_name_option(name))
        channel = grpc.secure_channel(target.address, credentials, options=options)
    try:
        _await_ready(channel, target, timeout_s)
        yield channel
    except grpc.RpcError as error:
        raise call_error(target, error) from error
    finally:
        channel.close()


def call_error(target: Target, error: Exception) -> CallError:
    """Turn a failed call into an error with the server's own words."""
    code = getattr(error, "code", lambda: None)()
    details = getattr(error, "details", lambda: None)()
    return CallError(target.text, getattr(code, "name", "UNKNOWN"), details or str(error))


def _probe(target: Target, timeout_s: float) -> None:
    """Find out in plain sockets why nothing answers: grpc itself only says that it waited."""
    path = target.socket_path
    try:
        if path is not None:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
                probe.settimeout(timeout_s)
                probe.connect(str(path))
        else:
            with _dial(target, timeout_s) as plain:
                if target.tls is not None and not target.tls.allow_insecure:
                    _shake_hands(plain, target, target.tls)
    except OSError as error:
        raise ServerUnreachableError(target.text, _cause(error), _remedy(target, error)) from error


def _dial(target: Target, timeout_s: float) -> socket.socket:
    host, _, port = target.address.rpartition(":")
    return socket.create_connection((host.strip("[]"), int(port)), timeout_s)


def _shake_hands(plain: socket.socket, target: Target, tls: TlsOptions) -> None:
    """Check certificate and name as grpc will; ssl.SSLError (an OSError) says what is wrong."""
    import ssl

    context = ssl.create_default_context()
    for file in tls.ca_cert_files:
        authorities = _read(file, "--tls-ca-cert-files")
        try:
            context.load_verify_locations(cadata=authorities.decode("ascii", "replace"))
        except (ssl.SSLError, ValueError) as error:
            raise UsageError(f"--tls-ca-cert-files {file}: {_bundle_problem(authorities)}") from error
    if tls.client_cert_file:
        try:
            context.load_cert_chain(tls.client_cert_file, tls.client_key_file)
        except (ssl.SSLError, OSError) as error:
            raise UsageError(_pair_problem(tls)) from error
    context.set_alpn_protocols(["h2"])
    host = target.address.rpartition(":")[0].strip("[]")
    with context.wrap_socket(plain, server_hostname=tls.server_name or host) as wrapped:
        # A gRPC server speaks first; one that refuses our certificate closes only now (TLS 1.3).
        if not wrapped.recv(1):
            raise ssl.SSLError(0, _refusal(tls))


def _bundle_problem(authorities: bytes) -> str:
    from palomar.certs import bundle_problem

    return bundle_problem(authorities) or "is not a list of certificates"


def _pair_problem(tls: TlsOptions) -> str:
    """Say what is wrong with the client certificate and its key; raises UsageError for one not readable."""
    from palomar.certs import KeyPair, pair_problem

    cert = _read(tls.client_cert_file, "--tls-client-cert-file")
    key = _read(tls.client_key_file, "--tls-client-key-file")
    problem = pair_problem(KeyPair(cert, key)) or "cannot be used"
    return f"--tls-client-cert-file {tls.client_cert_file} with its key {tls.client_key_file}: {problem}"


def _refusal(tls: TlsOptions) -> str:
    """Say whose certificate a server refused, and until when it was good."""
    if not tls.client_cert_file:
        return "it wants a client certificate"
    from palomar.certs import inspect, iso

    info = inspect(_read(tls.client_cert_file, "--tls-client-cert-file"))
    until = f"valid {iso(info.not_before)} to {iso(info.not_after)}"
    return f"it refuses the client certificate {tls.client_cert_file} ({info.subject}, {until})"


def _cause(error: OSError) -> str:
    verify_message = getattr(error, "verify_message", "")
    if verify_message:
        return f"certificate not accepted: {verify_message}"
    return "no answer in time" if isinstance(error, TimeoutError) else error.strerror or str(error)


def _remedy(target: Target, error: OSError) -> str:
    if type(error).__module__ == "ssl":
        return "check --tls-ca-cert-files, --tls-client-cert-file and --tls-server-name"
    if target.socket_path is None:
        return "check the address, or leave --server out to ask this node"
    if isinstance(error, PermissionError):
        return "run as root or join the socket's group"
    if error.errno in (errno.ENOENT, errno.ECONNREFUSED):
        return (
            "start the node's agent with `palomar agent`, name its run directory with --run-dir,"
            " or a relay with --server"
        )
    return "check the path"


def _await_ready(channel: "grpc.Channel", target: Target, timeout_s: float) -> None:
    import grpc

    try:
        grpc.channel_ready_future(channel).result(timeout=timeout_s)
    except grpc.FutureTimeoutError as error:
        remedy = (
            "check the --tls flags: CA, client certificate and server name"
            if target.tls is not None
            else "if it speaks TLS, write tls://HOST:PORT with --tls-ca-cert-files"
        )
        cause = f"something listens there, but no gRPC within {timeout_s:g} s"
        raise ServerUnreachableError(target.text, cause, remedy) from error


def _credentials(target: Target, tls: TlsOptions, timeout_s: float) -> "tuple[grpc.ChannelCredentials, str]":
    """Return the credentials and the name to expect in the certificate (empty: the host's)."""
    import grpc

    roots: bytes | None = None
    name = tls.server_name
    if tls.allow_insecure:
        roots, found = _presented_certificate(target, timeout_s)
        name = name or found
    elif tls.ca_cert_files:
        roots = b"\n".join(_read(file, "--tls-ca-cert-files") for file in tls.ca_cert_files)
    key = chain = None
    if tls.client_cert_file:
        key = _read(tls.client_key_file, "--tls-client-key-file")
        chain = _read(tls.client_cert_file, "--tls-client-cert-file")
    return grpc.ssl_channel_credentials(roots, key, chain), name


def _read(file: str, flag: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise UsageError(f"{flag} {file}: {os.strerror(error.errno or 0)}") from error


def _presented_certificate(target: Target, timeout_s: float) -> tuple[bytes, str]:
    """Fetch the server's own certificate: trusting exactly it is what "insecure" can mean with grpc."""
    import ssl

    from cryptography import x509

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        with _dial(target, timeout_s) as plain, context.wrap_socket(plain) as wrapped:
            der = wrapped.getpeercert(binary_form=True) or b""
    except (OSError, ssl.SSLError) as error:
        raise ServerUnreachableError(target.text, str(error), "it does not speak TLS") from error
    names = _names(x509.load_der_x509_certificate(der))
    return ssl.DER_cert_to_PEM_cert(der).encode(), names[0] if names else ""


def _names(certificate: "x509.Certificate") -> list[str]:
    """Return names this certificate is good for."""
    from cryptography import x509

    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    return [name.replace("*", "any") for name in extension.value.get_values_for_type(x509.DNSName)]
