"""What a late submission costs."""

from __future__ import annotations

import math

from nbgrader.plugins import LateSubmissionPlugin
from traitlets import Float


class PenaltyPerDay(LateSubmissionPlugin):
    """A share of the points for each day begun after the due date, nothing within the grace period.

    nbgrader asks when it grades automatically, so that the penalty is a share of the points given until then: points
    given by hand afterwards are not reduced unless the submission is autograded again.
    """

    share_per_day = Float(0.1, min=0.0, max=1.0, help="The share of the points that each day costs.").tag(config=True)
    grace_hours = Float(0.0, min=0.0, help="Hours after the due date that cost nothing.").tag(config=True)

    def late_submission_penalty(self, student_id: str, score: float, total_seconds_late: float) -> float:
        late = total_seconds_late - 3600 * self.grace_hours
        return score * min(1.0, self.share_per_day * math.ceil(max(0.0, late) / 86400))
