"""The reserved identities with their labels: numbers every node knows without asking anybody."""

from palomar.identity import NumericIdentity, Reserved
from palomar.labels import Label, LabelSet


def reserved_labels(identity: Reserved) -> LabelSet:
    """Labels of a reserved identity; kube-apiserver is a remote node too."""
    names = [identity]
    if identity is Reserved.KUBE_APISERVER:
        names.append(Reserved.REMOTE_NODE)
    return LabelSet(Label(name.label_name, "reserved") for name in names)


def reserved_identities() -> dict[NumericIdentity, LabelSet]:
    """Every reserved identity but 0, which is the wildcard of policy maps and nobody's."""
    return {
        NumericIdentity(identity): reserved_labels(identity)
        for identity in Reserved
        if identity is not Reserved.UNKNOWN
    }
