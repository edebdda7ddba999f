# Every target needs Python 3.11 or newer and make; what else it needs is installed into .venv first.
# PYTHON makes the virtual environment. PY runs things: name an interpreter that has everything, and no .venv is made.
PYTHON ?= python3
PY ?= .venv/bin/python
BUDGET ?= 25min
SELECT ?=
WORKERS ?= 2
DATA_DIR ?=

# What slow tests need that is no Python package, as Debian calls it.
PROGRAMS := chromium munge slurm-wlm texlive-latex-recommended

ready := $(if $(filter .venv/bin/python,$(PY)),.venv/installed)
pytest := OMP_NUM_THREADS=1 $(PY) -m pytest -n $(WORKERS) --dist worksteal
data := $(if $(DATA_DIR),--data-dir "$(DATA_DIR)")

.PHONY: help
help: ## list the targets
	@sed -n 's/^\([a-z-]*\): .*## /\1\t/p' Makefile | expand -t 14
	@echo "Variables: PYTHON=$(PYTHON) PY=$(PY) BUDGET=$(BUDGET) WORKERS=$(WORKERS) DATA_DIR=$(DATA_DIR)"

.PHONY: install
install: $(ready) ## make .venv with everything, and nothing else

.PHONY: reproduce
reproduce: $(ready) ## run the study quick, every measurement of every arm, into runs/ (minutes)
	$(PY) run_ablation.py

.PHONY: lint
lint: $(ready) ## lint, format and types
	$(PY) -m ruff check
	$(PY) -m ruff format --check
	$(PY) -m mypy

.PHONY: test
test: $(ready) ## the tests that take no long time, in WORKERS processes of one thread each
	$(pytest)

.PHONY: test-slow
test-slow: $(ready) programs ## the tests that `test` leaves out: notebooks, kills, all counts of MACs, the page, LaTeX
	$(pytest) -m slow

.PHONY: programs
programs: ## install Chromium, LaTeX and Slurm, which slow tests need, where this is root on Debian
	@if command -v chromium && command -v pdflatex && command -v sbatch && command -v munge; then :; \
	elif [ "$$(id -u)" = 0 ] && command -v apt-get >/dev/null; then \
	  export DEBIAN_FRONTEND=noninteractive; \
	  { apt-get update -q && apt-get install -q -y --no-install-recommends $(PROGRAMS); } || \
	    echo "$(PROGRAMS) could not be installed; tests that need them say so" >&2; \
	else echo "Chromium, LaTeX or Slurm is missing: tests that need it are skipped ($(PROGRAMS) on Debian)" >&2; fi

.PHONY: gpu-results
gpu-results: $(ready) ## fill the GPU cells that results/ lacks, accuracy first, BUDGET a study; DATA_DIR holds the images
	for study in imagenette confounders fashion-mnist further gpu; do \
	  $(PY) run_ablation.py run $$study --devices cuda --results results --time-budget $(BUDGET) $(data) $(SELECT) || exit; done

.PHONY: results
results: $(ready) ## fill the CPU cells that results/ lacks, study by study, trainings from DATA_DIR (hours)
	$(PY) run_ablation.py run paper --results results
	$(PY) run_ablation.py run counters --results results
	$(PY) run_ablation.py run memory --results results
	$(PY) run_ablation.py run speed --results results
	$(PY) run_ablation.py run quick --devices cpu --results results
	$(PY) run_ablation.py run comparison --devices cpu --results results
	$(PY) run_ablation.py run speed-b2 --devices cpu --results results
	for study in tuning-digits digits tuning-fashion-mnist fashion-mnist tuning-imagenette imagenette confounders camvid bccd; do \
	  $(PY) run_ablation.py run $$study --devices cpu --results results $(data) || exit; done

.PHONY: report-check
report-check: $(ready) ## fail if a table or figure in results/ is not what its records give
	$(PY) run_ablation.py report --check --results results

.PHONY: notebooks
notebooks: $(ready) ## run the notebooks anew, where records or figures have changed
	ABLATIONS_UPDATE_NOTEBOOKS=1 $(PY) -m pytest -m slow tests/test_notebooks.py

.PHONY: clean
clean: ## remove .venv and all caches; measurements stay
	rm -rf .venv build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache
	find ablations tests -name __pycache__ -prune -exec rm -rf {} +

.venv/installed: pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version.split()[0]; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed, and $(PYTHON) is " + v + "; name another: make PYTHON=python3.12")'
	@echo "Installing into .venv: several minutes, and on Linux about 6 GB"
	$(PYTHON) -m venv .venv
	.venv/bin/python -m pip install --editable ".[counters,notebook,slurm,test]" --constraint constraints.txt
	@touch $@
