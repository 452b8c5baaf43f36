# The two commands of a newcomer are `make demo` and `make test`; each sets up what it needs on its first run.
# `make quick` is for daily work: lint and all tests that are not slow, in under two minutes.
PYTHON ?= python3
# Errors only: pip's remarks on its package index help nobody who reads this screen.
PIP := python -m pip install -qq --disable-pip-version-check
SOURCES := pyproject.toml $(shell find kernels -name CMakeLists.txt -o -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name '*.cu*')
CXX_FILES := $(shell find kernels tests/native -name '*.cpp' -o -name '*.h' -o -name '*.inc' -o -name '*.cu' -o -name '*.cuh')
# Test processes: one per core, at most four.
WORKERS ?= $(shell n=$$(nproc 2>/dev/null || echo 2); [ $$n -le 4 ] || n=4; echo $$n)
PYTEST := python -m pytest -q -p no:cacheprovider -n $(WORKERS)
# Tests of what must work where torch is not installed; all others run in the full environment.
TORCHLESS := $(addprefix tests/,lidcam_rt lidcam_cli lidcam_crf lidcam_bench lidcam_scale lidcam_serve docs/test_guides_without_torch.py)

# Of those, the files with tests that skip without torch: these run in both.
BOTH := tests/lidcam_rt/image/test_sources.py tests/lidcam_bench/latency/test_floor.py

.PHONY: demo test quick bench lint track1 scale fuzz clean
demo: .venv/.demo-ready
	.venv/bin/python tools/demo.py out/demo

test quick: export OMP_NUM_THREADS = 1
test: .venv-runtime/.ready .venv/.test-ready lint
	@echo "== the runtime's and the measurer's tests, in an environment without torch"
	.venv-runtime/bin/$(PYTEST) --dist loadscope $(TORCHLESS)
	@echo "== all other tests, in the full environment"
	.venv/bin/$(PYTEST) --dist loadscope tests $(addprefix --ignore=,$(TORCHLESS))
	.venv/bin/$(PYTEST) $(BOTH)

quick: .venv/.test-ready lint
	.venv/bin/$(PYTEST) --dist worksteal -m "not slow and not hostile" tests

# Every property on new examples, eight threads for a minute on each engine, random calls of the CRF, every cell of the
# table of networks, an hour of mutated files for every reader, killed processes for every verb that writes, and random
# calls of the C++ kernels.
fuzz: .venv/.test-ready
	.venv/bin/$(PYTEST) --hypothesis-profile=default -m hypothesis tests
	LIDCAM_THREADS_SECONDS=60 .venv/bin/$(PYTEST) tests/lidcam_rt/test_threads.py
	LIDCAM_CRF_SEEDS=30000 .venv/bin/$(PYTEST) tests/native/cpu/test_crf_sanitizers.py
	LIDCAM_WHOLE_TABLE=1 .venv/bin/$(PYTEST) tests/lidcam_export/test_exporting_table.py
	.venv/bin/python tests/hostile/fuzz.py --inputs 1000000 --seconds 3600 --seed $$$$ --findings out/findings
	.venv/bin/python tests/hostile/kills.py --kills 20
	.venv/bin/python tests/native/cpu/libfuzzer.py 1000000 $$$$ out/corpus || test $$? -eq 2

# Ray and Spark (0.5 GB; CI does without) and their tests: some minutes.
scale: .venv/.test-ready
	.venv/bin/$(PIP) 'lidcam-rt[ray,spark]'
	.venv/bin/python -m pytest -q -p no:cacheprovider tests/lidcam_scale tests/lidcam_bench/evaluation/test_share.py

# The suites that need no data set, one after the other on a quiet machine (over an hour), and the page of results. By
# level: kernels (growth, PaS, CRF), a stage (CAM), Track 3 pictures (also as a stream), Track 1 pictures, serving.
# NAME identifies the machine in the names of the files: make bench NAME=2core_epyc
NAME ?= here
SUITES := bench_growth bench_cam bench_track3 bench_track1 bench_serve
bench: .venv/.test-ready
	.venv/bin/$(PIP) 'lidcam-rt[peers]'
	LIDCAM_BENCH_OUT=benchmarks/results/pas_$(NAME).json .venv/bin/python -m pytest -q -p no:cacheprovider benchmarks/suites/bench_pas.py
	.venv/bin/python benchmarks/suites/bench_crf.py --write crf_$(NAME).json
	set -e; for suite in $(SUITES); do .venv/bin/python benchmarks/suites/$$suite.py --write $${suite#bench_}_$(NAME); done
	.venv/bin/python -m pytest -q -p no:cacheprovider benchmarks/suites/bench_stream.py benchmarks/suites/bench_import.py
	.venv/bin/python benchmarks/render.py

lint: .venv/.test-ready
	.venv/bin/ruff check .
	.venv/bin/mypy
	.venv/bin/lint-imports --no-logo
	.venv/bin/clang-format --dry-run -Werror $(CXX_FILES)

.venv/.demo-ready: $(SOURCES)
	@echo "== setting up .venv for export and demo (PyTorch is several GB; once)"
	$(PYTHON) -m venv .venv
	@tools/fetch_ort_headers.sh || echo "the operator library for ONNX Runtime may be left out"
	.venv/bin/$(PIP) -e '.[demo]'
	@touch $@

# The package is installed already: this adds what its other extras need.
.venv/.test-ready: .venv/.demo-ready
	@echo "== adding what training, evaluation and the tests need (once)"
	.venv/bin/$(PIP) 'lidcam-rt[train,eval,bench,scale,serve,dev,crf-oracle,tensorrt-rtx,openvino]'
	@touch $@

.venv-runtime/.ready: $(SOURCES)
	@echo "== setting up .venv-runtime: the runtime without torch (once)"
	$(PYTHON) -m venv .venv-runtime
	@tools/fetch_ort_headers.sh || echo "the operator library for ONNX Runtime may be left out"
	.venv-runtime/bin/$(PIP) -e '.[eval,bench,scale,serve,crf-oracle,dev]' 'onnx>=1.21'
	@touch $@

clean:
	rm -rf .venv .venv-runtime build out
