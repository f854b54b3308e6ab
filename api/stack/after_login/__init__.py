"""What Stack's clients call after a login: access tokens, who the user is, and the user's sessions."""
