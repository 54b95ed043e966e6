"""pyproject.toml, environment.yml and .pins.txt say the same, and what is installed is what they say."""

import ast
import importlib.metadata
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
OWN = canonicalize_name(PROJECT["name"])


def exact(requirement: str) -> tuple[str, str]:
    """ "Jinja2==3.1.6" -> ("jinja2", "3.1.6"); anything but one exact version is refused."""
    match = re.fullmatch(r"([A-Za-z0-9._-]+)==([A-Za-z0-9.!+]+)", requirement)
    assert match, f"{requirement!r} is not of the form name==version"
    return canonicalize_name(match[1]), match[2]


def direct() -> dict[str, str]:
    listed = [
        *PROJECT["dependencies"],
        *(line for part in PROJECT["optional-dependencies"].values() for line in part),
    ]
    versions = dict(map(exact, listed))
    assert len(versions) == len(listed), "a package is listed twice"
    return versions


def pins() -> dict[str, str]:
    return dict(map(exact, (ROOT / ".pins.txt").read_text().splitlines()))


def same_version(installed: str, wanted: str) -> bool:
    """A build for one kind of accelerator adds a local part, as in 2.15.0+cpu, which is the same release."""
    return Version(installed).public == Version(wanted).public


def test_the_pins_are_one_sorted_line_each():
    names = [exact(line)[0] for line in (ROOT / ".pins.txt").read_text().splitlines()]
    assert len(set(names)) == len(names)
    written = [line.split("==")[0].lower() for line in (ROOT / ".pins.txt").read_text().splitlines()]
    assert written == sorted(written)
    assert OWN not in names


def test_the_pins_hold_what_the_project_asks_for():
    assert direct().items() <= pins().items()


def test_conda_gives_the_same_versions():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    *packages, last = environment["dependencies"]
    python = next(line for line in packages if line.startswith("python="))
    lowest = PROJECT["requires-python"].removeprefix(">=")
    assert Version(python.removeprefix("python=")) >= Version(lowest)
    assert "pip" in packages
    options = [line for line in last["pip"] if line.startswith("-")]
    assert options == ["-c .pins.txt", "-e ."]
    assert dict(exact(line) for line in last["pip"] if not line.startswith("-")) == direct()


def test_none_of_them_names_a_host_or_a_folder():
    for name in (".pins.txt", "environment.yml", "pyproject.toml", "Makefile"):
        text = (ROOT / name).read_text()
        assert "://" not in text, f"{name} names a host"
        assert not re.search(r"index-url|find-links|trusted-host|(^|\s)/(home|root|work|Users|tmp)/", text), name


def test_every_pinned_package_that_is_installed_has_its_version():
    wrong = {}
    for name, version in pins().items():
        try:
            installed = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            # Another platform needs fewer packages; those that the project names itself it always needs.
            assert name not in direct(), f"{name} is not installed: run `make env`"
            continue
        if not same_version(installed, version):
            wrong[name] = f"{installed} instead of {version}"
    assert not wrong, f"run `make env`: {wrong}"


@pytest.mark.skipif(sys.platform != "linux", reason="other platforms need packages that Linux does not")
def test_every_package_that_is_needed_is_pinned():
    needed, queue = set(), [(OWN, "test"), *((name, "") for name in direct())]
    while queue:
        name, extra = queue.pop()
        for line in importlib.metadata.requires(name) or ():
            requirement = Requirement(line)
            if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
                continue
            found = canonicalize_name(requirement.name)
            for wanted in ("", *requirement.extras):
                if (found, wanted) not in needed:
                    needed.add((found, wanted))
                    queue.append((found, wanted))
    missing = {name for name, _ in needed} - pins().keys()
    assert not missing, f"not in .pins.txt: {sorted(missing)}"


def test_every_package_that_is_imported_is_asked_for():
    providers = importlib.metadata.packages_distributions()
    imported = {}
    for folder in ("devil_lib", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                if isinstance(node, ast.Import):
                    names = [alias.name for alias in node.names]
                elif isinstance(node, ast.ImportFrom) and node.level == 0:
                    names = [node.module]
                else:
                    continue
                imported.update({name.split(".")[0]: path.relative_to(ROOT) for name in names})
    unknown = {
        name: str(path)
        for name, path in imported.items()
        if name not in sys.stdlib_module_names
        and name not in ("devil_lib", "tests")
        and not (ROOT / "tests" / f"{name}.py").exists()
        and not {canonicalize_name(provider) for provider in providers.get(name, ())} & direct().keys()
    }
    assert not unknown, f"imported but not among the project's dependencies: {unknown}"


def make(*arguments: str, folder: Path = ROOT) -> subprocess.CompletedProcess:
    return subprocess.run(["make", "-C", str(folder), *arguments], capture_output=True, text=True, timeout=60)


@pytest.fixture
def clone(tmp_path) -> Path:
    """The files that `make` needs, in a folder where nothing is installed."""
    for name in ("Makefile", "pyproject.toml", ".pins.txt"):
        (tmp_path / name).write_bytes((ROOT / name).read_bytes())
    return tmp_path


@pytest.mark.skipif(sys.platform == "win32", reason="Windows goes through conda")
class TestMake:
    def test_help_lists_every_target(self):
        lines = make("help").stdout.splitlines()
        listed = {match[1]: match[2] for line in lines if (match := re.match(r"\s+make (\w+)\s+(\S.*)", line))}
        phony = re.search(r"^\.PHONY: (.+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        assert set(phony) == listed.keys() >= {"help", "lab", "test", "course", "weights", "bench", "sweep", "env"}
        assert make().stdout == make("help").stdout

    def test_a_missing_or_older_python_gets_one_sentence(self, clone):
        absent = make("env", "PYTHON=no-such-python", folder=clone)
        assert absent.returncode != 0
        assert "No Python answers to the name 'no-such-python': install Python 3.11 or newer" in absent.stderr
        old = clone / "old"
        old.write_text('#!/bin/sh\ncase "$2" in *print*) echo 3.9 ;; *) exit 1 ;; esac\n')
        old.chmod(0o755)
        older = make("env", f"PYTHON={old}", folder=clone)
        assert older.returncode != 0
        assert re.search(r"Python 3\.11 or newer is needed, but '.*old' is Python 3\.9", older.stderr)
        assert not (clone / ".venv").exists()

    def test_an_installation_is_stamped_only_when_it_is_whole(self, clone):
        # A Python whose pip fails at first and then works, and which notes what it was asked to install.
        log, python = clone / "log", clone / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(
            f'#!/bin/sh\necho "$@" >> "{log}"\ncase "$*" in *install*) test -e "{clone}/works" ;; esac\n'
        )
        python.chmod(0o755)
        stamp = clone / ".venv" / ".installed"
        assert make("env", f"PYTHON={sys.executable}", folder=clone).returncode != 0
        assert not stamp.exists()
        (clone / "works").touch()
        assert make("env", f"PYTHON={sys.executable}", folder=clone).returncode == 0
        assert stamp.exists()
        assert "-c .pins.txt -e .[test]" in log.read_text()

        log.write_text("")
        assert make("env", f"PYTHON={sys.executable}", folder=clone).returncode == 0
        assert log.read_text() == "", "a second call installs nothing"
        for name in ("pyproject.toml", ".pins.txt"):
            later = stamp.stat().st_mtime + 10
            os.utime(clone / name, (later, later))
            make("env", f"PYTHON={sys.executable}", folder=clone)
            assert "install" in log.read_text(), f"a changed {name} is installed"
            os.utime(clone / name, (1, 1))
            log.write_text("")

    def test_lab_opens_the_first_lesson(self):
        screenless = {key: value for key, value in os.environ.items() if key not in ("DISPLAY", "WAYLAND_DISPLAY")}
        for environment, there in ((screenless, True), (screenless | {"DISPLAY": ":0"}, False)):
            dry = subprocess.run(
                ["make", "-C", str(ROOT), "-n", "-o", ".venv/.installed", "lab"],
                capture_output=True, text=True, env=environment, timeout=60,
            ).stdout  # fmt: skip
            assert "notebooks/00_start_here.ipynb" in dry
            if sys.platform == "linux":
                assert ("--no-browser" in dry) is there
            assert ("--allow-root" in dry) is (os.getuid() == 0)
