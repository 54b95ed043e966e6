"""Graded coursework through nbgrader: assignments, their judges, and everything around them."""
