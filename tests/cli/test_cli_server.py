"""Channels over mutual TLS that really shake hands, and what is said where they do not."""

import datetime
import socket

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from cli.errors import ServerUnreachableError, UsageError
from cli.main import main
from cli.server import connect
from cli.target import TlsOptions, parse_target
from palomar.certdir import CertDirectory
from palomar.certs import Role
from palomar_pb.observer import observer_pb2, observer_pb2_grpc
from tests.cli import flowcast
from tests.cli.flowserver import FlowServer, serving


class Authority:
    """A CA that writes certificates and keys as PEM files."""

    def __init__(self, directory, name):
        self.directory = directory
        self.name = name
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.certificate = self._sign(name, self.key.public_key(), ca=True)
        self.file = directory / f"{name}.crt"
        self.file.write_bytes(self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, name, public_key, ca=False):
        now = datetime.datetime.now(datetime.UTC)
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        issuer = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, self.name)])
        builder = (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(issuer)
            .public_key(public_key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(hours=1))
            .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
        )
        names = x509.SubjectAlternativeName([x509.DNSName(name)])
        builder = builder.add_extension(names, critical=False)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, name):
        key = ec.generate_private_key(ec.SECP256R1())
        certificate = self._sign(name, key.public_key())
        files = self.directory / f"{name}.crt", self.directory / f"{name}.key"
        files[0].write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        files[1].write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )
        return files


@pytest.fixture
def relay(tmp_path):
    """A relay on loopback that demands client certificates; yields (port, authority)."""
    authority = Authority(tmp_path, "ca")
    certificate, key = authority.issue("relay.palomar.io")
    credentials = grpc.ssl_server_credentials(
        [(key.read_bytes(), certificate.read_bytes())], authority.file.read_bytes(), require_client_auth=True
    )
    flows = FlowServer([dict(flowcast.samples())["drop"]])
    with serving(flows, "127.0.0.1:0", credentials=credentials) as port:
        yield port, authority, flows


def test_mutual_tls_with_server_name(relay, capsys):
    port, authority, flows = relay
    certificate, key = authority.issue("client")
    status = main(
        [
            "observe",
            f"--server=tls://127.0.0.1:{port}",
            f"--tls-ca-cert-files={authority.file}",
            f"--tls-client-cert-file={certificate}",
            f"--tls-client-key-file={key}",
            "--tls-server-name=relay.palomar.io",
        ]
    )
    assert status == 0
    assert "Policy denied DROPPED" in capsys.readouterr().out
    assert "Summary" in flows.requests[-1].field_mask.paths, "over a network only what text shows"


def test_without_client_certificate_nothing_is_seen(relay, capsys):
    port, authority, flows = relay
    words = [
        "observe",
        f"--server=tls://127.0.0.1:{port}",
        f"--tls-ca-cert-files={authority.file}",
        "--tls-server-name=relay.palomar.io",
        "--timeout=2s",
    ]
    assert main(words) == 1
    assert "Traceback" not in capsys.readouterr().err
    assert flows.requests == []


def test_a_server_of_another_authority_is_refused_unless_told_otherwise(relay, tmp_path):
    port, authority, _ = relay
    other = Authority(tmp_path, "other")
    certificate, key = (str(file) for file in authority.issue("client"))
    strict = TlsOptions(
        ca_cert_files=(str(other.file),),
        client_cert_file=certificate,
        client_key_file=key,
        server_name="relay.palomar.io",
    )
    with (
        pytest.raises(ServerUnreachableError, match=r"certificate not accepted: unable to get local issuer"),
        connect(parse_target(f"127.0.0.1:{port}", strict), 1.0),
    ):
        pass
    unnamed = TlsOptions(ca_cert_files=(str(authority.file),))
    with (
        pytest.raises(ServerUnreachableError, match=r"certificate not accepted: .*127"),
        connect(parse_target(f"127.0.0.1:{port}", unnamed), 1.0),
    ):
        pass
    lax = TlsOptions(allow_insecure=True, client_cert_file=certificate, client_key_file=key)
    with connect(parse_target(f"127.0.0.1:{port}", lax), 5.0) as channel:
        stub = observer_pb2_grpc.ObserverStub(channel)
        assert stub.ServerStatus(observer_pb2.ServerStatusRequest(), timeout=5).max_flows == 100


def test_plain_text_to_a_tls_port_says_what_to_try(relay):
    port, _, _ = relay
    with (
        pytest.raises(ServerUnreachableError, match="tls://"),
        connect(parse_target(f"127.0.0.1:{port}", TlsOptions()), 1.0),
    ):
        pass


def test_nobody_listening_is_said_at_once(unused_tcp_port):
    with (
        pytest.raises(ServerUnreachableError, match="Connection refused"),
        connect(parse_target(f"127.0.0.1:{unused_tcp_port}", TlsOptions()), 60.0),
    ):
        pass


def test_a_missing_certificate_file_names_flag_and_file(relay):
    port, _, _ = relay
    options = TlsOptions(ca_cert_files=("/nowhere/ca.crt",))
    with (
        pytest.raises(UsageError, match=r"--tls-ca-cert-files /nowhere/ca\.crt"),
        connect(parse_target(f"127.0.0.1:{port}", options), 1.0),
    ):
        pass


def test_a_socket_without_permission_says_so(tmp_path, monkeypatch):
    import os
    import socket

    path = tmp_path / "hubble.sock"
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen()
    path.chmod(0)
    if os.geteuid() == 0:
        # root passes every mode: take the errno from the kernel's own words instead
        from cli.server import _remedy

        target = parse_target(str(path), TlsOptions())
        assert "group" in _remedy(target, PermissionError(13, "Permission denied"))
    else:
        with (
            pytest.raises(ServerUnreachableError, match="group"),
            connect(parse_target(str(path), TlsOptions()), 1.0),
        ):
            pass
    listener.close()


@pytest.mark.parametrize(
    ("spoilt", "said"),
    [
        ("ca.crt", "--tls-ca-cert-files {file}: no PEM certificate in it, or half of one"),
        ("client-alice.crt", "--tls-client-cert-file {file} with its key"),
        ("client-alice.key", "the key is no PEM key, or half of one"),
    ],
)
@pytest.mark.parametrize("left", [0, 100])
def test_certificate_files_that_cannot_be_used_are_named(tmp_path, spoilt, said, left):
    """Empty, or half written: before anything is asked, and with the flag that named the file."""
    now = datetime.datetime.now(datetime.UTC)
    made = CertDirectory(tmp_path)
    made.init(now)
    made.issue(Role.CLIENT, "alice", now)
    file = tmp_path / spoilt
    file.write_bytes(file.read_bytes()[:left])
    tls = TlsOptions(
        ca_cert_files=(str(tmp_path / "ca.crt"),),
        client_cert_file=str(tmp_path / "client-alice.crt"),
        client_key_file=str(tmp_path / "client-alice.key"),
    )
    with socket.create_server(("127.0.0.1", 0)) as server:
        target = parse_target(f"tls://127.0.0.1:{server.getsockname()[1]}", tls)
        with pytest.raises(UsageError) as caught, connect(target, 5.0):
            pass
    assert said.format(file=file) in str(caught.value)
