"""requests-oauthlib with oauthlib's DeviceClient, unchanged: oauthlib_client.py BASE_URL CLIENT_ID."""

import json
import os
import sys
import time

os.environ["OAUTHLIB_INSECURE_TRANSPORT"] = "1"  # the service of the test is on loopback

from oauthlib.oauth2 import DeviceClient
from oauthlib.oauth2.rfc6749.errors import CustomOAuth2Error
from requests_oauthlib import OAuth2Session

base, client_id = sys.argv[1:]
session = OAuth2Session(client=DeviceClient(client_id))
started = session.request(
    "POST", f"{base}/oauth/device_authorization", data={"client_id": client_id, "scope": "cli"}, withhold_token=True
).json()
print(json.dumps({"user_code": started["user_code"]}), flush=True)
tokens = None
while tokens is None:
    try:
        tokens = session.fetch_token(f"{base}/oauth/token", device_code=started["device_code"], include_client_id=True)
    except CustomOAuth2Error as error:
        if error.error != "authorization_pending":
            raise
        time.sleep(started["interval"])
refreshed = session.refresh_token(f"{base}/oauth/token", client_id=client_id)
said = {"before": tokens["refresh_token"], "refresh_token": refreshed["refresh_token"]}
print(json.dumps(said | {"access_token": refreshed["access_token"]}), flush=True)
sys.stdin.readline()
url, headers, body = DeviceClient(client_id).prepare_token_revocation_request(
    f"{base}/oauth/revoke", refreshed["refresh_token"], "refresh_token", client_id=client_id
)
session.request("POST", url, headers=headers, data=body, withhold_token=True).raise_for_status()
