from login_relay.operate.tables import table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    """Two spaces between columns, numbers to the right, no spaces at the end of a line, no colours."""
    rows = [("acme", 7, "no"), ("a longer name", 12_345, "yes")]
    assert table(("name", "pending", "alive"), rows).splitlines() == [
        "name           pending  alive",
        "acme                 7  no",
        "a longer name    12345  yes",
    ]


def test_wide_characters_take_two_columns() -> None:
    """As terminals show them, so that what stands to their right is aligned."""
    assert table(("name", "n"), [("日本", 3), ("ab", 40)]).splitlines() == ["name   n", "日本   3", "ab    40"]


def test_cells_are_shown_as_they_are() -> None:
    """What Rich takes for markup is text, and a row that is wider than any terminal is one line."""
    assert table(("a", "b"), [("[red]", "x" * 500)]).splitlines()[1] == "[red]  " + "x" * 500


def test_cells_do_not_control_the_terminal() -> None:
    """A dead letter holds whatever was written to the stream."""
    assert table(("a", "b"), [("\x1b[2Jx\r\ny", "z")]).splitlines()[1] == "[2Jxy  z"
