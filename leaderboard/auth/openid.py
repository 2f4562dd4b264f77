"""OpenID Connect: what this site, a relying party, asks a provider and believes of it (authorization code flow, PKCE).

Authlib builds the requests and checks claims; joserfc verifies signatures. Both are the extra ``openid``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import threading
import time
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import httpx2

from forgetbench.errors import UsageError
from forgetbench.leaderboard.errors import Link, Problem
from forgetbench.leaderboard.settings import Settings, is_private, words_of

log = logging.getLogger("forgetbench.server")
CALLBACK = "/signin/callback"
"""Path of this site to which the provider sends people back."""
TIMEOUT_SECONDS = 5.0
METADATA_SECONDS = 3600.0
"""How long the provider's description and keys are used before they are read again."""
PAUSE_SECONDS = 10.0
"""Pause after a failure of the provider, so that requests that wait for it do not fill the server."""
LEEWAY_SECONDS = 60
"""Difference that the clocks of the two servers may have."""
ALGORITHMS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA", "Ed25519"}
)
"""Signatures that only the provider can make: none with a shared secret, and never ``none``."""
_ENDPOINTS = ("authorization_endpoint", "token_endpoint", "jwks_uri")
_OTHER_WAY = [Link("sign-up with an invitation code", "/signup")]


class Identity(NamedTuple):
    """A person, as the provider vouches for them."""

    key: str
    """SHA-256 of provider and account: the same at each sign-in, and no name."""
    name: str
    """What the provider calls the person; "" if it does not say."""
    email: str
    """E-mail address that the provider has verified; "" if there is none."""
    groups: frozenset[str]
    """Groups of the person."""


class Provider:
    """The identity provider of a site.

    Args:
        settings: Configuration of the server, with a provider.

    Raises:
        UsageError: The packages for signing in are not installed.
    """

    def __init__(self, settings: Settings) -> None:
        if any(importlib.util.find_spec(package) is None for package in ("authlib", "joserfc")):
            raise UsageError("FORGETBENCH_OIDC_ISSUER needs Authlib: pip install 'forgetbench[openid]'.")
        self.settings = settings
        self.redirect_uri = str(settings.public_url).rstrip("/") + CALLBACK
        self._lock = threading.Lock()
        self._metadata: dict[str, Any] = {}
        self._keys: dict[str, Any] = {}
        self._read_at = 0.0
        self._failed_at = -PAUSE_SECONDS

    def authorization_address(self, state: str, nonce: str, verifier: str) -> str:
        """Where a person signs in.

        Args:
            state: What the provider's answer repeats.
            nonce: What the ID token repeats.
            verifier: Proof key, of which the provider gets the hash only.

        Raises:
            Problem: 503, the provider does not answer, or its description is not usable.
        """
        from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
        from authlib.oauth2.rfc7636 import create_s256_code_challenge

        address: str = prepare_grant_uri(
            self._load()["authorization_endpoint"],
            client_id=self.settings.oidc_client_id,
            response_type="code",
            redirect_uri=self.redirect_uri,
            scope=self.settings.oidc_scopes,
            state=state,
            nonce=nonce,
            code_challenge=create_s256_code_challenge(verifier),
            code_challenge_method="S256",
        )
        return address

    def identify(self, code: str, nonce: str, verifier: str) -> Identity:
        """Exchange a code for an ID token, verify it, and say who it is about.

        Args:
            code: The code of the provider's answer.
            nonce: What the ID token must repeat.
            verifier: Proof key of the request.

        Raises:
            Problem: 400, the provider refused the code; 502, its answer is not to be trusted; 503, it does not answer.
        """
        answer = self._exchange(code, verifier)
        claims = self._verified_claims(answer, nonce)
        claims = self._with_user_info(claims, answer.get("access_token"))
        groups = claims.get(self.settings.oidc_groups_claim, [])
        email = str(claims.get("email") or "") if claims.get("email_verified") in (True, "true") else ""
        subject = f"{self.settings.oidc_issuer}\n{claims['sub']}"
        return Identity(
            hashlib.sha256(subject.encode()).hexdigest(),
            "".join(filter(str.isprintable, str(claims.get("name") or claims.get("preferred_username") or ""))),
            email,
            frozenset(map(str, groups) if isinstance(groups, list) else [str(groups)] if groups else []),
        )

    def check_permission(self, identity: Identity) -> None:
        """Check that a person is in the domains and groups that may sign in.

        Raises:
            Problem: 403, they are not.
        """
        domains = {domain.casefold().removeprefix("@") for domain in words_of(self.settings.oidc_domains)}
        contact = f"If you should have access: {self.settings.token_help}"
        name = self.settings.provider_name
        if domains and identity.email.rpartition("@")[2].casefold() not in domains:
            address = identity.email or f"an account without an e-mail address that {name} has verified"
            allowed = ", ".join(sorted(domains))
            raise Problem(
                403,
                f"You signed in as {address}, but this site admits addresses of {allowed} only. {contact}",
                links=_OTHER_WAY,
            )
        groups = set(words_of(self.settings.oidc_groups))
        if groups and not groups & identity.groups:
            raise Problem(
                403,
                f"You signed in, but {name} does not list you in a group that this site admits "
                f"({', '.join(sorted(groups))}). {contact}",
                links=_OTHER_WAY,
            )

    def _load(self) -> dict[str, Any]:
        """The provider's description of itself, read at most once an hour."""
        with self._lock:
            now = time.monotonic()
            if not self._metadata or now - self._read_at > METADATA_SECONDS:
                if now - self._failed_at < PAUSE_SECONDS:
                    self._fail("it failed a moment ago")
                self._failed_at = now
                self._metadata = self._describe()
                self._read_at, self._failed_at = now, now - PAUSE_SECONDS
            return self._metadata

    def _describe(self) -> dict[str, Any]:
        issuer = self.settings.oidc_issuer
        found = self._get_json(f"{issuer.rstrip('/')}/.well-known/openid-configuration", {})
        if found.get("issuer") != issuer:
            self._fail(
                f"it names itself {found.get('issuer')!r}, not {issuer!r}: set FORGETBENCH_OIDC_ISSUER to the name "
                "that it gives"
            )
        for endpoint in _ENDPOINTS:
            if not is_private(str(found.get(endpoint, ""))):
                self._fail(f"its {endpoint} is {found.get(endpoint)!r}, not an address with https://")
        if not _algorithms(found):
            self._fail("it offers no signature of ID tokens that this site accepts, such as RS256 or ES256")
        self._keys = self._get_json(str(found["jwks_uri"]), {})
        return found

    def _exchange(self, code: str, verifier: str) -> Mapping[str, Any]:
        from authlib.oauth2.auth import ClientAuth
        from authlib.oauth2.rfc6749.parameters import prepare_token_request

        metadata, secret = self._load(), self.settings.oidc_client_secret
        methods = metadata.get("token_endpoint_auth_methods_supported") or ["client_secret_basic"]
        method = "client_secret_basic" if "client_secret_basic" in methods else "client_secret_post"
        body = prepare_token_request(
            "authorization_code", redirect_uri=self.redirect_uri, code=code, code_verifier=verifier
        )
        headers = {"Accept": "application/json", "Content-Type": "application/x-www-form-urlencoded"}
        client = ClientAuth(self.settings.oidc_client_id, secret, method if secret else "none")
        address, headers, body = client.prepare("POST", metadata["token_endpoint"], headers, body)
        answer, status = self._read_json("POST", address, headers, body)
        if status == 200:
            return answer
        kind = str(answer.get("error", ""))[:100]
        if kind == "invalid_grant":
            log.warning("the identity provider refused a code: %s", str(answer.get("error_description", ""))[:300])
            raise Problem(
                400,
                f"{self.settings.provider_name} refused this sign-in: its code was used before or has expired. Sign in "
                "again.",
                links=[Link("sign in again", "/signin")],
            )
        self._fail(
            f"its token endpoint answered {status} {kind!r}: check FORGETBENCH_OIDC_CLIENT_ID, "
            f"FORGETBENCH_OIDC_CLIENT_SECRET, and that {self.redirect_uri} is registered there"
        )

    def _verified_claims(self, answer: Mapping[str, Any], nonce: str) -> dict[str, Any]:
        """Claims of an ID token whose signature, issuer, audience, time and nonce are right."""
        from authlib.oidc.core import CodeIDToken
        from joserfc import jwt
        from joserfc.errors import ExpiredTokenError, JoseError
        from joserfc.jwk import KeySet
        from joserfc.jws import JWSRegistry

        metadata, client_id = self._load(), self.settings.oidc_client_id
        registry = JWSRegistry(algorithms=_algorithms(metadata), strict_check_header=False)
        text = answer.get("id_token")
        if not isinstance(text, str):
            self._distrust("its answer has no ID token")
        try:
            try:
                token = jwt.decode(text, KeySet.import_key_set(self._keys), registry=registry)  # type: ignore[arg-type]
            except JoseError:  # perhaps the provider has new keys
                self._keys = self._get_json(str(metadata["jwks_uri"]), {})
                token = jwt.decode(text, KeySet.import_key_set(self._keys), registry=registry)  # type: ignore[arg-type]
            options = {
                "iss": {"essential": True, "value": self.settings.oidc_issuer},
                "aud": {"essential": True, "value": client_id},
            }
            parameters = {"nonce": nonce, "client_id": client_id, "access_token": answer.get("access_token")}
            claims = CodeIDToken(token.claims, token.header, options, parameters)
            claims.validate(leeway=LEEWAY_SECONDS)
        except ExpiredTokenError:
            self._distrust("its ID token has expired; compare the clocks of both servers")
        except (JoseError, ValueError, TypeError, KeyError) as error:
            self._distrust(f"its ID token is not valid ({type(error).__name__}: {error})")
        if not isinstance(claims["sub"], str) or not claims["sub"]:
            self._distrust("its ID token names no account")
        return dict(claims)

    def _with_user_info(self, claims: dict[str, Any], access_token: object) -> dict[str, Any]:
        """Claims with those that some providers give at their user info endpoint only."""
        wanted = {"name"}
        if self.settings.oidc_domains:
            wanted |= {"email", "email_verified"}
        if self.settings.oidc_groups:
            wanted.add(self.settings.oidc_groups_claim)
        address = str(self._load().get("userinfo_endpoint", ""))
        if wanted <= set(claims) or not isinstance(access_token, str) or not is_private(address):
            return claims
        found = self._get_json(address, {"Authorization": f"Bearer {access_token}"})
        if found.get("sub") != claims["sub"]:
            self._distrust("its user info is about another account than its ID token")
        return found | claims

    def _get_json(self, address: str, headers: Mapping[str, str]) -> dict[str, Any]:
        found, status = self._read_json("GET", address, {"Accept": "application/json", **headers})
        if status != 200:
            self._fail(f"{address} answered {status}")
        return found

    def _read_json(
        self, method: str, address: str, headers: Mapping[str, str], body: str | None = None
    ) -> tuple[dict[str, Any], int]:
        """A JSON object that the provider sends, and the status; redirects are not followed."""
        try:
            answer = httpx2.request(method, address, headers=dict(headers), content=body, timeout=TIMEOUT_SECONDS)
        except (httpx2.HTTPError, httpx2.InvalidURL) as error:
            self._fail(f"{address} cannot be reached ({type(error).__name__}: {error})")
        try:
            found = answer.json()
        except ValueError:
            found = None
        if answer.status_code >= 500 or not isinstance(found, dict):
            self._fail(f"{address} answered {answer.status_code} without a JSON object")
        return found, answer.status_code

    def _fail(self, reason: str) -> NoReturn:
        """Report to the operator why sign-in fails, and to the person what they can do."""
        log.error("signing in with %s failed: %s", self.settings.oidc_issuer, reason)
        raise Problem(
            503,
            f"You cannot sign in now, because {self.settings.provider_name} does not answer as it should. The reason "
            "is in the log of this server. Try again in a few minutes; tokens that you have keep working.",
            headers={"Retry-After": "120"},
            links=_OTHER_WAY,
        ) from None

    def _distrust(self, reason: str) -> NoReturn:
        """Refuse an answer that may be forged."""
        log.error("an answer of %s was refused: %s", self.settings.oidc_issuer, reason)
        raise Problem(
            502,
            f"This site does not trust the answer of {self.settings.provider_name}: {reason}. You were not signed in. "
            "Sign in again, and tell the operator if this repeats.",
            links=[Link("sign in again", "/signin")],
        ) from None


def _algorithms(metadata: Mapping[str, Any]) -> list[str]:
    """Signatures of a provider that this site accepts."""
    return sorted(ALGORITHMS & set(metadata.get("id_token_signing_alg_values_supported") or ["RS256"]))
