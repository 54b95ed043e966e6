"""Graded coursework: what a judge gets to see, what a key draws, and that the committed pair is current and gives nothing away."""

import contextlib
import io
import json
import os
import pickle
import re
import shutil
import subprocess
import sys
import warnings
import zipfile

import nbformat
import numpy as np
import pytest
import torch
from released import KINDS, TEST, cells_without_holes, files_that_differ, leaks, odd_metadata, read, role

from devil_lib.course.lessons import ROOT
from devil_lib.grading import __main__ as command
from devil_lib.grading import payload, seam, source, variants
from devil_lib.grading.exercise import (
    Answers,
    Assignment,
    Exercise,
    Failed,
    Property,
    assignment_names,
    expect,
    find_assignment,
    find_exercise,
    redraw,
    tells_apart,
)
from devil_lib.grading.payload import INTERRUPTED, MISSING, NOT_DATA, NotData, Outcome, pack, unpack
from devil_lib.grading.release import release

NAMES = assignment_names()
KEY = "a key that only tests have"


# --- Packing -----------------------------------------------------------------------------------------------------------------


class TestPacking:
    @pytest.mark.parametrize(
        ("value", "wanted"),
        [
            (None, None), (True, True), (3, 3), (2.5, 2.5), (np.float32(0.5), 0.5), (np.int64(7), 7), ("é \ud800", "é \ud800"),
            (1 + 2j, 1 + 2j), ([1, (2.0, "x")], [1, [2.0, "x"]]), ({"a": {"b": None}}, {"a": {"b": None}}),
        ],
    )  # fmt: skip
    def test_plain_values_come_back(self, value, wanted):
        back = unpack(pack({"x": Outcome(value)}))["x"].value
        assert back == wanted and type(back) is type(wanted)

    @pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
    def test_numbers_that_are_not_finite_come_back(self, value):
        assert np.array_equal(unpack(pack({"x": Outcome(value)}))["x"].value, value, equal_nan=True)

    @pytest.mark.parametrize(
        "tensor",
        [
            torch.randn(2, 3), torch.randn(2, requires_grad=True), torch.ones(3, dtype=torch.bfloat16), torch.tensor(4),
            torch.eye(3).to_sparse(), torch.randn(2, dtype=torch.complex64).conj(), torch.tensor([True, False]),
        ],
    )  # fmt: skip
    def test_tensors_come_back_as_arrays(self, tensor):
        back = unpack(pack({"x": Outcome([tensor])}))["x"].value[0]
        assert isinstance(back, np.ndarray)
        assert np.array_equal(back, tensor.detach().to_dense().to(torch.complex128).resolve_conj().numpy())

    @pytest.mark.parametrize(
        "value", [object(), len, np.array([None]), {1: 2}, [torch.nn.Linear(1, 1)], np.array(["x"]), {1}]
    )
    def test_anything_else_is_refused(self, value):
        with pytest.raises(NotData):
            pack({"x": Outcome(value)})

    def test_too_much_is_refused(self):
        with pytest.raises(NotData, match="MiB"):
            pack({"x": Outcome(np.zeros(payload.LARGEST, np.uint8))})

    def test_what_went_wrong_comes_back(self):
        outcome = Outcome(None, "TypeError", "no", "line 3: a + b")
        assert unpack(pack({"x": outcome})) == {"x": outcome}

    def test_nothing_in_the_bytes_is_executed(self, tmp_path):
        class Trap:
            def __reduce__(self):
                return (open, (str(tmp_path / "sprung"), "w"))

        file = io.BytesIO()
        np.savez(file, index=np.array([Trap()], dtype=object), allow_pickle=True)
        for bad in (file.getvalue(), pickle.dumps(Trap())):
            with pytest.raises(ValueError, match="no packed answer"):
                unpack(bad)
        assert not (tmp_path / "sprung").exists()

    def test_a_compressed_entry_is_refused(self):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("index.npy", b"0" * 1000)
        with pytest.raises(ValueError, match="compressed"):
            unpack(file.getvalue())

    @pytest.mark.parametrize(
        "index", [[], {"x": 1}, {"x": {"value": {"array": "no"}, "error": "", "message": "", "line": ""}}]
    )
    def test_another_index_is_refused(self, index):
        file = io.BytesIO()
        np.savez(file, index=np.frombuffer(json.dumps(index).encode(), np.uint8))
        with pytest.raises(ValueError, match="no packed answer"):
            unpack(file.getvalue())


class TestAnswers:
    @pytest.mark.parametrize("value", [2, 2.0, np.array(2.0), np.array([[2]]), [2.0], 2 + 1e-9j])
    def test_a_number_in_any_form(self, value):
        assert Answers({"x": Outcome(value)}).number("x") == 2.0

    @pytest.mark.parametrize(
        ("value", "symptom"),
        [
            (None, "return"),
            ("2", "a text"),
            ([1, 2], "a list"),
            (np.ones(3), "an array"),
            (2 + 1j, "complex"),
            ({}, "dictionary"),
        ],
    )
    def test_what_is_no_number(self, value, symptom):
        with pytest.raises(Failed, match=symptom):
            Answers({"x": Outcome(value)}).number("x")

    @pytest.mark.parametrize("value", [[[1, 2], [3]], "text", None, np.array([1 + 1j])])
    def test_what_is_no_array(self, value):
        with pytest.raises(Failed):
            Answers({"x": Outcome(value)}).array("x")

    def test_the_size_of_an_array(self):
        assert Answers({"x": Outcome([[1, 2], [3, 4]])}).array("x", size=4).shape == (2, 2)
        with pytest.raises(Failed, match="another number of values"):
            Answers({"x": Outcome([1, 2])}).array("x", size=3)


def test_a_misconception_is_named():
    wrong = {"this is twice too much": 4.0}
    expect(2.0001, 2.0, wrong, relative=1e-3)
    for got, symptom in ((4.001, "twice"), (3.0, "too large"), (1.0, "too small"), (float("nan"), "NaN")):
        with pytest.raises(Failed, match=symptom) as failed:
            expect(got, 2.0, wrong, relative=1e-3)
        assert not re.search(r"\d", failed.value.symptom)


def test_a_case_is_drawn_until_it_shows_the_misconceptions():
    numbers = iter(range(5))
    assert redraw(lambda: next(numbers), lambda n: n == 3) == 3
    with pytest.raises(RuntimeError, match="differ more"):
        redraw(lambda: 0, lambda n: False)
    assert tells_apart(1.0, [2.0, float("nan")], relative=0.1) and not tells_apart(1.0, [2.0, 1.05], relative=0.1)


# --- Asking and judging --------------------------------------------------------------------------------------------------------


def _ask_double(student, variant, cases):
    for i, x in enumerate(cases):
        student.call(str(i), "double", torch.tensor(x))


def _doubled(i):
    def test(answers, cases, variant):
        expect(
            answers.number(str(i)), variant["factor"] * cases[i], {"this is the square": cases[i] ** 2}, relative=1e-6
        )

    return test


DOUBLE = Exercise(
    "a0_toy/double", "Double", 1, 1, visible=3, hidden=5,
    cases=lambda variant, rng: [float(x) for x in rng.uniform(3, 4, size=2)],
    ask=_ask_double,
    properties=(Property("the first", 1, _doubled(0)), Property("the second", 2, _doubled(1))),
    choices={"factor": (2, 3), "unused": ("a", "b", "c")},
)  # fmt: skip


@pytest.fixture
def toy(monkeypatch):
    monkeypatch.setattr(seam, "find_exercise", lambda name: DOUBLE)


def check(code: str, **given) -> float:
    namespace: dict = {"torch": torch, "np": np}
    exec(compile(code, "<answer>", "exec"), namespace)
    return seam.check("a0_toy/double", namespace, **given)


@pytest.mark.usefixtures("toy")
class TestCheck:
    @pytest.mark.parametrize(("hidden", "maximum"), [(False, 3.0), (True, 5.0)])
    def test_points_are_a_plain_float(self, hidden, maximum):
        for code, share in (("def double(x): return 2 * x", 1.0), ("def double(x): return np.float64(x) ** 2", 0.0)):
            points = check(code, hidden=hidden)
            assert type(points) is float and points == share * maximum
            assert float(repr(points)) == points, "nbgrader reads the points from the cell's output"

    def test_points_go_by_weight_to_a_hundredth_and_never_above(self):
        code = "calls = []\ndef double(x):\n    calls.append(1)\n    return 2 * x if len(calls) == 1 else x"
        assert check(code) == 1.0
        assert check(code, hidden=True) == 1.67

    def test_the_verdict_names_properties_and_figures(self, capsys):
        check("def double(x): return x * x")
        told = capsys.readouterr().out
        assert "double, visible tests: 0 of 3 points" in told
        assert "✗ the first: this is the square (yours is" in told

    def test_a_hidden_verdict_names_no_figure(self, capsys):
        check("def double(x): return x * x", hidden=True, seed=12345)
        told = capsys.readouterr().out
        assert "✗ the first: this is the square" in told
        assert not re.search(r"\d\.\d|12345|yours", told.partition("points")[2])

    def test_no_line_is_longer_than_validation_shows(self, capsys):
        check("def double(x): raise ValueError('long ' * 100)")
        assert max(map(len, capsys.readouterr().out.splitlines())) <= 83

    def test_warnings_and_progress_bars_cost_nothing(self, capsys):
        code = """
import sys, warnings
from tqdm import tqdm
def double(x):
    warnings.warn("old")
    for _ in tqdm(range(3)):
        print("error", file=sys.stderr)
    return 2 * x
"""
        with warnings.catch_warnings():
            # As in a notebook, where a warning is written to the error stream; pytest would keep it to itself.
            warnings.simplefilter("always")
            warnings.showwarning = lambda message, *_: print(message, file=sys.stderr)
            assert check(code) == 3.0
        told = capsys.readouterr()
        assert told.err == ""
        assert "error" in told.out and "old" in told.out

    def test_a_hidden_test_shows_nothing_that_the_answer_prints(self, capsys):
        check(
            "import sys\ndef double(x):\n    print('seen', x)\n    print('seen', x, file=sys.stderr)\n    return 2 * x",
            hidden=True,
        )
        told = capsys.readouterr()
        assert "seen" not in told.out + told.err

    @pytest.mark.parametrize(
        ("code", "told"),
        [
            ("def double(x): raise NotImplementedError()", "not written yet"),
            ("def twice(x): raise NotImplementedError()\ndef double(x): return twice(x)", "not written yet"),
            # In PyTorch's own Python, and in C++, where the innermost frame is the student's.
            ("def double(x): return torch.nn.Module()(x)", "your code raised NotImplementedError in line 1"),
            ("def double(x): return torch.bincount(x.reshape(1))", "your code raised NotImplementedError in line 1"),
            (
                "def double(x): return torch.distributions.Distribution(validate_args=False).sample()",
                "your code raised NotImpl",
            ),
            ("def twice(x): return 2 * x", "there is no `double`"),
            ("def double(x):\n    y = x\n    return y + None", "your code raised TypeError in line 3"),
            ("def double(x): raise SystemExit", "your code raised SystemExit"),
            ("def double(x): return double(x)", "your code raised RecursionError"),
            ("def double(x): raise KeyboardInterrupt", "interrupted"),
            ("def double(x): return object()", "returned a value of type object"),
            ("def double(x): return torch.zeros(40_000_000, dtype=torch.float64)", "MiB"),
            ("def double(x): pass", "is the `return` missing?"),
            ("class E(Exception):\n    def __str__(self): 1 / 0\ndef double(x): raise E", "your code raised E"),
            ("double = 3", "your code raised TypeError"),
        ],
    )
    def test_what_goes_wrong_is_told_once_and_gives_nothing(self, code, told, capsys):
        assert check(code) == 0.0
        assert told in re.sub(r"\n  ", " ", capsys.readouterr().out)

    def test_the_words_of_an_exception_are_kept_from_hidden_tests(self, capsys):
        code = "def double(x): raise ValueError(f'secret {x}')"
        check(code)
        assert "secret" in capsys.readouterr().out
        check(code, hidden=True)
        told = capsys.readouterr().out
        assert "ValueError in line 1" in told and "secret" not in told

    def test_an_answer_that_fails_in_one_case_keeps_the_other(self):
        assert (
            check("calls = []\ndef double(x):\n    calls.append(1)\n    assert len(calls) > 1\n    return 2 * x")
            == 2.0
        )

    def test_nothing_is_asked_after_an_interrupt(self, capsys):
        code = "calls = []\ndef double(x):\n    calls.append(1)\n    print(f'call {len(calls)}')\n    raise KeyboardInterrupt"
        check(code)
        assert "call 2" not in capsys.readouterr().out

    def test_global_random_states_are_set_for_each_call_and_restored(self):
        states = torch.get_rng_state(), np.random.get_state()[1].copy()
        code = (
            "def double(x):\n    found.append((torch.rand(1).item(), np.random.rand()))\n    return 2 * x\nfound = []"
        )
        seen = []
        for _ in range(2):
            namespace = {"torch": torch, "np": np}
            exec(code, namespace)
            seam.check("a0_toy/double", namespace)
            seen.append(namespace["found"])
        assert seen[0] == seen[1] and seen[0][0] != seen[0][1]
        assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])

    def test_validation_shows_the_verdict_of_what_fails(self, monkeypatch, capsys):
        monkeypatch.setenv("NBGRADER_EXECUTION", "validate")
        check("def double(x): return x")
        assert "0 of 3 points" in capsys.readouterr().err
        check("def double(x): return 2 * x")
        assert capsys.readouterr().err == ""

    @pytest.mark.parametrize("variant", [{}, {"factor": 4, "unused": "a"}, {"factor": 2}])
    def test_another_variant_is_refused(self, variant):
        with pytest.raises(ValueError, match="factor"):
            check("def double(x): return 2 * x", variant=variant)

    def test_a_variant_is_judged_as_such(self):
        assert check("def double(x): return 3 * x", variant={"factor": 3, "unused": "a"}) == 3.0

    @pytest.mark.parametrize("bytes_", [b"", b"x", b"PK\x03\x04"])
    def test_bytes_that_are_no_answer_get_nothing(self, bytes_):
        verdict = seam.judge("a0_toy/double", DOUBLE.public(), 0, bytes_)
        assert verdict.points(3) == 0.0 and "could not be read" in verdict.text(3)

    def test_data_that_no_judge_foresaw_does_not_end_the_notebook(self, monkeypatch):
        def surprised(answers, cases, variant):
            raise IndexError("surprise")

        monkeypatch.setattr(seam, "find_exercise", lambda name: replace_properties(Property("odd", 1, surprised)))
        verdict = seam.judge("a0_toy/double", DOUBLE.public(), 0, pack({"0": Outcome(1.0)}))
        assert verdict.points(3) == 0.0 and "cannot be judged (IndexError)" in verdict.text(3)


def replace_properties(*properties: Property) -> Exercise:
    return Exercise(**{**DOUBLE.__dict__, "properties": properties})


def test_what_is_asked_may_be_a_variable_or_made_of_what_came_back():
    student = seam.Student({"taps": [1, 2], "make": lambda: object()})
    student.value("taps", "taps")
    student.value("missing", "nothing")
    student.call("made", "make", then=lambda made: type(made).__name__)
    student.call("raw", "make")
    assert student.outcomes["taps"] == Outcome([1, 2]) and student.outcomes["made"] == Outcome("object")
    assert [student.outcomes[label].error for label in ("missing", "raw")] == [MISSING, NOT_DATA]
    assert INTERRUPTED not in {each.error for each in student.outcomes.values()}


def test_the_judge_needs_nothing_but_the_bytes():
    """In a process that never saw the answer, the verdict is the same."""
    exercise = find_exercise("a1_latents_and_metrics/tardis")
    namespace: dict = {}
    exec("def tardis(g, z, x): return (g.generate(z) - x).square().sum().item()", namespace)
    asked = seam.ask(exercise, namespace, exercise.public(), 3)
    program = (
        "import sys; from devil_lib.grading import judge; "
        f"print(judge({exercise.name!r}, {exercise.public()!r}, 3, sys.stdin.buffer.read()).text(4))"
    )
    done = subprocess.run([sys.executable, "-c", program], input=asked, capture_output=True, timeout=120, check=True)
    assert done.stdout.decode().strip() == seam.judge(exercise.name, exercise.public(), 3, asked).text(4)
    assert "this is the sum over the pairs" in done.stdout.decode()


@pytest.mark.parametrize("name", ["tardis", "a1_latents_and_metrics/none", "a9_none/x", "../x/y"])
def test_an_unknown_exercise_is_refused(name):
    with pytest.raises(ValueError, match=r"there is no|is named"):
        find_exercise(name)


# --- Variants ------------------------------------------------------------------------------------------------------------------


class TestVariants:
    def test_without_a_key_it_is_the_public_one(self):
        assert variants.variant_for(DOUBLE) == {"factor": 2, "unused": "a"}

    def test_a_key_draws_each_but_the_public_one(self):
        drawn = {tuple(variants.variant_for(DOUBLE, f"key number {i:06}").values()) for i in range(100)}
        assert drawn == {(2, "b"), (2, "c"), (3, "a"), (3, "b"), (3, "c")}

    def test_the_same_key_draws_the_same(self):
        assert variants.variant_for(DOUBLE, KEY) == variants.variant_for(DOUBLE, KEY)
        assert variants.hidden_seed(DOUBLE, KEY) == variants.hidden_seed(DOUBLE, KEY)

    def test_hidden_seeds_differ_by_key_and_exercise(self):
        exercises = [exercise for name in NAMES for exercise in find_assignment(name).exercises]
        seeds = [variants.hidden_seed(exercise, key) for exercise in exercises for key in (None, KEY, KEY + "2")]
        assert len(set(seeds)) == len(seeds) and 0 not in seeds

    @pytest.mark.parametrize("draw", [variants.variant_for, variants.hidden_seed])
    def test_a_key_that_could_be_guessed_is_refused(self, draw):
        with pytest.raises(ValueError, match="could be guessed: make one with"):
            draw(DOUBLE, "secret")


# --- Templates -----------------------------------------------------------------------------------------------------------------

SCRIPT = """# %% [markdown] id="title"
# # Title
#
# Text.

# %% id="double" role="answer"
def double(x):
    ### BEGIN SOLUTION
    return 2 * x
    ### END SOLUTION

# %% id="double-visible" role="visible"
1.0

# %% id="double-hidden" role="hidden"
1.0
"""
TOY = Assignment("a0_toy", "Toy", (DOUBLE,), ())


class TestTemplates:
    def test_a_script_becomes_cells(self):
        notebook = source._notebook(SCRIPT, TOY)
        assert [cell.id for cell in notebook.cells] == ["title", "double", "double-visible", "double-hidden"]
        assert notebook.cells[0].source == "# Title\n\nText."
        assert [cell.metadata.nbgrader.get("points") for cell in notebook.cells[1:]] == [None, 3, 5]

    @pytest.mark.parametrize(
        ("old", "new", "told"),
        [
            ('role="answer"', 'role="anser"', "roles are"),
            ('id="double" ', "", "no head of a cell"),
            ("# Text.", "Text.", "begins with"),
            ('# %% id="double-visible" role="visible"\n1.0\n', "", "in this order"),
            ('id="double-visible" role="visible"', 'id="double-visible" role="hidden"', "has no exercise"),
            ('# %% [markdown] id="title"', '# %% [markdown] id="title" role="setup"', "all other roles are code"),
            ('# %% [markdown] id="title"', 'x = 1\n# %% [markdown] id="title"', "before the first"),
        ],
    )
    def test_a_script_that_makes_no_assignment_is_refused(self, old, new, told):
        assert old in SCRIPT
        with pytest.raises(source.SourceError, match=told):
            source._notebook(SCRIPT.replace(old, new), TOY)


# --- What is committed and what a key releases -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """The open practice, built into a temporary folder."""
    folder = tmp_path_factory.mktemp("open")
    with contextlib.redirect_stdout(io.StringIO()):
        release(folder)
    return folder


@pytest.fixture(scope="module")
def keyed(tmp_path_factory):
    """What a key releases."""
    folder = tmp_path_factory.mktemp("keyed")
    release(folder, KEY)
    return folder


@pytest.fixture(scope="module", params=["built", "keyed"])
def course(request):
    return request.getfixturevalue(request.param)


class TestCommitted:
    def test_it_is_what_the_templates_give(self, built):
        assert not files_that_differ(built, ROOT), "run `make release`"

    def test_the_readme_lists_it_with_its_minutes_and_points(self):
        text = (ROOT / "exercises" / "README.md").read_text()
        for name in NAMES:
            assignment = find_assignment(name)
            minutes = sum(each.minutes for each in (*assignment.exercises, *assignment.written))
            assert re.search(rf"^\| \[{name}\].*\| {minutes} \| {assignment.points:g} \|$", text, re.MULTILINE), name


@pytest.mark.parametrize("name", NAMES)
class TestRelease:
    def test_a_stub_is_the_solution_with_holes(self, course, name):
        assert not cells_without_holes(*(read(course, kind, name) for kind in KINDS))

    def test_it_gives_nothing_away(self, course, name):
        assert not leaks(*(read(course, kind, name) for kind in KINDS))

    def test_nothing_but_the_notebook_lies_beside_it(self, course, name):
        for kind in KINDS:
            assert [path.name for path in (course / kind / name).iterdir()] == [f"{name}.ipynb"]

    def test_it_is_a_clean_notebook_with_readable_names(self, course, name):
        for kind in KINDS:
            notebook = read(course, kind, name)
            nbformat.validate(notebook)
            assert not odd_metadata(notebook)
            for cell in notebook.cells:
                assert re.fullmatch(r"[a-z][a-z0-9]*(-[a-z0-9]+)*", cell.id)

    def test_every_test_cell_ends_in_the_points(self, course, name):
        for cell in read(course, "solutions", name).cells:
            if role(cell) == TEST:
                code = [line for line in cell.source.splitlines() if line and not line.startswith("#")]
                assert re.fullmatch(rf'grading\.check\("{name}/\w+", globals\(\).*\)', code[-1])

    def test_the_opening_states_minutes_difficulty_and_points(self, course, name):
        opening = "\n".join(cell.source for cell in read(course, "exercises", name).cells[:1])
        assignment = find_assignment(name)
        for each in (*assignment.exercises, *assignment.written):
            assert re.search(rf"\| {each.minutes} \| [●○]{{3}} \| {each.points:g}\b", opening), each.title
        assert 4 <= len(assignment.exercises) <= 6 and len(assignment.written) == 1

    def test_another_key_releases_other_notebooks(self, built, keyed, name):
        for kind in KINDS:
            assert read(built, kind, name) != read(keyed, kind, name)
        hidden = [
            {
                re.search(r"seed=(\d+)", cell.source)[1]
                for cell in read(folder, "solutions", name).cells
                if cell.id.endswith("-hidden")
            }
            for folder in (built, keyed)
        ]
        assert len(hidden[0]) == len(find_assignment(name).exercises) and not hidden[0] & hidden[1]


class TestBroken:
    """The checks above notice a release that was broken on purpose."""

    NAME = NAMES[0]

    @pytest.fixture
    def pair(self, built):
        """The source and the release, for a test to break."""
        return [read(built, kind, self.NAME) for kind in KINDS]

    def cell(self, notebook, name):
        return next(cell for cell in notebook.cells if cell.id == name)

    @pytest.mark.parametrize(
        ("damage", "found"),
        [
            (lambda path: path.write_text(path.read_text().replace("YOUR CODE HERE", "YOUR CODE", 1)), ["{0}"]),
            (lambda path: path.unlink(), ["{0}"]),
            (lambda path: path.with_name("data.csv").write_text("1"), ["{1}/data.csv"]),
            (lambda path: path.with_name("README.md").write_text("# Notes"), []),
        ],
        ids=["one word is old", "a notebook is missing", "a file too many", "notes are no part of it"],
    )
    def test_a_stale_release(self, built, tmp_path, damage, found):
        for kind in KINDS:
            shutil.copytree(built / kind, tmp_path / kind)
        assert not files_that_differ(built, tmp_path)
        notebook = tmp_path / "exercises" / self.NAME / f"{self.NAME}.ipynb"
        damage(notebook)
        place = notebook.relative_to(tmp_path).as_posix()
        assert files_that_differ(built, tmp_path) == [each.format(place, place.rpartition("/")[0]) for each in found]

    def test_a_solution(self, pair):
        source, released = pair
        for own in ("### BEGIN SOLUTION", "### END SOLUTION", ""):
            # As it is in the source, with one of the marks, and without any.
            answer = self.cell(source, "tardis").source
            self.cell(released, "tardis").source = "\n".join(
                line for line in answer.splitlines() if "###" not in line or line.strip() == own
            )
            assert cells_without_holes(*pair) == ["cell tardis is not the source's with holes"]
            told = leaks(*pair)
            assert any(each.startswith("a line of cell tardis") for each in told)
            assert bool(own) == any("SOLUTION" in each for each in told)

    @pytest.mark.parametrize("place", ["source", "outputs", "metadata"])
    def test_a_hidden_test(self, pair, place):
        source, released = pair
        (line,) = [each for each in self.cell(source, "tardis-hidden").source.splitlines() if "hidden=True" in each]
        cell = self.cell(released, "tardis-visible")
        if place == "source":
            cell.source += f"\n{line}"
        elif place == "outputs":
            cell.outputs = [nbformat.v4.new_output("stream", text=line)]
        else:
            cell.metadata["note"] = line
        told = leaks(*pair)
        assert f"a line of cell tardis-hidden: {line}" in told and "'hidden=True' stands in it" in told
        assert bool(cells_without_holes(*pair)) == (place == "source")
        assert bool(odd_metadata(released)) == (place != "source")

    def test_a_model_answer_and_a_mark_scheme(self, pair):
        source, released = pair
        (written,) = find_assignment(self.NAME).written
        self.cell(released, written.name.replace("_", "-")).source = self.cell(
            source, written.name.replace("_", "-")
        ).source
        assert "'Mark scheme' stands in it" in leaks(*pair) and cells_without_holes(*pair)

    def test_metadata_of_a_pairing(self, pair):
        _, released = pair
        released.metadata["jupytext"] = {"formats": "ipynb,py:percent"}
        self.cell(released, "tardis").metadata["lines_to_next_cell"] = 2
        assert odd_metadata(released) == [
            "jupytext in the notebook's metadata", "lines_to_next_cell in the metadata of cell tardis",
        ]  # fmt: skip

    def test_a_notebook_that_was_run(self, pair):
        self.cell(pair[1], "setup").execution_count = 1
        assert odd_metadata(pair[1]) == ["cell setup was run"]

    def test_a_stub_that_is_not_the_solution_with_holes(self, pair):
        _, released = pair
        first, second = (released.cells.index(self.cell(released, name)) for name in ("tardis", "expdis"))
        released.cells[first].source += "\n# an old hint"
        self.cell(released, "tardis-hidden").metadata.nbgrader["locked"] = False
        assert cells_without_holes(*pair) == [
            f"cell {name} is not the source's with holes" for name in ("tardis", "tardis-hidden")
        ]
        released.cells[first], released.cells[second] = released.cells[second], released.cells[first]
        assert cells_without_holes(*pair) == ["the cells differ: in their order"]
        del released.cells[first]
        assert cells_without_holes(*pair) == ["the cells differ: expdis"]


class TestWhereAReleaseMayGo:
    @pytest.mark.parametrize("inside", [".", "build/course", "exercises", "notebooks/../build/x"])
    def test_with_a_key_not_into_the_repository(self, inside):
        with pytest.raises(ValueError, match="lies in the repository, which is public"):
            release(ROOT / inside, KEY)
        assert not [path for path in (ROOT / "build").glob("*/solutions") if path.parent.name in ("course", "x")]

    def test_not_through_a_link_either(self, tmp_path):
        link = tmp_path / "course"
        link.symlink_to(ROOT / "build", target_is_directory=True)
        with pytest.raises(ValueError, match="lies in the repository"):
            release(link, KEY)

    @pytest.mark.parametrize("key", [KEY, None])
    def test_not_into_a_folder_with_other_things(self, tmp_path, key):
        (tmp_path / "thesis.tex").write_text("words")
        with pytest.raises(ValueError, match="is not empty and holds no coursework"):
            release(tmp_path, key)
        assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]

    def test_a_release_may_be_made_again(self, tmp_path):
        for _ in range(2):
            (path,) = release(tmp_path, KEY, NAMES[:1])
        assert path.is_file()

    def test_the_command_says_why(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("DEVIL_COURSE_KEY", KEY)
        (tmp_path / "thesis.tex").write_text("words")
        for out, words in ((ROOT / "build" / "course", "lies in the repository"), (tmp_path, "is not empty")):
            assert command.main(["release", "--out", str(out)]) == 2
            told = capsys.readouterr().err
            assert words in told and KEY not in told

    @pytest.mark.parametrize("target", ["release", "challenge", "audit"])
    def test_make_hands_folder_and_key_on(self, target):
        """The key through the environment: what a command line holds, every user of the machine can read."""

        def told(*more: str, **environment: str) -> str:
            # The tests may have been started by make themselves, which leaves word for makes within it.
            around = {name: value for name, value in os.environ.items() if not name.startswith("MAKE")}
            run = ["make", "--no-print-directory", "-o", ".venv/.installed", target, "OUT=some where", *more]
            made = subprocess.run(
                run, cwd=ROOT, env={**around, **environment}, capture_output=True, text=True, timeout=60
            )
            return made.stdout

        for given in (told("-n", KEY=KEY), told("-n", f"KEY={KEY}")):
            assert f'.venv/bin/python -m devil_lib.grading {target} --out "some where"' in " ".join(given.split())
            assert KEY not in given
        shows_it = "VPY=sh -c 'printenv DEVIL_COURSE_KEY' --"
        assert told(shows_it, KEY=KEY).strip() == told(shows_it, f"KEY={KEY}").strip() == KEY


class TestCommand:
    def test_a_key_comes_from_the_environment(self, tmp_path, monkeypatch, capsys):
        asked = []
        monkeypatch.setattr(command, "release", lambda folder, key, names: asked.append((folder, key, names)) or [])
        monkeypatch.setenv("DEVIL_COURSE_KEY", KEY)
        assert command.main(["release", "--out", str(tmp_path), "--assignment", NAMES[0]]) == 0
        assert command.main(["release"]) == 0
        monkeypatch.setenv("DEVIL_COURSE_KEY", "")
        assert command.main(["release"]) == 0
        assert asked == [(tmp_path, KEY, [NAMES[0]]), (ROOT.parent / "devil-coursework", KEY, []), (ROOT, None, [])]

    def test_what_is_refused_is_told(self, tmp_path, monkeypatch, capsys):
        monkeypatch.setenv("DEVIL_COURSE_KEY", "short")
        assert command.main(["release", "--out", str(tmp_path)]) == 2
        assert "could be guessed" in capsys.readouterr().err
        monkeypatch.delenv("DEVIL_COURSE_KEY")
        assert command.main(["release", "--out", str(tmp_path), "--assignment", "a9_none"]) == 2
        assert "there is no assignment 'a9_none'" in capsys.readouterr().err
