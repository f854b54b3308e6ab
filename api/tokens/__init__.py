"""What can be done with the refresh tokens that the relay minted, in no dialect: no status, no header, no JSON."""
