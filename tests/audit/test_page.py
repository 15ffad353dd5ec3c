import base64
import io
import json
import os
import re
import shutil
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from PIL import Image

from robustfer.audit import Duplicates, audit, read_decisions, write_review
from robustfer.data import load

TRAP = '<img src=x onerror="document.title=1">'
CLASSES = ["happy", "sad", TRAP]
SAMPLES = 60


def images(count=SAMPLES):
    generator = torch.Generator().manual_seed(0)
    return torch.randint(256, (count, 3, 40, 30), dtype=torch.uint8, generator=generator)


def result(count=SAMPLES, classes=CLASSES, embeddings=None, first=TRAP):
    generator = np.random.default_rng(0)
    rows = generator.dirichlet(np.ones(len(classes)), size=count)
    given = generator.choice(len(classes), size=count, p=[0.8, 0.15, 0.05])
    ids = [
        first,
        "=1+2.png",
        "constructor",
        '</script><b>"&',
        *(f"{row}.png" for row in range(4, count)),
    ]
    return audit(given, rows, classes=classes, ids=ids, embeddings=embeddings)


def page_data(path):
    found = re.search(
        r'<script id="data" type="application/json">(.*?)</script>', path.read_text(), re.S
    )
    return json.loads(found[1])


class Tags(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.found = []
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))


def test_the_page_holds_the_draw_and_the_suspects(tmp_path):
    found, pictures = result(embeddings=torch.randn(SAMPLES, 4)), images()
    write_review(tmp_path / "a.html", found, pictures, random=10, suspects=7, thumbnail=20)
    data = page_data(tmp_path / "a.html")
    assert (data["audit"], data["classes"], data["drawn"]) == (
        found.fingerprint,
        CLASSES,
        "stratified",
    )
    assert [face["id"] for face in data["suspects"]] == [
        found.ids[row] for row in found.ranking[:7]
    ]
    assert len({face["id"] for face in data["random"]}) == 10
    face, row = data["suspects"][0], int(found.ranking[0])
    assert (face["given"], face["suggestion"]) == (
        int(found.given[row]),
        int(found.suggestion[row]),
    )
    assert face["wrong"] == pytest.approx(float(found.wrong_probability[row]), abs=1e-4)
    assert 0 <= face["neighbors"] <= 1
    kind, content = face["image"].split(",")
    assert kind == "data:image/jpeg;base64"
    assert Image.open(io.BytesIO(base64.b64decode(content))).size == (15, 20)
    again = tmp_path / "b.html"
    write_review(again, found, pictures, random=10, suspects=7, thumbnail=20)
    assert again.read_bytes() == (tmp_path / "a.html").read_bytes()
    write_review(again, found, pictures, random=10, seed=1)
    assert [f["id"] for f in page_data(again)["random"]] != [f["id"] for f in data["random"]]


def test_names_and_labels_cannot_leave_their_text(tmp_path):
    write_review(tmp_path / "a.html", result(), images(), title=TRAP + "</title>")
    tags = Tags((tmp_path / "a.html").read_text()).found
    assert not [tag for tag, _ in tags if tag in ("img", "b", "link", "iframe")]
    assert [attributes for tag, attributes in tags if tag == "script"] == [
        {"id": "data", "type": "application/json"},
        {},
    ]
    assert not [one for _, one in tags if {"src", "href"} & one.keys()]
    policy = next(one["content"] for tag, one in tags if "http-equiv" in one)
    assert policy.startswith("default-src 'none'; img-src data:;")


def test_a_stratified_draw_has_as_many_of_each_label(tmp_path):
    found = result()
    write_review(tmp_path / "a.html", found, images(), random=9)
    data = page_data(tmp_path / "a.html")
    given = [face["given"] for face in data["random"]]
    counts = found.given.bincount(minlength=3).tolist()
    rare = min(counts[2], 3)
    assert given.count(2) == rare
    assert abs(given.count(0) - given.count(1)) <= 1
    assert given != sorted(given)
    assert data["drawn"] == "stratified"
    write_review(tmp_path / "a.html", found, images(), random=1000, suspects=0, stratified=False)
    assert page_data(tmp_path / "a.html")["drawn"] == "random"
    assert len(page_data(tmp_path / "a.html")["random"]) == SAMPLES


def test_duplicates_and_leaks_are_shown(tmp_path):
    found = result()
    one, other, same = (int((found.given == label).nonzero()[0]) for label in (0, 1, 0))
    same = int((found.given == 0).nonzero()[1])
    pairs = Duplicates(
        torch.tensor([one, one]), torch.tensor([same, other]), torch.tensor([0.99, 0.95])
    )
    leaks = Duplicates(torch.tensor([5]), torch.tensor([1]), torch.tensor([0.97]))
    write_review(
        tmp_path / "a.html", found, images(), duplicates=pairs, leaks=(images(3), leaks), random=2
    )
    data = page_data(tmp_path / "a.html")
    [pair] = data["duplicates"]  # the other pair agrees
    assert data["totals"] == {"duplicates": 1, "leaks": 1}
    assert (pair["id"], pair["twin"]["id"]) == (found.ids[one], found.ids[other])
    assert pair["similarity"] == pytest.approx(0.95)
    assert [(leak["id"], leak["twin"]["id"]) for leak in data["leaks"]] == [(found.ids[5], "1")]


def test_a_data_set_is_taken_as_it_is(tmp_path):
    faces = load("demo", num_samples=30)
    rows = torch.eye(7)[faces.targets] * 0.6 + 0.4 / 7
    found = audit(faces.targets, rows, classes=faces.classes, ids=faces.ids)
    write_review(tmp_path / "new" / "a.html", found, faces, suspects=3)
    assert len(page_data(tmp_path / "new" / "a.html")["random"]) == 30


def test_many_faces_stay_small(tmp_path):
    faces = load("demo", num_samples=100, size=112)
    many = [faces[row]["image"] for row in range(100)] * 3
    write_review(tmp_path / "a.html", result(300), many, random=100, suspects=300)
    assert (tmp_path / "a.html").stat().st_size < 300 * 7.5e3


@pytest.mark.parametrize(
    ("pictures", "options", "message"),
    [
        (images(5), {}, "images must be those of the 60 audited samples, got 5"),
        (images().float(), {}, r"images must be uint8 tensors .* got torch.float32 of shape"),
        (images()[:, :2], {}, r"3 channels or 1, got shape \(2, 40, 30\)"),
        ([None] * SAMPLES, {}, "images must be uint8 tensors .* got NoneType"),
        (images(), {"random": -1}, "random must be a whole number from 0"),
        (images(), {"thumbnail": 4}, "thumbnail must be a whole number from 8 to 1024"),
    ],
)
def test_refuses(tmp_path, pictures, options, message):
    with pytest.raises(ValueError, match=message):
        write_review(tmp_path / "a.html", result(), pictures, **options)
    assert not (tmp_path / "a.html").exists()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ids": 2 * ["a.png"]}, "ids 'a.png' and 'a.png' are one name in a file of decisions"),
        ({"ids": ["=a.png", "'=a.png"]}, "are one name in a file of decisions; rename one"),
        ({"ids": ["a.png", " a.png"]}, "ids 'a.png' and ' a.png' are one name"),
        (
            {"ids": ["a.png", "\udce9.png"]},
            r"the name '\\udce9.png' cannot be written .* rename it",
        ),
        ({"classes": ["sad", "sad ", "glad"]}, "classes 'sad' and 'sad ' are one name"),
    ],
)
def test_names_that_decisions_could_not_tell_apart(tmp_path, change, message):
    found = result()
    if "ids" in change:
        change = {"ids": [*change["ids"], *found.ids[2:]]}
    with pytest.raises(ValueError, match=message):
        write_review(tmp_path / "a.html", replace(found, **change), images(), random=SAMPLES)
    assert not (tmp_path / "a.html").exists()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    driver_path, chromium = shutil.which("chromedriver"), shutil.which("chromium")
    if driver_path is None or chromium is None:
        if os.environ.get("ROBUSTFER_BROWSER_REQUIRED"):
            pytest.fail("no Chromium here: run `make browser`")
        pytest.skip("no Chromium here: run `make browser`")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    downloads = tmp_path_factory.mktemp("downloads")
    for argument in ("--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"):
        options.add_argument(argument)
    options.add_experimental_option("prefs", {"download.default_directory": str(downloads)})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(driver_path))
    driver.downloads = downloads
    yield driver
    driver.quit()


def press(browser, *keys):
    for key in keys:
        browser.find_element("tag name", "body").send_keys(key)


def text(browser, selector):
    return browser.find_element("css selector", selector).text


def open_tab(browser, title):
    tabs = browser.find_elements("css selector", "nav button")
    next(tab for tab in tabs if tab.text.startswith(title)).click()


def stored(browser, found, reviewer=""):
    """Decisions about the labels that the browser keeps."""
    start, decisions = f"robustfer-audit-{found.fingerprint}", {}
    for key, label in browser.execute_script("return Object.entries(localStorage)"):
        if key.startswith(start + "["):
            by, part, name = json.loads(key.removeprefix(start))
            if by == reviewer:
                decisions[part, name] = label
    return decisions


def test_two_open_pages_keep_the_decisions_of_both(browser, tmp_path):
    from selenium.webdriver.support.wait import WebDriverWait

    found = result(first="two.png")
    for name, suspects in (("review.html", 6), ("review-2.html", 9)):
        write_review(tmp_path / name, found, images(), random=5, suspects=suspects)
    drawn = page_data(tmp_path / "review-2.html")["random"]
    names = [("stratified", face["id"]) for face in drawn]
    first = browser.current_window_handle

    def shown(expected):
        part = "nav button[aria-current=page]"
        WebDriverWait(browser, 20).until(lambda _: text(browser, part) == expected)

    browser.get((tmp_path / "review.html").as_uri())
    press(browser, "1", "1")
    browser.switch_to.new_window("tab")
    second = browser.current_window_handle
    try:
        browser.get((tmp_path / "review-2.html").as_uri())
        shown("Random 2/5")
        press(browser, "2", "3")
        browser.switch_to.window(first)
        shown("Random 4/5")
        # The newest decision of a face wins.
        press(browser, "x")
        labels = ("happy", "happy", "ambiguous", TRAP)
        assert stored(browser, found) == dict(zip(names[:4], labels, strict=True))
        # Undo takes back what this page decided.
        press(browser, "u", "u")
        shown("Random 3/5")
        browser.switch_to.window(second)
        shown("Random 3/5")
        press(browser, "u", "u", "u")
        shown("Random 1/5")
        browser.refresh()
        shown("Random 1/5")
    finally:
        browser.switch_to.window(second)
        browser.close()
        browser.switch_to.window(first)
    shown("Random 1/5")
    assert stored(browser, found) == {names[0]: "happy"}


def test_each_reviewer_has_own_decisions(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    found = result(first="reviewers.png")
    write_review(tmp_path / "review.html", found, images(), random=5)
    browser.get((tmp_path / "review.html").as_uri())
    field = browser.find_element("id", "reviewer")

    def part():
        return text(browser, "nav button[aria-current=page]")

    press(browser, "1", "1")
    # The keys of the name decide nothing.
    field.send_keys("Ünal 12x", Keys.ENTER)
    assert part() == "Random 0/5"
    press(browser, "u", "2", "2", "2")
    browser.refresh()
    assert part() == "Random 3/5"
    field = browser.find_element("id", "reviewer")
    assert field.get_attribute("value") == "Ünal 12x"
    press(browser, "u", "d")
    file = browser.downloads / f"decisions-{found.fingerprint}-Ünal-12x.csv"
    WebDriverWait(browser, 20).until(lambda _: file.exists())
    decisions = read_decisions(file, found.given, classes=CLASSES, ids=found.ids)
    assert decisions.drawn_label.tolist() == [1, 1]
    field.clear()
    field.send_keys(Keys.ENTER)
    assert part() == "Random 2/5"
    assert set(stored(browser, found).values()) == {"happy"}
    assert list(stored(browser, found, "Ünal 12x").values()) == ["sad", "sad"]


def test_a_review_from_the_disk_to_decisions(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys
    from selenium.webdriver.support.wait import WebDriverWait

    found = result()
    path = tmp_path / "review.html"
    write_review(path, found, images(), random=5, suspects=SAMPLES)
    data = page_data(path)
    browser.get(path.as_uri())

    # Blind: no label and no name of a face is shown, only the choices.
    assert "Given label" not in text(browser, "main")
    assert text(browser, "nav button[aria-current=page]") == "Random 0/5"
    press(browser, "1", "2", "x", "3")
    assert text(browser, "nav button[aria-current=page]") == "Random 4/5"
    press(browser, "u")
    assert text(browser, "nav button[aria-current=page]") == "Random 3/5"
    assert "Face 4 of 5" in text(browser, "#status")
    press(browser, Keys.ARROW_LEFT)
    assert "ambiguous" in text(browser, "main")

    browser.refresh()
    assert text(browser, "nav button[aria-current=page]") == "Random 3/5"
    assert "Face 4 of 5" in text(browser, "#status")

    open_tab(browser, "Suspects")
    assert data["classes"][data["suspects"][0]["given"]] in text(browser, "main")
    press(browser, Keys.ENTER, "k", "3", Keys.ARROW_RIGHT)
    press(browser, *"1" * (SAMPLES - 4))
    assert "This is the end of the part. You skipped 1 face." in text(browser, "main")
    press(browser, "1", "k")  # nothing is left to decide
    assert text(browser, "nav button[aria-current=page]") == f"Suspects {SAMPLES - 1}/{SAMPLES}"
    open_tab(browser, "Overview")
    assert text(browser, "tbody tr td") == CLASSES[0]
    assert "33 %" in text(browser, "tbody") or "50 %" in text(browser, "tbody")

    press(browser, "d")
    file = browser.downloads / f"decisions-{found.fingerprint}.csv"
    WebDriverWait(browser, 20).until(lambda _: file.exists())
    assert '"\'=1+2.png"' in file.read_text()
    decisions = read_decisions(file, found.given, classes=CLASSES, ids=found.ids)
    rows = {name: row for row, name in enumerate(found.ids)}
    blind = {
        rows[face["id"]]: label for face, label in zip(data["random"], (0, 1, -1), strict=False)
    }
    drawn = dict(zip(decisions.drawn_index.tolist(), decisions.drawn_label.tolist(), strict=True))
    assert drawn == blind
    said = dict(zip(decisions.index.tolist(), decisions.label.tolist(), strict=True))
    expected = {rows[face["id"]]: 0 for face in data["suspects"][4:]}
    first, second, third = data["suspects"][:3]
    expected |= {rows[first["id"]]: first["suggestion"], rows[second["id"]]: second["given"]}
    expected[rows[third["id"]]] = 2
    for row, label in blind.items():
        expected[row] = label if expected.get(row, label) == label else -1
    assert said == expected

    # The names of files and classes are text and nothing else; nothing was asked of anyone.
    assert browser.title == "Review of labels"
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [
        one["params"]["request"]["url"]
        for one in messages
        if one["method"] == "Network.requestWillBeSent"
    ]
    assert {url.split(":")[0] for url in asked} <= {"file", "data", "blob"}
    assert browser.get_log("browser") == []


def test_a_pair_of_duplicates_gets_one_label(browser, tmp_path):
    found = result(first="a.png")
    one, other = (int((found.given == label).nonzero()[0]) for label in (0, 1))
    pairs = Duplicates(torch.tensor([one]), torch.tensor([other]), torch.tensor([0.95]))
    write_review(tmp_path / "review.html", found, images(), duplicates=pairs)
    browser.get((tmp_path / "review.html").as_uri())
    open_tab(browser, "Duplicates")
    assert "happy and sad" in text(browser, "main")
    assert len(browser.find_elements("css selector", "main img")) == 2
    press(browser, "2")
    assert text(browser, "nav button[aria-current=page]") == "Duplicates 1/1"
    said = {("duplicates", found.ids[row]): "sad" for row in (one, other)}
    assert stored(browser, found) == said
    press(browser, "u")
    assert stored(browser, found) == {}


def test_the_page_says_how_many_pairs_there_are(browser, tmp_path):
    found = result(1300, first="pairs.png")
    zero, other = ((found.given == label).nonzero()[:, 0] for label in (0, 1))
    first, second = zero.repeat(4)[:600], other.repeat(4)[:600]
    pairs = Duplicates(first, second, torch.linspace(1, 0.94, len(first)))
    leaks = Duplicates(torch.arange(300), torch.arange(300), torch.ones(300))
    small = images(1300)[..., :8, :8]
    options = {"random": 5, "suspects": 4, "thumbnail": 8}
    path = tmp_path / "review.html"
    write_review(path, found, small, duplicates=pairs, leaks=(small, leaks), **options)
    browser.get(path.as_uri())
    open_tab(browser, "Duplicates")
    assert "Face 1 of 500, 0 decided, the 500 most similar of 600 pairs" in text(browser, "#status")
    open_tab(browser, "Overview")
    shown = text(browser, "main")
    assert "Also in the other split (the 100 most similar of 300 pairs)" in shown
    leaks = Duplicates(*(column[:1] for column in leaks))
    write_review(path, found, small, duplicates=pairs, leaks=(small, leaks), **options)
    browser.get(path.as_uri())
    open_tab(browser, "Overview")
    assert "Also in the other split (1 pair)" in text(browser, "main")


def test_n_goes_through_the_parts(browser, tmp_path):
    found = result(first="parts.png")
    one, other = (int((found.given == label).nonzero()[0]) for label in (0, 1))
    pairs = Duplicates(torch.tensor([one]), torch.tensor([other]), torch.tensor([0.95]))
    write_review(tmp_path / "review.html", found, images(), duplicates=pairs, random=5, suspects=4)
    browser.get((tmp_path / "review.html").as_uri())

    def part():
        return text(browser, "nav button[aria-current=page]")

    press(browser, "1")
    for title in ("Suspects 0/4", "Duplicates 0/1", "Overview", "Random 1/5"):
        press(browser, "n")
        assert part() == title
    # Each part stays at its face, also by the button.
    press(browser, "n", "k", "n", "n", "n")
    assert "Face 2 of 5" in text(browser, "#status")
    button = browser.find_element("id", "part")
    assert button.text == "n Next part"
    button.click()
    assert part() == "Suspects 1/4"
    assert "Face 2 of 4" in text(browser, "#status")
    # Opened again, the page shows the same part; another day, the first that is not finished.
    browser.refresh()
    assert part() == "Suspects 1/4"
    open_tab(browser, "Random")
    press(browser, "1", "1", "1", "1")
    browser.execute_script("sessionStorage.clear()")
    browser.refresh()
    assert part() == "Suspects 1/4"
    # A review without duplicates has no such part.
    write_review(tmp_path / "plain.html", result(first="b.png"), images(), random=5)
    browser.get((tmp_path / "plain.html").as_uri())
    press(browser, "n", "n")
    assert part() == "Overview"


def test_a_key_that_is_held_down_decides_once(browser, tmp_path):
    found = result(first="held.png")
    write_review(tmp_path / "review.html", found, images(), random=5, suspects=9)
    browser.get((tmp_path / "review.html").as_uri())

    def hold(key, code, times=6):
        for time in range(times):
            event = {"type": "keyDown", "key": key, "text": "\r" if key == "Enter" else key}
            event |= {"autoRepeat": time > 0, "windowsVirtualKeyCode": code}
            browser.execute_cdp_cmd("Input.dispatchKeyEvent", event)
        browser.execute_cdp_cmd("Input.dispatchKeyEvent", {"type": "keyUp", "key": key})

    hold("1", 49)
    hold("x", 88)
    assert text(browser, "nav button[aria-current=page]") == "Random 2/5"
    hold("n", 78)
    hold("Enter", 13)
    hold("k", 75)
    assert text(browser, "nav button[aria-current=page]") == "Suspects 2/9"
    # It also presses a button that the keyboard has reached only once.
    browser.execute_script("document.getElementById('undo').focus()")
    hold("Enter", 13)
    assert text(browser, "nav button[aria-current=page]") == "Suspects 1/9"
    assert browser.switch_to.active_element.get_attribute("id") == "undo"


def test_tab_keeps_its_place_at_each_decision(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    found = result(first="tab.png")
    write_review(tmp_path / "review.html", found, images(), random=3, suspects=4)
    browser.get((tmp_path / "review.html").as_uri())

    def send(*keys):
        for key in keys:
            browser.switch_to.active_element.send_keys(key)

    def focused():
        return browser.switch_to.active_element.text

    tabs = browser.find_elements("css selector", "nav button")
    browser.execute_script("arguments[0].focus()", tabs[-1])
    send(Keys.TAB, Keys.TAB)
    assert focused() == "2 sad"
    for done in (1, 2):
        send(Keys.ENTER)
        assert focused() == "2 sad"
        assert text(browser, "nav button[aria-current=page]") == f"Random {done}/3"
    assert set(stored(browser, found).values()) == {"sad"}
    # At the end of the part there is no such button. The next Tab goes on behind the faces.
    send(Keys.ENTER)
    assert browser.switch_to.active_element.get_attribute("id") == "main"
    send(Keys.TAB)
    assert focused() == "u Undo"
    # A tab keeps it too, although its count changes.
    browser.execute_script(
        "arguments[0].focus()", browser.find_elements("css selector", "nav button")[1]
    )
    send(Keys.ENTER, "k")
    assert focused() == "Suspects 1/4"


def test_enter_is_for_the_face_after_a_click(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    found = result(first="enter.png")
    write_review(tmp_path / "review.html", found, images(), random=5, suspects=9)
    browser.get((tmp_path / "review.html").as_uri())

    def enter():
        browser.switch_to.active_element.send_keys(Keys.ENTER)
        return text(browser, "nav button[aria-current=page]")

    browser.find_element("id", "part").click()
    assert enter() == "Suspects 1/9"
    press(browser, "k", "k", "k")
    browser.find_element("id", "undo").click()
    assert enter() == "Suspects 4/9"
    browser.find_element("id", "next").click()
    assert enter() == "Suspects 5/9"
    browser.find_element("css selector", ".choices button:nth-child(3)").click()
    assert enter() == "Suspects 7/9"


def test_skipped_faces_are_not_called_done(browser, tmp_path):
    from selenium.webdriver.common.keys import Keys

    found = result(first="skipped.png")
    write_review(tmp_path / "review.html", found, images(), random=5, suspects=0)
    browser.get((tmp_path / "review.html").as_uri())
    press(browser, "1", Keys.ARROW_RIGHT, "1", Keys.ARROW_RIGHT, "1")
    assert "This is the end of the part. You skipped 2 faces." in text(browser, "main")
    assert "done" not in text(browser, "main")
    # Enter does not lead back: it would accept the next suggestion too.
    press(browser, Keys.ENTER)
    browser.find_element("css selector", "main button").click()
    assert "Face 2 of 5" in text(browser, "#status")
    press(browser, "1", Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert "You skipped 1 face." in text(browser, "main")
    press(browser, "f")
    assert "Face 4 of 5" in text(browser, "#status")
    press(browser, "1", "f")
    assert "All faces of this part are done" in text(browser, "main")
    press(browser, "n")
    assert "This part has no faces" in text(browser, "main")


def test_a_class_that_the_network_has_not_learnt_is_named(browser, tmp_path):
    whole = result(first="c.png")
    table = tuple(replace(one, agreed=int(one.name != CLASSES[1])) for one in whole.table)
    for found, named in ((whole, False), (replace(whole, table=table), True)):
        write_review(tmp_path / "review.html", found, images(), random=5)
        browser.get((tmp_path / "review.html").as_uri())
        open_tab(browser, "Overview")
        note = f"The network never agrees with the label {CLASSES[1]}. It has not learnt the class"
        assert (note in text(browser, "main")) is named


@pytest.mark.parametrize("width", [390, 1280])
def test_it_fits_a_phone_and_a_screen(browser, tmp_path, width):
    path = tmp_path / "review.html"
    write_review(path, result(), images(), random=5, suspects=9)
    browser.execute_cdp_cmd(
        "Emulation.setDeviceMetricsOverride",
        {"width": width, "height": 844, "deviceScaleFactor": 1, "mobile": width < 500},
    )
    browser.get(path.as_uri())
    for title in ("Random", "Suspects", "Overview"):
        open_tab(browser, title)
        inner, page = browser.execute_script(
            "return [innerWidth, document.documentElement.scrollWidth]"
        )
        assert page <= inner == width
        for button in browser.find_elements("css selector", "button"):
            assert button.size["height"] >= 44
    browser.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
