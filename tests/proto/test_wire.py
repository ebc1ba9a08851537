"""The public services and messages have the public numbers, names and types.

`wire.json` is the table of facts; it was derived from the public API's descriptors (1.19.4), not
from our .proto files.
"""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor import Descriptor, EnumDescriptor, FieldDescriptor, FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)

import generate
from palomar_pb.flow import flow_pb2
from palomar_pb.observer import observer_pb2
from palomar_pb.palomar.v1 import batch_pb2, flow_ext_pb2
from palomar_pb.peer import peer_pb2
from palomar_pb.relay import relay_pb2

FACTS: dict[str, Any] = json.loads(Path(__file__).with_name("wire.json").read_text())
FILES: dict[str, FileDescriptor] = {
    module.DESCRIPTOR.name: module.DESCRIPTOR for module in (flow_pb2, observer_pb2, peer_pb2, relay_pb2)
}
SCALARS: dict[int, str] = {
    number: name.removeprefix("TYPE_").lower() for name, number in FieldDescriptorProto.Type.items()
}


def as_proto(file: FileDescriptor) -> FileDescriptorProto:
    proto = FileDescriptorProto()
    file.CopyToProto(proto)
    return proto


def all_messages(file: FileDescriptor) -> dict[str, Descriptor]:
    found: dict[str, Descriptor] = {}
    queue = list(file.message_types_by_name.values())
    while queue:
        message = queue.pop()
        found[message.full_name] = message
        queue.extend(message.nested_types)
    return found


def all_enums(file: FileDescriptor) -> dict[str, EnumDescriptor]:
    enums = list(file.enum_types_by_name.values())
    for message in all_messages(file).values():
        enums.extend(message.enum_types)
    return {enum.full_name: enum for enum in enums}


def type_name(field: FieldDescriptor) -> str:
    if field.message_type is not None:
        return str(field.message_type.full_name)
    if field.enum_type is not None:
        return str(field.enum_type.full_name)
    return SCALARS[field.type]


def test_files_have_their_public_names_packages_and_imports() -> None:
    """Reflection shows these names, and other languages' clients look them up."""
    assert FILES.keys() == FACTS["files"].keys()
    for name, fact in FACTS["files"].items():
        proto = as_proto(FILES[name])
        assert proto.package == fact["package"]
        assert proto.syntax == fact["syntax"]
        assert sorted(proto.dependency) == fact["imports"]
        assert proto.options.go_package == fact["go_package"]


def test_every_message_has_the_public_fields() -> None:
    """Names, numbers, types, labels, oneofs, deprecations and reserved ranges; nothing more, nothing less."""
    messages = {name: m for file in FILES.values() for name, m in all_messages(file).items()}
    assert messages.keys() == FACTS["messages"].keys()
    for name, message in messages.items():
        fact = FACTS["messages"][name]
        fields = [
            [
                field.name,
                field.number,
                type_name(field),
                "repeated" if field.is_repeated else "singular",
                field.containing_oneof.name if field.containing_oneof else "",
                field.GetOptions().deprecated,
            ]
            for field in message.fields
        ]
        assert sorted(fields) == sorted(fact["fields"]), name
        proto = message_proto(message)
        assert [[r.start, r.end - 1] for r in proto.reserved_range] == fact["reserved"], name
        assert proto.options.deprecated == fact["deprecated"], name


def message_proto(message: Descriptor) -> DescriptorProto:
    proto = DescriptorProto()
    message.CopyToProto(proto)
    return proto


def test_every_enum_has_the_public_numbers() -> None:
    """Values, deprecated values and reserved ranges."""
    enums = {name: e for file in FILES.values() for name, e in all_enums(file).items()}
    assert enums.keys() == FACTS["enums"].keys()
    for name, enum in enums.items():
        fact = FACTS["enums"][name]
        assert {value.name: value.number for value in enum.values} == fact["values"], name
        deprecated = [value.name for value in enum.values if value.GetOptions().deprecated]
        assert sorted(deprecated) == sorted(fact["deprecated_values"]), name
        proto = EnumDescriptorProto()
        enum.CopyToProto(proto)
        assert [[r.start, r.end] for r in proto.reserved_range] == fact["reserved"], name


def test_every_service_has_the_public_paths() -> None:
    """`/observer.Observer/GetFlows` and so on, with the public request and response."""
    services = {s.full_name: s for f in FILES.values() for s in f.services_by_name.values()}
    assert services.keys() == FACTS["services"].keys()
    for name, service in services.items():
        methods = [
            [
                f"/{name}/{method.name}",
                method.input_type.full_name,
                method.output_type.full_name,
                method.client_streaming,
                method.server_streaming,
            ]
            for method in service.methods
        ]
        assert sorted(methods) == sorted(FACTS["services"][name])


def test_our_own_messages_do_not_collide_with_the_public_ones() -> None:
    """Ours live in the package palomar.v1 and only refer to the public ones."""
    for module in (batch_pb2, flow_ext_pb2):
        assert module.DESCRIPTOR.package == "palomar.v1"
    assert [m.full_name for m in batch_pb2.DESCRIPTOR.services_by_name["FlowBatches"].methods] == [
        "palomar.v1.FlowBatches.GetFlows"
    ]


def test_a_message_class_names_its_importable_module() -> None:
    """Pickle and copy look the class up by it."""
    assert flow_pb2.Flow.__module__ == "palomar_pb.flow.flow_pb2"


def test_committed_modules_are_what_the_proto_files_say(tmp_path: Path) -> None:
    """The same comparison as `generate.py --check`."""
    generate.generate(generate.ROOT, tmp_path)
    assert generate.stale(generate.ROOT, tmp_path) == []


@pytest.mark.parametrize("change", ["edited", "missing", "orphan"])
def test_a_stale_module_is_named(tmp_path: Path, change: str) -> None:
    """A .proto file changed without `make proto` does not pass the check."""
    root, fresh = tmp_path / "root", tmp_path / "fresh"
    shutil.copytree(generate.ROOT, root, ignore=shutil.ignore_patterns("__pycache__"))
    if change == "edited":
        proto = root / "peer/peer.proto"
        proto.write_text(re.sub("string address = 2", "string place = 2", proto.read_text()))
    elif change == "missing":
        (root / "peer/peer_pb2.py").unlink()
    else:
        (root / "peer/gone_pb2.py").write_text("")
    fresh.mkdir()
    generate.generate(root, fresh)
    names = {"edited": "peer/peer_pb2.py", "missing": "peer/peer_pb2.py", "orphan": "peer/gone_pb2.py"}
    assert names[change] in generate.stale(root, fresh)
