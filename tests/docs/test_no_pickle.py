"""No pickle: what the project writes is data, and nothing that it reads can name code to run."""

import ast
from pathlib import Path

ROOT = Path(__file__).parents[2]
PLACES = (*sorted(path.name for path in ROOT.glob("lidcam_*")), "benchmarks", "training", "export", "tools", "tests")

#: Modules whose files run code when they are read.
MODULES = {"pickle", "_pickle", "cloudpickle", "dill", "joblib", "marshal", "shelve", "jsonpickle"}
#: Functions that write or read pickles.
CALLS = {
    "torch.save", "torch.load", "torch.package",
    "torch.distributed.all_gather_object", "torch.distributed.gather_object",
    "torch.distributed.broadcast_object_list", "torch.distributed.scatter_object_list", "pandas.read_pickle",
    "yaml.load", "yaml.unsafe_load", "yaml.full_load",
}  # fmt: skip
#: Where they may stand, and why. The tests of lidcam_export write what other people bring.
FOREIGN = "checkpoints of other projects are in torch's format"
ALLOWED = {
    "training/lidcam_training/models/torch_file.py": f"{FOREIGN}; read by the restricted reader",
    "tests/lidcam_export": FOREIGN,
    "tests/lidcam_training/test_models.py": FOREIGN,
    "tests/docs/test_guides.py": FOREIGN,
    "tests/lidcam_training/test_state.py": "plants a pickle, which must not run",
    "tests/lidcam_rt/test_processes.py": "a Localizer given to a process is pickled as its path and options",
}


def uses(source):
    """(line, name) of every use of a module or function of the lists."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, name.name) for name in node.names if name.name.split(".")[0] in MODULES)
        elif isinstance(node, ast.ImportFrom):
            whole = [f"{node.module}.{name.name}" for name in node.names]
            yield from ((node.lineno, name) for name in whole if name.split(".")[0] in MODULES or name in CALLS)
        elif isinstance(node, ast.Attribute) and ast.unparse(node) in CALLS:
            yield node.lineno, ast.unparse(node)
        elif isinstance(node, ast.keyword) and node.arg in ("allow_pickle", "weights_only"):
            safe = node.arg == "weights_only"
            if not (isinstance(node.value, ast.Constant) and node.value.value is safe):
                yield node.value.lineno, f"{node.arg}={ast.unparse(node.value)}"


def test_sources():
    wrong, used = [], set()
    for place in PLACES:
        for path in sorted((ROOT / place).rglob("*.py")):
            name = path.relative_to(ROOT).as_posix()
            reason = next((key for key in ALLOWED if name == key or name.startswith(f"{key}/")), None)
            found = [f"{name}:{line}: {what}" for line, what in uses(path.read_text(encoding="utf-8"))]
            used |= {reason} if found else set()
            wrong += [] if reason else found
    assert not wrong, "write tensors with lidcam_training.tensor_file, the rest as JSON:\n" + "\n".join(wrong)
    assert used == set(ALLOWED), "exceptions that nothing needs any more"


def test_the_search_finds_them():
    text = "import pickle as p\nfrom torch import save\nfrom torch import load as t\nimport torch\ntorch.load(f)\n"
    text += "np.load(f, allow_pickle=True)\ntorch.load(f, weights_only=flag)\nfrom shelve import open\n"
    assert {line for line, _ in uses(text)} == {1, 2, 3, 5, 6, 7, 8}
    assert not list(uses("x = 'torch.save(model)'\nnp.load(f, allow_pickle=False)\nmodel.load(f, weights_only=True)\n"))
