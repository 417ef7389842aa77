"""CSV files: no row is lost to a quote, line numbers are those of the file, and cells are what they say."""

from __future__ import annotations

import numpy as np
import pytest

from bilevel import InputError
from bilevel.calibrate.study.csv_file import read_csv


def read(tmp_path, text, delimiter=","):
    path = tmp_path / "table.csv"
    path.write_bytes(text.encode())
    return read_csv(path, delimiter)


DITTO = """\
t,y,remark
0,10,good
1,9,"
2,8,"
3,7,"
4,6,5" pipe
5,5,"
6,4,""
7,3,"so said
"""


def test_ditto_marks_and_stray_quotes_merge_no_rows(tmp_path):
    table = read(tmp_path, DITTO)
    np.testing.assert_array_equal(table.numbers("t"), np.arange(8.0))
    np.testing.assert_array_equal(table.numbers("y"), np.arange(10.0, 2.0, -1.0))
    assert table.lines == list(range(2, 10))
    assert table.texts("remark")[1:5] == ['"', '"', '"', '5" pipe']


def test_ditto_marks_in_the_middle(tmp_path):
    table = read(tmp_path, 'site,note,y\na,",1\n",",2\nb,"x",3\n')
    assert table.texts("y") == ["1", "2", "3"]
    assert table.texts("note") == ['"', '"', "x"]


def test_quoted_cells_over_several_lines_keep_the_lines_of_the_file(tmp_path):
    table = read(tmp_path, 't,remark,y\n0,"one, ""two""",1\n1,"first\n# second\n\nlast, of all",2\n2,,3\n')
    assert table.texts("y") == ["1", "2", "3"]
    assert table.texts("remark") == ['one, "two"', "first\n# second\n\nlast, of all", ""]
    assert table.lines == [2, 3, 7]
    with pytest.raises(InputError, match=r"line 7, column 'remark': expected a number, got an empty cell"):
        read(tmp_path, 't,remark\n0,1\n1,2\n2,"3\n"\n4,5\n6,\n').numbers("remark")


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
def test_line_ends_and_separators_inside_cells(tmp_path, end):
    table = read(tmp_path, end.join(["﻿t,y", "# a comment", "1,2", "", " \t", "3\x0c,4\x85", "5\u2028,6"]))
    assert table.lines == [3, 6, 7]
    np.testing.assert_array_equal(table.numbers("t"), [1.0, 3.0, 5.0])


def test_tabs_as_delimiters(tmp_path):
    table = read(tmp_path, 'a\tb\tc\n1\t\t"x"\n', "\t")
    assert table.rows == [["1", "", "x"]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("t,y\n1,2,3\n", "line 2: expected 2 columns as in the header, got 3"),
        ("t;y\n1,5;2,3\n", "line 2: expected 1 columns as in the header, got 3; its cells seem to be separated by ';'"),
        ('t,y,z\n1,"2\n', "line 2: expected 3 columns"),
        ("t,t\n1,2\n", "line 1: two columns have the same name"),
        ("# only a comment\n", "is empty"),
        ("t;y\n1;2\n", None),
        ("t,y\n1,2\x00\n", "line 2, column 'y': expected a number"),
    ],
)
def test_what_is_wrong_is_said(tmp_path, text, says):
    with pytest.raises(InputError, match=says or "delimiter"):
        read(tmp_path, text).numbers("y")


def test_a_decimal_comma_is_recognised(tmp_path):
    with pytest.raises(InputError, match="write a decimal point"):
        read(tmp_path, "t;y\n1;2,5\n", ";").numbers("y")


def test_repeated_rows_and_texts_that_no_row_has(tmp_path):
    table = read(tmp_path, "t,gauge\n1,a\n2,b\n1,a\n1,a\n")
    assert table.repeated_rows == [(2, 4), (2, 5)]
    assert table.keep("gauge", ["a", "b"]).lines == [2, 3, 4, 5]
    with pytest.raises(InputError, match="no row has 'B' in column 'gauge'"):
        table.keep("gauge", ["a", "B"])


def test_latin_1_is_one_sentence(tmp_path):
    (tmp_path / "table.csv").write_bytes("t,y\n1,é\n".encode("latin-1"))
    with pytest.raises(InputError, match="save it in UTF-8"):
        read_csv(tmp_path / "table.csv")
