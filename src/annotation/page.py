"""The page: one window at a time with its surroundings, answered by keyboard, and the results.

Served on the loopback address alone, with nothing from other servers. One tab at a time answers;
the latest one opened takes over.
"""

import math
import socket
from pathlib import Path

from fastapi import Request, Response
from nicegui import app, core, ui
from starlette.middleware.base import RequestResponseEndpoint
from starlette.middleware.trustedhost import TrustedHostMiddleware

from ..common.filter.fit import LEAST_ROWS
from ..common.workspace.errors import UserError
from . import pictures
from .session import Session

HOST = "127.0.0.1"
HERE = Path(__file__).parent
ACTIONS = {  # key -> what it does, and the colour of its button
    "cells": ("C", "#43c98a"),
    "empty": ("E", "#5cb8ff"),
    "unusable": ("U", "#ffb454"),
    "skip": ("S", "#9fb0bd"),
    "undo": ("Z", "#9fb0bd"),
}
POLL_S = 0.5


def check_port(port: int) -> None:
    """Raises UserError if the page cannot be served there."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((HOST, port))
        except OSError as error:
            raise UserError(
                f"port {port} of {HOST} is not to be had ({error.strerror}): try --port"
            ) from None


def serve(session: Session, port: int, title: str, synthetic: bool) -> None:
    """Serves the page on http://127.0.0.1:PORT until interrupted."""
    holder: list[str] = []
    # No other site may speak for us, nor show this page as part of its own
    app.add_middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])
    core.sio.eio.cors_allowed_origins = None

    @app.middleware("http")
    async def unframed(request: Request, answer: RequestResponseEndpoint) -> Response:
        response = await answer(request)
        response.headers["X-Frame-Options"] = "DENY"
        return response

    @app.get("/picture/{view}/{place}")
    def picture(view: str, place: int) -> Response:
        if view not in pictures.VIEWS or not 0 <= place < len(session.study.pool):
            return Response(status_code=404)
        drawn = pictures.VIEWS[view](session.study.store, *session.window(place))
        return Response(drawn, media_type="image/png" if view == "window" else "image/jpeg")

    ui.page("/", title=title, dark=True)(lambda: Page(session, title, synthetic, holder).build())
    session.start()
    print(
        f"annotate: http://{HOST}:{port} (Ctrl+C ends it; every answer is already saved)",
        flush=True,
    )
    ui.run(host=HOST, port=port, reload=False, show=False, show_welcome_message=False)


class Page:
    """One browser tab: the elements that change, and how they follow the session."""

    def __init__(self, session: Session, title: str, synthetic: bool, holder: list[str]):
        self.session, self.title, self.synthetic, self.holder = session, title, synthetic, holder
        self.seen = -1

    async def build(self) -> None:
        """Lays the page out; from the moment the browser is connected this tab is the one that
        answers.
        """
        self.me = ui.context.client.id
        ui.add_css(HERE / "page.css")
        ui.add_head_html(f"<script>{(HERE / 'page.js').read_text()}</script>")
        ui.on("act", lambda event: self.act(event.args["action"], event.args["shown"]))
        with ui.element("main"):
            self._pictures()
            with ui.element("aside"):
                self._figures()
        with ui.dialog().props("persistent") as self.away, ui.card():
            ui.label("This annotation goes on in another tab.")
            ui.button("Use it here", on_click=self.take)
        ui.timer(POLL_S, self.follow)
        await ui.context.client.connected()
        self.take()

    def _pictures(self) -> None:
        with ui.element("section"):
            self.window = ui.element("img").props('id="window" alt="the window to call"')
            with ui.element("nav"):
                for action, (key, colour) in ACTIONS.items():
                    button = ui.button(color=colour).props(
                        f'id="{action}" no-caps unelevated text-color=dark'
                    )
                    button.on("click", js_handler=f"() => act('{action}')")
                    with button:
                        ui.html(f"<kbd>{key}</kbd> {action}", sanitize=False)
            self.said = ui.label().props('id="said"')
        with ui.element("section").classes("around"):
            self.surroundings = ui.element("img").props('alt="the window in its surroundings"')
            self.field = ui.element("img").props('alt="the window in its field"')
            self.where = ui.label().classes("quiet")

    def _figures(self) -> None:
        ui.label(self.title).classes("title")
        if self.synthetic:
            ui.label("SYNTHETIC images").classes("synthetic")
        self.counts = ui.html("", sanitize=False).props('id="counts"')
        self.left = ui.label().props('id="left"')
        self.quality = ui.html("", sanitize=False).props('id="quality"')
        self.chart = ui.echart(_chart({})).classes("chart")
        self.trouble = ui.label().classes("trouble")

    def take(self) -> None:
        """Makes this tab the one that answers."""
        self.holder[:] = [self.me]
        self.seen = -1
        self.follow()

    def follow(self) -> None:
        """Shows what is new, be it from here, from the background or from another tab."""
        self.away.value = self.holder != [self.me]
        if not self.away.value and self.seen != self.session.version:
            self.seen = self.session.version
            self.show()

    def act(self, action: str, shown: int | None) -> None:
        """Does what a key or button asked for while the window `shown` was on the screen."""
        if self.holder != [self.me]:
            return self.follow()
        session = self.session
        try:
            if action == "undo":
                said = session.undo()
            elif action == "skip":
                said = session.skip(shown)
            else:
                said = session.answer(action, shown)
        except (ValueError, OSError) as error:
            said = f"not saved: {error}"
        self.said.set_text(said)
        self.follow()

    def show(self) -> None:
        """Sets every element to the session's state."""
        session = self.session
        place = session.current
        for view in ("window", "surroundings", "field"):
            picture = getattr(self, view)
            picture.props(f'src="/picture/{view}/{place}" data-place="{place}"')
            picture.set_visibility(place is not None)
        if place is None:
            self.said.set_text("No window is left to ask about: all are annotated or skipped.")
        else:
            image_id, y, x, size = session.window(place)
            self.where.set_text(f"{image_id}, y {y}, x {x}, {size} px")
        counts = (f"<div><b>{n}</b> {name}</div>" for name, n in session.counts().items())
        self.counts.set_content("".join(counts))
        left = [f"{n} {reason.replace('_', ' ')}" for reason, n in session.left_out.items() if n]
        self.left.set_text(f"left out: {', '.join(left)}" if left else "")
        self.quality.set_content(_quality(session))
        self.chart.options.clear()
        self.chart.options.update(_chart(session.history))
        self.chart.set_visibility(bool(session.history))
        self.trouble.set_text(session.trouble)


def _quality(session: Session) -> str:
    standing = session.standing
    if standing is None:
        return "<p>working out F1 ...</p>"
    quality = standing.quality
    if standing.method == "rules":
        least = f"{LEAST_ROWS} windows with cells and {LEAST_ROWS} without"
        return f"<p>Rules decide until {least} are annotated.</p>"
    if quality["f1_cells"] is None:
        return "<p>F1 needs both kinds in two images or more.</p>"
    text = ""
    for name in ("cells", "not_cells"):
        low, high = quality[f"f1_{name}_interval_95"]
        text += f"<div>F1 of {name.replace('_', ' ')} <b>{quality[f'f1_{name}']:.3f}</b> "
        text += f"{low:.2f} to {high:.2f}</div>"
    return text + (
        f"<p>cross-validated by image on {quality['scored_windows']} answers in "
        f"{quality['scored_images']} images; uncertain windows are harder than the average one</p>"
    )


def _chart(history: dict[int, tuple[float, float]]) -> dict:
    points = sorted(history.items())
    lines = [
        {
            "name": name,
            "type": "line",
            "data": [[n, round(values[i], 4)] for n, values in points],
            "symbolSize": 5,
        }
        for i, name in enumerate(("cells", "not cells"))
    ]
    grey = {"color": "#9fb0bd"}
    floor = math.floor(10 * min((min(values) for _, values in points), default=0.5)) / 10
    return {
        "animation": False, "color": ["#43c98a", "#5cb8ff"],
        "legend": {"textStyle": {"color": "#c8d4dc"}, "top": 0},
        "grid": {"left": 44, "right": 14, "top": 32, "bottom": 42},
        "tooltip": {"trigger": "axis"},
        "xAxis": {
            "type": "value", "name": "answers", "nameLocation": "middle", "nameGap": 26,
            "nameTextStyle": grey, "scale": True, "minInterval": 1, "splitLine": {"show": False},
            "axisLabel": grey,
        },
        "yAxis": {
            "type": "value", "min": floor, "max": 1,
            "splitLine": {"lineStyle": {"color": "#2a3843"}}, "axisLabel": grey,
        },
        "series": lines,
    }  # fmt: skip
