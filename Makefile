# The two commands of a newcomer are `make demo` and `make test`; each sets up what it needs on its first run.
PYTHON ?= python3
SOURCES := pyproject.toml kernels/CMakeLists.txt $(wildcard kernels/*/*.cpp kernels/*/*.h kernels/*/CMakeLists.txt)

.PHONY: demo test lint clean
demo: .venv/.ready
	.venv/bin/python tools/demo.py out/demo

test: .venv-runtime/.ready .venv/.ready lint
	@echo "== the runtime's tests, in an environment without torch"
	.venv-runtime/bin/python -m pytest tests/lidcam_rt -q -p no:cacheprovider
	@echo "== all other tests, in the full environment"
	.venv/bin/python -m pytest tests --ignore=tests/lidcam_rt -q -p no:cacheprovider

lint: .venv/.ready
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo

.venv/.ready: $(SOURCES)
	@echo "== setting up .venv with everything (PyTorch is several GB; once)"
	$(PYTHON) -m venv .venv
	@tools/fetch_ort_headers.sh || echo "the operator library for ONNX Runtime may be left out"
	.venv/bin/python -m pip install -q --disable-pip-version-check -e '.[export,train,zoo,eval,bench,dev]'
	@touch $@

.venv-runtime/.ready: $(SOURCES)
	@echo "== setting up .venv-runtime: the runtime without torch (once)"
	$(PYTHON) -m venv .venv-runtime
	@tools/fetch_ort_headers.sh || echo "the operator library for ONNX Runtime may be left out"
	.venv-runtime/bin/python -m pip install -q --disable-pip-version-check -e '.[eval,dev]' 'onnx>=1.18'
	@touch $@

clean:
	rm -rf .venv .venv-runtime build out
