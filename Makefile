# Two commands are enough: `make demo` and `make test`. Both set up .venv first.
PYTHON ?= python3
BIN = .venv/bin
STAMP = .venv/.installed

.PHONY: setup demo test test-slow fuzz lint types docs browser clean

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[dev]'
	touch $(STAMP)

demo: $(STAMP)
	$(BIN)/facedistill demo --out demo-run

# One process a core, each with one thread: the tests are many and small.
test: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n auto --dist worksteal

test-slow: $(STAMP)
	$(BIN)/python -m pytest -m slow

# A hundred thousand mutants of all formats that are read; FUZZ=1000 for fewer.
FUZZ ?= 100000
fuzz: $(STAMP)
	OMP_NUM_THREADS=1 PYTHONPATH=tests/toys $(BIN)/python benchmarks/fuzzing.py $(FUZZ)

lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: $(STAMP)
	$(BIN)/mypy

# The site, build/site/index.html, from docs/ and the docstrings. A dead link or a page outside the menu fails it.
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

# The page that runs an exported student in a browser, build/browser. It needs npm, once; the site's copy gets its runtime too.
browser:
	$(PYTHON) .ci/browser.py

clean:
	rm -rf .venv build demo-run
