"""report.html in a real browser: what is drawn, what the pointer and the keys show, phone and dark mode."""

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from report_data import QUIET, make_counts, make_example, make_report, make_rows, require_chromium

from utils.palettes import voc_palette
from utils.run.report.charts import ticks
from utils.run.report.content import Report
from utils.run.report.curves import duration
from utils.run.report.page import render_report
from utils.run.report.warnings import warnings


@pytest.fixture(scope="module")
def browser():
    path = require_chromium()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        chromium = driver.chromium.launch(executable_path=path, args=QUIET)
        yield chromium
        chromium.close()


@pytest.fixture
def show(browser, tmp_path) -> Callable:
    """A function: (report, width, is_dark) -> its page, which must load nothing and raise no error."""
    contexts, faults = [], []

    def open_page(report: Report, width: int = 1200, *, is_dark: bool = False):
        (tmp_path / "report.html").write_bytes(render_report(report))
        scheme = "dark" if is_dark else "light"
        contexts.append(browser.new_context(viewport={"width": width, "height": 800}, color_scheme=scheme))
        page = contexts[-1].new_page()
        page.set_default_timeout(10_000)
        page.on("pageerror", lambda error: faults.append(str(error)))
        # A refused request is reported there, too
        page.on("console", lambda message: faults.append(message.text) if message.type == "error" else None)
        page.on("request", lambda request: faults.append(request.url) if "http" in request.url[:5] else None)
        page.goto((tmp_path / "report.html").as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert faults == []


def texts(page, selector: str) -> list[str]:
    return [" ".join(text.split()) for text in page.locator(selector).all_inner_texts()]


def cell_center(page, row: int, column: int) -> tuple[float, float]:
    """On the screen, after scrolling there."""
    canvas = page.locator("#matrix")
    size, left, top = (float(canvas.get_attribute(f"data-{name}")) for name in ("cell", "left", "top"))
    y = top + (row + 0.5) * size
    canvas.evaluate("(canvas, y) => window.scrollBy(0, canvas.getBoundingClientRect().top + y - 300)", y)
    box = canvas.bounding_box()
    return box["x"] + left + (column + 0.5) * size, box["y"] + y


def test_the_curves_show_the_log(show):
    page = show(make_report(num_rows=5))
    assert texts(page, ".chart h3") == ["Loss", "mIoU, %", "Learning rate", "Images/s"]
    counts = page.eval_on_selector_all(".chart svg", "all => all.map(one => one.querySelectorAll('circle').length)")
    assert counts == [10, 5, 5, 5]
    dots = page.eval_on_selector_all(
        ".chart:nth-child(2) circle", "all => all.map(dot => [+dot.getAttribute('cx'), +dot.getAttribute('cy')])"
    )
    x, y = np.array(dots).T
    values = [row["val_miou"] for row in make_rows(5)]
    assert np.ptp(np.diff(x)) < 0.2 and (np.diff(x) > 0).all()  # equal steps, from left to right
    slope = np.diff(y) / np.diff(values)
    assert (slope < 0).all() and np.ptp(slope) < 0.02 * abs(slope).max()  # linear, upwards
    images = page.locator(".chart:nth-child(4) circle").first.get_attribute("data-value")
    assert float(images) == 50 * 8 / 20


def test_the_pointer_and_the_keys_read_the_curves(show):
    page = show(make_report(num_rows=5))
    svg = page.locator(".chart svg").first
    cursor = "line => getComputedStyle(line).display"
    assert svg.locator(".cursor").evaluate(cursor) == "none"
    dot = svg.locator("circle").nth(1).bounding_box()
    page.mouse.move(dot["x"] + 4, dot["y"] + 30)
    output = page.locator(".chart output").first
    assert output.inner_text() == "step 100: training 0.5, validation 0.6"
    assert svg.locator(".cursor").evaluate(cursor) != "none"
    svg.focus()
    page.keyboard.press("ArrowRight")
    assert output.inner_text() == "step 150: training 0.333, validation 0.4"
    page.mouse.move(0, 0)
    assert output.inner_text() == "last: training 0.2, validation 0.24"


def test_a_log_of_an_older_run_has_fewer_curves(show):
    rows = [{name: row[name] for name in ("epoch", "step", "train_loss", "val_miou", "lr")} for row in make_rows(2)]
    rows[0] |= {"val_miou": None, "train_loss": 2.0}
    page = show(make_report(rows=rows))
    assert texts(page, ".chart h3") == ["Loss", "mIoU, %", "Learning rate"]
    assert texts(page, ".chart .legend")[0] == "training" and page.locator(".bars .change:not(:empty)").count() == 0
    assert page.locator(".chart:nth-child(2) circle").count() == 1


def test_bars_are_sorted_and_as_long_as_the_iou(show):
    report = make_report(num_classes=3, num_rows=5)
    page = show(report)
    iou = {name: row["iou"] for name, row in report.scores["per_class"].items()}
    expected = sorted(iou, key=iou.get, reverse=True)
    assert texts(page, ".bars .name") == expected
    tracks, bars = (
        page.eval_on_selector_all(f".bars .{name}", "all => all.map(one => one.getBoundingClientRect().width)")
        for name in ("track", "bar")
    )
    shares = np.array(bars) / tracks
    assert np.allclose(shares, [iou[name] for name in expected], atol=0.01)
    changes = dict(zip(expected, texts(page, ".bars .change"), strict=True))
    assert changes["class 0"] == f"{100 * (iou['class 0'] - 0.5):+.1f}"
    assert changes["class 1"] == f"{100 * (iou['class 1'] - 0.4):+.1f}" and changes["class 2"] == ""


@pytest.mark.parametrize("num_classes", [2, 21, 150])
@pytest.mark.parametrize("width", [360, 1200])
def test_the_confusion_matrix_can_be_read(show, num_classes, width):
    report = make_report(num_classes=num_classes)
    page = show(report, width)
    counts, (row, column) = report.counts, (1, num_classes - 1)
    page.evaluate("document.querySelector('.matrix').scrollLeft = 1e6")  # a phone scrolls 150 classes
    page.mouse.move(*cell_center(page, row, column))
    share = 100 * counts[row, column] / counts[row].sum()
    expected = f"true class {row}, predicted class {column}: {share:.1f} % of class {row}, {counts[row, column]:,} of"
    assert page.locator("#cell").inner_text().startswith(expected)
    page.locator("#matrix").focus()
    page.keyboard.press("ArrowLeft")
    assert f"predicted class {column - 1}:" in page.locator("#cell").inner_text()
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_cells_are_blue_on_the_diagonal_and_red_beside_it(show):
    page = show(make_report(counts=np.array([[90, 10, 0], [50, 50, 0], [0, 0, 70]])))

    def pixel(row: int, column: int) -> list[int]:
        """RGB near the corner of a cell, where no number stands."""
        return page.evaluate(
            """([row, column]) => {
                const canvas = document.getElementById("matrix"), {cell, left, top} = canvas.dataset;
                const x = +left + column * cell + 3, y = +top + row * cell + 3;
                return [...canvas.getContext("2d").getImageData(x, y, 1, 1).data].slice(0, 3);
            }""",
            [row, column],
        )

    right, wrong, weak, empty = (np.array(pixel(*place)) for place in ((0, 0), (1, 0), (0, 1), (0, 2)))
    assert right[2] > right[0] + 80 and wrong[0] > wrong[2] + 60 and weak[0] > weak[2]
    assert wrong[0] - wrong[2] > weak[0] - weak[2] and np.ptp(empty) < 15
    rows = texts(page, "#confusion tbody tr")
    assert rows == ["class 1 class 0 50.0 50", "class 0 class 1 10.0 10"]


def shown_layers(page, key: str) -> list[str]:
    """The layers of an image that are drawn."""
    script = "all => all.filter(one => getComputedStyle(one).display != 'none').map(one => one.classList[1])"
    return page.eval_on_selector_all(f'[data-key="{key}"] .layer', script)


def test_radios_clicks_and_keys_switch_the_view(show):
    page = show(make_report(), 800)
    assert shown_layers(page, "s0") == ["input", "prediction"]
    page.get_by_label("Truth", exact=True).click()
    assert shown_layers(page, "s0") == shown_layers(page, "bad") == ["input", "truth"]
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert shown_layers(page, "s0") == ["input", "errors"]
    page.locator('[data-key="s0"] .stage').click()
    assert shown_layers(page, "s0") == ["input"] and shown_layers(page, "bad") == ["input", "errors"]
    page.keyboard.press("Enter")
    assert shown_layers(page, "s0") == ["input", "truth"]
    page.get_by_label("Side by side").click()
    assert shown_layers(page, "s0") == ["input", "truth", "prediction", "errors"]
    page.get_by_label("Truth", exact=True).click()
    page.locator("#opacity").fill("30")
    assert page.locator('[data-key="s0"] .truth img').evaluate("image => getComputedStyle(image).opacity") == "0.3"


def test_the_images_hold_the_labels_the_prediction_and_the_errors(show):
    example, palette = make_example("s0", 3), voc_palette(3)
    page = show(make_report(spread=[example]))
    pixels = {}
    for layer in ("truth", "prediction", "errors"):
        values = page.evaluate(
            """async layer => {
                const image = document.querySelector(`[data-key=s0] .${layer} img`);
                image.loading = "eager";
                await image.decode();
                const pen = document.createElement("canvas").getContext("2d");
                pen.canvas.width = 80; pen.canvas.height = 60;
                pen.drawImage(image, 0, 0);
                return [...pen.getImageData(0, 0, 80, 60).data];
            }""",
            layer,
        )
        pixels[layer] = np.array(values).reshape(60, 80, 4)
    scored = example.label != 255
    assert (pixels["truth"][~scored, 3] == 0).all() and (pixels["truth"][scored, 3] == 255).all()
    assert np.array_equal(pixels["truth"][scored, :3], np.array(palette)[example.label[scored]])
    assert np.array_equal(pixels["prediction"][..., :3], np.array(palette)[example.prediction])  # whole, no truth in it
    wrong = scored & (example.label != example.prediction)
    assert (pixels["errors"][wrong] == [229, 57, 70, 255]).all() and not pixels["errors"][scored & ~wrong, 3].any()
    assert 0.3 < (pixels["errors"][~scored, 3] > 0).mean() < 0.7  # hatched


@pytest.mark.parametrize("num_classes", [3, 150])
def test_a_phone_scrolls_in_one_direction_and_touches_whole_buttons(show, num_classes):
    names = [f"a rather long name of the class {number}" for number in range(num_classes)]
    report = make_report(num_classes=num_classes, subtitle="run/" + "x" * 200, commands=["python " + "y" * 300])
    page = show(renamed(report, names), 360)
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    outside = page.eval_on_selector_all("h1, p, pre, figure, .tiles, .chart svg, .stage, .controls label",
        "all => all.filter(one => one.getBoundingClientRect().right > 360).map(one => one.outerHTML)")  # fmt: skip
    assert outside == []
    heights = page.eval_on_selector_all("fieldset label", "all => all.map(one => one.offsetHeight)")
    assert min(heights) >= 28
    page.get_by_label("Side by side").click()
    assert page.evaluate("document.documentElement.scrollWidth") == 360


def renamed(report: Report, names: list[str]) -> Report:
    """With other names of the classes."""
    rows = report.scores["per_class"].values()
    return dataclasses.replace(
        report, classes=names, scores=report.scores | {"per_class": dict(zip(names, rows, strict=True))}
    )


def luminance(page, selector: str, name: str) -> float:
    """0..1, of a CSS color."""
    rgb = page.locator(selector).first.evaluate(f"one => getComputedStyle(one).{name}.match(/[\\d.]+/g).map(Number)")
    linear = [value / 3294.6 if value <= 10 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in rgb[:3]]
    return float(np.dot(linear, [0.2126, 0.7152, 0.0722]))


@pytest.mark.parametrize("is_dark", [False, True])
def test_text_has_contrast_in_light_and_dark(show, is_dark):
    page = show(make_report(counts=np.array([[9, 1, 0], [1, 9, 0], [5, 5, 0]])), is_dark=is_dark)
    assert (luminance(page, "body", "backgroundColor") < 0.1) == is_dark
    for selector, behind in (
        (".warnings li", ".warnings"), ("h2", "section"), ("section p", "section"), ("td", "section"), ("pre", "pre"),
        (".chart output", "section"), (".change.up", "section"), ("nav a", "body"),
        ("input:checked + span", "input:checked + span"),
    ):  # fmt: skip
        levels = sorted([luminance(page, selector, "color"), luminance(page, behind, "backgroundColor")])
        assert (levels[1] + 0.05) / (levels[0] + 0.05) >= 4.5, selector  # WCAG's AA


def test_every_control_has_a_name_and_can_be_reached_by_keys(show):
    page = show(make_report(), 800)
    assert page.locator("img:not([alt]), canvas:not([aria-label]), svg:not([aria-label])").count() == 0
    names, focused = [], "document.activeElement.matches('.chart svg, canvas, [name=view], #opacity, .stage, summary')"
    for _ in range(60):
        page.keyboard.press("Tab")
        if page.evaluate(focused):
            names.append(page.evaluate("document.activeElement.id || document.activeElement.localName"))
    assert {"matrix", "opacity", "svg", "input", "button", "summary"} <= set(names)


def test_names_are_text_not_markup(show):
    evil = '</script><img src="http://127.0.0.1:9/x" onerror="document.title=1">&amp;'
    report = make_report(title=evil, config={"lr": evil}, commands=[evil], spread=[make_example(evil, 3)])
    page = show(renamed(report, [evil, "b", "c"]))
    assert page.title() == evil and page.locator("h1").inner_text() == evil
    assert page.locator('img[src^="http"]').count() == 0 and evil in texts(page, ".bars .name")
    assert page.locator("#matrix").get_attribute("data-cell")  # the script has run


def test_the_configuration_begins_with_what_was_changed(show):
    page = show(make_report())
    assert texts(page, "#configuration pre") == ["python train.py --dataset folder --lr 0.02"]
    changed = texts(page, '#configuration [aria-label="Changed flags"] tbody tr')
    assert changed == ["--dataset folder", "--lr 0.02"]
    page.get_by_text("All flags").click()
    every = texts(page, '#configuration [aria-label="All flags"] tbody tr')
    assert len(every) == 6 and {"--crop-size 97 97", "--ema not set"} <= set(every)


def test_a_score_without_labels_shows_images_alone(show):
    example = make_example("s0", 3)._replace(label=None, miou=None)
    page = show(make_report(scores=None, rows=[], spread=[example], worst=[], image_scores={}), 800)
    assert texts(page, "h2") == ["Images", "Configuration", "Machine"]
    page.locator(".stage").click()
    assert shown_layers(page, "s0") == ["input"]


def test_the_worst_images_are_listed_from_the_lowest(show):
    page = show(make_report())
    page.get_by_text("The 2 images with the lowest mIoU").click()
    assert texts(page, "#samples tbody tr") == ["bad 10.0 20.0 3,000", "s0 50.0 80.0 4,000"]


def test_warnings_name_classes_and_spikes():
    counts = make_counts(4)
    counts[1] = 0  # class 1 is never in the labels
    counts[:, 2] = 0  # class 2 is never predicted
    rows = make_rows(4)
    rows[2]["train_loss"] = 5.0
    text = warnings(make_report(4, counts=counts, rows=rows))
    assert "Never in the validation labels: class 1." in text
    assert "never predicted: class 2." in text and text.count("class 2") == 1
    assert "The training loss rose from 0.5 (epoch 2) to 5 (epoch 3)." in text and text.count("rose") == 1
    assert warnings(make_report(4)) == ""
    missing = warnings(make_report(150, counts=np.zeros((150, 150), np.int64)))
    assert "class 11 and 138 more" in missing


@pytest.mark.parametrize("low, high", [(0, 1), (0, 0.0371), (-2, 7), (0, 123456), (3, 3), (0, 0)])
def test_ticks_are_round_and_span_the_values(low, high):
    found = ticks(low, high)
    assert found[0] <= low and found[-1] >= high - 1e-9 and 2 <= len(found) <= 7
    steps = np.diff(found)
    assert np.allclose(steps, steps[0]) and f"{steps[0]:.6e}"[0] in "125"


def test_durations_are_for_people():
    assert [duration(seconds) for seconds in (7.4, 127, 7300, 1e6)] == ["7 s", "2 min 7 s", "2 h 1 min", "277 h 46 min"]
