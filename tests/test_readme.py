"""The code in README.md runs as it stands there."""

import pathlib
import re
from typing import Any

import numpy as np
import pytest

from snnax import engine, snn
from tests.scripts import load_script


pytestmark = pytest.mark.full


README = pathlib.Path(__file__).parents[1] / "README.md"


def test_every_python_block_of_the_readme_runs_in_order(capsys):
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), re.DOTALL)
    assert len(blocks) == 8
    names: dict[str, Any] = {"__name__": "readme"}
    values = []
    for block in blocks:
        exec(compile(block, str(README), "exec"), names)
        values.append(float(names["value"]) if "value" in names else None)
    assert values[0] is not None and values[0] < 3.0
    network_outs, (outs, same, too) = names["network_outs"], (names[name] for name in ("outs", "same", "too"))
    assert network_outs[-1].sum() > 0
    # The engines agree; a mask leaves the first steps as they are.
    for each in (same, too):
        np.testing.assert_allclose(each[-1][:900], outs[-1][:900], rtol=1e-4, atol=1e-5)
    assert outs[1].sum() > 0 and np.any(outs[-1][899]) and not np.any(outs[-1][900:])
    assert names["frames"].shape == (3, 2, 2, 2, 2) and names["frames"].sum() == 3
    shown = capsys.readouterr().out
    assert "lif1" in shown and "snntorch.Leaky" in shown


def test_the_tables_are_those_of_the_code():
    features = load_script(README.parent / "docs" / "features.py")
    written = README.read_text().split(features.START)[1].split(features.END)[0]
    assert written == features.tables(), "run: python docs/features.py --write"
    # Of every public module, and of layers all that are exported.
    layers = [kind for kind in vars(snn).values() if isinstance(kind, type) and issubclass(kind, engine.AbstractLayer)]
    rows = {f"| `{kind.__name__}` |" for kind in layers if not kind.__name__.startswith("Abstract")}
    assert len(rows) > 20 and all(written.count(row) == 1 for row in rows)
