# The two commands of a newcomer are `make demo` and `make test`; each sets up what it needs on its first run.
PYTHON ?= python3
PIP := python -m pip install -q --disable-pip-version-check
SOURCES := pyproject.toml $(shell find kernels -name CMakeLists.txt -o -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name '*.cu*')
# Test processes: one per core, at most four.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -le 4 ] || n=4; echo $$n)
PYTEST := python -m pytest -q -p no:cacheprovider -n $(WORKERS) --dist loadscope

.PHONY: demo test lint clean
demo: .venv/.demo-ready
	.venv/bin/python tools/demo.py out/demo

test: export OMP_NUM_THREADS = 1
test: .venv-runtime/.ready .venv/.test-ready lint
	@echo "== the runtime's tests, in an environment without torch"
	.venv-runtime/bin/$(PYTEST) tests/lidcam_rt tests/lidcam_bench
	@echo "== all other tests, in the full environment"
	.venv/bin/$(PYTEST) tests --ignore=tests/lidcam_rt tests/lidcam_bench

lint: .venv/.test-ready
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

.venv/.demo-ready: $(SOURCES)
	@echo "== setting up .venv for export and demo (PyTorch is several GB; once)"
	$(PYTHON) -m venv .venv
	@tools/fetch_ort_headers.sh || echo "the operator library for ONNX Runtime may be left out"
	.venv/bin/$(PIP) -e '.[demo]'
	@touch $@

# The package is installed already: this adds what its other extras need.
.venv/.test-ready: .venv/.demo-ready
	@echo "== adding what training, evaluation and the tests need (once)"
	.venv/bin/$(PIP) 'lidcam-rt[train,eval,bench,dev,crf-oracle,tensorrt-rtx]'
	@touch $@

.venv-runtime/.ready: $(SOURCES)
	@echo "== setting up .venv-runtime: the runtime without torch (once)"
	$(PYTHON) -m venv .venv-runtime
	@tools/fetch_ort_headers.sh || echo "the operator library for ONNX Runtime may be left out"
	.venv-runtime/bin/$(PIP) -e '.[eval,crf-oracle,dev]' 'onnx>=1.18'
	@touch $@

clean:
	rm -rf .venv .venv-runtime build out
