"""Cells in the manner of the REPL code that language models write, each with what it must print.

A cell's output is judged twice: against the text in the table, and, since the table was not handed down from heaven, the table
against plain Python, wherever the cell can run there too (a title that ends in " !" can not).

Not here: what cells must not do (test_escapes.py), and limits (test_sandbox.py).
"""

import ast
import asyncio
import contextlib
import inspect
import io
import json
import linecache
import traceback

import pytest

from sandbox import Sandbox

DOCS = [
    "Ann Lee won the Rose pageant in 1998. The winner, Ann Lee, lives in Oslo.",
    "The Lily pageant of 1998 was won by Mary Poe; Ann Lee was second.",
    "In 1999 the judges of the pageant chose nobody. Joe Day was there.",
    "Mary Poe opened the bridge on the river.",
]
RECORDS = [
    {"city": "Oslo", "amount": 10},
    {"city": "Rome", "amount": 7.5},
    {"city": "Oslo", "amount": 31},
]
VARIABLES = {"context": "\n".join(DOCS), "docs": DOCS, "records": RECORDS}
TOOLS = {
    "llm_query": lambda prompt, context=None: f"answer to {prompt[:16]!r}",
    "llm_query_batched": lambda prompts, contexts=None: [f"<{prompt[-8:]}>" for prompt in prompts],
}

# === group, --- title, the cell, >>> and its output; last "error: ..." or "final: ..." if it ends so

TABLE = r'''
=== statements and operators
--- augmented assignment to items
counts = {}
for ch in "banana":
    counts[ch] = counts.get(ch, 0)
    counts[ch] += 1
print(counts)
>>>
{'b': 1, 'a': 3, 'n': 2}
--- augmented assignment to slices and nested items
grid = [[0] * 3 for _ in range(2)]
grid[1][2] += 5
grid[0][1:] += [7, 8]
data = {"a": {"n": 1}}
data["a"]["n"] *= 10
data["a"]["n"] //= 3
print(grid, data)
>>>
[[0, 0, 0, 7, 8], [0, 0, 5]] {'a': {'n': 3}}
--- augmented assignment to attributes
class Counter2:
    total = 0
c = Counter2()
c.total += 5
c.total -= 1
c.total **= 2
Counter2.total |= 6
print(c.total, Counter2.total)
>>>
16 6
--- every augmented operator
x = 7
x += 3; x -= 1; x *= 4; x //= 2; x %= 11; x **= 2; x <<= 2; x >>= 1; x |= 1; x ^= 5; x &= 0xFF
x /= 2
print(x)
>>>
51.0
--- annotations of variables
total: int = 0
names: list[str] = ["a"]
later: dict[str, "int"]
total += len(names)
print(total, names)
>>>
1 ['a']
--- walrus
if (n := len("hello")) > 3:
    print(n)
print([y for x in range(6) if (y := x * x) % 2])
while (n := n - 1) > 2:
    print("n", n)
>>>
5
[1, 9, 25]
n 4
n 3
--- chained comparison and conditional expressions
x = 5
print(1 < x <= 5 != 6, "big" if x > 3 else "small", not x, x is None)
>>>
True big False False
--- star targets and unpacking
first, *middle, last = range(6)
(a, b), c = (1, 2), 3
[d, *e] = "xyz"
a, b = b, a
print(first, middle, last, a, b, c, d, e)
>>>
0 [1, 2, 3, 4] 5 2 1 3 x ['y', 'z']
--- star arguments in calls and displays
def f(a, /, b, *args, c=0, **kwargs):
    return a, b, args, c, sorted(kwargs.items())
print(f(1, *[2, 3], *(4,), c=5, **{"x": 1}, **{"y": 2}))
print([*range(3), *"ab"], {**{"a": 1}, "b": 2}, {*[1], *[2]})
>>>
(1, 2, (3, 4), 5, [('x', 1), ('y', 2)])
[0, 1, 2, 'a', 'b'] {'a': 1, 'b': 2} {1, 2}
--- slices of every kind
s = list(range(10))
s[2:5] = [20]
del s[0]
print(s, s[::-1][:3], s[-2:], s[::3], "hello"[1:-1], s[slice(1, 3)])
>>>
[1, 20, 5, 6, 7, 8, 9] [9, 8, 7] [8, 9] [1, 6, 9] ell [20, 5]
--- del of names, items and attributes
class Box: pass
b = Box()
b.x, b.y = 1, 2
del b.x
items = {"a": 1, "b": 2}
del items["a"]
z = 1
del z
print(vars(b), items, "z" in globals())
>>>
{'y': 2} {'b': 2} False
--- assert with a message
assert 1 + 1 == 2, "arithmetic"
assert [] == [1], f"expected {[1]}"
>>>
error: AssertionError: expected [1]
--- while and for with else
for i in range(3):
    if i == 5:
        break
else:
    print("no break")
k = 0
while k < 3:
    k += 1
    if k == 2:
        continue
else:
    print("done", k)
>>>
no break
done 3
--- the name underscore, and names that begin with one
_, value = (1, 2)
_helper = lambda q: q * 2
__double = 3
for _ in range(2):
    pass
print(_, _helper(value), __double)
>>>
1 4 3
--- try, except, else, finally
def attempt(v):
    try:
        return 10 / v
    except ZeroDivisionError as error:
        return f"failed: {error}"
    except (TypeError, ValueError):
        return "bad type"
    else:
        return "never"
    finally:
        print("finally", v)
print(attempt(2), attempt(0), attempt("x"))
>>>
finally 2
finally 0
finally x
5.0 failed: division by zero bad type
--- bare except
try:
    int("x")
except:
    print("caught")
>>>
caught
--- except BaseException
try:
    {}["k"]
except BaseException as e:
    print(type(e).__name__, e)
>>>
KeyError 'k'
--- raise from, and context
try:
    try:
        int("x")
    except ValueError as inner:
        raise RuntimeError("outer") from inner
except RuntimeError as outer:
    print(outer, "<-", type(outer.__cause__).__name__)
>>>
outer <- ValueError
--- re-raise
def risky():
    try:
        raise KeyError("k")
    except KeyError:
        raise
try:
    risky()
except LookupError as e:
    print(repr(e), e.args)
>>>
KeyError('k') ('k',)
--- own exceptions
class ParseError(ValueError):
    def __init__(self, line, message="bad line"):
        super().__init__(f"{message}: {line}")
        self.line = line
try:
    raise ParseError(7)
except ParseError as e:
    print(e, e.line, isinstance(e, ValueError))
>>>
bad line: 7 7 True
--- add_note and notes
try:
    error = ValueError("v")
    error.add_note("more")
    raise error
except ValueError as e:
    print(e.__notes__)
>>>
['more']
--- exception groups without except*
group = ExceptionGroup("several", [ValueError("a"), KeyError("b")])
print(group.message, [type(e).__name__ for e in group.exceptions])
>>>
several ['ValueError', 'KeyError']
--- an uncaught error is told
scores = {"a": 1}
scores["b"]
>>>
error: KeyError: 'b'
--- an error in a nested call is told
def mean(values):
    return sum(values) / len(values)
mean([])
>>>
error: ZeroDivisionError: division by zero
--- a syntax error is told
print("a"
x = 1
>>>
error: SyntaxError: '(' was never closed
--- an undefined name is told
undefined_name + 1
>>>
error: NameError: name 'undefined_name' is not defined
--- with and several managers
import io
with io.StringIO("a\nb\n") as f, io.StringIO() as g:
    for line in f:
        g.write(line.upper())
    print(repr(g.getvalue()))
>>>
'A\nB\n'
--- pass, ellipsis, semicolons, line continuations
def later(): ...
x = 1; y = \
    2
print(later(), x + y, ...)
>>>
None 3 Ellipsis
--- numbers of all kinds
print(0x1F, 0b101, 0o17, 1_000_000, 1e3, 2j * 1j, 7 // 2, -7 % 3, 2 ** 10, divmod(7, 2), round(2.567, 2))
>>>
31 5 15 1000000 1000.0 (-2+0j) 3 2 1024 (3, 1) 2.57
--- strings of all kinds
print(r"\d", b"bytes\x00", "tab\tnew", """multi
line""", "a" "b", "é\u00e9\N{BULLET}")
>>>
\d b'bytes\x00' tab	new multi
line ab éé•
--- boolean logic and bit operators
print(True and 0 or "x", 5 & 3, 5 | 3, 5 ^ 3, ~5, 1 << 4, 256 >> 2)
>>>
x 1 7 6 -6 16 64
--- matrix product by an own class
class M:
    def __init__(self, v): self.v = v
    def __matmul__(self, o): return sum(a * b for a, b in zip(self.v, o.v))
print(M([1, 2]) @ M([3, 4]))
>>>
11
=== functions
--- closures and nonlocal
def counter():
    n = 0
    def step():
        nonlocal n
        n += 1
        return n
    return step
tick = counter()
print(tick(), tick(), tick())
>>>
1 2 3
--- global
hits = 0
def hit():
    global hits
    hits += 1
hit(); hit()
print(hits)
>>>
2
--- lambda, sorted with keys, min and max
people = [("Ann", 31), ("Bob", 25), ("Cy", 31)]
print(sorted(people, key=lambda p: (-p[1], p[0])))
print(min(people, key=lambda p: p[1]), max(people, key=lambda p: p[1])[0])
>>>
[('Ann', 31), ('Cy', 31), ('Bob', 25)]
('Bob', 25) Ann
--- defaults and keyword-only arguments
def chunk(text, size=4, *, overlap=1):
    step = size - overlap
    return [text[i:i + size] for i in range(0, len(text), step)]
print(chunk("abcdefghij"), chunk("abcdef", overlap=2))
>>>
['abcd', 'defg', 'ghij', 'j'] ['abcd', 'cdef', 'ef']
--- decorators with wraps
import functools
def logged(prefix):
    def decorate(function):
        @functools.wraps(function)
        def wrapper(*args, **kwargs):
            print(prefix, function.__name__, args)
            return function(*args, **kwargs)
        return wrapper
    return decorate
@logged("->")
def add(a, b):
    """Add."""
    return a + b
print(add(1, b=2), add.__name__, add.__doc__)
>>>
-> add (1,)
3 add Add.
--- memoised recursion
from functools import lru_cache
@lru_cache(maxsize=None)
def fib(n):
    return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(80), fib.cache_info().misses)
fib.cache_clear()
>>>
23416728348467685 81
--- functools.cache on a helper
import functools
@functools.cache
def square(n):
    print("computing", n)
    return n * n
print(square(4), square(4))
>>>
computing 4
16 16
--- generators
def blocks(lines):
    block = []
    for line in lines:
        if line:
            block.append(line)
        elif block:
            yield block
            block = []
    if block:
        yield block
print(list(blocks(["a", "b", "", "c", "", "", "d"])))
>>>
[['a', 'b'], ['c'], ['d']]
--- yield from and send
def flatten(x):
    for item in x:
        if isinstance(item, (list, tuple)):
            yield from flatten(item)
        else:
            yield item
print(list(flatten([1, [2, (3, [4])], 5])))
def average():
    total, n, value = 0, 0, None
    while True:
        x = yield value
        total += x
        n += 1
        value = total / n
g = average()
next(g)
print(g.send(10), g.send(20))
g.close()
>>>
[1, 2, 3, 4, 5]
10.0 15.0
--- generator expressions with any, all, sum, next
words = ["alpha", "beta", "gamma"]
print(sum(len(w) for w in words), any("z" in w for w in words), all(w for w in words))
print(next((w for w in words if w.startswith("g")), None), next((w for w in words if w == "?"), "none"))
>>>
14 False True
gamma none
--- attributes of own functions
def calls():
    calls.n += 1
    return calls.n
calls.n = 0
calls(); calls()
print(calls.n)
>>>
2
--- type hints from typing
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple, Union
def group(items: List[str], key: Callable[[str], Any], default: Optional[int] = None) -> Dict[Any, List[str]]:
    out: Dict[Any, List[str]] = {}
    for item in items:
        out.setdefault(key(item), []).append(item)
    return out
print(group(["a", "bb", "c"], len))
>>>
{1: ['a', 'c'], 2: ['bb']}
--- annotations are readable
def f(a: int, b: str = "x") -> bool:
    return True
print(f.__annotations__)
>>>
{'a': <class 'int'>, 'b': <class 'str'>, 'return': <class 'bool'>}
--- docstrings
def documented():
    """What it does."""
class Documented:
    "A class."
print(documented.__doc__, Documented.__doc__)
>>>
What it does. A class.
--- map, filter, zip, enumerate, reversed
print(list(map(str.upper, ["a", "b"])), list(filter(None, [0, 1, "", "x"])))
print(list(zip("ab", [1, 2], strict=True)), list(enumerate("ab", start=1)), list(reversed([1, 2])))
print(dict(zip(["k1", "k2"], map(int, ["1", "2"]))))
>>>
['A', 'B'] [1, 'x']
[('a', 1), ('b', 2)] [(1, 'a'), (2, 'b')] [2, 1]
{'k1': 1, 'k2': 2}
--- recursion with a helper
def depth(tree):
    return 1 + max((depth(t) for t in tree), default=0) if isinstance(tree, list) else 0
print(depth([1, [2, [3]], []]))
>>>
3
--- iter with a sentinel, and slices of iterators
import itertools
it = iter(range(10))
print(list(itertools.islice(it, 3)), next(it), list(iter(lambda: next(it), 7)))
>>>
[0, 1, 2] 3 [4, 5, 6]
--- callable, id, hash, ord, chr, hex, bin
print(callable(len), isinstance(id(1), int), hash("a") == hash("a"), ord("é"), chr(8364), hex(255), bin(5), oct(8))
>>>
True True True 233 € 0xff 0b101 0o10
--- abs, pow, sum with start, complex, bytes
print(abs(-3), pow(2, 10, 1000), sum([[1], [2]], []), complex(1, 2), bytes([65, 66]), bytearray(b"x") + b"y")
>>>
3 24 [1, 2] (1+2j) b'AB' bytearray(b'xy')
--- isinstance, issubclass and type
print(isinstance(True, int), issubclass(bool, int), type("x"), type(1).__name__, type([]) is list, isinstance(3, (str, int)), isinstance(int, type))
>>>
True True <class 'str'> int True True True
--- getattr, hasattr, setattr, delattr
class Bag: pass
bag = Bag()
setattr(bag, "size", 3)
print(getattr(bag, "size"), getattr(bag, "missing", "default"), hasattr(bag, "size"), hasattr("x", "upper"))
delattr(bag, "size")
print(hasattr(bag, "size"), getattr("abc", "upper")())
>>>
3 default True True
False ABC
--- dir
class Point: x = 1
print([n for n in dir(Point()) if not n.startswith("_")], "append" in dir([]))
>>>
['x'] True
--- locals in a function
def f(a, b=2):
    c = a + b
    return sorted(locals().items())
print(f(1))
>>>
[('a', 1), ('b', 2), ('c', 3)]
--- globals().get and a name in globals()
known = 1
print(globals().get("known"), globals().get("unknown", "none"), "known" in globals(), "unknown" in globals())
>>>
1 none True False
--- names defined, as models check them
if "results_cache" not in globals():
    results_cache = {}
results_cache["k"] = 1
try:
    not_there_yet
except NameError:
    print("not defined")
print(results_cache)
>>>
not defined
{'k': 1}
=== classes
--- a plain class with private attributes
class Account:
    _count = 0
    def __init__(self, owner, balance=0):
        self.owner = owner
        self._balance = balance
        self.__secret = "s"
        Account._count += 1
    def deposit(self, amount):
        self._balance += amount
        return self
    def reveal(self):
        return self.__secret, self._balance
a = Account("ann").deposit(5).deposit(7)
print(a.reveal(), a._balance, Account._count, a._Account__secret)
>>>
('s', 12) 12 1 s
--- inheritance, super and method resolution
class Base:
    def __init__(self, name): self.name = name
    def describe(self): return f"Base {self.name}"
class Mixin:
    def describe(self): return "Mixin+" + super().describe()
class Child(Mixin, Base):
    def __init__(self, name, extra):
        super().__init__(name)
        self.extra = extra
    def describe(self): return "Child+" + super().describe()
c = Child("n", 1)
print(c.describe(), isinstance(c, Base), Child.__name__, c.__class__.__name__)
>>>
Child+Mixin+Base n True Child Child
--- private methods by super, and the parent's __init__ by name
class Base:
    _kind = "base"
    def __init__(self, name): self.name = name
    def _clean(self): return self.name.strip()
class Child(Base):
    def __init__(self, name):
        Base.__init__(self, name)
    def _clean(self): return super()._clean().upper() + super()._kind
print(Child(" x ")._clean())
>>>
Xbase
--- a parser that calls HTMLParser.__init__
from html.parser import HTMLParser
class Links(HTMLParser):
    def __init__(self):
        HTMLParser.__init__(self)
        self.links = []
    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name == "href"]
p = Links()
p.feed("<a href='x'>y</a>")
print(p.links)
>>>
['x']
--- properties and setters
class Celsius:
    def __init__(self, degrees): self.degrees = degrees
    @property
    def fahrenheit(self): return self.degrees * 9 / 5 + 32
    @fahrenheit.setter
    def fahrenheit(self, value): self.degrees = (value - 32) * 5 / 9
t = Celsius(100)
t.fahrenheit = 32
print(t.degrees, t.fahrenheit)
>>>
0.0 32.0
--- class methods and static methods
class Date:
    def __init__(self, y, m): self.y, self.m = y, m
    @classmethod
    def parse(cls, text): return cls(*map(int, text.split("-")))
    @staticmethod
    def valid(text): return text.count("-") == 1
    def __repr__(self): return f"Date({self.y}, {self.m})"
print(Date.parse("2024-05"), Date.valid("x"))
>>>
Date(2024, 5) False
--- the usual special methods
class Vec:
    def __init__(self, *v): self.v = v
    def __repr__(self): return f"Vec{self.v}"
    def __eq__(self, o): return self.v == o.v
    def __hash__(self): return hash(self.v)
    def __len__(self): return len(self.v)
    def __getitem__(self, i): return self.v[i]
    def __contains__(self, x): return x in self.v
    def __iter__(self): return iter(self.v)
    def __add__(self, o): return Vec(*(a + b for a, b in zip(self, o)))
    def __mul__(self, k): return Vec(*(a * k for a in self))
    __rmul__ = __mul__
    def __neg__(self): return self * -1
    def __bool__(self): return any(self.v)
    def __lt__(self, o): return self.v < o.v
    def __call__(self, i): return self[i]
    def __abs__(self): return sum(a * a for a in self) ** 0.5
u = Vec(3, 4)
print(u + u, 2 * u, -u, len(u), u[0], 4 in u, list(u), u == Vec(3, 4), len({u, Vec(3, 4)}), bool(Vec(0)), sorted([u, Vec(1)]), u(1), abs(u))
>>>
Vec(6, 8) Vec(6, 8) Vec(-3, -4) 2 3 True [3, 4] True 1 False [Vec(1,), Vec(3, 4)] 4 5.0
--- item assignment and deletion in an own class
class Table:
    def __init__(self): self.rows = {}
    def __setitem__(self, k, v): self.rows[k] = v
    def __getitem__(self, k): return self.rows[k]
    def __delitem__(self, k): del self.rows[k]
    def __missing__(self, k): return None
t = Table()
t["a"] = 1
t["a"] += 4
t["b"] = 2
del t["b"]
print(t.rows, t["a"])
>>>
{'a': 5} 5
--- a context manager of one's own
class Timer:
    def __enter__(self):
        print("enter")
        return self
    def __exit__(self, kind, error, tb):
        print("exit", kind.__name__ if kind else None)
        return True
with Timer() as t:
    raise ValueError("swallowed")
print("after")
>>>
enter
exit ValueError
after
--- an iterator of one's own
class Countdown:
    def __init__(self, n): self.n = n
    def __iter__(self): return self
    def __next__(self):
        if self.n <= 0:
            raise StopIteration
        self.n -= 1
        return self.n
print(list(Countdown(3)))
>>>
[2, 1, 0]
--- getattr and setattr hooks
class Record:
    def __init__(self, **fields):
        self.__dict__.update(fields)
    def __getattr__(self, name):
        return f"<no {name}>"
r = Record(a=1, b=2)
print(r.a, r.b, r.c, vars(r), r.__dict__)
>>>
1 2 <no c> {'a': 1, 'b': 2} {'a': 1, 'b': 2}
--- __setattr__ with object.__setattr__
class Frozen:
    def __init__(self, x):
        object.__setattr__(self, "x", x)
    def __setattr__(self, name, value):
        raise AttributeError(f"cannot set {name}")
f = Frozen(1)
try:
    f.x = 2
except AttributeError as e:
    print(f.x, e)
>>>
1 cannot set x
--- __slots__, __str__ and __format__
class P:
    __slots__ = ("x", "y")
    def __init__(self, x, y): self.x, self.y = x, y
    def __str__(self): return f"({self.x}, {self.y})"
    def __format__(self, spec): return f"<{self.x:{spec}}>"
p = P(1.5, 2)
print(str(p), f"{p:.3f}", "{:.1f}".format(p))
>>>
(1.5, 2) <1.500> <1.5>
--- __init_subclass__ and a registry
class Plugin:
    registry = {}
    def __init_subclass__(cls, **kwargs):
        super().__init_subclass__(**kwargs)
        Plugin.registry[cls.__name__] = cls
class Csv(Plugin): pass
class Json(Plugin): pass
print(sorted(Plugin.registry))
>>>
['Csv', 'Json']
--- __new__ and a singleton
class Single:
    _instance = None
    def __new__(cls):
        if cls._instance is None:
            cls._instance = super().__new__(cls)
        return cls._instance
print(Single() is Single())
>>>
True
--- a descriptor
class Positive:
    def __set_name__(self, owner, name): self.name = "_" + name
    def __get__(self, obj, owner=None): return getattr(obj, self.name, 0)
    def __set__(self, obj, value):
        if value < 0:
            raise ValueError("negative")
        setattr(obj, self.name, value)
class Item:
    price = Positive()
i = Item()
i.price = 3
try:
    i.price = -1
except ValueError as e:
    print(i.price, e)
>>>
3 negative
--- total_ordering
from functools import total_ordering
@total_ordering
class Version:
    def __init__(self, text): self.parts = tuple(map(int, text.split(".")))
    def __eq__(self, o): return self.parts == o.parts
    def __lt__(self, o): return self.parts < o.parts
print(Version("1.10") > Version("1.9"), Version("1.0") >= Version("1.0"))
>>>
True True
--- cached_property
from functools import cached_property
class Doc:
    def __init__(self, text): self.text = text
    @cached_property
    def words(self):
        print("splitting")
        return self.text.split()
d = Doc("a b c")
print(len(d.words), d.words)
>>>
splitting
3 ['a', 'b', 'c']
--- abstract classes
from abc import ABC, abstractmethod
class Shape(ABC):
    @abstractmethod
    def area(self): ...
    @property
    @abstractmethod
    def name(self): ...
class Square(Shape):
    name = "square"
    def __init__(self, s): self.s = s
    def area(self): return self.s ** 2
print(Square(3).area(), Square(3).name)
try:
    Shape()
except TypeError:
    print("abstract")
>>>
9 square
abstract
--- dataclasses
from dataclasses import dataclass, field, asdict, astuple, replace
@dataclass(order=True)
class Item:
    name: str
    price: float = 0.0
    tags: list = field(default_factory=list)
a = Item("pen", 1.5)
b = replace(a, price=2.0)
a.tags.append("x")
print(a, b.tags, asdict(b), astuple(b), a < b, a == Item("pen", 1.5, ["x"]))
>>>
Item(name='pen', price=1.5, tags=['x']) ['x'] {'name': 'pen', 'price': 2.0, 'tags': ['x']} ('pen', 2.0, ['x']) True True
--- dataclasses with post_init, frozen and slots
from dataclasses import dataclass, field, fields, FrozenInstanceError
@dataclass(frozen=True, slots=True)
class Span:
    start: int
    end: int
    length: int = field(init=False, repr=False, default=0)
    def __post_init__(self):
        object.__setattr__(self, "length", self.end - self.start)
s = Span(2, 9)
try:
    s.start = 1
except FrozenInstanceError as e:
    print("frozen", s, s.length, [f.name for f in fields(s)])
>>>
frozen Span(start=2, end=9) 7 ['start', 'end', 'length']
--- dataclasses with a field named format, and inheritance
import dataclasses
@dataclasses.dataclass
class File:
    path: str
    format: str = "pdf"
@dataclasses.dataclass
class Image(File):
    width: int = 0
print(Image("a", "png", 3), Image("b").format, dataclasses.is_dataclass(Image))
>>>
Image(path='a', format='png', width=3) pdf True
--- enums
from enum import Enum, IntEnum, auto
class Color(Enum):
    RED = 1
    GREEN = "g"
class Level(IntEnum):
    LOW = auto()
    HIGH = auto()
print(Color.RED, Color("g").name, [c.value for c in Color], Level.HIGH > Level.LOW, Color["RED"] is Color.RED, len(Color), Level(2))
>>>
Color.RED GREEN [1, 'g'] True True 2 2
--- enums with methods, StrEnum and Flag
from enum import Enum, Flag, StrEnum, unique
class Op(StrEnum):
    ADD = "+"
    @property
    def verb(self): return self.name.lower()
class Perm(Flag):
    R = 4
    W = 2
@unique
class Planet(Enum):
    EARTH = (5.97, 6.37)
    def __init__(self, mass, radius): self.mass, self.radius = mass, radius
print(Op.ADD.verb, f"{Op.ADD}", Perm.R in (Perm.R | Perm.W), Planet.EARTH.mass, list(Op.__members__))
>>>
add + True 5.97 ['ADD']
--- enum by the functional API
from enum import Enum
Status = Enum("Status", "OPEN CLOSED")
print(Status.OPEN.value, [s.name for s in Status])
>>>
1 ['OPEN', 'CLOSED']
--- namedtuples
from collections import namedtuple
Point = namedtuple("Point", ["x", "y"], defaults=[0])
p = Point(3)
q = p._replace(y=4)
print(p, q.x + q.y, q._asdict(), Point._fields, Point._make([5, 6]), tuple(q))
>>>
Point(x=3, y=0) 7 {'x': 3, 'y': 4} ('x', 'y') Point(x=5, y=6) (3, 4)
--- NamedTuple with methods
from typing import NamedTuple
class Hit(NamedTuple):
    doc: int
    text: str
    score: float = 0.0
    def short(self): return self.text[:3]
h = Hit(1, "abcdef")
print(h, h.short(), h.score, h == (1, "abcdef", 0.0))
>>>
Hit(doc=1, text='abcdef', score=0.0) abc 0.0 True
--- TypedDict, Literal, TypeVar and Generic
from typing import Generic, Literal, TypedDict, TypeVar
T = TypeVar("T")
class Stack(Generic[T]):
    def __init__(self) -> None: self.items: list[T] = []
    def push(self, x: T) -> "Stack[T]":
        self.items.append(x)
        return self
mode: Literal["r", "w"] = "r"
print(Stack[int]().push(1).push(2).items, mode)
>>>
[1, 2] r
--- Protocol as an annotation
from typing import Protocol
class Speaker(Protocol):
    def speak(self) -> str: ...
class Dog:
    def speak(self) -> str: return "woof"
def talk(s: Speaker) -> str:
    return s.speak()
print(talk(Dog()))
>>>
woof
--- SimpleNamespace
from types import SimpleNamespace
config = SimpleNamespace(depth=2, name="n")
config.depth += 1
config.extra = [1]
print(config, config.depth, vars(config))
>>>
namespace(depth=3, name='n', extra=[1]) 3 {'depth': 3, 'name': 'n', 'extra': [1]}
--- a class with a class-level table of methods
class Calc:
    def add(self, a, b): return a + b
    def sub(self, a, b): return a - b
    table = {"+": add, "-": sub}
    def run(self, op, a, b): return self.table[op](self, a, b)
    def by_name(self, name, *args): return getattr(self, name)(*args)
print(Calc().run("-", 5, 3), Calc().by_name("add", 1, 2))
>>>
2 3
--- subclasses of dict, list and str
class Multi(dict):
    def __missing__(self, key):
        self[key] = []
        return self[key]
class Tail(list):
    def last(self): return self[-1]
class Name(str):
    def initials(self): return "".join(w[0] for w in self.split())
m = Multi()
m["a"].append(1)
print(m, Tail([1, 2]).last(), Name("Ada Lovelace").initials())
>>>
{'a': [1]} 2 AL
--- own containers by collections.abc
from collections.abc import Mapping, MutableMapping, Sequence
class Frozen(Mapping):
    def __init__(self, d): self._d = dict(d)
    def __getitem__(self, k): return self._d[k]
    def __iter__(self): return iter(self._d)
    def __len__(self): return len(self._d)
f = Frozen(a=1) if False else Frozen({"a": 1})
print(dict(f), f.get("b", 0), "a" in f, isinstance(f, Mapping), isinstance([], Sequence))
>>>
{'a': 1} 0 True True True
--- UserDict and deepcopy hooks
import copy
from collections import UserDict
class Lower(UserDict):
    def __setitem__(self, k, v): self.data[k.lower()] = v
d = Lower({"A": [1]})
e = copy.deepcopy(d)
e["a"].append(2)
print(d, e)
>>>
{'a': [1]} {'a': [1, 2]}
--- a linked list and a tree
class Node:
    def __init__(self, value, left=None, right=None):
        self.value, self.left, self.right = value, left, right
    def insert(self, value):
        side = "left" if value < self.value else "right"
        child = getattr(self, side)
        if child is None:
            setattr(self, side, Node(value))
        else:
            child.insert(value)
    def walk(self):
        if self.left:
            yield from self.left.walk()
        yield self.value
        if self.right:
            yield from self.right.walk()
root = Node(5)
for v in [3, 8, 1, 4]:
    root.insert(v)
print(list(root.walk()))
>>>
[1, 3, 4, 5, 8]
=== match
--- match on literals, or-patterns and guards
def kind(x):
    match x:
        case 0 | 1:
            return "bit"
        case int(n) if n < 0:
            return "negative"
        case str() as s:
            return f"text {s!r}"
        case None | True:
            return "constant"
        case _:
            return "other"
print([kind(v) for v in (0, -5, "a", None, 2.5)])
>>>
['bit', 'negative', "text 'a'", 'constant', 'other']
--- match on sequences and mappings
def read(message):
    match message:
        case ["move", x, y]:
            return x + y
        case [first, *rest]:
            return first, rest
        case {"type": "text", "body": body, **others}:
            return body, others
        case {"type": t}:
            return t
print(read(["move", 1, 2]), read("ab" and ["a", "b", "c"]), read({"type": "text", "body": "b", "k": 1}), read({"type": "x"}))
>>>
3 ('a', ['b', 'c']) ('b', {'k': 1}) x
--- match on class patterns with keywords
class Point:
    def __init__(self, x, y): self.x, self.y = x, y
def where(p):
    match p:
        case Point(x=0, y=0): return "origin"
        case Point(x=0, y=y): return f"on y at {y}"
        case Point(x=x, y=y): return f"{x},{y}"
print(where(Point(0, 0)), where(Point(0, 2)), where(Point(1, 2)))
>>>
origin on y at 2 1,2
--- match on dataclasses by position
from dataclasses import dataclass
@dataclass
class Num:
    value: int
@dataclass
class Add:
    left: object
    right: object
def evaluate(node):
    match node:
        case Num(v): return v
        case Add(left, right): return evaluate(left) + evaluate(right)
print(evaluate(Add(Num(1), Add(Num(2), Num(3)))))
>>>
6
--- match on builtin types and enum values
from enum import Enum
class Op(Enum):
    ADD = "+"
    SUB = "-"
def show(v):
    match v:
        case Op.ADD: return "add"
        case bool(b): return f"bool {b}"
        case float(f) | int(f): return f"number {f}"
        case [int(), int()]: return "pair"
        case dict(): return "dict"
print([show(v) for v in (Op.ADD, True, 1.5, [1, 2], {}, "z")])
>>>
['add', 'bool True', 'number 1.5', 'pair', 'dict', None]
--- match on tuples with a swap
match (1, (2, 3)):
    case (a, (b, c)):
        print(a, b, c)
>>>
1 2 3
=== comprehensions
--- nested comprehensions with conditions
matrix = [[1, 2, 3], [4, 5, 6]]
print([x for row in matrix for x in row if x % 2], [[r[i] for r in matrix] for i in range(3)])
>>>
[1, 3, 5] [[1, 4], [2, 5], [3, 6]]
--- dict and set comprehensions
words = "the cat the dog".split()
print({w: words.count(w) for w in words}, sorted({len(w) for w in words}), {k: v for k, v in zip("ab", (1, 2)) if v > 1})
>>>
{'the': 2, 'cat': 1, 'dog': 1} [3] {'b': 2}
--- a comprehension in a class and in a function
class Grid:
    size = 2
    cells = [(i, j) for i in range(2) for j in range(2)]
def evens(n):
    limit = n
    return [i for i in range(limit) if i % 2 == 0]
print(Grid.cells, evens(6))
>>>
[(0, 0), (0, 1), (1, 0), (1, 1)] [0, 2, 4]
=== strings and formatting
--- f-strings with formats
pi, name, n = 3.14159, "x", 1234567
width = 10
print(f"{pi:.2f} {name!r:>5} {n:,} {n:>{width}} {pi:{width}.{3}f} {0.256:.1%} {255:#x} {'<' + name:*^9}")
>>>
3.14   'x' 1,234,567    1234567      3.142 25.6% 0xff ***<x****
--- f-strings with expressions, equals and nested quotes
d = {"k": [1, 2]}
print(f"{d['k'][1]} {len(d)=} {', '.join(str(v) for v in d['k'])} {{literal}} {'yes' if d else 'no'}")
>>>
2 len(d)=1 1, 2 {literal} yes
--- str.format with positions, names and attributes
class User:
    def __init__(self, name): self.name, self.tags = name, ["a", "b"]
u = User("ann")
print("{} {1} {0}".replace("{} ", "").format("a", "b"), "{0.name} {0.tags[1]} {u.name:>5}".format(u, u=u), "{:>8.2f}|{:<5}|{:^5}|".format(3.14159, "l", "c"))
>>>
b a ann b   ann     3.14|l    |  c  |
--- str.format with nested specifications
print("{:{w}.{p}f} {!r} {:,}".format(2.71828, "q", 10**6, w=8, p=2) if False else "{0:{w}.{p}f} {1!r} {2:,}".format(2.71828, "q", 10**6, w=8, p=2))
>>>
    2.72 'q' 1,000,000
--- str.format_map with a default
class Default(dict):
    def __missing__(self, key): return "{" + key + "}"
print("{a} {b}".format_map(Default(a=1)), "{x[0]} {y}".format_map({"x": [5], "y": 6}))
>>>
1 {b} 5 6
--- percent formatting
print("%s %d %05.2f %x %-5s| %(k)s" .replace(" %(k)s", "") % ("a", 3, 2.5, 255, "l"), "%(k)s=%(v)r" % {"k": "a", "v": "b"}, "%d%%" % 50)
>>>
a 3 02.50 ff l    | a='b' 50%
--- string methods
s = "  Hello, World  "
print(s.strip().lower().replace("world", "there").title(), s.split(","), "a-b-c".rpartition("-"), "x".join("abc"), "abc".zfill(5), "Hello".swapcase(), "a\nb".splitlines(), "ab".isalpha(), "hello".find("l"), "tEST".capitalize(), "abc".startswith(("x", "a")))
>>>
Hello, There ['  Hello', ' World  '] ('a-b', '-', 'c') axbxc 00abc hELLO ['a', 'b'] True 2 Test True
--- translate and maketrans
print("h-e-l-l-o".translate(str.maketrans("hl", "HL", "-")), "naïve".encode("ascii", "ignore"), "é".encode().hex())
>>>
HeLLo b'nave' c3a9
--- string.Template and string constants
import string
from string import Template
t = Template("$who owes ${amount}, $$5")
print(t.substitute(who="Ann", amount="10"), t.safe_substitute(who="Bob"), string.ascii_lowercase[:5], string.digits, "a,b!".translate(str.maketrans("", "", string.punctuation)))
>>>
Ann owes 10, $5 Bob owes ${amount}, $5 abcde 0123456789 ab
--- textwrap
import textwrap
print(textwrap.fill("The quick brown fox jumps over the lazy dog", width=20))
print(textwrap.dedent("""
    a
      b
""").strip(), textwrap.shorten("Hello wonderful world", width=12, placeholder="..."))
print(textwrap.indent("x\ny", "> "))
>>>
The quick brown fox
jumps over the lazy
dog
a
  b Hello...
> x
> y
--- unicodedata and normalisation
import unicodedata
print(unicodedata.normalize("NFKD", "Café").encode("ascii", "ignore").decode(), unicodedata.name("é"), unicodedata.category("a"))
>>>
Cafe LATIN SMALL LETTER E WITH ACUTE Ll
--- bytes and encodings
raw = "naïve €".encode("utf-8")
print(raw, raw.decode(), len(raw), "naïve".encode("latin-1").decode("latin-1"), b"a,b".split(b","), int.from_bytes(b"\x01\x00", "big"), "x".encode("utf-16-le"))
>>>
b'na\xc3\xafve \xe2\x82\xac' naïve € 10 naïve [b'a', b'b'] 256 b'x\x00'
--- html and url
import html
from urllib.parse import parse_qs, quote, unquote, urlencode, urljoin, urlparse
u = urlparse("https://a.example/p/q?x=1&y=2#f")
print(html.escape("<a & b>"), html.unescape("&lt;&eacute;&gt;"), u.netloc, u.path, parse_qs(u.query), quote("a b/c"), unquote("a%20b"), urlencode({"q": "x y"}), urljoin("http://h/a/", "b"))
>>>
&lt;a &amp; b&gt; <é> a.example /p/q {'x': ['1'], 'y': ['2']} a%20b/c a b q=x+y http://h/a/b
--- html.parser
from html.parser import HTMLParser
class Text(HTMLParser):
    def __init__(self):
        super().__init__()
        self.parts, self.links = [], []
    def handle_data(self, data):
        self.parts.append(data.strip())
    def handle_starttag(self, tag, attrs):
        if tag == "a":
            self.links.append(dict(attrs).get("href"))
p = Text()
p.feed("<p>Hello <b>world</b> <a href='u'>link</a></p>")
print([x for x in p.parts if x], p.links)
>>>
['Hello', 'world', 'link'] ['u']
=== printing
--- print with sep, end and file
import sys
print(1, 2, 3, sep="-", end="!\n")
print("to stderr", file=sys.stderr)
sys.stdout.write("written\n")
sys.stdout.flush()
print("flushed", flush=True)
print()
>>>
1-2-3!
to stderr
written
flushed
--- print into a buffer
import io
buffer = io.StringIO()
print("a", "b", sep="|", file=buffer)
buffer.write("tail")
print(repr(buffer.getvalue()))
>>>
'a|b\ntail'
--- the last expression is shown
x = [1, 2]
x + [3]
>>>
[1, 2, 3]
--- a last expression that is None, and one in brackets, are as in the REPL
print("once")
>>>
once
--- a last string is shown with quotes
"text: " + "x"
>>>
'text: x'
--- pprint
from pprint import pformat, pprint
pprint({"b": list(range(12)), "a": {"nested": "x" * 50, "more": "y" * 40}}, width=60)
print(pformat([3, 1]))
>>>
{'a': {'more': 'yyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyyy',
       'nested': 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx'},
 'b': [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]}
[3, 1]
--- repr of everything
print([None, True, 1.0, 1e100, float("inf"), "q'\"", b"b", (1,), set(), {1}, {}, range(3), slice(1), frozenset([1])])
>>>
[None, True, 1.0, 1e+100, inf, 'q\'"', b'b', (1,), set(), {1}, {}, range(0, 3), slice(None, 1, None), frozenset({1})]
=== the library
--- json
import json
data = {"name": "x", "list": [1, 2.5, None, True], "ü": "é"}
text = json.dumps(data, indent=2, ensure_ascii=False, sort_keys=True)
print(text, json.loads(text) == data, json.dumps("é"), json.dumps({"a": 1}, separators=(",", ":")))
>>>
{
  "list": [
    1,
    2.5,
    null,
    true
  ],
  "name": "x",
  "ü": "é"
} True "\u00e9" {"a":1}
--- json errors and defaults
import json
from datetime import date
try:
    json.loads("{bad}")
except json.JSONDecodeError as e:
    print(e.msg, e.pos)
print(json.dumps({"d": date(2024, 1, 2), "s": {1}}, default=lambda o: sorted(o) if isinstance(o, set) else str(o)))
>>>
Expecting property name enclosed in double quotes 1
{"d": "2024-01-02", "s": [1]}
--- a json encoder of one's own
import json
class Encoder(json.JSONEncoder):
    def default(self, o):
        if isinstance(o, complex):
            return [o.real, o.imag]
        return super().default(o)
print(json.dumps({"z": 1 + 2j}, cls=Encoder))
>>>
{"z": [1.0, 2.0]}
--- json lines
import json
lines = '{"a": 1}\n{"a": 2}\n\n'
print([json.loads(line)["a"] for line in lines.splitlines() if line.strip()])
>>>
[1, 2]
--- re: search, groups, sub with a function
import re
m = re.search(r"(?P<year>\d{4})-(?P<month>\d\d)", "on 2024-05 and 2023-01")
print(m.group(0), m["year"], m.groupdict(), m.span("month"), m.start(), m.groups(), m.string[:2])
print(re.sub(r"\d+", lambda m: str(int(m.group()) * 2), "a1b22"), re.split(r"[,;]\s*", "a, b;c"), re.findall(r"(\w)(\d)", "a1 b2"))
>>>
2024-05 2024 {'year': '2024', 'month': '05'} (8, 10) 3 ('2024', '05') on
a2b44 ['a', 'b', 'c'] [('a', '1'), ('b', '2')]
--- re: flags, compile, finditer, escape
import re
p = re.compile(r"^\s*(\w+)\s*:\s*(.+)$", re.M | re.I)
for m in p.finditer("Name: Ann\n age : 31\nnone"):
    print(m.start(), m.group(1).lower(), m[2])
print(p.pattern, bool(p.flags & re.I), re.escape("a.b"), re.fullmatch("a+", "aaa") is not None, re.match("b", "ab"))
>>>
0 name Ann
10 age 31
^\s*(\w+)\s*:\s*(.+)$ True a\.b True None
--- re: verbose and an error
import re
rx = re.compile(r"""
    (\d+)   # number
    \s*
    (kg|g)  # unit
""", re.VERBOSE)
print(rx.findall("5 kg and 30g"))
try:
    re.compile("(")
except re.error as e:
    print("bad pattern:", e.msg)
>>>
[('5', 'kg'), ('30', 'g')]
bad pattern: missing ), unterminated subpattern
--- collections
from collections import Counter, OrderedDict, defaultdict, deque, ChainMap
c = Counter("abracadabra")
d = defaultdict(list)
for k, v in [("a", 1), ("b", 2), ("a", 3)]:
    d[k].append(v)
q = deque(range(5), maxlen=3)
q.appendleft(9)
q.rotate(1)
print(c.most_common(2), (c - Counter("aab"))["a"], dict(d), q, dict(OrderedDict(a=1)), ChainMap({"a": 1}, {"b": 2})["b"])
>>>
[('a', 5), ('b', 2)] 3 {'a': [1, 3], 'b': [2]} deque([3, 9, 2], maxlen=3) {'a': 1} 2
--- Counter with arithmetic and update
from collections import Counter
total = Counter()
for line in ["a b a", "b c"]:
    total.update(line.split())
total["c"] += 10
print(total.most_common(), sum(total.values()), total["missing"], dict(total + Counter(a=1)))
>>>
[('c', 11), ('a', 2), ('b', 2)] 15 0 {'a': 3, 'b': 2, 'c': 11}
--- nested defaultdict
from collections import defaultdict
tree = lambda: defaultdict(tree)
t = tree()
t["a"]["b"]["c"] = 1
counts = defaultdict(lambda: defaultdict(int))
counts["x"]["y"] += 2
print(t["a"]["b"]["c"], counts["x"]["y"], list(counts))
>>>
1 2 ['x']
--- itertools
import itertools
from itertools import accumulate, chain, combinations, count, cycle, groupby, islice, permutations, product, takewhile, zip_longest
print(list(combinations("abc", 2)), list(permutations([1, 2])), list(product("ab", repeat=2))[:3])
print([(k, len(list(g))) for k, g in groupby("aabbb")], list(accumulate([1, 2, 3])), list(chain.from_iterable([[1], [2]])))
print(list(islice(cycle("ab"), 5)), list(zip_longest("ab", "c", fillvalue="-")), list(takewhile(lambda x: x < 3, count())), list(itertools.pairwise([1, 2, 3])))
>>>
[('a', 'b'), ('a', 'c'), ('b', 'c')] [(1, 2), (2, 1)] [('a', 'a'), ('a', 'b'), ('b', 'a')]
[('a', 2), ('b', 3)] [1, 3, 6] [1, 2]
['a', 'b', 'a', 'b', 'a'] [('a', 'c'), ('b', '-')] [0, 1, 2] [(1, 2), (2, 3)]
--- functools and operator
import operator
from functools import cmp_to_key, partial, reduce
print(reduce(operator.mul, [1, 2, 3, 4]), partial(int, base=2)("101"), sorted([3, 1, 2], key=cmp_to_key(lambda a, b: b - a)))
rows = [{"n": "b", "v": 2}, {"n": "a", "v": 1}]
print(sorted(rows, key=operator.itemgetter("n")), list(map(operator.attrgetter("real"), [1, 2.5])), list(map(operator.methodcaller("upper"), ["x"])))
>>>
24 5 [3, 2, 1]
[{'n': 'a', 'v': 1}, {'n': 'b', 'v': 2}] [1, 2.5] ['X']
--- math, cmath, statistics, fractions
import cmath, math, statistics
from fractions import Fraction
print(math.sqrt(2), math.comb(5, 2), math.gcd(12, 18), math.isclose(0.1 + 0.2, 0.3), math.pi, math.inf, math.floor(-1.5), math.prod([2, 3]), math.log10(1000))
print(cmath.sqrt(-1), statistics.mean([1, 2, 4]), statistics.median([3, 1, 2]), statistics.stdev([1, 2, 3]), statistics.mode("aab"), Fraction(1, 3) + Fraction(1, 6))
>>>
1.4142135623730951 10 6 True 3.141592653589793 inf -2 6 3.0
1j 2.3333333333333335 2 1.0 a 1/2
--- decimal with a precision
import decimal
from decimal import ROUND_HALF_UP, Decimal, getcontext
getcontext().prec = 10
print(Decimal("1") / Decimal("3"), Decimal("2.675").quantize(Decimal("0.01"), rounding=ROUND_HALF_UP))
with decimal.localcontext() as ctx:
    ctx.prec = 4
    print(Decimal(2).sqrt())
getcontext().prec = 28
>>>
0.3333333333 2.68
1.414
--- datetime: strptime, strftime, arithmetic
from datetime import date, datetime, timedelta, timezone
d = datetime.strptime("2024-02-28 13:45", "%Y-%m-%d %H:%M")
print(d + timedelta(days=2), d.strftime("%d %B %Y, %A"), d.isoformat(), (date(2024, 3, 1) - d.date()).days, datetime.fromisoformat("2024-01-02T03:04:05+00:00").tzinfo == timezone.utc)
print(sorted([date(2024, 5, 1), date(2023, 1, 1)])[0].year, d.replace(hour=0).weekday(), timedelta(hours=36).total_seconds())
>>>
2024-03-01 13:45:00 28 February 2024, Wednesday 2024-02-28T13:45:00 2 True
2023 2 129600.0
--- datetime as a module, and time
import datetime, time, calendar
start = time.time()
print(datetime.datetime(2024, 1, 31).month, datetime.date.fromisoformat("2024-05-06"), calendar.monthrange(2024, 2)[1], calendar.month_name[5], calendar.isleap(2024))
print(time.time() - start < 60, time.perf_counter() > 0, time.strftime("%Y", time.gmtime(0)), time.strptime("5 May 2024", "%d %b %Y").tm_yday)
>>>
1 2024-05-06 29 May True
True True 1970 126
--- random with a seed
import random
random.seed(42)
sample = random.sample(range(100), 5)
random.seed(42)
items = list("abcdef")
print(sample == random.sample(range(100), 5), random.choice([1]), 0 <= random.random() < 1, sorted(random.sample(items, 6)) == items, 1 <= random.randint(1, 6) <= 6)
random.shuffle(items)
r = random.Random(7)
print(r.randint(1, 10**6) == random.Random(7).randint(1, 10**6), len(random.choices("ab", weights=[1, 2], k=3)))
>>>
True 1 True True True
True 3
--- heapq and bisect
import bisect, heapq
h = [5, 1, 4]
heapq.heapify(h)
heapq.heappush(h, 0)
print(heapq.heappop(h), heapq.nlargest(2, [3, 9, 4]), heapq.nsmallest(1, [("b", 2), ("a", 1)], key=lambda x: x[1]), list(heapq.merge([1, 3], [2])))
s = [1, 3, 5]
bisect.insort(s, 4)
print(s, bisect.bisect_left(s, 3), bisect.bisect(s, 3))
>>>
0 [9, 4] [('a', 1)] [1, 2, 3]
[1, 3, 4, 5] 1 2
--- csv: DictReader over StringIO, and writer
import csv, io
text = 'name,score\n"Doe, J",3\nAnn,5\n'
rows = list(csv.DictReader(io.StringIO(text)))
print(rows, sum(int(r["score"]) for r in rows))
out = io.StringIO()
w = csv.DictWriter(out, fieldnames=["a", "b"], lineterminator="\n")
w.writeheader()
w.writerow({"a": 1, "b": "x,y"})
csv.writer(out, delimiter=";", quoting=csv.QUOTE_ALL, lineterminator="\n").writerow([1, 2])
print(out.getvalue())
>>>
[{'name': 'Doe, J', 'score': '3'}, {'name': 'Ann', 'score': '5'}] 8
a,b
1,"x,y"
"1";"2"
--- csv.reader over lines with another delimiter
import csv
for row in csv.reader("a\tb\n1\t2".splitlines(), delimiter="\t"):
    print(row)
>>>
['a', 'b']
['1', '2']
--- hashlib, base64, binascii
import base64, binascii, hashlib
print(hashlib.md5(b"x").hexdigest(), hashlib.sha256("é".encode()).hexdigest()[:8], base64.b64encode(b"hi").decode(), base64.b64decode("aGk="), binascii.hexlify(b"a"), hashlib.new("sha1", b"").hexdigest()[:6])
>>>
9dd4e461268c8034f5c8564e155c67a6 4a99557e aGk= b'hi' b'61' da39a3
--- copy
import copy
a = {"x": [1, [2]]}
b, c = copy.copy(a), copy.deepcopy(a)
a["x"][1].append(3)
class Thing:
    def __init__(self): self.parts = [1]
t = Thing()
t2 = copy.deepcopy(t)
t.parts.append(2)
print(b, c, t2.parts, copy.copy(t).parts)
>>>
{'x': [1, [2, 3]]} {'x': [1, [2]]} [1] [1, 2]
--- difflib
import difflib
print(round(difflib.SequenceMatcher(None, "abcd", "bcde").ratio(), 2), difflib.get_close_matches("appel", ["ape", "apple", "peach"]))
print("\n".join(list(difflib.unified_diff(["a", "b"], ["a", "c"], lineterm=""))[2:]))
>>>
0.75 ['apple', 'ape']
@@ -1,2 +1,2 @@
 a
-b
+c
--- ast.literal_eval
import ast
print(ast.literal_eval("{'a': [1, (2, 3)], 'b': None}"))
try:
    ast.literal_eval("len('x')")
except ValueError:
    print("refused")
>>>
{'a': [1, (2, 3)], 'b': None}
refused
--- contextlib: suppress, contextmanager, ExitStack, nullcontext
from contextlib import ExitStack, contextmanager, nullcontext, suppress
with suppress(KeyError, ZeroDivisionError):
    {}["x"]
@contextmanager
def tag(name):
    print(f"<{name}>")
    try:
        yield name.upper()
    finally:
        print(f"</{name}>")
with tag("b") as t, nullcontext(5) as n:
    print(t, n)
with ExitStack() as stack:
    stack.callback(print, "closed")
    stack.enter_context(tag("i"))
>>>
<b>
B 5
</b>
<i>
</i>
closed
--- struct, zlib, numbers, io.BytesIO
import io, numbers, struct, zlib
b = io.BytesIO(struct.pack(">HI", 1, 2))
print(struct.unpack(">HI", b.read()), zlib.decompress(zlib.compress(b"x" * 100)) == b"x" * 100, zlib.crc32(b"a"), isinstance(1.5, numbers.Number))
>>>
(1, 2) True 3904355907 True
--- sys: version, maxsize, exc-less use
import sys
print(sys.version_info >= (3, 11), sys.maxsize > 2**32, sys.getsizeof([]) > 0, sys.getrecursionlimit() > 100)
sys.setrecursionlimit(2000)
>>>
True True True True
--- traceback.format_exc and print_exc
import traceback
def broken():
    raise ValueError("broken here")
try:
    broken()
except ValueError:
    text = traceback.format_exc()
    print(text.strip().splitlines()[0])
    print(text.strip().splitlines()[-1], "broken()" in text)
>>>
Traceback (most recent call last):
ValueError: broken here True
--- warnings and logging are there or refused cleanly
try:
    import logging
except ImportError:
    logging = None
print(logging is None or hasattr(logging, "info"))
>>>
True
--- a module that is not there
try:
    import numpy as np
    HAVE = True
except ImportError as e:
    HAVE = False
print("numpy" if HAVE else "no numpy", HAVE and np.array([1]).sum())
>>>
no numpy False
--- from imports with an alias, and several at once
from collections import Counter as C, defaultdict as dd
import json as j, re as r
print(C("aab"), dd(int)["x"], j.dumps([1]), r.sub("a", "b", "a"))
>>>
Counter({'a': 2, 'b': 1}) 0 [1] b
--- import inside functions and conditionals
def parse(s):
    import json
    from datetime import datetime as dt
    return json.loads(s), dt(2024, 1, 1).year
if True:
    import math
print(parse("[1]"), math.e)
>>>
([1], 2024) 2.718281828459045
--- from __future__ import annotations
from __future__ import annotations
def f(x: Undefined) -> AlsoUndefined:
    return x
print(f(3))
>>>
3
--- collections.abc as a module
import collections.abc
print(isinstance({}, collections.abc.Mapping), isinstance([], collections.abc.Iterable), isinstance(len, collections.abc.Callable), isinstance("x", collections.abc.Hashable))
>>>
True True True True
=== async and executors
--- async main with asyncio.run and gather
import asyncio
async def fetch(n):
    await asyncio.sleep(0)
    return n * 2
async def main():
    results = await asyncio.gather(*(fetch(n) for n in range(4)))
    return results
print(asyncio.run(main()))
>>>
[0, 2, 4, 6]
--- top-level await
import asyncio
async def work(x):
    return x + 1
result = await work(1)
both = await asyncio.gather(work(2), work(3))
print(result, both)
>>>
2 [3, 4]
--- tasks, wait_for and a semaphore
import asyncio
sem = asyncio.Semaphore(2)
async def limited(i):
    async with sem:
        await asyncio.sleep(0.001)
        return i
async def main():
    tasks = [asyncio.create_task(limited(i)) for i in range(3)]
    done = [await t for t in tasks]
    one = await asyncio.wait_for(limited(9), timeout=5)
    return done, one
print(asyncio.run(main()))
>>>
([0, 1, 2], 9)
--- gather with exceptions returned
import asyncio
async def maybe(i):
    if i == 1:
        raise ValueError("one")
    return i
async def main():
    return await asyncio.gather(*[maybe(i) for i in range(3)], return_exceptions=True)
print([r if not isinstance(r, Exception) else type(r).__name__ for r in asyncio.run(main())])
>>>
[0, 'ValueError', 2]
--- asyncio.to_thread, and async comprehensions
import asyncio
async def numbers():
    for i in range(3):
        yield i
async def main():
    return [i async for i in numbers()], await asyncio.to_thread(sum, [1, 2])
print(asyncio.run(main()))
>>>
([0, 1, 2], 3)
--- async with and async for
import asyncio
class Session:
    async def __aenter__(self):
        return self
    async def __aexit__(self, *error):
        print("closed")
    def __aiter__(self):
        self.n = 0
        return self
    async def __anext__(self):
        self.n += 1
        if self.n > 2:
            raise StopAsyncIteration
        return self.n
async def main():
    async with Session() as s:
        async for n in s:
            print(n)
asyncio.run(main())
>>>
1
2
closed
--- an event loop by hand
import asyncio
async def f():
    return 5
loop = asyncio.new_event_loop()
print(loop.run_until_complete(f()))
loop.close()
>>>
5
--- ThreadPoolExecutor.map
from concurrent.futures import ThreadPoolExecutor
with ThreadPoolExecutor(max_workers=4) as pool:
    print(list(pool.map(lambda x: x ** 2, range(5))), list(pool.map(pow, [2, 3], [3, 2])))
>>>
[0, 1, 4, 9, 16] [8, 9]
--- submit and as_completed
from concurrent.futures import ThreadPoolExecutor, as_completed
def job(n):
    if n == 2:
        raise ValueError("two")
    return n * 10
with ThreadPoolExecutor() as executor:
    futures = {executor.submit(job, n): n for n in range(4)}
    results = {}
    for future in as_completed(futures):
        try:
            results[futures[future]] = future.result()
        except ValueError as e:
            results[futures[future]] = str(e)
print(sorted(results.items(), key=lambda kv: kv[0]))
>>>
[(0, 0), (1, 10), (2, 'two'), (3, 30)]
--- futures with exception and done, as a module
import concurrent.futures
with concurrent.futures.ThreadPoolExecutor(max_workers=2) as ex:
    f = ex.submit(lambda: 1 / 0)
    g = ex.submit(sum, [1, 2])
    done, pending = concurrent.futures.wait([f, g])
print(type(f.exception()).__name__, g.result(timeout=5), g.done(), len(done), len(pending))
>>>
ZeroDivisionError 3 True 2 0
=== long cells
--- find names with a regular expression over documents
import re
from collections import Counter
pattern = re.compile(r"\b([A-Z][a-z]+ [A-Z][a-z]+)\b")
mentions = Counter()
where = {}
for number, document in enumerate(docs):
    for match in pattern.finditer(document):
        mentions[match.group(1)] += 1
        where.setdefault(match.group(1), []).append(number)
for name, count in mentions.most_common(3):
    print(f"{name:<15}{count:>3}  docs {where[name]}")
>>>
Ann Lee          3  docs [0, 0, 1]
Mary Poe         2  docs [1, 3]
The Lily         1  docs [1]
--- chunk a text with overlap
def chunk_text(text, size=60, overlap=10):
    chunks, start = [], 0
    while start < len(text):
        end = min(start + size, len(text))
        if end < len(text):
            space = text.rfind(" ", start, end)
            if space > start:
                end = space
        chunks.append(text[start:end].strip())
        if end == len(text):
            break
        start = max(end - overlap, start + 1)
    return chunks
chunks = chunk_text(context)
print(f"{len(chunks)} chunks, longest {max(map(len, chunks))}")
for i, c in enumerate(chunks[:2]):
    print(i, repr(c))
>>>
5 chunks, longest 58
0 'Ann Lee won the Rose pageant in 1998. The winner, Ann Lee,'
1 ', Ann Lee, lives in Oslo.\nThe Lily pageant of 1998 was won'
--- probe the context
print(type(context), len(context))
print(context[:40])
lines = context.split("\n")
print(f"{len(lines)} lines; first: {lines[0]!r}; last: {lines[-1]!r}")
[i for i, line in enumerate(lines) if "pageant" in line.lower()]
>>>
<class 'str'> 247
Ann Lee won the Rose pageant in 1998. Th
4 lines; first: 'Ann Lee won the Rose pageant in 1998. The winner, Ann Lee, lives in Oslo.'; last: 'Mary Poe opened the bridge on the river.'
[0, 1, 2]
--- aggregate records
from collections import defaultdict
import statistics
by_city = defaultdict(list)
for r in records:
    by_city[r["city"]].append(r["amount"])
summary = {city: {"n": len(v), "mean": round(statistics.mean(v), 2), "max": max(v)} for city, v in sorted(by_city.items())}
for city, s in summary.items():
    print(f"{city}: {s['n']} sales, mean {s['mean']}, max {s['max']}")
best, _ = max(summary.items(), key=lambda kv: kv[1]["mean"])
print("best:", best)
>>>
Oslo: 2 sales, mean 20.5, max 31
Rome: 1 sales, mean 7.5, max 7.5
best: Oslo
--- an index with a class and scores
import math, re
from collections import Counter, defaultdict
class Index:
    """A small BM25 index."""
    def __init__(self, documents, k=1.5, b=0.75):
        self.k, self.b = k, b
        self.docs = [Counter(self._tokens(d)) for d in documents]
        self.sizes = [sum(d.values()) for d in self.docs]
        self.mean = sum(self.sizes) / len(self.sizes)
        self._df = defaultdict(int)
        for d in self.docs:
            for token in d:
                self._df[token] += 1
    @staticmethod
    def _tokens(text):
        return re.findall(r"[a-z0-9]+", text.lower())
    def _idf(self, token):
        n = self._df.get(token, 0)
        return math.log(1 + (len(self.docs) - n + 0.5) / (n + 0.5))
    def search(self, query, top=2):
        scores = []
        for i, (d, size) in enumerate(zip(self.docs, self.sizes)):
            score = 0.0
            for token in self._tokens(query):
                f = d[token]
                score += self._idf(token) * f * (self.k + 1) / (f + self.k * (1 - self.b + self.b * size / self.mean))
            scores.append((round(score, 3), i))
        return sorted(scores, reverse=True)[:top]
index = Index(docs)
print(index.search("pageant winner 1998"))
>>>
[(2.068, 0), (0.996, 1)]
--- a plan with sub-calls and a dictionary of answers
questions = ["Who won?", "Which year?"]
answers = {}
for q in questions:
    answers[q] = llm_query(f"{q} Answer from: {docs[0]}")
for q, a in answers.items():
    print(f"Q: {q}\nA: {a}")
>>>
Q: Who won?
A: answer to 'Who won? Answer '
Q: Which year?
A: answer to 'Which year? Answ'
--- a batch with prompts from chunks
prompts = [f"Summarise: {d[:20]}" for d in docs]
results = llm_query_batched(prompts)
assert len(results) == len(prompts)
combined = " | ".join(r for r in results if r)
print(combined[:120])
>>>
<the Rose> | <eant of > | <judges o> | <ned the >
--- a tool called from a pool and from a comprehension
from concurrent.futures import ThreadPoolExecutor
def ask_one(item):
    i, d = item
    return i, llm_query("Count: " + d[:10])
with ThreadPoolExecutor(8) as pool:
    found = dict(pool.map(ask_one, enumerate(docs[:3])))
print(found, [llm_query(x) for x in ("p", "q")])
>>>
{0: "answer to 'Count: Ann Lee w'", 1: "answer to 'Count: The Lily '", 2: "answer to 'Count: In 1999 t'"} ["answer to 'p'", "answer to 'q'"]
--- parse a table in text
table = """
| name | qty | price |
|------|-----|-------|
| pen  | 3   | 1.50  |
| ink  | 10  | 0.99  |
"""
rows = []
for line in table.strip().splitlines()[2:]:
    name, qty, price = [cell.strip() for cell in line.strip("|").split("|")]
    rows.append({"name": name, "qty": int(qty), "price": float(price)})
total = sum(r["qty"] * r["price"] for r in rows)
print(rows)
print(f"total = {total:.2f}")
>>>
[{'name': 'pen', 'qty': 3, 'price': 1.5}, {'name': 'ink', 'qty': 10, 'price': 0.99}]
total = 14.40
--- dates in many formats
from datetime import datetime
def parse_date(text):
    for fmt in ("%Y-%m-%d", "%d/%m/%Y", "%B %d, %Y", "%d %b %Y"):
        try:
            return datetime.strptime(text, fmt).date()
        except ValueError:
            continue
    return None
for t in ["2024-03-05", "05/03/2024", "March 5, 2024", "5 Mar 2024", "soon"]:
    d = parse_date(t)
    print(f"{t:>15} -> {d.isoformat() if d else None}")
>>>
     2024-03-05 -> 2024-03-05
     05/03/2024 -> 2024-03-05
  March 5, 2024 -> 2024-03-05
     5 Mar 2024 -> 2024-03-05
           soon -> None
--- a state machine with an enum
from enum import Enum, auto
class State(Enum):
    START = auto()
    WORD = auto()
    NUMBER = auto()
def tokens(text):
    state, buffer, out = State.START, "", []
    for ch in text + " ":
        new = State.WORD if ch.isalpha() else State.NUMBER if ch.isdigit() else State.START
        if new is not state and buffer:
            out.append((state.name, buffer))
            buffer = ""
        if new is not State.START:
            buffer += ch
        state = new
    return out
print(tokens("abc 12x9"))
>>>
[('WORD', 'abc'), ('NUMBER', '12'), ('WORD', 'x'), ('NUMBER', '9')]
--- a parser of arithmetic
import re
def calc(source):
    tokens = re.findall(r"\d+\.?\d*|[-+*/()]", source)
    pos = 0
    def peek():
        return tokens[pos] if pos < len(tokens) else None
    def take():
        nonlocal pos
        pos += 1
        return tokens[pos - 1]
    def atom():
        if peek() == "(":
            take()
            value = expr()
            take()
            return value
        if peek() == "-":
            take()
            return -atom()
        return float(take())
    def term():
        value = atom()
        while peek() in ("*", "/"):
            value = value * atom() if take() == "*" else value / atom()
        return value
    def expr():
        value = term()
        while peek() in ("+", "-"):
            value = value + term() if take() == "+" else value - term()
        return value
    return expr()
print(calc("2*(3+4)-6/3"), calc("-(1+2)"))
>>>
12.0 -3.0
--- a graph search
from collections import deque
import heapq
graph = {"a": {"b": 1, "c": 4}, "b": {"c": 2, "d": 5}, "c": {"d": 1}, "d": {}}
def shortest(start, goal):
    heap, seen = [(0, start, [start])], set()
    while heap:
        cost, node, path = heapq.heappop(heap)
        if node == goal:
            return cost, path
        if node in seen:
            continue
        seen.add(node)
        for nxt, w in graph[node].items():
            heapq.heappush(heap, (cost + w, nxt, path + [nxt]))
    return None
print(shortest("a", "d"))
order, queue = [], deque(["a"])
while queue:
    n = queue.popleft()
    if n not in order:
        order.append(n)
        queue.extend(graph[n])
print(order)
>>>
(4, ['a', 'b', 'c', 'd'])
['a', 'b', 'c', 'd']
--- dynamic programming over two strings
def edit_distance(a, b):
    dp = [[i + j if i * j == 0 else 0 for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            dp[i][j] = min(dp[i - 1][j] + 1, dp[i][j - 1] + 1, dp[i - 1][j - 1] + (a[i - 1] != b[j - 1]))
    return dp[-1][-1]
print(edit_distance("kitten", "sitting"), [[edit_distance(x, y) for y in ("a", "ab")] for x in ("", "b")])
>>>
3 [[1, 2], [1, 1]]
--- votes over answers
from collections import Counter
raw = ["Paris", "paris.", " Paris ", "Lyon", None]
def normalise(answer):
    return answer.strip().rstrip(".").lower() if isinstance(answer, str) else None
votes = Counter(v for v in map(normalise, raw) if v)
winner, n = votes.most_common(1)[0]
confidence = n / sum(votes.values())
print(f"{winner=} {n=} {confidence:.0%}")
>>>
winner='paris' n=3 75%
--- retry with a decorator and a fallback
import functools
def retry(times, on=(Exception,)):
    def decorate(f):
        @functools.wraps(f)
        def inner(*args, **kwargs):
            last = None
            for attempt in range(1, times + 1):
                try:
                    return f(*args, **kwargs)
                except on as error:
                    last = error
                    print(f"attempt {attempt} failed: {error}")
            raise RuntimeError(f"gave up after {times}") from last
        return inner
    return decorate
state = {"n": 0}
@retry(3, on=(ValueError,))
def flaky():
    state["n"] += 1
    if state["n"] < 3:
        raise ValueError(f"try {state['n']}")
    return "ok"
print(flaky())
>>>
attempt 1 failed: try 1
attempt 2 failed: try 2
ok
--- merge sort and a check by sorted
def merge_sort(items):
    if len(items) <= 1:
        return items
    mid = len(items) // 2
    left, right = merge_sort(items[:mid]), merge_sort(items[mid:])
    out, i, j = [], 0, 0
    while i < len(left) and j < len(right):
        if left[i] <= right[j]:
            out.append(left[i]); i += 1
        else:
            out.append(right[j]); j += 1
    return out + left[i:] + right[j:]
data = [5, 2, 9, 1, 5, 6]
assert merge_sort(data) == sorted(data)
merge_sort(data)
>>>
[1, 2, 5, 5, 6, 9]
--- an event system with closures and partial
from functools import partial
handlers = {}
def on(event):
    def register(f):
        handlers.setdefault(event, []).append(f)
        return f
    return register
@on("save")
def log(name, level="info"):
    return f"{level}:{name}"
handlers["save"].append(partial(log, level="debug"))
print([h("doc") for h in handlers["save"]])
>>>
['info:doc', 'debug:doc']
--- a report with format specifications
rows = [("Alpha", 1234.5, 0.12), ("Beta", 98.765, 0.5)]
header = "{:<10}|{:>12}|{:>8}".format("name", "value", "share")
print(header)
print("-" * len(header))
for name, value, share in rows:
    print("{0:<10}|{1:>12,.2f}|{2:>8.1%}".format(name, value, share))
print("{:=^31}".format(" end "))
>>>
name      |       value|   share
--------------------------------
Alpha     |    1,234.50|   12.0%
Beta      |       98.77|   50.0%
============= end =============
--- sets of documents
tagged = {i: set(d.lower().replace(".", "").split()) for i, d in enumerate(docs)}
common = set.intersection(*tagged.values())
union = set().union(*tagged.values())
print(sorted(common), len(union) > 10, sorted(tagged[0] & tagged[1])[:3], tagged[0] >= {"the"}, sorted(tagged[0] ^ tagged[1])[:2])
>>>
['the'] True ['1998', 'ann', 'lee'] True ['by', 'in']
=== ends of cells, and what only the sandbox has
--- exit ends the cell !
print("before")
exit()
print("after")
>>>
before
--- quit with a status !
print("before")
quit(0)
print("after")
>>>
before
--- sys.exit ends the cell
import sys
print("before")
sys.exit(1)
print("after")
>>>
before
--- raise SystemExit
print("before")
raise SystemExit("done")
>>>
before
--- FINAL with a string !
answer = "forty-two"
FINAL(answer)
print("after")
>>>
final: "forty-two"
--- FINAL with nested data !
FINAL({"answer": [1, 2.5, None, True], "k": {"x": "é"}})
>>>
final: {"answer": [1, 2.5, null, true], "k": {"x": "\u00e9"}}
--- FINAL with tuples, sets and generators becomes lists !
FINAL({"t": (1, 2), "s": {3}, "g": [x for x in range(2)]})
>>>
final: {"t": [1, 2], "s": [3], "g": [0, 1]}
--- FINAL in a function and in a loop !
def finish(x):
    FINAL(f"found {x}")
for i in range(5):
    if i == 3:
        finish(i)
print("not reached")
>>>
final: "found 3"
--- FINAL in try with a bare except !
try:
    FINAL(1)
except:
    print("swallowed")
print("not reached")
>>>
final: 1
--- FINAL_VAR by name !
result_text = "from a variable"
FINAL_VAR("result_text")
>>>
final: "from a variable"
--- FINAL_VAR with the value itself !
another = [1, 2]
FINAL_VAR(another)
>>>
final: [1, 2]
--- SHOW_VARS tells names and types !
only_here = 1
"only_here" in str(SHOW_VARS()), "int" in str(SHOW_VARS())
>>>
(True, True)
--- time.sleep is refused !
import time
try:
    time.sleep(0.001)
except Exception:
    print("refused")
print("on")
>>>
refused
on
--- an import that is refused says what is there !
try:
    import socket
except ModuleNotFoundError as e:
    print("json" in str(e), "socket" in str(e))
>>>
True True
--- open is refused, and can be caught !
try:
    open("data.txt")
except FileNotFoundError:
    print("refused")
>>>
refused
--- a check that the calculator sees only what it is given
x = 5
print(eval("x + y", {"__builtins__": {}}, {"x": 1, "y": 2}), eval("x * 2"))
>>>
3 10
--- functional enums with names and a start
from enum import Enum, IntEnum, StrEnum
Label = Enum("Label", ["RED", "BLUE"])
Size = IntEnum("Size", "S M", start=10)
print(Label["RED"].value, list(Size), Enum("P", "A, B").B, StrEnum("T", ["UP"]).UP)
>>>
1 [<Size.S: 10>, <Size.M: 11>] P.B up
--- a map of an executor raises where it is read
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
with ThreadPoolExecutor(4) as pool:
    found = []
    results = pool.map(lambda n: 6 // n, [1, 0, 2])
    try:
        for result in results:
            found.append(result)
    except ZeroDivisionError:
        found.append("division by zero")
    done, pending = wait([pool.submit(len, "abc")], return_when=FIRST_COMPLETED)
print(found, len(done), len(pending))
>>>
[6, 'division by zero'] 1 0
--- imports out of habit
import os, warnings
from typing import TYPE_CHECKING, Annotated, Awaitable, MutableMapping, Protocol, Type, TypeVar, final
warnings.filterwarnings("ignore")
T = TypeVar("T")
class Reader(Protocol[T]):
    def read(self) -> T: ...
@final
class File(Reader):
    def read(self): return os.path.splitext(os.path.join("src", "a.py"))
print(File().read(), os.path.basename("x/y.txt"))
>>>
('src/a', '.py') y.txt
--- csv with a field longer than the default limit
import csv, io, sys
csv.field_size_limit(sys.maxsize)
print(len(next(csv.reader(io.StringIO("a," + "b" * 200_000)))[1]))
>>>
200000
--- a queue, a lock, file name patterns
import fnmatch, queue, threading
todo, lock = queue.Queue(), threading.Lock()
for name in "a.txt", "b.md", "c.txt":
    todo.put(name)
with lock:
    while not todo.empty():
        name = todo.get()
        print(name, fnmatch.fnmatch(name, "*.txt"))
print(fnmatch.filter(["x.py", "y.c"], "*.py"))
>>>
a.txt True
b.md False
c.txt True
['x.py']
--- an order of what depends on what
from graphlib import TopologicalSorter, CycleError
print([*TopologicalSorter({"report": {"count"}, "count": {"read"}}).static_order()])
try:
    [*TopologicalSorter({"a": {"b"}, "b": {"a"}}).static_order()]
except CycleError as error:
    print(error.args[0])
>>>
['read', 'count', 'report']
nodes are in a cycle
--- JSON that has text behind it
from json.decoder import JSONDecodeError, JSONDecoder
print(JSONDecoder().raw_decode('{"a": 1} and so on'))
try:
    JSONDecoder().decode("{")
except JSONDecodeError as error:
    print(error.pos, error.msg)
>>>
({'a': 1}, 8)
1 Expecting property name enclosed in double quotes
--- wraps of a partial, and what hangs on a function
import functools
def tag(f):
    f.tag = "t"
    return f
@tag
def add(a, b):
    "Add."
    return a + b
@functools.wraps(add)
def wrapper(*args): return add(*args)
print(wrapper.__name__, wrapper.__doc__, wrapper.tag)
five = functools.wraps(functools.partial(add, 5))(lambda b: add(5, b))
print(five(1))
>>>
add Add. t
6
--- notes on an exception
import io, traceback
stream = io.StringIO()
try:
    raise ValueError("bad row")
except ValueError as error:
    error.row = 7
    print(error.row, error)
    traceback.print_exc(file=stream)
print(stream.getvalue().splitlines()[-1])
>>>
7 bad row
ValueError: bad row
--- a dataclass and its own docstring
from dataclasses import dataclass
@dataclass
class Point:
    "A point."
    x: int = 0
@dataclass
class Bare:
    x: int = 0
print(Point.__doc__, Point(3), Bare(1) == Bare(1))
>>>
A point. Point(x=3) True
--- a stream is a stream
import sys
sys.stdout.writelines(["a", "b", "\n"])
print(sys.stdout.isatty(), type(3) is int, type(int))
>>>
ab
False True <class 'type'>
'''[1:]


def parse(table: str) -> dict[str, tuple[str, str]]:
    r"""The cells by title: "=== g\n--- t\n1 + 1\n>>>\n2\n" -> {"g: t": ("1 + 1\n", "2\n")}."""
    cells = {}
    for group in f"\n{table}".split("\n=== ")[1:]:
        name, *parts = group.split("\n--- ")
        for part in parts:
            title, _, rest = part.partition("\n")
            code, _, expected = f"{rest}\n".partition("\n>>>\n")
            cells[f"{name}: {title}"] = f"{code}\n", expected.rstrip("\n")
    return cells


CELLS = parse(TABLE)


def reference(code: str) -> str:
    """What plain Python makes of a cell: its output, and the last line of its error."""
    names = {"__name__": "__main__", **json.loads(json.dumps(VARIABLES)), **TOOLS}

    def evaluate(tree):
        mode = "eval" if isinstance(tree, ast.Expression) else "exec"
        value = eval(compile(tree, "<cell>", mode, ast.PyCF_ALLOW_TOP_LEVEL_AWAIT), names)
        return asyncio.run(value) if inspect.iscoroutine(value) else value

    linecache.cache["<cell>"] = (len(code), None, code.splitlines(True), "<cell>")
    out, error = io.StringIO(), ""
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
        try:
            tree = ast.parse(code)
            last = tree.body.pop() if isinstance(tree.body[-1], ast.Expr) else None
            evaluate(tree)
            if last and (value := evaluate(ast.Expression(last.value))) is not None:
                print(repr(value))
        except SystemExit:
            pass
        except Exception as problem:  # noqa: BLE001
            error = traceback.format_exception_only(problem)[-1]
    return (out.getvalue() + (error and f"error: {error}")).rstrip("\n")


@pytest.fixture(scope="module")
def repl():
    with Sandbox(VARIABLES, TOOLS) as sandbox:
        yield sandbox


@pytest.mark.parametrize("title", CELLS)
def test_cell(repl, title):
    code, expected = CELLS[title]
    result = repl.run(code)
    found = result.output
    if result.error:
        found += f"error: {result.error.splitlines()[-1]}\n"
    if result.final:
        found += f"final: {json.dumps(result.final.value)}\n"
    assert found.rstrip("\n") == expected, result.error


@pytest.mark.parametrize("title", [title for title in CELLS if not title.endswith(" !")])
def test_the_table_is_what_plain_python_does(title):
    code, expected = CELLS[title]
    assert reference(code) == expected


def test_there_are_cells_for_every_group():
    assert len(CELLS) >= 140
