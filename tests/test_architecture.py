"""The rules that hold the house up: imports go down, few see the config, nothing is looked up by a string."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parent.parent
PACKAGE = "retinanet"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset({"__init__", "errors", "structures", "section"}),
    frozenset({"yaml_strict", "boxes", "cli", "compiled", "console", "distributed", "document", "neighbours"}),
    frozenset({"interrupts", "progress", "run_folder", "step_clock", "losses"}),
    frozenset({"config"}),
    frozenset({"config_faults", "anchors", "metrics", "optim", "scoring"}),
    frozenset({"config_file", "assign", "postprocess", "data", "model", "visualize"}),
    frozenset({"criterion", "checkpoint", "pictures", "figures"}),
    frozenset({"evaluate"}),
    frozenset({"build"}),
    frozenset({"train_state", "train_data", "interop", "anchor_fit", "config_diff"}),
    frozenset({"analysis"}),
    frozenset({"inference"}),
    frozenset({"export"}),
    frozenset({"engine", "predict", "loss_distribution"}),
    frozenset({"compare"}),
    frozenset({"ablation"}),
    frozenset({"tools"}),
)
"""Lowest first. A module imports only from layers below its own; a folder is one entry, free within but for circles."""

FORBIDDEN = {"model": {"losses", "assign", "data"}, "data": {"model"}, "losses": {"model", "data"}}
"""Apart from the layers: what must not know of each other although one is lower."""

KNOWS_CONFIG = frozenset(
    {"config", "config_faults", "config_file", "build", "checkpoint", "train_state", "train_data"}
    | {"engine", "evaluate", "inference", "predict", "loss_distribution", "ablation", "tools"}
    | {"interop", "anchor_fit", "config_diff", "export"}
)
"""Modules that may handle config objects anywhere; elsewhere only functions named build_* do."""

READS_A_SECTION = frozenset({"optim.describe_rescaling", "optim.parameter_groups"})
"""Helpers of a build_* function in its own file that take the section whole."""

FILES = sorted((PROJECT / PACKAGE).rglob("*.py")) + sorted((PROJECT / "tools").glob("*.py"))


def module_of(path: Path) -> str:
    """`losses.focal`, `engine`, `tools.train`."""
    parts = path.relative_to(PROJECT).with_suffix("").parts
    return ".".join(parts if parts[0] == "tools" else parts[1:])


TREES = {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def entry_of(module: str) -> str:
    return module.split(".")[0]


def imports_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Modules of ours that a file imports anywhere, also within functions, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: imports are absolute"
            if node.module == PACKAGE:
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif node.module and node.module.startswith(PACKAGE + "."):
                base = node.module.removeprefix(PACKAGE + ".")
                for alias in node.names:
                    yield (f"{base}.{alias.name}" if f"{base}.{alias.name}" in TREES else base), node.lineno
        elif isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name == PACKAGE or alias.name.startswith(PACKAGE + "."):
                    yield alias.name.removeprefix(PACKAGE).removeprefix("."), node.lineno


def functions_of(module: str) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def layer_of(entry: str) -> int:
    for level, entries in enumerate(LAYERS):
        if entry in entries:
            return level
    pytest.fail(f"{entry} is in no layer: give it its place in LAYERS of this test")


def test_every_file_is_seen() -> None:
    assert {"engine", "losses.focal", "model.retinanet", "data.loader", "tools.train"} <= TREES.keys()
    assert set().union(*LAYERS) >= {entry_of(module) for module in TREES}


@pytest.mark.parametrize("module", TREES)
def test_imports_go_strictly_downward(module: str) -> None:
    entry = entry_of(module)
    for imported, line in imports_of(TREES[module]):
        target = entry_of(imported)
        if target != entry:
            assert layer_of(target) < layer_of(entry), f"{module}:{line} imports {imported}, which is not below it"
        assert target not in FORBIDDEN.get(entry, set()), f"{module}:{line}: {entry} must not know of {target}"


def test_imports_have_no_circles() -> None:
    edges = {module: {name for name, _ in imports_of(tree)} & TREES.keys() for module, tree in TREES.items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in sorted(edges[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


@pytest.mark.parametrize("module", [module for module in TREES if entry_of(module) not in KNOWS_CONFIG])
def test_only_builders_see_the_config(module: str) -> None:
    names = {
        alias.asname or alias.name
        for node in ast.walk(TREES[module])
        if isinstance(node, ast.ImportFrom) and node.module in (f"{PACKAGE}.config", f"{PACKAGE}.config_file")
        for alias in node.names
    }
    for function in functions_of(module):
        if function.name.startswith("build_") or f"{module}.{function.name}" in READS_A_SECTION:
            continue
        used = {node.id for node in ast.walk(function) if isinstance(node, ast.Name)} & names
        assert not used, f"{module}.{function.name} sees {used}: give it the values it needs"
    for node in ast.walk(TREES[module]):
        if isinstance(node, ast.ClassDef):
            kinds = [field.annotation for field in node.body if isinstance(field, ast.AnnAssign)]
            named = {name.id for kind in kinds for name in ast.walk(kind) if isinstance(name, ast.Name)}
            assert not named & names, f"{module}.{node.name} keeps a config object"


@pytest.mark.parametrize("module", TREES)
def test_nothing_is_global_looked_up_or_tunnelled(module: str) -> None:
    for node in ast.walk(TREES[module]):
        line = f"{module}:{getattr(node, 'lineno', 0)}"
        assert not isinstance(node, ast.Global), f"{line}: no `global`"
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            assert node.args.kwarg is None, f"{line}: no **{node.args.kwarg.arg} in a signature"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            called = node.func.id
            assert called not in ("eval", "exec", "__import__", "globals"), f"{line}: no {called}()"
            if called in ("getattr", "setattr") and module != "config_file":
                # config_file walks the schema's own field names.
                assert isinstance(node.args[1], ast.Constant), f"{line}: {called} with a name that is computed"
        if isinstance(node, ast.Attribute):
            assert node.attr != "import_module", f"{line}: modules are imported by name"
        if isinstance(node, ast.ImportFrom):
            assert all(alias.name != "*" for alias in node.names), f"{line}: no import *"


def is_main_guard(node: ast.stmt) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) in ("__name__ == '__main__'", "TYPE_CHECKING")


@pytest.mark.parametrize("module", TREES)
def test_importing_does_nothing(module: str) -> None:
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    for node in TREES[module].body:
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        assert isinstance(node, definitions) or text or is_main_guard(node), f"{module}:{node.lineno} acts on import"


@pytest.mark.parametrize("path", FILES, ids=module_of)
def test_files_and_functions_stay_small(path: Path) -> None:
    lines = len(path.read_text(encoding="utf-8").splitlines())
    assert lines <= (60 if path.parent.name == "tools" else 350), f"{path.name} has {lines} lines: split it by its jobs"
    for function in functions_of(module_of(path)):
        length = (function.end_lineno or 0) - function.lineno + 1
        assert length <= 60, f"{path.name}: {function.name} has {length} lines"


def test_no_file_is_a_drawer() -> None:
    drawers = {"utils", "util", "misc", "helpers", "helper", "common", "tools", "stuff"}
    found = [path for path in FILES if drawers & set(path.relative_to(PROJECT).with_suffix("").parts[1:])]
    assert found == []


@pytest.mark.parametrize("module", TREES)
def test_every_file_says_what_it_is_for(module: str) -> None:
    if TREES[module].body:
        assert ast.get_docstring(TREES[module]), f"{module} has no docstring"


def test_test_files_have_names_of_their_own() -> None:
    names = [path.name for path in (PROJECT / "tests").rglob("*.py")]
    assert len(names) == len(set(names)), "pytest imports test files by their bare names"
    assert "__init__.py" not in names
