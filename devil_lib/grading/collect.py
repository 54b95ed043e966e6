"""nbgrader's collection with the submission doctor."""

from __future__ import annotations

from pathlib import Path

from nbgrader.exchange.default import ExchangeCollect

from devil_lib.grading.doctor import DoctorError, treat_submission


class CollectWithDoctor(ExchangeCollect):
    """nbgrader's collection, after which the doctor sees each submission; it keeps what it changes in `originals`."""

    def copy_files(self) -> None:
        super().copy_files()
        folders = self.coursedir
        release = Path(folders.format_path(folders.release_directory, ".", folders.assignment_id))
        kept = str(Path(folders.submitted_directory).with_name("originals"))
        for record in self.src_records:
            student = record["username"]
            submitted = Path(folders.format_path(folders.submitted_directory, student, folders.assignment_id))
            originals = Path(folders.format_path(kept, student, folders.assignment_id))
            try:
                for report in treat_submission(submitted, release, originals):
                    if report.changes or report.doubts:
                        self.log.info("%s: %s", student, report)
            except (DoctorError, OSError) as error:
                # One submission that nobody can help must not hold up the others.
                self.log.error("The doctor could not treat the submission of %s: %s", student, error)
