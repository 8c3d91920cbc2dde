"""Files of ratings that are read both with and without Spark."""

from __future__ import annotations

import gzip

TEXT = "user,item,rating\n1,2,3.5\n-4,5,0\n"
PLAIN = TEXT.partition("\n")[2]
ROWS = [(1, 2, 3.5), (-4, 5, 0.0)]

#: Name, content, and start of the description.
RATING_FILES = [
    ("x.csv", TEXT, "comma separated, columns user, item, rating"),
    ("x.csv.gz", gzip.compress(TEXT.encode(), mtime=0), "comma separated, columns user,"),
    ("windows.csv", TEXT.replace("\n", "\r\n"), "comma separated, columns user, item, rating"),
    ("quoted.csv", TEXT.replace("user", '"user"'), "comma separated, columns user, item, rating"),
    ("mac.csv", TEXT.replace("\n", "\r"), "comma separated, columns user, item, rating"),
    ("part-00000", PLAIN, "comma separated, no header"),
    ("spaces.csv", PLAIN.replace(",", " , "), "comma separated, no header"),
    ("blank.csv", PLAIN.replace("\n", "\n\n"), "comma separated, no header"),
    ("x.tsv", PLAIN.replace(",", "\t"), "tab separated, no header"),
    ("u.data", PLAIN.replace(",", "\t").replace("\n", "\t0\n"), "tab separated, no header"),
    ("ratings.dat", PLAIN.replace(",", "::").replace("\n", "::9\n"), "'::' separated"),
    ("more.csv", PLAIN.replace("\n", ",a::b\n"), "comma separated, no header"),
]


def write(path, content):
    """Write a file, creating its folder, and return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return str(path)
