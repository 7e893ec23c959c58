# Each command does all its own set-up in .venv:
#
#     make demo    train small models on real data; ends with the path of an HTML report
#     make test    lint, types, the import rule and every test
#     make quick   lint, types and the rules of the house; LOSS=focal: and every test of that loss
#     make docs    build the site; a warning is an error
#     make site    build it, and serve it at http://localhost:8000
#     make clean   remove .venv, build and caches; reports in runs stay

PYTHON ?= python3
OPTIONS ?= # of pytest, in `make test`
RECIPES ?= classification language audio # `make demo RECIPES=` trains every one
RULES := tests/test_rooms.py tests/test_public_api.py tests/loss/test_rules.py tests/loss/test_vocabulary.py
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet

.PHONY: help demo test quick docs site clean

help:
	@sed -n 's/^# *//p' Makefile

demo: $(VENV)/recipes.done
	@$(BIN)/aptt train $(RECIPES)

test: $(VENV)/dev.done
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo
	$(BIN)/pytest -n 2 $(OPTIONS)

quick: $(VENV)/dev.done
	$(BIN)/ruff check --quiet
	$(BIN)/ruff format --check --quiet
	$(BIN)/mypy --no-error-summary
	$(BIN)/lint-imports --no-logo >/dev/null || $(BIN)/lint-imports
	$(BIN)/pytest -q -n 2 $(if $(LOSS),tests -k "$(LOSS) and not nothing_is_found",$(RULES)) $(OPTIONS)

docs: $(VENV)/docs.done
	@echo "Building the site, a page for each loss: some minutes ..."
	$(BIN)/python -m docs.builder site build/site

site: docs
	$(BIN)/python -m http.server --directory build/site

clean:
	rm -rf $(VENV) build .mypy_cache .pytest_cache .ruff_cache .import_linter_cache

$(VENV)/recipes.done: EXTRAS := recipes,audit
$(VENV)/dev.done: EXTRAS := dev,recipes,docs,integrations
$(VENV)/docs.done: EXTRAS := docs,recipes
$(VENV)/recipes.done $(VENV)/dev.done $(VENV)/docs.done: pyproject.toml constraints.txt
	@echo "Setting up $(VENV) with torch and aptt[$(EXTRAS)]; 1.4 to 2.2 GB, or 4 GB more where pip picks torch with CUDA; some minutes ..."
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --constraint constraints.txt --editable ".[$(EXTRAS)]"
	@du -sh $(VENV) | awk '{print "Ready: " $$1 " in $(VENV); for `aptt` in this shell: . $(VENV)/bin/activate"}'
	@touch $@
