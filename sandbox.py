"""A Python REPL for code that nobody has read: what language models write runs, nothing gets out.

    with Sandbox({"context": text}, tools={"ask": ask}) as repl:
        result = repl.run("len(context)")  # Result(output="12\\n", error=None, final=None)

Two walls, neither trusting the other. The *language*: RestrictedPython compiles each cell under our
policy, so that no attribute leads to a frame, a module or a class's bases, and an import gives a
view. The *process*: a worker without secrets, files, sockets or children, bounded in memory and
time, that speaks JSON to a host that believes none of it. Not here: models, HTTP, threads, Windows.
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
from multiprocessing.connection import Connection

from RestrictedPython.transformer import INSPECT_ATTRIBUTES, RestrictingNodeTransformer

try:
    import resource
except ImportError:
    raise ImportError("this needs Linux or macOS; on Windows, run it under WSL") from None

# ------------------------------------------------------------------------------ tables: what may be

MODULES = """
    __future__ annotations; abc ABC; ast literal_eval; asyncio TimeoutError CancelledError;
    base64 *; binascii *; bisect *; calendar * -LocaleTextCalendar -LocaleHTMLCalendar; cmath *;
    collections * -UserString; collections.abc *; concurrent; concurrent.futures TimeoutError
    ALL_COMPLETED FIRST_COMPLETED FIRST_EXCEPTION; contextlib contextmanager asynccontextmanager
    suppress nullcontext closing ExitStack; copy *; csv * -register_dialect -unregister_dialect;
    dataclasses * -make_dataclass; datetime *; decimal * -DefaultContext -BasicContext
    -ExtendedContext; difflib *; enum Enum IntEnum StrEnum Flag IntFlag auto unique member
    nonmember; fnmatch *; fractions *; functools partial partialmethod reduce lru_cache cache
    cached_property cmp_to_key total_ordering; graphlib *; hashlib * -algorithms_available
    -algorithms_guaranteed; heapq *; html *; html.parser *; io StringIO BytesIO; itertools *; json
    *; json.decoder *; math *; numbers *; operator *; os sep linesep; os.path basename commonprefix
    dirname join normpath split splitext; pprint *; queue *; random *; re *; statistics *; string *;
    struct *; sys maxsize version version_info float_info byteorder getsizeof getrecursionlimit;
    textwrap *; threading; time * -clock_settime -clock_settime_ns -pthread_getcpuclockid -tzset;
    traceback; types SimpleNamespace MappingProxyType NoneType; typing * -ForwardRef
    -clear_overloads -dataclass_transform -get_overloads -get_protocol_members -get_type_hints
    -no_type_check -no_type_check_decorator; unicodedata *; urllib; urllib.parse *; warnings; zlib *
"""  # module, names handed out: "*" is all public ones, "-x" not x
CODECS = """ascii cp1251 cp1252 hex_codec idna iso8859_1 iso8859_15 latin_1 punycode rot_13 utf_16
    utf_16_be utf_16_le utf_32 utf_8_sig raw_unicode_escape unicode_escape"""
LAZY = ["_strptime", "_pylong", *(f"encodings.{codec}" for codec in CODECS.split())]  # by C code
BUILTINS = """
    abs aiter all anext any ascii bin bool bytearray bytes callable chr classmethod complex dict dir
    divmod enumerate filter float format frozenset hash hex id int isinstance issubclass iter len
    list map max memoryview min next object oct ord pow print property range repr reversed round set
    slice sorted staticmethod str sum super tuple zip NotImplemented Ellipsis SystemExit
    KeyboardInterrupt GeneratorExit"""
dunders = lambda names: {f"__{name}__" for name in names.split()}
INTERNAL = dunders("init post_init init_subclass get getattr set delete set_name setattr delattr")
DUNDERS = INTERNAL | dunders("""
    repr str bytes format bool hash eq ne lt le gt ge len length_hint iter next reversed
    contains getitem setitem delitem missing call enter exit aenter aexit aiter anext await dir copy
    deepcopy index int float complex round trunc floor ceil neg pos abs invert add sub mul matmul
    truediv floordiv mod divmod pow lshift rshift and xor or radd rsub rmul rmatmul rtruediv
    rfloordiv rmod rdivmod rpow rlshift rrshift rand rxor ror iadd isub imul imatmul itruediv
    ifloordiv imod ipow ilshift irshift iand ixor ior class_getitem name qualname doc future
    """)  # what a cell may define, read and write
READABLE = dunders(
    "new slots class dict module members cause context notes annotations"
)  # read besides
INTERNAL |= {"__new__"}  # which may be defined and read, but not assigned: see "@new"
FORBIDDEN = INSPECT_ATTRIBUTES | {"mro", "fget", "fset", "fdel", "_abc_impl"}
ENUM_NAMES = {"_missing_", "_member_map_", "_member_names_", "_value2member_map_"}  # of enums
TUPLE_NAMES = {"_asdict", "_fields", "_make", "_replace"}  # of named tuples
PLAIN = {object, dict, list, set, frozenset, tuple, str, bytes, bytearray, int, float, complex}
PLAIN |= {bool, types.FunctionType, types.SimpleNamespace, typing.Generic, collections.deque}
PLAIN |= {collections.OrderedDict, collections.defaultdict}  # and the classes of these modules:
BASES = """__main__ abc collections collections.abc enum json.encoder json.decoder html.parser
    _markupbase string random _random datetime _io numbers decimal fractions textwrap"""
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
CELL = "<cell "  # how the files of cells begin
MAIN = "__main__"  # the module of what cells make, compared with `is`
CHUNK = 1 << 17  # characters of text in one frame
FRAME_BYTES = 1 << 28  # the longest frame that the host takes from a worker
FRAME_NODES = 1 << 23  # and its most brackets and commas: "[[],[],..." grows twentyfold in memory
FRAME_SECONDS = 10  # and how long it may take

# ---------------------------------------------------------- compiler: RestrictedPython, our policy

is_dunder = re.compile("__.+__", re.DOTALL).fullmatch
refusal = "the name {!r} is refused: it leads to Python's internals; use plain data instead".format


def refused(name: str, more=()) -> bool:
    """Return whether a name leads to Python's internals, wherever it is used."""
    return name in FORBIDDEN or (name not in DUNDERS and name not in more and bool(is_dunder(name)))


class Policy(RestrictingNodeTransformer):
    """Names of internals are refused, guards see odd attributes, the rest compiles as in Python.

    `a.__b__` becomes `"@getattr"(a, "__b__")`; in `a.b = 1` and in `a._b`, `a` becomes
    `"@own"(a, "b")`. The names of the guards are no identifiers, so that no cell can rebind them.
    Nodes that neither RestrictedPython nor `NATIVE` knows, as of a future Python, stay refused.
    """

    NATIVE = """
        AnnAssign Assign AsyncFor AsyncFunctionDef AsyncWith Attribute AugAssign Await Call ClassDef
        Constant ExceptHandler For FunctionDef Global Import ImportFrom Lambda Match MatchAs
        MatchClass MatchMapping MatchOr MatchSequence MatchSingleton MatchStar MatchValue Module
        Name NamedExpr Nonlocal ParamSpec Starred Subscript TypeAlias TypeVar TypeVarTuple With
        alias comprehension match_case""".split()  # noqa: SIM905

    def visit(self, node):
        """Check every identifier of a node, wherever the grammar puts it, and what is in it."""
        match node:
            case ast.Assign(targets=[ast.Name("__slots__")]):
                node.value = self.guard("@slots", node, self.visit(node.value))
                return node
        reads = isinstance(getattr(node, "ctx", None), ast.Load)
        for field, names in ast.iter_fields(node):
            for name in names if isinstance(names, list) else [names]:
                if isinstance(name, str) and not isinstance(node, ast.Constant):
                    private = field == "kwd_attrs" and name[0] == "_"  # patterns pass no guard
                    known = READABLE if field == "attr" and reads else ()
                    known = {"__new__"} if isinstance(node, ast.FunctionDef) else known
                    if private or refused(name, known):
                        self.error(node, refusal(name))
        native = type(node).__name__ in self.NATIVE
        node = self.node_contents_visit(node) if native else super().visit(node)
        match node:
            case ast.Attribute(attr=name) if reads and is_dunder(name):
                return self.guard("@getattr", node, node.value, ast.Constant(name))
            case ast.Attribute(attr=name) if (
                not reads or name[0] == "_" and name not in TUPLE_NAMES
            ):
                # it stays an attribute, as Python has to mangle `__x`
                node.value = self.guard("@own", node, node.value, ast.Constant(name))
            case ast.ClassDef(keywords=words) if any(
                (w.arg or "_").startswith(("_", "metaclass")) for w in words
            ):
                self.error(node, "metaclasses are refused: use a plain class, or abc.ABC")
            case ast.FunctionDef(name="__new__"):  # what it returns is written to by the library
                node.decorator_list.insert(0, ast.copy_location(ast.Name("@new", ast.Load()), node))
            case ast.ExceptHandler(type=None):  # a bare `except:` must not catch the time limit
                node.type = ast.copy_location(ast.Name("Exception", ast.Load()), node)
        return node

    def guard(self, name: str, node, *args) -> ast.Call:
        call = ast.Call(ast.Name(name, ast.Load()), list(args), [])
        return ast.fix_missing_locations(ast.copy_location(call, node))


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
        last.value = policy.guard("@show", last, last.value)
    return compile(tree, filename, mode, flags, dont_inherit=True)


# ----------------------------------------------------- guards: what an attribute may read and write


def owner(obj) -> type:
    """Return the class that tells who made `obj`, by type(): its `__class__` can lie."""
    kind = type(obj)
    if kind is super and obj.__self__ is not None:  # unbound ones can be made anew
        return obj.__thisclass__
    return obj if issubclass(kind, type) else kind


@functools.cache
def inherited(cls: type, name: str) -> bool:
    """Return whether a private name comes from the library, as `_abc_impl` does in any ABC."""
    above = [base for base in (*cls.__mro__, *type(cls).__mro__) if base.__module__ is not MAIN]
    harmless = is_dunder(name) or name in ENUM_NAMES
    return not harmless and any(name in vars(base) for base in above)


def own(obj, name):
    """Return `obj` if a cell made it: nothing else may be written to, or be read where private."""
    kind = type(obj)
    if kind.__module__ is MAIN and name[:1] != "_":  # nearly always
        return obj
    cls = owner(obj)
    above = kind is super and name in ENUM_NAMES - {"_missing_"}  # the library's own lists
    if cls.__module__ is MAIN and not (name[:1] == "_" and (above or inherited(cls, name))):
        return obj
    if kind is types.FunctionType and obj.__code__.co_filename.startswith(CELL):
        return obj
    free = kind is types.SimpleNamespace or kind.__module__ == "decimal"  # for anyone to write
    if name[:1] != "_" and (free or issubclass(kind, BaseException)):
        return obj
    raise AttributeError(f"{name!r} of a {kind.__name__!r} is refused: no cell made it")


@functools.cache
def inheritable(cls: type) -> bool:
    """Return whether no class above `cls` reads or writes on behalf of its heirs, like property."""
    return all(
        base in PLAIN
        or (type(base.__module__) is str and base.__module__ in BASES.split())
        or issubclass(base, BaseException)
        for base in cls.__mro__
    )


def safe_getattr(obj, name, *default):
    """`getattr` for cells, and what reads of dunder names compile to."""
    name, cls = str.__str__(name), owner(obj)
    if refused(name, READABLE) or (name in INTERNAL and not inheritable(cls)):
        if default:
            return default[0]
        raise AttributeError(refusal(name))
    if name == "__class__":
        return Type(obj)
    if name in ("__setattr__", "__delattr__"):  # as in object.__setattr__(self, "x", 1)
        write, me = getattr(object, name), () if cls is obj else (getattr(obj, "__self__", obj),)
        return lambda *args: safe_write(write, *me, *args)
    if name == "__dict__" or (name[:1] == "_" and not is_dunder(name)):
        own(obj, "dict" if name == "__dict__" else name)
    value = getattr(obj, name, *default)
    copied = type(value) is types.MappingProxyType or (
        name in ("__annotations__", "__slots__") and isinstance(value, dict)
    )
    return {k: v for k, v in value.items() if not refused(k)} if copied else value


def safe_write(write, obj, name, *value):
    """`setattr` and `delattr` for cells."""
    if refused(name := str.__str__(name)):
        raise AttributeError(refusal(name))
    write(own(obj, name), name, *value)


def names_of(*kinds: str) -> dict:
    """Return a copy of the `f_globals` or `f_locals` of the cell that calls, from wherever."""
    frame = sys._getframe(1)
    while not frame.f_code.co_filename.startswith(CELL):  # the library may have been made to call
        frame = frame.f_back
    return {k: v for kind in kinds for k, v in getattr(frame, kind).items() if not is_dunder(k)}


def safe_eval(source, *scopes):
    """`eval` for cells: under the same policy as the cell itself."""
    scopes = [scope for scope in scopes if scope is not None] or [names_of("f_globals", "f_locals")]
    items = (item for scope in scopes for item in scope.items())
    names = {str.__str__(name): value for name, value in items if str.isidentifier(name)}
    return eval(compile_cell(source, f"{CELL}eval>", "eval"), names | BARE)


class TypeOfTypes(type):
    """Lets `Type` pass for `type`, in calls and isinstance(): it tells a type, and makes none."""

    __call__ = lambda cls, obj: Type if issubclass(type(obj), type) else type(obj)
    __instancecheck__ = lambda cls, obj: issubclass(type(obj), type)


Type = TypeOfTypes(
    "type", (), {"__module__": "builtins", "__class_getitem__": classmethod(types.GenericAlias)}
)


def safe_build_class(body, name, *bases, **options):
    """`class` for cells: it inherits from own classes and plain data alone."""
    for base in bases:
        alias = type(base).__module__ is not MAIN and hasattr(type(base), "__mro_entries__")
        for cls in types.resolve_bases([base]) if alias else [base]:
            plain = issubclass(type(cls), type) and inheritable(cls)
            if not plain and cls is not typing.NamedTuple:
                raise TypeError(f"inheriting from {cls!r} is refused: use a plain class")
    return builtins.__build_class__(body, name, *bases, **options)


def safe_slots(names) -> tuple[str, ...]:
    """Return what a cell may set `__slots__` to; one called `__getattribute__` would act as it."""
    names = tuple(str.__str__(name) for name in ([names] if isinstance(names, str) else names))
    if any(map(is_dunder, names)):
        raise TypeError("slots that are named like __this__ are refused")
    return names


def safe_import(name, globals=None, locals=None, fromlist=(), level=0):
    """`import` for cells, and for C code that works for them."""
    if name in LAZY:
        return None  # C code finds it in sys.modules, cells cannot
    if level or name not in VIEWS:
        known = f"import of {name!r} is refused; there are {', '.join(VIEWS)}"
        raise ModuleNotFoundError(known, name=name)
    return VIEWS[name if fromlist else name.partition(".")[0]]


SAFE_BUILTINS = {
    **{name: getattr(builtins, name) for name in BUILTINS.split()},
    **{k: v for k, v in vars(builtins).items() if isinstance(v, type) and issubclass(v, Exception)},
    "BaseException": Exception,  # or a cell could catch its time limit
    "__build_class__": safe_build_class,
    "__import__": safe_import,
    "type": Type,
    "eval": safe_eval,
    "globals": lambda: types.MappingProxyType(names_of("f_globals")),  # to read, not to write
    "locals": lambda: names_of("f_locals"),
    "vars": lambda *obj: safe_getattr(*obj, "__dict__") if obj else names_of("f_locals"),
    "getattr": safe_getattr,
    "setattr": lambda obj, name, value: safe_write(setattr, obj, name, value),
    "delattr": lambda obj, name: safe_write(delattr, obj, name),
    "@getattr": safe_getattr,
    "@own": own,
    "@slots": safe_slots,
    "@new": lambda new: lambda cls, *args, **how: own(new(cls, *args, **how), ""),
    "@show": lambda value: None if value is None else print(repr(value)),
}
BARE = {"__name__": MAIN, "__builtins__": SAFE_BUILTINS}
NAMESPACE = {**BARE}  # the variables of all cells

# --------------------------------------------- library: views of modules, stand-ins, patched makers

View = type("View", (types.ModuleType,), {"__setattr__": None})  # so that nothing is set in one
VIEWS = {}  # the modules as cells see them
STAND_INS = '''# run as a cell, so that they can do no more than cells can
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
    def __await__(self): return (yield from ()) or self.result()
    exception, done = lambda self, timeout=None: self.error, lambda self: True
class TypedDict(dict):
    def __init_subclass__(cls, total=True): pass
class Protocol: __class_getitem__ = classmethod(lambda cls, _: cls)
class Executor:
    __init__ = __exit__ = shutdown = lambda *_, **__: None
    __enter__, submit = lambda self: self, Future
    def map(self, work, *inputs, **_):
        works = [Future(work, *args) for args in zip(*inputs)]
        return (work.result() for work in works)
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
def update_wrapper(wrapper, wrapped, *_):
    for name in "__name__", "__qualname__", "__doc__", *(wrapped.__dict__ if hasattr(wrapped, "__dict__") else ()):
        if hasattr(wrapped, name): setattr(wrapper, name, getattr(wrapped, name))
    return wrapper
def hasattr(obj, name):
    try: getattr(obj, name)
    except AttributeError: return False
    return True
def exit(*code): raise SystemExit(*code)
def open(*_, **__): raise FileNotFoundError("open() is refused: no files, the data is in `context`")
def input(*_): raise EOFError("input() is refused: nobody is there to answer")
def sleep(*_): raise RuntimeError("time.sleep() is refused: there is nothing to wait for")
lock, listed, same = lambda *_, **__: nullcontext(), lambda works, **_: list(works), lambda it: it
loop = SimpleNamespace(run_until_complete=lambda work: run(work.__await__()), create_task=start,
    run_in_executor=lambda executor, work, *args: Future(work, *args), close=lambda: None)
get_loop = lambda: loop
stand_ins = {
    "asyncio": dict(run=run, gather=gather, create_task=start, ensure_future=start, Semaphore=lock,
        Lock=lock, to_thread=Future, sleep=lambda seconds=0, result=None: Future(lambda: result),
        wait_for=lambda work, timeout=None: work, as_completed=listed, timeout=lock,
        new_event_loop=get_loop, get_event_loop=get_loop, get_running_loop=get_loop),
    "concurrent.futures": dict(ThreadPoolExecutor=Executor, ProcessPoolExecutor=Executor,
        Executor=Executor, Future=Future, as_completed=listed,
        wait=lambda futures, **_: (set(futures), set())),
    "functools": dict(update_wrapper=update_wrapper,
        wraps=lambda wrapped, *_: lambda wrapper: update_wrapper(wrapper, wrapped)),
    "csv": dict(field_size_limit=lambda *_: 131072),
    "sys": dict(exit=exit), "time": dict(sleep=sleep),
    "threading": dict(Lock=lock, RLock=lock, Semaphore=lock),
    "operator": dict(attrgetter=attrgetter,
        methodcaller=lambda name, /, *args, **kw: lambda obj: getattr(obj, name)(*args, **kw)),
    "typing": dict(Protocol=Protocol, TypedDict=TypedDict, Type=type,
        runtime_checkable=same, final=same, override=same),
    "warnings": dict(warn=lock, filterwarnings=lock, simplefilter=lock, catch_warnings=lock),
    "builtins": dict(hasattr=hasattr, exit=exit, quit=exit, open=open, input=input),
}'''  # fmt: skip


def make_views() -> None:
    """Fill `VIEWS`: modules without what leads on, such as `json.codecs` or `re.enum`."""
    for name, *words in map(str.split, MODULES.split(";")):
        # not named as the module, or `from json import decoder` would look in sys.modules
        view, module = View(f"{name} (safe part)"), importlib.import_module(name)
        public = getattr(module, "__all__", [n for n in dir(module) if n[0] != "_"])
        for word in {*words, *(public if "*" in words else ())}:
            value = getattr(module, word, module)  # some names are newer than Python 3.11
            if not isinstance(value, types.ModuleType) and f"-{word}" not in words:
                vars(view)[word] = value
        VIEWS[name], (package, _, part) = view, name.partition(".")
        vars(VIEWS[package]).update({part: view} if part else {})


def freeze() -> None:
    """Make the classes of the library immutable, like those in C: none of their methods writes."""
    found, number = [object], ctypes.c_ulong.from_address
    flags = next(
        i for i in range(999) if all(number(id(c) + i).value == c.__flags__ for c in PLAIN)
    )
    for cls in found:
        found += type.__subclasses__(cls)
        number(id(cls) + flags).value |= 1 << 8  # Py_TPFLAGS_IMMUTABLETYPE
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(cls))


def patch_types() -> None:
    """Replace, in the types themselves, what works for cells unguarded: no alias is left of it."""
    vformat, creates = string.Formatter().vformat, enum.EnumType._create_.__code__
    class_of = lambda cls: type(cls) if sys._getframe(1).f_code is creates else Type
    tell = lambda e: f"{e.encoding!r} codec can't decode position {e.start}: {e.reason}"
    proxy, slot = types.MappingProxyType, lambda kind, i: ctypes.c_ulong.from_address(id(kind) + i)
    for name in dunders("eq ne lt le gt ge or ror ior"):  # they lend what is behind it
        del gc.get_referents(proxy.__dict__)[0][name]
    slot(proxy, 96).value, slot(proxy, 200).value = 0, slot(object, 200).value  # numbers, ==
    slot(UnicodeDecodeError, 136).value = slot(type("", (), {"__str__": tell}), 136).value
    for kind, name, value in (
        (str, "format", lambda text, /, *args, **kwargs: vformat(text, args, kwargs)),
        (str, "format_map", lambda text, values: vformat(text, (), values)),
        (UnicodeDecodeError, "__str__", tell),  # or it would read memory at e.start
        (AttributeError, "obj", property(lambda e: None, lambda e, obj: None)),  # what failed
        (type, "__class__", property(class_of)),  # or Counter.copy(int) would return `type`
        (proxy, "__hash__", None),  # no hash goes without an ==
    ):
        gc.get_referents(kind.__dict__)[0][name] = value
        ctypes.pythonapi.PyType_Modified(ctypes.py_object(kind))


def patch_makers() -> None:
    """Guard what makes classes and copies in the library, from whatever a cell hands to it."""
    process_class, create_enum = dataclasses._process_class, enum.EnumType._create_
    reconstruct = copy._reconstruct

    def safe_process_class(cls, *how):
        names = vars(own(cls, "")).get("__annotations__", ())
        names = [type(n) is str and n.isidentifier() and not is_dunder(n) for n in names]
        if not issubclass(type(cls), type) or not all(names):
            raise TypeError("a dataclass is made of a class, whose fields have plain names")
        return process_class(cls, *how)

    def safe_exec(source, *scopes):  # it is made of the names of fields
        compile_cell(re.sub("__(?=dataclass_|create_fn)", "", source), CELL)
        exec(source, *scopes)  # noqa: S102

    def safe_reconstruct(x, memo, func, args, *rest, **kwargs):  # writes state into what is made
        def make(*args):
            if type(made := func(*args)) is not type(x) or not inheritable(type(x)):
                raise TypeError(f"copying a {type(x).__name__!r} is refused")
            return made

        return reconstruct(x, memo, make, args, *rest, **kwargs)

    def safe_create(cls, class_name, names, start=1, **_):  # defines whatever it is given
        items = names.replace(",", " ").split() if type(names) is str else names
        if type(items) is not list or any(type(n) is not str or is_dunder(n) for n in items):
            raise TypeError("Enum(name, names) takes a list of names; for values, write a class")
        return create_enum(cls, class_name, items, module=MAIN, start=start)

    signature = {"signature": lambda cls: "(...)"}  # the real one evaluates what cells call so
    dataclasses.inspect = types.SimpleNamespace(**vars(dataclasses.inspect) | signature)
    dataclasses._process_class, copy._reconstruct = safe_process_class, safe_reconstruct
    enum.EnumType._create_, dataclasses.exec = safe_create, safe_exec
    copy._deepcopy_dispatch[types.MethodType] = copy._deepcopy_atomic  # a memo lends any self
    copy.setattr = SAFE_BUILTINS["setattr"]  # copy looks here first


def harden() -> None:
    """Patch, in this process, what the library would do unguarded on behalf of a cell."""
    make_views()
    patch_types()
    patch_makers()
    del enum.EnumType._convert_, abc.ABCMeta.register  # reads any module, fools isinstance()
    string.getattr = safe_getattr  # string.Formatter looks here first
    traceback._compute_suggestion_error = lambda *_: None  # imports what an error names
    traceback.BaseExceptionGroup = ()  # of which a heir can name any file to read lines from
    wrapper = importlib.import_module("textwrap").TextWrapper
    wrapper.unicode_whitespace_trans = types.MappingProxyType(wrapper.unicode_whitespace_trans)
    sys.modules[MAIN] = types.ModuleType(MAIN)  # where the library looks for classes
    vars(sys.modules[MAIN]).update(BARE)
    exec(compile_cell(STAND_INS, "<stand-ins>"), made := {**BARE})  # noqa: S102
    freeze()
    VIEWS["csv"].field_size_limit(sys.maxsize)  # for all, as they would share what one sets
    for name, names in made["stand_ins"].items():
        (SAFE_BUILTINS if name == "builtins" else vars(VIEWS[name])).update(names)
    limit = lambda number: sys.setrecursionlimit(min(int(number), 3000))
    vars(VIEWS["sys"])["setrecursionlimit"] = limit
    vars(VIEWS["abc"])["abstractmethod"] = lambda method: abc.abstractmethod(own(method, ""))
    vars(VIEWS["traceback"])["format_exc"] = lambda: describe(sys.exception())
    vars(VIEWS["traceback"])["print_exc"] = lambda **how: print(describe(sys.exception()), **how)


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

    def __init__(self, limit: int):
        self.half, self.head, self.tail, self.count = max(limit // 2, 1), "", "", 0

    def write(self, text):
        text, room = str.__str__(text), self.half - len(self.head)
        self.head, self.tail = self.head + text[:room], (self.tail + text[room:])[-self.half :]
        self.count += len(text)
        return len(text)

    def text(self) -> str:
        left_out = self.count - len(self.head) - len(self.tail)
        middle = f"\n... [{left_out:,} characters left out] ...\n" if left_out else ""
        return self.head + middle + self.tail


def describe(error: BaseException) -> str:
    """Return a traceback of the cells' own frames, ending in `KeyError: 'x'`."""
    told = traceback.TracebackException.from_exception(error, compact=True)
    frames = [f for f in told.stack if f.filename.startswith(CELL)]
    told.stack = traceback.StackSummary.from_list(frames)
    text = "".join(told.format(chain=False)).strip()
    return text if len(text) < 4000 else f"{text[:2000]}\n...\n{text[-1900:]}"


def to_json(value) -> bytes:
    """Return `value` as JSON; what is not JSON but can be iterated becomes a list."""
    try:
        return json.dumps(value, default=list).encode()
    except TypeError as error:
        raise TypeError(f"this is not JSON: pass str(x), a dict or a list ({error})") from None


# what a cell over its time is told: it has no name for this, and what swallows it meets it again
TimeIsUp = type("TimeoutError", (BaseException,), {"__module__": "builtins"})


class Interpreter:
    """Runs cells that share their variables, in this very process: the first wall alone."""

    def __init__(self, variables: dict, tools: dict, output_chars: int = 10_000):
        self.output_chars, self.cells, self.interruptible = output_chars, 0, False
        self.fixed = BARE | variables | tools | {"FINAL": self.FINAL, "SHOW_VARS": self.SHOW_VARS}
        self.fixed["FINAL_VAR"] = lambda name: self.FINAL(NAMESPACE.get(str(name), name))

    def FINAL(self, value=None):
        """End the run with `value`, any JSON value."""
        self.final = self.final or Final(json.loads(to_json(value)))
        raise SystemExit

    def SHOW_VARS(self):
        """Return the names and types of the variables so far."""
        made = {k: v for k, v in NAMESPACE.items() if k[0] != "_" and k not in self.fixed}
        return {name: type(value).__name__ for name, value in made.items()}

    def check_time(self, *_):
        """Raise in a cell that is over its time: again and again, as it could be swallowed."""
        if self.interruptible and time.process_time() > self.end:
            self.end += 0.2
            raise TimeIsUp(f"the cell computed for over {self.seconds:g} s; variables are kept")

    def run(self, source: str, seconds: float = float("inf")) -> Result:
        """Run one cell, for at most `seconds` of CPU time."""
        self.cells, self.final, error = self.cells + 1, None, None
        name, output = f"{CELL}{self.cells}>", Output(self.output_chars)
        linecache.cache[name] = (len(source), None, source.splitlines(True), name)
        sys.stdout = sys.stderr = output
        vars(VIEWS["sys"]).update(stdout=output, stderr=output)
        with contextlib.suppress(OSError):
            self.reserve = mmap.mmap(-1, 24 << 20)  # telling of a MemoryError takes memory
        self.seconds, self.end = seconds, time.process_time() + seconds
        try:
            try:
                self.interruptible = True
                while any(NAMESPACE.get(k) is not v for k, v in self.fixed.items()):
                    ends = NAMESPACE.copy()  # what has finalizers, and they may bind names
                    NAMESPACE.update(self.fixed)
                    del ends
                value = eval(compile_cell(source, name), NAMESPACE)
                if isinstance(value, types.CoroutineType):  # the cell used `await`
                    VIEWS["asyncio"].run(value)
            except SystemExit:
                pass
            except BaseException as problem:  # noqa: BLE001 - all of it is told
                self.reserve.close()
                error = describe(problem)
            finally:
                value = None  # a coroutine may have a finalizer, too
                for clear in (struct._clearcache, re.purge, *typing._cleanups):
                    clear()  # or keys that lie would answer for others
                self.interruptible = False
        except BaseException:  # noqa: BLE001 - over time while telling, or worse
            error = "Exception: an error that cannot be told"
        sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__
        return Result(output.text(), error, self.final)


# ----------------------------------------------------- worker: the second wall, and one REPL in it


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
    machine, *calls = SECCOMP[os.uname().machine].split()
    load, equal, end = 0x20, 0x15, 0x06  # BPF: load a word, skip steps if equal or not, return
    refuse, allow = (end, 0, 0, 0x50001), (end, 0, 0, 0x7FFF0000)  # EPERM, or let it through
    known = [(equal, len(calls) - i, 0, int(number)) for i, number in enumerate(calls)]
    steps = [(load, 0, 0, 4), (equal, 1, 0, int(machine, 16)), refuse, (load, 0, 0, 0)]
    steps += [*known, refuse, allow]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    header = ctypes.create_string_buffer(struct.pack("HP", len(steps), ctypes.addressof(code)))
    # no_new_privs, without which it may not be set, then the filter
    failed = LIBC.prctl(38, 1, 0, 0, 0) or LIBC.prctl(22, 2, header, 0, 0)
    return ("language", "rlimits") if failed else ("language", "rlimits", "seccomp")


def work(pipe: Connection) -> None:
    """Be a worker: load the variables, lock the doors, run cells until the host hangs up."""
    setup, variables = json.loads(pipe.recv_bytes()), {}
    for name, is_text in setup["variables"]:
        text = ""
        for frame in iter(pipe.recv_bytes, b""):  # text grows in place, so that it is there once
            text += frame.decode("utf-8", "surrogatepass")
        variables[name] = text if is_text else json.loads(text)
    walls = lock_down(setup["memory_mb"])

    def call(name, *args, **kwargs):
        message = to_json({"call": name, "args": args, "kwargs": kwargs})
        if len(message) > FRAME_BYTES:
            raise ValueError(f"{name}: {len(message):,} bytes; a call takes {FRAME_BYTES:,}")
        limit, interpreter.interruptible = sys.getrecursionlimit(), False
        try:
            sys.setrecursionlimit(limit + 100)  # half a frame would be the end of this worker
            struct._clearcache()  # whose keys, a cell's objects, may lie
            pipe.send_bytes(message)
            reply = json.loads(pipe.recv_bytes())
        finally:
            sys.setrecursionlimit(limit)
            interpreter.interruptible = True
        if "error" in reply:
            raise SAFE_BUILTINS.get(reply["kind"], RuntimeError)(reply["error"])
        return reply["value"]

    tools = {name: types.MethodType(call, name) for name in setup["tools"]}  # no attributes to set
    interpreter = Interpreter(variables, tools, setup["output_chars"])
    signal.signal(signal.SIGPROF, interpreter.check_time)
    signal.setitimer(signal.ITIMER_PROF, 0.05, 0.05)
    VIEWS["random"].seed()  # or all forked workers would draw the same numbers
    pipe.send_bytes(to_json({"pid": os.getpid(), "walls": walls}))
    while True:
        source = json.loads(pipe.recv_bytes())
        pipe.send_bytes(to_json(interpreter.run(source, setup["cell_seconds"])))


def serve(fd: int) -> None:
    """Be the fork server: fork a worker for each socket that comes."""
    control = socket.socket(fileno=fd)
    os.environ.clear()
    harden()
    for name in LAZY:
        with contextlib.suppress(ImportError):  # 3.11 has no _pylong
            importlib.import_module(name)
    os.chdir(empty := tempfile.mkdtemp())
    os.rmdir(empty)  # a folder that is gone stays empty
    gc.collect()
    gc.freeze()  # a worker's collector leaves alone what it shares with this process
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies
    while True:
        order, fds, *_ = socket.recv_fds(control, 1, 1)
        if not order:  # the host is gone; so is this process group, which is all workers
            os.killpg(0, signal.SIGKILL)
        pid = -1
        with contextlib.suppress(OSError):  # no room: the host will find the worker lost
            pid = os.fork()
        if pid == 0:
            control.close()
            if sys.platform == "linux":
                LIBC.prctl(1, signal.SIGKILL)  # die with this server
            with contextlib.suppress(EOFError, OSError):
                work(Connection(fds[0]))
            os._exit(0)
        os.close(fds[0])


# ---------------------------------------------------------------------------- host: what others use

STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)  # of JSON
LOCK = threading.Lock()
os.register_at_fork(after_in_child=LOCK._at_fork_reinit)


class SandboxError(Exception):
    """The worker is not to be trusted any more, or the sandbox is closed or busy."""


class Pipe(Connection):
    """The host's end of a socket: a worker that sends or takes byte by byte must not hold it."""

    def _recv(self, size, read=os.read):
        return super()._recv(size, self._until(time.monotonic() + FRAME_SECONDS, read))

    def _send(self, data, write=os.write):
        bite = lambda fd, data: write(fd, data[:CHUNK])
        return super()._send(data, self._until(time.monotonic() + FRAME_SECONDS, bite))

    def _bad_message_length(self):
        raise SandboxError("the worker sent too long a message")

    def _until(self, end, use):
        def timed(*args):
            if time.monotonic() > end:
                raise TimeoutError("it was too slow in the middle of a message")
            return use(*args)

        return timed


@functools.cache
def fork_server() -> tuple[socket.socket, subprocess.Popen]:
    """Start this process's fork server: to start Python for each worker would take 60 ms."""
    control, theirs = socket.socketpair()
    env = {k: v for k, v in os.environ.items() if k.endswith("LD_LIBRARY_PATH")}
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    with theirs:
        code = f"""  # by its path, as other modules may be called `sandbox`, here or there
import importlib.util as util, sys
sys.path[:] = {[*map(str, sys.path)]}
spec = util.spec_from_file_location("sandbox", {__file__!r})
sys.modules["sandbox"] = module = util.module_from_spec(spec)
spec.loader.exec_module(module)
module.serve({theirs.fileno()})"""
        command = [sys.executable, "-I", "-c", code]
        keep = {"pass_fds": [theirs.fileno()], "start_new_session": True}  # Ctrl-C is for the host
        return control, subprocess.Popen(command, env=env, **keep, **streams)


@dataclasses.dataclass(eq=False, repr=False)
class Sandbox(contextlib.AbstractContextManager):
    """A REPL in a worker process, which starts at once, and anew after it was lost."""

    variables: dict = dataclasses.field(default_factory=dict)  # {name: JSON value}, in every cell
    tools: dict = dataclasses.field(default_factory=dict)  # {name: function of JSON values}
    cell_seconds: float = 60  # CPU seconds of one cell; to wait for a tool does not count
    memory_mb: int = 2048  # MiB of the worker beyond the variables
    output_chars: int = 10_000  # how much of a cell's output is kept

    def __post_init__(self):
        self._closed, self._hello, self._deadline = False, None, float("inf")
        self._pipe, self._running = self._start(), threading.Lock()

    def __exit__(self, *error):
        self.close()

    walls = property(lambda self: self._connect() and tuple(self._hello["walls"]))  # what holds
    pid = property(lambda self: self._connect() and self._hello["pid"])  # of the worker

    def run(self, code: str, seconds: float = float("inf")) -> Result:
        """Run one cell, for at most `seconds` of wall-clock time; its tools run in this thread.

        A worker that dies or must be killed is a `Result` with an error that says so. Raises
        SandboxError when the worker says what workers do not say, and when the sandbox is closed or
        is running a cell.
        """
        if not self._running.acquire(blocking=False):
            raise SandboxError("this sandbox is running a cell: one after another, please")
        try:
            self._deadline = time.monotonic() + seconds
            pipe, self._cpu_start = self._connect(), self._cpu()
            pipe.send_bytes(json.dumps(code).encode())
            while True:
                match self._receive(pipe):
                    case {"call": str(name), "args": list(args), "kwargs": dict(kwargs)}:
                        pipe.send_bytes(self._call(name, args, kwargs))
                    case [str(output), None | str() as error, None | [_] as final] if (
                        len(output) < self.output_chars + 100 and len(error or "") < 10_000
                    ):
                        return Result(output, error, final and Final(*final))
                    case _:
                        raise SandboxError("the worker said what workers do not say")
        except (EOFError, OSError) as lost:
            self._kill()
            if self._closed:
                raise SandboxError("the sandbox is closed") from None
            crash = "killed, out of memory, or recursed too deeply"
            why = lost if isinstance(lost, TimeoutError) else crash
            gone = f"your variables are gone; loaded again: {', '.join(self.variables)}"
            return Result("", f"SandboxError: the worker was lost: {why}; {gone}", None)
        except BaseException:
            self._kill()
            raise
        finally:
            self._running.release()

    def close(self) -> None:
        """Kill the worker; may be called twice, and from another thread while a cell runs."""
        self._closed = True
        self._kill(hang_up=False)  # run() may be using the pipe; nobody holds it after that

    def _start(self) -> Pipe:
        """Order a worker and hand it the variables; return the socket to it."""
        ours, theirs = socket.socketpair()
        for option, seconds in ((socket.SO_SNDTIMEO, FRAME_SECONDS), (socket.SO_RCVTIMEO, 2)):
            # a worker that stops in the middle of a frame must not stop the host
            ours.setsockopt(socket.SOL_SOCKET, option, struct.pack("ll", seconds, 0))
        with LOCK, theirs:
            try:
                socket.send_fds(fork_server()[0], [b"1"], [theirs.fileno()])
            except OSError:  # the server died
                fork_server.cache_clear()
                socket.send_fds(fork_server()[0], [b"1"], [theirs.fileno()])
        pipe = Pipe(ours.detach())
        texts = [(name, type(value) is str) for name, value in self.variables.items()]
        setup = {k: v for k, v in vars(self).items() if k[0] != "_"}
        setup |= {"variables": texts, "tools": list(self.tools)}
        with contextlib.suppress(OSError):  # run() will tell
            pipe.send_bytes(json.dumps(setup).encode())
            for value in self.variables.values():
                text = value if type(value) is str else json.dumps(value)
                for start in range(0, len(text), CHUNK):
                    pipe.send_bytes(text[start : start + CHUNK].encode("utf-8", "surrogatepass"))
                pipe.send_bytes(b"")
        return pipe

    def _connect(self) -> Pipe:
        """Return the socket to a worker that is ready."""
        if self._closed:
            raise SandboxError("the sandbox is closed")
        self._pipe = pipe = self._pipe or self._start()
        self._hello = self._hello or self._receive(pipe)  # sent before any cell, so it is true
        return pipe

    def _kill(self, hang_up: bool = True) -> None:
        """Kill the worker; one that did not say hello yet ends by itself when it finds us gone."""
        pipe, hello, self._pipe, self._hello = self._pipe, self._hello, None, None
        with contextlib.suppress(ProcessLookupError):
            hello and os.kill(hello["pid"], signal.SIGKILL)
        if pipe and hang_up:
            pipe.close()

    def _call(self, name, args, kwargs) -> bytes:
        if name not in self.tools:
            raise SandboxError("the worker called what is no tool")
        try:
            return json.dumps({"value": self.tools[name](*args, **kwargs)}).encode()
        except Exception as error:  # noqa: BLE001 - it is the cell's to handle
            kind = type(error).__name__ if len(error.args) < 2 else None  # UnicodeError takes five
            return json.dumps({"error": str(error), "kind": kind}).encode()

    def _receive(self, pipe: Pipe):
        """Return the worker's next message; raise TimeoutError when there will be none."""
        used, since, limit, ready = self._cpu(), time.monotonic(), self.cell_seconds, False
        while not ready:
            ready = pipe.poll(min(0.25, max(self._deadline - time.monotonic(), 0)))
            now, before, used = time.monotonic(), used, self._cpu()
            since = now if used > before + 0.01 else since
            if self._closed:
                raise EOFError
            if now > self._deadline:
                raise TimeoutError("the time of the run is over")
            if self._hello and used - self._cpu_start > limit + 1:
                raise TimeoutError(f"it computed for {limit:g} s, and could not be interrupted")
            if now - since > (limit + 2 if self._hello else 120):
                raise TimeoutError("it stopped answering")
        try:
            frame = pipe.recv_bytes(FRAME_BYTES)
            nodes = lambda data: sum(map(data.count, (b"[", b"{", b",")))
            if nodes(frame) > FRAME_NODES and nodes(STRINGS.sub(b"", frame)) > FRAME_NODES:
                raise ValueError(f"over {FRAME_NODES:,} values")
            return json.loads(frame)
        except (ValueError, RecursionError) as error:
            raise SandboxError(f"the worker sent what is not JSON: {error}") from None

    def _cpu(self) -> float:
        """Return the CPU seconds of the worker so far; 0 where the platform does not tell."""
        try:  # Linux: the clock that clock_getcpuclockid(3) makes of a pid
            return time.clock_gettime(~self._hello["pid"] << 3 | 2)
        except (TypeError, OSError):
            return 0.0
