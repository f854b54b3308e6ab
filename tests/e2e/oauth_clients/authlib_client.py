"""Authlib's client, unchanged: authlib_client.py BASE_URL CLIENT_ID."""

import json
import sys
import time
from collections.abc import Callable

import requests
from authlib.integrations.base_client import OAuthError
from authlib.integrations.requests_client import OAuth2Session

base, client_id = sys.argv[1:]
session = OAuth2Session(client_id, token_endpoint_auth_method="none", revocation_endpoint_auth_method="none")
started = session.request(
    "POST", f"{base}/oauth/device_authorization", data={"client_id": client_id, "scope": "cli"}, withhold_token=True
).json()
print(json.dumps({"user_code": started["user_code"]}), flush=True)
tokens = None
while tokens is None:
    try:
        tokens = session.fetch_token(
            f"{base}/oauth/token",
            grant_type="urn:ietf:params:oauth:grant-type:device_code",
            device_code=started["device_code"],
        )
    except OAuthError as error:
        if error.error != "authorization_pending":
            raise
        time.sleep(started["interval"])
refreshed = session.refresh_token(f"{base}/oauth/token", refresh_token=tokens["refresh_token"])
said = {"before": tokens["refresh_token"], "refresh_token": refreshed["refresh_token"]}
print(json.dumps(said | {"access_token": refreshed["access_token"]}), flush=True)
sys.stdin.readline()
revoke: Callable[..., requests.Response] = session.revoke_token
revoke(f"{base}/oauth/revoke", token=refreshed["refresh_token"]).raise_for_status()
