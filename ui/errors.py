"""What `palomar ui` may refuse to do."""

from palomar.errors import InvalidInputError


class ListenAddressError(InvalidInputError):
    """The page may be served on loopback only; the message names the remedy."""


class ServerAddressError(InvalidInputError):
    """The flow server's address or its TLS files cannot be meant."""
