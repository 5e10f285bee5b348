"""What the sources say of a struct and its fields: the strings that stand below them."""

from __future__ import annotations

import ast
import inspect
import sys
import textwrap
from functools import cache
from itertools import pairwise


def doc_of(found: type) -> str:
    """Its own docstring, on one line; empty where it has none."""
    own = found.__dict__.get("__doc__") or ""
    # An enum without one has Python's.
    return "" if own.startswith("An enumeration") else _joined(own)


def field_docs(found: type) -> dict[str, str]:
    """By field or member, of the class itself and those it is made from; where there is
    nothing, what is said of the type's name (as JobRef)."""
    docs: dict[str, str] = {}
    for base in reversed(found.__mro__):
        if base.__module__.startswith("workerd."):
            docs |= _written(base)
    return docs


def _written(found: type) -> dict[str, str]:
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(found))).body
    assert isinstance(tree, ast.ClassDef)
    names = _names(found.__module__)
    docs: dict[str, str] = {}
    for field in tree.body:
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            used = {node.id for node in ast.walk(field.annotation) if isinstance(node, ast.Name)}
            docs[field.target.id] = " ".join(names[name] for name in used & names.keys())
    return docs | _below(tree.body)


@cache
def _names(module: str) -> dict[str, str]:
    """What is said of the names that a module gives to types, and that it imports."""
    tree = ast.parse(inspect.getsource(sys.modules[module]))
    docs: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("workerd."):
            theirs = _names(str(node.module))
            docs |= {name.name: theirs[name.name] for name in node.names if name.name in theirs}
    return docs | _below(tree.body)


def _below(body: list[ast.stmt]) -> dict[str, str]:
    """What stands below each assignment."""
    docs = {}
    for field, below in pairwise(body):
        target = field.target if isinstance(field, ast.AnnAssign) else None
        if isinstance(field, ast.Assign):
            target = field.targets[0]  # type: ignore[assignment]
        if isinstance(target, ast.Name) and isinstance(below, ast.Expr) and isinstance(below.value, ast.Constant):
            docs[target.id] = _joined(str(below.value.value))
    return docs


def _joined(text: str) -> str:
    return " ".join(inspect.cleandoc(text).split())
