"""What the code of docs/how_it_works.md prints, in the page itself.

`python docs/outputs.py` runs the page and shows what it would be, with `--write` the outputs go into the page. A test
compares them. A `python` block that prints is followed by a `text` block; one that begins with `# net.py` is a file of
that name.
"""

import argparse
import contextlib
import io
import linecache
import pathlib
import re
import sys
from typing import Any


PAGE = pathlib.Path(__file__).parent / "how_it_works.md"
ZOO = pathlib.Path(__file__).parents[1] / "tests" / "interop"
BLOCK = re.compile(r"```python\n(.*?)```\n(?:\n```text\n.*?```\n)?", re.DOTALL)


def with_outputs(page: str) -> str:
    """A page with what its code prints, all blocks run in order."""
    names: dict[str, Any] = {"__name__": "page"}

    def run(block: re.Match[str]) -> str:
        code = block[1]
        file = re.match(r"# (\w+\.py)\n", code)
        name = file[1] if file else "page.py"
        linecache.cache[name] = (len(code), None, code.splitlines(keepends=True), name)
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            exec(compile(code, name, "exec"), names)
        shown = "\n".join(line.rstrip() for line in out.getvalue().rstrip().splitlines())
        return f"```python\n{code}```\n" + (f"\n```text\n{shown}\n```\n" if shown else "")

    return BLOCK.sub(run, page)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true", help="put the outputs into the page")
    write = parser.parse_args(argv).write
    sys.path.insert(0, str(ZOO))
    page = with_outputs(PAGE.read_text())
    if write:
        PAGE.write_text(page)
    else:
        print(page)


if __name__ == "__main__":
    main()
