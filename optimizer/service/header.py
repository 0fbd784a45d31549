"""The columns of a row file, looked at before its rows: what each of them would be refused for is told once."""

from __future__ import annotations

from optimizer.errors import Invalid
from optimizer.service.cells import refuse_unknown
from optimizer.service.mapping import ColumnMapping
from optimizer.service.rowfiles import RowFile

#: Columns that may be there, and those that may be there as NAME or NAME.PART.
Allowed = tuple[frozenset[str], frozenset[str]]


def require_known(file: RowFile, allowed: Allowed, mapping: ColumnMapping | None = None) -> None:
    """Refuses a mapping to columns that there are none of, and a file whose columns, mapped, are not all allowed.

    Rows of NDJSON have columns of their own each and are looked at one by one.

    Raises:
        Invalid: names the column and what is allowed.
    """
    if mapping is not None:
        for part, named in (
            ("columns", mapping.columns),
            ("constants", mapping.constants),
            ("formats", mapping.formats),
        ):
            refuse_unknown(tuple(named), *allowed, where=f"mapping.{part}.")
    header = file.header()
    if header is None:
        return
    try:
        refuse_unknown(header if mapping is None else _left(header, mapping, typed=file.typed), *allowed)
    except Invalid as error:
        raise Invalid(f"{file.path}: {error.detail}", code=error.code, errors=error.errors) from None


def _left(header: tuple[str, ...], mapping: ColumnMapping, *, typed: bool) -> tuple[str, ...]:
    """The columns of a file that keep their names under a mapping.

    Raises:
        Invalid: the mapping names a column that the file lacks.
    """
    for name, source in mapping.columns.items():
        # Objects in typed columns are reached into.
        if source not in header and not (typed and source.partition(".")[0] in header):
            told = f"the file has no column {source!r}; it has: {', '.join(header)}"
            raise Invalid.field(f"mapping.columns.{name}", told, code="unknown_field")
    return () if mapping.only_named else tuple(column for column in header if column not in mapping.taken)
