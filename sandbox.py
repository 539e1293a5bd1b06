"""A Python REPL for code that nobody has read: what language models write runs, nothing gets out.

    with Sandbox({"context": text}, tools={"ask": ask}) as repl:
        result = repl.run("len(context)")  # Result(output="12\\n", error=None, final=None)

Two walls stand around a cell. The *process* is the boundary: a worker with an empty environment and
no files, sockets, children or signals, bounded in memory and time, which can do nothing but compute
and answer. It holds no secret, and the host takes bounded JSON from it and believes none of it.
Resource limits stop opening and forking (not forking by root), and on Linux filling the memory; a
seccomp filter behind them, on Linux on x86-64 and arm64, stops every system call but some thirty.

The *language*: RestrictedPython compiles each cell under the policy below. Names of internals are
refused, attributes that could lead out go through a guard, imports give views of modules, and only
what a cell has made can be written to. It stops early, with advice, what is known against
RestrictedPython and REPLs. On macOS, which has no filter, it and the limits stand alone: there code
that broke it could still delete files, start programs and send signals.

Not promised: that a cell cannot read or spoil its own session, or the library of its own worker;
that what it passes to tools is harmless. Not here: models, HTTP, threads, Windows.
"""

# ruff: noqa: BLE001, S102, SIM115
import abc
import ast
import atexit
import builtins
import collections
import copy
import csv
import ctypes
import dataclasses
import datetime
import decimal
import enum
import functools
import gc
import importlib
import inspect
import io
import json
import linecache
import mmap
import os
import re
import signal
import socket
import string
import struct
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import types
import typing
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stdout, suppress
from functools import cache, partial
from math import inf
from time import monotonic

from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

try:
    import resource
except ImportError:
    raise ImportError("this needs Linux or macOS; on Windows, run it under WSL") from None

# ------------------------------------------------------------------------------ tables: what may be

MODULE_TABLE = """
    __future__ annotations;
    abc ABC abstractmethod;
    ast literal_eval;
    base64 *;
    binascii *;
    bisect *;
    calendar * -LocaleTextCalendar -LocaleHTMLCalendar;
    cmath *;
    collections * -UserString;
    collections.abc *;
    contextlib contextmanager suppress nullcontext closing ExitStack;
    copy *;
    csv * -register_dialect -unregister_dialect;
    dataclasses dataclass field fields asdict astuple replace is_dataclass InitVar KW_ONLY
        MISSING FrozenInstanceError;
    datetime *;
    decimal * -DefaultContext -BasicContext -ExtendedContext;
    difflib *;
    enum Enum IntEnum StrEnum Flag IntFlag auto unique;
    fnmatch *;
    fractions *;
    functools partial reduce lru_cache cache cached_property cmp_to_key total_ordering wraps;
    graphlib *;
    hashlib * -algorithms_available -algorithms_guaranteed;
    heapq *;
    html *;
    html.parser *;
    io StringIO BytesIO;
    itertools *;
    json *;
    json.decoder *;
    math *;
    numbers *;
    operator *;
    os sep linesep;
    os.path basename commonprefix dirname join normpath split splitext;
    pprint *;
    queue Queue LifoQueue PriorityQueue SimpleQueue Empty Full;
    random *;
    re *;
    statistics *;
    string * -Formatter;
    struct *;
    sys exit maxsize version version_info float_info byteorder getsizeof getrecursionlimit;
    textwrap * -TextWrapper;
    time time time_ns perf_counter process_time monotonic strftime strptime gmtime localtime
        mktime;
    traceback;
    types SimpleNamespace MappingProxyType NoneType;
    typing Any Union Optional List Dict Set FrozenSet Tuple Callable Iterable Iterator Sequence
        Mapping MutableMapping MutableSequence Generator Collection Hashable Sized Literal
        TypeVar ParamSpec Concatenate Generic NamedTuple Protocol TypedDict
        Counter DefaultDict Deque OrderedDict NoReturn ClassVar Final TypeAlias Self Annotated
        Text Pattern Match SupportsInt SupportsFloat cast overload TYPE_CHECKING Awaitable
        AnyStr NewType;
    unicodedata *;
    urllib;
    urllib.parse *;
    uuid UUID uuid3 uuid5;
    warnings;
    zlib *
"""  # module, and what is handed out of it: "*" is all public names, "-x" not x
MODULES = {}  # {"os": ["sep", "linesep"], ...}
for entry in MODULE_TABLE.split(";"):
    name, *words = entry.split()
    MODULES[name] = words
VIEWS = {}  # {"os": what cells get for it, ...}
SIDE_BY_SIDE = "use llm_query_batched: it runs calls side by side"
NO_FILES = "there are no files: the data is in `context`"
ADVICE = {  # on modules that models ask for
    "asyncio concurrent threading multiprocessing": SIDE_BY_SIDE,
    "pathlib glob shutil tempfile pickle": NO_FILES,
    "requests socket http": "there is no network: ask with llm_query",
    "array": "use a list",
}
PRELOADED = """
    _strptime _pylong _colorize encodings.ascii encodings.cp1251 encodings.cp1252 encodings.hex_codec
    encodings.idna encodings.iso8859_1 encodings.iso8859_15 encodings.latin_1 encodings.punycode
    encodings.rot_13 encodings.utf_16 encodings.utf_16_be encodings.utf_16_le encodings.utf_32
    encodings.utf_8_sig encodings.unicode_escape
""".split()  # noqa: SIM905  # what C code imports
BUILTINS = """
    abs all any ascii bin bool bytearray bytes callable chr classmethod complex dict dir divmod
    enumerate filter float format frozenset hash hex id int isinstance issubclass iter len list
    map max memoryview min next object oct ord pow print property range repr reversed round set
    slice sorted staticmethod str sum super tuple zip NotImplemented Ellipsis __build_class__
    SystemExit KeyboardInterrupt GeneratorExit
""".split()  # noqa: SIM905


def dunders(names: str) -> set[str]:
    """Return {"__init__", "__get__"} for "init get"."""
    return {f"__{name}__" for name in names.split()}


WRITERS = dunders("setattr delattr")
DESCRIBERS = dunders("get set delete set_name")  # which write to their argument
SETTERS = WRITERS | DESCRIBERS | dunders("init post_init init_subclass getattr")
DEFINABLE = SETTERS | dunders("""
    repr str bytes format bool hash eq ne lt le gt ge len length_hint iter next reversed
    contains getitem setitem delitem missing call enter exit dir copy deepcopy index int float
    complex round trunc floor ceil neg pos abs invert add sub mul matmul truediv floordiv mod divmod
    pow lshift rshift and xor or radd rsub rmul rmatmul rtruediv rfloordiv rmod rdivmod rpow rlshift
    rrshift rand rxor ror iadd isub imul imatmul itruediv ifloordiv imod ipow ilshift irshift iand
    ixor ior class_getitem name qualname doc future slots
    """)
READABLE = DEFINABLE | dunders("class dict module members cause context notes annotations")
FORBIDDEN = INSPECT_ATTRIBUTES | {"mro", "fget", "fset", "fdel", "_abc_impl", "_convert_"}
GUARDED = {"format", "format_map", "obj", "register", "evaluate"}  # public names that can lead out
TUPLE_NAMES = {"_asdict", "_fields", "_make", "_replace"}  # of named tuples
OUR_NODES = """
    AnnAssign Assign Attribute AugAssign Call ClassDef ExceptHandler For FunctionDef
    Import ImportFrom Lambda Match MatchAs MatchClass MatchMapping MatchOr MatchSequence
    MatchSingleton MatchStar MatchValue Module Name NamedExpr Nonlocal ParamSpec
    Subscript TypeAlias TypeVar TypeVarTuple With comprehension match_case
""".split()  # noqa: SIM905
CELL = "<cell "  # how the file names of cells begin
MAIN = "__main__"  # the module of what cells make
CHUNK = 1 << 17  # characters of a text that are sent at once, and bytes of one read
MESSAGE_BYTES = 64 << 20  # the longest line that the host takes from a worker
VALUE_BYTES = 63 << 20  # the longest value in it
MESSAGE_SECONDS = 10  # how long a message may take once it has begun
SLOWEST = 50  # seconds in which even a busy machine lets a worker compute for one
START_SECONDS = 120  # for a worker to load its variables

# ---------------------------------------------------------- compiler: RestrictedPython, our policy


is_dunder = re.compile("(?s)__.+__").fullmatch  # whether a name is like __this__


def is_private(name: str) -> bool:
    """Return whether a name belongs to whoever made the object."""
    return name.startswith("_") and not is_dunder(name) and name not in TUPLE_NAMES


def refused(name: str, known: set[str]) -> bool:
    """Return whether a name leads to Python's internals; `known` are the dunders that do not."""
    return name in FORBIDDEN or (is_dunder(name) and name not in known)


def refusal(name: str) -> str:
    """Return what a cell is told about such a name."""
    return f"the name {name!r} is refused: it leads to Python's internals; use plain data instead"


class Policy(RestrictingNodeTransformer):
    """Names of internals are refused, attributes that could lead out are guarded, the rest compiles
    as in plain Python.

    `a.__b__` becomes `"@getattr"(a, "__b__")`; in `a._b`, `a` becomes `"@own"(a)`, and in `a.b = 1`
    `"@writable"(a)`. The names of the guards are no identifiers, so no cell can rebind them. Nodes
    that nobody listed, as of a future Python, stay refused.
    """

    def visit(self, node):
        """Check every identifier of a node, wherever the grammar puts it, and what is in it."""
        kind = type(node).__name__
        if kind == "Constant":
            return node
        reads = kind == "Attribute" and isinstance(node.ctx, ast.Load)
        known = READABLE if reads else DEFINABLE
        for _, value in ast.iter_fields(node):
            names = value if isinstance(value, list) else [value]
            for name in names:
                if isinstance(name, str) and refused(name, known):
                    self.error(node, refusal(name))
        visit = self.node_contents_visit if kind in OUR_NODES else super().visit
        node = visit(node)
        rewrite = getattr(self, f"rewrite_{kind}", None)
        return rewrite(node) if rewrite else node

    def not_allowed(self, node):
        kind = type(node).__name__.lower()
        advice = SIDE_BY_SIDE if kind.startswith(("async", "await")) else "use plain statements"
        self.error(node, f"{kind} is refused: {advice}")

    def rewrite_Attribute(self, node):
        name = node.attr
        reads = isinstance(node.ctx, ast.Load)
        if reads and (is_dunder(name) or name in GUARDED):
            return self.guard("@getattr", node.value, name)
        if not reads or is_private(name):
            # it stays an attribute, as Python has to mangle `__x`
            guard = "@own" if name[0] == "_" else "@writable"
            node.value = self.guard(guard, node.value)
        return node

    def rewrite_AugAssign(self, node):
        name = getattr(node.target, "attr", "")
        if is_dunder(name) or name in GUARDED:
            self.error(node, refusal(name))  # it reads without a guard
        return node

    def rewrite_Match(self, node):
        # the class that was judged is the one that is used: a name could be rebound
        before = []
        for case in node.cases:
            for part in ast.walk(case.pattern):
                if isinstance(part, ast.MatchClass):
                    name = f"@class {len(before)}"
                    target = ast.Name(name, ast.Store())
                    guarded = self.guard("@pattern", part.cls, *part.kwd_attrs)
                    before.append(ast.Assign([target], guarded))
                    part.cls = ast.Name(name, ast.Load())
        return [*before, node]

    def rewrite_ClassDef(self, node):
        for word in node.keywords:
            name = word.arg or "metaclass"  # it may be in `**words`
            if name == "metaclass" or name[0] == "_":
                self.error(node, "metaclasses are refused: use a plain class, or abc.ABC")
        return node

    def rewrite_ExceptHandler(self, node):
        # a bare `except:` must not catch the time limit
        node.type = node.type or ast.Name("Exception", ast.Load())
        return node

    def rewrite_Import(self, node):
        node.is_lazy = 0  # views are there at once
        return node

    rewrite_ImportFrom = rewrite_Import

    def guard(self, name, node, *texts):
        function = ast.Name(name, ast.Load())
        args = [node, *map(ast.Constant, texts)]
        call = ast.Call(function, args, [])
        return ast.copy_location(call, node)


def compile_cell(source: str, filename: str, mode: str = "exec") -> types.CodeType:
    """Return the code of a cell, which shows the value of its last line as Python's own REPL does.

    Raises SyntaxError, with a line for each refusal.
    """
    policy = Policy()
    tree = ast.parse(source, filename, mode)
    policy.visit(tree)
    if policy.errors:
        raise SyntaxError("\n".join(policy.errors))
    last = tree.body[-1] if mode == "exec" and tree.body else None
    if isinstance(last, ast.Expr):
        last.value = policy.guard("@show", last.value)
    ast.fix_missing_locations(tree)
    return compile(tree, filename, mode)


# ------------------------------------------------------ guards: what may be read, written, imported


def is_class(obj) -> bool:
    """Return whether this is a class, by type(): `__class__` can lie."""
    return issubclass(type(obj), type)


# what the library shares no instance of
FREE_TYPES = (
    types.SimpleNamespace,
    BaseException,
    decimal.Context,
    collections.UserDict,
    collections.UserList,
    collections.ChainMap,
)


def must_be_writable(obj):
    """Return `obj` if a cell may write its public attributes."""
    if type(obj).__module__ == MAIN:  # first, as each `self.x = 1` asks
        return obj
    return obj if isinstance(obj, FREE_TYPES) else must_be_own(obj)


def must_be_own(obj):
    """Return `obj` if a cell made it: nothing else is written to, or read where private."""
    origin = type(obj)
    if issubclass(origin, super):
        origin = obj.__thisclass__
    elif is_class(obj) or origin is types.FunctionType:
        origin = obj
    if origin.__module__ == MAIN:
        return obj
    told = "writing to it, or reading private names, is refused"
    raise AttributeError(f"no cell made this {type(obj).__name__!r}: {told}")


def safe_getattr(obj, name, *default):
    """`getattr` for cells, and what reads of guarded names compile to."""
    check_name(name, READABLE)
    if name == "__class__":
        return SafeType(obj)
    if name == "__dict__":
        must_be_writable(obj)  # it is as public as what stands in it
        if not is_class(obj):
            return object.__getattribute__(obj, name)
    if is_private(name):
        must_be_own(obj)
    value = getattr(obj, name, *default)
    if name in SETTERS and callable(value):
        return safe_setter(name, value, *bound_to(value))
    if is_dunder(name) and isinstance(value, (dict, types.MappingProxyType)):
        return names_of(value)  # what stands in a class gets executed by dataclasses
    return guarded_value(obj, name, value) if name in GUARDED else value


def check_name(name, known):
    """Refuse the name of an attribute that a cell may not have; an heir of str could change it."""
    if type(name) is not str or refused(name, known):
        raise AttributeError(refusal(str(name)))


def bound_to(method) -> list:
    """Return in a list what the method is bound to, if it is."""
    return [method.__self__] if hasattr(method, "__self__") else []


def safe_setter(name, write, *bound):
    """Return `setattr`, `__init__` or their like, which write to what a cell made only."""

    def safe(*args, **options):
        target, *values = *bound, *args
        attribute = values[0] if name in WRITERS else name
        check_name(attribute, DEFINABLE)
        guard = must_be_own if attribute.startswith("_") else must_be_writable
        guard(target)
        described = values[0] if name in DESCRIBERS else None
        if described is not None:
            must_be_writable(described)
        return write(*args, **options)

    return safe


def guarded_value(obj, name, value):
    """Return what was read under a name that can lead out, or a guarded one in its place."""
    of_error = name == "obj" and isinstance(obj, BaseException)
    # ABC.register, and ForwardRef.evaluate, which runs text
    leads_out = getattr(value, "__module__", None) in ("abc", "annotationlib")
    if of_error or leads_out:
        raise AttributeError(refusal(name))
    bound = bound_to(value)
    raw = isinstance(value, (types.MethodDescriptorType, types.BuiltinMethodType))
    of_str = raw and all(isinstance(owner, str) for owner in bound)
    if of_str and value.__name__ in SAFE_FORMATS:
        return partial(SAFE_FORMATS[value.__name__], *bound)
    return value


FORMATTER = string.Formatter()  # which reads as cells may: see harden()
SAFE_FORMATS = {
    "format": FORMATTER.format,
    "format_map": lambda text, values: FORMATTER.vformat(text, (), values),
}


def safe_hasattr(obj, name):
    """`hasattr` for cells."""
    try:
        safe_getattr(obj, name)
    except AttributeError:
        return False
    return True


def cell_frame() -> types.FrameType:
    """Return the frame of the cell that calls, also where the library was made to call for it."""
    frame = sys._getframe()
    while not frame.f_code.co_filename.startswith(CELL):
        frame = frame.f_back
    return frame


def names_of(names) -> dict:
    """Return a copy of a namespace, without the names of guards and of internals."""
    return {
        name: value
        for name, value in names.items()
        if type(name) is str and "@" not in name and not is_dunder(name)
    }


def safe_globals():
    """`globals` for cells, to be read."""
    return types.MappingProxyType(names_of(cell_frame().f_globals))


def safe_locals():
    """`locals` for cells."""
    return names_of(cell_frame().f_locals)


def safe_vars(*obj):
    """`vars` for cells."""
    return safe_getattr(*obj, "__dict__") if obj else safe_locals()


def safe_eval(source, globals=None, locals=None):
    """`eval` for cells: under the same policy as the cell itself."""
    code = compile_cell(source.strip(), f"{CELL}eval>", "eval")
    if globals is None:
        frame = cell_frame()
        globals = frame.f_globals | frame.f_locals
    return eval(code, names_of(globals | (locals or {})) | START_NAMES)


def safe_pattern(cls, *named):
    """Judge a class of a `match` before it reads, in C, what its `__match_args__` name."""
    names = inspect.getattr_static(cls, "__match_args__", ())
    for name in (*names, *named):
        if name.startswith("_") or name in GUARDED or name in FORBIDDEN:
            raise AttributeError(refusal(name))
    if type(names) is not tuple or type(cls) not in KNOWN_METACLASSES:
        raise TypeError(f"the pattern {cls!r} is refused: use plain data instead")
    return cls


def safe_import(name, globals=None, locals=None, names=(), level=0):
    """`import` for cells, and for C code that works for them."""
    if name in PRELOADED:
        return None  # C code finds it in sys.modules, cells cannot
    package = name.partition(".")[0]
    if level or name not in VIEWS:
        told = f"there are {', '.join(MODULES)}"
        for modules, advice in ADVICE.items():
            if package in modules.split():
                told = f"{advice}; {told}"
        raise ModuleNotFoundError(f"import of {name!r} is refused: {told}", name=name)
    view = VIEWS[name]
    for wanted in names or ():
        if wanted != "*" and not hasattr(view, wanted):  # else it is looked for in sys.modules
            raise ImportError(f"import of {wanted!r} from {name!r} is refused or not there")
    return view if names else VIEWS[package]


# of classes; one of a cell's could change its mind
KNOWN_METACLASSES = (type, abc.ABCMeta, enum.EnumType, type(typing.Protocol))
# an heir of Field could lie about its name, which is executed; one of an alias reads anything
UNTOLD_TYPES = (type, dataclasses.Field, types.GenericAlias)


class SafeTypeMeta(type):
    """Lets `SafeType` pass for `type`, in calls and isinstance(): it tells a type, and makes none."""

    def __call__(cls, obj):
        return SafeType if isinstance(obj, UNTOLD_TYPES) else type(obj)

    __instancecheck__ = staticmethod(is_class)


def refuser(message: str, kind: type = RuntimeError) -> Callable:
    """Return a function that refuses to be called."""

    def refuse(*args, **kwargs):
        raise kind(message)

    return refuse


class SafeType(metaclass=SafeTypeMeta):
    """`type` for cells: a metaclass could make a class answer as another one."""

    __module__ = "builtins"
    __class_getitem__ = classmethod(types.GenericAlias)
    __init_subclass__ = refuser("inheriting from type is refused: use a plain class", TypeError)


SafeType.__name__ = SafeType.__qualname__ = "type"


def show(value):
    """Print the value of a cell's last line."""
    if value is not None:
        print(repr(value))


EXCEPTIONS = {
    name: value
    for name, value in vars(builtins).items()
    if is_class(value) and issubclass(value, Exception)
}
SAFE_BUILTINS = {
    **{name: getattr(builtins, name) for name in BUILTINS},
    **EXCEPTIONS,
    "BaseException": Exception,  # or a cell could catch its time limit
    "__import__": safe_import,
    "type": SafeType,
    "eval": safe_eval,
    "globals": safe_globals,
    "locals": safe_locals,
    "vars": safe_vars,
    "getattr": safe_getattr,
    "hasattr": safe_hasattr,
    "setattr": safe_setter("__setattr__", setattr),
    "delattr": safe_setter("__delattr__", delattr),
    "exit": sys.exit,
    "quit": sys.exit,
    "open": refuser(f"open() is refused: {NO_FILES}", FileNotFoundError),
    "input": refuser("input() is refused: nobody is there to answer", EOFError),
    "exec": refuser("exec() is refused: write the code itself"),
    "@getattr": safe_getattr,
    "@own": must_be_own,
    "@writable": must_be_writable,
    "@pattern": safe_pattern,
    "@show": show,
}
START_NAMES = {"__name__": MAIN, "__builtins__": SAFE_BUILTINS}

# ----------------------------------------------------------------- views of modules, and stand-ins


def safe_dataclass(cls=None, /, **options):
    """`dataclasses.dataclass` for cells: it writes to the class, and executes names of fields."""
    if cls is None:
        return partial(safe_dataclass, **options)
    must_be_own(cls)
    if type(cls) not in KNOWN_METACLASSES or issubclass(cls, (str, tuple)):
        raise TypeError("a dataclass is your own plain class")
    cls.__doc__ = cls.__doc__ or f"{cls.__name__}(...)"  # else it takes a signature
    return dataclasses.dataclass(cls, **options)


def getattr_of_dataclasses(obj, name, *default):
    """`getattr` for dataclasses: with MISSING, it is of a new field, whose name gets executed."""
    if dataclasses.MISSING in default:
        check_name(name, DEFINABLE)
        if name in SAFE_FORMATS or not name.isidentifier():  # asdict() would read a raw format
            raise TypeError(f"a dataclass has no field {name!r}: give it another name")
    return getattr(obj, name, *default)


def hasattr_of_copy(made, name):
    """`hasattr` for copy: it writes to what has no `__setstate__`, which could be anybody's."""
    found = hasattr(made, name)
    if not found:
        must_be_writable(made)
    return found


def on_own(function):
    """Return a function of the library which writes to its argument, for what a cell made."""
    return lambda made: function(must_be_own(made))


def safe_wraps(wrapped):
    """`functools.wraps` for cells."""
    return on_own(functools.wraps(wrapped, ("__name__", "__qualname__", "__doc__"), ()))


def safe_recursion_limit(limit):
    """`sys.setrecursionlimit` for cells."""
    sys.setrecursionlimit(min(limit, 3000))


def format_exc():
    """`traceback.format_exc` for cells."""
    error = sys.exception()
    return "NoneType: None" if error is None else describe(error)


def print_exc(*, file=None):
    """`traceback.print_exc` for cells."""
    print(format_exc(), file=file)


def do_nothing(*args, **kwargs):
    """Stand in for what has no use here, such as a warning."""


STAND_INS = {
    "abc": {"abstractmethod": on_own(abc.abstractmethod)},
    "csv": {"field_size_limit": lambda *limit: 131072},
    "dataclasses": {"dataclass": safe_dataclass},
    "functools": {"wraps": safe_wraps, "total_ordering": on_own(functools.total_ordering)},
    "operator": dict.fromkeys(["attrgetter", "methodcaller"], refuser("refused: use a lambda")),
    "sys": {"setrecursionlimit": safe_recursion_limit},
    "time": {"sleep": refuser("time.sleep() is refused: there is nothing to wait for")},
    "traceback": {"format_exc": format_exc, "print_exc": print_exc},
    "typing": {
        "Type": SafeType,
        "runtime_checkable": on_own(typing.runtime_checkable),
        **dict.fromkeys(["final", "override"], lambda marked: marked),
    },
    "warnings": {
        **dict.fromkeys(["warn", "filterwarnings", "simplefilter"], do_nothing),
        "catch_warnings": nullcontext,
    },
}


@cache
def harden():
    """Prepare this process for cells: make the views, and guard what the library reads for them."""
    for name, words in MODULES.items():
        module = importlib.import_module(name)
        if "*" in words:
            words = [*words, *getattr(module, "__all__", dir(module))]
        # not named as the module, or `from json import decoder` would look in sys.modules
        view = types.ModuleType(f"{name} (safe part)")
        for one in words:
            value = getattr(module, one, module)  # some names are newer than Python 3.11
            left_out = one[0] == "_" or f"-{one}" in words
            if not left_out and not isinstance(value, types.ModuleType):
                setattr(view, one, value)
        vars(view).update(STAND_INS.get(name, {}))
        VIEWS[name] = view
        package, _, part = name.partition(".")
        if part:
            setattr(VIEWS[package], part, view)
    csv.field_size_limit(sys.maxsize)  # for all cells
    string.getattr = safe_getattr  # string.Formatter looks here first
    copy.setattr = SAFE_BUILTINS["setattr"]  # as does copy
    copy.hasattr = hasattr_of_copy
    dataclasses.getattr = getattr_of_dataclasses
    inspect.eval = refuser("a signature is not evaluated", ValueError)  # for dataclasses
    traceback.open = SAFE_BUILTINS["open"]  # the file that a SyntaxError names
    # where the library looks for what cells made
    sys.modules[MAIN] = types.SimpleNamespace(
        **START_NAMES,
        ClassVar=typing.ClassVar,
        InitVar=dataclasses.InitVar,
        KW_ONLY=dataclasses.KW_ONLY,
    )


# --------------------------------------------------------------- cell: run one, tell what happened


class Final(typing.NamedTuple):
    """The answer that a cell gave with FINAL(value): any JSON value."""

    value: typing.Any


class Result(typing.NamedTuple):
    """What a cell printed, None or a short traceback, None or its answer."""

    output: str
    error: str | None
    final: Final | None


class Output(io.TextIOBase):
    """A text stream that keeps the head and the tail of what is written, and counts the middle."""

    close = do_nothing  # the next cell writes to it, too

    def __init__(self, limit: int):
        self.half = max(limit // 2, 1)
        self._begin()

    def _begin(self):
        """Forget what was written; a public name could be called on anybody's object."""
        self.head = ""
        self.tail = ""
        self.count = 0

    def write(self, text: str) -> int:
        text = str.__str__(text)
        room = self.half - len(self.head)
        self.head += text[:room]
        self.tail += text[room:]
        self.tail = self.tail[-self.half :]
        self.count += len(text)
        return len(text)

    def text(self) -> str:
        """Return what was kept; the cut is at the ends of lines, where they are not too long."""
        head = self.head
        tail = self.tail
        if self.count <= 2 * self.half:
            return head + tail
        quarter = self.half // 2
        head = head[: head.rfind("\n", quarter) + 1] or head
        tail = tail[tail.find("\n", 0, quarter) + 1 :]
        count = self.count - len(head) - len(tail)
        advice = "characters left out of the middle; print less, or in parts"
        return f"{head.rstrip()}\n... [{count:,} {advice}] ...\n{tail}"


def describe(error: BaseException) -> str:
    """Return a traceback of the cells' own frames, ending in `KeyError: 'x'`.

    The library's own words for an error would import and read what its attributes name.
    """
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if frame.filename.startswith(CELL)
    ]
    lines = ["Traceback (most recent call last):\n"] if frames else []
    lines += traceback.format_list(frames)
    kind = type(error)
    if kind in (SyntaxError, IndentationError, TabError):
        lines += traceback.format_exception_only(error)
    else:
        lines.append(f"{kind.__name__}: {error}".removesuffix(": "))
    output = Output(4000)
    output.writelines(lines)
    return output.text().strip()


def json_default(value, iterables=(set, frozenset)):
    """Return as JSON can have it what tools give besides: dates, dataclasses, arrays, sets."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (decimal.Decimal, uuid.UUID)):
        return str(value)
    if dataclasses.is_dataclass(value) and not is_class(value):
        return dataclasses.asdict(value)
    if hasattr(value, "tolist"):  # of numpy
        return value.tolist()
    if isinstance(value, iterables) and not isinstance(value, (bytes, bytearray)):
        return list(value)
    raise TypeError(f"a {type(value).__name__} is not JSON: pass text, numbers, dicts or lists")


def to_json(value) -> str:
    """Return what a cell gives as JSON; raise where that is impossible, or too long to be sent."""
    or_list = partial(json_default, iterables=Iterable)
    text = json.dumps(value, default=or_list)
    if len(text) > VALUE_BYTES:
        raise ValueError(f"{len(text):,} bytes of JSON are too many: {VALUE_BYTES:,} can be sent")
    return text


class TimeIsUp(BaseException):
    """What a cell over its time is told; no BaseException, as cells know it, catches this."""


TimeIsUp.__name__ = "TimeoutError"


class Interpreter:
    """Runs cells that share their variables, in this very process: the language wall alone.

    It hardens copy, csv, dataclasses, inspect, string and traceback of the process, for good: other
    code there may find them strict, so give it a process of its own, as `Sandbox` does.
    """

    cells = 0
    interruptible = False
    __reduce_ex__ = refuser("the harness cannot be copied")

    def __init__(self, variables: dict, tools: dict, output_chars: int = 10_000):
        harden()
        self.output = Output(output_chars)  # the same for all cells, as they may keep it
        self.harness = variables | tools
        for name in ("FINAL", "FINAL_VAR", "SHOW_VARS"):
            self.harness[name] = getattr(self, name)
        self.names = START_NAMES | self.harness

    def FINAL(self, value=None):
        """End the run with `value`, any JSON value."""
        value = json.loads(to_json(value))
        self.final = self.final or Final(value)
        raise SystemExit

    def FINAL_VAR(self, name):
        """End the run with the value of a variable; what is no name is the value itself."""
        value = name
        if isinstance(name, str) and name.isidentifier():
            if name not in self.names:
                raise NameError(f"name {name!r} is not defined; SHOW_VARS() names your variables")
            value = self.names[name]
        self.FINAL(value)

    def SHOW_VARS(self):
        """Return the names and types of the variables so far."""
        return {
            name: type(value).__name__
            for name, value in names_of(self.names).items()
            if name[0] != "_" and name not in self.harness
        }

    def check_time(self, *_):
        """Raise in a cell that is over its time: again and again, as it could be swallowed."""
        if self.interruptible and time.process_time() > self.end:
            self.end += 0.2
            raise TimeIsUp("the cell computed for too long; its variables are kept")

    def run(self, source: str, seconds: float = inf) -> Result:
        """Run one cell, for at most `seconds` of CPU time."""
        self.cells += 1
        self.final = None
        name = f"{CELL}{self.cells}>"
        lines = source.splitlines(keepends=True)
        linecache.cache[name] = (len(source), None, lines, name)
        output = self.output
        output._begin()
        vars(VIEWS["sys"]).update(stdout=output, stderr=output)
        self.end = time.process_time() + seconds  # for check_time()
        try:
            self.interruptible = True
            with redirect_stdout(output):
                error = self.run_and_restore(source, name)
        except TimeIsUp as late:  # while telling of an error, or while restoring
            error = f"TimeoutError: {late}"
        except BaseException:
            error = "Exception: an error whose str() failed"
        finally:
            self.interruptible = False
        return Result(output.text(), error, self.final)

    def run_and_restore(self, source: str, filename: str) -> str | None:
        """Run a cell and return its error; put back what it has rebound of the harness."""
        reserve = None
        with suppress(OSError):
            reserve = mmap.mmap(-1, 24 << 20)  # telling of a MemoryError takes memory
        try:
            exec(compile_cell(source, filename), self.names)
        except SystemExit:
            return None
        except BaseException as problem:
            del reserve  # which gives it back
            return describe(problem)
        finally:
            for name, value in self.harness.items():
                found = self.names.get(name, value)
                if found is not value:
                    self.names[f"{name}_1"] = found
                    print(f"[`{name}` is the original again; your value is kept as `{name}_1`]")
                self.names[name] = value


# ----------------------------------------------------- worker: the process wall, and one REPL in it

SYSCALLS = """
    read 0 63            write 1 64          lseek 8 62           mmap 9 222
    mprotect 10 226      munmap 11 215       brk 12 214           mremap 25 216
    madvise 28 233       futex 202 98        rt_sigaction 13 134  rt_sigprocmask 14 135
    rt_sigreturn 15 139  sigaltstack 131 132 getitimer 36 102     setitimer 38 103
    sched_yield 24 124   getpid 39 172       gettid 186 178       exit 60 93
    exit_group 231 94    restart_syscall 219 128                  time 201 -1
    gettimeofday 96 169  clock_gettime 228 113                    clock_getres 229 114
    getrusage 98 165     times 100 153       getrandom 318 278    rseq 334 293
"""  # what is let through: name, number on x86-64, on arm64 (-1: not there)
MACHINES = {"x86_64": (0xC000003E, 1), "aarch64": (0xC00000B7, 2)}  # audit number, column above
LOAD = 0x20  # instructions of the filter
JUMP_IF_EQUAL = 0x15
RETURN = 0x06
REFUSE = 0x50001  # what it returns: the error EPERM
ALLOW = 0x7FFF0000  # or the call goes through
LIBC = ctypes.CDLL(None)
SET_DEATH_SIGNAL = 1  # options of prctl(2)
SET_SECCOMP = 22
SET_NO_NEW_PRIVS = 38


def instruction(code: int, value: int, if_equal=0, otherwise=0) -> bytes:
    """Return one instruction; a jump skips so many others, as what was loaded equals the value."""
    return struct.pack("HBBI", code, if_equal, otherwise, value)


@cache
def seccomp_filter(machine: str) -> bytes:
    """Return the program that the kernel runs before each system call, if there is one for this.

    load the architecture
    is it ours?  ── no ──▶ refuse
    load the number of the call
    is it 0? ── yes ──▶ allow
    is it 1? ── yes ──▶ allow
    ...
    refuse
    """
    if machine not in MACHINES:
        return b""
    audit, column = MACHINES[machine]
    program = [
        instruction(LOAD, 4),  # offset of the architecture in seccomp_data
        instruction(JUMP_IF_EQUAL, audit, if_equal=1),
        instruction(RETURN, REFUSE),
        instruction(LOAD, 0),  # offset of the number
    ]
    for number in SYSCALLS.split()[column::3]:
        if number != "-1":
            program += [
                instruction(JUMP_IF_EQUAL, int(number), otherwise=1),
                instruction(RETURN, ALLOW),
            ]
    program += [instruction(RETURN, REFUSE)]
    return b"".join(program)


def lock_down(memory_mb: int) -> list[str]:
    """Take from this process, for good, all that a cell must not have; return the walls that hold."""
    walls = ["language", "rlimits"]
    # on Linux; there may be a lower limit already
    with suppress(OSError, ValueError), open("/proc/self/statm") as memory:
        pages = int(memory.read().split()[0])
        limit = pages * mmap.PAGESIZE + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for kind in ("NOFILE", "NPROC", "FSIZE", "CORE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (0, 0))
    program = seccomp_filter(os.uname().machine)
    if sys.platform == "linux" and program:
        code = ctypes.create_string_buffer(program)
        header = struct.pack("HP", len(program) // 8, ctypes.addressof(code))
        LIBC.prctl(SET_NO_NEW_PRIVS, 1, 0, 0, 0)
        if LIBC.prctl(SET_SECCOMP, 2, header, 0, 0) == 0:
            walls.append("seccomp")
    return walls


def serve():
    """Be the fork server: fork a worker ahead, and the next one when it is taken."""
    control = socket.socket(fileno=os.dup(0))
    os.dup2(1, 0)  # the null device
    Interpreter({}, {}).run("1")  # so that workers find all that a cell needs
    seccomp_filter(os.uname().machine)  # the same
    for name in PRELOADED:
        with suppress(ImportError):  # 3.11 has no _pylong
            importlib.import_module(name)
    with suppress(OSError), tempfile.TemporaryDirectory() as empty:
        os.chdir(empty)  # a folder that is gone stays empty
    gc.collect()
    gc.freeze()  # a worker's collector leaves alone what it shares with this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    os.dup2(1, 2)  # the null device; what went wrong was told until here
    while True:
        read_end, write_end = os.pipe()
        try:
            if os.fork() == 0:
                wait_for_work(control)
        except OSError:  # no room: who asks for a worker next is told that it is gone
            os.close(take_order(control))
        os.close(write_end)
        os.read(read_end, 1)  # until nobody has the other end: the worker is taken, or dead
        os.close(read_end)


def take_order(control: socket.socket) -> int:
    """Wait for an order from the host; return the socket on which it talks to that worker."""
    order, fds, *_ = socket.recv_fds(control, 1, 1)
    if not order:  # the host is gone; so is this process group, which is all workers
        os.killpg(0, signal.SIGKILL)
    return fds[0]


def wait_for_work(control: socket.socket):
    """Be a worker forked ahead, and a worker when the host sends the socket to talk on; then exit."""
    try:
        if sys.platform == "linux":  # die with the fork server
            LIBC.prctl(SET_DEATH_SIGNAL, signal.SIGKILL)
        os.dup2(take_order(control), 3)
        os.closerange(4, 1 << 16)  # the pipe, and what a library may have opened
        work(3)
    finally:
        os._exit(0)


def work(fd: int):
    """Be a worker: load the variables, lock the doors, run cells until the host hangs up."""
    reader = open(fd, "r", CHUNK, "utf-8", "surrogatepass", newline="\n")
    writer = open(fd, "w", closefd=False)
    send = partial(print, file=writer, flush=True)

    def call(tool, /, *args, **kwargs):
        message = to_json({"call": tool, "args": args, "kwargs": kwargs})
        interpreter.interruptible = False  # half a line would be the end of this worker
        try:
            send(message)  # this goes less deep than to_json() did: no recursion ends it halfway
            line = reader.readline()
        finally:
            interpreter.interruptible = True
        return result_of(json.loads(line))

    setup = json.loads(reader.readline())
    variables = {}
    for name, is_text, length in setup["variables"]:
        variables[name] = read_variable(reader, is_text, length)
    walls = lock_down(setup["memory_mb"])
    tools = {}
    for name in setup["tools"]:
        tools[name] = types.MethodType(call, name)  # which has no attributes to be set
    interpreter = Interpreter(variables, tools, setup["output_chars"])
    signal.signal(signal.SIGPROF, interpreter.check_time)
    signal.setitimer(signal.ITIMER_PROF, 0.05, 0.05)
    VIEWS["random"].seed()  # or all forked workers would draw the same numbers
    hello = [os.getpid(), walls]
    send(json.dumps(hello))
    for line in reader:
        result = interpreter.run(json.loads(line), setup["cell_seconds"])
        send(json.dumps(result))


def result_of(reply: dict):
    """Return what a tool has returned, or raise what it has raised."""
    if "error" in reply:
        kind = EXCEPTIONS.get(reply["kind"], RuntimeError)
        raise kind(reply["error"])
    return reply["value"]


def read_variable(reader: io.TextIOWrapper, is_text: bool, length: int):
    """Return the next text, or the value of its JSON; read at once, it would take its size twice."""
    text = ""
    for start in range(0, length, CHUNK):
        text += reader.read(min(CHUNK, length - start))
    return text if is_text else json.loads(text)


# ---------------------------------------------------------------------------- host: what others use


class SandboxError(Exception):
    """The worker does not start or is not to be trusted, or the sandbox is closed or busy."""


def pieces(texts: list[str]) -> Iterator[bytes]:
    """Yield texts as they are sent, a bounded piece at a time; what is sent is not kept."""
    while texts:
        text = texts.pop(0)
        for start in range(0, len(text), CHUNK):
            yield text[start : start + CHUNK].encode("utf-8", "surrogatepass")


class ForkServer:
    """A Python that has all loaded, and forks workers: to start it for each would take 60 ms.

    It is started when it is needed, and anew after it died.
    """

    def __init__(self):
        self.lock = threading.Lock()
        self.process = None

    def start(self):
        """Start it. Raises OSError where that is impossible."""
        ours, theirs = socket.socketpair()
        code = f"""  # by its path, as other modules may be called `sandbox`, here or there
import importlib.util as util, sys
sys.path[:] = {[*map(str, sys.path)]}
spec = util.spec_from_file_location("sandbox", {__file__!r})
sys.modules["sandbox"] = module = util.module_from_spec(spec)
spec.loader.exec_module(module)
module.serve()"""
        env = {
            name: value
            for name, value in os.environ.items()
            if name.endswith("LD_LIBRARY_PATH")  # which Python needs
        }
        with ours, theirs:
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-c", code],
                env=env,
                stdin=theirs,  # a number of its own could be 1 or 2, where the host has closed those
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                errors="replace",
                start_new_session=True,  # Ctrl-C is for the host
            )
            self.control = ours.dup()

    def fork(self) -> socket.socket:
        """Order a worker; return the socket to it."""
        with self.lock:
            if not self.process or self.process.poll() is not None:  # not started, or dead
                self.stop()
                self.start()
            ours, theirs = socket.socketpair()
            with theirs:
                socket.send_fds(self.control, [b"1"], [theirs.fileno()])
        ours.settimeout(0.25)  # to look at the limits now and then
        return ours

    def last_words(self) -> str:
        """Return the last line of what it said before it was ready, or died."""
        with suppress(subprocess.TimeoutExpired):
            if self.process:
                _, said = self.process.communicate(timeout=1)
                return said.strip().rpartition("\n")[2]
        return ""

    def stop(self):
        """End it and its workers."""
        if self.process:
            with self.process, self.control:
                self.process.kill()  # forked children may hold copies of its socket
            self.process = None


SERVERS = {}  # by the pid of their hosts: a host may be forked while a thread holds the lock


def fork_server() -> ForkServer:
    """Return the fork server of this process."""
    return SERVERS.setdefault(os.getpid(), ForkServer())


atexit.register(lambda: fork_server().stop())


LOOP_LOCK = threading.Lock()  # or several threads would make a loop each


@cache
def background(pid: int, caller: str) -> Callable:
    """Return what runs coroutines on the event loop of this process, which has its own thread.

    A coroutine that waits here for another one, in a run within a run, needs a second loop.
    """
    import asyncio  # which few need, and which takes its time

    loop = asyncio.new_event_loop()
    threading.Thread(target=loop.run_forever, name=f"async {caller}", daemon=True).start()
    return partial(asyncio.run_coroutine_threadsafe, loop=loop)


def settle(value):
    """Return the result of a coroutine, and anything else as it is."""
    if not inspect.isawaitable(value):
        return value

    async def wait():
        return await value

    caller = threading.current_thread().name
    if not caller.startswith("async "):
        caller = ""
    with LOOP_LOCK:
        submit = background(os.getpid(), caller)
    return submit(wait()).result()


@cache
def warn_of_walls():
    """Tell once that the filter does not hold."""
    print("sandbox: no seccomp filter on this machine; see README, Security", file=sys.stderr)


too_late = refuser("the time of the run is over", TimeoutError)  # in place of a tool


@dataclasses.dataclass(eq=False, repr=False)
class Sandbox(AbstractContextManager):
    """A REPL in a worker process, which starts at once, and anew after it was lost."""

    variables: dict = dataclasses.field(default_factory=dict)  # {name: JSON value}, in every cell
    tools: dict = dataclasses.field(default_factory=dict)  # {name: function of JSON values}
    cell_seconds: float = 60  # CPU seconds of one cell; to wait for a tool does not count
    memory_mb: int = 2048  # MiB of the worker beyond the variables
    output_chars: int = 10_000  # how much of a cell's output is kept

    _closed = False
    _socket = None  # to the worker
    _pid = None  # of the worker, once it has said hello
    _deadline = inf  # of the run, by the clock
    _cpu_end = inf  # of the cell, in CPU seconds of the worker

    def __post_init__(self):
        self._running = threading.Lock()
        with suppress(OSError):  # to be told when it is needed
            self._socket = fork_server().fork()

    def __exit__(self, *error):
        self.close()

    @property
    def walls(self) -> tuple[str, ...]:
        """The walls that hold: "language", "rlimits", "seccomp"."""
        self.start()
        return self._walls

    @property
    def pid(self) -> int:
        """The process of the worker."""
        self.start()
        return self._pid

    def run(self, code: str, seconds: float = inf) -> Result:
        """Run one cell, for at most `seconds` of wall-clock time; its tools run in this thread.

        A worker that dies or must be killed is a `Result` with an error that says so. Raises
        SandboxError when the worker says what workers do not say, and when the sandbox is closed or
        is running a cell.
        """
        if not self._running.acquire(blocking=False):
            raise SandboxError("this sandbox is running a cell: one after another, please")
        try:
            self._deadline = monotonic() + seconds
            self.start()
            self._cpu_end = self._cpu() + self.cell_seconds + 1
            return self._converse(code)
        except OSError as lost:
            self._drop()
            if self._closed:
                raise SandboxError("the sandbox is closed") from None
            died = "killed, out of memory, or recursed too deeply"
            why = lost if isinstance(lost, TimeoutError) else died
            gone = f"your variables are gone; loaded again: {', '.join(self.variables)}"
            return Result("", f"SandboxError: the worker was lost: {why}; {gone}", None)
        except BaseException:
            self._drop()
            raise
        finally:
            self._deadline = inf
            self._running.release()
            if self._closed:
                self.close()

    def close(self):
        """Kill the worker; may be called twice, and from another thread while a cell runs."""
        self._closed = True
        self._kill()
        if self._running.acquire(blocking=False):  # else run() sees it, and comes here
            self._drop()
            self._running.release()

    def _converse(self, code: str) -> Result:
        """Hand over a cell, call the tools that it asks for, and return its result."""
        message = json.dumps(code)
        seconds_left = 1  # to take what a tool has answered when the time was over
        while True:
            match self._exchange([f"{message}\n"], self.cell_seconds + 2):
                case {"call": str(name), "args": list(args), "kwargs": dict(kwargs)} if (
                    name in self.tools
                ):
                    tool = self.tools[name] if seconds_left else too_late
                    message = self._call(tool, args, kwargs)
                    if monotonic() > self._deadline:
                        self._deadline = monotonic() + seconds_left
                        seconds_left = 0
                case [str(output), None | str() as error, None | [_] as final] if (
                    len(output) < self.output_chars + 1000 and len(error or "") < 10_000
                ):
                    return Result(output, error, final and Final(*final))
                case _:
                    raise SandboxError("the worker said what workers do not say")

    def _call(self, tool: Callable, args: list, kwargs: dict) -> str:
        """Return what a tool answers, or how it failed: that is the cell's to handle."""
        try:
            value = settle(tool(*args, **kwargs))
            return json.dumps({"value": value}, default=json_default)
        except Exception as error:
            needs_more = isinstance(error, (UnicodeError, ExceptionGroup))  # than a text
            kind = None if needs_more else type(error).__name__
            return json.dumps({"error": str(error), "kind": kind})

    def start(self):
        """Wait for a worker that has the variables."""
        if self._closed:
            raise SandboxError("the sandbox is closed")
        if self._pid:
            return
        server = fork_server()
        try:
            self._socket = self._socket or server.fork()
            pid, walls = self._exchange(self._setup(), START_SECONDS)
        except OSError as error:
            self._drop()
            if self._closed or isinstance(error, TimeoutError):
                raise
            raise SandboxError(f"no worker came up: {server.last_words() or error!r}") from error
        if type(pid) is not int or pid < 2:
            raise SandboxError("the worker said what workers do not say")
        if sys.platform == "linux" and "seccomp" not in walls:
            warn_of_walls()
        self._walls = tuple(walls)
        self._pid = pid

    def _setup(self) -> list[str]:
        """Return what a worker needs to know, and after it the variables, as texts."""
        texts = []
        variables = []
        for name, value in self.variables.items():
            is_text = isinstance(value, str)
            text = value if is_text else json.dumps(value)
            texts.append(text)
            variables.append([name, is_text, len(text)])
        setup = {
            "variables": variables,
            "tools": list(self.tools),
            "cell_seconds": self.cell_seconds,
            "memory_mb": self.memory_mb,
            "output_chars": self.output_chars,
        }
        return [f"{json.dumps(setup)}\n", *texts]

    def _exchange(self, texts: list[str], patience: float):
        """Send texts and return the worker's next message: the one place where the host waits.

        For at most `patience` seconds after it took something, and longer while it computes; a
        message that begins, ends soon.
        """
        outgoing = pieces(texts)
        piece = next(outgoing)
        message = bytearray()
        cpu_before = self._cpu()
        end = monotonic() + patience
        while not message.endswith(b"\n"):
            cpu = self._cpu()
            extra = 0 if message else SLOWEST * (cpu - cpu_before)
            self._check_limits(cpu, end + extra)
            with suppress(TimeoutError):  # of the socket, after a moment
                if piece:
                    piece = piece[self._socket.send(piece) :]
                    piece = piece or next(outgoing, b"")
                    end = monotonic() + patience
                    continue
                data = self._socket.recv(CHUNK)
                if not data:
                    raise ConnectionError
                if not message:
                    end = monotonic() + MESSAGE_SECONDS
                message += data
            if len(message) > MESSAGE_BYTES:
                raise SandboxError("the worker sent too long a message")
        try:
            return json.loads(message)
        except (ValueError, RecursionError) as error:
            raise SandboxError(f"the worker sent what is not JSON: {error}") from None

    def _check_limits(self, cpu: float, end: float):
        """Raise where a limit is reached; `end` is when there must be a sign of life."""
        if self._closed:
            raise ConnectionError("the sandbox is closed")
        if monotonic() > self._deadline:
            raise TimeoutError("the time of the run is over")
        if cpu > self._cpu_end:
            raise TimeoutError(f"it computed for {self.cell_seconds:g} s, deaf to signals")
        if monotonic() > end:
            raise TimeoutError("it was too slow, or stopped answering")

    def _drop(self):
        """Kill the worker; one that did not say hello yet ends by itself when it finds us gone."""
        self._kill()
        if self._socket:
            self._socket.close()
        self._socket = self._pid = None

    def _kill(self):
        """Kill the worker, if it has said hello."""
        pid = self._pid
        with suppress(OSError):
            if pid:
                os.kill(pid, signal.SIGKILL)

    def _cpu(self) -> float:
        """Return the CPU seconds of the worker so far; 0 where the platform does not tell."""
        with suppress(OSError):
            if self._pid:  # the clock that clock_getcpuclockid(3) makes of it
                return time.clock_gettime((~self._pid << 3) | 2)
        return 0.0
