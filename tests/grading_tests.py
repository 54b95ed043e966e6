"""The tests that assignments have in common: a test file says which is its `ASSIGNMENT`, and imports all that is here."""

import grading_answers
import pytest

from devil_lib.grading.exercise import find_exercise

# pytest runs them in this order: those that need no results come while the answers are being graded.
__all__ = [  # noqa: RUF022
    "pytest_generate_tests",
    "grading",
    "results",
    "test_there_are_answers_of_all_kinds",
    "test_it_gets_its_points",
    "test_its_points_do_not_hang_on_the_seed",
    "test_variants",
    "test_nbgrader_gives_it_its_points",
    "test_the_whole_notebook",
]


def pytest_generate_tests(metafunc):
    if "answer" in metafunc.fixturenames:
        graded = "results" in metafunc.fixturenames
        answers = grading_answers.every_handed_in if graded else grading_answers.every_answer
        metafunc.parametrize(("exercise", "answer"), answers(metafunc.module.ASSIGNMENT))


@pytest.fixture(scope="module", autouse=True)
def grading(request, tmp_path_factory):
    """What is handed in is graded by other processes while the tests that need no results run here."""
    if grading_answers.is_needed(request):
        return grading_answers.start(request.module.ASSIGNMENT, tmp_path_factory.mktemp("course"))
    return None


@pytest.fixture(scope="module")
def results(grading):
    return grading()


def test_there_are_answers_of_all_kinds(request):
    grading_answers.check_answers_of(request.module.ASSIGNMENT)


def test_it_gets_its_points(request, exercise, answer):
    told = grading_answers.told(find_exercise(f"{request.module.ASSIGNMENT}/{exercise}"), answer)
    grading_answers.check_points(request.module.ASSIGNMENT, exercise, answer, told)


def test_its_points_do_not_hang_on_the_seed(request, exercise, answer):
    grading_answers.check_other_seeds(request.module.ASSIGNMENT, exercise, answer)


def test_variants(request):
    grading_answers.check_variants(request.module.ASSIGNMENT)


def test_nbgrader_gives_it_its_points(request, results, exercise, answer):
    grading_answers.check_points(request.module.ASSIGNMENT, exercise, answer, results.answers[exercise, answer.name])


def test_the_whole_notebook(request, results):
    grading_answers.check_whole(request.module.ASSIGNMENT, results)
