"""Sign-in with a real OpenID Connect provider on a port of this machine, for a site in a folder behind a proxy."""

from __future__ import annotations

import html
import re
from datetime import timedelta
from urllib.parse import parse_qs, parse_qsl, urlencode, urlsplit, urlunsplit

import httpx2
import pytest
from fastapi.testclient import TestClient
from joserfc.jwk import OctKey, RSAKey
from pydantic import ValidationError
from sqlalchemy import select, update
from support.openid_provider import CLIENT_ID, CLIENT_SECRET, running_provider

from forgetbench.leaderboard import admin
from forgetbench.leaderboard.auth.openid import Identity, Provider
from forgetbench.leaderboard.db.models import SignIn, Token, utc_now
from forgetbench.leaderboard.errors import Problem
from forgetbench.leaderboard.settings import Settings
from forgetbench.leaderboard.web.app import create_app
from forgetbench.leaderboard.worker import cleanup

ROOT, HOST = "/lab/board", "https://board.example.org"
HTML = {"Accept": "text/html"}


@pytest.fixture(scope="module")
def running():
    """The provider of all tests here."""
    with running_provider() as provider:
        yield provider


@pytest.fixture
def provider(running):
    """The provider as it is when nothing is wrong."""
    before = {name: value for name, value in vars(running).items() if name not in {"codes", "access_tokens"}}
    kept = {name: value.copy() if isinstance(value, (dict, set, list)) else value for name, value in before.items()}
    running.redirect_uri = f"{HOST}{ROOT}/signin/callback"
    yield running
    vars(running).update(kept)


class Proxy:
    """Removes the site's folder from the path, as a reverse proxy does."""

    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        if scope["type"] == "http":
            assert scope["path"].startswith(ROOT), scope["path"]
            path = scope["path"].removeprefix(ROOT) or "/"
            scope = {**scope, "path": path, "raw_path": path.encode()}
        await self.app(scope, receive, send)


class Visit:
    """A browser that visits a site and its provider."""

    def __init__(self, settings):
        self.app = create_app(settings)
        self.site = TestClient(Proxy(self.app), base_url=HOST, headers=HTML, follow_redirects=False)

    def get(self, path, **options):
        return self.site.get(ROOT + path, **options)

    def begin(self):
        """Where the site sends people who sign in."""
        answer = self.get("/signin")
        assert answer.status_code == 303, answer.text
        return answer.headers["location"]

    def answer(self, address=None):
        """Address of this site to which the provider sends people back, without its host."""
        sent = httpx2.get(address or self.begin())
        assert sent.status_code == 302, sent.text
        back = urlsplit(sent.headers["location"])
        assert f"{back.scheme}://{back.netloc}{back.path}" == f"{HOST}{ROOT}/signin/callback"
        return urlunsplit(("", "", back.path, back.query, ""))

    def sign_in(self):
        """The page after signing in."""
        return self.site.get(self.answer())

    def make(self, page, **fields):
        """Send the form of a page."""
        ticket = re.search(r'name="ticket" value="([^"]+)"', page.text)[1]
        return self.site.post(f"{ROOT}/signin/token", data={"ticket": ticket, **fields})

    def token(self, page):
        """The token that a page shows."""
        assert page.status_code == 200, page.text
        return re.search(r"fb_[0-9a-f]{16}_[0-9a-f]{64}", page.text)[0]

    def whoami(self, token):
        return self.get("/api/v1/whoami", headers={"Authorization": f"Bearer {token}"})


def words(answer):
    return " ".join(html.unescape(re.sub("<[^>]+>", " ", answer.text)).split())


@pytest.fixture
def visit(site, provider):
    """Makes visits of a site that has the provider; settings can be changed."""
    made = []

    def make(**changes):
        settings = site.settings.model_dump() | {
            "public_url": HOST + ROOT,
            "oidc_issuer": provider.issuer,
            "oidc_client_id": CLIENT_ID,
            "oidc_client_secret": CLIENT_SECRET,
            "oidc_name": "Example University",
        }
        made.append(Visit(Settings(**{**settings, **changes})))
        return made[-1]

    yield make
    for one in made:
        one.app.state.database.close()


def test_sign_in_makes_one_token_with_pkce_state_and_nonce(visit, site, provider):
    browser = visit()
    assert f'href="{ROOT}/signin"' in browser.get("/signup").text
    address = browser.begin()
    asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
    assert asked["code_challenge_method"] == "S256"
    assert (asked["response_type"], asked["redirect_uri"]) == ("code", provider.redirect_uri)
    [cookie] = browser.site.cookies.jar
    assert (cookie.path, cookie.secure, cookie.has_nonstandard_attr("HttpOnly")) == (f"{ROOT}/signin", True, True)
    assert cookie.get_nonstandard_attr("SameSite") == "lax"
    with site.database.read_session() as session:
        [row] = session.scalars(select(SignIn)).all()
        assert cookie.value not in {row.key, row.state, row.nonce, row.verifier}
        assert (row.state, row.nonce) == (asked["state"], asked["nonce"])
        assert row.verifier not in address
    page = browser.site.get(browser.answer(address))
    assert (page.status_code, page.headers["cache-control"], page.headers["referrer-policy"]) == (
        *(200, "no-store"),
        "same-origin",
    )
    assert not list(browser.site.cookies.jar)
    assert 'value="Ada Lovelace"' in page.text
    shown = browser.make(page, name="Countess", team="Engines")
    assert "shown only once" in words(shown)
    token = browser.token(shown)
    assert browser.whoami(token).json()["name"] == "Countess"
    with site.database.read_session() as session:
        stored = session.scalars(select(Token).where(Token.name == "Countess")).one()
        assert (stored.team, stored.scopes, (stored.expires_at - utc_now()).days) == ("Engines", ["submit"], 89)
        assert "ada-1815" not in stored.identity
        assert not session.scalars(select(SignIn)).all()


def test_second_sign_in_replaces_the_token(visit, site):
    browser = visit()
    first = browser.token(browser.make(browser.sign_in(), name="Ada"))
    page = browser.sign_in()
    assert "You have a token as Ada" in words(page)
    assert browser.whoami(first).status_code == 200  # nothing has changed before the person says so
    second = browser.token(browser.make(page))
    assert first[:20] == second[:20]  # the same token with another secret: it owns the same entries
    assert (browser.whoami(first).status_code, browser.whoami(second).status_code) == (401, 200)
    page = browser.sign_in()
    with site.database.write_session() as session:
        session.execute(update(Token).where(Token.name == "Ada").values(revoked_at=utc_now()))
    assert "revoked your token" in words(browser.make(page))
    refused = browser.sign_in()
    assert (refused.status_code, "revoked your token" in words(refused)) == (403, True)


def test_ticket_makes_one_token_and_survives_a_wrong_name(visit, site):
    code = admin.create_invitation(site.settings, team="Compilers", uses=1)
    site.token(name="Grace")
    browser = visit()
    page = browser.sign_in()
    for fields, said in (
        ({"name": "grace"}, "is taken"),
        ({"name": "\x07"}, "Invalid token name"),
        ({"name": "Ada", "code": "fbi_0"}, "wrong, expired or used up"),
    ):
        answer = browser.make(page, **fields)
        assert (answer.status_code, said in words(answer)) == (422, True)
    token = browser.token(browser.make(page, name="Ada", code=code))
    again = browser.make(page, name="Ada 2")
    assert (again.status_code, "made a token before" in words(again)) == (400, True)
    assert browser.site.post(f"{ROOT}/signin/token", data={"ticket": "guessed"}).status_code == 400
    assert browser.site.post(f"{ROOT}/signin/token", content=b"x" * 5000).status_code == 413
    assert browser.whoami(token).json()["name"] == "Ada"
    with site.database.read_session() as session:
        assert session.scalars(select(Token).where(Token.name == "Ada")).one().team == "Compilers"


def test_answer_belongs_to_one_sign_in_of_one_browser(visit, site):
    browser = visit()
    answer = browser.answer()
    parts = dict(parse_qsl(urlsplit(answer).query))
    wrong = f"{ROOT}/signin/callback?{urlencode({**parts, 'state': 'forged'})}"
    refused = browser.site.get(wrong)
    assert (refused.status_code, "did not begin this sign-in" in words(refused)) == (400, True)
    assert f'href="{ROOT}/signin"' in refused.text
    assert "<h1>You are not signed in</h1>" in refused.text
    assert visit().site.get(answer).status_code == 400  # another browser, with the link of this one
    cookies = dict(browser.site.cookies)
    assert browser.site.get(answer).status_code == 200
    browser.site.cookies.update(cookies)
    assert browser.site.get(answer).status_code == 400  # replayed with its cookie
    late = browser.answer()
    with site.database.write_session() as session:
        session.execute(update(SignIn).values(expires_at=utc_now() - timedelta(seconds=1)))
    assert browser.site.get(late).status_code == 400
    browser.begin()
    with site.database.write_session() as session:
        session.execute(update(SignIn).values(expires_at=utc_now() - timedelta(seconds=1)))
    cleanup.remove_leftovers(site.settings, site.database)
    with site.database.read_session() as session:
        assert not session.scalars(select(SignIn)).all()


def test_code_that_was_used_is_refused_by_the_provider(visit):
    browser = visit()
    used = dict(parse_qsl(urlsplit(browser.answer()).query))
    assert browser.site.get(f"{ROOT}/signin/callback?{urlencode(used)}").status_code == 200
    fresh = dict(parse_qsl(urlsplit(browser.answer()).query))
    replayed = browser.site.get(f"{ROOT}/signin/callback?{urlencode({**fresh, 'code': used['code']})}")
    assert (replayed.status_code, "used before or has expired" in words(replayed)) == (400, True)
    stolen = dict(parse_qsl(urlsplit(visit().answer()).query))  # a code for another proof key
    fresh = dict(parse_qsl(urlsplit(browser.answer()).query))
    assert browser.site.get(f"{ROOT}/signin/callback?{urlencode({**fresh, 'code': stolen['code']})}").status_code == 400


WRONG_CLAIMS = [
    ({"exp": 1_000_000_000}, "has expired"),
    ({"aud": "another-site"}, "aud"),
    ({"aud": ["another-site"], "azp": CLIENT_ID}, "aud"),
    ({"aud": [CLIENT_ID, "another-site"], "azp": "another-site"}, "azp"),
    ({"iss": "https://evil.example.org"}, "iss"),
    ({"nonce": "of another sign-in"}, "nonce"),
    ({"nonce": None}, "nonce"),
    ({"sub": None}, "sub"),
    ({"sub": ""}, "names no account"),
    ({"iat": 9_999_999_999}, "issued in the future"),
]


def test_token_with_wrong_claims_is_refused(visit, site, provider):
    browser = visit()
    for claims, said in WRONG_CLAIMS:
        provider.changed_claims = claims
        refused = browser.sign_in()
        assert refused.status_code == 502, claims
        assert "does not trust the answer of Example University" in words(refused)
        assert said in words(refused), claims
    with site.database.read_session() as session:
        assert not session.scalars(select(SignIn)).all()
        assert not session.scalars(select(Token).where(Token.identity.is_not(None))).all()


def test_token_with_wrong_signature_is_refused(visit, provider):
    provider.changed_metadata = {"id_token_signing_alg_values_supported": ["RS256", "HS256", "none"]}
    browser = visit()
    public = provider.keys.keys[0].as_pem(private=False)
    for kind, changes in {
        "another key": {"signing_key": RSAKey.generate_key(2048)},
        "shared secret": {"algorithm": "HS256", "signing_key": OctKey.import_key(CLIENT_SECRET * 2)},
        "public key as a secret": {"algorithm": "HS256", "signing_key": OctKey.import_key(public.hex())},
        "unsigned": {"unsigned": True},
    }.items():
        vars(provider).update(changes)
        refused = browser.sign_in()
        assert (refused.status_code, "its ID token is not valid" in words(refused)) == (502, True), kind


def test_new_keys_of_the_provider_are_read(visit, provider):
    browser = visit()
    page = browser.sign_in()
    reads = provider.requests.count("/jwks")
    provider.use_new_key()
    assert browser.sign_in().status_code == page.status_code == 200
    assert provider.requests.count("/jwks") == reads + 1
    assert provider.requests.count("/.well-known/openid-configuration") == 1


def test_provider_that_does_not_answer_is_explained(visit, site, caplog):
    browser = visit(oidc_issuer="http://127.0.0.1:9")  # the discard port: nothing listens
    down = browser.get("/signin")
    assert (down.status_code, "You cannot sign in now" in words(down)) == (503, True)
    assert (down.headers["retry-after"], f'href="{ROOT}/signup"' in down.text) == ("120", True)
    assert "http://127.0.0.1:9/.well-known/openid-configuration cannot be reached" in caplog.text
    caplog.clear()
    assert browser.get("/signin").status_code == 503
    assert "it failed a moment ago" in caplog.text  # requests do not queue for a provider that is down
    assert browser.get("/signup").status_code == 200
    with site.database.read_session() as session:
        assert not session.scalars(select(SignIn)).all()


def test_description_that_is_not_usable_is_logged(visit, provider, caplog):
    browser = visit()
    settings = browser.app.state.settings
    for changes, logged in (
        ({"issuer": "https://other.example.org"}, "set FORGETBENCH_OIDC_ISSUER to the name that it gives"),
        ({"token_endpoint": "http://login.example.org/token"}, "token_endpoint is 'http://login.example.org/token'"),
        ({"id_token_signing_alg_values_supported": ["HS256", "none"]}, "no signature of ID tokens"),
    ):
        provider.changed_metadata = changes
        browser.app.state.provider = Provider(settings)  # a server that was started again
        refused = browser.get("/signin")
        assert (refused.status_code, "in the log of this server" in words(refused)) == (503, True)
        assert logged in caplog.text


def test_wrong_secret_of_the_client_is_logged(visit, caplog):
    refused = visit(oidc_client_secret="wrong").sign_in()
    assert (refused.status_code, "check FORGETBENCH_OIDC_CLIENT_ID" in caplog.text) == (503, True)
    assert "wrong" not in caplog.text.replace("what is wrong", "")


ADA = Identity("0" * 64, "Ada", "ada@example.org", frozenset({"engines"}))


@pytest.mark.parametrize(
    ("person", "settings", "said"),
    [
        ({"email": "ada@elsewhere.org"}, {"oidc_domains": "example.org, example.edu"}, "as ada@elsewhere.org"),
        ({"email": "ada@sub.example.org"}, {"oidc_domains": "example.org"}, "admits addresses of example.org only"),
        ({"email": "example.org"}, {"oidc_domains": "example.com"}, "as example.org"),
        ({"email": ""}, {"oidc_domains": "example.org"}, "that Example University has verified"),
        ({"groups": {"guests"}}, {"oidc_groups": "engines,staff"}, "in a group that this site admits (engines, staff)"),
        ({"groups": set()}, {"oidc_groups": "engines"}, "in a group"),
        ({}, {"oidc_groups": "engines", "oidc_domains": "example.com"}, "as ada@example.org"),
    ],
)
def test_person_who_is_not_admitted_is_refused(person, settings, said):
    right = {"oidc_issuer": "https://login.example.org", "oidc_client_id": "x", "public_url": HOST}
    provider = Provider(Settings(**right, oidc_name="Example University", **settings))
    with pytest.raises(Problem, match=re.escape(said)) as refused:
        provider.check_permission(ADA._replace(**person))
    assert (refused.value.status, "Ask the operator of this server" in refused.value.detail) == (403, True)


def test_person_of_a_domain_and_a_group_is_admitted(visit, provider):
    browser = visit(oidc_domains="@Example.org", oidc_groups="staff, engines")
    for hidden in (set(), {"email", "email_verified", "groups", "name"}):
        provider.only_in_user_info = hidden
        page = browser.sign_in()
        assert (page.status_code, 'value="Ada Lovelace"' in page.text) == (200, True), words(page)
    for change in ({"email": "ada@elsewhere.org"}, {"email_verified": False}, {"groups": "guests"}):
        provider.person = {**provider.person, "email_verified": True, "groups": "engines", **change}
        refused = browser.sign_in()
        assert (refused.status_code, "You signed in" in words(refused)) == (403, True), change
        assert browser.site.get(f"{ROOT}/signin/callback").status_code == 400  # nothing is left of it


def test_user_info_of_another_account_is_refused(visit, provider):
    provider.only_in_user_info = {"email", "name"}
    browser = visit(oidc_domains="example.org")
    answer = browser.answer()
    for token_owner in provider.codes.values():
        token_owner.user = {"sub": "mallory"}
    assert "about another account" in words(browser.site.get(answer))


def test_refusal_of_the_provider_is_explained(visit, provider):
    provider.consents = False
    refused = visit().sign_in()
    assert (refused.status_code, "did not sign you in: access was denied" in words(refused)) == (403, True)
    provider.consents = True
    browser = visit()
    mixed = browser.site.get(browser.answer() + "&iss=https://evil.example.org")
    assert (mixed.status_code, "another identity provider" in words(mixed)) == (400, True)


def test_names_that_providers_give_become_valid(visit, site, provider):
    site.token(name="Ada Lovelace")
    browser = visit()
    for name, suggested in (
        ("Ada Lovelace", "Ada Lovelace 2"),
        ("<b>Ada</b>\u202e  \u0000x", "bAda/b x"),
        (None, ""),
    ):
        provider.person = {**provider.person, "name": name}
        assert f'autocomplete="name" value="{suggested}"' in browser.sign_in().text


def test_site_without_a_provider_says_so(site):
    for path in ("/signin", "/signin/callback"):
        answer = site.client.get(path, headers=HTML)
        assert (answer.status_code, "do not sign in on this site" in words(answer)) == (404, True)
    assert "Sign in with" not in site.client.get("/signup").text


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"oidc_issuer": "http://login.example.org"}, "write the provider's address as https://HOST/"),
        ({"oidc_issuer": "login.example.org"}, "write the provider's address as https://HOST/"),
        ({"oidc_client_id": ""}, "needs FORGETBENCH_OIDC_CLIENT_ID"),
        ({"public_url": None}, "needs FORGETBENCH_PUBLIC_URL"),
        ({"public_url": "http://board.example.org"}, "an address that begins with https://"),
        ({"oidc_scopes": "profile"}, "must have the scope openid"),
    ],
)
def test_settings_that_cannot_work_are_explained(changes, said):
    right = {"oidc_issuer": "https://login.example.org", "oidc_client_id": "x", "public_url": HOST}
    assert Settings(**right).provider_name == "login.example.org"
    with pytest.raises(ValidationError, match=re.escape(said)):
        Settings(**{**right, **changes})


def test_missing_packages_are_named(monkeypatch):
    monkeypatch.setattr("forgetbench.leaderboard.auth.openid.importlib.util.find_spec", lambda _name: None)
    settings = Settings(oidc_issuer="https://login.example.org", oidc_client_id="x", public_url=HOST)
    with pytest.raises(Exception, match=r"pip install 'forgetbench\[openid\]'"):
        Provider(settings)
