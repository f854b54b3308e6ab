"""What all requests have in common: body, address, notes and limits. It knows no endpoint."""
