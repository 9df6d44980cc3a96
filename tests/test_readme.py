"""The code in README.md runs as it stands there."""

import pathlib
import re
from typing import Any


README = pathlib.Path(__file__).parents[1] / "README.md"


def test_every_python_block_of_the_readme_runs_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 5
    names: dict[str, Any] = {"__name__": "readme"}
    values = []
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
        values.append(float(names["value"]) if "value" in names else None)
    assert values[0] is not None and values[0] < 3.0
    states, outs = names["states"], names["outs"]
    assert outs[-1].sum() > 0 and states[1].shape == (3,)
    shown = capsys.readouterr().out
    assert "lif1" in shown and "snntorch.Leaky" in shown
