"""Corrections: made in a real browser, saved, read back by the page and by Python, and applied."""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import pathlib

import numpy as np
import pytest
from browsing import element, marks, set_range, show, shown_slice, wait
from PIL import Image
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys

from jaxcryo.cli.picks import main as picks_command
from jaxcryo.page import write_page
from jaxcryo.picks.candidates import write_candidates
from jaxcryo.picks.copick_json import read_copick_folder, write_copick_picks
from jaxcryo.picks.corrections import Corrections, corrected, read_corrections
from jaxcryo.picks.formats import above_thresholds
from jaxcryo.serialize import types_to_json

pytestmark = [pytest.mark.browser, pytest.mark.slow]
NAMES = ("apo-ferritin", "beta-galactosidase", "ribosome")


@pytest.fixture
def page(world, tmp_path) -> pathlib.Path:
    """The page at a place of its own, so that the browser keeps nothing of it yet; without truth."""
    path = tmp_path / "PH_000.html"
    write_page(path, dataclasses.replace(world.page, truth=None))
    return path


@pytest.fixture
def folder(world, tmp_path) -> pathlib.Path:
    """What an inference leaves of it."""
    out = tmp_path / "picks"
    thresholds = {t.name: t.threshold for t in world.page.types}
    write_candidates(world.picks, out)
    write_copick_picks(above_thresholds(world.picks, thresholds), out)
    settings = {"thresholds": thresholds, "floor": 0.05, "particles": types_to_json(world.page.types)}
    (out / "settings.json").write_text(json.dumps(settings))
    return out


def press(browser, *keys: str) -> None:
    for key in keys:
        browser.find_element(By.TAG_NAME, "body").send_keys(key)


def decided(browser) -> dict[str, int]:
    return json.loads(element(browser, "decided").get_attribute("data-counts"))


def counts(browser) -> dict[str, int]:
    rows = browser.find_elements(By.CSS_SELECTOR, "#corrected tbody tr")
    return {r.get_attribute("data-type"): int(r.find_elements(By.TAG_NAME, "td")[1].text) for r in rows}


def choose(browser, name: str, value: int) -> None:
    script = "arguments[0].value = arguments[1]; arguments[0].dispatchEvent(new Event('change', {bubbles: true}))"
    browser.execute_script(script, element(browser, name), str(value))


def click_voxel(browser, world, y: float, x: float) -> None:
    """A click on the slice; the whole of it is shown."""
    stage = element(browser, "stage")
    _, height, width = world.page.grid.shape_zyx
    size = stage.size
    across, down = (x + 0.5) / width - 0.5, (y + 0.5) / height - 0.5
    ActionChains(browser).move_to_element_with_offset(
        stage, round(across * size["width"]), round(down * size["height"])
    ).click().perform()


def saved(browser) -> pathlib.Path:
    file = browser.downloads / "PH_000-corrections.json"
    file.unlink(missing_ok=True)
    element(browser, "save-corrections").click()
    wait(lambda: file.is_file() and file.stat().st_size)
    return file


def of_python(world, corrections: Corrections) -> dict[str, int]:
    return corrected(above_thresholds(world.picks, corrections.thresholds), corrections).counts()


@pytest.mark.slow
def test_edits_are_counted_saved_and_applied_as_in_python(browser, world, page, folder, capsys) -> None:
    show(browser, page)
    before = counts(browser)
    assert before == above_thresholds(world.picks, {t.name: t.threshold for t in world.page.types}).counts()
    choose(browser, "edit-type", 1)
    press(browser, "d", "a", "r", "3", "r")  # the most doubtful beta-galactosidases: yes, no, a ribosome, no
    assert decided(browser) == {"accepted": 1, "rejected": 2, "retyped": 1, "added": 0, "regions": 0}
    press(browser, Keys.ESCAPE, "u")
    assert decided(browser)["rejected"] == 1
    element(browser, "edit").click()
    choose(browser, "edit-type", 2)
    set_range(browser, "z", 1)
    wait(lambda: shown_slice(browser) == 1)
    click_voxel(browser, world, 3, 3)  # a corner
    assert decided(browser)["added"] == 1 and marks(browser)["sure"] >= 1
    press(browser, "1")  # what was added is another type after all
    click_voxel(browser, world, 86, 116)
    press(browser, Keys.DELETE)  # added and taken away leaves nothing
    assert decided(browser) == {"accepted": 1, "rejected": 1, "retyped": 1, "added": 1, "regions": 0}
    element(browser, "mark-slices").click()

    corrections = read_corrections(saved(browser))
    assert corrections.counts() == {k: n for k, n in decided(browser).items() if k != "regions"}
    assert corrections.thresholds == {t.name: t.threshold for t in world.page.types}
    assert counts(browser) == of_python(world, corrections) != before
    (added,) = (d for d in corrections.decisions if d.was is None)
    zyx = world.page.grid.to_voxel([added.xyz_angstrom])[0]
    np.testing.assert_allclose(zyx, (1, 3, 3), atol=1.0)
    assert added.now == NAMES[0]
    limit = world.page.types[1].threshold
    own = world.picks.select(world.picks.type_index == 1)
    doubt = own.xyz_angstrom[np.argsort(np.abs(own.score - limit), kind="stable")]
    for decision, place in zip(corrections.decisions[:3], doubt, strict=False):
        np.testing.assert_array_equal(decision.xyz_angstrom, place)
    (region,) = corrections.complete
    assert region.contains(world.page.grid.to_angstrom([[-0.5, -0.5, -0.5], [23.5, 89.5, 119.5]])).all()

    file = browser.downloads / "PH_000-corrections.json"
    assert picks_command(["apply", str(folder), str(file)]) == 0
    out = folder.with_name("picks-corrected")
    applied = read_copick_folder(out, world.page.types)["PH_000"]
    assert applied.counts() == counts(browser)
    assert read_corrections(out / "corrections" / file.name) == corrections
    assert "1 accepted, 1 rejected, 1 retyped, 1 added" in capsys.readouterr().out
    assert picks_command(["apply", str(folder), str(file)]) == 2, "nothing is replaced unasked"


def test_nothing_is_lost_when_the_tab_is_closed(browser, world, page) -> None:
    show(browser, page)
    press(browser, "d", "a", "r")
    before, text = decided(browser), counts(browser)
    show(browser, page)
    assert decided(browser) == before and counts(browser) == text
    press(browser, "u", "u")
    assert decided(browser)["accepted"] == decided(browser)["rejected"] == 0
    show(browser, page)
    assert sum(decided(browser).values()) == 0


def test_thresholds_come_back_and_what_cannot_be_read_is_kept_aside(browser, page) -> None:
    show(browser, page)
    press(browser, "d", "a")
    set_range(browser, "threshold-2", 0.7)
    show(browser, page)
    assert element(browser, "threshold-2").get_attribute("value") == "0.7"
    own = f"return Object.keys(localStorage).filter((k) => k.includes('{page.parent.name}'))"
    (name,) = browser.execute_script(own)
    text = browser.execute_script("return localStorage[arguments[0]]", name)
    foreign = text.replace('"run": "PH_000"', '"run": "TS_9"')
    kept = "return [localStorage[arguments[0]], localStorage[`${arguments[0]} aside`]]"
    browser.execute_script("localStorage[arguments[0]] = arguments[1]", name, foreign)
    show(browser, page)
    assert "TS_9" in element(browser, "corrections-note").text and sum(decided(browser).values()) == 0
    assert browser.execute_script(kept, name) == [foreign, None]
    press(browser, "d", "a")
    own, aside = browser.execute_script(kept, name)
    assert aside == foreign and json.loads(own)["run"] == "PH_000"


def test_saved_corrections_are_opened_again(browser, world, page, tmp_path) -> None:
    show(browser, page)
    set_range(browser, "threshold-2", 0.7)
    press(browser, "d", "r", "a", "2")
    element(browser, "mark-slices").click()
    file, before, after = saved(browser), decided(browser), counts(browser)
    corrections = read_corrections(file)
    assert after == of_python(world, corrections) and corrections.thresholds["ribosome"] == 0.7
    other = page.with_name("elsewhere.html")
    other.write_bytes(page.read_bytes())
    show(browser, other)
    assert sum(decided(browser).values()) == 0
    element(browser, "open-corrections").send_keys(str(file))
    wait(lambda: decided(browser) == before)
    assert counts(browser) == after
    element(browser, "regions").find_element(By.TAG_NAME, "button").click()
    assert decided(browser) == before | {"regions": 0}
    wrong = tmp_path / "wrong.json"
    wrong.write_text(file.read_text().replace("PH_000", "TS_9"))
    element(browser, "open-corrections").send_keys(str(wrong))
    wait(lambda: "TS_9" in element(browser, "corrections-note").text)
    assert decided(browser) == before | {"regions": 0}
    element(browser, "open-corrections").send_keys(str(file))
    wait(lambda: "PH_000" in browser.switch_to.alert.text)
    browser.switch_to.alert.dismiss()
    assert decided(browser) == before | {"regions": 0}


def test_a_box_is_drawn(browser, world, page) -> None:
    show(browser, page)
    for name, slice_ in (("complete-from", "5"), ("complete-to", "8")):
        element(browser, name).send_keys(Keys.CONTROL + "a")
        element(browser, name).send_keys(slice_)
    element(browser, "draw-box").click()
    click_voxel(browser, world, 40, 40)  # no box
    assert decided(browser)["regions"] == 0
    stage = element(browser, "stage")
    ActionChains(browser).move_to_element_with_offset(stage, -100, -50).click_and_hold().move_by_offset(
        120, 80
    ).release().perform()
    (region,) = read_corrections(saved(browser)).complete
    ends = world.page.grid.to_voxel([region.low_xyz_angstrom, region.high_xyz_angstrom])
    np.testing.assert_allclose(ends[:, 0], (3.5, 7.5))  # slices 5 to 8 from edge to edge
    pixel = world.page.grid.shape_zyx[2] / stage.size["width"]
    np.testing.assert_allclose(ends[1, 1:] - ends[0, 1:], (80 * pixel, 120 * pixel), atol=0.5)


def test_planes_show_the_volume_through_the_chosen_pick(browser, world, page) -> None:
    show(browser, page, height=1200)
    wait(lambda: element(browser, "views").get_attribute("data-planes") == "ready")
    press(browser, "n")
    picks = world.picks.select(world.picks.score > 0.3)
    where = {n: float(element(browser, n).find_element(By.TAG_NAME, "span").text.split()[-1]) for n in ("xz", "yz")}
    zyx = world.page.grid.to_voxel(picks.xyz_angstrom)
    assert np.min(np.abs(zyx[:, 1] - where["xz"]) + np.abs(zyx[:, 2] - where["yz"])) <= 1.0
    gray = browser.execute_script("const c = document.querySelector('#xz canvas'); return c.toDataURL().split(',')[1]")
    picture = np.asarray(Image.open(io.BytesIO(base64.b64decode(gray))).convert("RGBA"), float)
    shown = picture[..., 3] > 0
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    inside = picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1, 0]
    low, high = world.page.slices.black_white
    plane = np.clip((world.volume.voxels[:, round(where["xz"])] - low) / (high - low), 0, 1) * 255
    small = Image.fromarray(inside.astype(np.uint8)).resize(plane.shape[::-1], Image.Resampling.BOX)
    assert np.corrcoef(np.asarray(small, float).ravel(), plane.ravel())[0, 1] > 0.9


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1400, 420])
def test_looks_while_editing(browser, page, scheme: str, width: int) -> None:
    show(browser, page, width=width, scheme=scheme)
    press(browser, "d", "a", "e")
    if width < 900:
        assert not element(browser, "xz").is_displayed()
        element(browser, "planes").click()
    assert element(browser, "xz").is_displayed() and element(browser, "yz").is_displayed()
    assert browser.execute_script("return document.documentElement.scrollWidth") <= width
