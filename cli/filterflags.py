"""The filter flags of `palomar observe`: their names, help and how they land in argparse, in order.

Not their meaning: `cli.flowfilter` turns the collected `FilterArg`s into filter messages. Kept apart
so that `--help` loads no protobuf.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from cli.errors import UsageError
from cli.parser import BareFlag


@dataclass(frozen=True, slots=True)
class FilterArg:
    """One filter flag as it was given."""

    name: str
    """Without dashes: `from-pod`."""
    value: str
    negated: bool = False
    """Came after `--not`."""


_SIDED = (
    ("pod", "[NS/]POD", "pod name prefix; without NS the one of --namespace, else 'default'"),
    ("namespace", "NS", "namespace of the pod"),
    ("ip", "ADDR|CIDR", "address or CIDR"),
    ("identity", "ID|NAME", "numeric identity or reserved name (world, host, ...)"),
    ("label", "SELECTOR", "label selector, e.g. 'k8s:app=web,env in (a,b)'"),
    ("port", "PORT", "TCP, UDP or SCTP port"),
    ("service", "[NS/]NAME", "service name prefix"),
    ("workload", "[KIND/]NAME", "workload, e.g. Deployment/web"),
    ("fqdn", "PATTERN", "DNS name, * matches anything"),
    ("cluster", "PATTERN", "cluster name, * matches anything"),
)

_PLAIN = (
    ("type", "TYPE[:SUBTYPE]", "event type: drop, trace:to-endpoint, policy-verdict, l7, ..."),
    ("verdict", "VERDICT", "FORWARDED, DROPPED, AUDIT, REDIRECTED, ERROR, TRACED, TRANSLATED"),
    ("drop-reason-desc", "NAME", "drop reason, e.g. POLICY_DENIED"),
    ("protocol", "NAME", "tcp, udp, icmp, icmpv4, icmpv6, sctp, vrrp, igmp, http, dns, kafka"),
    ("traffic-direction", "DIR", "ingress or egress"),
    ("tcp-flags", "FLAGS", "comma list of TCP flags that are all set, e.g. SYN,ACK"),
    ("ip-version", "VERSION", "none, v4 or v6"),
    ("snat-ip", "ADDR|CIDR", "source address after SNAT"),
    ("node-name", "[CLUSTER/]NODE", "node that saw the flow, * matches anything"),
    ("node-label", "SELECTOR", "label selector on that node's labels"),
    ("interface", "NAME", "network interface name"),
    ("uuid", "UUID", "one flow by its uuid"),
    ("trace-id", "HEX", "W3C trace id"),
    ("ip-trace-id", "NUMBER", "trace id of the IP option"),
    ("http-status", "CODE", "exact code, or a prefix such as 4+ or 50+"),
    ("http-method", "METHOD", "HTTP method"),
    ("http-path", "REGEX", "regular expression on the URL's path"),
    ("http-url", "REGEX", "regular expression on the whole URL"),
    ("http-header", "KEY:VALUE", "HTTP header with exactly this value"),
    ("cel-expression", "CEL", "CEL expression over the flow, variable _flow"),
)

_BARE = (
    ("ipv4", "4", "only IPv4"),
    ("ipv6", "6", "only IPv6"),
    ("encrypted", "", "only encrypted traffic"),
    ("unencrypted", "", "only unencrypted traffic"),
    ("all-namespaces", "A", "every namespace (the default)"),
    ("from-all-namespaces", "", "every source namespace (the default)"),
    ("to-all-namespaces", "", "every destination namespace (the default)"),
)

_BARE_VALUES = {"ipv4": "v4", "ipv6": "v6"}
_SHORT = {"namespace": "n", "label": "l", "type": "t"}


class _FilterAction(argparse.Action):
    """Append a FilterArg, negated where `--not` came before."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Consume a pending `--not`."""
        _collect(namespace, FilterArg(self.dest, str(values), namespace.negate_next))


class _BareFilterAction(BareFlag):
    """The same for a filter flag without a value."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Consume a pending `--not`."""
        _collect(namespace, FilterArg(self.dest, "true", namespace.negate_next))


def _collect(namespace: argparse.Namespace, arg: FilterArg) -> None:
    namespace.filters = [*namespace.filters, arg]
    namespace.negate_next = False


class _NotAction(BareFlag):
    def __call__(
        self,
        parser: argparse.ArgumentParser,
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,
    ) -> None:
        """Negate the next filter flag."""
        if namespace.negate_next:
            raise UsageError("--not twice in a row: write it once before each filter flag to negate")
        namespace.negate_next = True


def add_filter_flags(parser: argparse.ArgumentParser) -> None:
    """Give `parser` every filter flag; the result is `filters` (tuple of FilterArg), in order."""
    parser.set_defaults(filters=(), negate_next=False)
    group = parser.add_argument_group(
        "filters",
        "The same flag again means OR, different flags mean AND; --not before a flag excludes.",
    )
    group.add_argument(
        "--not", action=_NotAction, bare="true", dest="not", help="negate the next filter flag"
    )
    for name, metavar, text in _SIDED:
        _add(group, name, metavar, f"either side: {text}")
        _add(group, f"from-{name}", metavar, f"source: {text}")
        _add(group, f"to-{name}", metavar, f"destination: {text}")
    for name, metavar, text in _PLAIN:
        _add(group, name, metavar, text)
    for name, short, text in _BARE:
        options = [f"-{short}", f"--{name}"] if short else [f"--{name}"]
        group.add_argument(
            *options,
            action=_BareFilterAction,
            bare=_BARE_VALUES.get(name, "true"),
            dest=name,
            default=argparse.SUPPRESS,
            help=text,
        )


def _add(group: Any, name: str, metavar: str, text: str) -> None:
    options = [f"-{_SHORT[name]}", f"--{name}"] if name in _SHORT else [f"--{name}"]
    group.add_argument(
        *options,
        action=_FilterAction,
        dest=name,
        metavar=metavar,
        default=argparse.SUPPRESS,
        help=text,
    )


def collected(namespace: argparse.Namespace) -> Sequence[FilterArg]:
    """Return what was given; raise UsageError where `--not` stands at the end."""
    if namespace.negate_next:
        raise UsageError("--not must be followed by the filter flag it negates")
    return tuple(namespace.filters)
