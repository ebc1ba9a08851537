"""`palomar lab`: bring a cluster up on this machine, look at it, run things in it, take it down."""

import argparse
import os
import shlex
import sys
from collections.abc import Sequence

from lab import network
from lab.cluster import LabCluster
from lab.observers import environment as observers_environment
from lab.observers import listening, observers, relay_environment
from lab.process import exec_in
from lab.spec import ETCD_PORT, LABS_DIR, LabSpec
from palomar.errors import InvalidInputError, PalomarError
from palomar.proc import run as run_command
from palomar.unixhttp import AgentUnreachableError, ApiError


def parser() -> argparse.ArgumentParser:
    """Return the parser of `palomar lab`."""
    top = argparse.ArgumentParser(prog="palomar lab", description=__doc__)
    commands = top.add_subparsers(dest="command", required=True)

    def add(name: str, text: str) -> argparse.ArgumentParser:
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument("--name", default="demo", help="name of the lab (default: demo)")
        return command

    up = add("up", "bring a lab up: nodes, agents, etcd and the demo application")
    up.add_argument("--nodes", type=int, default=3, help="how many nodes (default: 3)")
    up.add_argument("--bare", action="store_true", help="without the demo application and its policies")
    add("down", "take a lab away, whatever state it is in")
    add("status", "show a lab's nodes and pods")
    run = add("exec", "run a command in a pod, a node or the world: exec TARGET -- COMMAND ...")
    run.add_argument("target", help="pod (namespace/name), node (node-1), `world` or `underlay`")
    run.add_argument("argv", nargs=argparse.REMAINDER, help="the command")
    env = add("env", "print what a client needs to reach each part, as shell exports")
    env.add_argument("--relay", action="store_true", help="make clients ask the relay instead of one node")
    env.add_argument("--node", default="node-1", help="whose agent PALOMAR_RUN_DIR names (default: node-1)")
    return top


def namespace_of(lab: LabCluster, target: str) -> str:
    """Return the network namespace that `target` names; raise InvalidInputError for nothing we know."""
    pod = lab.pods.get(target)
    if pod is not None:
        return pod.spec.netns(lab.spec.name)
    named = {"world": lab.spec.world_namespace, "underlay": lab.spec.underlay_namespace}
    named.update({node.name: node.namespace for node in lab.spec.nodes})
    if target in named:
        return named[target]
    known = ", ".join([*lab.pods, *named])
    raise InvalidInputError(f"lab {lab.spec.name} has no {target!r}: it has {known}")


def environment(lab: LabCluster, node_name: str) -> dict[str, str]:
    """Return the variables by which clients reach the parts of `lab`."""
    node = lab.spec.node(node_name)
    values = {
        "PALOMAR_LAB": lab.spec.name,
        "PALOMAR_RUN_DIR": str(node.paths.run_dir),
        "PALOMAR_BPF_ROOT": str(node.paths.bpf_root),
        "PALOMAR_ETCD": f"http://{lab.spec.etcd_address}:{ETCD_PORT}",
    }
    if lab.doors:
        values |= observers_environment(lab.doors, lab.client_files())
    for other in lab.spec.nodes:
        suffix = other.name.upper().replace("-", "_")
        values[f"PALOMAR_API_{suffix}"] = str(other.paths.api_socket)
        values[f"HUBBLE_SERVER_{suffix}"] = f"unix://{other.paths.hubble_socket}"
        values[f"PALOMAR_BPF_ROOT_{suffix}"] = str(other.paths.bpf_root)
        values[f"PALOMAR_METRICS_{suffix}"] = f"http://{other.address}:9962/metrics"
    return values


def _status(lab: LabCluster) -> int:
    unhealthy = 0
    for node in lab.spec.nodes:
        try:
            answer = lab.api(node).request("GET", "/v1/healthz")
            state = str(answer["cilium"]["state"])
        except (AgentUnreachableError, ApiError) as error:
            state = f"down: {error}"
        unhealthy += state != "Ok"
        print(f"{node.name}  {node.address}  {node.pod_cidr}  {state}")
    listed = run_command(network.in_namespace(lab.spec.underlay_namespace, ["ss", "-Htln"])).stdout
    for observer in observers(lab.spec, lab.certificates) if lab.doors else ():
        is_up = listening(listed.splitlines(), observer.port)
        log = lab.spec.directory / "logs" / f"{observer.name}.log"
        unhealthy += not is_up
        state = "Ok" if is_up else f"down: see {log}, then bring the lab down and up"
        print(f"{observer.name}  {lab.doors[observer.name]}  {state}")
    for name, pod in lab.pods.items():
        print(f"  {name:<24} {pod.spec.node}  {pod.address!s:<12} endpoint {pod.endpoint_id}")
    return 1 if unhealthy else 0


def _down(name: str) -> int:
    spec = LabSpec.build(name, 32)
    there = spec.directory.exists() or network.namespaces(name) or spec.bpf_root.exists()
    LabCluster(spec).down()
    print(f"lab {name} is gone" if there else f"no lab {name} was up")
    if LABS_DIR.is_dir() and not any(LABS_DIR.iterdir()):
        LABS_DIR.rmdir()
    return 0


def _run(options: argparse.Namespace) -> int:
    if options.command == "up":
        if os.geteuid() != 0:
            raise InvalidInputError("a lab makes network namespaces and loads eBPF programs: run as root")
        lab = LabCluster(LabSpec.build(options.name, options.nodes), say=print)
        lab.up(demo=not options.bare)
        print(f'reach it with: eval "$(palomar lab env --name {options.name})"')
        return 0
    if options.command == "down":
        return _down(options.name)
    lab = LabCluster.load(options.name)
    if options.command == "status":
        return _status(lab)
    if options.command == "env":
        values = environment(lab, options.node)
        if options.relay:
            if not lab.doors:
                raise InvalidInputError(f"lab {options.name} has no relay: it was brought up bare")
            values |= relay_environment(lab.doors, lab.client_files())
        for key, value in values.items():
            print(f"export {key}={shlex.quote(value)}")
        return 0
    argv = options.argv[1:] if options.argv[:1] == ["--"] else options.argv
    if not argv:
        raise InvalidInputError("nothing to run: palomar lab exec TARGET -- COMMAND ...")
    return exec_in(namespace_of(lab, options.target), argv)


def run(argv: Sequence[str]) -> int:
    """Carry `palomar lab ARGV` out and return the exit status."""
    try:
        return _run(parser().parse_args(argv))
    except PalomarError as error:
        print(f"palomar lab: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
