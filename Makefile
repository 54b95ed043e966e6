# The commands of the course. GNU make and a POSIX shell; `make help` lists them.

PYTHON  ?= python3
PROFILE ?= quick
LESSON  ?=
ARGS    ?=
KEY     ?=
OUT     ?=
ROSTER  ?=

VENV   := .venv
VPY    := $(VENV)/bin/python
STAMP  := $(VENV)/.installed
START  := notebooks/00_start_here.ipynb

# Tests of one file run in one process (PARALLEL= runs all in one).
PARALLEL ?= -n logical --maxprocesses 4 --dist loadgroup --no-loadscope-reorder

# Without a screen there is no browser to open: the address is printed instead.
ifeq ($(shell uname -s),Linux)
  ifeq ($(strip $(DISPLAY)$(WAYLAND_DISPLAY)),)
    LAB_FLAGS += --no-browser
  endif
endif
# JupyterLab refuses to run for the superuser (in a container, say) unless told that this is meant.
ifeq ($(shell id -u),0)
  LAB_FLAGS += --allow-root
endif

.PHONY: help lab test course weights bench matrix neighbours sweep release challenge audit class grades env clean
.DEFAULT_GOAL := help

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-10s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

lab: $(STAMP) ## open the course in JupyterLab (prints the address where there is no screen)
	@$(VPY) -m jupyterlab $(LAB_FLAGS) --LabApp.default_url=/lab/tree/$(START) \
	  --LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate --LabApp.news_url=None $(ARGS)

test: $(STAMP) ## run every test, notebooks included (ARGS="-k lesson" is handed to pytest)
	@$(VPY) -m pytest $(PARALLEL) $(ARGS)

course: $(STAMP) ## run the lessons and write build/course/index.html (PROFILE=quick|lab|full, LESSON=22_red)
	@$(VPY) -m devil_lib.course run --profile "$(PROFILE)" $(if $(LESSON),--lesson "$(LESSON)") $(ARGS)

weights: $(STAMP) ## train the shipped weights again
	@$(VPY) -m devil_lib.zoo $(ARGS)

bench: $(STAMP) ## measure attacks, inspections and sanitizers on many generators (over an hour; goes on where it stopped)
	@$(VPY) -m devil_lib.bench $(ARGS)

matrix: $(STAMP) ## measure five generators x attacks x inspections x sanitizers (hours; goes on where it stopped; SCHEDULER=address)
	@$(VPY) -m devil_lib.matrix $(ARGS)

neighbours: $(STAMP) ## measure thieves of a GAN and poisoned training sets (hours; goes on where it stopped; SCHEDULER=address)
	@$(VPY) -m devil_lib.neighbours $(ARGS)

sweep: $(STAMP) ## run the lessons over several seeds and store the spread of their claims
	@$(VPY) -m devil_lib.course.sweep $(if $(LESSON),--lesson "$(LESSON)") $(ARGS)

# Through the environment: every user of the machine can read a command line.
release challenge audit: export DEVIL_COURSE_KEY := $(KEY)

release: $(STAMP) ## build the graded coursework (KEY=... draws variants into OUT=..., outside the repository)
	@$(VPY) -m devil_lib.grading release $(if $(OUT),--out "$(OUT)") $(ARGS)

challenge: $(STAMP) ## a set of unknown checkpoints for each student of the capstone (ROSTER=roster.csv KEY=... OUT=...)
	@$(VPY) -m devil_lib.grading challenge $(if $(ROSTER),--roster "$(ROSTER)") $(if $(OUT),--out "$(OUT)") $(ARGS)

audit: $(STAMP) ## after autograding: points for the capstone's verdicts (ROSTER=roster.csv KEY=... OUT=...)
	@$(VPY) -m devil_lib.grading audit $(if $(ROSTER),--roster "$(ROSTER)") $(if $(OUT),--out "$(OUT)") $(ARGS)

class: $(STAMP) ## rehearse a term with simulated students, and compare their points with the expected ones
	@$(VPY) -m devil_lib.grading.term $(ARGS)

grades: $(STAMP) ## export the grades for nbgrader, Canvas and Moodle, with an item analysis (ARGS="--course FOLDER")
	@$(VPY) -m devil_lib.grading.grades $(ARGS)

env: $(STAMP) ## make the environment in .venv, or bring it up to date

clean: ## remove what the commands above made, apart from the environment
	rm -rf build .pytest_cache .ruff_cache

# The stamp is written last, so that an interrupted installation is taken up again by the next call.
$(STAMP): pyproject.toml .pins.txt
	@rm -f $@
	@version=$$($(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null) || version=; \
	if [ -z "$$version" ]; then \
	  echo "No Python answers to the name '$(PYTHON)': install Python 3.11 or newer," \
	    "or name one with PYTHON=/path/to/python3." >&2; exit 1; \
	fi; \
	if ! $(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then \
	  echo "Python 3.11 or newer is needed, but '$(PYTHON)' is Python $$version:" \
	    "install a newer one, or name one with PYTHON=/path/to/python3." >&2; exit 1; \
	fi
	@if ! $(VPY) -m pip --version >/dev/null 2>&1; then \
	  echo "Making the environment in $(VENV) ..."; \
	  $(PYTHON) -m venv --clear $(VENV) || { \
	    echo "'$(PYTHON) -m venv' failed; on Debian and Ubuntu the package python3-venv brings it." >&2; exit 1; }; \
	fi
	@echo "Installing the pinned packages (the first time: a few minutes, about 6 GB of disk) ..."
	@$(VPY) -m pip install --quiet --disable-pip-version-check -c .pins.txt -e '.[test]'
	@touch $@
