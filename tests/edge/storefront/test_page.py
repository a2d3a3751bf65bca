"""The page in a real browser, before a real edge: what a person sees and does.

Screenshots are kept in runs/screenshots, one a story.
"""

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import expect, sync_playwright

from edge import cli
from edge.records.events import Event, EventType, Item
from edge.records.store import Store
from simulation.processes import free_ports

ENVIRONMENT = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
"""NiceGUI behaves otherwise in a process that it takes for a test."""
CHROMIUM = shutil.which("chromium")
PICTURES = Path(__file__).parents[3] / "runs" / "screenshots"
SHELF = [
    ("t1", "Green tea from Uji", "tea", "Hanami", 7.9),
    ("t2", "Black tea Assam", "tea", "Hanami", 5.2),
    ("t3", "Peppermint tea", "tea", "Kräuterhof", 3.1),
    ("t4", "Tea pot of clay", "crockery", "Töpferei", 24.0),
    ("t5", "Honey from lime trees", "sweets", "Imkerei", 8.5),
    ("t6", "Oat biscuits", "sweets", "Backhaus", 2.9),
    ("t7", "Coffee Ethiopia", "coffee", "Rösterei", 11.5),
    ("t8", "Coffee filter", "coffee", "Rösterei", 2.2),
    ("t9", "A title with <b>marks</b> & signs", "odd", "Töpferei", 1.0),
]
BASKETS = {"ada": ["t1", "t5", "t4"], "bob": ["t1", "t5"], "cleo": ["t7", "t8"], "dan": ["t1", "t4"]}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A shop that is alone, its edge and its page, each a process."""
    folder = tmp_path_factory.mktemp("storefront") / "shop"
    edge_port, page_port = free_ports(2)
    assert cli.main(["new", "corner-shop", "--dir", str(folder), "--port", str(edge_port)]) == 0
    now_ms = time.time_ns() // 1_000_000
    with Store.open(folder / "store.db") as store:
        store.put_items(
            Item(item=item, title=title, category=category, brand=brand, price=price, stock=5)
            for item, title, category, brand, price in SHELF
        )
        store.add_events(
            Event(event_id=f"{user}-{item}", type=EventType.PURCHASE, user=user, item=item, time_ms=now_ms - 3_600_000)
            for user, items in BASKETS.items()
            for item in items
        )
    with (folder / "edge.toml").open("a", encoding="utf-8") as file:
        file.write(f"\n[storefront]\nenabled = true\nport = {page_port}\n")
    process = subprocess.Popen([sys.executable, "-m", "edge.cli", "serve", "--dir", str(folder)], env=ENVIRONMENT)
    try:
        wait_until_open(edge_port, process)
        wait_until_open(page_port, process)
        key = (folder / "keys" / "operator.key").read_text("ascii").strip()
        yield {"url": f"http://127.0.0.1:{page_port}/", "edge": f"http://127.0.0.1:{edge_port}/", "key": key}
    finally:
        process.terminate()
        assert process.wait(15) == 0


def wait_until_open(port, process):
    deadline = time.monotonic() + 60
    while True:
        assert process.poll() is None
        try:
            httpx.get(f"http://127.0.0.1:{port}/healthz", timeout=5, trust_env=False)
        except httpx.TransportError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            return


@pytest.fixture(scope="module")
def browser():
    assert CHROMIUM, "install chromium (apt-get install chromium)"
    with sync_playwright() as play:
        started = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


@pytest.fixture
def page(browser, site, request):
    """The page as it opens; nothing may be asked of any other machine, and nothing may fail in the console."""
    context = browser.new_context(viewport={"width": 1280, "height": 900})
    tab = context.new_page()
    strangers, errors = [], []
    tab.on("request", lambda asked: strangers.append(asked.url) if "127.0.0.1" not in asked.url else None)
    tab.on("pageerror", lambda error: errors.append(str(error)))
    tab.goto(site["url"])
    expect(tab.get_by_text("Trending now")).to_be_visible()
    yield tab
    PICTURES.mkdir(parents=True, exist_ok=True)
    tab.screenshot(path=PICTURES / f"{request.node.name.removeprefix('test_')}.png")
    context.close()
    assert [url for url in strangers if not url.startswith(("data:", "blob:"))] == []
    assert errors == []


def search(page, words):
    page.get_by_placeholder("Search").fill(words)
    page.keyboard.press("Enter")
    expect(page.get_by_text(f"found for “{words}”")).to_be_visible()


def become(page, user):
    box = page.get_by_label("who asks")
    box.click()
    box.fill(user)
    page.get_by_role("option", name=user, exact=True).click()
    expect(page.get_by_text("For you")).to_be_visible()


def test_a_stranger_sees_what_sells_and_what_it_was_answered_from(page):
    expect(page.get_by_text("For a stranger")).to_be_visible()
    expect(page.locator(".tile").first).to_contain_text("tea")
    expect(page.get_by_text("release none")).to_be_visible()


def test_a_known_user_sees_other_things_and_why(page):
    become(page, "ada")
    page.get_by_text("Why this?").first.click()
    dialog = page.get_by_role("dialog")
    expect(dialog).to_contain_text("bought")
    dialog.get_by_text("Close").click()


def test_a_search_with_a_typo_finds_facets_and_all(page):
    search(page, "gren tea")
    expect(page.locator(".tile").first).to_contain_text("Green tea from Uji")
    expect(page.get_by_text("tea (", exact=False).first).to_be_visible()


def test_ticking_a_facet_leaves_what_was_ticked(page):
    search(page, "tea")
    expect(page.get_by_text("Tea pot of clay")).to_be_visible()
    page.get_by_role("checkbox", name="Hanami", exact=False).click()
    expect(page.get_by_text("Tea pot of clay")).to_be_hidden()
    expect(page.get_by_text("Black tea Assam")).to_be_visible()


def test_an_item_has_a_page_with_what_is_like_it_and_what_goes_with_it(page):
    search(page, "uji")
    page.locator(".tile").first.locator(".cover").click()
    expect(page.get_by_text("Similar")).to_be_visible()
    expect(page.get_by_text("Goes with it")).to_be_visible()
    expect(page.get_by_text("Honey from lime trees").first).to_be_visible()


def test_what_is_bought_here_changes_the_next_answer(page):
    search(page, "ethiopia")
    page.locator(".tile").first.locator(".cover").click()
    page.get_by_role("button", name="Buy").click()
    expect(page.get_by_text("Bought")).to_be_visible()
    page.get_by_text("corner-shop").first.click()
    expect(page.get_by_text("For a stranger")).to_be_visible()
    expect(page.locator(".tile").first).to_contain_text("Coffee Ethiopia")


def test_a_title_with_marks_in_it_is_shown_and_not_run(page):
    search(page, "marks")
    expect(page.locator(".tile").first).to_contain_text("A title with <b>marks</b> & signs")


def test_a_search_without_hits_says_so(page):
    search(page, "zzzzqqqq")
    expect(page.get_by_text("0 found")).to_be_visible()


def test_the_key_of_the_edge_never_reaches_the_browser(page, site):
    search(page, "tea")
    kept = page.evaluate("() => JSON.stringify({...localStorage, ...sessionStorage}) + document.cookie")
    assert site["key"] not in page.content() + kept


def test_the_edges_own_address_leads_to_the_page(site):
    answer = httpx.get(site["edge"], trust_env=False)
    assert (answer.status_code, answer.headers["location"]) == (307, site["url"])
