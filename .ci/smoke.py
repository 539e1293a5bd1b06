"""A smoke test of some seconds, without pytest: a cell, an attack of each technique, a run over HTTP.

The attacks are the first ones of each technique in tests/attacks.txt, behind both walls; what they
must not do is write a file, or get out what the host knows.
"""

import os
import re
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]

from server import Server

from rlm import RLM
from sandbox import Sandbox

SECRET = f"secret_{os.urandom(8).hex()}"


def ask(prompt, key=SECRET):
    """Be a tool with a secret."""
    return f"asked {prompt}"


def attacks() -> dict[str, list[str]]:
    """Return the cells of one attack of each technique: the first that needs no helper."""
    text = (ROOT / "tests/attacks.txt").read_text("utf-8")
    found = {}
    for part in re.split(r"(?m)^=== ", text)[1:]:
        technique, code = part.split("\n", 1)
        several = re.split(r"(?m)^---\n", re.split(r"(?m)^--- ", code)[0])  # for any Python
        plain = [one for one in several if "loot(" not in one]
        found[technique.strip()] = re.split(r"(?m)^%%\n", (plain or several)[0])
    return found


def attack(cells: list[str], folder: Path):
    """Run an attack, and fail if it has an effect."""
    marker, canary = folder / "marker", folder / "canary"
    canary.write_text(SECRET)
    paths = {"$MARKER": str(marker), "$CANARY": str(canary), "$PORT": "9"}
    tools = {"ask": ask, "client_ask": ask}
    with Sandbox({"context": ["alpha", "beta"]}, tools, cell_seconds=3) as repl:
        for cell in cells:
            for name, value in paths.items():
                cell = cell.replace(name, value)
            result = repl.run(cell)
            assert SECRET not in str(result), cell
            assert not marker.exists(), cell
        assert repl.run("ask('x')").output == "'asked x'\n", cells


def model(body: dict) -> str:
    """Play the model behind the server."""
    messages = body["messages"]
    if messages[0]["role"] != "system":
        return "forty-two"
    return '```repl\nFINAL(llm_query("How much?", context[:5]) + "!")\n```'


def main():
    began = time.monotonic()
    with Sandbox({"context": "a b"}) as repl:
        assert repl.run("len(context.split())").output == "2\n"
        walls = repl.walls
    found = attacks()
    with tempfile.TemporaryDirectory() as folder:
        for cells in found.values():
            attack(cells, Path(folder))
    with Server(model) as server:
        done = RLM("some-model", base_url=server.url, api_key="k").completion("Q", "some text")
    assert (done.answer, done.usage.calls) == ("forty-two!", 2)
    took = f"{time.monotonic() - began:.1f} s"
    print(f"a cell, {len(found)} attacks, a run over HTTP: {took}; walls: {', '.join(walls)}")


if __name__ == "__main__":
    main()
