"""Reading what `bellwether ledger export` wrote."""

import polars

from server import succeed


def export(data_dir, output):
    """Exports the ledger of a stopped server; returns (predictions, inferences, outcomes) as data
    frames."""
    succeed(
        "ledger", "export", "--data-dir", data_dir, "--format", "parquet", "--output", output, timeout=600
    )
    return tuple(read(output, table) for table in ("predictions", "inferences", "outcomes"))


def read(output, table):
    files = sorted(output.glob(f"{table}-*.parquet"))
    assert files, f"no {table}-*.parquet in {sorted(p.name for p in output.iterdir())}"
    return polars.concat([polars.read_parquet(file) for file in files])
