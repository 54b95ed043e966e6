"""The graders of A8: what right, wrong, blank and crashing answers get, through nbgrader."""

from grading_tests import *  # noqa: F403  (the tests that assignments have in common)

ASSIGNMENT = "a8_poisoned_classifiers"
