"""Tables as people save them: read as meant, or refused with the line."""

import re
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from src.common.images.field import SourceError
from src.common.images.folder import find
from src.common.images.layout import Layout
from src.common.workspace.csv_table import TableError, read_rows

ROWS = [{"a": "1", "b": "x"}, {"a": "2", "b": "y"}]


def table(folder: Path, text: str | bytes) -> Path:
    path = folder / "images.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,x\n2,y\n",
        "A, B \r\n1,x\r\n2,y\r\n",
        "sep=;\na;b\n1;x\n2;y\n",
        '"sep=;"\na;b\n1;x\n2;y\n',
        "a\tb\n1\tx\n2\ty\n",
        "\na,b\n\n1,x\n,\n2,y\n\n,\n",
        "a,b,,\n1,x,,\n2,y,,\n",
        "a,b\n1,x,,\n2,y,\n",
        '\ufeffa;b\n"1";"x"\n2;y\n',
        "a\tb\n1\tx\n2\ty\n".encode("utf-16"),
        "sep=,\ra,b\r1,x\r2,y\r",
        "\ufeff\ufeffa,b\n1,x\n2,y\n",
        "a,\u200bb\n\u202a1,x\xad\n2,\xa0y\u200e\n",
        'a, b\n1, "x"\n"2", "y"\n',
        'a,b\n="1",x\n"=""2""",y\n',
    ],
)
def test_tables_of_all_spreadsheets_say_the_same(tmp_path, text):
    assert [row.cells for row in read_rows(table(tmp_path, text), ["a"])] == ROWS


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a,b\n1,x\n\n0,5,y\n", "line 4: 3 cells, and the header has 2; a decimal comma"),
        ("a,b\n1,x\n2\n", "line 3: 1 cells, and the header has 2$"),
        ("sep=;\na;b\n1;x;z\n", "line 3: 3 cells"),
        ("a,b,\n1,x,z\n", "line 2: 'z' stands in a column without a name"),
        ('a,b\n1,"x\n2,y\n', "line 2: .*check the quotes"),
        ("Plate 7\na,b\n1,x\n", r"lacks the column\(s\) a; its first line has plate 7"),
        ("a,b,A\n1,x,2\n", r"column\(s\) a twice"),
        (b"a,b\n1,x\n2,\xb5\n", "line 3: is not UTF-8"),
        ("a,b\n1,x\n2,y\0\n", r"line 3: holds the control NUL \(U\+0000\): take it out"),
        ("a,b\n1,x\x1by\n", r"line 2: holds the control character \(U\+001B\)"),
        ("a,b\n1,x\n".encode("utf-16-le"), r"line 1: holds the control NUL .*'CSV UTF-8'"),
        ("", "lacks .* it is empty"),
        (b"PK\x03\x04\x14\0\xb5U0#", r"images.csv is a workbook: save it as 'CSV UTF-8'"),
    ],
)
def test_a_table_that_would_slide_is_refused_with_its_line(tmp_path, text, message):
    with pytest.raises(TableError, match=message):
        read_rows(table(tmp_path, text), ["a"])


CELLS = st.text(st.characters(exclude_categories=["Cs", "Cc", "Cf"]), max_size=8).map(str.strip)


@settings(
    max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(st.tuples(CELLS, CELLS), min_size=1, max_size=5), st.sampled_from(",;\t"))
def test_quoted_cells_come_back_as_they_went_in(tmp_path, cells, delimiter):
    quoted = [[f'"{cell.replace(chr(34), chr(34) * 2)}"' for cell in row] for row in cells]
    text = "\n".join(delimiter.join(row) for row in [["a", "b"], *quoted]) + "\n"
    found = [tuple(row.cells.values()) for row in read_rows(table(tmp_path, text), ["a"])]
    assert found == [row for row in cells if any(row)]


@settings(
    max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.binary(max_size=80), st.sampled_from([b"", b"brightfield,pi,well\n", b"brightfield;pi\n"])
)
def test_any_bytes_make_fields_or_one_error_that_names_the_file(tmp_path, rest, head):
    table(tmp_path, head + rest)
    try:
        found = find(tmp_path, Layout(["arm"]))
    except SourceError as error:
        assert "images.csv" in str(error)
    else:
        for field in found.fields:
            inside = field.brightfield and tmp_path in field.brightfield.file.resolve().parents
            assert field.problem or inside


def manifest(folder: Path, *lines: str):
    table(folder, "\n".join(lines) + "\n")
    return find(folder, Layout(["arm"]))


def test_doses_that_differ_by_a_spreadsheets_noise_are_one(tmp_path):
    doses = ("10", "10.0", "10.000000000000002", "9.999999999999998")
    rows = [f"{i}.tif,p.tif,{dose}" for i, dose in enumerate(doses)]
    found = manifest(tmp_path, "brightfield,pi,concentration", *rows)
    assert {field.concentration for field in found.fields} == {10.0}


@pytest.mark.parametrize(
    ("text", "dose"), [("0,5", 0.5), ("12,25", 12.25), ("0,125", 0.125), ("1e-3", 0.001)]
)
def test_a_decimal_comma_is_read_where_it_cannot_be_thousands(tmp_path, text, dose):
    found = manifest(tmp_path, "brightfield;pi;concentration", f"a.tif;b.tif;{text}")
    assert found.fields[0].concentration == dose
    with pytest.raises(SourceError, match=r"line 2: concentration .* thousands or a decimal comma"):
        manifest(tmp_path, "brightfield;pi;concentration", "a.tif;b.tif;1,250")


@pytest.mark.parametrize(
    ("doses", "line"),
    [
        (("0,5", "1.000"), 3),
        (("1.5", "0,5"), 2),
        (("0", "10", "100", "1.000"), 5),
        (("1,5", ".5"), 3),
    ],
)
def test_a_point_that_may_be_of_thousands_is_refused(tmp_path, doses, line):
    rows = [f"{i}.tif;p.tif;{dose}" for i, dose in enumerate(doses)]
    with pytest.raises(SourceError, match=f"line {line}: concentration .* decimal or of thousands"):
        manifest(tmp_path, "brightfield;pi;concentration", *rows)


@pytest.mark.parametrize(
    "doses", [("0", "1.000", "10.000"), ("100", "12.5", "3.125"), ("10", "0.125"), ("2", "1e-3")]
)
def test_a_point_that_is_decimal_is_read_as_one(tmp_path, doses):
    rows = [f"{i}.tif,p.tif,{dose}" for i, dose in enumerate(doses)]
    found = manifest(tmp_path, "brightfield,pi,concentration", *rows)
    assert [field.concentration for field in found.fields] == [float(dose) for dose in doses]


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (("Dox", "dox ", "DOX", "Tax"), "compound dox, DOX is read as Dox"),
        (
            ("5-FU", "5\u2011FU", "5\u2013fu", "Tax"),
            "compound 5\u2011FU, 5\u2013fu is read as 5-FU",
        ),
        (("Dox A", "Dox  A", "Dox\xa0A", "Tax"), ""),
        (("Dox A", "Dox\u200b A", '"Dox\nA"', "Tax"), ""),
    ],
)
def test_compounds_that_differ_in_how_they_are_typed_are_one(tmp_path, names, note):
    rows = [f"{i}.tif,p.tif,{name}" for i, name in enumerate(names)]
    found = manifest(tmp_path, "brightfield,pi,compound", *rows)
    assert [field.compound for field in found.fields] == [names[0]] * 3 + ["Tax"]
    assert found.notes == ((note,) if note else ())


def test_a_number_as_a_name_is_one_whatever_a_spreadsheet_makes_of_it(tmp_path):
    rows = [f"{i}.tif,p.tif,{name}" for i, name in enumerate(("007", "7", "7.0", "70", "0.7"))]
    found = manifest(tmp_path, "brightfield,pi,position", *rows)
    assert [field.position for field in found.fields] == ["007", "007", "007", "70", "0.7"]
    assert found.notes == ("position 7, 7.0 is read as 007",)


@pytest.mark.parametrize("error", ["#N/A", "#NV", "#REF!", "#BEZUG!", "#NAME?", "####", "Err:502"])
def test_an_error_of_a_spreadsheet_is_no_name_but_may_stand_in_a_column_of_no_use(tmp_path, error):
    assert manifest(tmp_path, "brightfield,pi,mine", f"a.tif,b.tif,{error}").fields
    with pytest.raises(SourceError, match=f"line 3: compound is {re.escape(error)}, a spreadsheet"):
        manifest(tmp_path, "brightfield,pi,compound", "a.tif,b.tif,#1", f"c.tif,b.tif,{error}")


def test_merged_cells_are_said(tmp_path):
    head, rows = "brightfield,pi,experiment,compound,concentration", ("e1,Dox,1", ",,2", ",,0")
    found = manifest(tmp_path, head, *(f"{i}.tif,p.tif,{row}" for i, row in enumerate(rows)))
    said = "of 3 images 2 without experiment, 1 with a concentration and no compound: of merged"
    assert said in found.notes[0]


def test_a_partition_in_some_rows_only_is_refused(tmp_path):
    rows = ("1.tif,p.tif,a", "2.tif,p.tif,", ",,")
    with pytest.raises(SourceError, match="line 3: no partition is given, and other rows have one"):
        manifest(tmp_path, "brightfield,pi,partition", *rows)
    assert (
        len(manifest(tmp_path, "brightfield,pi,partition,well", rows[0] + ",", ",,,x").fields) == 2
    )


def test_rows_and_columns_that_pandas_made_decimal_are_whole(tmp_path):
    found = manifest(tmp_path, "brightfield,pi,row,column", "a.tif,p.tif,2.0,3.0", "b.tif,p.tif,,")
    assert [field.well for field in found.fields] == ["B3", ""]


@pytest.mark.parametrize("named", ["x.tif", "\u200ex.tif"])
@pytest.mark.parametrize("stored", ["x.tif", "\u200ex.tif"])
def test_a_file_is_found_with_and_without_what_is_not_seen(tmp_path, named, stored):
    (tmp_path / stored).touch()
    found = manifest(tmp_path, "brightfield,pi", f"{named},p.tif")
    assert found.fields[0].brightfield.file == tmp_path / stored


@pytest.mark.parametrize("unit", ["(uM)", "[\xb5M]", "/ nM"])
def test_a_column_with_its_unit_is_said(tmp_path, unit):
    found = manifest(tmp_path, f"brightfield,pi,Concentration {unit}", "a.tif,b.tif,1")
    assert found.notes[1].endswith("to concentration to have it used")
