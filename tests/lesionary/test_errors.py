"""Errors reach the driver whole and say what to do next."""

import pickle

import pytest

from lesionary import errors

CLASSES = [
    value for value in vars(errors).values() if isinstance(value, type) and issubclass(value, errors.LesionaryError)
]


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_error_survives_pickling_with_its_fields(kind):
    error = kind("the file is empty", where="a.csv", next_step="write it again")

    copy = pickle.loads(pickle.dumps(error))

    assert type(copy) is kind
    assert (copy.what, copy.where, copy.next_step) == ("the file is empty", "a.csv", "write it again")
    assert str(copy) == "a.csv: the file is empty; write it again"


def test_sentence_is_one_line_whatever_it_quotes():
    error = errors.UsageError("two\nlines", where="here", next_step="go\n on")

    assert str(error) == "here: two lines; go on"


def test_every_class_is_drawn_in_the_tree():
    for kind in CLASSES:
        assert kind.__name__ in errors.__doc__


def test_users_mistakes_exit_with_two_and_ours_with_one():
    assert {kind.exit_code for kind in CLASSES if issubclass(kind, errors.UserError)} == {2}
    assert {kind.exit_code for kind in CLASSES if not issubclass(kind, errors.UserError)} == {1}
