"""One line for every mistake: place, value, rule, nearest name."""

import pickle

import pytest

from hrnet_search.errors import InputError, nearest_name


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (InputError("is missing"), "is missing"),
        (InputError("is missing", key="train.lr"), "train.lr: is missing"),
        (InputError("must be positive", key="lr", value=-1), "lr: -1: must be positive"),
        (InputError("must be set", key="a", value=None), "a: None: must be set"),
        (InputError("is broken", file="a.yaml"), "a.yaml: is broken"),
        (
            InputError("unknown key", file="a.yaml", key="tain", nearest="train"),
            "a.yaml: tain: unknown key; did you mean 'train'?",
        ),
    ],
)
def test_message_names_file_key_value_rule_and_nearest_name(error: InputError, text: str) -> None:
    assert str(error) == text


def test_message_is_one_line_whatever_it_quotes() -> None:
    error = InputError("two\nlines", key="a\nb", value="c\nd", file="e\r\nf")
    assert str(error) == r"e f: a b: 'c\nd': two lines"


def test_long_values_are_cut_at_80_characters() -> None:
    text = str(InputError("is long", value="x" * 200))
    assert text == "'" + "x" * 76 + "...: is long"
    assert str(InputError("fits", value="x" * 78)) == "'" + "x" * 78 + "': fits"


def test_within_puts_the_key_below_and_keeps_an_inner_file() -> None:
    error = InputError("is wrong", key="steps", value=0, nearest="stop")
    outer = error.within(file="s.yaml", key="train")
    assert str(outer) == "s.yaml: train.steps: 0: is wrong; did you mean 'stop'?"
    assert outer.within(file="other.yaml").file == "s.yaml"
    assert "value" not in str(InputError("is missing", key="a").within(key="b"))
    assert str(InputError("is missing").within(key="b")) == "b: is missing"


def test_error_is_a_value_error_and_survives_pickling() -> None:
    error = InputError("is wrong", key="a.b", value=[1], file="s.yaml", nearest="c")
    again = pickle.loads(pickle.dumps(error))
    assert isinstance(error, ValueError)
    assert str(again) == str(error)
    assert str(pickle.loads(pickle.dumps(InputError("is missing")))) == "is missing"


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("widht", "width"), ("num_module", "num_modules"), ("zzz", None), (3, None), ("", None)],
)
def test_nearest_name(name: object, nearest: str | None) -> None:
    assert nearest_name(name, ["width", "num_modules", "num_blocks"]) == nearest
