"""Settings from the environment, and their documentation."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydantic import ValidationError

from forgetbench.cli import main
from forgetbench.leaderboard import settings as module
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.routes.pages import field_docs


def test_every_setting_is_documented():
    documented = {name for kind, name in field_docs(module) if kind == "Settings"}
    assert set(Settings.model_fields) <= documented
    page = (Path(__file__).parents[2] / "docs" / "run-a-leaderboard.md").read_text()
    assert [name for name in Settings.model_fields if f"`FORGETBENCH_{name.upper()}`" not in page] == []


def test_settings_are_read_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("FORGETBENCH_SERVER_FOLDER", str(tmp_path))
    monkeypatch.setenv("FORGETBENCH_PAGE_ROWS", "7")
    monkeypatch.setenv("FORGETBENCH_DATABASE_URL", "")
    found = Settings()
    assert (found.page_rows, found.database) == (7, f"sqlite:///{tmp_path / 'leaderboard.sqlite'}")
    monkeypatch.setenv("FORGETBENCH_PAGE_ROWS", "0")
    with pytest.raises(ValidationError):
        Settings()


def test_invalid_setting_is_named_and_explained(monkeypatch, capsys):
    monkeypatch.setenv("FORGETBENCH_TRUSTED_PROXIES", "10.0.0.7, 10.0.0.300")
    monkeypatch.setenv("FORGETBENCH_READS_PER_MINUTE", "0")
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    said = " ".join(capsys.readouterr().err.split())
    assert ended.value.code == 2
    assert "FORGETBENCH_TRUSTED_PROXIES" in said
    assert "'10.0.0.300' is not an address or network" in said
    assert "FORGETBENCH_READS_PER_MINUTE: Input should be greater than or equal to 1" in said


def test_settings_that_need_each_other_are_explained(monkeypatch, capsys):
    monkeypatch.setenv("FORGETBENCH_OIDC_ISSUER", "https://login.example.org")
    monkeypatch.setenv("FORGETBENCH_OIDC_CLIENT_ID", "forgetbench")
    with pytest.raises(SystemExit) as ended:
        main(["serve"])
    said = " ".join(capsys.readouterr().err.split())
    assert (ended.value.code, "FORGETBENCH_OIDC_ISSUER needs FORGETBENCH_PUBLIC_URL" in said) == (2, True)
    assert "FORGETBENCH_:" not in said
    assert ".." not in said.replace("...", "")


def test_default_folder_is_in_the_forgetbench_home(own_home: Path):
    assert Settings().server_folder == own_home / "leaderboard"


@pytest.mark.parametrize("name", ["FORGETBENCH_DATA_LICENSE", "FORGETBENCH_DATA_LICENCE"])
def test_data_license_accepts_both_spellings(name, monkeypatch):
    monkeypatch.setenv(name, "MIT")
    settings = Settings()
    assert settings.data_license == "MIT"
    assert Settings(data_license="CC0-1.0").data_license == "CC0-1.0"
    assert Settings.model_validate(settings.model_dump(mode="json")) == settings


def test_invalid_data_license_is_named(monkeypatch, capsys):
    monkeypatch.setenv("FORGETBENCH_DATA_LICENSE", "x" * 201)
    with pytest.raises(SystemExit):
        main(["serve"])
    assert "FORGETBENCH_DATA_LICENSE: String should have at most 200" in " ".join(capsys.readouterr().err.split())
