"""The page as a browser reads it: its texts are escaped, its pictures are inside."""

import base64
import csv
import io
import json
from html.parser import HTMLParser

from causalprune.analysis.report.page import Cell, Link, Page, Picture, is_page


class Reader(HTMLParser):
    """Tags with their attributes, and texts, in order."""

    def __init__(self):
        super().__init__()
        self.found = []

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))

    def handle_data(self, data):
        if data.strip():
            self.found.append(data)


def read(page):
    reader = Reader()
    html = page.html()
    reader.feed(html[html.index("<body>") :])
    return reader.found[1:]


def test_the_parts_come_in_order_and_no_text_is_markup():
    hostile = "<b>\"1\" & '2' {{ title }}</b>"
    page = Page(hostile)
    page.heading(hostile, 3)
    page.text(hostile, "note")
    page.text("plain")
    page.table(["name", hostile], [["a", Cell(hostile, spread="±1", best=True)], ["b", "2"]])
    texts = [found for found in read(page) if isinstance(found, str)]
    assert texts == [hostile] * 3 + ["plain", "name", hostile, "a", f"{hostile} ", "±1", "b", "2"]
    tags = [found for found in read(page) if not isinstance(found, str)]
    assert [tag for tag, _ in tags[:4]] == ["h1", "h3", "p", "p"]
    assert [attributes for tag, attributes in tags if tag == "td"] == [{}, {"class": "best"}, {}, {}]


def test_pictures_are_inside_the_page(tmp_path):
    (tmp_path / "p.png").write_bytes(bytes(range(256)))
    page = Page("title")
    page.pictures([Picture(tmp_path / "p.png", 'a "picture"', {"data": []})], small=True)
    ((_, image),) = [found for found in read(page) if found[0] == "img"]
    assert image["alt"] == 'a "picture"'
    head, data = image["src"].split(",")
    assert head == "data:image/png;base64"
    assert base64.b64decode(data) == bytes(range(256))


def test_a_dark_page_has_its_own_picture(tmp_path):
    for name in ("p.png", "p-dark.png"):
        (tmp_path / name).write_bytes(name.encode())
    page = Page("title")
    page.pictures([Picture(tmp_path / "p.png", "a", None, tmp_path / "p-dark.png"), Picture(tmp_path / "p.png", "b")])
    ((_, source),) = [found for found in read(page) if found[0] == "source"]
    assert "prefers-color-scheme: dark" in source["media"]
    assert base64.b64decode(source["srcset"].split(",")[1]) == b"p-dark.png"


def test_many_values_of_a_fact_are_folded():
    page = Page("title")
    page.facts([("few", [str(n) for n in range(6)]), ("many", [Link(f"<{n}>", f"./{n}") for n in range(9)])])
    texts = [found for found in read(page) if isinstance(found, str)]
    assert texts == ["title", "few", *"012345", "many", *(f"<{n}>" for n in range(6)), "3 more", "<6>", "<7>", "<8>"]
    assert [attributes["href"] for tag, attributes in (f for f in read(page) if f[0] == "a")] == [
        f"./{n}" for n in range(9)
    ]


def test_a_page_is_known_again(tmp_path):
    (tmp_path / "page.html").write_text(Page("x" * 5000).html())
    (tmp_path / "other.html").write_text("<!DOCTYPE html><title>causalprune report</title>")
    assert [is_page(tmp_path / name) for name in ("page.html", "other.html", "absent.html")] == [True, False, False]


def test_charts_are_data_that_no_name_ends(tmp_path):
    (tmp_path / "p.png").write_bytes(b"")
    hostile = "</script><script>alert(1)</script><!-- \u2028 '"
    page = Page("title", script="/* the library */")
    page.pictures(
        [Picture(tmp_path / "p.png", "one", {"data": [{"name": hostile}]}), Picture(tmp_path / "p.png", "two")]
    )
    found = read(page)
    scripts = [number for number, one in enumerate(found) if one[0] == "script"]
    assert [found[number][1] for number in scripts] == [{"type": "application/json", "id": "charts"}, {}, {}]
    assert json.loads(found[scripts[0] + 1]) == [{"data": [{"name": hostile}]}]
    assert found[scripts[1] + 1] == "/* the library */"
    charts = [attributes for tag, attributes in (one for one in found if one[0] == "div") if "data-chart" in attributes]
    assert [(one["data-chart"], one["aria-label"]) for one in charts] == [("0", "one")]


def test_a_table_is_a_file_with_its_numbers_in_full():
    page = Page("title")
    third = Cell("0.33", "±0.01", value=1 / 3, deviation=0.01)
    page.table(["a, b", "score"], [['with "quotes"', third], ["–", Cell("–")]], "scores.csv")
    rows = list(csv.reader(io.StringIO(page.tables["scores.csv"].decode())))
    assert rows == [
        ["a, b", "score", "score, standard deviation"],
        ['with "quotes"', repr(1 / 3), "0.01"],
        ["–", "–", ""],
    ]
    assert ("a", {"href": "scores.csv"}) in read(page)


def test_facts_are_texts_or_links():
    page = Page("title")
    page.facts([("<b>", ["plain", Link("a & b", "./a%20%26%20b")])], summary="more")
    found = read(page)
    assert ("a", {"href": "./a%20%26%20b"}) in found
    assert [one for one in found if isinstance(one, str)] == ["title", "more", "<b>", "plain", "a & b"]
