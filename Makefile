# Two commands for everybody: `make run` and `make test`. The rest is for people who change the code.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
export AXPRESS_WERROR ?= 1

SOURCES := $(wildcard csrc/*.[ch] csrc/emu/*.[ch] csrc/emu/*.inc core/*.pyx core/*.pxd) setup.py pyproject.toml

.PHONY: run test build lint sanitize wheel clean

run: $(VENV)/.run ## a server with the demo model on the emulated card, http://127.0.0.1:8000
	$(BIN)/axpress serve

test: $(VENV)/.test ## everything that CI runs
	$(BIN)/pytest

$(VENV)/.run: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.test: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet torch==2.13.0
	$(BIN)/python -m pip install --quiet --editable '.[test,lint]'
	touch $@ $(VENV)/.run

build: ## extensions and emulator in place, into whatever environment is active
	mkdir -p build && flock build/.lock $(PYTHON) setup.py -q build_ext --inplace

lint: $(VENV)/.test
	$(BIN)/ruff check .
	MYPYPATH=build/pxd $(BIN)/mypy -p axpress.core -p axpress.server
	$(BIN)/cython-lint core/*.pyx core/*.pxd

SANITIZED := build/sanitize
sanitize: $(VENV)/.test ## the core and the emulator under AddressSanitizer and UBSan, driven by their own tests
	AXPRESS_SANITIZE=address,undefined $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib
	LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	AXPRESS_SANITIZED=1 PYTHONPATH=$(SANITIZED)/lib $(BIN)/pytest -q -p no:cacheprovider tests/test_step.py tests/test_program.py tests/test_engine.py

wheel: $(VENV)/.run
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

clean:
	rm -rf build dist $(VENV) core/*.so core/lib/*.so *.egg-info
