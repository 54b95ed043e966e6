"""The graders of A6: what right, wrong, blank and crashing answers get, through nbgrader and the audit after it."""

from dataclasses import replace

import grading_answers
import nbformat
import pytest
import torch
from grading_answers import Answer
from nbgrader.api import Gradebook
from nbgrader.apps.api import NbGraderAPI

from devil_lib.grading import audit, challenge, seam
from devil_lib.grading.exercise import find_assignment, find_exercise
from devil_lib.grading.payload import Outcome, pack
from devil_lib.grading.release import course_config, release
from devil_lib.grading.roster import Student

ASSIGNMENT = "a6_audit"
VERDICTS = f"{ASSIGNMENT}/verdicts"
CODE = [each.short for each in find_assignment(ASSIGNMENT).exercises if not each.audited]


@pytest.fixture(scope="module")
def course(tmp_path_factory):
    return tmp_path_factory.mktemp("course")


@pytest.fixture(scope="module")
def results(course):
    # Each answer to the question whose points the audit gives, which needs the gradebook.
    return grading_answers.graded(ASSIGNMENT, course, every="verdicts")


@pytest.fixture(scope="module")
def audited(course, results):
    """The audit's results, by the student's number, and each one's points in the gradebook."""
    students = [Student(f"student{i:02}") for i in range(len(grading_answers.answers_to(ASSIGNMENT)["verdicts"]))]
    done = audit.audit(course, None, students)
    return done, [grading_answers.scores_of(course, ASSIGNMENT, student.id) for student in students]


def test_there_are_answers_of_all_kinds():
    grading_answers.check_answers_of(ASSIGNMENT)


def of(exercises: list[str]) -> list:
    return [each for each in grading_answers.every_answer(ASSIGNMENT) if each.values[0] in exercises]


@pytest.mark.parametrize(("exercise", "answer"), of(CODE))
class TestAnswer:
    def test_it_gets_its_points(self, exercise, answer):
        told = grading_answers.told(find_exercise(f"{ASSIGNMENT}/{exercise}"), answer)
        grading_answers.check_points(ASSIGNMENT, exercise, answer, told)

    def test_its_points_do_not_hang_on_the_seed(self, exercise, answer):
        grading_answers.check_other_seeds(ASSIGNMENT, exercise, answer)


@pytest.mark.parametrize(
    ("exercise", "answer"), [each for each in grading_answers.every_handed_in(ASSIGNMENT) if each.values[0] in CODE]
)
def test_nbgrader_gives_it_its_points(results, exercise, answer):
    grading_answers.check_points(ASSIGNMENT, exercise, answer, results.answers[exercise, answer.name])


@pytest.mark.parametrize(
    "answer", [each.values[1] for each in of(["verdicts"])], ids=lambda answer: answer.name.replace(" ", "-")
)
class TestVerdicts:
    def said(self, answer: Answer) -> str:
        return "there is no `answers`" if answer.name == "blank" else answer.says

    def test_its_form_is_judged_in_the_notebook(self, results, answer):
        result = results.answers["verdicts", answer.name]
        assert result.visible == answer.visible, result.visible_text
        if answer.visible < 5:
            assert self.said(answer) in result.visible_text
        else:
            assert "✗" not in result.visible_text

    def test_the_notebook_does_not_know_the_truth(self, results, answer):
        result = results.answers["verdicts", answer.name]
        assert result.hidden is None, "it waits for the audit"
        assert "are given by the audit" in result.hidden_text

    def test_its_truth_is_judged_by_the_audit(self, audited, answer):
        i = [each.name for each in grading_answers.answers_to(ASSIGNMENT)["verdicts"]].index(answer.name)
        done, scores = audited
        assert done[i].points == answer.hidden, done[i].comment
        assert scores[i]["verdicts-hidden"] == answer.hidden


def test_students_read_why(course, audited):
    done, _ = audited
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        for result in done:
            comment = gradebook.find_comment("verdicts", ASSIGNMENT, ASSIGNMENT, result.student.id).comment
            assert comment == result.comment and comment
            grade = gradebook.find_grade("verdicts-hidden", ASSIGNMENT, ASSIGNMENT, result.student.id)
            assert not grade.needs_manual_grade
    assert "A: rightly accused, with evidence, of TrAIL (4 of 4)" in done[0].comment


def test_the_instructor_reads_the_truth(course, audited):
    rows = (challenge.folder_of(course) / "audit.csv").read_text(encoding="utf-8-sig")
    assert "unrelated, TrAIL: devil" in rows and "student00" in rows


def test_variants_of_the_code():
    for short in CODE:
        exercise = find_exercise(f"{ASSIGNMENT}/{short}")
        for variant, key in grading_answers.keys_for_all_variants(exercise).items():
            own = grading_answers.judged(exercise, grading_answers.solution_of(exercise, key), 5, dict(variant))
            assert own.share == 1.0, f"{short}, {variant}: {own.text(exercise.hidden)}"
            public = grading_answers.judged(exercise, grading_answers.solution_of(exercise), 5, dict(variant))
            assert public.share < 1.0, f"{short}: the public solution gets all points in the variant {variant}"


def test_the_whole_notebook(results):
    grading_answers.check_whole(ASSIGNMENT, results)


# --- A class with sets of its own -------------------------------------------------------------------------------------------

KEY = "a key for the tests of the capstone"
PRACTICE = {
    item.attack: (letter, item.target)
    for letter, item in challenge.truth(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT).items()
    if item.guilty
}


def practice_latents() -> dict:
    lot = challenge.practice()
    return {
        attack: challenge.planted(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT, letter, lot).tolist()
        for attack, (letter, _) in PRACTICE.items()
    }


@pytest.fixture(scope="module")
def truths():
    """Each student's truth with the targets of the practice, whose generators stand in for trained ones."""
    real = challenge.truth

    def truth(key: str, student: str) -> dict:
        return {
            letter: replace(item, target=PRACTICE[item.attack][1]) if item.guilty else item
            for letter, item in real(key, student).items()
        }

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(challenge, "truth", truth)
        yield truth


def set_for(name: str, truths) -> challenge.Lot:
    """The generators of the practice's set in the order of a student's truth."""
    lot = challenge.practice()
    public = truths(challenge.OPEN_KEY, challenge.PRACTICE_STUDENT)
    known = {(item.lineage, item.attack): lot.checkpoints[letter] for letter, item in public.items()}
    made = {letter: known[item.lineage, item.attack] for letter, item in truths(KEY, name).items()}
    return challenge.Lot(challenge.number_of(KEY, name), lot.published, made)


def found(name: str, truths) -> dict:
    """What a thorough student writes down."""
    latents, lot, given = practice_latents(), set_for(name, truths), {}
    for letter, item in truths(KEY, name).items():
        given[letter] = {"verdict": item.attack}
        if item.guilty:
            made = lot.checkpoints[letter].generate(torch.tensor([latents[item.attack]]))
            given[letter] |= {
                "target": item.target,
                "latent": latents[item.attack],
                "reconstruction": made[0].tolist(),
            }
    return given


@pytest.fixture(scope="module")
def personal(tmp_path_factory, truths):
    """The audit's results by student, and the course folder, in which students submit their own file, another's, and none."""
    course = tmp_path_factory.mktemp("personal")
    (released,) = release(course, KEY, [ASSIGNMENT])
    students = [Student(name) for name in ("right", "other", "none", "written", "absent")]
    for student in students:
        lot = set_for(student.id, truths)
        challenge.write(
            challenge.folder_of(course) / f"{lot.number}.safetensors",
            lot.number,
            student.id,
            lot.published,
            lot.checkpoints,
        )
    config = course_config(course)
    api = NbGraderAPI(config=config)
    with Gradebook(f"sqlite:///{course / 'gradebook.db'}") as gradebook:
        gradebook.update_or_create_assignment(ASSIGNMENT, duedate="2030-01-01 12:00:00 UTC")
    # whose answers, whose file, whose name in the notebook
    for name, (answers, file, typed) in {
        "right": ("right", "right", "right"), "other": ("right", "right", "other"), "none": ("", "", "none"), "written": ("written", "", "written"),
    }.items():  # fmt: skip
        folder = course / "build" / "grading" / "submitted" / name / ASSIGNMENT
        code = (
            f"answers = {found(answers, truths)!r}"
            if answers
            else "answers = {letter: {} for letter in lot.checkpoints}"
        )
        submitted = grading_answers.submit(released, {"verdicts": code}, folder / f"{ASSIGNMENT}.ipynb")
        notebook = nbformat.read(submitted, as_version=4)
        for each in notebook.cells:
            if each.id == "set":
                each.source = f'lot = challenge.open_lot(student="{typed}")'
        notebook.cells = [each for each in notebook.cells if each.id not in ("evidence", "verdicts-reading")]
        nbformat.write(notebook, submitted)
        if file:
            (folder / "my file.safetensors").write_bytes(
                (challenge.folder_of(course) / f"{challenge.number_of(KEY, file)}.safetensors").read_bytes()
            )
        if name == "right":
            (folder / "timestamp.txt").write_text("2030-01-02 06:00:00 UTC")
        assert api.autograde(ASSIGNMENT, name)["success"], name
    return course, {result.student.id: result for result in audit.audit(course, KEY, students)}


class TestPersonalSets:
    def told(self, personal, name: str) -> str:
        """What the notebook said, in all cells."""
        notebook = nbformat.read(
            personal[0] / "build" / "grading" / "autograded" / name / ASSIGNMENT / f"{ASSIGNMENT}.ipynb", as_version=4
        )
        errors = [o.evalue for each in notebook.cells for o in each.get("outputs", []) if o.output_type == "error"]
        return grading_answers.printed(notebook, "verdicts-visible") + "\n".join(errors)

    def test_the_released_notebook_asks_for_the_students_own(self, personal):
        text = (personal[0] / "exercises" / ASSIGNMENT / f"{ASSIGNMENT}.ipynb").read_text(encoding="utf-8")
        assert "challenge.open_lot(student=STUDENT)" in text and "challenge.practice()" not in text
        assert KEY not in text
        assert not list((personal[0] / "exercises").rglob("*.safetensors")), "no set goes to everyone"

    def test_the_own_file(self, personal):
        result = personal[1]["right"]
        assert (result.points, result.problem) == (15, "")
        assert "5 of 5 points" in self.told(personal, "right")

    def test_another_students_file_and_answers(self, personal):
        result = personal[1]["other"]
        assert result.points == 0
        assert "run with a file of another student" in result.problem
        assert "made for another student than 'other'" in self.told(personal, "other")

    def test_no_file(self, personal):
        result = personal[1]["none"]
        assert result.points == 0
        assert "There are no `answers`" in result.problem and "your file of checkpoints is not here" in result.problem
        assert "✗ your set of checkpoints: your file of checkpoints is not here" in self.told(personal, "none")

    def test_answers_written_down_need_no_file_for_their_truth(self, personal):
        result = personal[1]["written"]
        assert result.points == 15
        assert "your file of checkpoints is not here" in result.problem
        assert "2 of 5 points" in self.told(personal, "written")

    def test_no_submission(self, personal):
        result = personal[1]["absent"]
        assert result.points is None and "no autograded submission" in result.problem

    def test_the_penalty_of_a_late_one_counts_the_audits_points(self, personal):
        with Gradebook(f"sqlite:///{personal[0] / 'gradebook.db'}") as gradebook:
            notebook = gradebook.find_submission_notebook(ASSIGNMENT, ASSIGNMENT, "right")
            assert notebook.score >= 20
            assert notebook.late_submission_penalty == pytest.approx(0.1 * notebook.score)

    def test_a_regraded_submission_waits_for_the_next_audit(self, personal):
        course, _ = personal
        assert NbGraderAPI(config=course_config(course)).autograde(ASSIGNMENT, "written")["success"]
        assert grading_answers.scores_of(course, ASSIGNMENT, "written")["verdicts-hidden"] is None
        (again,) = audit.audit(course, KEY, [Student("written")])
        assert again.points == 15
        assert grading_answers.scores_of(course, ASSIGNMENT, "written")["verdicts-hidden"] == 15

    def test_a_set_that_is_lost_is_said(self, personal):
        course, _ = personal
        path = challenge.folder_of(course) / f"{challenge.number_of(KEY, 'none')}.safetensors"
        kept = path.read_bytes()
        path.unlink()
        with pytest.raises(challenge.ChallengeError, match="the set of none cannot be read"):
            audit.audit(course, KEY, [Student("none")])
        path.write_bytes(kept)


class TestPayload:
    """What may stand in a notebook's output instead of answers: it is data of a student's."""

    def judged(self, payload, truths):
        student = Student("right")
        known = {challenge.number_of(KEY, name): name for name in ("right", "other")}
        return audit.judge_payload(payload, KEY, student, set_for("right", truths), known)

    @pytest.mark.parametrize(
        ("payload", "words"),
        [(None, "left no answers"), (b"", "could not be read"), (b"PK\x03\x04 nonsense", "could not be read")],
        ids=["nothing", "empty", "nonsense"],
    )
    def test_no_answers(self, truths, payload, words):
        result = self.judged(payload, truths)
        assert result.points == 0 and words in result.problem

    def test_a_file_of_no_student(self, truths):
        result = self.judged(pack({"answers": Outcome(found("right", truths)), "file": Outcome("0" * 24)}), truths)
        assert result.points == 0 and "none of this course's" in result.problem

    def test_a_forged_number_helps_nobody(self, truths):
        """Another's answers under one's own number: the truth is that of one's own set."""
        others = found("other", truths)
        assert truths(KEY, "other") != truths(KEY, "right")
        result = self.judged(
            pack({"answers": Outcome(others), "file": Outcome(challenge.number_of(KEY, "right"))}), truths
        )
        assert result.points < 8

    @pytest.mark.parametrize("given", [7, "clean", [], {"A": 3}], ids=repr)
    def test_answers_of_another_form(self, truths, given):
        result = self.judged(
            pack({"answers": Outcome(given), "file": Outcome(challenge.number_of(KEY, "right"))}), truths
        )
        assert result.points == 0 and "A: no verdict (0 of" in result.comment

    def test_other_outputs_are_passed_over(self):
        wrong = [
            {"output_type": "stream", "text": "x"}, {"data": {seam.LEFT: "text"}},
            {"data": {seam.LEFT: {"exercise": "other", "payload": ""}}},
        ]  # fmt: skip
        assert seam.left(wrong, VERDICTS) is None
        assert (
            seam.left([*wrong, {"data": {seam.LEFT: {"exercise": VERDICTS, "payload": "AAEC"}}}], VERDICTS)
            == b"\0\1\2"
        )
        assert seam.left([{"data": {seam.LEFT: {"exercise": VERDICTS, "payload": "no base 64!"}}}], VERDICTS) is None
