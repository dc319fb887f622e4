"""The report page in a browser: nothing leaves it, what models wrote stays text, and it can be sorted, filtered and
read by keyboard."""

from __future__ import annotations

import math
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest
from msgspec import convert, structs
from playwright.sync_api import Browser, Locator, Page, Route, sync_playwright

from harness.report.leaderboard import groups, leaderboard
from harness.report.page import examples
from harness.report.page.charts import chart
from harness.report.page.examples import BLOCK, blocks, index, left_out, visible
from harness.report.page.write import write_board_page, write_page
from harness.report.stats.curves import Curve, Curves
from harness.results import Cell, CellResult, Manifest, Record, Sample, TaskResult
from harness.store.prompts import PromptFile
from harness.store.reader import Grid
from harness.store.shards import ALONE
from harness.task import Metric
from tests.conftest import Command

METRIC = Metric("f1", "F1", 1.0)
NASTY = (
    "</script><script>window.canary = 1</script><img src=x onerror='window.canary = 1'> \x1b[31mred\x1b[0m "
    "\u202egnp.exe"
)
TEXTS = {"fullkv": "the cat sat on the mat", "snapkv": "the dog sat on the mat", "<b>bold</b>": NASTY}
EXAMPLES = 60


def record(place: int, label: str, budget: int) -> Record:
    score = {"fullkv": 1.0, "snapkv": 0.5 if place % 2 else 1.0, "<b>bold</b>": 0.25}[label]
    return Record(
        f"e{place:02}",
        {"length": 100 * (place % 3 + 1), "depth": 50 * (place % 2)},
        ("the cat", NASTY),
        {},
        400,
        None,
        prompt_ends=("Once upon", "the end?"),
        text=TEXTS[label],
        scores={"f1": score},
        kept=(budget, budget // 2 + 1),
        retention=1.0 if budget == 400 else budget / 400,
    )


def grid(task: str = "needle", **changes: Any) -> Grid:
    cells = [
        (Cell("fullkv", "full"), 400),
        (Cell("snapkv", "9"), 9),
        (Cell("snapkv", "64"), 64),
        (Cell("<b>bold</b>", "12%"), 48),
    ]
    results = [
        CellResult(cell, EXAMPLES, tuple(record(i, cell.label, budget) for i in range(EXAMPLES)))
        for cell, budget in cells
    ]
    failed = structs.replace(results[1].records[3], text=None, scores={}, error="logits are\nnot finite <i>")
    results[1] = replace(results[1], records=(*results[1].records[:3], failed, *results[1].records[4:]))
    of = TaskResult("model", task, (METRIC,), ("length", "depth"), "a <u>note</u>", tuple(results), None)
    of = replace(of, **changes)
    manifests = {
        cell: Manifest(
            cell,
            place,
            "model",
            task,
            {"budget": cell.budget},
            (METRIC,),
            None,
            "",
            {"name": task},
            {},
            None,
        )
        for place, (cell, _) in enumerate(cells)
    }
    return Grid(of, manifests, {cell: Path(cell.name) for cell, _ in cells})


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on this machine to open the page with")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, args=["--no-sandbox"])
        yield browser
        browser.close()


@dataclass
class Opened:
    """A page, and what it should never have done."""

    page: Page
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    @property
    def part(self) -> Locator:
        return self.page.locator(".part:not([hidden])")

    @property
    def table(self) -> Locator:
        return self.part.locator("table.sortable").first

    def show(self, link: Locator) -> None:
        """Follow a link to a part and wait until the page shows it, which it does a moment later."""
        address = (link.get_attribute("href") or "").removeprefix("#")
        link.click()
        self.page.locator(f'.part[id="{address}"]:not([hidden])').wait_for()

    def column(self, title: str) -> list[str]:
        """What the first line of each cell of the first table's column says."""
        titles = [text.strip() for text in self.table.locator("th").all_inner_texts()]
        rows = self.table.locator("tbody tr:visible")
        return [
            rows.nth(i).locator("td").nth(titles.index(title)).inner_text().split("\n")[0].strip()
            for i in range(rows.count())
        ]


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_page(
        [grid(), grid("second", metrics=(), heatmap_axes=None)],
        [],
        [],
        tmp_path_factory.mktemp("report") / "index.html",
    )


@pytest.fixture
def opened(browser: Browser, path: Path) -> Iterator[Opened]:
    with browser.new_context() as context:
        done = Opened(context.new_page())

        def refuse(route: Route) -> None:
            if route.request.url == path.as_uri():
                route.continue_()
            else:
                done.requests.append(route.request.url)
                route.abort()

        context.route("**/*", refuse)
        done.page.on("console", lambda message: done.complaints.append(message.text))
        done.page.on("pageerror", lambda error: done.complaints.append(str(error)))
        done.page.goto(path.as_uri())
        done.page.locator(".examples .row:visible").first.wait_for()
        yield done


def test_nothing_leaves_the_page_and_nothing_is_complained_of(opened: Opened) -> None:
    for link in opened.page.locator("nav a").all():
        opened.show(link)
        opened.part.locator(".examples .row").first.click()
        opened.page.locator("dialog .card").first.wait_for()
        opened.page.keyboard.press("Escape")
    assert opened.page.locator("nav a").count() == 2
    assert (opened.requests, opened.complaints) == ([], [])


INJECT = "document.body.append(Object.assign(document.createElement('script'), {textContent: 'window.canary = 1'}))"


def test_the_policy_lets_no_script_of_others_run_and_nothing_be_fetched(opened: Opened) -> None:
    """Even where markup got through."""
    opened.page.evaluate(INJECT)
    opened.page.evaluate(
        "document.body.insertAdjacentHTML('beforeend', "
        '\'<img src="https://example.org/x.png" onerror="window.canary = 1">\')'
    )
    refused = opened.page.evaluate("fetch('https://example.org').then(() => false, () => true)")
    assert refused and opened.page.evaluate("window.canary === undefined")
    assert opened.requests == []


def test_a_column_is_sorted_by_click_and_by_key_and_says_so(opened: Opened) -> None:
    button = opened.table.get_by_role("button", name="F1 (0-100)")
    button.click()
    assert opened.column("F1 (0-100)") == ["100.00", "75.42", "75.00", "25.00"]
    assert button.locator("xpath=..").get_attribute("aria-sort") == "descending"
    button.press("Enter")
    assert opened.column("F1 (0-100)") == ["25.00", "75.00", "75.42", "100.00"]
    assert button.locator("xpath=..").get_attribute("aria-sort") == "ascending"
    opened.table.get_by_role("button", name="budget").click()
    assert opened.column("budget") == ["9", "64", "12%", "full"]
    assert opened.table.locator("th[aria-sort]").count() == 1


def test_rows_are_filtered_by_words(opened: Opened) -> None:
    opened.part.locator(".tools:not(.methods) input").first.fill("SNAP 64")
    assert opened.column("budget") == ["64"]
    assert opened.part.locator(".tools:not(.methods) .shown").first.inner_text() == "1 of 4"


def test_examples_are_paged_sorted_and_filtered(opened: Opened) -> None:
    examples = opened.part.locator(".examples")
    rows = examples.locator(".row")
    assert (rows.count(), examples.locator(".pager").inner_text().split("\n")[-1]) == (50, "1 to 50 of 60")
    examples.get_by_role("button", name="later").click()
    assert (rows.count(), rows.first.inner_text()) == (10, "e50")
    examples.locator("select").select_option("errors")
    assert rows.all_inner_texts() == ["e03"]
    examples.locator("select").select_option("all")
    examples.get_by_role("button", name="example").click()
    examples.get_by_role("button", name="example").click()
    assert rows.first.inner_text() == "e59"
    examples.locator("input").fill("e07 cat")
    assert rows.all_inner_texts() == ["e07"]


def test_an_example_shows_every_cell_side_by_side_and_marks_what_differs(opened: Opened) -> None:
    dialog = opened.page.locator("dialog")
    opened.part.locator(".examples .row").nth(2).click()
    dialog.locator(".card").first.wait_for()
    assert dialog.locator("h2").inner_text() == "e02"
    assert dialog.locator(".ends .prose").all_inner_texts() == ["Once upon …", "… the end?"]
    assert dialog.locator(".card h3").all_inner_texts() == ["fullkv full", "snapkv 9", "snapkv 64", "<b>bold</b> 12%"]
    assert dialog.locator(".card").nth(0).locator("mark").count() == 0
    assert dialog.locator(".card").nth(1).locator(".prose").inner_text() == TEXTS["snapkv"]
    assert dialog.locator(".card").nth(1).locator("mark").all_inner_texts() == ["dog "]
    dialog.locator("select").select_option("reference")
    assert dialog.locator(".card").nth(0).locator("mark").all_inner_texts() == ["sat on the mat"]
    dialog.get_by_role("button", name="Next example").click()
    dialog.locator("h2", has_text="e03").wait_for()
    assert dialog.locator(".card").nth(1).locator(".error").inner_text() == "logits are not finite <i>"


def test_every_answer_that_was_drawn_is_shown_with_its_score_and_what_a_time_limit_left(
    browser: Browser, tmp_path: Path
) -> None:
    of = grid(metrics=(METRIC,))
    samples = [Sample((1,), text, {"f1": score}) for text, score in (("the cat", 1.0), ("a dog", 0.0), ("no", 0.5))]
    drawn, late, *others = (cell.records[0] for cell in of.result.cells)
    drawn = structs.replace(drawn, scores={"f1": 0.5}, samples=samples)
    late = structs.replace(late, error="decoding took longer", scores={}, text="so far", partial=True)
    records = (drawn, late, *others)
    cells = tuple(replace(cell, records=(one,)) for cell, one in zip(of.result.cells, records, strict=True))
    path = write_page([replace(of, result=replace(of.result, cells=cells))], [], [], tmp_path / "index.html")
    with browser.new_context() as context:
        page = context.new_page()
        page.goto(path.as_uri())
        page.locator(".examples .row:visible").first.click()
        card = page.locator("dialog .card").nth(0)
        card.wait_for()
        assert card.locator(".prose").all_inner_texts() == ["the cat", "a dog", "no"]
        told = [f"answer {n} of 3 · {METRIC.title} {score} of 1" for n, score in ((1, 1), (2, 0), (3, 0.5))]
        assert card.locator(".meta").all_inner_texts()[1:] == told
        assert page.locator("dialog .card").nth(1).locator(".prose").all_inner_texts() == [
            "decoding took longer",
            "so far",
        ]
        assert page.locator("dialog .card").nth(2).locator(".prose").all_inner_texts() == [TEXTS["snapkv"]]


def test_an_opened_example_has_an_address_that_opens_it_for_somebody_else(opened: Opened, path: Path) -> None:
    dialog = opened.page.locator("dialog")
    opened.part.locator(".examples .row").nth(7).click()
    dialog.locator("h2", has_text="e07").wait_for()
    assert opened.page.url == f"{path.as_uri()}#model/needle?example=e07"
    opened.page.keyboard.press("ArrowRight")
    dialog.locator("h2", has_text="e08").wait_for()
    address = opened.page.url
    assert address.endswith("?example=e08")
    opened.page.keyboard.press("Escape")
    opened.page.wait_for_function("!location.hash.includes('example')")
    assert opened.page.url == f"{path.as_uri()}#model/needle"
    for url, title, place in ((address, "e08", "needle"), (address.replace("needle", "second"), "e08", "second")):
        opened.page.goto("about:blank")
        opened.page.goto(url)
        dialog.locator("h2", has_text=title).wait_for()
        assert opened.part.locator("h1").inner_text() == place
    opened.page.goto(f"{path.as_uri()}#model/needle?example=nobody")
    opened.page.locator(".examples .row:visible").first.wait_for()
    assert not dialog.is_visible() and opened.complaints == []


def test_the_page_opens_with_the_answer(opened: Opened) -> None:
    order = opened.part.evaluate(
        "part => [...part.querySelectorAll('.chart figcaption, .matrix, .heatmap, table.sortable')]"
        ".map((one) => one.matches('figcaption') ? one.textContent : one.className.split(' ').at(-1))"
    )
    assert list(dict.fromkeys(order)) == ["F1 by retention", "F1 by budget", "matrix", "heatmap", "sortable"]
    rows = opened.part.locator(".matrix tr").all()
    assert [row.inner_text().split() for row in rows] == [
        ["method", "9", "64", "12%", "full"],
        ["fullkv", "100.0"],
        ["snapkv", "75.4", "75.0"],
        ["<b>bold</b>", "25.0"],
    ]
    assert opened.part.locator(".matrix td[title^='snapkv 64: 75.00 (']").count() == 1


def test_a_heatmap_has_ticks_says_its_values_and_leads_to_the_example(opened: Opened) -> None:
    panel = opened.part.locator(".panel.heatmap").nth(2)
    assert panel.locator(".across-ticks span").all_inner_texts() == ["100", "200", "300"]
    assert panel.locator(".down span").all_inner_texts() == ["0", "50"]
    tile = panel.locator("rect").nth(1)
    tile.hover()
    said = opened.part.locator(".reads").first.inner_text()
    assert said == "snapkv 9: prompt tokens requested 200, depth % 0: 1.000"
    opened.part.locator(".examples input").fill("e59")
    tile.click()
    opened.page.locator("dialog h2", has_text="e04").wait_for()
    assert opened.page.url.endswith("?example=e04")


def test_of_many_methods_those_that_are_looked_for_are_shown_and_a_clicked_one_stands_out(opened: Opened) -> None:
    opened.part.locator(".methods input").fill("bold full")
    assert opened.part.locator(".methods .shown").inner_text() == "2 of 3"
    assert opened.part.locator(".matrix tbody tr:visible").count() == 2
    assert opened.part.locator(".panel.heatmap:visible").count() == 2
    assert opened.part.locator(".chart").first.locator(".keys li:visible").count() == 2
    opened.part.locator(".methods input").fill("")
    key = opened.part.locator(".keys button", has_text="snapkv").first
    key.press("Enter")
    assert key.get_attribute("aria-pressed") == "true"
    assert opened.part.locator(".chart").first.locator(".series.dim").count() == 2
    key.click()
    assert opened.part.locator(".dim").count() == 0


def test_the_names_of_a_wide_table_stay_in_sight(opened: Opened) -> None:
    opened.page.set_viewport_size({"width": 1000, "height": 800})
    scroll = opened.part.locator(".scroll:has(table.sortable)").first
    before, _ = (scroll.locator(f"tbody tr:first-child td:nth-child({place})").bounding_box() for place in (2, 3))
    assert scroll.evaluate("one => one.scrollWidth > one.clientWidth")
    scroll.evaluate("one => one.scrollLeft = 1e6")
    first, second, last = (scroll.locator(f"tbody tr:first-child td:{place}").bounding_box() for place in (
        "nth-child(1)", "nth-child(2)", "last-child"
    ))  # fmt: skip
    box = scroll.bounding_box()
    assert first and second and last and before and box
    assert first["x"] == box["x"] and abs(second["x"] - first["x"] - first["width"]) < 1 and second["x"] <= before["x"]
    assert last["x"] + last["width"] <= box["x"] + box["width"] + 1


def test_scores_begin_at_0_and_what_nobody_knows_the_retention_of_draws_no_empty_axis() -> None:
    lines = [Curve("snapkv", [64.0, 128.0], [90.0, 95.0], [88.0, 94.0], [92.0, 96.0])]
    drawn = chart(Curves("budget", "across", lines), "F1")
    assert drawn is not None and drawn.y_ticks[0] == (drawn.bottom, "0") and drawn.y_ticks[-1][1] == "100"
    unknown = [Curve("full", [None], [90.0], [88.0], [92.0]), Curve("a", [math.nan], [9.0], [8.0], [9.0])]
    assert chart(Curves("retention", "across", unknown), "F1") is None


def test_examples_are_read_by_keyboard_alone(opened: Opened) -> None:
    row = opened.part.locator(".examples .row").nth(30)
    row.press("Enter")
    dialog = opened.page.locator("dialog")
    dialog.locator("h2", has_text="e30").wait_for()
    opened.page.keyboard.press("ArrowRight")
    dialog.locator("h2", has_text="e31").wait_for()
    opened.page.keyboard.press("Escape")
    assert not dialog.is_visible()
    assert row.evaluate("row => row === document.activeElement")


def test_what_models_and_labels_say_stays_text(opened: Opened) -> None:
    opened.part.locator(".examples .row").first.click()
    card = opened.page.locator("dialog .card").last
    card.wait_for()
    shown = (
        "</script><script>window.canary = 1</script><img src=x onerror='window.canary = 1'> ␛[31mred␛[0m "
        "⟨U+202E⟩gnp.exe"
    )
    assert card.locator(".prose").inner_text() == shown
    assert opened.page.locator("dialog .references .prose").last.inner_text() == shown
    assert opened.page.locator("dialog script, dialog img, main img, main b:text('bold'), main u").count() == 0
    assert opened.page.evaluate("window.canary === undefined")
    assert "<b>bold</b>" in opened.column("method")
    assert opened.part.locator(".note").first.inner_text() == "a <u>note</u>"


def test_a_task_without_scores_shows_its_examples(opened: Opened) -> None:
    opened.show(opened.page.locator("nav a").last)
    assert opened.part.locator(".charts, .heatmap").count() == 0
    assert opened.part.locator(".kept svg").count() == 4
    assert opened.part.locator(".examples th").all_inner_texts()[:4] == ["example", "length", "depth", "reference"]


@pytest.mark.parametrize(("width", "scheme"), [(1360, "light"), (1360, "dark"), (390, "light")])
def test_it_fits_a_phone_and_follows_the_readers_colours(opened: Opened, width: int, scheme: Any) -> None:
    opened.page.set_viewport_size({"width": width, "height": 844})
    opened.page.emulate_media(color_scheme=scheme)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= width
    assert opened.page.locator("nav").is_visible() == (width > 900)
    assert opened.page.locator("#jump").is_visible() == (width < 900)
    red = opened.page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(re.findall(r"\d+", red)[0]) > 128) == (scheme == "light")


def test_the_pyramid_is_as_wide_as_what_each_layer_keeps(opened: Opened) -> None:
    bars = opened.part.locator(".kept").nth(3).locator("rect")  # snapkv 64: 64, then 33
    assert [bar.get_attribute("width") for bar in bars.all()] == ["100.0", "51.56"]
    assert bars.first.locator("title").text_content() == "layer 0: 64 entries"
    tiles = opened.part.locator(".heatmap").first.locator("rect")
    assert (tiles.count(), tiles.first.get_attribute("fill")) == (6, "#fde725")


def test_a_whole_prompt_is_loaded_from_beside_the_page_when_a_reader_asks_for_it(
    browser: Browser, tmp_path: Path
) -> None:
    hashes = [f"{place:064x}" for place in range(EXAMPLES)]
    cells = grid().result.cells
    of = grid(
        cells=tuple(
            replace(
                cell,
                records=tuple(
                    structs.replace(one, prompt_sha256=sha256) for one, sha256 in zip(cell.records, hashes, strict=True)
                ),
            )
            for cell in cells
        )
    )
    of = replace(of, folders={cell: tmp_path / "model/needle" / cell.name for cell in of.folders})
    (tmp_path / "model/needle").mkdir(parents=True)
    middle = "the middle \u202e" * 2000
    PromptFile(tmp_path / "model/needle", ALONE).append(
        [
            (hashes[0], f"Once upon {middle}{NASTY} the end?"),
            (hashes[1], "one"),
            ("f" * 64, "of an example that is gone"),
        ]
    )
    path = write_page([of], [], [], tmp_path / "my report.html")
    folder = tmp_path / "my report.prompts/model/needle"
    assert sorted(file.stem for file in folder.iterdir()) == hashes[:2]
    with browser.new_context() as context:
        done = Opened(context.new_page())
        done.page.on("request", lambda request: done.requests.append(request.url))
        done.page.on("console", lambda message: done.complaints.append(message.text))
        done.page.on("pageerror", lambda error: done.complaints.append(str(error)))
        done.page.goto(f"{path.as_uri()}#model/needle?example=e00")
        ask = done.page.get_by_role("button", name="Show the whole prompt")
        ask.wait_for()
        assert done.requests == [path.as_uri()]
        ask.click()
        whole = done.page.locator("dialog .whole .prose")
        whole.wait_for()
        assert done.requests[1:] == [(folder / f"{hashes[0]}.js").as_uri()]
        assert (
            whole.evaluate("element => element.textContent")
            == f"Once upon {visible(middle, None)}{visible(NASTY)} the end?"
        )
        assert done.page.evaluate("window.canary === undefined") and not done.complaints
        done.page.evaluate(INJECT)  # what the page loads is let in by its number, and nothing else with it
        assert done.page.evaluate("window.canary === undefined") and len(done.complaints) == 1
        shutil.rmtree(folder)
        done.page.keyboard.press("ArrowRight")
        done.page.locator("dialog h2", has_text="e01").wait_for()
        ask.click()
        status = done.page.locator("dialog .tools .shown")
        status.get_by_text(f"my report.prompts/model/needle/{hashes[1]}.js is not beside this page").wait_for()
        done.page.keyboard.press("ArrowRight")  # its prompt was not saved
        done.page.locator("dialog h2", has_text="e02").wait_for()
        assert ask.count() == 0
    (tmp_path / "model/needle/prompts.0.jsonl").unlink()
    write_page([of], [], [], path)
    assert not list(tmp_path.glob("*.prompts/*/*/*"))


def test_of_very_many_or_very_long_texts_the_page_has_a_part_and_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = tuple(
        CellResult(Cell(name, "64"), 10, tuple(Record(str(n), {}, (), {}, 1, None) for n in range(10))) for name in "ab"
    )
    many = TaskResult("m", "t", (METRIC,), None, "", cells, None)
    assert left_out(many) == [] and len(index(many)["examples"]) == 10
    monkeypatch.setattr(examples, "TEXTS", 9)
    assert left_out(many) == [
        "examples: the first 4 of 10 are on this page; the records have all, and tables and charts are made of all."
    ]
    assert [row[0] for row in index(many)["examples"]] == ["0", "1", "2", "3"]
    assert [len(block) for block in blocks(many)] == [4]
    shown = visible("a" * 15_000 + "b" * 15_000)
    assert shown.startswith("a" * 10_000 + "\n… 10,000 characters left out …\n") and shown.endswith("b" * 10_000)
    assert visible("x" * 20_000) == "x" * 20_000


def test_the_page_of_a_leaderboard_has_the_ranking_first_and_numbers_alone(browser: Browser, tmp_path: Path) -> None:
    grids = [grid(), grid("second", heatmap_axes=None)]
    named, notes = groups([one.result for one in grids], [])
    board = leaderboard("model", named, [0.05, 0.12, 0.15], "snapkv", None, notes)
    path = write_board_page(board, "model", grids, [], tmp_path / "leaderboard.html")
    text = path.read_text()
    for words in ("the cat", "the dog", "Once upon", "the end?", "window.canary", "e00", "A click on a tile"):
        assert words not in text
    with browser.new_context() as context:
        done = Opened(context.new_page())
        done.page.on("request", lambda request: done.requests.append(request.url))
        done.page.on("console", lambda message: done.complaints.append(message.text))
        done.page.on("pageerror", lambda error: done.complaints.append(str(error)))
        done.page.goto(path.as_uri())
        assert done.part.locator("h1").inner_text() == "Leaderboard"
        titles = done.table.locator("th").all_inner_texts()
        assert [title.strip("\u202f\u2195 ") for title in titles][:5] == [
            "#", "method", "mean", "to the full cache", "to snapkv"
        ]  # fmt: skip
        rows = done.part.locator(".matrix tr").all()
        assert rows[0].inner_text().split() == ["method", "5%", "12%", "15%", "full"]
        assert [row.inner_text().split()[0] for row in rows[1:]] == ["fullkv", "snapkv", "<b>bold</b>"]
        assert done.part.locator(".chart .keys li").all_inner_texts() == ["fullkv", "snapkv", "<b>bold</b>"]
        for link in done.page.locator("nav a").all():
            done.show(link)
            done.part.locator("table.sortable").first.wait_for()
            assert done.part.locator(".examples, .kept").count() == 0
        assert (done.requests, done.complaints) == ([path.as_uri()], [])


def test_the_same_results_give_the_same_bytes(tmp_path: Path) -> None:
    first, second = (write_page([grid()], [], [], tmp_path / name).read_bytes() for name in ("a.html", "b.html"))
    assert first == second
    assert b"window.canary" not in first


def test_examples_lie_in_blocks_in_the_order_of_the_index() -> None:
    of = grid().result
    found = list(blocks(of))
    assert [len(block) for block in found] == [BLOCK] * (EXAMPLES // BLOCK)
    assert index(of)["examples"][3] == ["e03", [100, 50], "the cat", [1.0, "error", 0.5, 0.25]]
    assert found[0][3]["cells"][1]["error"] == "logits are not finite <i>"
    less = replace(of, cells=(*of.cells[:1], replace(of.cells[1], records=of.cells[1].records[2:])))
    assert index(less)["examples"][0][3] == [1.0, None] and next(blocks(less))[0]["cells"][1] is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a\n\tb", "a\n\tb"),
        ("\x00\x7f\r", "␀␡␍"),
        ("\u2028\u200b", "⟨U+2028⟩⟨U+200B⟩"),
        ("naïve 漢字\u00a0é", "naïve 漢字\u00a0é"),
        ("\ud800", "⟨U+D800⟩"),
    ],
)
def test_what_cannot_be_seen_is_named(text: str, shown: str) -> None:
    assert visible(text) == shown


def test_every_report_has_the_page_with_published_numbers_beside_ours(kvgauge: Command, tmp_path: Path) -> None:
    words = (
        "method=[fullkv,pyramidkv]",
        "budget=64",
        "task=needle_published",
        "task.lengths=[1000]",
        "task.depths=[0]",
    )
    done = kvgauge(
        *words,
        "model.name=Llama-3-8B-Instruct",
        "task.haystack=tests/golden/needle/haystack",
        f"results_dir={tmp_path}",
    )
    assert done.code == 0, done.err
    page = tmp_path / "report/index.html"
    assert str(page) in done.out
    first = page.read_text()
    assert 'id="Llama-3-8B-Instruct/needle/pyramidkv_needle/compare"' in first
    page.unlink()
    again = kvgauge("report", str(tmp_path))
    assert again.code == 0 and str(page) in again.out
    assert page.read_text() == first


def test_records_without_the_ends_of_prompts_are_read_and_shown(tmp_path: Path) -> None:
    old = grid().result.cells[0].records[0].to_json()
    del old["prompt_ends"]
    read = convert(old, Record)
    of = grid().result
    shown = next(blocks(replace(of, cells=(replace(of.cells[0], records=(read,)),))))
    assert shown[0]["ends"] == []
