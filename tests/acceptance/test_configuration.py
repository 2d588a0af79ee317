"""Configuration and command line: the flag wins over the environment, which wins over
bellwether.toml; a mistake is named; every command explains itself."""

import re

import pytest

from server import FEATURES, MODELS, Server, free_port, refuse, run, succeed
from telco import customer


def test_listen_is_taken_from_the_environment(data_dir):
    address = f"127.0.0.1:{free_port()}"
    with Server(data_dir, listen=None, env={"BELLWETHER_LISTEN": address}) as server:
        assert server.address == address


def test_everything_is_taken_from_the_environment(tmp_path):
    settings = {
        "BELLWETHER_LISTEN": "127.0.0.1:0",
        "BELLWETHER_DATA_DIR": str(tmp_path / "data"),
        "BELLWETHER_MODELS": str(MODELS),
        "BELLWETHER_FEATURES": str(FEATURES),
    }
    with Server(None, models=None, features=None, listen=None, env=settings, cwd=tmp_path) as server:
        server.client().store("c", customer())
        assert server.client().score("c")["predictions"]
    assert (tmp_path / "data" / "ledger").is_dir()


@pytest.mark.parametrize("source", ["file", "environment", "flag"])
def test_flag_wins_over_environment_wins_over_file(tmp_path, source):
    (tmp_path / "bellwether.toml").write_text(
        f"""
listen = "127.0.0.1:0"
data_dir = "{tmp_path / "file"}"
models = "{MODELS}"
features = "{FEATURES}"
"""
    )
    env = {"BELLWETHER_DATA_DIR": str(tmp_path / "environment")} if source != "file" else {}
    data_dir = tmp_path / "flag" if source == "flag" else None
    with Server(data_dir, models=None, features=None, listen=None, env=env, cwd=tmp_path):
        made = [name for name in ("file", "environment", "flag") if (tmp_path / name).exists()]
    assert made == [source]


def test_a_mistake_in_the_configuration_file_is_named(tmp_path):
    (tmp_path / "bellwether.toml").write_text('lisen = "127.0.0.1:0"\n')
    arguments = ["--data-dir", tmp_path / "data", "--models", MODELS, "--features", FEATURES]
    said = refuse("serve", "--listen", "127.0.0.1:0", *arguments, cwd=tmp_path)
    assert "bellwether.toml" in said and "lisen" in said
    assert "lisen" in refuse("check", "--models", MODELS, "--features", FEATURES, cwd=tmp_path)


@pytest.mark.parametrize(
    "flag, value",
    [("--listen", "nonsense"), ("--listen", "127.0.0.1:99999"), ("--features", "nowhere"), ("--port", "1")],
)
def test_a_wrong_flag_is_refused_by_name(tmp_path, flag, value):
    flags = {
        "--listen": "127.0.0.1:0",
        "--data-dir": tmp_path / "data",
        "--models": MODELS,
        "--features": FEATURES,
    }
    flags[flag] = value
    said = refuse("serve", *[text for pair in flags.items() for text in pair], cwd=tmp_path)
    assert flag.lstrip("-") in said or value in said


def test_listening_beyond_loopback_without_keys_is_refused(tmp_path):
    arguments = ["--data-dir", tmp_path / "data", "--models", MODELS, "--features", FEATURES]
    assert "0.0.0.0" in refuse("serve", "--listen", "0.0.0.0:0", *arguments)


def test_a_port_in_use_is_a_clear_error(shared_server, tmp_path):
    arguments = ["--data-dir", tmp_path / "data", "--models", MODELS, "--features", FEATURES]
    assert shared_server.address in refuse("serve", "--listen", shared_server.address, *arguments)


def test_a_data_directory_in_use_is_a_clear_error(data_dir):
    with Server(data_dir) as server:
        arguments = [
            "--listen",
            "127.0.0.1:0",
            "--data-dir",
            data_dir,
            "--models",
            MODELS,
            "--features",
            FEATURES,
        ]
        said = refuse("serve", *arguments)
        assert str(data_dir) in said and "in use" in said
        assert server.client().get("/readyz").status == 200


# The command line.


def subcommands(arguments=()):
    """Every command below `bellwether ARGUMENTS`, found in its --help."""
    listed = re.search(r"^Commands:\n((?:  .*\n|\n)+)", run(*arguments, "--help").stdout + "\n", re.MULTILINE)
    found = []
    if listed:
        for name in re.findall(r"^  ([a-z][a-z0-9-]*)", listed[1], re.MULTILINE):
            if name != "help":
                found += [(*arguments, name), *subcommands((*arguments, name))]
    return found


def test_every_command_has_help_with_an_example():
    commands = subcommands()
    assert {
        ("serve",),
        ("demo",),
        ("check",),
        ("ledger", "verify"),
        ("ledger", "export"),
        ("features", "push"),
    } <= set(commands)
    for command in commands:
        said = succeed(*command, "--help").stdout
        assert re.search(r"^examples?:", said, re.IGNORECASE | re.MULTILINE), f"{command}: no example\n{said}"
        assert "bellwether " + " ".join(command) in said, (
            f"{command}: the example is of something else\n{said}"
        )


def test_version_is_told():
    assert re.match(r"^bellwether \d+\.\d+\.\d+", succeed("--version").stdout)
