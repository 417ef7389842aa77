"""Descriptions of keys are the texts below them, as pydantic would have read them."""

from __future__ import annotations

import pytest
from pydantic import BaseModel, ConfigDict, Field, create_model

from bilevel.calibrate.study.documented import Documented
from bilevel.calibrate.study.schema import StudySection


class Inner(Documented):
    """A section."""

    depth: float = 1.0
    """of the well"""


class Outer(Inner):
    well: Inner = Inner()
    """one of
    them"""
    name: str = Field("", description="said already", alias="called")
    """not this"""
    wide: bool = False


def test_they_are_the_texts_below():
    schema = Outer.model_json_schema()
    described = {key: value.get("description") for key, value in schema["properties"].items()}
    assert described == {"depth": "of the well", "well": "one of\nthem", "called": "said already", "wide": None}
    assert schema["$defs"]["Inner"]["properties"]["depth"]["description"] == "of the well"


def test_they_are_those_that_pydantic_reads():
    class Eager(BaseModel):
        model_config = ConfigDict(use_attribute_docstrings=True)

        a: int = 0
        """first
        and more"""
        b: Inner | None = None
        """second"""

    class Late(Documented):
        a: int = 0
        """first
        and more"""
        b: Inner | None = None
        """second"""

    assert Late.model_json_schema()["properties"] == Eager.model_json_schema()["properties"]


def test_without_a_source_there_are_none():
    made = create_model("made", __base__=Documented, x=(int, 1))
    assert "description" not in made.model_json_schema()["properties"]["x"]


@pytest.mark.parametrize("key", ["title", "model", "parameters", "observations"])
def test_the_keys_of_a_study_have_theirs(key):
    assert StudySection.model_json_schema()["properties"][key]["description"]
