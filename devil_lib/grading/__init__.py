"""Graded coursework: assignments that nbgrader releases, collects and grades, with judges that look at properties.

An assignment is three things that carry its name, `a1_latents_and_metrics` for example:

* `devil_lib/grading/<name>.py` holds `ASSIGNMENT`: the exercises with their points, cases and properties, and the written question.
* `devil_lib/grading/sources/<name>.py.j2` is the notebook, written once: a percent script with the solutions in it.
* `tests/answers/<name>.py` holds right and wrong answers, and `tests/test_grading_a1.py` judges them, some of each kind through nbgrader.

From these, `make release` builds `solutions/<name>/` (nbgrader's source) and `exercises/<name>/` (what students receive). Neither is
edited by hand; a test fails when they are not what the templates give. `a1_latents_and_metrics` is the model for the others.

What happens in a test cell
---------------------------
A test cell ends in `grading.check("<assignment>/<exercise>", globals())`. It *asks* (calls the student's functions with the
exercise's cases; exceptions, warnings, prints and exits stay inside), *packs* what came back as bytes, lets `judge` look at these
bytes, prints the verdict and returns the points as a plain float. Points are shared out over the properties by weight. The judge
never sees an object of the student's, so that it can move into a process of its own without a change to an assignment; so an
exercise keeps to these two rules:

* `cases(variant, rng)` draws numbers and NumPy arrays only, from `rng` only: it runs on both sides, and has to give the same on both.
* `ask(student, variant, cases)` makes tensors and generators of them and calls `student.call(label, function, *arguments)`; a
  property's `test(answers, cases, variant)` sees data only: `answers.number(label)`, `answers.array(label)`, `answers.value(label)`.
  Where the student's function returns a model, `then=` makes data of it, such as its samples at given latents.

An exercise
-----------
1. Name what a right answer *is*, whoever wrote it: a shape, an invariance, a value in closed form, a statistic. Each is a `Property`
   with a weight; together they should give a wrong answer the points that it deserves. Never compare with the solution's code: write
   the closed form in NumPy in the judge. Choose cases that have one: affine generators, features with exact covariances.
2. List the misconceptions with the value that each gives in a case, and hand them to `expect`, which names the one that fits. A
   sentence says what is wrong with the answer ("this is the sum over the pairs") and holds no figure, because hidden tests show it
   too; figures go into `Failed`'s second argument, which they do not show.
3. With some seeds a misconception gives the right number by chance. Draw the case with `redraw` until `tells_apart` holds.
4. A statistic needs a bound: measure the right answer over some hundred seeds and write the worst figure beside the bound.
5. Give `choices`: each value must change what a right answer is, for a key draws one of the combinations, never the first, which is
   the public one. Shapes and constants that do not change the answer come from `rng`. A test checks both.
6. Accept what is right in spirit: other dtypes, arrays instead of numbers, either normalisation of a covariance, an input written to.

The template
------------
A cell begins with `# %% id="name"` or, for text, `# %% [markdown] id="name"`, whose lines begin with `# `. Roles:

* `role="setup"`: the imports, read-only, once, before the first answer.
* `role="answer"`: id as the exercise's name; what stands between `### BEGIN SOLUTION` and `### END SOLUTION` is taken out.
* `{{ tests("name") }}` right after it makes the two test cells.
* `[markdown] ... role="written"`: the model answer of the written question, with `{{ scheme("name") }}` at its end. The whole text is
  taken out. A blank one gets 0 without a person; any other waits for one.

`{{ table }}` gives the opening's table, `{{ heading("name") }}` an exercise's heading, `v.name.choice` the variant's value. All other
cells have no role. The builder refuses any other order of cells: nbgrader puts a deleted test cell back behind the cell with metadata
before it, and rejects the whole notebook if that is neither an answer nor a test. So text has no role either.

Cells that only show something come after the tests, need no marks, and use `devil_lib.show`. No file but the notebook lies in the
source folder: nbgrader would copy it to every student. The whole takes less than 60 s of one processor, which `make class` compares.

Answers for the tests
---------------------
At least two right answers to each exercise in other ways than the solution, four wrong ones named after the misconception, and one
that crashes; the solution itself and a blank are added. Each states its points and a part of the sentence that the student reads.
`grading_answers.judged(exercise, code, seed)` gives a verdict without nbgrader: run all answers over some dozen seeds first.
"""

from devil_lib.grading.exercise import (
    Answers,
    Assignment,
    Exercise,
    Failed,
    Property,
    Written,
    expect,
    redraw,
    tells_apart,
)
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
    "redraw",
    "tells_apart",
]
