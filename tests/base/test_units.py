import math
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from causalprune.base.units import (
    Interval,
    check_bytes,
    check_interval,
    format_bytes,
    mean_and_spread,
    parse_bytes,
    percent,
)


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("1", 1),
        ("17B", 17),
        ("512MB", 512_000_000),
        ("512MiB", 536_870_912),
        ("2GiB", 2_147_483_648),
        ("2G", 2_147_483_648),
        ("2gb", 2_000_000_000),
        (" 1.5 kB ", 1500),
        ("0.5KiB", 512),
        ("3TiB", 3_298_534_883_328),
    ],
)
def test_sizes(text, size):
    assert parse_bytes(text) == size
    assert check_bytes(text) is None


@pytest.mark.parametrize("text", ["", "0", "0GB", "-1GB", "GB", "1XB", "1e3", "nan", "inf", "1 000", "0.0001B", "1GBs"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        parse_bytes(text)
    assert "512MB" in check_bytes(text)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (1_234_567, "1.23 MB"),
        (123_456_789, "123 MB"),
        (999_900, "1 MB"),
        (999_400, "999 kB"),
        (5e15, "5000 TB"),
    ],
)
def test_sizes_for_people(count, text):
    assert format_bytes(count) == text


@given(st.integers(1, 10**16))
def test_a_size_for_people_is_right_to_three_digits(count):
    number, unit = format_bytes(count).split(" ")
    scale = {"B": 1, "kB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}[unit]
    assert "e" not in number
    assert float(number) * scale == pytest.approx(count, rel=0.0051)


@pytest.mark.parametrize(
    ("text", "interval"),
    [
        ("500steps", Interval(steps=500)),
        ("1step", Interval(steps=1)),
        ("90s", Interval(seconds=90.0)),
        ("10min", Interval(seconds=600.0)),
        ("1.5h", Interval(seconds=5400.0)),
        ("2 h", Interval(seconds=7200.0)),
        ("never", Interval(math.inf, math.inf)),
    ],
)
def test_intervals(text, interval):
    assert Interval.parse(text) == interval
    assert check_interval(text) is None


@pytest.mark.parametrize("text", ["", "0s", "0steps", "1.5steps", "10", "-5min", "soon", "10 years", "infs", "Never"])
def test_what_is_no_interval(text):
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        Interval.parse(text)
    assert "10min" in check_interval(text)


@given(st.floats(0, 1, exclude_max=True), st.integers(0, 3))
def test_what_is_not_all_does_not_read_as_all(fraction, digits):
    number = float(percent(fraction, digits))
    assert (number < 100) == (100 * fraction < 100)
    assert number == pytest.approx(100 * fraction, abs=0.5 * 10.0**-digits + 1e-12)


@pytest.mark.parametrize(
    ("fraction", "digits", "text"),
    [
        (0.999999, 1, "99.9999"),
        (0.999999, 3, "99.9999"),
        (0.95, 2, "95.00"),
        (1, 1, "100.0"),
        (0, 0, "0"),
        (0.07, None, "7"),
        (0.9995, None, "99.95"),
        (0.9999999, None, "99.99999"),
    ],
)
def test_percent(fraction, digits, text):
    assert percent(fraction, digits) == text


def test_a_mean_and_its_spread():
    assert mean_and_spread(0.98765, 0.0123, form=".1f", spread_form=".1f", scale=100) == ("98.8", "±1.2")
    assert mean_and_spread(1234.5, None) == ("1.23e+03", "")
    assert mean_and_spread(None, None) == ("–", "")
