"""This kernel has what Palomar needs; what one lacks is named with the remedy."""

from dataclasses import replace

import pytest

from datapath import features
from datapath.errors import FeatureMissingError
from palomar.errors import NotSupportedError


@pytest.mark.root
@pytest.mark.bpf
def test_this_kernel_has_everything() -> None:
    """A missing feature here fails the suite; nothing is left behind by probing."""
    found = features.require()
    assert [f for f in found if not f.present] == []
    assert len(found) > 15


def test_missing_feature_is_named() -> None:
    """The first required feature that lacks is in the error, with remedy; optional ones are not."""
    good = features.Feature("veth devices", True, True, "tried", "load veth")
    optional = replace(good, name="kernel BTF", present=False, required=False)
    features.check([good, optional])
    with pytest.raises(NotSupportedError, match=r"lacks clsact .*: load sch_ingress") as caught:
        features.check(
            [good, optional, replace(good, name="clsact", present=False, remedy="load sch_ingress")]
        )
    assert isinstance(caught.value, FeatureMissingError)
    assert caught.value.feature == "clsact"
