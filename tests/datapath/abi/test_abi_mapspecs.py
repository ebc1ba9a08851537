"""The table of maps is the objects'; pins are named as the field names them."""

from datapath.abi.mapspecs import GLOBAL_MAPS, POLICY_SPEC, calls_map_name, policy_map_name
from datapath.config import OBJECT_DIR
from datapath.loader import BpfObject


def test_map_table_agrees_with_the_objects() -> None:
    """Every map an object declares under a shared name has the attributes of `GLOBAL_MAPS`."""
    from datapath import libbpf

    declared = set()
    for name in ("bpf_lxc.o", "bpf_host.o", "bpf_overlay.o"):
        with BpfObject(OBJECT_DIR / name) as opened:
            for spec in (*GLOBAL_MAPS, POLICY_SPEC):
                if spec.name not in opened.map_names:
                    continue
                declared.add(spec.name)
                pointer = opened._map(spec.name)
                assert (
                    libbpf.map_type(pointer),
                    libbpf.map_key_size(pointer),
                    libbpf.map_value_size(pointer),
                    libbpf.map_max_entries(pointer),
                    libbpf.map_flags(pointer),
                ) == (spec.type, spec.key_size, spec.value_size, spec.max_entries, spec.flags), spec.name
    assert declared == {spec.name for spec in (*GLOBAL_MAPS, POLICY_SPEC)}


def test_pin_names() -> None:
    """Five digits, as the field prints them."""
    assert policy_map_name(7) == "cilium_policy_v2_00007"
    assert calls_map_name(12345) == "cilium_calls_12345"
    assert calls_map_name("netdev_00004") == "cilium_calls_netdev_00004"
