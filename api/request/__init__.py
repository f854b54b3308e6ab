"""What every request has in common: its body, its address, its notes, its limits. It knows no endpoint."""
