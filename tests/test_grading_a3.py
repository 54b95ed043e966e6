"""The graders of A3: what right, wrong, blank and crashing answers get, through nbgrader."""

import grading_answers
import pytest

ASSIGNMENT = "a3_vae_and_audio"


@pytest.fixture(scope="module", autouse=True)
def grading(request, tmp_path_factory):
    """The answers are graded by other processes while the tests that need no results run here."""
    if grading_answers.is_needed(request):
        return grading_answers.start(ASSIGNMENT, tmp_path_factory.mktemp("course"))
    return None


@pytest.fixture(scope="module")
def results(grading):
    return grading()


def test_there_are_answers_of_all_kinds():
    grading_answers.check_answers_of(ASSIGNMENT)


ANSWERS = pytest.mark.parametrize(("exercise", "answer"), grading_answers.every_answer(ASSIGNMENT))


@ANSWERS
def test_its_points_do_not_hang_on_the_seed(exercise, answer):
    grading_answers.check_other_seeds(ASSIGNMENT, exercise, answer)


def test_variants():
    grading_answers.check_variants(ASSIGNMENT)


@ANSWERS
def test_it_gets_its_points(results, exercise, answer):
    grading_answers.check_points(ASSIGNMENT, exercise, answer, results.answers[exercise, answer.name])


def test_the_whole_notebook(results):
    grading_answers.check_whole(ASSIGNMENT, results)
