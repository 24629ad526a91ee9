"""The page in a real browser: it shows, counts and scores what Python does, and asks nothing of a network."""

from __future__ import annotations

import base64
import dataclasses
import io
import json

import numpy as np
import pytest
from browsing import element, marks, set_range, show, shown_slice, wait
from PIL import Image
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from jaxcryo.domain import Picks
from jaxcryo.metric import RADIUS_SHARE, Score, score
from jaxcryo.page import write_page
from jaxcryo.picks.thresholds import read_thresholds

pytestmark = [pytest.mark.browser, pytest.mark.slow]


def table(browser) -> dict[str, dict[str, float]]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#numbers tbody tr")
    return {
        row.get_attribute("data-type"): {
            cell.get_attribute("data-key"): float(cell.text) for cell in row.find_elements(By.TAG_NAME, "td")
        }
        for row in rows
    }


def above(picks: Picks, thresholds: dict[str, float]) -> Picks:
    assert picks.score is not None
    limits = np.array([thresholds[t.name] for t in picks.types])
    return picks.select(picks.score > limits[picks.type_index])


def official(world, thresholds: dict[str, float]) -> Score:
    return score({"PH_000": world.truth}, {"PH_000": above(world.picks, thresholds)}, world.page.types)


def assert_agrees(browser, world, thresholds: dict[str, float]) -> None:
    expected, seen = official(world, thresholds), table(browser)
    for kind, counts in zip(expected.types, expected.counts, strict=True):
        own = seen[kind.name]
        assert (own["truth"], own["found"], own["hit"]) == (counts.truth, counts.found, counts.true_positive)
        assert (own["false"], own["missed"]) == (counts.false_positive, counts.false_negative)
        for key, value in (("precision", counts.precision), ("recall", counts.recall), ("f4", counts.f_beta)):
            assert own[key] == pytest.approx(value, abs=5.1e-4)
    assert float(element(browser, "score").text) == pytest.approx(expected.weighted_f4, abs=5.1e-4)
    assert int(element(browser, "found").text) == sum(c.found for c in expected.counts)


def pixels(browser, canvas: str) -> np.ndarray:
    """Red, green, blue and opacity of a canvas."""
    url = browser.execute_script("return document.getElementById(arguments[0]).toDataURL()", canvas)
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.split(",")[1]))).convert("RGBA"))


def test_opens_and_asks_nothing_of_a_network(browser, world) -> None:
    browser.get("about:blank")
    browser.get_log("performance")
    show(browser, world.path)
    assert browser.title.startswith("PH_000")
    assert shown_slice(browser) == 12
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [m["params"]["request"]["url"] for m in messages if m["method"] == "Network.requestWillBeSent"]
    assert world.path.as_uri() in urls and not [url for url in urls if url.startswith(("http", "ws"))]
    assert [entry for entry in browser.get_log("browser") if entry["level"] == "SEVERE"] == []


@pytest.mark.slow
def test_numbers_are_those_of_the_metric(browser, world) -> None:
    show(browser, world.path)
    thresholds = {t.name: t.threshold for t in world.page.types}
    assert_agrees(browser, world, thresholds)
    for name, value in (("ribosome", 0.2), ("apo-ferritin", 0.777), ("beta-galactosidase", 0.05), ("ribosome", 1.0)):
        index = [t.name for t in world.page.types].index(name)
        before = table(browser)
        set_range(browser, f"threshold-{index}", value)
        thresholds[name] = value
        assert_agrees(browser, world, thresholds)
        assert table(browser) != before
    element(browser, "reset").click()
    assert_agrees(browser, world, {t.name: t.threshold for t in world.page.types})


def test_a_type_that_the_truth_lacks_counts_nothing_with_its_weight(browser, world, tmp_path) -> None:
    truth = world.truth.select(world.truth.type_index != 1)
    lacking = dataclasses.replace(world, truth=truth, page=dataclasses.replace(world.page, truth=truth))
    write_page(tmp_path / "a.html", lacking.page)
    show(browser, tmp_path / "a.html")
    thresholds = {t.name: t.threshold for t in world.page.types}
    assert_agrees(browser, lacking, thresholds)
    assert official(lacking, thresholds).weighted_f4 < official(world, thresholds).weighted_f4


def test_thresholds_by_keyboard_and_number(browser, world) -> None:
    show(browser, world.path)
    element(browser, "threshold-0").send_keys(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.PAGE_DOWN)
    assert table(browser)["apo-ferritin"]["threshold"] == pytest.approx(0.26)
    number = element(browser, "number-2")
    number.send_keys(Keys.CONTROL + "a")
    number.send_keys("0.61", Keys.TAB)
    assert table(browser)["ribosome"]["threshold"] == pytest.approx(0.61)
    number.send_keys(Keys.CONTROL + "a")
    number.send_keys("0.001", Keys.TAB)
    assert table(browser)["ribosome"]["threshold"] == pytest.approx(0.05), "nothing below the floor is known"


def test_best_thresholds_are_not_beaten(browser, world) -> None:
    show(browser, world.path)
    element(browser, "best").click()
    seen = table(browser)
    for index, kind in enumerate(world.page.types):
        scores = [official(world, {t.name: h for t in world.page.types}).counts[index].f_beta
                  for h in np.arange(0.05, 1, 0.01)]  # fmt: skip
        assert seen[kind.name]["f4"] >= max(scores) - 6e-4


def expected_marks(world, z: int) -> dict[str, int]:
    """What of picks and truth the slice cuts, by distances to all others."""
    grid = world.page.grid
    counts = dict.fromkeys(("pick", "hit", "false", "missed", "below", "sure", "rejected"), 0)
    found = above(world.picks, {t.name: t.threshold for t in world.page.types})
    for index, kind in enumerate(world.page.types):
        picks, truth = found.of_type(index), world.truth.of_type(index)
        near = np.linalg.norm(picks[:, None] - truth[None], axis=2) <= RADIUS_SHARE * kind.radius_angstrom
        for places, names in (
            (picks, np.where(near.any(1), "hit", "false")),
            (truth, np.where(near.any(0), "", "missed")),
        ):
            cut = np.abs(grid.to_voxel(places)[:, 0] - z) * grid.spacing_zyx_angstrom[0] < kind.radius_angstrom
            for name in names[cut]:
                if name:
                    counts[str(name)] += 1
    return counts


def test_slices_move_and_circles_follow(browser, world) -> None:
    show(browser, world.path)
    first = pixels(browser, "image")
    assert marks(browser) == expected_marks(world, 12)
    set_range(browser, "z", 3)
    wait(lambda: shown_slice(browser) == 3)
    assert marks(browser) == expected_marks(world, 3) != expected_marks(world, 12)
    assert not np.array_equal(pixels(browser, "image"), first)
    stage = element(browser, "stage")
    for key, z in ((Keys.ARROW_DOWN, 4), (Keys.PAGE_DOWN, 14), (Keys.END, 23), (Keys.ARROW_UP, 22), (Keys.HOME, 0)):
        stage.send_keys(key)
        wait(lambda z=z: shown_slice(browser) == z)
        assert marks(browser) == expected_marks(world, z)
    scroll = "arguments[0].dispatchEvent(new WheelEvent('wheel', {deltaY: 120, cancelable: true, bubbles: true}))"
    browser.execute_script(scroll, stage)
    wait(lambda: shown_slice(browser) == 3)


def test_a_slice_is_the_volume(browser, world) -> None:
    show(browser, world.path)
    gray = pixels(browser, "image")[..., 0].astype(float)
    low, high = world.page.slices.black_white
    voxels = np.clip((world.volume.voxels[12] - low) / (high - low), 0, 1) * 255
    small = np.asarray(Image.fromarray(gray.astype(np.uint8)).resize(voxels.shape[::-1], Image.Resampling.BOX), float)
    assert np.corrcoef(small.ravel(), voxels.ravel())[0, 1] > 0.97


def test_the_heatmap_lies_over_its_particles(browser, world) -> None:
    show(browser, world.path)
    assert not pixels(browser, "heat").any()
    element(browser, "heat-on").click()
    wait(lambda: pixels(browser, "heat").any())
    opacity = pixels(browser, "heat")[..., 3]
    small = np.asarray(Image.fromarray(opacity).resize(world.page.grid.shape_zyx[:0:-1], Image.Resampling.BOX), float)
    assert np.corrcoef(small.ravel(), world.heatmap[:, 12].max(0).ravel())[0, 1] > 0.9
    for box in browser.find_elements(By.CSS_SELECTOR, ".type header input"):
        box.click()
    wait(lambda: not pixels(browser, "heat").any())
    assert sum(marks(browser).values()) == 0


def test_thresholds_are_saved_for_the_commands(browser, world) -> None:
    show(browser, world.path)
    set_range(browser, "threshold-2", 0.4321)
    element(browser, "save").click()
    file = browser.downloads / "thresholds.json"
    wait(file.is_file)
    assert read_thresholds(file) == {"apo-ferritin": 0.3, "beta-galactosidase": 0.3625, "ribosome": 0.432}
    assert json.loads(element(browser, "thresholds").text) == read_thresholds(file)
    assert "infer.py --thresholds thresholds.json" in element(browser, "commands").text


def test_closest_picks_lead_to_their_slices(browser, world) -> None:
    show(browser, world.path)
    pictures = wait(lambda: browser.find_elements(By.CSS_SELECTOR, "#close button"))
    inside = [p for p in pictures if "in" in p.get_attribute("class").split()]
    own = world.picks.select((world.picks.type_index == 0) & (world.picks.score > 0.3))
    last = own.select(np.array([len(own) - 1]))
    assert inside[-1].text.startswith(f"{last.score[0]:.3f}")
    inside[-1].click()
    z = round(float(world.page.grid.to_voxel(last.xyz_angstrom)[0, 0]))
    wait(lambda: shown_slice(browser) == z)


def test_without_truth_it_counts_alone(browser, world, tmp_path) -> None:
    write_page(tmp_path / "a.html", dataclasses.replace(world.page, truth=None, overlay=None))
    show(browser, tmp_path / "a.html")
    assert set(table(browser)["ribosome"]) == {"found", "threshold"}
    assert not element(browser, "legend").is_displayed() and not element(browser, "heat-tool").is_displayed()
    assert not browser.find_elements(By.ID, "score")
    found = above(world.picks, {t.name: t.threshold for t in world.page.types})
    assert int(element(browser, "found").text) == len(found)
    assert marks(browser)["pick"] > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_looks(browser, world, scheme: str, width: int) -> None:
    show(browser, world.path, width=width, scheme=scheme)
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
    assert picture.width == width
    brightness = np.asarray(picture)[2:40, 2:14].mean()
    assert brightness > 200 if scheme == "light" else brightness < 60
    element(browser, "theme").click()  # light, whatever the system has
    picture = Image.open(io.BytesIO(browser.get_screenshot_as_png())).convert("L")
    assert np.asarray(picture)[2:40, 2:14].mean() > 200


def test_everything_that_is_used_has_a_name(browser, world) -> None:
    show(browser, world.path)
    nameless = browser.execute_script(
        "return [...document.querySelectorAll('button, input, select')].filter((e) => !(e.ariaLabel || "
        "e.getAttribute('aria-label') || e.labels?.length || e.textContent.trim())).map((e) => e.outerHTML)"
    )
    assert nameless == []
