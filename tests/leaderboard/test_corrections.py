"""Entries that are withdrawn and corrected, tokens that are lost, and names of methods that did not make a row."""

from __future__ import annotations

import pytest
from support.leaderboard import edit_manifest

from forgetbench.cli import main
from forgetbench.errors import UsageError
from forgetbench.leaderboard.admin import create_token, list_tokens, renew_token, revoke_token
from forgetbench.leaderboard.errors import IN_YOUR_ENTRY


def test_withdrawn_evidence_can_be_corrected_by_its_owner(site, world, tmp_path):
    ada = site.token()
    first = site.post(world.write_run(tmp_path / "a"), ada).json()["id"]
    corrected = edit_manifest(
        world.write_run(tmp_path / "b"), lambda manifest: manifest["method"].update(title="The right title")
    )
    refused = site.post(corrected, ada)
    assert (refused.status_code, refused.json()["type"]) == (422, IN_YOUR_ENTRY)
    assert (
        f"was submitted to this board before, in your entry {first} (received). To correct that entry" in refused.text
    )
    assert site.change_state(first, "withdrawn", ada).status_code == 200
    second = site.post(corrected, ada)
    assert second.status_code == 202, second.text
    site.work()
    assert site.entry(second.json()["id"])["manifest"]["method"]["title"] == "The right title"
    again = edit_manifest(world.write_run(tmp_path / "c"), lambda manifest: manifest["method"].update(title="Third"))
    assert f"in your entry {second.json()['id']} (listed)" in site.post(again, ada).text


def test_withdrawn_evidence_stays_closed_to_others(site, world, tmp_path):
    ada, grace = site.token(), site.token(name="Grace")
    first = site.post(world.write_run(tmp_path / "a"), ada).json()["id"]
    site.work()
    other = edit_manifest(world.write_run(tmp_path / "b"), lambda manifest: manifest["method"].update(title="Mine"))
    assert f"in entry {first} of Ada Lovelace" in site.post(other, grace).text
    site.change_state(first, "withdrawn", ada)
    refused = site.post(other, grace)
    assert refused.status_code == 422
    assert "in an entry of another token. If you lost that token, ask the operator to renew it" in refused.text
    assert first not in refused.text


def test_renewed_token_withdraws_what_the_lost_one_submitted(site, world, tmp_path, capsys):
    lost = create_token(site.settings, "Ada Lovelace", ["submit"])
    headers = {"Authorization": f"Bearer {lost}"}
    entry = site.post(world.write_run(tmp_path / "a"), headers).json()["id"]
    [token] = [one for one in list_tokens(site.settings) if one.name == "Ada Lovelace"]
    revoke_token(site.settings, token.id)
    folder, database = str(site.settings.server_folder), site.settings.database_url
    words = ["--data", folder, *(["--database", database] if database else [])]
    with pytest.raises(SystemExit) as ended:
        main(["admin", "token", "renew", token.id, *words])
    assert ended.value.code == 0
    shown = capsys.readouterr()
    assert "Shown only once" in shown.err
    renewed = shown.out.strip()
    assert renewed != lost
    assert renewed.startswith(f"fb_{token.id}_")
    assert site.change_state(entry, "withdrawn", headers).status_code == 401
    assert site.change_state(entry, "withdrawn", {"Authorization": f"Bearer {renewed}"}).status_code == 200


def test_renew_token_with_days_expires(site):
    token = create_token(site.settings, "Ada", ["submit"])
    renew_token(site.settings, token, days=3)
    assert [one.expires is not None for one in list_tokens(site.settings) if one.name == "Ada"] == [True]
    for days, message in ((0, "at least one day"), (10**9, "give fewer, or none")):
        with pytest.raises(UsageError, match=message):
            renew_token(site.settings, token, days=days)
    with pytest.raises(UsageError, match="Unknown token"):
        renew_token(site.settings, "0" * 16)


def test_board_refuses_name_of_a_method_that_made_nothing(site, world, tmp_path, assert_nothing_stored):
    run = world.write_run(tmp_path / "run", "finetune", method={"observed": True})
    refused = site.post(run, site.token())
    assert refused.status_code == 422
    [error] = refused.json()["errors"]
    assert error["field"] == "method.name"
    assert "'finetune' is a method of this package, which did not make these results" in error["message"]
    assert "such as 'finetune-own'" in error["message"]
    assert_nothing_stored()
