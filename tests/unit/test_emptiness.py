"""The empty-patch filter: numbers decide as scikit-learn does, rules in their order, annotations by
window, image.
"""

import ast
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, OneClassSVM

from src.common.filter import annotations
from src.common.filter import fit as fitting
from src.common.scoring import emptiness
from src.common.scoring.emptiness import EmptyFilter, decide, load_filter

LIMITS = {"border": 0.01, "detail": 10.0, "sharpness": 0.2}
HEADER = "image_id,y,x,size,verdict,annotator,date\n"


def clouds(count: int = 120, width: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(seed)
    positive = random.random(count) < 0.6
    return (random.normal(size=(count, width)) * 3 + 50 + positive[:, None] * 1.5).astype(
        np.float32
    ), positive


def windows(**columns) -> pd.DataFrame:
    return pd.DataFrame(
        {"focus": 100.0, "texture": 20.0, "contrast": 40.0, "border": 0.0} | columns
    )


@pytest.mark.parametrize("kernel", ["linear", "rbf"])
def test_decision_is_scikit_learns(kernel):
    features, positive = clouds()
    unseen = clouds(seed=1)[0]
    ours = fitting.fit_svm(features, positive, kernel, C=1.0).decision(unseen)
    pipeline = make_pipeline(StandardScaler(), SVC(kernel=kernel, C=1.0, class_weight="balanced"))
    theirs = pipeline.fit(features.astype(np.float64), positive).decision_function(
        unseen.astype(np.float64)
    )
    assert np.abs(theirs).max() > 0.5 and np.allclose(ours, theirs, rtol=0, atol=1e-9)


def test_one_class_decision_is_scikit_learns_on_the_positive_rows():
    features, positive = clouds()
    ours = fitting.fit_svm(features, positive, "rbf", C=1.0, one_class=True).decision(features)
    pipeline = make_pipeline(StandardScaler(), OneClassSVM(nu=fitting.ONE_CLASS_NU))
    theirs = pipeline.fit(features[positive].astype(np.float64)).decision_function(
        features.astype(np.float64)
    )
    assert np.allclose(ours, theirs, rtol=0, atol=1e-9)


def test_saved_filter_decides_the_same(tmp_path):
    features, positive = clouds()
    machines = {
        name: fitting.fit_svm(features, positive, kernel, 1.0)
        for name, kernel in (("cells", "rbf"), ("rejects", "rbf"))
    }
    chosen = EmptyFilter({"method": "svm", "kernel": "rbf", "limits": LIMITS}, **machines)
    chosen.save(tmp_path)
    table = windows(border=np.linspace(0, 0.02, len(features)))
    before, after = decide(features, table, chosen), decide(features, table, load_filter(tmp_path))
    assert before[0].tolist() == after[0].tolist() and np.array_equal(before[1], after[1])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["filter.json", "svm.safetensors"]


def test_rules_need_no_tensors(tmp_path):
    EmptyFilter({"method": "rules", "limits": LIMITS}).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["filter.json"] and load_filter(
        tmp_path
    ).cells is None


def test_what_ships_in_a_model_imports_numpy_and_safetensors_only():
    tree = ast.parse(Path(emptiness.__file__).read_text())
    named = {
        n.module if isinstance(n, ast.ImportFrom) else a.name
        for n in ast.walk(tree)
        if isinstance(n, ast.Import | ast.ImportFrom)
        for a in n.names
    }
    assert named <= {
        "json",
        "collections.abc",
        "dataclasses",
        "pathlib",
        "numpy",
        "safetensors.numpy",
    }


def test_rules_in_their_order():
    table = windows(
        texture=[20.0, 5.0, 5.0, 20.0], contrast=[40.0, 15.0, 40.0, 40.0], border=[0.01, 0, 0, 0.02]
    )
    verdicts, scores = decide(None, table, EmptyFilter({"method": "rules", "limits": LIMITS}))
    assert verdicts.tolist() == ["cells", "empty", "unusable", "unusable"]
    assert (scores > 0).tolist() == [True, False, False, True]


def test_without_texture_contrast_and_focus_rule():
    table = windows(contrast=[40.0, 5.0, 5.0], focus=[100.0, 100.0, 1.0]).drop(columns="texture")
    assert decide(None, table, EmptyFilter({"method": "rules", "limits": LIMITS}))[0].tolist() == [
        "cells",
        "empty",
        "unusable",
    ]


def test_limits_reject_few_windows_that_are_all_alike_and_the_odd_ones():
    random = np.random.default_rng(0)
    texture = np.append(random.lognormal(3, 0.2, 200), [2.0, 1.5, 1.0])
    table = windows(texture=texture, contrast=2 * texture)
    facts = {"method": "rules", "limits": fitting.limits(table, 0.01)}
    kept = decide(None, table, EmptyFilter(facts))[0] == "cells"
    assert not kept[200:].any() and kept[:200].mean() > 0.95


def test_annotations_are_matched_by_window_and_image(tmp_path):
    rows = [
        "a,0,0,64,cells",
        "a,0,0,64,cells",
        "a,7,9,64,empty",
        "b,0,0,64,cells",
        "b,0,0,64,empty",
        "a,70,0,64,empty",
        "z,0,0,64,cells",
    ]
    (tmp_path / "notes.csv").write_text(HEADER + "".join(f"{row},me,2026-01-02\n" for row in rows))
    frames = pd.DataFrame({"image_id": ["a", "b"], "height": 128, "width": 128})
    found = annotations.match(annotations.read_annotations(tmp_path / "notes.csv"), frames)
    assert found.rows[["image_id", "y", "verdict"]].to_numpy().tolist() == [
        ["a", 0, "cells"],
        ["a", 7, "empty"],
    ]
    assert found.left_out == {"of_no_image": 1, "beyond_frame": 1, "disputed": 2}


@pytest.mark.parametrize(
    "text, said",
    [
        ("image_id,y,x,verdict\n", r"lacks the column\(s\) size"),
        (HEADER + "a,0,0,64,cells,m,\na,0,1.5,64,cells,m,\n", "notes.csv, line 3: x is '1.5'"),
        (HEADER + "a,0,1_0,64,cells,m,\n", "line 2: x is '1_0', not a whole number"),
        (HEADER + "a,1e300,0,64,cells,m,\n", "line 2: y is '1e300', not a whole number"),
        (HEADER + "a,1.000,0,64,cells,m,\n", "line 2: y is '1.000', not a whole number"),
        (HEADER + "a,0,0,64,cells,m,\nb,0,0,64,cells\n", "line 3: 5 cells, and the header has 7"),
        (HEADER + "a,0,0,64,dead,m,\n", "verdict is 'dead', not one of cells, empty, unusable"),
    ],
)
def test_unreadable_annotations_are_refused_with_their_line(tmp_path, text, said):
    (tmp_path / "notes.csv").write_text(text)
    with pytest.raises(annotations.AnnotationError, match=said):
        annotations.read_annotations(tmp_path / "notes.csv")


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_annotations_of_any_spreadsheet_are_read(tmp_path, separator):
    lines = [
        HEADER.strip(),
        "# a note",
        "a,0,0,64,cells,m,",
        ",,,,,,",
        "b,7,0,64,empty,m,  # so",
        "",
    ]
    (tmp_path / "notes.csv").write_text("\n".join(lines).replace(",", separator))
    table = annotations.read_annotations(tmp_path / "notes.csv")
    assert table[["image_id", "y", "verdict"]].to_numpy().tolist() == [
        ["a", 0, "cells"],
        ["b", 7, "empty"],
    ]


def test_whole_numbers_and_verdicts_as_spreadsheets_write_them(tmp_path):
    rows = "a;112,0;0;64.0;Cells;m;22.11.2026\nb;007;0;64;EMPTY;m;\n"
    (tmp_path / "notes.csv").write_text(HEADER.replace(",", ";") + rows)
    table = annotations.read_annotations(tmp_path / "notes.csv")
    assert table[["y", "size", "verdict"]].to_numpy().tolist() == [
        [112, 64, "cells"],
        [7, 64, "empty"],
    ]


def test_missing_annotation_file_is_refused_with_the_remedy(tmp_path):
    with pytest.raises(annotations.AnnotationError, match="header image_id,y,x,size"):
        annotations.read_annotations(tmp_path / "none.csv")


def test_cross_validation_keeps_an_image_in_one_fold():
    random = np.random.default_rng(0)
    images = np.repeat(np.arange(40), 5)
    positive = np.repeat(
        random.random(40) < 0.5, 5
    )  # a verdict for each image, and features that only name the image
    features = random.normal(size=(40, 60))[images] + 0.01 * random.normal(size=(200, 60))
    scores = fitting.cross_validate(features, positive, images, 5, 1, kernel="rbf", C=10.0)
    assert ((scores > 0) == positive).mean() < 0.7  # chance, where folds by window would score 1.0
    memorised = fitting.cross_validate(
        features, positive, np.arange(200), 5, 1, kernel="rbf", C=10.0
    )
    assert ((memorised > 0) == positive).all()


def test_cross_validation_of_one_image_with_a_class_says_nothing():
    features, positive = clouds(40)
    assert np.isnan(
        fitting.cross_validate(
            features, positive, np.where(positive, "a", "b"), 5, 1, kernel="linear", C=1.0
        )
    ).all()


def test_f1_of_both_classes_with_intervals_over_images():
    truth = np.array([1, 1, 1, 0, 0, 0], bool)
    found = fitting.f1_scores(
        truth, np.array([1, 1, 0, 1, 0, 0], bool), np.array(list("aabbcc")), seed=1
    )
    assert found["f1_cells"] == pytest.approx(2 / 3, abs=1e-6) == found["f1_not_cells"]
    low, high = found["f1_cells_interval_95"]
    assert 0 <= low < 2 / 3 < high <= 1


def test_a_draw_of_images_without_cells_is_no_f1_of_zero():
    images = np.repeat(np.arange(12), 4)
    truth = images < 2
    found = fitting.f1_scores(truth, truth, images, seed=1)
    assert found["f1_cells_interval_95"] == found["f1_not_cells_interval_95"] == [1.0, 1.0]
