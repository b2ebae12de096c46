"""The one rule of whether work is done: the same work is skipped, and the result of other work is kept."""

import pytest

from causalprune.base.errors import MismatchError, UsageError
from causalprune.commands._output import done_already


def ask(existing, **options):
    return done_already("place", "mine", existing, remedy="go elsewhere", **options)


def test_the_same_work_is_done():
    assert ask("mine")


def test_work_without_a_result_is_to_be_done():
    assert not ask(None)


@pytest.mark.parametrize("existing", ["theirs", "", {}, False])
def test_the_result_of_other_work_or_of_none_is_refused(existing):
    with pytest.raises(MismatchError, match=r"place: expected no such file, .*, found another; go elsewhere"):
        ask(existing)


def test_the_caller_says_what_is_wrong():
    with pytest.raises(UsageError, match="expected nothing, found a result of record"):
        ask("theirs", expected="nothing", found="a result of record", error=UsageError)
