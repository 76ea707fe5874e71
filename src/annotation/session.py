"""One annotator's sitting: the window in question, answers and their undoing, and the study of them
meanwhile.
"""

import threading

import numpy as np

from ..common.filter.annotations import WINDOW_KEY
from ..common.scoring.emptiness import VERDICTS
from .sampling import choose
from .store import AnnotationFile, Refused
from .study import Standing, Study

PAST = 12  # earlier numbers of answers at which F1 is worked out again when a sitting begins


class Session:
    """Answers go to the file at once; what they amount to is worked out in a thread of its own
    (`start`).

    study: fits and scores; order: (N,) the candidates' order without scores, kept to if not
    `uncertain`; batch: answers between two fits. `version` counts up whenever there is something
    new to show.
    """

    def __init__(
        self,
        study: Study,
        file: AnnotationFile,
        order: np.ndarray,
        uncertain: bool = True,
        batch: int = 1,
    ):
        self.study, self.file = study, file
        self._order, self._uncertain, self._batch = order, uncertain, batch
        self._scores: np.ndarray | None = None
        self._past: list[tuple[int, bytes | None]] = []
        self._put_off: set[int] = set()
        self._lock, self._wake = threading.RLock(), threading.Event()
        self._since = 0
        self.standing: Standing | None = None
        # Usable answers -> F1 of cells, of not cells
        self.history: dict[int, tuple[float, float]] = {}
        self.version, self.trouble, self.current = 0, "", None
        self._reread()
        self._advance()

    def start(self) -> None:
        """Begins to study the answers in the background, until the program ends."""
        self._wake.set()
        threading.Thread(target=self._work, daemon=True, name="study").start()

    def window(self, place: int) -> tuple[str, int, int, int]:
        """image_id, y, x and size of a candidate by its row number."""
        image_id, *corner = self.study.pool[WINDOW_KEY].iloc[place]
        return image_id, *(int(v) for v in corner)

    def answer(self, verdict: str, shown: int) -> str:
        """Writes an answer to the window that was `shown`, and goes on.

        Refused if another one is in question now.
        """
        with self._lock:
            self._expect(shown)
            try:
                line = self.file.append(self.window(shown), verdict)
            except Refused:  # somebody else has answered it: go on
                self._reread()
                self._advance()
                raise
            self._past.append((shown, line))
            self._changed()
            image_id, y, x, _ = self.window(shown)
            return f"{verdict}: {image_id} at y {y}, x {x}"

    def skip(self, shown: int) -> str:
        """Puts the window that was `shown` off until the program is started again."""
        with self._lock:
            self._expect(shown)
            self._put_off.add(shown)
            self._past.append((shown, None))
            self._advance()
            return f"skipped: {self.window(shown)[0]}; it comes again next time"

    def undo(self) -> str:
        """Takes the last answer or skip of this sitting back, and asks about its window again."""
        with self._lock:
            if not self._past:
                raise Refused(
                    "nothing to undo in this sitting; older rows are changed in the file itself"
                )
            place, line = self._past.pop()
            try:
                if line is not None:
                    self.file.remove(line)
            except OSError:  # such as a full disk: the next try is at the same answer
                self._past.append((place, line))
                raise
            self._put_off.discard(place)
            self._changed(place)
            return f"undone: {self.window(place)[0]}"

    def counts(self) -> dict[str, int]:
        """Usable answers by verdict."""
        return {name: int((self._rows["verdict"] == name).sum()) for name in VERDICTS}

    def refresh(self) -> None:
        """Reads the file and works out what it amounts to; the candidates' order follows from the
        next answer on.
        """
        with self._lock:
            self._reread()
            rows = self._rows
        standing = self.study.standing(rows)
        with self._lock:
            self.standing = standing
            self._scores = standing.scores if self._uncertain else None
            self.history = {n: values for n, values in self.history.items() if n < standing.rows}
            self._remember(standing)
            if self.current is None:
                self._advance()

    def _expect(self, shown: int) -> None:
        if shown != self.current:
            raise Refused("that window is no longer in question; nothing was saved")

    def _changed(self, place: int | None = None) -> None:
        self._reread()
        self._advance(place)
        self._since = (self._since + 1) % self._batch
        if not self._since:
            self._wake.set()

    def _reread(self) -> None:
        annotations = self.study.usable(self.file.rows())
        self._rows, self.left_out = annotations.rows, annotations.left_out

    def _advance(self, place: int | None = None) -> None:
        if place is None:
            place = choose(self.study.pool, self._rows, self._order, self._scores, self._put_off)
        self.current = place
        self.version += 1

    def _remember(self, standing: Standing) -> None:
        quality = standing.quality
        if standing.method == "svm" and quality["f1_cells"] is not None:
            self.history[standing.rows] = quality["f1_cells"], quality["f1_not_cells"]
        self.version += 1

    def _work(self) -> None:
        behind = [int(n) for n in np.linspace(0, len(self._rows), PAST + 2)[1:-1]]
        while True:
            self._wake.wait()
            self._wake.clear()
            try:
                self.refresh()
                self.trouble = ""
                while behind and not self._wake.is_set():
                    self._look_back(behind.pop())
            except Exception as error:  # such as a file broken by hand: the sitting goes on
                self.trouble = f"{type(error).__name__}: {error}"
                self.version += 1

    def _look_back(self, count: int) -> None:
        standing = self.study.standing(self._rows.iloc[:count].reset_index(drop=True), score=False)
        with self._lock:
            self._remember(standing)
