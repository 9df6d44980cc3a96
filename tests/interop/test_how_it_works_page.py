"""The code of docs/how_it_works.md runs, and prints what the page says."""

from helpers.pages import DOCS

from tests.scripts import load_script


def test_the_page_prints_what_it_says():
    outputs = load_script(DOCS / "outputs.py")
    page = outputs.PAGE.read_text()
    assert outputs.with_outputs(page) == page, "run: python docs/outputs.py --write"
    assert page.count("program Net(") >= 4 and page.count("```text") >= 12
