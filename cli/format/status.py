"""`palomar status`: the agent's own report as `Key:  value` lines, and whether it is well.

Pure. Input: the decoded answer of `GET /v1/healthz`. Every line is there only where the agent says
something about it; the order is the field's, then what is ours.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from cli.format import columns
from cli.format.agent import Json, at
from cli.format.statusdetails import details, failures, processes, text_of

SERVER = "flow-server"
"""Key under which the command adds what the flow server says of itself (see `server_facts`)."""

_WELL = ("Ok", "Disabled", "", None)


def problems(status: Json) -> list[str]:
    """Name the components that are not well; empty when the node does its work."""
    found = []
    for key, name in (("kvstore", "kvstore"), ("cilium", "palomar"), ("hubble", "hubble"), (SERVER, SERVER)):
        state = at(status, key, "state")
        if state not in _WELL:
            found.append(f"{name}: {at(status, key, 'msg') or state}")
    found += [
        f"process {process.get('name')}: {process.get('state')}"
        for process in processes(status)
        if process.get("state") not in ("running", "ok", "Ok", None)
    ]
    failing = [item for item in status.get("controllers") or [] if failures(item)]
    if failing:
        names = ", ".join(str(item.get("name")) for item in failing[:3])
        found.append(f"{len(failing)} failing controller(s): {names}")
    found += [
        f"events of cpu {cpu.get('cpu')} do not add up"
        for cpu in at(status, "palomar", "observed", "cpus") or []
        if cpu.get("emitted", 0) < cpu.get("stored", 0) + cpu.get("lost", 0)
    ]
    return found


def brief(status: Json) -> str:
    """Return `OK`, or `error in <component>: ...` for the first problem."""
    found = problems(status)
    return f"error in {found[0]}" if found else "OK"


def lines(status: Json, verbose: bool = False) -> list[str]:
    """Return the whole report."""
    pairs = [*_pairs(status), *_observed(status, verbose)]
    text = columns.align([(f"{key}:", value) for key, value in pairs])
    if verbose:
        for title, rows in details(status):
            if len(rows) > 1:
                text += [f"{title}:", *(f"  {line}" for line in columns.align(rows))]
    found = problems(status)
    if found:
        text += ["", *(f"PROBLEM: {problem}" for problem in found)]
    return text


def _state(tree: Any, key: str) -> str:
    state, message = at(tree, key, "state") or "", at(tree, key, "msg") or ""
    return f"{state}   {message}".strip()


def _pairs(status: Json) -> Iterator[tuple[str, str]]:
    for name, text in (
        ("KVStore", _state(status, "kvstore")),
        ("Kubernetes", _state(status, "kubernetes")),
        ("Palomar", _palomar(status)),
        ("NodeMonitor", _monitor(status.get("nodeMonitor"))),
        ("IPAM", _ipam(status.get("ipam"))),
        ("Routing", _routing(status.get("routing"))),
        ("Attach Mode", _upper(status.get("attach-mode"))),
        ("Device Mode", str(status.get("datapath-mode") or "")),
        ("Masquerading", _masquerading(status.get("masquerading"))),
        ("Clock Source for BPF", str(at(status, "clock-source", "mode") or "")),
        ("Controller Status", _controllers(status.get("controllers"))),
        ("Proxy Status", _proxy(status.get("proxy"))),
        ("Global Identity Range", _identity_range(status.get("identity-range"))),
        ("Hubble", _hubble(status.get("hubble"))),
        ("Flow Server", _flow_server(status.get(SERVER))),
        ("BPF Maps", _maps(status.get("bpf-maps"))),
        ("Encryption", str(at(status, "encryption", "mode") or "")),
        ("Cluster", _cluster(status.get("cluster"))),
        ("Policy Revision", text_of(at(status, "palomar", "policy-revision"))),
    ):
        if text:
            yield name, text


def _upper(value: Any) -> str:
    return str(value or "").upper()


def _palomar(status: Json) -> str:
    own = status.get("palomar") or {}
    facts = [
        f"{name} {own[key]}"
        for name, key in (("node", "node"), ("node ip", "node-ip"), ("version", "version"))
        if own.get(key)
    ]
    return "   ".join(part for part in (_state(status, "cilium"), ", ".join(facts)) if part)


def _monitor(monitor: Any) -> str:
    if not monitor:
        return ""
    text = (
        f"Listening for events on {monitor.get('cpus', 0)} CPUs"
        f" with {monitor.get('npages', 0)}x{monitor.get('pagesize', 0)} of shared memory"
    )
    lost, unknown = monitor.get("lost") or 0, monitor.get("unknown") or 0
    return f"{text}, {lost} lost, {unknown} unknown" if lost or unknown else text


def _ipam(ipam: Any) -> str:
    if not ipam:
        return ""
    return str(ipam.get("status") or f"{len(ipam.get('allocations') or {})} addresses allocated")


def _routing(routing: Any) -> str:
    if not routing:
        return ""
    protocol = routing.get("tunnel-protocol")
    network = f"{routing.get('inter-host-routing-mode', '')}{f' [{protocol}]' if protocol else ''}"
    return f"Network: {network}   Host: {routing.get('intra-host-routing-mode', '')}"


def _masquerading(masquerading: Any) -> str:
    if not masquerading:
        return ""
    if not masquerading.get("enabled"):
        return "Disabled"
    protocols = masquerading.get("enabledProtocols") or {}
    which = ", ".join(
        f"{name}: {'Enabled' if protocols.get(key) else 'Disabled'}"
        for name, key in (("IPv4", "ipv4"), ("IPv6", "ipv6"))
    )
    exclusion = masquerading.get("snat-exclusion-cidr-v4") or masquerading.get("snat-exclusion-cidr") or ""
    return f"{masquerading.get('mode', '')}   {exclusion}   [{which}]".replace("      ", "   ")


def _controllers(controllers: Any) -> str:
    if controllers is None:
        return ""
    healthy = sum(not failures(item) for item in controllers)
    return f"{healthy}/{len(controllers)} healthy"


def _proxy(proxy: Any) -> str:
    if not proxy:
        return ""
    return (
        f"OK, ip {proxy.get('ip', '')}, {proxy.get('total-redirects', 0)} redirects active"
        f" on ports {proxy.get('port-range', '')}, Envoy: {proxy.get('envoy-deployment-mode', '')}"
    )


def _identity_range(identities: Any) -> str:
    if not identities:
        return ""
    return f"min {identities.get('min-identity')}, max {identities.get('max-identity')}"


def _hubble(hubble: Any) -> str:
    if not hubble:
        return ""
    parts = [str(hubble.get("state") or "")]
    observer = hubble.get("observer") or {}
    most = observer.get("max-flows") or 0
    if most:
        now = observer.get("current-flows") or 0
        parts.append(f"Current/Max Flows: {now}/{most} ({100 * now / most:.2f}%)")
        rate = _rate(observer)
        parts[-1] += f", Flows/s: {rate:.2f}" if rate is not None else ""
    metrics = at(hubble, "metrics", "state")
    if metrics:
        parts.append(f"Metrics: {metrics}")
    if hubble.get("msg"):
        parts.append(str(hubble["msg"]))
    return "   ".join(part for part in parts if part)


def _flow_server(server: Any) -> str:
    return _hubble({**server, "observer": server}) if server else ""


def _rate(observer: Json) -> float | None:
    seen, uptime = observer.get("seen-flows"), seconds(observer.get("uptime"))
    return None if seen is None or not uptime else float(seen) / uptime


def seconds(uptime: Any) -> float:
    """Read an uptime: seconds as a number, nanoseconds as a whole number above 1e9, or `1h2m3.5s`."""
    if isinstance(uptime, int | float) and not isinstance(uptime, bool):
        return uptime / 1e9 if uptime > 1e9 else float(uptime)
    total, number = 0.0, ""
    for character in str(uptime or ""):
        if character.isdigit() or character == ".":
            number += character
        elif number:
            total += float(number) * {"h": 3600, "m": 60, "s": 1}.get(character, 0)
            number = ""
    return total


def _maps(maps: Any) -> str:
    if not maps:
        return ""
    ratio = maps.get("dynamic-size-ratio")
    sizing = f"dynamic sizing: on (ratio: {ratio})" if ratio else "fixed sizes"
    listed = maps.get("maps") or []
    return f"{sizing}, {len(listed)} maps" if listed else sizing


def _cluster(cluster: Any) -> str:
    if not cluster:
        return ""
    nodes = cluster.get("nodes") or []
    return f"{len(nodes)} nodes, self {cluster.get('self', '')}" if nodes else ""


def _observed(status: Json, verbose: bool) -> Iterator[tuple[str, str]]:
    observed = at(status, "palomar", "observed")
    if not observed:
        return
    yield "Events", _account(observed)
    cpus: Sequence[Json] = observed.get("cpus") or []
    if verbose or any(cpu.get("lost") for cpu in cpus):
        for cpu in cpus:
            yield f"  CPU {cpu.get('cpu')}", _account(cpu)


def _account(counts: Json) -> str:
    text = f"{counts.get('emitted', 0)} emitted = {counts.get('stored', 0)} stored"
    text += f" + {counts.get('lost', 0)} lost"
    underway = counts.get("emitted", 0) - counts.get("stored", 0) - counts.get("lost", 0)
    if underway > 0:
        text += f" + {underway} under way"
    suppressed = counts.get("suppressed") or 0
    return f"{text} ({suppressed} suppressed)" if suppressed else text
