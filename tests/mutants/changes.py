"""The ways in which a module is broken: one small change each, by the operators that are usual for this.

A mutant is made of the module's syntax tree and put into the module that is loaded already: into the code of its
functions, or, where the change lies outside of them, into its constants, default values and classes too. So whoever has
imported a function or a class has the broken one, and no module is imported anew.
"""

from __future__ import annotations

import ast
import copy
import importlib
import inspect
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import CodeType, FunctionType, ModuleType

PROBE = "__reached__"
"""The name under which probed code finds what it calls with a statement's line."""
LONGEST = 110
"""Characters of a change that stand in a mutant's name."""
_COMPARED: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_CALLED |= {"is_": "is_not", "is_not": "is_", "in_": "not_in", "not_in": "in_", "and_": "or_", "or_": "and_"}
_LEFT_OUT = {
    *("where", "order_by", "limit", "with_for_update", "join", "on_conflict_do_nothing", "desc", "distinct"),
    *("strip", "lstrip", "rstrip", "lower", "spared", "ljust"),
}
"""Methods whose value is of the kind of their object, so that the call can be left out."""
_LISTED = {"where", "and_", "or_", "order_by", "set", "values"}
"""Functions that take any number of arguments, each of which can be left out."""


@dataclass(frozen=True)
class Site:
    """Where a node stands in the tree."""

    parent: ast.AST
    field: str
    index: int | None

    def put(self, node: ast.AST | None) -> None:
        """Let this node, or none, stand here."""
        if self.index is None:
            setattr(self.parent, self.field, node)
        else:
            getattr(self.parent, self.field)[self.index] = node


@dataclass(frozen=True)
class Mutant:
    """One change of one module."""

    name: str
    """Module, function and change, in words that stay the same wherever in the module the function stands."""
    module: str
    function: str
    """Qualified; empty outside of functions."""
    line: int
    """Of the statement in which the change lies."""
    bound: str
    """The function or class in whose head, or the name in whose value, a change outside of functions lies."""
    _tree: ast.Module
    _site: Site
    _old: ast.AST
    _new: ast.AST

    def code(self) -> CodeType:
        """The module with the change."""
        self._site.put(self._new)
        try:
            return compile(ast.fix_missing_locations(self._tree), self.module, "exec")
        finally:
            self._site.put(self._old)

    def apply(self) -> None:
        """Break the loaded module so, for good: in a process that ends soon."""
        transplant(importlib.import_module(self.module), self.code(), only=self.function)


class Module:
    """One module's tree, and its mutants."""

    def __init__(self, name: str) -> None:
        """`name` is dotted; the module is imported."""
        self.name = name
        self.loaded = importlib.import_module(name)
        self._tree = ast.parse(inspect.getsource(self.loaded))
        self._found: list[Mutant] = []
        self._names: Counter[str] = Counter()
        self.mentions: dict[str, set[str]] = {}
        """Names outside of functions, and those that their values mention."""
        self.readers: dict[str, set[int]] = {}
        """Names, and the lines of the statements within functions that mention them."""
        self.first_lines: dict[str, int] = {}
        """Functions, and the line of their first statement."""
        self.last_lines: dict[str, int] = {}

    def mutants(self) -> Sequence[Mutant]:
        """All of them, in the order of the module."""
        if not self._found:
            for index, statement in enumerate(self._tree.body):
                self._statement(statement, Site(self._tree, "body", index), "", "")
        return self._found

    def probed(self) -> CodeType:
        """The module whose functions call PROBE with the line of each statement that they come to."""
        tree = copy.deepcopy(self._tree)
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef):
                for statement in node.body:
                    _probe(statement)
                node.body = list(_with_probes(node.body))
        return compile(ast.fix_missing_locations(tree), self.name, "exec")

    # The walk

    def _statement(self, node: ast.stmt, site: Site, function: str, owner: str) -> None:
        """`owner` is the class within which the statement stands."""
        match node:
            case ast.Import() | ast.ImportFrom() | ast.Assert() | ast.Pass():
                return
            case ast.Expr(value=ast.Constant()):  # a docstring
                return
            case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id="log")))):
                return
            case ast.Assign(value=ast.Constant(value=str()) | ast.JoinedStr()) if not function:
                return  # a text that tests compare with the very constant
            case ast.If(test=ast.Name(id="TYPE_CHECKING")):
                return
            case ast.Assign(value=ast.Call(func=ast.Name(id="TypeVar" | "ParamSpec"))):
                return
        within = function
        bound = owner
        if isinstance(node, ast.FunctionDef):
            within = function or f"{owner}.{node.name}".lstrip(".")
            if not function:
                body = [s for s in node.body if not _is_docstring(s)]
                self.first_lines[within] = body[0].lineno if body else node.lineno
                self.last_lines[within] = node.end_lineno or node.lineno
        elif isinstance(node, ast.ClassDef):
            bound = node.name
        elif not function and not owner:
            targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
            bound = next((t.id for t in targets if isinstance(t, ast.Name)), "")
            self.mentions[bound] = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
        if function and not isinstance(node, ast.FunctionDef):
            for part in ast.walk(node):
                if isinstance(part, ast.Name):
                    self.readers.setdefault(part.id, set()).add(node.lineno)
        if function:
            for text, new in _changed_statements(node):
                self._note(text, node, new, site, function, node.lineno, bound)
        for field, value in ast.iter_fields(node):
            if field in {"annotation", "returns", "decorator_list", "bases", "targets", "target", "type_comment"}:
                continue
            for index, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
                here = Site(node, field, index)
                if isinstance(part, ast.stmt):
                    self._statement(part, here, within if isinstance(node, ast.FunctionDef) else function, bound)
                elif isinstance(part, ast.arguments):
                    self._defaults(part, function, node, within)
                elif isinstance(part, ast.ExceptHandler):
                    self._handler(part, function, node, bound)
                elif isinstance(part, ast.match_case):
                    self._case(part, function, node, bound)
                elif isinstance(part, ast.withitem):
                    self._expression(part.context_expr, Site(part, "context_expr", None), function, node.lineno, bound)
                elif isinstance(part, ast.expr):
                    self._expression(part, here, function, node.lineno, bound)

    def _defaults(self, arguments: ast.arguments, function: str, node: ast.stmt, within: str) -> None:
        for field in ("defaults", "kw_defaults"):
            for index, value in enumerate(getattr(arguments, field)):
                if value is not None:
                    self._expression(value, Site(arguments, field, index), function, node.lineno, within)

    def _handler(self, handler: ast.ExceptHandler, function: str, node: ast.stmt, bound: str) -> None:
        if handler.type is not None:
            never = ast.Tuple(elts=[], ctx=ast.Load())
            text = f"except {ast.unparse(handler.type)} → except ()"
            self._note(text, handler.type, never, Site(handler, "type", None), function, node.lineno, bound)
        for index, part in enumerate(handler.body):
            self._statement(part, Site(handler, "body", index), function, bound)

    def _case(self, case: ast.match_case, function: str, node: ast.stmt, bound: str) -> None:
        if case.guard is not None:
            text = f"case … if {ast.unparse(case.guard)} → case …"
            always = ast.Constant(value=True)
            self._note(text, case.guard, always, Site(case, "guard", None), function, node.lineno, bound)
            self._expression(case.guard, Site(case, "guard", None), function, node.lineno, bound)
        for index, part in enumerate(case.body):
            self._statement(part, Site(case, "body", index), function, bound)

    def _expression(self, node: ast.expr, site: Site, function: str, line: int, bound: str) -> None:
        if isinstance(site.parent, ast.Call) and ast.unparse(site.parent.func) == "sa.bindparam":
            return  # under another name the statement is none
        for text, new in _changed_expressions(node, site):
            self._note(text, node, new, site, function, line, bound)
        if isinstance(node, ast.JoinedStr):
            for part in node.values:
                if isinstance(part, ast.FormattedValue):
                    self._expression(part.value, Site(part, "value", None), function, line, bound)
            return
        for field, value in ast.iter_fields(node):
            for index, part in enumerate(value) if isinstance(value, list) else [(None, value)]:
                if isinstance(part, ast.keyword):
                    self._expression(part.value, Site(part, "value", None), function, line, bound)
                elif isinstance(part, ast.comprehension):
                    self._expression(part.iter, Site(part, "iter", None), function, line, bound)
                    for number, test in enumerate(part.ifs):
                        self._expression(test, Site(part, "ifs", number), function, line, bound)
                elif isinstance(part, ast.expr):
                    self._expression(part, Site(node, field, index), function, line, bound)

    def _note(self, text: str, old: ast.AST, new: ast.AST, site: Site, function: str, line: int, bound: str) -> None:
        name = f"{self.name} {function or bound or '(module)'}: {_short(text)}"
        self._names[name] += 1
        if self._names[name] > 1:
            name = f"{name} #{self._names[name]}"
        ast.copy_location(new, old)
        self._found.append(Mutant(name, self.name, function, line, bound, self._tree, site, old, new))


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def _is_docstring(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)


def _changed_statements(node: ast.stmt) -> Iterator[tuple[str, ast.stmt]]:
    said = ast.unparse(node)
    match node:
        case ast.Expr(value=ast.Yield()):
            return
        case ast.Expr() | ast.AugAssign() | ast.Raise():
            yield f"without {said}", ast.Pass()
        case ast.Assign(targets=[ast.Attribute() | ast.Subscript()]):
            yield f"without {said}", ast.Pass()
        case ast.Return(value=None):
            yield "without return", ast.Pass()
        case ast.Return(value=ast.Constant(value=None | False)):  # which callers take for the same
            return
        case ast.Return():
            yield f"{said} → return None", ast.Return(value=ast.Constant(value=None))
        case ast.Continue():
            yield "continue → break", ast.Break()
        case ast.Break():
            yield "break → continue", ast.Continue()
        case ast.With(items=[ast.withitem(context_expr=ast.Call(func=ast.Name(id="suppress")))]):
            yield (
                f"without {ast.unparse(node.items[0])}",
                ast.If(test=ast.Constant(value=True), body=node.body, orelse=[]),
            )


def _changed_expressions(node: ast.expr, site: Site) -> Iterator[tuple[str, ast.expr]]:
    said = ast.unparse(node)
    for new in _replaced(node):
        yield f"{said} → {ast.unparse(new)}", new
    tested = site.field in {"test", "ifs", "guard"}
    other = ast.Compare | ast.BoolOp | ast.Constant | ast.NamedExpr | ast.UnaryOp  # which have changes of their own
    if tested and not isinstance(node, other):
        yield f"{site.field} {said} → not", ast.UnaryOp(op=ast.Not(), operand=node)
    if isinstance(node, ast.Call):
        called = ast.unparse(node.func).rpartition("\n")[2][-30:]
        for index, keyword in enumerate(node.keywords):
            less = [k for k in node.keywords if k is not node.keywords[index]]
            new = ast.Call(func=node.func, args=node.args, keywords=less)
            yield f"{called}(…) without {keyword.arg or '**'}={ast.unparse(keyword.value)}", new
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        if name in _LISTED and len(node.args) > 1:
            for argument in node.args:
                new = ast.Call(func=node.func, args=[a for a in node.args if a is not argument], keywords=node.keywords)
                yield f"{called}(…) without {ast.unparse(argument)}", new
        if isinstance(node.func, ast.Attribute) and name in _LEFT_OUT:
            given = ", ".join([*map(ast.unparse, node.args), *map(ast.unparse, node.keywords)])
            yield f"without .{name}({given})", node.func.value


def _replaced(node: ast.expr) -> Iterator[ast.expr]:
    match node:
        case ast.Compare(ops=[op]) if type(op) in _COMPARED:
            yield ast.Compare(left=node.left, ops=[_COMPARED[type(op)]()], comparators=node.comparators)
        case ast.BoolOp():
            yield ast.BoolOp(op=ast.Or() if isinstance(node.op, ast.And) else ast.And(), values=node.values)
            for one in node.values:
                rest = [value for value in node.values if value is not one]
                yield rest[0] if len(rest) == 1 else ast.BoolOp(op=node.op, values=rest)
        case ast.UnaryOp(op=ast.Not() | ast.Invert() | ast.USub()):
            yield node.operand
        case ast.BinOp(op=op) if type(op) in _COMPUTED:
            yield ast.BinOp(left=node.left, op=_COMPUTED[type(op)](), right=node.right)
        case ast.Constant(value=bool(value)):
            yield ast.Constant(value=not value)
        case ast.Constant(value=int(number) | float(number)):
            yield ast.Constant(value=number + 1)
        case ast.Constant(value=str(text)):
            yield ast.Constant(value="" if text else "mutant")
        case ast.JoinedStr():
            yield ast.Constant(value="")
        case ast.Call(func=ast.Name(id=name)) if name in _CALLED:
            other = ast.Name(id=_CALLED[name], ctx=ast.Load())
            yield ast.Call(func=other, args=node.args, keywords=node.keywords)
        case ast.Call(func=ast.Attribute(attr=name)) if name in _CALLED:
            method = ast.Attribute(value=node.func.value, attr=_CALLED[name], ctx=ast.Load())  # type: ignore[attr-defined]
            yield ast.Call(func=method, args=node.args, keywords=node.keywords)


def _with_probes(body: list[ast.stmt]) -> Iterator[ast.stmt]:
    for statement in body:
        if _is_docstring(statement):
            yield statement
            continue
        call = ast.Call(
            func=ast.Name(id=PROBE, ctx=ast.Load()), args=[ast.Constant(value=statement.lineno)], keywords=[]
        )
        yield ast.copy_location(ast.Expr(value=call), statement)
        yield statement


def _probe(node: ast.AST) -> None:
    """Put probes into all blocks below, except for those of functions, which have their own turn."""
    if isinstance(node, ast.FunctionDef):
        return
    for part in ast.iter_child_nodes(node):
        if isinstance(part, ast.stmt | ast.ExceptHandler | ast.match_case):
            _probe(part)
    for field in ("body", "orelse", "finalbody"):
        block = getattr(node, field, None)
        if isinstance(block, list) and block and isinstance(block[0], ast.stmt):
            setattr(node, field, list(_with_probes(block)))


# Into the loaded module


def transplant(module: ModuleType, code: CodeType, *, only: str = "") -> None:
    """Let the loaded module do what the code says: in that function alone, or, where none is named, in all of it."""
    made = dict(vars(module))
    exec(code, made)
    if only:
        _receive(_found(vars(module), only), _found(made, only))
        return
    for name, new in made.items():
        old = vars(module).get(name)
        if isinstance(old, type) and old.__module__ == module.__name__:
            for part, value in list(vars(new).items()):
                _receive_member(old, part, value)
        elif isinstance(_plain(old), FunctionType):
            if _plain(old).__module__ == module.__name__:
                _receive(_plain(old), _plain(new))
        elif old is not new and not name.startswith("__"):
            for other in list(sys.modules.values()):  # who has imported the constant
                if getattr(other, "__dict__", {}).get(name) is old:
                    setattr(other, name, new)


def _receive_member(owner: type, name: str, value: object) -> None:
    old = vars(owner).get(name)
    if isinstance(_plain(old), FunctionType) and isinstance(_plain(value), FunctionType):
        _receive(_plain(old), _plain(value))
    elif not name.startswith("__") and not hasattr(value, "__set_name__") and not hasattr(value, "__get__"):
        setattr(owner, name, value)


def _plain(found: object) -> FunctionType:
    """The function within what decorators have made of it."""
    found = found.fget if isinstance(found, property) else getattr(found, "__func__", found)
    return inspect.unwrap(found) if callable(found) else found  # type: ignore[return-value]


def _found(names: dict[str, object], where: str) -> FunctionType:
    first, _, rest = where.partition(".")
    found = names[first]
    for name in rest.split(".") if rest else ():
        found = vars(found)[name]
    _forget(found)
    return _plain(found)


def _forget(cached: object) -> None:
    clear: Callable[[], None] | None = getattr(cached, "cache_clear", None)
    if clear:
        clear()


def _receive(old: FunctionType, new: FunctionType) -> None:
    old.__code__ = new.__code__
    old.__defaults__, old.__kwdefaults__ = new.__defaults__, new.__kwdefaults__
