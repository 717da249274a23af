"""JSON keeps every digit, and refuses what two readers could read differently."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mappings import MappingError
from mappings.exact_json import SYNTAX_RULES, dumps, loads

JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(10**15), 10**15)
    | st.decimals(-1000, 1000, places=4)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text("abcß", max_size=3), inner, max_size=4)
    ),
    max_leaves=12,
)


@given(JSON)
def test_what_is_written_reads_the_same(value: Any) -> None:
    assert loads(dumps(value)) == value
    assert dumps(loads(dumps(value))) == dumps(value)


@given(JSON)
def test_spaces_and_escapes_change_nothing(value: Any) -> None:
    text = json.dumps(json.loads(dumps(value), parse_float=str), indent=1)
    plain = json.dumps(json.loads(dumps(value), parse_float=str), ensure_ascii=False, separators=(",", ":"))
    assert loads(text) == loads(plain)


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ("19.00", "19.00"),
        ("0.1750", "0.1750"),
        ("1.50E-2", "0.0150"),
        ("1e2", "100"),
        ("0.0000001", "0.0000001"),
        ("123456789012345678.000000001", "123456789012345678.000000001"),
        ("12345678901234567890123456789", "12345678901234567890123456789"),
    ],
)
def test_digits_are_kept(sent: str, kept: str) -> None:
    assert dumps(loads(sent)) == kept.encode()


def test_a_fraction_is_a_decimal_and_a_whole_number_an_int() -> None:
    assert [type(v) for v in loads("[1.0, 1]")] == [Decimal, int]


@pytest.mark.parametrize(
    ("sent", "rule"),
    [
        (b'{"status":"final","status":"entered-in-error"}', "duplicate-key"),
        (b'{"a":{"dose":1.0,"dose":1000.0}}', "duplicate-key"),
        (b'{ "a": 1, "b": 2, "a": 1 }', "duplicate-key"),
        (b"NaN", "number"),
        (b"-Infinity", "number"),
        (b"1E400", "number"),
        (b"1E999999999999", "number"),
        (b"1" * 5000, "number"),
        (b"1." + b"1" * 5000, "number"),
        (b"\xff\xfe{\x00", "utf-8"),
        (b'"\xed\xa0\x80"', "utf-8"),
        (b'"\\ud800"', "utf-8"),
        (b"\xef\xbb\xbf{}", "json"),
        (b'{"a":1} x', "json"),
        (b'{"a":', "json"),
        (b"[1,]", "json"),
        (b"", "json"),
        (b"[" * 100_000, "depth"),
        (b'{"a":' * 100_000, "depth"),
    ],
)
def test_unusable_text_is_refused_with_its_rule(sent: bytes, rule: str) -> None:
    with pytest.raises(MappingError) as caught:
        loads(sent)
    assert [issue.rule for issue in caught.value.issues] == [rule]
    assert rule in SYNTAX_RULES
