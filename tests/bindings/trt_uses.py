"""Which TensorRT names a source uses, and whether the bindings that can be imported have them.

`python trt_uses.py SOURCE...` follows the objects through the sources: `trt.Builder(...)` is a Builder, what a method
returns is what the bindings' docstring says, parameters are what their annotations say. It prints JSON: the names it
found, and what is wrong with them (unknown names, keywords, numbers of arguments, properties that cannot be set).
"""

from __future__ import annotations

import ast
import dataclasses
import importlib
import inspect
import json
import pathlib
import sys
from typing import Any

from trt_signatures import signatures

OWN = "ours"


@dataclasses.dataclass(frozen=True)
class Of:
    """A value of one of the bindings' classes."""

    cls: type


@dataclasses.dataclass(frozen=True)
class Method:
    cls: type
    name: str


@dataclasses.dataclass(frozen=True)
class Own:
    """A value of a class of the sources, by its name."""

    name: str


class Reader(ast.NodeVisitor):
    """Evaluates the expressions of the sources as far as they are about TensorRT."""

    def __init__(self, trt: Any, alias: str = "trt") -> None:
        self.trt = trt
        self.alias = alias
        self.names: set[str] = set()
        self.faults: set[str] = set()
        self.globals: dict[str, Any] = {}
        self.returns: dict[str, Any] = {}
        self.members: dict[tuple[str, str], Any] = {}
        self.scope: dict[str, Any] = {}
        self.where = ""

    def declare(self, tree: ast.Module) -> None:
        """First pass: what the sources' own functions return and their classes hold."""
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef) and node.returns is not None:
                self.returns[node.name] = self.annotation(node.returns)
            if isinstance(node, ast.ClassDef):
                self.globals[node.name] = Own(node.name)
                for item in node.body:
                    if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                        self.members[node.name, item.target.id] = self.annotation(item.annotation)
        for node in tree.body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.globals[node.targets[0].id] = self.value(node.value)

    def check(self, tree: ast.Module, where: str) -> None:
        """Second pass, through everything."""
        self.where = where
        self.visit(tree)

    def annotation(self, node: ast.expr) -> Any:
        if isinstance(node, ast.BinOp):
            return self.annotation(node.left) or self.annotation(node.right)
        if isinstance(node, ast.Name):
            return self.globals.get(node.id, Own(node.id))
        found = self.value(node)
        return Of(found) if isinstance(found, type) else None

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        for base in node.bases:
            cls = self.value(base)
            if isinstance(cls, type) and cls.__module__.startswith(self.trt.__name__.partition(".")[0]):
                self.members[node.name, OWN] = cls
                self._check_overrides(node, cls)
        for item in node.body:
            if isinstance(item, ast.FunctionDef):
                self._function(item, Own(node.name))
            else:
                self.visit(item)

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        self._function(node, None)

    def _function(self, node: ast.FunctionDef, owner: Own | None) -> None:
        outer = self.scope
        self.scope = dict(outer)
        arguments = [*node.args.args, *node.args.kwonlyargs]
        if owner is not None and arguments:
            self.scope[arguments[0].arg] = owner
        for argument in arguments:
            if argument.annotation is not None:
                self.scope[argument.arg] = self.annotation(argument.annotation)
        for statement in node.body:
            self.visit(statement)
        self.scope = outer

    def visit_Assign(self, node: ast.Assign) -> None:
        value = self.value(node.value)
        for target in node.targets:
            if isinstance(target, ast.Name):
                self.scope[target.id] = value
            elif isinstance(target, ast.Attribute):
                owner = self.value(target.value)
                if isinstance(owner, Own):
                    self.members.setdefault((owner.name, target.attr), value)
                elif isinstance(owner, Of):
                    self._check_settable(owner.cls, target.attr, target.lineno)
        self.generic_visit(node)

    def visit_ListComp(self, node: ast.ListComp) -> None:
        self._comprehension(node)

    def visit_GeneratorExp(self, node: ast.GeneratorExp) -> None:
        self._comprehension(node)

    def _comprehension(self, node: ast.ListComp | ast.GeneratorExp) -> Any:
        outer = self.scope
        self.scope = dict(outer)
        for generator in node.generators:
            items = self.value(generator.iter)
            if isinstance(generator.target, ast.Name):
                self.scope[generator.target.id] = items[0] if isinstance(items, list) and items else None
            self.visit(generator.iter)
            for condition in generator.ifs:
                self.visit(condition)
        element = self.value(node.elt)
        self.visit(node.elt)
        self.scope = outer
        return [element]

    def generic_visit(self, node: ast.AST) -> None:
        if isinstance(node, ast.expr):
            self.value(node)
        super().generic_visit(node)

    def value(self, node: ast.expr) -> Any:
        """A class or an enum's member of the bindings, `Of` a class, a method, something of ours, or None."""
        if isinstance(node, ast.Name):
            if node.id == self.alias:
                return self.trt
            return self.scope.get(node.id, self.globals.get(node.id))
        if isinstance(node, ast.Attribute):
            return self._attribute(self.value(node.value), node.attr, node.lineno)
        if isinstance(node, ast.Call):
            return self._call(node)
        if isinstance(node, ast.ListComp | ast.GeneratorExp):
            return self._comprehension(node)
        return None

    def _attribute(self, owner: Any, name: str, line: int) -> Any:
        if isinstance(owner, Own):
            if (owner.name, name) in self.members:
                return self.members[owner.name, name]
            base = self.members.get((owner.name, OWN))
            return Method(base, name) if base is not None and hasattr(base, name) else None
        if owner is self.trt or isinstance(owner, type):
            full = name if owner is self.trt else f"{owner.__name__}.{name}"
            self.names.add(full)
            if not hasattr(owner, name):
                self._fault(line, f"{full} does not exist")
                return None
            found = getattr(owner, name)
            return found if isinstance(found, type) or not callable(found) else Method(owner, name)
        if isinstance(owner, Of):
            full = f"{owner.cls.__name__}.{name}"
            self.names.add(full)
            if not hasattr(owner.cls, name):
                self._fault(line, f"{full} does not exist")
                return None
            found = getattr(owner.cls, name)
            return Method(owner.cls, name) if callable(found) else None
        return None

    def _call(self, node: ast.Call) -> Any:
        function = self.value(node.func)
        if isinstance(node.func, ast.Name) and node.func.id == "getattr" and len(node.args) == 3:
            owner, name = self.value(node.args[0]), node.args[1]
            if isinstance(owner, type) and isinstance(name, ast.Constant):
                self.names.add(f"{owner.__name__}.{name.value} (optional)")
            return None
        keywords = {k.arg for k in node.keywords if k.arg is not None}
        if isinstance(function, type):
            self._check_call(function, "__init__", len(node.args), keywords, node.lineno)
            return Of(function)
        if isinstance(function, Method):
            is_unbound = isinstance(node.func, ast.Attribute) and isinstance(self.value(node.func.value), type)
            return self._check_call(function.cls, function.name, len(node.args) - is_unbound, keywords, node.lineno)
        if isinstance(function, Own):
            return function
        if isinstance(node.func, ast.Name):
            return self.returns.get(node.func.id)
        return None

    def _check_call(self, cls: type, name: str, positional: int, keywords: set[str], line: int) -> Any:
        known = signatures(cls, name)
        fitting = [s for s in known if s.accepts(positional, keywords)]
        if known and not fitting:
            given = f"{positional} arguments" + "".join(f" and {k}" for k in sorted(keywords))
            self._fault(line, f"{cls.__name__}.{name} takes {[s.parameters for s in known]}, not {given}")
        for keyword in keywords:
            self.names.add(f"{cls.__name__}.{name}({keyword}=)")
        returned = fitting[0].returns.split(".")[-1].split("::")[-1] if fitting else ""
        found = getattr(self.trt, returned, getattr(self.trt, returned.removeprefix("I"), None)) if returned else None
        return Of(found) if isinstance(found, type) else None

    def _check_settable(self, cls: type, name: str, line: int) -> None:
        self.names.add(f"{cls.__name__}.{name} =")
        found = getattr(cls, name, None)
        if found is None:
            self._fault(line, f"{cls.__name__}.{name} does not exist")
        elif isinstance(found, property) and found.fset is None:
            self._fault(line, f"{cls.__name__}.{name} cannot be set")

    def _check_overrides(self, node: ast.ClassDef, cls: type) -> None:
        for item in node.body:
            if not isinstance(item, ast.FunctionDef) or item.name.startswith("_"):
                continue
            if not hasattr(cls, item.name):
                self._fault(item.lineno, f"{cls.__name__}.{item.name} does not exist")
                continue
            self.names.add(f"{cls.__name__}.{item.name}")
            names = tuple(argument.arg for argument in item.args.args[1:])
            known = signatures(cls, item.name)
            if known and names not in [s.parameters for s in known]:
                self._fault(item.lineno, f"{cls.__name__}.{item.name} takes {known[0].parameters}, not {names}")

    def _fault(self, line: int, text: str) -> None:
        self.faults.add(f"{self.where}:{line}: {text}")


def read(trt: Any, sources: list[pathlib.Path]) -> Reader:
    """All sources, each seeing what the others return."""
    reader = Reader(trt)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sources]
    for _ in range(2):  # the second time knows the classes that stand later or in another file
        for tree in trees:
            reader.declare(tree)
    for tree, path in zip(trees, sources, strict=True):
        reader.check(tree, path.name)
    return reader


def unlike(trt: Any, double: Any) -> list[str]:
    """Where a double of the bindings has names or parameters that they have not."""
    faults = []
    for cls in double.CLASSES:
        real = getattr(trt, cls.__name__, None)
        if real is None:
            faults.append(f"{cls.__name__} does not exist")
            continue
        for name, member in vars(cls).items():
            if name.startswith("_") or (cls.__name__, name) in OLD_ONLY:
                continue
            if not hasattr(real, name):
                faults.append(f"{cls.__name__}.{name} does not exist")
            elif inspect.isfunction(member):
                parameters = tuple(inspect.signature(member).parameters)[1:]
                known = [s.parameters for s in signatures(real, name)]
                # The double may leave out parameters at the end that have a default.
                if not any(k[: len(parameters)] == parameters for k in known):
                    faults.append(f"{cls.__name__}.{name} takes {known}, not {parameters}")
    return faults


OLD_ONLY = {("NetworkDefinitionCreationFlag", "EXPLICIT_BATCH")}
"""What the double has because TensorRT 10 has it, and 11 has not."""


if __name__ == "__main__":
    bindings = importlib.import_module("tensorrt_bindings")
    reader = read(bindings, [pathlib.Path(p) for p in sys.argv[1:]])
    import tensorrt_double

    print(
        json.dumps(
            {
                "version": bindings.__version__,
                "names": sorted(reader.names),
                "faults": sorted(reader.faults),
                "unlike": unlike(bindings, tensorrt_double),
            }
        )
    )
