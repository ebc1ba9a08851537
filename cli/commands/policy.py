"""`palomar policy`: network policies of this node, through the agent's API; `validate` is offline.

Files hold CiliumNetworkPolicy documents in YAML or JSON, several per file if wanted.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from cli.context import AgentApi, add_output_flag, agent_api, output_of
from cli.errors import UsageError
from cli.parser import BoolFlag
from palomar.errors import InvalidInputError, PermanentError
from palomar.unixhttp import ApiError


def add_parser(subparsers: Any) -> None:
    """Describe `palomar policy`."""
    parser = subparsers.add_parser("policy", help="network policies: get, import, delete, validate")
    actions = parser.add_subparsers(metavar="ACTION", dest="action", required=True)
    get = actions.add_parser("get", help="the rules in force and their revision")
    get.add_argument("name", nargs="?", default="", metavar="[NS/]NAME", help="one policy")
    add_output_flag(get, "text", ("text", "json"))
    importing = actions.add_parser("import", help="add or replace policies")
    importing.add_argument("files", nargs="+", metavar="FILE", help="YAML or JSON, - is standard input")
    importing.add_argument("--print", action=BoolFlag, default=False, help="print what was read")
    delete = actions.add_parser("delete", help="remove policies")
    delete.add_argument("names", nargs="*", metavar="[NS/]NAME", help="policies (NS: -n, else default)")
    delete.add_argument("-n", "--namespace", default="default", metavar="NS", help="namespace of the names")
    delete.add_argument("--all", action=BoolFlag, default=False, help="remove every imported policy")
    validate = actions.add_parser("validate", help="check files without an agent")
    validate.add_argument("files", nargs="+", metavar="FILE", help="YAML or JSON, - is standard input")


def run(args: argparse.Namespace) -> int:
    """Do the action; 1 where a file is not valid."""
    if args.action == "validate":
        return _validate(args.files)
    api = agent_api(args)
    if args.action == "get":
        return _get(api, args)
    return _import(api, args) if args.action == "import" else _delete(api, args)


def _read(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UsageError(f"{file}: {reason}") from error


def rules_of(answer: dict[str, Any]) -> list[Any]:
    """Return the rules in the API's answer, where `policy` is JSON inside a string."""
    policy = answer.get("policy")
    tree = json.loads(policy) if isinstance(policy, str) and policy else policy or []
    return tree if isinstance(tree, list) else [tree]


def _get(api: AgentApi, args: argparse.Namespace) -> int:
    output = output_of(args)
    answer = api.get("/policy")
    rules = rules_of(answer)
    if args.name:
        rules = [rule for rule in rules if is_named(rule, args.name)]
        if not rules:
            raise UsageError(f"no policy {args.name}: `palomar policy get` lists them all")
    if output == "json":
        print(json.dumps({"policy": rules, "revision": answer.get("revision")}, indent=2))
    else:
        print(json.dumps(rules, indent=2))
        print(f"Revision: {answer.get('revision', 0)}")
    return 0


def is_named(rule: Any, name: str) -> bool:
    """Tell whether `rule` is the policy `[ns/]name`, by its metadata or its derived-from labels."""
    if not isinstance(rule, dict):
        return False
    namespace, slash, plain = name.rpartition("/")
    metadata = rule.get("metadata") or {}
    found, space = metadata.get("name"), metadata.get("namespace")
    for label in rule.get("labels") or []:
        if isinstance(label, str):
            key, _, value = label.partition("=")
        else:
            key, value = str(label.get("key")), label.get("value")
        if key.endswith("io.cilium.k8s.policy.name"):
            found = found or value
        elif key.endswith("io.cilium.k8s.policy.namespace"):
            space = space or value
    return found == plain and (not slash or space == namespace)


def _import(api: AgentApi, args: argparse.Namespace) -> int:
    revision = None
    for file in args.files:
        text = _read(file)
        try:
            answer = api.put("/policy", text)
        except ApiError as error:
            raise PermanentError(f"{file}: {error}") from error
        if args.print:
            print(text.rstrip("\n"))
        for warning in answer.get("warnings", []) if isinstance(answer, dict) else []:
            print(f"{file}: warning: {warning}", file=sys.stderr)
        revision = answer.get("revision") if isinstance(answer, dict) else revision
    print(f"Revision: {revision}")
    return 0


def _delete(api: AgentApi, args: argparse.Namespace) -> int:
    if bool(args.names) == args.all:
        raise UsageError("write `palomar policy delete [NS/]NAME...` or `palomar policy delete --all`")
    answer: Any = None
    for body in _named_policies(api, args):
        answer = api.delete("/policy", body)
    revision = answer.get("revision") if isinstance(answer, dict) else api.get("/policy").get("revision")
    print(f"Revision: {revision}")
    return 0


def _named_policies(api: AgentApi, args: argparse.Namespace) -> list[dict[str, str]]:
    if not args.all:
        return [_body(name, args.namespace) for name in args.names]
    # Policies of the agent's policy directory are removed there, not by a command.
    listed = api.get("/policy").get("imported", [])
    return [{"namespace": entry["namespace"], "name": entry["name"]} for entry in listed]


def _body(name: str, namespace: str) -> dict[str, str]:
    space, slash, plain = name.rpartition("/")
    return {"namespace": space if slash else namespace, "name": plain}


def _validate(files: list[str]) -> int:
    """Check every file and print what is wrong with each; 1 where anything is."""
    from agent.policy.parse import parse_policies

    failed = False
    for file in files:
        try:
            parsed = parse_policies(_read(file))
        except InvalidInputError as error:
            failed = True
            print("\n".join(f"{file}: {line}" for line in str(error).splitlines()), file=sys.stderr)
            continue
        for warning in parsed.warnings:
            print(f"{file}: warning: {warning}", file=sys.stderr)
        count = len(parsed.policies)
        print(f"{file}: {count} valid polic{'y' if count == 1 else 'ies'}")
    return 1 if failed else 0
