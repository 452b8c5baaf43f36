from __future__ import annotations

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path

import artifacts
import cv2
import numpy as np
import pytest
from PIL import Image

from lidcam_cli.doctor import examine
from lidcam_cli.pictures import Pictures
from lidcam_cli.runs import RunFolder
from lidcam_cli.sources import find_images
from lidcam_rt.errors import DataError, InputError

LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]


def lidcam(*arguments, stdin: str | None = None, **environment) -> subprocess.CompletedProcess:
    done = subprocess.run(
        [*LIDCAM, *map(str, arguments)],
        capture_output=True, text=True, input=stdin, timeout=300,
        env={**os.environ, "COLUMNS": "80", "TERM": "dumb", **environment},
    )  # fmt: skip
    assert "Traceback" not in done.stderr + done.stdout
    return done


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "pictures"
    for sub, box in ((".", (40, 24, 104, 72)), ("deep/er", (1, 2, 50, 60))):
        (folder / sub).mkdir(parents=True, exist_ok=True)
        for colour in artifacts.CLASSES:
            Image.fromarray(artifacts.picture(colour, box)).save(folder / sub / f"{colour}.png")
    return folder


def read(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def test_localize_a_folder(model, pictures, tmp_path):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    (pictures / "zero.png").touch()
    (pictures / "notes.txt").write_text("not taken")
    done = lidcam("localize", model, pictures, "-o", tmp_path / "o")
    assert done.returncode == 8
    assert all(len(line) <= 80 for line in done.stdout.splitlines() if str(tmp_path) not in line)
    assert "2 of 10 pictures failed" in done.stderr and "zero.png: the file is empty" in done.stderr
    document = read(tmp_path / "o")
    assert document["complete"] and len(document["results"]) == 8 and len(document["failures"]) == 2
    for record in document["results"]:
        assert record["class_name"] == Path(record["image"]).stem
        mask = cv2.imread(str(tmp_path / "o" / record["files"]["mask"]), cv2.IMREAD_GRAYSCALE)
        assert np.count_nonzero(mask) == record["mask_pixels"] and mask.shape == (96, 160)
        assert cv2.imread(str(tmp_path / "o" / record["files"]["overlay"])).shape == (96, 160, 3)
    assert len({record["files"]["mask"] for record in document["results"]}) == 8
    lines = (tmp_path / "o" / "results.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 10


@pytest.mark.slow
def test_resume_does_what_is_left(model, pictures, tmp_path):
    out = tmp_path / "o"
    assert lidcam("localize", model, pictures / "red.png", pictures / "blue.png", "-o", out).returncode == 0
    (out / "blue_mask.png").unlink()
    kept = (out / "red_mask.png").stat().st_mtime_ns
    done = lidcam("localize", model, pictures, "-o", out, "--jsonl")
    assert "1 of 8 pictures are already done, 7 to do" in done.stderr
    assert len([json.loads(line) for line in done.stdout.splitlines()]) == 7
    assert (out / "red_mask.png").stat().st_mtime_ns == kept and (out / "blue_mask.png").exists()
    Image.fromarray(artifacts.picture("green")).save(pictures / "red.png")
    lidcam("localize", model, pictures, "-o", out)
    assert {r["image"]: r["class_name"] for r in read(out)["results"]}[str(pictures / "red.png")] == "green"


@pytest.mark.slow
def test_a_folder_of_another_run_is_refused(model, pictures, tmp_path):
    out = tmp_path / "o"
    lidcam("localize", model, pictures / "red.png", "-o", out)
    done = lidcam("localize", model, pictures / "red.png", "-o", out, "--top-k", 2)
    assert done.returncode == 6 and "holds another run (tiny.onnx): top_k was 1, is 2" in done.stderr
    other = artifacts.build(tmp_path / "other.onnx", top_k=2, theta=0.5)
    done = lidcam("localize", other, pictures / "red.png", "-o", out)
    assert done.returncode == 6 and "holds another run (tiny.onnx): artifact_sha256 was" in done.stderr


def test_patterns_stdin_and_nothing(model, pictures, tmp_path, monkeypatch):
    monkeypatch.chdir(pictures)
    assert find_images(["*.png"]).paths == ["blue.png", "green.png", "red.png", "yellow.png"]
    assert len(find_images(["**/*.png", ".", "red.png"]).paths) == 8
    assert find_images(["-"], ["a.jpg\n", "\n", "b c.png\r\n"]).paths == ["a.jpg", "b c.png"]
    with pytest.raises(DataError, match="matches no file"):
        find_images(["*.gif"])
    with pytest.raises(DataError, match=r"no pictures in it or its sub-folders \(it is empty\)"):
        find_images([str(tmp_path / "pictures" / ".." / "empty")] if (tmp_path / "empty").mkdir() is None else [])
    with pytest.raises(InputError, match="standard input was empty"):
        find_images(["-"], [])
    done = lidcam("localize", model, "-", "-o", tmp_path / "o", "--jsonl", stdin="red.png\nmissing.png\n")
    assert done.returncode == 8 and json.loads(done.stdout.splitlines()[1])["error"] == "ImageError"


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [
        (["{none}", "{pictures}"], 3, "no such file"),
        (["{model}", "{pictures}", "--device", "tpu"], 2, "device must be"),
        (["{model}", "{pictures}", "--top-k", "3"], 2, "top_k must be 1 to 2"),
        (["{model}", "{pictures}", "--batch-size", "0"], 2, "batch-size"),
        (["{model}", "{pictures}/nowhere/*.jpg"], 2, "matches no file"),
        (["{model}", "{pictures}", "-o", "/proc/no"], 6, "cannot be made"),
        (["{model}", "{pictures}", "-o", "{model}"], 6, "is a file"),
    ],
)
def test_errors_have_a_status_and_no_traceback(model, pictures, tmp_path, arguments, status, says):
    filled = [a.format(model=model, pictures=pictures, none=tmp_path / "none.onnx") for a in arguments]
    output = [] if "-o" in filled else ["-o", tmp_path / "o"]
    done = lidcam("localize", *filled, *output)
    assert done.returncode == status and says in done.stderr.replace("\n", " ")


def _record(name: str) -> dict:
    return {"image": f"{name}.jpg", "name": name, "files": {}, "class_name": "red", "score": 1.0, "box": None}


def test_names_of_pictures_are_distinct_and_the_same_in_every_run(tmp_path):
    for _ in range(2):
        with RunFolder(tmp_path, {}) as run:
            pictures = Pictures(run)
            assert pictures.name_for("a.jpg") == "a"
            assert len({pictures.name_for(path).lower() for path in ("a.jpg", "other/a.jpg", "other/A.png")}) == 3
            pictures.add("a.jpg", _record("a"))


@pytest.mark.slow
@pytest.mark.parametrize(
    "forged",
    [
        {"name": "../../escaped"},
        {"files": {"mask": "../escaped_mask.png"}},
        {"files": {"mask": "/etc/passwd"}},
        {"files": {"other": "a_mask.png"}},
        {"files": ["a_mask.png"]},
        {"image": 3},
        {"box": "all"},
        {"error": 3},
    ],
)
def test_a_forged_record_is_left_out(model, tmp_path, forged):
    """A name in results.jsonl cannot lead outside of the output folder."""
    picture, out = tmp_path / "a.png", tmp_path / "deep" / "er" / "out"
    Image.fromarray(artifacts.picture("red")).save(picture)
    assert lidcam("localize", model, picture, "-o", out).returncode == 0
    before = set(tmp_path.rglob("*"))
    record = json.loads((out / "results.jsonl").read_text())
    (out / "results.jsonl").write_text(json.dumps(record | forged) + "\n")
    (out / "a_mask.png").unlink()
    done = lidcam("localize", model, picture, "-o", out)
    assert done.returncode == 0 and set(tmp_path.rglob("*")) == before
    assert read(out)["results"][0]["files"]["mask"] == "a_mask.png"


@pytest.mark.slow
@pytest.mark.parametrize("forged", [{}, {"box": [1, 2, "[/bold]", 4]}, {"box": [0.5] * 4}, {"score": float("nan")}])
def test_a_record_whose_values_are_no_result_is_made_again(model, tmp_path, forged):
    picture, out = tmp_path / "a.png", tmp_path / "out"
    Image.fromarray(artifacts.picture("red")).save(picture)
    assert lidcam("localize", model, picture, "-o", out).returncode == 0
    good = read(out)["results"]
    record = json.loads((out / "results.jsonl").read_text())
    rest = {key: value for key, value in record.items() if key != "box"}
    (out / "results.jsonl").write_text(json.dumps((record if forged else rest) | forged) + "\n")
    done = lidcam("localize", model, picture, "-o", out)
    assert done.returncode == 0, done.stderr
    assert read(out)["results"] == good


def _many(folder: Path, count: int) -> Path:
    folder.mkdir()
    data = Path(folder).parent / "one.png"
    Image.fromarray(artifacts.picture("red")).save(data)
    for i in range(count):
        (folder / f"{i:04}.png").hardlink_to(data)
    return folder


#: `lidcam`, which after 21 records, or within the 50th file, tells by a fifo that it is there, and waits for a signal.
STOPS = """
import os, signal, sys
from pathlib import Path
from lidcam_cli.main import main
from lidcam_cli.runs import RunFolder
moment, fifo = sys.argv.pop(1), sys.argv.pop(1)
calls = []
def there():
    calls.append(1)
    if len(calls) == (21 if moment == "record" else 50):
        os.close(os.open(fifo, os.O_WRONLY))
        while True:
            signal.pause()
add, replace = RunFolder.add, Path.replace
def add_and_tell(self, record):
    add(self, record)
    there()
def tell_and_replace(self, target):
    there()
    return replace(self, target)
if moment == "record":
    RunFolder.add = add_and_tell
else:
    Path.replace = tell_and_replace
main()
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("moment", ["record", "file"])
def test_stopped_in_a_terminal_and_resumed(model, tmp_path, how, moment):
    folder, out, fifo = _many(tmp_path / "many", 40), tmp_path / "o", tmp_path / "fifo"
    os.mkfifo(fifo)
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-c", STOPS, moment, str(fifo), "localize", str(model), str(folder), "-o", str(out)],
        stdin=slave, stdout=subprocess.DEVNULL, stderr=slave,
        env={**os.environ, "COLUMNS": "80", "TERM": "xterm"}, start_new_session=True,
    )  # fmt: skip
    os.close(slave)
    seen: list[bytes] = []

    def watch() -> None:
        with contextlib.suppress(OSError):  # the terminal is gone with the process
            while data := os.read(master, 65536):
                seen.append(data)

    terminal = threading.Thread(target=watch)
    terminal.start()
    with fifo.open("rb"):
        process.send_signal(how)
    status = process.wait(300)
    terminal.join(300)
    os.close(master)
    shown = b"".join(seen)
    lines = [json.loads(line) for line in (out / "results.jsonl").read_text().splitlines()]
    assert len(lines) == (21 if moment == "record" else 24)  # two files a picture, and run.json
    for record in lines:
        for name in record["files"].values():
            assert cv2.imread(str(out / name)) is not None
    if how == signal.SIGINT:
        assert status == 130 and b"interrupted" in shown and b"Traceback" not in shown and b"images/s" in shown
        assert read(out)["complete"] is False
    else:
        assert status == -9
    assert len(list(out.glob(".lidcam-*.part"))) == (how == signal.SIGKILL and moment == "file")
    visible = re.sub(rb"\x1b\[[0-9;?]*[A-Za-z]", b"", shown).decode(errors="replace")
    assert all(len(line) <= 80 for part in visible.split("\n") for line in part.split("\r"))
    done = lidcam("localize", model, folder, "-o", out, "--batch-size", 8)
    assert done.returncode == 0 and len(read(out)["results"]) == 40 and read(out)["complete"]
    assert f"{len(lines)} of 40 pictures are already done" in done.stderr
    assert not list(out.glob(".lidcam-*.part"))


@pytest.mark.slow
def test_standard_output_that_is_full_or_closed(model, pictures, tmp_path):
    command = [*LIDCAM, "localize", str(model), str(pictures), "-o", str(tmp_path / "o"), "--jsonl"]
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, timeout=300)
    assert done.returncode == 6 and "No space left" in done.stderr and "Traceback" not in done.stderr
    again = subprocess.run(["sh", "-c", '"$@" | head -1', "sh", *command], capture_output=True, text=True, timeout=300)
    assert "Traceback" not in again.stderr and len(again.stdout.splitlines()) == 1


@pytest.mark.slow
def test_inspect(model):
    done = lidcam("inspect", model)
    assert done.returncode == 0 and "standard operators" in done.stdout
    assert all(len(line) <= 80 for line in done.stdout.splitlines())
    facts = json.loads(lidcam("inspect", model, "--json").stdout)
    assert facts["manifest"]["class_names"] == list(artifacts.CLASSES)
    assert [entry["name"] for entry in facts["inputs"]] == ["image", "labels"]
    assert {"name": "threshold", "dtype": "float32", "shape": ["batch", 2]} in facts["outputs"]
    assert lidcam("inspect", "none.onnx").returncode == 3


@pytest.mark.slow
def test_doctor_finds_clashing_distributions():
    assert lidcam("doctor").returncode in (0, 1)
    rows = json.loads(lidcam("doctor", "--json").stdout)
    assert {"lidcam-rt", "onnxruntime", "compiled kernels"} <= {row["what"] for row in rows}

    def both(names):
        return {n: "1.20" for n in names if n in ("onnxruntime", "onnxruntime-gpu")}

    clash = next(f for f in examine(both) if f.what == "onnxruntime distributions")
    assert clash.state == "broken"
    assert clash.mend == "pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu"


@pytest.mark.slow
def test_a_damaged_picture_is_taken_on_request(model, tmp_path):
    picture = tmp_path / "a.jpg"
    Image.fromarray(artifacts.picture("red")).save(picture, quality=95)
    picture.write_bytes(picture.read_bytes()[:-60])
    refused = lidcam("localize", model, picture, "-o", tmp_path / "strict")
    assert refused.returncode == 8 and "use what can be read of it: --no-strict" in refused.stderr
    done = lidcam("localize", model, picture, "-o", tmp_path / "o", "--no-strict")
    assert done.returncode == 0
    assert read(tmp_path / "o")["results"][0]["missing"] == "Premature end of JPEG file"
    assert read(tmp_path / "o")["strict"] is False


@pytest.mark.slow
def test_outputs_inside_the_input_are_not_localized_and_films_are_counted(model, pictures):
    (pictures / "film.mp4").touch()
    (pictures / "deep" / "clip.MOV").touch()
    for _ in range(2):
        done = lidcam("localize", model, pictures, "-o", pictures / "out")
        assert done.returncode == 0 and len(read(pictures / "out")["results"]) == 8
        assert "not read: 1 .mov, 1 .mp4" in done.stdout
    beside = lidcam("localize", model, pictures, "-o", pictures)
    again = lidcam("localize", model, pictures, "-o", pictures)
    assert beside.returncode == again.returncode == 0 and len(read(pictures)["results"]) == 8


@pytest.mark.slow
def test_a_class_of_choice(model, pictures, tmp_path):
    out = tmp_path / "o"
    done = lidcam("localize", model, pictures / "red.png", pictures / "blue.png", "-o", out, "--labels", "BLUE")
    assert done.returncode == 0
    document = read(out)
    assert [r["class_name"] for r in document["results"]] == ["blue", "blue"] and document["labels"] == ["blue"]
    assert [r["topk"][0]["class_name"] for r in document["results"]] == ["red", "blue"]
    refused = lidcam("localize", model, pictures / "red.png", "-o", out)
    assert refused.returncode == 6 and "labels was" in refused.stderr
    two = lidcam("localize", model, pictures / "red.png", "-o", tmp_path / "t", "--labels", "red", "--labels", "blue")
    assert two.returncode == 0 and read(tmp_path / "t")["results"][0]["others"][0]["class_name"] == "blue"
    for labels, says in (
        (["bleu"], "similar names: blue"),
        (["qqq"], "its first are: red"),
        (["red", "blue", "green"], "1 to 2 labels per picture"),
    ):
        arguments = [part for name in labels for part in ("--labels", name)]
        wrong = lidcam("localize", model, pictures / "red.png", "-o", tmp_path / "w", *arguments)
        assert (
            wrong.returncode == 2
            and says.lower() in wrong.stderr.lower()
            and not (tmp_path / "w" / "run.json").exists()
        )


@pytest.mark.slow
def test_a_page_of_the_overlays(model, pictures, tmp_path):
    (pictures / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 nothing")
    done = lidcam("localize", model, pictures, "-o", tmp_path / "o", "--html")
    assert done.returncode == 8 and done.stdout.splitlines()[-1] == str(tmp_path / "o" / "index.html")
    page = (tmp_path / "o" / "index.html").read_text()
    assert page.count("<img") == 8 and "1 pictures failed" in page and "broken.jpg" in page
    refused = lidcam("localize", model, pictures, "-o", tmp_path / "o", "--html", "--no-overlay")
    assert refused.returncode == 2 and "--no-overlay" in refused.stderr


@pytest.mark.slow
def test_quiet_and_verbose(model, pictures, tmp_path):
    quiet = lidcam("localize", model, pictures, "-o", tmp_path / "o", "--quiet")
    assert quiet.returncode == 0 and not quiet.stdout and not quiet.stderr
    lines = lidcam("localize", model, pictures, "-o", tmp_path / "l", "-q", "--jsonl")
    assert len(lines.stdout.splitlines()) == 8 and not lines.stderr
    failed = lidcam("localize", model, "none.png", "-o", tmp_path / "f", "-q")
    assert failed.returncode == 8 and not failed.stdout and "none.png: no such file" in failed.stderr
    told = lidcam("localize", model, pictures / "red.png", "-o", tmp_path / "v", "-v", "--device", "cpu")
    assert f"{model}: loaded by onnxruntime (backend auto, device cpu were requested" in told.stderr
    assert "lidcam_rt: PaS runs" in told.stderr and "on cpu" in told.stderr
    assert not lidcam("localize", model, pictures / "red.png", "-o", tmp_path / "w").stderr


def test_messages_spell_the_way_out_for_the_shell(model, pictures, tmp_path, capsys):
    from lidcam_cli.console import print_error

    small = lidcam("localize", model, pictures / "red.png", "-o", tmp_path / "o", "--max-pixels", "10")
    assert "raise the limit: --max-pixels" in small.stderr and "in Python" not in small.stderr.split("failed")[0]
    print_error("no GPU: take device='cpu' in Python, --device cpu on the command line; or wait")
    assert "take --device cpu; or wait" in capsys.readouterr().err
