"""The page: a shop with a search box, shelves, facets, an item's own page, and the reasons behind every answer."""

import hashlib
import secrets
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any

from nicegui import ui

from edge.client import Edge, EdgeError
from edge.storefront.window import STRANGER, Window, gather, names
from protocol.errors import FederationError

Items = Sequence[Mapping[str, Any]]

_STYLE = """
<style>
  body { background: #f6f5f1; color: #22302b; }
  .bar { background: #17352c; }
  .tile { border-radius: 14px; background: white; box-shadow: 0 1px 2px rgb(0 0 0 / 8%); transition: box-shadow .15s; }
  .tile:hover { box-shadow: 0 6px 18px rgb(0 0 0 / 12%); }
  .cover { border-radius: 14px 14px 0 0; height: 104px; font-size: 38px; color: rgb(255 255 255 / 92%); }
  .title { display: -webkit-box; -webkit-line-clamp: 2; -webkit-box-orient: vertical; overflow: hidden; height: 2.6em; }
  mark { background: #ffe7a3; border-radius: 3px; padding: 0 2px; }
</style>
"""
_GREEN = "#1f6b54"
_SORTS = {"relevance": "Best match", "price_asc": "Price, low first", "price_desc": "Price, high first"}
_SORTS["popularity"] = "Popular"


def build(site: str, edge: Edge, users: Callable[[], list[str]]) -> None:
    """Register the page; each visitor gets a window of their own."""

    @ui.page("/", title=f"{site}: what the edge answers")
    async def shop() -> None:
        window = Window(edge=edge, session=f"storefront-{secrets.token_hex(8)}")
        await Page(site, window, users()).show()


class Page:
    """One visitor's page."""

    def __init__(self, site: str, window: Window, users: Sequence[str]) -> None:
        self._site = site
        self._window = window
        self._users = users

    async def show(self) -> None:
        """Draw the frame, then what is in it."""
        ui.add_head_html(_STYLE)
        ui.colors(primary=_GREEN)
        self._header()
        self._body = ui.column().classes("w-full max-w-6xl mx-auto p-4 gap-6")
        with ui.footer().classes("bar text-xs py-1"):
            self._foot = ui.label("").classes("opacity-80").mark("foot")
        await self._fill()

    def _header(self) -> None:
        with ui.header().classes("bar items-center gap-4 px-6"):
            ui.label(self._site).classes("text-lg font-semibold cursor-pointer").on("click", self._go_home).mark("home")
            self._box = (
                ui.input(placeholder="Search", autocomplete=[])
                .props("dense standout dark clearable")
                .classes("grow max-w-xl")
                .on("keydown.enter", self._search)
                .on("update:model-value", self._suggest, throttle=0.15)
                .mark("search")
            )
            ui.button(icon="search", on_click=self._search).props("flat round color=white").mark("go")
            ui.space()
            ui.select(
                names(self._users), value=self._window.user, label="who asks", with_input=True, on_change=self._become
            ).props("dense dark standout").classes("w-48").mark("who")

    async def _fill(self) -> None:
        """Draw what the window shows; a refusal of the edge is shown, not hidden."""
        self._body.clear()
        try:
            with self._body:
                await self._contents()
        except FederationError as error:
            with self._body, ui.card().classes("w-full bg-red-50"):
                ui.label(error.line()).classes("text-red-900").mark("problem")
        self._sign()

    async def _contents(self) -> None:
        window = self._window
        if window.item:
            await self._item_page()
        elif window.query:
            await self._results()
        else:
            wanted, trending = await gather(window.for_you(), window.trending())
            whom = "For you" if window.user != STRANGER else "For a stranger"
            self._shelf(whom, wanted, why=True)
            self._shelf("Trending now", trending)

    async def _results(self) -> None:
        found = await self._window.found()
        with ui.row().classes("w-full items-baseline gap-3"):
            hits = found.get("hits", len(found["items"]))
            ui.label(f"{hits} found for “{self._window.query}”").classes("text-lg").mark("hits")
            if found.get("corrected"):
                ui.label(f"also looked for “{found['corrected']}”").classes("italic opacity-70").mark("corrected")
            ui.space()
            ui.select(_SORTS, value=self._window.sort, on_change=self._sort).props("dense outlined").mark("sort")
        with ui.row().classes("w-full no-wrap gap-6 items-start"):
            with ui.column().classes("w-56 shrink-0 gap-4"):
                for name, counts in found.get("facets", {}).items():
                    self._facet(name, counts)
            with ui.element("div").classes("grid grid-cols-2 md:grid-cols-4 gap-4 grow"):
                for item in found["items"]:
                    self._tile(item)

    def _facet(self, name: str, counts: Any) -> None:
        ticked = self._window.chosen.setdefault(name, set())
        with ui.column().classes("gap-0").mark(f"facet-{name}"):
            ui.label(name.capitalize()).classes("font-semibold text-sm")
            for row in counts:
                value, count = str(row["value"]), row["count"]
                ui.checkbox(f"{value} ({count})", value=value in ticked, on_change=self._ticking(name, value)).props(
                    "dense"
                ).classes("text-sm")

    async def _item_page(self) -> None:
        window = self._window
        told, similar, related = await gather(window.about(window.item), window.similar(), window.related())
        with ui.row().classes("w-full gap-8 tile p-6 no-wrap"):
            _cover(told, large=True)
            with ui.column().classes("gap-2 grow"):
                ui.label(told.get("title") or window.item).classes("text-2xl font-semibold").mark("item-title")
                ui.label(" · ".join(part for part in (told.get("brand"), told.get("category")) if part))
                ui.label(_price(told)).classes("text-xl")
                for name, value in (told.get("attributes") or {}).items():
                    ui.label(f"{name}: {value}").classes("text-sm opacity-70")
                with ui.row():
                    ui.button("Into the basket", on_click=self._doing("add_to_cart", "In the basket")).mark("cart")
                    ui.button("Buy", on_click=self._doing("purchase", "Bought")).props("outline").mark("buy")
                    ui.button("Why this?", on_click=self._asking(window.item)).props("flat").mark("why-item")
        self._shelf("Similar", similar)
        self._shelf("Goes with it", related)

    def _shelf(self, heading: str, items: Items, *, why: bool = False) -> None:
        with ui.column().classes("w-full gap-2").mark(f"shelf {heading}"):
            ui.label(heading).classes("text-xl font-semibold")
            if not items:
                ui.label("Nothing yet.").classes("opacity-60")
            with ui.element("div").classes("grid grid-cols-2 md:grid-cols-4 gap-4 w-full"):
                for item in items:
                    self._tile(item, why=why)

    def _tile(self, item: Mapping[str, Any], *, why: bool = False) -> None:
        with ui.column().classes("tile gap-1 cursor-pointer").mark("tile"):
            with ui.column().classes("w-full gap-1").on("click", self._opening(str(item["item"]))):
                _cover(item)
                with ui.column().classes("px-3 pt-1 gap-0 w-full"):
                    shown = item.get("highlight")
                    if shown:  # escaped by the edge, but for the marks
                        ui.html(shown, sanitize=False).classes("title text-sm font-medium")
                    else:
                        ui.label(str(item.get("title") or item["item"])).classes("title text-sm font-medium")
                    ui.label(str(item.get("brand") or item.get("category") or "")).classes("text-xs opacity-60")
            with ui.row().classes("px-3 pb-2 w-full items-center justify-between"):
                ui.label(_price(item)).classes("text-sm font-semibold")
                for badge in ("promotion", "pinned", "explored"):
                    if item.get(badge):
                        ui.badge(badge).props("color=amber-8")
                if why:
                    asking = self._asking(str(item["item"]))
                    ui.button("Why this?", on_click=asking).props("flat dense size=sm").mark("why")

    def _sign(self) -> None:
        """Who answered: the release, the arm, the rung, and what was not as it should be."""
        said = self._window.answer
        if not said:
            return
        parts = [f"release {said.get('release') or 'none'}"]
        parts += [f"rung {said['rung']}"] if "rung" in said else ["search"]
        parts += [f"arm {said['arm']}"] if said.get("arm") else []
        parts += [f"degraded: {', '.join(said['reasons'])}"] if said.get("degraded") else []
        parts.append(f"{1000 * self._window.seconds:.1f} ms")
        self._foot.text = "  ·  ".join(parts)

    async def _go_home(self) -> None:
        self._window.query, self._window.item = "", ""
        self._box.value = ""
        await self._fill()

    async def _search(self) -> None:
        self._window.query, self._window.item = (self._box.value or "").strip(), ""
        self._window.chosen.clear()
        await self._fill()
        if self._window.query:
            await self._try(self._window.note("search", query=self._window.query))

    async def _suggest(self) -> None:
        text = (self._box.value or "").strip()
        if text:
            try:
                self._box.set_autocomplete(await self._window.suggestions(text))
            except EdgeError:
                self._box.set_autocomplete([])

    async def _become(self, change: Any) -> None:
        self._window.user = str(change.value)
        await self._fill()

    async def _sort(self, change: Any) -> None:
        self._window.sort = str(change.value)
        await self._fill()

    def _ticking(self, name: str, value: str) -> Callable[[Any], Awaitable[None]]:
        async def tick(change: Any) -> None:
            values = self._window.chosen.setdefault(name, set())
            (values.add if change.value else values.discard)(value)
            await self._fill()

        return tick

    def _opening(self, item: str) -> Callable[[], Awaitable[None]]:
        async def open_item() -> None:
            self._window.item = item
            await self._try(self._window.note("view", item=item))
            await self._fill()

        return open_item

    def _doing(self, kind: str, done: str) -> Callable[[], Awaitable[None]]:
        async def do() -> None:
            if await self._try(self._window.note(kind, item=self._window.item)):
                ui.notify(done)

        return do

    def _asking(self, item: str) -> Callable[[], Awaitable[None]]:
        async def ask() -> None:
            with ui.dialog() as dialog, ui.card().classes("min-w-96"):
                ui.label("Why this?").classes("text-lg font-semibold")
                try:
                    _reasons(await self._window.why(item))
                except FederationError as error:
                    ui.label(error.line()).classes("text-red-900")
                ui.button("Close", on_click=dialog.close).props("flat")
            dialog.open()

        return ask

    async def _try(self, doing: Awaitable[None]) -> bool:
        """Do it, and show what the edge has against it."""
        try:
            await doing
        except FederationError as error:
            ui.notify(error.line(), type="warning")
            return False
        return True


def _reasons(explained: Mapping[str, Any]) -> None:
    past, voices = explained.get("because") or [], explained.get("voices") or []
    if not past:
        ui.label("Nothing of this visitor's past speaks for it.")
    with ui.column().classes("gap-1").mark("reasons"):
        for reason in [*past, *voices]:
            with ui.row().classes("gap-2 no-wrap items-baseline"):
                ui.label(f"{reason['effect']:+.2f}").classes("text-sm tabular-nums w-14 text-right opacity-60")
                ui.label(str(reason["text"])).classes("text-sm")


def _cover(item: Mapping[str, Any], *, large: bool = False) -> None:
    """A picture where there is none: a colour of the category, a letter of the title."""
    seed = hashlib.sha256(str(item.get("category") or item["item"]).encode()).digest()
    hue, letter = seed[0] * 360 // 256, str(item.get("title") or item["item"])[:1].upper()
    size = "width: 260px; height: 220px; border-radius: 14px;" if large else ""
    ui.label(letter).classes("cover w-full flex items-center justify-center").style(
        f"background: linear-gradient(135deg, hsl({hue} 38% 46%), hsl({(hue + 40) % 360} 42% 32%)); {size}"
    )


def _price(item: Mapping[str, Any]) -> str:
    price = item.get("price")
    return f"{price:.2f}" if isinstance(price, int | float) else ""
