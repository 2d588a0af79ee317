"""The report in Markdown: what was measured, and Bellwether against the others."""

import catalog

OURS, LIVEZ, TRITON = "bellwether", "bellwether-livez", "triton"
# Cores that other processes may use before the figures are doubted.
QUIET = 0.15


def report(rows, missing, conditions):
    """`missing` is {server: why it did not run}, `conditions` a few lines on machine and versions."""
    parts = [conditions, table(rows)]
    if any(row["server"] == OURS for row in rows):
        parts += [ratios(rows), own(rows)]
    parts += [f"{name}: not run: {reason}" for name, reason in missing.items()]
    parts += warnings(rows)
    return "\n\n".join(part for part in parts if part)


def by_key(rows):
    return {(row["server"], row["connections"]): row for row in rows}


def levels_of(rows):
    return sorted({row["connections"] for row in rows})


def markdown(head, lines):
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, ["---"] * len(head), *lines])


def table(rows):
    found, levels = by_key(rows), levels_of(rows)
    head = ["server", *(f"{plural(n)}: req/s, p50 / p99 ms" for n in levels)]
    head += ["1,000-row requests: rows/s, p50 / p99 ms", "ready s", "RSS MB, idle / loaded"]
    lines = []
    for name in dict.fromkeys(row["server"] for row in rows):
        some = next(row for row in rows if row["server"] == name)
        server = catalog.find(name)
        if server is None:
            line = [f"its own GET /livez, no work ({name})"]
        else:
            line = [", ".join(part for part in (f"{name} {some['version']}", server.remark, ledger(some)) if part)]
        for connections in levels:
            row = found.get((name, connections))
            line.append(f"{row['rps']:,.0f}, {times(row)}" if row else "-")
        if large := some.get("large"):
            line += [f"{large['rows_per_s']:,}, {times(large)}", f"{some['ready_s']:.2f}"]
            line.append(f"{some['rss_idle_mb']:,.0f} / {some['rss_mb']:,.0f}")
        else:
            line += ["-"] * 3
        lines.append(line)
    return markdown(head, lines)


def ledger(row):
    if "ledger_rows" not in row:
        return ""
    return "a ledger row per request" if row["ledger_rows"] >= row["requests"] else "no ledger row per request"


def times(row):
    return f"{row['p50_ms']:.2f} / {row['p99_ms']:.2f}"


def ratios(rows):
    """Bellwether over the best of the others at each level."""
    found, levels = by_key(rows), levels_of(rows)
    others = [name for name in dict.fromkeys(row["server"] for row in rows) if name not in (OURS, LIVEZ)]
    python = [name for name in others if name != TRITON]

    def rate(name, connections):
        return found[name, connections]["rps"]

    def bulk(name):
        return found[name, levels[0]]["large"]["rows_per_s"]

    lines = []
    if python:
        line = ["requests/s over the best Python peer"]
        for connections in levels:
            best = max(python, key=lambda name: rate(name, connections))
            line.append(f"{rate(OURS, connections) / rate(best, connections):.2f}x ({best})")
        best = max(python, key=bulk)
        lines.append([*line, f"{bulk(OURS) / bulk(best):.2f}x ({best})"])
    if TRITON in others:
        line = ["requests/s over Triton"]
        line += [f"{rate(OURS, connections) / rate(TRITON, connections):.2f}x" for connections in levels]
        lines.append([*line, f"{bulk(OURS) / bulk(TRITON):.2f}x"])
    if others:
        line = ["p99 over the lowest of all peers"]
        for connections in levels:
            best = min(others, key=lambda name: found[name, connections]["p99_ms"])
            line.append(f"{found[OURS, connections]['p99_ms'] / found[best, connections]['p99_ms']:.2f}x ({best})")
        best = min(others, key=lambda name: found[name, levels[0]]["large"]["p99_ms"])
        over = found[OURS, levels[0]]["large"]["p99_ms"] / found[best, levels[0]]["large"]["p99_ms"]
        lines.append([*line, f"{over:.2f}x ({best})"])
    share = [f"{rate(OURS, connections) / rate(LIVEZ, connections):.0%}" for connections in levels]
    lines.append(["requests/s as a share of its own /livez", *share, "-"])
    head = ["bellwether", *(plural(n) for n in levels), "1,000-row requests (rows/s)"]
    return markdown(head, lines)


def own(rows):
    """What is only measured of Bellwether: many models, the ledger."""
    row = next(row for row in rows if row["server"] == OURS)
    many = row["many_models"]
    said = (
        f"bellwether with {many['models']:.0f} models: ready {many['ready_s']:.3f} s after its start, "
        f"{many['rss_mb']:.0f} MB then and {many['rss_used_mb']:.0f} MB when every model has answered."
    )
    return said + f" Its ledger held {row['ledger_rows']:,} rows after {row['requests']:,} answered requests."


def warnings(rows):
    """What makes figures doubtful."""
    doubts, beside = [], {}
    for row in rows:
        name = row["server"]
        for load, figures in ((plural(row["connections"]), row), ("1,000-row requests", row.get("large"))):
            if figures and figures["errors"]:
                doubts.append(f"- {name}, {load}: {figures['errors']} requests were not answered with 2xx")
            if figures and figures["other_cpu"] > QUIET:
                beside[name] = max(figures["other_cpu"], beside.get(name, 0))
        if name == OURS and row["ledger_rows"] < row["requests"]:
            doubts.append("- bellwether wrote fewer ledger rows than it answered requests: it did less than it says")
    if beside:
        cores = ", ".join(f"{name} {used}" for name, used in beside.items())
        doubts.append(f"- cores that processes other than server and wrk used, at most: {cores}")
    doubts = list(dict.fromkeys(doubts))
    return ["\n".join(["To be read with care:", "", *doubts])] if doubts else []


def plural(connections):
    return f"{connections} connection{'s' * (connections > 1)}"
