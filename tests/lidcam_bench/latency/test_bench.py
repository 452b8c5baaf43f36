"""Plans, jobs and the command line: the tiny artifact is measured for a moment; nothing is judged by its speed."""

from __future__ import annotations

import json
import math
import os
import signal
import subprocess
import sys
from pathlib import Path

import artifacts
import pytest
from lidcam_bench.latency import bench as module
from lidcam_bench.latency.bench import describe_images, run_bench, run_job
from lidcam_bench.latency.cold_start import main as cold_main
from lidcam_bench.latency.cold_start import measure_cold_start
from lidcam_bench.latency.facts import Floor, Work
from lidcam_bench.latency.job import AccuracyJob, Job
from lidcam_bench.latency.measure import measure
from lidcam_bench.latency.plan import BenchOptions, plan_jobs, plan_targets
from lidcam_bench.latency.results import load_results, load_samples
from lidcam_bench.latency.target import Target

from lidcam_cli.main import main
from lidcam_rt.errors import DataError, ImageError, InputError, LidcamError

sys.path.insert(0, str(Path(__file__).parent))
import made

pytest.importorskip("mlperf_loadgen")


def job(model, plain, tmp_path, **fields) -> Job:
    values = {
        "target": Target(path=model), "scenarios": ("single-stream",), "seconds": 0.02, "max_seconds": 20.0,
        "warm_up_seconds": 0.0, "images": tuple(sorted(plain.iterdir())), "samples": tmp_path / "samples",
        "stem": "00_tiny", "cold_starts": 0,
    }  # fmt: skip
    return Job(**(values | fields))


def exits(*arguments) -> int:
    with pytest.raises(SystemExit) as ended:
        main(["bench", *map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.mark.slow
def test_a_job_from_begin_to_end(model, plain, tmp_path):
    steps = []
    found = measure(job(model, plain, tmp_path, scenarios=("single-stream", "offline", "server"), qps=(300.0,),
                        loads=(), bound_ms=1e6), steps.append)  # fmt: skip
    assert [entry.scenario for entry in found.scenarios] == ["single-stream", "offline", "server"]
    assert steps[0] == "load" and steps[-1] == "profile" and "server, 300 queries per second" in steps
    assert found.variant.key == "tiny.onnx" and found.variant.precision == "fp32" and len(found.variant.sha256) == 64
    assert len(found.warm_up_ms) == 5 and found.memory.peak >= found.memory.loaded > 0
    assert found.work.gigaflop > 0 and "no names" in found.split.reason
    for entry in found.scenarios:
        arrays = load_samples(tmp_path / entry.samples)
        assert len(arrays["latency"]) == (entry.images if entry.scenario == "offline" else entry.queries)
        assert entry.findings  # four pictures are few


@pytest.mark.slow
def test_a_server_gets_its_rate_from_an_offline_run(model, plain, tmp_path):
    found = measure(job(model, plain, tmp_path, scenarios=("server",), loads=(0.5,), bound_ms=1e6))
    offline, server = found.scenarios
    assert (offline.scenario, server.key) == ("offline", "server at 50%")
    assert server.target_qps == pytest.approx(0.5 * offline.images_per_second)


@pytest.mark.slow
def test_a_job_in_a_process_of_its_own(model, plain, tmp_path):
    steps = []
    found = run_job(job(model, plain, tmp_path, cold_starts=1), steps.append)
    assert steps[-1] == "cold start" and found.scenarios[0].verdict == "VALID"
    assert found.cold_start.processes == 1 and found.cold_start.total_ms > found.cold_start.load_ms > 0


def test_a_job_that_fails_tells_its_error(plain, tmp_path):
    with pytest.raises(LidcamError, match=r"none\.onnx"):
        run_job(job(tmp_path / "none.onnx", plain, tmp_path))


def test_a_process_that_dies_is_told_of(model, plain, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_attend", lambda command, errors, progress: errors.write(b"no room\n") and -9)
    with pytest.raises(LidcamError, match=r"tiny.onnx was killed by signal 9 \(no room\): was there enough memory"):
        run_job(job(model, plain, tmp_path))


def test_interrupting_leaves_no_process(tmp_path):
    script = "import time; print('here', flush=True); time.sleep(600)"
    seen = []

    def interrupt(line):
        seen.append(line)
        raise KeyboardInterrupt

    with (tmp_path / "errors").open("wb") as errors, pytest.raises(KeyboardInterrupt):
        module._attend([sys.executable, "-c", script], errors, interrupt)  # waits for the process: it must be dead
    assert seen == ["here"]


def test_a_killed_command_leaves_no_measuring_process(model, plain, tmp_path):
    """Both hold the pipe of errors: its end is the end of both."""
    (tmp_path / "job.json").write_text(job(model, plain, tmp_path, seconds=600.0, max_seconds=600.0).model_dump_json())
    script = (
        "import sys; from lidcam_bench.latency import bench; "
        "bench._attend([sys.executable, '-m', 'lidcam_bench.latency.worker', *sys.argv[1:]], sys.stderr, "
        "lambda line: print(line, flush=True))"
    )
    command = [sys.executable, "-c", script, str(tmp_path / "job.json"), str(tmp_path / "run.json")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline()
        process.kill()
        process.communicate(timeout=300)
    assert not (tmp_path / "run.json").exists()


def test_the_run_goes_on_after_a_variant_that_fails(model, plain, tmp_path):
    arrays = made.samples(n=100)
    jobs = [job(model, plain, tmp_path, stem=str(i)) for i in range(2)]
    done = iter([LidcamError("no such engine"), made.run(arrays, work=Work(gigaflop=4.0))])

    def run(_, progress):
        progress("load")
        result = next(done)
        if isinstance(result, Exception):
            raise result
        return result

    seen = []
    floors = iter([made.floor(200.0), made.floor(150.0)])
    found = run_bench(jobs, BenchOptions(), command="c", run=run, progress=lambda *a: seen.append(a),
                      measure=lambda *a, **k: next(floors))  # fmt: skip
    assert [entry.error for entry in found.runs] == ["no such engine", None]
    assert found.runs[1].work.floor_ms == 20.0 and found.runs[1].work.reached_percent == pytest.approx(36, rel=0.1)
    assert [finding.kind for finding in found.findings] == ["throttled"]
    assert seen == [(0, "the machine", "floor"), (0, "tiny.onnx", "load"), (1, "tiny.onnx", "load"),
                    (2, "the machine", "floor")]  # fmt: skip
    assert found.images["count"] == 4 and found.images["width"] == [160, 160, 160]


def test_all_failed_is_an_error(model, plain, tmp_path):
    def run(_, progress):
        raise InputError("no such engine")

    with pytest.raises(InputError, match="no such engine"):
        run_bench([job(model, plain, tmp_path)], BenchOptions(floor=False), command="c", run=run,
                  measure=lambda *a, **k: Floor())  # fmt: skip


def test_a_damaged_picture_is_found_before_anything_is_measured(tmp_path):
    (tmp_path / "x.jpg").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ImageError, match=r"x\.jpg"):
        describe_images([tmp_path / "x.jpg"])


def test_a_cold_start_is_the_median_of_processes(tmp_path):
    marks = iter([[15e6, 115e6, 215e6, 315e6, 325e6], [130e6, 330e6, 430e6, 530e6, 540e6], [210e6] * 5])
    starts = iter([int(5e6), int(100e6), int(200e6)])
    commands = []

    def spawn(command):
        commands.append(command)
        return json.dumps(next(marks))

    found = measure_cold_start(Target(path=tmp_path), tmp_path / "p.png", 3, tmp_path, spawn=spawn,
                               clock=lambda: next(starts))  # fmt: skip
    assert (found.interpreter_ms, found.import_ms, found.load_ms) == (10, 100, 100)
    assert (found.first_call_ms, found.second_call_ms, found.total_ms) == (100, 10, 310)
    assert commands[0][1:3] == ["-m", "lidcam_bench.latency.cold_start"] and len(commands) == 3


def test_a_cold_process_prints_rising_marks(model, plain, tmp_path, capsys):
    picture = sorted(plain.iterdir())[0]
    for engine in ("auto", "onnxruntime"):
        target = Target(path=model, engine=engine).model_dump(mode="json")
        (tmp_path / "job.json").write_text(json.dumps({"target": target, "picture": str(picture)}))
        cold_main([str(tmp_path / "job.json")])
        marks = json.loads(capsys.readouterr().out)
        assert len(marks) == 5 and marks == sorted(marks)


def test_every_combination_is_planned(model, tmp_path):
    options = BenchOptions(batches=(1, 8), threads=(1, 2), refine=(None, "psa"), engines=("onnxruntime", "pytorch"))
    targets = plan_targets([model], options)
    assert len(targets) == 8 and {target.engine for target in targets} == {"onnxruntime"}
    jobs = plan_jobs(targets, options, [tmp_path / "a.png"], tmp_path / "samples", AccuracyJob(data="d"))
    assert [entry.target.batch for entry in jobs if entry.accuracy] == [1, 1]  # per CRF, once
    assert [(e.target.threads, e.target.refine) for e in jobs if e.cold_starts] == [
        (1, None), (1, "psa"), (2, None), (2, "psa"),
    ]  # fmt: skip
    assert {entry.scenarios for entry in jobs if entry.target.batch == 8} == {("multi-stream", "offline")}
    assert len({entry.stem for entry in jobs}) == 8


def test_a_target_is_not_compared_with_itself(model, tmp_path):
    options = BenchOptions(engines=("auto", "onnxruntime"))
    targets = plan_targets([model], options)
    jobs = plan_jobs(targets, options, [tmp_path / "a.png"], tmp_path, AccuracyJob(reference=targets[0]))
    assert [entry.accuracy.reference is None for entry in jobs] == [True, False]


def test_targets_of_one_name_are_told_apart(model, tmp_path):
    other = artifacts.build(tmp_path / model.name)
    keys = [target.key for target in plan_targets([model, other], BenchOptions())]
    assert keys == [f"{path.parent.name}/tiny.onnx" for path in (model, other)]


def test_each_target_is_measured_once_under_a_name_of_its_own(model, tmp_path, monkeypatch):
    """Results are matched by these names: two of one name would be taken for each other."""
    paths = []
    for folder in ("a/x", "b/x", "b/y"):
        (tmp_path / folder).mkdir(parents=True)
        paths.append(artifacts.build(tmp_path / folder / "tiny.onnx"))
    alone = artifacts.build(tmp_path / "alone.onnx")
    monkeypatch.chdir(tmp_path)
    targets = plan_targets([Path("a/x/tiny.onnx"), *paths, alone, Path("./alone.onnx")], BenchOptions())
    assert [target.key for target in targets] == ["a/x/tiny.onnx", "b/x/tiny.onnx", "y/tiny.onnx", "alone.onnx"]
    assert targets[0].path == Path("a/x/tiny.onnx") and targets[3].path == alone


def test_names_of_samples_are_short_enough_for_a_file_system(tmp_path):
    model = artifacts.build(tmp_path / f"{'x' * 245}.onnx")
    jobs = plan_jobs(plan_targets([model], BenchOptions(batches=(1, 8))), BenchOptions(batches=(1, 8)),
                     [tmp_path / "a.png"], tmp_path / "samples")  # fmt: skip
    assert len({entry.stem for entry in jobs}) == 2 and max(len(entry.stem) for entry in jobs) < 120


def not_utf8(folder: Path, name: bytes) -> Path:
    path = folder / os.fsdecode(name)
    try:
        path.mkdir()
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    return path


@pytest.mark.slow
def test_names_that_are_not_utf8(model, plain, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["lidcam", "bench", str(not_utf8(tmp_path, b"pictures\xff"))])
    images = tmp_path / os.fsdecode(b"pictures\xff")
    for path in plain.iterdir():
        (images / path.name).write_bytes(path.read_bytes())
    folder = not_utf8(tmp_path, b"out\xff")
    status = exits(model, "--images", images, "--scenario", "offline", "--duration", 0.02, "--cold-starts", 0,
                   "--no-floor", "--no-accuracy", "-o", folder)  # fmt: skip
    results = load_results(folder / "results.json")
    assert status == 0 and results.images["folder"] == "pictures\\xff"
    assert results.command == "lidcam bench 'pictures\\xff'"
    assert str(tmp_path) not in results.command


def test_a_target_s_name_is_printable():
    target = Target(path=Path(os.fsdecode(b"a\xff\n\x1b[2J.onnx")))
    assert target.key == "a\\xff\\n\\x1b[2J.onnx"


def test_what_was_timed_is_kept_where_the_accuracy_pass_fails(model, plain, tmp_path, monkeypatch):
    def fails(*_):
        raise DataError("the data's class 'crane' may be any of two")

    monkeypatch.setattr("lidcam_bench.latency.measure.measure_accuracy", fails)
    found = measure(job(model, plain, tmp_path, accuracy=AccuracyJob(data="d"), profile=False))
    assert found.scenarios[0].queries >= 64 and found.error is None
    assert found.accuracy.error == "the data's class 'crane' may be any of two"


def test_an_interrupted_run_keeps_the_variants_that_were_done(model, plain, tmp_path, monkeypatch, capsys):
    done = []

    def run(entry, progress):
        if done:
            raise KeyboardInterrupt
        done.append(entry)
        return made.run(made.samples(n=100), key=entry.target.key)

    monkeypatch.setattr(module, "run_job", run)
    folder = tmp_path / "out"
    before = signal.getsignal(signal.SIGINT)
    try:
        status = exits(model, "--images", plain, "--refine", "none,psa,psa-fast", "--no-floor", "--no-accuracy", "-o",
                       folder)  # fmt: skip
    finally:
        signal.signal(signal.SIGINT, before)
    results = load_results(folder / "results.json")
    assert status == 130 and [entry.variant.key for entry in results.runs] == ["tiny.onnx"]
    assert [finding.kind for finding in results.findings] == ["incomplete"]
    says = " ".join(capsys.readouterr().err.split())
    assert "1 of 3 variants" in results.findings[0].text and "1 of 3 variants" in says
    assert "measures all of them again" in says and "for the rest" not in says
    assert "1 of 3 variants" in (folder / "report.html").read_text()


def test_a_second_run_into_a_folder_leaves_no_samples_of_the_first(model, plain, tmp_path, monkeypatch):
    folder = tmp_path / "out"
    made.saved(folder, made.samples(n=20))
    (folder / "notes.txt").write_text("mine")
    (folder / "samples" / "mine.npz").write_text("mine")

    def run(entry, progress):
        made.save_samples(entry.samples / "new.npz", made.samples(n=100))
        return made.run(made.samples(n=100), "new.npz", key=entry.target.key)

    monkeypatch.setattr(module, "run_job", run)
    assert exits(model, "--images", plain, "--no-floor", "--no-accuracy", "-o", folder) == 0
    assert {path.name for path in (folder / "samples").iterdir()} == {"new.npz", "mine.npz"}
    assert (folder / "notes.txt").exists()


def test_more_threads_than_cores_are_told_of(model, plain, tmp_path):
    found = run_bench([job(model, plain, tmp_path)], BenchOptions(floor=False), command="c",
                      run=lambda *_: made.run(made.samples(n=100), variant=made.variant(threads=4096)))  # fmt: skip
    assert [finding.kind for finding in found.findings] == ["more threads than cores"]


def test_pictures_have_a_hash_of_their_contents(plain):
    paths = sorted(plain.iterdir())
    assert describe_images(paths)["sha256"] == describe_images(list(paths))["sha256"]
    assert len({describe_images(chosen)["sha256"] for chosen in (paths, paths[:2], paths[2:])}) == 3


def test_data_that_are_not_there_are_told_of_before_anything_is_measured(model, plain, tmp_path, capsys):
    assert exits(model, "--images", plain, "--data", tmp_path / "none", "-o", tmp_path / "out") == 2
    assert "neither a folder nor" in capsys.readouterr().err and not (tmp_path / "out").exists()
    assert exits(model, "--images", plain, "--reference", tmp_path / "none.onnx", "-o", tmp_path / "out") == 2
    assert "none.onnx: no such file or folder" in capsys.readouterr().err and not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"scenarios": ("burst",)}, "scenario must be of single-stream"), ({"scenarios": ()}, "got nothing"),
        ({"engines": ("tpu",)}, "engine must be of auto"), ({"precisions": ("int3",)}, "precision must be of auto"),
        ({"pipeline": "track2"}, "pipeline must be of track3"),
        ({"scope": "all"}, "scope must be of end-to-end"), ({"batches": (0,)}, "batch must be 1 to 4096, got 0"),
        ({"threads": (-1,)}, "threads must be 0 to 1024, got -1"),
        ({"threads": (1, 99_999)}, "threads must be 0 to 1024, got 1, 99999"),
        ({"seconds": 0}, "duration must be above 0"), ({"seconds": math.nan}, "duration must be above 0"),
        ({"seconds": math.inf, "max_seconds": math.inf}, "at most 604800, got inf"),
        ({"qps": (1e30,)}, "qps must be at most 100000, got 1e"),
        ({"loads": (math.inf,)}, "load must be at most 100, got inf"),
        ({"scenarios": ("server",), "loads": ()}, "the scenario server needs a rate: give --load or --qps"),
        ({"loads": (0.5, -1.0)}, "load must be above 0, got 0.5, -1"), ({"bound_ms": 0.0}, "bound must be above 0"),
        ({"max_seconds": 5.0}, "is below the duration 10 s"), ({"refine": ("sharp",)}, "sharp"),
        ({"pipeline": "track1", "batches": (1, 8)}, "with --pipeline track1 the batch is 1"),
    ],
)  # fmt: skip
def test_options_that_make_no_sense(wrong, message):
    with pytest.raises(InputError, match=message):
        BenchOptions(**wrong)


def test_engines_and_targets_that_do_not_go_together(model, tmp_path):
    with pytest.raises(InputError, match="no such file or folder"):
        plan_targets([tmp_path / "none.onnx"], BenchOptions())
    with pytest.raises(InputError, match="is not a checkpoint: engine pytorch was requested"):
        plan_targets([model], BenchOptions(engines=("pytorch",)))
    assert [t.engine for t in plan_targets([tmp_path], BenchOptions(engines=("auto",)))] == ["pytorch"]


@pytest.mark.slow
def test_the_command_measures_scores_and_reports(model, labelled, tmp_path, capsys):
    folder = tmp_path / "out"
    status = exits(model, "--images", labelled, "--duration", 0.02, "--max-duration", 20, "--cold-starts", 0,
                   "--no-floor", "--refine", "none,psa", "-o", folder)  # fmt: skip
    shown = capsys.readouterr().out
    assert status == 0 and str(folder / "report.html") in shown and "CRF psa" in shown
    results = load_results(folder / "results.json")
    assert [run.variant.key for run in results.runs] == ["tiny.onnx", "tiny.onnx, CRF psa"]
    assert all(run.accuracy.scores["miou"] > 0.5 for run in results.runs)
    assert str(tmp_path) not in (folder / "results.json").read_text()  # results are shared: no folders of this machine
    assert {path.suffix for path in (folder / "samples").iterdir()} == {".npz"}
    assert (folder / "results.md").read_text().startswith("# Latency of tiny.onnx")


@pytest.mark.slow
def test_some_variants_that_cannot_be_run_are_told_of(model, plain, tmp_path, capsys):
    status = exits(model, "--images", plain, "--scenario", "single-stream", "--duration", 0.02, "--precision",
                   "auto,int8", "--engine", "onnxruntime", "--cold-starts", 0, "--no-floor", "--no-accuracy", "-o",
                   tmp_path / "out")  # fmt: skip
    assert status == 8 and "could not be run" in capsys.readouterr().out
    assert [run.error is None for run in load_results(tmp_path / "out" / "results.json").runs] == [True, False]
    report = (tmp_path / "out" / "report.html").read_text()
    assert report.count("<dt>SHA-256</dt>") == report.count("(height x width)") == 1 and "0x0" not in report


@pytest.mark.parametrize(
    ("slower", "bounds", "status", "said"),
    [
        ({}, ["p50:5%", "crf:5%"], 0, "ok"),
        ({"crf": 1.1}, ["crf:5%"], 1, "crf became slower"),
        ({"network": 1.1}, ["p50:5%"], 1, "network went from"),
        ({}, ["p99.9:0.000001%"], 9, "measure longer"),
    ],
)
def test_compare_by_its_exit_status(tmp_path, capsys, slower, bounds, status, said):
    first, second = made.samples(seed=1), made.samples(seed=2, slower=slower)
    if status == 9:
        second["latency"][second["latency"].argmax()] += 10**9
    one, two = made.saved(tmp_path / "a", first), made.saved(tmp_path / "b", second)
    options = [word for bound in bounds for word in ("--fail", bound)]
    assert exits("compare", one, two, *options) == status
    output = " ".join(capsys.readouterr().out.split())
    assert said in output or said.replace("crf became", "the stage became") in output


def test_wrong_calls_have_a_message(model, plain, tmp_path, capsys):
    assert exits(model, "--images", plain, "--batch", "1,x", "-o", tmp_path / "o") == 2
    assert "--batch takes comma-separated whole numbers" in capsys.readouterr().err
    assert exits(model, "--images", plain, "--load", "x", "-o", tmp_path / "o") == 2
    assert exits("compare", tmp_path / "a.json", tmp_path / "b.json") == 2
    assert exits("compare", tmp_path / "a.json", tmp_path / "b.json", "--fail", "p99") == 2
    assert exits("--help") == 0 and "compare" in capsys.readouterr().out
    assert exits("run", "--help") == 0
