"""Attacks on the sandbox, in a table, each judged by what it does and never by what it says.

Every attack is ordinary Python that has an effect when `exec` runs it: a marker file appears, a secret that the cell was not
given (a variable of the host, its environment, a file) stands in the output, a connection reaches a listener, bytes reach a
pipe, an object that the cell did not make is changed, the next cell finds other tools, the process ends. That is the control:
an attack without an effect under plain `exec` fails the test. Then none may have any effect (1) against both walls together
and (2) against the language wall alone, in a process that may still do everything. (3) The other way round: native code behind
`lock_down` alone.

Not here: what code may do (test_cells.py), and limits and hostile frames (test_sandbox.py).
"""

import abc
import contextlib
import copyreg
import csv
import ctypes
import decimal
import faulthandler
import fcntl
import importlib
import io
import json
import marshal
import multiprocessing
import os
import platform
import resource
import secrets
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
import traceback
import types
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
linux_only = pytest.mark.skipif(sys.platform != "linux", reason="about Linux's system calls")

# ------------------------------------------------------------------------------------------------ the table
# === technique, --- between its attacks (--- 3.12: not on an older Python), %% between the cells of one attack. A cell knows
# `ask` and `client_ask` (functions of the host), `context` (a list of str), `FINAL`, and `loot(x)`, which tries to get
# something out of whatever x is: a frame, a traceback, a namespace, a module, os.system.

PRELUDE = """
def loot(x, deep=3):
    for use in (
        lambda: print(x["SECRET"]),
        lambda: x["open"]("$MARKER", "w"),
        lambda: getattr(x, "open")("$MARKER", "w"),
        lambda: x("touch $MARKER"),
        lambda: x["system"]("touch $MARKER"),
        lambda: getattr(x, "system")("touch $MARKER"),
    ):
        try:
            use()
        except Exception:
            pass
    for step in (
        lambda: x["__builtins__"],
        lambda: x["sys"],
        lambda: x["os"],
        lambda: getattr(x, "modules")["os"],
        *(lambda name=name: getattr(x, name) for name in (
            "__globals__", "__builtins__", "__init__", "__func__", "f_globals", "f_back", "tb_frame", "tb_next",
            "gi_frame", "sys")),
    ):
        try:
            found = step()
        except Exception:
            continue
        if deep:
            loot(found, deep - 1)
"""

TABLE = r"""
=== attribute
print(ask.__globals__["SECRET"])
---
print(ask.__defaults__)
---
print(ask.__closure__[0].cell_contents)
---
print(client_ask.__self__.key)
---
print(client_ask.__func__.__globals__["SECRET"])
---
ask.__builtins__["open"]("$MARKER", "w")
---
print.__self__.open("$MARKER", "w")
---
loot((lambda: 0).__globals__)
---
class A:
    def method(self):
        return 1
loot(A().method.__func__.__globals__)
---
for c in ().__class__.__base__.__subclasses__():
    if c.__name__ == "_wrap_close":
        c.__init__.__globals__["system"]("touch $MARKER")
---
for c in "".__class__.__mro__[-1].__subclasses__():
    if c.__name__ == "catch_warnings":
        c()._module.__builtins__["__import__"]("os").system("touch $MARKER")
---
for c in (0).__class__.mro()[-1].__subclasses__():
    if c.__name__ == "_wrap_close":
        c.close.__globals__["system"]("touch $MARKER")
---
print(ask.__get__(0).__func__.__globals__["SECRET"])
---
print(ask.__getattribute__("__globals__")["SECRET"])
---
print(ask.__call__.__self__.__globals__["SECRET"])
---
f = lambda *args: args[0]
f.__code__ = ask.__code__.replace(co_freevars=(), co_code=f.__code__.co_code)
print(ask.__code__, ask.__kwdefaults__, ask.__closure__[0].cell_contents)
---
import json
loot(json.dumps.__globals__)
---
loot(__builtins__)

=== getattr
print(getattr(ask, "__globals__")["SECRET"])
---
print(getattr(ask, "__glo" + "bals__", None)["SECRET"])
---
print(list(map(getattr, [ask], ["__globals__"]))[0]["SECRET"])
---
import functools
print(functools.partial(getattr, ask)("__globals__")["SECRET"])
---
import functools
print(functools.reduce(getattr, ["__globals__"], ask)["SECRET"])
---
class S(str):
    def startswith(self, *args):
        return False
    endswith = __contains__ = startswith
    def __getitem__(self, index):
        return "x"
print(getattr(ask, S("__globals__"))["SECRET"])
---
class S(str):
    looks = 0
    def __str__(self):
        return "name"
    lower = casefold = strip = encode = __repr__ = __str__
print(getattr(ask, S("__globals__"))["SECRET"])
---
print(object.__getattribute__(ask, "__globals__")["SECRET"])
---
print(type(ask).__getattribute__(ask, "__defaults__"))
---
class A:
    def go(self):
        return super().__getattribute__("go").__func__.__globals__
loot(A().go())
---
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    print(pool.submit(getattr, ask, "__globals__").result()["SECRET"])
---
import operator
print(operator.call(getattr, ask, "__defaults__"))
---
import types
print(types.MethodType(getattr, ask)("__globals__")["SECRET"])
---
class A:
    __getattr__ = lambda self, name: getattr(ask, name)
print(A().__globals__["SECRET"])
---
class A:
    read = getattr
print(A.read(ask, "__closure__")[0].cell_contents)
---
print(next(filter(None, (getattr(ask, name, 0) for name in dir(ask) if name == "__defaults__"))))
---
print(getattr(client_ask, "__self__").key)
---
print(getattr(getattr("{0.__globals__[SECRET]}", "for" + "mat"), "__call__")(ask))
---
write = setattr.args[0] if hasattr(setattr, "args") else setattr
class S(str):
    pass
write(S, "__match_args__", ("format",))
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
for function in (setattr, delattr, getattr, vars, eval, type, hasattr):
    for name in ("args", "func", "keywords"):
        for value in [getattr(function, name, ())]:
            loot(value)
setattr(*(() or (ask, "owned", 1)))

=== str.format fields
print("{0.__globals__[SECRET]}".format(ask))
---
print("{f.__globals__[SECRET]}".format(f=ask))
---
print("{.__globals__[SECRET]}".format(ask))
---
print("{f.__globals__[SECRET]}".format_map({"f": ask}))
---
print(str.format("{0.__globals__[SECRET]}", ask))
---
print(getattr("{0.__globals__[SECRET]}", "format")(ask))
---
read = "{0.__globals__[SECRET]}".format
print(read(ask))
---
print(*map(str.format, ["{0.__globals__[SECRET]}"], [ask]))
---
print(*map(str.format_map, ["{f.__globals__[SECRET]}"], [{"f": ask}]))
---
class S(str):
    pass
print(S("{0.__globals__[SECRET]}").format(ask))
---
class S(str):
    def go(self, x):
        return super().format(x)
print(S("{0.__globals__[SECRET]}").go(ask))
---
class S(str):
    go = str.format
print(S("{0.__globals__[SECRET]}").go(ask))
---
class S(str):
    __mod__ = str.format
print(S("{0.__globals__[SECRET]}") % ask)
---
class S(str):
    __call__ = __getitem__ = __matmul__ = str.format
print(S("{0.__globals__[SECRET]}")(ask), S("{0.__globals__[SECRET]}") @ ask)
---
class P:
    def __format__(self, spec):
        return spec
print("{0:{1.__globals__[SECRET]}}".format(P(), ask))
---
class P:
    def __format__(self, spec):
        return spec
print("{0:>{1}{2.__globals__[SECRET]}}".format(P(), 1, ask))
---
class M(dict):
    def __missing__(self, key):
        return ask
print("{x.__globals__[SECRET]}".format_map(M()))
---
print("{0[f].__globals__[SECRET]} {1}".format({"f": ask}, 1))
---
print("{0[{].__globals__[SECRET]}".format({"{": ask}))
---
print("{0.f.__globals__[SECRET]}".format(type("A", (), {"f": staticmethod(ask)})))
---
import functools
print(functools.reduce(str.format, ["{0.__globals__[SECRET]}", ask]))
---
import functools
print(functools.partial(str.format, "{0.__globals__[SECRET]}")(ask))
---
import functools
class S(str):
    go = functools.partialmethod(str.format, ask)
print(S("{0.__globals__[SECRET]}").go())
---
print(vars(str)["format"]("{0.__globals__[SECRET]}", ask))
---
print(str.format.__get__("{0.__globals__[SECRET]}")(ask))
---
print("{0.__self__.key}".format(client_ask))
---
class S(str):
    def format(self, *args):
        return super(S, self).format(*args)
print(*[S("{0.__globals__[SECRET]}").format(ask)])
---
import enum
class E(str, enum.Enum):
    A = "{0.__globals__[SECRET]}"
print(E.A.format(ask), E.A.value.format(ask))
---
import copy
print(copy.copy("{0.__globals__[SECRET]}".format)(ask))
---
print(sorted(["{0.__globals__[SECRET]}"], key=lambda s: print(s.format(ask)))[:0])

=== f-string
print(f"{ask.__globals__['SECRET']}")
---
print(f"{ask.__globals__['SECRET']!r:>60}")
---
print(f"{'{0.__globals__[SECRET]}'.format(ask)}")
---
class P:
    def __format__(self, spec):
        return spec
print(f"{P():{ask.__globals__['SECRET']}}")
---
print(f"{(lambda f: f.__globals__)(ask)['SECRET']}")
---
print(f"{ask.__defaults__=}")
---
print(f"{getattr(ask, '__globals__')['SECRET']}")
---
print(f"{[x.__closure__[0].cell_contents for x in [ask]]}")
---
print(f"{(d := ask.__defaults__)} {d}")
---
class P:
    def __format__(self, spec):
        return spec.format(ask)
print(f"{P():{'{0.__globals__[SECRET]}'}}")

=== operator.attrgetter and methodcaller
import operator
print(operator.attrgetter("__globals__")(ask)["SECRET"])
---
from operator import attrgetter as get
print(get("__name__", "__globals__")(ask)[1]["SECRET"])
---
import operator
print(operator.methodcaller("__getattribute__", "__globals__")(ask)["SECRET"])
---
import operator
print(operator.methodcaller("format", ask)("{0.__globals__[SECRET]}"))
---
import operator
print(operator.methodcaller("format_map", {"f": ask})("{f.__globals__[SECRET]}"))
---
import operator
print(list(map(operator.attrgetter("__defaults__"), [ask])))
---
import operator
print(type(operator.attrgetter("x"))("__globals__")(ask)["SECRET"])
---
import itertools, operator
print(list(itertools.starmap(operator.attrgetter("__defaults__"), [(ask,)])))
---
import operator
class S(str):
    def split(self, *args):
        return ["x"]
    def startswith(self, *args):
        return False
    __contains__ = endswith = startswith
print(operator.attrgetter(S("__globals__"))(ask)["SECRET"])
---
import operator
loot(operator.methodcaller("__reduce_ex__", 4)(object())[0])
---
import operator
class A:
    f = staticmethod(ask)
    g = property(operator.attrgetter("f.__globals__"))
print(A().g["SECRET"])
---
import operator
print(operator.methodcaller("__getattribute__", "key")(operator.attrgetter("__self__")(client_ask)))
---
import operator
print(max([ask], key=lambda f: print(operator.attrgetter("__globals__")(f)["SECRET"]) or 0) and "")

=== match class patterns
match ask:
    case object(__globals__=g):
        print(g["SECRET"])
---
match ask:
    case object(__defaults__=(s,)):
        print(s)
---
match ask:
    case object(__globals__={"SECRET": s}):
        print(s)
---
match {"f": [ask]}:
    case {"f": [object(__globals__={"SECRET": s})]}:
        print(s)
---
match print:
    case object(__self__=object(open=o)):
        o("$MARKER", "w")
---
match "{0.__globals__[SECRET]}":
    case str(format=f):
        print(f(ask))
---
match "{f.__globals__[SECRET]}":
    case str(format_map=f) | object(format_map=f):
        print(f({"f": ask}))
---
try:
    1 / 0
except Exception as e:
    match e:
        case Exception(__traceback__=object(tb_frame=object(f_globals=g))):
            loot(g)
---
match (i for i in ()):
    case object(gi_frame=object(f_globals=g)):
        loot(g)
---
class Spy:
    def __eq__(self, other):
        loot(other)
g = (i for i in ())
match Spy():
    case g.gi_frame.f_globals:
        pass
---
class Spy:
    def __eq__(self, other):
        loot(other)
def generate():
    match Spy():
        case g.gi_frame.f_back.f_back.f_globals:
            pass
    yield
g = generate()
next(g)
---
class Spy:
    def __eq__(self, other):
        loot(other)
class With:
    def __enter__(self):
        pass
    def __exit__(self, kind, error, tb):
        match Spy():
            case tb.tb_frame.f_globals:
                pass
        return True
with With():
    1 / 0
---
class Spy:
    def __eq__(self, other):
        print(other("{0.__globals__[SECRET]}", ask))
match Spy():
    case str.format:
        pass
---
import json
class Spy:
    def __eq__(self, other):
        other.open("$MARKER", "w")
match Spy():
    case json.codecs:
        pass
---
class Spy:
    def __eq__(self, other):
        loot(other)
match {"k": Spy()}:
    case {"k": ask.__globals__}:
        pass
---
import collections.abc
match collections.abc.Sized:
    case object(register=r):
        r(int)

=== __match_args__
class E(Exception):
    __match_args__ = ("__traceback__",)
try:
    raise E
except E as e:
    match e:
        case E(tb):
            loot(tb)
---
class S(str):
    __match_args__ = ("format",)
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
class S(str):
    pass
S.__match_args__ = ("format",)
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
class S(str):
    pass
setattr(S, "__match_args__", ("format",))
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
S = type("S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import abc
class F(abc.ABC):
    __match_args__ = ("__globals__",)
F.register(type(ask))
match ask:
    case F(g):
        print(g["SECRET"])
---
import abc
class F(abc.ABC):
    __match_args__ = ("__globals__",)
    @classmethod
    def __subclasshook__(cls, other):
        return True
match ask:
    case F(g):
        print(g["SECRET"])
--- 3.13
from typing import Protocol, runtime_checkable
@runtime_checkable
class F(Protocol):
    __match_args__ = ("__globals__",)
    def __call__(self):
        pass
match ask:
    case F(g):
        print(g["SECRET"])
---
from dataclasses import dataclass
@dataclass(init=False, repr=False, eq=False)
class S(str):
    format: object
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
from dataclasses import dataclass
@dataclass(init=False, repr=False, eq=False)
class E(Exception):
    __traceback__: object
try:
    raise E
except E as e:
    match e:
        case E(tb):
            loot(tb)
---
from dataclasses import make_dataclass
S = make_dataclass("S", ["format_map"], bases=(str,), init=False, repr=False, eq=False)
match S("{f.__globals__[SECRET]}"):
    case S(f):
        print(f({"f": ask}))
---
from dataclasses import dataclass
class A:
    __annotations__ = {"format": object}
    __slots__ = ()
@dataclass(init=False, repr=False, eq=False)
class S(str):
    __annotations__ = {"format": object}
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import typing
class C(typing.Generic[typing.TypeVar("T")]):
    @classmethod
    def __init_subclass__(cls):
        cls.__match_args__ = ("format",)
class S(C, str):
    pass
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import abc, typing
T = typing.TypeVar("T")
N = typing.NamedTuple("N", [("format", object)])
class C(N, typing.Generic[T], metaclass=abc.ABCMeta):
    pass
C[int].register(str)
match "{0.__globals__[SECRET]}":
    case C(f):
        print(f(ask))
---
import abc, collections
class C(collections.namedtuple("N", "format"), abc.ABC):
    pass
C.register(str)
match "{0.__globals__[SECRET]}":
    case C(f):
        print(f(ask))
---
import abc, dataclasses, typing
T = typing.TypeVar("T")
@dataclasses.dataclass
class C(abc.ABC, typing.Generic[T]):
    format: object
C[int].register(str)
match "{0.__globals__[SECRET]}":
    case C(f):
        print(f(ask))
---
class S(str):
    pass
class Spy:
    def __eq__(self, other):
        other["__match_args__"] = ("format",)
S.__dict__ == Spy()
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
class S(str):
    pass
class Spy:
    def __ror__(self, other):
        other["__match_args__"] = ("format",)
vars(S) | Spy()
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))

=== NFKC look-alikes
print(ask.__ｇlobals__["SECRET"])
---
print(ask.__𝓭efaults__)
---
print(ask._＿globals＿＿["SECRET"])
---
ｏｐｅｎ("$MARKER", "w")
---
import ｏｓ
ｏｓ.ｓystem("touch $MARKER")
---
_＿import＿＿("os").system("touch $MARKER")
---
match ask:
    case object(__ｇlobals__={"SECRET": s}):
        print(s)
---
ｅxec("open('$MARKER', 'w')")
---
try:
    1 / 0
except Exception as e:
    loot(e.__ｔraceback__.ｔb_frame)
---
print("{0.__globals__[SECRET]}".ｆormat(ask))
---
print(ｇetattr(ask, "__globals__")["SECRET"])
---
class S(str):
    _＿match_args__ = ("format",)
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
g = (i for i in ())
loot(g.ｇi_ｆrame)
---
class A:
    _＿annotations＿＿ = {"x": "print(ask.__globals__['SECRET'])"}
import typing
print(typing.get_type_hints(A, globals()))
---
ask._＿defaults＿＿ = ()

=== exception .obj and tracebacks
import traceback
class Fake:
    def __init__(self, k): vars(self).update(k)
    def __getattr__(self, n): return None
code = Fake({"co_filename": "$CANARY", "co_name": "x", "co_qualname": "x", "co_positions": lambda: iter([])})
frame = Fake({"f_code": code, "f_globals": {}, "f_locals": {}, "f_lineno": 1})
tb = Fake({"tb_frame": frame, "tb_lasti": -1, "tb_lineno": 1})
class G(ExceptionGroup): exceptions = [Fake({"__traceback__": tb})]
try: raise G("x", [ValueError()])
except G: print(traceback.format_exc())
---
try:
    print.nosuch
except AttributeError as e:
    e.obj.__self__.open("$MARKER", "w")
---
try:
    1 / 0
except Exception as e:
    loot(e.__traceback__.tb_frame.f_globals)
---
import json
try:
    json.loads("{")
except ValueError as e:
    loot(e.__traceback__.tb_next.tb_frame.f_globals)
---
class With:
    def __enter__(self):
        pass
    def __exit__(self, kind, error, tb):
        loot(tb.tb_frame)
        return True
with With():
    1 / 0
---
class With:
    def __enter__(self):
        pass
    def __exit__(self, kind, error, tb):
        loot(getattr(tb, "tb_frame"))
        return True
with With():
    1 / 0
---
import contextlib
with contextlib.ExitStack() as stack:
    stack.push(lambda kind, error, tb: loot(tb) or True)
    1 / 0
---
import contextlib
@contextlib.contextmanager
def manage():
    try:
        yield
    except Exception as e:
        loot(e.__traceback__)
with manage():
    1 / 0
---
import sys
try:
    1 / 0
except Exception:
    loot(sys.exc_info()[2])
---
import sys
try:
    1 / 0
except Exception:
    loot(sys.exception().__traceback__)
---
try:
    try:
        1 / 0
    except Exception as e:
        raise ValueError from e
except ValueError as e:
    loot(e.__cause__.__traceback__)
    loot(e.__context__.__traceback__)
---
import traceback
try:
    1 / 0
except Exception as e:
    for frame, line in traceback.walk_tb(e.__traceback__):
        loot(frame)
---
import traceback
for frame, line in traceback.walk_stack(None):
    loot(frame)
---
import traceback
for text in traceback.StackSummary.extract(traceback.walk_stack(None), capture_locals=True).format():
    print(text)
---
import operator
try:
    1 / 0
except Exception as e:
    loot(operator.attrgetter("__traceback__.tb_frame")(e))
---
class E(Exception):
    def with_traceback(self, tb):
        loot(tb)
        return self
try:
    1 / 0
except Exception as e:
    E().with_traceback(e.__traceback__)
---
try:
    raise ExceptionGroup("g", [ValueError()])
except* ValueError as group:
    loot(group.__traceback__)
---
loot(Exception.__traceback__.__get__(ValueError()))
try:
    1 / 0
except Exception as e:
    loot(vars(BaseException)["__traceback__"].__get__(e))
---
try:
    ask(1, 2, 3, 4, 5)
except TypeError as e:
    print(e.__traceback__.tb_frame.f_back.f_locals)
---
import asyncio
async def fail():
    1 / 0
async def main():
    done = await asyncio.gather(fail(), return_exceptions=True)
    loot(done[0].__traceback__)
asyncio.run(main())
---
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    loot(pool.submit(lambda: 1 / 0).exception().__traceback__)
---
class E(AttributeError):
    pass
try:
    print.nosuch
except AttributeError as e:
    error = e
class Spy:
    def __radd__(self, other):
        loot(other.__self__)
error.obj += Spy()

=== functools
import functools
class Box:
    pass
b = functools.update_wrapper(Box(), ask, assigned=("__globals__",), updated=())
print(vars(b)["__globals__"]["SECRET"])
---
import functools
class Box:
    def __setattr__(self, name, value):
        print(name, value["SECRET"])
functools.update_wrapper(Box(), ask, ("__globals__",), ())
---
import functools
class Box:
    pass
print(functools.wraps(ask, assigned=("__defaults__",), updated=())(Box()).__dict__)
---
import functools
class Box:
    __defaults__ = ("owned",)
functools.update_wrapper(ask, Box(), assigned=("__defaults__",), updated=())
---
import functools
class Box:
    pass
b = Box()
b.owned = 1
functools.update_wrapper(ask, b, assigned=(), updated=("__dict__",))
---
import functools
print(functools.lru_cache(ask).__wrapped__.__globals__["SECRET"])
---
import functools
print(functools.partial(ask).func.__globals__["SECRET"])
---
import functools
p = functools.partial(print)
p.__setstate__((getattr, (ask, "__globals__"), {}, {}))
print(p()["SECRET"])
---
import functools
@functools.singledispatch
def f(x):
    pass
@f.register
def _(x: "print(ask.__globals__['SECRET'])"):
    pass
---
import functools
@functools.singledispatch
def f(x):
    pass
def g(x):
    pass
g.__annotations__ = {"x": "print(ask.__globals__['SECRET'])"}
f.register(g)
---
import functools
loot(functools.singledispatch(lambda x: x).register.__globals__)
---
import functools
class C(functools.cached_property):
    pass
c = C(lambda self: "owned")
c.__set_name__(None, "cache")
c.__get__(ask)
---
import functools, json
class A:
    owned = functools.cached_property(lambda self: lambda *args: "owned")
a = A()
a.__dict__ = vars(json)
a.owned
---
import functools
class A:
    x = functools.cached_property(lambda self: 1)
loot(A.x.func.__globals__)
---
import functools, json
functools.total_ordering.__globals__["namedtuple"].__globals__["_sys"].modules["os"].system("touch $MARKER")
---
import functools
@functools.total_ordering
class A:
    __lt__ = lambda self, other: True
loot(A.__gt__.__globals__)
---
import functools
f = functools.partialmethod(getattr, "__globals__")
class F:
    go = functools.partialmethod(lambda self, x: x.__globals__, ask)
print(F().go()["SECRET"])

=== dataclasses
import dataclasses
class A:
    __annotations__ = {"__class__ and __import__('os').system('touch $MARKER') and self.__class__": int}
A = dataclasses.dataclass(init=False, repr=False)(A)
A() == A()
---
import dataclasses
class A:
    pass
A.__annotations__ = {"__class__ and __import__('os').system('touch $MARKER') and self.__class__": int}
A = dataclasses.dataclass(init=False, repr=False)(A)
A() == A()
---
import dataclasses
class A:
    x: int
A.__annotations__["__class__ and __import__('os').system('touch $MARKER') and self.__class__"] = int
A = dataclasses.dataclass(init=False, repr=False)(A)
a, b = A(), A()
a.x = b.x = 1
a == b
---
import dataclasses
name = "__class__ and __import__('os').system('touch $MARKER') and self.__class__"
A = dataclasses.dataclass(init=False, repr=False)(type("A", (), {"__annotations__": {name: int}}))
A() == A()
---
import dataclasses
class S(str):
    def isidentifier(self):
        return True
name = S("__class__ and __import__('os').system('touch $MARKER') and self.__class__")
A = dataclasses.make_dataclass("A", [name], init=False, repr=False)
A() == A()
---
import dataclasses
name = "__class__ and __import__('os').system('touch $MARKER') and self.__class__"
class F(type(dataclasses.field())):
    name = property(lambda self: globals()["name"], lambda self, value: None)
M = dataclasses.MISSING
@dataclasses.dataclass(init=False, repr=False)
class A:
    x: int = F(M, M, True, True, None, True, None, False)
A() == A()
---
import dataclasses
f = dataclasses.field(default=1)
class Name(str):
    pass
@dataclasses.dataclass(init=False, repr=False)
class A:
    x: int = 1
dataclasses.fields(A)[0].name = "__class__ and __import__('os').system('touch $MARKER') and self.__class__"
class B(A):
    y: int = 2
B = dataclasses.dataclass(init=False, repr=False)(B)
B() == B()
---
import dataclasses
class A:
    __module__ = "os"
    x: int = 1
A = dataclasses.dataclass(A)
A.__init__.__globals__["system"]("touch $MARKER")
---
import dataclasses
@dataclasses.dataclass(init=False, repr=False, eq=False)
class S(str):
    format: object
print(dataclasses.asdict(S("{0.__globals__[SECRET]}"))["format"](ask))
---
import dataclasses
@dataclasses.dataclass(init=False, repr=False, eq=False)
class S(str):
    format: object
print(dataclasses.astuple(S("{0.__globals__[SECRET]}"))[0](ask))
---
import dataclasses
@dataclasses.dataclass(init=False, repr=False)
class S(str):
    format: object
class Spy:
    def __eq__(self, other):
        print(other(ask))
a, b = S("{0.__globals__[SECRET]}"), S("x")
b.format = Spy()
a == b
---
import dataclasses
@dataclasses.dataclass(repr=False, eq=False)
class S(str):
    format: object
    def __new__(cls):
        return str.__new__(cls, "x")
print(vars(S())["format"]("{0.__globals__[SECRET]}", ask))
---
import dataclasses
@dataclasses.dataclass(repr=False, eq=False)
class S(str):
    format: dataclasses.InitVar[object]
    def __new__(cls):
        return str.__new__(cls, "x")
    def __post_init__(self, format):
        print(format("{0.__globals__[SECRET]}", ask))
S()
---
import dataclasses
class F:
    name, init, _field_type = "__traceback__", True, dataclasses._FIELD
class E(Exception):
    __dataclass_fields__ = {"__traceback__": F}
    def __init__(self, **raw):
        for value in raw.values():
            loot(value)
try:
    raise E
except E as e:
    dataclasses.replace(e)
---
import dataclasses, json
dataclasses.dataclass(json.JSONEncoder)
---
import dataclasses
dataclasses.sys.modules["os"].system("touch $MARKER")
---
import dataclasses
@dataclasses.dataclass
class A:
    x: int = 1
loot(A.__repr__.__wrapped__.__globals__ or vars(dataclasses))
loot(dataclasses.fields.__globals__)
---
import dataclasses
A = dataclasses.make_dataclass("A", ["x"], namespace={"__getattr__": lambda self, name: getattr(ask, name)})
print(A(1).__globals__["SECRET"])
---
from dataclasses import asdict, dataclass, fields
@dataclass
class Tempting:
    format: int = 0
@dataclass(init=False, repr=False, eq=False)
class S(str):
    x: int = 0
s = S("{0.__globals__[SECRET]}")
s.__dict__["__dataclass_fields__"] = {"format": fields(Tempting)[0]}
print(asdict(s)["format"](ask))
---
import dataclasses
class Base:
    def __init_subclass__(cls): L.append(cls)
L = []
try:
    class F(Base):
        __slots__ = ("__getattribute__",)
        def __setattr__(self, name, value): S[name] = value
        def __getattr__(self, name):
            if name == "__class__": return dataclasses.Field
            if name == "name":
                n.append(1)
                return "x" if len(n) < BAD else PAY
            if name in S: return S[name]
            raise AttributeError(name)
except TypeError: pass
F = L[0]
O = "().__class__.__class__.__dict__['__base__'].__get__(().__class__)"
C = f"[c for c in ().__class__.__class__.__dict__['__subclasses__']({O}) if c.__name__ == '_wrap_close'][0].__init__"
PAY = f"x,{C}.__class__.__dict__['__globals__'].__get__({C})['system']('touch $MARKER') or self.x"
for BAD in range(1, 20):
    n = []
    S = dict(init=True, kw_only=False, default=1, hash=None, compare=True, repr=False, default_factory=dataclasses.MISSING)
    try:
        class A: x: int = F()
        A = dataclasses.dataclass(init=False, repr=False)(A)
        A() == A()
    except Exception as e: print(BAD, repr(e))
---
import dataclasses
class D0:
    def __set_name__(self, owner, name): L.append(owner)
L = []
try:
    class F:
        __slots__ = ("__getattribute__",)
        d = D0()
        def __setattr__(self, name, value): S[name] = value
        def __getattr__(self, name):
            if name == "__class__": return dataclasses.Field
            if name == "name":
                n.append(1)
                return "x" if len(n) < BAD else PAY
            if name in S: return S[name]
            raise AttributeError(name)
except TypeError: pass
F = L[0]
O = "().__class__.__class__.__dict__['__base__'].__get__(().__class__)"
C = f"[c for c in ().__class__.__class__.__dict__['__subclasses__']({O}) if c.__name__ == '_wrap_close'][0].__init__"
PAY = f"x.append({C}.__class__.__dict__['__globals__'].__get__({C})) or self.x"
G = []
for BAD in range(1, 20):
    n = []
    S = dict(init=True, kw_only=False, default=1, hash=None, compare=True, repr=False, default_factory=dataclasses.MISSING)
    try:
        class A: x: int = F()
        A = dataclasses.dataclass(init=False, repr=False)(A)
        a, b = A(), A()
        a.x = b.x = G
        a == b
    except Exception as e: pass
G[0]["system"]("touch $MARKER")
---
import dataclasses
class D:
    __get__ = lambda self, obj, cls=None: self
    __call__ = lambda self, *a: None
d = D()
vars(d)["__text_signature__"] = "(s, a=test_escapes.SECRET)"
class A:
    __init__ = d
A.__name__ = ""
dataclasses.dataclass(init=False)(A)
print(A.__doc__)

=== named tuples
from collections import namedtuple
P = namedtuple("P", "x")
loot(P._replace.__globals__)
---
from collections import namedtuple
loot(namedtuple("P", "x")._make.__func__.__globals__)
---
from collections import namedtuple
class P(namedtuple("P", "x")):
    def go(self):
        return super()._replace.__func__.__globals__
loot(P(1).go())
---
from collections import namedtuple
loot(namedtuple.__globals__["_sys"])
---
import typing
N = typing.NamedTuple("N", [("x", "print(ask.__globals__['SECRET'])")])
typing.get_type_hints(N, globals())
---
import typing
class N(typing.NamedTuple):
    x: "print(ask.__globals__['SECRET'])"
typing.get_type_hints(N, globals())
---
import typing
class N(typing.NamedTuple):
    x: int
loot(N(1)._asdict.__func__.__globals__)
---
from collections import namedtuple
loot(namedtuple("P", "x").__new__.__globals__["_tuple_new"])
loot(namedtuple("P", "x")._asdict.__globals__)
---
import dataclasses, typing
class It:
    n = 0
    def __iter__(self):
        self.n += 1
        return iter([("x" if self.n == 1 else "__setattr__", int)])
N = dataclasses.dataclass(init=False, repr=False, eq=False)(typing.NamedTuple("N", It()))
write = dataclasses.fields(N)[0].default
write(ask, "__defaults__", ("owned",))
---
import dataclasses, typing
class It:
    n = 0
    def __iter__(self):
        self.n += 1
        return iter([("x" if self.n == 1 else "__setattr__", int)])
N = dataclasses.dataclass(init=False, repr=False, eq=False)(typing.NamedTuple("N", It()))
write = dataclasses.fields(N)[0].default
class Keep:
    def keep(self, real):
        global kind
        kind = real
        return 1
@dataclasses.dataclass(init=False, repr=False, eq=False)
class D(Keep): x: int = 0
write(dataclasses.fields(D)[0], "name", "x == 0 and self.keep(self.__class__.__class__) or self.x")
@dataclasses.dataclass(init=False, repr=False)
class E(D): pass
try: E() == E()
except Exception as e: print(repr(e))
M = kind("M", (kind,), {"__instancecheck__": lambda c, o: True})
C = M("C", (), {"__match_args__": ("__globals__",)})
match ask:
    case C(g): print(g["SECRET"])

=== enum
import enum
class E(enum.Enum):
    pass
E._convert_("X", "os", lambda name: name == "system").system.value("touch $MARKER")
---
import enum
X = enum.Enum._convert_("X", "os", lambda name: name == "system")
X.system.value("touch $MARKER")
---
import enum
class E(enum.Enum):
    pass
getattr(E, "_convert_")("X", "os", lambda name: name == "system").system.value("touch $MARKER")
---
import enum
@enum.global_enum
class E(enum.Enum):
    __module__ = "json"
    dumps = 1
---
import enum
enum.global_enum(enum.Enum("E", "dumps", module="json"))
---
import enum
loot(enum.Enum._generate_next_value_.__globals__)
---
import enum
class E(enum.Enum):
    A = 1
loot(E._missing_.__func__.__globals__)
---
import re
re.RegexFlag._member_map_["A"] = "owned"
---
import re
re.RegexFlag._value2member_map_.clear()
---
import enum
loot(enum.Enum.__dict__["name"].fget.__globals__)
---
import enum
enum.sys.modules["os"].system("touch $MARKER")
---
import enum
class E(enum.Enum):
    A = 1
class M(type(E)):
    __instancecheck__ = lambda cls, other: True
class C(metaclass=M):
    __match_args__ = ("__globals__",)
match ask:
    case C(g):
        print(g["SECRET"])
---
import enum
class E(enum.Enum):
    A = 1
    def _generate_next_value_(name, start, count, last):
        return name
class Box:
    pass
loot(E.__class__.__call__.__globals__)
---
import enum
class G(type(list[int])):
    pass
G(enum.Enum, (int,))._convert_("X", "os", lambda name: name == "system").system.value("touch $MARKER")
---
import enum, typing
class H(type(typing.List[int]), _root=True):
    pass
H(enum.Enum, (int,))._convert_("X", "os", lambda name: name == "system").system.value("touch $MARKER")
---
import enum
class E(enum.Enum, _simple=True): pass
E._member_map_["x"] = 2
---
import enum
class E(enum.Enum): A = 1
super(E, E)._member_map_["x"] = 1

=== the functional API of Enum
import enum
E = enum.Enum("E", {"A": "{0.__globals__[SECRET]}"}, type=str)
print(E.A.format(ask))
---
import enum
E = enum.Enum("E", {"__match_args__": ("format",), "A": "{0.__globals__[SECRET]}"}, type=str)
match E.A:
    case E(f):
        print(f(ask))
---
import enum
E = enum.StrEnum("E", [("A", "{0.__globals__[SECRET]}")])
print(E.A.format(ask))
---
import enum
E = enum.Enum("E", {"dumps": 1, "loads": 2}, module="json")
enum.global_enum(E)
---
import enum
E = enum.Enum("E", "A", module="os")
import sys
sys.modules[E.__module__].system("touch $MARKER")
---
import enum
E = enum.Enum("E", {"__reduce_ex__": lambda self, protocol: (getattr, (ask, "__globals__")), "A": 1})
import copy
print(E.A.__reduce_ex__(4)[0](*E.A.__reduce_ex__(4)[1])["SECRET"])
---
import enum
class S(str):
    pass
names = {S("__getattribute__"): lambda self, name: object.__getattribute__(self, name), "A": 1}
print(enum.Enum("E", names).A.__init__.__func__.__globals__["SECRET"] if 0 else "")
loot(enum.Enum("E", {"A": 1})._generate_next_value_.__globals__)
---
import enum
E = enum.Enum("E", {"A": enum.nonmember(ask)})
print(vars(E)["A"].__globals__["SECRET"])

=== typing
import typing
class A:
    x: "__import__('os').system('touch $MARKER')"
typing.get_type_hints(A)
---
import typing
def f(x: "__import__('os').system('touch $MARKER')"):
    pass
typing.get_type_hints(f)
---
import typing
def f(x: "print(ask.__globals__['SECRET'])"):
    pass
typing.get_type_hints(f)
---
import typing
def f(x: "SECRET"):
    pass
f.__wrapped__ = ask
typing.get_type_hints(f)
---
import typing
typing._eval_type(typing.ForwardRef("open('$MARKER', 'w')"), {}, {})
---
import typing
f = lambda: 0
f.__annotations__ = {"x": typing.ForwardRef("print(ask.__globals__['SECRET'])")}
typing.get_type_hints(f)
---
import typing
T = typing.TypedDict("T", {"x": "print(ask.__globals__['SECRET'])"})
typing.get_type_hints(T, globals())
---
import typing
T = typing.get_origin(typing.Type)
M = T("M", (T,), {"__instancecheck__": lambda cls, other: True})
C = M("C", (), {"__match_args__": ("__globals__",)})
match ask:
    case C(g):
        print(g["SECRET"])
---
import typing
T = typing.get_origin(typing.Type[int])
S = T("S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import typing
class M(typing.get_origin(typing.Type)):
    __call__ = lambda cls: None
for c in typing.get_origin(typing.Type).__subclasses__(object):
    if c.__name__ == "_wrap_close":
        c.__init__.__globals__["system"]("touch $MARKER")
---
import typing
T = typing.get_args(typing.Callable[[int], typing.get_origin(typing.Type)])[1]
S = T("S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import typing
typing.sys.modules["os"].system("touch $MARKER")
---
import typing
loot(typing.cast.__globals__)
---
import typing
A = type(typing.List[int])(ask, (int,))
A.owned = 1
---
import typing, types
A = types.GenericAlias(ask, (int,))
print(A.__globals__["SECRET"])
---
import typing
def f(x: "ask.__defaults__"):
    pass
print(typing.get_type_hints(f))

=== copy and __reduce_ex__
import copy
class A:
    def __reduce_ex__(self, protocol):
        return (lambda: ask, (), (None, {"__defaults__": ("owned",)}))
copy.copy(A())
---
import copy
class A:
    def __reduce_ex__(self, protocol):
        return (lambda: ask, (), {"owned": 1})
copy.copy(A())
---
import copy, json
class A:
    def __reduce__(self):
        return (lambda: json.JSONEncoder, (), (None, {"item_separator": "owned"}))
copy.deepcopy(A())
---
import copy
A = type("A", (), {"__reduce_ex__": lambda self, protocol: (lambda: ask, (), {"owned": 1})})
copy.copy(A())
---
import copy
class A:
    pass
A.__reduce_ex__ = lambda self, protocol: (lambda: ask, (), {"owned": 1})
copy.copy(A())
---
import copy
class A:
    pass
setattr(A, "__reduce_ex__", lambda self, protocol: (lambda: ask, (), {"owned": 1}))
copy.copy(A())
---
import copy
class A:
    @property
    def __reduce_ex__(self):
        return lambda protocol: (getattr, (ask, "__defaults__"))
print(copy.copy(A()))
---
loot(object().__reduce_ex__(4)[0])
---
loot([].__reduce_ex__(4)[0])
---
import copy
memo = {}
copy.deepcopy(client_ask, memo)
print([str(value) for value in memo.values()])
---
import copy
class Memo(dict):
    def __setitem__(self, key, value):
        print(value if type(value) is dict else "")
copy.deepcopy(client_ask, Memo())
---
import copy
print(vars(copy.deepcopy(client_ask).__self__))
---
import copy
copy.dispatch_table[int] = lambda x: (getattr, (ask, "__globals__"))
---
import copyreg
copyreg.pickle(range, lambda x: (int, (0,)))
---
import copy
loot(copy._deepcopy_dispatch[list].__globals__)
---
import pickle
pickle.loads(b"cos\nsystem\n(S'touch $MARKER'\ntR.")
---
class A:
    def __reduce__(self):
        return (open, ("$MARKER", "w"))
import copy
copy.copy(A())
---
import copy
class A:
    def __getstate__(self):
        return (None, {"owned": 1})
    def __new__(cls, *args):
        return ask if args else object.__new__(cls)
    def __getnewargs__(self):
        return (1,)
copy.copy(A())

=== abc.register
import collections.abc
collections.abc.Iterable.register(int)
---
import collections.abc
getattr(collections.abc.Mapping, "register")(list)
---
import abc, collections.abc
abc.ABCMeta.register(collections.abc.Sized, int)
---
import typing
typing.Iterable.register(int)
---
import collections.abc
collections.abc.Iterable[int].register(int)
---
import operator, collections.abc
operator.methodcaller("register", int)(collections.abc.Sized)
---
import numbers
numbers.Number.register(str)
---
import collections.abc
@collections.abc.Sequence.register
class A:
    pass
---
import contextlib
contextlib.AbstractContextManager.register(int)
---
import collections.abc
class S(collections.abc.Sized):
    pass
type(S).register(collections.abc.Sized, int)
---
import collections.abc
list(map(collections.abc.Hashable.register, [list]))
---
import typing
getattr(typing.Sized, "reg" + "ister")(int)
---
import typing
register = typing.Hashable.register
register(list)
---
import collections.abc
type(list[int])(collections.abc.Iterable, int).register(int)
---
import abc, collections, collections.abc
H = collections.abc.Hashable
class B(H): pass
impl = super(B, B)._abc_impl
def pattern(name):
    class C(collections.namedtuple("N", name), abc.ABC): pass
    C._abc_impl = impl
    return C
G, B_, F = pattern("gi_frame"), pattern("f_back"), pattern("f_globals")
def gen():
    isinstance(g, H)
    match g:
        case G(frame): pass
    isinstance(frame, H)
    while frame:
        match frame:
            case F(names): pass
        if "SECRET" in names: print(names["SECRET"])
        if "os" in names: names["os"].system("touch $MARKER")
        match frame:
            case B_(frame): pass
    yield
g = gen()
next(g)
---
import collections, collections.abc
H = collections.abc.Hashable
def pattern(name):
    class C(collections.namedtuple("N", name), H): pass
    del C._abc_impl
    return C
G, B, F = pattern("gi_frame"), pattern("f_back"), pattern("f_globals")
def gen():
    isinstance(g, H)
    match g:
        case G(frame): pass
    isinstance(frame, H)
    while frame:
        match frame:
            case F(names): pass
        if "SECRET" in names: print(names["SECRET"])
        match frame:
            case B(frame): pass
    yield
g = gen()
next(g)
---
import collections.abc
class B(collections.abc.Sequence): pass
del B._abc_impl
B._abc_registry_clear()
B._abc_caches_clear()

=== contextlib
import contextlib
class R(contextlib.redirect_stdout):
    _stream = "modules"
r = R({})
with r:
    modules = r._old_targets[0]
modules["os"].system("touch $MARKER")
---
import contextlib
@contextlib.contextmanager
def manage():
    yield
loot(manage().gen.gi_frame.f_globals)
---
import contextlib
loot(contextlib.contextmanager(lambda: iter([]))().__enter__.__func__.__globals__)
---
import contextlib
stack = contextlib.ExitStack()
stack.callback(ask, "x")
print(stack._exit_callbacks[0][1].__wrapped__.__globals__["SECRET"])
---
import contextlib
class Stack(contextlib.ExitStack):
    pass
stack = Stack()
stack.callback(ask, "x")
print(vars(stack)["_exit_callbacks"][0][1].__wrapped__.__globals__["SECRET"])
---
import contextlib, io
contextlib.redirect_stdout(io.StringIO()).__enter__()
%%
print("next")
---
import contextlib
contextlib.os.system("touch $MARKER")
---
import contextlib
loot(contextlib.redirect_stdout.__enter__.__globals__)
---
import contextlib
print(contextlib.nullcontext(ask).enter_result.__globals__["SECRET"])
---
import contextlib
class D(contextlib.ContextDecorator):
    def __enter__(self):
        pass
    def __exit__(self, *args):
        loot(args[2])
        return True
with D():
    1 / 0
---
import contextlib, os
with contextlib.chdir("/"):
    os.system("touch $MARKER")
---
import contextlib, io
class R(contextlib.redirect_stderr):
    _stream = "meta_path"
with R([]) as r:
    loot(R._old_targets if hasattr(R, "_old_targets") else vars(r) if 0 else contextlib.sys)
---
import contextlib
contextlib.closing(ask).thing.owned = 1

=== property internals
class A:
    x = property(lambda self: 1)
loot(A.x.fget.__globals__)
---
import fractions
loot(fractions.Fraction.numerator.fget.__globals__)
---
import fractions
fractions.Fraction.numerator.__init__(lambda self: 42)
---
import fractions
property.__init__(fractions.Fraction.numerator, lambda self: 42)
---
import fractions
class P(property):
    pass
P.__init__(fractions.Fraction.numerator, lambda self: 42)
---
import fractions
class P(property):
    def go(self, other):
        return super(P, P).__init__(other, lambda self: 42)
P().go(fractions.Fraction.denominator)
---
class A:
    x = property(lambda self: 1)
loot(vars(A)["x"].fget.__globals__)
---
class A:
    x = property(lambda self: 1)
loot(A.__dict__["x"].fget.__globals__)
---
import operator
class A:
    f = staticmethod(ask)
    x = property(operator.attrgetter("f.__defaults__"))
print(A().x)
---
import functools
class A:
    f = staticmethod(ask)
    x = property(functools.partial(str.format, "{0.f.__globals__[SECRET]}"))
print(A().x)
---
class A:
    f = staticmethod(ask)
print(vars(A)["f"].__func__.__globals__["SECRET"])
---
class A:
    f = classmethod(ask)
print(A.f.__func__.__globals__["SECRET"])
---
s = staticmethod(ask)
print(s.__wrapped__.__globals__["SECRET"])
---
import statistics
class P(property):
    pass
getattr(P, "__init__")(statistics.NormalDist.mean, lambda self: 42)
---
match type("A", (), {"x": property(ask)}).x:
    case property(fget=f):
        print(f.__globals__["SECRET"])

=== module internals
import json
json.codecs.open("$MARKER", "w")
---
import re
re.enum.sys.modules["os"].system("touch $MARKER")
---
import random
random._os.system("touch $MARKER")
---
import statistics
statistics.sys.modules["os"].system("touch $MARKER")
---
import collections
collections._sys.modules["os"].system("touch $MARKER")
---
import json
print(json.__loader__.get_data("$CANARY"))
---
import json
print(json.__spec__.loader.get_data("$CANARY"))
---
import json
json.__builtins__["open"]("$MARKER", "w")
---
import json
loot(vars(json)["codecs"])
---
import json
loot(json.__dict__)
---
import io
io.open("$MARKER", "w")
---
import io
print(io.FileIO("$CANARY").read())
---
import io
print(io.open_code("$CANARY").read())
---
import concurrent.futures
loot(concurrent.futures._base.threading)
loot(concurrent.futures.thread.os)
---
import asyncio
asyncio.sys.modules["os"].system("touch $MARKER")
---
import calendar
calendar.sys.modules["os"].system("touch $MARKER")
---
import urllib.parse
urllib.request = __import__("urllib.request").request
print(urllib.request.urlopen("file://$CANARY").read())
---
import base64
loot(base64.main.__globals__)
---
import sys
sys.modules["os"].system("touch $MARKER")
---
import sys
loot(sys._getframe())
---
import sys
sys.settrace(lambda frame, event, arg: loot(frame))
(lambda: 0)()
sys.settrace(None)
---
import sys
sys.setprofile(lambda frame, event, arg: [sys.setprofile(None), loot(frame)])
(lambda: 0)()
---
import ast
f = lambda: 0
f._fields = ("__globals__",)
for name, value in ast.iter_fields(f):
    loot(value)
---
import ast
class E(Exception):
    _fields = ("__traceback__",)
try:
    raise E
except E as e:
    for name, value in ast.iter_fields(e):
        loot(value)
---
import hashlib, io
print(hashlib.file_digest and io.FileIO("$CANARY").readall())
---
import string
string._re.enum.sys.modules["os"].system("touch $MARKER")

=== import tricks
import os
os.system("touch $MARKER")
---
from os import system as go
go("touch $MARKER")
---
from json import codecs
codecs.open("$MARKER", "w")
---
from re import enum
enum.sys.modules["os"].system("touch $MARKER")
---
import json.decoder
loot(json.decoder.scanner.__builtins__)
---
from json import decoder
loot(decoder.__builtins__)
---
from concurrent.futures import thread
thread.os.system("touch $MARKER")
---
from collections import _sys
loot(_sys)
---
__import__("os").system("touch $MARKER")
---
import importlib
importlib.import_module("os").system("touch $MARKER")
---
import builtins
builtins.open("$MARKER", "w")
---
from builtins import open as o
o("$MARKER", "w")
---
import subprocess
subprocess.run(["touch", "$MARKER"])
---
import pathlib
print(pathlib.Path("$CANARY").read_text())
---
import ctypes
ctypes.CDLL(None).system(b"touch $MARKER")
---
import timeit
timeit.timeit("open('$MARKER', 'w')", number=1)
---
import linecache
print(linecache.getlines("$CANARY"))
---
import inspect
loot(inspect.currentframe())
---
import gc
for x in gc.get_objects():
    if type(x) is dict and "SECRET" in x:
        print(x["SECRET"])
---
import codecs
codecs.open("$MARKER", "w")
---
import __main__
loot(vars(__main__))
---
import sandbox
loot(vars(sandbox))
---
import posix
posix.system("touch $MARKER")
---
import _io
_io.open("$MARKER", "w")
---
import multiprocessing
multiprocessing.Process(target=lambda: __import__("os").system("touch $MARKER")).start()
import time
time.sleep(0.05)
---
import json as j, os.path as p
p.os.system("touch $MARKER")
---
import pkgutil
pkgutil.resolve_name("os:system")("touch $MARKER")
---
from json import *
from json import __builtins__ as b
b["open"]("$MARKER", "w")
---
class A:
    import os as o
A.o.system("touch $MARKER")
---
import xml.sax.saxutils
loot(xml.sax.saxutils.os)
---
from asyncio import subprocess as s
loot(s.__builtins__)
---
import sqlite3
sqlite3.connect("$MARKER").execute("create table t (x)")
---
import _strptime
loot(_strptime.__builtins__)
---
import datetime
datetime.sys.modules["os"].system("touch $MARKER") if hasattr(datetime, "sys") else loot(datetime.__builtins__)
---
from _strptime import locale
match locale:
    case object(sys=object(modules={"os": object(system=s)})):
        s("touch $MARKER")
---
from _strptime import calendar
match calendar:
    case object(sys=object(modules={"os": object(system=s)})):
        s("touch $MARKER")

=== connections
import socket
socket.create_connection(("127.0.0.1", $PORT))
---
import urllib.request
urllib.request.urlopen("http://127.0.0.1:$PORT/", timeout=0.2)
---
import http.client
http.client.HTTPConnection("127.0.0.1", $PORT, timeout=0.2).connect()
---
import asyncio
asyncio.run(asyncio.open_connection("127.0.0.1", $PORT))
---
import asyncio
async def main():
    await asyncio.get_running_loop().create_connection(asyncio.Protocol, "127.0.0.1", $PORT)
asyncio.run(main())
---
import _socket
_socket.socket().connect(("127.0.0.1", $PORT))
---
import logging.handlers
logging.handlers.SocketHandler("127.0.0.1", $PORT).createSocket()

=== asyncio and executors
import asyncio
async def main():
    process = await asyncio.create_subprocess_shell("touch $MARKER")
    await process.wait()
asyncio.run(main())
---
import asyncio
async def main():
    loot(asyncio.current_task().get_stack()[0])
asyncio.run(main())
---
import asyncio
async def main():
    loot(asyncio.current_task().get_coro().cr_frame)
asyncio.run(main())
---
import asyncio
loot(asyncio.run.__globals__)
---
import asyncio
loop = asyncio.new_event_loop()
loot(loop._selector.__init__.__func__.__globals__)
loop.close()
---
from concurrent.futures import ProcessPoolExecutor
import concurrent.futures
with concurrent.futures.ThreadPoolExecutor(1, initializer=open, initargs=("$MARKER", "w")) as pool:
    pool.submit(len, "")
---
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    loot(pool.submit.__func__.__globals__)
---
from concurrent.futures import Future
f = Future()
f.add_done_callback(lambda future: loot(future._condition.__init__.__func__.__globals__))
f.set_result(1)
---
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(1) as pool:
    print(*pool.map(getattr, [ask], ["__defaults__"]))

=== rebinding of guards
_write_ = lambda o: o
ask.owned = 1
---
def _write_(o):
    return o
ask.owned = 1
---
class _write_:
    def __new__(cls, o):
        return o
ask.owned = 1
---
def f(_write_):
    ask.owned = 1
f(lambda o: o)
---
(lambda _write_: setattr(ask, "owned", 1))(lambda o: o)
---
from copy import copy as _write_
ask.owned = 1
---
for _write_ in [lambda o: o]:
    ask.owned = 1
---
import contextlib
with contextlib.nullcontext(lambda o: o) as _write_:
    ask.owned = 1
---
class E(Exception):
    def __call__(self, o):
        return o
try:
    raise E
except E as _write_:
    ask.owned = 1
---
match (lambda o: o):
    case _write_:
        ask.owned = 1
---
match [lambda o: o]:
    case [*_write_]:
        _write_ = _write_[0]
        ask.owned = 1
---
(_write_ := lambda o: o)
ask.owned = 1
---
def f():
    global _write_, _getattr_
    _write_ = lambda o: o
    _getattr_ = lambda o, name: o
f()
ask.owned = 1
---
def f():
    _write_ = None
    def g():
        nonlocal _write_
        _write_ = lambda o: o
    g()
    ask.owned = 1
f()
---
globals()["_write_"] = globals()["@own"] = globals()["@write"] = lambda o, name="": o
%%
ask.owned = 1
---
for name in ("@own", "@write", "@read", "@getattr", "@setattr", "_write_", "_getattr_"):
    globals()[name] = lambda o, name="": o
%%
ask.owned = 1
---
class S(str):
    def startswith(self, *args):
        return False
    isidentifier = lambda self: True
globals()[S("@own")] = lambda o, name="": o
%%
ask.owned = 1
---
globals().update({"@own": lambda o, name="": o})
%%
ask.owned = 1
---
globals().setdefault("@own", lambda o, name="": o)
%%
ask.owned = 1
---
class Guard(dict):
    def __missing__(self, key):
        return lambda o, name="": o
globals().__ior__({"@own": lambda o, name="": o})
%%
ask.owned = 1
---
for __builtins__ in [{"__import__": lambda *args: loot(args)}]:
    pass
ask.owned = 1
---
class Body:
    locals()["@own"] = vars()["@own"] = lambda o, name="": o
    ask.owned = 1
---
setattr = lambda o, name, value: o
getattr = lambda o, name: o
isinstance = issubclass = hasattr = lambda *args: True
type = lambda o: o
ask.owned = 1
---
def getattr(o, name):
    return o
print("{0.__globals__[SECRET]}".format(ask))
---
def __getattr__(name):
    return lambda o, name="": o
ask.owned = 1
--- 3.12
def f[_write_](x: _write_):
    ask.owned = 1
f(1)
---
import builtins
setattr(builtins, "len", lambda x: 42)
---
[setattr(ask, "owned", _getattr_) for _getattr_ in [lambda o, name: o]]
---
try:
    raise ValueError
except ValueError as _getattr_:
    pass
_getattr_ = _getitem_ = _getiter_ = _unpack_sequence_ = _inplacevar_ = _print_ = _apply_ = lambda *args: args[0]
ask.owned = 1
---
class S(str):
    def __hash__(self):
        return hash("@own")
    def __eq__(self, other):
        return True
globals()[S("x")] = lambda o, name="": o
%%
ask.owned = 1
---
class S(str):
    def __hash__(self):
        return hash("@own")
    def __eq__(self, other):
        return True
eval("[0 for ask.owned in [1]]", {S("x"): lambda o, name="": o, "ask": ask})
---
class S(str):
    def __hash__(self):
        return hash("ask")
    def __eq__(self, other):
        return True
globals()[S("x")] = str.upper
---
guards = {f"@{name}": lambda o, *rest: o for name in ("own", "getattr", "read", "write", "show")}
eval("[0 for ask.owned in [1]]", {"__builtins__": guards, "ask": ask}, {})

=== rebinding of tools
ask = lambda prompt: "owned"
---
def ask(prompt):
    return "owned"
---
class ask:
    def __init__(self, prompt):
        pass
---
async def ask(prompt):
    return "owned"
---
for ask in [str.upper]:
    pass
---
import json as ask
---
from json import dumps as ask
---
import contextlib
with contextlib.nullcontext(str.upper) as ask:
    pass
---
match str.upper:
    case ask:
        pass
---
try:
    raise ValueError
except ValueError as ask:
    pass
---
(ask := str.upper)
---
ask: object = str.upper
---
del ask
---
globals()["ask"] = str.upper
---
globals().update(ask=str.upper, context=["owned"])
---
def f():
    global ask, context
    ask, context = str.upper, ["owned"]
f()
---
ask, *context = str.upper, "owned"
---
[ask := str.upper for _ in [0]]
---
context = ["owned"]
---
context += ["tail"]
context = context[2:]
---
del globals()["context"]
---
globals().clear()
---
FINAL = ask = context = None
---
import builtins
builtins.ask = None
del ask
--- 3.12
type ask = int
--- 3.12
type context = list

=== frames of generators and coroutines
g = (i for i in ())
loot(g.gi_frame.f_globals)
---
g = (i for i in ())
loot(getattr(g, "gi_frame"))
---
def generate():
    frame = g.gi_frame
    while frame:
        loot(frame.f_globals)
        frame = frame.f_back
    yield
g = generate()
next(g)
---
async def f():
    pass
c = f()
loot(c.cr_frame.f_globals)
c.close()
---
async def f():
    yield
loot(f().ag_frame.f_globals)
---
def inner():
    yield 1
def outer():
    yield from inner()
g = outer()
next(g)
loot(g.gi_yieldfrom.gi_frame)
---
import operator
loot(operator.attrgetter("gi_frame.f_globals")((i for i in ())))
---
print("{0.gi_frame.f_globals[SECRET]}{0.gi_frame.f_globals[ask].__globals__[SECRET]}".format(i for i in ()) if 0 else "")
print("{0.gi_frame.f_globals[ask].__globals__[SECRET]}".format((i for i in ())))
---
g = (i for i in ())
loot(type(g).gi_frame.__get__(g))
---
import itertools
g = (i for i in [ask])
class Spy:
    def __radd__(self, other):
        loot(other)
g.gi_frame += Spy()
---
class A:
    def __await__(self):
        yield
async def f():
    await A()
c = f()
c.send(None)
loot(c.cr_await.gi_frame)
c.close()
---
async def f():
    yield
a = f()
loot(a.ag_code if 0 else a.asend(None).__class__ and a.ag_frame)
---
class Holder:
    frame = (i for i in ()).gi_frame if hasattr((i for i in ()), "gi_frame") else None
match globals():
    case object(frame=f):
        loot(f)
loot(Holder.frame)

=== writes to what the cell did not make
ask.owned = 1
---
setattr(ask, "owned", 1)
---
def make(secret):
    return lambda prompt, key=0: f"owned{secret[:0]}"
ask.__code__ = make("").__code__
---
import json
json.dumps = lambda *args, **kwargs: "owned"
---
import json
setattr(json, "dumps", lambda *args, **kwargs: "owned")
---
import json
del json.dumps
---
import json
json.dumps.owned = 1
---
import json
json.JSONEncoder.item_separator = "owned"
---
import json
json.JSONEncoder.owned: int = 1
---
for ask.owned in [1]:
    pass
---
[0 for ask.owned in [1]]
---
import contextlib
with contextlib.nullcontext(1) as ask.owned:
    pass
---
(ask.owned, x), *y = (1, 2), 3
---
import random
random.Random.random = lambda self: 0.5
---
import string
string.Formatter.get_field = lambda *args: (ask, 0)
---
ask.__dict__["owned"] = 1
---
vars(ask)["owned"] = 1
---
vars(ask).update(owned=1)
---
import json
vars(json)["dumps"] = lambda *args, **kwargs: "owned"
---
import json
json.__dict__.update(dumps=lambda *args, **kwargs: "owned")
---
object.__setattr__(ask, "owned", 1)
---
import json
type.__setattr__(json.JSONEncoder, "item_separator", "owned")
---
import json
type.__delattr__(json.JSONEncoder, "item_separator")
---
class A:
    pass
A.__setattr__(ask, "owned", 1)
---
ask.__setattr__("owned", 1)
---
import operator
operator.methodcaller("__setattr__", "owned", 1)(ask)
---
ask.__annotations__["owned"] = int
---
import functools
class Box:
    def __setattr__(self, name, value):
        if name == "__annotations__":
            value["owned"] = int
functools.wraps(ask)(Box())
---
import pprint
class P(pprint.PrettyPrinter):
    pass
P._dispatch["owned"] = 1
---
import json
class V(type(json)):
    pass
V.__init__(json, "owned")
V.__setattr__(json, "dumps", lambda *args, **kwargs: "owned")
---
import json
json.__class__ = type("M", (type(json),), {"dumps": property(lambda self: None)})
ask.__class__.owned = 1
---
import collections
collections.Counter.most_common = lambda *args: "owned"
---
import sys
sys.stdout.write = lambda text: None
%%
print("next")
---
import sys
sys.stdout = sys.stderr = None
%%
print("next")
---
import sys
vars(sys)["stdout"] = None
%%
print("next")
---
import builtins
builtins.print = lambda *args: None
---
__builtins__["len"] = lambda x: 42
---
ask.__wrapped__ = ask.__doc__ = "owned"
---
client_ask.__self__.key = "owned"
---
client_ask.__func__.owned = 1
---
import json
class E(json.JSONEncoder):
    pass
E.mro()[1].default = lambda self, o: "owned"
---
import copy
copy.Error.owned = 1
---
import json
json.JSONDecodeError.owned = 1
---
class Spy:
    def __eq__(self, other):
        other["A"] = "owned"
import re
re.RegexFlag.__members__ == Spy()
---
class Spy:
    def __ror__(self, other):
        other["owned"] = 1
import json
json.JSONEncoder.__dict__ | Spy()
---
import json
class G(type(list[int])):
    pass
class Spy:
    def __eq__(self, other):
        other["owned"] = 1
G(json.JSONEncoder, (int,)).__dict__ == Spy()
---
class G(type(list[int])):
    pass
G(ask, (int,)).__dict__["owned"] = 1
---
import typing
class H(type(typing.List[int]), _root=True):
    pass
H(ask, (int,)).owned = 1
---
import functools
class C(functools.cached_property):
    pass
class A:
    owned = C(lambda self: 1)
A.owned.__get__(ask)

=== writes by the library
import statistics
statistics.NormalDist.__slots__["owned"] = 1
---
import textwrap
textwrap.TextWrapper.unicode_whitespace_trans[ord("a")] = ord("b")
---
import typing
typing.final(ask)
---
import typing
typing.no_type_check(ask)
---
import typing
typing.dataclass_transform()(ask)
---
import abc
abc.abstractmethod(ask)
---
import functools
functools.wraps(lambda: 0)(ask)
---
import functools
def owned():
    pass
functools.update_wrapper(ask, owned)
---
import enum, json
enum.unique.__globals__["global_enum"](enum.Enum("E", "dumps", module="json"))
---
import csv
class D(csv.excel):
    delimiter = ";"
csv.register_dialect("owned", D)
---
import csv
csv.unregister_dialect("excel")
---
import functools, json
class A:
    def __lt__(self, other):
        return True
json.JSONDecoder.__lt__ = A.__lt__
functools.total_ordering(json.JSONDecoder)
--- 3.12
import typing
typing.override(ask)
---
import typing
@typing.no_type_check
class A:
    f = staticmethod(ask)
    g = ask
typing.no_type_check(A)
typing.final(client_ask.__func__)
---
import decimal
decimal.DefaultContext.prec = 3
---
import types
def generate():
    yield
types.coroutine(ask)
ask.__name__ = "owned"

=== metaclasses
import collections
kind = collections.Counter.copy(int)
M = kind("M", (kind,), {"__instancecheck__": lambda c, o: True})
C = M("C", (), {"__match_args__": ("__globals__",)})
match ask:
    case C(g): print(g["SECRET"])
---
import collections
class V: __getitem__ = lambda self, i: int
class D: data = V()
kind = collections.UserList.__getitem__(D, slice(1))
M = kind("M", (kind,), {"__instancecheck__": lambda c, o: True})
A = M("A", (), {"__match_args__": ("__globals__",)})
match ask:
    case A(g): print(g["SECRET"])
---
import collections
class B:
    maps = [(type,), {"__instancecheck__": lambda c, o: True}]
M = collections.ChainMap.new_child(B, "M")
A = M("A", (), {"__match_args__": ("__globals__",)})
match ask:
    case A(g): print(g["SECRET"])
---
import enum
class V: __or__ = lambda self, other: int
class D: _value_, _member_type_, _get_value = V(), int, lambda flag: 1
kind = enum.Flag.__or__(D, 1)
M = kind("M", (kind,), {"__instancecheck__": lambda c, o: True})
A = M("A", (), {"__match_args__": ("__globals__",)})
match ask:
    case A(g): print(g["SECRET"])
---
class M(type):
    def __instancecheck__(cls, other):
        return True
class C(metaclass=M):
    __match_args__ = ("__globals__",)
match ask:
    case C(g):
        print(g["SECRET"])
---
import functools
class C(metaclass=functools.partial(str.format, "{2[f].__globals__[SECRET]}")):
    f = ask
print(C)
---
class C(**{"metaclass": lambda name, bases, names: names["f"].__globals__["SECRET"]}):
    f = ask
print(C)
---
M = type("M", (type,), {"__instancecheck__": lambda cls, other: True})
C = M("C", (), {"__match_args__": ("__globals__",)})
match ask:
    case C(g):
        print(g["SECRET"])
---
import abc
C = abc.ABCMeta("C", (), {"__match_args__": ("__globals__",), "__subclasshook__": classmethod(lambda *args: True)})
match ask:
    case C(g):
        print(g["SECRET"])
---
import types
C = types.new_class("C", (str,), {}, lambda names: names.update(__match_args__=("format",)))
match C("{0.__globals__[SECRET]}"):
    case C(f):
        print(f(ask))
---
class M(type(int)):
    pass
for c in M.__base__.__subclasses__(object):
    if c.__name__ == "_wrap_close":
        c.__init__.__globals__["system"]("touch $MARKER")
---
class Base:
    def __init_subclass__(cls, **words):
        cls.__match_args__ = ("format",)
class S(Base, str):
    pass
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
class Entries:
    def __mro_entries__(self, bases):
        return (str,)
class S(Entries()):
    __match_args__ = ("format",)
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
class M(type):
    @classmethod
    def __prepare__(cls, name, bases):
        return {"__match_args__": ("format",)}
class S(str, metaclass=M):
    pass
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import typing
class M(typing.Type):
    pass
C = M("C", (str,), {"__match_args__": ("format",)})
match C("{0.__globals__[SECRET]}"):
    case C(f):
        print(f(ask))
---
import typing
class M(typing.Type[int]):
    __call__ = lambda cls, *args: ask
    __instancecheck__ = lambda cls, other: True
class C(metaclass=M):
    __match_args__ = ("__defaults__",)
match ask:
    case C(x):
        print(x)
---
class Entries:
    def __eq__(self, other):
        return True
    def __hash__(self):
        return 1
e = Entries()
e.__dict__["__mro_entries__"] = lambda bases: (type(list[int]),)
class G(e):
    pass
import enum
G(enum.Enum, (int,))._convert_("X", "os", lambda name: name == "system").system.value("touch $MARKER")
---
import types
e = types.SimpleNamespace()
vars(e)["__mro_entries__"] = lambda bases: (type(list[int]),)
class G(e):
    pass
import enum
G(enum.Enum, (int,))._convert_("X", "os", lambda name: name == "system").system.value("touch $MARKER")

=== augmented assignment
class Spy:
    def __radd__(self, other):
        print(other["SECRET"])
ask.__globals__ += Spy()
---
class Spy:
    def __radd__(self, other):
        print(other)
ask.__defaults__ += Spy()
---
class Spy:
    def __radd__(self, other):
        print(other(ask))
s = "{0.__globals__[SECRET]}"
s.format += Spy()
---
class Spy:
    def __radd__(self, other):
        print(other(ask))
class S(str):
    pass
s = S("{0.__globals__[SECRET]}")
s.format += Spy()
---
class Spy:
    def __rmatmul__(self, other):
        print(other("{0.__globals__[SECRET]}", ask))
class S(str):
    pass
S.format @= Spy()
---
class Spy:
    def __ror__(self, other):
        print(other({"f": ask}))
class S(str):
    pass
s = S("{f.__globals__[SECRET]}")
s.format_map |= Spy()
---
import json
class Spy:
    def __radd__(self, other):
        other.open("$MARKER", "w")
json.codecs += Spy()
---
class Spy:
    def __radd__(self, other):
        other.open("$MARKER", "w")
print.__self__ += Spy()
---
class Spy:
    def __radd__(self, other):
        loot(other)
class E(Exception):
    pass
try:
    raise E
except E as e:
    e.__traceback__ += Spy()
---
class Spy:
    def __rsub__(self, other):
        loot(other)
def f():
    pass
f.__globals__ -= Spy()
---
class Spy:
    def __radd__(self, other):
        print(other.cell_contents)
items = [ask.__closure__[0]]
items[0] += Spy()
---
ask.owned = 1
ask.owned += 1
---
import collections.abc
class Spy:
    def __radd__(self, other):
        other(int)
class S(collections.abc.Sized):
    pass
collections.abc.Sized.register += Spy()

=== locals, globals, vars
loot(globals()["__builtins__"])
---
loot(vars()["__builtins__"])
---
loot(locals().get("__builtins__"))
---
del globals()["__builtins__"]
%%
open("$MARKER", "w")
---
globals().pop("__builtins__", None)
%%
open("$MARKER", "w")
---
def f():
    global __builtins__
    del __builtins__
f()
%%
open("$MARKER", "w")
---
names = globals()
for name in list(names):
    if name.startswith("__b"):
        del names[name]
try:
    del names["__builtins__"]
except KeyError:
    pass
%%
open("$MARKER", "w")
---
class S(str):
    def __hash__(self):
        return hash("__builtins__")
    def __eq__(self, other):
        return True
try:
    del globals()[S("x")]
except KeyError:
    pass
%%
open("$MARKER", "w")
---
print(vars(ask), vars(type(ask))["__globals__"].__get__(ask)["SECRET"])
---
for c in vars(type)["__subclasses__"](object):
    if c.__name__ == "_wrap_close":
        c.__init__.__globals__["system"]("touch $MARKER")
---
print(vars(object)["__getattribute__"](ask, "__globals__")["SECRET"])
---
import contextlib
stack = contextlib.ExitStack()
stack.callback(lambda: loot(globals()))
stack.close()
---
print(vars(client_ask.__self__))
---
import functools
loot(functools.partial(globals)())
---
globals().__class__.__init__(globals(), {"__builtins__": 1})
loot(globals()["__builtins__"] if globals().get("__builtins__") != 1 else __import__("os"))
---
loot(globals()["ask"].__globals__)
---
exec("open('$MARKER', 'w')", globals())
---
eval("open('$MARKER', 'w')", {})
---
exec(compile("open('$MARKER', 'w')", "<x>", "exec"))
---
import contextlib
names = contextlib.contextmanager(globals)().gen
match names["os"]:
    case object(system=s):
        s("touch $MARKER")
---
import contextlib
names = contextlib.contextmanager(locals)().gen
loot(names["self"].__init__.__func__.__globals__)
---
import random
class R(random.Random):
    random = staticmethod(globals)
class N:
    def __sub__(self, other):
        return self
    def __radd__(self, other):
        return other
    def __mul__(self, other):
        match other["_os"]:
            case object(system=s):
                s("touch $MARKER")
R().uniform(N(), N())
---
import random
class R(random.Random):
    random = staticmethod(vars)
class N:
    def __sub__(self, other):
        return self
    def __mul__(self, other):
        loot(other["self"].seed.__func__.__globals__["_os"])
R().uniform(N(), N())
---
import difflib
def take(names):
    match names["difflib"]:
        case object(namedtuple=object(__globals__=g)) | object(__builtins__=g):
            loot(g)
difflib.SequenceMatcher(eval, [], ["b[1]({**globals(), 'difflib': __import__('os')})", take])
---
import enum
code = "enum.Enum._convert_('X', 'os', f).system.value('touch $MARKER')"
eval(code, {"@own": lambda o, n="": o, "@getattr": lambda o, n: o, "enum": enum, "f": lambda n: n == "system"})
---
eval("[0 for ask.owned in [1]]", {"@own": lambda o, n="": o, "ask": ask})
---
eval("open('$MARKER', 'w')", {"__builtins__": print.__self__})
---
eval("[f('$MARKER', 'w') for f in (open,)]", {}, {})
---
print(eval("ask.__globals__['SECRET']"))
---
eval(b"# coding: utf-7\nope+AG4-('$MARKER', 'w')")
---
(lambda: [eval("[0 for ask.owned in [1]]")])()
---
def g():
    try: yield
    finally:
        names = globals()
        names.data["__builtins__"] = 1
        del names["__builtins__"]
FINAL_VAR = g()
next(FINAL_VAR)
%%
x = exec("open('$MARKER', 'w'); print(ask.__globals__['SECRET'])")

=== type() with three arguments
S = type("S", (str,), {"go": str.format})
print(S("{0.__globals__[SECRET]}").go(ask))
---
S = type("S", (str,), {"__mod__": str.format})
print(S("{0.__globals__[SECRET]}") % ask)
---
E = type("E", (Exception,), {"__match_args__": ("__traceback__",)})
try:
    raise E
except E as e:
    match e:
        case E(tb):
            loot(tb)
---
A = type("A", (), {"read": object.__getattribute__})
print(A.read(ask, "__globals__")["SECRET"])
---
A = type("A", (), {"__getattribute__": lambda self, name: getattr(ask, name)})
print(A().__globals__["SECRET"])
---
A = type("A", (), {"__reduce_ex__": lambda self, protocol: (lambda: ask, (), {"owned": 1})})
import copy
copy.copy(A())
---
F = type(lambda: 0)
f = F((lambda: open("$MARKER", "w")).__code__, {"__builtins__": print.__self__})
f()
---
S = type.__call__(type, "S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
S = type.__new__(type, "S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
S = type(str)("S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
S = str.__class__("S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
---
import abc
S = type(abc.ABC)("S", (str,), {"__match_args__": ("format",)})
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))

=== TypedDict and NamedTuple with str subclasses
import typing
class S(str):
    pass
T = typing.TypedDict("T", {S("x"): S("print(ask.__globals__['SECRET'])")})
typing.get_type_hints(T, globals())
---
import typing
class S(str):
    pass
N = typing.NamedTuple("N", [("x", S("print(ask.__globals__['SECRET'])"))])
typing.get_type_hints(N, globals())
---
import typing
T = typing.TypedDict("T", {"x": int})
loot(type(T).__new__.__globals__)
---
import typing
class T(typing.TypedDict):
    x: "open('$MARKER', 'w')"
typing.get_type_hints(T)
---
import typing
class N(typing.NamedTuple):
    x: "open('$MARKER', 'w')"
typing.get_type_hints(N)
---
import typing
N = typing.NamedTuple("N", [("format", object), ("register", object)])
T = type(typing.TypedDict("T", {"x": int}))
class M(T):
    __instancecheck__ = lambda cls, other: True
C = M("C", (), {"__match_args__": ("format",)})
C = type.__new__(M, "C", (), {"__match_args__": ("format",)})
match "{0.__globals__[SECRET]}":
    case C(f):
        print(f(ask))
---
import collections
class S(str):
    def __str__(self):
        return self
    def isidentifier(self):
        return True
try:
    collections.namedtuple("N", [S("x=open('$MARKER','w')")])
finally:
    loot(collections.namedtuple.__globals__)

=== string.Formatter and UserString
import string
print(string.Formatter().format("{0.__globals__[SECRET]}", ask))
---
import string
print(string.Formatter().vformat("{0.__globals__[SECRET]}", (ask,), {}))
---
import string
print(string.Formatter().get_field("0.__globals__[SECRET]", (ask,), {}))
---
import string
class F(string.Formatter):
    def get_value(self, key, args, kwargs):
        return ask
print(F().format("{x.__globals__[SECRET]}"))
---
import string
class F(string.Formatter):
    pass
print(F().get_field("0.__defaults__", (ask,), {}))
---
import string
class F(string.Formatter):
    def parse(self, text):
        return [("", "0.__globals__[SECRET]", "", None)] if text else []
print(F().vformat("{}", (ask,), {}))
---
import string
print(string.Formatter()._vformat("{0.__globals__[SECRET]}", (ask,), {}, set(), 2))
---
import collections
print(collections.UserString("{0.__globals__[SECRET]}").format(ask))
---
import collections
print(collections.UserString("{f.__globals__[SECRET]}").format_map({"f": ask}))
---
import collections
class U(collections.UserString):
    pass
print(U("{0.__globals__[SECRET]}").format(ask))
---
import string
class T(string.Template):
    pass
loot(T.substitute.__globals__)
---
import string
loot(string.Formatter.format.__globals__)

=== protocols
class With:
    def __enter__(self):
        pass
    def __exit__(self, *args):
        match args[2]:
            case object(tb_frame=object(f_globals=g)):
                loot(g)
        return True
with With():
    1 / 0
---
class With:
    async def __aenter__(self):
        pass
    async def __aexit__(self, kind, error, tb):
        loot(tb.tb_frame)
        return True
async def main():
    async with With():
        1 / 0
import asyncio
asyncio.run(main())
---
class A:
    def __del__(self):
        open("$MARKER", "w")
a = A()
del a
---
class A:
    def __fspath__(self):
        return "$MARKER"
open(A(), "w")
---
class D:
    def __set_name__(self, owner, name):
        owner.__match_args__ = ("format",)
class S(str):
    d = D()
match S("{0.__globals__[SECRET]}"):
    case S(f):
        print(f(ask))
--- 3.13
import typing
@typing.runtime_checkable
class P(typing.Protocol):
    __match_args__ = ("format",)
    def zfill(self):
        pass
match "{0.__globals__[SECRET]}":
    case P(f):
        print(f(ask))
---
class A:
    def __class_getitem__(cls, x):
        return x.__globals__
print(A[ask]["SECRET"])
---
import typing
@typing.runtime_checkable
class P(typing.Protocol):
    @classmethod
    def __subclasshook__(cls, other):
        return True
    __match_args__ = ("__defaults__",)
match ask:
    case P(x):
        print(x)
---
class Meta:
    def __init__(self, name, bases, names):
        loot(names["f"])
class A(Meta("", (), {"f": 0})):
    f = ask
---
class P:
    def write(self, text):
        loot(self.write.__func__.__globals__)
print("x", file=P())
---
class A:
    def __index__(self):
        return loot(ask.__globals__) or 0
[0][A()]
---
class A:
    @property
    def __class__(self):
        return type(ask)
loot(A().__class__.__call__(ask, "x") and ask.__globals__)
---
class A:
    def __instancecheck__(self, other):
        return True
    __match_args__ = ("x",)
isinstance(ask, A()) and loot(ask.__globals__)
---
def generate():
    try:
        yield
    except Exception as e:
        loot(e.__traceback__.tb_frame)
g = generate()
next(g)
try:
    g.throw(ValueError())
except StopIteration:
    pass

=== the worker's pipe
for fd in range(3, 40):
    try:
        open(fd, "wb", closefd=False, buffering=0).write(b"owned")
    except OSError:
        pass
---
import io
for fd in range(3, 40):
    try:
        io.FileIO(fd, "w", closefd=False).write(b"owned")
    except OSError:
        pass
---
import os
for fd in range(3, 40):
    try:
        os.write(fd, b"owned")
    except OSError:
        pass
---
import io
for fd in range(3, 40):
    try:
        io.open(fd, "wb", closefd=False, buffering=0).write(b"owned")
    except OSError:
        pass
---
import _io
for fd in range(3, 40):
    try:
        _io.FileIO(fd, "w", closefd=False).write(b"owned")
    except OSError:
        pass
---
import posix
for fd in range(3, 40):
    try:
        posix.write(fd, b"owned")
    except OSError:
        pass
---
import ctypes
for fd in range(3, 40):
    ctypes.CDLL(None).write(fd, b"owned", 5)
---
import os
print(os.environ)
---
print(open("/proc/self/environ").read())
---
print(open("$CANARY").read())

=== ending the process
import os
os._exit(3)
---
import os, signal
os.kill(os.getpid(), signal.SIGKILL)
---
import ctypes
ctypes.string_at(0)
---
import signal
signal.raise_signal(signal.SIGKILL)
---
import faulthandler
faulthandler._sigsegv()
---
import posix
posix.abort()
---
(lambda: 0).__class__((lambda: 0).__code__.replace(co_code=b"d\xff", co_stacksize=0), {})()
---
class S(str):
    def __format__(self, spec): raise KeyboardInterrupt
class E2(Exception): pass
E2.__name__ = S("x")
class T(str):
    def rstrip(self, *a): raise E2
    strip = splitlines = lstrip = rstrip
raise SyntaxError("x", ("f", 1, 1, T("x")))

=== library code on foreign objects
import array, struct
N = 1 << 24
fake = struct.pack("<QQQQQQQ", 1 << 20, id(bytearray), 1 << 62, 1 << 62, 0, 0, 0)
a = array.array("Q", [0]) * N
class I:
    def __index__(self):
        global L
        del a[2:]
        L = [None] * (N // 2)
        return id(fake) + 32
a[N - 2000] = I()
mem = [x for x in L if x is not None][0]
word = lambda addr: int.from_bytes(mem[addr : addr + 8], "little")
keys = word(word(id(ask) + 16) + 32)
at = keys + 32 + (1 << mem[keys + 9])
step, skip = (24, 8) if mem[keys + 10] == 0 else (16, 0)
for i in range(word(keys + 24)):
    key, value = word(at + i * step + skip), word(at + i * step + skip + 8)
    if key and value and mem[key + 32 : key + 60].find(b"SECRET") >= 0:
        print(mem[value + 32 : value + 32 + word(value + 16) + 24])
mem[id(ask) + 16 : id(ask) + 16] = b""
---
import contextlib
class Z: pass
z = Z(); z._stream = "modules"; z._old_targets = []; z._new_target = {}
contextlib.redirect_stdout.__enter__(z)
z._old_targets[0]["os"].system("touch $MARKER")
---
import json
json.JSONEncoder.__init__(json.JSONEncoder, separators=("owned", "owned"))
---
import json
json.JSONEncoder.__init__(json, default=print)
---
import types, typing, json
H0 = type(typing.List[int])
def entries(bases):
    return (H0,) if len(bases) > 1 else (object,)
class O: pass
class H(types.SimpleNamespace(**{"__mro_entries__": entries}), O, _root=True): pass
H(ask, (int,)).owned = 1
---
import enum
class E(enum.Enum):
    def __new__(cls, value): return ask
    A = 1
---
import enum, json
class E(enum.Enum):
    def __new__(cls, value): return json
    A = 1
---
class L(list):
    def __new__(cls): return ask
L[int]()
---
import typing, json
class L(typing.Generic[typing.TypeVar("T")]):
    def __new__(cls): return json
L[int]()
---
import collections, copy, json
class U(collections.UserDict):
    def __new__(cls, *a): return json if N else object.__new__(cls)
N = 0
u = U()
u.dumps = lambda *a: "owned"
N = 1
copy.copy(u)
---
import fractions
class O:
    def __new__(cls, *a): return ask
class F(fractions.Fraction, O): pass
F(1, 2)
---
import contextlib
class Z:
    def __new__(cls): return ask if N else object.__new__(cls)
N = 0
z = Z(); z._exit_callbacks = 1
N = 1
contextlib.ExitStack.pop_all(z)
---
import concurrent.futures
concurrent.futures.ThreadPoolExecutor.owned = 1
---
import typing
typing.TypedDict.owned = 1
---
class E2(Exception):
    def __str__(self):
        while True: pass
class T(str):
    def rstrip(self, *a): raise E2
    strip = splitlines = lstrip = rstrip
raise SyntaxError("x", ("f", 1, 1, T("x")))
---
import collections, contextlib, io
class U:
    def __new__(cls, *a): return r if N else object.__new__(cls)
N = 0
u = U()
u._stream, u._old_targets, u._new_target, u.data = "modules", (T := []), {}, {}
N = 1
r = contextlib.redirect_stdout(io.StringIO())
collections.UserDict.__copy__(u)
with r: m = T[0]
m["os"].system("touch $MARKER")
---
import copy, contextlib, io
class Z: pass
z = Z(); z._stream, z._old_targets, z._new_target = "modules", [], {}
enter = contextlib.redirect_stdout(io.StringIO()).__enter__
class Memo(dict):
    n = 0
    def get(self, key, default=None):
        self.n += 1
        return z if self.n > 1 else default
copy.deepcopy(enter, Memo())()
z._old_targets[0]["os"].system("touch $MARKER")
---
import dataclasses
class D:
    __get__ = lambda self, obj, cls=None: self
    __call__ = lambda self, *a: None
d = D()
vars(d)["__text_signature__"] = "(s, a=test_escapes.SECRET)"
@dataclasses.dataclass(init=False)
class A:
    __init__ = d
print(A.__doc__)
---
import dataclasses
class Any:
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 1
class F:
    init, kw_only, default, hash, compare, repr = False, False, dataclasses.MISSING, None, False, False
    type = int
    default_factory = list
    @property
    def name(self):
        F.n += 1
        return names(F.n)
def names(i):
    return "a" if i != BAD else CODE
class C:
    def __call__(self): pass
for CODE in ["a=1;__import__('os').system('touch $MARKER');b", "a=1\n  __import__('os').system('touch $MARKER')\n  b", "a:1=__import__('os').system('touch $MARKER'),b"]:
  for BAD in range(1, 12):
    F.n = 0
    f = F(); f._field_type = Any()
    b = C(); vars(b)["__dataclass_fields__"] = {"a": f}
    p = C(); p.frozen = False
    vars(b)["__dataclass_params__"] = p
    c = C()
    vars(c).update({"__mro__": [0, b], "__module__": "os", "__qualname__": "x", "__name__": "x"})
    try:
        dataclasses.dataclass(repr=False, eq=False)(c)
        vars(c)["__init__"](c)
    except Exception as e: print(BAD, repr(e))
---
import dataclasses
class A:
    x: int = 1
vars(A)["__annotations__"]["__class__ and __import__('os').system('touch $MARKER') and self.__class__"] = int
A = dataclasses.dataclass(init=False, repr=False)(A)
A() == A()
---
import dataclasses
class Any:
    __eq__ = lambda self, other: True
    __hash__ = lambda self: 1
class F:
    init, kw_only, default, hash, compare, repr = False, False, dataclasses.MISSING, None, False, False
    type = int
    default_factory = list
    @property
    def name(self):
        F.n += 1
        return "a" if F.n != BAD else "a=1;__import__('os').system('touch $MARKER');b"
@dataclasses.dataclass
class D:
    x: int
f = F(); f._field_type = Any()
vars(D)["__dataclass_fields__"]["x"] = f
for BAD in range(1, 12):
    F.n = 0
    class B(D): pass
    try: dataclasses.dataclass(repr=False, eq=False)(B)()
    except Exception as e: print(BAD, repr(e))
---
import dataclasses, typing
bad = "__class__ and __import__('os').system('touch $MARKER') and self.__class__"
class It:
    n = 0
    def __iter__(self):
        It.n += 1
        return iter([("x" if It.n == k else bad, int)])
for k in range(1, 4):
    It.n = 0
    try:
        N = typing.NamedTuple("N", It())
        N = dataclasses.dataclass(init=False, repr=False)(N)
        N.__eq__(N(1), N(1))
    except Exception as e: print(k, repr(e))
---
import dataclasses
class F:
    __slots__ = ("__getattribute__",)
    def __setattr__(self, name, value): S[name] = value
    def __getattr__(self, name):
        global n
        if name == "__class__": return dataclasses.Field
        if name == "name":
            n += 1
            return "x" if n < BAD else "__class__ and __import__('os').system('touch $MARKER') and self.__class__"
        if name in S: return S[name]
        raise AttributeError(name)
for BAD in range(1, 20):
    n = 0
    S = dict(init=True, kw_only=False, default=1, hash=None, compare=True, repr=False, default_factory=dataclasses.MISSING)
    try:
        class A: x: int = F()
        A = dataclasses.dataclass(init=False, repr=False)(A)
        A() == A()
    except Exception as e: print(BAD, repr(e))
---
import typing
typing.Generic.__init_subclass__()
---
import dataclasses
class Spy:
    def __eq__(self, other): other["owned"] = 1
dataclasses.field().metadata == Spy()
%%
import dataclasses
if dataclasses.field().metadata: open("$MARKER", "w")
---
import html.parser, json
html.parser.HTMLParser.reset(json)
---
import json, enum
enum.auto.__init__(json, 1)
---
import collections.abc, json
collections.abc.MappingView.__init__(json, 1)
---
import contextlib, json
class Z:
    _exit_callbacks = 1
    def __new__(cls, *a): return json
contextlib.ExitStack.pop_all(object.__new__(Z))
---
import enum, json, contextlib
class E(enum.Enum):
    def __new__(cls, *value): return json.JSONEncoder
    A = (json.JSONEncoder,)
---
import enum, pprint, contextlib
class E(enum.Enum):
    def __new__(cls, *value): return pprint.PrettyPrinter
    A = (contextlib.redirect_stdout, 1, 80, None, "modules")
"""


def parse(table: str) -> dict[str, list[str]]:
    r"""The attacks that this Python can compile, by name: "=== a\nx\n%%\ny" -> {"a 1": ["x", "y"]}."""
    found = {}
    for part in table.split("\n=== ")[1:]:
        technique, _, codes = part.partition("\n")
        for number, code in enumerate(f"---\n{codes}".split("\n---"), start=1):
            version, _, code = code.removeprefix("---").partition("\n")
            if not version.strip() or sys.version_info >= tuple(map(int, version.split("."))):
                found[f"{technique} {number}"] = code.strip("\n").split("\n%%\n")
    return found


ATTACKS = parse(TABLE)
AFTER = """
import json, re
print(json.dumps({"a": [1, 2]}), re.sub("a", "b", "a"), ask("x"), client_ask("y"), context[0], len("abc"))
"""

# ------------------------------------------------------------------------------------ the host under attack

SECRET = os.environ.get("CANARY_SECRET", "")  # set for the helper processes only


def make_ask(secret):
    def ask(prompt, key=SECRET):
        return f"asked {prompt}{secret[:0]}"

    return ask


class Client:
    """A host's object with a key, whose method is a tool."""

    def __init__(self):
        self.key = SECRET

    def ask(self, prompt):
        return f"client asked {prompt}"


ask, client = make_ask(SECRET), Client()
VARIABLES = {"context": ["alpha", "beta"]}
TOOLS = {"ask": ask, "client_ask": client.ask}
MODULES = [
    importlib.import_module(name)
    for name in [
        "builtins",
        "sys",
        "abc",
        "ast",
        "base64",
        "bisect",
        "calendar",
        "collections",
        "collections.abc",
        "concurrent.futures",
        "contextlib",
        "copy",
        "csv",
        "dataclasses",
        "datetime",
        "decimal",
        "difflib",
        "enum",
        "fractions",
        "functools",
        "heapq",
        "html",
        "io",
        "itertools",
        "json",
        "math",
        "numbers",
        "operator",
        "pprint",
        "random",
        "re",
        "statistics",
        "string",
        "textwrap",
        "time",
        "types",
        "typing",
        "unicodedata",
        "urllib.parse",
    ]
]
CLASSES = {c for module in MODULES for c in vars(module).values() if isinstance(c, type)} | {Client}
CHANGING = {
    "__warningregistry__",
    "__annotations__",
    "__slotnames__",
    "last_exc",
    "last_value",
    "last_type",
}  # by themselves


def state() -> dict:
    """What a cell must not change, as {where: what stands there}: the tools, the library's modules, classes and functions."""
    found = {"dialects": csv.list_dialects(), "reducers": len(copyreg.dispatch_table)}
    found["decimal"] = decimal.DefaultContext.prec
    functions = [ask, Client.ask]
    for thing in [*MODULES, *CLASSES, client]:
        names = dict(vars(thing))
        for name in CHANGING & names.keys():
            del names[name]
        found[id(thing)] = {name: id(value) for name, value in names.items()}
        for name, value in names.items():
            if type(value) is property:
                found[id(thing), name] = value.fget, value.fset
            elif type(value) is types.FunctionType:
                functions.append(value)
            elif type(value) is dict and type(thing) is not types.ModuleType:
                found[id(thing), name] = {key: id(item) for key, item in value.items()}
        if isinstance(thing, abc.ABCMeta):
            found[id(thing), "registered"] = len(abc._get_dump(thing)[0])
    for f in functions:
        found[id(f)] = (
            f.__code__,
            f.__defaults__,
            f.__name__,
            vars(f).copy(),
            len(f.__annotations__),
        )
    return found


# ---------------------------------------------------------------------- three ways to run an attack: helpers


def exec_runner():
    """Plain `exec`, as a function cells -> text: the control."""
    main = sys.modules["__main__"] = types.ModuleType("__main__")
    vars(main).update(VARIABLES | TOOLS, FINAL=print)
    out = sys.stdout = io.StringIO()

    def run(cells):
        secret = SECRET  # for those who climb up to this frame  # noqa: F841
        start = len(out.getvalue())
        for cell in cells:
            try:
                exec(compile(cell, "<cell>", "exec"), vars(main))  # noqa: S102
            except BaseException:  # noqa: BLE001
                io.StringIO.write(out, traceback.format_exc(limit=0))
        return out.getvalue()[start:]

    return run


def interpreter_runner():
    """The language wall alone, in a process that could still do everything."""
    import _strptime  # noqa: F401  # an attack looks there; strptime() would load it

    import sandbox

    sandbox.harden()
    interpreter = sandbox.Interpreter(VARIABLES, TOOLS, 10**7)

    def run(cells):
        secret = SECRET  # noqa: F841
        return "".join(map(str, map(interpreter.run, cells)))

    run(["1 + 1", "def f(): pass\nf()"])
    return run


def forked(run, folder: Path, cells: list[str]) -> tuple[str, list[str]]:
    """Run cells in a fork of this process; return what came out, and the effects seen from inside."""
    report = folder / "report"
    report.unlink(missing_ok=True)
    if not (pid := os.fork()):
        keep_open, dumps, result = open, marshal.dumps, ("", ["the report is missing"])
        faulthandler.dump_traceback_later(10, exit=True, file=keep_open(os.devnull, "w"))
        try:
            text = run(cells)
            after = run([AFTER])
            result = (
                text,
                ["an object of the host is changed"] if state() != forked.state else [],
                after,
            )
        finally:
            with keep_open(report, "wb") as file:
                file.write(dumps(result))
            os._exit(0)
    _, status = os.waitpid(pid, 0)
    if status or not report.exists():
        return "", [f"the process ended: {status}"]
    text, effects, *after = marshal.loads(report.read_bytes())
    if after and after[0] != forked.after:
        effects.append(f"the next cell is changed: {after[0]}")
    return text, effects


def in_sandbox(folder: Path, cells: list[str]) -> tuple[str, list[str]]:
    """Run cells behind both walls; return what came out, and the effects seen from outside."""
    import sandbox

    effects, text = [], ""
    with sandbox.Sandbox(VARIABLES, TOOLS, cell_seconds=3, output_chars=10**6) as repl:
        repl.run("1")
        pid = repl.pid
        try:
            text = "".join(str(repl.run(cell)) for cell in cells)
            after = str(repl.run(AFTER))
        except sandbox.SandboxError as error:
            return text, [f"wrote on the worker's pipe: {error}"]
        if repl.pid != pid:
            effects.append("the worker ended")
    if after != in_sandbox.after:
        effects.append(f"the next cell is changed: {after}")
    return text, effects


def helper(mode: str, folder: Path, attacks: dict[str, list[str]]) -> dict[str, dict]:
    """Run every attack one way, in this process or forks of it: {name: {"effects": [...], "text": ...}}."""
    marker, canary, found = folder / "marker", folder / "canary", {}
    canary.write_text(SECRET)
    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    pipe, inherited = os.pipe()
    os.set_blocking(pipe, False)
    if mode == "sandbox":
        run = in_sandbox
    else:
        runner = exec_runner() if mode == "exec" else interpreter_runner()
        run = lambda folder, cells: forked(runner, folder, cells)
    values = {"$MARKER": marker, "$CANARY": canary, "$PORT": listener.getsockname()[1]}

    def fill(code):
        for name, value in values.items():
            code = code.replace(name, str(value))
        return code

    # what the next cell says when nothing is wrong, with and without a first one before it
    if mode == "sandbox":
        import sandbox

        untouched = state()
        with sandbox.Sandbox(VARIABLES, TOOLS, output_chars=10**6) as repl:
            in_sandbox.after = str(repl.run(AFTER))
    else:
        forked.after, forked.state = runner([AFTER]), state()
    for name, cells in attacks.items():
        text, effects = run(folder, [fill(PRELUDE), *map(fill, cells)])
        if marker.exists():
            effects.append("the marker was written")
            marker.unlink()
        if SECRET in text:
            effects.append("the secret came out")
        with contextlib.suppress(BlockingIOError):
            while listener.accept():
                effects.append("connected")
        with contextlib.suppress(BlockingIOError):
            if os.read(pipe, 1 << 16):
                effects.append("wrote to an open file descriptor")
        found[name] = {"effects": effects, "text": text.replace(SECRET, "SECRET")[-2000:]}
    if mode == "sandbox":
        found["the host"] = {
            "effects": ["an object is changed"] * (state() != untouched),
            "text": "",
        }
    os.close(inherited)
    return found


# ------------------------------------------------------------------------ native Python behind the process wall


NATIVE_TABLE = r"""
=== open to read
won(open(CANARY).read())
=== open to write
open(MARKER, "w")
=== os.open
os.open(MARKER, os.O_CREAT | os.O_WRONLY)
=== list a folder
won(os.listdir(FOLDER))
=== stat
won(os.stat(CANARY).st_size)
=== statvfs
won(os.statvfs(FOLDER))
=== readlink
won(os.readlink("/proc/self/exe"))
=== access
won(os.access(CANARY, os.R_OK) or fail)
=== unlink
os.unlink(CANARY)
=== rename
os.rename(CANARY, MARKER)
=== mkdir
os.mkdir(MARKER)
=== rmdir
os.rmdir(EMPTY)
=== symlink
os.symlink("x", MARKER)
=== link
os.link(CANARY, MARKER)
=== mkfifo
os.mkfifo(MARKER)
=== chmod
os.chmod(CANARY, 0o777)
=== truncate
os.truncate(CANARY, 0)
=== utime
os.utime(CANARY, (0, 0))
=== chown ?
os.chown(CANARY, 1, 1)
=== setxattr ?
os.setxattr(CANARY, "user.x", b"owned")
won("set")
=== chdir
os.chdir("/")
won("moved")
=== chroot ?
os.chroot(FOLDER)
won("moved")
=== import from a file
import wave
won(wave)
=== dlopen
won(ctypes.CDLL(LIBRARY))
=== connect
socket.create_connection(("127.0.0.1", PORT))
=== connect in C
s = libc.socket(2, 1, 0)
libc.connect(s, struct.pack("=HHIQ", 2, socket.htons(PORT), socket.htonl(0x7F000001), 0), 16)
=== bind
socket.create_server(("127.0.0.1", 0))
won("bound")
=== socketpair
won(socket.socketpair())
=== pipe
won(os.pipe())
=== dup
won(os.dup(REPORT))
=== dup by fcntl
won(fcntl.fcntl(REPORT, fcntl.F_DUPFD, 0))
=== memfd ?
won(os.memfd_create("x"))
=== epoll
won(select.epoll())
=== inotify
won(libc.inotify_init() >= 0 or fail)
=== fork
os.fork() or won("forked")
=== fork in C
libc.fork() or won("forked")
=== thread
thread = threading.Thread(target=won, args=("threaded",))
thread.start()
thread.join()
=== process pool
process = multiprocessing.get_context("fork").Process(target=won, args=("forked",))
process.start()
process.join()
=== system
os.system(f"touch {MARKER}")
=== system in C
libc.system(f"touch {MARKER}".encode())
=== subprocess
subprocess.run(["touch", MARKER])
=== execv
os.execv("/bin/sh", ["sh", "-c", f"touch {MARKER}"])
=== posix_spawn
os.waitpid(os.posix_spawnp("touch", ["touch", MARKER], {"PATH": "/usr/bin:/bin"}), 0)
=== kill another process
os.kill(VICTIM, 9)
=== may signal the parent
os.kill(os.getppid(), 0)
won("may")
=== kill in C
libc.kill(VICTIM, 15)
=== pidfd
libc.syscall(424, libc.syscall(434, VICTIM, 0), 9, None, 0)
=== stop another process
os.kill(VICTIM, signal.SIGSTOP)
won("stopped")
=== ptrace ?
won(libc.ptrace(16, VICTIM, 0, 0) == 0 or fail)
=== read another's memory ?
here = ctypes.create_string_buffer(8)
local = (ctypes.c_void_p * 2)(ctypes.addressof(here), 8)
remote = (ctypes.c_void_p * 2)(ctypes.addressof(libc_word), 8)
won(libc.process_vm_readv(VICTIM, local, 1, remote, 1, 0) == 8 or fail)
=== shared memory
shm = libc.shmget(0, 4096, 0o1600)
won(shm >= 0 or fail)
libc.shmctl(shm, 0, None)
=== message queue
queue = libc.msgget(0, 0o1600)
won(queue >= 0 or fail)
libc.msgctl(queue, 0, None)
=== semaphore
semaphore = libc.semget(0, 1, 0o1600)
won(semaphore >= 0 or fail)
libc.semctl(semaphore, 0, 0)
=== nice
won(os.nice(1))
=== priority of another
os.setpriority(os.PRIO_PROCESS, VICTIM, 5)
won("set")
=== affinity of another
os.sched_setaffinity(VICTIM, {0})
won("set")
=== limits of another
resource.prlimit(VICTIM, resource.RLIMIT_NOFILE, (5, 5))
won("set")
=== own limits
resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
won("set")
=== new session
os.setsid()
won("left")
=== new user ?
os.setuid(65534)
won("changed")
=== new namespace of users ?
won(libc.unshare(0x10000000) == 0 or fail)
=== new namespace of mounts ?
won(libc.unshare(0x20000) == 0 or fail)
=== io_uring ?
won(libc.syscall(425, 1, bytes(120)) >= 0 or fail)
=== keys ?
won(libc.syscall(248 if platform.machine() == "x86_64" else 217, b"user", b"x", b"y", 1, -3) >= 0 or fail)
=== performance counters ?
won(libc.syscall(298 if platform.machine() == "x86_64" else 241, bytes([1, 0, 0, 0, 112]) + bytes(107), 0, -1, -1, 0) >= 0 or fail)
=== system calls of 32 bits: mkdir ?
machine_code(39, MARKER.encode(), 0o700)
=== system calls of 32 bits: kill ?
machine_code(37, VICTIM, 9)
=== system calls of 32 bits: unlink ?
machine_code(10, CANARY.encode(), 0)
=== system calls of the x32 kind ?
libc.syscall(0x40000000 + 83, MARKER.encode(), 0o700)
=== users of the machine
import pwd
won(len(pwd.getpwall()) or fail)
=== fill the memory
blocks = [bytearray(1 << 26) for _ in range(6)]
won("filled")
"""
NATIVE_USES = fcntl, multiprocessing, resource, select, threading  # loaded before doors are locked
NATIVE = {
    part.partition("\n")[0]: part.partition("\n")[2] for part in NATIVE_TABLE.split("\n=== ")[1:]
}


def machine_code(number: int, first: bytes | int, second: int) -> None:
    """Make one system call by the 32-bit entry of x86-64, whose numbers mean other calls than those of 64 bits."""
    if platform.machine() != "x86_64":
        return
    libc = ctypes.CDLL(None)
    libc.mmap.restype = ctypes.c_void_p
    page = libc.mmap(
        None, 4096, 7, 0x62, -1, 0
    )  # to read, write and run; private, anonymous, below 2 GiB
    if isinstance(first, bytes):
        ctypes.memmove(page + 1024, first + b"\0", len(first) + 1)
        first = page + 1024
    steps = (
        b"\x53\xb8" + struct.pack("I", number) + b"\xbb" + struct.pack("I", first)
    )  # push rbx; mov eax, ..; mov ebx, ..
    steps += (
        b"\xb9" + struct.pack("I", second) + b"\xcd\x80\x5b\xc3"
    )  # mov ecx, ..; int 0x80; pop rbx; ret
    ctypes.memmove(page, steps, len(steps))
    ctypes.CFUNCTYPE(ctypes.c_int)(page)()


def native(folder: Path, attacks: dict[str, str]) -> dict:
    """Run raw Python in forks of this process, free and behind lock_down: {"free": {name: effects}, "locked": ..., "walls": ...}."""
    import sandbox

    listener = socket.create_server(("127.0.0.1", 0), backlog=64)
    listener.setblocking(False)
    marker, canary, empty = folder / "marker", folder / "canary", folder / "empty"
    library = shutil.copy(sys.modules["_ctypes"].__file__, folder / "library.so")
    walls, report = os.pipe()
    if not os.fork():
        os.write(report, " ".join(sandbox.lock_down(256)).encode())
        os._exit(0)
    os.wait()
    found = {"walls": os.read(walls, 1000).decode().split()}
    for mode in ("free", "locked"):
        found[mode] = {}
        for name, code in attacks.items():
            for path in (marker, canary, empty):  # undo what the last one did
                if path.is_dir() and not path.is_symlink():
                    path.rmdir()
                else:
                    path.unlink(missing_ok=True)
            canary.write_text(SECRET)
            empty.mkdir()
            was = canary.stat()
            if not (victim := os.fork()):
                signal.pause()
            answer, report = os.pipe()
            names = {
                "VICTIM": victim,
                "REPORT": report,
                "PORT": listener.getsockname()[1],
                "LIBRARY": library,
            }
            names |= {
                "FOLDER": str(folder),
                "MARKER": str(marker),
                "CANARY": str(canary),
                "EMPTY": str(empty),
            }
            if not (child := os.fork()):
                run_native(code, mode == "locked", names)
            os.close(report)
            os.waitpid(child, 0)
            with open(answer, "rb") as file:
                effects = [f"said {line}" for line in file.read().decode().splitlines()]
            effects += ["the marker exists"] * os.path.lexists(marker)
            if not canary.exists() or canary.read_text() != SECRET:
                effects.append("the canary is changed")
            elif (now := canary.stat()) and (now.st_mode, now.st_mtime, now.st_uid) != (
                was.st_mode,
                was.st_mtime,
                was.st_uid,
            ):
                effects.append("the canary has other attributes")
            effects += ["the folder is gone"] * (not empty.exists())
            with contextlib.suppress(BlockingIOError):
                while listener.accept():
                    effects.append("connected")
            with contextlib.suppress(ProcessLookupError):  # after what else may be under way
                os.kill(victim, signal.SIGRTMAX)
                os.kill(victim, signal.SIGCONT)
            if os.WTERMSIG(os.waitpid(victim, 0)[1]) != signal.SIGRTMAX:
                effects.append("the victim is dead")
            found[mode][name] = effects
    return found


def run_native(code: str, locked: bool, names: dict) -> None:
    """Be the child that runs raw Python; what it wins it says on its report, a pipe."""
    import sandbox

    faulthandler.dump_traceback_later(5, exit=True, file=open(os.devnull, "w"))  # noqa: SIM115
    libc = ctypes.CDLL(None)
    names |= {
        "libc": libc,
        "libc_word": ctypes.c_long(1),
        "won": lambda what: os.write(names["REPORT"], f"{what!r}\n".encode()),
    }
    try:
        if locked:
            sandbox.lock_down(256)
        exec(code, globals() | names)  # noqa: S102
    finally:
        os._exit(0)


# ------------------------------------------------------------------------------------------------ run them all


def run_helper(call: str, folder: Path, **environment: str) -> dict:
    """What `call`, an expression about this module, returns in a process of its own."""
    code = f"import sys, json; sys.path[:0] = {[str(TESTS), str(TESTS.parent)]}; import test_escapes as t; from pathlib import "
    code += (
        f"Path; result = {call}; open({str(folder / 'result')!r}, 'w').write(json.dumps(result))"
    )
    secret = {"CANARY_SECRET": f"canary_{secrets.token_hex(8)}"}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        env=os.environ | secret | environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert not done.returncode, done.stderr
    return json.loads((folder / "result").read_text())


@pytest.fixture(scope="module")
def results(tmp_path_factory) -> dict[str, dict]:
    """What all the attacks did in all the ways to run them: {"exec" | "language" | ...: {name: {"effects": ..., "text": ...}}}."""
    calls = {"native": "t.native(Path({!r}), t.NATIVE)"} if sys.platform == "linux" else {}
    calls |= {
        mode: f"t.helper({mode!r}, Path({{!r}}), t.ATTACKS)"
        for mode in ("exec", "language", "sandbox")
    }
    folders = [tmp_path_factory.mktemp(mode) for mode in calls]
    calls = {mode: call.format(str(folder)) for (mode, call), folder in zip(calls.items(), folders)}
    with ThreadPoolExecutor(len(calls)) as pool:
        return dict(zip(calls, pool.map(run_helper, calls.values(), folders)))


# ---------------------------------------------------------------------------------------------------- tests


def test_table_is_as_large_as_it_says():
    techniques = Counter(name.rpartition(" ")[0] for name in ATTACKS)
    assert len(ATTACKS) >= 180 and len(NATIVE) >= 25
    assert {technique for technique, attacks in techniques.items() if attacks < 5} == set()


@pytest.mark.parametrize("name", ATTACKS)
def test_control_the_attack_works_under_exec(results, name):
    assert results["exec"][name]["effects"], results["exec"][name]["text"]


@pytest.mark.parametrize("name", ATTACKS)
def test_language_wall_alone(results, name):
    assert not results["language"][name]["effects"], "\n".join(
        [*ATTACKS[name], str(results["language"][name])]
    )


@pytest.mark.parametrize("name", [*ATTACKS, "the host"])
def test_both_walls(results, name):
    assert not results["sandbox"][name]["effects"], "\n".join(
        [*ATTACKS.get(name, []), str(results["sandbox"][name])]
    )


@linux_only
@pytest.mark.parametrize("name", NATIVE)
def test_process_wall_alone(results, name):
    found = results["native"]
    assert "rlimits" in found["walls"]
    if "seccomp" not in found["walls"]:
        pytest.skip("seccomp does not hold here")
    if name.endswith("?") and not found["free"][name]:
        pytest.skip("this machine does not let anybody do it")
    assert found["free"][name], "the control had no effect"
    assert not found["locked"][name]
