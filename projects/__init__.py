"""The tenants: their keys, what they allow, how much they may try, what they hear of attacks. They know no session."""
