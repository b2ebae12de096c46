"""Tables fit 80 columns, and no number and no name is cut."""

import io
import itertools
import random
import re
from types import SimpleNamespace

import pytest
from causalprune_cli.show.sheet import Sheet
from causalprune_cli.show.sweeps import sweep
from causalprune_cli.show.tables import bullets
from rich.cells import cell_len
from rich.console import Console

from causalprune.pruning.names import CRITERIA


def printed(content, width=80):
    stream = io.StringIO()
    Console(file=stream, width=width).print(content)
    return stream.getvalue().splitlines()


def words(lines):
    return [word for line in lines for word in line.split()]


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("seed", range(12))
def test_every_number_is_there_and_every_line_fits(width, seed):
    """Whatever the widths are: numbers as they were given, names put together again from their parts."""
    draw = random.Random(seed)
    columns = [f"column{n}" + "x" * draw.randrange(12) for n in range(draw.randrange(1, 16))]
    names = ["layer." + "".join(draw.choices("abcdef.", k=draw.randrange(1, 90))) + f".{n}" for n in range(5)]
    sheet = Sheet(["name", *columns], title="A title", pad_edge=draw.random() < 0.5)
    cells = [[f"{draw.randrange(10 ** draw.randrange(1, 15)):,}" for _ in columns] for _ in names]
    for name, row in zip(names, cells, strict=True):
        sheet.add_row(name, *row)
    lines = printed(sheet, width)
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    found = words(lines)
    for value in {*columns, *itertools.chain(*cells)}:
        assert found.count(value) >= [*columns, *itertools.chain(*cells)].count(value)
    numbers = re.compile(r"\d[\d,]*")
    folded = "".join(word for word in found if word not in columns and not numbers.fullmatch(word))
    for name in names:
        assert name.rstrip("0123456789") in folded.replace(" ", "")


def test_what_fits_stays_in_one_table():
    sheet = Sheet(["", *(f"c{n}" for n in range(10))])
    sheet.add_row("row", *("12.3" for _ in range(10)))
    assert len(printed(sheet)) == 2


def test_names_are_in_every_part():
    sheet = Sheet(["layer", *(f"criterion-{n}" for n in range(10))])
    sheet.add_row("conv1", *(f"{n}.5 ±0.1" for n in range(10)))
    lines = printed(sheet)
    assert [line.split()[0] for line in lines if line.strip()] == ["layer", "conv1"] * 2
    # The numbers stay below their titles.
    for title, row in ((lines[0], lines[1]), (lines[3], lines[4])):
        assert [m.end() for m in re.finditer(r"criterion-\d+", title)] == [m.end() for m in re.finditer(r"±0.1", row)]


def test_a_table_of_numbers_has_no_names():
    sheet = Sheet(["row", "loss"], named=False)
    sheet.add_row("7", "0.25")
    assert [line.split() for line in printed(sheet)] == [["row", "loss"], ["7", "0.25"]]
    assert printed(sheet)[1].startswith("  7")


def test_text_in_brackets_is_text():
    sheet = Sheet(["[bold]a[/bold]", "b"], title="[red]t[/red]")
    sheet.add_row("[bold]x[/bold]", "1")
    assert printed(sheet)[0] == "[red]t[/red]"
    assert "[bold]x[/bold]" in printed(sheet)[2]


@pytest.mark.parametrize("width", [80, 120])
def test_a_sweep_of_all_criteria_fits(width):
    criteria = list(CRITERIA)
    summary = [
        {
            "repair": "false",
            "sparsity": sparsity,
            "criterion": criterion,
            "metric": "top1",
            "mean": (100 * i + j) / 5000,
            "std": 0.0123,
            "dense_mean": 0.9876,
            "dense_std": 0.001,
            "seeds": 3,
        }
        for i, criterion in enumerate(criteria)
        for j, sparsity in enumerate((0.8, 0.9, 0.95, 0.99))
    ]
    outputs = {"table": "an other/sweep/results.jsonl"}
    result = SimpleNamespace(summary=summary, outputs=outputs, steps_made={}, done=1, points=1, cells_made=1, shard=1)
    lines = printed(sweep(result), width)
    assert max(map(cell_len, lines)) <= width
    assert "…" not in "".join(lines)
    found = words(lines)
    assert all(found.count(criterion) == 1 for criterion in criteria)
    scores = [f"{100 * line['mean']:.1f}" for line in summary]
    assert sorted(word for word in found if word in scores) == sorted(scores)
    assert found.count("±1.2") == len(summary)
    assert words(lines[-1:]) == ["next", "causalprune", "report", "--run", "'an", "other'"]


@pytest.mark.parametrize(("run", "done", "said"), [("run", 3, "next causalprune report"), ("run", 0, "")])
def test_a_sweep_ends_with_what_to_do_next(run, done, said):
    outputs = {"table": f"{run}/sweep/results.jsonl"}
    result = SimpleNamespace(summary=[], outputs=outputs, steps_made={}, done=done, points=3, cells_made=0, shard=1)
    ends = [" ".join(line.split()) for line in printed(sweep(result)) if "next" in line]
    assert ends == ([said] if said else [])


@pytest.mark.parametrize("width", [20, 80])
def test_a_sentence_goes_on_under_its_first_word(width):
    sentences = ["placebo: no power, 5 permutations can't reach (p = 0.05); more can", "short"]
    lines = printed(bullets(*sentences), width)
    assert [line[:2] for line in lines if line.startswith("•")] == ["• ", "• "]
    assert all(line.startswith("  ") and line[2] != " " for line in lines if not line.startswith("•"))
    assert max(map(len, lines)) <= width
    said = " ".join(line[2:].strip() for line in lines)
    assert said == " ".join(sentences)
