"""What the agent's API answers: one handler per path of the field's API that exists here.

Input: requests, checked here; output: JSON of `agent.api.views` and `agent.status`, changes through the
endpoint manager and the policy set. Errors are raised as they come; `agent.api.server` makes statuses of
them.
"""

import asyncio
import json
from collections.abc import Coroutine
from ipaddress import IPv4Network
from typing import Any, TypeVar

from aiohttp import web

from agent.api import views
from agent.api.maps import map_dump, map_list
from agent.endpoint.model import Endpoint
from agent.endpoint.request import parse_request
from agent.policy.api import PolicyName
from agent.runtime import Runtime
from agent.status import status_response
from palomar.errors import InvalidInputError, PermanentError
from palomar.labels import LabelSet
from palomar.table import RowState

T = TypeVar("T")

CHANGES: web.AppKey[set[asyncio.Task[Any]]] = web.AppKey("changes", set)
"""Changes under way: the server waits for them before it ends."""
ENDPOINT_ID = "{id:pod-name:[^/]+/[^/]+|[^/]+}"
"""The slash of a pod's name may come as it is or as %2F."""
RUNTIME: web.AppKey[Runtime] = web.AppKey("runtime", Runtime)


class IdentityNotFoundError(PermanentError):
    """No identity has this number."""

    def __init__(self, number: str) -> None:
        """Keep the number."""
        self.number = number
        super().__init__(f"no identity {number}: `palomar identity list` shows those known here")


class NoSuchLabelsError(PermanentError):
    """No imported policy has these labels."""

    def __init__(self, labels: list[str]) -> None:
        """Keep the labels."""
        self.labels = labels
        super().__init__(f"no imported policy has the labels {' '.join(labels)}")


def add_routes(app: web.Application) -> None:
    """Add every path below `/v1`."""
    app.router.add_get("/v1/healthz", healthz)
    app.router.add_get("/v1/config", config)
    app.router.add_get("/v1/endpoint", list_endpoints)
    app.router.add_get(f"/v1/endpoint/{ENDPOINT_ID}", get_endpoint)
    app.router.add_put(f"/v1/endpoint/{ENDPOINT_ID}", put_endpoint)
    app.router.add_delete(f"/v1/endpoint/{ENDPOINT_ID}", delete_endpoint)
    app.router.add_get(f"/v1/endpoint/{ENDPOINT_ID}/log", endpoint_log)
    app.router.add_get(f"/v1/endpoint/{ENDPOINT_ID}/healthz", endpoint_health)
    app.router.add_get("/v1/identity", list_identities)
    app.router.add_get("/v1/identity/{id}", get_identity)
    app.router.add_get("/v1/policy", get_policy)
    app.router.add_put("/v1/policy", put_policy)
    app.router.add_delete("/v1/policy", delete_policy)
    app.router.add_get("/v1/ip", list_ips)
    app.router.add_get("/v1/cluster/nodes", cluster_nodes)
    app.router.add_get("/v1/map", list_maps)
    app.router.add_get("/v1/map/{name}", get_map)


async def healthz(request: web.Request) -> web.Response:
    """Status of the agent; always 200, the states say how it is."""
    return web.json_response(status_response(request.app[RUNTIME]))


async def config(request: web.Request) -> web.Response:
    """The configuration in force."""
    runtime = request.app[RUNTIME]
    given = runtime.config
    return web.json_response(
        {
            "spec": {"options": {}, "policy-enforcement": given.enable_policy},
            "status": {
                "realized": {"options": {}, "policy-enforcement": given.enable_policy},
                "immutable": {},
                "addressing": {
                    "ipv4": {
                        "enabled": True,
                        "ip": str(given.node_ipv4),
                        "alloc-range": str(given.pod_cidr),
                    }
                },
                "datapathMode": "veth",
                "ipam-mode": "cluster-pool",
                "masquerade": given.enable_ipv4_masquerade,
                "kvstoreConfiguration": {"type": given.kvstore, "options": {}},
                "daemonConfigurationMap": given.texts(),
            },
        }
    )


# --- endpoints


def _row_state(runtime: Runtime, item: Endpoint) -> RowState | None:
    row = runtime.sync.row(item.endpoint_id)
    return row.state if row is not None else None


def _endpoint_view(runtime: Runtime, item: Endpoint, state: RowState | None) -> dict[str, Any]:
    policy = runtime.sync.policy_of(item.endpoint_id)
    return views.endpoint(item, policy, runtime.sync.engine.revision, state)


async def list_endpoints(request: web.Request) -> web.Response:
    """Every endpoint, by id."""
    runtime = request.app[RUNTIME]
    states = {row.key: row.state for row in runtime.sync.table.rows()}
    return web.json_response(
        [_endpoint_view(runtime, e, states.get(e.endpoint_id)) for e in runtime.endpoints.endpoints()]
    )


def _find(request: web.Request) -> Endpoint:
    return request.app[RUNTIME].endpoints.find(request.match_info["id"])


async def get_endpoint(request: web.Request) -> web.Response:
    """One endpoint."""
    runtime, item = request.app[RUNTIME], _find(request)
    return web.json_response(_endpoint_view(runtime, item, _row_state(runtime, item)))


async def put_endpoint(request: web.Request) -> web.Response:
    """Add an endpoint; the id in the path is not looked at, the agent chooses."""
    runtime = request.app[RUNTIME]
    wish = parse_request(await _json(request), runtime.config.cluster_name)
    added = await _unbroken(request, runtime.endpoints.add(wish), "add endpoint")
    return web.json_response(_endpoint_view(runtime, added, _row_state(runtime, added)), status=201)


async def delete_endpoint(request: web.Request) -> web.Response:
    """Take an endpoint away."""
    runtime, item = request.app[RUNTIME], _find(request)
    await _unbroken(request, runtime.endpoints.delete(item), "delete endpoint")
    return web.json_response(None)


async def endpoint_log(request: web.Request) -> web.Response:
    """What happened to an endpoint, newest first."""
    return web.json_response(views.status_log(_find(request).log.newest_first()))


async def endpoint_health(request: web.Request) -> web.Response:
    """How an endpoint is."""
    item = _find(request)
    return web.json_response(views.health(item, _row_state(request.app[RUNTIME], item)))


# --- identities and addresses


async def list_identities(request: web.Request) -> web.Response:
    """Every identity known here, by number."""
    return web.json_response(views.identities(request.app[RUNTIME].identities.cache.as_mapping()))


async def get_identity(request: web.Request) -> web.Response:
    """One identity."""
    text = request.match_info["id"]
    if not (text.isascii() and text.isdigit()):
        raise InvalidInputError(f"{text!r} is no number", "id")
    labels = request.app[RUNTIME].identities.cache.labels(int(text))
    if labels is None:
        raise IdentityNotFoundError(text)
    return web.json_response(views.identity(int(text), labels))


async def list_ips(request: web.Request) -> web.Response:
    """Every known prefix, or those inside `?cidr=`."""
    entries = request.app[RUNTIME].ipcache.entries()
    text = request.query.get("cidr")
    if text:
        try:
            wanted = IPv4Network(text, strict=False)
        except ValueError as error:
            raise InvalidInputError(f"{text!r} is no IPv4 network", "cidr") from error
        entries = {network: info for network, info in entries.items() if network.subnet_of(wanted)}
    return web.json_response(views.ip_list(entries))


async def cluster_nodes(request: web.Request) -> web.Response:
    """Every node, this one first."""
    nodes = request.app[RUNTIME].nodes
    return web.json_response(
        {
            "self": nodes.local.full_name,
            "client-id": 0,
            "nodes-added": [views.node_element(node) for node in nodes.nodes()],
            "nodes-removed": [],
        }
    )


# --- policies


def _policy_view(runtime: Runtime) -> dict[str, Any]:
    stored = runtime.sync.engine.repository.policies()
    documents = [json.loads(item.policy.document) for item in stored]
    imported = [{"namespace": name.namespace, "name": name.name} for name in runtime.policies.imported()]
    return {
        "revision": runtime.sync.engine.revision,
        "policy": json.dumps(documents, indent=2),
        "imported": imported,
    }


async def get_policy(request: web.Request) -> web.Response:
    """Every policy in force, as JSON in a text, and the revision."""
    return web.json_response(_policy_view(request.app[RUNTIME]))


async def put_policy(request: web.Request) -> web.Response:
    """Import the policies of a YAML or JSON text; in the kernel when this answers."""
    runtime = request.app[RUNTIME]
    try:
        text = (await request.read()).decode()
    except UnicodeDecodeError as error:
        raise InvalidInputError(f"the policy is not UTF-8 text: {error}") from error
    _, warnings = await _unbroken(request, runtime.policies.put(text), "import policies")
    return web.json_response(_policy_view(runtime) | {"warnings": warnings})


async def delete_policy(request: web.Request) -> web.Response:
    """Remove the imported policy named by `{"namespace", "name"}`, or those that have all of the labels."""
    runtime = request.app[RUNTIME]
    names = _policy_names(runtime, await _json(request))
    await _unbroken(request, runtime.policies.delete(names), "delete policies")
    return web.json_response(_policy_view(runtime))


def _policy_names(runtime: Runtime, tree: Any) -> list[PolicyName]:
    if isinstance(tree, dict) and isinstance(tree.get("name"), str) and tree["name"]:
        namespace = tree.get("namespace") or ""
        if not isinstance(namespace, str):
            raise InvalidInputError("must be text", "namespace")
        return [PolicyName(namespace, tree["name"])]
    if not isinstance(tree, list) or not tree or not all(isinstance(item, str) for item in tree):
        raise InvalidInputError('write {"namespace": "demo", "name": "allow-web"} or a list of labels')
    wanted = set(LabelSet.parse(tree).texts())
    imported = set(runtime.policies.imported())
    found = [
        item.policy.name
        for item in runtime.sync.engine.repository.policies()
        if item.policy.name in imported
        and any(wanted <= set(LabelSet.parse(spec.labels).texts()) for spec in item.policy.specs)
    ]
    if not found:
        raise NoSuchLabelsError(sorted(wanted))
    return found


# --- maps


async def list_maps(request: web.Request) -> web.Response:
    """Which maps can be listed."""
    runtime = request.app[RUNTIME]
    return web.json_response(await runtime.thread.run(lambda: map_list(runtime.maps())))


async def get_map(request: web.Request) -> web.Response:
    """One map with its entries."""
    runtime, name = request.app[RUNTIME], request.match_info["name"]
    return web.json_response(await runtime.thread.run(lambda: map_dump(runtime.maps(), name)))


async def _unbroken(request: web.Request, work: Coroutine[Any, Any, T], name: str) -> T:
    """Await `work` as a task of its own: a client that hangs up must not stop it between two steps."""
    task = asyncio.get_running_loop().create_task(work, name=name)
    request.app[CHANGES].add(task)
    task.add_done_callback(request.app[CHANGES].discard)
    return await asyncio.shield(task)


async def _json(request: web.Request) -> Any:
    try:
        return json.loads(await request.read())
    except ValueError as error:  # also of bytes that are no UTF-8
        raise InvalidInputError(f"the body is not JSON: {error}") from error
