"""The one rule of whether work is done: the same work is skipped, other work is kept unless it may be overwritten."""

import pytest
from causalprune.errors import MismatchError, UsageError
from causalprune.stages.output import done_already


def ask(there, *, overwrite=False, **options):
    return done_already("place", "mine", lambda: there, overwrite=overwrite, remedy="go elsewhere", **options)


def test_the_same_work_is_done():
    assert ask("mine")


@pytest.mark.parametrize("overwrite", [False, True])
def test_where_nothing_is_the_work_is_to_be_done(overwrite):
    assert not ask(None, overwrite=overwrite)


@pytest.mark.parametrize("there", ["theirs", "", {}, False])
def test_what_is_of_other_work_or_of_none_is_refused(there):
    with pytest.raises(MismatchError, match=r"place: expected no such file, .*, found another; go elsewhere"):
        ask(there)


def test_the_caller_says_what_is_wrong_only_when_it_is():
    assert ask("mine", found=lambda: pytest.fail("described in vain"))
    with pytest.raises(UsageError, match="expected nothing, found a result of record"):
        ask("theirs", expected="nothing", found=lambda: "a result of record", error=UsageError)


@pytest.mark.parametrize("there", ["mine", "theirs"])
def test_to_overwrite_nothing_is_looked_at(there):
    assert not done_already("place", there, lambda: pytest.fail("looked"), overwrite=True, remedy="")
