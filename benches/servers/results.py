"""From the turns of all rounds to one row for each server and load level: medians over the rounds."""

import statistics

import bodies
import catalog


def median(turns, *path):
    """The median over the turns of the figure under this path of keys."""
    figures = []
    for turn in turns:
        for key in path:
            turn = turn[key]
        figures.append(turn)
    return statistics.median(figures)


def figures(turns, *path):
    """The figures of one load, as every row has them."""
    row = {key: round(median(turns, *path, key), 4) for key in ("rps", "p50_ms", "p99_ms")}
    # The worst round counts for what should not be there.
    for key in ("errors", "other_cpu"):
        row[key] = max(turn_at(turn, path)[key] for turn in turns)
    for key in ("server_cpu", "wrk_cpu"):
        row[key] = round(median(turns, *path, key), 2)
    row["rounds_rps"] = [turn_at(turn, path)["rps"] for turn in turns]
    return row


def turn_at(turn, path):
    for key in path:
        turn = turn[key]
    return turn


def rows_of(server, turns, version):
    """The rows of one server: `server, connections, rps, p50_ms, p99_ms` and more about the same turns."""
    large = figures(turns, "large")
    large["rows_per_request"] = bodies.LARGE_ROWS
    large["rows_per_s"] = round(large["rps"] * bodies.LARGE_ROWS)
    about = {
        "version": version,
        "rounds": len(turns),
        "ready_s": round(median(turns, "ready_s"), 3),
        "rss_idle_mb": median(turns, "rss_idle_mb"),
        "rss_mb": median(turns, "rss_mb"),
        "pss_mb": median(turns, "pss_mb"),
        "large": large,
    }
    if server.folder is None:
        about["requests"] = sum(turn["requests"] for turn in turns)
        about["ledger_rows"] = sum(turn["ledger_rows"] for turn in turns)
        ten = [turn["many_models"] for turn in turns]
        about["many_models"] = {key: median(ten, key) for key in ten[0]}
    rows = []
    for connections in turns[0]["levels"]:
        level = figures(turns, "levels", connections)
        level["rows_per_request"] = 1
        level["rows_per_s"] = round(level["rps"])
        rows.append({"server": server.name, "connections": connections, **level, **about})
    for connections in turns[0]["livez"]:
        level = figures(turns, "livez", connections)
        rows.append({"server": f"{server.name}-livez", "connections": connections, **level, "version": version})
    return rows


def all_rows(turns, versions):
    """Rows of all servers that were measured, in the catalog's order."""
    rows = []
    for server in catalog.SERVERS:
        if turns.get(server.name):
            rows += rows_of(server, turns[server.name], versions[server.name])
    return rows
