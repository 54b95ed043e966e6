"""nbgrader's settings for the graded coursework: sources in solutions/, what students receive in exercises/."""

c = get_config()  # noqa: F821 (nbgrader's loader defines it)

c.CourseDirectory.course_id = "devil-in-the-generator"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
# What students hand in and what grading makes of it stays out of the repository, in the ignored build folder.
c.CourseDirectory.submitted_directory = "build/grading/submitted"
c.CourseDirectory.autograded_directory = "build/grading/autograded"
c.CourseDirectory.feedback_directory = "build/grading/feedback"

# A cell that a student deleted comes back before grading, so that it counts as unanswered instead of breaking the run.
c.OverwriteCells.add_missing_cells = True
# A warning on stderr is no failed test; without this it costs the points of its cell.
c.IgnorePattern.enabled = True
c.IgnorePattern.pattern = r"(?s).*"
# Seconds for each cell: the exercises take seconds, and an endless loop must not hold up the class.
c.ExecutePreprocessor.timeout = 300
c.ExecutePreprocessor.startup_timeout = 120
