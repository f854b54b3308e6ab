"""What requests, logins and live sessions cost, measured beside a floor and a rival. Nothing here is a test."""
