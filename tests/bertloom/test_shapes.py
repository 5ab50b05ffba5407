from dataclasses import asdict, dataclass, field

import pytest

from bertloom.shapes import MAY_LACK, shaped, values_of


@dataclass(frozen=True)
class Point:
    x: int
    label: str | None = field(default=None, metadata=MAY_LACK)


@dataclass(frozen=True)
class Line:
    points: tuple[Point, ...]
    notes: dict[str, int]


LINE = Line((Point(1), Point(2, "b")), {"a": 3})


def test_a_field_that_may_lack_is_not_written_where_it_is_empty():
    assert values_of(LINE) == {"points": [{"x": 1}, {"x": 2, "label": "b"}], "notes": {"a": 3}}


@pytest.mark.parametrize("write", [values_of, asdict])
def test_what_was_written_with_or_without_empty_fields_is_read_again(write):
    assert shaped(write(LINE), Line) == LINE


def test_another_field_must_be_there():
    with pytest.raises(ValueError, match=r"has no points\[0\].x"):
        shaped({"points": [{"label": "b"}], "notes": {}}, Line)
    with pytest.raises(ValueError, match="has an unknown 'y'"):
        shaped({"x": 1, "y": 2}, Point)
