"""An OpenID Connect provider on a real port: Authlib's provider side, which keeps to the standards by itself.

It knows one client and one person, gives each code once, and demands PKCE and a nonce. Tests change what it says about
the person, and how it signs, to see what a site makes of a provider that errs or lies.
"""

from __future__ import annotations

import base64
import json
import secrets
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import parse_qsl

import uvicorn
from authlib.oauth2.rfc6749 import AuthorizationCodeMixin, AuthorizationServer, ClientMixin, OAuth2Request
from authlib.oauth2.rfc6749.grants import AuthorizationCodeGrant
from authlib.oauth2.rfc6749.requests import BasicOAuth2Payload
from authlib.oauth2.rfc6750 import BearerTokenGenerator
from authlib.oauth2.rfc7636 import CodeChallenge
from authlib.oidc.core import OpenIDCode
from joserfc import jwt
from joserfc.jwk import KeySet, RSAKey
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

CLIENT_ID, CLIENT_SECRET = "forgetbench", "a secret of the client"


class ProviderRequest(OAuth2Request):
    """Authlib's view of a request."""

    def __init__(self, method: str, headers: Any, fields: dict[str, str]) -> None:
        super().__init__(method, "https://provider.test/", headers=headers)
        self.fields = fields
        self.payload = BasicOAuth2Payload(fields)

    @property
    def args(self) -> dict[str, str]:
        return self.fields

    form = args


class Client(ClientMixin):
    """The one registered client."""

    client_id = CLIENT_ID

    def __init__(self, redirect_uri: str) -> None:
        self.redirect_uri = redirect_uri

    def check_client_secret(self, client_secret: str) -> bool:
        return secrets.compare_digest(client_secret, CLIENT_SECRET)

    def check_redirect_uri(self, redirect_uri: str) -> bool:
        return redirect_uri == self.redirect_uri

    def check_endpoint_auth_method(self, method: str, endpoint: str) -> bool:  # noqa: ARG002 - signature of the base class
        return method == "client_secret_basic"

    def check_response_type(self, response_type: str) -> bool:
        return response_type == "code"

    def check_grant_type(self, grant_type: str) -> bool:
        return grant_type == "authorization_code"

    def get_allowed_scope(self, scope: str) -> str:
        return scope


class Code(AuthorizationCodeMixin):
    """A code that was given out."""

    def __init__(self, request: OAuth2Request) -> None:
        data = request.payload.data
        self.redirect_uri, self.scope, self.nonce = data["redirect_uri"], data["scope"], data["nonce"]
        self.code_challenge, self.code_challenge_method = data["code_challenge"], data["code_challenge_method"]
        self.user = request.user

    def get_redirect_uri(self) -> str:
        return self.redirect_uri

    def get_scope(self) -> str:
        return self.scope

    def get_nonce(self) -> str:
        return self.nonce

    def get_auth_time(self) -> int:
        return int(time.time())

    def get_acr(self) -> None:
        return None

    def get_amr(self) -> None:
        return None


class Server(AuthorizationServer):
    """Authlib's authorization server on Starlette's requests."""

    def __init__(self, provider: OpenIDProvider) -> None:
        super().__init__(scopes_supported=["openid", "profile", "email", "groups"])
        self.provider = provider
        self.register_token_generator("default", BearerTokenGenerator(lambda *_, **__: secrets.token_urlsafe(24)))

        class Grant(AuthorizationCodeGrant):
            def save_authorization_code(self, code, request):
                provider.codes[code] = Code(request)

            def query_authorization_code(self, code, client):  # noqa: ARG002 - signature of the base class
                return provider.codes.get(code)

            def delete_authorization_code(self, authorization_code):
                provider.codes = {code: row for code, row in provider.codes.items() if row is not authorization_code}

            def authenticate_user(self, authorization_code):
                return authorization_code.user

        class IdTokens(OpenIDCode):
            def exists_nonce(self, nonce, request):  # noqa: ARG002 - signature of the base class
                return any(row.nonce == nonce for row in provider.codes.values())

            def get_client_algorithm(self, client):  # noqa: ARG002 - signature of the base class
                return "RS256"

            def encode_id_token(self, token, request):  # noqa: ARG002 - signature of the base class
                now = int(time.time())
                claims = {"iss": provider.issuer, "aud": CLIENT_ID, "iat": now, "exp": now + 300}
                claims |= self.get_authorization_code_claims(request.authorization_code) | request.user
                claims |= provider.changed_claims
                claims = {name: value for name, value in claims.items() if value is not None}
                if provider.unsigned:
                    parts = ({"alg": "none"}, claims)
                    encoded = (base64.urlsafe_b64encode(json.dumps(part).encode()).rstrip(b"=") for part in parts)
                    return b".".join((*encoded, b"")).decode()
                header = {"alg": provider.algorithm, "kid": provider.keys.keys[0].kid}
                return jwt.encode(header, claims, provider.signing_key, [provider.algorithm])

        self.register_grant(Grant, [IdTokens(require_nonce=True), CodeChallenge(required=True)])

    def query_client(self, client_id):
        return Client(self.provider.redirect_uri) if client_id == CLIENT_ID else None

    def save_token(self, token, request):
        self.provider.access_tokens[token["access_token"]] = request.user

    def create_oauth2_request(self, request):
        return request

    def handle_response(self, status, body, headers):
        text = json.dumps(body) if isinstance(body, dict) else body or ""
        return Response(text, status, headers=dict(headers))

    def send_signal(self, name, *args, **kwargs):
        """Nothing listens."""


class OpenIDProvider:
    """The provider: its person, its keys, and what tests make it do wrong."""

    def __init__(self, issuer: str) -> None:
        self.issuer = issuer
        self.redirect_uri = ""
        self.person: dict[str, Any] = {"sub": "ada-1815", "name": "Ada Lovelace", "groups": ["engines"]}
        self.person |= {"email": "ada@example.org", "email_verified": True}
        self.consents = True
        self.only_in_user_info: set[str] = set()
        self.changed_claims: dict[str, Any] = {}
        self.changed_metadata: dict[str, Any] = {}
        self.algorithm = "RS256"
        self.unsigned = False
        self.codes: dict[str, Code] = {}
        self.access_tokens: dict[str, dict[str, Any]] = {}
        self.requests: list[str] = []
        self.use_new_key()
        self.server = Server(self)

    def use_new_key(self) -> None:
        """Replace the key with which it signs, and that it publishes."""
        self.keys = KeySet([RSAKey.generate_key(2048)])
        self.signing_key: Any = self.keys.keys[0]

    def app(self) -> Starlette:
        """Its routes."""

        def note(request: Request) -> None:
            self.requests.append(request.url.path)

        def metadata(request: Request) -> Response:
            note(request)
            found = {
                "issuer": self.issuer,
                "authorization_endpoint": f"{self.issuer}/authorize",
                "token_endpoint": f"{self.issuer}/token",
                "userinfo_endpoint": f"{self.issuer}/userinfo",
                "jwks_uri": f"{self.issuer}/jwks",
                "response_types_supported": ["code"],
                "subject_types_supported": ["public"],
                "id_token_signing_alg_values_supported": ["RS256"],
            }
            return JSONResponse(found | self.changed_metadata)

        def jwks(request: Request) -> Response:
            note(request)
            return JSONResponse(self.keys.as_dict())

        def authorize(request: Request) -> Response:
            note(request)
            asked = ProviderRequest("GET", request.headers, dict(request.query_params))
            shown = {name: value for name, value in self.person.items() if name not in self.only_in_user_info}
            grant = self.server.get_consent_grant(asked, end_user=shown)
            return self.server.create_authorization_response(asked, shown if self.consents else None, grant)

        async def token(request: Request) -> Response:
            note(request)
            fields = dict(parse_qsl((await request.body()).decode()))
            return self.server.create_token_response(ProviderRequest("POST", request.headers, fields))

        def user_info(request: Request) -> Response:
            note(request)
            known = request.headers["authorization"].removeprefix("Bearer ") in self.access_tokens
            return JSONResponse(self.person) if known else JSONResponse({}, 401)

        routes = [
            Route("/.well-known/openid-configuration", metadata),
            Route("/authorize", authorize),
            Route("/jwks", jwks),
            Route("/token", token, methods=["POST"]),
            Route("/userinfo", user_info),
        ]
        return Starlette(routes=routes)


@contextmanager
def running_provider() -> Iterator[OpenIDProvider]:
    """A provider that listens on a free port of this machine."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        provider = OpenIDProvider(f"http://127.0.0.1:{listener.getsockname()[1]}")
        server = uvicorn.Server(uvicorn.Config(provider.app(), log_config=None, lifespan="off"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield provider
        finally:
            server.should_exit = True
            thread.join()
