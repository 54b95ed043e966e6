"""nbgrader's settings for the graded coursework: sources in solutions/, what students receive in exercises/."""

c = get_config()  # noqa: F821 (nbgrader's loader defines it)

c.CourseDirectory.course_id = "devil-in-the-generator"
c.CourseDirectory.source_directory = "solutions"
c.CourseDirectory.release_directory = "exercises"
# What students hand in and what grading makes of it stays out of the repository, in the ignored build folder.
c.CourseDirectory.submitted_directory = "build/grading/submitted"
c.CourseDirectory.autograded_directory = "build/grading/autograded"
c.CourseDirectory.feedback_directory = "build/grading/feedback"

# Before grading, what a student deleted, doubled or renamed is put right; a note at the top of the notebook says so.
c.ExchangeFactory.collect = "devil_lib.grading.collect.CollectWithDoctor"
c.OverwriteCells.add_missing_cells = True
# A cell that hangs, ends Python or writes to stderr costs its own question at most; a score is read as it was meant.
c.Autograde.autograde_preprocessors = [
    "devil_lib.grading.execute.SturdyExecute",
    "nbconvert.preprocessors.ClearMetadataPreprocessor",
    "nbgrader.preprocessors.LimitOutput",
    "devil_lib.grading.execute.SaveScores",
    "nbgrader.preprocessors.AssignLatePenalties",
    "nbgrader.preprocessors.CheckCellMetadata",
]
# Seconds for each cell: the exercises take seconds, and an endless loop must not hold up the class.
c.ExecutePreprocessor.timeout = 120
c.ExecutePreprocessor.startup_timeout = 120
# How long a cell's last output may take to arrive: many printed lines do, where the machine is busy.
c.ExecutePreprocessor.iopub_timeout = 30
# What students read about their marks quotes no hidden test.
c.GenerateFeedback.preprocessors = [
    "nbgrader.preprocessors.GetGrades",
    "devil_lib.grading.feedback.HideTests",
    "nbconvert.preprocessors.CSSHTMLHeaderPreprocessor",
]
c.ExchangeFactory.release_feedback = "devil_lib.grading.feedback.ReleaseFeedback"
# What each day begun after the due date costs, as a share of the points, and the hours that cost nothing.
c.AssignLatePenalties.plugin_class = "devil_lib.grading.late.PenaltyPerDay"
c.PenaltyPerDay.share_per_day = 0.1
c.PenaltyPerDay.grace_hours = 0.0
