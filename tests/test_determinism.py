"""What decides must not depend on the wall clock, on chance, or on the order of a set; exceptions give a reason."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

NOT_HERE = {
    "edge/names.py": "an edge's name is random on purpose",
    "edge/datasets": "data sets are drawn with seeded generators of numpy, as their own tests prove",
    "edge/apps": "torch code",
    "edge/app.py": "torch code",
    "edge/check.py": "torch code, on a developer's own machine",
    "edge/compare.py": "torch code",
    "edge/examples.py": "torch code",
    "edge/models.py": "torch code",
    "edge/arrays.py": "torch code",
    "edge/exchange.py": "torch code",
    "edge/local": "torch code",
    "edge/work.py": "torch code",
    "edge/torch_learner.py": "torch code",
    "edge/trainer.py": "torch code",
    "hub/web": "the page, and what it is built with",
}
"""Files and folders that this test does not look at."""

ALLOWED = {
    ("hub/feed.py", "time.time"): "the default of `now`, which a simulation replaces",
    ("hub/server.py", "time.time"): "the default of `now`, which a simulation replaces",
    ("hub/runs.py", "secrets.token_hex"): "a run's id shall be like no other; nothing is decided by it",
    ("hub/server.py", "secrets.token_hex"): "the name of the evaluator beside the hub shall be like no other",
    ("hub/runs.py", "datetime.datetime.now"): "the name of a run folder, for people",
    ("hub/keys.py", "secrets.token_urlsafe"): "keys shall not be guessed",
    ("hub/views/watch.py", "time.time"): "the default of `now`, for a picture on a terminal",
    ("hub/views/watch.py", "random.Random()"): "the delays of viewers shall differ from each other",
    ("hub/views/watch.py", "secrets.token_hex"): "the name of a watcher shall be like no other; it decides nothing",
    ("shared/outlet.py", "os.urandom"): "masking keys shall not be guessed; they are taken off again on arrival",
    ("edge/__main__.py", "random.Random()"): "the delays of edges shall differ from each other",
    ("edge/script.py", "random.Random()"): "the delays of edges shall differ from each other",
}

FORBIDDEN = (
    "id", "time.time", "time.time_ns", "time.monotonic", "time.monotonic_ns", "time.perf_counter",
    "datetime.datetime.now", "datetime.datetime.today", "datetime.datetime.utcnow", "datetime.date.today",
    "os.urandom", "random", "secrets", "uuid", "numpy.random",
)  # fmt: skip
"""Names, and modules of which nothing may be used."""

SEEDED = ("random.Random", "numpy.random.default_rng", "numpy.random.Generator")
"""What may be used of them: generators; made without a seed, they are named with `()`."""

KEEPS_ORDER = {"list", "tuple", "enumerate", "iter", "map", "filter", "zip", "reversed", "sum", "join", "fromkeys"}
FORGETS_ORDER = {"sorted", "set", "frozenset", "len", "min", "max", "any", "all", "update", "issubset", "union"}
MAKES_SETS = {"union", "intersection", "difference", "symmetric_difference"}


def sources() -> list[Path]:
    found = sorted(path for part in ("hub", "edge", "shared") for path in (ROOT / part).rglob("*.py"))
    return [path for path in found if not any(skipped in (name(path), *parents(path)) for skipped in NOT_HERE)]


def name(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def parents(path: Path) -> list[str]:
    return [parent.as_posix() for parent in path.relative_to(ROOT).parents]


class Names(ast.NodeVisitor):
    """Finds uses of forbidden names, whatever they were imported as."""

    def __init__(self) -> None:
        self.means: dict[str, str] = {}
        self.found: list[tuple[str, int]] = []

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            self.means[alias.asname or alias.name.split(".")[0]] = (
                alias.name if alias.asname else alias.name.split(".")[0]
            )

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        for alias in node.names:
            self.means[alias.asname or alias.name] = f"{node.module}.{alias.name}"

    def visit_Call(self, node: ast.Call) -> None:
        whole = self.whole(node.func)
        if whole in SEEDED and not node.args and not node.keywords:
            self.found.append((f"{whole}()", node.lineno))
        if whole == "id":
            self.found.append((whole, node.lineno))
        self.generic_visit(node)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        whole = self.whole(node)
        if whole is None:
            self.generic_visit(node)
        else:
            self.judge(whole, node.lineno)

    def visit_Name(self, node: ast.Name) -> None:
        if isinstance(node.ctx, ast.Load) and node.id in self.means:
            self.judge(self.means[node.id], node.lineno)

    def whole(self, node: ast.expr) -> str | None:
        """Give the full name of what `node` says, if it is one."""
        if isinstance(node, ast.Name):
            return self.means.get(node.id, node.id if node.id == "id" else None)
        if isinstance(node, ast.Attribute) and (before := self.whole(node.value)):
            return f"{before}.{node.attr}"
        return None

    def judge(self, whole: str, line: int) -> None:
        if whole in SEEDED or any(one.startswith(whole + ".") for one in SEEDED):
            return
        if any(whole == one or whole.startswith(one + ".") for one in FORBIDDEN):
            self.found.append((whole, line))


def is_set_type(annotation: ast.expr | None) -> bool:
    """Tell whether an annotation says set or frozenset."""
    if isinstance(annotation, ast.Subscript):
        annotation = annotation.value
    return isinstance(annotation, ast.Name) and annotation.id in ("set", "frozenset")


def declared_sets() -> set[str]:
    """Collect the names of attributes and properties that are declared as sets anywhere."""
    sets = set[str]()
    for path in sources():
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.AnnAssign(target=ast.Name(id=key) | ast.Attribute(attr=key), annotation=kind):
                    sets |= {key} if is_set_type(kind) else set()
                case ast.FunctionDef(name=key, returns=kind):
                    sets |= {key} if is_set_type(kind) else set()
                case _:
                    pass
    return sets


class Sets(ast.NodeVisitor):
    """Finds iterations over sets whose order matters."""

    def __init__(self, declared: set[str]) -> None:
        self.declared = declared
        self.found: list[tuple[str, int]] = []
        self._local: set[str] = set()

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        outer, self._local = self._local, set(self._local)
        for argument in [*node.args.args, *node.args.kwonlyargs]:
            if is_set_type(argument.annotation):
                self._local.add(argument.arg)
        for inner in ast.walk(node):
            match inner:
                case ast.Assign(targets=[ast.Name(id=key)], value=value) if self.is_set(value):
                    self._local.add(key)
                case ast.Assign(targets=[ast.Tuple(elts=keys)], value=ast.Tuple(elts=values)):
                    self._local |= {
                        key.id
                        for key, value in zip(keys, values, strict=False)
                        if isinstance(key, ast.Name) and self.is_set(value)
                    }
                case ast.AnnAssign(target=ast.Name(id=key), annotation=kind) if is_set_type(kind):
                    self._local.add(key)
                case _:
                    pass
        self.generic_visit(node)
        self._local = outer

    visit_AsyncFunctionDef = visit_FunctionDef  # noqa: N815  # named by ast

    def is_set(self, node: ast.expr) -> bool:
        match node:
            case ast.Set() | ast.SetComp():
                return True
            case ast.Call(func=ast.Name(id="set" | "frozenset")):
                return True
            case ast.Call(func=ast.Subscript(value=ast.Name(id="set" | "frozenset"))):
                return True
            case ast.Call(func=ast.Attribute(attr=method)) if method in MAKES_SETS:
                return True
            case ast.BinOp(left=left, op=ast.BitOr() | ast.BitAnd() | ast.Sub() | ast.BitXor(), right=right):
                return self.is_set(left) or self.is_set(right)
            case ast.Name(id=key):
                return key in self._local
            case ast.Attribute(attr=key):
                return key in self.declared
            case ast.IfExp(body=body, orelse=orelse):
                return self.is_set(body) or self.is_set(orelse)
            case _:
                return False

    def visit_For(self, node: ast.For) -> None:
        self.judge(node.iter)
        self.generic_visit(node)

    def visit_Starred(self, node: ast.Starred) -> None:
        self.judge(node.value)
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        for argument in node.args:
            if called in KEEPS_ORDER:
                self.judge(argument)
            if called in FORGETS_ORDER and isinstance(argument, ast.GeneratorExp | ast.ListComp | ast.SetComp):
                argument.forgotten = True  # type: ignore[attr-defined, union-attr]
        self.generic_visit(node)

    def comprehension(self, node: ast.GeneratorExp | ast.ListComp | ast.DictComp | ast.SetComp) -> None:
        if not getattr(node, "forgotten", False) and not isinstance(node, ast.SetComp):
            for generator in node.generators:
                self.judge(generator.iter)
        self.generic_visit(node)

    visit_GeneratorExp = visit_ListComp = visit_DictComp = visit_SetComp = comprehension  # noqa: N815  # named by ast

    def judge(self, node: ast.expr) -> None:
        if self.is_set(node):
            self.found.append((f"order of {ast.unparse(node)}", node.lineno))


def findings(path: Path, declared: set[str]) -> Iterator[tuple[tuple[str, str], int]]:
    """Give what a file does that this test forbids, and the line."""
    tree = ast.parse(path.read_text("utf-8"))
    names, sets = Names(), Sets(declared)
    names.visit(tree)
    sets.visit(tree)
    for what, line in [*names.found, *sets.found]:
        yield (name(path), what), line


def test_nothing_depends_on_the_clock_on_chance_or_on_the_order_of_a_set() -> None:
    declared = declared_sets()
    assert {"cohort", "answered", "out", "awaited"} <= declared
    found = {key: line for path in sources() for key, line in findings(path, declared)}
    new = [f"{file}:{line}: {what}" for (file, what), line in found.items() if (file, what) not in ALLOWED]
    assert new == []
    assert sorted(set(ALLOWED) - set(found)) == [], "these exceptions are not needed any more"
    assert [skipped for skipped in NOT_HERE if not (ROOT / skipped).exists()] == []


@pytest.mark.parametrize(
    ("code", "what"),
    [
        ("import time\ntime.time()", "time.time"),
        ("from time import monotonic as now\nnow()", "time.monotonic"),
        ("from datetime import datetime\ndatetime.now()", "datetime.datetime.now"),
        ("import random\nrandom.choice([1])", "random.choice"),
        ("import random\nrandom.Random()", "random.Random()"),
        ("import numpy as np\nnp.random.default_rng()", "numpy.random.default_rng()"),
        ("import numpy as np\nnp.random.rand(3)", "numpy.random.rand"),
        ("import uuid\nuuid.uuid4()", "uuid.uuid4"),
        ("id(object())", "id"),
        ("for one in {1, 2}: pass", "order of {1, 2}"),
        ("def f(a):\n    b = set(a)\n    return [x for x in b]", "order of b"),
        ("def f(a: frozenset[str]):\n    return list(a - {1})", "order of a - {1}"),
        ("', '.join({'a', 'b'})", "order of {'a', 'b'}"),
        ("for one in round.cohort - round.answered: pass", "order of round.cohort - round.answered"),
    ],
)
def test_what_is_forbidden_is_found(code: str, what: str) -> None:
    names, sets = Names(), Sets({"cohort", "answered"})
    tree = ast.parse(code)
    names.visit(tree)
    sets.visit(tree)
    assert [found for found, _ in [*names.found, *sets.found]] == [what]


@pytest.mark.parametrize(
    "code",
    [
        "import random\ndice = random.Random(7)",
        "import numpy as np\nnp.random.default_rng([1, 2])",
        "for one in sorted({1, 2}): pass",
        "def f(a):\n    return sorted(x for x in set(a))",
        "def f(a: set[int]):\n    return {x + 1 for x in a}, len(a), 3 in a, max(a)",
        "def f(self):\n    return self.id, self.time()",
    ],
)
def test_what_is_allowed_is_not_found(code: str) -> None:
    names, sets = Names(), Sets(set())
    tree = ast.parse(code)
    names.visit(tree)
    sets.visit(tree)
    assert names.found + sets.found == []
