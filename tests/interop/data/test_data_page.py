"""The code of docs/data.md runs."""

import pytest
from helpers.pages import DOCS, run_page
from helpers.recordings import write_nmnist

from tests.scripts import load_example


pytestmark = pytest.mark.full


def test_the_code_of_the_page_runs(tmp_path, capsys):
    write_nmnist(tmp_path, load_example("train_nmnist_events").write_recording)
    page = run_page(DOCS / "data.md", folder=str(tmp_path))
    assert page["counts"].tolist() == page["events"].count.tolist()
    assert min(page["counts"].tolist()) >= 200
    assert "92544 bytes shared, 0 copied" in capsys.readouterr().out
