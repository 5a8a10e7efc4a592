"""The best checkpoint is that of the lowest mean loss, or of the best score that is of its own weights."""

from modkit.training.cursor import Cursor
from modkit.types import Score


def test_a_checkpoint_is_judged_by_its_last_score_and_not_by_those_of_other_weights() -> None:
    """The fault: the mean since the last checkpoint was used for scores as well, and named step 80 as the best."""
    cursor = Cursor()
    for name, values in {"60": (30.0, 20.0, 16.0), "80": (17.0, 17.0, 19.0), "100": ()}.items():
        for value in values:
            cursor.watch_score("FD", Score(value, None, "lower"))
        cursor.judge(name)
    assert (cursor.best_name, cursor.best, cursor.watched) == ("60", 16.0, [])


def test_a_checkpoint_is_judged_by_the_mean_of_a_loss() -> None:
    cursor = Cursor()
    for name, values in {"60": (30.0, 20.0, 16.0), "80": (17.0, 17.0, 19.0)}.items():
        for value in values:
            cursor.watch("player/loss", value)
        cursor.judge(name)
    assert (cursor.best_name, cursor.best) == ("80", 53 / 3)


def test_scores_that_an_earlier_version_kept_to_take_their_mean_give_way_to_a_new_one() -> None:
    criterion = '["FD", {}, {}]'
    cursor = Cursor.read({"best": 18.0, "best_name": "20", "watched": [40.0, 50.0], "criterion": criterion})
    cursor.watch_score("FD", Score(17.0, None, "lower"))
    cursor.judge("40")
    assert (cursor.best_name, cursor.best) == ("40", 17.0)
