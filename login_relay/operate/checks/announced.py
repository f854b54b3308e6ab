"""Whether all API processes have the same master secrets and the same issuer: checks of the doctor."""

from pathlib import Path

from login_relay.operate.checks.check import Check, Level
from login_relay.operate.relay import Relay
from runtime.master_secrets import MasterSecretsError, read_master_secrets
from runtime.settings import variable
from tokens.announcing import Announcement


def check_master_secrets(relay: Relay, announced: list[Announcement]) -> list[Check]:
    """Whether all API processes sign with the same secret and the same issuer, and have what is in the file here."""
    checks = [_compare(announced)]
    if relay.settings.keys_file is not None:
        path = Path(relay.settings.keys_file)
        try:
            here = tuple(one.fingerprint for one in read_master_secrets(path))
        except MasterSecretsError as error:
            defect, _, what_to_do = str(error).partition("; ")
            return [*checks, Check("keys file", Level.FINDING, defect, what_to_do or None)]
        others = [_named(one) for one in announced if one.fingerprints and one.fingerprints != here]
        if others:
            says = f"{path} is not what these API processes have: {', '.join(others)}"
            return [*checks, Check("keys file", Level.FINDING, says, f"copy the file to their machines, {_AT_ONCE}")]
        checks.append(Check("keys file", Level.OK, f"{path}, {len(here)} secrets"))
    return checks


_AT_ONCE = "where they read it within seconds; their logs say so, or why not"


def _compare(announced: list[Announcement]) -> Check:
    """Compare what the API processes say of themselves."""
    if not announced:
        return Check("tokens", Level.UNSEEN, "no API process runs, so their master secrets cannot be compared")
    of_keys = {one.fingerprints for one in announced}
    if len(of_keys) > 1:
        has = "; ".join(f"{_named(one)} has {' '.join(one.fingerprints) or 'none'}" for one in announced)
        says = f"API processes have different master secrets, and refuse each other's tokens: {has}"
        mend = f"give all the same file ({variable('keys_file')}), {_AT_ONCE}; compare with `login-relay keys list`"
        return Check("tokens", Level.FINDING, says, mend)
    urls = {one.public_url for one in announced}
    if len(urls) > 1:
        has = "; ".join(f"{_named(one)} has {one.public_url or 'none'}" for one in announced)
        says = f"API processes have different issuers, and refuse each other's tokens: {has}"
        return Check("tokens", Level.FINDING, says, f"set {variable('public_url')} to the same for all")
    [keys], [url] = of_keys, urls
    if not keys or url is None:
        unset = [variable(name) for name, given in (("keys_file", keys), ("public_url", url)) if not given]
        says = f"no access tokens and no OAuth clients: {' and '.join(unset)} not set; logins work without"
        make = f"login-relay keys create --file FILE, and set {variable('keys_file')} for all API processes"
        return Check("tokens", Level.NOTE, says, f"set {variable('public_url')}=https://…" if keys else make)
    return Check("tokens", Level.OK, f"{len(announced)} API processes, {len(keys)} master secrets, issuer {url}")


def _named(one: Announcement) -> str:
    return f"{one.host}:{one.pid}"
