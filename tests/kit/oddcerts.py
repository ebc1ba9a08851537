"""Certificates as `palomar certs` does not make them, but other authorities do: chains, RSA, odd usages."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palomar.certs import KeyPair

Key = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
SERVER, CLIENT = ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH
DAY = timedelta(days=1)


def ec_key() -> Key:
    return ec.generate_private_key(ec.SECP256R1())


def rsa_key() -> Key:
    return rsa.generate_private_key(65537, 2048)


@dataclass(frozen=True)
class Party:
    """A certificate with its key, that may sign others."""

    cert: x509.Certificate
    key: Key

    @property
    def pem(self) -> bytes:
        return self.cert.public_bytes(serialization.Encoding.PEM)

    def key_pem(self, *, traditional: bool = False, password: bytes = b"") -> bytes:
        """PKCS #8, or PKCS #1 and SEC 1 where `traditional`."""
        form = serialization.PrivateFormat
        return self.key.private_bytes(
            serialization.Encoding.PEM,
            form.TraditionalOpenSSL if traditional else form.PKCS8,
            serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
        )


def load(pair: KeyPair) -> Party:
    """A pair of `palomar.certs` as one that can sign."""
    key = serialization.load_pem_private_key(pair.key, None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return Party(x509.load_pem_x509_certificate(pair.cert), key)


def make(
    subject: str,
    issuer: Party | None = None,
    *,
    key: Key | None = None,
    names: Sequence[str] = (),
    usages: Sequence[x509.ObjectIdentifier] = (SERVER, CLIENT),
    is_ca: bool = False,
) -> Party:
    """Make a certificate, self-signed without `issuer`; good from a day ago for another three."""
    own = key or ec_key()
    now = datetime.now(UTC)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, subject)])
    builder = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer.cert.subject if issuer else name)
        .public_key(own.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - DAY)
        .not_valid_after(now + 3 * DAY)
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName(n) for n in names]), critical=False
        )
    if usages and not is_ca:
        builder = builder.add_extension(x509.ExtendedKeyUsage(usages), critical=False)
    return Party(builder.sign(issuer.key if issuer else own, hashes.SHA256()), own)
