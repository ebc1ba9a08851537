"""A certificate authority and short-lived certificates for agents, relay, UI and clients.

Pure but for randomness: keys and certificates as PEM bytes, time as an argument. Files and commands
are elsewhere (`palomar.certdir`, `palomar certs`). Server names are those that Hubble clients expect:
`<node>.<cluster>.hubble-grpc.cilium.io` for a node, `*.hubble-relay.cilium.io` for the relay.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from enum import Enum
from ipaddress import IPv4Address, IPv6Address, ip_address

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from palomar.errors import InvalidInputError

CLOCK_SKEW = timedelta(minutes=5)
"""Certificates are valid from this long before they are made: clocks differ."""
CA_LIFETIME = timedelta(days=3 * 365)
LEAF_LIFETIME = timedelta(days=30)
RENEW_AT_FRACTION = 2 / 3
"""A certificate is due for renewal after this part of its life."""
ROTATE_CA_AT_FRACTION = 0.9
"""An authority is due later: of three years that leaves a hundred days."""
NODE_SUFFIX = "hubble-grpc.cilium.io"
RELAY_SERVER_NAME = "instance.hubble-relay.cilium.io"


class Role(Enum):
    """What a certificate is for."""

    AGENT = "agent"
    """A node's flow server; also a client of other nodes."""
    RELAY = "relay"
    UI = "ui"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A certificate and its private key, PEM; the key unencrypted (PKCS #8)."""

    cert: bytes
    key: bytes


@dataclass(frozen=True, slots=True)
class CertInfo:
    """What people ask about a certificate."""

    subject: str
    issuer: str
    names: tuple[str, ...]
    not_before: datetime
    not_after: datetime
    is_ca: bool
    serial: int
    role: Role | None = None
    """What `issue` made it for; None where it did not."""
    name: str = ""
    """Common name."""
    may_serve: bool = True
    """Its extended key usage, if it has one, lets it be a server's."""
    may_ask: bool = True
    """Likewise a client's."""

    @property
    def lifetime(self) -> timedelta:
        """From its first to its last moment."""
        return self.not_after - self.not_before

    def problem(self, now: datetime) -> str:
        """Say why it does not serve at `now`: empty, `expired ...` or `not valid before ...`."""
        if now > self.not_after:
            return f"expired at {iso(self.not_after)}"
        if now < self.not_before:
            return f"not valid before {iso(self.not_before)}"
        return ""

    def due(self, now: datetime) -> bool:
        """Tell whether it should be renewed by `now`."""
        fraction = ROTATE_CA_AT_FRACTION if self.is_ca else RENEW_AT_FRACTION
        return now >= self.not_before + self.lifetime * fraction


def node_server_name(node: str, cluster: str = "default") -> str:
    """Name under which a node's flow server is verified; dots of names become dashes."""
    return f"{node.replace('.', '-')}.{cluster.replace('.', '-')}.{NODE_SUFFIX}"


def make_ca(now: datetime, lifetime: timedelta = CA_LIFETIME, name: str = "Palomar CA") -> KeyPair:
    """Make a self-signed authority."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    cert = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - CLOCK_SKEW)
        .not_valid_after(now + lifetime)
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        .add_extension(_usage(ca=True), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return _pair(cert, key)


def issue(
    ca: KeyPair,
    role: Role,
    name: str,
    now: datetime,
    *,
    lifetime: timedelta = LEAF_LIFETIME,
    names: Sequence[str] = (),
    cluster: str = "default",
    not_before: datetime | None = None,
    only_names: Sequence[str] | None = None,
) -> KeyPair:
    """Make a certificate for `name` in `role`, signed by `ca`, good for server and client side.

    `names` are further DNS names or addresses; `only_names` replaces all of them. Raises InvalidInputError
    for a CA that is none and for a name that no certificate can hold.
    """
    authority, signer = _load(ca)
    if now >= authority.not_valid_after_utc:
        raise InvalidInputError(f"the CA expired at {iso(authority.not_valid_after_utc)}: make a new one")
    key = ec.generate_private_key(ec.SECP256R1())
    usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
    if role in (Role.AGENT, Role.RELAY):
        usages.insert(0, ExtendedKeyUsageOID.SERVER_AUTH)
    subject = x509.Name(
        [
            x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, role.value),
            x509.NameAttribute(NameOID.COMMON_NAME, name[:64]),
        ]
    )
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(authority.subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(not_before if not_before is not None else now - CLOCK_SKEW)
        .not_valid_after(min(now + lifetime, authority.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(_usage(ca=False), critical=True)
        .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.public_key()),  # type: ignore[arg-type]  # our CAs are EC
            critical=False,
        )
    )
    wanted = _server_names(role, name, cluster, names) if only_names is None else only_names
    alternative = [_general_name(text) for text in wanted]
    if alternative:
        builder = builder.add_extension(x509.SubjectAlternativeName(alternative), critical=False)
    return _pair(builder.sign(signer, hashes.SHA256()), key)


def signer(authorities: bytes, key: bytes) -> bytes:
    """Return which authority in `authorities` (PEM, perhaps several) `key` belongs to, alone, as PEM.

    Raises InvalidInputError where none does.
    """
    known = split(authorities)
    if not known:
        raise InvalidInputError(f"the CA's files are damaged: ca.crt: {bundle_problem(authorities)}")
    for cert in known:
        if is_pair(KeyPair(cert, key)):
            return cert
    raise InvalidInputError(
        "ca.key is the key of no certificate in ca.crt: bring back the two that belong together"
    )


def split(bundle: bytes) -> list[bytes]:
    """Return every certificate of a PEM file by itself; none where there is none, or one is damaged."""
    try:
        found = x509.load_pem_x509_certificates(bundle)
    except ValueError:
        return []
    return [cert.public_bytes(serialization.Encoding.PEM) for cert in found]


def reissue(ca: KeyPair, cert: bytes, now: datetime, lifetime: timedelta | None = None) -> KeyPair:
    """Make a successor of `cert`: same role, name and server names, new key; same lifetime unless given.

    Raises InvalidInputError where `cert` was not made by `issue`.
    """
    info = inspect(cert)
    if info.role is None or not info.name:
        raise InvalidInputError(f"{info.subject} was not issued by palomar certs: issue it anew")
    lasting = lifetime if lifetime is not None else info.lifetime - CLOCK_SKEW
    return issue(ca, info.role, info.name, now, lifetime=lasting, only_names=info.names)


def is_pair(pair: KeyPair) -> bool:
    """Tell whether key and certificate belong together; False for what is neither."""
    return not pair_problem(pair)


def pair_problem(pair: KeyPair) -> str:
    """Say why key and certificate cannot be shown together; empty where they can."""
    try:
        cert = x509.load_pem_x509_certificate(pair.cert)
        public = cert.public_key()
    except (ValueError, UnsupportedAlgorithm):
        return "the certificate is no PEM certificate, or half of one"
    try:
        key = serialization.load_pem_private_key(pair.key, password=None)
    except TypeError:
        return "the key is encrypted: only plain keys are read"
    except (ValueError, UnsupportedAlgorithm):
        return "the key is no PEM key, or half of one"
    if key.public_key() == public:
        return ""
    others = split(pair.cert)[1:]
    if any(is_pair(KeyPair(other, pair.key)) for other in others):
        return "one's own certificate must stand before those of its authorities"
    return "the key belongs to another certificate"


def bundle_problem(ca: bytes) -> str:
    """Say why `ca` (PEM) cannot be what others are checked by; empty where it can."""
    return "" if split(ca) else "no PEM certificate in it, or half of one"


def inspect(cert: bytes) -> CertInfo:
    """Read a PEM certificate; raise InvalidInputError where it is none."""
    try:
        found = x509.load_pem_x509_certificate(cert)
    except ValueError as error:
        raise InvalidInputError(f"not a PEM certificate: {error}") from error
    try:
        return _read(found)
    except (ValueError, x509.DuplicateExtension, x509.UnsupportedGeneralNameType) as error:
        raise InvalidInputError(f"a certificate that cannot be understood: {error}") from error


def _read(cert: x509.Certificate) -> CertInfo:
    names: tuple[str, ...] = ()
    is_ca = False
    usages: set[x509.ObjectIdentifier] = set()
    for extension in cert.extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = tuple(str(entry.value) for entry in extension.value)
        if isinstance(extension.value, x509.BasicConstraints):
            is_ca = extension.value.ca
        if isinstance(extension.value, x509.ExtendedKeyUsage):
            usages = set(extension.value)
    return CertInfo(
        subject=cert.subject.rfc4514_string(),
        issuer=cert.issuer.rfc4514_string(),
        names=names,
        not_before=cert.not_valid_before_utc,
        not_after=cert.not_valid_after_utc,
        is_ca=is_ca,
        serial=cert.serial_number,
        role=_role(_attribute(cert, NameOID.ORGANIZATIONAL_UNIT_NAME)),
        name=_attribute(cert, NameOID.COMMON_NAME),
        may_serve=not usages or ExtendedKeyUsageOID.SERVER_AUTH in usages,
        may_ask=not usages or ExtendedKeyUsageOID.CLIENT_AUTH in usages,
    )


def utc(ns: int) -> datetime:
    """Turn nanoseconds since the epoch into an aware datetime."""
    return datetime.fromtimestamp(ns / 1e9, UTC)


def iso(moment: datetime) -> str:
    """`2026-11-21T08:00:00Z`."""
    return f"{moment.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}"


def signed_by(cert: bytes, ca: bytes) -> bool:
    """Tell whether one of the authorities in `ca` (PEM, perhaps several) signed `cert`.

    Intermediate authorities that stand behind it in `cert` may lie between.
    """
    try:
        leaf, *between = x509.load_pem_x509_certificates(cert)
        authorities = x509.load_pem_x509_certificates(ca)
    except ValueError:
        return False
    for _ in range(len(between) + 1):
        if any(_signed(leaf, authority) for authority in authorities):
            return True
        issuer = next((other for other in between if _signed(leaf, other)), None)
        if issuer is None:
            return False
        leaf = issuer
    return False


def _signed(leaf: x509.Certificate, authority: x509.Certificate) -> bool:
    try:
        leaf.verify_directly_issued_by(authority)
    except (ValueError, TypeError, InvalidSignature):
        return False
    return True


def matches_name(names: Sequence[str], wanted: str) -> bool:
    """Tell whether a certificate with `names` is good for the server name `wanted` (RFC 6125, 6.4.3)."""
    _, _, parent = wanted.lower().partition(".")
    return any(name.lower() in (wanted.lower(), f"*.{parent}") for name in names)


def _attribute(cert: x509.Certificate, oid: x509.ObjectIdentifier) -> str:
    found = cert.subject.get_attributes_for_oid(oid)
    return str(found[0].value) if found else ""


def _role(text: str) -> Role | None:
    return next((role for role in Role if role.value == text), None)


def _server_names(role: Role, name: str, cluster: str, names: Sequence[str]) -> list[str]:
    own: list[str] = []
    if role is Role.AGENT:
        own = [node_server_name(name, cluster)]
    elif role is Role.RELAY:
        own = ["*.hubble-relay.cilium.io", "hubble-relay", "localhost", "127.0.0.1"]
    return [*own, *names]


def _general_name(text: str) -> x509.GeneralName:
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        try:
            return x509.DNSName(text)
        except ValueError as error:
            raise InvalidInputError(f"{text!r} cannot be a name in a certificate: {error}") from error
    return x509.IPAddress(address)


def _usage(*, ca: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=ca,
        crl_sign=ca,
        encipher_only=False,
        decipher_only=False,
    )


def _pair(cert: x509.Certificate, key: ec.EllipticCurvePrivateKey) -> KeyPair:
    return KeyPair(
        cert.public_bytes(serialization.Encoding.PEM),
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        ),
    )


def _load(ca: KeyPair) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        cert = x509.load_pem_x509_certificate(ca.cert)
        key = serialization.load_pem_private_key(ca.key, password=None)
    except ValueError as error:
        raise InvalidInputError(f"the CA's files are damaged: {error}: make it anew") from error
    if not isinstance(key, ec.EllipticCurvePrivateKey):
        raise InvalidInputError("the CA's key is not an elliptic curve key: make the CA with palomar certs")
    return cert, key
