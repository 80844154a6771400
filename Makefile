# Two commands for everybody: `make run` and `make test`. The rest is for people who change the code.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
unexport PYTHONDONTWRITEBYTECODE # else each server under test compiles our sources again
export AXPRESS_WERROR ?= 1

SOURCES := $(wildcard csrc/*.[ch] csrc/emu/*/*.[ch] csrc/emu/*/*.inc csrc/emu/*.map core/*/*.pyx core/*/*.pxd) setup.py pyproject.toml

.PHONY: run test build lint docs bench native sanitize sanitized threads soak campaign real firefox tokenizers wheel wheels deb test-aarch64 clean help

MODEL := smollm2-135m
TORCH := $(if $(filter aarch64,$(shell uname -m)),2.9.1,2.13.0)# as in pyproject.toml; newer ones bring CUDA to aarch64

run: $(VENV)/.run ## a server with a small real model on the emulated card, http://127.0.0.1:8000
	@$(BIN)/axpress show $(MODEL) >/dev/null 2>&1 || $(BIN)/axpress pull $(MODEL) || true
	$(BIN)/axpress serve

# half as many processes again as there are cores: tests wait for servers and deadlines a third of their time
WORKERS := $(shell echo $$(( ($$(getconf _NPROCESSORS_ONLN) * 3 + 1) / 2 )))

test: $(VENV)/.test ## everything that CI runs
	$(BIN)/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder

$(VENV)/.run: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --editable '.[gguf,terminal]'
	touch $@

$(VENV)/.test: $(SOURCES)
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet 'torch==$(TORCH)'
	$(BIN)/python -m pip install --quiet --editable '.[test,lint,docs]'
	touch $@ $(VENV)/.run

build: ## extensions and emulator in place, into whatever environment is active
	mkdir -p build && flock build/.lock $(PYTHON) setup.py -q build_ext --inplace

lint: $(VENV)/.test docs ## style and types, and who may import whom: Python, Cython, C; the documents' links
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	MYPYPATH=build/pxd $(BIN)/mypy -p axpress.core -p axpress.server
	PATH="$(abspath $(BIN)):$$PATH" cython-lint core/*/*.pyx core/*/*.pxd
	$(BIN)/lint-imports --no-logo --no-cache
	$(BIN)/python tools/import_circles.py
	$(BIN)/python tools/c_layers.py

docs: $(VENV)/.test ## the documents as a site in build/site, every link checked; cli.md, metrics.md: tools/reference_pages.py
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict
	! grep -rnE '<(script|link|img|iframe)[^>]+(src|href)="?https?:' build/site --include='*.html'

bench: $(VENV)/.run ## under 10 minutes: how fast it is for people, emulated and modelled: table, picture, docs/benchmarks.md
	$(BIN)/python -m pip install --quiet matplotlib
	$(BIN)/python bench/people.py

native: ## one C test without sanitizers, in seconds: make native TEST=math (or mask, sampler, runtime, loading)
	$(MAKE) -s -C tests/native plain OUT=$(CURDIR)/build/native TEST=$(TEST) ARGS='$(ARGS)'

# LD_PRELOAD: Python itself is not sanitized. No leak check there (the interpreter keeps things), but in the native tests. No check of
# uses after return: gcc (bug 110027) misaligns vectors under it.
SANITIZED := build/sanitize
UNDER_SANITIZERS = LD_PRELOAD="$$($(CC) -print-file-name=libasan.so) $$($(CC) -print-file-name=libubsan.so)" \
	ASAN_OPTIONS=detect_leaks=0:allocator_may_return_null=1:detect_stack_use_after_return=0 UBSAN_OPTIONS=halt_on_error=1:print_stacktrace=1 \
	AXPRESS_SANITIZED=1 PYTHONPATH=$(CURDIR)/$(SANITIZED)/lib
SANITIZED_TESTS := $(addprefix core/device/test_,step program lifetime) emu/test_runtime_api \
	$(addprefix core/engine/test_,engine engine_failures constrained_answers)

sanitized: $(VENV)/.test
	AXPRESS_SANITIZE=address,undefined $(BIN)/python setup.py -q build --build-base $(SANITIZED) --build-lib $(SANITIZED)/lib

sanitize: sanitized ## the core and the emulator under AddressSanitizer, UBSan and ThreadSanitizer, driven by their own tests
	$(MAKE) -s -j -O -C tests/native address thread OUT=$(CURDIR)/$(SANITIZED)/native OBJECTS=$$(echo $(CURDIR)/$(SANITIZED)/temp.*/csrc)
	$(UNDER_SANITIZERS) $(BIN)/python -c 'import sys, axpress.core.device.step as s; sys.exit("$(SANITIZED)" not in s.__file__ and s.__file__)'
	$(UNDER_SANITIZERS) $(BIN)/pytest -q -p no:cacheprovider -p no:faulthandler --capture=sys $(SANITIZED_TESTS:%=tests/%.py)

threads: ## ThreadSanitizer: arithmetic, runtime and loading of the emulator, in about a minute
	$(MAKE) -s -j -O -C tests/native thread OUT=$(CURDIR)/build/native

SOAK_MODEL ?= # of bench/soak.py: nothing for the demo model, or `--checkpoint HF_DIR`
soak: sanitized ## minutes: 100 times load, 200 tokens, cancel, unload, under sanitizers and plain; then 2000 requests of one engine
	$(UNDER_SANITIZERS) $(BIN)/python bench/soak.py cycles $(SOAK_MODEL)
	$(BIN)/python bench/soak.py cycles $(SOAK_MODEL)
	$(BIN)/python bench/soak.py requests $(SOAK_MODEL)

campaign: $(VENV)/.test ## half an hour of faults of the card under load: make campaign [SECONDS=1800] [SEED=1] [HALF=engine|server]
	$(BIN)/python bench/campaign.py --seconds $(or $(SECONDS),1800) --seed $(or $(SEED),1) --half $(or $(HALF),both)

real: $(VENV)/.test ## minutes: all prompts of the real model against transformers, token by token, and its evaluation
	AXPRESS_REAL_PROMPTS=40 $(BIN)/pytest -s tests/real

FIREFOX := build/firefox
firefox: $(VENV)/.test ## minutes, needs a Firefox: the page's tests in it
	test -d $(FIREFOX) || $(BIN)/python -m pip install --quiet --target $(FIREFOX) playwright==1.64.0  # 1.65 asks for more than Firefox 153 has
	AXPRESS_BROWSER=firefox PYTHONPATH=$(FIREFOX) $(BIN)/pytest tests/server/page

tokenizers: $(VENV)/.test ## minutes, needs npm: .txt tokenizers against the published ones, 10,000 texts each
	$(BIN)/python tests/real/compare_tokenizers.py

wheel: $(VENV)/.run ## dist/axpress-*.whl for this machine and Python, the toy in it
	$(BIN)/python -m pip wheel --no-deps --wheel-dir dist .

wheels: ## half an hour: dist/*manylinux*.whl for all Pythons here, x86-64 and aarch64, tried; ARGS='--arch x86_64'
	$(PYTHON) tools/wheels.py $(ARGS)

deb: $(VENV)/.run ## dist/axpress_*.deb for Bookworm and Trixie, arm64 and amd64, of dist's wheels; ARGS='--arch arm64 --try'
	$(BIN)/python tools/deb.py $(ARGS)

test-aarch64: ## an hour, a Debian and root: builds, tests and serves on an emulated Pi's processor; ARGS='--suite trixie'
	$(PYTHON) tools/aarch64.py $(ARGS)

clean: ## removes all that was built, and the environment
	rm -rf build dist $(VENV) core/*/*.so core/lib/*.so *.egg-info

help: ## this list
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / {printf "make %-13s %s\n", $$1, $$2}' $(MAKEFILE_LIST)
