"""A Python REPL for code that nobody has read: what language models write runs, nothing gets out.

    with Sandbox({"context": text}, tools={"ask": ask}) as repl:
        result = repl.run("len(context)")  # Result(output="12\\n", error=None, final=None)

Two walls, neither trusting the other. The *language*: RestrictedPython compiles each cell under the
policy below, so that no attribute leads to a frame, a module or a class's bases, and an import gives
a view. The *process*: a worker without secrets, files, sockets or children, bounded in memory and
time. It speaks JSON over one socket, and the host believes none of it. In order: tables, compiler,
guards, library, cell, worker, host. Not here: models, prompts and HTTP (rlm.py); threads in a cell
(executors do their work when it is handed in); Windows.
"""

import abc
import ast
import builtins
import collections
import contextlib
import copy
import ctypes
import dataclasses
import enum
import functools
import gc
import importlib
import json
import linecache
import mmap
import os
import re
import select
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
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

try:
    import resource
except ImportError:
    raise ImportError("this needs Linux or macOS; on Windows, run it under WSL") from None

# ------------------------------------------------------------------------------ tables: what may be

MODULES = """
    __future__ *; abc ABC abstractmethod; ast literal_eval; asyncio TimeoutError CancelledError;
    base64 *; binascii *; bisect *; calendar * -LocaleTextCalendar -LocaleHTMLCalendar; cmath *;
    collections * -UserString; collections.abc *; concurrent; concurrent.futures TimeoutError;
    contextlib contextmanager asynccontextmanager suppress nullcontext closing ExitStack
    redirect_stdout; copy *;
    csv * -register_dialect -unregister_dialect -field_size_limit; dataclasses * -make_dataclass;
    datetime date datetime time timedelta timezone tzinfo MINYEAR MAXYEAR UTC; difflib *;
    decimal * -DefaultContext -BasicContext -ExtendedContext;
    enum Enum IntEnum StrEnum Flag IntFlag auto unique member nonmember; fractions *; hashlib *;
    functools partial partialmethod reduce lru_cache cache cached_property cmp_to_key; heapq *;
    html *; html.parser *; io StringIO BytesIO; itertools *; json *; math *; numbers *; operator *;
    pprint *; random *; re *; statistics *; string *; struct *; textwrap *; traceback; urllib;
    sys maxsize version version_info float_info byteorder getsizeof getrecursionlimit; zlib *;
    time time time_ns perf_counter perf_counter_ns monotonic process_time strftime strptime gmtime
    localtime mktime ctime asctime struct_time; types SimpleNamespace MappingProxyType NoneType;
    typing Any Callable ClassVar Collection DefaultDict Deque Dict Final FrozenSet Generator Generic
    Hashable Iterable Iterator List Literal Mapping NamedTuple NewType NoReturn Optional Pattern
    Self Sequence Set Text Tuple TypeAlias TypedDict TypeVar Union cast overload; unicodedata *;
    urllib.parse *"""  # module, names handed out: "*" is all public ones but modules, "-x" not x
LAZY = ("_strptime", "_pylong")  # imported by C code in the name of the cell that called it
CODECS = """ascii cp1251 cp1252 hex_codec idna iso8859_1 iso8859_15 latin_1 punycode raw_unicode_escape
    rot_13 unicode_escape utf_16 utf_16_be utf_16_le utf_32 utf_8 utf_8_sig"""
BUILTINS = """
    abs aiter all anext any ascii bin bool bytearray bytes callable chr classmethod complex dict dir
    divmod enumerate filter float format frozenset hash hex id int isinstance issubclass iter len
    list map max memoryview min next object oct ord pow print property range repr reversed round set
    slice sorted staticmethod str sum super tuple zip NotImplemented Ellipsis SystemExit
    KeyboardInterrupt GeneratorExit"""
INTERNAL = "init new post_init init_subclass get getattr set delete set_name setattr delattr"
OPERATORS = """
    repr str bytes format bool hash eq ne lt le gt ge len length_hint iter next reversed contains
    getitem setitem delitem missing call enter exit aenter aexit aiter anext await dir copy deepcopy
    index int float complex round trunc floor ceil neg pos abs invert add sub mul matmul truediv
    floordiv mod divmod pow lshift rshift and xor or radd rsub rmul rmatmul rtruediv rfloordiv rmod
    rdivmod rpow rlshift rrshift rand rxor ror iadd isub imul imatmul itruediv ifloordiv imod ipow
    ilshift irshift iand ixor ior class_getitem"""  # methods that a class in a cell may define
INTERNAL, OPERATORS = ({f"__{n}__" for n in names.split()} for names in (INTERNAL, OPERATORS))
# dunder names: what may be written, read, and used as an identifier
WRITABLE = {"__name__", "__qualname__", "__doc__"}
READABLE = INTERNAL | OPERATORS | WRITABLE | {"__class__", "__dict__", "__module__", "__members__"}
READABLE |= {"__cause__", "__context__", "__notes__", "__annotations__"}
READABLE -= {"__set__", "__delete__", "__set_name__"}
IDENTIFIERS = INTERNAL | OPERATORS | {"__name__", "__doc__", "__slots__", "__future__"}
FORBIDDEN = INSPECT_ATTRIBUTES | {"mro", "fget", "fset", "fdel", "tb_lasti", "tb_lineno"}
FORMATS = {  # str.format reads attributes; a Formatter does so through the guard, see harden()
    "format": lambda text, /, *args, **kwargs: string.Formatter().vformat(text, args, kwargs),
    "format_map": lambda text, values: string.Formatter().vformat(text, (), values),
}
CHECKED = {"obj", "register", *FORMATS}  # plain names that lead astray from some objects
DATA = (object, dict, list, set, frozenset, tuple, str, bytes, bytearray, int, float, complex)
DATA += (collections.OrderedDict, collections.defaultdict, collections.Counter, collections.deque)
HARMLESS = {n for kind in DATA for n in dir(kind) if n[0] != "_" and n not in CHECKED}  # unguarded
BASES = """abc collections collections.abc enum typing json.encoder json.decoder html.parser string
    random datetime _io numbers decimal fractions textwrap calendar"""  # modules to inherit from
# types of what no cell may hold, and of what read() looks at twice
SECRET = {types.ModuleType, types.FrameType, types.CodeType, types.TracebackType}
JUDGED = SECRET | {
    types.BuiltinMethodType,
    types.MethodDescriptorType,
    types.MappingProxyType,
    type,
}
COPYABLE = "__main__ builtins collections datetime decimal fractions types"
SECCOMP = {  # machine: its audit number, and the system calls let through: read write lseek mmap
    # mprotect munmap brk mremap madvise futex rt_sig{action,procmask,return} sigaltstack getitimer
    # setitimer sched_yield getpid gettid exit exit_group restart_syscall time gettimeofday
    # clock_gettime clock_getres getrusage times getrandom rseq
    "x86_64": """c000003e 0 1 8 9 10 11 12 25 28 202 13 14 15 131 36 38 24 39 186 60 231 219 201 96
        228 229 98 100 318 334""",
    "aarch64": """c00000b7 63 64 62 222 226 215 214 216 233 98 134 135 139 132 102 103 124 172 178
        93 94 128 169 113 114 165 153 278 293""",
}
LIBC = ctypes.CDLL(None)
CELL = "<cell "  # how the file names of cells begin
CHUNK = 1 << 17  # characters of text in one frame
FRAME_BYTES = 1 << 28  # the longest frame that the host takes from a worker
FRAME_NODES = 1 << 22  # and its most lists and dicts: "[[],[],..." grows twentyfold in memory

View = type("View", (types.ModuleType,), {})  # how a module looks from a cell
MADE = set()  # the types of objects that cells made, so far
is_dunder = re.compile("__.*__$").match
refusal = "the name {!r} is refused: it leads to Python's internals; use plain data instead".format


class SandboxError(Exception):
    """The worker is not to be trusted any more, or the sandbox is closed."""


class TimeIsUp(BaseException):
    """The cell has used up its CPU time. Cells can neither name nor catch this."""


TimeIsUp.__module__, TimeIsUp.__qualname__ = "builtins", "TimeoutError"  # as it is told


# ------------------------------------------------------------ compiler: RestrictedPython, our policy


class Policy(RestrictingNodeTransformer):
    """Attributes go through guards, names of internals are refused, the rest compiles as in Python.

    `a.b` becomes `"@read"(a, "b")`, and `a.b = c` becomes `"@own"(a, "b").b = c`. The names of
    the guards are no identifiers, so nothing that a cell can write rebinds them. Nodes that neither
    RestrictedPython nor `NATIVE` knows, such as those of a future Python, stay refused.
    """

    NATIVE = """
        AnnAssign Assign AsyncFor AsyncFunctionDef AsyncWith AugAssign Await Call Constant For
        FunctionDef Global Import Lambda Match MatchAs MatchClass MatchMapping MatchOr
        MatchSequence MatchSingleton MatchStar MatchValue Module Name NamedExpr Nonlocal ParamSpec
        Starred Subscript TypeAlias TypeVar TypeVarTuple With comprehension"""
    in_pattern = False

    def visit(self, node):
        """Check every identifier of a node, wherever the grammar puts it, then visit the node."""
        for field, names in ast.iter_fields(node):
            for name in names if isinstance(names, list) else [names]:
                if isinstance(name, str) and not isinstance(node, ast.Constant):
                    read = field in ("attr", "kwd_attrs")  # patterns read past all guards
                    bad = read and self.in_pattern and (name[0] == "_" or name in CHECKED)
                    known = READABLE if read else IDENTIFIERS
                    if bad or name in FORBIDDEN or (is_dunder(name) and name not in known):
                        self.error(node, refusal(name))
        return super().visit(node)

    def guard(self, name, node, *args):
        call = ast.Call(ast.Name("@" + name, ast.Load()), list(args), [])
        return ast.fix_missing_locations(ast.copy_location(call, node))

    def visit_Attribute(self, node):
        self.node_contents_visit(node)
        args, load = (node, node.value, ast.Constant(node.attr)), isinstance(node.ctx, ast.Load)
        if load and (node.attr[0] != "_" or is_dunder(node.attr)):
            if self.in_pattern or node.attr in HARMLESS:
                return node
            plain = node.attr[0] != "_" and node.attr not in CHECKED
            return self.guard("read" if plain else "getattr", *args)
        node.value = self.guard("own", *args)
        return node  # still an attribute, as Python has to mangle `__x`

    def visit_match_case(self, node):
        self.in_pattern = True
        self.visit(node.pattern)
        self.in_pattern, node.guard = False, node.guard and self.visit(node.guard)
        node.body = [self.visit(part) for part in node.body]
        return node

    def visit_ExceptHandler(self, node):
        if node.type is None:  # a bare `except:` must not catch the time limit
            node.type = ast.copy_location(ast.Name("Exception", ast.Load()), node)
        return self.node_contents_visit(node)

    def visit_ClassDef(self, node):
        if any(word.arg in ("metaclass", None) for word in node.keywords):
            self.error(node, "metaclasses are refused: use a plain class, or inherit from abc.ABC")
        return self.node_contents_visit(node)

    def visit_alias(self, node):
        if re.search(r"\b_(?!_future__$)", node.name):  # LAZY is for C code
            self.error(node, refusal(node.name))
        return node

    def visit_ImportFrom(self, node):
        self.visit_alias(ast.alias(node.module or "", lineno=node.lineno))
        return self.node_contents_visit(node)


for _kind in Policy.NATIVE.split():
    setattr(Policy, f"visit_{_kind}", RestrictingNodeTransformer.node_contents_visit)


def compile_cell(source: str, filename: str, mode: str = "exec") -> types.CodeType:
    """Return the code of a cell, which shows the value of its last line as Python's own REPL does.

    Raises SyntaxError, with a line for each refusal.
    """
    flags, policy = ast.PyCF_ALLOW_TOP_LEVEL_AWAIT, Policy()
    tree = compile(source, filename, mode, flags | ast.PyCF_ONLY_AST, dont_inherit=True)
    policy.visit(tree)
    if policy.errors:
        raise SyntaxError("\n".join(policy.errors))
    if mode == "exec" and tree.body and isinstance(last := tree.body[-1], ast.Expr):
        last.value = policy.guard("show", last, last.value)
    return compile(tree, filename, mode, flags, dont_inherit=True)


# ----------------------------------------------------- guards: what an attribute may read and write


def is_data(cls: type) -> bool:
    """Return whether a class of the library is plain data, or an exception."""
    return cls in DATA or issubclass(cls, BaseException)


def own(obj, name=""):
    """Return `obj` if a cell made it, and `name` if internal too: nothing else may be written to.

    Judged by `type()`, as `__class__` can lie. `name` stops what a class inherits from the library,
    such as `Enum._convert_`, which reads any module, or `property.__init__`, which rewrites one.
    """
    kind = type(obj)
    if kind in MADE and name[:1] != "_" and name not in FORMATS:
        return obj  # the fast way
    cls = obj if issubclass(kind, type) else obj.__self_class__ if kind is super else kind
    mine = cls.__module__ == "__main__"
    if kind is types.FunctionType:
        mine = obj.__code__.co_filename.startswith(CELL)
    elif not mine:  # or plain data that is made to be written
        open_to_all = kind is types.SimpleNamespace or kind.__module__ == "decimal"
        mine = open_to_all and (name == "__dict__" or name[:1] != "_")
    elif name in INTERNAL or (name.startswith("_") and not is_dunder(name)):
        bases = cls.__mro__ + (kind.__mro__ if cls is obj else ())
        bases = bases[bases.index(obj.__thisclass__) + 1 if kind is super else 0 :]
        holder = next((base for base in bases if name in base.__dict__), cls)
        mine = holder.__module__ == "__main__" or is_data(holder)
    if not mine or (name in FORMATS and issubclass(cls, str)):  # `s.format += spy` hands it out
        raise AttributeError(f"{name!r} of a {kind.__name__!r} is refused: no cell made it")
    if kind.__module__ == "__main__":
        MADE.add(kind)
    return obj


def safe_getattr(obj, name, *default):
    """Return `obj.name` for any name, or say why not."""
    if name[:1] == "_" or name in CHECKED or name in FORBIDDEN:
        kind = type(obj)
        cls = obj if issubclass(kind, type) else kind
        leak = name == "obj" and issubclass(kind, AttributeError)  # the object that failed
        alias = kind.__module__ in ("types", "typing")  # list[int] passes on to list
        leak = leak or (name == "register" and (cls is obj or alias))  # would fool isinstance()
        leak = leak or (name == "__dict__" and cls is obj)
        if leak or name in FORBIDDEN or (is_dunder(name) and name not in READABLE):
            raise AttributeError(refusal(name))
        if name == "__class__":
            return Type(obj)
        if name in ("__setattr__", "__delattr__"):
            write = getattr(object, name)
            me = () if cls is obj else (obj.__self__ if kind is super else obj,)
            return lambda *args: safe_write(write, *me, *args)
        if name in INTERNAL:
            known = is_data(cls) or (cls is obj and is_plain_base(cls))
            kind is super or known or own(obj, name)
        elif name in ("__dict__", "__annotations__") or not (is_dunder(name) or name in CHECKED):
            own(obj, name)
    value = read(obj, name, *default)
    if name == "__dict__":
        return Names(value, lambda name, value: safe_write(setattr, obj, name, value))
    return dict(value) if name == "__annotations__" else value


def read(obj, name, *default):
    """Return `obj.name` for a plain name: what most attributes in a cell compile to."""
    value = getattr(obj, name, *default)
    kind = type(value)
    if kind not in JUDGED and type(obj) not in SECRET:
        return value
    if kind in SECRET or type(obj) in SECRET:
        raise AttributeError(refusal(name))
    if kind is types.MappingProxyType:  # an operator would hand out what is behind it
        return dict(value)
    if kind is type:
        return Type if issubclass(value, type) else value
    if not (safe := FORMATS.get(value.__name__)):  # under whatever alias it was found
        return value
    return functools.partial(safe, value.__self__) if kind is types.BuiltinMethodType else safe


def safe_write(write, obj, name, *value):
    """`setattr` and `delattr` for cells."""
    if (name := str.__str__(name)) in FORBIDDEN or (is_dunder(name) and name not in WRITABLE):
        raise AttributeError(refusal(name))
    write(own(obj, name), name, *value)


def safe_hasattr(obj, name):
    """`hasattr` for cells."""
    with contextlib.suppress(AttributeError):
        return (safe_getattr(obj, str.__str__(name)), True)[1]
    return False


class Names(dict):
    """A copy of variables for a cell; what is assigned in it goes through `write`."""

    def __init__(self, values, write):
        super().__init__({name: value for name, value in values.items() if not is_dunder(name)})
        self._write = write

    def __setitem__(self, name, value):
        self._write(name := str.__str__(name), value)
        super().__setitem__(name, value)

    def update(self, *args, **kwargs):
        for name, value in dict(*args, **kwargs).items():
            self[name] = value


def names_of(call: str) -> Names:
    """Return the variables of the cell that called `globals`, `locals` or `eval`."""
    frame = sys._getframe(2)
    if not frame.f_code.co_filename.startswith(CELL):  # the library was made to call it
        raise RuntimeError(refusal(call))
    variables = frame.f_globals

    def write(name, value):
        if is_dunder(name) or not name.isidentifier():
            raise KeyError(refusal(name))
        variables[name] = value

    if call == "globals":
        return Names(variables, write)
    found = frame.f_locals if call == "locals" else variables | frame.f_locals
    return Names(found, lambda name, value: None)


def safe_vars(*obj):
    """`vars` for cells."""
    return safe_getattr(obj[0], "__dict__") if obj else names_of("locals")


def safe_eval(source, scope=None, *_):
    """`eval` for cells: under the same policy as the cell itself."""
    names = names_of("eval") if scope is None else dict(scope)
    names = {str.__str__(k): value for k, value in names.items() if str.isidentifier(k)}
    names |= {"__name__": "__main__", "__builtins__": SAFE_BUILTINS}
    return eval(compile_cell(source, f"{CELL}eval>", "eval"), names)


class TypeOfTypes(type):
    """Lets `Type` pass for `type` in calls and in isinstance()."""

    def __call__(cls, obj):
        return Type if issubclass(type(obj), type) else type(obj)

    def __instancecheck__(cls, obj):
        return issubclass(type(obj), type)


class Type(metaclass=TypeOfTypes):
    """`type` for cells: tells a type, makes none."""

    __class_getitem__ = classmethod(types.GenericAlias)


def is_plain_base(cls) -> bool:
    """Return whether a class of the library has nothing in it that reads or writes for its heirs."""
    plain = cls.__module__ in BASES.split() and cls.__name__[0] != "_"
    return plain and not issubclass(cls, (type, property))


def safe_build_class(body, name, *bases, **options):
    """`class` for cells: inherits from own classes and plain data, not from what can read or write."""
    for base in bases:
        named = base is typing.NamedTuple or base is typing.TypedDict
        alias = type(base).__module__ in ("typing", "types")
        for cls in () if named else types.resolve_bases([base]) if alias else [base]:
            fine = issubclass(type(cls), type) and (
                cls.__module__ == "__main__" or is_data(cls) or is_plain_base(cls)
            )
            if not fine:
                raise TypeError(f"inheriting from {cls!r} is refused: use a plain class")
    return builtins.__build_class__(body, name, *bases, **options)


def safe_import(name, globals=None, locals=None, fromlist=(), level=0):
    """`import` for cells, and for C code that works for them."""
    if name in LAZY and set(fromlist or ()) <= {"__doc__"}:
        return sys.modules[name]
    if level or name not in VIEWS:
        raise ImportError(f"import of {name!r} is refused; there are {', '.join(VIEWS)}", name=name)
    for word in fromlist or ():
        if word != "*" and not hasattr(VIEWS[name], word):  # Python would look in sys.modules
            raise ImportError(f"cannot import {word!r} from {name!r}: refused, or no such name")
    return VIEWS[name if fromlist else name.partition(".")[0]]


Type.__name__ = Type.__qualname__ = "type"
SAFE_BUILTINS = {
    **{name: getattr(builtins, name) for name in BUILTINS.split()},
    **{k: v for k, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, Exception)},
    "vars": safe_vars,
    "locals": lambda: names_of("locals"),
    "globals": lambda: names_of("globals"),
    "__build_class__": safe_build_class,
    "BaseException": Exception,  # or a cell could catch its time limit
    "__import__": safe_import,
    "type": Type,
    "eval": safe_eval,
    "hasattr": safe_hasattr,
    "getattr": lambda obj, name, *default: safe_getattr(obj, str.__str__(name), *default),
    "setattr": lambda obj, name, value: safe_write(setattr, obj, name, value),
    "delattr": lambda obj, name: safe_write(delattr, obj, name),
    "@getattr": safe_getattr,
    "@read": read,
    "@own": own,
    "@show": lambda value: None if value is None else print(repr(value)),
}

# --------------------------------------------- library: views of modules, stand-ins, patched makers

STAND_INS = '''# written as a cell, so that they can do no more than cells can
from contextlib import nullcontext
from functools import reduce
from types import SimpleNamespace
class Future:  # its work is done when it is handed in
    def __init__(self, work, *args, **kwargs):
        self.value = self.error = None
        try: self.value = work(*args, **kwargs)
        except Exception as error: self.error = error
    def result(self, timeout=None):
        if self.error: raise self.error
        return self.value
    def exception(self, timeout=None): return self.error
    def done(self): return True
    def __await__(self): return (yield from ()) or self.result()
class Executor:
    def __init__(self, *_, **__): self.submit = Future
    def map(self, work, *inputs, **_): return iter([work(*args) for args in zip(*inputs)])
    def shutdown(self, *_, **__): pass
    def __enter__(self): return self
    def __exit__(self, *_): pass
def run(coroutine, **_):
    try:
        while True: coroutine.send(None)
    except StopIteration as stop: return stop.value
def start(work, **_): return work if isinstance(work, Future) else Future(run, work)
def gather(*works, return_exceptions=False):
    works = [start(work) for work in works]
    return Future(lambda: [return_exceptions and w.exception() or w.result() for w in works])
def attrgetter(*names):
    get = lambda obj: tuple(reduce(getattr, name.split("."), obj) for name in names)
    return get if len(names) > 1 else lambda obj: get(obj)[0]
def wraps(wrapped):
    def rename(wrapper):
        wrapper.__name__, wrapper.__doc__ = wrapped.__name__, wrapped.__doc__
        return wrapper
    return rename
def exit(*code): raise SystemExit(*code)
def open(*_, **__): raise RuntimeError("open() is refused: there are no files, the data is in `context`")
def input(*_): raise RuntimeError("input() is refused: nobody is there to answer")
def sleep(*_): raise RuntimeError("time.sleep() is refused: there is nothing to wait for")
lock, listed = lambda *_: nullcontext(), lambda works, **_: list(works)
loop = SimpleNamespace(run_until_complete=lambda work: run(work.__await__()), create_task=start,
    run_in_executor=lambda executor, work, *args: Future(work, *args), close=lambda: None)
stand_ins = {
    "asyncio": dict(run=run, gather=gather, create_task=start, ensure_future=start, Semaphore=lock,
        Lock=lock, to_thread=Future, sleep=lambda seconds=0, result=None: Future(lambda: result),
        wait_for=lambda work, timeout=None: work, as_completed=listed,
        new_event_loop=lambda: loop, get_event_loop=lambda: loop, get_running_loop=lambda: loop),
    "concurrent.futures": dict(ThreadPoolExecutor=Executor, ProcessPoolExecutor=Executor,
        as_completed=listed, wait=lambda futures, **_: (set(futures), set())),
    "functools": dict(wraps=wraps), "sys": dict(exit=exit), "time": dict(sleep=sleep),
    "operator": dict(attrgetter=attrgetter,
        methodcaller=lambda name, /, *args, **kw: lambda obj: getattr(obj, name)(*args, **kw)),
    "typing": dict(Protocol=object, runtime_checkable=lambda cls: cls),
}
'''  # fmt: skip


def make_views() -> dict[str, types.ModuleType]:
    """Return {name: view}: modules without what leads on, such as `json.codecs` or `re.enum`."""
    views = {}
    for entry in MODULES.split(";"):
        name, *words = entry.split()
        view, module = View(name), importlib.import_module(name)
        public = getattr(module, "__all__", [n for n in dir(module) if n[0] != "_"])
        names = {*words, *(public if "*" in words else ())} - {w[1:] for w in words if w[0] == "-"}
        for word in names:
            value = getattr(module, word, module)  # some names are newer than Python 3.11
            if not isinstance(value, types.ModuleType):
                setattr(view, word, value)
        views[name] = view
        if "." in name:
            setattr(views[name.split(".")[0]], name.split(".")[1], view)
    return views


VIEWS = make_views()


def harden() -> None:
    """Patch, in this process, what the library would do unguarded on behalf of a cell."""
    process_class, reconstruct = dataclasses._process_class, copy._reconstruct
    create_enum = enum.EnumType._create_

    def safe_process_class(cls, *args, **kwargs):  # makes code of these names
        for name in vars(own(cls)).get("__annotations__", {}):
            harmful = (
                type(name) is str and name in CHECKED and issubclass(cls, (str, AttributeError))
            )
            if type(name) is not str or not name.isidentifier() or is_dunder(name) or harmful:
                raise TypeError(f"a field cannot be named {name!r}")
        return process_class(cls, *args, **kwargs)

    def safe_reconstruct(x, memo, func, args, *rest, **kwargs):  # writes state into what is made
        def make(*args):
            if (
                type(made := func(*args)) is not type(x)
                or type(x).__module__ not in COPYABLE.split()
            ):
                raise TypeError(f"copying a {type(x).__name__!r} is refused")
            return made

        return reconstruct(x, memo, make, args, *rest, **kwargs)

    def safe_create(cls, class_name, names, **options):  # defines whatever methods it is given
        if not isinstance(names, (str, list, tuple)):
            raise TypeError("an enum is made here of a class, a str or a list of str")
        names = names.replace(",", " ").split() if isinstance(names, str) else names
        names = [str.__str__(name) for name in names]
        if any(map(is_dunder, names)):
            raise TypeError("an enum has no members that are named like __this__")
        return create_enum(cls, class_name, names, **options)

    dataclasses._process_class, copy._reconstruct = safe_process_class, safe_reconstruct
    enum.EnumType._create_ = safe_create
    string.getattr = safe_getattr  # string.Formatter looks here first
    sys.modules["__main__"] = types.ModuleType("__main__")  # where the library looks for classes
    made = {"__name__": "__main__", "__builtins__": SAFE_BUILTINS}
    exec(compile_cell(STAND_INS, f"{CELL}0>"), made)  # noqa: S102
    for name, names in made["stand_ins"].items():
        vars(VIEWS[name]).update(names)
    VIEWS["traceback"].format_exc = lambda: describe(sys.exception())
    VIEWS["traceback"].print_exc = lambda: print(describe(sys.exception()))
    VIEWS["functools"].total_ordering = lambda cls: functools.total_ordering(own(cls))
    VIEWS["abc"].abstractmethod = lambda method: abc.abstractmethod(own(method))
    VIEWS["sys"].setrecursionlimit = lambda limit: sys.setrecursionlimit(min(limit, 3000))
    SAFE_BUILTINS.update(
        {name: made[name] for name in ("exit", "open", "input")}, quit=made["exit"]
    )


# ----------------------------------------------------------------- cell: run one, tell what happened


class Final(NamedTuple):
    """The answer that a cell gave with FINAL(value): any JSON value."""

    value: Any


class Result(NamedTuple):
    """What a cell printed, None or a short traceback, None or its answer."""

    output: str
    error: str | None
    final: Final | None


class Output:
    """A text stream that keeps the head and the tail of what is written, and counts the middle."""

    def __init__(self, limit: int):
        self._half, self._head, self._tail, self._left_out = max(limit // 2, 1), "", "", 0
        self.flush = lambda: None

    def write(self, text):
        text = str.__str__(text)
        room = self._half - len(self._head)
        self._head, self._tail = self._head + text[:room], self._tail + text[room:]
        if len(self._tail) > 2 * self._half:
            self._left_out += len(self._tail) - self._half
            self._tail = self._tail[-self._half :]
        return len(text)

    def text(self) -> str:
        left_out = self._left_out + max(len(self._tail) - self._half, 0)
        middle = f"\n... [{left_out:,} characters left out] ...\n" if left_out else ""
        return self._head + middle + self._tail[-self._half :]


def describe(error: BaseException) -> str:
    """Return a traceback of the cells' own frames, ending in `KeyError: 'x'`."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    frames = [f for f in told.stack if f.filename.startswith(CELL) and f.filename != f"{CELL}0>"]
    told.stack = traceback.StackSummary.from_list(frames)
    text = "".join(told.format(chain=False)).strip()
    return text if len(text) < 4000 else f"{text[:2000]}\n...\n{text[-1900:]}"


def to_json(value) -> bytes:
    """Return `value` as JSON; what is not JSON but can be iterated becomes a list."""

    def listed(value):
        if isinstance(value, collections.abc.Iterable):
            return list(value)
        raise TypeError(f"{type(value).__name__} is not JSON: pass str(x), a dict or a list")

    return json.dumps(value, default=listed).encode()


class Interpreter:
    """Runs cells that share their variables, in this very process: the first wall alone."""

    def __init__(self, variables: dict, tools: dict, output_chars: int = 10_000):
        self.output_chars, self.cells, self.final, self.interruptible = output_chars, 0, None, False
        self.namespace = {"__name__": "__main__", "__builtins__": SAFE_BUILTINS}
        finals = {name: getattr(self, name) for name in ("FINAL", "FINAL_VAR", "SHOW_VARS")}
        self.fixed = {**variables, **tools, **finals}

    def run(self, source: str, seconds: float = 0) -> Result:
        """Run one cell, for at most `seconds` of CPU time (0: without a limit)."""
        self.cells, self.final, error = self.cells + 1, None, None
        name, output = f"{CELL}{self.cells}>", Output(self.output_chars)
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        sys.stdout = sys.stderr = VIEWS["sys"].stdout = VIEWS["sys"].stderr = output
        self.namespace.update(self.fixed)
        with contextlib.suppress(OSError):
            self.reserve = mmap.mmap(-1, 24 << 20)  # telling of a MemoryError takes memory
        try:
            try:
                self.start_clock(seconds)
                value = eval(compile_cell(source, name), self.namespace)
                if isinstance(value, types.CoroutineType):  # the cell used `await`
                    VIEWS["asyncio"].run(value)
            except SystemExit:
                pass
            except BaseException as problem:  # noqa: BLE001 - all of it is told
                self.reserve.close()
                error = describe(problem)
            finally:
                self.start_clock(0)
        except BaseException as problem:  # noqa: BLE001 - over time while telling
            error = f"{type(problem).__name__}: {problem}"
        self.reserve.close()
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        return Result(output.text(), error, self.final)

    def start_clock(self, seconds: float) -> None:
        """Raise in the cell after `seconds`, again and again, as it could be swallowed; 0: stop."""

        def over(*_):
            if self.interruptible:
                raise TimeIsUp(f"the cell computed for more than {seconds:g} s; variables are kept")

        if seconds:
            signal.signal(signal.SIGPROF, over)
        self.interruptible = seconds > 0
        signal.setitimer(signal.ITIMER_PROF, seconds, 0.2 * bool(seconds))

    def FINAL(self, value=None):
        """End the run with `value`, any JSON value."""
        self.final = self.final or Final(json.loads(to_json(value)))
        raise SystemExit

    def FINAL_VAR(self, name):
        """End the run with the value of the variable `name`."""
        known = isinstance(name, str) and name in self.namespace and name[0] != "_"
        self.FINAL(self.namespace[name] if known else name)

    def SHOW_VARS(self):
        """Return the names and types of the variables so far."""
        found = self.namespace.items()
        return {k: type(v).__name__ for k, v in found if k[0] != "_" and k not in self.fixed}


# ------------------------------------------------------- worker: the second wall, and one REPL in it


def lock_down(memory_mb: int) -> tuple[str, ...]:
    """Take from this process, for good, all that a cell must not have; return the walls that hold.

    Resource limits stop opening, forking and filling memory. The seccomp filter stops all system
    calls but some thirty, so that even native code cannot execute, signal, trace or stat.
    """
    with contextlib.suppress(OSError), open("/proc/self/statm") as memory:  # on Linux
        limit = int(memory.read().split()[0]) * mmap.PAGESIZE + (memory_mb << 20)
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    for kind in ("NOFILE", "NPROC", "FSIZE", "CORE"):
        resource.setrlimit(getattr(resource, f"RLIMIT_{kind}"), (0, 0))
    if sys.platform != "linux" or os.uname().machine not in SECCOMP:
        return ("language", "rlimits")
    machine, *allowed = SECCOMP[os.uname().machine].split()
    load, equal, end = 0x20, 0x15, 0x06  # BPF: load a word, skip steps if equal or not, return
    steps = [
        (load, 0, 0, 4),
        (equal, 1, 0, int(machine, 16)),
        (end, 0, 0, 0x50001),
        (load, 0, 0, 0),
    ]
    steps += [(equal, len(allowed) - i, 0, int(number)) for i, number in enumerate(allowed)]
    steps += [(end, 0, 0, 0x50001), (end, 0, 0, 0x7FFF0000)]  # EPERM, or let it through
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    # no_new_privs, without which it may not be set, then the filter
    failed = LIBC.prctl(38, 1, 0, 0, 0) or LIBC.prctl(22, 2, header, 0, 0)
    return ("language", "rlimits") if failed else ("language", "rlimits", "seccomp")


def send_value(pipe: Connection, value) -> None:
    """Send a JSON value, in frames of bounded size; an empty one ends it."""
    text = value if isinstance(value, str) else json.dumps(value)
    pipe.send_bytes(b"text" if text is value else b"json")
    for start in range(0, len(text), CHUNK):
        pipe.send_bytes(text[start : start + CHUNK].encode("utf-8", "surrogatepass"))
    pipe.send_bytes(b"")


def receive_value(pipe: Connection):
    """Return what `send_value` sent; text grows in place, so that it is in memory once."""
    kind, text = pipe.recv_bytes(), ""
    for frame in iter(pipe.recv_bytes, b""):  # in a `while` Python 3.11 would copy all each time
        text += frame.decode("utf-8", "surrogatepass")
    return text if kind == b"text" else json.loads(text)


def work(pipe: Connection) -> None:
    """Be a worker: load the variables, lock the doors, run cells until the host hangs up."""
    setup = json.loads(pipe.recv_bytes())
    variables = {name: receive_value(pipe) for name in setup["variables"]}
    walls = lock_down(setup["memory_mb"])

    def call(name, *args, **kwargs):
        message = to_json({"call": name, "args": args, "kwargs": kwargs})
        if len(message) > FRAME_BYTES:
            raise ValueError(f"{name}: {len(message):,} bytes; a call takes {FRAME_BYTES:,}")
        limit, interpreter.interruptible = sys.getrecursionlimit(), False
        sys.setrecursionlimit(limit + 100)  # half a frame would be the end of this worker
        pipe.send_bytes(message)
        reply = json.loads(pipe.recv_bytes())
        sys.setrecursionlimit(limit)
        interpreter.interruptible = True
        if "error" in reply:
            kind = getattr(builtins, reply["kind"], None)
            known = isinstance(kind, type) and issubclass(kind, Exception)
            known = known and not issubclass(kind, (UnicodeError, StopIteration, ExceptionGroup))
            raise (kind if known else RuntimeError)(reply["error"])
        return reply["value"]

    tools = {name: functools.partial(call, name) for name in setup["tools"]}
    interpreter = Interpreter(variables, tools, setup["output_chars"])
    VIEWS["random"].seed()  # or all forked workers would draw the same numbers
    pipe.send_bytes(to_json({"pid": os.getpid(), "walls": walls}))
    while True:
        source = json.loads(pipe.recv_bytes())
        pipe.send_bytes(to_json(interpreter.run(source, setup["cell_seconds"])))


def serve(fd: int) -> None:
    """Be the fork server: fork a worker for each socket that comes, kill the one that is named."""
    control, children = socket.socket(fileno=fd), {}
    os.environ.clear()
    harden()
    for name in (*LAZY, *(f"encodings.{codec}" for codec in CODECS.split())):
        with contextlib.suppress(ImportError):  # 3.11 has no _pylong
            importlib.import_module(name)
    os.chdir(empty := tempfile.mkdtemp())
    os.rmdir(empty)  # a folder that is gone stays empty
    gc.collect()
    gc.freeze()  # a worker's collector leaves alone what it shares with this process
    gc.disable()
    while True:
        key, fds, *_ = socket.recv_fds(control, 8, 1)
        if not key:  # the host is gone; so is this process group, which is all workers
            os.killpg(0, signal.SIGKILL)
        if not fds:
            if child := children.pop(key, None):
                os.kill(child, signal.SIGKILL)  # not reaped yet: its pid is nobody else's
                os.waitpid(child, 0)
        elif child := os.fork():
            children[key] = child
            os.close(fds[0])
        else:
            control.close()
            gc.enable()
            if sys.platform == "linux":
                LIBC.prctl(1, signal.SIGKILL)  # die with this server
            with contextlib.suppress(EOFError, OSError):
                work(Connection(fds[0]))
            os._exit(0)


# ---------------------------------------------------------------------------- host: what others use

LOCK = threading.Lock()


@functools.cache
def fork_server() -> tuple[socket.socket, subprocess.Popen]:
    """Start this process's fork server: to start Python for each worker would take 60 ms."""
    control, theirs = socket.socketpair()
    folder, name = os.path.split(os.path.abspath(__file__))
    code = f"import sys; sys.path[:] = {[folder, *sys.path]}; from {name[:-3]} import serve; serve"
    env = {k: v for k, v in os.environ.items() if k.endswith("LD_LIBRARY_PATH")}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with theirs:
        command = [sys.executable, "-I", "-c", f"{code}({theirs.fileno()})"]
        keep = {"pass_fds": [theirs.fileno()], "start_new_session": True}  # Ctrl-C is for the host
        return control, subprocess.Popen(command, env=env, **keep, **streams)


def tell_server(key: bytes, fds=()) -> None:
    """Order a worker for the socket in `fds`, or the death of the one ordered with that key."""
    with LOCK:
        try:
            socket.send_fds(fork_server()[0], [key], fds)
        except OSError:  # the server died, and all its workers with it
            fork_server.cache_clear()
            fds and socket.send_fds(fork_server()[0], [key], fds)


def forget_server() -> None:
    """Leave the server to the parent, in a process that the host forked."""
    fork_server.cache_clear()
    LOCK.release()


os.register_at_fork(before=LOCK.acquire, after_in_parent=LOCK.release, after_in_child=forget_server)


class Sandbox:
    """A REPL in a worker process.

    variables: {name: JSON value}, in every cell; tools: {name: function of JSON values}, run here,
    in the thread that called `run`; cell_seconds: CPU time of one cell; memory_mb: MiB beyond the
    variables; output_chars: how much of a cell's output is kept.
    """

    def __init__(
        self,
        variables: dict | None = None,
        tools: dict | None = None,
        *,
        cell_seconds: float = 60,
        memory_mb: int = 2048,
        output_chars: int = 10_000,
    ):
        self.variables, self.tools = variables or {}, tools or {}
        self.setup = {"cell_seconds": cell_seconds, "memory_mb": memory_mb}
        self.setup["output_chars"] = output_chars
        self._closed = self._running = False
        self._start()

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.close()

    @property
    def walls(self) -> tuple[str, ...]:
        """Which walls hold on this machine, of "language", "rlimits" and "seccomp"."""
        return tuple(self._greet()["walls"])

    @property
    def pid(self) -> int:
        """The process id of the worker."""
        return self._greet()["pid"]

    def run(self, code: str, seconds: float | None = None) -> Result:
        """Run one cell, for `seconds` of wall-clock time at most (None: as long as it computes).

        A worker that dies or must be killed is a `Result` with an error that says so. Raises
        SandboxError when the worker says what a worker does not say.
        """
        self._deadline = time.monotonic() + seconds if seconds is not None else float("inf")
        try:
            if self._closed:
                raise SandboxError("the sandbox is closed")
            if self._pipe is None:
                self._start()
            self._running = True
            self._greet()
            self._cpu_start = self._cpu()
            self._pipe.send_bytes(json.dumps(code).encode())
            while True:
                match self._receive():
                    case {"call": str(name), "args": list(args), "kwargs": dict(kwargs)}:
                        self._pipe.send_bytes(self._call(name, args, kwargs))
                    case [str(output), None | str() as error, None | [_] as final]:
                        return Result(output, error, final and Final(*final))
                    case _:
                        raise SandboxError("the worker said what workers do not say")
        except (EOFError, OSError) as lost:
            self._kill()
            if self._closed:
                raise SandboxError("the sandbox was closed") from None
            why = lost if isinstance(lost, TimeoutError) else "it was killed, or ran out of memory"
            gone = f"your variables are gone; loaded again: {', '.join(self.variables)}"
            return Result("", f"SandboxError: the worker was lost: {why}; {gone}", None)
        except BaseException:
            self._kill()
            raise
        finally:
            self._running = False

    def close(self) -> None:
        """Kill the worker; may be called twice, and from another thread."""
        self._closed = True
        if self._running:
            tell_server(self._key)  # run() will notice
        else:
            self._kill()

    def _start(self) -> None:
        ours, theirs = socket.socketpair()
        self._key, self._hello, self._deadline = os.urandom(8), None, float("inf")
        for option, seconds in ((socket.SO_SNDTIMEO, 10), (socket.SO_RCVTIMEO, 2)):
            # a worker that stops in the middle of a frame must not stop the host
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
        with theirs:
            tell_server(self._key, [theirs.fileno()])
        self._pipe, self._poll = Connection(ours.detach()), select.poll()
        self._poll.register(self._pipe.fileno(), select.POLLIN)
        names = {"variables": list(self.variables), "tools": list(self.tools)}
        with contextlib.suppress(OSError):  # run() will tell
            self._pipe.send_bytes(json.dumps(names | self.setup).encode())
            for value in self.variables.values():
                send_value(self._pipe, value)

    def _greet(self) -> dict:
        self._hello = self._hello or self._receive()  # sent before the first cell, so it is true
        return self._hello

    def _kill(self) -> None:
        pipe, self._pipe, self._hello = self._pipe, None, None
        if pipe is not None:
            tell_server(self._key)
            pipe.close()

    def _call(self, name, args, kwargs) -> bytes:
        if name not in self.tools:
            raise SandboxError("the worker called what is no tool")
        try:
            return json.dumps({"value": self.tools[name](*args, **kwargs)}).encode()
        except Exception as error:  # noqa: BLE001 - it is the cell's to handle
            return json.dumps({"error": str(error), "kind": type(error).__name__}).encode()

    def _receive(self):
        """Return the worker's next message."""
        self._wait()
        try:
            frame = self._pipe.recv_bytes(FRAME_BYTES)
        except OSError as error:
            if error.errno is None:  # how Connection tells of a length that is too long
                raise SandboxError("the worker sent too long a message") from None
            raise
        if frame.count(b"[") + frame.count(b"{") > FRAME_NODES:
            raise SandboxError(f"the worker sent over {FRAME_NODES:,} lists and dicts")
        try:
            return json.loads(frame)
        except (ValueError, RecursionError) as error:
            raise SandboxError(f"the worker sent what is not JSON: {error}") from None

    def _wait(self) -> None:
        """Return when the worker has something to say; raise TimeoutError when it never will."""
        limit, progress, since = self.setup["cell_seconds"], 0, time.monotonic()
        while True:
            if time.monotonic() > self._deadline:
                raise TimeoutError("the time of the run is over")
            if self._poll.poll(250):
                return
            now, used = time.monotonic(), self._cpu()
            if self._hello and used - self._cpu_start > limit + 1:
                raise TimeoutError(
                    f"it computed for over {limit:g} s, and could not be interrupted"
                )
            if used > progress + 0.01:
                progress, since = used, now
            elif now - since > (limit + 2 if self._hello else 120):
                raise TimeoutError("it stopped answering")

    def _cpu(self) -> float:
        """Return the CPU seconds of the worker so far; 0 where the platform does not tell."""
        try:  # Linux: the clock that clock_getcpuclockid(3) makes of a pid
            return time.clock_gettime(~self._hello["pid"] << 3 | 2)
        except (TypeError, OSError):
            return 0.0
