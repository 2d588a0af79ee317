"""The command line, the same for `run` and `compare.py`."""

import argparse
import pathlib

import catalog


def names(text):
    return [part for part in text.split(",") if part]


def parse(description):
    parser = argparse.ArgumentParser(
        prog="benches/servers/run", description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--json", type=pathlib.Path, metavar="FILE", help="write the results here as well")
    parser.add_argument("--markdown", type=pathlib.Path, metavar="FILE", help="write the printed report here as well")
    parser.add_argument(
        "--servers",
        type=names,
        default=[server.name for server in catalog.SERVERS],
        metavar="A,B",
        help="which, in this order; default: all: " + ",".join(server.name for server in catalog.SERVERS),
    )
    parser.add_argument(
        "--connections",
        type=lambda text: [int(number) for number in names(text)],
        default=[1, 16, 64],
        metavar="1,16,64",
        help="load levels of the one-row requests",
    )
    parser.add_argument("--rounds", type=int, default=2, metavar="N", help="all servers once in a round; default 2")
    parser.add_argument("--seconds", type=int, default=10, metavar="S", help="length of one load; default 10")
    parser.add_argument("--warmup", type=int, default=2, metavar="S", help="load before each that does not count")
    parser.add_argument("--quick", action="store_true", help="one round of two seconds: does everything work?")
    parser.add_argument("--binary", type=pathlib.Path, metavar="PATH", help="this bellwether instead of building one")
    parser.add_argument(
        "--cache",
        type=pathlib.Path,
        default=pathlib.Path("~/.cache/bellwether-bench-servers").expanduser(),
        metavar="DIR",
        help="environments, model and logs; default ~/.cache/bellwether-bench-servers",
    )
    chosen = parser.parse_args()
    unknown = [name for name in chosen.servers if catalog.find(name) is None]
    if unknown:
        known = ", ".join(server.name for server in catalog.SERVERS)
        parser.error(f"--servers: no server is called {', '.join(unknown)}; there are {known}")
    if chosen.quick:
        chosen.rounds, chosen.seconds, chosen.warmup = 1, 2, 1
    if min([chosen.rounds, chosen.seconds, *chosen.connections]) < 1 or chosen.warmup < 0:
        parser.error("--rounds, --seconds and --connections count from 1, --warmup from 0")
    if chosen.binary and not chosen.binary.is_file():
        parser.error(f"--binary: there is no file {chosen.binary}")
    chosen.cache = chosen.cache.expanduser().resolve()
    return chosen
