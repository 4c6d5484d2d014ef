"""People: how organisers' CSV files are read, and how usernames are made of names."""

import codecs
import csv
import io
from collections.abc import Iterable

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from jupyterhub_gpuworkshop.core.errors import RosterError
from jupyterhub_gpuworkshop.core.people import MOST_MISTAKES, Person, named
from jupyterhub_gpuworkshop.core.people_csv import (
    LONGEST_CELL,
    MOST_BYTES,
    read_people,
)
from jupyterhub_gpuworkshop.core.roster import MOST_ATTENDEES, name_mistake
from jupyterhub_gpuworkshop.core.shares import Share

ADA = Person(line=2, full_name="Ada Lovelace", email="ada@example.org")
LIST = "Full name,E-mail\nAda Lovelace,ada@example.org\n"


def mistakes_of(text: str | bytes) -> list[str]:
    """Return the lines of the error that a list gives."""
    with pytest.raises(RosterError) as caught:
        read_people(text.encode() if isinstance(text, str) else text)
    return str(caught.value).split("\n")


def full_names(*names: str) -> list[Person]:
    return [Person(line=at, full_name=name) for at, name in enumerate(names, 1)]


def names_of(people: Iterable[Person], *taken: str) -> list[str]:
    return [name for name, _ in named(list(people), taken)]


@pytest.mark.parametrize(
    "data",
    [
        LIST.encode(),
        codecs.BOM_UTF8 + LIST.encode(),
        codecs.BOM_UTF16_LE + LIST.replace(",", "\t").encode("utf-16-le"),
        codecs.BOM_UTF16_BE + LIST.replace(",", "\t").encode("utf-16-be"),
        LIST.replace(",", ";").encode(),
        LIST.replace(",", "\t").encode(),
        LIST.replace("\n", "\r\n").encode(),
        LIST.replace("\n", "\r").encode(),
        b"EMAIL ; Full_Name ; T-shirt\n ada@example.org ; Ada Lovelace ; M",
        b'"Full name, as on the card";fullname;mail\n;"Ada Lovelace";ada@example.org',
        b"first name,last name,e_mail\nAda,Lovelace,ada@example.org",
        b'full name,email\n"Ada\nLovelace",\xc2\xa0ada@example.org\n',
        b'full name, email\n"Ada Lovelace", "ada@example.org"\n',
        b"full name,email,,\nAda Lovelace,ada@example.org,,,,\n,,\n",
    ],
)
def test_a_list_is_read_whichever_program_wrote_it(data: bytes) -> None:
    assert read_people(data) == (ADA,)


def test_text_of_windows_is_read_where_it_is_not_utf_8() -> None:
    (person,) = read_people("full name\nZoë Müller\n".encode("cp1252"))
    assert person.full_name == "Zoë Müller"


@pytest.mark.parametrize("first", ["sep=;", "SEP=;\r", '"sep=;"', "sep=;;;"])
def test_excels_first_line_says_which_separator_it_is(first: str) -> None:
    (person,) = read_people(f"{first}\nfull name;group\nLovelace, Ada;A\n".encode())
    assert person == Person(line=3, full_name="Lovelace, Ada", group="A")


def test_every_column_is_read() -> None:
    data = b"share,team,login,name of dog,mail,full name\n1/5,Red, ada ,Rex,a@b,Ada\n"
    assert read_people(data) == (
        Person(
            line=2,
            name="ada",
            full_name="Ada",
            email="a@b",
            group="Red",
            share=Share.nth(5),
        ),
    )


def test_lines_are_counted_as_an_editor_counts_them() -> None:
    data = b'\n;;\nfull name;group\n"Ada\nLovelace";A\n\n;\n"Alan";B'
    assert [(one.line, one.full_name) for one in read_people(data)] == [
        (4, "Ada Lovelace"),
        (8, "Alan"),
    ]


def test_one_column_without_a_header_is_full_names() -> None:
    people = read_people(b"Ada Lovelace\n\nAlan Turing\n")
    assert people == (
        Person(line=1, full_name="Ada Lovelace"),
        Person(line=3, full_name="Alan Turing"),
    )


def test_more_columns_without_a_header_are_refused_with_what_to_write() -> None:
    (mistake,) = mistakes_of("Ada Lovelace;ada@example.org\n")
    assert mistake.startswith("line 1: ")
    assert "full name,email,group" in mistake


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        (" \n;;;\n,,\n", "empty"),
        ("full name,email\n,\n", "Nobody is in the list"),
        ("group,share\nA,1/5\n", "line 1: No column says who"),
        ("name,user\na,b\n", "line 1: name and user are columns for the same"),
        ("sep=|\nfull name|mail\n", "line 1: | separates no cells"),
        ('full name,email\n"Ada,a@b\nAlan,b@c\n', 'line 2: A " opens'),
        ('full name,email\n"Ada" Lovelace,a@b\n', 'line 2: A " closes'),
        ('"full name,email\nAda,a@b\n', 'line 1: A " opens'),
        ("full name\nAda\x00\n", "line 2: This is no text"),
    ],
)
def test_what_is_no_list_is_refused(text: str, said: str) -> None:
    assert said in mistakes_of(text)[0]


@pytest.mark.parametrize(
    "data",
    [
        b"PK\x03\x04 and so on",
        b"\xd0\xcf\x11\xe0 and so on",
        b"full name\nAd\x81\n",
        codecs.BOM_UTF8 + b"full name\nAd\xe4\n",
        codecs.BOM_UTF16_LE + b"\x00\xd8a\x00",
        "full name\nAda".encode("utf-16-le"),
        "full name\nAda".encode("utf-32"),
    ],
)
def test_what_is_no_text_is_refused_with_how_to_save_it(data: bytes) -> None:
    assert "Save the list as CSV UTF-8." in mistakes_of(data)[0]


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ("Ada,,,,,more", "There are 6 cells, and 5 in the first line"),
        ("Ada,,no address,,", "no address is no e-mail address"),
        ("Ada,,a@b@c,,", "a@b@c is no e-mail address"),
        ("Ada,,@b,,", "@b is no e-mail address"),
        ("Ada,,Ada <a@b>,,", "is no e-mail address"),
        ("Ada,,a\u200b@b,,", "'a\\u200b@b' is no e-mail address"),
        (f"Ada,,a@{'b' * 253},,", "is longer than 254 characters"),
        ("Ada,,,half,", "'half' is not a share"),
        ("Ada,,,01. May,", "makes a date of 1/5"),
        (f"Ada,,,,{'g' * 65}", "is unfit as a group"),
        ("Ada,,,,Red\u200bteam", "'Red\\u200bteam' is unfit as a group"),
        (",Ada Lovelace,,,", "A column full name is for people's names"),
        (",root,,,", "root is an account of the system"),
        (",=1+1,,,", "=1+1 is unfit as a name"),
        (",o'hara,,,", "o'hara is unfit as a name"),
        (",,,1/5,Red", "Nobody is named"),
        ("Ada\x1b[2J,,,,", "control character in it, U+001B"),
        ("Ada\x85b,,,,", "control character in it, U+0085"),
        ("Ada\u202eb,,,,", "control character in it, U+202E"),
        (f"{'a' * (LONGEST_CELL + 1)},,,,", "is longer than 200 characters"),
        (f"{'a' * 140000},,,,", "is longer than 200 characters"),
        ('"Ada"x,,,,', 'A " closes a cell'),
    ],
)
def test_a_bad_row_is_told_with_its_line(row: str, said: str) -> None:
    head = "full name,username,email,share,group"
    (mistake,) = mistakes_of(f"{head}\nGood,,,,\n{row}\nGood,,,,\n")
    assert mistake.startswith("line 3: ")
    assert said in mistake


def test_a_username_given_twice_is_told_with_both_lines() -> None:
    (mistake,) = mistakes_of("user\nzoe\nada\nZoë\n")
    assert mistake == ("line 4: zoe is the username in line 2 already. Choose another.")


def test_every_bad_row_is_told_and_no_endless_list_of_them() -> None:
    rows = "bad\nada@example.org\n" * (MOST_MISTAKES + 3)
    told = mistakes_of(f"email\n{rows}")
    lines = [f"line {2 * at}" for at in range(1, MOST_MISTAKES + 1)]
    assert [one.partition(":")[0] for one in told] == [*lines, "and 3 more"]


def test_a_first_and_a_last_name_may_not_be_too_long_together() -> None:
    half = "a" * (LONGEST_CELL // 2)
    (mistake,) = mistakes_of(f"first name,last name\n{half},{half}\n")
    assert mistake.startswith("line 2: ")
    assert "is longer than 200 characters" in mistake


def test_long_cells_of_columns_that_nobody_reads_do_no_harm() -> None:
    data = f"full name,why do you come?\nAda,{'because ' * 100}\n".encode()
    assert read_people(data) == (Person(line=2, full_name="Ada"),)


def test_more_people_than_a_roster_takes_are_refused() -> None:
    assert len(read_people(b"full name\n" + b"Ada\n" * MOST_ATTENDEES)) == 5000
    (mistake,) = mistakes_of(b"full name\n" + b"Ada\n" * (MOST_ATTENDEES + 1))
    assert mistake == "line 5002: A roster takes 5000 people. Split the list."


def test_a_huge_file_is_refused_before_it_is_read() -> None:
    assert "larger than 1 MiB" in mistakes_of(b"a" * (MOST_BYTES + 1))[0]


def test_formulas_stay_text_and_make_no_username() -> None:
    data = b'full name,email\n"=HYPERLINK(""http://x"",""y"")",\n=1+1,ada@b\n'
    people = read_people(data)
    assert people[0].full_name == '=HYPERLINK("http://x","y")'
    assert names_of(people) == ["attendee-01", "ada"]


@pytest.mark.parametrize(
    ("full_name", "name"),
    [
        ("Ada Lovelace", "ada-lovelace"),
        ("  Ada   Lovelace, PhD. ", "ada-lovelace-phd"),
        ("O'Hara", "ohara"),
        ("Siobhán O\u2019Hara", "siobhan-ohara"),
        ("Jürgen Groß", "jurgen-gross"),
        ("Søren Łukasz Đorđe", "soren-lukasz-dorde"),
        ("Æsa Œuvre Þór", "aesa-oeuvre-thor"),
        ("Iş\u0131l İnci", "isil-inci"),
        ("Nguyễn Thị Hoa", "nguyen-thi-hoa"),
        ("J. R. R. Tolkien", "j-r-r-tolkien"),
        ("3D 4Ever", "d-4ever"),
        ("Hubert Blaine Wolfeschlegelsteinhausen", "hubert-blaine-wolfeschle"),
        ("Twenty-Three Letters Aa-b", "twenty-three-letters-aa"),
        ("Root", "root-2"),
        ("Systemd", "attendee-01"),
        ("Systemd Resolve", "attendee-01"),
        ("李小龍", "attendee-01"),
        ("42", "attendee-01"),
        ("-1", "attendee-01"),
    ],
)
def test_a_username_is_made_of_the_full_name(full_name: str, name: str) -> None:
    assert names_of(full_names(full_name)) == [name]


def test_whose_full_name_makes_none_is_named_after_the_e_mail() -> None:
    people = [
        Person(line=1, full_name="李小龍", email="Bruce.Lee@example.org"),
        Person(line=2, email="ada+gpu@example.org"),
        Person(line=3, email="=cmd@example.org"),
    ]
    assert names_of(people) == ["bruce-lee", "ada-gpu", "attendee-01"]


def test_numbered_names_have_the_prefix_and_leave_out_those_in_use() -> None:
    people = full_names("李", "Guest 02", "王")
    pairs = named(people, ["guest-01"], prefix="guest")
    assert [name for name, _ in pairs] == ["guest-03", "guest-02", "guest-04"]
    with pytest.raises(RosterError, match="unfit"):
        named(people, prefix="No prefix")


def test_equal_names_are_numbered_and_names_that_the_list_gives_go_first() -> None:
    people = [*full_names("Ada", "Ada", "Ada"), Person(line=4, name="ada")]
    assert names_of(people, "ada-3") == ["ada-2", "ada-4", "ada-5", "ada"]


def test_a_number_takes_the_place_of_the_last_letters_of_a_long_name() -> None:
    long = "abcdefghijklmnopqrstuvwxyz"
    names = names_of(full_names(*[long] * 10))
    assert names[0] == "abcdefghijklmnopqrstuvwx"
    assert names[1] == "abcdefghijklmnopqrstuv-2"
    assert names[9] == "abcdefghijklmnopqrstu-10"


def test_names_that_the_list_gives_must_be_fit_and_free() -> None:
    people = [
        Person(line=2, name="ada"),
        Person(line=3, name="a b"),
        Person(line=4, name="alan"),
        Person(line=5, name="Alan"),
    ]
    with pytest.raises(RosterError) as caught:
        named(people, ["ada"])
    told = str(caught.value).split("\n")
    assert [one.partition(":")[0] for one in told] == ["line 2", "line 3", "line 5"]


@pytest.mark.parametrize("name", ["Ada", "x" * 40, "Root"])
def test_a_whole_roster_of_one_name_is_named(name: str) -> None:
    names = names_of(full_names(*[name] * MOST_ATTENDEES))
    assert len(set(names)) == MOST_ATTENDEES
    assert all(name_mistake(one) is None for one in names)


CELLS = st.one_of(
    st.text(max_size=12),
    st.sampled_from(["name", "full name", "E-Mail", "a@b", "1/5", '"', "sep=;", "é"]),
)
BYTES_OF_LISTS = st.builds(
    lambda rows, separator, encoding: "\n".join(map(separator.join, rows)).encode(
        encoding, "replace"
    ),
    st.lists(st.lists(CELLS, max_size=4), max_size=6),
    st.sampled_from([",", ";", "\t"]),
    st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
)


@given(data=st.one_of(st.binary(max_size=200), BYTES_OF_LISTS))
@example(data=b"\xff\xfe")
@example(data=b"\xef\xbb\xbf")
@example(data=b'"')
@example(data=b"sep=")
def test_any_bytes_are_people_or_refused(data: bytes) -> None:
    try:
        people = read_people(data)
    except RosterError as error:
        people, told = (), str(error)
    else:
        told = ""
    assert bool(people) != bool(told)
    assert len(told.split("\n")) <= MOST_MISTAKES + 1
    lines = [person.line for person in people]
    assert lines == sorted(set(lines))
    for person in people:
        assert person.name or person.full_name or person.email
    assert len(named(people)) == len(people)


SOME_NAMES = st.one_of(
    st.text(max_size=40),
    st.sampled_from(["Ada", "Ada 2", "Root", "Systemd", "a" * 24, "a" * 30, "李"]),
)
PEOPLE = st.lists(
    st.builds(
        Person,
        line=st.integers(1, 99),
        full_name=SOME_NAMES,
        email=st.one_of(st.just(""), SOME_NAMES.map("{}@example.org".format)),
    ),
    max_size=30,
)
TAKEN = st.sets(st.sampled_from(["ada", "ada-2", "root-2", "attendee-01", "a" * 24]))


@given(people=PEOPLE, given_names=st.sets(st.sampled_from(["ada-3", "a"])), taken=TAKEN)
def test_names_are_fit_and_nobody_elses(
    people: list[Person], given_names: set[str], taken: set[str]
) -> None:
    people += [Person(line=100, name=name) for name in sorted(given_names)]
    pairs = named(people, taken)
    names = [name for name, _ in pairs]
    assert [person for _, person in pairs] == people
    assert len(set(names)) == len(names)
    assert not taken & set(names)
    assert all(name_mistake(name) is None for name in names)
    assert all(name == person.name for name, person in pairs if person.name)
    assert named(people, taken) == pairs


PRINTABLE = (
    st.text(st.characters(exclude_categories=["C", "Zl", "Zp"]), max_size=40)
    .filter(str.isprintable)
    .filter(str.strip)
)


@given(
    names=st.lists(PRINTABLE, min_size=1, max_size=10),
    separator=st.sampled_from([",", ";", "\t"]),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]),
    quote_all=st.booleans(),
)
@example(
    names=[' "Ada" ', ",;", "=1"], separator=",", encoding="utf-8", quote_all=False
)
def test_full_names_that_the_csv_module_writes_are_read_back(
    names: list[str], separator: str, encoding: str, quote_all: bool
) -> None:
    file = io.StringIO(newline="")
    dialect = csv.unix_dialect if quote_all else csv.excel
    writer = csv.writer(file, dialect, delimiter=separator)
    writer.writerow(["full name", "group"])
    writer.writerows([name, "A"] for name in names)
    people = read_people(file.getvalue().encode(encoding))
    assert [person.full_name for person in people] == [name.strip() for name in names]
