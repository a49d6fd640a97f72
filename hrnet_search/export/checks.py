"""What `checks.json` of an exported folder must be like to be believed: it may have been edited."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError, field_validator

from .formats import AXES

NOTHING: dict[str, Any] = {"files": {}, "formats": {}, "metrics": {}}  # checked of a folder yet

FileName = Literal["model.onnx", "model.pt2", "model-int8.onnx"]  # `formats.FILES`
Pixels = Annotated[int, Field(ge=1)]


class _Exact(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _Difference(_Exact):
    """As `verify.Difference`."""

    file: str
    size: tuple[Pixels, Pixels]
    output: str
    most: FiniteFloat
    share: FiniteFloat


class _Graph(_Exact):
    """As `formats.write_formats` has it, with the differences."""

    sha256: str
    varies: dict[str, Pixels]
    outputs: list[str]
    differences: Annotated[list[_Difference], Field(min_length=1)]
    metrics: dict[str, FiniteFloat]  # measured with the file
    float32: dict[str, FiniteFloat]  # of the network, where the file rounds

    @field_validator("varies")
    @classmethod
    def _of_axes(cls, varies: dict[str, int]) -> dict[str, int]:
        if varies.keys() not in [set(axes.values()) for axes in AXES]:
            raise ValueError("no such axes vary together")
        return varies


class _Checks(_Exact):
    files: dict[str, str]  # name -> SHA-256
    formats: dict[FileName, _Graph]
    metrics: dict[str, tuple[FiniteFloat, FiniteFloat]]


def is_checks(content: Any) -> bool:
    """Whether it says of graphs and metrics what a card is made of."""
    try:
        _Checks.model_validate(content)
    except ValidationError:
        return False
    return True
