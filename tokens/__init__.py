"""What the relay mints: access tokens and their keys, families of refresh tokens. It knows no login and no HTTP."""
