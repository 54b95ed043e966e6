"""Graded coursework: six assignments that nbgrader releases, collects and grades."""

from devil_lib.grading.exercise import Answers, Assignment, Exercise, Failed, Property, Written, expect
from devil_lib.grading.seam import Student, Verdict, check, judge

__all__ = [
    "Answers",
    "Assignment",
    "Exercise",
    "Failed",
    "Property",
    "Student",
    "Verdict",
    "Written",
    "check",
    "expect",
    "judge",
]
