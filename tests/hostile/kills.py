"""Kills every verb that writes at random moments, runs it again, and compares with an unbroken run.

Run: python tests/hostile/kills.py [--kills N] [--seed K] [--only VERB]

The second run must end in the bytes of the unbroken one, with nothing left over from the first. When the kill comes is
random and decides nothing: a run that was over already must give the same bytes too.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
import artifacts
import made_sources

#: The archive of onnxruntime-web; without it `lidcam web` is left out.
ORT_WEB = os.environ.get("LIDCAM_ORT_WEB", "")
LIDCAM = [sys.executable, "-c", "from lidcam_cli.main import main; main()"]


@dataclass(frozen=True)
class Verb:
    """A verb that writes.

    Attributes:
        name: for reports.
        arguments: given the folder of inputs and the place to write to.
        needs: modules without which it is left out.
        refuses: what is complete is refused (exit status 6) instead of made again.
        measures: times are in what it writes: the names of the files must be those of the unbroken run.
        counts: expression for the names of the files whose bytes must be those of the unbroken run; the others name
            the folder that they lie in.
    """

    name: str
    arguments: Callable[[Path, Path], list[str]]
    needs: tuple[str, ...] = ()
    refuses: bool = False
    measures: bool = False
    counts: str = ".*"


def _garments(inputs: Path) -> list[str]:
    return [*("--source", f"{inputs}/idx", "--backgrounds", f"{inputs}/photos"),
            *("--train", "60", "--val", "10", "--test", "10", "--size", "48")]  # fmt: skip


def _scored(inputs: Path) -> list[str]:
    return ["--data", f"clutter-fashion:{inputs}/made", "--no-crf"]


def _short(inputs: Path, out: Path) -> list[str]:
    model = "model.backbone=lidcam_seresnet_small"
    data = [f"data.source=clutter-fashion:{inputs}/made", "data.size=32", "data.batch_size=8"]
    return [*data, model, "epochs=2", "accelerator=cpu", "-o", f"{out}/run", "--quiet"]


def _bench(inputs: Path) -> list[str]:
    short = ["--duration", "0.1", "--cold-starts", "0", "--no-floor", "--no-accuracy"]
    return ["bench", f"{inputs}/model.onnx", "--images", f"{inputs}/few", *short]


def _scale(inputs: Path) -> list[str]:
    return ["scale", f"{inputs}/model.onnx", f"{inputs}/set/images", "--processes", "2", "--shard-size", "4"]


def _quantize(inputs: Path) -> list[str]:
    calibration = ["--calibration", f"{inputs}/set/images", "--pictures", "8", "--float-worst", "2"]
    return ["quantize", f"{inputs}/network.onnx", *calibration]


def _build(inputs: Path) -> list[str]:
    return ["build", f"{inputs}/network.onnx", "--flavour", "tensorrt-rtx", "--capability", "8.9", "--no-cache"]


def _track1(inputs: Path) -> list[str]:
    cam = ["model.backbone=lidcam_seresnet_small", "model.weights=null", "model.stride=4"]
    network = ["network.encoder=resnet18", "network.weights=null", "network.channels=32", "network.architecture=fpn"]
    each = ["data.size=64", "data.batch_size=6", "epochs=2"]
    options = [f"cam.{entry}" for entry in (*cam, *each)] + [f"segment.{entry}" for entry in (*network, *each)]
    sources = ["--source", f"{inputs}/idx", "--backgrounds", f"{inputs}/photos"]
    return ["pipeline", "track1", "scenes", *sources, "--sizes", "12,6,6", *options]


VERBS = (
    Verb("localize", lambda i, o: ["localize", f"{i}/model.onnx", f"{i}/set/images", "-o", f"{o}/run"]),
    Verb("eval", lambda i, o: ["eval", f"{i}/model.onnx", "--data", f"{i}/set", "-o", f"{o}/run"], ("matplotlib",)),
    Verb("submit", lambda i, o: ["submit", f"{i}/set/images", "--model", f"{i}/model.onnx", "-o", f"{o}/track3.zip"]),
    Verb("data make", lambda i, o: ["data", "make", "clutter-fashion", f"{o}/set", *_garments(i)], ("torch",), True),
    Verb("data make scenes", lambda i, o: ["data", "make", "scenes", f"{o}/set", *_garments(i)], ("torch",), True),
    Verb("tune", lambda i, o: ["tune", f"{i}/node.onnx", "--data", f"{i}/set", "-o", f"{o}/tuned.onnx"], ("torch",)),
    Verb("train", lambda i, o: ["train", "clutter_fashion", *_short(i, o)], ("torch",)),
    Verb("export", lambda i, o: ["export", f"{i}/checkpoint", "-o", f"{o}/model.onnx"], ("torch",)),
    Verb("compare", lambda i, o: ["compare", *(f"{i}/model.onnx",) * 2, "--data", f"{i}/set", "-o", f"{o}/c.json"]),
    Verb("analyze", lambda i, o: ["analyze", f"{i}/checkpoint", "--images", f"{i}/few", "-o", f"{o}/run"], ("torch",)),
    Verb("scale", lambda i, o: [*_scale(i), "-o", f"{o}/run"], ("pyarrow",), measures=True),
    Verb("quantize", lambda i, o: [*_quantize(i), "-o", f"{o}/int8.onnx"], ("torch",)),
    Verb("build", lambda i, o: [*_build(i), "-o", f"{o}/rtx.engine"], ("torch", "tensorrt_rtx"), measures=True),
    Verb("export-triton", lambda i, o: ["export-triton", f"{i}/model.onnx", "-o", f"{o}/models"], ("starlette",), True),
    Verb("bench", lambda i, o: [*_bench(i), "-o", f"{o}/run"], ("mlperf_loadgen", "torch"), measures=True),
    Verb("pipeline track1", lambda i, o: [*_track1(i), "-o", f"{o}/run"], ("segmentation_models_pytorch",),
         counts=r".*(/track1\.md|/labels/.*\.png|/pseudo/\d+\.png)"),
    Verb("ablate", lambda i, o: ["ablate", f"{i}/gap", f"{i}/tap", *_scored(i), "-o", f"{o}/run"], ("torch",)),
    *((Verb("web", lambda i, o: ["web", f"{i}/model.onnx", "-o", f"{o}/site", "--ort", ORT_WEB]),) if ORT_WEB else ()),
)


def tree(folder: Path) -> dict[str, str]:
    """Digest of every file below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.endswith(".lock")
    }


def differences(verb: Verb, result: dict[str, str], wanted: dict[str, str]) -> list[str]:
    """Files that only one run has, and those that count and have other bytes."""
    return [
        name
        for name in sorted(result.keys() | wanted.keys())
        if (name in result) != (name in wanted)
        or (result[name] != wanted[name] and not verb.measures and re.fullmatch(verb.counts, name))
    ]


def leftovers(folder: Path) -> list[str]:
    """Hidden files and temporary names that should be gone."""
    return [p.name for p in folder.rglob(".*") if p.name != ".lidcam.lock"]


def run(verb: Verb, inputs: Path, out: Path, *, kill_after: float | None = None) -> int:
    """Run a verb; with `kill_after` seconds kill it and all that it started."""
    out.mkdir(exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "80"}
    with (out.parent / f"{out.name}.log").open("a") as log:
        process = subprocess.Popen(
            [*LIDCAM, *verb.arguments(inputs, out)], stdout=log, stderr=log, start_new_session=True, env=environment
        )
        try:
            return process.wait(kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return process.wait()


def prepare(folder: Path) -> None:
    """Inputs for all verbs."""
    artifacts.build(folder / "model.onnx", top_k=2)
    artifacts.build(folder / "node.onnx", top_k=2, pas_node=True, theta=0.9)
    artifacts.data_set(folder / "set", 24, noise=40)
    garments, photos = made_sources.make(folder)
    if importlib.util.find_spec("torch"):
        import torch
        from lidcam_training.checkpoint import CheckpointMeta, save_checkpoint
        from lidcam_training.data.clutter import FASHION_CLASSES, make_clutter_fashion
        from lidcam_training.models import ClassifierSpec, build_classifier

        make_clutter_fashion(
            folder / "made", train=48, val=16, test=16, size=32, source=garments, backgrounds=photos
        )
        torch.manual_seed(0)
        spec = ClassifierSpec("lidcam_seresnet_small", num_classes=3)
        meta = CheckpointMeta(spec, ("a", "b", "c"), (32, 32))
        save_checkpoint(build_classifier(spec), meta, folder / "checkpoint")
        command = [*LIDCAM, "export", f"{folder}/checkpoint", "-o", f"{folder}/network.onnx", "--quiet"]
        subprocess.run(command, check=True)
        artifacts.data_set(folder / "few", 3)
        (folder / "few" / "images").rename(folder / "pictures")
        shutil.rmtree(folder / "few")
        (folder / "pictures").rename(folder / "few")
        for pooling in ("gap", "tap"):
            spec = ClassifierSpec("lidcam_seresnet_small", num_classes=10, pooling=pooling)
            meta = CheckpointMeta(spec, FASHION_CLASSES, (32, 32))
            save_checkpoint(build_classifier(spec), meta, folder / pooling)


def check(verb: Verb, inputs: Path, work: Path, kills: Sequence[Sequence[float]]) -> list[str]:
    """Kill a verb and run it again; what was wrong afterwards.

    Args:
        verb: the verb.
        inputs: the folder that `prepare` filled.
        work: where it runs.
        kills: for each output the moments at which its runs are killed one after the other, as shares of the time that
            the unbroken run takes; then it is run to its end.
    """
    begin = time.monotonic()
    unbroken = work / "unbroken"
    if (status := run(verb, inputs, unbroken)) != 0:
        return [f"the unbroken run ended with {status}: see {unbroken}.log"]
    takes, wanted, wrong = time.monotonic() - begin, tree(unbroken), []
    for number, shares in enumerate(kills):
        out = work / f"kill{number}"
        moments = [takes * share for share in shares]
        for moment in moments:
            run(verb, inputs, out, kill_after=moment)
        status = run(verb, inputs, out)
        text = f"kill {number} after {', '.join(f'{m:.2f}' for m in moments)} s"
        if status != 0 and not (status == 6 and verb.refuses):
            wrong.append(f"{text}: the next run ended with {status}")
        elif differing := differences(verb, tree(out), wanted):
            wrong.append(f"{text}: other bytes in {differing[:5]}")
        elif left := leftovers(out):
            wrong.append(f"{text}: left over {left[:5]}")
        else:
            shutil.rmtree(out)
    return wrong


def main() -> int:
    """Kill all verbs in turn and print a table; exit status 1 if something was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=20, help="per verb")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", help="a verb")
    options = parser.parse_args()
    rng, total = random.Random(options.seed), 0
    with tempfile.TemporaryDirectory() as name:
        inputs = Path(name) / "inputs"
        inputs.mkdir()
        prepare(inputs)
        for verb in VERBS:
            if options.only not in (None, verb.name):
                continue
            work = Path(name) / verb.name.replace(" ", "-")
            work.mkdir()
            kills = [[rng.random() for _ in range(rng.choice((1, 1, 2)))] for _ in range(options.kills)]
            wrong = check(verb, inputs, work, kills)
            print(f"{verb.name:<18}{options.kills:>5} kills  {len(wrong)} wrong", flush=True)
            for line in wrong[:10]:
                print(f"    {line}")
            total += len(wrong)
    return 1 if total else 0


if __name__ == "__main__":
    sys.exit(main())
