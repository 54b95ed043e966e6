"""The graders of A7: what right, wrong, blank and crashing answers get, through nbgrader."""

from grading_tests import *  # noqa: F403  (the tests that assignments have in common)

ASSIGNMENT = "a7_extraction"
