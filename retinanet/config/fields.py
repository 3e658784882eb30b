"""What every section of a config is made of. No library but pydantic is imported."""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, field_validator

from retinanet.errors import name_remedy

Positive = Annotated[float, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0)]
Fraction = Annotated[float, Field(ge=0, le=1)]
Count = Annotated[int, Field(ge=1)]
Natural = Annotated[int, Field(ge=0)]
Auto = Literal["auto"]

Number = TypeVar("Number", int, float)


def known(value: Number | Auto) -> Number:
    """A number of a schedule whose `auto` values have been replaced (`config.auto`); ValueError if they have not."""
    if isinstance(value, str):
        raise ValueError("this schedule has `auto` values, which depend on the data: resolve them first")
    return value


class Section(BaseModel):
    """Frozen, strictly typed, without unknown keys."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)

    @field_validator("*")
    @classmethod
    def _without_odd_bytes(cls, value: object) -> object:
        if isinstance(value, str) and "\0" in value:
            raise ValueError("holds a zero byte, which no path or name can have")
        if isinstance(value, str) and any("\ud800" <= letter <= "\udfff" for letter in value):
            raise ValueError(
                f"is not UTF-8 text, which JSON, TensorBoard and plots need; {name_remedy('what it names')}"
            )
        return value
