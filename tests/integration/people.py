"""A list of a hundred people as spreadsheets and sign-up forms leave it behind."""

import csv
import io

HOSTILE = (
    '=HYPERLINK("http://evil.example","Ada")',
    "@SUM(1+1)*cmd|' /C calc'!A0",
    "+49 30 Tel",
    "-2+3",
    "<script>document.title='owned'</script>",
    "{{ 7*7 }}",
    "../../etc/passwd",
    "O'Hara, Zoë",
    '"Quoted" Person',
    "Müller-Lüdenscheidt, Jürgen",
    "Łukasz Żółć",
    "李小龍",
    "Дмитрий Иванов",
    "José\u0301 Peña",
    "Robert'); DROP TABLE users;--",
    "Anna Smith",
    "Anna Smith",
    "anna  smith",
    "  Spaces Everywhere  ",
    "Ann-Marie d\u2019Arc",
)


def full_names() -> list[str]:
    """Return a hundred names, the first of them of people who mean no good."""
    return [*HOSTILE, *(f"Person Nº {number}" for number in range(len(HOSTILE), 100))]


def as_spreadsheet() -> bytes:
    """Return the list as a spreadsheet of a country with decimal commas saves it."""
    text = io.StringIO(newline="")
    rows = csv.writer(text, delimiter=";")
    rows.writerow(["Full Name", "E-Mail", "Remarks", "Group", "Share"])
    for number, name in enumerate(full_names()):
        email = f"p{number}@example.org" if number % 3 else ""
        share = "1/8" if number == 50 else ""
        rows.writerow([name, email, "likes; semicolons", f"team-{number % 4}", share])
    return b"\xef\xbb\xbf" + text.getvalue().encode()
