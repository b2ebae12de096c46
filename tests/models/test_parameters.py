"""Parameters chosen by name."""

import pytest
import torch

from causalprune.base.errors import UsageError
from causalprune.models.mask import Mask
from causalprune.models.parameters import ParameterEntry, ParameterIndex

NAMES = ("weight", "a.fc1.weight", "a.fc2.weight")
INDEX = ParameterIndex(tuple(ParameterEntry(name, (2, n + 1), 2 * sum(range(n + 1))) for n, name in enumerate(NAMES)))


def test_patterns_are_of_layers_or_of_weights():
    assert INDEX.matching("*.fc?", "`keep`") == INDEX.matching("a.*.weight", "`keep`") == [*NAMES[1:]]
    assert INDEX.matching("weight", "`keep`") == ["weight"]


@pytest.mark.parametrize(("pattern", "hint"), [("fc1", r" \(did you mean 'a.fc1'\?\)"), ("A.*", ""), ("bias", "")])
def test_a_pattern_that_matches_nothing_is_answered_with_the_names_there_are(pattern, hint):
    expected = rf"`keep`: expected a pattern that matches one of weight, a.fc1, a.fc2{hint}, found '"
    with pytest.raises(UsageError, match=expected):
        INDEX.matching(pattern, "`keep`")


def test_the_mask_of_some_parameters_has_their_bits():
    mask = Mask(INDEX, torch.arange(INDEX.total) % 3 > 0)
    part = mask.only({"a.fc2.weight", "weight"})
    assert [(entry.name, entry.offset) for entry in part.index] == [("weight", 0), ("a.fc2.weight", 2)]
    whole = mask.tensors()
    assert all(torch.equal(keep, whole[name]) for name, keep in part.tensors().items())
