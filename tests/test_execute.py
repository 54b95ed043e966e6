"""Autograding that survives accidents: each costs its own cell, and a score is read as it was meant."""

import os
import subprocess

import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook, new_output
from tasks import Task, raise_key_error
from toy_coursework import graded

from devil_lib.grading import warm
from devil_lib.grading.execute import LOST, SturdyExecute, read_score, score_of
from devil_lib.grading.graders import GraderEnded, Graders

STUBBORN = """
import time

def wait():
    end = time.monotonic() + 600
    while time.monotonic() < end:
        try:
            time.sleep(1)
        except BaseException:
            pass
"""


def run(*sources: str, timeout: int = 30, **options) -> list:
    notebook = new_notebook(cells=[new_code_cell(source) for source in sources])
    notebook.metadata.kernelspec = {"display_name": "Python 3", "language": "python", "name": "python3"}
    executed, _ = SturdyExecute(timeout=timeout, startup_timeout=120, **options).preprocess(notebook, {})
    nbformat.validate(executed)
    return [outcome(cell) for cell in executed.cells]


def outcome(cell) -> str:
    """What a cell shows: its printed text and its value, or the name of its error."""
    errors = [output.ename for output in cell.outputs if output.output_type == "error"]
    if errors:
        return errors[-1]
    texts = (output.get("text") or output.get("data", {}).get("text/plain", "") for output in cell.outputs)
    return "".join(texts).strip()


class TestExecution:
    def test_a_dead_kernel_costs_one_cell(self):
        outcomes = run(
            "import os\ntimes = []\nold = 5",
            "times.append('first'); print(os.getpid())",
            "def fatal(): os._exit(1)",
            "lost = 7\nfatal()",
            "print(times, old)",
            "lost",
            "fatal()",
            "print(times)",
        )
        assert outcomes[3] == outcomes[6] == LOST
        assert outcomes[4] == "['first'] 5", "the earlier cells ran again, once each, without the culprit"
        assert outcomes[5] == "NameError"
        assert outcomes[7] == "['first']"
        assert outcomes[1].isdigit(), "what a cell gave the first time stands, and stands once"

    def test_loops_cost_one_cell_each(self):
        outcomes = run(
            "a = 1", "while True: pass", "a", STUBBORN, "wait()", "a + 1", "raise ValueError('no')", timeout=3
        )
        assert outcomes == ["", "CellTimeoutError", "1", "", LOST, "2", "ValueError"]

    def test_a_cell_that_is_lost_only_when_it_runs_again_keeps_what_it_gave(self, tmp_path):
        once = f"import os, pathlib\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\nif mark.exists(): os._exit(1)\n"
        outcomes = run("a = 1", once + "mark.touch(); 'fine'", "import os; os._exit(1)", "a")
        assert outcomes == ["", "'fine'", LOST, "1"]

    def test_a_kernel_that_ends_through_no_fault_of_the_cells_costs_nothing(self, tmp_path):
        once = (
            f"import os, pathlib\nmark = pathlib.Path({str(tmp_path / 'mark')!r})\nif not mark.exists():\n"
            "    print('first')\n    mark.touch()\n    os.abort()\n"
        )
        assert run("a = 1", once + "'fine'", "a") == ["", "'fine'", "1"], "the first try leaves no output"

    def test_endless_printing_is_cut(self):
        lines = "for i in range(200_000): print('line', i)"
        short, long, after = run("print('x' * 50)", lines, "'on'", max_characters=1000)
        assert len(short) == 50 and after == "'on'"
        assert 900 < len(long) <= 1000 and long.startswith("line 0\nline 1\n")

    def test_what_a_cell_started_ends_with_its_kernel(self):
        (number,) = run("import subprocess\nprint(subprocess.Popen(['sleep', '600'], start_new_session=True).pid)")
        assert not psutil.pid_exists(int(number))


LOADED = "import sys\nprint(*[name for name in ('torch', 'devil_lib.metrics', 'matplotlib.pyplot') if name in sys.modules])"


class TestWarmKernels:
    def test_modules_are_loaded_before_the_first_cell(self):
        loaded, parent, main = run(LOADED, "import os\nos.getppid()", "__name__, sys.argv[0]")
        assert loaded == "torch devil_lib.metrics matplotlib.pyplot"
        assert int(parent) == warm.kernel_server()._process.pid != os.getpid()
        assert main == "('__main__', 'ipykernel_launcher')"

    def test_a_kernel_holds_nothing_of_another(self):
        cells = (
            "import builtins, numpy as np",
            "print(hasattr(builtins, 'left'))\nbuiltins.left = 1",
            "np.random.rand()",
        )
        first, second = run(*cells), run(*cells)
        assert first[1] == second[1] == "False"
        assert first[2] != second[2], "as in kernels that start cold, the global random state differs"

    def test_a_kernel_has_the_environment_of_its_time(self, monkeypatch):
        for name in ("ada", "bob"):
            monkeypatch.setenv("OF_A_TEST", name)
            assert run("import os\nprint(os.environ['OF_A_TEST'])") == [name]
        monkeypatch.delenv("OF_A_TEST")
        assert run("import os\nprint('OF_A_TEST' in os.environ)") == ["False"]

    def test_kernels_can_start_processes(self):
        assert run("import subprocess, sys\nprint(subprocess.run([sys.executable, '-c', 'exit(3)']).returncode)") == [
            "3"
        ]

    def test_a_server_that_was_ended_is_replaced(self):
        run("1")
        before = warm.kernel_server()._process
        before.kill()
        before.wait()
        assert run("import os\nos.getppid()") == [str(warm.kernel_server()._process.pid)]
        assert warm.kernel_server()._process is not before

    def test_without_a_server_kernels_start_cold(self, monkeypatch):
        class NoServer:
            def start(self, *_):
                raise ConnectionError("none here")

        path = "import sys\nprint(sys.path)"
        (of_warm,) = run(path)
        monkeypatch.setattr(warm, "kernel_server", NoServer)
        loaded, parent, of_cold = run(LOADED, "import os\nos.getppid()", path)
        assert "torch" not in loaded and int(parent) == os.getpid()
        assert of_warm == of_cold, "modules are found in the same places"

    def test_a_server_that_cannot_start_is_said(self, monkeypatch):
        monkeypatch.setattr(warm.sys, "executable", "/bin/false")
        server = warm.KernelServer()
        with pytest.raises(OSError):  # which one depends on who is faster
            server.start([], {}, "/")
        assert server._process is None

    def test_kernels_end_with_the_server(self, tmp_path):
        server = warm.KernelServer()
        kernel = server.start(["-f", str(tmp_path / "kernel.json")], os.environ, str(tmp_path))
        assert kernel.poll() is None and psutil.Process(kernel.pid).cwd() == str(tmp_path)
        with pytest.raises(subprocess.TimeoutExpired):
            kernel.wait(0.01)
        server.close()
        kernel.wait(60)
        assert kernel.poll() == 0
        with pytest.raises(ProcessLookupError):
            kernel.kill()


# --- Processes that grade ---------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two():
    made = Graders(2)
    yield made
    made.close()


class TestGraders:
    def test_a_process_that_is_aborted_costs_its_task_a_second_try_and_no_other_one(self, two, tmp_path):
        tasks = {
            name: Task(tmp_path, name, deaths) for name, deaths in {"a": 0, "b": 1, "c": 0, "d": 2, "e": 0}.items()
        }
        done = dict(two.run(tasks))
        assert {name for name, result in done.items() if isinstance(result, GraderEnded)} == {"d"}
        assert all(done[name][0] == name and done[name][2] for name in "abce")
        assert [len(list(tmp_path.glob(f"{name} *"))) for name in "abcde"] == [1, 2, 1, 2, 1]

    def test_processes_stay(self, two, tmp_path):
        seen = [
            {pid for _, pid, _ in dict(two.run({i: Task(tmp_path, i) for i in range(9)})).values()} for _ in range(2)
        ]
        assert len(seen[0] | seen[1]) <= 2

    def test_an_error_of_a_task_is_raised(self, two):
        with pytest.raises(KeyError, match="a task's own"):
            list(two.run({"a": raise_key_error}))

    def test_none_at_a_time_is_refused(self):
        with pytest.raises(ValueError, match="at least 1"):
            Graders(0)


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("1.5", 1.5), ("3", 3.0), ("4.0", 4.0), ("0", 0.0),
        ("np.float64(1.0)", 1.0), ("np.int64(2)", 2.0), ("np.float32(0.25)", 0.25),
        ("np.True_", 4.0), ("np.False_", 0.0),
        ("array(1.5)", 1.5), ("tensor(2.)", 2.0), ("tensor(2.5000, dtype=torch.float64)", 2.5),
        ("array(0.5, dtype=float32)", 0.5),
        ("7.0", 4.0), ("np.float64(99.0)", 4.0), ("-1.0", 0.0), ("nan", 0.0), ("inf", 0.0), ("np.float64(nan)", 0.0),
        ("False", 0.0), ("True", 4.0), ("''", 0.0), ("[]", 0.0), ("None", 0.0),
        ("'well done'", None), ("[1.0, 2.0]", None), ("array([1., 2.])", None), ("tensor([1.])", None),
        ("<function f at 0x7f>", None),
    ],
)  # fmt: skip
def test_a_score_is_read_as_it_was_meant(text, score):
    assert read_score(text, 4.0) == score


class TestScoreOfACell:
    def cell(self, source, *outputs):
        cell = graded(source, 4)
        cell.outputs = list(outputs)
        return cell

    def result(self, text):
        return new_output("execute_result", data={"text/plain": text}, execution_count=1)

    def test_stderr_costs_nothing(self):
        noise = new_output("stream", name="stderr", text="UserWarning: slow")
        assert score_of(self.cell("check()", noise, self.result("3.0"))) == 3.0
        assert score_of(self.cell("assert 1 == 1", noise)) == 4.0

    def test_an_error_costs_all(self):
        error = new_output("error", ename="NameError", evalue="", traceback=[])
        assert score_of(self.cell("check()", self.result("3.0"), error)) == 0.0

    def test_the_last_value_is_the_score(self):
        assert score_of(self.cell("a\ncheck()", self.result("'text'"), self.result("1.0"))) == 1.0

    def test_without_a_value_a_person_looks(self):
        assert score_of(self.cell("check();")) is None
        assert score_of(self.cell("# only words")) == 4.0
        assert score_of(self.cell("check()", self.result("'text'"))) is None
