"""A data set of crops as Parquet: rows of image bytes, person, and key."""

from collections.abc import Sequence
from pathlib import Path

from facedistill.files import atomic_write
from facedistill.preparation.journal import Row

GROUP = 500  # rows that a reader unpacks at a time


def pack(rows: Sequence[Row], crops: Path, out: Path) -> None:
    """Write OUT/train.parquet from the crops. They stay, so that a later run can add to them."""
    import pyarrow
    from pyarrow import parquet

    kept = [row for row in rows if row.crop]
    schema = pyarrow.schema({"image": pyarrow.binary(), "label": pyarrow.string(), "key": pyarrow.string()})
    with atomic_write(out / "train.parquet") as temporary, parquet.ParquetWriter(str(temporary), schema) as writer:
        for start in range(0, len(kept), GROUP):
            group = kept[start : start + GROUP]
            columns = [
                [(crops / row.crop).read_bytes() for row in group],
                [row.person for row in group],
                [row.crop for row in group],
            ]
            writer.write_table(pyarrow.table(columns, schema=schema))
