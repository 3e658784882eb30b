"""The rules that hold the house up, one test each; every test lists all offenders."""

import ast
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path

from places import PROJECT

FLOORS = (
    ("__init__", "__main__"),
    ("api", "commands"),
    ("ablation", "ablation.report"),
    ("diagnostics",),
    ("export", "training"),
    ("interop",),
    ("evaluation",),
    ("prepare", "run"),
    ("build",),
    ("data", "losses"),
    ("config", "detection", "model", "scoring"),
    ("display",),
    ("compile", "distributed", "structures"),
    ("files",),
    ("errors",),
)
"""Top floor first. A module imports only from its own folder and from floors below it."""

FORBIDDEN = {
    "model": {"config", "data", "detection", "losses"},
    "detection": {"config", "data", "losses", "model"},
    "data": {"model", "losses"},
    "losses": {"model", "data"},
}
"""What must not know of each other, whatever the floors."""

KNOWS_CONFIG = {
    *(
        "build",
        "run",
        "training",
        "evaluation",
        "diagnostics",
        "interop",
        "export",
        "ablation",
        "commands",
        "api",
        "config",
    ),
}
"""Only these handle config objects; everything else receives values."""

TENSOR_LIBRARIES = ("torch", "torchvision", "numpy")
DRAWERS = {"utils", "util", "misc", "helpers", "helper", "common", "tools", "stuff"}

FILES = sorted((PROJECT / "retinanet").rglob("*.py"))


def module_of(path: Path) -> str:
    """`losses.focal`, `build`, `losses` for a package's own file."""
    parts = path.relative_to(PROJECT / "retinanet").with_suffix("").parts
    return ".".join(parts if parts[-1] != "__init__" or len(parts) == 1 else parts[:-1])


@cache
def trees() -> dict[str, ast.Module]:
    """The syntax tree of every module; parsing takes a second, so only where a test needs them."""
    return {module_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in FILES}


def room_of(module: str) -> str:
    return module.split(".")[0]


def floor_of(room: str) -> int:
    return next((number for number, rooms in enumerate(FLOORS) if room in rooms), -1)


def imports_of(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """Modules of this package that a file imports, also within functions, with the line."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.split(".")[0] == "retinanet":
            base = node.module.removeprefix("retinanet").removeprefix(".")
            for alias in node.names:
                full = f"{base}.{alias.name}".removeprefix(".")
                yield (full if full in trees() else base), node.lineno
        elif isinstance(node, ast.Import):
            yield from (
                (alias.name.removeprefix("retinanet").removeprefix("."), node.lineno)
                for alias in node.names
                if alias.name.split(".")[0] == "retinanet"
            )


def test_imports_go_strictly_downward() -> None:
    wrong = [f"{room} has no floor" for room in {room_of(module) for module in trees()} if floor_of(room) < 0]
    for module, tree in trees().items():
        room = room_of(module)
        for imported, line in imports_of(tree):
            below = room_of(imported)
            if below != room and not floor_of(below) > floor_of(room):
                wrong.append(f"{module}:{line} imports {imported}, which is not below it")
            if below in FORBIDDEN.get(room, ()):
                wrong.append(f"{module}:{line}: {room} must not know of {below}")
    assert not wrong, "\n".join(wrong)


def test_imports_have_no_circles() -> None:
    edges = {module: {name for name, _ in imports_of(tree)} & trees().keys() for module, tree in trees().items()}
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, " -> ".join((*path, module))
        if module not in done:
            for imported in sorted(edges[module]):
                visit(imported, (*path, module))
            done.add(module)

    for module in edges:
        visit(module, ())


def test_a_config_needs_no_tensor_library() -> None:
    """Every config and study of the project is resolved in a fresh process."""
    program = f"""
import sys
from pathlib import Path
from retinanet.ablation.study import load_study
from retinanet.config.load import load_config
from retinanet.config.dump import dump_config
from retinanet.config.schema import Config
for path in sorted(Path("configs").rglob("*.yaml")):
    load_study(path) if path.parent.name == "ablations" else dump_config(load_config(path, []), described=True)
print([name for name in {TENSOR_LIBRARIES} if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "[]\n"), done.stdout + done.stderr


def test_few_see_the_config() -> None:
    wrong = []
    for module, tree in trees().items():
        if room_of(module) not in KNOWS_CONFIG:
            wrong += [f"{module}:{line} sees {name}" for name, line in imports_of(tree) if room_of(name) == "config"]
    assert not wrong, "give them the values that they need:\n" + "\n".join(wrong)


def test_nothing_is_global_looked_up_or_tunnelled() -> None:
    wrong = []
    for module, tree in trees().items():
        for node in ast.walk(tree):
            line = f"{module}:{getattr(node, 'lineno', 0)}"
            if isinstance(node, ast.Global):
                wrong.append(f"{line}: no `global`")
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and node.args.kwarg:
                wrong.append(f"{line}: no **{node.args.kwarg.arg} in a signature")
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                called = node.func.id
                if called in ("eval", "exec", "__import__", "globals"):
                    wrong.append(f"{line}: no {called}()")
                # config.dump walks the schema's own field names.
                computed = called in ("getattr", "setattr") and not isinstance(node.args[1], ast.Constant)
                if computed and module != "config.dump":
                    wrong.append(f"{line}: {called} with a name that is computed")
            if isinstance(node, ast.Attribute) and node.attr == "import_module":
                wrong.append(f"{line}: modules are imported by name")
            if isinstance(node, ast.ImportFrom) and any(alias.name == "*" for alias in node.names):
                wrong.append(f"{line}: no import *")
    assert not wrong, "\n".join(wrong)


def test_importing_does_nothing() -> None:
    definitions = (ast.Import, ast.ImportFrom, ast.FunctionDef, ast.ClassDef, ast.Assign, ast.AnnAssign)
    guards = ("__name__ == '__main__'", "TYPE_CHECKING", "sys.platform == 'win32'")
    wrong = []
    for module, tree in trees().items():
        if tree.body and not ast.get_docstring(tree):
            wrong.append(f"{module} has no docstring that says what it is for")
        for node in tree.body:
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            guard = isinstance(node, ast.If) and ast.unparse(node.test) in guards
            if not (isinstance(node, definitions) or text or guard):
                wrong.append(f"{module}:{node.lineno} acts on import")
    assert not wrong, "\n".join(wrong)


def test_files_functions_and_names_stay_simple() -> None:
    """Small files and functions, no drawers, every public name defined in one module, few files at the top."""
    wrong = []
    homes: dict[str, set[str]] = defaultdict(set)
    for path in FILES:
        module, tree = module_of(path), trees()[module_of(path)]
        lines = len(path.read_text(encoding="utf-8").splitlines())
        if lines > 350:
            wrong.append(f"{module} has {lines} lines: split it by its jobs")
        if DRAWERS & set(module.split(".")):
            wrong.append(f"{module} is a drawer: name it for what is in it")
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and (node.end_lineno or 0) - node.lineno + 1 > 60:
                wrong.append(f"{module}.{node.name} has more than 60 lines")
        if room_of(module) != "commands":
            for node in tree.body:
                if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                    homes[node.name].add(module)
    wrong += [f"{name} is defined in {sorted(where)}" for name, where in homes.items() if len(where) > 1]
    at_top = [path.name for path in FILES if path.parent.name == "retinanet"]
    wrong += [f"{len(at_top)} files at the top of retinanet/: {at_top}"] if len(at_top) > 8 else []
    tests = [path.name for path in (PROJECT / "tests").rglob("*.py")]
    wrong += [
        f"tests/{name} is there twice: pytest imports tests by bare names" for name in {*tests} if tests.count(name) > 1
    ]
    assert not wrong, "\n".join(sorted(wrong))
